"""Terrain the slow way: the formulas of gdaldem (Horn), cell by cell, and distances on the ellipsoid."""

from __future__ import annotations

import math

import numpy as np


def horn(heights, row, column, dx, dy):
    """Slope in degrees and aspect clockwise from north as gdaldem has them; rows run south."""
    a, b, c, d, _, f, g, h, i = heights[row - 1 : row + 2, column - 1 : column + 2].astype(float).ravel()
    west_minus_east = ((a + 2 * d + g) - (c + 2 * f + i)) / (8 * dx)
    south_minus_north = ((g + 2 * h + i) - (a + 2 * b + c)) / (8 * dy)
    slope = math.degrees(math.atan(math.hypot(west_minus_east, south_minus_north)))
    # azimuth of the way down: it falls to the east where the west is higher, to the north where the south is
    aspect = math.degrees(math.atan2(west_minus_east, south_minus_north)) % 360
    return slope, aspect if slope > 0 else math.nan


def hills(shape, seed=0, roughness=5.0):
    """Smooth heights with some noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = 300 + 120 * np.sin(rows / 7.0) * np.cos(columns / 9.0) + 2.5 * columns
    return (waves + rng.normal(0, roughness, shape)).astype(np.float32)
