"""JSON from strangers, strictly; JSON to strangers, without NaN."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 32


class BadJson(ValueError):  # noqa: N818 - what the caller is told
    """The text is not what we accept; the message is in our own words."""


def parse(body: bytes) -> Any:
    """Decode a request's body. Raises BadJson: not JSON, NaN or infinity, a key twice, not UTF-8, or nested too deep."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_no_key_twice,
        )
    except BadJson:
        raise
    except UnicodeDecodeError as error:
        msg = f"the body is not UTF-8 (byte {error.start})"
        raise BadJson(msg) from error
    except json.JSONDecodeError as error:
        msg = f"the body is not JSON (line {error.lineno}, column {error.colno})"
        raise BadJson(msg) from error
    except (RecursionError, ValueError) as error:
        msg = "the body is JSON that is nested too deep or holds a number that is too long"
        raise BadJson(msg) from error
    if _depth(value) > DEEPEST:
        msg = f"the body is nested deeper than {DEEPEST} levels"
        raise BadJson(msg)
    return value


def dump(value: Any) -> bytes:
    """What the server says by itself, as JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def _no_constant(name: str) -> Any:
    msg = f"the body holds {name}, which is not JSON; leave the value out or write null"
    raise BadJson(msg)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = "the body holds a number that is too large"
        raise BadJson(msg)
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "the body holds an object that has a key twice"
        raise BadJson(msg)
    return found


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted without recursion."""
    depth, level = 0, [value]
    while containers := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
    return depth
