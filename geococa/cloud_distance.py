"""Distance of every observation to the nearest cloud, shadow or gap of its scene."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geococa._checks import optional_import
from geococa.grid import Grid
from geococa.mask_rules import is_dask

__all__ = ["cloud_distance", "reach_cells"]


def cloud_distance(bands: list[Any], grid: Grid, limit_m: float) -> Any:
    """Metres from each observation to the nearest place that was not observed on that date.

    Parameters
    ----------
    bands : list of array
        Reflectance ``(time, y, x)`` of each band, NaN = not observed, NumPy or Dask.
    grid : Grid
        Grid of the bands.
    limit_m : float
        Distances are cut here, so a block needs a halo of this width only. Ground beyond the edge of the grid
        counts as observed.

    Returns
    -------
    array
        float32 ``(time, y, x)``, lazy where a band is.
    """
    width, height = _cell_sides_m(grid)
    missing = np.isnan(bands[0])
    for band in bands[1:]:
        missing = missing | np.isnan(band)
    if not is_dask(missing):
        return _distances(missing, width, height, limit_m)
    da = optional_import("dask.array", "dask")
    reach = {0: 0} | {axis: min(cells, missing.shape[axis]) for axis, cells in reach_cells(grid, limit_m).items()}
    # a halo may not be wider than the blocks beside it
    sizes = {axis: max(reach[axis], max(missing.chunks[axis])) for axis in (1, 2)}
    small = any(min(missing.chunks[axis]) < reach[axis] for axis in (1, 2))
    source = missing.rechunk({axis: _even(missing.shape[axis], sizes[axis]) for axis in (1, 2)}) if small else missing
    padded = da.overlap.overlap(source, depth=reach, boundary="none", allow_rechunk=False)
    starts = np.concatenate([[0], np.cumsum(source.chunks[1])])
    columns = source.chunks[2]

    def block(part: np.ndarray, block_id: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
        _, i, j = block_id
        top, left = (reach[1] if i else 0), (reach[2] if j else 0)
        first = starts[i] - top
        out = _distances(part, width[first : first + part.shape[1]], height, limit_m)
        return out[:, top : top + starts[i + 1] - starts[i], left : left + columns[j]]

    out = da.map_blocks(block, padded, dtype=np.float32, chunks=source.chunks, meta=np.empty((0, 0, 0), np.float32))
    return out.rechunk(missing.chunks)


def reach_cells(grid: Grid, limit_m: float) -> dict[int, int]:
    """Cells down (1) and across (2) that lie within a distance."""
    width, height = _cell_sides_m(grid)
    return {1: math.ceil(limit_m / height) + 1, 2: math.ceil(limit_m / float(width.min())) + 1}


def _even(total: int, least: int) -> tuple[int, ...]:
    """Chunk sizes of at least ``least`` cells, or one chunk."""
    parts = max(1, total // least)
    return tuple(total // parts + (k < total % parts) for k in range(parts))


def _cell_sides_m(grid: Grid) -> tuple[np.ndarray, float]:
    """Width of the cells of each row and their height, in metres."""
    a, b, _, d, e, f = tuple(grid.transform)[:6]
    rows = grid.shape[0]
    if grid.crs.is_geographic:
        latitude = np.radians(f + (np.arange(rows) + 0.5) * e)
        across = abs(a) * (111_412.84 * np.cos(latitude) - 93.5 * np.cos(3 * latitude))
        # to the millimetre: a block of a tile then has the widths of the tile
        return np.round(np.maximum(across, 1e-3), 3).astype(np.float32), abs(e) * 110_574.0
    unit = grid.crs.axis_info[0].unit_conversion_factor if grid.crs.axis_info else 1.0
    return np.full(rows, math.hypot(a, d) * (unit or 1.0), np.float32), math.hypot(b, e) * (unit or 1.0)


def _distances(missing: np.ndarray, width: np.ndarray, height: float, limit_m: float) -> np.ndarray:
    from geococa._kernels.dates import near_missing

    out = np.empty(missing.shape, np.float32)
    for source, target in zip(missing, out, strict=True):
        near_missing(np.ascontiguousarray(source).view(np.uint8), width, height, float(limit_m), target)
    return out
