"""How a part file is made: its columns as Parquet stores them, its records, and at the end its mark."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ConfigError, durable, failpoint, is_bytes, is_text
from mlinfer.destinations._parquet_parts import KEY, SCHEMA_KEY, Mark, encoded


def physical_schema(schema: pa.Schema, records: pa.RecordBatch | None) -> pa.Schema:
    """The types to write in: strings that arrive dictionary-encoded are written as they are."""
    if records is None:
        return schema
    fields = []
    for n, field in enumerate(schema):
        # no views: Arrow decodes no dictionary of them
        plain = is_text(field.type) and not pt.is_string_view(field.type)
        encoded = plain and pt.is_dictionary(records.schema.field(n).type)
        fields.append(field.with_type(pa.dictionary(pa.int32(), field.type)) if encoded else field)
    return pa.schema(fields)


def to_table(batches: list[pa.RecordBatch], physical: pa.Schema) -> pa.Table:
    """One table of these batches in the types to write in; its dictionaries are one per column and not too long."""
    columns = []
    for n, field in enumerate(physical):
        column = pa.chunked_array([_as(batch.column(n), field.type) for batch in batches], field.type)
        if pt.is_dictionary(field.type):
            column = _compact(column)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=physical)


def _as(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pt.is_dictionary(array.type) and array.dictionary.null_count:
        array = array.dictionary_decode()  # Arrow writes no dictionary that has a null among its values
    if array.type == wanted:
        return array
    if pt.is_dictionary(wanted) and pt.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(
            array.indices.cast(wanted.index_type), array.dictionary.cast(wanted.value_type)
        )
    if pt.is_dictionary(wanted):
        return array.cast(wanted.value_type).dictionary_encode()
    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(wanted)


def _compact(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """One dictionary for all chunks (pages change their encoding where it changes), no longer than the column."""
    column = column.unify_dictionaries()
    if column.num_chunks and len(column.chunk(0).dictionary) > len(column):
        plain = pa.chunked_array(
            [chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type
        )
        return plain.dictionary_encode()
    return column


class PartFile:
    """A part in the making, under a temporary name."""

    def __init__(self, scratch: Path, schema: pa.Schema, physical: pa.Schema, compression: str) -> None:
        """Create the file. Raises OSError."""
        import pyarrow.parquet as pq

        self.path, self.physical, self._schema = scratch, physical, schema
        self._stack = ExitStack()
        file = self._stack.enter_context(durable.create(scratch))
        self._writer = pq.ParquetWriter(
            pa.PythonFile(file, "w"),
            physical,
            compression=compression,
            use_dictionary=_dictionaries(schema),
            store_schema=False,
        )

    def write(self, batches: list[pa.RecordBatch]) -> None:
        """Append these records as one row group. Raises OSError, ArrowException."""
        table = to_table(batches, self.physical)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        failpoint("dest.write.partial")

    def finish(self, mark: Mark) -> None:
        """Write the footer and return when all is on disk. Readers see the declared schema, not the types written in."""
        self._writer.add_key_value_metadata({SCHEMA_KEY: encoded(self._schema), KEY: mark.to_json().encode()})
        self._writer.close()
        self._stack.close()

    def abandon(self) -> None:
        """Remove the file."""
        # it may fail once more where it has failed before
        with suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()
        with suppress(OSError, ValueError):
            self._stack.close()
        durable.remove(self.path)


def check_writable(schema: pa.Schema, compression: str, where: Path) -> None:
    """Raises ConfigError: Parquet has no such type, or no such compression."""
    import pyarrow.parquet as pq

    for field in schema:
        try:
            _try(field)
        except (pa.ArrowException, OSError) as error:
            msg = f"{where}: field {field.name!r}: wanted a type that Parquet can hold, found {field.type} ({error}); answer or keep another type"
            raise ConfigError(msg) from error
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([]), compression=compression).close()
    except (pa.ArrowException, OSError, ValueError) as error:
        msg = f"{where}: wanted a compression that Parquet knows, found {compression!r}; use 'snappy', 'zstd', 'lz4' or 'none'"
        raise ConfigError(msg) from error


def _try(field: pa.Field) -> None:
    """Write no records of this type. Raises ArrowException or OSError: it cannot be."""
    import pyarrow.parquet as pq

    if pt.is_fixed_size_list(field.type) and not field.type.list_size:
        msg = "Arrow writes lists of the length 0, but cannot read them again"
        raise pa.ArrowInvalid(msg)
    pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()


def _dictionaries(schema: pa.Schema) -> list[str] | bool:
    """The columns to encode as dictionaries: texts and bytes. For numbers and ids that costs time and saves nothing."""
    return [field.name for field in schema if _repeats(field.type)] or False


def _repeats(kind: pa.DataType) -> bool:
    """Whether values of this type are often the same; bytes of a fixed size are ids and digests, which are not."""
    values = kind.value_type if pt.is_dictionary(kind) else kind
    return is_text(values) or (is_bytes(values) and not pt.is_fixed_size_binary(values))
