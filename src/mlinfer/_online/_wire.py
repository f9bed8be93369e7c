"""What may come in over a connection, how long it may take, and how answers go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from mlinfer._online._json import dump

MOST_BYTES = 16 * 2**20
MOST_BYTES_AT_ONCE = 8 * MOST_BYTES
MOST_ROWS = 65_536
MOST_CONNECTIONS = 2048
MOST_HEADER_BYTES = 16 * 2**10
MOST_HEADERS = 64
LONGEST_REQUEST_LINE = 8 * 2**10
OK = 200
"""`HTTPStatus.OK` takes longer to look up than an answer to write."""
JSON = "application/json"
BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a connection may take: silent between requests, for a request's head, for its body, to take the answer.

    `answer` is how long a request may wait for its answer (less if it says so), `queue` how long because of others before
    it, so that an overload is over soon after it ends; `stop` how long a request that is still coming in may go on
    once the server ends, `parting` how long a refused client is listened to so that it sees why.
    """

    idle: float = 60.0
    head: float = 10.0
    body: float = 30.0
    answer: float = 60.0
    queue: float = 4.0
    taking: float = 30.0
    stop: float = 5.0
    parting: float = 1.0


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """What the client is told instead of an answer."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        header: str | None = None,
        retry: int | None = None,
        kinds: Mapping[str, int] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(text)
        self.status, self.header, self.kinds = status, header, kinds
        self.retry = retry
        """Seconds after which a client may try again, if that helps."""
        self.data = dump({"error": text, **more})

    def anew(self) -> Refused:
        """The same, to be raised: what is raised keeps the frames that it came through, and all that was asked there."""
        other = Refused.__new__(Refused, *self.args)
        other.__dict__.update(self.__dict__)
        return other


def reply(
    status: int, data: bytes, *, close: bool = False, kind: str = JSON, more: tuple[str, ...] = ()
) -> bytes:
    """An answer as it goes over the wire, in one piece; `more` are further header lines."""
    if status == OK and not close and not more and kind is JSON:
        return b"%b%d\r\n\r\n%b" % (_USUAL, len(data), data)
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        *more,
    ]
    if close:
        head.append("Connection: close")
    return "\r\n".join([*head, "", ""]).encode() + data


def refusal(refused: Refused, *, close: bool, bodiless: bool = False, more: tuple[str, ...] = ()) -> bytes:
    """A refusal as it goes over the wire; the answer to HEAD has no body."""
    more = more if refused.header is None else (refused.header, *more)
    if refused.retry is not None:
        more = (*more, f"Retry-After: {refused.retry}")
    answer = reply(refused.status, refused.data, close=close, more=more)
    return answer[: -len(refused.data)] if bodiless else answer


_USUAL = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
