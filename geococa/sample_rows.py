"""Reference samples of an archive as rows of features, block by block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pandas as pd
import shapely

from geococa.errors import InputRefused
from geococa.extraction import extract_samples
from geococa.features import bands_of
from geococa.recipe import Recipe
from geococa.screening import screen_tile
from geococa.tile_features import TileContext, block_features, halo_of
from geococa.tiles import TileRef
from geococa.training_methods import TAKES_MISSING

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["sample_table"]

log = logging.getLogger("geococa")

Progress = Callable[[int], None]


def sample_table(
    tiles: Iterable[TileRef], samples: GeoDataFrame, recipe: Recipe, *, progress: Progress | None = None
) -> pd.DataFrame:
    """Features at the reference samples of an archive, block by block.

    A sample that lies in several overlapping tiles is taken from the first one (by tile id) that observed it, so no place
    counts twice.

    Parameters
    ----------
    tiles : iterable of TileRef
        Tiles of the archive.
    samples : geopandas.GeoDataFrame
        From `geococa.read_samples`: ``class``, perhaps ``year``, and points or polygons.
    recipe : Recipe
        Settings of every stage up to the features.

    Returns
    -------
    pandas.DataFrame
        One row per sampled pixel and year: ``class, year, tile, sample, row, col, x, y`` and one column per feature;
        ``attrs["unobserved"]`` counts samples that no clear date covers.
    """
    tiles = sorted(tiles, key=lambda tile: tile.tile)
    parts: list[pd.DataFrame] = []
    refused: list[InputRefused] = []
    for tile in tiles:
        try:
            parts += _tile_samples(tile, samples, recipe, progress)
        except InputRefused as error:
            # the run itself will name the tile; a model can still be trained from the others
            log.warning("no samples taken from tile %s: %s", tile.tile, error)
            refused.append(error)
    if tiles and len(refused) == len(tiles):
        raise InputRefused(f"no tile could be sampled; the first, {tiles[0].tile}: {refused[0]}")
    if not parts:
        raise InputRefused(
            f"none of the {len(samples)} samples lies on an observed pixel of the archive; check their CRS ({samples.crs}) and years"
        )
    table = pd.concat(parts, ignore_index=True)
    first = table.groupby(["sample", "year"])["tile"].transform("min")
    # training depends on the order of its rows, which must not depend on how the tile was cut into blocks
    kept = table[table["tile"] == first]
    out = kept.sort_values(["tile", "year", "row", "col", "sample"], ignore_index=True)
    # x and y are in each tile's own CRS; spatial folds ask for it
    bands = [name for name in recipe.features.names if bands_of([name]) == {name}]
    out.attrs = {
        "crs": {tile.tile: tile.grid.crs.to_wkt() for tile in tiles},
        "units": "1",
        "scale": dict.fromkeys(bands, "reflectance 0..1"),
    }
    return out


def _tile_samples(
    tile: TileRef, samples: GeoDataFrame, recipe: Recipe, progress: Progress | None
) -> list[pd.DataFrame]:
    """Sample tables of the blocks of one tile that hold samples."""
    inside = samples.to_crs(tile.grid.crs)
    inside = inside[inside.geometry.intersects(shapely.box(*tile.grid.bounds))]
    years = sorted({int(y) for y in inside["year"].dropna()} if "year" in inside else tile.years)
    years = [year for year in years if year in tile.years]
    if inside.empty or not years:
        return []
    tile = screen_tile(tile, recipe).tile
    context = TileContext.of(recipe, tile)
    parts = []
    for block in tile.grid.blocks(recipe.run.block_px, halo_of(recipe, tile.grid)):
        here = inside[inside.geometry.intersects(shapely.box(*tile.grid.window(*block.inner).bounds))]
        if here.empty:
            continue
        features, _ = block_features(tile, block, recipe, years, context)
        table = extract_samples(
            here,
            features.isel(y=block.crop[0], x=block.crop[1]),
            keep_partial=recipe.model.method in TAKES_MISSING,
        )
        table["row"] += block.inner[0]
        table["col"] += block.inner[2]
        table.insert(2, "tile", tile.tile)
        parts.append(table)
        if progress is not None:
            progress(1)
    return parts
