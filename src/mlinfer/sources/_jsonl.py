"""Files of JSON lines."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import (
    BadRecord,
    Batch,
    DataSource,
    EndOfInput,
    Position,
    RecordIds,
    SchemaError,
    as_column,
    batch_from_rows,
)
from mlinfer.sources._json_decode import (
    NotARecord,
    Row,
    decode,
    decode_line,
    fastest,
    holds_decimals,
    restore_digits,
)
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

SUFFIXES = text_suffixes(".jsonl", ".ndjson", ".json")
_PLAIN = {str: pa.string(), bool: pa.bool_()}
"""Types that need not be asked of Arrow, which imports pandas, where it is installed, before it looks at a value."""


@dataclass(frozen=True)
class JsonLinesSource(DataSource):
    """Reads files that hold one JSON object a line, in UTF-8; plain, gzip or zstd (names that end in .gz or .zst).

    Lines that are not an object, that name a key twice, that hold NaN or Infinity or more than 32 levels of nesting, and
    fields of the wrong type become rejects; the lines around them do not. Empty lines are passed over. A line may have
    16 MiB.

    Args:
        path: a file, a glob or a directory; every file is a partition.
        follow: do not end, but look for new files; give a file its final name when it is complete. A last line without a
            newline that is not an object yet is left for a later run: it may still be growing.
        id_column: the field that names a record for ever; by default, and where it is null, that is its file and line number.
    """

    path: str | os.PathLike[str]
    follow: bool = False
    id_column: str | None = None
    resume = "seek"

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """Whether it ends by itself."""
        return not self.follow

    def schema(self) -> pa.Schema | None:
        """The fields of the first lines of the first file (up to 1 MiB), each of the type that most of its values have.

        Raises SchemaError: `id_column` is none of them.
        """
        for partition in self.partitions():
            with open_tape(file_of(self.path, partition), None) as tape:
                tape.fill_to(CHUNK_BYTES)
                text = tape.data[tape.start :]
            whole = text[: text.rfind(b"\n")] if b"\n" in text else text
            rows = decode(whole, fastest())[0] if whole else []
            if rows:
                found = _schema_of(rows)
                if self.id_column is not None and self.id_column not in found.names:
                    what = f"no such field in the first lines of {partition}"
                    advice = f"fields there are: {', '.join(found.names)}"
                    raise SchemaError(self.id_column, "the records' ids", what, advice)
                return found
        return None

    def partitions(self) -> Sequence[str]:
        """The files."""
        return [name for name, _ in list_files(self.path, SUFFIXES, follow=self.follow)]

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[JsonLinesReader]:
        """Read a file from a position.

        Raises ChangedError: it is not the file that the position belongs to, or it was cut. ComponentError: it cannot
        be read.
        """
        with open_tape(file_of(self.path, partition), after) as tape:
            yield JsonLinesReader(tape, partition, wanted, self)


class JsonLinesReader:
    """Decodes a block of lines at once."""

    def __init__(self, tape: Tape, partition: str, wanted: pa.Schema, source: JsonLinesSource) -> None:
        self._tape, self._partition, self._wanted, self._id_column = tape, partition, wanted, source.id_column
        self._may_grow = may_grow(tape.path, follow=source.follow)
        self._loads = fastest()
        self._exact = {field.name: field.type for field in wanted if holds_decimals(field.type)}
        self._text: bytes = b""
        self._ends = np.empty(0, np.int64)

    def read(self, max_records: int, timeout: float) -> Batch:  # noqa: ARG002 - a file does not make one wait
        """The next lines."""
        if not self._see():
            raise EndOfInput
        tape = self._tape
        first = tape.line + 1
        longest = (self._ends[0] if len(self._ends) else len(tape.data)) - tape.start
        if longest > LONGEST_LINE:
            return self._pass_over(first)
        if not len(self._ends):  # the last line of the file has no newline
            return self._batch(tape.take(len(tape.data) - tape.start, 1), first, 1)
        ends = self._ends[:max_records]
        long = np.flatnonzero(np.diff(ends) > LONGEST_LINE)
        count = int(long[0]) + 1 if len(long) else len(ends)
        self._ends = self._ends[count:]
        block = tape.take(int(ends[count - 1]) + 1 - tape.start, count)[:-1]
        return self._batch(block, first, count)

    def _see(self) -> bool:
        """Find the ends of the lines that are there, reading on until there is one; False: nothing is left."""
        tape = self._tape
        while not len(self._ends):
            if tape.start < len(tape.data):
                codes = np.frombuffer(tape.data, np.uint8, offset=tape.start)
                self._ends = np.flatnonzero(codes == ord("\n")) + tape.start
            if len(self._ends) or len(tape.data) - tape.start > LONGEST_LINE:
                return True
            if not tape.fill():
                rest = tape.data[tape.start :]
                return bool(rest) and not (self._may_grow and _half_written(rest))
        return True

    def _pass_over(self, number: int) -> Batch:
        """A line that is too long for memory: keep its beginning, skip the rest."""
        tape = self._tape
        raw = tape.skip_line(LONGEST_RAW)
        self._ends = np.empty(0, np.int64)
        message = f"line {number}: wanted at most {LONGEST_LINE} bytes, found a longer line"
        bad = BadRecord(f"{self._partition}#{number}", "undecodable", message, raw)
        nothing, _, _ = batch_from_rows([], self._wanted)
        return Batch(nothing, self._partition, tape.position(), bad=(bad,))

    def _batch(self, block: bytes, first: int, count: int) -> Batch:
        rows, places, wrong = decode(block, self._loads)
        if self._exact:
            lines = block.split(b"\n")
            restore_digits(rows, lines if places is None else [lines[n] for n in places], self._exact)
        records, good, misfits = batch_from_rows(rows, self._wanted)
        ids = RecordIds.ordinals(self._partition, first, count)
        bad: list[BadRecord] = []
        if places is not None or misfits:
            places = list(range(count)) if places is None else places
            found = [(place, "undecodable", why, None) for place, why in wrong]
            found += [(places[one.row], one.kind, one.message, self._name(rows[one.row])) for one in misfits]
            bad = self._bad(sorted(found, key=lambda one: one[0]), block.split(b"\n"), first)
            ids = ids.take([places[row] for row in good])
        if self._id_column is not None:
            ids = _named([self._name(rows[row]) for row in good], ids)
        return Batch(records, self._partition, self._tape.position(), ids, tuple(bad))

    def _name(self, row: Row) -> Any:
        return None if self._id_column is None else row.get(self._id_column)

    def _bad(self, found: list[tuple[int, str, str, Any]], lines: list[bytes], first: int) -> list[BadRecord]:
        bad = []
        for place, kind, why, name in found:
            line = first + place
            one = f"{self._partition}#{line}" if name is None else str(name)
            bad.append(BadRecord(one, kind, f"line {line}: {why}", lines[place][:LONGEST_RAW], place))
        return bad


def _half_written(line: bytes) -> bool:
    """An object is complete when its last brace is there; no beginning of one is an object."""
    try:
        decode_line(line)
    except NotARecord:
        return True
    return False


def _named(names: list[Any], places: RecordIds) -> RecordIds:
    """Ids from a field of the records; one that has none goes by its place."""

    def make() -> pa.Array:
        where = places.array()
        ids = [where[n].as_py() if name is None else str(name) for n, name in enumerate(names)]
        return as_column(ids, pa.field("", pa.string()))

    return RecordIds(make)


def _schema_of(rows: list[Row]) -> pa.Schema:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([pa.field(name, _type_of([row.get(name) for row in rows])) for name in names])


def _number_of(values: list[Any]) -> pa.DataType:
    """The type that holds all these numbers; null where none does: whoever names one says if they are counted with or names."""
    if any(type(value) is float for value in values):
        exact = all(value == float(value) for value in values)  # 9007199254740993 is no float
        return pa.float64() if exact else pa.null()
    if not -(2**63) <= min(values) <= max(values) < 2**64:
        return pa.null()
    return pa.uint64() if max(values) >= 2**63 else pa.int64()


def _type_of(values: list[Any]) -> pa.DataType:
    """The type of most values: a few bad records do not change what a column is."""
    kinds = Counter(float if type(value) is int else type(value) for value in values if value is not None)
    if not kinds:
        return pa.null()
    (most, _), *_ = kinds.most_common(1)
    usual: list[Any] = [
        value for value in values if type(value) is most or (most is float and type(value) is int)
    ]
    if most is float:
        return _number_of(usual)
    if most in _PLAIN:
        return _PLAIN[most]
    if most is list and {type(item) for value in usual for item in value} == {float}:
        return pa.list_(pa.float64())
    try:
        return pa.array(usual).type
    except (pa.ArrowException, OverflowError):  # lists or objects that are not alike
        return pa.null()
