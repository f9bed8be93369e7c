"""Makes the tables of `Bitmasks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlinfer.hosts._forms._bitmasks import MOST_LEAVES

if TYPE_CHECKING:
    from mlinfer.hosts._forms._trees import Tree, Trees

LARGEST = 2**25
"""Bytes of all tables: beyond the processor's cache they are slower than walking the trees."""
NARROW_LEAVES = 32


def fits(trees: Trees) -> bool:
    """Whether the trees are small enough for tables."""
    if max(tree.leaves for tree in trees.trees) > MOST_LEAVES:
        return False
    rows = sum(len(cuts) + 2 for cuts in all_cuts(trees).values())
    return rows * len(trees.trees) * 8 <= LARGEST


def mask_tables(trees: Trees) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays that `Bitmasks` names, and whether a mask is wide."""
    wide = max(tree.leaves for tree in trees.trees) > NARROW_LEAVES
    dtype = np.dtype("<u8" if wide else "<u4")
    cuts = all_cuts(trees)
    full = np.iinfo(dtype).max
    tables = {
        column: np.full((len(values) + 2, len(trees.trees)), full, dtype) for column, values in cuts.items()
    }
    orders = [
        _strike(tree, cuts, {column: table[:, number] for column, table in tables.items()})
        for number, tree in enumerate(trees.trees)
    ]
    arrays = {"used": np.array(list(cuts), np.int64), **leaf_values(trees, orders)}
    for number, column in enumerate(cuts):
        arrays[f"thresholds_{number}"] = cuts[column]
        arrays[f"masks_{number}"] = tables[column]
    return arrays, wide


def leaf_values(trees: Trees, orders: Sequence[Any]) -> dict[str, np.ndarray]:
    """The arrays that `LeafSums` names; `orders`: the leaves (nodes) of each tree, in the order of their numbers.

    `first` (trees,): the number of each tree's first leaf.
    """
    values = [tree.value[order] for tree, order in zip(trees.trees, orders, strict=True)]
    turns = len(trees.base) if trees.turns else 1
    first = np.zeros(len(values), np.int64)
    for turn in range(turns):
        first[turn::turns] = np.cumsum([0, *map(len, values[turn::turns])])[:-1]
    found = {"base": np.asarray(trees.base, np.float64), "first": first}
    for output in range(len(trees.base)):
        own, place = (values[output::turns], 0) if trees.turns else (values, output)
        found[f"values_{output}"] = np.concatenate([one[:, place] for one in own]).astype(np.float64)
    return found


def all_cuts(trees: Trees) -> dict[int, np.ndarray]:
    """All thresholds of each column that is looked at, ascending."""
    inner = [tree.left >= 0 for tree in trees.trees]
    columns = np.concatenate([tree.column[at] for tree, at in zip(trees.trees, inner, strict=True)]).astype(
        np.int64
    )
    values = np.concatenate([tree.threshold[at] for tree, at in zip(trees.trees, inner, strict=True)])
    return {int(column): np.unique(values[columns == column]) for column in np.unique(columns)}


def _strike(tree: Tree, cuts: dict[int, np.ndarray], tables: dict[int, np.ndarray]) -> list[int]:
    """Strike the leaves out of the tables of one tree; returns its leaves from left to right.

    Walked without recursion: a single tree may be deeper than Python allows.
    """
    order: list[int] = []
    begun: dict[int, int] = {}
    middle: dict[int, int] = {}
    work: list[tuple[int, int]] = [(0, 0)]
    while work:
        node, state = work.pop()
        left, right = int(tree.left[node]), int(tree.right[node])
        if left < 0:
            order.append(node)
        elif state == 0:
            begun[node] = len(order)
            work += [(node, 1), (left, 0)]
        elif state == 1:
            middle[node] = len(order)
            work += [(node, 2), (right, 0)]
        else:
            column = int(tree.column[node])
            _mark((tree, node), (begun[node], middle[node], len(order)), cuts[column], tables[column])
    return order


def _mark(at: tuple[Tree, int], span: tuple[int, int, int], cuts: np.ndarray, table: np.ndarray) -> None:
    """A record that goes left cannot reach the leaves on the right, and the other way round.

    `at`: a tree and a node; `span`: the first leaf on the left, the first on the right, the first behind; `cuts` and `table`: of the node's column.
    """
    tree, node = at
    kind, everything = table.dtype.type, int(np.iinfo(table.dtype).max)
    begun, middle, end = span
    no_left = kind(everything ^ ((1 << middle) - (1 << begun)))
    no_right = kind(everything ^ ((1 << end) - (1 << middle)))
    place = int(np.searchsorted(cuts, tree.threshold[node]))
    table[: place + 1] &= no_right
    table[place + 1 : -1] &= no_left
    table[-1] &= no_right if tree.missing_left[node] else no_left
