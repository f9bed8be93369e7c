"""What is wrong with an output, judged without mlinfer: from the input and the output's own reader."""

import csv
import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass

import pyarrow.parquet as pq

from torture.records import answer, fate, value

DATABASES = {
    "sqlite",
    "swaps",
    "followed-jsonl",
    "followed-csv",
    "queue",
    "eager-queue",
    "unkeyed-queue",
    "unfenced",
}


FIRST_LINE = {"followed-jsonl": 1, "followed-csv": 2}
"""Where the number in a record's id is that of its line: the line of the first record."""


@dataclass
class Verdict:
    """Counts of records, of the answers and of the rejects together; `rows` is the number of answers."""

    rows: int = 0
    lost: int = 0
    duplicated: int = 0
    misaligned: int = 0
    unordered: int = 0
    wrong: int = 0

    def __bool__(self):
        """Whether everything is as it must be."""
        return not (self.lost or self.duplicated or self.misaligned or self.unordered or self.wrong)

    def __add__(self, other):
        mine, theirs = asdict(self), asdict(other)
        return Verdict(**{name: count + theirs[name] for name, count in mine.items()})


def judge(folder, kind, given, *, rejects_once=True):
    """Compare an output with the input: `given` maps partitions to the number of their records."""
    good, bad = {}, set()
    for partition, count in given.items():
        for n in range(count):
            if fate(n) == "answered":
                good[f"{partition}#{n}"] = value(partition, n)
            else:
                bad.add(f"{partition}#{n}")
    rows = answers(folder, kind)
    verdict = Verdict(rows=len(rows), unordered=_unordered([name for name, *_ in rows]))
    _compare(verdict, Counter(name for name, *_ in rows), good)
    theirs = {answer(x) for x in good.values()}
    for name, x, y in rows:
        if name in good and (x, y) != (good[name], answer(good[name])):
            anothers = x != good[name] or y in theirs
            verdict.misaligned += anothers
            verdict.wrong += not anothers
    refused = Counter(rejects(folder, kind))
    _compare(verdict, refused if rejects_once else Counter(set(refused)), bad)
    return verdict


def answers(folder, kind, *, committed=False):
    """What is at the destination, as (id, x, y) in the order of storage.

    A text file may hold more than was committed until the next run cuts it off; `committed` leaves that out.
    """
    kind = kind.removeprefix("restarted-")
    if kind in DATABASES:
        return _sqlite(folder / "out.db", "SELECT id, x, y FROM scores ORDER BY rowid")
    if kind == "postgres":
        return _postgres(folder, "SELECT id, x, y FROM scores ORDER BY n")
    if kind == "parquet":
        return [(row["id"], row["x"], row["y"]) for row in _parts(folder / "out")]
    if kind == "csv":
        rows = csv.DictReader(_text(folder / "out.csv", committed=committed))
        return [(row["id"], float(row["x"]), float(row["y"])) for row in rows]
    rows = _lines(folder / "out.jsonl", committed=committed)
    return [(row["id"], row["x"], row["y"]) for row in rows if "id" in row]


def versions(folder, kind):
    """The versions of the model whose answers are there, committed or not."""
    rows = _parts(folder / "out") if kind.endswith("parquet") else _lines(folder / "out.jsonl")
    return {row["model_version"] for row in rows}


def rejects(folder, kind):
    """The ids of the records that were refused."""
    if kind in DATABASES - {"unfenced"}:
        found = [name for (name,) in _sqlite(folder / "out.db", "SELECT record_id FROM rejects")]
        parted = [name.split("#") for name in found]
        return [f"{partition}#{int(n) - FIRST_LINE.get(kind, 0)}" for partition, n in parted]
    if kind == "postgres":
        return [name for (name,) in _postgres(folder, "SELECT record_id FROM rejects")]
    rows = _parts(folder / "rejects") if kind.endswith("parquet") else _lines(folder / "rejects.jsonl")
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


def _sqlite(path, query):
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def _postgres(folder, query):
    import psycopg

    with psycopg.connect((folder / "url").read_text()) as connection:
        try:
            return connection.execute(query).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def _parts(folder):
    paths = sorted(folder.glob("*.parquet"), key=lambda path: int(re.search(r"\d+", path.name)[0]))
    return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]


def _text(path, *, committed=False):
    if not path.exists():
        return []
    text, beside = path.read_bytes(), path.with_name(f".{path.name}.progress")
    if committed and beside.exists():
        text = text[: json.loads(beside.read_bytes())["appended"]["length"]]
    return text.decode().splitlines()


def _lines(path, *, committed=False):
    found = []
    for line in _text(path, committed=committed):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # a torn line is a lost record, and counted as one
    return found
