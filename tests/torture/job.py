"""What the children run: `python -m torture.job FOLDER KIND [ROWS [PAUSE]]`; exit codes as at the command line."""
# ruff: noqa: T201 - a parent process or a person reads what is printed

import torture.lean  # isort: skip  # noqa: F401 - before pyarrow

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import Budget, Checkpoint, DataSource, Host, InferencePipeline, Retry
from mlinfer._cli._ending import ending
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    SqlDestination,
    Tee,
)
from mlinfer.hosts import FunctionHost
from mlinfer.sources import CsvSource, JsonLinesSource
from torture.broken import InPlace, ProgressFirst, Unfenced
from torture.records import END, LinesSource, QueueSource, ready

RETRY = Retry(attempts=60, first_wait=0.05, longest_wait=0.5)  # a server that was killed is back soon


class Sql(SqlDestination):
    commit_seconds = 0.0


class Parquet(ParquetDestination):
    commit_seconds = 0.0


class JsonLines(JsonLinesDestination):
    commit_seconds = 0.0


class Csv(CsvDestination):
    commit_seconds = 0.0


@dataclass(frozen=True)
class Renewed(Host):
    """The same model under a new version after every second batch."""

    host: Host

    @contextmanager
    def open(self):
        with self.host.open() as model:
            yield RenewedModel(model, 1)


class RenewedModel:
    def __init__(self, model, version):
        self._model, self._version, self._asked = model, version, 0
        self.signature, self.infer = replace(model.signature, version=str(version)), model.infer

    def newer(self):
        self._asked += 1
        return RenewedModel(self._model, self._version + 1) if self._asked > 2 else None


def answer(records):
    """Three times the value, and one; no value may be negative."""
    x = records.column("x")
    if (pc.min(x).as_py() or 0) < 0:
        raise ValueError("a negative value")
    return pc.add(pc.multiply(x, 3.0), 1.0)


def postgres(folder):
    """Two tables of one database; the harness has made the first, and may have put a proxy before it."""
    through = folder / "child-url"
    url = (through if through.exists() else folder / "url").read_text()
    return Sql(url, "scores", if_exists="append"), Sql(url, "rejects")


def parts(folder, kind):
    """The destination, and the place for rejects."""
    database, apart = f"sqlite:///{folder}/out.db", JsonLines(folder / "rejects.jsonl")
    kinds = {
        "sqlite": lambda: (Sql(database, "scores"), Sql(database, "rejects")),
        **dict.fromkeys(
            ("swaps", "followed-jsonl", "followed-csv"),
            lambda: (Sql(database, "scores"), Sql(database, "rejects")),
        ),
        "postgres": lambda: postgres(folder),
        "parquet": lambda: (Parquet(folder / "out"), Parquet(folder / "rejects")),
        "jsonl": lambda: (JsonLines(folder / "out.jsonl"), apart),
        "csv": lambda: (Csv(folder / "out.csv"), apart),
        "queue": lambda: (Sql(database, "scores", key="id"), Sql(database, "rejects", key="record_id")),
        "unkeyed-queue": lambda: (Sql(database, "scores"), Sql(database, "rejects")),
        "tee": lambda: (Tee(JsonLines(folder / "out.jsonl"), Csv(folder / "copy.csv")), apart),
        "progress-first": lambda: (ProgressFirst(folder / "out.jsonl"), apart),
        "in-place": lambda: (InPlace(folder / "out.jsonl"), apart),
        "unfenced": lambda: (Unfenced(folder / "out.db"), MemoryDestination()),
    }
    kinds["eager-queue"] = kinds["queue"]
    return kinds[kind]()


class Haltingly:
    """A reader that takes a few records and pauses: else a file would be one batch, with no moments in its middle."""

    def __init__(self, reader, rows, pause):
        self._reader, self._rows, self._pause = reader, rows, pause

    def read(self, max_records, timeout):
        time.sleep(self._pause)
        return self._reader.read(min(max_records, self._rows), timeout)


@dataclass(frozen=True)
class Followed(DataSource):
    """A source of mlinfer that follows files, and reads them haltingly."""

    source: DataSource
    rows: int
    pause: float
    resume = "seek"

    @property
    def bounded(self):
        return self.source.bounded

    def schema(self):
        return self.source.schema()

    def partitions(self):
        return self.source.partitions()

    @contextmanager
    def open(self, *asked):
        ready()
        with self.source.open(*asked) as reader:
            yield Haltingly(reader, self.rows, self.pause)


def source_of(folder, kind, rows, pause):
    """Where records come from: sources of these tests, slow ones, or those of mlinfer, that follow files until the end."""
    place = folder / "input"
    if "queue" in kind:
        return QueueSource(place, rows, pause, eager=kind == "eager-queue")
    if kind.startswith("followed-"):
        followed = CsvSource if kind == "followed-csv" else JsonLinesSource
        return Followed(
            followed(place / "[0-9]", follow=not (place / END).exists()), rows, 15 * pause
        )  # a commit takes longer than a read
    return LinesSource(place, rows, pause)


def pipeline(folder, kind, rows=5, pause=0.001):
    """The pipeline under torture."""
    restarted, renewed = kind.startswith("restarted-"), folder / "version"
    destination, rejects = parts(folder, kind.removeprefix("restarted-"))
    version = renewed.read_text() if renewed.exists() else "1"
    host = FunctionHost(answer, {"x": pa.float64()}, {"y": pa.float64()}, version=version)
    return InferencePipeline(
        source_of(folder, kind, rows, pause),
        Renewed(host) if kind == "swaps" else host,
        destination,
        rejects=rejects,
        name="torture",
        keep=["id", "x"],
        budget=Budget(ratio=1),
        workers=4,  # so that there is a lane for every partition
        retry=RETRY,
        checkpoint=Checkpoint(folder / "progress.json") if kind == "tee" else None,
        on_change="continue" if kind == "swaps" else "restart" if restarted else "stop",
        lineage=["model_version"] if restarted else (),
    )


def main(folder, kind, rows="5", pause="0.001"):
    with ending(debug=True) as end:  # whoever looks into a failure wants to know where
        report = pipeline(Path(folder), kind, int(rows), float(pause)).run()
        print(report.delivered, report.rejected, flush=True)
    return end.code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
