"""The texts of a few records are those of many."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as some

from mlinfer._json_few import FEW, json_rows
from mlinfer._json_text import json_objects

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
    }
)
KINDS = {
    "f": pa.float64(), 'a "q" é': pa.string(), "i": pa.int64(), "b": pa.bool_(), "l": pa.list_(pa.float64(), 2),
    "n": pa.list_(pa.string()), "s": pa.float32(),
}  # fmt: skip


@given(some.lists(RECORD, max_size=FEW // len(KINDS)), some.integers(0, 3))
def test_a_few_records_are_spelled_as_many_are(rows, start):
    records = pa.RecordBatch.from_pylist(rows, pa.schema(list(KINDS.items()))).slice(start)
    assert json_rows(records) == json_objects(records).to_pylist()
