"""Between Arrow columns and numpy arrays."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._errors import ComponentError
from mlinfer._forcing import forced

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW = 32
"""So many numbers are looked at one by one in less time than numpy takes to begin."""
FEW_TEXTS = 4096
"""So many texts are made a column before Arrow has imported pandas; of more it makes one twice as fast."""
EXACT = 2**53
"""Integers up to it are floats, too."""
MOST_TEXT = 2**31 - 1
"""Bytes that a column of type string can hold."""
_NUMBERS = {
    np.dtype(f"{letter}{size}"): pa.from_numpy_dtype(f"{letter}{size}")
    for letter, sizes in (("i", (1, 2, 4, 8)), ("u", (1, 2, 4, 8)), ("f", (2, 4, 8)))
    for size in sizes
}
"""What Arrow calls the numbers of numpy; those in another order of bytes are not among them."""
_DTYPES = {kind: dtype for dtype, kind in _NUMBERS.items()} | {pa.bool_(): np.dtype(bool)}
_NUMBER_IDS = frozenset(kind.id for kind in _NUMBERS.values())
_LOOKED_AT = "iufmM"
"""The kinds of numpy's arrays that Arrow does not copy by itself."""
_PIECES = {pa.string(), pa.binary()}
_READ_AS = {pa.string(): str, pa.int64(): int, pa.float64(): float, pa.bool_(): bool}
"""What `pa.array` takes values for by itself."""
_PLAIN = {str, bytes, float, int, bool}


def as_numpy(array: pa.Array) -> np.ndarray:
    """A column as a numpy array that cannot be written to: tensors as matrices, nulls of floats as NaN.

    Shape (n,) for scalars, (n, k) for lists of one length k. No copy where Arrow's memory can be looked at directly.
    """
    values = _matrix(array) if pt.is_fixed_size_list(array.type) else to_numpy(array)
    view: np.ndarray = values.view()
    view.flags.writeable = False
    return view


def to_numpy(array: pa.Array) -> np.ndarray:
    """What `array.to_numpy(zero_copy_only=False)` gives: a read-only view of numbers without nulls, a copy of all else.

    Arrow imports pandas, where that is installed, for any conversion, which takes longer than a small job. A view of the
    memory, here and in `from_numpy`, is none.
    """
    kind = array.type
    if kind.id in _NUMBER_IDS or pt.is_boolean(kind):
        if not array.null_count:
            return _unpacked(array) if pt.is_boolean(kind) else np.from_dlpack(array)
        return _holed(array)
    if kind in _PIECES:
        return np.array(array.to_pylist(), object)
    values: np.ndarray = array.to_numpy(zero_copy_only=False)
    return values


def _holed(array: pa.Array) -> np.ndarray:
    values, gaps = with_gaps(array)
    if values.dtype == bool:
        found: np.ndarray = values.astype(object)
        found[gaps] = None
        return found
    found = values.astype(values.dtype if values.dtype.kind == "f" else np.float64)
    found[gaps] = np.nan
    return found


def with_gaps(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Numbers or booleans as they lie in memory, and which of them are null: there may lie anything."""
    return to_numpy(without_gaps(array)), nulls(array)


def nulls(array: pa.Array) -> np.ndarray:
    """Which values are null, as Arrow keeps it; `is_null` would import pyarrow.compute."""
    if not array.null_count:
        return np.zeros(len(array), bool)
    there = array.buffers()[0]
    return to_numpy(array.is_null()) if there is None else ~_bits(there, array.offset, len(array))


def without_gaps(array: pa.Array) -> pa.Array:
    """Numbers or booleans, whatever lies where there is a null."""
    return pa.Array.from_buffers(array.type, len(array), [None, array.buffers()[1]], 0, array.offset)


def dtype_of(kind: pa.DataType) -> np.dtype | None:
    """What numpy calls numbers and booleans of this type, alone or in lists of one length; None: they are something else."""
    return _DTYPES.get(kind.value_type if pt.is_fixed_size_list(kind) else kind)


def is_masked(values: np.ndarray) -> bool:
    """Whether this is an array of numpy.ma: what is masked in it is no value, whatever lies there."""
    return type(values) is not np.ndarray and hasattr(values, "mask")


def native(values: np.ndarray) -> np.ndarray:
    """The same with the bytes of every number in this machine's order: files of other machines have another one."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def own(values: np.ndarray) -> np.ndarray:
    """The same in memory that is nobody else's, read-only: who gave it may fill it with something else, as models do."""
    if values.flags.owndata and not values.flags.writeable:
        return values  # it has been here before
    copy: np.ndarray = values.copy()
    copy.flags.writeable = False
    return copy


def flattened(values: np.ndarray) -> tuple[pa.Array, int]:
    """All elements of an array of more dimensions, row by row, and how many of them each row has."""
    size = math.prod(values.shape[1:])
    whole = values if is_masked(values) else np.ascontiguousarray(values)
    return from_numpy(whole.reshape(-1)), size


def from_numpy(values: np.ndarray) -> pa.Array:
    """What `pa.array` makes of an array of shape (n,), without a copy where it holds numbers in one piece."""
    kind = _NUMBERS.get(values.dtype)
    if kind is not None and values.flags.c_contiguous and not is_masked(values):
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)], 0)
    if is_masked(values):
        return pa.array(values)
    if values.dtype.kind == "b":
        bits = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, bits], null_count=0)
    if values.dtype.kind in "OU" and len(values) <= FEW_TEXTS:
        return _from_objects(values)
    return pa.array(values)


def _from_objects(values: np.ndarray) -> pa.Array:
    """Texts whole: Arrow ends some of numpy's at a NUL."""
    texts = values.tolist()
    return _from_texts(texts) if set(map(type, texts)) == {str} else pa.array(values)


def from_floats(values: Sequence[float]) -> np.ndarray:
    """What `np.array` makes of Python's floats, in a quarter of the time; it cannot be written to."""
    return np.frombuffer(struct.pack(f"{len(values)}d", *values))


def _unpacked(array: pa.Array) -> np.ndarray:
    bits = array.buffers()[1]
    return np.zeros(len(array), bool) if bits is None else _bits(bits, array.offset, len(array))


def _bits(packed: pa.Buffer, start: int, count: int) -> np.ndarray:
    if not count:
        return np.zeros(0, bool)
    first = start // 8
    some = np.frombuffer(packed, np.uint8)[first:]
    skip = start - 8 * first
    return np.unpackbits(some, count=skip + count, bitorder="little")[skip:].view(bool)


def from_values(values: list[Any]) -> pa.Array:
    """What `pa.array` makes of Python values; without pandas (see `to_numpy`) where they are all of one plain type, or None."""
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return _from_mixed(values, kinds)
    kind = kinds.pop()
    if kind in {str, bytes}:
        return _from_texts(values)
    if kind is float:
        return from_numpy(from_floats(values))
    if kind is int:
        try:
            return from_numpy(np.array(values, np.int64))
        except OverflowError:  # Arrow has words of its own for it
            return pa.array(values)
    if kind is bool:
        return from_numpy(np.array(values))
    if kind is list and (inner := [item for value in values for item in value]):
        offsets = np.zeros(len(values) + 1, np.int32)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        return pa.ListArray.from_arrays(from_numpy(offsets), from_values(inner))
    return pa.nulls(len(values)) if kind is type(None) else pa.array(values)


def _from_mixed(values: list[Any], kinds: set[type]) -> pa.Array:
    """Values of several types, or none."""
    if not kinds:
        return pa.nulls(0)
    rest = kinds - {type(None)}
    if rest != kinds and (len(rest) == 1 or rest == {int, float}) and rest <= _PLAIN:
        return _from_some(values)
    if kinds == {int, float} and all(-EXACT <= value <= EXACT for value in values if type(value) is int):
        return from_numpy(from_floats(values))
    return pa.array(values)


def constant(text: str) -> pa.Scalar:
    """A text for `pyarrow.compute`; `pa.scalar`, which is asked where one is written as it is, imports pandas."""
    return from_values([text])[0]


def _from_texts(values: list[Any]) -> pa.Array:
    kind = pa.binary() if isinstance(values[0], bytes) else pa.string()
    try:
        pieces = values if kind == pa.binary() else [value.encode() for value in values]
    except UnicodeEncodeError:  # half of a character; Arrow has words of its own for it
        return pa.array(values)
    ends = np.cumsum([0, *map(len, pieces)])
    if ends[-1] > MOST_TEXT:
        return pa.array(values)
    offsets, text = pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(pieces))
    return pa.Array.from_buffers(kind, len(values), [None, offsets, text], 0)


def _from_some(values: list[Any]) -> pa.Array:
    """Of values some of which are None: those of another in their places, and a mask."""
    other = next(value for value in values if value is not None)
    whole = from_values([other if value is None else value for value in values])
    return masked(whole, np.array([value is None for value in values]))


def masked(whole: pa.Array, gaps: np.ndarray) -> pa.Array:
    """A plain column without nulls, as it is, with some."""
    there = pa.py_buffer(np.packbits(~gaps, bitorder="little"))
    return pa.Array.from_buffers(whole.type, len(whole), [there, *whole.buffers()[1:]])


def elements(array: pa.Array) -> pa.Array:
    """The elements of all lists in a column, one after the other; those of lists that are null are left out."""
    if pt.is_fixed_size_list(array.type) and not array.null_count:
        size, values = array.type.list_size, array.values
        if len(values) == len(array) * size:
            return values
        return values.slice(array.offset * size, len(array) * size)  # a tenth of what `flatten` takes
    if pt.is_list(array.type) and not array.null_count and len(array):
        offsets = to_numpy(array.offsets)
        return array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    if array.null_count == len(array):  # Arrow makes no empty column of every type
        return array.values.slice(0, 0)
    return array.flatten()


def finite_in_all(values: np.ndarray) -> bool:
    """Whether one pass finds nothing but finite numbers; a sum that overflows looks like one that is not."""
    if len(values) <= FEW:
        return all(map(math.isfinite, values.tolist()))
    with np.errstate(invalid="ignore", over="ignore"):
        return math.isfinite(values.sum())


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without records, also of types of which Arrow makes no column from Python's values."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _matrix(array: pa.Array) -> np.ndarray:
    size = array.type.list_size
    rows: np.ndarray = to_numpy(elements(array)).reshape(-1, size) if size else np.empty((0, 0))
    if len(rows) == len(array):
        return rows
    valid = to_numpy(array.is_valid())  # flattened lists leave out those that are null
    whole = np.full((len(array), size), np.nan, np.result_type(rows.dtype, np.float32))
    whole[valid] = rows if size else 0
    return whole


def as_column(values: Any, field: pa.Field) -> pa.Array:
    """Values of a numpy array, list or Arrow array as a column; a matrix (n, k) becomes lists of k.

    The type of an array is kept as it is, for whoever checks it; a list is read as the field's type. Numbers of numpy are copied.
    Raises ComponentError for a single value, a set or dict, which have no order, and a matrix without columns; ValueError, or
    what Arrow raises, for a value that the type would change.
    """
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray):
        values = native(values)
        values = own(values) if values.dtype.kind in _LOOKED_AT else values
        if values.ndim > 1:
            if not math.prod(values.shape[1:]):
                msg = f"wanted answers {field.name!r} with a value or more each, found an array of the shape {values.shape}"
                raise ComponentError(msg)
            flat, size = flattened(values)
            same = pt.is_fixed_size_list(field.type) and field.type.value_type == flat.type
            if same and field.type.list_size == size:
                return pa.FixedSizeListArray.from_arrays(flat, type=field.type)
            return pa.FixedSizeListArray.from_arrays(flat, size)
        if values.dtype.kind != "O":
            return from_numpy(values)
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        msg = f"wanted answers {field.name!r}, one per record, found a single value ({type(values).__name__})"
        raise ComponentError(msg)
    if isinstance(values, set | frozenset | dict):
        msg = f"wanted answers {field.name!r} in the order of the records, found a {type(values).__name__}; give a list"
        raise ComponentError(msg)
    items = list(values)
    if set(map(type, items)) - {type(None)} == {_READ_AS.get(field.type)}:
        return from_values(items)
    return forced(items, field.type)
