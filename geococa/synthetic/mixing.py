"""Exact shares of pixels inside patches: the weights by which reflectance mixes at pixel borders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from geococa.grid import Grid

__all__ = ["unit_shares"]


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
    import geopandas as gpd
    from scipy import sparse

    from geococa.zones import coverage_fraction

    names = [str(number) for number in range(len(geometry))]
    zones = gpd.GeoDataFrame({"zone": names}, geometry=list(geometry), crs=crs)
    coverage = coverage_fraction(zones, grid, allow_outside=True)
    found = [coverage.cells(name) for name in names]
    unit = np.repeat(np.arange(len(names)), [len(share) for _, _, share in found])
    rows, columns, shares = (np.concatenate(parts) for parts in zip(*found, strict=True))
    pixel = rows * grid.shape[1] + columns
    size = grid.shape[0] * grid.shape[1]
    return sparse.csr_array((shares, (pixel, unit)), shape=(size, len(names)))
