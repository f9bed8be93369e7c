"""A checkpoint file holds the old progress or the new one, belongs to one run at a time, and shows damage."""

import stat
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mlinfer import (
    ChangedError,
    Checkpoint,
    ComponentError,
    ConfigError,
    DataDestination,
    FencedError,
    InferencePipeline,
    Progress,
    Scope,
)
from mlinfer._failpoints import arm
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

SCOPE = Scope("p", run="r1")
HOST = FunctionHost(
    lambda x: x, inputs={"x": "float64"}, outputs={"y": "float64"}, takes="numpy", version="1"
)


class Lists(DataDestination):
    """Appends to a list, and knows nothing of progress."""

    def __init__(self):
        self.rows = []

    def open(self, schema, scope):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def write(self, batch):
        self.rows += batch.records.column("y").to_pylist()

    def commit(self, progress):
        pass


def pipeline(path, destination=None, data=(1.0, 2.0), **more):
    source = MemorySource({"x": np.array(data)})
    return InferencePipeline(
        source, HOST, destination or Lists(), name="p", checkpoint=Checkpoint(path), **more
    )


def test_a_run_goes_on_where_the_checkpoint_says(tmp_path):
    path, destination = tmp_path / "new" / "p.progress", Lists()
    report = pipeline(path, destination).run()
    assert (report.delivered, report.resumed, report.guarantee) == (2, False, "at-least-once")
    again = pipeline(path, destination).run()
    assert (again.delivered, again.resumed, destination.rows) == (0, True, [1.0, 2.0])
    assert pipeline(path, destination).run(from_start=True).delivered == 2


def test_every_damage_of_the_file_stops_the_run_before_a_record_moves(tmp_path):
    path = tmp_path / "p.progress"
    pipeline(path).run()
    content = path.read_bytes()
    damaged = [content[:length] for length in range(0, len(content), 7)]
    damaged += [content[:n] + bytes([content[n] ^ 1]) + content[n + 1 :] for n in range(0, len(content), 5)]
    for text in damaged:
        path.write_bytes(text)
        destination = Lists()
        with pytest.raises(ChangedError, match=f"{path}: wanted progress .*reset NAME"):
            pipeline(path, destination).run()
        assert not destination.rows
        assert path.read_bytes() == text


def test_two_runs_cannot_hold_one_checkpoint(tmp_path):
    path = tmp_path / "p.progress"
    with (
        Checkpoint(path).open(SCOPE),
        pytest.raises(FencedError, match=r"found run r1, process \d+ that holds it; stop that"),
    ):
        pipeline(path).run()
    assert pipeline(path).run().delivered == 2


@pytest.mark.parametrize("read_only", [False, True])
def test_a_folder_is_no_checkpoint(tmp_path, read_only):
    scope = Scope("p", read_only=read_only)
    with pytest.raises(ConfigError, match="found the folder"), Checkpoint(tmp_path).open(scope):
        pass


def test_looking_creates_nothing(tmp_path):
    path = tmp_path / "deeper" / "p.progress"
    pipeline(path).check()
    assert not path.parent.exists()
    with Checkpoint(path).open(Scope("p", read_only=True)) as file:
        assert file.committed() == Progress()


def test_the_file_is_private_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "p.progress"
    pipeline(path).run()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == [".p.progress.lock", "p.progress"]


@pytest.mark.parametrize("place", ["progress.write.tmp", "progress.fsync", "progress.rename"])
def test_a_commit_that_fails_leaves_the_old_progress(tmp_path, place):
    path = tmp_path / "p.progress"
    with Checkpoint(path).open(SCOPE) as file:
        file.commit(Progress({"a": 1}))
        arm(f"{place}=raise(enospc)")
        try:
            with pytest.raises(
                ComponentError, match=f"{path}: wanted to write, found No space left on device"
            ):
                file.commit(Progress({"a": 2}))
        finally:
            arm("")
        assert file.committed().positions == {"a": 1}
    with Checkpoint(path).open(SCOPE) as file:
        assert file.committed().positions == {"a": 1}
    assert not list(tmp_path.glob("*.tmp"))


def test_commits_of_several_lanes_lose_nothing(tmp_path):
    with Checkpoint(tmp_path / "p").open(SCOPE) as file:
        lanes = [
            threading.Thread(
                target=lambda lane=lane: [file.commit(Progress({f"{lane}-{n}": n})) for n in range(20)]
            )
            for lane in range(4)
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        assert len(file.committed().positions) == 80
    with Checkpoint(tmp_path / "p").open(SCOPE) as file:
        assert len(file.committed().positions) == 80


@dataclass(frozen=True)
class Folder(DataDestination):
    """Appends to a file in a folder, and knows nothing of progress."""

    path: Path

    @contextmanager
    def open(self, schema, scope):
        yield self

    def write(self, batch):
        with self.path.open("a") as file:
            file.writelines(f"{y}\n" for y in batch.records.column("y").to_pylist())

    def commit(self, progress):
        pass


@pytest.mark.parametrize("again", [{}, {"from_start": True}])
def test_a_checkpoint_is_refused_to_another_pipeline(tmp_path, again):
    path, theirs, ours = tmp_path / "p.progress", Folder(tmp_path / "theirs"), Folder(tmp_path / "ours")
    assert pipeline(path, theirs).run().delivered == 2
    content = path.read_bytes()
    source = MemorySource({"x": np.array([1.0, 2.0])})
    other = InferencePipeline(source, HOST, ours, name="q", checkpoint=Checkpoint(path))
    wanted = r"p\.progress: wanted the progress of pipeline 'q', found that of pipeline 'p'; name a checkpoint of its own"
    for act in (other.check, lambda: other.run(**again)):
        with pytest.raises(ConfigError, match=wanted):
            act()
    assert path.read_bytes() == content
    assert not ours.path.exists()


def test_progress_of_another_destination_is_no_progress_of_this_one(tmp_path):
    path, old, new = tmp_path / "p.progress", Folder(tmp_path / "old"), Folder(tmp_path / "new")
    assert pipeline(path, old).run().delivered == 2
    with pytest.raises(ChangedError, match=r"destination was .*old.*, is .*new.*; use on_change="):
        pipeline(path, new).run()
    assert not new.path.exists()
    assert pipeline(path, new, on_change="continue").run().delivered == 0
    assert not new.path.exists()
    begins = pipeline(path, new, on_change="restart")
    assert (begins.run().delivered, new.path.read_text()) == (2, "1.0\n2.0\n")
    assert pipeline(path, new).run().delivered == 0


def test_a_checkpoint_of_the_first_format_has_no_owner_until_the_next_commit(tmp_path):
    path = tmp_path / "p.progress"
    path.write_text(Progress({"all": 1}, fingerprint="f").to_json())
    with Checkpoint(path).open(SCOPE) as file:
        assert file.committed().positions == {"all": 1}
        file.commit(Progress({"all": 2}, fingerprint="f"))
    with Checkpoint(path).open(SCOPE) as file:
        assert file.committed().positions == {"all": 2}
    with pytest.raises(ConfigError, match="found that of pipeline 'p'"), Checkpoint(path).open(Scope("q")):
        pass
