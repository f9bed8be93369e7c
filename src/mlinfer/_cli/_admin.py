"""`--admin-bind`: whether a run or a server lives and works, and its metrics, over HTTP for those who look after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Protocol

from mlinfer._errors import ConfigError
from mlinfer._events import RunEnded, RunStarted, observer

SECONDS = 10
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Ready(Protocol):
    """Knows whether there is somebody who works."""

    @property
    def ready(self) -> bool:
        """Yes or no."""


class Metrics(Protocol):
    """Knows what was done."""

    def exposition(self) -> bytes:
        """In Prometheus' text format."""


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
def admin(bind: str, readiness: Ready, metrics: Metrics, *, anywhere: bool) -> Iterator[str]:
    """Serve while the block runs; gives the URL. Raises ConfigError: no such address, or one that others can reach."""
    metrics.exposition()  # a missing extra is told before the run
    try:
        server = Listener(_address(bind, anywhere=anywhere), readiness, metrics)
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
    """Answers in threads that never outlive the run."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], readiness: Ready, metrics: Metrics) -> None:
        super().__init__(address, Answer)
        self.readiness, self.metrics = readiness, metrics
        self.anywhere = not ip_address(address[0]).is_loopback


class Answer(BaseHTTPRequestHandler):
    """One request; only GET, and nothing that a request says is used but its path."""

    timeout = SECONDS
    server: Listener

    def do_GET(self) -> None:
        """Live, ready or metrics."""
        listener = self.server
        if not listener.anywhere and not self._asked_for_us():
            self._send(421, b"wrong host\n")  # a page elsewhere that had its name point here
        elif self.path == "/live":
            self._send(200, b"live\n")
        elif self.path == "/ready":
            ready = listener.readiness.ready
            self._send(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
        elif self.path == "/metrics":
            self._send(200, listener.metrics.exposition())
        else:
            self._send(404, b"not found\n")

    def _asked_for_us(self) -> bool:
        host = (self.headers.get("Host") or "").rpartition(":")[0].strip("[]")
        return host in {"localhost", self.server.server_address[0]}

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", TEXT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
