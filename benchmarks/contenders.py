"""The jobs and who runs them: one script for each contender, called as ``script DATA OUT``.

A script writes its answers under ``OUT/answers`` and the records it could not answer under
``OUT/rejects``, Parquet or JSON lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contender:
    name: str
    script: str
    needs: tuple[str, ...] = ()  # packages without which it is left out

    @property
    def path(self) -> Path:
        return HERE / self.script


@dataclass(frozen=True)
class Job:
    name: str
    title: str
    data: str  # which maker in data.py
    rows: int
    by_hand: str  # the contender others are compared with, beside Polars
    contenders: tuple[Contender, ...]
    sized: bool = True  # may --rows change it?


def reference(script: str, *needs: str, name: str | None = None) -> Contender:
    return Contender(name or script.split("_", 1)[1], f"reference/{script}.py", needs)


def mlinfer(script: str, name: str = "mlinfer") -> Contender:
    return Contender(name, f"jobs/{script}.py", ("mlinfer",))


J1 = (
    mlinfer("mlinfer_j1"),
    mlinfer("mlinfer_j1_sklearn", "mlinfer_sklearn"),
    reference("j1_best_by_hand"),
    reference("j1_careful_loop"),
    reference("j1_naive_loop"),
    reference("j1_polars", "polars"),
    reference("j1_daft", "daft"),
    reference("j1_pandas", "pandas"),
)
J1_BAD = (
    mlinfer("mlinfer_j1"),
    mlinfer("mlinfer_j1_sklearn", "mlinfer_sklearn"),
    reference("j1_careful_loop"),
    reference("j1_naive_loop"),
    reference("j1_bad_polars", "polars", name="polars"),
)
J1_HGB = (
    mlinfer("mlinfer_j1"),
    mlinfer("mlinfer_j1_sklearn", "mlinfer_sklearn"),
    reference("j1_careful_loop"),
    reference("j1_polars", "polars"),
)
J2 = (
    mlinfer("mlinfer_j2"),
    reference("j2_by_hand_orjson", "orjson"),
    reference("j2_by_hand_pyarrow_json", "orjson"),
    reference("j2_polars", "polars"),
    reference("j2_polars_batches", "polars"),
    reference("j2_bytewax", "bytewax", "orjson"),
)
J2_ONE = (
    mlinfer("mlinfer_j2_one"),
    reference("j2_one_by_hand", "orjson", name="by_hand"),
    reference("j2_one_bytewax", "bytewax", "orjson", name="bytewax"),
)
J3 = (
    mlinfer("mlinfer_j3"),
    reference("j3_hand_loop"),
    reference("j3_two_processes"),
)

JOBS = {
    job.name: job
    for job in (
        Job("J1", "wide Parquet, scaler and logistic regression", "J1", 5_000_000, "careful_loop", J1),
        Job("J1-small", "as J1, the cost of starting", "J1", 1_000, "careful_loop", J1, sized=False),
        Job("J1-bad", "as J1, 2 % bad records", "J1-bad", 5_000_000, "careful_loop", J1_BAD),
        Job("J1-hgb", "as J1, 100 trees of histogram boosting", "J1-hgb", 1_000_000, "careful_loop", J1_HGB),
        Job("J2", "JSON lines in batches of 256", "J2", 500_000, "by_hand_orjson", J2),
        Job("J2-one", "JSON lines one at a time, light model", "J2", 100_000, "by_hand", J2_ONE),
        Job("J3", "short texts, TF-IDF and linear classifier", "J3", 200_000, "hand_loop", J3),
    )
}
