"""How far a pipeline has come: what a commit stores and a restart reads."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mlinfer._envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlinfer._batch import Position

ENVELOPE = Envelope(
    "progress", 1, "restore it from a backup, or drop it with `mlinfer state reset NAME` and start over"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """Positions (and host states) by partition, with what they belong to.

    A commit hands over what has changed since the last one; a store merges it and gives back the whole.
    `epoch` counts the runs that have written: a store refuses a commit from an older one.
    """

    positions: Mapping[str, Position] = field(default_factory=dict)
    states: Mapping[str, bytes] = field(default_factory=dict)
    fingerprint: str = ""
    epoch: int = 0

    @property
    def none(self) -> bool:
        """Whether nothing was ever delivered under it, or all of it was dropped: not even a fingerprint is there."""
        return not (self.positions or self.states or self.fingerprint)

    def merged(self, newer: Progress) -> Progress:
        """This progress, brought up to date by a newer one."""
        return replace(
            newer,
            positions={**self.positions, **newer.positions},
            states={**self.states, **newer.states},
        )

    def to_json(self) -> str:
        """A text that `from_json` reads back and that shows every change of a byte."""
        states = {name: base64.b64encode(state).decode() for name, state in self.states.items()}
        body = {"positions": dict(self.positions), "states": states}
        return ENVELOPE.seal({**body, "fingerprint": self.fingerprint, "epoch": self.epoch})

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Progress:
        """Read what `to_json` wrote; `where` names the place in errors.

        Raises ChangedError: the text is damaged, or written by a newer mlinfer.
        """
        body = ENVELOPE.unseal(text, where)
        states = {name: base64.b64decode(state) for name, state in body["states"].items()}
        return cls(body["positions"], states, body["fingerprint"], body["epoch"])
