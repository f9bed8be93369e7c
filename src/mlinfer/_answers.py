"""Checks what a model answers before anybody else sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import elements, finite_in_all, to_numpy
from mlinfer._casts import cast, hides_nulls, is_list, is_number, is_text, owners
from mlinfer._errors import ComponentError, RecordErrors
from mlinfer._signature import Signature, allows_nonfinite


def check_shape(answers: object, signature: Signature, count: int) -> pa.RecordBatch:
    """The answers, exactly as the signature says. Raises ComponentError: they are not that, nothing may be written."""
    if not isinstance(answers, pa.RecordBatch):
        raise no_answers_at_all(signature, "a pyarrow.RecordBatch of answers", answers)
    if answers.num_rows != count:
        raise wrong_count(signature, count, answers.num_rows)
    if answers.schema.equals(signature.outputs):
        return answers
    if answers.schema.names != signature.outputs.names:
        raise wrong_names(signature, answers.schema.names)
    columns = [_typed(answers.column(n), field, signature) for n, field in enumerate(signature.outputs)]
    return pa.RecordBatch.from_arrays(columns, schema=signature.outputs)


def no_answers_at_all(signature: Signature, wanted: str, found: object) -> ComponentError:
    """What a model gave is of another kind."""
    return _breach(signature, f"{wanted}, found {type(found).__name__}")


def wrong_count(signature: Signature, count: int, found: object) -> ComponentError:
    """A model left records out, or answered one twice."""
    return _breach(
        signature,
        f"{count} answers for {count} records, found {found}; a model must answer each record once, in order",
    )


def wrong_names(signature: Signature, found: list[str]) -> ComponentError:
    """A model gave other answers than its signature tells."""
    return _breach(signature, f"the answers {signature.outputs.names}, found {found}")


def wrong_type(signature: Signature, field: pa.Field, found: pa.DataType | Exception) -> ComponentError:
    """A model gave answers that are not, or do not become, of the type in its signature."""
    told = f": {found}" if isinstance(found, Exception) else f" {found}"
    advice = "convert them in the model, or name this type in its outputs"
    return _breach(signature, f"answers {field.name!r} of type {field.type}, found{told}; {advice}")


def _breach(signature: Signature, what: str) -> ComponentError:
    return ComponentError(f"model {signature.model_id!r}: wanted {what}")


def _typed(array: pa.Array, field: pa.Field, signature: Signature) -> pa.Array:
    widens = (
        array.type == field.type
        or pt.is_null(array.type)
        or (is_text(array.type) and is_text(field.type))
        or (is_list(array.type) and is_list(field.type))
        or (pt.is_dictionary(array.type) and array.type.value_type == field.type)
        or (
            is_number(array.type)
            and is_number(field.type)
            and not (pt.is_floating(array.type) and pt.is_integer(field.type))
        )
    )
    result, unfit = cast(array, field.type) if widens else (array, None)
    if not widens or unfit is not None:
        raise wrong_type(signature, field, array.type)
    return result


class Usable:
    """Finds the records whose answer is no answer: null, NaN or infinity where none may be."""

    def __init__(self, outputs: pa.Schema) -> None:
        self._checks = [(place, *_asked_of(field)) for place, field in enumerate(outputs)]
        self._names = outputs.names

    def __call__(self, columns: Sequence[pa.Array]) -> RecordErrors | None:
        """The bad ones of a batch, one column for each output; None: there are none."""
        bad: np.ndarray | None = None
        names = []
        for place, required, odd in self._checks:
            mask = _unusable(columns[place], required=required, odd=odd)
            if mask is not None and mask.any():
                bad = mask if bad is None else bad | mask
                names.append(self._names[place])
        if bad is None:
            return None
        why = f"the model's answer {', '.join(map(repr, names))} is missing or not a finite number"
        return RecordErrors(np.flatnonzero(bad).tolist(), "bad_answer", why)


def _asked_of(field: pa.Field) -> tuple[bool, Callable[[pa.Array], np.ndarray | None] | None]:
    """Whether a field needs a value, and what finds the values in it that are none."""
    odd = None
    if not allows_nonfinite(field):
        if pt.is_floating(field.type):
            odd = _not_finite
        elif is_list(field.type) and pt.is_floating(field.type.value_type):
            odd = _not_finite_within
    return not field.nullable, odd


def _unusable(
    array: pa.Array, *, required: bool, odd: Callable[[pa.Array], np.ndarray | None] | None
) -> np.ndarray | None:
    if required and hides_nulls(array):
        array = array.dictionary_decode()
    mask: np.ndarray | None = to_numpy(array.is_null()) if required and array.null_count else None
    found = None if odd is None else odd(array)
    if mask is None or found is None:
        return found if mask is None else mask
    return np.asarray(mask | found)


def _not_finite(array: pa.Array) -> np.ndarray | None:
    values = to_numpy(array)
    if array.null_count == 0 and finite_in_all(values):
        return None
    return np.asarray(~np.isfinite(values) & to_numpy(array.is_valid()))


def _not_finite_within(array: pa.Array) -> np.ndarray | None:
    odd: np.ndarray | None = _not_finite(elements(array))
    if odd is None or not odd.any():
        return None
    rows = np.zeros(len(array), bool)
    rows[owners(array)[odd]] = True
    return rows
