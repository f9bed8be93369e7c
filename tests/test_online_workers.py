"""Several server processes at one address: one pipeline, one log, one end."""

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tritonclient.grpc as triton
from sklearn.linear_model import LinearRegression

import mlinfer
from mlinfer import ComponentError, ConfigError, InferencePipeline, Retry
from mlinfer.destinations import JsonLinesDestination, MemoryDestination, SqlDestination
from mlinfer.hosts import FunctionHost, SklearnHost
from mlinfer.sources import CsvSource, IterableSource
from ports import free_port
from served import Loads, Remembering, nothing, who
from test_online_pages import metrics

WITHIN = 60  # every worker is a program that starts, on a machine that may be busy with many
pytestmark = pytest.mark.timeout(240)


def answering(function=who, destination=None, **options):
    outputs = {"y": pa.float64(), "pid": pa.int64()}
    host = FunctionHost(function, {"x": pa.float64()}, outputs, takes="numpy", version="1")
    return InferencePipeline(
        IterableSource(nothing), host, destination or MemoryDestination(), name="p", **options
    )


def until(there):
    """Wait for a condition."""
    end = time.monotonic() + WITHIN
    while not (found := there()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
    return found


@contextmanager
def closing_with(stop):
    """Set the event however the block ends: threads that wait for it would hold up a test that has failed, for ever."""
    try:
        yield
    finally:
        stop.set()


def lives(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture(scope="module")
def log():
    return MemoryDestination()


@pytest.fixture(scope="module")
def server(log):
    with answering(destination=log, lineage=["record_id"]).serving(
        workers=2, grpc_bind="127.0.0.1:0"
    ) as server:
        yield server


# --- the source ---------------------------------------------------------------------------------------------------------


def reading(source, tmp_path, keep=()):
    outputs = {"y": pa.float64(), "pid": pa.int64()}
    host = FunctionHost(who, {"x": pa.float64()}, outputs, takes="numpy", version="1")
    return InferencePipeline(
        source,
        host,
        JsonLinesDestination(tmp_path / "asked.jsonl"),
        name="p",
        keep=keep,
        columns={"x": "value"},
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("there", [False, True])
def test_a_server_asks_for_no_file_of_its_source_and_none_that_fits(tmp_path, workers, there):
    if there:
        (tmp_path / "in.csv").write_text("other\n1\n")
    pipeline = reading(CsvSource(tmp_path / "in.csv"), tmp_path, keep={"id": "int64"})
    with pytest.raises(ConfigError, match=r"no such column|no file"):
        pipeline.check()
    with pipeline.serving(workers=workers) as server:
        found = httpx.post(f"{server.url}/predict", json={"id": 7, "value": 1}).json()
    assert (found["id"], found["y"]) == (7, 2.0)
    assert [json.loads(line)["id"] for line in (tmp_path / "asked.jsonl").read_text().splitlines()] == [7]


def test_a_server_asks_its_source_for_the_types_that_keep_does_not_tell(tmp_path):
    (tmp_path / "in.csv").write_text("id\n1\n")
    with reading(CsvSource(tmp_path / "in.csv"), tmp_path, keep=["id"]).serving() as server:
        assert httpx.post(f"{server.url}/predict", json={"id": 7, "value": 1}).json()["id"] == 7
        assert httpx.post(f"{server.url}/predict", json={"id": "seven", "value": 1}).status_code == 422
    nowhere = reading(CsvSource(tmp_path / "no.csv"), tmp_path, keep=["id"])
    with (
        pytest.raises(ConfigError, match=r"no\.csv.* or give the types of kept columns.*keep=\{'id'"),
        nowhere.serving(),
    ):
        pass


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        ("id", r"^keep: .* the text 'id'; write keep=\['id'\]$"),
        ({"id"}, r"no\.csv.*keep=\{'id': pa\.string\(\)\}$"),
    ],
)
def test_a_text_or_a_set_as_keep_is_told_in_words_where_the_source_is_not_there(tmp_path, keep, told):
    with (
        pytest.raises(ConfigError, match=told),
        reading(CsvSource(tmp_path / "no.csv"), tmp_path, keep).serving(),
    ):
        pass


# --- one address ----------------------------------------------------------------------------------------------------


def test_connections_that_stay_are_spread_over_the_workers(server):
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url)) for _ in range(64)]
        answers = [client.post("/predict", json={"x": n}).json() for n, client in enumerate(clients)]
    found = Counter(answer["pid"] for answer in answers)
    assert [answer["y"] for answer in answers] == [n + 1.0 for n in range(64)]
    assert set(found) == set(server.processes)
    assert min(found.values()) >= 12, found  # chance alone goes below that once in 10 million times


def test_grpc_is_spoken_by_all_workers_at_one_address(server):
    def ask(n):
        # a connection for each, as clients elsewhere would have
        own = [("grpc.use_local_subchannel_pool", 1)]
        with triton.InferenceServerClient(server.grpc_address, channel_args=own) as client:
            x = triton.InferInput("x", [1], "FP64")
            x.set_data_from_numpy(np.array([n], "f8"))
            answer = client.infer("who", [x])
        return answer.as_numpy("y")[0], answer.as_numpy("pid")[0]

    answers = [ask(n) for n in range(32)]
    assert [y for y, _ in answers] == [n + 1.0 for n in range(32)]
    assert {pid for _, pid in answers} == set(server.processes)


def test_the_log_is_one_and_names_every_record_differently(server, log):
    with httpx.Client(base_url=server.url, headers={"Connection": "close"}) as client:
        told = [client.post("/predict", json={"x": 1000 + n}).json() for n in range(30)]
    assert len({answer["pid"] for answer in told}) == 2
    until(lambda: log._outputs and {1001.0 + n for n in range(30)} <= set(log.table()["y"].to_pylist()))
    names = log.table()["record_id"].to_pylist()
    assert len(set(names)) == len(names)
    assert {pipeline for pipeline, _ in log._outputs} == {"p/serve"}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("share", [1, 0.99])
def test_a_record_that_the_log_refuses_costs_nobody_else_his_answer(tmp_path, workers, share):
    """A database takes no text with a NUL, and callers who wait together share a batch, a piece and a commit."""
    outputs = {"y": pa.float64(), "pid": pa.int64()}
    host = FunctionHost(who, {"x": pa.float64()}, outputs, takes="numpy", version="1")
    stored = SqlDestination(f"sqlite:///{tmp_path}/log.db", table="asked")
    made = InferencePipeline(IterableSource(nothing), host, stored, name="p", keep={"note": pa.string()})
    records = [
        [{"x": n, "note": "a\0b" if n % 5 == row == 0 else "fine"} for row in range(2)] for n in range(100)
    ]
    with (
        made.serving(workers=workers, log="before_reply", log_sample=share) as server,
        httpx.Client(base_url=server.url) as client,
        ThreadPoolExecutor(20) as threads,
    ):
        found = list(threads.map(lambda some: client.post("/predict", json=some), records))
    given = [n for n, answer in enumerate(found) if answer.status_code == 200]
    assert {answer.status_code for answer in found} == {200, 422}
    assert set(range(100)) - set(given) == set(range(0, 100, 5)) or share < 1
    assert all(n in given for n in range(100) if n % 5)
    for n in given:
        assert [row["y"] for row in found[n].json()] == [n + 1.0] * 2
    if share == 1:
        with closing(sqlite3.connect(tmp_path / "log.db")) as database:
            kept = Counter(y for (y,) in database.execute("select y from asked"))
        assert kept == {n + 1.0: 1 if n % 5 == 0 else 2 for n in range(100)}


def test_what_is_counted_is_the_sum():
    # a server of its own: what others asked of one may still be on its way to the sum
    with answering(destination=MemoryDestination()).serving(workers=2) as server:
        with httpx.Client(base_url=server.url, headers={"Connection": "close"}) as client:
            pids = {client.post("/predict", json=[{"x": 1}, {"x": 2}]).json()[0]["pid"] for _ in range(30)}
            assert client.post("/predict", json={"x": "bad"}).status_code == 422
        assert len(pids) == 2

        def counted(*name):
            return metrics(server.exposition().decode()).get(name, 0.0)

        until(lambda: counted("batch_rows_sum") == 61)  # which is counted last
        assert counted("requests_total", "/predict", "422") == 1
        assert counted("requests_total", "/predict", "200") == 30
        assert counted("rows_total") == 60
        assert counted("infer_seconds_count") == counted("batch_rows_bucket", "+Inf") == 31
        assert counted("workers") == 2
        assert counted("worker_restarts_total") == counted("log_dropped") == 0
        assert counted("model_info", "who", "1") == 1


def test_an_address_that_is_taken_is_found_taken(server):
    address = server.url.removeprefix("http://")
    for options in (
        {"bind": address},
        {"bind": address, "workers": 2},
        {"grpc_bind": server.grpc_address, "workers": 2},
    ):
        with pytest.raises(ConfigError, match="is not possible"), answering().serving(**options):
            pass


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_a_host_that_cannot_be_sent_is_refused_before_anything_is_bound(server):
    taken = server.url.removeprefix("http://")
    with (
        pytest.raises(ConfigError, match="FunctionHost cannot be sent to a worker process"),
        answering(lambda x: {**who(x)}).serving(taken, workers=2),
    ):
        pass


@pytest.fixture
def loads(tmp_path):
    (tmp_path / "todo").write_text("1")
    return Loads(tmp_path / "todo")


def loading(host, retry=None):
    return InferencePipeline(IterableSource(nothing), host, MemoryDestination(), name="p", retry=retry)


def test_a_model_that_cannot_start_ends_the_server_with_its_own_error(loads):
    loads.path.write_text("refuse")
    with pytest.raises(ConfigError, match="this model is not well"), loading(loads).serving(workers=2):
        pass


def test_a_model_that_dies_while_it_starts_is_told_of(loads):
    loads.path.write_text("die")
    with (
        pytest.raises(ConfigError, match=r"before its model was loaded \(exit code 3\)"),
        loading(loads).serving(workers=2),
    ):
        pass


def test_a_model_with_a_memory_is_refused():
    with (
        pytest.raises(ConfigError, match="keeps nothing between calls"),
        loading(Remembering()).serving(workers=2),
    ):
        pass


def test_fewer_than_one_worker_are_refused():
    with pytest.raises(ConfigError, match="workers: wanted a number of processes from 1 to 1,024, found 0"):
        answering().serve(workers=0)


# --- workers that end -------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced_and_the_others_lose_nothing(caplog):
    log = MemoryDestination()
    stop, told, cut = threading.Event(), [], []
    with answering(destination=log).serving(workers=2, log="before_reply") as server:
        victim, survivor = server.processes

        def ask(first):
            client, last, x = httpx.Client(base_url=server.url), None, first
            while not stop.is_set():
                x += 1
                try:
                    answer = client.post("/predict", json={"x": x})
                except httpx.TransportError:
                    cut.append(last)
                    client.close()
                    client = httpx.Client(base_url=server.url)
                else:
                    assert answer.status_code == 200
                    last = answer.json()["pid"]
                    told.append(x)
            client.close()

        with ThreadPoolExecutor(8) as threads, closing_with(stop):
            asking = [threads.submit(ask, 1e6 * n) for n in range(8)]
            until(lambda: len(told) > 50)
            os.kill(victim, signal.SIGKILL)
            until(lambda: len(server.processes) == 2 and victim not in server.processes)
            assert server.ready
            mark = len(told)
            until(lambda: len(told) > mark + 50)
            stop.set()
            for one in asking:
                one.result()
        until(lambda: metrics(server.exposition().decode())["worker_restarts_total",] == 1)
        assert survivor in server.processes
    assert survivor not in cut
    assert len(cut) <= 8
    kept = log.table()["y"].to_pylist()
    assert {x + 1 for x in told} <= set(kept)
    assert len(kept) == len(set(kept)) <= len(told) + len(cut)
    assert "a worker has ended (SIGKILL); another takes its place" in caplog.text


def ended(host, retry, make_trouble):
    """How a server ends whose first worker is killed after `make_trouble`."""
    with loading(host, retry).serving(workers=2) as server:
        make_trouble()
        victim, survivor = server.processes
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.failure is not None)
        assert server.processes == [survivor], "the others go on until the server is let go of"
        assert not server.ready


def test_workers_that_end_in_a_row_end_the_server(loads):
    retry = Retry(attempts=3, first_wait=0.01)
    with pytest.raises(ComponentError, match="3 have ended in a row, the latest by exit code 3"):
        ended(loads, retry, lambda: loads.path.write_text("die"))


def test_a_worker_never_brings_another_version_of_the_model_unasked(loads):
    retry = Retry(attempts=2, first_wait=0.01)
    with pytest.raises(ComponentError, match=r"wanted version 1 of the model, .* found 2"):
        ended(loads, retry, lambda: loads.path.write_text("2"))


# --- the end ----------------------------------------------------------------------------------------------------------

PROGRAM = """
    import sys
    import numpy as np
    import pyarrow as pa
    from mlinfer import InferencePipeline
    from mlinfer.destinations import SqlDestination
    from mlinfer.hosts import FunctionHost
    from mlinfer.sources import IterableSource

    def nothing():
        yield from ()

    def doubled(x):
        return x * 2

    def main():
        host = FunctionHost(doubled, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
        log = SqlDestination("sqlite:///log.db", "log")
        made = InferencePipeline(IterableSource(nothing), host, log, name="p")
        with made.serving(*sys.argv[2:], workers=2, log=sys.argv[1]) as server:
            print(server.url, *server.processes, flush=True)
            sys.stdin.read()

    if __name__ == "__main__":
        main()
"""


@contextmanager
def program(folder, *arguments, text=PROGRAM):
    (folder / "program.py").write_text(textwrap.dedent(text))
    child = subprocess.Popen(
        [sys.executable, "program.py", *arguments], cwd=folder, text=True, env=os.environ,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def address_of(parent):
    """Where a server says that it is."""
    return (
        next(line for line in parent.stderr if line.startswith("serving at"))
        .split()[2]
        .removesuffix("/predict;")
    )


def logged(path):
    with closing(sqlite3.connect(path)) as database:
        return sorted(y for (y,) in database.execute("SELECT y FROM log"))


@pytest.mark.parametrize("whom", ["a worker", "the parent"])
def test_what_was_answered_outlives_a_kill(tmp_path, whom):
    port = free_port()  # one that nobody else is given when the server has gone
    with program(tmp_path, "before_reply", f"127.0.0.1:{port}") as parent:
        url, *workers = parent.stdout.readline().split()
        told, stop = [], threading.Event()

        def ask(first):
            x = first
            with httpx.Client(base_url=url, headers={"Connection": "close"}) as client:
                while not stop.is_set():
                    x += 1
                    with suppress(httpx.TransportError):
                        answer = client.post("/predict", json={"x": x})
                        if answer.status_code == 200:
                            told.append(answer.json()["y"])

        with ThreadPoolExecutor(4) as threads, closing_with(stop):
            asking = [threads.submit(ask, 1e6 * n) for n in range(4)]
            until(lambda: len(told) > 40)
            os.kill(int(workers[0]) if whom == "a worker" else parent.pid, signal.SIGKILL)
            mark = len(told)
            until(
                lambda: (
                    len(told) > mark + 20 if whom == "a worker" else not any(lives(pid) for pid in workers)
                )
            )
            stop.set()
            for one in asking:
                one.result()
    until(lambda: not any(lives(pid) for pid in workers))
    assert set(told) <= set(logged(tmp_path / "log.db"))
    with socket.create_server(("127.0.0.1", port)):
        pass  # nobody listens there any more


def test_a_script_without_a_guard_is_told_about_it(tmp_path):
    text = textwrap.dedent(PROGRAM).replace('if __name__ == "__main__":\n    main()', "main()")
    with program(tmp_path, "behind", text=text) as parent:
        _, errors = parent.communicate(timeout=WITHIN)
    assert parent.returncode == 1
    assert 'it must guard its start with if __name__ == "__main__"' in errors.splitlines()[-1]


TOML = """
    name = "p"
    [source]
    type = "memory"
    data = { x = [1.0] }
    [host]
    type = "function"
    function = "model:doubled"
    inputs = { x = "double" }
    outputs = { y = "double" }
    takes = "numpy"
    version = "1"
    [destination]
    type = "sql"
    url = "sqlite:///log.db"
    table = "log"
"""
MODEL = """
    import time

    def doubled(x):
        time.sleep(0.02)
        return x * 2
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_nothing(tmp_path, number):
    (tmp_path / "p.toml").write_text(textwrap.dedent(TOML))
    (tmp_path / "model.py").write_text(textwrap.dedent(MODEL))
    admin = free_port()
    command = [
        sys.executable,
        "-m",
        "mlinfer",
        "serve",
        "p.toml",
        "--allow",
        "model:doubled",
        "--bind",
        "127.0.0.1:0",
    ]
    more = ["--workers", "2", "--admin-bind", f"127.0.0.1:{admin}"]
    parent = subprocess.Popen(
        [*command, *more], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        url = address_of(parent)
        assert httpx.get(f"http://127.0.0.1:{admin}/ready").status_code == 200
        told, gate = [], threading.Event()

        def ask(first):
            with httpx.Client(base_url=url) as client:
                x = first
                while True:
                    x += 1
                    try:
                        answer = client.post("/predict", json={"x": x})
                    except httpx.TransportError:
                        # nobody listens; or it came so late, on a slow machine, that its connection was closed for being idle
                        return
                    assert answer.status_code in {
                        200,
                        503,
                    }  # the latter on a machine that stood still for seconds
                    if answer.status_code == 200:
                        told.append(answer.json()["y"])
                    gate.set()

        with ThreadPoolExecutor(16) as threads:
            asking = [threads.submit(ask, 1e6 * n) for n in range(16)]
            gate.wait(WITHIN)
            until(lambda: len(told) > 64)
            os.killpg(parent.pid, number)  # as a terminal does it, or systemd: to all of them
            for one in asking:
                one.result()
        assert parent.wait(WITHIN) == 0, parent.stderr.read()
    finally:
        parent.kill()
        parent.communicate()
    assert logged(tmp_path / "log.db") == sorted(told)  # so nothing had been taken of whoever heard nothing


def test_a_second_signal_ends_the_workers_at_once(tmp_path):
    (tmp_path / "p.toml").write_text(textwrap.dedent(TOML))
    (tmp_path / "model.py").write_text(textwrap.dedent(MODEL).replace("0.02", "60"))
    command = [sys.executable, "-m", "mlinfer", "serve", "p.toml", "--allow", "model:doubled", "--bind"]
    parent = subprocess.Popen(
        [*command, "127.0.0.1:0", "--workers", "2"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        url = address_of(parent)
        workers = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/stat")
            if path.read_text().rpartition(")")[2].split()[1] == str(parent.pid)
        ]
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as asking:
            body = b'{"x": 1}'
            head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"
            asking.sendall(head.encode() + body)  # nobody answers that within a minute
            parent.send_signal(signal.SIGTERM)
            while "finishing" not in parent.stderr.readline():
                pass
            time.sleep(0.3)  # sooner it would be the first one that comes twice
            parent.send_signal(signal.SIGTERM)
            assert parent.wait(WITHIN) == 128 + signal.SIGTERM
            until(lambda: not any(lives(pid) for pid in workers))
    finally:
        parent.kill()
        parent.communicate()


def test_every_worker_turns_to_a_newer_version(tmp_path):
    def save(shift):
        frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
        model = LinearRegression().fit(frame, frame["x"] + shift)
        mlinfer.save(model, tmp_path / "line.mlinfer", example=frame, name="line", replace=True)

    save(10)
    host = SklearnHost(tmp_path / "line.mlinfer", watch=True)
    made = InferencePipeline(IterableSource(nothing), host, MemoryDestination(), name="p")
    with (
        made.serving(workers=2) as server,
        httpx.Client(base_url=server.url, headers={"Connection": "close"}) as client,
    ):
        assert round(client.post("/predict", json={"x": 1.0}).json()["y_pred"]) == 11
        save(20)
        latest = []

        def all_have_turned():
            latest.append(round(client.post("/predict", json={"x": 1.0}).json()["y_pred"]))
            return latest[-30:] == [21] * 30  # one of two workers alone: once in a billion times

        until(all_have_turned)
        assert set(latest) <= {11, 21}
        until(lambda: metrics(server.exposition().decode()).get(("model_changes_total", "taken")) == 2)
        (model,) = [name for name in metrics(server.exposition().decode()) if name[0] == "model_info"]
        assert model[1] == "line"


def test_the_access_log_is_the_parents(caplog):
    caplog.set_level(logging.INFO, "mlinfer.access")
    with (
        answering().serving(workers=2, access_log=True) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        number = client.post("/predict", json={"x": 1}).headers["x-request-id"]
        until(lambda: number in caplog.text)
    (record,) = [one for one in caplog.records if number in one.getMessage()]
    assert record.name == "mlinfer.access"
    assert "POST /predict 200 rows=1" in record.getMessage()
