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

__all__ = ["BLOCK", "UNDECIDED", "add_packed", "add_trees", "decide_labels", "rank_values"]

BLOCK = 170 * LANES
"""Pixels of a block; their ranks and sums fit in the second-level cache."""
UNDECIDED = -2
"""Label of a pixel whose lead is within the rounding of the votes."""


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
def rank_of(x: Any, thresholds: Any, buckets: Any, first: Any, origin: float, scale: float, last: int) -> Any:
    """Return the number of thresholds below ``x``.

    The bucket of a value, ``(value - origin) * scale`` cut to whole numbers, never falls as the value rises, not
    even in floating point. So all thresholds in lower buckets lie below ``x``, those in higher ones do not, and
    only those in the same bucket need to be compared: mostly none or one.
    """
    place = (np.float64(x) - origin) * scale
    bucket = np.int64(min(max(place, 0.0), np.float64(last)))
    low = np.int64(buckets[bucket])
    low += thresholds[first + low] < x
    low += thresholds[first + low] < x
    if thresholds[first + low] < x:
        high = np.int64(buckets[bucket + 1])
        while low < high:
            middle = (low + high) >> 1
            if thresholds[first + middle] < x:
                low = middle + 1
            else:
                high = middle
    return low


@kernel
def rank_values(
    planes: Any,
    begin: int,
    count: int,
    thresholds: Any,
    threshold_start: Any,
    buckets: Any,
    origin: Any,
    scale: Any,
    lanes: int,
    block: Any,
) -> None:
    """Replace feature values by ranks, in groups of ``lanes`` pixels.

    Parameters
    ----------
    planes : float32 (features, pixels)
        Feature values, not NaN.
    begin, count : int
        First pixel and number of pixels.
    thresholds : float32 (any,)
        Distinct thresholds of each feature, rising, followed by +inf twice.
    threshold_start : int64 (features,)
        Where a feature's thresholds start.
    buckets : uint16 (features, buckets + 1)
        Number of thresholds in lower buckets.
    origin, scale : float64 (features,)
        Bucket of a value, see `rank_of`.
    lanes : int
        Pixels of a group; the whole block for plane after plane.
    block : uint16 (groups * features * lanes,)
        Ranks ``(groups, features, lanes)``; lanes beyond ``count`` are left as they are.
    """
    n_features = planes.shape[0]
    last = buckets.shape[1] - 2
    for f in range(n_features):
        first, start, factor = threshold_start[f], origin[f], scale[f]
        table = buckets[f]
        for offset in range(0, count, lanes):
            place = offset * n_features + f * lanes
            for lane in range(min(lanes, count - offset)):
                x = planes[f, begin + offset + lane]
                block[place + lane] = rank_of(x, thresholds, table, first, start, factor, last)


@inline
def add_values(reached: Any, count: int, leaf: Any, value: Any, first: Any, sums: Any) -> None:
    """Add the values of the leaves that were reached, one class after the other."""
    for k in range(value.shape[0]):
        column = value[k]
        total = sums[first + k]
        for p in range(count):
            total[p] += column[leaf[reached[p]]]


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
def leader(sums: Any, p: int) -> Any:
    """Return the class with most votes of one pixel, and its lead over the next; one plane holds class 1 less class 0."""
    n_classes = sums.shape[0]
    if n_classes == 1:
        margin = np.int64(sums[0, p])
        return (1, margin) if margin > 0 else (0, -margin)
    best, most, second = 0, np.int64(sums[0, p]), np.int64(-1)
    for k in range(1, n_classes):
        votes = np.int64(sums[k, p])
        if votes > most:
            best, most, second = k, votes, most
        elif votes > second:
            second = votes
    return best, most - second


@inline
def move_pixel(block: Any, n_features: int, source: int, target: int) -> None:
    """Copy the ranks of one pixel to another place of the block."""
    here = (target // LANES) * n_features * LANES + target % LANES
    there = (source // LANES) * n_features * LANES + source % LANES
    for f in range(n_features):
        block[here + f * LANES] = block[there + f * LANES]


@kernel
def decide_labels(
    block: Any,
    count: int,
    n_features: int,
    nodes: Any,
    root: Any,
    depth: Any,
    leaf: Any,
    votes: Any,
    stops: Any,
    bounds: Any,
    reached: Any,
    sums: Any,
    ids: Any,
    out: Any,
) -> None:
    """Label a block by votes in whole numbers, and let go of each pixel as soon as its lead is safe.

    After some trees the pixels whose lead the remaining trees can't overturn get their label; the others move
    together, so that the lanes stay full.

    Parameters
    ----------
    block, count, n_features, nodes, root, depth, leaf, reached
        As in `add_packed`; ``block`` is reordered.
    votes : int32 (classes, leaves)
        Class shares times a power of two, rounded; for two classes one plane, class 1 less class 0.
    stops : int64 (stops,)
        Numbers of trees after which leads are looked at; the last one is the number of trees.
    bounds : int64 (stops,)
        Lead that is safe at each stop, rounding included.
    sums : int32 (planes of votes, groups * LANES); ids : int32 (groups * LANES,)
        Workspace.
    out : int32 (count,)
        Class index, or `UNDECIDED` where even all trees leave the lead within the rounding.
    """
    group_size = np.uint64(n_features * LANES)
    alive = count
    for p in range(count):
        ids[p] = p
        for k in range(sums.shape[0]):
            sums[k, p] = 0
    tree = 0
    for stop in range(stops.shape[0]):
        n_groups = (alive + LANES - 1) // LANES
        while tree < stops[stop]:
            walk_tree(nodes, block, group_size, n_groups, root[tree], depth[tree], reached)
            add_values(reached, alive, leaf, votes, 0, sums)
            tree += 1
        kept = 0
        for p in range(alive):
            best, lead = leader(sums, p)
            if lead > bounds[stop]:
                out[ids[p]] = best
                continue
            if kept != p:
                move_pixel(block, n_features, p, kept)
                for k in range(sums.shape[0]):
                    sums[k, kept] = sums[k, p]
                ids[kept] = ids[p]
            kept += 1
        alive = kept
        if alive == 0:
            return
    for p in range(alive):
        out[ids[p]] = UNDECIDED
