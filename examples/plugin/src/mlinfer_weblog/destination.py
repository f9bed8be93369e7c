"""JSON documents by the id of their record, in one SQLite file."""

import json
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from mlinfer import DataDestination, FencedError, Progress, json_objects, located

TABLES = (
    "CREATE TABLE IF NOT EXISTS documents (pipeline, output, id, document, PRIMARY KEY (pipeline, output, id))",
    "CREATE TABLE IF NOT EXISTS progress (pipeline, output, progress, PRIMARY KEY (pipeline, output))",
)


@dataclass(frozen=True)
class Documents(DataDestination):
    """A table of documents, and how far each pipeline has come, which is stored in the same transaction."""

    path: str
    transactional = True  # records and progress are stored in one atomic step
    keyed = True  # a record that is delivered again replaces itself

    @contextmanager
    def open(self, schema, scope):
        file, mode = located(self.path).absolute(), "rwc"
        if scope.read_only:  # `mlinfer check`: look, and create nothing
            mode = "ro" if file.exists() and file.stat().st_size else "memory"
        options = {
            "uri": True,
            "isolation_level": None,
            "check_same_thread": False,
        }  # we write BEGIN ourselves
        with closing(sqlite3.connect(f"{file.as_uri()}?mode={mode}", **options)) as database:
            yield DocumentWriter(database, scope, writable=mode != "ro")

    def records(self, scope):
        """Read back, for `mlinfer rejects ls`; creates nothing."""
        file = located(self.path).absolute()
        if not file.exists() or not file.stat().st_size:
            return
        query = "SELECT document FROM documents WHERE pipeline = ? AND output = ? ORDER BY rowid"
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            texts = database.execute(query, (scope.pipeline, scope.output)).fetchall()
        yield pa.RecordBatch.from_pylist([json.loads(text) for (text,) in texts])


class DocumentWriter:
    def __init__(self, database, scope, *, writable):
        self.database, self.place = database, (scope.pipeline, scope.output)
        self.waiting, self.fresh = [], scope.fresh
        if not writable:
            self.epoch = self.stored().epoch
            return
        with self.transaction():
            for table in TABLES:
                database.execute(table)
            stored = self.stored()
            self.epoch = stored.epoch + 1 if scope.epoch is None else scope.epoch
            if scope.epoch is None:  # a new run takes over: older ones can no longer commit
                self.save(stored)

    def write(self, batch):
        documents = zip(batch.ids.array().to_pylist(), json_objects(batch.records).to_pylist(), strict=True)
        self.waiting += [(*self.place, *document) for document in documents]

    def commit(self, progress):
        with self.transaction():
            stored = self.stored()
            if stored.epoch != self.epoch:
                msg = f"{self.place}: wanted epoch {self.epoch}, found {stored.epoch}: another run has taken over"
                raise FencedError(msg)
            if self.fresh:  # run(from_start=True): replace what this pipeline has stored before
                self.database.execute("DELETE FROM documents WHERE pipeline = ? AND output = ?", self.place)
                stored = Progress()
            self.database.executemany("REPLACE INTO documents VALUES (?, ?, ?, ?)", self.waiting)
            self.save(stored.merged(progress))
        self.waiting, self.fresh = [], False

    def committed(self):
        return Progress(epoch=self.epoch) if self.fresh else self.stored()

    def stored(self):
        query = "SELECT progress FROM progress WHERE pipeline = ? AND output = ?"
        found = self.database.execute(query, self.place).fetchone()
        return Progress.from_json(found[0], "documents") if found else Progress()

    def save(self, progress):
        text = replace(progress, epoch=self.epoch).to_json()
        self.database.execute("REPLACE INTO progress VALUES (?, ?, ?)", (*self.place, text))

    @contextmanager
    def transaction(self):
        with self.database:  # commits at the end, and rolls back on an error
            self.database.execute("BEGIN IMMEDIATE")  # from here on nobody else writes
            yield
