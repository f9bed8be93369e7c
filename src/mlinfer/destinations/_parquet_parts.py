"""The part files of a folder: whose they are, and how far their runs had come."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from mlinfer import ChangedError, ConfigError, Progress, Scope, durable

ENVELOPE = durable.Envelope("part", 1, "restore the file, or remove it and what it held is delivered again")
KEY = b"mlinfer"
SCHEMA_KEY = b"ARROW:schema"
NAME = re.compile(r"part-(\d{8,})\.parquet")
Owner = tuple[str, str]
"""Pipeline and output."""


@dataclass(frozen=True)
class Mark:
    """What the footer of a part says: who wrote it, and how far that run had come with it."""

    owner: Owner
    run: str
    epoch: int
    fresh: bool
    progress: Progress
    schema: pa.Schema

    def to_json(self) -> str:
        """The text kept in the footer; the schema is kept beside it."""
        pipeline, output = self.owner
        return ENVELOPE.seal(
            {
                "pipeline": pipeline, "output": output, "run": self.run, "epoch": self.epoch, "restarts": self.fresh,
                "progress": self.progress.to_json(), "schema": _digest(encoded(self.schema)),
            }
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part file with its number and its mark."""

    path: Path
    number: int
    mark: Mark


def numbers(folder: Path) -> dict[str, int]:
    """The part files of a folder, with their numbers; none if there is no folder."""
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names are all that is needed
    return {name: number for name in names if (number := number_of(name)) is not None}


def number_of(name: str) -> int | None:
    """The number of a part; None if this is not the name of one."""
    match = NAME.fullmatch(name)
    return int(match[1]) if match else None


def name_of(number: int) -> str:
    """The name of a part with this number."""
    return f"part-{number:08d}.parquet"


def survey(folder: Path, owner: Owner) -> tuple[list[Part], list[Path]]:
    """The parts of this pipeline and output in order, and all other Parquet files of the folder that hold anything.

    Raises ConfigError: this user may not list the folder; ChangedError: a part is damaged or a newer mlinfer wrote it, so that nobody knows how far its run had come.
    """
    ours, others = [], []
    try:
        if not folder.is_dir():
            return [], []
        known = numbers(folder)
    except PermissionError as error:
        msg = f"{folder}: wanted a folder that this user may list, found {error.strerror}; allow it, or name another folder"
        raise ConfigError(msg) from error
    for path in sorted(folder.glob("*.parquet")):
        mark = read_mark(path) if path.name in known else None
        if mark is None and path.name in known and path.exists():
            msg = (
                f"{path}: wanted a part that mlinfer wrote, found a file of that name without its mark; restore it, or "
                "rename it if it is of another origin"
            )
            raise ChangedError(msg)
        if mark is not None and mark.owner == owner:
            ours.append(Part(path, known[path.name], mark))
        elif not (path.name.startswith(".") or (mark is not None and is_nobodys(path, mark))):
            others.append(path)
    return sorted(ours, key=lambda part: part.number), others


def is_nobodys(path: Path, mark: Mark) -> bool:
    """Whether a part says only that its pipeline has dropped all that it had delivered."""
    import pyarrow.parquet as pq

    return mark.progress.none and not pq.read_metadata(path).num_rows


def in_force(ours: list[Part], scope: Scope) -> tuple[list[Part], list[Part]]:
    """The parts that count, and those that a later run has replaced (with `fresh`: that this run is to replace)."""
    restarted = [part for part in ours if part.mark.fresh]
    run, bound = (restarted[-1].mark.run, restarted[-1].number) if restarted else ("", -1)
    if scope.fresh and ours:
        run, bound = scope.run, ours[-1].number
    replaced = [part for part in ours if part.mark.run != run and part.number <= bound]
    return [part for part in ours if part not in replaced], replaced


def read_mark(path: Path) -> Mark | None:
    """What a file's footer says; None if mlinfer has not written it, or if it has just been removed.

    Raises ChangedError: it cannot be read, is damaged, or a newer mlinfer wrote it.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return _read_mark(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=16_384)
def _read_mark(path: Path, identity: tuple[int, ...]) -> Mark | None:  # noqa: ARG001 - part of the cache's key
    """A part never changes, so the writers of one run share what one of them has read."""
    import pyarrow.parquet as pq

    try:
        stored = pq.read_metadata(path).metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:  # a name in it may not even be UTF-8
        msg = f"{path}: wanted a part that mlinfer wrote, found {error}; restore it, or remove it and what it held is delivered again"
        raise ChangedError(msg) from error
    if KEY not in stored:
        return None
    body = ENVELOPE.unseal(stored[KEY], str(path))
    if _digest(stored.get(SCHEMA_KEY, b"")) != body["schema"]:
        msg = f"{path}: wanted the schema that mlinfer wrote, found something damaged; {ENVELOPE.repair}"
        raise ChangedError(msg)
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored[SCHEMA_KEY])))
    progress = Progress.from_json(body["progress"], str(path))
    owner = body["pipeline"], body["output"]
    return Mark(owner, body["run"], body["epoch"], body["restarts"], progress, schema)


def encoded(schema: pa.Schema) -> bytes:
    """A schema as the footer holds it."""
    return base64.b64encode(schema.serialize().to_pybytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(there: pa.Schema, wanted: pa.Schema) -> str:
    """Field by field, what two schemas disagree about; empty if nothing. Whether fields are nullable does not matter."""
    # as a footer gives it back: without the names that are within maps
    wanted = pa.ipc.read_schema(wanted.serialize())
    lines = []
    for name in dict.fromkeys([*there.names, *wanted.names]):
        had, has = (str(s.field(name).type) if name in s.names else "no such field" for s in (there, wanted))
        if had != has:
            lines.append(f"  {name}: there {had}, now {has}")
    if not lines and there.names != wanted.names:
        lines.append(f"  order: there {', '.join(there.names)}; now {', '.join(wanted.names)}")
    return "\n".join(lines)


def temporary_prefix(owner: Owner) -> str:
    """How the unfinished parts of this pipeline and output begin, so that nobody removes another's."""
    return f"part-{hashlib.sha256(chr(0).join(owner).encode()).hexdigest()[:12]}-"


def merged(parts: Iterable[Part]) -> Progress:
    """The progress of all these parts, in their order."""
    progress = Progress()
    for part in parts:
        progress = progress.merged(part.mark.progress)
    return progress


def remove(paths: Iterable[Path]) -> None:
    """Remove files; those that are gone already are fine."""
    for path in paths:
        durable.remove(path)
