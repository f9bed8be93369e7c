"""A request that is read the quick way gets what the thorough way would have given it."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some

from mlinfer import InferencePipeline
from mlinfer._conform import Conform
from mlinfer._online import _numbers
from mlinfer._online._numbers import lift
from mlinfer._online._predict import Predict, rows_of
from mlinfer._online._wire import Refused
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

WANTED = pa.schema(
    [pa.field("a", pa.float64(), nullable=False), pa.field("b", pa.int64()), pa.field("çé q", pa.string()),
     pa.field("d", pa.bool_()), pa.field("v", pa.list_(pa.float64(), 2))]
)  # fmt: skip
NUMBERS = some.floats(allow_nan=False, allow_infinity=False) | some.integers(-(2**60), 2**60)
VALUES = (
    some.none()
    | some.booleans()
    | some.integers(-(2**70), 2**70)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text()
    | some.just([1])
    | some.lists(NUMBERS | some.none() | some.text(), min_size=1, max_size=3)
)
RECORDS = some.fixed_dictionaries(
    {"a": NUMBERS, "b": some.integers(-(2**63), 2**63 - 1),
     "çé q": some.text(), "d": some.booleans(), "v": some.lists(NUMBERS, min_size=2, max_size=2)}
)  # fmt: skip
ODD = some.dictionaries(some.sampled_from([*WANTED.names, "other"]), VALUES)


@pytest.fixture(scope="module", autouse=True, params=["msgspec", "mlinfer-fast"])
def reader(request):
    """Who reads numbers: everything here holds with mlinfer-fast and without it."""
    _numbers._library.cache_clear()
    if request.param == "mlinfer-fast":
        assert request.getfixturevalue("library").lift is _numbers._library()
    yield request.param
    _numbers._library.cache_clear()


class Desk:
    """Remembers what was put on it."""

    def put(self, ask, within=None):
        self.ask = ask


class Order:
    """What a connection would have made."""

    ask = within = None


def conformed(batch):
    """What the model would see, and which records it would not."""
    fit = Conform(WANTED)(batch.records)
    return fit.records.to_pydict(), fit.errors and (fit.errors.rows, fit.errors.kinds)


def read(body):
    """What the records of a body become: columns, as the model's step gets them, or a refusal."""
    desk = Desk()
    try:
        Predict(desk, WANTED)(Order(), body)
        batch = desk.ask.form.batch([desk.ask])
    except Refused as refused:
        return refused.data
    return conformed(batch), [one.id for one in batch.bad], desk.ask.content.single


def read_thoroughly(body):
    predict = Predict(Desk(), WANTED)
    predict._quick._typed = None
    desk = predict._desk
    try:
        predict(Order(), body)
        batch = desk.ask.form.batch([desk.ask])
    except Refused as refused:
        return refused.data
    return conformed(batch), [one.id for one in batch.bad], rows_of(body)[1]


@given(some.lists(RECORDS | ODD, max_size=4) | RECORDS | ODD, some.booleans())
def test_both_ways_of_reading_give_the_same(value, spaced):
    body = json.dumps(value, ensure_ascii=spaced, indent=1 if spaced else None).encode(
        "utf-8", "surrogatepass"
    )
    assert read(body) == read_thoroughly(body)


@given(
    some.lists(RECORDS, min_size=1, max_size=4), some.integers(0, 200), some.binary(min_size=1, max_size=2)
)
def test_a_broken_body_is_refused_alike(records, place, put):
    body = json.dumps(records).encode()
    body = body[: place % len(body)] + put + body[place % len(body) + 1 :]
    assert read(body) == read_thoroughly(body)


def test_the_quick_way_is_taken_and_a_key_twice_is_not_overlooked(reader):
    desk = Desk()
    lists = lift(b'{"v": [1, 2.5]}', b"v")
    assert (lists is not None) == (reader == "mlinfer-fast")
    quick = json.dumps([{"a": 1, "b": 2, "çé q": "x", "d": True, "v": [1, 2.5]}] * 3).encode()
    Predict(desk, WANTED)(Order(), quick)
    assert type(desk.ask.form).__name__ == "Columns"
    assert b"twice" in read(quick.replace(b'"a": 1', b'"a": 1, "a": 2', 1))


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**30])
def test_an_integer_too_large_for_its_column_is_a_bad_record_and_no_failure(number):
    body = json.dumps({"a": 1.0, "b": number, "çé q": "x", "d": True, "v": [1, 2.5]}).encode()
    assert read(body) == read_thoroughly(body)


@pytest.mark.parametrize("vector", [[1.5, True], [False, 1.5], [1, False]])
def test_true_and_false_in_a_list_are_no_numbers(vector):
    good = {"a": 1.0, "b": 1, "çé q": "x", "d": True, "v": [1, 2.5]}
    (_, errors), misfits, _ = read(json.dumps([good, {**good, "v": vector}]).encode())
    assert misfits == ["#1"] or errors == ([1], ["wrong_type"])


def test_a_server_answers_both_ways_alike():
    host = FunctionHost(
        lambda a, b: a + b,
        {"a": pa.float64(), "b": pa.int64()},
        {"y": pa.float64()},
        takes="numpy",
        version="1",
    )
    import httpx

    made = InferencePipeline(MemorySource({"a": [0.0], "b": [0]}), host, MemoryDestination())
    with made.serving() as server, httpx.Client(base_url=server.url) as client:
        for n in range(30):  # first on the desk's thread, then on the loop
            assert client.post("/predict", json={"a": n / 2, "b": n}).json() == {"y": n * 1.5}
            assert client.post("/predict", json={"a": n / 2, "b": n, "more": ":"}).json() == {"y": n * 1.5}
