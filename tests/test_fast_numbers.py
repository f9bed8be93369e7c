"""Numbers read by mlinfer-fast are those that Python reads, to the last bit; what is no number is left to others."""

import json
import math
import struct
from itertools import product

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from mlinfer import RecordErrors, Signature
from mlinfer._layout import lay_out
from mlinfer._online import _numbers
from mlinfer._online._head import Head
from mlinfer._online._oip_infer import Infer
from mlinfer._online._oip_tensors import Tensors
from mlinfer._online._wire import Refused

pytestmark = pytest.mark.usefixtures("numbers")
DIGITS = some.text("0123456789", min_size=1, max_size=25)
SPELLED = some.builds(
    lambda sign, whole, part, power: f"{sign}{int(whole)}.{part}{power}",
    some.sampled_from(["", "-"]),
    some.text("0123456789", min_size=1, max_size=17),
    DIGITS,
    some.just("") | some.integers(-340, 330).map(lambda power: f"e{power}") | some.integers(-30, 30).map(lambda p: f"E+{p}" if p >= 0 else f"E{p}"),
)  # fmt: skip
HALFWAY = some.integers(2**52, 2**53 - 1).map(lambda half: f"{2 * half + 1}.0")
FLOATS = some.floats(allow_nan=False, allow_infinity=False).map(repr)


@pytest.fixture(scope="module")
def numbers(library):
    """mlinfer-fast reads numbers."""
    _numbers._library.cache_clear()
    yield library
    _numbers._library.cache_clear()


@given(SPELLED | HALFWAY | FLOATS)
@example("9007199254740993.0")  # between two doubles
@example("2.2250738585072011e-308")
@example("0.500000000000000166533453693773481063544750213623046875")
@example("1e400")
def test_a_number_is_read_as_python_reads_it(text):
    found = _numbers.lift(f'{{"x": [{text}]}}'.encode(), b"x")
    value = float(text)
    if not math.isfinite(value):
        assert found is None
        return
    assert found is not None
    assert found.text == b'{"x": []}'
    assert found.numbers.tobytes() == struct.pack("d", value)


def test_digits_are_read_to_the_last_one_however_many_there_are_and_whatever_follows():
    for zeros, digits in product(range(12), range(1, 27)):
        for behind in ("", "e3", "E-07", " ", ",2", "/", ":", "é", "\xff"):
            part = "0" * zeros + "9182736450192837465564738291"[:digits]
            for number in (f"0.{part}", f"-3.{part}", f"1234567.{part}"):
                text = f'{{"x":[{number}{behind}]}}'.encode()
                found = _numbers.lift(text, b"x")
                if behind in ("/", ":", "é", "\xff"):
                    assert found is None
                else:
                    assert found is not None, text
                    assert found.numbers.tolist() == json.loads(text)["x"], text


@given(some.integers(-(2**70), 2**70))
def test_whole_numbers_are_read_while_a_double_is_exact(number):
    found = _numbers.lift(f'{{"x":[{number}]}}'.encode(), b"x")
    assert (found is not None) == (abs(number) < 2**53)
    if found is not None:
        assert found.numbers.tolist() == [number]


@pytest.mark.parametrize("places", range(21))
@pytest.mark.parametrize("multiple", [1, 2, 3, 5, 10])
def test_digits_of_which_64_bits_leave_nothing_are_not_zero(multiple, places):
    whole, part = divmod(multiple * 2**64, 10**places)
    number = f"{whole}.{part:0{places}}" if places else str(whole)
    found = _numbers.lift(f'{{"x":[{number},-{number}]}}'.encode(), b"x")
    if len(str(whole)) > 19:  # left to others
        assert found is None
    else:
        assert found.numbers.tolist() == [float(number), -float(number)]


@pytest.mark.parametrize(
    "odd", ["01", "+1", "1.", ".5", "-", "1e", "1e+", "0x1", "NaN", "Infinity", "true", "null", '"1"', "[1]", "1 2", "1,", ",1", "1\x00", "--1", "1_0"]
)  # fmt: skip
def test_what_is_no_number_is_left_to_others(odd):
    assert _numbers.lift(f'{{"x":[1,{odd}]}}'.encode(), b"x") is None


@given(some.binary(max_size=40) | some.text('{}[]",:x\\ 10.e-', max_size=40).map(str.encode))
def test_any_bytes_leave_what_is_not_a_list_of_numbers_as_it_was(text):
    found = _numbers.lift(text, b"x")
    if found is not None and not found.lists:
        assert found.text == text


@given(
    some.recursive(
        some.none() | some.booleans() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
        lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(["x", "y", 'x"', "\\x", "é"]), inner, max_size=3),
    ),
    some.sampled_from([None, 1]),
)  # fmt: skip
def test_only_lists_under_the_key_are_taken_out_wherever_it_stands(value, indent):
    taken = []

    def without(inner):
        if isinstance(inner, dict):
            return {key: emptied(key, one) for key, one in inner.items()}
        return [without(one) for one in inner] if isinstance(inner, list) else inner

    def emptied(key, one):
        if key != "x" or not isinstance(one, list):
            return without(one)
        taken.append(one)
        return []

    left = without(value)
    found = _numbers.lift(json.dumps(value, indent=indent, ensure_ascii=False).encode(), b"x")
    if any(type(number) is not float for one in taken for number in one):
        assert found is None
        return
    assert json.loads(found.text) == left
    assert found.numbers.tolist() == [number for one in taken for number in one]
    assert found.lists == len(taken)
    lengths = {len(one) for one in taken}
    assert found.length == (lengths.pop() if len(lengths) == 1 else 0 if not taken else -1)


class Desk:
    """Remembers what was put on it."""

    def put(self, ask, within=None):
        self.ask = ask


class Order:
    """What a connection would have made."""

    ask = within = None
    head = Head("POST", "/", True, {})


MATRIX = pa.list_(pa.field("item", pa.float64(), nullable=False), 2)
LAYOUT = lay_out(
    Signature(pa.schema([pa.field("x", MATRIX, nullable=False)]), pa.schema([pa.field("y", pa.float64())])),
    None,
)


def asked(*texts):
    """What the last of these requests of the protocol becomes, asked of one model after the others: all of it, or why not."""
    desk = Desk()
    infer = Infer(desk, Tensors(LAYOUT, "model"))
    for text in texts:
        found = _asked(infer, desk, text)
    return found


def _asked(infer, desk, text):
    try:
        infer(Order(), text)
    except Refused as refused:
        return refused.data
    except RecordErrors as error:
        return str(error)
    said = desk.ask.content.asked
    return (
        desk.ask.form.batch([desk.ask]).records.to_pydict(),
        desk.ask.rows,
        said.id,
        said.outputs,
        said.binary,
    )


@given(
    some.lists(some.floats(allow_nan=False, allow_infinity=False) | some.integers(-9, 9) | some.none(), max_size=6),
    some.sampled_from(["FP64", "FP32", "INT64", "BYTES", "X"]),
    some.sampled_from([{}, {"id": '"data":[1]'}, {"parameters": {"data": [1, 2]}}, {"parameters": {"k": ":"}}]),
)  # fmt: skip
def test_a_request_is_read_alike_with_and_without_it(data, datatype, more):
    shape = [len(data) // 2, 2]
    text = json.dumps(
        {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}], **more}
    ).encode()
    found = asked(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_numbers, "_library", lambda: None)
        assert asked(text) == found


REQUESTS = some.builds(
    lambda name, shape, data, more: json.dumps(
        {"inputs": [{"name": name, "shape": shape, "datatype": "FP64", "data": data}], **more}
    ).encode(),
    some.sampled_from(["x", "x", "z"]),
    some.sampled_from([[1, 2], [1, 2], [2, 2], [2]]),
    some.lists(some.floats(-9, 9), min_size=2, max_size=4) | some.just([[1.0, 2.0]]) | some.just([]),
    some.sampled_from(
        [{}, {}, {"id": "a"}, {"id": ""}, {"outputs": [{"name": "y"}]}, {"outputs": [{"name": "?"}]}]
    )
    | some.just({"parameters": {"binary_data_output": True}}),
)
USUAL = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [%s]}]}'


@given(some.lists(REQUESTS, min_size=1, max_size=4), REQUESTS)
@example([USUAL % b"1.5, 2.5"], USUAL % b"1.5, 2.5, 3.5")
@example([USUAL % b"1.5, 2.5"], USUAL % b"1.5, [2.5]")
@example([USUAL % b"1.5, 2.5"], USUAL % b"1.5, 2.5" + b" ")
def test_a_request_means_the_same_whatever_was_asked_before(before, text):
    assert asked(*before, text) == asked(text)
