"""`log="before_reply"`: what a caller was told is durable."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import ClassVar

import httpx
import numpy as np
import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    Budget,
    ConfigError,
    DataDestination,
    InferencePipeline,
    RecordErrors,
    TransientError,
)
from mlinfer._batch import RecordIds
from mlinfer._engine import Answers, from_bytes
from mlinfer._engine._at_once import Columns
from mlinfer._online._backlog import Backlog
from mlinfer._online._log import Sampled, prediction_log
from mlinfer._online._worker import FarLog
from mlinfer.destinations import MemoryDestination, SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource, MemorySource


def nothing():
    """A source that nobody reads."""
    yield from ()


def answered(x):
    """At the top level, where a worker process finds it."""
    return x + 1


def pipeline(destination):
    host = FunctionHost(lambda x: x + 1, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    return InferencePipeline(IterableSource(nothing), host, destination)


class Store(DataDestination):
    """Keeps what was committed; `before` is called before each write and each commit."""

    def __init__(self, before=lambda what: None):
        self.before, self.written, self.kept, self.commits = before, [], [], 0

    @contextmanager
    def open(self, schema, scope):
        self.written = []
        yield self

    def write(self, batch):
        self.before(batch)
        self.written += batch.records.column("y").to_pylist()

    def commit(self, progress):
        self.before("commit")
        self.kept, self.written, self.commits = self.kept + self.written, [], self.commits + 1


PROGRAM = """
    import sys
    import pyarrow as pa
    from mlinfer import InferencePipeline
    from mlinfer.destinations import MemoryDestination, SqlDestination
    from mlinfer.hosts import FunctionHost
    from mlinfer.sources import MemorySource

    host = FunctionHost(lambda x: x + 1, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy")
    made = InferencePipeline(MemorySource({"x": [0.0]}), host, SqlDestination("sqlite:///log.db", "log"), name="p")
    with made.serving(log=sys.argv[1]) as server:
        print(server.url, flush=True)
        sys.stdin.read()
"""


def test_what_was_answered_outlives_a_kill(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "program.py", "before_reply"]
    server = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    url = server.stdout.readline().strip()
    assert re.match("http://", url)
    try:
        with httpx.Client(base_url=url) as client:
            told = [client.post("/predict", json={"x": n}).json()["y"] for n in range(20)]
        server.send_signal(signal.SIGKILL)
        server.wait()
    finally:
        server.kill()
        server.communicate()
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        kept = [y for (y,) in database.execute("SELECT y FROM log")]
    assert sorted(kept) == told == [n + 1.0 for n in range(20)]


def test_callers_who_wait_together_share_a_commit():
    gate = threading.Event()
    store = Store(lambda what: gate.wait() if what == "commit" else None)
    with pipeline(store).serving(log="before_reply") as server, ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(httpx.post, f"{server.url}/predict", json={"x": n}) for n in range(8)]
        while (
            server.counts.queue.counts.count(0) == len(server.counts.queue.counts)
            or sum(server.counts.queue.counts) < 8
        ):
            threading.Event().wait(0.001)
        assert not any(one.done() for one in asked), "an answer came before its commit"
        gate.set()
        assert [one.result().json()["y"] for one in asked] == [n + 1.0 for n in range(8)]
    assert sorted(store.kept) == [n + 1.0 for n in range(8)]
    assert store.commits < 8


@pytest.mark.parametrize("when", ["write", "commit"])
@pytest.mark.parametrize(
    "error", [OSError("disk full"), TransientError("gone", wait=0.0)], ids=["for good", "for now"]
)
def test_an_answer_that_could_not_be_stored_is_not_given(when, error, caplog):
    errors = [error]

    def failing(what):
        if errors and (what == "commit") == (when == "commit"):
            raise errors.pop()

    store = Store(failing)
    with pipeline(store).serving(log="before_reply") as server:
        statuses = [httpx.post(f"{server.url}/predict", json={"x": n}).status_code for n in range(4)]
    assert statuses == ([503, 200, 200, 200] if isinstance(error, TransientError) else [503] * 4)
    assert store.kept == [n + 1.0 for n, status in enumerate(statuses) if status == 200]
    assert "the prediction log failed" in caplog.text


def test_an_answer_that_the_destination_refuses_is_not_given_and_nobody_is_told_to_ask_again(caplog):
    def picky(what):
        if what != "commit" and 14.0 in what.records.column("y").to_pylist():
            raise RecordErrors([what.records.column("y").to_pylist().index(14.0)], "unlucky", "my password")

    store = Store(picky)
    with pipeline(store).serving(log="before_reply") as server:
        answers = [httpx.post(f"{server.url}/predict", json=[{"x": 0}, {"x": n}]) for n in (1, 13, 2)]
        assert b'rejects_total{kind="unlucky"} 1' in server.exposition()
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    assert "Retry-After" not in answers[1].headers
    told = answers[1].json()
    message = "the log of predictions refuses the answer to this record"
    assert told == {
        "error": "1 bad record",
        "records": [{"row": 1, "kind": "unlucky", "message": message}],
        "id": told["id"],
    }
    assert f"error {told['id']}: the log refused record 1 of a request: my password" in caplog.text
    assert store.kept == [1.0, 2.0, 1.0, 1.0, 3.0]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_row_that_the_log_refuses_is_named_with_its_column(tmp_path, workers):
    store = SqlDestination(f"sqlite:///{tmp_path}/log.db", "asked")
    host = FunctionHost(answered, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    made = InferencePipeline(IterableSource(nothing), host, store, name="p", keep={"note": pa.string()})
    with made.serving(log="before_reply", workers=workers) as server:
        notes = ["fine", "fine", "a\0b"]
        answer = httpx.post(f"{server.url}/predict", json=[{"x": 1.0, "note": note} for note in notes])
    assert answer.status_code == 422
    assert answer.json()["records"] == [
        {
            "row": 2,
            "kind": "bad_text",
            "message": "column 'note': wanted text without NUL characters, found one",
        }
    ]


@pytest.mark.parametrize("budget", [Budget(), Budget(count=3)])
def test_many_records_that_the_log_refuses_leave_it_to_the_others(tmp_path, budget):
    """What a batch job may lose before it stops is no measure of a log: one client could have closed it for everybody."""
    store = SqlDestination(f"sqlite:///{tmp_path}/log.db", "asked")
    with texts(store, budget=budget).serving(log="before_reply") as server:
        bad = httpx.post(f"{server.url}/predict", json=[{"t": "\0"}] * 1500)
        good = httpx.post(f"{server.url}/predict", json={"t": "fine"})
    assert (bad.status_code, good.status_code) == (422, 200)
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        assert database.execute("SELECT y FROM asked").fetchall() == [("fine",)]


def test_answers_that_the_log_refuses_behind_them_are_lacking_in_it(tmp_path, caplog):
    store = SqlDestination(f"sqlite:///{tmp_path}/log.db", "asked")
    with texts(store).serving() as server:
        for text in ("fine", "a\0b", "fine", "\0"):
            assert httpx.post(f"{server.url}/predict", json={"t": text}).json() == {"y": text}
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        assert database.execute("SELECT y FROM asked").fetchall() == [("fine",), ("fine",)]
    assert "the prediction log lacks 2 answers" in caplog.text


@pytest.mark.parametrize("kind", [pa.string(), pa.string_view()], ids=str)
def test_a_row_that_a_database_refuses_costs_nobody_else_his_whatever_arrow_can_choose_from(tmp_path, kind):
    """Arrow has no way to take some texts out of a column of views, and the run and the log ended over that."""
    store = SqlDestination(f"sqlite:///{tmp_path}/log.db", "asked")
    host = FunctionHost(
        lambda asked: {"y": asked.column("t").cast(kind)}, {"t": pa.string()}, {"y": kind}, version="1"
    )
    asked = MemorySource({"t": ["run", "a\0b", "run"]})
    made = InferencePipeline(asked, host, store, name="p", rejects=MemoryDestination())
    assert made.run().rejected == 1
    with made.serving(log="before_reply") as server:
        found = [httpx.post(f"{server.url}/predict", json={"t": text}) for text in ("b", "\0", "c")]
    assert [answer.status_code for answer in found] == [200, 422, 200]
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        assert [y for (y,) in database.execute("SELECT y FROM asked")] == ["run", "run", "b", "c"]


def test_there_are_two_ways_to_log():
    with pytest.raises(ConfigError, match="before_reply"), pipeline(Store()).serving(log="first"):
        pass


def test_a_run_and_its_server_write_one_table_side_by_side_and_nobody_else_does(tmp_path):
    url = f"sqlite:///{tmp_path / 'both.db'}"
    host = FunctionHost(lambda x: x + 1, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")

    def named(name):
        return InferencePipeline(
            MemorySource({"x": [1.0, 2.0]}), host, SqlDestination(url, "scores"), name=name
        )

    def stored():
        with closing(sqlite3.connect(tmp_path / "both.db")) as connection:
            return [row[0] for row in connection.execute("SELECT y FROM scores ORDER BY y")]

    assert named("one").run().delivered == 2
    with named("one").serving(log="before_reply") as server:
        assert httpx.post(f"{server.url}/predict", json={"x": 9.0}).json() == {"y": 10.0}
    assert stored() == [2.0, 3.0, 10.0]
    assert named("one").run().delivered == 0
    with named("one").serving(log="before_reply") as server:
        assert httpx.post(f"{server.url}/predict", json={"x": 19.0}).json() == {"y": 20.0}
    assert stored() == [2.0, 3.0, 10.0, 20.0]
    with pytest.raises(ConfigError, match="wanted a new table"):
        named("two").run()
    with pytest.raises(ConfigError, match="cannot begin anew"):
        named("one").run(from_start=True)
    assert stored() == [2.0, 3.0, 10.0, 20.0]


def test_answers_that_wait_for_the_log_go_to_it_in_one_piece(monkeypatch):
    """Each piece takes the interpreter from the thread that answers: one for every answer would halve the server's rate."""
    begun, go, pieces = threading.Event(), threading.Event(), []
    came, put = threading.Semaphore(0), Backlog.put

    def counted(self, *asked):
        put(self, *asked)
        came.release()

    def gate(what):
        if what != "commit":
            pieces.append(what.records.column("y").to_pylist())
            begun.set()
            assert go.wait(60)

    store = Store(gate)
    monkeypatch.setattr(Backlog, "put", counted)
    with pipeline(store).serving() as server, httpx.Client(base_url=server.url) as client:
        for number in range(50):
            assert client.post("/predict", json={"x": number}).json() == {"y": number + 1.0}
            assert begun.wait(60)
            assert came.acquire(timeout=60)  # whoever asked has his answer before the log has it
        go.set()
    assert pieces == [[1.0], [number + 1.0 for number in range(1, 50)]]
    assert store.kept == [number + 1.0 for number in range(50)]


def test_a_piece_for_the_log_holds_answers_of_one_version_and_its_records_keep_their_ids():
    backlog, versions = Backlog(), [object(), object()]
    for number in range(6):
        batch = Batch(
            pa.record_batch({"y": [number]}), "in hand", None, RecordIds.of(pa.array([f"id {number}"]))
        )
        backlog.put(Answers(batch, layout=versions[number // 3]), [].append)
    backlog.end()
    found = []
    while (piece := backlog.take()) is not None:
        answers, stored = piece
        found.append((answers.layout, answers.batch.ids.array().to_pylist(), len(stored)))
    assert found == [(versions[0], ["id 0", "id 1", "id 2"], 3), (versions[1], ["id 3", "id 4", "id 5"], 3)]
    assert backlog.empty


MEBIBYTE = 2**20


def texts(destination, **settings):
    """Answers as large as what was asked."""
    host = FunctionHost(lambda t: t, {"t": pa.string()}, {"y": pa.string()}, takes="numpy", version="1")
    return InferencePipeline(IterableSource(nothing), host, destination, **settings)


def test_what_waits_for_the_log_is_bounded_in_bytes(monkeypatch):
    """The destination stands still: answers are kept for it up to the bound, and counted beyond it."""
    monkeypatch.setattr("mlinfer._online._backlog.MOST_WAITING_BYTES", 5 * MEBIBYTE + 1000)
    begun, go = threading.Event(), threading.Event()

    def gate(_):
        begun.set()
        assert go.wait(60)

    store = Store(gate)
    with texts(store).serving() as server:
        for number in range(20):
            text = f"{number:0>{MEBIBYTE}}"
            assert httpx.post(f"{server.url}/predict", json={"t": text}).json() == {"y": text}
            assert begun.wait(60)
        while b"mlinfer_serve_log_dropped 14\n" not in server.exposition():
            assert b"mlinfer_serve_log_dropped 15" not in server.exposition()
        go.set()
    assert [int(one[-9:]) for one in store.kept] == [0, 1, 2, 3, 4, 5]


def test_a_workers_answers_wait_for_its_parent_in_the_same_room(monkeypatch):
    monkeypatch.setattr("mlinfer._online._backlog.MOST_WAITING_BYTES", 5 * MEBIBYTE + 1000)
    begun, go, said, told = threading.Event(), threading.Event(), [], []

    class Line:
        def say(self, *what):
            begun.set()
            assert go.wait(60)
            said.append(what)

        waiting: ClassVar = {}

    log = FarLog(Line(), None)
    for number in range(20):
        records = pa.record_batch({"y": [f"{number:0>{MEBIBYTE}}"]})
        log(Answers(Batch(records, "in hand", None)), told.append)
        assert begun.wait(60)
    assert log.dropped == len(told) == 14
    go.set()
    log.close()
    assert [int(from_bytes(data).column(0)[0].as_py()[-9:]) for *_, data in said] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("log", ["behind", "before_reply"])
def test_so_many_answers_are_logged_as_were_asked_for_and_all_are_given(tmp_path, log):
    stored = SqlDestination(f"sqlite:///{tmp_path}/log.db", table="asked")
    with pipeline(stored).serving(log=log, log_sample=0.25) as server, httpx.Client() as client:
        for start in range(0, 2000, 100):
            found = client.post(
                f"{server.url}/predict", json=[{"x": float(n)} for n in range(start, start + 100)]
            )
            assert [row["y"] for row in found.json()] == [n + 1 for n in range(start, start + 100)]
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        kept = [y for (y,) in database.execute("select y from asked")]
    assert len(set(kept)) == len(kept)
    assert 350 < len(kept) < 650, "500 of 2,000 are expected, give or take 19"


def test_what_goes_wrong_behind_an_answer_does_not_end_the_desk(caplog):
    def broken(answers, stored=None):
        raise OSError("no log")

    with pipeline(Store()).serving() as server, httpx.Client(base_url=server.url) as client:
        server.desk._log = broken
        for number in range(3):
            assert client.post("/predict", json={"x": number}).json() == {"y": number + 1.0}
    assert caplog.text.count("OSError: no log") == 3


def test_answers_that_are_not_drawn_for_the_log_are_not_made_records():
    schema, logged = pa.schema([("y", pa.float64())]), []
    for share, seen in ((1e-300, 0), (1, 3)):
        answers = Answers(Columns({"y": np.arange(3.0)}, 3, schema))
        Sampled(lambda chosen, _: logged.append(chosen), share)(answers)
        assert sum(len(one.batch) for one in logged) == seen
        assert ("batch" in vars(answers)) == bool(seen)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_texts_and_bytes_in_views_are_logged_in_part_and_chosen_as_others_are(kind):
    store, schema = Store(), pa.schema([pa.field("x", kind, nullable=False)])
    host = FunctionHost(
        lambda records: {"y": records.column("x")}, schema, {"y": kind}, takes="arrow", version="1"
    )
    made = InferencePipeline(IterableSource(nothing), host, store)
    with made.serving(log_sample=0.5) as server, httpx.Client(base_url=server.url) as client:
        for _ in range(20):
            assert client.post("/predict", json=[{"x": "aGk="}] * 3).json() == [{"y": "aGk="}] * 3
            bad = client.post("/predict", json=[{"x": "aGk="}, {"x": None}])
            assert (bad.status_code, bad.json()["records"][0]["row"]) == (422, 1)
    assert 0 < len(store.kept) < 60


@pytest.mark.parametrize("share", [0, -1, 1.01, float("nan")])
def test_a_share_of_the_log_that_is_none_is_refused(share):
    with (
        pytest.raises(ConfigError, match="log_sample: wanted a share above 0"),
        pipeline(Store()).serving(log_sample=share),
    ):
        pass


def test_whoever_waits_when_another_version_takes_over_hears_of_his_answer_too():
    """The log commits what the older version has answered before it takes an answer of the newer one."""
    store, told = Store(), {}
    made = pipeline(store)
    one = made.job.host.open()
    with one as model:
        layout = made.job.lay_out(model.signature)
    other = replace(layout, signature=replace(layout.signature, version="2"))
    with prediction_log(made.job, layout, "run") as log:
        for number, which in enumerate([layout, other, layout, other]):
            batch = Batch(pa.record_batch({"y": [float(number)]}), "in hand", None)
            log(Answers(batch, layout=which), partial(told.__setitem__, number))
        until = time.monotonic() + 60
        while len(told) < 4 and time.monotonic() < until:
            time.sleep(0.01)
    assert told == dict.fromkeys(range(4))
    assert store.kept == [0.0, 1.0, 2.0, 3.0]


@contextmanager
def logging(store):
    """A log in that store, and what answers of its two versions are laid out as."""
    made = pipeline(store)
    with made.job.host.open() as model:
        layout = made.job.lay_out(model.signature)
    other = replace(layout, signature=replace(layout.signature, version="2"))
    with prediction_log(made.job, layout, "run") as log:
        yield log, layout, other


def several(numbers, layout):
    return Answers(Batch(pa.record_batch({"y": numbers}), "in hand", None), layout=layout)


def test_answers_of_a_newer_version_that_the_log_fails_to_write_are_counted_to_the_last():
    """The log commits those of the older one first, and these are no part of that."""

    def fail(what):
        if what != "commit" and 2.0 in what.records.column("y").to_pylist():
            raise OSError("no room")

    store, told = Store(fail), []
    with logging(store) as (log, layout, other):
        log(several([1.0], layout))
        log(several([2.0, 3.0, 4.0], other), told.append)
    assert store.kept == [1.0]
    assert log.dropped == 3
    assert len(told) == 1
    assert told[0] is not None


def test_answers_that_the_destination_refuses_are_counted_where_nobody_hears_of_it():
    begun, go, told = threading.Event(), threading.Event(), []

    def refuse(what):
        begun.set()
        assert go.wait(60)
        rows = (
            []
            if what == "commit"
            else [row for row, y in enumerate(what.records.column("y").to_pylist()) if y < 0]
        )
        if rows:
            raise RecordErrors(rows, ["constraint"] * len(rows), ["negative"] * len(rows))

    store = Store(refuse)
    with logging(store) as (log, layout, _):
        log(several([1.0], layout))
        assert begun.wait(60)  # what comes now comes in one piece
        log(several([-1.0, 2.0, -2.0], layout))
        log(several([-3.0, 3.0], layout), told.append)
        go.set()
    assert store.kept == [1.0, 2.0, 3.0]
    assert told == [{0: ("constraint", "negative")}]
    assert log.dropped == 2
