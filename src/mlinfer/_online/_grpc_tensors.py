"""Requests and answers of the Open Inference Protocol as gRPC writes them: typed contents, or raw bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlinfer._online._desk import Ask
from mlinfer._online._grpc_messages import CLASSES
from mlinfer._online._oip_tensors import Asked, Brought, Tensors, chosen
from mlinfer._online._outputs import OutputTensor
from mlinfer._online._tensors import (
    DTYPES,
    MOST_RANK,
    check_count,
    check_lengths,
    check_number,
    check_shape,
    from_bytes,
)
from mlinfer._online._wire import Refused
from mlinfer._text import shown

CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Where the elements of a datatype stand; FP16 has no place there, it goes as raw bytes."""


@dataclass(frozen=True, slots=True)
class AskedByGrpc(Asked):
    """`raw`: the request held raw bytes, so the answer does, too."""

    raw: bool = False


class GrpcTensors(Tensors):
    """Tensors in messages."""

    def read(self, request: Any) -> tuple[Brought, int]:
        """What a request brings and asks for, and about how many records. Raises Refused, RecordErrors."""
        raw = len(request.raw_input_contents) > 0
        columns, rows = self.columns(_inputs(request))
        names = self.names([output.name for output in request.outputs])
        return Brought(columns, AskedByGrpc(request.id or None, names, raw=raw)), rows

    def _answer(self, ask: Ask, version: str, outputs: Sequence[OutputTensor], start: int) -> None:
        asked: AskedByGrpc = ask.content.asked
        some = chosen(outputs, asked)
        raw = asked.raw or any(one.datatype not in CONTENTS for one in some)
        response = CLASSES["ModelInferResponse"](
            model_name=self.model, model_version=version, id=asked.id or ""
        )
        for one in some:
            shape, elements = one.cut(start, ask.rows)
            output = response.outputs.add(name=one.name, datatype=one.datatype, shape=shape)
            if raw:
                response.raw_output_contents.append(one.in_bytes(elements))
            else:
                getattr(output.contents, CONTENTS[one.datatype]).extend(one.typed(elements))
        ask.caller.answer(response.SerializeToString())


def _inputs(request: Any) -> dict[str, tuple[Sequence[int], Any]]:
    """The inputs by name, as shape and elements. Raises Refused."""
    raw = request.raw_input_contents
    check_number(len(request.inputs))
    if raw and len(raw) != len(request.inputs):
        raise Refused(400, f"wanted raw contents for each of {len(request.inputs)} inputs, found {len(raw)}")
    found: dict[str, tuple[Sequence[int], Any]] = {}
    for number, tensor in enumerate(request.inputs):
        if tensor.name in found:
            raise Refused(400, f"input {shown(tensor.name)}: wanted it once, found it twice")
        shape = list(tensor.shape[: MOST_RANK + 1])  # of more it is refused, however many there are
        elements = check_shape(tensor.name, shape, tensor.datatype)
        filled = [field.name for field, _ in tensor.contents.ListFields()]
        if raw and filled:
            raise Refused(400, f"input {shown(tensor.name)}: wanted raw contents or typed ones, found both")
        if raw:
            values = from_bytes(tensor.name, tensor.datatype, raw[number], elements)
        else:
            values = _typed(tensor, filled, elements)
        found[tensor.name] = shape, values
    return found


def _typed(tensor: Any, filled: list[str], elements: int) -> Any:
    place = CONTENTS.get(tensor.datatype)
    if place is None:
        raise Refused(400, f"input {shown(tensor.name)}: wanted {tensor.datatype} as raw contents")
    if set(filled) - {place}:
        raise Refused(400, f"input {shown(tensor.name)}: wanted its elements in {place}, found {filled[0]}")
    values = getattr(tensor.contents, place)
    check_count(tensor.name, values, elements)
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        check_lengths(tensor.name, values)
        return list(values)
    try:
        return np.array(values, dtype)
    except OverflowError as error:
        raise Refused(400, f"input {shown(tensor.name)}: wanted values that fit {tensor.datatype}") from error
