"""A bad record costs its neighbours nothing, whatever the type of a column that travels beside them."""

import json
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlinfer import Budget, InferencePipeline, host
from mlinfer.destinations import CsvDestination, JsonLinesDestination, MemoryDestination, SqlDestination
from mlinfer.sources import MemorySource, ParquetSource
from money import Money


def test_a_type_of_a_strangers_own_arrives_as_what_it_is_stored_as(tmp_path):
    stored = pa.array([5, None], pa.timestamp("s"))
    table = pa.table({"n": [1.0, 2.0], "x": pa.ExtensionArray.from_storage(Money(stored.type), stored)})

    @host(inputs={"n": "double"}, outputs={"y": "double"}, takes="numpy", version="1")
    def same(n):
        return n

    for destination in (
        JsonLinesDestination(tmp_path / "a.jsonl"),
        CsvDestination(tmp_path / "a.csv"),
        SqlDestination(f"sqlite:///{tmp_path / 'a.db'}", table="t"),
    ):
        InferencePipeline(MemorySource(table), same, destination, name="p", keep=["x"]).run()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [one["x"] for one in lines] == ["1970-01-01T00:00:05", None]
    assert (tmp_path / "a.csv").read_text().split()[1:] == ['"1970-01-01T00:00:05",1', ",2"]
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT x FROM t ORDER BY y").fetchall() == [
            ("1970-01-01T00:00:05",),
            (None,),
        ]


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
