"""Widening of masks against scipy's exact distance transform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from geococa._kernels.masks import widen
from geococa.grid import Grid
from geococa.mask_rules import half_widths


def _widen(mask, buffer_m, cell=(10.0, 10.0)):
    grid = Grid("EPSG:32618", (cell[0], 0, 600000, 0, -cell[1], 300000), mask.shape)
    out = np.empty(mask.shape, "uint8")
    widen(mask.astype("uint8"), half_widths(grid, buffer_m), out)
    return out.astype(bool)


def _by_distance(mask, buffer_m, cell=(10.0, 10.0)):
    if not mask.any():
        return np.zeros(mask.shape, bool)
    return distance_transform_edt(~mask, sampling=(cell[1], cell[0])) <= buffer_m + 1e-6


@pytest.mark.parametrize("buffer_m", [1, 10, 14.14, 14.15, 25, 60, 300])
@pytest.mark.parametrize("cell", [(10.0, 10.0), (30.0, 30.0), (10.0, 20.0)])
def test_widened_masks_are_those_of_the_distance_transform(buffer_m, cell):
    mask = np.random.default_rng(int(buffer_m)).random((40, 55)) < 0.01
    np.testing.assert_array_equal(_widen(mask, buffer_m, cell), _by_distance(mask, buffer_m, cell))


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 150), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_any_small_mask_widens_exactly(rows, columns, buffer_m, seed):
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.15
    np.testing.assert_array_equal(_widen(mask, buffer_m), _by_distance(mask, buffer_m))


def test_cells_narrow_towards_the_pole():
    grid = Grid("EPSG:4326", (0.001, 0, -75, 0, -0.1, 70), (600, 10))  # 70 N to 10 N
    half = half_widths(grid, 1000.0)[:, 0]
    assert half[0] > half[-1]
    # one thousandth of a degree of longitude is 38.2 m at 70 N and 109.6 m at 10 N
    assert (half[0], half[-1]) == (int(1000 / 38.3), int(1000 / 109.64))
