"""Killed at every place where a run can be, a pipeline loses nothing, doubles nothing and mixes nothing up."""

import pytest

from torture.harness import POINTS, Torture

pytestmark = pytest.mark.timeout(300)  # dozens of processes, on a machine that may be busy
QUEUE_POINTS = [
    "source.acknowledge.before",
    "source.acknowledge.after",
    "dest.commit.before",
    "dest.commit.after",
]


def survived(torture, kills, **options):
    """Finish, and hold the loop itself to its floors."""
    verdict = torture.finish(**options)
    assert verdict, f"seed {torture.seed}: {verdict}"
    assert verdict.rows == torture.due()
    assert sum(torture.kills.values()) >= kills
    assert torture.between >= kills / 2


@pytest.mark.parametrize("seed", [1, 2])
def test_sqlite_with_rejects_in_its_transaction(tmp_path, seed):
    torture = Torture(tmp_path / "run", "sqlite", seed)
    torture.loop(POINTS, times=1)
    torture.loop(["dest.begin"], times=4)  # where a commit that is not one transaction would come apart
    survived(torture, len(POINTS) + 4)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_files_with_rejects_beside(tmp_path, kind):
    torture = Torture(tmp_path / "run", kind, 3)
    torture.loop(POINTS, times=1)
    survived(
        torture, len(POINTS), rejects_once=False
    )  # they are stored just before, a crash in between repeats them


def test_an_acknowledging_queue_into_a_keyed_table(tmp_path):
    torture = Torture(tmp_path / "run", "queue", 4)
    torture.loop(QUEUE_POINTS, times=2, most_hits=4)
    survived(torture, 2 * len(QUEUE_POINTS))


@pytest.mark.parametrize("kind", ["sqlite", "parquet"])
def test_any_moment_will_do(tmp_path, kind):
    torture = Torture(tmp_path / "run", kind, 5)
    while sum(torture.kills.values()) < 6:
        torture.kill_at_any_time(longest=0.08)
    survived(torture, 6, rejects_once=kind == "sqlite")
