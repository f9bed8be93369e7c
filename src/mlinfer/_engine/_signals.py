"""SIGTERM and SIGINT drain a run: what is in flight is finished and committed. A second one stops at once."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

NAP_SECONDS = 0.05
"""Between two looks at whether somebody asked a run to stop."""
TOGETHER = 0.2
"""Seconds: a signal that comes so soon after the first one is no second one."""


class Stop:
    """A way to drain a run; `reason` says who asked.

    It has no lock: a signal may arrive while the thread that handles it is just looking here.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def ask(self, reason: str) -> None:
        """Drain the run."""
        self.reason = self.reason or reason

    def is_set(self) -> bool:
        """Whether somebody has asked."""
        return self.reason is not None

    def wait(self, timeout: float) -> bool:
        """Wait until somebody asks, for at most `timeout` seconds; says whether somebody did."""
        until = time.monotonic() + timeout
        while not self.is_set() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, NAP_SECONDS))
        return self.is_set()


class Sent:
    """Signals as they were meant: `timeout`, for one, sends the same to its command and to the group of its command."""

    def __init__(self) -> None:
        self._first: float | None = None

    def counts(self) -> bool:
        """Whether the signal that is here is the first one, or one that was sent again."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return True
        return now - self._first >= TOGETHER


@contextmanager
def stopping_on_signals(stop: Stop) -> Iterator[None]:
    """Let signals ask for a drain while the block runs; only in a program's main thread, never in a notebook or shell.

    Whoever had set a handler of their own keeps it.
    """
    if threading.current_thread() is not threading.main_thread() or _interactive():
        yield
        return
    ours = {
        number: handler
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
        if (handler := signal.getsignal(number)) == usual
    }

    sent = Sent()

    def handle(number: int, _: FrameType | None) -> None:
        if not sent.counts():
            return
        if stop.is_set():
            raise KeyboardInterrupt
        stop.ask(signal.Signals(number).name)

    for number in ours:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def _interactive() -> bool:
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules
