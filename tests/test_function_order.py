"""A function answers records in their order; what it moved in pandas, or holds in a set, is not joined to the wrong ones."""

import pandas as pd
import pyarrow as pa
import pytest

from mlinfer import ComponentError, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

RECORDS = {"x": [3.0, 1.0, 2.0]}


def infer(function, takes, outputs=("y",), records=RECORDS):
    host = FunctionHost(function, {"x": "double"}, dict.fromkeys(outputs, "double"), takes, version="1")
    with InferencePipeline(MemorySource([]), host, MemoryDestination(), name="order") as pipeline:
        return pipeline.infer(records)


def in_place(frame):
    frame.sort_values("x", inplace=True)  # noqa: PD002 - what users do
    return frame.rename(columns={"x": "y"})


def in_place_bare(frame):
    frame.sort_values("x", inplace=True)  # noqa: PD002 - what users do
    return frame["x"].to_numpy()


MOVED = {
    "a series": ("pandas", lambda frame: frame["x"].sort_values()),
    "a series in a dict": ("pandas", lambda frame: {"y": frame["x"].sort_values()}),
    "a series of one's own": ("numpy", lambda x: pd.Series(x).sort_values()),
    "one's own in a dict": ("numpy", lambda x: {"y": pd.Series(x).sort_values()}),
    "of Arrow": ("arrow", lambda batch: {"y": batch["x"].to_pandas().sort_values()}),
    "the frame in place": ("pandas", in_place),
    "the frame in place, then its values": ("pandas", in_place_bare),
}


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("case", MOVED)
def test_answers_that_pandas_has_moved_are_refused(case):
    takes, function = MOVED[case]
    with pytest.raises(ComponentError, match=r"in the order of the records.*\.sort_index\(\)"):
        infer(function, takes)


def test_one_moved_column_among_others_is_refused():
    with pytest.raises(ComponentError, match="in the order of the records"):
        infer(lambda frame: {"y": frame["x"], "z": frame["x"].sort_values()}, "pandas", ("y", "z"))


@pytest.mark.parametrize(
    "function",
    [
        lambda frame: {"y": frame["x"].sort_values().sort_index()},
        lambda frame: frame.assign(y=frame["x"]).set_index("x"),
        lambda frame: {"y": pd.Series(frame["x"].to_numpy(), index=["c", "a", "b"])},
    ],
)
def test_answers_in_order_are_delivered_under_whatever_label(function):
    assert infer(function, "pandas")["y"].to_pylist() == RECORDS["x"]


@pytest.mark.parametrize(
    ("takes", "function"),
    [
        ("pandas", lambda frame: frame.astype({"x": int}).set_index("x").assign(y=[7.0, 8.0, 9.0])),
        ("numpy", lambda x: pd.Series([7.0, 8.0, 9.0], pd.Index(x.astype(int), name="x"))),
    ],
)
def test_a_column_that_became_the_index_is_no_order(takes, function):
    """Its values may be the numbers of the rows by chance: then honest answers were refused."""
    assert infer(function, takes, records={"x": [2.0, 0.0, 1.0]})["y"].to_pylist() == [7.0, 8.0, 9.0]


def test_the_index_of_the_frame_that_the_inputs_were_taken_from_is_no_order():
    """Arrow keeps it in the metadata of the schema, and would give the function an index that is not the records'."""
    inputs = pa.Schema.from_pandas(pd.DataFrame({"x": [3.0, 1.0, 2.0]})[::-1])
    for function in (lambda frame: frame["x"], lambda frame: frame.loc[[0, 1, 2], "x"]):
        host = FunctionHost(function, inputs, {"y": "double"}, "pandas", version="1")
        with InferencePipeline(MemorySource([]), host, MemoryDestination(), name="order") as pipeline:
            assert pipeline.infer(RECORDS)["y"].to_pylist() == RECORDS["x"]


@pytest.mark.parametrize("kind", [set, frozenset, dict.fromkeys])
def test_what_has_no_order_is_refused(kind):
    with pytest.raises(
        ComponentError, match=r"'y' in the order of the records, found a (set|frozenset|dict)"
    ):
        infer(lambda batch: {"y": kind(batch["x"].to_pylist())}, "arrow")
