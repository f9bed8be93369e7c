"""Finds out about an estimator in hand: its signature, with or without an example."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError
from mlinfer.hosts._answers_of import METHODS
from mlinfer.hosts._example import Example, example_of
from mlinfer.hosts._signature_of import REFUSALS, Study, study
from mlinfer.hosts._unnamed import unnamed


def study_of(estimator: Any, example: Any, methods: Sequence[str], *, expand: bool) -> Study:
    """How to feed an estimator and what it answers. Raises ConfigError: an example is needed."""
    return study(estimator, shown(estimator, example, methods), methods, expand=expand)


def shown(estimator: Any, example: Any, methods: Sequence[str]) -> Example:
    """The example as the estimator's columns, made up where there is none and numbers will do.

    Raises ConfigError: the estimator lacks a method, an example is needed, or this is none.
    """
    absent = [method for method in methods if not hasattr(estimator, method)]
    if absent:
        there = ", ".join(method for method in METHODS if hasattr(estimator, method)) or "none"
        msg = f"{type(estimator).__name__}: wanted the method {absent[0]!r}, found {there}"
        raise ConfigError(msg)
    names = _names(estimator)
    if example is None:
        example = _made_up(estimator, names, methods)
    return example_of(example, names)


def _names(estimator: Any) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _made_up(estimator: Any, names: list[str] | None, methods: Sequence[str]) -> Any:
    """Zeros for an estimator that knows how many columns it was fitted on and that takes numbers alone."""
    kind = type(estimator).__name__
    width = len(names) if names else getattr(estimator, "n_features_in_", None)
    if not width:
        msg = f"{kind}: wanted to know what it was fitted on, and it does not say; give example= with a few records of that"
        raise ConfigError(msg)
    if _takes_text(estimator, methods[0], names, width):
        msg = f"{kind}: takes text as well as numbers, so its types cannot be guessed; give example= with a few records"
        raise ConfigError(msg)
    zeros = np.zeros((2, width))
    return zeros if names is None else pa.table(dict(zip(names, zeros.T, strict=True)))


def _takes_text(estimator: Any, method: str, names: list[str] | None, width: int) -> bool:
    """Whether any of its columns may hold text: then zeros would be a wrong guess that nobody notices."""
    pandas = None if names is None else sys.modules.get("pandas")
    ask = getattr(estimator if pandas else unnamed(estimator), method)
    for place in range(width):
        matrix = np.zeros((2, width), object)
        matrix[:, place] = "a"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ask(pandas.DataFrame(matrix, columns=names).infer_objects() if pandas else matrix)
        except REFUSALS:
            continue
        return True
    return False
