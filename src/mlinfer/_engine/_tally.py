"""Counts what happens in a run, from all its threads, and tells the observers."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

from mlinfer._errors import RejectsError
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
from mlinfer._text import count

if TYPE_CHECKING:
    import pluggy

    from mlinfer._engine._job import Budget
    from mlinfer._engine._step import Answers


class Tally:
    """The account of a run. Records count as delivered when they are durable, not before."""

    def __init__(self, hooks: pluggy.PluginManager) -> None:
        self._hook = hooks.hook
        self._lock = threading.Lock()
        self.delivered = self.rejected = self.commits = self.retries = 0
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.stages: Counter[str] = Counter()
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
                self.reasons.update((group.stage, kind) for kind in group.kinds)
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
            self.stages[stage] += seconds  # type: ignore[assignment]  # a Counter adds floats as well


class Spending:
    """Watches a reject budget over all partitions of a run."""

    def __init__(self, budget: Budget, *, rejects_kept: bool, already: int = 0) -> None:
        self._budget, self._rejects_kept = budget, rejects_kept
        self._lock = threading.Lock()
        self._total = already
        self._recent_bad = self._recent = 0
        self._batches: deque[tuple[int, int]] = deque()

    def spend(self, answers: Answers) -> None:
        """Count a batch. Raises RejectsError when there are too many rejects, or any and no place for them."""
        bad = answers.rejected
        with self._lock:
            self._total += bad
            self._slide(len(answers.batch) + bad, bad)
            problem = self._problem(bad)
        if bad and not self._rejects_kept:
            first = answers.rejects[0]
            msg = (
                f"{count(bad, 'bad record')} and no place for them; the first: record {first.ids.array()[0]} "
                f"({first.stage}): {first.messages[0]}; name a destination for them with rejects="
            )
            raise RejectsError(msg)
        if problem:
            first = next(group for group in answers.rejects if len(group))
            msg = f"{problem}; the latest: record {first.ids.array()[0]} ({first.stage}): {first.messages[0]}"
            raise RejectsError(msg)

    def _slide(self, records: int, bad: int) -> None:
        self._batches.append((records, bad))
        self._recent, self._recent_bad = self._recent + records, self._recent_bad + bad
        while self._recent - self._batches[0][0] >= self._budget.window:
            old, old_bad = self._batches.popleft()
            self._recent, self._recent_bad = self._recent - old, self._recent_bad - old_bad

    def _problem(self, bad: int) -> str | None:
        budget = self._budget
        if not bad:
            return None
        if budget.count is not None and self._total > budget.count:
            return f"budget: wanted at most {count(budget.count, 'reject')}, found {self._total:,}"
        enough = self._recent >= budget.window
        if budget.ratio is not None and enough and self._recent_bad > budget.ratio * self._recent:
            share = self._recent_bad / self._recent
            return f"budget: wanted at most {budget.ratio:.1%} rejects, found {share:.1%} of the last {self._recent:,} records"
        return None
