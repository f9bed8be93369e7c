"""Bad records are data: they are set apart with the reason, counted against a budget, and replayed after a repair."""

from contextlib import chdir
from tempfile import TemporaryDirectory

import mlinfer
from mlinfer import Budget, Choice, InferencePipeline, RejectsError
from mlinfer.destinations import SqlDestination
from mlinfer.sources import MemorySource

ORDERS = [
    {"id": n, "price": None if n == 3 else float(n), "count": 0 if n % 25 == 7 else n} for n in range(100)
]


@mlinfer.host(inputs={"price": "double", "count": "int64"}, outputs={"each": "double"})
def price_each(records):
    rows = records.to_pylist()
    return {
        "each": [row["price"] / row["count"] for row in rows]
    }  # fails for a whole batch; mlinfer finds the culprits


@mlinfer.host(inputs={"price": "double", "count": "int64"}, outputs={"each": "double"})
def repaired(records):
    return {"each": [row["price"] / max(row["count"], 1) for row in records.to_pylist()]}


def pipeline(host, name, budget, on_change="stop"):
    place = f"sqlite:///{name}.db"
    return InferencePipeline(
        MemorySource(ORDERS), host, SqlDestination(place, table="prices"), name=name, keep=["id"], on_change=on_change,
        rejects=SqlDestination(place, table="rejects"), budget=budget, require="exactly-once",
    )  # fmt: skip


def main():
    try:
        pipeline(price_each, "strict", Budget(count=2)).run()
    except RejectsError as error:
        print(error)  # budget: wanted at most 2 rejects, found ...

    report = pipeline(price_each, "orders", Budget(ratio=0.1)).run()
    print(report)  # 94 delivered, 6 rejected, exactly-once
    print(report.reasons["infer", "model_error"])  # 5

    # The same as `mlinfer rejects replay orders.toml --kind model_error`: under their own ids, once.
    # another model, on purpose
    mended = pipeline(repaired, "orders", Budget(ratio=0.1), on_change="continue")
    print(mended.replay(Choice(kind="model_error")))  # 5 delivered, 0 rejected, exactly-once
    print(mended.rejected()["kind"].to_pylist())  # ['missing_value']


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
