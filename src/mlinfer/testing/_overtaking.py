"""The check that a commit looks at the epoch inside its atomic step: another run takes over in the middle of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

from mlinfer import DataDestination, FencedError
from mlinfer.testing._copies import another
from mlinfer.testing._delivering import (
    PARTITION,
    SCHEMA,
    SCOPE,
    SECOND,
    DestinationCase,
    batch,
    deliver,
    position,
    progress,
    resumes,
    rows,
    transactional,
)
from mlinfer.testing._kit import expect
from mlinfer.testing._tracing import Place, Tracer, spread, untraced, wait_for

MOST = 40
WAITS = 0.25
"""Seconds that the first run stands still for the other: if that one has not come through by then, it waits for a lock."""
TIMES = 5
"""When it has come through once, waiting so many times as long is enough."""
PATIENCE = 30.0
LAST = 9


class Overtaker:
    """A run that takes over, and delivers all that is left, in a thread of its own."""

    def __init__(self, destination: DataDestination) -> None:
        self._destination = destination
        self._thread = Thread(target=self._run, daemon=True)
        self.error: Exception | None = None
        self.began = 0
        self.seconds: float | None = None

    def takes_over(self, seconds: float) -> None:
        """Begin, and give it the time that it needs if nothing stops it."""
        begun = time.monotonic()
        self._thread.start()
        wait_for(self._thread, seconds)
        self.seconds = None if self._thread.is_alive() else time.monotonic() - begun

    def ends(self) -> bool:
        """Whether it took over; not if it was refused, or was never begun. Raises AssertionError: it stands still."""
        if self._thread.ident is None:
            return False
        self._thread.join(PATIENCE)
        advice = "let go of locks when a session ends"
        expect(
            not self._thread.is_alive(), "that a run goes on when the one before it has ended", "not", advice
        )
        if self.error is not None and not isinstance(self.error, FencedError):
            raise self.error
        return self.error is None

    def _run(self) -> None:
        try:
            with self._destination.open(SCHEMA, SECOND) as writer:
                self.began = resumes(writer).committed().positions.get(PARTITION, 0)
                writer.write(batch(self.began, LAST, "newer"))
                writer.commit(progress(LAST))
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error


def check_overtaken(case: DestinationCase, folder: Path) -> None:
    """Another run takes over at one line of a commit after the other: then nothing of that commit may come after it."""
    seen: dict[Place, None] = {}
    own = _commits(transactional(case.make(folder, "seen")), seen.setdefault)
    places = spread([place for place in seen if place[0] in own], min(MOST, case.kills or MOST))
    waits = WAITS
    for number, place in enumerate(places):
        destination = case.make(folder, f"overtaken{number}")
        deliver(destination, 0, 3)
        other = Overtaker(another(destination))
        _commits_beside(other, destination, place, waits)
        if not other.ends():
            return  # it lets nobody in while a run holds it
        if other.seconds is not None:
            waits = min(WAITS, max(0.03, TIMES * other.seconds))
        _check_both(case, destination, place, other.began)


def _commits_beside(other: Overtaker, destination: DataDestination, place: Place, waits: float) -> None:
    waiting = [place]

    def act(here: Place) -> None:
        if here in waiting:
            waiting.clear()
            other.takes_over(waits)

    with suppress(FencedError):
        _commits(destination, act)


def _check_both(case: DestinationCase, destination: DataDestination, place: Place, began: int) -> None:
    where = f"when another run takes over at line {place[1]} of {Path(place[0]).name}"
    wanted = [*rows(0, 3), *rows(3, began), *rows(began, LAST, "newer")]
    case.check(destination, wanted, f"each record once, {where}: check the epoch inside the atomic step;")
    done = position(destination)
    expect(
        done == LAST, f"the progress of the newer run ({LAST}), {where}", done, "check the epoch there, too"
    )


def _commits(destination: DataDestination, act: Callable[[Place], object]) -> set[str]:
    """Deliver two records, with an eye on the lines of the commit; the files that are the destination's own."""
    tracer = Tracer([destination], act)
    with destination.open(SCHEMA, SCOPE) as writer:
        writer.write(batch(3, 5))
        with untraced():
            tracer.begin(1)
            writer.commit(progress(5))
            sys.settrace(None)
    return tracer.own
