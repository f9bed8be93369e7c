"""Lines to JSON objects, strictly.

What a line means is what `decode_line` says, written with the standard library. A block of lines is decoded at once
where that is sure to give the same: with orjson if it is installed, which is several times as fast.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import is_list

Row: TypeAlias = dict[str, Any]
DEEPEST = 32
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_COLON, _QUOTE, _SPACE, _NEWLINE, _BRACKET = 58, 34, 32, 10, 91
_POINT, _ZERO, _NINE, _APART = 46, 48, 9, 6
_LARGE = 19  # digits
_IN_NO_COLUMN = Decimal("1E-999999")
_MOST_DIGITS = 77  # those of Arrow's largest decimal, and a sign
_BRACE_TO_BRACKET = 0xDF  # { without one bit is [


class NotARecord(ValueError):  # noqa: N818 - an answer, not a failure
    """Why a line is not a record, in words that follow "line 17: "."""


def fastest() -> Callable[[bytes], Any]:
    """A decoder for blocks: orjson, or the standard library with the same results. Raises ValueError."""
    try:
        import orjson
    except ImportError:
        return _decode_block
    return orjson.loads


def decode(
    block: bytes, loads: Callable[[bytes], Any]
) -> tuple[list[Row], list[int] | None, list[tuple[int, str]]]:
    """The lines of a block, which has no newline at its end. Lines of blanks are passed over.

    Returns the objects, the places of their lines (None: every line is one), and what is wrong with which other lines.
    """
    rows = _all_at_once(block, loads)
    if rows is not None and not _suspicious(block, rows):
        return rows, None, []
    return _one_by_one(block.split(b"\n"), loads)


def decode_line(line: bytes) -> Row:
    """One line as a dict. Raises NotARecord."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        msg = f"wanted UTF-8, found the byte 0x{line[error.start]:02x} at byte {error.start + 1}"
        raise NotARecord(msg) from error
    try:
        value = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        msg = f"wanted a JSON object, found text that is not JSON at character {error.pos + 1}"
        raise NotARecord(msg) from error
    except RecursionError as error:
        raise NotARecord(_TOO_DEEP) from error
    if not isinstance(value, dict):
        msg = f"wanted a JSON object, found {_KINDS.get(type(value), 'a number')}"
        raise NotARecord(msg)
    if _too_deep(value):
        raise NotARecord(_TOO_DEEP)
    _refuse_half_characters(text, value)
    return {name: _narrowed(inner) if type(inner) in {list, dict} else inner for name, inner in value.items()}


def holds_decimals(kind: pa.DataType) -> bool:
    """Whether values of a type are decimals, or lists or objects with such."""
    return pt.is_decimal(kind) or any(
        holds_decimals(kind.field(number).type) for number in range(kind.num_fields)
    )


def restore_digits(rows: Iterable[Row], lines: Iterable[bytes], wanted: Mapping[str, pa.DataType]) -> None:
    """Give the floats that are to be decimals all the digits that they have in their lines: a float holds some 16."""
    rounded = [
        (row, line)
        for row, line in zip(rows, lines, strict=True)
        if any(type(row.get(name)) in {float, list, dict} for name in wanted)
    ]
    every = _EXACT.decode((b"[" + b",".join(line for _, line in rounded) + b"]").decode())
    for (row, _), exact in zip(rounded, every, strict=True):
        for name, kind in wanted.items():
            if name in row:
                row[name] = _restored(row[name], exact[name], kind)


def _restored(value: Any, exact: Any, kind: pa.DataType) -> Any:
    if type(value) is float:
        return Decimal(exact) if pt.is_decimal(kind) else value
    if type(value) is list and is_list(kind):
        each = zip(value, exact, strict=True)
        return [_restored(one, its, kind.value_type) for one, its in each]
    if type(value) is dict and pt.is_map(kind):
        return {key: _restored(one, exact[key], kind.item_type) for key, one in value.items()}
    if type(value) is dict and pt.is_struct(kind):
        types = {field.name: field.type for field in kind}
        return {
            name: _restored(one, exact[name], types[name]) if name in types else one
            for name, one in value.items()
        }
    return value


def _all_at_once(block: bytes, loads: Callable[[bytes], Any]) -> list[Row] | None:
    """Every line a dict, or None.

    Between two lines stands a number that nobody can foresee: no line can pretend to be two, no two can join to be one.
    """
    divider, dividers = secrets.randbits(62), block.count(b"\n")
    try:
        items = loads(b"[" + block.replace(b"\n", b",%d," % divider) + b"]")
    except ValueError:
        return None
    rows = items[::2]
    whole = len(items) == 2 * dividers + 1 and items[1::2].count(divider) == dividers
    return rows if whole and set(map(type, rows)) == {dict} else None


def _one_by_one(
    lines: list[bytes], loads: Callable[[bytes], Any]
) -> tuple[list[Row], list[int], list[tuple[int, str]]]:
    found: dict[int, Row] = {}
    wrong: list[tuple[int, str]] = []
    doubtful = []
    for place, line in enumerate(lines):
        try:
            row = loads(line)
        except ValueError:
            row = None
        if type(row) is dict:
            found[place] = row
        elif line.strip():
            doubtful.append(place)
    good = list(found)
    if good:
        doubtful += [good[n] for n in _suspicious(b"\n".join([lines[n] for n in good]), list(found.values()))]
    for place in sorted(doubtful):
        try:
            found[place] = decode_line(lines[place])
        except NotARecord as error:
            found.pop(place, None)
            wrong.append((place, str(error)))
    places = sorted(found)
    return [found[place] for place in places], places, wrong


def _suspicious(block: bytes, rows: list[Row]) -> list[int]:
    """The lines in which fast decoders may have missed something."""
    return sorted({*_oddly_keyed(block, rows), *_with_large_integers(block)})


def _with_large_integers(block: bytes) -> list[int]:
    """The lines with integers that may be beyond 64 bits, which fast decoders round to floats."""
    codes = np.frombuffer(block, np.uint8)
    some = _are_digits(codes[::_APART])
    if not (some[:-2] & some[1:-1] & some[2:]).any():  # three at least, of so many digits in a row
        return []
    others = np.flatnonzero(~_are_digits(codes))
    before = others[np.flatnonzero(np.diff(others) > _LARGE)]
    before = before[codes[before] != _POINT]  # a fraction is a float in any case
    if not len(before):
        return []
    lines: list[int] = np.unique(np.searchsorted(np.flatnonzero(codes == _NEWLINE), before)).tolist()
    return lines


def _are_digits(codes: np.ndarray) -> np.ndarray:
    return codes - np.uint8(_ZERO) <= _NINE


def _oddly_keyed(block: bytes, rows: list[Row]) -> list[int]:
    """The lines that may name a key twice or be nested too deep, which fast decoders do not tell.

    A key is followed by a colon, with nothing but blanks between them: count colons behind a quote or a blank.
    """
    codes = np.frombuffer(block, np.uint8)
    colons = codes == _COLON
    brackets = (codes & _BRACE_TO_BRACKET) == _BRACKET
    if np.count_nonzero(brackets) == len(rows) and np.count_nonzero(colons) == sum(map(len, rows)):
        return []
    places = np.flatnonzero(colons)
    before = codes[places - 1]
    places = places[(before == _QUOTE) | (before <= _SPACE)]
    ends = np.flatnonzero(codes == _NEWLINE)
    opened = np.bincount(np.searchsorted(ends, np.flatnonzero(brackets)), minlength=len(rows)).tolist()
    colons_by_line = np.bincount(np.searchsorted(ends, places), minlength=len(rows)).tolist()
    return [
        place
        for place, row in enumerate(rows)
        if opened[place] > DEEPEST
        or colons_by_line[place] != (len(row) if opened[place] == 1 else _keys(row))
    ]


def _keys(value: Any) -> int:
    if type(value) is dict:
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if type(value) is list else 0


def _too_deep(value: Any, levels: int = DEEPEST) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return not levels or any(_too_deep(item, levels - 1) for item in inner)


_TOO_DEEP = f"wanted at most {DEEPEST} levels of nesting, found more"
_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _refuse_half_characters(text: str, value: Any) -> None:
    r"""`\ud800` alone is half of a character: no text in UTF-8 can hold it."""
    if "\\u" not in text:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        msg = "wanted text, found half of a surrogate pair"
        raise NotARecord(msg) from error


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        msg = "wanted a number, found one that is too large"
        raise NotARecord(msg)
    return value


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # its exponent is beyond Python's own
        return _IN_NO_COLUMN


def _integer(text: str) -> int | float:
    """Integers up to 64 bits exactly, larger ones as floats."""
    value = int(text) if len(text) < 30 else _LARGEST + 1  # noqa: PLR2004 - long texts cost much, and are too large
    return value if _SMALLEST <= value <= _LARGEST else _number(text)


def _exact_integer(text: str) -> int | float:
    """Integers exactly, if a decimal can hold them."""
    return int(text) if len(text) <= _MOST_DIGITS else _number(text)


def _narrowed(value: Any) -> Any:
    """Inside of lists and objects large integers are floats, until a type asks for their digits (`restore_digits`)."""
    if type(value) is list:
        return list(map(_narrowed, value))
    if type(value) is dict:
        return {name: _narrowed(inner) for name, inner in value.items()}
    return float(value) if type(value) is int and not _SMALLEST <= value <= _LARGEST else value


def _constant(text: str) -> Any:
    msg = f"wanted a JSON value, found {text}"
    raise NotARecord(msg)


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        msg = "wanted every key once, found one twice"
        raise NotARecord(msg)
    return found


_FAST = json.JSONDecoder(parse_float=_number, parse_int=_integer, parse_constant=_constant)
_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_number, parse_int=_exact_integer, parse_constant=_constant
)
_EXACT = json.JSONDecoder(parse_float=_fraction, parse_int=_exact_integer)


def _decode_block(block: bytes) -> Any:
    """The standard library, refusing what orjson refuses."""
    text = block.decode()
    try:
        value = _FAST.decode(text)
    except RecursionError as error:
        raise NotARecord(_TOO_DEEP) from error
    _refuse_half_characters(text, value)
    return value
