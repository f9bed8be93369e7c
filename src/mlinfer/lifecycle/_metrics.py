"""What a model is measured by: each metric is made of the answers of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlinfer import ConfigError
from mlinfer.lifecycle._intervals import UNKNOWN, Draws
from mlinfer.lifecycle._measures import Area, Mean, Measure, Ratio, Share, Shown, Spread, difference

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


def _ones(answers: Answers) -> np.ndarray:
    return np.ones(len(answers.truth))


def _accuracy(answers: Answers) -> Measure:
    return Share((answers.truth == answers.predicted).astype(float), _ones(answers))


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
    return Share(both, said)


def _recall(answers: Answers) -> Measure:
    actual, _, both = _hits(answers)
    return Share(both, actual)


def _f1(answers: Answers) -> Measure:
    """Of the share of hits among all that are positive or said to be: twice it by 1 more than it."""
    actual, said, both = _hits(answers)
    return Shown(
        Share(both, actual + said - both), lambda hit: 2 * hit / (1 + hit), lambda hit: 2 / (1 + hit) ** 2
    )


def _balanced_accuracy(answers: Answers) -> Measure:
    of = [answers.truth == label for label in np.unique(answers.truth)]
    right = answers.truth == answers.predicted
    return Mean([Share((right & mine).astype(float), mine.astype(float)) for mine in of], apart=True)


def _roc_auc(answers: Answers) -> Measure:
    """Of the second of two classes; of several the mean of each against the rest (`roc_auc_score` calls it macro, ovr)."""
    if answers.classes is not None and len(answers.classes) > 2 and answers.probabilities is not None:  # noqa: PLR2004 - two
        areas = [
            Area(answers.truth == label, answers.probabilities[:, place])
            for place, label in enumerate(answers.classes)
        ]
        return Mean(areas)
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
    return Shown(squares, math.sqrt, lambda square: 0.5 / math.sqrt(square) if square else 0.0)


def _r2(answers: Answers) -> Measure:
    return Shown(Spread(answers.truth, answers.predicted), lambda left: 1 - left, lambda _: -1.0)


@dataclass(frozen=True)
class Metric:
    """A metric: whether more is better, whether it is for classes, how it is made of answers, and if of probabilities."""

    name: str
    more_is_better: bool
    of_classes: bool
    made: Callable[[Answers], Measure]
    of_probabilities: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("roc_auc", True, True, _roc_auc),  # noqa: FBT003 - a table
        Metric("accuracy", True, True, _accuracy),  # noqa: FBT003
        Metric("balanced_accuracy", True, True, _balanced_accuracy),  # noqa: FBT003
        Metric("precision", True, True, _precision),  # noqa: FBT003
        Metric("recall", True, True, _recall),  # noqa: FBT003
        Metric("f1", True, True, _f1),  # noqa: FBT003
        Metric("log_loss", False, True, _log_loss, of_probabilities=True),  # noqa: FBT003
        Metric("brier", False, True, _brier, of_probabilities=True),  # noqa: FBT003
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
    """The metrics of the answers with their intervals; with a `baseline`, the comparison on the same records."""
    found = []
    more = "" if draws.groups is None else f", {draws.count:,} groups"
    for metric in metrics:
        measure = metric.made(answers)
        value = measure(draws.weights)
        low, high = measure.interval(draws) if math.isfinite(value) else UNKNOWN
        method = measure.method(draws) + more
        compared = {} if baseline is None else _compared(metric, measure, metric.made(baseline), draws)
        found.append(Score(metric.name, value, low, high, method, len(answers.truth), group, **compared))
    return found


def _compared(metric: Metric, measure: Measure, baseline: Measure, draws: Draws) -> dict[str, float]:
    """How much better than the baseline, on the same records, and the interval of that."""
    sign = 1 if metric.more_is_better else -1
    value, beside = measure(draws.weights), baseline(draws.weights)
    comparable = math.isfinite(value) and math.isfinite(beside)
    low, high = difference(measure, baseline, draws, sign) if comparable else UNKNOWN
    return {"baseline": beside, "better_by": sign * (value - beside), "better_low": low, "better_high": high}
