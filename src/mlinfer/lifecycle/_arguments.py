"""What `mlinfer.train` is asked for, looked at before anything is read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

from mlinfer import ConfigError
from mlinfer.lifecycle._metrics import METRICS
from mlinfer.lifecycle._splits import ByGroup, ByKey, ByTime


def check_places(target: Any, to: Any, **columns: Any) -> None:
    """Raises ConfigError: one is not the name of a column, or not a path; of `columns` each may be None."""
    named = {"target": target, **{name: one for name, one in columns.items() if one is not None}}
    for name, one in named.items():
        if not isinstance(one, str):
            msg = f"{name}: wanted the name of a column, found {one!r:.100}"
            raise ConfigError(msg)
    if not isinstance(to, str | os.PathLike):
        msg = f"to: wanted the path of the package to write, such as 'late.mlinfer', found {to!r:.100}"
        raise ConfigError(msg)


def check_arguments(split: Any, accept: Any, seed: Any, lists: Mapping[str, Any]) -> None:
    """Raises ConfigError: one is not of its kind; `lists` are those that hold names."""
    if not isinstance(split, ByKey | ByGroup | ByTime):
        msg = f"split: wanted ByKey, ByTime or ByGroup of mlinfer.lifecycle, found {split!r:.100} (in Python: split=ByKey('id'))"
        raise ConfigError(msg)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        msg = f"seed: wanted a whole number of 0 or more, found {seed!r:.100}"
        raise ConfigError(msg)
    for name, value in lists.items():
        if isinstance(value, str):
            msg = f"{name}: wanted a list of names, found the text {value!r}; write {name}=[{value!r}]"
            raise ConfigError(msg)
        if isinstance(value, set | frozenset):  # in another process its order is another, and so is the model
            msg = f"{name}: wanted a list of names, found a set, which has no order; write {name}={sorted(map(str, value))}"
            raise ConfigError(msg)
    if not isinstance(accept, Mapping):
        msg = f"accept: wanted bars by metric, found {accept!r:.100}; write accept={{'roc_auc': 0.7}}"
        raise ConfigError(msg)
    for name, bar in accept.items():
        if isinstance(bar, bool) or not isinstance(bar, Real) or not math.isfinite(bar):  # Real: numpy's, too
            msg = f"accept: wanted a number as the bar of {name!r}, found {bar!r:.100}"
            raise ConfigError(msg)
        metric = METRICS.get(name)  # an unknown one is told with those that fit the target
        if metric is not None and (float(bar) > 1 if metric.more_is_better else float(bar) < 0):
            most = "at most 1 (0.9 for 90 %)" if metric.more_is_better else "0 or more"
            msg = f"accept: wanted a bar that {name!r} can reach, {most}, found {float(bar):g}"
            raise ConfigError(msg)
