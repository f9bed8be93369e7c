"""A file describes a pipeline, says clearly what is wrong with it, and runs no code that nobody allowed."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlinfer import Batching, Budget, Checkpoint, ConfigError, PluginNotFound, Retry, Workers
from mlinfer._config import load_pipeline
from mlinfer._options import make
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.observers import LogObserver

MODULE = """
import pyarrow as pa
from mlinfer import host
from mlinfer.sources import MemorySource

def double(x):
    return {"y": x * 2}

def source():
    return MemorySource(pa.table({"x": [1.0, 2.0], "id": ["a", "b"]}))

@host(inputs={"x": pa.float64()}, outputs={"y": pa.float64()}, takes="numpy")
def ready(x):
    return {"y": x * 3}

number = 7
"""
WHOLE = """
name = "doubles"
keep = ["id"]
require = "at-least-once"
on_change = "restart"
timeout = 30
workers = 2
observers = ["log"]

[source]
type = "config_example:source"

[host]
type = "function"
function = "config_example:double"
inputs = {x = "double"}
outputs = {y = "double"}
takes = "numpy"

[destination]
type = "memory"

[rejects]
type = "memory"

[checkpoint]
path = "state/progress.json"

[budget]
count = 3
ratio = 0.5

[batching]
max_records = 100

[retry]
attempts = 2
first_wait = 1
"""
ALLOW = ["config_example:source", "config_example:double", "config_example:ready", "config_example:number"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    (tmp_path / "config_example.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def put(text):
        (tmp_path / "pipeline.toml").write_text(dedent(text))
        return tmp_path / "pipeline.toml"

    yield put
    sys.modules.pop("config_example", None)


def test_every_key_arrives(write):
    job = load_pipeline(write(WHOLE), ALLOW).job
    assert (job.name, job.keep, job.require, job.on_change, job.timeout) == (
        "doubles",
        ["id"],
        "at-least-once",
        "restart",
        30.0,
    )
    assert isinstance(job.host, FunctionHost)
    assert (job.host.inputs, job.host.takes) == ({"x": pa.float64()}, "numpy")
    assert isinstance(job.rejects, MemoryDestination)
    assert job.rejects is not job.destination
    assert job.checkpoint == Checkpoint("state/progress.json")
    assert job.budget == Budget(count=3, ratio=0.5)
    assert job.batching == Batching(max_records=100)
    assert job.retry == Retry(attempts=2, first_wait=1.0)
    assert job.workers == Workers(2)
    assert job.observers == (LogObserver(),)


def test_the_pipeline_of_a_file_runs(write):
    text = WHOLE.replace("timeout = 30\n", "").replace('[checkpoint]\npath = "state/progress.json"\n', "")
    pipeline = load_pipeline(write(text), ALLOW)
    assert pipeline.run().delivered == 2
    assert pipeline.job.destination.table().to_pydict() == {"id": ["a", "b"], "y": [2.0, 4.0]}


def test_a_host_that_is_ready_needs_no_parameters(write):
    text = """
    keep = {id = "string"}
    [source]
    type = "config_example:source"
    [host]
    type = "config_example:ready"
    [destination]
    type = "memory"
    [workers]
    count = 2
    kind = "thread"
    [side.monitor]
    type = "memory"
    """
    job = load_pipeline(write(text), ALLOW).job
    assert job.host.signature is not None if hasattr(job.host, "signature") else job.host.takes == "numpy"
    assert job.keep == {"id": pa.string()}
    assert job.workers == Workers(2, "thread")
    assert isinstance(job.side["monitor"], MemoryDestination)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'name = "doubles"',
            "nam = 1",
            r"unknown key 'nam' \(did you mean 'name'\?\); known: .*batching.*source",
        ),
        ('name = "doubles"', "name = 1", r"name: wanted a text, found a whole number 1"),
        ('keep = ["id"]', 'keep = "id"', r"keep: wanted a list of texts, found a text 'id'"),
        ('keep = ["id"]', "keep = [1]", r"keep\[0\]: wanted a text"),
        (
            'keep = ["id"]',
            'keep = {id = "strng"}',
            r"keep.id: wanted the name of an Arrow type .* found 'strng'",
        ),
        ("timeout = 30", 'timeout = "30"', r"timeout: wanted a number, found a text '30'"),
        ("timeout = 30", "timeout = true", r"timeout: wanted a number, found true or false True"),
        ("workers = 2", "workers = 2.5", r"workers: wanted a whole number"),
        ("workers = 2", "workers = 0", r"workers: wanted a count of 1 to 1,024"),
        ("workers = 2", "workers = 100_000_000", r"workers: wanted a count of 1 to 1,024"),
        ('require = "at-least-once"', 'require = "always"', r"require: wanted one of .*'always'"),
        (
            'takes = "numpy"',
            'taks = "numpy"',
            r"\[host\] function: unknown key 'taks' \(did you mean 'takes'\?\)",
        ),
        (
            'takes = "numpy"',
            'takes = "csv"',
            r"\[host\] function takes: wanted one of 'arrow', 'numpy', 'pandas'",
        ),
        ('outputs = {y = "double"}', "", r"\[host\] function: wanted a value for 'outputs', found none"),
        ("count = 3", 'count = "3"', r"\[budget\] count: wanted a whole number, found a text"),
        ("ratio = 0.5", "ration = 0.5", r"\[budget\]: unknown key 'ration' \(did you mean 'ratio'\?\)"),
        ("max_records = 100", "max_records = 0", r"batching: wanted positive sizes"),
        ("attempts = 2", "attempts = 0", r"retry: wanted 1 attempt .*found Retry\(attempts=0"),
        ("first_wait = 1", "first_wait = -1", r"retry: wanted .* waits of 0 seconds or more"),
        ("first_wait = 1", "first_wait = nan", r"retry: wanted .* waits of 0 seconds or more"),
        ('type = "function"', "", r"\[host\]: wanted type = .* which host it is, found none"),
        ('type = "function"', "type = 3", r"\[host\]: wanted type = .* found 3"),
        ("[rejects]\n", "[side]\nx = 1\n[rejects]\n", r"side.x: wanted a table, \[side.x\], found 1"),
        ("[rejects]\n", "[rejects]\n_outputs = {}\n", r"unknown key '_outputs'"),
        ('observers = ["log"]', 'observers = ["lgo"]', r"no observer is called 'lgo'"),
        ('observers = ["log"]', 'engine = "cluster"', r"no engine is called 'cluster'; installed: local"),
        ("[retry]", "[retry", r"wanted TOML, found something else: .*line"),
    ],
)
def test_what_is_wrong_is_named(write, old, new, message):
    assert old in WHOLE
    with pytest.raises(ConfigError, match=message):
        load_pipeline(write(WHOLE.replace(old, new)), ALLOW)


def test_a_file_that_is_no_text_may_be_a_model_that_was_not_saved_for_it(tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\x95")
    with pytest.raises(ConfigError, match=r"wanted TOML.*if this is a model, save it by mlinfer\.save"):
        load_pipeline(tmp_path / "model.pkl")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"wanted TOML.*if this is a model, save it by mlinfer\.save"):
        load_pipeline(tmp_path / "manifest.json")


PARTS_ALONE = {
    "source": 'type = "memory", data = { n = [1.0, 4.0] }',
    "host": 'type = "function", function = "nesting:half", takes = "numpy", inputs = { n = "double" }, '
    'outputs = { half = "double" }, version = "1"',
    "destination": 'type = "jsonl", path = "out.jsonl"',
}
CODE = """
import pyarrow.compute as pc

def half(n):
    return n / 2

def quarter(half):
    return half / 2

def doubled(records):
    return records.set_column(0, "n", pc.multiply(records["n"], 2))
"""


@pytest.fixture
def nesting(tmp_path, monkeypatch):
    """A function that loads a pipeline with one of its parts written otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nesting", raising=False)
    (tmp_path / "nesting.py").write_text(CODE)

    def loaded(allow=("half", "quarter", "doubled"), **parts):
        (tmp_path / "p.toml").write_text(
            'name = "nested"\n'
            + "".join(f"{key} = {{ {text} }}\n" for key, text in {**PARTS_ALONE, **parts}.items())
        )
        return load_pipeline(tmp_path / "p.toml", [f"nesting:{name}" for name in allow])

    return loaded


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_source_may_be_mapped(nesting):
    text = f'type = "mapped", source = {{ {PARTS_ALONE["source"]} }}, fn = "nesting:doubled", reads = ["n"]'
    nesting(source=text).run()
    assert lines("out.jsonl") == [{"half": 1.0}, {"half": 4.0}]
    with pytest.raises(ConfigError, match="nesting:doubled is code of yours"):
        nesting(source=text, allow=["half"])


def test_answers_may_be_selected_and_hosts_chained(nesting):
    second = (
        'type = "function", function = "nesting:quarter", takes = "numpy", inputs = { half = "double" }, '
        'outputs = { quarter = "double" }, version = "1"'
    )
    chain = f'type = "chain", hosts = [{{ {PARTS_ALONE["host"]} }}, {{ {second} }}]'
    nesting(host=f'type = "selected", host = {{ {chain} }}, answers = {{ fourth = "quarter" }}').run()
    assert lines("out.jsonl") == [{"fourth": 0.25}, {"fourth": 1.0}]


def test_answers_may_go_to_several_places(nesting):
    text = f'type = "tee", destinations = [{{ {PARTS_ALONE["destination"]} }}, {{ type = "csv", path = "out.csv" }}]'
    nesting(destination=text).run()
    assert lines("out.jsonl") == [{"half": 0.5}, {"half": 2.0}]
    assert Path("out.csv").read_text().splitlines() == ['"half"', "0.5", "2"]


@pytest.mark.parametrize(
    ("role", "text", "message"),
    [
        ("source", 'type = "mapped"', r"\[source\] mapped source: wanted a table, source = .*found none"),
        (
            "host",
            'type = "selected", host = "sklearn"',
            r"\[host\] selected host: wanted a table, .*found 'sklearn'",
        ),
        (
            "host",
            'type = "selected", host = { type = "function" }',
            r"\[host\] selected host function: wanted a value for",
        ),
        (
            "destination",
            'type = "tee", destinations = [{ type = "stdout" }]',
            r"tee destinations: wanted a list of two tables",
        ),
        (
            "destination",
            'type = "tee", first = 1',
            r"\[destination\] tee: unknown key 'first'; known: destinations",
        ),
        (
            "host",
            'type = "chain", hosts = [{ type = "onnx" }, { type = "onnx" }]',
            r"\[host\] chain hosts\[0\] onnx: wanted a value",
        ),
        ("host", 'type = "tee"', "no host is called 'tee'"),
    ],
)
def test_what_is_wrong_inside_of_a_wrapper_is_named(nesting, role, text, message):
    with pytest.raises(ConfigError, match=message):
        nesting(**{role: text})


def test_a_part_that_nobody_installed_lists_the_others(write):
    with pytest.raises(PluginNotFound, match=r"no destination is called 'kafka'; installed: .*memory"):
        load_pipeline(
            write(WHOLE.replace('[destination]\ntype = "memory"', '[destination]\ntype = "kafka"')), ALLOW
        )


def test_the_three_parts_must_be_there(write):
    with pytest.raises(ConfigError, match=r"wanted the tables .* found no \[host\], no \[destination\]"):
        load_pipeline(write('[source]\ntype = "memory"\n'))


@pytest.mark.parametrize(
    "allowed", [[], ["config_example"], ["config_example:"], ["config_example:doubl"], ["*"]]
)
def test_a_file_alone_runs_no_code(write, allowed):
    with pytest.raises(ConfigError, match=r"--allow config_example:source"):
        load_pipeline(write(WHOLE), allowed)
    assert "config_example" not in sys.modules


def test_what_one_key_may_name_is_not_allowed_elsewhere_by_module(write):
    with pytest.raises(ConfigError, match=r"--allow config_example:double"):
        load_pipeline(write(WHOLE), ["config_example:source"])


@pytest.mark.parametrize("text", ["a b:c", "os:", ":x", "os:system()", "..x:y", "os:__import__('x')"])
def test_what_is_no_module_and_attribute_is_refused(write, text):
    with pytest.raises(ConfigError, match='wanted code as "module:attr"'):
        load_pipeline(write(WHOLE.replace("config_example:double", text)), [*ALLOW, text])


def test_allowed_code_must_be_there_and_of_use(write):
    with pytest.raises(ConfigError, match=r"config_example:gone cannot be imported: AttributeError"):
        load_pipeline(write(WHOLE.replace(":double", ":gone")), [*ALLOW, "config_example:gone"])
    with pytest.raises(ConfigError, match=r"wanted a class or a part at config_example:number, found int"):
        load_pipeline(write(WHOLE.replace(":source", ":number")), ALLOW)


def test_a_file_that_is_too_large_or_missing_is_refused(write, tmp_path):
    path = write("")
    path.write_bytes(b"# " + b"x" * 2**20)
    with pytest.raises(ConfigError, match="1,048,576 bytes"):
        load_pipeline(path)
    with pytest.raises(ConfigError, match=r"nowhere.toml: .*No such file"):
        load_pipeline(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="directory"):
        load_pipeline(tmp_path)


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_it_is_a_pipeline_or_a_config_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "arbitrary.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"arbitrary\.toml"):
        load_pipeline(path)


@dataclass(frozen=True)
class Everything:
    path: str | Path
    columns: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    kind: Literal["a", "b"] | None = None
    schema: pa.Schema | None = None
    size: int | None = None
    ratio: float = 0.5
    unknown: "SomethingForTypeCheckersOnly" = None  # noqa: F821
    flag: bool = False


def not_allowed(text):
    raise AssertionError(text)


def test_values_become_what_the_fields_are_annotated_with():
    options = {
        "path": "x",
        "columns": ["a"],
        "names": ["n"],
        "kind": "b",
        "schema": {"c": "int64"},
        "ratio": 1,
        "size": 3,
    }
    made = make(Everything, options | {"unknown": [1]}, "[x]", not_allowed)
    assert made == Everything(
        "x", ("a",), frozenset({"n"}), "b", pa.schema([("c", pa.int64())]), 3, 1.0, unknown=[1]
    )
    assert isinstance(made.ratio, float)
    assert hash(made) if made.unknown is None else True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flag": 1}, "flag: wanted true or false, found a whole number 1"),
        ({"size": True}, "size: wanted a whole number, found true or false True"),
        ({"size": 1.0}, "size: wanted a whole number, found a number 1.0"),
        ({"kind": "c"}, "kind: wanted one of 'a', 'b', found a text 'c'"),
        ({"columns": "a"}, "columns: wanted a list of texts, found a text 'a'"),
        ({"schema": ["a"]}, "schema: wanted a table, found a list"),
        ({"path": 1}, "path: wanted a text or a path, found a whole number 1"),
    ],
)
def test_a_value_of_another_type_is_refused(options, message):
    with pytest.raises(ConfigError) as found:
        make(Everything, {"path": "x", **options}, "[x]", not_allowed)
    assert message in str(found.value)


def test_who_calls_a_model_a_path_is_told_what_it_is_called(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        'source = { type = "memory", data = { x = [1.0] } }\nhost = { type = "onnx", path = "m.onnx" }\n'
        'destination = { type = "memory" }\n'
    )
    with pytest.raises(ConfigError, match=r"unknown key 'path' \(did you mean 'model'\?\)"):
        load_pipeline(path)
