"""What a text can say: the types that have a spelling, and the times that are not too far away for theirs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlinfer import RecordErrors, SchemaError, as_column, as_numpy, is_list, quoted_texts

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY = 86_400
FIRST_DAY, LAST_DAY = -12_687_428, 11_248_737
"""The days since 1970 that Arrow can spell: from the year -32767 to the year 32767."""
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
    kind = plain(kind)
    if pt.is_nested(kind):
        known = is_list(kind) or pt.is_struct(kind) or pt.is_map(kind)
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


def far_times(array: pa.Array) -> np.ndarray | None:
    """In which rows there is a time that has no spelling; None: in none."""
    if not _has_times(array.type):
        return None
    mask = _far(array)
    return mask if mask.any() else None


def with_spelled_times(array: pa.Array) -> pa.Array:
    """Lists, structs and maps with the times in them as texts: Python's own times know no nanoseconds and few years."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if not _has_times(kind):
        return array
    if pt.is_dictionary(kind):
        return with_spelled_times(array.dictionary).take(array.indices)
    if not pt.is_nested(kind):
        return quoted_texts(array)
    gaps = array.is_null()
    if pt.is_struct(kind):
        names = [kind.field(number).name for number in range(kind.num_fields)]
        parts = [with_spelled_times(array.field(number)) for number in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, names, mask=gaps)
    values, counts = _elements(array)
    offsets = as_column(np.concatenate([[0], np.cumsum(counts)]), pa.field("", pa.int64()))
    if pt.is_map(kind):
        keys, items = (with_spelled_times(values.field(number)) for number in (0, 1))
        return pa.MapArray.from_arrays(offsets.cast(pa.int32()), keys, items, mask=gaps)
    return pa.LargeListArray.from_arrays(offsets, with_spelled_times(values), mask=gaps)


def _has_times(kind: pa.DataType) -> bool:
    return _holds_times(plain(kind))  # for a stranger's extension type there is no hash


@lru_cache(maxsize=1024)
def _holds_times(kind: pa.DataType) -> bool:
    return any(map(_has_times, _inner(kind))) if pt.is_nested(kind) else _is_time(kind)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pt.is_temporal(kind) and not pt.is_interval(kind))


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pt.is_dictionary(kind) else kind


def _inner(kind: pa.DataType) -> list[pa.DataType]:
    return [kind.field(number).type for number in range(kind.num_fields)]


def _elements(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """What lies in lists or maps, one after the other, and how much of it in each row."""
    lists = array.cast(pa.list_(array.type.field(0).type)) if pt.is_map(array.type) else array
    # where all are null Arrow flattens nothing, for it makes no empty column of every type
    inner = lists.values.slice(0, 0) if lists.null_count == len(lists) else lists.flatten()
    return inner, _or_none(pc.list_value_length(lists).cast(pa.int64()))


def _far(array: pa.Array) -> np.ndarray:
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
        mask = np.logical_or.reduce([_far(part) for part in parts])
        return np.asarray(mask & as_numpy(array.is_valid()))
    if pt.is_nested(kind):
        values, counts = _elements(array)
        mask = np.zeros(len(array), bool)
        mask[np.repeat(np.arange(len(array)), counts)[_far(values)]] = True
        return mask
    return np.zeros(len(array), bool) if pt.is_duration(kind) else _too_far(array)


def _too_far(array: pa.Array) -> np.ndarray:
    kind = array.type
    counts = _or_none(_counts(array))
    first, last = FIRST_DAY, LAST_DAY
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
