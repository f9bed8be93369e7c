"""A compiled form answers as scikit-learn does, without it; where it does not, it is not used, and that is said."""

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import mlinfer
from mlinfer import STAGES, ConfigError, InferencePipeline
from mlinfer._cli import main
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import Selected, SklearnHost, manifest
from mlinfer.hosts._package import sealed
from mlinfer.sources import MemorySource

RNG = np.random.default_rng(7)
ROWS = 600
X = RNG.standard_normal((ROWS, 5)) * [1, 10, 0.1, 3, 1] + [0, 50, 0, -2, 1]
GAPPY = np.where(RNG.random(X.shape) < 0.08, np.nan, X)
SCORE = X[:, 0] + X[:, 3] / 3 + RNG.standard_normal(ROWS) / 5
TWO, THREE = np.array(["no", "yes"])[(SCORE > 0).astype(int)], np.digitize(SCORE, [-1, 0])
POSITIVE = np.exp(SCORE / 3)
MIXED = pd.DataFrame(
    {
        "a": X[:, 0],
        "b": GAPPY[:, 1],
        "city": RNG.choice(["Rome", "Oslo", "Bonn"], ROWS),
        "n": RNG.integers(0, 5, ROWS),
    }
)
WORDS = np.array("good bad film plot the not a Ölçü naïve 42 x_1 über".split())
TEXTS = [" ".join(RNG.choice(WORDS, size)) for size in RNG.integers(0, 12, ROWS)]
MOOD = ["up" if text.count("good") > text.count("bad") else "down" for text in TEXTS]
NUMBERS = make_pipeline(SimpleImputer(), StandardScaler())


def mixed(encoder):
    return make_column_transformer((encoder, ["city"]), (NUMBERS, ["a", "b", "n"]))


ONE_HOT = OneHotEncoder(handle_unknown="ignore")
ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
small = {"random_state": 0, "max_depth": 4}
FOLDED, MASKS, WALKS = "folded into one product", "bit masks of its trees", "walks down its trees"
COUNTED = "words counted into one product"
BIGRAMS = TfidfVectorizer(ngram_range=(1, 2), stop_words=["the", "not"], sublinear_tf=True, norm="l1")
KINDS = {
    "logistic": (FOLDED, make_pipeline(StandardScaler(), LogisticRegression()), X, TWO),
    "logistic of three": (FOLDED, make_pipeline(SimpleImputer(), MinMaxScaler(), LogisticRegression()), GAPPY, THREE),
    "one against the rest": (FOLDED, make_pipeline(MaxAbsScaler(), SGDClassifier(loss="log_loss", random_state=0)), X, THREE),
    "support vectors": (FOLDED, make_pipeline(RobustScaler(), LinearSVC()), X, TWO),
    "ridge": (FOLDED, make_pipeline(StandardScaler(), SelectKBest(f_regression, k=3), Ridge()), X, SCORE),
    "two outputs": (FOLDED, Ridge(), X, np.stack([SCORE, POSITIVE], 1)),
    "log link": (FOLDED, make_pipeline(StandardScaler(), PoissonRegressor()), X, POSITIVE),
    "searched": (FOLDED, GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1, 9]}, cv=2), X, TWO),
    "one-hot": (FOLDED, make_pipeline(mixed(ONE_HOT), LogisticRegression()), MIXED, THREE),
    "one-hot, refusing": (FOLDED, make_pipeline(mixed(OneHotEncoder(drop="first")), LogisticRegression()), MIXED, TWO),
    "tree": (MASKS, DecisionTreeClassifier(**small), X, THREE),
    "regression tree": (MASKS, DecisionTreeRegressor(**small), GAPPY, SCORE),
    "forest": (MASKS, RandomForestClassifier(9, **small), GAPPY, THREE),
    "forest behind one-hot": (MASKS, make_pipeline(mixed(ONE_HOT), RandomForestRegressor(9, **small)), MIXED, SCORE),
    "boosting": (MASKS, GradientBoostingClassifier(n_estimators=9, random_state=0), X, TWO),
    "boosting of three": (MASKS, GradientBoostingClassifier(n_estimators=5, random_state=0), X, THREE),
    "exponential boosting": (MASKS, GradientBoostingClassifier(n_estimators=5, loss="exponential", random_state=0), X, TWO),
    "boosted regression": (MASKS, GradientBoostingRegressor(n_estimators=9, random_state=0), X, SCORE),
    "histograms": (MASKS, HistGradientBoostingClassifier(max_iter=9, random_state=0), GAPPY, TWO),
    "histograms of three": (MASKS, HistGradientBoostingClassifier(max_iter=5, random_state=0), GAPPY, THREE),
    "histograms, ordinal": (MASKS, make_pipeline(make_column_transformer((ORDINAL, ["city"]), remainder="passthrough"), HistGradientBoostingClassifier(max_iter=5, random_state=0)), MIXED, TWO),
    "histograms behind scaling": (MASKS, make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=9, max_leaf_nodes=60, min_samples_leaf=5, random_state=0)), GAPPY, SCORE),
    "words": (COUNTED, make_pipeline(TfidfVectorizer(), SGDClassifier(loss="log_loss", random_state=0)), TEXTS, MOOD),
    "words and pairs": (COUNTED, make_pipeline(BIGRAMS, LogisticRegression()), TEXTS, THREE),
    "words that are there": (COUNTED, make_pipeline(CountVectorizer(binary=True, lowercase=False), LinearSVC()), TEXTS, THREE),
    "words weighted apart": (COUNTED, make_pipeline(CountVectorizer(), TfidfTransformer(norm=None), Ridge()), TEXTS, SCORE),
    "extra trees": (MASKS, ExtraTreesClassifier(9, **small), GAPPY, THREE),
    "boosting behind one-hot": (MASKS, make_pipeline(mixed(ONE_HOT), GradientBoostingClassifier(n_estimators=5, random_state=0)), MIXED, TWO),
    "extra trees behind one-hot": (MASKS, make_pipeline(mixed(ONE_HOT), ExtraTreesRegressor(5, **small)), MIXED, SCORE),
    "large extra trees": (WALKS, ExtraTreesClassifier(5, random_state=0), GAPPY, TWO),
    "large forest": (WALKS, RandomForestClassifier(9, random_state=0), GAPPY, THREE),
    "large regression forest": (WALKS, ExtraTreesRegressor(5, random_state=0), X, SCORE),
    "large histograms": (WALKS, HistGradientBoostingClassifier(max_iter=4, max_leaf_nodes=99, min_samples_leaf=2, random_state=0), GAPPY, THREE),
}  # fmt: skip


@cache
def fitted(kind):
    _, model, records, target = KINDS[kind]
    return model.fit(records, target)


@pytest.fixture(autouse=True, scope="module")
def in_numpy():
    """What is tested here holds without mlinfer-fast; test_fast_trees.py is about the trees that it walks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlinfer_fast", None)
        yield


@pytest.fixture(scope="module")
def packages(tmp_path_factory, in_numpy):
    """Packages of every kind, each saved once."""
    folder, done = tmp_path_factory.mktemp("packages"), {}

    def package(kind):
        if kind not in done:
            path = folder / f"{kind.replace(' ', '-').replace(',', '')}.mlinfer"
            done[kind] = mlinfer.save(fitted(kind), path, example=KINDS[kind][2])
        return done[kind]

    return package


def methods_of(model):
    return [name for name in ("predict", "predict_proba", "decision_function") if hasattr(model, name)]


def as_arrays(table):
    return [np.array(column.to_pylist()) for column in table.columns]


def form(path, **options):
    with SklearnHost(path, **options).open() as model:
        (line,) = model.explain()
    return line


def check_same(model, records, table, methods, *, within=1e-12):
    """Labels are equal, numbers are as near as the manifest promises; asked of scikit-learn itself."""
    for found, method in zip(as_arrays(table), methods, strict=True):
        expected = getattr(model, method)(records)
        assert found.shape == expected.shape
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=0, atol=within * max(1, np.abs(expected).max()))
        else:
            np.testing.assert_array_equal(found, expected)


# --- every kind, through the whole pipeline ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_compiled_and_answers_as_scikit_learn(packages, kind):
    name, _, records, _ = KINDS[kind]
    model, path = fitted(kind), packages(kind)
    methods = methods_of(model)
    host, destination = SklearnHost(path, method=methods), MemoryDestination()
    assert name in form(path, method=methods)
    pipeline = InferencePipeline(MemorySource(records), host, destination, name="compiled")
    report = pipeline.run()
    assert (report.delivered, report.rejected) == (ROWS, 0)
    check_same(model, records, destination.table(), methods)
    one = records[3:4]
    check_same(model, one, pipeline.infer(one), methods)


@pytest.mark.parametrize("kind", ["logistic of three", "one-hot", "histograms", "large forest"])
def test_the_answers_have_the_same_fields_compiled_or_not(packages, kind):
    methods = methods_of(fitted(kind))
    for expand in (False, True):
        schemas = []
        for compile_ in ("auto", "never"):
            host = SklearnHost(packages(kind), method=methods, expand=expand, compile=compile_)
            with host.open() as model:
                schemas.append(model.signature)
        one, other = schemas
        assert one.outputs.equals(other.outputs, check_metadata=True)
        assert one == other


# --- the promise holds on records that the proof has not seen ----------------------------------------------------------


def thresholds(model, names):
    """(column, threshold) of every node of every tree, read from scikit-learn and led back through what scales numbers."""
    last = model[-1] if hasattr(model, "steps") else model
    if not any(hasattr(last, name) for name in ("_predictors", "tree_", "estimators_")):
        return []
    back = {place: (name, 0.0, 1.0) for place, name in enumerate(names)}
    for _, step in getattr(model, "steps", [])[:-1]:
        if isinstance(step, StandardScaler):
            back = {n: (name, step.mean_[n], step.scale_[n]) for n, (name, _, _) in back.items()}
        elif "onehotencoder" in step.named_transformers_:
            scaler, first = step.named_transformers_["pipeline"][-1], step.output_indices_["pipeline"].start
            back = {first + n: (name, scaler.mean_[n], scaler.scale_[n]) for n, name in enumerate("abn")}
        else:  # the rest passes through
            back = {
                step.output_indices_["remainder"].start + n: (name, 0.0, 1.0) for n, name in enumerate("abn")
            }
    if hasattr(last, "_predictors"):
        nodes = [one.nodes for stage in last._predictors for one in stage]
        cuts = [(n["feature_idx"], n["num_threshold"]) for tree in nodes for n in tree if not n["is_leaf"]]
    else:
        trees = [
            tree.tree_ for tree in np.ravel(getattr(last, "estimators_", [last])) if hasattr(tree, "tree_")
        ]
        cuts = [(f, t) for tree in trees for f, t in zip(tree.feature, tree.threshold, strict=True) if f >= 0]
    return [(back[f][0], t * back[f][2] + back[f][1]) for f, t in cuts if f in back and np.isfinite(t)]


def beside(at):
    """A number, one step of float64 and of float32 on either side of it."""
    narrow, far = np.float32(at), np.float32(np.inf)
    return [
        at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf),
        narrow, np.nextafter(narrow, far), np.nextafter(narrow, -far),
    ]  # fmt: skip


def hard_records(kind, inputs, rng):
    """At least 10,000: beside every threshold, far outside, with gaps where they are allowed, with what nobody has seen."""
    records = KINDS[kind][2]
    if records is TEXTS:
        strange = [*WORDS, "unseen", "ÖLÇÜ", "x", "\u0130stanbul", "good-bad", "e\u0301"]
        return [" ".join(rng.choice(strange, size)) for size in rng.integers(0, 15, 10_000)]
    frame = records if isinstance(records, pd.DataFrame) else pd.DataFrame(records)
    cuts = [(name, value) for name, at in thresholds(fitted(kind), frame.columns) for value in beside(at)]
    if "n" in frame:
        cuts = [(name, round(value) if name == "n" else value) for name, value in cuts]
    asked = frame.iloc[rng.integers(0, ROWS, max(10_000, len(cuts) + 3000))].reset_index(drop=True)
    where = dict.fromkeys(frame.columns, ())
    for name in frame.columns:
        rows = [row for row, (column, _) in enumerate(cuts) if column == name]
        asked.loc[rows, name] = [cuts[row][1] for row in rows]
        where[name] = np.setdiff1d(np.arange(len(cuts), len(asked)), rows)
        if asked[name].dtype.kind == "f":
            asked.loc[where[name], name] *= rng.uniform(-9, 9, len(where[name]))
    if "city" in frame and "refusing" not in kind:
        asked.loc[where["city"], "city"] = rng.choice(["Rome", "Oslo", "Paris", ""], len(where["city"]))
    if not isinstance(records, pd.DataFrame):
        asked, gaps = asked.to_numpy(copy=True), inputs.field(0).type.value_field.nullable
        asked[(rng.random(asked.shape) < 0.1) & gaps & (np.arange(len(asked)) >= len(cuts))[:, None]] = np.nan
        return asked
    for name in frame.columns[[inputs.field(name).nullable and name != "n" for name in frame.columns]]:
        asked.loc[where[name][rng.random(len(where[name])) < 0.1], name] = None if name == "city" else np.nan
    return asked


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_records_beside_every_threshold_and_far_away_are_answered_as_the_manifest_says(
    packages, kind
):
    model, path = fitted(kind), packages(kind)
    methods = methods_of(model)
    host = SklearnHost(path, method=methods)
    with host.open() as opened:
        assert KINDS[kind][0] in opened.explain()[0]
        asked = hard_records(kind, opened.signature.inputs, np.random.default_rng(1))
    assert len(asked) >= 10_000
    assert bool(thresholds(model, range(5))) == (KINDS[kind][0] in {MASKS, WALKS})
    with InferencePipeline(MemorySource(KINDS[kind][2]), host, MemoryDestination()) as pipeline:
        table = pipeline.infer(asked)
    within = manifest(path)["compiled"]["proof"]["within"]
    check_same(model, asked, table, methods, within=within)


def test_a_category_that_the_encoder_refuses_is_a_reject_and_the_others_are_answered(packages):
    asked = MIXED[:4].assign(city=["Rome", "Paris", "Oslo", "Paris"])
    with InferencePipeline(
        MemorySource(MIXED), SklearnHost(packages("one-hot, refusing")), MemoryDestination()
    ) as pipeline:
        table = pipeline.infer(asked, on_reject="null")
    assert table["status"].to_pylist() == ["ok", "unknown_category", "ok", "unknown_category"]
    assert "unknown_category" in STAGES["infer"].kinds
    assert table["y_pred"].to_pylist()[::2] == fitted("one-hot, refusing").predict(asked[::2]).tolist()
    assert "found 'Paris'" in table["status_detail"][1].as_py()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("words")])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(
        st.text(max_size=40) | st.lists(st.sampled_from(WORDS)).map(" ".join), min_size=1, max_size=5
    )
)
def test_any_text_is_answered_the_same_way(packages, kind, texts):
    model, methods = fitted(kind), methods_of(fitted(kind))
    with SklearnHost(packages(kind), method=methods).open() as compiled:
        answers = compiled.infer(pa.record_batch({compiled.signature.inputs.names[0]: texts}))
    check_same(model, texts, pa.table(answers), methods)


@pytest.mark.parametrize(
    ("vectorizer", "why"),
    [
        (TfidfVectorizer(analyzer="char"), "analyzer='char'"),
        (TfidfVectorizer(token_pattern=r"\S+"), r"token_pattern="),
        (TfidfVectorizer(strip_accents="unicode"), "strip_accents='unicode'"),
        (HashingVectorizer(), "HashingVectorizer has no compiled form"),
    ],
    ids=["letters", "own words", "accents", "hashed"],
)
def test_words_that_are_found_in_another_way_are_left_to_scikit_learn(tmp_path, vectorizer, why):
    model = make_pipeline(vectorizer, LogisticRegression()).fit(TEXTS, MOOD)
    assert why in form(mlinfer.save(model, tmp_path / "m.mlinfer", example=TEXTS))


@pytest.mark.parametrize("compile_", ["auto", "never"])
def test_a_number_too_large_for_a_tree_of_float32_is_a_reject(packages, compile_):
    asked = X[:3].copy()
    asked[1, 4] = 1e300
    host = SklearnHost(packages("boosting"), compile=compile_)
    with InferencePipeline(MemorySource(X), host, MemoryDestination()) as pipeline:
        table = pipeline.infer(asked, on_reject="null")
    assert [value is None for value in table["y_pred"].to_pylist()] == [False, True, False]


# --- what is not equal is not used, and that is said -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (KNeighborsClassifier(), "KNeighborsClassifier has no compiled form"),
        (
            make_pipeline(FunctionTransformer(np.abs), LogisticRegression()),
            "a FunctionTransformer has no compiled form",
        ),
        (make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression()), "fills them in late"),
        (
            make_pipeline(OneHotEncoder(max_categories=3, handle_unknown="ignore"), LogisticRegression()),
            "infrequent",
        ),
        (
            make_pipeline(
                ColumnTransformer([("x", StandardScaler(), [0, 1])], transformer_weights={"x": 2.0}),
                LogisticRegression(),
            ),
            "a ColumnTransformer with weights has no compiled form",
        ),
    ],
    ids=["neighbours", "function", "late filling", "infrequent", "weighted columns"],
)
def test_an_estimator_without_a_form_runs_in_scikit_learn_and_says_why(tmp_path, model, why):
    records = np.round(X)
    path = mlinfer.save(model.fit(records, TWO), tmp_path / "m.mlinfer", example=records)
    assert "scikit-learn" in form(path)
    assert why in form(path)
    assert why in json.loads((path / "manifest.json").read_text())["compiled"]["why"]


def test_a_model_that_computes_in_float32_is_left_to_scikit_learn(tmp_path):
    narrow = X.astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(narrow, TWO)
    path = mlinfer.save(model, tmp_path / "m.mlinfer", example=narrow, method="predict_proba")
    assert "are off by" in form(path)


@pytest.mark.parametrize("kind", ["logistic", "forest", "histograms", "large forest", "one-hot", "words"])
def test_a_form_that_is_wrong_in_one_number_is_not_used(monkeypatch, kind, tmp_path):
    from mlinfer.hosts import _compiling

    right = _compiling.compiled

    def slightly_wrong(estimator, inputs):
        made = right(estimator, inputs)
        arrays = made.core.arrays
        if "weights" in arrays:
            arrays["weights"] = arrays["weights"] * (1 + 1e-9)
        else:
            values = arrays["values" if "values" in arrays else "values_0"]
            values[len(values) // 2 :] += 1e-9
        return made

    monkeypatch.setattr(_compiling, "compiled", slightly_wrong)
    path = mlinfer.save(fitted(kind), tmp_path / "m.mlinfer", example=KINDS[kind][2])
    assert "scikit-learn: its answers" in form(path)
    assert "off by" in form(path)


def test_thresholds_that_were_rounded_are_found(monkeypatch, tmp_path):
    from mlinfer.hosts import _compiling

    right = _compiling.compiled

    def rounded(estimator, inputs):
        made = right(estimator, inputs)
        for name, values in made.core.arrays.items():
            if name.startswith("thresholds"):
                made.core.arrays[name] = values.astype(np.float32).astype(np.float64)
        return made

    monkeypatch.setattr(_compiling, "compiled", rounded)
    path = mlinfer.save(fitted("histograms"), tmp_path / "m.mlinfer", example=GAPPY)
    assert "scikit-learn: " in form(path)


def test_never_means_never(packages, tmp_path):
    assert form(packages("logistic"), compile="never") == "scikit-learn: compile='never'"
    path = mlinfer.save(fitted("logistic"), tmp_path / "m.mlinfer", example=X, compile="never")
    assert not (path / "compiled.arrays").exists()
    assert "scikit-learn" in form(path)
    with pytest.raises(ConfigError, match="compile: wanted 'auto' or 'never', found 'always'"):
        mlinfer.save(fitted("logistic"), tmp_path / "n.mlinfer", example=X, compile="always")


def test_a_method_that_the_form_lacks_is_asked_of_the_estimator(tmp_path):
    model = SGDClassifier(loss="modified_huber", random_state=0).fit(X, TWO)
    path = mlinfer.save(model, tmp_path / "m.mlinfer", example=X)
    assert "scikit-learn" in form(path)  # its probabilities are computed in a way of their own
    assert "off by" in form(path)


def test_the_manifest_holds_the_proof(packages):
    facts = json.loads((packages("histograms") / "manifest.json").read_text())["compiled"]
    assert MASKS in facts["form"]
    assert facts["methods"] == ["predict", "predict_proba", "decision_function"]
    assert facts["proof"]["records"] > 1000
    assert facts["proof"]["difference"] <= facts["proof"]["within"] == 1e-12
    assert facts["proof"]["ties"] == 0


# --- without scikit-learn, without code in files -----------------------------------------------------------------------

ALONE = """
import sys
found = []
sys.addaudithook(lambda event, given: found.append(given) if event == "pickle.find_class" else None)
from mlinfer import InferencePipeline
from mlinfer.sources import MemorySource
from mlinfer.hosts import SklearnHost
from mlinfer.destinations import MemoryDestination
records = [{"x": [0.5, 50.0, 0.1, -2.0, 1.0]}]
with InferencePipeline(MemorySource(records), SklearnHost(sys.argv[1]), MemoryDestination()) as pipeline:
    print(pipeline.infer(records)["y_pred"].to_pylist())
print(sorted({"sklearn", "scipy", "skops", "onnx", "joblib"} & set(sys.modules)), found)
"""


@pytest.mark.parametrize("kind", ["logistic", "histograms", "large forest"])
def test_a_package_is_opened_and_asked_without_scikit_learn_and_without_unpickling(packages, kind):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, packages(kind)], capture_output=True, text=True, check=True
    )
    answer, loaded = done.stdout.splitlines()
    assert answer == str(fitted(kind).predict([[0.5, 50.0, 0.1, -2.0, 1.0]]).tolist())
    assert loaded == "[] []"


EVERY = """
import sys, sklearn.ensemble, sklearn.linear_model, skops.io, pandas  # importing is not opening
from mlinfer.hosts import SklearnHost
found = []
sys.addaudithook(lambda event, given: found.append(given) if event == "pickle.find_class" else None)
for path in sys.argv[1:]:
    for how in ("auto", "never"):
        with SklearnHost(path, compile=how).open() as model:
            model.infer(model.example())
print(len(sys.argv) - 1, found)
import pickle; pickle.loads(pickle.dumps(SklearnHost))  # the hook sees
print(len(found) > 0)
"""


def test_no_package_of_any_kind_is_unpickled_compiled_or_not(packages):
    paths = [packages(kind) for kind in KINDS]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EVERY, *paths], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{len(KINDS)} []", "True"]


def test_no_byte_of_a_package_may_change(packages, tmp_path):
    for name in ("model.skops", "compiled.arrays"):
        path = tmp_path / f"{name}.mlinfer"
        shutil.copytree(packages("histograms"), path)
        content = (path / name).read_bytes()
        for place in [0, 8, len(content) - 1, *RNG.integers(0, len(content), 40).tolist()]:
            changed = bytearray(content)
            changed[place] ^= 1
            (path / name).write_bytes(changed)
            with pytest.raises(ConfigError, match="wanted the SHA-256"), SklearnHost(path).open():
                pass
        (path / name).write_bytes(content + b"\0")
        with pytest.raises(ConfigError, match="wanted the SHA-256"), SklearnHost(path).open():
            pass


def test_another_scikit_learn_matters_to_the_estimator_and_not_to_the_form(packages, tmp_path):
    path = tmp_path / "old.mlinfer"
    shutil.copytree(packages("logistic"), path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["libraries"]["scikit-learn"] = "1.2.3"
    del manifest["sealed"]
    (path / "manifest.json").write_bytes(sealed(manifest))
    assert FOLDED in form(path)
    with (
        pytest.raises(ConfigError, match=r"install 'scikit-learn==1\.2\.3'"),
        SklearnHost(path, compile="never").open(),
    ):
        pass


@pytest.mark.parametrize("kind", ["logistic", "one-hot", "histograms", "large forest", "words"])
def test_a_form_that_promises_more_than_it_holds_is_refused_before_memory_is_taken(packages, kind):
    from mlinfer.hosts._forms import Form, _file

    content = (packages(kind) / "compiled.arrays").read_bytes()
    _, arrays = _file.load(content)
    size = int.from_bytes(content[8:16], "little")
    facts = json.loads(content[16 : 16 + size])
    for name, (dtype, shape, offset) in facts["arrays"].items():
        forged = {**facts["arrays"], name: [dtype, [shape[0] + 10**12, *shape[1:]], offset]}
        header = json.dumps({**facts, "arrays": forged}).encode().ljust(size + 64)
        with pytest.raises(ConfigError, match="damaged or foreign"):
            Form.load(
                content[:8] + len(header).to_bytes(8, "little") + header + content[16 + size :], "forged"
            )
    assert len(facts["arrays"]) == len(arrays) > 2
    for cut in (4, 12, len(content) // 3, len(content) // 2):
        with pytest.raises(ConfigError, match="damaged or foreign"):
            Form.load(content[:cut], "cut")


def test_a_compiled_package_is_a_host_like_any_other(packages):
    host = Selected(
        SklearnHost(packages("logistic"), method="predict_proba", expand=True), {"chance": "y_proba_yes"}
    )
    with host.open() as model:
        assert FOLDED in model.explain()[0]
        batch = pa.RecordBatch.from_arrays(
            [
                pa.FixedSizeListArray.from_arrays(
                    pa.array(X[:2].ravel()), type=model.signature.inputs.types[0]
                )
            ],
            schema=model.signature.inputs,
        )
        assert model.infer(batch)["chance"].to_pylist() == pytest.approx(
            fitted("logistic").predict_proba(X[:2])[:, 1].tolist(), abs=1e-12
        )
        assert model.infer(batch.slice(0, 0)).num_rows == 0


def test_the_plan_says_what_runs(packages):
    host = SklearnHost(packages("logistic"))
    plan = InferencePipeline(MemorySource(X), host, MemoryDestination(), name="plan").explain()
    assert f"  runs      {FOLDED} (numpy), proven on" in str(plan)


def test_inspect_prints_a_package_after_comparing_its_digests(packages, tmp_path, capsys):
    path = tmp_path / "m.mlinfer"
    shutil.copytree(packages("one-hot"), path)
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    digests = [
        hashlib.sha256((path / name).read_bytes()).hexdigest() for name in ("compiled.arrays", "model.skops")
    ]
    for wanted in (FOLDED, "city: string", "3,", "labels identical\n", "scikit-learn 1.", *digests):
        assert wanted in printed
    assert main(["inspect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["compiled"]["proof"]["ties"] == 0
    (path / "compiled.arrays").write_bytes(b"something else")
    assert main(["inspect", str(path)]) == 2
    assert "wanted the SHA-256" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 2
