"""PostgreSQL: what its columns are called, how records get into it, when a commit is one.

All that is particular to PostgreSQL is here and in the modules `_postgres_*`; what another database needs is said in
`_sql_dialect`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlinfer import ConfigError, RecordErrors, TransientError
from mlinfer.destinations import _postgres_line as line
from mlinfer.destinations._postgres_address import Address, address
from mlinfer.destinations._postgres_values import between, csv_of, storage, too_fine, too_long
from mlinfer.destinations._sql_dialect import check_names, listed, on_conflict
from mlinfer.destinations._sql_values import refusals
from mlinfer.sql import quoted

if TYPE_CHECKING:
    import psycopg

LONGEST_COLUMN = 63
COPY_BYTES = 256 * 2**10
READ_ROWS = 8192
SETTLE_SECONDS = 10.0
ALONE = 0x6D6C696E666572  # the lock that keeps runs apart while they take outputs over: "mlinfer"
_COLUMNS = (
    "SELECT attname, CASE attgenerated WHEN '' THEN format_type(atttypid, atttypmod) ELSE 'generated' END FROM pg_attribute"
    " WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
)
_UNIQUE = (
    "SELECT 1 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]"
    " WHERE indrelid = to_regclass(?) AND attname = ? AND indnkeyatts = 1 AND indisunique AND indisvalid"
    " AND indimmediate AND indpred IS NULL AND indexprs IS NULL"
)
_TAKEN_BY = {
    "BOOLEAN": ("boolean",),
    "SMALLINT": ("smallint", "integer", "bigint", "numeric"),
    "INTEGER": ("integer", "bigint", "numeric"),
    "BIGINT": ("integer", "bigint", "numeric"),
    "REAL": ("real", "double precision"),
    "DOUBLE PRECISION": ("double precision",),
    "TEXT": ("text", "character varying", "uuid", "citext"),
    "BYTEA": ("bytea",),
    "DATE": ("date",),
    "TIME": ("time without time zone",),
    "TIMESTAMP": ("timestamp without time zone",),
    "TIMESTAMPTZ": ("timestamp with time zone",),
    "INTERVAL": ("interval",),
    "JSONB": ("jsonb", "json", "text"),
}


@dataclass(frozen=True)
class Postgres:
    """One database of a server."""

    where: Address
    binary = "BYTEA"
    locking = " FOR UPDATE"

    @classmethod
    def at(cls, url: str, look_up: Callable[[str], str]) -> Postgres:
        """The database of a URL. Raises ConfigError: it is misspelt, or a variable in it is not set."""
        return cls(address(url, look_up))

    @property
    def place(self) -> str:
        """Host, port and database."""
        return str(self.where)

    @property
    def store(self) -> str:
        """The same for all URLs that lead the same user to the same database."""
        return f"postgresql://{self.where.user or ''}@{self.where}"

    @contextmanager
    def connected(self, *, read_only: bool) -> Iterator[psycopg.Connection[Any]]:
        """A connection that begins and ends transactions only when it is told to."""
        with closing(line.connect(self.where, read_only=read_only)) as connection:
            yield connection

    def look(self) -> None:
        """Nothing: what a user may do is the server's to say."""

    @contextmanager
    def transaction(self, connection: psycopg.Connection[Any], *, alone: bool = False) -> Iterator[None]:
        """All or nothing of what happens in the block; `alone`: no other run takes an output over meanwhile.

        Raises TransientError, ConfigError or ComponentError. When the line is cut in the middle of the commit, the server
        is asked on a new one what became of it; if it cannot tell now, TransientError: the next session finds out.
        """
        with self.translating():
            # Constraints that could wait until the commit are checked row by row: there the guilty row is still known.
            self.execute(connection, "BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE")
            try:
                if alone:
                    self.execute(connection, f"SELECT pg_advisory_xact_lock({ALONE})")
                yield
                [(number,)] = self.execute(connection, "SELECT pg_current_xact_id_if_assigned()::text")
            except BaseException:
                if not connection.closed:
                    self.execute(connection, "ROLLBACK")
                raise
            self._commit(connection, number)

    def _commit(self, connection: psycopg.Connection[Any], number: str | None) -> None:
        try:
            self.execute(connection, "COMMIT")
        except line.driver().OperationalError as error:
            if not connection.closed:  # the server has answered: it has not stored anything
                raise
            if number is not None and not self._settled(number):
                msg = f"database {self.where}: the connection was lost in the middle of a commit, which the server has undone"
                raise TransientError(msg) from error

    def _settled(self, number: str) -> bool:
        """Whether a transaction was committed. Raises TransientError: the server cannot tell now."""
        latest = time.monotonic() + SETTLE_SECONDS
        with closing(line.connect(self.where, read_only=True)) as connection:
            while True:
                [(status,)] = self.execute(connection, "SELECT pg_xact_status(?::xid8)", (number,))
                if status in {"committed", "aborted"}:
                    return bool(status == "committed")
                if time.monotonic() > latest:
                    msg = f"database {self.where}: the connection was lost in the middle of a commit; its outcome is not known yet"
                    raise TransientError(msg)
                time.sleep(0.05)

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Raise the driver's errors as ours."""
        with line.translating(self.where):
            yield

    def execute(
        self, connection: psycopg.Connection[Any], statement: str, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement, its values at the `?`; the rows that it answers."""
        with line.answering(connection):
            cursor = (
                connection.execute(statement.replace("?", "%s"), values)
                if values
                else connection.execute(statement)
            )
            return cursor.fetchall() if cursor.description else []

    def columns(self, connection: psycopg.Connection[Any], table: str) -> dict[str, str] | None:
        """Names and types of a table's columns; None: there is no such table."""
        return dict(self.execute(connection, _COLUMNS, (quoted(table),))) or None

    def hold(self, connection: psycopg.Connection[Any], table: str) -> None:
        """Until the transaction ends nobody changes the columns of this table, if it is there."""
        if self.columns(connection, table) is not None:
            self.execute(connection, f"LOCK TABLE {quoted(table)} IN ROW EXCLUSIVE MODE")

    def unique(self, connection: psycopg.Connection[Any], table: str, column: str) -> bool:
        """Whether the database itself sees to it that no two rows have the same value in this column."""
        return bool(self.execute(connection, _UNIQUE, (quoted(table), column)))

    def create(self, table: str, schema: pa.Schema, key: str | None) -> str:
        """The statement that makes a table for these records. Raises ConfigError: a column cannot be stored."""
        check_names(table, schema, LONGEST_COLUMN)
        if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
            msg = f"table {table!r}: wanted columns of different names, found {twice[0]!r} twice; rename one of them"
            raise ConfigError(msg)
        parts = [
            f"{quoted(field.name)} {_declared(field)}" + (" PRIMARY KEY" if field.name == key else "")
            for field in schema
        ]
        return f"CREATE TABLE {quoted(table)} ({', '.join(parts)})"

    def misfits(self, found: dict[str, str], schema: pa.Schema) -> list[str]:
        """What keeps records of this schema from going into a table with these columns, as sentences."""
        problems = []
        for field in schema:
            wanted = _declared(field)
            if (there := found.get(field.name)) is None:
                problems.append(f"column {field.name!r} ({wanted}) is missing")
            elif not _takes(there, wanted):
                problems.append(f"column {field.name!r} is {there}, wanted {wanted}")
        return problems

    def refusals(self, records: pa.RecordBatch, key: str | None) -> RecordErrors | None:
        """The records that PostgreSQL could not store unchanged; None: it can store all of them."""
        return refusals(records, key, too_fine)

    def insert(
        self, connection: psycopg.Connection[Any], table: str, records: pa.RecordBatch, *, key: str | None
    ) -> list[tuple[int, str]]:
        """Store records, by key if there is one; the rows that PostgreSQL refuses, and why.

        A refusal undoes everything since the last savepoint: the guilty rows are found by halves.
        """
        refused = too_long(records, self.columns(connection, table) or {})
        rest = between(records, [row for row, _ in refused])
        while rest:
            start, part = rest.pop()
            self.execute(connection, "SAVEPOINT mlinfer_rows")
            try:
                self._copy(connection, table, part, key)
            except line.driver().Error as error:
                if not line.is_refusal(error):
                    raise
                self.execute(connection, "ROLLBACK TO mlinfer_rows")
                if len(part) == 1:
                    refused.append((start, line.reason(error)))
                else:
                    half = len(part) // 2
                    rest += [(start + half, part.slice(half)), (start, part.slice(0, half))]
            self.execute(connection, "RELEASE mlinfer_rows")
        return sorted(refused)

    def _copy(
        self, connection: psycopg.Connection[Any], table: str, records: pa.RecordBatch, key: str | None
    ) -> None:
        """Copy records into the table; with a key by way of a table of their own, the last one of each key."""
        columns = listed(records.schema.names)
        target = quoted(table)
        if key is not None:
            target = "pg_temp.mlinfer_rows"
            self.execute(connection, f"CREATE TEMP TABLE mlinfer_rows ON COMMIT DROP AS SELECT {columns} FROM {quoted(table)} WITH NO DATA")  # noqa: S608 - names are quoted  # fmt: skip
        text = csv_of(records)
        with (
            connection.cursor() as cursor,
            _finishing(connection, cursor.copy(f"COPY {target} ({columns}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')")) as copy,
        ):  # fmt: skip
            for start in range(0, len(text), COPY_BYTES):
                with line.answering(connection):
                    copy.write(text[start : start + COPY_BYTES])
        if key is not None:
            by_key = f"SELECT DISTINCT ON ({quoted(key)}) {columns} FROM {target} ORDER BY {quoted(key)}, ctid DESC"  # noqa: S608 - the same
            self.execute(
                connection,
                f"INSERT INTO {quoted(table)} ({columns}) {by_key}{on_conflict(records.schema.names, key)}",
            )
            self.execute(connection, f"DROP TABLE {target}")

    def records(self, connection: psycopg.Connection[Any], table: str) -> Iterator[pa.RecordBatch]:
        """What a table holds, in one snapshot; nothing if there is none."""
        found = self.columns(connection, table)
        if found is None:
            return
        self.execute(connection, "BEGIN")
        with connection.cursor(name="mlinfer_records") as cursor:
            cursor.execute(f"SELECT {listed(list(found))} FROM {quoted(table)}")  # noqa: S608 - names are quoted
            while rows := cursor.fetchmany(READ_ROWS):
                arrays = [_read(column) for column in zip(*rows, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, names=list(found))
        self.execute(connection, "COMMIT")


@contextmanager
def _finishing(connection: psycopg.Connection[Any], copying: Any) -> Iterator[Any]:
    """A copy whose beginning and end, too, are answered in time."""
    with line.answering(connection):
        copy = copying.__enter__()
    try:
        yield copy
    except BaseException as error:
        with line.answering(connection):
            copying.__exit__(type(error), error, error.__traceback__)
        raise
    with line.answering(connection):
        copying.__exit__(None, None, None)


def _declared(field: pa.Field) -> str:
    found = storage(field.type)
    if found is None:
        msg = f"column {field.name!r}: PostgreSQL has no place for {field.type}; leave it out of keep=, or cast it"
        raise ConfigError(msg)
    return found


def _takes(there: str, wanted: str) -> bool:
    """Whether a column stores such values as they are, or refuses them."""
    plain, _, size = there.partition("(")
    if wanted.startswith("NUMERIC"):
        scale = int(wanted.rstrip(")").rpartition(",")[2])
        return plain == "numeric" and (not size or int(size.rstrip(")").partition(",")[2] or 0) >= scale)
    if size and plain not in {"character varying", "numeric"}:  # TIMESTAMP(0) and its like round
        return False
    return plain in _TAKEN_BY[wanted] and "-" not in size  # NUMERIC(5,-2) rounds to hundreds


def _read(column: tuple[Any, ...]) -> pa.Array:
    """A column as Arrow sees its Python objects; as text where they are not of one kind."""
    try:
        return pa.array(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in column])
