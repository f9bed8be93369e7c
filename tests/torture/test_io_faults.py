"""Whatever the disk refuses, and whenever: an error that names the file and says what to do, nothing torn, nothing lost."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import pytest

from mlinfer import ComponentError, InferencePipeline, MlinferError
from mlinfer.destinations import SqlDestination
from torture import io_faults
from torture.power_loss import KINDS, RECORDS, Numbers, Watch, expected, model


@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_may_fail(kind):
    found = io_faults.run([kind], ["EIO"])
    assert found.failed["EIO"] > 15
    assert found, f"{found}\n{found.unnamed[:3]}\n{found.torn[:3]}\n{found.wrong[:3]}"


@pytest.mark.parametrize("fault", ["ENOSPC", "EINTR", "short"])
def test_however_it_fails(fault):
    found = io_faults.run(faults=[fault], every=5)
    assert found.failed[fault] > 20
    assert found, f"{found}\n{found.unnamed[:3]}\n{found.torn[:3]}\n{found.wrong[:3]}"


# --- SQLite ----------------------------------------------------------------------------------------------------------


class Sql(SqlDestination):
    commit_seconds = 0.0


class Failing(sqlite3.Connection):
    """A connection whose n-th statement fails as SQLite says it when the disk does."""

    left = 0
    code = sqlite3.SQLITE_IOERR

    def execute(self, *arguments):
        self._count()
        return super().execute(*arguments)

    def executemany(self, *arguments):
        self._count()
        return super().executemany(*arguments)

    @classmethod
    def _count(cls):
        cls.left -= 1
        if cls.left == 0:
            error = sqlite3.OperationalError("the disk said no")
            error.sqlite_errorcode = cls.code
            raise error


def scores(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT id, y FROM scores ORDER BY rowid").fetchall()


def sql_pipeline(path, count, watch=None):
    destination = Sql(f"sqlite:///{path}", table="scores")
    observers = [watch] if watch else ()
    return InferencePipeline(
        Numbers(count, watch), model, destination, name="p", keep=["id"], observers=observers
    )


@pytest.mark.parametrize(("code", "every"), [(sqlite3.SQLITE_IOERR, 1), (sqlite3.SQLITE_FULL, 4)])
def test_every_statement_may_fail(code, every, tmp_path, monkeypatch):
    connect, failed = sqlite3.connect, 0
    monkeypatch.setattr(Failing, "code", code)
    for number in range(1, 1000, every):
        path = tmp_path / f"{number}.db"
        sql_pipeline(path, RECORDS // 2).run()
        Failing.left, watch = number, Watch()
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Failing))
            try:
                sql_pipeline(path, RECORDS, watch).run()
            except MlinferError as error:
                failed += 1
                assert str(path) in str(error)  # noqa: PT017 - the last one does not raise
            else:
                assert Failing.left > 0
                break
        assert scores(path) == expected(len(scores(path)))  # whole commits, in their order
        sql_pipeline(path, RECORDS).run()
        assert scores(path) == expected()
    assert failed > 20 / every


# --- a full disk, from the command line --------------------------------------------------------------------------------

LIMITED = """
import resource, signal, sys
from mlinfer._cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(["run", "p.toml", "--allow", "model:double"]))
"""
OUTPUTS = {
    "parquet": ('{ type = "parquet", path = "out", compression = "none" }', "out"),
    "jsonl": ('{ type = "jsonl", path = "out.jsonl" }', "out.jsonl"),
    "csv": ('{ type = "csv", path = "out.csv" }', "out.csv"),
    "sqlite": ('{ type = "sql", url = "sqlite:///out.db", table = "scores" }', "out.db"),
}


def answered(kind, folder):
    """The number of ids at the destination and of different ones, read without mlinfer."""
    import pyarrow.csv as pc
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    if kind == "sqlite":
        with sqlite3.connect(folder / "out.db") as connection:
            ids = [n for (n,) in connection.execute("SELECT id FROM scores")]
    else:
        read = {"parquet": pq.read_table, "jsonl": pj.read_json, "csv": pc.read_csv}[kind]
        ids = read(folder / OUTPUTS[kind][1]).column("id").to_pylist()
    return len(ids), len(set(ids))


def define(folder, kind, more=""):
    """A pipeline in a file, from in.csv to an output of this kind."""
    (folder / "model.py").write_text("def double(x):\n    return x * 2\n")
    (folder / "p.toml").write_text(
        'name = "p"\nkeep = { id = "int64" }\nsource = { type = "csv", path = "in.csv" }\n'
        'host = { type = "function", function = "model:double", inputs = { x = "double" }, outputs = { y = "double" }, '
        f'takes = "numpy", version = "1" }}\ndestination = {OUTPUTS[kind][0]}\n{more}'
    )


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_full_disk_is_exit_code_4_and_the_next_run_completes(kind, tmp_path):
    (tmp_path / "in.csv").write_text("id,x\n" + "".join(f"{n},{n}\n" for n in range(30_000)))
    define(tmp_path, kind)

    def run(limit):
        command = [sys.executable, "-c", LIMITED, str(limit)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip

    full = run(100_000)
    assert full.returncode == 4, full.stderr
    assert OUTPUTS[kind][1] in full.stderr
    assert "Traceback" not in full.stderr
    if kind == "parquet":
        assert [path.name for path in (tmp_path / "out").iterdir()] == []
    again = run(-1)
    assert again.returncode == 0, again.stderr
    assert answered(kind, tmp_path) == (30_000, 30_000)


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (
            "> /dev/full",
            4,
            "standard output: wanted to print, found No space left on device; what was delivered is safe",
        ),
        ("2> /dev/full", 0, ""),
        ("> /dev/full 2> /dev/full", 4, ""),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_a_full_or_closed_output_does_not_keep_records_back(redirected, code, said, tmp_path):
    (tmp_path / "in.csv").write_text("id,x\n1,1\n2,2\n")
    define(tmp_path, "csv", more='observers = ["log"]\n')
    command = f"{sys.executable} -m mlinfer run p.toml --allow model:double {redirected}"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert answered("csv", tmp_path) == (2, 2)


# --- a lane that fails while its source has nothing new ------------------------------------------------------------------


def test_a_run_that_cannot_write_ends_while_its_source_is_idle(tmp_path):
    """The reader waits for a commit that never comes: the failure of the commit must end it, too."""

    class Full(Sql):
        @contextmanager
        def open(self, schema, scope):
            with super().open(schema, scope) as writer:
                yield Refusing(writer)

    class Refusing:
        def __init__(self, writer):
            self.write, self.committed = writer.write, writer.committed

        def commit(self, progress):
            raise ComponentError("full")

    watch = Watch()
    pipeline = InferencePipeline(
        Numbers(4, watch),
        model,
        Full(f"sqlite:///{tmp_path}/a.db", table="scores"),
        name="p",
        observers=[watch],
    )
    previous = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the run did not end"))
    signal.alarm(60)
    try:
        with pytest.raises(ComponentError, match="full"):
            pipeline.run()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
