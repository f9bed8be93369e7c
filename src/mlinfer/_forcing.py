"""Python values that Arrow would change, or end the process over, when it makes them a column of a given type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._text import shown

_LISTS = (list, tuple, np.ndarray)


def forced(values: Any, kind: pa.DataType) -> pa.Array:
    """What `pa.array` makes of them, but that it takes 1.5 for the integer 1, and a null in a map for the end of the process.

    Raises ValueError: a value would be changed, or is none of the kind.
    """
    if _delicate(kind):
        for value in values:
            _look(value, kind)
    return pa.array(values, kind)


def _delicate(kind: pa.DataType) -> bool:
    if pt.is_integer(kind) or pt.is_map(kind):
        return True
    return any(_delicate(kind.field(number).type) for number in range(kind.num_fields))


def _look(value: Any, kind: pa.DataType) -> None:
    if pt.is_integer(kind):
        if type(value) is not int and _has_fraction(value):
            msg = f"wanted {kind}, found {shown(value)}; round it in the model, or name another type in its outputs"
            raise ValueError(msg)
    elif pt.is_map(kind):
        _look_into_map(value, kind)
    elif pt.is_struct(kind) and isinstance(value, Mapping):
        for field in kind:
            _look(value.get(field.name), field.type)
    elif isinstance(value, _LISTS) and kind.num_fields == 1 and hasattr(kind, "value_type"):
        inner = kind.value_type
        plain = pt.is_integer(inner) and set(map(type, value)) == {int}  # told without a loop
        for one in () if plain else value:
            _look(one, inner)


def _look_into_map(value: Any, kind: pa.DataType) -> None:
    pairs = value.items() if isinstance(value, Mapping) else value
    if not isinstance(value, (Mapping, *_LISTS)):
        return  # None, a scalar of Arrow, or what Arrow has words for
    for pair in pairs:
        if not isinstance(pair, _LISTS) or len(pair) != 2 or pair[0] is None:  # noqa: PLR2004 - a key and a value
            msg = f"wanted pairs of a key and a value for {kind}, found {shown(pair)} among them"
            raise ValueError(msg)
        _look(pair[0], kind.key_type)
        _look(pair[1], kind.item_type)


def _has_fraction(value: Any) -> bool:
    try:
        return bool(value is not None and value != value // 1)
    except (TypeError, ValueError, ArithmeticError):  # no number: Arrow has words for it
        return False
