"""The short way through a step gives what the whole step gives, or leaves it to that."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

import mlinfer
from mlinfer import InferencePipeline, RecordErrors, Signature
from mlinfer._answering import numbered
from mlinfer._engine import Step
from mlinfer._layout import lay_out
from mlinfer._online._outputs import OutputTensor
from mlinfer._online._tensors import Kind
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost, SklearnHost
from mlinfer.sources import MemorySource

X = np.random.default_rng(0).standard_normal((60, 3))
Y = np.where(X[:, 0] + X[:, 2] > 0, "yes", "no")
MODELS = {
    "labels": (LogisticRegression(), Y, "predict"),
    "probabilities": (RandomForestClassifier(5, random_state=0), Y, ("predict", "predict_proba")),
    "numbers": (LinearRegression(), X[:, 1] * 1e6, "predict"),
}
NUMBERS = some.floats(-3, 3) | some.floats() | some.sampled_from([1e308, -1e308, 1e39])


@pytest.fixture(scope="module", params=list(MODELS))
def pipeline(request, tmp_path_factory):
    """A compiled model in a pipeline that has answered a matrix."""
    model, target, method = MODELS[request.param]
    path = tmp_path_factory.mktemp("model") / "m.mlinfer"
    mlinfer.save(model.fit(X, target), path, example=X, method=method)
    made = InferencePipeline(MemorySource(X), SklearnHost(path), MemoryDestination(), name="at-once")
    made.infer(X[:2])
    return made


def told(pipeline, matrix, on_reject="raise"):
    try:
        found = pipeline.infer(matrix, on_reject=on_reject)
    except RecordErrors as error:
        return error.rows, error.kinds, error.messages
    return found.schema.to_string(), found.to_pylist()


@given(arrays(np.float64, some.tuples(some.integers(0, 4), some.just(3)), elements=NUMBERS))
def test_a_matrix_is_answered_as_a_table_is(pipeline, matrix):
    table = mlinfer.to_arrow(matrix)
    assert told(pipeline, matrix) == told(pipeline, table)
    assert told(pipeline, matrix, "null") == told(pipeline, table, "null")


@pytest.mark.parametrize(
    "matrix", [X[:5].astype(np.float32), X[:5, :2], np.asfortranarray(X[:5]), X[::7], X[:0]]
)
def test_other_matrices_are_answered_as_tables_are(pipeline, matrix):
    def answered(data):
        try:
            return told(pipeline, data)
        except mlinfer.MlinferError as error:
            return str(error)

    assert answered(matrix) == answered(mlinfer.to_arrow(matrix))


def test_the_short_way_is_taken(pipeline):
    step = pipeline._answers()._last[2]
    assert step.at_once({"x": X[:5]}, 5) is not None
    assert step.at_once({"x": np.where(X[:5] > 1, np.nan, X[:5])}, 5) is None
    assert step.at_once({"y": X[:5]}, 5) is None


INPUTS = pa.schema(
    [pa.field("x", pa.list_(pa.field("item", pa.float64(), nullable=False), 3), nullable=False)]
)
ODD = {
    "raises": lambda x: 1 / 0,
    "answers fewer": lambda x: x[1:, 0],
    "answers text": lambda x: np.full(len(x), "a"),
    "answers nothing": lambda x: None,
    "answers NaN": lambda x: x[:, 0] * np.nan,
    "exits": lambda x: sys.exit(3),
    "writes into its input": lambda x: x.__setitem__((0, 0), 7.0),
}


@pytest.mark.parametrize("name", list(ODD))
def test_a_model_that_breaks_its_contract_is_left_to_the_whole_step(name):
    host = FunctionHost(
        ODD[name], {"x": INPUTS.field(0).type}, {"y": pa.float64()}, takes="numpy", version="1"
    )
    before = X.copy()
    with host.open() as model:
        layout = lay_out(Signature(INPUTS, model.signature.outputs, "m", "1"), INPUTS)
        assert Step(model, layout, 100).at_once({"x": X[:5]}, 5) is None
    assert np.array_equal(X, before)


ITEM = pa.field("item", pa.float64(), nullable=False)
KINDS = [
    pa.int64(), pa.int16(), pa.float64(), pa.float32(), pa.bool_(), pa.string(), pa.list_(pa.float64(), 2), pa.list_(ITEM, 2),
    pa.list_(pa.bool_(), 2),
]  # fmt: skip
GIVEN = {
    "doubles": lambda x: x[:, 0],
    "with gaps between them": lambda x: x[::1, 1],
    "floats": lambda x: x[:, 0].astype(np.float32),
    "integers": lambda x: x[:, 0].astype(np.int64),
    "small ones": lambda x: x[:, 0].astype(np.int16),
    "of another order": lambda x: x[:, 0].astype(">f8"),
    "booleans": lambda x: x[:, 0] > 0,
    "some masked": lambda x: np.ma.masked_greater(x[:, 0], 0),
    "texts": lambda x: x[:, 0].astype(str),
    "objects": lambda x: x[:, 0].astype(object),
    "a list": lambda x: x[:, 0].tolist(),
    "Arrow": lambda x: pa.array(x[:, 0]),
    "a matrix": lambda x: x[:, 1:],
    "its transpose": lambda x: np.asfortranarray(x[:, 1:]),
    "true or false": lambda x: x[:, 1:] > 0,
    "one too wide": lambda x: x,
    "infinite": lambda x: x[:, 0] / 0.0,
}

RIGHT = {
    "doubles": pa.float64(), "floats": pa.float32(), "integers": pa.int64(), "small ones": pa.int16(), "booleans": pa.bool_(),
    "texts": pa.string(), "a matrix": pa.list_(ITEM, 2), "its transpose": pa.list_(ITEM, 2), "true or false": pa.list_(pa.bool_(), 2),
}  # fmt: skip


@pytest.mark.parametrize("given", list(GIVEN))
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_whatever_a_model_gives_is_what_the_whole_step_makes_of_it(given, kind):
    host = FunctionHost(
        lambda x: {"y": GIVEN[given](x)}, {"x": INPUTS.field(0).type}, {"y": kind}, takes="numpy", version="1"
    )
    with host.open() as model:
        step = Step(model, lay_out(Signature(INPUTS, model.signature.outputs, "m", "1"), INPUTS), 100)
        found = step.at_once({"x": X[:4]}, 4)
        if found is None:
            assert RIGHT.get(given) != kind
            return
        whole = step(numbered(mlinfer.to_arrow(X[:4]).to_batches()[0]))
    assert not whole.rejects
    assert found.batch.records.equals(whole.batch.records, check_metadata=True)
    assert found.batch.ids.array().equals(whole.batch.ids.array())
    told = [OutputTensor(one.column("y"), Kind.of(pa.field("y", kind))) for one in (found, whole)]
    shapes, elements = zip(*(one.cut(1, 2) for one in told), strict=True)
    assert shapes[0] == shapes[1]
    assert told[0].in_json(elements[0]) == told[1].in_json(elements[1])
    assert told[0].in_bytes(elements[0]) == told[1].in_bytes(elements[1])


def test_numbers_stay_in_numpy_until_somebody_wants_them_in_arrow(pipeline):
    answers = pipeline._answers()._last[2].at_once({"x": X[:5]}, 5)
    for field in pipeline._answers().signature.outputs:
        assert isinstance(answers.column(field.name), pa.Array if field.type == pa.string() else np.ndarray)
    assert "batch" not in vars(answers)


def test_kept_columns_and_lineage_need_the_whole_step():
    host = FunctionHost(
        lambda x: x[:, 0], {"x": INPUTS.field(0).type}, {"y": pa.float64()}, takes="numpy", version="1"
    )
    with host.open() as model:
        known = INPUTS.append(pa.field("id", pa.int64()))
        assert Step(model, lay_out(model.signature, INPUTS), 100).at_once({"x": X[:5]}, 5) is not None
        for more in ({"keep": ["id"]}, {"lineage": ["model_id"]}):
            assert Step(model, lay_out(model.signature, known, **more), 100).at_once({"x": X[:5]}, 5) is None
