"""The demo tells the truth: what it prints is what the database holds, and a second time nothing is repeated."""

import io
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from mlinfer import ConfigError
from mlinfer._cli import main
from mlinfer._config import load_pipeline
from mlinfer._demo import _kill, _story, demo
from mlinfer._demo._folder import Folder
from mlinfer._demo._model import shipped


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The demo, run once for all tests of this file; the folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
            assert main(["demo"]) == 0
    return folder, out.getvalue()


def rows(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def flights(name):
    with shipped(name) as path:
        return pq.read_table(path, columns=["flight_id", "dep_delay"])


def number(text, pattern):
    return [int(found.replace(",", "")) for found in re.search(pattern, text).groups()]


def test_every_flight_is_scored_once_or_rejected_once(told):
    folder, _ = told
    database = folder / "mlinfer-demo/scores.db"
    wanted = [
        row for name in ("2013-09", "2013-10", "2013-11") for row in flights(f"{name}.parquet").to_pylist()
    ]
    scored = {row["flight_id"] for row in wanted if row["dep_delay"] is not None}
    refused = {row["flight_id"] for row in wanted if row["dep_delay"] is None}
    assert sorted(rows(database, "SELECT flight_id FROM scores")) == sorted((one,) for one in scored)
    assert sorted(rows(database, "SELECT record_id FROM rejects")) == sorted((one,) for one in refused)


def test_the_scores_are_the_models(told):
    folder, _ = told
    import numpy as np

    from mlinfer.hosts import SklearnHost

    table = pq.read_table(folder / "mlinfer-demo/input/2013-10.parquet")
    table = table.filter(table["dep_delay"].is_valid())
    features = table.select(["dep_delay", "distance", "sched_dep_minute"])
    with SklearnHost(folder / "mlinfer-demo/late-flights.mlinfer").open() as model:
        inputs = features.cast(model.signature.inputs).combine_chunks().to_batches()[0]
        wanted = model.infer(inputs).column("y_proba_late").to_numpy()
    found = dict(rows(folder / "mlinfer-demo/scores.db", "SELECT flight_id, y_proba_late FROM scores"))
    np.testing.assert_allclose([found[one] for one in table["flight_id"].to_pylist()], wanted, rtol=1e-9)


def test_the_numbers_it_tells_are_those_of_the_files(told):
    _, out = told
    delivered, rejected = number(out, r"3  Run it.*?\n\s+([\d,]+) delivered, (\d+) rejected, exactly-once")
    assert delivered + rejected == len(flights("2013-09.parquet")) + len(flights("2013-10.parquet"))
    assert re.search(r"4  Run it again.*\n   0 delivered: all were there already", out)
    records, again, refused = number(out, r"holds ([\d,]+) flights: ([\d,]+) delivered \+ ([\d,]+) rejected")
    assert records == again + refused == len(flights("2013-11.parquet"))


def test_the_model_is_confirmed_on_flights_that_it_has_not_seen(told):
    from sklearn.metrics import roc_auc_score

    from mlinfer._demo._model import FEATURES, flights
    from mlinfer.hosts import SklearnHost

    folder, out = told
    value, low, high = map(float, re.search(r"roc_auc +(0\.\d+) +(0\.\d+) to (0\.\d+)", out).groups())
    assert 0.8 < low < value < high < 1
    known = flights()
    known = known.filter(known["late"].is_valid()).sort_by("time")
    unseen = known.slice(known.num_rows - number(out, r"unseen +([\d,]+) records")[0])
    with SklearnHost(folder / "mlinfer-demo/late-flights.mlinfer").open() as model:
        inputs = unseen.select(FEATURES).cast(model.signature.inputs).combine_chunks().to_batches()[0]
        scores = model.infer(inputs).column("y_proba_late").to_pylist()
    wanted = roc_auc_score([late == "late" for late in unseen["late"].to_pylist()], scores)
    assert value == pytest.approx(wanted, abs=0.001)


def test_a_killed_run_ends_up_equal_to_an_undisturbed_one(told):
    folder, out = told
    killed, total = number(out, r"killed     when ([\d,]+) of ([\d,]+) scores were there")
    assert 0 < killed < total
    assert "equal, row for row, to 9 digits" in out
    one, other = folder / "mlinfer-demo/scores.db", folder / "mlinfer-demo/kill-test/scores.db"
    statement = "SELECT * FROM scores ORDER BY flight_id"
    there, here = rows(one, statement), rows(other, statement)
    assert [row[:4] for row in there] == [row[:4] for row in here]
    # the last digits of a score depend on how many records the model saw at once
    assert [score for row in there for score in row[4:]] == pytest.approx(
        [score for row in here for score in row[4:]], rel=1e-9
    )


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ([("b", 0.1), ("a", 0.1 + 0.2), ("c", None)], True),
        ([("a", 0.3), ("b", 0.1)], False),
        ([("a", 0.3), ("b", 0.1), ("b", 0.1)], False),
        ([("a", 0.3), ("b", 0.1), ("c", 0.0)], False),
        ([("a", 0.3001), ("b", 0.1), ("c", None)], False),
        ([("a", 0.3), ("b", 0.1), ("d", None)], False),
        ([("a", None), ("b", 0.1), ("c", None)], False),
    ],
)
def test_tables_are_compared_but_for_the_last_digits(other, equal):
    assert _kill.same([("a", 0.3), ("b", 0.1), ("c", None)], other) is equal
    assert _kill.same(other, [("a", 0.3), ("b", 0.1), ("c", None)]) is equal


def test_a_run_that_was_over_before_it_was_killed_is_run_anew(told, monkeypatch, capsys):
    folder, _ = told
    late = iter([5.0])  # whoever is to kill it gets no moment to look before that
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(next(late, seconds)))
    monkeypatch.setattr(_kill, "time", clock)
    monkeypatch.chdir(folder)
    _story._show_kill(Folder(Path("mlinfer-demo")))
    out = capsys.readouterr().out
    killed, total = number(out, r"killed     when ([\d,]+) of ([\d,]+) scores were there")
    assert 0 < killed < total
    assert "equal, row for row" in out


def test_it_looks_good_at_80_columns(told):
    _, out = told
    assert [line for line in out.splitlines() if len(line) > 80 or line != line.rstrip()] == []
    assert not [char for char in out if not (char.isprintable() or char == "\n")]


def test_its_pipeline_runs_from_the_command_line_and_takes_one_more_month(told, monkeypatch, capsys):
    folder, _ = told
    monkeypatch.chdir(folder)
    toml = "mlinfer-demo/pipeline.toml"
    assert main(["run", toml, "--no-progress"]) == 0
    assert "0 delivered: all were there already" in capsys.readouterr().out
    before = rows("mlinfer-demo/scores.db", "SELECT count(*) FROM scores")[0][0]
    month = flights("2013-12.parquet")
    (folder / "mlinfer-demo/next/2013-12.parquet").rename(folder / "mlinfer-demo/input/2013-12.parquet")
    assert main(["run", toml, "--no-progress"]) == 0
    after = rows("mlinfer-demo/scores.db", "SELECT count(*) FROM scores")[0][0]
    assert after - before == len(month) - month["dep_delay"].null_count


def test_a_second_demo_in_the_folder_goes_on_and_repeats_nothing(told, monkeypatch, capsys):
    folder, _ = told
    monkeypatch.chdir(folder)
    database = "mlinfer-demo/scores.db"
    before = rows(database, "SELECT flight_id, y_proba_late FROM scores ORDER BY 1")
    monkeypatch.setattr("mlinfer._demo._story._show_kill", lambda folder: None)
    demo_again = ["demo"]
    assert main(demo_again) == 0
    out = capsys.readouterr().out
    assert "where an earlier demo ended" in out
    assert rows(database, "SELECT flight_id, y_proba_late FROM scores ORDER BY 1") == before
    assert main([*demo_again, "--force"]) == 0
    assert "6,957 delivered, 80 rejected" in capsys.readouterr().out


def test_its_folder_may_be_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Folder(tmp_path / "a place" / "flights")
    assert place.prepare(force=False) is False
    assert place.make_model().records == {"train": 16_495, "calibration": 2_357, "test": 4_712}
    assert load_pipeline(place.pipeline).check().guarantee.level.name == "EXACTLY_ONCE"


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_somebody_elses_is_left_alone(tmp_path, force):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    (tmp_path / "pipeline.toml").write_text('name = "mine"')
    with pytest.raises(ConfigError, match="found something else; choose another --folder"):
        demo(tmp_path, force=force)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipeline.toml", "thesis.txt"]


def test_force_removes_what_the_demo_has_made_and_nothing_else(tmp_path):
    place = Folder(tmp_path / "demo")
    place.prepare(force=False)
    (place.path / "notes.txt").write_text("mine")
    (place.path / "input/extra.parquet").write_text("a file of the demo's input")
    place.prepare(force=True)
    assert (place.path / "notes.txt").read_text() == "mine"
    assert not (place.path / "input/extra.parquet").exists()


@pytest.mark.parametrize("name", ['quo"te', "star*", "back\\slash", "new\nline", "hash#", "query?", "[a]"])
def test_a_folder_name_that_would_break_the_pipeline_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="wanted a folder name without"):
        Folder(tmp_path / name).prepare(force=False)


def test_it_needs_the_core_dependencies_only(told):
    code = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"pandas", "polars", "orjson", "prometheus_client", "sqlalchemy"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from mlinfer._cli import main
sys.exit(main(["demo", "--folder", "bare"]))
"""
    folder, _ = told
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=150, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "equal, row for row" in found.stdout


def test_force_in_a_new_folder_is_no_error(tmp_path):
    assert Folder(tmp_path / "new").prepare(force=True) is False
    assert (tmp_path / "new/pipeline.toml").exists()
