"""The texts of a few records are those of many, and those of many are those of each."""

import json
import math

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from mlinfer import RecordIds, as_column
from mlinfer._json_few import FEW, json_rows, number_rows
from mlinfer._json_text import json_objects
from mlinfer._rejects import EPOCH, Rejected

FLOATS = some.floats() | some.floats(-1e11, 1e11) | some.floats(-1e-3, 1e-3) | some.integers(-9, 9).map(float)
RECORD = some.fixed_dictionaries(
    {
        "f": some.none() | FLOATS,
        'a "q" é': some.none() | some.text(),
        "i": some.none() | some.integers(-(2**63), 2**63 - 1),
        "b": some.none() | some.booleans(),
        "l": some.lists(FLOATS, min_size=2, max_size=2),
        "n": some.none() | some.lists(some.none() | some.text(), max_size=3),
        "s": some.none() | some.floats(width=32),
        "g": FLOATS,
        "d": some.none() | some.sampled_from(["", "a", 'a "q"', "\x00", "é"]),
        "p": some.none() | some.fixed_dictionaries({"f": FLOATS, "g": some.none() | FLOATS}),
    }
)
KINDS = {
    "f": pa.float64(), 'a "q" é': pa.string(), "i": pa.int64(), "b": pa.bool_(), "l": pa.list_(pa.float64(), 2),
    "n": pa.list_(pa.string()), "s": pa.float32(), "g": pa.float64(), "d": pa.dictionary(pa.int8(), pa.string()),
    "p": pa.struct({"f": pa.float64(), "g": pa.float64()}),
}  # fmt: skip


@given(some.lists(RECORD, max_size=FEW // len(KINDS)), some.integers(0, 3))
def test_a_few_records_are_spelled_as_many_are(rows, start):
    records = pa.RecordBatch.from_pylist(rows, pa.schema(list(KINDS.items()))).slice(start)
    assert json_rows(records) == json_objects(records).to_pylist()


ARRAYS = some.sampled_from(["i1", "i8", "u8", "f4", "f8", "?"]).flatmap(
    lambda dtype: arrays(
        dtype, some.tuples(some.integers(1, 4)) | some.tuples(some.integers(1, 4), some.just(2))
    )
)


@given(ARRAYS)
def test_numbers_in_numpy_are_spelled_as_they_are_in_arrow(values):
    column = as_column(values, pa.field("n", pa.null()))
    found = number_rows({"n": values, "t": pa.array(["é"] * len(values))}, len(values))
    if found is None:
        assert values.dtype.kind == "f"
    else:
        records = pa.record_batch({"n": column, "t": ["é"] * len(values)})
        assert found == json_objects(records).to_pylist()


def test_many_numbers_are_left_to_arrow():
    assert number_rows({"n": np.arange(FEW)}, FEW) is not None
    assert number_rows({"n": np.arange(FEW + 1)}, FEW + 1) is None


@given(some.lists(RECORD, max_size=12), some.integers(0, 3))
def test_the_text_of_a_record_is_the_same_whatever_stands_around_it(rows, start):
    records = pa.RecordBatch.from_pylist(rows, pa.schema(list(KINDS.items()))).slice(start)
    alone = [json_objects(records.slice(row, 1)).to_pylist()[0] for row in range(len(records))]
    assert json_objects(records).to_pylist() == alone
    ids, nothing = RecordIds.ordinals("p", 0, len(records)), [""] * len(records)
    kinds = ["missing_value" if row % 2 else "wrong_type" for row in range(len(records))]
    envelopes = Rejected("p", "conform", ids, kinds, nothing, records).envelopes("m", "r", EPOCH)
    assert envelopes["kind"].to_pylist() == kinds
    assert [_exact(json.loads(text)) for text in envelopes["record"].to_pylist()] == [
        _exact(_told(row)) for row in rows[start:]
    ]


def _told(value):
    """What a reader of the JSON finds of a value."""
    if isinstance(value, dict):
        return {name: _told(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_told(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _exact(value):
    """With the sign of zero, and integers apart from floats; float32 comes back from its own shortest form."""
    if isinstance(value, dict):
        return {
            name: repr(np.float32(one)) if name == "s" and isinstance(one, float) else _exact(one)
            for name, one in value.items()
        }
    return repr(value)
