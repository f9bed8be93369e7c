"""`preview` shows the first records whatever they are: so many as were asked for, the undecodable ones among them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlinfer import InferencePipeline
from mlinfer._cli import main
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import CsvSource, IterableSource, JsonLinesSource, ParquetSource

HOST = FunctionHost(
    lambda n: n / 2, inputs={"n": "double"}, outputs={"half": "double"}, takes="numpy", version="1"
)


def previewed(source, records=10, **more):
    with InferencePipeline(source, HOST, MemoryDestination(), name="p", **more) as pipeline:
        return pipeline.preview(records)


def test_lines_that_are_no_json_are_shown_as_such(tmp_path):
    (tmp_path / "in.jsonl").write_text('hello\n{"n": 3}\nworld\n')
    found = previewed(JsonLinesSource(str(tmp_path / "*.jsonl")), lineage=["record_id"]).to_pydict()
    assert found["half"] == [1.5, None, None]
    assert [status == "ok" for status in found["status"]] == [True, False, False]
    assert all(
        name in detail
        for name, detail in zip(found["record_id"][1:], found["status_detail"][1:], strict=True)
    )
    assert len(set(found["record_id"])) == 3


def test_a_file_of_nothing_else_is_no_empty_table(tmp_path):
    (tmp_path / "in.jsonl").write_text("hello\n" * 20)
    found = previewed(JsonLinesSource(str(tmp_path / "*.jsonl")), records=5)
    assert found["half"].null_count == len(found) == 5
    assert "ok" not in found["status"].to_pylist()


def test_csv_lines_of_another_length_are_shown_as_such(tmp_path):
    (tmp_path / "in.csv").write_text("n,id\n1,a\n2,b,c,d\n3,c\n")
    found = previewed(CsvSource(str(tmp_path / "*.csv")), keep={"id": pa.string()}).to_pydict()
    assert found["id"] == ["a", "c", None]
    assert found["status"][:2] == ["ok", "ok"] != found["status"][2:]
    assert "in.csv" in found["status_detail"][2]


@pytest.mark.parametrize("asked", [1, 4, 5, 9, 10])
def test_small_files_are_read_one_after_the_other(tmp_path, asked):
    for number in range(5):
        pq.write_table(pa.table({"n": [2.0 * number, 2.0 * number + 1]}), tmp_path / f"{number}.parquet")
    found = previewed(ParquetSource(str(tmp_path / "*.parquet")), records=asked)
    assert found["half"].to_pylist() == [n / 2 for n in range(asked)]


def test_small_batches_are_read_one_after_the_other():
    def batches():
        for n in range(100):
            yield pa.record_batch({"n": [float(n)]})

    assert previewed(IterableSource(batches), records=7)["half"].to_pylist() == [n / 2 for n in range(7)]


def test_the_command_line_says_why_there_is_no_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("hello\n" + json.dumps({"n": 1}) + "\n")
    (tmp_path / "p.toml").write_text(
        'name = "p"\nsource = {type = "jsonl", path = "in.jsonl"}\ndestination = {type = "stdout"}\n'
        'host = {type = "function", function = "halving:half", inputs = {n = "double"}, outputs = {half = "double"}, '
        'takes = "numpy", version = "1"}\n'
    )
    (tmp_path / "halving.py").write_text("def half(n):\n    return n / 2\n")
    assert main(["preview", "p.toml", "--allow", "halving:half"]) == 0
    shown = capsys.readouterr().out
    assert "in.jsonl" in shown
    assert "ok" in shown
