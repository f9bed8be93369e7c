"""Values of every Arrow type, the odd ones among them, and what counts as having arrived."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import Batch, ConfigError, RecordIds
from mlinfer.testing._delivering import PARTITION, SCHEMA, SCOPE, DestinationCase, progress, write_what_fits
from mlinfer.testing._kit import Skip, expect

NOON = dt.datetime(2024, 2, 29, 12, 30, 15, 123456)  # noqa: DTZ001 - a time without a zone is one of the types

NAUGHTY = [
    "", " ", "null", "NaN", "0", "-1e999", "'", '"', '""', "a,b;c\td", "line\nline", "line\r\nline", "\\", "\\N",
    "'; DROP TABLE scores; --", "=1+1", "<script>", "%s %n {0} ${HOME}", "\x01\x1b[31m", "\u00fcn\u00efc\u00f6de",
    "e\u0301", "\u202eright to left", "\u200b", "\ufeffbom", "\U0001f600", "x" * 5000,
]  # fmt: skip
"""Texts that have broken other people's programs. Each arrives exactly, or is refused by name."""

VALUES: dict[str, pa.Array] = {
    "naughty texts": pa.array([*NAUGHTY, None]),
    "a text with NUL": pa.array(["a\x00b"]),
    "large texts": pa.array(["a", None], pa.large_string()),
    "texts in a dictionary": pa.array(["x", None, "x"]).dictionary_encode(),
    "booleans": pa.array([True, False, None]),
    "small integers": pa.array([-128, 127, None], pa.int8()),
    "extreme integers": pa.array([-(2**63), 2**63 - 1, 0, None], pa.int64()),
    "unsigned integers": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "floats": pa.array([0.1, -0.0, 1.7976931348623157e308, 5e-324, None]),
    "not finite": pa.array([math.nan, math.inf, -math.inf, 1.5]),
    "small floats": pa.array([0.5, None], pa.float32()),
    "decimals": pa.array([Decimal("1.50"), Decimal("-99999999.99"), None], pa.decimal128(10, 2)),
    "bytes": pa.array([b"\x00\xff", b"", None]),
    "dates": pa.array([NOON.date(), dt.date(1, 1, 1), dt.date(9999, 12, 31), None]),
    "times": pa.array([NOON.time(), None]),
    "moments": pa.array([NOON, None], pa.timestamp("us")),
    "moments with a zone": pa.array([NOON.replace(tzinfo=dt.UTC), None], pa.timestamp("us", "Europe/Berlin")),
    "durations": pa.array([dt.timedelta(seconds=1.5), None]),
    "lists": pa.array([[1.5, None], [], None]),
    "vectors": pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)),
    "lists of texts": pa.array([["a", '"', None], []]),
    "structs": pa.array([{"a": 1, "b": "x"}, {"a": None, "b": ""}, None]),
    "maps": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "nothing but nulls": pa.nulls(2),
}
"""One column per type. A destination may refuse a type as a whole (ConfigError), or single values (RecordErrors)."""


def arrived(value: Any, found: Any, kind: pa.DataType) -> bool:
    """Whether what was read back stands for the value: null for null, texts and integers exactly, floats to the last bit."""
    if value is None:
        return found is None or found == ""
    judge = next((judge for fits, judge in _JUDGES if fits(kind)), None)
    return found is not None if judge is None else bool(judge(value, found))


def _text(value: str, found: Any) -> bool:
    return bool(found == value) or (not value and found is None)


def _boolean(value: bool, found: Any) -> bool:  # noqa: FBT001 - the value that is compared
    return str(found).lower() in ({"true", "1", "t"} if value else {"false", "0", "f"})


def _whole(value: int, found: Any) -> bool:
    return not isinstance(found, float) and bool(_parsed(int, found) == value)


def _float(value: float, found: Any) -> bool:
    if not math.isfinite(value) and found in {None, ""}:  # JSON and SQL have no spelling for them
        return True
    number = _parsed(float, found)
    return bool(number == value or (number is not None and math.isnan(number) and math.isnan(value)))


def _decimal(value: Decimal, found: Any) -> bool:
    return bool(_parsed(Decimal, found) == value)


def _parsed(kind: Callable[[str], Any], found: Any) -> Any:
    try:
        return kind(str(found))
    except (ValueError, ArithmeticError):
        return None


_JUDGES: list[tuple[Callable[[pa.DataType], bool], Callable[[Any, Any], bool]]] = [
    (pa.types.is_string, _text),
    (pa.types.is_large_string, _text),
    (pa.types.is_dictionary, _text),
    (pa.types.is_boolean, _boolean),
    (pa.types.is_integer, _whole),
    (pa.types.is_floating, _float),
    (pa.types.is_decimal, _decimal),
]


def check_types(case: DestinationCase, folder: Path) -> None:
    """Every value arrives, is refused by name (RecordErrors), or its type is refused at the door (ConfigError)."""
    for number, (kind, column) in enumerate(VALUES.items()):
        destination = case.make(folder, f"type{number}")
        one = _with(column)
        with suppress(ConfigError), destination.open(one.records.schema, SCOPE) as writer:
            refused = write_what_fits(writer, one, progress(len(one)))
            found = {record["id"]: record.get("value") for record in case.records(destination)}
            for row in (row for row in range(len(column)) if row not in refused):
                _check_value(found, row, column, kind)


def check_refused(case: DestinationCase, folder: Path) -> None:
    """Records that are refused leave nothing behind, and cost no others."""
    seen = False
    for number, column in enumerate(VALUES.values()):
        destination = case.make(folder, f"refusing{number}")
        one = _with(column)
        with suppress(ConfigError), destination.open(one.records.schema, SCOPE) as writer:
            refused = write_what_fits(writer, one, progress(1))
            seen |= bool(refused)
            count = len(case.records(destination))
            wanted = f"{len(one) - len(refused)} records, for {len(refused)} were refused"
            advice = "store nothing of a batch of which a record is refused"
            expect(count == len(one) - len(refused), wanted, count, advice)
    if not seen:
        msg = "the destination refused none of the kit's records"
        raise Skip(msg)


def _with(column: pa.Array) -> Batch:
    ids = pa.array([f"r{n:05d}" for n in range(len(column))])
    schema = pa.schema([SCHEMA.field("id"), ("value", column.type)])
    return Batch(pa.RecordBatch.from_arrays([ids, column], schema=schema), PARTITION, 1, RecordIds.of(ids))


def _check_value(found: Mapping[str, Any], row: int, column: pa.Array, kind: str) -> None:
    name, value = f"r{row:05d}", column[row].as_py()
    there = name in found and arrived(value, found[name], column.type)
    shown = repr(found.get(name, "no such record"))[:80]
    advice = "store it unchanged, or name it with RecordErrors; a type that cannot be stored is a ConfigError in open()"
    expect(there, f"the value {repr(value)[:80]} ({kind}) to arrive", shown, advice)
