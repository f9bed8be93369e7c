"""Destinations that promise exactly-once and break it, each by one mistake: the oracle must catch every one of them."""

import json
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlinfer import DataDestination, Progress, durable, failpoint


@dataclass(frozen=True)
class Broken(DataDestination):
    """What they have in common: they say that they are transactional, and they are not."""

    path: Path
    transactional = True
    commit_seconds = 0.0
    writer = None

    @contextmanager
    def open(self, schema, scope):
        yield self.writer(self.path)


class Buffered:
    def __init__(self, path):
        self.path, self.rows = path, []
        self.progress = self.load()

    def write(self, batch):
        self.rows += batch.records.to_pylist()

    def committed(self):
        return self.progress

    def commit(self, progress):
        self.progress = self.progress.merged(progress)
        self.store()
        self.rows = []


class ProgressFirstWriter(Buffered):
    @property
    def beside(self):
        return self.path.with_suffix(".progress")

    def load(self):
        return Progress.from_json(self.beside.read_text(), "progress") if self.beside.exists() else Progress()

    def store(self):
        durable.replace(self.beside, self.progress.to_json().encode())
        failpoint("dest.write.partial")
        with self.path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.rows)
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class ProgressFirst(Broken):
    """Stores the progress before the records."""

    writer = ProgressFirstWriter


class InPlaceWriter(Buffered):
    def load(self):
        self.old = self.path.read_text().splitlines() if self.path.exists() else []
        return Progress.from_json(self.old.pop(0), "progress") if self.old else Progress()

    def store(self):
        self.old += [json.dumps(row) for row in self.rows]
        text = "\n".join([self.progress.to_json(), *self.old]) + "\n"
        half = len(self.progress.to_json()) + (len(text) - len(self.progress.to_json())) // 2
        with self.path.open("w") as file:
            file.write(text[: text.index("\n", half) + 1])
            file.flush()
            failpoint("dest.write.partial")
            file.write(text[text.index("\n", half) + 1 :])
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class InPlace(Broken):
    """Writes the file, progress and all, in place."""

    writer = InPlaceWriter


class UnfencedWriter(Buffered):
    def load(self):
        self.connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=30
        )
        self.connection.execute("CREATE TABLE IF NOT EXISTS scores (id TEXT, x REAL, y REAL)")
        self.connection.execute("CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY, text TEXT)")
        found = self.connection.execute("SELECT text FROM progress").fetchone()
        return Progress.from_json(found[0], "progress") if found else Progress()

    def store(self):
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany("INSERT INTO scores VALUES (:id, :x, :y)", self.rows)
        self.connection.execute("INSERT OR REPLACE INTO progress VALUES (1, ?)", (self.progress.to_json(),))
        self.connection.execute("COMMIT")


@dataclass(frozen=True)
class Unfenced(Broken):
    """Records and progress in one transaction, but nobody asks whether another run has taken over."""

    writer = UnfencedWriter
