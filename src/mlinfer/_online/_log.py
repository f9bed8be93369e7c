"""The prediction log: the pipeline's destination, written behind the answers, never in their way."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mlinfer._clock import SystemClock
from mlinfer._engine import Answers, Delivery, Job, Outputs, Running, Spending, Tally, fingerprint
from mlinfer._errors import MlinferError
from mlinfer._events import manager
from mlinfer._layout import Layout
from mlinfer._protocols import Scope

LONGEST_QUEUE = 1000
_END = None
_logger = logging.getLogger("mlinfer")


class PredictionLog:
    """Hands answers to the destination on a thread of its own; when that falls behind, answers are dropped and counted."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._queue: queue.Queue[Answers | None] = queue.Queue(LONGEST_QUEUE)
        self.dropped = 0
        self._broken = False
        self._thread = threading.Thread(target=self._work, name="mlinfer-log", daemon=True)
        self._thread.start()

    def __call__(self, answers: Answers) -> None:
        """Remember answers for writing; returns at once."""
        try:
            self._queue.put_nowait(answers)
        except queue.Full:
            self.dropped += len(answers.batch)

    def close(self) -> None:
        """Write what is waiting, and end."""
        self._queue.put(_END)
        self._thread.join()

    def _work(self) -> None:
        while True:
            try:
                answers = self._queue.get(timeout=0.2)
            except queue.Empty:
                self._write(self._delivery.commit_if_due)
                continue
            if answers is _END:
                self._write(self._delivery.commit)
                return
            self._write(lambda answers=answers: self._delivery.deliver(answers))
            self._write(self._delivery.commit_if_due)

    def _write(self, action: object) -> None:
        """A log that fails is told once and must not stop the answers."""
        if self._broken:
            return
        try:
            action()  # type: ignore[operator]
        except MlinferError:
            self._broken = True
            _logger.exception("the prediction log failed; answers go on without it")


@contextmanager
def prediction_log(job: Job, layout: Layout) -> Iterator[PredictionLog]:
    """Open the pipeline's destination as a log. Its scope is NAME/serve: it never fences the batch job."""
    run = secrets.token_hex(8)
    job = replace(job, name=f"{job.name or 'unnamed'}/serve", rejects=None, side={}, checkpoint=None)
    clock, tally = SystemClock(), Tally(manager(()))
    with Outputs(job, Scope(job.name or "", run=run), {}) as outputs:
        outputs.open(layout.output, {})
        assert outputs.main is not None  # noqa: S101 - open() has set it
        signature = layout.signature
        running = Running(
            model=f"{signature.model_id}@{signature.version}", run=run, fingerprint=fingerprint(layout), clock=clock,
            tally=tally, spending=Spending(job.budget, rejects_kept=True), durable=lambda _: None,
        )  # fmt: skip
        log = PredictionLog(Delivery(outputs.main, outputs, running))
        try:
            yield log
        finally:
            log.close()
