"""Estimators of one's own answer in many shapes: as scikit-learn's do, or they are refused when they are opened."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator

from mlinfer import ComponentError, ConfigError, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource

X = np.arange(12.0).reshape(6, 2)


class Answers(BaseEstimator):
    def __init__(self, how):
        self.how = how

    def predict(self, X):  # noqa: N803 - scikit-learn's own name
        return self.how(np.asarray(X)[:, 0])


def infer(how):
    with InferencePipeline(
        MemorySource([]), SklearnHost(Answers(how), example=X), MemoryDestination()
    ) as pipeline:
        return pipeline.infer(X, on_reject="null")


@pytest.mark.parametrize(
    "how",
    [lambda x: x.tolist(), tuple, lambda x: x.astype(np.longdouble), lambda x: x.astype(">f8")],
)
def test_numbers_in_other_clothes_are_answers(how):
    assert infer(how)["y_pred"].to_pylist() == X[:, 0].tolist()


def test_texts_in_a_list_are_answers():
    assert infer(lambda x: [f"is {one:g}" for one in x])["y_pred"].to_pylist()[:2] == ["is 0", "is 2"]


def test_what_an_estimator_masks_is_no_answer():
    found = infer(lambda x: np.ma.masked_array(x, x == 4))
    assert found["y_pred"].to_pylist() == [0, 2, None, 6, 8, 10]
    assert found["status"].to_pylist()[2] == "bad_answer"


@pytest.mark.parametrize(
    "how",
    [
        lambda x: x > 5,
        lambda x: x.astype(np.int64) + 2**53 + 1,
        lambda x: x.astype(int).astype(str),
        lambda x: x.astype("datetime64[ns]"),
        lambda x: x.astype(str).astype(object),
    ],
)
def test_what_is_masked_is_no_answer_whatever_its_type(how):
    """What lay below the mask was delivered."""
    plain, found = infer(how), infer(lambda x: np.ma.masked_array(how(x), x == 4))
    wanted = plain["y_pred"].to_pylist()
    assert found["y_pred"].to_pylist() == [*wanted[:2], None, *wanted[3:]]
    assert found["status"].to_pylist()[2] == "bad_answer"


@pytest.mark.parametrize("unit", ["M8[ps]", "m8[Y]", "m8[M]", "M8"])
def test_times_of_which_arrow_has_no_unit_are_refused_when_the_model_is_opened(unit):
    with pytest.raises(
        ConfigError, match="answer 'y_pred': wanted times in days, seconds or parts of a second"
    ):
        infer(lambda x: np.full(len(x), "NaT", unit))


class Probable(Answers):
    def predict_proba(self, X):  # noqa: N803 - scikit-learn's own name
        return self.how(np.column_stack([X[:, 0], 1 - X[:, 0]]))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("how", [np.ndarray.tolist, list, lambda x: [tuple(row) for row in x]])
def test_a_list_with_something_for_each_record_is_one_answer(how, count):
    """It was taken for one of matrices, as for several outcomes; two records then got each other's numbers."""
    host = SklearnHost(Probable(how), example=X[:count], method="predict_proba")
    with InferencePipeline(MemorySource([]), host, MemoryDestination()) as pipeline:
        for asked in (X[:1], X[:2], X[:5]):
            found = pipeline.infer(asked)["y_proba"].to_pylist()
            assert found == np.column_stack([asked[:, 0], 1 - asked[:, 0]]).tolist()


def test_a_list_of_matrices_is_an_answer_for_each_of_several_outcomes():
    host = SklearnHost(Answers(lambda x: [np.column_stack([x, -x]), x[:, None]]), example=X)
    with InferencePipeline(MemorySource([]), host, MemoryDestination()) as pipeline:
        found = pipeline.infer(X[:2])
    assert found["y_pred_0"].to_pylist() == [[0, 0], [2, -2]]
    assert np.ravel(found["y_pred_1"].to_pylist()).tolist() == [0, 2]


@pytest.mark.parametrize("unit", ["D", "h", "m", "s", "us", "ns"])
def test_times_stay_times_whatever_their_unit(unit):
    found = infer(lambda x: np.full(len(x), "2020-01-02", f"datetime64[{unit}]"))["y_pred"].to_pylist()
    assert {dt.date(one.year, one.month, one.day) for one in found} == {dt.date(2020, 1, 2)}


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("Y", "1972"),
        ("M", "1970-03"),
        ("W", "1970-01-15"),
        ("h", "1970-01-01T02"),
        ("10m", "1970-01-01T00:20"),
    ],
)
def test_times_in_units_that_arrow_has_not_are_times(unit, wanted):
    found = infer(lambda x: x.astype(int).astype(f"datetime64[{unit}]"))["y_pred"].to_pylist()
    assert np.datetime64(found[1]) == np.datetime64(wanted)


@pytest.mark.parametrize("unit", ["W", "D", "h", "m"])
def test_durations_in_units_that_arrow_has_not_are_durations(unit):
    found = infer(lambda x: x.astype(int).astype(f"timedelta64[{unit}]"))["y_pred"].to_pylist()
    assert found[1] == np.timedelta64(2, unit).astype("m8[s]").item()


@pytest.mark.parametrize(
    "how",
    [
        lambda x: [[1.0] * int(one) for one in x],
        lambda _: 5.0,
        lambda _: None,
        lambda x: x[1:],
        lambda x: "text",
        set,
        iter,
    ],
)
def test_another_number_of_answers_is_refused_when_it_is_opened(how):
    with pytest.raises(ConfigError, match="Answers: wanted an estimator that answers"):
        infer(how)


@pytest.mark.parametrize("shape", [lambda column: column, lambda column: column.to_frame()])
def test_answers_that_pandas_has_moved_are_refused(shape):
    """They were joined to the wrong records."""
    with pytest.raises(ComponentError, match=r"in the order of the records.*\.sort_index\(\)"):
        infer(lambda x: shape(pd.Series(x).sort_values(ascending=False)))
    found = infer(lambda x: shape(pd.Series(x).sort_values(ascending=False).sort_index()))
    assert np.ravel(found["y_pred"].to_pylist()).tolist() == X[:, 0].tolist()
