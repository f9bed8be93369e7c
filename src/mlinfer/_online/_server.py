"""A small HTTP server over the desk: `POST /predict`, `GET /live`, `GET /ready`."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from mlinfer._engine import Job, Step, open_model
from mlinfer._errors import ConfigError, MlinferError, RecordErrors
from mlinfer._failpoints import failpoint
from mlinfer._layout import lay_out
from mlinfer._online._desk import Busy, Desk
from mlinfer._online._json import BadJson, dump, parse
from mlinfer._online._log import prediction_log
from mlinfer._text import count, plain

MOST_BYTES = 16 * 2**20
MOST_ROWS = 65_536
MOST_CONNECTIONS = 256
LONGEST_WAIT = 60.0
READ_SECONDS = 30
_logger = logging.getLogger("mlinfer")


class Server:
    """A pipeline's host online. `url` is where it listens."""

    def __init__(self, listener: _Listener) -> None:
        self._listener = listener
        host, port = listener.server_address[:2]
        self.url = f"http://{host if isinstance(host, str) else host.decode()}:{port}"


@contextmanager
def serving(job: Job, bind: str) -> Iterator[Server]:
    """Serve a job's host while the block runs; then finish what was accepted.

    Raises ConfigError: the address is not a loopback address, or is taken.
    """
    address = _loopback(bind)
    with ExitStack() as stack:
        model = stack.enter_context(open_model(job.host))
        layout = lay_out(model.signature, job.source.schema(), job.keep, job.columns)
        log = stack.enter_context(prediction_log(job, layout))
        desk = Desk(Step(model, layout, job.batching.max_records), log, max_rows=MOST_ROWS)
        stack.callback(desk.close)
        try:
            listener = _Listener(address, desk)
        except OSError as error:
            msg = f"bind: wanted to listen at {bind}, found that this is not possible: {error.strerror}"
            raise ConfigError(msg) from error
        thread = threading.Thread(
            target=listener.serve_forever, args=(0.05,), name="mlinfer-http", daemon=True
        )
        thread.start()
        try:
            yield Server(listener)
        finally:
            listener.shutdown()
            listener.server_close()
            thread.join()


def _loopback(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host).strip("[]")
    try:
        address, number = ip_address(host), int(port)
    except ValueError as error:
        msg = f"bind: wanted HOST:PORT with a numeric address, such as 127.0.0.1:8080, found {bind!r}"
        raise ConfigError(msg) from error
    if not address.is_loopback or address.version != 4:  # noqa: PLR2004 - IPv4
        msg = (
            f"bind: wanted a loopback address, such as 127.0.0.1:8080, found {bind!r}; this server has neither TLS nor "
            "keys yet: put a proxy that has them in front of it"
        )
        raise ConfigError(msg)
    return str(address), number


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for the requests that were accepted
    request_queue_size = 128  # the default of 5 resets bursts of new connections

    def __init__(self, address: tuple[str, int], desk: Desk) -> None:
        self.desk = desk
        self.slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.stopping = threading.Event()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread per connection, and no more than there are slots."""
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Free the slot when the connection ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def shutdown(self) -> None:
        """Stop accepting; connections end with their current request."""
        self.stopping.set()
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """A broken connection is the client's affair; it is noted, not printed."""
        _logger.debug("a connection ended badly", exc_info=True)  # noqa: LOG014 - called while the error is handled


class _Refused(Exception):  # noqa: N818 - an answer, not a failure
    def __init__(self, status: int, text: str, **more: Any) -> None:
        super().__init__(text)
        self.status, self.body = status, {"error": text, **more}


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mlinfer", ""
    timeout = READ_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Live and ready."""
        self._respond(self._probe)

    def do_POST(self) -> None:
        """Predict."""
        self._respond(self._predict)

    def _respond(self, make: Any) -> None:
        try:
            self._check_host()
            status, body = 200, make()
        except _Refused as refused:
            status, body = refused.status, refused.body
            self.close_connection = True  # its body may not have been read
        data = dump(body)
        failpoint("server.respond")
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 503:  # noqa: PLR2004 - Service Unavailable
            self.send_header("Retry-After", "1")
        if self.close_connection or self.server.stopping.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def _probe(self) -> dict[str, bool]:
        if self.path not in {"/live", "/ready"}:
            raise _Refused(404, "there is nothing here; ask POST /predict, GET /live or GET /ready")
        return {self.path[1:]: True}

    def _check_host(self) -> None:
        """A page in a browser must not reach a loopback server under a name of its own choosing."""
        given = self.headers.get_all("Host") or []
        host = given[0].rpartition(":")[0] or given[0] if len(given) == 1 else ""
        if host not in {"127.0.0.1", "localhost"}:
            raise _Refused(400, "wanted exactly one Host header that names this machine")

    def _predict(self) -> Any:
        if self.path != "/predict":
            raise _Refused(404, "there is nothing here; ask POST /predict, GET /live or GET /ready")
        rows, single = _rows(self._body())
        try:
            answers = self.server.desk.ask(rows, LONGEST_WAIT).to_pylist()
        except RecordErrors as errors:
            found = [
                {"row": row, "kind": kind, "message": plain(message)}
                for row, kind, message in zip(errors.rows, errors.kinds, errors.messages, strict=True)
            ]
            raise _Refused(422, count(len(found), "bad record"), records=found) from errors
        except (Busy, TimeoutError) as error:
            raise _Refused(503, "too much to do; ask again in a moment") from error
        except Exception as error:
            number = secrets.token_hex(8)
            _logger.exception("request failed, error %s", number)
            if not isinstance(error, MlinferError):
                _logger.debug("of an unexpected kind")
            raise _Refused(500, "the request failed; the log tells why", id=number) from error
        return answers[0] if single else answers

    def _body(self) -> bytes:
        failpoint("server.parse")
        if self.headers.get_content_type() != "application/json":
            raise _Refused(415, "wanted Content-Type: application/json")
        if self.headers.get("Transfer-Encoding") or self.headers.get("Content-Encoding"):
            raise _Refused(400, "wanted a plain body with a Content-Length")
        lengths = self.headers.get_all("Content-Length") or []
        if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit():
            raise _Refused(411, "wanted exactly one Content-Length")
        if int(lengths[0]) > MOST_BYTES:
            raise _Refused(413, f"wanted at most {MOST_BYTES:,} bytes")
        body = self.rfile.read(int(lengths[0]))
        if len(body) != int(lengths[0]):
            raise _Refused(400, "the body ended early")
        return body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - the base class's signature
        """What the HTTP layer refuses by itself, in our own form."""
        data = dump({"error": f"the request was refused (HTTP {code})"})
        self.send_response_only(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """No access log on stderr."""


def _rows(body: bytes) -> tuple[list[Any], bool]:
    try:
        value = parse(body)
    except BadJson as error:
        raise _Refused(400, str(error)) from error
    if isinstance(value, dict):
        return [value], True
    if not isinstance(value, list) or not value:
        raise _Refused(400, "wanted a record (an object with named fields) or a list of records")
    if len(value) > MOST_ROWS:
        raise _Refused(413, f"wanted at most {MOST_ROWS:,} records in a request")
    return value, False
