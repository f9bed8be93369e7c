"""A file of JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import Batch, DataDestination, Progress, Scope, as_column, json_objects, located
from mlinfer.destinations._appended import (
    Appended,
    check_uncompressed,
    open_appended,
)
from mlinfer.destinations._if_exists import IfExists, check_if_exists
from mlinfer.destinations._pruning import prune_json_lines
from mlinfer.destinations._sidecar import committed_text, stored_progress
from mlinfer.destinations._spellable import check_types, refuse_far_times

SPELLED = {"string", "large_string", "string_view", "binary", "large_binary", "binary_view"}
"""Types whose values are texts in JSON, also where they look like something else: Arrow would guess times."""


@dataclass(frozen=True)
class JsonLinesDestination(DataDestination):
    """Appends one JSON object a line to one file, in UTF-8.

    NaN and infinities become null, times ISO 8601 (UTC with Z where they have a zone), bytes base64, decimals texts, lists
    and structs JSON. Progress is kept in `.NAME.progress` beside the file: at the next run, what a crash left behind the
    last commit is cut off, so readers should wait for the end of a run.

    Args:
        path: the file. Its folder is created if need be.
        if_exists: what to do about a file that this pipeline did not write: `fail`, `append` to it or `replace` it.
    """

    path: str | os.PathLike[str]
    if_exists: IfExists = "fail"
    transactional = True
    holds_one_output = True

    def __post_init__(self) -> None:
        """Raise ConfigError for a name that promises compression, or a choice that there is not."""
        check_uncompressed(self.path)
        check_if_exists(self.if_exists)

    def records(self, scope: Scope) -> Iterator[pa.RecordBatch]:
        """The committed records, in the types that their JSON shows; a column of texts is one, whatever they look like."""
        import pyarrow.json as pj

        text, columns = committed_text(located(self.path), scope)
        if text:
            whole = pj.ReadOptions(block_size=len(text))  # a record must not lie across the edge of a block
            texts = pa.schema([(name, pa.string()) for name, kind in columns if kind in SPELLED])
            known = pj.ParseOptions(explicit_schema=texts)
            yield from pj.read_json(pa.BufferReader(text), whole, known).to_batches()

    def prune(self, scope: Scope, before: datetime) -> int:
        """Remove the lines of rejects of one pipeline that are older; how many there were.

        Raises FencedError: a run writes here. ChangedError: the file or its progress is damaged.
        """
        return prune_json_lines(located(self.path), scope, before)

    def stored(self, scope: Scope) -> Progress:
        """The progress beside the file. Raises ChangedError: it is damaged."""
        return stored_progress(located(self.path), scope)

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[JsonLinesWriter]:
        """Go on behind the last commit.

        Raises ConfigError: another pipeline or another schema wrote what is there. SchemaError: a column is of a type that
        JSON has no text for. FencedError: another run writes. ChangedError: the file or its progress is damaged.
        """
        check_types(schema, "a file of JSON lines")
        with open_appended(located(self.path), schema, scope, self.if_exists) as file:
            yield JsonLinesWriter(file)


class JsonLinesWriter:
    """Writes batches as lines."""

    def __init__(self, file: Appended) -> None:
        self._file = file

    def write(self, batch: Batch) -> None:
        """Append the records. Raises RecordErrors: a time is too far away. ComponentError: the disk is full, or the like."""
        refuse_far_times(batch.records)
        self._file.append(json_lines(batch.records))

    def commit(self, progress: Progress) -> None:
        """Store records and progress in one step."""
        self._file.commit(progress)

    def committed(self) -> Progress:
        """All progress so far."""
        return self._file.committed()


def json_lines(records: pa.RecordBatch) -> memoryview | bytes:
    """A batch as lines of JSON."""
    if not records.num_rows:
        return b""
    newline, nothing = as_column(["\n", ""], pa.field("", pa.string())).cast(pa.large_string())
    lines = pc.binary_join_element_wise(json_objects(records), newline, nothing)
    _, offsets, text = lines.buffers()
    ends = memoryview(offsets).cast("q")
    return memoryview(text)[ends[lines.offset] : ends[lines.offset + len(lines)]]
