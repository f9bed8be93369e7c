"""Large trees in ONNX Runtime: the operator TreeEnsemble with float64 thresholds finds the leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlinfer.hosts._forms._columns import Column, Table, are_plain
from mlinfer.hosts._forms._leaves import LeafSums
from mlinfer.hosts._onnx_session import session

BLOCK = 512
"""Records at a time: the operator answers a float64 per record and tree."""


class OnnxTrees:
    """Trees as the bytes of an ONNX model, `onnx`, that takes `x` (n, columns) to the leaf in each tree, (n, trees).

    The rest: see `LeafSums`.
    """

    name = "leaves found by ONNX Runtime"

    def __init__(
        self, arrays: Mapping[str, np.ndarray], columns: Sequence[Column], options: Mapping[str, int]
    ) -> None:
        self.arrays, self.columns, self.options = dict(arrays), tuple(columns), dict(options)
        self._sums = LeafSums(arrays, options["divisor"], turns=bool(options["turns"]))
        self._how = {"narrow": bool(options["narrow"]), "plain": are_plain(columns)}
        self._session = session(arrays["onnx"].tobytes(), "the trees of the compiled form", threads=1)

    def scores(self, table: Table) -> np.ndarray:
        """Shape (n,) for one output, else (n, k). Raises RecordErrors: a number too large for trees of float32."""
        numbers = table.matrix(self.columns, **self._how)
        scores = np.empty((self._sums.outputs, len(numbers)))
        for start in range(0, len(numbers), BLOCK):
            part = slice(start, start + BLOCK)
            asked = np.ascontiguousarray(numbers[part], np.float64)
            self._sums(self._session.run(None, {"x": asked})[0].astype(np.int32).T, scores[:, part])
        return scores[0] if len(scores) == 1 else np.ascontiguousarray(scores.T)
