"""From the leaves that a record falls into to its scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class LeafSums:
    """Sums the values of leaves tree by tree, as scikit-learn does, so that the sums are the same to the last bit.

    `base` (k,): where the sums begin. `values_k`: the value for output k of each leaf of its trees. With `turns` the
    trees belong to the outputs in turns, as in boosting with several classes; otherwise each tree to all of them.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], divisor: int, *, turns: bool) -> None:
        self.outputs = len(arrays["base"])
        self._base, self._divisor = arrays["base"], divisor
        self._values = [arrays[f"values_{n}"] for n in range(self.outputs)]
        self.step = self.outputs if turns else 1

    def __call__(self, leaf: np.ndarray, scores: np.ndarray) -> None:
        """Write the scores (k, n) of the leaves (trees, n)."""
        for output, (values, base) in enumerate(zip(self._values, self._base, strict=True)):
            turns = leaf if self.step == 1 else leaf[output :: self.step]
            terms = np.empty((len(turns) + 1, leaf.shape[1]))
            terms[0] = base
            np.take(values, turns, out=terms[1:], mode="clip")  # with "raise", numpy would fill a copy first
            # a single record would be summed in pairs, not in order
            scores[output] = np.add.reduce(terms) if leaf.shape[1] > 1 else np.add.accumulate(terms)[-1]
        if self._divisor != 1:
            scores /= self._divisor
