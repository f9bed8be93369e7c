"""The Open Inference Protocol over gRPC, asked by clients that others wrote."""

import asyncio
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import numpy as np
import pyarrow as pa
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pb2 import DescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from mlinfer import Batching, ConfigError, InferencePipeline
from mlinfer._online._crew import serving
from mlinfer._online._grpc import LEAVING_SECONDS, GrpcServer
from mlinfer._online._grpc_messages import CLASSES, MESSAGES
from mlinfer._online._grpc_reading import Messages
from mlinfer._online._grpc_tensors import CONTENTS
from mlinfer._online._listener import _new_loop
from mlinfer._online._pace import Pace
from mlinfer._online._serving import Serving
from mlinfer._online._tensors import DTYPES
from mlinfer._online._wire import Patience
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource
from ports import free_port
from test_oip import MATRIX, SCALARS, nothing, required
from test_online_access import tls, two  # noqa: F401 - fixtures

INFER = "/inference.GRPCInferenceService/ModelInfer"
HERE = {"grpc_bind": "127.0.0.1:0"}


def made(function, inputs, outputs, **options):
    function.__name__ = "duck"
    host = FunctionHost(function, pa.schema(inputs), pa.schema(outputs), takes="numpy", version="3")
    return InferencePipeline(IterableSource(nothing), host, MemoryDestination(), **options)


@pytest.fixture(scope="module")
def server():
    def duck(x, who, m):
        if (x == 13).any():
            raise ValueError("canary-secret")
        return {"y": x + 1, "whose": who, "both": np.stack([m.sum(1), m.max(1)], 1).astype("f4")}

    inputs = [required("x", pa.float64()), pa.field("who", pa.string()), required("m", MATRIX)]
    outputs = [
        pa.field("y", pa.float64()),
        pa.field("whose", pa.string()),
        pa.field("both", pa.list_(pa.float32(), 2)),
    ]
    with made(duck, inputs, outputs).serving(**HERE) as server:
        yield server


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.grpc_address) as client:
        yield client


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield channel


def tensor(name, values, datatype):
    one = triton.InferInput(name, list(values.shape), datatype)
    one.set_data_from_numpy(values)
    return one


def three(x=(1.0, 2.0)):
    return [
        tensor("x", np.array(x), "FP64"),
        tensor("who", np.array(["ä", "b"], object), "BYTES"),
        tensor("m", np.arange(6, dtype="f4").reshape(2, 3), "FP32"),
    ]


def call(channel, name, message):
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return channel.unary_unary(f"/inference.GRPCInferenceService/{name}")(data, timeout=30)


def refused(channel, message, name="ModelInfer"):
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, name, message)
    return raised.value.code(), raised.value.details()


def asking(x=(1.0, 2.0), **more):
    """A request with typed contents."""
    request = CLASSES["ModelInferRequest"](model_name="duck", **more)
    request.inputs.add(name="x", datatype="FP64", shape=[len(x)]).contents.fp64_contents.extend(x)
    request.inputs.add(name="m", datatype="FP32", shape=[len(x), 3]).contents.fp32_contents.extend(
        range(3 * len(x))
    )
    return request


def test_a_foreign_client_finds_the_server_and_the_model(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("duck")
    assert client.is_model_ready("duck", "3")
    assert client.get_server_metadata().name == "mlinfer"
    found = client.get_model_metadata("duck", "3")
    assert (found.name, list(found.versions)) == ("duck", ["3"])
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == [
        ("x", "FP64", [-1]), ("who", "BYTES", [-1]), ("m", "FP32", [-1, 3]),
    ]  # fmt: skip
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == [
        ("y", "FP64", [-1]), ("whose", "BYTES", [-1]), ("both", "FP32", [-1, 2]),
    ]  # fmt: skip


def test_tensors_go_and_come(client):
    outputs = [triton.InferRequestedOutput(name) for name in ("both", "whose")]
    found = client.infer("duck", three(), request_id="7", outputs=outputs)
    response = found.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", "duck", "3")
    np.testing.assert_array_equal(found.as_numpy("both"), np.array([[3, 2], [12, 5]], "f4"))
    assert [one.decode() for one in found.as_numpy("whose")] == ["ä", "b"]
    assert found.as_numpy("y") is None


def test_typed_contents_are_answered_in_typed_contents(channel):
    response = CLASSES["ModelInferResponse"].FromString(call(channel, "ModelInfer", asking(id="q")))
    assert response.id == "q"
    assert [output.name for output in response.outputs] == ["y", "whose", "both"]
    assert list(response.outputs[0].contents.fp64_contents) == [2.0, 3.0]
    assert list(response.outputs[1].contents.bytes_contents) == [b"", b""]
    assert list(response.outputs[2].contents.fp32_contents) == [3.0, 2.0, 12.0, 5.0]
    assert len(response.raw_output_contents) == 0


@pytest.mark.parametrize("datatype", SCALARS)
def test_every_datatype_comes_back_as_it_went(datatype):
    kind = SCALARS[datatype]
    with (
        made(lambda v: v, [required("v", kind)], [pa.field("o", kind)]).serving(**HERE) as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        dtype = DTYPES.get(datatype)
        values = np.array(["x", "ÿ\0"], object) if dtype is None else np.array([0, 1], dtype)
        if dtype is not None and dtype.kind in "iu":
            values = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
        found = client.infer("duck", [tensor("v", values, datatype)]).as_numpy("o")
        expected = [one.encode() for one in values] if dtype is None else values
        assert found.tolist() == list(expected)
        assert dtype is None or found.dtype == dtype


@pytest.mark.parametrize("kind", [pa.float16(), pa.int16()])
def test_an_output_that_has_no_typed_contents_goes_as_raw_bytes(kind, monkeypatch):
    monkeypatch.delitem(CONTENTS, "INT16")  # as FP16 has none in the protocol
    request = CLASSES["ModelInferRequest"](model_name="duck")
    request.inputs.add(name="v", datatype="FP64", shape=[2]).contents.fp64_contents.extend([1.0, 2.0])
    with (
        made(
            lambda v: v.astype(kind.to_pandas_dtype()),
            [required("v", pa.float64())],
            [pa.field("o", kind)],
        ).serving(**HERE) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        response = CLASSES["ModelInferResponse"].FromString(call(channel, "ModelInfer", request))
    assert np.frombuffer(response.raw_output_contents[0], kind.to_pandas_dtype()).tolist() == [1, 2]
    assert not response.outputs[0].contents.ListFields()


def test_one_matrix_stands_for_many_fields():
    inputs = [required(name, pa.float64()) for name in "abc"]
    with (
        made(lambda a, b, c: a + 10 * b + 100 * c, inputs, [pa.field("y", pa.float64())]).serving(
            **HERE
        ) as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        matrix = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        assert client.infer("duck", [tensor("rows", matrix, "FP64")]).as_numpy("y").tolist() == [321.0, 654.0]


OIP_CLIENT = """
import sys, grpc
import open_inference.grpc.protocol as protocol
from open_inference.grpc.service import GRPCInferenceServiceStub
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = GRPCInferenceServiceStub(channel)
    tensor = protocol.ModelInferRequest.InferInputTensor(name="v", datatype="INT64", shape=[2])
    tensor.contents.int64_contents.extend([5, 6])
    answer = stub.ModelInfer(protocol.ModelInferRequest(model_name="duck", inputs=[tensor]))
    print(stub.ServerLive(protocol.ServerLiveRequest()).live, list(answer.outputs[0].contents.int64_contents))
"""


def test_the_protocols_own_client_is_answered():
    """In a process of its own: its messages and those of tritonclient cannot live in one."""
    with made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())]).serving(
        **HERE
    ) as server:
        done = subprocess.run(
            [sys.executable, "-c", OIP_CLIENT, server.grpc_address],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stdout == "True [5, 6]\n", done.stderr


def test_our_messages_are_the_protocols():
    from tritonclient.grpc import service_pb2

    names = {"InferTensor": "ModelInferRequest.InferInputTensor", "TensorMetadata": "ModelMetadataResponse.TensorMetadata",
             "InferRequestedOutputTensor": "ModelInferRequest.InferRequestedOutputTensor"}  # fmt: skip
    for name, fields in MESSAGES.items():
        if name == "HealthCheckRequest":  # of another protocol, whose own client asks below
            continue
        theirs = service_pb2.DESCRIPTOR.message_types_by_name[names.get(name, name).partition(".")[0]]
        if name in names:
            theirs = theirs.nested_types_by_name[names[name].partition(".")[2]]
        ours, theirs = laid_out(CLASSES[name].DESCRIPTOR), laid_out(theirs)
        assert {field: ours[field] for field in fields} == {field: theirs[field] for field in fields}, name


def laid_out(message):
    """What decides how each field lies in the bytes, said alike by every version of protobuf."""
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return {field.name: (field.number, field.type, field.label) for field in proto.field}


def test_the_health_protocol_is_answered_without_a_key(tmp_path):
    """As Kubernetes asks it: by the messages of grpc.health.v1, byte for byte."""
    from mlinfer._online._keys import new_key

    (tmp_path / "keys.toml").write_text(new_key("them")[1])
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        pipeline.serving(keys=tmp_path / "keys.toml", **HERE) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for service in (b"", b"\x0a\x1einference.GRPCInferenceService", b"\x0a\x04duck"):
            assert check(service, timeout=30) == b"\x08\x01"  # status = SERVING
        with pytest.raises(grpc.RpcError) as raised:
            check(b"\x0a\x05goose", timeout=30)
        assert raised.value.code().name == "NOT_FOUND"
        server.ready = False  # as while it ends
        assert check(b"", timeout=30) == b"\x08\x02"  # NOT_SERVING


def test_calls_are_in_the_access_log_with_what_they_were_and_nothing_they_held(tmp_path, caplog):
    from mlinfer._online._keys import new_key

    key, line = new_key("them")
    (tmp_path / "keys.toml").write_text(line)
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    caplog.set_level("INFO", "mlinfer.access")
    with (
        pipeline.serving(keys=tmp_path / "keys.toml", access_log=True, **HERE) as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        inputs = [tensor("v", np.array([777_777, 2]), "INT64")]
        client.infer("duck", inputs, headers={"authorization": f"Bearer {key}", "x-request-id": "mine-1"})
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.infer("duck", inputs, headers={"x-request-id": "two words"})
    first, second = [one.getMessage() for one in caplog.records if one.name == "mlinfer.access"]
    path = "/inference.GRPCInferenceService/ModelInfer"
    assert re.fullmatch(rf"GRPC {path} 200 rows=2 ms=[0-9.]+ key=them id=mine-1", first)
    assert re.fullmatch(rf"GRPC {path} 401 rows=0 ms=[0-9.]+ key=- id=[0-9a-f]{{16}}", second)
    assert "777777" not in caplog.text


# --- refusals ----------------------------------------------------------------------------------------------------------


def changed(**how):
    request = asking()
    if "name" in how:
        request.model_name = how["name"]
    if "version" in how:
        request.model_version = how["version"]
    for number, values in how.get("tensors", {}).items():
        for key, value in values.items():
            if key == "shape":
                request.inputs[number].shape[:] = value
            else:
                setattr(request.inputs[number], key, value)
    if "raw" in how:
        request.raw_input_contents.extend(how["raw"])
    return request


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (b"\xff\xff\xff", "INVALID_ARGUMENT", "found bytes that are none"),
        (changed(name="goose"), "NOT_FOUND", "no such model or version here; wanted duck, version 3"),
        (changed(version="4"), "NOT_FOUND", "no such model or version"),
        (CLASSES["ModelInferRequest"](model_name="duck"), "INVALID_ARGUMENT", "wanted 1 to 256 inputs"),
        (changed(tensors={0: {"shape": [3]}}), "INVALID_ARGUMENT", "wanted 3 elements for its shape, found 2"),
        (changed(tensors={0: {"shape": [-1]}}), "INVALID_ARGUMENT", "wanted a shape of 1 to 8 sizes"),
        (changed(tensors={0: {"shape": [2**31, 2**31]}}), "INVALID_ARGUMENT", "wanted at most 65,536 records"),
        (changed(tensors={0: {"datatype": "FP65"}}), "INVALID_ARGUMENT", "wanted a datatype among"),
        (changed(tensors={0: {"datatype": "INT8"}}), "INVALID_ARGUMENT", "elements in int_contents, found fp64_contents"),
        (changed(tensors={0: {"datatype": "FP16"}}), "INVALID_ARGUMENT", "wanted FP16 as raw contents"),
        (changed(tensors={1: {"name": "x"}}), "INVALID_ARGUMENT", "wanted it once, found it twice"),
        (changed(tensors={0: {"name": "z"}}), "INVALID_ARGUMENT", "there is no such input"),
        (changed(raw=[b"1234"]), "INVALID_ARGUMENT", "raw contents for each of 2 inputs, found 1"),
        (changed(raw=[b"1234", b""]), "INVALID_ARGUMENT", "wanted raw contents or typed ones, found both"),
        (asking(outputs=[CLASSES["InferRequestedOutputTensor"](name="no")]), "INVALID_ARGUMENT", "there is no such output"),
        (asking([float("nan"), 1.0]), "INVALID_ARGUMENT", "1 bad record; row 0: field 'x': wanted a value (double), found none"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_the_reason(channel, request_, code, words):
    found, details = refused(channel, request_)
    assert found.name == code
    assert words in details


def test_what_the_model_said_stays_in_the_log(channel, caplog):
    code, details = refused(channel, asking([13.0, 1.0]))
    assert code.name == "INVALID_ARGUMENT"
    assert "the model could not answer this record" in details
    assert "canary" not in details
    assert details.rpartition("(error ")[2].rstrip(")") in caplog.text
    assert "canary-secret" in caplog.text


def test_a_message_too_large_is_refused_before_it_is_read(channel):
    code, _ = refused(channel, b"\0" * (5 * 2**20))
    assert code.name == "RESOURCE_EXHAUSTED"


def test_a_number_that_does_not_fit_its_datatype_is_refused():
    request = CLASSES["ModelInferRequest"](model_name="duck")
    request.inputs.add(name="v", datatype="INT8", shape=[1]).contents.int_contents.append(300)
    with (
        made(lambda v: v, [required("v", pa.int8())], [pa.field("o", pa.int8())]).serving(**HERE) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        code, details = refused(channel, request)
    assert (code.name, details) == ("INVALID_ARGUMENT", "input 'v': wanted values that fit INT8")


MUTATIONS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(mutations=MUTATIONS, cut=st.integers(0, 40))
def test_whatever_bytes_come_they_are_answered_or_refused_and_never_an_inner_failure(server, mutations, cut):
    data = bytearray(asking().SerializeToString())
    for place, value in mutations:
        data[place % len(data)] = value
    with grpc.insecure_channel(server.grpc_address) as channel:
        assert outcome(channel, bytes(data[: len(data) - cut])) in {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
        assert call(channel, "ModelInfer", asking())


def outcome(channel, data):
    try:
        call(channel, "ModelInfer", data)
    except grpc.RpcError as error:
        return error.code().name if error.details() else "without a word"
    return "OK"


# --- keys, TLS, deadlines, the end -------------------------------------------------------------------------------------


def test_whoever_has_no_key_is_refused_and_probes_are_not(tmp_path):
    from mlinfer._online._keys import new_key

    key, line = new_key("them")
    (tmp_path / "keys.toml").write_text(line)
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        pipeline.serving(keys=tmp_path / "keys.toml", **HERE) as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        inputs = [tensor("v", np.array([7]), "INT64")]
        assert client.is_server_live()
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.infer("duck", inputs)
        found = client.infer("duck", inputs, headers={"authorization": f"Bearer {key}"})
        assert found.as_numpy("o").tolist() == [7]


def unsent():
    """A message that never comes."""
    threading.Event().wait(30)
    yield b""


def test_nothing_is_read_of_whoever_has_no_key(tmp_path):
    """It is refused before its message comes; a server that reads first waits for it, and takes memory."""
    from mlinfer._online._keys import new_key

    (tmp_path / "keys.toml").write_text(new_key("them")[1])
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        pipeline.serving(keys=tmp_path / "keys.toml", **HERE) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        assert never_sent(channel, "ModelInfer") == (
            "UNAUTHENTICATED",
            "wanted a valid key, as Authorization: Bearer KEY",
        )


def never_sent(channel, name):
    with pytest.raises(grpc.RpcError) as raised:
        channel.stream_unary(f"/inference.GRPCInferenceService/{name}")(unsent(), timeout=20)
    return raised.value.code().name, raised.value.details()


def test_a_message_that_does_not_come_is_waited_for_so_long():
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        serving(pipeline.job, Serving("127.0.0.1:0", **HERE), Patience(body=0.3)) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        found = never_sent(channel, "ModelInfer")
        assert found == ("DEADLINE_EXCEEDED", "wanted the whole message within 0.3 s")
        assert never_sent(channel, "ServerLive")[1] == "wanted the whole message within 1 s"


def test_a_call_that_ends_without_a_message_is_refused(channel):
    none = channel.stream_unary(INFER)
    with pytest.raises(grpc.RpcError, match="wanted a message, found none"):
        none(iter(()), timeout=20)


class Coming:
    """A call whose message comes over a socket, and by way of some turns of the loop, as gRPC hears of one."""

    def __init__(self):
        self.sender, receiver = socket.socketpair()
        self._receiver, self._loop = receiver, asyncio.get_running_loop()
        self._come = self._loop.create_future()
        self._loop.add_reader(receiver, lambda: self._hand_over(receiver.recv(9), turns=5))

    def _hand_over(self, found, turns):
        if turns:
            self._loop.call_soon(self._hand_over, found, turns - 1)
        else:
            self._come.set_result(found)

    async def read(self):
        try:
            return await self._come
        finally:
            self._loop.remove_reader(self._receiver)
            self._receiver.close()
            self.sender.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, _new_loop], ids=["Python's", "the quickest"])
def test_a_message_that_came_while_the_loop_stood_still_is_taken_however_long_that_was(loop):
    """A model may take longer than a probe's message may, and nobody's probe should fail over that."""

    async def read():
        coming = Coming()
        reading = asyncio.create_task(Messages(1, 0.05).read(coming, None))
        await asyncio.sleep(0)  # it waits for its message
        coming.sender.send(b"there")
        time.sleep(0.2)  # noqa: ASYNC251 - as a model does that counts as quick
        return await reading

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(read()) == b"there"


def test_so_many_messages_come_in_at_once_and_for_the_next_one_the_oldest_makes_room(monkeypatch):
    monkeypatch.setattr("mlinfer._online._grpc.MOST_READING", 2)
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        serving(pipeline.job, Serving("127.0.0.1:0", **HERE), Patience(body=10)) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        begun, come = time.perf_counter(), reads(monkeypatch)
        stuck = [channel.stream_unary(INFER).future(unsent(), timeout=40) for _ in range(2)]
        assert all(come.acquire(timeout=30) for _ in stuck)
        found = client.infer("duck", [tensor("v", np.array([3]), "INT64")]).as_numpy("o").tolist()
        assert found == [3]
        assert time.perf_counter() - begun > 0.9  # one of the others had its second
        until(lambda: any(one.done() for one in stuck))  # its client hears of it a moment later
        assert [one.details() for one in stuck if one.done()] == ["wanted the whole message within 1 s"]


def test_of_many_who_send_nothing_none_keeps_out_a_probe(monkeypatch):
    """Behind all of them, or for as long as a message may take, it would wait for longer than it may wait at all."""
    monkeypatch.setattr("mlinfer._online._grpc.PROBE_SECONDS", 5.0)
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        pipeline.serving(**HERE) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        check = channel.stream_unary("/grpc.health.v1.Health/Check")
        stuck = [check.future(unsent(), timeout=40) for _ in range(60)]
        for _ in range(3):
            assert client.is_server_live()
        until(lambda: any(one.done() for one in stuck))
        told = {one.details() for one in stuck if one.done()}
    assert {one for one in told if one.startswith("wanted")} == {"wanted the whole message within 0.5 s"}


def until(there):
    """Wait for a condition; the machine may be busy."""
    end = time.monotonic() + 30
    while not there():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def reads(monkeypatch):
    """Counts the messages that the server has begun to read."""
    begun, read = threading.Semaphore(0), Messages.read

    def counted(self, *asked):
        begun.release()
        return read(self, *asked)

    monkeypatch.setattr(Messages, "read", counted)
    return begun


def unsent_by(key, channel):
    return channel.stream_unary(INFER).future(unsent(), timeout=40, metadata=shows(key))


def shows(key):
    return (("authorization", f"Bearer {key}"),)


def test_messages_of_one_key_that_do_not_come_leave_room_for_those_of_another(two, monkeypatch):  # noqa: F811 - the fixture
    monkeypatch.setattr("mlinfer._online._grpc.MOST_READING", 4)
    path, ann, bob = two
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        serving(pipeline.job, Serving("127.0.0.1:0", keys=path, **HERE), Patience(body=30)) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        come = reads(monkeypatch)
        stuck = [unsent_by(ann, channel) for _ in range(4)]
        assert all(come.acquire(timeout=30) for _ in stuck)
        headers = dict(shows(bob))
        found = client.infer("duck", [tensor("v", np.array([3]), "INT64")], headers=headers).as_numpy("o")
        assert found.tolist() == [3]
        assert not any(one.done() for one in stuck), "one of them made room, or their time was over"


def test_a_key_that_floods_grpc_leaves_time_for_another(two, monkeypatch):  # noqa: F811 - the fixture
    """The model takes 20 records a second, and nobody waits for more than a second because of others."""
    path, ann, bob = two
    took = Pace.took
    monkeypatch.setattr(Pace, "took", lambda pace, rows, _: took(pace, rows, 0.05))  # on a busy machine, too

    def slow(v):
        time.sleep(0.05)
        return v

    pipeline = made(
        slow, [required("v", pa.int64())], [pa.field("o", pa.int64())], batching=Batching(max_records=1)
    )
    over = threading.Event()

    def ask(channel, key):
        try:
            channel.unary_unary(INFER)(one_number(), timeout=60, metadata=shows(key))
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    with serving(pipeline.job, Serving("127.0.0.1:0", keys=path, **HERE), Patience(queue=1.0)) as server:

        def flood():
            found = Counter()
            with grpc.insecure_channel(server.grpc_address) as channel:
                while not over.is_set():
                    found[ask(channel, ann)] += 1
                    over.wait(0.05)  # else the clients have the processor, and not the server
            return found

        with ThreadPoolExecutor(40) as pool, grpc.insecure_channel(server.grpc_address) as channel:
            known = ask(channel, bob)  # by which the server knows how long the model takes
            floods = [pool.submit(flood) for _ in range(40)]
            try:
                until(lambda: server.waiting >= 5)
                got = [ask(channel, bob) for _ in range(8)]
            finally:
                over.set()
            told = sum((one.result() for one in floods), Counter())
    assert [known, *got] == ["OK"] * 9
    assert set(told) == {"OK", "UNAVAILABLE"}


def one_number():
    class_ = CLASSES["ModelInferRequest"]
    request = class_(model_name="duck")
    request.inputs.add(name="v", datatype="INT64", shape=[1]).contents.int64_contents.append(3)
    return request.SerializeToString()


def test_a_message_that_is_still_coming_in_when_the_server_ends_is_refused(monkeypatch):
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with serving(pipeline.job, Serving("127.0.0.1:0", **HERE), Patience(stop=0.3)) as server:
        channel = grpc.insecure_channel(server.grpc_address)
        come = reads(monkeypatch)
        stuck = channel.stream_unary(INFER).future(unsent(), timeout=20)
        assert come.acquire(timeout=30)
    assert stuck.details() == "the server ends; ask again in a moment"
    channel.close()


def test_the_certificate_of_the_server_is_that_of_grpc_too(tls):  # noqa: F811 - the fixture
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with pipeline.serving(tls=tls, **HERE) as server:
        credentials = grpc.ssl_channel_credentials(tls[0].read_bytes())
        with grpc.secure_channel(server.grpc_address, credentials) as channel:
            assert (
                call(channel, "ServerLive", b"")
                == CLASSES["ServerLiveResponse"](live=True).SerializeToString()
            )
        with grpc.insecure_channel(server.grpc_address) as channel:
            code, _ = refused(channel, b"", "ServerLive")
    assert code.name == "UNAVAILABLE"


def test_requests_of_both_protocols_meet_in_one_batch():
    """While the first one is answered the others pile up, whatever way they came."""
    import httpx

    sizes, go = [], threading.Event()

    def slow(v):
        sizes.append(len(v))
        if len(sizes) == 1:
            go.wait(40)
        return v

    pipeline = made(slow, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with pipeline.serving(**HERE) as server, ThreadPoolExecutor(9) as pool:

        def by_grpc(n):
            with triton.InferenceServerClient(server.grpc_address) as client:
                return client.infer("duck", [tensor("v", np.array([n]), "INT64")]).as_numpy("o").tolist()

        def by_http(n):
            return [httpx.post(f"{server.url}/predict", json={"v": n}).json()["o"]]

        first = pool.submit(by_grpc, 0)
        until(lambda: sizes)
        rest = [pool.submit(by_grpc if n % 2 else by_http, n) for n in range(1, 9)]
        until(lambda: server.waiting == 8)
        go.set()
        assert [one.result() for one in [first, *rest]] == [[n] for n in range(9)]
    assert max(sizes[1:]) >= 4
    assert sum(sizes) == 9


def test_what_was_accepted_is_answered_when_the_server_ends():
    begun, go = threading.Event(), threading.Event()

    def slow(v):
        begun.set()
        go.wait(40)
        return v

    pipeline = made(slow, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with ThreadPoolExecutor(1) as pool:
        with pipeline.serving(**HERE) as server:
            client = triton.InferenceServerClient(server.grpc_address)
            asked = pool.submit(client.infer, "duck", [tensor("v", np.array([1]), "INT64")])
            assert begun.wait(40)
            threading.Timer(0.3, go.set).start()
        assert asked.result().as_numpy("o").tolist() == [1]


def test_a_call_that_comes_while_the_server_ends_is_unavailable_and_never_cancelled():
    """CANCELLED is what a caller gets who gave up: clients do not ask again for it."""
    pipeline = made(lambda x: x, [required("x", pa.float64())], [pa.field("y", pa.float64())])
    request, codes = CLASSES["ModelInferRequest"](model_name="duck"), []
    request.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(1.0)
    answered = threading.Semaphore(0)

    def ask_on(address):
        with grpc.insecure_channel(address) as channel:
            while True:
                try:
                    call(channel, "ModelInfer", request)
                    answered.release()
                except grpc.RpcError as error:
                    codes.append((error.code().name, error.details()))
                    return

    for _ in range(3):
        while answered.acquire(blocking=False):
            pass
        with ThreadPoolExecutor(8) as clients:
            with pipeline.serving(**HERE) as server:
                asking = [clients.submit(ask_on, server.grpc_address) for _ in range(8)]
                assert all(answered.acquire(timeout=20) for _ in range(100))  # they are at work
            for one in asking:
                one.result(20)
    assert {code for code, _ in codes} == {"UNAVAILABLE"}, codes
    assert "the server ends; ask again in a moment" in {details for _, details in codes}


def test_calls_that_come_while_the_loop_stands_still_at_the_end_are_unavailable_too(monkeypatch):
    apart, calls, close = [("grpc.use_local_subchannel_pool", 1)], [], GrpcServer.close
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])

    async def standing_still(server):
        def stand_still():
            calls.extend(channel.unary_unary(INFER).future(one_number(), timeout=60) for _ in range(100))
            time.sleep(2)

        asyncio.get_running_loop().call_later(LEAVING_SECONDS / 2, stand_still)
        await close(server)

    monkeypatch.setattr(GrpcServer, "close", standing_still)
    with ExitStack() as stack:
        with pipeline.serving(**HERE) as server:
            channel = stack.enter_context(grpc.insecure_channel(server.grpc_address, apart))
            assert channel.unary_unary(INFER)(one_number(), timeout=60)
        assert Counter(one.code().name for one in calls) == {"UNAVAILABLE": 100}


def test_an_answer_may_take_longer_than_a_request_that_still_comes_in_when_the_server_ends():
    """`stop` is for what is not there yet; what was accepted is finished, as over HTTP."""
    begun = threading.Event()

    def slow(v):
        begun.set()
        time.sleep(1)
        return v

    pipeline = made(slow, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with ThreadPoolExecutor(1) as pool:
        with serving(pipeline.job, Serving("127.0.0.1:0", **HERE), Patience(stop=0.1)) as server:
            client = triton.InferenceServerClient(server.grpc_address)
            asked = pool.submit(client.infer, "duck", [tensor("v", np.array([1]), "INT64")])
            assert begun.wait(40)
        assert asked.result().as_numpy("o").tolist() == [1]


def test_a_caller_whose_deadline_has_passed_is_told_and_his_work_is_dropped():
    sizes, go = [], threading.Event()

    def slow(v):
        sizes.append(v.tolist())
        go.wait(40)
        return v

    pipeline = made(slow, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with pipeline.serving(**HERE) as server, triton.InferenceServerClient(server.grpc_address) as client:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.infer, "duck", [tensor("v", np.array([1]), "INT64")])
            until(lambda: sizes)
            with pytest.raises(InferenceServerException, match=r"DEADLINE_EXCEEDED|Deadline"):
                client.infer("duck", [tensor("v", np.array([2]), "INT64")], client_timeout=0.3)
            # the server sees the deadline pass a moment later
            until(lambda: all(ask.abandoned for ask in server.desk._waiting))
            go.set()
            assert first.result().as_numpy("o").tolist() == [1]
        assert client.infer("duck", [tensor("v", np.array([3]), "INT64")]).as_numpy("o").tolist() == [3]
    assert sizes == [[1], [3]]


def test_there_are_so_many_connections_and_no_more(monkeypatch):
    """A process that may open 40 files: half of them for HTTP, and half of that for gRPC."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with pipeline.serving(**HERE) as server, ExitStack() as stack:
        address = server.grpc_address.split(":")
        opened = 0
        while opened < 30:
            one = stack.enter_context(socket.create_connection(address))
            one.settimeout(20)  # one too many is closed at once
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")  # what a client says first
            if not greeted(one):
                break
            opened += 1
        assert opened == 10


def test_calls_that_come_while_the_server_is_at_work_are_not_cancelled(monkeypatch):
    """Clients do not ask again for CANCELLED, which is what a caller gets who gave up."""
    monkeypatch.setattr("mlinfer._online._grpc.PROBE_SECONDS", 60.0)  # however slow the machine is
    apart, check = [("grpc.use_local_subchannel_pool", 1)], "/grpc.health.v1.Health/Check"
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with pipeline.serving(**HERE) as server, ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(server.grpc_address, apart)) for _ in range(8)]
        for channel in channels:
            assert channel.unary_unary(check)(b"", timeout=20)
        go = threading.Event()
        server.listener._loop.call_soon_threadsafe(go.wait, 20)
        try:
            calls = [
                channel.unary_unary(check).future(b"", timeout=60) for channel in channels for _ in range(250)
            ]
            time.sleep(1)  # until they are there
        finally:
            go.set()
        assert Counter((one.code().name, one.details()) for one in calls) == {("OK", ""): 2000}


def test_one_connection_holds_an_eighth_of_the_calls_at_most(server):
    with (
        socket.create_connection(server.grpc_address.split(":"), timeout=20) as one,
        one.makefile("rb") as said,
    ):
        one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        length, kind = int.from_bytes(said.read(3)), int.from_bytes(said.read(1))
        said.read(5)
        settings = said.read(length)
    assert kind == 4  # SETTINGS
    found = {
        int.from_bytes(settings[at : at + 2]): int.from_bytes(settings[at + 2 : at + 6])
        for at in range(0, length, 6)
    }
    assert found[3] == 256  # MAX_CONCURRENT_STREAMS


def greeted(one):
    """Whether the server speaks HTTP/2 with us."""
    try:
        return bool(one.recv(9))
    except OSError:
        return False


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "nowhere", "127.0.0.1"])
def test_an_address_that_others_can_reach_or_that_is_none_is_refused(bind):
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with pytest.raises(ConfigError, match=r"^grpc_bind: wanted"), pipeline.serving(grpc_bind=bind):
        pass


def test_a_taken_address_is_a_config_error_and_the_server_is_gone(server):
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        pytest.raises(ConfigError, match="grpc_bind: wanted to listen"),
        pipeline.serving(grpc_bind=server.grpc_address),
    ):
        pass


def test_one_address_is_not_for_both_protocols():
    bind = f"127.0.0.1:{free_port()}"
    pipeline = made(lambda v: v, [required("v", pa.int64())], [pa.field("o", pa.int64())])
    with (
        pytest.raises(ConfigError, match=r"bind: wanted to listen at .*in use"),
        pipeline.serving(bind, grpc_bind=bind),
    ):
        pass


def test_grpc_is_not_imported_unless_it_is_spoken():
    code = """
import sys
from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource
host = FunctionHost(lambda r: {"o": r["v"]}, {"v": "int64"}, {"o": "int64"}, version="1")
with InferencePipeline(MemorySource({"v": [1]}), host, MemoryDestination(), name="p").serving():
    print("grpc" in sys.modules, "google.protobuf" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
