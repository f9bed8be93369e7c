"""Estimators as plain values, for files and manifests: a class of scikit-learn and its parameters."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlinfer import ConfigError

CLASS = "class"
LIBRARY = "sklearn."
PAIRS = {"steps", "transformers", "transformer_list", "estimators"}
"""Parameters whose lists scikit-learn wants as tuples."""


def estimator(described: Any, where: str = "estimator", imported: Callable[[str], Any] | None = None) -> Any:
    """The estimator that a table describes: `class`, its name in scikit-learn, and parameters, estimators among them.

    A list of such tables is a pipeline of these steps. `module:attr` names code of the user's own; `imported` imports it
    if that is allowed. Raises ConfigError: it is no class of scikit-learn's, or has no such parameter.

    >>> estimator({"class": "sklearn.linear_model.LogisticRegression", "C": 0.5})
    LogisticRegression(C=0.5)
    """
    if isinstance(described, list):
        from sklearn.pipeline import make_pipeline

        return make_pipeline(*(estimator(one, f"{where}[{n}]", imported) for n, one in enumerate(described)))
    if not isinstance(described, Mapping) or not isinstance(described.get(CLASS), str):
        msg = f'{where}: wanted a table with class = "sklearn....", or a list of such tables, found {described!r:.200}'
        raise ConfigError(msg)
    found = _class(described[CLASS], where, imported)
    options = {
        name: _value(value, name, f"{where}.{name}", imported)
        for name, value in described.items()
        if name != CLASS
    }
    try:
        return found(**options)
    except TypeError as error:
        msg = f"{where}: {described[CLASS]}: wanted its parameters, found {error}"
        raise ConfigError(msg) from error


def described(value: Any) -> Any:
    """An estimator as `estimator` reads it, with the parameters that differ from their defaults; all else as its text."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        usual = {name: one.default for name, one in inspect.signature(type(value)).parameters.items()}
        parameters = {
            name: described(one) for name, one in sorted(value.get_params(deep=False).items())
            if name not in usual or repr(usual[name]) != repr(one)
        }  # fmt: skip
        return {CLASS: _name(type(value)), **parameters}
    if isinstance(value, Mapping):
        return {str(name): described(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [described(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    plain = (
        value is None
        or isinstance(value, str | bool | int)
        or (isinstance(value, float) and math.isfinite(value))
    )
    return value if plain else repr(value)


def _value(value: Any, name: str, where: str, imported: Callable[[str], Any] | None) -> Any:
    if isinstance(value, Mapping):
        if CLASS in value:
            return estimator(value, where, imported)
        return {key: _value(one, key, f"{where}.{key}", imported) for key, one in value.items()}
    if isinstance(value, list):
        if name == "estimator":  # of a search: a pipeline, as at the top
            return estimator(value, where, imported)
        items = [_value(one, "", where, imported) for one in value]
        return [tuple(one) if isinstance(one, list) else one for one in items] if name in PAIRS else items
    return value


def _class(name: str, where: str, imported: Callable[[str], Any] | None) -> Any:
    if ":" in name and imported is not None:
        return imported(name)
    module, _, attribute = name.rpartition(".")
    steps = [*module.split("."), attribute]
    if not name.startswith(LIBRARY) or not all(
        one.isidentifier() and not one.startswith("_") for one in steps
    ):
        msg = f'{where}: wanted the public name of a class of scikit-learn ("sklearn.linear_model.LogisticRegression"), found {name!r}'
        raise ConfigError(msg)
    from sklearn.base import BaseEstimator

    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        msg = f"{where}: wanted a class of the installed scikit-learn, found no {name!r}"
        raise ConfigError(msg) from error
    if not (isinstance(found, type) and issubclass(found, BaseEstimator)):
        msg = f"{where}: wanted an estimator, found {name!r}, which is none"
        raise ConfigError(msg)
    return found


def _name(kind: type) -> str:
    """The public name where there is one: `sklearn.linear_model.Ridge`, not `sklearn.linear_model._ridge.Ridge`."""
    module = kind.__module__.partition("._")[0]
    public = getattr(sys.modules.get(module), kind.__qualname__, None) is kind
    return f"{module if public else kind.__module__}.{kind.__qualname__}"
