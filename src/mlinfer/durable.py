"""Local files that survive a crash: every durable write of mlinfer and its parts goes through here.

The order is always the same: write under a temporary name, flush it to disk, give it its final name, flush the
directory. Files are readable by their owner alone.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mlinfer._errors import FencedError
from mlinfer._failpoints import failpoint

try:
    import fcntl
except ImportError as error:  # the first thing that Windows lacks
    _msg = "mlinfer needs Linux or macOS: it locks and flushes files in ways that Windows lacks; there, run it in WSL"
    raise ImportError(_msg) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
TEMPORARY = ".tmp"


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, that only the owner can enter; one that is there is left alone."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        flush_folder(folder.parent)


def temporary(path: Path) -> Path:
    """A name beside `path` that nobody can guess and that readers of folders pass over (it begins with a dot)."""
    return path.parent / f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}"


@contextmanager
def create(path: Path) -> Iterator[IO[bytes]]:
    """A new file for writing under exactly this name; its bytes are on disk when the block ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        flush(file)


def flush(file: IO[bytes]) -> None:
    """Return only when what was written to this file is on disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Return only when the names in this folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Make `path` hold `content`; after a crash it holds the old content or the new one, whole."""
    scratch = temporary(path)
    try:
        failpoint("progress.write.tmp")
        with create(scratch) as file:
            file.write(content)
            failpoint("progress.fsync")
        failpoint("progress.rename")
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def publish(scratch: Path, path: Path) -> None:
    """Give a finished file its final name in one step. Raises FileExistsError if the name is taken."""
    os.link(scratch, path)
    scratch.unlink()
    flush_folder(path.parent)


def remove_leftovers(folder: Path, prefix: str = "") -> None:
    """Remove the temporary files of runs that died here (names from `temporary` beginning with `prefix`)."""
    for leftover in folder.glob(f".{prefix}*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, what: str, run: str = "") -> Iterator[None]:
    """Be the only user of `path`, through a lock file beside it that says which run holds it.

    `what` names the thing in the error. The lock ends with the block and with the process, however that ends.
    Raises FencedError: another run holds it.
    """
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another run"
            msg = f"{what} {path}: wanted to be its only user, found {holder} that holds it; stop that run first"
            raise FencedError(msg) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"run {run or '(unnamed)'}, process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)
