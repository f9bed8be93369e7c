"""Records as JSON texts, one object each, column by column: a Python object per value would cost ten times as much."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlinfer._casts import is_text

_SPECIAL = r'["\\\x00-\x1f]'


def rows_as_json(records: pa.RecordBatch) -> pa.Array:
    """A string array with one JSON object per record.

    NaN and null are null, infinities the texts "Infinity" and "-Infinity"; times are ISO 8601, bytes base64, decimals
    texts.
    """
    import pyarrow.compute as pc

    if not records.num_columns:
        return pa.repeat(pa.scalar("{}"), records.num_rows)
    pieces: list[Any] = []
    for place, name in enumerate(records.schema.names):
        pieces.append(pa.scalar(("{" if not place else ",") + json.dumps(name, ensure_ascii=False) + ":"))
        pieces.append(_values(records.column(place)))
    return pc.binary_join_element_wise(*pieces, pa.scalar("}"), "")


def _values(array: pa.Array) -> pa.Array:
    """Each value as JSON text, without nulls."""
    import pyarrow.compute as pc

    if pt.is_dictionary(array.type):
        return _values(array.dictionary).take(array.indices).fill_null("null")
    if is_text(array.type):
        texts = _texts(array.cast(pa.string()))
    elif pt.is_integer(array.type) or pt.is_boolean(array.type):
        texts = array.cast(pa.string())
    elif pt.is_floating(array.type):
        texts = _floats(array)
    elif pt.is_date(array.type):
        texts = pc.binary_join_element_wise('"', array.cast(pa.string()), '"', "")
    else:
        texts = pa.array(
            [json.dumps(plain_value(value), ensure_ascii=False) for value in array.to_pylist()], pa.string()
        )
    return texts.fill_null("null")


def _texts(array: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    if pc.any(pc.match_substring_regex(array, _SPECIAL)).as_py():
        return pa.array(
            [None if text is None else json.dumps(text, ensure_ascii=False) for text in array.to_pylist()],
            pa.string(),
        )
    return pc.binary_join_element_wise('"', array, '"', "")


def _floats(array: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    texts = array.cast(pa.float64()).cast(pa.string())
    if pc.any(pc.equal(array, pc.trunc(array))).as_py():
        texts = pc.replace_substring_regex(texts, r"^(-?\d+)$", r"\1.0")  # a float stays one for whoever reads it
    finite = pc.is_finite(array)
    if pc.all(finite).as_py() is not False:
        return texts
    named = pc.if_else(pc.greater(array, 0), '"Infinity"', '"-Infinity"')
    return pc.if_else(finite, texts, pc.if_else(pc.is_inf(array), named, pa.scalar(None, pa.string())))


def plain_value(value: Any) -> Any:
    """A Python value as JSON can hold it, with the same spelling as `rows_as_json`."""
    if isinstance(value, dict):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
