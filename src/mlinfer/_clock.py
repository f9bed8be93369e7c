"""Time comes in from outside: the engine reads one `Clock`, tests bring their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading


class Clock(Protocol):
    """What the engine asks about time."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back. All durations come from here."""
        ...

    def now(self) -> datetime:
        """The time of day, with a zone; for humans to read, never to compute with."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set or the time is over; says whether it was set."""
        ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)

    def now(self) -> datetime:
        """The present, in UTC."""
        return datetime.now(UTC)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait in real time."""
        return event.wait(seconds)
