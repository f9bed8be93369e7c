"""A module imports its own floor and the floors below; a part imports only what a stranger could.

Every import counts: inside a function, and under TYPE_CHECKING, too. Only a circle may be closed by an import
under TYPE_CHECKING: neighbours may name each other in annotations.
"""

import ast
import re
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mlinfer.sql

ROOT = Path(__file__).parents[1] / "src/mlinfer"

# A new module must be put on a floor here and in pyproject.toml's import contract.
# A package stands for everything inside it.
FLOORS = [
    # 0: no I/O
    [
        "_arrays",
        "_errors",
        "_batch",
        "_casts",
        "_clock",
        "_code",
        "_cost",
        "_decimals",
        "_envelope",
        "_forcing",
        "_progress",
        "_signature",
        "_starting",
        "_system",
        "_text",
        "_choosing",
    ],
    # 1: the promises
    ["_protocols"],
    # 2: pure where possible
    [
        "_answers",
        "_checkpoint",
        "_conform",
        "_events",
        "_failpoints",
        "_guarantee",
        "_inbox",
        "_isolate",
        "_layout",
        "_lineage",
        "_records",
        "_rejects",
        "_json_few",
        "_json_text",
        "_report",
        "_resolve",
        "_restoring",
        "_retry",
        "_tabular",
        "_watching",
        "durable",
        "sql",
    ],
    # 3: the loop
    ["_engine"],
    # 4: what a user's definition becomes
    [
        "_answering",
        "_checking",
        "_config",
        "_online",
        "_options",
        "_pipeline",
        "_preview",
        "_registry",
        "_replay",
    ],
    # 5: the ways in
    ["_cli", "_demo", "__main__"],
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
PARTS = {"sources", "hosts", "destinations", "observers", "lifecycle", "testing"}
LOWEST_FLOOR_THAT_MAY_IMPORT_PARTS = 4


def test_every_module_has_a_floor():
    modules = {top(name) for name in sources()}
    assert "_errors" in modules, f"nothing was read below {ROOT}"
    unknown = modules - FLOOR.keys() - PARTS - {""}
    assert not unknown, f"put these on a floor, here and in pyproject.toml: {sorted(unknown)}"


def test_both_tables_of_floors_are_the_same():
    contract = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())
    layers = contract["tool"]["importlinter"]["contracts"][0]["layers"]
    theirs = [set(re.findall(r"mlinfer\.(\w+)", layer)) for layer in reversed(layers)]
    assert theirs == [*map(set, FLOORS[:4]), PARTS, *map(set, FLOORS[4:])]


def test_every_import_respects_the_floors():
    files = sources()
    assert "_errors" in files, f"nothing was read below {ROOT}"
    complaints = [text for name, tree in files.items() for text in broken(name, tree, set(files))]
    assert not complaints, "\n" + "\n".join(complaints)


def test_no_part_has_a_function_of_its_own_by_the_name_of_one_that_mlinfer_offers():
    """Two of one kind drift apart: what a part needs and others may need, too, is public. A private one counts, too."""
    offered = {name: getattr(module, name) for module in (mlinfer, mlinfer.sql) for name in module.__all__}
    copies = [
        f"mlinfer.{name} defines {node.name}"
        for name, tree in sources().items()
        for node in tree.body
        if top(name) in PARTS and isinstance(node, ast.FunctionDef)
        if (one := offered.get(node.name.lstrip("_"))) and one.__module__ != f"mlinfer.{name}"
    ]
    assert not copies


def test_modules_do_not_import_each_other_in_a_circle():
    files = sources()
    graph = {name: imported(name, run(tree), set(files)) - {name, ""} for name, tree in files.items() if name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("_batch", "from mlinfer._engine import Engine", "floor 0"),
        ("_batch", "from mlinfer import _engine", "floor 0"),
        ("_batch", "import mlinfer._engine._loop", "floor 0"),
        ("_batch", "from . import _engine", "floor 0"),
        ("_batch", "from ._engine import Engine", "floor 0"),
        ("_batch", "def f():\n    from mlinfer._engine import Engine", "floor 0"),
        ("_batch", "if TYPE_CHECKING:\n    from mlinfer._engine import Engine", "floor 0"),
        ("_engine._loop", "from .._pipeline import Pipeline", "floor 3"),
        ("_engine._loop", "from mlinfer.sources import CsvSource", "is a part"),
        ("_engine._loop", "from mlinfer import InferencePipeline", "whole package"),
        ("sources._csv", "from mlinfer._batch import Batch", "private"),
        ("sources._csv", "from mlinfer.hosts._sklearn import load", "private"),
        ("sources._csv", "from mlinfer import _batch", "private"),
    ],
)
def test_a_planted_import_is_caught(name, source, complaint):
    modules = {
        "",
        "_batch",
        "_engine",
        "_engine._loop",
        "_pipeline",
        "hosts._sklearn",
        "sources",
        "sources._csv",
    }
    [text] = broken(name, ast.parse(source), modules)
    assert complaint in text


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("_engine._loop", "from mlinfer._batch import Batch"),
        ("_engine._loop", "from mlinfer._engine._state import State"),
        ("_engine._loop", "from ._state import State"),
        ("_pipeline", "from mlinfer.sources import MemorySource"),
        ("_cli", "from mlinfer import __version__"),
        ("sources._csv", "from mlinfer import Batch, durable"),
        ("sources._csv", "from mlinfer.sources._paths import expand"),
        ("sources._csv", "from ._paths import expand"),
        ("sources._csv", "from mlinfer.durable import replace"),
        ("_batch", "import pyarrow, mlinferior"),
        ("", "from mlinfer._pipeline import InferencePipeline"),
    ],
)
def test_a_lawful_import_is_left_alone(name, source):
    modules = {"", "_batch", "_engine", "_engine._loop", "_engine._state", "_pipeline", "durable", "sources"}
    assert broken(name, ast.parse(source), modules | {"sources._csv", "sources._paths"}) == []


def broken(name, tree, modules):
    """Tell in words which of the module's imports are not allowed. Names are relative to mlinfer."""
    return [
        f"mlinfer.{name} imports mlinfer.{target}: {why}".replace(".:", ":")
        for target in sorted(imported(name, ast.walk(tree), modules))
        if (why := objection(name, target))
    ]


def objection(name, target):
    here, there = top(name), top(target)
    if here in ("", there):  # mlinfer/__init__.py gathers everything; a package is its own business
        return None
    if here in PARTS:
        private = any(step.startswith("_") for step in target.split("."))
        return "that is private; a part uses public names only" if private else None
    if here not in FLOOR or there not in FLOOR.keys() | PARTS | {""}:
        return None  # test_every_module_has_a_floor complains about those
    floor = FLOOR[here]
    if there == "":
        return None if floor == len(FLOORS) - 1 else "the whole package is not on a lower floor"
    if there in PARTS:
        low = floor < LOWEST_FLOOR_THAT_MAY_IMPORT_PARTS
        return f"that is a part, and floor {floor} works without any" if low else None
    return f"floor {floor} may not know floor {FLOOR[there]}" if FLOOR[there] > floor else None


def imported(name, nodes, modules):
    """Return the modules of mlinfer that a module's nodes import, relative to mlinfer; "" is mlinfer itself."""
    package = name if any(other.startswith(f"{name}.") for other in modules) else name.rpartition(".")[0]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                steps = f"mlinfer.{package}".rstrip(".").split(".")
                base = ".".join([*steps[: len(steps) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner.removeprefix("mlinfer.") in modules else base)
    return {full[len("mlinfer.") :] for full in found if full == "mlinfer" or full.startswith("mlinfer.")}


def run(tree):
    """Yield the nodes of a module, but for the blocks that run for type checkers only."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        todo += ast.iter_child_nodes(node)


@cache
def sources():
    """Map each module's name, relative to mlinfer, to its syntax."""
    files = {}
    for path in ROOT.rglob("*.py"):
        steps = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(step for step in steps if step != "__init__")
        files[name] = ast.parse(path.read_text(encoding="utf-8"))
    return files


def top(name):
    return name.partition(".")[0]
