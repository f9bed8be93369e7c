"""A change of model never mixes two models in one output, wherever the run that changes it is killed."""

import csv
import json
import os
import sqlite3
from contextlib import closing, suppress
from threading import Barrier, Lock, Semaphore

import polars as pl
import pytest

from mlinfer import Budget, ChangedError, InferencePipeline, RecordErrors, Retry, TransientError
from mlinfer import _failpoints as failpoints
from mlinfer.destinations import CsvDestination, JsonLinesDestination, ParquetDestination, SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import JsonLinesSource

COUNT = 40
PARTS = "abcd"
"""Two lanes may commit what each of them has delivered in one piece, and then each goes on to another file: two commits at least."""


class Killed(BaseException):
    """What a test's failpoint raises: nothing handles it."""


class Kill:
    def __init__(self, at):
        self.left = at

    def hit(self, dice):
        self.left -= 1
        if self.left == 0:
            raise Killed


class Meet:
    """Lets the lanes open their first partitions together: one that comes late would find all of them taken."""

    def __init__(self, lanes):
        self._all, self._come = Barrier(lanes), Semaphore(lanes)

    def hit(self, dice):
        if self._come.acquire(blocking=False):
            self._all.wait(60)


@pytest.fixture
def kill(monkeypatch):
    def at(name, hit):
        monkeypatch.setattr(failpoints, "_active", {name: Kill(hit)} if hit else {})

    return at


def host(version, answer="y"):
    return FunctionHost(lambda x: int(version) * 1000 + x, {"x": "float64"}, {answer: "float64"}, takes="numpy", version=version)  # fmt: skip


def in_table(folder):
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return [tuple(row) for row in database.execute("SELECT * FROM answers ORDER BY rowid")]


def in_parts(folder):
    while True:
        files = sorted((folder / "out").glob("*.parquet"))
        with suppress(FileNotFoundError):  # taken away since it was listed, by another thread: one lists anew
            return [row for file in files for row in pl.read_parquet(file).rows()]


def in_cells(folder):
    with (folder / "out.csv").open(newline="") as file:
        return [(int(row["id"]), float(next(reversed(row.values())))) for row in csv.DictReader(file)]


def in_lines(folder):
    return [tuple(json.loads(line).values()) for line in (folder / "out.jsonl").read_text().splitlines()]


class Sql(SqlDestination):
    commit_seconds = 0.0


class Parquet(ParquetDestination):
    commit_seconds = 0.0


class JsonLines(JsonLinesDestination):
    commit_seconds = 0.0


class Csv(CsvDestination):
    commit_seconds = 0.0


OUTPUTS = {
    "sqlite": (lambda folder: Sql(f"sqlite:///{folder}/out.db", "answers"), in_table),
    "parquet": (lambda folder: Parquet(folder / "out"), in_parts),
    "jsonl": (lambda folder: JsonLines(folder / "out.jsonl"), in_lines),
    "csv": (lambda folder: Csv(folder / "out.csv"), in_cells),
}
HITS_OF_ANEW = dict(zip((make for make, _ in OUTPUTS.values()), (0, 2, 1, 1), strict=True))
each_output = pytest.mark.parametrize(("make", "read"), OUTPUTS.values(), ids=OUTPUTS)


def pipeline(folder, make, model, **more):
    for part in PARTS:
        text = "".join(json.dumps({"id": n, "x": float(n)}) + "\n" for n in range(COUNT // len(PARTS)))
        (folder / f"{part}.jsonl").write_text(text)
    more = {"keep": ["id"]} | more
    return InferencePipeline(
        JsonLinesSource(folder / f"[{PARTS}].jsonl"), model, make(folder), name="p", **more
    )


def of_model(version):
    return sorted((n, version * 1000.0 + n) for n in range(COUNT // len(PARTS)) for _ in PARTS)


@each_output
@pytest.mark.parametrize("hit", [1, 2])
@pytest.mark.parametrize(
    "place", ["dest.write.before", "dest.begin", "dest.anew", "dest.commit.before", "dest.commit.after"]
)
def test_a_restart_that_is_killed_never_mixes_two_models(tmp_path, make, read, kill, place, hit):  # noqa: PLR0917 - fixtures
    pipeline(tmp_path, make, host("1")).run()
    assert sorted(read(tmp_path)) == of_model(1)
    if place == "dest.anew" and hit > HITS_OF_ANEW[make]:
        pytest.skip("a table goes with its transaction, a text file is cut once")
    kill(place, hit)
    failpoints._active["source.open"] = Meet(min(os.cpu_count() or 1, len(PARTS)))
    with pytest.raises(Killed):
        pipeline(tmp_path, make, host("2"), on_change="restart", workers=1).run()
    found = read(tmp_path)
    assert len({int(y // 1000) for _, y in found}) <= 1, "a reader saw answers of two models"
    kill(place, 0)
    pipeline(tmp_path, make, host("2"), on_change="restart").run()
    assert sorted(read(tmp_path)) == of_model(2)


PLACES = "dest.begin dest.anew dest.publish dest.write.partial progress.write.tmp progress.fsync progress.rename dest.commit.before dest.commit.after".split()


class Look:
    """What a test's failpoint calls instead of killing."""

    def __init__(self, look):
        self._look = look

    def hit(self, dice):
        self._look()


@each_output
def test_who_reads_while_a_restart_goes_on_sees_the_answers_of_one_model(tmp_path, make, read, monkeypatch):
    """Old answers become fewer, then new ones more: never both, and never old ones again."""
    pipeline(tmp_path, make, host("1")).run()
    seen, one_after_the_other = [], Lock()  # two lanes look, and what was seen first is to be said first

    def look():
        with one_after_the_other:
            found = read(tmp_path)
            versions = {int(y // 1000) for _, y in found}
            assert len(versions) <= 1, f"a reader saw answers of the models {versions}"
            seen.append((*versions, len(found)) if found else ())

    monkeypatch.setattr(failpoints, "_active", dict.fromkeys(PLACES, Look(look)))
    pipeline(tmp_path, make, host("2"), on_change="restart", workers=1).run()
    old, new = [[one[1] for one in seen if one and one[0] == version] for version in (1, 2)]
    assert old == sorted(old, reverse=True)
    assert old[0] == COUNT
    assert new == sorted(new)
    assert new[-1] == COUNT
    assert [one[0] for one in seen if one] == [1] * len(old) + [2] * len(new)


def refusing(version, bad):
    def answers(x):
        if rows := [row for row, one in enumerate(x) if one == bad]:
            raise RecordErrors(rows, "too_hard", "wanted an easier number")
        return int(version) * 1000 + x

    return FunctionHost(answers, {"x": "float64"}, {"y": "float64"}, takes="numpy", version=version)


APART = {
    "sqlite": lambda folder: Sql(f"sqlite:///{folder}/rejects.db", "rejects"),
    "parquet": lambda folder: Parquet(folder / "rejects"),
    "jsonl": lambda folder: JsonLines(folder / "rejects.jsonl"),
}


@each_output
@pytest.mark.parametrize("apart", APART.values(), ids=APART)
@pytest.mark.parametrize(("place", "back"), [("dest.commit.before", "1"), ("dest.commit.after", "2")])
def test_a_restart_that_is_killed_loses_no_reject(tmp_path, make, read, kill, apart, place, back):  # noqa: PLR0917 - fixtures
    """Rejects in a place of their own begin anew before the answers do: the old ones had gone, whose records nobody had answered."""

    def made(version, **more):
        bad = 3.0 if version == "1" else 5.0
        options = {"rejects": apart(tmp_path), "budget": Budget(ratio=1), **more}
        return pipeline(tmp_path, make, refusing(version, bad), **options)

    made("1").run()
    kill(place, 1)
    with pytest.raises(Killed):
        made("2", on_change="restart").run()
    kill(place, 0)
    again = made(back, on_change="restart")
    again.run()
    bad = 3 if back == "1" else 5
    assert sorted(read(tmp_path)) == [one for one in of_model(int(back)) if one[0] != bad]
    found = again.rejected()["record"].to_pylist()
    assert [json.loads(one)["x"] for one in found] == [bad] * len(PARTS)  # one in each file
    assert again.run().delivered == 0


class Passing(Kill):
    def hit(self, dice):
        self.left -= 1
        if self.left == 0:
            raise TransientError("for a moment")


@each_output
@pytest.mark.parametrize("apart", APART.values(), ids=APART)
def test_a_restart_whose_first_commit_fails_for_a_moment_goes_on(tmp_path, make, read, apart, monkeypatch):  # noqa: PLR0917 - fixtures
    """Its own mark that it begins anew was taken for that of a run that had died, without an end."""

    def made(version, **more):
        options = {
            "rejects": apart(tmp_path),
            "budget": Budget(ratio=1),
            "retry": Retry(first_wait=0.001),
            **more,
        }
        return pipeline(tmp_path, make, refusing(version, float(version)), **options)

    made("1").run()
    for version, place in (("2", "dest.commit.before"), ("3", "source.read.before")):
        monkeypatch.setattr(failpoints, "_active", {place: Passing(1)})
        again = made(version, on_change="restart")
        again.run()
        assert sorted(read(tmp_path)) == [one for one in of_model(int(version)) if one[0] != int(version)]
        told = again.rejected()["record"].to_pylist()
        assert {json.loads(one)["x"] for one in told} == {float(version)}
    assert again.run().delivered == 0


def test_a_replay_waits_for_a_restart_that_was_killed(tmp_path, kill):
    """It would take what it finds for the rejects of the answers that are there."""
    make, read = OUTPUTS["jsonl"]
    options = {"rejects": APART["parquet"](tmp_path), "budget": Budget(ratio=1), "workers": 1}
    pipeline(tmp_path, make, refusing("1", 3.0), **options).run()
    kill("dest.commit.before", 1)
    with pytest.raises(Killed):
        pipeline(tmp_path, make, refusing("2", 5.0), **options, on_change="restart").run()
    kill("dest.commit.before", 0)
    mended = pipeline(tmp_path, make, host("1"), **options)
    with pytest.raises(
        ChangedError, match="a run has begun anew and was interrupted; run the pipeline first"
    ):
        mended.replay()
    mended.run()
    assert mended.replay().delivered == 0
    assert sorted(read(tmp_path)) == of_model(1)


@each_output
def test_a_restart_replaces_answers_that_have_other_columns(tmp_path, make, read):
    pipeline(tmp_path, make, host("1")).run()
    with pytest.raises(
        ChangedError, match=r"version was '1', is '2'; answers was 'y: double .*is 'z: double"
    ):
        pipeline(tmp_path, make, host("2", "z")).run()
    assert sorted(read(tmp_path)) == of_model(1)
    assert pipeline(tmp_path, make, host("2", "z"), on_change="restart").run().delivered == COUNT
    assert sorted(read(tmp_path)) == of_model(2)


@each_output
def test_the_old_answers_stay_until_the_new_model_has_given_some(tmp_path, make, read):
    def broken(x):
        raise ValueError("no")

    pipeline(tmp_path, make, host("1")).run()
    failing = FunctionHost(broken, {"x": "float64"}, {"y": "float64"}, takes="numpy", version="2")
    with pytest.raises(Exception, match="no place for them"):
        pipeline(tmp_path, make, failing, on_change="restart").run()
    assert sorted(read(tmp_path)) == of_model(1)


@each_output
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"keep": ["id", "x"]}, "keep was 'id: int64', is 'id: int64, x: double'"),
        ({"lineage": ["record_id"]}, "lineage was none, is 'record_id'"),
    ],
    ids=["keep", "lineage"],
)
def test_a_change_of_columns_is_refused_by_its_name(tmp_path, make, read, changed, told):  # noqa: PLR0917 - fixtures
    pipeline(tmp_path, make, host("1")).run()
    with pytest.raises(ChangedError) as caught:
        pipeline(tmp_path, make, host("1"), **changed).run()
    assert told in str(caught.value)
    assert sorted(read(tmp_path)) == of_model(1)


@each_output
def test_another_source_is_delivered_beside_the_first(tmp_path, make, read):
    pipeline(tmp_path, make, host("1")).run()
    (tmp_path / "other.jsonl").write_text('{"id": 99, "x": 99.0}\n')
    made = InferencePipeline(JsonLinesSource(tmp_path / "other.jsonl"), host("1"), make(tmp_path), name="p", keep=["id"])  # fmt: skip
    assert made.run().delivered == 1
    assert sorted(read(tmp_path)) == [*of_model(1), (99, 1099.0)]
