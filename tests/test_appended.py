"""A file that grows with its progress beside it: what is committed survives, what is not is cut off, nobody else writes."""

import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    ChangedError,
    ComponentError,
    ConfigError,
    FencedError,
    InferencePipeline,
    Progress,
    Scope,
    durable,
)
from mlinfer.destinations import CsvDestination, JsonLinesDestination
from mlinfer.destinations._appended import Sidecar, sidecar_of
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

SCHEMA = pa.schema([("x", pa.int64())])
SCOPE = Scope("p", run="one")


def batch(*values):
    return Batch(pa.record_batch({"x": pa.array(values, pa.int64())}), "all", None)


def deliver(path, *values, scope=SCOPE, position=None, **options):
    """Write and commit in one run; what the run before had committed."""
    with JsonLinesDestination(path, **options).open(SCHEMA, scope) as writer:
        before = writer.committed()
        writer.write(batch(*values))
        writer.commit(Progress({"all": position}))
    return before


def numbers(path):
    return [json.loads(line)["x"] for line in path.read_text().splitlines()]


# --- runs one after the other --------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_the_last_one_ended_under_a_newer_epoch(tmp_path):
    path = tmp_path / "new" / "folder" / "a.jsonl"
    assert deliver(path, 1, 2, position=2) == Progress(epoch=1)
    assert deliver(path, 3, position=3) == Progress({"all": 2}, epoch=2)
    assert numbers(path) == [1, 2, 3]
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert sorted(file.name for file in path.parent.iterdir()) == [
        ".a.jsonl.lock",
        ".a.jsonl.progress",
        "a.jsonl",
    ]


def test_what_was_not_committed_is_cut_off(tmp_path):
    path = tmp_path / "a.jsonl"
    deliver(path, 1)
    with JsonLinesDestination(path).open(SCHEMA, SCOPE) as writer:
        writer.write(batch(2))
    with path.open("ab") as file:
        file.write(b'{"x":3}\n{"x"')
    deliver(path, 4)
    assert numbers(path) == [1, 4]


def test_a_fresh_run_replaces_what_this_pipeline_wrote_and_nothing_else(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 0}')
    deliver(path, 1, position=1, if_exists="append")
    deliver(path, 2, if_exists="append")
    assert numbers(path) == [0, 1, 2]
    assert deliver(path, 3, scope=replace(SCOPE, fresh=True), if_exists="append") == Progress(epoch=3)
    assert numbers(path) == [0, 3]


@pytest.mark.parametrize(("mode", "expected"), [("append", [0, 1]), ("replace", [1])])
def test_a_file_of_other_origin_is_left_alone_unless_told_otherwise(mode, expected, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 0}\n')
    for scope in (SCOPE, replace(SCOPE, read_only=True)):
        with pytest.raises(ConfigError, match="found one that something else wrote"):
            deliver(path, 1, scope=scope)
    assert path.read_text() == '{"x": 0}\n'
    deliver(path, 1, if_exists=mode)
    assert numbers(path) == expected


def test_another_pipeline_is_a_stranger(tmp_path):
    path = tmp_path / "a.jsonl"
    deliver(path, 1)
    with pytest.raises(ConfigError, match=r"found one that pipeline 'p' \(main\) wrote"):
        deliver(path, 2, scope=Scope("q"))
    deliver(path, 2, scope=Scope("q"), if_exists="replace")
    assert numbers(path) == [2]


def test_two_pipelines_cannot_take_turns_and_forget_what_they_have_delivered(tmp_path):
    path = tmp_path / "a.jsonl"
    deliver(path, 1, position=1, if_exists="append")
    with pytest.raises(
        ConfigError, match=r"pipeline 'p' \(main\) wrote; choose another file, or if_exists='replace'"
    ):
        deliver(path, 2, scope=Scope("q"), if_exists="append")
    assert deliver(path, 3, if_exists="append").positions
    assert numbers(path) == [1, 3]


def test_two_outputs_of_one_pipeline_cannot_share_a_file(tmp_path):
    destination = JsonLinesDestination(tmp_path / "a.jsonl")
    with (
        destination.open(SCHEMA, SCOPE),
        pytest.raises(ConfigError, match="'main' of this pipeline goes there"),
    ):
        destination.open(SCHEMA, SCOPE.of("rejects")).__enter__()


def test_another_schema_is_refused_unless_the_run_begins_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    deliver(path, 1)
    other = pa.schema([("x", pa.string())])
    with pytest.raises(ConfigError, match=r"wanted the columns x \(string\), found x \(int64\)"):
        JsonLinesDestination(path).open(other, SCOPE).__enter__()
    with JsonLinesDestination(path).open(other, replace(SCOPE, fresh=True)) as writer:
        assert writer.committed() == Progress(epoch=2)
        assert path.read_bytes() == b'{"x":1}\n'  # until the first commit
        writer.commit(Progress())
    assert path.read_bytes() == b""


def test_looking_creates_nothing(tmp_path):
    path = tmp_path / "folder" / "a.jsonl"
    with JsonLinesDestination(path).open(SCHEMA, replace(SCOPE, read_only=True)) as writer:
        assert writer.committed() == Progress()
    with CsvDestination(path).open(SCHEMA, replace(SCOPE, read_only=True)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_or_a_device_is_no_file(tmp_path):
    for path in (tmp_path, Path("/dev/full")):
        with pytest.raises(ConfigError, match="wanted the name of a file"):
            deliver(path, 1)


# --- one writer ----------------------------------------------------------------------------------------------------------


def test_a_second_run_is_told_who_holds_the_file(tmp_path):
    destination = JsonLinesDestination(tmp_path / "a.jsonl")
    who = f"found run one, process {os.getpid()} that holds it"
    with destination.open(SCHEMA, SCOPE), pytest.raises(FencedError, match=who):
        destination.open(SCHEMA, replace(SCOPE, run="two")).__enter__()
    with destination.open(SCHEMA, replace(SCOPE, run="two")):
        pass


def test_a_run_reopens_under_its_own_epoch_only(tmp_path):
    path = tmp_path / "a.jsonl"
    deliver(path, 1)
    assert deliver(path, 2, scope=replace(SCOPE, epoch=1)).epoch == 1
    deliver(path, 3)
    with pytest.raises(FencedError, match="another run of pipeline 'p' has taken over"):
        deliver(path, 4, scope=replace(SCOPE, epoch=1))
    assert numbers(path) == [1, 2, 3]


def test_a_lock_ends_with_its_block(tmp_path):
    path = tmp_path / "thing"
    with (
        durable.locked(path, "thing", "a"),
        pytest.raises(FencedError, match=r"thing .*/thing: wanted to be its only user"),
    ):
        durable.locked(path, "thing", "b").__enter__()
    with durable.locked(path, "thing", "b"):
        assert (tmp_path / ".thing.lock").read_text() == f"run b, process {os.getpid()}"


# --- damage --------------------------------------------------------------------------------------------------------------


def test_a_file_that_lost_committed_records_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    deliver(path, 1, 2)
    whole = path.read_bytes()
    for rest in (whole[:-1], b""):
        path.write_bytes(rest)
        with pytest.raises(
            ChangedError, match=f"wanted the {len(whole)} bytes that were committed, found {len(rest)}"
        ):
            deliver(path, 3)
    path.unlink()
    with pytest.raises(ChangedError):
        deliver(path, 3)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"# note\n"])
def test_a_file_that_was_edited_is_not_cut_in_the_middle_of_a_record(tmp_path, mark):
    """An editor has put a byte order mark in front: the end of what was committed is elsewhere now."""
    path = tmp_path / "a.jsonl"
    deliver(path, 1, 2)
    edited = mark + path.read_bytes()
    path.write_bytes(edited)
    with pytest.raises(ChangedError, match=r"found that no record ends there.*put the file back"):
        deliver(path, 3)
    assert path.read_bytes() == edited


def test_every_damage_to_the_sidecar_is_noticed():
    sidecar = Sidecar("p", "main", (("x", "int64"),), 16, 0, Progress({"all": 2}, {"all": b"s"}, "f", 3))
    whole = sidecar.to_bytes()
    place = Path("sidecar")
    assert Sidecar.from_bytes(whole, place) == sidecar
    for cut in range(len(whole)):
        with pytest.raises(ChangedError):
            Sidecar.from_bytes(whole[:cut], place)
    for at in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            try:
                assert Sidecar.from_bytes(bytes(damaged), place) == sidecar
            except ChangedError:
                continue


def test_a_newer_format_is_refused_with_advice(tmp_path):
    path = tmp_path / "a.jsonl"
    deliver(path, 1)
    body = json.loads(sidecar_of(path).read_text())["appended"] | {"format": 2}
    sidecar_of(path).write_text(durable.Envelope("appended", 2, "").seal(body))
    with pytest.raises(ChangedError, match="a newer mlinfer wrote it; upgrade mlinfer"):
        deliver(path, 2)


def test_a_write_that_fails_is_told_and_nothing_of_it_counts(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    deliver(path, 1)
    with JsonLinesDestination(path).open(SCHEMA, SCOPE) as writer:
        writer.write(batch(2))
        full = OSError(28, "No space left on device")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full))
            with pytest.raises(
                ComponentError, match=r"a\.jsonl: wanted to write, found No space left on device"
            ):
                writer.commit(Progress())
        with pytest.raises(ComponentError, match="No space left on device"):
            writer.commit(Progress())
    deliver(path, 3)
    assert numbers(path) == [1, 3]


# --- crashes -------------------------------------------------------------------------------------------------------------

RECORDS = 40_000
PROGRAM = """
import resource, sys
import mlinfer
from pathlib import Path
from mlinfer import ComponentError, InferencePipeline
from mlinfer.destinations import CsvDestination, JsonLinesDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import CsvSource
import pyarrow as pa

folder, limit = Path(sys.argv[1]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
out = {"csv": CsvDestination(folder / "out.csv"), "jsonl": JsonLinesDestination(folder / "out.jsonl")}[sys.argv[2]]
host = FunctionHost(lambda x: x * 2, {"x": pa.float64()}, {"y": pa.float64()}, "numpy", version="1")
try:
    InferencePipeline(CsvSource(folder / "in"), host, out, name="p", keep=["id"], require="exactly-once").run()
except ComponentError as error:
    sys.exit(f"ComponentError: {error}")
"""


def run(folder, kind, *, failpoints="", limit=0):
    environment = {**os.environ, "MLINFER_TEST": "1", "MLINFER_FAILPOINTS": failpoints}
    command = [sys.executable, "-c", PROGRAM, str(folder), kind, str(limit)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for part in range(4):
        ids = range(part * RECORDS // 4, (part + 1) * RECORDS // 4)
        (folder / f"{part}.csv").write_text("id,x\n" + "".join(f"{n},{n / 8}\n" for n in ids))
    return folder


def check_whole(folder, kind):
    """Every answer once, in the order of its file; read by hand."""
    lines = (folder / f"out.{kind}").read_text().splitlines()
    if kind == "csv":
        assert lines.pop(0) == '"id","y"'
        found = {int(name): float(y) for name, y in (line.split(",") for line in lines)}
    else:
        found = {row["id"]: row["y"] for row in map(json.loads, lines)}
    assert len(lines) == RECORDS
    assert found == {n: n / 4 for n in range(RECORDS)}


@pytest.mark.parametrize(
    ("kind", "failpoint"),
    [
        ("jsonl", "dest.write.partial=kill@2"),
        ("jsonl", "progress.fsync=kill@3"),
        ("jsonl", "dest.commit.after=kill@1"),
        ("csv", "progress.rename=kill@3"),
    ],
)
def test_a_run_killed_at_any_step_is_finished_by_the_next_one(kind, failpoint, inputs, tmp_path):
    (tmp_path / "in").symlink_to(inputs)
    assert run(tmp_path, kind, failpoints=failpoint).returncode == -signal.SIGKILL
    assert run(tmp_path, kind).returncode == 0
    check_whole(tmp_path, kind)
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_full_disk_ends_the_run_with_its_name_and_the_next_run_finishes_it(inputs, tmp_path):
    (tmp_path / "in").symlink_to(inputs)
    failed = run(tmp_path, "jsonl", limit=500_000)
    assert failed.returncode == 1
    assert "out.jsonl: wanted to write, found File too large" in failed.stderr
    assert run(tmp_path, "jsonl").returncode == 0
    check_whole(tmp_path, "jsonl")


def test_starting_over_replaces_the_answers(tmp_path):
    out = tmp_path / "out.jsonl"
    host = FunctionHost(lambda x: x + 1, {"x": pa.int64()}, {"y": pa.int64()}, "numpy", version="1")
    pipeline = InferencePipeline(MemorySource({"x": [1, 2]}), host, JsonLinesDestination(out), name="p")
    pipeline.run()
    pipeline.run(from_start=True)
    assert out.read_text() == '{"y":2}\n{"y":3}\n'


# --- progress that is gone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("if_exists", ["fail", "append"])
def test_a_file_that_has_lost_its_progress_is_not_written_again(tmp_path, if_exists):
    path = tmp_path / "a.jsonl"
    deliver(path, 1, 2, if_exists=if_exists)
    sidecar_of(path).unlink()
    for scope in (SCOPE, replace(SCOPE, read_only=True), replace(SCOPE, fresh=True), SCOPE):
        with pytest.raises(
            ChangedError, match=r"found none, though mlinfer has written here: .*restore it .*replace"
        ):
            deliver(path, 1, 2, scope=scope, if_exists=if_exists)
        assert numbers(path) == [1, 2]
    deliver(path, 3, if_exists="replace")
    deliver(path, 4, if_exists=if_exists)
    assert numbers(path) == [3, 4]


def test_a_refused_file_of_others_may_still_be_appended_to(tmp_path):
    """The first refusal has made a lock file, too: that is no sign of lost progress."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n')
    with pytest.raises(ConfigError, match="something else wrote"):
        deliver(path, 2)
    deliver(path, 2, if_exists="append")
    assert numbers(path) == [1, 2]
    path.unlink()
    sidecar_of(path).unlink()
    deliver(path, 3)
    assert numbers(path) == [3]


# --- an output that holds nothing is nobody's ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [JsonLinesDestination, CsvDestination])
@pytest.mark.parametrize("other", [Scope("q"), Scope("p", "rejects")])
def test_a_file_whose_records_were_dropped_is_anybodys(tmp_path, kind, other):
    path = tmp_path / "a.txt"

    def write(*values, scope, progress):
        with kind(path).open(SCHEMA, scope) as writer:
            if values:
                writer.write(batch(*values))
            writer.commit(progress)

    write(1, 2, scope=SCOPE, progress=Progress({"all": 2}, fingerprint="f"))
    with pytest.raises(ConfigError, match=r"found .*(that pipeline 'p'|goes there)"):
        write(3, scope=other, progress=Progress())
    write(scope=replace(SCOPE, fresh=True), progress=Progress())  # as `mlinfer state reset` does
    with kind(path).open(SCHEMA, replace(other, read_only=True)):
        pass
    write(3, scope=other, progress=Progress({"all": 1}, fingerprint="f"))
    assert path.read_text().splitlines()[-1] in {"3", '{"x":3}'}
    assert len(path.read_text().splitlines()) == 1 + (kind is CsvDestination)
    with pytest.raises(ConfigError, match="found"):
        write(4, scope=SCOPE, progress=Progress())


def test_records_without_positions_belong_to_who_wrote_them(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonLinesDestination(path).open(SCHEMA, SCOPE) as writer:
        writer.write(batch(1))
        writer.commit(Progress())
    with pytest.raises(ConfigError, match="that pipeline 'p'"):
        deliver(path, 2, scope=Scope("q"))
    assert numbers(path) == [1]


def test_two_outputs_of_one_run_are_told_apart_before_anything_is_written(tmp_path):
    recipe = JsonLinesDestination(tmp_path / "a.jsonl")
    with (
        recipe.open(SCHEMA, SCOPE),
        pytest.raises(
            ConfigError, match="wanted a file for 'rejects', found that 'main' of this pipeline goes there"
        ),
        recipe.open(SCHEMA, SCOPE.of("rejects")),
    ):
        pass


def test_a_run_that_died_before_there_was_a_file_is_followed_by_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonLinesDestination(path).open(SCHEMA, SCOPE):
        pass
    path.unlink()
    deliver(path, 1)
    assert numbers(path) == [1]
