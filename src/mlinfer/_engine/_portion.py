"""How many records are read and taken at once: a commit, and the end of a drain, wait for all of them."""

from __future__ import annotations

FIRST_RECORDS = 32
MOMENT_SECONDS = 1.0


class Portion:
    """As many as the models answer in a moment, and at most `most`.

    It begins small, for nobody knows how slow a model is; one that is quick has the most of them with its second portion.
    Lanes and the threads of several models tell it and ask it; a stale number does no harm.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.records = min(FIRST_RECORDS, most)

    def took(self, records: int, seconds: float) -> None:
        """So many records were answered in so much time, failures and waits included."""
        if records:
            in_a_moment = records * MOMENT_SECONDS / seconds if seconds > 0 else self._most
            self.records = max(1, min(self._most, int(in_a_moment)))
