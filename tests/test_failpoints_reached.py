"""Every named place is reached in some run, and none of them once for each record."""

import ast
import json
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

import mlinfer
from mlinfer import Batch, DataSource, EndOfInput, InferencePipeline, RecordIds
from mlinfer._engine import Stop
from mlinfer._failpoints import PLACES, _active, arm
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    SqlDestination,
)
from mlinfer.sources import CsvSource, MemorySource

ROOT = Path(mlinfer.__file__).parent


@mlinfer.host(inputs={"x": "double"}, outputs={"y": "double"}, takes="numpy", version="1")
def double(x):
    return 2 * x


class Renewed(mlinfer.Host):
    """Its first model knows of a newer one."""

    @contextmanager
    def open(self):
        with double.open() as model, replace(double, version="2").open() as newer:
            yield Older(model, newer)


class Older:
    def __init__(self, model, newer):
        self.signature, self.infer, self.newer = model.signature, model.infer, lambda: newer


@dataclass(frozen=True)
class Queue(DataSource):
    """Acknowledges, and asks to be stopped after its first batch."""

    stop: Stop
    bounded = False
    resume = "acknowledge"

    def schema(self):
        return pa.schema([("x", pa.float64())])

    @contextmanager
    def open(self, partition, after, wanted):
        yield QueueReader(self.stop)


class QueueReader:
    def __init__(self, stop):
        self._stop, self._read = stop, False

    def read(self, max_records, timeout):
        if self._read:
            self._stop.ask("enough")
            raise EndOfInput
        self._read = True
        return Batch(pa.record_batch({"x": [1.0]}), "all", 1, RecordIds.of(pa.array(["a"])))

    def acknowledge(self, position):
        pass


def called():
    """The places that the source of mlinfer names, each with the files it is in."""
    found = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
                (name,) = (argument.value for argument in node.args)
                found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_the_registry_and_the_source_name_the_same_places():
    assert called().keys() == PLACES.keys()


@pytest.fixture
def hits():
    arm("; ".join(f"{name}=sleep(0)" for name in PLACES))
    yield lambda: {name for name, place in _active.items() if place.hits}
    arm("")


def test_each_place_is_reached(tmp_path, hits):
    (tmp_path / "in.csv").write_text("x\n1\nbad\n2\n")
    rejects = JsonLinesDestination(tmp_path / "rejects.jsonl")
    InferencePipeline(
        CsvSource(tmp_path / "in.csv"), double, CsvDestination(tmp_path / "out.csv"),
        name="p", rejects=rejects,
        budget=mlinfer.Budget(ratio=None),
    ).run()  # fmt: skip
    again = InferencePipeline(
        MemorySource({"x": [1.0]}), double, ParquetDestination(tmp_path / "out"), name="a"
    )
    again.run()
    again.run(from_start=True)
    InferencePipeline(MemorySource({"x": [1.0]}), Renewed(), MemoryDestination(), name="r").run()
    stop = Stop()
    InferencePipeline(Queue(stop), double, CsvDestination(tmp_path / "queue.csv"), name="q").run(stop=stop)
    served = InferencePipeline(
        MemorySource({"x": [1.0]}),
        double,
        SqlDestination(f"sqlite:///{tmp_path}/log.db", table="t"),
        name="s",
    )
    with served.serving() as server:
        body = json.dumps([{"x": 3.0}]).encode()
        asked = urllib.request.Request(f"{server.url}/predict", body, {"Content-Type": "application/json"})
        assert json.load(urllib.request.urlopen(asked)) == [{"y": 6.0}]
    assert PLACES.keys() - hits() == set()


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "sqlite"])
def test_every_destination_has_the_places_of_a_commit(kind, tmp_path, hits):
    destination = {
        "parquet": lambda: ParquetDestination(tmp_path / "out"),
        "jsonl": lambda: JsonLinesDestination(tmp_path / "out.jsonl"),
        "csv": lambda: CsvDestination(tmp_path / "out.csv"),
        "sqlite": lambda: SqlDestination(f"sqlite:///{tmp_path}/out.db", table="t"),
    }[kind]()
    InferencePipeline(MemorySource({"x": [1.0]}), double, destination, name="p").run()
    wanted = {
        "dest.begin",
        "dest.write.before",
        "dest.write.partial",
        "dest.commit.before",
        "dest.commit.after",
    }
    assert wanted <= hits()


def test_no_place_is_reached_once_a_record(hits):
    """An unarmed place costs some 30 ns: nothing, as long as there are a few to a batch and none to a record."""
    source, destination = MemorySource({"x": [1.0] * 50_000}), MemoryDestination()
    InferencePipeline(source, double, destination, name="p").run()
    assert hits()
    assert sum(place.hits for place in _active.values()) < 100
