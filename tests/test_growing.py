"""A followed text file that is read while somebody writes into it: no half of a line becomes a record, none is lost."""

import gzip
import json

import pyarrow as pa
import pytest

from mlinfer import EndOfInput, InferencePipeline
from mlinfer.destinations import JsonLinesDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import CsvSource, JsonLinesSource

WANTED = pa.schema([("id", pa.int64()), ("x", pa.string())])
CSV = b'id,x\n1,10\r\n2,205\n\n3,"a\n\nb"\n40,"say ""c"""\n5,"1\r\n2"\n'
LINES = (
    b'{"id": 1, "x": "10"}\n{"id": 2, "x": "205"}\r\n\n{"id": 3, "x": "\\u00e4}\\n"}\n{"x": "", "id": 40}\n'
)
KINDS = [(CsvSource, "a.csv", CSV), (JsonLinesSource, "a.jsonl", LINES)]
HOST = FunctionHost(lambda **columns: columns["id"], {"id": "int64"}, {"same": "int64"}, "numpy", version="1")


def read(source, after=None):
    """All records, by id and value, and where the file goes on."""
    found = []
    (partition,) = source.partitions()
    with source.open(partition, after, WANTED) as reader:
        while True:
            try:
                batch = reader.read(2, 0)
            except EndOfInput:
                return found, after
            assert batch.bad == ()
            names = batch.ids.array().to_pylist()
            found += [
                (name, *row.values()) for name, row in zip(names, batch.records.to_pylist(), strict=True)
            ]
            after = batch.position


@pytest.mark.parametrize(("kind", "name", "content"), KINDS, ids=["csv", "jsonl"])
def test_what_was_written_in_two_parts_reads_as_if_it_had_been_one(kind, name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    whole, _ = read(kind(path))
    assert len(whole) >= 4
    source = kind(path, follow=True)
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        first, after = read(source)
        path.write_bytes(content)
        second, _ = read(source, after)
        assert first + second == whole, cut


@pytest.mark.parametrize(("kind", "name", "content"), KINDS, ids=["csv", "jsonl"])
def test_runs_that_meet_half_a_line_deliver_every_record_once_as_it_was_written(
    kind, name, content, tmp_path
):
    path, out = tmp_path / name, tmp_path / "out.jsonl"
    path.write_bytes(content[:25])  # so that the types can be told
    source, keep = kind(path, follow=True), {"x": pa.string()}
    pipeline = InferencePipeline(source, HOST, JsonLinesDestination(out), name="p", keep=keep)
    for cut in (28, 39):
        path.write_bytes(content[:cut])
        pipeline.run(until="idle")
    path.write_bytes(content)
    pipeline.run(until="idle")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    whole, _ = read(kind(path))
    assert [(row["same"], row["x"]) for row in rows] == [(number, x) for _, number, x in whole]


def test_types_and_names_are_not_told_by_half_a_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,pri")
    source = CsvSource(path, follow=True)
    assert source.schema() is None
    path.write_bytes(b"id,price\n1,1")
    assert source.schema() == pa.schema([("id", pa.null()), ("price", pa.null())])
    path.write_bytes(b"id,price\n1,1.5\n")
    assert source.schema() == pa.schema([("id", pa.int64()), ("price", pa.float64())])


def test_an_object_is_complete_without_a_newline_and_a_compressed_file_always_is(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1, "x": "1"}\n{"id": 2, "x": "2"}')
    assert [row[1] for row in read(JsonLinesSource(tmp_path / "a.jsonl", follow=True))[0]] == [1, 2]
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id,x\n1,1\n2,2"))
    assert [row[1] for row in read(CsvSource(tmp_path / "a.csv.gz", follow=True))[0]] == [1, 2]


def test_a_forgotten_quote_does_not_hold_up_the_records_behind_it(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'id,x\n1,"a\n2,b\n3,c\n4,d')
    source = CsvSource(tmp_path / "a.csv", follow=True)
    with source.open("a.csv", None, WANTED) as reader:
        batch = reader.read(10, 0)
        with pytest.raises(EndOfInput):
            reader.read(10, 0)
    assert batch.records.column("id").to_pylist() == [2, 3]
    assert [(bad.id, bad.raw) for bad in batch.bad] == [("a.csv#2", b'1,"a')]


def test_without_follow_a_last_line_needs_no_newline(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,x\n1,1\n2,2")
    assert [row[1] for row in read(CsvSource(tmp_path / "a.csv"))[0]] == [1, 2]
