"""How much JSON a request can hold, counted before memory is taken: a list of nothing is three bytes, and 70 once it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.types as pt

from mlinfer._casts import is_list
from mlinfer._online._wire import MOST_ROWS, Refused

SMALL = 256 * 2**10
"""Bytes of a body that is not counted: whatever it holds is read in a moment."""
MOST_LISTS, FEW_LISTS = 2**20, 2**18
FEW_VALUES = 2**21
"""So many are no harm in any request: records may hold more than the model asks for."""
MOST_STRINGS = 2**20
"""So many are taken out, to see what is left."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class Bulk:
    """The lists and the values that the largest request has room for, for records of these columns.

    `apart`: every column may come as a list of its own for each record, as tensors do; otherwise a record is one object.
    """

    def __init__(self, fields: Iterable[pa.Field], *, apart: bool) -> None:
        inside = [_inside(field.type) for field in fields]
        lists = [one for one, _ in inside]
        lists_each = sum(max(1, one) for one in lists) if apart else 1 + sum(lists)
        self._lists = max(min(MOST_ROWS * (1 + lists_each), MOST_LISTS), FEW_LISTS)
        self._values = max(MOST_ROWS * (1 + sum(values for _, values in inside)), FEW_VALUES)

    def check(self, body: bytes) -> None:
        """Raises Refused: it holds more than that."""
        if len(body) <= SMALL or self._fits(body):
            return
        few = body.count(b'"') <= 2 * MOST_STRINGS
        if not few or not self._fits(_STRING.sub(b"", body)):  # texts may hold what they like
            raise Refused(
                413,
                "wanted no more lists and values than the records of a request can have; send fewer records, or plain numbers in their place",
            )

    def _fits(self, body: bytes) -> bool:
        return body.count(b"[") + body.count(b"{") <= self._lists and body.count(b",") <= self._values


def _inside(kind: pa.DataType) -> tuple[float, float]:
    """How many lists and how many values one value holds; infinity where the type does not say."""
    if pt.is_fixed_size_list(kind):
        lists, values = _inside(kind.value_type)
        return 1 + kind.list_size * lists, kind.list_size * values
    if pt.is_struct(kind):
        inside = [_inside(kind.field(number).type) for number in range(kind.num_fields)]
        return 1 + sum(lists for lists, _ in inside), sum(values for _, values in inside)
    if is_list(kind):
        return 1 if not pt.is_nested(kind.value_type) else math.inf, math.inf
    return (math.inf, math.inf) if pt.is_nested(kind) else (0, 1)
