"""Whatever fails when parts are closed, the first error is the one that is told."""

from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow.parquet as pq
import pytest

from mlinfer import ComponentError, FencedError, InferencePipeline, RejectsError
from mlinfer.destinations import MemoryDestination, ParquetDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import JsonLinesSource, MemorySource

FIELDS = {"inputs": {"x": "double"}, "outputs": {"y": "double"}, "takes": "numpy", "version": "1"}


class Stuck(MemoryDestination):
    """Can be written, and not be closed."""

    @contextmanager
    def open(self, schema, scope):
        with super().open(schema, scope) as writer:
            try:
                yield writer
            finally:
                raise RuntimeError("the connection was lost")


@dataclass(frozen=True)
class StuckHost(FunctionHost):
    @contextmanager
    def open(self):
        with super().open() as model:
            yield model
        raise OSError("the device is gone")


class StuckSource(MemorySource):
    @contextmanager
    def open(self, partition, after, wanted):
        with super().open(partition, after, wanted) as reader:
            try:
                yield reader
            finally:
                raise RuntimeError("the file is gone")


def run(x, *, destination=None, host=None, source=None, answer=lambda x: x):
    host = host or FunctionHost(answer, **FIELDS)
    destination = destination or MemoryDestination()
    source = (source or MemorySource)({"x": x})
    return InferencePipeline(source, host, destination, name="p").run()


def test_what_ended_the_run_is_told_and_the_failure_to_close_is_a_note_to_it():
    with pytest.raises(RejectsError, match="no place for them") as caught:
        run([1.0, None], destination=Stuck())
    assert caught.value.__notes__ == [
        "destination Stuck could not be closed either: RuntimeError: the connection was lost"
    ]

    def fenced(x):
        raise FencedError("another run has taken over")

    with pytest.raises(FencedError):
        run([1.0], destination=Stuck(), answer=fenced)


def test_a_part_that_cannot_be_closed_is_named():
    destination = Stuck()
    with pytest.raises(ComponentError) as caught:
        run([1.0], destination=destination)
    assert str(caught.value) == (
        "destination Stuck: wanted it to be closed, found RuntimeError: the connection was lost; "
        "what was committed is safe, the next run goes on from there"
    )
    assert destination.table().to_pylist() == [{"y": 1.0}]
    with pytest.raises(
        ComponentError, match="host StuckHost: wanted it to be closed, found OSError: the device"
    ):
        run([1.0], host=StuckHost(lambda x: x, **FIELDS))
    with pytest.raises(ComponentError, match=r"source StuckSource: .* RuntimeError: the file is gone"):
        run([1.0], source=StuckSource)


def test_a_place_of_files_for_rejects_gets_none_for_a_commit_without_rejects(tmp_path):
    for day in range(4):
        bad = '{"x": null}\n' if day == 2 else ""
        (tmp_path / f"{day}.jsonl").write_text('{"x": 1}\n' * 30 + bad)
    pipeline = InferencePipeline(
        JsonLinesSource(tmp_path / "*.jsonl"), FunctionHost(lambda x: x, **FIELDS), ParquetDestination(tmp_path / "main"),
        name="p", rejects=ParquetDestination(tmp_path / "rejects"),
    )  # fmt: skip
    report = pipeline.run()
    assert (report.delivered, report.rejected) == (120, 1)
    parts = sorted((tmp_path / "rejects").rglob("*.parquet"))
    assert sum(pq.read_metadata(part).num_rows for part in parts) == 1
    # the first, which says what fields there are, and the one with the reject
    assert len(parts) <= 2 < report.commits
    for day in range(4, 7):
        (tmp_path / f"{day}.jsonl").write_text('{"x": 1}\n')
        pipeline.run()
    more = sorted((tmp_path / "rejects").rglob("*.parquet"))
    assert len(more) <= len(parts) + 3, "each run says once that it has taken over"
    assert len(pipeline.rejected()) == 1
    pipeline.run(from_start=True)
    assert len(pipeline.rejected()) == 1
    (tmp_path / "2.jsonl").write_text('{"x": 1}\n')
    pipeline.run(from_start=True)
    assert len(pipeline.rejected()) == 0
