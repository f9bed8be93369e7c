"""Rows are chosen of every type, also of those for which Arrow's own take and filter have no way."""

from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LinearRegression

import mlinfer
from mlinfer import (
    Batch,
    Budget,
    DataDestination,
    DataSource,
    EndOfInput,
    InferencePipeline,
    RecordErrors,
    RecordIds,
    chosen_rows,
)
from mlinfer.destinations import CsvDestination, MemoryDestination, ParquetDestination, Tee
from mlinfer.hosts import FunctionHost
from mlinfer.lifecycle import ByKey
from mlinfer.sources import Mapped, MemorySource

LONG = "longer than the twelve bytes that a view holds itself"
VALUES = {
    pa.string_view(): ["a", None, LONG],
    pa.binary_view(): [b"a", None, LONG.encode()],
    pa.list_(pa.string_view()): [["a"], None, [LONG, None]],
    pa.large_list(pa.binary_view()): [[b"a"], [], [LONG.encode()]],
    pa.list_(pa.string_view(), 2): [["a", "b"], None, ["c", LONG]],
    pa.list_view(pa.int64()): [[1], None, [2, 3]],
    pa.large_list_view(pa.string_view()): [["a", None], None, [LONG]],
    pa.list_(pa.list_view(pa.string_view())): [[["a"], None], None, [[LONG]]],
    pa.struct([("s", pa.list_(pa.string_view())), ("n", pa.int64())]): [{"s": ["a"], "n": 1}, None, {"s": None, "n": 2}],
    pa.struct([("v", pa.large_list_view(pa.int64())), ("s", pa.string_view())]): [{"v": [1], "s": LONG}, None, {"v": None, "s": "c"}],
    pa.map_(pa.string_view(), pa.list_view(pa.string_view())): [[("a", [LONG])], None, []],
    pa.json_(pa.string_view()): ['{"a": 1}', None, '"a text longer than twelve bytes"'],
}  # fmt: skip


def of_three(kind):
    return pa.ExtensionArray.from_storage(kind, pa.array(VALUES[kind], kind.storage_type)) if isinstance(kind, pa.BaseExtensionType) else pa.array(VALUES[kind], kind)  # fmt: skip


def stranger():
    """What Arrow chooses no rows of, without a view, or only some."""
    texts, numbers = pa.array(["a", None, LONG], pa.string_view()), pa.array([7, 8, 9])
    codes = pa.array([0, 1, 0], pa.int8())
    sparse = pa.UnionArray.from_sparse(codes, [texts, numbers], ["t", "n"])
    dense = pa.UnionArray.from_dense(
        codes, pa.array([0, 0, 2], pa.int32()), [texts, numbers], ["t", "n"], [0, 1]
    )
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), texts)
    coded = pa.DictionaryArray.from_arrays(
        pa.array([0, None, 1], pa.int8()), pa.array(["a", LONG], pa.string_view())
    )
    return [
        sparse, dense, runs, coded, pa.StructArray.from_arrays([dense, runs, coded], ["d", "r", "c"]),
        pa.ListArray.from_arrays([0, 1, 1, 3], dense),
    ]  # fmt: skip


EVERY = [*map(of_three, VALUES), *stranger()]
every_kind = pytest.mark.parametrize("three", EVERY, ids=lambda three: str(three.type))
every_view = pytest.mark.parametrize("three", [of_three(kind) for kind in VALUES], ids=lambda three: str(three.type))  # fmt: skip


@every_kind
def test_rows_are_chosen_by_numbers_and_by_masks_in_slices_and_tables_too(three):
    whole = pa.concat_arrays([three] * 6)
    values = three.to_pylist() * 6
    chance = np.random.default_rng(3)
    for start, count in ((0, 18), (3, 9), (6, 12), (3, 0)):
        array, known = whole.slice(start, count), values[start : start + count]
        rows = chance.integers(0, count, 7).tolist() if count else []
        good = chance.random(count) < 0.5
        by_numbers, by_mask = chosen_rows(array, rows), chosen_rows(array, good)
        for found in (by_numbers, by_mask):
            found.validate(full=True)
            assert found.type == array.type
        assert by_numbers.to_pylist() == [known[row] for row in rows]
        assert by_mask.to_pylist() == [one for one, its in zip(known, good, strict=True) if its]
        table = pa.table({"x": pa.chunked_array([array, array], array.type)})
        found = chosen_rows(table, np.concatenate([good, good]))
        assert found.column("x").to_pylist() == by_mask.to_pylist() * 2
        assert found.schema.equals(table.schema)


@every_kind
def test_a_number_that_is_null_gives_a_null(three):
    found = chosen_rows(three, pa.array([2, None, 0], pa.int64()))
    found.validate(full=True)
    assert found.to_pylist() == [three.to_pylist()[2], None, three.to_pylist()[0]]
    assert chosen_rows(three.slice(0, 0), pa.array([None], pa.int64())).null_count in {0, 1}


@every_kind
def test_a_mask_is_of_one_value_for_each_row(three):
    """Of texts in views a shorter one left the last rows out, without a word."""
    for mask in ([True, False], [True] * 4):
        with pytest.raises(ValueError, match=f"wanted a mask of 3 values.*found {len(mask)}"):
            chosen_rows(three, mask)


@every_kind
def test_a_mask_may_come_as_a_table_gives_it(three):
    table = pa.table(
        {"x": pa.chunked_array([three, three]), "n": pa.chunked_array([[1, None, 3], [4, 5, 6]])}
    )
    found = chosen_rows(table, pc.greater(table["n"], 2))
    assert found.column("x").to_pylist() == [*three.to_pylist()[2:], *three.to_pylist()]


@every_kind
@pytest.mark.parametrize("rows", [[-1], [2], [0, 1, 7]], ids=str)
def test_rows_that_are_not_there_are_refused_whatever_the_type(three, rows):
    """Arrow does so for the types of which it can choose some; what lies in memory behind a slice is no row of it."""
    some = pa.concat_arrays([three] * 2).slice(1, 2)
    for data in (some, pa.record_batch({"x": some}), pa.chunked_array([some.slice(0, 1), some.slice(1)])):
        with pytest.raises(IndexError):
            chosen_rows(data, rows)


@pytest.mark.parametrize("kind", [pa.int64(), pa.bool_(), pa.float32(), pa.list_(pa.int8(), 2)], ids=str)
@pytest.mark.parametrize("wrap", ["plain", "list", "struct", "extension"])
def test_matrices_in_slices_are_chosen_as_they_are(kind, wrap):
    """Arrow's own take and filter gave what lies elsewhere in memory."""
    matrix, count = pa.list_(pa.list_(kind, 2), 3), 20
    ones = [[[n * 6 + i * 2 + j for j in range(2)] for i in range(3)] for n in range(count)]
    if pa.types.is_boolean(kind):
        ones = [[[bool(n & (1 << i)) for _ in range(2)] for i in range(3)] for n in range(count)]
    elif pa.types.is_fixed_size_list(kind):
        ones = [[[[n, i + j] for j in range(2)] for i in range(3)] for n in range(count)]
    column = pa.array(ones, matrix)
    if wrap == "list":
        column = pa.ListArray.from_arrays(range(count + 1), column)
    elif wrap == "struct":
        column = pa.StructArray.from_arrays([column], ["m"])
    elif wrap == "extension":
        column = pa.ExtensionArray.from_storage(pa.opaque(matrix, "matrix", "ours"), column)
    some = column.slice(3, 9)
    values = some.to_pylist()
    assert chosen_rows(some, [8, 0, 4]).to_pylist() == [values[8], values[0], values[4]]
    assert chosen_rows(some, [n % 2 == 0 for n in range(9)]).to_pylist() == values[::2]
    assert chosen_rows(some, pa.array([1, None])).to_pylist() == [values[1], None]


def test_a_bad_record_costs_no_other_its_matrix():
    matrix = pa.list_(pa.list_(pa.field("item", pa.float64(), nullable=False), 2), 2)
    ones = [[[n + 0.25, n], [n, n]] for n in range(40)]
    table = pa.table({"m": pa.array(ones, matrix), "x": [None if n == 30 else float(n) for n in range(40)]})
    host = FunctionHost(
        lambda records: {"y": records.column("x")},
        {"x": "double"},
        {"y": "double"},
        takes="arrow",
        version="1",
    )
    destination = MemoryDestination()
    InferencePipeline(
        MemorySource(table.slice(20)),
        host,
        destination,
        name="p",
        keep=["m"],
        rejects=MemoryDestination(),
        budget=Budget(count=5),
    ).run()
    assert destination.table()["m"].to_pylist() == [one for n, one in enumerate(ones) if n >= 20 and n != 30]


def test_a_batch_keeps_its_fields_and_what_they_say():
    field = pa.field("x", pa.string_view(), nullable=False, metadata={"said": "so"})
    records = pa.record_batch([pa.array(["a", "b"], pa.string_view())], schema=pa.schema([field]))
    assert chosen_rows(records, [1]).schema.equals(records.schema, check_metadata=True)


@pytest.mark.parametrize(
    "rows",
    [
        np.array([True, False, True], object),
        [1, None],
        [1.5],
        [float("nan")],
        ["1"],
        [[0, 1]],
        np.ones((3, 1), bool),
        pa.array([1.0]),
        1,
    ],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.string_view()], ids=str)
def test_what_is_neither_a_mask_nor_whole_numbers_chooses_nothing(rows, kind):
    with pytest.raises(ValueError, match="wanted a mask or whole numbers, shape"):
        chosen_rows(pa.array(["a", "b", "c"], kind), rows)


@pytest.mark.parametrize(
    "rows", [[], np.array([2, 0], np.uint64), range(2, -1, -2), np.array([2, 0], np.int8)]
)
def test_whole_numbers_may_be_of_any_type(rows):
    found = chosen_rows(pa.array(["a", "b", "c"]), rows)
    assert found.to_pylist() == (["c", "a"] if len(rows) else [])


def test_rows_of_no_columns_are_rows_still():
    bare = pa.record_batch({"x": [1, 2, 3]}).select([])
    assert len(chosen_rows(bare, np.array([2, 0]))) == 2
    with pytest.raises(IndexError, match="wanted numbers of 3 rows, found 7"):
        chosen_rows(bare, [7])


NUMBERS = pa.array([0, 1, 2], pa.float64())


class Views(DataSource):
    """A stranger's: hands a batch over as it is."""

    bounded, resume = True, "seek"

    def __init__(self, columns):
        self.records = pa.record_batch(columns)

    def schema(self):
        return self.records.schema

    @contextmanager
    def open(self, partition, after, wanted):
        yield self

    def read(self, max_records, timeout):
        records, self.records = self.records, self.records.slice(0, 0)
        if not len(records):
            raise EndOfInput
        return Batch(records, "all", len(records), RecordIds.ordinals("all", 0, len(records)))


def test_ids_in_views_are_chosen_too():
    ids = RecordIds(lambda: pa.array(["a", "b", "c"], pa.string_view()))
    assert ids.take([2, 0]).array().to_pylist() == ["c", "a"]
    assert ids.filter(pa.array([True, False, True])).array().to_pylist() == ["a", "c"]


class Refusing(DataDestination):
    """Takes all but the record number 1, and keeps it."""

    def __init__(self):
        self.kept = []

    @contextmanager
    def open(self, schema, scope):
        yield self

    def write(self, batch):
        if 1 in (numbers := batch.records.column("n").to_pylist()):
            raise RecordErrors([numbers.index(1)], ["constraint"], ["not this one"])
        self.kept += batch.records.to_pylist()

    def commit(self, progress):
        pass


def pipeline(three, destination, source=None, **more):
    """Answers n, which is kept with the column x of three records."""
    host = FunctionHost(lambda n: n, {"n": pa.float64()}, {"y": pa.float64()}, "numpy", version="1")
    return InferencePipeline(
        source or Views({"x": three, "n": NUMBERS}), host, destination, name="p", keep=["x", "n"], budget=Budget(ratio=1.0), **more
    )  # fmt: skip


@every_view
def test_a_tee_hands_on_what_a_destination_takes(three):
    first, second, rejects = Refusing(), MemoryDestination(), MemoryDestination()
    report = pipeline(three, Tee(first, second), rejects=rejects).run()
    assert (report.delivered, report.rejected) == (2, 1)
    expected = [three.to_pylist()[row] for row in (0, 2)]
    assert [one["x"] for one in first.kept] == expected
    assert second.table()["x"].to_pylist() == expected
    assert len(rejects.table("rejects")) == 1


def test_a_dictionary_of_views_arrives_as_its_texts(tmp_path):
    words = pa.array(["a", LONG], pa.string_view())
    coded = pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int8()), words)
    memory = MemoryDestination()
    for destination in (memory, CsvDestination(tmp_path / "a.csv"), ParquetDestination(tmp_path / "parts")):
        assert pipeline(coded, destination).run().delivered == 3
    assert memory.table()["x"].to_pylist() == ["a", None, LONG]
    assert (tmp_path / "a.csv").read_text().splitlines()[1:] == ['"a",0,0', ",1,1", f'"{LONG}",2,2']
    assert pq.read_table(tmp_path / "parts")["x"].to_pylist() == ["a", None, LONG]


@every_view
def test_a_mapped_source_finds_the_record_for_which_its_function_fails(three):
    def mapped(records):
        if 1 in records.column("n").to_pylist():
            raise ValueError
        return records

    done, rejects = MemoryDestination(), MemoryDestination()
    report = pipeline(three, done, Mapped(Views({"x": three, "n": NUMBERS}), mapped), rejects=rejects).run()
    assert (report.delivered, report.rejected) == (2, 1)
    assert done.table()["x"].type == three.type
    assert done.table()["x"].to_pylist() == [three.to_pylist()[row] for row in (0, 2)]


@every_view
@pytest.mark.parametrize("names", [True, False])
def test_a_record_that_a_model_refuses_becomes_a_reject_and_its_neighbours_are_answered(three, names):
    def infer(records):
        if 1 in (numbers := records.column("n").to_pylist()):
            raise RecordErrors([numbers.index(1)], ["refused"], ["no"]) if names else ValueError("no")
        return {"y": records.column("x")}

    kind = three.type
    host = FunctionHost(infer, {"n": pa.float64(), "x": kind}, {"y": kind}, "arrow", version="1")
    done, rejects = MemoryDestination(), MemoryDestination()
    made = InferencePipeline(
        Views({"x": three, "n": NUMBERS}),
        host,
        done,
        name="p",
        keep=["x"],
        rejects=rejects,
        budget=Budget(ratio=1.0),
    )
    assert made.run().rejected == 1
    expected = [three.to_pylist()[row] for row in (0, 2)]
    assert done.table()["y"].to_pylist() == done.table()["x"].to_pylist() == expected
    [reject] = rejects.table("rejects").to_pylist()
    assert reject["record_id"].endswith("#1")


@every_view
@pytest.mark.parametrize("form", ["table", "dict"])
def test_data_in_hand_with_a_bad_record_have_an_answer_for_each_other(three, form):
    numbers = pa.array([0, None, 2], pa.float64())
    data = {"x": three, "n": numbers}
    made = pipeline(three, MemoryDestination())
    found = made.infer(pa.table(data) if form == "table" else data, on_reject="null")
    assert found["status"].to_pylist() == ["ok", "missing_value", "ok"]
    assert found["x"].to_pylist() == three.to_pylist()
    assert found["y"].to_pylist() == [0, None, 2]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_train_divides_by_views_as_by_plain_texts(kind, tmp_path):
    rows = np.arange(400.0)
    names = pa.array([f"{LONG} {row}" for row in range(400)])
    found = []
    for key in (names, names.cast(kind)):
        records = {"key": key, "n": rows, "t": 2 * rows + rows % 7}
        report = mlinfer.train(
            Views(records), LinearRegression(), target="t", features=["n"], split=ByKey("key"),
            metrics=["r2"], to=tmp_path / f"{key.type}.mlinfer",
        )  # fmt: skip
        found.append(report["r2"])
    assert kind == pa.binary_view() or found[0] == found[1]
    assert found[1].value > 0.99
