"""Kernels that choose dates, against numpy, scipy and plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from geococa._kernels.dates import best_dates, median_days, near_missing, reach_back, weighted_medians
from geococa._kernels.temporal import percentiles, sorting_pairs


def _block(dates, bands, pixels, seed, missing=0.5):
    rng = np.random.default_rng(seed)
    block = rng.random((dates, bands, pixels)).astype("float32")
    block[np.broadcast_to(rng.random((dates, 1, pixels)) < missing, block.shape)] = np.nan
    return block


@pytest.mark.parametrize(("before", "least"), [(3, 1), (5, 2), (7, 3), (7, 30)])
def test_fallback_takes_the_latest_earlier_dates_and_as_many_as_are_lacking(before, least):
    block = _block(7, 2, 300, seed=before)
    source = block.copy()
    counts, early = np.empty((2, 300), "uint16")
    reach_back(block, before, least, counts, early)
    for i in range(300):
        valid = [t for t in range(7) if not np.isnan(source[t, 0, i])]
        own = [t for t in valid if t >= before]
        lacking = max(0, least - len(own))
        extra = [t for t in valid if t < before][::-1][:lacking]
        assert counts[i] == len(own) + len(extra)
        assert early[i] == len(extra)
        kept = sorted(own + extra)
        assert [t for t in range(7) if not np.isnan(block[t, :, i]).any()] == kept
        np.testing.assert_array_equal(block[kept, :, i], source[kept, :, i])


def test_median_day_is_the_floor_of_numpy_s_whatever_the_order_of_the_dates():
    block = _block(8, 1, 400, seed=1)
    days = np.random.default_rng(1).permutation(np.arange(18_000, 18_008) * 3).astype("float32")
    counts = np.isfinite(block[:, 0]).sum(axis=0).astype("uint16")
    out = np.empty(400, "float32")
    median_days(block, days, np.argsort(days), counts, out)
    for i in range(400):
        seen = days[np.isfinite(block[:, 0, i])]
        if len(seen):
            assert out[i] == np.floor(np.median(seen))
        else:
            assert np.isnan(out[i])


def _weighted(stack, weights):
    out = np.empty(stack.shape[1], "float32")
    weighted_medians(np.ascontiguousarray(stack), np.array(weights, "float64"), sorting_pairs(len(stack)), out)
    return out


@pytest.mark.parametrize("dates", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("pixels", [1, 255, 600])
def test_equal_weights_give_the_median_to_the_last_bit(dates, pixels):
    stack = _block(dates, 1, pixels, seed=dates)[:, 0] - np.float32(0.5)
    expected = np.empty((1, pixels), "float32")
    percentiles(np.ascontiguousarray(stack), sorting_pairs(dates), np.array([0.5]), expected)
    assert _weighted(stack, np.ones(dates)).tobytes() == expected[0].tobytes()


@given(
    st.lists(st.tuples(st.floats(-1, 1, width=32), st.integers(1, 5)), min_size=1, max_size=9),
)
@settings(deadline=None, max_examples=80)
def test_whole_weights_are_repetitions_of_the_date(series):
    values, weights = zip(*series, strict=True)
    repeated = np.repeat(np.array(values, "float32"), weights)
    found = _weighted(np.array(values, "float32")[:, None], weights)
    np.testing.assert_array_equal(found, np.median(repeated).astype("float32"))


def test_missing_dates_have_no_weight():
    stack = np.array([[0.9, np.nan], [0.1, np.nan], [np.nan, np.nan]], "float32")
    out = _weighted(stack, [1.0, 2.0, 100.0])
    assert out[0] == np.float32(0.1)
    assert np.isnan(out[1])


@pytest.mark.parametrize("limit", [35.0, 90.0, 1000.0])
def test_distance_to_the_missing_equals_scipy_up_to_the_limit(limit):
    missing = np.random.default_rng(3).random((40, 57)) < 0.01
    missing[:, 50] = False
    out = np.empty(missing.shape, "float32")
    near_missing(missing.view("uint8"), np.full(40, 10.0, "float32"), 20.0, limit, out)
    expected = np.minimum(distance_transform_edt(~missing, sampling=(20.0, 10.0)), limit)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_without_a_missing_cell_every_distance_is_the_limit():
    out = np.empty((4, 5), "float32")
    near_missing(np.zeros((4, 5), "uint8"), np.full(4, 10.0, "float32"), 10.0, 70.0, out)
    assert (out == 70.0).all()


def _best(block, day, near, weights, haze=(-1, -1)):
    out = np.empty(block.shape[2], "int16")
    best_dates(
        block, np.array(day, "float32"), np.array(near, "float32"), 100.0, np.array(haze), np.array(weights, "float32"), out
    )  # fmt: skip
    return out


def test_each_score_decides_where_it_is_the_only_one():
    block = np.full((3, 2, 1), 0.1, "float32")
    block[:, 0, 0] = 0.02, 0.05, 0.09  # blue: the first date is the least hazy
    near, day = [[10.0], [80.0], [30.0]], [0.1, 0.2, 0.3]
    assert _best(block, day, near, [1, 0, 0], (0, 1))[0] == 2
    assert _best(block, day, near, [0, 1, 0], (0, 1))[0] == 1
    assert _best(block, day, near, [0, 0, 1], (0, 1))[0] == 0


def test_missing_dates_are_never_the_best():
    block = _block(5, 2, 500, seed=9, missing=0.7)
    near = np.full((5, 500), 100.0)
    found = _best(block, [1, 0.8, 0.6, 0.4, 0.2], near, [1, 1, 1])
    valid = np.isfinite(block[:, 0])
    assert (found == np.where(valid.any(axis=0), valid.argmax(axis=0), -1)).all()
