"""Which records are fitted on, which calibrate, and which stay unseen until the end."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlinfer import ConfigError

TRAIN, CALIBRATION, TEST = 0, 1, 2
SIDES = ("train", "calibration", "test")


@dataclass(frozen=True)
class _Split:
    column: str
    test: float = 0.2
    calibration: float = 0.1

    by: ClassVar[str]

    def __post_init__(self) -> None:
        for name in ("test", "calibration"):
            if not isinstance(share := getattr(self, name), Real):
                msg = f"split: wanted a number as the share {name}, such as 0.2, found {share!r:.100}"
                raise ConfigError(msg)
        if not (0 < self.test < 1 and 0 <= self.calibration < 1 and self.test + self.calibration < 1):
            msg = f"split: wanted shares between 0 and 1 that leave something to train on, found test={self.test}, calibration={self.calibration}"
            raise ConfigError(msg)

    @property
    def groups_of_records(self) -> bool:
        """Whether records of one group are alike, so that a group counts as one draw when margins are computed."""
        return False


@dataclass(frozen=True)
class ByKey(_Split):
    """By a hash of a key: a record never changes sides, whatever other records come or go.

    `column` holds the key; all records of one key are on one side. `test` and `calibration` are shares of the keys, kept
    on average: the hash decides, not a count.

    >>> ByKey("flight_id", test=0.25)
    ByKey(column='flight_id', test=0.25, calibration=0.1)
    """

    by = "key"

    def sides(self, table: pa.Table) -> np.ndarray:
        """0 (train), 1 (calibration) or 2 (test) for each record. Raises ConfigError: a key is missing."""
        return _hashed(table, self)


@dataclass(frozen=True)
class ByGroup(_Split):
    """By a hash of a group (a customer, a patient, a site): its records are all on one side.

    It answers how well the model does in groups that it has not seen. Records of one group are alike, so error margins
    come from drawing groups, not records.

    >>> ByGroup("carrier").by
    'group'
    """

    by = "group"

    @property
    def groups_of_records(self) -> bool:
        """Yes."""
        return True

    def sides(self, table: pa.Table) -> np.ndarray:
        """0 (train), 1 (calibration) or 2 (test) for each record. Raises ConfigError: a group is missing."""
        return _hashed(table, self)


@dataclass(frozen=True)
class ByTime(_Split):
    """By time: the latest records test, those before them calibrate, the earliest are trained on.

    `column` is a timestamp, a date or a number; records of one moment are on one side, the later one. `key` names a column
    that must not have the same value on two sides.

    >>> ByTime("departed", test=0.5, calibration=0)
    ByTime(column='departed', test=0.5, calibration=0, key=None)
    """

    key: str | None = None
    by = "time"

    def sides(self, table: pa.Table) -> np.ndarray:
        """0 (train), 1 (calibration) or 2 (test) for each record. Raises ConfigError: this is no time, or one is missing."""
        _check_present(table, self.column)
        column = table[self.column]
        if pa.types.is_interval(column.type) or not (
            pa.types.is_temporal(column.type)
            or pa.types.is_integer(column.type)
            or pa.types.is_floating(column.type)
        ):
            msg = f"split: wanted times or numbers in {self.column!r}, found {column.type}"
            raise ConfigError(msg)
        moments = column.to_numpy()
        inside = np.sort(moments)
        sides = np.full(len(moments), TRAIN, np.int8)
        for side, share in ((CALIBRATION, self.test + self.calibration), (TEST, self.test)):
            if side == CALIBRATION and not self.calibration:
                continue
            sides[moments >= inside[len(inside) - max(1, math.floor(share * len(inside)))]] = side
        return sides


Split = ByKey | ByGroup | ByTime


def divided(table: pa.Table, split: Split) -> np.ndarray:
    """The side of each record. Raises ConfigError: a side that was asked for is empty."""
    if table.num_rows == 0:
        msg = "train: wanted records, found none"
        raise ConfigError(msg)
    sides = split.sides(table)
    for side, name in enumerate(SIDES):
        if not np.any(sides == side) and (side != CALIBRATION or split.calibration):
            msg = f"split: wanted records on the side {name!r}, found none of {table.num_rows:,}; give more records (or groups), or another share"
            raise ConfigError(msg)
    return sides


def _hashed(table: pa.Table, split: _Split) -> np.ndarray:
    check_single("split", split.column, table[split.column].type)
    _check_present(table, split.column)
    encoded = table[split.column].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    places = np.array([_place(value) for value in encoded.dictionary.to_pylist()])
    sides = np.full(len(places), TRAIN, np.int8)
    sides[places < split.test + split.calibration] = CALIBRATION
    sides[places < split.test] = (
        TEST  # first, so that another share for calibration moves nothing in or out of the test
    )
    chosen: np.ndarray = sides[encoded.indices.to_numpy()]
    return chosen


def _place(value: object) -> float:
    """Where a value lies between 0 and 1: the same in every process and version, and for 1 and 1.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    digest = hashlib.blake2b(str(value).encode(), digest_size=8, person=b"mlinfer split").digest()
    return int.from_bytes(digest, "big") / 2**64


def check_single(argument: str, column: str, kind: pa.DataType) -> None:
    """Raises ConfigError: the values of a column are lists or structs, of which no two need be alike."""
    if pa.types.is_nested(kind):
        msg = (
            f"{argument}: wanted single values in {column!r}, found {kind}; name a column of texts or numbers"
        )
        raise ConfigError(msg)


def _check_present(table: pa.Table, column: str) -> None:
    values = table[column]
    missing = values.null_count
    if pa.types.is_floating(values.type):
        missing += int(np.isnan(values.drop_null().to_numpy()).sum())
    if missing:
        msg = f"split: wanted a value of {column!r} in every record, found {missing:,} without; leave these records out"
        raise ConfigError(msg)


def shared_keys(table: pa.Table, sides: np.ndarray, key: str) -> int:
    """How many values of `key` are on more than one side."""
    pairs = (
        pa.table({"key": table[key], "side": pa.array(sides)})
        .group_by("key")
        .aggregate([("side", "count_distinct")])
    )
    count: Callable[..., pa.Scalar] = pc.sum
    return int(count(pc.greater(pairs["side_count_distinct"], 1)).as_py() or 0)
