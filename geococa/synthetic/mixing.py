"""Exact shares of pixels inside the patches: the weights by which reflectance mixes at pixel borders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geococa.grid import Grid

__all__ = ["to_pixel_units", "unit_shares"]


def to_pixel_units(geometry: NDArray[Any], crs: pyproj.CRS, grid: Grid) -> NDArray[Any]:
    """Polygons in columns (to the right) and rows (down) of a grid, vertex by vertex."""
    transformer = pyproj.Transformer.from_crs(crs, grid.crs, always_xy=True)
    inverse = ~grid.transform

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = transformer.transform(points[:, 0], points[:, 1])
        return np.column_stack([inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f])

    return np.asarray(shapely.transform(geometry, move), dtype=object)


def unit_shares(geometry: NDArray[Any], crs: pyproj.CRS, grid: Grid) -> Any:
    """Share of every pixel inside every polygon, as a sparse matrix.

    Parameters
    ----------
    geometry : numpy.ndarray of object, shape (units,)
        Polygons or multi-polygons.
    crs : pyproj.CRS
        Their CRS.
    grid : Grid
        Raster.

    Returns
    -------
    scipy.sparse.csr_array, shape (pixels, units)
        Shares, pixels in row order. The units of a partition of the raster sum to 1 in every row.
    """
    from scipy import sparse

    from geococa._kernels import coverage

    rows, columns = grid.shape
    x, y, offsets, hole, zones = _rings(to_pixel_units(geometry, crs, grid))
    strips = coverage.sweep(x, y, offsets, hole, zones, 0, len(geometry), 0, rows, columns)
    zone, row, span_at, span_start, span_stop, cell_at, cell_column, cell_share, _ = strips
    # spans of whole cells, written out one by one
    length = (span_stop - span_start).astype(np.int64)
    of_span = np.repeat(np.arange(len(zone)), np.diff(span_at))
    first = np.repeat(span_start.astype(np.int64) - np.cumsum(length) + length, length)
    whole = first + np.arange(int(length.sum()))
    of_whole = np.repeat(of_span, length)
    of_cell = np.repeat(np.arange(len(zone)), np.diff(cell_at))
    strip = np.concatenate([of_whole, of_cell])
    column = np.concatenate([whole, cell_column.astype(np.int64)])
    share = np.concatenate([np.ones(len(whole)), cell_share])
    pixel = row[strip].astype(np.int64) * columns + column
    return sparse.csr_array((share, (pixel, zone[strip].astype(np.int64))), shape=(rows * columns, len(geometry)))


def _rings(
    geometry: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Vertices, first vertex of each ring, whether a ring is a hole, and first ring of each polygon."""
    parts, of_part = shapely.get_parts(geometry, return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    hole = np.concatenate([[False], np.diff(of_ring) == 0]) if len(rings) else np.zeros(0, dtype=bool)
    points, of_point = shapely.get_coordinates(rings, return_index=True)
    offsets = np.searchsorted(of_point, np.arange(len(rings) + 1)).astype(np.int64)
    zones = np.searchsorted(of_part[of_ring], np.arange(len(geometry) + 1)).astype(np.int64)
    return np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1]), offsets, hole, zones
