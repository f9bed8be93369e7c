"""From a source and an estimator to a package that is confirmed on records which it has not seen."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError, ConfirmationError, located
from mlinfer.lifecycle._arguments import check_arguments, check_places
from mlinfer.lifecycle._estimators import described
from mlinfer.lifecycle._examples import Data, Plan, data_of
from mlinfer.lifecycle._fitting import Feeding, answers, best_of, fitted, prepared
from mlinfer.lifecycle._intervals import FEWEST, Draws
from mlinfer.lifecycle._leaks import check_features, check_names, check_perfect
from mlinfer.lifecycle._metrics import Answers, Metric, Score, chosen, scored
from mlinfer.lifecycle._packaging import Fit, write
from mlinfer.lifecycle._records import known
from mlinfer.lifecycle._report import Training, missed
from mlinfer.lifecycle._splits import SIDES, TEST, TRAIN, Split, check_single

MOST_GROUPS = 200


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What answers for the unseen records are measured with: the metrics, how records count, and what a baseline says."""

    metrics: list[Metric]
    draws: Draws
    baseline: Answers


def train(  # noqa: PLR0913 - the fit, the split, the confirmation and the place
    source: Any,
    estimator: Any,
    *,
    target: str,
    split: Split,
    to: str | os.PathLike[str],
    features: Sequence[str] | None = None,
    metrics: Sequence[str] = (),
    accept: Mapping[str, float] | None = None,
    groups: str | None = None,
    sample_weight: str | None = None,
    perfect: Sequence[str] = (),
    seed: int = 0,
    trusted: Sequence[str] = (),
) -> Training:
    """Fit an estimator, measure it on records that it has not seen, and save it as a package if it holds.

    Args:
        source: where the examples come from, a source that ends or data in hand. Records without an outcome are left out.
        estimator: any classifier or regressor of scikit-learn's kind, or a search over some; it is copied, not changed.
        target: the column of the outcome: booleans, whole numbers or texts for a classifier, numbers for a regressor.
        split: `ByKey`, `ByTime` or `ByGroup` of `mlinfer.lifecycle`: who is fitted on, who calibrates, who stays unseen.
        to: the package to write, `late.mlinfer`; nothing may be there.
        features: the columns to learn from, by default all that have no other part here. Numbers are handed over as a
            matrix, a single text as a list of texts, anything else as a pandas data frame.
        metrics: of `roc_auc`, `accuracy`, `balanced_accuracy`, `precision`, `recall`, `f1`, `log_loss`, `brier` for classes,
            `r2`, `mae`, `rmse` for numbers; by default the usual ones. The first is compared with a baseline.
        accept: bars, as `{"roc_auc": 0.7}`: the whole interval of 95 % must lie at or beyond, so an error (`mae`) is given its
            largest and all else its smallest value.
        groups: a column whose values are measured one by one, too.
        sample_weight: a column of weights for fitting and measuring.
        perfect: features that are known to tell the outcome by themselves and that are no leak.
        seed: where all random choices come from that the estimator leaves open.
        trusted: names of the types in the estimator that are neither scikit-learn's nor numpy's nor scipy's; whoever opens
            the package must name them too.

    Returns what was found; `print` shows it as a table. The first metric must beat a baseline that knows only the outcomes
    of training (`DummyClassifier`, `DummyRegressor`) by more than the margin: the interval of the difference, on the
    same records, must lie above 0.

    Raises ConfirmationError: a bar or the baseline is not reached; nothing is written. ConfigError: a leak, an empty side,
    records that cannot be read, an estimator that cannot be fitted.

    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from mlinfer.lifecycle import ByKey
    >>> flowers = load_iris(as_frame=True).frame.reset_index(names="flower")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = train(flowers, LogisticRegression(max_iter=500), target="target", split=ByKey("flower"),
    ...                   to=f"{folder}/iris.mlinfer", accept={"accuracy": 0.7})
    >>> found["accuracy"].low > 0.7
    True
    """
    from mlinfer.hosts import expect_place

    check_places(target, to, sample_weight=sample_weight, groups=groups)
    path, accept = located(to), {} if accept is None else accept
    check_arguments(
        split,
        accept,
        seed,
        {"features": features, "metrics": metrics, "perfect": perfect, "trusted": trusted},
    )
    expect_place(to)  # before the hours that a fit may take
    taken = {target, split.column, getattr(split, "key", None), sample_weight, groups}
    named = tuple(features) if features is not None else tuple(
        name for name in known(source).names if name not in taken
    )  # fmt: skip
    check_names(named, target)
    if not set(perfect) <= {*named}:  # else nobody need look at the source for this
        check_perfect(perfect, known(source).names)
    plan = Plan(
        estimator, target, named, split, (*metrics, *(name for name in accept if name not in metrics)) if metrics else (),
        {name: float(bar) for name, bar in accept.items()}, groups, sample_weight, tuple(perfect), seed, path, tuple(trusted),
    )  # fmt: skip
    return _carried_out(plan, source)


def _carried_out(plan: Plan, source: Any) -> Training:
    from sklearn.base import is_classifier

    model = prepared(plan.estimator, plan.seed)
    data = data_of(plan, source, classes=bool(is_classifier(model)))
    check_features(data.features(plan, TRAIN), data.features(plan, TEST), plan.perfect)
    metrics = _metrics(plan, data, model)
    yardstick = Yardstick(metrics, _draws(plan, data), _baseline(data))
    _check_baseline(plan, yardstick)
    groups = _groups(plan, data)
    fit = _fit(plan, data, model)
    training = Training(
        plan.path, fit.estimator, described(fit.estimator)["class"], plan.target,
        {"by": plan.split.by, "column": plan.split.column},
        {name: int((data.sides == side).sum()) for side, name in enumerate(SIDES)}, data.without_target,
        tuple(_scores(data.of(TEST), groups, fit, yardstick)), dict(plan.accept),
    )  # fmt: skip
    if complaints := missed(training):
        msg = f"{plan.path}: not written: {'; '.join(complaints)}"
        raise ConfirmationError(msg, training)
    write(plan, data, fit, training)
    return training


def _fit(plan: Plan, data: Data, model: Any) -> Fit:
    feeding = Feeding.of(model, data.table, plan.features)
    seen, truth = data.of(TRAIN)
    weights = data.weights[data.sides == TRAIN] if plan.sample_weight else None
    lost: list[str] = []
    given = described(model, lost)
    found = fitted(model, feeding.fed(seen), truth, weights)
    return Fit(best_of(found), feeding, given, described(getattr(found, "best_params_", None)), tuple(lost))


def _metrics(plan: Plan, data: Data, model: Any) -> list[Metric]:
    seen = data.truth[data.sides == TRAIN]
    count = 0 if seen.dtype.kind == "f" else len(np.unique(seen))
    if count == 1:
        msg = f"target {plan.target!r}: wanted two or more classes to train on, found {seen[0]}"
        raise ConfigError(msg)
    if plan.metrics:
        return chosen(plan.metrics, classes=count)
    able = hasattr(model, "predict_proba")
    usual = [metric.name for metric in chosen((), classes=count) if able or not metric.of_probabilities]
    return chosen([*usual, *plan.accept], classes=count)


def _scores(
    unseen: tuple[pa.Table, np.ndarray], groups: Mapping[Any, np.ndarray], fit: Fit, yardstick: Yardstick
) -> list[Score]:
    """On all unseen records beside the baseline, then group by group."""
    records, truth = unseen
    metrics, draws = yardstick.metrics, yardstick.draws
    given = answers(fit.estimator, fit.feeding.fed(records), truth)
    found = scored(metrics, given, draws, baseline=yardstick.baseline)
    for value, rows in groups.items():
        found += scored(metrics, given.of(rows), draws.of(rows), group=value)
    return found


def _groups(plan: Plan, data: Data) -> dict[Any, np.ndarray]:
    """The groups that are measured one by one, and which of the unseen records (a mask) are in each.

    Raises ConfigError: they are too many, or no single values.
    """
    if plan.groups is None:
        return {}
    column = data.of(TEST)[0][plan.groups]
    check_single("groups", plan.groups, column.type)
    values = [None if value != value else value for value in column.to_pylist()]  # noqa: PLR0124 - NaN alone
    missing = "none (missing)" if "none" in values else "none"
    named = [missing if value is None else value for value in values]
    different = sorted(set(named), key=str)
    if len(different) > MOST_GROUPS:
        msg = f"groups: wanted at most {MOST_GROUPS} different values of {plan.groups!r}, found {len(different):,}"
        raise ConfigError(msg)
    return {value: np.array([one == value for one in named]) for value in different}


def _draws(plan: Plan, data: Data) -> Draws:
    """How the unseen records are drawn. Raises ConfigError: they are too few to say how far off a measure of them is."""
    clusters = _codes(data.of(TEST)[0][plan.split.column]) if plan.split.groups_of_records else None
    weights = data.weights[data.sides == TEST]
    draws = Draws(weights / weights.max(), clusters)  # their squares must be numbers, and equal ones are none
    if draws.counting < FEWEST:
        kind = "records" if clusters is None else f"values of {plan.split.column!r}"
        msg = f"split: wanted {FEWEST} or more unseen {kind}, for fewer leave every margin open, found {draws.counting}; give more, or a larger share: test="
        raise ConfigError(msg)
    return draws


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    return np.unique(np.array(column.to_pylist(), str), return_inverse=True)[1]


def _baseline(data: Data) -> Answers:
    """What a model says of the unseen records that knows the outcomes of training and nothing else."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    seen, truth = data.sides == TRAIN, data.truth[data.sides == TEST]
    dummy = DummyRegressor() if truth.dtype.kind == "f" else DummyClassifier(strategy="prior")
    dummy.fit(np.zeros((seen.sum(), 1)), data.truth[seen], sample_weight=data.weights[seen])
    return answers(dummy, np.zeros((len(truth), 1)), truth)


def _check_baseline(plan: Plan, yardstick: Yardstick) -> None:
    """Raises ConfigError: the metric that is compared has no value for the baseline, whatever the model will say."""
    metric, baseline, weights = yardstick.metrics[0], yardstick.baseline, yardstick.draws.weights
    if math.isfinite(metric.made(baseline)(weights)):
        return
    outcomes = np.unique(baseline.truth[weights > 0])
    if len(outcomes) < 2:  # noqa: PLR2004 - all are alike
        msg = (
            f"target {plan.target!r}: wanted different outcomes among the {len(weights):,} unseen records, without which "
            f"{metric.name} has no value, found {outcomes[0]} alone; choose another split or share, or another first metric"
        )
    else:
        msg = (
            f"metrics: wanted a first metric that has a value for a baseline, which always says {baseline.predicted[0]}, "
            f"found {metric.name!r}; put another one first, and give {metric.name!r} a bar: accept={{'{metric.name}': ...}}"
        )
    raise ConfigError(msg)
