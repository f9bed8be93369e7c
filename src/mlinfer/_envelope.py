"""Texts that show every change of a byte: how progress is kept, wherever it is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlinfer._errors import ChangedError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Envelope:
    """A JSON object with its format and its SHA-256: `{KIND: {"format": N, ...}, "sha256": "..."}`.

    The envelope itself is the same for ever, so that a format of the future can be told from a damage. `format` is the
    newest that this version writes and reads; `repair` is what to do about a damaged one.
    """

    kind: str
    format: int
    repair: str

    def seal(self, body: Mapping[str, Any]) -> str:
        """A text that `unseal` gives back."""
        sealed = {"format": self.format, **body}
        return json.dumps({self.kind: sealed, "sha256": _checksum(sealed)}, sort_keys=True)

    def unseal(self, text: str | bytes, where: str) -> dict[str, Any]:
        """What was sealed; `where` names the place in errors.

        Raises ChangedError: the text is damaged, or written by a newer mlinfer.
        """
        try:
            stored = json.loads(text)
            body: dict[str, Any] = stored[self.kind]
            version, intact = body["format"], stored["sha256"] == _checksum(body)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ChangedError(self._damaged(where)) from error
        if not intact:
            raise ChangedError(self._damaged(where))
        if version > self.format:
            raise ChangedError(newer(where, self.format, version))
        return body

    def _damaged(self, where: str) -> str:
        return f"{where}: wanted progress that mlinfer wrote, found something damaged; {self.repair}"


def newer(where: str, wanted: int, found: int) -> str:
    """What to say of progress that a newer mlinfer has written."""
    return (
        f"{where}: wanted progress of format {wanted} or older, found format {found}: a newer mlinfer wrote it; "
        "upgrade mlinfer: pip install --upgrade mlinfer"
    )


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
