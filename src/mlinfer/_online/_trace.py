"""W3C Trace Context: the trace to which a caller says that its request belongs (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from mlinfer._online._desk import Ask

COLUMN = "trace_id"
_PARENT = re.compile("(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id(parent: str | None) -> str | None:
    """The trace that a `traceparent` names; None, as the specification has it, for one that is missing or not valid.

    Later versions may say more behind a dash, version 00 may not.
    """
    found = None if parent is None else _PARENT.fullmatch(parent)
    return None if found is None or (found[1] == "00" and found[3]) else found[2]


def traced(asks: Sequence[Ask], records: pa.RecordBatch) -> pa.RecordBatch:
    """The answers to these requests, each with its trace."""
    names = [name for ask in asks for name in [ask.caller.trace] * ask.rows]
    place = records.schema.get_field_index(COLUMN)
    return records.set_column(place, records.schema.field(place), pa.array(names, pa.string()))
