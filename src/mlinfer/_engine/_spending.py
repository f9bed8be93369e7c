"""The budget for rejects: judged when a batch is delivered, and foreseen while its bad records are still being looked for."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlinfer._batch import spread
from mlinfer._errors import ComponentError, RejectsError
from mlinfer._rejects import Rejected
from mlinfer._text import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlinfer._batch import RecordIds
    from mlinfer._engine._job import Budget
    from mlinfer._engine._step import Answers
    from mlinfer._isolate import Isolated, Rows

MOST_TIMEOUTS = 40
"""Over one batch. Two slow records of 65,536 are found with fewer, and about six of a hundred."""
MOST_REASONS = 5
NO_PLACE = "no place for them"


class Spending:
    """Watches a reject budget over all partitions of a run."""

    def __init__(self, budget: Budget, *, rejects_kept: bool, already: int = 0) -> None:
        self._budget, self.rejects_kept = budget, rejects_kept
        self._lock = threading.Lock()
        self._total = already
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._records = 0
        self._bad = np.empty(0, np.int64)
        """Which of the records were bad, counted from the first one spent; those before the window are forgotten."""

    def spend(self, answers: Answers) -> None:
        """Count a batch. Raises RejectsError when there are too many rejects, or any and no place for them."""
        records = len(answers.batch) + answers.rejected
        with self._lock:
            start, self._records = self._records, self._records + records
            self._charge(answers.rejects, [start + _places(group, records) for group in answers.rejects])

    def spend_late(self, refused: Rejected, rows: Sequence[int], behind: int) -> None:
        """Charge what the destination has refused: records that were counted, as good ones, when they were delivered.

        `rows` are those of a batch that began `behind` records before the latest one. Raises RejectsError as `spend` does.
        """
        with self._lock:
            self._charge((refused,), [self._records - behind + np.asarray(rows, np.int64)])

    def foresee(self, rows: Sequence[int], records: int, reject: Callable[[], Rejected]) -> None:
        """Raise RejectsError if these bad rows of a batch end the run, whatever else is found; `reject` makes them one."""
        if not rows:
            return
        with self._lock:
            total, start, before = self._total + len(rows), self._records, self._bad
        bad = np.concatenate([before, start + np.sort(np.asarray(rows, np.int64))])
        problem = self._problem(total, bad, start + records)
        if problem is not None:
            group = reject()
            raise RejectsError(_message(problem, group, self._reasons + _reasons((group,))))

    def _charge(self, groups: Sequence[Rejected], places: list[np.ndarray]) -> None:
        self._total += sum(map(len, groups))
        self._reasons += _reasons(groups)
        self._bad = np.sort(np.concatenate([self._bad, *places]))
        problem = self._problem(self._total, self._bad, self._records) if any(map(len, groups)) else None
        self._bad = self._bad[self._bad >= self._records - self._budget.window]
        if problem is not None:
            raise RejectsError(_message(problem, next(filter(len, groups)), self._reasons))

    def _problem(self, total: int, bad: np.ndarray, records: int) -> str | None:
        """What is wrong after so many rejects in all, and with these among so many records."""
        budget = self._budget
        if not self.rejects_kept:
            return NO_PLACE
        if budget.count is not None and total > budget.count:
            return f"wanted at most {count(budget.count, 'reject')}, found {total:,}"
        if budget.ratio is None or not len(bad):
            return None
        within = np.arange(1, len(bad) + 1) - np.searchsorted(bad, bad - budget.window, side="right")
        most = int(within.max())
        if most <= budget.ratio * budget.window:  # more are too many also while fewer records have been seen
            return None
        last = min(budget.window, records)
        return f"wanted at most {budget.ratio:.1%} rejects, found {most / last:.1%} of the last {count(last, 'record')}"


def _message(problem: str, group: Rejected, reasons: Counter[tuple[str, str]]) -> str:
    which = f"record {group.ids.array()[0]} ({group.stage}): {group.messages[0]}"
    if problem is NO_PLACE:
        return f"{count(len(group), 'bad record')} and {NO_PLACE}; the first: {which}; name a destination for them with rejects="
    return f"budget: {problem}; the latest: {which}; by reason: {listed(reasons)}"


def listed(reasons: Counter[tuple[str, str]]) -> str:
    """The most frequent reasons: `conform missing_value 12, infer timeout 1`."""
    shown = [f"{stage} {kind} {number:,}" for (stage, kind), number in reasons.most_common(MOST_REASONS)]
    return ", ".join([*shown, "..."] if len(reasons) > MOST_REASONS else shown)


def _reasons(groups: Sequence[Rejected]) -> Counter[tuple[str, str]]:
    return sum((group.reasons() for group in groups), Counter())


def _places(group: Rejected, records: int) -> np.ndarray:
    """Where the bad records of a group stood in their batch; spread evenly over it where nobody knows."""
    if group.places is not None:
        return np.asarray(group.places, np.int64)
    return spread(len(group), records)


@dataclass(frozen=True, slots=True)
class Lookout:
    """Ends the search for bad records in one batch as soon as what was found ends the run.

    Args:
        spending: the run's budget.
        ids: those of the records that are asked for.
        records: the number of them.
        before: what was found among them in earlier calls.
    """

    spending: Spending
    ids: RecordIds
    records: int
    before: Sequence[Isolated[Any]]

    def __call__(self, found: Isolated[Any], rows: Rows) -> None:
        """After a call for these rows has failed. Raises RejectsError, or ComponentError: too many calls took too long."""
        every = [*self.before, found]
        bad = [row for one in every for row in one.rows]
        self.spending.foresee(bad, self.records, lambda: self._reject(every, bad))
        if found.timeouts < MOST_TIMEOUTS:
            return
        names = self.ids.take([*found.rows[:1], rows[0], rows[-1]]).array().to_pylist()
        slow = (
            f"{count(len(found.rows), 'slow record')} found (the first: {names[0]}), " if found.rows else ""
        )
        msg = (
            f"the model took too long {found.timeouts} times over one batch, {slow}last with records {names[-2]} to {names[-1]}; "
            "raise timeout=, or let fewer records share a batch: batching=Batching(100)"
        )
        raise ComponentError(msg)

    def _reject(self, every: Sequence[Isolated[Any]], bad: list[int]) -> Rejected:
        kinds = [kind for one in every for kind in one.kinds]
        messages = [message for one in every for message in one.messages]
        return Rejected("", "infer", self.ids.take(bad), kinds, messages)
