"""What becomes of records when PostgreSQL, or the way to it, fails: looked at with the database's own driver.

Every run here must end with each record delivered exactly once, or stop with a reason and go on where it stopped.
"""

import signal
import subprocess
import sys
import textwrap
import time
import traceback

import psycopg
import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    Budget,
    ComponentError,
    ConfigError,
    InferencePipeline,
    MlinferError,
    Progress,
    RecordErrors,
    Retry,
    Scope,
    TransientError,
    observer,
)
from mlinfer._cli import main
from mlinfer.destinations import SqlDestination
from mlinfer.destinations import _postgres as postgres
from mlinfer.destinations import _postgres_line as line
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource, MemorySource
from ports import free_port
from postgres import PASSWORD, PostgresServer
from proxy import Proxy, Trap

SCHEMA = pa.schema([("id", pa.int64()), ("y", pa.float64())])
RECORDS = 60
NOTE = "n" * 300
AT_ONCE = Retry(attempts=10, first_wait=0.01, longest_wait=0.2)


class Eager(SqlDestination):
    """Commits every batch."""

    commit_seconds = 0.0


@pytest.fixture(scope="module")
def server():
    with PostgresServer.running() as running:
        yield running


@pytest.fixture
def url(server):
    return server.database()


@pytest.fixture
def proxy(server):
    with Proxy(server.port) as one:
        yield one


def rows(url, query):
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def change(url, *statements):
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def through(proxy, url):
    return url.replace(url.rpartition(":")[2].partition("/")[0], str(proxy.port))


def some(*ids):
    values = {"id": list(ids), "y": [float(n) for n in ids]}
    return Batch(pa.RecordBatch.from_pydict(values, schema=SCHEMA), "a", 1)


def doubled(records):
    return {"y": pa.compute.multiply(records.column("x"), 2.0)}


def pipeline(url, source, table="scores", **more):
    host = FunctionHost(doubled, {"x": pa.float64()}, {"y": pa.float64()}, version="1")
    more = {"name": "p", "rejects": SqlDestination(url, "rejects"), "retry": AT_ONCE, **more}
    destination = more.pop("destination", None) or Eager(url, table)
    more = {"keep": {"id": pa.int64()}, "budget": Budget(ratio=None), **more}
    return InferencePipeline(source, host, destination, **more)


def counted(moments=None):
    """Records one by one; `moments` says what happens before some of them."""
    moments = dict(moments or {})

    def numbers(after=0):
        for n in range(after, RECORDS):
            if n in moments:
                moments.pop(n)()
            yield {"id": [n], "x": [float(n)], "note": [NOTE]}

    return IterableSource(numbers)


def every_record_once(url):
    return rows(url, "SELECT id, y FROM scores ORDER BY id") == [(n, 2.0 * n) for n in range(RECORDS)]


# --- the line is cut -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["unsent", "answered", "late"])
@pytest.mark.parametrize("nth", [1, 3])
def test_a_commit_whose_answer_is_lost_counts_once(url, proxy, then, nth):
    def arm():
        proxy.trap = Trap(b"COMMIT\0", then)  # not the COMMITTED of BEGIN

    pipeline(url, counted()).check()
    made = pipeline(through(proxy, url), counted({0 if nth == 1 else 20: arm}))
    report = made.run()
    assert proxy.sprung
    assert every_record_once(url)
    assert report.delivered == RECORDS


@pytest.mark.parametrize("after", [1, 300, 700, 1500, 2500, 4000, 6000, 9000])
def test_a_line_that_is_cut_anywhere_loses_and_doubles_nothing(url, proxy, after):
    proxy.trap = Trap(None, "unsent", after)
    kept = {"id": pa.int64(), "note": pa.string()}  # 18,000 bytes to send, however few commits they make up
    report = pipeline(through(proxy, url), counted(), keep=kept).run()
    assert proxy.sprung
    assert every_record_once(url)
    assert report.delivered == RECORDS


@pytest.mark.parametrize("word", [b"BEGIN", b"COPY", b"COMMIT\0", b"SET statement_timeout"])
def test_a_network_that_swallows_everything_is_noticed(url, proxy, word, monkeypatch):
    monkeypatch.setattr(line, "ANSWER_SECONDS", 0.5)
    proxy.trap = Trap(word, "silent")
    assert pipeline(through(proxy, url), counted()).run().delivered == RECORDS
    assert proxy.sprung
    assert every_record_once(url)


def test_a_server_that_does_not_greet_is_noticed(url, proxy, monkeypatch):
    monkeypatch.setattr(line, "CONNECT_SECONDS", 2)  # the driver waits two seconds at least
    proxy.trap = Trap(None, "silent", 1)
    assert pipeline(through(proxy, url), counted()).run().delivered == RECORDS
    assert proxy.sprung


# --- the server is gone ----------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    port = free_port()
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/x"
    made = pipeline(url, MemorySource({"id": [1], "x": [1.0]}), retry=Retry(attempts=2, first_wait=0.01))
    with pytest.raises(ComponentError, match=f"2 times in a row: database 127.0.0.1:{port}/x: wanted a conn"):
        made.run()
    (tmp_path / "in.jsonl").write_text('{"id": 1, "x": 1}\n')
    (tmp_path / "p.toml").write_text(
        textwrap.dedent(f"""
        name = "p"
        source = {{ type = "jsonl", path = "in.jsonl" }}
        host = {{ type = "function", function = "math:sqrt", inputs = {{ x = "double" }}, outputs = {{ y = "double" }} }}
        destination = {{ type = "sql", url = "{url}", table = "scores" }}
        retry = {{ attempts = 1 }}
        """)
    )
    assert main(["run", "p.toml", "--allow", "math:sqrt"]) == 4
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert PASSWORD not in said
    assert len(said.splitlines()) < 12


def test_a_server_that_is_killed_and_comes_back_costs_nothing(server, url):
    def fall():
        change(url, "CHECKPOINT")  # else the server first repeats what other tests did
        server.kill()
        server.start()

    report = pipeline(url, counted({20: fall, 40: fall})).run()
    assert every_record_once(url)
    assert report.delivered + report.rejected <= RECORDS


def test_a_server_that_stays_away_a_while_is_waited_for(server, url):
    away = []

    class Restart:
        @observer
        def retry_scheduled(self, event):
            away.append(event)
            if len(away) == 3:
                server.start()

    made = pipeline(
        url, counted({20: lambda: (change(url, "CHECKPOINT"), server.kill())}), observers=[Restart()]
    )
    made.run()
    assert len(away) == 3
    assert every_record_once(url)
    assert not [event for event in away if PASSWORD in repr(event)]


def test_a_read_only_server_is_waited_for(url):
    name = url.rpartition("/")[2]
    away = []

    def failover():
        change(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on",
               "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
               " WHERE datname = current_database() AND application_name = 'mlinfer'")  # fmt: skip

    class Recover:
        @observer
        def retry_scheduled(self, event):
            away.append(event.reason)
            if len(away) == 3:
                change(url, "SET default_transaction_read_only = off",
                       f"ALTER DATABASE {name} SET default_transaction_read_only = off")  # fmt: skip

    pipeline(url, counted({20: failover}), observers=[Recover()]).run()
    assert "read-only" in "".join(away)
    assert every_record_once(url)


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_deadlock_has_the_whole_commit_tried_again(url, state):
    change(
        url,
        "CREATE TABLE scores (id BIGINT, y DOUBLE PRECISION)",
        "CREATE SEQUENCE once",
        f"""CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.id = 30 AND nextval('once') = 1 THEN RAISE EXCEPTION 'unlucky' USING ERRCODE = '{state}'; END IF;
            RETURN NEW; END $$""",
        "CREATE TRIGGER unlucky BEFORE INSERT ON scores FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    made = pipeline(url, counted(), destination=Eager(url, "scores", if_exists="append"))
    report = made.run()
    assert (report.delivered, report.rejected) == (RECORDS, 0)
    assert every_record_once(url)
    assert rows(url, "SELECT last_value FROM once") == [(2,)]


# --- records that the database refuses -------------------------------------------------------------------------------

GUILTY = {3, 4, 41, 59}


@pytest.mark.parametrize("key", [None, "id"])
@pytest.mark.parametrize(
    "column",
    [
        "DOUBLE PRECISION CHECK (y NOT IN (6, 8, 82, 118))",
        "DOUBLE PRECISION CONSTRAINT late UNIQUE DEFERRABLE INITIALLY DEFERRED",
    ],
    ids=["check", "deferred"],
)
def test_refused_records_become_rejects_and_the_others_are_stored(url, key, column):
    change(url, f"CREATE TABLE scores (id BIGINT PRIMARY KEY, y {column})")
    if "CHECK" not in column:
        change(url, *(f"INSERT INTO scores VALUES ({-n}, {2 * n})" for n in sorted(GUILTY)))
    report = pipeline(url, counted(), destination=SqlDestination(url, "scores", key, "append")).run()
    assert (report.delivered, report.rejected) == (RECORDS - 4, 4)
    assert rows(url, "SELECT id FROM scores WHERE id >= 0 ORDER BY id") == [
        (n,) for n in range(RECORDS) if n not in GUILTY
    ]
    found = rows(url, "SELECT stage, kind, (record::json->>'id')::int FROM rejects ORDER BY 3")
    assert found == [("write", "refused", n) for n in sorted(GUILTY)]


def stored(writer, records):
    """Some bad records are found before the database is asked, others by it."""
    writer.write(Batch(records, "a", 1))
    writer.commit(Progress({"a": 1}))


@pytest.mark.parametrize(
    ("column", "given", "bad"),
    [
        ("VARCHAR(3)", (pa.string(), ["abc", "abcd", None]), [1]),
        ("TEXT NOT NULL", (pa.string(), ["abc", None, ""]), [1]),
        ("INTEGER", (pa.int64(), [2**31 - 1, 2**31, -(2**31) - 1, None]), [1, 2]),
        ("NUMERIC(4,2)", (pa.decimal128(6, 2), ["1.25", "1234.25"]), [1]),
        ("UUID", (pa.string(), ["0" * 32, "no"]), [1]),
        ("REAL", (pa.float32(), [1.5, float("nan")]), []),
        ("DATE", (pa.date32(), [0, 2**31 - 1]), [1]),
        ("JSONB", (pa.list_(pa.string()), [["a"], ["a\0b"]]), [1]),
        ("TIMESTAMP", (pa.timestamp("us"), [0, 2**62]), [1]),
        ("TEXT UNIQUE", (pa.string(), ["short", "".join(chr(256 + n * 7 % 9000) for n in range(9000))]), [1]),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_value_without_a_place_is_refused_by_record(url, column, given, bad):
    kind, values = given
    if pa.types.is_decimal(kind):
        values = pa.array(values).cast(kind)
    array = pa.array(values, kind)
    change(url, f"CREATE TABLE scores (v {column})")
    records = pa.record_batch({"v": array})
    with SqlDestination(url, "scores", if_exists="append").open(records.schema, Scope("p")) as writer:
        if not bad:
            writer.write(Batch(records, "a", 1))
        else:
            with pytest.raises(RecordErrors) as caught:
                stored(writer, records)
            assert caught.value.rows == bad
            assert rows(url, "SELECT * FROM scores") == []
            keep = pa.array([n for n in range(len(array)) if n not in bad])
            writer.write(Batch(records.take(keep), "a", 1))
        writer.commit(Progress({"a": 1}))
    assert rows(url, "SELECT count(*) FROM scores") == [(len(array) - len(bad),)]


@pytest.mark.parametrize(
    ("array", "bad"),
    [
        (pa.array(["a\0b", "fine", None]), [0]),
        (pa.array([1, 2**63], pa.uint64()), [1]),
        (pa.array([1_000, 1_001, -1_001, None], pa.timestamp("ns", "UTC")), [1, 2]),
        (pa.array([1_000, 1_001], pa.timestamp("ns")).dictionary_encode(), [1]),
        (pa.array([1_000, 1_001], pa.time64("ns")), [1]),
        (pa.array([1_000, -1], pa.duration("ns")), [1]),
        (pa.array([0, 2**62, -(2**62)], pa.timestamp("s")), [1, 2]),
        (pa.array([0, 2**62], pa.duration("ms")), [1]),
    ],
    ids=lambda value: str(getattr(value, "type", ""))[:24],
)
def test_what_the_database_would_change_is_refused_before(url, array, bad):
    records = pa.record_batch({"v": array})
    with SqlDestination(url, "scores").open(records.schema, Scope("p")) as writer:
        with pytest.raises(RecordErrors) as caught:
            writer.write(Batch(records, "a", 1))
        assert caught.value.rows == bad
        writer.commit(Progress({"a": 1}))
    assert rows(url, "SELECT * FROM scores") == []


# --- somebody changes the database under a run -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DROP TABLE scores", "it is gone"),
        ("ALTER TABLE scores RENAME COLUMN y TO z", "column 'y' .DOUBLE PRECISION. is missing"),
        ("ALTER TABLE scores ALTER y TYPE INTEGER", "column 'y' is integer, wanted DOUBLE PRECISION"),
        ("ALTER TABLE scores ALTER id TYPE TEXT", "column 'id' is text, wanted BIGINT"),
    ],
)
def test_a_table_changed_under_a_run_stops_it(url, statement, found):
    with SqlDestination(url, "scores").open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1))
        change(url, statement)
        with pytest.raises(ConfigError, match=f"wanted CREATE TABLE.*found: {found}"):
            writer.commit(Progress({"a": 1}))
    assert rows(url, "SELECT * FROM mlinfer_progress") == []


def test_nobody_changes_the_table_between_the_look_and_the_records(url, monkeypatch):
    """The table is locked against changes before it is looked at: else records could meet another column."""
    looked = postgres.Postgres.misfits

    def look_and_change(self, found, schema):
        problems = looked(self, found, schema)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            change(url, "SET lock_timeout = 50", "ALTER TABLE scores ALTER y TYPE INTEGER")
        return problems

    with SqlDestination(url, "scores").open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1))
        monkeypatch.setattr(postgres.Postgres, "misfits", look_and_change)
        writer.commit(Progress({"a": 1}))
    assert rows(url, "SELECT id, y FROM scores") == [(1, 1.0)]


def test_a_permission_taken_away_stops_the_run_and_it_goes_on_later(server, url):
    role = f"clerk_{url.rpartition('_')[2]}"
    change(url, f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'", f"GRANT CREATE ON SCHEMA public TO {role}")
    theirs = server.url(url.rpartition("/")[2], user=role)
    made = pipeline(theirs, counted({30: lambda: change(url, f"REVOKE INSERT ON scores FROM {role}")}))
    with pytest.raises(ComponentError, match=r"permission denied for table scores.*grant what is missing"):
        made.run()
    before = rows(url, "SELECT count(*) FROM scores")[0][0]
    assert before < RECORDS
    assert rows(url, "SELECT * FROM rejects") == []
    change(url, f"GRANT INSERT ON scores TO {role}")
    assert made.run().delivered == RECORDS - before
    assert every_record_once(url)


# --- two runs --------------------------------------------------------------------------------------------------------

ZOMBIE = """
import sys, pyarrow as pa
from mlinfer import InferencePipeline, FencedError
from mlinfer.destinations import SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource

class Eager(SqlDestination):
    commit_seconds = 0.0

def numbers(after=0):
    for n in range(after, 60):
        if n == 10:
            yield {"id": [n], "x": [0.0 + n]}
            sys.stdin.readline()
        else:
            yield {"id": [n], "x": [0.0 + n]}

def doubled(records):
    return {"y": pa.compute.multiply(records.column("x"), 2.0)}

host = FunctionHost(doubled, {"x": pa.float64()}, {"y": pa.float64()}, version="1")
try:
    InferencePipeline(IterableSource(numbers), host, Eager(sys.argv[1], "scores"), name="p", keep={"id": pa.int64()},
                      rejects=SqlDestination(sys.argv[1], "rejects")).run()
except FencedError as error:
    print(error)
    sys.exit(5)
"""


def until(condition):
    latest = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.01)


def test_a_run_that_was_stopped_and_wakes_after_a_takeover_writes_nothing(url):
    zombie = subprocess.Popen(
        [sys.executable, "-c", ZOMBIE, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        until(lambda: rows(url, "SELECT to_regclass('scores')") != [(None,)])
        until(lambda: rows(url, "SELECT max(id) FROM scores") == [(10,)])
        zombie.send_signal(signal.SIGSTOP)
        assert pipeline(url, counted()).run().delivered == RECORDS - 11
        before = rows(url, "SELECT xmin::text, * FROM scores ORDER BY id")
        zombie.send_signal(signal.SIGCONT)
        said, _ = zombie.communicate("\n", timeout=60)
    finally:
        zombie.kill()
        zombie.wait()
    assert zombie.returncode == 5
    assert "another one has taken over" in said
    assert rows(url, "SELECT xmin::text, * FROM scores ORDER BY id") == before
    assert every_record_once(url)


def test_a_run_that_hangs_in_its_transaction_does_not_block_the_next_for_ever(url, monkeypatch):
    destination = SqlDestination(url, "scores")
    monkeypatch.setattr(line, "ANSWER_SECONDS", 5.0)  # in which also a busy machine opens a table
    with destination.open(SCHEMA, Scope("p")) as hanging:
        monkeypatch.setattr(line, "ANSWER_SECONDS", 60.0)
        hanging.write(some(1))
        stored = hanging._state.save

        def hang(*arguments):
            with destination.open(SCHEMA, Scope("p")) as other:  # waits until the server ends the transaction
                other.write(some(2))
                other.commit(Progress({"a": 2}))
            stored(*arguments)

        monkeypatch.setattr(type(hanging._state), "save", lambda self, *given: hang(*given) if self is hanging._state else type(self)._saved(self, *given), raising=True)  # fmt: skip
        monkeypatch.setattr(type(hanging._state), "_saved", stored.__func__, raising=False)
        with pytest.raises(TransientError):
            hanging.commit(Progress({"a": 1}))
    assert rows(url, "SELECT id FROM scores") == [(2,)]


def test_of_many_runs_at_once_one_stays_and_each_record_is_there_once(url):
    command = [sys.executable, "-c", ZOMBIE, url]
    runs = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(3)]
    codes = [run.wait(timeout=100) for run in runs]
    for run in runs:
        run.stdout.close()
    assert set(codes) <= {0, 5}
    assert 0 in codes
    assert every_record_once(url)


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_the_password_is_in_no_error_and_in_no_table(server, url):
    here = url.rpartition("@")[2]
    nowhere = here.replace(str(server.port), str(free_port()))
    canary = "canary-Zq8"
    change(url, "CREATE TABLE there (id TEXT)")
    for wrong in (f"me:{canary}@{here}", f"mlinfer:{canary}@{here}x", f"mlinfer:{canary}@{nowhere}",
                  f"mlinfer:{canary}@{here}?sslmode=require", f"mlinfer:{canary}@{here}?sslmode={canary}"):  # fmt: skip
        with pytest.raises(MlinferError) as caught:
            pipeline(f"postgresql://{wrong}", counted()).check()
        assert canary not in "".join(traceback.format_exception(caught.value)).replace(
            f"sslmode={canary}", ""
        )
    made = pipeline(url, counted())
    assert PASSWORD not in repr(made) + str(made.explain())
    made.run()
    with psycopg.connect(url) as connection:
        for table in ("mlinfer_epochs", "mlinfer_progress", "rejects"):
            stored = connection.execute(
                f"SELECT coalesce(string_agg(t::text, ''), '') FROM {table} t"
            ).fetchone()[0]
            assert PASSWORD not in stored
        seen = connection.execute("SELECT string_agg(query, '') FROM pg_stat_activity").fetchone()[0]
        assert PASSWORD not in seen


def test_a_missing_driver_names_the_extra(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'mlinfer\[postgres\]'"),
        SqlDestination(url, "scores").open(SCHEMA, Scope("p")),
    ):
        pass
