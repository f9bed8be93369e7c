"""Looks into what a file has made before it is asked anything: the trees in it must be trees.

scikit-learn follows the numbers of child nodes, columns and records in a tree without looking where they lead, so a
crafted file could make it read foreign memory. A trusted type says nothing about such numbers; this does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlinfer import ConfigError

NO_CHILD = -1


def check_trees(loaded: Any, where: str) -> None:
    """Raises ConfigError: a node leads to a node, column or record that is not there, or back."""
    decision_tree = _kind("sklearn.tree._classes", "BaseDecisionTree")
    boosted = _kind("sklearn.ensemble._hist_gradient_boosting.gradient_boosting", "BaseHistGradientBoosting")
    neighbours = (
        _kind("sklearn.neighbors._kd_tree", "KDTree"),
        _kind("sklearn.neighbors._ball_tree", "BallTree"),
    )
    ensemble = _kind("sklearn.ensemble._base", "BaseEnsemble")
    for part in _parts(loaded, set()):
        if isinstance(part, decision_tree):
            sound = _decision_tree(part)
        elif isinstance(part, boosted):
            sound = _boosted(part)
        elif isinstance(part, neighbours):
            sound = _neighbours(part.__getstate__())
        elif isinstance(part, ensemble):
            sound = _ensemble(part)
        else:
            continue
        if not sound:
            msg = f"{where}: wanted trees whose nodes lead to other nodes, found a {type(part).__name__} that is damaged or forged"
            raise ConfigError(msg)


def _kind(module: str, name: str) -> Any:
    """A type of scikit-learn, if its module has been imported: else nothing that was loaded can be of it."""
    found = sys.modules.get(module)
    return () if found is None else getattr(found, name)


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every object inside an object, each once."""
    if id(value) in seen or isinstance(value, str | bytes | int | float):
        return
    seen.add(id(value))
    yield value
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list | tuple | set):
        inside = value
    elif isinstance(value, np.ndarray):
        inside = value.ravel().tolist() if value.dtype == object else ()
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        inside = vars(value).values()
    for item in inside:
        yield from _parts(item, seen)


def _decision_tree(part: Any) -> bool:
    tree = getattr(part, "tree_", None)
    if tree is None:
        return True
    inner = tree.children_left != NO_CHILD
    places = np.arange(len(inner))[inner]
    left, right, column = (
        values[inner] for values in (tree.children_left, tree.children_right, tree.feature)
    )
    return _lead_on(places, left, right, len(inner)) and _within(column, part.n_features_in_)


def _boosted(part: Any) -> bool:
    for predictor in (one for stage in getattr(part, "_predictors", ()) for one in stage):
        nodes = predictor.nodes
        inner = nodes["is_leaf"] == 0
        places, branches = np.arange(len(nodes))[inner], nodes[inner]
        sets = branches["bitset_idx"][branches["is_categorical"] != 0]
        if not (
            _lead_on(places, branches["left"], branches["right"], len(nodes))
            and _within(branches["feature_idx"], part.n_features_in_)
            and _within(sets, len(predictor.raw_left_cat_bitsets))
        ):
            return False
    return True


def _ensemble(part: Any) -> bool:
    """Forests hand their own matrix to every tree: no tree may know more columns."""
    trees = [tree for tree in _parts(getattr(part, "estimators_", ()), set()) if hasattr(tree, "tree_")]
    return all(tree.n_features_in_ <= part.n_features_in_ for tree in trees)


def _neighbours(state: tuple[Any, ...]) -> bool:
    data, records, nodes, bounds, _, levels, count = state[:7]
    inner = np.flatnonzero(np.asarray(nodes["is_leaf"]) == 0)
    return (
        count == len(nodes) == bounds.shape[1] == 2**levels - 1
        and bounds.shape[2] == data.shape[1]
        and len(records) == len(data)
        and _within(records, len(data))
        and _within(nodes["idx_start"], len(data) + 1)
        and _within(nodes["idx_end"], len(data) + 1)
        and bool((2 * inner + 2 < count).all())
    )


def _lead_on(places: np.ndarray, left: np.ndarray, right: np.ndarray, count: int) -> bool:
    """Children stand behind their parents, so that no walk is endless, and inside the tree."""
    return all(bool(((places < child) & (child < count)).all()) for child in (left, right))


def _within(values: np.ndarray, count: int) -> bool:
    return bool(((values >= 0) & (values < count)).all())
