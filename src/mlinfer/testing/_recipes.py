"""What is asked of every recipe: inert, frozen, comparable, picklable; and of every session: it lets go of all it opened."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mlinfer.testing._copies import pickled, unpickled
from mlinfer.testing._kit import Crashed, Skip, expect, refuse

LOOKS_OUTSIDE = frozenset(
    "open os.listdir os.scandir os.mkdir os.remove os.rename os.link socket.connect socket.bind sqlite3.connect "
    "subprocess.Popen os.posix_spawn os.fork".split()
)


def check_recipe(recipe: Any) -> None:
    """The rules for recipes. Raises AssertionError, or Skip for one that lives in this process only."""
    name = type(recipe).__name__
    _check_frozen(recipe, name)
    _check_inert(recipe, name)
    text = pickled(recipe)
    if text is None:
        msg = f"{name} does not pickle, so it lives in this process only and has no copies to compare"
        raise Skip(msg)
    copy = unpickled(text)
    advice = "make it a frozen dataclass of plain values"
    expect(copy == recipe, f"a copy of {name} that is equal to it", f"{copy!r} != {recipe!r}", advice)
    if type(recipe).__hash__ is not None:
        expect(hash(copy) == hash(recipe), "equal copies with equal hashes", "different ones", advice)
    expect(pickled(copy) is not None, "a copy that pickles again", "one that does not", advice)


def _check_frozen(recipe: Any, name: str) -> None:
    if not dataclasses.is_dataclass(recipe) or not (fields := dataclasses.fields(recipe)):
        return
    if pickled(recipe) is None:
        return  # what lives in this process may well hold what changes
    first = fields[0].name
    try:
        setattr(recipe, first, getattr(recipe, first))
    except dataclasses.FrozenInstanceError:
        return
    wanted = f"that {name}.{first} cannot be set: two pipelines may share a recipe"
    refuse(wanted, "that it can", "write @dataclass(frozen=True)")


def _check_inert(recipe: Any, name: str) -> None:
    if not dataclasses.is_dataclass(recipe) or isinstance(recipe, type):
        return
    with overheard() as seen:
        dataclasses.replace(recipe)
    wanted = f"that making a {name} looks at nothing outside"
    expect(not seen, wanted, ", ".join(sorted(set(seen))), "move that into open(), schema() or partitions()")


_watching: list[list[str]] = []
_hooked: list[bool] = []


@contextmanager
def overheard() -> Iterator[list[str]]:
    """The names of what happens to files, sockets and processes in this block, seen by Python's audit hooks."""
    if not _hooked:
        # hooks cannot be taken away again, so there is one, and it is silent outside of blocks
        sys.addaudithook(_note)
        _hooked.append(True)
    seen: list[str] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.pop()


def _note(event: str, _: object) -> None:
    if _watching and event in LOOKS_OUTSIDE:
        _watching[-1].append(event)


def check_lets_go(what: str, use: Callable[[], object]) -> None:
    """Raise AssertionError if files or sockets stay open behind a use; the first one may load libraries."""
    use()
    before = _open_files()
    use()
    left = _open_files() - before
    expect(
        not left,
        f"that {what} leaves nothing open",
        _named(left),
        "close it in the context manager, also on errors",
    )


def check_passes_errors_on(opening: Callable[[], AbstractContextManager[Any]]) -> None:
    """Raise AssertionError if an error inside a session does not come out of it as it is."""
    try:
        with opening():
            _die()
    except Crashed:
        return
    wanted = "that an error inside a session comes out of it"
    refuse(wanted, "that the context manager swallowed it", "do not catch what you cannot mend")


def _die() -> None:
    raise Crashed


def _open_files() -> set[tuple[str, str]]:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
    found = set()
    for file in list(folder.iterdir()):
        try:
            found.add((file.name, str(file.readlink())))
        except OSError:  # the one that listed the folder is closed; macOS has no links here
            if folder.name == "fd" and folder.parent.name == "dev":
                found.add((file.name, ""))
    return found


def _named(left: set[tuple[str, str]]) -> str:
    return ", ".join(sorted(target or f"file descriptor {number}" for number, target in left))
