"""Sees the lines of a part's code go by, and chooses those where something happens to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from types import FrameType
from typing import Any

OWN_KILLS = 400
"""Of more lines of its own, a destination is killed at so many that are spread over them."""
OTHER_KILLS = 20
"""At so many lines that the destination's own ones call: mlinfer's modules, which have tests of their own."""
LOOK_SECONDS = 0.01
"""Between looks whether another thread has ended."""

Place = tuple[str, int, int]
"""One line of code while so many commits were done: file, line, commits."""


class Tracer:
    """Calls `act` at every line of the parts' packages and of what these call of mlinfer (`durable`); not of libraries.

    `own` fills up with the files of those packages; mlinfer's own destinations are a package for themselves, and its hosts.
    """

    def __init__(self, parts: Sequence[object], act: Callable[[Place], object]) -> None:
        self.own: set[str] = set()
        self._packages = tuple({_package_of(part) for part in parts})
        self._commits, self._act = 0, act

    def begin(self, commits: int) -> None:
        """From now on, with so many commits done."""
        self._commits = commits
        sys.settrace(self._call)

    def _call(self, frame: FrameType, *_: object) -> Any:
        name, code = str(frame.f_globals.get("__name__", "")), frame.f_code
        if f"{name}.".startswith(self._packages):
            self.own.add(code.co_filename)
            return self._line
        lent = name.startswith("mlinfer.") and not name.startswith(("mlinfer.testing", "mlinfer._"))
        return self._line if lent or (name == "__main__" and code.co_name == "run") else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            self._act((frame.f_code.co_filename, frame.f_lineno, self._commits))
        return self._line


def _package_of(part: object) -> str:
    first, _, rest = type(part).__module__.partition(".")
    return f"mlinfer.{rest.partition('.')[0]}." if first == "mlinfer" else f"{first}."


def wait_for(other: Thread, seconds: float) -> None:
    """Give another thread so many seconds to end.

    They are counted in looks: while the whole machine stands still the clock goes on, and nobody comes through.
    """
    for _ in range(max(1, round(seconds / LOOK_SECONDS))):
        other.join(LOOK_SECONDS)
        if not other.is_alive():
            return


@contextmanager
def untraced() -> Iterator[None]:
    """Put back at the end whoever traced before: a debugger, a coverage tool."""
    before = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(before)


def chosen(places: Sequence[Place], own: Container[str], most: int | None) -> list[Place]:
    """The lines to be killed at, in order: each line once before any of them again.

    A line is best passed while there is something to lose and something to come: after the first commit. Without a
    `most` that is every line of the destination's own, and some of those that they call, where files are written. Of a
    `most` three quarters are its own.
    """
    once = {place[:2]: place for place in sorted(places, key=lambda place: place[2] == 1)}.values()
    mine = [place for place in once if place[0] in own]
    others = [place for place in once if place[0] not in own]
    if most is None:
        keep = {*spread(mine, OWN_KILLS), *spread(others, OTHER_KILLS)}
    else:
        keep = {*spread(mine, max(most - len(others), most * 3 // 4))}
        keep |= {*spread(others, most - len(keep))}
        keep |= {*spread([place for place in places if place not in {*once}], most - len(keep))}
    return [place for place in places if place in keep]


def spread(places: Sequence[Place], most: int) -> list[Place]:
    """At most so many of them, the distances equal."""
    if len(places) <= most:
        return list(places)
    return [places[n * len(places) // most] for n in range(most)]


def told(killed: Sequence[Place], places: Sequence[Place], own: Container[str]) -> str:
    """How many lines that is, of how many."""
    done, there = {place[:2] for place in killed}, {place[:2] for place in places}
    mine = {place for place in there if place[0] in own}
    return (
        f"killed at {len(done & mine)} of {len(mine)} lines of its own, "
        f"and at {len(done - mine)} of {len(there - mine)} that these call"
    )
