"""Bad records are data: they are set apart with the reason, counted against a budget, and tried again once mended."""

import json
import sqlite3
from contextlib import chdir, closing
from tempfile import TemporaryDirectory

import mlinfer
from mlinfer import Budget, InferencePipeline, RejectsError
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


def pipeline(source, name, budget):
    place = f"sqlite:///{name}.db"
    return InferencePipeline(
        MemorySource(source), price_each, SqlDestination(place, table="prices"), name=name, keep=["id"],
        rejects=SqlDestination(place, table="rejects"), budget=budget, require="exactly-once",
    )  # fmt: skip


def main():
    try:
        pipeline(ORDERS, "strict", Budget(count=2)).run()
    except RejectsError as error:
        print(error)  # budget: wanted at most 2 rejects, found ...

    report = pipeline(ORDERS, "orders", Budget(count=10)).run()
    print(report)  # 94 delivered, 6 rejected, exactly-once
    print(report.reasons["infer", "model_error"])  # 5

    # The record as it was read is in the reject; mend it, and answer it by the same model.
    with closing(sqlite3.connect("orders.db")) as connection:
        found = connection.execute("SELECT record FROM rejects WHERE kind = 'model_error'").fetchall()
    mended = [json.loads(record) | {"count": 1} for (record,) in found]
    print(pipeline(mended, "mended", Budget(count=0)).run())  # 5 delivered, 0 rejected, exactly-once


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
