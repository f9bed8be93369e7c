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
        mended, bad = (column, ()) if _is_sound(column) else _mended(column)
        columns.append(mended)
        for row in np.flatnonzero(bad).tolist():
            found.setdefault(row, _why(name, column.slice(row, 1)))
    keep = np.ones(records.num_rows, bool)
    keep[list(found)] = False
    kept = chosen_rows(pa.RecordBatch.from_arrays(columns, schema=records.schema), keep)
    kept.validate(full=True)
    return kept, found


def blanked(records: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """With nulls in place of the texts of a column that are none."""
    place = records.schema.get_field_index(name)
    column = records.column(place)
    if _is_sound(column):
        return records
    mended, bad = _mended(column)
    rows = pa.array(np.arange(len(column)), pa.int64(), mask=bad)
    return records.set_column(place, name, chosen_rows(mended, rows))


def _is_sound(column: pa.Array) -> bool:
    """Whether nothing is wrong with a column; if not, it holds text that is not UTF-8. Raises pa.ArrowInvalid: something else."""
    try:
        column.validate(full=True)
    except UnicodeDecodeError:  # pyarrow's message holds what it complains of
        return False
    except pa.ArrowInvalid as error:
        if "utf8" not in str(error).lower():
            raise
        return False
    return True


def _mended(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The same with other values where text is none, also where no row points at it, and which rows held such text."""
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        inner, bad = _mended(array.storage)
        return pa.ExtensionArray.from_storage(kind, inner), bad
    if pt.is_dictionary(kind):
        return _mended_words(array)
    if is_text(kind):
        raws = array.cast(pa.large_binary())
        bad = np.array([raw is not None and _first_odd(raw) is not None for raw in raws.to_pylist()], bool)
        return pc.if_else(pa.array(bad), pa.scalar(b"", raws.type), raws).cast(kind), bad
    if pt.is_struct(kind):
        parts = [_mended(array.field(number)) for number in range(kind.num_fields)]
        columns, gaps = [part for part, _ in parts], array.is_null()
        bad = np.logical_or.reduce([np.zeros(len(array), bool), *(mask for _, mask in parts)])
        some = gaps if array.null_count else None  # Arrow 25 ends the process at entries of a map with a mask
        return pa.StructArray.from_arrays(columns, fields=list(kind), mask=some), bad & ~np.asarray(gaps)
    return (
        _mended_lists(array)
        if is_list(kind) or pt.is_map(kind) or _is_list_view(kind)
        else (array, np.zeros(len(array), bool))
    )


def _mended_words(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Of a dictionary: without the words that are none, and with nulls in their places."""
    words, odd = _mended(array.dictionary)
    codes = pa.array(np.cumsum(~odd) - 1, mask=odd).cast(array.type.index_type)
    indices = chosen_rows(codes, array.indices)
    found = pa.DictionaryArray.from_arrays(indices, chosen_rows(words, ~odd), ordered=array.type.ordered)
    return found, np.asarray(indices.is_null()) & np.asarray(array.indices.is_valid())


def _mended_lists(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Of lists in all layouts, and maps: a list holds what its values do."""
    kind = array.type
    values, odd = _mended(array.values)
    if pt.is_fixed_size_list(kind):
        own, begins = 1, (array.offset + np.arange(len(array))) * kind.list_size
        ends = begins + kind.list_size
    elif _is_list_view(kind):
        own, begins = 3, np.asarray(array.offsets)
        ends = begins + np.asarray(array.sizes)
    else:
        own, edges = 2, np.asarray(array.offsets)
        begins, ends = edges[:-1], edges[1:]
    before = np.concatenate([[0], np.cumsum(odd)])
    bad = (before[ends] > before[begins]) & np.asarray(array.is_valid())
    return pa.Array.from_buffers(kind, len(array), array.buffers()[:own], -1, array.offset, [values]), bad


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pt.is_list_view(kind) or pt.is_large_list_view(kind))


def _why(name: str, value: pa.Array) -> tuple[str, bytes]:
    """Of one record's value of a column."""
    if isinstance(value, pa.ExtensionArray):
        value = value.storage
    if pt.is_dictionary(value.type):
        value = chosen_rows(value.dictionary, value.indices)
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
