"""A model that takes long over each record: what it has answered is stored soon, and a run that is told to end does so soon."""

import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing, suppress

import pyarrow as pa
import pytest

from mlinfer import Batch, Retry, TransientError
from mlinfer._clock import SystemClock
from mlinfer._engine._pool import Timed
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


def portion(call, record, *, most=65_536, takes=30):
    """The portion that a model comes to whose calls take so long, and its records."""
    found = Portion(most)
    for _ in range(takes):
        found.took(found.records, call + record * found.records)
    return found


@pytest.mark.parametrize(
    ("call", "record", "least", "largest"),
    [
        (0, 1e-7, 65_536, 65_536),
        (0.005, 1e-5, 65_536, 65_536),
        (0, 0.001, 900, 1000),
        (0.2, 0.001, 700, 800),
        (0, 5.0, 1, 1),
        (1.5, 0, 65_536, 65_536),
        (1.5, 0.01, 140, 150),
        (300.0, 0, 65_536, 65_536),
    ],
)
def test_a_portion_is_what_is_answered_in_a_moment_or_in_twice_a_call_that_is_slow(
    call, record, least, largest
):
    assert least <= portion(call, record).records <= largest


def test_a_portion_begins_with_a_few_records_and_soon_has_the_most():
    assert Portion(65_536).records == FIRST_RECORDS
    assert portion(0.0001, 1e-6, takes=6).records == 65_536
    assert portion(0.0001, 1e-6, most=10, takes=3).records == 10


def test_neither_a_first_call_that_is_slow_nor_a_small_rest_makes_portions_small():
    found = Portion(65_536)
    found.took(1, 5.0)
    for _ in range(7):
        found.took(found.records, 0.001 + 1e-6 * found.records)
    assert found.records == 65_536
    found.took(1, 0.02)
    found.took(0, 1.0)
    assert found.records == 65_536


def test_waits_between_failures_are_no_work_of_the_model():
    told, took, failures = [], [], iter([TransientError("later", wait=0.3)])

    def step(batch):
        for error in failures:
            raise error
        return batch

    tell = lambda partition, records, seconds: told.append(seconds)  # noqa: E731
    timed = Timed(
        SystemClock(), tell, lambda records, seconds: took.append(seconds), Retry(), threading.Event()
    )
    timed(step, Batch(pa.record_batch({"x": [1.0]}), "all", 1))
    assert told[0] >= 0.3
    assert told[0] - took[0] >= 0.3


def _stored(path):
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute("SELECT count(*) FROM answers").fetchone()[0]
    return 0
