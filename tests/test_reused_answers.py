"""A model may give its answers in one array again and again: what it has answered before stays as it was."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import numpy as np
import pyarrow as pa
import pytest

from mlinfer import Batching, InferencePipeline
from mlinfer.destinations import MemoryDestination, SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource, MemorySource

X = np.arange(1000.0)


def nothing():
    """A source that nobody reads."""
    yield from ()


def doubling(inputs="numpy", dtype=float, given=lambda answers: answers):
    """A function that has one array for all its answers."""
    its = np.zeros(len(X), dtype)

    def double(x):
        answers = its[: len(x)]
        answers[:] = 2 * (x if isinstance(x, np.ndarray) else x["x"].to_numpy())
        return given(answers)

    kind = pa.float64() if dtype is float else pa.int64()
    return FunctionHost(double, {"x": pa.float64()}, {"y": kind}, takes=inputs, version="1")


def encoded(answers):
    """A dictionary, both of whose parts look into the memory of an array."""
    places = pa.array(np.arange(len(answers), dtype=np.int32))
    return pa.DictionaryArray.from_arrays(places, pa.array(answers))


ARROW = [
    pa.array,
    lambda answers: {"y": pa.array(answers)},
    lambda answers: pa.record_batch({"y": pa.array(answers)}),
    lambda answers: pa.table({"y": pa.array(answers)}),
    encoded,
    lambda answers: pa.record_batch({"y": encoded(answers)}),
    lambda answers: pa.chunked_array([pa.array(answers)]),
    memoryview,
]
"""All of them look into the memory of the array."""


@pytest.mark.parametrize(
    "host",
    [doubling(inputs, dtype) for inputs in ("numpy", "pandas") for dtype in (float, object)]
    + [doubling("arrow", given=given) for given in ARROW]
    + [doubling("numpy", given=given) for given in (*ARROW[:2], encoded, *ARROW[-2:])],
)
def test_every_record_is_delivered_with_its_own_answer(tmp_path, host):
    destination = SqlDestination(f"sqlite:///{tmp_path}/s.db", table="t")
    InferencePipeline(
        MemorySource({"x": X}),
        host,
        destination,
        name="p",
        keep=["x"],
        batching=Batching(max_records=10),
    ).run()
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        assert database.execute("SELECT x, y FROM t ORDER BY x").fetchall() == [(x, 2 * x) for x in X]


@pytest.mark.parametrize("inputs", ["numpy", "pandas"])
def test_answers_in_hand_stay_as_they_are(inputs):
    with InferencePipeline(IterableSource(nothing), doubling(inputs), MemoryDestination()) as pipeline:
        for shape in ({"x": [1.0, 2.0]}, np.array([1.0, 2.0])):
            first = pipeline.infer(shape)
            pipeline.infer({"x": [7.0, 8.0]})
            assert first["y"].to_pylist() == [2, 4]


def test_answers_are_none_of_the_callers_memory():
    mine = np.array([1.0, 2.0])
    same = FunctionHost(lambda x: x, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    with InferencePipeline(IterableSource(nothing), same, MemoryDestination()) as pipeline:
        pipeline.infer(mine)
        answers = pipeline.infer(mine)
        mine[:] = 0
        assert answers["y"].to_pylist() == [1, 2]


@pytest.mark.parametrize("log", ["behind", "before_reply"])
def test_callers_and_the_log_are_told_the_same(log):
    destination = MemoryDestination()
    pipeline = InferencePipeline(IterableSource(nothing), doubling(), destination)

    def told(number):
        tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [number]}
        found = httpx.post(f"{server.url}/v2/models/double/infer", json={"inputs": [tensor]}).json()
        return found["outputs"][0]["data"], httpx.post(f"{server.url}/predict", json={"x": number}).json()

    with pipeline.serving(log=log) as server, ThreadPoolExecutor(4) as threads:
        for number, answers in enumerate(threads.map(told, range(50))):
            assert answers == ([2 * number], {"y": 2 * number})
    assert sorted(destination.table()["y"].to_pylist()) == sorted([2 * number for number in range(50)] * 2)
