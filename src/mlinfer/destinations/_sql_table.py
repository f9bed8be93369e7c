"""One table of a database: how it is taken over, and how records get into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from mlinfer import Batch, ConfigError, RecordErrors, failpoint
from mlinfer.destinations._if_exists import IfExists
from mlinfer.destinations._sql_dialect import Dialect
from mlinfer.destinations._sql_state import State
from mlinfer.destinations._sql_values import is_floating

Begin = Literal["create", "join", "go on", "replace", "adopt"]


@dataclass
class Table:
    """One table of a writer, with the records that wait for the next commit."""

    name: str
    key: str | None
    if_exists: IfExists
    schema: pa.Schema
    dialect: Dialect
    waiting: list[pa.RecordBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        name, key = self.name, self.key
        if key is not None and key not in self.schema.names:
            msg = f"table {name!r}: wanted the key {key!r} among its columns, found {', '.join(self.schema.names)}; add it to keep="
            raise ConfigError(msg)
        if key is not None and is_floating(self.schema.field(key).type):
            msg = f"table {name!r}: wanted a key of whole numbers, text or bytes, found {key!r} ({self.schema.field(key).type})"
            raise ConfigError(msg)
        self.create = self.dialect.create(name, self.schema, key)

    def misfits(self, connection: Any) -> list[str]:
        """What keeps these records from going into the table that is there, as sentences."""
        found = self.dialect.columns(connection, self.name)
        if found is None:
            return ["it is gone"]
        problems = self.dialect.misfits(found, self.schema)
        if not problems and self.key and not self.dialect.unique(connection, self.name, self.key):
            return [f"column {self.key!r} is the key but has no unique index"]
        return problems

    def check_fit(self, connection: Any) -> None:
        """Raise ConfigError unless the table is there and takes these records."""
        if problems := self.misfits(connection):
            msg = (
                f"table {self.name!r} in {self.dialect.place}: wanted {self.create}, found: {'; '.join(problems)}. "
                "Alter the table, choose another one, or run with from_start=True to write it anew if this pipeline made it"
            )
            raise ConfigError(msg)

    def remember(self, batch: Batch) -> None:
        """Keep records for the next commit. Raises RecordErrors: the database could not store some of them unchanged."""
        if errors := self.dialect.refusals(batch.records, self.key):
            raise errors
        self.waiting.append(batch.records)

    def store(self, connection: Any) -> RecordErrors | None:
        """Insert what waits; None, or what is wrong with the records that the database refused."""
        start = 0
        refused: list[tuple[int, str]] = []
        for batch in self.waiting:
            found = self.dialect.insert(connection, self.name, batch, key=self.key)
            refused += [(start + row, why) for row, why in found]
            failpoint("dest.write.partial")
            start += len(batch)
        if not refused:
            return None
        return RecordErrors(
            [row for row, _ in refused], "refused", [f"table {self.name!r}: {why}" for _, why in refused]
        )


def look(state: State, table: Table) -> Begin:
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
    return "replace" if table.misfits(connection) else "go on"


def _same_table(state: State, table: Table, before: str, *, there: bool) -> None:
    if (before == table.name and there) or not state.load().positions:
        return
    what = "that table is gone" if before == table.name else f"it is now to write {table.name!r}"
    msg = (
        f"pipeline {state.scope.pipeline!r} has written the table {before!r} and would go on behind its last record, but "
        f"{what}; restore the table (or its name here), or run with from_start=True to write everything anew"
    )
    raise ConfigError(msg)


def _strange_table(state: State, table: Table) -> Begin:
    how, name = table.if_exists, table.name
    others = state.other_writers(name)
    owner = f"of {' and '.join(others)}" if others else "that this pipeline did not make"
    if how == "fail" and state.beside_its_server(name):
        how = "append"
    if how != "append" and others and state.nobodys(name):
        return "adopt"
    if how == "fail" or (how == "replace" and others):
        advice = 'choose another name, or if_exists="append"' + ("" if others else ' or "replace"')
        msg = f"table {name!r} in {state.dialect.place}: wanted a new table, found one {owner}; {advice}"
        raise ConfigError(msg)
    if how == "replace":
        return "replace"
    if state.scope.fresh:
        msg = f"table {name!r}: cannot begin anew in a table {owner}: the records cannot be told apart; write to another table"
        raise ConfigError(msg)
    table.check_fit(state.connection)
    return "join"
