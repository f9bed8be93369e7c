"""Makes records fit a model, and finds those that cannot: columns in, columns and a list of bad records out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import elements, finite_in_all, from_numpy, nulls, to_numpy, with_gaps
from mlinfer._casts import cast, compatible, hides_nulls, is_list, is_number, is_text, owners
from mlinfer._choosing import chosen_rows
from mlinfer._errors import RecordErrors, SchemaError
from mlinfer._signature import is_spelled, needs_finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


MOST_LENGTHS = 16
"""Of lists that are too long or too short: so many are told."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why some values of one column cannot be used."""

    mask: np.ndarray
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Fit:
    """The records that fit; `good` (None: all of them) says which those are, `errors` why the others are not."""

    records: pa.RecordBatch
    good: np.ndarray | None = None
    errors: RecordErrors | None = None


class Conform:
    """Casts batches to a schema. `columns` maps a field of the schema to the column that holds it, if they differ.

    With `encoded`, dictionary-encoded columns of the right values are left encoded: whoever only passes them on is spared
    the work of decoding them.
    """

    def __init__(
        self, wanted: pa.Schema, columns: Mapping[str, str] | None = None, *, encoded: bool = False
    ) -> None:
        self.wanted = wanted
        self._encoded = encoded
        self._columns = dict(columns or {})
        self._bound: pa.Schema | None = None
        self._places: list[int] = []
        # what a field asks for is read once: on a batch of one record, that would be most of the work
        self._fields = [Wanted(field) for field in wanted]

    def __call__(self, records: pa.RecordBatch) -> Fit:
        """Cast a batch. Raises SchemaError when a column is missing or of a type that no value could fit."""
        if self._bound is None or not records.schema.equals(self._bound):
            self.bind(records.schema)
        if not self._fields:
            return Fit(records.select([]))
        arrays: list[pa.Array] = []
        troubles: list[Trouble] = []
        as_wanted = True
        for place, wanted in zip(self._places, self._fields, strict=True):
            array = records.column(place)
            if self._encoded and _encodes(array.type, wanted.type):
                as_wanted = False
            else:
                array = wanted.conform(array, troubles)
            arrays.append(array)
        if troubles:
            return _fit(arrays, self.wanted, troubles)
        schema = self.wanted if as_wanted else as_found(self.wanted, arrays)
        return Fit(pa.RecordBatch.from_arrays(arrays, schema=schema))

    def bind(self, schema: pa.Schema) -> None:
        """Find the columns of batches to come. Raises SchemaError."""
        places = []
        for field in self.wanted:
            name = self._columns.get(field.name, field.name)
            found = schema.get_all_field_indices(name)
            if len(found) != 1:
                what = "no such column" if not found else f"{len(found)} columns of that name"
                way = _way(field, schema) if not found else f"rename with columns={{{field.name!r}: ...}}"
                advice = f"columns there are: {', '.join(schema.names) or 'none'}; {way}"
                raise SchemaError(name, _spelled(field), what, advice)
            there = schema.field(found[0])
            as_text = is_spelled(there) and is_text(field.type)
            if not as_text and not compatible(there.type, field.type):
                raise SchemaError(name, _spelled(field), there.type, _conversion(field.type, there.type))
            places += found
        self._places, self._bound = places, schema


def _conversion(wanted: pa.DataType, found: pa.DataType) -> str:
    """What to do where a column is of another type: a matrix of another shape is given by whoever asks."""
    if pt.is_fixed_size_list(wanted) and pt.is_fixed_size_list(found):
        return f"give each record the {wanted.list_size} values that the model was made for, in their order"
    if pt.is_fixed_size_list(wanted) and is_number(found):
        return f"each record is a list of {wanted.list_size} values; give a single one as [values]"
    return "convert the column in the source, or wrap the source in Mapped"


def _way(field: pa.Field, schema: pa.Schema) -> str:
    """What to do where a column is missing: a matrix and a table with names are taken for each other most often."""
    if pt.is_fixed_size_list(field.type) and len(schema) >= field.type.list_size > 1:
        return (
            f"the model takes a matrix, so give one of {field.type.list_size} columns, such as frame.to_numpy(), "
            f"or save it with example= a data frame; or rename with columns={{{field.name!r}: ...}}"
        )
    if len(schema) == 1 and pt.is_fixed_size_list(schema.field(0).type):
        return (
            f"these records are a matrix: give a data frame; or rename with columns={{{field.name!r}: ...}}"
        )
    return f"rename with columns={{{field.name!r}: ...}}"


def conform(records: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """Records cast to a schema, for hosts that hand records on to another model.

    Raises RecordErrors: it names the records that do not fit; SchemaError: a column is missing or of a type that no
    value could fit.

    >>> schema = pa.schema([pa.field("x", pa.float64(), nullable=False)])
    >>> conform(pa.record_batch({"x": [1, 2], "y": ["a", "b"]}), schema).to_pylist()
    [{'x': 1.0}, {'x': 2.0}]
    """
    fit = Conform(wanted)(records)
    if fit.errors is not None:
        raise fit.errors
    return fit.records


def _encodes(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pt.is_string_view(wanted) or pt.is_binary_view(wanted):  # Arrow decodes no dictionary of these
        return False
    return bool(pt.is_dictionary(found)) and found.value_type == wanted


class Wanted:
    """One field, and what it asks of its values."""

    def __init__(self, field: pa.Field) -> None:
        self.field, self.type = field, field.type
        self._finite, self._required = needs_finite(field), not field.nullable
        self._list, self._encoded = is_list(self.type), bool(pt.is_dictionary(self.type))
        if self._list:
            self._full = not self.type.value_field.nullable
            self._looks = self._full or self._finite
        else:
            self._looks = pt.is_floating(self.type) and (self._required or self._finite)

    def conform(self, array: pa.Array, troubles: list[Trouble]) -> pa.Array:
        """One column as the field asks; what is wrong in it is added to the troubles."""
        if array.type != self.type or (self._encoded and hides_nulls(array)):
            array = self._cast(array, troubles)
        if self._required and array.null_count:
            troubles.append(Trouble(nulls(array), "missing_value", _missing(self.field)))
        if self._looks:
            (self._look_into if self._list else self._look_at)(array, troubles)
        return array

    def _cast(self, array: pa.Array, troubles: list[Trouble]) -> pa.Array:
        made, unfit = cast(array, self.type)
        if unfit is not None:
            troubles += self._unfit(array, unfit)
        return made

    def _unfit(self, array: pa.Array, unfit: np.ndarray) -> Iterator[Trouble]:
        wanted = f"{self._who}: wanted {self.type}, found"
        if not pt.is_fixed_size_list(self.type):
            yield Trouble(unfit, "wrong_type", f"{wanted} a value of {array.type} that does not fit")
            return
        if is_list(array.type):
            lengths = to_numpy(array.value_lengths().fill_null(self.type.list_size))
            for length in np.unique(lengths[unfit])[:MOST_LENGTHS].tolist():
                if length != self.type.list_size:
                    these = unfit & (lengths == length)
                    yield Trouble(these, "wrong_length", f"{wanted} a list of {length:,}")
                    unfit = unfit & ~these
        if unfit.any():
            found = "a list of another length or values that do not fit"
            yield Trouble(unfit, "wrong_length", f"{wanted} {found}")

    def _look_at(self, array: pa.Array, troubles: list[Trouble]) -> None:
        if array.null_count == 0 and finite_in_all(to_numpy(array)):
            return  # one pass over the values settles the usual case
        values, gaps = with_gaps(array)
        odd = ~(np.isfinite(values) | gaps)
        if not odd.any():
            return
        if self._finite and (infinite := odd & np.isinf(values)).any():
            troubles.append(
                Trouble(infinite, "not_finite", f"{self._who}: wanted a finite number, found infinity")
            )
        if self._required and (absent := odd & np.isnan(values)).any():
            troubles.append(Trouble(absent, "missing_value", _missing(self.field)))

    def _look_into(self, array: pa.Array, troubles: list[Trouble]) -> None:
        """Elements that are missing where the list's own type says they must not be, or infinite where they must not be."""
        values = elements(array)
        if values.null_count == 0 and not pt.is_floating(values.type):
            return
        numbers = to_numpy(values)
        if values.null_count == 0 and finite_in_all(numbers):
            return
        if self._finite and (infinite := np.isinf(numbers)).any():
            message = f"{self._who}: wanted finite numbers, found an element that is infinite"
            troubles.append(Trouble(_rows(array, infinite), "not_finite", message))
        absent = to_numpy(values.is_null(nan_is_null=True))
        if self._full and absent.any():
            message = f"{self._who}: wanted a value in every element, found an element without one"
            troubles.append(Trouble(_rows(array, absent), "missing_value", message))

    @property
    def _who(self) -> str:
        return f"field {self.field.name!r}"


def _rows(array: pa.Array, elements: np.ndarray) -> np.ndarray:
    """The lists that hold at least one of these elements."""
    rows = np.zeros(len(array), bool)
    rows[owners(array)[elements]] = True
    return rows


def _missing(field: pa.Field) -> str:
    return f"field {field.name!r}: wanted a value ({field.type}), found none"


def _spelled(field: pa.Field) -> str:
    return f"{field.type}" if field.nullable else f"{field.type} (a value in every record)"


def _batch(arrays: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if arrays:
        return pa.RecordBatch.from_arrays(arrays, schema=as_found(schema, arrays))
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _fit(arrays: list[pa.Array], schema: pa.Schema, troubles: list[Trouble]) -> Fit:
    """Leave out the records that have a trouble; the first one found gives the reason."""
    reason = np.full(len(arrays[0]), -1, np.int32)
    for number, trouble in enumerate(troubles):
        rows = np.flatnonzero(trouble.mask)
        reason[rows[reason[rows] < 0]] = number
    good = reason < 0
    bad, mask = np.flatnonzero(~good), from_numpy(good)
    why = [troubles[number] for number in reason[bad].tolist()]
    errors = RecordErrors(bad.tolist(), [one.kind for one in why], [one.message for one in why])
    fitting = [chosen_rows(array, mask) for array in arrays]
    return Fit(_batch(fitting, schema, len(good) - len(bad)), good, errors)


def as_found(schema: pa.Schema, arrays: list[pa.Array]) -> pa.Schema:
    """The schema with the types that the arrays have: text may be dictionary-encoded."""
    if all(field.type == array.type for field, array in zip(schema, arrays, strict=True)):
        return schema
    return pa.schema([field.with_type(array.type) for field, array in zip(schema, arrays, strict=True)])
