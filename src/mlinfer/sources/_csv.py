"""Files of comma-separated values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import (
    BadRecord,
    Batch,
    ConfigError,
    DataSource,
    EndOfInput,
    Position,
    RecordIds,
    SchemaError,
    as_column,
)
from mlinfer.sources._csv_cells import UNNAMED, Cells, Wrong
from mlinfer.sources._csv_header import HEADER, header_of
from mlinfer.sources._csv_records import Ends, Splitter
from mlinfer.sources._listing import file_of, list_files
from mlinfer.sources._text_files import (
    CHUNK_BYTES,
    LONGEST_LINE,
    LONGEST_RAW,
    Tape,
    may_grow,
    open_tape,
    text_suffixes,
)

LONGEST_FIELD = 2**20
MALFORMED = "wanted quotes around a whole field and newlines at the end of a record, found a quote or a carriage return elsewhere"


@dataclass(frozen=True)
class CsvSource(DataSource):
    """Reads CSV files (RFC 4180) in UTF-8, each with a header row; plain, gzip or zstd (names that end in .gz or .zst).

    An empty cell is null; `""` is an empty text. Records with another number of columns and cells that do not fit their
    type become rejects; the records around them do not. Empty lines are passed over. There may be 4,096 columns, a
    field may have 1 MiB and a record 16 MiB.

    Args:
        path: a file, a glob or a directory; every file is a partition.
        follow: do not end, but look for new files; give a file its final name when it is complete. A last record without a
            newline is left for a later run, unless the file is compressed: it may still be growing.
        delimiter: the character between two cells.
        id_column: the column that names a record for ever; by default, and where it is empty, that is its file and line.
    """

    path: str | os.PathLike[str]
    follow: bool = False
    delimiter: str = ","
    id_column: str | None = None
    resume = "seek"

    def __post_init__(self) -> None:
        """Refuse what cannot stand between cells, or be the name of a column."""
        named: object = self.id_column
        if named is not None and not isinstance(named, str):
            msg = f"id_column: wanted the name of one column, found {named!r:.100}"
            raise ConfigError(msg)
        if len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in '"\r\n\0':
            msg = f"delimiter: wanted one ASCII character that is no quote, no newline and no NUL, found {self.delimiter!r}"
            raise ConfigError(msg)

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """Whether it ends by itself."""
        return not self.follow

    def schema(self) -> pa.Schema | None:
        """The columns of the first file that holds records, with the types that its first ones (up to 1 MiB) tell.

        The type is null where they do not: the column is empty, holds numbers and other things, or codes such as 007 that a
        number would not give back. Columns without a name are passed over if there are several. None while a followed
        directory holds no header row. Raises SchemaError: no file has one, two columns have one name, or the delimiter is
        another.
        """
        only_header = path = None
        for partition in self.partitions():
            path = file_of(self.path, partition)
            with open_tape(path, None) as tape:
                growing = may_grow(path, follow=self.follow)
                header = header_of(tape, self.delimiter, growing=growing)
                if header is None:
                    continue
                self._check_columns(header, path, pa.schema([]))
                splitter = Splitter(self.delimiter)
                tape.fill_to(CHUNK_BYTES)
                places = splitter.ends(tape.data, tape.start, final=tape.ended and not growing).places
                block = tape.data[tape.start : places[-1]] if len(places) else b""
            if block.strip():
                return Cells(header, pa.schema([]), self.delimiter).infer(block)
            named = [name for name in header if not name.startswith(UNNAMED)]
            only_header = only_header or pa.schema([pa.field(name, pa.null()) for name in named])
        if only_header is None and path is not None and not self.follow:
            advice = f"write the names of the columns into the first line of {path}, or remove the file from the input"
            raise SchemaError(HEADER, "the names of the columns", "an empty file", advice)
        return only_header

    def partitions(self) -> Sequence[str]:
        """The files."""
        suffixes = text_suffixes(".csv", ".tsv")
        return [name for name, _ in list_files(self.path, suffixes, follow=self.follow)]

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[CsvReader]:
        """Read a file from a position.

        Raises ChangedError: it is not the file that the position belongs to, or it was cut. ComponentError: it cannot
        be read. SchemaError: its header is not usable, or lacks a column.
        """
        path = file_of(self.path, partition)
        with open_tape(path, None) as beginning:
            header = header_of(beginning, self.delimiter, growing=may_grow(path, follow=self.follow))
            if after is None:
                self._check_columns(header, path, wanted)
                yield CsvReader(beginning, partition, header or [], wanted=wanted, source=self)
                return
        with open_tape(path, after) as tape:
            self._check_columns(header, path, wanted)
            yield CsvReader(tape, partition, header or [], wanted=wanted, source=self)

    def _check_columns(self, header: list[str] | None, path: Path, wanted: pa.Schema) -> None:
        if header is None:
            return
        kinds: dict[str, object] = {field.name: field.type for field in wanted}
        if self.id_column is not None:
            kinds[self.id_column] = "the records' ids"
        for name, kind in kinds.items():
            if name not in header:
                there = ", ".join(name for name in header if not name.startswith(UNNAMED))
                raise SchemaError(name, kind, f"no such column in {path}", f"columns there are: {there}")


class CsvReader:
    """Parses a block of records at once."""

    def __init__(
        self, tape: Tape, partition: str, header: list[str], *, wanted: pa.Schema, source: CsvSource
    ) -> None:
        self._tape, self._partition, self._id_column = tape, partition, source.id_column
        self._splitter, self._growing = Splitter(source.delimiter), may_grow(tape.path, follow=source.follow)
        self._header, self._delimiter = header, source.delimiter.encode()
        self._drop: str | None = None
        if self._id_column is not None and self._id_column not in wanted.names:
            self._drop = self._id_column
            wanted = wanted.append(pa.field(self._id_column, pa.string()))
        self._cells = Cells(header, wanted, source.delimiter) if header else None
        self._ends = Ends.all_good(np.empty(0, np.int64))

    def read(self, max_records: int, timeout: float) -> Batch:  # noqa: ARG002 - a file does not make one wait
        """The next records."""
        if self._cells is None or not self._see():
            raise EndOfInput
        tape, ends = self._tape, self._ends
        if not len(ends.places):
            return self._pass_over()
        places, good = ends.places[:max_records], ends.good[:max_records]
        self._ends = Ends(ends.places[max_records:], ends.good[max_records:])
        edges = np.concatenate([[0], places - tape.start])
        first = tape.line + 1
        block = tape.take(int(edges[-1]), 0)
        newlines = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
        tape.line += len(newlines) + (not block.endswith(b"\n"))
        lines = first + np.searchsorted(newlines, edges[:-1])
        return self._batch(block, edges, good, lines)

    def _see(self) -> bool:
        """Find the ends of the records that are there, reading on until there is one; False: nothing is left."""
        tape = self._tape
        while not len(self._ends.places):
            if tape.start < len(tape.data):
                final = tape.ended and not self._growing
                self._ends = self._splitter.ends(tape.data, tape.start, final=final)
            if len(self._ends.places) or len(tape.data) - tape.start > LONGEST_LINE:
                return True
            if tape.fill():
                continue
            if tape.start < len(tape.data) and self._growing:
                self._ends = self._unclosed()
                return len(self._ends.places) > 0
            if tape.start >= len(tape.data):
                return False
        return True

    def _unclosed(self) -> Ends:
        """The records in what is left of a file that may grow, if a quote was forgotten there.

        None, if the last record is being written just now: then no line behind its first has as many cells as a record.
        """
        tape, header = self._tape, self._header
        end = tape.data.rfind(b"\n", tape.start) + 1
        lines = tape.data[tape.start : end].split(b"\n")[1:-1]
        if not any(line.count(self._delimiter) == len(header) - 1 for line in lines):
            return Ends.all_good(np.empty(0, np.int64))
        return self._splitter.ends(tape.data[:end], tape.start, final=True)

    def _pass_over(self) -> Batch:
        """A record that is too long for memory: skip to the next newline."""
        tape, number = self._tape, self._tape.line + 1
        raw = tape.skip_line(LONGEST_RAW)
        message = f"line {number}: wanted at most {LONGEST_LINE} bytes in a record, found more (is a quote not closed?)"
        bad = BadRecord(f"{self._partition}#{number}", "undecodable", message, raw)
        assert self._cells is not None  # noqa: S101 - read() has looked
        nothing, _, _ = self._cells(b"\n", 0)
        return Batch(self._wanted(nothing), self._partition, tape.position(), bad=(bad,))

    def _batch(self, block: bytes, edges: np.ndarray, good: np.ndarray, lines: np.ndarray) -> Batch:
        assert self._cells is not None  # noqa: S101 - read() has looked
        bad = [(int(place), "undecodable", MALFORMED) for place in np.flatnonzero(~good)]
        bad += self._too_long(block, edges, good)
        usable = good & ~_blank(block, edges)
        usable[[place for place, _, _ in bad]] = False
        if not usable.all():
            kept = np.flatnonzero(usable)
            text = b"".join([block[edges[n] : edges[n + 1]] for n in kept.tolist()])
        else:
            kept, text = np.arange(len(usable)), block
        records, rows, wrong = self._cells(text or b"\n", len(kept))
        bad += [(int(kept[place]), kind, why) for place, kind, why in wrong]
        numbers = lines[kept if rows is None else kept[rows]]
        ids = self._ids(records, numbers)
        raws = tuple(
            BadRecord(
                f"{self._partition}#{lines[place]}", kind, f"line {lines[place]}: {why}",
                block[edges[place] : edges[place + 1]].rstrip(b"\r\n")[:LONGEST_RAW], place,
            )
            for place, kind, why in sorted(bad)
        )  # fmt: skip
        return Batch(self._wanted(records), self._partition, self._tape.position(), ids, raws)

    def _too_long(self, block: bytes, edges: np.ndarray, good: np.ndarray) -> list[Wrong]:
        found: list[Wrong] = []
        for place in np.flatnonzero(good & (np.diff(edges) > LONGEST_FIELD)).tolist():
            record = block[edges[place] : edges[place + 1]]
            if len(record) > LONGEST_LINE:
                found.append(
                    (place, "undecodable", f"wanted at most {LONGEST_LINE} bytes in a record, found more")
                )
            elif self._splitter.longest_field(record) > LONGEST_FIELD:
                found.append(
                    (place, "undecodable", f"wanted at most {LONGEST_FIELD} bytes in a field, found more")
                )
        return found

    def _ids(self, records: pa.RecordBatch, lines: np.ndarray) -> RecordIds:
        partition, column = self._partition, self._id_column

        def by_line() -> pa.Array:
            name, mark = as_column([partition, "#"], pa.field("", pa.string()))
            numbers = as_column(lines, pa.field("", pa.int64())).cast(pa.string())
            return pc.binary_join_element_wise(name, numbers, mark)

        if column is None or column not in records.schema.names:
            return RecordIds(by_line)
        names = records.column(column)
        return RecordIds(lambda: pc.coalesce(names.cast(pa.string()), by_line()))

    def _wanted(self, records: pa.RecordBatch) -> pa.RecordBatch:
        if self._drop is None or self._drop not in records.schema.names:
            return records
        return records.drop_columns([self._drop])


def _blank(block: bytes, edges: np.ndarray) -> np.ndarray:
    blank = np.diff(edges) <= len("\r\n")
    for place in np.flatnonzero(blank).tolist():
        blank[place] = not block[edges[place] : edges[place + 1]].strip(b"\r\n")
    return blank
