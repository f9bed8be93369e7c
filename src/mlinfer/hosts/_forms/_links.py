"""From a model's scores to its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Link:
    """How scores, shape (n,) or (n, k), become answers.

    `predict`: `value`, `exp` (regressors), `positive` (the second class above 0), `not_negative` (from 0 on), `largest`.
    `proba`: `sigmoid`, `double_sigmoid`, `softmax`, `one_vs_rest`, `shares` (the scores are probabilities), or None.
    `scored`: whether the scores are what `decision_function` answers.
    """

    predict: str
    proba: str | None = None
    scored: bool = False
    classes: np.ndarray | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """What it can answer."""
        found = (
            "predict",
            *(["predict_proba"] if self.proba else []),
            *(["decision_function"] if self.scored else []),
        )
        return tuple(found)

    def answer(self, method: str, scores: np.ndarray) -> np.ndarray:
        """The answers of one method; `scores` stay as they are."""
        if method == "decision_function":
            return scores
        if method == "predict_proba":
            shares: np.ndarray = PROBABILITIES[str(self.proba)](scores)
            return shares
        if self.predict == "value":
            return scores
        if self.predict == "exp":
            values: np.ndarray = np.exp(scores)
            return values
        return self._classes(scores)

    def _classes(self, scores: np.ndarray) -> np.ndarray:
        if self.classes is None:
            msg = "no classes"
            raise ValueError(msg)
        if self.predict == "largest":
            places = np.argmax(scores, axis=1)
        else:
            places = scores > 0 if self.predict == "positive" else scores >= 0
        labels: np.ndarray = self.classes.take(places)
        return labels

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        classes = None if self.classes is None else [self.classes.dtype.str, self.classes.tolist()]
        return {"predict": self.predict, "proba": self.proba, "scored": self.scored, "classes": classes}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Link:
        """The link that a package names. Raises KeyError, TypeError or ValueError: it names none."""
        classes = None
        if value["classes"] is not None:
            dtype, labels = value["classes"]
            classes = np.array(labels, np.dtype(str(dtype)))
        if value["predict"] not in PREDICT or value["proba"] not in {None, *PROBABILITIES}:
            msg = "another link"
            raise ValueError(msg)
        return cls(value["predict"], value["proba"], bool(value["scored"]), classes)


PREDICT = {"value", "exp", "positive", "not_negative", "largest"}


def _expit(scores: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and one over it is 0
        shares: np.ndarray = 1.0 / (1.0 + np.exp(-scores))
    return shares


def _two(second: np.ndarray) -> np.ndarray:
    both = np.empty((len(second), 2))
    np.subtract(1.0, second, out=both[:, 0])
    both[:, 1] = second
    return both


def _softmax(scores: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _one_vs_rest(scores: np.ndarray) -> np.ndarray:
    """Each class against the others, scaled to a sum of one; all the same where every class says no."""
    shares = _expit(scores)
    total = shares.sum(axis=1, keepdims=True)
    shares[total[:, 0] == 0] = 1
    total[total == 0] = shares.shape[1]
    shares /= total
    return shares


PROBABILITIES: dict[str, Any] = {
    "sigmoid": lambda scores: _two(_expit(scores)),
    "double_sigmoid": lambda scores: _two(_expit(2 * scores)),
    "softmax": _softmax,
    "one_vs_rest": _one_vs_rest,
    "shares": lambda scores: scores,
}
