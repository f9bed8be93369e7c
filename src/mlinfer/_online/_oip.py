"""The Open Inference Protocol, version 2, over HTTP: JSON, and the binary tensor extension."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import UNSET

from mlinfer._answering import numbered
from mlinfer._arrays import from_floats, from_numpy, masked
from mlinfer._batch import Batch
from mlinfer._layout import Layout
from mlinfer._online._bulk import Bulk
from mlinfer._online._desk import Ask, Desk
from mlinfer._online._json import BadJson, dump, parse
from mlinfer._online._numbers import Lifted, lift
from mlinfer._online._oip_json import Request, Tensor, codec, keys_of
from mlinfer._online._outputs import Answer, Elements
from mlinfer._online._routes import Order, Route, path_name, ready_if, said
from mlinfer._online._tensors import (
    DTYPES,
    MOST_TENSORS,
    Column,
    Kind,
    check_lengths,
    check_shape,
    from_bytes,
)
from mlinfer._online._wire import BINARY, JSON, Refused
from mlinfer._text import shown

HEADER_LENGTH = "inference-header-content-length"
_SIZE = re.compile("[0-9]{1,9}")
_DOUBLES = b'"FP64"'


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request wants beside the answers: its id echoed, some of the outputs, which of them in binary.

    `columns`: what it brings for each column wanted, in numpy the numbers of a column of just that type, in row-major order.
    """

    columns: list[pa.Array | np.ndarray]
    id: str | None = None
    outputs: tuple[str, ...] | None = None
    binary: frozenset[str] = frozenset()


class Tensors:
    """Requests and answers as tensors by name."""

    def __init__(self, layout: Layout, model: str) -> None:
        self.wanted = layout.wanted
        self._inputs = len(layout.signature.inputs)
        self._names = self.wanted.names
        self._columns = [Column(field) for field in self.wanted]
        self._kinds = [Kind.of(field) for field in layout.signature.outputs]
        self.outputs = tuple(kind.name for kind in self._kinds)
        self.fields = [self.wanted.field(number) for number in range(self._inputs)]
        self.model = model

    # --- requests --------------------------------------------------------------------------------------------------

    def columns(
        self, tensors: dict[str, tuple[Sequence[int], Any]]
    ) -> tuple[list[pa.Array | np.ndarray], int]:
        """The columns wanted, and how many records they have. Raises Refused, RecordErrors."""
        rows = {shape[0] for shape, _ in tensors.values()}
        if len(rows) != 1:
            raise Refused(400, "wanted the same number of records in every input")
        count = rows.pop()
        tensors = self._split(tensors)
        unknown = [name for name in tensors if name not in self._names]
        if unknown:
            names = ", ".join(self.wanted.names[:20])
            raise Refused(400, f"input {shown(unknown[0])}: there is no such input; wanted {names}")
        return [self._column(number, one, tensors, count) for number, one in enumerate(self._columns)], count

    def _column(
        self, number: int, one: Column, tensors: dict[str, tuple[Sequence[int], Any]], count: int
    ) -> pa.Array | np.ndarray:
        if one.name in tensors:
            shape, elements = tensors[one.name]
            return one.of(elements, shape)
        if number < self._inputs and not one.field.nullable:
            raise Refused(
                400, f"input {shown(one.name)}: wanted a value in every record, found no such input"
            )
        return pa.nulls(count, one.field.type)

    def _split(self, tensors: dict[str, tuple[Sequence[int], Any]]) -> dict[str, tuple[Sequence[int], Any]]:
        """A single matrix may stand for all inputs, its columns in the order of the signature."""
        if len(tensors) != 1:
            return tensors
        ((shape, elements),) = tensors.values()
        names = self._names[: self._inputs]
        if len(shape) != 2 or len(names) < 2 or shape[1] != len(names) or next(iter(tensors)) in names:  # noqa: PLR2004
            return tensors
        width = len(names)
        return {name: (shape[:1], elements[number::width]) for number, name in enumerate(names)}

    def arrays(self, asks: Sequence[Ask]) -> Mapping[str, np.ndarray] | None:
        """The columns of all requests, if all of them are numbers in numpy."""
        parts = [ask.content.columns for ask in asks]
        if not all(isinstance(part, np.ndarray) for columns in parts for part in columns):
            return None
        return {
            one.name: one.rows(some)
            for one, some in zip(self._columns, zip(*parts, strict=True), strict=True)
        }

    def batch(self, asks: Sequence[Ask]) -> Batch:
        """The columns of all requests, one behind the other."""
        parts = zip(*(ask.content.columns for ask in asks), strict=True)
        columns = [one.joined(some) for one, some in zip(self._columns, parts, strict=True)]
        return numbered(pa.RecordBatch.from_arrays(columns, schema=self.wanted))

    # --- answers ---------------------------------------------------------------------------------------------------

    def names(self, asked: Sequence[str] | None) -> tuple[str, ...] | None:
        """The outputs asked for. Raises Refused: there is no such output."""
        for name in asked or ():
            if name not in self.outputs:
                names = ", ".join(self.outputs)
                raise Refused(400, f"output {shown(name)}: there is no such output; wanted {names}")
        return tuple(asked) if asked else None

    def answer(self, answered: Sequence[tuple[Ask, pa.RecordBatch]], records: pa.RecordBatch) -> None:
        """Give every request its tensors, or the reason why its answers are none."""
        outputs = [Answer(records.column(kind.name), kind) for kind in self._kinds]
        start = 0
        for ask, _ in answered:
            asked: Asked = ask.content
            chosen = [one for one in outputs if asked.outputs is None or one.name in asked.outputs]
            try:
                self._answer(ask, asked, [(one, *one.cut(start, ask.rows)) for one in chosen])
            except Refused as refused:
                ask.caller.refuse(refused)
            start += ask.rows

    def _answer(self, ask: Ask, asked: Asked, tensors: list[tuple[Answer, list[int], Elements]]) -> None:
        outputs: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        for one, shape, elements in tensors:
            output: dict[str, Any] = {"name": one.name, "shape": shape, "datatype": one.datatype}
            if one.name in asked.binary:
                blobs.append(one.in_bytes(elements))
                output["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                output["data"] = one.in_json(elements)
            outputs.append(output)
        said = {"model_name": self.model, "model_version": path_name(ask.version)}
        if asked.id is not None:
            said["id"] = asked.id
        text = codec().encode({**said, "outputs": outputs})
        if not blobs:
            ask.caller.answer(text)
        else:
            more = (f"Inference-Header-Content-Length: {len(text)}",)
            ask.caller.answer(b"".join([text, *blobs]), BINARY, more)


@dataclass(frozen=True, slots=True)
class Usual:
    """A request of one input of doubles: what stands around its numbers, and what that means, whatever they are."""

    text: bytes
    count: int
    tensor: Tensor
    asked: Asked

    def again(self, lifted: Lifted) -> bool:
        """Whether another request says the same, of as many numbers."""
        return lifted.text == self.text and lifted.lists == 1 and len(lifted.numbers) == self.count

    def tensors(self, numbers: np.ndarray) -> dict[str, tuple[Sequence[int], Any]]:
        """Its input with these numbers."""
        return {self.tensor.name: (self.tensor.shape, numbers)}


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
            asked, tensors = usual.asked, usual.tensors(lifted.numbers)
        else:
            asked, tensors = self._read(text, rest, lifted)
        columns, rows = self._form.columns(tensors)
        mine = Asked(columns, asked.id, asked.outputs, asked.binary)  # a third of what `replace` takes
        order.ask = Ask(self._form, mine, rows, order)
        self._desk.put(order.ask, order.within)

    def _read(
        self, text: bytes, rest: memoryview, lifted: Lifted | None
    ) -> tuple[Asked, dict[str, tuple[Sequence[int], Any]]]:
        """What a request asks for, and the inputs that it brings; `rest`: the bytes behind its JSON."""
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
        asked = Asked([], request.id or None, names, request.binary_outputs(names or self._form.outputs))
        if lifted is not None and numbers is not None:
            self._usual = Usual(lifted.text, len(numbers), request.inputs[0], asked)
        return asked, tensors

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
    length = order.head.headers.get(HEADER_LENGTH)
    if length is not None:
        if len(length) != 1 or not _SIZE.fullmatch(length[0]) or int(length[0]) > len(body):
            raise Refused(
                400,
                "wanted one Inference-Header-Content-Length, the bytes of the JSON before the tensors",
            )
        return body[: int(length[0])], memoryview(body)[int(length[0]) :]
    if order.head.one("content-type") == BINARY:
        raise Refused(400, "wanted an Inference-Header-Content-Length with application/octet-stream")
    return body, memoryview(b"")


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
    if not 0 < len(request.inputs) <= MOST_TENSORS:
        raise Refused(400, f"wanted 1 to {MOST_TENSORS} inputs")
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
    if len(values) != elements:
        msg = f"input {shown(tensor.name)}: wanted {elements:,} elements for its shape, found {len(values):,}"
        raise Refused(400, msg)
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


def oip_routes(desk: Desk, layout: Layout, ready: Callable[[], bool]) -> dict[str, Route]:
    """All paths of the protocol for one model, with `*` for the version that answers."""
    model = path_name(layout.signature.model_id)
    form = Tensors(layout, model)
    metadata = {
        "name": model,
        "platform": "mlinfer",
        "inputs": [Kind.of(layout.wanted.field(n)).described() for n in range(len(layout.signature.inputs))],
        "outputs": [Kind.of(field).described() for field in layout.signature.outputs],
    }
    server = {"name": "mlinfer", "version": "2", "extensions": ["binary_tensor_data"]}

    def describe(order: Order, body: bytes) -> None:
        del body
        order.answer(dump({**metadata, "versions": [path_name(desk.signature.version)]}))

    path = f"/v2/models/{model}"
    of_model = {
        "": Route("GET", describe),
        "/ready": Route("GET", ready_if(ready, dump({"name": model, "ready": True}))),
        "/infer": Route("POST", Infer(desk, form), (JSON, BINARY, "")),
    }
    return {
        "/v2": Route("GET", said(dump(server))),
        "/v2/health/live": Route("GET", said(dump({"live": True})), open=True),
        "/v2/health/ready": Route("GET", ready_if(ready, dump({"ready": True})), open=True),
        **{f"{path}{end}": route for end, route in of_model.items()},
        **{f"{path}/versions/*{end}": _of_version(desk, route) for end, route in of_model.items()},
    }


def _of_version(desk: Desk, route: Route) -> Route:
    """The same for the version that answers: a client may repeat a head that it sent when another one did."""

    def handle(order: Order, body: bytes) -> None:
        there = path_name(desk.signature.version)
        if order.head.path.split("/")[5] != there:
            raise Refused(404, f"there is no such version here any more; wanted {there}")
        route.handle(order, body)

    return replace(route, handle=handle)
