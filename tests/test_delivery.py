"""Lanes that share a writer: what one of them leaves half done, no other makes durable."""

import os
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pyarrow as pa
import pytest

import mlinfer
from mlinfer import (
    Batch,
    Checkpoint,
    ComponentError,
    DataDestination,
    InferencePipeline,
    RecordIds,
    Scope,
    TransientError,
)
from mlinfer._clock import SystemClock
from mlinfer._engine import Answers, Budget, Delivery, Running, Spending, Tally
from mlinfer._engine._outputs import Output
from mlinfer._events import manager
from mlinfer._rejects import Rejected
from mlinfer.destinations import CsvDestination, JsonLinesDestination, MemoryDestination, ParquetDestination
from mlinfer.sources import MemorySource


class Full:
    def write(self, batch):
        raise ComponentError("the disk for rejects is full")

    def commit(self, progress):
        """There is nothing to store."""


class Forgetful:
    """What it holds is lost when a commit fails, as what has been flushed into a file that is then abandoned."""

    def __init__(self):
        self.held, self.stored, self.failed = [], [], False

    def write(self, batch):
        self.held.append(batch)

    def commit(self, progress):
        held, self.held = self.held, []
        if not self.failed:
            self.failed = True
            raise TransientError("gone for a moment")
        self.stored += held


RECORDS = pa.record_batch({"y": [1.0, 2.0]})


def running():
    return Running(
        model="m", run="r", fingerprint="f", clock=SystemClock(), tally=Tally(manager(())),
        spending=Spending(Budget(ratio=1.0), rejects_kept=True), durable=lambda _: None,
    )  # fmt: skip


def answers(partition, *, bad):
    ids = RecordIds.ordinals(partition, 2, 1)
    rejects = (Rejected(partition, "infer", ids, ["odd"], ["odd"], RECORDS.slice(0, 1)),) if bad else ()
    return Answers(Batch(RECORDS, partition, 2 + bad, RecordIds.ordinals(partition, 0, 2)), rejects)


def test_records_whose_rejects_could_not_be_written_are_not_committed_by_another_lane():
    place = MemoryDestination()
    with place.open(RECORDS.schema, Scope("p")) as writer:
        outputs = SimpleNamespace(rejects=Output(Full()), sides={}, checkpoint=None)
        delivery = Delivery(Output(writer), outputs, running())
        delivery.deliver(answers("b", bad=False))
        with pytest.raises(ComponentError, match="is full"):
            delivery.deliver(answers("a", bad=True))
        for lane in (delivery.commit, delivery.commit_if_due):
            with pytest.raises(ComponentError, match="is full"):
                lane()
    assert place.table().num_rows == 0, (
        "the records of `a` are stored without their position: the next run repeats them"
    )


def test_rejects_that_are_lost_with_the_commit_of_one_lane_are_not_passed_by_another():
    places = [MemoryDestination(), MemoryDestination()]
    forgetful = Forgetful()
    outputs = SimpleNamespace(rejects=Output(forgetful), sides={}, checkpoint=None)
    with (
        places[0].open(RECORDS.schema, Scope("p")) as one,
        places[1].open(RECORDS.schema, Scope("p")) as other,
    ):
        lanes = [Delivery(Output(writer), outputs, running()) for writer in (one, other)]
        for lane, partition in zip(lanes, "ab", strict=True):
            lane.deliver(answers(partition, bad=True))
        for lane in lanes:
            with pytest.raises(TransientError, match="gone for a moment"):
                lane.commit()
    assert forgetful.stored == []
    assert [place.table().num_rows for place in places] == [0, 0], "a position passed rejects that nobody has"


PLACES = {
    "JSON lines": lambda: {"destination": JsonLinesDestination("out.jsonl")},
    "CSV": lambda: {"destination": CsvDestination("out.csv")},
    "Parquet": lambda: {"destination": ParquetDestination("out")},
    "checkpoint": lambda: {"destination": Nowhere(), "checkpoint": Checkpoint("out.progress")},
}


@dataclass(frozen=True)
class Nowhere(DataDestination):
    @contextmanager
    def open(self, schema, scope):
        yield SimpleNamespace(write=lambda batch: None, commit=lambda progress: None)


@pytest.mark.parametrize("place", PLACES)
def test_a_model_that_changes_the_folder_of_the_process_does_not_move_the_progress(
    place, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    @mlinfer.host(inputs={"x": "double"}, outputs={"y": "double"}, takes="numpy", version="1")
    def moving(x):
        os.chdir(tmp_path / "elsewhere")
        return x

    pipeline = InferencePipeline(MemorySource({"x": [1.0, 2.0]}), moving, name="p", **PLACES[place]())
    assert pipeline.run().delivered == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []
    os.chdir(tmp_path)
    assert pipeline.run().delivered == 0, "the progress of the first run is where that run began"
