"""The harness can see loss and duplication: four pipelines that are broken on purpose are caught."""

from torture.harness import Torture, wait_for_ready


def tortured(tmp_path, kind):
    torture = Torture(tmp_path / "run", kind, 1)
    torture.feed_queue(60) if "queue" in kind else torture.feed(files=4)
    return torture


def test_progress_stored_before_the_records_loses_some(tmp_path):
    torture = tortured(tmp_path, "progress-first")
    assert torture.kill_at("dest.write.partial", 2)
    assert torture.finish(rejects_once=False).lost > 0


def test_a_file_written_in_place_loses_some(tmp_path):
    torture = tortured(tmp_path, "in-place")
    assert torture.kill_at("dest.write.partial", 2)
    assert torture.finish(rejects_once=False).lost > 0


def test_two_runs_without_a_fence_deliver_twice(tmp_path):
    torture = tortured(tmp_path, "unfenced")
    slow = torture.start("dest.commit.before=sleep(3)@1")
    wait_for_ready(slow)
    assert torture.run()[0] == 0
    assert torture.end(slow)[0] == 0
    assert torture.finish().duplicated > 0


def test_messages_acknowledged_before_they_are_stored_are_lost(tmp_path):
    torture = tortured(tmp_path, "eager-queue")
    assert torture.kill_at("dest.commit.before", 1)
    assert torture.finish().lost > 0
