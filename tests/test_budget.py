"""A few bad records are set apart; too many end the run, and what was durable stays."""

import numpy as np
import pyarrow as pa
import pytest

from mlinfer import Batch, Batching, Budget, ConfigError, InferencePipeline, RejectsError
from mlinfer._batch import RecordIds
from mlinfer._engine import Answers, Spending
from mlinfer._rejects import Rejected
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

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
        RejectsError, match=r"wanted at most 5.0% rejects, found 10.0% of the last [\d,]+ records"
    ):
        run(range(0, 20_000, 10), 20_000)
    assert run(range(0, 20_000, 25), 20_000)[0].rejected == 800
    assert run(range(0, 20_000, 10), 20_000, budget=Budget(ratio=None))[0].rejected == 2_000


def test_a_short_run_is_not_judged_by_its_share():
    assert run([0, 1, 2], 4)[0].rejected == 3


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
