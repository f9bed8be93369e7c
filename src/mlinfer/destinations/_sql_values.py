"""Arrow values as what an SQLite column holds, column by column.

Arrow                                   SQLite
bool, integers, duration                INTEGER (0 and 1; a duration counts its own unit)
floats                                  REAL; NaN becomes NULL, SQLite knows no other way
strings                                 TEXT
binary                                  BLOB
timestamp                               TEXT, 2013-01-31T23:59:59.000000Z: UTC, without Z if the timestamp has no zone
date, time                              TEXT, 2013-01-31 and 23:59:59
decimal                                 TEXT, every digit kept
lists, tensors, structs, maps           TEXT, JSON; bytes as base64, NaN as null, infinity as a string, times as texts
dictionary-encoded                      as its values
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlinfer import RecordErrors, as_column, as_numpy, is_bytes, is_list, is_text
from mlinfer.destinations._spellable import BAD_TIME, TOO_FAR, far_times, plain, with_spelled_times

LARGEST = 2**63 - 1


def storage(kind: pa.DataType) -> str | None:
    """The type of the column that holds such values; None: no column does."""
    kind = plain(kind)
    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_duration(kind):
        return "INTEGER"
    if pt.is_floating(kind):
        return "REAL"
    if is_bytes(kind):
        return "BLOB"
    if is_text(kind) or _is_spelled(kind) or pt.is_null(kind):
        return "TEXT"
    if pt.is_struct(kind):
        return "TEXT" if all(storage(field.type) for field in kind) else None
    if pt.is_map(kind):
        return "TEXT" if storage(kind.key_type) and storage(kind.item_type) else None
    return "TEXT" if is_list(kind) and storage(kind.value_type) else None


def values(array: pa.Array) -> list[Any]:
    """A column as the Python values that the driver takes, quickly: a Python object per value is all it costs."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pt.is_dictionary(kind):
        known = values(array.dictionary)
        places = _integers(array.indices.cast(pa.int64()))
        return [None if place is None else known[place] for place in places]
    if pt.is_floating(kind):  # a null comes as NaN, which SQLite stores as NULL
        return as_numpy(array.cast(pa.float64())).tolist()  # type: ignore[no-any-return]
    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_duration(kind):
        return _integers(array.cast(pa.int64()))
    if _is_spelled(kind):
        array = _as_texts(array)
    if is_text(array.type):
        array = array.cast(pa.string())
    if is_text(array.type) or is_bytes(kind) or pt.is_null(kind):
        return array.to_pylist()  # type: ignore[no-any-return]
    return json_values(array)


def json_values(array: pa.Array) -> list[str | None]:
    """Lists, structs and maps as JSON texts."""
    return [None if value is None else as_json(value) for value in with_spelled_times(array).to_pylist()]


def refusals(
    records: pa.RecordBatch, key: str | None, unfit: Callable[[pa.Array], pa.Array | None] = lambda _: None
) -> RecordErrors | None:
    """The records that the database could not store unchanged; None: it can store all of them.

    `unfit` gives a mask of the times that the database has no place for.
    """
    found: dict[int, tuple[str, str]] = {}
    for field, column in zip(records.schema, records.columns, strict=True):
        problems = _problems(field, column, is_key=field.name == key)
        if (mask := unfit(column)) is not None:
            problems.append(
                (BAD_TIME, "wanted a time in whole microseconds and not too far away", rows_of(mask))
            )
        for kind, message, rows in problems:
            for row in rows:
                found.setdefault(row, (kind, f"column {field.name!r}: {message}"))
    if not found:
        return None
    rows = sorted(found)
    return RecordErrors(rows, [found[row][0] for row in rows], [found[row][1] for row in rows])


def _problems(field: pa.Field, column: pa.Array, *, is_key: bool) -> list[tuple[str, str, list[int]]]:
    problems = []
    if is_key and column.null_count:
        problems.append(("missing_key", "wanted a value in the key, found none", rows_of(column.is_null())))
    if pt.is_uint64(field.type):
        unfit = rows_of(
            pc.greater(column, as_column([LARGEST], pa.field("", pa.int64())).cast(pa.uint64())[0])
        )
        problems.append(("too_large", f"wanted an integer up to {LARGEST}, found a larger one", unfit))
    if is_text(plain(field.type)):
        problems += _text_problems(column)
    if (mask := far_times(column)) is not None:
        problems.append((BAD_TIME, TOO_FAR, np.flatnonzero(mask).tolist()))
    return [problem for problem in problems if problem[2]]


def _text_problems(column: pa.Array) -> list[tuple[str, str, list[int]]]:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pt.is_dictionary(column.type):
        if not any(rows for *_, rows in _text_problems(column.dictionary)):
            return []
        column = pa.array(column.dictionary.cast(pa.large_binary()).take(column.indices)).cast(
            pa.large_string(), safe=False
        )
    if pt.is_string_view(column.type):
        column = column.cast(pa.string())
    nul = rows_of(pc.match_substring(column, "\0"))
    problems = [("bad_text", "wanted text without NUL characters, found one", nul)] if nul else []
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        unfit = [
            row for row, raw in enumerate(column.cast(pa.large_binary()).to_pylist()) if not _is_utf8(raw)
        ]
        problems.append(("bad_text", "wanted text in UTF-8, found other bytes", unfit))
    return problems


def _is_utf8(raw: bytes | None) -> bool:
    try:
        (raw or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def rows_of(mask: pa.Array) -> list[int]:
    """Where a mask is true."""
    return as_numpy(pc.indices_nonzero(mask)).tolist()  # type: ignore[no-any-return]


def _integers(array: pa.Array) -> list[int | None]:
    found: list[int | None] = array.to_pylist() if array.null_count else as_numpy(array).tolist()
    return found


def _as_texts(array: pa.Array) -> pa.Array:
    """Times and decimals as text; texts of one column sort like the times."""
    kind = array.type
    if pt.is_date64(kind):
        # what a dictionary holds beside what is used may be too far away
        array = array.cast(pa.date32(), safe=False)
    if not pt.is_timestamp(kind):
        return array.cast(pa.string())
    if kind.tz is not None:
        array = array.cast(pa.timestamp(kind.unit, "UTC"))
    return pc.replace_substring(array.cast(pa.string()), " ", "T", max_replacements=1)


def as_json(value: Any) -> str:
    """A list, struct or map as text."""
    try:
        return json.dumps(value, default=_jsonable, allow_nan=False, ensure_ascii=False)
    except ValueError:
        return json.dumps(_sayable(value), default=_jsonable, allow_nan=False, ensure_ascii=False)


def _sayable(value: Any) -> Any:
    """With infinity as a text and NaN as null: JSON has neither."""
    if isinstance(value, dict):
        return {name: _sayable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.floating):  # half floats come as numpy's
        return float(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def is_floating(kind: pa.DataType) -> bool:
    """Whether these are floating-point numbers, which make no key."""
    return bool(pt.is_floating(plain(kind)))


def _is_spelled(kind: pa.DataType) -> bool:
    return bool(pt.is_timestamp(kind) or pt.is_date(kind) or pt.is_time(kind) or pt.is_decimal(kind))
