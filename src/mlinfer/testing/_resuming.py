"""The checks for sources that are about beginning again: positions, resuming, redelivery, ids."""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path

from mlinfer import Acknowledges, DataSource
from mlinfer.testing._copies import another
from mlinfer.testing._kit import Crashed, Skip, differences, expect, refuse
from mlinfer.testing._reading import SourceCase, Taken, read, read_on, read_partition, through_json

SIZES = (1, 3, 1000)


def check_positions(case: SourceCase, folder: Path) -> None:
    source = case.make(folder)
    for batches in read(source, case.wanted, 2).values():
        for batch in batches:
            through_json(batch.position)
            given = batch.position is not None or source.resume != "seek"
            expect(
                given,
                "a position with every batch of a source that can seek",
                "None",
                "say where to go on behind it",
            )


def check_resume(case: SourceCase, folder: Path) -> None:
    source = _seeking(case, folder)
    for name in source.partitions():
        for size in SIZES:
            whole = read_partition(source, name, None, case.wanted, size=size)
            for done in range(len(whole)):
                _check_rest(case, source, name, whole, done=done)
        _check_chain(case, source, name)


def _check_rest(case: SourceCase, source: DataSource, name: str, whole: list[Taken], *, done: int) -> None:
    after = whole[done].position
    rest = read_partition(another(source), name, through_json(after), case.wanted, size=2)
    wanted = [row for batch in whole[done + 1 :] for row in batch.rows]
    compare(in_one(rest), wanted, f"exactly the records behind position {after!r} of partition {name!r}")


def _check_chain(case: SourceCase, source: DataSource, name: str) -> None:
    """A crash after every single read: each time the last position is where it goes on."""
    wanted = in_one(read_partition(source, name, None, case.wanted, size=1000))
    found: list[str] = []
    after = None
    for _ in range(2 * len(wanted) + 2):
        batches = read_partition(another(source), name, after, case.wanted, size=2, most=1)
        if not batches:
            break
        found += batches[0].rows
        after = through_json(batches[0].position)
    compare(found, wanted, f"each record of partition {name!r} once, with a crash after every read")


def check_redelivery(case: SourceCase, folder: Path) -> None:
    """For queues: what was not acknowledged comes again."""
    if case.make(folder).resume != "acknowledge":
        msg = f"the source says resume={case.make(folder, 'asked').resume!r}, so nothing is acknowledged"
        raise Skip(msg)
    for reads, acknowledged in itertools.product((1, 2, 1000), (0, 1)):
        _check_one_redelivery(case, case.make(folder, f"{reads}-{acknowledged}"), reads, acknowledged)
    _check_forgotten(case, case.make(folder, "forgotten"))


def _check_one_redelivery(case: SourceCase, source: DataSource, reads: int, acknowledged: int) -> None:
    for name in source.partitions():
        before: list[Taken] = []
        with suppress(Crashed), source.open(name, None, case.wanted) as reader:
            if not isinstance(reader, Acknowledges):
                refuse("a reader with acknowledge(position)", type(reader).__name__, "give it that method")
            before, _ = read_on(reader, case.wanted, 2, bounded=source.bounded, most=reads)
            if before and acknowledged:
                reader.acknowledge(before[0].position)
            raise Crashed
        again = set(in_one(read_partition(another(source), name, None, case.wanted, size=2)))
        lost = [row for batch in before[acknowledged:] for row in batch.rows if row not in again]
        what = f"all that was read and not acknowledged (read {len(before)} batches, acknowledged {acknowledged})"
        expect(
            not lost,
            what,
            f"that {len(lost)} records are gone, {lost[0] if lost else ''}",
            "forget nothing before acknowledge()",
        )


def _check_forgotten(case: SourceCase, source: DataSource) -> None:
    """What was acknowledged, by the last position alone, is done with: else every run begins with all that ever came."""
    for name in source.partitions():
        with source.open(name, None, case.wanted) as reader:
            before, _ = read_on(reader, case.wanted, 2, bounded=source.bounded)
            if before and isinstance(reader, Acknowledges):
                reader.acknowledge(before[-1].position)
        again = in_one(read_partition(another(source), name, None, case.wanted, size=2))
        expect(
            not again,
            f"nothing more of {len(in_one(before))} records once the last position was acknowledged",
            f"that {len(again)} come again, {again[0] if again else ''}",
            "acknowledge(position) is for all up to there: take them out of the queue",
        )


def check_ids(case: SourceCase, folder: Path) -> None:
    first: dict[str, str] = {}
    for size, source in zip(SIZES, case.sources(folder), strict=False):
        for name, batches in read(source, case.wanted, size).items():
            _check_same_ids(batches, first, f"read by {size}")
            if source.resume == "seek" and batches:
                rest = read_partition(source, name, through_json(batches[0].position), case.wanted, size=2)
                _check_same_ids(rest, first, "read again behind the first position")
    if not first:
        msg = "the batches carry no ids; rejects and destinations with a key need them"
        raise Skip(msg)
    twice = len(first) - len(set(first.values()))
    expect(
        not twice,
        "an id of its own for each record",
        f"{twice} that others have, too",
        "name partition and place",
    )


def _check_same_ids(batches: list[Taken], first: dict[str, str], when: str) -> None:
    for batch in (batch for batch in batches if batch.ids is not None):
        count = len(batch.ids or ())
        expect(
            count == len(batch.rows),
            "one id for each record",
            f"{count} for {len(batch.rows)}",
            "count again",
        )
        for row, name in zip(batch.rows, batch.ids or (), strict=True):
            before = first.setdefault(row, name)
            advice = "make the id from what the record is or where it lies, never from the batch it came in"
            expect(
                before == name, f"the id {before!r} of a record whenever it comes", f"{name!r} {when}", advice
            )


def _seeking(case: SourceCase, folder: Path) -> DataSource:
    source = case.make(folder)
    if source.resume != "seek":
        msg = f"the source says resume={source.resume!r}"
        raise Skip(msg)
    return source


def in_one(batches: list[Taken]) -> list[str]:
    return [row for batch in batches for row in batch.rows]


def compare(found: list[str], wanted: list[str], what: str) -> None:
    if found == wanted:
        return
    if sorted(found) == sorted(wanted):
        first = next(n for n, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other)
        advice = "a partition has one order, wherever reading begins"
        refuse(
            f"{what}, in the order in which they came at first", f"another one from number {first} on", advice
        )
    advice = "look at where reading begins, goes on and ends"
    refuse(f"{what}, {len(wanted)} in all", differences(found, wanted), advice)
