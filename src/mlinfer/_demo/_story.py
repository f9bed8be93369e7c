"""The demo as a person sees it."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from mlinfer import RunReport
from mlinfer._cli._table import rendered
from mlinfer._config import load_pipeline
from mlinfer._demo._folder import LAST, SECOND, Folder
from mlinfer._demo._kill import kill_in_the_middle, rows_of, same
from mlinfer._demo._model import LATE_MINUTES
from mlinfer.observers import ProgressBar
from mlinfer.sources import ParquetSource

WIDTH = 80
INDENT = "   "
ROOM = WIDTH - len(INDENT)
MOST_RUNS = 5
"""On a machine that is busy whoever is to kill a run may come too late; then it is run anew."""


def demo(path: Path, *, force: bool = False) -> None:
    """Tell the whole story in a folder; a second time it goes on where the first one ended.

    Raises ConfigError: the folder holds something else.
    """
    folder = Folder(path)
    print(f"mlinfer demo: will this flight arrive more than {LATE_MINUTES} minutes late?")
    resumed = folder.prepare(force=force)
    if resumed:
        _say(f"Going on in {path}/, where an earlier demo ended; --force begins anew.")
    _show_model(folder)
    _show_first_run(folder)
    _show_second_run(folder)
    _show_next_month(folder)
    _show_kill(folder)
    _show_what_is_next(folder)


def _show_model(folder: Folder) -> None:
    _head(1, "A model of January to July 2013, confirmed on the latest flights of these")
    found = folder.make_model()
    if found is None:
        _say(f"{folder.model} was there already; mlinfer inspect tells how good it is")
        return
    print(_indented(str(found)))
    _say(f"saved as    {folder.model}")


def _show_first_run(folder: Folder) -> None:
    _head(2, "The plan, before a record moves")
    print(_indented(str(load_pipeline(folder.pipeline).explain())))
    _head(3, "Run it: flights of September and October, from Parquet into SQLite")
    report = _run(folder, bar=True)
    print(_indented(report.details()))
    print()
    _table(folder, "scores", "flight_id, carrier, dest, y_pred, y_proba_late", 5)
    print()
    _say("Cancelled flights cannot be answered. They are data, too:")
    _table(folder, "rejects", "record_id, message", 3)


def _show_second_run(folder: Folder) -> None:
    _head(4, "Run it again: nothing is delivered twice")
    _say(str(_run(folder)))


def _show_next_month(folder: Folder) -> None:
    _head(5, "November arrives as one more file")
    folder.deliver(SECOND)
    report = _run(folder)
    _say(str(report))
    if not report.delivered:
        return
    source = ParquetSource(folder.path / "input" / SECOND)
    records = sum(source.remaining(name, None) for name in source.partitions())
    _say(
        f"The file holds {records:,} flights: {report.delivered:,} delivered + {report.rejected:,} rejected."
    )


def _show_kill(folder: Folder) -> None:
    _head(6, "The same input into another database, with a SIGKILL in the middle")
    wanted = rows_of(folder.database, "scores")
    for _ in range(MOST_RUNS):
        results = folder.another()
        database = results / "scores.db"
        killed = kill_in_the_middle(results / "pipeline.toml", database, len(wanted))
        if killed.rows is not None:
            break
    if killed.rows is None:
        _say("The run was over before it could be killed.")
    else:
        _say(f"killed     when {killed.rows:,} of {len(wanted):,} scores were there")
    report = load_pipeline(results / "pipeline.toml").run()
    _say(f"run again  {report}")
    reasons = "record_id, stage, kind"
    equal = same(rows_of(database, "scores"), wanted) and same(
        rows_of(database, "rejects", reasons), rows_of(folder.database, "rejects", reasons)
    )
    _say(
        f"compared   with the undisturbed tables: {'equal, row for row, to 9 digits' if equal else 'DIFFERENT'}"
    )


def _show_what_is_next(folder: Folder) -> None:
    toml = shlex.quote(str(folder.pipeline))
    waiting, place = folder.path / "next" / LAST, folder.path / "input"
    print("\nWhat to try next")
    if waiting.exists():
        _say(f"mv {shlex.quote(str(waiting))} {shlex.quote(str(place))}/  # one more month")
    _say(f"mlinfer run {toml}")
    _say(f"mlinfer rejects ls {toml} -n 5")
    _say(f"mlinfer state show {toml}")
    _say(f"mlinfer preview {toml}")
    _say(f"less {toml}  # the whole pipeline")


def _run(folder: Folder, *, bar: bool = False) -> RunReport:
    pipeline = load_pipeline(folder.pipeline)
    if bar:
        pipeline.job = replace(pipeline.job, observers=(ProgressBar(),))
    return pipeline.run()


def _table(folder: Folder, table: str, columns: str, rows: int) -> None:
    found = rows_of(folder.database, f"{table} LIMIT {rows}", columns)
    names = columns.split(", ")
    print(
        _indented(
            rendered(pa.table({name: [row[n] for row in found] for n, name in enumerate(names)}), WIDTH - 3)
        )
    )


def _head(number: int, text: str) -> None:
    print(f"\n{number}  {text}", flush=True)


def _say(text: str) -> None:
    print(f"{INDENT}{text}", flush=True)


def _indented(text: str) -> str:
    """Every line behind an indent; a line that is too long goes on below its second column."""
    return "\n".join(
        textwrap.fill(line, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT + 12 * " ")
        if len(line) > ROOM
        else f"{INDENT}{line}".rstrip()
        for line in text.splitlines()
    )
