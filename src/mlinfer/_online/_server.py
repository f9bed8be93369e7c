"""A small HTTP server over the desk: `POST /predict`, `GET /live`, `GET /ready`."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any

from mlinfer._engine import Job, ProcessModel, Step, open_model
from mlinfer._errors import ConfigError
from mlinfer._layout import lay_out
from mlinfer._online._desk import Desk
from mlinfer._online._handler import MOST_BYTES, MOST_ROWS, Handler
from mlinfer._online._json import dump
from mlinfer._online._log import prediction_log
from mlinfer._online._wire import Patience, Refused, reply
from mlinfer._protocols import Model

MOST_CONNECTIONS = 256
MOST_BYTES_AT_ONCE = 8 * MOST_BYTES
HIGHEST_PORT = 65_535
_FULL = dump({"error": "too many connections; ask again in a moment"})
_logger = logging.getLogger("mlinfer")


class Server:
    """A pipeline's host online. `url` is where it listens."""

    def __init__(self, listener: Listener) -> None:
        host, port = listener.server_address[:2]
        self.url = f"http://{host if isinstance(host, str) else host.decode()}:{port}"


@contextmanager
def serving(job: Job, bind: str, patience: Patience | None = None) -> Iterator[Server]:
    """Serve a job's host while the block runs; then finish what was accepted.

    Raises ConfigError: the address is not a loopback address, or is taken.
    """
    address = _loopback(bind)
    with ExitStack() as stack:
        model = _model(job, stack)
        layout = lay_out(model.signature, job.source.schema(), job.keep, job.columns)
        log = stack.enter_context(prediction_log(job, layout))
        desk = Desk(Step(model, layout, job.batching.max_records), log, max_rows=MOST_ROWS)
        stack.callback(desk.close)
        try:
            listener = Listener(address, desk, patience or Patience())
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
            listener.end()
            thread.join()


def _model(job: Job, stack: ExitStack) -> Model:
    """The model; in a process of its own where the job says so."""
    if job.timeout is None and job.workers.kind != "process":
        return stack.enter_context(open_model(job.host))
    child = ProcessModel(job.host, job.timeout)
    stack.callback(child.close)
    return child


def _loopback(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host).strip("[]")
    try:
        address = ip_address(host)
    except ValueError as error:
        raise ConfigError(_no_address(bind)) from error
    if not (port.isascii() and port.isdigit()) or int(port[:6]) > HIGHEST_PORT:
        raise ConfigError(_no_address(bind))
    if not address.is_loopback or address.version != 4:  # noqa: PLR2004 - IPv4
        msg = (
            f"bind: wanted a loopback address, such as 127.0.0.1:8080, found {bind!r}; this server has neither TLS nor "
            "keys yet: put a proxy that has them in front of it"
        )
        raise ConfigError(msg)
    return str(address), int(port)


def _no_address(bind: str) -> str:
    return f"bind: wanted HOST:PORT with a numeric address, such as 127.0.0.1:8080, found {bind!r}"


class Room:
    """How many bytes of requests may be in memory at once."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Take room while the block runs. Raises Refused when there is not enough."""
        with self._lock:
            if size > self._free:
                raise Refused(503, "too much to do; ask again in a moment")
            self._free -= size
        try:
            yield
        finally:
            with self._lock:
                self._free += size


class Listener(ThreadingHTTPServer):
    """Accepts connections, a thread for each."""

    daemon_threads = False  # closing waits for the requests that were accepted
    request_queue_size = 128  # the default of 5 resets bursts of new connections

    def __init__(self, address: tuple[str, int], desk: Desk, patience: Patience) -> None:
        self.desk, self.patience = desk, patience
        self.names = {"localhost", "127.0.0.1", address[0]}
        self.room = Room(MOST_BYTES_AT_ONCE)
        self.stopping = threading.Event()
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._idle: set[socket.socket] = set()
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Without the base class's question to the name service, which may take seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread per connection, and no more than there are slots."""
        if not self._slots.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(reply(503, _FULL, close=True))
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Free the slot when the connection ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    @contextmanager
    def idling(self, connection: socket.socket) -> Iterator[None]:
        """While the block runs no request has begun, and the connection may end."""
        with self._lock:
            self._idle.add(connection)
            if self.stopping.is_set():
                _hang_up(connection)
        try:
            yield
        finally:
            with self._lock:
                self._idle.discard(connection)

    def end(self) -> None:
        """Stop accepting, and return when every request that was accepted has its answer."""
        self.shutdown()
        self.timeout = 0
        for _ in range(self.request_queue_size):  # those the system has accepted for us
            self.handle_request()
        with self._lock:
            self.stopping.set()
            for connection in self._idle:
                _hang_up(connection)
        slow = threading.Timer(self.patience.stop, self._hang_up_all)
        slow.start()
        self.server_close()
        slow.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """A broken connection is the client's affair; it is noted, not printed."""
        _logger.debug("a connection ended badly", exc_info=True)  # noqa: LOG014 - called while the error is handled

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        self._slots.release()

    def _hang_up_all(self) -> None:
        with self._lock:
            for connection in self._open:
                _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    """Read what has arrived and no more; answers still go out."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
