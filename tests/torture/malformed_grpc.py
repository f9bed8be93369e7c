"""Calls of gRPC whose bytes are damaged: each gets a clear status, or the right answer, and the server goes on."""

import random
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from torture import collected, damage, judging
from torture.judging import REFUSAL, Bad
from torture.malformed import SECRETS, Judge, served

SERVICE = "/inference.GRPCInferenceService/"
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND"}
MOST_MESSAGE_BYTES = 4 * 2**20


def over_grpc(seed, requests):
    """So many calls that are damaged; a good one after every hundred."""
    import grpc

    dice = random.Random(seed)
    texts = collected.elements(dice)
    with served() as (child, _, address, said), grpc.insecure_channel(address) as channel:
        judge = Judge(child, seed)
        for number in range(requests):
            text = next(texts) if number % collected.EVERY == 0 else None
            made = dice.choices(KINDS, WEIGHTS)[0] if text is None else partial(holding, text)
            name, data = made(dice)
            _judge(
                judge,
                getattr(made, "__name__", "collected"),
                data,
                _call(channel, name, data),
                _owed(name, data),
            )
            if number % 50 == 0:
                _noise(address, dice.randbytes(dice.choice([1, 100, 3000])))
            if number % 100 == 99:
                data = _good(dice).SerializeToString()
                _judge(judge, "good", data, _call(channel, "ModelInfer", data), _owed("ModelInfer", data))
                judge.look(number + 1)
        figures = judge.figures(requests, said)
        figures.notes.append(collected.note())
        return figures


def _call(channel, name, data):
    """The code, and the answer or the details."""
    import grpc

    try:
        return "OK", channel.unary_unary(SERVICE + name)(data, timeout=30)
    except grpc.RpcError as error:
        return error.code().name, error.details()


def _noise(address, data):
    """Bytes that are no HTTP/2."""
    host, port = address.split(":")
    with suppress(OSError), socket.create_connection((host, int(port))) as one:
        one.sendall(data)


# --- what is owed -------------------------------------------------------------------------------------------------------


def _judge(judge, kind, data, found, owed):  # noqa: PLR0917 - what was asked, came and is owed
    code, answer = found
    judge.seen[code] += 1
    if code == "OK":
        if owed.answers is None:
            judge.blame("answered what must be refused", kind, data)
        elif owed.answers is not ... and _given(answer) != owed.answers:
            judge.blame("answered wrongly", kind, data)
        return
    allowed = owed.codes if isinstance(owed, Coded) else REFUSALS
    if code not in allowed or not answer or SECRETS.search(answer.encode()):
        judge.blame(f"{code} {answer!r:.300}", kind, data)
    elif owed.answers is not None and owed.sure:
        judge.blame(f"refused what is right: {answer}", kind, data)


@dataclass
class Coded(judging.Owed):
    """A refusal with a code that gRPC itself gives."""

    codes: tuple[str, ...] = ()


TOO_MUCH, UNKNOWN = Coded(codes=("RESOURCE_EXHAUSTED",)), Coded(codes=("UNIMPLEMENTED",))


def _owed(name, data):
    from google.protobuf.message import DecodeError

    from mlinfer._online._grpc_messages import (
        CLASSES,
    )  # the classes are protobuf's own, made of a description

    if len(data) > MOST_MESSAGE_BYTES:
        return TOO_MUCH
    if f"{name}Request" not in CLASSES:
        return UNKNOWN
    try:
        asked = CLASSES[f"{name}Request"].FromString(data)
        if name == "ModelInfer":
            return _of_infer(asked)
        if name.startswith("Model") and (asked.name != "duck" or asked.version not in {"", "1"}):
            raise Bad
    except (DecodeError, Bad):
        return REFUSAL
    return judging.ANYTHING


def _of_infer(asked):
    if asked.model_name != "duck" or asked.model_version not in {"", "1"}:
        raise Bad
    raw, tensors = list(asked.raw_input_contents), []
    if raw and len(raw) != len(asked.inputs):
        raise Bad
    for number, one in enumerate(asked.inputs):
        elements = judging.count(list(one.shape), one.datatype)
        filled = {field.name for field, _ in one.contents.ListFields()}
        if raw:
            if filled:
                raise Bad
            values = judging.from_bytes(one.datatype, raw[number], elements)
        elif one.datatype == "FP16" or filled - {CONTENTS[one.datatype]}:
            raise Bad
        else:
            values = list(getattr(one.contents, CONTENTS[one.datatype]))
            values = [judging.text(value) for value in values] if one.datatype == "BYTES" else values
            if len(values) != elements or not all(map(partial(judging.fits, one.datatype), values)):
                raise Bad
        tensors.append((one.name, one.datatype, list(one.shape), values))
    return judging.of_tensors(tensors, [one.name for one in asked.outputs])


def _given(data):
    from mlinfer._online._grpc_messages import CLASSES

    answer, columns = CLASSES["ModelInferResponse"].FromString(data), {}
    for number, one in enumerate(answer.outputs):
        elements = judging.count(list(one.shape), one.datatype)
        if answer.raw_output_contents:
            columns[one.name] = judging.from_bytes(one.datatype, answer.raw_output_contents[number], elements)
        else:
            values = list(getattr(one.contents, CONTENTS[one.datatype]))
            columns[one.name] = [v.decode() for v in values] if one.datatype == "BYTES" else values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# --- kinds of damage ----------------------------------------------------------------------------------------------------


def _good(dice, *, raw=None):
    """A request that is right, in typed or raw contents."""
    from mlinfer._online._grpc_messages import CLASSES

    rows, raw = damage.some(dice), dice.random() < 0.5 if raw is None else raw
    request = CLASSES["ModelInferRequest"](model_name="duck", id="7")
    for one in damage.tensors(rows)[0]["inputs"]:
        tensor = request.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        if raw:
            request.raw_input_contents.append(damage.packed(one["datatype"], one["data"]))
            continue
        flat = [inner for value in one["data"] for inner in (value if isinstance(value, list) else [value])]
        flat = [value.encode() for value in flat] if one["datatype"] == "BYTES" else flat
        getattr(tensor.contents, CONTENTS[one["datatype"]]).extend(flat)
    return request


def bytes_(dice):
    """Any bytes of a right message changed."""
    return "ModelInfer", damage.bytes_changed(dice, _good(dice).SerializeToString())


def holding(text, dice):
    """A right message but for one of its texts, which is this one."""
    request = _good(dice, raw=False)
    request.inputs[0].contents.bytes_contents[0] = text
    return "ModelInfer", request.SerializeToString()


def spliced(dice):
    """The beginning of one message and the end of another."""
    first, second = (_good(dice).SerializeToString() for _ in range(2))
    return "ModelInfer", first[: dice.randrange(len(first) + 1)] + second[dice.randrange(len(second) + 1) :]


def fields(dice):
    """A right message with fields that do not go together."""
    request = _good(dice)
    tensor, way = dice.choice(request.inputs), dice.randrange(7)
    if way == 0:
        tensor.shape[:] = dice.choice(
            [[], [0], [-1], [2**31], [2**62, 4], [2**40], [65_537], [1] * 9, [1, 1], [3], [2, 3], [1, 0]]
        )
    elif way == 1:
        tensor.datatype = dice.choice(
            [*CONTENTS, "FP16", "FP8", "", "fp64", "STRING", "\u0000", "BYTES " * 100]
        )
    elif way == 2:
        tensor.name = dice.choice([*damage.STRINGS[:-1], "x", "who"]).encode("utf-8", "replace").decode()
    elif way == 3:
        request.model_name, request.model_version = dice.choice(
            [("goose", ""), ("", ""), ("duck", "9"), ("../duck", ""), ("duck", "1"), ("DUCK", "")]
        )
    elif way == 4:
        getattr(tensor.contents, dice.choice([*CONTENTS.values()])).extend([])
        tensor.contents.fp64_contents.extend([float("nan")] * dice.choice([1, 2, 5]))
    elif way == 5:
        request.outputs.add(name=dice.choice(["y", "whose", "z", "", "y" * 5000]))
    else:
        del request.inputs[dice.randrange(len(request.inputs)) :]
    return "ModelInfer", request.SerializeToString()


def raw_(dice):
    """Raw contents of the wrong number, the wrong length, or of another kind."""
    request = _good(dice, raw=True)
    contents = request.raw_input_contents
    place, way = dice.randrange(len(contents)), dice.randrange(5)
    if way == 0:
        contents[place] = damage.bytes_changed(dice, contents[place])
    elif way == 1:
        contents.append(dice.randbytes(8))
    elif way == 2:
        del contents[place]
    elif way == 3:
        contents[place] = dice.choice([b"", b"\xff" * 8, b"\xff\xff\xff\x7f", dice.randbytes(1000)])
    else:
        contents.extend([b""] * dice.choice([1, 250, 5000]))
    return "ModelInfer", request.SerializeToString()


def huge(dice):
    """Counts that nobody should allocate for."""
    request, way = _good(dice), dice.randrange(5)
    if way == 0:
        for number in range(dice.choice([250, 300, 3000])):
            request.inputs.add(name=f"z{number}", datatype="FP64", shape=[1])
    elif way == 1:
        request.inputs[1].shape[:] = [400_000]
        request.inputs[1].contents.fp64_contents.extend([1.0] * 400_000)
    elif way == 2:
        request.inputs[1].shape.extend([1] * 100_000)
    elif way == 3:
        return (
            "ModelInfer",
            request.SerializeToString() + b"\x3a\xff\xff\xff\xff\x0f",
        )  # bytes of 4 GB, promised
    else:
        return "ModelInfer", b"\0" * (MOST_MESSAGE_BYTES + 2**20)
    return "ModelInfer", request.SerializeToString()


def other(dice):
    """Other calls, with any bytes; calls that there are not."""
    names = [
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
        "ModelMetadata",
        "ModelStreamInfer",
        "RepositoryModelLoad",
        "x",
    ]
    return dice.choice(names), dice.choice(
        [b"", b"\x0a\x04duck", b"\x0a\x05goose", b"\x0b" * 300, dice.randbytes(20)]
    )


KINDS = (bytes_, spliced, fields, raw_, huge, other)
WEIGHTS = (30, 10, 25, 20, 3, 12)
