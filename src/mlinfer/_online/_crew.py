"""Several server processes at one address: this one holds the address and the log, the workers answer."""

from __future__ import annotations

import logging
import random
import secrets
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mlinfer._batch import Batch
from mlinfer._clock import SystemClock
from mlinfer._engine import UNGUARDED, Answers, Job, from_bytes
from mlinfer._errors import ComponentError, ConfigError
from mlinfer._layout import Layout
from mlinfer._online._backlog import Outcome
from mlinfer._online._counts import Counts, Figures, exposition
from mlinfer._online._log import PredictionLog, prediction_log
from mlinfer._online._member import Member
from mlinfer._online._server import Server, serving_here, url_of
from mlinfer._online._serving import Serving
from mlinfer._online._wire import Patience
from mlinfer._online._worker import OUTCOMES, Task
from mlinfer._protocols import Host
from mlinfer._watching import same_model, watches

QUIET_SECONDS = 60.0
"""Workers that end longer after one another than this did not end in a row."""
PARTITION = "in hand"
_dice = random.Random()  # noqa: S311 - jitter, not a secret
_logger = logging.getLogger("mlinfer")


@contextmanager
def serving(job: Job, how: Serving, patience: Patience | None = None) -> Iterator[Server | Crew]:
    """Serve a job's host while the block runs, here or in workers; then finish what was accepted.

    Raises ConfigError: the address is taken, a file is not what it should be, an extra is not installed, or the host cannot
    be sent to workers. Raises ComponentError: the model cannot answer its own example, or workers ended again and again.
    """
    how.warn()
    if (keys := how.open_keys()) is not None:  # once: workers that start later must not end over it
        keys.check()
    if how.workers == 1:
        with serving_here(job, how, patience) as server:
            yield server
        return
    if not sys.platform.startswith("linux"):
        msg = f"workers: wanted Linux, which spreads connections over processes, found {sys.platform}; use one worker"
        raise ConfigError(msg)
    _, tls = how.check()
    with ExitStack() as stack:
        crew = Crew(job.host, Task.of(job, how, patience), job.retry)
        stack.callback(crew.close)
        crew.begin()
        held = stack.enter_context(_held(how.listening()))
        crew.url = url_of(held, secure=tls is not None)
        if how.grpc_bind is not None:
            further = stack.enter_context(_held(how.listening("grpc_bind")))
            crew.grpc_address = _address(further)
        layout = crew.wait_until_loaded()
        log = stack.enter_context(prediction_log(job, layout, secrets.token_hex(8)))
        stack.callback(crew.close)  # first: what workers still say goes into the log
        crew.open(_address(held), log)
        yield crew
    if crew.failure is not None:
        raise crew.failure


class Crew:
    """The workers of one server. `url` is where they listen; `ready` whether they take requests.

    One that ends is replaced, after a wait that grows; what it had not answered is lost with its connections.
    """

    def __init__(self, host: Host, task: Task, retry: Any) -> None:
        self.url = ""
        self.grpc_address: str | None = None
        """HOST:PORT, where gRPC is spoken."""
        self.failure: Exception | None = None
        """Why it cannot go on; None: it can."""
        self._host, self._task, self._retry = host, task, retry
        self._clock = SystemClock()
        self._workers: list[Member] = []
        self._threads: list[threading.Thread] = []
        self._news = threading.Condition()
        self._addresses: tuple[str, str | None] | None = None
        self._layouts: list[Layout] = []
        self._log: PredictionLog
        self._logging = threading.Lock()
        self._written, self._past = Counts(), Counts()
        self._restarts = self._failures = 0
        self._latest = float("-inf")
        self._begun = False
        self._ending = threading.Event()

    # --- what its user asks -----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether it takes requests: from the moment in which every worker does, until it ends."""
        alive = any(worker.serving and not worker.gone for worker in self._workers)
        return self._begun and alive and not self._ending.is_set() and self.failure is None

    @property
    def waiting(self) -> int:
        """How many requests wait for a model, half a second ago."""
        return sum(worker.figures.now.get("queue_requests", 0) for worker in self._workers)

    @property
    def processes(self) -> list[int]:
        """The process ids of the workers that answer."""
        return [worker.process.pid or 0 for worker in self._workers if worker.serving and not worker.gone]

    def exposition(self) -> bytes:
        """What all workers together have done, half a second ago, in Prometheus' text format, version 0.0.4."""
        with self._news:
            counts, now, models = Counts(), Counter(workers=len(self.processes)), {}
            counts.worker_restarts = self._restarts
            figures = [worker.figures for worker in self._workers if not worker.gone]
            for one in (self._past, self._written, *(one.counts for one in figures)):
                counts.join(one)
        for found in figures:
            models.update({tuple(model.items()): model for model in found.models})
            now.update(found.now)
        now["log_dropped"] += self._log.dropped
        return exposition(Figures(counts, list(models.values()), now))

    # --- its life ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the workers. Raises ConfigError: the host cannot be sent to them."""
        for place in range(self._task.how.workers):
            self._workers.append(Member(self._host, self._task))
            thread = threading.Thread(target=self._keep, args=(place,), name="mlinfer-worker", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait_until_loaded(self) -> Layout:
        """The layout of the model. Raises what went wrong in the first worker in which something did."""
        self._wait_for(lambda worker: worker.layout is not None)
        return self._layouts[0]

    def open(self, address: str, log: PredictionLog) -> None:
        """Let them listen. Raises what went wrong in a worker."""
        log.counts, self._log = self._written, log
        self._addresses = (address, self.grpc_address)
        for worker in self._workers:
            worker.tell("listen", *self._addresses)
        self._wait_for(lambda worker: worker.serving)
        self._begun = True

    def close(self) -> None:
        """Let every worker finish what it has accepted."""
        with self._news:  # from here on nobody is replaced
            self._ending.set()
        for worker in self._workers:
            if worker.serving:
                worker.tell("stop")
            else:
                worker.kill()  # it may be loading for long
        for thread in self._threads:
            thread.join()

    def _wait_for(self, there: Callable[[Member], bool]) -> None:
        with self._news:
            self._news.wait_for(lambda: all(map(there, self._workers)) or any(w.gone for w in self._workers))
        for worker in self._workers:
            if worker.error is not None:
                raise worker.error
        for worker in self._workers:
            if worker.gone:
                msg = f"a worker process ended before its model was loaded ({worker.how_it_ended()}); {UNGUARDED}"
                raise ConfigError(msg)

    def _keep(self, place: int) -> None:
        """Hear one worker, and each that takes its place."""
        while True:
            worker = self._workers[place]
            for kind, what in worker.hear():
                self._take(worker, kind, what)
            with self._news:
                worker.gone = True
                self._past.join(worker.figures.counts)
                self._news.notify_all()
            if not self._begun or self._ending.is_set() or not self._wait_after(worker):
                return
            with self._news:
                if self._ending.is_set():
                    return
                self._restarts += 1
                self._workers[place] = Member(self._host, self._task)

    def _wait_after(self, worker: Member) -> bool:
        """Whether another one is to take its place, after a while."""
        with self._news:
            now = self._clock.monotonic()
            self._failures = 1 if now - self._latest > QUIET_SECONDS else self._failures + 1
            self._latest, failures, found = now, self._failures, worker.how_it_ended()
            if failures >= self._retry.attempts:
                msg = (
                    f"workers: wanted workers that go on, found that {failures} have ended in a row, the latest by {found}; "
                    "look at what the model was asked, at its memory and at what it logs"
                )
                self.failure = self.failure or ComponentError(msg)
                return False
        wait = self._retry.wait(failures, None, _dice)
        _logger.warning("a worker has ended (%s); another takes its place in %.1f s", found, wait)
        return not self._clock.wait(self._ending, wait)

    def _take(self, worker: Member, kind: str, what: Any) -> None:
        if kind == "answers":
            self._write(worker, *what)
        elif kind == "figures":
            (worker.figures,) = what
        elif kind == "record":
            (record,) = what
            logging.getLogger(record.name).handle(record)
        else:
            with self._news:
                if kind == "failed":
                    (worker.error,) = what
                elif kind == "serving":
                    worker.serving = True
                else:
                    worker.layout = self._known(what[0])
                    if kind == "loaded" and self._begun:
                        self._let_in(worker)
                self._news.notify_all()

    def _known(self, layout: Layout) -> Layout:
        """The same object for the same layout: whoever writes the log looks whether it has changed."""
        for one in self._layouts:
            if one == layout:
                return one
        self._layouts.append(layout)
        return layout

    def _let_in(self, worker: Member) -> None:
        """Let a new worker listen, if it has the model that the others have."""
        first, its = self._layouts[0], worker.layout
        if its is not None and (watches(self._host) or same_model(its.signature, first.signature)):
            worker.tell("listen", *(self._addresses or ()))
            return
        found = its.signature.version if its else "none"
        worker.error = ConfigError(
            f"wanted version {first.signature.version} of the model, which the others have, found {found}: it was replaced "
            "under the server; start the server again, or let its host watch the model"
        )
        worker.kill()

    def _write(self, worker: Member, number: int, waits: bool, data: bytes) -> None:  # noqa: FBT001 - as it was sent
        def stored(outcome: Outcome) -> None:
            rows = isinstance(outcome, dict)
            worker.tell("stored", number, outcome if rows else OUTCOMES.index(outcome))

        batch = Batch(from_bytes(data), PARTITION, None)
        with self._logging:
            self._log(Answers(batch, layout=worker.layout), stored if waits else None)


@contextmanager
def _held(listening: socket.socket) -> Iterator[socket.socket]:
    """Hold an address that nobody else has, and let workers, which are of the same user, listen there.

    The socket itself never listens. It was bound as one that shares with nobody, so an address that is taken was found
    taken; what is set here counts for those who come next.
    """
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"{host}:{port}"
