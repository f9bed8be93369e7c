"""The columns that a model computes with, each made of one field of a record; and how they are made of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import RecordErrors, as_column, as_numpy
from mlinfer.hosts._feeding import Feed, feeder, is_plain_number

Op = tuple[Any, ...]
"""What is done to numbers, in scikit-learn's own order: ("fill", value), ("sub", x), ("div", x), ("mul", x), ("add", x),
("clip", low, high), ("isnan",)."""


@dataclass(frozen=True)
class Number:
    """A number of the record (`place`: its field, or its element of the tensor) and what is done to it."""

    place: int
    ops: tuple[Op, ...] = ()

    def then(self, *ops: Op) -> Number:
        """The same column with more done to it."""
        return Number(self.place, (*self.ops, *ops))


@dataclass(frozen=True)
class Lookup:
    """A field looked up among `categories`; one that is not there makes its record bad if it `refuses`."""

    place: int
    categories: tuple[Any, ...]
    refuses: bool


@dataclass(frozen=True)
class Choice:
    """A number for each category of a lookup, then one for no value, then one for any other value."""

    lookup: Lookup
    values: tuple[float, ...]

    def then(self, *ops: Op) -> Choice:
        """The same done to all its numbers."""
        return Choice(self.lookup, tuple(applied(np.array(self.values), ops).tolist()))


Column = Number | Choice


@dataclass(frozen=True)
class Table:
    """A batch as its numbers, (n, fields), and the codes of its looked-up fields, (n,) each."""

    numbers: np.ndarray
    codes: dict[Lookup, np.ndarray] = field(default_factory=dict)

    def column(self, column: Column) -> np.ndarray:
        """The values of a column, float64, shape (n,)."""
        if isinstance(column, Choice):
            values: np.ndarray = np.array(column.values)[self.codes[column.lookup]]
            return values
        return applied(self.numbers[:, column.place].astype(np.float64, copy=False), column.ops)

    def matrix(self, columns: Sequence[Column], *, narrow: bool, plain: bool) -> np.ndarray:
        """The values of several columns, (n, columns), float64 or float32; `plain`: what `are_plain` says of them.

        Raises RecordErrors: a number is too large for float32.
        """
        if plain and self.numbers.shape[1] == len(columns):
            values = self.numbers
        else:
            values = np.empty((len(self.numbers), len(columns)), order="F")
            for place, column in enumerate(columns):
                values[:, place] = self.column(column)
        return narrowed(values) if narrow else values.astype(np.float64, copy=False)


def are_plain(columns: Sequence[Column]) -> bool:
    """Whether these are the first fields, in order and as they are."""
    return list(columns) == [Number(place) for place in range(len(columns))]


def narrowed(values: np.ndarray) -> np.ndarray:
    """The values as float32, as scikit-learn's trees take them. Raises RecordErrors: one becomes infinite."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
        usual = np.isfinite(found.sum())
    if not usual and (rows := np.flatnonzero(np.isinf(found).any(axis=1))).size:
        message = "wanted numbers that fit into float32, found a larger one"
        raise RecordErrors(rows.tolist(), "too_large", message)
    return found


def applied(values: np.ndarray, ops: Sequence[Op]) -> np.ndarray:
    """What is left after all of it; `values` stay as they are."""
    for name, *given in ops:
        if name == "fill":
            values = np.where(np.isnan(values), given[0], values)
        elif name == "isnan":
            values = np.isnan(values).astype(np.float64)
        elif name == "clip":
            values = np.clip(values, *given)
        else:
            values = ARITHMETIC[name](values, given[0])
    return values


ARITHMETIC: dict[str, Any] = {"sub": np.subtract, "div": np.divide, "mul": np.multiply, "add": np.add}


def table_of(
    inputs: pa.Schema, lookups: Sequence[Lookup], numbers: Sequence[int]
) -> Callable[[pa.RecordBatch], Table]:
    """The function that turns batches of this schema into tables. Numbers keep their places among the fields.

    `numbers` are the places of the fields that are computed with; a field may be looked up and be a number, too.
    """
    if len(inputs) == 1 and pt.is_fixed_size_list(inputs.types[0]):
        take = feeder(Feed("tensor"), inputs)
        return lambda records: Table(take(records))
    if not lookups and all(map(is_plain_number, inputs.types)):
        matrix = feeder(Feed("array"), inputs)  # all of it is made faster than some of it
        return lambda records: Table(matrix(records))
    numeric = sorted(set(numbers))
    matrix = feeder(Feed("array"), pa.schema([inputs.field(place) for place in numeric]))
    sets = {lookup: as_column(list(lookup.categories), inputs.field(lookup.place)) for lookup in lookups}

    def table(records: pa.RecordBatch) -> Table:
        found = np.full((records.num_rows, len(inputs)), np.nan, order="F")
        if numeric:
            found[:, numeric] = matrix(records.select(numeric))
        codes = {
            lookup: _codes(records.column(lookup.place), known, lookup) for lookup, known in sets.items()
        }
        return Table(found, codes)

    return table


def _codes(column: pa.Array, known: pa.Array, lookup: Lookup) -> np.ndarray:
    """Where each value stands among the known; behind them: no value, and any other value."""
    import pyarrow.compute as pc

    absent, other = len(known), len(known) + 1
    places = pc.index_in(column, known)
    if places.null_count:  # a bare number would let Arrow import pandas
        places = pc.fill_null(
            places, as_column(np.array([other], np.int32), pa.field("place", pa.int32()))[0]
        )
    codes = as_numpy(places)
    if column.null_count:
        codes = np.where(as_numpy(column.is_null()), absent, codes)
    if lookup.refuses and (rows := np.flatnonzero(codes == other)).size:
        shown = ", ".join(repr(value) for value in lookup.categories[:5])
        found = [repr(column[int(row)].as_py())[:100] for row in rows]
        raise RecordErrors(
            rows.tolist(),
            "unknown_category",
            [
                f"wanted one of the categories that the model was fitted on ({shown}, ...), found {one}"
                for one in found
            ],
        )
    return codes


def column_to_json(column: Column, lookups: Sequence[Lookup]) -> list[Any]:
    """As `column_from_json` reads it."""
    if isinstance(column, Number):
        return ["number", column.place, [list(op) for op in column.ops]]
    values = [None if math.isnan(value) else value for value in column.values]  # JSON has no NaN
    return ["choice", lookups.index(column.lookup), values]


def column_from_json(value: Sequence[Any], lookups: Sequence[Lookup]) -> Column:
    """The column that a package names. Raises KeyError, TypeError, ValueError or IndexError: it names none."""
    kind, place, rest = value
    if kind == "number":
        return Number(int(place), tuple((str(name), *map(float, given)) for name, *given in rest))
    return Choice(lookups[place], tuple(math.nan if value is None else float(value) for value in rest))
