"""What a model is measured by: each metric is a function of the weights of the records, so that all are resampled alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlinfer import ConfigError
from mlinfer.lifecycle._intervals import (
    FEWEST,
    Draws,
    Interval,
    Measure,
    clopper_pearson,
    delong,
    percentile,
)

TINY = np.finfo(float).eps
"""The smallest probability that a logarithm is taken of."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of records: the truth (n) and the prediction (n).

    For classes also their labels in order, the probabilities (n, classes) if it gives any, and `score` (n), which is
    larger the likelier the second of two classes.
    """

    truth: np.ndarray
    predicted: np.ndarray
    classes: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    score: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> Answers:
        """The answers to some records (a mask)."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        score = None if self.score is None else self.score[rows]
        return Answers(self.truth[rows], self.predicted[rows], self.classes, probabilities, score)

    @property
    def positive(self) -> np.ndarray:
        """Which records are of the second of two classes. Raises ConfigError: there are not two."""
        if self.classes is None or len(self.classes) != 2:  # noqa: PLR2004 - two classes
            msg = f"wanted two classes, found {0 if self.classes is None else len(self.classes)}"
            raise ConfigError(msg)
        found: np.ndarray = self.truth == self.classes[1]
        return found

    @property
    def of_truth(self) -> np.ndarray:
        """The probability (n) that was given to the true class; 0 for a class that was not trained on."""
        if self.classes is None or self.probabilities is None:
            msg = "wanted an estimator with predict_proba, found one without"
            raise ConfigError(msg)
        found: np.ndarray = (self.probabilities * (self.truth[:, None] == self.classes[None, :])).sum(1)
        return found


@dataclass(frozen=True, eq=False)
class Ratio:
    """A sum over records by another one; `share` says that both count records."""

    above: np.ndarray
    below: np.ndarray
    share: bool = False

    def __call__(self, weights: np.ndarray) -> float:
        """The ratio; nan if there is nothing to divide by."""
        below = float(weights @ self.below)
        return float(weights @ self.above) / below if below else math.nan


class Area:
    """The area under the ROC curve."""

    def __init__(self, positive: np.ndarray, score: np.ndarray) -> None:
        self.positive, self.score = positive, score
        self._order = np.argsort(score, kind="stable")
        self._ahead = positive[self._order]
        ordered = score[self._order]
        self._starts = (
            np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(score) else np.zeros(0, int)
        )

    def __call__(self, weights: np.ndarray) -> float:
        """The share of pairs of a positive and a negative record that are in order; ties count half."""
        if not len(self._starts):
            return math.nan
        ordered = weights[self._order]
        positive = np.add.reduceat(ordered * self._ahead, self._starts)
        negative = np.add.reduceat(ordered * ~self._ahead, self._starts)
        pairs = positive.sum() * negative.sum()
        if not pairs:
            return math.nan
        return float(positive @ (np.cumsum(negative) - negative / 2)) / float(pairs)


def _ones(answers: Answers) -> np.ndarray:
    return np.ones(len(answers.truth))


def _accuracy(answers: Answers) -> Measure:
    return Ratio((answers.truth == answers.predicted).astype(float), _ones(answers), share=True)


def _hits(answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which records are positive, are said to be, and both. Raises ConfigError: it is not clear which class is meant."""
    if answers.classes is None or answers.classes.dtype.kind not in "bi":
        found = None if answers.classes is None else answers.classes.tolist()
        msg = f"precision, recall, f1: wanted a target of true and false, or 0 and 1, to know which class is meant, found {found}"
        raise ConfigError(msg)
    actual = answers.positive
    said = answers.predicted == answers.classes[1]
    return actual.astype(float), said.astype(float), (actual & said).astype(float)


def _precision(answers: Answers) -> Measure:
    _, said, both = _hits(answers)
    return Ratio(both, said, share=True)


def _recall(answers: Answers) -> Measure:
    actual, _, both = _hits(answers)
    return Ratio(both, actual, share=True)


def _f1(answers: Answers) -> Measure:
    actual, said, both = _hits(answers)
    return Ratio(2 * both, actual + said)


def _balanced_accuracy(answers: Answers) -> Measure:
    right = answers.truth == answers.predicted
    recalls = [
        Ratio((right & (answers.truth == label)).astype(float), (answers.truth == label).astype(float))
        for label in np.unique(answers.truth)
    ]
    return lambda weights: float(np.mean([recall(weights) for recall in recalls]))


def _roc_auc(answers: Answers) -> Measure:
    """Of the second of two classes; of several the mean of each against the rest (`roc_auc_score` calls it macro, ovr)."""
    if answers.classes is not None and len(answers.classes) > 2 and answers.probabilities is not None:  # noqa: PLR2004 - two
        areas = [
            Area(answers.truth == label, answers.probabilities[:, place])
            for place, label in enumerate(answers.classes)
        ]
        return lambda weights: float(np.mean([area(weights) for area in areas]))
    if answers.score is None:
        msg = "roc_auc: wanted an estimator with predict_proba, or two classes and one with decision_function, found neither"
        raise ConfigError(msg)
    return Area(answers.positive, answers.score)


def _log_loss(answers: Answers) -> Measure:
    return Ratio(-np.log(np.clip(answers.of_truth, TINY, 1)), _ones(answers))


def _brier(answers: Answers) -> Measure:
    if answers.classes is None or len(answers.classes) != 2:  # noqa: PLR2004 - Brier's score as it is mostly used
        msg = "brier: wanted two classes; log_loss is for any number of them"
        raise ConfigError(msg)
    return Ratio((1 - answers.of_truth) ** 2, _ones(answers))


def _mae(answers: Answers) -> Measure:
    return Ratio(np.abs(answers.truth - answers.predicted), _ones(answers))


def _rmse(answers: Answers) -> Measure:
    squares = Ratio((answers.truth - answers.predicted) ** 2, _ones(answers))
    return lambda weights: math.sqrt(squares(weights))


def _r2(answers: Answers) -> Measure:
    truth = answers.truth - answers.truth.mean()  # far from zero, squares would cancel
    wrong = (answers.truth - answers.predicted) ** 2

    def measure(weights: np.ndarray) -> float:
        total = weights.sum()
        spread = float(weights @ truth**2 - (weights @ truth) ** 2 / total) if total else 0.0
        return 1 - float(weights @ wrong) / spread if spread > 0 else math.nan

    return measure


@dataclass(frozen=True)
class Metric:
    """A metric: whether more is better, whether it is for classes, and how it is made of answers."""

    name: str
    more_is_better: bool
    of_classes: bool
    made: Callable[[Answers], Measure]

    def interval(self, measure: Measure, answers: Answers, draws: Draws) -> Interval | None:
        """The exact interval, or DeLong's, where there is one; None: it is left to the bootstrap.

        All of the records, or none, are the same share in every resample: then the exact interval of as many draws as count.
        """
        if not draws.plain:
            return _of_all_or_none(measure, draws) if isinstance(measure, Ratio) and measure.share else None
        if isinstance(measure, Area):
            return delong(answers.positive, measure.score)
        if isinstance(measure, Ratio) and measure.share:
            return clopper_pearson(int(measure.above.sum()), int(measure.below.sum()))
        return None


def _of_all_or_none(share: Ratio, draws: Draws) -> Interval | None:
    there = draws.weights * share.below > 0
    hits = share.above[there] > 0
    if draws.counting < FEWEST or not (hits.all() or not hits.any()):
        return None
    tries = draws.effective(share.below)
    return clopper_pearson(tries if hits.any() else 0, tries)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("roc_auc", True, True, _roc_auc),  # noqa: FBT003 - a table
        Metric("accuracy", True, True, _accuracy),  # noqa: FBT003
        Metric("balanced_accuracy", True, True, _balanced_accuracy),  # noqa: FBT003
        Metric("precision", True, True, _precision),  # noqa: FBT003
        Metric("recall", True, True, _recall),  # noqa: FBT003
        Metric("f1", True, True, _f1),  # noqa: FBT003
        Metric("log_loss", False, True, _log_loss),  # noqa: FBT003
        Metric("brier", False, True, _brier),  # noqa: FBT003
        Metric("r2", True, False, _r2),  # noqa: FBT003
        Metric("mae", False, False, _mae),  # noqa: FBT003
        Metric("rmse", False, False, _rmse),  # noqa: FBT003
    )
}
"""The metrics by name."""


@dataclass(frozen=True)
class Score:
    """A metric on unseen records: its value and its interval of 95 %, and `method`, how that was found.

    `group` is the value that these records share, None for all of them; `records` is their number. `better_by` and its
    interval compare with the baseline on the same records, positive where the model is better; None for groups. Nan: the
    records do not say (one class alone has no ROC curve).
    """

    metric: str
    value: float
    low: float
    high: float
    method: str
    records: int
    group: Any = None
    baseline: float | None = None
    better_by: float | None = None
    better_low: float | None = None
    better_high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; what is undefined is null, for JSON has no nan."""
        facts = asdict(self)
        facts["group"] = (
            self.group
            if isinstance(self.group, str | bool | int)
            else None
            if self.group is None
            else str(self.group)
        )
        return {
            name: None if isinstance(one, float) and not math.isfinite(one) else one
            for name, one in facts.items()
        }


def chosen(names: Sequence[str], *, classes: int) -> list[Metric]:
    """The metrics of these names, or the usual ones; `classes` is their number, 0 for numbers.

    Raises ConfigError: one is unknown or for another kind of target.
    """
    if not names:
        usual = ("roc_auc", "accuracy", "log_loss") if classes == 2 else ("accuracy", "log_loss")  # noqa: PLR2004 - two
        names = usual if classes else ("r2", "mae", "rmse")
    fit = [name for name, metric in METRICS.items() if metric.of_classes == bool(classes)]
    for name in names:
        if name not in fit:
            msg = f"metrics: wanted some of {', '.join(fit)} for a target of {'classes' if classes else 'numbers'}, found {name!r}"
            raise ConfigError(msg)
    return [METRICS[name] for name in dict.fromkeys(names)]


def scored(
    metrics: Sequence[Metric],
    answers: Answers,
    draws: Draws,
    *,
    group: Any = None,
    baseline: Answers | None = None,
) -> list[Score]:
    """The metrics of the answers with their intervals; with a `baseline`, the paired comparison on the same resamples."""
    measures = [metric.made(answers) for metric in metrics]
    beside = [metric.made(baseline) for metric in metrics] if baseline is not None else []
    exact = [metric.interval(one, answers, draws) for metric, one in zip(metrics, measures, strict=True)]
    resampled = draws.resampled([*measures, *beside]) if beside or None in exact else None
    found = []
    for place, (metric, measure, known) in enumerate(zip(metrics, measures, exact, strict=True)):
        interval = known if known is not None or resampled is None else percentile(resampled[:, place])
        low, high = interval or (math.nan, math.nan)
        compared: Mapping[str, float] = {}
        if beside and resampled is not None:
            compared = _compared(
                metric, measure, (beside[place], resampled[:, [place, place + len(measures)]]), draws
            )
        method = _method(measure, draws, known)
        value = measure(draws.weights)
        found.append(Score(metric.name, value, low, high, method, len(answers.truth), group, **compared))
    return found


def _compared(
    metric: Metric, measure: Measure, beside: tuple[Measure, np.ndarray], draws: Draws
) -> dict[str, float]:
    """How much better than the baseline, on the same records, and the interval of that."""
    baseline, resampled = beside
    sign = 1 if metric.more_is_better else -1
    value = baseline(draws.weights)
    low, high = percentile(sign * (resampled[:, 0] - resampled[:, 1]))
    return {
        "baseline": value, "better_by": sign * (measure(draws.weights) - value), "better_low": low, "better_high": high,
    }  # fmt: skip


def _method(measure: Measure, draws: Draws, known: Interval | None) -> str:
    if known is None:
        return "bootstrap" if draws.groups is None else f"bootstrap of {draws.count:,} groups"
    return "DeLong" if isinstance(measure, Area) else "exact"
