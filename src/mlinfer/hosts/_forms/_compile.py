"""Makes a compiled form of a fitted scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer.hosts._forms._columns import Column
from mlinfer.hosts._forms._form import Form
from mlinfer.hosts._forms._linear import CannotFold, folded
from mlinfer.hosts._forms._links import Link
from mlinfer.hosts._forms._source import NotCompiled
from mlinfer.hosts._forms._transformers import after, number, sources
from mlinfer.hosts._forms._tree_models import TREES, tree_core
from mlinfer.hosts._forms._vectorizers import Weighted
from mlinfer.hosts._forms._words import Words

__all__ = ["NotCompiled", "compiled"]


def compiled(estimator: Any, inputs: pa.Schema) -> Form:
    """The form of an estimator that is asked for records with these fields. Raises NotCompiled: it has none.

    What comes back may still be another model: only `prove` tells.
    """
    columns: Sequence[Any] = sources(inputs)
    last = innermost(estimator)
    while hasattr(last, "steps"):
        for _, step in last.steps[:-1]:
            columns = after(step, columns)
        last = innermost(last.steps[-1][1])
    if last is None or not type(last).__module__.startswith("sklearn."):
        msg = f"{type(last).__name__} is not scikit-learn's"
        raise NotCompiled(msg)
    linear = hasattr(last, "coef_") and hasattr(last, "intercept_") and not hasattr(last, "support_vectors_")
    if linear and len(columns) == 1 and isinstance(columns[0], Weighted):
        return _over_words(last, columns[0])
    numbers = [number(column) for column in columns]
    name = type(last).__name__
    if name in TREES:
        return Form(*tree_core(last, numbers))
    if linear:
        return _linear(last, numbers)
    msg = f"{name} has no compiled form"
    raise NotCompiled(msg)


def innermost(estimator: Any) -> Any:
    """Behind a search for parameters and behind what keeps an estimator from being fitted again."""
    while True:
        inner = getattr(estimator, "best_estimator_", None)
        if inner is None and type(estimator).__name__ == "FrozenEstimator":
            inner = estimator.estimator
        if inner is None:
            return estimator
        estimator = inner


def _linear(model: Any, columns: Sequence[Column]) -> Form:
    weights, bias = _weights(model, len(columns))
    try:
        core = folded(columns, weights, bias)
    except CannotFold as error:
        raise NotCompiled(str(error)) from error
    return Form(core, _link(model, weights.shape[1]))


def _over_words(model: Any, words: Weighted) -> Form:
    weights, bias = _weights(model, words.width)
    weights = words.spread(weights)
    return Form(
        Words(words.bag, {"idf": words.idf, "weights": weights, "bias": bias}), _link(model, len(bias))
    )


def _weights(model: Any, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A linear model's weights, (columns, outputs), and its bias, (outputs,)."""
    dense = model.coef_.toarray() if hasattr(model.coef_, "toarray") else model.coef_
    weights = np.atleast_2d(np.asarray(dense, np.float64)).T
    if len(weights) != columns:
        msg = f"a {type(model).__name__} of {len(weights)} weights for {columns} columns has no compiled form"
        raise NotCompiled(msg)
    return weights, np.broadcast_to(np.asarray(model.intercept_, np.float64), weights.shape[1:])


def _link(model: Any, outputs: int) -> Link:
    if not hasattr(model, "classes_"):
        loss = getattr(model, "_base_loss", None)  # of the generalized linear models
        return Link("exp" if type(getattr(loss, "link", None)).__name__ == "LogLink" else "value")
    classes = np.asarray(model.classes_)
    if classes.ndim != 1 or outputs != (1 if len(classes) == 2 else len(classes)):  # noqa: PLR2004 - two classes share one score
        msg = f"a {type(model).__name__} with several outputs has no compiled form"
        raise NotCompiled(msg)
    proba = None
    if hasattr(model, "predict_proba"):
        several = "softmax" if type(model).__name__.startswith("LogisticRegression") else "one_vs_rest"
        proba = "sigmoid" if outputs == 1 else several
    return Link("positive" if outputs == 1 else "largest", proba, scored=True, classes=classes)
