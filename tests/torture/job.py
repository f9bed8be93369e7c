"""What the children run: `python -m torture.job FOLDER KIND [ROWS [PAUSE]]`; exit codes as at the command line."""
# ruff: noqa: T201 - a parent process or a person reads what is printed

import torture.lean  # isort: skip  # noqa: F401 - before pyarrow

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import Budget, Checkpoint, InferencePipeline, Retry
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
from torture.broken import InPlace, ProgressFirst, Unfenced
from torture.records import LinesSource, QueueSource

RETRY = Retry(attempts=60, first_wait=0.05, longest_wait=0.5)  # a server that was killed is back soon


class Sql(SqlDestination):
    commit_seconds = 0.0


class Parquet(ParquetDestination):
    commit_seconds = 0.0


class JsonLines(JsonLinesDestination):
    commit_seconds = 0.0


class Csv(CsvDestination):
    commit_seconds = 0.0


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


def pipeline(folder, kind, rows=5, pause=0.001):
    """The pipeline under torture."""
    source = (
        QueueSource(folder / "input", rows, pause, eager=kind == "eager-queue")
        if "queue" in kind
        else LinesSource(folder / "input", rows, pause)
    )
    destination, rejects = parts(folder, kind)
    return InferencePipeline(
        source,
        FunctionHost(answer, {"x": pa.float64()}, {"y": pa.float64()}, version="1"),
        destination,
        rejects=rejects,
        name="torture",
        keep=["id", "x"],
        budget=Budget(ratio=1),
        workers=4,  # so that there is a lane for every partition
        retry=RETRY,
        checkpoint=Checkpoint(folder / "progress.json") if kind == "tee" else None,
    )


def main(folder, kind, rows="5", pause="0.001"):
    with ending(debug=True) as end:  # whoever looks into a failure wants to know where
        report = pipeline(Path(folder), kind, int(rows), float(pause)).run()
        print(report.delivered, report.rejected, flush=True)
    return end.code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
