"""Looks into an ONNX file before it is run: it must not name other files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlinfer import ConfigError
from mlinfer.hosts._onnx_session import said

DEEPEST = 100
"""Graphs in graphs; ONNX Runtime itself gives up earlier."""


def check_self_contained(content: bytes, where: str) -> None:
    """Raises ConfigError: a tensor lies in another file, or this is no ONNX model.

    Every message of the file is looked at, wherever it stands: graphs inside nodes, functions, sparse tensors.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        msg = "an ONNX model wants the package onnx, which is not installed: pip install 'mlinfer[onnx]'"
        raise ConfigError(msg) from error
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        msg = f"{where}: wanted an ONNX model, found something damaged or foreign ({said(error)})"
        raise ConfigError(msg) from error
    for tensor in _tensors(model, 0, where):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            msg = (
                f"{where}: wanted a model that holds its tensors itself, found {tensor.name!r} in another file; put them "
                "into one: onnx.save_model(onnx.load(...), path, save_as_external_data=False)"
            )
            raise ConfigError(msg)


def _tensors(message: Any, depth: int, where: str) -> Iterator[Any]:
    if depth > DEEPEST:
        msg = f"{where}: wanted graphs at most {DEEPEST} deep, found deeper ones"
        raise ConfigError(msg)
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "DESCRIPTOR") else value:  # else it is a list of messages
            yield from _tensors(inner, depth + 1, where)
