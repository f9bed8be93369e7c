"""Rows of Python values (from JSON, a request, a list of dicts) to columns, bad rows apart."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import from_floats, from_numpy, from_values, masked, nulls
from mlinfer._casts import cast, compatible, is_bytes, is_list, is_moment, is_number, is_text
from mlinfer._choosing import chosen_rows
from mlinfer._text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence


_NO_TEXTS = {bool, int, float, list, dict}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be put into columns, and why."""

    row: int
    kind: str
    message: str


def batch_from_rows(rows: Sequence[Any], wanted: pa.Schema) -> tuple[pa.RecordBatch, list[int], list[BadRow]]:
    """Columns named and typed as wanted, as far as the values allow; `rows` should be dicts.

    Returns the batch of the good rows, their positions, and the bad rows. A key that is absent is a null, other keys
    are not looked at. Types may still differ (an int where a float is wanted): conform casts them.
    """
    bad: dict[int, BadRow] = {}
    if rows and set(map(type, rows)) != {dict}:
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                bad[number] = BadRow(
                    number, "wrong_type", f"wanted an object with named fields, found {shown(row)}"
                )
    columns = [_column(_values(rows, field.name, bad), field, bad) for field in wanted]
    good = [number for number in range(len(rows)) if number not in bad] if bad else list(range(len(rows)))
    batch = _record_batch(columns, wanted, len(rows))
    return (
        (chosen_rows(batch, good) if bad else batch),
        good,
        [bad[number] for number in sorted(bad)],
    )


def _values(rows: Sequence[Any], name: str, bad: dict[int, BadRow]) -> list[Any]:
    """The values of one name, None where a row has none."""
    if not bad:
        try:
            return list(map(itemgetter(name), rows))  # a third of the time that a loop takes
        except KeyError:
            pass  # some row lacks the key
    return [None if number in bad else row.get(name) for number, row in enumerate(rows)]


def _record_batch(columns: list[pa.Array], wanted: pa.Schema, count: int) -> pa.RecordBatch:
    if columns:
        return pa.RecordBatch.from_arrays(columns, names=wanted.names)
    return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))


def _column(values: list[Any], field: pa.Field, bad: dict[int, BadRow]) -> pa.Array:
    if pt.is_float64(field.type) and set(map(type, values)) == {float}:
        return from_numpy(from_floats(values))  # nothing to judge, and most columns of numbers are like this
    try:
        array = _array(values, field.type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return _value_by_value(values, field, bad)
    if len(array) != len(values) or not compatible(array.type, field.type):
        return _value_by_value(values, field, bad)
    if pt.is_floating(array.type) and bool in set(map(type, values)):
        return _value_by_value(values, field, bad)  # Arrow took True for 1.0
    return _judged(array, values, field, bad)


def _judged(array: pa.Array, values: list[Any], field: pa.Field, bad: dict[int, BadRow]) -> pa.Array:
    """Find numbers that do not fit: here, for there are records beside which no column could hold them for conform."""
    if is_number(field.type) and array.type != field.type:
        _, unfit = cast(array, field.type)
        for number in [] if unfit is None else unfit.nonzero()[0].tolist():
            bad.setdefault(number, _misfit(number, values[number], field))
    return array


def _value_by_value(values: list[Any], field: pa.Field, bad: dict[int, BadRow]) -> pa.Array:
    kept: list[Any] = []
    for number, value in enumerate(values):
        fits = True
        if value is not None:
            try:
                fits = compatible(_array([value], field.type).type, field.type)
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                fits = False
        if not fits:
            bad.setdefault(number, _misfit(number, value, field))
        kept.append(value if fits else None)
    try:
        array = _array(kept, field.type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return _cast_each(kept, field, bad)
    return _judged(array, kept, field, bad)


def _cast_each(values: list[Any], field: pa.Field, bad: dict[int, BadRow]) -> pa.Array:
    """Every value fits by itself, and yet they make no column: an integer beside a fraction, both of them exact."""
    pieces = []
    for number, value in enumerate(values):
        piece, unfit = cast(_array([value], field.type), field.type)
        if unfit is not None:
            bad.setdefault(number, _misfit(number, value, field))
        pieces.append(piece)
    return pa.concat_arrays(pieces)


def _misfit(number: int, value: Any, field: pa.Field) -> BadRow:
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    said = " (as text in base64)" if is_bytes(kind) else ""
    return BadRow(
        number, "wrong_type", f"field {field.name!r}: wanted {field.type}{said}, found {shown(value)}"
    )


def _objects(values: list[Any], wanted: pa.DataType) -> pa.Array:
    """Objects, whose parts are judged as columns are. Raises ValueError: a value is none, or a part of it does not fit.

    Arrow would force what is in them: 1.5 to 1, True to 1.
    """
    if not all(value is None or isinstance(value, dict) for value in values):
        msg = "something else where an object is wanted"
        raise ValueError(msg)
    fields = [wanted.field(number) for number in range(wanted.num_fields)]
    if not fields:
        return pa.array(values, wanted)
    given = [{} if value is None else value for value in values]
    parts = [_parts([value.get(field.name) for value in given], field.type) for field in fields]
    gaps = np.array([value is None for value in values], bool)
    if any(
        (nulls(part) & ~gaps).any() for field, part in zip(fields, parts, strict=True) if not field.nullable
    ):
        msg = "an object that lacks a part"
        raise ValueError(msg)
    return pa.StructArray.from_arrays(parts, fields=fields, mask=from_numpy(gaps))


def _maps(values: list[Any], wanted: pa.DataType) -> pa.Array:
    """The same for maps, which may be pairs, too. Arrow ends the process over a null where a pair should be."""
    pairs = [list(value.items()) if isinstance(value, dict) else value for value in values]
    if not all(value is None or (isinstance(value, list) and all(map(_is_pair, value))) for value in pairs):
        msg = "something else where a map is wanted"
        raise ValueError(msg)
    keys, found = ([pair[n] for value in pairs for pair in value or ()] for n in (0, 1))
    ends = np.cumsum([0, *(len(value or ()) for value in pairs)]).astype(np.int32)
    gaps = np.array([*(value is None for value in pairs), False])
    offsets = masked(from_numpy(ends), gaps) if gaps.any() else from_numpy(ends)
    parts = _parts(keys, wanted.key_type), _parts(found, wanted.item_type)
    return pa.MapArray.from_arrays(offsets, *parts, type=wanted)


def _lists(values: list[Any], wanted: pa.DataType) -> pa.Array:
    """Lists of what has parts, or what Arrow would not see for what it is. Raises ValueError: a value is none, or does not fit."""
    if not all(value is None or isinstance(value, list | tuple) for value in values):
        msg = "something else where a list is wanted"
        raise ValueError(msg)
    inner = _parts([one for value in values for one in value or ()], wanted.value_type)
    ends = np.cumsum([0, *(len(value or ()) for value in values)]).astype(np.int64)
    gaps = np.array([value is None for value in values], bool)
    kind = pa.large_list(wanted.value_field)
    return pa.LargeListArray.from_arrays(from_numpy(ends), inner, type=kind, mask=from_numpy(gaps))


def _is_seen(kind: pa.DataType) -> bool:
    """Whether Arrow sees by itself what such values are."""
    if is_list(kind):
        return _is_seen(kind.value_type)
    number = is_number(kind) and not pt.is_decimal(kind)
    return bool(number or is_text(kind) or pt.is_boolean(kind) or pt.is_null(kind))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and value[0] is not None  # noqa: PLR2004 - a key and a value


def _parts(values: list[Any], wanted: pa.DataType) -> pa.Array:
    """What is in objects. Raises ValueError: a value does not fit."""
    array = _array(values, wanted)
    fits = len(array) == len(values) and compatible(array.type, wanted)
    if fits and not (
        pt.is_floating(array.type) and bool in set(map(type, values))
    ):  # Arrow took True for 1.0
        array, unfit = cast(array, wanted)
        if unfit is None:
            return array
    msg = "a part of an object that does not fit"
    raise ValueError(msg)


def _array(values: list[Any], wanted: pa.DataType) -> pa.Array:
    """Let Arrow see what the values are, rather than force a type: forcing would cut 1.5 to 1 and take True for 1."""
    for matches, make in (
        (lambda kind: isinstance(kind, pa.BaseExtensionType), _extended),
        (pt.is_struct, _objects),
        (pt.is_map, _maps),
        (lambda kind: is_list(kind) and not _is_seen(kind), _lists),
    ):
        if matches(wanted):
            return make(values, wanted)
    if is_moment(wanted):
        return _moments(from_values(values), wanted)
    if is_bytes(wanted):
        return pa.array([_bytes(value) for value in values], wanted)
    kinds = set(map(type, values)) - {type(None)}
    if str in kinds and kinds & _NO_TEXTS:  # Arrow says so, too, having imported pandas
        msg = "texts beside other values"
        raise ValueError(msg)
    try:
        found = from_values(values)
    except (pa.ArrowInvalid, OverflowError):  # integers beyond int64, or that a float beside them cannot hold
        if pt.is_floating(wanted) and kinds <= {int, float}:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        if (pt.is_uint64(wanted) or pt.is_decimal(wanted)) and kinds == {int}:
            return pa.array(values, wanted)
        raise
    if is_list(found.type) and pt.is_floating(found.type.value_type) and any(map(_holds_bool, values)):
        msg = "a list holds True or False beside fractions"  # Arrow took them for 1.0 and 0.0
        raise ValueError(msg)
    return found


def _extended(values: list[Any], wanted: pa.BaseExtensionType) -> pa.Array:
    """UUIDs, tensors and the like: as Python has them, or as what they are stored as, the only way that JSON has.

    Raises ValueError: a value does not fit.
    """
    try:
        found = pa.array(values)
    except pa.ArrowException:
        found = None
    if found is not None and found.type == wanted:
        return found
    return pa.ExtensionArray.from_storage(wanted, _parts(values, wanted.storage_type))


def _holds_bool(value: Any) -> bool:
    return type(value) is list and bool in set(map(type, value))


def _bytes(value: Any) -> Any:
    """Text as the bytes that it stands for: JSON has no other way to say bytes. Raises ValueError: it is not base64."""
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _moments(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Text as times. Raises ValueError: there is one that is no time."""
    if not is_text(array.type):
        return array
    array, unfit = cast(array, wanted)
    if unfit is not None:
        msg = "not all of them are times in ISO 8601"
        raise ValueError(msg)
    return array
