"""Arrow imports pandas, where it is installed, for many a conversion: no run of plain records waits for that."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

JOB = """
import sys
import numpy as np
import pyarrow as pa
from mlinfer import InferencePipeline
from mlinfer.destinations import *
from mlinfer.hosts import FunctionHost
from mlinfer.sources import *

def half(x):
    return x / 2

host = FunctionHost(half, {"x": "float64"}, {"y": "float64"}, takes="numpy")
keep = {"name": pa.string(), "ok": OK, "n": pa.int64()}
report = InferencePipeline(SOURCE, host, DESTINATION, name="halves", keep=keep, rejects=REJECTS).run()
print(report.delivered, report.rejected, "pandas" in sys.modules)
"""
REJECTS = {
    "JsonLinesDestination('out.jsonl')": "JsonLinesDestination('bad.jsonl')",
    "CsvDestination('out.csv')": "CsvDestination('bad.csv')",
    "ParquetDestination('out')": "ParquetDestination('bad')",
    "SqlDestination('sqlite:///out.db', table='out')": "SqlDestination('sqlite:///out.db', table='bad')",
}
SQL = "SqlSource('sqlite:///rows.db', 'SELECT x, name, ok, n, rowid AS id FROM rows')"
ROWS = [{"x": n / 4, "name": f'"{n}"', "ok": n % 2 == 0, "n": n, "list": [0.5, n / 2]} for n in range(100)]


@pytest.fixture
def folder(tmp_path):
    assert find_spec("pandas"), "where it is not installed, it is not imported either"
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    bad = [{**ROWS[0], "x": x} for x in ("one", None)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, *bad]) + "{\n")
    (tmp_path / "rows.csv").write_text(
        "x,name,ok,n\n"
        + "".join(f"{row['x']},{row['n']},{row['ok']},{row['n']}\n" for row in ROWS)
        + "one,0,true,0\n,0,true,0\n1,0\n"
    )
    with closing(sqlite3.connect(tmp_path / "rows.db")) as database, database:
        database.execute("CREATE TABLE rows (x REAL, name TEXT, ok INTEGER, n INTEGER)")
        database.executemany("INSERT INTO rows VALUES (:x, :name, :ok, :n)", [*ROWS, bad[1]])
    pq.write_table(pa.Table.from_pylist([*ROWS, {**ROWS[0], "x": None}]), tmp_path / "rows.parquet")
    return tmp_path


def ran(folder, source, destination):
    text = (
        JOB.replace("SOURCE", source)
        .replace("DESTINATION", destination)
        .replace("REJECTS", REJECTS[destination])
        .replace("OK", "pa.int64()" if source.startswith("Sql") else "pa.bool_()")
    )
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("destination", REJECTS)
def test_bad_records_are_written_to_each_destination_without_importing_pandas(folder, destination):
    assert ran(folder, "JsonLinesSource('rows.jsonl')", destination) == ["100", "3", "False"]


@pytest.mark.parametrize(
    ("source", "rejected"),
    [
        ("CsvSource('rows.csv')", "3"),
        ("ParquetSource('rows.parquet')", "1"),
        (SQL, "1"),
        (SQL.replace("')", "', key='id')"), "1"),
    ],
    ids=["csv", "parquet", "sql", "sql by key"],
)
def test_bad_records_are_found_without_importing_pandas(folder, source, rejected):
    assert ran(folder, source, "JsonLinesDestination('out.jsonl')") == ["100", rejected, "False"]
    bad = [json.loads(line) for line in (folder / "bad.jsonl").read_text().splitlines()]
    assert len(bad) == int(rejected)


def test_json_lines_are_answered_in_json_lines_without_importing_pandas(folder):
    assert ran(folder, "JsonLinesSource('good.jsonl')", "JsonLinesDestination('out.jsonl')") == [
        "100",
        "0",
        "False",
    ]
    answers = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert answers == [
        {"name": row["name"], "ok": row["ok"], "n": row["n"], "y": row["x"] / 2} for row in ROWS
    ]
