"""Parquet in and out: every record once, damaged files named, and two runs never both."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import re
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlinfer import (
    Batch,
    ChangedError,
    ComponentError,
    ConfigError,
    EndOfInput,
    FencedError,
    InferencePipeline,
    Progress,
    RecordIds,
    SchemaError,
    Scope,
)
from mlinfer.destinations import MemoryDestination, ParquetDestination
from mlinfer.destinations import _parquet_writer as writing
from mlinfer.hosts import FunctionHost
from mlinfer.sources import ParquetSource
from mlinfer.sources import _parquet_footer as footers

CORPUS = Path(__file__).parents[2] / "shared" / "corpora" / "parquet"
DAMAGED = sorted(CORPUS.glob("*/*.parquet"))
XY = pa.schema([("x", pa.int64()), ("s", pa.string())])
DOUBLE = FunctionHost(
    lambda x: x * 2, {"x": pa.int64()}, {"y": pa.int64()}, "numpy", version="1", shared=True
)


def table(rows: range) -> pa.Table:
    return pa.table({"x": pa.array(rows, pa.int64()), "s": [f"v{n % 3}" for n in rows]})


def put(path: Path, rows: range, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(rows), path, **options)
    return path


def read(source: ParquetSource, after=None, wanted: pa.Schema | None = None, size=1000) -> list[Batch]:
    """All partitions to their ends; `after` by partition."""
    batches = []
    for name in source.partitions():
        with source.open(name, (after or {}).get(name), wanted or source.schema()) as reader:
            try:
                while True:
                    batches.append(reader.read(size, 0))
            except EndOfInput:
                pass
    return batches


def xs(batches) -> list[int]:
    return [value for batch in batches for value in batch.records.column("x").to_pylist()]


def pipeline(folder: Path, **options) -> InferencePipeline:
    return InferencePipeline(
        ParquetSource(folder / "in"),
        DOUBLE,
        ParquetDestination(folder / "out"),
        name="double",
        keep=["s", "x"],
        **options,
    )


def answers(folder: Path) -> list[tuple[int, int, str]]:
    return sorted(pl.read_parquet(folder / "*.parquet").select("x", "y", "s").rows())


def expected(*ranges: range) -> list[tuple[int, int, str]]:
    return sorted((n, n * 2, f"v{n % 3}") for rows in ranges for n in rows)


def batch_of(records: pa.RecordBatch, start: int = 0) -> Batch:
    return Batch(records, "p", start + len(records), RecordIds.ordinals("p", start, len(records)))


def open_writer(folder: Path, stack, run="r1", *, schema=XY, recipe=None, **scope):
    recipe = recipe or ParquetDestination(folder)
    return stack.enter_context(recipe.open(schema, Scope("pipe", run=run, **scope)))


def deliver(writer, rows: range, partition="p") -> None:
    writer.write(batch_of(table(rows).to_batches()[0]))
    writer.commit(Progress({partition: rows.stop}, {}, "f"))


@pytest.fixture
def stack():
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield stack


# --- a pipeline from Parquet to Parquet ------------------------------------------------------------------------------


def test_a_run_delivers_every_record_a_second_one_none_and_a_new_file_exactly_its_own(tmp_path):
    put(tmp_path / "in/a.parquet", range(1000), row_group_size=100)
    put(tmp_path / "in/b.parquet", range(1000, 1500))
    assert pipeline(tmp_path).run().delivered == 1500
    assert answers(tmp_path / "out") == expected(range(1500))
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert pipeline(tmp_path).run().delivered == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    put(tmp_path / "in/c.parquet", range(2000, 2010))
    assert pipeline(tmp_path).run().delivered == 10
    assert answers(tmp_path / "out") == expected(range(1500), range(2000, 2010))


def test_from_start_replaces_what_was_delivered(tmp_path):
    put(tmp_path / "in/a.parquet", range(100))
    pipeline(tmp_path).run()
    put(tmp_path / "in/a.parquet", range(50))
    with pytest.raises(ChangedError, match=r"a.parquet: wanted the file that was read before"):
        pipeline(tmp_path).run()
    assert pipeline(tmp_path).run(from_start=True).delivered == 50
    assert answers(tmp_path / "out") == expected(range(50))
    assert pipeline(tmp_path).run().delivered == 0


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[2])
import test_parquet as t
from pathlib import Path
from mlinfer import Batching
t.pipeline(Path(sys.argv[1]), batching=Batching(max_records=100)).run()
"""


def run_program(folder: Path, failpoints: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"MLINFER_TEST": "1", "MLINFER_FAILPOINTS": failpoints}
    arguments = [sys.executable, "-c", program, str(folder), str(Path(__file__).parent)]
    return subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize(
    "place", ["dest.commit.before=kill@3", "dest.commit.after=kill@1", "dest.write.partial=kill@3"]
)
def test_a_run_that_is_killed_and_run_again_equals_an_undisturbed_one(tmp_path, place):
    for n in range(4):
        put(tmp_path / f"in/{n}.parquet", range(n * 100, n * 100 + 100))
    died = run_program(tmp_path, place)
    assert died.returncode == -signal.SIGKILL, died.stderr
    done = len(answers(tmp_path / "out"))
    assert 0 < done < 400
    assert pipeline(tmp_path).run().delivered == 400 - done
    assert answers(tmp_path / "out") == expected(range(400))
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[2])
import test_parquet as t
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    t.pipeline(Path(sys.argv[1])).run()
except t.ComponentError as error:
    print(error)
"""


def test_a_full_disk_is_an_error_that_names_the_folder_and_leaves_no_torn_part(tmp_path):
    put(tmp_path / "in/a.parquet", range(100))
    pipeline(tmp_path).run()
    put(tmp_path / "in/b.parquet", range(100, 20_000))
    failed = run_program(tmp_path, "", FULL_DISK)
    assert failed.returncode == 0, failed.stderr
    assert f"{tmp_path / 'out'}: wanted to write a part, found: " in failed.stdout
    assert "File too large" in failed.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["part-00000000.parquet"]
    assert answers(tmp_path / "out") == expected(range(100))
    pipeline(tmp_path).run()
    assert answers(tmp_path / "out") == expected(range(20_000))


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 10, 25, 1000])
def test_every_position_goes_on_with_the_next_row(tmp_path, size):
    put(tmp_path / "a.parquet", range(25), row_group_size=10)
    source = ParquetSource(tmp_path)
    batches = read(source, size=size)
    assert xs(batches) == list(range(25))
    assert all(len(batch) <= size for batch in batches)
    for batch in batches:
        row = batch.position["row"]
        rest = read(source, {"a.parquet": batch.position}, size=3)
        assert xs(rest) == list(range(row, 25))
        assert source.remaining("a.parquet", batch.position) == 25 - row
        if rest:
            assert rest[0].ids.array()[0].as_py() == f"a.parquet#{row}"


@pytest.mark.parametrize(
    ("size", "lengths"),
    [(15, [15, 15, 15, 15, 10]), (17, [15, 15, 15, 15, 10]), (30, [30, 30, 10]), (65, [60, 10])],
)
def test_batches_end_where_row_groups_do(tmp_path, size, lengths):
    """One that spans two groups is put together by copying, and texts with dictionaries are cut there anyway."""
    put(tmp_path / "a.parquet", range(70), row_group_size=30)
    assert [len(batch) for batch in read(ParquetSource(tmp_path), size=size)] == lengths


def test_a_reader_may_be_asked_for_another_number_each_time(tmp_path):
    put(tmp_path / "a.parquet", range(25), row_group_size=10)
    source = ParquetSource(tmp_path)
    with source.open("a.parquet", None, source.schema()) as reader:
        batches = [reader.read(size, 0) for size in (4, 2, 100, 1)]
        with suppress(EndOfInput):
            while True:
                batches.append(reader.read(100, 0))
    assert xs(batches) == list(range(25))
    assert [len(batch) for batch in batches[:2]] == [4, 2]


def corrupt(path: Path, column: int, group: int = 0) -> None:
    """Overwrite the pages of one column chunk."""
    chunk = pq.read_metadata(path).row_group(group).column(column)
    with path.open("r+b") as file:
        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        file.write(b"\xff" * chunk.total_compressed_size)


def test_columns_that_nobody_wants_are_not_read(tmp_path):
    path = put(tmp_path / "a.parquet", range(25))
    corrupt(path, 1)
    with pytest.raises(OSError):  # noqa: PT011 - any: the other reader fails as well
        pq.read_table(path)
    assert xs(read(ParquetSource(path), wanted=pa.schema([("x", pa.int64())]))) == list(range(25))


def test_row_groups_before_the_position_are_not_read(tmp_path):
    path = put(tmp_path / "a.parquet", range(30), row_group_size=10)
    position = read(ParquetSource(path), size=10)[0].position
    stamp = path.stat()
    corrupt(path, 0)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert xs(read(ParquetSource(path), {"a.parquet": position})) == list(range(10, 30))


def test_damage_in_the_middle_names_the_file_and_the_row(tmp_path):
    path = put(tmp_path / "a.parquet", range(30), row_group_size=10)
    corrupt(path, 0, group=2)
    with pytest.raises(
        ComponentError, match=r"a.parquet: reading failed at row 20: .*the file is damaged: restore it"
    ):
        read(ParquetSource(path), size=10)


@pytest.mark.parametrize("kind", [pa.string(), pa.string_view()])
def test_strings_that_are_dictionaries_in_the_file_stay_so_and_others_do_not(tmp_path, kind):
    path = tmp_path / "a.parquet"
    rows = {"few": ["left", "right"] * 500, "many": [f"a long identifier {n}" for n in range(1000)]}
    pq.write_table(pa.table(rows, schema=pa.schema([("few", kind), ("many", kind)])), path)
    [batch] = read(ParquetSource(path))
    assert batch.records.schema.field("few").type == pa.dictionary(pa.int32(), pa.string())
    assert batch.records.schema.field("many").type == kind
    assert {name: batch.records.column(name).to_pylist() for name in rows} == rows
    assert ParquetSource(path).schema() == pa.schema([("few", kind), ("many", kind)])


def test_a_large_file_is_split_into_runs_of_row_groups_whose_records_keep_their_ids(tmp_path, monkeypatch):
    path = put(tmp_path / "big.parquet", range(100), row_group_size=10)
    whole = read(ParquetSource(path))
    monkeypatch.setattr(footers, "SPLIT_OVER", 100)
    monkeypatch.setattr(footers, "RUN_BYTES", 3 * 60)
    source = ParquetSource(path)
    parts = source.partitions()
    assert len(parts) > 2
    assert parts[0].startswith("big.parquet[0:")
    assert parts == source.partitions()
    batches = read(source, size=7)
    assert xs(batches) == list(range(100))
    ids = [name for batch in batches for name in batch.ids.array().to_pylist()]
    assert ids == whole[0].ids.array().to_pylist()
    middle = next(batch for batch in batches if batch.partition == parts[1])
    [rest] = [b for b in read(source, {parts[1]: middle.position}) if b.partition == parts[1]]
    assert xs([rest])[0] == middle.position["row"]


def test_ids_come_from_the_named_column_and_from_the_row_where_it_is_empty(tmp_path):
    pq.write_table(pa.table({"k": ["a", None, "c"], "x": [1, 2, 3]}), tmp_path / "a.parquet")
    source = ParquetSource(tmp_path, id_column="k")
    [batch] = read(source, wanted=pa.schema([("x", pa.int64())]))
    assert batch.ids.array().to_pylist() == ["a", "a.parquet#1", "c"]
    with pytest.raises(SchemaError, match=r"'nope'.*no such column in a.parquet; columns there are: k, x"):
        ParquetSource(tmp_path, id_column="nope").schema()


def test_a_file_that_lacks_a_column_is_named(tmp_path):
    put(tmp_path / "a.parquet", range(3))
    pq.write_table(pa.table({"z": [1]}), tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match=r"field 'x'.*no such column in .*b.parquet; columns there are: z"):
        read(ParquetSource(tmp_path), wanted=XY)


def test_a_later_file_that_has_a_column_twice_is_named(tmp_path):
    put(tmp_path / "a.parquet", range(3))
    twice = pa.table([pa.array([1.0]), pa.array([2]), pa.array([3.0])], names=["x", "y", "x"])
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(
        SchemaError, match=r"field 'x'.*2 columns of that name in .*b.parquet; columns there are"
    ):
        read(ParquetSource(tmp_path), wanted=XY)
    with pytest.raises(
        SchemaError, match=r"field 'x': wanted the records' ids, found 2 columns of that name"
    ):
        ParquetSource(tmp_path / "b.parquet", id_column="x").schema()


def test_a_file_that_was_replaced_is_refused_and_says_what_to_do(tmp_path):
    path = put(tmp_path / "a.parquet", range(10))
    [batch] = read(ParquetSource(path))
    put(path, range(10, 20))
    with pytest.raises(
        ChangedError, match=r"a.parquet: wanted the file that was read before.*under another name"
    ):
        read(ParquetSource(path), {"a.parquet": batch.position})
    with pytest.raises(ChangedError, match=r"a.parquet: wanted the file that was read before"):
        read(ParquetSource(path), {"a.parquet": 10})


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path):
    path = put(tmp_path / "a.parquet", range(10))
    source = ParquetSource(path)
    with source.open("a.parquet", None, source.schema()) as reader:
        assert xs([reader.read(5, 0)]) == [0, 1, 2, 3, 4]
        os.utime(path, ns=(1, 1))
        with pytest.raises(ChangedError, match="wanted a file that stays as it is while it is read"):
            reader.read(5, 0)


def test_a_file_may_be_removed_while_it_is_read(tmp_path):
    path = put(tmp_path / "a.parquet", range(10))
    source = ParquetSource(path)
    with source.open("a.parquet", None, source.schema()) as reader:
        path.unlink()
        assert xs([reader.read(10, 0)]) == list(range(10))


def test_a_followed_folder_may_be_empty_and_fill_later(tmp_path):
    source = ParquetSource(tmp_path, follow=True)
    assert not source.bounded
    assert (source.schema(), source.partitions()) == (None, [])
    put(tmp_path / "a.parquet", range(3))
    assert source.partitions() == ["a.parquet"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"",
            "a.parquet: wanted a Parquet file, found an empty file; restore it, or remove it from the input",
        ),
        (b"PAR1", "a.parquet: wanted a Parquet file, found "),
        (b"x,y\n1,2\n" * 10, "a.parquet: wanted a Parquet file, found "),
    ],
)
def test_a_file_that_is_not_parquet_is_named(tmp_path, content, message):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(ComponentError) as error:
        ParquetSource(path).schema()
    assert message in str(error.value)
    with pytest.raises(ComponentError) as later, ParquetSource(path).open("a.parquet", None, XY):
        pass
    assert message in str(later.value)


def test_a_file_cut_short_anywhere_is_an_error_and_never_fewer_rows(tmp_path):
    whole = put(tmp_path / "whole.parquet", range(100)).read_bytes()
    for length in range(0, len(whole), 97):
        path = tmp_path / "cut.parquet"
        path.write_bytes(whole[:length])
        with pytest.raises(ComponentError, match=r"cut.parquet: wanted a Parquet file"):
            read(ParquetSource(path))


@pytest.mark.skipif(not DAMAGED, reason="the corpus of damaged files is not beside the checkout")
@pytest.mark.parametrize("path", DAMAGED, ids=lambda path: path.name)
def test_damaged_and_odd_files_end_in_rows_or_one_error_that_names_them(path):
    source = ParquetSource(path)
    try:
        assert sum(map(len, read(source))) == source.remaining(path.name, None)
    except (ConfigError, ComponentError) as error:
        assert re.search(rf"{re.escape(path.name)}: .*; ", str(error))  # noqa: PT017 - rows are as good as an error


@pytest.mark.skipif(not DAMAGED, reason="the corpus of damaged files is not beside the checkout")
def test_a_small_file_that_claims_gigabytes_is_refused_before_anything_is_read():
    path = CORPUS / "odd" / "large_string_map.brotli.parquet"
    with pytest.raises(
        ComponentError, match=r"wanted column chunks of at most 256 MiB.*found 'arr.* 2147483749 bytes"
    ):
        read(ParquetSource(path))


def test_a_chunk_that_claims_to_unpack_into_far_too_much_is_refused_only_if_it_is_wanted(
    tmp_path, monkeypatch
):
    path = tmp_path / "a.parquet"
    zeros = pa.table({"x": [n * n % 1009 for n in range(1000)], "zero": [0] * 1000})
    pq.write_table(zeros, path, use_dictionary=False, compression="zstd")
    monkeypatch.setattr(footers, "MOST_EXPANDED", 5_000)
    monkeypatch.setattr(footers, "MOST_RATIO", 10)
    with pytest.raises(
        ComponentError, match=r"a.parquet: wanted column chunks.*found 'zero' with 8\d+ bytes out of \d\d"
    ):
        read(ParquetSource(path))
    assert len(xs(read(ParquetSource(path), wanted=pa.schema([("x", pa.int64())])))) == 1000


# --- writing ---------------------------------------------------------------------------------------------------------

EVERY_TYPE = {
    "int8": pa.array([1, None, -128], pa.int8()),
    "uint64": pa.array([1, None, 2**64 - 1], pa.uint64()),
    "float32": pa.array([1.5, None, float("inf")], pa.float32()),
    "float64": pa.array([1.5, None, -0.0]),
    "bool": pa.array([True, None, False]),
    "string": pa.array(["a", None, "é\0"]),
    "large_string": pa.array(["a", None, ""], pa.large_string()),
    "binary": pa.array([b"\xff", None, b""]),
    "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    **{f"at_{unit}": pa.array([1, None, -1], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    **{
        f"at_{unit}_utc": pa.array([1, None, -1], pa.timestamp(unit, "UTC"))
        for unit in ("s", "ms", "us", "ns")
    },
    "zone": pa.array([1, None, -1], pa.timestamp("us", "Europe/Prague")),
    "date": pa.array([dt.date(1969, 1, 1), None, dt.date(9999, 12, 31)]),
    "time": pa.array([dt.time(1, 2, 3), None, dt.time(0)], pa.time64("us")),
    "time_s": pa.array([1, None, 2], pa.time32("s")),
    "duration": pa.array([1, None, 2], pa.duration("us")),
    "decimal": pa.array([Decimal("1.23"), None, Decimal("-9.99")], pa.decimal128(5, 2)),
    "list": pa.array([[1, None], None, []], pa.list_(pa.int64())),
    "texts": pa.array([["a", None], None, []], pa.list_(pa.string())),
    "vector": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
    "null": pa.nulls(3),
}


SECONDS = {"at_s": pa.timestamp("ms"), "at_s_utc": pa.timestamp("ms", "UTC"), "time_s": pa.time32("ms")}
"""Parquet counts no whole seconds."""


def test_every_arrow_type_comes_back_as_it_was_and_seconds_as_milliseconds(tmp_path, stack):
    records = pa.RecordBatch.from_arrays(list(EVERY_TYPE.values()), names=list(EVERY_TYPE))
    writer = open_writer(tmp_path / "out", stack, schema=records.schema)
    writer.write(batch_of(records))
    writer.commit(Progress({"p": 3}))
    [path] = (tmp_path / "out").iterdir()
    there = pq.ParquetFile(path).read().combine_chunks()
    wanted = pa.schema([field.with_type(SECONDS.get(field.name, field.type)) for field in records.schema])
    assert there.schema.remove_metadata() == wanted
    assert there.to_batches()[0].equals(records.cast(wanted))
    back = read(ParquetSource(path))[0].records
    assert back.to_pylist() == records.to_pylist()
    assert pl.read_parquet(path).height == 3
    again = open_writer(tmp_path / "out", stack, "r2", schema=records.schema)
    assert again.committed().positions == {"p": 3}, "the fields that are there are those that were declared"


@pytest.mark.parametrize(
    "kind",
    [
        pa.month_day_nano_interval(),
        pa.dense_union([pa.field("a", pa.int8())]),
        pa.decimal128(5, -2),
        pa.list_(pa.float64(), 0),
    ],
)
def test_a_type_that_parquet_does_not_know_is_refused_before_a_record_moves(tmp_path, stack, kind):
    with pytest.raises(ConfigError, match=r"out: field 'odd': wanted a type that Parquet can hold, found "):
        open_writer(tmp_path / "out", stack, schema=pa.schema([("x", pa.int8()), ("odd", kind)]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kinds",
    ["plain dictionary", "dictionary plain", "dictionary dictionary", "narrow large", "gap gap", "plain gap"],
)
@pytest.mark.parametrize("text", [pa.string(), pa.string_view()])
@pytest.mark.parametrize("group", [1, 1000])
def test_strings_may_come_as_dictionaries_or_not_and_readers_see_strings(  # noqa: PLR0917 - fixtures
    tmp_path, stack, kinds, text, group, monkeypatch
):
    monkeypatch.setattr(writing, "GROUP_ROWS", group)
    values = [["a", "b", None], ["c", "a", "c"]]
    make = {
        "plain": pa.array,
        "large": lambda v: pa.array(v, pa.large_string()),
        "dictionary": lambda v: pa.array(v).dictionary_encode(),
        "narrow": lambda v: pa.array(v).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
        "gap": lambda v: pa.array(v).dictionary_encode(null_encoding="encode"),
    }
    schema = pa.schema([("s", text)])
    writer = open_writer(tmp_path / "out", stack, schema=schema)
    for kind, column in zip(kinds.split(), values, strict=True):
        writer.write(batch_of(pa.RecordBatch.from_arrays([make[kind](column)], names=["s"])))
    writer.commit(Progress({"p": 6}))
    [path] = (tmp_path / "out").iterdir()
    assert pq.read_schema(path).remove_metadata() == schema
    assert pq.read_table(path)["s"].to_pylist() == [v for column in values for v in column]
    assert pl.read_parquet(path)["s"].to_list() == [v for column in values for v in column]


def test_numbers_are_not_dictionary_encoded_and_small_batches_share_a_row_group(tmp_path, stack):
    writer = open_writer(tmp_path / "out", stack)
    for start in range(0, 1000, 10):
        writer.write(batch_of(table(range(start, start + 10)).to_batches()[0]))
    writer.commit(Progress({"p": 1}))
    [path] = (tmp_path / "out").iterdir()
    footer = pq.read_metadata(path)
    assert footer.num_row_groups == 1
    assert [footer.row_group(0).column(n).has_dictionary_page for n in (0, 1)] == [False, True]


def test_texts_and_bytes_are_dictionary_encoded_in_every_layout_but_ids_of_a_fixed_size_are_not(
    tmp_path, stack
):
    kinds = [
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2)),
    ]
    columns = [pa.array([b"ab", b"cd"] * 500).cast(kind) for kind in kinds]
    records = pa.RecordBatch.from_arrays(columns, names=[str(kind) for kind in kinds])
    writer = open_writer(tmp_path / "out", stack, schema=records.schema)
    writer.write(batch_of(records))
    writer.commit(Progress({"p": 1}))
    [path] = (tmp_path / "out").iterdir()
    group = pq.read_metadata(path).row_group(0)
    encoded = [group.column(n).has_dictionary_page for n in range(len(kinds))]
    assert encoded == [True] * 6 + [False]
    for name, kind in zip(records.schema.names, kinds, strict=True):
        wanted = ["ab", "cd"] if "string" in str(kind) else [b"ab", b"cd"]
        assert pl.read_parquet(path)[name].to_list() == wanted * 500


def test_a_long_dictionary_with_few_records_is_written_as_what_is_used(tmp_path, stack):
    long = pa.array([f"{n} " + "x" * 1000 for n in range(2000)]).dictionary_encode().slice(7, 2)
    writer = open_writer(tmp_path / "out", stack, schema=pa.schema([("s", pa.string())]))
    writer.write(batch_of(pa.RecordBatch.from_arrays([long], names=["s"])))
    writer.commit(Progress({"p": 1}))
    [path] = (tmp_path / "out").iterdir()
    assert path.stat().st_size < 10_000
    assert [v[:2] for v in pq.read_table(path)["s"].to_pylist()] == ["7 ", "8 "]


def test_progress_is_in_the_footer_with_its_records_and_only_the_owner_reads_the_files(tmp_path, stack):
    writer = open_writer(tmp_path / "new/out", stack)
    deliver(writer, range(3))
    deliver(writer, range(3, 5), "q")
    first, second = sorted((tmp_path / "new/out").iterdir())
    body = json.loads(pq.read_metadata(second).metadata[b"mlinfer"])["part"]
    assert (body["pipeline"], body["output"], body["run"], body["epoch"]) == ("pipe", "main", "r1", 1)
    assert Progress.from_json(body["progress"], "").positions == {"q": 5}
    again = open_writer(tmp_path / "new/out", stack, run="r2").committed()
    assert (again.positions, again.epoch, again.fingerprint) == ({"p": 3, "q": 5}, 2, "f")
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_commit_without_records_still_keeps_progress(tmp_path, stack):
    open_writer(tmp_path / "out", stack).commit(Progress({"p": 9}))
    assert open_writer(tmp_path / "out", stack, run="r2").committed().positions == {"p": 9}
    assert pq.read_table(tmp_path / "out").num_rows == 0


def test_what_was_not_committed_is_not_there_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "GROUP_ROWS", 2)
    with ParquetDestination(tmp_path / "out").open(XY, Scope("pipe", run="r1")) as writer:
        writer.write(batch_of(table(range(3)).to_batches()[0]))
        assert [path.name[0] for path in (tmp_path / "out").iterdir()] == ["."]
    assert list((tmp_path / "out").iterdir()) == []


# --- two runs at a time ----------------------------------------------------------------------------------------------


def test_the_second_of_two_runs_to_commit_is_fenced(tmp_path, stack):
    one, two = open_writer(tmp_path, stack, "r1"), open_writer(tmp_path, stack, "r2")
    deliver(two, range(3))
    with pytest.raises(
        FencedError, match=r"another run of pipeline 'pipe' has committed part-00000000.parquet"
    ):
        deliver(one, range(3))
    deliver(two, range(3, 6))
    assert pq.read_table(tmp_path)["x"].to_pylist() == list(range(6))
    with pytest.raises(FencedError, match="has committed part-00000001"):
        open_writer(tmp_path, stack, "r1", epoch=1)


def test_a_run_that_lost_its_unfinished_part_to_a_newer_run_is_fenced(tmp_path, stack, monkeypatch):
    monkeypatch.setattr(writing, "GROUP_ROWS", 1)
    one = open_writer(tmp_path, stack, "r1")
    one.write(batch_of(table(range(3)).to_batches()[0]))
    open_writer(tmp_path, stack, "r2")
    with pytest.raises(FencedError, match="removed the part that this run was writing"):
        one.commit(Progress({"p": 3}))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_slept_through_a_fresh_start_is_fenced_although_its_number_is_free_again(tmp_path, stack):
    deliver(open_writer(tmp_path, stack, "r0"), range(3))
    sleeper = open_writer(tmp_path, stack, "r1")
    deliver(open_writer(tmp_path, stack, "r2"), range(3, 6))
    deliver(open_writer(tmp_path, stack, "r3", fresh=True), range(10))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part-00000002.parquet",
        "part-00000003.parquet",
    ]
    with pytest.raises(FencedError):
        deliver(sleeper, range(3, 6))
    assert pq.read_table(tmp_path)["x"].to_pylist() == list(range(10))


def test_a_run_that_slept_between_looking_and_publishing_takes_its_part_back(tmp_path, stack, monkeypatch):
    deliver(open_writer(tmp_path, stack, "r0"), range(3))
    sleeper = open_writer(tmp_path, stack, "r1")
    publish = writing.durable.publish

    def slow(scratch: Path, path: Path) -> None:
        monkeypatch.setattr(writing.durable, "publish", publish)
        scratch.rename(held := tmp_path / "held")  # r2 would remove it: here only the link shall decide
        deliver(open_writer(tmp_path, stack, "r2"), range(3, 6))
        deliver(open_writer(tmp_path, stack, "r3", fresh=True), range(10))
        publish(held, path)

    monkeypatch.setattr(writing.durable, "publish", slow)
    with pytest.raises(FencedError, match=r"has committed part-0000000[23]"):
        deliver(sleeper, range(3, 6))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part-00000002.parquet",
        "part-00000003.parquet",
    ]


def test_a_part_that_a_newer_run_has_built_on_stays(tmp_path, stack, monkeypatch):
    sleeper = open_writer(tmp_path, stack, "r1")
    publish = writing.durable.publish

    def slow(scratch: Path, path: Path) -> None:
        monkeypatch.setattr(writing.durable, "publish", publish)
        publish(scratch, path)
        deliver(open_writer(tmp_path, stack, "r2"), range(3, 6))  # it has seen that three are there

    monkeypatch.setattr(writing.durable, "publish", slow)
    with pytest.raises(FencedError, match="has committed part-00000001"):
        deliver(sleeper, range(3))
    assert pq.read_table(tmp_path)["x"].to_pylist() == list(range(6))


def test_a_run_that_was_refused_is_refused_again(tmp_path, stack):
    late = open_writer(tmp_path, stack, "r1")
    deliver(open_writer(tmp_path, stack, "r2"), range(3))
    for _ in range(2):  # several lanes may commit before the first one is heard
        with pytest.raises(FencedError, match="has committed part-00000000"):
            deliver(late, range(3))
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000000.parquet"]
    assert pq.read_table(tmp_path)["x"].to_pylist() == list(range(3))


def test_writers_of_one_run_share_the_numbers_and_never_remove_each_others_files(
    tmp_path, stack, monkeypatch
):
    monkeypatch.setattr(writing, "GROUP_ROWS", 1)
    one = open_writer(tmp_path, stack)
    one.write(batch_of(table(range(3)).to_batches()[0]))
    two = open_writer(tmp_path, stack, epoch=one.committed().epoch)
    two.write(batch_of(table(range(3, 6)).to_batches()[0]))
    two.commit(Progress({"q": 3}))
    one.commit(Progress({"p": 3}))
    two.commit(Progress({"q": 4}))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"part-{n:08d}.parquet" for n in range(3)]
    assert open_writer(tmp_path, stack, "r2").committed().positions == {"p": 3, "q": 4}


def test_unfinished_parts_of_dead_runs_are_removed_and_those_of_other_pipelines_are_not(
    tmp_path, stack, monkeypatch
):
    monkeypatch.setattr(writing, "GROUP_ROWS", 1)
    dead = open_writer(tmp_path, stack, "r1")
    dead.write(batch_of(table(range(3)).to_batches()[0]))
    other = stack.enter_context(ParquetDestination(tmp_path).open(XY, Scope("other", run="r9")))
    assert len(list(tmp_path.iterdir())) == 1
    other.write(batch_of(table(range(3)).to_batches()[0]))
    open_writer(tmp_path, stack, "r2")
    [left] = tmp_path.iterdir()
    assert "r9" in left.name


# --- what is there already -------------------------------------------------------------------------------------------


def test_beginning_anew_replaces_old_parts_with_the_first_commit_and_not_before(tmp_path, stack):
    old = open_writer(tmp_path, stack, "r1")
    deliver(old, range(3))
    deliver(old, range(3, 6), "q")
    anew = open_writer(tmp_path, stack, "r2", fresh=True)
    assert anew.committed().positions == {}
    assert pq.read_table(tmp_path).num_rows == 6
    deliver(anew, range(2))
    deliver(anew, range(2, 4))
    assert pq.read_table(tmp_path)["x"].to_pylist() == [0, 1, 2, 3]
    again = open_writer(tmp_path, stack, "r2", fresh=True, epoch=2)
    assert again.committed().positions == {"p": 4}, (
        "a run that is opened again goes on with what it has written"
    )


def test_old_parts_that_a_dying_run_left_beside_its_new_one_do_not_count_and_are_removed(tmp_path, stack):
    deliver(open_writer(tmp_path, stack, "r1"), range(3), "old")
    content = (tmp_path / "part-00000000.parquet").read_bytes()
    deliver(open_writer(tmp_path, stack, "r2", fresh=True), range(2), "new")
    (tmp_path / "part-00000000.parquet").write_bytes(content)
    looking = open_writer(tmp_path, stack, "r3", read_only=True)
    assert looking.committed().positions == {"new": 2}
    assert len(list(tmp_path.iterdir())) == 3
    assert open_writer(tmp_path, stack, "r3").committed().positions == {"new": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part-00000001.parquet",
        "part-00000002.parquet",
    ]


def test_looking_creates_nothing(tmp_path, stack):
    assert open_writer(tmp_path / "out", stack, read_only=True).committed() == Progress()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("origin", ["another program", "another pipeline", "another output"])
def test_files_of_another_origin_are_refused_left_or_replaced_as_the_user_says(tmp_path, stack, origin):
    if origin == "another program":
        put(tmp_path / "part-0.parquet", range(100, 103))
    else:
        scope = (
            Scope("other", run="r0") if origin == "another pipeline" else Scope("pipe", "rejects", run="r0")
        )
        with ParquetDestination(tmp_path).open(XY, scope) as other:
            deliver(other, range(100, 103))
    with pytest.raises(
        ConfigError, match=r"of another origin, found part-0+.parquet and 0 more; .*if_exists="
    ):
        open_writer(tmp_path, stack)
    added = open_writer(tmp_path, stack, recipe=ParquetDestination(tmp_path, if_exists="append"))
    assert added.committed().positions == {}
    deliver(added, range(3))
    assert sorted(pq.read_table(tmp_path)["x"].to_pylist()) == [0, 1, 2, 100, 101, 102]
    replaced = open_writer(tmp_path, stack, "r2", recipe=ParquetDestination(tmp_path, if_exists="replace"))
    assert pq.read_table(tmp_path).num_rows == 6
    deliver(replaced, range(3, 6))
    assert sorted(pq.read_table(tmp_path)["x"].to_pylist()) == list(range(6))


@pytest.mark.parametrize("if_exists", ["fail", "append", "replace"])
def test_a_file_that_is_named_like_a_part_but_has_no_mark_is_refused(tmp_path, stack, if_exists):
    """It may be a damaged part of ours: to go on without it would deliver its records again."""
    put(tmp_path / "part-00000000.parquet", range(3))
    with pytest.raises(ChangedError, match="without its mark; restore it, or rename it"):
        open_writer(tmp_path, stack, recipe=ParquetDestination(tmp_path, if_exists=if_exists))


def test_two_outputs_in_one_folder_are_an_error_that_says_so(tmp_path, stack):
    main = open_writer(tmp_path, stack)
    rejects = open_writer(tmp_path, stack, output="rejects")
    deliver(main, range(3))
    with pytest.raises(
        ComponentError, match=r"found part-00000000.parquet of output 'main'.*a folder of its own"
    ):
        deliver(rejects, range(3))


def test_other_fields_than_those_that_are_there_are_listed_one_by_one(tmp_path, stack):
    deliver(open_writer(tmp_path, stack), range(3))
    schema = pa.schema([("x", pa.float64()), ("z", pa.int8())])
    with pytest.raises(ConfigError) as error:
        open_writer(tmp_path, stack, "r2", schema=schema)
    for line in (
        "x: there int64, now double",
        "s: there string, now no such field",
        "z: there no such field, now int8",
    ):
        assert line in str(error.value)
    open_writer(tmp_path, stack, "r2", schema=schema, fresh=True)


def test_a_damaged_part_is_an_error_and_never_forgotten_progress(tmp_path, stack):
    deliver(open_writer(tmp_path, stack), range(3))
    path = tmp_path / "part-00000000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ChangedError, match=r"part-00000000.parquet: wanted a part that mlinfer wrote, found "
    ):
        open_writer(tmp_path, stack, "r2")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            ParquetDestination("out", compression="zip"),
            "wanted a compression that Parquet knows, found 'zip'",
        ),
        (ParquetDestination("out/file"), "wanted a folder to write parts to, found a file; name a folder"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, monkeypatch, stack, recipe, message):  # noqa: PLR0917 - fixtures
    monkeypatch.chdir(tmp_path)
    if recipe.path == "out/file":
        (tmp_path / "out").mkdir()
        (tmp_path / "out/file").write_bytes(b"")
    with pytest.raises(ConfigError) as error:
        open_writer(tmp_path, stack, recipe=recipe)
    assert message in str(error.value)


def test_paths_may_name_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("FLIGHTS", str(tmp_path))
    put(tmp_path / "in/a.parquet", range(3))
    into = ParquetDestination("${FLIGHTS}/out")
    InferencePipeline(ParquetSource("${FLIGHTS}/in/*.parquet"), DOUBLE, into, name="n", keep=["x", "s"]).run()
    assert answers(tmp_path / "out") == expected(range(3))


def test_a_file_whose_other_columns_are_damaged_runs_to_its_end(tmp_path):
    table = pa.table(
        {"x": [float(n) for n in range(100)], "s": [f"s{n}" for n in range(100)], "other": range(100)}
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=10)
    metadata, content = pq.read_metadata(path), bytearray(path.read_bytes())
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(2)
        end = chunk.data_page_offset + chunk.total_compressed_size
        content[chunk.data_page_offset : end] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    with pytest.raises(OSError):  # noqa: PT011 - Arrow has many words for a damage
        pq.read_table(path, columns=["other"])
    into = ParquetDestination(tmp_path / "out")
    report = InferencePipeline(ParquetSource(path), DOUBLE, into, name="n", keep=["s"]).run()
    assert report.delivered == 100
    assert sorted(pq.read_table(tmp_path / "out").column("s").to_pylist()) == sorted(table["s"].to_pylist())


def test_a_file_with_a_column_of_another_type_is_named(tmp_path):
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": ["one"]}), tmp_path / "b.parquet")
    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy")
    with pytest.raises(SchemaError, match=r"'x': wanted double .*found string in b\.parquet; convert"):
        InferencePipeline(ParquetSource(tmp_path), host, MemoryDestination(), name="p").run()


@pytest.mark.parametrize("other", [Scope("q"), Scope("p", "rejects")])
def test_a_folder_whose_records_were_dropped_is_anybodys(tmp_path, other):
    recipe, schema = ParquetDestination(tmp_path / "out"), pa.schema([("x", pa.int64())])

    def write(values, scope, progress):
        with recipe.open(schema, scope) as writer:
            writer.write(Batch(pa.record_batch([pa.array(values, pa.int64())], schema=schema), "all", None))
            writer.commit(progress)

    write([1], Scope("p"), Progress({"all": 1}, fingerprint="f"))
    with pytest.raises(ConfigError, match="without Parquet files of another origin"):
        write([2], other, Progress())
    write([], Scope("p", fresh=True), Progress())  # as `mlinfer state reset` does
    write([2], other, Progress({"all": 1}, fingerprint="f"))
    assert pq.read_table(tmp_path / "out").to_pydict() == {"x": [2]}
    with pytest.raises(ConfigError, match="without Parquet files of another origin"):
        write([3], Scope("p"), Progress())


def test_a_run_that_keeps_maps_goes_on_where_the_one_before_ended(tmp_path):
    """What a Parquet file calls the values within a map is no other type."""
    kind = pa.map_(pa.string(), pa.list_(pa.map_(pa.string(), pa.int64())))
    (tmp_path / "in").mkdir()
    pipeline = InferencePipeline(
        ParquetSource(tmp_path / "in"), DOUBLE, ParquetDestination(tmp_path / "out"), name="p", keep=["m"]
    )
    for number in range(2):
        maps = pa.array([[("k", [[("n", number)]])], None], kind)
        pq.write_table(pa.table({"x": [number, 5], "m": maps}), tmp_path / "in" / f"{number}.parquet")
        assert pipeline.run().delivered == 2
    assert pq.read_table(tmp_path / "out")["m"].to_pylist() == [
        [("k", [[("n", 0)]])], None, [("k", [[("n", 1)]])], None,
    ]  # fmt: skip


def put_encrypted(path: Path) -> None:
    """The column `x` under a key, the footer and `s` in plain."""
    from pyarrow.parquet import encryption

    class Open(encryption.KmsClient):
        def wrap_key(self, key, _name):
            return base64.b64encode(key)

        def unwrap_key(self, key, _name):
            return base64.b64decode(key)

    keys = encryption.EncryptionConfiguration("f", column_keys={"c": ["x"]}, plaintext_footer=True)
    factory = encryption.CryptoFactory(lambda _: Open())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), keys)
    with pq.ParquetWriter(path, XY, encryption_properties=properties) as writer:
        writer.write_table(table(range(5)))


ENCRYPTED = """
import sys
import pyarrow as pa
from mlinfer import ComponentError
from mlinfer.sources import ParquetSource, _parquet_footer
_parquet_footer.SPLIT_OVER = 0
source = ParquetSource(sys.argv[1])
[name] = source.partitions()
with source.open(name, None, pa.schema([("s", pa.string())])) as reader:
    print(reader.read(10, 0).records["s"].to_pylist())
try:
    source.open(name, None, pa.schema([("x", pa.int64())])).__enter__()
except ComponentError as error:
    print(error)
"""


def test_an_encrypted_column_is_named_and_does_not_end_the_process(tmp_path):
    put_encrypted(tmp_path / "a.parquet")
    done = subprocess.run(
        [sys.executable, "-c", ENCRYPTED, tmp_path / "a.parquet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    plain, refused = done.stdout.splitlines()
    assert plain == str(table(range(5))["s"].to_pylist())
    assert "a.parquet: wanted a column 'x' that can be read, found an encrypted one" in refused
