"""Clients that others wrote, used as they are, get what `pipeline.infer` gives. More: test_oip.py and test_grpc.py (tritonclient)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.errors import BadRequestError
from open_inference.openapi.types import InferenceRequest, RequestInput, RequestOutput, TensorData
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression

from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource

X, Y = load_iris(return_X_y=True)
MODEL = "LinearRegression"
KSERVE = Path(sys.prefix, "kserve")  # `make venv` lays it there


@pytest.fixture(scope="module")
def pipeline():
    return InferencePipeline(
        MemorySource(X),
        SklearnHost(LinearRegression().fit(X, Y), example=X),
        MemoryDestination(),
        name="iris",
    )


@pytest.fixture(scope="module")
def server(pipeline):
    with pipeline.serving(grpc_bind="127.0.0.1:0") as server:
        yield server


@pytest.fixture
def rest(server):
    with httpx.Client() as client:
        yield OpenInferenceClient(base_url=server.url, httpx_client=client)


def expected(pipeline):
    return pipeline.infer(X)["y_pred"].to_pylist()


def asking(values, shape):
    tensor = RequestInput(name="x", shape=shape, datatype="FP64", data=TensorData.parse_obj(values))
    return InferenceRequest(id="7", inputs=[tensor], outputs=[RequestOutput(name="y_pred")])


def test_the_protocols_own_rest_client_gets_what_infer_gives(pipeline, rest):
    rest.check_server_liveness()
    rest.check_server_readiness()
    rest.check_model_readiness(MODEL)
    assert rest.read_server_metadata().name == "mlinfer"
    about = rest.read_model_metadata(MODEL)
    assert [(one.name, one.datatype, one.shape) for one in about.inputs] == [("x", "FP64", [-1, 4])]
    for values in (X.ravel().tolist(), X.tolist()):  # flat and nested
        answer = rest.model_infer(MODEL, request=asking(values, [150, 4]))
        assert (answer.id, answer.model_name, answer.outputs[0].name) == ("7", MODEL, "y_pred")
        assert answer.outputs[0].data.dict()["__root__"] == expected(pipeline)


def test_its_errors_are_ours(rest):
    with pytest.raises(ApiError) as missing:
        rest.model_infer("goose", request=asking([1.0], [1]))
    assert missing.value.status_code == 404
    with pytest.raises(BadRequestError) as raised:
        rest.model_infer(MODEL, request=asking([1.0], [1, 4]))
    assert raised.value.body["error"] == "input 'x': wanted 4 elements for its shape, found 1"


KSERVE_CLIENT = """
import asyncio, json, sys, types
import numpy as np

package = types.ModuleType("kserve")  # its own imports its server, too, and Kubernetes
package.__path__ = [sys.argv[1] + "/kserve"]
sys.modules["kserve"] = package
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import InferInput, InferRequest

MODEL = "LinearRegression"

async def main(url, address, rows):
    x, found = np.array(rows), {}

    def asking(binary):
        tensor = InferInput("x", list(x.shape), "FP64")
        tensor.set_data_from_numpy(x, binary_data=binary)
        return InferRequest(MODEL, [tensor], request_id="7")

    async with InferenceRESTClient(RESTConfig(protocol="v2")) as rest:
        found["rest alive"] = [await rest.is_server_live(url), await rest.is_server_ready(url), await rest.is_model_ready(url, MODEL)]
        for name, binary in (("rest json", False), ("rest binary", True)):
            answer = await rest.infer(url, asking(binary), model_name=MODEL)
            found[name] = answer.outputs[0].as_numpy().tolist()
    async with InferenceGRPCClient(address) as grpc:
        found["grpc alive"] = [await grpc.is_server_live(), await grpc.is_server_ready(), await grpc.is_model_ready(MODEL)]
        for name, binary in (("grpc typed", False), ("grpc raw", True)):
            answer = await grpc.infer(asking(binary))
            found[name] = answer.outputs[0].as_numpy().tolist()
    print(json.dumps(found))

asyncio.run(main(sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
"""


@pytest.mark.skipif(not KSERVE.is_dir(), reason=f"kserve's clients do not lie in {KSERVE}: make venv")
def test_the_clients_of_kserve_get_what_infer_gives(pipeline, server):
    paths = os.pathsep.join([str(KSERVE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", KSERVE_CLIENT, str(KSERVE), server.url, server.grpc_address, json.dumps(X.tolist())],
        capture_output=True, text=True, check=False, timeout=50, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("rest alive") == found.pop("grpc alive") == [True, True, True]
    assert sorted(found) == ["grpc raw", "grpc typed", "rest binary", "rest json"]
    for way, answers in found.items():
        np.testing.assert_array_equal(answers, expected(pipeline), err_msg=way)
