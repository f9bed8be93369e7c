"""A few bad records are set apart; too many end the run, and what was durable stays."""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import (
    Batch,
    Batching,
    Budget,
    ConfigError,
    DataDestination,
    InferencePipeline,
    RecordErrors,
    RejectsError,
)
from mlinfer._batch import RecordIds
from mlinfer._engine import Answers, Spending
from mlinfer._rejects import Rejected
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import JsonLinesSource, MemorySource

HOST = FunctionHost(
    lambda x: x, inputs={"x": "float64"}, outputs={"y": "float64"}, takes="numpy", version="1"
)


def run(bad, count, *, budget=None, rejects=True):
    x = np.arange(count, dtype=float)
    x[list(bad)] = np.nan
    main, kept = MemoryDestination(), MemoryDestination() if rejects else None
    pipeline = InferencePipeline(
        MemorySource({"x": x}), HOST, main, name="p", rejects=kept, budget=budget, batching=Batching(100)
    )
    return pipeline.run(), main, kept


def test_without_a_place_for_rejects_the_first_one_ends_the_run():
    with pytest.raises(RejectsError) as caught:
        run([3], 10, rejects=False)
    message = str(caught.value)
    assert message.startswith("1 bad record and no place for them; the first: record memory-")
    assert message.endswith(
        "#3 (conform): field 'x': wanted a value (double), found none; name a destination for them with rejects="
    )


def test_rejects_within_the_budget_are_kept_and_counted():
    report, main, rejects = run([3, 5], 10, budget=Budget(count=2))
    assert (report.delivered, report.rejected) == (8, 2)
    assert report.reasons == {("conform", "missing_value"): 2}
    assert main.table().num_rows == 8
    assert rejects.table("rejects")["record"].to_pylist() == ['{"x":"NaN"}', '{"x":"NaN"}']


def test_one_reject_more_than_the_budget_ends_the_run():
    with pytest.raises(
        RejectsError, match=r"budget: wanted at most 2 rejects, found 3; the latest: record .*#"
    ):
        run([3, 5, 7], 10, budget=Budget(count=2))


def test_a_share_of_bad_records_that_tells_of_a_changed_schema_ends_the_run():
    with pytest.raises(
        RejectsError, match=r"wanted at most 5.0% rejects, found 10\.\d% of the last [\d,]+ records"
    ):
        run(range(0, 20_000, 10), 20_000)
    assert run(range(0, 20_000, 25), 20_000)[0].rejected == 800
    assert run(range(0, 20_000, 10), 20_000, budget=Budget(ratio=None))[0].rejected == 2_000


def test_a_short_run_is_not_judged_by_its_share():
    assert run([0, 1, 2], 4)[0].rejected == 3


def test_the_share_of_a_run_shorter_than_the_window_is_judged_at_its_end():
    with pytest.raises(RejectsError) as caught:
        run(range(0, 900, 19), 900)
    assert "wanted at most 5.0% rejects, found 5.3% of the run's 900 records" in str(caught.value)
    assert "by reason: conform missing_value 48" in str(caught.value)
    assert run([0], 20)[0].rejected == 1
    with pytest.raises(RejectsError, match=r"found 10.0% of the run's 20 records"):
        run([0, 1], 20)
    assert run([0, 1], 20, budget=Budget(ratio=0.1))[0].rejected == 2


def test_more_bad_records_than_any_window_may_have_end_a_run_before_it_has_seen_one():
    with pytest.raises(RejectsError, match=r"found 100\.0% of the last \d\d\d? records") as caught:
        run(range(890), 900)
    assert not str(caught.value).endswith("missing_value 890")


@pytest.mark.parametrize("start", [30_000, 62_500])
def test_many_bad_records_in_a_row_end_the_run_however_many_good_ones_share_their_batch(start):
    with pytest.raises(RejectsError) as caught:
        run(range(start, start + 2_500), 65_000)
    assert "found 100.0% of the last 1,000 records; the latest" in str(caught.value)
    assert str(caught.value).endswith("by reason: conform missing_value 2,500")
    assert run(range(0, 65_000, 26), 65_000)[0].rejected == 2_500


def test_lines_of_a_file_that_cannot_be_decoded_count_where_they_stand(tmp_path):
    def lines(bad):
        path = tmp_path / "lines.jsonl"
        path.write_text("".join("{oops\n" if n in bad else f'{{"x": {n}}}\n' for n in range(20_000)))
        source = JsonLinesSource(path)
        return InferencePipeline(
            source, HOST, MemoryDestination(), name="p", rejects=MemoryDestination()
        ).run()

    assert lines(range(0, 20_000, 25)).rejected == 800
    with pytest.raises(RejectsError, match=r"found 10.0% of the last 1,000 records"):
        lines(range(7_000, 7_100))


@dataclass(frozen=True)
class Picky(DataDestination):
    """Refuses some answers, when they are written or when they are committed."""

    bad: range
    at: str

    @contextmanager
    def open(self, schema, scope):
        yield PickyWriter(self)


class PickyWriter:
    def __init__(self, recipe):
        self.recipe, self.held = recipe, []

    def write(self, batch):
        self.refuse("write", batch.records["y"].to_pylist())
        self.held += batch.records["y"].to_pylist()

    def commit(self, progress):
        held, self.held = self.held, []
        self.refuse("commit", held)

    def refuse(self, at, values):
        rows = [n for n, value in enumerate(values) if value in self.recipe.bad]
        if at == self.recipe.at and rows:
            raise RecordErrors(rows, "refused", "no")


@pytest.mark.parametrize("at", ["write", "commit"])
def test_what_the_destination_refuses_counts_where_it_stands(at):
    def run(bad):
        source = MemorySource({"x": np.arange(20_000.0)})
        main = Picky(bad, at)
        return InferencePipeline(source, HOST, main, name="p", rejects=MemoryDestination()).run()

    with pytest.raises(
        RejectsError, match=r"found [56].\d% of the last 1,000 records; .* write refused \d\d$"
    ):
        run(range(7_000, 7_060))
    assert run(range(7_000, 7_050)).rejected == 50


def answers(good, bad):
    ids = RecordIds.ordinals("p", 0, bad)
    group = (Rejected("p", "infer", ids, ["k"] * bad, ["m"] * bad),) if bad else ()
    return Answers(Batch(pa.record_batch({"y": [0.0] * good}), "p", 1), group)


def test_the_share_is_that_of_the_last_records():
    spending = Spending(Budget(ratio=0.1, window=100), rejects_kept=True)
    for _ in range(10):
        spending.spend(answers(50, 0))
    spending.spend(answers(45, 5))
    with pytest.raises(RejectsError, match=r"found 15.0% of the last 100 records"):
        spending.spend(answers(40, 10))


def test_what_earlier_attempts_have_made_durable_counts_once():
    spending = Spending(Budget(count=10), rejects_kept=True, already=8)
    spending.spend(answers(0, 2))
    with pytest.raises(RejectsError, match="at most 10 rejects, found 11"):
        spending.spend(answers(0, 1))


@pytest.mark.parametrize("wrong", [{"ratio": 10}, {"ratio": -0.1}, {"count": -1}, {"window": 0}])
def test_a_budget_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match="wanted a ratio from 0 to 1"):
        Budget(**wrong)
