"""Whole files as records: each once, in the order of their names, and what cannot be read is named."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from mlinfer import BadRecord, Batch, ChangedError, ConfigError, EndOfInput, InferencePipeline, SchemaError
from mlinfer.destinations import CsvDestination, MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import FilesSource
from mlinfer.sources import _whole_files as module


def put(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read(
    source: FilesSource, after: object = None, columns: tuple[str, ...] = (), size: int = 100
) -> list[Batch]:
    wanted = pa.schema([source.schema().field(name) for name in columns]) if columns else source.schema()
    batches = []
    with source.open(source.partitions()[0], after, wanted) as reader:
        while True:
            try:
                batch = reader.read(size, 0)
            except EndOfInput:
                return batches
            if batch is None:
                return batches
            batches.append(batch)


def names(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.records.column("path").to_pylist()]


def test_a_file_is_a_record_with_its_path_bytes_size_and_time(tmp_path):
    put(tmp_path, b=b"two", a__x=b"\x00\xff")
    os.utime(tmp_path / "b", ns=(0, 1_700_000_000_123_456_789))
    [batch] = read(FilesSource(tmp_path))
    rows = batch.records.to_pylist()
    assert [(row["path"], row["bytes"], row["size"]) for row in rows] == [
        ("a/x", b"\x00\xff", 2),
        ("b", b"two", 3),
    ]
    assert rows[1]["modified"] == datetime.fromtimestamp(1_700_000_000, UTC).replace(microsecond=123_456)
    assert batch.ids.array().to_pylist() == ["a/x", "b"]
    assert batch.records.schema.equals(FilesSource(tmp_path).schema())


def test_contents_are_read_only_when_they_are_wanted(tmp_path):
    put(tmp_path, a=b"x" * 100)
    [batch] = read(FilesSource(tmp_path, max_bytes=10), columns=("path", "size"))
    assert batch.records.to_pylist() == [{"path": "a", "size": 100}]
    assert batch.bad == ()


def test_a_file_that_is_too_large_or_unreadable_is_a_bad_record_and_the_others_go_on(tmp_path):
    put(tmp_path, a=b"x", b=b"x" * 11, d=b"x" * 10)
    put(tmp_path, c=b"")
    source = FilesSource(tmp_path, max_bytes=10)
    with source.open("files", None, source.schema()) as reader:
        (tmp_path / "c").unlink()
        batch = reader.read(100, 0)
    assert names([batch]) == ["a", "d"]
    assert [(bad.id, bad.kind) for bad in batch.bad] == [("b", "too_large"), ("c", "unreadable")]
    assert batch.bad[0].message == "wanted at most 10 bytes, found 11; raise max_bytes to read it"
    assert isinstance(batch.bad[1], BadRecord)


def test_a_batch_is_bounded_in_records_and_in_bytes(tmp_path, monkeypatch):
    put(tmp_path, **{f"f{n}": b"x" * 10 for n in range(7)})
    assert [len(batch) for batch in read(FilesSource(tmp_path), size=3)] == [3, 3, 1]
    monkeypatch.setattr(module, "BATCH_BYTES", 20)
    assert [len(batch) for batch in read(FilesSource(tmp_path), size=100)] == [2, 2, 2, 1]


@pytest.mark.parametrize("done", range(5))
def test_every_position_goes_on_with_the_next_file(tmp_path, done):
    put(tmp_path, a=b"", b=b"", c=b"", d=b"")
    batches = read(FilesSource(tmp_path), size=1)
    after = batches[done - 1].position if done else None
    assert names(read(FilesSource(tmp_path), after)) == ["a", "b", "c", "d"][done:]
    assert FilesSource(tmp_path).remaining("files", after) == 4 - done


def test_a_second_run_delivers_exactly_the_new_file(tmp_path):
    put(tmp_path / "in", a=b"1", b=b"22")
    there = MemoryDestination()
    host = FunctionHost(
        lambda **columns: [len(b) for b in columns["bytes"]], {"bytes": "binary"}, {"n": pa.int64()}, "numpy"
    )
    pipeline = InferencePipeline(FilesSource(tmp_path / "in"), host, there, name="files", keep=["path"])
    assert pipeline.run().delivered == 2
    assert pipeline.run().delivered == 0
    put(tmp_path / "in", c=b"333")
    assert pipeline.run().delivered == 1
    assert there.table().to_pylist() == [{"path": "a", "n": 1}, {"path": "b", "n": 2}, {"path": "c", "n": 3}]


def test_a_new_file_that_sorts_before_delivered_ones_is_an_error(tmp_path):
    put(tmp_path, b=b"", d=b"")
    position = read(FilesSource(tmp_path))[-1].position
    put(tmp_path, c=b"")
    with pytest.raises(
        ChangedError, match=r"names that sort behind 'd'.*found 1 more file\(s\) before it; rename"
    ):
        read(FilesSource(tmp_path), position)


def test_delivered_files_may_be_removed(tmp_path):
    put(tmp_path, a=b"", b=b"")
    position = read(FilesSource(tmp_path))[-1].position
    (tmp_path / "a").unlink()
    put(tmp_path, c=b"")
    assert names(read(FilesSource(tmp_path), position)) == ["c"]


def test_another_folder_with_equal_names_is_refused_and_not_passed_over(tmp_path):
    put(tmp_path / "f1", a=b"1", b=b"22")
    put(tmp_path / "f2", a=b"333", b=b"4444")
    host = FunctionHost(
        lambda **columns: [len(b) for b in columns["bytes"]], {"bytes": "binary"}, {"n": pa.int64()}, "numpy"
    )
    out = CsvDestination(tmp_path / "out.csv")
    first, second = (
        InferencePipeline(FilesSource(tmp_path / folder), host, out, name="files", keep=["path"])
        for folder in ("f1", "f2")
    )
    assert first.run().delivered == 2
    with pytest.raises(
        ChangedError, match=r"f2/b: wanted the file that was delivered last, found that it was replaced"
    ):
        second.run()
    assert second.run(from_start=True).delivered == 2
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ['"a",3', '"b",4']


def test_a_file_that_came_as_another_went_is_noticed(tmp_path):
    put(tmp_path, b=b"", c=b"", d=b"")
    position = read(FilesSource(tmp_path))[-1].position
    (tmp_path / "b").unlink()
    put(tmp_path, a=b"")
    with pytest.raises(ChangedError, match="found as many as were delivered, but not the same"):
        read(FilesSource(tmp_path), position)


def test_a_file_that_came_as_all_others_went_is_noticed(tmp_path):
    put(tmp_path, b=b"", c=b"", d=b"")
    position = read(FilesSource(tmp_path))[-1].position
    for name in "bcd":
        (tmp_path / name).unlink()
    put(tmp_path, e=b"")
    assert names(read(FilesSource(tmp_path), position)) == ["e"]
    put(tmp_path, a=b"")
    with pytest.raises(
        ChangedError, match="'d', the last one delivered, found that it is gone, and others are there"
    ):
        read(FilesSource(tmp_path), position)


def test_progress_without_a_proof_is_still_read(tmp_path):
    put(tmp_path, a=b"", b=b"", c=b"")
    assert names(read(FilesSource(tmp_path), {"last": "b", "count": 2})) == ["c"]


def test_a_followed_folder_gives_new_files_and_refuses_late_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIST_AGAIN_SECONDS", 0.0)
    source = FilesSource(tmp_path, follow=True)
    assert not source.bounded
    with source.open("files", None, source.schema()) as reader:
        assert reader.read(10, 0) is None
        put(tmp_path, b=b"")
        assert names([reader.read(10, 0)]) == ["b"]
        (tmp_path / "b").unlink()
        put(tmp_path, c=b"", d=b"")
        batch = reader.read(10, 0)
        assert names([batch]) == ["c", "d"]
        assert (batch.position["last"], batch.position["count"]) == ("d", 2)
        put(tmp_path, a=b"")
        with pytest.raises(ChangedError, match="found a before it"):
            reader.read(10, 0)


def test_unknown_columns_and_sizes_are_refused(tmp_path):
    put(tmp_path, a=b"")
    source = FilesSource(tmp_path)
    with (
        pytest.raises(SchemaError, match=r"'pixels'.*no such column.*a file has path, bytes"),
        source.open("files", None, pa.schema([("pixels", pa.int8())])),
    ):
        pass
    with pytest.raises(ConfigError, match="wanted max_bytes from 1 to"):
        FilesSource(tmp_path, max_bytes=2**31).partitions()


def test_progress_of_another_source_is_refused(tmp_path):
    put(tmp_path, a=b"")
    with pytest.raises(ChangedError, match="wanted progress of a FilesSource, found 7"):
        read(FilesSource(tmp_path), 7)
