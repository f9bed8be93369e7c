"""What batches cost a model, as far as can be told from the latest ones."""

from __future__ import annotations

KEPT = 0.95
"""Of the weight of a batch, when the next one is done: about twenty of them count."""


class Cost:
    """Seconds by records: a share for the batch and one for each record, neither below zero, by least squares.

    While all batches had the same size nobody can tell the two apart, and all of it is the batch's.
    """

    def __init__(self) -> None:
        self._batches = self._rows = self._seconds = self._squares = self._products = 0.0
        self.batch = self.record = 0.0
        """Seconds; 0 while nobody knows."""

    def took(self, rows: int, seconds: float) -> None:
        """One more batch of so many records, one or more, took this long."""
        self._batches = KEPT * self._batches + 1
        self._rows = KEPT * self._rows + rows
        self._seconds = KEPT * self._seconds + seconds
        self._squares = KEPT * self._squares + rows * rows
        self._products = KEPT * self._products + rows * seconds
        mean_rows, mean = self._rows / self._batches, self._seconds / self._batches
        spread = self._squares / self._batches - mean_rows**2
        record = 0.0
        if spread > 1e-6 * mean_rows**2:
            record = (self._products / self._batches - mean_rows * mean) / spread
        self.record = min(max(record, 0.0), mean / mean_rows)
        self.batch = mean - self.record * mean_rows
