"""The long lanes: `make torture`, or `PYTHONPATH=tests python -m torture --lane "kill sqlite" --seed 7 --scale 0.1`."""
# ruff: noqa: T201 - a person reads what is printed

import argparse
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from torture.figures import Figures
from torture.lanes import LANES, portion

PROCESSES = 2
HEAD = (
    "lane",
    "done",
    "floor",
    "rows",
    "floor",
    "lost",
    "duplicated",
    "misaligned",
    "unordered",
    "wrong",
    "seconds",
)
ROW = "{:26}{:>8}{:>8}{:>9}{:>8}{:>7}{:>12}{:>12}{:>11}{:>7}{:>9}"


@dataclass
class Account:
    """What has come of a lane so far."""

    figures: Figures | None = None
    failures: list = field(default_factory=list)
    seconds: float = 0.0


def main():
    asked = arguments()
    lanes = [lane for lane in LANES if lane.name.startswith(asked.lane)]
    if not lanes:
        print(f"no lane is called {asked.lane!r}; there are: {', '.join(lane.name for lane in LANES)}")
        return 2
    print(f"seed {asked.seed}; do the same again with: make torture ARGS='--seed {asked.seed}'", flush=True)
    accounts = {lane.name: Account() for lane in lanes}
    for alone in (False, True):
        work = [
            (lane, number, size)
            for lane in lanes
            if lane.alone is alone
            for number, size in enumerate(lane.portions(asked.scale))
        ]
        work.sort(
            key=lambda one: -one[0].floor * (one[2] == one[0].floor)
        )  # what cannot be divided comes first
        processes = 1 if alone else PROCESSES
        # a process for each portion: memory and threads begin anew
        with ProcessPoolExecutor(processes, get_context("spawn"), max_tasks_per_child=1) as pool:
            tasks = [
                (lane, pool.submit(portion, lane.name, lane.seed(asked.seed, n), size))
                for lane, n, size in work
            ]
            for lane, task in tasks:
                note(accounts[lane.name], lane, task.result())
    return report(lanes, accounts, asked)


def note(account, lane, outcome):
    """Add a portion to the account of its lane."""
    figures, failure, seconds = outcome
    account.seconds += seconds
    if failure is not None:
        account.failures.append(failure)
        print(f"{lane.name}: {failure}", file=sys.stderr, flush=True)
    else:
        account.figures = figures if account.figures is None else account.figures + figures


def report(lanes, accounts, asked):
    """Print the table; the exit code is 1 when a floor or a promise was missed."""
    print(ROW.format(*HEAD))
    failed, notes = [], []
    for lane in lanes:
        account = accounts[lane.name]
        figures = account.figures or Figures()
        verdict = figures.verdict
        rows = (verdict.rows, round(lane.rows * asked.scale))
        counts = (verdict.lost, verdict.duplicated, verdict.misaligned, verdict.unordered, verdict.wrong)
        wrong = [*account.failures, *lane.missing(figures, asked.scale)]
        print(
            ROW.format(
                lane.name,
                figures.done,
                round(lane.floor * asked.scale),
                *rows,
                *counts,
                round(account.seconds),
            )
        )
        failed += [f"FAILED  {lane.name}: {sentence}" for sentence in wrong]
        notes += [f"{lane.name}: {text}" for text in figures.notes]
        if figures.between:
            notes.append(f"{lane.name}: {figures.between} of {figures.done} in the middle of a run")
        if lane.places:
            notes.append(
                f"{lane.name}: at least {min(figures.places[place] for place in lane.places)} at each of {len(lane.places)} places"
            )
    print(f"seed {asked.seed}", *notes, *failed, sep="\n")
    return 1 if failed else 0


def arguments():
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--lane", default="", help="only the lanes whose names begin so")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="a part of the work, to look for mistakes in a lane"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
