"""A source, two hosts and two destinations that keep the contract, and others that break it in one place each."""

from __future__ import annotations

import ctypes
import fcntl
import json
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlinfer import (
    Batch,
    ConfigError,
    DataDestination,
    DataSource,
    EndOfInput,
    FencedError,
    Host,
    Progress,
    RecordIds,
    Signature,
    batch_from_rows,
    durable,
)

# --- sources -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinesSource(DataSource):
    """A file of JSON lines; a position is a number of lines."""

    path: str
    resume = "seek"

    @contextmanager
    def open(self, partition, after, wanted):
        lines = Path(self.path).read_text(encoding="utf-8").splitlines()
        yield self.reader(lines, partition, after or 0, wanted)

    def reader(self, lines, partition, done, wanted):
        return LinesReader(lines, partition, done, wanted)


@dataclass
class LinesReader:
    lines: list[str]
    partition: str
    done: int
    wanted: pa.Schema

    def read(self, max_records, timeout):
        taken = self.lines[self.done : self.done + max_records]
        if not taken:
            raise EndOfInput
        start, self.done = self.done, self.done + len(taken)
        records, _, _ = batch_from_rows([json.loads(line) for line in taken], self.wanted)
        return Batch(records, self.partition, self.done, self.ids(start, len(taken)))

    def ids(self, start, count):
        return RecordIds.ordinals(self.partition, start, count)


class SkipsOnResume(LinesSource):
    """One too far: begins behind the first record that was not delivered."""

    def reader(self, lines, partition, done, wanted):
        return LinesReader(lines, partition, done + (done > 0), wanted)


class TurnsRoundOnResume(LinesSource):
    """Gives what was not delivered, each batch from its end to its beginning."""

    def reader(self, lines, partition, done, wanted):
        return (Backwards if done else LinesReader)(lines, partition, done, wanted)


class Backwards(LinesReader):
    def read(self, max_records, timeout):
        batch = super().read(max_records, timeout)
        order = pa.array(range(len(batch))[::-1])
        return Batch(
            batch.records.take(order), batch.partition, batch.position, batch.ids.take(order.to_pylist())
        )


class LosesTheLast(LinesSource):
    """Never gives its last record."""

    def reader(self, lines, partition, done, wanted):
        return LinesReader(lines[:-1], partition, done, wanted)


class IdsByBatch(LinesSource):
    """Counts batches and the records within them."""

    def reader(self, lines, partition, done, wanted):
        return BatchCounter(lines, partition, done, wanted)


class BatchCounter(LinesReader):
    batches = 0

    def ids(self, start, count):
        self.batches += 1
        return RecordIds.ordinals(f"batch {self.batches}", 0, count)


@dataclass(frozen=True)
class QueueSource(DataSource):
    """A file of JSON lines that is a queue: what is acknowledged is taken out."""

    path: str
    resume = "acknowledge"
    eager = False

    @contextmanager
    def open(self, partition, after, wanted):
        lines = Path(self.path).read_text(encoding="utf-8").splitlines()
        yield QueueReader(lines, partition, 0, wanted, Path(self.path), self.eager)


@dataclass
class QueueReader(LinesReader):
    path: Path
    eager: bool

    def read(self, max_records, timeout):
        batch = super().read(max_records, timeout)
        if self.eager:
            self.acknowledge(batch.position)
        return batch

    def ids(self, start, count):
        return RecordIds.of(pa.array([json.loads(line)["id"] for line in self.lines[start : start + count]]))

    def acknowledge(self, position):
        self.path.write_text("".join(f"{line}\n" for line in self.lines[position:]), encoding="utf-8")


class AcknowledgesOnRead(QueueSource):
    """Takes records out of the queue before anybody has stored them."""

    eager = True


class NeverForgets(QueueSource):
    """Takes nothing out of the queue."""

    @contextmanager
    def open(self, partition, after, wanted):
        with super().open(partition, after, wanted) as reader:
            reader.acknowledge = lambda position: None
            yield reader


# --- hosts ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doubler(Host):
    """Twice the number."""

    @contextmanager
    def open(self):
        yield DoublerModel()


class DoublerModel:
    signature = Signature(
        pa.schema([pa.field("x", pa.float64(), nullable=False)]), pa.schema([("y", pa.float64())]), "doubler"
    )

    def infer(self, records):
        with np.errstate(over="ignore"):
            return self.answers(records, records.column("x").to_numpy(zero_copy_only=False))

    def answers(self, records, x):
        return pa.record_batch({"y": pa.array(2 * x)})


@dataclass(frozen=True)
class Sorts(Doubler):
    """Answers from the smallest to the largest."""

    @contextmanager
    def open(self):
        model = DoublerModel()
        model.answers = lambda records, x: pa.record_batch({"y": pa.array(np.sort(2 * x))})
        yield model


@dataclass(frozen=True)
class SortsManyRows(Doubler):
    """Answers from the smallest to the largest once there are ten."""

    @contextmanager
    def open(self):
        model = DoublerModel()
        model.answers = lambda records, x: pa.record_batch({"y": np.sort(2 * x) if len(x) > 9 else 2 * x})
        yield model


@dataclass(frozen=True)
class KeepsItsMemory(Doubler):
    """Puts the answers where the last ones were, which somebody else may still be writing down."""

    @contextmanager
    def open(self):
        model = DoublerModel()
        memory = np.empty(100_000)
        model.answers = lambda records, x: put(memory[: len(x)], 2 * x)
        yield model


def put(place, answers):
    place[:] = answers
    array = pa.Array.from_buffers(pa.float64(), len(place), [None, pa.py_buffer(place)])
    return pa.record_batch({"y": array})


@dataclass(frozen=True)
class MixesThreads(Doubler):
    """Says that threads may share it, and lays the numbers of the one where the other has its own."""

    shared = True

    @contextmanager
    def open(self):
        yield MixingModel()


class MixingModel(DoublerModel):
    def answers(self, records, x):
        self.x = x
        doubled = 2 * self.x
        return pa.record_batch({"y": doubled})


@dataclass(frozen=True)
class DropsARow(Doubler):
    """Forgets one record of a batch that is not the one it was tried with."""

    @contextmanager
    def open(self):
        model = DoublerModel()
        model.answers = lambda records, x: pa.record_batch({"y": pa.array(2 * (x[:1] if len(x) == 2 else x))})
        yield model


@dataclass(frozen=True)
class Mutates(Doubler):
    """Doubles in place, in the memory that the caller keeps."""

    @contextmanager
    def open(self):
        model = DoublerModel()
        model.answers = in_place
        yield model


def in_place(records, x):
    column = records.column("x")
    # as a library does that knows no read-only memory
    address = column.buffers()[1].address + 8 * column.offset
    whole = np.ctypeslib.as_array((ctypes.c_double * len(column)).from_address(address))
    answers = pa.record_batch({"y": pa.array(2 * x)})
    whole[:] = 2 * x
    return answers


@dataclass(frozen=True)
class Summing(Doubler):
    """Adds up: a model with a memory."""

    @contextmanager
    def open(self):
        yield SummingModel()


class SummingModel(DoublerModel):
    total = 0.0

    def answers(self, records, x):
        sums = self.total + np.cumsum(x)
        self.total = float(sums[-1]) if len(sums) else self.total
        return pa.record_batch({"y": pa.array(sums)})

    def snapshot(self):
        return repr(self.total).encode()

    def restore(self, state):
        self.total = float(state)


@dataclass(frozen=True)
class Forgets(Doubler):
    """A memory that is not in the snapshot."""

    @contextmanager
    def open(self):
        model = SummingModel()
        model.snapshot = lambda: b"0"
        yield model


# --- destinations --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DocumentDestination(DataDestination):
    """One JSON document with records and progress, replaced as a whole at every commit."""

    path: str
    transactional = True

    @contextmanager
    def open(self, schema, scope):
        path = Path(self.path)
        with nullcontext() if scope.read_only else alone(path):
            writer = self.writer(path, self.stored(path, schema, scope), fresh=scope.fresh)
            if not scope.read_only:
                writer.save()
        yield writer

    def stored(self, path, schema, scope):
        owner = [scope.pipeline, scope.output]
        columns = [[field.name, str(field.type)] for field in schema]
        nothing = {"owner": owner, "columns": columns, "rows": [], "progress": NOTHING, "epoch": 0}
        stored = held(path) or nothing
        if stored["owner"] != owner:
            msg = f"{path}: wanted a file of this output, found one of {stored['owner']}; name another"
            raise ConfigError(msg)
        if scope.epoch is not None and scope.epoch != stored["epoch"]:
            raise FencedError("another run has taken over")
        if stored["columns"] != columns:
            raise ConfigError("the file holds other fields")
        return {**stored, "epoch": stored["epoch"] + (scope.epoch is None)}

    def writer(self, path, stored, fresh):
        return DocumentWriter(path, stored, fresh)


NOTHING = Progress().to_json()


def held(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@contextmanager
def alone(path):
    """Nobody else writes meanwhile: who comes waits."""
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class DocumentWriter:
    def __init__(self, path, stored, fresh):
        self.path, self.stored, self.waiting, self.fresh = path, stored, [], fresh

    def write(self, batch):
        self.waiting += batch.records.to_pylist()

    def commit(self, progress):
        with alone(self.path):
            self.check_epoch()
            self.begin_anew()
            self.stored["rows"] += self.waiting
            self.waiting = []
            self.stored["progress"] = self.merged(progress).to_json()
            self.save()

    def begin_anew(self):
        if self.fresh:
            self.stored |= {"rows": [], "progress": NOTHING}
            self.fresh = False

    def merged(self, progress):
        return Progress.from_json(self.stored["progress"], "here").merged(progress)

    def committed(self):
        stored = NOTHING if self.fresh else self.stored["progress"]
        return replace(Progress.from_json(stored, "here"), epoch=self.stored["epoch"])

    def check_epoch(self):
        if held(self.path)["epoch"] != self.stored["epoch"]:
            raise FencedError("another run has taken over")

    def save(self):
        durable.replace(self.path, json.dumps(self.stored, default=str).encode())


class ErasesAtTheDoor(DocumentDestination):
    """Begins anew when it is opened, and not with the first commit."""

    def writer(self, path, stored, fresh):
        writer = DocumentWriter(path, stored, fresh)
        writer.begin_anew()
        return writer


class ErasesInAStepOfItsOwn(DocumentDestination):
    """Begins anew with the first commit, and takes the old records away before it stores what comes instead."""

    def writer(self, path, stored, fresh):
        return ErasingWriter(path, stored, fresh)


class ErasingWriter(DocumentWriter):
    def begin_anew(self):
        if self.fresh:
            self.stored["rows"] = []
            self.save()
        super().begin_anew()


class FencesTooEarly(DocumentDestination):
    """Looks at the epoch before it is alone."""

    def writer(self, path, stored, fresh):
        return EarlyWriter(path, stored, fresh)


class EarlyWriter(DocumentWriter):
    def commit(self, progress):
        self.check_epoch()
        self.begin_anew()
        self.stored["rows"] += self.waiting
        self.waiting = []
        self.stored["progress"] = self.merged(progress).to_json()
        with alone(self.path):
            self.save()


class ProgressFirst(DocumentDestination):
    """Stores how far it came, and then the records."""

    def writer(self, path, stored, fresh):
        return ProgressFirstWriter(path, stored, fresh)


class ProgressFirstWriter(DocumentWriter):
    def commit(self, progress):
        with alone(self.path):
            self.check_epoch()
            self.begin_anew()
            self.stored["progress"] = self.merged(progress).to_json()
            self.save()
            self.stored["rows"] += self.waiting
            self.waiting = []
            self.save()


class ProgressAmidManyLines(DocumentDestination):
    """The same mistake in a commit of 240 lines, two of which lie between the progress and the records."""

    def writer(self, path, stored, fresh):
        return LongWriter(path, stored, fresh)


class LongWriter(DocumentWriter):
    """Its commit is spelled by a loop: 120 lines that count, the mistake, and 120 lines more."""


COUNTING = "\n".join(f"    self.counts[{n}] = len(self.waiting)" for n in range(120))
LONG = f"""
def commit(self, progress):
    self.counts = {{}}
{COUNTING}
    with alone(self.path):
        self.check_epoch()
        self.begin_anew()
        self.stored["progress"] = self.merged(progress).to_json()
        self.save()
        self.stored["rows"], self.waiting = self.stored["rows"] + self.waiting, []
        self.save()
{COUNTING}
"""
exec(compile(LONG, "long.py", "exec"))
LongWriter.commit = commit  # noqa: F821 - made by the line above


class InPlace(DocumentDestination):
    """Says that it is transactional, and stores one record after the other."""

    def writer(self, path, stored, fresh):
        return InPlaceWriter(path, stored, fresh)


class InPlaceWriter(DocumentWriter):
    def commit(self, progress):
        with alone(self.path):
            self.check_epoch()
            self.begin_anew()
            while self.waiting:
                self.stored["rows"].append(self.waiting.pop(0))
                self.save()
            self.stored["progress"] = self.merged(progress).to_json()
            self.save()


class IgnoresTheEpoch(DocumentDestination):
    """Lets every run write, the oldest, too."""

    def writer(self, path, stored, fresh):
        return IgnorantWriter(path, stored, fresh)


class IgnorantWriter(DocumentWriter):
    def check_epoch(self):
        pass


class ForgetsOldProgress(DocumentDestination):
    """Stores what the last commit said, and drops what the others had said."""

    def writer(self, path, stored, fresh):
        return ForgetfulWriter(path, stored, fresh)


class ForgetfulWriter(DocumentWriter):
    def merged(self, progress):
        return progress


@dataclass(frozen=True)
class FolderDestination(DataDestination):
    """One small file per record, named by its id."""

    path: str
    keyed = True

    @contextmanager
    def open(self, schema, scope):
        yield self.writer(Path(self.path) / scope.pipeline / scope.output, scope.fresh)

    def writer(self, folder, fresh):
        return FolderWriter(folder, fresh)


class FolderWriter:
    def __init__(self, folder, fresh):
        self.folder, self.waiting, self.fresh = folder, [], fresh

    def write(self, batch):
        self.waiting += zip(batch.ids.array().to_pylist(), batch.records.to_pylist(), strict=True)

    def commit(self, progress):
        durable.make_folder(self.folder)
        if self.fresh:
            for path in self.folder.glob("*.json"):
                path.unlink()
        self.fresh = False
        for name, record in self.waiting:
            durable.replace(self.folder / f"{self.name(name)}.json", json.dumps(record, default=str).encode())
        self.waiting = []

    def name(self, record_id):
        return record_id


class NamesByNumber(FolderDestination):
    """Says that it is keyed, and gives every record a name of its own."""

    def writer(self, folder, fresh):
        return NumberingWriter(folder, fresh)


class NumberingWriter(FolderWriter):
    def name(self, record_id):
        return f"{record_id}-{len(list(self.folder.iterdir()))}"


class KnowsNoPipelines(FolderDestination):
    """Puts the records of all pipelines in one place, where those with the same id replace each other."""

    @contextmanager
    def open(self, schema, scope):
        yield self.writer(Path(self.path) / "testing" / scope.output, scope.fresh)


class LazyCommit(FolderDestination):
    """Stores at the end of the session what it had promised at the commit."""

    @contextmanager
    def open(self, schema, scope):
        with super().open(schema, scope) as writer:
            late = LateWriter(writer)
            yield late
            late.flush()


class LateWriter:
    def __init__(self, writer):
        self.writer = writer

    def write(self, batch):
        self.writer.write(batch)

    def commit(self, progress):
        pass

    def flush(self):
        self.writer.commit(Progress())


# --- recipes and sessions that break a rule ------------------------------------------------------------------------------


@dataclass
class Thawed(Host):
    """A recipe that can be changed."""

    number: int = 0
    open = Doubler.open


@dataclass(frozen=True)
class Curious(Doubler):
    """Reads a file while it is described."""

    path: str = ""

    def __post_init__(self):
        Path(self.path).read_bytes()


@dataclass(frozen=True, eq=False)
class Incomparable(Host):
    """Equal to nothing but itself."""

    open = Doubler.open


LEAKED = []


@dataclass(frozen=True)
class Leaks(Doubler):
    """Leaves a file open behind every session."""

    @contextmanager
    def open(self):
        LEAKED.append(Path(__file__).open(encoding="utf-8"))  # noqa: SIM115 - that is what is wrong with it
        yield DoublerModel()


@dataclass(frozen=True)
class Swallows(Doubler):
    """Knows of no error."""

    @contextmanager
    def open(self):
        with suppress(Exception):
            yield DoublerModel()
