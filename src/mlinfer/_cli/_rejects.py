"""`mlinfer rejects ls`: which records were refused, and why."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlinfer._cli._loading import pipeline_of, verb
from mlinfer._cli._table import rendered
from mlinfer._errors import ConfigError
from mlinfer._protocols import ReadsBack, Scope
from mlinfer._text import count

COLUMNS = ["record_id", "stage", "kind", "message"]


def add(verbs: Any) -> None:
    """Add the verb and its one kind."""
    text = "show which records were refused, and why"
    kinds = verbs.add_parser("rejects", help=text, description=text).add_subparsers(
        metavar="VERB", required=True
    )
    parser = verb(kinds, "ls", ls, "count the rejects by reason, and show the first")
    parser.add_argument("file", type=Path, metavar="pipeline.toml", help="a pipeline in TOML")
    parser.add_argument("--stage", help="only those of a stage: decode, conform, infer, answer or write")
    parser.add_argument("--kind", help="only those of a kind, such as missing_value")
    parser.add_argument("-n", type=int, default=20, metavar="N", help="how many to show (20)")


def ls(asked: argparse.Namespace) -> None:
    """Print counts by reason, then the first rejects."""
    job = pipeline_of(asked, asked.file).job
    if job.rejects is None:
        msg = f"{asked.file}: wanted a place for rejects, found none; name one with the table [rejects]"
        raise ConfigError(msg)
    if not isinstance(job.rejects, ReadsBack):
        msg = f"{asked.file}: {job.rejects!r} cannot be read back by mlinfer; look there with its own tools"
        raise ConfigError(msg)
    reasons: Counter[tuple[str, str]] = Counter()
    first: list[pa.Table] = []
    for batch in job.rejects.records(Scope(job.name or "", "rejects", read_only=True)):
        found = _only(pa.table({name: batch.column(name).cast(pa.string()) for name in COLUMNS}), asked)
        reasons.update(zip(found["stage"].to_pylist(), found["kind"].to_pylist(), strict=True))
        missing = asked.n - sum(map(len, first))
        if missing > 0 and len(found):
            first.append(found.slice(0, missing))
    print(_counts(reasons))
    if first:
        print()
        print(rendered(pa.concat_tables(first)))


def _only(rejects: pa.Table, asked: argparse.Namespace) -> pa.Table:
    for column, wanted in (("stage", asked.stage), ("kind", asked.kind)):
        if wanted is not None:
            rejects = rejects.filter(pc.equal(rejects[column], wanted))
    return rejects


def _counts(reasons: Counter[tuple[str, str]]) -> str:
    lines = [count(reasons.total(), "reject")]
    width = max((len(f"{number:,}") for number in reasons.values()), default=0)
    lines += [f"  {number:>{width},} x {kind} ({stage})" for (stage, kind), number in reasons.most_common()]
    return "\n".join(lines)
