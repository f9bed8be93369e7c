"""How every Arrow type arrives at a destination and is read back by that destination's own reader.

To add a destination: a function that writes a batch and gives the values of its column `v` back as Python objects, and
a column of expected values.
"""

import base64
import csv
import datetime as dt
import json
import math
import sqlite3
from contextlib import closing
from decimal import Decimal

import pyarrow as pa
import pytest

import mlinfer
from mlinfer import Batch, Progress, RecordErrors, SchemaError, Scope
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    SqlDestination,
    StdoutDestination,
)
from mlinfer.sources import MemorySource

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
    "int16": (pa.array([-(2**15), 2**15 - 1], pa.int16()), [-(2**15), 2**15 - 1], ["-32768", "32767"]),
    "int32": (pa.array([-(2**31), 2**31 - 1], pa.int32()), [-(2**31), 2**31 - 1], ["-2147483648", "2147483647"]),
    "uint8": (pa.array([0, 255, None], pa.uint8()), [0, 255, None], ["0", "255", ""]),
    "uint16": (pa.array([0, 2**16 - 1], pa.uint16()), [0, 65535], ["0", "65535"]),
    "uint32": (pa.array([0, 2**32 - 1], pa.uint32()), [0, 4294967295], ["0", "4294967295"]),
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
    "large_binary": (pa.array([BYTES], pa.large_binary()), [BASE64], [BASE64]),
    "binary_view": (pa.array([BYTES, None], pa.binary_view()), [BASE64, None], [BASE64, ""]),
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
    "timestamp_ns": (
        pa.array([1], pa.timestamp("ns")),
        ["1970-01-01T00:00:00.000000001"], ["1970-01-01T00:00:00.000000001"],
    ),
    "time64_ns": (pa.array([1]).view(pa.time64("ns")), ["00:00:00.000000001"], ["00:00:00.000000001"]),
    "timestamp_tz": (IN_BERLIN, ["2024-02-29T12:30:15.123456Z", None], ["2024-02-29T12:30:15.123456Z", ""]),
    "duration": (pa.array([1500, -1, None], pa.duration("ms")), ["PT1.5S", "-PT0.001S", None], ["PT1.5S", "-PT0.001S", ""]),
    "list": (pa.array([[1.5, None], [], None]), [[1.5, None], [], None], ["[1.5,null]", "[]", ""]),
    "infinity_in_a_list": (
        pa.array([[1.5, math.inf, -math.inf, math.nan]]), [[1.5, None, None, None]], ["[1.5,null,null,null]"],
    ),
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


ONE = pa.array([1])
UNSPELLABLE = {
    "list_view": pa.array([[1]], pa.list_view(pa.int64())),
    "large_list_view": pa.array([[1]], pa.large_list_view(pa.int64())),
    "interval": pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    "run_end_encoded": pa.RunEndEncodedArray.from_arrays([1], ONE),
    "union": pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [ONE]),
    "union_in_a_struct": pa.StructArray.from_arrays(
        [pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [ONE])], ["u"]
    ),
}


@pytest.mark.parametrize("name", UNSPELLABLE)
@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda folder: JsonLinesDestination(folder / "a.jsonl"), "JSON lines"),
        (lambda folder: CsvDestination(folder / "a.csv"), "CSV"),
        (lambda _: StdoutDestination(), "standard output"),
    ],
    ids=["jsonl", "csv", "stdout"],
)
def test_a_type_without_a_spelling_is_refused_before_the_first_record(make, place, name, tmp_path):
    schema = pa.schema([("good", pa.int64()), ("v", UNSPELLABLE[name].type)])
    with pytest.raises(SchemaError) as error, make(tmp_path).open(schema, Scope("types", run="1")):
        pytest.fail("it was opened")
    assert all(word in str(error.value) for word in ("'v'", place, str(schema.field("v").type), "keep="))
    assert list(tmp_path.iterdir()) == []


FAR = 2**62
TIMES = {
    "timestamp[s]": pa.timestamp("s"),
    "timestamp[us] with a zone": pa.timestamp("us", "Europe/Berlin"),
    "date32": pa.date32(),
    "date64": pa.date64(),
    "time64": pa.time64("us"),
    "time32": pa.time32("s"),
}


def times(kind, wrapped):
    """A good time, none, one beyond what can be written, and a good one again; also inside of other values."""
    width = pa.int32() if kind.bit_width == 32 else pa.int64()
    far = 2**31 - 1 if kind.bit_width == 32 else FAR
    plain = pa.array([0, None, far, 0], width).view(kind)
    names = pa.array(["k"] * 4)
    ends = pa.array(range(5), pa.int32())
    return {
        "plain": lambda: plain,
        "dictionary": plain.dictionary_encode,
        "list": lambda: pa.ListArray.from_arrays(ends, plain),
        "tensor": lambda: pa.FixedSizeListArray.from_arrays(plain, 1),
        "struct": lambda: pa.StructArray.from_arrays([plain], ["t"]),
        "map": lambda: pa.MapArray.from_arrays(ends, names, plain),
    }[wrapped]()


@pytest.mark.parametrize("wrapped", ["plain", "dictionary", "list", "tensor", "struct", "map"])
@pytest.mark.parametrize("kind", TIMES)
def test_a_time_that_text_cannot_say_rejects_its_record(kind, wrapped, tmp_path):
    column = times(TIMES[kind], wrapped)
    destinations = [
        JsonLinesDestination(tmp_path / "a.jsonl"),
        CsvDestination(tmp_path / "a.csv"),
        SqlDestination(f"sqlite:///{tmp_path}/a.db", "a"),
    ]
    for destination in destinations:
        with destination.open(pa.schema([("v", column.type)]), Scope("types", run="1")) as writer:
            records = pa.record_batch({"v": column})
            with pytest.raises(RecordErrors) as error:
                writer.write(Batch(records, "all", None))
            assert (error.value.rows, error.value.kinds) == ([2], ["bad_time"])
            assert "'v'" in error.value.messages[0]
            writer.write(Batch(records.filter(pa.array([True, True, False, True])), "all", None))
            writer.commit(Progress())
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT count(*) FROM a WHERE v LIKE '%out of range%'").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (3,)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3
    assert "out of range" not in (tmp_path / "a.jsonl").read_text() + (tmp_path / "a.csv").read_text()


FINE = {
    "time64[ns]": pa.time64("ns"),
    "timestamp[ns]": pa.timestamp("ns"),
    "timestamp[ns] with a zone": pa.timestamp("ns", "Europe/Berlin"),
    "timestamp[s]": pa.timestamp("s"),
    "duration[ns]": pa.duration("ns"),
    "duration[s]": pa.duration("s"),
    "date64": pa.date64(),
}


def inside(plain, wrapped):
    """Five values, the third one null, inside of others; of the lists the first is empty and the second null."""
    ends = pa.array([0, None, 0, 2, 5], pa.int32())
    return {
        "list": lambda: pa.ListArray.from_arrays(ends, plain),
        "list of lists": lambda: pa.ListArray.from_arrays(ends, inside(plain, "tensor")),
        "tensor": lambda: pa.FixedSizeListArray.from_arrays(
            plain, 1, mask=pa.array([False, False, False, True, False])
        ),
        "struct": lambda: pa.StructArray.from_arrays([plain, plain], ["a", "b"]),
        "map": lambda: pa.MapArray.from_arrays(ends, pa.array(list("abcde")), plain),
    }[wrapped]()


@pytest.mark.parametrize("wrapped", ["list", "list of lists", "tensor", "struct", "map"])
@pytest.mark.parametrize("kind", FINE)
def test_times_inside_of_others_arrive_in_a_database_to_the_last_digit_as_in_json_lines(
    kind, wrapped, tmp_path
):
    day = 86_400_000
    plain = pa.array([0, 1, None, day, day - 1], pa.int64())
    if kind == "date64":
        plain = pa.array([0, day, None, -day, 10**5 * day], pa.int64())
    values = inside(plain.view(FINE[kind]), wrapped)
    expected = through_json_lines(tmp_path, values)
    written(SqlDestination(f"sqlite:///{tmp_path}/a.db", "a"), values)
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        found = [one and json.loads(one) for (one,) in connection.execute("SELECT v FROM a ORDER BY n")]
    assert [dict(one) if wrapped == "map" and one is not None else one for one in found] == expected
    assert any("01" in str(one) or "1S" in str(one) for one in expected), "it is the last digit that was lost"


def test_the_first_and_the_last_time_that_text_can_say_arrive(tmp_path):
    seconds = [-1_096_193_779_200, 971_890_963_199]
    for shift, rows in ((0, []), (1, [1]), (-1, [0])):
        column = pa.array([one + shift for one in seconds], pa.int64()).view(pa.timestamp("s"))
        errors = []
        with CsvDestination(tmp_path / f"{shift}.csv").open(
            pa.schema([("v", column.type)]), Scope("t", run="1")
        ) as writer:
            try:
                writer.write(Batch(pa.record_batch({"v": column}), "all", None))
            except RecordErrors as found:
                errors = found.rows
            writer.commit(Progress())
        assert errors == rows
    assert "out of range" not in (tmp_path / "0.csv").read_text()


def test_a_run_sets_aside_records_with_such_times(tmp_path):
    @mlinfer.host(inputs={"i": "int64"}, outputs={"o": "int64"}, takes="numpy", version="1")
    def same(i):
        return i

    moments = pa.array([0, FAR, 0], pa.int64()).view(pa.timestamp("us"))
    source = MemorySource(pa.table({"i": [1, 2, 3], "at": moments}))
    rejects = MemoryDestination()
    pipeline = mlinfer.InferencePipeline(
        source, same, JsonLinesDestination(tmp_path / "a.jsonl"), name="p", keep=["at"], rejects=rejects,
        budget=mlinfer.Budget(ratio=1),
    )  # fmt: skip
    report = pipeline.run()
    assert (report.delivered, report.rejected) == (2, 1)
    assert rejects.table("rejects")["kind"].to_pylist() == ["bad_time"]
    assert "bad_time" in mlinfer.STAGES["write"].kinds
    assert [json.loads(line)["o"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [1, 3]
