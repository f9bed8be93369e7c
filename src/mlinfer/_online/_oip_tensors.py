"""Requests and answers of the Open Inference Protocol as tensors: what they mean, whoever carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mlinfer._answering import numbered
from mlinfer._batch import Batch
from mlinfer._engine import Answers
from mlinfer._layout import Layout
from mlinfer._online._desk import Ask
from mlinfer._online._oip_json import codec
from mlinfer._online._outputs import OutputTensor
from mlinfer._online._routes import path_name
from mlinfer._online._tensors import Column, Kind
from mlinfer._online._wire import BINARY, Refused
from mlinfer._text import shown


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request wants beside the answers: its id echoed, some of the outputs, which of them in binary."""

    id: str | None = None
    outputs: tuple[str, ...] | None = None
    binary: frozenset[str] = frozenset()


class Brought(NamedTuple):
    """What a request brings, and what it asks for."""

    columns: Sequence[pa.Array | np.ndarray]
    """For each column wanted; in numpy the numbers of a column of just that type, in row-major order."""
    asked: Asked


class Tensors:
    """Requests and answers as tensors by name."""

    def __init__(self, layout: Layout, model: str) -> None:
        self.wanted = layout.wanted
        self._inputs = len(layout.inputs)
        self._names = self.wanted.names
        self._columns = [Column(field) for field in self.wanted]
        self._schema = pa.schema([one.field for one in self._columns])
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
        if not set(map(type, chain.from_iterable(parts))) <= {np.ndarray}:
            return None
        return {
            one.name: one.rows(some)
            for one, some in zip(self._columns, zip(*parts, strict=True), strict=True)
        }

    def batch(self, asks: Sequence[Ask]) -> Batch:
        """The columns of all requests, one behind the other."""
        parts = zip(*(ask.content.columns for ask in asks), strict=True)
        columns = [one.joined(some) for one, some in zip(self._columns, parts, strict=True)]
        return numbered(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    # --- answers ---------------------------------------------------------------------------------------------------

    def names(self, asked: Sequence[str]) -> tuple[str, ...] | None:
        """The outputs asked for, None if none is named. Raises Refused: there is no such output."""
        for name in asked:
            if name not in self.outputs:
                names = ", ".join(self.outputs)
                raise Refused(400, f"output {shown(name)}: there is no such output; wanted {names}")
        return tuple(asked) if asked else None

    def answer(self, asks: Sequence[Ask], answers: Answers) -> None:
        """Give every request its tensors, or the reason why its answers are none."""
        assert answers.layout is not None  # noqa: S101 - every step says who answered
        version = path_name(answers.layout.signature.version)
        outputs = [OutputTensor(answers.column(kind.name), kind) for kind in self._kinds]
        start = 0
        for ask in asks:
            try:
                self._answer(ask, version, outputs, start)
            except Refused as refused:
                ask.caller.refuse(refused)
            start += ask.rows

    def _answer(self, ask: Ask, version: str, outputs: Sequence[OutputTensor], start: int) -> None:
        asked: Asked = ask.content.asked
        said: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        for one in chosen(outputs, asked):
            shape, elements = one.cut(start, ask.rows)
            output: dict[str, Any] = {"name": one.name, "shape": shape, "datatype": one.datatype}
            if one.name in asked.binary:
                blobs.append(one.in_bytes(elements))
                output["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                output["data"] = one.in_json(elements)
            said.append(output)
        named = {} if asked.id is None else {"id": asked.id}
        text = codec().encode({"model_name": self.model, "model_version": version, **named, "outputs": said})
        if not blobs:
            ask.caller.answer(text)
        else:
            more = (f"Inference-Header-Content-Length: {len(text)}",)
            ask.caller.answer(b"".join([text, *blobs]), BINARY, more)


def chosen(outputs: Sequence[OutputTensor], asked: Asked) -> Sequence[OutputTensor]:
    """The outputs that a request wants."""
    return outputs if asked.outputs is None else [one for one in outputs if one.name in asked.outputs]
