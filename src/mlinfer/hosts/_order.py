"""Answers are joined to records by their place: those that pandas has sorted would go to the wrong records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlinfer import ComponentError


def check_order(answers: Any, name: str) -> None:
    """Raises ComponentError: rows of a frame or column of pandas, or of columns in a dict, have moved, as its index shows."""
    for one in answers.values() if isinstance(answers, Mapping) else (answers,):
        index = getattr(one, "index", None)
        if index is None or callable(index) or getattr(index, "name", None) is not None:
            continue  # a list's `index` is a method; one with a name is a column (`set_index`), and counts no rows
        labels = np.asarray(index)
        straight = np.arange(labels.size)
        if labels.dtype.kind not in "iu" or not labels.ndim or np.array_equal(labels, straight):
            continue
        if np.array_equal(np.sort(labels), straight):
            msg = (
                f"model {name!r}: wanted the answers in the order of the records, found the rows of the data frame moved; "
                "bring them back with .sort_index(), or, if its index does not number the records, drop that with .reset_index(drop=True)"
            )
            raise ComponentError(msg)
