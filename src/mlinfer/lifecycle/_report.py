"""What training has found, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlinfer import ConfigError
from mlinfer.lifecycle._intervals import NOTHING
from mlinfer.lifecycle._metrics import METRICS, Score

UNTOLD = ": all records are off alike, or are too few, to say by how much others are"


@dataclass(frozen=True)
class Training:
    """A model that was trained, and how it did on records that it had not seen.

    `path` is its package, `estimator` what was fitted, `records` the number of records on each side, and `scores` has one
    `Score` per metric for all unseen records, then for each group. `training["roc_auc"]` is the first of that name.
    """

    path: Path
    estimator: Any = field(repr=False)
    kind: str
    target: str
    split: Mapping[str, str]
    records: Mapping[str, int]
    without_target: int
    scores: tuple[Score, ...]
    accept: Mapping[str, float]

    def __getitem__(self, metric: str) -> Score:
        """The score on all unseen records. Raises ConfigError: it was not measured."""
        found = next((score for score in self.scores if score.metric == metric and score.group is None), None)
        if found is None:
            there = ", ".join(score.metric for score in self.scores if score.group is None)
            msg = f"metric: wanted one of {there}, found {metric!r}"
            raise ConfigError(msg)
        return found

    def __str__(self) -> str:
        """A table for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"estimator   {self.kind}, for {self.target}"
        sides = ", ".join(f"{count:,} {side}" for side, count in self.records.items())
        yield f"split       by {self.split['by']} {self.split['column']}: {sides}"
        if self.without_target:
            yield f"left out    {self.without_target:,} without {self.target}"
        yield f"unseen      {self.records['test']:,} records, intervals of 95%"
        yield from _table(self.scores, self.accept)


def missed(training: Training) -> list[str]:
    """What the model has not confirmed, in words; nothing if it holds."""
    found = []
    for name, bar in training.accept.items():
        score, more = training[name], METRICS[name].more_is_better
        worst = score.low if more else score.high
        if not (worst >= bar if more else worst <= bar):
            margin = f"{_number(score.value)} ({_range(score.low, score.high)})"
            if not math.isfinite(worst):
                margin += UNTOLD
            found.append(
                f"{name}: wanted {'at least' if more else 'at most'} {bar:g} over its whole interval of 95%, found {margin}"
            )
    first = training.scores[0]
    if first.better_low is None or not first.better_low > 0:
        better = f"{_number(first.better_by)} ({_range(first.better_low, first.better_high)})"
        if first.better_low is None or not math.isfinite(first.better_low):
            better += UNTOLD
        found.append(
            f"{first.metric}: wanted more than a baseline ({_number(first.baseline)}) by more than the margin, found better by {better}"
        )
    return found


def _table(scores: tuple[Score, ...], accept: Mapping[str, float]) -> Iterator[str]:
    rows = [("", "metric", "value", "interval", "how", "better than baseline", "bar")]
    for score in scores:
        bar = accept.get(score.metric) if score.group is None else None
        better = (
            ""
            if score.better_by is None
            else f"{_number(score.better_by)} ({_range(score.better_low, score.better_high)})"
        )
        of = "all" if score.group is None else f"{score.group} ({score.records:,})"
        rows.append((
            of, score.metric, _number(score.value), _range(score.low, score.high), score.method, better,
            "" if bar is None else f"{bar:g}",
        ))  # fmt: skip
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _range(low: float | None, high: float | None) -> str:
    return "undefined" if low is None or not math.isfinite(low) else f"{_number(low)} to {_number(high)}"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "undefined"
    if NOTHING < abs(value) < 0.001:  # noqa: PLR2004 - an error in a large unit, which three places would show as none
        return f"{value:.2g}"
    return f"{value:z.3f}" if abs(value) < 100 else f"{value:,.1f}"  # noqa: PLR2004 - enough digits either way
