"""Error margins of 95 %.

A share of records (accuracy, precision, recall, and F1, which is made of one): the exact interval of Clopper and Pearson
(1934), which covers at least 95 %; where records carry weights or come in groups, that of as many records as tell as much
(Korn and Graubard, 1998). All else stands on how much each record, or group, moves the metric (the jackknife: Efron and
Tibshirani, 1993, chapters 11 and 21; for the area under the ROC curve DeLong, DeLong and Clarke-Pearson, 1988): from the
error that these add up to, an interval of Student's on the scale of the logit, or of the logarithm for what has no upper end.
Its degrees of freedom are what the error itself is known to, fewer where few records move the metric most (O'Neill, 2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
FEWEST = 6
"""Of fewer independent draws even the largest and the smallest one enclose the middle in less than 95 % of all cases, for
each lies on either side of it with an even chance: 1 - 2 / 2**5 is 0.94."""
NOTHING = 1e-12
"""What is but rounding: in an area, in influences beside the value, in a weight beside the largest one."""
STEEPEST = 300.0
"""A factor of so many powers of e is as good as any larger one, and still a float after it was multiplied."""

Interval = tuple[float, float]
UNKNOWN: Interval = (math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Draws:
    """How often each record counts: its `weights` (n), and the group (n, from 0) that it is drawn with, if any."""

    weights: np.ndarray
    groups: np.ndarray | None = None

    @property
    def plain(self) -> bool:
        """Whether records count once and are drawn one by one: then exact intervals hold."""
        return self.groups is None and bool(np.all(self.weights == 1))

    @property
    def counting(self) -> int:
        """How many are drawn that weigh anything."""
        weighing = self.moved(self.weights)
        return int(np.count_nonzero(weighing > NOTHING * weighing.max(initial=0)))

    @property
    def count(self) -> int:
        """How many are drawn: records, or groups of them."""
        return len(self.weights) if self.groups is None else int(self.groups.max()) + 1

    def moved(self, influence: np.ndarray) -> np.ndarray:
        """How much each draw moves a metric, of how much each record does."""
        return influence if self.groups is None else np.bincount(self.groups, influence, self.count)

    def effective(self, among: np.ndarray) -> int:
        """How many draws of equal weight tell as much about the records `among` (n, 0 or 1) as these (Kish, 1965)."""
        return round(kish(self.moved(self.weights * among)))

    def of(self, rows: np.ndarray) -> Draws:
        """The draws of some records (a mask)."""
        groups = None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1]
        return Draws(self.weights[rows], groups)

    def error(self, influence: np.ndarray) -> tuple[float, float]:
        """The standard error of a metric that each record has this influence on (n), and the degrees of freedom of it.

        Undefined for fewer draws than tell a margin. Each draw is left out in turn, for one that holds much of the weight pulls
        the metric towards itself: without it the metric is farther off than its influence shows. O'Neill, The American
        Statistician 68 (2014): a variance of n draws with this kurtosis is known as well as one of so many draws from a normal
        distribution.
        """
        count = self.counting
        if count < FEWEST:
            return math.nan, math.nan
        weighing = self.moved(self.weights)
        moved = self.moved(influence) / np.maximum(1 - weighing / weighing.sum(), NOTHING)
        squares = float((moved**2).sum())
        if not squares > 0:
            return squares, count - 1  # 0, or nan
        kurtosis = count * float((moved**4).sum()) / squares**2
        free = 2 * count / (kurtosis - (count - 3) / (count - 1))
        return math.sqrt(squares * (count - 1) / count), min(free, count - 1)


def kish(weights: np.ndarray) -> float:
    """How many draws of equal weight tell as much as those of these `weights` (n)."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def student(free: float) -> float:
    """How many standard errors a margin is wide."""
    from scipy.stats import t

    return float(t.ppf(1 - TAIL, free))


def around(value: float, error: float, free: float) -> Interval:
    """The interval of something that may be any number."""
    margin = student(free) * error
    return value - margin, value + margin


def around_positive(value: float, error: float, free: float) -> Interval:
    """The interval of something above 0, by its logarithm; unknown where nothing moves it, for then nothing is known of it."""
    if not (value > 0 and error > 0):
        return UNKNOWN
    factor = math.exp(min(student(free) * error / value, STEEPEST))
    return value / factor, value * factor


def around_share(value: float, error: float, free: float) -> Interval:
    """The interval of something between 0 and 1, by its logit; unknown at either end, and where nothing moves it."""
    if not (0 < value < 1 and error > 0):
        return UNKNOWN
    low, high = around_positive(value / (1 - value), error / (1 - value) ** 2, free)
    return low / (1 + low), high / (1 + high)


def clopper_pearson(hits: float, tries: float) -> Interval:
    """The exact interval for a probability of which `hits` of `tries` were seen."""
    from scipy.stats import beta

    if tries == 0:
        return UNKNOWN
    low = 0.0 if hits == 0 else float(beta.ppf(TAIL, hits, tries - hits + 1))
    high = 1.0 if hits == tries else float(beta.ppf(1 - TAIL, hits + 1, tries - hits))
    return low, high


def korn_graubard(value: float, error: float, tries: int, free: int) -> Interval:
    """The interval of a share that `tries` records with weights or in groups show with this `error`.

    Korn and Graubard, Survey Methodology 24 (1998): that of Clopper and Pearson for as many records drawn one by one as have
    this error, never more than there are, and fewer where it is known from few draws only (`free`): last, for few that are
    equal by chance, or the only one, show no error.
    """
    as_many = value * (1 - value) / error**2 if error > 0 else math.inf
    known = (student(max(tries - 1, 1)) / student(max(free, 1))) ** 2
    as_many = min(as_many, tries) * known
    return clopper_pearson(value * as_many, as_many)
