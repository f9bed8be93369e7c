"""What the inputs looked like in training, to tell later whether they have drifted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mlinfer import is_text

BINS = 10
MOST_VALUES = 50
LONGEST = 64
"""Texts beyond it are no categories; what they say is nobody's business here, how long they are is enough."""
MOST_POSITIONS = 1000
"""Longer lists (images, embeddings) have one histogram of all their values."""


def histograms(table: pa.Table) -> dict[str, dict[str, Any]]:
    """One histogram per column, and per place of a list of fixed length; JSON objects.

    Numbers: `edges` between equally full bins and the `counts` left of, between and right of them; a record at an edge
    counts left of it. Texts that are no categories, long ones or mostly different ones: `lengths`, such edges and counts of the
    lengths. All else: `values` with the `counts` of the most frequent ones and the number of `others`. `missing` counts
    nulls and NaN.
    """
    return {
        name: _histogram(column) for field in table.schema for name, column in _columns(table, field.name)
    }


def _columns(table: pa.Table, name: str) -> Iterator[tuple[str, pa.ChunkedArray | pa.Array]]:
    column = table[name]
    if not pt.is_fixed_size_list(column.type):
        yield name, column
        return
    flat = pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
    width = column.type.list_size
    if width > MOST_POSITIONS:
        yield name, flat
        return
    for place in range(width):
        yield f"{name}[{place}]", flat.take(pa.array(range(place, len(flat), width)))


def _histogram(column: pa.ChunkedArray | pa.Array) -> dict[str, Any]:
    if pt.is_integer(column.type) or pt.is_floating(column.type):
        values = np.asarray(column.drop_null().to_numpy(), float)
        return _of_numbers(values[np.isfinite(values)], len(column))
    return _of_values(column)


def _of_numbers(values: np.ndarray, records: int) -> dict[str, Any]:
    missing = records - len(values)
    if not len(values):
        return {"edges": [], "counts": [0], "missing": missing}
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "missing": missing}


def _of_values(column: pa.ChunkedArray | pa.Array) -> dict[str, Any]:
    there = column.drop_null()
    if is_text(column.type):
        lengths = np.array(pc.utf8_length(there).to_pylist(), float)
        different = pc.count_distinct(there).as_py()
        if len(lengths) and (lengths.max() > LONGEST or different > max(MOST_VALUES, len(lengths) / 2)):
            return {"lengths": _of_numbers(lengths, len(lengths)), "missing": column.null_count}
    found = pc.value_counts(there).to_pylist()
    first = sorted(found, key=lambda one: (-one["counts"], str(one["values"])))[:MOST_VALUES]
    counts = [int(one["counts"]) for one in first]
    return {
        "values": [str(one["values"]) for one in first], "counts": counts,
        "others": len(there) - sum(counts), "missing": column.null_count,
    }  # fmt: skip
