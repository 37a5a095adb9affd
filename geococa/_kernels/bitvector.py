"""Small trees by bit vectors: every split of a tree at once for a block of pixels, no walk at all.

The leaves of a tree are numbered from left to right, one bit each. A pixel that goes right at a split can't end in
a leaf left of it, so those bits are struck out. When all splits have been looked at, the first bit that is left is
the pixel's leaf, in whatever order the splits came [1]_. Each split is one comparison over contiguous pixels, which the
processor does for many at once.

Splits are kept in fours that strike out bits of the same word of 16 leaves; a four is filled up with splits
that no pixel passes.

References
----------
.. [1] Lucchese et al. (2015), QuickScorer: a fast algorithm to rank documents with additive ensembles of
   regression trees, SIGIR, doi:10.1145/2766462.2767733.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["BLOCK", "NEVER", "WORD", "add_bitvectors"]

BLOCK = 1024
"""Pixels of a block; the planes of their ranks fit in the second-level cache."""
WORD = 16
"""Leaves of one word of bits."""
NEVER = 32767
"""Threshold rank that no pixel exceeds."""


@inline
def strike_out(ranks: Any, feature: Any, rank: Any, bits: Any, four: int, struck: Any) -> None:
    """Strike out what four splits exclude, for every pixel of a block."""
    s = 4 * four
    x0, x1, x2, x3 = ranks[feature[s]], ranks[feature[s + 1]], ranks[feature[s + 2]], ranks[feature[s + 3]]
    t0, t1, t2, t3 = rank[s], rank[s + 1], rank[s + 2], rank[s + 3]
    b0, b1, b2, b3 = bits[s], bits[s + 1], bits[s + 2], bits[s + 3]
    none = np.int16(0)
    for p in range(struck.shape[0]):
        mask = struck[p]
        mask |= b0 if x0[p] > t0 else none
        mask |= b1 if x1[p] > t1 else none
        mask |= b2 if x2[p] > t2 else none
        mask |= b3 if x3[p] > t3 else none
        struck[p] = mask


@inline
def first_left(struck: Any, word: int, power: Any, exponent: Any, leaf: Any) -> None:
    """Take the first leaf of a word that is not struck out, where there is one.

    The lowest bit of a number is a power of two, whose exponent stands in its floating-point form; that is
    arithmetic which runs on many pixels at once.
    """
    for p in range(struck.shape[0]):
        free = np.int32(np.int32(~struck[p]) & np.int32(0xFFFF))
        power[p] = np.float32(np.int32(free & np.int32(-free)))
    for p in range(struck.shape[0]):
        place = np.int32((exponent[p] >> np.int32(23)) - np.int32(127))
        leaf[p] = np.int32(np.int32(WORD * word) + place) if place >= 0 else leaf[p]


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
    ranks : int16 (features, BLOCK)
        Ranks of the pixels' features.
    count : int
        Pixels that count; the others may hold anything.
    tree_four : int64 (trees + 1,)
        First four of splits of each tree.
    four_word : int64 (fours,)
        Word that a four strikes out bits of.
    feature : int64 (4 * fours,); rank : int16 (4 * fours,); bits : int16 (4 * fours,)
        Splits: feature, threshold rank, and the leaves left of the split within the word.
    tree_words, tree_leaf : int64 (trees,)
        Number of words of a tree, and the place of its first leaf in ``value``.
    value : float64 (leaves, width)
        Class shares, or one score.
    tree_class : int32 (trees,)
        First class that a tree adds to.
    struck : int16 (4, BLOCK); power : float32 (BLOCK,); leaf : int32 (BLOCK,)
        Workspace.
    sums : float64 or float32 (classes, at least count)
        Sums to add to.
    """
    exponent = power.view(np.int32)
    for tree in range(tree_class.shape[0]):
        struck[:] = 0
        for four in range(tree_four[tree], tree_four[tree + 1]):
            strike_out(ranks, feature, rank, bits, four, struck[four_word[four]])
        leaf[:] = 0
        for word in range(tree_words[tree] - 1, -1, -1):
            first_left(struck[word], word, power, exponent, leaf)
        start = tree_leaf[tree]
        for k in range(value.shape[1]):
            total = sums[tree_class[tree] + k]
            for p in range(count):
                total[p] += value[start + leaf[p], k]
