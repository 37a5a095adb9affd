"""Kernels of distances in feature space, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from geococa._kernels import nearest


def cloud(n, size, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3)) @ rng.normal(size=(3, size)) + 0.1 * rng.normal(size=(n, size))
    return points - points.mean(axis=0)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_axes_are_the_eigenvectors_largest_first(size):
    points = cloud(60, size)
    axes = np.empty((size, size))
    nearest.principal_axes(points, 12, np.empty((size, size)), axes)
    np.testing.assert_allclose(axes.T @ axes, np.eye(size), atol=1e-12)
    turned = axes.T @ (points.T @ points) @ axes
    values = np.linalg.eigvalsh(points.T @ points)[::-1]
    np.testing.assert_allclose(np.diag(turned), values, rtol=1e-9)
    np.testing.assert_allclose(turned - np.diag(np.diag(turned)), 0, atol=1e-8 * values[0])


def test_axes_of_constant_features_are_a_rotation():
    axes = np.empty((3, 3))
    nearest.principal_axes(np.zeros((5, 3)), 4, np.empty((3, 3)), axes)
    assert np.array_equal(axes, np.eye(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coordinates_are_the_product_and_do_not_depend_on_the_block(dtype):
    rng = np.random.default_rng(1)
    planes, centre, matrix = rng.normal(size=(5, 37)).astype(dtype), rng.normal(size=5), rng.normal(size=(5, 4))
    whole = np.empty((37, 4))
    nearest.on_axes(planes, centre, matrix, whole)
    np.testing.assert_allclose(whole, (planes.T.astype(float) - centre) @ matrix, rtol=1e-12, atol=1e-13)
    part = np.empty((11, 4))
    nearest.on_axes(np.ascontiguousarray(planes[:, 13:24]), centre, matrix, part)
    assert np.array_equal(part, whole[13:24])


def test_farthest_points_are_chosen_one_by_one():
    points = cloud(50, 4, seed=3)
    chosen, squared = np.empty(12, np.int64), np.empty(50)
    nearest.farthest_points(points, 7, squared, chosen)
    expected = [7]
    while len(expected) < 12:
        distance = ((points[:, None] - points[expected]) ** 2).sum(axis=2).min(axis=1)
        expected.append(int(distance.argmax()))
    assert chosen.tolist() == expected
    np.testing.assert_allclose(squared, ((points[:, None] - points[expected]) ** 2).sum(axis=2).min(axis=1), atol=1e-12)
