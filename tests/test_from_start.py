"""`run(from_start=True)` replaces what the pipeline delivered before, whatever it finds now."""

import sqlite3
from contextlib import closing

import pytest

from mlinfer import InferencePipeline
from mlinfer.destinations import JsonLinesDestination, ParquetDestination, SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import JsonLinesSource

HOST = FunctionHost(lambda x: 2 * x, {"x": "float64"}, {"y": "float64"}, takes="numpy", version="1")


def in_table(folder):
    with closing(sqlite3.connect(folder / "answers.db")) as database:
        return [row[0] for row in database.execute("SELECT y FROM answers ORDER BY y")]


def in_lines(folder):
    return [
        float(line.split(":")[1].strip("}\n")) for line in (folder / "answers.jsonl").read_text().splitlines()
    ]


def in_parts(folder):
    import polars as pl

    return pl.read_parquet(folder / "answers").sort("y")["y"].to_list()


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (lambda folder: SqlDestination(f"sqlite:///{folder}/answers.db", table="answers"), in_table),
        (lambda folder: JsonLinesDestination(folder / "answers.jsonl"), in_lines),
        (lambda folder: ParquetDestination(folder / "answers"), in_parts),
    ],
    ids=["sqlite", "jsonl", "parquet"],
)
def test_a_run_from_the_start_leaves_the_new_answers_alone_even_if_there_are_none(tmp_path, make, read):
    file = tmp_path / "in.jsonl"
    pipeline = InferencePipeline(JsonLinesSource(file), HOST, make(tmp_path), name="again")
    file.write_text('{"x": 1.0}\n{"x": 2.0}\n')
    pipeline.run()
    assert read(tmp_path) == [2.0, 4.0]
    file.write_text('{"x": 5.0}\n')
    assert pipeline.run(from_start=True).delivered == 1
    assert read(tmp_path) == [10.0]
    file.write_text("")
    assert pipeline.run(from_start=True).delivered == 0
    assert read(tmp_path) == []
