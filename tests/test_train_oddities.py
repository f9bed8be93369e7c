"""Training says what is odd about a target, a group, a key or an estimator, before the fit where it can."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import mlinfer
from mlinfer import ConfigError
from mlinfer.lifecycle import ByGroup, ByKey, ByTime

COUNT = 400
TIME = np.arange(COUNT)


@pytest.fixture(scope="module")
def examples():
    dice = np.random.default_rng(1)
    a = dice.normal(size=COUNT)
    yes = a + dice.normal(size=COUNT) / 2 > 0
    return pa.table(
        {"id": TIME, "a": a, "b": dice.normal(size=COUNT), "yes": yes, "weight": dice.random(COUNT)}
    )


def train(table, path, estimator=None, **options):
    options = {"target": "yes", "features": ["a", "b"], "split": ByKey("id", test=0.4), **options}
    return mlinfer.train(table, estimator or LogisticRegression(), to=path / "odd.mlinfer", **options)


def refusal(table, path, estimator=None, **options):
    with pytest.raises(ConfigError) as raised:
        train(table, path, estimator, **options)
    assert not (path / "odd.mlinfer").exists()
    return str(raised.value)


class Unfitted(LogisticRegression):
    """Whoever sees it fitted was told too late."""

    def fit(self, X, y, sample_weight=None):  # noqa: N803 - scikit-learn's own names
        pytest.fail("fitted before the arguments were looked at")


def test_labels_that_no_answer_can_hold_are_refused_and_not_made_negative(examples, tmp_path):
    labels = pa.array(np.where(examples["yes"].to_numpy(), 2**64 - 1, 2**63 + 5).astype(np.uint64))
    said = refusal(examples.append_column("label", labels), tmp_path, Unfitted(), target="label")
    assert "target: wanted whole numbers below 2**63, found larger ones; give them as texts" in said
    small = examples.append_column("label", labels.is_valid().cast(pa.uint64()))
    small = small.set_column(5, "label", examples["yes"].cast(pa.uint64()))
    assert train(small, tmp_path, target="label").estimator.classes_.tolist() == [0, 1]


@pytest.mark.parametrize("side", ["test", "calibration"])
def test_a_record_that_the_model_refuses_on_an_unseen_side_is_told_with_the_way_out(examples, tmp_path, side):
    new = TIME > 390 if side == "test" else (TIME > 290) & (TIME < 300)
    table = examples.append_column(
        "city", pa.array(np.where(new, "Bonn", np.where(TIME % 2, "Rome", "Oslo")))
    )
    encoder = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    options = {"features": ["a", "city"], "split": ByTime("id")}
    said = refusal(table, tmp_path, make_pipeline(encoder, LogisticRegression()), **options)
    assert (
        "wanted an estimator that answers records it was not fitted on, found Found unknown categories ['Bonn']"
        in said
    )
    assert "handle_unknown" in said


def test_what_is_missing_in_unseen_records_alone_is_told(examples, tmp_path):
    a = np.where(TIME > 395, np.nan, examples["a"].to_numpy())
    said = refusal(examples.set_column(1, "a", pa.array(a)), tmp_path, split=ByTime("id"))
    assert "wanted an estimator that answers records it was not fitted on, found Input X contains NaN" in said


def test_a_search_that_does_not_refit_is_refused_before_it_begins(examples, tmp_path):
    search = GridSearchCV(Unfitted(), {"C": [0.1, 1.0]}, refit=False)
    assert "wanted a search that fits what it has found (refit=True), found refit=False" in refusal(
        examples, tmp_path, search
    )


def test_an_estimator_without_weights_is_not_blamed_on_the_features(examples, tmp_path):
    said = refusal(examples, tmp_path, KNeighborsClassifier(), sample_weight="weight")
    assert "KNeighborsClassifier: wanted an estimator that takes weights" in said
    assert "train without weights" in said


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_lists_and_structs_are_neither_groups_nor_keys(examples, tmp_path, value):
    table = examples.append_column("odd", pa.array([value] * COUNT))
    assert "groups: wanted single values in 'odd', found" in refusal(
        table, tmp_path, Unfitted(), groups="odd"
    )
    for split in (ByKey("odd"), ByGroup("odd")):
        assert "split: wanted single values in 'odd', found" in refusal(
            table, tmp_path, Unfitted(), split=split
        )


def test_too_many_groups_are_told_before_the_fit(examples, tmp_path):
    many = examples.append_column("many", pa.array(TIME)).append_column("of", pa.array(TIME.astype(float)))
    assert "groups: wanted at most 100 different values" in refusal(
        many, tmp_path, Unfitted(), groups="many", split=ByKey("id", test=0.7)
    ).replace("200", "100")


def test_intervals_of_the_calendar_are_no_times(examples, tmp_path):
    table = examples.append_column("odd", pa.array([pa.MonthDayNano([1, int(day), 0]) for day in TIME]))
    assert "split: wanted times or numbers in 'odd', found month_day_nano" in refusal(
        table, tmp_path, Unfitted(), split=ByTime("odd")
    )


def test_records_without_a_group_are_one_group_of_their_own(examples, tmp_path):
    """Whatever the missing one is called, or written as: NaN is no group per record."""
    texts = [["none", None, "z"][place % 3] for place in TIME]
    found = train(examples.append_column("group", pa.array(texts)), tmp_path, groups="group")
    counts = {score.group: score.records for score in found.scores if score.group is not None}
    unseen = found.records["test"]
    assert len(counts) == 3
    assert sum(counts.values()) == unseen
    (tmp_path / "more").mkdir()
    numbers = pa.array(np.where(TIME % 3 == 1, np.nan, 1.5), from_pandas=False)
    found = train(examples.append_column("group", numbers), tmp_path / "more", groups="group")
    assert {score.group for score in found.scores} == {None, 1.5, "none"}
    assert all(score.records for score in found.scores)


def test_numbers_may_be_missing_where_the_model_takes_that(examples, tmp_path):
    a = pd.Series(examples["a"].to_numpy()).where(TIME % 7 > 0)
    table = examples.set_column(1, "a", pa.array(a, from_pandas=True))
    assert train(table, tmp_path, HistGradientBoostingClassifier(max_iter=20)).records["test"] > 100
