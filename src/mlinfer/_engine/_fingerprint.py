"""What the records of an output belong to: the model and the columns, as a text that shows what has changed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from mlinfer._layout import Layout

LONGEST = 300
_DIGITS = 12


def fingerprint(layout: Layout) -> str:
    """All that changes what is written: the model, its signature, the columns; never a speed setting."""
    signature = layout.signature
    parts = {
        "model": signature.model_id,
        "version": signature.version,
        "inputs": _spelled(signature.inputs),
        "answers": _spelled(signature.outputs),
        "keep": _spelled(layout.keep),
        "columns": ", ".join(f"{name} from {found}" for name, found in sorted(layout.columns.items())),
        "lineage": ", ".join(layout.lineage.names),
    }
    shown = {name: _short(text) for name, text in parts.items() if text}
    return json.dumps({**shown, "digest": signature.fingerprint()[:32]})


def same_but_for_version(was: str, found: str) -> bool:
    """Whether two fingerprints are those of versions of one model, with the same columns."""
    if not was.startswith("{"):
        return False
    before, now = json.loads(was), json.loads(found)
    versions = {"version": "", "digest": ""}
    return bool({**before, **versions} == {**now, **versions})


def differences(was: str, found: str) -> str:
    """What has changed between two fingerprints, for people."""
    before, now = json.loads(was) if was.startswith("{") else {}, json.loads(found)
    if not before:
        return "an older mlinfer wrote it, and did not note what they were"
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = [name for name in changed if name != "digest"] or changed
    return "; ".join(f"{name} was {_of(before, name)}, is {_of(now, name)}" for name in told)


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
