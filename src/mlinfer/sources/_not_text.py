"""Records of a batch that hold text which is not UTF-8: they are taken out, and the others are fine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import chosen_rows, is_list, is_text

KIND = "undecodable"


def without(records: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, tuple[str, bytes]]]:
    """The records that can be decoded, and of the others by row: why they cannot, and the bytes.

    Raises pa.ArrowInvalid: something else is wrong with the batch than text.
    """
    found: dict[int, tuple[str, bytes]] = {}
    columns = []
    for name, column in zip(records.schema.names, records.columns, strict=True):
        words = _not_text_in(column)
        columns.append(words is None)
        for row in [] if words is None else np.flatnonzero(words).tolist():
            found.setdefault(row, _why(name, column.slice(row, 1)))
    keep = np.ones(records.num_rows, bool)
    keep[list(found)] = False
    kept = chosen_rows(records, keep)
    for place, fine in enumerate(columns):
        # its dictionary still holds what nobody names
        if not fine and pt.is_dictionary(kept.column(place).type):
            anew = kept.column(place).dictionary_decode().dictionary_encode()
            kept = kept.set_column(place, kept.schema.field(place), anew.cast(kept.column(place).type))
    kept.validate(full=True)
    return kept, found


def blanked(records: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """With nulls in place of the texts of a column that are none."""
    place = records.schema.get_field_index(name)
    column = records.column(place)
    words = _not_text_in(column)
    if words is None:
        return records
    rows = pa.array(np.arange(len(column)), pa.int64(), mask=words)
    return records.set_column(place, name, chosen_rows(column, rows))


def _not_text_in(column: pa.Array) -> np.ndarray | None:
    """Which rows hold text that is not UTF-8; None: all of the column is. Raises pa.ArrowInvalid: something else is wrong."""
    try:
        column.validate(full=True)
    except UnicodeDecodeError:  # pyarrow's message holds what it complains of
        return _rows(column)
    except pa.ArrowInvalid as error:
        if "utf8" not in str(error).lower():
            raise
        return _rows(column)
    return None


def _rows(array: pa.Array) -> np.ndarray:
    """Which values are no text, or hold some that is none."""
    import pyarrow.compute as pc

    kind, found = array.type, np.zeros(len(array), bool)
    if pt.is_dictionary(kind):
        words = _rows(array.dictionary)
        there = np.asarray(array.is_valid())
        found[there] = words[np.asarray(array.indices.drop_null())] if len(words) else False
    elif is_text(kind):
        raws = array.cast(pa.large_binary()).to_pylist()
        found[:] = [raw is not None and _first_odd(raw) is not None for raw in raws]
    elif is_list(kind):
        found[np.asarray(pc.list_parent_indices(array))[_rows(array.flatten())]] = True
    elif pt.is_struct(kind):
        for inner in array.flatten():
            found |= _rows(inner)
    return found


def _why(name: str, value: pa.Array) -> tuple[str, bytes]:
    """Of one record's value of a column."""
    if pt.is_dictionary(value.type):
        value = value.dictionary_decode()
    if pt.is_nested(value.type):
        return f"wanted text in UTF-8 within {name!r}, found other bytes", b""
    raw = value.cast(pa.large_binary())[0].as_py()
    place = _first_odd(raw) or 0
    return f"wanted text in UTF-8 in {name!r}, found the byte 0x{raw[place]:02x} at byte {place + 1}", raw


def _first_odd(raw: bytes) -> int | None:
    """Where the bytes are no UTF-8 for the first time; None: they are."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None
