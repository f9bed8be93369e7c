"""TLS handshakes: whoever has only connected so far, and of whom so many may be there."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

AT_ONCE = 64
"""Connections that are accepted before anything else has its turn."""
WAIT_SECONDS = 0.1
"""When this process can open no more files."""
_logger = logging.getLogger("mlinfer")


class Doors:
    """Accepts connections and shakes hands with them; `made` gives what speaks with those who are known."""

    def __init__(
        self, listening: socket.socket, tls: ssl.SSLContext, made: Callable[[], asyncio.Protocol], *, most: int, seconds: float
    ) -> None:  # fmt: skip
        self._listening, self._tls, self._made = listening, tls, made
        self._most, self._seconds = most, seconds
        self._tasks: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._loop = asyncio.get_running_loop()
        self._open = True

    def open(self, backlog: int) -> None:
        """Accept."""
        self._listening.settimeout(0)
        self._listening.listen(backlog)
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Accept nobody any more."""
        self._open = False
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def give_up(self) -> None:
        """Wait for no handshake any more."""
        for task in self._tasks:
            task.cancel()

    @property
    def busy(self) -> bool:
        """Whether there are handshakes."""
        return bool(self._tasks)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                found, _ = self._listening.accept()
            except (BlockingIOError, ConnectionError, InterruptedError):
                return
            except OSError as error:
                _logger.warning("no connection can be accepted for the moment: %s", error.strerror)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(WAIT_SECONDS, self._again)
                return
            found.settimeout(0)
            if len(self._tasks) >= self._most:  # the oldest one makes room: it takes longer than others do
                oldest = next(iter(self._tasks))
                del self._tasks[oldest]
                oldest.cancel()
            task = self._loop.create_task(self._shake_hands(found))
            self._tasks[task] = None
            task.add_done_callback(lambda task: self._tasks.pop(task, None))

    def _again(self) -> None:
        if self._open:
            self._loop.add_reader(self._listening, self._accept)

    async def _shake_hands(self, found: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._made, found, ssl=self._tls, ssl_handshake_timeout=self._seconds
            )
        except OSError as error:  # a stranger's handshake
            _logger.debug("a handshake ended badly: %s", type(error).__name__)
        except BaseException:
            found.close()
            raise
