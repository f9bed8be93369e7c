"""The other lanes of `make torture`, cut short; those that kill runs have a file of their own."""

from collections import Counter

import pytest

from torture.figures import Figures
from torture.lanes import LANES
from torture.oracle import Verdict
from torture.short import keeps_its_promise

SHORT = [lane for lane in LANES if lane.short and not lane.name.startswith("kill ")]
pytestmark = pytest.mark.timeout(300)  # dozens of processes, on a machine that may be busy


@pytest.mark.parametrize("lane", SHORT, ids=lambda lane: lane.name.replace(" ", "-"))
def test_a_lane_keeps_its_promise(lane):
    keeps_its_promise(lane)


def test_every_lane_has_a_name_and_a_floor_of_its_own():
    assert len({lane.name for lane in LANES}) == len(LANES)
    assert all(sum(lane.portions()) >= lane.floor > 0 for lane in LANES)


def test_too_few_rows_are_no_proof():
    lane = next(lane for lane in LANES if lane.name == "kill sqlite")
    figures = Figures(lane.floor, Verdict(rows=lane.rows - 1), Counter(dict.fromkeys(lane.places, lane.each)))
    assert lane.missing(figures) == ["14,999 rows judged, wanted 15,000"]
