"""Old rejects are removed from files for good, the others stay, and a crash in between loses and brings back nothing."""

import csv
import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlinfer import REJECTS, Batch, FencedError, Progress, RecordIds, Scope, durable
from mlinfer._rejects import Rejected
from mlinfer.destinations import CsvDestination, JsonLinesDestination, ParquetDestination

SCOPE = Scope("p", "rejects")
OLD, NEW = datetime(2020, 1, 1, tzinfo=UTC), datetime(2026, 5, 6, 7, 8, 9, 1234, tzinfo=UTC)
BEFORE = datetime(2025, 1, 1, tzinfo=UTC)
TEXT_FILES = {"r.jsonl": JsonLinesDestination, "r.csv": CsvDestination}


def rejected(names, when):
    """Envelopes whose texts look like ends of lines and cells."""
    ids = RecordIds.of(pa.array([f'{name}"\n,' for name in names], pa.string()))
    group = Rejected("all", "infer", ids, ["model_error"] * len(names), ['said "no",\nand'] * len(names))
    return Batch(group.envelopes("m", "run", when, pipeline="p"), "all", None, ids)


def write(destination, *commits):
    with destination.open(REJECTS, SCOPE) as writer:
        for number, (names, when) in enumerate(commits):
            writer.write(rejected(names, when))
            writer.commit(Progress({"all": number}))


def ids(path):
    """The ids of what is there, read without mlinfer."""
    if path.is_dir():
        found = [
            row
            for part in sorted(path.glob("*.parquet"))
            for row in pq.read_table(part)["record_id"].to_pylist()
        ]
    elif path.suffix == ".csv":
        with path.open(newline="") as file:
            found = [row["record_id"] for row in csv.DictReader(file)]
    else:
        found = [json.loads(line)["record_id"] for line in path.read_text().splitlines()]
    return "".join(name.removesuffix('"\n,') for name in found)


@pytest.mark.parametrize("name", TEXT_FILES)
def test_old_lines_go_and_the_others_stay_as_they_are(tmp_path, name):
    path, recipe = tmp_path / name, TEXT_FILES[name](tmp_path / name)
    write(recipe, ("ab", OLD), ("c", NEW), ("d", OLD), ("e", NEW))
    lines = path.read_text()
    assert recipe.prune(SCOPE, BEFORE) == 3
    assert ids(path) == "ce"
    assert [b.num_rows for b in recipe.records(SCOPE)] == [2]
    assert all(line in lines for line in path.read_text().splitlines())
    assert recipe.prune(SCOPE, BEFORE) == 0
    with recipe.open(REJECTS, SCOPE) as writer:
        assert writer.committed().positions == {"all": 3}
    write(recipe, ("f", NEW))
    assert ids(path) == "cef"
    assert recipe.prune(SCOPE, datetime.now(UTC)) == 3
    write(recipe, ("g", NEW))
    assert ids(path) == "g"


@pytest.mark.parametrize("name", TEXT_FILES)
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_purge_that_dies_has_removed_all_or_nothing(tmp_path, monkeypatch, name, steps):
    path, recipe = tmp_path / name, TEXT_FILES[name](tmp_path / name)
    write(recipe, ("ab", OLD), ("c", NEW), ("d", OLD))
    calls, replace = [], durable.replace

    def dying(place, content):
        calls.append(place)
        if len(calls) > steps:
            (place.parent / f".{place.name}.123.tmp").write_bytes(content[:9])
            raise KeyboardInterrupt
        replace(place, content)

    monkeypatch.setattr(durable, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        recipe.prune(SCOPE, BEFORE)
    monkeypatch.undo()
    done = steps == 2
    assert sum(b.num_rows for b in recipe.records(SCOPE)) == (1 if done else 4)
    write(recipe, ("e", NEW))
    assert ids(path) == ("ce" if done else "abcde")
    assert recipe.prune(SCOPE, BEFORE) == (0 if done else 3)
    assert ids(path) == "ce"


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_purge_waits_for_no_run_and_leaves_what_others_wrote(tmp_path, name):
    path, recipe = tmp_path / name, TEXT_FILES[name](tmp_path / name, if_exists="append")
    assert recipe.prune(SCOPE, BEFORE) == 0
    assert not list(tmp_path.iterdir())
    theirs = ",".join(REJECTS.names) + "\n" if name == "r.csv" else '{"theirs": 1}\n'
    path.write_text(theirs)
    write(recipe, ("ab", OLD))
    with recipe.open(REJECTS, SCOPE), pytest.raises(FencedError, match="that holds it"):
        recipe.prune(SCOPE, BEFORE)
    assert recipe.prune(SCOPE, BEFORE) == 2
    assert path.read_text() == theirs
    write(recipe, ("c", NEW))
    assert path.read_text().startswith(theirs)


def test_old_parts_go_and_a_part_with_a_newer_reject_stays(tmp_path):
    path, recipe = tmp_path / "r", ParquetDestination(tmp_path / "r")
    assert recipe.prune(SCOPE, BEFORE) == 0
    write(recipe, ("ab", OLD), ("c", NEW))
    write(recipe, ("d", OLD), ("e", NEW))
    assert recipe.prune(SCOPE, BEFORE) == 3
    assert ids(path) == "ce"
    with recipe.open(REJECTS, SCOPE) as writer:
        assert (writer.committed().positions, writer.committed().epoch) == ({"all": 1}, 3)


def test_when_all_parts_go_an_empty_one_remembers_the_latest_run(tmp_path):
    path, recipe = tmp_path / "r", ParquetDestination(tmp_path / "r")
    write(recipe, ("ab", OLD), ("c", OLD))
    write(recipe, ("d", OLD))
    assert recipe.prune(SCOPE, BEFORE) == 4
    assert (ids(path), len(list(path.glob("*.parquet"))), len(list(path.iterdir()))) == ("", 1, 1)
    assert recipe.prune(SCOPE, BEFORE) == 0
    with recipe.open(REJECTS, SCOPE) as writer:
        assert (writer.committed().positions, writer.committed().epoch) == ({"all": 0}, 3)
    write(recipe, ("e", NEW))
    assert ids(path) == "e"


@pytest.mark.parametrize("steps", range(4))
def test_a_purge_of_parts_that_dies_has_removed_the_oldest(tmp_path, monkeypatch, steps):
    path, recipe = tmp_path / "r", ParquetDestination(tmp_path / "r")
    write(recipe, ("a", OLD), ("b", OLD), ("c", OLD))
    calls = []

    def dying(function):
        def act(*arguments):
            calls.append(function)
            if len(calls) > steps:
                raise KeyboardInterrupt
            return function(*arguments)

        return act

    for name in ("publish", "remove"):
        monkeypatch.setattr(durable, name, dying(getattr(durable, name)))
    with pytest.raises(KeyboardInterrupt):
        recipe.prune(SCOPE, BEFORE)
    monkeypatch.undo()
    assert ids(path) == "abc"[max(0, steps - 1) :]
    with recipe.open(REJECTS, SCOPE) as writer:
        assert writer.committed().positions == {"all": 2}
    assert recipe.prune(SCOPE, BEFORE) == 3 - max(0, steps - 1)
    assert ids(path) == ""
