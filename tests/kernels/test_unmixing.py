"""Unmixing against non-negative least squares of scipy, a search over all faces, and what must hold for any pixel."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from geococa._kernels import unmixing
from geococa.fraction_engine import simplex_problem


def shares_of(planes, endmember, whitening=None, owner=None):
    count, n_features = endmember.shape
    whitening = np.eye(n_features) if whitening is None else whitening
    owner = np.arange(count, dtype=np.int32) if owner is None else np.asarray(owner, np.int32)
    out = np.full((int(owner.max()) + 1, planes.shape[1]), -9.0)
    with np.errstate(invalid="ignore"):  # as the engine has it, for the uncompiled kernel
        unmixing.unmix(np.ascontiguousarray(planes), *simplex_problem(endmember, whitening), owner, out)
    return out


def by_nnls(x, endmember, whitening):
    """Sum to one by a heavy row, as Heinz and Chang have it."""
    heavy = 1e5
    a = np.vstack([whitening @ endmember.T, np.full(len(endmember), heavy)])
    share = nnls(a, np.append(whitening @ x, heavy))[0]
    return share / share.sum()


def by_all_faces(x, endmember):
    """Best point of the simplex: of the best points of all its faces that lie in them, the nearest to x."""
    best, found = np.inf, None
    for size in range(1, len(endmember) + 1):
        for chosen in combinations(range(len(endmember)), size):
            part = endmember[list(chosen)]
            edges = (part[1:] - part[0]).T
            free = np.linalg.lstsq(edges, x - part[0], rcond=None)[0] if size > 1 else np.empty(0)
            share = np.concatenate([[1 - free.sum()], free])
            misfit = ((x - share @ part) ** 2).sum()
            if (share >= -1e-12).all() and misfit < best - 1e-15:
                best, found = misfit, np.zeros(len(endmember))
                found[list(chosen)] = share
    return found


def problem(seed, count, n_features, pixels, noise):
    rng = np.random.default_rng(seed)
    endmember = rng.random((count, n_features))
    mixed = rng.dirichlet(np.full(count, 0.5), pixels) @ endmember
    return endmember, (mixed + rng.normal(0, noise, mixed.shape)).T, rng


@pytest.mark.parametrize(
    ("count", "n_features", "noise"), [(2, 1, 0.3), (4, 3, 0.1), (5, 10, 0.05), (8, 10, 0.5), (8, 7, 1)]
)
def test_shares_equal_scipys(count, n_features, noise):
    endmember, planes, rng = problem(count, count, n_features, 120, noise)
    whitening = np.tril(rng.normal(size=(n_features, n_features))) + 3 * np.eye(n_features)
    found = shares_of(planes, endmember, whitening)
    expected = np.stack([by_nnls(x, endmember, whitening) for x in planes.T], axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-7)


def test_shares_equal_the_best_of_all_faces():
    endmember, planes, _ = problem(1, 5, 4, 60, 0.4)
    expected = np.stack([by_all_faces(x, endmember) for x in planes.T], axis=1)
    np.testing.assert_allclose(shares_of(planes, endmember), expected, atol=1e-9)


def test_a_noiseless_mixture_is_taken_apart_exactly():
    rng = np.random.default_rng(3)
    endmember, share = rng.random((6, 8)), rng.dirichlet(np.ones(6), 50)
    np.testing.assert_allclose(shares_of((share @ endmember).T, endmember), share.T, atol=1e-10)


def test_an_endmember_itself_is_pure():
    endmember = np.random.default_rng(4).random((7, 9))
    np.testing.assert_allclose(shares_of(endmember.T, endmember), np.eye(7), atol=1e-12)


def test_one_band_tells_two_endmembers_apart():
    found = shares_of(np.array([[0.0, 0.1, 0.2, 0.35, 9.0]]), np.array([[0.1], [0.3]]))
    np.testing.assert_allclose(found, [[1, 1, 0.5, 0, 0], [0, 0, 0.5, 1, 1]], atol=1e-12)


def test_one_more_endmember_than_bands_is_still_unique():
    endmember = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = shares_of(np.array([[0.25], [0.5]]), endmember)
    np.testing.assert_allclose(found[:, 0], [0.25, 0.25, 0.5], atol=1e-12)


def test_endmembers_of_one_class_are_added():
    endmember, planes, _ = problem(5, 4, 6, 40, 0.02)
    apart, together = shares_of(planes, endmember), shares_of(planes, endmember, owner=[1, 0, 1, 0])
    np.testing.assert_allclose(together, [apart[1] + apart[3], apart[0] + apart[2]], atol=1e-13)


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_finite_gets_nan_and_no_other_does(gap):
    endmember, planes, _ = problem(6, 3, 4, 5, 0.01)
    planes[2, 3] = gap
    found = shares_of(planes, endmember)
    assert np.isnan(found[:, 3]).all()
    assert np.isfinite(np.delete(found, 3, axis=1)).all()


def test_a_pixel_does_not_depend_on_its_neighbours():
    endmember, planes, _ = problem(7, 6, 8, 90, 0.1)
    whole = shares_of(planes, endmember)
    parts = np.concatenate([shares_of(planes[:, i : i + 7], endmember) for i in range(0, 90, 7)], axis=1)
    assert whole.tobytes() == parts.tobytes()


def test_single_precision_pixels_count_as_they_are():
    endmember, planes, _ = problem(8, 4, 5, 30, 0.1)
    single = planes.astype(np.float32)
    assert np.array_equal(shares_of(single, endmember), shares_of(single.astype(np.float64), endmember))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 8),
    extra=st.integers(0, 4),
    exponent=st.integers(-4, 4),
    noise=st.sampled_from([0.0, 1e-6, 0.1, 5.0]),
)
def test_shares_are_a_minimum_on_the_simplex(seed, count, extra, exponent, noise):
    n_features = count + extra
    endmember, planes, _ = problem(seed, count, n_features, 8, noise)
    endmember, planes = endmember * 10.0**exponent, planes * 10.0**exponent
    found = shares_of(planes, endmember)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-12)
    # no step towards any endmember lowers the misfit: the slope along it is not negative
    rest = planes - endmember.T @ found
    slope = ((endmember.T @ found).T[:, None, :] - endmember[None]) @ np.eye(n_features)
    towards = np.einsum("pkf,fp->pk", slope, rest)
    size = np.abs(endmember).max() * (np.abs(planes).max() + np.abs(endmember).max()) * n_features
    assert (towards >= -1e-8 * size).all()
