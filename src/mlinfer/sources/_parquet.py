"""Parquet files as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import (
    BadRecord,
    Batch,
    ChangedError,
    ComponentError,
    DataSource,
    EndOfInput,
    Position,
    RecordIds,
    SchemaError,
    is_text,
)
from mlinfer.sources._listing import list_files
from mlinfer.sources._not_text import KIND, blanked, without
from mlinfer.sources._parquet_footer import Footer, Run, read_footer, row_group_runs, run_of, said

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".pq")
BATCH_BYTES = 32 * 2**20
DICTIONARY_BYTES = 4
"""A column chunk that takes more bytes per value than this has many distinct strings: encoding them is slow."""


@dataclass(frozen=True)
class ParquetSource(DataSource):
    """Reads Parquet files; each file is a partition, and one over 256 MiB is several (runs of its row groups).

    Only the columns that are asked for are read. Records are called `file#row`, or as `id_column` says.

    Args:
        path: one file, a glob (`flights/*.parquet`) or a directory.
        follow: look for new files again and again; then files must appear whole (written under another name first).
        id_column: the column that holds the records' ids; where it holds none, a record is called `file#row`.
    """

    path: str | os.PathLike[str]
    follow: bool = False
    id_column: str | None = None
    resume = "seek"

    @property
    def bounded(self) -> bool:  # type: ignore[override]  # follows from `follow`, so it cannot be set
        """Whether the source ends by itself."""
        return not self.follow

    def schema(self) -> pa.Schema | None:
        """The columns of the first file; None while a followed directory is empty.

        Raises ConfigError: there is no file. ComponentError: the first one is damaged.
        """
        for name, file in self._files():
            with read_footer(file) as footer:
                schema: pa.Schema = footer.file.schema_arrow.remove_metadata()
                self._check_id_column(schema, name)
                return schema
        return None

    def partitions(self) -> Sequence[str]:
        """The files by name; a large one as runs of row groups, `big.parquet[0:8]`.

        Raises ConfigError: there is no file. ComponentError: a large one is damaged.
        """
        return [run for name, file in self._files() for run in row_group_runs(name, file)]

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[ParquetReader]:
        """Read from the row of the position.

        Raises ChangedError: the file is not the one that the position belongs to; SchemaError: it lacks a column;
        ComponentError: it is damaged.
        """
        run = run_of(self.path, partition)
        with read_footer(run.file) as footer:
            start, end = footer.rows_of(run)
            if after is not None:
                start = _check_unchanged(after, footer, (start, end))
            columns = self._columns(wanted, footer)
            footer.expect_readable(columns)
            encoded = [name for name in columns if _is_dictionary(name, footer)]
            footer.check_sizes(columns)
            file = footer.reader(encoded)
            reader = ParquetReader(Part(run, footer, columns, self.id_column), file, start, end)
            try:
                yield reader
            finally:
                reader.close()

    def remaining(self, partition: str, after: Position | None) -> int:
        """The number of rows behind a position, as the footer tells it. Raises what `open` raises."""
        run = run_of(self.path, partition)
        with read_footer(run.file) as footer:
            start, end = footer.rows_of(run)
            return end - (start if after is None else _check_unchanged(after, footer, (start, end)))

    def _files(self) -> list[tuple[str, Path]]:
        return list_files(self.path, SUFFIXES, follow=self.follow)

    def _columns(self, wanted: pa.Schema, footer: Footer) -> list[str]:
        schema = footer.file.schema_arrow
        for field in wanted:
            _expect_once(field.name, field.type, schema, str(footer.path))
        self._check_id_column(schema, str(footer.path))
        ids = [self.id_column] if self.id_column is not None else []
        return list(dict.fromkeys([*wanted.names, *ids]))

    def _check_id_column(self, schema: pa.Schema, where: str) -> None:
        name = self.id_column
        if name is None:
            return
        _expect_once(name, "the records' ids", schema, where)
        if pt.is_nested(kind := schema.field(name).type):
            raise SchemaError(name, "ids as text or numbers", f"{kind} in {where}", "name another id_column")


def _expect_once(name: str, wanted: object, schema: pa.Schema, where: str) -> None:
    """Raise SchemaError where a file has no such column, or several."""
    if (times := schema.names.count(name)) != 1:
        what = f"{times} columns of that name" if times else "no such column"
        there = ", ".join(schema.names) or "none"
        raise SchemaError(name, wanted, f"{what} in {where}", f"columns there are: {there}")


@dataclass(frozen=True)
class Part:
    """What is read of which file."""

    run: Run
    footer: Footer
    columns: list[str]
    id_column: str | None


class ParquetReader:
    """Reads rows of one file, row group after row group; holds about one batch and one page per column."""

    def __init__(self, part: Part, file: pq.ParquetFile, start: int, end: int) -> None:
        self._part, self._file = part, file
        self._row, self._end = start, end
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._most = 0  # records of a batch
        self._held: pa.RecordBatch | None = None
        self._damaged = False

    def read(self, max_records: int, timeout: float) -> Batch:  # noqa: ARG002 - a file does not wait
        """The next rows. Raises ComponentError where the file is damaged, ChangedError if it was changed meanwhile."""
        if self._row >= self._end:
            raise EndOfInput
        records, damaged = self._next(max_records)
        self._part.footer.check_unchanged()
        start, self._row = self._row, self._row + records.num_rows
        position = self._part.footer.position(self._row)
        if damaged:
            return self._without(records, start, position)
        return Batch(records, self._part.run.partition, position, self._ids(records, start))

    def close(self) -> None:
        """Let go of the data now: the generator knows the reader, and Python would find such a circle only by and by."""
        self._batches = self._held = None

    def _without(self, records: pa.RecordBatch, start: int, position: Position) -> Batch:
        """What is left of a batch whose texts are not all UTF-8, beside the records that hold them."""
        run = self._part.run
        try:
            kept, found = without(records)
        except pa.ArrowException as error:
            msg = f"{run.file}: reading failed at row {start}: {said(error)}; {RESTORE}"
            raise ComponentError(msg) from error
        named = records if self._part.id_column is None else blanked(records, self._part.id_column)
        ids, rows = self._ids(named, start), sorted(found)
        good = np.delete(np.arange(records.num_rows), rows)
        bad = tuple(
            BadRecord(name, KIND, f"row {start + row}: {found[row][0]}", found[row][1], row)
            for row, name in zip(rows, ids.take(rows).array().to_pylist(), strict=True)
        )
        return Batch(kept, run.partition, position, ids.take(good), bad)

    def _next(self, max_records: int) -> tuple[pa.RecordBatch, bool]:
        """The next rows, and whether something in them is not as it must be."""
        try:
            held = self._held
            # larger batches are taken from the row group anew: not for every few records more
            if self._batches is None or (max_records >= 2 * self._most and not held):
                self._batches, self._most = self._begin(max_records), max_records
            while not held:
                held = next(self._batches, None)
                if held is None:
                    msg = f"{self._part.run.file}: wanted rows up to {self._end}, found the end of the data at row {self._row}; {RESTORE}"
                    raise ComponentError(msg)
                self._damaged = not _is_sound(held)
        except (OSError, pa.ArrowException) as error:
            msg = f"{self._part.run.file}: reading failed at row {self._row}: {said(error)}; {RESTORE}"
            raise ComponentError(msg) from error
        self._held = held.slice(max_records)
        return held.slice(0, max_records), self._damaged

    def _begin(self, max_records: int) -> Iterator[pa.RecordBatch]:
        """Batches from the current row on; row groups before it are not touched."""
        footer, columns = self._part.footer, self._part.columns
        groups, skip = footer.groups_from(self._row, self._end)
        most = max(1, min(max_records, BATCH_BYTES // footer.bytes_per_row(columns)))
        size = _evenly(most, max(footer.size_of(group) for group in groups))
        for batch in self._file.iter_batches(size, row_groups=groups, columns=columns, use_threads=False):
            passed = min(skip, batch.num_rows)
            skip -= passed
            yield batch.slice(passed)

    def _ids(self, records: pa.RecordBatch, start: int) -> RecordIds:
        ordinals = RecordIds.ordinals(self._part.run.name, start, records.num_rows)
        if self._part.id_column is None:
            return ordinals
        column = records.column(self._part.id_column)

        def make() -> pa.Array:
            import pyarrow.compute as pc

            ids = (column.dictionary_decode() if pt.is_dictionary(column.type) else column).cast(pa.string())
            return pc.coalesce(ids, ordinals.array()) if ids.null_count else ids

        return RecordIds(make)


def _evenly(most: int, rows: int) -> int:
    """At most so many rows, so that batches end where row groups of this size do: one that spans two is copied together."""
    return -(-rows // -(-rows // most)) if rows > most else most - most % rows


def _is_sound(records: pa.RecordBatch) -> bool:
    try:
        records.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError):  # it may hold the bytes that it complains of
        return False
    return True


RESTORE = "the file is damaged: restore it, or remove it from the input"


def _check_unchanged(after: Position, footer: Footer, rows: tuple[int, int]) -> int:
    """The row to go on from."""
    position = footer.position(0)
    after = after if isinstance(after, dict) else {}
    for key, what in (("size", "bytes"), ("footer", "as the digest of its footer")):
        if after.get(key) != position[key]:
            msg = (
                f"{footer.path}: wanted the file that was read before, with {after.get(key)} {what}, found {position[key]}; "
                "put the old file back, or deliver the new one under another name"
            )
            raise ChangedError(msg)
    start, end = rows
    if not start <= after.get("row", -1) <= end:
        msg = f"{footer.path}: wanted to go on at row {after.get('row')}, found that this partition holds rows {start} to {end}"
        raise ChangedError(msg)
    return int(after["row"])


def _is_dictionary(name: str, footer: Footer) -> bool:
    """Whether the column's strings are dictionary-encoded in the file and few enough to stay so."""
    kind = footer.file.schema_arrow.field(name).type
    if not is_text(kind):
        return False
    chunks = footer.chunks([name])
    return bool(chunks) and all(
        chunk.has_dictionary_page and chunk.total_uncompressed_size <= DICTIONARY_BYTES * chunk.num_values
        for chunk in chunks
    )
