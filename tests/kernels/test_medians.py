"""The median by a network in registers, against numpy and against the kernels that need no compiling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from geococa._kernels import medians
from geococa._kernels.temporal import sorting_pairs
from geococa.reducers import Dates, plain_median, reduce_arrays
from tests.oracles_statistics import spectral_medians

pytestmark = pytest.mark.skipif(not medians.COMPILED, reason="nothing is compiled")


def bands_of(dates, shape, seed=0, special=True):
    rng = np.random.default_rng(seed)
    bands = rng.normal(size=(3, dates, *shape)).astype(np.float32)
    bands[:, rng.random((dates, *shape)) < 0.4] = np.nan
    bands[rng.random(bands.shape) < 0.03] = np.nan
    if special:
        for value in (np.inf, -np.inf, 0.0, -0.0, 3e38):
            bands[rng.random(bands.shape) < 0.02] = value
    return list(bands)


def dates_of(count, seed=0):
    days = 18_000 + np.random.default_rng(seed).permutation(4 * count)[:count]
    return Dates(days.astype(np.float32), np.zeros(count))


@pytest.mark.parametrize("n", range(1, 15))
def test_the_pairs_bring_the_middle_ranks_of_every_order_of_zeros_and_ones(n):
    """A network that is right for all zeros and ones is right for all numbers (Knuth, 5.3.4, theorem Z)."""
    pairs = medians.median_pairs(n)
    values = np.array(list(itertools.product((0, 1), repeat=n))).T
    expected = np.sort(values, axis=0)[[(n - 1) // 2, n // 2]]
    for low, high, part in pairs:
        a, b = np.minimum(values[low], values[high]), np.maximum(values[low], values[high])
        # what is not needed is not computed: put something wrong there
        values[low], values[high] = a if part != 2 else 9, b if part != 1 else -9
    np.testing.assert_array_equal(values[[(n - 1) // 2, n // 2]], expected)
    assert len(pairs) <= len(sorting_pairs(n))


@pytest.mark.parametrize(("dates", "shape"), [(1, (1, 9)), (3, (3, 100)), (7, (20, 31)), (8, (13, 87)), (13, (1, 8))])
@pytest.mark.parametrize("least", [1, 3])
def test_every_layer_is_that_of_the_other_kernels_to_the_bit(monkeypatch, dates, shape, least):
    bands, when = bands_of(dates, shape, seed=dates), dates_of(dates)
    expected = reduce_arrays(bands, plain_median, when, least, 1)
    monkeypatch.setattr(medians, "LEAST_PIXELS", 1)
    made = reduce_arrays(bands, plain_median, when, least, 1)
    for name in ("bands", "counts", "early", "day"):
        assert getattr(made, name).tobytes() == getattr(expected, name).tobytes(), name
    assert (made.counts >= least).any() or dates < least


def test_values_are_numpys_and_days_those_of_the_dates(monkeypatch):
    monkeypatch.setattr(medians, "LEAST_PIXELS", 1)
    bands, when = bands_of(7, (9, 40), special=False), dates_of(7)
    made = reduce_arrays(bands, plain_median, when, 1, 1)
    values, counts, day = spectral_medians(bands, when.days)
    np.testing.assert_array_equal(made.bands, values)
    np.testing.assert_array_equal(made.counts, counts)
    np.testing.assert_array_equal(made.day, day)


def test_tasks_and_threads_change_nothing(monkeypatch):
    import geococa.reducers as reducers

    monkeypatch.setattr(medians, "LEAST_PIXELS", 1)
    bands, when = bands_of(5, (37, 61)), dates_of(5)
    whole = reduce_arrays(bands, plain_median, when, 1, 1)
    for task in (8, 64, 500, 2256):
        monkeypatch.setattr(reducers, "_TASK", task)
        for threads in (1, 2):
            made = reduce_arrays(bands, plain_median, when, 1, threads)
            assert made.bands.tobytes() == whole.bands.tobytes()
            assert made.counts.tobytes() == whole.counts.tobytes()
            assert made.day.tobytes() == whole.day.tobytes()


def test_small_images_and_many_dates_need_no_network(monkeypatch):
    made = []
    monkeypatch.setattr(medians, "composite_medians", lambda size: made.append(size))
    reduce_arrays(bands_of(5, (20, 20)), plain_median, dates_of(5), 1, 1)
    monkeypatch.setattr(medians, "LEAST_PIXELS", 1)
    reduce_arrays(bands_of(70, (2, 9)), plain_median, dates_of(70), 1, 1)
    assert made == []
    assert [medians.network_size(n) for n in (1, 4, 5, 30, 61)] == [4, 4, 8, 32, 64]
