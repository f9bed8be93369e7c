"""Flights from Parquet files, through a saved model, into SQLite; a second run finds only what is new."""

import shutil
import sqlite3
from contextlib import chdir, closing
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import SqlDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import ParquetSource

FEATURES = ["dep_delay", "distance", "sched_dep_minute"]


def main(shipped: Path) -> None:
    train(shipped / "train.parquet")
    Path("input").mkdir()
    shutil.copy(shipped / "2013-09.parquet", "input")
    pipeline = InferencePipeline(
        ParquetSource("input/*.parquet", id_column="flight_id"),
        SklearnHost("late.mlinfer"),
        SqlDestination("sqlite:///scores.db", table="scores"),
        name="late-flights",
        keep=["flight_id", "carrier"],
        rejects=SqlDestination("sqlite:///scores.db", table="rejects"),
        require="exactly-once",
    )
    print(pipeline.run())  # 3,348 delivered, 54 rejected, exactly-once
    shutil.copy(shipped / "2013-10.parquet", "input")
    print(pipeline.run())  # 3,609 delivered, 26 rejected, exactly-once
    with closing(sqlite3.connect("scores.db")) as connection:
        print(connection.execute("SELECT count(*) FROM scores WHERE carrier = 'UA'").fetchone())  # (1212,)


def train(path: Path) -> None:
    flights = pq.read_table(path)
    flights = flights.filter(flights["arr_delay"].is_valid())
    features = pa.table({name: flights[name].cast("double") for name in FEATURES})
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(np.column_stack(features.columns), flights["arr_delay"].to_numpy() > 15)
    mlinfer.save(model, "late.mlinfer", example=features.slice(0, 100))


if __name__ == "__main__":
    with as_file(files("mlinfer._demo") / "data") as data, TemporaryDirectory() as folder, chdir(folder):
        main(data)
