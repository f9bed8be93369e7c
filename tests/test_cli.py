"""The command line does what it says, ends with the code it documents, and tells errors in one line."""

import dataclasses
import importlib
import json
import os
import pty
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlinfer
from mlinfer import (
    ChangedError,
    ComponentError,
    ConfigError,
    FencedError,
    GuaranteeError,
    MlinferError,
    PluginNotFound,
    RejectsError,
)
from mlinfer._cli import _parser, main
from mlinfer._cli._admin import MOST_CONNECTIONS, NoPages, Readiness, admin
from mlinfer._cli._ending import ending
from mlinfer._cli._serve import _options
from mlinfer._cli._table import rendered
from mlinfer._online import Serving, ServingOptions
from mlinfer.observers import PrometheusMetrics
from ports import free_port

MLINFER = [str(Path(sys.executable).parent / "mlinfer")]
PIPELINE = """
name = "doubled"
keep = ["id"]

[source]
type = "parquet"
path = "in/*.parquet"

[host]
type = "sklearn"
model = "model.mlinfer"

[destination]
type = "sql"
url = "sqlite:///out.db"
table = "scores"

[budget]
ratio = 0.5
"""
REJECTS = """
[rejects]
type = "sql"
url = "sqlite:///out.db"
table = "rejects"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from sklearn.linear_model import LinearRegression

    path = tmp_path_factory.mktemp("model") / "model.mlinfer"
    x = np.arange(10.0).reshape(-1, 1)
    return mlinfer.save(LinearRegression().fit(x, 2 * x[:, 0]), path, example=pa.table({"x": x[:, 0]}))


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    """A folder with a pipeline of 100 records, ten of them bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    (tmp_path / "in").mkdir()
    (tmp_path / "model.mlinfer").symlink_to(model)
    table = pa.table(
        {"x": [None if n % 10 == 3 else float(n) for n in range(100)], "id": [f"r{n}" for n in range(100)]}
    )
    pq.write_table(table, tmp_path / "in/one.parquet")
    (tmp_path / "pipeline.toml").write_text(PIPELINE + REJECTS)
    return tmp_path


def rows(statement="SELECT count(*) FROM scores"):
    with closing(sqlite3.connect("out.db")) as connection:
        return connection.execute(statement).fetchall()


def call(*arguments, **more):
    return subprocess.run(
        [*MLINFER, *arguments], capture_output=True, text=True, timeout=100, check=False, **more
    )


# --- run, check, explain, preview -----------------------------------------------------------------------------------


def test_run_delivers_and_a_second_one_delivers_nothing(folder, capsys):
    assert main(["run", "pipeline.toml"]) == 0
    assert "90 delivered, 10 rejected, exactly-once" in capsys.readouterr().out
    assert rows() == [(90,)]
    assert main(["run", "pipeline.toml", "--no-progress"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("0 delivered: all were there already")
    assert err == ""
    assert rows() == [(90,)]


def test_run_from_start_replaces(folder, capsys):
    main(["run", "pipeline.toml"])
    assert main(["run", "pipeline.toml", "--from-start"]) == 0
    assert "90 delivered" in capsys.readouterr().out.splitlines()[-4]
    assert rows() == [(90,)]


@pytest.mark.parametrize(
    ("kind", "line"), [("text", "run_started name=doubled"), ("json", '"event": "run_started"')]
)
def test_run_logs_to_standard_error_when_asked(folder, capsys, kind, line):
    assert main(["run", "pipeline.toml", "--log", kind]) == 0
    err = capsys.readouterr().err
    assert line in err
    assert "batch_read" not in err


def test_a_json_log_has_time_and_level_on_every_line(folder, capsys):
    assert main(["run", "pipeline.toml", "--log", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"time", "level", "event"} <= set.intersection(*(set(line) for line in lines))
    assert {line["level"] for line in lines if line["event"] == "records_rejected"} == {"WARNING"}


def test_a_report_does_not_mix_with_records_on_standard_output(folder, capfd):
    text = PIPELINE.replace('type = "sql"\nurl = "sqlite:///out.db"\ntable = "scores"', 'type = "stdout"')
    (folder / "pipeline.toml").write_text(text.replace('keep = ["id"]', 'keep = ["id"]\n') + REJECTS)
    assert main(["run", "pipeline.toml", "--no-progress"]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 90
    assert "90 delivered, 10 rejected" in err


def test_check_and_explain_write_nothing(folder, capsys):
    before = sorted(path.name for path in folder.iterdir())
    for verb in ("check", "explain"):
        assert main([verb, "pipeline.toml"]) == 0
        out = capsys.readouterr().out
        assert "guarantee   exactly-once" in out
        assert "y_pred: double" in out
    assert sorted(path.name for path in folder.iterdir()) == before


def test_preview_shows_answers_as_a_table(folder, capsys):
    assert main(["preview", "pipeline.toml", "-n", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["id", "y_pred"]
    assert lines[2].split()[:2] == ["r1", "2"]
    assert lines[4].split()[:2] == ["r3", "null"]
    assert not (folder / "out.db").exists()


def test_code_of_the_users_own_needs_to_be_allowed(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "my_code_for_cli.py").write_text("def twice(x):\n    return x * 2\n")
    text = PIPELINE.replace(
        'type = "sklearn"\nmodel = "model.mlinfer"', 'type = "function"\nfunction = "my_code_for_cli:twice"'
    )
    text = text.replace(
        "[destination]", 'inputs = {x = "double"}\noutputs = {y = "double"}\ntakes = "numpy"\n[destination]'
    )
    (folder / "pipeline.toml").write_text(text + REJECTS)
    assert main(["run", "pipeline.toml"]) == 2
    assert "--allow my_code_for_cli:twice" in capsys.readouterr().err
    assert main(["run", "pipeline.toml", "--allow", "my_code_for_cli:twice"]) == 0
    assert rows("SELECT y FROM scores WHERE id = 'r7'") == [(14.0,)]


@pytest.mark.parametrize(
    ("code", "said", "end"),
    [
        ("import sys\nsys.exit(0)\n", "quits_for_cli:made cannot be imported: SystemExit: 0", 2),
        ("def (\n", "quits_for_cli:made cannot be imported: SyntaxError: invalid syntax", 2),
        ("def made(path):\n    raise KeyError(path)\n", "wanted it to be made, found KeyError: 'x'", 2),
        (
            "import sys\ndef made(path):\n    sys.exit(0)\n",
            "a part called sys.exit(0); let it raise an er",
            4,
        ),
    ],
)
def test_code_of_the_users_own_does_not_end_the_program_in_its_own_way(
    folder, capsys, monkeypatch, *, code, said, end
):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "quits_for_cli", raising=False)
    importlib.invalidate_caches()
    (folder / "quits_for_cli.py").write_text(code)
    text = PIPELINE.replace(
        'type = "sklearn"\nmodel = "model.mlinfer"', 'type = "quits_for_cli:made"\npath = "x"'
    )
    (folder / "pipeline.toml").write_text(text)
    assert main(["check", "pipeline.toml", "--allow", "quits_for_cli:made"]) == end
    assert said in capsys.readouterr().err


# --- how commands end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("m"), 2),
        (PluginNotFound("source", "x", []), 2),
        (GuaranteeError("m"), 2),
        (ChangedError("m"), 2),
        (RejectsError("m"), 3),
        (ComponentError("m"), 4),
        (MlinferError("m"), 4),
        (ZeroDivisionError("m"), 4),
        (BrokenPipeError("m"), 4),
        (FencedError("m"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_kind_of_error_has_its_code(error, code, capfd):
    with ending(debug=False) as end:
        raise error
    assert end.code == code
    out, err = capfd.readouterr()
    assert err.startswith("mlinfer: error: ")
    assert (out, "Traceback" in err) == ("", False)


def test_debug_shows_where_an_error_came_from(capsys):
    with ending(debug=True) as end:
        raise ComponentError("m") from ZeroDivisionError("why")
    assert end.code == 4
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "mlinfer: error: m (ZeroDivisionError: why)" in err


def test_an_error_is_one_line_whatever_it_says(capsys):
    with ending(debug=False):
        raise ConfigError("a\nb\x1b[31m")
    assert capsys.readouterr().err == "mlinfer: error: a\\nb\\x1b[31m\n"


class MuteError(Exception):
    """An error that fails when it is asked what it says."""

    def __str__(self):
        raise RuntimeError("no words")


class MuteComponentError(MuteError, ComponentError):
    pass


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MuteError(), "MuteError"),
        (MuteComponentError("x"), "MuteComponentError"),
        (ValueError(), "ValueError"),
        (ComponentError("m"), "m"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_that_cannot_say_what_it_is_is_told_by_its_class(error, line, debug, capsys):
    with ending(debug=debug) as end:
        raise error from MuteError()
    assert end.code == 4
    assert f"mlinfer: error: {line}\n" in capsys.readouterr().err


def test_a_wrong_definition_ends_with_2(folder):
    found = call("run", "nowhere.toml")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("mlinfer: error: nowhere.toml: ")
    assert found.stderr.count("\n") == 1


def test_a_wrong_command_line_ends_with_2(capsys):
    for arguments in (
        ["frobnicate"],
        ["run"],
        ["run", "x.toml", "--until", "never"],
        ["preview", "x.toml", "-n", "0"],
        [],
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    capsys.readouterr()


def test_too_many_rejects_end_with_3(folder, capsys):
    (folder / "pipeline.toml").write_text((PIPELINE + REJECTS).replace("ratio = 0.5", "count = 3"))
    assert main(["run", "pipeline.toml"]) == 3
    assert "wanted at most 3 rejects, found " in capsys.readouterr().err


def test_a_damaged_input_ends_with_4_or_2_and_names_the_file(folder, capsys):
    (folder / "in/two.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")
    assert main(["run", "pipeline.toml"]) == 4
    err = capsys.readouterr().err
    assert "two.parquet" in err
    assert "--debug" in err


def test_a_changed_model_ends_with_2(folder, capsys):
    main(["run", "pipeline.toml"])
    from sklearn.linear_model import LinearRegression

    (folder / "model.mlinfer").unlink()
    x = np.arange(10.0).reshape(-1, 1)
    mlinfer.save(LinearRegression().fit(x, 3 * x[:, 0]), "model.mlinfer", example=pa.table({"x": x[:, 0]}))
    assert main(["run", "pipeline.toml"]) == 2
    assert "on_change" in capsys.readouterr().err


def test_a_reader_that_leaves_early_sees_no_traceback(folder):
    found = subprocess.run(
        f"{MLINFER[0]} preview pipeline.toml -n 100 | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    first, code = found.stdout.splitlines()
    assert first.split()[:2] == ["id", "y_pred"]
    assert code in {"0", "141"}  # 0: all fitted into the pipe before the reader left
    assert found.stderr == ""


def test_output_that_nobody_reads_is_no_traceback(folder):
    with subprocess.Popen(
        [*MLINFER, "explain", "pipeline.toml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


NOT_HERE = "mlinfer needs Linux or macOS: it locks and flushes files in ways that Windows lacks; there, run it in WSL"


@pytest.fixture
def no_locks(tmp_path):
    """The environment of a Python without POSIX locks, as on Windows."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['fcntl'] = None")
    return os.environ | {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("command", [MLINFER, [sys.executable, "-m", "mlinfer"]], ids=["script", "module"])
def test_a_system_without_posix_locks_is_refused_in_one_line(command, no_locks):
    found = subprocess.run(
        [*command, "plugins"], capture_output=True, text=True, timeout=100, check=False, env=no_locks
    )
    assert (found.returncode, found.stdout, found.stderr) == (2, "", f"mlinfer: error: {NOT_HERE}\n")


def test_a_system_without_posix_locks_is_refused_by_an_import_error(no_locks):
    code = "try:\n import mlinfer\nexcept ImportError as error:\n print(error)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True, env=no_locks
    )
    assert found.stdout == f"{NOT_HERE}\n"


def test_what_cannot_be_previewed_or_found_says_what_to_do(folder, capsys):
    for number in ("0", "-1", "ten"):
        with pytest.raises(SystemExit) as ended:
            main(["preview", "pipeline.toml", f"-n={number}"])
        assert ended.value.code == 2
        assert (
            f"argument -n: wanted a number of records of 1 or more, found '{number}'"
            in capsys.readouterr().err
        )
    assert main(["state", "show", "tripled"]) == 2
    err = capsys.readouterr().err
    assert f"wanted one pipeline called 'tripled' in the .toml files of {folder}, found none" in err
    assert "the pipelines here: doubled (pipeline.toml); go to its folder, or name the file itself" in err
    with (
        mlinfer.load_pipeline("pipeline.toml") as pipeline,
        pytest.raises(ConfigError, match="1 or more, found 0"),
    ):
        pipeline.preview(0)


@pytest.fixture
def endless(folder, request):
    """A run that waits for more files, watched over HTTP; ready to be stopped. A parameter says which signals are one, in seconds."""
    slow = "import time\ndef wait(x):\n    time.sleep(60 * (x[0] == 7))\n    return x\n"
    if (together := getattr(request, "param", None)) is not None:
        slow += f"from mlinfer._engine import _signals\n_signals.TOGETHER = {together}\n"
    (folder / "slow_code.py").write_text(slow)
    text = PIPELINE.replace('path = "in/*.parquet"', 'path = "in/*.parquet"\nfollow = true')
    text = text.replace(
        'type = "sklearn"\nmodel = "model.mlinfer"', 'type = "function"\nfunction = "slow_code:wait"'
    )
    text = text.replace(
        "[destination]", 'inputs = {x = "double"}\noutputs = {y = "double"}\ntakes = "numpy"\n[destination]'
    )
    (folder / "pipeline.toml").write_text(text + REJECTS)
    port = free_port()
    child = subprocess.Popen(
        [*MLINFER, "run", "pipeline.toml", "--allow", "slow_code:wait", "--admin-bind", f"127.0.0.1:{port}", "--log", "text"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _until(lambda: _get(f"http://127.0.0.1:{port}/ready")[0] == 200)
    yield child, f"http://127.0.0.1:{port}"
    child.kill()
    child.communicate()


def test_a_signal_drains_and_the_code_is_0(endless, folder):
    child, url = endless
    _until(lambda: b'mlinfer_records_delivered_total{pipeline="doubled"} 90.0' in _get(f"{url}/metrics")[1])
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0
    assert "90 delivered, 10 rejected, exactly-once" in out
    assert "stopped by SIGTERM" in out
    assert "finishing what is in flight" in err
    assert rows() == [(90,)]


@pytest.mark.parametrize("endless", [3600], indirect=True)  # however long the machine stands still
def test_a_signal_that_comes_twice_at_once_as_timeout_sends_it_drains_all_the_same(endless, folder):
    child, url = endless
    _until(lambda: b'mlinfer_records_delivered_total{pipeline="doubled"} 90.0' in _get(f"{url}/metrics")[1])
    child.send_signal(signal.SIGTERM)
    assert "finishing" in _line_with(child.stderr, "finishing")
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=60)
    assert (child.returncode, "stopped by SIGTERM" in out) == (0, True)
    assert rows() == [(90,)]


def test_a_terminal_that_is_closed_ends_a_run_at_once_and_the_next_one_goes_on(endless, folder):
    child, url = endless
    _until(lambda: b'mlinfer_records_delivered_total{pipeline="doubled"} 90.0' in _get(f"{url}/metrics")[1])
    child.send_signal(signal.SIGHUP)
    assert child.wait(timeout=60) == -signal.SIGHUP
    assert call("run", "pipeline.toml", "--allow", "slow_code:wait", "--until", "idle").returncode == 0
    assert rows("SELECT count(*), count(DISTINCT id) FROM scores") == [(90, 90)]


def test_a_second_signal_ends_a_run_whose_model_does_not_return(endless, folder):
    child, url = endless
    _until(lambda: b'mlinfer_records_delivered_total{pipeline="doubled"} 90.0' in _get(f"{url}/metrics")[1])
    pq.write_table(pa.table({"x": [7.0], "id": ["slow"]}), ".two.parquet.tmp")
    Path(".two.parquet.tmp").rename("in/two.parquet")
    _until(lambda: b'mlinfer_records_read_total{pipeline="doubled"} 101.0' in _get(f"{url}/metrics")[1])
    child.send_signal(signal.SIGINT)
    assert "finishing" in _line_with(child.stderr, "finishing")
    time.sleep(0.3)  # sooner it would be the first one that comes twice
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "stopped at once" in err
    assert "Traceback" not in err
    assert rows() == [(90,)]


def _line_with(stream, word):
    return next(line for line in stream if word in line)


def _until(happened):
    deadline = time.monotonic() + 100
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _get(url, method="GET", **headers):
    try:
        with urlopen(Request(url, headers=headers, method=method), timeout=60) as found:
            return found.status, found.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


# --- the admin port -------------------------------------------------------------------------------------------------


def test_the_admin_port_tells_life_readiness_and_metrics():
    ready = Readiness()
    with admin("127.0.0.1:0", ready, PrometheusMetrics(), anywhere=False) as url:
        assert _get(f"{url}/live") == (200, b"live\n")
        assert _get(f"{url}/ready")[0] == 503
        ready.run_started(None)
        assert _get(f"{url}/ready")[0] == 200
        ready.run_ended(None)
        assert _get(f"{url}/ready")[0] == 503
        assert b"mlinfer_runs" in _get(f"{url}/metrics")[1]
        assert _get(f"{url}/elsewhere")[0] == 404
        assert _get(f"{url}/live", Host="evil.example")[0] == 421
        with urlopen(f"{url}/live", timeout=60) as found:
            assert "Server" not in found.headers


def raw(url, *lines, body=b""):
    """The status line that comes of a request of these lines."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return int(connection.makefile("rb").readline().split()[1])


class Echo(NoPages):
    """A page, and something that takes a body."""

    def get(self, path):
        return (200, "text/html", b"page") if path == "/" else None

    def post(self, path, body):
        return (200, "application/json", body) if path == "/try" else None


def test_only_pages_of_the_admin_port_may_send_it_anything():
    with admin("127.0.0.1:0", Readiness(), PrometheusMetrics(), anywhere=False, pages=Echo()) as url:
        host = url.removeprefix("http://")
        good = {"Host": host, "Origin": url, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json",
                "Content-Length": "2"}  # fmt: skip

        def post(path="/try", **changed):
            headers = {**good, **{name.replace("_", "-"): value for name, value in changed.items()}}
            lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
            return raw(url, f"POST {path} HTTP/1.1", *lines, body=b"{}")

        assert post() == post(Origin=None, Sec_Fetch_Site=None) == 200
        assert post(Origin="http://evil.example") == post(Sec_Fetch_Site="cross-site") == 403
        assert post(Origin="null") == 403
        assert post(Content_Type="text/plain") == post(Content_Type=None) == 415
        assert (
            post(Content_Length=None) == post(Content_Length="-1") == post(Transfer_Encoding="chunked") == 411
        )
        assert post(Content_Length=str(2**20 + 1)) == post(Content_Length="9" * 5000) == 413
        assert post(Host="evil.example") == 421
        assert post("/elsewhere") == 404
        assert raw(url, "GET / HTTP/1.1", f"Host: {host}", "Host: evil.example") == 421
        assert raw(url, "GET / HTTP/1.1") == 421
        assert raw(url, "GET / HTTP/1.1", "Host: localhost") == 200
        assert raw(url, "GET / HTTP/1.1", "Host: LOCALHOST:1") == 200
        assert raw(url, "TRACE / HTTP/1.1", f"Host: {host}") == 501
        assert raw(url, "GET / HTTP/1.1", *(f"A{n}: 1" for n in range(200))) == 431
        assert b"PURGE" not in _get(url, method="PURGE")[1], "what was sent is not said back"
        with urlopen(url, timeout=60) as found:
            assert found.headers["X-Content-Type-Options"] == "nosniff"
            assert "frame-ancestors 'none'" in found.headers["Content-Security-Policy"]
            assert found.headers["Cache-Control"] == "no-store"


def test_the_admin_port_answers_head_as_get_and_tells_which_methods_a_path_has():
    class Two(NoPages):
        @property
        def takes(self):
            return {"/": "GET", "/try": "POST"}

        def get(self, path):
            return (200, "text/html", b"page") if path == "/" else None

    with admin("127.0.0.1:0", Readiness(), PrometheusMetrics(), anywhere=False, pages=Two()) as url:

        def ask(method, path):
            with closing(HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
                connection.request(method, path)
                found = connection.getresponse()
                return found.status, found.headers["Allow"], found.headers["Content-Length"], found.read()

        for path, status in (
            ("/live", 200),
            ("/ready", 503),
            ("/metrics", 200),
            ("/", 200),
            ("/nothing", 404),
        ):
            assert ask("HEAD", path)[0] == status
            assert ask("HEAD", path) == (*ask("GET", path)[:3], b"")
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
            for path in ("/live", "/"):
                assert ask(method, path)[:2] == (405, "GET, HEAD"), method
            assert ask(method, "/try")[:2] == (405, "POST")
            assert ask(method, "/nothing")[0] == 404
        assert ask("HEAD", "/try") == (405, "POST", ask("GET", "/try")[2], b"")


def test_a_client_of_the_admin_port_that_leaves_is_not_told_about(capfd):
    class Slow(NoPages):
        def get(self, path):
            time.sleep(0.2)
            return 200, "text/plain", b"x" * 2**22

    with admin("127.0.0.1:0", Readiness(), PrometheusMetrics(), anywhere=False, pages=Slow()) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as one:
                one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.6)
        assert _get(f"{url}/live") == (200, b"live\n")
    assert capfd.readouterr() == ("", "")


def test_whoever_connects_to_the_admin_port_and_is_silent_keeps_no_probe_out():
    with admin("127.0.0.1:0", Readiness(), PrometheusMetrics(), anywhere=False) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        silent = [
            socket.create_connection((host, int(port)), timeout=60) for _ in range(3 * MOST_CONNECTIONS)
        ]
        silent[-1].sendall(
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        )
        try:
            for _ in range(3):
                assert _get(f"{url}/live") == (200, b"live\n")
            assert silent[0].recv(1) == b""  # the oldest gave way
            silent[-1].sendall(b"{}")
            assert silent[-1].recv(12) == b"HTTP/1.0 404"
        finally:
            for connection in silent:
                connection.close()


def test_beyond_the_room_for_those_who_are_being_answered_connections_are_closed():
    go_on, inside = threading.Event(), []

    class Slow(NoPages):
        def get(self, path):
            inside.append(path)
            go_on.wait(60)
            return 200, "text/plain", b"late"

    with admin("127.0.0.1:0", Readiness(), PrometheusMetrics(), anywhere=False, pages=Slow()) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        asked = [socket.create_connection((host, int(port)), timeout=60) for _ in range(MOST_CONNECTIONS)]
        for one in asked:
            one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        _until(lambda: len(inside) == MOST_CONNECTIONS)
        with socket.create_connection((host, int(port)), timeout=60) as beyond:
            assert beyond.recv(1) == b""
        go_on.set()
        for one in asked:
            with closing(one), one.makefile("rb") as answer:
                assert answer.read().endswith(b"late")
        _until(lambda: _get(f"{url}/live") == (200, b"live\n"))


@pytest.mark.parametrize(
    "bind", ["0.0.0.0:0", "example.org:80", "127.0.0.1", ":8080", "127.0.0.1:http", "127.0.0.1:99999"]
)
def test_the_admin_port_is_a_loopback_address(bind):
    with (
        pytest.raises(ConfigError, match="--admin-bind"),
        admin(bind, Readiness(), PrometheusMetrics(), anywhere=False),
    ):
        pass


def test_an_address_that_others_can_reach_needs_a_word():
    with admin("0.0.0.0:0", Readiness(), PrometheusMetrics(), anywhere=True) as url:
        port = url.rpartition(":")[2]
        assert _get(f"http://127.0.0.1:{port}/live", Host="anybody.example")[0] == 200


# --- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["doubled", "pipeline.toml"])
def test_state_is_found_by_name_or_file(folder, capsys, name):
    (folder / "other.toml").write_text("[tool.something]\nx = 1\n")
    (folder / "broken.toml").write_text("[")
    main(["run", "pipeline.toml"])
    capsys.readouterr()
    assert main(["state", "show", name]) == 0
    out = capsys.readouterr().out
    assert "SqlDestination('sqlite:///out.db', table='scores')" in out
    assert "one.parquet" in out
    assert '"row": 100' in out


def test_state_of_a_pipeline_that_never_ran(folder, capsys):
    assert main(["state", "show", "doubled"]) == 0
    assert "progress   none" in capsys.readouterr().out
    assert not (folder / "out.db").exists()


def test_a_name_that_is_not_here_or_here_twice(folder, capsys):
    assert main(["state", "show", "nobody"]) == 2
    assert "found none; the pipelines here: doubled (pipeline.toml)" in capsys.readouterr().err
    (folder / "copy.toml").write_text(PIPELINE)
    assert main(["state", "show", "doubled"]) == 2
    assert "found copy.toml and pipeline.toml" in capsys.readouterr().err


def test_reset_begins_anew(folder, capsys):
    main(["run", "pipeline.toml"])
    assert main(["state", "reset", "doubled", "--yes"]) == 0
    assert rows("SELECT (SELECT count(*) FROM scores), (SELECT count(*) FROM rejects)") == [(0, 0)]
    capsys.readouterr()
    assert main(["run", "pipeline.toml"]) == 0
    assert "90 delivered, 10 rejected" in capsys.readouterr().out
    assert rows("SELECT (SELECT count(*) FROM scores), (SELECT count(*) FROM rejects)") == [(90, 10)]


def test_reset_without_a_terminal_needs_yes(folder, capsys):
    main(["run", "pipeline.toml"])
    assert main(["state", "reset", "doubled"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert rows() == [(90,)]


@pytest.mark.parametrize(("answer", "code", "left"), [("doubled", 0, 0), ("yes", 2, 90), ("", 2, 90)])
def test_reset_asks_for_the_name(folder, answer, code, left):
    main(["run", "pipeline.toml", "--no-progress"])
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    found = call("state", "reset", "doubled", stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert found.returncode == code, found.stderr
    assert "every record that it has delivered" in found.stdout
    assert rows() == [(left,)]


DESTINATIONS = {
    "jsonl": ('type = "jsonl"\npath = "out.jsonl"', 'type = "jsonl"\npath = "rejects.jsonl"'),
    "parquet": ('type = "parquet"\npath = "out"', 'type = "parquet"\npath = "rejects"'),
    "sql": (
        'type = "sql"\nurl = "sqlite:///out.db"\ntable = "scores"',
        'type = "sql"\nurl = "sqlite:///out.db"\ntable = "rejects"',
    ),
}


@pytest.fixture(params=DESTINATIONS)
def anywhere(folder, request):
    main_output, rejects = DESTINATIONS[request.param]
    (folder / "pipeline.toml").write_text(
        PIPELINE.replace('type = "sql"\nurl = "sqlite:///out.db"\ntable = "scores"', main_output)
        + f"\n[rejects]\n{rejects}\n"
    )
    return folder


def test_reset_and_rejects_work_with_every_destination(anywhere, capsys):
    assert main(["rejects", "ls", "pipeline.toml"]) == 0
    assert capsys.readouterr().out == "0 rejects\n"
    for _ in range(2):
        main(["run", "pipeline.toml"])
        assert "90 delivered, 10 rejected" in capsys.readouterr().out
        assert main(["rejects", "ls", "pipeline.toml", "-n", "2"]) == 0
        counts, reason, _, names, first, second, more = capsys.readouterr().out.splitlines()
        assert more.startswith("... and 8 more")
        assert (counts, reason) == ("10 rejects", "  10 x missing_value (conform)")
        assert names.split() == ["record_id", "stage", "kind", "message"]
        assert first.split()[:3] == ["one.parquet#3", "conform", "missing_value"]
        assert second.split()[0] == "one.parquet#13"
        assert main(["state", "reset", "doubled", "--yes"]) == 0
        assert main(["rejects", "ls", "pipeline.toml"]) == 0
        assert "0 rejects" in capsys.readouterr().out
    definition = anywhere / "pipeline.toml"  # what holds nothing is nobody's
    definition.write_text(definition.read_text().replace('name = "doubled"', 'name = "another"'))
    main(["run", "pipeline.toml"])
    assert "90 delivered, 10 rejected" in capsys.readouterr().out


# --- rejects and plugins --------------------------------------------------------------------------------------------


def test_rejects_are_chosen_by_stage_and_kind(folder, capsys):
    main(["run", "pipeline.toml"])
    capsys.readouterr()
    for arguments, count in (
        (["--stage", "infer"], 0),
        (["--kind", "missing_value"], 10),
        (["--kind", "x", "--stage", "conform"], 0),
    ):
        assert main(["rejects", "ls", "pipeline.toml", *arguments, "-n", "0"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == f"{count} rejects"


def test_a_pipeline_without_a_place_for_rejects_has_none_to_list(folder, capsys):
    (folder / "pipeline.toml").write_text(PIPELINE)
    assert main(["rejects", "ls", "pipeline.toml"]) == 2
    assert "[rejects]" in capsys.readouterr().err


def test_plugins_lists_strangers_without_importing_them(folder, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    info = folder / "stranger-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[mlinfer.sources]\nstrange = strange_module_for_cli:Source\n")
    (folder / "strange_module_for_cli.py").write_text("class Source:\n    resume = 'acknowledge'\n")
    assert main(["plugins"]) == 0
    lines = {tuple(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert ("strange", "source", "stranger", "3.1", "?") in lines
    assert ("parquet", "source", "mlinfer", mlinfer.__version__, "exactly-once") in lines
    assert "strange_module_for_cli" not in sys.modules
    assert main(["plugins", "strange"]) == 0
    out = capsys.readouterr().out
    assert "at-least-once" in out
    assert str(folder / "strange_module_for_cli.py") in out
    assert main(["plugins", "nobody"]) == 2
    assert "no part is called 'nobody'" in capsys.readouterr().err
    del sys.modules["strange_module_for_cli"]


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mlinfer {mlinfer.__version__}\n"


def test_the_help_documents_the_exit_codes(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(f"\n  {code:<4} " in out for code in (0, 2, 3, 4, 5, 130))


# --- tables ---------------------------------------------------------------------------------------------------------


def test_a_table_is_aligned_numbers_to_the_right():
    text = rendered(pa.table({"name": ["a", "long one"], "n": [1, 1000], "f": [0.5, None]}), 80)
    assert text.splitlines() == ["name         n     f", "a            1   0.5", "long one  1000  null"]


@pytest.mark.parametrize("width", [10, 30, 80, 200])
def test_a_table_never_wraps(width):
    table = pa.table({f"column{n}": ["x" * 30 * n, "y\n\x1b[31m", "漢字" * 20] for n in range(12)})
    for line in rendered(table, width).splitlines():
        assert line.isprintable()
        if not line.startswith("... and"):
            assert sum(2 if ord(char) > 0x2E80 else 1 for char in line) <= width


def test_columns_that_do_not_fit_are_named():
    table = pa.table({f"a_rather_long_name_{n}": [1] for n in range(9)})
    last = rendered(table, 60).splitlines()[-1]
    assert last.startswith("... and 3 more columns: a_rather_long_name_6")


# --- the bar --------------------------------------------------------------------------------------------------------


def on_a_terminal(*arguments, stdout):
    """What a terminal shows of a command; `stdout` goes there, too, or elsewhere."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*MLINFER, *arguments], stdout=theirs if stdout else subprocess.DEVNULL, stderr=theirs
    ) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux says so when nobody writes any more
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert child.returncode == 0, shown
    return shown.decode()


def bars(shown):
    return [line for line in shown.replace("\r\n", "\n").split("\n") if "\x1b[K" in line and " rows " in line]


def test_a_bar_that_the_file_asks_for_too_is_drawn_once(folder):
    path = folder / "pipeline.toml"
    path.write_text('observers = ["progress"]\n' + path.read_text())
    assert len(bars(on_a_terminal("run", "pipeline.toml", stdout=False))) == 1
    assert bars(on_a_terminal("run", "pipeline.toml", "--from-start", "--no-progress", stdout=False)) == []


def test_no_bar_runs_into_records_on_a_terminal(folder):
    path = folder / "pipeline.toml"
    path.write_text(
        PIPELINE.replace('type = "sql"\nurl = "sqlite:///out.db"\ntable = "scores"', 'type = "stdout"')
        + REJECTS
    )
    shown = on_a_terminal("run", "pipeline.toml", stdout=True)
    assert "\x1b[K" not in shown
    records = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    assert len(records) == 90
    assert len(bars(on_a_terminal("run", "pipeline.toml", stdout=False))) == 1


def test_a_log_that_the_file_asks_for_too_is_written_once(folder):
    path = folder / "pipeline.toml"
    path.write_text('observers = ["log"]\n' + path.read_text())
    lines = call("run", "pipeline.toml", "--log", "json").stderr.splitlines()
    assert [json.loads(line)["event"] for line in lines].count("run_ended") == 1


def test_every_option_of_a_server_can_be_given_in_python_and_on_the_command_line():
    fields = {field.name for field in dataclasses.fields(Serving)} - {"bind"}
    assert set(ServingOptions.__annotations__) == fields
    assert set(_options(_parser().parse_args(["serve", "pipeline.toml"]))) == fields
