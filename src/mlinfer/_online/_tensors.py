"""Columns as the tensors of the Open Inference Protocol, and tensors as columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import from_numpy, from_values
from mlinfer._casts import cast, compatible, is_bytes, is_list
from mlinfer._errors import RecordErrors
from mlinfer._online._wire import MOST_ROWS, Refused
from mlinfer._text import shown

MOST_RANK = 8
MOST_SIZE = 2**31
MOST_ELEMENTS = 2**24
MOST_TENSORS = 256
LONGEST_ELEMENT = 2**20
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"), "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("<i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip
DATATYPES = (*DTYPES, "BYTES")
_BY_TYPE = {pa.from_numpy_dtype(dtype): name for name, dtype in DTYPES.items()}


def stored(kind: pa.DataType) -> pa.DataType:
    """What stands for an extension type, also in lists: UUIDs are bytes of a fixed size."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if not is_list(kind) or not isinstance(kind.value_type, pa.BaseExtensionType):
        return kind
    inner = kind.value_field.with_type(kind.value_type.storage_type)
    if pt.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    return pa.large_list(inner) if pt.is_large_list(kind) else pa.list_(inner)


@dataclass(frozen=True, slots=True)
class Kind:
    """How a field looks as a tensor: its datatype, and its shape beside the rows (-1: any length)."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @staticmethod
    def of(field: pa.Field) -> Kind:
        """The kind of a field; times and decimals are texts."""
        inner: pa.DataType = stored(field.type)
        shape: tuple[int, ...] = ()
        if is_list(inner):
            shape = (inner.list_size if pt.is_fixed_size_list(inner) else -1,)
            inner = inner.value_type
        if pt.is_dictionary(inner):  # a way to store values, not to say them
            inner = inner.value_type
        return Kind(field.name, _BY_TYPE.get(inner, "BYTES"), shape)

    def described(self) -> dict[str, Any]:
        """As model metadata say it."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.shape]}


def check_number(tensors: int) -> None:
    """Raises Refused: a request brings none, or more than it may."""
    if tensors > MOST_TENSORS:
        msg = (
            f"wanted 1 to {MOST_TENSORS} inputs, found {tensors:,}; bring all of them as the columns of one matrix of another name, "
            "in the order of the model's inputs, or ask POST /predict"
        )
        raise Refused(400, msg)
    if not tensors:
        raise Refused(400, f"wanted 1 to {MOST_TENSORS} inputs")


def check_shape(name: str, shape: Sequence[int], datatype: str) -> int:
    """The number of elements, counted before anything is allocated. Raises Refused."""
    if datatype not in DATATYPES:
        raise Refused(400, f"input {shown(name)}: wanted a datatype among {', '.join(DATATYPES)}")
    if not 1 <= len(shape) <= MOST_RANK or any(not 0 <= size <= MOST_SIZE for size in shape):
        raise Refused(
            400, f"input {shown(name)}: wanted a shape of 1 to {MOST_RANK} sizes, none of them negative"
        )
    if shape[0] > MOST_ROWS:
        raise Refused(413, f"wanted at most {MOST_ROWS:,} records in a request")
    if shape[0] == 0:
        raise Refused(400, f"input {shown(name)}: wanted at least one record")
    elements = math.prod(shape)
    if elements > MOST_ELEMENTS:
        raise Refused(413, f"input {shown(name)}: wanted at most {MOST_ELEMENTS:,} elements")
    return elements


def from_bytes(name: str, datatype: str, data: bytes | memoryview, elements: int) -> np.ndarray | list[bytes]:
    """The elements of a binary tensor; numbers are looked at where they lie. Raises Refused."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        return _texts(name, data, elements)
    if len(data) != elements * dtype.itemsize:
        msg = f"input {shown(name)}: wanted {elements * dtype.itemsize:,} bytes for its shape, found {len(data):,}"
        raise Refused(400, msg)
    values: np.ndarray = np.frombuffer(data, dtype)
    if datatype == "BOOL" and elements and values.view(np.uint8).max() > 1:
        raise Refused(400, f"input {shown(name)}: wanted a byte of 0 or 1 for every BOOL")
    return values


def _texts(name: str, data: bytes | memoryview, elements: int) -> list[bytes]:
    found: list[bytes] = []
    view, start = memoryview(data), 0
    while start < len(view) and len(found) < elements:
        size = int.from_bytes(view[start : start + 4], "little")
        start += 4
        if size > LONGEST_ELEMENT or start + size > len(view):
            msg = f"input {shown(name)}: wanted every BYTES element as its length in 4 bytes, at most {LONGEST_ELEMENT:,}, and so many bytes"
            raise Refused(400, msg)
        found.append(bytes(view[start : start + size]))
        start += size
    if len(found) != elements or start != len(view):
        raise Refused(400, f"input {shown(name)}: wanted {elements:,} BYTES elements and nothing behind them")
    return found


def check_count(name: str, values: Sequence[Any], elements: int) -> None:
    """Raises Refused: there are more or fewer elements than the shape says."""
    if len(values) != elements:
        msg = f"input {shown(name)}: wanted {elements:,} elements for its shape, found {len(values):,}"
        raise Refused(400, msg)


def check_lengths(name: str, values: Sequence[Any]) -> None:
    """As in binary, so in every other way to say them. Raises Refused: a text is longer than an element may be."""
    for one in values:
        if one is None or 4 * len(one) <= LONGEST_ELEMENT:  # a character has at most four bytes
            continue
        size = len(one.encode(errors="replace") if isinstance(one, str) else one)
        if size > LONGEST_ELEMENT:
            msg = f"input {shown(name)}: wanted BYTES elements of at most {LONGEST_ELEMENT:,} bytes, found one of {size:,}"
            raise Refused(400, msg)


class Column:
    """A column that tensors are read into."""

    def __init__(self, field: pa.Field) -> None:
        whole = field.type  # what it is to be; conform makes it that of what stands for it
        self.field, self.name = field.with_type(stored(whole)), field.name
        field = self.field
        self._width = Kind.of(field).shape
        self._scalar = field.type.value_type if self._width else field.type
        self._dtype = DTYPES.get(_BY_TYPE.get(self._scalar, ""))
        plain = self._scalar == field.type or bool(pt.is_fixed_size_list(field.type))
        # to numpy, None is a name for float64
        self._as_is = plain and field.type == whole and self._dtype is not None

    def of(self, elements: Any, shape: Sequence[int]) -> pa.Array | np.ndarray:
        """Elements in row-major order, an array of Arrow or numpy or a list, as values of this column.

        Numbers of just its type are left in numpy for `joined`: most requests bring few of them, and an array of Arrow for
        each would cost more than the model. Raises Refused: another shape or another kind of values; RecordErrors: values
        that do not fit the type.
        """
        inner, width, name = shape[1:], self._width, self.name
        if not width and math.prod(inner) != 1:
            raise Refused(400, f"input {shown(name)}: wanted the shape [-1], found {list(shape)}")
        if width and (len(inner) != 1 or width[0] not in {-1, inner[0]}):
            raise Refused(400, f"input {shown(name)}: wanted the shape {[-1, *width]}, found {list(shape)}")
        if self._as_is and isinstance(elements, np.ndarray) and elements.dtype == self._dtype:
            return elements
        flat = _flat(name, elements, self._scalar)
        if not width:
            return _fitting(flat, self.field)
        if not inner[0]:  # of which Arrow makes no lists of a fixed size
            return pa.array([[]] * shape[0], self.field.type)
        flat, unfit = cast(flat, self._scalar)
        if unfit is not None:
            _refuse_rows(np.unique(np.flatnonzero(unfit) // inner[0]), self.field)
        made = pa.FixedSizeListArray.from_arrays(flat, inner[0])
        return made if made.type == self.field.type else made.cast(self.field.type)

    def rows(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The numbers that several requests brought, one behind the other: shape (n,), or (n, k) for lists of k."""
        numbers = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return numbers.reshape(-1, self.field.type.list_size) if self._width else numbers

    def joined(self, parts: Sequence[pa.Array | np.ndarray]) -> pa.Array:
        """What several requests brought, one behind the other."""
        if all(isinstance(part, np.ndarray) for part in parts):
            return self._made(parts[0] if len(parts) == 1 else np.concatenate(parts))
        arrays = [self._made(part) if isinstance(part, np.ndarray) else part for part in parts]
        return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)

    def _made(self, numbers: np.ndarray) -> pa.Array:
        flat = from_numpy(np.ascontiguousarray(numbers))
        return pa.FixedSizeListArray.from_arrays(flat, type=self.field.type) if self._width else flat


def _flat(name: str, elements: Any, wanted: pa.DataType) -> pa.Array:
    """One Arrow array of all elements, of a type that can stand for the wanted one."""
    try:
        if isinstance(elements, pa.Array | np.ndarray):
            found = from_numpy(elements) if isinstance(elements, np.ndarray) else elements
        elif is_bytes(wanted):
            found = from_values([one.encode() if isinstance(one, str) else one for one in elements])
        else:
            found = from_values([one.decode() if isinstance(one, bytes) else one for one in elements])
    except UnicodeDecodeError as error:
        raise Refused(400, f"input {shown(name)}: wanted text in UTF-8") from error
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Refused(400, f"input {shown(name)}: wanted values of one type") from error
    if not compatible(found.type, wanted):
        raise Refused(400, f"input {shown(name)}: wanted values for {wanted}, found {found.type}")
    return found


def _fitting(array: pa.Array, field: pa.Field) -> pa.Array:
    array, unfit = cast(array, field.type)
    if unfit is not None:
        _refuse_rows(np.flatnonzero(unfit), field)
    return array


def _refuse_rows(rows: np.ndarray, field: pa.Field) -> None:
    message = f"field {field.name!r}: wanted {field.type}, found a value that does not fit"
    count = len(rows)
    raise RecordErrors(rows.tolist(), ["wrong_type"] * count, [message] * count)
