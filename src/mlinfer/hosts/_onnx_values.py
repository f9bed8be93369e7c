"""Inputs and outputs of an ONNX model, as columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError
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


def seen(session: Any, ask: Callable[[], list[np.ndarray]], where: str) -> list[Value]:
    """The outputs of a model; those that do not declare their shape are seen from what it answers to zeros.

    Raises ConfigError: one is no column.
    """
    declared = [_declared(one, where) for one in session.get_outputs()]
    if all(value is not None and value.batch in {None, 1} for value in declared):
        return [value for value in declared if value is not None]
    try:
        answers = ask()
    except errors() as error:
        msg = f"{where}: wanted outputs of declared shapes, found {[one.shape for one in session.get_outputs()]}, and no answer to a record of zeros ({said(error)}); export the model with declared shapes"
        raise ConfigError(msg) from error
    values = []
    for one, answer in zip(session.get_outputs(), answers, strict=True):
        if answer.ndim < 1 or len(answer) != 2:  # noqa: PLR2004 - two records were asked
            msg = f"{where}: wanted outputs with one answer per record, found {one.name!r} of shape {answer.shape} for 2 records"
            raise ConfigError(msg)
        values.append(Value(one.name, *_types(one, where), None, answer.shape[1:]))
    return values


def _declared(found: Any, where: str) -> Value | None:
    dtype, kind = _types(found, where)
    shape = list(found.shape or [])
    if not shape or any(not isinstance(size, int) or size < 1 for size in shape[1:]):
        return None
    if math.prod(shape[1:]) > MOST_VALUES:
        msg = f"{where}: wanted at most {MOST_VALUES:,} values per record, found {found.name!r} of shape {found.shape}"
        raise ConfigError(msg)
    return Value(found.name, dtype, kind, shape[0] if isinstance(shape[0], int) else None, tuple(shape[1:]))


def _types(found: Any, where: str) -> tuple[Any, pa.DataType]:
    if found.type not in TYPES:
        maps = "; convert the model with options={'zipmap': False}" if "map(" in found.type else ""
        msg = f"{where}: wanted tensors of numbers, texts or booleans, found {found.name!r} of type {found.type}{maps}"
        raise ConfigError(msg)
    return TYPES[found.type]
