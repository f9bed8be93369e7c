"""The guarantee follows from what the parts can do, the weakest counts, and `require` refuses before a run begins."""

from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pytest

from mlinfer import Checkpoint, ConfigError, DataDestination, DataSource, GuaranteeError, InferencePipeline
from mlinfer.destinations import (
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    SqlDestination,
    StdoutDestination,
)
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource


@dataclass(frozen=True)
class Source(DataSource):
    resume: str = "seek"

    def schema(self):
        return pa.schema([("x", pa.float64())])

    def open(self, partition, after, wanted):
        raise AssertionError("a source was opened")


@dataclass(frozen=True)
class Destination(DataDestination):
    transactional: bool = False
    keyed: bool = False
    store: str | None = None
    number: int = 0

    def open(self, schema, scope):
        raise AssertionError("a destination was opened")


HOST = FunctionHost(lambda x: x, inputs={"x": pa.float64()}, outputs={"y": pa.float64()}, takes="numpy")


def plan(resume="seek", main=None, host=HOST, **more):
    return InferencePipeline(
        Source(resume), host, main or Destination(transactional=True), name="p", **more
    ).explain()


@pytest.mark.parametrize(
    ("resume", "row"),  # transactional, keyed, both, neither
    [
        ("seek", ["exactly-once", "exactly-once", "exactly-once", "at-least-once"]),
        ("acknowledge", ["at-least-once", "exactly-once", "exactly-once", "at-least-once"]),
        ("none", ["at-most-once", "at-most-once", "at-most-once", "at-most-once"]),
    ],
)
def test_the_table_of_guarantees(resume, row):
    found = [
        str(plan(resume, Destination(t, k)).guarantee)
        for t, k in ((True, False), (False, True), (True, True), (False, False))
    ]
    assert found == row


MAIN = Destination(transactional=True, store="db")


@pytest.mark.parametrize(
    ("rejects", "level", "why"),
    [
        (Destination(transactional=True, store="db", number=1), "exactly-once", "rejects: written in the main output's own transaction"),
        (Destination(transactional=True, store="other"), "at-least-once", "rejects: stored just before the main output, in another transaction; a crash in between repeats records"),
        (Destination(transactional=True), "at-least-once", "rejects: stored just before"),
        (Destination(keyed=True), "exactly-once", "rejects: a record delivered again overwrites itself by its key"),
        (Destination(), "at-least-once", "rejects: records are appended without progress, a crash repeats the last ones"),
    ],
)  # fmt: skip
def test_rejects_weaken_the_guarantee_unless_they_share_the_transaction_or_have_a_key(rejects, level, why):
    found = plan(main=MAIN, rejects=rejects)
    assert str(found.guarantee) == level
    assert why in str(found)


class Model:
    """A model with a memory and a side table."""

    signature = None

    def infer(self, records):
        return records

    def snapshot(self):
        return b""

    def restore(self, state):
        pass

    def side_schemas(self):
        return {"monitor": pa.schema([("n", pa.int64())])}

    def drain(self):
        return {}


@dataclass(frozen=True)
class StatefulHost:
    shared = False

    @contextmanager
    def open(self):
        with HOST.open() as model:
            found = Model()
            found.signature = model.signature
            yield found


@pytest.mark.parametrize(
    ("resume", "main", "checkpoint", "level"),
    [
        ("seek", Destination(transactional=True), None, "exactly-once"),
        ("seek", Destination(keyed=True), Checkpoint("here"), "exactly-once"),
        ("seek", Destination(keyed=True), None, "at-least-once"),
        ("acknowledge", Destination(keyed=True), Checkpoint("here"), "at-least-once"),
    ],
)
def test_memory_needs_a_place_beside_the_position(resume, main, checkpoint, level):
    found = plan(resume, main, StatefulHost(), checkpoint=checkpoint).guarantee
    assert str(found) == level
    lost = "the host's memory is lost in a crash: nothing stores it with the position"
    assert (lost in found.reasons) == (level == "at-least-once")


def test_side_outputs_count_as_well():
    found = plan(main=MAIN, host=StatefulHost(), side={"monitor": Destination()}).guarantee
    assert str(found) == "at-least-once"
    assert (
        "side/monitor: records are appended without progress, a crash repeats the last ones" in found.reasons
    )


def test_a_weaker_guarantee_than_required_is_refused_before_anything_is_opened():
    pipeline = InferencePipeline(Source(), HOST, Destination(), name="p", require="exactly-once")
    message = (
        "require: wanted exactly-once, found at-least-once: main: nothing keeps the progress: every run begins anew; "
        "name a checkpoint; choose other parts or require='at-least-once'"
    )
    for verb in (pipeline.run, pipeline.check):
        with pytest.raises(GuaranteeError) as caught:
            verb()
        assert str(caught.value) == message
    assert str(pipeline.explain().guarantee) == "at-least-once"


def test_a_guarantee_that_does_not_exist_is_refused_at_once():
    with pytest.raises(ConfigError) as caught:
        InferencePipeline(Source(), HOST, Destination(), require="twice")
    assert (
        str(caught.value) == "require: wanted one of at-most-once, at-least-once, exactly-once, found 'twice'"
    )


def test_a_name_is_needed_where_progress_is_kept():
    for parts in ({"destination": MAIN}, {"destination": Destination(), "checkpoint": Checkpoint("here")}):
        pipeline = InferencePipeline(Source(), HOST, **parts)
        with pytest.raises(
            ConfigError, match=r'found none; Destination keeps progress under it, .* name="\.\.\."'
        ):
            pipeline.run()


def test_one_place_for_progress_is_enough():
    with pytest.raises(ConfigError, match="stores progress with its records; leave checkpoint= out"):
        plan(checkpoint=Checkpoint("here"))


@pytest.mark.parametrize(
    "place",
    [
        lambda folder: SqlDestination(f"sqlite:///{folder}/out.db", table="scores"),
        lambda folder: ParquetDestination(folder / "out"),
        lambda folder: JsonLinesDestination(folder / "out.jsonl"),
    ],
)
def test_one_place_for_two_outputs_is_refused_by_check_and_run(tmp_path, place):
    pipeline = InferencePipeline(Source(), HOST, place(tmp_path), name="p", rejects=place(tmp_path))
    for verb in (pipeline.explain, pipeline.check, pipeline.run):
        with pytest.raises(
            ConfigError, match=r"rejects: wanted a place of its own, found .*, where main goes"
        ):
            verb()
    assert not list(tmp_path.iterdir())


def test_a_destination_of_anybodys_says_whether_two_outputs_can_lie_there():
    @dataclass(frozen=True)
    class OneFile(Destination):
        holds_one_output = True

    assert plan(main=Destination(keyed=True), rejects=Destination(keyed=True))
    with pytest.raises(ConfigError, match="rejects: wanted a place of its own"):
        plan(main=OneFile(keyed=True), rejects=OneFile(keyed=True))
    assert plan(main=OneFile(keyed=True), rejects=OneFile(keyed=True, number=1))


@pytest.mark.parametrize("place", [StdoutDestination, MemoryDestination])
def test_what_keeps_nothing_apart_may_show_two_outputs(place):
    shown = place()
    InferencePipeline(Source(), HOST, shown, name="p", rejects=shown).check()


def test_without_progress_every_run_delivers_all_again_and_the_plan_says_so(capsys):
    source = MemorySource({"x": [1.0, 2.0]})
    pipeline = InferencePipeline(source, HOST, StdoutDestination(), name="p", rejects=MemoryDestination())
    assert [pipeline.run().delivered for _ in range(2)] == [2, 2]
    assert capsys.readouterr().out.count("\n") == 4
    why = "nothing keeps the progress: every run begins anew; name a checkpoint"
    assert pipeline.explain().guarantee.reasons == (f"main: {why}", f"rejects: {why}")
    kept = plan(main=Destination(), checkpoint=Checkpoint("here")).guarantee
    assert kept.reasons == ("main: records are appended without progress, a crash repeats the last ones",)
