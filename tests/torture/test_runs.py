"""Runs that end early, meet each other, or come again."""

import signal
import time

import pytest

from torture.harness import FENCED, Torture, wait_for_ready


@pytest.mark.parametrize("kind", ["sqlite", "parquet"])
def test_sigterm_ends_a_run_well_at_any_moment(tmp_path, kind):
    torture = Torture(tmp_path / "run", kind, 6)
    torture.feed(files=60)
    for _ in range(3):
        child = torture.start(pause=0.02)
        wait_for_ready(child)
        time.sleep(torture.dice.random() * 0.5)
        child.send_signal(signal.SIGTERM)
        assert torture.end(child)[0] == 0
        assert torture.stored() < torture.due()  # else it was not stopped
    assert torture.finish()  # rejects exactly once, too: nothing died


@pytest.mark.parametrize("kind", ["sqlite", "parquet"])
def test_a_run_that_wakes_up_after_another_took_over_is_refused(tmp_path, kind):
    torture = Torture(tmp_path / "run", kind, 7)
    torture.feed()
    sleeper = torture.start("dest.commit.before=sleep(0.5)@2")
    while not torture.stored():
        time.sleep(0.01)
    sleeper.send_signal(signal.SIGSTOP)  # behind its first commit, before its second
    try:
        assert torture.run()[0] == 0
    finally:
        sleeper.send_signal(signal.SIGCONT)
    code, said = torture.end(sleeper)
    assert code == FENCED
    assert "'torture'" in said
    assert torture.finish(rejects_once=kind == "sqlite")


def test_a_second_run_delivers_nothing_and_a_new_file_exactly_its_records(tmp_path):
    torture = Torture(tmp_path / "run", "sqlite", 8)
    torture.feed()
    assert torture.run()[0] == 0
    assert torture.run()[1].splitlines()[-1] == "0 0"
    before = torture.stored()
    torture._append("new.jsonl", 25)
    _, said = torture.run()
    assert said.splitlines()[-1] == "23 2"
    assert torture.stored() - before == 23
    assert torture.finish()
