"""Time comes in from outside: the engine reads one `Clock`, tests bring their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Waited(Protocol):
    """What can be waited for: a `threading.Event`, a `Stop`."""

    def wait(self, timeout: float) -> bool:
        """Wait for at most `timeout` seconds; says whether it happened."""
        ...


class Clock(Protocol):
    """What the engine asks about time."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back. All durations come from here."""
        ...

    def now(self) -> datetime:
        """The time of day, with a zone; for humans to read, never to compute with."""
        ...

    def wait(self, event: Waited, seconds: float) -> bool:
        """Wait until the event is set or the time is over; says whether it was set."""
        ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)

    def now(self) -> datetime:
        """The present, in UTC."""
        return datetime.now(UTC)

    def wait(self, event: Waited, seconds: float) -> bool:
        """Wait in real time."""
        return event.wait(seconds)
