"""What a lane has done and found."""

from collections import Counter
from dataclasses import dataclass, field

from torture.oracle import Verdict


@dataclass
class Figures:
    """`done` counts the lane's work, `places` sorts it, `between` is how much of it hit a run in its middle."""

    done: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    places: Counter = field(default_factory=Counter)
    between: int | None = None
    notes: list = field(default_factory=list)

    def __add__(self, other):
        between = None if self.between is None or other.between is None else self.between + other.between
        return Figures(
            self.done + other.done,
            self.verdict + other.verdict,
            self.places + other.places,
            between,
            self.notes + other.notes,
        )


def check(truth, what, torture):
    """Raise AssertionError with what is needed to do it again."""
    if not truth:
        msg = f"{torture.kind}, seed {torture.seed}: {what}"
        raise AssertionError(msg)
