"""What the children run: `python -m torture.job FOLDER KIND [PAUSE]`. Exit codes: 0 done or drained, 3 fenced."""
# ruff: noqa: T201 - a parent process or a person reads what is printed

import torture.lean  # isort: skip  # noqa: F401 - before pyarrow

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import Budget, FencedError, InferencePipeline
from mlinfer.destinations import JsonLinesDestination, MemoryDestination, ParquetDestination, SqlDestination
from mlinfer.hosts import FunctionHost
from torture.broken import InPlace, ProgressFirst, Unfenced
from torture.harness import FENCED
from torture.records import LinesSource, QueueSource


class Sql(SqlDestination):
    commit_seconds = 0.0


class Parquet(ParquetDestination):
    commit_seconds = 0.0


class JsonLines(JsonLinesDestination):
    commit_seconds = 0.0


def answer(records):
    return pc.add(pc.multiply(records.column("x"), 3.0), 1.0)


def parts(folder, kind, pause):
    """The source, the destination and the place for rejects."""
    lines, database = LinesSource(folder / "input", pause=pause), f"sqlite:///{folder}/out.db"
    apart = JsonLines(folder / "rejects.jsonl")
    if kind == "sqlite":
        return lines, Sql(database, "scores"), Sql(database, "rejects")
    if kind in {"queue", "eager-queue"}:
        queue = QueueSource(folder / "input", eager=kind == "eager-queue")
        return queue, Sql(database, "scores", key="id"), Sql(database, "rejects", key="record_id")
    others = {
        "parquet": lambda: (Parquet(folder / "out"), Parquet(folder / "rejects")),
        "jsonl": lambda: (JsonLines(folder / "out.jsonl"), apart),
        "progress-first": lambda: (ProgressFirst(folder / "out.jsonl"), apart),
        "in-place": lambda: (InPlace(folder / "out.jsonl"), apart),
        "unfenced": lambda: (Unfenced(folder / "out.db"), MemoryDestination()),
    }
    return lines, *others[kind]()


def pipeline(folder, kind, pause=0.001):
    """The pipeline under torture."""
    source, destination, rejects = parts(Path(folder), kind, pause)
    host = FunctionHost(answer, {"x": pa.float64()}, {"y": pa.float64()}, version="1")
    return InferencePipeline(
        source,
        host,
        destination,
        rejects=rejects,
        name="torture",
        keep=["id", "x"],
        budget=Budget(ratio=None),
    )


def main(folder, kind, pause="0.001"):
    try:
        report = pipeline(folder, kind, float(pause)).run()
    except FencedError as error:
        print(f"fenced: {error}", flush=True)
        return FENCED
    print(report.delivered, report.rejected, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
