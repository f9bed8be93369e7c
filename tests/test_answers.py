"""A model that breaks its contract ends the run before anything is written; an answer that is none rejects its record."""

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import ComponentError, InferencePipeline, MlinferError, finite, nonfinite
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

NAN, INF = float("nan"), float("inf")
INPUTS = {"x": pa.float64()}
TWO = pa.schema([pa.field("y", pa.float64(), nullable=False), pa.field("label", pa.string(), nullable=False)])


def run(function, outputs, *, takes="arrow", records=8, rejects=None):
    """Run over records 0..n-1; returns report and destination."""
    destination = MemoryDestination()
    host = FunctionHost(function, inputs=INPUTS, outputs=outputs, takes=takes, version="1")
    source = MemorySource({"id": list(range(records)), "x": np.arange(records, dtype=float)})
    pipeline = InferencePipeline(source, host, destination, name="p", keep=["id"], rejects=rejects)
    try:
        return pipeline.run(), destination
    except MlinferError:
        assert destination.table().num_rows == 0
        assert not destination._outputs or not destination._outputs["p", "main"].progress.positions
        raise


def batch(**columns):
    return pa.RecordBatch.from_pydict(columns)


@pytest.mark.parametrize(
    ("function", "takes", "message"),
    [
        (lambda b: b.slice(1), "arrow", "model '<lambda>': wanted 8 answers for 8 records, found 7"),
        (
            lambda b: batch(y=[0.0] * 9),
            "arrow",
            "wanted 8 answers for 8 records, found 9; a model must answer each record once, in order",
        ),
        (lambda b: batch(y=pa.array([], pa.float64())), "arrow", "wanted 8 answers for 8 records, found 0"),
        (lambda b: 3.0, "arrow", "wanted answers 'y', one per record, found a single value (float)"),
        (lambda b: None, "arrow", "found a single value (NoneType)"),
        (lambda b: "12345678", "arrow", "found a single value (str)"),
        (lambda b: batch(z=[0.0] * 8), "arrow", "model '<lambda>': wanted the answers ['y'], found ['z']"),
        (lambda b: batch(y=["a"] * 8), "arrow", "wanted answers 'y' of type double, found string"),
        (lambda b: batch(y=[True] * 8), "arrow", "wanted answers 'y' of type double, found bool"),
        (lambda x: x[1:], "numpy", "wanted 8 answers for 8 records, found 7"),
        (lambda x: np.append(x, 1), "numpy", "found 9"),
        (lambda x: x[:0], "numpy", "found 0"),
        (lambda x: np.float64(3), "numpy", "found"),
        (lambda x: np.array(3.0), "numpy", "found a single value"),
        (lambda x: {"z": x}, "numpy", "wanted the answers ['y'], found ['z']"),
        (lambda x: x.astype(str), "numpy", "wanted answers 'y' of type double, found string"),
        (lambda x: x.reshape(-1, 1), "numpy", "wanted answers 'y' of type double, found fixed_size_list"),
    ],
)
def test_a_broken_contract_is_named_and_nothing_is_written(function, takes, message):
    with pytest.raises(ComponentError) as caught:
        run(function, {"y": pa.float64()}, takes=takes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("function", "outputs", "message"),
    [
        (lambda b: batch(label=["a"] * 8, y=[0.0] * 8), TWO, "wanted the answers ['y', 'label'], found ['label', 'y']"),
        (lambda b: batch(y=[0.5] * 8), {"y": pa.int64()}, "wanted answers 'y' of type int64, found double"),
        (lambda b: batch(y=[300] * 8), {"y": pa.int8()}, "wanted answers 'y' of type int8, found int64"),
        (lambda b: batch(y=[[1.0]] * 8), {"y": pa.list_(pa.float64(), 2)}, "wanted answers 'y' of type fixed_size_list"),
    ],
)  # fmt: skip
def test_answers_are_never_put_in_order_or_rounded_by_guess(function, outputs, message):
    with pytest.raises(ComponentError) as caught:
        run(function, outputs)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (np.arange(8, dtype=np.float32), pa.float64()),
        (np.arange(8), pa.float64()),
        (np.arange(8), pa.int16()),
        (np.array(list("abcdefgh")), pa.large_string()),
        (np.array(list("abcdefgh"), object), pa.string()),
        (np.arange(16.0).reshape(8, 2), pa.list_(pa.float32(), 2)),
        (np.arange(16.0).reshape(8, 2), pa.list_(pa.float64())),
    ],
)
def test_a_type_that_can_stand_for_another_is_widened(answers, kind):
    report, destination = run(lambda x: answers, {"y": kind}, takes="numpy")
    assert report.delivered == 8
    table = destination.table()
    assert table.schema.field("y").type == kind
    assert table["y"].to_pylist() == answers.tolist()


ODD = [0.0, NAN, 2.0, INF, None, -INF, 6.0, 7.0]


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        (pa.field("y", pa.float64(), nullable=False), {1, 3, 4, 5}),
        (pa.field("y", pa.float64()), {1, 3, 5}),
        (nonfinite(pa.field("y", pa.float64())), set()),
        (nonfinite(pa.field("y", pa.float64(), nullable=False)), {4}),
    ],
)
def test_an_answer_that_is_none_rejects_its_record_alone(field, bad):
    rejects = MemoryDestination()
    report, destination = run(
        lambda b: batch(y=pa.array(ODD, pa.float64())), pa.schema([field]), rejects=rejects
    )
    assert (report.delivered, report.rejected) == (8 - len(bad), len(bad))
    table = destination.table()
    assert table["id"].to_pylist() == [n for n in range(8) if n not in bad]
    assert str(table["y"].to_pylist()) == str([ODD[n] for n in range(8) if n not in bad])
    if bad:
        kept = rejects.table("rejects")
        assert {int(name.rpartition("#")[2]) for name in kept["record_id"].to_pylist()} == bad
        assert set(kept["stage"].to_pylist()) == {"answer"}
        assert set(kept["message"].to_pylist()) == {
            "the model's answer 'y' is missing or not a finite number"
        }


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64(), 2), pa.list_(pa.float64()), pa.large_list(pa.float64())]
)
def test_nan_inside_a_list_rejects_the_record_it_belongs_to(kind):
    lists = pa.array([[0, 1], None, [NAN, 1], None, [1, INF], [2, 3], [4, 5], [6, 7]], kind)
    padded = pa.concat_arrays([lists.slice(0, 2), lists])  # answers may be a slice of something larger
    schema = pa.schema([pa.field("y", kind)])
    report, destination = run(
        lambda b: pa.RecordBatch.from_arrays([padded.slice(2)], ["y"]), schema, rejects=MemoryDestination()
    )
    assert report.rejected == 2
    assert destination.table()["id"].to_pylist() == [0, 1, 3, 5, 6, 7]


@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_model_cannot_change_what_is_written_beside_its_answers(shape):
    def spoil(x):
        x[...] = -1
        return x

    kind = pa.list_(pa.float64(), 3) if shape else pa.float64()
    data = np.ones((4, *shape))
    destination, rejects = MemoryDestination(), MemoryDestination()
    host = FunctionHost(spoil, inputs={"x": kind}, outputs={"y": kind}, takes="numpy", version="1")
    pipeline = InferencePipeline(MemorySource(data), host, destination, name="p", keep=["x"], rejects=rejects)
    with pytest.raises(ComponentError, match="model 'spoil': wanted a model that leaves its input as it is"):
        pipeline.run()
    assert (destination.table().num_rows, rejects.table("rejects").num_rows) == (0, 0)
    assert (data == 1).all()


def test_infinity_reaches_a_model_that_does_not_refuse_it():
    host = FunctionHost(
        lambda x: x > 1, inputs=pa.schema([pa.field("x", pa.float64())]), outputs={"y": pa.bool_()}, takes="numpy"
    )  # fmt: skip
    with InferencePipeline(MemorySource({"x": [INF]}), host, MemoryDestination()) as pipeline:
        assert pipeline.infer({"x": [INF, 0.0]})["y"].to_pylist() == [True, False]
    strict = FunctionHost(
        lambda x: x > 1,
        inputs=pa.schema([finite(pa.field("x", pa.float64()))]),
        outputs={"y": pa.bool_()},
        takes="numpy",
    )
    with InferencePipeline(MemorySource({"x": [INF]}), strict, MemoryDestination()) as pipeline:
        answers = pipeline.infer({"x": [INF, 0.0]}, on_reject="null")
    assert answers["status"].to_pylist() == ["not_finite", "ok"]
