"""Reads a source the way an engine does, and remembers what came."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import Batch, ComponentError, DataSource, EndOfInput, Position, Reader, to_arrow
from mlinfer.testing._copies import another
from mlinfer.testing._kit import Crashed, expect

IDLE_SECONDS = 0.05
MOST_IDLE_READS = 50
"""A bounded source that has nothing for so long has lost its end; an unbounded one is asked fewer times."""
IDLE_READS = 3

Factory = Callable[[Path, pa.Table], DataSource]


@dataclass
class SourceCase:
    """A source under test: how to make one, and the records that it then holds."""

    factory: Factory
    records: pa.Table

    @classmethod
    def of(cls, factory: Factory, records: Any) -> SourceCase:
        """The case. Raises AssertionError: too few records, or two that cannot be told apart."""
        table = to_arrow(records)
        enough = 5
        expect(len(table) >= enough, f"at least {enough} records to read", len(table), "give a few more")
        rows = rows_of(table, table.schema)
        different = len(set(rows)) == len(rows)
        expect(different, "records that can be told apart", "two that are equal", "make each one different")
        return cls(factory, table)

    @property
    def wanted(self) -> pa.Schema:
        """The columns that are asked for."""
        return self.records.schema

    def rows(self) -> list[str]:
        """The records as texts, in order."""
        return rows_of(self.records, self.wanted)

    def make(self, folder: Path, name: str = "input", records: pa.Table | None = None) -> DataSource:
        """A source over records in a new folder."""
        place = folder / name
        place.mkdir()
        return self.factory(place, self.records if records is None else records)

    def sources(self, folder: Path) -> Iterator[DataSource]:
        """Sources that have everything still to give: copies of one that can seek, new ones otherwise."""
        first = self.make(folder)
        yield first
        number = 0
        while True:
            number += 1
            yield another(first) if first.resume == "seek" else self.make(folder, f"again{number}")


@dataclass
class Taken:
    """One batch that was read."""

    rows: list[str]
    ids: list[str] | None
    position: Position
    bad: int
    records: pa.RecordBatch = field(repr=False)


def taken(batch: Batch, wanted: pa.Schema) -> Taken:
    """What is in a batch."""
    return Taken(rows_of(batch.records, wanted), ids_of(batch), batch.position, len(batch.bad), batch.records)


def read_on(
    reader: Reader, wanted: pa.Schema, size: int, *, bounded: bool, most: int | None = None
) -> tuple[list[Taken], bool]:
    """Read to the end, or `most` batches; and whether the end was reached. Raises AssertionError: there is no end."""
    found: list[Taken] = []
    idle = 0
    while most is None or len(found) < most:
        try:
            batch = reader.read(size, IDLE_SECONDS)
        except EndOfInput:
            return found, True
        if batch is not None:
            idle = 0
            found.append(taken(batch, wanted))
            continue
        idle += 1
        if not bounded and idle >= IDLE_READS:
            return found, False
        advice = "raise EndOfInput at the end, or say bounded = False"
        expect(idle < MOST_IDLE_READS, "that a bounded source ends", f"{idle} reads without a record", advice)
    return found, False


def read(source: DataSource, wanted: pa.Schema, size: int = 1000) -> dict[str, list[Taken]]:
    """Everything, partition by partition."""
    return {name: read_partition(source, name, None, wanted, size=size) for name in source.partitions()}


def read_partition(
    source: DataSource,
    name: str,
    after: Position | None,
    wanted: pa.Schema,
    *,
    size: int,
    most: int | None = None,
) -> list[Taken]:
    """One partition from a position on; ended like a crash if `most` batches were asked for."""
    found: list[Taken] = []
    with suppress(Crashed), source.open(name, after, wanted) as reader:
        found, _ = read_on(reader, wanted, size, bounded=source.bounded, most=most)
        if most is not None:
            raise Crashed
    return found


def all_rows(found: Mapping[str, list[Taken]]) -> list[str]:
    """The records of all partitions, one after the other."""
    return [row for batches in found.values() for batch in batches for row in batch.rows]


def rows_of(records: pa.RecordBatch | pa.Table, wanted: pa.Schema) -> list[str]:
    """Each record as a text, its columns in the types that were wanted."""
    columns = {name: n for n, name in enumerate(records.schema.names)}
    missing = [name for name in wanted.names if name not in columns]
    advice = "give every column that `wanted` names"
    expect(not missing, f"the columns {wanted.names}", f"no {', '.join(missing)}", advice)
    values = [_cast(records.column(columns[one.name]), one).to_pylist() for one in wanted]
    return [repr(row) for row in zip(*values, strict=True)]


def _cast(column: Any, wanted: pa.Field) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.cast(wanted.type)
    except pa.ArrowException as error:
        text = f"wanted the column {wanted.name!r} as {wanted.type} or what casts to it, found {column.type}: {error}"
        raise AssertionError(text) from error


def ids_of(batch: Batch) -> list[str] | None:
    """The ids of a batch; None if its source gives none."""
    try:
        ids: list[str] = batch.ids.array().to_pylist()
    except ComponentError:  # how a batch without ids answers
        return None
    return ids


def through_json(position: Position) -> Position:
    """A position as a store gives it back. Raises AssertionError: it is not a JSON value."""
    try:
        text = json.dumps(position, allow_nan=False)
    except (TypeError, ValueError) as error:
        text = f"wanted a position that is a JSON value, found {position!r} ({error}); use numbers, texts, lists and dicts"
        raise AssertionError(text) from error
    return json.loads(text)
