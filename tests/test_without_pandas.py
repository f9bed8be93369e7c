"""Arrow imports pandas, where it is installed, for many a conversion: no run of plain records waits for that."""

import json
import subprocess
import sys
from importlib.util import find_spec

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
keep = {"name": pa.string(), "ok": pa.bool_(), "n": pa.int64()}
report = InferencePipeline(SOURCE, host, DESTINATION, name="halves", keep=keep).run()
print(report.delivered, report.rejected, "pandas" in sys.modules)
"""
ROWS = [{"x": n / 4, "name": f'"{n}"', "ok": n % 2 == 0, "n": n, "list": [0.5, n / 2]} for n in range(100)]


@pytest.fixture
def folder(tmp_path):
    assert find_spec("pandas"), "where it is not installed, it is not imported either"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def ran(folder, source, destination):
    text = JOB.replace("SOURCE", source).replace("DESTINATION", destination)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_json_lines_are_answered_in_json_lines_without_importing_pandas(folder):
    assert ran(folder, "JsonLinesSource('rows.jsonl')", "JsonLinesDestination('out.jsonl')") == [
        "100",
        "0",
        "False",
    ]
    answers = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert answers == [
        {"name": row["name"], "ok": row["ok"], "n": row["n"], "y": row["x"] / 2} for row in ROWS
    ]
