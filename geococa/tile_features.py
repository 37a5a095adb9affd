"""From the scenes of a tile to one feature stack a year, whole or block by block."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Self

import numpy as np
import xarray as xr

from geococa.backscatter import Backscatter, open_backscatter
from geococa.cloud_distance import reach_cells
from geococa.composites import window_of
from geococa.errors import InputRefused
from geococa.features import (
    SEASON_STATISTICS,
    season_features,
    series_features,
    spectral_features,
    stack_features,
    texture_features,
)
from geococa.grid import Block, Grid
from geococa.ground import Ground, ground_of, with_ground
from geococa.harmonisation import harmonise
from geococa.image_ages import DATE_LAYERS
from geococa.recipe import Recipe
from geococa.reflectance import clear_sky, composite, to_reflectance
from geococa.tiles import TileRef, open_tile

__all__ = ["ReadAhead", "TileContext", "block_features", "halo_of", "scenes_for", "yearly_features"]


def yearly_features(
    scenes: xr.Dataset,
    recipe: Recipe,
    *,
    years: Iterable[int] | None = None,
    ground: xr.DataArray | None = None,
    radar: xr.Dataset | None = None,
) -> tuple[xr.DataArray, xr.Dataset]:
    """From scenes to one feature stack a year: mask, scale, composite, indices.

    Parameters
    ----------
    scenes : xarray.Dataset
        Digital numbers and quality bands, dims ``(time, y, x)``, from `geococa.open_tile`.
    recipe : Recipe
        Settings of every stage.
    years : iterable of int, optional
        Years to make; all that the scenes allow where not given.
    ground : xarray.DataArray, optional
        Terrain and distances of these cells; made from the recipe's files where it asks for them and they are not given.
    radar : xarray.Dataset, optional
        Yearly backscatter of these cells, likewise.

    Returns
    -------
    features : xarray.DataArray
        float32 ``(time, feature, y, x)``, one time a year, NaN = not observed.
    layers : xarray.Dataset
        ``observations`` uint16 ``(time, y, x)``, number of usable dates behind each pixel, ``age_days``, and with a
        fallback ``fallback_observations``, see `geococa.composite`.
    """
    settings = recipe.composite
    clear = clear_sky(
        scenes,
        buffer_m=recipe.clear_sky.buffer_m,
        haze=recipe.clear_sky.haze,
        scale=recipe.reflectance.scale if recipe.clear_sky.haze else None,
        offset=recipe.reflectance.offset if recipe.clear_sky.haze else None,
    )
    reflectance = to_reflectance(scenes, where=clear, scale=recipe.reflectance.scale, offset=recipe.reflectance.offset)
    if recipe.reflectance.harmonise is not None:
        reflectance = harmonise(reflectance, recipe.reflectance.harmonise)
    annual = composite(
        reflectance,
        period="year",
        reducer=settings.reducer,
        min_observations=settings.min_observations,
        cutoff=settings.cutoff,
        window_days=settings.window_days,
        fallback_days=settings.fallback_days,
        after_days=settings.after_days,
        half_life_days=settings.half_life_days,
        cloud_distance_m=settings.cloud_distance_m,
        scores=settings.scores,
        years=years,
    )
    if radar is None and recipe.sar.path is not None:
        found = _radar_of(recipe, Grid.from_xarray(scenes), str(scenes.attrs.get("tile", "")))
        radar = None if found is None else found.yearly()
    if radar is not None:
        yearly = radar.drop_vars(["x", "y"]).reindex(time=annual["time"])
        annual = annual.assign({name: (annual["observations"].dims, yearly[name].data) for name in ("vv", "vh")})
    parts = [spectral_features(annual, recipe.features.names)] if recipe.features.names else []
    if recipe.features.texture:
        source = spectral_features(annual, recipe.features.texture)
        how = recipe.features.texture_statistics
        parts.append(texture_features(source, window=recipe.features.texture_window, statistics=how))
    # the season is that of the calendar year; a year without a scene of its own has none
    chosen = recipe.features.season_statistics or SEASON_STATISTICS
    season = [season_features(reflectance, index, statistics=chosen) for index in recipe.features.season]
    step = recipe.features.series_step_days
    season += [series_features(reflectance, index, step_days=step) for index in recipe.features.series]
    parts += season if settings.cutoff is None else [part.reindex(time=annual["time"]) for part in season]
    features = stack_features(*parts) if len(parts) > 1 else parts[0]
    if ground is None and (prepared := ground_of(recipe, Grid.from_xarray(scenes))) is not None:
        ground = prepared.features()
    if ground is not None:
        features = with_ground(features, ground)
    return features, annual[[name for name in DATE_LAYERS if name in annual]]


@dataclass(frozen=True)
class TileContext:
    """What a tile's features take from elsewhere than its scenes, made ready once for all blocks."""

    ground: Ground | None
    radar: Backscatter | None

    @classmethod
    def of(cls, recipe: Recipe, tile: TileRef) -> TileContext:
        """Open what the recipe's features of a tile need besides its scenes."""
        return cls(ground_of(recipe, tile.grid), _radar_of(recipe, tile.grid, tile.tile))

    def within(self, window: tuple[int, int, int, int], years: Iterable[int]) -> dict[str, Any]:
        """Arguments of `yearly_features` for a block."""
        return {
            "ground": None if self.ground is None else self.ground.features(window),
            "radar": None if self.radar is None else self.radar.yearly(window, years),
        }


def _radar_of(recipe: Recipe, grid: Grid, tile: str) -> Backscatter | None:
    """Radar scenes of a tile, where the recipe names any."""
    settings = recipe.sar
    if settings.path is None:
        return None
    return open_backscatter(settings.path, grid, tile=tile, units=settings.units, quantity=settings.quantity)


def scenes_for(tile: TileRef, recipe: Recipe, years: Sequence[int]) -> TileRef:
    """Tile with the scenes that some years are made from: theirs, and those that a window or its fallback reach."""
    settings = recipe.composite
    window = window_of(settings.cutoff, settings.window_days, settings.fallback_days, settings.after_days)
    if window is None:
        kept = [scene for scene in tile.scenes if scene.datetime.year in years]
    else:
        days = np.array([(scene.datetime.date() - date(1970, 1, 1)).days for scene in tile.scenes])
        wanted = np.any([window.holds(year, days) for year in years], axis=0)
        # the season and the series are those of the calendar year
        yearly = bool(recipe.features.season or recipe.features.series)
        kept = [s for s, held in zip(tile.scenes, wanted, strict=True) if held or (yearly and s.datetime.year in years)]
    if not kept:
        raise InputRefused(
            f"tile {tile.tile} at {tile.path} has no scene for {', '.join(map(str, years))}; it has scenes in "
            f"{', '.join(map(str, tile.years))}"
        )
    return replace(tile, scenes=tuple(kept))


class ReadAhead:
    """Scenes of a tile's blocks, a year at a time, decoded in other threads while earlier ones are worked on.

    Parameters
    ----------
    tile : TileRef
        Tile.
    recipe : Recipe
        Settings.
    years : sequence of int
        Years made.
    blocks : sequence of Block
        Blocks in the order in which they are worked on.
    threads : int
        Blocks worked on at a time; so many are read ahead.
    """

    def __init__(
        self, tile: TileRef, recipe: Recipe, years: Sequence[int], blocks: Sequence[Block], threads: int = 1
    ) -> None:
        self._recipe = recipe
        self._blocks = blocks
        self._threads = threads
        self._parts = _yearly_parts(tile, recipe, years)
        self._pool = ThreadPoolExecutor(threads)
        self._begun: dict[int, Future[xr.Dataset]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def scenes(self, position: int) -> Iterator[tuple[tuple[int, ...], xr.Dataset]]:
        """Years and scenes of a block, part by part."""
        with self._lock:
            first = self._begun.pop(position, None) or self._read(position, 0)
            following = position + self._threads
            if following < len(self._blocks) and following not in self._begun:
                self._begun[following] = self._read(following, 0)
        for number, (years, _) in enumerate(self._parts):
            now, first = first, self._read(position, number + 1) if number + 1 < len(self._parts) else first
            yield years, now.result()

    def _read(self, position: int, number: int) -> Future[xr.Dataset]:
        recipe, tile = self._recipe, self._parts[number][1]
        return self._pool.submit(
            open_tile,
            tile,
            sensor=recipe.scenes.sensor,
            bands=recipe.bands_needed(),
            window=self._blocks[position].outer,
        )


def _yearly_parts(tile: TileRef, recipe: Recipe, years: Sequence[int]) -> list[tuple[tuple[int, ...], TileRef]]:
    """Years that have an image, each with the scenes that it is made from, so that one year's are in memory at a time."""
    settings = recipe.composite
    window = window_of(settings.cutoff, settings.window_days, settings.fallback_days, settings.after_days)
    days = np.array([(scene.datetime.date() - date(1970, 1, 1)).days for scene in tile.scenes])
    seen = {year for year in years if (year in tile.years if window is None else window.holds(year, days).any())}
    if not seen:
        return [(tuple(years), scenes_for(tile, recipe, years))]
    return [((year,), scenes_for(tile, recipe, [year])) for year in sorted(seen)]


def block_features(
    tile: TileRef,
    block: Block,
    recipe: Recipe,
    years: Sequence[int],
    context: TileContext,
    ahead: tuple[ReadAhead, int] | None = None,
) -> tuple[xr.DataArray, xr.Dataset]:
    """Yearly features of a block with its halo, and the layers of its dates; see `yearly_features`.

    ``ahead`` gives the scenes where they are being read already, and the block's position there.
    """
    if ahead is None:
        with ReadAhead(tile, recipe, years, [block]) as reader:
            return block_features(tile, block, recipe, years, context, (reader, 0))
    reader, position = ahead
    parts = [
        yearly_features(scenes, recipe, years=part, **context.within(block.outer, part))
        for part, scenes in reader.scenes(position)
    ]
    if len(parts) == 1:
        return parts[0]
    how: dict[str, Any] = {"combine_attrs": "override", "coords": "minimal", "compat": "override", "join": "override"}
    features = xr.concat([features for features, _ in parts], "time", **how)
    return features, xr.concat([layers for _, layers in parts], "time", data_vars="minimal", **how)


def halo_of(recipe: Recipe, grid: Grid) -> int:
    """Cells that the neighbourhood stages of a recipe need around a block."""
    cell_m = _cell_size_m(grid)
    cells = math.ceil(recipe.clear_sky.buffer_m / cell_m) + 1
    if recipe.labels.smooth_window > 1:
        cells += recipe.labels.smooth_window // 2
    if recipe.features.texture:
        cells += recipe.features.texture_window // 2
    if recipe.composite.reducer == "bap":
        cells += max(reach_cells(grid, recipe.composite.cloud_distance_m).values())
    return cells


def _cell_size_m(grid: Grid) -> float:
    """Smaller side of a cell in metres (a degree is taken as 111.32 km: only halos depend on it)."""
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    side = min(math.hypot(a, d), math.hypot(b, e))
    if grid.crs.is_geographic:
        return side * 111_320.0
    factor = grid.crs.axis_info[0].unit_conversion_factor if grid.crs.axis_info else 1.0
    return side * (factor or 1.0)
