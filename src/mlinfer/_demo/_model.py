"""Will this flight arrive more than 15 minutes late? A small model, and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LATE_MINUTES = 15
FEATURES = ("dep_delay", "distance", "sched_dep_minute")
"""What is known when the plane takes off."""

RESAMPLES = 200


def arrived(path: Path) -> pa.Table:
    """The flights of a file that have arrived; cancelled and diverted ones have no outcome to learn from."""
    found = pq.read_table(path)
    return found.filter(pc.is_valid(found["arr_delay"]))


def _late(flights: pa.Table) -> np.ndarray:
    return flights["arr_delay"].to_numpy() > LATE_MINUTES  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Quality:
    """ROC AUC on `flights` unseen flights, with a bootstrap interval of 95 %, and the share that was late."""

    flights: int
    auc: float
    low: float
    high: float
    base_rate: float


def train(flights: pa.Table) -> Any:
    """Fit the model."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.column_stack([column.to_numpy() for column in example(flights).columns])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return model.fit(features, np.where(_late(flights), "late", "on_time"))


def example(flights: pa.Table) -> pa.Table:
    """The features of some flights, as the model takes them."""
    return pa.table({name: flights[name].cast(pa.float64()) for name in FEATURES})


def quality(scores: np.ndarray, flights: pa.Table) -> Quality:
    """How well `scores` (n), the probabilities of being late, tell the late flights (n) from the others."""
    from sklearn.metrics import roc_auc_score

    late = _late(flights)
    dice = np.random.default_rng(2013)
    draws = dice.integers(0, len(scores), (RESAMPLES, len(scores)))
    resampled = [roc_auc_score(late[draw], scores[draw]) for draw in draws]
    low, high = np.quantile(resampled, [0.025, 0.975])
    auc = roc_auc_score(late, scores)
    return Quality(len(scores), float(auc), float(low), float(high), float(late.mean()))
