"""Gaussian kernels against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from geococa._kernels import gaussian
from geococa._kernels.planes import flat_planes
from geococa.engines import single_gaussian

OPEN = -2


def classes_of(rng, n_classes, n_features, condition=1.0):
    mean = rng.normal(size=(n_classes, n_features)) * 2
    covariance = []
    for _ in range(n_classes):
        rotation = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
        covariance.append(rotation @ np.diag(np.geomspace(1, condition, n_features)) @ rotation.T)
    covariance = np.stack(covariance)
    whitening = np.tril(np.linalg.inv(np.linalg.cholesky(covariance)))
    constant = -0.5 * np.linalg.slogdet(covariance)[1] + np.log(rng.dirichlet(np.ones(n_classes)))
    return mean, covariance, whitening, constant


def distances(planes, whitening, mean):
    out = np.full((len(mean), planes.shape[1]), np.nan)
    gaussian.squared_distances(planes, whitening, mean, np.empty((mean.shape[1] + 1, gaussian.LANES)), out)
    return out


def labels(planes, mean, whitening, constant, limit=None):
    single = single_gaussian(mean, whitening, constant, limit)
    strip = np.zeros(single[3].shape[1] * gaussian.PITCH, np.float32)
    out, places = np.full(planes.shape[1], -9, np.int32), np.full(planes.shape[1], -9, np.int32)
    work = np.zeros(gaussian.ROWS * gaussian.PITCH, np.float32)
    n_open = gaussian.likely_classes(*flat_planes(planes), *single, strip, work, places, out)
    assert np.array_equal(places[:n_open], np.flatnonzero(out == gaussian.OPEN))
    return np.where(out == gaussian.OPEN, OPEN, out - 1)


@pytest.mark.parametrize("n_pixels", [1, 255, 256, 257, 600])
def test_distances_equal_scipys(n_pixels):
    rng = np.random.default_rng(0)
    mean, covariance, whitening, _ = classes_of(rng, 3, 5)
    planes = rng.normal(size=(5, n_pixels))
    expected = [
        cdist(planes.T, m[None], "mahalanobis", VI=np.linalg.inv(c))[:, 0] ** 2
        for m, c in zip(mean, covariance, strict=True)
    ]
    assert np.allclose(distances(planes, whitening, mean), expected, rtol=1e-10)


@pytest.mark.parametrize("n_features", [1, 3, 4, 7, 10])
def test_likely_class_is_that_of_double_precision_or_open(n_features):
    rng = np.random.default_rng(n_features)
    mean, _, whitening, constant = classes_of(rng, 5, n_features, condition=100)
    planes = (2 * rng.normal(size=(n_features, 700))).astype(np.float32)
    expected = (constant[:, None] - 0.5 * distances(planes, whitening, mean)).argmax(axis=0)
    found = labels(planes, mean, whitening, constant)
    decided = found != OPEN
    assert np.array_equal(found[decided], expected[decided])
    assert decided.mean() > 0.95


def test_near_ties_stay_open():
    mean = np.asarray([[0.0, 0.0], [2.0, 0.0]])
    whitening, constant = np.stack([np.eye(2)] * 2), np.zeros(2)
    planes = np.asarray([[1.0, np.nextafter(np.float32(1), np.float32(2)), 0.9], [5.0, 5.0, 5.0]], np.float32)
    assert labels(planes, mean, whitening, constant).tolist() == [OPEN, OPEN, 0]


def test_pixels_beyond_the_limit_are_rejected():
    mean = np.asarray([[0.0, 0.0], [10.0, 0.0]])
    planes = np.asarray([[0.5, 2.9, 3.1, 5.1, 9.0], [0.0] * 5], np.float32)
    found = labels(planes, mean, np.stack([np.eye(2)] * 2), np.zeros(2), limit=9.0)
    assert found.tolist() == [0, 0, -1, -1, 1]


def test_a_pixel_on_the_limit_stays_open():
    found = labels(np.asarray([[3.0]], np.float32), np.zeros((1, 1)), np.ones((1, 1, 1)), np.zeros(1), limit=9.0)
    assert found.tolist() == [OPEN]


def test_error_bound_holds_for_digital_numbers_far_from_zero():
    rng = np.random.default_rng(5)
    mean, _, whitening, constant = classes_of(rng, 4, 6, condition=1e6)
    mean = mean * 300 + 8000
    whitening = whitening / 300
    planes = (8000 + 600 * rng.normal(size=(6, 900))).astype(np.float32)
    expected = (constant[:, None] - 0.5 * distances(planes.astype(np.float64), whitening, mean)).argmax(axis=0)
    found = labels(planes, mean, whitening, constant)
    decided = found != OPEN
    assert np.array_equal(found[decided], expected[decided])


def test_singular_classes_are_left_to_double_precision():
    assert single_gaussian(np.zeros((2, 1)), np.full((2, 1, 1), 1e30), np.zeros(2), None) is not None
    assert single_gaussian(np.zeros((2, 1)), np.full((2, 1, 1), 1e60), np.zeros(2), None) is None
