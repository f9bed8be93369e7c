"""Estimators as plain values, for files and manifests: a class of scikit-learn and its parameters."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from mlinfer import ConfigError

CLASS = "class"
LIBRARY = "sklearn."
READS = ("sklearn.datasets.", "sklearn.externals.")
PAIRS = {"steps", "transformers", "transformer_list", "estimators"}
"""Parameters whose lists scikit-learn wants as tuples."""
ONE = {"estimator", "final_estimator", "regressor", "classifier", "transformer", "remainder"}
"""Parameters that are one estimator: a list of several is a pipeline."""
TAGS = {"$tuple", "$pairs", "$float", "$slice", "$name"}
"""What JSON lacks: tuples, tables by other keys than texts, infinite numbers and NaN, slices, functions and types."""
NUMBER = re.compile(r"-?\d+")


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
    made = _made(described, where, imported)
    if ":" not in described[CLASS] and not hasattr(made, "fit"):
        msg = f"{where}: wanted an estimator, found {described[CLASS]!r}, which is none"
        raise ConfigError(msg)
    return made


def _made(described: Mapping[str, Any], where: str, imported: Callable[[str], Any] | None) -> Any:
    """What a table with a class stands for: an estimator, or what one is set up with."""
    if not isinstance(described[CLASS], str):
        msg = f'{where}: wanted a table with class = "sklearn....", found {described!r:.200}'
        raise ConfigError(msg)
    found = _class(described[CLASS], where, imported)
    wanted = getattr(found, "_parameter_constraints", {})
    options = {}
    for name, value in described.items():
        if name != CLASS:
            one = _value(value, name, f"{where}.{name}", imported)
            kinds = wanted.get(name, ()) if isinstance(wanted, Mapping) else ()
            only_tuple = (
                isinstance(kinds, list) and tuple in kinds and list not in kinds and "array-like" not in kinds
            )
            options[name] = tuple(one) if isinstance(one, list) and only_tuple else one
    try:
        return found(**options)
    except TypeError as error:
        msg = f"{where}: {described[CLASS]}: wanted its parameters, found {error}"
        raise ConfigError(msg) from error


def _is_made_anew(value: Any) -> bool:
    """Whether it is a splitter, or a choice of columns, of scikit-learn's."""
    kind = type(value)
    return kind.__module__.startswith(LIBRARY) and (
        hasattr(kind, "split") or kind.__name__ == "make_column_selector"
    )


def described(value: Any, lost: list[str] | None = None, where: str = "estimator") -> Any:
    """An estimator as `estimator` reads it, with the parameters that differ from their defaults.

    What JSON lacks is tagged (see TAGS). What cannot be written down stands as a text, and its place is added to `lost`.
    """
    lost = [] if lost is None else lost
    if hasattr(value, "get_params") and not isinstance(value, type):
        return _with_parameters(value, value.get_params(deep=False), lost, where)
    if _is_made_anew(value):
        names = list(inspect.signature(type(value)).parameters)
        if all(hasattr(value, name) for name in names):
            return _with_parameters(value, {name: getattr(value, name) for name in names}, lost, where)
    if isinstance(value, Mapping):
        pairs = [(key, described(one, lost, f"{where}.{key}")) for key, one in value.items()]
        if all(isinstance(key, str) and not NUMBER.fullmatch(key) for key in value):
            return dict(pairs)
        return {"$pairs": [[described(key, lost, where), one] for key, one in pairs]}
    if isinstance(value, list | tuple | np.ndarray):
        items = [described(one, lost, f"{where}[{n}]") for n, one in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    return _single(value, lost, where)


def _single(value: Any, lost: list[str], where: str) -> Any:
    if isinstance(value, slice):
        return {"$slice": [value.start, value.stop, value.step]}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return _named(value, lost, where)


def _with_parameters(value: Any, parameters: Mapping[str, Any], lost: list[str], where: str) -> Any:
    usual = {name: one.default for name, one in inspect.signature(type(value)).parameters.items()}
    found: dict[str, Any] = {CLASS: _name(type(value))}
    if not found[CLASS].startswith(LIBRARY):
        lost.append(f"{where}: {found[CLASS]}")
    for name, one in sorted(parameters.items()):
        if name in usual and repr(usual[name]) == repr(one):
            continue
        place = f"{where}.{name}"
        if name in PAIRS and isinstance(one, list):
            found[name] = [[described(part, lost, place) for part in item] for item in one]
        else:
            found[name] = described(one, lost, place)
    return found


def _named(value: Any, lost: list[str], where: str) -> Any:
    """A function or type by its name; all else as a text."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if name is None:
        text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # an address is another one each time
        lost.append(f"{where}: {text}")
        return text
    module = str(getattr(value, "__module__", "") or "numpy").partition("._")[0]
    full = f"{module}.{name}"
    try:
        if _by_name(full) is value:
            return {"$name": full}
    except (ImportError, AttributeError, ValueError):
        pass
    lost.append(f"{where}: {full}")
    return full


def _by_name(full: str) -> Any:
    """A function or type of scikit-learn's, or numpy's type or function on elements. Raises ValueError: it is neither.

    What scikit-learn's modules have imported is not theirs, and those of its functions that read files or the net are no
    part of an estimator: a manifest may come from anybody.
    """
    module, _, attribute = full.rpartition(".")
    builtin = {"builtins.int": int, "builtins.float": float, "builtins.bool": bool, "builtins.object": object}
    if full in builtin:
        return builtin[full]
    own = module.startswith(LIBRARY) and "._" not in full and not f"{module}.".startswith(READS)
    if module != "numpy" and not own:
        raise ValueError(full)
    found = getattr(importlib.import_module(module), attribute)
    if module == "numpy":
        fits = isinstance(found, np.ufunc) or (isinstance(found, type) and issubclass(found, np.generic))
    else:
        fits = callable(found) and str(getattr(found, "__module__", "")).startswith(LIBRARY)
    if not fits:
        raise ValueError(full)
    return found


def _value(value: Any, name: str, where: str, imported: Callable[[str], Any] | None) -> Any:
    if isinstance(value, Mapping):
        if CLASS in value:
            return _made(value, where, imported)
        if len(value) == 1 and (tag := next(iter(value))) in TAGS:
            return _untagged(tag, value[tag], where, imported)
        found = {key: _value(one, key, f"{where}.{key}", imported) for key, one in value.items()}
        whole = name == "class_weight" and all(NUMBER.fullmatch(str(key)) for key in found)
        return {int(key): one for key, one in found.items()} if whole else found
    if isinstance(value, list):
        if name in ONE and value and all(isinstance(one, Mapping) and CLASS in one for one in value):
            return estimator(value, where, imported)  # a pipeline, as at the top
        if name in PAIRS:
            return [_pair(one, f"{where}[{n}]", imported) for n, one in enumerate(value)]
        return [_value(one, "", where, imported) for one in value]
    return value


def _pair(value: Any, where: str, imported: Callable[[str], Any] | None) -> Any:
    if not isinstance(value, list):
        return _value(value, "", where, imported)
    names = ["", "estimator", ""]
    return tuple(
        _value(one, name, where, imported)
        for one, name in zip_longest(value, names[: len(value)], fillvalue="")
    )


def _untagged(tag: str, value: Any, where: str, imported: Callable[[str], Any] | None) -> Any:
    try:
        if tag == "$float":
            return float(value)
        if tag == "$slice":
            return slice(*value)
        if tag == "$name":
            return _by_name(value)
        if tag == "$tuple":
            return tuple(_value(one, "", where, imported) for one in value)
        return {_value(key, "", where, imported): _value(one, "", where, imported) for key, one in value}
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        msg = f"{where}: wanted {tag} as a manifest has it, found {value!r:.100}"
        raise ConfigError(msg) from error


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
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        msg = f"{where}: wanted a class of the installed scikit-learn, found no {name!r}"
        raise ConfigError(msg) from error
    if not isinstance(found, type) or not (
        hasattr(found, "get_params") or hasattr(found, "split") or attribute == "make_column_selector"
    ):
        msg = f"{where}: wanted an estimator, found {name!r}, which is none"
        raise ConfigError(msg)
    return found


def _name(kind: type) -> str:
    """The public name where there is one: `sklearn.linear_model.Ridge`, not `sklearn.linear_model._ridge.Ridge`."""
    module = kind.__module__.partition("._")[0]
    public = getattr(sys.modules.get(module), kind.__qualname__, None) is kind
    return f"{module if public else kind.__module__}.{kind.__qualname__}"
