"""The server's promises about HTTP: what is not a good request gets a clear 4xx as JSON, and the next one its answer."""

import asyncio
import gc
import gzip
import json
import re
import resource
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from mlinfer import InferencePipeline
from mlinfer._online import Serving, _refusals, serving
from mlinfer._online._connection import Connection
from mlinfer._online._desk import Ask
from mlinfer._online._json import BadJson, parse
from mlinfer._online._refusals import BUSY, ENDS, NOT_STORED, SHARE_TAKEN
from mlinfer._online._routes import path_name
from mlinfer._online._wire import MOST_BYTES, MOST_BYTES_AT_ONCE, MOST_ROWS, Patience
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

CORPUS = Path(__file__).parents[2] / "shared" / "corpora" / "json"
JSON = {"Content-Type": "application/json"}
GOOD = b'{"x": 1}'
POST = b"POST /predict HTTP/1.1\r\n"
HEAD = POST + b"Host: localhost\r\nContent-Type: application/json\r\n"


def made():
    host = FunctionHost(lambda x: x + 1, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    return InferencePipeline(MemorySource({"x": [0.0]}), host, MemoryDestination())


@pytest.fixture(scope="module")
def server():
    """One server for all: each test leaves it able to answer."""
    with made().serving() as server:
        yield server


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url) as client:
        yield client
        found = client.post("/predict", content=GOOD, headers=JSON)
        assert (found.status_code, found.json()) == (200, {"y": 2.0})


@contextmanager
def connected(server):
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as connection:
        connection.settimeout(20)
        yield connection


def answers(server, sent, *, end=True):
    """All that comes back for these bytes, as (status, JSON) one by one."""
    with connected(server) as connection:
        connection.sendall(sent)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return taken_apart(connection.makefile("rb").read())


def taken_apart(text):
    found = []
    while text:
        head, _, rest = text.partition(b"\r\n\r\n")
        status = int(re.match(rb"HTTP/1\.1 (\d{3}) ", head)[1])
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        body, text = (rest[: int(length[1])], rest[int(length[1]) :]) if length else (b"", rest)
        found.append((status, json.loads(body) if body else None))
    return found


def refused(server, sent, status, *, end=True):
    """Exactly one answer comes back: this status and a sentence."""
    found = answers(server, sent, end=end)
    assert [one for one, _ in found] == [status]
    assert isinstance(found[0][1]["error"], str)
    return found[0][1]["error"]


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1e999",
        "-1e999",
        "[1e999]",
        '{"x":[[1,{"y":-1e400}]]}',
        "[[[]],1" + "0" * 400 + ".0]",
        "1" * 200 + "e200",
    ],
)
def test_a_number_beyond_all_doubles_is_found_wherever_it_stands(text):
    with pytest.raises(BadJson, match="a number that is too large"):
        parse(text.encode())


def test_what_is_read_is_what_python_reads():
    text = b'{"a":[1,2.5,-0.0,1e308,-1e308,null,true,"inf",[[{}]]],"b":12345678901234567890123}'
    assert parse(text) == json.loads(text)
    assert parse(b"[" * 32 + b"]" * 32) == json.loads("[" * 32 + "]" * 32)
    with pytest.raises(BadJson, match="deeper than 32 levels"):
        parse(b"[" * 33 + b"]" * 33)


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpora are not beside the checkout")
def test_json_is_judged_as_the_test_suite_judges_it(client):
    for path in sorted(CORPUS.glob("*.json")):
        body = path.read_bytes()
        found = client.post("/predict", content=body, headers=JSON)
        allowed = {400} if path.name[0] == "n" else {200, 400, 422}
        assert found.status_code in allowed, path.name
        assert "error" in found.json(), path.name
        if path.name[0] == "y" and "duplicated_key" not in path.name:
            value = json.loads(body)
            records = isinstance(value, dict) or (isinstance(value, list) and value)
            assert (found.status_code == 422) == bool(records), path.name


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"x": NaN}', "NaN"),
        (b'{"x": -Infinity}', "-Infinity"),
        (b'[{"x": 1}, {"x": Infinity}]', "Infinity"),
        (b'{"x": 1e400}', "too large"),
        (b'{"x": -1e999999999}', "too large"),
        (b'{"x": 1%s}' % (b"0" * 5000), "too long"),
        (b'{"x": 1, "x": 2}', "twice"),
        (b'{"x": 1, "more": [{"a": 1, "\\u0061": 2}]}', "twice"),
        (b'{"x": %s1%s}' % (b"[" * 32, b"]" * 32), "deeper than 32"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"x": "\xff"}', "UTF-8"),
        ('{"x": 1}'.encode("utf-16"), "UTF-8"),
        (b'\xef\xbb\xbf{"x": 1}', "not JSON"),
        (b'{"x": 1} {"x": 2}', "not JSON"),
        (b"x=1", "not JSON"),
        (b"", "not JSON"),
        (b"[]", "wanted a record"),
        (b"7", "wanted a record"),
        (b"null", "wanted a record"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_not_a_record_in_strict_json_is_refused_in_our_own_words(client, body, words):
    found = client.post("/predict", content=body, headers=JSON)
    assert found.status_code == 400
    assert words in found.json()["error"]
    assert len(found.content) < 200


@pytest.mark.parametrize("value", ["1" + "0" * 400, "true", '"1"', "[1]", '{"x": 1}', '"\\u0000"', "null"])
def test_a_value_of_another_type_is_a_bad_record_and_not_a_guess(client, value):
    found = client.post("/predict", content=f'[{{"x": 1.5}}, {{"x": {value}}}]', headers=JSON)
    assert found.status_code == 422
    kind = "missing_value" if value == "null" else "wrong_type"
    assert [(one["row"], one["kind"]) for one in found.json()["records"]] == [(1, kind)]


def test_more_records_than_a_request_may_hold_are_refused(client):
    assert client.post("/predict", content=b"[" + b"1," * MOST_ROWS + b"1]", headers=JSON).status_code == 413


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"},
     {"Content-Type": "application/json; charset=utf-16"}, {"Content-Type": "application/jsonx"},
     {"Content-Type": "application/json", "Content-Encoding": "gzip"}],
    ids=str,
)  # fmt: skip
def test_another_content_type_is_refused(client, headers):
    found = client.post("/predict", content=GOOD, headers=headers)
    assert found.status_code == 415
    assert "wanted" in found.json()["error"]


def test_the_kind_that_a_client_sends_unasked_is_named(client):
    found = client.post(
        "/predict", content=GOOD, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    form = "wanted Content-Type: application/json, found 'application/x-www-form-urlencoded'"
    assert found.json() == {"error": form}


# --- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"", 411),
        (b"Content-Length: 8\r\nContent-Length: 8\r\n", 400),
        (b"Content-Length: 8, 8\r\n", 400),
        (b"Content-Length: -8\r\n", 400),
        (b"Content-Length: +8\r\n", 400),
        (b"Content-Length: 0x8\r\n", 400),
        (b"Content-Length: 8_0\r\n", 400),
        (b"Content-Length: \xb2\r\n", 400),
        (b"Content-Length:\r\n", 400),
        (b"Content-Length: 16777217\r\n", 413),
        (b"Content-Length: 99999999999999999999\r\n", 400),
        (b"Content-Length: " + b"9" * 9000 + b"\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 8\r\n", 400),
        (b"Transfer-Encoding:\r\nContent-Length: 8\r\n", 400),
        (b"Content-Length: 8\r\nTransfer-Encoding: identity\r\n", 400),
        (b"Content-Type: text/plain\r\nContent-Length: 8\r\n", 415),
        (b"Content-Length : 8\r\n", 400),
        (b"Content-Length: 8\r\n folded: 1\r\n", 400),
        (b"Content-Length: 8\nX: 1\r\n", 400),
        (b"X: 1\rContent-Length: 8\r\n", 400),
        (b"X: \x00\r\nContent-Length: 8\r\n", 400),
        (b"no colon\r\nContent-Length: 8\r\n", 400),
        (b": nameless\r\nContent-Length: 8\r\n", 400),
        (b"Host: localhost\r\nContent-Length: 8\r\n", 400),
        (b"X: 1\r\n" * 70, 431),
        (b"X: " + b"a" * 17_000 + b"\r\n", 431),
        (b"".join(b"X: %s\r\n" % (b"a" * 900) for _ in range(30)), 431),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_headers_that_two_parsers_could_read_differently_are_refused(server, client, headers, status):
    smuggled = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    refused(server, HEAD + headers + b"\r\n" + GOOD + smuggled, status)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (b"Content-Length: 8\r\nContent-Length: 8\r\n", "one Content-Length at most"),
        (b"Content-Length: 0x8\r\n", "one Content-Length at most, a number"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 8\r\n", "no Transfer-Encoding beside it"),
        (b"Transfer-Encoding: chunked\r\n", "not in chunks"),
        (b"Content-Type: application/json\r\nContent-Length: 8\r\n", "application/json, found several"),
    ],
)
def test_what_is_wrong_with_a_head_is_said(server, headers, words):
    assert words in refused(server, HEAD + headers + b"\r\n" + GOOD, 415 if b"Type" in headers else 400)


def test_a_line_that_is_none_is_said_to_be_none(server):
    sent = HEAD.replace(b"/predict", b"predict") + b"Content-Length: 8\r\n\r\n" + GOOD
    assert refused(server, sent, 400) == "wanted an HTTP/1.1 request, such as POST /predict HTTP/1.1"


@pytest.mark.parametrize(
    "host",
    [b"", b"Host: evil.example\r\n", b"Host: evil.example:80\r\n", b"Host: localhost.evil.example\r\n", b"Host:\r\n",
     b"Host: localhost:x\r\n", b"Host: localhost:\xb2\r\n", b"Host: localhost:123456\r\n", b"Host: localhost@evil\r\n", b"Host: localhost\r\nHost: evil.example\r\n"],
)  # fmt: skip
def test_a_name_that_is_not_this_machines_is_refused(server, client, host):
    head = POST + host + b"Content-Type: application/json\r\nContent-Length: 8\r\n\r\n"
    assert "Host" in refused(server, head + GOOD, 400)


def test_a_client_that_speaks_tls_where_there_is_none_is_told_at_once(server, client):
    with connected(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # and it waits
        assert b"ask http://, not https://" in connection.makefile("rb").read()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /live\r\n\r\n", 400),
        (b"GET /live\r\n", 400),
        (b"get /live HTTP/1.1\r\n\r\n", 400),
        (b"GET  /live HTTP/1.1\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\n\n", 400),
        (b"GET /live HTTP/1.1 HTTP/1.1\r\n\r\n", 400),
        (b"GET /live HTTP/one\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /live HTTP/0.9\r\n\r\n", 505),
        (b"GET /live HTTP/1.2\r\nHost: localhost\r\n\r\n", 505),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x00" * 70_000, 414),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /live HTTP/1.1\r\nHost: localhost", 400),
        (b"GET /live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n" + GOOD, 400),
        (b"GET /live HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_garbage_gets_one_answer_as_json(server, client, sent, status):
    refused(server, sent, status)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW", "PROPFIND", "QUERY"])
def test_methods_that_there_are_not(server, client, method):
    sent = f"{method} /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    assert "wanted" in refused(server, sent.encode(), 501)


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "DELETE", "PATCH"])
def test_a_method_that_a_path_has_not_is_told_which_it_has(client, method):
    for path, allowed in (
        ("/predict", "POST"),
        ("/live", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/v2", "GET, HEAD"),
    ):
        found = client.request(method, path, content=b"body", headers=JSON)
        assert (found.status_code, found.headers["Allow"]) == (405, allowed), path
        assert "wanted" in found.json()["error"]
        assert client.request(method, f"{path}/nothing").status_code == 404, path


def test_head_gets_what_get_would_get_without_its_body(server, client):
    model = f"/v2/models/{path_name(server.desk.signature.model_id)}"
    paths = ("/live", "/ready", "/docs", "/openapi.json", "/v2", "/v2/health/live", model, f"{model}/ready")
    with connected(server) as connection:
        file = connection.makefile("rb")
        for (
            path
        ) in paths:  # one connection for all: a body that came all the same would be taken for the next head
            lines = []
            for method in ("HEAD", "GET"):
                connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                lines.append(list(iter(file.readline, b"\r\n")))
            assert lines[0] == lines[1], path
            assert lines[0][0] == b"HTTP/1.1 200 OK\r\n", path
            assert file.read(int(re.search(rb"Length: (\d+)", b"".join(lines[1]))[1])), path


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HEAD /predict HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"HEAD /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"HEAD /live HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"HEAD /live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n", b"400"),
    ],
)
def test_a_refusal_of_head_has_no_body(server, client, sent, status):
    with connected(server) as connection:
        connection.sendall(sent)
        text = connection.makefile("rb").read()
    assert text.startswith(b"HTTP/1.1 " + status)
    assert text.endswith(b"\r\n\r\n")
    assert text.count(b"\r\n\r\n") == 1
    assert int(re.search(rb"Content-Length: (\d+)", text)[1]) > 0


def test_a_body_that_begins_like_head_is_still_told_what_is_wrong(server):
    sent = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\nHEAD abc"
    ((status, told),) = answers(server, sent)
    assert status == 400
    assert told["error"] == "wanted a body of 100 bytes, found 8"


def test_paths_that_there_are_not_and_methods_that_a_path_has_not(client):
    for path in ("/", "/predict/", "/predict?x=1", "/%70redict", "/metrics"):
        assert client.post(path, content=GOOD, headers=JSON).status_code == 404, path
    found = client.get("/predict")
    assert (found.status_code, found.headers["Allow"]) == (405, "POST")
    assert client.post("/live", content=GOOD, headers=JSON).status_code == 405
    assert client.get("/ready").json() == {"ready": True}


def test_a_path_that_is_almost_one_is_told_how_it_is_spelled(server, client):
    model = path_name(server.desk.signature.model_id)
    for path, meant in (
        ("/live/", "/live"),
        ("/predict?x=1", "/predict"),
        ("/%6Cive", "/live"),
        ("/v2/", "/v2"),
        (f"/v2/models/{model}/?a=b", f"/v2/models/{model}"),
        (f"/v2/models/%{ord(model[0]):02x}{model[1:]}", f"/v2/models/{model}"),
        (f"/v2/models/{model}/versions/%31", f"/v2/models/{model}/versions/1"),
    ):
        assert f"wanted {meant} as it is" in refused(
            server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 404
        )
    for path in (
        "/live/x",
        "/%2e%2e/live",
        "/versions/1",
        "//live",
        "/LIVE",
        "http://evil.example/live",
    ):
        told = refused(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 404)
        assert told.startswith("there is nothing here"), path
        assert "/predict" in told
        assert "/docs" in told


@pytest.mark.parametrize(
    "more",
    [b"Accept: text/html\r\n", b"Accept: application/json;q=0\r\n", b"Accept-Encoding: gzip, br\r\n",
     b"Expect: 200-ok\r\n", b"Keep-Alive: timeout=5, max=100\r\n", b"Connection: keep-alive\r\n",
     b"Upgrade: h2c\r\n", b"User-Agent: \xe4\r\n", b"X-Empty:\r\n"],
)  # fmt: skip
def test_what_a_client_would_like_and_this_server_has_not_does_no_harm(server, client, more):
    """Answers are JSON, as they are, and the connection goes on."""
    one = HEAD + more + b"Content-Length: 8\r\n\r\n" + GOOD
    assert answers(server, one + one) == [(200, {"y": 2.0})] * 2


def test_a_client_of_http_1_0_gets_its_answer_and_the_end(server, client):
    head = HEAD.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\nContent-Length: 8\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(head + GOOD)
        text = connection.makefile("rb").read()
    assert b"\r\nConnection: close\r\n" in text
    assert taken_apart(text) == [(200, {"y": 2.0})]


def test_a_compressed_body_is_told_that_none_is_read(client):
    found = client.post("/predict", content=gzip.compress(GOOD), headers={**JSON, "Content-Encoding": "gzip"})
    assert (found.status_code, found.headers["Accept-Encoding"]) == (415, "identity")
    assert "not compressed" in found.json()["error"]


# --- many requests on one connection --------------------------------------------------------------------------------


class Told:
    """A transport that notes down who is answered."""

    def __init__(self, name, order):
        self.name, self.order = name, order

    def write(self, data):
        self.order.append(self.name)

    def is_closing(self):
        return False

    def resume_reading(self):
        return

    pause_reading = close = resume_reading


def test_whoever_always_has_a_next_request_does_not_keep_the_loop_for_itself(server):
    order = []

    async def two_at_once():
        connections = [Connection(server.listener) for _ in range(2)]
        for connection, name in zip(connections, "ab", strict=True):
            connection.connection_made(Told(name, order))
        for connection in connections:
            connection.data_received(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        for _ in range(60):  # turns of the loop
            await asyncio.sleep(0)
        for connection in connections:
            connection.connection_lost(None)

    asyncio.run_coroutine_threadsafe(two_at_once(), server.listener._loop).result(20)
    assert order == ["a", "b"] * 50


def test_many_requests_at_once_are_all_answered_and_wait_outside_where_they_are_too_many(server, client):
    """More than is held of them: the rest is read when there is room again."""
    count = 20_000
    asked = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n" * count
    with connected(server) as connection, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(connection.sendall, asked)
        found = 0
        with connection.makefile("rb") as answers_:
            while found < count:
                found += answers_.readline().endswith(b"HTTP/1.1 200 OK\r\n")
        sending.result(10)


def test_pipelined_requests_are_answered_in_order(server, client):
    one = HEAD + b"Content-Length: %d\r\n\r\n%s"
    sent = b"".join(one % (len(body), body) for body in (b'{"x": %d}' % n for n in range(50)))
    assert answers(server, sent) == [(200, {"y": n + 1.0}) for n in range(50)]


@pytest.mark.parametrize("said", ["close", "Close", "keep-alive, close", "keep-alive\r\nConnection: close"])
@pytest.mark.parametrize("line", ["GET /live", "HEAD /live", "GET /v2", "POST /predict"])
def test_a_client_that_wants_no_further_answer_sees_the_end_of_the_connection(server, client, line, said):
    """It may read until then, and would wait for as long as a connection may be idle."""
    body = (
        f"Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{GOOD.decode()}"
        if "POST" in line
        else "\r\n"
    )
    with connected(server) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: {said}\r\n{body}".encode())
        text = connection.makefile("rb").read()
    assert text.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in text


def test_a_request_behind_the_last_one_is_not_answered(server, client):
    live = b"GET /live HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    assert [status for status, _ in answers(server, live % b"Connection: close\r\n" + live % b"")] == [200]
    empty = HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n"
    assert [status for status, _ in answers(server, empty + live % b"")] == [400]


def test_a_refused_record_keeps_the_connection(server, client):
    bad = HEAD + b'Content-Length: 11\r\n\r\n{"x": null}'
    good = HEAD + b"Content-Length: 8\r\n\r\n" + GOOD
    assert [status for status, _ in answers(server, bad + good + bad + good)] == [422, 200, 422, 200]


def test_blanks_around_the_value_of_a_header_are_no_part_of_it(server, client):
    head = b"Host:  localhost \t\r\nContent-Type: application/json \r\nContent-Length:\t8 \r\nConnection: close \r\n\r\n"
    assert answers(server, POST + head + GOOD, end=False) == [(200, {"y": 2.0})]


def test_a_body_shorter_than_announced_is_refused(server, client):
    assert "8" in refused(server, HEAD + b"Content-Length: 99\r\n\r\n" + GOOD, 400)


def test_a_client_that_leaves_in_the_middle_costs_nobody(server, client):
    for sent in (
        b"POST /pre",
        HEAD,
        HEAD + b"Content-Length: 8\r\n\r\n",
        HEAD + b"Content-Length: 8\r\n\r\n{",
    ):
        with connected(server) as connection:
            connection.sendall(sent)


# --- time and memory ------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server, client):
    head = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert refused(server, head % (MOST_BYTES + 1), 413, end=False)
    # sends all before it listens
    found = client.post("/predict", content=b" " * (MOST_BYTES + 1), headers=JSON)
    assert found.status_code == 413


BULK = b"[]," * (MOST_BYTES // 4)
TENSOR = b'"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1]}]'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", b"[" + BULK + b"[]]"),
        ("/predict", b'{"x":1,"junk":[' + BULK + b"[]]}"),
        ("/predict", b'{"x":1,"junk":[' + b"1," * (MOST_BYTES // 4) + b"1]}"),
        ("/predict", b"[" + b'{"x":1},' * (MOST_BYTES // 9) + b'{"x":1}]'),
        ("/v2/models/duck/infer", b'{"parameters":{"junk":[' + BULK + b"[]]}," + TENSOR + b"}"),
        ("/v2/models/duck/infer", b'{"junk":[' + BULK + b"[]]," + TENSOR + b"}"),
        ("/v2/models/duck/infer", b'{"outputs":[' + b'{"name":"y"},' * 10**6 + b'{"name":"y"}],' + TENSOR + b"}"),
    ],
)  # fmt: skip
def test_a_body_of_more_lists_than_records_can_have_is_refused_before_it_is_read(server, client, path, body):
    """Read, it takes half a gigabyte and seconds in which nobody else is answered."""
    path = path.replace("duck", path_name(server.desk.signature.model_id))
    found = client.post(path, content=body, headers=JSON)
    assert found.status_code == 413, found.text
    assert found.json()["error"].startswith("wanted no more lists and values than the records of a request")


def test_what_texts_hold_is_not_counted_and_as_many_records_as_may_come_do(client):
    texts = json.dumps({"x": 1, "note": "a, [b], {c}, \\" * 10**6})
    assert client.post("/predict", content=texts, headers=JSON).json() == {"y": 2}
    every = client.post("/predict", json=[{"x": 1, "note": None}] * MOST_ROWS)
    assert every.json() == [{"y": 2}] * MOST_ROWS


def test_a_client_that_waits_for_leave_to_send_gets_it(server, client):
    with connected(server) as connection:
        connection.sendall(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        assert connection.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(GOOD)
        assert taken_apart(connection.makefile("rb").read()) == [(200, {"y": 2.0})]


def test_there_is_room_for_so_many_bytes_and_no_more(server, client):
    announced = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % MOST_BYTES
    with ExitStack() as stack:
        for _ in range(MOST_BYTES_AT_ONCE // MOST_BYTES):
            connection = stack.enter_context(connected(server))
            connection.sendall(announced)
            assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 100"
        refused(server, announced, 503, end=False)


def test_of_answers_that_nobody_takes_so_many_bytes_wait_and_no_more(monkeypatch):
    """Whoever has let his wait longest goes, and those who ask now are answered all the same."""
    size, room = 32 * 2**20, 40 * 2**20
    monkeypatch.setattr("mlinfer._online._listener.MOST_BYTES_AT_ONCE", room)
    host = FunctionHost(
        lambda records: {"y": ["z" * size] * len(records)},
        {"x": pa.float64()},
        {"y": pa.string()},
        version="1",
    )
    long = InferencePipeline(MemorySource({"x": [0.0]}), host, MemoryDestination())
    with long.serving() as server, ExitStack() as stack:
        clients = []
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            host, port = server.url.removeprefix("http://").split(":")
            client.connect((host, int(port)))
            client.sendall(HEAD + b"Connection: close\r\nContent-Length: 8\r\n\r\n" + GOOD)
            assert client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            clients.append(client)
        until(lambda: 0 < waiting(server) <= room)
        assert [taken(client) > size for client in clients] == [False, False, True]


@pytest.fixture
def asked():
    """Gives what was asked since, and is still kept; other tests may have left something for the garbage collector."""
    before = [one for one in gc.get_objects() if isinstance(one, Ask)]
    older = set(map(id, before))
    yield lambda: [one for one in gc.get_objects() if isinstance(one, Ask) and id(one) not in older]
    del before


def test_an_idle_connection_keeps_nothing_of_the_records_that_it_brought(server, asked):
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(connected(server))
            for _ in range(2):
                connection.sendall(HEAD + b"Content-Length: 8\r\n\r\n" + GOOD)
                assert taken_apart(connection.recv(4096)) == [(200, {"y": 2.0})]
        until(lambda: not asked())


def test_a_refusal_that_many_get_keeps_nothing_of_what_they_asked(asked):
    """One that is kept for all and raised again and again would keep each frame that it came through, and the records in it."""
    records, begun, go = b"[" + b",".join([GOOD] * MOST_ROWS) + b"]", threading.Event(), threading.Event()

    def held(x):
        begun.set()
        assert go.wait(60)
        return x

    host = FunctionHost(held, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    pipeline = InferencePipeline(MemorySource({"x": [0.0]}), host, MemoryDestination())
    with (
        pipeline.serving() as server,
        ThreadPoolExecutor(2) as pool,
        httpx.Client(base_url=server.url, headers=JSON) as client,
    ):
        admitted = [pool.submit(client.post, "/predict", content=records)]
        assert begun.wait(60)
        admitted.append(pool.submit(client.post, "/predict", content=records))
        until(lambda: server.waiting)
        refused = [client.post("/predict", content=records).status_code for _ in range(6)]
        go.set()
        assert [one.result().status_code for one in admitted] == [200, 200]
    assert refused == [503] * 6
    assert all(one.__traceback__ is None for one in (BUSY, ENDS, NOT_STORED, SHARE_TAKEN))
    until(lambda: len(asked()) <= 1)


def test_what_is_kept_for_all_is_never_raised_itself():
    for file in Path(_refusals.__file__).parent.glob("*.py"):
        assert not re.search(
            r"raise (BUSY|ENDS|FULL|NOT_STORED|SHARE_TAKEN)\b(?!\.anew)", file.read_text()
        ), file


def waiting(server):
    """Bytes of answers that its connections hold."""
    return sum(one._transport.get_write_buffer_size() for one in list(server.listener._connections))


def until(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def taken(client):
    """How many bytes come before the end."""
    found = 0
    with suppress(ConnectionResetError):
        while piece := client.recv(2**20):
            found += len(piece)
    return found


def test_there_are_so_many_connections_and_no_more(monkeypatch):
    room = 100
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2 * room, 2 * room))
    monkeypatch.setattr("mlinfer._online._listener.SILENT_SECONDS", 60)
    with made().serving() as server, ExitStack() as stack:
        for _ in range(room):
            connection = stack.enter_context(connected(server))
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        assert "too many connections" in refused(server, b"", 503, end=False)


@pytest.mark.parametrize(
    "said", [b"", b"GET /live HTTP/1.1\r\n", b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
def test_of_many_who_say_nothing_none_keeps_out_those_who_ask(monkeypatch, said):
    """Whoever has said nothing for longest makes room, whatever he said before; whoever has a request under way does not."""
    room = 10
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2 * room, 2 * room))
    monkeypatch.setattr("mlinfer._online._listener.SILENT_SECONDS", 0.2)
    with made().serving() as server, ExitStack() as stack:
        busy = stack.enter_context(connected(server))
        busy.sendall(HEAD + b"Content-Length: 8\r\n\r\n")
        until(lambda: in_phase(server, "body") == 1)
        silent, phase = [], "head" if said.endswith(b"1.1\r\n") else "idle"
        for number in range(1, room):
            silent.append(stack.enter_context(connected(server)))
            silent[-1].sendall(said)
            if said.endswith(b"\r\n\r\n"):
                assert silent[-1].recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            until(lambda number=number: in_phase(server, phase) == number)
            time.sleep(0.02)
        time.sleep(0.3)
        for _ in range(3):
            one = stack.enter_context(connected(server))
            one.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        busy.sendall(GOOD)
        assert busy.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        assert [parted(one) for one in silent] == [True] * 3 + [False] * (room - 4)


def in_phase(server, phase):
    """How many connections are."""
    return [one.phase for one in list(server.listener._connections)].count(phase)


def parted(client):
    """Whether the server has ended the connection."""
    client.settimeout(0.1)
    try:
        while client.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    ("begun", "patience", "statuses"),
    [
        (b"", Patience(idle=0.2), []),
        (b"POST /", Patience(head=0.2), []),
        (HEAD + b"X: ", Patience(head=0.2), []),
        (HEAD + b"Content-Length: 5000\r\n\r\n", Patience(body=0.2), [408]),
    ],
    ids=["silent", "request line", "headers", "body"],
)
def test_whoever_drips_is_cut_off(begun, patience, statuses):
    with serving(made().job, Serving("127.0.0.1:0"), patience) as server, connected(server) as connection:
        connection.sendall(begun)
        connection.settimeout(0.02)
        text, drips = b"", 0
        while drips < 400:
            try:
                with suppress(TimeoutError):
                    piece = connection.recv(4096)
                    text += piece
                    if not piece:
                        break
                    continue
                drips += 1
                if begun:
                    connection.sendall(b"a")
            except ConnectionError:  # it may come while a byte is sent, too
                break
        assert drips < 400, "the server waits for ever"
        assert [status for status, _ in taken_apart(text)] == statuses


def test_a_request_that_still_comes_in_does_not_hold_up_the_end():
    before = set(threading.enumerate())
    with ExitStack() as stack:
        with serving(made().job, Serving("127.0.0.1:0"), Patience(stop=0.1)) as server:
            connection = stack.enter_context(connected(server))
            connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 99\r\n\r\n")
            assert connection.recv(25, socket.MSG_WAITALL).endswith(b"Continue\r\n\r\n")
        assert [status for status, _ in taken_apart(connection.makefile("rb").read())] == [503]
    assert not set(threading.enumerate()) - before


def test_a_client_that_leaves_while_the_model_works_costs_nobody_in_its_batch(caplog):
    """The answer to the one who left finds a closed connection; those behind it in the batch must get theirs."""
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def slow(x):
        begun.release()
        assert go.acquire(timeout=40)
        return {"y": x}

    host = FunctionHost(slow, {"x": "double"}, {"y": "double"}, takes="numpy", version="1")
    pipeline = InferencePipeline(MemorySource({"x": [0.0]}), host, MemoryDestination())
    with pipeline.serving() as server, ExitStack() as stack:
        port = int(server.url.rpartition(":")[2])
        first, leaves, stays = (
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(3)
        )
        for waiting, (one, x) in enumerate([(first, 1), (leaves, 2), (stays, 3)]):
            body = b'{"x": %d}' % x
            one.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
            one.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            if waiting == 0:
                assert begun.acquire(timeout=40)
            until(lambda waiting=waiting: server.waiting == waiting)
        go.release()
        assert begun.acquire(timeout=40)  # the two of them, in one batch
        leaves.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaves.close()
        until(lambda: server.listener.connections == 2)
        go.release()
        assert stays.recv(4096).endswith(b'{"y":3.0}')
    assert "unexpectedly" not in caplog.text
