"""The checks for destinations that are about whose output it is: runs, pipelines, outputs, schemas."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from mlinfer import Batch, ConfigError, DataDestination, FencedError, RecordIds, Resumes, Writer
from mlinfer.testing._copies import another
from mlinfer.testing._delivering import (
    PARTITION,
    SCHEMA,
    SCOPE,
    SECOND,
    DestinationCase,
    batch,
    compare,
    deliver,
    dies_writing,
    everything_below,
    position,
    progress,
    resumes,
    rows,
    transactional,
)
from mlinfer.testing._kit import expect, refuse


def check_epoch(case: DestinationCase, folder: Path) -> None:
    destination = transactional(case.make(folder))
    older = -1
    with ExitStack() as stack:
        first = stack.enter_context(destination.open(SCHEMA, SCOPE))
        older = resumes(first).committed().epoch
        try:
            deliver(another(destination), 0, 2, SECOND)
        except FencedError:
            pass  # it lets nobody in while a run holds it
        else:
            _check_fenced(first, "a run writes while a newer one has taken over")
            stack.pop_all()  # what it does at its end is its own business: it has been told to stop
    deliver(another(destination), 2, 4, SECOND)
    before = case.found(destination)
    with suppress(FencedError), another(destination).open(SCHEMA, replace(SCOPE, epoch=older)) as writer:
        _check_fenced(writer, f"a run reopens under its epoch {older}, and a newer one exists")
    compare(case.found(destination), before, "nothing of a run that was refused")


def _check_fenced(writer: Writer, when: str) -> None:
    try:
        writer.write(batch(50, 52))
        writer.commit(progress(52))
    except FencedError:
        return
    advice = "check the epoch inside the atomic step of commit()"
    refuse(f"FencedError when {when}", "a commit that worked", advice)


def check_read_only(case: DestinationCase, folder: Path) -> None:
    destination, looking = case.make(folder), replace(SCOPE, run="look", read_only=True)
    for _ in range(2):  # before there is anything, and after
        before, held = list(everything_below(folder)), case.found(destination)
        with another(destination).open(SCHEMA, looking):
            pass
        made = sorted(set(everything_below(folder)) - set(before))
        expect(not made, "that a read-only open creates nothing", made, "look at scope.read_only in open()")
        compare(case.found(destination), held, "the same records after a read-only open")
        with destination.open(SCHEMA, SCOPE) as writer:
            with suppress(FencedError), another(destination).open(SCHEMA, looking):
                pass  # `check` while a run is at work: it may find it busy, but must not fence it
            writer.write(batch(0, 2))
            writer.commit(progress(2))


def check_strangers(case: DestinationCase, folder: Path) -> None:
    """Another pipeline is refused, or writes beside what is there."""
    destination = case.make(folder)
    deliver(destination, 0, 2)
    other = replace(SCOPE, pipeline="other")
    with suppress(ConfigError), another(destination).open(SCHEMA, other) as writer:
        told = dict(writer.committed().positions) if isinstance(writer, Resumes) else {}
        expect(not told, "no progress for another pipeline", told, "store progress by (pipeline, output)")
        writer.write(batch(1, 3, "of others"))  # some of the ids are the same
        writer.commit(progress(8))
    left = [row for row in rows(0, 2) if row not in case.found(destination)]
    advice = "raise ConfigError for an output of others, or leave their records alone"
    expect(not left, "the records of another pipeline to stay", f"{len(left)} gone", advice)
    _check_position(destination, 2, "the progress of this pipeline, whatever another one stores")


def check_outputs(case: DestinationCase, folder: Path) -> None:
    """Two outputs of one pipeline are kept apart, or the second one is refused."""
    destination = case.make(folder)
    deliver(destination, 0, 2)
    with suppress(ConfigError), another(destination).open(SCHEMA, SCOPE.of("rejects")) as writer:
        told = dict(writer.committed().positions) if isinstance(writer, Resumes) else {}
        expect(not told, "no progress for another output", told, "store progress by (pipeline, output)")
        writer.write(batch(1, 3, "rejected"))
        writer.commit(progress(9))
    case.check(
        destination, rows(0, 2), "only answers in the main output, after rejects went to the same destination"
    )
    _check_position(destination, 2, "the progress of the main output, whatever another one stores")


def check_schema(case: DestinationCase, folder: Path) -> None:
    """Records of another schema are refused at the door, or arrive."""
    destination = case.make(folder)
    deliver(destination, 0, 2)
    other = pa.schema(
        [SCHEMA.field("id"), ("number", pa.string()), ("text", pa.string()), ("more", pa.float64())]
    )
    records = pa.record_batch(
        {"id": ["r00009"], "number": ["nine"], "text": ["t"], "more": [0.5]}, schema=other
    )
    try:
        with another(destination).open(other, SECOND) as writer:
            writer.write(Batch(records, PARTITION, 9, RecordIds.of(records.column(0))))
            writer.commit(progress(9))
    except ConfigError:
        case.check(destination, rows(0, 2), "what was there after other fields were refused")
        return
    found = [record for record in case.records(destination) if record["id"] == "r00009"]
    told = [(record.get("number"), record.get("more")) for record in found]
    advice = "raise ConfigError in open() when what is there has other fields"
    expect(told == [("nine", 0.5)], "ConfigError for another schema, or its records", told, advice)


def check_fresh(case: DestinationCase, folder: Path) -> None:
    destination = case.make(folder)
    deliver(destination, 0, 4)
    with another(destination).open(SCHEMA, replace(SECOND, fresh=True)) as writer:
        told = dict(writer.committed().positions) if isinstance(writer, Resumes) else {}
        expect(not told, "no progress when a pipeline begins anew", told, "look at scope.fresh in open()")
        writer.write(batch(2, 5, "anew"))
        writer.commit(progress(5))
    case.check(destination, rows(2, 5, "anew"), "only what was delivered since the pipeline began anew")
    _check_position(destination, 5, "the progress since the pipeline began anew")


def check_anew(case: DestinationCase, folder: Path) -> None:
    """A run that begins anew and comes to nothing has replaced nothing."""
    for crash in (False, True):
        destination = case.make(folder, f"crash-{crash}")
        deliver(destination, 0, 4)
        anew = replace(SECOND, fresh=True)
        dies_writing(another(destination), [batch(2, 5, "anew")], crash=crash, scope=anew)
        what = "when a run begins anew and ends before its first commit"
        case.check(destination, rows(0, 4), f"what was committed before, {what}")
        _check_position(destination, 4, f"the progress stored before, {what}")


def _check_position(destination: DataDestination, wanted: int, what: str) -> None:
    if destination.transactional:
        found = position(destination)
        expect(found == wanted, f"{what} ({wanted})", found, "store progress by (pipeline, output)")
