"""What docs/security.md promises of a server and no other test shows; and that the tests it names are there."""

import ast
import re
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pyarrow as pa
import pytest

from mlinfer import InferencePipeline
from mlinfer._online._grpc_messages import CLASSES
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

ROOT = Path(__file__).parents[1]
HERE = {"grpc_bind": "127.0.0.1:0"}
INFER = "/inference.GRPCInferenceService/ModelInfer"


def pipeline(answer=lambda x: {"y": x}):
    answer.__name__ = "duck"
    host = FunctionHost(answer, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    return InferencePipeline(MemorySource({"x": [0.0]}), host, MemoryDestination())


@pytest.fixture(scope="module")
def server():
    with pipeline().serving(**HERE) as server:
        yield server


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield channel


def code(channel, path, data=b""):
    try:
        channel.unary_unary(path)(data, timeout=30)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def test_nobody_can_load_a_model_over_the_wire(server, channel):
    for call in ("load", "unload"):
        for path in (f"/v2/repository/models/duck/{call}", f"/v2/models/duck/{call}"):
            assert httpx.post(f"{server.url}{path}", json={"parameters": {}}).status_code == 404
        assert (
            code(channel, f"/inference.GRPCInferenceService/RepositoryModel{call.title()}") == "UNIMPLEMENTED"
        )
    for method in ("PUT", "DELETE"):
        found = httpx.request(method, f"{server.url}/v2/models/duck")
        assert (found.status_code, found.headers["Allow"]) == (405, "GET, HEAD")
    assert httpx.post(f"{server.url}/predict", json={"x": 1}).json() == {"y": 1.0}


def test_the_server_does_not_describe_its_calls(channel):
    for version in ("v1", "v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        with pytest.raises(grpc.RpcError) as raised:
            next(channel.stream_stream(path)(iter([b"\x3a\x00"]), timeout=30))  # list the services
        assert raised.value.code().name == "UNIMPLEMENTED"
    assert code(channel, "/inference.GRPCInferenceService/ServerLive") == "OK"


def test_there_are_so_many_calls_at_once_and_no_more(monkeypatch):
    monkeypatch.setattr("mlinfer._online._grpc.MOST_CALLS", 2)
    begun, go = threading.Event(), threading.Event()

    def slow(x):
        begun.set()
        assert go.wait(40)
        return {"y": x}

    request = CLASSES["ModelInferRequest"](model_name="duck")
    request.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(1.0)
    data = request.SerializeToString()
    with (
        pipeline(slow).serving(**HERE) as server,
        ThreadPoolExecutor(2) as pool,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        asked = [pool.submit(code, channel, INFER, data)]
        assert begun.wait(40)  # or both would be one batch, and none would wait
        asked.append(pool.submit(code, channel, INFER, data))
        while server.waiting < 1:
            time.sleep(0.005)
        assert code(channel, INFER, data) == "RESOURCE_EXHAUSTED"
        go.set()
        assert [one.result() for one in asked] == ["OK", "OK"]
        assert code(channel, INFER, data) == "OK"


@pytest.mark.parametrize("path", ["/live", "/v2", "/docs", "/nothing", "/predict"])
def test_answers_do_not_say_what_answers(server, path):
    found = httpx.get(f"{server.url}{path}")
    assert not {"server", "x-powered-by", "via"} & set(found.headers)
    assert not re.search(r"httptools|uvloop|python/|pyarrow|CPython", found.text, re.IGNORECASE)


HOLES = {
    "pyarrow": "14.0.1",  # CVE-2023-47248
    "skops": "0.13",  # CVE-2025-54412, -54413, -54886
    "scikit-learn": "1.5",  # CVE-2024-5206
    "orjson": "3.9.15",  # CVE-2024-27454
    "grpcio": "1.84",  # older ones keep the place of a refused call, until they refuse all
    "protobuf": "6.31.1",  # CVE-2025-4565
}
"""The first version without a hole that matters here."""


def test_no_version_with_a_known_hole_is_let_in():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(one for some in project["optional-dependencies"].values() for one in some),
    ]
    bounds = [re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)", one) for one in wanted]
    for name, first in HOLES.items():
        found = [bound[2] for bound in bounds if bound and bound[1] == name]
        assert found, name
        assert all(_numbers(one) >= _numbers(first) for one in found), name


def _numbers(version):
    return [int(part) for part in version.split(".")]


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "docs/security.md").read_text())
    assert len(named) > 40
    there = {
        (file.name, one.name)
        for file in (ROOT / "tests").glob("test_*.py")
        for one in ast.parse(file.read_text()).body
        if isinstance(one, ast.FunctionDef)
    }
    assert set(named) <= there, sorted(set(named) - there)
