"""The JSON of the Open Inference Protocol, typed."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mlinfer._online._json import DEEPEST


class Tensor(msgspec.Struct, gc=False):
    """An input: `data` in row-major order, flat or nested, unless its elements follow in binary."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | UnsetType | None = UNSET
    data: Raw | UnsetType = UNSET


class Output(msgspec.Struct, gc=False):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] | UnsetType | None = UNSET


class Request(msgspec.Struct, gc=False):
    """An inference request; some clients write null for what they leave out."""

    inputs: list[Tensor]
    id: str | UnsetType | None = UNSET
    parameters: dict[str, Any] | UnsetType | None = UNSET
    outputs: list[Output] | UnsetType | None = UNSET

    def binary_outputs(self, names: tuple[str, ...]) -> frozenset[str]:
        """Which outputs the client wants in binary."""
        every = isinstance(self.parameters, dict) and self.parameters.get("binary_data_output") is True
        asked = {one.name: one.parameters for one in self.outputs or ()}
        return frozenset(
            name for name in names if (dict(asked.get(name) or {}).get("binary_data", every) is True)
        )


def keys_of(request: Request) -> int:
    """How many keys the JSON of a request has, if none comes twice and nothing is in it that is not looked at."""
    count = 1 + (request.id is not UNSET)
    for parameters in (
        request.parameters,
        *((o.parameters for o in request.outputs) if request.outputs else ()),
    ):
        if parameters is not UNSET:
            count += 1 + len(parameters or ())
    if request.outputs is not UNSET:
        count += 1 + len(request.outputs or ())
    for tensor in request.inputs:
        count += 3 + (tensor.data is not UNSET)
        if tensor.parameters is not UNSET:
            count += 1 + len(tensor.parameters or ())
    return count


class Codec:
    """Decoders that are made once."""

    def __init__(self) -> None:
        self.request = msgspec.json.Decoder(Request).decode
        self.encode = msgspec.json.encode
        self._flat: dict[type, Any] = {
            float: msgspec.json.Decoder(list[float]).decode,
            int: msgspec.json.Decoder(list[int]).decode,
            bool: msgspec.json.Decoder(list[bool]).decode,
            str: msgspec.json.Decoder(list[str]).decode,
        }
        self._any = msgspec.json.Decoder(list[Any]).decode

    def elements(self, datatype: str, data: Raw | UnsetType) -> tuple[list[Any], bool]:
        """The elements of an input in row-major order, and whether some may be null.

        Raises ValueError: values of another type.
        """
        if data is UNSET:
            msg = "no data"
            raise ValueError(msg)
        kind = _KINDS.get(datatype, int)
        try:
            return self._flat[kind](data), False
        except msgspec.ValidationError:
            return _leaves(self._any(data), kind), True  # nested, or with a null


def _leaves(values: list[Any], kind: type) -> list[Any]:
    levels = _AROUND
    while any(type(one) is list for one in values):
        levels += 1
        if levels > DEEPEST or not all(type(one) is list for one in values):
            msg = "lists beside values, or too many in each other"
            raise ValueError(msg)
        values = list(chain.from_iterable(values))
    allowed = {type(None), kind} | ({int} if kind is float else set())
    if not set(map(type, values)) <= allowed:
        msg = "another type"
        raise ValueError(msg)
    return values


_AROUND = 4
"""Levels of a request down to a flat `data`: the object, its inputs, one of them, the list."""
_KINDS = {"FP16": float, "FP32": float, "FP64": float, "BOOL": bool, "BYTES": str}


@cache
def codec() -> Codec:
    """The codec."""
    return Codec()
