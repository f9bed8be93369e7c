"""A generator function as a source."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from mlinfer import (
    BadRecord,
    Batch,
    ConfigError,
    DataSource,
    EndOfInput,
    Position,
    RecordIds,
    batch_from_rows,
    to_arrow,
)

LONGEST_RAW = 65_536


@dataclass(frozen=True)
class IterableSource(DataSource):
    """Reads what a function yields: record batches, tables, dicts of columns, data frames, or lists of dicts.

    What it yields is copied, so it may fill one array of numpy again and again.

    A function that takes an argument `after` can be resumed: it gets the number of records that are done and must go on
    right behind them. One that does not is called anew after a crash, and what was under way is lost. A pipeline that is
    pickled needs a function of a module.

    Args:
        make: called once per run; yields records in order.
        bounded: whether it ends by itself.

    >>> def counted(after=0):
    ...     for n in range(after, 3):
    ...         yield {"n": [n]}
    >>> IterableSource(counted).resume
    'seek'
    >>> IterableSource(lambda: [{"n": [1, 2]}]).resume
    'none'
    """

    make: Callable[..., Iterable[Any]]
    bounded: bool = True

    def __post_init__(self) -> None:
        """Raise ConfigError for what a function returned: a second run would find it used up."""
        made: Any = self.make
        if not callable(made):
            found = type(made).__name__
            msg = f"IterableSource: wanted a function that yields records, found a {found}; give the function, not what it returned"
            if not isinstance(made, Generator):
                msg += " (records in hand are for MemorySource)"
            raise ConfigError(msg)

    @property
    def resume(self) -> Literal["seek", "none"]:  # type: ignore[override]
        """`seek` if the function takes `after`."""
        return "seek" if "after" in inspect.signature(self.make).parameters else "none"

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[IterableReader]:
        """Begin, or go on behind so many records."""
        seeks = self.resume == "seek"
        made: Any = self.make(after=after or 0) if seeks else self.make()
        if not isinstance(made, Iterable) and not hasattr(made, "__getitem__"):  # as datasets of torch are
            msg = f"IterableSource: wanted a function that yields records, found one that gives {type(made).__name__}; write it with yield, and without async"
            raise ConfigError(msg)
        with ExitStack() as stack:
            pieces = iter(made)
            if isinstance(pieces, Generator):
                stack.callback(pieces.close)
            yield IterableReader(pieces, partition, after or 0, wanted=wanted, seeks=seeks)


class IterableReader:
    """Cuts what comes into batches."""

    def __init__(
        self, pieces: Iterator[Any], partition: str, done: int, *, wanted: pa.Schema, seeks: bool
    ) -> None:
        self._pieces, self._partition, self._done = pieces, partition, done
        self._wanted, self._seeks = wanted, seeks
        self._waiting: Iterator[pa.RecordBatch | list[Any]] = iter(())
        self._rest: pa.RecordBatch | list[Any] | None = None

    def read(self, max_records: int, timeout: float) -> Batch:  # noqa: ARG002 - a generator cannot be hurried
        """The next records."""
        piece = self._next()
        count = min(len(piece), max_records)
        self._rest = piece[count:] if len(piece) > count else None
        start, self._done = self._done, self._done + count
        position = self._done if self._seeks else None
        ids = RecordIds.ordinals(self._partition, start, count)
        if isinstance(piece, pa.RecordBatch):
            return Batch(piece.slice(0, count), self._partition, position, ids)
        rows = piece[:count]
        records, good, misfits = batch_from_rows(rows, self._wanted)
        bad = tuple(
            BadRecord(
                f"{self._partition}#{start + one.row}", one.kind, one.message, _raw(rows[one.row]), one.row
            )
            for one in sorted(misfits, key=lambda one: one.row)
        )
        return Batch(records, self._partition, position, ids.take(good) if bad else ids, bad)

    def _next(self) -> pa.RecordBatch | list[Any]:
        if self._rest is not None:
            return self._rest
        while True:
            for piece in self._waiting:
                if len(piece):
                    return piece
            found = next(self._pieces, None)
            if found is None:
                raise EndOfInput
            is_rows = isinstance(found, list) and any(isinstance(row, dict) for row in found)
            self._waiting = iter([found]) if is_rows else map(apart, to_arrow(found).to_batches())


def apart(records: pa.RecordBatch) -> pa.RecordBatch:
    """The same in other memory: Arrow looks into the array of numpy it is given, which a function may fill with what comes next."""
    if not records.num_columns:  # and rows all the same
        return records
    if not any(map(pa.types.is_dictionary, records.schema.types)):  # many columns are copied sooner together
        return pa.concat_batches([records, records.slice(0, 0)])
    return pa.RecordBatch.from_arrays([_copied(one) for one in records.columns], schema=records.schema)


def _copied(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        parts = _copied(column.indices), _copied(column.dictionary)
        return pa.DictionaryArray.from_arrays(*parts, ordered=column.type.ordered, safe=False)
    return pa.concat_arrays([column, column.slice(0, 0)])


def _raw(row: Any) -> bytes:
    """What a reject keeps of a row: JSON, which a replay reads; what JSON cannot say as Python writes it, which none does."""
    try:
        text = json.dumps(row, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(row)
    return text.encode(errors="backslashreplace")[:LONGEST_RAW]
