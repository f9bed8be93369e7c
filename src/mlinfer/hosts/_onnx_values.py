"""Inputs and outputs of an ONNX model, as columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ComponentError, ConfigError
from mlinfer.hosts._onnx_session import errors, said

TYPES: dict[str, tuple[Any, pa.DataType]] = {
    "tensor(float)": (np.float32, pa.float32()),
    "tensor(double)": (np.float64, pa.float64()),
    "tensor(float16)": (np.float16, pa.float16()),
    "tensor(bool)": (np.bool_, pa.bool_()),
    "tensor(string)": (np.object_, pa.string()),
    **{
        f"tensor({name})": (np.dtype(name).type, pa.from_numpy_dtype(name))
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}
"""By ONNX Runtime's name: numpy's type and Arrow's."""

MOST_VALUES = 2**24
"""In the tensor of one record."""


@dataclass(frozen=True)
class Value:
    """A tensor with one entry per record: `shape` is that of one record, `batch` how many records it must hold (None: any)."""

    name: str
    dtype: Any
    kind: pa.DataType
    batch: int | None
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Name and shape."""
        return f"{self.name}: {('n' if self.batch is None else self.batch, *self.shape)}"

    @property
    def width(self) -> int:
        """How many values a record has in it."""
        return math.prod(self.shape)

    @property
    def field(self) -> pa.Field:
        """Its column."""
        if self.width == 1:
            return pa.field(self.name, self.kind, nullable=False)
        item = pa.field("item", self.kind, nullable=False)
        return pa.field(self.name, pa.list_(item, self.width), nullable=False)

    def tensor(self, column: np.ndarray) -> np.ndarray:
        """A column, (n,) or (n, k), as the model takes it."""
        return np.ascontiguousarray(column, self.dtype).reshape(len(column), *self.shape)

    def column(self, tensor: np.ndarray) -> np.ndarray:
        """What the model answered, as a column."""
        return tensor.reshape(len(tensor)) if self.width == 1 else tensor.reshape(len(tensor), self.width)

    def zeros(self, rows: int) -> np.ndarray:
        """Zeros, or empty texts."""
        filler: Any = "" if self.dtype is np.object_ else 0
        return np.full((rows, *self.shape), filler, self.dtype)

    def empty(self) -> np.ndarray:
        """The column of no records."""
        return (
            self.column(np.empty((0, *self.shape), self.dtype))
            if self.width != 1
            else np.empty(0, self.dtype)
        )


def value_of(found: Any, where: str) -> Value:
    """What ONNX Runtime says of an input or output. Raises ConfigError: it is no column."""
    value = _declared(found, where)
    if value is None:
        msg = (
            f"{where}: wanted a fixed size in every dimension of {found.name!r} but the first, found {found.shape}; fix it "
            "(python -m onnxruntime.tools.make_dynamic_shape_fixed), or export the model with fixed sizes"
        )
        raise ConfigError(msg)
    return value


def check_single(name: str, answers: Sequence[np.ndarray]) -> None:
    """Raises ComponentError: one of the answers, each to a single record, is none or several."""
    for answer in answers:
        if answer.shape[:1] != (1,):
            found = len(answer) if answer.ndim else "a single value"
            msg = f"wanted one answer {name!r} for each record, found {found} for one; a model must answer each record once, in order"
            raise ComponentError(msg)


def seen(session: Any, ask: Callable[[int], list[np.ndarray]], where: str) -> list[Value]:
    """The outputs of a model. Unless they declare the first dimension of an input, they are seen from what it answers to zeros.

    Raises ConfigError: one is no column.
    """
    outputs = session.get_outputs()
    declared = [_declared(one, where) for one in outputs]
    told = [value for value in declared if value is not None and value.batch in {None, 1}]
    counts = {one.shape[0] for one in session.get_inputs()} - {None}
    if len(told) == len(outputs) and all(one.shape[0] in counts for one in outputs):
        return told
    try:
        two, three = ask(2), ask(3)  # of two numbers, so that a turned matrix is not taken for its records
    except ComponentError as error:
        msg = f"{where}: wanted outputs with one answer per record, found another number: {error}"
        raise ConfigError(msg) from error
    except errors() as error:
        if len(told) == len(outputs):
            return told
        msg = f"{where}: wanted outputs of declared shapes, found {[one.shape for one in outputs]}, and no answer to a record of zeros ({said(error)}); export the model with declared shapes"
        raise ConfigError(msg) from error
    return [_seen(one, answers, where) for one, *answers in zip(outputs, two, three, strict=True)]


def _seen(found: Any, answers: Sequence[np.ndarray], where: str) -> Value:
    """An output that was answered to two and to three records."""
    for rows, answer in enumerate(answers, 2):
        if answer.shape != (rows, *answers[0].shape[1:]):
            msg = f"{where}: wanted outputs with one answer per record, found {found.name!r} of shape {answer.shape} for {rows} records"
            raise ConfigError(msg)
    value = Value(found.name, *_types(found, where), None, answers[0].shape[1:])
    _check_width(value.width, found.name, value.shape, where)
    return value


def _declared(found: Any, where: str) -> Value | None:
    dtype, kind = _types(found, where)
    shape = list(found.shape or [])
    if not shape or any(not isinstance(size, int) or size < 1 for size in shape[1:]):
        return None
    _check_width(math.prod(shape[1:]), found.name, found.shape, where)
    return Value(found.name, dtype, kind, shape[0] if isinstance(shape[0], int) else None, tuple(shape[1:]))


def _check_width(width: int, name: str, shape: Sequence[Any], where: str) -> None:
    if width > MOST_VALUES:
        msg = f"{where}: wanted at most {MOST_VALUES:,} values per record, found {name!r} of shape {shape}"
        raise ConfigError(msg)


def _types(found: Any, where: str) -> tuple[Any, pa.DataType]:
    if found.type not in TYPES:
        maps = "; convert the model with options={'zipmap': False}" if "map(" in found.type else ""
        msg = f"{where}: wanted tensors of numbers, texts or booleans, found {found.name!r} of type {found.type}{maps}"
        raise ConfigError(msg)
    return TYPES[found.type]
