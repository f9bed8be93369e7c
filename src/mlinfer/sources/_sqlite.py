"""SQLite for reading: how a database file is opened and what its results look like."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import ConfigError, TransientError, durable
from mlinfer.sql import sqlite_connected, sqlite_errors, sqlite_trouble

SAMPLE = 1000
_SEEN = {int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing. Raises ConfigError: there is no such database."""
    durable.expect_reachable(path)
    if not path.is_file():
        msg = f"database {path}: wanted an SQLite file, found none; create it first, or correct the path"
        raise ConfigError(msg)
    with sqlite_connected(path, read_only=True) as connection:
        with sqlite_errors(path):
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("SELECT count(*) FROM sqlite_master")
        yield connection


def file_at(path: Path) -> tuple[int, int] | None:
    """Which file is at a path now; None: there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def text_or_bytes(raw: bytes) -> str | bytes:
    """A text, or, where it is not UTF-8, its bytes, which no column of texts takes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def result_schema(connection: sqlite3.Connection, path: Path, query: str) -> pa.Schema:
    """Names and types of a query's result. Raises ConfigError: the query does not work."""
    inner = query.rstrip().rstrip(";")
    connection.text_factory = lambda raw: raw.decode(errors="replace")  # types are asked for, not texts
    try:
        cursor = connection.execute(f"SELECT * FROM ({inner}\n) LIMIT {SAMPLE}")  # noqa: S608 - the user's own query
        names = [column[0] for column in cursor.description]
        sample = cursor.fetchall()
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # the other: `:name` for a value
        if isinstance(trouble := sqlite_trouble(path, error), TransientError):
            raise trouble from error
        msg = f"query: wanted one SELECT that the database understands, found: {error}"
        raise ConfigError(msg) from error
    finally:
        connection.text_factory = str
    declared = _declared(connection, inner)
    columns = list(zip(*sample, strict=True)) or [()] * len(names)
    return pa.schema(
        [(name, declared.get(name) or _seen(column)) for name, column in zip(names, columns, strict=True)]
    )


def _declared(connection: sqlite3.Connection, query: str) -> dict[str, pa.DataType | None]:
    """The types of the columns that are a table's own; a temporary view makes SQLite tell them."""
    connection.execute("PRAGMA query_only = OFF")
    try:
        connection.execute("DROP VIEW IF EXISTS temp.mlinfer_query")
        connection.execute(f"CREATE TEMP VIEW mlinfer_query AS SELECT * FROM ({query}\n)")  # noqa: S608 - the same
        found = connection.execute("PRAGMA temp.table_info(mlinfer_query)").fetchall()
    finally:
        connection.execute("PRAGMA query_only = ON")
    return {name: _type(declared.upper()) for _, name, declared, *_ in found}


def _type(declared: str) -> pa.DataType | None:
    """By SQLite's rules of affinity; None where a column may hold anything."""
    parts = [("INT", pa.int64()), ("CHAR", pa.string()), ("CLOB", pa.string()), ("TEXT", pa.string()), ("BLOB", pa.binary()),
             ("REAL", pa.float64()), ("FLOA", pa.float64()), ("DOUB", pa.float64())]  # fmt: skip
    return next((kind for part, kind in parts if part in declared), None)


def _seen(column: tuple[object, ...]) -> pa.DataType:
    """What the first rows hold; text where that says nothing."""
    kinds = {type(value) for value in column if value is not None}
    if kinds == {int, float}:
        return pa.float64()
    return _SEEN[kinds.pop()] if len(kinds) == 1 else pa.string()


def alike(key: Any, other: Any) -> bool:
    """Whether some collation of SQLite may take two texts for one: NOCASE and RTRIM do."""
    return isinstance(key, str) and isinstance(other, str) and _folded(key) == _folded(other)


def _folded(text: str) -> str:
    return text.rstrip(" ").lower()
