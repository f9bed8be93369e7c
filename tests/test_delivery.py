"""Lanes that share a writer: what one of them leaves half done, no other makes durable."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from mlinfer import Batch, ComponentError, RecordIds, Scope
from mlinfer._clock import SystemClock
from mlinfer._engine import Answers, Budget, Delivery, Running, Spending, Tally
from mlinfer._engine._outputs import Output
from mlinfer._events import manager
from mlinfer._rejects import Rejected
from mlinfer.destinations import MemoryDestination


class Full:
    def write(self, batch):
        raise ComponentError("the disk for rejects is full")

    def commit(self, progress):
        """There is nothing to store."""


def test_records_whose_rejects_could_not_be_written_are_not_committed_by_another_lane():
    place = MemoryDestination()
    running = Running(
        model="m", run="r", fingerprint="f", clock=SystemClock(), tally=Tally(manager(())),
        spending=Spending(Budget(ratio=1.0), rejects_kept=True), durable=lambda _: None,
    )  # fmt: skip
    records = pa.record_batch({"y": [1.0, 2.0]})
    bad = Rejected("a", "infer", RecordIds.ordinals("a", 2, 1), ["odd"], ["odd"], records.slice(0, 1))
    with place.open(records.schema, Scope("p")) as writer:
        outputs = SimpleNamespace(rejects=Output(Full()), sides={}, checkpoint=None)
        delivery = Delivery(Output(writer), outputs, running)
        delivery.deliver(Answers(Batch(records, "b", 2, RecordIds.ordinals("b", 0, 2))))
        with pytest.raises(ComponentError, match="is full"):
            delivery.deliver(Answers(Batch(records, "a", 3, RecordIds.ordinals("a", 0, 2)), (bad,)))
        for lane in (delivery.commit, delivery.commit_if_due):
            with pytest.raises(ComponentError, match="is full"):
                lane()
    assert place.table().num_rows == 0, (
        "the records of `a` are stored without their position: the next run repeats them"
    )
