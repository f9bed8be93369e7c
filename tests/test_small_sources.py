"""Generators as sources, and sources that go through a function."""

import pickle
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reading
from mlinfer import (
    Acknowledges,
    Batch,
    Batching,
    Budget,
    ComponentError,
    ConfigError,
    DataSource,
    Drains,
    EndOfInput,
    InferencePipeline,
    RecordErrors,
    RecordIds,
    TransientError,
)
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource, JsonLinesSource, Mapped, MemorySource
from reading import ids

X = pa.schema([("x", pa.float64())])
batches = partial(reading.batches, wanted=X)
HOST = FunctionHost(lambda x: x * 2, {"x": pa.float64()}, {"y": pa.float64()}, "numpy", version="1")


def values(found, column="x"):
    return [value for batch in found for value in batch.records.column(column).to_pylist()]


# --- generators ----------------------------------------------------------------------------------------------------------


def forgetful():
    yield pa.record_batch({"x": [1.0, 2.0]})
    yield pa.table({"x": []}, schema=X)
    yield {"x": np.array([3.0])}
    yield [{"x": 4.0}, {"x": 5}]


def seeking(after):
    for n in range(after, 10):
        yield {"x": [float(n)]}


def encoded(columns):
    """Dictionaries, both of whose parts look into the memory of an array."""
    places = pa.array(np.arange(3, dtype=np.int32))
    its = {name: pa.DictionaryArray.from_arrays(places, pa.array(one)) for name, one in columns.items()}
    return pa.record_batch(its)


@pytest.mark.parametrize(
    "given", [dict, pa.record_batch, lambda columns: pa.table(pa.record_batch(columns)), encoded]
)
def test_a_function_may_yield_one_array_again_and_again(given):
    def refilling():
        numbers = np.zeros(3)
        for n in range(5):
            numbers[:] = n
            yield given({"x": numbers})

    assert values(list(batches(IterableSource(refilling)))) == [n for n in range(5) for _ in range(3)]


def test_a_function_that_maps_may_fill_one_array_again_and_again():
    numbers = np.zeros(10)

    def refilled(records):
        its = numbers[: len(records)]
        its[:] = records.column("x")
        return pa.record_batch({"x": pa.array(its)})

    source = Mapped(MemorySource({"x": np.arange(20.0)}), refilled)
    for size in (3, 10):
        assert values(list(reading.batches(source, wanted=X, size=size))) == list(range(20))


def test_whatever_a_function_yields_is_read_in_order():
    for size in (1, 2, 100):
        found = list(batches(IterableSource(forgetful), size=size))
        assert values(found) == [1, 2, 3, 4, 5]
        assert ids(found) == [f"all#{n}" for n in range(5)]
        assert all(len(batch) <= size and batch.position is None for batch in found)


def test_rows_that_do_not_fit_are_bad_alone():
    source = IterableSource(lambda: iter([[{"x": 1}, {"x": "no"}, 17, {"x": 4}]]))
    for size in (1, 3, 100):
        found = list(batches(source, size=size))
        assert values(found) == [1, 4]
        assert [(bad.id, bad.kind) for batch in found for bad in batch.bad] == [
            ("all#1", "wrong_type"), ("all#2", "wrong_type"),
        ]  # fmt: skip
        assert ids(found) == ["all#0", "all#3"]


@pytest.mark.parametrize("made", [forgetful(), [{"x": 1.0}]], ids=["generator", "list"])
def test_what_a_function_returned_is_refused_in_its_place(made):
    with pytest.raises(ConfigError, match=r"wanted a function .* give the function, not what it returned"):
        IterableSource(made)


class ByNumber:
    """Records that are found by their number, as datasets of torch are: it has no `__iter__`."""

    def __getitem__(self, number):
        return [[{"x": 1}], [{"x": 2}]][number]


def test_what_gives_records_by_their_number_is_gone_through():
    with IterableSource(ByNumber).open("all", None, X) as reader:
        assert reader.read(10, 0).records.to_pylist() + reader.read(10, 0).records.to_pylist() == [
            {"x": 1},
            {"x": 2},
        ]


async def later():
    yield {"n": [1]}


@pytest.mark.parametrize(("make", "found"), [(later, "async_generator"), (lambda: None, "NoneType")])
def test_a_function_that_gives_nothing_to_go_through_is_named(make, found):
    said = f"wanted a function that yields records, found one that gives {found}; write it with yield"
    with pytest.raises(ConfigError, match=said), IterableSource(make).open("all", None, pa.schema([])):
        pass


def test_a_function_that_takes_after_can_be_resumed_and_another_cannot():
    assert IterableSource(forgetful).resume == "none"
    source = IterableSource(seeking)
    assert source.resume == "seek"
    found = list(batches(source))
    for done, batch in enumerate(found):
        assert values(found[: done + 1]) + values(batches(source, batch.position)) == list(range(10))
    assert ids(batches(source, 7)) == ["all#7", "all#8", "all#9"]


def test_a_generator_is_closed_when_it_is_left_early():
    closed = []

    def make():
        try:
            while True:
                yield {"x": [1.0]}
        finally:
            closed.append(True)

    with IterableSource(make, bounded=False).open("all", None, X) as reader:
        reader.read(1, 0)
    assert closed == [True]


def test_a_recipe_of_module_functions_travels():
    source = Mapped(IterableSource(seeking), double)
    assert pickle.loads(pickle.dumps(source)) == source


def test_a_pipeline_resumes_a_generator_exactly_once():
    calls = []

    def make(after):
        calls.append(after)
        for n in range(after, 6):
            if n == 4 and len(calls) == 1:
                raise TransientError("come back", wait=0)
            yield {"x": [float(n)]}

    destination = MemoryDestination()
    InferencePipeline(
        IterableSource(make),
        HOST,
        destination,
        name="p",
        require="exactly-once",
        batching=Batching(max_records=2),
    ).run()
    assert destination.table().column("y").to_pylist() == [0, 2, 4, 6, 8, 10]
    assert calls == [0, 4]


# --- a function in between -----------------------------------------------------------------------------------------------


def double(records):
    return pa.record_batch({"x": pa.array(records.column("x").to_numpy(zero_copy_only=False) * 2)})


def test_features_are_computed_and_all_else_stays_as_it_is():
    inner = MemorySource({"x": [1.0, 2.0, 3.0], "other": ["a", "b", "c"]})
    source = Mapped(inner, double)
    assert source.schema() == pa.schema([("x", pa.float64())])
    assert (source.bounded, source.resume, source.partitions()) == (
        inner.bounded,
        inner.resume,
        inner.partitions(),
    )
    found, plain = list(batches(source, size=2)), list(batches(inner, size=2))
    assert values(found) == [2, 4, 6]
    assert ids(found) == ids(plain)
    assert [batch.position for batch in found] == [batch.position for batch in plain]


def test_only_the_columns_that_are_needed_are_read():
    seen = set()

    def look(records):
        seen.add(tuple(records.schema.names))
        return records.select(["a"]).rename_columns(["x"])

    inner = MemorySource({"a": [1.0], "b": [2.0], "c": [3.0]})
    assert values(batches(Mapped(inner, look, reads=["a", "c"]))) == [1]
    assert seen == {("a", "c")}
    with pytest.raises(ConfigError, match="reads names z; wanted columns of the source: a, b, c"):
        Mapped(inner, look, reads=["z"]).schema()


def test_a_source_that_knows_no_columns_needs_types(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"")
    inner = JsonLinesSource(path)
    assert Mapped(inner, double).schema() is None
    with pytest.raises(ConfigError, match="name them with types"):
        list(batches(Mapped(inner, double)))
    typed = Mapped(inner, double, reads={"x": pa.float64()})
    assert typed.schema() == X
    path.write_bytes(b'{"x": 1.5}\n{"x": "no"}\n')
    (batch,) = batches(typed)
    assert values([batch]) == [3]
    assert [bad.kind for bad in batch.bad] == ["wrong_type"]


@given(st.sets(st.integers(0, 19)), st.integers(1, 25), st.booleans())
def test_a_record_that_fails_is_the_only_one_that_is_bad(bad, size, named):
    def picky(records):
        found = [row for row, value in enumerate(records.column("x").to_pylist()) if value in bad]
        if found and named:
            raise RecordErrors(found, "map_error", "named")
        if found:
            raise ZeroDivisionError("no")
        return records

    found = list(batches(Mapped(MemorySource({"x": [float(n) for n in range(20)]}), picky), size=size))
    good = [n for n in range(20) if n not in bad]
    assert values(found) == good
    assert [one.rsplit("#", 1)[1] for one in ids(found)] == [str(n) for n in good]
    refused = sorted((int(one.id.rsplit("#", 1)[1]), one) for batch in found for one in batch.bad)
    assert [n for n, _ in refused] == sorted(bad)
    for n, one in refused:
        assert (one.kind, one.message) == ("map_error", "named" if named else "ZeroDivisionError: no")
        assert one.raw == b'{"x": %.1f}' % n
    assert found[-1].position == 20


def test_a_row_that_does_not_fit_is_kept_and_can_be_replayed():
    rows = [{"x": 1.0, "k": "ä"}, {"x": "2", "k": "\ud800"}, 3, {"x": b"4"}, {"x": 5.5, "k": 6}]
    rejects = MemoryDestination()

    def made(kind, answers):
        parts = IterableSource(lambda: iter([rows])), HOST, answers
        more = {"rejects": rejects, "budget": Budget(ratio=1), "on_change": "continue"}
        return InferencePipeline(*parts, name="rows", keep={"k": kind}, **more)

    made(pa.string(), MemoryDestination()).run()
    kept = rejects.table("rejects").to_pydict()
    assert kept["record_id"] == [f"all#{n}" for n in (1, 2, 3, 4)]
    json = [rb'{"x": "2", "k": "\ud800"}', b'{"x": 5.5, "k": 6}']
    assert kept["raw"] == [json[0], b"3", b"{'x': b'4'}", json[1]]
    numbers = MemoryDestination()
    mended = made(pa.int64(), numbers)
    mended.replay()
    assert numbers.table().to_pydict() == {"k": [6], "y": [11.0]}
    assert sorted(mended.rejected()["record_id"].to_pylist()) == [f"all#{n}" for n in (1, 2, 3)]


def test_a_function_that_breaks_the_contract_is_told_so():
    inner = MemorySource({"x": [1.0, 2.0]})
    for fn, found in [
        (lambda records: records.slice(0, min(1, len(records))), "found 1 rows"),
        (lambda records: records.to_pylist() if len(records) else records, "found list"),
    ]:
        with pytest.raises(ComponentError, match=found):
            list(batches(Mapped(inner, fn)))

    def proud(records):
        return pa.record_batch({"x": [records.column("x")[0]]})

    with pytest.raises(ComponentError, match="must take an empty batch"):
        Mapped(inner, proud).schema()


class Queue(DataSource):
    """A source with every power."""

    resume = "acknowledge"
    bounded = False

    def __init__(self):
        self.acknowledged, self.drained = [], False

    def schema(self):
        return X

    def remaining(self, partition, after):
        return 17

    def open(self, partition, after, wanted):
        from contextlib import nullcontext

        return nullcontext(self)

    def read(self, max_records, timeout):
        if self.drained:
            raise EndOfInput

    def acknowledge(self, position):
        self.acknowledged.append(position)

    def drain(self):
        self.drained = True


def test_the_powers_of_a_source_are_not_lost():
    inner = Queue()
    source = Mapped(inner, double)
    assert (source.bounded, source.resume, source.remaining("all", None)) == (False, "acknowledge", 17)
    with source.open("all", None, X) as reader:
        assert isinstance(reader, Acknowledges)
        assert isinstance(reader, Drains)
        assert reader.read(1, 0) is None
        reader.acknowledge(5)
        reader.drain()
        with pytest.raises(EndOfInput):
            reader.read(1, 0)
    assert inner.acknowledged == [5]
    with Mapped(MemorySource({"x": [1.0]}), double).open("all", None, X) as reader:
        assert not isinstance(reader, Acknowledges)
        assert not isinstance(reader, Drains)


def test_a_pipeline_rejects_what_cannot_be_mapped():
    def strict(records):
        if 2.0 in records.column("x").to_pylist():
            raise ValueError("two")
        return records

    destination, rejects = MemoryDestination(), MemoryDestination()
    source = Mapped(MemorySource({"x": [1.0, 2.0, 3.0]}), strict)
    InferencePipeline(source, HOST, destination, name="p", rejects=rejects, require="at-least-once").run()
    assert destination.table().column("y").to_pylist() == [2, 6]
    (reject,) = rejects.table("rejects").to_pylist()
    assert (reject["stage"], reject["kind"], reject["message"]) == ("decode", "map_error", "ValueError: two")


def test_batches_and_bad_records_of_the_source_pass_through():
    class Odd(Queue):
        def read(self, max_records, timeout):
            empty = pa.record_batch({"x": pa.array([], pa.float64())})
            return Batch(empty, "all", 3, RecordIds.ordinals("all", 0, 0))

    with Mapped(Odd(), double).open("all", None, X) as reader:
        batch = reader.read(10, 0)
    assert (len(batch), batch.position, batch.records.schema) == (0, 3, X)
