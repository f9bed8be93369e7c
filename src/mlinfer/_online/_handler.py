"""One connection: requests in, answers out, in order."""

from __future__ import annotations

import io
import logging
import secrets
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from mlinfer._errors import MlinferError, RecordErrors
from mlinfer._failpoints import failpoint
from mlinfer._online._desk import Busy
from mlinfer._online._json import BadJson, dump, dump_answers, parse
from mlinfer._online._wire import LONGEST_REQUEST_LINE, Refused, Wire, let_go, read_head, reply
from mlinfer._text import count, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlinfer._online._server import Listener

MOST_BYTES = 16 * 2**20
MOST_ROWS = 65_536
MOST_NAMED = 100
OWN_WORDS = {
    "model_error": "the model could not answer this record",
    "timeout": "the model took too long for this record",
    "model_died": "the model died over this record",
    "out_of_memory": "there is not enough memory to answer this record",
}
"""Reasons whose message was written by whatever raised it, and may tell secrets; the log has it."""
METHODS = {"/predict": "POST", "/live": "GET", "/ready": "GET"}
_logger = logging.getLogger("mlinfer")


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1 with one client."""

    server: Listener
    protocol_version = default_request_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Read through a wire that knows how long it may take."""
        super().setup()
        self.patience = self.server.patience
        self._unread = False
        self._wire = Wire(self.connection)
        self.rfile = io.BufferedReader(self._wire)

    def finish(self) -> None:
        """Let the client see the last answer, also when it was still talking."""
        super().finish()
        if self._unread:
            let_go(self.connection)

    def handle_one_request(self) -> None:
        """Wait for a request, and answer it."""
        try:
            self._wire.allow(self.patience.idle)
            with self.server.idling(self.connection):
                something = self.rfile.peek(1)  # type: ignore[attr-defined]
            if not something:
                self.close_connection = True
                return
            self._wire.allow(self.patience.head)
            self._unread = True
            self.raw_requestline = self.rfile.readline(LONGEST_REQUEST_LINE + 1)
            self._answer()
        except TimeoutError:  # in a head, or while nobody takes the answer
            self.close_connection = True

    def _answer(self) -> None:
        try:
            self._parse_head()
            self._check_host()
            status, data, allow = 200, self._method()(), None
        except Refused as refused:
            status, data, allow = refused.status, refused.data, refused.allow
        failpoint("server.respond")
        self.close_connection = self.close_connection or self._unread or self.server.stopping.is_set()
        self.connection.settimeout(self.patience.taking)
        answer = reply(status, data, close=self.close_connection, allow=allow)
        self.wfile.write(answer[: -len(data)] if self.command == "HEAD" else answer)

    def _parse_head(self) -> None:
        self.command, self.close_connection = "", True
        body, self.rfile = self.rfile, io.BytesIO(read_head(self.raw_requestline, self.rfile))
        try:
            self.parse_request()
        finally:
            self.rfile = body

    def handle_expect_100(self) -> bool:
        """The client waits for a word before it sends the body; it gets it when the body's length is known."""
        return True

    def _check_host(self) -> None:
        """A page in a browser must not reach a loopback server under a name of its own choosing."""
        given = self.headers.get_all("Host") or []
        name, colon, port = given[0].partition(":") if len(given) == 1 else ("", "", "")
        if name.lower() not in self.server.names or (colon and not port.isdigit()):
            raise Refused(400, "wanted exactly one Host header that names this machine")

    def _method(self) -> Callable[[], bytes]:
        if self.command not in {"GET", "POST"}:
            raise Refused(501, "wanted GET or POST")
        wanted = METHODS.get(self.path)
        if wanted is None:
            raise Refused(404, "there is nothing here; ask POST /predict, GET /live or GET /ready")
        if self.command != wanted:
            raise Refused(405, f"wanted {wanted} {self.path}", allow=wanted)
        return self._predict if wanted == "POST" else self._probe

    def _probe(self) -> bytes:
        if "Transfer-Encoding" in self.headers or self.headers.get_all("Content-Length", ["0"]) != ["0"]:
            raise Refused(400, "wanted a request without a body")
        self._unread = False
        return dump({self.path[1:]: True})

    def _predict(self) -> bytes:
        length = self._length()
        with self.server.room.taken(length):
            rows, single = rows_of(self._body(length))
            try:
                answers = self.server.desk.ask(rows, self.patience.answer)
            except RecordErrors as errors:
                raise _refused(errors) from errors
            except (Busy, TimeoutError) as error:
                raise Refused(503, "too much to do; ask again in a moment") from error
            except Exception as error:
                raise Refused(500, "the request failed; the log tells why", id=_logged(error)) from error
        return dump_answers(answers, single=single)

    def _length(self) -> int:
        """The length of the body, which nobody has read yet."""
        failpoint("server.parse")
        headers = self.headers
        if "Transfer-Encoding" in headers:
            raise Refused(400, "wanted a body with a Content-Length, not in chunks")
        if len(headers.get_all("Content-Type", [])) != 1 or headers.get_content_type() != "application/json":
            raise Refused(415, "wanted Content-Type: application/json")
        if (headers.get_content_charset() or "utf-8") != "utf-8" or "Content-Encoding" in headers:
            raise Refused(415, "wanted a body in UTF-8, not compressed")
        lengths = headers.get_all("Content-Length", [])
        if not lengths:
            raise Refused(411, "wanted a Content-Length")
        if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit():
            raise Refused(400, "wanted exactly one Content-Length, a number of bytes")
        if len(lengths[0]) > 20 or int(lengths[0]) > MOST_BYTES:  # noqa: PLR2004 - digits; reading thousands of them fails
            raise Refused(413, f"wanted at most {MOST_BYTES:,} bytes")
        return int(lengths[0])

    def _body(self, length: int) -> bytes:
        self._wire.allow(self.patience.body)
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            body = self.rfile.read(length)
        except TimeoutError as error:
            raise Refused(408, f"wanted the whole body within {self.patience.body:g} s") from error
        if len(body) == length:
            self._unread = False
            return body
        if self.server.stopping.is_set():
            raise Refused(503, "the server ends; ask again in a moment")
        raise Refused(400, f"wanted a body of {length:,} bytes, found {len(body):,}")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the base class's signature
        """What the base class refuses by itself. Raises Refused."""
        raise Refused(code, "wanted an HTTP/1.1 request")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """No access log on stderr."""


def rows_of(body: bytes) -> tuple[list[Any], bool]:
    """The records of a body, and whether it is a single one. Raises Refused."""
    try:
        value = parse(body)
    except BadJson as error:
        raise Refused(400, str(error)) from error
    if isinstance(value, dict):
        return [value], True
    if not isinstance(value, list) or not value:
        raise Refused(400, "wanted a record (an object with named fields) or a list of records")
    if len(value) > MOST_ROWS:
        raise Refused(413, f"wanted at most {MOST_ROWS:,} records in a request")
    return value, False


def _refused(errors: RecordErrors) -> Refused:
    found = list(zip(errors.rows, errors.kinds, errors.messages, strict=True))
    named = [
        {"row": row, "kind": kind, "message": plain(OWN_WORDS.get(kind, message))}
        for row, kind, message in found[:MOST_NAMED]
    ]
    text = count(len(found), "bad record")
    foreign = [(row, message) for row, kind, message in found if kind in OWN_WORDS]
    if not foreign:
        return Refused(422, text, records=named)
    number = secrets.token_hex(8)
    for row, message in foreign[:MOST_NAMED]:
        _logger.warning(
            "error %s: the model failed for record %d of a request: %s", number, row, plain(message, 1000)
        )
    return Refused(422, text, records=named, id=number)


def _logged(error: Exception) -> str:
    """Log a failure; what it is and where belongs there and not into the answer."""
    number = secrets.token_hex(8)
    kind = "failed" if isinstance(error, MlinferError) else "failed unexpectedly"
    _logger.error("error %s: a request %s", number, kind, exc_info=error)
    return number
