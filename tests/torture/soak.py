"""A long run: memory, open files and threads stay what they were, and a model that leaks is noticed."""

import os
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import Batch, DataSource, EndOfInput, InferencePipeline, RecordIds, observer
from mlinfer.destinations import SqlDestination
from mlinfer.hosts import FunctionHost
from torture.figures import Figures

ROWS = 20
KEYS = 1000
MOST_SLOPE = 1.0  # MB per 10,000 batches
LEAK = 1000  # bytes a batch: ten times as much
EVERY = 200
SCHEMA = pa.schema([("key", pa.int64()), ("x", pa.float64())])


class Keyed(SqlDestination):
    commit_seconds = 0.01  # thousands of commits


@dataclass
class Pulse:
    """Lets one batch go at a time, and looks at the process now and then."""

    batches: int
    seen: list = field(default_factory=list)
    free: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1))
    done: int = 0

    @observer
    def batch_written(self, event):
        self.done += 1
        if self.done % EVERY == 0:
            self.seen.append((self.done, _resident(), _entries("fd"), _entries("task")))
        self.free.release()


@dataclass(frozen=True)
class Ticking(DataSource):
    """The same few thousand records again and again, a batch whenever the last one has been written."""

    pulse: Pulse
    resume = "seek"

    def schema(self):
        return SCHEMA

    @contextmanager
    def open(self, partition, after, wanted):
        yield Ticks(self.pulse)


class Ticks:
    def __init__(self, pulse):
        self._pulse, self._at = pulse, 0

    def read(self, max_records, timeout):
        if not self._pulse.free.acquire(timeout=timeout):
            return None
        if self._at == self._pulse.batches:
            raise EndOfInput
        start, self._at = self._at * ROWS, self._at + 1
        keys = np.arange(start, start + ROWS) % KEYS
        x = pa.array(keys * 1.0, mask=keys == KEYS - 1)  # one in a thousand is refused
        return Batch(
            pa.RecordBatch.from_arrays([pa.array(keys), x], schema=SCHEMA),
            "all",
            self._at,
            RecordIds.of(pa.array(keys)),
        )


def flat(_, seed, batches):
    """So many batches through a whole pipeline: nothing may grow."""
    with tempfile.TemporaryDirectory() as folder:
        slope, files, threads = _apart(Path(folder), batches, 0)
    assert slope <= MOST_SLOPE, f"memory grows by {slope:.2f} MB in 10,000 batches"
    assert max(files, threads) <= 0, f"{files} files and {threads} threads more than at first"
    return Figures(batches, notes=[f"memory {slope:+.3f} MB in 10,000 batches; files and threads flat"])


def leak_noticed(_, seed, batches):
    """The same with a model that keeps a little of every batch: the measurement must show it."""
    with tempfile.TemporaryDirectory() as folder:
        slope, *_ = _apart(Path(folder), batches, LEAK)
    assert slope > MOST_SLOPE, f"a leak of {LEAK / 100:.0f} MB in 10,000 batches was measured as {slope:.2f}"
    return Figures(batches, notes=[f"a leak of {LEAK / 100:.0f} MB in 10,000 batches is seen as {slope:.1f}"])


def _apart(*what):
    """In a process of its own: in one that has done much, a leak fills what others have left before memory grows."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_grown, *what).result()


def _grown(folder, batches, leak):
    """Memory per 10,000 batches (MB), and how many more files and threads at the end than after the warm-up."""
    pulse, kept = Pulse(batches), []

    def answer(records):
        if leak:
            kept.append(os.urandom(leak))
        return pc.add(records.column("x"), 1.0)

    database = f"sqlite:///{folder}/out.db"
    report = InferencePipeline(
        Ticking(pulse),
        FunctionHost(answer, {"x": pa.float64()}, {"y": pa.float64()}),
        Keyed(database, "scores", key="key"),
        rejects=Keyed(database, "rejects", key="record_id"),
        name="soak",
        keep=["key"],
        observers=[pulse],
    ).run()
    assert report.delivered + report.rejected == batches * ROWS, report
    seen = np.array(pulse.seen[len(pulse.seen) // 4 :], float)  # behind the warm-up
    slope = np.polyfit(seen[:, 0] / 10_000, seen[:, 1] / 1e6, 1)[0]
    files, threads = (int(seen[-1, n] - seen[0, n]) for n in (2, 3))
    return float(slope), files, threads


def _resident():
    """The memory of this process that is in RAM, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _entries(name):
    """How many open files or threads this process has."""
    return sum(1 for _ in Path("/proc/self", name).iterdir())
