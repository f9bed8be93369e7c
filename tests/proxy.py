"""A TCP proxy that breaks a connection at a chosen moment: what networks and failing servers do, on 127.0.0.1.

with Proxy(port_of_the_server) as proxy:
    proxy.trap = Trap(b"COPY", "unsent")     # springs once
    ... connect to proxy.port ...
    assert proxy.sprung
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Literal, Self

What = Literal["unsent", "answered", "late", "silent"]
LATE_SECONDS = 0.3


@dataclass(frozen=True)
class Trap:
    """When the client's bytes hold `word`, or when it has sent `after` bytes on one connection, `then` happens.

    unsent: the bytes do not reach the server, both sides see a reset connection.
    answered: the server gets the bytes and answers; the client sees a reset connection instead of the answer.
    late: the client sees a reset connection; the server gets the bytes only some time later.
    silent: from now on nothing is passed on, and nobody is told.
    """

    word: bytes | None
    then: What
    after: int = 0


class Proxy:
    """Passes bytes on between its own port and a server's, until a trap springs."""

    def __init__(self, server_port: int) -> None:
        self.trap: Trap | None = None
        self.sprung = False
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            _reset(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the proxy ends
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except OSError:
                    _reset(client)
                    continue
                self._open += [client, server]
                connection = _Connection(self, client, server)
                threading.Thread(target=connection.up, daemon=True).start()
                threading.Thread(target=connection.down, daemon=True).start()

    def springs(self, data: bytes, sent: int) -> Trap | None:
        """The trap, if these bytes spring it; it springs once."""
        with self._lock:
            trap = self.trap
            if trap is None or (trap.word not in data if trap.word else sent < trap.after):
                return None
            self.trap, self.sprung = None, True
            return trap


@dataclass
class _Connection:
    proxy: Proxy
    client: socket.socket
    server: socket.socket
    deaf: bool = False
    answered: threading.Event = field(default_factory=threading.Event)

    def up(self) -> None:
        """Client to server."""
        sent = 0
        with contextlib.suppress(OSError):
            while data := self.client.recv(65_536):
                sent += len(data)
                trap = self.proxy.springs(data, sent)
                if trap is not None:
                    self._spring(trap, data)
                    return
                self.server.sendall(data)
        _reset(self.server)

    def down(self) -> None:
        """Server to client."""
        with contextlib.suppress(OSError):
            while data := self.server.recv(65_536):
                if self.deaf:
                    self.answered.set()
                else:
                    self.client.sendall(data)
        self.answered.set()  # or the server has gone
        if not self.deaf:
            _reset(self.client)

    def _spring(self, trap: Trap, data: bytes) -> None:
        self.deaf = True
        if trap.then == "silent":
            return
        if trap.then == "unsent":
            _reset(self.client)
        elif trap.then == "answered":
            self.server.sendall(data)
            self.answered.wait()
            _reset(self.client)
        else:
            _reset(self.client)
            time.sleep(LATE_SECONDS)
            self.server.sendall(data)
            self.answered.wait()
        _reset(self.server)  # or the server would keep a session for every trap


def _reset(one: socket.socket) -> None:
    """Close with RST, as a crashed machine or a firewall does."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RD)  # wakes the thread that reads
    one.close()
