"""Finds parts by name among the installed packages: listed from their metadata, imported only when named."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mlinfer._errors import ConfigError, MlinferError, PluginNotFound
from mlinfer._text import in_words, plain, shown

GROUPS = {
    "source": "mlinfer.sources",
    "host": "mlinfer.hosts",
    "destination": "mlinfer.destinations",
    "engine": "mlinfer.engines",
    "observer": "mlinfer.observers",
}
"""The entry-point group of each role."""
ALLOWED = "MLINFER_PLUGINS"
"""The environment variable by which whoever runs pipelines says whose parts they may name; whoever writes them cannot."""
OURS = "mlinfer"
_ALLOWED = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(==[A-Za-z0-9.+!_-]+)?")


@dataclass(frozen=True, slots=True, order=True)
class Plugin:
    """One installed part, as its package's metadata describes it.

    `value` is `module:attribute`; `file` is where that module lies, None if nothing is there.
    """

    name: str
    distribution: str
    version: str
    value: str
    file: str | None


def plugins(role: str) -> list[Plugin]:
    """All installed parts of a role (a key of `GROUPS`), sorted by name; imports none of them.

    A name that two distributions claim is listed twice; `load` refuses it.
    """
    return sorted(
        Plugin(entry.name, *_origin(entry), entry.value, _file(entry))
        for entry in entry_points(group=GROUPS[role])
    )


def load(role: str, name: str) -> Any:
    """Import the one part of this role and name: a class, or a function that makes the part.

    Raises PluginNotFound: nothing installed has this name; the message lists what there is. ConfigError: two
    distributions claim the name, it is none of those that may be loaded here, or the part cannot be imported.
    """
    installed = entry_points(group=GROUPS[role])
    found = list(installed.select(name=name))
    if not found:
        raise PluginNotFound(role, name, installed.names)
    if len(found) > 1:
        claims = " and ".join(sorted(f"{' '.join(_origin(entry))} ({entry.value})" for entry in found))
        msg = f"{role} {name!r}: wanted one package that offers it, found {claims}; uninstall one of them"
        raise ConfigError(msg)
    _check_allowed(role, found[0])
    return _import(role, found[0])


def _check_allowed(role: str, entry: EntryPoint) -> None:
    """Raises ConfigError: it is said whose parts may be loaded, and this package is none of them."""
    said = os.environ.get(ALLOWED)
    distribution, version = _origin(entry)
    if said is None or distribution == OURS:
        return
    for one in said.split():
        found = _ALLOWED.fullmatch(one)
        if found is None:
            msg = f"{ALLOWED}: wanted packages with spaces between them, each as NAME==VERSION or NAME, found {shown(one)}"
            raise ConfigError(msg)
        if _spelled(found[1]) == _spelled(distribution) and found[2] in {None, f"=={version}"}:
            return
    msg = (
        f"{role} {entry.name!r}: wanted a package that {ALLOWED} allows ({said.strip() or 'none'}), found {distribution} {version}; "
        f"who trusts it adds {distribution}=={version} there"
    )
    raise ConfigError(msg)


def _spelled(distribution: str) -> str:
    """Names of packages that mean the same, in one spelling."""
    return re.sub("[._-]+", "-", distribution).lower()


def _import(role: str, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except MlinferError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plugin raises while it is imported
        distribution, version = _origin(entry)
        msg = f"{role} {entry.name!r} of {distribution} {version}: importing {entry.value} failed: " + plain(
            in_words(error)
        )
        raise ConfigError(msg) from error


def _origin(entry: EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "unknown", "unknown"
    return entry.dist.name, entry.dist.version


def _file(entry: EntryPoint) -> str | None:
    """Where a part's module lies. Only its topmost package is looked up, for looking up a submodule imports its parents."""
    try:
        topmost, *steps = entry.module.split(".")
        spec = importlib.util.find_spec(topmost)
    except (ImportError, ValueError, AttributeError):  # AttributeError: the value is no `module:attribute`
        return None
    if spec is None:
        return None
    if not steps:
        return spec.origin
    for folder in spec.submodule_search_locations or ():
        inner = Path(folder, *steps)
        for file in (inner.with_suffix(".py"), inner / "__init__.py"):
            if file.is_file():
                return str(file)
    return None
