"""A rejected record comes back from its JSON as it was, however deep its values lie."""

import datetime as dt
import decimal
import json
import math

import pyarrow as pa
import pytest

from mlinfer import RecordIds
from mlinfer._casts import cast
from mlinfer._records import batch_from_rows
from mlinfer._rejects import Rejected
from mlinfer._restoring import restored

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
INF = float("inf")
ZONED = pa.timestamp("ns", "UTC")
CASES = {
    "struct of floats": (pa.struct([("a", pa.float64()), ("b", pa.float32())]), [{"a": INF, "b": -INF}, {"a": 1.5, "b": None}, None]),
    "lists of lists": (pa.list_(pa.list_(pa.float64())), [[[1.0, -INF], [], None], None, [[INF]], [[2.0]]]),
    "list of structs": (pa.list_(pa.struct([("a", pa.float64()), ("s", pa.string())])), [[{"a": INF, "s": "NaN"}, None], [], [{"a": None, "s": "x"}]]),
    "fixed lists of lists": (pa.list_(pa.list_(pa.float32()), 2), [[[INF], [1.0]], [[], [2.0]]]),
    "map of floats": (pa.map_(pa.string(), pa.float64()), [[("a", 1.0), ("b", INF)], [], None, [("c", None)]]),
    "map of bytes": (pa.map_(pa.string(), pa.binary()), [[("a", b"\xff\x00"), ("b", None)], None]),
    "map by number": (pa.map_(pa.int64(), pa.list_(pa.float64())), [[(7, [INF, 1.0])], [(-1, None)]]),
    "maps in lists": (pa.list_(pa.map_(pa.string(), pa.list_(pa.float64()))), [[[("a", []), ("b", [INF])]], [[]]]),
    "maps in structs": (pa.struct([("m", pa.map_(pa.string(), pa.binary()))]), [{"m": [("a", b"\xff"), ("b", None)]}, None]),
    "durations": (pa.duration("ns"), [pa.scalar(n, pa.duration("ns")) for n in (2**62 + 1, -1, -(2**61) - 1, 1_500_000_001)]),
    "long durations": (pa.duration("s"), [pa.scalar(n, pa.duration("s")) for n in (2**61 + 1, -5)]),
    "structs of times": (
        pa.list_(pa.struct([("t", ZONED), ("d", pa.date32()), ("z", pa.duration("us"))])),
        [[{"t": pa.scalar(1_234_567_890_123_456_789, ZONED), "d": dt.date(2020, 2, 29), "z": dt.timedelta(microseconds=-1)}], None, []],
    ),
    "list of times": (pa.list_(pa.timestamp("ns")), [[pa.scalar(1, pa.timestamp("ns")), None]]),
    "list of bytes": (pa.list_(pa.binary()), [[b"\xff", None], []]),
    "identities": (pa.uuid(), [b"0" * 16, None]),
    "texts of JSON": (pa.json_(), ['{"a": 1}', None, "2"]),
    "tensors": (pa.fixed_shape_tensor(pa.float32(), (2, 1)), [[1.0, 2.0], [3.5, 4.0]]),
    "struct of decimals": (pa.struct([("d", pa.decimal128(20, 3))]), [{"d": decimal.Decimal("12345678901234567.125")}]),
}  # fmt: skip


def back(column):
    """A column through the JSON of rejects; the JSON texts."""
    records = pa.RecordBatch.from_arrays([column], names=["x"])
    count = len(records)
    group = Rejected(
        "all", "infer", RecordIds.ordinals("all", 0, count), ["down"] * count, [""] * count, records
    )
    texts = group.envelopes("m", "r", NOW)["record"].to_pylist()
    rows = [restored(json.loads(text), records.schema) for text in texts]
    found, good, bad = batch_from_rows(rows, records.schema)
    assert (good, bad) == (list(range(count)), [])
    return found["x"], texts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("offset", [0, 1])
def test_values_come_back_as_they_were(case, offset):
    kind, values = CASES[case]
    column = pa.array(values[:1] * offset + values, kind).slice(offset)
    found, _ = back(column)
    assert found.cast(kind).equals(column)


IDENTITIES = pa.array([b"0" * 16, None, b"2" * 16], pa.uuid())
NAMED = pa.StructArray.from_arrays([IDENTITIES, pa.array([1, None, 3], pa.duration("s"))], ["id", "for"])
OF_IDENTITIES = [
    pa.ListArray.from_arrays([0, 1, 1, 3], IDENTITIES),
    pa.FixedSizeListArray.from_arrays(IDENTITIES, 1),
    NAMED,
    pa.ListArray.from_arrays([0, 2, 2, 3], NAMED),
    pa.MapArray.from_arrays([0, 2, 3], ["a", "b", "c"], IDENTITIES),
]


@pytest.mark.parametrize("column", OF_IDENTITIES, ids=lambda column: str(column.type))
def test_identities_come_back_from_within_lists_and_objects(column):
    found, _ = back(column)
    assert cast(found, column.type)[0].equals(column)


def test_not_a_number_comes_back_where_it_was():
    column = pa.array([{"a": [math.nan, 1.0]}, {"a": [2.0]}], pa.struct([("a", pa.list_(pa.float64()))]))
    found, texts = back(column)
    assert json.loads(texts[0]) == {"x": {"a": ["NaN", 1.0]}}
    assert math.isnan(found[0].as_py()["a"][0])
    assert found[1].as_py() == {"a": [2.0]}


def test_what_is_none_of_the_kind_is_left_for_conform_to_refuse():
    schema = pa.schema([("x", pa.list_(pa.struct([("t", ZONED)]))), ("m", pa.map_(pa.int64(), pa.binary()))])
    wrong = {"x": [{"t": "soon"}], "m": {"one": "!"}}
    assert restored(wrong, schema) == wrong
    _, good, bad = batch_from_rows([wrong], schema)
    assert (good, [one.kind for one in bad]) == ([], ["wrong_type"])
