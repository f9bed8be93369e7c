"""Compare the speed of mlinfer with hand-written loops and with its peers.

python benchmarks/run.py [--job J1] [--runs 5] [--rows N] [--only mlinfer,careful_loop] [--out FILE]

Each contender is a whole process. The contenders take turns, so that a machine that gets slower or
faster meanwhile treats them alike, and their output is checked, so that nobody wins by being wrong.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from contenders import HERE, JOBS, Contender, Job
from environment import bench_python, installed, machine, revision
from measure import Run, measure, summary
from report import Result, preamble, table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--job", action="append", choices=JOBS, help="which job; may be repeated; default: all"
    )
    parser.add_argument(
        "--runs", type=int, default=5, help="measured runs of each contender, after one warm-up"
    )
    parser.add_argument("--rows", type=int, help="another number of rows (J1-small keeps its own)")
    parser.add_argument("--only", help="names of contenders, with commas between them")
    parser.add_argument("--python", type=Path, help="an interpreter that has mlinfer and the peers")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="where data and outputs are kept")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which a run is given up")
    parser.add_argument("--out", type=Path, help="write the report to this file too")
    return parser.parse_args()


def chosen(job: Job, only: str | None, have: dict[str, str]) -> list[Contender]:
    """The contenders that are wanted and whose packages are there."""
    names = only.split(",") if only else [contender.name for contender in job.contenders]
    wanted = [contender for contender in job.contenders if contender.name in names]
    for contender in wanted:
        if missing := [package for package in contender.needs if package not in have]:
            print(
                f"{job.name}: {contender.name} left out, not installed: {', '.join(missing)}", file=sys.stderr
            )
    return [contender for contender in wanted if have.keys() >= set(contender.needs)]


def prepared(job: Job, rows: int, python: Path, cache: Path) -> Path:
    """Data and models, made by the contenders' interpreter so that this process stays small."""
    command = [python, HERE / "data.py", job.data, str(rows), cache]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Path(made.stdout.strip())


def package(data: Path, python: Path) -> None:
    """Models in mlinfer's own format; not part of any measured time."""
    made = subprocess.run(
        [python, HERE / "jobs" / "package.py", data], check=False, capture_output=True, text=True
    )
    if made.returncode:
        print(f"no model for mlinfer: {made.stderr.strip().splitlines()[-1]}", file=sys.stderr)


def attempt(contender: Contender, data: Path, out: Path, args: argparse.Namespace) -> Run:
    shutil.rmtree(out, ignore_errors=True)
    return measure([str(part) for part in (args.python, contender.path, data, out)], args.limit)


def check(result: Result, data: Path, out: Path, python: Path) -> None:
    """Note what the output holds, or that it is wrong."""
    checked = subprocess.run(
        [python, HERE / "check.py", data, out], check=False, capture_output=True, text=True
    )
    if checked.returncode:
        result.problem = (checked.stderr.strip().splitlines() or ["not checked"])[-1]
        return
    result.checked.add(checked.stdout.strip())
    result.output = sum(file.stat().st_size for file in (out / "answers").rglob("*") if file.is_file()) / 1e6


def compete(
    job: Job, contenders: Sequence[Contender], data: Path, args: argparse.Namespace
) -> dict[str, Result]:
    """A warm-up each, then ``args.runs`` rounds; the first and the last output of each are checked."""
    results = {contender.name: Result() for contender in contenders}
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for turn in range(args.runs + 1):
        for contender in contenders:
            result, out = results[contender.name], args.cache / "out" / job.name / contender.name
            if result.problem:
                continue
            run = attempt(contender, data, out, args)
            result.problem = run.error
            if not run.error and turn in {0, args.runs}:
                check(result, data, out, args.python)
            shutil.rmtree(out, ignore_errors=True)
            print(f"{job.name} {contender.name} {run.wall:.2f} s {result.problem}", file=sys.stderr)
            if turn:
                runs[contender.name].append(run)
    for name, result in results.items():
        if not result.problem:
            result.summary = summary(runs[name])
    return results


def main() -> int:
    args = arguments()
    args.cache, args.python = args.cache.resolve(), (args.python or bench_python()).absolute()
    have = installed(args.python)
    pages = [preamble(machine(), have, revision())]
    failed = False
    for job in [JOBS[name] for name in args.job or JOBS]:
        contenders = chosen(job, args.only, have)
        if not contenders:
            continue
        rows = args.rows if args.rows and job.sized else job.rows
        data = prepared(job, rows, args.python, args.cache)
        if any("mlinfer" in contender.needs for contender in contenders):
            package(data, args.python)
        results = compete(job, contenders, data, args)
        failed |= any(result.problem for result in results.values())
        pages.append(table(job, rows, args.runs, results))
        print(pages[-1], file=sys.stderr)
    report = "\n".join(pages)
    print(report)
    if args.out:
        args.out.write_text(report, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
