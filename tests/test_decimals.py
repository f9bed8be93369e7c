"""Decimals are exactly what was said, or nothing: Arrow loses digits that its widths have no room for."""

import random
from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pytest

from mlinfer._casts import cast
from mlinfer._decimals import PIECE

WANTED = [
    pa.decimal128(10, 2),
    pa.decimal128(4, -2),
    pa.decimal128(38, 0),
    pa.decimal128(38, 10),
    pa.decimal128(38, 37),
    pa.decimal256(76, 10),
    pa.decimal256(76, 60),
]
NARROW = [pa.decimal32(9, 2), pa.decimal64(18, 15)] if hasattr(pa, "decimal32") else []


def fits(number, kind):
    with localcontext() as exact:
        exact.prec = 1000
        scaled = number.scaleb(kind.scale)
        return scaled == scaled.to_integral_value() and abs(scaled) < 10**kind.precision


def spelt(number):
    """A float as a decimal: a whole number that a double holds is just that."""
    wide = float(number)
    return Decimal(int(wide)) if wide.is_integer() and abs(wide) < 2**53 else Decimal(str(number))


def expect(array, numbers, kind):
    found, unfit = cast(array, kind)
    right = [number if number is not None and fits(number, kind) else None for number in numbers]
    assert (found.to_pylist(), found.type) == (right, kind)
    lost = [one is None and number is not None for one, number in zip(right, numbers, strict=True)]
    assert (np.zeros(len(array), bool) if unfit is None else unfit).tolist() == lost


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array(["3.4e+38"]), pa.decimal128(38, 10)),
        (pa.array(["25000806360837783533740681241586834497"]), pa.decimal128(38, 10)),
        (pa.array(["7.5e-55", "0.1"]), pa.decimal128(10, 2)),
        (pa.array(["1e400"]), pa.decimal128(38, 0)),
        (pa.array(["0." + "0" * 300 + "1"]), pa.decimal256(76, 60)),
        (pa.array([3.4e38, 1e23, 5e-324]), pa.decimal128(38, 10)),
        (pa.array([Decimal(72_516_505_139)], pa.decimal128(20, 0)), pa.decimal128(38, 30)),
        (pa.array([2**63 - 1, 72_516_505_139]), pa.decimal128(38, 30)),
        (pa.array([2**64 - 1], pa.uint64()), pa.decimal128(38, 37)),
        (pa.array([Decimal("0E+30"), None], pa.decimal128(3, -30)), pa.decimal128(4, -2)),
    ],
)
def test_a_number_that_a_decimal_has_no_room_for_is_no_other_number(array, kind):
    numbers = [None if one is None else Decimal(str(one)) for one in array.to_pylist()]
    expect(array, numbers, kind)


def test_a_whole_number_is_that_number_however_narrow_its_float():
    """The shortest decimals that are read as these floats end in a zero."""
    for narrow, number in ((np.float32, 123_456_792), (np.float16, 65_504)):
        found, unfit = cast(pa.array(np.array([number, -number, 0.5, np.nan], narrow)), pa.decimal128(20, 1))
        assert found.to_pylist() == [number, -number, Decimal("0.5"), None]
        assert unfit is None


@pytest.mark.parametrize("kind", WANTED + NARROW, ids=str)
def test_whatever_is_read_as_a_decimal_is_exact_or_nothing(kind):
    dice = random.Random(str(kind))

    def digits(most):
        return "".join(dice.choice("0123456789") for _ in range(dice.randint(1, most)))

    for _ in range(100):
        plain, point = digits(45), digits(20)
        texts = [f"-{plain}", f"{plain}.{point}", f"{point}e{dice.randint(-60, 60)}", f"+.{point}E2", None]
        expect(pa.array(texts), [one and Decimal(one) for one in texts], kind)
        integers = [dice.choice([-1, 1]) * dice.randrange(2 ** dice.randint(1, 63)) for _ in range(2)]
        expect(pa.array(integers), list(map(Decimal, integers)), kind)
        floats = np.array([dice.random() * 10 ** dice.randint(-30, 40), dice.randrange(10**6) / 100])
        for size in (floats, floats.clip(0, 1e38).astype(np.float32), floats.clip(0, 6e4).astype(np.float16)):
            expect(pa.array(size), [spelt(one) for one in size], kind)
        for other in {*WANTED, *NARROW} - {kind}:
            number = Decimal(int(digits(min(other.precision, 27)))).scaleb(-other.scale)
            expect(pa.array([number, None], other), [number, None], kind)


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "e5", "1e", "1_0", " 1", "1\n", "\uff11", "nan", "inf", "0x1", "1e99999999999999999999"],
)
def test_what_is_no_number_is_no_decimal(text):
    found, unfit = cast(pa.array([text, "2"]), pa.decimal128(20, 5))
    assert (found.to_pylist(), unfit.tolist()) == ([None, Decimal(2)], [True, False])


def test_of_many_those_that_do_not_fit_are_found():
    values = np.arange(3 * PIECE) / 4
    values[[5, PIECE, -1]] = 1e-9, 1e300, np.inf
    found, unfit = cast(pa.array(values), pa.decimal128(10, 2))
    assert np.flatnonzero(unfit).tolist() == [5, PIECE, 3 * PIECE - 1]
    assert [float(one) for one in found.to_pylist() if one is not None] == values[~unfit].tolist()
