"""An example, in whatever form it comes: a few records that show what an estimator was fitted on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ConfigError, chosen_rows, finite, is_text, to_arrow
from mlinfer.hosts._feeding import Feed, is_plain_number

SHOWN = 4096
"""Records that the types of the columns are seen from, and that a compiled form must answer."""

ASKED = 32
"""Records that the estimator is asked for."""


@dataclass(frozen=True)
class Example:
    """A few records as a batch whose fields are all nullable.

    `native` gives a copy of them as the caller has them (None: the caller has them in a form that is not scikit-learn's);
    `frames` are the data frame libraries to try, in order; `dtypes` what pandas calls the types of the columns; `nones` the
    columns of texts in which the caller writes a missing value as None; `whole` all that was given, up to SHOWN records.
    """

    batch: pa.RecordBatch
    native: Callable[[], Any] | None
    frames: tuple[str, ...]
    dtypes: dict[str, str]
    nones: tuple[str, ...] = ()
    whole: pa.Table | None = None

    def __str__(self) -> str:
        """The columns, for messages."""
        fields = [f"{field.name}: {field.type}" for field in self.batch.schema]
        return ", ".join([*fields[:5], "..."] if len(fields) > 5 else fields)  # noqa: PLR2004 - five are shown

    def feeds(self) -> Iterator[Feed]:
        """The ways to hand it over, fastest first."""
        types = self.batch.schema.types
        if len(types) == 1 and pt.is_fixed_size_list(types[0]):
            yield Feed("tensor")
            yield Feed("copied tensor")
            return
        if len(types) == 1 and is_text(types[0]):
            yield Feed("texts")
        if all(map(is_plain_number, types)):
            yield Feed("array")
        gaps = tuple(
            field.name for field in self.batch.schema if is_text(field.type) and self._lacks_some(field.name)
        )
        ways = dict.fromkeys([self.nones, (), gaps])  # of writing a missing text
        for name in self.frames:
            if name == "pandas":
                yield from (Feed("pandas", self.dtypes, nones) for nones in ways)
            else:
                yield Feed("polars")
        yield from (Feed("objects", nones=nones) for nones in ways)

    def _lacks_some(self, name: str) -> bool:
        return bool(self.batch.column(name).null_count)


def example_of(data: Any, wanted: list[str] | None) -> Example:
    """The first records of the data; of a table only the columns `wanted`, in that order, if there are such.

    Raises ConfigError: these are not records, there are none, or a column has no value to see its type from.
    """
    data = _series(data)
    some = _first(data, SHOWN)
    table = to_arrow(some)
    if wanted and set(wanted) & set(table.schema.names):
        present = [name for name in wanted if name in table.schema.names]
        table = table.select(present)
        some = some[present] if hasattr(some, "columns") and hasattr(some, "iloc") else some
        some = some.select(present) if type(some).__module__.startswith("polars") else some
    if table.num_rows == 0 or table.num_columns == 0:
        msg = f"example: wanted at least one record, found {table.num_rows} records of {table.num_columns} columns"
        raise ConfigError(msg)
    rows = _rows(table)
    kind = type(some).__module__.partition(".")[0]
    dtypes = {str(name): str(dtype) for name, dtype in some.dtypes.items()} if kind == "pandas" else {}
    nones = _nones(some, kind, table.schema.names)
    return Example(_batch(table, rows), _native(some, kind, rows), _frames(kind), dtypes, nones, table)


def like(table: pa.Table, inputs: pa.Schema) -> pa.RecordBatch:
    """The records of a table as a batch of these fields, without those that the fields do not allow.

    Raises pyarrow's errors: they are of other types.
    """
    columns = [_plain(table[field.name].combine_chunks()).cast(field.type) for field in inputs]
    keep = np.ones(table.num_rows, bool)
    for column, field in zip(columns, inputs, strict=True):
        keep &= _allowed(column, field)
    return chosen_rows(pa.RecordBatch.from_arrays(columns, schema=inputs), keep)


def _allowed(column: pa.Array, field: pa.Field) -> np.ndarray:
    """Which values the field allows: those that are there or may be missing, and those that are finite or need not be."""
    if pt.is_fixed_size_list(field.type):
        there = np.asarray(column.is_valid())
        inner = _allowed(column.values, field.type.value_field.with_metadata(field.metadata))
        rows = np.asarray(inner.reshape(-1, field.type.list_size).all(axis=1))
        whole: np.ndarray = there & rows[column.offset : column.offset + len(column)]
        return whole
    lacks = np.asarray(column.is_null(nan_is_null=pt.is_floating(field.type)))
    allowed: np.ndarray = np.ones(len(column), bool) if field.nullable else np.logical_not(lacks)
    if pt.is_floating(field.type) and field.equals(finite(field), check_metadata=True):
        allowed = allowed & (lacks | np.isfinite(column.to_numpy(zero_copy_only=False).astype(float)))
    return allowed


def _series(data: Any) -> Any:
    """A column of pandas or polars is a list of texts or numbers."""
    if type(data).__module__.partition(".")[0] in {"pandas", "polars"} and not hasattr(data, "columns"):
        return data.to_numpy()
    return data


def _first(data: Any, count: int) -> Any:
    if hasattr(data, "iloc"):
        return data.iloc[:count]
    if isinstance(data, dict):
        return {name: values[:count] for name, values in data.items()}
    if isinstance(data, pa.Table | pa.RecordBatch):
        return data.slice(0, count)
    return data[:count] if isinstance(data, np.ndarray | list | tuple) or hasattr(data, "slice") else data


def _rows(table: pa.Table) -> list[int]:
    """The first records, and more so that each column that lacks a value somewhere is seen to lack one.

    A single record twice, so that an estimator that answers columns cannot be mistaken.
    """
    if table.num_rows == 1:
        return [0, 0]
    rows = list(range(min(table.num_rows, ASKED)))
    for column in table.columns:
        lacks = np.asarray(column.is_null(nan_is_null=pt.is_floating(column.type)))
        if lacks.any() and not lacks[rows].any():
            rows.append(int(lacks.argmax()))
    return rows


def _batch(table: pa.Table, rows: list[int]) -> pa.RecordBatch:
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if pt.is_null(field.type):
            msg = f"example: wanted a value in column {field.name!r} to see its type from, found none in {len(column):,} records"
            raise ConfigError(msg)
        columns.append(chosen_rows(_plain(column.combine_chunks()), rows))
    fields = [pa.field(name, column.type) for name, column in zip(table.schema.names, columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Without dictionaries, extensions and the less common layouts of strings."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if is_text(column.type) else column


def _native(some: Any, kind: str, rows: list[int]) -> Callable[[], Any] | None:
    if kind == "pandas":
        copy: Callable[[], Any] = some.iloc[rows].copy
        return copy
    if kind == "polars":
        return lambda: some[rows]
    if isinstance(some, np.ndarray):
        shaped = some.reshape(len(some), -1) if some.ndim > 1 or some.dtype.kind not in "OUS" else some
        return lambda: shaped[rows]
    if isinstance(some, list | tuple) and all(isinstance(value, str) for value in some):
        return lambda: [some[row] for row in rows]
    return None


def _nones(some: Any, kind: str, names: list[str]) -> tuple[str, ...]:
    """The columns in which a missing value is written as None; only objects of Python's can be."""
    if kind == "pandas":
        columns = [some.iloc[:, place] for place in range(len(names))]
    elif isinstance(some, np.ndarray) and some.dtype.kind == "O":
        columns = list(some.reshape(len(some), -1).T)
    else:
        return ()
    return tuple(
        name
        for name, column in zip(names, columns, strict=False)
        if str(column.dtype) == "object" and any(value is None for value in column)
    )


def _frames(kind: str) -> tuple[str, ...]:
    """The caller's own library; else the ones that are there already, pandas before polars."""
    if kind in {"pandas", "polars"}:
        return (kind,)
    return (
        ("pandas", "polars")
        if "polars" not in sys.modules or "pandas" in sys.modules
        else ("polars", "pandas")
    )
