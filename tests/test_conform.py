"""Records that fit a model reach it as its signature says; those that cannot are named, with the reason."""

import datetime as dt
import decimal
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlinfer import SchemaError, finite
from mlinfer._casts import cast, compatible, is_bytes, is_list, is_text
from mlinfer._conform import Conform

NAN, INF = float("nan"), float("inf")


def required(kind):
    return pa.field("x", kind, nullable=False)


def optional(kind):
    return pa.field("x", kind)


def conform(array, field):
    """The values that fit, and (row, kind) of those that do not."""
    fit = Conform(pa.schema([field]))(pa.record_batch([array], names=["x"]))
    fit.records.validate(full=True)
    assert fit.records.schema.field(0).equals(field)
    bad = [] if fit.errors is None else list(zip(fit.errors.rows, fit.errors.kinds, strict=True))
    return fit.records.column(0).to_pylist(), bad


@pytest.mark.parametrize(
    ("array", "field", "good", "bad"),
    [
        (pa.array([1.0, None]), required(pa.float64()), [1.0], [(1, "missing_value")]),
        (pa.array([1.0, NAN]), required(pa.float64()), [1.0], [(1, "missing_value")]),
        (pa.array([1.0, INF]), required(pa.float64()), [1.0, INF], []),
        (pa.array([1.0, None]), optional(pa.float64()), [1.0, None], []),
        (pa.array([1.0, INF, -INF]), finite(optional(pa.float64())), [1.0], [(1, "not_finite"), (2, "not_finite")]),
        (pa.array([INF, NAN, 1.0]), finite(required(pa.float64())), [1.0], [(0, "not_finite"), (1, "missing_value")]),
        (pa.array([1, 2]), required(pa.float64()), [1.0, 2.0], []),
        (pa.array([2**53 + 1]), required(pa.float64()), [float(2**53)], []),
        (pa.array([3.0, 3.5]), required(pa.int64()), [3], [(1, "wrong_type")]),
        (pa.array([3.0, NAN]), optional(pa.int64()), [3, None], []),
        (pa.array([3.5, NAN]), required(pa.int64()), [], [(0, "wrong_type"), (1, "missing_value")]),
        (pa.array([300, 5, -1]), required(pa.uint8()), [5], [(0, "wrong_type"), (2, "wrong_type")]),
        (pa.array([-1, 5]), required(pa.uint64()), [5], [(0, "wrong_type")]),
        (pa.array([2**63, 5], pa.uint64()), required(pa.int64()), [5], [(0, "wrong_type")]),
        (pa.array([2.0**63, -(2.0**63)]), required(pa.int64()), [-(2**63)], [(0, "wrong_type")]),
        (pa.array([1e300, 1.5]), required(pa.float32()), [1.5], [(0, "wrong_type")]),
        (pa.array([70_000, 2, None]), optional(pa.float16()), [2.0, None], [(0, "wrong_type")]),
        (pa.array([decimal.Decimal(70_000), decimal.Decimal(2)]), required(pa.float16()), [2.0], [(0, "wrong_type")]),
        (pa.array([None, None]), optional(pa.list_(pa.float64(), 3)), [None, None], []),
        (pa.array([None, None]), required(pa.string()), [], [(0, "missing_value"), (1, "missing_value")]),
        (pa.array(["a", None]).dictionary_encode(), required(pa.string()), ["a"], [(1, "missing_value")]),
        (pa.array([b"ab", b"abc"]), required(pa.binary(2)), [b"ab"], [(1, "wrong_type")]),
        (pa.array([decimal.Decimal("2.00"), decimal.Decimal("2.50")]), required(pa.int8()), [2], [(1, "wrong_type")]),
        (pa.array([1.25, 1.2599, 1e10, INF]), required(pa.decimal128(6, 2)), [decimal.Decimal("1.25")], [(1, "wrong_type"), (2, "wrong_type"), (3, "wrong_type")]),
        (pa.array([0.1, 0.2, NAN], pa.float32()), optional(pa.decimal128(6, 2)), [decimal.Decimal("0.10"), decimal.Decimal("0.20"), None], []),
        (pa.array([decimal.Decimal("12.5"), decimal.Decimal("1234567890.12"), decimal.Decimal("0.001")], pa.decimal128(38, 10)), required(pa.decimal128(6, 2)), [decimal.Decimal("12.50")], [(1, "wrong_type"), (2, "wrong_type")]),
        (pa.array(list(map(str, range(300)))), required(pa.dictionary(pa.int32(), pa.string())), list(map(str, range(300))), []),
        (pa.array([12345678901.1234, 0.1, 1e300, float("inf")]), required(pa.decimal128(38, 20)), [decimal.Decimal("12345678901.1234"), decimal.Decimal("0.1")], [(2, "wrong_type"), (3, "wrong_type")]),
        (pa.array([0.1, -1e-5, None], pa.float32()), optional(pa.decimal256(50, 40)), [decimal.Decimal("0.1"), decimal.Decimal("-0.00001"), None], []),
        (pa.array([0.1 + 0.2, 0.3]), required(pa.decimal128(18, 16)), [decimal.Decimal("0.3")], [(0, "wrong_type")]),
        (pa.array([1.5, 2.5], pa.float16()), required(pa.decimal128(5, 1)), [decimal.Decimal("1.5"), decimal.Decimal("2.5")], []),
    ],
)  # fmt: skip
def test_a_value_fits_or_its_record_is_named(array, field, good, bad):
    assert conform(array, field) == (good, bad)


def test_only_the_records_that_lack_a_tensor_element_are_named():
    strict = pa.list_(pa.field("item", pa.float64(), nullable=False), 2)
    array = pa.array([[1, 2], [None, 2], [NAN, 2], [INF, 2], None], pa.list_(pa.float64(), 2))
    assert conform(array, required(strict)) == (
        [[1, 2], [INF, 2]],
        [(1, "missing_value"), (2, "missing_value"), (4, "missing_value")],
    )
    assert conform(array, finite(optional(strict)))[1] == [
        (1, "missing_value"),
        (2, "missing_value"),
        (3, "not_finite"),
    ]
    assert conform(array, finite(optional(array.type)))[1] == [(3, "not_finite")]


def test_a_list_of_another_length_is_no_tensor():
    array = pa.array([[1, 2], [1], [], [1, 2, 3], None, [3, 4]])
    assert conform(array, optional(pa.list_(pa.float64(), 2))) == (
        [[1.0, 2.0], None, [3.0, 4.0]],
        [(1, "wrong_length"), (2, "wrong_length"), (3, "wrong_length")],
    )


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float64())])
def test_a_list_of_another_length_is_told_with_its_length(kind):
    found = pa.array(
        [None, [1.0], [1.0, 2.0], [], [3.0], [0.5, 1.5], *[[0.0] * n for n in range(3, 40)]], kind
    )
    wanted = pa.schema([pa.field("x", pa.list_(pa.int64(), 2))])
    errors = Conform(wanted)(pa.record_batch({"x": found}).slice(1)).errors
    said = [message.partition("[2], found ")[2] for message in errors.messages]
    assert said[:4] == [
        "a list of 1",
        "a list of 0",
        "a list of 1",
        "a list of another length or values that do not fit",
    ]
    assert said[4:] == [f"a list of {n}" for n in range(3, 16)] + [said[3]] * 24
    assert errors.rows == [0, 2, 3, 4, *range(5, 42)]
    assert set(errors.kinds) == {"wrong_length"}


def test_a_null_list_may_have_elements_behind_it():
    values = pa.array([1, 2, 3, None, 5, 6])
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 6], pa.int32()), values, mask=pa.array([False, True, False])
    )
    strict = pa.list_(pa.field("item", pa.float64(), nullable=False))
    assert conform(lists, optional(strict)) == ([[1, 2], None, [5, 6]], [])
    assert conform(lists.slice(1), optional(pa.list_(pa.float64()))) == ([None, [5, 6]], [])


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.uuid()])
def test_a_column_of_the_very_type_that_is_wanted_fits(kind):
    plain = (
        pa.array(["a", "b"]).dictionary_encode()
        if pt.is_dictionary(kind)
        else pa.ExtensionArray.from_storage(kind, pa.array([b"0" * 16], pa.binary(16)))
    )
    fit = Conform(pa.schema([required(kind)]))(pa.record_batch([plain], names=["x"]))
    assert fit.errors is None
    assert fit.records.column(0).equals(plain)


def test_an_extension_array_fits_by_what_it_stores():
    array = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16)))
    assert conform(array, optional(pa.binary())) == ([b"0" * 16, None], [])


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (pa.string(), pa.float64()),
        (pa.float64(), pa.string()),
        (pa.bool_(), pa.int64()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us")),
        (pa.list_(pa.string()), pa.list_(pa.float64(), 2)),
        (pa.date32(), pa.timestamp("us")),
    ],
)
def test_a_column_that_would_have_to_be_guessed_is_refused(found, wanted):
    with pytest.raises(SchemaError) as caught:
        Conform(pa.schema([required(wanted)])).bind(pa.schema([("x", found)]))
    error = caught.value
    assert (error.field, error.found) == ("x", found)
    assert str(error) == (
        f"field 'x': wanted {wanted} (a value in every record), found {found}; "
        "convert the column in the source, or wrap the source in Mapped"
    )


def test_times_in_other_units_and_zones_are_the_same_moment():
    moment = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    array = pa.array([moment], pa.timestamp("s", "Europe/Rome"))
    assert conform(array, required(pa.timestamp("us", "UTC"))) == ([moment], [])
    odd = pa.array([1_500], pa.timestamp("ms"))
    assert conform(odd, required(pa.timestamp("s"))) == ([], [(0, "wrong_type")])


@pytest.mark.parametrize(
    "text", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_a_moment_may_come_as_iso_8601_text(text):
    array = pa.array(["2024-05-01T12:00:00Z", "soon", None, "2024-05-01", "2024-05-01T14:00:00.5+02:00"])
    array = array.dictionary_encode().cast(text) if pt.is_dictionary(text) else array.cast(text)
    noon = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    found = [noon, None, noon + dt.timedelta(seconds=0.5)]
    assert conform(array, optional(pa.timestamp("us", "UTC"))) == (
        found,
        [(1, "wrong_type"), (3, "wrong_type")],
    )


def test_texts_of_days_and_hours_too():
    array = pa.array(["2024-02-29", "2023-02-29"])
    assert conform(array, required(pa.date32())) == ([dt.date(2024, 2, 29)], [(1, "wrong_type")])
    array = pa.array(["12:30:15.123456", "24:30"])
    assert conform(array, required(pa.time64("us"))) == ([dt.time(12, 30, 15, 123456)], [(1, "wrong_type")])
    array = pa.array(["2024-02-29 12:00:00", "2024-02-29T12:00:00+01:00"])
    assert conform(array, required(pa.timestamp("s"))) == (
        [dt.datetime(2024, 2, 29, 12)],  # noqa: DTZ001
        [(1, "wrong_type")],
    )


def test_columns_are_found_by_name_wherever_they_are():
    wanted = pa.schema([("a", pa.float64()), ("b", pa.int64())])
    batch = pa.record_batch({"extra": ["?"], "b": [2], "a": [1.0]})
    assert Conform(wanted)(batch).records.to_pylist() == [{"a": 1.0, "b": 2}]
    renamed = pa.record_batch({"B": [2], "a": [1.0]})
    assert Conform(wanted, {"b": "B"})(renamed).records.to_pylist() == [{"a": 1.0, "b": 2}]


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(SchemaError) as caught:
        Conform(pa.schema([required(pa.int64())])).bind(pa.schema([("y", pa.int64()), ("z", pa.int64())]))
    assert str(caught.value) == (
        "field 'x': wanted int64 (a value in every record), found no such column; "
        "columns there are: y, z; rename with columns={'x': ...}"
    )
    with pytest.raises(SchemaError, match="2 columns of that name"):
        Conform(pa.schema([required(pa.int64())])).bind(pa.schema([("x", pa.int64()), ("x", pa.int64())]))


def test_a_table_for_a_matrix_and_a_matrix_for_a_table_are_told_apart():
    matrix = pa.schema([required(pa.list_(pa.float64(), 2))])
    table = pa.schema([("a", pa.float64()), ("b", pa.float64())])
    with pytest.raises(
        SchemaError, match=r"the model takes a matrix, so give one of 2 columns, such as frame.to_numpy"
    ):
        Conform(matrix).bind(table)
    with pytest.raises(SchemaError, match="these records are a matrix: give a data frame"):
        Conform(table).bind(matrix)


def test_a_later_batch_with_other_columns_is_looked_at_anew():
    conformer = Conform(pa.schema([required(pa.float64())]))
    assert conformer(pa.record_batch({"x": [1]})).records.to_pylist() == [{"x": 1.0}]
    assert conformer(pa.record_batch({"y": [0], "x": [2.0]})).records.to_pylist() == [{"x": 2.0}]
    with pytest.raises(SchemaError):
        conformer(pa.record_batch({"x": ["text"]}))


def test_no_rows_and_no_columns_are_fine():
    empty = pa.record_batch({"x": pa.array([], pa.int64())})
    assert Conform(pa.schema([required(pa.float64())]))(empty).records.num_rows == 0
    for kind in (pa.list_(pa.float64(), 2), pa.string()):
        assert conform(pa.array([], kind), required(kind)) == ([], [])
    assert Conform(pa.schema([]))(pa.record_batch({"x": [1, 2, 3]})).records.num_rows == 3


def test_the_first_reason_found_is_the_one_that_is_told():
    wanted = pa.schema([required(pa.float64()), pa.field("y", pa.int8(), nullable=False)])
    fit = Conform(wanted)(pa.record_batch({"x": [None, 1.0, 1.0], "y": [1000, 1000, 1]}))
    assert fit.errors.kinds == ["missing_value", "wrong_type"]
    assert fit.errors.messages == [
        "field 'x': wanted a value (double), found none",
        "field 'y': wanted int8, found a value of int64 that does not fit",
    ]


# --- invariants ------------------------------------------------------------------------------------------------------

NUMBERS = st.none() | st.floats() | st.integers(-(2**53), 2**53).map(float)
WANTED = st.sampled_from(
    [
        required(pa.float64()),
        required(pa.float32()),
        finite(required(pa.float64())),
        finite(optional(pa.float32())),
        required(pa.int64()),
        optional(pa.int16()),
        required(pa.uint64()),
        required(pa.decimal128(6, 2)),
        optional(pa.decimal128(38, 30)),
    ]
)


@given(st.lists(NUMBERS, max_size=12), WANTED, st.data())
def test_a_batch_conforms_like_its_halves(values, field, data):
    whole = pa.record_batch([pa.array(values, pa.float64())], names=["x"])
    cut = data.draw(st.integers(0, len(values)))
    conformer = Conform(pa.schema([field]))
    fit, front, back = (conformer(part) for part in (whole, whole.slice(0, cut), whole.slice(cut)))
    assert str(fit.records.to_pylist()) == str(front.records.to_pylist() + back.records.to_pylist())

    def named(found, offset=0):
        errors = found.errors
        if errors is None:
            return []
        return [(row + offset, k, m) for row, k, m in zip(errors.rows, errors.kinds, errors.messages, strict=True)]  # fmt: skip

    assert named(fit) == named(front) + named(back, cut)
    assert fit.records.num_rows + len(named(fit)) == len(values)


@given(st.lists(st.none() | st.lists(NUMBERS, max_size=3), max_size=8), st.integers(0, 8))
def test_lists_conform_alike_with_and_without_an_offset(values, start):
    array = pa.array(values, pa.list_(pa.float64()))
    start = min(start, len(array))
    fresh = pa.array(values[start:], pa.list_(pa.float64()))
    for kind in (pa.list_(pa.field("item", pa.float32(), nullable=False), 2), pa.large_list(pa.int16())):
        assert str(conform(array.slice(start), optional(kind))) == str(conform(fresh, optional(kind)))


def _sample(kind):
    """Three values of a type, one of them null."""
    if pt.is_null(kind):
        return pa.nulls(3)
    if pt.is_float16(kind):
        return pa.array(np.array([1.5, 2, -3e4], np.float16))
    for test, values in (
        (pt.is_decimal, [decimal.Decimal("1.25"), None, decimal.Decimal("-3.00")]),
        (pt.is_integer, [1, None, 100]),
        (pt.is_floating, [1.5, None, -3e4]),
        (pt.is_date, [dt.date(2024, 1, 1), None, dt.date(1, 1, 1)]),
        (pt.is_time, [dt.time(1, 2, 3), None, dt.time(23, 2, 4)]),
        (pt.is_timestamp, [dt.datetime(2024, 1, 1), None, dt.datetime(1900, 1, 1)]),  # noqa: DTZ001
        (pt.is_duration, [dt.timedelta(seconds=5), None, dt.timedelta(days=1)]),
        (pt.is_boolean, [True, None, False]),
        (lambda kind: pt.is_nested(kind) and kind.value_type == pa.string(), [["a", "b"], None, ["c", "d"]]),
        (pt.is_nested, [[1, 2], None, [3, 4]]),
        (lambda kind: "binary" in str(kind), [b"abc", None, b"xyz"]),
    ):
        if test(kind):
            return pa.array(values, kind)
    return pa.array(["abc", None, ""], kind)


KINDS = [
    *(pa.int8(), pa.int64(), pa.uint16(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_()),
    *(
        pa.decimal128(10, 2),
        pa.decimal256(40, 3),
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.null(),
    ),
    *(
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.binary(3),
        pa.date32(),
        pa.date64(),
        pa.time32("s"),
    ),
    *(pa.time64("ns"), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.duration("s")),
    *(
        pa.timestamp("ms", "Europe/Rome"),
        pa.duration("ns"),
        pa.list_(pa.int64()),
        pa.large_list(pa.float32()),
    ),
    *(pa.list_(pa.float64(), 2), pa.list_(pa.string())),
]


def test_every_pair_of_compatible_types_can_be_cast_at_any_offset():
    pairs = [pair for pair in itertools.product(KINDS, KINDS) if compatible(*pair)]
    assert len(pairs) > 150
    for found, wanted in pairs:
        array = _sample(found)
        result, bad = cast(array, wanted)
        result.validate(full=True)
        assert result.type == wanted
        part, bad_part = cast(array.slice(1), wanted)
        assert str(part.to_pylist()) == str(result.to_pylist()[1:]), (found, wanted)
        assert (bad is not None and bad[1:].any()) == (bad_part is not None and bad_part.any())


@pytest.mark.parametrize("layout", [pa.list_, pa.large_list])
def test_lists_of_nothing_but_nulls_keep_their_lengths(layout):
    wanted = pa.field("x", layout(pa.float64()))
    made, bad = conform(pa.array([[None, None], None, [], [None]]), wanted)
    assert (made, bad) == ([[None, None], None, [], [None]], [])


def test_texts_bytes_and_lists_are_told_in_the_layouts_that_the_pages_name():
    """Views of lists and dictionaries are somebody else's question."""
    texts = [pa.string(), pa.large_string(), pa.string_view()]
    octets = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2)]
    lists = [pa.list_(pa.int8()), pa.large_list(pa.int8()), pa.list_(pa.int8(), 2)]
    others = [
        pa.list_view(pa.int8()),
        pa.large_list_view(pa.int8()),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int8(), pa.binary()),
        pa.int8(),
    ]
    for told, meant in [(is_text, texts), (is_bytes, octets), (is_list, lists)]:
        assert [kind for kind in texts + octets + lists + others if told(kind)] == meant
