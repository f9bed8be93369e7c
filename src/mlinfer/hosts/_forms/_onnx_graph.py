"""Writes trees as an ONNX model of one operator, which answers the number of the leaf in each tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlinfer import ConfigError
from mlinfer.hosts._forms._columns import Column
from mlinfer.hosts._forms._mask_tables import leaf_values
from mlinfer.hosts._forms._source import NotCompiled

if TYPE_CHECKING:
    from mlinfer.hosts._forms._trees import Tree, Trees

AT_MOST = 0  # the operator's number for "to the true branch if it is at most the threshold"
SUM = 1
IR_VERSION = 10
"""The format of the file: what ONNX Runtime 1.20 reads, the first that knows this operator."""

EXACT = {"nodes_splits": np.float64, "leaf_weights": np.float64, "nodes_modes": np.uint8}
"""The attributes that are tensors; the others are lists."""


def onnx_core(trees: Trees, columns: Sequence[Column], options: Mapping[str, int]) -> Any:
    """Trees for ONNX Runtime. Raises NotCompiled: it is not installed."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        msg = "trees of more than 64 leaves need ONNX: pip install 'mlinfer[onnx]', and save it again"
        raise NotCompiled(msg) from error
    from mlinfer.hosts._forms._onnx_trees import OnnxTrees

    orders = [np.flatnonzero(tree.left < 0) for tree in trees.trees]
    arrays = leaf_values(trees, orders)
    attributes: dict[str, Any] = {
        name: numpy_helper.from_array(np.array(values, EXACT[name]), name) if name in EXACT else values
        for name, values in _attributes(trees.trees, arrays["first"]).items()
    }
    node = helper.make_node(
        "TreeEnsemble", ["x"], ["leaves"], domain="ai.onnx.ml",
        n_targets=len(trees.trees), aggregate_function=SUM, post_transform=0, **attributes,
    )  # fmt: skip
    ends: list[Any] = [
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", width])]
        for name, width in (("x", len(columns)), ("leaves", len(trees.trees)))
    ]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    model = helper.make_model(
        helper.make_graph([node], "trees", ends[0], ends[1]), opset_imports=opsets, ir_version=IR_VERSION
    )
    arrays["onnx"] = np.frombuffer(model.SerializeToString(), np.uint8)
    try:
        return OnnxTrees(arrays, columns, options)
    except ConfigError as error:
        raise NotCompiled(str(error)) from error


def _attributes(trees: Sequence[Tree], first: np.ndarray) -> dict[str, list[Any]]:
    """Inner nodes and leaves are counted apart, through all trees; a tree's leaves add their number to its own target."""
    found: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_featureids", "nodes_splits", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids",
            "nodes_trueleafs", "nodes_falseleafs", "nodes_missing_value_tracks_true", "leaf_targetids", "leaf_weights",
            "tree_roots",
        )
    }  # fmt: skip
    for target, (tree, begin) in enumerate(zip(trees, first.tolist(), strict=True)):
        _add(tree, found, target, begin)
    return found


def _add(tree: Tree, found: dict[str, list[Any]], target: int, begin: int) -> None:
    inner = tree.left >= 0
    if not inner[0]:
        msg = "a tree of a single leaf beside large ones has no compiled form"
        raise NotCompiled(msg)
    nodes, leaves = len(found["nodes_splits"]), len(found["leaf_weights"])
    number = np.where(inner, nodes + np.cumsum(inner) - 1, leaves + np.cumsum(~inner) - 1)
    found["tree_roots"].append(nodes)
    found["nodes_featureids"] += tree.column[inner].tolist()
    found["nodes_splits"] += tree.threshold[inner].tolist()
    found["nodes_modes"] += [AT_MOST] * int(inner.sum())
    found["nodes_missing_value_tracks_true"] += tree.missing_left[inner].astype(int).tolist()
    for side, child in (("true", tree.left[inner]), ("false", tree.right[inner])):
        found[f"nodes_{side}nodeids"] += number[child].tolist()
        found[f"nodes_{side}leafs"] += (~inner[child]).astype(int).tolist()
    count = int((~inner).sum())
    found["leaf_targetids"] += [target] * count
    found["leaf_weights"] += [float(begin + place) for place in range(count)]
