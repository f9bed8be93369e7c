"""Accepts connections on an event loop of its own thread, and keeps count of what they hold."""

from __future__ import annotations

import asyncio
import resource
import select
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from mlinfer._online._awake import Awake
from mlinfer._online._connection import Connection
from mlinfer._online._counts import Counts
from mlinfer._online._door import Doors
from mlinfer._online._memory import SOFT, memory_limit, memory_taken
from mlinfer._online._refusals import BUSY, SHARE_TAKEN
from mlinfer._online._routes import Order, Routes
from mlinfer._online._wire import MOST_BYTES_AT_ONCE, MOST_CONNECTIONS, Patience, Refused

LOOK_SECONDS = 0.05
KEYS_SECONDS = 1.0
LAST_SECONDS = 0.2
"""A request may be under way on a connection that looks idle: for so long, whoever asks is answered and told to part."""
SILENT_SECONDS = 1.0
"""So long a connection may have no request under way before it may have to make room for others."""
BACKLOG = 1024
MANY = 32
"""Such a part of the room is made at once."""
HANDSHAKE_SHARE = 4
"""Handshakes may take room beside connections: a quarter of theirs."""


class Untaken(Protocol):
    """Whose answers wait to be taken."""

    def give_up(self) -> None:
        """Forget them, and the connection on which they wait."""


Access = Callable[[Order | None, int, float], str]
"""Logs a request, its status and its seconds; gives its id."""


class Listener:
    """The connections of one address. `routes` is set before it opens; `crowded`: whether the desk has much to do."""

    def __init__(
        self, patience: Patience, counts: Counts, crowded: Callable[[], bool], access: Access | None = None, *,
        neighbours: int = 0,
    ) -> None:  # fmt: skip
        self.patience, self.access = patience, access
        self.seconds = asdict(patience)
        """The same by phase, which every request asks."""
        self._counts = counts
        self.routes: Routes
        self.stopping = self.secure = False
        self._connections: set[Connection] = set()
        # half of the files this process may open: handshakes, gRPC, the model and the log need some, too
        self.room = min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._search = 0.0  # when it may help to look for silent ones again
        self._held = 0
        self._shares: Counter[str] = Counter()  # of that, by the name of a key
        self._untaken: dict[Untaken, int] = {}  # bytes of answers, those that have waited longest first
        self._untaken_bytes = 0
        self._crowded = crowded
        limit = memory_limit()
        self._soft = None if limit is None else SOFT * limit / (1 + neighbours)  # who share it
        self._short = False  # of memory
        self._server: Any = None
        self._listening: socket.socket
        self._doors: Doors | None = None
        self._loop = asyncio.get_running_loop()
        # a loop's own clock may stand still while it works, and may know whole milliseconds only
        self.now = time.monotonic
        """Seconds on the clock of deadlines."""
        self.awake = Awake(self._loop, self.now)

    async def open(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept connections."""
        self.secure, self._listening = tls is not None, listening
        if tls is None:
            self._server = await self._loop.create_server(
                lambda: Connection(self), sock=listening, backlog=BACKLOG
            )
        else:
            most = max(self.room // HANDSHAKE_SHARE, 1)
            self._doors = self._server = Doors(
                listening, tls, lambda: Connection(self), most=most, seconds=self.patience.head
            )
            self._doors.open(BACKLOG)
        self._look()
        self._look_at_keys()

    async def close(self) -> None:
        """Stop accepting, and return when every request that was accepted has its answer."""
        await self._take_in_the_rest()
        self._server.close()
        await asyncio.sleep(0.01)
        self.stopping = True
        begun = self.now()
        while self._connections or (self._doors is not None and self._doors.busy):
            seconds = self.now() - begun
            if self._doors is not None and seconds > LAST_SECONDS:
                self._doors.give_up()
            for connection in list(self._connections) if seconds > LAST_SECONDS else ():
                connection.stop(now=seconds > self.patience.stop)
            await asyncio.sleep(0.01)

    async def _take_in_the_rest(self) -> None:
        """Those that the system has accepted for us: the quickest loops take one each time they turn, however long that takes."""
        for _ in range(5):
            await asyncio.sleep(0.01)
        queue = select.poll()
        queue.register(self._listening, select.POLLIN)
        for _ in range(BACKLOG):  # and not for ever: others may come all the time
            if not queue.poll(0):
                break
            await asyncio.sleep(0)

    # --- what connections ask ---------------------------------------------------------------------------------------

    def take_in(self, connection: Connection) -> bool:
        """Whether there is room for one more; where there is none, those who have said nothing for longest make it."""
        if len(self._connections) >= self.room and not self._make_room():
            return False
        self._connections.add(connection)
        return True

    def _make_room(self) -> bool:
        """Part from some at once, for to look at all of them takes time."""
        now = self.now()
        if now < self._search:
            return False
        silent = [one for one in self._connections if now - one.silent_since >= SILENT_SECONDS]
        silent.sort(key=lambda one: one.silent_since)
        for one in silent[: max(self.room // MANY, 1)]:
            self.forget(one)
            one.give_up()
        self._search = now if silent else now + LOOK_SECONDS
        return bool(silent)

    def forget(self, connection: Connection) -> None:
        """It has ended."""
        self._connections.discard(connection)
        self.untaken(connection, 0)

    def hold(self, size: int, key: str | None = None) -> int:
        """Take room for so many bytes of a request, or give it back (negative). Raises Refused: there is not enough."""
        if size > 0 and (self._held + size > MOST_BYTES_AT_ONCE or (self._held and self._short)):
            raise BUSY.anew()
        if size > 0 and self._has_its_share(key):
            raise SHARE_TAKEN.anew()
        self._held += size
        if key is not None:
            self._shares[key] += size
        return size

    def untaken(self, one: Untaken, size: int) -> None:
        """So many bytes wait for a client to take them (0: none do). Together too many: whoever has let them wait longest goes."""
        self._untaken_bytes += size - self._untaken.pop(one, 0)
        if size:
            self._untaken[one] = size
        while len(self._untaken) > 1 and self._untaken_bytes > MOST_BYTES_AT_ONCE:
            oldest = next(iter(self._untaken))
            self._untaken_bytes -= self._untaken.pop(oldest)
            oldest.give_up()

    def may_wait(self, size: int) -> bool:
        """Whether so many bytes can wait to be taken without anybody having to go."""
        return not self._untaken or self._untaken_bytes + size <= MOST_BYTES_AT_ONCE

    def _has_its_share(self, key: str | None) -> bool:
        """Whether a key has more than half of what is under way, and what is left must do for the others."""
        if key is None or 2 * self._shares[key] <= self._held or not self.routes.shared:
            return False
        return 2 * self._held > MOST_BYTES_AT_ONCE or self._crowded()

    def told(self, path: str, status: int) -> None:
        """An answer went out."""
        self._counts.requests[path, status] += 1

    def rejected(self, refused: Refused) -> None:
        """A request was refused."""
        if refused.kinds is not None:
            self._counts.rejects.update(refused.kinds)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def _look(self) -> None:
        now = self.now()
        if self._soft is not None:
            self._short = memory_taken() > self._soft
        for connection in list(self._connections):
            if connection.until < now:
                connection.expire()
        self._loop.call_later(LOOK_SECONDS, self._look)

    def _look_at_keys(self) -> None:
        self.routes.look()
        self._loop.call_later(KEYS_SECONDS, self._look_at_keys)


class LoopThread:
    """An event loop that runs on a thread of its own, the quickest one that is installed."""

    def __init__(self, name: str) -> None:
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def do(self, thing: Callable[[], Any]) -> Any:
        """Run a coroutine function there and give what it returns. Raises what it raises."""
        return asyncio.run_coroutine_threadsafe(thing(), self._loop).result()

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not on every system
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
