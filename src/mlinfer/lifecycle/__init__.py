"""A model's life before inference: trained, measured on records that it has not seen, and saved if it holds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlinfer.lifecycle._estimators import estimator
    from mlinfer.lifecycle._metrics import Score
    from mlinfer.lifecycle._report import Training
    from mlinfer.lifecycle._splits import ByGroup, ByKey, ByTime
    from mlinfer.lifecycle._training import train

__all__ = ["ByGroup", "ByKey", "ByTime", "Score", "Training", "estimator", "train"]

_WHERE = {
    "ByGroup": "mlinfer.lifecycle._splits",
    "ByKey": "mlinfer.lifecycle._splits",
    "ByTime": "mlinfer.lifecycle._splits",
    "Score": "mlinfer.lifecycle._metrics",
    "Training": "mlinfer.lifecycle._report",
    "estimator": "mlinfer.lifecycle._estimators",
    "train": "mlinfer.lifecycle._training",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_WHERE[name]), name)
