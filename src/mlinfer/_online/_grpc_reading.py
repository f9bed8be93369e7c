"""Reads the messages of gRPC: so many at once, for gRPC takes memory for each while it comes in."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from mlinfer._online._refusals import BUSY, ENDS
from mlinfer._online._wire import Refused

READING_SHARE = 10
"""Who wants a place where all are taken waits until somebody has had a tenth of the seconds that a message may take."""
LATE_SECONDS = 0.05
"""So long behind its time a message is still taken."""


class Messages:
    """Places in which the message of a call is read, in so many seconds; half of them at most for one key of several.

    Where all are taken, whoever has taken longest makes room, and who has come last is next: of those who send nothing many
    may wait already. The time that a message may take begins with its place.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._free, self._seconds = most, seconds
        self._shares: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(max(most // 2, 1))
        )
        self._limits: dict[_Limit, None] = {}
        """Of the messages that are read, the oldest first."""
        self._waiting: list[asyncio.Future[None]] = []
        self._ended = False

    async def read(self, context: Any, key: str | None) -> bytes:
        """The message. Raises Refused: it does not come, or not in time, or there is no place for it."""
        share = nullcontext() if key is None else self._shares[key]
        try:
            async with asyncio.timeout(self._seconds) as wait, share, self._place():
                wait.reschedule(None)
                found = await self._read(context)
        except TimeoutError as error:
            raise BUSY.anew() from error
        if isinstance(found, bytes):
            return found
        raise Refused(400, "wanted a message, found none")

    def end(self) -> None:
        """Wait no longer for messages that are still coming in."""
        self._ended = True
        for limit in self._limits:
            limit.end()

    async def _read(self, context: Any) -> Any:
        if self._ended:
            raise ENDS.anew()
        limit = _Limit(self._seconds)
        if self._waiting:
            limit.hurry()
        self._limits[limit] = None
        try:
            async with limit.over:
                return await context.read()
        except TimeoutError as error:
            if self._ended:
                raise ENDS.anew() from error
            raise Refused(408, f"wanted the whole message within {limit.seconds:g} s") from error
        finally:
            limit.forget()
            del self._limits[limit]

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            await self._turn()
        try:
            yield
        finally:
            self._leave()

    async def _turn(self) -> None:
        self._hurry()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():  # it came at the same moment
                self._leave()
            raise

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():  # else whoever waited has gone
                turn.set_result(None)
                return
        self._free += 1

    def _hurry(self) -> None:
        """Let one more of those that are read have its tenth of the time, and no more."""
        for limit in self._limits:
            if not limit.hurried and not limit.over.expired():
                limit.hurry()
                return


class _Limit:
    """The time that a message may take; `over` raises TimeoutError a moment behind its end.

    A loop that stood still for longer sees that the time is over before it sees the message, which may have come long ago.
    """

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun, self.seconds, self.hurried = self._loop.time(), seconds, False
        self.over = asyncio.timeout(None)
        self._timer = self._loop.call_at(self._begun + seconds, self._end_soon)

    def hurry(self) -> None:
        """Let it have its tenth of the time, and no more: others wait."""
        self.hurried = True
        self.seconds /= READING_SHARE
        self._timer.cancel()
        self._timer = self._loop.call_at(self._begun + self.seconds, self._end_soon)

    def end(self) -> None:
        """It is over now."""
        self._timer.cancel()
        if not self.over.expired():
            self.over.reschedule(0)

    def forget(self) -> None:
        """The message has come, or will not."""
        self._timer.cancel()

    def _end_soon(self) -> None:
        self._timer = self._loop.call_later(LATE_SECONDS, self.end)
