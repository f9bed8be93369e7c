"""`mlinfer run`, `check`, `explain` and `preview`."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlinfer._cli._admin import Readiness, admin
from mlinfer._cli._ending import printing, stopping
from mlinfer._cli._loading import pipeline_of, verb
from mlinfer._cli._logging import logging_to_stderr
from mlinfer._cli._table import rendered
from mlinfer.destinations import StdoutDestination, Tee
from mlinfer.observers import LogObserver, ProgressBar, PrometheusMetrics

FILE_HELP = "a pipeline in TOML; its relative paths are relative to the current folder"


def add(verbs: Any) -> None:
    """Add the verbs."""
    _add_run(verbs)
    for name, act, text in (
        ("check", check, "look at everything a run would open; write nothing"),
        ("explain", explain, "show the plan: columns, model, guarantee and why"),
    ):
        parser = verb(verbs, name, act, text)
        parser.add_argument("file", type=Path, metavar="pipeline.toml", help=FILE_HELP)
    parser = verb(verbs, "preview", preview, "answer the first records; deliver nothing")
    parser.add_argument("file", type=Path, metavar="pipeline.toml", help=FILE_HELP)
    parser.add_argument("-n", type=_positive, default=10, metavar="N", help="how many records (10)")


def _add_run(verbs: Any) -> None:
    parser = verb(verbs, "run", run, "deliver the records that earlier runs have not")
    parser.add_argument("file", type=Path, metavar="pipeline.toml", help=FILE_HELP)
    parser.add_argument(
        "--from-start", action="store_true", help="forget the progress and replace what was delivered"
    )
    parser.add_argument(
        "--until",
        choices=["end", "idle"],
        default="end",
        help="idle: an endless source ends when it has nothing new",
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument(
        "--log", choices=["text", "json"], help="log lines on standard error instead of a bar"
    )
    parser.add_argument("--admin-bind", metavar="HOST:PORT", help="serve /live, /ready and /metrics there")
    parser.add_argument(
        "--insecure-bind", action="store_true", help="let --admin-bind be an address that others can reach"
    )


def run(asked: argparse.Namespace) -> None:
    """Run, watched as asked, and print the report."""
    pipeline = pipeline_of(asked, asked.file)
    job = pipeline.job
    prints_records = any(map(_prints, (job.destination, job.rejects, *job.side.values())))
    # the file may ask for the same bar or log: what the command line says stands in its place
    watching = [one for one in job.observers if not isinstance(one, ProgressBar)]
    with ExitStack() as stack:
        if asked.log:
            stack.enter_context(logging_to_stderr(asked.log, debug=asked.debug))
            watching = [one for one in watching if not isinstance(one, LogObserver)]
            watching.append(LogObserver(asked.log))
        elif not asked.no_progress and not (prints_records and sys.stdout.isatty()):  # they would run into it
            watching.append(ProgressBar())
        if asked.admin_bind:
            metrics, ready = PrometheusMetrics(), Readiness()
            watching += [metrics, ready]
            stack.enter_context(admin(asked.admin_bind, ready, metrics, anywhere=asked.insecure_bind))
        pipeline.job = replace(job, observers=tuple(watching))
        stop = stack.enter_context(stopping())
        report = pipeline.run(until=asked.until, from_start=asked.from_start, stop=stop)
    with printing():
        print(report.details(), file=sys.stderr if prints_records else sys.stdout)


def _prints(destination: object) -> bool:
    """Whether records go to standard output."""
    if isinstance(destination, Tee):
        return any(map(_prints, destination.destinations))
    return isinstance(destination, StdoutDestination)


def check(asked: argparse.Namespace) -> None:
    """Print the plan if it holds."""
    print(pipeline_of(asked, asked.file).check())
    print("checked     source, model and destinations fit, as far as one sees without writing")


def explain(asked: argparse.Namespace) -> None:
    """Print the plan."""
    print(pipeline_of(asked, asked.file).explain())


def preview(asked: argparse.Namespace) -> None:
    """Print the first answers."""
    with pipeline_of(asked, asked.file) as pipeline:
        print(rendered(pipeline.preview(asked.n)))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"wanted a number of records of 1 or more, found {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
