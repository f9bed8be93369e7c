"""Requests for answers over HTTP: their JSON, the bytes behind it, and those that say the same with other numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import UNSET

from mlinfer._arrays import from_floats, from_numpy, masked
from mlinfer._online._bulk import Bulk
from mlinfer._online._desk import Ask, Desk
from mlinfer._online._json import BadJson, parse
from mlinfer._online._numbers import Lifted, lift
from mlinfer._online._oip_json import Request, Tensor, codec, keys_of
from mlinfer._online._oip_tensors import Asked, Brought, Tensors
from mlinfer._online._routes import Order
from mlinfer._online._tensors import DTYPES, check_count, check_lengths, check_number, check_shape, from_bytes
from mlinfer._online._wire import BINARY, Refused
from mlinfer._text import shown

HEADER_LENGTH = "inference-header-content-length"
_SIZE = re.compile("[0-9]{1,9}")
_DOUBLES = b'"FP64"'
_NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Usual:
    """A request of one input of doubles: what stands around its numbers, and what that means, whatever they are."""

    text: bytes
    count: int
    tensor: Tensor
    asked: Asked
    whole: bool
    """Whether its numbers are, as they come, the only column."""

    def again(self, lifted: Lifted) -> bool:
        """Whether another request says the same, of as many numbers."""
        return lifted.text == self.text and lifted.lists == 1 and len(lifted.numbers) == self.count

    def columns(self, form: Tensors, numbers: np.ndarray) -> tuple[Sequence[pa.Array | np.ndarray], int]:
        """What `form` makes of its input with these numbers."""
        if self.whole:
            return [numbers], self.tensor.shape[0]
        return form.columns({self.tensor.name: (self.tensor.shape, numbers)})


class Infer:
    """`POST /v2/models/NAME/infer`."""

    def __init__(self, desk: Desk, form: Tensors) -> None:
        self._desk, self._form = desk, form
        self._codec = codec()
        self._bulk = Bulk(form.wanted, apart=True)
        self._usual: Usual | None = None  # clients say the same again and again, with other numbers

    def __call__(self, order: Order, body: bytes) -> None:
        """Ask the model. Raises Refused, RecordErrors."""
        text, rest = _parted(order, body)
        self._bulk.check(text)
        lifted = lift(text, b"data") if _DOUBLES in text else None
        usual = self._usual
        if usual is not None and lifted is not None and not rest and usual.again(lifted):
            columns, rows = usual.columns(self._form, lifted.numbers)
            brought = Brought(columns, usual.asked)
        else:
            brought, rows = self._read(text, rest, lifted)
        order.ask = Ask(self._form, brought, rows, order)
        self._desk.put(order.ask, order.within)

    def _read(self, text: bytes, rest: memoryview, lifted: Lifted | None) -> tuple[Brought, int]:
        """What a request brings and asks for, and about how many records; `rest`: the bytes behind its JSON."""
        request = None if lifted is None else self._around(lifted)
        numbers = None if lifted is None or request is None else lifted.numbers
        if request is None:
            try:
                request = self._codec.request(text)
            except (ValueError, RecursionError) as error:
                raise _why(text) from error
        if text.count(b":") != keys_of(request):
            _checked(text)  # a text with a colon, or a key twice
        tensors = _tensors(request, rest, numbers)
        names = self._form.names([one.name for one in request.outputs or ()])
        asked = Asked(request.id or None, names, request.binary_outputs(names or self._form.outputs))
        columns, rows = self._form.columns(tensors)
        if lifted is not None and numbers is not None:
            whole = len(columns) == 1 and columns[0] is numbers
            self._usual = Usual(lifted.text, len(numbers), request.inputs[0], asked, whole)
        return Brought(columns, asked), rows

    def _around(self, lifted: Lifted) -> Request | None:
        """A request of one input of doubles but for these; None: it is another, or something is wrong, which others can tell."""
        try:
            request = self._codec.request(lifted.text)
        except (ValueError, RecursionError):
            return None
        if len(request.inputs) != 1 or lifted.lists != 1:
            return None
        tensor = request.inputs[0]
        if tensor.datatype != "FP64" or tensor.data is UNSET or bytes(tensor.data) != b"[]":
            return None
        return request


def _parted(order: Order, body: bytes) -> tuple[bytes, memoryview]:
    """The JSON of a request, and the bytes behind it."""
    headers = order.head.headers
    length = headers.get(HEADER_LENGTH)
    if length is not None:
        if len(length) != 1 or not _SIZE.fullmatch(length[0]) or int(length[0]) > len(body):
            raise Refused(
                400,
                "wanted one Inference-Header-Content-Length, the bytes of the JSON before the tensors",
            )
        return body[: int(length[0])], memoryview(body)[int(length[0]) :]
    if headers.get("content-type") == [BINARY]:  # without `Head.one`: every request comes by here
        raise Refused(400, "wanted an Inference-Header-Content-Length with application/octet-stream")
    return body, _NOTHING


def _why(text: bytes) -> Refused:
    """What is wrong with a request that cannot be read."""
    try:
        parse(text)
    except BadJson as error:
        return Refused(400, str(error))
    return Refused(
        400, "wanted an inference request: an object with inputs, each with name, shape, datatype and data"
    )


def _checked(text: bytes) -> None:
    try:
        parse(text)
    except BadJson as error:
        raise Refused(400, str(error)) from error


def _tensors(
    request: Request, rest: memoryview, numbers: np.ndarray | None
) -> dict[str, tuple[Sequence[int], Any]]:
    """The inputs by name, as shape and elements; `numbers`: those of the only one. Raises Refused."""
    check_number(len(request.inputs))
    found: dict[str, tuple[Sequence[int], Any]] = {}
    for tensor in request.inputs:
        if tensor.name in found:
            raise Refused(400, f"input {shown(tensor.name)}: wanted it once, found it twice")
        elements = check_shape(tensor.name, tensor.shape, tensor.datatype)
        size = _binary_size(tensor)
        if size is None:
            found[tensor.name] = tensor.shape, _from_json(tensor, elements, numbers)
            continue
        if size > len(rest):
            raise Refused(400, f"input {shown(tensor.name)}: wanted {size:,} bytes, found {len(rest):,}")
        found[tensor.name] = tensor.shape, from_bytes(tensor.name, tensor.datatype, rest[:size], elements)
        rest = rest[size:]
    if len(rest):
        raise Refused(400, f"wanted nothing behind the tensors, found {len(rest):,} bytes")
    return found


def _binary_size(tensor: Tensor) -> int | None:
    """How many bytes behind the JSON are its elements; None if they are in `data`. Raises Refused."""
    size = tensor.parameters.get("binary_data_size") if tensor.parameters else None
    if size is None:
        return None
    if type(size) is not int or size < 0 or tensor.data is not UNSET:
        msg = f"input {shown(tensor.name)}: wanted either data or a binary_data_size, a number of bytes"
        raise Refused(400, msg)
    return size


def _from_json(tensor: Tensor, elements: int, numbers: np.ndarray | None) -> Any:
    values: Any
    try:
        values, gaps = (
            (numbers, False) if numbers is not None else codec().elements(tensor.datatype, tensor.data)
        )
    except (ValueError, RecursionError) as error:
        msg = f"input {shown(tensor.name)}: wanted data for {tensor.datatype}, found values that are none"
        raise Refused(400, msg) from error
    check_count(tensor.name, values, elements)
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        check_lengths(tensor.name, values)
        return values
    missing = [value is None for value in values] if gaps and None in values else None
    if tensor.datatype == "FP64" and not gaps:  # what is no finite number has been refused
        return from_floats(values) if numbers is None else values
    try:
        with np.errstate(over="ignore"):
            made = np.array(values if missing is None else [value or 0 for value in values], dtype)
    except (OverflowError, ValueError, TypeError) as error:
        raise Refused(400, f"input {shown(tensor.name)}: wanted values that fit {tensor.datatype}") from error
    if dtype.kind == "f" and not np.isfinite(made).all():
        raise Refused(400, f"input {shown(tensor.name)}: wanted values that fit {tensor.datatype}")
    return made if missing is None else masked(from_numpy(made), np.array(missing))
