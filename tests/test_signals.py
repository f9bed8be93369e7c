"""SIGTERM and SIGINT drain a program's run and let it end well; a second one stops it at once."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from mlinfer import DataSource, InferencePipeline, Stop, TransientError
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost

PROGRAM = textwrap.dedent("""
    import sys, time
    from contextlib import contextmanager
    from dataclasses import dataclass
    import pyarrow as pa
    from mlinfer import Batch, Checkpoint, DataDestination, DataSource, EndOfInput, InferencePipeline, RecordIds
    from mlinfer.hosts import FunctionHost

    @dataclass(frozen=True)
    class Endless(DataSource):
        resume = "seek"
        bounded = False
        def schema(self):
            return pa.schema([("x", pa.float64())])
        @contextmanager
        def open(self, partition, after, wanted):
            yield Reader(after or 0)

    class Reader:
        def __init__(self, row):
            self.row = row
        def read(self, most, timeout):
            time.sleep(0.001)
            row, self.row = self.row, self.row + 1
            return Batch(pa.record_batch({"x": [float(row)]}), "all", row + 1, RecordIds.ordinals("all", row, 1))

    class Lines(DataDestination):
        @contextmanager
        def open(self, schema, scope):
            with open(sys.argv[1], "a") as self.file:
                yield self
        def write(self, batch):
            self.file.writelines(f"{y:.0f}\\n" for y in batch.records["y"].to_pylist())
            if not self.told:
                print("writing\\n", end="", flush=True)  # in one piece, beside another thread
                self.told = True
        def commit(self, progress):
            self.file.flush()
        told = False

    def infer(x):
        if HANGS and x[0] > 20:
            print("hanging\\n", end="", flush=True)
            time.sleep(60)
        return x

    HANGS = len(sys.argv) > 3
    host = FunctionHost(infer, {"x": "float64"}, {"y": "float64"}, "numpy", "1")
    pipeline = InferencePipeline(Endless(), host, Lines(), name="p", checkpoint=Checkpoint(sys.argv[2]))
    report = pipeline.run()
    print(report.delivered, report.stopped)
""")


@pytest.fixture
def start(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    started = []

    def begin(*more):
        command = [
            sys.executable,
            str(program),
            str(tmp_path / "out.txt"),
            str(tmp_path / "p.progress"),
            *more,
        ]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        )
        assert started[-1].stdout.readline() == "writing\n"
        return started[-1]

    yield begin
    for child in started:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_run_and_the_next_one_goes_on(start, tmp_path, number):
    total = 0
    for _ in range(2):
        child = start()
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, err) == (0, "")
        delivered, stopped = out.split()
        assert stopped == number.name
        total += int(delivered)
        written = [int(line) for line in (tmp_path / "out.txt").read_text().split()]
        assert written == list(range(total))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once_even_while_the_model_is_busy(start, number):
    child = start("hang")
    assert child.stdout.readline() == "hanging\n"
    child.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)
    for _ in range(10):  # two that come before the process has a moment to heed the first are one
        child.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=3)
            break
    _, err = child.communicate(timeout=60)
    assert child.returncode != 0
    assert "KeyboardInterrupt" in err


@pytest.mark.parametrize("part", range(6))
def test_a_sigterm_at_any_moment_of_the_command_ends_it_well(tmp_path, part):
    (tmp_path / "in.jsonl").write_text('{"x": 1.0}\n' * 1000)
    (tmp_path / "parts_of_it.py").write_text(
        "import mlinfer\n"
        '@mlinfer.host(inputs={"x": "double"}, outputs={"y": "double"}, takes="numpy", version="1")\n'
        "def same(x):\n"
        "    return x\n"
    )
    (tmp_path / "p.toml").write_text(
        'name = "p"\n[source]\ntype = "jsonl"\npath = "in.jsonl"\n[host]\ntype = "parts_of_it:same"\n'
        '[destination]\ntype = "jsonl"\npath = "out.jsonl"\n'
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "mlinfer",
        "run",
        "p.toml",
        "--allow",
        "parts_of_it:same",
        "--from-start",
    ]

    def run(wait):
        child = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        begun = time.monotonic()
        while not heeds(child.pid):  # until then it is Python that starts
            time.sleep(0.001)
        if wait is not None:
            time.sleep(wait)
            child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, (wait, err)
        return time.monotonic() - begun

    whole = run(None)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1000
    for n in range(2):
        run(whole * (part + n / 2) / 6)


def test_a_sigterm_is_heeded_before_the_libraries_are_loaded():
    code = (
        "import signal, sys\n"
        "class Look:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in {'numpy', 'pyarrow'}:\n"
        "            print(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)\n"
        "sys.meta_path.insert(0, Look())\n"
        "sys.argv = ['mlinfer', 'run', 'p.toml']\n"
        "import mlinfer\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split()[:1] == ["True"]


def heeds(process):
    """Whether a process has a way with SIGTERM of its own, or ignores it; an ended one needs none."""
    try:
        with Path(f"/proc/{process}/status").open(encoding="utf-8") as file:
            found = dict(line.split(":", 1) for line in file)
    except OSError:
        return True
    masks = [int(found.get(name, "0").strip(), 16) for name in ("SigCgt", "SigIgn")]
    return "Z" in found["State"] or bool((masks[0] | masks[1]) >> (signal.SIGTERM - 1) & 1)


def test_a_signal_that_comes_twice_at_once_is_one():
    code = (
        "import signal, time\n"
        "from mlinfer._engine import Stop, stopping_on_signals\n"
        "stop, now = Stop(), 100.0\n"
        "time.monotonic = lambda: now  # a machine that is busy may take any time between two lines\n"
        "with stopping_on_signals(stop):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    now += 0.1\n"
        "    signal.raise_signal(signal.SIGTERM)  # as timeout(1) does it\n"
        "    print(stop.reason)\n"
        "    now += 0.2\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "    except KeyboardInterrupt:\n"
        "        print('at once')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "SIGTERM\nat once\n"


def test_a_program_keeps_its_own_handlers():
    code = (
        "import signal\n"
        "from mlinfer._engine import Stop, stopping_on_signals\n"
        "own = lambda *_: print('own handler')\n"
        "signal.signal(signal.SIGTERM, own)\n"
        "stop = Stop()\n"
        "with stopping_on_signals(stop):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "print(stop.reason, signal.getsignal(signal.SIGTERM) is own,\n"
        "      signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "own handler\nSIGINT True True\n"


def test_a_shell_keeps_its_interrupts():
    code = (
        "import sys, signal\n"
        "sys.ps1 = '>>> '\n"
        "from mlinfer._engine import Stop, stopping_on_signals\n"
        "with stopping_on_signals(Stop()):\n"
        "    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"


def test_a_reader_that_stops_reading_the_report_is_no_disaster(start):
    child = start()
    os.kill(child.pid, signal.SIGTERM)
    child.stdout.close()
    child.stdout = None
    child.wait(timeout=60)
    assert child.returncode in {0, 1, 120}


def test_a_stop_during_a_wait_for_the_next_attempt_ends_the_run_in_peace():
    stop = Stop()

    class Down(DataSource):
        resume = "seek"

        def schema(self):
            return pa.schema([("x", pa.float64())])

        def open(self, partition, after, wanted):
            stop.ask("test")
            raise TransientError("down", wait=60)

    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, takes="numpy")
    report = InferencePipeline(Down(), host, MemoryDestination(), name="waiting").run(stop=stop)
    assert (report.delivered, report.stopped) == (0, "test")
