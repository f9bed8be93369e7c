"""Records in hand as a source, answers in hand as a destination, a function as a host."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mlinfer
from mlinfer import (
    Batch,
    ChangedError,
    ConfigError,
    EndOfInput,
    FencedError,
    InferencePipeline,
    Progress,
    Scope,
)
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

TABLE = pa.table({"x": [1.0, 2.0, 3.0], "s": ["a", None, "c"]})


def everything(source, after=None, size=2):
    (partition,) = source.partitions()
    batches = []
    with source.open(partition, after, source.schema()) as reader:
        while True:
            try:
                batches.append(reader.read(size, 0))
            except EndOfInput:
                return batches


def test_the_same_records_are_the_same_partition_however_they_are_held():
    same = [
        TABLE,
        pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]),
        pa.concat_tables([TABLE, TABLE]).slice(3),
        TABLE.combine_chunks().to_batches()[0],
        TABLE.to_pydict(),
        TABLE.to_pylist(),
        TABLE.replace_schema_metadata({"made": "today"}),
    ]
    assert len({MemorySource(data).partitions() for data in same}) == 1
    others = [
        TABLE.slice(1),
        TABLE.rename_columns(["x", "t"]),
        TABLE.select(["s", "x"]),
        TABLE.set_column(0, "x", [[1.0, 2.0, 4.0]]),
    ]
    assert len({MemorySource(data).partitions() for data in [TABLE, *others]}) == 5


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("after", [None, 0, 1, 3])
def test_reading_goes_on_behind_any_position(after, size):
    batches = everything(MemorySource(TABLE), after, size)
    start = after or 0
    assert [row for batch in batches for row in batch.records.to_pylist()] == TABLE.to_pylist()[start:]
    assert [batch.position for batch in batches] == list(range(start + size, 3, size)) + (
        [3] if start < 3 else []
    )
    (partition,) = MemorySource(TABLE).partitions()
    ids = [name for batch in batches for name in batch.ids.array().to_pylist()]
    assert ids == [f"{partition}#{row}" for row in range(start, 3)]


def test_a_position_beyond_the_records_is_not_theirs():
    source = MemorySource(TABLE)
    with pytest.raises(ChangedError, match="wanted to go on at row 4, found only 3 rows"):
        source.open(source.partitions()[0], 4, source.schema()).__enter__()


def test_only_wanted_columns_are_read():
    source = MemorySource(TABLE)
    with source.open(source.partitions()[0], None, pa.schema([("s", pa.string())])) as reader:
        assert reader.read(10, 0).records.schema.names == ["s"]
    with source.open(source.partitions()[0], None, pa.schema([])) as reader:
        assert len(reader.read(10, 0)) == 3


@pytest.mark.parametrize("data", [pd.DataFrame({"x": [1.0]}), pl.DataFrame({"x": [1.0]}), np.array([1.0]), {"x": [1.0]}, [{"x": 1.0}], [1.0]])  # fmt: skip
def test_a_source_takes_what_infer_takes(data):
    (batch,) = everything(MemorySource(data))
    assert batch.records.to_pylist() == [{"x": 1.0}]
    assert repr(MemorySource(data)) == f"MemorySource({type(data).__name__} of 1)"


SCHEMA = pa.schema([("y", pa.float64())])


def batch(*values):
    return Batch(pa.record_batch({"y": pa.array(values, pa.float64())}), "p", None)


@pytest.mark.parametrize("kind", ["double", "uint64"])
def test_integers_of_more_than_64_bits_are_taken_as_infer_takes_them(kind):
    @mlinfer.host(inputs={"n": kind}, outputs={"m": "double"}, takes="numpy", version="1")
    def same(n):
        return n.astype(float)

    for data in ([{"n": 2**63}, {"n": 7}], {"n": [2**63, 7]}):
        place = MemoryDestination()
        pipeline = mlinfer.InferencePipeline(MemorySource(data), same, place, name="large")
        assert pipeline.run().delivered == 2
        assert place.table()["m"].to_pylist() == pipeline.infer(data)["m"].to_pylist() == [2.0**63, 7.0]


def test_records_are_seen_when_they_are_committed_and_not_before():
    memory = MemoryDestination()
    with memory.open(SCHEMA, Scope("p")) as writer:
        writer.write(batch(1.0))
        assert memory.table().num_rows == 0
        writer.commit(Progress({"a": 1}))
        writer.write(batch(2.0))
    with memory.open(SCHEMA, Scope("p")) as writer:
        assert (writer.committed().positions, writer.committed().epoch) == ({"a": 1}, 2)
    assert memory.table().to_pydict() == {"y": [1.0]}


def test_an_older_run_is_fenced():
    memory = MemoryDestination()
    with memory.open(SCHEMA, Scope("p")) as old, memory.open(SCHEMA, Scope("p")) as new:
        old.write(batch(1.0))
        with pytest.raises(
            FencedError, match="main: another run of pipeline 'p' has taken over; this one must stop"
        ):
            old.commit(Progress())
        new.write(batch(2.0))
        new.commit(Progress())
        with pytest.raises(FencedError):
            memory.open(SCHEMA, Scope("p", epoch=old.committed().epoch)).__enter__()
        with memory.open(SCHEMA, Scope("other")) as other:
            assert other.committed().epoch == 1
    assert memory.table().to_pydict() == {"y": [2.0]}


def test_beginning_afresh_forgets_records_and_progress_but_not_the_epoch():
    memory = MemoryDestination()
    with memory.open(SCHEMA, Scope("p")) as writer:
        writer.write(batch(1.0))
        writer.commit(Progress({"a": 1}))
    with memory.open(SCHEMA, Scope("p", fresh=True)) as writer:
        assert (writer.committed().positions, writer.committed().epoch) == ({}, 2)
        assert memory.table().num_rows == 1, "what was there stays until the first new records are stored"
        writer.commit(Progress())
    assert memory.table().num_rows == 0


# --- functions as hosts ----------------------------------------------------------------------------------------------


@mlinfer.host(inputs={"x": "float64"}, outputs={"y": "float64"})
def plus_one(records):
    return pa.record_batch({"y": pa.compute.add(records["x"], 1.0)})


def with_pandas(frame):
    return pd.DataFrame({"y": frame["x"] + 1})


def with_numpy(x):
    return x + 1


@pytest.mark.parametrize(
    "host",
    [
        plus_one,
        FunctionHost(with_pandas, {"x": "float64"}, {"y": "float64"}, "pandas"),
        FunctionHost(with_numpy, {"x": "float64"}, {"y": "float64"}, "numpy"),
        FunctionHost(lambda x: {"y": (x + 1).tolist()}, {"x": "float64"}, {"y": "float64"}, "numpy"),
        FunctionHost(
            lambda b: pa.table({"y": [v + 1 for v in b["x"].to_pylist()]}), {"x": "float64"}, {"y": "float64"}
        ),
    ],
)
def test_a_function_may_take_and_give_what_it_likes(host):
    with InferencePipeline(MemorySource({"x": [0.0]}), host, MemoryDestination()) as pipeline:
        assert pipeline.infer({"x": [1.0, 2.0]}).to_pydict() == {"y": [2.0, 3.0]}


def test_another_function_text_or_version_is_another_model():
    def fingerprint(host):
        with host.open() as model:
            return model.signature.fingerprint()

    fields = {"inputs": {"x": "float64"}, "outputs": {"y": "float64"}, "takes": "numpy"}
    found = [
        fingerprint(FunctionHost(with_numpy, **fields)),
        fingerprint(FunctionHost(lambda x: x + 2, **fields)),
        fingerprint(FunctionHost(with_numpy, **fields, version="1")),
        fingerprint(FunctionHost(with_numpy, **fields, version="2")),
    ]
    assert len(set(found)) == 4
    assert fingerprint(FunctionHost(with_numpy, **fields, shared=True)) == found[0]


def test_a_series_is_no_table_and_told_so():
    with pytest.raises(ConfigError, match="wanted columns by name, found a single Series"):
        MemorySource(pd.Series([1.0, 2.0], name="x")).schema()


def test_an_empty_list_delivers_nothing():
    host = FunctionHost(lambda km: km, {"km": "float64"}, {"y": "float64"}, "numpy")
    there = MemoryDestination()
    assert InferencePipeline(MemorySource([]), host, there, name="p").run().delivered == 0
    assert there.table().to_pylist() == []
