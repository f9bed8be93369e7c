"""A power loss at any moment leaves what the next run completes exactly; and this could be seen if it were not so."""

import os

import pytest

from mlinfer import durable
from torture import power_loss


def test_what_a_power_loss_leaves_is_completed_exactly():
    found = power_loss.run(seed=1, states=240)
    assert found.total >= 240
    assert found, f"{found}\n{found.examples[:3]}"


@pytest.mark.parametrize("seed", [2, 3])
def test_a_killed_run_and_a_power_loss_after_it_are_no_worse(seed):
    """With names that nobody flushes before relying on them, a part in the middle was lost: it took both to see it."""
    found = power_loss.run(seed, 200, ["parquet"])
    assert found, f"{found}\n{found.examples[:3]}"


def _written_in_place(path, content):
    with durable.growing(path, 0) as file:
        file.write(content)
        durable.flush(file)


@pytest.mark.parametrize(
    ("function", "broken", "kinds"),
    [
        ("flush", lambda file: file.flush(), ["parquet", "jsonl"]),
        ("flush_folder", lambda path: None, ["jsonl", "checkpoint"]),
        ("replace", _written_in_place, ["csv", "checkpoint"]),
    ],
)
def test_what_is_not_flushed_or_written_in_place_is_caught(function, broken, kinds, monkeypatch):
    monkeypatch.setattr(durable, function, broken)
    found = power_loss.run(seed=4, states=160, kinds=kinds)
    assert not found, f"nobody noticed that {function} is broken"
    assert durable.os is os
