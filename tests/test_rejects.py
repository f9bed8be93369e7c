"""The rejects of a pipeline at the command line, the table of stages, and what a place of rejects that fails does."""

import json
import os
import re
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import mlinfer
from mlinfer import (
    REJECTS,
    STAGES,
    Budget,
    ComponentError,
    ConfigError,
    InferencePipeline,
    RecordIds,
    RejectsError,
)
from mlinfer._cli import main
from mlinfer._rejects import Rejected
from mlinfer.destinations import MemoryDestination, SqlDestination
from mlinfer.sources import MemorySource

DOCS = Path(__file__).parents[1] / "docs/rejects.md"
TOML = """
name = "p"
budget = { ratio = 1.0 }
source = { type = "jsonl", path = "in.jsonl" }
host = { type = "function", function = "halving_for_rejects:half", inputs = { x = "double" }, outputs = { y = "double" }, version = "1" }
destination = { type = "sql", url = "sqlite:///out.db", table = "main" }
rejects = { type = "sql", url = "sqlite:///out.db", table = "rejects" }
"""
CODE = """
from pathlib import Path
def half(records):
    if not Path("mended").exists() and any(x >= 30 for x in records["x"].to_pylist()):
        raise ValueError("too large, and said in a sentence that is long enough to be cut in a terminal of 80 columns")
    return {"y": [x / 2 for x in records["x"].to_pylist()]}
"""
ALLOW = ["--allow", "halving_for_rejects:half"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("halving_for_rejects.py").write_text(CODE)
    Path("pipeline.toml").write_text(TOML)
    Path("in.jsonl").write_text("".join(json.dumps({"x": float(n)}) + "\n" for n in range(60)))
    path = [*sys.path, str(tmp_path)]
    sys.modules.pop("halving_for_rejects", None)
    monkeypatch.setattr(sys, "path", path)
    assert main(["run", "pipeline.toml", "--no-progress", *ALLOW]) == 0
    yield tmp_path
    sys.modules.pop("halving_for_rejects", None)


def rejects(verb, *arguments):
    return main(["rejects", verb, "pipeline.toml", *ALLOW, *arguments])


def query(statement):
    with closing(sqlite3.connect("out.db", isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def test_ls_says_how_many_there_are_and_fits_a_terminal_of_80_columns(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    capsys.readouterr()
    assert rejects("ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["30 rejects", "  30 x model_error (infer)"]
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("... and 10 more")
    assert rejects("ls", "--count", "--since", "1h") == 0
    assert capsys.readouterr().out.splitlines() == lines[:2]
    assert rejects("ls", "--until", "2020-01-01") == 0
    assert capsys.readouterr().out == "0 rejects\n"


def test_ls_shows_more_of_a_message_where_there_is_no_terminal(folder, capsys):
    capsys.readouterr()
    assert rejects("ls") == 0
    assert "too large, and said in a sentence" in capsys.readouterr().out


def test_ls_as_json_has_every_column_of_every_reject(folder, capsys):
    capsys.readouterr()
    assert rejects("ls", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(row["record"]["x"] for row in rows) == [float(n) for n in range(30, 60)]
    assert list(rows[0]) == REJECTS.names
    assert {row["pipeline"] for row in rows} == {"p"}
    assert all(row["rejected_at"].endswith("+00:00") for row in rows)


def test_replay_tells_its_guarantee_and_what_is_still_open(folder, capsys):
    Path("mended").touch()
    capsys.readouterr()
    assert rejects("replay", "--limit", "10") == 0
    out = capsys.readouterr().out
    assert out.startswith("10 delivered, 0 rejected, exactly-once")
    assert out.splitlines()[-1] == "  open     20 rejects"
    assert rejects("replay") == 0
    assert query("SELECT count(*), count(DISTINCT y) FROM main") == [(60, 60)]


def test_a_replay_in_which_everything_fails_again_ends_with_3(folder, capsys):
    assert rejects("replay") == 3
    assert "every record of the run was rejected, 30 of 30" in capsys.readouterr().err


def test_purge_asks_and_removes_what_is_old_of_this_pipeline(folder, capsys):
    query("UPDATE rejects SET rejected_at = '2020-01-01T00:00:00.000000Z' WHERE rowid <= 12")
    query("UPDATE rejects SET pipeline = 'another' WHERE rowid <= 2")
    assert rejects("purge", "--older-than", "30d") == 2
    assert "--yes" in capsys.readouterr().err
    assert query("SELECT count(*) FROM rejects") == [(30,)]
    assert rejects("purge", "--older-than", "30d", "--yes") == 0
    assert "10 rows removed" in capsys.readouterr().out
    assert query("SELECT count(*) FROM rejects") == [(20,)]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_file_of_rejects_that_is_gone_or_cut_is_missed_by_name(folder, capsys, kind):
    text = Path("pipeline.toml").read_text()
    place = 'rejects = { type = "sql", url = "sqlite:///out.db", table = "rejects" }'
    text = text.replace(place, f'rejects = {{ type = "{kind}", path = "r.{kind}" }}').replace(
        "out.db", "2.db"
    )
    Path("pipeline.toml").write_text(text)
    assert main(["run", "pipeline.toml", "--no-progress", *ALLOW]) == 0
    for spoil in (lambda file: file.write_bytes(file.read_bytes()[:-9]), Path.unlink):
        spoil(Path(f"r.{kind}"))
        capsys.readouterr()
        for verb in (["ls"], ["replay"], ["purge", "--older-than", "30d", "--yes"]):
            assert rejects(*verb) == 2
            assert re.search(
                rf"r.{kind}: wanted the \d+ bytes .*found .*or remove \.r\.{kind}\.progress, too",
                capsys.readouterr().err,
            )
    Path(f".r.{kind}.progress").unlink()
    assert rejects("ls") == 0
    assert "0 rejects" in capsys.readouterr().out


def test_purge_refuses_a_place_without_memory(folder, capsys):
    text = Path("pipeline.toml").read_text()
    place = 'rejects = { type = "sql", url = "sqlite:///out.db", table = "rejects" }'
    assert place in text
    Path("pipeline.toml").write_text(text.replace(place, 'rejects = { type = "stdout" }'))
    assert rejects("purge", "--older-than", "30d", "--yes") == 2
    assert "cannot read back" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--since", "soon"], ["--limit", "-1"], ["--limit", "x"]])
def test_a_wrong_choice_at_the_command_line_ends_with_2(folder, wrong):
    with pytest.raises(SystemExit) as ended:
        rejects("ls", *wrong)
    assert ended.value.code == 2


# --- stages and kinds ------------------------------------------------------------------------------------------------


def test_the_documentation_lists_the_stages_and_kinds_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE)
    found = {
        stage: (meaning, re.findall(r"`(\w+)`", kinds), "the part's own" in kinds)
        for stage, meaning, kinds in rows
    }
    assert found == {name: (one.meaning, list(one.kinds), one.more) for name, one in STAGES.items()}
    assert [stage for stage, *_ in rows] == list(STAGES)


@pytest.mark.parametrize(("stage", "kind"), [("unknown", "x"), ("conform", "x"), ("answer", "missing_value")])
def test_a_stage_or_kind_outside_the_table_is_refused(stage, kind):
    with pytest.raises(ValueError, match="wanted one of"):
        Rejected("a", stage, RecordIds.ordinals("a", 0, 1), [kind], ["why"])


# --- a place that fails, and budgets ---------------------------------------------------------------------------------


@mlinfer.host(inputs={"x": "double"}, outputs={"y": "double"}, takes="numpy", version="1")
def positive(x):
    if (x < 0).any():
        raise ValueError("negative")
    return x


def of(numbers, place, **more):
    return InferencePipeline(
        MemorySource({"x": numbers}), positive, MemoryDestination(), name="p", rejects=place, **more
    )


def test_a_table_of_rejects_that_is_dropped_under_the_run_ends_it(tmp_path):
    path = tmp_path / "r.db"

    @mlinfer.host(inputs={"x": "double"}, outputs={"y": "double"}, takes="numpy", version="1")
    def drops(x):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("DROP TABLE IF EXISTS rejects")
        return [float("nan") if one < 0 else one for one in x]

    p = InferencePipeline(
        MemorySource({"x": [-1.0, 2.0, 3.0]}), drops, MemoryDestination(), name="p",
        rejects=SqlDestination(f"sqlite:///{path}", table="rejects"),
    )  # fmt: skip
    with pytest.raises((ComponentError, ConfigError), match="rejects"):
        p.run()
    assert p.job.destination.table().num_rows == 0


FULL = """
import sys; sys.path.insert(0, {tests!r})
import test_rejects
from mlinfer import Budget
from mlinfer.destinations import JsonLinesDestination
test_rejects.of([1.0] + [float("nan")] * 3000, JsonLinesDestination("r.jsonl"), budget=Budget(ratio=1)).run()
"""


def test_a_full_disk_below_the_rejects_ends_the_run(tmp_path):
    """The kernel refuses files beyond 64 KiB, as a full disk would."""
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(tests=str(Path(__file__).parent))], cwd=tmp_path, capture_output=True,
        text=True, timeout=50, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "ComponentError: r.jsonl" in done.stderr


def test_every_record_rejected_is_an_error_even_in_a_short_run():
    place = MemoryDestination()
    with pytest.raises(RejectsError, match="every record of the run was rejected, 2 of 2"):
        of([-1.0, -2.0], place, budget=Budget(ratio=None)).run()
    assert place.table("rejects").num_rows == 2  # they are kept, and the progress has passed them
    assert of([-1.0, -2.0], MemoryDestination(), budget=Budget(ratio=1)).run().rejected == 2
    assert of([-1.0, 2.0], MemoryDestination()).run().delivered == 1


def test_more_than_five_percent_of_the_last_thousand_is_too_many():
    share = [-1.0 if n % 20 == 0 else 1.0 for n in range(1000)]
    assert of(share, MemoryDestination()).run().rejected == 50
    share[1] = -1.0
    with pytest.raises(RejectsError, match=r"at most 5.0% rejects, found 5.1% of the last 1,000"):
        of(share, MemoryDestination()).run()
