"""Requests, and what can go wrong with them: bytes that a server must answer with a clear word."""

# ruff: noqa: Q000, Q003 - quotes as they come
import json
import struct

GOOD = {"who": "ä b", "x": 1.5, "n": 3, "ok": True, "v": [1, 2.5, -3]}
INFER_PATH = "/v2/models/duck/infer"
HEAD = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}\r\n"
JSON, BINARY = "application/json", "application/octet-stream"

FRAGMENTS = [
    # the grammar of JSON: what is right,
    "0", "-0", "-0.0", "1", "-1", "10", "0.1", "1e1", "1E+1", "1e-1", "123.456e78", "1e308", "5e-324", "1e-400", "null", "true", "false", '""',
    '"a"', '"\\u0061"', '"\\ud83d\\ude00"', '"\\""', '"\\\\"', '"\\/"', '"\\b\\f\\n\\r\\t"', '"\\u0000"', '"\U0001f600"', '"\u2028"', "[]", "{}", "[1]", "[[]]",
    "[1,2,3]", "[1, 2, 3]", "[1,2,null]", "[null,1,2]", '{"a":1}', '{"":0}', "9223372036854775807", "-9223372036854775808", " 1", "1 ", "\t1\n",
    # what is allowed and does not fit,
    "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1e19", "9007199254740993", "1" * 400, "0." + "1" * 400, "1e309", "-1e309",
    "1e999999999", '"\\ud800"', '"\\udc00\\ud800"', '"' + "x" * 5000 + '"', "[1,2]", "[1,2,3,4]", '[1,2,"3"]', "[true,1,2]", "[[1],2,3]", "1.5",
    # and what is not JSON
    "", "-", "+1", "01", "-01", "1.", ".1", "1e", "1e+", "0x1", "1_000", "1,", ",1", "NaN", "Infinity", "-Infinity", "nan", "inf", "nul", "True", "None",
    "undefined", "'a'", '"a', 'a"', '"\\x"', '"\\u12"', '"\\u12G4"', '"\\"', '"\t"', '"\n"', '"\x00"', "[", "]", "[1", "1]", "[1,]", "[,1]", "[1,,2]", "[1 2]", "[1}",
    "{", "}", '{"a"}', '{"a":}', '{"a":1,}', "{a:1}", "{'a':1}", '{1:1}', '{"a" 1}', '{"a":1 "b":2}', '{"a":1,"a":2}', '{"a":1,"\\u0061":2}', "{}{}", "1 2",
    "/*1*/", "1//", "#1", "\ufeff1", "\u00a01", "\x0c1", "\x001", "1\x00", "<a/>", "[" * 31 + "]" * 31, "[" * 33 + "]" * 33, "[" * 5000, "[" * 5000 + "]" * 5000, '{"a":' * 2000 + "1" + "}" * 2000,
]  # fmt: skip
STRINGS = [
    "", " ", "\t", "undefined", "NULL", "0", "1/0", "NaN", "'; DROP TABLE log;--", "' OR 1=1 -- 1", "\" onload=alert(1)", "<script>alert(0)</script>", "${HOME}", "$(reboot)", "`id`",
    "%s%n%d", "{0}", "{{7*7}}", "../../../../etc/passwd", "%2e%2e%2f", "file:///etc/passwd", "http://169.254.169.254/", "\\\\host\\share", "C:\\nul", "CON", "__proto__", "__class__", "constructor",
    "\r\nSet-Cookie: a=b", "\x00", "\x1b[31mred", "\u202eright to left", "\u200b", "\ufeff", "\ufffe", "\uffff", "a\u0300" * 50, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0130stanbul", "\u00df", "\u1e9e", "\u0001\u0002", "田中さん", "\U0001d4fd\U0001d4f1\U0001d4ee", "ﷺ" * 40, "Ω≈ç√∫µ≤≥÷", "١٢٣", "x" * 70_000,
]  # fmt: skip
ODD = [None, True, False, 0, -1, 1.5, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 10**400, 1e308, -1e308, "", "1", "x", [], [1], [[]], {}, {"a": 1}, [None], "FP64", "INT64", "BYTES"]  # fmt: skip
HEADERS = [
    "Content-Length: 5", "Content-Length: 0", "Content-Length: -1", "Content-Length: +5", "Content-Length: 5, 5", "Content-Length: 0x10", "Content-Length: 1e3", "Content-Length:", "Content-Length: 99999999999999999999999",
    "Content-Length: 16777217", "Content-Length : 5", " Content-Length: 5", "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding : chunked",
    "Transfer-Encoding:\tchunked", "transfer-encoding: CHUNKED", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "X: a\r\n b", "X: a\r\n\tContent-Length: 0", "X\x00: a", "X: a\x00b", "X: a\rb", "X: a\nb", "X: a\x7f", "X: \x1b[31m", "X",
    ": a", "X Y: a", "X@: a", "Host: 127.0.0.1", "Host: evil.example", "Host:", "Host: 127.0.0.1@evil.example", "Content-Type: text/plain", "Content-Type: application/json", "Content-Encoding: gzip", "Content-Encoding: identity",
    "Expect: 100-continue", "Expect: 200-ok", "Connection: close", "Connection: keep-alive, close", "Connection: Upgrade\r\nUpgrade: h2c", "Upgrade: websocket", "Request-Timeout: 5", "Request-Timeout: -1", "Request-Timeout: nan", "Request-Timeout: 1e9",
    "Inference-Header-Content-Length: 10", "Inference-Header-Content-Length: -1", "Inference-Header-Content-Length: 999999999", "Inference-Header-Content-Length: x", "Origin: http://evil.example", "Trailer: Content-Length", "TE: trailers",
    "X-Request-Id: " + "i" * 300, "Authorization: Bearer \xff", "traceparent: 00-0-0-0", "traceparent: " + "f" * 5000, "Cookie: " + "c" * 20_000, "X: " + "y" * 9000, "X: " + "y" * 60_000, "\r\n".join(f"X-{n}: {n}" for n in range(100)), "\r\n".join(["X: y"] * 30), "X: \xe4\xff",
]  # fmt: skip
LINES = [
    "", " ", "\r\n", "\n", "\x00", "GET", "POST", "POST /predict", "POST  /predict HTTP/1.1", "POST /predict  HTTP/1.1", "POST /predict HTTP/1.1 ", " POST /predict HTTP/1.1", "post /predict HTTP/1.1", "POST /predict http/1.1",
    "POST /predict HTTP/0.9", "POST /predict HTTP/1.0", "POST /predict HTTP/1.2", "POST /predict HTTP/1.10", "POST /predict HTTP/2.0", "POST /predict HTTP/9.9", "POST /predict HTTP/1,1", "POST\t/predict\tHTTP/1.1", "POST /predict\x00 HTTP/1.1",
    "POST /pre dict HTTP/1.1", "POST http://evil.example/predict HTTP/1.1", "POST //predict HTTP/1.1", "POST /predict/ HTTP/1.1", "POST /predict?a=b HTTP/1.1", "POST /predict#x HTTP/1.1", "POST /%70redict HTTP/1.1", "POST /../predict HTTP/1.1",
    "POST * HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT 127.0.0.1:80 HTTP/1.1", "TRACE /predict HTTP/1.1", "HEAD /predict HTTP/1.1", "HEAD /live HTTP/1.1", "OPTIONS /predict HTTP/1.1", "PUT /live HTTP/1.1", "PUT /predict HTTP/1.1", "DELETE /v2/models/duck HTTP/1.1", "PATCH /predict HTTP/1.1", "BREW /pot HTTP/1.1",
    "POST /v2/models/goose/infer HTTP/1.1", "POST /v2/models/duck/versions/9/infer HTTP/1.1", "POST /v2/models//infer HTTP/1.1", "POST /v2/repository/models/duck/load HTTP/1.1", "POST /live HTTP/1.1", "POST /" + "a" * 9000 + " HTTP/1.1",
    "POST /" + "../" * 500 + "etc/passwd HTTP/1.1", "PRI * HTTP/2.0", "\x16\x03\x01\x02\x00\x01", "SSH-2.0-x", "\xff\xfe", "A" * 9000, "POST /predict HTTP/1.1\nX: y", "POST /predict HTTP/1.1\rX: y", "M-SEARCH * HTTP/1.1", "POST /pré HTTP/1.1",
]  # fmt: skip


MUCH_BYTES = 15 * 2**20
MUCH = [
    # what is small on the wire and large once it is read: in the place of records, beside them, and beside tensors
    ("/predict", b"[", b"[],", b"[]]"),
    ("/predict", b"[", b"{},", b"{}]"),
    ("/predict", b'{"who":"a","x":1,"n":3,"ok":true,"v":[1,2,3],"junk":[', b"[],", b"[]]}"),
    ("/predict", b'{"who":"a","x":1,"n":3,"ok":true,"v":[1,2,3],"junk":[', b"1,", b"1]}"),
    ("/predict", b"[", b'{"x":1},', b'{"x":1}]'),
    (INFER_PATH, b'{"inputs":[],"parameters":{"junk":[', b"[],", b"[]]}}"),
    (INFER_PATH, b'{"inputs":[],"parameters":{"junk":[', b'{"":0},', b"[]]}}"),
    (INFER_PATH, b'{"inputs":[],"outputs":[', b'{"name":"y"},', b'{"name":"y"}]}'),
    (INFER_PATH, b'{"inputs":[{"name":"x","datatype":"FP64","shape":[', b"1,", b'1],"data":[1]}]}'),
]  # fmt: skip


def much():
    """Requests of 15 MiB that are small for what they hold."""
    for path, begin, piece, end in MUCH:
        yield framed(begin + piece * (MUCH_BYTES // len(piece)) + end, path)


def framed(body, path="/predict", kind=JSON, more=""):
    """A request as it goes over the wire."""
    return HEAD.format(path, kind, len(body), more).encode() + body


def tensors(rows, binary=()):
    """An inference request for records, some of its inputs in binary: the JSON and what follows it."""
    kinds = {"who": "BYTES", "x": "FP64", "n": "INT64", "ok": "BOOL", "v": "FP64"}
    inputs, tail = [], b""
    for name, datatype in kinds.items():
        values = [row[name] for row in rows]
        one = {"name": name, "shape": [len(rows), *([3] if name == "v" else [])], "datatype": datatype}
        if name in binary:
            blob = packed(datatype, values)
            one["parameters"] = {"binary_data_size": len(blob)}
            tail += blob
        else:
            one["data"] = values
        inputs.append(one)
    return {"id": "7", "inputs": inputs}, tail


def packed(datatype, values):
    """Values as the elements of a tensor in binary."""
    flat = [inner for one in values for inner in (one if isinstance(one, list) else [one])]
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(one.encode())) + one.encode() for one in flat)
    return struct.pack(f"<{len(flat)}{ {'FP64': 'd', 'INT64': 'q', 'BOOL': '?'}[datatype] }", *flat)


def infer(text, tail=b"", size=None):
    """An inference request as it goes over the wire."""
    if not tail and size is None:
        return framed(text, INFER_PATH)
    size = len(text) if size is None else size
    return framed(text + tail, INFER_PATH, BINARY, f"Inference-Header-Content-Length: {size}\r\n")


def some(dice):
    """Records that are right."""
    return [
        {**GOOD, "x": dice.uniform(-9, 9), "n": dice.randrange(99), "who": dice.choice(["a", "ü", ""])}
        for _ in range(dice.choice([1, 1, 2, 5]))
    ]


def good(dice):
    """A request that is right, in one of the ways there are."""
    rows, way = some(dice), dice.randrange(3)
    if way == 0:
        return framed(dump(rows if len(rows) > 1 else rows[0]))
    asked, tail = tensors(rows, dice.sample(["who", "x", "n", "ok", "v"], 3) if way == 1 else ())
    return infer(dump(asked), tail)


def dump(value):
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def bytes_changed(dice, data, most=4):
    """Bytes flipped, put in, taken out, doubled or cut off."""
    data = bytearray(data)
    for _ in range(dice.randint(1, most)):
        place = dice.randrange(len(data) + 1)
        end = place + dice.randint(1, 8)
        way = dice.randrange(6)
        if way == 0 and place < len(data):
            data[place] ^= 1 << dice.randrange(8)
        elif way == 1:
            data[place:place] = dice.choice(
                [b"\0", b"\r", b"\n", b"\r\n", b" ", b'"', b",", b"[", b"9", b"\xff", b"e5", b"-"]
            )
        elif way == 2:
            del data[place:end]
        elif way == 3:
            data[place:place] = data[place:end]
        elif way == 4 and place < len(data):
            data[place] = dice.randrange(256)
        elif dice.random() < 0.2:
            del data[place:]
    return bytes(data)


def value_changed(dice, value):
    """A value with something odd at one of its places; texts with keys twice come by `Twice`."""
    if dice.random() < 0.3 or not isinstance(value, dict | list) or not value:
        return dice.choice([*ODD, *STRINGS[:-1]])
    if isinstance(value, list):
        place = dice.randrange(len(value))
        return [value_changed(dice, one) if n == place else one for n, one in enumerate(value)]
    name, way = dice.choice(list(value)), dice.random()
    if way < 0.1:
        return {key: one for key, one in value.items() if key != name}
    if way < 0.2:
        return {dice.choice(STRINGS[:-1]) if key == name else key: one for key, one in value.items()}
    if way < 0.3:
        return {**value, dice.choice(STRINGS): dice.choice(ODD)}
    return {**value, name: value_changed(dice, value[name])}


# --- kinds of damage ----------------------------------------------------------------------------------------------------


def anywhere(dice):
    """A right request with some of its bytes changed, its head too."""
    return bytes_changed(dice, good(dice))


def body(dice):
    """The body alone changed, its length told as it is."""
    rows, way = some(dice), dice.randrange(4)
    if way == 0:
        return framed(bytes_changed(dice, dump(rows)))
    asked, tail = tensors(rows, ["who", "x", "ok"] if way > 1 else ())
    if way == 1:
        return infer(bytes_changed(dice, dump(asked)))
    if way == 2:
        return infer(bytes_changed(dice, dump(asked)), tail)
    return infer(
        dump(asked), bytes_changed(dice, tail), None if dice.random() < 0.8 else dice.randrange(2000)
    )


def values(dice):
    """JSON that is right, with something odd in it."""
    rows = some(dice)
    if dice.random() < 0.5:
        return framed(dump(value_changed(dice, rows if len(rows) > 1 else rows[0])))
    asked, tail = tensors(rows, ["who", "n"] if dice.random() < 0.5 else ())
    if dice.random() < 0.1:
        for _ in range(dice.choice([1, 27, 28, 29, 60, 900])):  # around the 32 levels that are allowed
            asked["inputs"][1]["data"] = [asked["inputs"][1]["data"]]
        return infer(dump(asked), tail)
    return infer(dump(value_changed(dice, asked)), tail)


def grammar(dice):
    """A piece of text where a value belongs."""
    piece = dice.choice(FRAGMENTS)
    if dice.random() < 0.2:
        return framed(piece.encode(), dice.choice(["/predict", INFER_PATH]))
    name = dice.choice(list(GOOD))
    if dice.random() < 0.6:
        text = dump({**GOOD, name: "HERE"}).decode()
        return framed(text.replace('"HERE"', piece).encode("utf-8", "surrogatepass"))
    asked, _ = tensors([GOOD])
    one = dice.choice(asked["inputs"])
    one[dice.choice(["data", "shape", "name", "datatype", "parameters"])] = "HERE"
    return infer(dump(asked).decode().replace('"HERE"', piece).encode("utf-8", "surrogatepass"))


def strings(dice):
    """Naughty strings as values, as names, and in the head."""
    one, way = dice.choice(STRINGS), dice.randrange(4)
    if way == 0:
        return framed(dump({**GOOD, "who": one}))
    if way == 1:
        asked, tail = tensors([{**GOOD, "who": one}], ["who"])
        return infer(dump(asked), tail)
    if way == 2:
        asked, _ = tensors([GOOD])
        asked[dice.choice(["id", "outputs", "parameters"])] = dice.choice([one, [{"name": one}], {one: one}])
        return infer(dump(asked))
    wire = one.encode("utf-8", "surrogatepass")
    request = framed(dump(GOOD))
    return request.replace(dice.choice([b"/predict", b"127.0.0.1", b"application/json"]), wire, 1)


def head(dice):
    """A request line or a header that is odd, contradicts another one or is too much."""
    request = good(dice)
    line, _, rest = request.partition(b"\r\n")
    if dice.random() < 0.4:
        return dice.choice(LINES).encode("latin-1") + b"\r\n" + rest
    headers, _, body_ = rest.partition(b"\r\n\r\n")
    lines = headers.split(b"\r\n")
    if dice.random() < 0.3:
        lines.pop(dice.randrange(len(lines)))
    for _ in range(dice.choice([1, 1, 2])):
        lines.insert(dice.randrange(len(lines) + 1), dice.choice(HEADERS).encode("latin-1"))
    end = dice.choice([b"\r\n\r\n"] * 8 + [b"\n\n", b"\r\n\n", b"\r\r"])
    return line + b"\r\n" + b"\r\n".join(lines) + end + body_


def smuggled(dice):
    """A second request hidden in the body of the first, in chunks or behind a wrong length."""
    hidden, lie = good(dice), dice.choice(["0", "5", "6", "99", "4"])
    way = dice.randrange(4)
    lines = [f"Content-Length: {lie}"] if way in {0, 1} else []
    lines += ["Transfer-Encoding: chunked"] if way in {0, 2} else []
    lines += ["Content-Length: 0", f"Content-Length: {len(hidden)}"] if way == 3 else []
    dice.shuffle(lines)
    start = "\r\n".join(
        ["POST /predict HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *lines]
    )
    chunk = dice.choice(
        [b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"fffffffff\r\n", b"0;a=b\r\n\r\n", b"-1\r\n", b""]
    )
    return start.encode() + b"\r\n\r\n" + chunk + hidden


def pipelined(dice):
    """Right requests, with something behind them that is none, or half of one."""
    first = b"".join(good(dice) for _ in range(dice.randint(1, 3)))
    half = good(dice)
    return first + dice.choice(
        [half[: dice.randrange(len(half))], anywhere(dice), b"\r\n", b"\0" * 50, head(dice)]
    )


def noise(dice):
    """Bytes of no meaning."""
    return dice.choice([b"", b"POST /predict HTTP/1.1\r\n", b"\x16\x03\x01"]) + dice.randbytes(
        dice.choice([1, 10, 1000, 30_000])
    )


KINDS = (anywhere, body, values, grammar, strings, head, smuggled, pipelined, noise)
WEIGHTS = (4, 5, 4, 4, 3, 4, 2, 2, 1)


def request(dice):
    """The kind of damage and the bytes."""
    made = dice.choices(KINDS, WEIGHTS)[0]
    return made.__name__, made(dice)
