"""The records of the torture tests: who they are, what must become of them, and two sources that read them slowly."""

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlinfer import Batch, DataSource, EndOfInput, RecordIds

SCHEMA = pa.schema([("id", pa.string()), ("x", pa.float64())])
BAD_EVERY = 11


def record(partition, ordinal):
    """Every eleventh has no value and must become a reject."""
    x = None if ordinal % BAD_EVERY == BAD_EVERY - 1 else ordinal * 7919 % 1009 + len(partition) / 16
    return {"id": f"{partition}#{ordinal}", "x": x}


def answer(x):
    """What the model must answer, as a function of what it reads."""
    return 3.0 * x + 1.0


def ready():
    """Tell the parent that it may shoot; in one piece, for several threads read."""
    os.write(1, b"ready\n")


@dataclass(frozen=True)
class LinesSource(DataSource):
    """A folder of growing files; a partition is a file, a position the number of lines read."""

    folder: Path
    rows: int = 5
    pause: float = 0.001
    resume = "seek"

    def schema(self):
        return SCHEMA

    def partitions(self):
        return sorted(path.name for path in self.folder.glob("*.jsonl"))

    @contextmanager
    def open(self, partition, after, wanted):
        ready()
        lines = (self.folder / partition).read_text("utf-8").splitlines()
        yield LinesReader(self, partition, lines, after or 0)


class LinesReader:
    def __init__(self, source, partition, lines, start):
        self._source, self._partition, self._lines, self._at = source, partition, lines, start

    def read(self, max_records, timeout):
        time.sleep(self._source.pause)  # so that there are several batches, and moments between them
        start, rows = self._at, self._lines[self._at : self._at + self._source.rows]
        if not rows:
            raise EndOfInput
        self._at += len(rows)
        records = pa.RecordBatch.from_pylist([json.loads(row) for row in rows], schema=SCHEMA)
        return Batch(
            records, self._partition, self._at, RecordIds.ordinals(self._partition, start, len(rows))
        )


@dataclass(frozen=True)
class QueueSource(DataSource):
    """A folder of messages, one record each: delivered again until they are acknowledged, which deletes them.

    `eager` is the mistake: what was read is acknowledged at once.
    """

    folder: Path
    eager: bool = False
    rows: int = 5
    resume = "acknowledge"

    def schema(self):
        return SCHEMA

    @contextmanager
    def open(self, partition, after, wanted):
        ready()
        yield QueueReader(self)


class QueueReader:
    def __init__(self, source):
        self._source = source
        self._waiting = sorted(source.folder.glob("*.json"))

    def read(self, max_records, timeout):
        time.sleep(0.003)  # so that there are several commits
        taken, self._waiting = self._waiting[: self._source.rows], self._waiting[self._source.rows :]
        if not taken:
            raise EndOfInput
        rows = [json.loads(path.read_text("utf-8")) for path in taken]
        batch = Batch(
            pa.RecordBatch.from_pylist(rows, schema=SCHEMA),
            "all",
            taken[-1].name,
            RecordIds.of(pa.array([row["id"] for row in rows])),
        )
        if self._source.eager:
            self.acknowledge(batch.position)
        return batch

    def acknowledge(self, position):
        for path in self._source.folder.glob("*.json"):
            if path.name <= position:
                path.unlink(missing_ok=True)
