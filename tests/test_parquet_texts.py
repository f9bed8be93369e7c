"""A text in a Parquet file that is not UTF-8: its record is a reject, the records around it are answered."""

import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlinfer import Batching, Budget, InferencePipeline
from mlinfer.destinations import MemoryDestination, SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import ParquetSource


def first(source):
    """The first records."""
    with source.open(source.partitions()[0], None, source.schema()) as reader:
        return reader.read(65_536, 1.0).records


def raw_texts(raws):
    """Texts as they are, UTF-8 or not."""
    array = pa.array(raws, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


BAD_ROWS = [7, 8, 1200, 2999]


def shops(layout):
    """3,000 names of shops, of which those of four rows are no text."""
    names = [
        None if n % 50 == 0 else b"shop %d" % (n % 9 if "dictionary" in layout else n) for n in range(3000)
    ]
    for row in BAD_ROWS:
        names[row] = b"caf\xe9"
    return LAYOUTS[layout](raw_texts(names))


EACH = list(range(3001))
LAYOUTS = {
    "plain": lambda texts: texts,
    "dictionary": lambda texts: texts,
    "view": lambda texts: texts.cast(pa.string_view()),
    "dictionary of views": lambda texts: texts.cast(pa.string_view()),
    "list": lambda texts: pa.ListArray.from_arrays(EACH, texts),
    "list of views": lambda texts: pa.ListArray.from_arrays(EACH, texts.cast(pa.string_view())),
    "list of words": lambda texts: pa.ListArray.from_arrays(EACH, as_words(texts)),
    "fixed list": lambda texts: pa.FixedSizeListArray.from_arrays(texts, 1),
    "list view": lambda texts: pa.ListViewArray.from_arrays(EACH[:-1], [1] * 3000, texts),
    "struct": lambda texts: pa.StructArray.from_arrays([texts], ["name"]),
    "map": lambda texts: pa.MapArray.from_arrays(EACH, pa.array(EACH[:-1]), texts),
    "keys of a map": lambda texts: pa.MapArray.from_arrays(EACH, texts.fill_null(""), pa.array(EACH[:-1])),
    "json": lambda texts: pa.ExtensionArray.from_storage(pa.json_(), texts),
}


def as_words(texts):
    return pa.DictionaryArray.from_arrays(pa.array(EACH[:-1], pa.int32()), texts.fill_null(""))


@pytest.mark.parametrize("size", [1000, 65_536])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_text_that_is_not_utf8_is_a_reject_and_costs_its_neighbours_nothing(tmp_path, layout, size):
    path = tmp_path / "a.parquet"
    tags = pa.array([[f"tag {n}", None] for n in range(3000)], pa.list_(pa.string_view()))
    table = pa.table({"shop": shops(layout), "x": pa.array(range(3000), pa.float64()), "tags": tags})
    pq.write_table(table, path, use_dictionary="dictionary" in layout, row_group_size=2000)
    source = ParquetSource(path)
    if layout.startswith("dictionary"):
        assert pa.types.is_dictionary(first(source).schema.field("shop").type)
    doubled = FunctionHost(lambda x: x * 2, {"x": pa.float64()}, {"y": pa.float64()}, "numpy")
    done, rejects = MemoryDestination(), MemoryDestination()
    report = InferencePipeline(
        source, doubled, done, name="shops", keep=["shop", "tags"], rejects=rejects, batching=Batching(max_records=size),
        lineage=["record_id"],
    ).run()  # fmt: skip
    assert (report.delivered, report.rejected) == (2996, 4)
    assert done.table()["tags"].to_pylist() == [[f"tag {n}", None] for n in range(3000) if n not in BAD_ROWS]
    assert sorted(done.table()["y"].to_pylist()) == [2.0 * n for n in range(3000) if n not in BAD_ROWS]
    ids = done.table()["record_id"].to_pylist()
    assert all(
        y == 2 * int(one.partition("#")[2]) for one, y in zip(ids, done.table()["y"].to_pylist(), strict=True)
    )
    found = rejects.table("rejects").to_pylist()
    assert [one["record_id"] for one in found] == [f"a.parquet#{row}" for row in BAD_ROWS]
    assert {(one["stage"], one["kind"]) for one in found} == {("decode", "undecodable")}
    assert all(
        f"row {row}: wanted text in UTF-8" in one["message"] for row, one in zip(BAD_ROWS, found, strict=True)
    )
    if layout in {"plain", "dictionary", "view", "dictionary of views", "json"}:
        assert {one["raw"] for one in found} == {b"caf\xe9"}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_texts_of_a_feature_and_ids_that_are_not_utf8_are_rejects_that_have_a_name(tmp_path, kind):
    path, database = tmp_path / "a.parquet", tmp_path / "out.db"
    columns = {
        "word": raw_texts([b"a", b"\xff", b"c", b"d"]).cast(kind),
        "id": raw_texts([b"one", b"two", b"\xfe", b"four"]).cast(kind),
        "key": pa.array([b"0" * 16] * 4, pa.uuid()),
    }
    pq.write_table(pa.table(columns), path, use_dictionary=kind != pa.string_view())
    shout = FunctionHost(
        lambda word: [one.upper() for one in word.tolist()],
        {"word": pa.string()},
        {"loud": pa.string()},
        "numpy",
    )
    InferencePipeline(
        ParquetSource(path, id_column="id"), shout, SqlDestination(f"sqlite:///{database}", table="out"), name="words",
        keep=["id", "key"], rejects=SqlDestination(f"sqlite:///{database}", table="bad"), budget=Budget(ratio=1),
    ).run()  # fmt: skip
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT id, loud FROM out").fetchall() == [("one", "A"), ("four", "D")]
        assert connection.execute("SELECT record_id, kind FROM bad ORDER BY message").fetchall() == [
            ("two", "undecodable"),
            ("a.parquet#2", "undecodable"),
        ]
