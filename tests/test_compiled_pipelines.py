"""Whatever a pipeline does to its columns, its package saves, and answers the same compiled or not."""

import sys
from itertools import count

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

import mlinfer
from mlinfer import ConfigError, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost
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
    records.loc[dice.random(len(records)) < 0.05, "shop"] = None
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
