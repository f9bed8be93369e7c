"""Rows of Python values become columns; a row that cannot is set apart alone."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlinfer import batch_from_rows


def columns(values, kind):
    """What becomes of values of one field: the good ones, and (row, kind) of the others."""
    batch, good, bad = batch_from_rows([{"x": value} for value in values], pa.schema([("x", kind)]))
    assert batch.num_rows == len(good)
    assert sorted([*good, *(one.row for one in bad)]) == list(range(len(values)))
    return batch.column(0).to_pylist(), [one.row for one in bad]


OF_OBJECTS = pa.struct([("a", pa.struct([("b", pa.int64())]))])
OF_TEXTS = pa.struct([("d", pa.decimal128(9, 2)), ("t", pa.timestamp("us")), ("r", pa.binary())])


@pytest.mark.parametrize(
    ("values", "kind", "good", "bad"),
    [
        ([1, "a", 2.5], pa.float64(), [1.0, 2.5], [1]),
        (["a", 1], pa.string(), ["a"], [1]),
        ([1, 2], pa.string(), [], [0, 1]),
        ([1, True], pa.int64(), [1], [1]),
        ([True, 1], pa.int64(), [1], [0]),
        ([1.5, True], pa.float64(), [1.5], [1]),
        ([0.5, 2**53 + 1], pa.float64(), [0.5, 2.0**53], []),
        ([-1, 2**63], pa.float64(), [-1.0, 2.0**63], []),
        ([-1, 2**63], pa.int64(), [-1], [1]),
        ([2**63, 0], pa.uint64(), [2**63, 0], []),
        ([1, 2**70], pa.int64(), [1], [1]),
        ([1, 10**400], pa.float64(), [1.0], [1]),
        (
            [b"\xff", "/w==", "a", "no base64", "", 1, None],
            pa.binary(),
            [b"\xff", b"\xff", b"", None],
            [2, 3, 5],
        ),
        ([[1, 2], ["a"], None], pa.list_(pa.float64()), [[1, 2], None], [1]),
        ([[1], [2**70]], pa.list_(pa.int64()), [[1]], [1]),
        ([["/w==", None], ["no base64"], [], None], pa.list_(pa.binary()), [[b"\xff", None], [], None], [1]),
        (
            [[{"a": 1}], [{"a": 1.5}], [{}], [4], 4],
            pa.list_(pa.struct([("a", pa.int32())])),
            [[{"a": 1}], [{"a": None}]],
            [1, 3, 4],
        ),
        (
            [[{"a": 1}], [[("a", 2)]], [{"a": "1"}]],
            pa.list_(pa.map_(pa.string(), pa.int64())),
            [[[("a", 1)]], [[("a", 2)]]],
            [2],
        ),
        ([["/w=="], ["/w==", "/w=="]], pa.list_(pa.binary(), 1), [[b"\xff"], [b"\xff", b"\xff"]], []),
        ([{"a": 1}, 4], pa.struct([("a", pa.int64())]), [{"a": 1}], [1]),
        ([{"a": 1}, "", []], pa.struct([("a", pa.int64())]), [{"a": 1}], [1, 2]),
        (
            [{"a": 1.5}, {"a": True}, {"a": 2.0}, None, {}, {"a": 2**63}, {"a": "1"}, [("a", 1)]],
            pa.struct([("a", pa.int64())]),
            [{"a": 2}, None, {"a": None}],
            [0, 1, 5, 6, 7],
        ),
        ([{"a": True}, {"a": 1}], pa.struct([("a", pa.float64())]), [{"a": 1.0}], [0]),
        ([{"a": {"b": 0.5}}, {"a": {"b": 1}}], OF_OBJECTS, [{"a": {"b": 1}}], [0]),
        (
            [{"d": "1.50", "t": "2024-01-01T00:00:00", "r": "/w=="}, {"d": "x"}, {"r": "no base64"}],
            OF_TEXTS,
            [{"d": Decimal("1.50"), "t": dt.datetime(2024, 1, 1), "r": b"\xff"}],  # noqa: DTZ001
            [1, 2],
        ),
        (
            [[None], {"a": 1.5}, {"a": True}, {"a": None}, None, {}, [], [(None, 1)], [1], [["a", 1]]],
            pa.map_(pa.string(), pa.int64()),
            [[("a", None)], None, [], []],
            [0, 1, 2, 7, 8, 9],
        ),
        ([{"a": 1}, "", [("b", 2)]], pa.map_(pa.string(), pa.int64()), [[("a", 1)], [("b", 2)]], [1]),
        (["a\ud800", "b"], pa.string(), ["b"], [0]),
        (["2024-01-01", "no day", None], pa.timestamp("s"), [dt.datetime(2024, 1, 1), None], [1]),  # noqa: DTZ001
        (["2024-01-01T00:00:00Z"], pa.timestamp("s"), [], [0]),
        ([{}, []], pa.string(), [], [0, 1]),
        ([-1, False], pa.uint64(), [], [0, 1]),
        ([None, None], pa.float64(), [None, None], []),
    ],
)
def test_only_the_row_with_a_value_of_another_kind_is_bad(values, kind, good, bad):
    assert columns(values, kind) == (good, bad)


def test_the_reason_names_field_wanted_and_found():
    _, _, bad = batch_from_rows([{"x": "abc"}, "text", None], pa.schema([("x", pa.float64())]))
    assert [(one.row, one.kind, one.message) for one in sorted(bad, key=lambda one: one.row)] == [
        (0, "wrong_type", "field 'x': wanted double, found 'abc'"),
        (1, "wrong_type", "wanted an object with named fields, found 'text'"),
        (2, "wrong_type", "wanted an object with named fields, found None"),
    ]


def test_a_key_that_is_absent_is_null_and_others_are_not_looked_at():
    batch, good, bad = batch_from_rows([{"y": object()}, {"x": 1}], pa.schema([("x", pa.int64())]))
    assert (batch.to_pylist(), good, bad) == ([{"x": None}, {"x": 1}], [0, 1], [])


def test_rows_without_wanted_columns_are_still_counted():
    batch, good, _ = batch_from_rows([{}, {"a": 1}, 3], pa.schema([]))
    assert (batch.num_rows, good) == (2, [0, 1])
    assert batch_from_rows([], pa.schema([("x", pa.int64())]))[0].num_rows == 0


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3),
    st.lists(st.integers() | st.text(max_size=1), max_size=2), st.just({}), st.binary(max_size=2),
)  # fmt: skip
KINDS = st.sampled_from(
    [
        pa.float64(),
        pa.int64(),
        pa.uint64(),
        pa.string(),
        pa.bool_(),
        pa.timestamp("us"),
        pa.list_(pa.float64()),
    ]
)


@given(st.lists(ODD, max_size=6), KINDS)
def test_a_row_is_good_or_bad_whatever_stands_beside_it(values, kind):
    _, together = columns(values, kind)
    alone = [row for row, value in enumerate(values) if columns([value], kind)[1]]
    assert together == alone
