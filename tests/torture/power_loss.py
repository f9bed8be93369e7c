"""Power loss: every prefix of what a run asks of the disk, with what was not flushed dropped, torn and reordered.

Each state is built on a disk, the pipeline runs again to its end, and the output is read without mlinfer.
"""

import csv
import gc
import hashlib
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import mlinfer
from mlinfer import (
    Batch,
    Checkpoint,
    DataDestination,
    DataSource,
    EndOfInput,
    InferencePipeline,
    RecordIds,
    durable,
)
from mlinfer.destinations import CsvDestination, JsonLinesDestination, ParquetDestination
from torture.disk import Disk, Killed, Remains, build

KINDS = ("parquet", "jsonl", "csv", "checkpoint")
RECORDS = 8
SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64())])


# --- the pipeline --------------------------------------------------------------------------------------------------------


class Watch:
    """Sees the commits of one run. With a disk, each is a promise that the disk must keep."""

    def __init__(self, disk=None):
        self.disk, self.committed = disk, None

    @mlinfer.observer
    def run_started(self, event):
        self.committed = 0

    @mlinfer.observer
    def progress_committed(self, event):
        self.committed += event.records


@dataclass(frozen=True)
class Numbers(DataSource):
    """Records 0, 1, ...; two at a time, and with a watch each pair waits until the one before it is committed."""

    count: int
    watch: Watch | None = None
    start: int = 0
    resume = "seek"

    def schema(self):
        return SCHEMA

    @contextmanager
    def open(self, partition, after, wanted):
        yield NumbersReader(self, after or 0)


class NumbersReader:
    def __init__(self, source, at):
        self._source, self._begun, self._at = source, at, at

    def read(self, max_records, timeout):
        watch = self._source.watch
        if watch is not None and watch.committed < self._at - self._begun:
            time.sleep(0.0002)
            return None
        if watch is not None and watch.disk is not None:
            watch.disk.promise(self._at)
        if self._at >= self._source.count:
            raise EndOfInput
        ids = list(range(self._at, min(self._at + 2, self._source.count)))
        self._at = ids[-1] + 1
        records = pa.record_batch([pa.array(ids, pa.int64()), pa.array([n / 4 for n in ids])], schema=SCHEMA)
        return Batch(records, "all", self._at, RecordIds.ordinals("all", ids[0], len(ids)))


@mlinfer.host(inputs={"x": "double"}, outputs={"y": "double"}, takes="numpy", version="1")
def model(x):
    """What the oracle knows."""
    return 3 * x + 1


@dataclass(frozen=True)
class Keyed(DataDestination):
    """A file for each record: keyed, and without a place for progress."""

    path: Path = field(repr=False)  # each disk state is built in a folder of its own
    keyed = True
    commit_seconds = 0.0

    @contextmanager
    def open(self, schema, scope):
        if not scope.read_only:
            with durable.naming(self.path):
                durable.make_folder(self.path)
        yield KeyedWriter(self.path)


@dataclass
class KeyedWriter:
    path: Path
    waiting: list = field(default_factory=list)

    def write(self, batch):
        self.waiting += batch.records.to_pylist()

    def commit(self, progress):
        for row in self.waiting:
            with durable.naming(self.path):
                durable.replace(self.path / f"{row['id']}.json", json.dumps(row).encode())
        self.waiting.clear()


class Parquet(ParquetDestination):
    commit_seconds = 0.0


class JsonLines(JsonLinesDestination):
    commit_seconds = 0.0


class Csv(CsvDestination):
    commit_seconds = 0.0


def pipeline(kind, folder, source, watch=None):
    """The pipeline of this kind whose output is in this folder."""
    destination = {
        "parquet": lambda: Parquet(folder / "new" / "out"),
        "jsonl": lambda: JsonLines(folder / "new" / "out.jsonl"),
        "csv": lambda: Csv(folder / "new" / "out.csv"),
        "checkpoint": lambda: Keyed(folder / "new" / "out"),
    }[kind]()
    checkpoint = Checkpoint(folder / "new" / "p.progress") if kind == "checkpoint" else None
    return InferencePipeline(
        source, model, destination, name="p", keep=["id"], checkpoint=checkpoint, require="exactly-once",
        observers=[watch] if watch else (),
    )  # fmt: skip


def outcome(kind, folder):
    """The (id, y) at the destination, read without mlinfer, in their order."""
    out = folder / "new" / {"jsonl": "out.jsonl", "csv": "out.csv"}.get(kind, "out")
    if kind == "parquet":
        rows = [
            row for path in sorted(out.glob("*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()
        ]
    elif kind == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    elif kind == "csv":
        with out.open(newline="") as file:
            rows = [{"id": int(row["id"]), "y": float(row["y"])} for row in csv.DictReader(file)]
    else:
        rows = [json.loads(path.read_text()) for path in sorted(out.glob("[0-9].json"))]
    return [(row["id"], row["y"]) for row in rows]


def expected(count=RECORDS):
    """What must be there."""
    return [(n, 3 * n / 4 + 1) for n in range(count)]


# --- recording -----------------------------------------------------------------------------------------------------------


def record(kind, folder, lives):
    """The log of several runs one after the other. A life is (records, from_start, the step that kills it or None)."""
    disk = Disk(folder)
    with disk.installed():
        for count, from_start, deadly in lives:
            first, disk.dead, watch = disk.steps, False, Watch(disk)

            def fault(number, step, last=first + (deadly or 0)):
                if deadly is not None and number == last:  # noqa: B023 - used up within this life
                    disk.kill()

            disk.fault = fault
            if from_start:
                disk.promise(0)
            try:
                pipeline(kind, folder, Numbers(count, watch), watch).run(from_start=from_start)
            except Killed:
                gc.collect()  # while it is dead: no file of this life may be written to in the next
    return disk.log


def lives(dice):
    """Runs that grow, begin anew, and are killed on their way."""
    half, deadly = RECORDS // 2, lambda: dice.randrange(1, 30)
    return [
        [(half, False, None), (RECORDS, False, None)],
        [(RECORDS, False, None), (RECORDS, True, None)],
        [(RECORDS, False, deadly()), (RECORDS, False, deadly()), (RECORDS, False, None)],
        [(half, False, None), (RECORDS, True, deadly()), (RECORDS, False, None)],
    ]


# --- replaying -----------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of the states: each is different from all others of its kind.

    `unrecoverable`: the next run ended with an error. `wrong`: it left something else than the answers, each once and in
    order, or a temporary file. `forgotten`: it delivered again what had been reported as committed.
    """

    seed: int
    states: Counter = field(default_factory=Counter)
    unrecoverable: int = 0
    wrong: int = 0
    forgotten: int = 0
    examples: list = field(default_factory=list)

    @property
    def total(self):
        return sum(self.states.values())

    def __bool__(self):
        return not (self.unrecoverable or self.wrong or self.forgotten)

    def __str__(self):
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.states.items())
        return (
            f"power loss, seed {self.seed}: {self.total:,} states ({kinds}): {self.unrecoverable} unrecoverable, "
            f"{self.wrong} wrong, {self.forgotten} forgotten"
        )


def run(seed, states, kinds=KINDS):
    """At least so many different states over all kinds, and what became of them."""
    found, dice = Outcome(seed), random.Random(seed)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nothing is lost there but time
    with tempfile.TemporaryDirectory(dir=shared) as place:
        for kind in kinds:
            seen, most = set(), -(-states // len(kinds))
            while found.states[kind] < most:
                for life in lives(dice):
                    _life(kind, life, Path(place).resolve(), Round(found, seen, dice, -(-most // 4)))
    return found


@dataclass
class Round:
    """What the lives of one kind share; each of them adds at most `most` states."""

    found: Outcome
    seen: set
    dice: random.Random
    most: int


def _life(kind, life, place, round_):
    """Record a life, and try what could be left of it, taken evenly from all its moments."""
    folder = place / "live"
    folder.mkdir()
    try:
        log = record(kind, folder, life)
    except Exception as error:  # noqa: BLE001 - a life that a run could not even begin is counted and told
        round_.found.states[kind] += 1
        round_.found.unrecoverable += 1
        round_.found.examples.append((kind, {}, repr(error)))
        return
    finally:
        shutil.rmtree(folder)
    candidates, remains = {}, Remains([])
    for entry in [("promise", 0), *log]:
        remains.add(entry)
        some = [remains.some(round_.dice) for _ in range(12)]
        for state in (remains.all(), remains.none(), remains.names_only(), remains.contents_only(), *some):
            mark = _mark(state, remains.promised)
            if mark not in round_.seen:
                candidates[mark] = (state, remains.promised)
    marks = sorted(candidates)
    for mark in round_.dice.sample(marks, min(round_.most, len(marks))):
        round_.seen.add(mark)
        round_.found.states[kind] += 1
        _try(kind, place / "state", candidates[mark], round_.found)


def _try(kind, folder, candidate, found):
    """Build a state, run the pipeline to its end and look."""
    state, promised = candidate
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    build(state, folder)
    try:
        report = pipeline(kind, folder, Numbers(RECORDS)).run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted and told
        found.unrecoverable += 1
        found.examples.append((kind, _shown(state), repr(error)))
        return
    try:
        answers = outcome(kind, folder)
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
        answers = repr(error)  # it cannot even be read
    left = list((folder / "new").glob(".*.tmp"))
    if answers != expected() or left or (kind == "parquet" and list((folder / "new" / "out").glob(".*.tmp"))):
        found.wrong += 1
        found.examples.append((kind, _shown(state), f"{answers} {left}"))
    if report.delivered > RECORDS - promised:
        found.forgotten += 1
        found.examples.append(
            (kind, _shown(state), f"{promised} were promised, {report.delivered} delivered again")
        )


def _mark(state, promised):
    return hashlib.sha256(repr((sorted(state.items()), promised)).encode()).digest()


def _shown(state):
    return {name: None if content is None else len(content) for name, content in state.items()}
