"""Yearly images around sample points for response sheets, made as the maps' own images are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geococa.errors import InputRefused
from geococa.recipe import Recipe
from geococa.recipe_sections import Features, Sar
from geococa.tile_features import halo_of, yearly_features
from geococa.tiles import find_tiles, open_tile

if TYPE_CHECKING:
    import xarray as xr
    from geopandas import GeoDataFrame

    from geococa.tiles import TileRef

__all__ = ["sample_pictures"]


def sample_pictures(
    tiles: Sequence[Path], samples: GeoDataFrame, recipe: Recipe, bands: tuple[str, ...], *, window_m: float
) -> list[xr.DataArray]:
    """Compose one image a year around every sample point, with the masks and the reducer of a recipe.

    Only the windows around the points are read, so that a whole scene never has to fit in memory.

    Parameters
    ----------
    tiles : sequence of pathlib.Path
        Tile folders; a point is taken from the first that covers it.
    samples : geopandas.GeoDataFrame
        Points.
    recipe : Recipe
        Its sections ``[scenes]``, ``[clear_sky]``, ``[reflectance]`` and ``[composite]``.
    bands : tuple of str
        Bands to show.
    window_m : float
        Side of a window on the ground, metres.

    Returns
    -------
    list of xarray.DataArray
        float32 ``(time, feature, y, x)`` reflectance, NaN = not observed; one for each place, for
        `geococa.response_sheets.write_response_sheet`.

    Raises
    ------
    InputRefused
        A point lies on none of the tiles.
    """
    plain = recipe.model_copy(update={"features": Features(names=bands), "sar": Sar()})
    found = [_tile(path, recipe) for path in tiles]
    places = [samples.geometry.to_crs(tile.grid.crs) for tile in found]
    out, done, bare = [], set(), 0
    for row in range(len(samples)):
        for number, (tile, points) in enumerate(zip(found, places, strict=True)):
            window = _window(tile, points.iloc[row].x, points.iloc[row].y, window_m)
            if window is None:
                continue
            # a panel has one row a point and year
            if (number, window) not in done:
                done.add((number, window))
                out.append(_picture(tile, plain, window))
            break
        else:
            bare += 1
    if bare:
        raise InputRefused(f"{bare} of {len(samples)} samples lie on none of the tiles; name all tiles of the sample")
    return out


def _tile(path: Path, recipe: Recipe) -> TileRef:
    tiles = find_tiles(path.parent, pattern=path.name, sensor=recipe.scenes.sensor)
    if len(tiles) != 1:
        raise InputRefused(f"{path} is not one tile folder; name the folders of the tiles")
    return tiles[0]


def _window(tile: TileRef, x: float, y: float, window_m: float) -> tuple[int, int, int, int] | None:
    """Rows and columns (first row, last row, first column, last column; ends excluded) around a place, or None off the tile."""
    grid = tile.grid
    column, row = (~grid.transform) * (x, y)
    rows, columns = grid.shape
    if not (0 <= row < rows and 0 <= column < columns):
        return None
    metres = math.sqrt(float(np.asarray(grid.cell_area_ha()).mean()) * 1e4)
    half = math.ceil(window_m / metres / 2) + 1
    return (
        max(int(row) - half, 0),
        min(int(row) + half + 1, rows),
        max(int(column) - half, 0),
        min(int(column) + half + 1, columns),
    )


def _picture(tile: TileRef, recipe: Recipe, window: tuple[int, int, int, int]) -> xr.DataArray:
    """Yearly image of a window; what masks need around it is read too and cut off again."""
    halo = halo_of(recipe, tile.grid)
    rows, columns = tile.grid.shape
    r0, r1, c0, c1 = window
    outer = (max(r0 - halo, 0), min(r1 + halo, rows), max(c0 - halo, 0), min(c1 + halo, columns))
    scenes = open_tile(tile, sensor=recipe.scenes.sensor, bands=recipe.bands_needed(), window=outer)
    features, _ = yearly_features(scenes, recipe)
    return features.isel(y=slice(r0 - outer[0], r1 - outer[0]), x=slice(c0 - outer[2], c1 - outer[2])).compute()
