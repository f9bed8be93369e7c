"""What is wrong with an output, judged without mlinfer: from the input and the output's own reader."""

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import pyarrow.parquet as pq

from torture.records import answer, record


@dataclass
class Verdict:
    """Counts of records, of the answers and of the rejects together."""

    rows: int = 0
    lost: int = 0
    duplicated: int = 0
    misaligned: int = 0
    unordered: int = 0

    def __bool__(self):
        """Whether everything is as it must be."""
        return not (self.lost or self.duplicated or self.misaligned or self.unordered)


def judge(folder, kind, given, *, rejects_once=True):
    """Compare an output with the input: `given` maps partitions to the number of their records."""
    verdict = Verdict()
    due = [record(partition, n) for partition, count in given.items() for n in range(count)]
    good = {one["id"]: one["x"] for one in due if one["x"] is not None}
    bad = {one["id"] for one in due if one["x"] is None}
    rows = answers(folder, kind)
    verdict.rows = len(rows)
    _compare(verdict, Counter(row[0] for row in rows), good)
    verdict.misaligned = sum(x != good.get(name, x) or y != answer(x) for name, x, y in rows)
    verdict.unordered = _unordered([name for name, *_ in rows])
    refused = Counter(rejects(folder, kind))
    _compare(verdict, refused if rejects_once else Counter(set(refused)), bad)
    return verdict


def answers(folder, kind):
    """What is at the destination, as (id, x, y) in the order of storage."""
    if kind in {"sqlite", "unfenced", "queue", "eager-queue"}:
        return _select(folder / "out.db", "SELECT id, x, y FROM scores ORDER BY rowid")
    if kind == "parquet":
        return [(row["id"], row["x"], row["y"]) for row in _parts(folder / "out")]
    return [(row["id"], row["x"], row["y"]) for row in _lines(folder / "out.jsonl") if "id" in row]


def rejects(folder, kind):
    """The ids of the records that were refused."""
    if kind in {"sqlite", "queue", "eager-queue"}:
        return [name for (name,) in _select(folder / "out.db", "SELECT record_id FROM rejects")]
    rows = _parts(folder / "rejects") if kind == "parquet" else _lines(folder / "rejects.jsonl")
    return [row["record_id"] for row in rows]


def _compare(verdict, found, due):
    verdict.lost += sum(name not in found for name in due)
    verdict.duplicated += sum(times - 1 for times in found.values())
    verdict.misaligned += sum(name not in due for name in found)


def _unordered(names):
    latest, wrong = {}, 0
    for name in names:
        partition, number = name.split("#")
        wrong += int(number) < latest.get(partition, -1)
        latest[partition] = max(int(number), latest.get(partition, -1))
    return wrong


def _select(path, query):
    with closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def _parts(folder):
    paths = sorted(
        folder.glob("*.parquet"), key=lambda path: int(re.search(r"(\d+)\.parquet$", path.name)[1])
    )
    return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]


def _lines(path):
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # a torn line is a lost record, and counted as one
    return found
