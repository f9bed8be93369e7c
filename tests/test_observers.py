"""Observers tell what happened: checked against the run's own report, in the words that a reader of them gets."""

import dataclasses
import io
import json
import logging
import re
import unicodedata

import prometheus_client
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

import mlinfer
from mlinfer import (
    BatchRead,
    Budget,
    ConfigError,
    InferencePipeline,
    RecordsRejected,
    RetryScheduled,
    RunStarted,
    observer,
)
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.observers import LogObserver, ProgressBar, PrometheusMetrics
from mlinfer.sources import MemorySource, ParquetSource

parse = text_string_to_metric_families
HOST = FunctionHost(
    lambda x: {"y": x * 2}, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1"
)
TABLE = pa.table({"x": [float(n) if n % 10 else None for n in range(200)]})


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def run(observer, name="doubles", host=HOST):
    pipeline = InferencePipeline(
        MemorySource(TABLE),
        host,
        MemoryDestination(),
        name=name,
        rejects=MemoryDestination(),
        budget=Budget(ratio=None),
        observers=[observer],
    )
    return pipeline.run()


def test_metrics_agree_with_the_report():
    metrics = PrometheusMetrics()
    report = run(metrics)
    found = {
        (sample.name, sample.labels.get("stage"), sample.labels.get("kind")): sample.value
        for family in parse(metrics.exposition().decode())
        for sample in family.samples
        if sample.labels["pipeline"] == "doubles" and "le" not in sample.labels
    }
    assert found["mlinfer_records_delivered_total", None, None] == report.delivered == 180
    assert found["mlinfer_records_read_total", None, None] == 200
    [(stage, kind)] = report.reasons
    assert found["mlinfer_records_rejected_total", stage, kind] == report.rejected == 20
    assert found["mlinfer_commit_seconds_count", None, None] == report.commits
    assert found["mlinfer_batches_total", None, None] >= 1
    assert found["mlinfer_runs_total", None, None] == 1


def test_a_report_accounts_for_every_record_and_every_second():
    report = run(PrometheusMetrics())
    assert (report.name, report.delivered, report.rejected, report.stopped) == ("doubles", 180, 20, None)
    assert report.rate == pytest.approx(200 / report.seconds)
    assert report.reasons == {("conform", "missing_value"): 20}
    assert {"read", "infer", "write"} <= set(report.stages)
    first, *more = report.details().splitlines()
    assert first.startswith("180 delivered, 20 rejected, ")
    assert [line.split()[0] for line in more] == ["rate", "rejects", "time"]
    assert "20 x missing_value (conform)" in more[1]


def test_a_report_of_a_run_that_had_nothing_to_do_is_one_line():
    report = mlinfer.RunReport("p", "run", "exactly-once", seconds=0.1, resumed=True)
    assert report.details() == str(report) == "0 delivered: all were there already"
    assert len(dataclasses.replace(report, retries=2).details().splitlines()) == 4


def test_metrics_of_two_observers_do_not_meet_unless_they_share_a_registry():
    one, two = PrometheusMetrics(), PrometheusMetrics()
    run(one)
    assert b'mlinfer_runs_total{outcome="ok",pipeline="doubles"} 1.0' in one.exposition()
    assert b"doubles" not in two.exposition()
    registry = prometheus_client.CollectorRegistry()
    shared = PrometheusMetrics(registry)
    run(shared)
    assert b"doubles" in prometheus_client.generate_latest(registry)


def test_the_log_tells_a_run_as_text(caplog):
    caplog.set_level(logging.DEBUG, "mlinfer")
    report = run(LogObserver())
    lines = [record.getMessage() for record in caplog.records if record.name == "mlinfer"]
    assert (
        lines[0]
        == f'run_started name=doubles run={report.run} guarantee={report.guarantee} model="<lambda>@1" expected=200'
    )
    assert "records_rejected" in "\n".join(lines)
    assert re.fullmatch(r"run_ended name=doubles .*delivered=180 rejected=20 .*", lines[-1])
    assert not [line for line in lines if "null" in line]


def test_the_log_tells_a_run_as_json(caplog):
    caplog.set_level(logging.INFO, "mlinfer")
    report = run(LogObserver("json"))
    events = [json.loads(record.getMessage()) for record in caplog.records if record.name == "mlinfer"]
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("run_started", "run_ended")
    assert set(names[1:-1]) == {"records_rejected", "progress_committed"}
    assert events[-1]["delivered"] == report.delivered
    rejected = [event["reasons"] for event in events if event["event"] == "records_rejected"]
    assert sum(sum(reasons.values()) for reasons in rejected) == 20


@pytest.mark.parametrize("kind", ["text", "json"])
def test_foreign_text_cannot_forge_a_line(caplog, kind):
    caplog.set_level(logging.DEBUG, "mlinfer")
    evil = "x\nrun_ended name=forged \x1b[31m\u202e\r"
    log = LogObserver(kind)
    log.batch_read(BatchRead(evil, 1, 0.5))
    log.records_rejected(RecordsRejected(evil, "infer", {evil: 1}))
    log.retry_scheduled(RetryScheduled(evil * 50, 1, 0.1))
    for record in caplog.records:
        line = record.getMessage()
        assert not [char for char in line if unicodedata.category(char)[0] == "C"], line
        assert len(line) < 700
        assert not line.startswith("run_ended")


def test_the_end_of_a_failed_run_is_an_error(caplog):
    def broken(records):
        raise ConfigError("no")

    host = FunctionHost(broken, {"x": pa.float64()}, {"y": pa.float64()}, version="1")
    with pytest.raises(ConfigError):
        run(LogObserver(), host=host)
    last = caplog.records[-1]
    assert last.levelname == "ERROR"
    assert "error=ConfigError" in last.getMessage()


def test_a_log_format_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"text.*json.*xml"):
        LogObserver("xml")


def test_the_bar_ends_with_the_numbers_of_the_report():
    screen = Terminal()
    report = run(ProgressBar(screen))
    last = screen.getvalue().splitlines()[-1].rpartition("\x1b[K")[2]
    assert last.startswith("doubles")
    assert f"{report.delivered + report.rejected:,} rows" in last
    assert f"{report.rejected} rejected" in last


def test_the_bar_fits_a_terminal_and_shows_the_share(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    screen = Terminal()
    bar = ProgressBar(screen)
    bar.run_started(RunStarted("a-pipeline", "r", "exactly-once", "m@1", expected=1000))
    assert re.search(r"a-pipeline  ╌+    0%  0 rows", screen.getvalue())
    bar._done, bar._drawn = 500, 0.0
    bar.records_rejected(RecordsRejected("p", "conform", {"missing_value": 10}))
    line = screen.getvalue().rpartition("\x1b[K")[2]
    assert re.search(r"━+╌+   51%  510 rows  .*/s  10 rejected  \d+:\d\d left", line)
    assert len(line) < 80


@pytest.mark.parametrize("columns", ["1", "20", "40", "79", "300"])
def test_the_bar_never_wraps(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    screen = Terminal()
    bar = ProgressBar(screen)
    bar.run_started(RunStarted("a-pipeline-with-a-name", "r", "exactly-once", "m@1", expected=10**9))
    assert len(screen.getvalue().rpartition("\x1b[K")[2]) < int(columns)


def test_the_bar_is_drawn_at_most_ten_times_a_second(monkeypatch):
    now = 100.0
    monkeypatch.setattr("mlinfer.observers._progress_bar.time.monotonic", lambda: now)
    screen = Terminal()
    bar = ProgressBar(screen)
    bar.run_started(RunStarted("p", "r", "exactly-once", "m@1"))
    for _ in range(1000):  # ten seconds, a thousand batches
        now += 0.01
        bar.records_rejected(RecordsRejected("p", "conform", {"missing_value": 1}))
    assert 50 <= screen.getvalue().count("\r") <= 101


def test_where_there_is_no_terminal_a_plain_line_is_written_every_ten_seconds(monkeypatch):
    now = 100.0
    monkeypatch.setattr("mlinfer.observers._progress_bar.time.monotonic", lambda: now)
    out = io.StringIO()
    bar = ProgressBar(out)
    bar.run_started(RunStarted("p", "r", "exactly-once", "m@1", expected=50))
    for _ in range(350):  # 35 seconds
        now += 0.1
        bar.records_rejected(RecordsRejected("p", "conform", {"missing_value": 1}))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


class Listener:
    expected = "not told"

    @observer
    def run_started(self, event):
        self.expected = event.expected


def test_a_source_that_counts_its_records_tells_how_many_are_to_come(tmp_path):
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=30)
    pq.write_table(TABLE, tmp_path / "b.parquet")
    host = FunctionHost(
        lambda x: {"y": x}, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1"
    )
    listener = Listener()
    pipeline = InferencePipeline(
        ParquetSource(tmp_path), host, MemoryDestination(), name="n", rejects=MemoryDestination(), budget=Budget(ratio=None),
        observers=[listener],
    )  # fmt: skip
    pipeline.run()
    assert listener.expected == 400
    pq.write_table(TABLE.slice(0, 7), tmp_path / "c.parquet")
    pipeline.run()
    assert listener.expected == 7


def test_a_source_that_does_not_count_its_records_tells_nothing():
    class Unknown(MemorySource):
        def remaining(self, partition, after):
            return None

    class Refuses(MemorySource):
        def remaining(self, partition, after):
            raise ConfigError("cannot say")

    for source in [Unknown(TABLE), Refuses(TABLE)]:
        listener = Listener()
        InferencePipeline(
            source, HOST, MemoryDestination(), name="n", rejects=MemoryDestination(), budget=Budget(ratio=None),
            observers=[listener],
        ).run()  # fmt: skip
        assert listener.expected is None


def test_every_run_has_hooks_of_its_own():
    heard = {"outer": [], "inner": []}

    class Hears:
        def __init__(self, name):
            self.name = name

        @observer
        def run_started(self, event):
            heard[self.name].append(event)
            if self.name == "outer":
                run(Hears("inner"), name="inner")  # while the outer run is under way

    run(Hears("outer"), name="outer")
    assert [event.name for event in heard["outer"]] == ["outer"]
    assert [event.name for event in heard["inner"]] == ["inner"]
