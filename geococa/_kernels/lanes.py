"""The walk of twelve pixels side by side down one tree, written out so that every lane stays in a register.

A step is a chain of two loads, the node and then the pixel's feature, and the next step waits for it. Twelve
independent chains keep the processor busy meanwhile; numba would put an array of lanes in memory, hence the
repetition. All lanes address one flat block with a shared base and a constant offset, which is one instruction.

Node: one unsigned 64-bit word, the left child in the high half, the feature's offset in a group (feature
number times `LANES`) in the next 16 bits, the threshold's rank in the low 16 bits. The right child follows the
left one, so the next node is ``child + (x > rank)`` and no branch is taken. A leaf is its own child and has the
largest rank, so all lanes may take the same number of steps: the depth of the tree.

Block: ranks of the pixels' features, uint16, in groups of `LANES` pixels: ``(groups, features, LANES)``, flat.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline

__all__ = ["LANES", "walk_tree"]

LANES = 12
"""Pixels walked side by side."""


@inline
def step(nodes: Any, block: Any, node: Any, place: Any) -> Any:
    """Return the child of ``node`` for the pixel whose features start at ``place`` of the block."""
    word = nodes[node]
    x = np.uint64(block[place + ((word >> np.uint64(16)) & np.uint64(0xFFFF))])
    return (word >> np.uint64(32)) + np.uint64(x > (word & np.uint64(0xFFFF)))


@inline
def walk_tree(nodes: Any, block: Any, group_size: Any, n_groups: int, root: Any, depth: int, reached: Any) -> None:
    """Find the leaf of every pixel of a block in one tree.

    Parameters
    ----------
    nodes : uint64 (nodes,)
        Packed nodes of all trees.
    block : uint16 (n_groups * group_size,)
        Ranks, see the module.
    group_size : uint64
        Features times `LANES`.
    n_groups : int
        Groups of pixels in the block.
    root : uint64
        First node of the tree.
    depth : int
        Largest number of steps from the root to a leaf.
    reached : uint32 (n_groups * LANES,)
        Leaf node of each pixel; overwritten.
    """
    base = np.uint64(0)
    at = np.uint64(0)
    for _ in range(n_groups):
        n0 = root
        n1 = root
        n2 = root
        n3 = root
        n4 = root
        n5 = root
        n6 = root
        n7 = root
        n8 = root
        n9 = root
        n10 = root
        n11 = root
        for _ in range(depth):
            n0 = step(nodes, block, n0, base)
            n1 = step(nodes, block, n1, base + np.uint64(1))
            n2 = step(nodes, block, n2, base + np.uint64(2))
            n3 = step(nodes, block, n3, base + np.uint64(3))
            n4 = step(nodes, block, n4, base + np.uint64(4))
            n5 = step(nodes, block, n5, base + np.uint64(5))
            n6 = step(nodes, block, n6, base + np.uint64(6))
            n7 = step(nodes, block, n7, base + np.uint64(7))
            n8 = step(nodes, block, n8, base + np.uint64(8))
            n9 = step(nodes, block, n9, base + np.uint64(9))
            n10 = step(nodes, block, n10, base + np.uint64(10))
            n11 = step(nodes, block, n11, base + np.uint64(11))
        reached[at] = n0
        reached[at + np.uint64(1)] = n1
        reached[at + np.uint64(2)] = n2
        reached[at + np.uint64(3)] = n3
        reached[at + np.uint64(4)] = n4
        reached[at + np.uint64(5)] = n5
        reached[at + np.uint64(6)] = n6
        reached[at + np.uint64(7)] = n7
        reached[at + np.uint64(8)] = n8
        reached[at + np.uint64(9)] = n9
        reached[at + np.uint64(10)] = n10
        reached[at + np.uint64(11)] = n11
        base += group_size
        at += np.uint64(12)
