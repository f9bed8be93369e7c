"""Where requests meet: what piled up while the model was busy is the next batch, and each caller gets his own answer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from mlinfer._answering import in_order, rows_batch
from mlinfer._engine import Answers, Step
from mlinfer._errors import ComponentError, RecordErrors
from mlinfer._failpoints import failpoint


class Busy(Exception):  # noqa: N818 - what the caller is told
    """There is no room for another request; ask again in a moment."""


@dataclass(eq=False)
class Request:
    """Records of one caller, and what became of them."""

    rows: Sequence[Any]
    done: threading.Event = field(default_factory=threading.Event)
    answers: pa.RecordBatch | None = None
    error: Exception | None = None


class Desk:
    """Takes requests from many threads and answers them on one, in batches. A request is answered whole or refused whole."""

    def __init__(self, step: Step, log: Callable[[Answers], None], *, max_rows: int) -> None:
        self._step, self._log = step, log
        self._max_rows = max_rows
        self._waiting: deque[Request] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="mlinfer-desk", daemon=True)
        self._thread.start()

    def ask(self, rows: Sequence[Any], timeout: float) -> pa.RecordBatch:
        """The answers to these records, one each, in order.

        Raises RecordErrors (rows counted within this request), Busy when too much is waiting, TimeoutError.
        """
        request = Request(rows)
        with self._changed:
            if self._closing or (self._waiting and self._rows + len(rows) > self._max_rows):
                raise Busy
            self._waiting.append(request)
            self._rows += len(rows)
            self._changed.notify()
        failpoint("server.enqueue")
        if not request.done.wait(timeout):
            self._forget(request)
            raise TimeoutError
        if request.error is not None:
            raise request.error
        assert request.answers is not None  # noqa: S101 - done without an error means answered
        return request.answers

    def close(self) -> None:
        """Take nothing new, answer what was accepted, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _forget(self, request: Request) -> None:
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)
                self._rows -= len(request.rows)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                requests = self._take()
            failpoint("server.dequeue")
            self._answer(requests)

    def _take(self) -> list[Request]:
        taken: list[Request] = []
        rows = 0
        while self._waiting and (not taken or rows + len(self._waiting[0].rows) <= self._step.max_records):
            taken.append(self._waiting.popleft())
            rows += len(taken[-1].rows)
        self._rows -= rows
        return taken

    def _answer(self, requests: list[Request]) -> None:
        try:
            answers = self._step(
                rows_batch([row for one in requests for row in one.rows], self._step.layout.wanted)
            )
            self._hand_out(requests, answers)
        except BaseException as error:  # noqa: BLE001 - also a model that calls sys.exit(): the desk goes on
            if len(requests) > 1:
                for request in requests:  # one of them may be the reason, the others must not pay for it
                    self._answer([request])
                return
            requests[0].error = _told(error)
        for request in requests:
            request.done.set()

    def _hand_out(self, requests: list[Request], answers: Answers) -> None:
        """Cut the answers of the batch into those of its requests."""
        bad = in_order(answers)
        reasons = {
            row: (kind, text) for row, kind, text in zip(bad.rows, bad.kinds, bad.messages, strict=True)
        }
        start = taken = 0
        logged = []
        for request in requests:
            end = start + len(request.rows)
            errors = [(row - start, *reasons[row]) for row in range(start, end) if row in reasons]
            good = len(request.rows) - len(errors)
            if errors:
                rows, kinds, messages = zip(*errors, strict=True)
                request.error = RecordErrors(rows, kinds, messages)
            else:
                request.answers = answers.batch.records.slice(taken, good)
                logged.append((taken, good))
            start, taken = end, taken + good
        if logged:
            self._log(_only(answers, logged))


def _told(error: BaseException) -> Exception:
    """What the caller's thread may raise without ending."""
    if isinstance(error, Exception):
        return error
    told = ComponentError(f"the model raised {type(error).__name__}")
    told.__cause__ = error
    return told


def _only(answers: Answers, spans: list[tuple[int, int]]) -> Answers:
    """The answers that callers were given; what was refused is no business of the log."""
    batch = answers.batch
    rows = [row for start, count in spans for row in range(start, start + count)]
    if len(rows) < len(batch):
        records = batch.records.take(pa.array(rows, pa.int64()))
        batch = replace(batch, records=records, ids=batch.ids.take(rows))
    return Answers(batch)
