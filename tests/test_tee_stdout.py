"""Several destinations for one output, and the standard output."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    Checkpoint,
    ConfigError,
    DataDestination,
    GuaranteeError,
    InferencePipeline,
    Progress,
    RecordErrors,
    Scope,
)
from mlinfer.destinations import (
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    StdoutDestination,
    Tee,
)
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

HOST = FunctionHost(lambda x: x * 2, {"x": pa.float64()}, {"y": pa.float64()}, "numpy", version="1")


class Strict(DataDestination):
    """Refuses some answers, when they are written or when they are committed."""

    keyed = True

    def __init__(self, refuses, when):
        self.refuses, self.when = set(refuses), when
        self.stored, self.buffer = [], []

    @contextmanager
    def open(self, schema, scope):
        yield self

    def write(self, batch):
        values = batch.records.column("y").to_pylist()
        if self.when == "write":
            self.refuse(values)
        self.buffer += values

    def commit(self, progress):
        buffer, self.buffer = self.buffer, []
        if self.when == "commit":
            self.refuse(buffer)
        self.stored += buffer

    def refuse(self, values):
        bad = [row for row, value in enumerate(values) if value in self.refuses]
        if bad:
            raise RecordErrors(bad, "constraint", "refused")


def test_everything_arrives_everywhere(tmp_path):
    first, second = MemoryDestination(), JsonLinesDestination(tmp_path / "a.jsonl")
    tee = Tee(first, second)
    InferencePipeline(MemorySource({"x": [1.0, 2.0]}), HOST, tee, name="p").run()
    assert first.table().column("y").to_pylist() == [2, 4]
    assert (tmp_path / "a.jsonl").read_text() == '{"y":2.0}\n{"y":4.0}\n'


def test_a_tee_promises_no_more_than_its_parts_together_can(tmp_path):
    keyed, transactional = Strict([], "write"), MemoryDestination()
    assert not Tee(transactional, MemoryDestination()).transactional
    assert Tee(keyed, Strict([], "write")).keyed
    assert not Tee(keyed, transactional).keyed
    with pytest.raises(ConfigError, match="wanted two destinations or more"):
        Tee(keyed)
    source, checkpoint = MemorySource({"x": [1.0]}), Checkpoint(tmp_path / "c")
    tee = Tee(transactional, MemoryDestination())
    with pytest.raises(GuaranteeError):
        InferencePipeline(source, HOST, tee, name="p", checkpoint=checkpoint, require="exactly-once").run()
    both = Tee(keyed, Strict([], "write"))
    InferencePipeline(source, HOST, both, name="p", checkpoint=checkpoint, require="exactly-once").run()
    InferencePipeline(source, HOST, both, name="p", checkpoint=checkpoint, require="exactly-once").run()
    assert [one.stored for one in both.destinations] == [[2], [2]]
    assert repr(Tee(JsonLinesDestination("a"), StdoutDestination())).startswith(
        "Tee(JsonLinesDestination(path='a'"
    )
    assert Tee(StdoutDestination(), transactional) == Tee(StdoutDestination(), transactional)


@pytest.mark.parametrize(
    "twice",
    [
        [StdoutDestination(), StdoutDestination()],
        [ParquetDestination("scores"), ParquetDestination("scores")],
        [MemoryDestination()] * 2,
        [StdoutDestination(), Tee(MemoryDestination(), StdoutDestination())],
    ],
)
def test_one_place_twice_is_refused(twice):
    with pytest.raises(ConfigError, match=r"Tee: wanted destinations that differ, found .* twice"):
        Tee(JsonLinesDestination("a"), *twice)


def test_one_folder_by_two_names_is_refused(tmp_path, monkeypatch):
    """Every record was there twice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    for other in ("./there", "link", tmp_path / "there"):
        tee = Tee(ParquetDestination("there"), MemoryDestination(), ParquetDestination(other))
        with pytest.raises(ConfigError, match=r"which are one place, where every record would come twice"):
            InferencePipeline(MemorySource({"x": [1.0]}), HOST, tee, name="p").run()
    tee = Tee(ParquetDestination("there"), Tee(MemoryDestination(), ParquetDestination("link")))
    with pytest.raises(ConfigError, match=r"which are one place, where every record would come twice"):
        InferencePipeline(MemorySource({"x": [1.0]}), HOST, tee, name="p").run()
    assert list((tmp_path / "there").iterdir()) == []
    tee = Tee(ParquetDestination("there"), ParquetDestination("elsewhere"))
    InferencePipeline(MemorySource({"x": [1.0]}), HOST, tee, name="p").run()
    assert {path.parent.name for path in tmp_path.rglob("*.parquet")} == {"there", "elsewhere"}


def test_destinations_of_somebody_else_that_cannot_be_compared_are_taken():
    @dataclass(frozen=True)
    class Weighing(JsonLinesDestination):
        weights: object = None

    tee = Tee(Weighing("a", weights=np.zeros(2)), Weighing("a", weights=np.ones(2)))
    assert [one.weights[0] for one in tee.destinations] == [0.0, 1.0]


@pytest.mark.parametrize("when", ["write", "commit"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_one_refuses_is_a_reject_and_nothing_is_written_twice(when, place):
    destinations = [Strict([], "write") for _ in range(3)]
    destinations[place] = Strict([4, 8], when)
    rejects = MemoryDestination()
    source = MemorySource({"x": [1.0, 2.0, 3.0, 4.0, 5.0]})
    InferencePipeline(
        source, HOST, Tee(*destinations), name="p", rejects=rejects, require="at-most-once"
    ).run()
    whole, rest = [2, 4, 6, 8, 10], [2, 6, 10]
    assert [one.stored for one in destinations] == [whole] * place + [rest] * (3 - place)
    assert sorted(json.loads(one)["y"] for one in rejects.table("rejects").column("record").to_pylist()) == [
        4,
        8,
    ]


def test_rejects_are_counted_over_all_that_is_held():
    strict = Strict([4, 10], "write")
    schema = pa.schema([("y", pa.float64())])
    with Tee(strict, Strict([], "write")).open(schema, Scope("p")) as writer:
        writer.write(Batch(pa.record_batch({"y": [2.0, 4.0]}), "all", None))
        writer.write(Batch(pa.record_batch({"y": [6.0, 8.0, 10.0]}), "all", None))
        with pytest.raises(RecordErrors) as errors:
            writer.commit(Progress())
    assert errors.value.rows == [1, 4]


# --- standard output -----------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
import pyarrow as pa
from mlinfer import ComponentError, InferencePipeline
from mlinfer.destinations import StdoutDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

host = FunctionHost(lambda x: x * 2, {"x": pa.float64()}, {"y": pa.float64()}, "numpy", version="1")
try:
    InferencePipeline(MemorySource({"x": [float(n) for n in range(int(sys.argv[1]))]}), host, StdoutDestination()).run()
except ComponentError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
"""


def test_answers_are_printed_as_json_lines(capsys):
    InferencePipeline(MemorySource({"x": [1.0, 2.5]}), HOST, StdoutDestination()).run()
    assert capsys.readouterr().out == '{"y":2.0}\n{"y":5.0}\n'


def test_a_reader_that_leaves_ends_the_run_with_a_word(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b'{"y":0.0}\n'
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 3
    assert errors == (
        "standard output: wanted somebody to read the answers, found that the reader has gone; the run ends here\n"
    )


@pytest.mark.parametrize("records", ["3", "100000"])
def test_a_full_disk_behind_the_standard_output_is_told(records):
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, records], stdout=full, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(full)
    assert (run.returncode, run.stderr) == (
        3,
        b"standard output: wanted to print, found No space left on device\n",
    )
