"""Kills a run in the middle, for real, and lets the next one finish."""

from __future__ import annotations

import math
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlinfer import ComponentError

POLL_SECONDS = 0.005
LONGEST_SECONDS = 60.0


@dataclass(frozen=True)
class Killed:
    """How many rows were there when SIGKILL came; None: all of them, the run was over before that."""

    rows: int | None


def kill_in_the_middle(pipeline: Path, database: Path, total: int) -> Killed:
    """Start the run as a program of its own and kill it as soon as a part of its rows is there."""
    command = [sys.executable, "-P", "-m", "mlinfer", "run", str(pipeline), "--no-progress"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:  # noqa: S603 - ourselves
        deadline = time.monotonic() + LONGEST_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            if 0 < _count(database) < total:
                break
            time.sleep(POLL_SECONDS)
        child.kill()
        output, _ = child.communicate()
    if child.returncode not in {0, -signal.SIGKILL}:
        msg = f"the run that was to be killed ended by itself: {output.decode(errors='replace').strip()}"
        raise ComponentError(msg)
    rows = _count(database)
    return Killed(rows if child.returncode and rows < total else None)


def rows_of(database: Path, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    """The rows of a table, by SQLite's own client."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT {columns} FROM {table}").fetchall()  # noqa: S608 - names of our own


def same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    """Whether two tables hold the same rows equally often, in whatever order.

    The last digits of a float do not count: they depend on how many records the model sees at once, and a run that is busy
    sees other batches than one that is not.
    """
    return len(one) == len(other) and all(map(_alike, sorted(one, key=repr), sorted(other, key=repr)))


def _alike(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(
        math.isclose(a, b, abs_tol=1e-12) if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in zip(one, other, strict=True)
    )


def _count(database: Path) -> int:
    try:
        [(count,)] = rows_of(database, "scores", "count(*)")
    except sqlite3.OperationalError:
        return 0  # no database or no table yet
    return int(count)
