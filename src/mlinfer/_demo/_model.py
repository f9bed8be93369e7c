"""Will this flight arrive more than 15 minutes late? A small model, trained and confirmed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import mlinfer
from mlinfer.lifecycle import ByTime, Training

LATE_MINUTES = 15
FEATURES = ("dep_delay", "distance", "sched_dep_minute")
"""What is known when the plane takes off."""


def train(path: Path) -> Training:
    """Learn from the earlier flights of January to July, confirm on the later ones, save the model."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return mlinfer.train(
        flights(), make_pipeline(StandardScaler(), LogisticRegression()), target="late", features=FEATURES,
        split=ByTime("time", key="flight_id"), accept={"roc_auc": 0.8}, to=path,
    )  # fmt: skip


def flights() -> pa.Table:
    """January to July, and whether each flight was late: null, and left out, where it never arrived."""
    with shipped("train.parquet") as first, shipped("unseen.parquet") as last:
        found = pa.concat_tables([pq.read_table(first), pq.read_table(last)])
    late = pc.greater(found["arr_delay"], LATE_MINUTES)
    return found.append_column("late", pc.if_else(late, "late", "on_time"))


def shipped(name: str) -> AbstractContextManager[Path]:
    """A file that travels with mlinfer, as a path while the block runs."""
    return as_file(files("mlinfer._demo") / "data" / name)
