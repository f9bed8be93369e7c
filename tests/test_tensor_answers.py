"""Answers that not every tensor can hold: each request gets its own right values, or a refusal of its own."""

import datetime as dt
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal

import grpc
import httpx
import numpy as np
import pyarrow as pa
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from mlinfer import InferencePipeline
from mlinfer._online._grpc_messages import CLASSES
from mlinfer._online._grpc_tensors import CONTENTS
from mlinfer._online._tensors import DTYPES
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource
from test_oip import SCALARS, nothing, required

HOLD = 99
"""The input upon which the model waits, so that everything else meets in one batch."""


@contextmanager
def held(kind, values):
    """A model that answers its input n with values[n]: a server, and what lets its first batch go."""
    begun, go = threading.Event(), threading.Event()

    def duck(records):
        numbers = records.column("n").to_pylist()
        if HOLD in numbers:
            begun.set()
            assert go.wait(60)
        return {"o": pa.array([values[number % len(values)] for number in numbers], kind)}

    host = FunctionHost(duck, pa.schema([required("n", pa.int64())]), pa.schema([pa.field("o", kind)]))
    pipeline = InferencePipeline(IterableSource(nothing), host, MemoryDestination())
    with pipeline.serving(grpc_bind="127.0.0.1:0") as server, ThreadPoolExecutor(17) as threads:
        first = threads.submit(httpx.post, f"{server.url}/predict", json={"n": HOLD})

        def together(asks):
            """What becomes of (way, numbers) that are asked at once."""
            assert begun.wait(60)
            asked = [threads.submit(way, server, numbers) for way, numbers in asks]
            while server.waiting < len(asks) and not any(one.done() for one in asked):
                threading.Event().wait(0.001)
            go.set()
            assert first.result().status_code == 200
            return [one.result() for one in asked]

        yield together


# --- the four ways to ask, each giving values or the text of a refusal -----------------------------------------------


def in_json(server, numbers):
    body = {"inputs": [{"name": "n", "shape": [len(numbers)], "datatype": "INT64", "data": numbers}]}
    found = httpx.post(f"{server.url}/v2/models/duck/infer", json=body)
    if found.status_code != 200:
        return f"{found.status_code} {found.json()['error']}"
    (output,) = found.json()["outputs"]
    return np.array(output["data"], object).reshape(output["shape"]).tolist()


def in_binary(server, numbers):
    """By a client that others wrote."""
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        tensor = triton.InferInput("n", [len(numbers)], "INT64")
        tensor.set_data_from_numpy(np.array(numbers))
        try:
            found = client.infer("duck", [tensor])
        except InferenceServerException as error:
            return str(error)
        values = found.as_numpy("o").tolist()
    return [one.decode("latin-1") if isinstance(one, bytes) else one for one in values]


def by_grpc(server, numbers, *, raw):
    request = CLASSES["ModelInferRequest"](model_name="duck")
    tensor = request.inputs.add(name="n", datatype="INT64", shape=[len(numbers)])
    if raw:
        request.raw_input_contents.append(np.array(numbers, "<i8").tobytes())
    else:
        tensor.contents.int64_contents.extend(numbers)
    with grpc.insecure_channel(server.grpc_address) as channel:
        try:
            data = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
                request.SerializeToString(), timeout=60
            )
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}"
    response = CLASSES["ModelInferResponse"].FromString(data)
    (output,) = response.outputs
    if not response.raw_output_contents:
        values = list(getattr(output.contents, CONTENTS[output.datatype]))
    elif output.datatype == "BYTES":
        values = pieces(response.raw_output_contents[0])
    else:
        values = np.frombuffer(response.raw_output_contents[0], DTYPES[output.datatype]).tolist()
    values = [one.decode("latin-1") if isinstance(one, bytes) else one for one in values]
    return np.array(values, object).reshape(list(output.shape)).tolist()


def pieces(data):
    found = []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def typed(server, numbers):
    return by_grpc(server, numbers, raw=False)


def raw(server, numbers):
    return by_grpc(server, numbers, raw=True)


WAYS = {"JSON": in_json, "binary": in_binary, "gRPC typed": typed, "gRPC raw": raw}


# --- what they get ----------------------------------------------------------------------------------------------------


def values_of(datatype):
    """Two values, with a null between them."""
    if datatype == "BYTES":
        return ["ä", None, ""]
    dtype = DTYPES[datatype]
    if dtype.kind == "b":
        return [True, None, False]
    return [0.5, None, -2.0] if dtype.kind == "f" else [np.iinfo(dtype).max, None, np.iinfo(dtype).min]


def as_said(values, datatype, way):
    """What a request for these gets."""
    if None not in values or way == "JSON":
        wanted = values
    elif datatype == "BYTES":
        wanted = [one or "" for one in values]
    elif DTYPES[datatype].kind == "f":
        wanted = [np.nan if one is None else one for one in values]
    else:
        return f"found a null, and a tensor of {datatype} has no null; ask POST /predict"
    if datatype == "BYTES" and way != "JSON":
        wanted = [one.encode().decode("latin-1") for one in wanted]
    return wanted


@pytest.mark.parametrize("datatype", SCALARS)
def test_a_null_is_said_or_refused_to_whoever_asked_and_changes_nothing_for_the_others(datatype):
    values = values_of(datatype)
    # the second of them has a null
    asks = [(name, numbers) for name in WAYS for numbers in ([0, 2], [1, 0, 2], [2])]
    with held(SCALARS[datatype], values) as together:
        found = together([(WAYS[name], numbers) for name, numbers in asks])
    for (name, numbers), one in zip(asks, found, strict=True):
        wanted = as_said([values[number] for number in numbers], datatype, name)
        if isinstance(wanted, str):
            assert isinstance(one, str), f"{name}: {one}"
            assert wanted in one
            assert one.startswith(("422", "[422]", "INVALID_ARGUMENT")), one
        else:
            assert str(one) == str(wanted), name
            assert [type(value) for value in one] == [type(value) for value in wanted], name


RAGGED = [[1, 2], [3], [4, 5], None, [], [6, None]]


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int64())], ids=str)
def test_lists_of_several_lengths_or_none_are_refused_to_whoever_asked_for_them(kind):
    good, bad = {(0, 2): [[1, 2], [4, 5]], (1,): [[3]], (4,): [[]]}, [(0, 1), (2, 3), (3,)]
    asks = [(name, numbers) for name in WAYS for numbers in (*good, *bad)][:16]
    with held(kind, RAGGED) as together:
        found = together([(WAYS[name], list(numbers)) for name, numbers in asks])
    for (name, numbers), one in zip(asks, found, strict=True):
        if numbers in good:
            assert one == good[numbers], name
        else:
            assert "which no tensor can hold; ask POST /predict" in one
            assert one.startswith(("422", "[422]", "INVALID_ARGUMENT")), one


@pytest.mark.parametrize("number", [3, 5])
def test_a_null_in_a_tensor_is_nobody_elses(number):
    """A list that is null, or has a null in it, where all lists have one length."""
    values = [[1, 2], [3, 4], [4, 5], None, [7, 8], [6, None]]
    asks = [(name, numbers) for name in WAYS for numbers in ([0, 2], [1, number])]
    with held(pa.list_(pa.int64(), 2), values) as together:
        found = together([(WAYS[name], numbers) for name, numbers in asks])
    for (name, numbers), one in zip(asks, found, strict=True):
        if number not in numbers:
            assert one == [[1, 2], [4, 5]], name
        elif name == "JSON" and number == 5:
            assert one == [[3, 4], [6, None]]
        else:
            assert one.endswith("ask POST /predict"), one


def test_bytes_that_are_no_text_are_never_changed_into_some():
    values = [b"\xff\x00", b"plain", "ä".encode()]
    asks = [(name, numbers) for name in WAYS for numbers in ([0, 1], [1, 2])]
    with held(pa.binary(), values) as together:
        found = together([(WAYS[name], numbers) for name, numbers in asks])
    for (name, numbers), one in zip(asks, found, strict=True):
        if name == "JSON":
            text = "422 output 'o': wanted text in UTF-8, found bytes that are not text; ask for it in binary (binary_data)"
            assert one == (text if 0 in numbers else ["plain", "ä"])
        else:
            assert one == [values[number].decode("latin-1") for number in numbers]


@pytest.mark.parametrize(
    ("text", "status"),
    [("x" * 2**20, 200), ("x" * (2**20 + 1), 400), ("ä" * 2**19 + "x", 400)],
    ids=["just", "too long", "too many bytes"],
)
def test_a_text_has_the_same_most_length_however_it_is_said(text, status):
    def duck(records):
        return {"o": pa.array([len(one.encode()) for one in records.column("t").to_pylist()])}

    host = FunctionHost(duck, pa.schema([required("t", pa.string())]), pa.schema([pa.field("o", pa.int64())]))
    pipeline = InferencePipeline(IterableSource(nothing), host, MemoryDestination())
    body = {"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "data": [text]}]}
    request = CLASSES["ModelInferRequest"](model_name="duck")
    request.inputs.add(name="t", datatype="BYTES", shape=[1]).contents.bytes_contents.append(text.encode())
    with (
        pipeline.serving(grpc_bind="127.0.0.1:0") as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        found = httpx.post(f"{server.url}/v2/models/duck/infer", json=body)
        assert found.status_code == status
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        if status == 200:
            response = CLASSES["ModelInferResponse"].FromString(
                infer(request.SerializeToString(), timeout=60)
            )
            assert (
                list(response.outputs[0].contents.int64_contents)
                == found.json()["outputs"][0]["data"]
                == [2**20]
            )
        else:
            assert (
                "wanted BYTES elements of at most 1,048,576 bytes, found one of 1,048,577"
                in found.json()["error"]
            )
            with pytest.raises(grpc.RpcError, match="found one of 1,048,577"):
                infer(request.SerializeToString(), timeout=60)


@pytest.mark.parametrize(
    ("kind", "datatype"), [(pa.list_(pa.float64()), "FP64"), (pa.large_list(pa.string()), "BYTES")]
)
def test_lists_of_nothing_come_in_and_go_out_in_every_way(kind, datatype):
    def duck(records):
        return {"o": records.column("v")}

    host = FunctionHost(duck, {"v": kind}, {"o": kind}, version="1")
    nothings = np.zeros((2, 0), DTYPES.get(datatype, object))
    request = CLASSES["ModelInferRequest"](model_name="duck")
    request.inputs.add(name="v", datatype=datatype, shape=[2, 0])
    made = InferencePipeline(IterableSource(nothing), host, MemoryDestination())
    with made.serving(grpc_bind="127.0.0.1:0") as server:
        with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
            for binary in (True, False):
                tensor = triton.InferInput("v", [2, 0], datatype)
                tensor.set_data_from_numpy(nothings, binary_data=binary)
                assert client.infer("duck", [tensor]).as_numpy("o").shape == (2, 0)
        with grpc.insecure_channel(server.grpc_address) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            found = CLASSES["ModelInferResponse"].FromString(infer(request.SerializeToString(), timeout=60))
        assert list(found.outputs[0].shape) == [2, 0]
        assert httpx.post(f"{server.url}/predict", json=[{"v": []}] * 2).json() == [{"o": []}] * 2


# by type: what is sent, the datatype by which metadata call it, what /predict says back, and what comes in a tensor
SAID = {
    "a decimal": (pa.decimal128(38, 20), "123456789012345678.12345678901234567890", "BYTES"),
    "a long decimal": (pa.decimal256(50, 2), "1" * 40 + ".25", "BYTES"),
    "a dictionary of texts": (pa.dictionary(pa.int32(), pa.string()), "ä", "BYTES"),
    "a dictionary of numbers": (pa.dictionary(pa.int32(), pa.int64()), 5, "INT64"),
    "a large string": (pa.large_string(), "ä", "BYTES"),
    "a string view": (pa.string_view(), "ä", "BYTES"),
    "a moment": (pa.timestamp("us"), "2024-01-31T12:30:00.000001", "BYTES"),
    "a moment in UTC": (pa.timestamp("us", "UTC"), "2024-01-31T12:30:00.000001Z", "BYTES"),
    "a day": (pa.date32(), "2024-01-31", "BYTES"),
    "a day in milliseconds": (pa.date64(), "2024-01-31", "BYTES"),
    "a time": (pa.time64("us"), "12:30:00.000001", "BYTES"),
    "a time in seconds": (pa.time32("s"), "12:30:00", "BYTES"),
    "two decimals": (pa.list_(pa.decimal128(9, 2), 2), ["1.25", "2.50"], "BYTES"),
    "two days": (pa.list_(pa.date32(), 2), ["2024-01-31", "2024-02-01"], "BYTES"),
    "two from a dictionary": (pa.list_(pa.dictionary(pa.int32(), pa.string()), 2), ["ä", "b"], "BYTES"),
}


@pytest.mark.parametrize("what", SAID)
def test_every_type_comes_in_and_goes_out_as_it_is_spelled_in_every_way(what):
    kind, value, datatype = SAID[what]
    seen = []

    def duck(records):
        seen.append(records.column("i"))
        return {"o": records.column("i")}

    host = FunctionHost(duck, pa.schema([required("i", kind)]), pa.schema([pa.field("o", kind)]))
    flat = value if isinstance(value, list) else [value]
    shape = [1, *([len(flat)] if flat is value else [])]
    texts = [one.encode() if isinstance(one, str) else one for one in flat]
    with InferencePipeline(IterableSource(nothing), host, MemoryDestination()).serving(
        grpc_bind="127.0.0.1:0"
    ) as server:
        assert httpx.post(f"{server.url}/predict", json={"i": value}).json() == {"o": value}
        model = f"{server.url}/v2/models/duck"
        (described,) = httpx.get(model).json()["inputs"]
        assert (described["datatype"], described["shape"][1:]) == (datatype, shape[1:])
        tensor = {"name": "i", "shape": shape, "datatype": datatype, "data": flat}
        (output,) = httpx.post(f"{model}/infer", json={"inputs": [tensor]}).json()["outputs"]
        assert (output["datatype"], output["shape"], output["data"]) == (datatype, shape, flat)
        with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
            binary = triton.InferInput("i", shape, datatype)
            binary.set_data_from_numpy(
                np.array(texts, object if datatype == "BYTES" else None).reshape(shape)
            )
            assert client.infer("duck", [binary]).as_numpy("o").reshape(-1).tolist() == texts
        request = CLASSES["ModelInferRequest"](model_name="duck")
        one = request.inputs.add(name="i", datatype=datatype, shape=shape)
        getattr(one.contents, CONTENTS[datatype]).extend(texts)
        with grpc.insecure_channel(server.grpc_address) as channel:
            data = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
                request.SerializeToString(), timeout=60
            )
        (output,) = CLASSES["ModelInferResponse"].FromString(data).outputs
        assert list(getattr(output.contents, CONTENTS[datatype])) == texts
    assert len(seen) >= 4
    assert {str(one.type) for one in seen} == {str(kind)}
    assert {str(one.to_pylist()) for one in seen} == {str(seen[0].to_pylist())}


@pytest.mark.parametrize("text", ["1.255", "12345678.00", "1,25", " 1", "", "NaN", "0x1", "one"])
def test_a_text_that_is_no_decimal_of_its_column_is_a_bad_record_and_its_neighbours_are_not(text):
    kind = pa.decimal128(9, 2)
    host = FunctionHost(
        lambda records: {"o": records.column("i")},
        pa.schema([required("i", kind)]),
        pa.schema([pa.field("o", kind)]),
    )
    with InferencePipeline(IterableSource(nothing), host, MemoryDestination()).serving() as server:
        found = httpx.post(f"{server.url}/predict", json=[{"i": "1.5"}, {"i": text}, {"i": 2}])
    assert found.status_code == 422
    assert [(one["row"], one["kind"]) for one in found.json()["records"]] == [(1, "wrong_type")]


def test_an_integer_fits_a_decimal_that_has_room_for_it():
    kind = pa.decimal128(5, 2)
    host = FunctionHost(
        lambda records: {"o": records.column("i")},
        pa.schema([required("i", kind)]),
        pa.schema([pa.field("o", kind)]),
    )
    with InferencePipeline(IterableSource(nothing), host, MemoryDestination()).serving() as server:
        assert httpx.post(f"{server.url}/predict", json={"i": 2}).json() == {"o": "2.00"}
        found = httpx.post(
            f"{server.url}/predict", json=[{"i": -999}, {"i": 1000}, {"i": 7}, {"i": 2**63 - 1}]
        ).json()
        assert [one["row"] for one in found["records"]] == [1, 3]


DAY = dt.datetime(2024, 1, 31, 12, 30)  # noqa: DTZ001 - a moment without a zone is meant
SPELLED = {
    "a moment": (pa.timestamp("us"), DAY, "2024-01-31T12:30:00.000000"),
    "a moment in UTC": (pa.timestamp("ms", "UTC"), DAY.replace(tzinfo=dt.UTC), "2024-01-31T12:30:00.000Z"),
    "a day": (pa.date32(), DAY.date(), "2024-01-31"),
    "a decimal": (pa.decimal128(9, 2), Decimal("1.25"), "1.25"),
    "a duration": (pa.duration("ms"), dt.timedelta(seconds=1.5), "PT1.5S"),
    "parts": (pa.struct({"a": pa.int64(), "b": pa.string()}), {"a": 1, "b": "x"}, '{"a":1,"b":"x"}'),
}


@pytest.mark.parametrize("what", SPELLED)
def test_what_has_no_datatype_of_its_own_is_spelled_as_predict_spells_it(what):
    kind, value, text = SPELLED[what]
    with held(kind, [value, None]) as together:
        found = together([(way, [0]) for way in WAYS.values()] + [(in_json, [1, 0])])
    assert found == [[text]] * len(WAYS) + [[None, text]]
    host = FunctionHost(
        lambda records: {"o": pa.array([value] * records.num_rows, kind)},
        pa.schema([required("n", pa.int64())]),
        pa.schema([pa.field("o", kind)]),
    )
    with InferencePipeline(IterableSource(nothing), host, MemoryDestination()).serving() as server:
        said = httpx.post(f"{server.url}/predict", json={"n": 1}).json()["o"]
    assert said == (json.loads(text) if what == "parts" else text)
