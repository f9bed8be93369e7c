"""A model that takes long over each record: what it has answered is stored soon, and a run that is told to end does so soon."""

import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing, suppress

import pytest

from mlinfer._engine._portion import FIRST_RECORDS, Portion

RECORDS = 100_000
PROGRAM = textwrap.dedent("""
    import sys, time
    import pyarrow as pa
    from mlinfer import Batching, InferencePipeline
    from mlinfer.destinations import SqlDestination
    from mlinfer.hosts import FunctionHost
    from mlinfer.sources import JsonLinesSource

    def infer(records):
        time.sleep(records.num_rows * 0.001)
        return pa.record_batch({"y": records.column("x")})

    InferencePipeline(
        JsonLinesSource(sys.argv[1]), FunctionHost(infer, inputs={"x": pa.int64()}, outputs={"y": pa.int64()}),
        SqlDestination(sys.argv[2], table="answers"),
        batching=Batching(max_records=int(sys.argv[3])), name="slow",
    ).run()
""")


@pytest.mark.parametrize("most", [100, 65_536])
def test_answers_of_a_slow_model_are_stored_while_it_works_and_a_drain_leaves_what_is_not_begun(
    tmp_path, most
):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.db"
    source.write_text("".join(f'{{"x": {number}}}\n' for number in range(RECORDS)))
    command = [sys.executable, "-c", PROGRAM, str(source), f"sqlite:///{output}", str(most)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        while not (stored := _stored(output)) and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        assert run.wait() == 0, run.stderr.read()
    assert stored < RECORDS
    left = _stored(output)
    assert stored <= left < RECORDS // 2
    with closing(sqlite3.connect(output)) as database:
        assert database.execute("SELECT y FROM answers ORDER BY y").fetchall() == [(n,) for n in range(left)]


def test_a_portion_is_what_is_answered_in_a_moment_and_grows_back_when_a_model_was_slow_once():
    portion = Portion(65_536)
    assert portion.records == FIRST_RECORDS
    portion.took(32, 0.0002)
    assert portion.records == 65_536
    portion.took(65_536, 655.36)
    assert portion.records == 100
    portion.took(1, 3600.0)
    assert portion.records == 1
    portion.took(1, 0.0)
    assert portion.records == 65_536
    assert Portion(10).records == 10


def _stored(path):
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute("SELECT count(*) FROM answers").fetchone()[0]
    return 0
