"""Stored progress is read back as it was, or refused with advice: never silently as something else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlinfer import ChangedError, Progress, durable

PROGRESS = Progress({"a/b#1": [3, {"k": None}], "ü": 7.5}, {"a/b#1": bytes(range(8))}, "f" * 8, 12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), st.binary()), st.text(), st.integers(0))
def test_progress_is_read_back_as_it_was(positions, states, fingerprint, epoch):
    progress = Progress(positions, states, fingerprint, epoch)
    assert Progress.from_json(progress.to_json(), "here") == progress


def test_every_changed_byte_is_noticed_or_harmless():
    text = PROGRESS.to_json().encode()
    noticed = 0
    for place in range(len(text)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            damaged = bytearray(text)
            damaged[place] ^= change
            noticed += _refused_or_equal(bytes(damaged))
    assert noticed > 0.95 * 9 * len(text)


def test_every_truncation_is_noticed():
    text = PROGRESS.to_json().encode()
    assert all(_refused_or_equal(text[:length]) for length in range(len(text)))


def _refused_or_equal(text):
    try:
        found = Progress.from_json(text, "here")
    except ChangedError:
        return True
    assert found == PROGRESS
    return False


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '"progress"', '{"progress": 1, "sha256": ""}', b"\xff\xfe"]
)
def test_something_else_is_refused_with_advice(text):
    with pytest.raises(ChangedError) as caught:
        Progress.from_json(text, "scores.db")
    assert str(caught.value) == (
        "scores.db: wanted progress that mlinfer wrote, found something damaged; restore it from a backup, "
        "or drop it with `mlinfer state reset NAME` and start over"
    )


def test_a_newer_format_is_refused_by_name():
    body = json.loads(PROGRESS.to_json())["progress"] | {"format": 2, "news": True}
    with pytest.raises(ChangedError) as caught:
        Progress.from_json(durable.Envelope("progress", 2, "").seal(body), "here")
    assert str(caught.value) == (
        "here: wanted progress of format 1 or older, found format 2: a newer mlinfer wrote it; "
        "upgrade mlinfer: pip install --upgrade mlinfer"
    )


def test_newer_progress_brings_older_up_to_date():
    newer = Progress({"b": 2}, {"b": b"2"}, "new", 3)
    merged = Progress({"a": 1, "b": 1}, {"a": b"1"}, "old", 2).merged(newer)
    assert merged == Progress({"a": 1, "b": 2}, {"a": b"1", "b": b"2"}, "new", 3)
