"""The rows of an SQL query."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import (
    BadRecord,
    Batch,
    ChangedError,
    ComponentError,
    ConfigError,
    DataSource,
    EndOfInput,
    Position,
    RecordIds,
    TransientError,
    as_column,
    batch_from_rows,
    resolve,
)
from mlinfer.sources._sqlite import alike, connected, file_at, result_schema, text_or_bytes
from mlinfer.sql import quoted, redacted, sqlite_errors, sqlite_file

LONGEST_SHOWN = 60
PAGE_ROWS = 8192
"""Of a query with a key at least, however few are asked for."""
REMARKS = re.compile(r"(\s|--[^\n]*\n|/\*.*?\*/)*", re.DOTALL)
"""What a query may begin with."""
_TEXT = pa.field("", pa.string())


@dataclass(frozen=True, repr=False)
class SqlSource(DataSource):
    """Reads what a query finds in an SQLite database, page by page in the order of a key.

    With a key a restart goes on behind the last key that was delivered, and no lock is held between pages. Rows must
    therefore come with growing keys: a row that is committed late with a smaller key than one already read is missed
    (two writers that take their keys first and commit later, in the other order), and a row that changes after it was
    read is not read again. The last row that was delivered must stay as it is, or go together with all before it: by the
    columns of it that were read the table is known again. Without a key the query runs once, to its end, and a run that
    dies cannot go on.

    Integers, floats, texts and bytes come as such; dates are texts in SQLite and stay texts. A value that is not of the
    type of its column (SQLite allows that) makes its record a reject.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`; the file must be there.
        query: one SELECT. It is data of the pipeline, never put it together from strings of strangers.
        key: a column of the result, unique, never null, integer or text; best one with an index.
        follow: go on for ever, asking for new keys; needs a key.
    """

    url: str
    query: str
    key: str | None = None
    follow: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for arguments that cannot work."""
        for name in ("url", "query"):
            if not isinstance(value := getattr(self, name), str):
                msg = f"{name}: wanted a text, found {value!r:.100}; the URL of a file is 'sqlite:///' and its path"
                raise ConfigError(msg)
        if "${" not in self.url and not self.url.startswith("file:"):
            sqlite_file(self.url)
        if not REMARKS.sub("", self.query, count=1).upper().startswith(("SELECT", "WITH", "VALUES")):
            msg = f"query: wanted one SELECT, found {self.query[:LONGEST_SHOWN]!r}"
            raise ConfigError(msg)
        if self.follow and self.key is None:
            msg = "follow: wanted a key to tell new rows by, found none; name a column that grows: key='id'"
            raise ConfigError(msg)

    def __repr__(self) -> str:
        """The arguments, without what could be a password, the query cut."""
        query = " ".join(self.query.split())
        query = query if len(query) <= LONGEST_SHOWN else query[: LONGEST_SHOWN - 3] + "..."
        more = ("" if self.key is None else f", key={self.key!r}") + (", follow=True" if self.follow else "")
        return f"SqlSource({redacted(self.url)!r}, {query!r}{more})"

    @property
    def bounded(self) -> bool:  # type: ignore[override]  # here it depends on the arguments
        """Whether it ends by itself."""
        return not self.follow

    @property
    def resume(self) -> Any:  # type: ignore[override]  # the same
        """With a key a restart goes on where the last commit was."""
        return "none" if self.key is None else "seek"

    def schema(self) -> pa.Schema:
        """The columns: types as they are declared, or as the first rows show them where they are not."""
        with self._connected() as connection:
            return self._schema(connection)

    def partitions(self) -> Sequence[str]:
        """One, named by the file, the query and the key: another query does not go on at this one's position."""
        text = "\0".join([" ".join(self.query.split()), self.key or ""])
        return (f"{self._path().name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}",)

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[SqlReader]:
        """Read from just behind the key of the position.

        Raises ConfigError: the query does not work, or has no such columns; ChangedError: the row with that key is not the
        one that was delivered.
        """
        file = file_at(self._path())
        with self._connected() as connection:
            known = self._schema(connection)
            schema = pa.schema([known.field(name) for name in wanted.names if name in known.names])
            yield SqlReader(self, connection, schema, partition=partition, after=after, file=file)

    def _schema(self, connection: sqlite3.Connection) -> pa.Schema:
        found = result_schema(connection, self._path(), self.query)
        if self.key is not None and self.key not in found.names:
            msg = f"key: wanted a column of the query's result ({', '.join(found.names)}), found {self.key!r}"
            raise ConfigError(msg)
        return found

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with connected(self._path()) as connection:
            yield connection

    def _path(self) -> Path:
        return sqlite_file(resolve(self.url))


class SqlReader:
    """Reads pages of a query's result."""

    def __init__(
        self,
        source: SqlSource,
        connection: sqlite3.Connection,
        schema: pa.Schema,
        *,
        partition: str,
        after: Position | None,
        file: tuple[int, int] | None,
    ) -> None:
        self._file = file
        self._source, self._connection, self._schema, self._partition = source, connection, schema, partition
        self._key = source.key
        # q.NAME, for SQLite takes a bare quoted name that it does not know for a text.
        names = [f"q.{quoted(name)}" for name in schema.names]
        self._select = f"SELECT {', '.join([*names, self._keyed or 'NULL'])} FROM ({source.query.rstrip().rstrip(';')}\n) q"  # noqa: S608 - the user's own query
        self._cursor: sqlite3.Cursor | None = None
        self._page: list[tuple[Any, ...]] = []  # rows that nobody has asked for yet
        self._ordinal = 0
        self._after = after
        if isinstance(after, dict):  # earlier versions stored the key alone
            self._after = after["key"]
            with sqlite_errors(source._path()):  # noqa: SLF001 - its own source
                self._check_last(after["row"])

    def read(self, max_records: int, timeout: float) -> Batch | None:
        """The next page.

        Raises ComponentError: the key is null or not unique; TransientError: the database is locked, or another file now.
        """
        with sqlite_errors(self._source._path()):  # noqa: SLF001 - its own source
            rows = self._rows(max_records)
        if not rows and self._source.follow:
            self._expect_same_file()
            time.sleep(timeout)
            return None
        if not rows:
            raise EndOfInput
        return self._batch(rows)

    def _expect_same_file(self) -> None:
        """Raises TransientError: the file that is read has been replaced, so that nothing new ever comes into it."""
        path = self._source._path()  # noqa: SLF001 - its own source
        if file_at(path) not in {None, self._file}:
            msg = f"database {path}: wanted the file that is being followed, found another one in its place; it is opened anew"
            raise TransientError(msg)

    @property
    def _keyed(self) -> str | None:
        return None if self._key is None else f"q.{quoted(self._key)}"

    def _rows(self, count: int) -> list[tuple[Any, ...]]:
        if self._key is None:
            if self._cursor is None:
                self._connection.text_factory = (
                    text_or_bytes  # there is no second try: the cursor would have gone on
                )
                self._cursor = self._connection.execute(self._select)
            return self._cursor.fetchmany(count)
        if not self._page:
            self._page = self._next_page(max(count, PAGE_ROWS))
        rows, self._page = self._page[:count], self._page[count:]
        return rows

    def _next_page(self, size: int) -> list[tuple[Any, ...]]:
        """The rows behind the last one that was read; finding them may take the database long, however few they are."""
        where, values = ("", ()) if self._after is None else (f" WHERE {self._keyed} > ?", (self._after,))
        query = f"{self._select}{where} ORDER BY {self._keyed} LIMIT ?"
        rows = self._fetched(query, (*values, size + 1))
        self._check_keys([row[-1] for row in rows])
        return rows[:size]

    def _fetched(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """What a query finds; again, and more slowly, where a text is not UTF-8."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error) or self._connection.text_factory is text_or_bytes:
                raise
        self._connection.text_factory = text_or_bytes
        return self._connection.execute(query, values).fetchall()

    def _check_last(self, proof: str) -> None:
        """Raises ChangedError: the last row that was delivered is another now, or gone while others before it are not."""
        found = next(iter(self._fetched(f"{self._select} WHERE {self._keyed} = ?", (self._after,))), None)
        if found is None:
            before = f"{self._select} WHERE {self._keyed} < ? LIMIT 1"
            changed = self._connection.execute(before, (self._after,)).fetchone() is not None
        else:
            changed = self._proof(found) != proof and proof.startswith(self._proof_columns())
        if changed:
            what = "another row" if found else "that it is gone, while rows before it are there"
            msg = (
                f"{self._source._path()}: wanted to go on behind the row that was delivered last, with {self._key} {self._after!r}, "  # noqa: SLF001 - its own source
                f"found {what}: another database, or keys that were used again; give the pipeline another name, or deliver "
                "everything anew with run(from_start=True)"
            )
            raise ChangedError(msg)

    def _proof(self, row: tuple[Any, ...]) -> str:
        return f"{self._proof_columns()}-{hashlib.sha256(repr(row).encode(errors='surrogatepass')).hexdigest()[:24]}"

    def _proof_columns(self) -> str:
        """Rows can only be compared where the same columns are read."""
        return hashlib.sha256("\0".join(self._schema.names).encode()).hexdigest()[:8]

    def _check_keys(self, keys: list[Any]) -> None:
        """A page ends between two keys: with equal ones, or none at all, records would be passed over."""
        for key, following in zip(keys, [*keys, None][1:], strict=True):
            if not isinstance(key, int | str) or key == following:
                what = f"{key!r} twice" if key == following and key is not None else f"{key!r}"
            elif alike(key, following) and self._is_taken_for(key, following):
                what = f"{key!r} and {following!r}, which the collation of the column does not tell apart"
            else:
                continue
            msg = f"key {self._key!r}: wanted unique integers or texts, found {what[:200]}; name another column, or filter the query"
            raise ComponentError(msg)

    def _is_taken_for(self, key: Any, other: Any) -> bool:
        """Whether the database takes two texts of the key for one, so that neither comes behind the other."""
        query = f"{self._select} WHERE {self._keyed} = ? AND {self._keyed} COLLATE BINARY = ? LIMIT 1"
        return bool(self._fetched(query, (key, other)))

    def _batch(self, rows: list[tuple[Any, ...]]) -> Batch:
        start, keys = self._ordinal, [row[-1] for row in rows]
        self._ordinal += len(rows)
        ids = RecordIds.ordinals(self._partition, start, len(rows))
        position: Position | None = None
        if self._key is not None:
            self._after = keys[-1]
            position = {"key": self._after, "row": self._proof(rows[-1])}
            ids = RecordIds.of(as_column(list(map(str, keys)), _TEXT))
        columns = list(zip(*(row[:-1] for row in rows), strict=True))
        try:
            arrays = [
                as_column(list(column), field) for column, field in zip(columns, self._schema, strict=True)
            ]
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return self._mixed(rows, position, ids)
        if not arrays:
            records = pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
        else:
            records = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        return Batch(records, self._partition, position, ids)

    def _mixed(self, rows: list[tuple[Any, ...]], position: Position | None, ids: RecordIds) -> Batch:
        """Some values are not of their column's type: their records are bad, the others are fine."""
        named = [dict(zip(self._schema.names, row, strict=False)) for row in rows]
        records, good, bad = batch_from_rows(named, self._schema)
        names = ids.array()
        unfit = tuple(
            BadRecord(
                names[one.row].as_py(), one.kind, one.message, repr(rows[one.row][:-1]).encode(), one.row
            )
            for one in bad
        )
        return Batch(records, self._partition, position, ids.take(good), unfit)
