"""SQLite: what its columns are called, how Arrow values arrive in it.

All that is particular to SQLite is here, in `_sql_values` and in `mlinfer.sql`; what another database needs is said in `_sql_dialect`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import ComponentError, ConfigError, RecordErrors, chosen_rows, durable
from mlinfer.destinations._sql_dialect import check_names, listed, on_conflict
from mlinfer.destinations._sql_values import refusals, rows_of, storage, values
from mlinfer.sql import quoted, redacted, sqlite_connected, sqlite_errors, sqlite_file

LONGEST_COLUMN = 128
READ_ROWS = 8192
_ARROW = {
    "INTEGER": pa.int64(),
    "REAL": pa.float64(),
    "TEXT": pa.string(),
    "BLOB": pa.binary(),
    "NUMERIC": None,
}
REFUSED = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError)
"""What an insert raises when the row is to blame."""


@dataclass(frozen=True)
class Sqlite:
    """One database file."""

    path: Path
    binary = "BLOB"
    locking = ""  # whoever writes has locked the whole file

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @classmethod
    def at(cls, url: str) -> Sqlite:
        """The database of a URL. Raises ConfigError: it is of another kind, or lives in memory only."""
        if not url.startswith("sqlite:"):
            msg = (
                f"database {redacted(url)!r}: wanted sqlite:///PATH, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE "
                "with pip install 'mlinfer[postgres]'"
            )
            raise ConfigError(msg)
        return cls(sqlite_file(url))

    @property
    def store(self) -> str:
        """The same for all URLs that name the same file."""
        return f"sqlite:///{os.path.realpath(self.path)}"

    def connected(self, *, read_only: bool) -> AbstractContextManager[sqlite3.Connection]:
        """A connection that begins and ends transactions only when it is told to.

        With `read_only` nothing is created: a file that is not there counts as an empty database.
        """
        # lanes take turns on it, by the engine's lock
        return sqlite_connected(self.path, read_only=read_only)

    def look(self) -> None:
        """Raise ConfigError where nobody could write: the journal of a transaction needs the folder, too."""
        durable.expect_writable(self.path.parent)
        durable.expect_writable(self.path)

    @contextmanager
    def transaction(self, connection: sqlite3.Connection, *, alone: bool = False) -> Iterator[None]:  # noqa: ARG002 - always alone
        """All or nothing of what happens in the block; no other process writes meanwhile.

        Raises TransientError (locked), ConfigError (no database), ComponentError (disk full, I/O error, ...).
        """
        with self.translating():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def translating(self) -> AbstractContextManager[None]:
        """Raise the driver's errors as ours."""
        return sqlite_errors(self.path)

    def execute(
        self, connection: sqlite3.Connection, statement: str, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement; the rows that it answers."""
        return connection.execute(statement, values).fetchall()

    def hold(self, connection: sqlite3.Connection, table: str) -> None:
        """Nothing: whoever writes has locked the whole file."""

    def columns(self, connection: sqlite3.Connection, table: str) -> dict[str, str] | None:
        """Names and declared types of a table's columns; None: there is no such table."""
        rows = connection.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
        return {name: declared for _, name, declared, *_ in rows} or None

    def unique(self, connection: sqlite3.Connection, table: str, column: str) -> bool:
        """Whether the database itself sees to it that no two rows have the same value in this column."""
        info = connection.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
        if [name for _, name, _, _, _, place in info if place] == [column]:
            return True
        indexes = connection.execute(f"PRAGMA index_list({quoted(table)})").fetchall()
        for _, index, unique, _, partial in indexes:
            parts = connection.execute(f"PRAGMA index_info({quoted(index)})").fetchall()
            if unique and not partial and [name for _, _, name in parts] == [column]:
                return True
        return False

    def records(self, connection: sqlite3.Connection, table: str) -> Iterator[pa.RecordBatch]:
        """What a table holds; nothing if there is none."""
        columns = self.columns(connection, table)
        if columns is None:
            return
        kinds = [_ARROW[_affinity(declared.upper())] for declared in columns.values()]
        cursor = connection.execute(f"SELECT * FROM {quoted(table)}")  # noqa: S608 - a checked name
        while rows := cursor.fetchmany(READ_ROWS):
            arrays = map(pa.array, zip(*rows, strict=True), kinds)
            yield pa.RecordBatch.from_arrays(list(arrays), names=list(columns))

    def create(self, table: str, schema: pa.Schema, key: str | None) -> str:
        """The statement that makes a table for these records. Raises ConfigError: a column cannot be stored."""
        _check_columns(table, schema)
        parts = [
            f"{quoted(field.name)} {self.declared(field)}"
            + (" NOT NULL PRIMARY KEY" if field.name == key else "")
            for field in schema
        ]
        return f"CREATE TABLE {quoted(table)} ({', '.join(parts)})"

    def declared(self, field: pa.Field) -> str:
        """The type of a column. Raises ConfigError: there is none for it."""
        found = storage(field.type)
        if found is None:
            msg = f"column {field.name!r}: SQLite has no place for {field.type}; leave it out of keep=, or cast it"
            raise ConfigError(msg)
        return found

    def refusals(self, records: pa.RecordBatch, key: str | None) -> RecordErrors | None:
        """The records that SQLite could not store unchanged; None: it can store all of them."""
        return refusals(records, key)

    def insert(
        self, connection: sqlite3.Connection, table: str, records: pa.RecordBatch, *, key: str | None
    ) -> list[tuple[int, str]]:
        """Store records, by key if there is one; the rows that SQLite refuses, and why."""
        names = records.schema.names
        if unnumbered := _unnumbered(connection, table, records):
            others = sorted(set(range(len(records))).difference(unnumbered))
            found = self.insert(connection, table, chosen_rows(records, others), key=key)
            why = "wanted a value in the primary key, found none"
            return sorted([(row, why) for row in unnumbered] + [(others[row], said) for row, said in found])
        statement = (
            f"INSERT INTO {quoted(table)} ({listed(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 - names are quoted
            + ("" if key is None else on_conflict(names, key))
        )
        columns = list(map(values, records.columns))
        refused: list[tuple[int, str]] = []
        connection.execute("SAVEPOINT mlinfer_rows")
        try:
            connection.executemany(statement, zip(*columns, strict=True))
        except REFUSED:
            _must_go_on(connection, table)
            connection.execute("ROLLBACK TO mlinfer_rows")
            # A failed statement leaves the rest of the transaction alone: the guilty are found one by one.
            for number, row in enumerate(zip(*columns, strict=True)):
                try:
                    connection.execute(statement, row)
                except REFUSED as error:
                    _must_go_on(connection, table)
                    refused.append((number, str(error)))
        connection.execute("RELEASE mlinfer_rows")
        return refused

    def misfits(self, found: dict[str, str], schema: pa.Schema) -> list[str]:
        """What keeps records of this schema from going into a table with these columns, as sentences."""
        names = {name.lower(): declared for name, declared in found.items()}
        problems = []
        for field in schema:
            wanted = self.declared(field)
            declared = names.get(field.name.lower())
            if declared is None:
                problems.append(f"column {field.name!r} ({wanted}) is missing")
            elif not _takes(declared, wanted, field.type):
                problems.append(f"column {field.name!r} is {declared}, wanted {wanted}")
        return problems


def _check_columns(table: str, schema: pa.Schema) -> None:
    lower = [name.lower() for name in schema.names]
    if twice := sorted({name for name in schema.names if lower.count(name.lower()) > 1}):
        msg = f"table {table!r}: SQLite does not tell {' and '.join(map(repr, twice))} apart; rename one of them"
        raise ConfigError(msg)
    check_names(table, schema, LONGEST_COLUMN)


def _unnumbered(connection: sqlite3.Connection, table: str, records: pa.RecordBatch) -> list[int]:
    """The rows that have no value in an INTEGER PRIMARY KEY, where SQLite would make one up."""
    info = connection.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
    keys = [(name.lower(), declared.upper()) for _, name, declared, _, _, place in info if place]
    if len(keys) != 1 or keys[0][1] != "INTEGER":
        return []
    columns = [n for n, name in enumerate(records.schema.names) if name.lower() == keys[0][0]]
    return [
        row for n in columns if records.column(n).null_count for row in rows_of(records.column(n).is_null())
    ]


def _must_go_on(connection: sqlite3.Connection, table: str) -> None:
    if not connection.in_transaction:  # else the rows that follow would be stored one by one
        msg = f"table {table!r}: a trigger or constraint has rolled the whole transaction back; use RAISE(ABORT, ...) there"
        raise ComponentError(msg)


def _takes(declared: str, wanted: str, kind: pa.DataType) -> bool:
    """Whether a column stores such values as they are; SQLite would convert some (SQLite's rules of affinity)."""
    affinity = _affinity(declared.upper())
    if affinity == "BLOB" or wanted == "BLOB":
        return True
    # DATETIME, BOOLEAN, DECIMAL: numbers stay numbers, dates are not mistaken for any
    if affinity == "NUMERIC":
        return wanted != "TEXT" or pa.types.is_temporal(kind)
    return affinity == wanted


def _affinity(declared: str) -> str:
    for part, affinity in (
        ("INT", "INTEGER"),
        ("CHAR", "TEXT"),
        ("CLOB", "TEXT"),
        ("TEXT", "TEXT"),
        ("BLOB", "BLOB"),
    ):
        if part in declared:
            return affinity
    if any(part in declared for part in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC" if declared else "BLOB"
