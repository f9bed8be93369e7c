"""Rejected records go through their pipeline once more: once, under their own ids, beside the runs of the pipeline."""

import csv
import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlinfer
from mlinfer import (
    Budget,
    ChangedError,
    Choice,
    ConfigError,
    InferencePipeline,
    RejectsError,
    Signature,
)
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    SqlDestination,
    StdoutDestination,
    Tee,
)
from mlinfer.sources import JsonLinesSource, MemorySource
from postgres import PostgresServer

INPUTS = {"x": "double", "name": "string", "blob": "binary"}
RECORDS = pa.table(
    {
        "x": [float(n) for n in range(40)],
        "name": [f"2013-10-{n % 28 + 1:02}" for n in range(40)],  # texts that a reader could take for dates
        "blob": [bytes([n, 255]) for n in range(40)],
    }
)
BAD = {3.0, 17.0, 39.0}
MAIN = {
    "sql": lambda: SqlDestination("sqlite:///out.db", table="main"),
    "jsonl": lambda: JsonLinesDestination("main.jsonl"),
    "csv": lambda: CsvDestination("main.csv"),
    "parquet": lambda: ParquetDestination("main"),
    "postgres": lambda: SqlDestination(os.environ["REPLAY_DATABASE"], table="main"),
}
REJECTS = {
    "sql": lambda: SqlDestination("sqlite:///out.db", table="rejects"),
    "keyed": lambda: SqlDestination("sqlite:///out.db", table="rejects", key="record_id"),
    "jsonl": lambda: JsonLinesDestination("rejects.jsonl"),
    "csv": lambda: CsvDestination("rejects.csv"),
    "parquet": lambda: ParquetDestination("rejects"),
    "postgres": lambda: SqlDestination(os.environ["REPLAY_DATABASE"], table="rejects"),
}
PAIRS = [
    *((main, main) for main in MAIN),
    ("sql", "keyed"), ("sql", "jsonl"), ("jsonl", "sql"), ("postgres", "csv"), ("parquet", "postgres"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with PostgresServer.running() as running:
        yield running


@pytest.fixture(autouse=True)
def database(request, monkeypatch):
    """A new one for every test that asks for it, by name, for the job in a process of its own finds it so, too."""
    if "postgres" in request.node.name:
        monkeypatch.setenv("REPLAY_DATABASE", request.getfixturevalue("server").database())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def host(bad=(), version="1"):
    """Doubles x, and cannot answer some of the records; its version stays the same, so a repair is no other model."""

    @mlinfer.host(inputs=INPUTS, outputs={"twice": "double", "size": "int64"}, version=version)
    def twice(records):
        numbers = records["x"].to_pylist()
        if rows := [row for row, x in enumerate(numbers) if x in bad]:
            raise mlinfer.RecordErrors(rows, "too_hard", "wanted an easier number")
        sizes = [len(blob) * 1000 + blob[0] for blob in records["blob"].to_pylist()]
        return {"twice": [2 * x for x in numbers], "size": sizes}

    return twice


def pipeline(main="sql", rejects="sql", bad=(), **more):
    place = REJECTS[rejects]() if isinstance(rejects, str) else rejects
    options = {"name": "p", "keep": ["name"], "rejects": place, "budget": Budget(ratio=1), **more}
    destination = options.pop("destination", None) or MAIN[main]()
    return InferencePipeline(
        options.pop("source", MemorySource(RECORDS)), options.pop("host", host(bad)), destination, **options
    )


def delivered(main="sql"):
    """The answers that are there, by another reader than mlinfer's."""
    if main == "sql":
        with closing(sqlite3.connect("out.db")) as connection:
            return sorted(connection.execute("SELECT twice, name, size FROM main").fetchall())
    if main == "postgres":
        with psycopg.connect(os.environ["REPLAY_DATABASE"]) as connection:
            return sorted(connection.execute("SELECT twice, name, size FROM main").fetchall())
    if main == "jsonl":
        rows = [json.loads(line) for line in Path("main.jsonl").read_text().splitlines()]
    elif main == "csv":
        with Path("main.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pq.read_table("main").to_pylist()
    return sorted((float(row["twice"]), row["name"], int(row["size"])) for row in rows)


EVERYTHING = [
    (2 * row["x"], row["name"], 2000 + row["blob"][0])
    for row in sorted(RECORDS.to_pylist(), key=lambda row: row["x"])
]


def names(table):
    return [name.rpartition("#")[2] for name in table["record_id"].to_pylist()]


@pytest.mark.parametrize(("main", "rejects"), PAIRS)
def test_a_replay_delivers_what_was_rejected_and_delivers_it_once(main, rejects):
    assert pipeline(main, rejects, BAD).run().rejected == 3
    assert names(pipeline(main, rejects).rejected()) == ["3", "17", "39"]
    report = pipeline(main, rejects).replay()
    assert (report.delivered, report.rejected) == (3, 0)
    assert delivered(main) == EVERYTHING
    assert pipeline(main, rejects).rejected().num_rows == 0
    again = pipeline(main, rejects).replay()
    assert (again.delivered, again.rejected) == (0, 0)
    run = pipeline(main, rejects).run()
    assert (run.delivered, run.rejected) == (
        0,
        0,
    )  # the replay has not moved the progress of the pipeline itself
    assert delivered(main) == EVERYTHING


@pytest.mark.parametrize(("main", "rejects"), PAIRS)
def test_what_is_rejected_again_is_listed_once_and_can_be_replayed_later(main, rejects):
    pipeline(main, rejects, BAD).run()
    report = pipeline(main, rejects, {17.0}).replay()
    assert (report.delivered, report.rejected) == (2, 1)
    found = pipeline(main, rejects).rejected()
    assert names(found) == ["17"]
    assert found["run"].to_pylist() == [report.run]
    assert pipeline(main, rejects).replay().delivered == 1
    assert delivered(main) == EVERYTHING


def test_the_guarantee_of_a_replay_is_computed_and_required_as_for_a_run():
    pipeline("sql", "sql", BAD).run()
    assert pipeline().replay().guarantee == "exactly-once"
    pipeline("sql", "jsonl", BAD, name="q", destination=SqlDestination("sqlite:///q.db", table="q")).run()
    other = {"name": "q", "destination": SqlDestination("sqlite:///q.db", table="q")}
    with pytest.raises(mlinfer.GuaranteeError, match="exactly-once"):
        pipeline("sql", "jsonl", require="exactly-once", **other).replay()
    assert pipeline("sql", "jsonl", **other).replay().guarantee == "at-least-once"


def test_a_choice_leaves_the_other_rejects_open():
    table = RECORDS.set_column(0, "x", pa.array([None if n == 5 else float(n) for n in range(40)]))
    before = datetime.now(UTC)
    pipeline(bad=BAD, source=MemorySource(table)).run()
    p = pipeline()
    assert names(p.rejected(Choice(kind="missing_value"))) == ["5"]
    assert names(p.rejected(Choice(stage="infer"))) == ["3", "17", "39"]
    assert names(p.rejected(Choice(stage="infer", limit=2))) == ["3", "17"]
    assert p.rejected(Choice(until=before)).num_rows == 0
    assert p.rejected(Choice(since=before)).num_rows == 4
    assert p.rejected(Choice(since=before + timedelta(days=1))).num_rows == 0
    assert p.replay(Choice(stage="infer", limit=2)).delivered == 2
    assert sorted(names(p.rejected())) == ["39", "5"]
    assert p.replay(Choice(kind="too_hard")).delivered == 1
    assert names(p.rejected()) == ["5"]


@pytest.mark.parametrize("wrong", [{"stage": "inference"}, {"stage": "replay"}, {"limit": -1}])
def test_a_choice_that_nothing_fits_is_refused(wrong):
    with pytest.raises(ConfigError, match="wanted"):
        Choice(**wrong)


def test_replay_has_no_number_of_the_open_rejects_of_another_pipeline():
    """Two pipelines may write to one table of rejects."""
    shared = SqlDestination("sqlite:///shared.db", table="rejects", if_exists="append")
    pipeline("sql", bad=BAD, rejects=shared).run()
    pipeline("jsonl", bad={1.0}, rejects=shared, name="other").run()
    assert names(pipeline("jsonl", rejects=shared, name="other").rejected()) == ["1"]
    assert pipeline("sql", rejects=shared).replay().delivered == 3
    assert names(pipeline("jsonl", rejects=shared, name="other").rejected()) == ["1"]


def test_from_start_forgets_replays_too():
    pipeline(bad=BAD).run()
    pipeline().replay()
    report = pipeline(bad=BAD).run(from_start=True)
    assert (report.delivered, report.rejected) == (37, 3)
    assert names(pipeline().rejected()) == ["3", "17", "39"]
    assert len(delivered()) == 37


def test_an_answer_that_the_destination_refused_goes_there_again_and_the_model_is_not_asked():
    pipeline(source=MemorySource(RECORDS.slice(0, 0))).run()
    with closing(sqlite3.connect("out.db", isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER small BEFORE INSERT ON main WHEN NEW.twice > 70 BEGIN SELECT RAISE(ABORT, 'too large'); END"
        )
        assert pipeline().run().reasons == {("write", "refused"): 4}
        assert pipeline(budget=Budget(ratio=1)).rejected(Choice(stage="write")).num_rows == 4
        with pytest.raises(RejectsError, match="every record"):
            pipeline().replay()
        assert pipeline().rejected().num_rows == 4
        connection.execute("DROP TRIGGER small")

    @mlinfer.host(inputs=INPUTS, outputs={"twice": "double", "size": "int64"}, version="1")
    def twice(records):
        raise AssertionError(records)

    assert pipeline(host=twice).replay().delivered == 4
    assert delivered() == EVERYTHING


def test_a_record_of_which_only_bytes_were_kept_stays_open_and_is_said_to(tmp_path):
    lines = [json.dumps({"x": float(n), "name": "n"}) for n in range(3)]
    Path("in.jsonl").write_text("\n".join([*lines, "{broken"]))
    source = JsonLinesSource("in.jsonl")
    options = {"source": source, "keep": {"name": "string"}, "host": in_text()}
    pipeline(**options).run()
    with pytest.raises(ConfigError, match="only bytes were kept"):
        pipeline(**options).replay()
    assert pipeline(**options).rejected()["raw"].to_pylist() == [b"{broken"]


def test_a_changed_model_needs_leave_and_never_wipes_what_was_delivered():
    pipeline(bad=BAD).run()
    for on_change in ("stop", "restart"):
        with pytest.raises(ChangedError, match="continue"):
            pipeline(host=host(version="2"), on_change=on_change).replay()
    assert len(delivered()) == 37
    assert pipeline(host=host(version="2"), on_change="continue").replay().delivered == 3
    assert delivered() == EVERYTHING


def test_a_model_with_a_memory_is_refused():
    class Counting:
        signature = Signature(pa.schema([("x", pa.float64())]), pa.schema([("n", pa.int64())]), digest="c")

        def __init__(self):
            self.n = 0

        def infer(self, records):
            self.n += len(records)
            return pa.record_batch({"n": [self.n] * len(records)})

        def snapshot(self):
            return str(self.n).encode()

        def restore(self, state):
            self.n = int(state)

    class Host(mlinfer.Host):
        @contextmanager
        def open(self):
            yield Counting()

    with pytest.raises(ConfigError, match="memory"):
        pipeline(host=Host(), keep=()).replay()


@pytest.mark.parametrize(
    ("rejects", "words"),
    [
        (None, "rejects="),
        (StdoutDestination(), "own tools"),
        (Tee(MemoryDestination(), MemoryDestination()), "own tools"),
    ],
)
def test_a_place_that_cannot_be_read_back_is_refused(rejects, words):
    with pytest.raises(ConfigError, match=words):
        pipeline(rejects=rejects, destination=MemoryDestination()).replay()


def test_a_replay_works_beside_a_run_and_does_not_take_over_from_it():
    """The run is stopped in the middle of a batch, a replay delivers, and the run goes on as if nothing had been."""
    pipeline(bad=BAD).run()
    inside, go_on = threading.Event(), threading.Event()

    @mlinfer.host(inputs=INPUTS, outputs={"twice": "double", "size": "int64"}, version="1")
    def twice(records):
        inside.set()
        assert go_on.wait(60)
        return {"twice": [0.0] * len(records), "size": [0] * len(records)}

    more = MemorySource(pa.table({"x": [-1.0, -2.0], "name": ["a", "b"], "blob": [b"a", b"b"]}))
    reports = []
    thread = threading.Thread(target=lambda: reports.append(pipeline(host=twice, source=more).run()))
    thread.start()
    assert inside.wait(60)
    assert pipeline().replay().delivered == 3
    go_on.set()
    thread.join(60)
    assert [report.delivered for report in reports] == [2]
    assert len(delivered()) == 42


# --- killed in the middle -------------------------------------------------------------------------------------------

JOB = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_replay
test_replay.split({main!r}, {rejects!r}).replay()
"""


def split(main, rejects, bad=()):
    """The records in four files: each is a partition, and each ends with a commit."""
    kinds = {"name": "string"}
    return pipeline(main, rejects, bad, source=JsonLinesSource("in/*.jsonl"), keep=kinds, host=in_text(bad))


def in_text(bad=()):
    @mlinfer.host(
        inputs={"x": "double", "name": "string"}, outputs={"twice": "double", "size": "int64"}, version="1"
    )
    def twice(records):
        numbers = records["x"].to_pylist()
        if rows := [row for row, x in enumerate(numbers) if x in bad]:
            raise mlinfer.RecordErrors(rows, "too_hard", "wanted an easier number")
        return {"twice": [2 * x for x in numbers], "size": [1] * len(numbers)}

    return twice


@pytest.mark.parametrize(
    ("main", "rejects"),
    [("sql", "sql"), ("jsonl", "jsonl"), ("parquet", "parquet"), ("sql", "csv"), ("postgres", "postgres")],
)
@pytest.mark.parametrize("place", ["dest.commit.before", "dest.commit.after", "rejects.write.before"])
def test_a_replay_that_is_killed_and_run_again_delivers_once(main, rejects, place, tmp_path):
    Path("in").mkdir()
    for part in range(4):
        rows = [{"x": float(n), "name": f"n{n}"} for n in range(10 * part, 10 * part + 10)]
        Path(f"in/{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad = {float(n) for n in range(0, 40, 3)}
    split(main, rejects, bad).run()
    job = JOB.format(tests=str(Path(__file__).parent), main=main, rejects=rejects)
    environment = {**os.environ, "MLINFER_TEST": "1", "MLINFER_FAILPOINTS": f"{place}=kill@2"}
    killed = subprocess.run(
        [sys.executable, "-c", job], env=environment, check=False, timeout=100, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr
    split(main, rejects).replay()
    assert [twice for twice, *_ in delivered(main)] == [2.0 * n for n in range(40)]
    assert split(main, rejects).rejected().num_rows == 0


# --- numbers that JSON cannot say ----------------------------------------------------------------------------------------


def test_a_number_that_json_cannot_say_is_replayed_as_it_was():
    odd = [1.5, math.inf, -math.inf, math.nan, None]
    lists = [[one, 2.0] for one in odd]
    table = pa.table({"x": pa.array(odd), "v": pa.array(lists, pa.list_(pa.float64(), 2))})

    def told(broken):
        @mlinfer.host(
            inputs=pa.schema([pa.field("x", pa.float64()), pa.field("v", pa.list_(pa.float64(), 2))]),
            outputs={"said": "string"}, takes="arrow", version="1",
        )  # fmt: skip
        def host(records):
            if broken:
                raise mlinfer.RecordErrors(list(range(len(records))), "down", "wanted a model that is up")
            return {"said": [f"{row['x']} {row['v'][0]}" for row in records.to_pylist()]}

        return host

    places = {
        "destination": MemoryDestination(),
        "rejects": MemoryDestination(),
        "source": MemorySource(table),
    }
    wanted = pipeline(**places, host=told(broken=False), keep=[]).infer(table)["said"].to_pylist()
    database = {**places, "destination": SqlDestination("sqlite:///out.db", table="main"), "rejects": "sql"}
    assert pipeline(**database, host=told(broken=True), keep=[]).run().rejected == 5
    assert pipeline(**database, host=told(broken=False), keep=[]).replay().delivered == 5
    with closing(sqlite3.connect("out.db")) as connection:
        said = [row[0] for row in connection.execute("SELECT said FROM main")]
        records = [row[0] for row in connection.execute("SELECT record FROM rejects WHERE stage = 'infer'")]
    assert said == wanted
    assert json.loads(records[1]) == {"x": "Infinity", "v": ["Infinity", 2.0]}
