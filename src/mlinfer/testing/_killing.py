"""The check that kills a destination: what was promised is there, nothing is torn, and a restart makes it whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlinfer import DataDestination
from mlinfer.testing._copies import another
from mlinfer.testing._delivering import SCHEMA, SECOND, DestinationCase, compare, deliver, position, rows
from mlinfer.testing._kills import COMMITS, Killed, kill_at_every_step
from mlinfer.testing._kit import expect

LAST = COMMITS[-1][1]
OLD = 7
"""So many records are there when a run begins anew: a number that its own progress never is."""


def check_killed(case: DestinationCase, folder: Path) -> str:
    """Killed at one line after the other: what was promised is there, and a restart makes it whole."""
    runs, told = kill_at_every_step(lambda number: case.make(folder, f"output{number}"), case.kills)
    for destination, killed in runs:
        if destination.transactional:
            _check_exact(case, destination, killed)
        else:
            _check_promised(case, destination, killed)
    if runs[0][0].transactional:
        _kill_anew(case, folder)
    return told


def _kill_anew(case: DestinationCase, folder: Path) -> None:
    """A run that begins anew has replaced all or nothing, or stored that nothing counts any more."""

    def make(number: int) -> DataDestination:
        destination = case.make(folder, f"anew{number}")
        deliver(destination, 0, OLD)
        return destination

    for destination, killed in kill_at_every_step(make, case.kills, anew=True)[0]:
        when, done, found = (
            f"a kill at {killed.where} of a run that begins anew",
            position(destination),
            case.found(destination),
        )
        wanted = f"progress behind record {killed.promised} or later after {when}"
        expect(done >= killed.promised, wanted, done, "return from commit() only when progress is stored")
        if done == 0:
            compare(
                [row for row in found if row not in rows(0, OLD)], [], f"nothing but old records after {when}"
            )
        else:
            compare(
                found,
                rows(0, OLD) if done == OLD else rows(0, done, "anew"),
                f"records and progress ({done}) that belong together after {when}",
            )
        scope = replace(SECOND, fresh=done == OLD)
        deliver(another(destination), 0 if done == OLD else done, LAST, scope, text="anew")
        case.check(
            destination,
            rows(0, LAST, "anew"),
            f"each record once, and no old ones, when the run goes on after {when}",
        )


def _check_exact(case: DestinationCase, destination: DataDestination, killed: Killed) -> None:
    done = position(destination)
    wanted = f"progress behind record {killed.promised} or later after a kill at {killed.where}"
    expect(done >= killed.promised, wanted, done, "return from commit() only when progress is stored")
    case.check(
        destination,
        rows(0, done),
        f"records and progress ({done}) of one commit after a kill at {killed.where}",
    )
    if done < LAST:
        deliver(another(destination), done, LAST)
    case.check(
        destination, rows(0, LAST), f"each record once when the run goes on after a kill at {killed.where}"
    )


def _check_promised(case: DestinationCase, destination: DataDestination, killed: Killed) -> None:
    with another(destination).open(SCHEMA, SECOND):
        pass
    there, promised = set(case.found(destination)), rows(0, killed.promised)
    lost = [row for row in promised if row not in there]
    advice = "return from commit() only when the records are on disk"
    expect(
        not lost,
        f"all {len(promised)} committed records after a kill at {killed.where}",
        f"{len(lost)} lost",
        advice,
    )
    deliver(another(destination), killed.promised, LAST, SECOND)
    # twice is no loss; for a key it is the business of `redelivery`
    found = sorted(set(case.found(destination)))
    compare(found, rows(0, LAST), f"every record when the run goes on after a kill at {killed.where}")
