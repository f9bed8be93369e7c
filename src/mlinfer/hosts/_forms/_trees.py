"""Trees, read out of scikit-learn's objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tree:
    """One tree, by node.

    `column`; `threshold` (at most: to the left); `left` and `right` (-1 for a leaf); `missing_left`; `value` (nodes, k).
    """

    column: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray

    @property
    def leaves(self) -> int:
        """How many it has."""
        return int((self.left < 0).sum())


@dataclass(frozen=True)
class Trees:
    """Trees in the order in which they are summed up; `turns`: they add to one output each, in turns.

    `narrow`: they take numbers as float32.
    """

    trees: Sequence[Tree]
    base: np.ndarray
    turns: bool
    narrow: bool
    divisor: int = 1
