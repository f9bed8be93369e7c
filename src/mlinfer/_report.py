"""What a run did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mlinfer._text import count


@dataclass(frozen=True, slots=True)
class RunReport:
    """The account of one run: every record that was read is delivered, or rejected for a reason.

    Times are in seconds. `stages` adds up the time that each stage took over all workers, so that stages that overlap
    sum to more than `seconds`. `stopped` says what ended the run before its source did (`SIGTERM`), None if nothing.
    """

    name: str
    run: str
    guarantee: str
    delivered: int = 0
    rejected: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    reasons: Mapping[tuple[str, str], int] = field(default_factory=Counter)
    commits: int = 0
    retries: int = 0
    resumed: bool = False
    stopped: str | None = None

    @property
    def rate(self) -> float:
        """Records per second, delivered and rejected ones."""
        return (self.delivered + self.rejected) / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        """One line: `150 delivered, 0 rejected, exactly-once (0.1 s)`."""
        if self.resumed and not (self.delivered or self.rejected or self.stopped):
            return "0 delivered: all were there already"
        stopped = f", stopped by {self.stopped}" if self.stopped else ""
        return f"{self.delivered:,} delivered, {self.rejected:,} rejected, {self.guarantee} ({self.seconds:.2g} s){stopped}"

    def details(self) -> str:
        """Several lines: counts, rate, rejects by reason and time per stage; one where there was nothing to do."""
        if not (self.delivered or self.rejected or self.retries):
            return str(self)
        lines = [str(self), f"  rate     {self.rate:,.0f} records/s, {count(self.commits, 'commit')}"]
        if self.retries:
            lines.append(f"  retries  {self.retries}")
        for (stage, kind), number in sorted(self.reasons.items(), key=lambda item: -item[1]):
            lines.append(f"  rejects  {number:,} x {kind} ({stage})")
        spent = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.stages.items())
        lines.append(f"  time     {spent or 'none'}")
        return "\n".join(lines)
