"""The trace to which a request says that it belongs is in both logs; what is no such word is passed over."""

import json

import httpx
import numpy as np
import pyarrow as pa
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as some

from mlinfer import InferencePipeline
from mlinfer._online._trace import trace_id
from mlinfer.destinations import JsonLinesDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

ONE, TWO, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
GOOD = f"00-{ONE}-{PARENT}-01"


def pipeline(path):
    def duck(x):
        if (x == 13).any():
            raise ValueError("thirteen")
        return x * 2

    host = FunctionHost(duck, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    return InferencePipeline(
        MemorySource({"x": [1.0, 2.0]}), host, JsonLinesDestination(path), name="p", lineage=["trace_id"]
    )


def logged(path):
    return [(row["y"], row["trace_id"]) for row in map(json.loads, path.read_text().splitlines())]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (GOOD, ONE), (f"00-{ONE}-{PARENT}-00", ONE), (f"00-{ONE}-{PARENT}-ff", ONE), (f"cc-{ONE}-{PARENT}-01", ONE),
        (f"cc-{ONE}-{PARENT}-01-what-the-future-holds", ONE), (f"cc-{ONE}-{PARENT}-01-", ONE),
        (None, None), ("", None), (f"00-{ONE}-{PARENT}-01-more", None), (f"00-{ONE}-{PARENT}-01-", None), (f"ff-{ONE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None), (f"00-{ONE}-{'0' * 16}-01", None), (GOOD.upper(), None), (f"cc-{ONE}-{PARENT}-01.more", None),
        (f"0-{ONE}-{PARENT}-01", None), (f"00-{ONE[:-1]}-{PARENT}-01", None), (f"00-{ONE}-{PARENT}-1", None), (f"00-{ONE}-{PARENT}", None),
        (f"00_{ONE}_{PARENT}_01", None), (f"{GOOD},{GOOD}", None), (f"{GOOD}\n", None), (f"zz-{ONE}-{PARENT}-01", None),
    ],
)  # fmt: skip
def test_the_word_is_read_as_the_specification_has_it(said, found):
    assert trace_id(said) == found


@given(some.text("0123456789abcdef-AFg", max_size=70) | some.text(max_size=60))
def test_nothing_but_32_small_hexadecimal_digits_comes_out(said):
    found = trace_id(said)
    assert found is None or (len(found) == 32 and int(found, 16) and found == found.lower() and found in said)


def test_it_is_in_the_access_log_and_the_prediction_log_of_both_protocols(tmp_path, caplog):
    caplog.set_level("INFO", "mlinfer.access")
    with (
        pipeline(tmp_path / "log.jsonl").serving(access_log=True, grpc_bind="127.0.0.1:0") as server,
        httpx.Client(base_url=server.url) as client,
        triton.InferenceServerClient(server.grpc_address) as caller,
    ):

        def ask(x, **headers):
            return client.post("/predict", json=x, headers=headers).json()

        assert ask([{"x": 1}, {"x": 2}], traceparent=GOOD, tracestate="a=b")[1] == {"y": 4.0, "trace_id": ONE}
        assert ask({"x": 3}, traceparent=GOOD.replace(ONE, TWO)) == {"y": 6.0, "trace_id": TWO}
        assert ask({"x": 4}, traceparent="00-secret") == {"y": 8.0, "trace_id": None}
        ask({"x": 5})
        assert (
            client.post("/predict", json={"x": 6}, headers=[("traceparent", GOOD)] * 2).json()["trace_id"]
            is None
        )
        tensor = triton.InferInput("x", [1], "FP64")
        tensor.set_data_from_numpy(np.array([7.0]))
        caller.infer("duck", [tensor], headers={"traceparent": GOOD})
    lines = [one.getMessage() for one in caplog.records if one.name == "mlinfer.access"]
    ends = [f" trace={ONE}", f" trace={TWO}", "", "", "", f" trace={ONE}"]
    assert [line.partition(" trace=")[1] + line.partition(" trace=")[2] for line in lines] == ends
    assert "secret" not in caplog.text
    wanted = [(2.0, ONE), (4.0, ONE), (6.0, TWO), (8.0, None), (10.0, None), (12.0, None), (14.0, ONE)]
    assert logged(tmp_path / "log.jsonl") == wanted


def test_requests_that_share_a_batch_keep_each_its_trace_also_beside_a_bad_one(tmp_path):
    """Put on the desk together, on its own loop: they meet in one batch, of which one request is refused."""
    from concurrent.futures import ThreadPoolExecutor

    with pipeline(tmp_path / "log.jsonl").serving() as server, ThreadPoolExecutor(8) as pool:

        def ask(n):
            name = f"{n + 1:032x}"
            body = [{"x": n}, {"x": n + 0.5}] if n != 13 else [{"x": 12.5}, {"x": 13}]
            reply = httpx.post(
                f"{server.url}/predict", json=body, headers={"traceparent": f"00-{name}-{PARENT}-01"}
            )
            return n, reply.status_code, reply.json(), name

        for n, status, found, name in pool.map(ask, range(40)):
            assert status == (422 if n == 13 else 200)
            assert n == 13 or found == [
                {"y": 2.0 * n, "trace_id": name},
                {"y": 2.0 * n + 1, "trace_id": name},
            ]
    assert sorted(logged(tmp_path / "log.jsonl")) == sorted(
        (2.0 * n + m, f"{n + 1:032x}") for n in range(40) if n != 13 for m in (0, 1)
    )


def test_a_run_has_no_trace(tmp_path):
    pipeline(tmp_path / "log.jsonl").run()
    assert logged(tmp_path / "log.jsonl") == [(2.0, None), (4.0, None)]
