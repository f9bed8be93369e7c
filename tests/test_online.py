"""The server's promises about answers: whose they are, what a refusal says, what is logged, how it ends."""

import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

import mlinfer
from mlinfer import (
    ConfigError,
    DataDestination,
    InferencePipeline,
    Scope,
    Stop,
    TransientError,
    Workers,
)
from mlinfer._engine import Delivery, Step
from mlinfer._isolate import KINDS
from mlinfer._layout import lay_out
from mlinfer._online import Serving, serving
from mlinfer._online._desk import Ask, Desk
from mlinfer._online._listener import Listener, LoopThread
from mlinfer._online._memory import memory_limit
from mlinfer._online._pace import Pace
from mlinfer._online._predict import Given, Rows
from mlinfer._online._refusals import OWN_WORDS
from mlinfer._online._server import Alone
from mlinfer._online._wire import Patience, Refused
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource
from ports import free_port

NAUGHTY = Path(__file__).parents[2] / "shared" / "corpora" / "naughty_strings.json"
KNOWN = MemorySource({"who": ["nobody"], "x": [0.0]})
INPUTS = pa.schema(
    [pa.field("who", pa.string(), nullable=False), pa.field("x", pa.float64(), nullable=False)]
)
OUTPUTS = pa.schema([pa.field("whose", pa.string()), pa.field("y", pa.float64())])


def double(records):
    return {"whose": records.column("who"), "y": [2 * x.as_py() for x in records.column("x")]}


def pipeline(function=double, destination=None, *, inputs=INPUTS, outputs=OUTPUTS, **more):
    host = FunctionHost(function, inputs, outputs, version="1")
    return InferencePipeline(KNOWN, host, destination or MemoryDestination(), **more)


@contextmanager
def client_of(made):
    with made.serving() as server, httpx.Client(base_url=server.url) as client:
        yield client


def row(who, x=1.0):
    return {"who": who, "x": x}


# --- whose answers --------------------------------------------------------------------------------------------------


def test_a_record_gets_an_answer_and_a_list_gets_a_list_in_order():
    with client_of(pipeline(keep=["x"])) as client:
        assert client.post("/predict", json=row("a", 3)).json() == {"x": 3.0, "whose": "a", "y": 6.0}
        many = client.post("/predict", json=[row(str(n), n) for n in range(500)]).json()
    assert [(one["whose"], one["y"]) for one in many] == [(str(n), 2.0 * n) for n in range(500)]


def test_a_server_does_not_wait_for_what_only_answers_of_many_records_need():
    code = """
import sys, threading
asked = []
sys.addaudithook(
    lambda event, given: event == "import" and given[0] == "pyarrow.compute" and asked.append(threading.current_thread().name)
)
from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource
host = FunctionHost(lambda r: {"o": r["v"]}, {"v": "int64"}, {"o": "int64"}, version="1")
with InferencePipeline(MemorySource({"v": [1]}), host, MemoryDestination(), name="p").serving():
    print(set(asked))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout in {"set()\n", "{'mlinfer-import'}\n"}


def test_nobody_gets_a_neighbours_answer_while_requests_share_batches():
    sizes = []

    def slow(records):
        sizes.append(records.num_rows)
        while (
            len(sizes) == 1 and server.waiting < 6
        ):  # the next batch holds several, however slow their clients are
            time.sleep(0.001)
        time.sleep(0.005)
        return double(records)

    def caller(number):
        with httpx.Client(base_url=server.url) as client:
            for turn in range(8):
                mine = [row(f"{number}/{turn}/{n}", number + n / 8) for n in range(1 + (number + turn) % 3)]
                bad = (number + turn) % 4 == 0
                sent = [*mine, row(f"{number}/bad", None)] if bad else mine
                found = client.post("/predict", json=sent)
                if bad:
                    assert found.status_code == 422
                    assert [(one["row"], one["kind"]) for one in found.json()["records"]] == [
                        (len(mine), "missing_value")
                    ]
                else:
                    assert found.json() == [{"whose": one["who"], "y": 2 * one["x"]} for one in mine]

    with pipeline(slow).serving() as server, ThreadPoolExecutor(12) as threads:
        for done in [threads.submit(caller, number) for number in range(12)]:
            done.result()
    assert max(sizes) > 4, "no batch held more than one request: nothing was tried"


class Caller(Future):
    """Whoever asked the desk: what it was answered, or refused."""

    alone = False

    def answer(self, data, kind=None, more=()):
        self.set_result(json.loads(data))

    def refuse(self, refused):
        self.set_exception(refused)


class Asked:
    """A desk on a loop of its own, as a server has it."""

    def __init__(self, model, log, **limits):
        layout = lay_out(model.signature, None)
        self._form = Rows(layout.wanted)
        self._loop = LoopThread("desk")

        async def made():
            return Desk(Step(model, layout, 1000), log, **limits)

        self.desk = self._loop.do(made)

    def ask(self, rows):
        caller = Caller()

        async def put():
            self.desk.put(Ask(self._form, Given(rows, single=False), len(rows), caller))

        self._loop.do(put)
        return caller

    def close(self):
        self.desk.close()
        self._loop.close()


@contextmanager
def a_full_desk(function, requests):
    """A desk whose first batch holds these requests, and what became of each."""
    opened, log = threading.Event(), []
    calls = []

    def gated(records):
        calls.append(records.num_rows)
        opened.wait()
        return function(records)

    with FunctionHost(gated, INPUTS, OUTPUTS, version="1").open() as model:
        desk = Asked(model, log.append, max_rows=1000)
        plug = desk.ask([row("plug")])
        while not calls:
            threading.Event().wait(0.001)
        asked = [desk.ask(rows) for rows in requests]
        opened.set()
        plug.result(30)
        for caller in asked:
            caller.exception(30)
        desk.close()
        yield asked, calls, log


def whose(caller):
    return [one["whose"] for one in caller.result()]


def reasons(caller):
    return [(one["row"], one["kind"]) for one in json.loads(caller.exception().data)["records"]]


def test_a_bad_record_fails_its_request_and_no_other_in_the_same_batch():
    requests = [[row("a")], [row("b"), row("c", None)], ["not a record", row("d")], [row("e"), row("f")]]
    with a_full_desk(double, requests) as (asked, calls, log):
        good, missing, wrong, pair = asked
        assert whose(good) == ["a"]
        assert whose(pair) == ["e", "f"]
        assert reasons(missing) == [(1, "missing_value")]
        assert reasons(wrong) == [(0, "wrong_type")]
    assert calls == [1, 5], "the requests did not share a batch"
    logged = [name for answers in log for name in answers.batch.records.column("whose").to_pylist()]
    assert logged == ["plug", "a", "e", "f"], "the log holds what was answered and nothing else"


def test_a_request_that_breaks_the_model_leaves_its_neighbours_alone():
    def fragile(records):
        if "poison" in records.column("who").to_pylist():
            raise mlinfer.ComponentError("the model is broken")
        return double(records)

    with a_full_desk(fragile, [[row("a")], [row("poison")], [row("b")]]) as (asked, _, _):
        assert whose(asked[0]) == ["a"]
        assert whose(asked[2]) == ["b"]
        assert asked[1].exception().status == 500


class Counting:
    """A host whose model answers with the sum of all that it was given, and refuses what is negative when it has added it."""

    signature = mlinfer.Signature(
        pa.schema([("x", pa.float64())]), pa.schema([("y", pa.float64())]), "sum", "1", "1"
    )

    @contextmanager
    def open(self):
        self.sum = 0.0
        yield self

    def infer(self, records):
        sums = []
        for x in records.column("x").to_pylist():
            self.sum += x
            if x < 0:
                raise ValueError("negative")
            sums.append(self.sum)
        return pa.record_batch({"y": sums})

    def snapshot(self):
        return str(self.sum).encode()

    def restore(self, state):
        self.sum = float(state)


def test_what_failed_attempts_left_in_a_memory_is_undone_from_the_first_request_on():
    made = InferencePipeline(MemorySource({"x": [0.0]}), Counting(), MemoryDestination())
    with made.serving() as server, httpx.Client(base_url=server.url) as client:
        for begun in (0, 1):
            assert client.post("/predict", json=[{"x": -1}]).status_code == 422
            assert client.post("/predict", json={"x": 1}).json() == {"y": begun + 1.0}


def test_a_number_too_exact_for_a_neighbours_column_type_changes_nothing():
    requests = [[row("a", 2**53 + 1)], [row("b", 0.5)], [row("c", 1.5), row("d", True)]]
    with a_full_desk(double, requests) as (asked, _, _):
        assert asked[0].result()[0]["y"] == 2.0 * float(2**53 + 1)
        assert asked[1].result()[0]["y"] == 1.0
        assert reasons(asked[2]) == [(1, "wrong_type")]


def test_a_full_desk_says_so_at_once_and_a_request_larger_than_its_room_gets_in_alone():
    opened = threading.Event()

    def gated(records):
        opened.wait()
        return double(records)

    with FunctionHost(gated, INPUTS, OUTPUTS).open() as model:
        desk = Asked(model, lambda _: None, max_rows=1)
        first = desk.ask([row("in the model")])
        while not desk.desk.busy or desk.desk._waiting:
            threading.Event().wait(0.001)
        waiting = desk.ask([row("a"), row("b")])
        with pytest.raises(Refused, match="too much to do"):
            desk.ask([row("late")])
        opened.set()
        assert whose(first) + whose(waiting) == ["in the model", "a", "b"]
        desk.close()


def test_an_answer_that_came_too_late_is_not_given_to_the_next_request():
    opened = threading.Event()

    def gated(records):
        opened.wait()
        return double(records)

    with (
        pipeline(gated).serving() as server,
        httpx.Client(base_url=server.url) as client,  # one connection
        ThreadPoolExecutor(1) as threads,
    ):
        late = client.post("/predict", json=row("late"), headers={"Request-Timeout": "0.3"})
        assert late.status_code == 503
        asked = threads.submit(client.post, "/predict", json=row("next"))
        while server.waiting < 1:
            threading.Event().wait(0.001)
        opened.set()
        assert asked.result().json()["whose"] == "next"


@pytest.mark.parametrize(("seconds", "status"), [("0.05", 503), ("30", 200)])
def test_what_cannot_be_answered_in_time_is_refused_before_it_queues(seconds, status):
    begun, opened = threading.Event(), threading.Event()
    opened.set()

    def gated(records):
        begun.set()
        opened.wait()
        time.sleep(0.2)
        return double(records)

    with pipeline(gated).serving() as server, ThreadPoolExecutor(2) as threads:
        url = f"{server.url}/predict"
        assert httpx.post(url, json=row("shows how slow it is")).status_code == 200
        opened.clear()
        begun.clear()
        first = threads.submit(httpx.post, url, json=row("first"))
        begun.wait()
        second = threads.submit(httpx.post, url, json=row("second"), headers={"Request-Timeout": seconds})
        try:
            while not (second.done() or (status == 200 and server.waiting == 1)):
                time.sleep(0.01)
        finally:
            opened.set()
        found = second.result()
        assert found.status_code == status
        if status == 503:
            assert "to answer in time" in found.text, "it queued until its time had passed"
            assert int(found.headers["Retry-After"]) >= 1
        assert first.result().status_code == 200


def test_the_smallest_limit_of_a_control_group_and_those_above_it_counts(tmp_path):
    own, here = tmp_path / "cgroup", tmp_path / "sys" / "pod" / "box"
    here.mkdir(parents=True)
    own.write_text("0::/pod/box\n")
    (here / "memory.max").write_text("max\n")
    assert memory_limit(tmp_path / "sys", own) is None
    (here.parent / "memory.max").write_text("1000\n")
    (tmp_path / "sys" / "memory.max").write_text("2000\n")
    assert memory_limit(tmp_path / "sys", own) == 1000


def test_where_memory_is_short_requests_are_taken_one_at_a_time(monkeypatch):
    # a group that small cannot be had
    monkeypatch.setattr("mlinfer._online._listener.memory_limit", lambda: 1)
    begun, opened = threading.Event(), threading.Event()

    def gated(records):
        begun.set()
        opened.wait()
        return double(records)

    with pipeline(gated).serving() as server, ThreadPoolExecutor(1) as threads:
        url = f"{server.url}/predict"
        first = threads.submit(httpx.post, url, json=row("first"))
        begun.wait()
        while not server.listener._short:
            threading.Event().wait(0.001)
        try:
            assert httpx.post(url, json=row("second")).status_code == 503
        finally:
            opened.set()
        assert first.result().status_code == 200
        assert httpx.post(url, json=row("third")).status_code == 200


@pytest.mark.parametrize("said", ["0", "-1", "soon", "1e3", "1, 2", ""])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(said):
    with client_of(pipeline()) as client:
        found = client.post("/predict", json=row("a"), headers={"Request-Timeout": said})
        assert (found.status_code, "Request-Timeout" in found.text) == (400, True)


# --- what comes back ------------------------------------------------------------------------------------------------


def test_answers_without_a_finite_number_are_json_all_the_same():
    outputs = pa.schema([mlinfer.nonfinite(pa.field("y", pa.float64()))])
    made = pipeline(lambda records: {"y": [float("nan")]}, outputs=outputs)
    with client_of(made) as client:
        text = client.post("/predict", json=row("a")).text
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) == {"y": None}


def test_an_unusable_answer_is_refused_by_row():
    made = pipeline(lambda records: {"whose": ["a", "b"], "y": [1.0, float("inf")]})
    with client_of(made) as client:
        found = client.post("/predict", json=[row("a"), row("b")])
    assert found.status_code == 422
    assert [(one["row"], one["kind"]) for one in found.json()["records"]] == [(1, "bad_answer")]


@pytest.mark.skipif(not NAUGHTY.exists(), reason="the corpora are not beside the checkout")
def test_naughty_strings_come_back_as_they_went():
    texts = json.loads(NAUGHTY.read_text("utf-8"))
    with client_of(pipeline()) as client:
        together = client.post("/predict", json=[row(text) for text in texts])
        assert [one["whose"] for one in together.json()] == texts
        for text in texts[::25]:
            assert client.post("/predict", json=row(text)).json()["whose"] == text


def test_a_text_that_is_not_unicode_is_a_bad_record():
    with client_of(pipeline()) as client:
        body = b'[{"who": "a", "x": 1}, {"who": "\\ud800", "x": 1}]'
        found = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 422
    assert [(one["row"], one["kind"]) for one in found.json()["records"]] == [(1, "wrong_type")]


SECRET = "postgresql://app:hunter2@db\nforged line"


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError(SECRET), 422), (TimeoutError(SECRET), 422), (MemoryError(SECRET), 422),
     (ChildProcessError(SECRET), 422), (mlinfer.ComponentError(SECRET), 500), (TransientError(SECRET), 500),
     (SystemExit(SECRET), 422)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_a_model_raises_is_for_the_log_alone(error, status, caplog):
    def failing(records):
        if records.column("who")[0].as_py() == "bad":
            raise error
        return double(records)

    with client_of(pipeline(failing)) as client, caplog.at_level(logging.WARNING, "mlinfer"):
        found = client.post("/predict", json=row("bad"))
        assert client.post("/predict", json=row("good")).json()["whose"] == "good"
    assert found.status_code == status
    assert "hunter2" not in found.text
    assert "SystemExit" not in found.text
    told = [record for record in caplog.records if found.json()["id"] in record.getMessage()]
    assert len(told) == 1
    assert "hunter2" in told[0].getMessage() + caplog.text
    assert "\n" not in told[0].getMessage(), "a stranger's text must not forge lines of the log"


def dies_over_thirteen(records):
    if 13 in records.column("x").to_pylist():
        os.kill(os.getpid(), signal.SIGKILL)
    return double(records)


def test_a_model_that_dies_in_its_own_process_costs_one_request():
    with client_of(pipeline(dies_over_thirteen, workers=Workers(1, "process"))) as client:
        found = client.post("/predict", json=row("bad", 13))
        assert client.post("/predict", json=row("good")).json()["whose"] == "good"
    assert found.status_code == 422
    assert [one["kind"] for one in found.json()["records"]] == ["model_died"]


def hangs_over_thirteen(records):
    if 13 in records.column("x").to_pylist():
        time.sleep(60)
    return double(records)


def test_a_quick_model_that_hangs_once_holds_nobody_but_who_asks_it(caplog):
    caplog.set_level(logging.INFO, "mlinfer.access")
    with (
        pipeline(hangs_over_thirteen, timeout=6).serving(access_log=True) as server,
        httpx.Client(base_url=server.url) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        for _ in range(20):  # by now it counts as quick
            assert client.post("/predict", json=row("good")).status_code == 200
        hanging = pool.submit(client.post, "/predict", json=row("bad", 13))
        time.sleep(0.5)
        assert httpx.get(f"{server.url}/live").status_code == 200
        assert [one["kind"] for one in hanging.result().json()["records"]] == ["timeout"]
    lines = [one.getMessage() for one in caplog.records if one.name == "mlinfer.access"]
    assert [line.split()[1:3] for line in lines[20:]] == [["/live", "200"], ["/predict", "422"]]


def test_a_model_that_hangs_now_and_then_holds_up_the_others_ever_more_rarely():
    pace, held = Pace(), 0
    for number in range(100_000):
        hangs = number % 500 == 499
        held += hangs and pace.quick(1)
        pace.took(1, 1.0 if hangs else 0.0001)
    assert 1 <= held <= 5
    for _ in range(300_000):
        pace.took(1, 0.0001)
    assert pace.quick(1)


def test_a_model_that_is_quick_again_is_known_to_be_before_the_loop_comes_to_its_answers():
    """It may have thousands of requests to judge by it first, which were refused for what others had taken."""
    stands, noted = threading.Event(), threading.Event()

    def stand_still(desk, seconds):
        stands.set()
        until = time.monotonic() + 5
        while desk._pace.seconds(1) >= seconds and time.monotonic() < until:
            time.sleep(0.01)
        if desk._pace.seconds(1) < seconds:
            noted.set()

    def slow_at_first(records):
        if records.column("x")[0].as_py() < 0:
            time.sleep(0.2)
        else:
            desk = server.desk
            stands.clear()
            desk._loop.call_soon_threadsafe(stand_still, desk, desk._pace.seconds(1))
            stands.wait(5)
        return double(records)

    with pipeline(slow_at_first).serving() as server, httpx.Client(base_url=server.url) as client:
        for x in (
            -1.0,
            -1.0,
            -1.0,
            1.0,
            1.0,
            1.0,
            1.0,
            1.0,
        ):  # on a busy machine a quick answer may take as long
            assert client.post("/predict", json=row("a", x)).json() == {"whose": "a", "y": 2 * x}
            if noted.is_set():
                break
    assert noted.is_set()


def test_large_batches_that_take_long_do_not_make_small_ones_suspect():
    pace = Pace()
    for _ in range(50):
        pace.took(1, 0.0001)
        pace.took(10_000, 0.5)
    assert not pace.quick(10_000)
    assert pace.quick(1)


def test_every_reason_that_quotes_a_stranger_has_words_of_our_own():
    assert set(OWN_WORDS) == {*KINDS.values(), "model_error"}


def test_a_flood_of_bad_records_is_counted_and_the_first_are_named():
    with client_of(pipeline()) as client:
        found = client.post("/predict", json=[row("a", None)] * 5000).json()
    assert found["error"] == "5,000 bad records"
    assert [one["row"] for one in found["records"]] == list(range(100))


def test_where_a_value_is_missing_names_that_nobody_asked_for_are_told():
    named = {"who": "a", "X": 1.0, "y" * 5000: 2, "ypsilon": 3, "z": 4}
    with client_of(pipeline()) as client:
        several, wrapped, null, good = (
            client.post("/predict", json=body)
            for body in (
                [row("a", 1.0), named],
                {"instances": []},
                {**row("a", None), "z": 1},
                {**row("a", 1.0), "z": 1},
            )
        )
    assert several.status_code == wrapped.status_code == 422
    assert several.json()["error"].startswith("1 bad record; no field is called 'X', 'yyyyy")
    assert several.json()["error"].endswith(", 'ypsilon': /openapi.json has the names")
    assert len(several.content) < 1000
    assert [one["row"] for one in several.json()["records"]] == [1]
    assert (
        wrapped.json()["error"] == "1 bad record; no field is called 'instances': /openapi.json has the names"
    )
    assert null.json()["error"] == "1 bad record"  # it is there, and without a value: nothing is misspelt
    assert good.json() == {"whose": "a", "y": 2.0}


# --- where it listens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bind",
    ["0.0.0.0:0", "192.168.1.1:80", "[::]:80", "[::1]:80", "8.8.8.8:53", "example.com:80", "127.0.0.1", "127.0.0.1:",
     "127.0.0.1:-1", "127.0.0.1:65536", "127.0.0.1:1e3", "127.0.0.1:" + "9" * 5000, "", ":80"],
    ids=lambda bind: bind[:20],
)  # fmt: skip
def test_only_a_loopback_address_and_a_port_will_do(bind):
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:8080"), pipeline().serving(bind):
        pass


def test_a_taken_port_is_a_mistake_of_the_configuration():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ConfigError, match=f"{re.escape(bind)}.*take another one"),
            pipeline().serving(bind),
        ):
            pass


def test_of_two_servers_that_begin_at_once_at_one_address_one_is_told(monkeypatch):
    """Two sockets may be bound to an address as long as neither listens."""
    bound = Alone.listening
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def beaten(self, how):
            ours = bound(self, how)
            other.bind(ours.getsockname())
            other.listen()
            return ours

        monkeypatch.setattr(Alone, "listening", beaten)
        with pytest.raises(ConfigError, match=r"bind: wanted to listen at .*in use"), pipeline().serving():
            pass


def test_another_loopback_address_answers_under_its_own_name():
    with pipeline().serving("127.0.0.2:0") as server:
        assert httpx.get(f"{server.url}/live").json() == {"live": True}


# --- the log --------------------------------------------------------------------------------------------------------


def test_the_log_neither_fences_nor_advances_the_batch_run(tmp_path):
    from mlinfer.destinations import SqlDestination

    destination = SqlDestination(f"sqlite:///{tmp_path}/log.db", "answers", if_exists="append")
    made = pipeline(destination=destination, name="shop")
    with client_of(made) as client:
        client.post("/predict", json=[row("web"), row("app")])
        assert made.run().delivered == 1
        client.post("/predict", json=[row("bad", None)])
        client.post("/predict", json=row("late"))
    assert made.run().delivered == 0
    with client_of(made) as client:
        client.post("/predict", json=row("again"))
    with sqlite3.connect(tmp_path / "log.db") as database:
        found = [name for (name,) in database.execute("SELECT whose FROM answers")]
        names = {name for (name,) in database.execute("SELECT pipeline FROM mlinfer_epochs")}
    database.close()
    assert sorted(found) == ["again", "app", "late", "nobody", "web"]
    assert names == {"shop", "shop/serve"}


class Failing(DataDestination):
    """Fails as asked, and keeps what it could write in memory."""

    def __init__(self, *errors):
        self.errors, self.kept, self.opened = list(errors), [], 0

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope):
        self.opened += 1
        yield self

    def write(self, batch):
        if self.errors:
            raise self.errors.pop()
        self.kept += batch.records.column("whose").to_pylist()

    def commit(self, progress):
        pass


@pytest.mark.parametrize("error", [OSError("disk full"), mlinfer.ComponentError("gone"), KeyError("bug")])
def test_a_log_that_fails_does_not_stop_the_answers(error, caplog):
    destination = Failing(error)
    with client_of(pipeline(destination=destination)) as client:
        for n in range(30):
            assert client.post("/predict", json=row(str(n))).status_code == 200
    assert "the prediction log failed" in caplog.text
    assert "the prediction log lacks 30 answers" in caplog.text
    assert destination.kept == []


def test_a_log_that_failed_for_a_moment_is_opened_again(caplog):
    destination = Failing(TransientError("reconnect", wait=0.0))
    with client_of(pipeline(destination=destination)) as client:
        for n in range(30):
            client.post("/predict", json=row(str(n)))
    assert destination.opened == 2
    lost = 30 - len(destination.kept)  # those that were in one piece with the first
    assert lost > 0
    assert destination.kept == [str(n) for n in range(lost, 30)]
    assert f"the prediction log lacks {lost} answer" in caplog.text


def test_a_log_that_failed_is_opened_again_after_a_while(monkeypatch):
    monkeypatch.setattr("mlinfer._online._log.AGAIN_SECONDS", 0.3)
    destination = Failing(OSError("disk full"))
    with client_of(pipeline(destination=destination)) as client:
        client.post("/predict", json=row("lost"))
        for n in range(100):
            if destination.kept:
                break
            client.post("/predict", json=row(str(n)))
            time.sleep(0.05)
    assert destination.opened == 2
    assert "lost" not in destination.kept


def test_a_log_never_takes_over_from_a_server_that_began_later(tmp_path, monkeypatch, caplog):
    from mlinfer.destinations import SqlDestination

    monkeypatch.setattr("mlinfer._online._log.AGAIN_SECONDS", 0.0)
    destination = SqlDestination(f"sqlite:///{tmp_path}/log.db", "answers", if_exists="append")
    made, commit = pipeline(destination=destination, name="shop"), Delivery.commit
    failing = [TransientError("reconnect", wait=0.0)]

    def failing_once(self, **how):
        if failing:
            raise failing.pop()
        commit(self, **how)

    with (
        made.serving(log="before_reply") as older,
        made.serving(log="before_reply") as newer,
    ):
        monkeypatch.setattr(Delivery, "commit", failing_once)
        asked = [(older, 503), (older, 503), (newer, 200), (older, 503), (newer, 200)]
        for n, (server, status) in enumerate(asked):
            assert httpx.post(f"{server.url}/predict", json=row(str(n))).status_code == status, n
    told = [one for one in caplog.records if "has another server now" in one.message]
    assert [one.exc_info for one in told] == [None], "once, and in words: nothing is broken"
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        assert sorted(name for (name,) in database.execute("SELECT whose FROM answers")) == ["2", "4"]


def test_a_log_that_cannot_be_opened_is_told_before_the_server_listens():
    class Closed(DataDestination):
        def open(self, schema, scope):
            raise ConfigError("no such place")

    with pytest.raises(ConfigError, match="no such place"), pipeline(destination=Closed()).serving():
        pass


# --- the end --------------------------------------------------------------------------------------------------------


def test_an_idle_connection_does_not_hold_up_the_end():
    with httpx.Client() as client:
        with serving(pipeline().job, Serving("127.0.0.1:0"), Patience(idle=40, stop=40)) as server:
            client.get(f"{server.url}/live")  # and the connection stays open
            begun = time.monotonic()
        assert time.monotonic() - begun < 40
        with pytest.raises(httpx.ConnectError):
            client.get(f"{server.url}/live")


def test_whoever_asks_on_an_idle_connection_while_the_server_ends_is_answered_and_told_to_part(monkeypatch):
    monkeypatch.setattr("mlinfer._online._listener.LAST_SECONDS", 30.0)
    with ExitStack() as life, ThreadPoolExecutor(1) as pool:
        server = life.enter_context(pipeline().serving())
        with httpx.Client(base_url=server.url) as client:
            client.get("/live")  # and the connection stays open
            end = pool.submit(life.close)
            while not server.listener.stopping:
                time.sleep(0.005)
            found = client.post("/predict", json=row("late"))
        end.result()
    assert (found.status_code, found.headers["Connection"]) == (200, "close")


def test_what_the_system_accepted_for_the_server_is_answered_too_however_slow_it_is(monkeypatch):
    get, take_in = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n", Listener.take_in

    def slowly(self, connection):
        time.sleep(0.003)
        return take_in(self, connection)

    monkeypatch.setattr(Listener, "take_in", slowly)
    with ExitStack() as stack:
        with pipeline().serving() as server:
            address = server.url.removeprefix("http://").split(":")
            waiting = [stack.enter_context(socket.create_connection(address)) for _ in range(100)]
            for connection in waiting:
                connection.sendall(get)
        assert all(connection.makefile("rb").read().startswith(b"HTTP/1.1 200 ") for connection in waiting)


def test_a_stop_from_another_thread_ends_the_server():
    stop = Stop()
    stop.ask("test")
    pipeline().serve("127.0.0.1:0", stop=stop)


PROGRAM = """
    import sys, time
    import pyarrow as pa
    from mlinfer import InferencePipeline
    from mlinfer.destinations import SqlDestination
    from mlinfer.hosts import FunctionHost
    from mlinfer.sources import MemorySource

    def slow(x):
        print("begun", flush=True)
        time.sleep(0.05)
        return x + 1

    if __name__ == "__main__":
        host = FunctionHost(slow, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy")
        log = SqlDestination(f"sqlite:///{sys.argv[1]}", "log")
        InferencePipeline(MemorySource({"x": [0.0]}), host, log, name="p").serve(sys.argv[2])
"""


def test_sigterm_finishes_every_request_that_was_accepted(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    address = "127.0.0.1", free_port()
    command = [sys.executable, "program.py", f"{tmp_path}/log.db", f"127.0.0.1:{address[1]}"]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, env=os.environ)
    waiting = []
    try:
        idle = _connected(address, server)
        for n in range(20):
            body = json.dumps({"x": n}).encode()
            waiting.append(socket.create_connection(address))
            waiting[-1].sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
        server.stdout.readline()
        server.send_signal(signal.SIGTERM)
        for n, connection in enumerate(waiting):
            head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert json.loads(body) == {"y": n + 1.0}
        assert server.wait(20) == 0
        idle.close()
    finally:
        server.kill()
        server.communicate()
        for connection in waiting:
            connection.close()
    with sqlite3.connect(tmp_path / "log.db") as database:
        logged = sorted(y for (y,) in database.execute("SELECT y FROM log"))
    database.close()
    assert logged == [n + 1.0 for n in range(20)]


def _connected(address, server):
    while server.poll() is None:
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            threading.Event().wait(0.02)
    pytest.fail("the server ended before it listened")
