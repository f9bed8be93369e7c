"""The checks for destinations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlinfer import (
    Progress,
    ReadsBack,
    Resumes,
)
from mlinfer.testing._copies import another
from mlinfer.testing._delivering import (
    PARTITION,
    SCHEMA,
    SCOPE,
    SECOND,
    DestinationCase,
    Factory,
    ReadBack,
    batch,
    compare,
    deliver,
    dies_writing,
    everything_below,
    progress,
    resumes,
    row_of,
    rows,
    transactional,
)
from mlinfer.testing._earned import SOURCES, Destination, failed, judged, planned
from mlinfer.testing._killing import check_killed
from mlinfer.testing._kit import Check, Crashed, Skip, expect, trials
from mlinfer.testing._odd_values import check_refused, check_types
from mlinfer.testing._overtaking import check_overtaken
from mlinfer.testing._owning import (
    check_anew,
    check_epoch,
    check_fresh,
    check_outputs,
    check_read_only,
    check_schema,
    check_strangers,
)
from mlinfer.testing._recipes import check_lets_go, check_passes_errors_on, check_recipe


def check_destination(
    factory: Factory,
    read_back: ReadBack,
    *,
    kills: int | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, Check]]:
    """Checks for a destination, as pairs of a name and a check. Some run in child processes that are killed.

    Args:
        factory: `factory(folder)` returns the destination; `folder` is new and empty. One that lives elsewhere makes a new
            place there, say a table called after the folder. A destination with a key has the column `id` for it.
        read_back: `read_back(destination)` gives the records of its main output, a dict each or an Arrow table, nothing
            where there is no output yet; through a second channel: the database's own client, the format's own reader.
        kills: how often it is killed at most, at lines spread over a run. None: at every line of its own package that a
            run passes (400 of them at most), and at 20 of those that these call of mlinfer. The guarantee says how many
            lines that were, and of how many.
        expected_failures: names of checks that fail, each with the reason; one that passes is an error.

    The columns are `id` (a text), `number` (an integer) and `text`; in the checks `types` one column of each Arrow type.

    Raises ConfigError: `expected_failures` names no check.
    """
    yield from trials(_CHECKS, DestinationCase(factory, read_back, kills), expected_failures, _sum_up)


def _recipe(case: DestinationCase, folder: Path) -> None:
    destination = case.make(folder)
    for power in ("transactional", "keyed", "holds_one_output", "concurrent"):
        claim = getattr(destination, power, None)
        expect(isinstance(claim, bool), f"{power} to be True or False", repr(claim), "say what it can do")
    check_recipe(destination)


def _commit(case: DestinationCase, folder: Path) -> None:
    destination = case.make(folder)
    with destination.open(SCHEMA, SCOPE) as writer:
        writer.write(batch(0, 3))
        writer.write(batch(3, 5))
        writer.commit(progress(5))
        case.check(destination, rows(0, 5), "what was committed, right after the commit")
        writer.write(batch(5, 6))
        writer.commit(progress(6))
    case.check(destination, rows(0, 6), "what was committed, after the end")
    deliver(another(destination), 6, 8)
    case.check(destination, rows(0, 8), "what two runs have committed")


def _nothing(case: DestinationCase, folder: Path) -> None:
    destination = case.make(folder)
    with destination.open(SCHEMA, SCOPE) as writer:
        writer.commit(progress(7))
        if destination.transactional:
            told = resumes(writer).committed().positions
            expect(
                told == {PARTITION: 7},
                "the progress of a commit without records",
                told,
                "store it all the same",
            )
    case.check(destination, [], "no records after a commit of none")


def _uncommitted(case: DestinationCase, folder: Path) -> None:
    large = [batch(10 * n, 10 * n + 10, "x" * 50_000) for n in range(1, 6)]  # more than most buffers hold
    for crash in (False, True):
        destination = transactional(case.make(folder, f"crash-{crash}"))
        deliver(destination, 0, 2)
        for more in ([batch(2, 4)], large):
            dies_writing(another(destination), more, crash=crash)
            with another(destination).open(SCHEMA, SCOPE):
                pass
            how = "dies" if crash else "ends"
            case.check(destination, rows(0, 2), f"only what was committed when a run {how} before its commit")


def _progress(case: DestinationCase, folder: Path) -> None:
    destination = transactional(case.make(folder))
    with destination.open(SCHEMA, SCOPE) as writer:
        first = resumes(writer).committed()
        expect(not first.positions, "no progress in a new place", first, "begin with Progress()")
        writer.commit(Progress({"a": 1, "b": {"row": [1, None]}}, {"a": b"\x00state", "c": b""}, "f"))
        writer.commit(Progress({"a": 2}, {"c": b"later"}, "f"))
        _check_progress(resumes(writer).committed(), "after two commits")
    with another(destination).open(SCHEMA, SECOND) as writer:
        again = resumes(writer).committed()
        _check_progress(again, "when it is opened again")
        expect(
            again.epoch > first.epoch,
            f"an epoch above {first.epoch} for the next run",
            again.epoch,
            "count runs",
        )


def _check_progress(found: Progress, when: str) -> None:
    wanted = ({"a": 2, "b": {"row": [1, None]}}, {"a": b"\x00state", "c": b"later"}, "f")
    told = (dict(found.positions), dict(found.states), found.fingerprint)
    advice = "merge each commit into what is stored: stored.merged(progress)"
    expect(told == wanted, f"the merged progress {wanted} {when}", told, advice)


def _redelivery(case: DestinationCase, folder: Path) -> None:
    destination = case.make(folder)
    if not destination.keyed:
        msg = "the destination says keyed=False"
        raise Skip(msg)
    deliver(destination, 0, 4)
    with another(destination).open(SCHEMA, SECOND) as writer:
        writer.write(batch(2, 5, "newer"))
        writer.write(batch(4, 5, "newest"))
        writer.commit(progress(5))
    wanted = [*rows(0, 2), *rows(2, 4, "newer"), *rows(4, 5, "newest")]
    case.check(destination, wanted, "one record for each id, the one that came last")


def _read_back(case: DestinationCase, folder: Path) -> None:
    destination = case.make(folder)
    if not isinstance(destination, ReadsBack):
        msg = "the destination has no records()"
        raise Skip(msg)
    before = sorted(everything_below(folder))
    nothing = [len(one) for one in destination.records(SCOPE) if len(one)]
    expect(not nothing, "no records where nothing was written", nothing, "give nothing")
    made = sorted(set(everything_below(folder)) - set(before))
    expect(not made, "that records() creates nothing", made, "look, and leave things as they are")
    deliver(destination, 0, 5)
    told = [row_of(record) for one in another(destination).records(SCOPE) for record in one.to_pylist()]
    compare(told, case.found(destination), "the same records from records() as from read_back")


def _concurrent(case: DestinationCase, folder: Path) -> None:
    destination = case.make(folder)
    if not destination.concurrent:
        msg = "the destination says concurrent=False"
        raise Skip(msg)
    with destination.open(SCHEMA, SCOPE) as first:
        epoch = first.committed().epoch if isinstance(first, Resumes) else None
        with destination.open(SCHEMA, replace(SCOPE, epoch=epoch)) as second:
            for writer, start in ((first, 0), (second, 10), (first, 3), (second, 13)):
                writer.write(batch(start, start + 3))
                name = "a" if writer is first else "b"
                writer.commit(Progress({name: start + 3}, {}, "fingerprint"))
    case.check(destination, [*rows(0, 6), *rows(10, 16)], "what two writers have committed in turns")
    if destination.transactional:
        with another(destination).open(SCHEMA, SECOND) as writer:
            told = dict(resumes(writer).committed().positions)
            expect(
                told == {"a": 6, "b": 16},
                "the progress of both writers",
                told,
                "merge all that was committed",
            )


def _closing(case: DestinationCase, folder: Path) -> None:
    destination = case.make(folder)
    check_lets_go("a session", lambda: deliver(destination, 0, 2))
    check_lets_go("a session that dies", lambda: dies_writing(destination, [batch(0, 2)], crash=True))
    check_passes_errors_on(lambda: destination.open(SCHEMA, SCOPE))
    with suppress(Crashed), destination.open(SCHEMA, SCOPE):
        raise Crashed


_CHECKS = {
    "recipe": _recipe,
    "commit": _commit,
    "nothing": _nothing,
    "uncommitted": _uncommitted,
    "progress": _progress,
    "killed": check_killed,
    "redelivery": _redelivery,
    "epoch": check_epoch,
    "overtaken": check_overtaken,
    "read_only": check_read_only,
    "strangers": check_strangers,
    "outputs": check_outputs,
    "schema": check_schema,
    "fresh": check_fresh,
    "anew": check_anew,
    "read_back": _read_back,
    "concurrent": _concurrent,
    "types": check_types,
    "refused": check_refused,
    "closing": _closing,
}
DURABLE = ("commit", "killed", "anew")
ATOMIC = ("nothing", "uncommitted", "progress", "epoch", "overtaken", "strangers", "outputs")


KEYED = ("redelivery", "strangers", "outputs")


def _sum_up(case: DestinationCase, failures: Mapping[str, AssertionError]) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = case.make(Path(folder))
    durable = not failed(failures, DURABLE)
    earned = Destination(
        transactional=made.transactional and durable and not failed(failures, ATOMIC),
        keyed=made.keyed and durable and not failed(failures, KEYED),
    )
    claimed = Destination(made.transactional, made.keyed)
    return judged(
        made,
        {where: planned(source, claimed) for where, source in SOURCES.items()},
        {where: planned(source, earned) for where, source in SOURCES.items()},
        failures,
    )
