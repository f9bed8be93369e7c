"""Which records of a batch are left while a step refuses some of them, and what those become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlinfer._arrays import from_numpy, from_values
from mlinfer._batch import RecordIds, places_of_bad
from mlinfer._choosing import chosen_rows
from mlinfer._rejects import Rejected

if TYPE_CHECKING:
    from mlinfer._batch import Batch
    from mlinfer._errors import RecordErrors


class Left:
    """The records of a batch that nothing was wrong with so far, by a mask over it.

    The batch itself stays whole: most of its columns are of no use any more, and cutting them all would cost more than
    finding the few records that are rejected.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._good: np.ndarray | None = None

    @property
    def ids(self) -> RecordIds:
        """Their ids."""
        return self._batch.ids if self._good is None else self._batch.ids.filter(from_numpy(self._good))

    def reject(self, stage: str, errors: RecordErrors) -> Rejected:
        """Take out the records that are named by their rows among those left."""
        batch, rows = self._batch, np.array(errors.rows, np.int64)
        bad = rows if self._good is None else np.flatnonzero(self._good)[rows]
        good = np.ones(len(batch), bool) if self._good is None else self._good.copy()
        good[bad] = False
        self._good = good
        taken = chosen_rows(batch.records, bad)
        ids = batch.ids.take(bad)
        if batch.bad:  # those that could not be decoded stood between them
            others = np.sort(places_of_bad(batch))
            bad = bad + np.searchsorted(others - np.arange(len(others)), bad, side="right")
        return Rejected(batch.partition, stage, ids, errors.kinds, errors.messages, taken, places=bad)


def undecoded(batch: Batch) -> Rejected:
    """Those records of a batch of which the source could make none."""
    ids = RecordIds.of(from_values([bad.id for bad in batch.bad]))
    kinds, messages = [bad.kind for bad in batch.bad], [bad.message for bad in batch.bad]
    raws = [bad.raw for bad in batch.bad]
    return Rejected(batch.partition, "decode", ids, kinds, messages, raws=raws, places=places_of_bad(batch))
