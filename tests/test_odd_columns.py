"""A bad record costs its neighbours nothing, whatever the type of a column that travels beside them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlinfer import Budget, InferencePipeline, host
from mlinfer.destinations import MemoryDestination
from mlinfer.sources import MemorySource, ParquetSource

LONG = "longer than a view holds by itself"
UNION = pa.UnionArray.from_dense(
    pa.array([0, 1, 1], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1]), pa.array(["a", LONG])]
)
COLUMNS = {
    "list of views": (pa.array([["a"], None, [LONG, None]], pa.list_(pa.string_view())), [LONG, None]),
    "map of views": (
        pa.array([[], None, [("a", LONG)]], pa.map_(pa.string_view(), pa.string_view())),
        {"a": LONG},
    ),
    "object of views": (
        pa.array([{"a": "b"}, None, {"a": LONG}], pa.struct({"a": pa.string_view()})),
        {"a": LONG},
    ),
    "view of lists": (pa.array([[1], None, [2, None]], pa.list_view(pa.int64())), [2, None]),
    "view of numbers that are none": (
        pa.array([[1.0], None, [float("nan")]], pa.list_view(pa.float64())),
        "[nan]",
    ),
    "union": (UNION, LONG),
    "interval": (pa.array([(1, 2, 3), None, (4, 5, 6)], pa.month_day_nano_interval()), [4, 5, 6]),
}


def of_file(values, folder):
    """Parquet cannot hold them all, and what it can is read as it was written."""
    pq.write_table(pa.table({"n": [1.0, 2.0, None], "odd": values}), folder / "odd.parquet")
    return ParquetSource(str(folder / "odd.parquet"))


def in_hand(values, folder):
    return MemorySource(pa.table({"n": [1.0, 2.0, None], "odd": values}))


@host(inputs={"n": "double"}, outputs={"y": "double"}, takes="numpy")
def same(n):
    return n


@pytest.mark.parametrize(
    ("source", "column"),
    [(in_hand, name) for name in COLUMNS] + [(of_file, name) for name in COLUMNS if "view" in name],
)
def test_a_bad_record_beside_a_column_of_an_odd_type_costs_itself_alone(source, column, tmp_path):
    values, told = COLUMNS[column]
    answers, rejects = MemoryDestination(), MemoryDestination()
    parts = source(values, tmp_path), same, answers
    InferencePipeline(*parts, name="odd", keep=["odd"], rejects=rejects, budget=Budget(ratio=1)).run()
    assert answers.table().to_pydict() == {"odd": values.to_pylist()[:2], "y": [1.0, 2.0]}
    records = rejects.table("rejects")["record"].to_pylist()
    assert [json.loads(record) for record in records] == [{"n": None, "odd": told}]
