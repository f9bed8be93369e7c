"""Answers that wait for the prediction log, and go to it in few pieces.

Whatever the log does for a piece, it does with the interpreter in its hand, which the thread that answers then waits for: a
piece for each answer takes longer than the answers, and all of them together no longer than one.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pyarrow as pa

from mlinfer._batch import RecordIds
from mlinfer._engine import Answers
from mlinfer._online._refusals import BUSY
from mlinfer._online._wire import Refused

LONGEST_QUEUE = 1000
MOST_WAITING_BYTES = 64 * 2**20
"""Of answers that wait for the destination; one batch may be larger, if it is alone."""
REST_SECONDS = 0.05
"""Between two pieces for which nobody waits: so long that fewer than one answer in a hundred meets one."""
PIECE_BYTES = 2**20

Refusals = dict[int, tuple[str, str]]
"""Rows that the destination refuses, and why: a kind and a message."""
Outcome = Refused | None | Refusals
"""What becomes of answers: all are durable (None), none is, or all but those in these rows."""
Stored = Callable[[Outcome], None]
Waits = tuple[Stored, int, int]
"""Who waits to hear that answers are durable: those from a row on, so many."""
Entry = tuple[Answers, list[Waits]]


def tell(waiting: Iterable[Waits], outcome: Outcome) -> None:
    """Tell everybody what has become of his own answers."""
    for stored, start, rows in waiting:
        if isinstance(outcome, dict):
            its = {row - start: why for row, why in outcome.items() if start <= row < start + rows}
            stored(its or None)
        else:
            stored(outcome)


class Backlog:
    """Answers on their way to the log, so many batches and bytes; further ones are dropped and counted."""

    def __init__(self) -> None:
        # a simple one: nobody can hold its lock while somebody else has the interpreter
        self._queue: queue.SimpleQueue[tuple[Entry, int] | None] = queue.SimpleQueue()
        self._next: tuple[Entry, int] | None = None  # taken, and of no use to the piece before it
        self._came = self._went = 0  # bytes; each is counted on one thread only
        self.dropped = 0

    def put(self, answers: Answers, stored: Stored | None) -> None:
        """Add answers behind the others, at once; without room for them `stored` hears it."""
        size = answers.batch.records.get_total_buffer_size()  # nbytes takes 50 µs
        held = self._came - self._went
        if self._queue.qsize() < LONGEST_QUEUE and (not held or held + size <= MOST_WAITING_BYTES):
            self._came += size
            waits: list[Waits] = [] if stored is None else [(stored, 0, len(answers.batch))]
            self._queue.put(((answers, waits), size))
            return
        self.dropped += len(answers.batch)
        if stored is not None:
            stored(BUSY)

    @property
    def empty(self) -> bool:
        """Whether all has been taken."""
        return self._next is None and self._queue.empty()

    def end(self) -> None:
        """Nothing comes any more."""
        self._queue.put(None)

    def take(self, *, wait: bool = True, seconds: float | None = None) -> Entry | None:
        """The next answers, in one batch with those behind them; None at the end. Raises queue.Empty."""
        first, self._next = self._next or self._queue.get(wait, seconds), None
        if first is None:
            return None
        (answers, stored), size = first
        found, rows = [answers], len(answers.batch)
        for (more, its), more_size in self._like(answers, size):
            found.append(more)
            stored += [(one, rows + start, count) for one, start, count in its]
            rows += len(more.batch)
            size += more_size
        self._went += size
        return _joined(found), stored

    def _like(self, first: Answers, size: int) -> Iterator[tuple[Entry, int]]:
        """Those behind it that can be one batch with it, as long as the batch is small."""
        while True:
            try:
                found = self._queue.get_nowait()
            except queue.Empty:
                return
            if found is None:
                self.end()
                return
            size += found[1]
            if size > PIECE_BYTES or not _alike(first, found[0][0]):
                self._next = found
                return
            yield found


def _alike(one: Answers, other: Answers) -> bool:
    return (
        one.layout is other.layout
        and one.batch.partition == other.batch.partition
        and one.batch.records.schema.equals(other.batch.records.schema, check_metadata=True)
    )


def _joined(found: list[Answers]) -> Answers:
    """One batch of all of these, with the memory of the last."""
    if len(found) == 1:
        return found[0]
    batches = [one.batch for one in found]
    records = pa.concat_batches([batch.records for batch in batches])
    ids = RecordIds.joined([batch.ids for batch in batches])
    return replace(found[-1], answered=replace(batches[-1], records=records, ids=ids))
