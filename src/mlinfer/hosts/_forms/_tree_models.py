"""Reads scikit-learn's trees: single ones, forests and both kinds of gradient boosting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlinfer.hosts._forms._bitmasks import Bitmasks
from mlinfer.hosts._forms._columns import Column
from mlinfer.hosts._forms._links import Link
from mlinfer.hosts._forms._mask_tables import all_cuts, fits, mask_tables
from mlinfer.hosts._forms._source import NotCompiled
from mlinfer.hosts._forms._trees import Tree, Trees
from mlinfer.hosts._forms._walk_tables import walk_tables
from mlinfer.hosts._forms._walks import Walks, fast


def tree_core(model: Any, columns: Sequence[Column]) -> tuple[Any, Link]:
    """What computes the scores of a tree model, and its link. Raises NotCompiled."""
    if getattr(model, "n_outputs_", 1) != 1:
        msg = f"a {type(model).__name__} with several outputs has no compiled form"
        raise NotCompiled(msg)
    trees, link = TREES[type(model).__name__](model)
    options = {"narrow": int(trees.narrow), "divisor": trees.divisor, "turns": int(trees.turns)}
    with_fast = fast() is not None
    if with_fast or not fits(trees):
        core: Any = Walks(walk_tables(trees), columns, {**options, "fast": int(with_fast)})
    else:
        arrays, wide = mask_tables(trees)
        core = Bitmasks(arrays, columns, {**options, "wide": int(wide)})
    core.cuts = all_cuts(trees)
    return core, link


def _tree(fitted: Any, scale: float = 1.0) -> Tree:
    tree = fitted.tree_
    missing = np.asarray(tree.missing_go_to_left, bool)
    values = np.asarray(tree.value)[:, 0, :] * scale if scale != 1.0 else np.asarray(tree.value)[:, 0, :]
    return Tree(tree.feature, tree.threshold, tree.children_left, tree.children_right, missing, values)


def _forest(model: Any) -> tuple[Trees, Link]:
    members = model.estimators_ if hasattr(model, "estimators_") else [model]
    classes = getattr(model, "classes_", None)
    width = 1 if classes is None else len(classes)
    trees = Trees(
        [_tree(one) for one in members], np.zeros(width), turns=False, narrow=True, divisor=len(members)
    )
    if classes is None:
        return trees, Link("value")
    if width == 1:
        msg = "a classifier of one class has no compiled form"
        raise NotCompiled(msg)
    return trees, Link("largest", "shares", classes=np.asarray(classes))


def _boosting(model: Any) -> tuple[Trees, Link]:
    if (
        model.init_ != "zero"
        and type(model.init_).__name__ != "DummyClassifier"
        and type(model.init_).__name__ != "DummyRegressor"
    ):
        msg = f"a {type(model).__name__} that begins with another model has no compiled form"
        raise NotCompiled(msg)
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0]  # noqa: SLF001 - nowhere else
    trees = [_tree(one, model.learning_rate) for stage in model.estimators_ for one in stage]
    found = Trees(trees, base.astype(np.float64), turns=len(base) > 1, narrow=True)
    return found, _boosting_link(model, len(base), "not_negative")


def _hist_boosting(model: Any) -> tuple[Trees, Link]:
    if model.is_categorical_ is not None:
        msg = f"a {type(model).__name__} with categorical columns has no compiled form"
        raise NotCompiled(msg)
    base = np.asarray(model._baseline_prediction, np.float64).ravel()  # noqa: SLF001 - nowhere else
    trees = [_hist_tree(one.nodes) for stage in model._predictors for one in stage]  # noqa: SLF001 - nowhere else
    found = Trees(trees, base, turns=len(base) > 1, narrow=False)
    return found, _boosting_link(model, len(base), "positive")


def _hist_tree(nodes: np.ndarray) -> Tree:
    leaf = nodes["is_leaf"] != 0
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    missing = nodes["missing_go_to_left"] != 0
    return Tree(nodes["feature_idx"], nodes["num_threshold"], left, right, missing, nodes["value"][:, None])


def _boosting_link(model: Any, outputs: int, decides: str) -> Link:
    link = type(model._loss.link).__name__  # noqa: SLF001 - nowhere else
    if not hasattr(model, "classes_"):
        if link not in {"IdentityLink", "LogLink"}:
            msg = f"the link {link} has no compiled form"
            raise NotCompiled(msg)
        return Link("exp" if link == "LogLink" else "value")
    classes = np.asarray(model.classes_)
    if outputs > 1:
        return Link("largest", "softmax", scored=True, classes=classes)
    proba = "double_sigmoid" if link == "HalfLogitLink" else "sigmoid"
    return Link(decides, proba, scored=True, classes=classes)


TREES: dict[str, Any] = {
    **dict.fromkeys(
        [
            f"{kind}{task}"
            for kind in ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees")
            for task in ("Classifier", "Regressor")
        ],
        _forest,
    ),
    **dict.fromkeys(["GradientBoostingClassifier", "GradientBoostingRegressor"], _boosting),
    **dict.fromkeys(["HistGradientBoostingClassifier", "HistGradientBoostingRegressor"], _hist_boosting),
}
"""By the name of the class: how its trees are read."""
