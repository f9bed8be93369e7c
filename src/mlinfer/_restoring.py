"""Records of JSON with the values that JSON cannot say: what a reject kept becomes again what it was."""

from __future__ import annotations

import base64
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlinfer._casts import cast, is_bytes, is_list, is_moment, is_text

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def restored(record: dict[str, Any], wanted: pa.Schema) -> dict[str, Any]:
    """The wanted values of a record; one that is not what its field wants stays as it is, for conform to refuse."""
    return {one.name: _restored(record[one.name], one.type) for one in wanted if one.name in record}


def _restored(value: Any, kind: pa.DataType) -> Any:
    if is_moment(kind):  # whole columns of texts become times faster than one by one
        return value
    try:
        return _value(value, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return value


def _value(value: Any, kind: pa.DataType) -> Any:
    """A value; one that Arrow would not see for what it is comes as a scalar."""
    if isinstance(kind, pa.BaseExtensionType):  # JSON says what is stored of it
        return _value(value, kind.storage_type)
    if isinstance(value, list) and is_list(kind):
        return [_value(one, kind.value_type) for one in value]
    if isinstance(value, dict) and pt.is_struct(kind):
        return {one.name: _value(value.get(one.name), one.type) for one in kind}
    if isinstance(value, dict) and pt.is_map(kind):
        # pairs, for Arrow stumbles over a scalar of a map that holds null instead of a list
        return [(_key(key, kind.key_type), _value(one, kind.item_type)) for key, one in value.items()]
    return _of_text(value, kind) if isinstance(value, str) else value


def _of_text(text: str, kind: pa.DataType) -> Any:
    if pt.is_floating(kind) and text in {"NaN", "Infinity", "-Infinity"}:
        return float(text)
    if is_bytes(kind):
        return base64.b64decode(text)
    if pt.is_decimal(kind):
        return pa.scalar(text).cast(kind).as_py()
    if pt.is_duration(kind):
        return pa.scalar(_count(text, _DIGITS[kind.unit]), pa.int64()).cast(kind)
    if is_moment(kind):
        times, unfit = cast(pa.array([text]), kind)
        if unfit is not None:
            msg = f"wanted {kind}, found {text!r}"
            raise ValueError(msg)
        return times[0]
    return text


def _key(text: str, kind: pa.DataType) -> Any:
    """A key of a map: JSON has none but texts."""
    plain = is_text(kind) or is_bytes(kind) or pt.is_decimal(kind) or pt.is_temporal(kind)
    return _of_text(text, kind) if plain else pa.scalar(text).cast(kind)


def _count(text: str, digits: int) -> int:
    """How many units `PT1.5S` are; in whole numbers, for a float has not enough digits for nanoseconds."""
    whole, _, part = text.replace("PT", "").removesuffix("S").partition(".")
    return int(whole + part.ljust(digits, "0")[:digits])
