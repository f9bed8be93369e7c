"""One bad record never costs the others, and finding it costs little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlinfer import (
    Batching,
    Budget,
    ComponentError,
    InferencePipeline,
    RecordErrors,
    RejectsError,
    TransientError,
    Workers,
)
from mlinfer._isolate import MOST_CALLS, isolate
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource


class Asked:
    """A call that fails for a set of bad rows, and counts."""

    def __init__(self, bad, error=ValueError):
        self.bad, self.error, self.calls = set(bad), error, 0

    def __call__(self, rows):
        self.calls += 1
        if self.bad & set(rows):
            raise self.error("bad record")
        return list(rows)

    def find(self, count):
        try:
            return self(range(count))
        except Exception as failure:  # noqa: BLE001 - as the step does
            return isolate(self, range(count), failure)


@pytest.mark.parametrize("bad", [0, 1, 32_767, 32_768, 65_535])
def test_one_bad_record_in_65536_costs_at_most_34_calls(bad):
    asked = Asked([bad])
    found = asked.find(65_536)
    assert found.rows == [bad]
    assert asked.calls == found.calls <= 34


@given(st.sets(st.integers(0, 63)), st.integers(1, 64))
def test_exactly_the_bad_records_are_refused_and_the_others_answered_in_order(bad, count):
    bad = {row for row in bad if row < count}
    if not bad:
        return
    found = Asked(bad).find(count)
    assert sorted(found.rows) == sorted(bad)
    assert [row for rows, answer in found.answers for row in answer] == [
        row for row in range(count) if row not in bad
    ]
    assert all(list(rows) == answer for rows, answer in found.answers)


@given(st.sets(st.integers(0, 30), min_size=1), st.sets(st.integers(0, 30)))
def test_named_and_unnamed_bad_records_are_told_apart(named, guilty):
    guilty -= named

    def call(rows):
        here = [place for place, row in enumerate(rows) if row in named]
        if here:
            raise RecordErrors(here, "named", "by the model")
        if guilty & set(rows):
            raise ValueError("somewhere")
        return list(rows)

    try:
        call(range(31))
    except RecordErrors as failure:
        found = isolate(call, range(31), failure)
    assert {row for row, kind in zip(found.rows, found.kinds, strict=True) if kind == "named"} == named
    assert {row for row, kind in zip(found.rows, found.kinds, strict=True) if kind == "model_error"} == guilty
    assert [row for _, answer in found.answers for row in answer] == sorted(set(range(31)) - named - guilty)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError, "model_error"),
        (MemoryError, "out_of_memory"),
        (TimeoutError, "timeout"),
        (ChildProcessError, "model_died"),
    ],
)
def test_the_kind_of_a_reject_says_what_happened(error, kind):
    found = Asked([3], error).find(8)
    assert (found.kinds, found.messages) == ([kind], [f"{error.__name__}: bad record"])


@pytest.mark.parametrize("workers", [None, Workers(1, "process")])
def test_the_reject_of_an_error_that_cannot_say_what_it_is_names_its_class(workers):
    rejects = MemoryDestination()
    host = FunctionHost(mute_at_three, {"x": "int64"}, {"y": "int64"}, takes="numpy", version="1")
    InferencePipeline(
        MemorySource({"x": [1, 2, 3]}), host, MemoryDestination(), name="p", rejects=rejects, workers=workers,
        budget=Budget(ratio=1),
    ).run()  # fmt: skip
    assert rejects.table("rejects").column("message").to_pylist() == ["MuteError"]


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def mute_at_three(x):
    if (x == 3).any():
        raise MuteError
    return x


@pytest.mark.parametrize("rows", [[], [8], [-1], [2, 2]])
def test_record_errors_that_name_no_record_of_the_batch_end_the_run(rows):
    with pytest.raises(ComponentError) as caught:
        isolate(len, range(8), RecordErrors(rows, "k", "m"))
    assert str(caught.value) == (
        f"the model raised RecordErrors for rows {rows} of 8; name rows of the batch it was given, each once"
    )


@pytest.mark.parametrize("error", [ComponentError("contract"), TransientError("later")])
def test_errors_that_are_not_about_records_pass_through(error):
    with pytest.raises(type(error)) as caught:
        isolate(len, range(8), error)
    assert caught.value is error


def test_a_model_that_raises_for_all_records_of_a_large_batch_ends_the_run():
    asked = Asked(range(65_536))
    with pytest.raises(
        ComponentError, match=r"4\d{3} calls did not find them all .* error: ValueError: bad record"
    ):
        asked.find(65_536)
    assert MOST_CALLS <= asked.calls < MOST_CALLS + 17


class Down:
    """A model that cannot answer anything, or only some, and counts how often it was asked."""

    def __init__(self, bad=None, error=ValueError, named=False):
        self.bad, self.error, self.named, self.calls = bad, error, named, 0

    def __call__(self, x):
        self.calls += 1
        rows = [n for n, value in enumerate(x) if self.bad is None or value in self.bad]
        if rows and self.named:
            raise RecordErrors(rows, "named", "by the model")
        if rows:
            raise self.error("down")
        return x


def run(model, count, *, rejects=True, **more):
    host = FunctionHost(model, {"x": "double"}, {"y": "double"}, takes="numpy", version="1")
    kept = MemoryDestination()
    pipeline = InferencePipeline(
        MemorySource({"x": np.arange(float(count))}), host, MemoryDestination(), name="p",
        rejects=kept if rejects else None, **more,
    )  # fmt: skip
    return pipeline.run()


@pytest.mark.parametrize("named", [False, True])
def test_without_a_place_for_rejects_the_search_ends_with_the_first_bad_record(named):
    model = Down(named=named)
    with pytest.raises(
        RejectsError, match=r"no place for them; the first: record .*#0 \(infer\): .*rejects="
    ):
        run(model, 1_500, rejects=False)
    assert model.calls <= (2 if named else 14)  # a few are taken first, and more may be under way


def test_the_search_ends_as_soon_as_the_budget_is_spent():
    model = Down()
    with pytest.raises(RejectsError, match=r"at most 2 rejects, found 3; .*; by reason: infer model_error 3"):
        run(model, 1_500, budget=Budget(count=2, ratio=None))
    assert model.calls < 16
    model = Down()
    with pytest.raises(
        RejectsError, match=r"found \d+\.\d% of the last \d+ records; .* infer model_error 51"
    ):
        run(model, 65_536)
    assert model.calls < 120


def test_the_search_goes_on_as_long_as_the_budget_may_hold():
    bad = set(range(0, 3_000, 60))
    report = run(Down(bad), 3_000, budget=Budget(count=50))
    assert (report.delivered, report.rejected) == (2_950, 50)
    with pytest.raises(ComponentError, match=r"batching=Batching\(1000\)"):
        run(Down(set(range(0, 65_536, 50))), 65_536)
    assert run(Down(set(range(0, 65_536, 50))), 65_536, batching=Batching(1000)).rejected == 1_311


def test_on_data_in_hand_all_bad_records_are_named():
    host = FunctionHost(Down(set(range(30))), {"x": "double"}, {"y": "double"}, takes="numpy", version="1")
    pipeline = InferencePipeline(
        MemorySource({"x": [0.0]}), host, MemoryDestination(), budget=Budget(count=2)
    )
    with pytest.raises(RecordErrors) as caught:
        pipeline.infer({"x": np.arange(40.0)})
    assert caught.value.rows == list(range(30))


def test_a_model_that_takes_too_long_again_and_again_ends_the_run_and_names_records():
    model = Down(error=TimeoutError)
    with pytest.raises(ComponentError) as caught:
        run(model, 900)
    assert model.calls < 200  # over one record, then a few, and 40 times over one batch
    assert "took too long 40 times over one batch, " in str(caught.value)
    assert "slow records found (the first: memory" in str(caught.value)
    slow = Down({3.0, 40_000.0}, TimeoutError)
    assert run(slow, 65_536).rejected == 2
