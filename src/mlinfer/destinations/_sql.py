"""Answers in a table of an SQL database; rows, rejects and progress are stored in one transaction."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

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
    resolve,
)
from mlinfer.destinations._sql_state import State
from mlinfer.destinations._sql_values import refusals, values
from mlinfer.destinations._sqlite import REFUSED, Sqlite, quoted, redacted

IfExists = Literal["fail", "append", "replace"]
READ_ROWS = 8192
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, repr=False)
class SqlDestination(DataDestination):
    """Writes a table of an SQLite database, exactly once, crashes included.

    Outputs of one pipeline in one database (answers, rejects, side tables) are stored in one transaction. What mlinfer
    knows about its runs is in the tables `mlinfer_epochs` and `mlinfer_progress` of the same database.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`; the file is created if it is not there.
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

    def __post_init__(self) -> None:
        """Raise ConfigError for a URL, table or choice that cannot work."""
        if "${" not in self.url and not self.url.startswith("file:"):
            Sqlite.at(self.url)
        lower = self.table.lower()
        if not _NAME.fullmatch(self.table) or lower.startswith(("sqlite_", "mlinfer_")):
            msg = (
                f"table: wanted a name of at most 63 letters, digits and underscores that does not begin with a digit, "
                f"sqlite_ or mlinfer_, found {self.table[:80]!r}"
            )
            raise ConfigError(msg)
        if self.if_exists not in {"fail", "append", "replace"}:
            msg = f"if_exists: wanted 'fail', 'append' or 'replace', found {self.if_exists!r}"
            raise ConfigError(msg)

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
        """The database file."""
        return Sqlite.at(resolve(self.url)).store

    def records(self, scope: Scope) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - a table does not say who wrote a row
        """The rows of the table, as SQLite stores them; nothing if there is no table."""
        dialect = Sqlite.at(resolve(self.url))
        with dialect.connected(read_only=True) as connection, dialect.translating():
            if dialect.columns(connection, self.table) is None:
                return
            rows = connection.execute(f"SELECT * FROM {quoted(self.table)}")  # noqa: S608 - a checked name
            names = [name for name, *_ in rows.description]
            while some := rows.fetchmany(READ_ROWS):
                yield pa.RecordBatch.from_arrays(
                    [pa.array(column) for column in zip(*some, strict=True)], names
                )

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[SqlWriter]:
        """Take the output over from earlier runs, and make its table if it is not there.

        Raises ConfigError: the table there is not ours or does not fit; ChangedError: the progress is damaged;
        FencedError: the scope's epoch is no longer the latest.
        """
        dialect = Sqlite.at(resolve(self.url))
        with dialect.connected(read_only=scope.read_only) as connection:
            yield SqlWriter(dialect, connection, scope, _Table(self, schema, dialect))


@dataclass
class _Table:
    """One table of a writer, with the records that wait for the next commit."""

    destination: SqlDestination
    schema: pa.Schema
    dialect: Sqlite
    waiting: list[pa.RecordBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        name, key = self.destination.table, self.destination.key
        if key is not None and key not in self.schema.names:
            msg = f"table {name!r}: wanted the key {key!r} among its columns, found {', '.join(self.schema.names)}; add it to keep="
            raise ConfigError(msg)
        if key is not None and self.dialect.declared(self.schema.field(key)) == "REAL":
            msg = f"table {name!r}: wanted a key of whole numbers, text or bytes, found {key!r} ({self.schema.field(key).type})"
            raise ConfigError(msg)
        self.name, self.key = name, key
        self.create = self.dialect.create(name, self.schema, key)
        self.insert = self.dialect.insert(name, self.schema.names, key)

    def check_fit(self, connection: sqlite3.Connection) -> None:
        """Raise ConfigError unless the table is there and takes these records."""
        found = self.dialect.columns(connection, self.name)
        problems = ["it is gone"] if found is None else self.dialect.misfits(found, self.schema)
        if (
            found is not None
            and self.key
            and not problems
            and not self.dialect.unique(connection, self.name, self.key)
        ):
            problems = [f"column {self.key!r} is the key but has no unique index"]
        if problems:
            msg = (
                f"table {self.name!r} in {self.dialect.path}: wanted {self.create}, found: {'; '.join(problems)}. "
                "Alter the table, choose another one, or run with from_start=True to write it anew if this pipeline made it"
            )
            raise ConfigError(msg)

    def store(self, connection: sqlite3.Connection) -> RecordErrors | None:
        """Insert what waits; None, or what is wrong with the records that the database refused."""
        start, refused = 0, []
        for batch in self.waiting:
            columns = list(map(values, batch.columns))
            connection.execute("SAVEPOINT mlinfer_rows")
            try:
                connection.executemany(self.insert, zip(*columns, strict=True))
            except REFUSED:
                self._must_go_on(connection)
                connection.execute("ROLLBACK TO mlinfer_rows")
                refused += [
                    (start + row, why)
                    for row, why in self._one_by_one(connection, zip(*columns, strict=True))
                ]
            connection.execute("RELEASE mlinfer_rows")
            failpoint("dest.write.partial")
            start += len(batch)
        if not refused:
            return None
        return RecordErrors(
            [row for row, _ in refused], "refused", [f"table {self.name!r}: {why}" for _, why in refused]
        )

    def _one_by_one(
        self, connection: sqlite3.Connection, rows: Iterable[tuple[object, ...]]
    ) -> list[tuple[int, str]]:
        """Find the records that the database refuses; a failed statement leaves the rest of the transaction alone."""
        refused = []
        for number, row in enumerate(rows):
            try:
                connection.execute(self.insert, row)
            except REFUSED as error:
                self._must_go_on(connection)
                refused.append((number, str(error)))
        return refused

    def _must_go_on(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:  # else the rows that follow would be stored one by one
            msg = f"table {self.name!r}: a trigger or constraint has rolled the whole transaction back; use RAISE(ABORT, ...) there"
            raise ComponentError(msg)


class SqlWriter:
    """Buffers, and stores everything at the commit: no transaction is open between calls."""

    def __init__(self, dialect: Sqlite, connection: sqlite3.Connection, scope: Scope, table: _Table) -> None:
        self._dialect, self._connection = dialect, connection
        self._state = State(dialect, connection, scope)
        self._outputs: list[tuple[State, _Table]] = []
        self._anew: list[tuple[State, _Table, bool]] = []
        self._table = table
        self._epoch = self._add(table, scope)
        with dialect.translating():
            self._known = Progress() if scope.fresh else self._state.load()

    def write(self, batch: Batch) -> None:
        """Check the records and remember them."""
        _remember(self._table, batch)

    def commit(self, progress: Progress) -> None:
        """Store all that waits, here and in joined outputs, and the progress; all of it or nothing.

        Raises RecordErrors, FencedError, TransientError (database locked) or ComponentError; then nothing is stored.
        """
        merged = self._known.merged(progress)
        try:
            with self._dialect.transaction(self._connection):
                failpoint("dest.begin")
                self._state.check_epoch(self._epoch)
                self._begin_anew()
                for _, table in self._outputs:
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
            msg = f"{scope.output}: wanted an SqlDestination for a table of {self._dialect.path}, found {destination!r}"
            raise ConfigError(msg)
        table = _Table(destination, schema, self._dialect)
        self._add(table, scope)
        yield JoinedWriter(table)

    def _add(self, table: _Table, scope: Scope) -> int:
        """Take an output over: from now on an older run of it can commit nothing more."""
        state = State(self._dialect, self._connection, scope)
        self._outputs.append((state, table))
        if scope.read_only:
            with self._dialect.translating():
                _look(state, table)
            return 0
        with self._dialect.transaction(self._connection):
            state.prepare()
            epoch = state.take_epoch()
            begin = _look(state, table)
            if begin == "create":
                self._connection.execute(table.create)
                state.forget()  # there is none, or it belongs to a table that a fresh run leaves behind
            if begin in {"create", "join"}:
                state.take_table(table.name, created=begin == "create")
        if scope.fresh or begin == "replace":
            self._anew.append((state, table, begin == "replace"))
        return epoch

    def _begin_anew(self) -> None:
        """What was there goes in the same transaction in which the new comes."""
        for state, table, replaced in self._anew:
            state.forget()
            if replaced:
                self._connection.execute(f"DROP TABLE {quoted(table.name)}")
                self._connection.execute(table.create)
                state.take_table(table.name, created=True)
            else:
                self._connection.execute(f"DELETE FROM {quoted(table.name)}")  # noqa: S608 - a checked name

    def _store(self, table: _Table) -> None:
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

    table: _Table

    def write(self, batch: Batch) -> None:
        """Check the records and remember them."""
        _remember(self.table, batch)

    def commit(self, progress: Progress) -> None:
        """Nothing: the main output's commit stores these records, too."""


def _remember(table: _Table, batch: Batch) -> None:
    if errors := refusals(batch.records, table.key):
        raise errors
    table.waiting.append(batch.records)


def _look(state: State, table: _Table) -> Literal["create", "join", "go on", "replace"]:
    """What an output finds, and so what it has to do. Raises ConfigError: it must not write here."""
    connection, fresh = state.connection, state.scope.fresh
    found, ours = state.dialect.columns(connection, table.name), state.table()
    if ours is not None and not fresh:
        _same_table(state, table, ours[0], there=found is not None)
    if found is None:
        return "create"
    if ours is None or ours[0] != table.name:
        return _strange_table(state, table)
    if not fresh:
        table.check_fit(connection)
        return "go on"
    made = ours[1]
    others = state.other_writers(table.name)
    if not made or others:
        why = f"{' and '.join(others)} writes it, too" if others else "its first records were somebody else's"
        msg = f"table {table.name!r}: cannot begin anew, {why}, and the records cannot be told apart; write to another table"
        raise ConfigError(msg)
    return "go on" if not state.dialect.misfits(found, table.schema) else "replace"


def _same_table(state: State, table: _Table, before: str, *, there: bool) -> None:
    if (before == table.name and there) or not state.load().positions:
        return
    what = "that table is gone" if before == table.name else f"it is now to write {table.name!r}"
    msg = (
        f"pipeline {state.scope.pipeline!r} has written the table {before!r} and would go on behind its last record, but "
        f"{what}; restore the table (or its name here), or run with from_start=True to write everything anew"
    )
    raise ConfigError(msg)


def _strange_table(state: State, table: _Table) -> Literal["join", "replace"]:
    how, name = table.destination.if_exists, table.name
    others = state.other_writers(name)
    owner = f"of {' and '.join(others)}" if others else "that this pipeline did not make"
    if how == "fail" or (how == "replace" and others):
        advice = 'choose another name, or if_exists="append"' + ("" if others else ' or "replace"')
        msg = f"table {name!r} in {state.dialect.path}: wanted a new table, found one {owner}; {advice}"
        raise ConfigError(msg)
    if how == "replace":
        return "replace"
    if state.scope.fresh:
        msg = f"table {name!r}: cannot begin anew in a table {owner}: the records cannot be told apart; write to another table"
        raise ConfigError(msg)
    table.check_fit(state.connection)
    return "join"
