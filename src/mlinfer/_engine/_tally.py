"""Counts what happens in a run, from all its threads, and tells the observers."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from mlinfer._events import (
    BatchInferred,
    BatchRead,
    BatchWritten,
    ModelChanged,
    ProgressCommitted,
    RecordsRejected,
    RetryScheduled,
)
from mlinfer._report import RunReport

if TYPE_CHECKING:
    import pluggy

    from mlinfer._engine._step import Answers


class Tally:
    """The account of a run. Records count as delivered when they are durable, not before."""

    def __init__(self, hooks: pluggy.PluginManager) -> None:
        self._hook = hooks.hook
        self._lock = threading.Lock()
        self.delivered = self.rejected = self.commits = self.retries = 0
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.stages: defaultdict[str, float] = defaultdict(float)
        self._newest: str | None = None

    def read(self, partition: str, records: int, seconds: float) -> None:
        """A batch came from the source."""
        self._spent("read", seconds)
        self._hook.batch_read(event=BatchRead(partition, records, seconds))

    def inferred(self, partition: str, records: int, seconds: float) -> None:
        """A batch was answered."""
        self._spent("infer", seconds)
        self._hook.batch_inferred(event=BatchInferred(partition, records, seconds))

    def written(self, answers: Answers, seconds: float) -> None:
        """A batch was handed to the destination."""
        self._spent("write", seconds)
        self._hook.batch_written(event=BatchWritten(answers.batch.partition, len(answers.batch), seconds))

    def committed(self, partitions: tuple[str, ...], held: list[Answers], seconds: float) -> None:
        """These answers are durable."""
        self._spent("commit", seconds)
        records = sum(len(answers.batch) for answers in held)
        with self._lock:
            self.commits += 1
            self.delivered += records
            for group in (group for answers in held for group in answers.rejects):
                self.rejected += len(group)
                self.reasons.update(group.reasons())
        for group in (group for answers in held for group in answers.rejects):
            self._hook.records_rejected(
                event=RecordsRejected(group.partition, group.stage, Counter(group.kinds))
            )
        self._hook.progress_committed(event=ProgressCommitted(partitions, records, seconds))

    def retried(self, reason: str, failures: int, wait: float) -> None:
        """The run begins again after its last commit."""
        self.retries += 1
        self._hook.retry_scheduled(event=RetryScheduled(reason, failures, wait))

    def renewed(self, event: ModelChanged) -> None:
        """A model has changed, or could not; several workers that change to the same version are told once."""
        with self._lock:
            known = event.problem is None and event.now == self._newest
            if event.problem is None:
                self._newest = event.now
        if not known:
            self._hook.model_changed(event=event)

    def report(self, name: str, run: str, guarantee: str, seconds: float, **more: object) -> RunReport:
        """The account so far."""
        with self._lock:
            return RunReport(
                name=name, run=run, guarantee=guarantee, seconds=seconds, delivered=self.delivered,
                rejected=self.rejected, stages=dict(self.stages), reasons=dict(self.reasons), commits=self.commits,
                retries=self.retries, **more,  # type: ignore[arg-type]
            )  # fmt: skip

    def _spent(self, stage: str, seconds: float) -> None:
        with self._lock:
            self.stages[stage] += seconds
