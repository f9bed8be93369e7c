"""A digest of what a function does, to see that it has changed."""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEEPEST = 8


def digest_of_code(function: Any) -> str:
    """`PYTHON DIGEST`: the version of Python and a digest of the function's code, its defaults and what it closes over.

    Only digests of the same minor version of Python can be compared, for the next one translates the same text into other
    code. What the function calls, and values other than numbers, texts, tuples and functions, are known by their names.
    """
    text = repr(_spelled(function, _DEEPEST))
    return f"{sys.version_info[0]}.{sys.version_info[1]} {hashlib.sha256(text.encode()).hexdigest()[:32]}"


def comparable(was: str, found: str) -> bool:
    """Whether two digests come from the same minor version of Python, or one is missing altogether."""
    return not (was and found) or was.partition(" ")[0] == found.partition(" ")[0]


def _spelled(value: Any, depth: int) -> Any:
    """A text or tuple that is the same in every process."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if depth == 0:
        return type(value).__qualname__
    if isinstance(value, tuple | list):
        return tuple(_spelled(one, depth - 1) for one in value)
    if isinstance(value, set | frozenset):  # in no fixed order
        return sorted(str(_spelled(one, depth - 1)) for one in value)
    return _called(value, depth)


def _called(value: Any, depth: int) -> Any:
    """What can be called; anything else by its name."""
    if isinstance(value, CodeType):
        return _code(value, value.co_consts, depth)
    if isinstance(value, FunctionType):
        consts = value.__code__.co_consts
        if value.__doc__ is not None and consts[:1] == (value.__doc__,):
            consts = consts[1:]
        cells = tuple(_held(cell, depth) for cell in value.__closure__ or ())
        defaults = (value.__defaults__ or (), sorted((value.__kwdefaults__ or {}).items()))
        return (_code(value.__code__, consts, depth), _spelled(defaults, depth - 1), cells)
    if isinstance(value, MethodType):
        return (_spelled(value.__func__, depth), type(value.__self__).__qualname__)
    if isinstance(value, partial):
        return _spelled((value.func, value.args, sorted(value.keywords.items())), depth - 1)
    act = getattr(type(value), "__call__", None)  # noqa: B004 - its class's own, or one that it inherits
    inside = _spelled(act, depth - 1) if isinstance(act, FunctionType) else ""
    return (getattr(value, "__qualname__", type(value).__qualname__), inside)


def _code(code: CodeType, consts: tuple[Any, ...], depth: int) -> Any:
    spelled = tuple(_spelled(one, depth - 1) for one in consts)
    return (code.co_code.hex(), code.co_exceptiontable.hex(), spelled, code.co_names, code.co_freevars)


def _held(cell: Any, depth: int) -> Any:
    try:
        return _spelled(cell.cell_contents, depth - 1)
    except ValueError:  # it is still empty
        return ""
