"""Small trees by bit vectors: every split of a tree at once for a block of pixels, no walk at all.

The leaves of a tree are numbered from left to right, one bit each. A pixel that goes right at a split can't end in
a leaf left of it, so those bits are struck out. When all splits have been looked at, the first bit that is left is
the pixel's leaf, in whatever order the splits came [1]_. Each split is one comparison over contiguous pixels, which the
processor does for many at once.

Bits and ranks are bytes where a feature has at most 254 distinct thresholds (boosting that bins its features has no
more), and 16 bits otherwise; with bytes the processor compares twice as many pixels at once. Splits are kept in fours
that strike out bits of the same word; a four is filled up with splits that no pixel passes.

References
----------
.. [1] Lucchese et al. (2015), QuickScorer: a fast algorithm to rank documents with additive ensembles of
   regression trees, SIGIR, doi:10.1145/2766462.2767733.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["BLOCK", "FUSED", "HALF", "add_bitvectors"]

BLOCK = 2048
"""Pixels of a block; the planes of their ranks fit in the second-level cache."""
HALF = 32
"""Leaves that are looked at together when the first one left is sought."""
FUSED = 4
"""Trees whose leaves are added in one pass over the sums."""


@inline
def strike_out(ranks: Any, feature: Any, rank: Any, bits: Any, four: int, struck: Any) -> None:
    """Strike out what four splits exclude, for every pixel of a block."""
    s = 4 * four
    x0, x1, x2, x3 = ranks[feature[s]], ranks[feature[s + 1]], ranks[feature[s + 2]], ranks[feature[s + 3]]
    t0, t1, t2, t3 = rank[s], rank[s + 1], rank[s + 2], rank[s + 3]
    b0, b1, b2, b3 = bits[s], bits[s + 1], bits[s + 2], bits[s + 3]
    none = b0 ^ b0
    for p in range(struck.shape[0]):
        mask = struck[p]
        mask |= b0 if x0[p] > t0 else none
        mask |= b1 if x1[p] > t1 else none
        mask |= b2 if x2[p] > t2 else none
        mask |= b3 if x3[p] > t3 else none
        struck[p] = mask


@inline
def lowest_bit(struck: Any, first: int, word: int, power: Any) -> None:
    """Find the first leaf of a half that is not struck out, as a power of two; zero where there is none.

    The words of the half, of ``word`` bits each, are put side by side; the highest leaf gives minus 2**31.
    """
    byte, short = np.int32(0xFF), np.int32(0xFFFF)
    if word == 8:
        s0, s1, s2, s3 = struck[first], struck[first + 1], struck[first + 2], struck[first + 3]
        for p in range(power.shape[0]):
            low = (np.int32(s0[p]) & byte) | ((np.int32(s1[p]) & byte) << np.int32(8))
            high = (np.int32(s2[p]) & byte) | ((np.int32(s3[p]) & byte) << np.int32(8))
            left = np.int32(~(low | (high << np.int32(16))))
            power[p] = np.float32(np.int32(left & np.int32(-left)))
        return
    s0, s1 = struck[first], struck[first + 1]
    for p in range(power.shape[0]):
        left = np.int32(~((np.int32(s0[p]) & short) | (np.int32(s1[p]) << np.int32(16))))
        power[p] = np.float32(np.int32(left & np.int32(-left)))


@inline
def take_leaf(half: int, exponent: Any, leaf: Any) -> None:
    """Take the leaf that `lowest_bit` found, where there is one.

    A power of two has its exponent in its floating-point form, so that it is found by arithmetic which runs on many
    pixels at once, as a jump or a conditional store would not.
    """
    begin = np.int32(HALF * half)
    for p in range(leaf.shape[0]):
        place = np.int32(((exponent[p] >> np.int32(23)) & np.int32(0xFF)) - np.int32(127))
        none = np.int32(place >> np.int32(31))
        leaf[p] = np.uint8((np.int32(leaf[p]) & none) | (np.int32(begin + place) & ~none))


@inline
def add_leaves(leaf: Any, trees: int, starts: Any, column: Any, count: int, total: Any) -> None:
    """Add the leaf values of some trees, at most `FUSED`, in their order."""
    if trees == FUSED:
        l0, l1, l2, l3 = leaf[0], leaf[1], leaf[2], leaf[3]
        v0, v1, v2, v3 = column[starts[0] :], column[starts[1] :], column[starts[2] :], column[starts[3] :]
        for i in range(count):
            p = np.uint64(i)
            total[p] = (((total[p] + v0[l0[p]]) + v1[l1[p]]) + v2[l2[p]]) + v3[l3[p]]
        return
    for tree in range(trees):
        values, reached = column[starts[tree] :], leaf[tree]
        for i in range(count):
            total[i] += values[reached[i]]


@kernel
def add_bitvectors(
    ranks: Any,
    count: int,
    tree_four: Any,
    four_word: Any,
    feature: Any,
    rank: Any,
    bits: Any,
    tree_words: Any,
    tree_leaf: Any,
    value: Any,
    tree_class: Any,
    struck: Any,
    power: Any,
    leaf: Any,
    sums: Any,
) -> None:
    """Add the leaf values of every tree, in the order of the trees.

    Parameters
    ----------
    ranks : int8 or int16 (features, BLOCK)
        Ranks of the pixels' features.
    count : int
        Pixels that count; the others may hold anything.
    tree_four : int64 (trees + 1,)
        First four of splits of each tree.
    four_word : int64 (fours,)
        Word that a four strikes out bits of.
    feature : int64 (4 * fours,); rank, bits : as ranks (4 * fours,)
        Splits: feature, threshold rank, and the leaves left of the split within the word.
    tree_words, tree_leaf : int64 (trees,)
        Number of words of a tree, and the place of its first leaf in ``value``.
    value : float64 or float32, as sums (width, leaves)
        Class shares, or one score.
    tree_class : int32 (trees,)
        First class that a tree adds to; trees of the same class should stand together.
    struck : as ranks (words, BLOCK); power : float32 (BLOCK,); leaf : uint8 (FUSED, BLOCK)
        Workspace.
    sums : float64 or float32 (classes, at least count)
        Sums to add to.
    """
    exponent = power.view(np.int32)
    word = 8 * ranks.itemsize
    in_half = HALF // word
    n_trees = tree_class.shape[0]
    begin = 0
    for tree in range(n_trees):
        struck[:] = 0
        for four in range(tree_four[tree], tree_four[tree + 1]):
            strike_out(ranks, feature, rank, bits, four, struck[four_word[four]])
        row = leaf[tree - begin]
        row[:] = 0
        halves = (tree_words[tree] + in_half - 1) // in_half
        for half in range(halves - 1, -1, -1):
            lowest_bit(struck, half * in_half, word, power)
            take_leaf(half, exponent, row)
        done = tree + 1 - begin
        if done == FUSED or tree + 1 == n_trees or tree_class[tree + 1] != tree_class[begin]:
            for k in range(value.shape[0]):
                add_leaves(leaf, done, tree_leaf[begin:], value[k], count, sums[tree_class[begin] + k])
            begin = tree + 1
