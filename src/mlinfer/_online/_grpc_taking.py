"""Answers over gRPC that their clients have yet to take: so many, for so long, and together so large."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlinfer._online._wire import MOST_BYTES_AT_ONCE

if TYPE_CHECKING:
    from mlinfer._online._listener import Listener

_INTERNET = {socket.AF_INET, socket.AF_INET6}
"""gRPC listens on sockets of IPv6 at addresses of IPv4, too."""
_logger = logging.getLogger("grpc._cython.cygrpc")
TURN_SECONDS = 1.0
"""How long an answer waits for its turn where those before it are too large, and to be taken where too many wait; between looks, too."""
PIECES = 4
"""Of a turn: a loop that stands still loses one of them at most."""


class Given:
    """An answer on its way. `peer` and `port` are the ends of its connection, as gRPC names the one, and ours."""

    __slots__ = ("peer", "port", "since")

    def __init__(self, peer: str, port: int) -> None:
        self.peer, self.port, self.since = peer, port, 0.0

    def give_up(self) -> None:
        """Forget it, and all that its connection has."""
        cut({self.peer}, self.port)


class Taking:
    """What clients have yet to take. Who lets an answer wait too long loses his connection.

    gRPC keeps a call, and its answer, as long as the client likes, and knows no way to end it from here but with the
    connection. The bytes of answers are the listener's to count, together with those over HTTP. Where there is no room for
    more, an answer waits a moment for those before it to be taken: many that a batch gave at once may have one connection,
    whose client takes them as fast as it can.
    """

    def __init__(self, listener: Listener, most: int) -> None:
        self._listener, self._most = listener, most
        self._given: dict[Given, None] = {}  # the oldest first
        self._turns: dict[
            Given, tuple[int, asyncio.Future[None]]
        ] = {}  # of answers that wait for room, and their bytes
        self._looks = False
        self.port = 0
        _logger.addFilter(_no_parting)

    async def give(self, context: Any, size: int) -> None:
        """Count an answer of so many bytes until its client has it, or has gone; it may have to wait for its turn."""
        given = Given(context.peer(), self.port)
        context.add_done_callback(lambda _: self._taken(given))
        waiting = sum(of for of, _ in self._turns.values())
        if not self._listener.may_wait(size) and waiting + size <= MOST_BYTES_AT_ONCE:
            turn = asyncio.get_running_loop().create_future()
            self._turns[given] = size, turn
            await _come(turn)
            if self._turns.pop(given, None) is None:
                return
        self._begin(given, size)  # the oldest makes room

    def _begin(self, given: Given, size: int) -> None:
        given.since = self._listener.now()
        self._given[given] = None
        self._listener.untaken(given, size)
        if not self._looks:
            self._looks = True
            asyncio.get_running_loop().call_later(TURN_SECONDS, self._look)

    def _taken(self, given: Given) -> None:
        self._turns.pop(given, None)
        self._given.pop(given, None)
        self._listener.untaken(given, 0)
        while self._turns:
            one, (size, turn) = next(iter(self._turns.items()))
            if not self._listener.may_wait(size):
                break
            del self._turns[one]
            self._begin(one, size)
            if not turn.done():
                turn.set_result(None)

    def _look(self) -> None:
        """Part from those who have let an answer wait too long, or where there are too many for a moment."""
        now, late, left = self._listener.now(), set(), len(self._given)
        for given in self._given:
            seconds = now - given.since
            if seconds < TURN_SECONDS or (seconds < self._listener.patience.taking and left <= self._most):
                break
            late.add(given.peer)
            left -= 1
        if late:
            cut(late, self.port)
        self._looks = bool(self._given)
        if self._looks:
            asyncio.get_running_loop().call_later(TURN_SECONDS, self._look)


async def _come(turn: asyncio.Future[None]) -> None:
    """Wait for a turn, and not for too long.

    In pieces: while the loop stands still it does not hear of what is taken, so all of that time counts as one of them.
    """
    for _ in range(PIECES):
        done, _ = await asyncio.wait({turn}, timeout=TURN_SECONDS / PIECES)
        if done:
            return


def _no_parting(record: logging.LogRecord) -> bool:
    """Whether gRPC logs something else than the traceback that it has for every client that parts without its answer."""
    return record.exc_info is None or getattr(record.exc_info[0], "__name__", "") != "ExecuteBatchError"


def cut(peers: set[str], port: int) -> None:
    """End the connections of this process between a port of its own and these peers, named as gRPC names them."""
    try:
        descriptors = list(Path("/dev/fd").iterdir())
    except OSError:  # to look takes a descriptor, too, and there may be none left: at the next look
        return
    for descriptor in descriptors:
        with suppress(OSError):  # it has just gone, or is no socket, or not a connected one
            _cut(os.dup(int(descriptor.name)), peers, port)


def _cut(copy: int, peers: set[str], port: int) -> None:
    """The same for one descriptor, a copy of our own: the number of the original may be another one's by now."""
    try:
        one = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with one:
        if one.family not in _INTERNET or one.getsockname()[1] != port:
            return
        host, far = one.getpeername()[:2]
        if f"ipv4:{host.removeprefix('::ffff:')}:{far}" in peers:
            one.shutdown(socket.SHUT_RDWR)
