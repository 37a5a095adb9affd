"""Entropy and margin of class probabilities, against plain numpy."""

from __future__ import annotations

import numpy as np

from geococa._kernels import certainty


def run(probability):
    out = np.empty((2, probability.shape[1]), np.float32)
    certainty.entropy_and_margin(probability, out[0], out[1])
    return out


def test_certain_even_and_missing_pixels():
    probability = np.float32([[1, 0.25, np.nan, 0.5], [0, 0.25, 0.5, 0.5], [0, 0.25, 0.5, 0], [0, 0.25, 0, 0]])
    entropy, margin = run(probability)
    assert np.array_equal(entropy, np.float32([0, 1, np.nan, 0.5]), equal_nan=True)
    assert np.array_equal(margin, np.float32([1, 0, np.nan, 0]), equal_nan=True)


def test_random_pixels_are_those_of_numpy():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 200).T.astype(np.float32)
    entropy, margin = run(p)
    wide = p.astype(np.float64)
    np.testing.assert_allclose(entropy, -(wide * np.log(wide)).sum(axis=0) / np.log(5), atol=1e-6)
    best = np.sort(wide, axis=0)
    np.testing.assert_allclose(margin, best[-1] - best[-2], atol=1e-7)
