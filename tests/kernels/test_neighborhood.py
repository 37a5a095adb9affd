from __future__ import annotations

import numpy as np
import pytest

from geococa._kernels import neighborhood
from tests import oracles_labels as oracles


@pytest.fixture(scope="module")
def probability():
    rng = np.random.default_rng(1)
    values = rng.dirichlet([0.6, 1.0, 2.0], size=(13, 17)).transpose(2, 0, 1).astype(np.float32)
    values[:, rng.random((13, 17)) < 0.2] = np.nan
    values[1, 4, 4] = np.nan
    return np.ascontiguousarray(values)


@pytest.mark.parametrize("half", [1, 2, 4])
def test_mean_equals_the_mean_of_the_observed_window(probability, half):
    out = np.empty_like(probability)
    neighborhood.smooth_mean(probability, half, out)
    np.testing.assert_allclose(out, oracles.window_mean(probability, half), atol=1e-7)


@pytest.mark.parametrize("half", [1, 2, 4])
@pytest.mark.parametrize("smoothness", [0.5, 10.0])
def test_bayes_equals_the_shrunk_logit_of_the_window(probability, half, smoothness):
    out = np.empty_like(probability)
    neighborhood.smooth_bayes(probability, half, np.full(3, smoothness), 1e-4, out)
    np.testing.assert_allclose(out, oracles.window_bayes(probability, half, smoothness, 1e-4), atol=2e-6)


def test_a_pixel_with_one_class_missing_is_not_observed(probability):
    out = np.empty_like(probability)
    neighborhood.smooth_mean(probability, 1, out)
    assert np.isnan(out[:, 4, 4]).all()


def test_window_wider_than_the_map_takes_the_whole_map(probability):
    out = np.empty_like(probability)
    neighborhood.smooth_mean(probability, 40, out)
    seen = ~np.isnan(probability).any(axis=0)
    expected = probability[:, seen].astype(float).mean(axis=1)
    np.testing.assert_allclose(out[:, seen], np.repeat(expected[:, None], seen.sum(), axis=1), atol=1e-6)


@pytest.mark.parametrize("half", [1, 2])
def test_majority_equals_the_count_of_votes(half):
    rng = np.random.default_rng(2)
    for _ in range(20):
        codes = rng.choice(np.array([1, 2, 3, 255], np.uint8), size=(9, 11), p=[0.3, 0.3, 0.3, 0.1])
        out = np.empty_like(codes)
        neighborhood.majority_window(codes, half, 255, out)
        np.testing.assert_array_equal(out, oracles.majority(codes, half, 255))
