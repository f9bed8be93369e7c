"""What pandas calls missing is a null among the answers of a function, whatever the column is made of."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlinfer import ComponentError, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

DAY = dt.datetime(2020, 1, 2)  # noqa: DTZ001 - one without a zone
# None: the type that pandas chooses, of texts "str" since pandas 3.
COLUMNS = {
    "text": (pa.string(), ["a", None, "c"], [None, "string", "category", object]),
    "text with NaN": (pa.string(), ["a", np.nan, "c"], [object]),
    "integer": (pa.int64(), [2**53 + 1, None, 3], ["Int64", object]),
    "integer of Arrow": (pa.int64(), [2**53 + 1, None, 3], ["int64[pyarrow]"]),
    "fraction": (pa.float64(), [1.5, None, 3.5], ["Float64"]),
    "boolean": (pa.bool_(), [True, None, False], ["boolean", object]),
    "time": (pa.timestamp("us"), [DAY, None, DAY], ["datetime64[us]"]),
    "time in a zone": (
        pa.timestamp("us", "UTC"),
        [DAY.replace(tzinfo=dt.UTC), None, None],
        ["datetime64[us, UTC]"],
    ),
}
CASES = [(name, dtype) for name, (_, _, dtypes) in COLUMNS.items() for dtype in dtypes]


def infer(function, kind, *, nullable=True, takes="pandas"):
    outputs = pa.schema([pa.field("y", kind, nullable=nullable)])
    host = FunctionHost(function, {"x": "double"}, outputs, takes, version="1")
    with InferencePipeline(MemorySource([]), host, MemoryDestination(), name="gaps") as pipeline:
        return pipeline.infer({"x": [0.0, 1.0, 2.0]}, on_reject="null")


@pytest.mark.parametrize("shape", ["frame", "series", "dict", "array"])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_what_is_missing_in_pandas_is_null_where_the_output_allows_it(name, dtype, shape):
    kind, values, _ = COLUMNS[name]
    asked = []

    def answer(frame):
        asked.append(len(frame))
        column = pd.Series([values[int(place)] for place in frame["x"]], dtype=dtype)
        if shape == "array":
            return column.array
        return {"frame": pd.DataFrame({"y": column}), "series": column, "dict": {"y": column}}[shape]

    found = infer(answer, kind)
    assert found["y"].to_pylist() == [None if value is None or value != value else value for value in values]  # noqa: PLR0124
    assert found["status"].to_pylist() == ["ok"] * 3
    assert asked == [3]  # and nobody had to be asked alone to find that out


def test_what_is_missing_where_the_output_wants_a_value_is_a_reject():
    found = infer(lambda frame: frame["x"].astype("Int64").where(frame["x"] != 1), pa.int64(), nullable=False)
    assert found["y"].to_pylist() == [0, None, 2]
    assert found["status"].to_pylist() == ["ok", "bad_answer", "ok"]


def test_two_columns_of_one_name_are_no_answer():
    with pytest.raises(ComponentError, match="wanted answers 'y' of type double, found fixed_size_list"):
        infer(lambda frame: pd.concat([frame, frame], axis=1).set_axis(["y", "y"], axis=1), pa.float64())
