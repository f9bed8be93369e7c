"""The result as Markdown."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from contenders import Job
from measure import Summary

HEADER = "| | median s | min-max s | CPU s | x by hand | x Polars | peak MB | output MB |"


@dataclass
class Result:
    """What is known of one contender: a summary, or why there is none."""

    summary: Summary | None = None
    problem: str = ""
    output: float = 0.0  # megabytes written
    checked: set[str] = field(default_factory=set)


def ratio(summary: Summary, other: Result | None) -> str:
    return f"{summary.wall / other.summary.wall:.2f}" if other and other.summary else "-"


def line(name: str, result: Result, by_hand: Result | None, polars: Result | None) -> str:
    if (s := result.summary) is None:
        return f"| {name} | {result.problem.replace('|', '/')} | | | | | | |"
    return (
        f"| {name} | {s.wall:.2f} | {s.fastest:.2f}-{s.slowest:.2f} | {s.cpu:.2f} "
        f"| {ratio(s, by_hand)} | {ratio(s, polars)} | {s.peak:.0f} | {result.output:.1f} |"
    )


def table(job: Job, rows: int, runs: int, results: Mapping[str, Result]) -> str:
    by_hand, polars = results.get(job.by_hand), results.get("polars")
    lines = [f"### {job.name}: {job.title}, {rows:,} rows, {runs} runs each", "", HEADER]
    lines.append("|---" + "|---:" * 7 + "|")
    ranked = sorted(
        results.items(), key=lambda item: item[1].summary.wall if item[1].summary else float("inf")
    )
    lines += [line(name, result, by_hand, polars) for name, result in ranked]
    checked = set().union(*(result.checked for result in results.values()))
    lines += ["", "Output of each: " + ("; ".join(sorted(checked)) or "none that is right") + "."]
    return "\n".join(lines) + "\n"


def preamble(machine: str, versions: Mapping[str, str], revision: str) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    command = shlex.join(["python", *sys.argv])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"## Speed, {datetime.now(UTC):%Y-%m-%d}\n\n"
        f"- Machine: {machine}; load before the start: {load}\n"
        f"- Versions: {packages}; mlinfer at commit {revision or 'unknown'}\n"
        f"- Command: `{command}`\n"
        "- Whole processes, one warm-up each, then in turns; OPENBLAS_NUM_THREADS=1.\n"
        "- Peak is the resident memory of the largest process of a contender.\n"
    )
