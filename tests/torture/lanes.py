"""Every promise with the work that proves it: what is done, how often at least, and in which portions."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torture import (
    asking,
    bad_records,
    controls,
    cost,
    database,
    io_faults,
    killing,
    malformed,
    malformed_grpc,
    overload,
    power_loss,
    sequences,
    soak,
    stopping,
    swapping,
)
from torture.figures import Figures
from torture.harness import points
from torture.oracle import Verdict


@dataclass(frozen=True)
class Lane:
    """Work of one kind: `run(seed, amount)` does a portion of it.

    `floor` is how much must be done in all, `each` how much at every place; of what has a middle, half must hit it. `rows`
    is how many answers must be judged.
    `short` is what the test suite does. `alone`: nothing else may be measured meanwhile.
    """

    name: str
    unit: str
    run: Callable[[int, int], Figures]
    floor: int
    portion: int
    short: int
    places: tuple[str, ...] = ()
    each: int = 0
    rows: int = 0
    alone: bool = False

    def portions(self, scale=1.0):
        """The sizes of the portions that make up the floor, or a part of it."""
        count = max(1, -(-round(self.floor * scale) // self.portion))
        return [min(self.portion, max(1, round(self.floor * scale)))] * count

    def seed(self, seed, number):
        """Every portion has its own dice, that come from the one seed of them all."""
        return zlib.crc32(f"{seed} {self.name} {number}".encode())

    def missing(self, figures, scale=1.0):
        """What keeps these figures from proving the promise, as sentences."""
        wrong, floor = [], round(self.floor * scale)
        if figures.done < floor:
            wrong.append(f"{figures.done} {self.unit}, wanted {floor}")
        if figures.verdict.rows < round(self.rows * scale):
            wrong.append(f"{figures.verdict.rows:,} rows judged, wanted {round(self.rows * scale):,}")
        if not figures.verdict:
            wrong.append(str(figures.verdict))
        few = [name for name in self.places if figures.places[name] < int(self.each * scale)]
        if few:
            wrong.append(f"fewer than {int(self.each * scale)} at {', '.join(few)}")
        if figures.between is not None and scale == 1.0 and figures.between < figures.done / 2:
            wrong.append(f"only {figures.between} of {figures.done} in the middle of a run")
        return wrong


ROWS_A_KILL = 30
"""So many answers at least are judged for a kill: 40 records come before it, of which one in six has none."""


def kills(kind, floor, each, *, short=4):
    """Kills at every named place of a kind, the same number at each."""
    places = points(kind)
    run = partial(killing.at_named_places, kind)
    rows = ROWS_A_KILL * floor
    return Lane(f"kill {kind}", "kills", run, floor, 2 * len(places), short, tuple(places), each, rows)


def lane(name, unit, run, sizes, *, rows=0):
    """A lane for one kind of destination: the last word of its name."""
    floor, portion, short = sizes
    return Lane(name, unit, partial(run, name.split()[-1]), floor, portion, short, rows=rows)


def after_power_loss(seed, states):
    """So many states of the disk after a power loss, over all kinds of files."""
    found = power_loss.run(seed, states)
    verdict = Verdict(lost=found.unrecoverable, duplicated=found.forgotten, wrong=found.wrong)
    return Figures(found.total, verdict, notes=[str(found)])


STOPPED = ("sqlite", "parquet", "jsonl", "unkeyed-queue", "tee")
LANES = [
    kills("sqlite", 500, 25, short=len(points("sqlite"))),
    kills("postgres", 500, 25),
    kills("parquet", 150, 9),
    kills("jsonl", 150, 8),
    kills("csv", 150, 8),
    kills("queue", 150, 8),
    kills("swaps", 40, 20),
    kills("followed-jsonl", 54, 3),
    kills("followed-csv", 54, 3),
    *(Lane(f"kill {kind}", "kills", partial(killing.begun_anew, kind), 30, 15, 0, places, 6) for kind, places in killing.ANEW.items()),
    *(lane(f"any time {kind}", "kills", killing.at_any_time, (75, 25, 2), rows=75 * ROWS_A_KILL) for kind in ("sqlite", "postgres", "parquet", "jsonl")),
    *(lane(f"recovery {kind}", "kills", killing.in_recovery, (30, 10, 2)) for kind in ("sqlite", "postgres", "parquet", "jsonl")),
    *(lane(f"zombies {kind}", "rounds", stopping.zombies, (25, 13, 1)) for kind in ("sqlite", "postgres", "parquet", "jsonl", "csv")),
    *(Lane(f"sigterm {kind}", "stops", partial(stopping.by_sigterm, kind), 40, 20, 3 if kind == "sqlite" else 1, stopping.PHASES, 8) for kind in STOPPED),
    lane("cut commits postgres", "cuts", database.cut_commits, (200, 100, 3)),
    lane("server killed postgres", "kills", database.server_killed, (30, 15, 1)),
    *(lane(f"one bad record {stage}", "cases", bad_records.found_alone, (1000, 1000, 30)) for stage in bad_records.STAGES),
    lane("soak flat", "batches", soak.flat, (86_400, 86_400, 2000)),
    lane("soak leak", "batches", soak.leak_noticed, (20_000, 20_000, 3000)),
    *(lane(f"control {kind}", "caught", controls.caught, (1, 1, 1)) for kind in controls.CONTROLS),
    Lane("any sequence", "sequences", sequences.of_events, 300, 150, 0),  # the short ones have a test of their own
    Lane("hot swaps", "swaps", swapping.under_load, 500, 250, 8),
    Lane("neighbours", "requests", asking.neighbours, 50_000, 25_000, 2000),
    Lane("server sigterm", "stops", asking.stopped, 50, 10, 2),
    Lane("malformed http", "requests", malformed.over_http, 20_000, 10_000, 600),
    Lane("malformed grpc", "calls", malformed_grpc.over_grpc, 5000, 5000, 300),
    Lane("workers killed", "kills", asking.workers_killed, 50, 20, 1),
    Lane("workers killed at places", "kills", asking.workers_killed_at_places, 24, 8, 2, asking.SERVER_PLACES, 6),
    Lane("slow sockets", "requests", asking.slow_sockets, 20_000, 20_000, 0, alone=True),
    Lane("overload 2x", "requests", overload.at(2), 10_000, 10_000, 0, alone=True),
    Lane("overload 4x", "requests", overload.at(4), 20_000, 20_000, 0, alone=True),
    *(Lane(f"disk faults {kind}", "operations", partial(io_faults.one_by_one, kind), floor, floor, 0, io_faults.FAULTS, floor // 4) for kind, floor in io_faults.FLOORS.items()),  # the short ones have tests of their own
    Lane("power loss", "states", after_power_loss, 10_000, 10_000, 0),  # the short one has a test of its own
    Lane("cost of safety", "runs", cost.of_safety, cost.RUNS, cost.RUNS, 0, alone=True),
    *(Lane(f"cost of safety {kind}", "runs", partial(cost.of_committing, kind), cost.RUNS, cost.RUNS, 0, alone=True) for kind in cost.KINDS if kind != "parquet"),
]  # fmt: skip


def portion(name, seed, size):
    """Run one portion: its figures, or what went wrong; and the seconds it took."""
    lane = next(lane for lane in LANES if lane.name == name)
    begun = time.monotonic()
    try:
        return lane.run(seed, size), None, time.monotonic() - begun
    except Exception as error:  # noqa: BLE001 - whatever it is, the others go on and the table tells
        return None, f"{type(error).__name__}: {error}", time.monotonic() - begun
