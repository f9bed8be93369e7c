"""Files that survive: whole under their final name or not there at all, private, held by one."""

import os
import stat
import subprocess
import sys

import pytest

from mlinfer import Checkpoint, ConfigError, FencedError, InferencePipeline, durable
from mlinfer._failpoints import arm
from mlinfer.destinations import JsonLinesDestination, ParquetDestination, SqlDestination, StdoutDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "f"
    durable.replace(path, b"old")
    durable.replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["f"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("place", ["progress.write.tmp", "progress.fsync", "progress.rename"])
def test_a_failure_on_the_way_leaves_the_old_file_and_no_debris(tmp_path, place):
    path = tmp_path / "f"
    durable.replace(path, b"old")
    arm(f"{place}=raise(eio)")
    try:
        with pytest.raises(OSError, match="Input/output"):
            durable.replace(path, b"new")
    finally:
        arm("")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("place", ["progress.write.tmp", "progress.fsync", "progress.rename"])
def test_a_killed_writer_leaves_the_old_file_and_debris_that_can_be_told(tmp_path, place):
    path = tmp_path / "f"
    durable.replace(path, b"old")
    code = (
        f"from pathlib import Path; from mlinfer import durable; durable.replace(Path({str(path)!r}), b'new')"
    )
    environment = {**os.environ, "MLINFER_TEST": "1", "MLINFER_FAILPOINTS": f"{place}=kill"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    assert path.read_bytes() == b"old"
    durable.remove_leftovers(tmp_path, "f")
    assert names(tmp_path) == ["f"]


def test_publishing_never_overwrites(tmp_path):
    path, scratch = tmp_path / "f", tmp_path / "s"
    path.write_bytes(b"mine")
    scratch.write_bytes(b"yours")
    with pytest.raises(FileExistsError):
        durable.publish(scratch, path)
    assert path.read_bytes() == b"mine"
    durable.publish(scratch, tmp_path / "g")
    assert names(tmp_path) == ["f", "g"]


def test_a_new_file_never_overwrites(tmp_path):
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(FileExistsError), durable.create(tmp_path / "f"):
        pass
    assert (tmp_path / "f").read_bytes() == b"mine"


def test_leftovers_of_others_stay(tmp_path):
    mine, other = durable.temporary(tmp_path / "f"), durable.temporary(tmp_path / "g")
    for file in (mine, other, tmp_path / "f", tmp_path / ".f.hidden"):
        file.touch()
    durable.remove_leftovers(tmp_path, "f.")
    assert names(tmp_path) == sorted([other.name, "f", ".f.hidden"])


def test_new_folders_are_private_and_old_ones_stay_as_they_are(tmp_path):
    tmp_path.chmod(0o755)
    durable.make_folder(tmp_path / "a" / "b")
    durable.make_folder(tmp_path / "a" / "b")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")]
    assert modes == [0o755, 0o700, 0o700]


def test_a_lock_names_its_holder_and_ends_with_its_process(tmp_path):
    path = tmp_path / "f"
    code = (
        "import sys, os, signal; from pathlib import Path; from mlinfer import durable\n"
        f"with durable.locked(Path({str(path)!r}), 'file', 'r7'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(FencedError) as caught, durable.locked(path, "file"):
            pass
        child.kill()
        child.wait()
    holder = f"run r7, process {child.pid}"
    assert str(caught.value) == (
        f"file {path}: wanted to be its only user, found {holder} that holds it; stop that run first"
    )
    with durable.locked(path, "file"):
        pass


# --- where nobody may write ----------------------------------------------------------------------------------------------

PLACES = {
    "sql": lambda folder: {"destination": SqlDestination(f"sqlite:///{folder}/out.db", table="scores")},
    "jsonl": lambda folder: {"destination": JsonLinesDestination(folder / "new" / "out.jsonl")},
    "parquet": lambda folder: {"destination": ParquetDestination(folder / "new" / "out")},
    "checkpoint": lambda folder: {
        "destination": StdoutDestination(),
        "checkpoint": Checkpoint(folder / "c.progress"),
    },
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_check_sees_a_folder_that_this_user_may_not_write_to(tmp_path, monkeypatch, kind):
    folder, access = tmp_path / "theirs", os.access
    folder.mkdir(mode=0o500)

    def as_user(path, mode):  # whoever runs the tests may be allowed everything
        return access(path, mode) and not (mode & os.W_OK and not path.stat().st_mode & stat.S_IWUSR)

    monkeypatch.setattr(os, "access", as_user)
    host = FunctionHost(lambda x: x, {"x": "double"}, {"y": "double"}, takes="numpy", version="1")
    pipeline = InferencePipeline(MemorySource({"x": [1.0]}), host, name="p", **PLACES[kind](folder))
    with pytest.raises(
        ConfigError,
        match=f"wanted a place to write to, found that this user may not write to {folder}; allow",
    ):
        pipeline.check()
    folder.chmod(0o700)
    pipeline.check()
    assert not names(folder)
