"""What metrics are made of: each is a function of the weights of the records that knows how much each of them moves it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mlinfer.lifecycle._intervals import (
    FEWEST,
    NOTHING,
    UNKNOWN,
    Draws,
    Interval,
    around,
    around_positive,
    around_share,
    clopper_pearson,
    kish,
    korn_graubard,
)

STUDENT = "Student"


class Measure(Protocol):
    """A metric on fixed records."""

    def __call__(self, weights: np.ndarray) -> float:
        """Its value for the weight of each record (n); nan where these do not say."""
        ...

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """How much each record (n) moves the value: its weight times the derivative by that; they add up to 0."""
        ...

    def interval(self, draws: Draws) -> Interval:
        """Of 95 %; (nan, nan) where the records do not say."""
        ...

    def method(self, draws: Draws) -> str:
        """What the interval is called, as `Score.method` says it."""
        ...


@dataclass(frozen=True, eq=False)
class Ratio:
    """A sum over records (n) by another one: of errors, none below 0."""

    above: np.ndarray
    below: np.ndarray

    def __call__(self, weights: np.ndarray) -> float:
        """The ratio; nan if there is nothing to divide by."""
        below = float(weights @ self.below)
        return float(weights @ self.above) / below if below else math.nan

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """The part of a record in the first sum beyond what its part in the second one would lead to."""
        below = float(weights @ self.below) or math.nan
        return weights * (self.above - self(weights) * self.below) / below

    def interval(self, draws: Draws) -> Interval:
        """By its logarithm."""
        return around_positive(self(draws.weights), *draws.error(self.influence(draws.weights)))

    def method(self, draws: Draws) -> str:  # noqa: ARG002 - however they are drawn
        """From Student's distribution."""
        return STUDENT


class Share(Ratio):
    """How many records of some are hits: both are 0 or 1 for each record, and hits are among the others."""

    def interval(self, draws: Draws) -> Interval:
        """The exact one, or that of as many records drawn one by one as tell as much.

        All of the records, or none, show no error: then it is the exact interval of as many draws as count.
        """
        if draws.plain:
            return clopper_pearson(int(self.above.sum()), int(self.below.sum()))
        if draws.counting < FEWEST:
            return UNKNOWN
        effective, share = draws.effective(self.below), self(draws.weights)
        there = draws.weights * self.below > 0
        hits = self.above[there] > 0
        if hits.all() or not hits.any():
            return clopper_pearson(effective if hits.any() else 0, effective)
        error, _ = draws.error(self.influence(draws.weights))
        return korn_graubard(share, error, int(there.sum()), effective - 1)

    def method(self, draws: Draws) -> str:
        """Clopper and Pearson's is exact."""
        return "exact" if draws.plain else "Korn-Graubard"


class Area:
    """The area under the ROC curve for `score` (n) of records of which some are `positive` (n, bool)."""

    def __init__(self, positive: np.ndarray, score: np.ndarray) -> None:
        self.positive, self.score = positive, score
        self._place = np.unique(score, return_inverse=True)[1]

    def __call__(self, weights: np.ndarray) -> float:
        """The share of pairs of a positive and a negative record that are in order; ties count half."""
        positive = weights * self.positive
        total = float(positive.sum())
        return min(float(positive @ self._in_order(weights)) / total, 1.0) if total else math.nan

    def _in_order(self, weights: np.ndarray) -> np.ndarray:
        """Of a positive record (n), the share of negative ones behind it; of a negative one, of positive ones ahead of it."""
        found = np.empty(len(weights))
        for ours in (True, False):
            others = np.bincount(self._place, weights * (self.positive != ours))
            total = float(others.sum()) or math.nan
            behind = (np.cumsum(others) - others / 2) / total
            mine = self.positive == ours
            found[mine] = (behind if ours else 1 - behind)[self._place[mine]]
        return found

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """What a record is ahead of the others of its class, each class as large as its variance needs.

        Sun and Xu, IEEE Signal Processing Letters 21 (2014): so the sum of their squares is DeLong's variance.
        """
        moved = weights * (self._in_order(weights) - self(weights))
        for mine in (self.positive, ~self.positive):
            many = kish(weights[mine])
            moved[mine] *= math.sqrt(many / (many - 1)) / float(weights[mine].sum()) if many > 1 else math.nan
        return moved

    def interval(self, draws: Draws) -> Interval:
        """By DeLong's error on the scale of the logit (Pepe, 2003, section 5.2.5).

        An area of 0 or 1 has no error; then that of the pairs which share no record is taken: min(positives, negatives)
        independent tries, all with the same outcome, by Clopper and Pearson.
        """
        area = self(draws.weights)
        if not NOTHING < area < 1 - NOTHING:
            pairs = min(draws.effective(self.positive), draws.effective(~self.positive))
            return clopper_pearson(pairs if area > NOTHING else 0, pairs)
        return around_share(area, *draws.error(self.influence(draws.weights)))

    def method(self, draws: Draws) -> str:
        """DeLong's where each record is a draw of its own."""
        return "DeLong" if draws.plain else STUDENT


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of other measures; `apart` says that no record counts in two of them."""

    parts: Sequence[Share | Area]
    apart: bool = False

    def __call__(self, weights: np.ndarray) -> float:
        """Nan if one of them is."""
        return float(np.mean([part(weights) for part in self.parts]))

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """The mean of what a record moves."""
        found = np.zeros(len(weights))
        for part in self.parts:  # one by one, for there may be hundreds
            found += part.influence(weights)
        return found / len(self.parts)

    def interval(self, draws: Draws) -> Interval:
        """Of their own intervals and correlations, so that a part without an error has a margin, too.

        Zou and Donner, Statistics in Medicine 27 (2008), the method of variance estimates recovery.
        """
        values = np.array([part(draws.weights) for part in self.parts])
        ends = np.array([part.interval(draws) for part in self.parts])
        together = self._correlations(draws)
        below, above = values - ends[:, 0], ends[:, 1] - values
        margins = [math.sqrt(one @ together @ one) / len(values) for one in (below, above)]
        return float(values.mean() - margins[0]), float(values.mean() + margins[1])

    def method(self, draws: Draws) -> str:  # noqa: ARG002 - however they are drawn
        """From Student's distribution."""
        return STUDENT

    def _correlations(self, draws: Draws) -> np.ndarray:
        if self.apart and draws.groups is None:
            return np.eye(len(self.parts))
        moved = np.array([draws.moved(part.influence(draws.weights)) for part in self.parts])
        lengths = np.sqrt((moved**2).sum(1))
        lengths[~(lengths > NOTHING)] = math.inf
        together: np.ndarray = moved @ moved.T / np.outer(lengths, lengths)
        np.fill_diagonal(together, 1.0)
        return together


@dataclass(frozen=True, eq=False)
class Spread:
    """The squared errors of `predicted` (n) by those of the mean of `truth` (n): what r2 leaves of 1."""

    truth: np.ndarray
    predicted: np.ndarray

    def _squares(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        truth = self.truth - self.truth.mean()  # far from zero, squares would cancel
        total = float(weights.sum())
        beside = (truth - float(weights @ truth) / (total or math.nan)) ** 2
        return (self.truth - self.predicted) ** 2, beside, float(weights @ beside)

    def __call__(self, weights: np.ndarray) -> float:
        """Nan where all of the truth is alike."""
        wrong, _, spread = self._squares(weights)
        return float(weights @ wrong) / spread if spread > 0 else math.nan

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """As of a ratio; that the mean moves, too, is of second order."""
        wrong, beside, spread = self._squares(weights)
        found: np.ndarray = weights * (wrong - self(weights) * beside) / (spread or math.nan)
        return found

    def influence_beyond(self, other: Spread, weights: np.ndarray) -> np.ndarray:
        """On what is left more than of another one with the same truth.

        As if the spread were known, so it is a paired test of squares: were luck to count in the spread, too, 7 % of models
        that are no better would pass for better among 30 records.
        """
        (wrong, _, spread), beside = self._squares(weights), other._squares(weights)[0]
        more = wrong - beside
        found: np.ndarray = weights * (more - float(weights @ more) / float(weights.sum())) / spread
        return found

    def interval(self, draws: Draws) -> Interval:
        """By its logarithm."""
        return around_positive(self(draws.weights), *draws.error(self.influence(draws.weights)))

    def method(self, draws: Draws) -> str:  # noqa: ARG002 - however they are drawn
        """From Student's distribution."""
        return STUDENT


@dataclass(frozen=True, eq=False)
class Shown:
    """A measure by a number that people know better: `shown` of its value, with this `slope` there."""

    measure: Measure
    shown: Callable[[float], float]
    slope: Callable[[float], float]

    def __call__(self, weights: np.ndarray) -> float:
        """Of the value."""
        return self.shown(self.measure(weights))

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """By the slope."""
        found: np.ndarray = self.slope(self.measure(weights)) * self.measure.influence(weights)
        return found

    def interval(self, draws: Draws) -> Interval:
        """Of both ends, in order."""
        low, high = sorted(self.shown(end) for end in self.measure.interval(draws))
        return low, high

    def method(self, draws: Draws) -> str:
        """That of the measure."""
        return self.measure.method(draws)


def difference(measure: Measure, baseline: Measure, draws: Draws, sign: int) -> Interval:
    """How much larger (`sign` 1) or smaller (-1) a measure is than one of a baseline on the same records.

    By how much each record moves the difference. A baseline that no record moves (constant scores have an area of 0.5) is
    taken from the measure's own interval.
    """
    weights = draws.weights
    moved = baseline.influence(weights)
    beside = baseline(weights)
    if np.abs(moved).sum() <= NOTHING * abs(beside):  # of the value, for a target may be in any unit
        low, high = sorted(sign * (end - beside) for end in measure.interval(draws))
        return low, high
    value = sign * (measure(weights) - beside)
    return around(value, *draws.error(_influence_beyond(measure, baseline, weights)))


def _influence_beyond(measure: Measure, baseline: Measure, weights: np.ndarray) -> np.ndarray:
    if isinstance(measure, Shown) and isinstance(baseline, Shown):
        inner, beside = measure.measure, baseline.measure
        if isinstance(inner, Spread) and isinstance(beside, Spread):
            return inner.influence_beyond(beside, weights)
    beyond: np.ndarray = measure.influence(weights) - baseline.influence(weights)
    return beyond
