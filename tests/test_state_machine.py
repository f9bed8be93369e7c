"""Whatever happens to a pipeline, and in whatever order: after the next clean run its output is what it must be.

Hypothesis feeds records, good and bad, kills runs at failpoints, makes parts fail for a moment or until they are healed, asks runs to stop and
changes the model, in sequences of its own; the outputs are read without mlinfer. `MLINFER_STATE_MACHINE=N` tries N
sequences for each kind of output instead of a few that are always the same.
"""

import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mlinfer import (
    Batch,
    Budget,
    ChangedError,
    ComponentError,
    DataSource,
    EndOfInput,
    InferencePipeline,
    RecordIds,
    Retry,
    Stop,
    TransientError,
)
from mlinfer import _failpoints as failpoints
from mlinfer.destinations import JsonLinesDestination, ParquetDestination, SqlDestination
from mlinfer.hosts import FunctionHost

PLACES = """source.open source.read.before source.read.after host.infer.before host.infer.after dest.write.before
    dest.write.partial dest.write.after dest.begin dest.anew dest.commit.before dest.commit.after progress.write.tmp
    progress.fsync progress.rename rejects.write.before rejects.write.after""".split()
PASSING = ["source.open", "source.read.before", "source.read.after", "dest.write.before", "dest.begin"]
SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64())])
STEP = 2
ON_CHANGE = st.sampled_from(["stop", "continue", "restart"])


class Killed(BaseException):
    """Nothing in the engine handles it: what it leaves is what a dead process leaves."""


class Trouble:
    """A failpoint that raises at some hit, once."""

    def __init__(self, error, at):
        self.error, self.at, self.hits = error, at, 0

    def hit(self, dice):
        self.hits += 1
        if self.hits == self.at:
            raise self.error


class Outage(Trouble):
    """A failpoint that raises from some hit on, until it is healed."""

    def hit(self, dice):
        self.hits += 1
        if self.hits >= self.at:
            raise self.error


@dataclass(frozen=True)
class Lists(DataSource):
    """Partitions of records in memory that may grow."""

    content: dict
    resume = "seek"

    def schema(self):
        return SCHEMA

    def partitions(self):
        return sorted(self.content)

    @contextmanager
    def open(self, partition, after, wanted):
        yield ListReader(partition, self.content[partition], after or 0)


class ListReader:
    def __init__(self, partition, rows, start):
        self.partition, self.rows, self.start = partition, rows, start

    def read(self, max_records, timeout):
        taken = self.rows[self.start : self.start + STEP]
        if not taken:
            raise EndOfInput
        ids = RecordIds.ordinals(self.partition, self.start, len(taken))
        self.start += len(taken)
        columns = zip(*taken, strict=True)
        records = pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)
        return Batch(records, self.partition, self.start, ids)


def at_once(kind):
    return type(kind.__name__, (kind,), {"commit_seconds": 0.0})


class Outputs:
    """Where answers and rejects go, and how they are read without mlinfer: rows of (id, y), and ids of rejects."""

    exact_rejects = False

    def __init__(self, folder):
        self.folder = folder


class InSqlite(Outputs):
    exact_rejects = True

    def parts(self):
        url = f"sqlite:///{self.folder}/out.db"
        return at_once(SqlDestination)(url, "answers"), SqlDestination(url, "rejects")

    def rows(self):
        return self.select("SELECT id, y FROM answers ORDER BY rowid", "answers")

    def rejects(self):
        return [row[0] for row in self.select("SELECT record_id FROM rejects", "rejects")]

    def select(self, query, table):
        with closing(sqlite3.connect(self.folder / "out.db")) as database:
            there = database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            return database.execute(query).fetchall() if there else []


class InParquet(Outputs):
    def parts(self):
        return at_once(ParquetDestination)(self.folder / "out"), ParquetDestination(self.folder / "rejects")

    def rows(self):
        return [(row["id"], row["y"]) for row in self.read("out")]

    def rejects(self):
        return [row["record_id"] for row in self.read("rejects")]

    def read(self, name):
        return [
            row
            for file in sorted((self.folder / name).glob("part*.parquet"))
            for row in pq.ParquetFile(file).read().to_pylist()
        ]


class InJsonLines(Outputs):
    def parts(self):
        kind = at_once(JsonLinesDestination)
        return kind(self.folder / "out.jsonl"), JsonLinesDestination(self.folder / "rejects.jsonl")

    def rows(self):
        return [(row["id"], row["y"]) for row in self.read("out.jsonl")]

    def rejects(self):
        return [row["record_id"] for row in self.read("rejects.jsonl")]

    def read(self, name):
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def answer(version, x):
    return version * 10_000.0 + x


class Machine(RuleBasedStateMachine):
    """`allowed` is the model: by record, the versions whose answer it may have. `wrote`: the versions that may have
    committed last (0: nobody has)."""

    kind = None

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.outputs = self.kind(self.folder)
        self.content, self.allowed, self.bad = {}, {}, set()
        self.version, self.wrote, self.crashed = 1, {0}, False
        self.unclean = self.half_anew = False
        self.cut = None

    def teardown(self):
        failpoints._active.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- what happens outside

    @rule(
        partition=st.sampled_from("abc"), good=st.lists(st.booleans() | st.just(True), min_size=1, max_size=7)
    )
    def feed(self, partition, good):
        rows = self.content.setdefault(partition, [])
        for one in good:
            n = "abc".index(partition) * 1000 + len(rows)
            if one:
                self.allowed[n] = set()
            else:
                self.bad.add(f"{partition}#{len(rows)}")
            rows.append((n, float(n) if one else None))

    @precondition(lambda self: not self.cut)
    @rule(place=st.sampled_from(PASSING), passing=st.booleans(), at=st.integers(1, 4))
    def cut_off(self, place, passing, at):
        """Something is down for longer than a run waits for it."""
        self.cut = (place, TransientError if passing else ComponentError, at)

    @precondition(lambda self: self.cut)
    @rule()
    def heal(self):
        self.cut = None

    # --- runs

    def run(self, on_change, *, stop_at=None):
        place, rejects = self.outputs.parts()
        stop, calls, version = Stop(), [0], self.version

        def model(x):
            calls[0] += 1
            if calls[0] == stop_at:
                stop.ask("enough")
            return answer(version, x)

        host = FunctionHost(model, {"x": "float64"}, {"y": "float64"}, takes="numpy", version=str(version))
        InferencePipeline(
            Lists(self.content), host, place, name="p", keep=["id"], rejects=rejects, on_change=on_change,
            budget=Budget(ratio=1.0), retry=Retry(attempts=9, first_wait=0.001, longest_wait=0.001),
        ).run(stop=stop)  # fmt: skip

    def changes(self):
        """Whether the stored progress belongs to another model: yes, no, or (None) nobody knows after a crash."""
        others = self.wrote - {self.version, 0}
        return False if not others else (None if self.wrote & {self.version, 0} else True)

    def chosen(self, on_change):
        """A restart that died in its first commit may have replaced rejects elsewhere, and must be gone on with."""
        return "restart" if self.half_anew else on_change

    def attempt(self, on_change, **how):
        """Run; says whether the model's change was refused."""
        changes = self.changes()
        try:
            self.run(on_change, **how)
        except ChangedError:
            assert on_change == "stop"
            assert changes is not False
            return True
        assert not (on_change == "stop" and changes), "another model went on without a word"
        return False

    def may_have_written(self, on_change):
        if on_change == "stop" and self.changes():
            return
        for versions in self.allowed.values():
            versions.add(self.version)
        self.wrote.add(self.version)

    @precondition(lambda self: self.content and not self.cut)
    @rule(
        on_change=ON_CHANGE,
        swap=st.booleans(),
        passing=st.sampled_from([None, *PASSING]),
        at=st.integers(1, 4),
    )
    def run_to_the_end(self, on_change, swap, passing, at):
        self.version += swap
        on_change = self.chosen(on_change)
        before, changes = self.outputs.rows(), self.changes()
        if passing:
            failpoints._active[passing] = Trouble(TransientError("for a moment"), at)
            self.crashed = True  # as after a crash, rejects in a place of their own may come again
        try:
            refused = self.attempt(on_change)
        finally:
            failpoints._active.clear()
        if refused:
            if not self.crashed:
                assert self.outputs.rows() == before
            return
        self.crashed = self.crashed and not self.outputs.exact_rejects
        if on_change == "restart" and changes:
            self.allowed = {n: {self.version} for n in self.allowed}
        known = {n for n, _ in before}
        for n, versions in self.allowed.items():
            if n not in known or changes is None or self.unclean:
                versions.add(self.version)
        self.unclean = self.half_anew = False
        found = self.outputs.rows()
        if len(found) > len(before) or (on_change == "restart" and changes):
            self.wrote = {self.version}
        else:
            self.wrote = self.wrote | {
                self.version
            }  # perhaps it had nothing but rejects to store, or nothing at all
        self.judge(found)

    @precondition(lambda self: self.content and not self.cut)
    @rule(
        on_change=ON_CHANGE,
        swap=st.booleans(),
        place=st.sampled_from(PLACES),
        at=st.integers(1, 6),
    )
    def run_and_kill(self, on_change, swap, place, at):
        self.version += swap
        on_change = self.chosen(on_change)
        before, changes = self.outputs.rows(), self.changes()
        failpoints._active[place] = Trouble(Killed(), at)
        try:
            self.attempt(on_change)
        except Killed:
            self.crashed = self.unclean = True
            self.half_anew |= on_change == "restart" and not self.outputs.exact_rejects
        finally:
            failpoints._active.clear()
        self.may_have_written(on_change)
        if on_change == "restart" and changes:
            found = self.outputs.rows()
            old = [row for row in found if row in before]
            assert not old or old == found, "answers of two models are there together"

    @precondition(lambda self: self.content and self.cut)
    @rule(on_change=ON_CHANGE, swap=st.booleans())
    def run_while_it_is_cut_off(self, on_change, swap):
        place, kind, at = self.cut
        self.version += swap
        on_change = self.chosen(on_change)
        failpoints._active[place] = Outage(kind("gone"), at)
        try:
            self.attempt(on_change)
        except (ComponentError, TransientError):
            self.half_anew |= on_change == "restart" and not self.outputs.exact_rejects
            self.unclean = True
        finally:
            failpoints._active.clear()
        self.crashed = True
        self.may_have_written(on_change)

    @precondition(lambda self: self.content and not self.cut)
    @rule(on_change=ON_CHANGE, swap=st.booleans(), at=st.integers(1, 4))
    def run_and_stop(self, on_change, swap, at):
        self.version += swap
        on_change = self.chosen(on_change)
        self.attempt(on_change, stop_at=at)
        self.may_have_written(on_change)

    # --- what must be so

    def judge(self, rows):
        counts = Counter(n for n, _ in rows)
        assert set(counts) == set(self.allowed), "lost, or made up"
        assert max(counts.values(), default=1) == 1, "delivered twice"
        for n, y in rows:
            assert y in {answer(version, n) for version in self.allowed[n]}, (
                "an answer of another model or record"
            )
            if len(self.allowed[n]) > 1:
                self.allowed[n] = {int(y // 10_000)}
        for partition in range(3):
            order = [n for n, _ in rows if n // 1000 == partition]
            assert order == sorted(order), "out of order"
        refused = self.outputs.rejects()
        assert set(refused) == self.bad
        if self.outputs.exact_rejects or not self.crashed:
            assert len(refused) == len(self.bad), "rejected twice"

    @invariant()
    def nothing_is_there_twice(self):
        # what a crash left behind its last commit is visible there
        if hasattr(self, "outputs") and self.kind is not InJsonLines:
            counts = Counter(n for n, _ in self.outputs.rows())
            assert max(counts.values(), default=1) == 1


KINDS = (InSqlite, InParquet, InJsonLines)


def machine(kind):
    """The machine for one kind of output."""
    return type(kind.__name__, (Machine,), {"kind": kind})


@pytest.mark.timeout(0 if os.environ.get("MLINFER_STATE_MACHINE") else 180)
@pytest.mark.parametrize("kind", KINDS)
def test_any_sequence_of_events_ends_with_each_answer_once(kind):
    tries = int(os.environ.get("MLINFER_STATE_MACHINE", "0"))
    chosen = settings(
        max_examples=tries or 15, stateful_step_count=12, deadline=None, derandomize=not tries, database=None,
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    run_state_machine_as_test(machine(kind), settings=chosen)
