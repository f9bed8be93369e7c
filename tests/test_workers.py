"""Process workers answer as threads do, a model that hangs or dies is replaced, and what cannot work says so."""

import ctypes
import math
import os
import re
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import Batching, ComponentError, ConfigError, InferencePipeline, Workers
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

FIELDS = {"inputs": {"x": "float64"}, "outputs": {"y": "float64"}, "takes": "numpy", "version": "1"}


def double(x):
    if (x == 13).any():
        raise ValueError("unlucky")
    return 2 * x


def hang_at_one(x):
    if (x == 1).any():
        ctypes.CDLL(None).sleep(60)  # inside C, where no exception and no signal handler of Python's gets in
    return 2 * x


def die_at_one(x):
    if (x == 1).any():
        os.kill(os.getpid(), 9)
    return 2 * x


def crash_at_one(x):
    if (x == 1).any():
        ctypes.string_at(0)
    return 2 * x


def short_by_one(x):
    return x[1:]


class Broken(FunctionHost):
    """Cannot be loaded."""

    def open(self):
        raise ConfigError("the model file is missing")


class Remembering(FunctionHost):
    """A host whose model has a memory."""

    def open(self):
        return _Remembering(super().open())


class _Remembering:
    def __init__(self, opening):
        self.opening = opening

    def __enter__(self):
        model = self.opening.__enter__()
        model.snapshot, model.restore = bytes, lambda state: None
        return model

    def __exit__(self, *error):
        return self.opening.__exit__(*error)


def run(function, count=20, *, host=None, rejects=False, **more):
    main, kept = MemoryDestination(), MemoryDestination()
    source = MemorySource({"id": range(count), "x": np.arange(count, dtype=float)})
    pipeline = InferencePipeline(
        source, host or FunctionHost(function, **FIELDS), main,
        name="p", keep=["id"], rejects=kept if rejects else None, **more,
    )  # fmt: skip
    return pipeline.run(), main.table(), kept.table("rejects")


def test_processes_give_the_answers_of_threads_in_their_order():
    settings = {"count": 400, "rejects": True, "batching": Batching(50)}
    _, threads, thread_rejects = run(double, workers=2, **settings)
    report, processes, process_rejects = run(double, workers=Workers(2, "process"), **settings)
    assert processes.equals(threads)
    assert processes["id"].to_pylist() == [n for n in range(400) if n != 13]
    assert process_rejects["record_id"].to_pylist() == thread_rejects["record_id"].to_pylist()
    assert process_rejects["kind"].to_pylist() == ["model_error"]
    assert "ValueError: unlucky" in process_rejects["message"][0].as_py()
    assert report.rejected == 1


def test_a_contract_broken_in_a_process_is_named():
    with pytest.raises(ComponentError, match="wanted 20 answers for 20 records, found 19"):
        run(short_by_one, workers=Workers(1, "process"))


def test_a_model_that_hangs_in_c_code_is_ended_and_the_records_are_named():
    with pytest.raises(ComponentError) as caught:
        run(hang_at_one, timeout=0.5)
    message = str(caught.value)
    assert "no answer within 0.5 s for 20 records; the model was ended (records memory-" in message
    assert "#0 to memory-" in message
    assert message.endswith("#19); with rejects= the slow ones would be set apart")


@pytest.mark.parametrize(
    ("function", "kind"),
    [(hang_at_one, "timeout"), (die_at_one, "model_died"), (crash_at_one, "model_died")],
)
def test_only_the_record_that_makes_a_model_hang_or_die_is_rejected(function, kind):
    # no other record takes so long, however busy the machine; and each call that hangs does
    records, patience = (2, 5) if kind == "timeout" else (3, 60)
    report, answers, rejects = run(function, records, rejects=True, timeout=patience)
    assert answers.to_pylist() == [{"id": n, "y": 2.0 * n} for n in (0, 2) if n < records]
    assert (rejects["kind"].to_pylist(), report.rejected) == ([kind], 1)
    assert rejects["record"].to_pylist() == ['{"x":1.0,"id":1}']


ENDINGS = textwrap.dedent("""
    import ctypes, os, sys, time
    from mlinfer import InferencePipeline
    from mlinfer.destinations import MemoryDestination
    from mlinfer.hosts import FunctionHost
    from mlinfer.sources import MemorySource

    def end(x):
        with open(sys.argv[2], "a") as file:
            print(os.getpid(), time.monotonic(), file=file)
        if sys.argv[1] == "hang":
            ctypes.CDLL(None).sleep(60)
        if sys.argv[1] == "exit":
            sys.exit(3)
        if sys.argv[1] == "interrupt":
            raise KeyboardInterrupt
        if sys.argv[1] == "die once" and len(open(sys.argv[2]).readlines()) > 1:
            return x
        os._exit(1)

    if __name__ == "__main__":
        host = FunctionHost(end, {"x": "double"}, {"y": "double"}, "numpy", "1")
        pipeline = InferencePipeline(
            MemorySource({"x": [1.0]}), host, MemoryDestination(), name="p", timeout=float(sys.argv[3])
        )
        try:
            print(pipeline.run())
        except Exception as error:
            print(type(error).__name__, error)
        print(time.monotonic())
""")


@pytest.fixture
def ending(tmp_path):
    """Runs a program whose model ends like this; gives what it printed, its standard error, and each call's process and time."""
    program, calls = tmp_path / "program.py", tmp_path / "calls.txt"
    program.write_text(ENDINGS)
    started = []

    def begin(how, timeout=30.0):
        command = [sys.executable, str(program), how, str(calls), str(timeout)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1], calls

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("hang", "ComponentError no answer within 1 s for 1 record"),
        ("exit", "RejectsError 1 bad record .* RuntimeError: the model called sys.exit"),
        ("interrupt", "RejectsError 1 bad record .* KeyboardInterrupt"),
        ("die", "RejectsError 1 bad record .* the model's process died over 1 record"),
    ],
)
def test_however_a_model_ends_nothing_but_our_sentence_is_said(ending, how, said):
    process, _ = ending(how, 1.0 if how == "hang" else 30.0)
    out, err = process.communicate(timeout=100)
    assert re.match(said, out)
    assert err == ""


def test_a_run_whose_model_hangs_ends_within_the_timeout_and_five_seconds(ending):
    process, calls = ending("hang", 2.0)
    out, _ = process.communicate(timeout=100)
    begun = float(calls.read_text().split()[1])
    assert float(out.splitlines()[-1]) - begun < 7


def test_a_process_that_dies_once_costs_no_record(ending):
    process, calls = ending("die once")
    out, err = process.communicate(timeout=100)
    assert out.startswith("1 delivered, 0 rejected")
    assert (len(calls.read_text().splitlines()), err) == (2, "")


def test_a_busy_model_does_not_outlive_a_killed_parent(ending):
    process, calls = ending("hang")
    until = time.monotonic() + 60
    while not (calls.exists() and calls.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    child = int(calls.read_text().split()[0])
    assert alive(child)
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(child)


def alive(process):
    """Whether there is such a process that has not ended; one that nobody has waited for has."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip().rstrip("+lsN<") not in {"", "Z"}


def test_children_end_with_the_run():
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    run(double, workers=Workers(2, "process"), rejects=True)
    with pytest.raises(ComponentError):
        run(short_by_one, workers=Workers(1, "process"))
    until = time.monotonic() + 60
    while (children() or threading.active_count() > threads) and time.monotonic() < until:
        time.sleep(0.01)
    assert children() == []
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= files + 2  # noqa: PTH208 - the spawn method keeps a pipe of its own


def children():
    found = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return [line for line in found.stdout.splitlines() if "spawn_main" in line]


MODULE_LAMBDA = lambda x: x  # noqa: E731 - a function without a name of its own


@pytest.mark.parametrize(
    ("function", "more"), [(lambda x: x, {"timeout": 5}), (MODULE_LAMBDA, {"workers": Workers(1, "process")})]
)
def test_a_function_that_cannot_be_sent_is_refused_in_words(function, more):
    with pytest.raises(ConfigError) as caught:
        run(function, **more)
    message = str(caught.value)
    assert message.startswith("the host FunctionHost cannot be sent to a worker process (")
    assert message.endswith(
        "define its function at the top level of a module, or do without worker processes and timeout="
    )


def test_a_model_that_cannot_be_loaded_in_a_process_raises_its_own_error():
    with pytest.raises(ConfigError, match=r"^the model file is missing$"):
        run(None, host=Broken(double, **FIELDS), timeout=5)


def test_a_model_with_a_memory_is_not_put_where_it_would_be_lost():
    with pytest.raises(
        ConfigError, match=r"wanted a model that keeps nothing between calls.* use thread workers"
    ):
        run(None, host=Remembering(double, **FIELDS), timeout=5)


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from mlinfer import InferencePipeline
        from mlinfer.destinations import MemoryDestination
        from mlinfer.hosts import FunctionHost
        from mlinfer.sources import MemorySource

        def f(x):
            return x

        host = FunctionHost(f, {"x": "float64"}, {"y": "float64"}, "numpy")
        InferencePipeline(MemorySource({"x": [1.0]}), host, MemoryDestination(), name="p", timeout=9).run()
        """)
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert 'must guard its start with if __name__ == "__main__":' in found.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"count": 2, "kind": "fork"}, {"count": "2"}, {"count": 2.5}, {"kind": ["thread"]}],
)
def test_workers_that_cannot_be_are_refused(wrong):
    with pytest.raises(
        ConfigError, match="workers: wanted a count of 1 to 1,024 and the kind 'thread' or 'process'"
    ):
        Workers(**wrong)


@pytest.mark.parametrize("wrong", [{"max_records": 0}, {"max_records": "100"}, {"max_bytes": 0.5}])
def test_batches_of_no_size_are_refused(wrong):
    with pytest.raises(
        ConfigError, match="batching: wanted positive sizes, in whole numbers, found Batching"
    ):
        Batching(**wrong)


@pytest.mark.parametrize("timeout", [0, -1.5, math.nan, math.inf, 1e300, "5"])
def test_a_timeout_must_be_positive(timeout):
    wanted = "timeout: wanted a positive number of seconds, 9,223,372,036 at most"
    with pytest.raises(ConfigError, match=re.escape(f"{wanted}, found {timeout!r}")):
        InferencePipeline(None, None, None, timeout=timeout)


def test_arrow_answers_travel_as_they_are():
    kind = pa.list_(pa.field("item", pa.float64(), nullable=False), 2)
    host = FunctionHost(pairs, {"x": kind}, pa.schema([("y", pa.string()), ("z", kind)]), "arrow", "1")
    main = MemoryDestination()
    pipeline = InferencePipeline(MemorySource(np.arange(6.0).reshape(3, 2)), host, main, name="p", timeout=20)
    assert pipeline.run().delivered == 3
    assert main.table().to_pydict() == {"y": ["n", None, "n"], "z": [[0, 1], [2, 3], [4, 5]]}


def pairs(records):
    return pa.RecordBatch.from_arrays([pa.array(["n", None, "n"]), records["x"]], ["y", "z"])
