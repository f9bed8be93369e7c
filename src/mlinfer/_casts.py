"""From the type a column has to the type it should have, value by value where it must be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import (
    elements,
    finite_in_all,
    from_numpy,
    from_values,
    masked,
    to_numpy,
    with_gaps,
)
from mlinfer._choosing import chosen_rows
from mlinfer._decimals import to_decimals


def is_text(kind: pa.DataType) -> bool:
    """Strings, large ones and views; a dictionary of strings is a dictionary."""
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Bytes, large ones, views and those of a fixed size; a dictionary of bytes is a dictionary."""
    return bool(
        pt.is_binary(kind)
        or pt.is_large_binary(kind)
        or pt.is_binary_view(kind)
        or pt.is_fixed_size_binary(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Lists, large ones and those of a fixed size; Arrow's views of lists are not meant."""
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def is_number(kind: pa.DataType) -> bool:
    """Integers, floats and decimals; booleans are not numbers."""
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def is_moment(kind: pa.DataType) -> bool:
    """Timestamps, dates and times of day."""
    return bool(pt.is_timestamp(kind) or pt.is_date(kind) or pt.is_time(kind))


def compatible(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of one type can stand for another without guessing.

    Text is never read as a float or an integer. It is read as a date or a time, in ISO 8601, and as a decimal: JSON, CSV and
    SQLite have no other way to say one exactly, and a record must not depend on how it came. What an extension type is stored
    as stands for it, for the same reason.
    """
    if found == wanted:
        return True
    if isinstance(found, pa.BaseExtensionType) and isinstance(wanted, pa.BaseExtensionType):
        return False
    found, wanted = _of_values(found), _of_values(wanted)
    if found == wanted or pt.is_null(found):
        return True
    if pt.is_fixed_size_list(found) and pt.is_fixed_size_list(wanted) and found.list_size != wanted.list_size:
        return False
    if is_list(found) and is_list(wanted):
        return compatible(found.value_type, wanted.value_type)
    if is_text(found) and (is_moment(wanted) or pt.is_decimal(wanted)):
        return True
    if pt.is_timestamp(found) and pt.is_timestamp(wanted):
        return (found.tz is None) == (wanted.tz is None)
    same_kind = any(
        kind(found) and kind(wanted) for kind in (is_text, is_bytes, is_number, pt.is_date, pt.is_time)
    )
    return same_kind or (pt.is_duration(found) and pt.is_duration(wanted))


def _of_values(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves, without what they stand for and how they are stored."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pt.is_dictionary(kind) else kind


def hides_nulls(array: pa.Array) -> bool:
    """Whether a null is among the values of a dictionary, where Arrow does not count it."""
    return bool(pt.is_dictionary(array.type) and array.dictionary.null_count)


def cast(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """An array as another, compatible type, with a mask of the values that do not fit (None: all do).

    A value that does not fit is null in the result. Numbers may lose precision on the way to a float, nothing else.
    """
    if array.type == wanted and not hides_nulls(array):
        return array, None
    if isinstance(wanted, pa.BaseExtensionType):
        values, unfit = cast(array, wanted.storage_type)
        return pa.ExtensionArray.from_storage(wanted, values), unfit
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_dictionary(array.type):
        array = chosen_rows(array.dictionary, array.indices)
    if pt.is_null(array.type):
        return pa.nulls(len(array), wanted), None
    if is_list(wanted) and is_list(array.type):
        return _cast_list(array, wanted)
    if is_number(array.type) and pt.is_floating(wanted):
        return _cast_to_float(array, wanted)
    if pt.is_dictionary(wanted):
        values, unfit = cast(array, wanted.value_type)
        return values.dictionary_encode().cast(wanted), unfit
    return _cast_plain(array, wanted)


def _cast_plain(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    if pt.is_decimal(wanted) and (is_text(array.type) or is_number(array.type)):
        return to_decimals(array, wanted)
    if pt.is_float16(array.type):
        array = array.cast(pa.float32())  # Arrow computes little with half floats
    if is_text(array.type) and is_moment(wanted):
        return _spelled(array, wanted)
    try:
        return array.cast(wanted), None
    except pa.ArrowInvalid:
        return _cast_each(array, wanted)


def _cast_to_float(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    if pt.is_decimal(array.type) and pt.is_float16(wanted):
        array = array.cast(pa.float64(), safe=False)
    result = array.cast(wanted, safe=False)
    narrower = pt.is_floating(array.type) and wanted.bit_width < array.type.bit_width
    if not (narrower or pt.is_float16(wanted)):  # which is too small for many integers, too
        return result, None
    if not result.null_count and finite_in_all(to_numpy(result)):
        return result, None
    with np.errstate(over="ignore"):
        before, after = _floats(array), _floats(result)
    overflown = np.isinf(after) & np.isfinite(before)
    return (result, None) if not overflown.any() else (_without(result, overflown), overflown)


def _cast_each(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """There is a value that does not fit: cast roughly, go back, and see which values came back changed.

    NaN is no value, so it becomes null.
    """
    import pyarrow.compute as pc

    if pt.is_floating(array.type):
        array = _without(array, _true(pc.is_nan(array)))
    try:
        rough = array.cast(wanted, safe=False)
        back = rough.cast(array.type, safe=False)
    except pa.ArrowInvalid:
        return _cast_by_halves(array, wanted)
    bad = (to_numpy(array.is_valid()) & ~_true(pc.equal(array, back))) | _wrapped(array, rough)
    return (rough, None) if not bad.any() else (_without(rough, bad), bad)


def _wrapped(array: pa.Array, rough: pa.Array) -> np.ndarray:
    """Integers beyond the other type's range that come back unchanged: their sign, or their highest bit, was lost."""
    import pyarrow.compute as pc

    if not pt.is_integer(rough.type):
        return np.zeros(len(array), bool)
    if pt.is_integer(array.type):
        negative = [pc.less(values, _number(0, values.type)) for values in (array, rough)]
        lost = pc.not_equal(*negative)
    elif pt.is_floating(array.type):
        bits = rough.type.bit_width - int(pt.is_signed_integer(rough.type))
        lost = pc.greater_equal(array, _number(2.0**bits, array.type))
    else:
        return np.zeros(len(array), bool)
    return _true(lost)


def _true(mask: pa.Array) -> np.ndarray:
    """Where a mask is true; where it is null, it is not."""
    if not mask.null_count:
        return to_numpy(mask)
    found, gaps = with_gaps(mask)
    return np.asarray(found & ~gaps)


def _number(value: float, kind: pa.DataType) -> pa.Scalar:
    """Without `pa.scalar`, which imports pandas."""
    return from_values([value]).cast(kind)[0]


def _cast_by_halves(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Where nothing can be cast roughly: the parts that can be cast whole, down to the values that cannot."""
    try:
        return array.cast(wanted), None
    except pa.ArrowInvalid:
        if len(array) == 1:
            return pa.nulls(1, wanted), np.ones(1, bool)
    middle = len(array) // 2
    values, bad = zip(
        *(_cast_by_halves(part, wanted) for part in (array[:middle], array[middle:])), strict=True
    )
    masks = [
        np.zeros(len(part), bool) if mask is None else mask for part, mask in zip(values, bad, strict=True)
    ]
    return pa.concat_arrays(values), np.concatenate(masks)


def _spelled(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Text in ISO 8601 as dates and times."""
    import pyarrow.compute as pc

    array = array.cast(pa.large_string())
    if not pt.is_time(wanted):
        return _cast_by_halves(array, wanted)
    day, nothing = from_values(["1970-01-01T", ""]).cast(array.type)
    some_day = pc.binary_join_element_wise(day, array, nothing)
    times, bad = _cast_by_halves(some_day, pa.timestamp(wanted.unit))  # Arrow reads no times of day from text
    return times.cast(wanted), bad


def lengths_of(lists: pa.Array) -> np.ndarray:
    """How many elements each list has once flattened; a list that is null has none."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists)
    if not lengths.null_count:
        return to_numpy(lengths)
    found, gaps = with_gaps(lengths)
    return np.where(gaps, 0, found)


def owners(lists: pa.Array) -> np.ndarray:
    """For every element of the flattened lists, the row it belongs to."""
    return np.repeat(np.arange(len(lists)), lengths_of(lists))


def _cast_list(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    if pt.is_fixed_size_list(wanted):
        return _cast_to_tensor(array, wanted)
    lists = array.cast(
        pa.large_list(array.type.value_type) if pt.is_large_list(wanted) else pa.list_(array.type.value_type)
    )
    lengths = lengths_of(lists)
    # Arrow's cast loses count of elements that are all null
    nothing = pt.is_null(lists.type.value_type)
    flat = pa.nulls(int(lengths.sum())) if nothing else elements(lists)
    values, bad_values = cast(flat, wanted.value_type)
    maker = pa.LargeListArray if pt.is_large_list(wanted) else pa.ListArray
    ends = from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    offsets = ends.cast(pa.int64() if pt.is_large_list(wanted) else pa.int32())
    mask = lists.is_null() if lists.null_count else None
    result = maker.from_arrays(offsets, values, type=wanted, mask=mask)
    if bad_values is None:
        return result, None
    bad = np.zeros(len(array), bool)
    bad[owners(lists)[bad_values]] = True
    return _without(result, bad), bad


def _cast_to_tensor(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Lists of one length; a list of another length does not fit."""
    size = wanted.list_size
    if not size:
        return _cast_to_nothing(array, wanted)
    if not array.null_count and _all_of(array, size):
        values, unfit = cast(elements(array), wanted.value_type)
        if unfit is None:
            return pa.FixedSizeListArray.from_arrays(values, type=wanted), None

    null = to_numpy(array.is_null())
    if pt.is_fixed_size_list(array.type):
        fits = np.full(len(array), array.type.list_size == size)
    else:
        fits = lengths_of(array) == size
    usable = fits & ~null
    values, bad_values = cast(elements(chosen_rows(array, usable)), wanted.value_type)
    if not usable.all():
        places = np.full((len(array), size), -1, np.int64)
        places[usable] = np.arange(int(usable.sum()) * size).reshape(-1, size)
        indices = masked(from_numpy(places.ravel()), places.ravel() < 0)
        values = chosen_rows(values, indices)
    result = pa.FixedSizeListArray.from_arrays(values, type=wanted, mask=from_numpy(~usable))
    bad = ~fits & ~null
    if bad_values is not None:
        bad[np.flatnonzero(usable)[np.flatnonzero(bad_values) // size]] = True
    return (result, None) if not bad.any() else (result, bad)


def _cast_to_nothing(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Lists of the length 0, over which Arrow ends the process when it makes a column of their elements."""
    lists = array.to_pylist()
    bad = np.array([bool(one) for one in lists], bool)
    result = pa.array([None if one is None or one else [] for one in lists], wanted)
    return (result, None) if not bad.any() else (result, bad)


def _all_of(lists: pa.Array, size: int) -> bool:
    if pt.is_fixed_size_list(lists.type):
        return bool(lists.type.list_size == size)
    offsets = to_numpy(lists.offsets)
    return bool((offsets[1:] - offsets[:-1] == size).all())


def _without(array: pa.Array, bad: np.ndarray) -> pa.Array:
    import pyarrow.compute as pc

    return pc.if_else(from_numpy(bad), pa.nulls(1, array.type)[0], array)


def _floats(array: pa.Array) -> np.ndarray:
    return np.asarray(to_numpy(array), np.float64)
