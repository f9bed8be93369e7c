"""Records of a CSV file to columns: all at once where every cell fits, cell by cell where one does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.types as pt

from mlinfer import as_column, as_numpy, chosen_rows, spelled

Wrong: TypeAlias = tuple[int, str, str]
"""A record by its place in a block, the kind of what is wrong with it, and a message."""

LONGEST_SHOWN = 80
UNNAMED = "\0"
"""What the names of columns begin with that have none."""
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_CODE = r"^[+-]?(0[0-9xX].*|[0-9]{19,})$"
_PLUS = r"^\+[0-9]+$"
_LONG = r"^[+-]?[0-9]{16,18}$"
_INTEGER = r"^[+-]?[0-9]{1,18}$"
_EXACT = 2**53


class Cells:
    """Reads the wanted columns of records: an empty cell is null, and an empty text in quotes is an empty text."""

    def __init__(self, header: Sequence[str], wanted: pa.Schema, delimiter: str) -> None:
        self._header, self._delimiter = list(header), delimiter
        self._kinds = {field.name: _kind(field.type) for field in wanted if field.name in self._header}
        self._decimals = {field.name for field in wanted if pt.is_decimal(field.type)}
        # pyarrow takes "no columns" for "all columns"
        self._read = self._kinds or {self._header[0]: pa.binary()}

    def __call__(self, block: bytes, count: int) -> tuple[pa.RecordBatch, list[int] | None, list[Wrong]]:
        """The columns of so many records; the places of the good ones (None: all); what is wrong with others."""
        records, places, wrong = self._cells(block, count)
        return self._trimmed(records) if self._decimals else records, places, wrong

    def _cells(self, block: bytes, count: int) -> tuple[pa.RecordBatch, list[int] | None, list[Wrong]]:
        wrong: list[Wrong] = []
        if not _is_utf8(block):
            return self._cell_by_cell(self._parse_bytes(block, wrong), count, wrong)
        try:
            table = self._parse(block, self._read, wrong)
        except pa.ArrowInvalid:
            wrong = []
            raw = self._parse(block, dict.fromkeys(self._read, pa.binary()), wrong)
            return self._cell_by_cell(raw, count, wrong)
        batch = _batch(table, list(self._kinds))
        return (batch, _others(count, wrong), wrong) if wrong else (batch, None, [])

    def _trimmed(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Texts that are to be decimals without blanks around them, as other numbers may have."""
        names = records.schema.names
        columns = [
            pc.ascii_trim(one, " \t") if name in self._decimals else one
            for name, one in zip(names, records.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, names) if columns else records

    def infer(self, block: bytes) -> pa.Schema:
        """The types of all columns, by their first records; null where the cells do not tell."""
        wrong: list[Wrong] = []
        if not _is_utf8(block):
            block = block.decode(errors="replace").encode()
        table = self._parse(block, {}, wrong)
        named = [name for name in table.schema.names if not name.startswith(UNNAMED)]
        told = {name: _told(table.column(name)) for name in named}
        numbers = [name for name, kind in told.items() if pt.is_integer(kind) or pt.is_floating(kind)]
        if numbers:
            cells = self._parse(block, dict.fromkeys(numbers, pa.string()), [])
            for name in numbers:
                column = pc.ascii_trim(cells.column(name), " \t")  # Arrow reads a number between blanks
                if _are_codes(column) or (pt.is_floating(told[name]) and _beyond_floats(column)):
                    told[name] = pa.null()
        return pa.schema([spelled(pa.field(name, kind)) for name, kind in told.items()])

    def _parse(self, block: bytes, kinds: dict[str, pa.DataType], wrong: list[Wrong]) -> pa.Table:
        def skip(row: Any) -> str:
            message = f"wanted {row.expected_columns} columns, found {row.actual_columns}"
            wrong.append((row.number - 1, "wrong_columns", message))
            return "skip"

        return pacsv.read_csv(
            pa.BufferReader(block),
            pacsv.ReadOptions(column_names=self._header, use_threads=False, block_size=len(block) + 1),
            pacsv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=skip),
            pacsv.ConvertOptions(
                column_types=kinds,
                include_columns=list(kinds),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _parse_bytes(self, block: bytes, wrong: list[Wrong]) -> pa.Table:
        """Cells that are not all UTF-8: pyarrow fails at a record that is not and has too many or too few of them.

        It is given a text of one character for each byte, which every byte comes back from.
        """
        text = block.decode("latin-1").encode()
        table = self._parse(text, dict.fromkeys(self._read, pa.string()), wrong)
        cells = [
            [None if cell is None else cell.encode("latin-1") for cell in column.to_pylist()]
            for column in table.columns
        ]
        return pa.table([pa.array(one, pa.binary()) for one in cells], names=table.schema.names)

    def _cell_by_cell(
        self, table: pa.Table, count: int, wrong: list[Wrong]
    ) -> tuple[pa.RecordBatch, list[int], list[Wrong]]:
        places = _others(count, wrong)
        arrays, bad = [], np.zeros(table.num_rows, bool)
        for name, kind in self._kinds.items():
            cells = _one_chunk(table.column(name), pa.binary())
            array, unfit = _convert(cells, kind)
            for row in np.flatnonzero(unfit & ~bad).tolist():
                found = cells[row].as_py()[:LONGEST_SHOWN]
                wrong.append(
                    (places[row], "wrong_type", f"column {name!r}: wanted {kind}, found {_shown(found)}")
                )
            bad |= unfit
            arrays.append(array)
        batch = _batch(pa.table(arrays, names=list(self._kinds)), list(self._kinds), table.num_rows)
        good = np.flatnonzero(~bad)
        return chosen_rows(batch, good), [places[row] for row in good.tolist()], wrong


def _kind(wanted: pa.DataType) -> pa.DataType:
    """What cells are read as: numbers with room, so that none is cut before it is looked at; others as wanted, or as texts.

    Decimals are texts, too: Arrow's reader of CSV gives 524280771 to a decimal128(10, 2), which has 8 digits before its point.
    """
    if pt.is_dictionary(wanted):
        wanted = wanted.value_type
    if pt.is_floating(wanted):
        return pa.float64()
    if pt.is_integer(wanted):
        return pa.uint64() if pt.is_uint64(wanted) else pa.int64()
    if pt.is_boolean(wanted) or pt.is_binary(wanted):
        return wanted
    if pt.is_timestamp(wanted) or pt.is_date(wanted) or pt.is_time(wanted):
        return wanted
    return pa.string()


def _convert(cells: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Cells as values, with a mask of those that are none (null in the result)."""
    if pt.is_binary(kind):
        return cells, np.zeros(len(cells), bool)
    texts, unfit = _decoded(cells)
    if pt.is_string(kind):
        return texts, unfit
    texts = pc.utf8_trim_whitespace(texts)
    nothing = pa.nulls(1, pa.string())[0]
    texts = pc.if_else(pc.equal(texts, as_column([""], pa.field("", pa.string()))[0]), nothing, texts)
    plain = _plain(texts, kind)
    try:
        array = pc.if_else(plain, texts, nothing).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # there is no cast to a time of day
        plain = _column(np.zeros(len(texts), bool))
        array = pa.nulls(len(texts), kind)
    doubtful = np.flatnonzero(as_numpy(pc.and_(texts.is_valid(), pc.invert(plain))))
    spelled = texts.take(_column(doubtful)).to_pylist()
    # bad cells are often alike: "NA", "-"
    known = {text: _value(text, kind) for text in dict.fromkeys(spelled)}
    values = [known[text] for text in spelled]
    if values:
        mask = np.zeros(len(texts), bool)
        mask[doubtful] = True
        array = pc.replace_with_mask(array, _column(mask), pa.concat_arrays(values))
        unfit[doubtful] |= [value.null_count > 0 for value in values]
    return array, unfit


def _plain(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Which cells surely are values, so that only the others are looked at one by one."""
    if not (pt.is_float64(kind) or pt.is_int64(kind)):
        return _column(np.zeros(len(texts), bool))
    pattern = _NUMBER if pt.is_float64(kind) else _INTEGER
    return pc.and_kleene(pc.match_substring_regex(texts, pattern), texts.is_valid())  # false where null


def _decoded(cells: pa.Array) -> tuple[pa.Array, np.ndarray]:
    unfit = np.zeros(len(cells), bool)
    try:
        return cells.cast(pa.string()), unfit
    except pa.ArrowInvalid:
        values: list[str | None] = []
        for row, cell in enumerate(cells.to_pylist()):
            try:
                values.append(None if cell is None else cell.decode())
            except UnicodeDecodeError:
                values.append(None)
                unfit[row] = True
        return as_column(values, pa.field("", pa.string())), unfit


def _value(text: str, kind: pa.DataType) -> pa.Array:
    """One cell as an array of one value: as the parser of whole blocks reads it; null if it cannot."""
    quoted = '"' + text.replace('"', '""') + '"\n'
    convert = pacsv.ConvertOptions(column_types={"": kind}, null_values=[])
    parse = pacsv.ParseOptions(newlines_in_values=True)
    read = pacsv.ReadOptions(column_names=[""], use_threads=False, block_size=len(quoted.encode()) + 1)
    try:
        return _one_chunk(
            pacsv.read_csv(pa.BufferReader(quoted.encode()), read, parse, convert).column(0), kind
        )
    except pa.ArrowInvalid:
        pass
    if pt.is_int64(kind):  # a column of integers with gaps often comes as 1.0
        number = _value(text, pa.float64())[0].as_py()
        if number is not None and abs(number) < _EXACT and number == int(number):
            return pa.array([int(number)], kind)
    return pa.nulls(1, kind)


def _column(values: np.ndarray) -> pa.Array:
    """Without `pa.array`, which imports pandas where it is installed."""
    return as_column(values, pa.field("", pa.null()))


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _told(column: pa.ChunkedArray) -> pa.DataType:
    """The type of a column, unless it is a text among which numbers stand: these may be numbers with a few bad cells."""
    if not pt.is_string(column.type):
        return column.type
    cells = column.drop_null()
    numbers = pc.sum(pc.match_substring_regex(cells, _NUMBER)).as_py() or 0
    return pa.null() if 2 * numbers > len(cells) else pa.string()


def _are_codes(cells: pa.ChunkedArray) -> bool:
    """Whether there are cells that a number would not give back: 007, 0x1F, +4930, or more digits than a number holds."""
    if pc.any(pc.match_substring_regex(cells, _CODE)).as_py():
        return True
    pluses = pc.any(pc.match_substring_regex(cells, _PLUS)).as_py()
    return bool(pluses) and not pc.any(pc.starts_with(cells, "-")).as_py()  # beside a minus it is a sign


def _beyond_floats(cells: pa.ChunkedArray) -> bool:
    """Whether there are integers among fractions that no float holds: 9007199254740993."""
    long = cells.filter(pc.match_substring_regex(cells, _LONG)).to_pylist()
    return any(int(cell) != float(cell) for cell in long)


def _others(count: int, wrong: list[Wrong]) -> list[int]:
    refused = {place for place, _, _ in wrong}
    return [place for place in range(count) if place not in refused] if refused else list(range(count))


def _batch(table: pa.Table, names: list[str], rows: int | None = None) -> pa.RecordBatch:
    if not names:
        count = table.num_rows if rows is None else rows
        return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
    return pa.RecordBatch.from_arrays([_one_chunk(table.column(name), None) for name in names], names=names)


def _one_chunk(column: pa.ChunkedArray, kind: pa.DataType | None) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, kind or column.type)


def _shown(found: bytes) -> str:
    return repr(found.decode(errors="backslashreplace"))
