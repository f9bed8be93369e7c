"""How every Arrow type arrives at a destination and is read back by that destination's own reader.

To add a destination: a function that writes a batch and gives the values of its column `v` back as Python objects, and
a column of expected values.
"""

import base64
import csv
import datetime as dt
import json
import math
from decimal import Decimal

import pyarrow as pa
import pytest

from mlinfer import Batch, Progress, Scope
from mlinfer.destinations import CsvDestination, JsonLinesDestination

NOON = dt.datetime(2024, 2, 29, 12, 30, 15, 123456)  # noqa: DTZ001 - a time without a zone is one of the types
IN_BERLIN = pa.array([NOON.replace(tzinfo=dt.UTC), None], pa.timestamp("us", "Europe/Berlin"))
TEXT = 'a "quoted", line\nand ünïcode'
BYTES = b"\x00\xffbytes"
BASE64 = base64.b64encode(BYTES).decode()

# name: (what goes in, what comes out of JSON lines, what comes out of CSV)
TYPES = {
    "null": (pa.nulls(2), [None, None], ["", ""]),
    "bool": (pa.array([True, False, None]), [True, False, None], ["true", "false", ""]),
    "int8": (pa.array([-128, 127, None], pa.int8()), [-128, 127, None], ["-128", "127", ""]),
    "int64": (pa.array([-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1], [str(-(2**63)), str(2**63 - 1)]),
    "uint64": (pa.array([2**64 - 1, 0], pa.uint64()), [2**64 - 1, 0], [str(2**64 - 1), "0"]),
    "float16": (pa.array([1.5, None], pa.float16()), [1.5, None], ["1.5", ""]),
    "float32": (pa.array([0.1, 2], pa.float32()), [0.1, 2.0], ["0.1", "2"]),
    "float64": (pa.array([0.1, 1e300, -0.0, None]), [0.1, 1e300, -0.0, None], ["0.1", "1e+300", "-0", ""]),
    "nonfinite": (pa.array([math.nan, math.inf, -math.inf]), [None, None, None], ["nan", "inf", "-inf"]),
    "decimal128": (pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)), ["1.50", None], ["1.50", ""]),
    "decimal256": (pa.array([Decimal("-0.001")], pa.decimal256(50, 3)), ["-0.001"], ["-0.001"]),
    "string": (pa.array([TEXT, "", None]), [TEXT, "", None], [TEXT, "", ""]),
    "large_string": (pa.array([TEXT], pa.large_string()), [TEXT], [TEXT]),
    "string_view": (pa.array([TEXT, None], pa.string_view()), [TEXT, None], [TEXT, ""]),
    "dictionary": (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"], ["x", "", "x"]),
    "binary": (pa.array([BYTES, b"", None]), [BASE64, "", None], [BASE64, "", ""]),
    "fixed_binary": (pa.array([b"abc"], pa.binary(3)), ["YWJj"], ["YWJj"]),
    "date32": (pa.array([NOON.date(), None]), ["2024-02-29", None], ["2024-02-29", ""]),
    "date64": (pa.array([NOON.date()], pa.date64()), ["2024-02-29"], ["2024-02-29"]),
    "time64": (pa.array([NOON.time(), None]), ["12:30:15.123456", None], ["12:30:15.123456", ""]),
    "time32": (pa.array([dt.time(1, 2, 3)], pa.time32("s")), ["01:02:03"], ["01:02:03"]),
    "timestamp": (pa.array([NOON, None]), ["2024-02-29T12:30:15.123456", None], ["2024-02-29T12:30:15.123456", ""]),
    "timestamp_s": (
        pa.array([0], pa.timestamp("s")),
        ["1970-01-01T00:00:00"], ["1970-01-01T00:00:00"],
    ),
    "timestamp_tz": (IN_BERLIN, ["2024-02-29T12:30:15.123456Z", None], ["2024-02-29T12:30:15.123456Z", ""]),
    "duration": (pa.array([1500, -1, None], pa.duration("ms")), ["PT1.5S", "-PT0.001S", None], ["PT1.5S", "-PT0.001S", ""]),
    "list": (pa.array([[1.5, None], [], None]), [[1.5, None], [], None], ["[1.5,null]", "[]", ""]),
    "large_list": (pa.array([[TEXT]], pa.large_list(pa.string())), [[TEXT]], [json.dumps([TEXT], ensure_ascii=False)]),
    "tensor": (pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), [[1, 2], None], ["[1,2]", ""]),
    "nested_list": (pa.array([[[1], None], [[]]]), [[[1], None], [[]]], ["[[1],null]", "[[]]"]),
    "struct": (
        pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": ""}]),
        [{"a": 1, "b": "x"}, None, {"a": None, "b": ""}],
        ['{"a":1,"b":"x"}', "", '{"a":null,"b":""}'],
    ),
    "list_of_structs": (
        pa.array([[{"t": NOON.date()}], []]), [[{"t": "2024-02-29"}], []], ['[{"t":"2024-02-29"}]', "[]"],
    ),
    "map": (
        pa.array([[("k", 1), ('"', None)], [], None], pa.map_(pa.string(), pa.int64())),
        [{"k": 1, '"': None}, {}, None],
        ['{"k":1,"\\"":null}', "{}", ""],
    ),
    "map_of_numbers": (pa.array([[(1, 2.5)]], pa.map_(pa.int64(), pa.float64())), [{"1": 2.5}], ['{"1":2.5}']),
}  # fmt: skip


def written(destination, array):
    records = pa.record_batch({"v": array, "n": pa.array(range(len(array)))})
    with destination.open(records.schema, Scope("types", run="1")) as writer:
        writer.write(Batch(records.slice(0, 1), "all", None))
        writer.write(Batch(records.slice(1), "all", None))  # a slice: offsets must be looked at
        writer.commit(Progress())


def through_json_lines(folder, array):
    written(JsonLinesDestination(folder / "a.jsonl"), array)
    text = (folder / "a.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=pytest.fail)["v"] for line in text.split("\n")[:-1]]


def through_csv(folder, array):
    written(CsvDestination(folder / "a.csv"), array)
    with (folder / "a.csv").open(encoding="utf-8", newline="") as file:
        return [row["v"] for row in csv.DictReader(file, strict=True)]


DESTINATIONS = {"jsonl": (through_json_lines, 1), "csv": (through_csv, 2)}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("destination", DESTINATIONS)
def test_every_type_arrives(destination, name, tmp_path):
    through, column = DESTINATIONS[destination]
    found, expected = through(tmp_path, TYPES[name][0]), TYPES[name][column]
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


def test_null_and_an_empty_text_stay_apart_in_csv(tmp_path):
    written(CsvDestination(tmp_path / "a.csv"), pa.array(["", None]))
    assert (tmp_path / "a.csv").read_text().splitlines() == ['"v","n"', '"",0', ",1"]
