"""Reads a pipeline from a TOML file. A file is data: it names parts, it cannot run code that nobody allowed."""

from __future__ import annotations

import importlib
import os
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlinfer._checkpoint import Checkpoint
from mlinfer._engine import Batching, Budget, Workers
from mlinfer._errors import ConfigError, MlinferError
from mlinfer._layout import Keep
from mlinfer._options import arrow_type, convert, make, refuse_unknown
from mlinfer._pipeline import InferencePipeline
from mlinfer._registry import load
from mlinfer._retry import Retry
from mlinfer._text import in_words, plain, shown

LARGEST = 2**20
PLAIN_KEYS = {
    "name": str,
    "columns": Mapping[str, str],
    "require": str,
    "on_change": str,
    "timeout": float,
    "lineage": list[str],
}
"""Top-level keys that go to InferencePipeline as they are."""

TABLES = {"checkpoint": Checkpoint, "budget": Budget, "batching": Batching, "retry": Retry}
"""Tables whose keys are the fields of one class."""

PARTS = {"source": "source", "host": "host", "destination": "destination", "rejects": "destination"}
"""Tables that name a part with `type`, and its role."""

WRAPPERS = {
    ("source", "mapped"): ("mlinfer.sources", "Mapped", "source"),
    ("host", "selected"): ("mlinfer.hosts", "Selected", "host"),
    ("host", "chain"): ("mlinfer.hosts", "Chain", "hosts"),
    ("destination", "tee"): ("mlinfer.destinations", "Tee", "destinations"),
}
"""Parts around other parts: where they are, and the key of what is inside, a table or a list of tables."""

OTHERS = ("keep", "workers", "side", "observers", "engine")


def load_pipeline(path: str | os.PathLike[str], allow: Collection[str] = ()) -> InferencePipeline:
    """The pipeline that a TOML file describes.

    Top-level keys are arguments of InferencePipeline; the tables `[source]`, `[host]`, `[destination]`, `[rejects]` and
    `[side.NAME]` name a part with `type` and give its parameters; `[checkpoint]`, `[budget]`, `[batching]`, `[retry]` and
    `[workers]` give the fields of the classes so called. `keep` is a list of names or a table of `name = "arrow type"`;
    `observers` is a list of names. The wrappers `mapped`, `selected`, `chain` and `tee` hold the tables of other parts.
    Relative paths are relative to the current directory, wherever the file lies.

    Args:
        path: the file, at most 1 MiB.
        allow: code of the user's own that the file may name, each as `module:attr`, exactly: as `type` of a part or as
            a value that is a function. Importing a module runs it, so a file alone cannot ask for that.

    Raises ConfigError: the file cannot be read, a key is unknown or missing, a value has another type, a part is not
    installed, or code is named that `allow` does not list. Every message names the file, the table and the key.
    """
    return Definition(read_file(Path(path)), Path(path), frozenset(allow)).pipeline()


def name_of(path: str | os.PathLike[str]) -> str | None:
    """The name that a TOML file gives to its pipeline; None if it describes none. Imports no part.

    Raises ConfigError: the file is too large or no TOML.
    """
    found = read_file(Path(path))
    name = found.get("name")
    return name if isinstance(name, str) and {"source", "host", "destination"} <= found.keys() else None


def read_file(path: Path, what: str = "a pipeline") -> dict[str, Any]:
    """What a TOML file holds; `what` it should describe. Raises ConfigError: it cannot be read, is too large or no TOML."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        msg = f"{path}: wanted to read {what} from it, found: {error.strerror}"
        raise ConfigError(msg) from error
    if len(content) > LARGEST:
        msg = f"{path}: wanted {what} of at most {LARGEST:,} bytes, found more"
        raise ConfigError(msg)
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path}: wanted TOML, found something else: {plain(str(error))}"
        if isinstance(error, UnicodeDecodeError) or path.suffix != ".toml":
            msg += "; if this is a model, save it by mlinfer.save, and name the folder that comes of it"
        raise ConfigError(msg) from error


@dataclass(frozen=True)
class Definition:
    """A file and what it holds, with the code that it may name."""

    found: Mapping[str, Any]
    path: Path
    allow: frozenset[str]

    def pipeline(self) -> InferencePipeline:
        refuse_unknown(self.found, [*PLAIN_KEYS, *TABLES, *PARTS, *OTHERS], str(self.path))
        missing = [f"[{part}]" for part in ("source", "host", "destination") if part not in self.found]
        if missing:
            msg = f"{self.path}: wanted the tables [source], [host] and [destination], found no {', no '.join(missing)}"
            raise ConfigError(msg)
        arguments = {
            key: convert(self.found[key], kind, f"{self.path}: {key}", self.imported)
            for key, kind in PLAIN_KEYS.items()
            if key in self.found
        }
        for key, kind in TABLES.items():
            if key in self.found:
                arguments[key] = make(kind, self.table(key), self.where(key), self.imported)
        for key, role in PARTS.items():
            if key in self.found:
                arguments[key] = self.part(role, self.table(key), self.where(key))
        return InferencePipeline(**arguments, **self.others())

    def others(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "keep" in self.found:
            found["keep"] = self.keep()
        if "workers" in self.found:
            found["workers"] = self.workers()
        if "side" in self.found:
            found["side"] = {
                name: self.part("destination", self.table("side", name), self.where(f"side.{name}"))
                for name in self.table("side")
            }
        if "observers" in self.found:
            names = convert(self.found["observers"], list[str], f"{self.path}: observers", self.imported)
            found["observers"] = [
                make(load("observer", name), {}, f"observer {name!r}", self.imported) for name in names
            ]
        if "engine" in self.found:
            name = convert(self.found["engine"], str, f"{self.path}: engine", self.imported)
            found["engine"] = make(load("engine", name), {}, f"engine {name!r}", self.imported)
        return found

    def keep(self) -> Keep:
        where = f"{self.path}: keep"
        if isinstance(self.found["keep"], dict):
            named = convert(self.found["keep"], Mapping[str, str], where, self.imported)
            return {name: arrow_type(kind, f"{where}.{name}") for name, kind in named.items()}
        return convert(self.found["keep"], list[str], where, self.imported)  # type: ignore[no-any-return]

    def workers(self) -> Workers:
        if isinstance(self.found["workers"], dict):
            return make(Workers, self.table("workers"), self.where("workers"), self.imported)  # type: ignore[no-any-return]
        return Workers(convert(self.found["workers"], int, f"{self.path}: workers", self.imported))

    def part(self, role: str, options: dict[str, Any], where: str) -> Any:
        """The part that a table names with `type`. Raises ConfigError: there is none, or not with these options."""
        kind = options.pop("type", None)
        if not isinstance(kind, str):
            msg = f'{where}: wanted type = "..." to say which {role} it is, found {shown(kind) if kind else "none"}'
            raise ConfigError(msg)
        if (role, kind) in WRAPPERS:
            return self.wrapper(role, kind, options, where)
        found = self.imported(kind) if ":" in kind else load(role, kind)
        # a part that is ready, as @mlinfer.host makes it
        if hasattr(found, "open") and not isinstance(found, type):
            refuse_unknown(options, ["type"], where)
            return found
        if not isinstance(found, Callable):  # type: ignore[arg-type]
            msg = f"{where}: wanted a class or a part at {kind}, found {type(found).__name__}"
            raise ConfigError(msg)
        return make(found, options, f"{where} {kind}", self.imported)

    def wrapper(self, role: str, kind: str, options: dict[str, Any], where: str) -> Any:
        """A part around the parts that its tables name. Raises ConfigError: there are none, or too few."""
        module, name, inner = WRAPPERS[role, kind]
        factory, place = getattr(importlib.import_module(module), name), f"{where} {kind} {inner}"
        found = options.get(inner)
        if inner == role:
            if not isinstance(found, dict):
                msg = f'{place}: wanted a table, {inner} = {{ type = "..." }}, found {shown(found) if found else "none"}'
                raise ConfigError(msg)
            options[inner] = self.part(role, dict(found), place)
            return make(factory, options, f"{where} {kind}", self.imported)
        refuse_unknown(options, [inner], f"{where} {kind}")
        if not isinstance(found, list) or len(found) < 2 or not all(isinstance(one, dict) for one in found):  # noqa: PLR2004 - one needs no wrapper
            msg = f'{place}: wanted a list of two tables or more, {inner} = [{{ type = "..." }}, ...], found {shown(found) if found else "none"}'
            raise ConfigError(msg)
        return factory(*(self.part(role, dict(one), f"{place}[{n}]") for n, one in enumerate(found)))

    def imported(self, text: str) -> Any:
        """What `module:attr` names, if the caller of load_pipeline allows exactly this."""
        module, colon, attr = text.partition(":")
        if not (colon and all(step.isidentifier() for step in [*module.split("."), *attr.split(".")])):
            msg = f'{self.path}: wanted code as "module:attr", found {shown(text)}'
            raise ConfigError(msg)
        if text not in self.allow:
            msg = (
                f"{self.path}: {text} is code of yours, and a file alone must not run code; "
                f"if you trust it: --allow {text} (in Python: load_pipeline(..., allow=[{text!r}]))"
            )
            raise ConfigError(msg)
        try:
            found = importlib.import_module(module)
            for step in attr.split("."):
                found = getattr(found, step)
        except MlinferError:
            raise
        except (Exception, SystemExit) as error:  # whatever code of others raises while it is imported
            msg = f"{self.path}: {text} cannot be imported: {plain(in_words(error))}"
            raise ConfigError(msg) from error
        return found

    def table(self, *keys: str) -> dict[str, Any]:
        """A copy of a table of the file. Raises ConfigError: it is none."""
        found: Any = self.found
        for key in keys:
            found = found[key]
        if not isinstance(found, dict):
            msg = f"{self.path}: {'.'.join(keys)}: wanted a table, [{'.'.join(keys)}], found {shown(found)}"
            raise ConfigError(msg)
        return dict(found)

    def where(self, table: str) -> str:
        """The table's place, for messages."""
        return f"{self.path}: [{table}]"
