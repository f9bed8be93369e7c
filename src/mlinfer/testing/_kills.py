"""Kills a destination for real: in a child process, by SIGKILL, at one line of its code after the other.

The child is asked once and forks for every kill, so that a kill costs a few milliseconds and no start of Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mlinfer import DataDestination
from mlinfer.testing._copies import pickled, unpickled
from mlinfer.testing._delivering import SCHEMA, SCOPE, batch, progress
from mlinfer.testing._kit import Untried, expect

COMMITS = ((0, 3), (3, 5), (5, 9))
"""What each commit of a killed run delivers: records from, to."""
PATIENCE_SECONDS = 50
NOT_IMPORTED = 3
UNTRIED = "it was never killed in a process of its own"

Place = tuple[str, int, int]
"""One line of code while so many commits were done: file, line, commits."""


@dataclass(frozen=True)
class Killed:
    """One run that was killed: where, and how many records commits had promised to keep by then."""

    where: str
    promised: int


def kill_at_every_step(
    make: Callable[[int], DataDestination], kills: int
) -> list[tuple[DataDestination, Killed]]:
    """Deliver to one new destination per kill. Raises Untried: it cannot travel to a process of its own.

    `make(n)` makes the n-th destination.
    """
    recipes = [make(number) for number in range(kills + 1)]
    texts = [pickled(recipe) for recipe in recipes]
    if None in texts:
        msg = f"{UNTRIED}: the destination does not pickle, so it dies with this one"
        raise Untried(msg)
    asked = json.dumps({"path": sys.path, "recipes": [text.hex() for text in texts if text is not None]})
    # -P: the folder that this happens to run in is not searched for modules
    command = [sys.executable, "-P", "-m", "mlinfer.testing._kills"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(  # noqa: S603 - this very module
        command,
        input=asked,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode == NOT_IMPORTED:
        msg = f"{UNTRIED}: another one cannot import the destination: {done.stdout.strip()}"
        raise Untried(msg)
    expect(not done.returncode, "a run in a process of its own", done.stderr[-2000:], "see what it says")
    killed = [Killed(**one) for one in json.loads(done.stdout)]
    expect(killed, "lines of the destination's code to be killed at", "none", "is it written in Python?")
    return list(zip(recipes[1:], killed, strict=False))


def run(destination: DataDestination, trace: Callable[[int], None], told: Callable[[int], object]) -> None:
    """Deliver all there is, in three commits; `trace` and `told` are called with the number of commits done."""
    trace(0)
    with destination.open(SCHEMA, SCOPE) as writer:
        for number, (start, stop) in enumerate(COMMITS):
            writer.write(batch(start, stop))
            writer.commit(progress(stop))
            told(number + 1)
            trace(number + 1)


class Tracer:
    """Sees the lines of a destination's code go by."""

    def __init__(self, destination: DataDestination, act: Callable[[Place], None]) -> None:
        # what the destination calls of mlinfer (`durable`) is traced, too; libraries are not
        self._ours = {type(destination).__module__.partition(".")[0], "mlinfer"}
        self._commits, self._act = 0, act

    def begin(self, commits: int) -> None:
        """From now on, with so many commits done."""
        self._commits = commits
        sys.settrace(self._call)

    def _call(self, frame: FrameType, *_: object) -> Any:
        name = str(frame.f_globals.get("__name__", ""))
        ours = name.partition(".")[0] in self._ours and not name.startswith(("mlinfer.testing", "mlinfer._"))
        return self._line if ours or (name == "__main__" and frame.f_code.co_name == "run") else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            self._act((frame.f_code.co_filename, frame.f_lineno, self._commits))
        return self._line


def places_of(destination: DataDestination) -> list[Place]:
    """The lines that a run passes, each once, in order."""
    seen: dict[Place, None] = {}
    tracer = Tracer(destination, seen.setdefault)
    try:
        run(destination, tracer.begin, lambda _: None)
    finally:
        sys.settrace(None)
    return list(seen)


def chosen(places: Sequence[Place], own: str, most: int) -> list[Place]:
    """The lines to be killed at, in order: each line once before any of them again.

    A line is best passed while there is something to lose and something to come: after the first commit. Of many lines
    three quarters are the destination's own; the others are those that it calls, where files are written.
    """
    once = {place[:2]: place for place in sorted(places, key=lambda place: place[2] == 1)}.values()
    mine = [place for place in once if place[0] == own]
    others = [place for place in once if place[0] != own]
    keep = {*_spread(mine, max(most - len(others), most * 3 // 4))}
    keep |= {*_spread(others, most - len(keep))}
    keep |= {*_spread([place for place in places if place not in {*once}], most - len(keep))}
    return [place for place in places if place in keep]


def _spread(places: Sequence[Place], most: int) -> list[Place]:
    if len(places) <= most:
        return list(places)
    return [places[n * len(places) // most] for n in range(most)]


def in_a_child(work: Callable[[int], None]) -> tuple[int, bytes]:
    """Do it in a forked process that may die: how it ended, and what it wrote into its pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        status = 1
        try:
            work(writing)
            status = 0
        except BaseException:  # noqa: BLE001 - told on standard error; the parent sees the status
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    return os.waitpid(child, 0)[1], said


def kill_at(destination: DataDestination, place: Place, pipe: int) -> None:
    """Run until that line, and no further."""

    def act(here: Place) -> None:
        if here == place:
            os.kill(os.getpid(), signal.SIGKILL)

    run(destination, Tracer(destination, act).begin, lambda _: os.write(pipe, b"."))


def main() -> int:
    """Kill one run for each recipe that comes in; the first recipe shows where."""
    asked = json.load(sys.stdin)
    try:
        recipes = [unpickled(bytes.fromhex(text)) for text in asked["recipes"]]
    except (ImportError, AttributeError) as error:
        print(error)  # noqa: T201 - read by the process that asked
        return NOT_IMPORTED
    first = recipes[0]
    status, said = in_a_child(lambda pipe: _tell(pipe, places_of(first)))
    if status:
        return 1
    own = getattr(sys.modules[type(first).__module__], "__file__", "") or ""
    places = chosen([tuple(place) for place in json.loads(said)], own, len(recipes) - 1)
    killed = []
    for recipe, place in zip(recipes[1:], places, strict=False):
        status, dots = in_a_child(lambda pipe, recipe=recipe, place=place: kill_at(recipe, place, pipe))  # type: ignore[misc]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            return 1
        promised = COMMITS[len(dots) - 1][1] if dots else 0
        file, line, commits = place
        where = f"line {line} of {Path(file).name}, after {commits} commits"
        killed.append({"where": where, "promised": promised})
    print(json.dumps(killed))  # noqa: T201 - read by the process that asked
    return 0


def _tell(pipe: int, places: list[Place]) -> None:
    with os.fdopen(pipe, "w") as file:
        json.dump(places, file)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
