"""What a pipeline can promise about delivery, computed from what its parts can do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from mlinfer._errors import ConfigError, GuaranteeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlinfer._protocols import DataDestination, DataSource


class Level(IntEnum):
    """How often a record's answer ends up at the destination, crashes included."""

    AT_MOST_ONCE = 0
    AT_LEAST_ONCE = 1
    EXACTLY_ONCE = 2

    def __str__(self) -> str:
        """The usual spelling: `exactly-once`."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def named(cls, text: str) -> Level:
        """The level of this name. Raises ConfigError: there is none."""
        for level in cls:
            if str(level) == text:
                return level
        msg = f"require: wanted one of {', '.join(map(str, cls))}, found {text!r}"
        raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The weakest level over everything that is written, and the reason for each part of it."""

    level: Level
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """The level."""
        return str(self.level)

    def demand(self, level: str) -> None:
        """Raise GuaranteeError if this guarantee is weaker than the level asked for."""
        if self.level < Level.named(level):
            why = "; ".join(self.reasons)
            msg = f"require: wanted {level}, found {self.level}: {why}; choose other parts or require={str(self)!r}"
            raise GuaranteeError(msg)


def guarantee(
    source: DataSource,
    outputs: Mapping[str, DataDestination],
    *,
    keeps_progress: bool,
    stateful: bool,
) -> Guarantee:
    """The guarantee of a source with its outputs.

    `outputs` maps `main`, `rejects` and `side/NAME` to their destinations. `keeps_progress`: a restart knows how far it
    came (the main destination or a checkpoint stores it). `stateful`: the host has memory.
    """
    main = outputs["main"]
    found = [
        _of(
            source,
            name,
            destination,
            joined=destination is not main and shares(main, destination),
            keeps_progress=keeps_progress,
        )
        for name, destination in outputs.items()
    ]
    if stateful and not (keeps_progress and source.resume == "seek"):
        why = "the host's memory is lost in a crash: nothing stores it with the position"
        found.append((Level.AT_LEAST_ONCE, why))
    return Guarantee(min(level for level, _ in found), tuple(dict.fromkeys(why for _, why in found)))


def shares(main: DataDestination, other: DataDestination) -> bool:
    """Whether another output can be written in the main output's own transaction."""
    return main.transactional and main.store is not None and main.store == other.store


def _of(
    source: DataSource, name: str, destination: DataDestination, *, joined: bool, keeps_progress: bool
) -> tuple[Level, str]:
    if source.resume == "none":
        return (
            Level.AT_MOST_ONCE,
            f"{name}: the source cannot be read again, so what a crash interrupts is lost",
        )
    if destination.keyed:
        return Level.EXACTLY_ONCE, f"{name}: a record delivered again overwrites itself by its key"
    if source.resume == "acknowledge":
        why = f"{name}: the source delivers again what was not acknowledged, and there is no key to recognise it by"
        return Level.AT_LEAST_ONCE, why
    if not keeps_progress:
        return (
            Level.AT_LEAST_ONCE,
            f"{name}: nothing keeps the progress: every run begins anew; name a checkpoint",
        )
    if joined:
        return Level.EXACTLY_ONCE, f"{name}: written in the main output's own transaction"
    if destination.transactional and name == "main":
        return Level.EXACTLY_ONCE, f"{name}: records and progress are stored in one atomic step"
    if destination.transactional:
        why = f"{name}: stored just before the main output, in another transaction; a crash in between repeats records"
        return Level.AT_LEAST_ONCE, why
    return (
        Level.AT_LEAST_ONCE,
        f"{name}: records are appended without progress, a crash repeats the last ones",
    )
