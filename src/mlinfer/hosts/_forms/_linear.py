"""Linear models with everything before them folded in: one product of the record's own numbers, one table per category."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlinfer.hosts._forms._columns import Choice, Column, Lookup, Number, Table

EPSILON = float(np.finfo(float).eps)
LOST = 1e-12
"""How much rounding may take, relative to the intercept, the weights and 1, whichever is largest."""


class CannotFold(ValueError):  # noqa: N818 - the end of a sentence
    """A column is no straight line."""


class Linear:
    """`numbers @ weights + bias`, and a row of a table for each looked-up field.

    `places` (p,) are the fields; `weights` (p, k); `fills` (p,) stand in for missing numbers, NaN where there is no
    substitute; `bias` (k,); `tables`: per lookup (categories + 2, k). `shifts` (p,), where there are any, are taken from
    the numbers first: large ones that lie close together (times) would lose their digits in the product.
    """

    name = "folded into one product (numpy)"

    def __init__(self, arrays: Mapping[str, np.ndarray], tables: Sequence[tuple[Lookup, np.ndarray]]) -> None:
        self.arrays, self.tables = dict(arrays), list(tables)
        self._places, self._fills = arrays["places"], arrays["fills"]
        self._in_order = bool(np.array_equal(self._places, np.arange(len(self._places))))
        self._shifts = arrays.get("shifts")
        weights, bias = arrays["weights"], arrays["bias"]
        self.single = weights.shape[1] == 1
        self._weights: np.ndarray
        self._bias: Any
        self._weights, self._bias = (weights[:, 0].copy(), bias[0]) if self.single else (weights, bias)
        self._tables = [(lookup, table[:, 0] if self.single else table) for lookup, table in tables]
        if self._shifts is not None and self._shifts.shape != self._places.shape:
            msg = "shapes that do not fit"
            raise ValueError(msg)
        if len(self._places) != len(weights) or any(len(t) != len(of.categories) + 2 for of, t in tables):
            msg = "shapes that do not fit"
            raise ValueError(msg)

    def choices(self) -> list[Choice]:
        """The looked-up fields, as columns."""
        return [Choice(lookup, tuple(table[:, 0].tolist())) for lookup, table in self.tables]

    def scores(self, table: Table) -> np.ndarray:
        """Shape (n,) for one output, else (n, k)."""
        numbers = table.numbers
        if not self._in_order or len(self._places) != numbers.shape[1]:
            numbers = numbers[:, self._places]
        fills = self._fills
        if self._shifts is not None:
            numbers, fills = numbers - self._shifts, fills - self._shifts
        scores: np.ndarray = numbers @ self._weights
        # a number is missing somewhere; finding out beforehand would cost more than the product
        if math.isnan(np.add.reduce(scores, axis=None)):
            scores = np.where(np.isnan(numbers), fills, numbers) @ self._weights
        scores = scores + self._bias
        for lookup, values in self._tables:
            scores += values[table.codes[lookup]]
        return scores


def folded(columns: Sequence[Column], weights: np.ndarray, bias: np.ndarray) -> Linear:
    """A linear model over columns as one over the fields they are made of; weights (columns, k), bias (k,).

    Raises CannotFold: something is done to a column that is no straight line.
    """
    weights, bias = weights.astype(np.float64), bias.astype(np.float64)
    most = LOST * max(1.0, np.abs(weights).max(initial=0), np.abs(bias).max(initial=0))
    places, slopes, fills, shifts = [], [], [], []
    tables: dict[Lookup, Any] = {}
    for column, weight in zip(columns, weights, strict=True):
        if isinstance(column, Choice):
            table = tables.setdefault(column.lookup, 0.0)
            tables[column.lookup] = table + np.outer(column.values, weight)
            continue
        fill, shift, slope, offset = _line(column)
        if EPSILON * np.abs((offset - shift * slope) * weight).max() <= most:
            shift, offset = 0.0, offset - shift * slope
        elif EPSILON * np.abs(offset * weight).max() > most:
            msg = "its preparation moves numbers so far that folding it in would lose digits"
            raise CannotFold(msg)
        places.append(column.place)
        slopes.append(slope * weight)
        fills.append(fill)
        shifts.append(shift)
        bias = bias + offset * weight
    arrays = {
        "places": np.array(places, np.int64),
        "weights": np.array(slopes, np.float64).reshape(len(places), len(bias)),
        "fills": np.array(fills, np.float64),
        "bias": bias,
    }
    if any(shifts):
        arrays["shifts"] = np.array(shifts, np.float64)
    return Linear(arrays, list(tables.items()))


def _line(column: Number) -> tuple[float, float, float, float]:
    """What stands in for a missing number, what is taken from it first, the slope and the offset after that."""
    fill, shift, slope, offset = np.nan, 0.0, 1.0, 0.0
    ops = list(column.ops)
    if ops and ops[0][0] == "fill":
        fill = ops.pop(0)[1]
    if ops and ops[0][0] == "sub":
        shift = ops.pop(0)[1]
    for name, *given in ops:
        if name in {"sub", "add"}:
            offset += given[0] if name == "add" else -given[0]
        elif name in {"mul", "div"}:
            by = given[0] if name == "mul" else 1.0 / given[0]
            slope, offset = slope * by, offset * by
        else:
            msg = "its preparation cuts numbers off, marks missing ones or fills them in late"
            raise CannotFold(msg)
    return fill, shift, slope, offset
