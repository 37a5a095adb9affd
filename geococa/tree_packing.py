"""Packing: from the flat arrays of a forest to ranks, packed nodes and bit vectors, without changing any answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["BitVectors", "Nodes64", "Ranks", "node_trees", "pack_bitvectors", "pack_nodes", "rank_thresholds"]

_MAX_BUCKETS = 32768
_MAX_CROWD = 2048
_MAX_LEAVES = 64
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

    tree_four: np.ndarray
    four_word: np.ndarray
    feature: np.ndarray
    rank: np.ndarray
    bits: np.ndarray
    tree_words: np.ndarray
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
    if np.diff(buckets.astype(np.int64), axis=1).max() > _MAX_CROWD:
        return None
    end = np.full(2, np.inf, dtype=np.float32)
    thresholds = np.concatenate([part for distinct in lists for part in (distinct, end)]).astype(np.float32)
    start = np.concatenate([[0], np.cumsum(sizes + 2)[:-1]]).astype(np.int64)
    return Ranks(thresholds, start, buckets, origin, scale, node_rank, int(sizes.max()))


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
    shift, word, never = (128, 8, 255) if dtype == np.int8 else (0, 16, np.iinfo(np.int16).max)
    by_class = np.argsort(trees["tree_class"], kind="stable")
    new_place = np.argsort(by_class)
    span, first = _leaf_spans(trees)
    splits: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    tree_of = node_trees(trees)
    for node in np.flatnonzero(trees["feature"] >= 0):
        low = int(first[node])
        high = low + int(span[trees["left"][node]])
        for w in range(low // word, (high - 1) // word + 1):
            begin, end = max(low - w * word, 0), min(high - w * word, word)
            entry = (int(trees["feature"][node]), int(ranks.node_rank[node]), (1 << end) - (1 << begin))
            splits.setdefault((int(new_place[tree_of[node]]), w), []).append(entry)
    table: list[tuple[int, int, int]] = []
    four_word: list[int] = []
    fours = np.zeros(len(leaves), dtype=np.int64)
    for (tree, w), entries in sorted(splits.items()):
        entries = sorted(entries)
        entries += [(entries[-1][0], never, 0)] * (-len(entries) % 4)
        table += entries
        four_word += [w] * (len(entries) // 4)
        fours[tree] += len(entries) // 4
    columns = np.asarray(table, dtype=np.int64).reshape(-1, 3)
    is_leaf = trees["feature"] < 0
    ordered = leaves[by_class]
    tree_leaf = np.concatenate([[0], np.cumsum(ordered)[:-1]]).astype(np.int64)
    value = np.empty((trees["value"].shape[1], int(leaves.sum())), dtype=trees["value"].dtype)
    value[:, tree_leaf[new_place[tree_of[is_leaf]]] + first[is_leaf]] = trees["value"][trees["leaf"][is_leaf]].T
    return BitVectors(
        np.concatenate([[0], np.cumsum(fours)]).astype(np.int64),
        np.asarray(four_word, dtype=np.int64),
        np.ascontiguousarray(columns[:, 0]),
        (columns[:, 1] - shift).astype(dtype),
        columns[:, 2].astype(dtype.str.replace("i", "u")).view(dtype),
        -(-ordered // word).astype(np.int64),
        tree_leaf,
        value,
        np.ascontiguousarray(trees["tree_class"][by_class]),
        shift,
    )


def _leaf_spans(trees: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Leaves under each node, and the number of the first one from the left in its tree."""
    feature, left, right = trees["feature"], trees["left"], trees["right"]
    span = np.ones(len(feature), dtype=np.int64)
    inner = np.flatnonzero(feature >= 0)
    for node in inner[::-1]:  # children come after their parent
        span[node] = span[left[node]] + span[right[node]]
    first = np.zeros(len(feature), dtype=np.int64)
    for node in inner:
        first[left[node]] = first[node]
        first[right[node]] = first[node] + span[left[node]]
    return span, first
