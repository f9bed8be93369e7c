"""Makes a part from the plain values of a file: every key is one of its parameters, every value of the type it names."""

from __future__ import annotations

import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer._errors import ConfigError, MlinferError
from mlinfer._text import in_words, plain, shown

Import = Callable[[str], Any]
"""Imports `module:attr` if the user has allowed it; raises ConfigError otherwise."""


ALIKE = {"path": "model", "model": "path"}
"""What one part calls so and another otherwise: names that are not spelled alike."""


def make(factory: Any, options: Mapping[str, Any], where: str, imported: Import) -> Any:
    """Call a class or function with these options.

    Raises ConfigError: a key that is no parameter, a missing one, a value of another type; `where` and the key are named.
    """
    parameters = inspect.signature(factory).parameters.values()
    known = {
        one.name: one
        for one in parameters
        if one.kind in {one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY} and not one.name.startswith("_")
    }
    if not any(one.kind is one.VAR_KEYWORD for one in parameters):
        refuse_unknown(options, known, where)
    missing = [name for name, one in known.items() if one.default is one.empty and name not in options]
    if missing:
        msg = f"{where}: wanted a value for {', '.join(map(repr, missing))}, found none"
        raise ConfigError(msg)
    converted = {
        key: convert(value, _hint(factory, known.get(key)), f"{where} {key}", imported)
        for key, value in options.items()
    }
    try:
        return factory(**converted)
    except MlinferError:
        raise
    except (TypeError, ValueError) as error:
        msg = f"{where}: {plain(str(error))}"
        raise ConfigError(msg) from error
    except Exception as error:  # whatever a class of others raises when it is called
        msg = f"{where}: wanted it to be made, found {plain(in_words(error))}"
        raise ConfigError(msg) from error


def refuse_unknown(found: Collection[str], known: Collection[str], where: str) -> None:
    """Raise ConfigError for a key that is not known; it lists the known ones, and the one that was probably meant."""
    for key in found:
        if key not in known:
            close = [one for one in (ALIKE.get(key),) if one in known] or get_close_matches(
                key, known, 1, 0.7
            )
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            msg = f"{where}: unknown key {shown(key)}{meant}; known: {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(msg)


def convert(value: Any, hint: Any, where: str, imported: Import) -> Any:
    """A value of a file as the type that a parameter is annotated with.

    Raises ConfigError: it is of another type. A type this function knows nothing about is left to the part to check.
    """
    origins = typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)
    # a part that takes both means more by a mapping
    for one in sorted(origins, key=lambda one: one is pa.Schema):
        if (converted := _Value(value, where, imported).as_(one)) is not NO_FIT:
            return converted
    msg = f"{where}: wanted {' or '.join(_named(one) for one in origins if one is not type(None))}, found {_kind(value)} {shown(value, 80)}"
    raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of the file, and where it stands."""

    value: Any
    where: str
    imported: Import

    def as_(self, hint: Any) -> Any:
        """The value as this type, or NO_FIT."""
        origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
        if origin is typing.Literal:
            return (
                self.value
                if any(self.value == one and type(self.value) is type(one) for one in args)
                else NO_FIT
            )
        for accepts, written, convert_it in RULES:
            if accepts(origin):
                return convert_it(self, origin, args) if type(self.value) in written else NO_FIT
        return NO_FIT if hint is type(None) else self.value

    def plain(self, origin: Any, _: Any) -> Any:
        return origin(self.value) if origin in {int, float, Path} else self.value

    def code(self, *_: Any) -> Any:
        return self.imported(self.value)

    def arrow_type(self, *_: Any) -> pa.DataType:
        return arrow_type(self.value, self.where)

    def arrow_schema(self, *_: Any) -> pa.Schema:
        return arrow_schema(self.value, self.where)

    def mapping(self, _: Any, args: tuple[Any, ...]) -> dict[str, Any]:
        of = args[1] if len(args) == 2 else Any  # noqa: PLR2004 - of keys and of values
        return {
            key: convert(one, of, f"{self.where}.{key}", self.imported) for key, one in self.value.items()
        }

    def items(self, origin: type, args: tuple[Any, ...]) -> Any:
        of = args[0] if args else Any
        items = [convert(one, of, f"{self.where}[{n}]", self.imported) for n, one in enumerate(self.value)]
        if origin is list:
            return items
        return frozenset(items) if issubclass(origin, frozenset | set) else tuple(items)


def _one_of(*kinds: Any) -> Callable[[Any], bool]:
    return lambda origin: any(origin is kind for kind in kinds)


def _below(kind: type) -> Callable[[Any], bool]:
    return lambda origin: isinstance(origin, type) and origin is not bytes and issubclass(origin, kind)


NO_FIT = object()
RULES: list[tuple[Callable[[Any], bool], Collection[Any], Callable[[_Value, Any, Any], Any]]] = [
    # what a parameter is annotated with, the types of TOML that may stand for it, and how they become it
    *((_one_of(kind), {kind}, _Value.plain) for kind in (str, bool, int, datetime, date, time)),
    (_one_of(float), {float, int}, _Value.plain),
    (_one_of(Path, os.PathLike), {str}, _Value.plain),
    (_one_of(Callable), {str}, _Value.code),
    (_one_of(pa.DataType), {str}, _Value.arrow_type),
    (_one_of(pa.Schema), {dict}, _Value.arrow_schema),
    (_below(Mapping), {dict}, _Value.mapping),
    (_below(Collection), {list}, _Value.items),
]


def arrow_type(name: str, where: str) -> pa.DataType:
    """The Arrow type of this name: `string`, `int64`, `double`, `timestamp[us]`. Raises ConfigError: there is none."""
    try:
        return pa.type_for_alias(name)
    except ValueError:
        msg = f"{where}: wanted the name of an Arrow type (string, int64, double, bool, timestamp[us], ...), found {shown(name)}"
        raise ConfigError(msg) from None


def arrow_schema(fields: Mapping[str, Any], where: str) -> pa.Schema:
    """A table of `name = "type"` as a schema of nullable fields. Raises ConfigError for a name that is no type."""
    return pa.schema([(name, arrow_type(str(kind), f"{where}.{name}")) for name, kind in fields.items()])


def _hint(factory: Any, parameter: inspect.Parameter | None) -> Any:
    """The type of a parameter; Any where it has none or where it cannot be known at run time."""
    if parameter is None or parameter.annotation is parameter.empty:
        return Any
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    owners = [*getattr(factory, "__mro__", ()), factory]
    for module in dict.fromkeys(getattr(owner, "__module__", "") for owner in owners):
        carrier = type(
            "carrier", (), {"__annotations__": {"hint": parameter.annotation}, "__module__": module}
        )
        try:
            return typing.get_type_hints(carrier, vars(sys.modules[module]))["hint"]
        except (NameError, KeyError, AttributeError, TypeError):
            continue  # named in another module of the family, or for type checkers only
    return Any


NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "a table",
    list: "a list",
}


def _named(hint: Any) -> str:
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in NAMES and not args:
        return NAMES[origin]
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin in {Path, os.PathLike}:
        return "a path"
    if origin is pa.DataType:
        return "the name of an Arrow type"
    if origin is Callable:
        return '"module:attr"'
    if origin is pa.Schema or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "a table"
    if isinstance(origin, type) and issubclass(origin, Collection):
        return f"a list of {_named(args[0]).removeprefix('a ')}s" if args else "a list"
    return getattr(origin, "__name__", str(origin))


def _kind(value: Any) -> str:
    return NAMES.get(type(value), f"a {type(value).__name__}")
