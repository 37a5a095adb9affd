"""Planes as flat arrays, and which of their pixels are finite."""

from __future__ import annotations

import numpy as np
import pytest

from geococa._kernels.planes import all_finite, flat_planes

CUTS = [np.s_[:, :], np.s_[:, 5:17], np.s_[1:3, 4:], np.s_[::2, 3:9], np.s_[1:2, 2:7], np.s_[:, ::2], np.s_[::-1, :]]


@pytest.mark.parametrize("cut", [*CUTS, np.s_[:, 4:5]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_a_cut_stand_at_equal_distances(cut, dtype):
    planes = np.arange(4 * 30, dtype=dtype).reshape(4, 30)[cut]
    flat, step = flat_planes(planes)
    assert flat.flags.c_contiguous
    assert flat.ndim == 1
    for f, row in enumerate(planes):
        assert np.array_equal(flat[f * step : f * step + len(row)], row)


def test_a_cut_of_whole_planes_is_not_copied():
    planes = np.zeros((4, 30), np.float32)
    assert np.shares_memory(flat_planes(planes[:, 5:17])[0], planes)
    assert not np.shares_memory(flat_planes(planes[:, ::2])[0], planes)


def test_planes_in_fortran_order_are_copied():
    planes = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    flat, step = flat_planes(planes)
    assert np.array_equal(flat.reshape(3, step), planes)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")  # as plain Python
@pytest.mark.parametrize("n_pixels", [0, 1, 511, 512, 513, 1300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finite_pixels_are_numpys(n_pixels, dtype):
    rng = np.random.default_rng(n_pixels)
    planes = rng.normal(size=(5, n_pixels + 7)).astype(dtype)
    for value in (np.nan, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).tiny / 2, 1e30):
        planes[rng.random(planes.shape) < 0.02] = value
    planes = planes[:, 3 : 3 + n_pixels]
    assert np.array_equal(all_finite(planes), np.isfinite(planes).all(axis=0))
    assert np.array_equal(all_finite(planes, 1e20), (np.abs(planes) <= 1e20).all(axis=0))


def test_whole_numbers_are_finite():
    assert all_finite(np.ones((2, 3), np.uint16)).all()
