"""What SqlSource promises; the tables are made with the database's own driver."""

import pickle
import shutil
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlinfer import (
    Budget,
    ChangedError,
    ComponentError,
    ConfigError,
    EndOfInput,
    InferencePipeline,
    TransientError,
)
from mlinfer.destinations import SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import SqlSource


@pytest.fixture
def path(tmp_path):
    return tmp_path / "in.db"


def change(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def numbers(path, count=10):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL, s TEXT)")
        connection.executemany(
            "INSERT INTO t VALUES (?, ?, ?)", [(2 * n, n / 2, f"s{n}") for n in range(count)]
        )
        connection.commit()


def source(path, query="SELECT * FROM t", key="id", **more):
    return SqlSource(f"sqlite:///{path}", query, key, **more)


def read(made, after=None, page=4, columns=None):
    """All batches behind a position."""
    found = []
    wanted = pa.schema([made.schema().field(name) for name in columns or made.schema().names])
    with made.open(made.partitions()[0], after, wanted) as reader:
        while True:
            try:
                batch = reader.read(page, 0)
            except EndOfInput:
                return found
            found.append(batch)


def rows(batches):
    return [row for batch in batches for row in batch.records.to_pylist()]


def test_it_goes_on_behind_every_position(path):
    numbers(path)
    whole = read(source(path))
    assert [row["id"] for row in rows(whole)] == list(range(0, 20, 2))
    assert [batch.position["key"] for batch in whole] == [6, 14, 18]
    for number, batch in enumerate(whole):
        assert rows(read(source(path), batch.position)) == rows(whole[number + 1 :])
    assert whole[0].ids.array().to_pylist() == ["0", "2", "4", "6"]


def test_a_query_is_not_asked_again_for_every_few_rows(path):
    """To find some rows may take the database as long as to find many: a slow model is given few at a time."""
    numbers(path, 100)
    asked = []
    made = source(path)
    with made.open("all", None, made.schema()) as reader:
        reader._connection.set_trace_callback(asked.append)
        found = [row["id"] for _ in range(20) for row in reader.read(5, 0).records.to_pylist()]
    assert len(found) == len(set(found)) == 100
    assert len(asked) == 1


@settings(max_examples=25, deadline=None)
@given(
    keys=st.sets(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)),
    page=st.integers(1, 4),
)
def test_any_text_can_be_a_key(tmp_path_factory, keys, page):
    path = tmp_path_factory.mktemp("sql") / "in.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE t (k TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [(key,) for key in keys])
        connection.commit()
    batches = read(source(path, key="k"), page=page)
    assert [row["k"] for row in rows(batches)] == sorted(keys, key=str.encode)
    assert (
        [row["k"] for row in rows(read(source(path, key="k"), batches[0].position, page))]
        == sorted(keys, key=str.encode)[len(batches[0]) :]
        if batches
        else not keys
    )


def test_types_are_those_declared_or_seen(path):
    change(
        path,
        "CREATE TABLE t (i BIGINT, r DOUBLE PRECISION, s VARCHAR(9), b BLOB, d DATETIME, n NUMERIC, void)",
        "INSERT INTO t VALUES (1, 1, 'a', x'00ff', '2013-01-01 05:00:00', 2, NULL), (NULL, NULL, NULL, NULL, NULL, 2.5, NULL)",
    )
    made = source(path, "SELECT *, i + 1 AS more, 'x' AS text FROM t", key=None)
    assert made.schema() == pa.schema(
        [("i", "int64"), ("r", "float64"), ("s", "string"), ("b", "binary"), ("d", "string"), ("n", "float64"),
         ("void", "string"), ("more", "int64"), ("text", "string")]
    )  # fmt: skip
    [batch] = read(made)
    assert batch.records.schema == made.schema()
    assert batch.records.to_pylist()[0] == {
        "i": 1, "r": 1.0, "s": "a", "b": b"\0\xff", "d": "2013-01-01 05:00:00", "n": 2.0, "void": None, "more": 2, "text": "x",
    }  # fmt: skip


def test_only_the_wanted_columns_are_read(path):
    numbers(path)
    [first, *_] = read(source(path), columns=["s"])
    assert first.records.schema.names == ["s"]
    assert first.position["key"] == 6


def test_a_value_of_another_type_than_its_column_is_a_bad_record(path):
    change(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL)",
        "INSERT INTO t VALUES (1, 1.0), (2, 'two'), (3, 3.0)",
    )
    [batch] = read(source(path))
    assert batch.records.to_pylist() == [{"id": 1, "x": 1.0}, {"id": 3, "x": 3.0}]
    assert batch.ids.array().to_pylist() == ["1", "3"]
    assert [(bad.id, bad.kind) for bad in batch.bad] == [("2", "wrong_type")]
    assert batch.position["key"] == 3


@pytest.mark.parametrize("key", ["id", None])
def test_a_text_that_is_not_utf8_is_a_reject_and_costs_its_neighbours_nothing(path, key):
    numbers(path)
    change(path, "UPDATE t SET s = CAST(x'636166e9' AS TEXT) WHERE id IN (6, 12)")
    batches = read(source(path, key=key))
    assert [row["id"] for row in rows(batches)] == [0, 2, 4, 8, 10, 14, 16, 18]
    assert [row["s"] for row in rows(batches)][-1] == "s9"
    bad = [one for batch in batches for one in batch.bad]
    assert [(one.kind, b"caf\\xe9" in one.raw) for one in bad] == 2 * [("wrong_type", True)]
    assert "field 's': wanted string, found b'caf" in bad[0].message
    if key is not None:  # also where the last one that was delivered is such a record
        assert batches[0].position["key"] == 6
        assert rows(read(source(path), batches[0].position)) == rows(batches[1:])
        database = path.parent / "out.db"
        report = InferencePipeline(
            source(path), FunctionHost(lambda x: x * 2, {"x": pa.float64()}, {"y": pa.float64()}, "numpy"),
            SqlDestination(f"sqlite:///{database}", table="out"), name="texts", keep=["id", "s"],
            rejects=SqlDestination(f"sqlite:///{database}", table="bad"), budget=Budget(ratio=1),
        ).run()  # fmt: skip
        assert (report.delivered, report.rejected) == (8, 2)
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("SELECT record_id FROM bad ORDER BY 1").fetchall() == [("12",), ("6",)]
            assert connection.execute("SELECT count(*), sum(y) FROM out").fetchone() == (8, 36.0)


def test_without_a_key_it_reads_once_and_cannot_resume(path):
    numbers(path)
    made = source(path, key=None)
    assert (made.resume, made.bounded) == ("none", True)
    batches = read(made)
    assert len(rows(batches)) == 10
    assert {batch.position for batch in batches} == {None}


def test_following_finds_what_comes_later(path):
    numbers(path, 2)
    made = source(path, follow=True)
    assert (made.bounded, made.resume) == (False, "seek")
    with made.open(made.partitions()[0], None, made.schema()) as reader:
        assert len(reader.read(10, 0)) == 2
        assert reader.read(10, 0) is None
        change(path, "INSERT INTO t VALUES (100, 1, 'late')")
        assert reader.read(10, 0).records.to_pylist() == [{"id": 100, "x": 1.0, "s": "late"}]


def test_a_followed_database_that_is_replaced_is_opened_anew(path, tmp_path):
    """Into the old file, which is held open and has no name any more, nothing new ever comes."""
    numbers(path, 2)
    numbers(tmp_path / "new.db", 4)
    made = source(path, follow=True)
    (name,) = made.partitions()
    with made.open(name, None, made.schema()) as reader:
        position = reader.read(10, 0).position
        path.rename(tmp_path / "old.db")
        assert reader.read(10, 0) is None  # it may be about to be replaced
        (tmp_path / "new.db").rename(path)
        with pytest.raises(TransientError, match="found another one in its place"):
            reader.read(10, 0)
    with made.open(name, position, made.schema()) as reader:
        assert reader.read(10, 0).records["id"].to_pylist() == [4, 6]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("(1), (2), (2), (3)", "found 2 twice"),
        ("(1), (2), (3), (4), (4)", "found 4 twice"),
        ("(NULL), (1)", "found None"),
        ("(1), (1.5)", "found 1.5"),
        ("(1), (x'00')", "found b"),
    ],
)
def test_a_key_that_would_pass_over_records_ends_the_run(path, values, complaint):
    change(path, "CREATE TABLE t (id)", f"INSERT INTO t VALUES {values}")
    with pytest.raises(ComponentError, match=complaint):
        read(source(path))


@pytest.mark.parametrize(("collation", "pair"), [("NOCASE", ("a", "A")), ("RTRIM", ("k", "k "))])
def test_keys_that_a_collation_does_not_tell_apart_end_the_run(path, monkeypatch, collation, pair):
    """Behind the first of them the second is not greater: where a page ended between them, it was passed over."""
    monkeypatch.setattr("mlinfer.sources._sql.PAGE_ROWS", 1)
    change(
        path,
        f"CREATE TABLE t (id TEXT COLLATE {collation}, x REAL)",
        f"INSERT INTO t VALUES ('{pair[0]}', 1), ('{pair[1]}', 2)",
        "CREATE TABLE exact (id TEXT, x REAL)",
        "INSERT INTO exact SELECT * FROM t",
    )
    with (
        source(path).open("p", None, pa.schema([("x", pa.float64())])) as reader,
        pytest.raises(ComponentError, match="which the collation of the column does not tell apart"),
    ):
        reader.read(1, 0)
    with source(path, "SELECT * FROM exact").open("p", None, pa.schema([("x", pa.float64())])) as reader:
        found = [reader.read(1, 0).records["x"][0].as_py() for _ in range(2)]
    assert sorted(found) == [1, 2]


@pytest.mark.parametrize(
    "remark", ["-- of last year; all of it\n", "/* WITH\n * everything */ ", " \n-- a\n/* b */"]
)
def test_a_query_may_begin_with_remarks(path, remark):
    numbers(path)
    assert len(rows(read(source(path, f"{remark}SELECT * FROM t -- to the end")))) == 10


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t",
        "PRAGMA user_version = 3",
        "ATTACH 'x' AS y",
        "",
        "-- SELECT",
        "/* SELECT */ DELETE FROM t",
    ],
)
def test_only_a_select_is_taken(path, query):
    with pytest.raises(ConfigError, match="wanted one SELECT"):
        source(path, query)


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELECT * FROM nosuch", "no such table"),
        (
            "SELECT * FROM t WHERE id > :least",
            "wanted one SELECT that the database understands, found: .* bindings",
        ),
        ("SELECT 1 AS id; DELETE FROM t", "syntax error"),
        ("WITH gone AS (SELECT 1) DELETE FROM t", "syntax error"),
        ("SELECT x FROM t", "key: wanted a column"),
    ],
)
def test_a_query_that_cannot_work_is_told_at_once_and_changes_nothing(path, query, complaint):
    numbers(path)
    with pytest.raises(ConfigError, match=complaint):
        source(path, query).schema()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)


def test_a_comment_or_a_semicolon_at_the_end_does_no_harm(path):
    numbers(path)
    assert len(rows(read(source(path, "SELECT * FROM t -- all of them")))) == 10
    assert len(rows(read(source(path, "SELECT * FROM t ;\n")))) == 10


def test_a_missing_file_is_named_and_not_made(path):
    with pytest.raises(ConfigError, match="found none"):
        source(path).schema()
    assert not path.exists()


def test_a_locked_database_is_a_transient_failure(path, monkeypatch):
    monkeypatch.setattr("mlinfer.sql._BUSY_SECONDS", 0.01)
    numbers(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="locked"):
            source(path).schema()


def test_following_needs_a_key(path):
    with pytest.raises(ConfigError, match="wanted a key"):
        source(path, key=None, follow=True)


def test_another_query_does_not_go_on_at_this_ones_position(path):
    one, same, other = (
        source(path),
        source(path, "SELECT  *\nFROM t"),
        source(path, "SELECT * FROM t WHERE x > 1"),
    )
    assert one.partitions() == same.partitions() != other.partitions()
    assert pickle.loads(pickle.dumps(one)) == one


def test_another_database_under_the_same_name_is_refused_and_not_passed_over(tmp_path):
    paths = [tmp_path / name / "s.db" for name in ("d1", "d2")]
    for path, x in zip(paths, (1, 2), strict=True):
        path.parent.mkdir()
        change(
            path,
            "CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL)",
            f"INSERT INTO t VALUES (1, {x}), (2, {x})",
        )
    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy", version="1")
    out = SqlDestination(f"sqlite:///{tmp_path}/out.db", "scores")
    first, second = (InferencePipeline(source(path), host, out, name="p", keep=["id"]) for path in paths)
    assert (first.run().delivered, first.run().delivered) == (2, 0)
    with pytest.raises(ChangedError, match=r"d2/s\.db: wanted .* with id 2, found another row"):
        second.run()
    assert second.run(from_start=True).delivered == 2
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        assert connection.execute("SELECT DISTINCT y FROM scores").fetchall() == [(2.0,)]


def test_keys_that_are_used_again_are_refused_and_rows_that_all_went_are_not_missed(path):
    numbers(path)
    after = read(source(path))[-1].position
    change(path, "DELETE FROM t WHERE id < 18")
    assert rows(read(source(path), after)) == []
    change(path, "DELETE FROM t")
    assert rows(read(source(path), after)) == []
    change(path, "INSERT INTO t VALUES (19, 1, 'new')")
    assert [row["id"] for row in rows(read(source(path), after))] == [19]
    change(path, "INSERT INTO t VALUES (1, 1, 'new')")
    with pytest.raises(
        ChangedError, match="with id 18, found that it is gone, while rows before it are there"
    ):
        read(source(path), after)


def test_progress_without_a_proof_is_still_read_and_other_columns_are_not_compared(path):
    numbers(path)
    assert [row["id"] for row in rows(read(source(path), 14))] == [16, 18]
    after = read(source(path), columns=["x"])[0].position
    assert rows(read(source(path), after))[0]["id"] == after["key"] + 2
    change(path, "UPDATE t SET s = 'later'")
    assert read(source(path), after, columns=["x"])
    change(path, "UPDATE t SET x = -1")
    with pytest.raises(ChangedError, match="found another row"):
        read(source(path), after, columns=["x"])


def test_what_a_dead_writer_left_half_done_is_undone_first(path, tmp_path):
    numbers(path)
    crashed = tmp_path / "crashed.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the commit
        writer.execute("BEGIN")
        writer.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
                       " INSERT INTO t SELECT 100 + i, i, 'half done' FROM n")  # fmt: skip
        shutil.copy(path, crashed)
        shutil.copy(f"{path}-journal", f"{crashed}-journal")
        writer.execute("ROLLBACK")
    assert crashed.stat().st_size > 50_000
    assert len(rows(read(source(crashed)))) == 10


def test_a_pipeline_reads_and_writes_one_database_exactly_once(path):
    numbers(path)
    host = FunctionHost(
        lambda records: pc.multiply(records.column("x"), 2.0), {"x": "float64"}, {"y": "float64"}, version="1"
    )
    made = InferencePipeline(
        source(path),
        host,
        SqlDestination(f"sqlite:///{path}", "scores"),
        name="p",
        keep=["id"],
        require="exactly-once",
    )
    assert (made.run().delivered, made.run().delivered) == (10, 0)
    change(path, "INSERT INTO t VALUES (100, 7, 'new')")
    assert made.run().delivered == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(
            "SELECT count(*) FROM scores JOIN t USING (id) WHERE y = 2 * x"
        ).fetchone() == (11,)


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2", "hun?ter2", "a@b/hunter2?c"])
def test_no_message_holds_a_password(password):
    with pytest.raises(ConfigError, match="the path of an SQLite file") as caught:
        SqlSource(f"postgresql://me:{password}@host/db", "SELECT 1").describe()
    assert "ter2" not in str(caught.value)
