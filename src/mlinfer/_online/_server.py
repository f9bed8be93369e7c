"""A small HTTP server over the desk: `POST /predict`, `GET /live`, `GET /ready`."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from ipaddress import ip_address

from mlinfer._clock import SystemClock
from mlinfer._engine import Job, ProcessModel, Step, open_model
from mlinfer._errors import ConfigError
from mlinfer._layout import Layout
from mlinfer._lineage import Lineage
from mlinfer._online._desk import Desk
from mlinfer._online._json import dump
from mlinfer._online._listener import Listener, LoopThread
from mlinfer._online._log import prediction_log
from mlinfer._online._predict import Predict
from mlinfer._online._routes import Route, Routes, path_name, said
from mlinfer._online._wire import MOST_ROWS, Patience
from mlinfer._protocols import Model

HIGHEST_PORT = 65_535


class Server:
    """A pipeline's host online. `url` is where it listens."""

    def __init__(self, listening: socket.socket, desk: Desk) -> None:
        host, port = listening.getsockname()[:2]
        self.url = f"http://{host}:{port}"
        self._desk = desk

    @property
    def waiting(self) -> int:
        """How many requests wait for the model."""
        return self._desk.waiting


@contextmanager
def serving(job: Job, bind: str, patience: Patience | None = None) -> Iterator[Server]:
    """Serve a job's host while the block runs; then finish what was accepted.

    Raises ConfigError: the address is not a loopback address, or is taken; the extra is not installed.
    """
    address = _loopback(bind)
    _need_extra()
    with ExitStack() as stack:
        model = _model(job, stack)
        layout = job.lay_out(model.signature)
        run = secrets.token_hex(8)
        log = stack.enter_context(prediction_log(job, layout, run))
        step = Step(
            model,
            layout,
            job.batching.max_records,
            lineage=Lineage(model.signature, run, SystemClock(), in_hand=True),
        )
        listening = stack.enter_context(_listening(address, bind))
        thread = LoopThread("mlinfer-http")
        stack.callback(thread.close)

        async def open_all() -> tuple[Desk, Listener]:
            desk = Desk(step, log, max_rows=MOST_ROWS)
            listener = Listener(patience or Patience())
            names = {"localhost", "127.0.0.1", address[0]}
            listener.routes = Routes(names, _routes(desk, layout))
            await listener.open(listening)
            return desk, listener

        desk, listener = thread.do(open_all)
        stack.callback(desk.close)
        try:
            yield Server(listening, desk)
        finally:
            thread.do(listener.close)


def _routes(desk: Desk, layout: Layout) -> dict[str, Route]:
    from mlinfer._online._oip import oip_routes

    signature = layout.signature
    return {
        "/predict": Route("POST", Predict(desk, layout.wanted)),
        "/live": Route("GET", said(dump({"live": True}))),
        "/ready": Route("GET", said(dump({"ready": True}))),
        **oip_routes(desk, layout, path_name(signature.model_id), path_name(signature.version)),
    }


def _model(job: Job, stack: ExitStack) -> Model:
    """The model; in a process of its own where the job says so."""
    if job.timeout is None and job.workers.kind != "process":
        return stack.enter_context(open_model(job.host))
    child = ProcessModel(job.host, job.timeout)
    stack.callback(child.close)
    return child


def _need_extra() -> None:
    missing = [name for name in ("httptools", "msgspec") if find_spec(name) is None]
    if missing:
        msg = f"serving: wanted {' and '.join(missing)}, found not installed; pip install 'mlinfer[serve]'"
        raise ConfigError(msg)


def _listening(address: tuple[str, int], bind: str) -> socket.socket:
    listening = socket.socket(
        socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # asyncio sets TCP_NODELAY for TCP only
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        msg = f"bind: wanted to listen at {bind}, found that this is not possible: {error.strerror}"
        raise ConfigError(msg) from error
    return listening


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
