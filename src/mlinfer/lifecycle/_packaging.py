"""What a package says of its training."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer.lifecycle._examples import Data, Plan
from mlinfer.lifecycle._fitting import Feeding, answers
from mlinfer.lifecycle._histograms import histograms
from mlinfer.lifecycle._intervals import LEVEL
from mlinfer.lifecycle._records import digest_of
from mlinfer.lifecycle._report import Training
from mlinfer.lifecycle._splits import CALIBRATION, TEST, TRAIN, ByTime, Split

EXAMPLE = 4096
UNSEEN = 65_536
CALIBRATION_FILE = "calibration.arrow"


@dataclass(frozen=True)
class Fit:
    """An estimator, how it is fed, and how it was made: JSON values of the estimator as given and of what a search chose.

    `lost`: what of the estimator as given could not be written down.
    """

    estimator: Any
    feeding: Feeding
    given: Any
    best: Any
    lost: tuple[str, ...] = ()


def write(plan: Plan, data: Data, fit: Fit, training: Training) -> None:
    """Save the package, with all that is known of the training. Raises ConfigError: see `mlinfer.save`."""
    import scipy

    from mlinfer.hosts import Origin, save

    seen, _ = data.of(TRAIN)
    inputs = seen.select(list(plan.features))
    classes = getattr(fit.estimator, "classes_", None)
    methods = ["predict", "predict_proba"] if hasattr(fit.estimator, "predict_proba") else ["predict"]
    calibration = _calibration(data, fit)
    facts = {
        "target": plan.target,
        "classes": None if classes is None else np.asarray(classes).tolist(),
        "features": list(plan.features),
        "data": {"records": data.table.num_rows, "without_target": data.without_target, "sha256": data.digest},
        "split": {**_shares(plan.split), "records": training.records, "sha256": digest_of(data.sides)},
        "fit": {
            "estimator": fit.given, "best": fit.best, "seed": plan.seed, "sample_weight": plan.sample_weight,
            "reproducible": not fit.lost, "why": list(fit.lost),
        },
        "confirmed": {
            "level": LEVEL, "baseline": "prior" if classes is not None else "mean",
            "accept": dict(plan.accept), "groups": plan.groups, "perfect": list(plan.perfect),
            "scores": [score.to_json() for score in training.scores],
        },
        "calibration": None if calibration is None else {
            "scores": "1 - probability of the true class" if classes is not None else "absolute residual",
            "records": len(calibration), "file": CALIBRATION_FILE,
        },
        "histograms": histograms(inputs),
        "libraries": {"pyarrow": pa.__version__, "scipy": scipy.__version__, "platform": platform.machine()},
    }  # fmt: skip
    files = {} if calibration is None else {CALIBRATION_FILE: _arrow(calibration)}
    save(
        fit.estimator, plan.path, example=_example(inputs, fit.feeding), method=methods,
        expand=classes is not None, trusted=plan.trusted, origin=Origin(facts, files, data.features(plan, TEST)[0].slice(0, UNSEEN)),
    )  # fmt: skip


def _shares(split: Split) -> dict[str, Any]:
    key = {"key": split.key} if isinstance(split, ByTime) else {}
    return {
        "by": split.by,
        "column": split.column,
        "test": split.test,
        "calibration": split.calibration,
        **key,
    }


def _calibration(data: Data, fit: Fit) -> np.ndarray | None:
    """How wrong the model was about each record of the calibration side, ascending (conformal scores).

    None: there is no such side, or a classifier gives no probabilities.
    """
    records, truth = data.of(CALIBRATION)
    if not records.num_rows:
        return None
    given = answers(fit.estimator, fit.feeding.fed(records), truth)
    if given.classes is None:
        return np.sort(np.abs(given.truth - given.predicted))
    return None if given.probabilities is None else np.sort(1 - given.of_truth)


def _arrow(scores: np.ndarray) -> bytes:
    table = pa.table({"score": scores})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _example(inputs: pa.Table, feeding: Feeding) -> Any:
    some = inputs.slice(0, EXAMPLE)
    if feeding.kind == "frame":
        return some.to_pandas()
    return some
