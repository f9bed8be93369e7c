"""`mlinfer plugins`: which parts are installed, and what they promise."""

from __future__ import annotations

import argparse
from typing import Any

import pyarrow as pa

from mlinfer._cli._loading import debug
from mlinfer._cli._table import rendered
from mlinfer._errors import ConfigError, PluginNotFound
from mlinfer._guarantee import Level
from mlinfer._registry import GROUPS, OURS, Plugin, load, plugins

ANY = "part"
BY_RESUME = {"seek": Level.EXACTLY_ONCE, "acknowledge": Level.AT_LEAST_ONCE, "none": Level.AT_MOST_ONCE}


def add(verbs: Any) -> None:
    """Add the verb."""
    text = "list the installed parts"
    more = "A stranger's part is imported, to ask what it promises, only if it is named."
    parser = verbs.add_parser("plugins", help=text, description=f"{text.capitalize()}. {more}")
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts to show in full")
    debug(parser)
    parser.set_defaults(act=show)


def show(asked: argparse.Namespace) -> None:
    """Print all parts as a table, or the named ones in full."""
    found = [(role, plugin) for role in GROUPS for plugin in plugins(role)]
    if asked.names:
        _in_full(found, asked.names)
        return
    rows = [
        {
            "name": plugin.name,
            "role": role,
            "package": plugin.distribution,
            "version": plugin.version,
            "guarantee": _promise(role, plugin) if plugin.distribution == OURS else "?",
        }
        for role, plugin in found
    ]
    print(rendered(pa.Table.from_pylist(rows)))


def _in_full(found: list[tuple[str, Plugin]], names: list[str]) -> None:
    for name in names:
        named = [(role, plugin) for role, plugin in found if plugin.name == name]
        if not named:
            raise PluginNotFound(ANY, name, {plugin.name for _, plugin in found})
        for role, plugin in named:
            print(f"{plugin.name}  ({role})")
            print(f"  package    {plugin.distribution} {plugin.version}")
            print(f"  value      {plugin.value}")
            print(f"  file       {plugin.file or 'not found'}")
            print(f"  guarantee  {_promise(role, plugin)}")


def _promise(role: str, plugin: Plugin) -> str:
    """The best guarantee that a part can be part of; a part may promise more or less by its arguments."""
    if role not in {"source", "destination"}:
        return "-"
    try:
        part = load(role, plugin.name)
    except ConfigError:
        return "cannot be imported"
    if role == "source":
        resume = getattr(part, "resume", "none")
        return str(BY_RESUME[resume]) if isinstance(resume, str) and resume in BY_RESUME else "by arguments"
    powers = [getattr(part, power, False) for power in ("transactional", "keyed")]
    if any(power is True for power in powers):
        return str(Level.EXACTLY_ONCE)
    return (
        "by arguments" if any(isinstance(power, property) for power in powers) else str(Level.AT_LEAST_ONCE)
    )
