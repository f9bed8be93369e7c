"""A file of comma-separated values."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.types as pt

from mlinfer import (
    Batch,
    ConfigError,
    DataDestination,
    Progress,
    Scope,
    as_column,
    is_list,
    is_text,
    json_texts,
    located,
    quoted_texts,
)
from mlinfer.destinations._appended import (
    Appended,
    check_uncompressed,
    open_appended,
)
from mlinfer.destinations._if_exists import IfExists, check_if_exists
from mlinfer.destinations._pruning import prune_csv
from mlinfer.destinations._sidecar import committed_text, stored_progress
from mlinfer.destinations._spellable import check_types, refuse_far_times

FORMULA = r"^[=+\-@\t\r]"


@dataclass(frozen=True)
class CsvDestination(DataDestination):
    """Appends records to one CSV file (RFC 4180) in UTF-8, its header first.

    Null is an empty cell and an empty text is `""`. NaN and infinities are `nan` and `inf`, times ISO 8601 (UTC with Z
    where they have a zone), bytes base64, lists and structs JSON. Progress is kept in `.NAME.progress` beside the file:
    at the next run, what a crash left behind the last commit is cut off, so readers should wait for the end of a run.

    Args:
        path: the file. Its folder is created if need be.
        if_exists: what to do about a file that this pipeline did not write: `fail`, `append` to it (its header must name
            the same columns) or `replace` it.
        guard_formulas: put a `'` in front of texts that a spreadsheet would take for a formula (`=`, `+`, `-`, `@`).
    """

    path: str | os.PathLike[str]
    if_exists: IfExists = "fail"
    guard_formulas: bool = False
    transactional = True
    holds_one_output = True

    def __post_init__(self) -> None:
        """Refuse a name that promises compression."""
        check_uncompressed(self.path)
        check_if_exists(self.if_exists)

    def records(self, scope: Scope) -> Iterator[pa.RecordBatch]:
        """The committed records, every cell as text. Raises ConfigError: texts were guarded, they are no longer the same."""
        if self.guard_formulas:
            msg = f"{self.path}: wanted texts as they were written, found guard_formulas=True, which changes some; read it without mlinfer"
            raise ConfigError(msg)
        path = located(self.path)
        text, columns = committed_text(path, scope)
        if not text:
            return
        names = [name for name, _ in columns]
        has_header = text.startswith(_header(pa.schema([(name, pa.string()) for name in names])))
        yield from pacsv.read_csv(
            pa.BufferReader(text),
            pacsv.ReadOptions(column_names=names, skip_rows=int(has_header), block_size=max(len(text), 2**20)),
            pacsv.ParseOptions(newlines_in_values=True),
            pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""],
                strings_can_be_null=True, quoted_strings_can_be_null=False,
            ),
        ).to_batches()  # fmt: skip

    def prune(self, scope: Scope, before: datetime) -> int:
        """Remove the records of rejects of one pipeline that are older; how many there were.

        Raises FencedError: a run writes here. ChangedError: the file or its progress is damaged.
        """
        return prune_csv(located(self.path), scope, before)

    def stored(self, scope: Scope) -> Progress:
        """The progress beside the file. Raises ChangedError: it is damaged."""
        return stored_progress(located(self.path), scope)

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[CsvWriter]:
        """Go on behind the last commit.

        Raises ConfigError: another pipeline or another schema wrote what is there. SchemaError: a column is of a type that
        CSV has no text for. FencedError: another run writes. ChangedError: the file or its progress is damaged.
        """
        check_types(schema, "a CSV file")
        path = located(self.path)
        header = _header(schema)

        def look(foreign: Path) -> None:
            _check_header(foreign, header)

        with open_appended(path, schema, scope, self.if_exists, look=look) as file:
            if file.empty and not scope.read_only:
                file.append(header)
            yield CsvWriter(file, guard_formulas=self.guard_formulas)


class CsvWriter:
    """Writes batches as records."""

    def __init__(self, file: Appended, *, guard_formulas: bool) -> None:
        self._file, self._guard = file, guard_formulas

    def write(self, batch: Batch) -> None:
        """Append the records. Raises RecordErrors: a time is too far away. ComponentError: the disk is full, or the like."""
        refuse_far_times(batch.records)
        self._file.append(csv_lines(batch.records, guard_formulas=self._guard))

    def commit(self, progress: Progress) -> None:
        """Store records and progress in one step."""
        self._file.commit(progress)

    def committed(self) -> Progress:
        """All progress so far."""
        return self._file.committed()


def csv_lines(records: pa.RecordBatch, *, guard_formulas: bool = False) -> memoryview:
    """A batch as CSV without a header."""
    columns = [_cells(column, guard_formulas=guard_formulas) for column in records.columns]
    cells = pa.RecordBatch.from_arrays(columns, names=records.schema.names)
    sink = pa.BufferOutputStream()
    pacsv.write_csv(cells, sink, pacsv.WriteOptions(include_header=False))
    return memoryview(sink.getvalue())


def _cells(array: pa.Array, *, guard_formulas: bool) -> pa.Array:
    """A column whose types the CSV writer spells as we do: numbers and booleans as they are, the rest as texts."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if (
        pt.is_integer(kind)
        or pt.is_boolean(kind)
        or pt.is_null(kind)
        or pt.is_float32(kind)
        or pt.is_float64(kind)
    ):
        return array
    if pt.is_float16(kind):
        return array.cast(pa.float32())
    if is_text(kind):
        texts = array.cast(pa.large_string())
    elif is_list(kind) or pt.is_struct(kind) or pt.is_map(kind):
        texts = pc.if_else(array.is_valid(), json_texts(array), pa.nulls(1, pa.large_string())[0])
    else:
        return quoted_texts(array)
    if guard_formulas:
        risky = pc.match_substring_regex(texts, FORMULA)
        quote, nothing = as_column(["'", ""], pa.field("", pa.string())).cast(pa.large_string())
        texts = pc.if_else(risky, pc.binary_join_element_wise(quote, texts, nothing), texts)
    return texts


def _header(schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    texts = pa.schema([pa.field(name, pa.string()) for name in schema.names])
    pacsv.write_csv(pa.Table.from_batches([], texts), sink)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _check_header(path: Path, header: bytes) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        found = next(csv.reader(file), [])
    (wanted,) = csv.reader([header.decode()])
    if found != wanted:
        msg = f"{path}: wanted the columns {', '.join(wanted)} to append to, found {', '.join(found)}; write to another file"
        raise ConfigError(msg)
