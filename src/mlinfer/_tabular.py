"""Data in hand, whatever it is called elsewhere, as an Arrow table."""

from __future__ import annotations

import sys
from collections.abc import Collection
from decimal import Decimal
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import flattened, from_numpy, is_masked, native
from mlinfer._errors import ConfigError
from mlinfer._text import shown

UNNAMED = "x"
"""What the only column is called where data come without names: a numpy array, a list of strings."""


def to_arrow(data: Any) -> pa.Table:
    """Data in hand as an Arrow table.

    Takes Arrow tables and batches, pandas, polars and all that speak the Arrow PyCapsule interface, numpy arrays, dicts
    of columns, lists of strings or numbers.
    A numpy matrix (n, k) becomes one column of n fixed-size lists, without a copy where its rows are contiguous.
    Raises ConfigError for anything else. Lists of dicts are rows: see `batch_from_rows`.
    """
    if isinstance(data, pa.Table):
        return _without_views(data)
    if isinstance(data, pa.RecordBatch):
        return _without_views(pa.Table.from_batches([data]))
    pandas = _pandas()
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _from_pandas(data)
    if pandas is not None and isinstance(data, pandas.Series):  # which speaks the interface from pandas 3 on
        raise _single(data)
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return _without_views(_from_capsule(data))
    if isinstance(data, np.ndarray):
        return pa.table({UNNAMED: column_of(data)})
    if isinstance(data, dict):
        return _from_columns(data)
    if is_rows(data):
        return _from_rows(data)
    if isinstance(data, list | tuple):
        return pa.table({UNNAMED: inferred(list(data), UNNAMED)})
    what = f"the class {data.__name__}" if isinstance(data, type) else type(data).__name__
    msg = f"wanted records (an Arrow table, pandas, polars, numpy, a dict of columns, a list of dicts or of strings), found {what}"
    raise ConfigError(msg)


def is_matrix(data: Any) -> bool:
    """Whether this is a numpy array of two dimensions, with a value in every place."""
    return isinstance(data, np.ndarray) and data.ndim == 2 and not is_masked(data)  # noqa: PLR2004 - a matrix


def narrowed(data: Any, needed: Collection[str], more: Collection[str]) -> Any:
    """A data frame of pandas or a dict with the columns that somebody asks for: no other needs to fit into Arrow.

    `more` may be absent. Where one of `needed` is, the data stay as they are, so that whoever misses it can tell what is there.
    """
    if isinstance(data, dict):
        if len(data) == len(needed) or any(name not in data for name in needed):
            return data
        return {name: values for name, values in data.items() if name in needed or name in more}
    pandas = _pandas()
    if pandas is None or not isinstance(data, pandas.DataFrame) or any(name not in data for name in needed):
        return data
    asked = [name in needed or name in more for name in data.columns]
    return data if all(asked) or not any(asked) else data.loc[:, asked]


def is_rows(data: Any) -> bool:
    """Whether this is a list of records by name; what among them is not a dict is a bad record."""
    return isinstance(data, list | tuple) and any(isinstance(row, dict) for row in data)


def column_of(values: np.ndarray) -> pa.Array:
    """A numpy array as a column: one dimension as values, more as fixed-size lists of all that follow the first."""
    values = native(values)
    if values.dtype == object or values.dtype.kind in "US":
        return inferred(values.tolist(), UNNAMED)
    try:
        if values.ndim <= 1:
            return from_numpy(np.atleast_1d(values))
        inner, size = flattened(values)
    except pa.ArrowException as error:
        msg = f"wanted an array of numbers, booleans, texts or times in s, ms, us or ns, found one of {values.dtype}"
        raise ConfigError(msg) from error
    if not size:  # Arrow ends the process over lists of no length
        msg = f"wanted an array with a value or more in each record, found one of the shape {values.shape}; take columns into it"
        raise ConfigError(msg)
    kind = _vectors(inner.type, size, bool(inner.null_count))
    return pa.FixedSizeListArray.from_arrays(inner, type=kind)


@lru_cache(64)
def _vectors(kind: pa.DataType, size: int, gaps: bool) -> pa.DataType:  # noqa: FBT001 - remembered by its arguments
    return pa.list_(pa.field("item", kind, nullable=gaps), size)


def _from_capsule(data: Any) -> pa.Table:
    try:
        return pa.table(data)
    except pa.ArrowException as error:
        raise _single(data) from error


def _single(data: Any) -> ConfigError:
    return ConfigError(
        f"wanted columns by name, found a single {type(data).__name__}; write {{'name': ...}} around it"
    )


def _without_views(table: pa.Table) -> pa.Table:
    """Views, which polars gives, as plain texts and bytes: Arrow has functions for these, also for whoever calls it next."""
    kinds = [_without_view(kind) for kind in table.schema.types]
    if kinds == table.schema.types:
        return table
    return table.cast(
        pa.schema([field.with_type(kind) for field, kind in zip(table.schema, kinds, strict=True)])
    )


def _without_view(kind: pa.DataType) -> pa.DataType:
    """The type with plain texts and bytes in the place of views."""
    if pt.is_string_view(kind):
        return pa.large_string()
    if pt.is_binary_view(kind):
        return pa.large_binary()
    if pt.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _without_view(kind.value_type), kind.ordered)
    if pt.is_struct(kind):
        return pa.struct([_inner(field) for field in kind])
    if pt.is_map(kind):
        return pa.map_(_inner(kind.key_field), _inner(kind.item_field), kind.keys_sorted)
    if pt.is_fixed_size_list(kind):
        return pa.list_(_inner(kind.value_field), kind.list_size)
    if pt.is_large_list(kind):
        return pa.large_list(_inner(kind.value_field))
    return pa.list_(_inner(kind.value_field)) if pt.is_list(kind) else kind


def _inner(field: pa.Field) -> pa.Field:
    return field.with_type(_without_view(field.type))


def _pandas() -> Any:
    """The module, if it is imported already; whoever is just importing it is waited for, as half of it has no DataFrame."""
    return None if sys.modules.get("pandas") is None else import_module("pandas")


def _from_pandas(data: Any) -> pa.Table:
    if not data.columns.is_unique:
        twice = sorted({str(name) for name in data.columns[data.columns.duplicated()]})
        msg = f"wanted a name of its own for each column of the data frame, found several called {', '.join(twice)}; rename or drop them"
        raise ConfigError(msg)
    try:
        return pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata(None)
    except pa.ArrowException as error:
        msg = f"the data frame has a column that is not of one type: {str(error).splitlines()[0]}"
        raise ConfigError(msg) from error


def _from_columns(data: dict[str, Any]) -> pa.Table:
    arrays = {
        name: column_of(values) if isinstance(values, np.ndarray) else _as_column(values, name)
        for name, values in data.items()
    }
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        msg = f"wanted columns of one length, found {lengths}"
        raise ConfigError(msg)
    return pa.table(arrays)


def _as_column(values: Any, name: str) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _without_views(pa.table({name: values})).column(0)
    if hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__"):
        try:
            found = pa.chunked_array(values)
        except pa.ArrowException as error:  # a series of pandas may hold anything
            raise ConfigError(_mixture(name, error)) from error
        return _without_views(pa.table({name: found})).column(0)
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        msg = f"column {name!r}: wanted a list of values, one per record, found {shown(values)}; write [{shown(values)}]"
        raise ConfigError(msg)
    return inferred(list(values), name)


def _from_rows(rows: Any) -> pa.Table:
    rows = [row for row in rows if isinstance(row, dict)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: inferred([row.get(name) for row in rows], name) for name in names})


def inferred(values: list[Any], name: str) -> pa.Array:
    """Python values as a column of the type they have. Raises ConfigError: they are of several."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        if all(value is None or type(value) is int for value in values):  # of more than 64 bits
            return inferred([None if value is None else Decimal(value) for value in values], name)
        raise ConfigError(_mixture(name, error)) from error


def _mixture(name: str, error: Exception) -> str:
    return f"column {name!r}: wanted values of one type, found a mixture; {str(error).splitlines()[0]}"
