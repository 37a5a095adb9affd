"""Cells of every zone with their codes in all years and their hectares inside the zone, by blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from geococa.coverage import Coverage

__all__ = ["closing_factor", "map_years", "zone_blocks"]

_ROWS = 512


def zone_blocks(
    maps: xr.DataArray, share: Coverage, counts: xr.DataArray | None = None
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Go through the zones by blocks of rows, always the same ones, so that sums do not depend on chunks.

    Parameters
    ----------
    maps : xarray.DataArray
        ``(time, y, x)``, NumPy or Dask; only a block of rows is held.
    share : Coverage
        On the same grid.
    counts : xarray.DataArray, optional
        A second array ``(time, y, x)`` to gather from.

    Yields
    ------
    zone : int
        Number of the zone.
    codes : numpy.ndarray, shape (times, cells)
    hectares : numpy.ndarray of float64, shape (cells,)
        Share of each cell inside the zone times its area on the ellipsoid.
    counts : numpy.ndarray, shape (times, cells), or None
    """
    rows, _ = share.grid.shape
    for start in range(0, rows, _ROWS):
        stop = min(start + _ROWS, rows)
        strips = share.strips(start, stop)
        if not strips.size:
            continue
        codes = np.asarray(maps.isel(y=slice(start, stop)).data)
        second = (
            None if counts is None else np.asarray(counts.transpose("time", "y", "x").isel(y=slice(start, stop)).data)
        )
        area = share.grid.cell_area_ha((start, stop))
        owner = share.strip_zone[strips]
        for zone in np.unique(owner):
            row, column, inside = share.expand(strips[owner == zone], start)
            hectares = inside * area[row, column if area.shape[1] > 1 else 0]
            yield int(zone), codes[:, row, column], hectares, None if second is None else second[:, row, column]


def closing_factor(share: Coverage, total_ha: np.ndarray) -> np.ndarray:
    """Factor of each zone that makes the hectares of its cells add up to those of its polygon on the raster."""
    return np.divide(share.inside_ha, total_ha, out=np.ones_like(total_ha), where=total_ha > 0)


def map_years(maps: xr.DataArray) -> list[int]:
    """Years of the times of a map; 0, 1, 2, ... without time coordinate."""
    if "time" not in maps.coords:
        return list(range(maps.sizes["time"]))
    times = maps["time"]
    values = times.dt.year.values if np.issubdtype(times.dtype, np.datetime64) else times.values
    return [int(value) for value in values]
