"""Walkers: packed trees with the workspaces that their kernels need, block after block of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from geococa.tree_packing import Ranks, node_trees, pack_bitvectors, pack_nodes, rank_thresholds

__all__ = ["UNDECIDED", "Ballot", "BitVectorWalker", "LaneWalker", "Walker", "make_walker"]

UNDECIDED = -2
"""Label that `Ballot.labels` gives where the lead lies within the rounding of the votes."""

Arrays = Mapping[str, np.ndarray]


class Walker(Protocol):
    """Adds the leaf values of all trees, in their order."""

    def add(self, planes: np.ndarray, sums: np.ndarray) -> None:
        """Add to ``sums`` ``(classes, pixels)`` for ``planes`` float32 ``(features, pixels)`` without NaN."""
        ...


def make_walker(trees: Arrays) -> LaneWalker | BitVectorWalker | None:
    """Choose the fastest walker for these trees; None where only the plain walk can take them."""
    n_features = int(trees["feature"].max()) + 1
    ranks = rank_thresholds(trees, n_features) if n_features > 0 else None
    if ranks is None:
        return None
    return BitVectorWalker.of(trees, ranks) or LaneWalker.of(trees, ranks)


class _Ranked:
    """Ranking of feature values in the layout of a walker."""

    def __init__(self, ranks: Ranks) -> None:
        self._tables = (ranks.thresholds, ranks.start, ranks.buckets, ranks.origin, ranks.scale)
        self.n_features = len(ranks.start)

    def rank(self, planes: np.ndarray, begin: int, count: int, lanes: int, block: np.ndarray) -> None:
        from geococa._kernels import forest

        forest.rank_values(planes[: self.n_features], begin, count, *self._tables, lanes, block)


class LaneWalker(_Ranked):
    """Twelve pixels side by side down each tree."""

    def __init__(self, ranks: Ranks, packed: Any) -> None:
        super().__init__(ranks)
        self.packed = packed

    @classmethod
    def of(cls, trees: Arrays, ranks: Ranks) -> LaneWalker | None:
        """Pack trees; None where they can't be."""
        from geococa._kernels import lanes

        packed = pack_nodes(trees, ranks, len(ranks.start), lanes.LANES)
        return None if packed is None else cls(ranks, packed)

    def add(self, planes: np.ndarray, sums: np.ndarray) -> None:
        """Add to ``sums`` ``(classes, pixels)``."""
        from geococa._kernels import forest

        p = self.packed
        block, reached = self.workspace()
        for begin in range(0, planes.shape[1], forest.BLOCK):
            count = min(forest.BLOCK, planes.shape[1] - begin)
            self.rank(planes, begin, count, forest.LANES, block)
            forest.add_packed(block, count, self.n_features, p.nodes, p.root, p.depth, p.leaf, p.value, p.tree_class,
                              reached, sums[:, begin : begin + count])

    def workspace(self) -> tuple[np.ndarray, np.ndarray]:
        """Block of ranks and leaves reached, for one thread."""
        from geococa._kernels import forest

        return np.zeros(forest.BLOCK * self.n_features, dtype=np.uint16), np.zeros(forest.BLOCK, dtype=np.uint32)


class BitVectorWalker(_Ranked):
    """All splits of a small tree at once."""

    def __init__(self, ranks: Ranks, packed: Any) -> None:
        super().__init__(ranks)
        self.packed = packed

    @classmethod
    def of(cls, trees: Arrays, ranks: Ranks) -> BitVectorWalker | None:
        """Pack trees; None where they can't be."""
        from geococa._kernels import bitvector

        packed = pack_bitvectors(trees, ranks, bitvector.WORD, bitvector.NEVER)
        return None if packed is None else cls(ranks, packed)

    def add(self, planes: np.ndarray, sums: np.ndarray) -> None:
        """Add to ``sums`` ``(classes, pixels)``."""
        from geococa._kernels import bitvector

        p = self.packed
        size = bitvector.BLOCK
        block = np.zeros(self.n_features * size, dtype=np.uint16)
        ranks = block.view(np.int16).reshape(self.n_features, size)
        struck, power = np.zeros((4, size), dtype=np.int16), np.zeros(size, dtype=np.float32)
        leaf = np.zeros(size, dtype=np.int32)
        for begin in range(0, planes.shape[1], size):
            count = min(size, planes.shape[1] - begin)
            self.rank(planes, begin, count, size, block)
            bitvector.add_bitvectors(
                ranks, count, p.tree_four, p.four_word, p.feature, p.rank, p.bits, p.tree_words, p.tree_leaf, p.value,
                p.tree_class, struck, power, leaf, sums[:, begin : begin + count],
            )


class Ballot:
    """Votes of a forest in whole numbers, which let a pixel go when the trees left can't change its label.

    A leaf's class shares, times a power of two, are rounded; so a lead is known to within one vote a tree, and
    a pixel whose lead is smaller than that is left `UNDECIDED` for a sum in floating point.
    """

    def __init__(self, trees: Arrays, walker: LaneWalker) -> None:
        self._walker = walker
        n_trees = len(trees["tree_class"])
        scale = float(2 ** int(np.floor(np.log2(2**30 / n_trees))))
        shares = trees["value"]
        exact = (shares[:, 1:] - shares[:, :1] if shares.shape[1] == 2 else shares).T
        self._votes = np.ascontiguousarray(np.rint(exact * scale).astype(np.int32))
        is_leaf = trees["feature"] < 0
        largest = np.zeros(n_trees, dtype=np.int64)
        np.maximum.at(largest, node_trees(trees)[is_leaf], np.abs(self._votes).max(axis=0)[trees["leaf"][is_leaf]])
        stops = {n_trees}
        first, step = (0.5, 0.1) if shares.shape[1] == 2 else (0.35, 0.05)
        stops |= {int(round(n_trees * share)) for share in np.arange(first, 1, step)}
        self._stops = np.asarray(sorted(stops - {0}), dtype=np.int64)
        left = np.concatenate([np.cumsum(largest[::-1])[::-1], [0]])
        self._bounds = left[self._stops] + n_trees + 2

    def labels(self, planes: np.ndarray) -> np.ndarray:
        """Class indices int32 ``(pixels,)``, or `UNDECIDED`, of ``planes`` float32 ``(features, pixels)`` without NaN."""
        from geococa._kernels import forest

        walker, p = self._walker, self._walker.packed
        block, reached = walker.workspace()
        sums = np.zeros((len(self._votes), forest.BLOCK), dtype=np.int32)
        ids = np.zeros(forest.BLOCK, dtype=np.int32)
        out = np.empty(planes.shape[1], dtype=np.int32)
        for begin in range(0, planes.shape[1], forest.BLOCK):
            count = min(forest.BLOCK, planes.shape[1] - begin)
            walker.rank(planes, begin, count, forest.LANES, block)
            forest.decide_labels(block, count, walker.n_features, p.nodes, p.root, p.depth, p.leaf, self._votes,
                                 self._stops, self._bounds, reached, sums, ids, out[begin : begin + count])
        return out
