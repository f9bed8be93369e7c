"""JSON from strangers, strictly; JSON to strangers, without NaN."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 32
_CONTAINERS = (list, dict)


class BadJson(ValueError):  # noqa: N818 - what the caller is told
    """The text is not what we accept; the message is in our own words."""


def parse(body: bytes) -> Any:
    """Decode a request's body. Raises BadJson: not JSON, NaN or infinity, a key twice, not UTF-8, or nested too deep."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_no_constant,
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
    _look_over(value)
    return value


def dump(value: Any) -> bytes:
    """What the server says by itself, as JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def _no_constant(name: str) -> Any:
    msg = f"the body holds {name}, which is not JSON; leave the value out or write null"
    raise BadJson(msg)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "the body holds an object that has a key twice"
        raise BadJson(msg)
    return found


def _look_over(value: Any) -> None:
    """Level by level, without recursion, and without a call for each number. Raises BadJson: too deep, or infinite."""
    depth, level = 0, [value]
    while level:
        if math.inf in level or -math.inf in level:
            msg = "the body holds a number that is too large"
            raise BadJson(msg)
        containers = [one for one in level if isinstance(one, _CONTAINERS)]
        depth += bool(containers)
        if depth > DEEPEST:
            msg = f"the body is nested deeper than {DEEPEST} levels"
            raise BadJson(msg)
        level = []
        for one in containers:
            level += one.values() if isinstance(one, dict) else one
