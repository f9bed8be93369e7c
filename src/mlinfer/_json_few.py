"""A few records as JSON texts, value by value; without pyarrow.compute, which takes longer to import than a server should."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import elements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Arrow spells floats between them as Python does, and with a point
_SMALLEST_PLAIN, _LARGEST_PLAIN = 1e-4, 1e10
FEW = 64
"""Values, up to which going through them one by one takes less time than to begin with columns."""
_in_json = json.JSONEncoder(ensure_ascii=False).encode


def json_rows(records: pa.RecordBatch) -> list[str]:
    """The texts of `json_objects` as Python strings; those of a few records in a tenth of the time."""
    if records.num_rows * max(1, records.num_columns) > FEW:
        from mlinfer._json_text import json_objects

        texts: list[str] = json_objects(records).to_pylist()
        return texts
    if not records.num_columns:
        return ["{}"] * records.num_rows
    return _joined(records.schema.names, [_few(column) for column in records.columns])


def number_rows(columns: Mapping[str, np.ndarray | pa.Array], rows: int) -> list[str] | None:
    """The same of columns of numbers that are in numpy, shape (n,), or (n, k) for lists; None: `json_rows` has to spell them."""
    if rows * len(columns) > FEW:
        return None
    spelled = []
    for values in columns.values():
        texts = _few(values) if isinstance(values, pa.Array) else _numbers(values)
        if texts is None:
            return None
        spelled.append(texts)
    return _joined(list(columns), spelled)


def _joined(names: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    keys = _keys(tuple(names))
    return [
        "".join([part for pair in zip(keys, row, strict=True) for part in pair]) + "}"
        for row in zip(*columns, strict=True)
    ]


def _numbers(values: np.ndarray) -> list[str] | None:
    if values.dtype.kind == "f" and values.itemsize != 8:  # noqa: PLR2004 - the bytes of Python's floats
        return None
    flat = [_spelled(value) for value in values.reshape(-1).tolist()]
    if None in flat:
        return None
    return _in_lists(flat, values.shape[1]) if values.ndim > 1 else flat  # type: ignore[return-value]  # there is no None


def _in_lists(flat: Sequence[Any], size: int) -> list[str]:
    return [f"[{','.join(flat[start : start + size])}]" for start in range(0, len(flat), size)]


def _few(array: pa.Array) -> list[str]:
    """What `json_texts` gives, value by value where Python spells a value as Arrow does."""
    kind = array.type
    if pt.is_integer(kind) or pt.is_float64(kind) or pt.is_string(kind) or pt.is_boolean(kind):
        found: list[str | None] = [_spelled(value) for value in array.to_pylist()]
    elif pt.is_fixed_size_list(kind) and pt.is_float64(kind.value_type) and not array.null_count:
        size = kind.list_size
        flat: list[Any] = [_spelled(value) for value in elements(array).to_pylist()]
        rows = [flat[start * size : (start + 1) * size] for start in range(len(array))]
        found = [None if None in row else f"[{','.join(row)}]" for row in rows]
    else:
        found = [None]
    if None in found:
        from mlinfer._json_text import json_texts

        found = json_texts(array).to_pylist()
    return found  # type: ignore[return-value]  # there is no None left


def _spelled(value: Any) -> str | None:
    """A value as JSON; None: only Arrow knows how it spells it."""
    if type(value) is float:
        if not math.isfinite(value):
            return "null"
        return repr(value) if value == 0 or _SMALLEST_PLAIN <= abs(value) < _LARGEST_PLAIN else None
    if type(value) is str:
        return _in_json(value)
    if value is None:
        return "null"
    return ("true" if value else "false") if type(value) is bool else str(value)


@cache
def _keys(names: tuple[str, ...]) -> list[str]:
    return [f"{',' if number else '{'}{_in_json(name)}:" for number, name in enumerate(names)]
