"""A checkpoint file holds the old progress or the new one, belongs to one run at a time, and shows damage."""

import stat
import threading

import numpy as np
import pytest

from mlinfer import (
    ChangedError,
    Checkpoint,
    ComponentError,
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


def pipeline(path, destination=None, data=(1.0, 2.0)):
    source = MemorySource({"x": np.array(data)})
    return InferencePipeline(source, HOST, destination or Lists(), name="p", checkpoint=Checkpoint(path))


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
