"""`--admin-bind`: whether a run or a server lives and works, its metrics and its console, for those who look after it."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from mlinfer._errors import ConfigError
from mlinfer._events import RunEnded, RunStarted, observer

SECONDS = 10
MOST_CONNECTIONS = 64
MOST_BODY_BYTES = 1 << 20
TEXT = "text/plain; version=0.0.4; charset=utf-8"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_logger = logging.getLogger("mlinfer")
Reply: TypeAlias = tuple[int, str, bytes]
"""Status, content type, body."""


class Ready(Protocol):
    """Knows whether there is somebody who works."""

    @property
    def ready(self) -> bool:
        """Yes or no."""


class Metrics(Protocol):
    """Knows what was done."""

    def exposition(self) -> bytes:
        """In Prometheus' text format."""


class Pages(Protocol):
    """Has more to show."""

    @property
    def takes(self) -> Mapping[str, str]:
        """The method of each path."""

    def get(self, path: str) -> Reply | None:
        """What is there; None: nothing."""

    def post(self, path: str, body: bytes) -> Reply | None:
        """What comes of a body of JSON; None: there is nothing that takes it."""


class NoPages:
    """None but life, readiness and metrics."""

    takes: Mapping[str, str] = MappingProxyType({})

    def get(self, path: str) -> Reply | None:
        """Nothing."""

    def post(self, path: str, body: bytes) -> Reply | None:
        """Nothing."""


class Readiness:
    """Set while a run is under way: after everything is open, until it ends."""

    def __init__(self) -> None:
        self.ready = False

    @observer
    def run_started(self, event: RunStarted) -> None:  # noqa: ARG002 - that it came is all
        """Everything is open."""
        self.ready = True

    @observer
    def run_ended(self, event: RunEnded) -> None:  # noqa: ARG002 - that it came is all
        """Everything is closed."""
        self.ready = False


@contextmanager
def admin(
    bind: str, readiness: Ready, metrics: Metrics, *, anywhere: bool, pages: Pages | None = None
) -> Iterator[str]:
    """Serve while the block runs; gives the URL. Raises ConfigError: no such address, or one that others can reach."""
    metrics.exposition()  # a missing extra is told before the run
    try:
        server = Listener(_address(bind, anywhere=anywhere), readiness, metrics, pages or NoPages())
    except (OSError, OverflowError) as error:  # overflow: a port above 65535
        why = getattr(error, "strerror", None) or error
        msg = f"--admin-bind: wanted to listen at {bind}, found that this is not possible: {why}; take another one"
        raise ConfigError(msg) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="mlinfer-admin", daemon=True)
    thread.start()
    try:
        host, port = server.server_address[:2]
        yield f"http://{host!s}:{port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Listener(ThreadingHTTPServer):
    """Answers in threads that never outlive the run, so many at once."""

    daemon_threads = True
    # the five of the standard library make a burst wait for seconds
    request_queue_size = 2 * MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int], readiness: Ready, metrics: Metrics, pages: Pages) -> None:
        super().__init__(address, Answer)
        self.readiness, self.metrics, self.pages = readiness, metrics, pages
        self.anywhere = not ip_address(address[0]).is_loopback
        self._silent: dict[socket.socket, None] = {}  # those who have not asked yet, the oldest first
        self._asked: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection; where there is no room, the oldest that has not asked yet is closed, and else this one."""
        with self._lock:
            room = len(self._silent) + len(self._asked) < MOST_CONNECTIONS
            silent = None if room else next(iter(self._silent), None)
            if room or silent is not None:
                self._silent[request] = None
            if silent is not None:
                del self._silent[silent]
                with suppress(OSError):  # it has just gone
                    silent.shutdown(socket.SHUT_RDWR)  # its thread closes it
        if room or silent is not None:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def asked(self, request: Any) -> None:
        """A request is there in whole: it is answered before anybody takes its place."""
        with self._lock:
            if request in self._silent:
                del self._silent[request]
                self._asked.add(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._silent.pop(request, None)
                self._asked.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong; a client that has gone is none of it."""
        del request, client_address
        if not isinstance(error := sys.exc_info()[1], ConnectionError):
            _logger.error("a request to the admin port failed", exc_info=error)


class Answer(BaseHTTPRequestHandler):
    """One request."""

    timeout = SECONDS
    server: Listener

    def do_GET(self) -> None:
        """Live, ready, metrics, or a page."""
        self.server.asked(self.connection)
        if self._is_for_us():
            self._send_or_tell(self._found())

    do_HEAD = do_GET  # noqa: N815 - as the parser calls it; what goes out then has no body

    def do_POST(self) -> None:
        """What a page of ours sends, and no other page."""
        if not self._is_for_us():
            return
        body = self._body()
        if isinstance(body, bytes):
            self.server.asked(self.connection)
            self._send_or_tell(self.server.pages.post(self.path, body))
        else:
            self.close_connection = True
            self._send(body)

    def do_OPTIONS(self) -> None:
        """Tell what the path takes, as to all that none of them does."""
        self.close_connection = True
        if self._is_for_us():
            self._send_or_tell(None)

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS  # noqa: N815 - as the parser calls them

    def _found(self) -> Reply | None:
        own = OWN.get(self.path)
        return self.server.pages.get(self.path) if own is None else own(self.server)

    def _body(self) -> bytes | Reply:
        """The body; a refusal of what no page of ours would send."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "same-origin")
        if origin not in {None, f"http://{self.headers['Host']}"} or site != "same-origin":
            return 403, TEXT, b"asked by another page\n"
        if self.headers.get_content_type() != "application/json":
            return 415, TEXT, b"wanted application/json\n"
        lengths = self.headers.get_all("Content-Length", [])
        if (
            "Transfer-Encoding" in self.headers
            or len(lengths) != 1
            or not lengths[0].isascii()
            or not lengths[0].isdigit()
        ):
            return 411, TEXT, b"wanted one Content-Length\n"
        if len(lengths[0]) > len(str(MOST_BODY_BYTES)) or int(lengths[0]) > MOST_BODY_BYTES:
            return 413, TEXT, b"too large\n"
        return self.rfile.read(int(lengths[0]))

    def _is_for_us(self) -> bool:
        """A page elsewhere that had its name point here asks under that name."""
        hosts = self.headers.get_all("Host", [])
        name = hosts[0].partition(":")[0].lower() if len(hosts) == 1 else ""
        if self.server.anywhere or name in {"localhost", self.server.server_address[0]}:
            return True
        self.close_connection = True
        self._send((421, TEXT, b"wrong host\n"))
        return False

    def _send_or_tell(self, reply: Reply | None) -> None:
        """Send it, or what the path takes instead, or that there is none."""
        method = "GET" if self.path in OWN else self.server.pages.takes.get(self.path)
        if reply is not None or method is None:
            self._send(reply or (404, TEXT, b"there is nothing here; see /live, /ready and /metrics\n"))
        else:
            allow = "GET, HEAD" if method == "GET" else method
            self._send((405, TEXT, f"wanted {method} {self.path}\n".encode()), Allow=allow)

    def _send(self, reply: Reply, **more: str) -> None:
        code, kind, body = reply
        self.send_response(code)
        said = {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS, **more}
        for name, value in said.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Without the header that tells which server in which version this is."""
        self.send_response_only(code, message)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the request parser refuses, in our words; its own repeat the request."""
        del message, explain
        self.close_connection = True
        self._send((code, TEXT, b"not a request that is answered here\n"))

    def log_message(self, *_: object) -> None:
        """Nothing: probes come every second."""


def _ready(listener: Listener) -> Reply:
    ready = listener.readiness.ready
    return 200 if ready else 503, TEXT, b"ready\n" if ready else b"not ready\n"


OWN: Mapping[str, Callable[[Listener], Reply]] = {
    "/live": lambda _: (200, TEXT, b"live\n"),
    "/ready": _ready,
    "/metrics": lambda listener: (200, TEXT, listener.metrics.exposition()),
}
"""What is there to be got, whatever the pages."""


def _address(bind: str, *, anywhere: bool) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    try:
        address, number = ip_address("127.0.0.1" if host == "localhost" else host), int(port)
    except ValueError as error:
        msg = f"--admin-bind: wanted HOST:PORT with a numeric IPv4 address, such as 127.0.0.1:9090, found {bind!r}"
        raise ConfigError(msg) from error
    if not address.is_loopback and not anywhere:
        msg = (
            f"--admin-bind: wanted a loopback address, such as 127.0.0.1:9090, found {bind!r}; "
            "there is neither TLS nor a password, --insecure-bind allows it all the same"
        )
        raise ConfigError(msg)
    return str(address), number
