"""Between Arrow columns and numpy arrays."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlinfer._errors import ComponentError

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW = 32
"""So many numbers are looked at one by one in less time than numpy takes to begin."""
MOST_TEXT = 2**31 - 1
"""Bytes that a column of type string can hold."""
_NUMBERS = {
    np.dtype(f"{letter}{size}"): pa.from_numpy_dtype(f"{letter}{size}")
    for letter, sizes in (("i", (1, 2, 4, 8)), ("u", (1, 2, 4, 8)), ("f", (2, 4, 8)))
    for size in sizes
}
"""What Arrow calls the numbers of numpy; those in another order of bytes are not among them."""
_NUMBER_IDS = frozenset(kind.id for kind in _NUMBERS.values())


def as_numpy(array: pa.Array) -> np.ndarray:
    """A column as a numpy array that cannot be written to: tensors as matrices, nulls of floats as NaN.

    Shape (n,) for scalars, (n, k) for lists of one length k. No copy where Arrow's memory can be looked at directly.
    """
    values = _matrix(array) if pa.types.is_fixed_size_list(array.type) else to_numpy(array)
    view: np.ndarray = values.view()
    view.flags.writeable = False
    return view


def to_numpy(array: pa.Array) -> np.ndarray:
    """What `array.to_numpy(zero_copy_only=False)` gives: a read-only view of numbers without nulls, a copy of all else.

    Arrow imports pandas, where that is installed, for any conversion, which takes longer than a small job. A view of the
    memory, here and in `from_numpy`, is none.
    """
    if array.type.id in _NUMBER_IDS and not array.null_count:
        return np.from_dlpack(array)
    if pa.types.is_boolean(array.type) and not array.null_count:
        return _unpacked(array)
    values: np.ndarray = array.to_numpy(zero_copy_only=False)
    return values


def from_numpy(values: np.ndarray) -> pa.Array:
    """What `pa.array` makes of an array of shape (n,), without a copy where it holds numbers in one piece."""
    if values.dtype == bool:
        bits = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, bits], null_count=0)
    kind = _NUMBERS.get(values.dtype)
    if kind is None or not values.flags.c_contiguous:
        return pa.array(values)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)], 0)


def from_floats(values: Sequence[float]) -> np.ndarray:
    """What `np.array` makes of Python's floats, in a quarter of the time; it cannot be written to."""
    return np.frombuffer(struct.pack(f"{len(values)}d", *values))


def _unpacked(array: pa.Array) -> np.ndarray:
    bits = array.buffers()[1]
    if not len(array) or bits is None:
        return np.zeros(len(array), bool)
    stop = array.offset + len(array)
    flags = np.unpackbits(np.frombuffer(bits, np.uint8), count=stop, bitorder="little")[array.offset :]
    return flags.view(bool)


def from_values(values: list[Any]) -> pa.Array:
    """What `pa.array` makes of Python values; without pandas (see `to_numpy`) where they are all of one plain type."""
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return pa.array(values)
    kind = kinds.pop()
    if kind is str:
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
    return pa.array(values)


def _from_texts(values: list[str]) -> pa.Array:
    try:
        pieces = [value.encode() for value in values]
    except UnicodeEncodeError:  # half of a character; Arrow has words of its own for it
        return pa.array(values)
    ends = np.cumsum([0, *map(len, pieces)])
    if ends[-1] > MOST_TEXT:
        return pa.array(values)
    offsets, text = pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(pieces))
    return pa.StringArray.from_buffers(len(values), offsets, text, null_count=0)


def elements(array: pa.Array) -> pa.Array:
    """The elements of all lists in a column, one after the other; those of lists that are null are left out."""
    if pa.types.is_fixed_size_list(array.type) and not array.null_count:
        size, values = array.type.list_size, array.values
        if len(values) == len(array) * size:
            return values
        return values.slice(array.offset * size, len(array) * size)  # a tenth of what `flatten` takes
    if pa.types.is_list(array.type) and not array.null_count and len(array):
        offsets = to_numpy(array.offsets)
        return array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    return array.flatten()


def finite_in_all(values: np.ndarray) -> bool:
    """Whether one pass finds nothing but finite numbers; a sum that overflows looks like one that is not."""
    if len(values) <= FEW:
        return all(map(math.isfinite, values.tolist()))
    with np.errstate(invalid="ignore", over="ignore"):
        return math.isfinite(values.sum())


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

    The type of an array is kept as it is, for whoever checks it; a list is read as the field's type.
    Raises ComponentError for a single value.
    """
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 1:
        flat = np.ascontiguousarray(values).reshape(len(values), math.prod(values.shape[1:]))
        return pa.FixedSizeListArray.from_arrays(from_numpy(flat.ravel()), flat.shape[1])
    if isinstance(values, np.ndarray) and values.dtype != object:
        return from_numpy(values)
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        msg = f"wanted answers {field.name!r}, one per record, found a single value ({type(values).__name__})"
        raise ComponentError(msg)
    return pa.array(list(values), field.type)
