"""Walkers: packed trees with the workspaces that their kernels need, block after block of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    """Tables that rank the values of features."""

    def __init__(self, ranks: Ranks) -> None:
        self._tables = (ranks.thresholds, ranks.start, ranks.buckets, ranks.origin, ranks.scale, ranks.single)
        self.n_features = len(ranks.start)


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
        from geococa._kernels.planes import flat_planes

        p = self.packed
        block, reached = self.workspace()
        flat, step = flat_planes(planes)
        for begin in range(0, planes.shape[1], forest.BLOCK):
            count = min(forest.BLOCK, planes.shape[1] - begin)
            self.rank(flat, step, begin, count, block)
            forest.add_packed(
                block,
                count,
                self.n_features,
                p.nodes,
                p.root,
                p.depth,
                p.leaf,
                p.value,
                p.tree_class,
                reached,
                sums[:, begin : begin + count],
            )

    def rank(self, flat: np.ndarray, step: int, begin: int, count: int, block: np.ndarray) -> None:
        """Rank ``count`` pixels from ``begin`` into a block."""
        from geococa._kernels import forest

        row = np.empty(count, dtype=np.uint32)
        with np.errstate(over="ignore"):  # as plain Python: a bucket beyond the last is cut to it
            forest.rank_values(flat[begin:], step, count, *self._tables, row, block)

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
        packed = pack_bitvectors(trees, ranks)
        return None if packed is None else cls(ranks, packed)

    def add(self, planes: np.ndarray, sums: np.ndarray) -> None:
        """Add to ``sums`` ``(classes, pixels)``."""
        from geococa._kernels import bitvector
        from geococa._kernels.planes import flat_planes

        p = self.packed
        size = bitvector.BLOCK
        flat, step = flat_planes(planes)
        codes = bitvector.leaf_codes(p.bound.dtype)
        row = np.empty(size, dtype=np.uint32)
        ranks = np.zeros((2 * self.n_features, size), dtype=p.bound.dtype)
        struck = np.zeros((int(np.diff(p.tree_word).max()), size), dtype=p.bound.dtype)
        leaf = np.zeros((bitvector.FUSED, size), dtype=np.int8)
        for begin in range(0, planes.shape[1], size):
            count = min(size, planes.shape[1] - begin)
            with np.errstate(over="ignore"):  # as plain Python: bytes wrap, and a bucket beyond the last is cut to it
                bitvector.rank_planes(flat[begin:], step, count, *self._tables, p.shift, row, ranks)
                bitvector.add_bitvectors(
                    ranks,
                    count,
                    p.tree_word,
                    p.word_split,
                    p.plane,
                    p.bound,
                    p.bits,
                    p.tree_leaf,
                    p.value,
                    p.tree_class,
                    codes,
                    struck,
                    leaf,
                    sums[:, begin : begin + count],
                )


class Ballot:
    """Votes of a forest in whole numbers, two classes a word.

    A leaf's class shares, times a power of two, are rounded, so that a mean share is known to within half of one
    over that power (1.5e-8 for 100 trees). Sums are then exact in any order, and for labels a pixel is let go
    when the trees left can't change its label. Where the lead is within the rounding, the label is left
    `UNDECIDED` for a sum in floating point.
    """

    def __init__(self, trees: Arrays, walker: LaneWalker) -> None:
        self._walker = walker
        shares = trees["value"]
        n_trees, self._n_classes = len(trees["tree_class"]), shares.shape[1]
        power = 2.0 ** np.floor(np.log2((2**32 - 1) / n_trees))
        whole = np.minimum(np.rint(shares * power), power).astype(np.uint64)
        self._votes = np.zeros((len(shares), -(-self._n_classes // 2)), dtype=np.uint64)
        for k in range(self._n_classes):
            self._votes[:, k // 2] |= whole[:, k] << np.uint64(32 * (k % 2))
        self._factor = 1.0 / (power * n_trees)
        first, step = (0.5, 0.1) if self._n_classes == 2 else (0.35, 0.05)
        stops = {n_trees} | {round(n_trees * share) for share in np.arange(first, 1, step)}
        self._stops = np.asarray(sorted(stops - {0}), dtype=np.int64)
        self._bounds = _largest_swing(trees, whole)[self._stops] + n_trees + 2

    def labels(self, planes: np.ndarray) -> np.ndarray:
        """Class indices int32 ``(pixels,)``, or `UNDECIDED`, of ``planes`` float32 ``(features, pixels)`` without NaN."""
        from geococa._kernels import forest

        out = np.full(planes.shape[1], UNDECIDED, dtype=np.int32)
        places = np.arange(forest.BLOCK, dtype=np.int32)
        n_features = self._walker.n_features
        for begin, left, block, vote in self._blocks(planes):
            ids, target, tree = places.copy(), out[begin : begin + left], 0
            for stop, bound in zip(self._stops, self._bounds, strict=True):
                sums = vote(left, tree, stop)
                left = forest.let_go(block, left, n_features, self._n_classes, bound, sums, ids, target)
                tree = stop
                if not left:
                    break
        return out

    def shares(self, planes: np.ndarray) -> np.ndarray:
        """Mean class shares float64 ``(classes, pixels)``; for ``planes`` see `labels`."""
        from geococa._kernels import forest

        out = np.empty((self._n_classes, planes.shape[1]))
        for begin, count, _, vote in self._blocks(planes):
            sums = vote(count, 0, self._stops[-1])
            forest.mean_shares(sums, count, self._factor, out[:, begin : begin + count])
        return out

    def _blocks(
        self, planes: np.ndarray
    ) -> Iterator[tuple[int, int, np.ndarray, Callable[[int, int, int], np.ndarray]]]:
        """Yield each block's first pixel, number of pixels, ranks, and a function that adds the votes of some trees."""
        from geococa._kernels import forest
        from geococa._kernels.planes import flat_planes

        walker, p = self._walker, self._walker.packed
        flat, step = flat_planes(planes)
        block, reached = walker.workspace()
        sums = np.zeros((forest.BLOCK, self._votes.shape[1]), dtype=np.uint64)

        def vote(count: int, begin: int, end: int) -> np.ndarray:
            forest.add_votes(
                block,
                count,
                walker.n_features,
                p.nodes,
                p.root,
                p.depth,
                p.leaf,
                self._votes,
                begin,
                end,
                reached,
                sums,
            )
            return sums

        for begin in range(0, planes.shape[1], forest.BLOCK):
            count = min(forest.BLOCK, planes.shape[1] - begin)
            walker.rank(flat, step, begin, count, block)
            sums[:] = 0
            yield begin, count, block, vote


def _largest_swing(trees: Arrays, whole: np.ndarray) -> np.ndarray:
    """Most that the trees from each one on can change the lead of one class over another, int64 ``(trees + 1,)``."""
    is_leaf = trees["feature"] < 0
    largest = np.zeros(len(trees["tree_class"]), dtype=np.int64)
    swing = (whole.max(axis=1) - whole.min(axis=1)).astype(np.int64)
    np.maximum.at(largest, node_trees(trees)[is_leaf], swing[trees["leaf"][is_leaf]])
    return np.concatenate([np.cumsum(largest[::-1])[::-1], [0]])
