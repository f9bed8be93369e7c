"""One bad record anywhere among good ones: it alone is refused, by whatever stage finds it, whatever the batch size."""

import itertools
import json
import random
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import Batching, Budget, InferencePipeline
from mlinfer.destinations import SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import JsonLinesSource
from torture.figures import Figures
from torture.oracle import Verdict

MOST_RECORDS = 60
STAGES = {"decode": "decode", "model": "infer", "destination": "write"}


def found_alone(where, seed, cases):
    """So many inputs of a random length with one bad record at a random place, in batches of a random size."""
    dice = random.Random(seed)
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        for case in range(cases):
            here = Path(folder) / str(case)
            here.mkdir()
            figures += _one(here, where, dice)
    return figures


def _one(folder, where, dice):
    records = dice.randint(1, MOST_RECORDS)
    bad = dice.randrange(records)
    _write(folder / "in.jsonl", records, bad if where == "decode" else None)
    database = folder / "out.db"
    with closing(sqlite3.connect(database)) as connection:
        check = f"CHECK (x <> {bad})" if where == "destination" else ""
        connection.execute(f"CREATE TABLE scores (n INTEGER, x REAL {check}, y REAL)")
    InferencePipeline(
        JsonLinesSource(folder / "in.jsonl"),
        FunctionHost(_Model(bad if where == "model" else None), {"x": pa.float64()}, {"y": pa.float64()}),
        SqlDestination(f"sqlite:///{database}", "scores", if_exists="append"),
        rejects=SqlDestination(f"sqlite:///{database}", "rejects"),
        name="one-bad-record",
        keep={"n": pa.int64(), "x": pa.float64()},
        budget=Budget(ratio=1),  # it may be the only one
        batching=Batching(max_records=dice.choice([1, 2, 3, 7, 16, MOST_RECORDS])),
        workers=dice.choice([1, 2]),
    ).run()
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT n, x, y FROM scores ORDER BY rowid").fetchall()
        refused = connection.execute("SELECT stage, record_id FROM rejects").fetchall()
    return Figures(1, _verdict(rows, refused, records, (STAGES[where], bad)))


def _verdict(rows, refused, records, expected):
    stage, bad = expected
    names = [n for n, *_ in rows]
    good = [n for n in range(records) if n != bad]
    return Verdict(
        rows=len(rows),
        lost=len(set(good) - set(names)) + (not refused),
        duplicated=len(names) - len(set(names)) + max(0, len(refused) - 1),
        # a line of a file is counted from one
        misaligned=sum(n not in good or x != n for n, x, _ in rows)
        + sum(found != stage or not name.endswith(f"#{bad + 1}") for found, name in refused),
        unordered=sum(later < earlier for earlier, later in itertools.pairwise(names)),
        wrong=sum(y != 3 * n + 1 for n, _, y in rows),
    )


def _write(path, records, broken):
    lines = [json.dumps({"n": n, "x": n + 0.0}) if n != broken else '{"n": ' for n in range(records)]
    path.write_text("\n".join(lines) + "\n")


class _Model:
    """Fails for a whole batch when one record is bad, and does not say which."""

    def __init__(self, bad):
        self._bad = bad

    def __call__(self, records):
        x = records.column("x")
        if self._bad is not None and self._bad in x.to_pylist():
            raise ValueError("somewhere here")
        return pc.add(pc.multiply(x, 3.0), 1.0)
