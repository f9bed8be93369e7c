"""SQL databases as parts use them: names and addresses in statements and messages, and how a file of SQLite is opened."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlinfer import durable
from mlinfer._errors import ChangedError, ComponentError, ConfigError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlinfer._errors import MlinferError

__all__ = ["quoted", "redacted", "sqlite_connected", "sqlite_errors", "sqlite_file", "sqlite_trouble"]
_BUSY_SECONDS = 30
_SECRET = re.compile(r"://.*@", re.DOTALL)
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}
_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def redacted(url: str) -> str:
    """A URL without what could be a password."""
    return _SECRET.sub("://***@", url).partition("?")[0]


def sqlite_file(url: str) -> Path:
    """The file of a URL. Raises ConfigError: it is of another kind, or lives in memory only."""
    path = url.removeprefix("sqlite:///")
    if path in {url, "", ":memory:"} or "?" in path or "\0" in path:
        msg = f"database {redacted(url)!r}: wanted sqlite:///relative.db or sqlite:////absolute.db, the path of an SQLite file"
        raise ConfigError(msg)
    return Path(path)


@contextmanager
def sqlite_connected(path: Path, *, read_only: bool) -> Iterator[sqlite3.Connection]:
    """A connection that begins and ends transactions only when it is told to; one thread at a time may use it.

    A file that is not there is made, for its owner alone. With `read_only` nothing is made or changed: it counts as an
    empty database. A commit is not undone by a power loss right after it.
    """
    durable.expect_reachable(path)
    if read_only and not path.exists():
        _expect_folder(path)
        target = ":memory:"
    else:
        if not read_only:
            _create(path)
        # rw, not ro: only so can SQLite first undo what a writer that died has left half done.
        target = f"file:{quote(str(path))}?mode=rw"
    with sqlite_errors(path):
        connection = sqlite3.connect(
            target, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True
        )
    with closing(connection):
        with sqlite_errors(path):
            connection.execute("PRAGMA synchronous = EXTRA")  # FULL plus a flush of the folder
            connection.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
        yield connection


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Raise the driver's errors as ours: see `sqlite_trouble`. Raises ChangedError: a text in the database is not UTF-8.

    Decode nothing else in the block: it would be taken for a text of the database.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise sqlite_trouble(path, error) from error
    except UnicodeDecodeError as error:  # the driver has no class of its own for it
        msg = f"database {path}: wanted texts in UTF-8, found something else: it is damaged; restore the database from a backup"
        raise ChangedError(msg) from error


def sqlite_trouble(path: Path, error: sqlite3.Error) -> MlinferError:
    """What an error means for the run: TransientError (locked), ConfigError (no database), ComponentError (anything else)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return TransientError(f"database {path}: still locked by somebody else after {_BUSY_SECONDS} s")
    if code in _UNUSABLE:
        return ConfigError(f"database {path}: wanted an SQLite database that can be opened, found: {error}")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    advice = "; make room or mend the disk, then run the pipeline again: what was committed is safe"
    return ComponentError(f"database {path}: {error} ({name}){advice if code in _DISK else ''}")


def _create(path: Path) -> None:
    _expect_folder(path)
    try:
        with durable.create(path):
            pass
    except FileExistsError:
        return
    except OSError as error:
        msg = f"database {path}: wanted a place where a file can be made, found: {error.strerror}"
        raise ConfigError(msg) from error
    durable.flush_folder(path.parent)


def _expect_folder(path: Path) -> None:
    if not path.parent.is_dir():
        msg = f"database {path}: the folder {path.parent} does not exist; create it first"
        raise ConfigError(msg)
