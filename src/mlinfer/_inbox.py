"""A bounded queue of batches: the reader waits when it is full, and the next batch is what has piled up meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as pt

from mlinfer._batch import Batch, RecordIds, places_of_bad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlinfer._batch import BadRecord


class Inbox:
    """Between a reader and the worker of one partition. Bounded in records, whose number may change, and in bytes."""

    def __init__(self, max_records: Callable[[], int], max_bytes: int) -> None:
        self._max_records, self._max_bytes = max_records, max_bytes
        self._batches: deque[Batch] = deque()
        self._records = self._bytes = 0
        self._changed = threading.Condition()
        self._ended = self._closed = False

    def put(self, batch: Batch, *, wait: bool = True) -> None:
        """Hand over a batch; waits while there is no room, unless the inbox was closed.

        Whoever takes the batches, too, must not wait: nobody else would make room.
        """
        size = batch.records.nbytes
        with self._changed:
            if wait:
                self._changed.wait_for(
                    lambda: self._closed or not self._batches or self._fits(_count(batch), size)
                )
            if not self._closed:
                self._batches.append(batch)
                self._records += _count(batch)
                self._bytes += size
                self._changed.notify_all()

    def end(self) -> None:
        """There will be nothing more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody takes anything any more: let the reader go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def drained(self) -> bool:
        """Whether the end was reached and everything taken."""
        with self._changed:
            return self._ended and not self._batches

    def holds_less(self, records: int) -> bool:
        """Whether there is room to go on reading until there are so many records; for one that reads and takes by itself."""
        with self._changed:
            return self._records < records and 2 * self._bytes < self._max_bytes

    def take(self, max_records: int, timeout: float) -> Batch | None:
        """What has piled up, as one batch of about `max_records` or fewer; None if nothing came in time or ever will."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or self._ended, timeout)
            if not self._batches:
                return None
            taken = [self._pop()]
            while self._batches and self._joins(taken, max_records):
                taken.append(self._pop())
            self._changed.notify_all()
        return coalesce(taken)

    def _fits(self, records: int, size: int) -> bool:
        return self._records + records <= self._max_records() and self._bytes + size <= self._max_bytes

    def _pop(self) -> Batch:
        batch = self._batches.popleft()
        self._records -= _count(batch)
        self._bytes -= batch.records.nbytes
        return batch

    def _joins(self, taken: list[Batch], max_records: int) -> bool:
        following = self._batches[0]
        together = sum(map(len, taken)) + len(following)
        schema = taken[0].records.schema
        return together <= max_records and following.records.schema.equals(schema) and not _narrow(schema)


def _narrow(schema: pa.Schema) -> bool:
    """Whether several batches may have more texts between them than their indices can count, as pandas' categories may."""
    return any(pt.is_dictionary(kind) and kind.index_type.bit_width < 32 for kind in schema.types)  # noqa: PLR2004 - bits


def _count(batch: Batch) -> int:
    """Those that could not be decoded are held, too."""
    return len(batch) + len(batch.bad)


def coalesce(batches: list[Batch]) -> Batch:
    """Several batches of one partition, in order, as one."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        records=pa.concat_batches([batch.records for batch in batches]),
        partition=batches[0].partition,
        position=batches[-1].position,
        ids=RecordIds.joined([batch.ids for batch in batches]),
        bad=tuple(_bad(batches)),
    )


def _bad(batches: list[Batch]) -> Iterator[BadRecord]:
    """All bad records, each with its place: whoever judges a budget wants to know."""
    start = 0
    for batch in batches:
        if batch.bad:
            for bad, place in zip(batch.bad, places_of_bad(batch), strict=True):
                yield replace(bad, place=start + int(place))
        start += len(batch) + len(batch.bad)
