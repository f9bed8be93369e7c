"""What a model says of a record may hold what no file can (half a character): it costs that record alone."""

import pyarrow as pa
import pytest

from mlinfer import InferencePipeline, RecordErrors
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

HALF = "caf\udce9"


def raises(x):
    if (x > 2).any():
        raise ValueError(HALF)
    return x


def names(x):
    bad = (x > 2).nonzero()[0]
    if len(bad):
        raise RecordErrors(bad, f"too_{HALF}", [f"found {HALF}"] * len(bad))
    return x


CASES = {raises: ("model_error", r"ValueError: caf\udce9"), names: (r"too_caf\udce9", r"found caf\udce9")}


@pytest.mark.parametrize("function", CASES)
def test_the_others_are_answered_and_the_record_is_rejected_with_what_can_be_said(function):
    kind, message = CASES[function]
    host = FunctionHost(function, {"x": "double"}, {"y": "double"}, "numpy", version="1")
    answers, rejects = MemoryDestination(), MemoryDestination()
    records = {"x": [1.0, 3.0, 2.0]}
    with InferencePipeline(MemorySource(records), host, answers, rejects=rejects, name="half") as pipeline:
        found = pipeline.infer(records, on_reject="null")
        assert found["y"].to_pylist() == [1.0, None, 2.0]
        assert (found["status"][1].as_py(), found["status_detail"][1].as_py()) == (kind, message)
        pa.ipc.new_stream(pa.BufferOutputStream(), found.schema).write_table(found)
        assert (pipeline.run().delivered, answers.table().num_rows) == (2, 2)
    assert [(row["kind"], row["message"]) for row in rejects.table("rejects").to_pylist()] == [
        (kind, message)
    ]
