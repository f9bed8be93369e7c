"""Models that multiply beside each other share the cores: products of matrices do not take all of them for each model."""

import os
import threading
import time

import httpx
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mlinfer import InferencePipeline, Workers
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

RECORDS = pa.table({"x": [1.0, 2.0, 3.0]})
SHARE = max(1, (os.cpu_count() or 1) // 2)


def blas_threads():
    """What the libraries themselves say; scikit-learn's and numpy's are not the same one everywhere."""
    return max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


def threads_seen(records):
    """The number of threads a product would take, as the answer for each record."""
    return pa.array([blas_threads()] * len(records), pa.int64())


def run(workers, function=threads_seen):
    destination = MemoryDestination()
    host = FunctionHost(function, inputs={"x": "float64"}, outputs={"threads": "int64"})
    InferencePipeline(MemorySource(RECORDS), host, destination, workers=workers, name=function.__name__).run()
    return destination.table().column("threads").to_pylist()


@pytest.fixture(autouse=True)
def all_cores(monkeypatch):
    """Each test begins with a library that would use all cores, two at least, here and in the processes it starts."""
    for name in [name for name in os.environ if name.endswith("_NUM_THREADS")]:
        monkeypatch.delenv(name)
    with threadpool_limits(max(2, os.cpu_count() or 1), user_api="blas"):
        assert blas_threads() > SHARE
        yield


@pytest.mark.parametrize("workers", [2, Workers(2, "process")], ids=["threads", "processes"])
def test_two_models_have_half_of_the_cores_each(workers):
    before = blas_threads()
    assert set(run(workers)) == {SHARE}
    assert blas_threads() == before


def test_two_worker_processes_of_a_server_have_half_of_the_cores_each():
    host = FunctionHost(threads_seen, inputs={"x": "float64"}, outputs={"threads": "int64"})
    pipeline = InferencePipeline(MemorySource(RECORDS), host, MemoryDestination(), name="server")
    with pipeline.serving(workers=2) as server:
        latest = time.monotonic() + 60
        seen = set()
        while seen != {SHARE}:  # a worker shares the cores as soon as it answers, not before
            assert time.monotonic() < latest, seen
            answers = [httpx.post(f"{server.url}/predict", json=[{"x": 1.0}]).json() for _ in range(8)]
            seen = {record["threads"] for answer in answers for record in answer}


def test_one_model_may_use_all_cores():
    assert set(run(1)) == {blas_threads()}


def test_of_two_runs_beside_each_other_none_leaves_its_limit_behind():
    before, both, first_ended = blas_threads(), threading.Barrier(2, timeout=60), threading.Event()

    def quick(records):
        both.wait()
        return threads_seen(records)

    def slow(records):
        both.wait()
        assert first_ended.wait(60)
        return threads_seen(records)

    other = threading.Thread(target=run, args=(2, slow))
    other.start()
    assert set(run(2, quick)) == {SHARE}
    first_ended.set()
    other.join()
    assert blas_threads() == before
