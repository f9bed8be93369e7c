"""Training: who is fitted on and who stays unseen, what holds and what is refused, and that a package tells how it was made."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, loguniform
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    mean_absolute_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

import mlinfer
from mlinfer import ConfigError, ConfirmationError, SchemaError
from mlinfer._cli import main
from mlinfer._demo._model import shipped
from mlinfer.hosts import Origin, SklearnHost, manifest
from mlinfer.lifecycle import ByGroup, ByKey, ByTime, estimator
from mlinfer.lifecycle._estimators import described
from mlinfer.lifecycle._intervals import Draws, clopper_pearson
from mlinfer.lifecycle._measures import Area
from mlinfer.lifecycle._metrics import METRICS, Answers, scored
from mlinfer.lifecycle._splits import divided
from mlinfer.sources import CsvSource, JsonLinesSource, MemorySource, ParquetSource

FEATURES = ["dep_delay", "distance", "sched_dep_minute"]


@pytest.fixture(scope="module")
def flights():
    """Flights that are late by more than half an hour, or not; cancelled ones have no outcome."""
    with shipped("train.parquet") as path:
        found = pq.read_table(path)
    return found.append_column("late", pc.greater(found["arr_delay"], 30))


@pytest.fixture
def train(flights, tmp_path):
    """Train on the flights, with some arguments changed."""

    def call(source=flights, model=None, **changes):
        asked = {
            "target": "late", "features": FEATURES, "split": ByKey("flight_id"), "to": tmp_path / "late.mlinfer",
            "metrics": ["accuracy"], **changes,
        }  # fmt: skip
        model = make_pipeline(StandardScaler(), LogisticRegression()) if model is None else model
        return mlinfer.train(source, model, **asked)

    return call


def cancer(**more):
    data = load_breast_cancer(as_frame=True).frame
    return data.assign(patient=range(len(data)), **more)


def test_a_package_answers_as_the_estimator_and_scores_are_those_of_unseen_records(train, flights):
    found = train(metrics=["roc_auc", "accuracy", "log_loss"], accept={"roc_auc": 0.7})
    there = flights.filter(pc.is_valid(flights["late"]))
    unseen = there.filter(pa.array(divided(there, ByKey("flight_id")) == 2))
    with SklearnHost(found.path).open() as model:
        fields = model.signature.inputs
        records = unseen.select(FEATURES).cast(fields).combine_chunks().to_batches()[0]
        answers = model.infer(records).to_pandas()
    truth = unseen["late"].to_numpy()
    assert found["roc_auc"].value == pytest.approx(roc_auc_score(truth, answers.y_proba_True), abs=1e-12)
    assert found["accuracy"].value == pytest.approx(accuracy_score(truth, answers.y_pred), abs=1e-12)
    assert found["log_loss"].value == pytest.approx(log_loss(truth, answers.y_proba_True), abs=1e-9)
    assert found.records["test"] == len(unseen)
    assert found.without_target == len(flights) - len(there) > 0
    baseline = DummyClassifier(strategy="prior").fit(there, there["late"].to_numpy())
    assert found["accuracy"].baseline == pytest.approx(baseline.score(unseen, truth), abs=1e-12)


def test_a_bar_that_the_interval_does_not_clear_is_refused_with_the_table(train, tmp_path):
    with pytest.raises(ConfirmationError) as caught:
        train(metrics=["roc_auc"], accept={"roc_auc": 0.95})
    score = caught.value.training["roc_auc"]
    assert score.value > 0.95 > score.low  # the value alone would have passed
    assert "wanted at least 0.95" in str(caught.value)
    assert f"{score.low:.3f} to {score.high:.3f}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_bar_for_an_error_is_an_upper_one(train):
    assert train(metrics=["log_loss"], accept={"log_loss": 0.2})["log_loss"].high <= 0.2


def test_a_model_that_knows_nothing_does_not_beat_the_baseline(train, flights, tmp_path):
    noise = np.random.default_rng(0).normal(size=len(flights))
    with pytest.raises(ConfirmationError, match="wanted more than a baseline"):
        train(flights.append_column("noise", pa.array(noise)), features=["noise"], metrics=["roc_auc"])
    assert list(tmp_path.iterdir()) == []


def test_two_runs_write_the_same_bytes_in_every_process(tmp_path, monkeypatch):
    code = """
import sys, mlinfer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from mlinfer.lifecycle import ByKey
frame = load_breast_cancer(as_frame=True).frame
mlinfer.train(frame.assign(patient=range(len(frame))), RandomForestClassifier(5), target="target", split=ByKey("patient"),
              to=sys.argv[1], seed=3, metrics=["accuracy"])
"""
    here, there = (tmp_path / where / "forest.mlinfer" for where in ("here", "there"))
    monkeypatch.setattr(sys, "argv", ["", str(here)])
    exec(code, {})
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    subprocess.run(
        [sys.executable, "-c", code, there], check=True, env={**os.environ, "PYTHONHASHSEED": other}
    )
    found = [
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}
        for path in (here, there)
    ]
    assert found[0] == found[1]
    assert {"model.skops", "manifest.json", "calibration.arrow"} <= found[0].keys()


def test_another_seed_is_another_forest(train, tmp_path):
    model = RandomForestClassifier(3, max_depth=3)
    digests = {
        manifest(train(model=model, seed=seed, to=tmp_path / f"{seed}.mlinfer").path)["digest"]
        for seed in (0, 1)
    }
    assert len(digests) == 2
    assert model.random_state is None  # the caller's own is left alone


def test_the_manifest_makes_the_same_model_again(train, flights, tmp_path):
    first = train(model=HistGradientBoostingClassifier(max_iter=5), seed=4)
    told = manifest(first.path)["training"]
    split = {name: told["split"][name] for name in ("column", "test", "calibration")}
    again = train(
        model=estimator(told["fit"]["estimator"]), seed=told["fit"]["seed"], split=ByKey(**split),
        features=told["features"], target=told["target"], to=tmp_path / "again.mlinfer",
    )  # fmt: skip
    assert manifest(again.path)["digest"] == manifest(first.path)["digest"]
    assert manifest(again.path)["training"] == told


def test_weights_count_in_the_fit_and_in_the_scores(train, flights):
    """A weight of two is the record twice, a weight of none no record."""
    there = flights.filter(pc.is_valid(flights["late"]))
    weights = pa.array(np.arange(len(there)) % 3)
    found = train(there.append_column("w", weights), sample_weight="w", metrics=["accuracy", "roc_auc"])
    unseen = there.append_column("w", weights).filter(pa.array(divided(there, ByKey("flight_id")) == 2))
    seen = there.append_column("w", weights).filter(pa.array(divided(there, ByKey("flight_id")) == 0))
    matrix, wanted = (part.select(FEATURES).to_pandas().to_numpy(float) for part in (seen, unseen))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(matrix, seen["late"].to_numpy(), logisticregression__sample_weight=seen["w"].to_numpy())
    truth, heavy = unseen["late"].to_numpy(), unseen["w"].to_numpy()
    score = model.predict_proba(wanted)[:, 1]
    assert found["roc_auc"].value == pytest.approx(roc_auc_score(truth, score, sample_weight=heavy), abs=1e-9)
    assert found["accuracy"].method == "Korn-Graubard"


# --- the split


def test_a_record_never_changes_sides(flights):
    whole = divided(flights, ByKey("flight_id"))
    part = np.random.default_rng(0).permutation(len(flights))[:5000]
    assert np.array_equal(divided(flights.take(part), ByKey("flight_id")), whole[part])
    larger = divided(flights, ByKey("flight_id", calibration=0.4))
    assert np.array_equal(larger == 2, whole == 2)
    assert np.mean(whole == 2) == pytest.approx(0.2, abs=0.01)
    assert np.mean(whole == 1) == pytest.approx(0.1, abs=0.01)


def test_the_hash_is_the_one_that_was_published():
    table = pa.table({"key": ["a", "b", "c", "d", "e", "f", "g", "h"]})
    places = [
        int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, person=b"mlinfer split").digest(), "big")
        / 2**64
        for key in "abcdefgh"
    ]
    sides = divided(table, ByKey("key", test=0.5, calibration=0))
    assert sides.tolist() == [2 if place < 0.5 else 0 for place in places]
    assert sides.tolist() == [2, 2, 0, 0, 0, 2, 0, 2]  # for ever


@given(st.lists(st.integers(0, 30), min_size=20, max_size=200), st.floats(0.1, 0.5), st.floats(0.0, 0.3))
@settings(max_examples=50, deadline=None)
def test_what_is_unseen_is_later_than_what_was_seen(times, test, calibration):
    split = ByTime("t", test=test, calibration=calibration)
    moments = np.array(times)
    try:
        sides = divided(pa.table({"t": moments}), split)
    except ConfigError as error:
        assert "none of" in str(error)  # noqa: PT017 - a side can be empty where many records share a moment
        return
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if np.any(sides == earlier) and np.any(sides == later):
            assert moments[sides == earlier].max() < moments[sides == later].min()


def test_groups_stay_together_and_count_as_one_draw(train):
    found = train(split=ByGroup("carrier", test=0.6), metrics=["accuracy"])
    assert found["accuracy"].method.startswith("Korn-Graubard, ")
    alone = train(split=ByKey("flight_id", test=0.6), to=found.path.with_name("b.mlinfer"))["accuracy"]
    assert found["accuracy"].high - found["accuracy"].low > alone.high - alone.low


def test_the_same_key_on_two_sides_is_refused(train, flights):
    twice = pa.concat_tables([flights, flights.slice(0, 50)])
    later = twice.set_column(1, "time", pa.array(range(len(twice))))
    with pytest.raises(ConfigError, match="wanted every 'flight_id' on one side, found"):
        train(later, split=ByTime("time", key="flight_id"))


@pytest.mark.parametrize("split", [ByKey("when"), ByTime("when")])
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_record_without_a_place_in_the_split_is_refused(split, missing):
    with pytest.raises(ConfigError, match="wanted a value of 'when' in every record, found 1 without"):
        divided(pa.table({"when": pa.array([*map(float, range(50)), missing])}), split)


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ConfigError, match="leave something to train on"):
        ByKey("id", test=0.7, calibration=0.3)


# --- leaks


def test_the_target_is_no_feature(train):
    with pytest.raises(ConfigError, match="found 'late' itself"):
        train(features=[*FEATURES, "late"])


@pytest.mark.parametrize("kind", ["number", "text", "copy"])
def test_a_feature_that_predicts_perfectly_is_named_as_a_leak(train, flights, kind):
    late = flights["late"]
    leak = {
        "number": flights["arr_delay"],
        "copy": late.cast(pa.int64()),
        "text": pc.if_else(late, "yes", "no"),
    }[kind]
    with pytest.raises(ConfigError, match="feature 'leak': predicts the outcomes of all"):
        train(flights.append_column("leak", leak), features=[*FEATURES, "leak"])


def test_a_perfect_feature_that_is_no_leak_is_let_through(train, flights):
    source = flights.append_column("leak", flights["late"].cast(pa.int64()))
    found = train(source, features=["distance", "leak"], perfect=["leak"], metrics=["roc_auc"])
    assert found["roc_auc"].value == 1
    assert 0.99 < found["roc_auc"].low < 1  # nobody is perfect for sure


def test_a_misspelt_name_of_a_perfect_feature_is_told_with_the_columns_there_are(train, flights, tmp_path):
    for source in (flights, MemorySource(flights)):
        with pytest.raises(
            ConfigError, match=r"perfect: wanted columns of the source, found 'nope'; there are .*dep_delay, "
        ):
            train(source, perfect=["distance", "nope"])
    assert not list(tmp_path.iterdir())
    train(flights, perfect=["distance", "origin"])  # a column that is no feature this time


def test_texts_in_views_are_outcomes_keys_and_features_like_any_others(flights, tmp_path):
    """Data in hand come without; a file may hold them."""
    told = pc.if_else(flights["late"], "yes", "no")
    columns = {
        "late": told,
        "key": flights["flight_id"].cast(pa.string()),
        "carrier": flights["carrier"],
        "origin": flights["origin"],
    }
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    scores = []
    for kind in (pa.large_string(), pa.string_view()):
        path = tmp_path / f"{kind}.parquet"
        pq.write_table(
            pa.table({name: column.cast(pa.string()).cast(kind) for name, column in columns.items()}), path
        )
        found = mlinfer.train(
            ParquetSource(path), model, target="late", features=["carrier", "origin"], split=ByKey("key"), to=tmp_path / f"{kind}.mlinfer",
            metrics=["roc_auc"],
        )  # fmt: skip
        scores.append(found["roc_auc"])
    assert scores[0] == scores[1]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_feature_whose_type_a_file_does_not_tell_is_named(train, flights, tmp_path, kind):
    rows = flights.select([*FEATURES, "late", "flight_id"]).slice(0, 300).to_pylist()
    rows = [{**row, "odd": 9007199254740993 if n == 5 else n / 7} for n, row in enumerate(rows)]
    path = tmp_path / f"flights.{kind}"
    if kind == "csv":
        pd.DataFrame(rows, dtype=object).to_csv(path, index=False)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = CsvSource(path) if kind == "csv" else JsonLinesSource(path)
    with pytest.raises(ConfigError, match="column 'odd': wanted one type for all its values"):
        train(source, features=None)


def test_a_number_times_the_target_is_a_leak_of_a_regression(tmp_path):
    frame = load_diabetes(as_frame=True).frame.assign(
        patient=range(442), leak=lambda data: 3 * data.target + 1
    )
    with pytest.raises(ConfigError, match="feature 'leak'"):
        mlinfer.train(frame, Ridge(), target="target", split=ByKey("patient"), to=tmp_path / "d.mlinfer")


# --- error margins


def test_exact_intervals_are_those_in_print():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 5."""
    for hits, tries, low, high in (
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ):
        assert clopper_pearson(hits, tries) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_the_area_under_the_curve_is_the_one_in_print():
    """Hanley and McNeil's images, Radiology 143 (1982); the standard error as Stata's manual of roctab prints it."""
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    scores = np.repeat([1, 2, 3, 4, 5, 1, 2, 3, 4, 5], normal + abnormal).astype(float)
    positive = np.arange(109) >= 58
    area, once = Area(positive, scores), np.ones(109)
    assert area(once) == pytest.approx(0.8932, abs=5e-5)
    assert np.sqrt((area.influence(once) ** 2).sum()) == pytest.approx(0.0307, abs=5e-5)


@pytest.mark.parametrize("chance", [0.02, 0.1, 0.5, 0.83])
@pytest.mark.parametrize("tries", [10, 40])
def test_exact_intervals_cover_at_least_what_they_say(chance, tries):
    """Summed over all outcomes, nothing simulated."""
    covers = [
        low <= chance <= high for low, high in (clopper_pearson(hits, tries) for hits in range(tries + 1))
    ]
    assert binom.pmf(np.arange(tries + 1), tries, chance) @ np.array(covers) >= 0.95


@pytest.fixture(scope="module")
def simulation():
    """The script whose tables the page of training shows."""
    where = Path(__file__).parents[1] / "scripts" / "simulate_intervals.py"
    spec = importlib.util.spec_from_file_location("simulate_intervals", where)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.MANY = 200_000
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [
        ("SETTINGS", "two classes, half and half", 30),
        ("SETTINGS", "two classes, one in ten", 100),
        ("SETTINGS", "three classes, 6 : 3 : 1", 100),
        ("SETTINGS", "normal errors", 30),
        ("SETTINGS", "weights, two classes", 100),
        ("SETTINGS", "weights, normal errors", 100),
        ("GROUPED", "two classes", 10),
        ("GROUPED", "normal errors", 30),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(simulation, kind, name, count):
    """300 times the records of a known law: 0.92 is 2.4 standard errors below 0.95."""
    setting = next(one for one in getattr(simulation, kind) if one.name == name)
    for metric, (held, passed) in simulation.coverage(setting, count, 300, 5).items():
        assert held >= 0.92, metric
        assert passed <= 0.06, metric


def test_a_model_that_is_no_better_seldom_passes_for_better(simulation):
    for null in {null.metric: null for null in simulation.nulls()}.values():  # one for each metric
        assert simulation.taken_for_better(null, 100, 300, 1) <= 0.06, null


def test_a_mean_of_shares_that_have_no_record_in_common_is_the_same_without_their_correlations():
    dice = np.random.default_rng(3)
    truth, weights = dice.integers(0, 5, 200), dice.uniform(1, 2, 200)
    said = np.where(dice.random(200) < 0.7, truth, dice.integers(0, 5, 200))
    short = METRICS["balanced_accuracy"].made(Answers(truth, said, np.arange(5)))
    whole = dataclasses.replace(short, apart=False)
    assert short.apart
    for groups in (None, np.arange(200) // 10):
        assert short.interval(Draws(weights, groups)) == pytest.approx(whole.interval(Draws(weights, groups)))


@pytest.mark.parametrize("name", ["r2", "mae", "rmse"])
def test_the_unit_of_the_target_does_not_change_what_is_found(name):
    """Charges in coulombs are far below rounding of 1; a power of two keeps every digit."""
    dice = np.random.default_rng(4)
    truth = dice.normal(size=50)
    said, unit = truth + dice.normal(size=50), 2.0**-60
    usual, small = (
        scored(
            [METRICS[name]], Answers(truth * scale, said * scale), Draws(np.ones(50)),
            baseline=Answers(truth * scale, np.full(50, 0.1 * scale)),
        )[0]
        for scale in (1.0, unit)
    )  # fmt: skip
    by = 1 if name == "r2" else unit
    for field in ("value", "low", "high", "better_by", "better_low", "better_high"):
        assert getattr(small, field) == pytest.approx(getattr(usual, field) * by, rel=1e-9, abs=0), field


def test_small_errors_are_printed_in_digits_that_tell_them_apart(asked):
    frame = wide(y=np.random.default_rng(1).normal(size=600) * 1e-5).drop(columns="late")
    with pytest.raises(ConfirmationError) as caught:
        asked(frame, LinearRegression(), target="y", metrics=["mae"], accept={"mae": 7e-6})
    score = caught.value.training["mae"]
    assert f"found {score.value:.2g} ({score.low:.2g} to {score.high:.2g})" in caught.value.message
    assert f"{score.low:.2g} to {score.high:.2g}" in str(caught.value.training)
    assert "-0.000" not in str(caught.value.training)


def test_a_comparison_that_nothing_is_known_of_says_why(asked):
    """Perfect on all unseen records, beside a baseline that is off by the same for each."""
    frame = wide(w=1.0)
    frame["late"] = np.arange(600) % 2 == 0
    frame["x"] = np.where(frame.late, 9.0, -9.0)
    with pytest.raises(ConfirmationError, match=r"undefined\): all records are off alike, or are too few"):
        asked(
            frame, RandomForestClassifier(3), metrics=["brier"], perfect=["x"], features=["x"],
            split=ByTime("time", test=0.5, calibration=0),
        )  # fmt: skip


def test_an_error_of_0_on_all_records_has_no_interval_but_is_compared():
    truth = np.random.default_rng(2).normal(size=50)
    found = scored(
        [METRICS[name] for name in ("rmse", "mae", "r2")], Answers(truth, truth), Draws(np.ones(50)),
        baseline=Answers(truth, np.zeros(50)),
    )  # fmt: skip
    for score in found:
        assert (np.isfinite(score.low), score.better_low > 0) == (False, True), score


@pytest.mark.parametrize("grouped", [False, True])
def test_the_error_of_a_mean_is_that_of_leaving_each_draw_out(grouped):
    """Records with weights, or groups, of which one is most of all: its own error must not vanish in the mean that it is."""
    dice = np.random.default_rng(9)
    wrong, weights = dice.exponential(size=40), dice.uniform(1, 2, 40)
    weights[0] = 1e4
    groups = np.arange(40) % 8 if grouped else None
    draws = Draws(weights, groups)
    left_out = [
        np.average(wrong[rest], weights=weights[rest])
        for rest in (np.arange(40) != one if groups is None else groups != one for one in range(draws.count))
    ]
    mean, count = np.average(wrong, weights=weights), len(left_out)
    error, free = draws.error(METRICS["mae"].made(Answers(wrong, np.zeros(40))).influence(weights))
    assert error == pytest.approx(np.sqrt((count - 1) / count * ((left_out - mean) ** 2).sum()))
    assert free < 3
    assert np.isnan(Draws(np.r_[1.0, np.full(39, 1e-30)]).error(wrong)[0])


def test_a_share_that_one_group_shows_is_not_known_as_that_of_its_records():
    """Yes is said in one group alone, which differs from nothing: no error is seen, and next to nothing is known."""
    groups = np.arange(400) // 20
    said = groups == 3
    truth = np.arange(400) % 2 == 0
    low, high = (
        METRICS["precision"]
        .made(Answers(truth, said, np.array([False, True])))
        .interval(Draws(np.ones(400), groups))
    )
    assert low < 0.025
    assert high > 0.975


def test_intervals_of_groups_cover_where_those_of_records_do_not():
    """Forty groups of twenty records whose errors are equal within a group."""
    dice = np.random.default_rng(7)
    groups = np.repeat(np.arange(40), 20)
    covered = {"groups": [], "records": []}
    for _ in range(200):
        measure = METRICS["mae"].made(Answers(dice.exponential(size=40)[groups], np.zeros(800)))
        for name, drawn in (("groups", groups), ("records", None)):
            low, high = measure.interval(Draws(np.ones(800), drawn))
            covered[name].append(low <= 1 <= high)
    assert np.mean(covered["groups"]) >= 0.92
    assert np.mean(covered["records"]) <= 0.6


@pytest.mark.parametrize("name", ["roc_auc", "balanced_accuracy", "f1", "accuracy"])
@pytest.mark.parametrize("kind", ["plain", "weights", "groups"])
def test_a_metric_that_is_perfect_on_few_records_is_not_perfect_for_sure(name, kind):
    truth = np.arange(40) % 2 == 0
    sure = Answers(
        truth, truth, np.array([False, True]), np.column_stack([~truth, truth]), truth.astype(float)
    )
    weights = np.random.default_rng(1).uniform(1, 1.5, 40) if kind == "weights" else np.ones(40)
    draws = Draws(weights, np.arange(40) // 4 if kind == "groups" else None)
    metric = METRICS[name]
    assert metric.made(sure)(weights) == pytest.approx(1)
    low, high = metric.made(sure).interval(draws)
    assert (0.6 < low < 0.96, high) == (True, pytest.approx(1))


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(METRICS)))
@settings(max_examples=60, deadline=None)
def test_how_much_a_record_moves_a_metric_is_its_derivative(seed, name):
    """By differences of weights, which is the definition."""
    dice, classes = np.random.default_rng(seed), np.arange(2)
    truth, shares = np.arange(30) % 2, dice.dirichlet(np.ones(2), 30)
    answers = Answers(truth, (shares.argmax(1) + (dice.random(30) < 0.2)) % 2, classes, shares, shares[:, 1])
    if not METRICS[name].of_classes:
        answers = Answers(dice.normal(size=30), dice.normal(size=30))
    measure, weights, step = METRICS[name].made(answers), dice.uniform(0.5, 2, 30), 1e-5
    sides = [[measure(weights + sign * step * one) for sign in (1, -1)] for one in np.eye(30)]
    wanted = weights * np.array([(more - less) / (2 * step) for more, less in sides])
    if name == "roc_auc":  # as large as DeLong's variance needs it
        for mine in (truth == 0, truth == 1):
            many = weights[mine].sum() ** 2 / (weights[mine] ** 2).sum()
            wanted[mine] *= np.sqrt(many / (many - 1))
    assert measure.influence(weights) == pytest.approx(wanted, abs=1e-6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_metrics_with_weights_are_those_of_scikit_learn(seed):
    dice = np.random.default_rng(seed)
    truth, score = np.arange(40) % 2 == 0, dice.integers(0, 9, 40) / 8
    weights = dice.integers(0, 4, 40).astype(float) + (np.arange(40) < 4)
    answers = Answers(truth, score > 0.4, np.array([False, True]), np.column_stack([1 - score, score]), score)
    theirs = {
        "roc_auc": roc_auc_score(truth, score, sample_weight=weights),
        "accuracy": accuracy_score(truth, score > 0.4, sample_weight=weights),
        "balanced_accuracy": balanced_accuracy_score(truth, score > 0.4, sample_weight=weights),
        "recall": recall_score(truth, score > 0.4, sample_weight=weights, zero_division=np.nan),
        "precision": precision_score(truth, score > 0.4, sample_weight=weights, zero_division=np.nan),
        "f1": f1_score(truth, score > 0.4, sample_weight=weights, zero_division=np.nan),
        "brier": brier_score_loss(truth, score, sample_weight=weights),
        "log_loss": log_loss(truth, score, sample_weight=weights),
    }
    for name, wanted in theirs.items():
        assert METRICS[name].made(answers)(weights) == pytest.approx(wanted, abs=1e-9, nan_ok=True), name
    kinds = np.arange(40) % 3
    shares = dice.dirichlet(np.ones(3), 40).round(1)
    of_three = Answers(kinds, shares.argmax(1), np.arange(3), shares)
    wanted = np.mean([roc_auc_score(kinds == one, shares[:, one], sample_weight=weights) for one in range(3)])
    assert METRICS["roc_auc"].made(of_three)(weights) == pytest.approx(wanted, abs=1e-9)
    numbers = Answers(dice.normal(50, 2, 40), dice.normal(50, 2, 40))
    for name, of in (("r2", r2_score), ("mae", mean_absolute_error), ("rmse", root_mean_squared_error)):
        wanted = of(numbers.truth, numbers.predicted, sample_weight=weights)
        assert METRICS[name].made(numbers)(weights) == pytest.approx(wanted, rel=1e-9), name


# --- estimators and data of all kinds


def test_a_search_is_saved_as_what_it_has_found(train):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.01, 1.0]}, cv=3
    )
    found = train(model=search)
    told = manifest(found.path)
    assert told["estimator"] == "sklearn.pipeline.Pipeline"
    assert told["training"]["fit"]["best"]["logisticregression__C"] in {0.01, 1.0}


def test_texts_categories_lists_and_several_classes(tmp_path, flights):
    words = make_pipeline(TfidfVectorizer(), LogisticRegression())
    some = flights.slice(0, 3000)
    text = pc.binary_join_element_wise(some["carrier"], some["origin"], some["dest"], " ")
    mlinfer.train(
        some.append_column("text", text), words, target="origin", features=["text"], split=ByKey("flight_id"),
        metrics=["accuracy"], to=tmp_path / "words.mlinfer",
    )  # fmt: skip
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["carrier"]), remainder="passthrough"
    )
    mixed = mlinfer.train(
        flights, make_pipeline(columns, LogisticRegression(max_iter=5000)), target="late",
        features=["carrier", "dep_delay"], split=ByKey("flight_id"), to=tmp_path / "mixed.mlinfer",
    )  # fmt: skip
    assert mixed["roc_auc"].value > 0.9
    wine = load_wine()
    found = mlinfer.train(
        {"x": pa.FixedSizeListArray.from_arrays(wine.data.ravel(), 13), "y": wine.target, "bottle": np.arange(178)},
        make_pipeline(StandardScaler(), LogisticRegression()), target="y", features=["x"], split=ByKey("bottle", test=0.4),
        metrics=["accuracy", "roc_auc"], to=tmp_path / "wine.mlinfer",
    )  # fmt: skip
    assert found["accuracy"].value > 0.9
    assert (found["roc_auc"].method, found["roc_auc"].low > 0.9) == ("Student", True)
    assert "x[12]" in manifest(found.path)["training"]["histograms"]


def test_an_estimator_without_probabilities(tmp_path):
    found = mlinfer.train(
        cancer(), make_pipeline(StandardScaler(), LinearSVC()), target="target", split=ByKey("patient"),
        to=tmp_path / "svc.mlinfer",
    )  # fmt: skip
    assert [score.metric for score in found.scores] == ["roc_auc", "accuracy"]
    assert manifest(found.path)["training"]["calibration"] is None


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_metric_says_whether_it_needs_probabilities(name):
    """Else an estimator without them would be refused for a metric that nobody has asked for."""
    truth = np.arange(8) % 2
    without = Answers(truth, truth, np.arange(2), None, truth.astype(float))
    if METRICS[name].of_probabilities:
        with pytest.raises(ConfigError, match="predict_proba"):
            METRICS[name].made(without)
    else:
        METRICS[name].made(without)


def test_any_source_may_be_trained_on(flights, tmp_path):
    pq.write_table(flights, tmp_path / "f.parquet")
    options = {"target": "late", "features": FEATURES, "split": ByKey("flight_id"), "metrics": ["accuracy"]}
    sources = ParquetSource(tmp_path / "f.parquet"), MemorySource(flights), flights.to_pandas()
    digests = set()
    for number, source in enumerate(sources[:2]):
        path = mlinfer.train(source, LogisticRegression(), to=tmp_path / f"{number}.mlinfer", **options).path
        digests.add(manifest(path)["digest"])
    assert len(digests) == 1


def test_a_column_that_is_not_there_is_named(train):
    with pytest.raises(SchemaError, match="no such column"):
        train(features=["speed"])


def test_a_column_that_is_there_twice_is_named(flights, tmp_path):
    twice = flights.append_column("dep_delay", flights["dep_delay"])
    with pytest.raises(
        SchemaError, match="field 'dep_delay': wanted a column of the source, found 2 columns"
    ):
        mlinfer.train(
            twice, LogisticRegression(), target="late", features=["dep_delay"], split=ByKey("flight_id"),
            to=tmp_path / "m.mlinfer",
        )  # fmt: skip


def test_two_columns_of_a_data_frame_with_one_name_are_named(flights, tmp_path):
    frame = flights.select([*FEATURES, "late", "flight_id"]).to_pandas()
    twice = pd.concat([frame, frame[["distance"]]], axis=1)
    with pytest.raises(ConfigError, match=r"a name of its own for each column .* several called distance"):
        mlinfer.train(
            twice, LogisticRegression(), target="late", split=ByKey("flight_id"), to=tmp_path / "m.mlinfer"
        )


def test_an_estimator_that_cannot_be_fitted_says_why(train):
    with pytest.raises(ConfigError, match=r"put a step in front of it"):
        train(features=["dep_delay", "carrier"])


def test_a_place_that_is_taken_is_refused_before_anything_is_fitted(train, tmp_path):
    (tmp_path / "late.mlinfer").mkdir()
    with pytest.raises(ConfigError, match="wanted a new path"):
        train(source=None)


# --- what the package tells


def test_calibration_scores_are_those_of_the_calibration_side(tmp_path):
    frame = load_diabetes(as_frame=True).frame.assign(patient=range(442))
    split = ByKey("patient", test=0.3, calibration=0.3)
    found = mlinfer.train(frame, LinearRegression(), target="target", split=split, to=tmp_path / "d.mlinfer")
    sides = divided(pa.table({"patient": frame.patient}), split)
    inputs = frame.drop(columns=["target", "patient"]).to_numpy()
    model = LinearRegression().fit(inputs[sides == 0], frame.target[sides == 0])
    wanted = np.sort(np.abs(frame.target[sides == 1] - model.predict(inputs[sides == 1])))
    with pa.ipc.open_file(found.path / "calibration.arrow") as file:
        assert np.allclose(file.read_all()["score"].to_numpy(), wanted, rtol=1e-9)
    assert manifest(found.path)["training"]["calibration"]["records"] == len(wanted)


def test_histograms_count_every_record_that_was_trained_on(train):
    found = train(
        features=[*FEATURES, "origin"],
        model=make_pipeline(
            make_column_transformer((OneHotEncoder(), ["origin"]), remainder="passthrough"),
            LogisticRegression(max_iter=2000),
        ),
    )
    histograms = manifest(found.path)["training"]["histograms"]
    assert histograms.keys() == {*FEATURES, "origin"}
    for histogram in histograms.values():
        total = sum(histogram["counts"]) + histogram.get("others", 0) + histogram["missing"]
        assert total == found.records["train"]
    delays = histograms["dep_delay"]
    assert len(delays["counts"]) == len(delays["edges"]) + 1 > 5


def test_a_package_that_could_not_be_opened_is_not_written(tmp_path):
    told = {"histograms": "x" * 2**22}
    with pytest.raises(ConfigError, match=r"manifest of at most 4,194,304 bytes"):
        mlinfer.save(
            LinearRegression().fit([[0], [1]], [0, 1]), tmp_path / "big.mlinfer", origin=Origin(told)
        )
    assert list(tmp_path.iterdir()) == []


def test_inspect_prints_how_the_model_was_made(train, capsys):
    found = train(groups="origin")
    assert main(["inspect", str(found.path)]) == 0
    printed = capsys.readouterr().out
    assert "trained    for late, seed 0" in printed
    assert f"split      by key flight_id: {found.records['train']:,} train" in printed
    assert ", origin JFK" in printed


# --- from a file

FILE = """
target = "late"
to = "late.mlinfer"
features = ["dep_delay", "distance"]
accept = { roc_auc = BAR }
source = { type = "parquet", path = "flights.parquet" }
split = { by = "key", column = "flight_id" }
estimator = [
  { class = "sklearn.preprocessing.StandardScaler" },
  { class = "sklearn.linear_model.LogisticRegression", C = 0.5 },
]
"""


@pytest.fixture
def folder(flights, tmp_path, monkeypatch):
    pq.write_table(flights, tmp_path / "flights.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_trains_and_python_gives_the_same_model(folder, capsys, train):
    (folder / "train.toml").write_text(FILE.replace("BAR", "0.7"))
    assert main(["train", "train.toml"]) == 0
    assert "saved as    late.mlinfer" in capsys.readouterr().out
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5))
    same = train(model=model, features=FEATURES[:2], to=folder / "python.mlinfer")
    assert manifest("late.mlinfer")["digest"] == manifest(same.path)["digest"]


def test_the_command_names_a_perfect_feature_that_is_not_there(folder, capsys):
    (folder / "train.toml").write_text('perfect = ["nope"]\n' + FILE.replace("BAR", "0.7"))
    assert main(["train", "train.toml"]) == 2
    assert "perfect: wanted columns of the source, found 'nope'; there are " in capsys.readouterr().err
    assert not (folder / "late.mlinfer").exists()


@pytest.mark.parametrize(
    "bar", [np.float32(0.75), np.float64(0.75), np.float16(0.75)], ids=lambda bar: type(bar).__name__
)
def test_a_bar_may_be_a_number_of_numpys_and_is_stored_as_any_other(train, bar):
    found = train(metrics=["roc_auc"], accept={"roc_auc": bar})
    stored = json.loads((found.path / "manifest.json").read_text())["training"]
    assert stored["confirmed"]["accept"] == {"roc_auc": 0.75}
    with pytest.raises(ConfirmationError, match="wanted at least 1"):
        train(metrics=["roc_auc"], accept={"roc_auc": np.int64(1)}, to=found.path.with_name("other.mlinfer"))


def test_the_command_ends_with_6_and_shows_the_table_when_the_model_does_not_hold(folder, capsys):
    (folder / "train.toml").write_text(FILE.replace("BAR", "0.99"))
    assert main(["train", "train.toml"]) == 6
    told = capsys.readouterr()
    assert "all  roc_auc" in told.out
    assert "not written: roc_auc: wanted at least 0.99" in told.err
    assert not (folder / "late.mlinfer").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("os.system", "public name of a class of scikit-learn"),
        ("sklearn.utils._testing.MinimalClassifier", "public name"),
        ("sklearn.model_selection.train_test_split", "which is none"),
        ("sklearn.linear_model.Nothing", "found no"),
        ("trap:Model", "code of yours"),
    ],
)
def test_a_file_names_no_code_that_nobody_allowed(folder, capsys, name, why):
    (folder / "trap.py").write_text("raise SystemExit('run')")
    text = FILE.replace("BAR", "0.7").replace("sklearn.preprocessing.StandardScaler", name)
    (folder / "train.toml").write_text(text)
    assert main(["train", "train.toml"]) == 2
    assert why in capsys.readouterr().err


def test_code_that_is_allowed_is_found_in_the_current_folder(folder, monkeypatch):
    (folder / "own_model.py").write_text(
        "from sklearn.preprocessing import StandardScaler\nOwn = StandardScaler\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    text = FILE.replace("BAR", "0.7").replace("sklearn.preprocessing.StandardScaler", "own_model:Own")
    (folder / "train.toml").write_text(text)
    assert main(["train", "train.toml", "--allow", "own_model:Own"]) == 0


def test_the_file_names_the_types_that_are_trusted(folder, monkeypatch, capsys):
    (folder / "own_step.py").write_text(
        "from sklearn.preprocessing import StandardScaler\nclass Own(StandardScaler): pass\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    text = FILE.replace("BAR", "0.7").replace("sklearn.preprocessing.StandardScaler", "own_step:Own")
    (folder / "train.toml").write_text(text)
    assert main(["train", "train.toml", "--allow", "own_step:Own"]) == 2
    assert "found own_step.Own; if you trust whoever made the file" in capsys.readouterr().err
    (folder / "train.toml").write_text('trusted = ["own_step.Own"]\n' + text)
    assert main(["train", "train.toml", "--allow", "own_step:Own"]) == 0


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), Ridge(alpha=3)),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3),
        make_column_transformer((OneHotEncoder(), ["a"]), remainder="passthrough"),
        RandomForestClassifier(7, max_depth=3, random_state=1),
        LogisticRegression(class_weight={0: 1, 1: 5}, C=np.inf),
        make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), SelectKBest(f_regression, k=1), Ridge()),
        make_pipeline(MinMaxScaler(feature_range=(0, 2)), FunctionTransformer(np.tanh), Ridge()),
        GridSearchCV(
            LogisticRegression(), {"C": [0.1, 1.0]}, cv=StratifiedKFold(3, shuffle=True, random_state=1)
        ),
    ],
    ids=["pipeline", "search", "columns", "forest", "infinity", "functions", "tuples", "splitter"],
)
def test_an_estimator_is_the_same_after_it_was_written_down(model):
    lost = []
    assert repr(estimator(json.loads(json.dumps(described(model, lost), allow_nan=False)))) == repr(model)
    assert not lost


def test_a_choice_of_columns_is_the_same_after_it_was_written_down():
    chosen = make_column_selector(dtype_include=np.number)
    model = make_column_transformer(
        (OneHotEncoder(dtype=np.float32), chosen), (StandardScaler(), slice(0, 1))
    )
    written = described(model)
    assert described(estimator(json.loads(json.dumps(written)))) == written
    assert "0x" not in json.dumps(written)


class Doubled(BaseEstimator, TransformerMixin):
    """A step of the user's own."""

    def fit(self, x, y=None):
        """Learn nothing."""
        return self

    def transform(self, x):
        """Twice of it."""
        return 2 * x


def test_a_type_of_the_users_own_is_saved_and_opened_where_it_is_named(train, tmp_path):
    name = f"{Doubled.__module__}.Doubled"
    model = make_pipeline(Doubled(), LogisticRegression(max_iter=1000))
    with pytest.raises(ConfigError, match=rf"trusted=\['{name}'\]"):
        train(model=model)
    assert list(tmp_path.iterdir()) == []
    found = train(model=model, trusted=[name])
    with pytest.raises(ConfigError, match=name), SklearnHost(found.path).open():
        pass
    with SklearnHost(found.path, trusted=[name]).open() as opened:
        assert opened.signature.inputs.names == FEATURES
        assert opened.infer(opened.example()).num_rows == 2


@pytest.mark.parametrize(
    "name",
    [
        "numpy.memmap", "numpy.nditer", "numpy.load", "sklearn.utils.discovery.import_module", "sklearn.utils.discovery.Path",
        "sklearn.datasets.load_files", "sklearn.base.warnings",
    ],
)  # fmt: skip
def test_a_manifest_names_no_function_that_reaches_outside(name):
    written = {"class": "sklearn.preprocessing.FunctionTransformer", "func": {"$name": name}}
    with pytest.raises(ConfigError, match="as a manifest has it"):
        estimator(written)


def test_what_cannot_be_written_down_is_said(train):
    model = RandomizedSearchCV(LogisticRegression(), {"C": loguniform(0.01, 1)}, n_iter=2, cv=2)
    fit = manifest(train(model=model).path)["training"]["fit"]
    assert not fit["reproducible"]
    assert "param_distributions.C" in fit["why"][0]
    assert "0x" not in json.dumps(fit)


def test_a_search_whose_folds_are_shuffled_finds_the_same_again(train, tmp_path):
    model = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=StratifiedKFold(3, shuffle=True))
    one = manifest(train(model=model).path)["training"]["fit"]
    assert one["reproducible"]
    assert one["estimator"]["cv"]["random_state"] is not None
    assert model.cv.random_state is None  # the caller's own is left alone
    two = train(model=estimator(one["estimator"]), to=tmp_path / "again.mlinfer")
    assert manifest(two.path)["training"]["fit"]["best"] == one["best"]


def test_tables_are_read_as_the_classes_want_them():
    scaler = {"class": "sklearn.preprocessing.MinMaxScaler", "feature_range": [0, 2]}
    last = {"class": "sklearn.linear_model.LogisticRegression", "class_weight": {"0": 1, "1": 2}}
    found = estimator({"class": "sklearn.ensemble.VotingClassifier", "estimators": [["a", [scaler, last]]]})
    ((_, pipeline),) = found.estimators
    assert pipeline[0].feature_range == (0, 2)
    assert pipeline[1].class_weight == {0: 1, 1: 2}
    with pytest.raises(ConfigError, match="which is none"):
        estimator({"class": "sklearn.model_selection.KFold"})


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_texts_of_any_layout_are_trained_on(tmp_path, kind):
    texts = [f"{'good' if n % 2 else 'bad'} film" for n in range(400)]
    table = pa.table(
        {"key": range(400), "text": pa.array(texts).cast(kind), "liked": [n % 2 for n in range(400)]}
    )
    found = mlinfer.train(
        table, make_pipeline(TfidfVectorizer(), LogisticRegression()), target="liked", split=ByKey("key"),
        features=["text"], perfect=["text"], to=tmp_path / "t.mlinfer",
    )  # fmt: skip
    assert found["accuracy"].value == 1


def test_pandas_frames_may_be_handed_over(tmp_path):
    frame = cancer(site=lambda data: pd.Categorical(np.where(data.index % 3, "a", "b")))
    found = mlinfer.train(
        frame, make_pipeline(StandardScaler(), LogisticRegression()), target="target", groups="site",
        features=["mean radius", "mean texture"], split=ByKey("patient"), metrics=["roc_auc"], to=tmp_path / "c.mlinfer",
    )  # fmt: skip
    assert {score.group for score in found.scores} == {None, "a", "b"}


@pytest.mark.parametrize("copy", ["rounded", "exponential", "with a gap"])
def test_an_outcome_in_disguise_is_a_leak_of_a_regression(tmp_path, copy):
    dice = np.random.default_rng(0)
    outcome = dice.normal(size=2000)
    disguised = {"rounded": outcome.round(3), "exponential": np.exp(outcome), "with a gap": outcome + 1.0}[
        copy
    ]
    if copy == "with a gap":
        disguised[5] = np.nan
    data = pd.DataFrame(
        {"key": range(2000), "a": dice.normal(size=2000), "leak": disguised, "outcome": outcome}
    )
    with pytest.raises(ConfigError, match=r"'leak'.*probably holds the outcome"):
        mlinfer.train(
            data,
            HistGradientBoostingRegressor(max_iter=3),
            target="outcome",
            split=ByKey("key"),
            to=tmp_path / "l.mlinfer",
        )


def test_a_text_that_is_there_only_for_one_outcome_is_a_leak(tmp_path):
    outcome = np.arange(2000) % 2
    texts = [f"case {n}" if one else None for n, one in enumerate(outcome)]
    data = pa.table(
        {"key": range(2000), "case": texts, "a": np.random.default_rng(0).normal(size=2000), "y": outcome}
    )
    with pytest.raises(ConfigError, match=r"'case'.*probably holds the outcome"):
        mlinfer.train(data, LogisticRegression(), target="y", split=ByKey("key"), to=tmp_path / "l.mlinfer")


def test_what_texts_say_does_not_stand_in_the_manifest(tmp_path):
    texts = [f"Jane Doe {n} feels {'good' if n % 2 else 'bad'}" for n in range(600)]
    data = {"key": list(range(600)), "text": texts, "y": [n % 2 for n in range(600)]}
    found = mlinfer.train(
        data, make_pipeline(TfidfVectorizer(vocabulary=["good", "bad"]), LogisticRegression()), target="y",
        split=ByKey("key"), features=["text"], perfect=["text"], to=tmp_path / "t.mlinfer",
    )  # fmt: skip
    histogram = manifest(found.path)["training"]["histograms"]["text"]
    assert sum(histogram["lengths"]["counts"]) == found.records["train"]
    assert "Jane" not in json.dumps(histogram)


def test_what_cannot_be_trained_on_is_said_in_a_sentence(train, flights):
    with pytest.raises(ConfigError, match=r"write LogisticRegression\(\)"):
        train(model=LogisticRegression)
    with pytest.raises(ConfigError, match="sample_weight: wanted numbers"):
        train(sample_weight="carrier")
    delays = flights["dep_delay"].to_numpy().astype(float)
    delays[3] = np.inf
    place = flights.schema.get_field_index("dep_delay")
    with pytest.raises(ConfigError, match="infinity"):
        train(flights.set_column(place, "dep_delay", pa.array(delays)))


def wide(records=600, **columns):
    """Records whose outcome a number tells mostly, but not always."""
    dice = np.random.default_rng(0)
    x = dice.normal(size=records)
    late = x + dice.normal(size=records) / 2 > 0.8
    return pd.DataFrame(
        {"id": range(records), "x": x, "late": late, "time": range(records), "one": 1, **columns}
    )


@pytest.fixture
def asked(tmp_path):
    def call(frame, model=None, **changes):
        given = {
            "target": "late",
            "features": ["x"],
            "split": ByKey("id"),
            "to": tmp_path / "m.mlinfer",
        } | changes
        return mlinfer.train(frame, LogisticRegression() if model is None else model, **given)

    return call


def test_a_first_metric_without_a_value_for_the_baseline_is_refused_before_the_fit(asked, tmp_path):
    class Counted(LogisticRegression):
        def fit(self, *_, **__):
            pytest.fail("it was fitted")

    frame = wide()
    with pytest.raises(ConfigError, match=r"always says False, found 'precision'; put another one first"):
        asked(frame, Counted(), metrics=["precision"])
    late = frame.assign(late=frame.late & (frame.time < 300))
    with pytest.raises(
        ConfigError, match=r"different outcomes among the 120 unseen records.* found False alone"
    ):
        asked(late, Counted(), split=ByTime("time"))
    with pytest.raises(ConfigError, match=r"different outcomes among .* found 3\.0 alone"):
        asked(frame.assign(late=3.0), LinearRegression())
    assert list(tmp_path.iterdir()) == []
    assert asked(frame, metrics=["roc_auc", "precision"], accept={"precision": 0.5})["precision"].low > 0.5


def test_a_stack_is_trained_and_what_learns_no_outcome_is_refused(asked):
    stack = StackingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(3))], cv=2)
    found = asked(wide(), stack, seed=3)
    fit = manifest(found.path)["training"]["fit"]
    again = asked(wide(), estimator(fit["estimator"]), seed=3, to=found.path.with_name("again.mlinfer"))
    assert manifest(again.path)["digest"] == manifest(found.path)["digest"]
    for other in (KMeans(2), IsolationForest(), StandardScaler(), make_pipeline(StandardScaler(), KMeans(2))):
        with pytest.raises(ConfigError, match="wanted a classifier or a regressor"):
            asked(wide(), other, to=found.path.with_name("other.mlinfer"))


def test_a_parameter_that_cannot_be_is_not_blamed_on_the_features(asked):
    with pytest.raises(
        ConfigError, match="Ridge: wanted parameters that it takes, found: The 'alpha' parameter"
    ):
        asked(wide(late=1.0 * np.arange(600)), Ridge(alpha="x"))
    with pytest.raises(
        ConfigError, match=r"GridSearchCV: wanted parameters that it takes, found: .*The 'alpha' parameter"
    ):
        asked(wide(late=1.0 * np.arange(600)), GridSearchCV(Ridge(), {"alpha": [-1.0]}, cv=3))
    steps = make_pipeline(StandardScaler(), Ridge())
    with pytest.raises(
        ConfigError, match=r"found 'alpha', which Pipeline has not; .* is called step__parameter"
    ):
        asked(wide(late=1.0 * np.arange(600)), GridSearchCV(steps, {"alpha": [1.0]}, cv=3))


def test_an_unknown_key_of_the_file_lists_each_known_one_once(folder, capsys):
    (folder / "train.toml").write_text("sed = 7\n" + FILE.replace("BAR", "0.7"))
    assert main(["train", "train.toml"]) == 2
    known = capsys.readouterr().err.strip().rpartition("known: ")[2].split(", ")
    assert len(known) == len(set(known)) > 10


def test_fewer_draws_than_tell_a_margin_confirm_nothing(asked):
    groups = wide(hospital=np.arange(600) % 8)
    with pytest.raises(ConfigError, match=r"wanted 6 or more unseen values of 'hospital'.*found [1-5];"):
        asked(groups, split=ByGroup("hospital", test=0.5, calibration=0))
    weights = np.r_[np.ones(550), np.zeros(48), 1, 1]
    with pytest.raises(ConfigError, match=r"wanted 6 or more unseen records.*found 2;"):
        asked(wide(w=weights), sample_weight="w", split=ByTime("time", test=0.08))


def test_an_interval_of_a_few_records_is_undefined_and_not_narrow(asked):
    scores = asked(
        wide(site=[*598 * ["usual"], "rare", "rare"]),
        groups="site",
        split=ByTime("time"),
        metrics=["log_loss"],
    ).scores
    rare = next(score for score in scores if score.group == "rare")
    assert (rare.records, np.isfinite(rare.value), np.isfinite(rare.low)) == (2, True, False)


def test_a_share_that_is_all_has_a_margin_with_weights_too(asked):
    frame = wide(w=2.0)
    frame["x"] = np.where(frame.late, 9.0, -9.0) + frame.x
    score = asked(frame, sample_weight="w", metrics=["accuracy"], perfect=["x"])["accuracy"]
    assert (score.value, score.low) == (1.0, pytest.approx(0.025 ** (1 / score.records)))


def test_weights_of_any_size_count_by_their_ratios(asked, tmp_path):
    ratios = np.tile([1.0, 2.0], 300)
    usual, large = (
        asked(wide(w=ratios * scale), GaussianNB(), sample_weight="w", features=["x"], to=tmp_path / f"{scale > 1}.mlinfer")
        for scale in (1.0, 2.0**600)
    )  # fmt: skip
    assert usual.scores == large.scores


def test_weights_that_are_zero_on_a_whole_side_are_refused(asked):
    for side, weights in (
        ("train", np.r_[np.zeros(480), np.ones(120)]),
        ("test", np.r_[np.ones(480), np.zeros(120)]),
    ):
        with pytest.raises(
            ConfigError, match=f"sample_weight: wanted some above 0 in 'w' on the side '{side}'"
        ):
            asked(wide(w=weights), sample_weight="w", split=ByTime("time", calibration=0))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"split": "id"}, r"split: wanted ByKey.* found 'id'"),
        ({"seed": -1}, "seed: wanted a whole number of 0 or more, found -1"),
        ({"seed": "7"}, "seed: wanted"),
        ({"features": "x"}, r"features: wanted a list of names.* write features=\['x'\]"),
        ({"metrics": "roc_auc"}, "metrics: wanted a list of names"),
        ({"accept": {"roc_auc": "0.7"}}, "accept: wanted a number as the bar of 'roc_auc', found '0.7'"),
        ({"accept": {"roc_auc": float("nan")}}, "accept: wanted a number"),
        ({"accept": {"roc_auc": np.float32("inf")}}, "accept: wanted a number"),
        ({"accept": {"roc_auc": np.True_}}, "accept: wanted a number"),
        ({"accept": ["roc_auc"]}, "accept: wanted bars by metric"),
        (
            {"accept": {"roc_auc": 90}},
            r"accept: wanted a bar that 'roc_auc' can reach, at most 1 \(0.9 for 90 %\), found 90",
        ),
        (
            {"accept": {"log_loss": -0.5}},
            "accept: wanted a bar that 'log_loss' can reach, 0 or more, found -0.5",
        ),
        ({"features": {"x"}}, r"features: wanted a list of names, found a set, .* write features=\['x'\]"),
        ({"target": ["late"]}, "target: wanted the name of a column"),
        ({"to": None}, "to: wanted the path of the package"),
        ({"to": "my model.mlinfer"}, "name: wanted letters, digits, .* found 'my model'"),
        ({"sample_weight": np.ones(3)}, "sample_weight: wanted the name of a column, found array"),
        ({"groups": ["origin"]}, r"groups: wanted the name of a column, found \['origin'\]"),
    ],
)
def test_what_is_asked_for_is_looked_at_before_anything_is_read(asked, changes, why):
    with pytest.raises(ConfigError, match=why):
        asked(None, **changes)


def test_a_share_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"split: wanted a number as the share test, such as 0.2, found"):
        ByKey("id", test="0.2")
    assert ByKey("id", test=np.float32(0.25)).test == 0.25


def test_a_class_instead_of_a_source_is_refused(asked):
    with pytest.raises(ConfigError, match=r"wanted records .* found the class MemorySource"):
        asked(MemorySource)


def test_a_key_is_on_the_same_side_as_a_whole_number_and_as_a_float():
    keys = pa.array(range(500))
    sides = [divided(pa.table({"k": column}), ByKey("k")) for column in (keys, keys.cast(pa.float64()))]
    np.testing.assert_array_equal(*sides)


def test_groups_are_no_feature_unless_it_is_said(train, flights):
    chosen = flights.select(["late", "flight_id", "dep_delay", "distance", "sched_dep_minute", "origin"])
    assert manifest(train(chosen, features=None, groups="origin").path)["training"]["features"] == [
        "dep_delay",
        "distance",
        "sched_dep_minute",
    ]
