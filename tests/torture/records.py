"""The records of the torture tests: who they are, what must become of them, and two sources that read them slowly."""

import json
import os
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlinfer import BadRecord, Batch, DataSource, EndOfInput, RecordIds

SCHEMA = pa.schema([("id", pa.string()), ("x", pa.float64())])
PARTITIONS = ("0", "1", "2", "3")
END = "end"  # a file of this name in the input's folder: there will be nothing more


def value(partition, ordinal):
    """What the model is given: no two records have the same, so that an answer tells whose it is."""
    return int(partition) * 1_000_000 + ordinal + 0.5


def fate(ordinal):
    """What must become of a record: an answer, or a reject of one of three stages."""
    if ordinal % 11 == 10:
        return "conform"  # no value
    if ordinal % 23 == 22:
        return "decode"  # not JSON
    return "infer" if ordinal % 37 == 36 else "answered"  # the model refuses it


def line(partition, ordinal):
    """A record as it stands in the input."""
    x, end = value(partition, ordinal), fate(ordinal)
    x = None if end == "conform" else -x if end == "infer" else x
    text = json.dumps({"id": f"{partition}#{ordinal}", "x": x})
    return text.replace('"x"', "x") if end == "decode" else text


def csv_line(partition, ordinal):
    """The same, in a file that begins with `id,x`."""
    x, end = value(partition, ordinal), fate(ordinal)
    cell = {"conform": ",", "decode": "", "infer": f",{-x}"}.get(end, f",{x}")
    return f"{partition}#{ordinal}{cell}"


def answer(x):
    """What the model must answer, as a function of what it reads."""
    return 3.0 * x + 1.0


def ready():
    """Tell the parent that it may shoot; in one piece, for several threads read."""
    os.write(1, b"ready\n")


def batch_of(partition, lines, names, position):
    """Lines as a batch; those that are not JSON travel beside it."""
    rows, ids, bad = [], [], []
    for text, name in zip(lines, names, strict=True):
        try:
            rows.append(json.loads(text))
            ids.append(name)
        except ValueError:
            bad.append(BadRecord(name, "not_json", "not JSON", text.encode()))
    records = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    return Batch(records, partition, position, RecordIds.of(pa.array(ids, pa.string())), tuple(bad))


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
        return PARTITIONS

    @contextmanager
    def open(self, partition, after, wanted):
        ready()
        with (self.folder / partition).open("r", encoding="utf-8") as file:
            yield LinesReader(self, partition, file, after or 0)


class LinesReader:
    def __init__(self, source, partition, file, start):
        self._source, self._partition, self._file, self._at = source, partition, file, start
        for _ in range(start):
            file.readline()

    def read(self, max_records, timeout):
        time.sleep(self._source.pause)  # so that there are several batches, and moments between them
        last = (self._source.folder / END).exists()  # asked first: nothing is added after it
        lines = [line for _ in range(self._source.rows) if (line := self._whole_line())]
        if not lines:
            if last:
                raise EndOfInput
            return None
        start, self._at = self._at, self._at + len(lines)
        names = [f"{self._partition}#{n}" for n in range(start, self._at)]
        return batch_of(self._partition, lines, names, self._at)

    def _whole_line(self):
        place = self._file.tell()
        line = self._file.readline()
        if not line.endswith("\n"):
            self._file.seek(place)
            return ""
        return line


@dataclass(frozen=True)
class QueueSource(DataSource):
    """A folder of messages, one record each: delivered again until they are acknowledged, which deletes them.

    `eager` is the mistake: what was read is acknowledged at once.
    """

    folder: Path
    rows: int = 5
    pause: float = 0.001
    eager: bool = False
    resume = "acknowledge"

    def schema(self):
        return SCHEMA

    @contextmanager
    def open(self, partition, after, wanted):
        ready()
        yield QueueReader(self)


class QueueReader:
    def __init__(self, source):
        self._source, self._read = source, ""
        self._waiting, self._unacknowledged = deque(), deque()

    def read(self, max_records, timeout):
        time.sleep(self._source.pause)
        last = (self._source.folder / END).exists()
        if (
            not self._waiting
        ):  # the folder is listed anew when all is taken: a long queue must not make each read longer
            found = (path.name for path in self._source.folder.glob("*.json"))
            self._waiting.extend(sorted(name for name in found if name > self._read))
        taken = [self._waiting.popleft() for _ in range(min(self._source.rows, len(self._waiting)))]
        if not taken:
            if last:
                raise EndOfInput
            return None
        self._read = taken[-1]
        self._unacknowledged.extend(taken)
        lines = [(self._source.folder / name).read_text("utf-8") for name in taken]
        batch = batch_of("all", lines, [f"0#{int(name[:-5])}" for name in taken], taken[-1])
        if self._source.eager:
            self.acknowledge(batch.position)
        return batch

    def acknowledge(self, position):
        while self._unacknowledged and self._unacknowledged[0] <= position:
            (self._source.folder / self._unacknowledged.popleft()).unlink(missing_ok=True)
