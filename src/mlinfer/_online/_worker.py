"""One of several server processes: its model and its desk are its own; its log and its end are its parent's."""

from __future__ import annotations

import copy
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlinfer._engine import Answers, Job, end_here, leave_signals, portable, shared_cores, to_bytes
from mlinfer._errors import ComponentError, ConfigError
from mlinfer._layout import Layout
from mlinfer._online._backlog import REST_SECONDS, Backlog, Stored, Waits, tell
from mlinfer._online._counts import Counts
from mlinfer._online._refusals import BUSY, NOT_STORED
from mlinfer._online._server import Alone, Log, serving_here
from mlinfer._online._serving import Serving
from mlinfer._online._unread import unread
from mlinfer._online._wire import Patience
from mlinfer._protocols import DataDestination, DataSource, Host, Scope, Writer

FIGURES_SECONDS = 0.5
LOGGERS = ("mlinfer", "mlinfer.access")
OUTCOMES = (None, NOT_STORED, BUSY)
"""What may become of answers on their way to the log; a pipe carries the place in this list, or the rows that were refused."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told about the pipeline: its host comes beside it, its destination stays with the parent."""

    source: DataSource
    settings: Mapping[str, Any]
    how: Serving
    patience: Patience | None
    levels: Mapping[str, int]

    @classmethod
    def of(cls, job: Job, how: Serving, patience: Patience | None) -> Task:
        """The task of every worker of a job."""
        job = unread(job)
        names = ("name", "keep", "columns", "lineage", "batching", "workers", "timeout", "retry")
        settings = {name: getattr(job, name) for name in names}
        levels = {name: logging.getLogger(name).getEffectiveLevel() for name in LOGGERS}
        return cls(job.source, settings, how, patience, levels)

    def job(self, host: Host) -> Job:
        """The job, as far as a worker needs it."""
        return Job(source=self.source, host=host, destination=Parent(), **self.settings)


@dataclass(frozen=True)
class Parent(DataDestination):
    """A destination that only the parent can open."""

    def open(self, schema: pa.Schema, scope: Scope) -> AbstractContextManager[Writer]:
        """Raise ComponentError: a worker hands its answers to its parent, which writes them."""
        del schema, scope
        msg = "wanted the log to be opened by the parent of this worker alone"
        raise ComponentError(msg)


def live(pipe: Any, host: Host, task: Task) -> None:
    """A worker's whole life."""
    leave_signals()
    line = Line(pipe)
    try:
        _serve(line, host, task)
    except Ended:
        pass
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        line.say("failed", portable(error))
    end_here()


def _serve(line: Line, host: Host, task: Task) -> None:
    for name, level in task.levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
    logger = logging.getLogger(LOGGERS[0])
    logger.addHandler(Forward(line))
    logger.propagate = False
    place = Place(line)
    with (
        serving_here(task.job(host), task.how, task.patience, place) as server,
        shared_cores(task.how.workers),
    ):
        line.say("serving")
        while not line.stopped.wait(FIGURES_SECONDS):
            line.say("figures", server.figures())
    line.say("figures", server.figures())


class Ended(Exception):  # noqa: N818 - not a failure
    """The parent wants no server any more."""


class Line:
    """The pipe to the parent; what that says is heard on a thread. Its end is the end of the worker, at once."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._speaking = threading.Lock()
        self.stopped, self._told = threading.Event(), threading.Event()
        self.addresses: tuple[str, str | None] = ("", None)
        self.waiting: dict[int, list[Waits]] = {}
        """Who waits for which answers to be durable."""
        threading.Thread(target=self._hear, name="mlinfer-parent", daemon=True).start()

    def say(self, kind: str, *what: object) -> None:
        """Tell the parent."""
        with self._speaking, suppress(OSError):  # there is none any more: this process is about to end
            self._pipe.send((kind, *what))

    def wait_for_addresses(self) -> tuple[str, str | None]:
        """Where to listen, once every worker is ready to. Raises Ended."""
        self._told.wait()
        if self.stopped.is_set():
            raise Ended
        return self.addresses

    def _hear(self) -> None:
        while True:
            try:
                kind, *what = self._pipe.recv()
            except (EOFError, OSError):
                break
            if kind == "stored":
                number, outcome = what
                rows = isinstance(outcome, dict)
                tell(self.waiting.pop(number), outcome if rows else OUTCOMES[outcome])
            elif kind == "listen":
                self.addresses = (what[0], what[1])
                self._told.set()
            else:
                self.stopped.set()
                self._told.set()
        end_here()  # the parent is gone, and nobody else writes the log


class Forward(logging.Handler):
    """Lets the parent log what there is to log: what was set up for its loggers counts."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the parent, in text: what the text was made of may not survive the pipe."""
        said = copy.copy(record)
        said.msg = self.format(record)
        said.args = said.exc_info = said.exc_text = said.stack_info = None
        self._line.say("record", said)


class FarLog:
    """The log, on the other end of the line. Answers are packed on a thread of its own."""

    def __init__(self, line: Line, layout: Layout) -> None:
        self._line, self._layout = line, layout
        self.counts: Counts | None = None
        self._backlog = Backlog()
        self._thread = threading.Thread(target=self._work, name="mlinfer-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many answers have not even come to the line."""
        return self._backlog.dropped

    def __call__(self, answers: Answers, stored: Stored | None = None) -> None:
        """Hand answers over; returns at once. `stored` is called when they are durable, or cannot be."""
        self._backlog.put(answers, stored)

    def close(self) -> None:
        """Hand over what is waiting, and end."""
        self._backlog.end()
        self._thread.join()

    def _work(self) -> None:
        number = 0
        while (entry := self._backlog.take()) is not None:
            answers, stored = entry
            number += 1
            if answers.layout is not None and answers.layout is not self._layout:
                self._layout = answers.layout
                self._line.say("layout", self._layout)
            if stored:
                self._line.waiting[number] = stored
            self._line.say("answers", number, bool(stored), to_bytes(answers.batch.records))
            if not stored and self._backlog.empty:
                time.sleep(REST_SECONDS)


class Place(Alone):
    """Beside others, at the addresses that the parent holds."""

    shared = True

    def __init__(self, line: Line) -> None:
        self._line = line
        self._layout: Layout

    @contextmanager
    def log(self, job: Job, layout: Layout, run: str) -> Iterator[Log]:
        """The parent's."""
        del job, run
        self._layout = layout
        log = FarLog(self._line, layout)
        try:
            yield log
        finally:
            log.close()

    def listening(self, how: Serving) -> socket.socket:
        """A further socket at the parent's address, once every worker is ready to answer. Raises Ended."""
        del how
        self._line.say("loaded", self._layout)
        address, _ = self._line.wait_for_addresses()
        return socket_beside(address)

    def grpc_address(self, how: Serving) -> str | None:
        """The parent's."""
        del how
        return self._line.addresses[1]


def socket_beside(address: str) -> socket.socket:
    """A socket at an address that others have, too: the system spreads connections over all that listen there."""
    host, _, port = address.rpartition(":")
    beside = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        beside.bind((host, int(port)))
    except OSError as error:
        beside.close()
        msg = f"bind: wanted to listen at {address} beside other workers, found that this is not possible: {error.strerror}"
        raise ConfigError(msg) from error
    return beside
