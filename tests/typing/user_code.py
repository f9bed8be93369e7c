"""Code as users write it against the public names: type checkers accept it, and nothing runs it.

Each part is written twice: as a subclass of its protocol, and as a class that only has the right shape.
"""

# ruff: noqa: T201 - printing is a use like any other
# pyright: reportUnknownMemberType=false
# (pyarrow ships no types)

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, assert_type

import mlinfer
from mlinfer import (
    Acknowledges,
    Batch,
    Batching,
    Budget,
    Checkpoint,
    DataDestination,
    DataSource,
    Drains,
    EndOfInput,
    Host,
    InferencePipeline,
    InfersArrays,
    Joins,
    Model,
    Plan,
    Position,
    Progress,
    Reader,
    RecordErrors,
    RecordIds,
    Resumes,
    Retry,
    RunReport,
    Scope,
    SideTables,
    Signature,
    Stateful,
    Stop,
    TransientError,
    Workers,
    Writer,
)

# --- sources ---------------------------------------------------------------------------------------------------------


class CountingReader:
    """Matches Reader, Acknowledges and Drains by structure."""

    def __init__(self, row: int) -> None:
        self.row = row

    def read(self, max_records: int, timeout: float) -> Batch | None:
        if self.row > 100:
            raise EndOfInput
        if timeout < 0:
            raise TransientError("busy", wait=1.5)
        records: Any = None
        return Batch(records, "all", self.row, RecordIds.ordinals("all", self.row, max_records))

    def acknowledge(self, position: Position) -> None:
        self.row = int(position)

    def drain(self) -> None:
        self.row = 101


class InheritingReader(Reader):
    """Subclasses Reader."""

    def read(self, max_records: int, timeout: float) -> Batch | None:
        return None


@dataclass(frozen=True)
class Inheriting(DataSource):
    """Subclasses DataSource; schema() and partitions() come along."""

    path: str
    resume = "seek"

    def open(self, partition: str, after: Position | None, wanted: Any) -> AbstractContextManager[Reader]:
        return nullcontext(InheritingReader())


class Shaped:
    """Matches DataSource by structure."""

    bounded: bool = False
    resume: Literal["seek", "acknowledge", "none"] = "acknowledge"

    def schema(self) -> Any:
        return None

    def partitions(self) -> Sequence[str]:
        return ("a", "b")

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: Any) -> Generator[CountingReader]:
        yield CountingReader(after or 0)


# --- hosts -----------------------------------------------------------------------------------------------------------


class InheritingModel(Model):
    """Subclasses Model."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    @property
    def signature(self) -> Signature:
        return self._signature

    def infer(self, records: Any) -> Any:
        raise RecordErrors([0], "odd", "an odd record")


class ShapedModel:
    """Matches Model and all its powers by structure; its signature is a plain attribute."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def infer(self, records: Any) -> Any:
        return records

    def infer_arrays(self, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        return columns

    def snapshot(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None:
        pass

    def side_schemas(self) -> Mapping[str, Any]:
        return {}

    def drain(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True)
class InheritingHost(Host):
    """Subclasses Host."""

    signature: Signature

    def open(self) -> AbstractContextManager[Model]:
        return nullcontext(InheritingModel(self.signature))


@dataclass
class ShapedHost:
    """Matches Host by structure."""

    signature: Signature
    shared: bool = True

    @contextmanager
    def open(self) -> Generator[ShapedModel]:
        yield ShapedModel(self.signature)


# --- destinations ----------------------------------------------------------------------------------------------------


class InheritingWriter(Writer):
    """Subclasses Writer."""

    def write(self, batch: Batch) -> None:
        print(len(batch), batch.position)

    def commit(self, progress: Progress) -> None:
        print(progress.positions, progress.epoch)


class ShapedWriter:
    """Matches Writer, Resumes and Joins by structure."""

    def write(self, batch: Batch) -> None:
        pass

    def commit(self, progress: Progress) -> None:
        pass

    def committed(self) -> Progress:
        return Progress({"a": 1})

    def join(self, destination: DataDestination, schema: Any, scope: Scope) -> AbstractContextManager[Writer]:
        return nullcontext(InheritingWriter())


@dataclass(frozen=True)
class InheritingDestination(DataDestination):
    """Subclasses DataDestination; says only what is special about it."""

    keyed = True

    def open(self, schema: Any, scope: Scope) -> AbstractContextManager[Writer]:
        return nullcontext(InheritingWriter())


class ShapedDestination:
    """Matches DataDestination by structure."""

    transactional: bool = True
    keyed: bool = False
    store: str | None = None
    holds_one_output: bool = False
    concurrent: bool = False
    commit_seconds: float = 1.0

    @contextmanager
    def open(self, schema: Any, scope: Scope) -> Generator[ShapedWriter]:
        print(scope.pipeline, scope.output, scope.epoch)
        yield ShapedWriter()


# --- everything fits where it is wanted ------------------------------------------------------------------------------


def powers(signature: Signature) -> None:
    reader: Reader = CountingReader(0)
    acknowledges: Acknowledges = CountingReader(0)
    drains: Drains = CountingReader(0)
    model: Model = ShapedModel(signature)
    stateful: Stateful = ShapedModel(signature)
    side_tables: SideTables = ShapedModel(signature)
    arrays: InfersArrays = ShapedModel(signature)
    writer: Writer = ShapedWriter()
    resumes: Resumes = ShapedWriter()
    joins: Joins = ShapedWriter()
    print(reader, acknowledges, drains, model, stateful, side_tables, arrays, writer, resumes, joins)


def narrowed(reader: Reader, model: Model, writer: Writer) -> None:
    if isinstance(reader, Acknowledges):
        reader.acknowledge(1)
    if isinstance(model, Stateful):
        model.restore(model.snapshot())
    if isinstance(writer, Resumes):
        assert_type(writer.committed(), Progress)


def pipelines(signature: Signature) -> None:
    one = InferencePipeline(Inheriting("p"), InheritingHost(signature), InheritingDestination())
    two = InferencePipeline(
        source=Shaped(),
        host=ShapedHost(signature),
        destination=ShapedDestination(),
        name="all",
        keep=["id"],
        columns={"x": "X"},
        require="exactly-once",
        rejects=InheritingDestination(),
        side={"monitor": ShapedDestination()},
        checkpoint=Checkpoint("p.progress"),
        on_change="restart",
        budget=Budget(count=10, ratio=None),
        batching=Batching(1000),
        workers=Workers(2, "process"),
        timeout=2.5,
        retry=Retry(attempts=3),
        observers=[object()],
    )
    assert_type(one.run(), RunReport)
    assert_type(two.run(until="idle", from_start=True, stop=Stop()), RunReport)
    assert_type(two.explain(), Plan)
    with two as pipeline:
        pipeline.infer([{"x": 1.0}], on_reject="null")


@mlinfer.host(inputs={"x": "float64"}, outputs={"y": "float64"})
def double(records: Any) -> Any:
    return records


def decorated() -> None:
    host: Host = double
    print(host.shared)


class Watcher:
    """An observer."""

    @mlinfer.observer
    def batch_read(self, event: mlinfer.BatchRead) -> None:
        print(event.partition, event.records, event.seconds)
