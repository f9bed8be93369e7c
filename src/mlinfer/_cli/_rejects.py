"""`mlinfer rejects`: which records were refused and why, once more through the pipeline, and away with the old ones."""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer._cli._ending import stopping
from mlinfer._cli._loading import pipeline_of, verb
from mlinfer._cli._table import rendered
from mlinfer._clock import SystemClock
from mlinfer._errors import ConfigError
from mlinfer._protocols import Prunes, Scope
from mlinfer._replay import Choice, readable_rejects
from mlinfer._text import count

COLUMNS = ["record_id", "stage", "kind", "message"]
FIRST = 20
AGE = re.compile(r"(\d{1,6})([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add(verbs: Any) -> None:
    """Add the verb and its three kinds."""
    text = "show which records were refused, deliver them after a repair, or remove old ones"
    kinds = verbs.add_parser("rejects", help=text, description=text).add_subparsers(
        metavar="VERB", required=True
    )
    parser = _add(kinds, "ls", ls, "count the open rejects by reason, and show the first")
    _choosing(parser, f"show so many at most ({FIRST}; all with --json)")
    parser.add_argument("--count", action="store_true", help="the counts only")
    parser.add_argument("--json", action="store_true", help="one JSON object per reject, every column of it")
    parser = _add(kinds, "replay", replay, "send rejected records through the pipeline once more")
    _choosing(parser, "so many at most, the oldest first")
    parser = _add(kinds, "purge", purge, "remove old rejects for good, delivered or not")
    parser.add_argument(
        "--older-than", type=_age, required=True, metavar="AGE", help="such as 30d, 12h or 4w"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _add(kinds: Any, name: str, act: Any, text: str) -> argparse.ArgumentParser:
    parser = verb(kinds, name, act, text)
    parser.add_argument("file", type=Path, metavar="pipeline.toml", help="a pipeline in TOML")
    return parser


def _choosing(parser: argparse.ArgumentParser, limit: str) -> None:
    parser.add_argument("--stage", help="only those of a stage: decode, conform, infer, answer or write")
    parser.add_argument("--kind", help="only those of a kind, such as missing_value")
    time = "a date, a time in ISO 8601 (UTC unless it names a zone), or an age such as 2d"
    parser.add_argument(
        "--since", type=_time, metavar="TIME", help=f"only those rejected then or later: {time}"
    )
    parser.add_argument("--until", type=_time, metavar="TIME", help="only those rejected before then")
    parser.add_argument("-n", "--limit", type=_number, metavar="N", help=limit)


def _choice(asked: argparse.Namespace) -> Choice:
    return Choice(stage=asked.stage, kind=asked.kind, since=asked.since, until=asked.until)


def ls(asked: argparse.Namespace) -> None:
    """Print counts by reason, then the first rejects; or each of them as JSON."""
    found = pipeline_of(asked, asked.file).rejected(_choice(asked))
    if asked.json:
        for row in found.slice(0, asked.limit).to_pylist():
            print(_as_json(row))
        return
    print(_counts(Counter(zip(found["stage"].to_pylist(), found["kind"].to_pylist(), strict=True))))
    first = found.slice(0, FIRST if asked.limit is None else asked.limit)
    if asked.count or not len(first):
        return
    print()
    print(rendered(first.select(COLUMNS)))
    if len(first) < len(found):
        print(f"... and {len(found) - len(first):,} more: --limit shows more of them, --json everything")


def replay(asked: argparse.Namespace) -> None:
    """Replay, and print the report and what is still open."""
    pipeline = pipeline_of(asked, asked.file)
    with stopping() as stop:
        report = pipeline.replay(replace(_choice(asked), limit=asked.limit), stop=stop)
    print(report.details())
    found = pipeline.rejected()
    print(f"  open     {count(len(found), 'reject')}{_of_bytes(found)}")


def _of_bytes(found: pa.Table) -> str:
    lost = found["record"].null_count
    return f", {lost:,} of them without a record: only bytes were kept" if lost else ""


def purge(asked: argparse.Namespace) -> None:
    """Ask, then remove."""
    job = pipeline_of(asked, asked.file).job
    place = readable_rejects(job)
    if not isinstance(place, Prunes):
        msg = (
            f"rejects purge: wanted a place where single records can be removed (sql, jsonl, csv, parquet), found {place!r}; "
            "write rejects to one of these, or remove the files with their own tools once `rejects ls` shows nothing you need"
        )
        raise ConfigError(msg)
    before = SystemClock().now() - asked.older_than
    if not asked.yes:
        _ask(
            f"This removes all rejects of {job.name} from before {before:%Y-%m-%d %H:%M} UTC, open ones too.",
            job.name,
        )
    removed = place.prune(Scope(job.name or "", "rejects"), before)
    print(f"{count(removed, 'row')} removed from {place!r}")


def _ask(what: str, name: str | None) -> None:
    if not sys.stdin.isatty():
        msg = "rejects purge: wanted a terminal to ask at, found none; if you mean it: --yes"
        raise ConfigError(msg)
    print(what)
    if input(f"Type {name} to go on: ").strip() != name:
        msg = "rejects purge: nothing was removed"
        raise ConfigError(msg)


def _counts(reasons: Counter[tuple[str, str]]) -> str:
    lines = [count(reasons.total(), "reject")]
    width = max((len(f"{number:,}") for number in reasons.values()), default=0)
    lines += [f"  {number:>{width},} x {kind} ({stage})" for (stage, kind), number in reasons.most_common()]
    return "\n".join(lines)


def _as_json(row: dict[str, Any]) -> str:
    raw, record, time = row["raw"], row["record"], row["rejected_at"]
    return json.dumps(
        {
            **row,
            "record": None if record is None else json.loads(record),
            "raw": None if raw is None else base64.b64encode(raw).decode(),
            "rejected_at": time and time.isoformat(),
        },
        ensure_ascii=False,
    )


def _age(text: str) -> timedelta:
    found = AGE.fullmatch(text)
    if found is None:
        msg = f"wanted a number and one of {', '.join(UNITS)}, such as 30d, found {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def _time(text: str) -> datetime:
    if AGE.fullmatch(text):
        return SystemClock().now() - _age(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"wanted a date, a time in ISO 8601 or an age such as 2d, found {text!r}"
        raise argparse.ArgumentTypeError(msg) from error
    return time if time.tzinfo else datetime.combine(time.date(), time.time(), UTC)


def _number(text: str) -> int:
    if not text.isdecimal():
        msg = f"wanted a number, 0 or more, found {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
