"""How far a pipeline has come: what a commit stores and a restart reads."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlinfer._errors import ChangedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlinfer._batch import Position

FORMAT = 1


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

    def merged(self, newer: Progress) -> Progress:
        """This progress, brought up to date by a newer one."""
        return replace(
            newer,
            positions={**self.positions, **newer.positions},
            states={**self.states, **newer.states},
        )

    def to_json(self) -> str:
        """A text that `from_json` reads back and that shows every change of a byte."""
        body = {
            "format": FORMAT,
            "positions": dict(self.positions),
            "states": {name: base64.b64encode(state).decode() for name, state in self.states.items()},
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
        }
        return json.dumps({"progress": body, "sha256": _checksum(body)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Progress:
        """Read what `to_json` wrote; `where` names the place in errors.

        Raises ChangedError: the text is damaged, or written by a newer mlinfer.
        """
        try:
            stored = json.loads(text)
            body, checksum = stored["progress"], stored["sha256"]
            version = body["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ChangedError(_damaged(where)) from error
        if isinstance(version, int) and version > FORMAT:
            msg = f"{where}: wanted progress of format {FORMAT} or older, found {version}: a newer mlinfer wrote it; install that version"
            raise ChangedError(msg)
        if checksum != _checksum(body):
            raise ChangedError(_damaged(where))
        states = {name: base64.b64decode(state) for name, state in body["states"].items()}
        return cls(body["positions"], states, body["fingerprint"], body["epoch"])


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _damaged(where: str) -> str:
    return (
        f"{where}: wanted progress that mlinfer wrote, found something damaged; restore it from a backup, "
        "or drop it with `mlinfer state reset NAME` and start over"
    )
