"""A small HTTP server over the desk: `POST /predict`, `GET /live`, `GET /ready`."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

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
from mlinfer._online._serving import Serving
from mlinfer._online._wire import MOST_ROWS, Patience
from mlinfer._protocols import Model


class Server:
    """A pipeline's host online. `url` is where it listens."""

    def __init__(self, listening: socket.socket, desk: Desk, *, secure: bool) -> None:
        host, port = listening.getsockname()[:2]
        self.url = f"{'https' if secure else 'http'}://{host}:{port}"
        self._desk = desk

    @property
    def waiting(self) -> int:
        """How many requests wait for the model."""
        return self._desk.waiting


@contextmanager
def serving(job: Job, how: Serving, patience: Patience | None = None) -> Iterator[Server]:
    """Serve a job's host while the block runs; then finish what was accepted.

    Raises ConfigError: the address is taken, or a file is not what it should be; the extra is not installed.
    """
    _need_extra()
    keys, tls = how.open_keys(), how.open_tls()
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
        listening = stack.enter_context(how.listening())
        thread = LoopThread("mlinfer-http")
        stack.callback(thread.close)

        async def open_all() -> tuple[Desk, Listener]:
            desk = Desk(step, log, max_rows=MOST_ROWS)
            listener = Listener(patience or Patience())
            listener.routes = Routes(how.allowed_names, _routes(desk, layout), keys)
            await listener.open(listening, tls)
            return desk, listener

        desk, listener = thread.do(open_all)
        stack.callback(desk.close)
        try:
            yield Server(listening, desk, secure=tls is not None)
        finally:
            thread.do(listener.close)


def _routes(desk: Desk, layout: Layout) -> dict[str, Route]:
    from mlinfer._online._oip import oip_routes

    signature = layout.signature
    return {
        "/predict": Route("POST", Predict(desk, layout.wanted)),
        "/live": Route("GET", said(dump({"live": True})), open=True),
        "/ready": Route("GET", said(dump({"ready": True})), open=True),
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
