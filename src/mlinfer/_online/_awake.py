"""For a client that asks again at once the event loop does not sleep: to be woken takes longer than many a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

AT_ONCE = 0.0003
"""Seconds between an answer and the next request of a client that only reads the one and sends the other."""


class Awake:
    """Keeps a loop turning for a moment. Whoever calls it knows a client whose latest request came at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._loop, self._now = loop, now
        self._until, self._turning = 0.0, False

    def stay(self) -> None:
        """An answer went out: look for the next request until it comes, or would come late."""
        self._until = self._now() + AT_ONCE
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = self._now() < self._until
        if self._turning:  # a loop with something to do looks at its sockets in between, and does not wait
            self._loop.call_soon(self._turn)
