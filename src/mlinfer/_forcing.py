"""Python values that Arrow would change, or end the process over, when it makes them a column of a given type."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from itertools import chain, repeat
from numbers import Number
from operator import attrgetter, mod
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._text import shown

_LISTS = (list, tuple, np.ndarray)
_NO_LISTS = (str, bytes, Mapping, pa.Scalar)
_MICROSECONDS = {"s": 1_000_000, "ms": 1000}
_DAY = 86_400_000  # milliseconds
_UNSIGNED = {np.uint64, np.ulonglong}
_SIGN = 2**63
"""Of integers without a sign, Arrow takes it for one on their way to a float."""
_NUMPY_TIMES = (np.datetime64, np.timedelta64)
_PARTS = {dt.datetime: "microsecond", dt.time: "microsecond", dt.timedelta: "microseconds"}
_SPELLED = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
Asked: TypeAlias = Callable[[pa.DataType], bool]
"""Which types values are looked at for."""


def forced(values: Any, kind: pa.DataType) -> pa.Array:
    """What `pa.array` makes of them where that keeps what they say.

    It cuts 1.5 to the integer 1, noon to a day and 8.4E-14 to a decimal32 of 0.00, takes 1e300 for an infinite float of 32 bits,
    the largest integer of numpy for -1.0, and ends the process over a null in a map. Raises ValueError: a value would be changed, or is none of the kind.
    """
    _look(values, kind, _is_delicate)
    made = pa.array(values, kind)
    if _holds_suspect(made):
        _look(values, kind, pt.is_floating)
    return made


def _is_delicate(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_decimal(kind) or pt.is_map(kind) or _is_moment(kind))


def _is_moment(kind: pa.DataType) -> bool:
    return bool(pt.is_date(kind) or pt.is_timestamp(kind) or pt.is_time(kind) or pt.is_duration(kind))


def _holds(kind: pa.DataType, asked: Asked) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _holds(kind.storage_type, asked)
    if _is_encoded(kind):
        return _holds(kind.value_type, asked)
    return asked(kind) or any(_holds(kind.field(number).type, asked) for number in range(kind.num_fields))


def _is_encoded(kind: pa.DataType) -> bool:
    """Whether each value is stored once for many places: dictionaries and runs."""
    return bool(pt.is_dictionary(kind) or pt.is_run_end_encoded(kind))


def _holds_suspect(array: pa.Array) -> bool:
    """Whether there is a float that numbers of another size may have become: an infinite or a negative whole one."""
    kind = array.type
    if pt.is_floating(kind):
        data = array.buffers()[1]
        return data is not None and _is_suspect(np.frombuffer(data, kind.to_pandas_dtype()))
    if isinstance(array, pa.ExtensionArray):
        return _holds_suspect(array.storage)
    if _is_encoded(kind):
        return _holds_suspect(array.dictionary if pt.is_dictionary(kind) else array.values)
    if pt.is_struct(kind):
        return any(_holds_suspect(array.field(number)) for number in range(kind.num_fields))
    return kind.num_fields == 1 and hasattr(array, "values") and _holds_suspect(array.values)


def _is_suspect(values: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((((values < 0) & (values == np.floor(values))) | np.isinf(values)).any())


def _look(values: Sequence[Any], kind: pa.DataType, asked: Asked) -> None:
    """Raise ValueError if one of these is not what the type holds; all parts of a kind are looked at together."""
    if not _holds(kind, asked):
        return
    if isinstance(kind, pa.BaseExtensionType):
        _look(values, kind.storage_type, asked)
    elif _is_encoded(kind):
        _look(values, kind.value_type, asked)
    elif pt.is_map(kind):
        pairs = list(_pairs(values, kind))
        _look([key for key, _ in pairs], kind.key_type, asked)
        _look([item for _, item in pairs], kind.item_type, asked)
    elif pt.is_struct(kind):
        objects = [_object(value, kind) for value in values if isinstance(value, (Mapping, list, tuple))]
        for field in kind:
            _look([one.get(field.name) for one in objects], field.type, asked)
    elif kind.num_fields == 1 and hasattr(kind, "value_type"):
        lists = [value for value in values if isinstance(value, _LISTS) or _is_many(value)]
        _look(list(chain.from_iterable(lists)), kind.value_type, asked)
    elif not _all_fit(values, kind):
        for value in values:
            _look_at_one(value, kind)


def _is_many(value: Any) -> bool:
    """Whether Arrow may take this for a list: sets, columns of pandas, and whatever else has values in an order."""
    return hasattr(value, "__iter__") and not isinstance(value, _NO_LISTS)


def _object(value: Any, kind: pa.DataType) -> Mapping[str, Any]:
    """What Arrow takes for an object: tuples are values in the order of the fields, lists are pairs."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple):
        return dict(zip(kind.names, value, strict=False))
    return dict(pair for pair in value if isinstance(pair, tuple) and len(pair) == 2)  # noqa: PLR2004 - a key and a value


def _pairs(values: Sequence[Any], kind: pa.DataType) -> Iterator[tuple[Any, Any]]:
    for value in values:
        if not isinstance(value, (Mapping, *_LISTS)) or isinstance(value, pa.Scalar):
            continue  # None, a scalar of Arrow, or what Arrow has words for
        for pair in value.items() if isinstance(value, Mapping) else value:
            if not isinstance(pair, _LISTS) or len(pair) != 2 or pair[0] is None:  # noqa: PLR2004 - a key and a value
                msg = f"wanted pairs of a key and a value for {kind}, found {shown(pair)} among them"
                raise ValueError(msg)
            yield pair[0], pair[1]


def _all_fit(values: Sequence[Any], kind: pa.DataType) -> bool:
    """Whether it is seen without a loop of Python's that no value is changed."""
    classes = set(map(type, values)) - {type(None)}
    if pt.is_floating(kind):
        return classes.isdisjoint(_UNSIGNED) and (pt.is_float64(kind) or _none_overflows(values, kind))
    if not _is_moment(kind) or pt.is_date(kind):
        return classes <= ({dt.date} if pt.is_date(kind) else {int})
    if not classes <= _PARTS.keys() or len(classes) > 1:
        return False
    if dt.time in classes and any(map(attrgetter("tzinfo"), filter(None, values))):
        return False
    finest = _MICROSECONDS.get(kind.unit)
    if finest is None or not classes:
        return True
    parts = map(attrgetter(_PARTS[classes.pop()]), filter(None, values))  # no time at all is none that is cut
    return not any(map(mod, parts, repeat(finest)))


def _none_overflows(values: Sequence[Any], kind: pa.DataType) -> bool:
    try:
        found = np.array(values, float)
    except (TypeError, ValueError):
        return False
    with np.errstate(over="ignore"):
        return not (np.isinf(found.astype(kind.to_pandas_dtype())) & np.isfinite(found)).any()


def _look_at_one(value: Any, kind: pa.DataType) -> None:
    """Raise ValueError for a number or a moment that would be changed."""
    advice = ""
    if pt.is_integer(kind):
        changed, advice = type(value) is not int and _has_fraction(value), "round it in the model, or "
    elif pt.is_decimal(kind):
        changed = isinstance(value, Decimal) and value.is_finite() and fitting(value, kind) is None
    elif pt.is_floating(kind):
        changed = _overflows(value, kind) or (type(value) in _UNSIGNED and value >= _SIGN)
    else:
        verb = "convert" if isinstance(value, _NUMPY_TIMES) else "cut"
        changed, advice = _is_finer(value, kind), f"{verb} it in the model, or "
    if changed:
        msg = f"wanted {kind}, found {shown(value)}; {advice}name another type in its outputs"
        raise ValueError(msg)


def _has_fraction(value: Any) -> bool:
    try:
        return bool(value is not None and value != value // 1)
    except (TypeError, ValueError, ArithmeticError):  # no number: Arrow has words for it
        return False


def _overflows(value: Any, kind: pa.DataType) -> bool:
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        return False
    with np.errstate(over="ignore"):
        return bool(np.isinf(kind.to_pandas_dtype()(value)))


def _is_finer(value: Any, kind: pa.DataType) -> bool:
    """Whether a date or a time says more than its type does, is of another unit, or a number is none of its units."""
    if isinstance(value, Number) and not isinstance(value, _NUMPY_TIMES):
        number: Any = value
        return _has_fraction(number) or bool(pt.is_date64(kind) and int(number) % _DAY)
    if isinstance(
        value, _NUMPY_TIMES
    ):  # in a list, Arrow takes their numbers as they are, whatever their unit
        return bool(pt.is_date(kind) or np.datetime_data(value) != (kind.unit, 1))
    if pt.is_date(kind):  # of no date, pandas' NaT, Arrow makes the first of January of the year 1
        noon = isinstance(value, dt.datetime) and (value != value or value.time() != dt.time())  # noqa: PLR0124 - as NaT does
        return noon or bool(getattr(value, "nanosecond", 0))
    if isinstance(value, dt.time) and value.tzinfo is not None:
        return True
    if value != value:  # noqa: PLR0124 - a NaT: Arrow has words for it
        return False
    # the times of pandas have nanoseconds
    micro = getattr(value, "microseconds" if isinstance(value, dt.timedelta) else "microsecond", 0)
    nano = getattr(value, "nanoseconds" if isinstance(value, dt.timedelta) else "nanosecond", 0)
    return bool(micro % _MICROSECONDS.get(kind.unit, 1) or (nano and kind.unit != "ns"))


def fitting(value: str | Decimal, wanted: pa.DataType) -> Decimal | None:
    """The same without zeros at its end; None: it is no number, or has digits that the type has no room for."""
    if isinstance(value, str):
        if not _SPELLED.fullmatch(value):
            return None
        try:
            value = Decimal(value)
        except InvalidOperation:  # an exponent beyond all bounds
            return None
    if not value:
        return Decimal(0)
    value = value.normalize(_EXACT)
    if value.adjusted() >= wanted.precision - wanted.scale:
        return None
    exponent = value.as_tuple().exponent
    return value if isinstance(exponent, int) and exponent >= -wanted.scale else None
