"""What the records of an output belong to: the model and the columns, as a text that shows what has changed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from mlinfer._code import comparable, digest_of_code
from mlinfer._protocols import Computes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from mlinfer._engine._job import Job
    from mlinfer._layout import Layout

LONGEST = 300
_DIGITS = 12
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_LATER = ("destination", "function")
"""What older versions did not note: compared where it was."""


def beside(job: Job) -> dict[str, str]:
    """What the progress of a pipeline belongs to beside the model and the columns.

    Progress that lies in a place of its own must know the destination that it speaks of; where it lies with the records,
    another destination has none. An object without a text of its own is known by its class, for its address means nothing.
    """
    found = {}
    if job.checkpoint is not None:
        found["destination"] = _ADDRESS.sub("", repr(job.destination))
    if isinstance(job.source, Computes) and (functions := job.source.computed_by()):
        found["function"] = digest_of_code(tuple(functions))
    return found


def fingerprint(layout: Layout, more: Mapping[str, str] | None = None) -> str:
    """All that changes what is written: the model, its signature, the columns, and `more`; never a speed setting."""
    signature = layout.signature
    parts = {
        "model": signature.model_id,
        "version": signature.version,
        "inputs": _spelled(signature.inputs),
        "answers": _spelled(signature.outputs),
        "keep": _spelled(layout.keep),
        "columns": ", ".join(f"{name} from {found}" for name, found in sorted(layout.columns.items())),
        "lineage": ", ".join(layout.lineage.names),
        **(more or {}),
    }
    shown = {name: _short(text) for name, text in parts.items() if text}
    return json.dumps({**shown, "digest": signature.fingerprint()[:32]})


def same(was: str, found: str) -> bool:
    """Whether two fingerprints say the same, as far as the older one says anything."""
    before, now = _parts(was, found)
    return was == found or (bool(before) and before == now)


def same_but_for_version(was: str, found: str) -> bool:
    """Whether two fingerprints are those of versions of one model, with the same columns."""
    before, now = _parts(was, found)
    if not before:
        return False
    versions = {"version": "", "digest": ""}
    return {**before, **versions} == {**now, **versions}


def differences(was: str, found: str) -> str:
    """What has changed between two fingerprints, for people."""
    before, now = _parts(was, found)
    if not before:
        return "an older mlinfer wrote it, and did not note what they were"
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = [name for name in changed if name != "digest"] or changed
    return "; ".join(f"{name} was {_of(before, name)}, is {_of(now, name)}" for name in told)


def _parts(was: str, found: str) -> tuple[dict[str, str], dict[str, str]]:
    """The parts of two fingerprints that can be compared; none of an old one that did not note any."""
    before = json.loads(was) if was.startswith("{") else {}
    now = json.loads(found)
    if not comparable(before.get("function", ""), now.get("function", "")):
        before.pop("function", None)
    return before, {name: text for name, text in now.items() if name in before or name not in _LATER}


def _of(parts: dict[str, str], name: str) -> str:
    return repr(parts[name]) if name in parts else "none"


def _spelled(schema: pa.Schema) -> str:
    return ", ".join(
        f"{field.name}: {field.type}{'' if field.nullable else ' (required)'}" for field in schema
    )


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}... ({hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]})"
