"""What safety costs: failpoints that nobody has armed, and committing, at 1,000 records a batch.

Committing is held against writing the same records, in row groups of the same size, into one Parquet file that no
commit ever finishes: without progress, without flushing to the disk, without names that appear in one step.
"""

import statistics
import tempfile
import time
import timeit
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlinfer import Batch, DataDestination, DataSource, EndOfInput, InferencePipeline, _failpoints
from mlinfer.destinations import ParquetDestination
from mlinfer.destinations._parquet import GROUP_ROWS
from mlinfer.hosts import FunctionHost
from torture.figures import Figures

ROWS = 1000
BATCHES = 20_000  # some seconds, and as many commits
RUNS = 7
MOST_FAILPOINTS = 0.01
MOST_COMMITTING = 0.10
NEVER = 1e9
WIDTH = 20
X = [f"x{place}" for place in range(WIDTH)]
SCHEMA = pa.schema([("n", pa.int64()), *((name, pa.float64()) for name in X)])
WEIGHTS = np.linspace(-1, 1, WIDTH)


class Numbers(DataSource):
    """The same thousand records again and again."""

    resume = "seek"

    def schema(self):
        return SCHEMA

    def open(self, partition, after, wanted):
        return self

    def __enter__(self):
        self._at = 0
        numbers = np.random.default_rng(0).random((WIDTH, ROWS))
        columns = [pa.array(np.arange(ROWS)), *map(pa.array, numbers)]
        self._records = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
        return self

    def __exit__(self, *_):
        pass

    def read(self, max_records, timeout):
        if self._at == BATCHES:
            raise EndOfInput
        self._at += 1
        return Batch(self._records, "all", self._at)


@dataclass(frozen=True)
class Careless(DataDestination):
    """One Parquet file, and nothing that would survive a crash."""

    path: Path

    @contextmanager
    def open(self, schema, scope):
        with pq.ParquetWriter(self.path, schema, use_dictionary=False) as file:
            yield CarelessWriter(file, schema)


class CarelessWriter:
    """Row groups as they fill up; a commit promises nothing."""

    def __init__(self, file, schema):
        self._file, self._schema = file, schema
        self._batches, self._rows = [], 0

    def write(self, batch):
        self._batches.append(batch.records)
        self._rows += len(batch)
        if self._rows >= GROUP_ROWS:
            self._file.write_table(pa.Table.from_batches(self._batches, self._schema))
            self._batches, self._rows = [], 0

    def commit(self, progress):
        pass


def of_safety(seed, runs):
    """So many pairs of runs, one after the other; the median of what committing costs, and the share of failpoints."""
    _run(Careless)  # warm
    pairs = [(_run(ParquetDestination), _run(Careless)) for _ in range(runs)]
    committing = statistics.median(1 - careless / careful for careful, careless in pairs)
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


def logistic(**columns):
    """A model as light as they come."""
    return 1.0 / (1.0 + np.exp(-WEIGHTS @ np.array(list(columns.values()))))


def _run(destination):
    with tempfile.TemporaryDirectory() as folder:
        host = FunctionHost(logistic, dict.fromkeys(X, pa.float64()), {"y": pa.float64()}, takes="numpy")
        pipeline = InferencePipeline(
            Numbers(), host, destination(Path(folder) / "out"), name="cost", keep=["n"]
        )
        begun = time.perf_counter()
        report = pipeline.run()
        seconds = time.perf_counter() - begun
    assert report.delivered == ROWS * BATCHES, report
    return seconds


def _failpoint_calls():
    """How often failpoints are passed in a run, and how long one takes."""
    places = {name: _failpoints._Failpoint("sleep", "0", NEVER, 0.0) for name in _failpoints.PLACES}
    _failpoints._active.update(places)
    try:
        _run(ParquetDestination)
    finally:
        _failpoints._active.clear()
    return sum(place.hits for place in places.values()), min(_run(ParquetDestination) for _ in range(3))
