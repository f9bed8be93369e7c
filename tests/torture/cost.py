"""What safety costs: failpoints that nobody has armed, and committing, at 1,000 records a batch."""

import statistics
import tempfile
import time
import timeit
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import Batch, DataSource, EndOfInput, InferencePipeline, _failpoints
from mlinfer._engine import _delivery
from mlinfer.destinations import ParquetDestination
from mlinfer.hosts import FunctionHost
from torture.figures import Figures

ROWS = 1000
BATCHES = 10_000
RUNS = 7
MOST_FAILPOINTS = 0.01
MOST_COMMITTING = 0.10
NEVER = 1e9
SCHEMA = pa.schema([("n", pa.int64()), ("x", pa.float64())])


class Numbers(DataSource):
    """The same thousand records again and again."""

    resume = "seek"

    def schema(self):
        return SCHEMA

    def open(self, partition, after, wanted):
        return self

    def __enter__(self):
        self._at = 0
        values = np.random.default_rng(0).random(ROWS)
        self._records = pa.RecordBatch.from_arrays(
            [pa.array(np.arange(ROWS)), pa.array(values)], schema=SCHEMA
        )
        return self

    def __exit__(self, *_):
        pass

    def read(self, max_records, timeout):
        if self._at == BATCHES:
            raise EndOfInput
        self._at += 1
        return Batch(self._records, "all", self._at)


class Often(ParquetDestination):
    """Commits every second, as by default."""


class Once(ParquetDestination):
    """Commits at the end."""

    commit_seconds = NEVER


def of_safety(seed, runs):
    """So many pairs of runs, one after the other; the median of what committing costs, and the share of failpoints."""
    _run(Once)  # warm
    pairs = [(_run(Often), _run(Once)) for _ in range(runs)]
    committing = statistics.median(1 - once / often for often, once in pairs)
    calls, seconds = _failpoint_calls()
    each = (
        min(timeit.repeat(lambda: _failpoints.failpoint("dest.commit.before"), number=100_000, repeat=5))
        / 100_000
    )
    failpoints = calls * each / seconds
    note = (
        f"committing {committing:+.1%} of the time (at most {MOST_COMMITTING:.0%}); failpoints {failpoints:.3%} "
        f"(at most {MOST_FAILPOINTS:.0%}): {calls:,} calls of {each * 1e9:.0f} ns in {seconds:.2f} s"
    )
    assert committing <= MOST_COMMITTING, note
    assert failpoints <= MOST_FAILPOINTS, note
    return Figures(runs, notes=[note])


def _run(destination):
    with tempfile.TemporaryDirectory() as folder:
        host = FunctionHost(
            lambda records: pc.add(records.column("x"), 1.0), {"x": pa.float64()}, {"y": pa.float64()}
        )
        pipeline = InferencePipeline(
            Numbers(), host, destination(Path(folder) / "out"), name="cost", keep=["n"]
        )
        most, _delivery.COMMIT_BYTES = (
            _delivery.COMMIT_BYTES,
            NEVER if destination is Once else _delivery.COMMIT_BYTES,
        )
        begun = time.perf_counter()
        try:
            report = pipeline.run()
        finally:
            _delivery.COMMIT_BYTES = most
        seconds = time.perf_counter() - begun
    assert report.delivered == ROWS * BATCHES, report
    return seconds


def _failpoint_calls():
    """How often failpoints are passed in a run, and how long one takes."""
    places = {name: _failpoints._Failpoint("sleep", "0", NEVER, 0.0) for name in _failpoints.PLACES}
    _failpoints._active.update(places)
    try:
        _run(Often)
    finally:
        _failpoints._active.clear()
    return sum(place.hits for place in places.values()), min(_run(Often) for _ in range(3))
