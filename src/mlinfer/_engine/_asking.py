"""Asks a model for some of a batch's records, and joins its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlinfer._answers import check_shape, no_answers_at_all, wrong_count, wrong_names, wrong_type
from mlinfer._arrays import as_column, as_numpy, no_rows, own
from mlinfer._choosing import chosen_rows
from mlinfer._isolate import Rows
from mlinfer._protocols import InfersArrays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlinfer._protocols import Model
    from mlinfer._signature import Signature


_MAPPINGS = (dict, Mapping)
"""In this order: to ask an abstract class takes longer than a small model."""


class AskBatches:
    """Asks with record batches."""

    def __init__(self, model: Model, signature: Signature, inputs: pa.RecordBatch) -> None:
        self._model, self._signature, self._inputs = model, signature, inputs

    def ask(self, rows: Rows) -> pa.RecordBatch:
        """The answers to these rows, checked. Raises what the model raises, ComponentError if it breaks its contract."""
        part = self._inputs
        if not isinstance(rows, range):
            part = chosen_rows(part, rows)
        elif len(rows) != part.num_rows:
            part = part.slice(rows.start, len(rows))
        return check_shape(self._model.infer(part), self._signature, len(rows))

    def joined(self, answers: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
        """All answers, in the order given."""
        if len(answers) == 1:
            return answers[0]
        return pa.concat_batches(answers) if answers else no_answers(self._signature)


class AskArrays:
    """Asks with numpy arrays: the columns are looked at once, each call sees slices of them."""

    def __init__(self, model: InfersArrays, signature: Signature, inputs: pa.RecordBatch) -> None:
        self._model, self._signature = model, signature
        self._answers = signature.outputs.names
        self._columns = {name: as_numpy(inputs.column(n)) for n, name in enumerate(inputs.schema.names)}
        self._many = inputs.num_rows > 1 and bool(self._columns)
        each = (values[:, None] for values in self._columns.values()) if self._many else ()
        # what `_some` gives, record after record: to go on takes half of what it takes to find each anew
        self._one_by_one = zip(*each, strict=True)
        self._asked = 0

    def ask(self, rows: Rows) -> Mapping[str, Any]:
        """The answers to these rows, counted. Raises what the model raises, ComponentError for a wrong count or name."""
        count = len(rows)
        if count == 1 and self._many and rows[0] == self._asked:  # one after the other is asked for
            self._asked += 1
            columns = dict(zip(self._columns, next(self._one_by_one), strict=True))
        else:
            columns = self._some(rows)
        answers: Any = self._model.infer_arrays(columns)
        if not isinstance(answers, _MAPPINGS):
            raise no_answers_at_all(self._signature, "arrays by name", answers)
        for name in self._answers:
            if name not in answers or _length(answers[name]) != count:
                self._complain(answers, name, count)
        return {field.name: _kept(answers[field.name], field) for field in self._signature.outputs}

    def _some(self, rows: Rows) -> dict[str, np.ndarray]:
        where = slice(rows.start, rows.stop) if isinstance(rows, range) else rows
        return {name: values[where] for name, values in self._columns.items()}

    def joined(self, answers: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """All answers, in the order given, checked. Raises ComponentError if they are of another type."""
        if not answers:
            return no_answers(self._signature)
        outputs = self._signature.outputs
        columns = [self._column([one[field.name] for one in answers], field) for field in outputs]
        batch = pa.RecordBatch.from_arrays(columns, names=outputs.names)
        return check_shape(batch, self._signature, batch.num_rows)

    def _column(self, parts: list[Any], field: pa.Field) -> pa.Array:
        try:
            return _joined(parts, field)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise wrong_type(self._signature, field, error) from error

    def _complain(self, answers: Mapping[str, Any], name: str, count: int) -> None:
        if name not in answers:
            raise wrong_names(self._signature, sorted(map(str, answers)))
        length = _length(answers[name])
        raise wrong_count(self._signature, count, "a single value" if length is None else length)


def way_to_ask(model: Model) -> Callable[[Any, Signature, pa.RecordBatch], AskBatches | AskArrays]:
    """With arrays if the model takes them, with batches otherwise."""
    return AskArrays if isinstance(model, InfersArrays) else AskBatches


def no_answers(signature: Signature) -> pa.RecordBatch:
    """Zero answers."""
    return no_rows(signature.outputs)


def _kept(values: Any, field: pa.Field) -> Any:
    """What stays as it is while the model is asked again. Raises what Arrow raises: a value is none of the field's.

    Values of Python may differ from record to record, so the guilty one is looked for; an array has one type.
    """
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray) and not (type(values) is np.ndarray and values.dtype.kind == "O"):
        return own(values)
    return as_column(values, field)


def _length(values: Any) -> int | None:
    """How many values these are; None for what is a single one, numpy's arrays without a dimension among them."""
    if type(values) is np.ndarray and values.ndim:
        return len(values)
    return len(values) if hasattr(values, "__len__") and getattr(values, "shape", None) != () else None


def _joined(parts: list[Any], field: pa.Field) -> pa.Array:
    if len(parts) == 1:
        return as_column(parts[0], field)
    if all(type(part) is np.ndarray for part in parts):  # numpy forgets what is masked in others
        return as_column(np.concatenate(parts), field)
    return pa.concat_arrays([as_column(part, field) for part in parts])
