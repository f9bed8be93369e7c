"""Reads model files whole, once, and compares their digests before anything looks inside."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path

from mlinfer import ConfigError

SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def read(
    path: Path | str, *, within: int | None = None, folder: Path | str = "", most: int | None = None
) -> bytes:
    """The bytes of a regular file.

    `within` is the descriptor of the folder that holds it: then links are not followed, and it has no other name; `folder`
    is what errors call it. `most` bounds its size. Raises ConfigError: it is absent, not a regular file, or too large.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if within is None else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=within)
    except OSError as error:
        what = "wanted a model file that can be read"
        way = "" if within is None else "; copy the whole package anew, or save the model again"
        msg = f"{Path(folder, path)}: {what}, found {error.strerror}{way}"
        if within is not None and error.errno == errno.ELOOP:
            msg = f"{Path(folder, path)}: {what}, found a symbolic link; copy the package with what its links mean: cp -rL"
        raise ConfigError(msg) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        msg = f"{Path(folder, path)}: wanted a regular file, found something else"
        raise ConfigError(msg)
    if within is not None and found.st_nlink != 1:
        os.close(descriptor)
        msg = f"{Path(folder, path)}: wanted a file with this one name, found hard links: {found.st_nlink} names; copy the package"
        raise ConfigError(msg)
    with os.fdopen(descriptor, "rb") as file:
        if most is not None and found.st_size > most:
            msg = f"{Path(folder, path)}: wanted at most {most:,} bytes, found {found.st_size:,}"
            raise ConfigError(msg)
        return file.read()


def stamp(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """What changes when another file takes this place; None: there is none, or none to be seen, for the moment."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a path or a text
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def check_digest(content: bytes, wanted: str, where: str) -> None:
    """Raises ConfigError: these are not the bytes that were meant."""
    found = hashlib.sha256(content).hexdigest()
    if found != wanted.lower():
        msg = f"{where}: wanted the SHA-256 {wanted}, found {found}; it is damaged or another file than the one that was meant: restore it, or name the SHA-256 of a file that you trust"
        raise ConfigError(msg)


def check_spelling(sha256: object) -> None:
    """Raises ConfigError: not a SHA-256."""
    if sha256 is not None and not (isinstance(sha256, str) and SHA256.fullmatch(sha256)):
        msg = f"sha256: wanted 64 hex digits, found {sha256!r}"
        raise ConfigError(msg)
