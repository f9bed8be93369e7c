"""The one currency: an Arrow record batch, with where it came from and who its records are."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from mlinfer._arrays import constant, from_numpy
from mlinfer._choosing import chosen_rows
from mlinfer._errors import ComponentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Position: TypeAlias = Any
"""A JSON value that means something to its source alone: where a partition goes on."""


class RecordIds:
    """Who the records of a batch are; computed when somebody asks and not before.

    An id is stable: it is the same when the record is delivered again and it does not depend on batch size.
    """

    __slots__ = ("_count", "_expected", "_made", "_make", "_numbered")

    def __init__(self, make: Callable[[], pa.Array]) -> None:
        self._make = make
        self._made: pa.Array | None = None
        self._numbered: tuple[str, int, int] | None = None
        self._count: int | None = None
        self._expected: tuple[int, Callable[[], str]] | None = None

    @classmethod
    def ordinals(cls, partition: str, start: int, count: int) -> RecordIds:
        """`partition#ordinal`, for sources whose records have no name of their own."""
        ids = cls(lambda: _numbered(partition, np.arange(start, start + count)))
        ids._numbered, ids._count = (partition, start, start + count), count
        return ids

    @classmethod
    def of(cls, array: pa.Array) -> RecordIds:
        """Ids that are there already, as strings or anything that casts to strings."""
        ids = cls(lambda: array.cast(pa.string()))
        ids._count = len(array)
        return ids

    @classmethod
    def joined(cls, parts: Sequence[RecordIds]) -> RecordIds:
        """The ids of several batches, one after the other."""
        if len(parts) == 1:
            return parts[0]
        found = (part._numbered for part in parts)  # noqa: SLF001 - of its own class
        ranges = [one for one in found if one is not None]
        follow = all((name, end) == then[:2] for (name, _, end), then in pairwise(ranges))
        if len(ranges) == len(parts) and follow:  # still numbered: see `take`
            (partition, start, _), (_, _, end) = ranges[0], ranges[-1]
            return cls.ordinals(partition, start, end - start)
        return cls(lambda: pa.concat_arrays([part.array() for part in parts]))

    def array(self) -> pa.Array:
        """The ids as an Arrow string array, one per record."""
        if self._made is None:
            made = self._make()
            self._count = len(made)
            self._check()
            self._made = made
        return self._made

    def _expect(self, count: int, who: Callable[[], str]) -> None:
        """Raise ComponentError if these are not the ids of so many records: at once if that is known, else when they are made.

        `who` is asked then: whom the error names.
        """
        self._expected = count, who
        self._check()

    def _check(self) -> None:
        if self._expected is None or self._count is None or self._count == self._expected[0]:
            return
        count, who = self._expected
        msg = f"{who()}: wanted an id for each of the {count} records of a batch, found {self._count} ids; correct the part"
        raise ComponentError(msg)

    def filter(self, mask: pa.Array) -> RecordIds:
        """The ids of the records for which the mask is true."""
        return RecordIds(lambda: chosen_rows(self.array(), mask))

    def take(self, rows: Sequence[int] | np.ndarray) -> RecordIds:
        """The ids of the records at these positions."""
        if self._numbered is not None:  # a few rejects of a large batch need not spell the ids of all
            partition, start, _ = self._numbered
            return RecordIds(lambda: _numbered(partition, start + np.asarray(rows, np.int64)))
        return RecordIds(lambda: chosen_rows(self.array(), rows))


def _numbered(partition: str, numbers: np.ndarray) -> pa.Array:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(
        constant(partition), from_numpy(numbers).cast(pa.string()), constant("#")
    )


@dataclass(frozen=True, slots=True, eq=False)
class BadRecord:
    """A record that could not even be decoded: it travels beside its batch and becomes a reject.

    `place` is its place among all records of its batch, good and bad, counted from 0; None if that is not known.
    """

    id: str
    kind: str
    message: str
    raw: bytes = b""
    place: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records of one partition, in order.

    `position` is where the partition resumes once this batch is delivered (None: a source that cannot resume).
    `ids` may be left out as long as nobody asks who the records are: rejects do, and destinations with a key.
    `bad` are records between these that could not be decoded.

    >>> records = pa.record_batch({"n": [1, 2]})
    >>> batch = Batch(records, "monday.csv", position=12, ids=RecordIds.ordinals("monday.csv", 10, 2))
    >>> len(batch), batch.ids.array().to_pylist()
    (2, ['monday.csv#10', 'monday.csv#11'])
    """

    records: pa.RecordBatch
    partition: str
    position: Position | None
    ids: RecordIds = field(default_factory=lambda: RecordIds(_unknown))
    bad: tuple[BadRecord, ...] = ()

    def __len__(self) -> int:
        """The number of records, bad ones not counted."""
        return int(self.records.num_rows)


def places_of_bad(batch: Batch) -> np.ndarray:
    """The place of each bad record among all of the batch; where it is not known, they are spread evenly."""
    count = len(batch.bad)
    guessed = spread(count, len(batch) + count).tolist()
    known = (one if bad.place is None else bad.place for bad, one in zip(batch.bad, guessed, strict=True))
    return np.fromiter(known, np.int64, count)


def spread(count: int, among: int) -> np.ndarray:
    """Places for so many records among all of them, at equal distances."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * among // max(2 * count, 1)


def _unknown() -> pa.Array:
    msg = (
        "wanted the ids of records (for a reject, or for a destination with a key), found a source whose batches carry none; "
        "give each Batch its ids: RecordIds.ordinals(partition, start, count), or RecordIds.of(array)"
    )
    raise ComponentError(msg)
