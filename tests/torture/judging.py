"""What a server owes to a stream of bytes, judged without it: by the grammars of HTTP and JSON, and by the columns of the model.

The model takes `who`, `x`, `n`, `ok` and `v`, and gives back what it saw: `whose`, `y` (twice `x`), `same`, `right`, `first`.
"""

import json
import math
import re
import struct
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

MOST_BYTES = 16 * 2**20
DEEPEST = 32
MOST_ROWS = 65_536
PREDICT, INFER = "/predict", {"/v2/models/duck/infer", "/v2/models/duck/versions/1/infer"}
ANSWERS = ("whose", "y", "same", "right", "first")
WIDTH = 3  # of v
SIZES = {"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
         "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d", "BOOL": "B"}  # fmt: skip
OWN = {"who": "BYTES", "x": "FP64", "n": "INT64", "ok": "BOOL", "v": "FP64"}
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Bad(Exception):  # noqa: N818 - a judgement
    """It must be refused."""


@dataclass
class Owed:
    """What the answer to one request must be: these records, a refusal (None), or, if not `sure`, either."""

    answers: Any = None
    sure: bool = True
    bodiless: bool = False


REFUSAL = Owed()
ANYTHING = Owed(..., sure=False)


# --- records ------------------------------------------------------------------------------------------------------------


def strictly(body):
    """The value of a JSON text. Raises Bad."""
    try:
        value = json.loads(body.decode(), parse_constant=_bad, parse_float=_finite, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Bad from error
    if _deep(value) > DEEPEST:
        raise Bad
    return value


def records(rows):
    """The answers to rows. Raises Bad: one of them is no record."""
    if not 0 < len(rows) <= MOST_ROWS:
        raise Bad
    return [_record(row) for row in rows]


def _record(row):
    if type(row) is not dict or not all(name in row for name in OWN):
        raise Bad
    who, x, n, ok, v = (row[name] for name in OWN)
    if type(who) is not str or type(ok) is not bool or type(v) is not list or len(v) != WIDTH:
        raise Bad
    x, n = _number(x), _whole(n)
    first, *_ = [None if one is None else _number(one) for one in v]
    if first is None or not math.isfinite(first) or not math.isfinite(2 * x):
        raise Bad  # the model would answer nothing, or infinity
    try:
        who.encode()
    except UnicodeEncodeError as error:
        raise Bad from error
    return dict(zip(ANSWERS, (who, 2 * x, n, ok, first), strict=True))


def _number(value):
    if type(value) not in {int, float}:
        raise Bad
    try:
        return float(value)
    except OverflowError as error:
        raise Bad from error


def _whole(value):
    if type(value) not in {int, float} or not -(2**63) <= value < 2**63 or value != int(value):
        raise Bad
    return int(value)


def _bad(_):
    raise Bad


def _finite(text):
    if not math.isfinite(value := float(text)):
        raise Bad
    return value


def _once(pairs):
    if len(found := dict(pairs)) != len(pairs):
        raise Bad
    return found


def _deep(value):
    depth, level = 0, [value]
    while level := [one for one in level if type(one) in {dict, list}]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if type(one) is dict else one)]
    return depth


# --- the two ways to ask over HTTP --------------------------------------------------------------------------------------


def of_predict(body):
    """What `POST /predict` owes to a body."""
    value = strictly(body)
    if type(value) is not dict and type(value) is not list:
        raise Bad
    rows = value if type(value) is list else [value]
    answers = records(rows)
    sure = not any(_odd(one) for row in rows for one in (row["x"], row["n"], *row["v"]))
    return Owed(answers if rows is value else answers[0], sure)


def of_infer(body, text_length):
    """What the Open Inference Protocol owes to a body whose JSON ends at `text_length`."""
    asked, rest = strictly(body[:text_length]), body[text_length:]
    _typed(asked, dict, inputs=list)
    _optional(asked, id=str, parameters=dict, outputs=list)
    tensors = []
    for one in asked["inputs"]:
        _typed(one, dict, name=str, shape=list, datatype=str)
        _optional(one, parameters=dict)
        size = (one.get("parameters") or {}).get("binary_data_size")
        elements = count(one["shape"], one["datatype"])
        if size is None:
            values = _from_json(one.get("data"), one["datatype"])
        elif type(size) is not int or not 0 <= size <= len(rest) or "data" in one:
            raise Bad
        else:
            values, rest = from_bytes(one["datatype"], rest[:size], elements), rest[size:]
        if len(values) != elements:
            raise Bad
        tensors.append((one["name"], one["datatype"], one["shape"], values))
    if rest:
        raise Bad
    wanted = asked.get("outputs") or []
    for one in wanted:
        _typed(one, dict, name=str)
        _optional(one, parameters=dict)
    return of_tensors(tensors, [one["name"] for one in wanted])


def of_tensors(tensors, outputs):
    """What is owed to tensors: name, datatype, shape and elements of each."""
    found = {}
    rows = {shape[0] for _, _, shape, _ in tensors}
    if {name for name, *_ in tensors} != set(OWN) or len(tensors) != len(OWN) or len(rows) != 1:
        raise Bad
    if not set(outputs) <= set(ANSWERS):
        raise Bad
    sure = True
    for name, datatype, shape, values in tensors:
        if math.prod(shape[1:]) != (WIDTH if name == "v" else 1) or (name == "v" and len(shape) != 2):
            raise Bad
        if (datatype == "BYTES") != (name == "who"):
            raise Bad
        sure = sure and datatype == OWN[name] and not any(_odd(value) for value in values)
        found[name] = [values[n : n + WIDTH] for n in range(0, len(values), WIDTH)] if name == "v" else values
    given = records([dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)])
    kept = set(outputs) or set(ANSWERS)
    return Owed([{name: one[name] for name in one if name in kept} for one in given], sure)


def count(shape, datatype):
    """How many elements a tensor has. Raises Bad."""
    if datatype not in {*SIZES, "BYTES"} or not 1 <= len(shape) <= 8:
        raise Bad
    if (
        any(type(size) is not int or not 0 <= size <= 2**31 for size in shape)
        or not 0 < shape[0] <= MOST_ROWS
    ):
        raise Bad
    if math.prod(shape) > 2**24:
        raise Bad
    return math.prod(shape)


def from_bytes(datatype, data, elements):
    """The elements of a tensor in binary. Raises Bad."""
    if datatype != "BYTES":
        if len(data) != elements * struct.calcsize(SIZES[datatype]):
            raise Bad
        values = list(struct.unpack(f"<{elements}{SIZES[datatype]}", data))
        if datatype == "BOOL":
            if set(values) - {0, 1}:
                raise Bad
            return [value == 1 for value in values]
        return values
    found = []
    while data:
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 + size or size > 2**20:
            raise Bad
        found.append(text(data[4 : 4 + size]))
        data = data[4 + size :]
    if len(found) != elements:
        raise Bad
    return found


def text(data):
    """A BYTES element as text. Raises Bad."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Bad from error


def fits(datatype, value):
    """Whether an element may stand for this datatype."""
    if datatype in {"BYTES", "BOOL"}:
        return type(value) is (str if datatype == "BYTES" else bool)
    if datatype.startswith("FP"):
        try:
            struct.pack(SIZES[datatype], value)
        except (OverflowError, struct.error):
            return False
        return type(value) in {int, float}
    bits = int(datatype.lstrip("UINT"))
    low, high = (0, 2**bits) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return type(value) is int and low <= value < high


def _from_json(data, datatype):
    if type(data) is not list:
        raise Bad
    while any(type(one) is list for one in data):
        if not all(type(one) is list for one in data):
            raise Bad
        data = [inner for one in data for inner in one]
    if not all(value is None or fits(datatype, value) for value in data):
        raise Bad
    return data


def _odd(value):
    """Neither a float nor an integer that has one of its own: who refuses it may."""
    return type(value) in {int, float} and not -(2**53) <= value <= 2**53


def _typed(value, kind, **fields):
    if type(value) is not kind or not all(type(value.get(name)) is one for name, one in fields.items()):
        raise Bad


def _optional(value, **fields):
    """Some clients write null for what they leave out."""
    if not all(type(value.get(name)) in {one, NoneType} for name, one in fields.items()):
        raise Bad


# --- HTTP ---------------------------------------------------------------------------------------------------------------


def owed(stream):
    """What is owed to each request of a stream that ends, in order; behind a refusal nothing need come."""
    found = []
    while stream:
        try:
            answer, stream, goes_on = _request(stream)
        except Bad:
            return [*found, Owed(bodiless=stream[:5] == b"HEAD ")]
        found.append(answer)
        if not goes_on:
            break
    return found


def _request(stream):
    head, end, rest = stream.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    asked = re.fullmatch(rb"([A-Z]+) ([!-~]+) HTTP/1\.([0-9])", line)
    if not end or asked is None or len(line) > 8000 or len(head) - len(line) > 16_000 or len(lines) > 64:
        raise Bad
    headers = {}
    for one in lines:
        name, colon, value = one.partition(b":")
        if not colon or not TOKEN.fullmatch(name) or re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
            raise Bad
        headers.setdefault(name.decode().lower(), []).append(value.strip(b" \t").decode("latin-1"))
    if asked[1] in {b"GET", b"HEAD"}:
        return replace(ANYTHING, bodiless=asked[1] == b"HEAD"), b"", False
    path = asked[2].decode()
    if asked[1] != b"POST" or path not in {PREDICT, *INFER}:
        raise Bad
    length = _length(headers, path)
    body, rest = rest[:length], rest[length:]
    if len(body) < length:
        raise Bad
    try:
        answer = of_predict(body) if path == PREDICT else of_infer(body, _text_length(headers, length))
    except Bad:
        answer = REFUSAL
    if asked[3] not in b"01" or "request-timeout" in headers:
        answer = Owed(answer.answers, sure=answer is REFUSAL)
    closes = asked[3] != b"1" or any("close" in one.lower() for one in headers.get("connection", []))
    return answer, rest, not closes


def _length(headers, path):
    """The length of the body, if the headers are those that this server takes. Raises Bad."""
    host = headers.get("host", [])
    name, colon, port = host[0].partition(":") if len(host) == 1 else ("", "", "")
    if name.lower() not in {"127.0.0.1", "localhost"} or (colon and not port.isdigit()):
        raise Bad
    if "transfer-encoding" in headers or "content-encoding" in headers:
        raise Bad
    lengths = headers.get("content-length", [])
    if len(lengths) != 1 or not re.fullmatch("[0-9]{1,20}", lengths[0]) or int(lengths[0]) > MOST_BYTES:
        raise Bad
    kinds = headers.get("content-type", [""] if path in INFER and "origin" not in headers else [])
    if len(kinds) != 1:
        raise Bad
    kind, *more = [one.strip() for one in kinds[0].lower().split(";")]
    allowed = {"application/json", *({"application/octet-stream"} if path in INFER else ())}
    if path in INFER and "content-type" not in headers:
        allowed.add("")
    if kind not in allowed or [one for one in more if one] not in (
        [],
        ["charset=utf-8"],
        ['charset="utf-8"'],
    ):
        raise Bad
    return int(lengths[0])


def _text_length(headers, length):
    """Where the JSON of an inference request ends. Raises Bad."""
    said = headers.get("inference-header-content-length")
    if said is None:
        if headers.get("content-type") == ["application/octet-stream"]:
            raise Bad
        return length
    if len(said) != 1 or not re.fullmatch("[0-9]{1,9}", said[0]) or int(said[0]) > length:
        raise Bad
    return int(said[0])
