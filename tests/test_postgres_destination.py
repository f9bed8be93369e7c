"""What SqlDestination promises of PostgreSQL, read back with the database's own driver."""

import datetime as dt
import decimal
import json
import math
import pickle

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    Budget,
    ConfigError,
    FencedError,
    InferencePipeline,
    Progress,
    RecordErrors,
    Scope,
)
from mlinfer.destinations import SqlDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource
from postgres import PostgresServer

SCHEMA = pa.schema([("id", pa.int64()), ("y", pa.float64())])


@pytest.fixture(scope="module")
def server():
    with PostgresServer.running() as running:
        yield running


@pytest.fixture
def url(server):
    return server.database()


def to(url, table="scores", **more):
    return SqlDestination(url, table, **more)


def rows(url, query):
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def change(url, *statements):
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement)


def batch(records, position=1, partition="a"):
    if isinstance(records, dict):
        records = pa.RecordBatch.from_pydict(records)
    return Batch(records, partition, position)


def some(*ids, schema=SCHEMA):
    return batch(pa.RecordBatch.from_pydict({"id": list(ids), "y": [float(n) for n in ids]}, schema=schema))


def deliver(destination, *batches, schema=SCHEMA, scope=None, position=1):
    with destination.open(schema, scope or Scope("p")) as writer:
        for one in batches:
            writer.write(one)
        writer.commit(Progress({"a": position}, {}, "model"))


# --- the description -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@db",
        "postgresql://me:hunter2",
        "postgresql://me:hun/ter2@db/x",
        "postgresql://me:hun@ter2@db/x",
        "postgresql://me:hun?ter2@db/x",
        "postgresql://me:hun#ter2@db/x",
        "postgresql://me@db/x?password=hunter2",
        "postgresql://me:hunter2@db:70000/x",
        "postgresql://me:hunter2@db/x?options=-c%20fsync%3Doff",
        "postgres:/me:hunter2@db/x",
    ],
)
def test_a_misspelt_url_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError, match="database: wanted") as caught:
        to(url)
    assert not {"hun", "ter2"} & set(str(caught.value).replace("hunter2", "hun ter2").split())


def test_a_description_is_inert_comparable_and_travels():
    one = to("postgresql://me:hunter2@nowhere:1/x", key="id")
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.keyed
    assert one.transactional
    assert repr(one) == "SqlDestination('postgresql://***@nowhere:1/x', table='scores', key='id')"
    assert one.store == "postgresql://me@nowhere:1/x"


def test_a_password_from_the_environment_may_hold_any_character(server, url, monkeypatch):
    change(url, "CREATE ROLE odd LOGIN PASSWORD 'p@s:s/w#?%41{}'", "GRANT CREATE ON SCHEMA public TO odd")
    monkeypatch.setenv("SCORES_PASSWORD", "p@s:s/w#?%41{}")
    place = url.rpartition("@")[2]
    deliver(to(f"postgresql://odd:${{SCORES_PASSWORD}}@{place}"), some(1))
    assert rows(url, "SELECT id FROM scores") == [(1,)]
    monkeypatch.setenv("SCORES_URL", url)
    assert to("${SCORES_URL}").store == to(url).store


# --- values ----------------------------------------------------------------------------------------------------------

NOON = dt.datetime(2013, 9, 1, 12, 0, 0, 250_000, tzinfo=dt.UTC)
LOCAL = NOON.replace(tzinfo=None)
DIGITS = decimal.Decimal("123456789012345678901234567890.12")
ARRIVALS = [
    (pa.bool_(), [True, False, None], "boolean", [True, False, None]),
    (pa.int8(), [-128, 127, None], "smallint", [-128, 127, None]),
    (pa.uint8(), [0, 255, None], "smallint", [0, 255, None]),
    (pa.uint16(), [0, 65535, None], "integer", [0, 65535, None]),
    (pa.int32(), [-(2**31), 2**31 - 1, None], "integer", [-(2**31), 2**31 - 1, None]),
    (pa.uint32(), [2**32 - 1], "bigint", [2**32 - 1]),
    (pa.int64(), [-(2**63), 2**63 - 1, None], "bigint", [-(2**63), 2**63 - 1, None]),
    (pa.uint64(), [0, 2**63 - 1, None], "bigint", [0, 2**63 - 1, None]),
    (pa.float16(), [np.float16(0.5), None], "real", [0.5, None]),
    (pa.float32(), [0.5, math.inf, None], "real", [0.5, math.inf, None]),
    (pa.float64(), [0.1, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, None], "double precision",
     [0.1, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, None]),
    (pa.string(), ["", "ä'\";--", "😀", None, "\\.", "\\N", 'a,b\r\n"c"', " x "], "text",
     ["", "ä'\";--", "😀", None, "\\.", "\\N", 'a,b\r\n"c"', " x "]),
    (pa.large_string(), ["x", None], "text", ["x", None]),
    (pa.string_view(), ["x", None], "text", ["x", None]),
    (pa.binary(), [b"", b"\0\xff", None], "bytea", [b"", b"\0\xff", None]),
    (pa.large_binary(), [b"\0\xff", None], "bytea", [b"\0\xff", None]),
    (pa.binary(2), [b"\0\xff", None], "bytea", [b"\0\xff", None]),
    (pa.timestamp("s"), [LOCAL.replace(microsecond=0), None], "timestamp without time zone", [LOCAL.replace(microsecond=0), None]),
    (pa.timestamp("us"), [LOCAL, dt.datetime(1, 1, 1), None], "timestamp without time zone", [LOCAL, dt.datetime(1, 1, 1), None]),  # noqa: DTZ001 - has none
    (pa.timestamp("ms", "America/New_York"), [NOON, None], "timestamp with time zone", [NOON, None]),
    (pa.timestamp("ns", "UTC"), [NOON, None], "timestamp with time zone", [NOON, None]),
    (pa.date32(), [NOON.date(), dt.date(1, 1, 1), None], "date", [NOON.date(), dt.date(1, 1, 1), None]),
    (pa.date64(), [NOON.date(), None], "date", [NOON.date(), None]),
    (pa.time32("s"), [dt.time(1, 2, 3), None], "time without time zone", [dt.time(1, 2, 3), None]),
    (pa.time64("us"), [dt.time(1, 2, 3, 4), None], "time without time zone", [dt.time(1, 2, 3, 4), None]),
    (pa.time64("ns"), [dt.time(1, 2, 3, 4), None], "time without time zone", [dt.time(1, 2, 3, 4), None]),
    (pa.duration("ms"), [dt.timedelta(seconds=2, milliseconds=5), -dt.timedelta(days=3), None], "interval",
     [dt.timedelta(seconds=2, milliseconds=5), -dt.timedelta(days=3), None]),
    (pa.decimal128(38, 2), [DIGITS, None], "numeric(38,2)", [DIGITS, None]),
    (pa.decimal256(50, 3), [decimal.Decimal("-0.001"), None], "numeric(50,3)", [decimal.Decimal("-0.001"), None]),
    (pa.list_(pa.float64()), [[0.5, None, math.nan, math.inf], [], None], "jsonb", [[0.5, None, None, "Infinity"], [], None]),
    (pa.list_(pa.float32(), 2), [[0.5, 1.5], None], "jsonb", [[0.5, 1.5], None]),
    (pa.struct([("a", pa.string()), ("b", pa.binary())]), [{"a": 'ä"\n', "b": b"\xff"}, None], "jsonb", [{"a": 'ä"\n', "b": "/w=="}, None]),
    (pa.map_(pa.string(), pa.timestamp("s")), [[("k", LOCAL.replace(microsecond=0))]], "jsonb", [[["k", "2013-09-01T12:00:00"]]]),
    (pa.null(), [None], "text", [None]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a", None], "text", ["a", "b", "a", None]),
    (pa.dictionary(pa.int32(), pa.int64()), [7, None], "bigint", [7, None]),
    (pa.uuid(), [b"\0" * 16, None], "bytea", [b"\0" * 16, None]),
]  # fmt: skip


@pytest.mark.parametrize("case", ARRIVALS, ids=lambda case: str(case[0]))
def test_every_type_arrives_as_promised(url, case):
    kind, given, declared, stored = case
    array = (
        pa.array(given, kind.storage_type).cast(kind)
        if isinstance(kind, pa.BaseExtensionType)
        else pa.array(given, kind)
    )
    one = pa.record_batch({"n": range(len(array)), "v": array})
    deliver(to(url), batch(one.slice(0, 1)), batch(one.slice(1)), schema=one.schema)
    found = [value for (value,) in rows(url, "SELECT v FROM scores ORDER BY n")]
    assert found == stored
    assert list(map(str, found)) == list(map(str, stored)) or declared.endswith("with time zone")
    assert rows(url, "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
                     " WHERE attrelid = 'scores'::regclass AND attname = 'v'") == [(declared,)]  # fmt: skip


def test_not_a_number_is_not_null(url):
    deliver(to(url), batch({"v": [math.nan, None]}), schema=pa.schema([("v", pa.float64())]))
    assert rows(url, "SELECT v = 'NaN', v IS NULL FROM scores") == [(True, False), (None, True)]


# --- one transaction -------------------------------------------------------------------------------------------------


def test_rows_and_progress_appear_at_the_commit_and_not_before(url):
    with to(url).open(SCHEMA, Scope("p")) as writer:
        writer.write(some(1, 2))
        assert rows(url, "SELECT count(*) FROM scores") == [(0,)]
        assert rows(url, "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL"
                         " AND application_name = 'mlinfer' AND datname = current_database()") == [(0,)]  # fmt: skip
        writer.commit(Progress({"a": [2, "x"]}, {"a": b"\0memory"}, "model"))
        writer.write(some(3))
    assert rows(url, "SELECT id FROM scores") == [(1,), (2,)]
    assert rows(
        url, 'SELECT pipeline, output, "partition", position, state, fingerprint FROM mlinfer_progress'
    ) == [("p", "main", "a", '[2, "x"]', b"\0memory", "model")]
    with to(url).open(SCHEMA, Scope("p")) as writer:
        found = writer.committed()
        assert (found.positions, found.states) == ({"a": [2, "x"]}, {"a": b"\0memory"})


def test_a_key_overwrites(url):
    destination = to(url, key="id")
    deliver(destination, some(1, 2, 2, 1), some(2))
    deliver(destination, batch({"id": [2, 3, 2], "y": [7.0, 8.0, 9.0]}))
    assert rows(url, "SELECT id, y FROM scores ORDER BY id") == [(1, 1.0), (2, 9.0), (3, 8.0)]


def test_the_older_of_two_runs_is_refused(url):
    with to(url).open(SCHEMA, Scope("p")) as older:
        older.write(some(1))
        with to(url).open(SCHEMA, Scope("p")) as newer:
            newer.write(some(2))
            with pytest.raises(FencedError, match="another one has taken over"):
                older.commit(Progress({"a": 1}))
            newer.commit(Progress({"a": 2}))
    assert rows(url, "SELECT id FROM scores") == [(2,)]


def test_looking_creates_nothing_and_fences_nobody(url):
    with to(url).open(SCHEMA, Scope("p", read_only=True)):
        pass
    assert rows(url, "SELECT * FROM pg_class WHERE relname LIKE 'mlinfer%' OR relname = 'scores'") == []
    with to(url).open(SCHEMA, Scope("p")) as writer:
        with to(url).open(SCHEMA, Scope("p", read_only=True)):
            pass
        writer.write(some(1))
        writer.commit(Progress({"a": 1}))
    assert rows(url, "SELECT id FROM scores") == [(1,)]


def test_a_text_with_blanks_beyond_the_limit_of_its_column_is_refused_and_not_cut(url):
    """PostgreSQL drops them without a word."""
    change(url, "CREATE TABLE scores (s varchar(3), n bigint CHECK (n <> 2))")
    texts = ["abc", "abc ", "a", "   ", "    ", "abcd", None, "\u00e4\u00f6\u00fc"]
    records = pa.RecordBatch.from_pydict({"s": texts, "n": list(range(len(texts)))})
    with to(url, if_exists="append").open(records.schema, Scope("p")) as writer:
        writer.write(batch(records))
        with pytest.raises(RecordErrors) as refused:
            writer.commit(Progress({"a": 1}))
        assert refused.value.rows == [1, 2, 4, 5]
        why = [one.split(": ")[-1] for one in refused.value.messages]
        assert why[0] == why[2] == why[3] == "value too long for type character varying(3)"
        writer.write(batch(records.take(pa.array([0, 3, 6, 7]))))
        writer.commit(Progress({"a": 1}))
    assert rows(url, "SELECT s, n FROM scores ORDER BY n") == [(texts[n], n) for n in (0, 3, 6, 7)]


def test_a_column_that_would_round_integers_is_refused(url):
    change(url, "CREATE TABLE scores (id numeric(5,-2), y double precision)")
    with pytest.raises(ConfigError, match=r"'id' is numeric\(5,-2\), wanted BIGINT"):
        deliver(to(url, if_exists="append"), some(123))
    assert rows(url, "SELECT * FROM scores") == []


def test_a_generated_column_is_found_before_the_first_record(url):
    change(url, "CREATE TABLE scores (id bigint, y double precision GENERATED ALWAYS AS (id * 2) STORED)")
    with (
        pytest.raises(ConfigError, match="'y' is generated, wanted DOUBLE PRECISION"),
        to(url, if_exists="append").open(SCHEMA, Scope("p", read_only=True)),
    ):
        pass


# --- in a pipeline ---------------------------------------------------------------------------------------------------


def doubled(records):
    return {"y": pa.compute.multiply(records.column("x"), 2.0)}


def pipeline(url, data, destination=None, **more):
    more.setdefault("rejects", to(url, "rejects"))
    more.setdefault("name", "p")
    host = FunctionHost(doubled, {"x": pa.float64()}, {"y": pa.float64()}, version="1")
    budget = Budget(ratio=None)
    return InferencePipeline(
        MemorySource(data), host, destination or to(url), keep=["id"], budget=budget, **more
    )


DATA = pa.table({"id": range(10), "x": [None if n == 4 else float(n) for n in range(10)]})


def test_a_pipeline_delivers_once_and_its_rejects_with_it(url):
    made = pipeline(url, DATA, require="exactly-once")
    assert (made.run().delivered, made.run().delivered) == (9, 0)
    assert rows(url, "SELECT id, y FROM scores ORDER BY id") == [(n, 2.0 * n) for n in range(10) if n != 4]
    [(stage, kind, record)] = rows(url, "SELECT stage, kind, record FROM rejects")
    assert (stage, kind, json.loads(record)["id"]) == ("conform", "missing_value", 4)
    made.run(from_start=True)
    assert rows(url, "SELECT (SELECT count(*) FROM scores), (SELECT count(*) FROM rejects)") == [(9, 1)]
    [found] = to(url, "rejects").records(Scope("p", "rejects", read_only=True))
    assert found.select(["kind", "raw"]).to_pylist() == [{"kind": "missing_value", "raw": None}]


def test_a_check_writes_nothing(url):
    pipeline(url, DATA).check()
    assert rows(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
