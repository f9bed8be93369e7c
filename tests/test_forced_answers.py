"""Answers in lists are what the model said: Arrow would cut 1.5 to 1 and noon to a day, and end the process over some maps."""

import datetime as dt
from array import array
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlinfer import InferencePipeline
from mlinfer._forcing import forced
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

NOON = dt.datetime.fromisoformat("2024-02-29T12:00:00")
INTEGERS = pa.map_(pa.string(), pa.int64())
CHANGED = {
    "float": (pa.int64(), 1.5),
    "numpy": (pa.uint8(), np.float32(1.5)),
    "decimal": (pa.int32(), Decimal("1.5")),
    "infinity": (pa.int64(), float("inf")),
    "noon": (pa.date32(), NOON),
    "noon of 64 bits": (pa.date64(), NOON),
    "noon of pandas": (pa.date32(), pd.Timestamp(NOON)),
    "no date of pandas": (pa.date32(), pd.NaT),
    "half a second": (pa.timestamp("s"), NOON.replace(microsecond=500_000)),
    "microseconds": (pa.timestamp("ms", "UTC"), NOON.replace(microsecond=1, tzinfo=dt.UTC)),
    "nanoseconds": (pa.timestamp("us"), pd.Timestamp("2024-02-29T12:00:00.123456789")),
    "a time with microseconds": (pa.time32("s"), dt.time(12, 0, 0, 1)),
    "a time beyond milliseconds": (pa.time32("ms"), dt.time(12, 0, 0, 1)),
    "a time with a zone": (pa.time64("us"), dt.time(12, tzinfo=dt.UTC)),
    "half a second long": (pa.duration("s"), dt.timedelta(seconds=0.5)),
    "nanoseconds long": (pa.duration("us"), pd.Timedelta(1, "ns")),
    "noons": (pa.list_(pa.date32()), [NOON.date(), NOON]),
    "noon in an object": (pa.struct([("on", pa.date32())]), {"on": NOON}),
    "noon in a map": (pa.map_(pa.string(), pa.date32()), {"on": NOON}),
    "too large": (pa.float32(), 1e300),
    "too small": (pa.float32(), -1e300),
    "too large for half": (pa.float16(), 70_000.0),
    "too large, of numpy": (pa.float32(), np.float64(1e300)),
    "too large in a list": (pa.list_(pa.float32()), [1.0, 1e300]),
    "too large in an array": (pa.list_(pa.float32(), 2), np.array([1.0, 1e300])),
    "too large in an object": (pa.struct([("a", pa.list_(pa.float32()))]), {"a": [1e300]}),
    "too large in a map": (pa.map_(pa.string(), pa.float32()), {"a": 1e300}),
    "list": (pa.list_(pa.int64()), [1, 2.5]),
    "array": (pa.list_(pa.int64()), np.array([1.0, 2.5])),
    "vector": (pa.list_(pa.int64(), 2), (1, 2.5)),
    "object": (pa.struct([("a", pa.int8())]), {"a": 1.5}),
    "objects": (pa.list_(pa.struct([("a", pa.int8())])), [{"a": 1}, {"a": 1.5}]),
    "value of a map": (INTEGERS, [("a", 1.5)]),
    "key of a map": (pa.map_(pa.int64(), pa.string()), [(1.5, "a")]),
    "set": (pa.list_(pa.int64()), {1.5}),
    "column of pandas": (pa.list_(pa.int64()), pd.Series([1.0, 2.5])),
    "array of Python": (pa.list_(pa.float32()), array("d", [1e300])),
    "object in a tuple": (pa.struct([("a", pa.int8())]), (1.5,)),
    "object in pairs": (pa.struct([("a", pa.int8())]), [("a", 1.5)]),
    "in a dictionary": (pa.dictionary(pa.int32(), pa.int64()), 1.5),
    "too large in a dictionary": (pa.dictionary(pa.int32(), pa.float32()), 1e300),
    "integer too large for half": (pa.float16(), 70_000),
    "one and a half seconds after 1970": (pa.timestamp("s"), 1.5),
    "half a day after 1970": (pa.date32(), 0.5),
    "a millisecond after 1970": (pa.date64(), 1),
    "a tenth of a second long": (pa.duration("s"), Decimal("0.1")),
    "the largest of numpy": (pa.float64(), np.uint64(2**64 - 1)),
    "the largest of numpy, in a list": (pa.list_(pa.float32()), [0.5, np.uint64(2**64 - 1)]),
    "the largest of numpy, in an array": (pa.list_(pa.float64()), np.array([2**64 - 1], np.uint64)),
    "the largest of numpy, in an object": (pa.struct([("a", pa.float64())]), {"a": np.uint64(2**64 - 1)}),
    "a decimal of many places": (pa.decimal128(4, -2), Decimal("3.018998479741287122E-19")),
    "a decimal in a list": (
        pa.list_(pa.decimal128(4, -2)),
        [Decimal(100), Decimal("3.018998479741287122E-19")],
    ),
    "days in an array": (pa.list_(pa.timestamp("s")), np.array(["2024-02-29"], "M8[D]")),
    "nanoseconds in an array": (pa.list_(pa.timestamp("us")), np.array(["1970-01-01"], "M8[ns]")),
    "tens of seconds in an array": (pa.list_(pa.timestamp("s")), np.array([1], "M8[10s]")),
    "hours in an array": (pa.list_(pa.duration("s")), np.array([1], "m8[h]")),
    "a nanosecond, which is no day": (pa.date32(), np.datetime64(1, "ns")),
    "no pair": (INTEGERS, [("a", 1), None]),
    "no key": (INTEGERS, [(None, 1)]),
    "no pair, deep": (pa.list_(pa.struct([("m", INTEGERS)])), [{"m": [None]}]),
}
KEPT = [
    (pa.int64(), [1, 2.0, None, np.int32(3), Decimal(4)], [1, 2, None, 3, 4]),
    (pa.list_(pa.int64()), [[1, 2**53 + 1], None, [], [None, 2.0]], [[1, 2**53 + 1], None, [], [None, 2]]),
    (INTEGERS, [{"a": 1}, [("b", None)], None, []], [[("a", 1)], [("b", None)], None, []]),
    (pa.struct([("a", pa.int64())]), [{"a": 1.0}, {}, None], [{"a": 1}, {"a": None}, None]),
    (pa.struct([("a", pa.int64())]), [[("a", 1)]], [{"a": 1}]),
    (pa.date32(), [NOON.date(), None, NOON.replace(hour=0)], [NOON.date(), None, NOON.date()]),
    (pa.timestamp("s"), [NOON, None, pd.Timestamp(NOON)], [NOON, None, NOON]),
    (pa.timestamp("us"), [NOON.replace(microsecond=1)], [NOON.replace(microsecond=1)]),
    (pa.time32("s"), [NOON.time(), None], [NOON.time(), None]),
    (pa.list_(pa.timestamp("s")), [np.array([NOON], "M8[s]"), np.array(["NaT"], "M8[s]")], [[NOON], [None]]),
    (pa.duration("ms"), [np.timedelta64(2, "ms")], [dt.timedelta(milliseconds=2)]),
    (pa.float64(), [-1, np.uint64(2**53), float("-inf"), -2.0], [-1.0, 2.0**53, float("-inf"), -2.0]),
    (pa.list_(pa.float64()), [np.array([2**53, 0], np.uint64), [-1.0]], [[2.0**53, 0.0], [-1.0]]),
    (pa.duration("s"), [dt.timedelta(seconds=2), None], [dt.timedelta(seconds=2), None]),
    (
        pa.float32(),
        [1.5, float("inf"), None, -float("inf"), 3.4e38, np.float32(2)],
        [1.5, float("inf"), None, -float("inf"), float(np.float32(3.4e38)), 2],
    ),
    (pa.list_(pa.float32()), [[1.5, float("inf")], None, []], [[1.5, float("inf")], None, []]),
    (pa.list_(pa.int64()), [{1}, pd.Series([1.0, 2.0]), array("d", [3.0])], [[1], [1, 2], [3]]),
    (INTEGERS, [pa.scalar([("a", 1)], INTEGERS)], [[("a", 1)]]),
    (pa.struct([("a", pa.int64())]), [(1.0,), None], [{"a": 1}, None]),
    (pa.dictionary(pa.int32(), pa.int64()), [1.0, None, 1], [1, None, 1]),
    (pa.run_end_encoded(pa.int32(), pa.int64()), [1, 1.0, None], [1, 1, None]),
    (
        pa.duration("s"),
        [np.timedelta64(5, "s"), 2, np.timedelta64("NaT", "s")],
        [dt.timedelta(seconds=5), dt.timedelta(seconds=2), None],
    ),
    (pa.float32(), [], []),
]


@pytest.mark.parametrize("takes", ["arrow", "numpy", "pandas"])
@pytest.mark.parametrize("case", CHANGED)
def test_an_answer_that_its_type_would_change_makes_its_record_alone_a_reject(case, takes):
    kind, wrong = CHANGED[case]

    def answers(n):
        numbers = n if takes == "numpy" else n.column("n").to_numpy() if takes == "arrow" else n["n"]
        return {"y": [None if number >= 0 else wrong for number in numbers]}

    host = FunctionHost(answers, {"n": "double"}, pa.schema([("y", kind)]), takes=takes, version="1")
    made = InferencePipeline(MemorySource({"n": [1.0]}), host, MemoryDestination(), name="forced")
    found = made.infer({"n": [1.0, -1.0, 2.0]}, on_reject="null").to_pydict()
    assert found["y"] == [None, None, None]
    assert found["status"] == ["ok", "model_error", "ok"]
    assert "wanted" in found["status_detail"][1]


@pytest.mark.parametrize("given", [list, tuple, lambda values: np.array([*values, None], object)[:-1]])
@pytest.mark.parametrize("takes", ["numpy", "pandas"])
def test_what_is_no_number_among_objects_costs_its_own_record_alone(takes, given):
    its = {0: 1.5, 1: "a", 2: {}, 3: None, 4: 2}

    def answers(n):
        return given([its[number] for number in (n if takes == "numpy" else n["n"])])

    host = FunctionHost(answers, {"n": "int64"}, {"y": "double"}, takes=takes, version="1")
    made = InferencePipeline(MemorySource({"n": [1]}), host, MemoryDestination(), name="forced")
    found = made.infer({"n": list(its)}, on_reject="null").to_pydict()
    assert found["y"] == [1.5, None, None, None, 2.0]


@pytest.mark.parametrize(("kind", "values", "expected"), KEPT)
def test_what_the_type_holds_is_kept(kind, values, expected):
    assert forced(values, kind).to_pylist() == expected
