"""`--admin-bind`: whether a run or a server lives and works, its metrics and its console, for those who look after it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any, Protocol, TypeAlias

from mlinfer._errors import ConfigError
from mlinfer._events import RunEnded, RunStarted, observer

SECONDS = 10
MOST_CONNECTIONS = 32
HTML = "text/html; charset=utf-8"
MOST_CONNECTIONS = 64
MOST_BYTES = 1 << 20
TEXT = "text/plain; version=0.0.4; charset=utf-8"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
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

    def get(self, path: str) -> Reply | None:
        """What is there; None: nothing."""

    def post(self, path: str, body: bytes) -> Reply | None:
        """What comes of a body of JSON; None: there is nothing that takes it."""


class NoPages:
    """None but life, readiness and metrics."""

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
        msg = f"--admin-bind: wanted to listen at {bind}, found: {error}"
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
    """Answers in threads that never outlive the run. There are few, and none lives for long: the oldest gives way."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        readiness: Ready,
        metrics: Metrics,
        picture: Callable[[], Picture] | None,
    ) -> None:
        self._begun: dict[Any, float] = {}
        super().__init__(address, Answer)
        self.readiness, self.metrics, self.picture = readiness, metrics, picture
        self.anywhere = not ip_address(address[0]).is_loopback

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread; if there are too many, the oldest is cut off."""
        if len(self._begun) >= MOST_CONNECTIONS:
            _cut(min(self._begun.copy().items(), key=lambda one: one[1])[0])
        self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """It has ended."""
        self._begun.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off whoever sends or takes slowly; called every tenth of a second."""
        latest = time.monotonic() - SECONDS
        for request, begun in self._begun.copy().items():
            if begun < latest:
                _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away is no news."""


def _cut(request: socket.socket) -> None:
    with suppress(OSError):  # it has gone by itself
        request.shutdown(socket.SHUT_RDWR)


class Answer(BaseHTTPRequestHandler):
    """One request; only GET, and nothing that a request says is used but its path."""

    timeout = SECONDS
    server: Listener

    def do_GET(self) -> None:
        """The page, live, ready or metrics."""
        listener = self.server
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1:
            self._send(400, b"wanted one Host header\n")
        elif not listener.anywhere and not self._asked_for_us(hosts):
            self._send(421, b"wrong host\n")  # a page elsewhere that had its name point here
        elif self.path == "/" and listener.picture is not None:
            self._send_page(listener.picture())
        elif self.path == "/live":
            self._send(200, b"live\n")
        elif self.path == "/ready":
            ready = listener.readiness.ready
            self._send(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
        elif self.path == "/metrics":
            self._send(200, listener.metrics.exposition())
        else:
            self._send(404, b"not found\n")

    def _asked_for_us(self, hosts: list[str]) -> bool:
        name, colon, port = (hosts[0] if hosts else "").partition(":")
        here = name.lower() in {"localhost", self.server.server_address[0]}
        return here and (not colon or (port.isascii() and port.isdigit()))

    def _send_page(self, picture: Picture) -> None:
        from mlinfer._online._page import policy

        self._send(200, picture.html(), HTML, policy(STYLE, SCRIPT))

    def _send(self, code: int, body: bytes, kind: str = TEXT, more: tuple[str, ...] = ()) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for line in more or (
            "Content-Security-Policy: default-src 'none'",
            "X-Content-Type-Options: nosniff",
        ):
            self.send_header(*line.split(": ", 1))
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """In our own words, and nothing of the request's."""
        del message, explain
        self.close_connection = True
        self._send(code, f"{HTTPStatus(code).phrase.lower()}\n".encode())

    def send_response(self, code: int, message: str | None = None) -> None:
        """Without the header that tells which server in which version this is."""
        self.send_response_only(code, message)

    def log_message(self, *_: object) -> None:
        """Nothing: probes come every second."""


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
