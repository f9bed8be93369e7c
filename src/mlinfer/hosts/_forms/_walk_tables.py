"""Makes the arrays of `Walks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlinfer.hosts._forms._walks import MISSING_LEFT

if TYPE_CHECKING:
    from mlinfer.hosts._forms._trees import Tree, Trees


def walk_tables(trees: Trees) -> dict[str, np.ndarray]:
    """The arrays that `Walks` names."""
    begins = np.cumsum([0, *(len(tree.left) for tree in trees.trees)])
    parts = [_by_level(tree, int(begin)) for tree, begin in zip(trees.trees, begins, strict=False)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {**found, "roots": begins[:-1].astype(np.uint32), "base": np.asarray(trees.base, np.float64)}


def _by_level(tree: Tree, begin: int) -> dict[str, np.ndarray]:
    """One tree's nodes, level by level, both children of a node side by side, beginning at the place `begin`."""
    leaf = tree.left < 0
    order, level = [np.zeros(1, np.int64)], np.zeros(1, np.int64)
    while len(level := level[~leaf[level]]):
        level = np.stack([tree.left[level], tree.right[level]], 1).ravel()
        order.append(level)
    nodes = np.concatenate(order)
    place = np.empty(len(tree.left), np.int64)
    place[nodes] = np.arange(len(nodes))
    missing = np.where(leaf | tree.missing_left, MISSING_LEFT, np.uint32(0))
    left = begin + np.where(leaf, place, place[tree.left])
    return {
        "threshold": np.where(leaf, np.inf, tree.threshold)[nodes].astype(np.float64),
        "column": (np.where(leaf, 0, tree.column).astype(np.uint32) | missing)[nodes],
        "left": left[nodes].astype(np.uint32),
        "values": tree.value[nodes].astype(np.float64),
    }
