"""The long lane: `make torture`, or `PYTHONPATH=tests python -m torture --kills 25 --destination sqlite --seed 7`."""
# ruff: noqa: T201 - a parent process or a person reads what is printed

import argparse
import random
import sys
import tempfile
from pathlib import Path

from torture.harness import POINTS, Torture


def main():
    arguments = asked()
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder) / "run", arguments.destination, arguments.seed)
        points = [*POINTS, "dest.begin"] if arguments.destination == "sqlite" else POINTS
        torture.loop(points, arguments.kills)
        for _ in range(arguments.any_time):
            torture.kill_at_any_time()
        verdict = torture.finish(rejects_once=arguments.destination == "sqlite")
    kills = sum(torture.kills.values())
    print(f"destination {arguments.destination}, seed {arguments.seed}")
    for point, count in torture.kills.items():
        print(f"  {point:24}{count:6} kills")
    print(
        f"{kills} kills, {torture.between} of them between the first commit and the last; {verdict.rows:,} answers:"
    )
    print(
        f"  {verdict.lost} lost, {verdict.duplicated} duplicated, {verdict.misaligned} misaligned, {verdict.unordered} out of order"
    )
    enough = all(torture.kills[point] >= arguments.kills for point in points) and torture.between >= kills / 2
    if not enough:
        print("too few kills, or too many of them before the first commit: this run proves little")
    return 0 if verdict and enough else 1


def asked():
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=25, help="kills at every place")
    parser.add_argument("--any-time", type=int, default=25, help="kills at moments without a name")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--destination", choices=["sqlite", "parquet", "jsonl"], default="sqlite")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
