"""What a server can neither take nor say is refused when it starts, and what it can is answered by every way in."""

import httpx
import pyarrow as pa
import pytest

from mlinfer import ConfigError, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

UNSAID = {
    pa.list_view(pa.float64()): r"take list<item: double> in place of list_view<item: double>",
    pa.large_list_view(pa.float64()): r"take list<item: double> in place of large_list_view",
    pa.month_day_nano_interval(): r"take a duration, or .* in place of month_day_nano_interval",
    pa.run_end_encoded(pa.int32(), pa.float64()): r"take double in place of run_end_encoded",
    pa.dense_union([pa.field("a", pa.int64())]): r"take a struct .* in place of dense_union",
    pa.struct([pa.field("a", pa.list_(pa.list_view(pa.int64())))]): r"take list<item: int64> in place of",
}
SAID = [pa.list_(pa.float64()), pa.string_view(), pa.map_(pa.string(), pa.int64()), pa.duration("s"),
        pa.dictionary(pa.int32(), pa.string()), pa.uuid(), pa.struct([])]  # fmt: skip


def never(records):
    raise AssertionError


def serving(inputs, outputs, **more):
    host = FunctionHost(never, inputs, outputs, version="1")
    return InferencePipeline(MemorySource({"x": [1.0]}), host, MemoryDestination(), **more).serving()


@pytest.mark.parametrize(("kind", "told"), UNSAID.items(), ids=str)
@pytest.mark.parametrize("role", ["inputs", "answers", "kept"])
def test_a_type_that_no_client_can_say_or_read_is_refused_before_the_server_listens(kind, told, role):
    inputs, outputs = {"x": kind if role == "inputs" else pa.float64()}, {"y": pa.float64()}
    keep = {"z": kind} if role == "kept" else ()
    name = {"inputs": "x", "answers": "y", "kept": "z"}[role]
    if role == "answers":
        outputs = {"y": kind}
    with pytest.raises(ConfigError, match=f"that JSON and tensors can say, found '{name}' .*{told}"):
        serving(inputs, outputs, keep=keep).__enter__()


@pytest.mark.parametrize("kind", SAID, ids=str)
def test_all_others_are_served(kind):
    with serving({"x": pa.float64()}, {"y": kind}) as server:
        assert httpx.get(f"{server.url}/openapi.json").status_code == 200
