"""The lanes of `make torture` that kill runs, cut short; in a file of their own, so that another worker runs the others."""

import pytest

from torture.lanes import LANES
from torture.short import keeps_its_promise

pytestmark = pytest.mark.timeout(300)  # dozens of processes, on a machine that may be busy


@pytest.mark.parametrize(
    "lane",
    [lane for lane in LANES if lane.short and lane.name.startswith("kill ")],
    ids=lambda lane: lane.name.replace(" ", "-"),
)
def test_a_lane_of_kills_keeps_its_promise(lane):
    keeps_its_promise(lane)
