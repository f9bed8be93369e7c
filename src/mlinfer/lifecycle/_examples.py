"""The examples that a model is trained on and confirmed with, and what is to be done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import ConfigError, chosen_rows
from mlinfer.lifecycle._fitting import is_plain_number, truth_of
from mlinfer.lifecycle._records import digest_of, read
from mlinfer.lifecycle._splits import SIDES, TEST, TRAIN, ByTime, Split, divided, shared_keys


@dataclass(frozen=True)
class Plan:
    """What was asked for, checked as far as it can be before a record is read."""

    estimator: Any
    target: str
    features: tuple[str, ...]
    split: Split
    metrics: tuple[str, ...]
    accept: Mapping[str, float]
    groups: str | None
    sample_weight: str | None
    perfect: tuple[str, ...]
    seed: int
    path: Path
    trusted: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        more = [
            self.target,
            self.split.column,
            getattr(self.split, "key", None),
            self.groups,
            self.sample_weight,
        ]
        return list(dict.fromkeys([*self.features, *(name for name in more if name)]))


@dataclass(frozen=True)
class Data:
    """The records with an outcome: their sides, outcomes and weights."""

    table: pa.Table
    sides: np.ndarray
    truth: np.ndarray
    weights: np.ndarray
    without_target: int
    digest: str

    def of(self, side: int) -> tuple[pa.Table, np.ndarray]:
        """The records of a side, and their outcomes."""
        return chosen_rows(self.table, self.sides == side), self.truth[self.sides == side]

    def features(self, plan: Plan, side: int) -> tuple[pa.Table, np.ndarray]:
        """The features of a side's records, and their outcomes."""
        table, truth = self.of(side)
        return table.select(list(plan.features)), truth


def data_of(plan: Plan, source: Any, *, classes: bool) -> Data:
    """Read and divide the records.

    Raises ConfigError: a side is empty, a key is on several sides, or outcomes or weights are not what they must be.
    """
    everything = read(source, plan.columns)
    outcome = everything[plan.target]
    there = pc.is_valid(outcome)
    if pa.types.is_floating(outcome.type):
        there = pc.and_(there, pc.is_finite(outcome.fill_null(0)))
    table = chosen_rows(everything, there)
    sides = divided(table, plan.split)
    if (
        isinstance(plan.split, ByTime)
        and plan.split.key
        and (count := shared_keys(table, sides, plan.split.key))
    ):
        msg = f"split: wanted every {plan.split.key!r} on one side, found {count:,} on several; split by it: ByGroup({plan.split.key!r})"
        raise ConfigError(msg)
    truth = truth_of(table[plan.target], classes=classes)
    weights = (
        np.ones(len(truth))
        if plan.sample_weight is None
        else _weights(table[plan.sample_weight], plan.sample_weight, sides)
    )
    return Data(table, sides, truth, weights, len(everything) - len(table), digest_of(table))


def _weights(column: pa.ChunkedArray, name: str, sides: np.ndarray) -> np.ndarray:
    if not is_plain_number(column.type):
        msg = f"sample_weight: wanted numbers in {name!r}, found {column.type}"
        raise ConfigError(msg)
    found = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), float)
    if wrong := int(np.sum(~(np.isfinite(found) & (found >= 0)))):
        msg = f"sample_weight: wanted a number of 0 or more in {name!r} for every record, found {wrong:,} without; leave these records out"
        raise ConfigError(msg)
    for side in (TRAIN, TEST):
        if not found[sides == side].any():
            msg = f"sample_weight: wanted some above 0 in {name!r} on the side {SIDES[side]!r}, found zeros alone; choose another split or share"
            raise ConfigError(msg)
    return found
