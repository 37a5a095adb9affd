"""Decision trees on pixels: a plain walk for any input, and blocks of pixels through packed trees.

**Plain form.** A forest is a set of flat arrays; node ``i`` is a leaf where ``feature[i] < 0``:

- ``tree_start`` int64 ``(trees + 1,)``: first node of each tree, and the number of nodes;
- ``feature`` int32 ``(nodes,)``, ``threshold`` float64 ``(nodes,)``: go left where ``x <= threshold``;
- ``left``, ``right`` int32 ``(nodes,)``: children, counted over all trees, always after their parent;
- ``missing_left`` uint8 ``(nodes,)``: where NaN goes;
- ``leaf`` int32 ``(nodes,)``: row of ``value`` of a leaf, -1 for other nodes;
- ``value`` float64 ``(leaves, width)``: class shares, or one score (``width`` 1);
- ``tree_class`` int32 ``(trees,)``: class that a tree's one score belongs to, 0 where leaves hold all classes.

**Packed form.** Every feature value is replaced by its rank, the number of the forest's distinct thresholds of
that feature that lie below it; ``x <= thresholds[j]`` is then exactly ``rank <= j``, in integers. Trees are the
outer loop and a block of pixels the inner one, so a tree stays in the first-level cache while the block passes.
See `geococa._kernels.lanes` for nodes and blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel
from geococa._kernels.lanes import LANES, walk_tree

__all__ = ["BLOCK", "add_packed", "add_trees", "add_votes", "let_go", "mean_shares", "rank_values"]

BLOCK = 2730 * LANES
"""Pixels of a block: many, since every tree is read from memory once a block (8 times as many as the second-level
cache holds were 1.6 times as fast for deep trees, and no slower for shallow ones)."""


@inline
def find_leaf(
    planes: Any, pixel: int, node: int, feature: Any, threshold: Any, left: Any, right: Any, missing_left: Any
) -> Any:
    """Return the leaf node that one pixel reaches from ``node``."""
    while feature[node] >= 0:
        x = planes[feature[node], pixel]
        go_left = missing_left[node] != 0 if np.isnan(x) else x <= threshold[node]
        node = left[node] if go_left else right[node]
    return node


@kernel
def add_trees(
    planes: Any,
    tree_start: Any,
    feature: Any,
    threshold: Any,
    left: Any,
    right: Any,
    missing_left: Any,
    leaf: Any,
    value: Any,
    tree_class: Any,
    out: Any,
) -> None:
    """Add the leaf values of every tree, in the order of the trees (plain form).

    Parameters
    ----------
    planes : float32 or float64 (features, pixels)
        Feature values; NaN goes where each node sends it.
    tree_start, feature, threshold, left, right, missing_left, leaf, value, tree_class
        The forest, see the module.
    out : float64 or float32 (classes, pixels)
        Sums to add to; its type is the precision of the sums.
    """
    width = value.shape[1]
    for pixel in range(planes.shape[1]):
        for tree in range(tree_class.shape[0]):
            node = find_leaf(planes, pixel, tree_start[tree], feature, threshold, left, right, missing_left)
            row = leaf[node]
            for column in range(width):
                out[tree_class[tree] + column, pixel] += value[row, column]


@inline
def rank_of(x: Any, thresholds: Any, buckets: Any, first: Any, bucket: Any) -> Any:
    """Return the number of thresholds below ``x``, given its bucket.

    The bucket of a value, ``(value - origin) * scale`` cut to whole numbers, never falls as the value rises, not
    even in floating point. So all thresholds in lower buckets lie below ``x``, those in higher ones do not, and
    only those in the same bucket need to be compared: mostly none or one. (A binary search for crowded
    buckets made this loop five times slower, even where it was never entered.)
    """
    low = np.uint64(buckets[bucket])
    low += np.uint64(thresholds[first + low] < x)
    while thresholds[first + low] < x:
        low += np.uint64(1)
    return low


@inline
def rank_row(
    values: Any,
    thresholds: Any,
    first: Any,
    buckets: Any,
    origin: Any,
    scale: Any,
    single: bool,
    shift: Any,
    row: Any,
    out: Any,
) -> None:
    """Rank the values of one feature, lowered by ``shift``; ``row`` may be ``out``.

    In two loops, since the first runs on many pixels at once and the second can't. Where no bucket has more than a
    ``single`` threshold, one comparison tells the rank, in two thirds of the time.
    """
    last = np.float32(buckets.shape[0] - 2)
    for p in range(values.shape[0]):
        row[p] = np.int32(min(max((values[p] - origin) * scale, np.float32(0)), last))
    if single:
        for p in range(values.shape[0]):
            low = np.uint64(buckets[np.uint64(row[p])])
            out[p] = np.int32(low + np.uint64(thresholds[first + low] < values[p])) - shift
    else:
        for p in range(values.shape[0]):
            out[p] = np.int32(rank_of(values[p], thresholds, buckets, first, np.uint64(row[p]))) - shift


@kernel
def rank_values(
    flat: Any,
    step: int,
    count: int,
    thresholds: Any,
    threshold_start: Any,
    buckets: Any,
    origin: Any,
    scale: Any,
    single: Any,
    row: Any,
    block: Any,
) -> None:
    """Replace feature values by ranks, in groups of `LANES` pixels.

    Parameters
    ----------
    flat : float32 (any,); step : int
        Feature values of the pixels, not NaN: feature ``f`` of the first one is at ``f * step``.
    count : int
        Number of pixels.
    thresholds : float32 (any,)
        Distinct thresholds of each feature, rising, followed by +inf twice, where every scan ends.
    threshold_start : int64 (features,)
        Where a feature's thresholds start.
    buckets : uint16 (features, buckets + 1)
        Number of thresholds in lower buckets.
    origin, scale : float32 (features,)
        Bucket of a value, see `rank_of`.
    single : bool (features,)
        Whether no bucket of a feature has more than one threshold.
    row : uint32 (at least count,)
        Workspace.
    block : uint16 (groups * features * LANES,)
        Ranks ``(groups, features, LANES)``; lanes beyond ``count`` are left as they are.
    """
    n_features = threshold_start.shape[0]
    groups = count // LANES
    for f in range(n_features):
        values = flat[f * step : f * step + count]
        first, kept = np.uint64(threshold_start[f]), np.int32(0)
        rank_row(values, thresholds, first, buckets[f], origin[f], scale[f], single[f], kept, row, row)
        for group in range(groups):
            place = (group * n_features + f) * LANES
            for lane in range(LANES):
                block[place + lane] = row[group * LANES + lane]
        for p in range(groups * LANES, count):
            block[(groups * n_features + f) * LANES + p - groups * LANES] = row[p]


@inline
def add_values(reached: Any, count: int, leaf: Any, value: Any, first: Any, sums: Any) -> None:
    """Add the values of the leaves that were reached, one class after the other."""
    for p in range(count):
        reached[p] = leaf[reached[p]]
    for k in range(value.shape[0]):
        column = value[k]
        total = sums[first + k]
        for p in range(count):
            total[p] += column[reached[p]]


@kernel
def add_packed(
    block: Any,
    count: int,
    n_features: int,
    nodes: Any,
    root: Any,
    depth: Any,
    leaf: Any,
    value: Any,
    tree_class: Any,
    reached: Any,
    sums: Any,
) -> None:
    """Add the leaf values of every tree, in the order of the trees (packed form).

    Parameters
    ----------
    block : uint16 (groups * n_features * LANES,)
        Ranks of ``count`` pixels; further lanes may hold anything.
    nodes : uint64 (nodes,); root : uint64 (trees,); depth : int64 (trees,)
        Packed trees.
    leaf : uint32 (nodes,)
        Column of ``value`` of each leaf node, 0 for other nodes.
    value : float64 (width, leaves)
        Class shares or one score.
    tree_class : int32 (trees,)
        First class that a tree adds to.
    reached : uint32 (groups * LANES,)
        Workspace.
    sums : float64 or float32 (classes, at least count)
        Sums to add to.
    """
    group_size = np.uint64(n_features * LANES)
    n_groups = (count + LANES - 1) // LANES
    for tree in range(root.shape[0]):
        walk_tree(nodes, block, group_size, n_groups, root[tree], depth[tree], reached)
        add_values(reached, count, leaf, value, tree_class[tree], sums)


@inline
def add_words(reached: Any, count: int, leaf: Any, votes: Any, sums: Any) -> None:
    """Add the votes of the leaves that were reached, two classes a word; written out for the usual numbers."""
    n_words = votes.shape[1]
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    if n_words == 1:
        for i in range(count):
            sums[i, 0] += votes[leaf[reached[i]], 0]
        return
    for i in range(count):
        p = np.uint64(i)
        row = np.uint64(leaf[reached[p]])
        sums[p, 0] += votes[row, 0]
        sums[p, one] += votes[row, one]
        if n_words >= 3:
            sums[p, two] += votes[row, two]
        if n_words >= 4:
            sums[p, three] += votes[row, three]
            for w in range(4, n_words):
                sums[p, w] += votes[row, w]


@inline
def votes_for(sums: Any, p: int, k: int) -> Any:
    """Return the votes of one pixel for class ``k``."""
    word = sums[p, k >> 1]
    return np.int64(word >> np.uint64(32)) if k & 1 else np.int64(word & np.uint64(0xFFFFFFFF))


@inline
def leader(sums: Any, p: int, n_classes: int) -> Any:
    """Return the class with most votes of one pixel, and its lead over the next."""
    best, most, second = 0, votes_for(sums, p, 0), np.int64(-1)
    for k in range(1, n_classes):
        votes = votes_for(sums, p, k)
        if votes > most:
            best, most, second = k, votes, most
        elif votes > second:
            second = votes
    return best, most - second


@kernel
def add_votes(
    block: Any,
    count: int,
    n_features: int,
    nodes: Any,
    root: Any,
    depth: Any,
    leaf: Any,
    votes: Any,
    begin: int,
    end: int,
    reached: Any,
    sums: Any,
) -> None:
    """Add the votes of some trees for a block of pixels.

    Parameters
    ----------
    block, count, n_features, nodes, root, depth, leaf, reached
        As in `add_packed`.
    votes : uint64 (leaves, words)
        Class shares times a power of two, rounded: an even class in the low half of word ``class // 2``, an odd
        one in the high half. The power is so small that no sum over all trees leaves its half.
    begin, end : int
        First tree, and the one after the last.
    sums : uint64 (at least count, words)
        Sums to add to.
    """
    group_size = np.uint64(n_features * LANES)
    n_groups = (count + LANES - 1) // LANES
    for tree in range(begin, end):
        walk_tree(nodes, block, group_size, n_groups, root[tree], depth[tree], reached)
        add_words(reached, count, leaf, votes, sums)


@kernel
def mean_shares(sums: Any, count: int, factor: float, out: Any) -> None:
    """Turn sums of votes, uint64 (pixels, words), into shares ``out`` float64 (classes, count), times ``factor``."""
    for k in range(out.shape[0]):
        for p in range(count):
            out[k, p] = votes_for(sums, p, k) * factor


@inline
def move_pixel(block: Any, n_features: int, source: int, target: int) -> None:
    """Copy the ranks of one pixel to another place of the block."""
    here = (target // LANES) * n_features * LANES + target % LANES
    there = (source // LANES) * n_features * LANES + source % LANES
    for f in range(n_features):
        block[here + f * LANES] = block[there + f * LANES]


@kernel
def let_go(block: Any, count: int, n_features: int, n_classes: int, bound: int, sums: Any, ids: Any, out: Any) -> int:
    """Label the pixels whose lead is safe, and move the others together, so that the lanes stay full.

    Parameters
    ----------
    block : uint16 (groups * n_features * LANES,); count : int; n_features : int
        Ranks of the pixels that are left; reordered.
    n_classes : int
        Number of classes.
    bound : int
        Lead that is safe: more than the trees to come can change, rounding included.
    sums : uint64 (at least count, words); ids : int32 (at least count,)
        Votes and places in ``out`` of the pixels that are left; reordered.
    out : int32 (pixels,)
        Class index of the pixels that are let go.

    Returns
    -------
    int
        Number of pixels that are left.
    """
    kept = 0
    for p in range(count):
        best, lead = leader(sums, p, n_classes)
        if lead > bound:
            out[ids[p]] = best
            continue
        if kept != p:
            move_pixel(block, n_features, p, kept)
            sums[kept] = sums[p]
            ids[kept] = ids[p]
        kept += 1
    return kept
