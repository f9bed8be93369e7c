"""What the SQL destination needs of a database. The next database is one more class with these methods.

`_sql`, `_sql_table` and `_sql_state` know no database by name; `_sqlite` and `_postgres` know one each, and
`_sql_databases` chooses between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow as pa

from mlinfer import ConfigError, RecordErrors
from mlinfer.sql import quoted


class Dialect(Protocol):
    """One database: where it is, what its columns are called, how records get into it.

    `place` names it in messages and `store` is the same for all URLs of one database; neither holds a password. `binary`
    is its type for bytes, `locking` what a SELECT needs to keep others from changing the row. A connection is the
    driver's own; one thread at a time uses it.
    """

    @property
    def place(self) -> str: ...
    @property
    def store(self) -> str: ...
    @property
    def binary(self) -> str: ...
    @property
    def locking(self) -> str: ...

    def connected(self, *, read_only: bool) -> AbstractContextManager[Any]:
        """A connection; with `read_only` one that cannot change anything. Raises ConfigError, TransientError."""
        ...

    def look(self) -> None:
        """Raise ConfigError if it is plain that nothing can be written here."""
        ...

    def transaction(self, connection: Any, *, alone: bool = False) -> AbstractContextManager[None]:
        """All or nothing of what happens in the block, durable at its end. `alone`: no other such block runs meanwhile.

        Raises TransientError when it may work later; whether it was stored may then be unknown.
        """
        ...

    def translating(self) -> AbstractContextManager[None]:
        """Raise the driver's errors as ours."""
        ...

    def execute(self, connection: Any, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, its values at the `?`; the rows that it answers."""
        ...

    def columns(self, connection: Any, table: str) -> dict[str, str] | None:
        """Names and declared types of a table's columns; None: there is no such table."""
        ...

    def hold(self, connection: Any, table: str) -> None:
        """Until the transaction ends nobody changes the columns of this table, if it is there."""
        ...

    def unique(self, connection: Any, table: str, column: str) -> bool:
        """Whether the database itself sees to it that no two rows have the same value in this column."""
        ...

    def create(self, table: str, schema: pa.Schema, key: str | None) -> str:
        """The statement that makes a table for these records. Raises ConfigError: a column cannot be stored."""
        ...

    def misfits(self, found: dict[str, str], schema: pa.Schema) -> list[str]:
        """What keeps records of this schema from going into a table with these columns, as sentences."""
        ...

    def refusals(self, records: pa.RecordBatch, key: str | None) -> RecordErrors | None:
        """The records that the database could not store unchanged; None: it can store all of them."""
        ...

    def insert(
        self, connection: Any, table: str, records: pa.RecordBatch, *, key: str | None
    ) -> list[tuple[int, str]]:
        """Store records in the open transaction, by key if there is one; the rows that are refused, and why."""
        ...

    def records(self, connection: Any, table: str) -> Iterator[pa.RecordBatch]:
        """What a table holds; nothing if there is none."""
        ...


def listed(names: Sequence[str]) -> str:
    """Names as a list of SQL identifiers."""
    return ", ".join(map(quoted, names))


def on_conflict(names: Sequence[str], key: str) -> str:
    """What follows an INSERT so that a record overwrites the one with its key."""
    changes = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names if name != key)
    return f" ON CONFLICT ({quoted(key)}) DO {f'UPDATE SET {changes}' if changes else 'NOTHING'}"


def check_names(table: str, schema: pa.Schema, longest: int) -> None:
    """Raise ConfigError for column names that no database takes, or that are too long (in bytes) for this one."""
    for name in schema.names:
        if not 0 < len(name.encode()) <= longest or not name.isprintable():
            msg = f"table {table!r}: wanted column names of 1 to {longest} printable characters, found {name[:longest]!r}"
            raise ConfigError(msg)
