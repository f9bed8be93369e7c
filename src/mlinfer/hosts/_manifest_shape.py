"""What a manifest holds, checked once, so that whoever reads it need not look again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELD = {"name": str, "type": str, "nullable": bool}
SHAPE: dict[str, Any] = {
    "model_id": str,
    "version": str,
    "digest": str,
    "estimator": str,
    "method": [str],
    "expand": bool,
    "feed": {"kind": str, "dtypes": {str: str}, "nones": [str]},
    "signature": {"inputs": str, "outputs": str},
    "fields": {"inputs": [FIELD], "outputs": [FIELD]},
    "example": dict,
    "libraries": {"scikit-learn": str},
}
"""A type, a list of one, or an object: by its keys, or, where the key is a type, any keys and values of one type."""
COMPILED = {
    "form": str,
    "methods": [str],
    "proof": {"records": int, "difference": float, "ties": int, "within": float},
}
NOT_COMPILED = {"form": type(None), "why": str}
PICTURES = {"size": [int], "mode": str, "mean": object, "scale": object, "layout": str, "background": object}
NAMES = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "an object",
    type(None): "null",
}  # fmt: skip
ABSENT = object()


def misfit(facts: Mapping[str, Any]) -> str | None:
    """The first thing in a manifest that is not as `mlinfer.save` writes it: what was wanted, and what was found."""
    compiled, pictures = facts.get("compiled"), facts.get("pictures")
    has_form = isinstance(compiled, dict) and compiled.get("form") is not None
    return (
        _differs(facts, SHAPE, "")
        or (
            None
            if compiled is None
            else _differs(compiled, COMPILED if has_form else NOT_COMPILED, "compiled")
        )
        or (None if pictures is None else _differs(pictures, PICTURES, "pictures"))
        or (None if facts.get("training") is None else _differs(facts["training"], dict, "training"))
    )


def _differs(value: Any, shape: Any, where: str) -> str | None:
    kind = shape if isinstance(shape, type) else type(shape)
    if value is ABSENT or not _is(value, kind):
        there = "nothing" if value is ABSENT else f"{value!r:.100}"
        return f"wanted {where!r} to be {NAMES.get(kind, 'there')}, found {there}"
    if isinstance(shape, list):
        pairs: list[tuple[Any, Any, str]] = [
            (one, shape[0], f"{where}[{place}]") for place, one in enumerate(value)
        ]
    elif isinstance(shape, dict) and str in shape:
        pairs = [(one, shape[str], f"{where}.{name}") for name, one in value.items()]
    elif isinstance(shape, dict):
        pairs = [(value.get(name, ABSENT), one, f"{where}.{name}".lstrip(".")) for name, one in shape.items()]
    else:
        return None
    return next((found for pair in pairs if (found := _differs(*pair))), None)


def _is(value: Any, kind: type) -> bool:
    """JSON tells true from 1, but not 1.0 from 1."""
    if isinstance(value, bool):
        return kind in {bool, object}
    return isinstance(value, int | float if kind is float else kind)
