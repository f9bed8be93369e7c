"""Delivers records the way an engine does, and looks at what arrived through the author's own eyes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import (
    Batch,
    DataDestination,
    Progress,
    RecordErrors,
    RecordIds,
    Resumes,
    Scope,
    Writer,
    chosen_rows,
)
from mlinfer.testing._copies import another
from mlinfer.testing._kit import Crashed, Skip, differences, expect, refuse

SCHEMA = pa.schema(
    [pa.field("id", pa.string(), nullable=False), ("number", pa.int64()), ("text", pa.string())]
)
SCOPE = Scope("testing", run="first")
SECOND = replace(SCOPE, run="second")
PARTITION = "a"

Factory = Callable[[Path], DataDestination]
ReadBack = Callable[[Any], Any]
Row = tuple[str, str, str]


@dataclass
class DestinationCase:
    """A destination under test: how to make one, and how to see what it holds."""

    factory: Factory
    read_back: ReadBack
    kills: int | None

    def make(self, folder: Path, name: str = "output") -> DataDestination:
        """A destination in a new folder."""
        place = folder / name
        place.mkdir()
        return self.factory(place)

    def found(self, destination: DataDestination) -> list[Row]:
        """The records of the main output, sorted."""
        return sorted(row_of(record) for record in self.records(destination))

    def records(self, destination: DataDestination) -> list[Mapping[str, Any]]:
        """The records of the main output as the author reads them."""
        there = self.read_back(destination)
        return there.to_pylist() if hasattr(there, "to_pylist") else list(there)

    def check(self, destination: DataDestination, wanted: Iterable[Row], what: str) -> None:
        """Raise AssertionError unless exactly these records are there."""
        compare(self.found(destination), list(wanted), what)


def row_of(record: Mapping[str, Any]) -> Row:
    """A record's columns as texts, which are the same wherever they were. Raises AssertionError: a column is missing."""
    missing = [name for name in SCHEMA.names if name not in record]
    advice = "store every column; read_back gives a dict for each record, or an Arrow table"
    expect(not missing, f"records with {SCHEMA.names}", f"no {', '.join(missing)} in {record}", advice)
    return str(record["id"]), str(record["number"]), str(record["text"])


def rows(start: int, stop: int, text: str = "text") -> list[Row]:
    """The records of these numbers."""
    return [(f"r{n:05d}", str(n), f"{text} {n}") for n in range(start, stop)]


def batch(start: int, stop: int, text: str = "text") -> Batch:
    """The same records as a batch of the partition `a`, which goes on at `stop`."""
    made = rows(start, stop, text)
    ids, numbers, texts = [row[0] for row in made], list(range(start, stop)), [row[2] for row in made]
    records = pa.RecordBatch.from_arrays([pa.array(ids), pa.array(numbers), pa.array(texts)], schema=SCHEMA)
    return Batch(records, PARTITION, stop, RecordIds.of(records.column(0)))


def progress(position: int, **more: Any) -> Progress:
    """Progress of the partition `a`."""
    return Progress({PARTITION: position, **more}, {}, "fingerprint")


def deliver(
    destination: DataDestination, start: int, stop: int, scope: Scope = SCOPE, *, text: str = "text"
) -> None:
    """Open, write, commit, close."""
    with destination.open(SCHEMA, scope) as writer:
        writer.write(batch(start, stop, text))
        writer.commit(progress(stop))


def dies_writing(
    destination: DataDestination, batches: Sequence[Batch], *, crash: bool, scope: Scope = SCOPE
) -> None:
    """Write without a commit, and end: in peace or by an error."""
    with suppress(Crashed), destination.open(SCHEMA, scope) as writer:
        for one in batches:
            writer.write(one)
        if crash:
            raise Crashed


def resumes(writer: Writer) -> Resumes:
    """The writer, which must tell what it has committed. Raises AssertionError: it cannot."""
    if not isinstance(writer, Resumes):
        refuse("a transactional writer with committed()", type(writer).__name__, "give it that method")
    return writer


def position(destination: DataDestination) -> int:
    """How far the stored progress says it came; opens a copy of the destination, as a restart does."""
    with another(destination).open(SCHEMA, SCOPE) as writer:
        found: int = resumes(writer).committed().positions.get(PARTITION, 0)
    return found


def transactional(destination: DataDestination) -> DataDestination:
    """The destination. Raises Skip: it does not claim to be transactional."""
    if not destination.transactional:
        msg = "the destination says transactional=False"
        raise Skip(msg)
    return destination


def write_what_fits(writer: Writer, one: Batch, stored: Progress) -> list[int]:
    """Write and commit a batch without the records that the destination refuses; the rows that it refused."""
    left = list(range(len(one)))
    while left:
        part = Batch(chosen_rows(one.records, left), one.partition, one.position, one.ids.take(left))
        try:
            writer.write(part)
            writer.commit(stored)
        except RecordErrors as errors:
            fits = len(set(errors.rows)) == len(errors.rows) > 0 and set(errors.rows) <= set(range(len(left)))
            expect(
                fits,
                f"RecordErrors with rows from 0 to {len(left) - 1}",
                errors.rows,
                "name rows that were handed over",
            )
            left = [row for place, row in enumerate(left) if place not in set(errors.rows)]
        else:
            break
    return [row for row in range(len(one)) if row not in left]


def compare(found: Sequence[Row], wanted: Sequence[Row], what: str) -> None:
    """Raise AssertionError unless both hold the same records, as often."""
    told = differences(found, wanted)
    expect(not told, f"{what}, {len(wanted)} in all", told, "see what a commit stores, and what comes first")


def everything_below(folder: Path) -> Iterator[str]:
    """The names of what is in a folder."""
    return (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
