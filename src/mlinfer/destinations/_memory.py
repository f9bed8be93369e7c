"""Answers kept in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from mlinfer import Batch, ConfigError, DataDestination, FencedError, Progress, Scope


@dataclass(eq=False)
class MemoryDestination(DataDestination):
    """Keeps answers as a list of batches; `table()` gives them as one table. For tests and notebooks.

    Records and progress live as long as this object does.

    >>> import mlinfer
    >>> from mlinfer.sources import MemorySource
    >>> @mlinfer.host(inputs={"n": "int64"}, outputs={"square": "int64"}, takes="numpy", version="1")
    ... def squared(n):
    ...     return n * n
    >>> answers = MemoryDestination()
    >>> report = mlinfer.InferencePipeline(MemorySource({"n": [2, 3]}), squared, answers, name="squares").run()
    >>> answers.table().to_pydict()
    {'square': [4, 9]}
    """

    transactional = True
    _outputs: dict[tuple[str, str], _Output] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def table(self, output: str = "main") -> pa.Table:
        """All committed records of an output, in the order of their commits."""
        found = [kept for (_, name), kept in self._outputs.items() if name == output]
        batches = [batch for kept in found for batch in kept.batches]
        return pa.Table.from_batches(batches, found[0].schema) if found else pa.table({})

    def stored(self, scope: Scope) -> Progress:
        """The progress of one pipeline's output."""
        kept = self._outputs.get((scope.pipeline, scope.output))
        return kept.progress if kept else Progress()

    def records(self, scope: Scope) -> Iterator[pa.RecordBatch]:
        """The committed records of one pipeline's output."""
        kept = self._outputs.get((scope.pipeline, scope.output))
        yield from kept.batches if kept else ()

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[MemoryWriter]:
        """Go on where an earlier run of the same pipeline ended. Raises ConfigError: that one had other fields."""
        key = (scope.pipeline, scope.output)
        with self._lock:
            kept = self._outputs.get(key) or _Output(schema)
            if not scope.read_only:
                self._outputs[key] = kept
            if not (scope.fresh or kept.schema.equals(schema)):
                msg = f"{scope.output}: wanted the fields of earlier runs, {kept.schema.names}, found {schema.names} or other types; begin anew with run(from_start=True)"
                raise ConfigError(msg)
            if scope.epoch is None and not scope.read_only:
                kept.epoch += 1
            if scope.epoch is not None and scope.epoch != kept.epoch:
                raise FencedError(_fenced(scope))
            epoch = kept.epoch
        yield MemoryWriter(kept, schema, replace(scope, epoch=epoch), self._lock)


@dataclass
class _Output:
    schema: pa.Schema
    epoch: int = 0
    batches: list[pa.RecordBatch] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)


class MemoryWriter:
    """Buffers until the commit."""

    def __init__(self, kept: _Output, schema: pa.Schema, scope: Scope, lock: Any) -> None:
        self._kept, self._schema, self._scope, self._lock = kept, schema, scope, lock
        self._fresh = scope.fresh  # until the first commit, which replaces what is there
        self._buffer: list[pa.RecordBatch] = []

    def write(self, batch: Batch) -> None:
        """Remember the records."""
        records = batch.records
        plain = records if records.schema.equals(self._schema) else records.cast(self._schema)
        self._buffer.append(plain)

    def commit(self, progress: Progress) -> None:
        """Show them, and keep the progress."""
        with self._lock:
            if self._kept.epoch != self._scope.epoch:
                raise FencedError(_fenced(self._scope))
            if self._fresh:
                self._kept.schema, self._kept.batches, self._kept.progress = self._schema, [], Progress()
                self._fresh = False
            self._kept.batches += self._buffer
            self._kept.progress = self._kept.progress.merged(progress)
        self._buffer = []

    def committed(self) -> Progress:
        """All progress so far."""
        return replace(Progress() if self._fresh else self._kept.progress, epoch=self._scope.epoch or 0)


def _fenced(scope: Scope) -> str:
    return f"{scope.output}: another run of pipeline {scope.pipeline!r} has taken over; this one must stop"
