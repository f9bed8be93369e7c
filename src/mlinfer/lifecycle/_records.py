"""All records of a source, as one table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import BadRecord, ConfigError, DataSource, EndOfInput, SchemaError, to_arrow

AT_ONCE = 65_536
SECONDS = 1.0


def known(source: Any) -> pa.Schema:
    """The columns of a source, or of data in hand. Raises ConfigError: it does not know them, or never ends."""
    if not _is_source(source):
        return to_arrow(source).schema
    if not source.bounded:
        msg = f"{source!r}: wanted a source that ends by itself to train on, found one that goes on for ever"
        raise ConfigError(msg)
    schema = source.schema()
    if schema is None:
        msg = f"{source!r}: wanted a source that knows its columns, found one that does not; give it a schema, or hand a table over"
        raise ConfigError(msg)
    return schema


def read(source: Any, columns: Sequence[str]) -> pa.Table:
    """These columns of every record, in order.

    Raises SchemaError: a column is absent. ConfigError: a record cannot be decoded: what was not read cannot be learned
    from, and nobody would see that it is missing.
    """
    schema = known(source)
    for name in columns:
        if (times := schema.names.count(name)) != 1:
            found = f"{times} columns of that name" if times else "no such column"
            there = f"columns there are: {', '.join(schema.names)}"
            raise SchemaError(name, "a column of the source", found, there)
    wanted = pa.schema([schema.field(name).remove_metadata() for name in columns])
    if not _is_source(source):
        table = to_arrow(source).select(columns)
    else:
        table = pa.Table.from_batches(list(_batches(source, wanted)), wanted)
    plain = [_plain(table.column(name)) for name in columns]
    return pa.table(plain, names=list(columns))


def digest_of(*columns: pa.Table | np.ndarray) -> str:
    """A SHA-256 (hex) of names, types and values, however they are cut into chunks."""
    found = hashlib.sha256()
    for one in columns:
        if isinstance(one, np.ndarray):
            found.update(one.tobytes())
            continue
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, one.schema) as writer:
            writer.write_table(one.combine_chunks(), max_chunksize=None)
        found.update(sink.getvalue())
    return found.hexdigest()


def _is_source(source: Any) -> bool:
    return not isinstance(source, type) and hasattr(source, "partitions") and hasattr(source, "open")


def _batches(source: DataSource, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    for partition in source.partitions():
        with source.open(partition, None, wanted) as reader:
            while True:
                try:
                    batch = reader.read(AT_ONCE, SECONDS)
                except EndOfInput:
                    break
                if batch is None:
                    continue
                if batch.bad:
                    raise ConfigError(_unreadable(batch.bad[0], wanted))
                yield _fitting(batch.records, wanted)


def _unreadable(bad: BadRecord, wanted: pa.Schema) -> str:
    untold = [one.name for one in wanted if pa.types.is_null(one.type) and repr(one.name) in bad.message]
    if untold:
        return _untold(untold[0])
    return f"record {bad.id}: {bad.message}; wanted records that can all be read, to train on: mend it or leave it out"


def _untold(name: str) -> str:
    return (
        f"column {name!r}: wanted one type for all its values, found that the first records do not tell it (no values, values of "
        "several types, codes such as 007, or numbers that fit no one type); name other features, or hand a table over"
    )


def _fitting(records: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    columns = []
    for field in wanted:
        column = records.column(records.schema.get_field_index(field.name))
        if pa.types.is_null(field.type) and column.null_count < len(column):
            raise ConfigError(_untold(field.name))
        if pa.types.is_null(field.type):
            column = pa.nulls(len(column))
        elif column.type != field.type:
            decoded = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            column = decoded.cast(field.type)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionaries: categories are texts here. Without views, with which Arrow can do little."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column
