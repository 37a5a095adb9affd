"""Packing: from the flat arrays of a forest to ranks, packed nodes and bit vectors, without changing any answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["BitVectors", "Nodes64", "Ranks", "node_trees", "pack_bitvectors", "pack_nodes", "rank_thresholds"]

_MAX_BUCKETS = 32768
_MAX_CROWD = 2048
_MAX_LEAVES = 64
_HALF = 32  # leaves looked at together, see _kernels.bitvector
_MAX_DEPTH = 255
_NO_RANK = 65535
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Ranks:
    """Distinct thresholds of every feature, with tables that find a value's rank; see `_kernels.forest.rank_values`."""

    thresholds: np.ndarray
    start: np.ndarray
    buckets: np.ndarray
    origin: np.ndarray
    scale: np.ndarray
    single: np.ndarray
    node_rank: np.ndarray
    most: int


@dataclass(frozen=True)
class Nodes64:
    """Packed trees for `_kernels.forest.add_packed`."""

    nodes: np.ndarray
    root: np.ndarray
    depth: np.ndarray
    leaf: np.ndarray
    value: np.ndarray
    tree_class: np.ndarray


@dataclass(frozen=True)
class BitVectors:
    """Small trees for `_kernels.bitvector.add_bitvectors`."""

    tree_word: np.ndarray
    word_split: np.ndarray
    plane: np.ndarray
    bound: np.ndarray
    bits: np.ndarray
    tree_leaf: np.ndarray
    value: np.ndarray
    tree_class: np.ndarray
    shift: int
    """What ranks are lowered by."""


def rank_thresholds(trees: Arrays, n_features: int) -> Ranks | None:
    """Rank the thresholds of every feature; None where one has too many for 16 bits.

    Thresholds that crowd together beyond what buckets can part are left to the plain walk, too.

    Features are float32, so a threshold may be lowered to the next float32 without changing any comparison.
    """
    feature, exact = trees["feature"], trees["threshold"]
    with np.errstate(over="ignore"):
        lowered = exact.astype(np.float32)
        below = np.nextafter(lowered, np.float32(-np.inf))
    lowered = np.where(lowered.astype(np.float64) > exact, below, lowered)
    node_rank = np.full(len(feature), _NO_RANK, dtype=np.int64)
    lists: list[np.ndarray] = []
    for f in range(n_features):
        here = feature == f
        distinct, node_rank[here] = np.unique(lowered[here], return_inverse=True)
        lists.append(distinct)
    sizes = np.asarray([len(distinct) for distinct in lists])
    if sizes.max() >= _NO_RANK:
        return None
    n_buckets = int(np.clip(2 ** np.ceil(np.log2(8.0 * max(int(sizes.max()), 1))), 256, _MAX_BUCKETS))
    origin, scale = np.zeros(n_features, np.float32), np.ones(n_features, np.float32)
    buckets = np.zeros((n_features, n_buckets + 1), dtype=np.uint16)
    for f, distinct in enumerate(lists):
        origin[f], scale[f], buckets[f] = _bucket_table(distinct, n_buckets)
    crowd = np.diff(buckets.astype(np.int64), axis=1).max(axis=1)
    if crowd.max() > _MAX_CROWD:
        return None
    end = np.full(2, np.inf, dtype=np.float32)
    thresholds = np.concatenate([part for distinct in lists for part in (distinct, end)]).astype(np.float32)
    start = np.concatenate([[0], np.cumsum(sizes + 2)[:-1]]).astype(np.int64)
    return Ranks(thresholds, start, buckets, origin, scale, crowd <= 1, node_rank, int(sizes.max()))


def _bucket_table(distinct: np.ndarray, n_buckets: int) -> tuple[np.float32, np.float32, np.ndarray]:
    """Origin, buckets per unit and thresholds below each bucket, for the range that spreads the thresholds best.

    A few thresholds far out must not crowd all others into one bucket.
    """
    finite = distinct[np.isfinite(distinct)].astype(np.float64)
    tables = []
    for trim in (0.0, 0.01, 0.1) if len(finite) else ():
        low, high = np.quantile(finite, [trim, 1 - trim])
        with np.errstate(all="ignore"):
            origin, scale = np.float32(low), np.float32(n_buckets / (high - low))
            if not (np.isfinite(scale) and scale > 0):
                scale = np.float32(1)
            # the very arithmetic of the kernel
            place = np.minimum(np.maximum((distinct - origin) * scale, np.float32(0)), np.float32(n_buckets - 1))
        counts = np.bincount(place.astype(np.int64), minlength=n_buckets)
        crowd = float((counts.astype(np.float64) ** 2).sum())
        tables.append((crowd, trim, origin, scale, np.concatenate([[0], np.cumsum(counts)])))
    if not tables:
        return np.float32(0), np.float32(1), np.concatenate([[0], np.full(n_buckets, len(distinct))])
    _, _, origin, scale, table = min(tables, key=lambda entry: entry[:2])
    return origin, scale, table


def pack_nodes(trees: Arrays, ranks: Ranks, n_features: int, lanes: int) -> Nodes64 | None:
    """Pack every tree level by level; None where a tree is too deep or features are too many for the node word."""
    if n_features * lanes > 1 << 16:
        return None
    levels = _levels(trees)
    if len(levels) > _MAX_DEPTH + 1:
        return None
    tree_of = node_trees(trees)
    order = np.concatenate(levels)
    level_of = np.repeat(np.arange(len(levels)), [len(level) for level in levels])
    by_tree = np.argsort(tree_of[order], kind="stable")
    order, level_of = order[by_tree], level_of[by_tree]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    is_leaf = trees["feature"] < 0
    child = np.where(is_leaf, place, place[np.maximum(trees["left"], 0)]).astype(np.uint64)
    offset = np.where(is_leaf, 0, trees["feature"].astype(np.int64) * lanes).astype(np.uint64)
    words = (child << np.uint64(32)) | (offset << np.uint64(16)) | ranks.node_rank.astype(np.uint64)
    depth = np.zeros(len(trees["tree_class"]), dtype=np.int64)
    np.maximum.at(depth, tree_of[order], level_of)
    leaf = np.maximum(trees["leaf"], 0).astype(np.uint32)
    return Nodes64(
        words[order],
        trees["tree_start"][:-1].astype(np.uint64),
        depth,
        leaf[order],
        np.ascontiguousarray(trees["value"].T),
        trees["tree_class"],
    )


def _levels(trees: Arrays) -> list[np.ndarray]:
    """Nodes of each level of all trees; the two children of a node side by side."""
    level = trees["tree_start"][:-1]
    levels: list[np.ndarray] = []
    while len(level) and len(levels) <= _MAX_DEPTH + 1:
        levels.append(level)
        inner = level[trees["feature"][level] >= 0]
        level = np.stack([trees["left"][inner], trees["right"][inner]], axis=1).ravel().astype(np.int64)
    return levels


def node_trees(trees: Arrays) -> np.ndarray:
    """Tree that each node belongs to."""
    start = trees["tree_start"]
    return np.repeat(np.arange(len(start) - 1), np.diff(start))


def pack_bitvectors(trees: Arrays, ranks: Ranks) -> BitVectors | None:
    """Make bit vectors; None where a tree has too many leaves or a feature too many thresholds.

    Trees are put in the order of the class that they add to, and stay in their order within a class.
    """
    start = trees["tree_start"]
    leaves = np.add.reduceat(trees["feature"] < 0, start[:-1])
    if leaves.max() > _MAX_LEAVES or ranks.most >= np.iinfo(np.int16).max:
        return None
    dtype = np.dtype(np.int8 if ranks.most < np.iinfo(np.uint8).max else np.int16)
    # ranks of bytes are moved down, so that they fit the signed numbers that the processor compares
    shift = 128 if dtype == np.int8 else 0
    by_class = np.argsort(trees["tree_class"], kind="stable")
    new_place = np.argsort(by_class)[node_trees(trees)]
    smaller, first = _leaf_order(trees)
    halves = -(-leaves[by_class] // _HALF)
    tree_word = np.concatenate([[0], np.cumsum(halves * (_HALF // (8 * dtype.itemsize)))]).astype(np.int64)
    splits = _splits(trees, len(ranks.start), ranks.node_rank - shift, smaller, first, tree_word[new_place], dtype)
    table, word_split = _paired(splits, int(tree_word[-1]), -(2 ** (8 * dtype.itemsize - 1)))
    is_leaf = trees["feature"] < 0
    tree_leaf = np.concatenate([[0], np.cumsum(leaves[by_class])[:-1]]).astype(np.int64)
    value = np.empty((trees["value"].shape[1], int(leaves.sum())), dtype=trees["value"].dtype)
    value[:, tree_leaf[new_place[is_leaf]] + first[is_leaf]] = trees["value"][trees["leaf"][is_leaf]].T
    return BitVectors(
        tree_word,
        word_split,
        np.ascontiguousarray(table[:, 0]),
        table[:, 1].astype(dtype),
        table[:, 2].astype(dtype.str.replace("i", "u")).view(dtype),
        tree_leaf,
        value,
        np.ascontiguousarray(trees["tree_class"][by_class]),
        shift,
    )


def _splits(
    trees: Arrays,
    n_features: int,
    rank: np.ndarray,
    smaller: np.ndarray,
    first: np.ndarray,
    word_of: np.ndarray,
    dtype: np.dtype,
) -> dict[int, list[tuple[int, int, int]]]:
    """Splits of each word: plane, what it must stay below, and the leaves that a pixel which does so can't reach.

    A pixel goes left where its rank is below the next after the split's, and right where the complement of its rank
    is below the complement of the split's.
    """
    bits = 8 * dtype.itemsize
    splits: dict[int, list[tuple[int, int, int]]] = {}
    for node in np.flatnonzero(trees["feature"] >= 0):
        plane, bound = int(trees["feature"][node]), int(rank[node])
        plane, bound = (plane, bound + 1) if smaller[node] == trees["right"][node] else (plane + n_features, ~bound)
        low = int(first[smaller[node]])
        other = trees["left"][node] + trees["right"][node] - smaller[node]
        high = int(first[other])
        for w in range(low // bits, (high - 1) // bits + 1):
            begin, end = max(low - w * bits, 0), min(high - w * bits, bits)
            splits.setdefault(int(word_of[node]) + w, []).append((plane, bound, (1 << end) - (1 << begin)))
    return splits


def _paired(
    splits: Mapping[int, list[tuple[int, int, int]]], n_words: int, never: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits of all words in a row, an even number and at least two of each, and where each word's begin."""
    table: list[tuple[int, int, int]] = []
    word_split = [0]
    for word in range(n_words):
        found = sorted(splits.get(word, []))
        if not found or len(found) % 2:
            found = found + [(0, never, 0)] * (1 if found else 2)
        table += found
        word_split.append(len(table))
    return np.asarray(table, dtype=np.int64).reshape(-1, 3), np.asarray(word_split, dtype=np.int64)


def _leaf_order(trees: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Child of each node with fewer leaves, the left one of equals, and the number of each node's first leaf.

    Leaves are numbered in each tree such that those of the smaller child come first: a split then strikes out few.
    """
    feature, left, right = trees["feature"], trees["left"], trees["right"]
    span = np.ones(len(feature), dtype=np.int64)
    inner = np.flatnonzero(feature >= 0)
    for node in inner[::-1]:  # children come after their parent
        span[node] = span[left[node]] + span[right[node]]
    smaller = np.where(span[np.maximum(left, 0)] <= span[np.maximum(right, 0)], left, right)
    first = np.zeros(len(feature), dtype=np.int64)
    for node in inner:
        other = left[node] + right[node] - smaller[node]
        first[smaller[node]] = first[node]
        first[other] = first[node] + span[smaller[node]]
    return smaller, first
