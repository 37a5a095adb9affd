"""Kernels over time against numpy, plain Python and scipy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from geococa._kernels.temporal import (
    LANES,
    geomedian,
    medoid,
    percentiles,
    sorting_pairs,
    unify,
)


def _stack(dates, pixels, seed, missing=0.4):
    rng = np.random.default_rng(seed)
    values = rng.normal(0.2, 0.3, (dates, pixels)).astype("float32")
    values[rng.random(values.shape) < missing] = np.nan
    return values


def _percentiles(stack, quantiles):
    out = np.empty((len(quantiles), stack.shape[1]), "float32")
    percentiles(np.ascontiguousarray(stack), sorting_pairs(stack.shape[0]), np.array(quantiles, "float64"), out)
    return out


def _quiet(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN slices
        return function(*arguments, **options)


@pytest.mark.parametrize("n", [*range(1, 34), 64, 100])
def test_the_network_sorts_every_pattern_of_zeros_and_ones(n):
    # the 0-1 principle: a network that sorts all 0-1 inputs sorts everything; sampled above 10 values
    rng = np.random.default_rng(n)
    inputs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 if n <= 10 else rng.integers(0, 2, (5000, n))
    values = inputs.T.copy()
    for i, j in sorting_pairs(n):
        assert i < j
        values[[i, j]] = np.minimum(values[i], values[j]), np.maximum(values[i], values[j])
    assert (np.diff(values, axis=0) >= 0).all()


@pytest.mark.parametrize("dates", [1, 2, 3, 5, 12, 30])
@pytest.mark.parametrize("pixels", [1, LANES - 1, LANES, 2 * LANES + 3])
def test_median_is_bit_equal_to_numpy(dates, pixels):
    stack = _stack(dates, pixels, seed=dates * pixels)
    expected = _quiet(np.nanmedian, stack, axis=0).astype("float32")
    assert _percentiles(stack, [0.5])[0].tobytes() == expected.tobytes()


@given(
    st.integers(1, 9).flatmap(
        lambda dates: st.lists(
            st.lists(st.floats(-1.0, 2.0, width=32) | st.just(np.nan), min_size=dates, max_size=dates),
            min_size=1,
            max_size=20,
        )
    )
)
@settings(deadline=None, max_examples=60)
def test_median_of_any_series_equals_numpy(series):
    stack = np.array(series, "float32").T.copy()
    np.testing.assert_array_equal(_percentiles(stack, [0.5])[0], _quiet(np.nanmedian, stack, axis=0))


@pytest.mark.parametrize("dates", [1, 2, 7, 12])
def test_percentiles_interpolate_like_numpy(dates):
    stack = _stack(dates, 500, seed=dates)
    shares = [0.0, 0.1, 0.25, 0.333, 0.75, 0.9, 1.0]
    expected = _quiet(np.nanpercentile, stack.astype("float64"), np.array(shares) * 100, axis=0)
    np.testing.assert_allclose(_percentiles(stack, shares), expected, rtol=1e-6, atol=1e-7)


def test_a_pixel_without_dates_has_no_median():
    assert np.isnan(_percentiles(np.full((4, 3), np.nan, "float32"), [0.5])).all()


def test_the_input_is_left_alone():
    stack = _stack(6, 300, seed=1)
    before = stack.copy()
    _percentiles(stack, [0.5])
    np.testing.assert_array_equal(stack, before)


def test_dates_that_lack_one_band_are_missing_in_all():
    rng = np.random.default_rng(2)
    block = rng.random((5, 3, 400)).astype("float32")
    block[rng.random(block.shape) < 0.2] = np.nan
    block[0, 0, 0] = np.inf
    complete = np.isfinite(block).all(axis=1)
    expected = np.where(complete[:, None], block, np.nan)
    counts = np.empty(400, "uint16")
    with np.errstate(invalid="ignore"):  # plain numpy, where kernels are not compiled, warns of infinity
        unify(block, counts)
    np.testing.assert_array_equal(block, expected)
    np.testing.assert_array_equal(counts, complete.sum(axis=0))


def _block(dates, bands, pixels, seed, missing=0.3):
    rng = np.random.default_rng(seed)
    block = (rng.random((1, bands, pixels)) * 0.4 + rng.normal(0, 0.05, (dates, bands, pixels))).astype("float32")
    block[np.broadcast_to(rng.random((dates, 1, pixels)) < missing, block.shape)] = np.nan
    return block


def _plain_medoid(spectra):
    """Index of the date with the least sum of distances, in plain Python and float64."""
    valid = [t for t in range(len(spectra)) if not np.isnan(spectra[t]).any()]
    sums = [sum(np.linalg.norm(spectra[t].astype("float64") - spectra[s]) for s in valid) for t in valid]
    return valid[int(np.argmin(sums))] if valid else -1


def test_medoid_equals_plain_python():
    block = _block(7, 4, 150, seed=4)
    block[:, :, 3] = np.nan
    out = np.empty(150, "int16")
    medoid(block, np.ones(len(block)), out)
    expected = [_plain_medoid(block[:, :, i]) for i in range(150)]
    # two dates have equal sums up to rounding: either is a medoid
    tied = [i for i in range(150) if np.isfinite(block[:, 0, i]).sum() == 2]
    assert [out[i] for i in range(150) if i not in tied] == [expected[i] for i in range(150) if i not in tied]
    assert out[3] == -1


def test_weights_of_any_size_give_the_same_and_repeat_a_date_like_its_copies():
    block = _block(6, 3, 70, seed=12, missing=0.3)
    weights = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 1.0])
    copies = np.ascontiguousarray(np.repeat(block, weights.astype(int), axis=0))
    source = np.repeat(np.arange(6), weights.astype(int))
    plain, chosen, tiny = np.empty(70, "int16"), np.empty(70, "int16"), np.empty(70, "int16")
    medoid(copies, np.ones(len(copies)), plain)
    medoid(block, weights, chosen)
    medoid(block, weights * 1e-250, tiny)
    np.testing.assert_array_equal(chosen, tiny)
    many = np.isfinite(block[:, 0]).sum(axis=0) > 2
    assert (np.where(plain >= 0, source[plain], -1) == chosen)[many].all()
    means = [np.empty((3, 70), "float32") for _ in range(3)]
    geomedian(copies, np.ones(len(copies)), 1e-6, 2000, means[0])
    geomedian(block, weights, 1e-6, 2000, means[1])
    geomedian(block, weights * 1e-250, 1e-6, 2000, means[2])
    np.testing.assert_array_equal(means[1], means[2])
    np.testing.assert_allclose(means[1][:, many], means[0][:, many], atol=2e-4)


def test_medoid_of_two_dates_is_the_first():
    block = _block(2, 3, 10, seed=5, missing=0.0)
    out = np.empty(10, "int16")
    medoid(block, np.ones(len(block)), out)
    assert (out == 0).all()


def _geomedian(block, tolerance=1e-5, steps=500):
    out = np.empty(block.shape[1:], "float32")
    geomedian(block, np.ones(len(block)), tolerance, steps, out)
    return out


def _loss(point, spectra):
    return np.sqrt(((spectra - point) ** 2).sum(axis=1)).sum()


@pytest.mark.parametrize(("dates", "bands"), [(3, 2), (5, 4), (12, 10)])
def test_geomedian_minimises_the_sum_of_distances(dates, bands):
    block = _block(dates, bands, 40, seed=dates)
    found = _geomedian(block)
    for pixel in range(40):
        spectra = block[:, :, pixel].astype("float64")
        spectra = spectra[np.isfinite(spectra).all(axis=1)]
        if len(spectra) < 3:
            continue
        best = minimize(_loss, spectra.mean(axis=0), args=(spectra,), method="BFGS", options={"gtol": 1e-10}).fun
        best = min([best, *(_loss(spectrum, spectra) for spectrum in spectra)])
        assert _loss(found[:, pixel].astype("float64"), spectra) <= best + 5e-6  # a twentieth of a digital number


def test_geomedian_is_the_mean_of_two_dates_and_the_value_of_one():
    block = _block(4, 3, 200, seed=8, missing=0.6)
    found = _geomedian(block)
    counts = np.isfinite(block[:, 0]).sum(axis=0)
    mean = _quiet(np.nanmean, block.astype("float64"), axis=0)
    few = (counts > 0) & (counts < 3)
    np.testing.assert_allclose(found[:, few], mean[:, few], rtol=1e-6)
    assert np.isnan(found[:, counts == 0]).all()
    assert np.isfinite(found[:, counts > 0]).all()


def test_geomedian_of_a_pixel_does_not_depend_on_its_neighbours():
    block = _block(9, 5, 130, seed=9)
    together = _geomedian(block)
    for pixel in (0, 31, 32, 77, 129):
        alone = _geomedian(np.ascontiguousarray(block[:, :, pixel : pixel + 1]))
        np.testing.assert_array_equal(alone[:, 0], together[:, pixel])


def test_one_outlier_hardly_moves_the_geomedian():
    block = np.tile(np.array([0.05, 0.1, 0.4], "float32")[None, :, None], (7, 1, 1))
    block += np.random.default_rng(3).normal(0, 0.002, block.shape).astype("float32")
    block[6] = 0.9  # an undetected cloud
    assert np.abs(_geomedian(block)[:, 0] - [0.05, 0.1, 0.4]).max() < 0.005


def test_identical_dates_give_their_value():
    block = np.full((6, 4, 3), 0.25, "float32")
    np.testing.assert_allclose(_geomedian(block), 0.25, rtol=1e-6)
