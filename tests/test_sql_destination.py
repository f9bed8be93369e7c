"""What SqlDestination promises, read back with the database's own driver."""

import datetime as dt
import decimal
import json
import math
import pickle
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    Budget,
    ChangedError,
    ComponentError,
    ConfigError,
    FencedError,
    InferencePipeline,
    Progress,
    RecordErrors,
    RejectsError,
    Scope,
    TransientError,
    chosen_rows,
)
from mlinfer.destinations import MemoryDestination, SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource
from mlinfer.sql import sqlite_trouble

SCHEMA = pa.schema([("id", pa.int64()), ("y", pa.float64())])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.db"


def to(path, table="scores", **more):
    return SqlDestination(f"sqlite:///{path}", table, **more)


def rows(path, query):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def change(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def batch(records, position=1, partition="a"):
    if isinstance(records, dict):
        records = pa.RecordBatch.from_pydict(records)
    return Batch(records, partition, position)


def some(*ids):
    return batch(pa.RecordBatch.from_pydict({"id": list(ids), "y": [float(n) for n in ids]}, schema=SCHEMA))


def deliver(destination, *batches, schema=SCHEMA, scope=None, position=1):
    with destination.open(schema, scope or Scope("p")) as writer:
        for one in batches:
            writer.write(one)
        writer.commit(Progress({"a": position}, {}, "model"))


# --- the description -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a.db?mode=ro", "scores.db"]
)
def test_a_url_without_a_file_is_refused(url):
    with pytest.raises(ConfigError, match="sqlite:///"):
        SqlDestination(url, "scores")


def test_other_databases_name_the_extra_and_no_password():
    with pytest.raises(ConfigError, match=r"pip install 'mlinfer\[postgres\]'") as caught:
        SqlDestination("mysql://me:hun@ter2@db/x?password=hunter2", "scores")
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "1st", "a b", 'a"b', "a;drop", "sqlite_x", "MLINFER_epochs", "t" * 64, "tä"]
)
def test_a_table_name_is_plain(name):
    with pytest.raises(ConfigError, match="table: wanted a name"):
        SqlDestination("sqlite:///a.db", name)


def test_a_description_is_inert_comparable_and_travels(path):
    one = to(path, key="id")
    assert pickle.loads(pickle.dumps(one)) == one == to(path, key="id")
    assert one.keyed
    assert not to(path).keyed
    assert to(path).transactional
    assert not path.exists()


def test_outputs_in_one_file_share_a_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        SqlDestination("sqlite:///x.db", "a").store == SqlDestination(f"sqlite:///{tmp_path}/x.db", "b").store
    )


# --- values ----------------------------------------------------------------------------------------------------------

NOON = dt.datetime(2013, 9, 1, 12, 0, 0, 250_000, tzinfo=dt.UTC)
ARRIVALS = [
    (pa.bool_(), [True, False, None], "INTEGER", [1, 0, None]),
    (pa.int8(), [-128, 127, None], "INTEGER", [-128, 127, None]),
    (pa.int64(), [-(2**63), 2**63 - 1, None], "INTEGER", [-(2**63), 2**63 - 1, None]),
    (pa.uint8(), [0, 255, None], "INTEGER", [0, 255, None]),
    (pa.uint64(), [0, 2**63 - 1, None], "INTEGER", [0, 2**63 - 1, None]),
    (pa.float16(), [np.float16(0.5), None], "REAL", [0.5, None]),
    (pa.float32(), [0.5, math.nan, None], "REAL", [0.5, None, None]),
    (pa.float64(), [0.1, math.inf, -math.inf, math.nan, None], "REAL", [0.1, math.inf, -math.inf, None, None]),
    (pa.string(), ["", "ä'\";--", "😀", None], "TEXT", ["", "ä'\";--", "😀", None]),
    (pa.large_string(), ["x", None], "TEXT", ["x", None]),
    (pa.string_view(), ["x", None], "TEXT", ["x", None]),
    (pa.binary(), [b"", b"\0\xff", None], "BLOB", [b"", b"\0\xff", None]),
    (pa.large_binary(), [b"\0\xff", None], "BLOB", [b"\0\xff", None]),
    (pa.binary(2), [b"\0\xff", None], "BLOB", [b"\0\xff", None]),
    (pa.timestamp("s"), [NOON.replace(tzinfo=None, microsecond=0), None], "TEXT", ["2013-09-01T12:00:00", None]),
    (pa.timestamp("us", "UTC"), [NOON, None], "TEXT", ["2013-09-01T12:00:00.250000Z", None]),
    (pa.timestamp("ms", "America/New_York"), [NOON, None], "TEXT", ["2013-09-01T12:00:00.250Z", None]),
    (pa.timestamp("ns", "UTC"), [NOON], "TEXT", ["2013-09-01T12:00:00.250000000Z"]),
    (pa.date32(), [NOON.date(), None], "TEXT", ["2013-09-01", None]),
    (pa.date64(), [NOON.date(), None], "TEXT", ["2013-09-01", None]),
    (pa.time32("s"), [dt.time(1, 2, 3), None], "TEXT", ["01:02:03", None]),
    (pa.time64("us"), [dt.time(1, 2, 3, 4), None], "TEXT", ["01:02:03.000004", None]),
    (pa.duration("ms"), [dt.timedelta(seconds=2), None], "INTEGER", [2000, None]),
    (pa.decimal128(38, 2), [decimal.Decimal("123456789012345678901234567890.12"), None], "TEXT",
     ["123456789012345678901234567890.12", None]),
    (pa.list_(pa.float64()), [[0.5, None, math.nan, math.inf], [], None], "TEXT", ['[0.5, null, null, "Infinity"]', "[]", None]),
    (pa.large_list(pa.int8()), [[1], None], "TEXT", ["[1]", None]),
    (pa.list_(pa.float32(), 2), [[0.5, 1.5], None], "TEXT", ["[0.5, 1.5]", None]),
    (pa.list_(pa.float16()), [[np.float16(0.5)]], "TEXT", ["[0.5]"]),
    (pa.struct([("a", pa.string()), ("b", pa.binary())]), [{"a": "ä", "b": b"\xff"}, None], "TEXT", ['{"a": "ä", "b": "/w=="}', None]),
    (pa.map_(pa.string(), pa.timestamp("s")), [[("k", NOON.replace(tzinfo=None, microsecond=0))]], "TEXT", ['[["k", "2013-09-01T12:00:00"]]']),
    (pa.null(), [None], "TEXT", [None]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a", None], "TEXT", ["a", "b", "a", None]),
    (pa.dictionary(pa.int32(), pa.int64()), [7, None], "INTEGER", [7, None]),
    (pa.uuid(), [b"\0" * 16, None], "BLOB", [b"\0" * 16, None]),
]  # fmt: skip


@pytest.mark.parametrize("case", ARRIVALS, ids=lambda case: str(case[0]))
def test_every_type_arrives_as_promised(path, case):
    kind, given, declared, stored = case
    array = (
        pa.array(given, kind.storage_type).cast(kind)
        if isinstance(kind, pa.BaseExtensionType)
        else pa.array(given, kind)
    )
    deliver(to(path), batch({"v": array}), schema=pa.schema([("v", kind)]))
    assert [value for (value,) in rows(path, "SELECT v FROM scores ORDER BY rowid")] == stored
    assert rows(path, "SELECT type FROM pragma_table_info('scores')") == [(declared,)]


def test_a_slice_of_a_column_arrives_as_that_slice(path):
    table = pa.record_batch({"i": [1, None, 3, None], "s": ["a", None, "c", "d"], "l": [[1], None, [3], [4]]})
    deliver(to(path), batch(table.slice(1, 2)), schema=table.schema)
    assert rows(path, "SELECT * FROM scores") == [(None, None, None), (3, "c", "[3]")]


def test_strings_may_come_dictionary_encoded(path):
    encoded = pa.array(["x", None, "y"] * 100).dictionary_encode()
    deliver(to(path), batch({"s": encoded}), schema=pa.schema([("s", pa.string())]))
    assert rows(path, "SELECT s, count(*) FROM scores GROUP BY s") == [(None, 100), ("x", 100), ("y", 100)]


def test_a_type_that_has_no_place_is_refused_before_anything_moves(path):
    with (
        pytest.raises(ConfigError, match="'v': SQLite has no place for"),
        to(path).open(pa.schema([("v", pa.month_day_nano_interval())]), Scope("p", read_only=True)),
    ):
        pass


def surrogate():
    raw = pa.array([b"fine", b"\xed\xa0\x80", b"\xff"])
    return pa.Array.from_buffers(pa.string(), 3, raw.buffers())


@pytest.mark.parametrize(
    ("array", "bad", "kind"),
    [
        (pa.array([1, 2**63, None], pa.uint64()), [1], "too_large"),
        (pa.array(["a\0b", "fine", None, "\0"]), [0, 3], "bad_text"),
        (pa.array(["a\0b", "fine", None, "a\0b"]).dictionary_encode(), [0, 3], "bad_text"),
        (pa.array(["a\0b", "fine"], pa.string_view()), [0], "bad_text"),
        (surrogate(), [1, 2], "bad_text"),
    ],
    ids=["uint64", "nul", "nul-dictionary", "nul-view", "not-utf8"],
)
def test_what_the_database_would_change_is_refused_by_record(path, array, bad, kind):
    schema = pa.schema([("v", array.type)])
    with to(path).open(schema, Scope("p")) as writer:
        with pytest.raises(RecordErrors) as caught:
            writer.write(batch({"v": array}))
        assert (caught.value.rows, set(caught.value.kinds)) == (bad, {kind})
        writer.commit(Progress({"a": 1}))
    assert rows(path, "SELECT count(*) FROM scores") == [(0,)]


@pytest.mark.parametrize("names", [["y", "Y"], ["a\nb"], ["x" * 129]])
def test_column_names_that_cannot_work_are_refused(path, names):
    with (
        pytest.raises(ConfigError, match="table 'scores'"),
        to(path).open(pa.schema([(name, pa.int8()) for name in names]), Scope("p")),
    ):
        pass


def test_column_names_are_quoted(path):
    names = ['do("x"); drop table scores; --', "select", "ä b"]
    schema = pa.schema([(name, pa.int8()) for name in names])
    deliver(
        to(path, key="select"),
        batch(pa.record_batch([pa.array([1], pa.int8())] * 3, schema=schema)),
        schema=schema,
    )
    assert rows(path, "SELECT * FROM scores") == [(1, 1, 1)]


# --- one transaction -------------------------------------------------------------------------------------------------


def test_rows_and_progress_appear_at_the_commit_and_not_before(path):
    with to(path).open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1, 2))
        assert rows(path, "SELECT count(*) FROM scores") == [(0,)]
        writer.commit(Progress({"a": [2, "x"]}, {"a": b"\0memory"}, "model"))
        writer.write(some(3))
    assert rows(path, "SELECT id FROM scores") == [(1,), (2,)]
    found = rows(
        path, 'SELECT pipeline, output, "partition", position, state, fingerprint FROM mlinfer_progress'
    )
    assert found == [("p", "main", "a", '[2, "x"]', b"\0memory", "model")]


def test_progress_is_merged_and_survives(path):
    destination = to(path)
    with destination.open(SCHEMA, Scope("p")) as writer:
        writer.commit(Progress({"a": 1, "b": {"k": None}}, {"a": b"1"}, "one"))
        writer.commit(Progress({"a": 2}, {}, "one"))
    with destination.open(SCHEMA, Scope("p")) as writer:
        assert writer.committed() == Progress({"a": 2, "b": {"k": None}}, {"a": b"1"}, "one", 2)
        writer.commit(Progress({"b": 3}, {}, "two"))
    with destination.open(SCHEMA, Scope("p")) as writer:
        assert writer.committed() == Progress({"a": 2, "b": 3}, {"a": b"1"}, "two", 3)


@pytest.mark.parametrize(
    "change_",
    [
        "position = '7'",
        "state = x'00'",
        "fingerprint = 'other'",
        "\"partition\" = 'z'",
        "epoch = 0",
    ],
)
def test_progress_that_somebody_changed_is_not_believed(path, change_):
    deliver(to(path), some(1))
    change(path, f"UPDATE mlinfer_progress SET {change_}")
    with (
        pytest.raises(ChangedError, match="from_start=True"),
        to(path).open(SCHEMA, Scope("p")),
    ):
        pass


def test_progress_of_a_newer_mlinfer_is_refused(path):
    deliver(to(path), some(1))
    change(path, "UPDATE mlinfer_progress SET version = 2")
    with pytest.raises(ChangedError, match="a newer mlinfer wrote it"), to(path).open(SCHEMA, Scope("p")):
        pass


def test_sqlite_has_no_sign_of_a_zero_as_the_page_says(path):
    deliver(to(path), batch({"id": [1, 2], "y": [-0.0, -1e-300]}))
    assert str(rows(path, "SELECT y FROM scores ORDER BY id")) == "[(0.0,), (-1e-300,)]"
    assert "-0.0 arrives there as 0.0" in (Path(__file__).parents[1] / "docs/destinations.md").read_text()


def test_a_key_overwrites(path):
    destination = to(path, key="id")
    deliver(destination, some(1, 2, 2))
    deliver(destination, batch({"id": [2, 3], "y": [20.0, 30.0]}))
    assert rows(path, "SELECT * FROM scores ORDER BY id") == [(1, 1.0), (2, 20.0), (3, 30.0)]


def test_a_record_without_its_key_is_refused(path):
    with to(path, key="id").open(SCHEMA, Scope("p")) as writer, pytest.raises(RecordErrors) as caught:
        writer.write(batch({"id": [1, None], "y": [1.0, 2.0]}))
    assert (caught.value.rows, caught.value.kinds) == ([1], ["missing_key"])


def test_a_record_without_a_primary_key_is_refused_and_not_given_a_number(path):
    """SQLite would make one up."""
    change(path, "CREATE TABLE scores (Id INTEGER PRIMARY KEY, y REAL CHECK (y < 5))")
    with to(path, if_exists="append").open(SCHEMA, Scope("p")) as writer:
        records = {"id": [7, None, 9, None], "y": [1.0, 2.0, 5.0, 4.0]}
        writer.write(batch(records))
        with pytest.raises(RecordErrors) as refused:
            writer.commit(Progress({"a": 1}))
        assert refused.value.rows == [1, 2, 3]
        assert "wanted a value in the primary key, found none" in refused.value.messages[0]
        assert "CHECK constraint failed" in refused.value.messages[1]
        writer.write(some(3))
        writer.commit(Progress({"a": 1}))
    assert rows(path, "SELECT Id FROM scores") == [(3,)]


def test_a_record_without_a_primary_key_costs_no_other_its_place_whatever_arrow_can_choose_of(path):
    change(path, "CREATE TABLE scores (id INTEGER PRIMARY KEY, s, m)")
    records = pa.record_batch(
        {
            "id": [7, 7, None, 9],
            "s": pa.array(["-", "a", "b", "c"], pa.string_view()),
            "m": pa.array([[[n, n], [n, n]] for n in range(4)], pa.list_(pa.list_(pa.int64(), 2), 2)),
        }
    ).slice(1)
    with to(path, if_exists="append").open(records.schema, Scope("p")) as writer:
        writer.write(batch(records))
        with pytest.raises(RecordErrors) as refused:
            writer.commit(Progress({"a": 1}))
        assert refused.value.rows == [1]
        writer.write(batch(chosen_rows(records, [0, 2])))
        writer.commit(Progress({"a": 1}))
    assert rows(path, "SELECT * FROM scores") == [(7, "a", "[[1, 1], [1, 1]]"), (9, "c", "[[3, 3], [3, 3]]")]


@pytest.mark.parametrize("key", ["nosuch", "y"])
def test_a_key_that_cannot_be_one_is_refused(path, key):
    with (
        pytest.raises(ConfigError, match=r"wanted (the key|a key)"),
        to(path, key=key).open(SCHEMA, Scope("p")),
    ):
        pass


def test_a_constraint_names_every_guilty_record_and_stores_nothing(path):
    change(path, "CREATE TABLE scores (id INTEGER UNIQUE, y REAL CHECK (y < 100))")
    with to(path, if_exists="append").open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1, 2))
        writer.write(some(5, 2, 300, 3))
        with pytest.raises(RecordErrors) as caught:
            writer.commit(Progress({"a": 5}))
        assert (caught.value.rows, set(caught.value.kinds)) == ([3, 4], {"refused"})
        assert "UNIQUE" in caught.value.messages[0]
        assert "CHECK" in caught.value.messages[1]
        assert rows(path, "SELECT * FROM scores") == rows(path, "SELECT * FROM mlinfer_progress") == []
        writer.write(some(1, 2, 3))
        writer.commit(Progress({"a": 5}))
    assert rows(path, "SELECT id FROM scores") == [(1,), (2,), (3,)]


def test_a_trigger_that_ends_the_transaction_ends_the_run(path):
    change(
        path,
        "CREATE TABLE scores (id INTEGER, y REAL)",
        "CREATE TRIGGER t BEFORE INSERT ON scores WHEN NEW.id = 2 BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
    )
    with to(path, if_exists="append").open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1, 2, 3))
        with pytest.raises(ComponentError, match="RAISE"):
            writer.commit(Progress({"a": 1}))
    assert rows(path, "SELECT * FROM scores") == []


def test_nan_where_the_table_wants_a_number_is_a_reject_not_a_null(path):
    change(path, "CREATE TABLE scores (id INTEGER, y REAL NOT NULL)")
    with to(path, if_exists="append").open(SCHEMA, Scope("p")) as writer:
        writer.write(batch({"id": [1, 2], "y": [math.nan, 1.0]}))
        with pytest.raises(RecordErrors, match="NOT NULL"):
            writer.commit(Progress({"a": 1}))


def test_a_database_that_stays_locked_is_a_transient_failure(path, monkeypatch):
    monkeypatch.setattr("mlinfer.sql._BUSY_SECONDS", 0.01)
    with (
        to(path).open(SCHEMA, Scope("p")) as writer,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        writer.write(some(1))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="locked"):
            writer.commit(Progress({"a": 1}))
        other.execute("ROLLBACK")
        writer.commit(Progress({"a": 1}))
    assert rows(path, "SELECT id FROM scores") == [(1,)]


def test_a_full_disk_is_an_error_of_this_part_and_stores_nothing(path):
    with to(path).open(SCHEMA, Scope("p")) as writer:
        writer._connection.execute("PRAGMA max_page_count = 12")
        writer.write(some(*range(20_000)))
        with pytest.raises(ComponentError, match=r"full \(SQLITE_FULL\); make room .*was committed is safe"):
            writer.commit(Progress({"a": 1}))
    assert rows(path, "SELECT * FROM scores") == []


def test_an_error_of_the_disk_says_what_to_do(path):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = 778, "SQLITE_IOERR_WRITE"
    told = sqlite_trouble(path, error)
    assert isinstance(told, ComponentError)
    assert str(told).endswith(
        "(SQLITE_IOERR_WRITE); make room or mend the disk, then run the pipeline again: what was committed is safe"
    )


def test_no_transaction_is_open_between_calls(path):
    with to(path).open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1))
        change(path, "CREATE TABLE somebody_elses (x)")
        writer.commit(Progress({"a": 1}))
        change(path, "DROP TABLE somebody_elses")


# --- runs ------------------------------------------------------------------------------------------------------------


def test_the_older_of_two_runs_is_refused(path):
    destination = to(path)
    with destination.open(SCHEMA, Scope("p")) as old, destination.open(SCHEMA, Scope("p")) as new:
        old.write(some(1))
        with pytest.raises(FencedError, match=r"'p'.*another one has taken over"):
            old.commit(Progress({"a": 1}))
        new.write(some(2))
        new.commit(Progress({"a": 1}))
        with pytest.raises(FencedError), destination.open(SCHEMA, Scope("p", epoch=old.committed().epoch)):
            pass
        with destination.open(SCHEMA, Scope("p", epoch=new.committed().epoch)) as again:
            assert again.committed().positions == {"a": 1}
    assert rows(path, "SELECT id FROM scores") == [(2,)]


def test_pipelines_and_outputs_do_not_fence_each_other(path):
    with (
        to(path, "one").open(SCHEMA, Scope("p")) as one,
        to(path, "two").open(SCHEMA, Scope("q")) as two,
        to(path, "three").open(SCHEMA, Scope("p", "rejects")) as three,
    ):
        for writer in (one, two, three):
            writer.write(some(1))
            writer.commit(Progress({"a": 1}))
    assert rows(path, "SELECT pipeline, output, epoch FROM mlinfer_epochs ORDER BY 1, 2") == [
        ("p", "main", 1), ("p", "rejects", 1), ("q", "main", 1),
    ]  # fmt: skip


def test_looking_creates_nothing_and_fences_nobody(path):
    look = Scope("p", read_only=True)
    with to(path).open(SCHEMA, look) as writer:
        assert writer.committed() == Progress()
    assert not path.exists()
    with to(path).open(SCHEMA, Scope("p")) as live:
        live.write(some(1))
        before = path.read_bytes()
        with to(path).open(SCHEMA, look), to(path, "other").open(SCHEMA, Scope("q", read_only=True)):
            pass
        assert path.read_bytes() == before
        live.commit(Progress({"a": 1}))
    with to(path).open(SCHEMA, look) as writer:
        assert writer.committed().positions == {"a": 1}


def test_looking_sees_what_would_stop_a_run(path):
    change(path, "CREATE TABLE scores (id INTEGER, y REAL)")
    with (
        pytest.raises(ConfigError, match="wanted a new table"),
        to(path).open(SCHEMA, Scope("p", read_only=True)),
    ):
        pass


def test_only_the_owner_may_read_a_new_database(path):
    deliver(to(path), some(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"this is no database, it is a text" * 100])
def test_a_file_of_another_kind_is_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="wanted an SQLite database"), to(path).open(SCHEMA, Scope("p")):
        pass
    assert path.read_bytes() == content


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(ConfigError, match="does not exist; create it"),
        to(tmp_path / "no/x.db").open(SCHEMA, Scope("p")),
    ):
        pass


# --- the table that is there -----------------------------------------------------------------------------------------


def test_a_strange_table_is_left_alone_by_default(path):
    change(path, "CREATE TABLE scores (id INTEGER, y REAL)", "INSERT INTO scores VALUES (7, 7)")
    with pytest.raises(ConfigError, match='if_exists="append"'), to(path).open(SCHEMA, Scope("p")):
        pass
    assert rows(path, "SELECT * FROM scores") == [(7, 7.0)]


def test_append_adds_to_a_strange_table_that_fits(path):
    change(
        path,
        "CREATE TABLE scores (note TEXT, Y DOUBLE, id BIGINT)",
        "INSERT INTO scores VALUES ('mine', 7, 7)",
    )
    deliver(to(path, if_exists="append"), some(1))
    deliver(to(path), some(2))  # from now on the pipeline knows the table
    assert rows(path, "SELECT note, id, y FROM scores") == [("mine", 7, 7.0), (None, 1, 1.0), (None, 2, 2.0)]


@pytest.mark.parametrize(
    ("create", "complaint"),
    [
        ("CREATE TABLE scores (id INTEGER)", "column 'y' .REAL. is missing"),
        ("CREATE TABLE scores (id INTEGER, y TEXT)", "column 'y' is TEXT, wanted REAL"),
        ("CREATE TABLE scores (id REAL, y REAL)", "column 'id' is REAL, wanted INTEGER"),
    ],
)
def test_append_refuses_a_table_that_does_not_fit(path, create, complaint):
    change(path, create)
    with pytest.raises(ConfigError, match=complaint), to(path, if_exists="append").open(SCHEMA, Scope("p")):
        pass


def test_a_key_in_a_strange_table_must_be_unique_there(path):
    change(path, "CREATE TABLE scores (id INTEGER, y REAL)")
    destination = to(path, key="id", if_exists="append")
    with pytest.raises(ConfigError, match="no unique index"), destination.open(SCHEMA, Scope("p")):
        pass
    change(path, "CREATE UNIQUE INDEX one ON scores (id)")
    deliver(destination, some(1, 1))
    assert rows(path, "SELECT * FROM scores") == [(1, 1.0)]


def test_replace_swaps_a_strange_table_at_the_first_commit(path):
    change(path, "CREATE TABLE scores (old TEXT)", "INSERT INTO scores VALUES ('old')")
    destination = to(path, if_exists="replace")
    with destination.open(SCHEMA, Scope("p")):
        pass
    assert rows(path, "SELECT * FROM scores") == [("old",)]
    with destination.open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1))
        writer.commit(Progress({"a": 1}))
        writer.write(some(2))
        writer.commit(Progress({"a": 2}))
    deliver(destination, some(3))
    assert rows(path, "SELECT id FROM scores") == [(1,), (2,), (3,)]


@pytest.mark.parametrize("how", ["fail", "replace"])
def test_the_table_of_another_pipeline_is_not_taken(path, how):
    deliver(to(path), some(1))
    with pytest.raises(ConfigError, match="pipeline 'p'"), to(path, if_exists=how).open(SCHEMA, Scope("q")):
        pass


def test_beginning_anew_replaces_rows_and_progress_in_one_step(path):
    destination = to(path)
    deliver(destination, some(1, 2), position=2)
    with destination.open(SCHEMA, Scope("p", fresh=True)) as writer:
        assert writer.committed().positions == {}
        assert rows(path, "SELECT id FROM scores") == [(1,), (2,)]
        writer.write(some(3))
        writer.commit(Progress({"b": 1}))
    assert rows(path, "SELECT id FROM scores") == [(3,)]
    assert rows(path, 'SELECT "partition" FROM mlinfer_progress') == [("b",)]


def test_beginning_anew_may_change_the_columns(path):
    deliver(to(path), some(1))
    wider = pa.schema([*SCHEMA, ("z", pa.string())])
    deliver(
        to(path), batch({"id": [1], "y": [1.0], "z": ["new"]}), schema=wider, scope=Scope("p", fresh=True)
    )
    assert rows(path, "SELECT * FROM scores") == [(1, 1.0, "new")]


def test_a_run_that_begins_anew_and_dies_leaves_the_old_whole(path):
    deliver(to(path), some(1))
    with to(path).open(SCHEMA, Scope("p", fresh=True)) as writer:
        writer.write(some(2))
    with to(path).open(SCHEMA, Scope("p")) as writer:
        assert writer.committed().positions == {"a": 1}
    assert rows(path, "SELECT id FROM scores") == [(1,)]


def test_beginning_anew_in_a_new_table_takes_no_old_progress_along(path):
    deliver(to(path), some(1))
    with to(path, "second").open(SCHEMA, Scope("p", fresh=True)):
        pass  # dies before its first commit
    with to(path, "second").open(SCHEMA, Scope("p")) as writer:
        assert writer.committed().positions == {}


def test_beginning_anew_never_deletes_what_others_wrote(path):
    change(path, "CREATE TABLE strange (id INTEGER, y REAL)")
    deliver(to(path, "strange", if_exists="append"), some(1))
    with (
        pytest.raises(ConfigError, match="cannot begin anew"),
        to(path, "strange").open(SCHEMA, Scope("p", fresh=True)),
    ):
        pass
    deliver(to(path, "ours"), some(1), scope=Scope("x"))
    deliver(to(path, "ours", if_exists="append"), some(2), scope=Scope("y"))
    for name in "xy":
        with (
            pytest.raises(ConfigError, match="cannot begin anew"),
            to(path, "ours").open(SCHEMA, Scope(name, fresh=True)),
        ):
            pass


def test_a_table_dropped_under_its_progress_stops_the_run(path):
    deliver(to(path), some(1))
    change(path, "DROP TABLE scores")
    with (
        pytest.raises(ConfigError, match=r"that table is gone.*from_start=True"),
        to(path).open(SCHEMA, Scope("p")),
    ):
        pass
    deliver(to(path), some(2), scope=Scope("p", fresh=True))
    assert rows(path, "SELECT id FROM scores") == [(2,)]


def test_another_table_does_not_inherit_the_progress(path):
    deliver(to(path), some(1))
    with (
        pytest.raises(ConfigError, match=r"now to write 'second'.*from_start=True"),
        to(path, "second").open(SCHEMA, Scope("p")),
    ):
        pass


@pytest.mark.parametrize("statement", ["DROP TABLE scores", "ALTER TABLE scores RENAME COLUMN y TO z"])
def test_a_table_changed_under_a_run_stops_it(path, statement):
    with to(path).open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1))
        change(path, statement)
        with pytest.raises(ConfigError, match="wanted CREATE TABLE"):
            writer.commit(Progress({"a": 1}))
    assert rows(path, "SELECT * FROM mlinfer_progress") == []


# --- in a pipeline ---------------------------------------------------------------------------------------------------


def doubled(records):
    return {"y": pa.compute.multiply(records.column("x"), 2.0)}


def pipeline(path, data, destination=None, **more):
    host = FunctionHost(doubled, {"x": pa.float64()}, {"y": pa.float64()}, version="1")
    more.setdefault("rejects", to(path, "rejects"))
    return InferencePipeline(
        MemorySource(data),
        host,
        destination or to(path),
        name="p",
        keep=["id"],
        budget=Budget(ratio=None),
        **more,
    )


DATA = pa.table({"id": range(10), "x": [None if n == 4 else float(n) for n in range(10)]})


def test_a_pipeline_delivers_once_and_its_rejects_with_it(path):
    made = pipeline(path, DATA, require="exactly-once")
    assert (made.run().delivered, made.run().delivered) == (9, 0)
    assert rows(path, "SELECT id, y FROM scores ORDER BY id") == [(n, 2.0 * n) for n in range(10) if n != 4]
    [(stage, kind, record)] = rows(path, "SELECT stage, kind, record FROM rejects")
    assert (stage, kind, json.loads(record)["id"]) == ("conform", "missing_value", 4)
    made.run(from_start=True)
    assert rows(path, "SELECT (SELECT count(*) FROM scores), (SELECT count(*) FROM rejects)") == [(9, 1)]


def test_a_check_writes_nothing(path):
    pipeline(path, DATA).check()
    assert not path.exists()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["joined", "elsewhere"])
def test_records_that_the_table_refuses_become_rejects_beside_those_that_were_bad_before(path, elsewhere):
    change(path, "CREATE TABLE scores (id INTEGER, y REAL CHECK (y <> 6 AND y <> 14))")
    kept = MemoryDestination()
    more = {"rejects": kept} if elsewhere else {}
    report = pipeline(path, DATA, to(path, if_exists="append"), **more).run()
    assert (report.delivered, report.rejected) == (7, 3)
    assert rows(path, "SELECT id FROM scores ORDER BY id") == [(n,) for n in range(10) if n not in {3, 4, 7}]
    found = (
        [(row["stage"], json.loads(row["record"])["id"]) for row in kept.table("rejects").to_pylist()]
        if elsewhere
        else [
            (stage, json.loads(record)["id"])
            for stage, record in rows(path, "SELECT stage, record FROM rejects")
        ]
    )
    assert sorted(found) == [("conform", 4), ("write", 3), ("write", 7)]


@pytest.mark.parametrize("check", ["y <> 6", "1"], ids=["at-the-commit", "at-the-write"])
def test_refused_records_without_a_place_for_them_end_the_run(path, check):
    change(path, f"CREATE TABLE scores (id INTEGER, y REAL CHECK ({check}))")
    data = DATA.filter(pa.compute.is_valid(DATA["x"]))
    if check == "1":
        data = data.set_column(0, "id", pa.array([2**64 - 1, *range(8)], pa.uint64()))
    with pytest.raises(RejectsError, match="rejects="):
        pipeline(path, data, to(path, if_exists="append"), rejects=None).run()
    assert rows(path, "SELECT * FROM scores") == rows(path, "SELECT * FROM mlinfer_progress") == []


def test_a_rejects_table_that_refuses_ends_the_run_and_nothing_is_stored(path):
    change(path, "CREATE TABLE rejects (record_id TEXT, partition TEXT, stage TEXT, kind TEXT CHECK (0), message TEXT,"
           " record TEXT, raw BLOB, model TEXT, pipeline TEXT, run TEXT, rejected_at TEXT)")  # fmt: skip
    with pytest.raises(ComponentError, match="table 'rejects'"):
        pipeline(path, DATA, rejects=to(path, "rejects", if_exists="append")).run()
    assert rows(path, "SELECT * FROM scores") == rows(path, "SELECT * FROM mlinfer_progress") == []


def test_a_key_that_comes_later_needs_a_new_beginning(path):
    deliver(to(path), some(1))
    with pytest.raises(ConfigError, match="no unique index"), to(path, key="id").open(SCHEMA, Scope("p")):
        pass
    deliver(to(path, key="id"), some(2, 2), scope=Scope("p", fresh=True))
    assert rows(path, "SELECT id FROM scores") == [(2,)]


def test_records_are_read_back_and_looking_for_them_creates_nothing(path):
    destination = to(path, "rejects")
    assert list(destination.records(Scope("p", "rejects", read_only=True))) == []
    assert not path.exists()
    pipeline(path, DATA, rejects=destination).run()
    [found] = destination.records(Scope("p", "rejects", read_only=True))
    assert found.select(["kind", "raw"]).to_pylist() == [{"kind": "missing_value", "raw": None}]


def test_a_url_may_name_an_environment_variable(path, monkeypatch):
    monkeypatch.setenv("SCORES", f"sqlite:///{path}")
    destination = SqlDestination("${SCORES}", "scores")
    deliver(destination, some(1))
    assert rows(path, "SELECT id FROM scores") == [(1,)]
    assert destination.store == to(path).store
    assert str(path) not in repr(destination)


# --- progress that is gone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["", """ WHERE "partition" = 'b'"""])
def test_rows_of_progress_that_are_gone_are_missed(path, which):
    with to(path).open(SCHEMA, Scope("p")) as writer:
        for name in ("a", "b"):
            writer.write(some(ord(name)))
            writer.commit(Progress({name: 1}))
    change(path, "DELETE FROM mlinfer_progress" + which)
    for scope in (Scope("p"), Scope("p", read_only=True)):
        with (
            pytest.raises(
                ChangedError, match=r"wanted 2 rows of mlinfer_progress, found [01]: .*from_start=True"
            ),
            to(path).open(SCHEMA, scope),
        ):
            pass
    assert rows(path, "SELECT id FROM scores") == [(97,), (98,)]
    deliver(to(path), some(1), scope=Scope("p", fresh=True))
    deliver(to(path), some(2))
    assert rows(path, "SELECT id FROM scores") == [(1,), (2,)]


def test_a_database_of_an_older_version_learns_to_count(path):
    deliver(to(path), some(1))
    change(path, "ALTER TABLE mlinfer_epochs DROP COLUMN partitions")
    with to(path).open(SCHEMA, Scope("p", read_only=True)) as writer:
        assert writer.committed().positions == {"a": 1}
    deliver(to(path), some(2), position=2)
    assert rows(path, "SELECT partitions FROM mlinfer_epochs") == [(1,)]
    assert rows(path, "SELECT id FROM scores") == [(1,), (2,)]


# --- an output that holds nothing is nobody's ----------------------------------------------------------------------------


@pytest.mark.parametrize("other", [Scope("q"), Scope("p", "rejects")])
def test_a_table_whose_rows_were_dropped_is_anybodys(path, other):
    deliver(to(path), some(1))
    with pytest.raises(ConfigError, match=r"found one of pipeline 'p' \(main\)"):
        deliver(to(path), some(2), scope=other)
    with to(path).open(SCHEMA, Scope("p", fresh=True)) as writer:  # as `mlinfer state reset` does
        writer.commit(Progress())
    wider = pa.schema([*SCHEMA, ("z", pa.string())])
    with to(path).open(wider, Scope("q", read_only=True)):
        pass
    assert rows(path, "SELECT \"table\" FROM mlinfer_epochs WHERE output = 'main'") == [("scores",)]
    deliver(to(path), batch({"id": [2], "y": [2.0], "z": ["new"]}), schema=wider, scope=other)
    assert rows(path, "SELECT * FROM scores") == [(2, 2.0, "new")]
    with pytest.raises(ConfigError, match="found one of pipeline"):
        deliver(to(path), some(3))


def test_who_has_not_committed_yet_is_fenced_when_its_empty_table_is_taken(path):
    with to(path).open(SCHEMA, Scope("p")) as first:
        first.write(some(1))
        deliver(to(path), some(2), scope=Scope("q"))
        with pytest.raises(FencedError, match="another one has taken over"):
            first.commit(Progress({"a": 1}))
    assert rows(path, "SELECT id FROM scores") == [(2,)]


def test_an_empty_table_of_a_pipeline_with_progress_is_not_taken(path):
    with (
        to(path).open(SCHEMA, Scope("p")) as writer,
        writer.join(to(path, "bad"), SCHEMA, Scope("p", "rejects")),
    ):
        writer.commit(Progress({"a": 1}))
    with pytest.raises(ConfigError, match=r"found one of pipeline 'p' \(rejects\)"):
        deliver(to(path, "bad"), some(2), scope=Scope("q"))


@pytest.mark.parametrize("read_only", [False, True])
def test_one_table_for_two_outputs_is_refused_at_once(path, read_only):
    scope = Scope("p", read_only=read_only)
    with (
        to(path).open(SCHEMA, scope) as writer,
        pytest.raises(ConfigError, match="named for main and rejects; name two"),
        writer.join(to(path, key="id"), SCHEMA, scope.of("rejects")),
    ):
        pass
