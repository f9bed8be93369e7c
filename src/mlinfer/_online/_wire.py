"""The HTTP of one connection: what may come in, how long it may take, and what goes out."""

from __future__ import annotations

import io
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from mlinfer._online._json import dump

MOST_HEADER_BYTES = 16 * 2**10
MOST_HEADERS = 64
LONGEST_REQUEST_LINE = 8 * 2**10
_REQUEST_LINE = re.compile(rb"[A-Z]+ [!-~]+ HTTP/(\d)\.\d\r\n")
_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a connection may take: silent between requests, for a request's head, for its body, to take the answer.

    `answer` is how long a request may wait for the model, `stop` how long a request that is still coming in may go on
    once the server ends.
    """

    idle: float = 60.0
    head: float = 10.0
    body: float = 30.0
    answer: float = 60.0
    taking: float = 30.0
    stop: float = 5.0


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """What the client is told instead of an answer."""

    def __init__(self, status: int, text: str, *, allow: str | None = None, **more: Any) -> None:
        super().__init__(text)
        self.status, self.allow = status, allow
        self.data = dump({"error": text, **more})


class Wire(io.RawIOBase):
    """Reads a socket until a deadline, however slowly the bytes drip."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = 0.0

    def allow(self, seconds: float) -> None:
        """Begin a phase that may take this long in all."""
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Whatever is there. Raises TimeoutError when the phase is over."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def read_head(request_line: bytes, lines: io.BufferedIOBase) -> bytes:
    """The header lines of a request and the empty line behind them.

    Strict, because parsers that forgive differ in what they forgive, and a proxy may stand in front of this one. Raises
    Refused.
    """
    if len(request_line) > LONGEST_REQUEST_LINE:
        raise Refused(414, f"wanted a request line of at most {LONGEST_REQUEST_LINE:,} bytes")
    found = _REQUEST_LINE.fullmatch(request_line)
    if found is None:
        raise Refused(400, "wanted an HTTP/1.1 request, such as POST /predict HTTP/1.1")
    if found[1] != b"1":
        raise Refused(505, "wanted HTTP/1.1")
    head = b""
    for _ in range(MOST_HEADERS + 1):
        line = lines.readline(MOST_HEADER_BYTES + 1)
        head += line
        if len(head) > MOST_HEADER_BYTES:
            break
        if line == b"\r\n":
            return head
        if not _HEADER.fullmatch(line):
            raise Refused(400, "wanted header lines of the form NAME: VALUE")
    raise Refused(431, f"wanted at most {MOST_HEADERS} headers of {MOST_HEADER_BYTES:,} bytes together")


def reply(status: int, data: bytes, *, close: bool, allow: str | None = None) -> bytes:
    """An answer as it goes over the wire, in one piece; `data` is JSON."""
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head.append("Retry-After: 1")
    if allow is not None:
        head.append(f"Allow: {allow}")
    if close:
        head.append("Connection: close")
    return "\r\n".join([*head, "", ""]).encode() + data


def let_go(connection: socket.socket, seconds: float = 1.0) -> None:
    """Read on for a moment what will not be looked at.

    Closing a socket with unread bytes resets it, and the client might never see why it was refused.
    """
    until = time.monotonic() + seconds
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while (left := until - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(65_536):
                return
