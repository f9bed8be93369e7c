"""Small trees without walking them: each number of a record strikes out the leaves that it rules out.

The method is QuickScorer's (Lucchese et al., SIGIR 2015, doi:10.1145/2766462.2767733), with one table per column: for
each interval that the thresholds of all trees cut it into, the leaves of each tree that are still within reach. A record's
rows of all tables, joined by `&`, leave the leaf that it falls into as the lowest bit. Comparisons and sums are
scikit-learn's: the scores are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlinfer.hosts._forms._columns import Column, Table, are_plain
from mlinfer.hosts._forms._leaves import LeafSums

BLOCK = 512
"""Records at a time: their rows of the tables stay in the processor's cache."""

MOST_LEAVES = 64


class Bitmasks:
    """Trees of at most 64 leaves.

    `used` (u,): the columns that the trees look at. Of the n-th: `thresholds_n` (m,), ascending, and `masks_n`
    (m + 2, trees): the leaves within reach below each threshold, above all of them, and without a value. `first`
    (trees,): where the leaves of each begin. The rest: see `LeafSums`.
    """

    name = "bit masks of its trees (numpy)"

    def __init__(
        self, arrays: Mapping[str, np.ndarray], columns: Sequence[Column], options: Mapping[str, int]
    ) -> None:
        self.arrays, self.columns, self.options = dict(arrays), tuple(columns), dict(options)
        used = arrays["used"].tolist()
        self._used = [
            (place, arrays[f"thresholds_{n}"], arrays[f"masks_{n}"]) for n, place in enumerate(used)
        ]
        self._sums = LeafSums(arrays, options["divisor"], turns=bool(options["turns"]))
        self._first = arrays["first"][:, None]
        self._how = {"narrow": bool(options["narrow"]), "plain": are_plain(columns)}
        self._dtype = np.dtype("<u8" if options["wide"] else "<u4")
        trees = len(self._first)
        if any(
            masks.shape != (len(cuts) + 2, trees)
            or masks.dtype != self._dtype
            or not 0 <= place < len(self.columns)
            for place, cuts, masks in self._used
        ):
            msg = "shapes that do not fit"
            raise ValueError(msg)

    def scores(self, table: Table) -> np.ndarray:
        """Shape (n,) for one output, else (n, k). Raises RecordErrors: a number too large for trees of float32."""
        numbers = table.matrix(self.columns, **self._how)
        scores = np.empty((self._sums.outputs, len(numbers)))
        for start in range(0, len(numbers), BLOCK):
            part = slice(start, start + BLOCK)
            self._sums(self._leaf(numbers[part]), scores[:, part])
        return scores[0] if len(scores) == 1 else np.ascontiguousarray(scores.T)

    def _leaf(self, numbers: np.ndarray) -> np.ndarray:
        reached = np.full((len(numbers), len(self._first)), np.iinfo(self._dtype).max, self._dtype)
        row = np.empty_like(reached)
        gaps = bool(np.isnan(numbers.sum()))
        for place, thresholds, masks in self._used:
            values = numbers[:, place]
            places = thresholds.searchsorted(values)  # NaN sorts behind everything
            if gaps:
                places += np.isnan(values)
            masks.take(places, 0, row, "clip")
            reached &= row
        leaf: np.ndarray = _lowest_bit(reached).T + self._first
        return leaf


def _lowest_bit(masks: np.ndarray) -> np.ndarray:
    """The place of the lowest bit that is set, found in the exponent of the number that this bit alone makes."""
    alone = masks & -masks
    if masks.dtype == np.uint32:
        places: np.ndarray = (alone.astype(np.float32).view(np.int32) >> 23) - 127
    else:
        places = (alone.astype(np.float64).view(np.int64) >> 52) - 1023
    return places
