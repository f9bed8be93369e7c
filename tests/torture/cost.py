"""What safety costs: failpoints that nobody has armed, and committing, at 1,000 records a batch.

Committing is held against writing the same records without a promise: into one Parquet file, in row groups of the same size,
that no commit ever finishes; into one text file, spelled by the same code; into SQLite by the same statements, with no
journal and nothing flushed.
"""

import sqlite3
import statistics
import tempfile
import time
import timeit
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlinfer import Batch, DataDestination, DataSource, EndOfInput, InferencePipeline, RecordIds, _failpoints
from mlinfer.destinations import JsonLinesDestination, ParquetDestination, SqlDestination
from mlinfer.destinations._jsonl import json_lines
from mlinfer.destinations._parquet_writer import GROUP_ROWS
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


@dataclass(frozen=True)
class Numbers(DataSource):
    """The same thousand records again and again, `bad` of them without a value."""

    batches: int = BATCHES
    bad: int = 0
    resume = "seek"

    def schema(self):
        return SCHEMA

    @contextmanager
    def open(self, partition, after, wanted):
        numbers = np.random.default_rng(0).random((WIDTH, ROWS))
        columns = [pa.array(np.arange(ROWS)), *map(pa.array, numbers)]
        if self.bad:
            columns[1] = pa.array(numbers[0], mask=np.arange(ROWS) < self.bad)
        yield NumbersReader(pa.RecordBatch.from_arrays(columns, schema=SCHEMA), self.batches)


class NumbersReader:
    def __init__(self, records, batches):
        self._records, self._batches, self._at = records, batches, 0

    def read(self, max_records, timeout):
        if self._at == self._batches:
            raise EndOfInput
        self._at += 1
        return Batch(self._records, "all", self._at, RecordIds.ordinals("all", ROWS * self._at, ROWS))


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


@dataclass(frozen=True)
class CarelessLines(DataDestination):
    """A text file, and nothing that would survive a crash."""

    path: Path

    @contextmanager
    def open(self, schema, scope):
        with self.path.open("wb") as file:
            yield CarelessLinesWriter(file)


class CarelessLinesWriter:
    def __init__(self, file):
        self._file = file

    def write(self, batch):
        self._file.write(json_lines(batch.records))

    def commit(self, progress):
        pass


class CarelessConnection(sqlite3.Connection):
    """Asked for safety, it promises none."""

    def execute(self, statement, *values):
        if statement.startswith("PRAGMA synchronous"):
            super().execute("PRAGMA journal_mode = OFF")
            statement = "PRAGMA synchronous = OFF"
        return super().execute(statement, *values)


def sqlite(path):
    return SqlDestination(f"sqlite:///{path}", "scores")


def careless_sqlite(path):
    return sqlite(path.with_name("careless.db"))


KINDS = {
    "parquet": (ParquetDestination, Careless, Numbers()),
    "jsonl": (JsonLinesDestination, CarelessLines, Numbers(3_000)),
    "sqlite": (sqlite, careless_sqlite, Numbers(1_000)),
    "rejects": (ParquetDestination, Careless, Numbers(3_000, bad=ROWS // 100)),
}


def of_committing(kind, seed, runs):
    """So many pairs of runs, one after the other; the median of the share of time that committing takes."""
    del seed
    careful, careless, source = KINDS[kind]
    _run(careless, source)  # warm
    pairs = [(_run(careful, source), _run(careless, source)) for _ in range(runs)]
    committing = statistics.median(1 - cheap.seconds / dear.seconds for dear, cheap in pairs)
    commits = statistics.median(dear.commits for dear, _ in pairs)
    each = statistics.median((dear.seconds - cheap.seconds) / dear.commits for dear, cheap in pairs)
    note = (
        f"committing {committing:+.1%} of the time (at most {MOST_COMMITTING:.0%}): {commits:.0f} commits of "
        f"{source.batches / commits:.0f} batches, {1000 * each:.1f} ms each"
    )
    assert committing <= MOST_COMMITTING, note
    return Figures(runs, notes=[note])


def of_safety(seed, runs):
    """What committing costs Parquet, and what share of the time failpoints take."""
    figures = of_committing("parquet", seed, runs)
    calls, seconds = _failpoint_calls()
    each = (
        min(timeit.repeat(lambda: _failpoints.failpoint("dest.commit.before"), number=100_000, repeat=5))
        / 100_000
    )
    failpoints = calls * each / seconds
    note = (
        f"failpoints {failpoints:.3%} of the time (at most {MOST_FAILPOINTS:.0%}): {calls:,} calls of {each * 1e9:.0f} ns "
        f"in {seconds:.2f} s"
    )
    assert failpoints <= MOST_FAILPOINTS, note
    return figures + Figures(notes=[note])


def logistic(**columns):
    """A model as light as they come."""
    return 1.0 / (1.0 + np.exp(-WEIGHTS @ np.array(list(columns.values()))))


def _run(destination, source):
    """The report of one run."""
    with tempfile.TemporaryDirectory() as folder, _connections(destination):
        host = FunctionHost(logistic, dict.fromkeys(X, pa.float64()), {"y": pa.float64()}, takes="numpy")
        rejects = destination(Path(folder) / "rejects") if source.bad else None
        pipeline = InferencePipeline(
            source, host, destination(Path(folder) / "out"), rejects=rejects, name="cost", keep=["n"]
        )
        begun = time.perf_counter()
        report = pipeline.run()
        seconds = time.perf_counter() - begun  # with what ends a run, which its report cannot count
    assert report.delivered == (ROWS - source.bad) * source.batches, report
    return replace(report, seconds=seconds)


@contextmanager
def _connections(destination):
    """While the block runs, SQLite keeps its promises, or none."""
    connect = sqlite3.connect
    if destination is careless_sqlite:
        sqlite3.connect = partial(connect, factory=CarelessConnection)
    try:
        yield
    finally:
        sqlite3.connect = connect


def _failpoint_calls():
    """How often failpoints are passed in a run, and how long one takes."""
    careful, _, source = KINDS["parquet"]
    places = {name: _failpoints._Failpoint("sleep", "0", NEVER, 0.0) for name in _failpoints.PLACES}
    _failpoints._active.update(places)
    try:
        _run(careful, source)
    finally:
        _failpoints._active.clear()
    return sum(place.hits for place in places.values()), min(_run(careful, source).seconds for _ in range(3))
