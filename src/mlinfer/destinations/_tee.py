"""One output to several destinations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pyarrow as pa

from mlinfer import (
    Batch,
    ConfigError,
    DataDestination,
    Progress,
    RecordErrors,
    Scope,
    Writer,
    chosen_rows,
    located,
)


class Tee(DataDestination):
    """Writes the same records to several destinations.

    Two stores cannot share a transaction, so a Tee is never transactional: progress needs a `checkpoint`, and a crash
    between the commits repeats the last records at those that came first. Where all are keyed that does no harm, and
    the Tee is keyed. Records are handed on at the commit, to one destination after the other. A record that one of them
    refuses becomes a reject and is not handed to the next ones: put the strictest first.

    >>> import mlinfer
    >>> from mlinfer.destinations import MemoryDestination
    >>> from mlinfer.sources import MemorySource
    >>> @mlinfer.host(inputs={"n": "int64"}, outputs={"square": "int64"}, takes="numpy", version="1")
    ... def squared(n):
    ...     return n * n
    >>> here, there = MemoryDestination(), MemoryDestination()
    >>> print(mlinfer.InferencePipeline(MemorySource({"n": [3]}), squared, Tee(here, there), name="both").run())
    1 delivered, 0 rejected, at-least-once ...
    >>> here.table() == there.table()
    True
    """

    transactional = False

    def __init__(self, first: DataDestination, *others: DataDestination) -> None:
        self.destinations = (first, *others)
        if not others:
            msg = "Tee: wanted two destinations or more, found one; use it without Tee"
            raise ConfigError(msg)
        for one, other in combinations(_all_of(self), 2):
            if _same(one, other):
                msg = f"Tee: wanted destinations that differ, found {one!r} twice, where every record would come twice; leave one out"
                raise ConfigError(msg)

    @property
    def keyed(self) -> bool:  # type: ignore[override]
        """Whether all of them are."""
        return all(destination.keyed for destination in self.destinations)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tee) and other.destinations == self.destinations

    def __hash__(self) -> int:
        return hash(self.destinations)

    def __repr__(self) -> str:
        return f"Tee({', '.join(map(repr, self.destinations))})"

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[TeeWriter]:
        """Open them in order; all are closed, in reverse order, whatever happens.

        Raises ConfigError: two of them are one place by two names.
        """
        for one, other in combinations(_all_of(self), 2):
            if type(one) is type(other) and _place(one) == _place(other) is not None:
                msg = f"Tee: wanted destinations that differ, found {one!r} and {other!r}, which are one place, where every record would come twice; leave one out"
                raise ConfigError(msg)
        with ExitStack() as stack:
            yield TeeWriter([stack.enter_context(one.open(schema, scope)) for one in self.destinations])


class TeeWriter:
    """Holds records until the commit, then hands them on."""

    def __init__(self, writers: list[Writer]) -> None:
        self._writers = writers
        self._held: list[Batch] = []
        self._done = 0  # so many writers have what is held already: a later one has refused a part of it

    def write(self, batch: Batch) -> None:
        """Hold the records."""
        self._held.append(batch)

    def commit(self, progress: Progress) -> None:
        """Write and commit everywhere, in order. Raises RecordErrors for what one refuses; the next are not asked."""
        held, self._held = self._held, []
        for writer in self._writers[self._done :]:
            refused = _Refused()
            rows = refused.write(writer, held)
            try:
                writer.commit(progress)
            except RecordErrors as errors:
                refused.add([rows[row] for row in errors.rows], errors)
                raise refused.errors() from errors
            self._done += 1
            if refused.found:
                raise refused.errors()
        self._done = 0


class _Refused:
    """What one destination refuses of all that is held."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[str, str]] = {}

    def add(self, rows: list[int], errors: RecordErrors) -> None:
        self.found.update(zip(rows, zip(errors.kinds, errors.messages, strict=True), strict=True))

    def write(self, writer: Writer, held: list[Batch]) -> list[int]:
        """Write what it takes; which rows these are, counted over all that is held."""
        taken: list[int] = []
        start = 0
        for batch in held:
            rows = list(range(len(batch)))
            while rows:
                part = batch if len(rows) == len(batch) else _part(batch, rows)
                try:
                    writer.write(part)
                except RecordErrors as errors:
                    bad = set(errors.rows)
                    self.add([start + rows[row] for row in errors.rows], errors)
                    rows = [row for place, row in enumerate(rows) if place not in bad]
                else:
                    break
            taken += [start + row for row in rows]
            start += len(batch)
        return taken

    def errors(self) -> RecordErrors:
        rows = sorted(self.found)
        return RecordErrors(rows, [self.found[row][0] for row in rows], [self.found[row][1] for row in rows])


def _all_of(destination: DataDestination) -> list[DataDestination]:
    """Those that write, also of a Tee within a Tee."""
    if not isinstance(destination, Tee):
        return [destination]
    return [one for each in destination.destinations for one in _all_of(each)]


def _same(one: DataDestination, other: DataDestination) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:  # noqa: BLE001 - a stranger's: fields that are arrays are neither equal nor not
        return False


def _place(destination: DataDestination) -> Path | None:
    """Where it writes, without links; None: it does not say."""
    path = getattr(destination, "path", None)
    return located(path).resolve() if isinstance(path, str | os.PathLike) else None


def _part(batch: Batch, rows: list[int]) -> Batch:
    return replace(batch, records=chosen_rows(batch.records, rows), ids=batch.ids.take(rows))
