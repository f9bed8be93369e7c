"""Kills a destination for real: in a child process, by SIGKILL, at one line of its code after the other.

The child is asked once and forks for every kill, so that a kill costs a few milliseconds and no start of Python.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Timer
from typing import IO, Any

from mlinfer import DataDestination
from mlinfer.testing._copies import pickled, unpickled
from mlinfer.testing._delivering import SCHEMA, SCOPE, SECOND, batch, progress
from mlinfer.testing._kit import Untried, expect, refuse
from mlinfer.testing._tracing import Place, Tracer, chosen, told

COMMITS = ((0, 3), (3, 5), (5, 9))
"""What each commit of a killed run delivers: records from, to. Of one that begins anew there is the first alone."""
PATIENCE_SECONDS = 100
"""For one answer, and a second more for each kill that it tells of."""
UNTRIED = "it was never killed in a process of its own"


@dataclass(frozen=True)
class Killed:
    """One run that was killed: where, and how many records commits had promised to keep by then."""

    where: str
    promised: int


def kill_at_every_step(
    make: Callable[[int], DataDestination], kills: int | None, *, anew: bool = False
) -> tuple[list[tuple[DataDestination, Killed]], str]:
    """Deliver to one new destination per kill; and how many lines that were.

    `make(n)` makes the n-th destination; with `anew` it holds something, and the run begins anew. Raises Untried: it cannot travel to a process of its own.
    """
    first = pickled(make(0))
    if first is None:
        msg = f"{UNTRIED}: the destination does not pickle, so it dies with this one"
        raise Untried(msg)
    with _child() as (child, complaints):
        plan = _asked(child, complaints, {"recipe": first.hex(), "kills": kills, "anew": anew})
        if "not_imported" in plan:
            msg = f"{UNTRIED}: another one cannot import the destination: {plan['not_imported']}"
            raise Untried(msg)
        expect(
            plan["kills"],
            "lines of the destination's code to be killed at",
            "none",
            "is it written in Python?",
        )
        recipes = [make(number) for number in range(1, plan["kills"] + 1)]
        texts = [(pickled(recipe) or b"").hex() for recipe in recipes]
        killed = [Killed(**one) for one in _asked(child, complaints, texts, kills=len(texts))]
    return list(zip(recipes, killed, strict=True)), plan["told"]


@contextmanager
def _child() -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    # -P: the folder that this happens to run in is not searched for modules
    command = [sys.executable, "-P", "-m", "mlinfer.testing._kills"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(  # noqa: S603 - this very module
            command, env=environment, stdin=pipe, stdout=pipe, stderr=complaints, text=True
        ) as child,
    ):
        try:
            yield child, complaints
        finally:
            child.kill()


def _asked(child: subprocess.Popen[str], complaints: IO[str], question: object, *, kills: int = 0) -> Any:
    """The child's answer, which it must give in time."""
    late = Timer(PATIENCE_SECONDS + kills, child.kill)
    late.start()
    try:
        with suppress(BrokenPipeError):
            print(json.dumps(question), file=child.stdin, flush=True)
        answer = child.stdout.readline() if child.stdout is not None else ""
    finally:
        late.cancel()
    if not answer:
        complaints.seek(0)
        refuse(
            "a run in a process of its own",
            complaints.read()[-2000:] or "nothing in time",
            "see what it says",
        )
    return json.loads(answer)


# --- in the child --------------------------------------------------------------------------------------------------------


def run(
    destination: DataDestination, trace: Callable[[int], None], told: Callable[[int], object], *, anew: bool
) -> None:
    """Deliver all there is, in three commits; `trace` and `told` are called with the number of commits done."""
    scope, text = (replace(SECOND, fresh=True), "anew") if anew else (SCOPE, "text")
    trace(0)
    with destination.open(SCHEMA, scope) as writer:
        for number, (start, stop) in enumerate(COMMITS[:1] if anew else COMMITS):
            writer.write(batch(start, stop, text))
            writer.commit(progress(stop))
            told(number + 1)
            trace(number + 1)


def tell_places(destination: DataDestination, anew: bool, pipe: int) -> None:  # noqa: FBT001 - handed to a child
    """The lines that a run passes, each once, in order; and the files that are the destination's own."""
    seen: dict[Place, None] = {}
    tracer = Tracer([destination], seen.setdefault)
    try:
        run(destination, tracer.begin, lambda _: None, anew=anew)
    finally:
        sys.settrace(None)
    with os.fdopen(pipe, "w") as file:
        json.dump([list(seen), list(tracer.own)], file)


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


def kill_at(destination: DataDestination, anew: bool, place: Place, pipe: int) -> None:  # noqa: FBT001 - handed to a child
    """Run until that line, and no further."""

    def act(here: Place) -> None:
        if here == place:
            os.kill(os.getpid(), signal.SIGKILL)

    run(destination, Tracer([destination], act).begin, lambda _: os.write(pipe, b"."), anew=anew)


def main() -> int:
    """Say where a run passes by; then kill one run for each recipe that comes in."""
    asked = json.loads(sys.stdin.readline())
    try:
        first = unpickled(bytes.fromhex(asked["recipe"]))
    except (ImportError, AttributeError) as error:
        _answer({"not_imported": str(error)})
        return 0
    status, said = in_a_child(partial(tell_places, first, asked["anew"]))
    if status:
        return 1
    seen, own = json.loads(said)
    seen = [tuple(place) for place in seen]
    places = chosen(seen, own, asked["kills"])
    _answer({"kills": len(places), "told": told(places, seen, own)})
    killed = []
    for text, place in zip(json.loads(sys.stdin.readline() or "[]"), places, strict=False):
        recipe = unpickled(bytes.fromhex(text))
        status, dots = in_a_child(partial(kill_at, recipe, asked["anew"], place))
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            return 1
        file, line, commits = place
        where = f"line {line} of {Path(file).name}, after {commits} commits"
        killed.append({"where": where, "promised": COMMITS[len(dots) - 1][1] if dots else 0})
    _answer(killed)
    return 0


def _answer(answer: object) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - read by the process that asked


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
