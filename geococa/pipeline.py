"""The order of the stages: a recipe, and one tile run block by block through all of them.

Only this module (and the archive above it) knows which stage follows which. `land_cover_of` is the
pipeline on arrays that fit in memory; `run_tile` streams a tile of any size through the very same
functions, in blocks with a halo wide enough for every neighbourhood stage, so both give the same bytes.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geococa.classification import classify
from geococa.errors import InputRefused
from geococa.features import season_features, spectral_features, stack_features, texture_features
from geococa.grid import Block, Grid
from geococa.labels import label, sieve, smooth, stabilise
from geococa.layouts import tile_of
from geococa.legend import NO_DATA, Legend
from geococa.recipe import Recipe
from geococa.reflectance import clear_sky, composite, to_reflectance
from geococa.tiles import TileRef, open_tile, write_cog

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geococa.models import Model

__all__ = ["Recipe", "TileResult", "land_cover_of", "run_tile", "sample_table", "yearly_features"]

log = logging.getLogger("geococa")

Progress = Callable[[int], None]


def yearly_features(scenes: xr.Dataset, recipe: Recipe) -> tuple[xr.DataArray, xr.DataArray]:
    """From scenes to one feature stack a year: mask, scale, composite, indices.

    Parameters
    ----------
    scenes : xarray.Dataset
        Digital numbers and quality bands, dims ``(time, y, x)``, from `geococa.open_tile`.
    recipe : Recipe
        Settings of every stage.

    Returns
    -------
    features : xarray.DataArray
        float32 ``(time, feature, y, x)``, one time a year, NaN = not observed.
    observations : xarray.DataArray
        uint16 ``(time, y, x)``, number of usable dates behind each pixel.
    """
    clear = clear_sky(scenes, buffer_m=recipe.clear_sky.buffer_m)
    reflectance = to_reflectance(scenes, where=clear, scale=recipe.reflectance.scale, offset=recipe.reflectance.offset)
    annual = composite(
        reflectance,
        period="year",
        reducer=recipe.composite.reducer,
        min_observations=recipe.composite.min_observations,
    )
    parts = [spectral_features(annual, recipe.features.names)]
    if recipe.features.texture:
        source = spectral_features(annual, recipe.features.texture)
        parts.append(texture_features(source, window=recipe.features.texture_window))
    parts += [season_features(reflectance, index) for index in recipe.features.season]
    features = stack_features(*parts) if len(parts) > 1 else parts[0]
    return features, annual["observations"]


def land_cover_of(features: xr.DataArray, model: Model, recipe: Recipe, *, threads: int = 1) -> xr.DataArray:
    """Classify yearly features and make the years agree; everything but the minimum mapping unit.

    Returns
    -------
    xarray.DataArray
        uint8 ``(time, y, x)``, 255 = not observed, 0 = unclassified.
    """
    settings = recipe.labels
    probability = classify(features, model, threads=threads)
    assert isinstance(probability, xr.DataArray)
    if settings.smooth_window > 1:
        probability = smooth(probability, window=settings.smooth_window)
    if settings.stabilise:
        probability = stabilise(probability, transitions=model.transitions)
    return label(probability, min_probability=settings.min_probability)


def halo_of(recipe: Recipe, grid: Grid) -> int:
    """Cells that the neighbourhood stages of a recipe need around a block."""
    cell_m = _cell_size_m(grid)
    cells = math.ceil(recipe.clear_sky.buffer_m / cell_m) + 1
    if recipe.labels.smooth_window > 1:
        cells += recipe.labels.smooth_window // 2
    if recipe.features.texture:
        cells += recipe.features.texture_window // 2
    return cells


def _cell_size_m(grid: Grid) -> float:
    """Smaller side of a cell in metres (a degree is taken as 111.32 km: only halos depend on it)."""
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    side = min(math.hypot(a, d), math.hypot(b, e))
    if grid.crs.is_geographic:
        return side * 111_320.0
    factor = grid.crs.axis_info[0].unit_conversion_factor if grid.crs.axis_info else 1.0
    return side * (factor or 1.0)


@dataclass(frozen=True)
class TileResult:
    """What `run_tile` left on disk and what it counted.

    Attributes
    ----------
    tile : str
        Tile id.
    maps : dict of int to pathlib.Path
        Land-cover COG of each year.
    observations : dict of int to pathlib.Path
        COG with the number of usable dates of each year.
    years : tuple of int
        Years of the run; a year without scenes is a map of 255.
    """

    tile: str
    maps: dict[int, Path]
    observations: dict[int, Path]
    years: tuple[int, ...]


def run_tile(
    tile: TileRef | str | os.PathLike[str],
    recipe: Recipe,
    model: Model,
    out: str | os.PathLike[str],
    *,
    years: Iterable[int] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TileResult:
    """Run one tile through all stages, block by block, and write one land-cover COG a year.

    A scene never has to fit in memory: a block is read with its halo for all dates, classified, and its
    labels put into a file-backed array; the minimum mapping unit is then applied to each year's whole
    map, so that no plot is cut by a block's edge.

    Parameters
    ----------
    tile : TileRef or path
        From `geococa.find_tiles`, or a tile folder or raster.
    recipe : Recipe
        Settings of every stage.
    model : Model
        Trained model; its features are matched by name.
    out : path
        Folder for the maps; made where missing.
    years : iterable of int, optional
        Years to map; the tile's own years where not given.
    threads : int, optional
        Threads over blocks; one for each processor where not given. Results do not depend on it.
    progress : callable, optional
        Called with the number of blocks finished since the last call.

    Returns
    -------
    TileResult

    Raises
    ------
    InputRefused
        A scene of the tile is unusable; nothing is left half-written.
    """
    tile = tile if isinstance(tile, TileRef) else tile_of(tile, recipe.scenes.sensor)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = tuple(sorted(years if years is not None else tile.years))
    if not wanted:
        raise InputRefused(f"tile {tile.tile} at {tile.path} has no scene in the years asked for")
    rows, columns = tile.grid.shape
    workers = threads or os.cpu_count() or 1
    blocks = list(tile.grid.blocks(recipe.run.block_px, halo_of(recipe, tile.grid)))
    with tempfile.TemporaryDirectory(prefix=".blocks-", dir=folder) as scratch:
        shape = (len(wanted), rows, columns)
        labels = np.memmap(Path(scratch) / "labels", np.uint8, "w+", shape=shape)
        counts = np.memmap(Path(scratch) / "counts", np.uint16, "w+", shape=shape)
        labels[:] = NO_DATA
        lock = threading.Lock()

        def work(block: Block, tile: TileRef = tile, labels: np.ndarray = labels, counts: np.ndarray = counts) -> None:
            land_cover, observations = _run_block(tile, block, recipe, model, wanted)
            for source, target in ((land_cover, labels), (observations, counts)):
                for year, plane in source.items():
                    target[(wanted.index(year), *block.target)] = plane
            if progress is not None:
                with lock:
                    progress(1)

        with ThreadPoolExecutor(max_workers=min(workers, len(blocks))) as pool:
            for done in [pool.submit(work, block) for block in blocks]:
                done.result()
        legend = model.legend.with_unclassified()
        maps = {year: _write_map(labels[i], tile, year, legend, recipe, folder) for i, year in enumerate(wanted)}
        seen = {year: _write_counts(counts[i], tile, year, folder) for i, year in enumerate(wanted)}
        del labels, counts
    return TileResult(tile.tile, maps, seen, wanted)


def _run_block(
    tile: TileRef, block: Block, recipe: Recipe, model: Model, years: tuple[int, ...]
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Labels and observation counts of a block's inner part, by year."""
    scenes = open_tile(tile, sensor=recipe.scenes.sensor, bands=recipe.bands_needed(), window=block.outer, years=years)
    features, observations = yearly_features(scenes, recipe)
    land_cover = land_cover_of(features, model, recipe)
    found = [int(year) for year in land_cover["time"].dt.year.values]
    return (
        {year: land_cover.values[i][block.crop] for i, year in enumerate(found)},
        {year: observations.values[i][block.crop] for i, year in enumerate(found)},
    )


def _write_map(labels: np.ndarray, tile: TileRef, year: int, legend: Legend, recipe: Recipe, folder: Path) -> Path:
    """Apply the minimum mapping unit to a year's whole map and write it."""
    land_cover = tile.grid.attach(
        xr.DataArray(
            np.asarray(labels),
            dims=("y", "x"),
            name="land_cover",
            attrs={
                "kind": "land_cover",
                "long_name": f"land cover {year}",
                "units": "1",
                "nodata": NO_DATA,
                **legend.to_attrs(),
            },
        )
    )
    if recipe.labels.min_area_ha > 0:
        land_cover = sieve(land_cover, min_area_ha=recipe.labels.min_area_ha, connectivity=recipe.labels.connectivity)
    return write_cog(land_cover, folder / f"{tile.tile}_{year}_land_cover.tif", sidecars=True)


def _write_counts(counts: np.ndarray, tile: TileRef, year: int, folder: Path) -> Path:
    observations = tile.grid.attach(
        xr.DataArray(
            np.asarray(counts),
            dims=("y", "x"),
            name="observations",
            attrs={"long_name": f"usable observations {year}", "units": "1"},
        )
    )
    return write_cog(observations, folder / f"{tile.tile}_{year}_observations.tif", overviews=False)


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
    for tile in tiles:
        try:
            parts += _tile_samples(tile, samples, recipe, progress)
        except InputRefused as error:
            # the run itself will name the tile; a model can still be trained from the others
            log.warning("no samples taken from tile %s: %s", tile.tile, error)
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
    out.attrs = {"crs": {tile.tile: tile.grid.crs.to_wkt() for tile in tiles}}
    return out


def _tile_samples(
    tile: TileRef, samples: GeoDataFrame, recipe: Recipe, progress: Progress | None
) -> list[pd.DataFrame]:
    """Sample tables of the blocks of one tile that hold samples."""
    from geococa.extraction import extract_samples

    inside = samples.to_crs(tile.grid.crs)
    inside = inside[inside.geometry.intersects(shapely.box(*tile.grid.bounds))]
    years = sorted({int(y) for y in inside["year"].dropna()} if "year" in inside else tile.years)
    years = [year for year in years if year in tile.years]
    parts = []
    for block in tile.grid.blocks(recipe.run.block_px, halo_of(recipe, tile.grid)):
        here = inside[inside.geometry.intersects(shapely.box(*tile.grid.window(*block.inner).bounds))]
        if here.empty or not years:
            continue
        scenes = open_tile(
            tile, sensor=recipe.scenes.sensor, bands=recipe.bands_needed(), window=block.outer, years=years
        )
        features, _ = yearly_features(scenes, recipe)
        table = extract_samples(here, features.isel(y=block.crop[0], x=block.crop[1]))
        table["row"] += block.inner[0]
        table["col"] += block.inner[2]
        table.insert(2, "tile", tile.tile)
        parts.append(table)
        if progress is not None:
            progress(1)
    return parts
