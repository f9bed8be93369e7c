"""Asks a model the way an engine does, and compares its answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import Host, Model, RecordErrors, Signature, as_numpy, chosen_rows
from mlinfer.testing._kit import expect, refuse

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""How far two answers to one record may be apart: libraries add up in another order for another batch size."""

LARGEST = 65_536
"""As many records as a run puts into a batch, unless it is told otherwise."""
ENOUGH_SECONDS = 0.5
"""A model that takes so long for a batch is not given a larger one."""


@dataclass
class HostCase:
    """A host under test, and records for it."""

    factory: Callable[[], Host]
    example: pa.Table

    def inputs(self, signature: Signature) -> pa.RecordBatch:
        """The example as the signature wants it, in memory that nobody else knows and anybody could write to."""
        missing = [name for name in signature.inputs.names if name not in self.example.column_names]
        expect(
            not missing, f"an example with the columns {signature.inputs.names}", f"no {missing}", "add them"
        )
        columns = [self.example.column(one.name).combine_chunks().cast(one.type) for one in signature.inputs]
        table = pa.Table.from_arrays(columns, schema=signature.inputs)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(1, len(table)))
        memory = pa.py_buffer(bytearray(sink.getvalue()))
        return pa.ipc.open_stream(memory).read_next_batch()


def check_form(answers: object, signature: Signature, count: int) -> None:
    if not isinstance(answers, pa.RecordBatch):
        refuse(
            "a pyarrow.RecordBatch of answers",
            type(answers).__name__,
            "make one with RecordBatch.from_arrays",
        )
    expect(
        len(answers) == count,
        f"{count} answers for {count} records",
        len(answers),
        "answer each record once, in order",
    )
    names = signature.outputs.names
    expect(
        answers.schema.names == names,
        f"the answers {names}",
        answers.schema.names,
        "name them as the signature does",
    )
    for found, field in zip(answers.columns, signature.outputs, strict=True):
        kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
        expect(
            kind == field.type,
            f"answers {field.name!r} of type {field.type}",
            kind,
            "cast them, or say so in outputs",
        )
        full = field.nullable or not found.null_count
        expect(
            full,
            f"no null in {field.name!r}",
            f"{found.null_count}",
            "raise RecordErrors, or make the output nullable",
        )


def answer_or_name(model: Model, inputs: pa.RecordBatch, what: str) -> None:
    """The model may answer, name bad records, or fail for the odd one, which is the first; it then answers the others."""
    try:
        answers = model.infer(inputs)
    except RecordErrors as errors:
        ascending = sorted(set(errors.rows)) == errors.rows and bool(errors.rows)
        fits = ascending and errors.rows[0] >= 0 and errors.rows[-1] < len(inputs)
        advice = "name rows of the batch that was handed over"
        expect(fits, f"RecordErrors with ascending rows from 0 to {len(inputs) - 1}", errors.rows, advice)
        rest = chosen_rows(inputs, sorted(set(range(len(inputs))).difference(errors.rows)))
    except Exception:  # noqa: BLE001 - the engine finds the guilty record by halves, whatever the model raises for it
        rest = inputs.slice(1)
    else:
        _check_count(answers, len(inputs), what)
        return
    _check_count(model.infer(rest), len(rest), f"{what}, without the records that it refused")


def _check_count(answers: Any, count: int, what: str) -> None:
    expect(
        len(answers) == count,
        f"{count} answers to a batch with {what}",
        len(answers),
        "answer, or raise RecordErrors",
    )


def with_null(inputs: pa.RecordBatch, name: str) -> pa.RecordBatch:
    place = inputs.schema.get_field_index(name)
    field = inputs.schema.field(place)
    return inputs.set_column(
        place, field, pa.array([None, *inputs.column(place).to_pylist()[1:]], field.type)
    )


def turned(inputs: pa.RecordBatch) -> pa.RecordBatch:
    """The same records from the last to the first."""
    return chosen_rows(inputs, range(len(inputs))[::-1])


def odd_values(kind: pa.DataType) -> list[Any]:
    if pa.types.is_float64(kind):
        return [0.0, -0.0, 1e308, -1e308, 5e-324]
    if pa.types.is_integer(kind):
        bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
        return [0, 2 ** (bits - signed) - 1, -(2 ** (bits - 1)) if signed else 1]
    return ["", "\N{GRINNING FACE}\u202e'\";--\n"] if pa.types.is_string(kind) else []


def arrays(inputs: pa.RecordBatch) -> dict[str, np.ndarray]:
    return {name: np.array(as_numpy(inputs.column(n))) for n, name in enumerate(inputs.schema.names)}


def values(answers: pa.RecordBatch) -> list[Any]:
    """Each answer as a dict of plain values."""
    return answers.to_pylist()  # type: ignore[no-any-return]


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}


def _close(one: Any, other: Any) -> bool:
    """Whether two answers are the same, save for the last digits of a float."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE) or (
            math.isnan(one) and math.isnan(other)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return bool(one == other)


def compare(found: list[Any], wanted: list[Any], what: str, advice: str) -> None:
    expect(len(found) == len(wanted), f"{what}, {len(wanted)} of them", len(found), advice)
    wrong = [n for n, (one, other) in enumerate(zip(found, wanted, strict=True)) if not _close(one, other)]
    if wrong:
        first = wrong[0]
        refuse(f"{what}, such as {wanted[first]} for record {first}", found[first], advice)


def check_large(case: HostCase, model: Model, wanted: list[Any]) -> str:
    """A batch as large as a run makes them is answered like the small one, record by record."""
    size, seconds = len(wanted), 0.0
    while size < LARGEST and seconds < ENOUGH_SECONDS:
        size, begun = min(LARGEST, 4 * size), time.monotonic()
        places = np.arange(size) % len(wanted)
        found = values(model.infer(chosen_rows(case.inputs(model.signature), places)))
        seconds = time.monotonic() - begun
        due, what = (
            [wanted[n] for n in places],
            f"the answers in the order of the records in a batch of {size:,}",
        )
        compare(found, due, what, "answer row by row, however many there are")
    return f"asked for {size:,} records at once"


def compare_unordered(found: list[Any], wanted: list[Any], what: str) -> None:
    advice = "answer each record by itself, whatever else is in the batch"
    expect(len(found) == len(wanted), f"{what}, {len(wanted)} of them", len(found), advice)
    left = list(found)
    for row in wanted:
        place = next((n for n, one in enumerate(left) if _close(one, row)), None)
        expect(place is not None, f"{what}, {row} among them", f"no such answer, but {left[:1]}", advice)
        left.pop(place or 0)
