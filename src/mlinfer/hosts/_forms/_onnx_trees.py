"""Large trees in ONNX Runtime: the operator TreeEnsemble with float64 thresholds finds the leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlinfer.hosts._forms._columns import Column, Table
from mlinfer.hosts._forms._leaves import LeafSums
from mlinfer.hosts._forms._narrow import narrowed
from mlinfer.hosts._onnx_session import session

BLOCK = 4096
"""Records at a time: the operator answers a float64 per record and tree."""


class OnnxTrees:
    """Trees as the bytes of an ONNX model, `onnx`, that takes `x` (n, columns) to the leaf in each tree, (n, trees).

    The rest: see `LeafSums`.
    """

    name = "leaves found by ONNX Runtime"

    def __init__(
        self, arrays: Mapping[str, np.ndarray], columns: Sequence[Column], options: Mapping[str, int]
    ) -> None:
        self.arrays, self.columns, self.options = dict(arrays), list(columns), dict(options)
        self._sums = LeafSums(arrays, options["divisor"], turns=bool(options["turns"]))
        self._narrow = bool(options["narrow"])
        self._session = session(arrays["onnx"].tobytes(), "the trees of the compiled form", threads=1)

    def scores(self, table: Table) -> np.ndarray:
        """Shape (n,) for one output, else (n, k). Raises RecordErrors: a number too large for trees of float32."""
        numbers = [table.column(column) for column in self.columns]
        if self._narrow:
            numbers = narrowed(numbers)
        rows = len(table.numbers)
        scores = np.empty((self._sums.outputs, rows))
        for start in range(0, rows, BLOCK):
            part = slice(start, min(start + BLOCK, rows))
            matrix = np.stack([values[part] for values in numbers], axis=1).astype(np.float64, copy=False)
            leaf = self._session.run(None, {"x": matrix})[0]
            self._sums(leaf.T.astype(np.int64), scores[:, part])
        return scores[0] if len(scores) == 1 else np.ascontiguousarray(scores.T)
