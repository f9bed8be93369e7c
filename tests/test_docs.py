"""What the pages for readers say is so: their code runs, their output is the real one, their links lead somewhere.

Every page runs in a folder of its own, block after block in one namespace, as a reader would type it. `flights.parquet`,
`flights/*.parquet` and `model.mlinfer` are there, made from what the demo ships; everything else a page makes itself.
Six comments are meant for this file: `<!-- not run: REASON -->` before a block that is not executed,
`<!-- file: NAME -->` before one that is that file of examples/plugin, letter for letter, and can be imported from there on,
`<!-- module: NAME -->` before one that is the reader's own module NAME.py, `<!-- output -->` before a text block that shows what the block above it prints, and `<!-- allow: MODULE:ATTR -->` before
a TOML block that names code, which is run as well, and `<!-- train -->` before one that is a file for `mlinfer train`.
"""

from __future__ import annotations

import ast
import csv
import datetime as dt
import decimal
import re
import shlex
import shutil
import sqlite3
import sys
import tokenize
import tomllib
import types
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import entry_points
from io import BytesIO
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlinfer
import mlinfer.destinations
import mlinfer.hosts
import mlinfer.observers
import mlinfer.sources
from mlinfer import _protocols
from mlinfer._cli import _parser, main
from mlinfer._cli._ending import CODES
from mlinfer._cli._train import trained
from mlinfer._config import OTHERS, PARTS, PLAIN_KEYS, TABLES, load_pipeline
from mlinfer._demo import _folder, _model
from mlinfer._events import Hooks
from mlinfer.hosts._forms._transformers import READERS
from postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*?) -->\n+)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
REMARKS = {"the same answers, no destination"}
"""Comments behind a print that do not show its output."""
MISSING = {
    "source": '{ type = "memory", data = { x = [1.0] } }',
    "host": '{ type = "sklearn", model = "model.mlinfer" }',
    "destination": '{ type = "memory" }',
}
"""What a TOML block that shows only some keys gets in addition."""


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    note: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["kind"], found["text"], found["note"] or "", text.count("\n", 0, found.start("text")))
        for found in BLOCK.finditer(text)
    ]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def having(kind: str) -> list[object]:
    return [
        pytest.param(page, id=name_of(page)) for page in PAGES if any(b.kind == kind for b in blocks(page))
    ]


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flights and a model that scores them."""
    folder = tmp_path_factory.mktemp("materials")
    (folder / "flights").mkdir()
    for month in _folder.FIRST:
        with _model.shipped(month) as path:
            shutil.copy(path, folder / "flights" / month)
    with _model.shipped(_folder.SECOND) as path:
        shutil.copy(path, folder / "flights.parquet")
    _model.train(folder / "late-flights.mlinfer")
    (folder / "late-flights.mlinfer").rename(folder / "model.mlinfer")
    return folder


@pytest.fixture
def desk(materials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a reader sits in."""
    folder = tmp_path / "desk"
    shutil.copytree(materials, folder)
    shutil.copytree(materials / "flights", folder / "mlinfer-demo" / "input")
    shutil.copytree(materials / "model.mlinfer", folder / "mlinfer-demo" / "late-flights.mlinfer")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", having("python"))
def test_every_python_block_runs_and_prints_what_it_says(page, desk, capsys, monkeypatch):
    name = re.sub(r"\W", "_", f"page_{name_of(page)}")
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    code = desk / f"{name}.py"
    printed = ""
    seen: list[str] = []
    for block in blocks(page):
        if block.note == "output":
            assert matches(block.text.splitlines(), printed.splitlines()), (
                f"{name_of(page)}:{block.line}: shown\n{block.text}\nprinted\n{printed}"
            )
        if block.note.startswith("file: "):
            put(block, desk, monkeypatch)
        if block.kind != "python" or block.note.startswith(("not run: ", "file: ", "module: ")):
            continue
        # the page's code so far, on the lines where the page has it, so that tracebacks and digests find it
        seen += [""] * (block.line - len(seen)) + block.text.splitlines()
        code.write_text("\n".join(seen) + "\n", encoding="utf-8")
        source = "\n" * block.line + block.text
        exec(compile(source, code, "exec", flags=0, dont_inherit=True), module.__dict__)
        printed = capsys.readouterr().out
        shown = said(block.text)
        assert in_order(shown, printed.splitlines()), (
            f"{name_of(page)}:{block.line}: says {shown}, printed\n{printed}"
        )


def put(block: Block, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the example package, as the page shows it, where Python finds it."""
    name = block.note.removeprefix("file: ")
    assert block.text == (ROOT / "examples" / "plugin" / name).read_text(encoding="utf-8"), name
    path = desk / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")
    folder = path.parents[1] if path.parent.name == "mlinfer_weblog" else path.parent
    monkeypatch.syspath_prepend(folder)


def said(code: str) -> list[str]:
    """The comments behind prints, in order."""
    ends = {
        node.end_lineno
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "print"
    }
    comments = [
        token.string.removeprefix("#").strip()
        for token in tokenize.tokenize(BytesIO(code.encode()).readline)
        if token.type == tokenize.COMMENT and token.start[0] in ends
    ]
    return [comment for comment in comments if comment not in REMARKS]


def in_order(shown: list[str], printed: list[str]) -> bool:
    """Whether each shown text begins a printed line, in this order; `...` stands for anything."""
    lines = iter(printed)
    return all(any(fits(text, line, whole=False) for line in lines) for text in shown)


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether these are the lines, a line `...` standing for any number of them."""
    if not shown:
        return not printed
    if shown[0].strip() in {"...", "[...]"}:
        return any(matches(shown[1:], printed[n:]) for n in range(len(printed) + 1))
    return bool(printed) and fits(shown[0], printed[0], whole=True) and matches(shown[1:], printed[1:])


def fits(text: str, line: str, *, whole: bool) -> bool:
    pattern = ".*".join(map(re.escape, text.strip().split("...")))
    return re.match(pattern + (r"\Z" if whole else ""), line.strip()) is not None


@pytest.mark.parametrize("page", having("toml"))
def test_every_toml_block_describes_a_pipeline(page, desk, monkeypatch):
    monkeypatch.syspath_prepend(desk)
    for block in blocks(page):
        if block.note.startswith("module: "):
            (desk / f"{block.note.removeprefix('module: ')}.py").write_text(block.text, encoding="utf-8")
    for number, block in enumerate(b for b in blocks(page) if b.kind == "toml"):
        if block.note.startswith("file: "):  # names parts of a package that test_plugin_example.py installs
            continue
        there = tomllib.loads(block.text).keys()
        if block.note == "train":
            (desk / "train.toml").write_text(block.text, encoding="utf-8")
            assert trained(desk / "train.toml", []).path.is_dir()
            continue
        rest = "".join(f"{key} = {value}\n" for key, value in MISSING.items() if key not in there)
        path = desk / f"block{number}.toml"
        path.write_text(rest + block.text, encoding="utf-8")
        allow = [block.note.removeprefix("allow: ")] if block.note.startswith("allow: ") else []
        pipeline = load_pipeline(path, allow)
        if allow:  # code that is only loaded may still fit no record
            report = pipeline.run()
            assert report.delivered
            assert not report.rejected


@pytest.mark.parametrize("page", having("sh"))
def test_every_command_is_one_that_mlinfer_has(page):
    for block in blocks(page):
        if block.kind != "sh":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            for command in re.split(r"\||&&|;|>", line.split(" #")[0]):
                words = shlex.split(command)
                if words[:1] == ["mlinfer"]:
                    _parser().parse_args(words[1:])


def test_every_verb_named_in_a_sentence_is_one_that_mlinfer_has():
    verbs = {
        "demo",
        "train",
        "run",
        "check",
        "explain",
        "preview",
        "serve",
        "keys",
        "state",
        "rejects",
        "inspect",
        "plugins",
    }
    for page in TEXTS:
        for verb in re.findall(r"`mlinfer ([a-z]+)", page.read_text(encoding="utf-8")):
            assert verb in verbs, name_of(page)


def test_every_make_target_named_is_one_that_make_has():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in TEXTS:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, name_of(page)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{name_of(page)}: {link}"


def test_the_readme_shows_what_the_demo_prints(tmp_path, monkeypatch, capsys):
    shown = next(b.text for b in blocks(ROOT / "README.md") if b.text.startswith("$ mlinfer demo\n"))
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    printed = capsys.readouterr().out
    wanted, found = (
        [masked(line) for line in text.splitlines()] for text in (shown.partition("\n")[2], printed)
    )
    assert matches(wanted, found), printed


def masked(line: str) -> str:
    """Without what another run or another version of scikit-learn changes: which flights come first, numbers, digests."""
    if re.search(r"-2013-\d\d-\d\d-[A-Z]{3}  ", line):
        return "a flight"
    if line.strip().startswith(("killed ", "run again ", "The run was over before")):
        return "a kill"  # the machine decides how far it had come
    return re.sub(r"[0-9a-f]{12}\b|[0-9][0-9.,e-]*", "0", line).replace("commits", "commit").strip()


PUBLIC_PARTS = {
    "docs/sources.md": mlinfer.sources,
    "docs/hosts.md": mlinfer.hosts,
    "docs/destinations.md": mlinfer.destinations,
    "docs/observers.md": mlinfer.observers,
}


@pytest.mark.parametrize("page", PUBLIC_PARTS)
def test_every_part_has_its_place_in_the_documentation(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    names = PUBLIC_PARTS[page].__all__
    assert [name for name in names if f"`{name}" not in text and f"`mlinfer.{name}" not in text] == []


UTC_MOMENT = dt.datetime(2013, 1, 31, 22, 59, 59, tzinfo=dt.UTC)
VALUES = {
    "`bool`": (pa.bool_(), True),
    "`int8`": (pa.int8(), -7),
    "`int16`": (pa.int16(), -7),
    "`int32`": (pa.int32(), -7),
    "`int64`": (pa.int64(), -7),
    "`uint8`": (pa.uint8(), 7),
    "`uint16`": (pa.uint16(), 7),
    "`uint32`": (pa.uint32(), 7),
    "`uint64`": (pa.uint64(), 7),
    "`float16`": (pa.float16(), np.float16(1.5)),
    "`float`": (pa.float32(), 1.5),
    "`double`": (pa.float64(), 1.5),
    "`double`, NaN": (pa.float64(), float("nan")),
    "`double`, infinite": (pa.float64(), float("inf")),
    "`string`": (pa.string(), 'a "b"'),
    "`large_string`": (pa.large_string(), "ab"),
    "`string_view`": (pa.string_view(), "ab"),
    "`dictionary` of strings": (pa.dictionary(pa.int32(), pa.string()), "ab"),
    "`binary`": (pa.binary(), b"\x00\x01"),
    "`large_binary`": (pa.large_binary(), b"\x00\x01"),
    "`fixed_size_binary`": (pa.binary(2), b"\x00\x01"),
    "`binary_view`": (pa.binary_view(), b"\x00\x01"),
    "`date32`": (pa.date32(), dt.date(2013, 1, 31)),
    "`date64`": (pa.date64(), dt.date(2013, 1, 31)),
    "`time32[s]`": (pa.time32("s"), dt.time(23, 59, 59)),
    "`time32[ms]`": (pa.time32("ms"), dt.time(23, 59, 59)),
    "`time64[us]`": (pa.time64("us"), dt.time(23, 59, 59)),
    "`time64[ns]`": (pa.time64("ns"), dt.time(23, 59, 59)),
    "`timestamp[us]`": (pa.timestamp("us"), dt.datetime(2013, 1, 31, 23, 59, 59)),  # noqa: DTZ001 - without a zone
    "`timestamp[us]` with a zone": (pa.timestamp("us", "Europe/Oslo"), UTC_MOMENT),
    "`timestamp[s]`": (pa.timestamp("s"), dt.datetime(2013, 1, 31, 23, 59, 59)),  # noqa: DTZ001 - without a zone
    "`timestamp[ms]`": (pa.timestamp("ms"), dt.datetime(2013, 1, 31, 23, 59, 59)),  # noqa: DTZ001 - without a zone
    "`timestamp[ns]`": (pa.timestamp("ns"), dt.datetime(2013, 1, 31, 23, 59, 59)),  # noqa: DTZ001 - without a zone
    "`duration[us]`": (pa.duration("us"), dt.timedelta(seconds=1.5)),
    "`duration[ns]`": (pa.duration("ns"), dt.timedelta(seconds=1.5)),
    "`decimal128`": (pa.decimal128(5, 2), decimal.Decimal("1.50")),
    "`decimal256`": (pa.decimal256(50, 2), decimal.Decimal("1.50")),
    "`list`": (pa.list_(pa.float64()), [1.0, None]),
    "`list`, NaN in it": (pa.list_(pa.float64()), [float("nan")]),
    "`list`, infinity in it": (pa.list_(pa.float64()), [float("inf")]),
    "`large_list`": (pa.large_list(pa.float64()), [1.0, None]),
    "`fixed_size_list`": (pa.list_(pa.float64(), 2), [1.0, 2.0]),
    "`struct`": (pa.struct({"a": pa.int64()}), {"a": 1}),
    "`map`": (pa.map_(pa.string(), pa.int64()), [("a", 1)]),
    "null of any type": (pa.int64(), None),
}
"""The rows of the table in docs/destinations.md, as values."""


def type_rows() -> dict[str, list[str]]:
    text = (ROOT / "docs" / "destinations.md").read_text(encoding="utf-8")
    table = text.partition("| Arrow type |")[2].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table]
    return {row[0]: [*row[1:], ""][:5] for row in cells}


def test_the_table_of_types_has_a_value_for_each_row():
    assert type_rows().keys() == VALUES.keys()


@pytest.fixture(scope="module")
def server():
    with PostgresServer.running() as running:
        yield running


@pytest.mark.parametrize("row", VALUES)
def test_every_type_arrives_as_the_table_says(row, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, value = VALUES[row]
    url = server.database()
    parquet, sqlite, postgres, json_lines, comma = (cell.strip("`") for cell in type_rows()[row])
    source = mlinfer.sources.MemorySource(pa.table({"v": pa.array([value], kind), "i": [1]}))
    for destination in (
        mlinfer.destinations.ParquetDestination("parts"),
        mlinfer.destinations.SqlDestination("sqlite:///found.db", table="found"),
        mlinfer.destinations.SqlDestination(url, table="found"),
        mlinfer.destinations.JsonLinesDestination("found.jsonl"),
        mlinfer.destinations.CsvDestination("found.csv"),
    ):
        mlinfer.InferencePipeline(source, SAME, destination, name="types", keep=["v"]).run()

    arrived = pq.read_table("parts")["v"]
    wanted = {"same": kind, "null": kind}.get(parquet) or pa.type_for_alias(parquet)
    assert arrived.type.equals(wanted) or str(arrived.type) == str(wanted).replace("item", "element")
    assert repr(arrived.to_pylist()) == repr(pa.array([value], kind).to_pylist())
    with closing(sqlite3.connect("found.db")) as connection:
        assert repr(connection.execute("SELECT v FROM found").fetchone()[0]) == sqlite
    assert in_postgres(url) == postgres.replace("`", "")
    line = Path("found.jsonl").read_text(encoding="utf-8").strip()
    assert line == f'{{"v":{json_lines},"o":1}}'
    with Path("found.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["v", "o"], [comma, "1"]]


def in_postgres(url) -> str:
    """The type of the column and its value as psql would show them; only NULL for null."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        kind, value = connection.execute(
            "SELECT format_type(atttypid, atttypmod), v::text FROM found, pg_attribute"
            " WHERE attrelid = 'found'::regclass AND attname = 'v'"
        ).fetchone()
    for long, short in (("stamp without time zone", "stamp"), ("stamp with time zone", "stamptz")):
        kind = kind.replace(long, short)
    return "NULL" if value is None else f"{kind.replace(' without time zone', '')} {value}"


@mlinfer.host(inputs={"i": "int64"}, outputs={"o": "int64"}, takes="numpy", version="1")
def SAME(i):  # noqa: N802 - a constant: the simplest host
    return i


def registered() -> Iterator[str]:
    for role in ("sources", "hosts", "destinations", "observers", "engines"):
        for point in entry_points(group=f"mlinfer.{role}"):
            if point.dist is not None and point.dist.name == "mlinfer":
                yield point.name


def test_the_readme_names_every_registered_part():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sorted({name for name in registered() if f"`{name}`" not in text}) == []


def test_every_key_of_a_pipeline_file_is_documented():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    keys = [*PLAIN_KEYS, *TABLES, *PARTS, *OTHERS]
    keys += [field for table in TABLES.values() for field in table.__dataclass_fields__]
    assert [key for key in keys if f"`{key}`" not in text and f"`[{key}]`" not in text] == []


def test_the_decision_on_a_servers_limits_names_every_module_that_has_one():
    text = (ROOT / "docs" / "decisions" / "0022-a-servers-limits-are-fixed.md").read_text(encoding="utf-8")
    bound = re.compile(r"^(MOST|LONGEST|DEEPEST)\w*\b.* = ", re.MULTILINE)
    modules = [
        path.name
        for path in (ROOT / "src" / "mlinfer" / "_online").glob("_*.py")
        if bound.search(path.read_text(encoding="utf-8"))
    ]
    assert "_wire.py" in modules
    assert [name for name in modules if f"/{name}`" not in text and f"`{name}`" not in text] == []


def test_every_event_is_documented_and_logged():
    text = (ROOT / "docs" / "observers.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(Hooks) if not name.startswith("_")]
    assert "run_started" in hooks
    assert [name for name in hooks if f"`{name}`" not in text] == []
    assert [name for name in hooks if not hasattr(mlinfer.observers.LogObserver, name)] == []


def test_every_power_of_a_part_is_documented_with_its_methods():
    text = (ROOT / "docs" / "how-to" / "write-a-connector.md").read_text(encoding="utf-8")
    powers = [one for one in vars(_protocols).values() if getattr(one, "_is_runtime_protocol", False)]
    assert mlinfer.Stateful in powers
    rows = {row[1]: row[0] for row in re.finditer(r"^\| `(\w+)` \|.*$", text, re.MULTILINE)}
    assert [one.__name__ for one in powers if one.__name__ not in rows] == []
    named = [(one.__name__, name) for one in powers for name in vars(one) if not name.startswith("_")]
    assert [f"{power}.{name}" for power, name in named if f"`{name}(" not in rows[power]] == []
    assert [one.__name__ for one in powers if one.__name__ not in mlinfer.__all__] == []


def test_every_error_is_documented():
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    errors = [
        name
        for name in mlinfer.__all__
        if isinstance(found := getattr(mlinfer, name), type) and issubclass(found, Exception)
    ]
    assert [name for name in errors if name not in text] == []


def test_every_option_of_the_command_line_is_documented():
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    todo, options = [_parser()], set()
    while todo:
        for action in todo.pop()._actions:
            options |= {one for one in action.option_strings if one.startswith("--")}
            todo += action.choices.values() if isinstance(action.choices, dict) else []
    assert "--grpc-bind" in options
    assert sorted(one for one in options - {"--help"} if not re.search(rf"{one}(?![\w-])", text)) == []


def test_every_transformer_that_has_a_compiled_form_is_documented():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    in_words = {"Pipeline", "ColumnTransformer", "FeatureUnion"}
    assert sorted(name for name in READERS.keys() - in_words if f"`{name}`" not in text) == []


def test_every_exit_code_is_documented():
    codes = {code for _, code in CODES} | {0}
    table = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    assert set(map(int, re.findall(r"^\| `(\d+)` \|", table, re.MULTILINE))) == codes
    sentence = re.search(r"Exit codes: (.*?)\.", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert set(map(int, re.findall(r"\b\d+\b", sentence[1]))) == codes - {130}
