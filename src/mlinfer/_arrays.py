"""Between Arrow columns and numpy arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer._errors import ComponentError

FEW = 32
"""So many numbers are looked at one by one in less time than numpy takes to begin."""


def as_numpy(array: pa.Array) -> np.ndarray:
    """A column as a numpy array that cannot be written to: tensors as matrices, nulls of floats as NaN.

    Shape (n,) for scalars, (n, k) for lists of one length k. No copy where Arrow's memory can be looked at directly.
    """
    if pa.types.is_fixed_size_list(array.type):
        values = _matrix(array)
    else:
        values = array.to_numpy(zero_copy_only=False)
    view: np.ndarray = values.view()
    view.flags.writeable = False
    return view


def elements(array: pa.Array) -> pa.Array:
    """The elements of all lists in a column, one after the other; those of lists that are null are left out."""
    if pa.types.is_fixed_size_list(array.type) and not array.null_count:
        size = array.type.list_size
        return array.values.slice(array.offset * size, len(array) * size)  # a tenth of what `flatten` takes
    return array.flatten()


def finite_in_all(values: np.ndarray) -> bool:
    """Whether one pass finds nothing but finite numbers; a sum that overflows looks like one that is not."""
    if len(values) <= FEW:
        return all(map(math.isfinite, values.tolist()))
    with np.errstate(invalid="ignore", over="ignore"):
        return math.isfinite(values.sum())


def _matrix(array: pa.Array) -> np.ndarray:
    size = array.type.list_size
    rows: np.ndarray = (
        elements(array).to_numpy(zero_copy_only=False).reshape(-1, size) if size else np.empty((0, 0))
    )
    if len(rows) == len(array):
        return rows
    valid = np.asarray(array.is_valid())  # flattened lists leave out those that are null
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
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    if isinstance(values, np.ndarray) and values.dtype != object:
        return pa.array(values)
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        msg = f"wanted answers {field.name!r}, one per record, found a single value ({type(values).__name__})"
        raise ComponentError(msg)
    return pa.array(list(values), field.type)
