"""Answers in a table of an SQL database; rows, rejects and progress are stored in one transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mlinfer import (
    Batch,
    ComponentError,
    ConfigError,
    DataDestination,
    Progress,
    RecordErrors,
    Scope,
    failpoint,
)
from mlinfer.destinations._if_exists import IfExists, check_if_exists
from mlinfer.destinations._sql_databases import check, database
from mlinfer.destinations._sql_dialect import Dialect
from mlinfer.destinations._sql_state import State
from mlinfer.destinations._sql_table import Table, look
from mlinfer.sql import quoted, redacted

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, repr=False)
class SqlDestination(DataDestination):
    """Writes a table of an SQLite or PostgreSQL database, exactly once, crashes included.

    Outputs of one pipeline in one database (answers, rejects, side tables) are stored in one transaction. What mlinfer
    knows about its runs is in the tables `mlinfer_epochs` and `mlinfer_progress` of the same database.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`, a file that is created if it is not there; or
            `postgresql://user:password@host:port/database`, which needs `pip install 'mlinfer[postgres]'`. `${NAME}` in it
            is an environment variable; `file:/path` a file that holds the whole URL.
        table: letters, digits and underscores; created if it is not there.
        key: a column that names each record: a record with the same key overwrites the one before. Without it records
            are appended.
        if_exists: what to do with a table that this pipeline has not written before: `fail`, `append` to it (its columns
            must fit), or `replace` it at the first commit.
    """

    url: str
    table: str
    key: str | None = None
    if_exists: IfExists = "fail"
    transactional = True
    holds_one_output = True

    def __post_init__(self) -> None:
        """Raise ConfigError for a URL, table or choice that cannot work."""
        check(self.url)
        table: object = self.table
        key: object = self.key
        fits = isinstance(table, str) and _NAME.fullmatch(table)
        if not fits or self.table.lower().startswith(("sqlite_", "pg_", "mlinfer_")):
            msg = (
                f"table: wanted a name of at most 63 letters, digits and underscores that does not begin with a digit, "
                f"sqlite_, pg_ or mlinfer_, found {table!r:.82}"
            )
            raise ConfigError(msg)
        if key is not None and not isinstance(key, str):
            msg = f"key: wanted the name of one column, found {key!r:.100}; put several into one, such as by Mapped"
            raise ConfigError(msg)
        check_if_exists(self.if_exists)

    def __repr__(self) -> str:
        """The arguments, without what could be a password."""
        more = "" if self.key is None else f", key={self.key!r}"
        return f"SqlDestination({redacted(self.url)!r}, table={self.table!r}{more})"

    @property
    def keyed(self) -> bool:  # type: ignore[override]  # here it depends on the arguments
        """Whether a record overwrites the one with the same key."""
        return self.key is not None

    @property
    def store(self) -> str:  # type: ignore[override]  # the same
        """The database."""
        return database(self.url).store

    def records(self, scope: Scope) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - a table does not say who wrote a row
        """The rows of the table, as the database stores them; nothing if there is no table."""
        dialect = database(self.url)
        with dialect.connected(read_only=True) as connection, dialect.translating():
            yield from dialect.records(connection, self.table)

    def prune(self, scope: Scope, before: datetime) -> int:
        """Remove rejects of one pipeline that are older, in one transaction; how many there were."""
        dialect = database(self.url)
        with dialect.connected(read_only=True) as connection, dialect.translating():
            if dialect.columns(connection, self.table) is None:
                return 0
        chosen = f"FROM {quoted(self.table)} WHERE pipeline = ? AND rejected_at < ?"
        values = (scope.pipeline, f"{before.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}")
        with dialect.connected(read_only=False) as connection, dialect.transaction(connection):
            ((count,),) = dialect.execute(connection, f"SELECT count(*) {chosen}", values)
            dialect.execute(connection, f"DELETE {chosen}", values)
        return int(count)

    def stored(self, scope: Scope) -> Progress:
        """The progress in the database. Raises ChangedError: it is damaged."""
        dialect = database(self.url)
        with dialect.connected(read_only=True) as connection, dialect.translating():
            return State(dialect, connection, scope).load()

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[SqlWriter]:
        """Take the output over from earlier runs, and make its table if it is not there.

        Raises ConfigError: the table there is not ours or does not fit; ChangedError: the progress is damaged;
        FencedError: the scope's epoch is no longer the latest.
        """
        dialect = database(self.url)
        with dialect.connected(read_only=scope.read_only) as connection:
            yield SqlWriter(dialect, connection, scope, self._table(schema, dialect))

    def _table(self, schema: pa.Schema, dialect: Dialect) -> Table:
        return Table(self.table, self.key, self.if_exists, schema, dialect)


class SqlWriter:
    """Buffers, and stores everything at the commit: no transaction is open between calls."""

    def __init__(self, dialect: Dialect, connection: Any, scope: Scope, table: Table) -> None:
        self._dialect, self._connection = dialect, connection
        self._state = State(dialect, connection, scope)
        self._outputs: list[tuple[State, Table]] = []
        self._anew: list[tuple[State, Table, bool]] = []
        self._table = table
        self._epoch = self._add(table, scope)
        with dialect.translating():
            self._known = Progress() if scope.fresh else self._state.load()

    def write(self, batch: Batch) -> None:
        """Check the records and remember them."""
        self._table.remember(batch)

    def commit(self, progress: Progress) -> None:
        """Store all that waits, here and in joined outputs, and the progress; all of it or nothing.

        Raises RecordErrors, FencedError, TransientError (locked, connection lost) or ComponentError; then nothing is
        stored, or the connection was lost so that only who connects again can know.
        """
        merged = self._known.merged(progress)
        try:
            with self._dialect.transaction(self._connection):
                failpoint("dest.begin")
                self._state.check_epoch(self._epoch)
                self._begin_anew()
                for _, table in self._outputs:
                    self._dialect.hold(self._connection, table.name)
                    table.check_fit(self._connection)
                    self._store(table)
                self._state.save({*progress.positions, *progress.states}, merged, self._epoch)
        except RecordErrors:
            self._table.waiting.clear()  # the rows of joined outputs wait for the next attempt
            raise
        self._known = merged
        self._anew.clear()
        for _, table in self._outputs:
            table.waiting.clear()

    def committed(self) -> Progress:
        """What the commits so far have stored."""
        return replace(self._known, epoch=self._epoch)

    @contextmanager
    def join(self, destination: DataDestination, schema: pa.Schema, scope: Scope) -> Iterator[JoinedWriter]:
        """Write another table of this database in the same transactions."""
        if not isinstance(destination, SqlDestination):
            msg = f"{scope.output}: wanted an SqlDestination for a table of {self._dialect.place}, found {destination!r}"
            raise ConfigError(msg)
        table = destination._table(schema, self._dialect)  # noqa: SLF001 - one of our own
        self._add(table, scope)
        yield JoinedWriter(table)

    def _add(self, table: Table, scope: Scope) -> int:
        """Take an output over: from now on an older run of it can commit nothing more."""
        state = State(self._dialect, self._connection, scope)
        for other, taken in self._outputs:
            if taken.name == table.name:
                msg = f"table {table.name!r}: wanted a table for each output, found it named for {other.scope.output} and {scope.output}; name two"
                raise ConfigError(msg)
        self._outputs.append((state, table))
        if scope.read_only:
            self._dialect.look()
            with self._dialect.translating():
                look(state, table)
                return state.stored_epoch()
        with self._dialect.transaction(self._connection, alone=True):
            state.prepare()
            epoch = state.take_epoch()
            begin = look(state, table)
            if begin == "create":
                self._execute(table.create)
                state.forget()  # there is none, or it belongs to a table that a fresh run leaves behind
            if begin == "adopt":
                state.release(table.name)
                self._make_anew(table)
            if begin in {"create", "join", "adopt"}:
                state.take_table(table.name, created=begin != "join")
        if scope.fresh or begin == "replace":
            self._anew.append((state, table, begin == "replace"))
        return epoch

    def _execute(self, statement: str) -> None:
        self._dialect.execute(self._connection, statement)

    def _begin_anew(self) -> None:
        """What was there goes in the same transaction in which the new comes."""
        for state, table, replaced in self._anew:
            state.forget()
            if replaced:
                self._make_anew(table)
                state.take_table(table.name, created=True)
            else:
                self._execute(f"DELETE FROM {quoted(table.name)}")  # noqa: S608 - a checked name

    def _make_anew(self, table: Table) -> None:
        self._execute(f"DROP TABLE {quoted(table.name)}")
        self._execute(table.create)

    def _store(self, table: Table) -> None:
        errors = table.store(self._connection)
        if errors is None:
            return
        if table is self._table:
            raise errors
        msg = f"table {table.name!r}: it refused records that are not the main output's own: {errors}"
        raise ComponentError(msg) from errors


@dataclass
class JoinedWriter:
    """Writes into the transactions of the main output's writer."""

    table: Table

    def write(self, batch: Batch) -> None:
        """Check the records and remember them."""
        self.table.remember(batch)

    def commit(self, progress: Progress) -> None:
        """Nothing: the main output's commit stores these records, too."""
