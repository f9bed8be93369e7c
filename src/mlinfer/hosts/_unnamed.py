"""An estimator that has forgotten the names of its columns."""

from __future__ import annotations

import copy
from typing import Any

NAMES = "feature_names_in_"


def unnamed(estimator: Any) -> Any:
    """The same estimator without column names, so that it takes a plain matrix without a warning.

    What it has learned is shared with the original, which is left as it is; only objects that hold names, or hold such
    objects, are copied, and not what is inside them. Filtering the warning instead would not do: Python's warning
    filters belong to the whole process, not to one thread.
    """
    return _without_names(estimator, {})


def _without_names(value: Any, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    done[id(value)] = value  # for circles
    result: Any
    if isinstance(value, list | tuple) and type(value) in {list, tuple}:
        items = [_without_names(item, done) for item in value]
        result = value if _same(items, value) else type(value)(items)
    elif isinstance(value, dict):
        items = [_without_names(item, done) for item in value.values()]
        result = value if _same(items, value.values()) else _updated(value, items)
    elif hasattr(value, "__dict__") and _may_hold_names(type(value)):
        result = _object(value, done)
    else:
        result = value
    done[id(value)] = result
    return result


def _may_hold_names(kind: type) -> bool:
    """Estimators, scikit-learn's and others, and what scikit-learn keeps estimators in."""
    return kind.__module__.partition(".")[0] == "sklearn" or hasattr(kind, "get_params")


def _object(value: Any, done: dict[int, Any]) -> Any:
    own = vars(value)
    kept = {name: _without_names(item, done) for name, item in own.items() if name != NAMES}
    if len(kept) == len(own) and _same(kept.values(), own.values()):
        return value
    twin = copy.copy(value)
    vars(twin).clear()
    vars(twin).update(kept)
    return twin


def _updated(mapping: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    twin = copy.copy(mapping)  # keeps its kind: scikit-learn has dicts of its own
    twin.update(zip(mapping, items, strict=True))
    return twin


def _same(found: Any, before: Any) -> bool:
    return all(one is other for one, other in zip(found, before, strict=True))
