"""A small HTTP server over the desk: `POST /predict`, the Open Inference Protocol, and what tells about them."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from mlinfer._answering import rows_batch
from mlinfer._clock import SystemClock
from mlinfer._engine import Answers, Job, ProcessModel, Step, open_model
from mlinfer._errors import ComponentError, ConfigError
from mlinfer._events import ModelChanged
from mlinfer._json_few import json_rows
from mlinfer._layout import Layout
from mlinfer._lineage import Lineage
from mlinfer._online._access import access
from mlinfer._online._backlog import Stored
from mlinfer._online._counts import Counts, Figures, exposition
from mlinfer._online._desk import Desk
from mlinfer._online._json import dump
from mlinfer._online._keys import Keys
from mlinfer._online._listener import BACKLOG, Listener, LoopThread
from mlinfer._online._log import Sampled, prediction_log
from mlinfer._online._nowhere import NoLog, Nowhere
from mlinfer._online._openapi import openapi, record_schema
from mlinfer._online._page import HTML, page, policy
from mlinfer._online._predict import Predict
from mlinfer._online._routes import Order, Route, Routes, path_name, ready_if, said
from mlinfer._online._sayable import check_sayable
from mlinfer._online._serving import Serving
from mlinfer._online._unread import unread
from mlinfer._online._wire import MOST_ROWS, Patience
from mlinfer._protocols import Exemplifies, Model, Stateful

if TYPE_CHECKING:
    from mlinfer._online._grpc import GrpcServer

_REMEMBERS = (
    "workers: wanted a model that keeps nothing between calls, for each worker has its own; found one with a memory; "
    "serve it with one worker"
)
_logger = logging.getLogger("mlinfer")


class Server:
    """A pipeline's host online. `url` is where it listens; `ready` whether it takes requests, which ends before it does."""

    def __init__(self, url: str, log: Log, counts: Counts) -> None:
        self.url = url
        self.grpc_address: str | None = None
        """HOST:PORT, where gRPC is spoken."""
        self.failure: Exception | None = None
        """Why it cannot go on; None: it can."""
        self.ready = False
        self.counts = counts
        self._log = log
        self.desk: Desk
        self.listener: Listener
        self.grpc: GrpcServer | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for the model."""
        return self.desk.waiting

    def exposition(self) -> bytes:
        """What it has done, in Prometheus' text format, version 0.0.4."""
        return exposition(self.figures())

    def figures(self) -> Figures:
        """What it has done, in numbers."""
        signature = self.desk.signature
        now = {
            "queue_requests": self.desk.waiting,
            "queue_rows": self.desk.waiting_rows,
            "connections": self.listener.connections,
            "log_dropped": self._log.dropped,
        }
        return Figures(self.counts, [{"model": signature.model_id, "version": signature.version}], now)

    async def close(self) -> None:
        """Take nothing new, and return when what was accepted is answered."""
        await asyncio.gather(self.listener.close(), *([self.grpc.close()] if self.grpc else []))


class Log(Protocol):
    """The way to the prediction log."""

    counts: Counts | None

    @property
    def dropped(self) -> int:
        """How many answers it lacks."""

    def __call__(self, answers: Answers, stored: Stored | None = None) -> None:
        """Remember answers for writing; returns at once. `stored` is called when they are durable, or cannot be."""


class Alone:
    """The place of a server that is a process by itself. Workers have one of their own."""

    shared = False
    """Whether others listen at its addresses, too."""

    def log(self, job: Job, layout: Layout, run: str) -> AbstractContextManager[Log]:
        """Open the log."""
        return prediction_log(job, layout, run)

    def listening(self, how: Serving) -> socket.socket:
        """A socket at the address; asked for when everything else is ready."""
        return how.listening()

    def grpc_address(self, how: Serving) -> str | None:
        """HOST:PORT as gRPC takes it; asked for last."""
        return how.grpc_address()


@contextmanager
def serving_here(
    job: Job, how: Serving, patience: Patience | None = None, place: Alone | None = None
) -> Iterator[Server]:
    """Serve a job's host in this process while the block runs; then finish what was accepted.

    Raises ConfigError: the address is taken, or a file is not what it should be; the extra is not installed.
    Raises ComponentError: the model cannot answer its own example.
    """
    job, place = unread(job), place or Alone()
    keys, tls = how.check()
    with ExitStack() as stack:
        loaded = _load(job, place, stack)
        listening = stack.enter_context(place.listening(how))
        address = place.grpc_address(how)
        thread = LoopThread("mlinfer-http")
        stack.callback(thread.close)
        server = Server(url_of(listening, secure=tls is not None), loaded.log, loaded.counts)

        async def open_all() -> None:
            _begin(server, loaded, how, patience=patience, keys=keys)
            if address is not None:  # first: it is the one that may find its address taken
                server.grpc = _grpc(server, loaded.step.layout)
                server.grpc_address = await server.grpc.open(
                    address, how.tls_files(), keys, shared=place.shared
                )
            try:
                how.listen(listening, BACKLOG)  # last: whoever can connect finds all of it there
            except ConfigError:
                if server.grpc is not None:
                    await server.grpc.close()
                raise
            server.ready = True
            await server.listener.open(listening, tls)

        thread.do(open_all)
        stack.callback(server.desk.close)
        # what answers of many records need: too slow to import for the start, and for the first who asks for them
        name, needed = "mlinfer-import", "pyarrow.compute"
        threading.Thread(target=import_module, args=(needed,), name=name, daemon=True).start()
        try:
            yield server
        finally:
            server.ready = False
            thread.do(server.close)


@dataclass(frozen=True)
class _Loaded:
    """A model that has answered its example, and where its answers are noted."""

    step: Step
    example: dict[str, Any] | None
    log: Log
    counts: Counts


def _load(job: Job, place: Alone, stack: ExitStack) -> _Loaded:
    model = _model(job, stack)
    if place.shared and isinstance(model, Stateful):
        raise ConfigError(_REMEMBERS)
    layout = job.lay_out(model.signature)
    check_sayable(layout)
    run, counts = secrets.token_hex(8), Counts()
    nowhere = isinstance(job.destination, Nowhere)
    log: Log = NoLog() if nowhere else stack.enter_context(place.log(job, layout, run))
    log.counts = counts
    step = _step(job, model, layout, run=run, counts=counts)
    step.resume(None)  # so that also the first attempt can be undone
    example = _example(model, layout)
    if example is not None and not isinstance(model, Stateful):
        _warm_up(step, example)
    return _Loaded(step, example, log, counts)


def _begin(
    server: Server, loaded: _Loaded, how: Serving, *, patience: Patience | None, keys: Keys | None
) -> None:
    """Give a server its desk and what answers over HTTP; nobody can connect yet."""
    layout, counts = loaded.step.layout, loaded.counts
    log = loaded.log if how.log_sample == 1 else Sampled(loaded.log, how.log_sample)
    server.desk = Desk(
        loaded.step, log, max_rows=MOST_ROWS, counts=counts, first=how.log == "before_reply", patience=patience
    )  # fmt: skip
    server.listener = Listener(
        patience or Patience(), counts, server.desk.crowded, access if how.access_log else None, neighbours=how.workers - 1
    )  # fmt: skip
    server.listener.routes = _routes(server, layout, loaded.example, names=how.allowed_names, keys=keys)


def _grpc(server: Server, layout: Layout) -> GrpcServer:
    from mlinfer._online._grpc import GrpcServer
    from mlinfer._online._grpc_tensors import GrpcTensors

    form = GrpcTensors(layout, path_name(layout.signature.model_id))
    return GrpcServer(server.desk, form, server.listener, lambda: server.ready)


def _renewed(event: ModelChanged, counts: Counts) -> None:
    if event.problem is None:
        counts.model_changes["taken"] += 1
        _logger.info("model %s answers from here on, instead of %s", event.now, event.was)
    else:
        counts.model_changes["refused"] += 1
        _logger.warning("model %s goes on: %s", event.was, event.problem)


def _step(job: Job, model: Model, layout: Layout, *, run: str, counts: Counts) -> Step:
    lineage = Lineage(model.signature, run, SystemClock(), in_hand=True)
    renewed = partial(_renewed, counts=counts)
    return Step(model, layout, job.batching.max_records, lineage=lineage, renewed=renewed)


def _routes(
    server: Server, layout: Layout, example: dict[str, Any] | None, *, names: set[str], keys: Keys | None
) -> Routes:
    from mlinfer._online._oip import oip_routes

    desk = server.desk

    def ready() -> bool:
        return server.ready

    paths = {
        "/predict": Route("POST", Predict(desk, layout.wanted)),
        "/live": Route("GET", said(dump({"live": True})), open=True),
        "/ready": Route("GET", ready_if(ready, dump({"ready": True})), open=True),
        **oip_routes(desk, layout, ready),
        **_pages(desk, layout, example, keys=keys is not None),
    }
    return Routes(names, paths, keys, lambda: path_name(desk.signature.version))


def _pages(desk: Desk, layout: Layout, example: dict[str, Any] | None, *, keys: bool) -> dict[str, Route]:
    """What tells about the version that answers."""

    def document(order: Order, body: bytes) -> None:
        del body
        order.answer(dump(openapi(replace(layout, signature=desk.signature), example, keys=keys)))

    def form(order: Order, body: bytes) -> None:
        del body
        signature = desk.signature
        text = page(signature.model_id, signature.version, record_schema(layout), example)
        order.answer(text, HTML, policy())

    return {"/openapi.json": Route("GET", document), "/docs": Route("GET", form)}


def _example(model: Model, layout: Layout) -> dict[str, Any] | None:
    """A record as a caller would send it, if the model knows one."""
    found = model.example() if isinstance(model, Exemplifies) else None
    if found is None:
        return None
    record: dict[str, Any] = json.loads(json_rows(found.slice(0, 1))[0])
    # callers may know other names for the inputs
    return {layout.columns.get(name, name): value for name, value in record.items()}


def _warm_up(step: Step, example: dict[str, Any]) -> None:
    """Answer the example before anybody can ask: whatever is loaded late is loaded now."""
    answers = step(rows_batch([example], step.layout.wanted))
    if answers.rejects:
        msg = f"model {step.layout.signature.model_id!r}: cannot answer its own example: {answers.rejects[0].messages[0]}"
        raise ComponentError(msg)


def url_of(listening: socket.socket, *, secure: bool) -> str:
    """How clients call the address of a socket."""
    host, port = listening.getsockname()[:2]
    return f"{'https' if secure else 'http'}://{host}:{port}"


def _model(job: Job, stack: ExitStack) -> Model:
    """The model; in a process of its own where the job says so."""
    if job.timeout is None and job.workers.kind != "process":
        return stack.enter_context(open_model(job.host))
    child = ProcessModel(job.host, job.timeout)
    stack.callback(child.close)
    return child
