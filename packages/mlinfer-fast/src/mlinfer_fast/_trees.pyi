from typing_extensions import Buffer

# Trees, checked and copied.
#
# nodes: 16 bytes a node: float64 threshold, uint32 column (its highest bit: a missing value goes left), uint32 left child;
# the right child is the next node. A leaf is its own left child. values: float64, `width` a node, in which `width` is 1
# with `turns` and `outputs` otherwise. roots: uint32, one a tree, ascending.
# Raises ValueError: a child, a column or a root is out of place.
class Trees:
    def __init__(
        self, nodes: Buffer, values: Buffer, roots: Buffer, columns: int, outputs: int, turns: bool
    ) -> None: ...

    # Add each tree's value, in the order of the trees, to `scores` (n, outputs); `records` (n, columns). Both float64 in C
    # order. Raises ValueError: their sizes do not fit. Releases the lock of the interpreter.
    def add(self, records: Buffer, scores: Buffer) -> None: ...
