"""A part that hands over something else than its protocol says is named: nothing is promised on top of it."""

import sqlite3
import sys
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    ComponentError,
    DataDestination,
    DataSource,
    EndOfInput,
    Host,
    InferencePipeline,
    RecordIds,
    Signature,
)
from mlinfer.destinations import MemoryDestination, SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import Mapped, MemorySource

RECORDS = pa.record_batch({"x": [1.0, 2.0]})
FIELDS = RECORDS.schema
HOST = FunctionHost(lambda x: x, {"x": "double"}, {"y": "double"}, "numpy", version="1")


@dataclass(frozen=True, eq=False)
class Source(DataSource):
    """Gives what it is told to give."""

    read: Any = None
    names: Any = ("p",)
    known: Any = FIELDS
    resume: Any = "seek"
    opened: Any = None

    def schema(self):
        return self.known

    def partitions(self):
        return self.names

    def open(self, partition, after, wanted):
        if self.opened is not None:
            return self.opened
        given = [Batch(RECORDS, "p", 1) if self.read is None else self.read]

        @contextmanager
        def reader():
            yield SimpleNamespace(read=lambda *_: given.pop() if given else end())

        return reader()


def end():
    raise EndOfInput


def run(source=None, host=HOST, destination=None):
    source, destination = source or MemorySource({"x": [1.0]}), destination or MemoryDestination()
    return InferencePipeline(source, host, destination, name="p").run()


def test_a_source_that_keeps_its_promises_runs():
    assert run(Source()).delivered == 2
    assert run(Source(Batch(RECORDS, "p", {"at": [1, None, (2.5, "x")]}))).delivered == 2
    assert run(Source(Batch(RECORDS, "p", None), resume="none")).delivered == 2
    assert run(Source(names=[])).delivered == 0
    assert run(Source(names=iter(()))).delivered == 0


READS_AMISS = [
    (Source(RECORDS), r"read\(\) to give a Batch of a pyarrow.RecordBatch, or None, found RecordBatch"),
    (Source({"x": [1.0]}), r"read\(\) to give a Batch of a pyarrow.RecordBatch, or None, found dict"),
    (Source(Batch(pa.table({"x": [1.0]}), "p", 1)), r"read\(\) to give .*, found a Batch of Table"),
    (Source(Batch(RECORDS, "q", 1)), "a batch of the partition 'p', found one of 'q'"),
    (Source(Batch(RECORDS, "p", None)), "the position behind each batch, as resume='seek' says, found N"),
    (
        Source(Batch(RECORDS, "p", 1, pa.array(["a", "b"]))),
        "RecordIds for the ids of a batch, found StringArray",
    ),
    (
        Source(Batch(RECORDS, "p", 1, RecordIds.ordinals("p", 0, 3))),
        "an id for each of the 2 records .* found 3 ids",
    ),
    (
        Source(Batch(RECORDS, "p", 1, RecordIds.of(pa.array(["a"])))),
        "an id for each of the 2 records .* found 1 ids",
    ),
]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        *READS_AMISS,
        (Source(names=["p", "q", "p"]), "each partition to be listed once, found p again"),
        (Source(names="p"), r"partitions\(\) to give a list of names, found 'p'"),
        (Source(names=None), r"partitions\(\) to give a list of names, found None"),
        (Source(names=[1]), r"partitions\(\) to give a list of names, found \[1\]"),
        (Source(known={"x": "double"}), r"schema\(\) to give a pyarrow.Schema or None, found dict"),
        (Source(resume="seeks"), "resume to be 'seek', 'acknowledge' or 'none', found 'seeks'"),
        (Source(resume=["seek"]), r"resume to be 'seek', 'acknowledge' or 'none', found \['seek'\]"),
        (Source(opened=[]), r"open\(\) to give a context manager .*, found list"),
    ],
)
def test_a_source_that_breaks_one_is_named(source, said):
    with pytest.raises(ComponentError, match=rf"Source: wanted {said}"):
        run(source)


@pytest.mark.parametrize("ids", [RecordIds.ordinals("p", 0, 3), RecordIds(lambda: pa.array(["a"]))])
def test_a_source_within_another_is_named_too_for_it_is_not_the_outer_one_that_must_be_mended(ids):
    wrapped = Mapped(Source(Batch(RECORDS, "p", 1, ids)), lambda records: records)
    pipeline = InferencePipeline(wrapped, HOST, MemoryDestination(), name="p", lineage=["record_id"])
    with pytest.raises(
        ComponentError, match=r"^Mapped around Source: wanted an id for each of the 2 records"
    ):
        pipeline.run()


@pytest.mark.parametrize(("source", "said"), READS_AMISS)
def test_a_preview_names_it_too_also_where_it_shows_fewer_records_than_were_read(source, said):
    with (
        InferencePipeline(source, HOST, MemoryDestination(), name="p") as pipeline,
        pytest.raises(ComponentError, match=rf"Source: wanted {said}"),
    ):
        pipeline.preview(1)


def test_too_few_ids_are_the_sources_fault_also_where_they_are_made_late(tmp_path):
    ids = RecordIds(lambda: pa.array(["a"]))
    keyed = SqlDestination(f"sqlite:///{tmp_path}/a.db", "t", key="record_id")
    pipeline = InferencePipeline(
        Source(Batch(RECORDS, "p", 1, ids)), HOST, keyed, name="p", lineage=["record_id"]
    )
    with pytest.raises(
        ComponentError, match=r"Source: wanted an id for each of the 2 records .* found 1 ids"
    ):
        pipeline.run()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(0,)]


@pytest.mark.parametrize("position", [{1: 2}, {"at": {1, 2}}, b"1", [np.int64(3)], object()])
def test_a_position_that_no_store_gives_back_as_it_is_is_refused(position, tmp_path):
    for destination in (MemoryDestination(), SqlDestination(f"sqlite:///{tmp_path}/a.db", "t")):
        with pytest.raises(
            ComponentError, match=r"partition 'p': wanted a position of JSON .*; correct the s"
        ):
            run(Source(Batch(RECORDS, "p", position)), destination=destination)


def test_a_part_that_calls_sys_exit_ends_the_run_and_not_the_program():
    def leave(*_):
        sys.exit(0)  # "done", where not all is delivered

    reading = Source(opened=nullcontext(SimpleNamespace(read=leave)))
    writing = Place(opened=nullcontext(SimpleNamespace(write=leave, commit=leave)))
    for parts in ({"source": reading}, {"destination": writing}):
        with pytest.raises(ComponentError, match=r"a part called sys.exit\(0\); let it raise") as found:
            run(**parts)
        assert isinstance(found.value.__cause__, SystemExit)


@dataclass(frozen=True, eq=False)
class Model(Host):
    opened: Any = None
    signature: Any = None

    def open(self):
        @contextmanager
        def model():
            yield SimpleNamespace(infer=lambda records: records, signature=self.signature)

        return model() if self.opened is None else self.opened


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (Model(), r"a model with a signature \(a Signature\), found NoneType"),
        (Model(signature={"x": "double"}), r"a model with a signature \(a Signature\), found dict"),
        (Model(opened=3), r"open\(\) to give a context manager .*, found int"),
    ],
)
def test_a_host_that_breaks_one_is_named(host, said):
    with pytest.raises(ComponentError, match=f"Model: wanted {said}"):
        run(host=host)


def test_a_model_matched_by_structure_needs_no_more_than_its_signature():
    assert run(host=Model(signature=Signature(FIELDS, FIELDS, "m", "1", "d"))).delivered == 1


@dataclass(frozen=True, eq=False)
class Place(DataDestination):
    transactional: bool = False
    opened: Any = None

    def open(self, schema, scope):
        @contextmanager
        def writer():
            yield SimpleNamespace(write=lambda _: None, commit=lambda _: None)

        return writer() if self.opened is None else self.opened


def test_a_destination_that_says_transactional_and_cannot_tell_its_progress_is_named():
    assert run(destination=Place()).delivered == 1
    said = r"Place: wanted a writer that tells its progress by committed\(\), as transactional=True says"
    with pytest.raises(ComponentError, match=said):  # each run would deliver everything again, exactly once
        run(destination=Place(transactional=True))
    with pytest.raises(ComponentError, match=r"destination Place: wanted open\(\) to give a context manager"):
        run(destination=Place(opened=()))
