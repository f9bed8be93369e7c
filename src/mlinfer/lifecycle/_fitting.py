"""An estimator is fitted on a table, and asked."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ConfigError, is_text
from mlinfer.lifecycle._metrics import Answers

LARGEST_SEED = 2**31
LARGEST_LABEL = 2**63 - 1
UNKNOWN_PARAMETER = re.compile(r"Invalid parameter '(\w+)' for estimator (\w+)")
"""As `set_params` of scikit-learn says it, which a search calls."""


@dataclass(frozen=True)
class Feeding:
    """How a table becomes what the estimator takes: a matrix of numbers, a list of texts, or a data frame."""

    features: tuple[str, ...]
    kind: str

    @classmethod
    def of(cls, estimator: Any, table: pa.Table, features: Sequence[str]) -> Feeding:
        """Numbers as a matrix, a single text as a list of texts; a data frame for all else, and for named columns.

        Raises ConfigError: a data frame is needed, and pandas is not installed.
        """
        types = [table.schema.field(name).type for name in features]
        named = _names_columns(estimator)
        if len(types) == 1 and _is_vector(types[0]):
            return cls(tuple(features), "tensor")
        if len(types) == 1 and is_text(types[0]) and not named:
            return cls(tuple(features), "texts")
        if all(map(is_plain_number, types)) and not named:
            return cls(tuple(features), "matrix")
        if find_spec("pandas") is None:
            msg = "train: features that are not all numbers are fitted on as a pandas data frame, but pandas is not installed: pip install 'mlinfer[pandas]'"
            raise ConfigError(msg)
        return cls(tuple(features), "frame")

    def fed(self, table: pa.Table) -> Any:
        """The features of these records."""
        chosen = table.select(list(self.features))
        if self.kind == "frame":
            return chosen.to_pandas()
        if self.kind == "texts":
            return chosen.column(0).to_numpy()
        if self.kind == "tensor":
            flat = chosen.column(0).combine_chunks()
            flat = flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat
            return np.asarray(flat.flatten()).reshape(table.num_rows, -1)
        return np.column_stack([column.to_numpy().astype(float) for column in chosen.columns])


def prepared(estimator: Any, seed: int) -> Any:
    """A fresh copy whose every `random_state` that was left open comes from `seed`. Raises ConfigError: it is none."""
    from sklearn.base import clone, is_classifier, is_clusterer, is_outlier_detector, is_regressor

    if isinstance(estimator, type):
        msg = f"estimator: wanted an estimator, found the class; write {estimator.__name__}()"
        raise ConfigError(msg)
    if not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
        msg = f"estimator: wanted one of scikit-learn's kind (fit, predict, get_params), found {type(estimator).__name__}"
        raise ConfigError(msg)
    known = is_classifier(estimator) or is_regressor(estimator)  # a stack cannot predict before it is fitted
    if (
        not (known or hasattr(estimator, "predict"))
        or is_clusterer(estimator)
        or is_outlier_detector(estimator)
    ):
        msg = f"estimator: wanted a classifier or a regressor, which learn an outcome, found {type(estimator).__name__}"
        raise ConfigError(msg)
    if hasattr(estimator, "cv") and getattr(estimator, "refit", True) is False:
        msg = f"estimator: wanted a search that fits what it has found (refit=True), found refit=False in {type(estimator).__name__}"
        raise ConfigError(msg)
    fresh = clone(estimator)
    dice = np.random.default_rng(seed)
    parameters = fresh.get_params(deep=True)
    open_ones = sorted(
        name
        for name, value in parameters.items()
        if name.rpartition("__")[2] == "random_state" and value is None
    )
    fresh.set_params(**{name: int(dice.integers(LARGEST_SEED)) for name in open_ones})
    for _, splitter in sorted(
        (name, one) for name, one in parameters.items() if name.rpartition("__")[2] == "cv"
    ):
        shuffles = getattr(splitter, "shuffle", True) and hasattr(splitter, "random_state")
        if shuffles and splitter.random_state is None:
            splitter.random_state = int(dice.integers(LARGEST_SEED))  # `clone` has copied it
    return fresh


def fitted(estimator: Any, features: Any, truth: np.ndarray, weights: np.ndarray | None) -> Any:
    """The estimator fitted; of a search, the best one that it has refitted.

    Raises ConfigError: it cannot be fitted on these features, or takes no weights.
    """
    options = {} if weights is None else {_weight_name(estimator): weights}
    try:
        with warnings.catch_warnings():
            # the search says it of its folds
            warnings.filterwarnings("ignore", message="The least populated class")
            estimator.fit(features, truth, **options)
    except (ValueError, TypeError, AttributeError) as error:
        said = [line for line in str(error).splitlines() if line.strip()] or [""]
        why = (
            said[-1] if said[0].startswith("All the ") else said[0]
        )  # a search quotes its fits, and their reason last
        if (
            "InvalidParameterError" in f"{type(error).__name__} {why}"
        ):  # scikit-learn looks at parameters when it fits
            msg = f"{type(estimator).__name__}: wanted parameters that it takes, found: {why}"
            raise ConfigError(msg) from error
        if weights is not None and "unexpected keyword argument" in why:
            msg = f"{type(estimator).__name__}: wanted an estimator that takes weights, found {why}; train without weights, or choose another estimator"
            raise ConfigError(msg) from error
        if unknown := UNKNOWN_PARAMETER.match(why):
            msg = f"{type(estimator).__name__}: wanted parameters that it takes, found {unknown[1]!r}, which {unknown[2]} has not; a parameter of a step of a pipeline is called step__parameter"
            raise ConfigError(msg) from error
        msg = f"{type(estimator).__name__}: wanted features that it can be fitted on, found {why}; put a step in front of it (an imputer, an encoder), or choose other features"
        raise ConfigError(msg) from error
    return estimator


def best_of(estimator: Any) -> Any:
    """What a search has found and refitted; any other estimator itself."""
    return getattr(estimator, "best_estimator_", estimator)


def answers(estimator: Any, features: Any, truth: np.ndarray) -> Answers:
    """What it says of these records. Raises ConfigError: it refuses one, as an encoder does with a category that is new."""
    try:
        return _answers(estimator, features, truth)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        why = (str(error).splitlines() or [""])[0]
        msg = (
            f"{type(estimator).__name__}: wanted an estimator that answers records it was not fitted on, found {why}; let it take "
            "what is new or missing (OneHotEncoder(handle_unknown='ignore'), an imputer), or leave these records out"
        )
        raise ConfigError(msg) from error


def _answers(estimator: Any, features: Any, truth: np.ndarray) -> Answers:
    predicted = np.asarray(estimator.predict(features))
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return Answers(truth, predicted.astype(float).reshape(len(truth)))
    probabilities = estimator.predict_proba(features) if hasattr(estimator, "predict_proba") else None
    score = None
    if len(classes) == 2:  # noqa: PLR2004 - two classes have one score
        if probabilities is not None:
            score = probabilities[:, 1]
        elif hasattr(estimator, "decision_function"):
            score = estimator.decision_function(features)
    return Answers(truth, predicted, np.asarray(classes), probabilities, score)


def truth_of(column: pa.ChunkedArray, *, classes: bool) -> np.ndarray:
    """The outcomes (n): numbers, or labels that are booleans, whole numbers or texts. Raises ConfigError: they are none."""
    kind = column.type
    if not classes:
        if not is_plain_number(kind):
            msg = f"target: wanted numbers for a regressor, found {kind}"
            raise ConfigError(msg)
        return np.asarray(column.to_numpy(), float)
    if pt.is_boolean(kind):
        return np.asarray(column.to_numpy(), bool)
    if pt.is_integer(kind):
        if pt.is_uint64(kind) and len(column) and int(column.to_numpy().max()) > LARGEST_LABEL:
            msg = "target: wanted whole numbers below 2**63, found larger ones; give them as texts"
            raise ConfigError(msg)
        return np.asarray(column.to_numpy(), np.int64)
    if is_text(kind):
        return np.array(column.to_pylist(), str)
    msg = f"target: wanted booleans, whole numbers or texts for a classifier, found {kind}"
    raise ConfigError(msg)


def _weight_name(estimator: Any) -> str:
    """What `fit` calls the weights: in a pipeline, those of its last step."""
    inner = getattr(estimator, "estimator", None) if hasattr(estimator, "cv") else None
    steps = getattr(inner if inner is not None else estimator, "steps", None)
    return f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"


def _names_columns(estimator: Any) -> bool:
    """Whether a step in it names its columns, which only a data frame has."""
    parts = [estimator, *estimator.get_params(deep=True).values()]
    for part in parts:
        for _, _, columns in getattr(part, "transformers", None) or ():
            if isinstance(columns, str) or (
                isinstance(columns, list | tuple) and any(isinstance(one, str) for one in columns)
            ):
                return True
    return False


def is_plain_number(kind: pa.DataType) -> bool:
    """Whole ones, others and booleans: what a column of a numeric matrix can be made of."""
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind))


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pt.is_fixed_size_list(kind) and is_plain_number(kind.value_type))
