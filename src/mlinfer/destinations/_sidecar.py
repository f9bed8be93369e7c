"""What is kept beside a file that grows: whose it is, how much of it counts, and the progress it stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mlinfer import ChangedError, Progress, Scope, durable

ENVELOPE = durable.Envelope(
    "appended", 1, "restore it and the file from a backup, or start over with from_start=True"
)


@dataclass(frozen=True)
class Sidecar:
    """What `.NAME.progress` says about the file NAME beside it.

    `length`: so many bytes of the file are committed. `foreign`: so many of them were there before this pipeline.
    `shorter`: length and SHA-256 of the file that is about to take the place of this one, without what is to go.
    """

    pipeline: str
    output: str
    columns: tuple[tuple[str, str], ...]
    length: int
    foreign: int
    progress: Progress
    shorter: tuple[int, str] | None = None

    def is_of(self, scope: Scope) -> bool:
        """Whether this output of this pipeline has written the file."""
        return (self.pipeline, self.output) == (scope.pipeline, scope.output)

    def to_bytes(self) -> bytes:
        """A text that `from_bytes` reads back, and that shows every change of a byte."""
        body = {
            "pipeline": self.pipeline,
            "output": self.output,
            "columns": self.columns,
            "length": self.length,
            "foreign": self.foreign,
            "progress": self.progress.to_json(),
        }
        if self.shorter is not None:
            body["shorter"] = self.shorter
        return ENVELOPE.seal(body).encode()

    @classmethod
    def from_bytes(cls, text: bytes, path: Path) -> Sidecar:
        """Read what `to_bytes` wrote. Raises ChangedError: it is damaged, or a newer mlinfer wrote it."""
        body = ENVELOPE.unseal(text, str(path))
        columns = tuple((name, kind) for name, kind in body["columns"])
        progress = Progress.from_json(body["progress"], str(path))
        shorter = tuple(body["shorter"]) if "shorter" in body else None
        return cls(
            body["pipeline"], body["output"], columns, body["length"], body["foreign"], progress, shorter
        )


def committed_text(path: Path, scope: Scope) -> tuple[bytes, list[tuple[str, str]]]:
    """What this pipeline has committed to a file, and the names and types of its columns; nothing if it has not written it.

    Raises ChangedError: the file is gone or shorter, or its progress is damaged.
    """
    found = stored(path)
    if found is None or not found.is_of(scope):
        return b"", []
    check_length(path, found)
    if not found.length:
        return b"", list(found.columns)
    with path.open("rb") as file:
        file.seek(found.foreign)
        return file.read(found.length - found.foreign), list(found.columns)


def stored_progress(path: Path, scope: Scope) -> Progress:
    """What this pipeline has noted beside a file; nothing if it has not written it."""
    found = stored(path)
    if found is None or not found.is_of(scope):
        return Progress()
    return found.progress


def sidecar_of(path: Path) -> Path:
    """Where the progress of a file is kept."""
    return path.with_name(f".{path.name}.progress")


def check_length(path: Path, found: Sidecar) -> None:
    """Raise ChangedError if the file no longer holds all that was committed: what is behind that would be cut off."""
    size = size_of(path)
    if size >= found.length and (found.length == found.foreign or _ends_a_line(path, found.length)):
        return
    there = f"found {size}" if path.exists() else "found no file"
    if size >= found.length:
        there = "found that no record ends there: the file has been edited or converted"
    instead = (
        "or start over with from_start=True"
        if found.output == "main"
        else f"or remove {sidecar_of(path)}, too, if nobody wants what it held; `mlinfer rejects purge` removes rejects by their age"
    )
    msg = (
        f"{path}: wanted the {found.length} bytes that were committed, {there}; put the file back, {instead}"
    )
    raise ChangedError(msg)


def _ends_a_line(path: Path, length: int) -> bool:
    with path.open("rb") as file:
        file.seek(length - 1)
        return file.read(1) == b"\n"


def is_nobodys(path: Path, found: Sidecar) -> bool:
    """Whether a pipeline has begun a file and holds nothing in it, or has dropped all of it: at most a header is there."""
    if not found.progress.none or size_of(path) < found.length:
        return False
    if not found.length:  # a crash may have come before the file itself
        return True
    with path.open("rb") as file:
        file.seek(found.foreign)
        text = file.read(found.length - found.foreign).decode(errors="replace")
    header = ",".join(name for name, _ in found.columns)
    return text.replace('"', "").strip() in {"", header.replace('"', "").strip()}


def size_of(path: Path) -> int:
    """How many bytes a file holds; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def stored(path: Path) -> Sidecar | None:
    """What is kept beside a file; None if nothing is. Raises ChangedError: it is damaged."""
    place = sidecar_of(path)
    text = durable.read(place)
    return None if text is None else _settled(Sidecar.from_bytes(text, place), path)


def _settled(found: Sidecar, path: Path) -> Sidecar:
    """Whether the shorter file has taken the place of the longer one: a crash may have come before it or after it."""
    if found.shorter is None:
        return found
    length, digest = found.shorter
    done = size_of(path) == length and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    return replace(found, length=length if done else found.length, shorter=None)


def shorten(path: Path, scope: Scope, keep: Callable[[bytes, list[str]], tuple[bytes, int]]) -> int:
    """Replace what this pipeline has committed to a file by what `keep` makes of it and its columns; so many records are gone.

    The sidecar says first what is to come, so that after a crash the old file counts or the new one, whole.
    Raises FencedError: a run holds the file. ChangedError: file or progress are damaged.
    """
    if not sidecar_of(path).exists():
        return 0
    with durable.naming(path), durable.locked(path, "output", scope.run):
        text, columns = committed_text(path, scope)
        found = stored(path)
        kept, gone = keep(text, [name for name, _ in columns]) if found and text else (b"", 0)
        if found is None or not gone:
            return 0
        with path.open("rb") as file:
            content = file.read(found.foreign) + kept
        shorter = (len(content), hashlib.sha256(content).hexdigest())
        durable.replace(sidecar_of(path), replace(found, shorter=shorter).to_bytes())
        durable.replace(path, content)
        durable.replace(sidecar_of(path), replace(found, length=len(content)).to_bytes())
    return gone
