"""SklearnHost answers as the estimator does, whatever it was fitted on, and says beforehand what it cannot take."""

import functools
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from mlinfer import ConfigError, InferencePipeline, RecordErrors
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource

IRIS = load_iris(as_frame=True)
CANCER = load_breast_cancer(as_frame=True)
DIABETES = load_diabetes(as_frame=True)


def scaled(estimator):
    return make_pipeline(StandardScaler(), estimator)


def signature(host):
    with host.open() as model:
        return model.signature


def answers(host, records):
    """Through the whole pipeline, in hand."""
    with InferencePipeline(MemorySource(records), host, MemoryDestination()) as pipeline:
        return pipeline.infer(records)


def matrix(column):
    return np.array(column.to_pylist())


# --- answers are the estimator's own -----------------------------------------------------------------------------------


def test_a_run_delivers_what_the_estimator_predicts():
    model = scaled(LogisticRegression()).fit(IRIS.data, IRIS.target)
    destination = MemoryDestination()
    report = InferencePipeline(
        MemorySource(IRIS.data),
        SklearnHost(model, example=IRIS.data),
        destination,
        name="iris",
        keep=list(IRIS.data),
    ).run()
    assert (report.delivered, report.rejected) == (150, 0)
    table = destination.table()
    assert table["y_pred"].to_pylist() == model.predict(IRIS.data).tolist()
    pd.testing.assert_frame_equal(table.select(list(IRIS.data)).to_pandas(), IRIS.data)


@pytest.mark.parametrize("named", [True, False], ids=["frame", "matrix"])
@pytest.mark.parametrize(
    ("estimator", "data", "methods"),
    [
        (scaled(LogisticRegression()), CANCER, ("predict", "predict_proba", "decision_function")),
        (RandomForestClassifier(5, random_state=0), IRIS, ("predict", "predict_proba")),
        (
            HistGradientBoostingClassifier(max_iter=3),
            CANCER,
            ("predict", "predict_proba", "decision_function"),
        ),
        (KNeighborsClassifier(3), IRIS, ("predict", "predict_proba")),
        (LinearRegression(), DIABETES, ("predict",)),
        (RandomForestRegressor(3, random_state=0), DIABETES, ("predict",)),
        (scaled(LinearSVC()), IRIS, ("predict", "decision_function")),
        (
            GridSearchCV(scaled(LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2),
            IRIS,
            ("predict_proba",),
        ),
        (
            VotingClassifier([("a", scaled(LogisticRegression())), ("b", KNeighborsClassifier())]),
            IRIS,
            ("predict",),
        ),
        (StackingClassifier([("a", KNeighborsClassifier())], cv=2), IRIS, ("predict", "predict_proba")),
        (
            IsolationForest(n_estimators=3, random_state=0),
            IRIS,
            ("predict", "decision_function", "score_samples"),
        ),
        (scaled(PCA(2)), CANCER, ("transform",)),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_every_method_answers_as_the_estimator_does(estimator, data, methods, named):
    records = data.data if named else data.data.to_numpy()
    estimator.fit(records, data.target)
    table = answers(SklearnHost(estimator, example=records, method=methods), records)
    assert table.num_columns == len(methods)
    for method, column in zip(methods, table.columns, strict=True):
        np.testing.assert_allclose(
            matrix(column), getattr(estimator, method)(records), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(["no", "yes"], pa.string()), ([False, True], pa.bool_()), ([3, 7], pa.int64())],
)
def test_labels_arrive_as_what_they_are(labels, kind):
    target = np.array(labels)[CANCER.target]
    model = KNeighborsClassifier(3).fit(CANCER.data, target)
    column = answers(SklearnHost(model, example=CANCER.data), CANCER.data)["y_pred"]
    assert column.type == kind
    assert column.to_pylist() == model.predict(CANCER.data).tolist()


def test_string_labels_in_an_object_array_arrive_as_strings():
    target = np.array(["no", "yes"], object)[CANCER.target]
    model = KNeighborsClassifier(3).fit(CANCER.data, target)
    assert (
        answers(SklearnHost(model), CANCER.data)["y_pred"].to_pylist() == model.predict(CANCER.data).tolist()
    )


# --- the shape of answers ----------------------------------------------------------------------------------------------


def test_probabilities_are_lists_whose_field_names_the_classes():
    model = scaled(LogisticRegression()).fit(IRIS.data, IRIS.target_names[IRIS.target])
    field = signature(SklearnHost(model, example=IRIS.data, method="predict_proba")).outputs.field("y_proba")
    assert field.type.list_size == 3
    assert json.loads(field.metadata[b"mlinfer.classes"]) == ["setosa", "versicolor", "virginica"]


def test_expand_gives_one_column_per_class():
    model = scaled(LogisticRegression()).fit(IRIS.data, IRIS.target_names[IRIS.target])
    host = SklearnHost(model, example=IRIS.data, method=("predict", "predict_proba"), expand=True)
    table = answers(host, IRIS.data)
    assert table.column_names == ["y_pred", "y_proba_setosa", "y_proba_versicolor", "y_proba_virginica"]
    np.testing.assert_allclose(table["y_proba_virginica"], model.predict_proba(IRIS.data)[:, 2])


def test_several_outputs_are_lists_or_columns():
    target = DIABETES.data[["age", "bmi"]]
    model = Ridge().fit(DIABETES.data, target)
    listed = answers(SklearnHost(model, example=DIABETES.data), DIABETES.data)
    wide = answers(SklearnHost(model, example=DIABETES.data, expand=True), DIABETES.data)
    np.testing.assert_allclose(matrix(listed["y_pred"]), model.predict(DIABETES.data))
    assert wide.column_names == ["y_pred_0", "y_pred_1"]
    np.testing.assert_allclose(wide["y_pred_1"], model.predict(DIABETES.data)[:, 1])


def test_several_outputs_with_classes_have_probabilities_each():
    target = np.c_[IRIS.target, IRIS.target > 0].astype(int)
    model = MultiOutputClassifier(KNeighborsClassifier(3)).fit(IRIS.data, target)
    table = answers(SklearnHost(model, example=IRIS.data, method="predict_proba"), IRIS.data)
    for name, wanted in zip(["y_proba_0", "y_proba_1"], model.predict_proba(IRIS.data), strict=True):
        np.testing.assert_array_equal(matrix(table[name]), wanted)


def test_transformed_columns_have_the_names_that_the_transformer_gives():
    model = scaled(PCA(2)).fit(IRIS.data)
    table = answers(SklearnHost(model, example=IRIS.data, method="transform", expand=True), IRIS.data)
    assert table.column_names == ["y_transform_pca0", "y_transform_pca1"]
    np.testing.assert_allclose(table["y_transform_pca1"], model.transform(IRIS.data)[:, 1])


def test_a_sparse_answer_is_written_out_in_full():
    texts = ["a red fox", "a blue bird", "red red"]
    model = CountVectorizer().fit(texts)
    table = answers(SklearnHost(model, example=texts, method="transform"), texts)
    np.testing.assert_array_equal(matrix(table["y_transform"]), model.transform(texts).toarray())


def test_a_sparse_answer_that_is_too_wide_is_refused():
    with pytest.raises(ConfigError, match=r"sparse matrix of 1,048,576; reduce it"):
        signature(SklearnHost(HashingVectorizer().fit(["a"]), example=["a red fox"], method="transform"))


def test_an_empty_batch_has_an_empty_answer():
    model = KNeighborsClassifier(3).fit(IRIS.data, IRIS.target)
    with SklearnHost(model, example=IRIS.data).open() as opened:
        nothing = opened.signature.inputs.empty_table().to_batches() or [
            pa.RecordBatch.from_pylist([], schema=opened.signature.inputs)
        ]
        assert opened.infer(nothing[0]).num_rows == 0


# --- what it reads -----------------------------------------------------------------------------------------------------


def test_a_frame_gives_a_field_per_column_and_a_matrix_one_field():
    frame = KNeighborsClassifier(3).fit(IRIS.data, IRIS.target)
    fields = signature(SklearnHost(frame, example=IRIS.data)).inputs
    assert fields.names == list(IRIS.data)
    assert set(fields.types) == {pa.float64()}
    plain = KNeighborsClassifier(3).fit(IRIS.data.to_numpy(np.float32), IRIS.target)
    [field] = signature(SklearnHost(plain, example=IRIS.data.to_numpy(np.float32))).inputs
    assert (field.name, field.type.list_size, field.type.value_type) == ("x", 4, pa.float32())


class Watched(KNeighborsClassifier):
    """Remembers what it is given."""

    given = []  # noqa: RUF012 - shared with its copies on purpose

    def predict(self, X):  # noqa: N803 - scikit-learn's name
        self.given.append(type(X))
        return super().predict(X)


@pytest.mark.parametrize("wrapped", [False, True])
def test_columns_of_numbers_reach_the_estimator_as_a_matrix_though_it_knows_their_names(wrapped):
    model = Watched(3).fit(IRIS.data, IRIS.target)
    if wrapped:
        model = VotingClassifier([("a", Watched(3))]).fit(IRIS.data, IRIS.target)
    with SklearnHost(model, example=IRIS.data).open() as opened:
        Watched.given.clear()
        opened.infer(pa.RecordBatch.from_pandas(IRIS.data, preserve_index=False))
    assert Watched.given == [np.ndarray]


def test_a_wider_example_gives_only_the_columns_that_were_fitted():
    model = KNeighborsClassifier(3).fit(IRIS.data, IRIS.target)
    shuffled = IRIS.frame[["target", *list(IRIS.data)[::-1]]]
    assert signature(SklearnHost(model, example=shuffled)).inputs.names == list(IRIS.data)
    assert (
        answers(SklearnHost(model, example=shuffled), IRIS.frame)["y_pred"].to_pylist()
        == model.predict(IRIS.data).tolist()
    )


def mixed(rows=80):
    """Columns of many types, some of them with gaps."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=rows),
            "count": rng.integers(0, 9, rows),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "kind": pd.Categorical(rng.choice(["u", "v"], rows)),
            "old": pd.Series(rng.choice(["x", "y"], rows), dtype=object),
        }
    )
    frame.loc[::9, "size"] = np.nan
    frame.loc[::7, "colour"] = None
    return frame, np.where(frame["count"] > 4, "many", "few")


def tabular():
    frame, target = mixed()
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = make_column_transformer(
        (numbers, ["size"]), ("passthrough", ["count"]), (words, ["colour", "kind"]),
        (OneHotEncoder(handle_unknown="ignore"), ["old"]),
    )  # fmt: skip
    return make_pipeline(columns, LogisticRegression()).fit(frame, target), frame


def test_gaps_and_unseen_categories_are_answered_as_the_estimator_answers_them():
    model, frame = tabular()
    odd = frame.head(20).copy()
    odd["colour"] = "violet"
    odd.loc[:5, "old"] = None
    odd.loc[3:9, "size"] = np.nan
    odd.loc[::2, "colour"] = None
    table = answers(SklearnHost(model, example=frame, method=("predict", "predict_proba")), odd)
    assert table["y_pred"].to_pylist() == model.predict(odd).tolist()
    np.testing.assert_allclose(matrix(table["y_proba"]), model.predict_proba(odd), rtol=1e-12)


def test_a_column_may_miss_values_if_the_estimator_can_do_without():
    model, frame = tabular()
    fields = signature(SklearnHost(model, example=frame)).inputs
    assert {field.name: (str(field.type), field.nullable) for field in fields} == {
        "size": ("double", True),
        "count": ("int64", False),
        "colour": ("string", True),
        "kind": ("string", True),
        "old": ("string", True),
    }


def test_a_record_without_a_value_that_is_needed_is_rejected_and_the_others_are_answered():
    model, frame = tabular()
    rows = frame.head(4).replace({np.nan: None}).to_dict("records")
    rows[2]["count"] = None
    host = SklearnHost(model, example=frame)
    pipeline = InferencePipeline(MemorySource([]), host, MemoryDestination())
    with pytest.raises(RecordErrors) as caught:
        pipeline.infer(rows)
    assert (caught.value.rows, caught.value.kinds) == ([2], ["missing_value"])
    table = pipeline.infer(rows, on_reject="null")
    wanted = model.predict(frame.head(4)).tolist()
    assert table["y_pred"].to_pylist() == [*wanted[:2], None, wanted[3]]


def test_infinity_is_refused_before_an_estimator_that_refuses_it():
    model = LogisticRegression().fit(IRIS.data.iloc[:, :2], IRIS.target)
    records = IRIS.data.iloc[:3, :2].copy()
    records.iloc[1, 0] = np.inf
    with pytest.raises(RecordErrors) as caught:
        answers(SklearnHost(model, example=IRIS.data), records)
    assert (caught.value.rows, caught.value.kinds) == ([1], ["not_finite"])


def test_a_tensor_may_have_gaps_if_the_estimator_can_do_without():
    whole = scaled(LogisticRegression()).fit(IRIS.data.to_numpy(), IRIS.target)
    gaps = HistGradientBoostingClassifier(max_iter=3).fit(IRIS.data.to_numpy(), IRIS.target)
    records = IRIS.data.to_numpy().copy()
    records[::3, 2] = np.nan
    with pytest.raises(RecordErrors) as caught:
        answers(SklearnHost(whole, example=IRIS.data.to_numpy()), records)
    assert caught.value.rows == list(range(0, 150, 3))
    table = answers(SklearnHost(gaps, example=IRIS.data.to_numpy()), records)
    assert table["y_pred"].to_pylist() == gaps.predict(records).tolist()


@pytest.mark.parametrize("missing", [None, np.nan])
@pytest.mark.parametrize("step", [OneHotEncoder(), None], ids=["encoded", "filled"])
@pytest.mark.parametrize("shown", [True, False], ids=["shown", "not shown"])
def test_a_missing_text_is_given_as_the_estimator_knows_it(missing, step, shown):
    frame = pd.DataFrame({"word": pd.Series(["a", "b", "a", missing] * 3, dtype=object)})
    filled = SimpleImputer(missing_values=missing, strategy="constant", fill_value="none")
    model = make_pipeline(step or make_pipeline(filled, OneHotEncoder()), KNeighborsClassifier(1))
    model.fit(frame, [1, 2, 1, 3] * 3)
    rows = [{"word": "b"}, {"word": None}]
    example = frame if shown else frame.dropna()
    assert answers(SklearnHost(model, example=example), rows)["y_pred"].to_pylist() == [2, 3]


TEXTS = ["a good film", "a bad film", "good good", "simply bad"] * 3
MOOD = ["up", "down"] * 6


@pytest.mark.parametrize(
    "example",
    [TEXTS, TEXTS[:1], np.array(TEXTS), np.array(TEXTS, object), pd.Series(TEXTS), pl.Series(TEXTS)],
    ids=["list", "one", "numpy", "objects", "pandas", "polars"],
)
def test_texts_are_one_field(example):
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, MOOD)
    host = SklearnHost(model, example=example)
    assert signature(host).inputs == pa.schema([pa.field("x", pa.string(), nullable=False)])
    assert answers(host, TEXTS)["y_pred"].to_pylist() == model.predict(TEXTS).tolist()


def test_a_column_of_texts_keeps_its_name():
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, MOOD)
    table = pa.table({"review": TEXTS})
    host = SklearnHost(model, example=table)
    assert signature(host).inputs.names == ["review"]
    assert answers(host, table)["y_pred"].to_pylist() == model.predict(TEXTS).tolist()


def wants(frame, *, dtypes):
    """Refuses a frame that is not what the estimator was fitted on."""
    if frame.dtypes.astype(str).to_dict() != dtypes:
        raise TypeError(frame.dtypes)
    return frame[["float"]]


def test_a_frame_is_rebuilt_with_the_types_that_it_had():
    frame = pd.DataFrame(
        {
            "float": [0.5, 1.5, 2.5],
            "float32": np.array([0.5, 1.5, 2.5], np.float32),
            "int32": np.array([1, 2, 3], np.int32),
            "nullable": pd.array([2**60 + 1, None, 3], "Int64"),
            "bool": [True, False, True],
            "boolean": pd.array([True, None, False], "boolean"),
            "day": pd.to_datetime(["2024-01-01", "2024-01-02", None]),
            "moment": pd.to_datetime(["2024-01-01", "2024-01-02", None]).tz_localize("UTC"),
            "category": pd.Categorical(["a", None, "b"]),
            "str": pd.Series(["a", None, "b"], dtype="str"),
            "object": pd.Series(["a", None, "b"], dtype=object),
            "arrow": pd.Series([1, None, 2], dtype="int64[pyarrow]"),
        }
    )
    step = FunctionTransformer(wants, kw_args={"dtypes": frame.dtypes.astype(str).to_dict()})
    model = make_pipeline(step, LinearRegression()).fit(frame, [1.0, 2.0, 3.0])
    table = answers(SklearnHost(model, example=frame), frame)
    np.testing.assert_allclose(table["y_pred"], model.predict(frame))
    with SklearnHost(model, example=frame).open() as opened:
        again = opened.scores(pa.RecordBatch.from_pandas(frame, preserve_index=False))
    assert again["nullable"].tolist()[0] == 2**60 + 1


POLARS = """
import sys

class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(name)

BLOCKED = {"pandas"}
sys.meta_path.insert(0, NoPandas())

import polars as pl
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from mlinfer import ConfigError
from mlinfer.hosts import SklearnHost

frame = pl.DataFrame({"size": [1.0, None, 3.0, 4.0], "colour": ["red", "blue", None, "red"]})
columns = make_column_transformer((SimpleImputer(), ["size"]), (OneHotEncoder(handle_unknown="ignore"), ["colour"]))
model = make_pipeline(columns, KNeighborsClassifier(1)).fit(frame, [1, 2, 3, 4])
for example in (frame, frame.to_arrow()):
    with SklearnHost(model, example=example).open() as opened:
        assert all(field.nullable for field in opened.signature.inputs)
        batch = frame.to_arrow().cast(opened.signature.inputs).to_batches()[0]
        assert opened.infer(batch)["y_pred"].to_pylist() == model.predict(frame).tolist() == [1, 2, 3, 4]
assert "pandas" not in sys.modules

BLOCKED.add("polars")
del sys.modules["polars"]
try:
    SklearnHost(model, example=frame.to_arrow()).open().__enter__()
except ConfigError as error:
    print(error)
"""


def test_polars_alone_will_do_and_without_any_frames_the_way_to_get_them_is_told():
    done = subprocess.run([sys.executable, "-c", POLARS], capture_output=True, text=True, check=False)
    assert "pip install 'mlinfer[pandas]'" in done.stdout, done.stderr


# --- without an example ------------------------------------------------------------------------------------------------


def test_numbers_need_no_example():
    named = scaled(LogisticRegression()).fit(IRIS.data, IRIS.target)
    assert signature(SklearnHost(named)).inputs.equals(
        signature(SklearnHost(named, example=IRIS.data)).inputs
    )
    plain = scaled(LogisticRegression()).fit(IRIS.data.to_numpy(), IRIS.target)
    assert signature(SklearnHost(plain)).inputs.field("x").type.list_size == 4


def test_text_needs_an_example():
    model, _ = tabular()
    words = OneHotEncoder(handle_unknown="ignore").fit([["a", 1], ["b", 2]])
    for host in (SklearnHost(model), SklearnHost(words, method="transform")):
        with pytest.raises(ConfigError, match=r"takes text as well as numbers.*give example="):
            signature(host)


def test_an_estimator_that_does_not_say_what_it_takes_needs_an_example():
    with pytest.raises(ConfigError, match="give example="):
        signature(SklearnHost(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, MOOD)))


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "predict_nothing"}, "wanted one or several of predict, "),
        ({"method": ("predict", "predict")}, "wanted one or several"),
        ({"method": "predict_proba"}, "wanted the method 'predict_proba'"),
        ({"example": TEXTS}, "wanted an estimator that answers its example"),
        ({"example": IRIS.data.to_numpy()[:, :2]}, "wanted an estimator that answers its example"),
        ({"example": IRIS.data.head(0)}, "at least one record"),
        ({"example": object()}, "wanted records"),
        ({"sha256": "0" * 64}, "are for files"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_opened(options, message):
    model = LinearSVC().fit(IRIS.data, IRIS.target)
    with pytest.raises(ConfigError, match=message):
        signature(SklearnHost(model, **options))


def test_an_unfitted_estimator_is_refused():
    with pytest.raises(ConfigError, match="NotFittedError"):
        signature(SklearnHost(KNeighborsClassifier(), example=IRIS.data))


def test_a_column_without_any_value_is_refused():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [None, None]})
    with pytest.raises(ConfigError, match="column 'b'"):
        signature(SklearnHost(FunctionTransformer().fit(frame), example=frame, method="transform"))


# --- a good guest ------------------------------------------------------------------------------------------------------


def test_the_estimator_in_hand_is_left_as_it_is():
    model = scaled(RandomForestClassifier(3, random_state=0)).fit(IRIS.data, IRIS.target)
    before = pickle.dumps(model)
    assert answers(SklearnHost(model, example=IRIS.data), IRIS.data).num_rows == 150
    assert pickle.dumps(model) == before
    assert model[0].feature_names_in_.tolist() == list(IRIS.data)


def test_an_estimator_that_works_in_place_does_not_change_the_records():
    model = make_pipeline(StandardScaler(copy=False), LogisticRegression())
    model.fit(IRIS.data.to_numpy().copy(), IRIS.target)
    records = IRIS.data.to_numpy().copy()
    wanted = model.predict(records.copy()).tolist()
    assert answers(SklearnHost(model, example=records), records)["y_pred"].to_pylist() == wanted
    np.testing.assert_array_equal(records, IRIS.data.to_numpy())


def test_many_threads_may_ask_one_model():
    model = scaled(LogisticRegression()).fit(IRIS.data, IRIS.target)
    batch = pa.RecordBatch.from_pandas(IRIS.data, preserve_index=False)
    with SklearnHost(model, example=IRIS.data).open() as opened, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: opened.infer(batch.slice(n, 50))["y_pred"].to_pylist(), range(100)))
    wanted = model.predict(IRIS.data).tolist()
    assert found == [wanted[n : n + 50] for n in range(100)]


GAPPED = IRIS.data.where(np.arange(600).reshape(150, 4) % 7 != 0)
BOOSTED = HistGradientBoostingClassifier(max_iter=3).fit(GAPPED, IRIS.target)


@functools.cache
def boosted():
    with SklearnHost(BOOSTED, example=GAPPED, method="predict_proba").open() as opened:
        return opened


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 149), max_size=6))
def test_answers_do_not_depend_on_how_records_are_cut_into_batches(cuts):
    batch = pa.RecordBatch.from_pandas(GAPPED, preserve_index=False)
    edges = [0, *sorted(set(cuts)), 150]
    pieces = [boosted().infer(batch.slice(a, b - a)) for a, b in pairwise(edges)]
    found = np.concatenate([matrix(piece["y_proba"]) for piece in pieces])
    np.testing.assert_array_equal(found, BOOSTED.predict_proba(GAPPED))


def test_a_host_is_a_recipe():
    model = KNeighborsClassifier(3).fit(IRIS.data, IRIS.target)
    host = SklearnHost(model, example=IRIS.data, method="predict_proba")
    assert host == SklearnHost(model, example=IRIS.data, method="predict_proba")
    assert host != SklearnHost(model, example=IRIS.data)
    assert hash(host) == hash(SklearnHost(model, method="predict_proba"))
    assert repr(host) == "SklearnHost(KNeighborsClassifier, method='predict_proba')"
    assert host.shared
    twin = pickle.loads(pickle.dumps(host))
    assert signature(twin) == signature(host)


def test_another_fit_is_another_version():
    one, same, other = (KNeighborsClassifier(3).fit(IRIS.data, IRIS.target + n) for n in (0, 0, 1))
    versions = [signature(SklearnHost(model, example=IRIS.data)).version for model in (one, same, other)]
    assert versions[0] == versions[1] != versions[2]
    assert len(versions[0]) == 12


def test_being_asked_is_not_being_changed():
    model = KNeighborsClassifier(3).fit(IRIS.data, IRIS.target)
    before = signature(SklearnHost(model, example=IRIS.data)).digest
    model.predict(IRIS.data)
    assert signature(SklearnHost(model, example=IRIS.data)).digest == before


DIGEST = """
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from mlinfer.hosts import SklearnHost
X, y = load_iris(return_X_y=True)
texts = ["a good film", "a bad film"]
words = make_pipeline(TfidfVectorizer(vocabulary={"good", "bad", "film"}), LogisticRegression()).fit(texts, [0, 1])
for host in (SklearnHost(GradientBoostingClassifier(n_estimators=2, random_state=0).fit(X, y)), SklearnHost(words, texts)):
    with host.open() as model:
        print(model.signature.fingerprint())
"""


def test_the_same_fit_has_the_same_digest_in_every_process(capsys):
    exec(DIGEST, {})
    here = capsys.readouterr().out
    there = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env={"PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert here == there
    assert len(set(here.split())) == 2


def test_heavy_libraries_are_left_alone_until_a_model_is_opened():
    code = "import sys, mlinfer.hosts; print(*{'sklearn', 'pandas', 'polars', 'skops', 'joblib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == ""
