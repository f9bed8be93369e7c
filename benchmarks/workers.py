"""Measure what a second worker process gives: the same server with one and with two, in turns, asked by wrk.

    python benchmarks/workers.py [--runs 5] [--seconds 2]

Needs Linux and wrk. Nothing is pinned to a core: on a machine with two of them wrk and the process that holds the address
take their part of what the workers could have; the last column says how much of a core wrk took. Whatever else runs takes
from two workers and not from one, so the best turn of each counts: the one that was disturbed least.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import online
from environment import HERE, machine, revision

LOADS = (("forest", 1, 16), ("forest", 100, 16), ("forest", 1000, 16))
WORKERS = (1, 2)


def contender(workers: int) -> online.Contender:
    """scikit-learn's own predict in so many processes."""
    command = "{python} {servers}/mlinfer_app.py {model} {port} " + str(workers)
    return online.Contender(f"{workers} workers", command, suffix="mlinfer", pinned=False)


def load(port: int, asked: Path, connections: int, seconds: float) -> tuple[float, float]:
    """Requests per second that wrk counts, and the part of a core that it takes for itself."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "-s", online.SERVERS / "load.lua"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/predict"],
        check=True, capture_output=True, text=True, env={**os.environ, "BODY": str(asked)},
    ).stdout  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(re.search("^RESULT (.*)$", said, re.MULTILINE)[1])  # type: ignore[index]
    if result["errors"]:
        msg = f"{result['errors']} requests failed"
        raise RuntimeError(msg)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result["requests"] / result["seconds"], taken / result["seconds"]


def main() -> int:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5, help="turns of each number of workers")
    parser.add_argument("--seconds", type=float, default=2, help="for each load")
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    folder = HERE / ".cache" / "online" / "mlinfer"
    subprocess.run([sys.executable, online.SERVERS / "fit.py", folder], check=True)
    records = json.loads((folder / "asked.json").read_text())["records"]
    found: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for _ in range(asked.runs):
        for workers in WORKERS:
            one = contender(workers)
            with online.running(one, "forest", folder, Path(sys.executable)) as (port, _, _):
                online.check(one, "forest", folder, port)
                for name, rows, connections in LOADS:
                    body = folder / "body.json"
                    body.write_bytes(online.body(one, (records * (1 + rows // len(records)))[:rows]))
                    load(port, body, connections, 1)
                    rate = load(port, body, connections, asked.seconds)
                    found.setdefault((name, rows, connections, workers), []).append(rate)
                    print(
                        f"{workers} workers {name} {rows} x {connections}: {rate[0]:,.1f}/s", file=sys.stderr
                    )
    print(f"- Machine: {machine()}; load before the start: {before:.1f}; mlinfer at commit {revision()}")
    print(f"- Command: `python {' '.join(sys.argv)}`\n")
    print("| model, records x connections | 1 worker | 2 workers | x | wrk's part of a core |")
    print("|---|---:|---:|---:|---:|")
    for name, rows, connections in LOADS:
        one, two = (max(rate for rate, _ in found[name, rows, connections, n]) for n in WORKERS)
        took = max(part for n in WORKERS for _, part in found[name, rows, connections, n])
        print(f"| {name}, {rows} x {connections} | {one:,.1f} | {two:,.1f} | {two / one:.2f} | {took:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
