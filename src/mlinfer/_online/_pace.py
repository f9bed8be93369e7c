"""How long the model takes for a batch, as far as can be told from the latest ones."""

from __future__ import annotations

from mlinfer._cost import Cost

QUICK = 0.001
"""Seconds: a model that is done with a batch within this answers on the event loop's own thread; a hop costs more."""
SLOW = 0.005
CALLS_TO_BELIEVE = 8
SLOW_TO_BELIEVE = 2
"""One may be slow because the machine was busy with something else."""
LONG = 0.1
"""For a model that counted as quick: while it took so long, nobody else was heard."""
DOUBT = 8
"""Each time so many times as many quick answers are wanted before it counts as quick again: it may do so rarely, not often."""


class Pace:
    """What batches of so many records will take, and whether that is little."""

    def __init__(self) -> None:
        self._quick_ones = self._slow_ones = 0
        self._to_believe = CALLS_TO_BELIEVE
        self._cost = Cost()

    def took(self, rows: int, seconds: float) -> None:
        """One more batch of so many records took this long."""
        if seconds > LONG and self.quick(rows):
            self._quick_ones, self._to_believe = 0, DOUBT * self._to_believe
        elif seconds > SLOW:
            self._slow_ones += 1
            if self._slow_ones >= SLOW_TO_BELIEVE:
                self._quick_ones = 0
        else:
            self._slow_ones, self._quick_ones = 0, self._quick_ones + (seconds < QUICK)
        self._cost.took(rows, seconds)

    def quick(self, rows: int) -> bool:
        """Whether a batch of so many records will be done so quickly that a thread of its own would cost more than it spares."""
        return self._quick_ones >= self._to_believe and self.seconds(rows) < SLOW

    def seconds(self, rows: int) -> float:
        """What a batch of so many records will take; 0 while nobody knows."""
        return self._cost.batch + self._cost.record * rows if rows else 0.0
