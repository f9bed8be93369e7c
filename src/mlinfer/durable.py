"""Local files that survive a crash: every durable write of mlinfer and its parts goes through here.

The order is always the same: write under a temporary name, flush it to disk, give it its final name, flush the
directory. Files are readable by their owner alone. What reaches the disk is asked of this module's `os` and nothing
else, so that a test can see each step, refuse it, or lose it.
"""
# ruff: noqa: PTH102, PTH104, PTH105, PTH108, PTH123 - os itself, for the reason above

from __future__ import annotations

import ctypes
import errno
import fcntl
import io
import os
import secrets
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from mlinfer._envelope import Envelope
from mlinfer._errors import ComponentError, ConfigError, FencedError
from mlinfer._failpoints import failpoint, spared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _typeshed import ReadableBuffer

__all__ = [
    "Envelope", "Raw", "create", "cut", "exchange", "expect_reachable", "expect_writable", "flush", "flush_folder", "growing", "locked",
    "make_folder", "naming", "noted", "publish", "read", "remove", "remove_leftovers", "rename", "replace", "temporary",
]  # fmt: skip
_PRIVATE_FILE = 0o600
_PRIVATE_FOLDER = 0o700
_TEMPORARY = ".tmp"
_WRITTEN = b"\nhas been written to"
_HERE, _SWAP = -100, 2  # AT_FDCWD; RENAME_EXCHANGE, which macOS calls RENAME_SWAP


class Raw(io.RawIOBase):
    """An open file to write to, without a buffer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def write(self, data: ReadableBuffer, /) -> int:
        """Write the beginning of the data, all of it as a rule; says how many bytes. Raises OSError."""
        return os.write(self._descriptor, spared(data))

    def close(self) -> None:
        """Close the file; what was written is not flushed to disk by that."""
        if not self.closed:
            super().close()
            os.close(self._descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raise failures of the disk as ComponentErrors that name the file or folder and say what to do."""
    try:
        yield
    except OSError as error:
        found = os.strerror(error.errno) if error.errno else str(error)
        msg = f"{path}: wanted to write, found {found}; what was committed is safe: mend the cause and run the pipeline again"
        raise ComponentError(msg) from error


def read(path: Path) -> bytes | None:
    """What a small file holds; None if there is none. Raises OSError: it is there and cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        return file.read()


def expect_reachable(path: Path) -> None:
    """Raise ConfigError if this user cannot even learn whether a file or folder is there: `exists` and its kin may raise then."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        found = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        msg = f"{str(path)[:200]}: wanted a path that this user can follow, found: {found}; correct it, or let the user into its folders"
        raise ConfigError(msg) from error


def expect_writable(path: Path) -> None:
    """Raise ConfigError if this user may not write to a file, or to a folder or the nearest one above it that is there."""
    there = next(one for one in (path, *path.absolute().parents) if os.access(one, os.F_OK))
    if not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        msg = f"{path}: wanted a place to write to, found that this user may not write to {there}; allow it, or name another place"
        raise ConfigError(msg)


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, that only the owner can enter; one that is there is left alone.

    When this returns, the folder and the names in it are on disk: a run that was killed may have made them and not come
    to that, and what is built on them must not outlive them.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    there = missing[-1].parent if missing else path
    with suppress(PermissionError):  # who may not look into the folder above has not made this one
        flush_folder(there.parent)
    flush_folder(there)
    for folder in reversed(missing):
        with suppress(FileExistsError):  # somebody else was faster
            os.mkdir(folder, _PRIVATE_FOLDER)
        flush_folder(folder.parent)


def temporary(path: Path) -> Path:
    """A name beside `path` that nobody can guess and that readers of folders pass over (it begins with a dot)."""
    return path.parent / f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY}"


@contextmanager
def create(path: Path) -> Iterator[IO[bytes]]:
    """A new file for writing under exactly this name; its bytes are on disk when the block ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
    with io.BufferedWriter(Raw(descriptor)) as file:
        yield file
        flush(file)


@contextmanager
def growing(path: Path, length: int) -> Iterator[Raw]:
    """A file to append to, made if need be, with everything behind `length` bytes cut off; the cut is on disk.

    What is written is on disk after `flush`.
    """
    with Raw(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, _PRIVATE_FILE)) as file:
        cut(file, length)
        flush_folder(path.parent)
        yield file


def cut(file: Raw, length: int) -> None:
    """Drop everything behind `length` bytes; the cut is on disk."""
    os.ftruncate(file.fileno(), length)
    flush(file)


def flush(file: IO[bytes] | Raw) -> None:
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
        os.replace(scratch, path)
    except BaseException:
        remove(scratch)
        raise
    flush_folder(path.parent)


def publish(scratch: Path, path: Path) -> None:
    """Give a finished file its final name in one step. Raises FileExistsError if the name is taken."""
    failpoint("dest.publish")
    os.link(scratch, path)
    os.unlink(scratch)
    flush_folder(path.parent)


def rename(scratch: Path, path: Path) -> None:
    """Give a finished folder its final name in one step. Raises OSError if there is something of that name."""
    os.rename(scratch, path)
    flush_folder(path.parent)


def exchange(scratch: Path, path: Path) -> None:
    """Swap a finished folder with the one that bears its final name, in one step: a reader finds the old or the new one.

    Raises OSError: one of them is not there, or the file system cannot do it.
    """
    library, names = ctypes.CDLL(None, use_errno=True), (os.fsencode(scratch), os.fsencode(path))
    if hasattr(library, "renameat2"):
        failed = library.renameat2(_HERE, names[0], _HERE, names[1], _SWAP)
    elif hasattr(library, "renamex_np"):  # macOS
        failed = library.renamex_np(*names, _SWAP)
    else:
        raise OSError(errno.ENOSYS, "wanted a system that can swap two folders, found one that cannot")
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    flush_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file; one that is gone already is fine."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def remove_leftovers(folder: Path, prefix: str = "") -> None:
    """Remove the temporary files of runs that died here (names from `temporary` beginning with `prefix`)."""
    for leftover in folder.glob(f".{prefix}*{_TEMPORARY}"):
        remove(leftover)


@contextmanager
def locked(path: Path, what: str, run: str = "") -> Iterator[Callable[[], None]]:
    """Be the only user of `path`, through a lock file beside it that says which run holds it.

    `what` names the thing in the error. The lock ends with the block and with the process, however that ends; the file
    stays. Gives a function that notes in it that `path` has been written to, for `noted`.
    Raises FencedError: another run holds it.
    """
    descriptor = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT, _PRIVATE_FILE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = (
                os.pread(descriptor, 200, 0).removesuffix(_WRITTEN).decode(errors="replace").strip()
                or "another run"
            )
            msg = f"{what} {path}: wanted to be its only user, found {holder} that holds it; stop that run first"
            raise FencedError(msg) from error
        user = f"run {run or '(unnamed)'}, process {os.getpid()}".encode()

        def note(written: bytes = _WRITTEN) -> None:
            os.pwrite(descriptor, user + written, 0)
            os.ftruncate(descriptor, len(user + written))

        note(_WRITTEN if noted(path) else b"")
        yield note
    finally:
        os.close(descriptor)


def noted(path: Path) -> bool:
    """Whether a run that had `path` locked has noted that it was written to; the note is not flushed to disk."""
    return (read(_lock_of(path)) or b"").endswith(_WRITTEN)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")
