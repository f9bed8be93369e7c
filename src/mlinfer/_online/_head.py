"""The head of a request: judged by a strict grammar of our own first, then read by a parser that others keep well.

Parsers that forgive differ in what they forgive, and a proxy may stand in front of this server: what two of them could read
differently is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlinfer._online._wire import LONGEST_REQUEST_LINE, MOST_BYTES, MOST_HEADER_BYTES, MOST_HEADERS, Refused

END = b"\r\n\r\n"
_TLS = b"\x16"
"""How a handshake begins; there need be no end of a line in it."""
_REQUEST_LINE = re.compile(rb"[A-Z]+ [!-~]+ HTTP/(\d\.\d)\r\n")
_HEADERS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Those that a path may refuse to take; all others are unknown here, also where a parser knows them."""
_LINE = "wanted an HTTP/1.1 request, such as POST /predict HTTP/1.1"
_LENGTH = "wanted one Content-Length at most, a number of bytes, and no Transfer-Encoding beside it"
"""All that may be wrong with a head whose lines are of the right form."""
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says before its body; header names in lower case, each with all its values."""

    method: str
    path: str
    keeps: bool
    headers: dict[str, list[str]]

    def one(self, name: str) -> str | None:
        """The value of a header, None unless it is there exactly once."""
        values = self.headers.get(name, ())
        return values[0] if len(values) == 1 else None

    @property
    def bodiless(self) -> bool:
        """Whether the answer goes without its body."""
        return self.method == "HEAD"

    @property
    def waits(self) -> bool:
        """Whether the client wants a word before it sends the body."""
        return (self.one("expect") or "").lower() == "100-continue"


def look(begun: bytes | bytearray) -> None:
    """Judge a head that has not come in whole. Raises Refused as soon as it cannot become a good one."""
    if begun[:1] == _TLS:
        raise Refused(400, "wanted HTTP in the clear, found TLS; ask http://, not https://")
    line, newline, _ = begun.partition(b"\n")
    if len(line) > LONGEST_REQUEST_LINE:
        raise Refused(414, f"wanted a request line of at most {LONGEST_REQUEST_LINE:,} bytes")
    if newline:
        _judge_line(bytes(line + newline))
    if len(begun) - len(line) > MOST_HEADER_BYTES:
        raise _too_much()


def read(raw: bytes) -> Head:
    """A whole head, up to and with the empty line. Raises Refused."""
    from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

    look(raw)
    start = raw.index(b"\n") + 1
    if raw.count(b"\r\n", start) > MOST_HEADERS + 1:
        raise _too_much()
    if not _HEADERS.fullmatch(raw, start):
        raise Refused(400, "wanted header lines of the form NAME: VALUE")
    method, path, _ = raw[: start - 2].decode().split(" ")
    if method not in _METHODS:
        raise Refused(501, "wanted GET, HEAD or POST")
    found = _Found()
    parser = HttpRequestParser(found)
    try:
        parser.feed_data(raw)
    except HttpParserUpgrade:
        pass  # an offer that need not be taken
    except HttpParserError as error:
        raise Refused(400, _LENGTH if path.startswith("/") else _LINE) from error
    return Head(method, path, raw[start - 3 : start - 2] == b"1" and not found.parts, found.headers)


def body_length(head: Head) -> int:
    """The length of a body that nobody has read yet. Raises Refused."""
    if "transfer-encoding" in head.headers:
        raise Refused(400, "wanted a body with a Content-Length, not in chunks")
    lengths = head.headers.get("content-length", [])
    if not lengths:
        raise Refused(411, "wanted a Content-Length")
    if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit():
        raise Refused(400, "wanted exactly one Content-Length, a number of bytes")
    if len(lengths[0]) > 20 or int(lengths[0]) > MOST_BYTES:  # noqa: PLR2004 - digits; reading thousands of them fails
        raise Refused(413, f"wanted at most {MOST_BYTES:,} bytes")
    return int(lengths[0])


def timeout(head: Head) -> float | None:
    """Seconds that the client will wait, if it says so. Raises Refused."""
    said = head.headers.get("request-timeout")
    if said is None:
        return None
    if len(said) != 1 or not _SECONDS.fullmatch(said[0]) or not float(said[0]):
        raise Refused(400, "wanted one Request-Timeout, a number of seconds above 0, such as 2 or 0.5")
    return float(said[0])


def no_body(head: Head) -> None:
    """Raises Refused: there is one."""
    if "transfer-encoding" in head.headers or head.headers.get("content-length", ["0"]) != ["0"]:
        raise Refused(400, "wanted a request without a body")


class _Found:
    """What the parser calls back."""

    def __init__(self) -> None:
        self.headers: dict[str, list[str]] = {}

    @property
    def parts(self) -> bool:
        """Whether the client wants no further answer here; at the end of a head without a body the parser has forgotten it."""
        said = ",".join(self.headers.get("connection", ())).lower()
        return "close" in (one.strip() for one in said.split(","))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.setdefault(name.decode("ascii").lower(), []).append(
            value.strip(b" \t").decode("latin-1")
        )


def _judge_line(line: bytes) -> None:
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise Refused(400, _LINE)
    if found[1] not in {b"1.1", b"1.0"}:
        raise Refused(505, "wanted HTTP/1.1")


def _too_much() -> Refused:
    return Refused(431, f"wanted at most {MOST_HEADERS} headers of {MOST_HEADER_BYTES:,} bytes together")
