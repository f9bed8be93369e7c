"""Numbers as scikit-learn's trees take them: rounded to float32, which must not overflow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlinfer import RecordErrors


def narrowed(numbers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The columns as float32. Raises RecordErrors: a number becomes infinite."""
    with np.errstate(over="ignore"):
        found = [values.astype(np.float32) for values in numbers]
        bad = [
            np.isinf(values)
            for values in found
            if np.isinf(values.sum(dtype=np.float64)) or np.isinf(values).any()
        ]
    if bad:
        rows = np.flatnonzero(np.logical_or.reduce(bad))
        raise RecordErrors(
            rows.tolist(), "too_large", "wanted numbers that fit into float32, found a larger one"
        )
    return found
