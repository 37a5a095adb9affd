"""Small trees by bit vectors: every split of a tree at once for a block of pixels, no walk at all.

The leaves of a tree are numbered, one bit each, such that a split's smaller side comes first. A pixel that takes the
other side can't end in a leaf of this one, so those bits are struck out. When all splits have been looked at, the first
bit that is left is the pixel's leaf, in whatever order the splits came [1]_. Each split is one comparison over
contiguous pixels, which the processor does for many at once.

Bits and ranks are bytes where a feature has at most 254 distinct thresholds (boosting that bins its features has no
more), and 16 bits otherwise; with bytes the processor compares twice as many pixels at once. Every comparison is
"bound > rank", or bound > complement of the rank for pixels that go right: the processor then takes the rank from
memory in the same instruction. Splits that strike out bits of the same word stand together, four or two in one pass; an
odd one is joined by a split that no pixel passes.

References
----------
.. [1] Lucchese et al. (2015), QuickScorer: a fast algorithm to rank documents with additive ensembles of
   regression trees, SIGIR, doi:10.1145/2766462.2767733.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel
from geococa._kernels.forest import rank_row

__all__ = ["BLOCK", "FUSED", "HALF", "add_bitvectors", "leaf_codes", "rank_planes"]

BLOCK = 2048
"""Pixels of a block; the planes of their ranks fit in the second-level cache."""
HALF = 32
"""Leaves that are looked at together when the first one left is sought."""
FUSED = 8
"""Trees whose leaves are added in one pass over the sums."""


def leaf_codes(dtype: Any) -> np.ndarray:
    """Numbers that `first_of_bytes` and `first_of_shorts` need.

    They are 0, -1, powers of two, the bits whose number has each binary digit set, and the first leaf of each word.
    """
    word = 8 * np.dtype(dtype).itemsize
    places = np.arange(word)
    digits = [int(sum(1 << int(place) for place in places if place >> digit & 1)) for digit in range(4)]
    signed = [bits - (bits >> (word - 1) << word) for bits in digits]
    return np.asarray([0, -1, 1, 2, 4, 8, *signed, *range(0, 8 * word, word)], dtype=dtype)


@kernel
def rank_planes(
    flat: Any,
    step: int,
    count: int,
    thresholds: Any,
    threshold_start: Any,
    buckets: Any,
    origin: Any,
    scale: Any,
    single: Any,
    shift: int,
    row: Any,
    ranks: Any,
) -> None:
    """Replace feature values by ranks and by their complements, plane after plane.

    Parameters
    ----------
    flat, step, count, thresholds, threshold_start, buckets, origin, scale, single
        See `geococa._kernels.forest.rank_values`.
    shift : int
        What ranks are lowered by, so that they fit signed numbers.
    row : uint32 (at least count,)
        Workspace.
    ranks : int8 or int16 (2 * features, at least count)
        Lowered ranks of every feature, then their complements; overwritten.
    """
    n_features = threshold_start.shape[0]
    for f in range(n_features):
        values, low, high = flat[f * step : f * step + count], ranks[f], ranks[n_features + f]
        first, lowered = np.uint64(threshold_start[f]), np.int32(shift)
        rank_row(values, thresholds, first, buckets[f], origin[f], scale[f], single[f], lowered, row, low)
        for p in range(count):
            high[p] = ~low[p]


@inline
def strike_two(ranks: Any, plane: Any, bound: Any, bits: Any, s: int, struck: Any) -> None:
    """Strike out what two splits exclude, the first ones of a word, for every pixel of a block."""
    x0, x1 = ranks[plane[s]], ranks[plane[s + 1]]
    t0, t1 = bound[s], bound[s + 1]
    b0, b1 = bits[s], bits[s + 1]
    none = b0 ^ b0
    for p in range(struck.shape[0]):
        mask = b0 if t0 > x0[p] else none
        mask |= b1 if t1 > x1[p] else none
        struck[p] = mask


@inline
def strike_four(ranks: Any, plane: Any, bound: Any, bits: Any, s: int, first: bool, struck: Any) -> None:
    """Strike out what four splits exclude, which may be the ``first`` ones of a word."""
    x0, x1, x2, x3 = ranks[plane[s]], ranks[plane[s + 1]], ranks[plane[s + 2]], ranks[plane[s + 3]]
    t0, t1, t2, t3 = bound[s], bound[s + 1], bound[s + 2], bound[s + 3]
    b0, b1, b2, b3 = bits[s], bits[s + 1], bits[s + 2], bits[s + 3]
    none = b0 ^ b0
    for p in range(struck.shape[0]):
        mask = none if first else struck[p]
        mask |= b0 if t0 > x0[p] else none
        mask |= b1 if t1 > x1[p] else none
        mask |= b2 if t2 > x2[p] else none
        mask |= b3 if t3 > x3[p] else none
        struck[p] = mask


@inline
def strike_word(ranks: Any, plane: Any, bound: Any, bits: Any, begin: int, end: int, struck: Any) -> None:
    """Strike out what the splits of one word exclude, an even number of them."""
    if (end - begin) % 4 == 2:
        strike_two(ranks, plane, bound, bits, begin, struck)
        begin += 2
    else:
        strike_four(ranks, plane, bound, bits, begin, True, struck)
        begin += 4
    for s in range(begin, end, 4):
        strike_four(ranks, plane, bound, bits, s, False, struck)


@inline
def first_of_bytes(struck: Any, start: int, codes: Any, leaf: Any) -> None:
    """Find the first leaf of four words of 8 bits that is not struck out; where there is none, keep ``leaf``.

    The numbers come from an array, ``codes``: as constants they would be widened to 64 bits, and 4 pixels would be
    worked on at once instead of 32.
    """
    s0, s1, s2, s3 = struck[start], struck[start + 1], struck[start + 2], struck[start + 3]
    zero, full, one, two, four = codes[0], codes[1], codes[2], codes[3], codes[4]
    odd, upper, half = codes[6], codes[7], codes[8]
    b0, b1, b2, b3 = codes[10 + start], codes[11 + start], codes[12 + start], codes[13 + start]
    for p in range(leaf.shape[0]):
        a, b, c, word, kept = s0[p], s1[p], s2[p], s3[p], leaf[p]
        begin = b2 if c != full else b3
        word = c if c != full else word
        begin = b1 if b != full else begin
        word = b if b != full else word
        begin = b0 if a != full else begin
        word = a if a != full else word
        left = np.int8(~word & (word + one))
        lowest = one if np.int8(left & odd) != zero else zero
        middle = two if np.int8(left & upper) != zero else zero
        highest = four if np.int8(left & half) != zero else zero
        leaf[p] = kept if word == full else np.int8(np.int8(begin | lowest) | np.int8(middle | highest))


@inline
def first_of_shorts(struck: Any, start: int, codes: Any, leaf: Any) -> None:
    """Find the first leaf of two words of 16 bits, as `first_of_bytes` does."""
    s0, s1 = struck[start], struck[start + 1]
    zero, full, one, two, four, eight = codes[0], codes[1], codes[2], codes[3], codes[4], codes[5]
    odd, upper, half, most = codes[6], codes[7], codes[8], codes[9]
    b0, b1 = codes[10 + start], codes[11 + start]
    for p in range(leaf.shape[0]):
        a, word, kept = s0[p], s1[p], leaf[p]
        begin = b0 if a != full else b1
        word = a if a != full else word
        left = np.int16(~word & (word + one))
        lowest = np.int16((one if np.int16(left & odd) != zero else zero) | begin)
        middle = two if np.int16(left & upper) != zero else zero
        higher = four if np.int16(left & half) != zero else zero
        highest = eight if np.int16(left & most) != zero else zero
        leaf[p] = kept if word == full else np.int16(np.int16(lowest | middle) | np.int16(higher | highest))


@inline
def add_leaves(leaf: Any, trees: int, starts: Any, column: Any, count: int, total: Any) -> None:
    """Add the leaf values of some trees, at most `FUSED`, in their order."""
    if trees == FUSED:
        l0, l1, l2, l3, l4, l5, l6, l7 = leaf[0], leaf[1], leaf[2], leaf[3], leaf[4], leaf[5], leaf[6], leaf[7]
        v0, v1, v2, v3 = column[starts[0] :], column[starts[1] :], column[starts[2] :], column[starts[3] :]
        v4, v5, v6, v7 = column[starts[4] :], column[starts[5] :], column[starts[6] :], column[starts[7] :]
        for i in range(count):
            p = np.uint64(i)
            low = (((total[p] + v0[np.uint8(l0[p])]) + v1[np.uint8(l1[p])]) + v2[np.uint8(l2[p])]) + v3[np.uint8(l3[p])]
            total[p] = (((low + v4[np.uint8(l4[p])]) + v5[np.uint8(l5[p])]) + v6[np.uint8(l6[p])]) + v7[np.uint8(l7[p])]
        return
    for tree in range(trees):
        values, reached = column[starts[tree] :], leaf[tree]
        for i in range(count):
            total[i] += values[np.uint8(reached[i])]


@kernel
def add_bitvectors(
    ranks: Any,
    count: int,
    tree_word: Any,
    word_split: Any,
    plane: Any,
    bound: Any,
    bits: Any,
    tree_leaf: Any,
    value: Any,
    tree_class: Any,
    codes: Any,
    struck: Any,
    leaf: Any,
    sums: Any,
) -> None:
    """Add the leaf values of every tree, in the order of the trees.

    Parameters
    ----------
    ranks : int8 or int16 (2 * features, BLOCK)
        Ranks of the pixels' features and their complements, see `rank_planes`.
    count : int
        Pixels that count; the others may hold anything.
    tree_word : int64 (trees + 1,)
        First word of each tree; a tree has as many as make up `HALF` bits, or twice as many.
    word_split : int64 (words + 1,)
        First split of each word; a word has an even number of splits, and at least two.
    plane : int64 (splits,); bound, bits : as ranks (splits,)
        Splits: plane of ``ranks``, what it must stay below, and the leaves that are then struck out of the word.
    tree_leaf : int64 (trees,)
        Place of a tree's first leaf in ``value``.
    value : float64 or float32, as sums (width, leaves)
        Class shares, or one score.
    tree_class : int32 (trees,)
        First class that a tree adds to; trees of the same class should stand together.
    codes : as ranks (18,)
        From `leaf_codes`.
    struck : as ranks (words, BLOCK); leaf : int8 (FUSED, BLOCK)
        Workspace.
    sums : float64 or float32 (classes, at least count)
        Sums to add to.
    """
    word = 8 * ranks.itemsize
    in_half = HALF // word
    n_trees = tree_class.shape[0]
    begin = 0
    for tree in range(n_trees):
        first, words = tree_word[tree], tree_word[tree + 1] - tree_word[tree]
        for w in range(words):
            strike_word(ranks, plane, bound, bits, word_split[first + w], word_split[first + w + 1], struck[w])
        row = leaf[tree - begin]
        for start in range(words - in_half, -1, -in_half):
            if word == 8:
                first_of_bytes(struck, start, codes, row)
            else:
                first_of_shorts(struck, start, codes, row)
        done = tree + 1 - begin
        if done == FUSED or tree + 1 == n_trees or tree_class[tree + 1] != tree_class[begin]:
            for k in range(value.shape[0]):
                add_leaves(leaf, done, tree_leaf[begin:], value[k], count, sums[tree_class[begin] + k])
            begin = tree + 1
