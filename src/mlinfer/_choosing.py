"""Choosing rows, of every type: there are types of which Arrow cannot choose some, wherever they lie.

These are texts and bytes in views, unions and runs. Lists, objects and maps of them are taken apart, and put together again.
So are matrices (lists of one length in such lists): of a slice of them Arrow chooses some, but the wrong ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import from_numpy, masked, nulls, to_numpy, without_gaps

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table, pa.Array, pa.ChunkedArray)


def chosen_rows(data: Rows, rows: Sequence[int] | np.ndarray | pa.Array | pa.ChunkedArray) -> Rows:
    """Some rows of a batch, a table or a column, whatever its types: those where a mask is true, or those of these numbers.

    `take` and `filter` of pyarrow raise for some types, such as the views in which polars and Parquet files may have texts, and
    give something else than was asked for of matrices in slices.
    For a number that is null (in an array of Arrow) there is a null. Raises ValueError: the mask is of another length, or these
    are neither a mask nor whole numbers, shape (n,); IndexError: a row of such a number is not there.

    >>> records = pa.record_batch({"x": pa.array(["a", None, "c"], pa.string_view())})
    >>> chosen_rows(records, [2, 0]).column("x").to_pylist()
    ['c', 'a']
    >>> chosen_rows(records, records.column("x").is_valid()).column("x").to_pylist()
    ['a', 'c']
    """
    if isinstance(rows, pa.ChunkedArray):
        rows = rows.combine_chunks()
    by = rows if isinstance(rows, pa.Array) else from_numpy(_numbers(rows))
    if not (pt.is_boolean(by.type) or pt.is_integer(by.type)):
        raise _neither(by.type)
    if pt.is_boolean(by.type) and len(by) != len(data):
        msg = f"rows: wanted a mask of {len(data):,} values, one for each row, found {len(by):,}"
        raise ValueError(msg)
    if isinstance(data, pa.RecordBatch | pa.Table):
        if not data.num_columns:
            return data.filter(by) if pt.is_boolean(by.type) else data.take(_there(by, len(data)))
        return type(data).from_arrays([_of(one, by) for one in data.columns], schema=data.schema)
    return _of(data, by)


def _numbers(rows: Any) -> np.ndarray:
    found = np.asarray(rows)
    if found.ndim == 1 and found.dtype.kind in "bi":
        return found if found.dtype == bool else found.astype(np.int64, copy=False)
    if found.shape == (0,):  # of an empty list numpy makes floats
        return np.empty(0, np.int64)
    if found.ndim == 1 and found.dtype.kind == "u":  # Arrow takes them as they are
        return found
    kind = f"{found.dtype}, shape {found.shape}"
    raise _neither(kind)


def _neither(found: object) -> ValueError:
    """True and False among objects would be the rows 1 and 0, and 1.5 the row 1."""
    msg = f"rows: wanted a mask or whole numbers, shape (n,), found {found}"
    return ValueError(msg)


def _of(column: Any, by: pa.Array) -> Any:
    kind = column.type
    if not _is_beyond_arrow(kind):
        if not pt.is_boolean(by.type):
            return column.take(by)
        return (_hiding_unchosen(column, by) if isinstance(column, pa.Array) else column).filter(by)
    numbers = _there(by, len(column))
    if isinstance(column, pa.ChunkedArray):
        whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, kind)
        return pa.chunked_array([_taken(whole, numbers)], kind)
    return _taken(column, numbers)


def _there(by: pa.Array, length: int) -> pa.Array:
    """Numbers of rows, all of which are there. Raises IndexError: some are not."""
    if pt.is_boolean(by.type):
        return from_numpy(np.flatnonzero(to_numpy(by)))
    places, absent = _places(by)
    beyond = places[((places < 0) | (places >= length)) & ~absent]
    if len(beyond):
        msg = f"rows: wanted numbers of {length:,} rows, found {beyond[0]:,}"
        raise IndexError(msg)
    return by


def _hiding_unchosen(array: pa.Array, mask: pa.Array) -> pa.Array:
    """Where no null is chosen, as when a record that lacks a number is bad, Arrow is told so: that takes a third of the time."""
    if (
        not array.null_count
        or mask.null_count
        or not (pt.is_integer(array.type) or pt.is_floating(array.type))
    ):
        return array
    return array if (nulls(array) & to_numpy(mask)).any() else without_gaps(array)


def _is_beyond_arrow(kind: pa.DataType) -> bool:
    if not kind.num_fields and pt.is_primitive(kind):
        return False
    if pt.is_string_view(kind) or pt.is_binary_view(kind) or pt.is_union(kind) or pt.is_run_end_encoded(kind):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return _is_beyond_arrow(kind.storage_type)
    if _chooses_places(kind):
        return False
    # of a slice Arrow takes what lies elsewhere
    if pt.is_fixed_size_list(kind) and pt.is_fixed_size_list(kind.value_type):
        return True
    return any(_is_beyond_arrow(kind.field(number).type) for number in range(kind.num_fields))


def _chooses_places(kind: pa.DataType) -> bool:
    """Whether Arrow leaves the values where they are, and chooses of what points at them."""
    return bool(pt.is_dictionary(kind) or pt.is_list_view(kind) or pt.is_large_list_view(kind))


def _taken(array: pa.Array, rows: pa.Array) -> pa.Array:  # noqa: PLR0911 - a way for each kind
    """These rows; a row that is null gives a null."""
    kind = array.type
    if not _is_beyond_arrow(kind):
        return array.take(rows)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _taken(array.storage, rows))
    if pt.is_string_view(kind) or pt.is_binary_view(kind):
        plain = pa.large_string() if pt.is_string_view(kind) else pa.large_binary()
        return array.cast(plain).take(rows).cast(kind)
    if not len(rows):
        return array.slice(0, 0)
    if pt.is_run_end_encoded(kind):
        return _taken_of_runs(array, rows)
    if not len(array):  # then all rows are null
        return pa.nulls(len(rows), kind)
    if pt.is_union(kind):
        return _taken_of_union(array, rows)
    places, absent = _places(rows)
    gaps = nulls(array)[places] | absent
    if pt.is_struct(kind):
        parts = [_taken(array.field(number), rows) for number in range(kind.num_fields)]
        return _made(kind, gaps, [], parts)
    return _taken_of_lists(array, places, gaps)


def _places(rows: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers, 0 for those that are null, and which of them are."""
    absent = nulls(rows)
    places = np.array(to_numpy(rows.fill_null(0) if rows.null_count else rows), np.int64)
    return places, absent


def _taken_of_lists(array: pa.Array, places: np.ndarray, gaps: np.ndarray) -> pa.Array:
    """Of lists and maps: they are given new places, and their values are taken in that order."""
    kind = array.type
    if pt.is_fixed_size_list(kind):
        size = kind.list_size
        inner = ((places + array.offset)[:, None] * size + np.arange(size)).ravel()
        return _made(kind, gaps, [], [_taken(array.values, _nullable(inner, np.repeat(gaps, size)))])
    ends = to_numpy(array.offsets)
    begins = ends[places].astype(np.int64)
    lengths = np.where(gaps, 0, ends[places + 1] - begins)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    inner = np.repeat(begins - offsets[:-1], lengths) + np.arange(offsets[-1])
    return _made(kind, gaps, [offsets.astype(ends.dtype)], [_taken(array.values, from_numpy(inner))])


def _taken_of_union(array: pa.Array, rows: pa.Array) -> pa.Array:
    """A union has no nulls of its own: a row that is null becomes a null of its first kind of values."""
    kind, (places, absent) = array.type, _places(rows)
    every = np.frombuffer(array.buffers()[1], np.int8)[array.offset :]
    codes = np.where(absent, kind.type_codes[0], every[places]).astype(np.int8)
    if kind.mode == "sparse":
        parts = [_taken(array.field(number), rows) for number in range(kind.num_fields)]
        return pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(codes)], 0, 0, parts)
    offsets = np.frombuffer(array.buffers()[2], np.int32)[array.offset :][places]
    found, parts = np.zeros(len(rows), np.int32), []
    for number, code in enumerate(kind.type_codes):
        its = codes == code
        found[its] = np.arange(its.sum())  # offsets of one kind of values must not go down
        parts.append(_taken(array.field(number), _nullable(offsets[its], absent[its])))
    buffers = [None, pa.py_buffer(codes), pa.py_buffer(found)]
    return pa.Array.from_buffers(kind, len(rows), buffers, 0, 0, parts)


def _taken_of_runs(array: pa.Array, rows: pa.Array) -> pa.Array:
    """Of runs of one value each: rows of one run that come to lie side by side are one again."""
    places, absent = _places(rows)
    ends = to_numpy(array.run_ends)
    runs = np.where(absent, -1, np.searchsorted(ends, places + array.offset, side="right"))
    last = np.append(np.flatnonzero(np.diff(runs)), len(runs) - 1)
    values = _taken(array.values, _nullable(runs[last], absent[last]))
    children = [from_numpy((last + 1).astype(ends.dtype)), values]
    return pa.Array.from_buffers(array.type, len(rows), [None], 0, 0, children)


def _nullable(numbers: np.ndarray, absent: np.ndarray) -> pa.Array:
    whole = from_numpy(np.ascontiguousarray(numbers, np.int64))
    return masked(whole, absent) if absent.any() else whole


def _made(kind: pa.DataType, gaps: np.ndarray, buffers: list[Any], children: list[pa.Array]) -> pa.Array:
    there = pa.py_buffer(np.packbits(~gaps, bitorder="little")) if gaps.any() else None
    sum(one.null_count for one in children)  # uncounted, those of a map's keys end the process in Arrow 25
    return pa.Array.from_buffers(
        kind, len(gaps), [there, *map(pa.py_buffer, buffers)], int(gaps.sum()), 0, children
    )
