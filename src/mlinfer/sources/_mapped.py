"""A source whose records go through a function first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from mlinfer import (
    Acknowledges,
    BadRecord,
    Batch,
    ComponentError,
    Computes,
    ConfigError,
    DataSource,
    Drains,
    MlinferError,
    Position,
    Reader,
    RecordErrors,
    chosen_rows,
)
from mlinfer.sources._iterable import apart

Function: TypeAlias = Callable[[pa.RecordBatch], pa.RecordBatch]
Reads: TypeAlias = Sequence[str] | Mapping[str, pa.DataType]
LONGEST_RAW = 65_536


@dataclass(frozen=True)
class Mapped(DataSource):
    """Computes features: `fn` takes a record batch and returns one with as many rows, in the same order.

    What `fn` returns is what there is: columns to keep must be among it. Records for which it raises become rejects of the
    kind `map_error`, the others do not. It is called again for parts of a batch after a failure, and once with an empty
    batch to see which columns it makes. Ids, positions and what the source can do stay as they are.

    Progress remembers the code of `fn`: when that has changed, the next run is a ChangedError, or does what `on_change=` says.

    Args:
        source: where the records come from.
        fn: the function; of a module, where the pipeline is pickled.
        reads: the columns of the source that `fn` needs: names, or names with types where the source knows none. By
            default all that it knows.

    >>> import pyarrow.compute as pc
    >>> from mlinfer.sources import MemorySource
    >>> def with_log(records):
    ...     return records.append_column("log_n", pc.log2(records["n"]))
    >>> Mapped(MemorySource({"n": [1.0, 8.0]}), with_log).schema()
    n: double
    log_n: double
    """

    source: DataSource
    fn: Function
    reads: Reads | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Take over what only some sources can do."""
        remaining = getattr(self.source, "remaining", None)
        if remaining is not None:
            object.__setattr__(self, "remaining", remaining)

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """As the source."""
        return self.source.bounded

    @property
    def resume(self) -> Literal["seek", "acknowledge", "none"]:  # type: ignore[override]
        """As the source."""
        return self.source.resume

    def computed_by(self) -> Sequence[Function]:
        """The functions of the source, if it has any, and `fn`."""
        before = self.source.computed_by() if isinstance(self.source, Computes) else ()
        return (*before, self.fn)

    def schema(self) -> pa.Schema | None:
        """What `fn` makes of an empty batch. Raises ComponentError: it cannot take one, or returns something else."""
        known = self.source.schema()
        if known is None and not isinstance(self.reads, Mapping):
            return None
        return self._empty(self._needed(known)).schema

    def partitions(self) -> Sequence[str]:
        """As the source."""
        return self.source.partitions()

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[MappedReader]:  # noqa: ARG002 - what is wanted comes from fn
        """Open the source. Raises ConfigError: nobody knows which columns it has."""
        needed = self._needed(self.source.schema())
        with self.source.open(partition, after, needed) as reader:
            yield MappedReader(reader, self.fn)

    def _needed(self, known: pa.Schema | None) -> pa.Schema:
        if isinstance(self.reads, Mapping):
            return pa.schema(list(self.reads.items()))
        if known is None:
            msg = "Mapped: the source does not know its columns before it is read; name them with types: reads={'x': pa.float64()}"
            raise ConfigError(msg)
        names = known.names if self.reads is None else list(self.reads)
        missing = [name for name in names if name not in known.names]
        if missing:
            msg = f"Mapped: reads names {', '.join(missing)}; wanted columns of the source: {', '.join(known.names)}"
            raise ConfigError(msg)
        return pa.schema([known.field(name) for name in names])

    def _empty(self, needed: pa.Schema) -> pa.RecordBatch:
        nothing = pa.RecordBatch.from_arrays([pa.nulls(0, one.type) for one in needed], schema=needed)
        return _without_records(self.fn, nothing)


class MappedReader:
    """Reads on, and maps."""

    def __init__(self, reader: Reader, fn: Function) -> None:
        self._reader, self._fn = reader, fn
        if isinstance(reader, Acknowledges):
            self.acknowledge = reader.acknowledge
        if isinstance(reader, Drains):
            self.drain = reader.drain

    def read(self, max_records: int, timeout: float) -> Batch | None:
        """The next records, mapped."""
        batch = self._reader.read(max_records, timeout)
        if batch is None:
            return None
        if not len(batch):
            return replace(batch, records=_without_records(self._fn, batch.records))
        found = _Isolated(self._fn, batch)
        found.call(list(range(len(batch))))
        if not found.bad:
            return replace(batch, records=found.pieces[0])
        pieces = found.pieces or [_without_records(self._fn, batch.records.slice(0, 0))]
        table = pa.concat_tables(
            [pa.Table.from_batches([one]) for one in pieces], promote_options="permissive"
        )
        records = table.combine_chunks().to_batches()
        bad = (*batch.bad, *found.bad)
        kept = records[0] if records else pieces[0].slice(0, 0)
        return Batch(kept, batch.partition, batch.position, batch.ids.take(found.good), bad)


class _Isolated:
    """Finds the records for which the function fails, by halves."""

    def __init__(self, fn: Function, batch: Batch) -> None:
        self._fn, self._batch = fn, batch
        self.pieces: list[pa.RecordBatch] = []
        self.good: list[int] = []
        self.bad: list[BadRecord] = []

    def call(self, rows: list[int]) -> None:
        """Map these rows, in order."""
        whole = len(rows) == len(self._batch)
        part = self._batch.records if whole else chosen_rows(self._batch.records, rows)
        try:
            mapped = apart(_checked(self._fn(part), len(rows)))
        except RecordErrors as errors:
            self._refuse_named(rows, errors)
        except MlinferError:
            raise
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything, and one record must not cost the others
            if len(rows) == 1:
                self._refuse(rows[0], "map_error", f"{type(error).__name__}: {error}")
                return
            self.call(rows[: len(rows) // 2])
            self.call(rows[len(rows) // 2 :])
        else:
            self.pieces.append(mapped)
            self.good += rows

    def _refuse_named(self, rows: list[int], errors: RecordErrors) -> None:
        named = dict(zip(errors.rows, zip(errors.kinds, errors.messages, strict=True), strict=True))
        for row, (kind, message) in named.items():
            self._refuse(rows[row], kind, message)
        rest = [row for place, row in enumerate(rows) if place not in named]
        if len(rest) == len(rows):
            msg = "Mapped: the function raised RecordErrors without naming a record; name one, or raise another error"
            raise ComponentError(msg) from errors
        if rest:
            self.call(rest)

    def _refuse(self, row: int, kind: str, message: str) -> None:
        record = self._batch.records.slice(row, 1).to_pylist()[0]
        raw = json.dumps(record, default=str, ensure_ascii=False).encode(errors="replace")
        place = None if self._batch.bad else row  # those stood somewhere between
        self.bad.append(
            BadRecord(self._batch.ids.array()[row].as_py(), kind, message, raw[:LONGEST_RAW], place)
        )


def _checked(mapped: Any, rows: int) -> pa.RecordBatch:
    if not isinstance(mapped, pa.RecordBatch) or mapped.num_rows != rows:
        found = f"{mapped.num_rows} rows" if isinstance(mapped, pa.RecordBatch) else type(mapped).__name__
        msg = f"Mapped: wanted a pyarrow.RecordBatch of {rows} rows from the function, found {found}"
        raise ComponentError(msg)
    return mapped


def _without_records(fn: Function, nothing: pa.RecordBatch) -> pa.RecordBatch:
    try:
        return _checked(fn(nothing), 0)
    except MlinferError:
        raise
    except Exception as error:
        msg = f"Mapped: the function must take an empty batch, to show which columns it makes; it raised {type(error).__name__}: {error}"
        raise ComponentError(msg) from error
