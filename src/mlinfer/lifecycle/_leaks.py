"""Features that know the outcome: what a model learns from them is not there when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ConfigError

NEARLY_ONE = 1 - 1e-9
SAME_ORDER = 1 - 1e-6
"""A rounded copy has ties; no honest feature puts records so nearly in the order of their outcomes."""
FEWEST = 10
"""So few records may stand in one order by accident."""
LARGEST = float(np.finfo(np.float32).max)
LEAVES_PER_CLASS = 2
"""A number that holds the outcome tells classes apart in a few pieces; more would be learning by heart."""


def check_names(features: Sequence[str], target: str) -> None:
    """Raises ConfigError: the target is among the features, or there are none."""
    if target in features:
        msg = f"features: wanted columns that are known before {target!r} is, found {target!r} itself; leave it out"
        raise ConfigError(msg)
    if not features or len(set(features)) != len(features):
        msg = f"features: wanted one or several different columns, found {list(features)}"
        raise ConfigError(msg)


def check_perfect(perfect: Sequence[str], columns: Sequence[str]) -> None:
    """Raises ConfigError: there is no such column, so a misspelt one is not asked about, and its feature is."""
    if unknown := [name for name in perfect if name not in columns]:
        msg = f"perfect: wanted columns of the source, found {unknown[0]!r:.100}; there are {', '.join(columns)}"
        raise ConfigError(msg)


def check_features(
    fit: tuple[pa.Table, np.ndarray], unseen: tuple[pa.Table, np.ndarray], known: Sequence[str]
) -> None:
    """Raises ConfigError: one feature alone, or that it is missing, predicts every outcome without an error.

    Not asked about are the `known` ones.
    """
    for name in fit[0].schema.names:
        if name not in known and _alone(fit[0][name], fit[1], unseen[0][name], unseen[1]):
            msg = (
                f"feature {name!r}: predicts the outcomes of all {len(fit[1]) + len(unseen[1]):,} records by itself, so it probably holds the outcome, "
                f"or something that is known only afterwards; leave it out, or say that it is no leak: perfect=[{name!r}]"
            )
            raise ConfigError(msg)


def _alone(seen: pa.ChunkedArray, truth: np.ndarray, unseen: pa.ChunkedArray, wanted: np.ndarray) -> bool:
    """Whether the feature tells the outcome without an error, on the records trained on and on the unseen ones."""
    kind: Any = seen.type
    if pt.is_nested(kind) or len(np.unique(wanted)) < 2:  # noqa: PLR2004 - one outcome is predicted by anything
        return False
    there = [column.is_valid().to_pylist() for column in (seen, unseen)]
    if wanted.dtype.kind != "f" and _is_table(there[0], truth, there[1], wanted):
        return True
    if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind)):
        return wanted.dtype.kind != "f" and _is_table(seen.to_pylist(), truth, unseen.to_pylist(), wanted)
    if wanted.dtype.kind == "f":
        return _is_line(np.r_[_floats(seen), _floats(unseen)], np.r_[truth, wanted])
    from sklearn.tree import DecisionTreeClassifier

    few = LEAVES_PER_CLASS * len(np.unique(truth))
    tree = DecisionTreeClassifier(max_leaf_nodes=few, random_state=0).fit(_floats(seen)[:, None], truth)
    return all(
        np.all(tree.predict(_floats(column)[:, None]) == outcomes)
        for column, outcomes in ((seen, truth), (unseen, wanted))
    )


def _is_line(values: np.ndarray, outcomes: np.ndarray) -> bool:
    """Whether the outcomes are a straight line of the values, or stand in their order (a logarithm, a rounded copy)."""
    from scipy.stats import rankdata

    there = ~np.isnan(values)
    values, outcomes = values[there], outcomes[there]
    if len(values) < FEWEST or np.ptp(values) == 0 or np.ptp(outcomes) == 0:
        return False
    return bool(
        np.corrcoef(values, outcomes)[0, 1] ** 2 > NEARLY_ONE
        or abs(np.corrcoef(rankdata(values), rankdata(outcomes))[0, 1]) > SAME_ORDER
    )


def _is_table(seen: list[Any], truth: np.ndarray, unseen: list[Any], wanted: np.ndarray) -> bool:
    """Whether each value has one outcome; a value that was not trained on has none."""
    outcome_of = dict(zip(seen, truth.tolist(), strict=True))
    pairs = [*zip(seen, truth.tolist(), strict=True), *zip(unseen, wanted.tolist(), strict=True)]
    return all(value in outcome_of and outcome_of[value] == outcome for value, outcome in pairs)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """NaN for a missing one; as far as float32 goes, which trees take."""
    values: np.ndarray = np.clip(
        np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), float), -LARGEST, LARGEST
    )
    return values
