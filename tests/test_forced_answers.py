"""Answers in lists are what the model said: Arrow would cut 1.5 to the integer 1, and end the process over some maps."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import InferencePipeline
from mlinfer._forcing import forced
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

INTEGERS = pa.map_(pa.string(), pa.int64())
CHANGED = {
    "float": (pa.int64(), 1.5),
    "numpy": (pa.uint8(), np.float32(1.5)),
    "decimal": (pa.int32(), Decimal("1.5")),
    "infinity": (pa.int64(), float("inf")),
    "list": (pa.list_(pa.int64()), [1, 2.5]),
    "array": (pa.list_(pa.int64()), np.array([1.0, 2.5])),
    "vector": (pa.list_(pa.int64(), 2), (1, 2.5)),
    "object": (pa.struct([("a", pa.int8())]), {"a": 1.5}),
    "objects": (pa.list_(pa.struct([("a", pa.int8())])), [{"a": 1}, {"a": 1.5}]),
    "value of a map": (INTEGERS, [("a", 1.5)]),
    "key of a map": (pa.map_(pa.int64(), pa.string()), [(1.5, "a")]),
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
    (pa.date32(), [dt.date(2024, 2, 29)], [dt.date(2024, 2, 29)]),
]


@pytest.mark.parametrize("case", CHANGED)
def test_an_answer_that_its_type_would_change_makes_its_record_alone_a_reject(case):
    kind, wrong = CHANGED[case]

    def answers(records):
        return {"y": [None if n >= 0 else wrong for n in records.column("n").to_pylist()]}

    host = FunctionHost(answers, {"n": "double"}, pa.schema([("y", kind)]), takes="arrow", version="1")
    made = InferencePipeline(MemorySource({"n": [1.0]}), host, MemoryDestination(), name="forced")
    found = made.infer({"n": [1.0, -1.0, 2.0]}, on_reject="null").to_pydict()
    assert found["y"] == [None, None, None]
    assert found["status"] == ["ok", "model_error", "ok"]
    assert "wanted" in found["status_detail"][1]


@pytest.mark.parametrize(("kind", "values", "expected"), KEPT)
def test_what_the_type_holds_is_kept(kind, values, expected):
    assert forced(values, kind).to_pylist() == expected
