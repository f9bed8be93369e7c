"""The part files of a folder: whose they are, how far their runs had come, and how a new one is made."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ChangedError, ConfigError, Progress, Scope, durable, failpoint

ENVELOPE = durable.Envelope("part", 1, "restore the file, or remove it and what it held is delivered again")
KEY = b"mlinfer"
SCHEMA_KEY = b"ARROW:schema"
NAME = re.compile(r"part-(\d{8,})\.parquet")
Owner = tuple[str, str]
"""Pipeline and output."""


@dataclass(frozen=True)
class Mark:
    """What the footer of a part says: who wrote it, and how far that run had come with it."""

    owner: Owner
    run: str
    epoch: int
    fresh: bool
    progress: Progress
    schema: pa.Schema

    def to_json(self) -> str:
        """The text kept in the footer; the schema is kept beside it."""
        pipeline, output = self.owner
        return ENVELOPE.seal(
            {
                "pipeline": pipeline, "output": output, "run": self.run, "epoch": self.epoch, "restarts": self.fresh,
                "progress": self.progress.to_json(), "schema": _digest(encoded(self.schema)),
            }
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part file with its number and its mark."""

    path: Path
    number: int
    mark: Mark


def numbers(folder: Path) -> dict[str, int]:
    """The part files of a folder, with their numbers; none if there is no folder."""
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names are all that is needed
    return {name: number for name in names if (number := number_of(name)) is not None}


def number_of(name: str) -> int | None:
    """The number of a part; None if this is not the name of one."""
    match = NAME.fullmatch(name)
    return int(match[1]) if match else None


def survey(folder: Path, owner: Owner) -> tuple[list[Part], list[Path]]:
    """The parts of this pipeline and output in order, and all other Parquet files of the folder that hold anything.

    Raises ChangedError: a part is damaged or a newer mlinfer wrote it, so that nobody knows how far its run had come.
    """
    ours, others = [], []
    if not folder.is_dir():
        return [], []
    known = numbers(folder)
    for path in sorted(folder.glob("*.parquet")):
        mark = read_mark(path) if path.name in known else None
        if mark is None and path.name in known and path.exists():
            msg = (
                f"{path}: wanted a part that mlinfer wrote, found a file of that name without its mark; restore it, or "
                "rename it if it is of another origin"
            )
            raise ChangedError(msg)
        if mark is not None and mark.owner == owner:
            ours.append(Part(path, known[path.name], mark))
        elif not (path.name.startswith(".") or (mark is not None and is_nobodys(path, mark))):
            others.append(path)
    return sorted(ours, key=lambda part: part.number), others


def is_nobodys(path: Path, mark: Mark) -> bool:
    """Whether a part says only that its pipeline has dropped all that it had delivered."""
    import pyarrow.parquet as pq

    return mark.progress.none and not pq.read_metadata(path).num_rows


def in_force(ours: list[Part], scope: Scope) -> tuple[list[Part], list[Part]]:
    """The parts that count, and those that a later run has replaced (with `fresh`: that this run is to replace)."""
    restarted = [part for part in ours if part.mark.fresh]
    run, bound = (restarted[-1].mark.run, restarted[-1].number) if restarted else ("", -1)
    if scope.fresh and ours:
        run, bound = scope.run, ours[-1].number
    replaced = [part for part in ours if part.mark.run != run and part.number <= bound]
    return [part for part in ours if part not in replaced], replaced


def read_mark(path: Path) -> Mark | None:
    """What a file's footer says; None if mlinfer has not written it, or if it has just been removed.

    Raises ChangedError: it cannot be read, is damaged, or a newer mlinfer wrote it.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return _read_mark(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=16_384)
def _read_mark(path: Path, identity: tuple[int, ...]) -> Mark | None:  # noqa: ARG001 - part of the cache's key
    """A part never changes, so the writers of one run share what one of them has read."""
    import pyarrow.parquet as pq

    try:
        stored = pq.read_metadata(path).metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:  # a name in it may not even be UTF-8
        msg = f"{path}: wanted a part that mlinfer wrote, found {error}; restore it, or remove it and what it held is delivered again"
        raise ChangedError(msg) from error
    if KEY not in stored:
        return None
    body = ENVELOPE.unseal(stored[KEY], str(path))
    if _digest(stored.get(SCHEMA_KEY, b"")) != body["schema"]:
        msg = f"{path}: wanted the schema that mlinfer wrote, found something damaged; {ENVELOPE.repair}"
        raise ChangedError(msg)
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored[SCHEMA_KEY])))
    progress = Progress.from_json(body["progress"], str(path))
    owner = body["pipeline"], body["output"]
    return Mark(owner, body["run"], body["epoch"], body["restarts"], progress, schema)


def encoded(schema: pa.Schema) -> bytes:
    """A schema as the footer holds it."""
    return base64.b64encode(schema.serialize().to_pybytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(there: pa.Schema, wanted: pa.Schema) -> str:
    """Field by field, what two schemas disagree about; empty if nothing. Whether fields are nullable does not matter."""
    lines = []
    for name in dict.fromkeys([*there.names, *wanted.names]):
        had, has = (str(s.field(name).type) if name in s.names else "no such field" for s in (there, wanted))
        if had != has:
            lines.append(f"  {name}: there {had}, now {has}")
    if not lines and there.names != wanted.names:
        lines.append(f"  order: there {', '.join(there.names)}; now {', '.join(wanted.names)}")
    return "\n".join(lines)


def temporary_prefix(owner: Owner) -> str:
    """How the unfinished parts of this pipeline and output begin, so that nobody removes another's."""
    return f"part-{hashlib.sha256(chr(0).join(owner).encode()).hexdigest()[:12]}-"


def physical_schema(schema: pa.Schema, records: pa.RecordBatch | None) -> pa.Schema:
    """The types to write in: strings that arrive dictionary-encoded are written as they are."""
    if records is None:
        return schema
    fields = []
    for n, field in enumerate(schema):
        encoded = _is_text(field.type) and pt.is_dictionary(records.schema.field(n).type)
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
    return [
        field.name for field in schema if _is_text(_values(field.type)) or _is_bytes(_values(field.type))
    ] or False


def _values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pt.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind))


def merged(parts: Iterable[Part]) -> Progress:
    """The progress of all these parts, in their order."""
    progress = Progress()
    for part in parts:
        progress = progress.merged(part.mark.progress)
    return progress


def remove(paths: Iterable[Path]) -> None:
    """Remove files; those that are gone already are fine."""
    for path in paths:
        durable.remove(path)
