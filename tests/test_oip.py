"""The Open Inference Protocol over HTTP, asked by a client that others wrote."""

import json

import httpx
import numpy as np
import pyarrow as pa
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as some

from mlinfer import InferencePipeline
from mlinfer._online._tensors import DTYPES
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource

SCALARS = {datatype: pa.from_numpy_dtype(dtype) for datatype, dtype in DTYPES.items()} | {
    "BYTES": pa.string()
}
MATRIX = pa.list_(pa.field("item", pa.float32(), nullable=False), 3)


def nothing():
    """A source that nobody reads."""
    yield from ()


def made(function, inputs, outputs, **more):
    function.__name__ = "duck"  # what the model is called
    host = FunctionHost(function, pa.schema(inputs), pa.schema(outputs), takes="numpy", version="3")
    return InferencePipeline(IterableSource(nothing), host, MemoryDestination(), **more)


def required(name, kind):
    return pa.field(name, kind, nullable=False)


@pytest.fixture(scope="module")
def server():
    """One model with a scalar, a text, a tensor, and answers of each."""

    def duck(x, who, m):
        return {"y": x + 1, "whose": who, "both": np.stack([m.sum(1), m.max(1)], 1).astype("f4")}

    inputs = [required("x", pa.float64()), pa.field("who", pa.string()), required("m", MATRIX)]
    outputs = [
        pa.field("y", pa.float64()),
        pa.field("whose", pa.string()),
        pa.field("both", pa.list_(pa.float32(), 2)),
    ]
    with made(duck, inputs, outputs).serving() as server:
        yield server


@pytest.fixture
def client(server):
    return triton.InferenceServerClient(server.url.removeprefix("http://"))


@pytest.fixture
def plain(server):
    with httpx.Client(base_url=server.url) as client:
        yield client


def tensor(name, values, datatype, *, binary):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def three(binary):
    return [
        tensor("x", np.array([1.0, 2.0]), "FP64", binary=binary),
        tensor("who", np.array(["ä", "b"], object), "BYTES", binary=binary),
        tensor("m", np.arange(6, dtype="f4").reshape(2, 3), "FP32", binary=binary),
    ]


def test_a_foreign_client_finds_the_server_and_the_model(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("duck")
    assert client.is_model_ready("duck", "3")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    found = client.get_model_metadata("duck", "3")
    assert (found["name"], found["versions"]) == ("duck", ["3"])
    assert [(one["name"], one["datatype"], one["shape"]) for one in found["inputs"]] == [
        ("x", "FP64", [-1]),
        ("who", "BYTES", [-1]),
        ("m", "FP32", [-1, 3]),
    ]
    assert [(one["name"], one["datatype"], one["shape"]) for one in found["outputs"]] == [
        ("y", "FP64", [-1]),
        ("whose", "BYTES", [-1]),
        ("both", "FP32", [-1, 2]),
    ]


@pytest.mark.parametrize("into", [False, True], ids=["JSON in", "binary in"])
@pytest.mark.parametrize("out", [False, True], ids=["JSON out", "binary out"])
def test_tensors_go_and_come_in_json_and_in_binary(client, into, out):
    asked = [triton.InferRequestedOutput(name, binary_data=out) for name in ("both", "whose")]
    found = client.infer("duck", three(into), request_id="7", outputs=asked)
    assert found.get_response()["id"] == "7"
    assert found.get_response()["model_version"] == "3"
    np.testing.assert_array_equal(found.as_numpy("both"), np.array([[3, 2], [12, 5]], "f4"))
    texts = [one.decode() if isinstance(one, bytes) else one for one in found.as_numpy("whose")]
    assert texts == ["ä", "b"]
    assert found.as_numpy("y") is None, "an output that nobody asked for"
    np.testing.assert_array_equal(client.infer("duck", three(into)).as_numpy("y"), [2.0, 3.0])


def values_of(datatype):
    if datatype == "BYTES":
        return np.array(["", "naïve", "0"], object)
    dtype = DTYPES[datatype]
    if dtype.kind == "b":
        return np.array([True, False, True])
    if dtype.kind == "f":
        return np.array([0.5, -2.0, 1024.0], dtype)
    return np.array([0, np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)


@pytest.mark.parametrize("datatype", SCALARS)
def test_every_datatype_comes_back_as_it_went(datatype):
    kind, values = SCALARS[datatype], values_of(datatype)
    echo = made(lambda a: a, [required("a", kind)], [pa.field("b", kind)])
    with echo.serving() as server:
        client = triton.InferenceServerClient(server.url.removeprefix("http://"))
        for into in (True, datatype == "FP16"):  # the client cannot say FP16 in JSON
            for out in (True, False):
                asked = [triton.InferRequestedOutput("b", binary_data=out)]
                found = client.infer("duck", [tensor("a", values, datatype, binary=into)], outputs=asked)
                back = found.as_numpy("b")
                if datatype == "BYTES":
                    back = [one.decode() if isinstance(one, bytes) else one for one in back]
                np.testing.assert_array_equal(back, values)
                assert found.get_output("b")["datatype"] == datatype


def test_one_matrix_stands_for_many_scalars_in_the_order_of_the_signature():
    names = ["a", "b", "c"]
    sum_up = made(
        lambda a, b, c: 100 * a + 10 * b + c,
        [required(n, pa.float64()) for n in names],
        [pa.field("y", pa.float64())],
    )
    body = {
        "inputs": [{"name": "input-0", "shape": [2, 3], "datatype": "FP32", "data": [[1, 2, 3], [4, 5, 6]]}]
    }
    with sum_up.serving() as server:
        found = httpx.post(f"{server.url}/v2/models/duck/infer", json=body).json()
        body["inputs"] = [{"name": n, "shape": [1], "datatype": "INT64", "data": [7]} for n in names]
        apart = httpx.post(f"{server.url}/v2/models/duck/infer", json=body).json()
    assert found["outputs"] == [{"name": "y", "shape": [2], "datatype": "FP64", "data": [123.0, 456.0]}]
    assert apart["outputs"][0]["data"] == [777.0]


def test_a_model_of_more_inputs_than_tensors_may_come_is_asked_as_the_refusal_says():
    names = [f"x{number}" for number in range(300)]
    fields = [required(name, pa.float64()) for name in names]
    wide = made(lambda **columns: sum(columns.values()), fields, [pa.field("y", pa.float64())])
    with wide.serving() as server, httpx.Client(base_url=server.url) as client:
        each = [{"name": name, "shape": [1], "datatype": "FP64", "data": [1.5]} for name in names]
        refused = client.post("/v2/models/duck/infer", json={"inputs": each})
        assert refused.status_code == 400
        assert "found 300; bring all of them as the columns of one matrix" in refused.json()["error"]
        assert "or ask POST /predict" in refused.json()["error"]
        matrix = {"name": "all", "shape": [2, 300], "datatype": "FP64", "data": [1.5] * 300 + [2.0] * 300}
        found = client.post("/v2/models/duck/infer", json={"inputs": [matrix]}).json()
        assert found["outputs"][0]["data"] == [450.0, 600.0]
        assert client.post("/predict", json=dict.fromkeys(names, 1.5)).json() == {"y": 450.0}


def test_one_column_may_be_two_inputs_of_the_model():
    both = made(
        lambda a, b, c: a + 10 * b + 100 * c,
        [required("a", pa.float64()), pa.field("b", pa.float64()), required("c", pa.float64())],
        [pa.field("y", pa.float64())],
        columns={"a": "x", "b": "x"},
    )
    with both.serving() as server, httpx.Client(base_url=server.url) as client:
        described = client.get("/v2/models/duck").json()["inputs"]
        assert [one["name"] for one in described] == ["x", "c"]
        matrix = {"name": "m", "shape": [1, 2], "datatype": "FP64", "data": [2, 3]}
        found = client.post("/v2/models/duck/infer", json={"inputs": [matrix]}).json()
        assert found["outputs"][0]["data"] == [322.0]
        assert client.post("/predict", json={"x": 2, "c": 3}).json() == {"y": 322.0}
        record = client.get("/openapi.json").json()["components"]["schemas"]["Record"]
        assert (list(record["properties"]), record["required"]) == (["x", "c"], ["x", "c"])
    assert both.infer([{"x": 2.0, "c": 3.0}]).column("y").to_pylist() == [322.0]


GOOD = [
    {"name": "x", "shape": [1], "datatype": "FP64", "data": [1]},
    {"name": "who", "shape": [1], "datatype": "BYTES", "data": ["a"]},
    {"name": "m", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]},
]


def infer(plain, inputs, **more):
    return plain.post("/v2/models/duck/infer", json={"inputs": inputs, **more})


def test_a_missing_value_is_a_bad_record_and_an_absent_column_is_null(plain):
    found = infer(plain, [GOOD[0], {**GOOD[1], "data": [None]}, GOOD[2]])
    assert found.json()["outputs"][1]["data"] == [None]
    assert infer(plain, [GOOD[0], GOOD[2]]).status_code == 200
    found = infer(plain, [{**GOOD[0], "data": [None]}, *GOOD[1:]])
    assert (found.status_code, found.json()["records"][0]["kind"]) == (422, "missing_value")


def test_null_stands_for_what_a_client_leaves_out(plain):
    """As clients write it whose every field has a place of its own."""
    inputs = [{**one, "parameters": None} for one in GOOD]
    more = {"id": None, "parameters": None}
    found = infer(plain, inputs, **more, outputs=None)
    assert found.status_code == 200
    assert found.json() == infer(plain, GOOD).json()
    one = infer(plain, inputs, **more, outputs=[{"name": "y", "parameters": None}])
    assert [output["name"] for output in one.json()["outputs"]] == ["y"]
    colon = infer(plain, [GOOD[0], {**GOOD[1], "data": ["a: b"], "parameters": None}, GOOD[2]], **more)
    assert colon.json()["outputs"][1]["data"] == ["a: b"]
    twice = json.dumps({"inputs": inputs, **more}).replace('"id": null', '"id": null, "id": null')
    found = plain.post("/v2/models/duck/infer", content=twice, headers={"Content-Type": "application/json"})
    assert "twice" in found.json()["error"]


def changed(number, **values):
    return [{**one, **values} if n == number else one for n, one in enumerate(GOOD)]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([], "1 to 256 inputs"),
        (GOOD * 100, "1 to 256 inputs, found 300; bring all of them as the columns of one matrix"),
        ([*GOOD, GOOD[0]], "found it twice"),
        ([*GOOD, {**GOOD[0], "name": "z"}], "no such input"),
        (GOOD[1:], "found no such input"),
        (changed(0, shape=[2], data=[1, 2]), "same number of records"),
        (changed(0, shape=[0], data=[]), "at least one record"),
        (changed(0, shape=[]), "shape of 1 to 8"),
        (changed(0, shape=[1] * 9), "shape of 1 to 8"),
        (changed(0, shape=[-1]), "none of them negative"),
        (changed(0, shape=[2**62]), "shape of 1 to 8"),
        (changed(0, shape=[2]), "2 elements"),
        (changed(0, datatype="FP128"), "datatype among"),
        (changed(0, data=["a"]), "values that are none"),
        (changed(0, data=[True]), "values that are none"),
        (changed(0, data=[[1], 2], shape=[2]), "values that are none"),
        (changed(0, data=1), "values that are none"),
        (changed(0, data={"a": 1}), "values that are none"),
        (changed(0, datatype="INT8", data=[128]), "fit INT8"),
        (changed(0, datatype="INT8", data=[1.5]), "values that are none"),
        (changed(0, datatype="UINT64", data=[-1]), "fit UINT64"),
        (changed(0, datatype="FP32", data=[1e39]), "fit FP32"),
        (changed(0, datatype="BYTES", data=["1"]), "wanted values for double"),
        (changed(1, datatype="INT8", data=[1]), "wanted values for string"),
        (changed(1, datatype="FP64", data=[1.5]), "wanted values for string"),
        (changed(2, shape=[1, 2], data=[1, 2]), "wanted the shape [-1, 3]"),
        (changed(2, shape=[3], data=[1, 2, 3]), "same number of records"),
        (changed(0, shape=[1, 2], data=[1, 2]), "wanted the shape [-1]"),
        (changed(0, parameters={"binary_data_size": 8}), "either data or a binary_data_size"),
    ],
    ids=lambda value: repr(value)[-30:],
)  # fmt: skip
def test_what_no_tensor_is_gets_a_clear_400(plain, inputs, words):
    found = infer(plain, inputs)
    assert found.status_code == 400
    assert words in found.json()["error"]
    assert infer(plain, GOOD).status_code == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{}", "wanted an inference request"),
        (b'{"inputs": 1}', "wanted an inference request"),
        (
            json.dumps({"inputs": GOOD}).replace('"shape": [1]', '"shape": [1], "shape": [1]', 1).encode(),
            "twice",
        ),
        (json.dumps({"inputs": GOOD}).replace("[1]", "[NaN]", 1).encode(), "NaN"),
        (
            json.dumps({"inputs": GOOD}).replace('"data": [1]', '"data": [1e400]', 1).encode(),
            "values that are none",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_no_request_is_gets_a_clear_400(plain, body, words):
    found = plain.post("/v2/models/duck/infer", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 400
    assert words in found.json()["error"]


def binary(plain, text, blob, length=None):
    headers = {
        "Inference-Header-Content-Length": str(len(text) if length is None else length),
        "Content-Type": "application/octet-stream",
    }
    return plain.post("/v2/models/duck/infer", content=text + blob, headers=headers)


@pytest.mark.parametrize(
    ("sizes", "blob", "length", "status"),
    [
        ((8, 5, 12), b"\0" * 8 + b"\1\0\0\0a" + b"\0" * 12, None, 200),
        ((8, 5, 12), b"\0" * 8 + b"\2\0\0\0a" + b"\0" * 12, None, 400),
        ((8, 5, 12), b"\0" * 8 + b"\xff\xff\xff\xffa" + b"\0" * 12, None, 400),
        ((8, 3, 12), b"\0" * 8 + b"\1\0\0" + b"\0" * 12, None, 400),
        ((8, 5, 12), b"\0" * 8 + b"\1\0\0\0\xff" + b"\0" * 12, None, 400),
        ((7, 5, 12), b"\0" * 7 + b"\1\0\0\0a" + b"\0" * 12, None, 400),
        ((8, 5, 12), b"\0" * 8, None, 400),
        ((8, 5, 12), b"\0" * 8 + b"\1\0\0\0a" + b"\0" * 13, None, 400),
        ((-8, 5, 12), b"\0" * 25, None, 400),
        ((8.0, 5, 12), b"\0" * 25, None, 400),
        ((8, 5, 12), b"", 10**6, 400),
        ((8, 5, 12), b"", -1, 400),
        ((8, 5, 12), b"", "1e2", 400),
    ],
    ids=str,
)
def test_binary_tensors_are_measured_before_they_are_believed(plain, sizes, blob, length, status):  # noqa: PLR0917 - parametrised
    inputs = [
        {key: value for key, value in one.items() if key != "data"}
        | {"parameters": {"binary_data_size": size}}
        for one, size in zip(GOOD, sizes, strict=True)
    ]
    found = binary(plain, json.dumps({"inputs": inputs}).encode(), blob, length)
    assert found.status_code == status
    assert ("error" in found.json()) == (status != 200)


def test_a_page_elsewhere_cannot_ask_by_leaving_the_type_out(plain):
    body = json.dumps({"inputs": GOOD}).encode()
    assert plain.post("/v2/models/duck/infer", content=body).status_code == 200
    for header in ("Origin", "Referer", "Sec-Fetch-Site"):
        assert (
            plain.post("/v2/models/duck/infer", content=body, headers={header: "http://x"}).status_code == 415
        )


def test_whoever_asks_for_another_model_hears_which_one_is_here(plain):
    for path in (
        "/v2/models",
        "/v2/models/",
        "/v2/models/goose/infer",
        "/v2/models/duck/versions/4",
        "/v2/models/duck/versions/*",
    ):
        for told in (plain.get(path), plain.post(path, json={"inputs": GOOD})):
            assert told.status_code == 404
            assert told.json()["error"].endswith("; wanted /v2/models/duck, version 3"), path


def test_another_model_or_version_is_not_there(plain):
    for path in ("/v2/models/goose/infer", "/v2/models/duck/versions/4/infer", "/v2/models/duck/infer/"):
        assert plain.post(path, json={"inputs": GOOD}).status_code == 404
    assert plain.get("/v2/models/duck/infer").status_code == 405


@settings(max_examples=60)
@given(
    some.recursive(
        some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=3),
        lambda inner: (
            some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    some.sampled_from(["inputs", "outputs", "parameters", "id", "data", "shape", "datatype", "name"]),
)
def test_anything_in_any_place_gets_an_answer_or_a_clear_4xx(server, value, place):
    body = {"inputs": [dict(one) for one in GOOD]}
    (body["inputs"][0] if place in GOOD[0] else body)[place] = value
    found = httpx.post(
        f"{server.url}/v2/models/duck/infer",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert found.status_code == 200 or (400 <= found.status_code < 500 and found.json()["error"])


def test_infer_and_the_protocol_answer_alike(server, plain):
    rng = np.random.default_rng(0)
    inputs = [required("x", pa.float64()), pa.field("who", pa.string()), required("m", MATRIX)]
    x, who, m = rng.normal(size=50), [f"w{n}" for n in range(50)], rng.normal(size=(50, 3)).astype("f4")
    table = pa.table(
        [pa.array(x), pa.array(who), pa.FixedSizeListArray.from_arrays(pa.array(m.ravel()), type=MATRIX)],
        pa.schema(inputs),
    )

    def duck(x, who, m):
        return {"y": x + 1, "whose": who, "both": np.stack([m.sum(1), m.max(1)], 1).astype("f4")}

    outputs = [
        pa.field("y", pa.float64()),
        pa.field("whose", pa.string()),
        pa.field("both", pa.list_(pa.float32(), 2)),
    ]
    wanted = made(duck, inputs, outputs).infer(table)
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    found = client.infer(
        "duck",
        [
            tensor("x", x, "FP64", binary=True),
            tensor("who", np.array(who, object), "BYTES", binary=True),
            tensor("m", m, "FP32", binary=True),
        ],
    )
    np.testing.assert_array_equal(found.as_numpy("y"), wanted.column("y").to_numpy())
    np.testing.assert_array_equal(found.as_numpy("both"), np.array(wanted.column("both").to_pylist(), "f4"))


@pytest.mark.parametrize(("levels", "status"), [(28, 200), (29, 400), (900, 400)])
def test_data_may_be_nested_as_deep_as_any_other_json(levels, status):
    data = 7
    for _ in range(levels + 1):
        data = [data]
    request = {"inputs": [{"name": "v", "shape": [1], "datatype": "INT64", "data": data}]}
    with made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())]).serving() as server:
        assert httpx.post(f"{server.url}/v2/models/duck/infer", json=request).status_code == status
