"""`mlinfer state show` and `reset`: how far a pipeline has come."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import pyarrow as pa

from mlinfer._cli._loading import file_named, opened, pipeline_of, verb
from mlinfer._cli._table import rendered
from mlinfer._errors import ConfigError
from mlinfer._pipeline import InferencePipeline
from mlinfer._progress import Progress
from mlinfer._protocols import Resumes

NAME_HELP = "a .toml file, or the name of a pipeline in a .toml file of the current folder"


def add(verbs: Any) -> None:
    """Add the verb and its two kinds."""
    text = "show how far a pipeline has come, or let it begin anew"
    kinds = verbs.add_parser("state", help=text, description=text).add_subparsers(
        metavar="VERB", required=True
    )
    parser = verb(kinds, "show", show, "show how far a pipeline has come")
    parser.add_argument("pipeline", metavar="NAME_OR_TOML", help=NAME_HELP)
    parser = verb(kinds, "reset", reset, "drop the progress and all that the pipeline has delivered")
    parser.add_argument("pipeline", metavar="NAME_OR_TOML", help=NAME_HELP)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def show(asked: argparse.Namespace) -> None:
    """Print the position of each partition."""
    pipeline = pipeline_of(asked, file_named(asked.pipeline))
    with opened(pipeline, fresh=False) as (outputs, progress):
        kept = _keeps(pipeline, resumes=outputs.main is not None and isinstance(outputs.main.writer, Resumes))
    print(f"pipeline   {pipeline.job.name or 'unnamed'}")
    print(f"kept in    {kept}")
    if not progress.positions:
        print("progress   none")
        return
    names = sorted(progress.positions)
    columns: dict[str, list[Any]] = {
        "partition": names,
        "position": [json.dumps(progress.positions[name]) for name in names],
    }
    if progress.states:
        columns["memory_bytes"] = [len(progress.states.get(name, b"")) for name in names]
    print(rendered(pa.table(columns)))


def reset(asked: argparse.Namespace) -> None:
    """Ask, then drop everything."""
    pipeline = pipeline_of(asked, file_named(asked.pipeline))
    job = pipeline.job
    places = [
        f"  {place!r}"
        for place in (job.destination, job.rejects, *job.side.values(), job.checkpoint)
        if place
    ]
    if not asked.yes:
        _ask(job.name or "unnamed", places)
    with opened(pipeline, fresh=True) as (outputs, _):
        for output in (outputs.rejects, *outputs.sides.values(), outputs.main):
            if output is not None and not output.joined:
                output.writer.commit(Progress())
        if outputs.checkpoint is not None:
            outputs.checkpoint.commit(Progress())
    print(f"{job.name or 'unnamed'}: the next run begins at the first record")


def _ask(name: str, places: list[str]) -> None:
    if not sys.stdin.isatty():
        msg = f"state reset {name}: wanted a terminal to ask at, found none; if you mean it: --yes"
        raise ConfigError(msg)
    print(f"This drops the progress of {name} and every record that it has delivered to")
    print("\n".join(places))
    if input(f"Type {name} to go on: ").strip() != name:
        msg = "state reset: nothing was dropped"
        raise ConfigError(msg)


def _keeps(pipeline: InferencePipeline, *, resumes: bool) -> str:
    if resumes:
        return repr(pipeline.job.destination)
    return (
        repr(pipeline.job.checkpoint)
        if pipeline.job.checkpoint is not None
        else "nothing: every run begins anew"
    )
