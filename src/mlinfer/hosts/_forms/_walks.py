"""Large trees, walked from the root: by mlinfer-fast (C, many records side by side), or level by level in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlinfer.hosts._forms._columns import Column, Table, are_plain
from mlinfer.hosts._forms._leaves import LeafSums

NODE = np.dtype([("threshold", "<f8"), ("column", "<u4"), ("left", "<u4")])
"""A node as mlinfer-fast takes it. The highest bit of `column`: a missing value goes left. The right child is the node
behind the left one; a leaf is its own left child, and every value goes left there."""

MISSING_LEFT = np.uint32(1 << 31)
BLOCK = 256
"""Records at a time in numpy: one number per record and tree."""


class Walks:
    """Trees by node, all in one row, each from its root in `roots` (trees,).

    `threshold`, `column`, `left` (nodes,): see NODE. `values` (nodes, k): what each node adds to the k outputs; k is 1 where
    the trees belong to the outputs in turns. `base` (outputs,): where the sums begin.
    """

    name = "walks down its trees"

    def __init__(
        self, arrays: Mapping[str, np.ndarray], columns: Sequence[Column], options: Mapping[str, int]
    ) -> None:
        self.arrays, self.columns, self.options = dict(arrays), tuple(columns), dict(options)
        self._turns, self._divisor = bool(options["turns"]), options["divisor"]
        self._base, self._roots = arrays["base"], arrays["roots"]
        self._how = {"narrow": bool(options["narrow"]), "plain": are_plain(columns)}
        _check(arrays, len(self.columns), turns=self._turns)
        self._fast = self._prepared() if options["fast"] else None
        width = arrays["values"].shape[1]
        values = {f"values_{n}": arrays["values"][:, n % width] for n in range(len(self._base))}
        self._sums = LeafSums({"base": self._base, **values}, self._divisor, turns=self._turns)

    def scores(self, table: Table) -> np.ndarray:
        """Shape (n,) for one output, else (n, k). Raises RecordErrors: a number too large for trees of float32."""
        numbers = np.ascontiguousarray(table.matrix(self.columns, **self._how), np.float64)
        scores = np.empty((len(numbers), len(self._base)))
        if self._fast is not None:
            scores[:] = self._base
            self._fast.add(numbers, scores)
            if self._divisor != 1:
                scores /= self._divisor
        else:
            for start in range(0, len(numbers), BLOCK):
                part = slice(start, start + BLOCK)
                self._sums(self._leaf(numbers[part]), scores[part].T)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def in_numpy(self) -> Walks:
        """The same trees without mlinfer-fast."""
        return Walks(self.arrays, self.columns, {**self.options, "fast": 0})

    def _leaf(self, numbers: np.ndarray) -> np.ndarray:
        """The leaf in each tree, (trees, n)."""
        threshold, column, left = (self.arrays[name] for name in ("threshold", "column", "left"))
        at = np.repeat(self._roots.astype(np.int64), len(numbers))
        record = np.tile(np.arange(len(numbers)) * numbers.shape[1], len(self._roots))
        flat, gaps = numbers.ravel(), bool(np.isnan(numbers.sum()))
        going = np.arange(len(at))
        while len(going):
            node = at[going]
            looked_at = column[node]
            values = flat[record[going] + (looked_at & ~MISSING_LEFT)]
            right = ~(values <= threshold[node])
            if gaps:
                right &= ~(np.isnan(values) & (looked_at >= MISSING_LEFT))
            reached = left[node] + right
            at[going] = reached
            going = going[left[reached] != reached]
        return at.reshape(len(self._roots), -1)

    def _prepared(self) -> Any:
        """The trees in mlinfer-fast; None if it is not installed."""
        library = fast()
        if library is None:
            return None
        nodes = np.empty(len(self.arrays["left"]), NODE)
        for name in NODE.names or ():
            nodes[name] = self.arrays[name]
        counts = len(self.columns), len(self._base)
        return library.Trees(nodes, self.arrays["values"], self._roots, *counts, self._turns)


def fast() -> Any:
    """mlinfer-fast; None if it is not installed."""
    try:
        import mlinfer_fast
    except ImportError:
        return None
    return mlinfer_fast


def _check(arrays: Mapping[str, np.ndarray], columns: int, *, turns: bool) -> None:
    """Raises ValueError: no record would find a leaf."""
    column, left, values = arrays["column"], arrays["left"].astype(np.int64), arrays["values"]
    places = np.arange(len(left))
    leaf = left == places
    sound = (
        {arrays[name].shape for name in ("threshold", "column")} == {left.shape}
        and values.shape == (len(left), 1 if turns else len(arrays["base"]))
        and (arrays["roots"] < len(left)).all()
        and ((column & ~MISSING_LEFT) < columns).all()
        and ((left > places) & (left + 1 < len(left)))[~leaf].all()
        and np.isposinf(arrays["threshold"][leaf]).all()
        and (column[leaf] >= MISSING_LEFT).all()
    )
    if not sound:
        msg = "trees without an end"
        raise ValueError(msg)
