"""The loop: nothing is lost, nothing is written twice, order is kept, whatever fails and whenever."""

import gc
import os
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    Batching,
    Budget,
    ChangedError,
    ComponentError,
    ConfigError,
    DataDestination,
    DataSource,
    EndOfInput,
    FencedError,
    InferencePipeline,
    Progress,
    RecordErrors,
    RecordIds,
    RejectsError,
    Retry,
    Scope,
    Stop,
    TransientError,
    Workers,
)
from mlinfer._engine import LocalEngine
from mlinfer._engine._session import Session
from mlinfer._failpoints import arm
from mlinfer._inbox import Inbox
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

HOST = FunctionHost(
    lambda x: 2 * x, inputs={"x": "float64"}, outputs={"y": "float64"}, takes="numpy", version="1"
)
SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64())])


@dataclass(eq=False)
class Script(DataSource):
    """Partitions of numbered records, a few at a time; `trouble(event)` may raise. Keeps a log of what is asked of it."""

    sizes: dict
    resume: str = "seek"
    bounded: bool = True
    step: int = 3
    trouble: object = None
    known: object = SCHEMA
    log: list = field(default_factory=list)
    wanted: object = None
    given: int = 0

    def schema(self):
        return self.known

    def partitions(self):
        return list(self.sizes)

    @contextmanager
    def open(self, partition, after, wanted):
        self.log.append(("open", partition, after))
        self.wanted = wanted
        self.happens("source.open")
        yield ScriptReader(self, partition, after or 0, wanted)
        self.log.append(("close", partition))

    def happens(self, event):
        if self.trouble:
            self.trouble(event)


class ScriptReader:
    def __init__(self, script, partition, start, wanted):
        self.script, self.partition, self.row, self.wanted = script, partition, start, wanted
        self.thread = threading.get_ident()

    def read(self, max_records, timeout):
        assert threading.get_ident() == self.thread
        self.script.happens("source.read")
        size = self.script.sizes[self.partition]
        count = min(self.script.step, max_records, size - self.row)
        if count <= 0:
            if self.script.bounded:
                raise EndOfInput
            threading.Event().wait(0.01)
            return None
        ids = np.arange(self.row, self.row + count)
        start, self.row = self.row, self.row + count
        self.script.given += count
        records = pa.record_batch({"id": ids, "x": ids.astype(float)}).select(self.wanted.names)
        return Batch(records, self.partition, self.row, RecordIds.ordinals(self.partition, start, count))


class AcknowledgingReader(ScriptReader):
    def acknowledge(self, position):
        assert threading.get_ident() == self.thread
        self.script.log.append(("acknowledge", self.partition, position))


class Acknowledging(Script):
    @contextmanager
    def open(self, partition, after, wanted):
        yield AcknowledgingReader(self, partition, after or 0, wanted)


@dataclass(eq=False)
class Book(DataDestination):
    """A transactional place that can be made to fail: rows and progress by output, kept beyond a run."""

    trouble: object = None
    commit_seconds: float = 1.0
    rows: dict = field(default_factory=lambda: defaultdict(list))
    progress: dict = field(default_factory=lambda: defaultdict(Progress))
    epochs: dict = field(default_factory=lambda: defaultdict(int))
    log: list = field(default_factory=list)
    commits: list = field(default_factory=list)

    transactional = True

    @contextmanager
    def open(self, schema, scope):
        self.log.append(("open", scope.output))
        self.happens(f"{scope.output}.open")
        if scope.epoch is None and not scope.read_only:
            self.epochs[scope.output] += 1
        if scope.fresh:
            self.rows.pop(scope.output, None)
            self.progress.pop(scope.output, None)
        yield BookWriter(self, scope.output)

    def happens(self, event):
        if self.trouble:
            self.trouble(event)


class BookWriter:
    def __init__(self, book, output):
        self.book, self.output, self.buffer = book, output, []

    def write(self, batch):
        self.book.happens(f"{self.output}.write")
        self.buffer += batch.records.to_pylist()

    def commit(self, progress):
        book, output = self.book, self.output
        book.happens(f"{output}.commit")
        book.rows[output] += self.buffer
        self.buffer = []
        book.progress[output] = book.progress[output].merged(progress)
        book.commits.append((output, dict(progress.positions), len(book.rows[output])))
        book.happens(f"{output}.committed")

    def committed(self):
        return self.book.progress[self.output]


class Clock:
    """Time that passes only while somebody waits for a retry, and notes for how long."""

    def __init__(self):
        self.time, self.waits = 0.0, []

    def monotonic(self):
        return self.time

    def now(self):
        import datetime as dt

        return dt.datetime(2024, 1, 1, tzinfo=dt.UTC)

    def wait(self, event, seconds):
        if isinstance(event, Stop) or seconds > 0.2:
            self.waits.append(seconds)
            self.time += seconds
            return event.is_set()
        return event.wait(0.005)


def run(source, destination, *, host=HOST, until="end", stop=None, clock=None, from_start=False, **more):
    more = {"keep": ["id"], "name": "p", "retry": Retry(first_wait=0.001), **more}
    pipeline = InferencePipeline(source, host, destination, engine=LocalEngine(clock), **more)
    return pipeline.run(until=until, stop=stop, from_start=from_start)


def fails(event, error, times=1, after=0):
    """Trouble: raise at an event, a number of times, after it went well a number of times."""
    seen = [0]

    def trouble(happening):
        if happening == event:
            seen[0] += 1
            if after < seen[0] <= after + times:
                raise error

    trouble.seen = seen
    return trouble


def delivered(book, output="main"):
    return [row["id"] for row in book.rows[output]]


# --- order and columns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_order_is_kept_in_every_partition_whoever_works(workers):
    sizes = {"a": 200, "b": 90, "c": 0, "d": 1, "e": 150}
    source, book = Script(sizes, step=7), Book()
    host = FunctionHost(
        lambda **given: {"y": given["x"], "n": given["id"]}, inputs={"id": "int64", "x": "float64"},
        outputs={"y": "float64", "n": "int64"}, takes="numpy", shared=True, version="1",
    )  # fmt: skip

    seen = defaultdict(list)
    write = BookWriter.write

    class Writer(BookWriter):
        def write(self, batch):
            seen[batch.partition] += batch.records.column("n").to_pylist()
            write(self, batch)

    book.open = lambda schema, scope: _entered(Writer(book, scope.output))
    report = run(source, book, host=host, keep=(), workers=workers, batching=Batching(5))
    assert report.delivered == sum(sizes.values())
    assert seen == {name: list(range(size)) for name, size in sizes.items() if size}
    assert book.progress["main"].positions == {name: size for name, size in sizes.items() if size}


@contextmanager
def _entered(writer):
    yield writer


def test_a_source_is_asked_only_for_the_columns_that_are_wanted():
    source = Script({"a": 4}, known=pa.schema([*SCHEMA, ("huge", pa.binary())]))
    run(source, Book(), keep=())
    assert source.wanted.names == ["x"]
    run(source, Book(), keep=["id"])
    assert source.wanted.names == ["x", "id"]


def test_a_source_that_knows_no_columns_needs_types_for_the_kept_ones():
    source = Script({"a": 4}, known=None)
    with pytest.raises(ConfigError, match=r"or give the type: keep=\{'id': pa.string\(\)\}"):
        run(source, Book())
    book = Book()
    run(source, book, keep={"id": pa.int64()})
    assert delivered(book) == [0, 1, 2, 3]


# --- opening ---------------------------------------------------------------------------------------------------------


def test_host_destination_and_source_are_opened_in_this_order_and_closed():
    log = []

    class Host:
        shared = False

        @contextmanager
        def open(self):
            log.append("host")
            with HOST.open() as model:
                yield model
            log.append("host closed")

    source, book = Script({"a": 2}, log=log), Book(log=log)
    run(source, book, host=Host(), rejects=book)
    assert log == [
        "host",
        ("open", "main"),
        ("open", "rejects"),
        ("open", "a", None),
        ("close", "a"),
        "host closed",
    ]


def test_check_creates_nothing_takes_no_epoch_and_reads_no_record():
    source, book, memory = Script({"a": 2}), Book(), MemoryDestination()
    InferencePipeline(source, HOST, book, name="p", rejects=memory).check()
    assert source.log == []
    assert book.epochs == {}
    assert memory._outputs == {}


def test_a_side_table_that_the_host_has_not_is_refused_before_anything_is_opened():
    book = Book()
    with pytest.raises(ConfigError) as caught:
        run(Script({"a": 2}), book, side={"monitor": book})
    assert str(caught.value) == "side: the host has no table 'monitor'; its tables: none"
    assert book.log == []


# --- failures and reruns ---------------------------------------------------------------------------------------------

EVENTS = ["source.open", "source.read", "main.open", "main.write", "main.commit", "main.committed"]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_run_that_fails_anywhere_and_is_run_again_equals_one_undisturbed(event, after):
    trouble = fails(event, ComponentError("planted"), after=after)
    source, book = Script({"a": 20, "b": 5}), Book(commit_seconds=0)
    part = source if event.startswith("source") else book
    part.trouble = trouble
    try:
        run(source, book)
    except ComponentError as error:
        assert str(error) == "planted"  # noqa: PT017 - some of these points are never reached
    part.trouble = None
    again = run(source, book)
    assert sorted(delivered(book)) == sorted([*range(20), *range(5)])
    assert again.delivered <= 25
    assert book.progress["main"].positions == {"a": 20, "b": 5}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("after", [0, 3])
def test_a_transient_failure_is_waited_out_and_nothing_is_written_twice(event, after):
    trouble = fails(event, TransientError("passing"), times=2, after=after)
    source, book = Script({"a": 20, "b": 5}), Book(commit_seconds=0)
    (source if event.startswith("source") else book).trouble = trouble
    report = run(source, book)
    assert sorted(delivered(book)) == sorted([*range(20), *range(5)])
    # both partitions may meet the failure in one attempt
    assert bool(trouble.seen[0] > after) <= report.retries <= min(2, max(0, trouble.seen[0] - after))
    # what was committed just before a failure is durable, but no commit has said so
    assert report.delivered == 25 or event == "main.committed"


@pytest.mark.parametrize("place", ["host.infer.before", "host.infer.after"])
def test_a_transient_failure_of_the_model_is_waited_out_in_place(place):
    source, book, clock = Script({"a": 9}), Book(), Clock()
    arm(f"{place}=raise(transient)@2")
    try:
        report = run(source, book, clock=clock, batching=Batching(2))
    finally:
        arm("")
    assert (report.retries, delivered(book)) == (0, list(range(9)))
    assert source.log.count(("open", "a", None)) == 1


def test_a_model_that_fails_transiently_for_ever_ends_the_run():
    arm("host.infer.before=raise(transient)")
    try:
        with pytest.raises(ComponentError, match="the model failed 3 times in a row: a failpoint asked"):
            run(Script({"a": 9}), Book(), retry=Retry(attempts=3, first_wait=0.001))
    finally:
        arm("")


def test_a_source_that_cannot_be_read_again_is_never_retried():
    source = Script({"a": 9}, resume="none", trouble=fails("source.read", TransientError("gone"), after=2))
    with pytest.raises(ComponentError) as caught:
        run(source, Book())
    assert str(caught.value) == "the run failed, its source cannot be read again: gone"
    assert source.log.count(("open", "a", None)) == 1


def test_waits_grow_with_every_failure_and_honour_what_was_asked():
    clock, error = Clock(), TransientError("busy")
    book = Book(trouble=fails("main.open", error, times=4))
    assert run(Script({"a": 2}), book, clock=clock, retry=Retry(first_wait=1, longest_wait=5)).retries == 4
    for wait, longest in zip(clock.waits, [1, 2, 4, 5], strict=True):
        assert longest / 2 <= wait <= longest
    clock, error.wait = Clock(), 7.5
    book = Book(trouble=fails("main.open", error))
    run(Script({"a": 2}), book, clock=clock)
    assert clock.waits == [7.5]


def test_giving_up_says_how_often_it_was_tried():
    book = Book(trouble=fails("main.open", TransientError("down"), times=99))
    with pytest.raises(ComponentError) as caught:
        run(Script({"a": 2}), book, retry=Retry(attempts=3, first_wait=0.001))
    assert str(caught.value) == "the run failed, 3 times in a row: down"
    assert book.log.count(("open", "main")) == 3


def test_rejects_of_an_attempt_that_failed_are_not_charged_twice():
    book = Book(trouble=fails("main.commit", TransientError("later"), times=5))
    source = MemorySource({"id": [0, 1, 2], "x": [0.0, None, 2.0]})
    report = run(source, book, rejects=book, budget=Budget(count=1))
    assert (report.delivered, report.rejected, delivered(book)) == (2, 1, [0, 2])


def test_rejects_that_are_durable_stay_charged_after_a_failure():
    def unlucky(x):
        if (x % 10 == 0).any():
            raise ValueError("unlucky")
        return x

    host = FunctionHost(
        unlucky, inputs={"x": "float64"}, outputs={"y": "float64"}, takes="numpy", version="1"
    )
    trouble = fails("source.read", TransientError("later"), after=9)
    source, book = Script({"a": 50}, trouble=trouble), Book(commit_seconds=0)
    with pytest.raises(RejectsError, match="wanted at most 4 rejects, found 5"):
        run(source, book, host=host, rejects=book, budget=Budget(count=4))
    assert trouble.seen[0] > 10
    assert delivered(book) == [n for n in range(len(delivered(book)) + len(book.rows["rejects"])) if n % 10]


# --- another model ---------------------------------------------------------------------------------------------------


def other(version="2"):
    return FunctionHost(lambda x: -x, inputs={"x": "float64"}, outputs={"y": "float64"}, takes="numpy", version=version)  # fmt: skip


@pytest.mark.parametrize("destination", [Book, MemoryDestination])
def test_another_model_stops_continues_or_starts_over(destination):
    place = destination()

    def answers():
        return (
            place.table()["y"].to_pylist()
            if isinstance(place, MemoryDestination)
            else [r["y"] for r in place.rows["main"]]
        )

    sizes = {"a": 3}
    run(Script(sizes), place)
    with pytest.raises(ChangedError) as caught:
        run(Script(sizes), place, host=other())
    assert str(caught.value) == (
        "pipeline 'p': wanted the model, columns and destination of the progress so far, found others: version was '1', is '2'; "
        'use on_change="restart" to score everything anew, or on_change="continue" to go on with what is there now'
    )
    assert answers() == [0, 2, 4]
    sizes["a"] = 5
    assert run(Script(sizes), place, host=other(), on_change="continue").delivered == 2
    assert answers() == [0, 2, 4, -3, -4]
    assert run(Script(sizes), place, host=other()).delivered == 0
    assert run(Script(sizes), place, host=other("3"), on_change="restart").delivered == 5
    assert answers() == [0, -1, -2, -3, -4]
    assert run(Script(sizes), place, host=other("3"), from_start=True).delivered == 5
    assert answers() == [0, -1, -2, -3, -4]


def test_speed_settings_do_not_make_it_another_model():
    book = Book()
    run(Script({"a": 3}), book)
    faster = {
        "workers": 2,
        "batching": Batching(max_records=1),
        "retry": Retry(attempts=2),
        "budget": Budget(count=1),
    }
    assert run(Script({"a": 5}), book, **faster).delivered == 2


def test_starting_over_survives_transient_failures():
    book = Book()
    run(Script({"a": 6}), book)
    book.trouble = fails("main.commit", TransientError("later"), times=2)
    book.commit_seconds = 0
    run(Script({"a": 6}), book, host=other(), on_change="restart")
    assert [row["y"] for row in book.rows["main"]] == [0, -1, -2, -3, -4, -5]
    source = Script({"a": 6}, trouble=fails("source.read", TransientError("later"), after=1))
    assert run(source, book, host=other(), from_start=True).delivered == 6
    assert ("open", "a", 3) in source.log
    assert delivered(book) == list(range(6))


def test_a_run_that_was_taken_over_stops():
    memory, writing = MemoryDestination(), threading.Event()

    def slow(x):
        if not writing.is_set():
            writing.set()
            schema = pa.schema([pa.field("y", pa.float64(), nullable=False)])
            with memory.open(schema, Scope("p")):  # another run begins
                pass
        return x

    host = FunctionHost(slow, inputs={"x": "float64"}, outputs={"y": "float64"}, takes="numpy", version="1")
    with pytest.raises(FencedError, match="another run of pipeline 'p' has taken over; this one must stop"):
        run(Script({"a": 5}), memory, host=host, keep=())
    assert memory.table().num_rows == 0


# --- unbounded sources -----------------------------------------------------------------------------------------------


def test_an_unbounded_source_ends_when_it_is_idle_and_new_partitions_are_found():
    sizes = {"a": 10}
    source, book = Script(sizes, bounded=False), Book(commit_seconds=0)

    def grow(event):
        if event == "main.committed" and "b" not in sizes:
            sizes["b"] = 4

    book.trouble = grow
    report = run(source, book, until="idle")
    assert sorted(delivered(book)) == sorted([*range(10), *range(4)])
    assert report.stopped is None


def test_a_drain_finishes_what_is_in_flight():
    stop = Stop()
    reads = []
    source = Script({"a": 10**6}, bounded=False, trouble=reads.append)

    def infer(x):
        if len(reads) > 50:
            stop.ask("me")
        return 2 * x

    book = Book()
    host = FunctionHost(infer, inputs={"x": "float64"}, outputs={"y": "float64"}, takes="numpy", version="1")
    report = run(source, book, host=host, stop=stop)
    count = len(delivered(book))
    assert delivered(book) == list(range(count))
    assert book.progress["main"].positions == {"a": count}
    assert (report.delivered, report.stopped) == (count, "me")
    assert count >= 3 * 50
    assert str(report).endswith("stopped by me")


def test_a_reader_that_drains_is_read_to_its_end():
    class Drainable(ScriptReader):
        left = None

        def drain(self):
            self.left = 5
            self.script.log.append("drain")

        def read(self, max_records, timeout):
            if self.left is not None:
                if not self.left:
                    raise EndOfInput
                self.left -= 1
            stop.ask("enough")
            return super().read(max_records, timeout)

    class Source(Script):
        @contextmanager
        def open(self, partition, after, wanted):
            yield Drainable(self, partition, after or 0, wanted)

    stop = Stop()
    source, book = Source({"a": 10**6}, bounded=False), Book()
    run(source, book, stop=stop)
    assert source.log == ["drain"]
    assert delivered(book) == list(range(len(delivered(book))))
    assert len(delivered(book)) >= 3 * 6


def test_a_stop_that_came_before_the_run_delivers_nothing():
    stop, book = Stop(), Book()
    stop.ask("early")
    run(Script({"a": 10**6}, bounded=False), book, stop=stop)
    assert delivered(book) == []


def test_positions_are_acknowledged_only_when_durable_in_order_by_the_reading_thread():
    source, book = Acknowledging({"a": 60, "b": 30}, resume="acknowledge"), Book(commit_seconds=0)
    log = source.log
    book.trouble = lambda event: event == "main.commit" and log.append(None)
    commit = BookWriter.commit

    class Writer(BookWriter):
        def commit(self, progress):
            commit(self, progress)
            log.append(("commit", dict(progress.positions)))

    book.open = lambda schema, scope: _entered(Writer(book, scope.output))
    run(source, book)
    durable, acknowledged = {}, {"a": 0, "b": 0}
    for entry in filter(None, log):
        if entry[0] == "commit":
            durable.update(entry[1])
        elif entry[0] == "acknowledge":
            _, partition, position = entry
            assert acknowledged[partition] < position <= durable[partition]
            acknowledged[partition] = position
    assert acknowledged == {"a": 60, "b": 30}


def test_nothing_is_acknowledged_when_the_commit_fails():
    source = Acknowledging({"a": 60}, resume="acknowledge")
    with pytest.raises(ComponentError):
        run(source, Book(trouble=fails("main.commit", ComponentError("no"), times=99)))
    assert not [entry for entry in source.log if entry[0] == "acknowledge"]


# --- memory and side tables ------------------------------------------------------------------------------------------


class SumHost:
    """A host with memory: the running sum of its partition, and a side table of sums."""

    shared = False
    trouble = None

    @contextmanager
    def open(self):
        yield SumModel(self)


class SumModel:
    def __init__(self, host):
        self.host, self.total, self.notes = host, 0.0, []
        with HOST.open() as model:
            self.signature = model.signature

    def infer(self, records):
        x = records.column("x").to_numpy()
        sums = self.total + np.cumsum(x)
        self.total = float(sums[-1])
        self.notes.append(self.total)
        if self.host.trouble:
            self.host.trouble("infer")
        return pa.record_batch({"y": sums})

    def snapshot(self):
        return repr(self.total).encode()

    def restore(self, state):
        self.total = float(state)

    def side_schemas(self):
        return {"sums": pa.schema([("sum", pa.float64())])}

    def drain(self):
        notes, self.notes = self.notes, []
        return {"sums": pa.record_batch({"sum": pa.array(notes, pa.float64())})}


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_memory_does_not_depend_on_batches_partitions_or_workers(size):
    book = Book()
    run(Script({"a": 20, "b": 9}), book, host=SumHost(), batching=Batching(size), workers=3)
    found = sorted(row["y"] for row in book.rows["main"])
    assert found == sorted([*np.cumsum(range(20)), *np.cumsum(range(9))])


@pytest.mark.parametrize("event", ["main.commit", "main.write", "infer"])
@pytest.mark.parametrize("error", [ComponentError("planted"), TransientError("later")])
@pytest.mark.parametrize("after", [0, 2])
def test_a_memory_survives_failures_with_its_position(event, error, after):
    host, book, source = SumHost(), Book(commit_seconds=0), Script({"a": 20}, step=2)
    (host if event == "infer" else book).trouble = fails(event, error, after=after)
    for _ in range(2):
        try:
            run(source, book, host=host, batching=Batching(2), side={"sums": book})
        except ComponentError as found:
            assert found is error  # noqa: PT017 - the second round must go well
    assert [row["y"] for row in book.rows["main"]] == list(np.cumsum(range(20)))
    assert float(book.progress["main"].states["a"]) == sum(range(20))
    sums = {row["sum"] for row in book.rows["side/sums"]}  # one for each call, whatever it was asked
    assert sums <= set(np.cumsum(range(20)).astype(float))
    assert sum(range(20)) in sums


def test_a_stateful_stream_commits_while_it_runs():
    stop, book = Stop(), Book(commit_seconds=0)

    def enough(event):
        if event == "main.committed" and len(book.commits) > 5:
            stop.ask("enough")

    book.trouble = enough
    run(Script({"a": 10**6}, bounded=False), book, host=SumHost(), stop=stop)
    assert len(book.commits) > 5
    assert book.commits[0][2] < 10**5


def test_a_stream_whose_model_is_at_work_is_not_idle(monkeypatch):
    """It had nothing at first; while the model is busy with what came then, more waits to be read."""
    sizes, reads, at_work, looks = {"a": 0}, [], threading.Event(), threading.Semaphore(0)
    quiet = Session._quiet

    def look(self, lanes):
        if at_work.is_set():
            looks.release()
        return at_work.is_set() and quiet(self, lanes)  # a slow machine may not have come so far

    def grow(event):
        reads.append(event)
        if len(reads) > 50:  # its lane has waited for half a second
            sizes["a"] = 100

    def think(event):
        if not at_work.is_set():
            at_work.set()
            assert all(looks.acquire(timeout=60) for _ in range(3))

    monkeypatch.setattr(Session, "_quiet", look)
    monkeypatch.setattr("mlinfer._engine._session.ASK_AGAIN_SECONDS", 0.3)
    host, book = SumHost(), Book(commit_seconds=0)
    host.trouble = think
    source = Script(sizes, bounded=False, step=1, trouble=grow)
    run(source, book, host=host, batching=Batching(1), until="idle")
    assert len(book.rows["main"]) == 100


# --- records that a destination refuses ------------------------------------------------------------------------------


@dataclass(eq=False)
class Picky(Book):
    """Refuses some ids, when they are written or only when they are committed."""

    refuses: frozenset = frozenset()
    when: str = "write"

    @contextmanager
    def open(self, schema, scope):
        with super().open(schema, scope) as writer:
            yield PickyWriter(self, scope.output) if scope.output == "main" else writer


class PickyWriter(BookWriter):
    def write(self, batch):
        self.refuse(batch.records.column("id").to_pylist(), "write")
        super().write(batch)

    def commit(self, progress):
        rows, self.buffer = self.buffer, []
        self.refuse([row["id"] for row in rows], "commit")
        self.buffer = rows
        super().commit(progress)

    def refuse(self, ids, when):
        bad = [row for row, n in enumerate(ids) if n in self.book.refuses]
        if bad and self.book.when in {when, "both"}:
            raise RecordErrors(bad, "too_odd", "an odd id")


@pytest.mark.parametrize("when", ["write", "commit"])
@pytest.mark.parametrize("commit_seconds", [0, 1])
@pytest.mark.parametrize("refuses", [{0}, {4, 5, 6}, {19}, set(range(20))])
def test_what_a_destination_refuses_becomes_a_reject_and_the_others_are_delivered_once(
    when, commit_seconds, refuses
):
    picky, rejects = Picky(when=when, refuses=frozenset(refuses), commit_seconds=commit_seconds), Book()
    report = run(Script({"a": 20}), picky, rejects=rejects, budget=Budget(ratio=1))
    assert delivered(picky) == [n for n in range(20) if n not in refuses]
    kept = rejects.rows["rejects"]
    assert sorted(int(row["record_id"].rpartition("#")[2]) for row in kept) == sorted(refuses)
    assert {(row["stage"], row["kind"], row["message"]) for row in kept} == {
        ("write", "too_odd", "an odd id")
    }
    assert (report.delivered, report.rejected) == (20 - len(refuses), len(refuses))
    assert picky.progress["main"].positions == {"a": 20}


@pytest.mark.parametrize("when", ["write", "commit"])
def test_a_refused_record_without_a_place_for_it_ends_the_run(when):
    picky = Picky(when=when, refuses=frozenset({4}))
    with pytest.raises(
        RejectsError, match=r"1 bad record and no place for them; the first: record a#4 \(write\): an odd id"
    ):
        run(Script({"a": 20}), picky)
    assert 4 not in picky.progress["main"].positions.values()
    assert len(delivered(picky)) == (picky.progress["main"].positions or {"a": 0})["a"]


@pytest.mark.parametrize("rows", [[], [99], [-1], [0, 0]])
@pytest.mark.parametrize("method", ["write", "commit"])
def test_a_destination_that_refuses_records_it_was_not_given_ends_the_run(rows, method):
    book = Book(trouble=fails(f"main.{method}", RecordErrors(rows, "k", "m"), times=99))
    with pytest.raises(
        ComponentError, match=r"the destination raised RecordErrors for rows .* name rows that it was given"
    ):
        run(Script({"a": 5}), book, rejects=Book())


def test_rejects_are_durable_before_the_position_that_passes_them():
    book = Book(commit_seconds=0)
    source = MemorySource({"id": list(range(50)), "x": [None if n % 5 == 0 else 1.0 for n in range(50)]})
    run(source, book, rejects=book, budget=Budget(ratio=None))
    assert [output for output, _, _ in book.commits][:2] == ["rejects", "main"]
    book = Book(trouble=fails("rejects.commit", ComponentError("full"), times=99))
    with pytest.raises(ComponentError, match="full"):
        run(source, book, rejects=book, budget=Budget(ratio=None))
    assert book.progress["main"].positions == {}


# --- resources -------------------------------------------------------------------------------------------------------


def test_a_slow_destination_holds_the_source_back():
    total, written, most = 2_000_000, [0], [0]
    source = Script({"a": total}, step=20_000)

    class Writer(BookWriter):
        def write(self, batch):
            threading.Event().wait(0.01)
            most[0] = max(most[0], source.given - written[0])
            ids = batch.records.column("id").to_numpy()
            assert ids[0] == written[0]
            written[0] += len(ids)

        def commit(self, progress):
            pass

    book = Book()
    book.open = lambda schema, scope: _entered(Writer(book, scope.output))
    run(source, book, workers=1, batching=Batching(2_000))
    assert written == [total]
    assert most[0] <= 200_000


@pytest.mark.parametrize("trouble", [None, *EVENTS])
@pytest.mark.parametrize("workers", [1, Workers(2, "thread")])
def test_nothing_is_left_running_or_open(trouble, workers):
    gc.collect()
    threads, files = {*threading.enumerate()}, len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    part = Book(), Script({"a": 40, "b": 4})
    if trouble:
        part[trouble.startswith("source")].trouble = fails(trouble, ComponentError("planted"))
    try:
        run(part[1], part[0], workers=workers)
    except ComponentError:
        assert trouble
    # what other tests of this process have left may end at any moment, and more than that is not asked here
    assert {*threading.enumerate()} <= threads
    assert len(os.listdir("/proc/self/fd")) <= files  # noqa: PTH208 - a count


def test_runs_of_a_thread_leave_signal_handlers_alone():
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen = []
    host = FunctionHost(
        lambda x: seen.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]) or x,
        inputs={"x": "float64"}, outputs={"y": "float64"}, takes="numpy", version="1",
    )  # fmt: skip
    thread = threading.Thread(target=lambda: run(Script({"a": 3}), Book(), host=host))
    thread.start()
    thread.join()
    assert seen[0] == before
    run(Script({"a": 3}), Book())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_empty_source_is_a_run_without_records():
    for sizes in ({}, {"a": 0}):
        report = run(Script(sizes), Book())
        assert (report.delivered, report.commits, report.stopped) == (0, 0, None)
    with pytest.raises(ComponentError, match="planted"):
        run(Script({"a": 0}, trouble=fails("source.open", ComponentError("planted"))), Book())


@pytest.mark.timeout(100)
def test_a_lane_that_reads_by_itself_never_waits_for_room_that_only_it_could_make():
    """Batches of 40,000: after one of them there is room for some more records, but not for a second one."""
    names = [f"p{n}" for n in range(2 * (os.cpu_count() or 1) + 2)]
    place = MemoryDestination()
    source = Script(dict.fromkeys(names, 120_000), step=40_000)
    report = InferencePipeline(source, HOST, place, name="p", keep=["id"]).run()
    assert report.delivered == place.table().num_rows == 120_000 * len(names)


def test_batches_whose_categories_one_index_could_not_count_are_not_joined():
    """As pandas' frames bring them: 100 names in the one and 100 others in the next."""
    inbox = Inbox(lambda: 1000, 2**20)
    for start in (0, 100):
        names = pa.array([f"name {number}" for number in range(start, start + 100)])
        column = pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), names)
        batch = pa.record_batch({"name": column})
        inbox.put(Batch(batch, "all", None, RecordIds.ordinals("all", start, 100)))
    inbox.end()
    taken = [inbox.take(1000, 0), inbox.take(1000, 0)]
    assert [name for batch in taken for name in batch.records.column("name").to_pylist()] == [
        f"name {number}" for number in range(200)
    ]
