"""Whatever a pipeline does to its columns, its package saves, and answers the same compiled or not."""

import sys
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, VarianceThreshold, chi2, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import mlinfer
from mlinfer import ConfigError, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost, manifest
from mlinfer.hosts._forms import _form, _proof
from mlinfer.hosts._forms._linear import Linear
from mlinfer.lifecycle import ByKey
from mlinfer.lifecycle._splits import divided
from mlinfer.sources import MemorySource

NUMBERS = count()


@pytest.fixture(autouse=True, scope="module")
def in_numpy():
    """Without mlinfer-fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlinfer_fast", None)
        yield


def methods_of(model):
    return [name for name in ("predict", "predict_proba", "decision_function") if hasattr(model, name)]


def asked(path, records, methods, how):
    host = SklearnHost(path, method=methods, compile=how)
    with InferencePipeline(MemorySource([]), host, MemoryDestination()) as pipeline:
        return pipeline.infer(records, on_reject="null").to_pydict()


def check(model, example, records, folder, *, compiled=None):
    """Saved, and asked both ways; `compiled`: whether there must be a form."""
    path = mlinfer.save(model, folder / f"m{next(NUMBERS)}.mlinfer", example=example)
    methods = methods_of(model)
    with SklearnHost(path, method=methods).open() as opened:
        (line,) = opened.explain()
    if compiled is not None:
        assert ("proven" in line) == compiled, line
    one, two = (asked(path, records, methods, how) for how in ("auto", "never"))
    good = [status == "ok" for status in two["status"]]
    assert [status == "ok" for status in one["status"]] == good
    for name, expected in two.items():
        if name.startswith("status"):
            continue
        found, wanted = (
            np.array([v for v, ok in zip(values, good, strict=True) if ok])
            for values in (one[name], expected)
        )
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(
                found, wanted, rtol=0, atol=1e-12 * max(1, np.abs(wanted).max(initial=0))
            )
        else:
            np.testing.assert_array_equal(found, wanted)
    return line


def frame(rows=6000, seed=3):
    """Shops, months and numbers; what is told of them depends on the month in one corner alone."""
    dice = np.random.default_rng(seed)
    found = pd.DataFrame({
        "shop": dice.choice([f"s{n}" for n in range(12)], rows),
        "month": dice.integers(1, 13, rows),
        "a": dice.normal(size=rows).round(3),
        "b": dice.integers(0, 100, rows).astype(float),
    })  # fmt: skip
    corner = (found["shop"] == "s7") & (found["a"].abs() < 0.3)
    return found, ((found["a"] > 0) ^ (corner & (found["month"] > 6))).astype(int)


def one_hot(**options):
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False, **options)


TREE = DecisionTreeClassifier(max_depth=7, min_samples_leaf=5, random_state=0)


def test_a_column_that_is_a_category_and_a_number_is_both(tmp_path):
    records, outcome = frame()
    model = make_pipeline(
        make_column_transformer((one_hot(), ["shop", "month"]), ("passthrough", ["a", "b", "month"])), TREE
    ).fit(records, outcome)
    check(model, records, records, tmp_path, compiled=True)


@pytest.mark.parametrize("last", [LogisticRegression(), TREE])
def test_several_columns_that_refuse_unknown_categories_run_compiled_and_refuse_the_same(tmp_path, last):
    shops = pd.DataFrame({
        "shop": list("abcd") * 30, "town": ["x", "y"] * 60, "size": [1, 2, 3] * 40, "price": np.arange(120.0),
    })  # fmt: skip
    kinds = make_column_transformer(
        (OneHotEncoder(), ["shop", "town"]), (OrdinalEncoder(), ["size"]), remainder="passthrough"
    )
    model = make_pipeline(kinds, last).fit(shops, [0, 1, 1] * 40)
    odd = shops.head(6).assign(
        shop=["a", "?", "b", "c", "?", "d"], town=["x", "y", "?", "x", "?", "y"], size=[1, 2, 3, 9, 1, 2]
    )
    check(model, shops, odd, tmp_path, compiled=True)
    [path] = tmp_path.iterdir()
    found = asked(path, odd, ["predict"], "auto")["status"]
    assert found == ["ok", *["unknown_category"] * 4, "ok"]


@pytest.mark.parametrize("last", [LogisticRegression(), TREE])
def test_a_column_of_texts_that_nothing_uses_is_left_alone(tmp_path, last):
    records, outcome = frame()
    model = make_pipeline(make_column_transformer((StandardScaler(), ["a"])), last).fit(records, outcome)
    check(model, records, records, tmp_path, compiled=True)


@pytest.mark.parametrize("last", [LogisticRegression(), TREE])
def test_what_stands_in_for_a_missing_number_beside_texts_still_does(tmp_path, last):
    records, _ = frame()
    dice = np.random.default_rng(0)
    corner = (records["shop"] == "s7") & (records["a"].abs() < 0.3)
    outcome = ((records["a"] > 0) ^ (corner & (records["b"] > 50))).astype(int)
    records.loc[dice.random(len(records)) < 0.3, "b"] = np.nan
    records.loc[dice.random(len(records)) < 0.05, "shop"] = np.nan  # which pandas 3 would make of None
    chosen = records[["shop", "a", "b"]]
    model = make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        make_column_transformer((one_hot(), [0]), ("passthrough", [1, 2])),
        last,
    ).fit(chosen, outcome)
    check(model, chosen, chosen, tmp_path, compiled=True)


# --- None and NaN are two categories -----------------------------------------------------------------------------------


def with_nones(late):
    """Cities of which some are None, which tells the outcome; `late`: none of these among the first records."""
    dice = np.random.default_rng(5)
    cities = dice.choice(["Rome", "Oslo"], 600).tolist()
    cities[::9] = [None] * len(cities[::9])
    found = pd.DataFrame({"a": dice.normal(size=600), "city": pd.Series(cities, dtype=object)})
    if late:
        found = found.iloc[np.argsort(found["city"].isna().to_numpy(), kind="stable")]
    outcome = np.where(found["city"].isna(), 1, (found["a"] > 0).astype(int))
    return found, outcome


def fitted_on_nones(found, outcome):
    return make_pipeline(
        make_column_transformer((one_hot(), ["city"]), remainder="passthrough"), LogisticRegression()
    ).fit(found, outcome)


@pytest.mark.parametrize("late", [False, True])
def test_a_missing_text_is_none_where_it_was_none_in_training(tmp_path, late):
    found, outcome = with_nones(late)
    model = fitted_on_nones(found, outcome)
    assert model[0].named_transformers_["onehotencoder"].categories_[0][-1] is None
    check(model, found, found, tmp_path, compiled=True)
    path = mlinfer.save(model, tmp_path / "once.mlinfer", example=found)  # asked for labels alone
    given = asked(path, found, ["predict_proba"], "never")["y_proba"]
    np.testing.assert_allclose(np.array(given), model.predict_proba(found), atol=1e-12)


def test_a_column_that_shows_no_gap_takes_none_where_none_and_nan_are_answered_differently(tmp_path):
    found, outcome = with_nones(late=False)
    model = fitted_on_nones(found, outcome)
    path = mlinfer.save(model, tmp_path / "m.mlinfer", example=found[found["city"].notna()])
    with SklearnHost(path).open() as opened:
        assert not opened.signature.inputs.field("city").nullable


def test_an_example_that_cannot_say_what_is_missing_is_refused_where_it_matters(tmp_path):
    found, outcome = with_nones(late=False)
    model = fitted_on_nones(found, outcome)
    with pytest.raises(ConfigError, match="None or NaN"):
        mlinfer.save(model, tmp_path / "m.mlinfer", example=pa.Table.from_pandas(found, preserve_index=False))


# --- what has no form, or an unusual one, is saved all the same -----------------------------------------------------------

TEXTS = ["good film bad plot", "bad film", "good good good", "the plot", "awful bad"] * 20
MOOD = [1, 0, 1, 0, 0] * 20


def test_an_estimator_that_cannot_be_compiled_is_saved_as_it_is(tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr("mlinfer.hosts._compiling.compiled", broken)
    records, outcome = frame(200)
    model = LogisticRegression().fit(records[["a", "b"]], outcome)
    line = check(model, records[["a", "b"]], records[["a", "b"]], tmp_path, compiled=False)
    assert "could not be compiled (ZeroDivisionError: nobody thought of this)" in line


def test_ordinal_codes_may_be_nan(tmp_path):
    records, outcome = frame(600)
    records.loc[::7, "shop"] = np.nan  # which pandas 3 would make of None
    last = HistGradientBoostingClassifier(max_iter=5, random_state=0)
    for encoder in (
        OrdinalEncoder(),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
    ):
        model = make_pipeline(make_column_transformer((encoder, ["shop"]), remainder="passthrough"), last)
        check(model.fit(records, outcome), records, records, tmp_path, compiled=True)


def test_histograms_that_split_by_category_are_left_to_scikit_learn(tmp_path):
    """Asked one step of a float beside each threshold, and for categories that nobody has seen."""
    records, outcome = frame(2000)
    numbers = records[["a", "b", "month"]].to_numpy(float)
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features=[2], random_state=0)
    nodes = np.concatenate([tree.nodes for (tree,) in model.fit(numbers, outcome)._predictors])
    assert nodes["is_categorical"].any()
    cuts = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)]
    steps = [cuts["num_threshold"], *(np.nextafter(cuts["num_threshold"], far) for far in (-np.inf, np.inf))]
    asked = numbers[: 3 * len(cuts)].copy()
    asked[np.arange(len(asked)), np.tile(cuts["feature_idx"], 3)] = np.concatenate(steps)
    asked[::5, 2] = 200
    line = check(model, numbers, asked, tmp_path, compiled=False)
    assert "with categorical columns has no compiled form" in line
    path = mlinfer.save(model, tmp_path / "again.mlinfer", example=numbers)
    with SklearnHost(path, method="predict_proba").open() as opened:
        found = opened.infer(
            pa.record_batch(
                [pa.FixedSizeListArray.from_arrays(pa.array(asked.ravel()), 3)],
                schema=opened.signature.inputs,
            )
        )
    np.testing.assert_array_equal(np.array(found.column(0).to_pylist()), model.predict_proba(asked))


@pytest.mark.parametrize("words", [TfidfVectorizer(), CountVectorizer(ngram_range=(1, 2))])
def test_words_may_be_chosen(tmp_path, words):
    model = make_pipeline(words, SelectKBest(chi2, k=3), LogisticRegression()).fit(TEXTS, MOOD)
    check(
        model,
        TEXTS,
        [{"text": text} for text in [*TEXTS[:5], "", "good unseen BAD bad"]],
        tmp_path,
        compiled=True,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_words_that_are_counted_in_few_digits_are_left_to_scikit_learn(tmp_path, dtype):
    model = make_pipeline(CountVectorizer(dtype=dtype), LogisticRegression()).fit(TEXTS, MOOD)
    texts = ["good " * 300, "bad " * 257, "good bad"]
    check(model, TEXTS, [{"text": text} for text in texts], tmp_path, compiled=False)


def test_weights_may_be_kept_sparse(tmp_path):
    records, outcome = frame(600)
    numbers = records[["a", "b", "month"]].to_numpy(float)
    model = LogisticRegression(max_iter=500).fit(numbers, outcome).sparsify()
    check(model, numbers, numbers, tmp_path, compiled=True)


def test_categories_that_a_field_cannot_hold_and_times_that_nothing_uses_are_no_obstacle(tmp_path):
    records, outcome = frame(600)
    chosen = records[["a", "month"]]
    small = chosen.astype({"month": "int8"})
    encoder = one_hot(categories=[[*range(1, 13), 300]])
    model = make_pipeline(
        make_column_transformer((encoder, ["month"]), remainder="passthrough"), LogisticRegression()
    )
    check(model.fit(chosen, outcome), small, small, tmp_path)
    timed = records[["a", "shop"]].assign(when=pd.date_range("2020", periods=600, freq="h"))
    for last in (LogisticRegression(), TREE):
        model = make_pipeline(make_column_transformer((one_hot(), ["shop"]), ("passthrough", ["a"])), last)
        check(model.fit(timed, outcome), timed, timed, tmp_path, compiled=True)


# --- digits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [LogisticRegression(), Ridge()])
@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler()])
@pytest.mark.parametrize("known", [True, False])
def test_large_numbers_that_lie_close_together_keep_their_digits(tmp_path, scaler, last, known):
    dice = np.random.default_rng(0)
    seconds = 1.7e9 + dice.normal(size=(400, 2)) * [1, 2]
    model = make_pipeline(scaler, last).fit(seconds, (seconds[:, 0] > 1.7e9).astype(int))
    check(model, seconds if known else None, seconds, tmp_path)


def test_times_behind_a_standard_scaler_run_compiled(tmp_path):
    dice = np.random.default_rng(0)
    seconds = 1.7e9 + dice.normal(size=(400, 2)) * [1, 2]
    seconds[::9, 1] = np.nan
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    model.fit(seconds, (seconds[:, 0] > 1.7e9).astype(int))
    check(model, seconds, seconds, tmp_path, compiled=True)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 999])
@pytest.mark.parametrize("block", [16 * 8 * 3, 8], ids=["16 records", "less than a record"])
def test_a_product_is_computed_block_by_block(tmp_path, monkeypatch, rows, block):
    records, _ = frame(1000)
    records["c"] = records["a"] + 1.0
    inputs = records[["a", "b", "c"]]
    batch = pa.RecordBatch.from_pandas(inputs[:rows], preserve_index=False)
    several = LogisticRegression().fit(inputs, records["month"] % 3)
    one = LinearRegression().fit(inputs, records["month"])
    monkeypatch.setattr(_form, "BLOCK_BYTES", block)
    for model, ask in ((several, "predict_proba"), (one, "predict")):
        path = mlinfer.save(model, tmp_path / f"{ask}.mlinfer", example=inputs)
        with SklearnHost(path, method=ask).open() as opened:
            assert "proven" in opened.explain()[0]
            (answers,) = opened.infer(batch).columns
        expected = getattr(model, ask)(inputs[:rows])
        np.testing.assert_allclose(np.array(answers.to_pylist()), expected, rtol=1e-12, atol=1e-12)


# --- what a form is proven on -------------------------------------------------------------------------------------------


def wrong_at(monkeypatch, value):
    """Forms that answer records with this number in their first column with something else."""
    right = Linear.scores
    monkeypatch.setattr(
        Linear, "scores", lambda self, table: right(self, table) + 100.0 * (table.numbers[:, 0] == value)
    )


def test_a_form_is_proven_on_the_whole_example(tmp_path, monkeypatch):
    records, outcome = frame(4000)
    records.loc[3999, "a"] = 77.5
    model = LogisticRegression().fit(records[["a", "b"]], outcome)
    wrong_at(monkeypatch, 77.5)
    check(model, records[["a", "b"]], records[["a", "b"]][:100], tmp_path, compiled=False)
    check(model, records[["a", "b"]][:3000], records[["a", "b"]][:100], tmp_path, compiled=True)


def test_a_trained_form_is_proven_on_the_unseen_records(tmp_path, monkeypatch):
    records, outcome = frame(6000)
    data = records.assign(outcome=outcome, key=range(6000))
    unseen = np.flatnonzero(divided(pa.table({"key": data["key"]}), ByKey("key")) == 2)
    data.loc[unseen[-1], "a"] = 77.5
    wrong_at(monkeypatch, 77.5)
    found = mlinfer.train(
        data,
        LogisticRegression(),
        target="outcome",
        split=ByKey("key"),
        features=["a", "b"],
        to=tmp_path / "t.mlinfer",
    )
    assert "(unseen)" in manifest(found.path)["compiled"]["why"]


def test_records_that_a_model_does_not_take_prove_nothing(tmp_path):
    records, outcome = frame(600)
    chosen = records[["a", "b"]].copy()
    model = LogisticRegression().fit(chosen, outcome)
    chosen.loc[500, "a"] = np.inf
    check(model, chosen, chosen[:100], tmp_path, compiled=True)


# --- any pipeline -------------------------------------------------------------------------------------------------------


def everything(rows, seed):
    """Columns of every kind, with gaps, and with categories that only some seeds know."""
    dice = np.random.default_rng(seed)
    found = pd.DataFrame({
        "a": dice.normal(size=rows), "b": dice.normal(size=rows) * 100 + 5, "k": dice.integers(0, 6, rows),
        "flag": dice.random(rows) > 0.5, "shop": dice.choice(["x", "y", "z"], rows), "kind": dice.choice(["m", "f"], rows),
    })  # fmt: skip
    found.loc[dice.random(rows) < 0.1, "b"] = np.nan
    found.loc[dice.random(rows) < 0.1, "shop"] = None
    if seed:
        found.loc[dice.random(rows) < 0.05, "shop"] = "new"
        found.loc[dice.random(rows) < 0.05, "k"] = 99
        found.loc[dice.random(rows) < 0.05, "b"] = 1e5
    return found


KNOWN, ASKED = everything(400, 0), everything(1500, 1)
OUTCOME = ((KNOWN["a"] + KNOWN["k"] / 3 + (KNOWN["shop"] == "x")) > 1.2).astype(int)
ENCODERS = [
    one_hot(),
    one_hot(drop="first"),
    OneHotEncoder(sparse_output=False),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
    OrdinalEncoder(),
    make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot()),
    make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OrdinalEncoder()),
]
REFUSING = [ENCODERS[2], ENCODERS[5], ENCODERS[7]]
PREPARED = [
    "passthrough",
    StandardScaler(),
    SimpleImputer(),
    SimpleImputer(add_indicator=True),
    make_pipeline(SimpleImputer(strategy="median"), RobustScaler()),
    make_pipeline(MinMaxScaler(clip=True), SimpleImputer()),
]
SELECTORS = ["passthrough", SelectKBest(f_classif, k=2), VarianceThreshold()]
LAST = [
    LogisticRegression(),
    Ridge(),
    TREE,
    RandomForestClassifier(3, random_state=0, max_depth=6),
    HistGradientBoostingClassifier(max_iter=3, random_state=0),
    GradientBoostingClassifier(n_estimators=3, random_state=0),
    ExtraTreesClassifier(3, random_state=0, max_depth=6),
]


@pytest.mark.filterwarnings("ignore")  # of unknown categories
@settings(max_examples=16, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    encoder=st.sampled_from(ENCODERS),
    prepared=st.sampled_from(PREPARED),
    last=st.sampled_from(LAST),
    selector=st.sampled_from(SELECTORS),
    rest=st.sampled_from(["drop", "drop", "passthrough", StandardScaler()]),
    looked_up=st.lists(st.sampled_from(["shop", "kind", "k", "flag"]), min_size=1, max_size=3, unique=True),
    numbers=st.lists(st.sampled_from(["a", "b", "k", "flag"]), min_size=1, max_size=3, unique=True),
    more=st.lists(st.sampled_from(list(KNOWN)), max_size=3, unique=True),
)
def test_any_pipeline_is_saved_and_answers_the_same_compiled_or_not(  # noqa: PLR0917 - one for each thing that varies
    encoder, prepared, last, selector, rest, looked_up, numbers, more
):
    columns = list(dict.fromkeys([*looked_up, *numbers, *more]))
    first = make_column_transformer((encoder, looked_up), (prepared, numbers), remainder=rest)
    try:
        model = clone(make_pipeline(first, selector, last)).fit(KNOWN[columns], OUTCOME)
    except (ValueError, TypeError):
        return  # scikit-learn does not fit such a pipeline
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # one by one is how scikit-learn's refusals are found, which takes its time
        patch.setattr(_proof, "ALONE", 5)
        check(model, KNOWN[columns], ASKED[columns][: 20 if encoder in REFUSING else 150], Path(folder))
