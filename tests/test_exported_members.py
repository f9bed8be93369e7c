"""`__all__` tells the whole truth about what a public package offers."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src/mlinfer"
PACKAGES = ["mlinfer"] + [
    f"mlinfer.{name}"
    for name in ("destinations", "durable", "hosts", "lifecycle", "observers", "sources", "sql", "testing")
    if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()
]


@pytest.fixture(params=PACKAGES)
def package(request):
    return importlib.import_module(request.param)


def test_all_is_sorted_without_repeats(package):
    assert list(package.__all__) == sorted(set(package.__all__), key=in_order)


def test_every_name_in_all_can_be_imported(package):
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert not missing


def test_no_private_name_is_offered(package):
    private = [name for name in package.__all__ if name.startswith("_") and name != "__version__"]
    assert not private


def test_every_public_name_is_in_all(package):
    """A package gathers what it imports from mlinfer; a single module imports for its own use."""
    path = Path(package.__file__)
    found = own_names(path.read_text("utf-8"), gathers=path.name == "__init__.py")
    public = {name for name in found if not name.startswith("_")}
    assert public - set(package.__all__) == set()


def test_own_names_are_what_a_module_defines_or_takes_from_mlinfer():
    source = """
import os
from typing import Any, TYPE_CHECKING
from mlinfer._batch import Batch
from ._text import plain as simple
if TYPE_CHECKING:
    from mlinfer.hosts import host
LIMIT = 1
size: int = 2
def run(): inner = 3
class Part: pass
"""
    defined = {"LIMIT", "size", "run", "Part"}
    assert own_names(source, gathers=True) == {"Batch", "simple", "host"} | defined
    assert own_names(source, gathers=False) == defined


def test_only_the_documented_modules_are_public():
    names = {module.name for module in pkgutil.iter_modules([str(ROOT)])}
    public = {name for name in names if not name.startswith("_")}
    assert public <= {
        "destinations",
        "durable",
        "hosts",
        "lifecycle",
        "observers",
        "sources",
        "sql",
        "testing",
    }


def in_order(name):
    """Constants first, then classes, then the rest: the order that ruff keeps."""
    return (not name.isupper(), not name[:1].isupper(), name)


def own_names(source, *, gathers):
    """Return the names that a module defines or, if it gathers, takes from mlinfer; others are not its own."""
    names = set()
    todo = list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            if gathers and (node.level or node.module.partition(".")[0] == "mlinfer"):
                names |= {alias.asname or alias.name for alias in node.names}
        elif not isinstance(node, ast.Import):
            todo += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names
