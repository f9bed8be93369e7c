"""One step answers every record of a batch or says why not, joins what was kept by index, and undoes what failed."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlinfer import (
    BadRecord,
    Batch,
    ComponentError,
    ConfigError,
    RecordErrors,
    RecordIds,
    SchemaError,
    Signature,
    TransientError,
)
from mlinfer._engine import Step
from mlinfer._layout import lay_out

SIGNATURE = Signature(
    pa.schema([pa.field("x", pa.float64(), nullable=False)]),
    pa.schema([pa.field("y", pa.float64(), nullable=False)]),
)
KNOWN = pa.schema([("id", pa.int64()), ("x", pa.float64())])


class Doubling:
    """Answers 2 x; raises for some x, names others, answers NaN for others; counts calls and remembers what it saw."""

    signature = SIGNATURE

    def __init__(self, raises=(), names=(), nans=(), largest=10**9):
        self.raises, self.names, self.nans, self.largest = set(raises), set(names), set(nans), largest
        self.seen, self.sizes = set(), []

    def infer(self, records):
        self.seen.update(records.schema.names)
        self.sizes.append(records.num_rows)
        x = records.column("x").to_pylist()
        if len(x) > self.largest:
            raise MemoryError
        named = [row for row, value in enumerate(x) if value in self.names]
        if named:
            raise RecordErrors(named, "named", "the model says so")
        if self.raises & set(x):
            raise ValueError("somewhere")
        return pa.record_batch({"y": [float("nan") if v in self.nans else 2 * v for v in x]})


def batch(x, position=1):
    records = pa.record_batch(
        {"id": pa.array(range(len(x)), pa.int64()), "x": pa.array(x, pa.float64())}, schema=KNOWN
    )
    return Batch(records, "p", position, RecordIds.ordinals("p", 0, len(x)))


def step(model, max_records=10**6, keep=("id",)):
    return Step(model, lay_out(model.signature, KNOWN, keep), max_records)


def rows_of(answers):
    """Delivered ids, and rejected rows by (stage, kind)."""
    rejected = [
        (int(name.rpartition("#")[2]), group.stage, kind)
        for group in answers.rejects
        for name, kind in zip(group.ids.array().to_pylist(), group.kinds, strict=True)
    ]
    return answers.batch.records.column("id").to_pylist(), sorted(rejected)


SETS = st.sets(st.integers(0, 40), max_size=8)


@settings(max_examples=60)
@given(st.lists(SETS, min_size=4, max_size=4), st.integers(1, 50))
def test_every_record_is_answered_or_rejected_once_whatever_the_batch_size(bad, size):
    missing, named, raises, nans = bad
    x = [None if row in missing else float(row) for row in range(41)]
    model = Doubling(raises, names=named, nans=nans)
    answers = step(model, size)(batch(x))
    delivered, rejected = rows_of(answers)
    expected = {}
    for kind, rows in (
        (("answer", "bad_answer"), nans),
        (("infer", "model_error"), raises),
        (("infer", "named"), named),
        (("conform", "missing_value"), missing),
    ):
        expected.update(dict.fromkeys(rows, kind))
    assert rejected == sorted((row, *kind) for row, kind in expected.items())
    assert delivered == [row for row in range(41) if row not in expected]
    assert answers.batch.records.column("y").to_pylist() == [2.0 * row for row in delivered]
    assert answers.batch.ids.array().to_pylist() == [f"p#{row}" for row in delivered]
    for group in answers.rejects:
        ids = [int(name.rpartition("#")[2]) for name in group.ids.array().to_pylist()]
        assert group.records.column("id").to_pylist() == ids
    assert max(model.sizes, default=0) <= size


def test_the_model_never_sees_kept_columns():
    model = Doubling()
    answers = step(model, keep=["id"])(batch([1.0, 2.0]))
    assert model.seen == {"x"}
    assert answers.batch.records.to_pylist() == [{"id": 0, "y": 2.0}, {"id": 1, "y": 4.0}]
    assert answers.batch.position == 1


def test_a_column_may_be_kept_and_read_by_the_model():
    assert step(Doubling(), keep=["x"])(batch([1.0, None])).batch.records.to_pylist() == [
        {"x": 1.0, "y": 2.0}
    ]


def test_undecodable_records_travel_beside_their_batch():
    bad = (BadRecord("p#7", "not_json", "wanted JSON, found '{'", b"{"),)
    source = batch([1.0])
    answers = step(Doubling())(Batch(source.records, "p", 8, source.ids, bad))
    assert rows_of(answers) == ([0], [(7, "decode", "not_json")])
    assert answers.rejects[0].raws == [b"{"]


def test_a_batch_without_records_is_answered_without_asking_the_model():
    model = Doubling()
    answers = step(model)(batch([]))
    assert (model.sizes, len(answers.batch), answers.batch.position) == ([], 0, 1)
    assert answers.batch.records.schema.names == ["id", "y"]


def test_running_out_of_memory_halves_the_batch_and_remembers():
    model = Doubling(largest=10)
    small = step(model)
    assert rows_of(small(batch(range(64)))) == (list(range(64)), [])
    assert max(size for size in model.sizes[model.sizes.index(8) :]) == 32
    model.sizes.clear()
    small(batch(range(64)))
    assert set(model.sizes) == {8}


def test_one_record_that_is_too_large_does_not_make_later_batches_small():
    class Hungry(Doubling):
        def infer(self, records):
            if 5.0 in records.column("x").to_pylist():
                self.sizes.append(records.num_rows)
                raise MemoryError("one huge record")
            return super().infer(records)

    model = Hungry()
    hungry = step(model)
    delivered, rejected = rows_of(hungry(batch(range(64))))
    assert (len(delivered), rejected) == (63, [(5, "infer", "out_of_memory")])
    model.sizes.clear()
    hungry(batch(range(100, 164)))
    assert max(model.sizes) == 32


@pytest.mark.parametrize("error", [ComponentError("broken"), TransientError("later"), KeyboardInterrupt()])
def test_what_is_not_about_records_ends_the_step(error):
    class Failing(Doubling):
        def infer(self, records):
            raise error

    with pytest.raises(type(error)):
        step(Failing())(batch([1.0]))


def test_a_source_that_gives_no_ids_is_told_when_they_are_needed():
    records = batch([1.0, None]).records
    answers = step(Doubling())(Batch(records, "p", 1))
    assert answers.batch.records.to_pylist() == [{"id": 0, "y": 2.0}]
    with pytest.raises(
        ComponentError, match="found a source whose batches carry none; give each Batch its ids"
    ):
        answers.rejects[0].ids.array()


# --- arrays ----------------------------------------------------------------------------------------------------------


class Arrays(Doubling):
    """The same model with numpy in and out."""

    signature = Signature(
        pa.schema([pa.field("x", pa.list_(pa.float64(), 2), nullable=False)]), SIGNATURE.outputs
    )

    def infer(self, records):
        raise AssertionError("arrays are asked for")

    def infer_arrays(self, columns):
        x = columns["x"]
        assert x.ndim == 2
        assert not x.flags.writeable
        self.sizes.append(len(x))
        if self.raises & set(x[:, 0].tolist()):
            raise ValueError("somewhere")
        return {"y": x.sum(axis=1)}


@settings(max_examples=40)
@given(st.lists(st.none() | st.integers(0, 9), max_size=12), SETS, st.integers(1, 5), st.integers(0, 3))
def test_arrays_meet_their_answers_again_whatever_is_missing(values, raises, size, start):
    kind = pa.list_(pa.float64(), 2)
    x = pa.array([None if v is None else [v, n] for n, v in enumerate(values)], kind)[start:]
    ids = list(range(len(values)))[start:]
    records = pa.record_batch({"id": pa.array(ids, pa.int64()), "x": x})
    model = Arrays(raises)
    answers = Step(model, lay_out(model.signature, records.schema, ["id"]), size)(
        Batch(records, "p", 1, RecordIds.of(records.column("id")))
    )
    expected = [n for n in ids if values[n] is not None and values[n] not in raises]
    assert answers.batch.records.to_pylist() == [{"id": n, "y": float(values[n] + n)} for n in expected]
    assert answers.rejected + len(expected) == len(ids)


def test_null_tensors_reach_a_model_that_takes_them_as_nan():
    class Nullable(Arrays):
        signature = Signature(pa.schema([pa.field("x", pa.list_(pa.int64(), 2))]), SIGNATURE.outputs)

        def infer_arrays(self, columns):
            assert not columns["x"].flags.writeable
            return {"y": np.nan_to_num(columns["x"].sum(axis=1), nan=-1)}

    x = pa.array([[1, 2], None, [3, 4], None], pa.list_(pa.int64(), 2))
    records = pa.record_batch({"x": x})
    answers = Step(Nullable(), lay_out(Nullable.signature, records.schema), 100)(Batch(records, "p", 1))
    assert answers.batch.records.column("y").to_pylist() == [3.0, -1.0, 7.0, -1.0]


# --- memory and side tables ------------------------------------------------------------------------------------------


class Summing(Doubling):
    """Answers the running sum of its partition; raises for some x after it has changed its memory."""

    def __init__(self, raises=()):
        super().__init__(raises)
        self.total = 0.0
        self.noted = []

    def infer(self, records):
        x = records.column("x").to_pylist()
        y = []
        for value in x:
            self.total += value
            self.noted.append(value)
            y.append(self.total)
        if self.raises & set(x):
            raise ValueError("too late, the memory has changed")
        return pa.record_batch({"y": y})

    def snapshot(self):
        return str(self.total).encode()

    def restore(self, state):
        self.total = float(state)

    def side_schemas(self):
        return {"seen": pa.schema([("value", pa.float64())])}

    def drain(self):
        noted, self.noted = self.noted, []
        return {"seen": pa.record_batch({"value": pa.array(noted, pa.float64())})}


@given(SETS, st.integers(1, 50))
def test_memory_and_side_tables_know_only_what_was_answered_however_it_was_split(bad, size):
    model = Summing(bad)
    summing = step(model, size)
    summing.resume(None)
    answers = summing(batch(range(41)))
    good = [row for row in range(41) if row not in bad]
    assert rows_of(answers)[0] == good
    assert answers.batch.records.column("y").to_pylist() == np.cumsum(good, dtype=float).tolist()
    assert answers.state == str(float(sum(good))).encode()
    assert answers.sides["seen"].column("value").to_pylist() == good if good else not answers.sides


def test_a_step_that_fails_leaves_memory_as_it_was():
    model = Summing()
    summing = step(model, 4)
    summing.resume(b"100.0")
    model.infer, works = _fails_on_the_second_call(model.infer), model.infer
    with pytest.raises(TransientError):
        summing(batch(range(8)))
    model.infer = works
    answers = summing(batch(range(8)))
    assert answers.batch.records.column("y").to_pylist() == (100 + np.cumsum(range(8))).tolist()
    assert answers.sides["seen"].num_rows == 8


def _fails_on_the_second_call(infer):
    calls = []

    def failing(records):
        calls.append(records)
        answers = infer(records)
        if len(calls) == 2:
            raise TransientError("later")
        return answers

    return failing


# --- layout ----------------------------------------------------------------------------------------------------------


def test_only_what_the_model_and_the_destination_want_is_read():
    layout = lay_out(SIGNATURE, pa.schema([*KNOWN, ("huge", pa.binary())]), ["id", "id"])
    assert layout.wanted.names == ["x", "id"]
    assert layout.output.names == ["id", "y"]
    renamed = lay_out(SIGNATURE, pa.schema([("raw", pa.float64())]), columns={"x": "raw"})
    assert renamed.wanted.names == ["raw"]


@pytest.mark.parametrize(
    ("keep", "known", "error", "message"),
    [
        ("id", KNOWN, ConfigError, "keep: wanted a list of columns, found the text 'id'; write keep=['id']"),
        (["y"], pa.schema([*KNOWN, ("y", pa.int64())]), ConfigError, "keep: y would bear the name of an answer of the model"),
        (["nope"], KNOWN, SchemaError, "field 'nope': wanted a column to keep, found no such column; columns there are: id, x"),
        (["x"], pa.schema([*KNOWN, *KNOWN]), SchemaError, "field 'x': wanted a column to keep, found 2 columns of that name"),
        (["id"], None, ConfigError, "or give the type: keep={'id': pa.string()}"),
        ({"id": pa.string()}, KNOWN, SchemaError, "field 'id': wanted string, found int64; convert the column"),
        ({"nope": pa.string()}, KNOWN, SchemaError, "field 'nope': wanted string, found no such column"),
    ],
)  # fmt: skip
def test_kept_columns_are_checked_before_a_record_moves(keep, known, error, message):
    with pytest.raises(error) as caught:
        lay_out(SIGNATURE, known, keep)
    assert message in str(caught.value)


def test_kept_strings_may_come_dictionary_encoded():
    known = pa.schema([("id", pa.dictionary(pa.int32(), pa.string())), ("x", pa.float64())])
    assert lay_out(SIGNATURE, known, ["id"]).output.field("id").type == pa.string()


def test_unknown_columns_to_rename_are_refused():
    with pytest.raises(ConfigError, match=r"columns: wanted names of the model's inputs \(x\), found z"):
        lay_out(SIGNATURE, KNOWN, columns={"z": "x"})
