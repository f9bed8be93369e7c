"""How many records are read and taken at once: a commit, and the end of a drain, wait for all of them."""

from __future__ import annotations

from mlinfer._cost import Cost

MOST_RECORDS = 65_536
"""Unless the model is to see more of them at once."""
FIRST_RECORDS = 32
MOMENT_SECONDS = 1.0
GROWTH, SLOW_GROWTH = 8, 2
"""So many times the latest portion at most, and so many times one that took a moment or more."""


class Portion:
    """As many as a model answers in a moment, or, where a call takes longer than that however few they are, in twice a call.

    It begins with a few, for nobody knows how slow a model is; a quick one has the most after a few more. Lanes and the threads of
    several models tell it and ask it; a stale number does no harm.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._cost = Cost()
        self.records = min(FIRST_RECORDS, most)

    def took(self, records: int, seconds: float) -> None:
        """So many records were answered in so much time, without the waits between failures."""
        if not records:
            return
        self._cost.took(records, seconds)
        call, each = self._cost.batch, self._cost.record
        fitting = max(MOMENT_SECONDS - call, call) / each if each > 0 else self._most
        growth = GROWTH if seconds < MOMENT_SECONDS else SLOW_GROWTH
        # what a small rest took says little about large portions
        self.records = int(max(1, min(self._most, fitting, max(self.records, growth * records))))
