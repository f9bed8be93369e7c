"""What a server tells about itself: OpenAPI, a page, metrics, readiness, and a line per request."""

import base64
import hashlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from html.parser import HTMLParser

import httpx
import jsonschema
import pyarrow as pa
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import mlinfer
from mlinfer import ComponentError, InferencePipeline
from mlinfer._cli import main
from mlinfer._cli._admin import admin
from mlinfer._cli._console import Console
from mlinfer._online import Nowhere
from mlinfer._online._keys import new_key
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost, SklearnHost, _sklearn
from mlinfer.sources import IterableSource, MemorySource

INPUTS = pa.schema(
    [
        pa.field("x", pa.float64(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field('a "<b>', pa.string()),
        pa.field("yes", pa.bool_()),
        pa.field("v", pa.list_(pa.float64(), 2)),
        pa.field("at", pa.timestamp("us")),
    ]
)
GOOD = {"x": 1.5, "n": 2, 'a "<b>': None, "yes": True, "v": [1, 2], "at": "2013-01-01T00:00:00"}


def pipeline(function=None, inputs=INPUTS, **more):
    function = function or (lambda records: {"y": records.column("x"), "w": records.column("v")})
    outputs = pa.schema([pa.field("y", pa.float64()), pa.field("w", pa.list_(pa.float64(), 2))])
    host = FunctionHost(function, inputs, outputs, version="1")
    return InferencePipeline(IterableSource(nothing), host, MemoryDestination(), **more)


def nothing():
    """A source that nobody reads."""
    yield from ()


@pytest.fixture(scope="module")
def server():
    with pipeline().serving() as server:
        yield server


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    x, y = load_iris(return_X_y=True)
    path = tmp_path_factory.mktemp("model") / "iris.mlinfer"
    mlinfer.save(LogisticRegression(max_iter=500).fit(x, y), path, example=x, name="iris")
    return path


def alone(package):
    x, _ = load_iris(return_X_y=True)
    return InferencePipeline(MemorySource(x), SklearnHost(package), MemoryDestination())


# --- OpenAPI --------------------------------------------------------------------------------------------------------


def schema_of(document, name):
    return {"$ref": f"#/components/schemas/{name}", **document}


def test_the_document_is_openapi_and_true(server):
    document = httpx.get(f"{server.url}/openapi.json").json()
    validate(document)
    jsonschema.validate(GOOD, schema_of(document, "Record"))
    found = httpx.post(f"{server.url}/predict", json=GOOD)
    jsonschema.validate(found.json(), schema_of(document, "Answer"))
    for name, value in (("x", "text"), ("x", None), ("n", 1.5), ("yes", 1), ("v", [1, 2, 3])):
        bad = {**GOOD, name: value}
        refused = httpx.post(f"{server.url}/predict", json=bad)
        assert refused.status_code == 422, name
        jsonschema.validate(refused.json(), schema_of(document, "Refusal"))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema_of(document, "Record"))


def test_texts_and_bytes_are_described_in_whatever_layout_the_model_asks_for_them():
    kinds = {"plain": (pa.string(), pa.binary()), "large": (pa.large_string(), pa.large_binary())}
    kinds |= {"view": (pa.string_view(), pa.binary_view()), "fixed": (pa.string(), pa.binary(2))}
    for text, octets in kinds.values():
        inputs = pa.schema([pa.field("t", text, nullable=False), pa.field("b", octets, nullable=False)])
        host = FunctionHost(
            lambda records: {"t": records["t"], "b": records["b"]}, inputs, inputs, version="1"
        )
        made = InferencePipeline(IterableSource(nothing), host, MemoryDestination())
        with made.serving() as server, httpx.Client(base_url=server.url) as client:
            schemas = client.get("/openapi.json").json()["components"]["schemas"]
            for name in ("Record", "Answer"):
                assert schemas[name]["properties"] == {
                    "t": {"type": "string"},
                    "b": {"type": "string", "contentEncoding": "base64"},
                }
            record = {"t": "a", "b": "YWI="}
            assert client.post("/predict", json=record).json() == record


def test_the_margins_of_a_host_are_named_columns_of_its_answers_and_of_the_document():
    """A host has them as further columns; nothing on the way makes less of them."""

    def ridge(x):
        return {"y_pred": 2 * x, "y_lower": 2 * x - 1, "y_upper": 2 * x + 1}

    names = ["y_pred", "y_lower", "y_upper"]
    host = FunctionHost(
        ridge, {"x": pa.float64()}, dict.fromkeys(names, pa.float64()), takes="numpy", version="1"
    )
    made = InferencePipeline(MemorySource({"x": [0.0]}), host, MemoryDestination())
    with made.serving() as server, httpx.Client(base_url=server.url) as client:
        document = client.get("/openapi.json").json()
        answer = client.post("/predict", json={"x": 3}).json()
        assert answer == {"y_pred": 6.0, "y_lower": 5.0, "y_upper": 7.0}
        assert list(document["components"]["schemas"]["Answer"]["properties"]) == names
        jsonschema.validate(answer, schema_of(document, "Answer"))
        outputs = client.get("/v2/models/ridge").json()["outputs"]
        assert [one["name"] for one in outputs] == names


def test_a_package_shows_its_example_and_can_answer_it(package):
    with alone(package).serving() as server, httpx.Client(base_url=server.url) as client:
        document = client.get("/openapi.json").json()
        validate(document)
        example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"][
            "example"
        ]
        assert len(example["x"]) == 4
        assert client.post("/predict", json=example).json() == {"y_pred": 0}
        assert json.dumps(example["x"]) in client.get("/docs").text


def test_with_keys_the_document_says_so(tmp_path):
    key, line = new_key("ann")
    (tmp_path / "keys.toml").write_text(line)
    with pipeline().serving(keys=tmp_path / "keys.toml") as server:
        headers = {"Authorization": f"Bearer {key}"}
        document = httpx.get(f"{server.url}/openapi.json", headers=headers).json()
    validate(document)
    assert document["paths"]["/predict"]["post"]["security"] == [{"key": []}]


# --- the page -------------------------------------------------------------------------------------------------------


class Parts(HTMLParser):
    """What stands in a page: its elements with their attributes, and the text inside style and script."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.inside = [], {}, None
        self.all = defaultdict(list)
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        self.texts.setdefault(self.inside, data)
        self.all[len(self.found) - 1].append(data)


def test_the_page_has_a_field_for_each_input_and_takes_nothing_from_elsewhere(server):
    found = httpx.get(f"{server.url}/docs")
    assert found.headers["Content-Type"] == "text/html; charset=utf-8"
    parts = Parts(found.text)
    named = [attrs["data-name"] for _, attrs in parts.found if "data-name" in attrs]
    assert named == INPUTS.names
    for tag, attrs in parts.found:
        assert "src" not in attrs, tag
        assert attrs.get("href", "openapi.json") == "openapi.json"
        assert not [name for name in attrs if name.startswith("on") or name == "style"], tag


SPELLED = pa.record_batch(
    {
        "at": pa.array(["2024-02-29T12:30"]).cast(pa.timestamp("us")),
        "day": pa.array(["2024-02-29"]).cast(pa.date32()),
        "price": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
        "who": pa.array(['1 "Ä"']),
        "place": pa.array([{"lat": 1.5, "name": "ß"}]),
        "share": pa.array([{"a": 1}], pa.map_(pa.string(), pa.int64())),
        "v": pa.array([[1.0, None]]),
        "yes": pa.array([True]),
        "raw": pa.array([b"\x00"]),
    }
)


class Exemplary:
    """A host that knows a record of every kind, and answers records with themselves."""

    @contextmanager
    def open(self):
        fields = [field.with_name(f"the_{field.name}") for field in SPELLED.schema]
        host = FunctionHost(lambda records: records.rename_columns([f.name for f in fields]),
                            SPELLED.schema, pa.schema(fields), version="1")  # fmt: skip
        with host.open() as model:
            yield Knowing(model)


class Knowing:
    def __init__(self, model):
        self.signature, self.infer = model.signature, model.infer

    def example(self):
        return SPELLED


def typed_in(parts):
    """What the script of the page sends when nothing is changed in its form."""
    record = {}
    for number, (tag, attrs) in enumerate(parts.found):
        if "data-name" in attrs:
            chosen = [one for one in parts.all[number] if one] if tag == "textarea" else []
            text = chosen[0] if chosen else attrs.get("value", "true")
            record[attrs["data-name"]] = text if "data-text" in attrs else json.loads(text)
    return record


def test_the_example_in_the_form_of_the_page_is_a_record_that_is_answered():
    made = InferencePipeline(IterableSource(nothing), Exemplary(), MemoryDestination())
    with made.serving() as server, httpx.Client(base_url=server.url) as client:
        record = typed_in(Parts(client.get("/docs").text))
        assert list(record) == SPELLED.schema.names
        found = client.post("/predict", json=record)
        assert found.status_code == 200, found.text
        document = client.get("/openapi.json").json()
        jsonschema.validate(record, schema_of(document, "Record"))
        jsonschema.validate(found.json(), schema_of(document, "Answer"))
        assert found.json() == {f"the_{name}": value for name, value in record.items()}
        console = Console(made, why_not=None, log="behind")
        console.url = server.url
        facts = json.loads(console.get("/pipeline")[2])
        fields = {field["name"]: field["kind"] for field in facts["form"]}
        assert {name for name, kind in fields.items() if kind == "object"} == {"place", "share"}


def test_the_page_may_run_its_own_script_and_nothing_else(server):
    found = httpx.get(f"{server.url}/docs")
    parts = Parts(found.text)
    policy = dict(rule.split(" ", 1) for rule in found.headers["Content-Security-Policy"].split("; "))
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parts.texts[tag].encode()).digest()).decode()
        assert policy.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert policy.pop("connect-src") == "'self'"
    assert set(policy.values()) == {"'none'"}
    assert "default-src" in policy


# --- metrics and readiness ------------------------------------------------------------------------------------------


def metrics(text):
    return {
        (sample.name.removeprefix("mlinfer_serve_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_metrics_are_those_of_what_was_asked():
    with (
        pipeline().serving() as server,
        httpx.Client(base_url=server.url) as client,
        admin("127.0.0.1:0", server, server, anywhere=False) as url,
    ):
        for _ in range(3):
            assert client.post("/predict", json=[GOOD, GOOD]).status_code == 200
        client.post("/predict", json=[GOOD, {**GOOD, "x": None}, {**GOOD, "n": "text"}])
        client.get("/nothing")
        client.get("/live")  # on a connection that stays open
        found = metrics(httpx.get(f"{url}/metrics").text)
        assert client.get("/metrics").status_code == 404, "metrics are no business of the main port"
    assert found["requests_total", "/predict", "200"] == 3
    assert found["requests_total", "/predict", "422"] == 1
    assert found["requests_total", "other", "404"] == 1
    assert found["rows_total",] == 6
    assert found["rejects_total", "missing_value"] == 1
    assert found["rejects_total", "wrong_type"] == 1
    assert [found[f"{name}_count",] for name in ("queue_seconds", "infer_seconds", "batch_rows")] == [4, 4, 4]
    assert found["batch_rows_sum",] == 9
    assert found["batch_rows_bucket", "2"] == 3
    assert found["batch_rows_bucket", "+Inf"] == 4
    assert found["queue_requests",] == 0
    assert found["connections",] == 1
    assert found["log_dropped",] == 0


def test_it_is_unready_first_and_then_finishes():
    begun, opened = threading.Event(), threading.Event()

    def gated(records):
        begun.set()
        opened.wait()
        return {"y": records.column("x"), "w": records.column("v")}

    with ThreadPoolExecutor(2) as threads:
        serving = pipeline(gated).serving()
        server = serving.__enter__()
        with admin("127.0.0.1:0", server, server, anywhere=False) as url:
            assert httpx.get(f"{url}/ready").status_code == 200
            asked = threads.submit(httpx.post, f"{server.url}/predict", json=GOOD)
            begun.wait()
            ended = threads.submit(serving.__exit__, None, None, None)
            while httpx.get(f"{url}/ready").status_code == 200:
                threading.Event().wait(0.001)
            assert not asked.done()
            assert not ended.done()
            opened.set()
            assert asked.result().json()["y"] == 1.5
            ended.result()


def test_it_is_ready_only_when_the_example_was_answered(package, monkeypatch):
    asked = []
    with alone(package).serving() as server:
        assert server.ready
        assert metrics(server.exposition().decode())["rows_total",] == 0, "the example is nobody's request"
    monkeypatch.setattr(
        _sklearn.SklearnArrays, "infer_arrays", lambda self, columns: asked.append(columns) or 1 / 0
    )
    with pytest.raises(ComponentError, match="its own example"), alone(package).serving():
        pass
    assert asked


def test_the_folder_of_a_pipeline_is_no_model_and_its_file_is_told(tmp_path, capsys):
    (tmp_path / "pipeline.toml").write_text('name = "flowers"')
    assert main(["serve", str(tmp_path)]) == 2
    told = "wanted a pipeline in TOML or a saved model (a folder with manifest.json), found a folder with pipeline.toml"
    assert told in capsys.readouterr().err


def test_an_address_of_the_admin_that_is_taken_is_told_in_words(package, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["serve", str(package), "--bind", "127.0.0.1:0", "--admin-bind", where]) == 2
    assert (
        f"wanted to listen at {where}, found that this is not possible: Address already in use; take another one"
        in capsys.readouterr().err
    )


def test_the_command_serves_probes_and_metrics_beside_the_model(package, tmp_path):
    command = [sys.executable, "-m", "mlinfer", "serve", package, "--bind", "127.0.0.1:0", "--access-log",
               "--admin-bind", "127.0.0.1:0"]  # fmt: skip
    taken = subprocess.run(
        [*command[:-1], "0.0.0.0:0"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert taken.returncode == 2
    assert "--insecure-bind" in taken.stderr
    for option in (["--log", "before_reply"], ["--log-sample", "0.5"]):
        no_log = subprocess.run(
            [*command, *option], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (no_log.returncode, "has no log" in no_log.stderr) == (2, True)
    server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        url = re.search(r"http://\S+:\d+", server.stderr.readline())[0]
        assert (
            httpx.get(f"{url}/ready", headers={"X-Request-Id": "probe-1"}).headers["X-Request-Id"]
            == "probe-1"
        )
        assert "GET /ready 200 rows=0" in server.stderr.readline()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()


def test_the_console_says_of_a_model_that_is_served_alone_that_nothing_is_kept():
    def said(pipeline, log):
        facts = json.loads(Console(pipeline, why_not=None, log=log).get("/pipeline")[2])
        return facts["flow"][-1]["name"], facts["flow"][-1]["detail"], facts["logged"]

    unlogged = InferencePipeline(IterableSource(nothing), pipeline().job.host, Nowhere())
    assert said(unlogged, "behind") == ("none", "answers are not kept", "nowhere")
    assert said(pipeline(), "behind")[::2] == ("MemoryDestination", "behind the reply")
    assert said(pipeline(), "before_reply")[::2] == ("MemoryDestination", "before the reply")


def test_the_console_shows_both_ways_on_which_requests_come():
    console = Console(pipeline(), why_not="asked elsewhere", log="behind")
    assert json.loads(console.get("/pipeline")[2])["flow"][0]["name"] == "HTTP"
    with pipeline().serving(grpc_bind="127.0.0.1:0") as server:
        console.url, console.grpc_address = server.url, server.grpc_address
        shown = json.loads(console.get("/pipeline")[2])["flow"][0]
    detail = f"{server.url}, {server.grpc_address}"
    assert shown == {"role": "Requests", "name": "HTTP, gRPC", "detail": detail}


# --- the access log -------------------------------------------------------------------------------------------------


def test_a_line_per_request_says_all_but_what_the_records_hold(caplog):
    with (
        caplog.at_level(logging.INFO, "mlinfer.access"),
        pipeline().serving(access_log=True) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        secret = {**GOOD, 'a "<b>': "hunter2"}
        found = client.post("/predict", json=[secret, secret], headers={"X-Request-Id": "abc-1"})
        assert found.headers["X-Request-Id"] == "abc-1"
        other = client.post("/predict", json={**secret, "x": None}, headers={"X-Request-Id": "forged\tid"})
        client.get("/hunter2?hunter2")
    lines = [record.getMessage() for record in caplog.records if record.name == "mlinfer.access"]
    assert re.fullmatch(r"POST /predict 200 rows=2 ms=\d+\.\d{3} key=- id=abc-1", lines[0])
    assert re.fullmatch(r"POST /predict 422 rows=1 ms=\d+\.\d{3} key=- id=[0-9a-f]{16}", lines[1])
    assert lines[1].endswith(other.headers["X-Request-Id"])
    assert lines[2].startswith("- - 404 ")
    assert "hunter2" not in caplog.text


def test_a_line_says_the_milliseconds_of_a_quick_request_too(caplog):
    with (
        caplog.at_level(logging.INFO, "mlinfer.access"),
        pipeline().serving(access_log=True) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for _ in range(10):
            client.get("/live")
    told = [re.search(r" ms=(\S+)", record.getMessage())[1] for record in caplog.records]
    assert any(not one.endswith(".000") for one in told), told


def test_without_the_option_nothing_is_logged(caplog):
    with caplog.at_level(logging.INFO), pipeline().serving() as server:
        assert "X-Request-Id" not in httpx.post(f"{server.url}/predict", json=GOOD).headers
    assert not [record for record in caplog.records if record.name.startswith("mlinfer")]
