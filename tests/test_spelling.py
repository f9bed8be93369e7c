"""At the command line every message names an option as it is written there: as a flag, or as TOML."""

import ast
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

import mlinfer
import mlinfer.destinations
import mlinfer.hosts
import mlinfer.lifecycle
import mlinfer.observers
import mlinfer.sources
from mlinfer._cli import main
from mlinfer._cli._spelling import spelled
from mlinfer._online import ServingOptions

SOURCE = Path(mlinfer.__file__).parent
NOT_SHOWN = {"testing", "_online/_access.py", "_online/_page.py", "_demo/_kill.py", "_cli/_spelling.py"}
"""Messages of the kit for authors of parts; log lines and pages, whose `key=` is a field."""


def parameters():
    """The name of every parameter that a user may give in Python."""
    found = set(ServingOptions.__annotations__)
    modules = [
        mlinfer, mlinfer.sources, mlinfer.hosts, mlinfer.destinations, mlinfer.lifecycle, mlinfer.observers
    ]  # fmt: skip
    for module in modules:
        for thing in [getattr(module, name) for name in module.__all__]:
            methods = [getattr(thing, name) for name in dir(thing) if not name.startswith("_")]
            for one in [thing, *(methods if inspect.isclass(thing) else [])]:
                if inspect.isclass(one) or inspect.isroutine(one):
                    try:
                        found |= set(inspect.signature(one).parameters)
                    except ValueError:  # a builtin that does not tell
                        continue
    return found


OPTION = re.compile(
    rf"(?<![\w.?&/-])(?:{'|'.join(sorted(parameters()))})=(?!=)|from_start|load_pipeline\(|pa\.\w+\("
)


def messages(path):
    """Every text of a module that may be told, with something in the place of what is filled in."""
    tree = ast.parse(path.read_text())
    silent = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # docstrings
            silent.add(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name == "__repr__":
            silent |= set(ast.walk(node))
        elif isinstance(node, ast.JoinedStr):
            silent |= set(node.values)
    for node in ast.walk(tree):
        if node not in silent and isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if node not in silent and isinstance(node, ast.JoinedStr):
            yield "".join(
                one.value if isinstance(one, ast.Constant) else "'x'" if one.conversion == ord("r") else "x"
                for one in node.values
            )


def told():
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not any(name.startswith(one) for one in NOT_SHOWN):
            yield from (
                (name, one) for one in messages(path) if OPTION.search(one) and not is_no_message(one)
            )


def is_no_message(text):
    """Addresses, headers, and what only Python can be told: examples of objects, an option of another library."""
    return (
        text.startswith(("file:", "x?", "text/", "SqlDestination(url"))
        or "charset=" in text
        or "zipmap" in text
    )


def test_no_message_speaks_of_python_at_the_command_line():
    found = [(where, message, spelled(message)) for where, message in told()]
    assert len(found) > 45
    assert any("from_start=True" in message for _, message, _ in found)
    assert [one for one in found if OPTION.search(one[2]) or one[1] == one[2]] == []


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("start over with from_start=True", "start over with --from-start"),
        ("anew with run(from_start=True)", "anew with --from-start"),
        ("a type: keep={'id': pa.string()}", 'a type: keep = { id = "string" }'),
        ("a type: keep={'an id': pa.string()}", "a type: keep = { 'an id' = \"string\" }"),
        ("seems to need CsvSource(..., delimiter=';')", "seems to need delimiter = ';'"),
        ("to allow it: Budget(ratio=1)", "to allow it: [budget] ratio = 1"),
        ("for them with rejects=", "for them with [rejects]"),
        ('use on_change="restart" to', 'use on_change = "restart" to'),
        ("guard_formulas=True", "guard_formulas = true"),
        ("size=(8, 8) in L", "size = [8, 8] in L"),
        ("name one with rejects= (in a file: the table [rejects])", "name one with [rejects]"),
        ("names= (--name)", "--name"),
        ("insecure=True (--insecure-bind)", "--insecure-bind"),
        ("--allow a:b (in Python: load_pipeline(..., allow=['a:b']))", "--allow a:b"),
    ],
)  # fmt: skip
def test_an_option_is_a_flag_or_toml(message, shown):
    assert spelled(message) == shown
    if found := re.search(r"\w+ = .*[\]}\"'e]$", shown):
        tomllib.loads(found[0])


@pytest.mark.parametrize(
    "text",
    [
        "flights/year=2024/key=3/part.parquet: wanted a file",
        "found SqlDestination('sqlite:///a.db', table='t', key='id')",
        "found Budget(count=None, ratio=7, window=1000)",
        "found Mapped(Other((1, (2, 3)), key=1))",
        "https://example.org/?key=3&name=x",
        "monkey=3",
    ],
)
def test_what_is_no_advice_stays_as_it_is(text):
    assert spelled(text) == text


PIPELINE = """
name = "p"
{top}

[source]
type = "csv"
path = "in.csv"

[host]
type = "function"
function = "halving:half"
inputs = {{ n = "double" }}
outputs = {{ half = "double" }}
takes = "numpy"
version = "1"

[destination]
type = "jsonl"
path = "out.jsonl"
"""


@pytest.mark.parametrize(
    ("top", "data", "wanted"),
    [
        ('keep = ["empty"]', "n,empty\n1,\n", 'keep = { empty = "string" }'),
        ("", "m;n\n1;2\n", "delimiter = ';'"),
        ("", "n\n1\n1,2,3\n", "with [rejects]"),
        ('lineage = ["half"]', "n\n1\n", "lineage"),
    ],
)
def test_a_command_says_it_that_way(top, data, wanted, *, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "halving", raising=False)
    (tmp_path / "halving.py").write_text("def half(n):\n    return n / 2\n")
    (tmp_path / "in.csv").write_text(data)
    (tmp_path / "p.toml").write_text(PIPELINE.format(top=top))
    assert main(["run", "p.toml", "--no-progress", "--allow", "halving:half"]) in {2, 3}
    said = capsys.readouterr().err
    assert wanted in said
    assert not OPTION.search(re.sub(r"CsvSource\([^()]*\)", "", said))
