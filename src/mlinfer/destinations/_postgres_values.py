"""Arrow values as what a PostgreSQL column holds, and as the CSV that COPY reads.

Arrow                                   PostgreSQL
bool                                    BOOLEAN
int8 to int64, uint8 to uint64          SMALLINT, INTEGER or BIGINT, the smallest that holds the type (uint64: BIGINT)
float16, float32, float64               REAL, DOUBLE PRECISION; NaN and infinities as such
decimal                                 NUMERIC(precision, scale)
strings                                 TEXT
binary                                  BYTEA
timestamp                               TIMESTAMP, or TIMESTAMPTZ if it has a zone: microseconds
date, time, duration                    DATE, TIME, INTERVAL: microseconds
lists, tensors, structs, maps           JSONB; bytes as base64, NaN as null, infinity as a string, times as texts
dictionary-encoded                      as its values
"""

from __future__ import annotations

import io
import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.types as pt

from mlinfer import is_bytes, is_text
from mlinfer.destinations import _sql_values as shared
from mlinfer.destinations._spellable import plain

_INTEGERS = {
    pa.int8(): "SMALLINT",
    pa.uint8(): "SMALLINT",
    pa.int16(): "SMALLINT",
    pa.uint16(): "INTEGER",
    pa.int32(): "INTEGER",
}
_NAMED = {"bool": "BOOLEAN", "halffloat": "REAL", "float": "REAL", "double": "DOUBLE PRECISION"}
_LIMITED = re.compile(r"character varying\((\d+)\)")
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
SPAN = (-(2**63) // 2, 2**63 // 2)
"""Microseconds since 1970 that are sure to have a place, far beyond what PostgreSQL's own calendar holds."""


def storage(kind: pa.DataType) -> str | None:
    """The type of the column that holds such values; None: no column does."""
    kind = plain(kind)
    if pt.is_integer(kind):
        return _INTEGERS.get(kind, "BIGINT")
    if pt.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz is None else "TIMESTAMPTZ"
    if pt.is_decimal(kind):
        return f"NUMERIC({kind.precision},{kind.scale})"
    if pt.is_date(kind) or pt.is_time(kind) or pt.is_duration(kind):
        return "DATE" if pt.is_date(kind) else "TIME" if pt.is_time(kind) else "INTERVAL"
    if (named := _NAMED.get(str(kind))) is not None:
        return named
    found = shared.storage(kind)
    if found == "BLOB":
        return "BYTEA"
    return "JSONB" if pt.is_nested(kind) and found else found


def too_fine(column: pa.Array) -> pa.Array | None:
    """Which times would be rounded, or are too far away to be counted in microseconds; None: none of them."""
    if pt.is_dictionary(column.type) and pt.is_temporal(column.type.value_type):
        column = column.dictionary_decode()
    kind = column.type
    unit = str(getattr(kind, "unit", ""))
    if not (pt.is_timestamp(kind) or pt.is_time(kind) or pt.is_duration(kind)) or unit == "us":
        return None
    counts = column.view(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.int64())  # noqa: PLR2004 - time32
    if unit == "ns":
        rest = pc.subtract(counts, pc.multiply(pc.divide(counts, 1000), 1000))
        return pc.not_equal(rest, 0)
    least, most = (limit // _MICROSECONDS[unit] for limit in SPAN)
    return pc.or_(pc.less(counts, least), pc.greater(counts, most))


def too_long(records: pa.RecordBatch, columns: dict[str, str]) -> list[tuple[int, str]]:
    """The rows with a text that its column would cut, and why: of blanks at its end PostgreSQL drops those beyond the limit."""
    found: dict[int, str] = {}
    for name, array in zip(records.schema.names, records.columns, strict=True):
        limit = _LIMITED.fullmatch(columns.get(name, ""))
        if limit is None:
            continue
        lengths = pc.utf8_length(cells(array))
        for row in shared.rows_of(pc.greater(lengths, int(limit[1]))):
            found.setdefault(row, f"column {name!r}: value too long for type {columns[name]}")
    return sorted(found.items())


def between(records: pa.RecordBatch, passed_over: list[int]) -> list[tuple[int, pa.RecordBatch]]:
    """What is in front of, between and behind these rows, with the number of its first row; the last one first."""
    edges = zip([0, *(row + 1 for row in passed_over)], [*passed_over, len(records)], strict=True)
    return [(start, records.slice(start, end - start)) for start, end in edges if start < end][::-1]


def csv_of(records: pa.RecordBatch) -> bytes:
    """Records as COPY reads them: texts always in quotes, so that an empty one is not null."""
    table = pa.table([cells(column) for column in records.columns], names=records.schema.names)
    text = io.BytesIO()
    pacsv.write_csv(table, text, pacsv.WriteOptions(include_header=False))
    return text.getvalue()


def cells(array: pa.Array) -> pa.Array:
    """A column as one that Arrow's CSV writer spells as PostgreSQL reads it."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pt.is_dictionary(kind):
        return cells(array.dictionary_decode())
    if pt.is_float16(kind):
        return array.cast(pa.float32())
    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind) or pt.is_date32(kind):
        return array
    if pt.is_temporal(kind):
        return _times(array)
    if is_text(kind) or pt.is_decimal(kind) or pt.is_null(kind):
        return array.cast(pa.string())
    if is_bytes(kind):
        texts = [None if value is None else f"\\x{value.hex()}" for value in array.to_pylist()]
    else:
        texts = shared.json_values(array)
    return pa.array(texts, pa.string())


def _times(array: pa.Array) -> pa.Array:
    """Times in microseconds; `too_fine` has told which of them cannot be."""
    kind = array.type
    if pt.is_date64(kind):
        return array.cast(pa.date32())
    if pt.is_time(kind):
        return array.cast(pa.time64("us"), safe=False)
    if pt.is_duration(kind):
        counts = array.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.string())
        return pc.binary_join_element_wise(counts, "microseconds", " ")
    # Arrow writes UTC with a Z; as numbers they lose a zone that it could not look up.
    counts = array.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
    return counts.cast(pa.timestamp("us", None if kind.tz is None else "UTC"))
