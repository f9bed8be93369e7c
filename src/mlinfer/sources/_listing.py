"""Which files a path means, and what each of them is called for ever: shared by all sources that read files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NoReturn

from mlinfer import ConfigError, located

PASSED_OVER = (".", "_")
TEMPORARY = (".tmp", ".part")
PASSED_OVER_NOTE = "names that begin with '.' or '_' or end in .tmp or .part are passed over"


def list_files(
    path: str | os.PathLike[str], suffixes: Sequence[str] = (), *, follow: bool = False
) -> list[tuple[str, Path]]:
    """The files that a path means, as (partition name, path), sorted by name.

    `path` is one file, a glob (`flights/*.parquet`, `flights/**/*.parquet`) or a directory: then all files below it
    that end in one of `suffixes` (none given: all). Files and folders whose names begin with `.` or `_` or end in
    `.tmp` or `.part` are passed over, unless `path` is just that file. A partition is named by its path below the part
    of `path` that holds no wildcard, with `/` between folders, so that progress outlives moving the folder; a single
    file is named by its file name. `${NAME}` in `path` stands for an environment variable.

    Raises ConfigError: there is no such file or directory, it cannot be listed, or it holds none of the files (save
    with `follow`, where an empty directory may fill later).
    """
    root, pattern = _split(path)
    if root.is_file() and pattern is None:
        return [(_checked(root.name), root)]
    if not root.is_dir():
        msg = f"wanted files at {os.fspath(path)!r}, found no file or directory {str(root.absolute())!r}; correct the path or create it"
        raise ConfigError(msg)
    names = _in_folder(root, tuple(suffixes)) if pattern is None else _matching(root, pattern)
    found = sorted({_checked(name) for name in names if not _passed_over(name) and (root / name).is_file()})
    if not found and not follow:
        kinds = f" ending in {' or '.join(suffixes)}" if suffixes and pattern is None else ""
        msg = f"wanted files{kinds} at {os.fspath(path)!r}, found none; correct the path ({PASSED_OVER_NOTE})"
        raise ConfigError(msg)
    return [(name, root / name) for name in found]


def file_of(path: str | os.PathLike[str], partition: str) -> Path:
    """The file that `list_files` calls by this name, without listing anything."""
    root, pattern = _split(path)
    return root if pattern is None and root.name == partition and not root.is_dir() else root / partition


def _split(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The part without wildcards and the rest (None: there are no wildcards, or the path is there as it is spelled)."""
    whole = located(path)
    if not glob.has_magic(str(whole)) or whole.exists():
        return whole, None
    parts = whole.parts
    first = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]), str(PurePosixPath(*parts[first:]))


def _in_folder(root: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    for folder, below, names in os.walk(root, onerror=_unreadable):
        below[:] = [name for name in below if not _passed_over(name)]
        for name in names:
            if not suffixes or name.lower().endswith(suffixes):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _matching(root: Path, pattern: str) -> Iterator[str]:
    try:
        os.scandir(root).close()  # glob takes a folder that it may not read for an empty one
    except OSError as error:
        _unreadable(error)
    wanted = PurePosixPath(pattern).parts
    if "**" in wanted:
        yield from (name for name in _below(root, "", frozenset()) if _fits(name.split("/"), wanted))
        return
    for name in glob.iglob(pattern, root_dir=root):  # noqa: PTH207 - means the same in every Python
        yield PurePosixPath(name).as_posix()


def _below(folder: Path, before: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """All files below a folder; `above` are the folders on the way to it.

    A link to one of them is not followed: `glob` would go round 40 times, and with two such links for ever.
    """
    try:
        found = folder.stat()
        here = (found.st_dev, found.st_ino)
        entries = list(os.scandir(folder)) if here not in above else []
    except FileNotFoundError:  # gone since it was seen
        return
    except OSError as error:
        _unreadable(error)
    for entry in entries:
        name = before + entry.name
        if _passed_over(entry.name):
            continue
        if entry.is_dir():
            yield from _below(folder / entry.name, f"{name}/", above | {here})
        else:
            yield name


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a path is meant by a pattern, part by part; `**` stands for any number of folders."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_fits(parts[count:], wanted[1:]) for count in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _passed_over(name: str) -> bool:
    return any(
        part.startswith(PASSED_OVER) or part.lower().endswith(TEMPORARY) for part in PurePosixPath(name).parts
    )


def _checked(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        msg = f"wanted file names in UTF-8, found {os.fsencode(name)!r}; rename the file"
        raise ConfigError(msg) from error
    return name


def _unreadable(error: OSError) -> NoReturn:
    msg = f"wanted to list {error.filename!r}, found {error.strerror}; allow this user to read the directory"
    raise ConfigError(msg) from error
