"""Numbers and texts as decimals, exactly or not at all.

Arrow computes as many digits as the width of a decimal has, and what is beyond them is lost without a word: of
524,280,771 as decimal32(9, 2) it makes another number, and of the text 4e-21 as decimal64(18, 3) a zero.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import from_values, masked, to_numpy
from mlinfer._forcing import fitting

INTEGER_DIGITS = 20
"""So many has the largest integer of 64 bits."""
_DIGITS = {32: 9, 64: 18, 128: 38, 256: 76}
"""That decimals of so many bits have at most."""
_WIDE, _EXACT = np.dtype(np.float64), 2**53
"""Floats that hold every whole number below."""
PIECE = 1024
"""So many values are looked at one by one where one of them does not fit."""


def to_decimals(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """Texts, floats, integers or decimals as decimals, with a mask of the values that do not fit (None: all do).

    A value that does not fit is null in the result, and so is NaN, which is no value. A float is the shortest decimal that
    is read as it; one of 16 or 32 bits that is a whole number is that number.
    """
    if pt.is_floating(array.type):
        array = _shortest(array)
    elif pt.is_integer(array.type):  # which Arrow casts by what their type could hold, not by what they are
        array = array.cast(pa.decimal128(INTEGER_DIGITS, 0))
    elif not pt.is_decimal(array.type):
        array = array.cast(pa.large_string())
    if (whole := _at_once(array, wanted)) is not None:
        return whole, None
    pieces = [_piece(array[first : first + PIECE], wanted) for first in range(0, len(array), PIECE)]
    values, unfit = zip(*pieces, strict=True)
    bad = np.concatenate(unfit)
    return pa.concat_arrays(values), bad if bad.any() else None


def _shortest(floats: pa.Array) -> pa.Array:
    # Arrow computes little with half floats
    values = to_numpy(floats.cast(pa.float32()) if pt.is_float16(floats.type) else floats)
    values = values.astype(floats.type.to_pandas_dtype(), copy=False)
    if not len(values):
        return pa.nulls(0, pa.string())
    texts = values.astype(str)
    if values.itemsize < _WIDE.itemsize:  # as such a float 123,456,792 is read from 123,456,790, too
        wide = values.astype(_WIDE)
        whole = (np.abs(wide) < _EXACT) & (np.floor(wide) == wide)
        texts[whole] = wide[whole].astype(str)
    return masked(from_values(texts.tolist()), np.isnan(values))


def _at_once(array: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    """What Arrow makes of them; None: it has too few digits, or there is a value that does not fit."""
    if not _is_within(array, wanted):
        return None
    try:
        return array.cast(wanted)
    except pa.ArrowInvalid:
        return None


def _is_within(array: pa.Array, wanted: pa.DataType) -> bool:
    """Whether Arrow has digits enough for all that it computes on the way."""
    import pyarrow.compute as pc

    most = _DIGITS[wanted.bit_width]
    if pt.is_decimal(array.type):
        more = wanted.scale - array.type.scale
        room = most - max(more, 0)
        return bool(-more <= most and (array.type.precision <= room or _longest(array) <= room))
    if pc.any(pc.match_substring(array, "e", ignore_case=True)).as_py():
        return False
    longest = pc.max(pc.binary_length(array)).as_py() or 0
    return bool(longest + abs(wanted.scale) <= most)


def _longest(array: pa.Array) -> int:
    """The digits of the largest number of all, whatever its sign."""
    import pyarrow.compute as pc

    if array.type.bit_width <= 64:  # noqa: PLR2004 - Arrow compares no narrower ones
        array = array.cast(pa.decimal128(array.type.precision, array.type.scale))
    ends = [one for one in pc.min_max(array).as_py().values() if one is not None]
    return max((len(one.as_tuple().digits) for one in ends), default=0)


def _piece(array: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """A few values, and which of them do not fit: Arrow does not say."""
    if (whole := _at_once(array, wanted)) is not None:
        return whole, np.zeros(len(array), bool)
    found = [None if one is None else fitting(one, wanted) for one in array.to_pylist()]
    made = pa.array(found, wanted)
    return made, to_numpy(made.is_null()) & to_numpy(array.is_valid())
