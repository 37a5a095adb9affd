"""Footprints: the part of a tile that has data, so that ground at the edge of a swath goes to a neighbour that saw it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
import xarray as xr
from affine import Affine

from geococa._checks import check_dims
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA
from geococa.owned_ground import LONLAT, grid_outline
from geococa.polygons import reprojected, rings_of
from geococa.transforms import place

__all__ = ["SMALLEST_HA", "footprint_of", "valid_footprint"]

SMALLEST_HA = 100.0
"""Patches without data smaller than this, such as a cloud that never moved, stay with their tile."""

_BLOCK = 8


def valid_footprint(land_cover: xr.DataArray, *, smallest_ha: float = SMALLEST_HA) -> Any:
    """Ground on which a map was observed at least once, along the edges of cells.

    Parameters
    ----------
    land_cover : xarray.DataArray
        ``([time,] y, x)``: uint8 labels (255 = not observed), floats (NaN = not observed) or bool (True = observed),
        NumPy or Dask, read one time at a time.
    smallest_ha : float
        Patches without data smaller than this count as having data, and patches of data smaller than this within them
        as having none; they would cut the ground of tiles to crumbs.

    Returns
    -------
    shapely Polygon or MultiPolygon
        Longitude and latitude, for ``geococa.own_tiles(grids, footprints={tile: ...})``. Empty where nothing was
        observed.

    Examples
    --------
    >>> grid = Grid("EPSG:32618", (100, 0, 500000, 0, -100, 300000), (40, 40))
    >>> seen = grid.attach(xr.DataArray(np.arange(1600).reshape(40, 40) % 40 < 10, dims=("y", "x")))
    >>> from geococa.polygons import polygon_area_ha
    >>> round(polygon_area_ha(valid_footprint(seen), "EPSG:4326"), 1)
    400.3
    """
    check_dims(land_cover, "y", "x", optional=("time",))
    seen = np.zeros((land_cover.sizes["y"], land_cover.sizes["x"]), bool)
    layers = land_cover if "time" in land_cover.dims else land_cover.expand_dims("time")
    for number in range(layers.sizes["time"]):
        seen |= _observed(np.asarray(layers.isel(time=number).transpose("y", "x").data))
    return footprint_of(seen, Grid.from_xarray(land_cover), smallest_ha=smallest_ha)


def _observed(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if values.dtype == bool:
        return values
    if values.dtype.kind == "f":
        return ~np.isnan(values)
    if values.dtype == np.uint8:
        out: npt.NDArray[np.bool_] = values != NO_DATA
        return out
    raise InputRefused(
        f"expected a land-cover map (uint8, 255 = not observed), floats or a mask, got {values.dtype}; make a map with "
        "geococa.as_land_cover(labels, classes)"
    )


def footprint_of(seen: npt.NDArray[np.bool_], grid: Grid, *, smallest_ha: float = SMALLEST_HA) -> Any:
    """Footprint of a mask on a grid, see `valid_footprint`."""
    outline = grid_outline(grid)
    if seen.all():
        return outline
    cell_ha = float(np.median(grid.cell_area_ha((grid.shape[0] // 2, grid.shape[0] // 2 + 1))))
    unseen = _patches(~seen, grid, max(1, int(np.ceil(smallest_ha / cell_ha - 1e-9))))
    if not unseen:
        return outline
    rings = reprojected(rings_of(unseen), grid.crs, LONLAT)
    return shapely.difference(outline, shapely.union_all(shapely.make_valid(rings.geometries())))


def _patches(mask: npt.NDArray[np.bool_], grid: Grid, cells: int) -> list[Any]:
    """Patches of a mask as polygons in the CRS of the grid; those at the edge of the grid reach a cell beyond it."""
    from rasterio.features import shapes, sieve

    solid = _large(mask, _BLOCK if cells >= 16 * _BLOCK**2 else 1).astype(np.uint8)
    if cells >= solid.size and solid.sum() < cells:
        return []
    if 1 < cells < solid.size:
        solid = sieve(solid, size=cells, connectivity=4)
    if not solid.any():
        return []
    padded = np.pad(solid, 1, mode="edge")
    found = []
    for shape, value in shapes(padded, mask=padded > 0, connectivity=4, transform=Affine.identity()):
        if value != 1:
            continue
        rings = []
        for ring in shape["coordinates"]:
            column, row = np.asarray(ring, np.float64).T - 1.0
            rings.append(np.column_stack(place(grid.transform, column, row)))
        found.append(shapely.Polygon(rings[0], rings[1:]))
    return found


def _large(mask: npt.NDArray[np.bool_], block: int) -> npt.NDArray[np.bool_]:
    """Large patches of the mask, without what lies apart from them.

    A large patch fills whole blocks; its border is within a block of these. So speckle, of which a cloudy tile has
    millions, is dropped before patches are sought.
    """
    if block == 1:
        return mask
    rows, columns = mask.shape
    full = np.logical_and.reduceat(mask, np.arange(0, rows, block), axis=0)
    full = np.logical_and.reduceat(full, np.arange(0, columns, block), axis=1)
    near = np.pad(full, 1)
    for axis in (0, 1):
        near = near | np.roll(near, 1, axis) | np.roll(near, -1, axis)
    near = near[1:-1, 1:-1]
    close = np.repeat(np.repeat(near, block, axis=0)[:rows], block, axis=1)[:, :columns]
    out: npt.NDArray[np.bool_] = mask & close
    return out
