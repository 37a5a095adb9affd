"""Forest kernels: ranks, lanes, votes and bit vectors against the plain walk and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa import tree_walkers
from geococa._kernels import _jit, bitvector, forest, lanes
from geococa._kernels.planes import flat_planes
from geococa.tree_packing import pack_nodes, rank_thresholds

JIT = not _jit.numba.config.DISABLE_JIT


def random_trees(rng, n_trees, n_features, n_classes, most_leaves, thresholds=None):
    """Random trees in the plain form, leaves with class shares."""
    parts = {name: [] for name in ("feature", "threshold", "left", "right", "missing_left")}
    start = [0]
    for _ in range(n_trees):
        offset, leaves = start[-1], [0]
        nodes = [[-1, 0.0, -1, -1, 0]]
        for _ in range(int(rng.integers(0, most_leaves))):
            here = leaves.pop(int(rng.integers(len(leaves))))
            feature = int(rng.integers(n_features))
            value = rng.normal() if thresholds is None else rng.choice(thresholds)
            nodes[here] = [feature, float(value), offset + len(nodes), offset + len(nodes) + 1, int(rng.integers(2))]
            leaves += [len(nodes), len(nodes) + 1]
            nodes += [[-1, 0.0, -1, -1, 0], [-1, 0.0, -1, -1, 0]]
        for column, name in enumerate(parts):
            parts[name] += [node[column] for node in nodes]
        start.append(offset + len(nodes))
    feature = np.asarray(parts["feature"], np.int32)
    is_leaf = feature < 0
    shares = rng.random((int(is_leaf.sum()), n_classes))
    return {
        "tree_start": np.asarray(start, np.int64),
        "feature": feature,
        "threshold": np.asarray(parts["threshold"], np.float64),
        "left": np.asarray(parts["left"], np.int32),
        "right": np.asarray(parts["right"], np.int32),
        "missing_left": np.asarray(parts["missing_left"], np.uint8),
        "leaf": np.where(is_leaf, np.cumsum(is_leaf) - 1, -1).astype(np.int32),
        "value": shares / shares.sum(axis=1, keepdims=True),
        "tree_class": np.zeros(n_trees, np.int32),
    }


def plain_sums(trees, planes):
    sums = np.zeros((trees["value"].shape[1], planes.shape[1]))
    for p in range(planes.shape[1]):
        for t in range(len(trees["tree_class"])):
            node = trees["tree_start"][t]
            while trees["feature"][node] >= 0:
                x = planes[trees["feature"][node], p]
                left = trees["missing_left"][node] if np.isnan(x) else x <= trees["threshold"][node]
                node = trees["left" if left else "right"][node]
            sums[:, p] += trees["value"][trees["leaf"][node]]
    return sums


def ranks_of(trees, n_features):
    ranks = rank_thresholds(trees, n_features)
    assert ranks is not None
    return ranks


def pixels(rng, trees, n_features, n):
    """Half random, half on thresholds and their neighbours, some at the ends of the number line."""
    planes = rng.normal(size=(n_features, n)).astype(np.float32)
    known = trees["threshold"][trees["feature"] >= 0].astype(np.float32)
    if len(known):
        near = np.concatenate([known, np.nextafter(known, np.float32(9)), np.nextafter(known, np.float32(-9))])
        planes[:, n // 2 :] = rng.choice(near, (n_features, n - n // 2))
    planes[:, :4] = np.float32([np.inf, -np.inf, 3e38, -3e38])
    return planes


def test_plain_walk_sends_missing_values_where_each_node_says():
    rng = np.random.default_rng(0)
    trees = random_trees(rng, 5, 3, 2, 12)
    planes = rng.normal(size=(3, 60)).astype(np.float32)
    planes[rng.random(planes.shape) < 0.3] = np.nan
    sums = np.zeros((2, 60))
    forest.add_trees(planes, *trees.values(), sums)
    assert np.array_equal(sums, plain_sums(trees, planes))


@pytest.mark.parametrize("spread", [1.0, 1e-30, 1e30])
def test_ranks_equal_a_left_sided_search(spread):
    rng = np.random.default_rng(1)
    trees = random_trees(rng, 6, 3, 2, 40)
    trees["threshold"] *= spread
    ranks = ranks_of(trees, 3)
    planes = pixels(rng, trees, 3, 500)
    block, row = np.zeros(3 * 504, np.uint16), np.zeros(504, np.uint32)
    tables = (ranks.thresholds, ranks.start, ranks.buckets, ranks.origin, ranks.scale, ranks.single)
    with np.errstate(over="ignore"):
        forest.rank_values(*flat_planes(planes), 500, *tables, row, block)
    found = block.reshape(42, 3, 12).transpose(1, 0, 2).reshape(3, 504)[:, :500]
    for f in range(3):
        exact = trees["threshold"][trees["feature"] == f]
        # x <= t must mean the same for the float64 threshold and for its rank
        for t, rank in zip(exact, ranks.node_rank[trees["feature"] == f], strict=True):
            assert np.array_equal(planes[f].astype(np.float64) <= t, found[f] <= rank)


def test_thresholds_far_out_do_not_spoil_ranks():
    rng = np.random.default_rng(2)
    trees = random_trees(rng, 20, 1, 2, 30, thresholds=np.r_[rng.normal(size=300), 1e30, -1e30, 1e-40])
    ranks = ranks_of(trees, 1)
    assert np.diff(ranks.buckets.astype(int), axis=1).max() < 60
    planes = pixels(rng, trees, 1, 300)
    walker = tree_walkers.LaneWalker.of(trees, ranks)
    sums = np.zeros((2, 300))
    walker.add(planes, sums)
    assert np.array_equal(sums, plain_sums(trees, planes))


@pytest.mark.parametrize("n_pixels", [1, 11, 12, 13, 100])
@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_lanes_give_the_sums_of_the_plain_walk(n_pixels, n_classes):
    rng = np.random.default_rng(n_pixels)
    trees = random_trees(rng, 7, 4, n_classes, 25)
    planes = pixels(rng, trees, 4, max(n_pixels, 8))[:, :n_pixels]
    walker = tree_walkers.LaneWalker.of(trees, ranks_of(trees, 4))
    sums = np.zeros((n_classes, n_pixels))
    walker.add(planes, sums)
    assert np.array_equal(sums, plain_sums(trees, planes))


@pytest.mark.parametrize("n_trees", [1, 3, 9, 60])
@pytest.mark.parametrize("most_leaves", [2, 8, 9, 15, 16, 17, 31, 32, 33, 63])
def test_bit_vectors_give_the_sums_of_the_plain_walk(most_leaves, n_trees):
    rng = np.random.default_rng(most_leaves)
    trees = random_trees(rng, n_trees, 4, 3, most_leaves)
    planes = pixels(rng, trees, 4, 90)
    walker = tree_walkers.BitVectorWalker.of(trees, ranks_of(trees, 4))
    sums = np.zeros((3, 90))
    walker.add(planes, sums)
    assert np.array_equal(sums, plain_sums(trees, planes))


@pytest.mark.parametrize("n_thresholds", [254, 255, 256, 700])
def test_bit_vectors_take_few_thresholds_as_bytes_and_many_as_16_bits(n_thresholds):
    rng = np.random.default_rng(n_thresholds)
    thresholds = np.linspace(-2, 2, n_thresholds)
    trees = random_trees(rng, n_thresholds, 1, 2, 30, thresholds)
    ranks = ranks_of(trees, 1)
    walker = tree_walkers.BitVectorWalker.of(trees, ranks)
    assert walker.packed.bound.dtype == (np.int8 if ranks.most <= 254 else np.int16)
    planes = pixels(rng, trees, 1, 3000)
    sums = np.zeros((2, 3000))
    walker.add(planes, sums)
    few = np.r_[:40, 1480:1520, 2980:3000]
    assert np.array_equal(sums[:, few], plain_sums(trees, planes[:, few]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bit_vectors_keep_the_order_of_trees_within_a_class(dtype):
    rng = np.random.default_rng(8)
    trees = random_trees(rng, 31, 4, 1, 12)
    trees["value"] = rng.normal(size=trees["value"].shape).astype(dtype)
    trees["tree_class"] = rng.integers(0, 3, 31).astype(np.int32)
    planes = pixels(rng, trees, 4, 500)
    sums, plain = np.zeros((3, 500), dtype), np.zeros((3, 500), dtype)
    tree_walkers.BitVectorWalker.of(trees, ranks_of(trees, 4)).add(planes, sums)
    forest.add_trees(planes, *trees.values(), plain)
    assert np.array_equal(sums, plain)


def test_bit_vectors_take_64_leaves_and_no_more():
    rng = np.random.default_rng(3)
    sizes = []
    for seed in range(200):
        trees = random_trees(np.random.default_rng(seed), 1, 3, 2, 67)
        leaves = int((trees["feature"] < 0).sum())
        packed = tree_walkers.BitVectorWalker.of(trees, ranks_of(trees, 3)) if leaves > 1 else None
        if leaves > 1:
            assert (packed is not None) == (leaves <= 64)
        if leaves == 64:
            planes = pixels(rng, trees, 3, 40)
            sums = np.zeros((2, 40))
            packed.add(planes, sums)
            assert np.array_equal(sums, plain_sums(trees, planes))
        sizes.append(leaves)
    assert {64, 65} <= set(sizes)


@pytest.mark.parametrize("n_classes", [2, 3, 5, 8, 11])
def test_votes_give_the_label_of_the_largest_sum_or_leave_it_open(n_classes):
    rng = np.random.default_rng(n_classes)
    trees = random_trees(rng, 20, 4, n_classes, 30)
    planes = pixels(rng, trees, 4, 150)
    ballot = tree_walkers.Ballot(trees, tree_walkers.LaneWalker.of(trees, ranks_of(trees, 4)))
    labels = ballot.labels(planes)
    decided = labels != tree_walkers.UNDECIDED
    assert np.array_equal(labels[decided], plain_sums(trees, planes).argmax(axis=0)[decided])
    assert decided.mean() > 0.99


def test_votes_leave_exact_ties_open():
    rng = np.random.default_rng(4)
    trees = random_trees(rng, 10, 2, 2, 8)
    trees["value"] = np.eye(2)[rng.integers(0, 2, len(trees["value"]))]
    planes = pixels(rng, trees, 2, 400)
    labels = tree_walkers.Ballot(trees, tree_walkers.LaneWalker.of(trees, ranks_of(trees, 2))).labels(planes)
    sums = plain_sums(trees, planes)
    tied = sums[0] == sums[1]
    assert tied.any()
    assert (labels[tied] == tree_walkers.UNDECIDED).all()
    assert np.array_equal(labels[~tied], sums.argmax(axis=0)[~tied])


def test_shares_from_votes_are_within_half_a_vote_of_the_mean():
    rng = np.random.default_rng(5)
    trees = random_trees(rng, 30, 4, 5, 30)
    planes = pixels(rng, trees, 4, 120)
    ballot = tree_walkers.Ballot(trees, tree_walkers.LaneWalker.of(trees, ranks_of(trees, 4)))
    assert np.abs(ballot.shares(planes) - plain_sums(trees, planes) / 30).max() < 0.51 / 2**27


def test_votes_of_leaves_a_little_above_one_do_not_run_into_the_next_class():
    trees = random_trees(np.random.default_rng(6), 4, 2, 2, 3)
    trees["value"] = np.full_like(trees["value"], 0.0)
    trees["value"][:, 0] = 1 + 9e-7
    ballot = tree_walkers.Ballot(trees, tree_walkers.LaneWalker.of(trees, ranks_of(trees, 2)))
    shares = ballot.shares(np.zeros((2, 13), np.float32))
    assert (shares[1] == 0).all()
    assert np.allclose(shares[0], 1, atol=1e-6)


@settings(max_examples=40 if JIT else 5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 60), st.integers(2, 6), st.integers(1, 40))
def test_every_way_gives_the_same_sums(seed, n_features, most_leaves, n_classes, n_pixels):
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, 4, n_features, n_classes, most_leaves, thresholds=np.round(rng.normal(size=9), 1))
    planes = pixels(rng, trees, n_features, n_pixels + 8)
    expected = plain_sums(trees, planes)
    ranks = ranks_of(trees, n_features)
    for walker in (tree_walkers.LaneWalker.of(trees, ranks), tree_walkers.BitVectorWalker.of(trees, ranks)):
        sums = np.zeros_like(expected)
        walker.add(planes, sums)
        assert np.array_equal(sums, expected)


def test_kernels_write_nothing_outside_their_output():
    rng = np.random.default_rng(7)
    trees = random_trees(rng, 5, 3, 3, 20)
    planes = pixels(rng, trees, 3, 37)
    for make in (tree_walkers.LaneWalker, tree_walkers.BitVectorWalker):
        walker = make.of(trees, ranks_of(trees, 3))
        guarded = np.full((3 + 2, 37 + 128), 7.0)
        inside = guarded[1:-1, 64:-64]
        inside[:] = 0
        walker.add(planes, inside)
        assert (guarded[[0, -1]] == 7).all()
        assert (guarded[:, :64] == 7).all()
        assert (guarded[:, -64:] == 7).all()


def test_a_chain_deeper_than_lanes_take_is_left_to_the_plain_walk():
    depth = 400
    nodes = 2 * depth + 1
    feature = np.full(nodes, -1, np.int32)
    left, right = np.full(nodes, -1, np.int32), np.full(nodes, -1, np.int32)
    inner = np.arange(0, nodes - 1, 2)
    feature[inner], left[inner], right[inner] = 0, inner + 1, inner + 2
    trees = {"tree_start": np.asarray([0, nodes]), "feature": feature, "left": left, "right": right}
    trees["threshold"] = np.where(feature == 0, np.arange(nodes, dtype=float), 0)
    trees["leaf"] = np.where(feature < 0, np.cumsum(feature < 0) - 1, -1).astype(np.int32)
    trees["value"], trees["tree_class"] = np.ones((depth + 1, 1)), np.zeros(1, np.int32)
    assert pack_nodes(trees, ranks_of(trees, 1), 1, lanes.LANES) is None
    assert tree_walkers.make_walker(trees) is None


def test_block_of_lanes_is_whole_groups():
    assert forest.BLOCK % lanes.LANES == 0
    assert bitvector.BLOCK % 16 == 0
