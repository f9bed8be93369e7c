"""What a text can say: the types that have a spelling, and the times that are not too far away for theirs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlinfer import RecordErrors, SchemaError, as_column, as_numpy

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY = 86_400
FIRST_DAY, LAST_DAY = -12_687_428, 11_248_737
"""The days since 1970 that Arrow can spell: from the year -32767 to the year 32767."""
FIRST_NESTED, LAST_NESTED = -719_162, 2_932_896
"""The same for Python, which spells what lies in lists and structs for SQL: the years 1 to 9999."""
BAD_TIME = "bad_time"
TOO_FAR = "wanted a time that can be written, found one too far away or beyond the end of a day"


def check_types(schema: pa.Schema, place: str) -> None:
    """Raise SchemaError for a column whose values have no spelling."""
    for field in schema:
        if not is_spellable(field.type):
            advice = "leave it out of keep=, or cast it in the source or in the host"
            raise SchemaError(field.name, f"a type that {place} can hold", field.type, advice)


def is_spellable(kind: pa.DataType) -> bool:
    """Whether JSON and CSV have a text for values of this type."""
    kind = _plain(kind)
    if pt.is_nested(kind):
        known = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
        known = known or pt.is_struct(kind) or pt.is_map(kind)
        return bool(known and all(map(is_spellable, _inner(kind))))
    return not (pt.is_interval(kind) or pt.is_run_end_encoded(kind))


def refuse_far_times(records: pa.RecordBatch) -> None:
    """Raise RecordErrors for the records with a time that text cannot say."""
    found: dict[int, str] = {}
    for field, column in zip(records.schema, records.columns, strict=True):
        mask = far_times(column)
        if mask is not None:
            for row in np.flatnonzero(mask).tolist():
                found.setdefault(row, f"column {field.name!r}: {TOO_FAR}")
    if found:
        rows = sorted(found)
        raise RecordErrors(rows, [BAD_TIME] * len(rows), [found[row] for row in rows])


def far_times(array: pa.Array, *, by_python: bool = False) -> np.ndarray | None:
    """In which rows there is a time that has no spelling; None: in none. With `by_python`, in lists and structs by Python."""
    if not _has_times(array.type):
        return None
    mask = _far(array, by_python=by_python)
    return mask if mask.any() else None


@lru_cache(maxsize=1024)
def _has_times(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    return any(map(_has_times, _inner(kind))) if pt.is_nested(kind) else _is_time(kind)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pt.is_timestamp(kind) or pt.is_date(kind) or pt.is_time(kind))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pt.is_dictionary(kind) else kind


def _inner(kind: pa.DataType) -> list[pa.DataType]:
    return [kind.field(number).type for number in range(kind.num_fields)]


def _far(array: pa.Array, *, by_python: bool, nested: bool = False) -> np.ndarray:
    """The same as a mask, whatever the type."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if not _has_times(kind):
        return np.zeros(len(array), bool)
    if pt.is_struct(kind):
        parts = [array.field(number) for number in range(kind.num_fields)]
        mask = np.logical_or.reduce([_far(part, by_python=by_python, nested=True) for part in parts])
        return np.asarray(mask & as_numpy(array.is_valid()))
    if pt.is_nested(kind):
        inner = array.cast(pa.list_(kind.field(0).type)) if pt.is_map(kind) else array
        counts = _or_none(pc.list_value_length(inner).cast(pa.int64()))
        mask = np.zeros(len(array), bool)
        owners = np.repeat(np.arange(len(array)), counts)
        mask[owners[_far(inner.flatten(), by_python=by_python, nested=True)]] = True
        return mask
    return _too_far(array, nested=nested and by_python)


def _too_far(array: pa.Array, *, nested: bool) -> np.ndarray:
    kind = array.type
    counts = _or_none(_counts(array))
    first, last = (FIRST_NESTED, LAST_NESTED) if nested else (FIRST_DAY, LAST_DAY)
    if pt.is_date32(kind):
        return (counts < first) | (counts > last)
    unit = "ms" if pt.is_date64(kind) else kind.unit
    if unit == "ns" and pt.is_timestamp(kind):  # all that 64 bits can count lies within
        return np.zeros(len(array), bool)
    day = DAY * PER_SECOND[unit]
    if pt.is_time(kind):
        first, last = 0, 0
    return (counts < first * day) | (counts >= (last + 1) * day)


def _or_none(counts: pa.Array) -> np.ndarray:
    """Numbers, 0 where there is none; `pc.fill_null` imports pandas for a 0 that is written as it is."""
    return as_numpy(pc.coalesce(counts, as_column([0], pa.field("", pa.int64()))[0]))


def _counts(array: pa.Array) -> pa.Array:
    is_short = array.type.bit_width == 32  # noqa: PLR2004 - bits
    return array.view(pa.int32() if is_short else pa.int64()).cast(pa.int64())
