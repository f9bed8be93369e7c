"""Error margins of 95 %.

A share of records (accuracy, precision, recall): the exact interval of Clopper and Pearson (1934), which covers at least
95 %. The area under the ROC curve: the variance of DeLong, DeLong and Clarke-Pearson (1988), by midranks as Sun and Xu
(2014) compute it. All else, and everything where records carry weights or come in groups: the percentile interval of the
bootstrap (Efron and Tibshirani, 1993, chapter 13), drawing records, or groups where they come in groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
RESAMPLES = 1000
MOST_UNDEFINED = 0.05
"""A percentile interval stands on the resamples that give a value; so many may give none."""
FEWEST = 6
"""Of fewer independent draws even the largest and the smallest one enclose the middle in less than 95 % of all cases, for
each lies on either side of it with an even chance: 1 - 2 / 2**5 is 0.94."""

Measure = Callable[[np.ndarray], float]
"""A metric on fixed records: the weight of each record (n,) to a number."""

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Draws:
    """How often each record counts: its `weights` (n), and the group (n, from 0) that it is drawn with, if any."""

    weights: np.ndarray
    groups: np.ndarray | None
    seed: int

    @property
    def plain(self) -> bool:
        """Whether records count once and are drawn one by one: then exact intervals hold."""
        return self.groups is None and bool(np.all(self.weights == 1))

    @property
    def counting(self) -> int:
        """How many are drawn that weigh anything."""
        there = self.weights > 0
        return int(there.sum()) if self.groups is None else len(np.unique(self.groups[there]))

    def effective(self, among: np.ndarray) -> int:
        """How many draws of equal weight tell as much about the records `among` (n, 0 or 1) as these (Kish, 1965)."""
        weights = self.weights * among
        drawn = weights if self.groups is None else np.bincount(self.groups, weights)
        return round(float(drawn.sum() ** 2 / (drawn**2).sum())) if drawn.any() else 0

    @property
    def count(self) -> int:
        """How many are drawn: records, or groups of them."""
        return len(self.weights) if self.groups is None else int(self.groups.max()) + 1

    def of(self, rows: np.ndarray) -> Draws:
        """The draws of some records (a mask)."""
        groups = None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1]
        return Draws(self.weights[rows], groups, self.seed)

    def resampled(self, measures: Sequence[Measure]) -> np.ndarray:
        """The measures on each resample, all on the same ones: (RESAMPLES, measures); nan where there are too few draws."""
        dice = np.random.default_rng(self.seed)
        count = self.count
        found = np.full((RESAMPLES, len(measures)), math.nan)
        if self.counting < FEWEST:
            return found
        for number in range(RESAMPLES):
            drawn = np.bincount(dice.integers(0, count, count), minlength=count)
            weights = self.weights * (drawn if self.groups is None else drawn[self.groups])
            found[number] = [measure(weights) for measure in measures]
        return found


def percentile(values: np.ndarray) -> Interval:
    """The middle 95 % of resampled values; (nan, nan) if too many of them are undefined."""
    defined = values[np.isfinite(values)]
    if len(defined) < (1 - MOST_UNDEFINED) * len(values):
        return math.nan, math.nan
    low, high = np.quantile(defined, [TAIL, 1 - TAIL])
    return float(low), float(high)


def clopper_pearson(hits: int, tries: int) -> Interval:
    """The exact interval for a probability of which `hits` of `tries` were seen."""
    from scipy.stats import beta

    if tries == 0:
        return math.nan, math.nan
    low = 0.0 if hits == 0 else float(beta.ppf(TAIL, hits, tries - hits + 1))
    high = 1.0 if hits == tries else float(beta.ppf(1 - TAIL, hits + 1, tries - hits))
    return low, high


def delong(positive: np.ndarray, scores: np.ndarray) -> Interval:
    """The interval of the area under the ROC curve for `scores` (n) of records of which some are `positive` (n, bool).

    An area of 0 or 1 has no variance; then that of the pairs which share no record is taken: min(positives, negatives)
    independent tries, all with the same outcome, by Clopper and Pearson.
    """
    area, error = delong_error(positive, scores)
    if not 0 < area < 1:
        pairs = int(min(positive.sum(), (~positive).sum()))
        return clopper_pearson(pairs if area == 1 else 0, pairs)
    margin = NormalDist().inv_cdf(1 - TAIL) * error
    return max(0.0, area - margin), min(1.0, area + margin)


def delong_error(positive: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The area under the ROC curve and its standard error; nan without positives and negatives, at least two for an error."""
    from scipy.stats import rankdata

    ahead, behind = scores[positive], scores[~positive]
    m, n = len(ahead), len(behind)
    if not (m and n):
        return math.nan, math.nan
    together = rankdata(np.concatenate([ahead, behind]))
    of_positives = (together[:m] - rankdata(ahead)) / n
    of_negatives = 1 - (together[m:] - rankdata(behind)) / m
    area = float(of_positives.mean())
    if min(m, n) < 2:  # noqa: PLR2004 - a variance needs two
        return area, math.nan
    return area, math.sqrt(of_positives.var(ddof=1) / m + of_negatives.var(ddof=1) / n)
