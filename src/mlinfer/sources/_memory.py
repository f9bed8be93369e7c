"""Records in hand as a source."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlinfer import Batch, ChangedError, ConfigError, DataSource, EndOfInput, Position, RecordIds, to_arrow


@dataclass(frozen=True, eq=False)
class MemorySource(DataSource):
    """Reads a table, data frame, numpy array, dict of columns, or list of dicts or strings: whatever `infer` takes.

    Its identity is its content: the same records are the same partition, wherever they are, so a second run of a named
    pipeline delivers nothing twice.

    >>> MemorySource([{"name": "a", "n": 1}, {"name": "b", "n": 2}]).schema()
    name: string
    n: int64
    """

    data: Any
    resume = "seek"

    def __repr__(self) -> str:
        """The type and size, not the records."""
        return f"MemorySource({type(self.data).__name__} of {len(self.data)})"

    def schema(self) -> pa.Schema | None:
        """The columns and their types; None for an empty list, which tells none."""
        return None if self._tells_nothing() else self._table().schema

    def partitions(self) -> Sequence[str]:
        """One, named by the digest of the content; none for an empty list."""
        if self._tells_nothing():
            return ()
        return (f"memory-{_digest(self._table())[:16]}",)

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[MemoryReader]:
        """Read from row number `after`."""
        table = self._table()
        if not 0 <= (after or 0) <= table.num_rows:
            msg = f"{partition}: wanted to go on at row {after}, found only {table.num_rows} rows"
            raise ChangedError(msg)
        names = [name for name in wanted.names if name in table.schema.names]
        if any(pa.types.is_null(table.schema.field(name).type) for name in names):
            to_arrow(self.data)  # says what is wrong with a column that is not of one type
        yield MemoryReader(table.select(names), partition, after or 0)

    def remaining(self, partition: str, after: Position | None) -> int:  # noqa: ARG002 - there is one
        """The number of rows behind row number `after`."""
        return len(self._table()) - (after or 0)

    def _tells_nothing(self) -> bool:
        return isinstance(self.data, list) and not self.data

    def _table(self) -> pa.Table:
        """All records; a column that is not of one type holds nulls, and matters to nobody who does not ask for it."""
        try:
            return to_arrow(self.data)
        except ConfigError:
            columns = {name: _column(values) for name, values in _columns(self.data)}
            if all(column is None for column in columns.values()):
                raise
            count = next(len(column) for column in columns.values() if column is not None)
            return to_arrow(
                {name: pa.nulls(count) if column is None else column for name, column in columns.items()}
            )


def _columns(data: Any) -> Iterator[tuple[str, Any]]:
    """The columns of a dict, of a data frame of pandas or of a list of dicts, each alone; none of anything else."""
    if isinstance(data, list | tuple):
        rows = [row for row in data if isinstance(row, dict)]
        for name in dict.fromkeys(name for row in rows for name in row):
            yield name, {name: [row.get(name) for row in rows]}
    elif isinstance(data, dict):
        for name, values in data.items():
            yield name, {name: values}
    elif hasattr(data, "iloc") and hasattr(data, "columns"):  # a pandas.Series has no columns
        for place, name in enumerate(data.columns):
            yield str(name), data.iloc[:, [place]]


def _column(alone: Any) -> pa.ChunkedArray | None:
    """A column as Arrow; None: it is not of one type."""
    try:
        return to_arrow(alone).column(0)
    except ConfigError:
        return None


class MemoryReader:
    """Slices of a table."""

    def __init__(self, table: pa.Table, partition: str, start: int) -> None:
        self._table, self._partition, self._row = table, partition, start

    def read(self, max_records: int, timeout: float) -> Batch:  # noqa: ARG002 - there is nothing to wait for
        """The next rows."""
        start = self._row
        if start >= self._table.num_rows:
            raise EndOfInput
        count = min(max_records, self._table.num_rows - start)
        self._row = start + count
        if self._table.num_columns:
            batch = self._table.slice(start, count).combine_chunks().to_batches()[0]
        else:
            batch = _no_columns(count)
        return Batch(batch, self._partition, self._row, RecordIds.ordinals(self._partition, start, count))


def _no_columns(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _digest(table: pa.Table) -> str:
    """A digest of names, types and values, the same however the table is cut into chunks."""
    whole = hashlib.sha256(
        struct.pack("<q", table.num_rows) + table.schema.remove_metadata().to_string().encode()
    )
    sink = pa.BufferOutputStream()
    plain = table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        for batch in plain.to_batches():
            writer.write_batch(batch)
    whole.update(sink.getvalue())
    return whole.hexdigest()
