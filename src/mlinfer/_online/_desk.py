"""Where requests meet: what piled up while the model was busy is the next batch, and each caller gets his own answer."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from mlinfer._answering import in_order
from mlinfer._batch import Batch
from mlinfer._choosing import chosen_rows
from mlinfer._engine import Answers, ProcessModel, Step
from mlinfer._errors import ComponentError, RecordErrors
from mlinfer._failpoints import failpoint
from mlinfer._online._backlog import Outcome, Stored
from mlinfer._online._counts import Counts
from mlinfer._online._pace import Pace
from mlinfer._online._refusals import BUSY, busy, refusal, unstored
from mlinfer._online._trace import COLUMN, traced
from mlinfer._online._wire import JSON, Patience, Refused
from mlinfer._signature import Signature

SLACK = 1.25
"""An estimate errs, and an answer that comes too late was work for nobody: so many times the expected wait must fit."""


class Form(Protocol):
    """A way of writing records and answers: JSON objects, tensors, ...

    Hashable, and equal to itself only: the requests of one form are read and answered together.
    """

    def arrays(self, asks: Sequence[Ask]) -> Mapping[str, np.ndarray] | None:
        """The columns of these requests, one after the other, if all of them are numbers in numpy; None: `batch` has them."""

    def batch(self, asks: Sequence[Ask]) -> Batch:
        """The records of these requests, one after the other, with ids `#0, #1, ...`."""

    def answer(self, asks: Sequence[Ask], answers: Answers) -> None:
        """Give every request its answers, which follow each other."""


class Caller(Protocol):
    """The way back to whoever asked."""

    @property
    def trace(self) -> str | None:
        """The trace to which the request belongs, if it says so."""

    @property
    def alone(self) -> bool:
        """Whether nobody is known who could ask at the same time: a batch need not wait for others to join."""

    def answer(self, data: bytes, kind: str = JSON, more: tuple[str, ...] = ()) -> None:
        """Give the answer."""

    def refuse(self, refused: Refused) -> None:
        """Say why there is no answer."""


class Ask:
    """Records of one caller, as its form read them."""

    __slots__ = ("abandoned", "caller", "content", "form", "rows", "since", "until")

    def __init__(self, form: Form, content: Any, rows: int, caller: Caller) -> None:
        self.form, self.content, self.rows, self.caller = form, content, rows, caller
        self.abandoned = False
        self.since, self.until = 0.0, math.inf
        """When it came to the desk, and when nobody wants its answer any more."""


class Log(Protocol):
    """Where answers are remembered."""

    def __call__(self, answers: Answers, stored: Stored | None = None) -> None:
        """Remember answers; `stored` is called, on any thread, when they are durable, or cannot be."""


class Desk:
    """Takes requests on an event loop and answers them in batches. A request is answered whole or refused whole.

    With `first` an answer is given when the log has it, and else before.
    """

    def __init__(
        self, step: Step, log: Log, *, max_rows: int, counts: Counts | None = None, first: bool = False,
        patience: Patience | None = None,
    ) -> None:  # fmt: skip
        self._step, self._log, self._max_rows, self._first = step, log, max_rows, first
        # the loop never waits for a model in a process of its own, however quick it was so far
        self._elsewhere = isinstance(step.model, ProcessModel)
        self._counts, self._patience = counts or Counts(), patience or Patience()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Ask] = deque()
        self._rows = 0
        self._traces = COLUMN in step.layout.lineage.names
        self._begun = False  # a batch is being answered, or about to be
        self._inside, self._entered = 0, 0.0  # records in the model, and since when
        self._pace = Pace()
        self._thread: Thread | None = None

    @property
    def signature(self) -> Signature:
        """Of the version of the model that answers."""
        return self._step.layout.signature

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer."""
        return self._begun

    @property
    def waiting(self) -> int:
        """How many requests wait for their batch."""
        return len(self._waiting)

    @property
    def waiting_rows(self) -> int:
        """How many records these are."""
        return self._rows

    def crowded(self) -> bool:
        """Whether who waits now takes half of the time that anybody may wait because of others."""
        return self._seconds(self._rows) > self._patience.queue / 2

    def _seconds(self, rows: int) -> float:
        """What so many records will take in batches as large as may be, as far as the latest batches tell."""
        full, rest = divmod(rows, self._step.max_records)
        seconds = self._pace.seconds(rest)
        return seconds + full * self._pace.seconds(self._step.max_records) if full else seconds

    def put(self, ask: Ask, within: float | None = None) -> None:
        """Take a request; its form answers it, or its caller is refused.

        What cannot be answered `within` so many seconds (at most those of the server's patience) is dropped without a word:
        whoever set the deadline tells the caller. Raises Refused: too much is waiting, or for too long.
        """
        patience = self._patience.answer
        within = patience if within is None else min(within, patience)
        ask.since = time.perf_counter()
        ask.until = ask.since + within
        # with nobody before it it is never refused: a model that was slow once can show that it no longer is
        if self._begun:
            self._check_room(ask, within)
        self._waiting.append(ask)
        self._rows += ask.rows
        failpoint("server.enqueue")
        if self._begun:
            return
        self._begun = True
        if ask.caller.alone:
            self._next()
        else:
            self._loop.call_soon(self._next)  # behind what else has just arrived: that joins the batch

    def _check_room(self, ask: Ask, within: float) -> None:
        """Raises Refused: it would wait for too long."""
        if self._waiting and self._rows + ask.rows > self._max_rows:
            raise BUSY.anew()
        ahead = queued = self._seconds(self._rows + ask.rows)
        if self._inside:
            ahead += max(0.0, self._pace.seconds(self._inside) - (ask.since - self._entered))
        if SLACK * ahead > within:
            raise busy(ahead)
        most = self._patience.queue
        if queued > most and queued - self._pace.seconds(min(ask.rows, self._step.max_records)) > most:
            raise busy(ahead)

    def close(self) -> None:
        """End; nobody must be waiting."""
        if self._thread is not None:
            self._thread.close()

    def _next(self) -> None:
        asks = self._take()
        if not asks:
            self._begun = False
            return
        failpoint("server.dequeue")
        rows = self._inside
        if not self._elsewhere and self._pace.quick(rows):
            found, seconds = self._inferred(asks)
            self._done(found, seconds)
            self._pace.took(rows, seconds)  # only now: nobody should wait for what is noted
            return
        if self._thread is None:
            self._thread = Thread("mlinfer-desk")
        self._thread.do(lambda: self._infer_there(asks, rows))

    def _infer_there(self, asks: list[Ask], rows: int) -> None:
        """The same on the thread."""
        found, seconds = self._inferred(asks)
        # at once: the loop may have many requests to judge by it before it comes to the answers
        self._pace.took(rows, seconds)
        self._loop.call_soon_threadsafe(self._done, found, seconds)

    def _take(self) -> list[Ask]:
        taken: list[Ask] = []
        rows, now = 0, time.perf_counter()
        while self._waiting and (not taken or rows + self._waiting[0].rows <= self._step.max_records):
            ask = self._waiting.popleft()
            self._rows -= ask.rows
            if not ask.abandoned and ask.until > now:
                taken.append(ask)
                rows += ask.rows
                self._counts.queue.add(now - ask.since)
        self._inside, self._entered = rows, now
        return taken

    def _inferred(self, asks: list[Ask]) -> tuple[list[tuple[list[Ask], Answers | Exception]], float]:
        """What becomes of these requests, those of one form together; and the seconds that it took."""
        begin = time.perf_counter()
        groups: dict[Form, list[Ask]] = {}
        for ask in asks:
            groups.setdefault(ask.form, []).append(ask)
        found = [one for group in groups.values() for one in self._answers(group)]
        return found, time.perf_counter() - begin

    def _answers(self, asks: list[Ask]) -> Iterator[tuple[list[Ask], Answers | Exception]]:
        try:
            form = asks[0].form
            numbers = form.arrays(asks)
            answers = None if numbers is None else self._step.at_once(numbers, sum(ask.rows for ask in asks))
            yield asks, self._step(form.batch(asks)) if answers is None else answers
        except BaseException as error:  # noqa: BLE001 - also a model that calls sys.exit(): the desk goes on
            if len(asks) == 1:
                yield asks, _told(error)
                return
            for ask in asks:  # one of them may be the reason, the others must not pay for it
                yield from self._answers([ask])

    def _done(self, found: list[tuple[list[Ask], Answers | Exception]], seconds: float) -> None:
        rows, self._inside = self._inside, 0
        for some, answers in found:
            if isinstance(answers, Exception):
                some[0].caller.refuse(refusal(answers))
                continue
            try:
                self._hand_out(some, answers)
            except Exception as error:  # noqa: BLE001 - told and logged as any other failure; the desk goes on
                for ask in some:
                    ask.caller.refuse(refusal(error))
        self._counts.infer.add(seconds)
        self._counts.batch.add(rows)
        if self._waiting:
            self._loop.call_soon(self._next)
        else:
            self._begun = False

    def _hand_out(self, asks: list[Ask], answers: Answers) -> None:
        """Refuse the requests that have bad records, and answer the others."""
        if not answers.rejects:
            self._reply(asks, answers)
            return
        bad = in_order(answers)
        reasons = {
            row: (kind, text) for row, kind, text in zip(bad.rows, bad.kinds, bad.messages, strict=True)
        }
        good, spans = [], []
        start = taken = 0
        for ask in asks:
            end = start + ask.rows
            errors = [(row - start, *reasons[row]) for row in range(start, end) if row in reasons]
            if errors:
                rows, kinds, messages = zip(*errors, strict=True)
                ask.caller.refuse(refusal(RecordErrors(rows, kinds, messages)))
            else:
                good.append(ask)
                spans.append((taken, ask.rows))
            start, taken = end, taken + ask.rows - len(errors)
        if good:
            self._reply(good, _only(answers, spans))

    def _reply(self, asks: list[Ask], answers: Answers) -> None:
        """Give every request its answers, and the log all of them; which of the two comes first was decided before."""
        if self._traces:
            records = traced(asks, answers.batch.records)
            answers = replace(answers, answered=replace(answers.batch, records=records))
        if not self._first:
            self._give(asks, answers)
            self._log(answers)
            return

        def stored(outcome: Outcome) -> None:
            with suppress(RuntimeError):  # the loop has ended: whoever asked has gone before
                self._loop.call_soon_threadsafe(self._stored, asks, answers, outcome)

        self._log(answers, stored)

    def _stored(self, asks: list[Ask], answers: Answers, outcome: Outcome) -> None:
        if outcome is None:
            self._give(asks, answers)
            return
        good, spans = [], []
        start = 0
        for ask in asks:
            end = start + ask.rows
            rows = range(start, end)
            if isinstance(outcome, Refused):
                ask.caller.refuse(outcome)
            elif outcome.keys().isdisjoint(rows):
                good.append(ask)  # another's record was refused
                spans.append((start, ask.rows))
            else:
                ask.caller.refuse(unstored({row - start: outcome[row] for row in rows if row in outcome}))
            start = end
        if good:
            self._give(good, _only(answers, spans))

    def _give(self, asks: list[Ask], answers: Answers) -> None:
        self._counts.rows += sum(ask.rows for ask in asks)
        try:
            asks[0].form.answer(asks, answers)
        except Exception as error:  # noqa: BLE001 - told to the callers as any other failure; the desk goes on
            for ask in asks:
                ask.caller.refuse(refusal(error))


class Thread:
    """Does one thing after the other."""

    def __init__(self, name: str) -> None:
        self._things: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, thing: Callable[[], object]) -> None:
        """Do this, when everything before it is done."""
        self._things.put(thing)

    def close(self) -> None:
        """End, when everything is done."""
        self._things.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (thing := self._things.get()) is not None:
            thing()
            del thing  # and what it was done for, which may be large


def _told(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    told = ComponentError(f"the model raised {type(error).__name__}")
    told.__cause__ = error
    return told


def _only(answers: Answers, spans: list[tuple[int, int]]) -> Answers:
    """The answers that callers were given; what was refused is no business of the log."""
    batch = answers.batch
    rows = [row for start, rows in spans for row in range(start, start + rows)]
    if len(rows) < len(batch):
        records = chosen_rows(batch.records, rows)
        batch = replace(batch, records=records, ids=batch.ids.take(rows))
    return Answers(batch, layout=answers.layout)
