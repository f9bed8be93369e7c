"""The checks for sources."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import Counts, Drains, EndOfInput
from mlinfer.testing._copies import another
from mlinfer.testing._earned import DESTINATIONS, Destination, Source, failed, judged, planned
from mlinfer.testing._kit import Check, Skip, expect, refuse, trials
from mlinfer.testing._reading import (
    Factory,
    SourceCase,
    all_rows,
    read,
    read_on,
    read_partition,
    rows_of,
    taken,
)
from mlinfer.testing._recipes import check_lets_go, check_passes_errors_on, check_recipe
from mlinfer.testing._resuming import (
    SIZES,
    check_ids,
    check_positions,
    check_redelivery,
    check_resume,
    compare,
    in_one,
)

PATIENCE_SECONDS = 10
"""Far beyond any timeout that is asked for here: nothing is timed, only what hangs is noticed."""


def check_source(
    factory: Factory, records: Any, *, expected_failures: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Check]]:
    """Checks for a source, as pairs of a name and a check.

    Args:
        factory: `factory(folder, records)` puts records (an Arrow table of n >= 0 rows, with the columns of `records`)
            where the source finds them, by other means than mlinfer's, and returns the source. `folder` is new and empty.
        records: at least five, all different: a table, data frame, dict of columns or list of dicts. Their types are asked
            for.
        expected_failures: names of checks that fail, each with the reason; one that passes is an error.

    Raises:
        AssertionError: the records do not serve. ConfigError: `expected_failures` names no check.
    """
    yield from trials(_CHECKS, SourceCase.of(factory, records), expected_failures, _sum_up)


def _recipe(case: SourceCase, folder: Path) -> None:
    source = case.make(folder)
    resumes = ("seek", "acknowledge", "none")
    expect(
        source.resume in resumes,
        f"resume to be one of {resumes}",
        repr(source.resume),
        "say what a restart can do",
    )
    expect(
        isinstance(source.bounded, bool),
        "bounded to be True or False",
        repr(source.bounded),
        "say whether it ends",
    )
    check_recipe(source)


def _everything(case: SourceCase, folder: Path) -> None:
    found = read(case.make(folder), case.wanted)
    bad = sum(batch.bad for batches in found.values() for batch in batches)
    expect(
        not bad,
        "that all records can be decoded",
        f"{bad} bad ones",
        "mend the decoding, or the records of the test",
    )
    compare(all_rows(found), case.rows(), "every record that was put there, once")


def _order(case: SourceCase, folder: Path) -> None:
    place = {row: n for n, row in enumerate(case.rows())}
    for size, source in zip(SIZES, case.sources(folder), strict=False):
        for name, batches in read(source, case.wanted, size).items():
            places = [place[row] for batch in batches for row in batch.rows if row in place]
            wanted = f"the records of partition {name!r} in order"
            expect(
                places == sorted(places),
                wanted,
                f"the order {places}",
                "read in the order in which they were put there",
            )


def _empty(case: SourceCase, folder: Path) -> None:
    source = case.make(folder, records=case.records.slice(0, 0))
    found = all_rows(read(source, case.wanted))
    expect(
        not found,
        "no record of an input that holds none",
        found[:3],
        "let read() raise EndOfInput (or return None)",
    )


def _schema(case: SourceCase, folder: Path) -> None:
    source = case.make(folder)
    check_lets_go("schema()", source.schema)
    known = source.schema()
    if known is None:
        msg = "schema() returns None: the source knows its columns only when it reads them"
        raise Skip(msg)
    missing = [name for name in case.wanted.names if name not in known.names]
    expect(
        not missing,
        f"schema() to name {case.wanted.names}",
        f"no {', '.join(missing)}",
        "name every column there is",
    )
    for batches in read(source, known).values():  # comparing them casts each column to the type that was told
        for column, field in (
            (batch.records.column(field.name), field) for batch in batches for field in known
        ):
            told = field.nullable or not column.null_count
            expect(
                told, f"no null in {field.name!r}, for schema() says so", "nulls", "make the field nullable"
            )


def _projection(case: SourceCase, folder: Path) -> None:
    sources = case.sources(folder)
    whole = read(next(sources), case.wanted)
    for field, source in zip(case.wanted, sources, strict=False):
        alone = pa.schema([field])
        wanted = [
            row for batches in whole.values() for batch in batches for row in rows_of(batch.records, alone)
        ]
        compare(all_rows(read(source, alone)), wanted, f"the same values when only {field.name!r} is wanted")


def _max_records(case: SourceCase, folder: Path) -> None:
    for size, source in zip(SIZES, case.sources(folder), strict=False):
        for batches in read(source, case.wanted, size).values():
            largest = max((len(batch.rows) for batch in batches), default=0)
            advice = "keep the rest for the next read"
            expect(largest <= size, f"at most {size} records, as read(max_records) was told", largest, advice)


def _partitions(case: SourceCase, folder: Path) -> None:
    source = case.make(folder)
    names = list(source.partitions())
    expect(all(isinstance(name, str) for name in names), "names of partitions as texts", names, "use texts")
    expect(len(set(names)) == len(names), "a name of its own for each partition", names, "tell them apart")
    again = list(another(source).partitions())
    expect(
        again == names,
        f"the same partitions each time, {names}",
        again,
        "name a part of the input after what it is",
    )
    check_lets_go("partitions()", source.partitions)


def _end(case: SourceCase, folder: Path) -> None:
    source = case.make(folder)
    for name in source.partitions():
        with source.open(name, None, case.wanted) as reader:
            _, ended = read_on(reader, case.wanted, 1000, bounded=source.bounded)
            if not ended and isinstance(reader, Drains):
                reader.drain()
                _, ended = read_on(reader, case.wanted, 1000, bounded=True)
            expect(ended or not source.bounded, "EndOfInput at the end", "none", "raise EndOfInput")
            if ended:
                _check_ended(case, reader)


def _check_ended(case: SourceCase, reader: Any) -> None:
    try:
        batch = reader.read(2, 0)
    except EndOfInput:
        return
    found = "None" if batch is None else taken(batch, case.wanted).rows
    refuse("EndOfInput again when a finished reader is asked again", found, "raise it each time")


def _idle(case: SourceCase, folder: Path) -> None:
    source = case.make(folder)
    if source.bounded:
        msg = "the source is bounded: it ends where it has nothing more"
        raise Skip(msg)
    for name in source.partitions():
        with source.open(name, None, case.wanted) as reader:
            read_on(reader, case.wanted, 1000, bounded=False)
            for timeout in (0, 0.05):
                begun = time.monotonic()
                try:
                    batch = reader.read(10, timeout)
                except EndOfInput:  # a followed folder has files that end
                    break
                expect(
                    batch is None, "None when there is nothing new", batch, "return None, not an old record"
                )
                late = time.monotonic() - begun > PATIENCE_SECONDS
                expect(
                    not late,
                    f"an answer within the timeout of {timeout} s",
                    "a wait far longer",
                    "heed the timeout",
                )


def _remaining(case: SourceCase, folder: Path) -> None:
    source = case.make(folder)
    if not isinstance(source, Counts):
        msg = "the source has no remaining()"
        raise Skip(msg)
    for name in source.partitions():
        batches = read_partition(source, name, None, case.wanted, size=2)
        left = len(in_one(batches))
        for after, rows in [(None, 0), *((batch.position, len(batch.rows)) for batch in batches)]:
            left -= rows
            told = source.remaining(name, after)
            expect(
                told in {None, left},
                f"remaining() to count {left} behind {after!r}",
                told,
                "count, or return None",
            )


def _closing(case: SourceCase, folder: Path) -> None:
    source = case.make(folder)
    name = next(iter(source.partitions()), None)
    if name is None:
        msg = "the source has no partition"
        raise Skip(msg)
    check_lets_go("a session", lambda: read_partition(source, name, None, case.wanted, size=2))
    check_lets_go(
        "a session that dies", lambda: read_partition(source, name, None, case.wanted, size=2, most=1)
    )
    check_passes_errors_on(lambda: source.open(name, None, case.wanted))


_CHECKS = {
    "recipe": _recipe,
    "everything": _everything,
    "order": _order,
    "empty": _empty,
    "schema": _schema,
    "projection": _projection,
    "max_records": _max_records,
    "partitions": _partitions,
    "positions": check_positions,
    "resume": check_resume,
    "redelivery": check_redelivery,
    "ids": check_ids,
    "end": _end,
    "idle": _idle,
    "remaining": _remaining,
    "closing": _closing,
}


def _sum_up(case: SourceCase, failures: Mapping[str, AssertionError]) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source = case.make(Path(folder))
    power = source.resume
    lost = failed(
        failures, ("everything", "empty", "order", "partitions", "positions", "resume", "redelivery")
    )
    earned, named = Source("none" if lost else power), not failed(failures, ("ids",))
    claims = {where: planned(Source(power), to) for where, to in DESTINATIONS.items()}
    proven = {
        where: planned(earned, Destination(to.transactional, to.keyed and named))
        for where, to in DESTINATIONS.items()
    }
    return judged(source, claims, proven, failures)
