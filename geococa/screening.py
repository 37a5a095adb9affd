"""Before a tile's blocks run: do its offsets hold, and which of its scenes are worth reading.

Both need the whole tile, which no block sees, so they are settled once for each tile and every block then works with
the same scenes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa.errors import InputRefused, OffsetConflict
from geococa.haze_rules import HAZE_BANDS
from geococa.layouts import TileRef
from geococa.radiometry import check_radiometry
from geococa.recipe import Recipe
from geococa.reflectance import clear_sky
from geococa.scene_statistics import mask_statistics, useless
from geococa.tiles import open_tile

__all__ = ["Screened", "check_tile_radiometry", "screen_tile"]

log = logging.getLogger("geococa")

_WHOLE_PX = 256  # tiles up to this side are looked at as a whole
_WINDOW_PX = 64  # of larger ones five windows, each within one block of a file where possible
_BANDS = (("blue", "green"), ("red",), ("nir", "nir08"), ("swir16",), ("swir22",))
_KEPT = 64

_known: dict[Any, Screened | InputRefused] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Screened:
    """What `screen_tile` found.

    Attributes
    ----------
    tile : TileRef
        The tile with the scenes that are worth reading.
    scenes : pandas.DataFrame or None
        `geococa.mask_statistics` of all its scenes with ``used`` and ``reason``; None where the recipe sets no
        ``min_clear_share``.
    """

    tile: TileRef
    scenes: pd.DataFrame | None


def screen_tile(tile: TileRef, recipe: Recipe) -> Screened:
    """Check the offsets of a tile and leave out its useless scenes, as the recipe asks.

    The answer is kept, so training and mapping in one process look at a tile once.

    Parameters
    ----------
    tile : TileRef
        From `geococa.find_tiles`.
    recipe : Recipe
        ``radiometric_check`` under ``[reflectance]``, ``min_clear_share`` under ``[clear_sky]``.

    Raises
    ------
    OffsetConflict
        The data contradict the offsets of the products.
    InputRefused
        No scene of the tile is worth reading.
    """
    key = _key(tile, recipe)
    with _lock:
        found = _known.get(key)
    if found is None:
        try:
            found = _screen(tile, recipe)
        except (OffsetConflict, InputRefused) as error:
            found = error
        with _lock:
            while len(_known) >= _KEPT:
                _known.pop(next(iter(_known)))
            _known[key] = found
    if isinstance(found, InputRefused):
        raise found
    return found


def _key(tile: TileRef, recipe: Recipe) -> Any:
    stamps: list[Any] = []
    for scene in tile.scenes:
        for file in scene.files.values():
            status = Path(file.path).stat() if Path(file.path).exists() else None
            stamps.append((file.path, file.index, status and (status.st_mtime_ns, status.st_size)))
        stamps.append((scene.id, str(scene.scale), str(scene.offset)))
    settings = recipe.settings()
    return hash((tile.path, tuple(stamps), str([settings[part] for part in ("scenes", "clear_sky", "reflectance")])))


def _screen(tile: TileRef, recipe: Recipe) -> Screened:
    if recipe.reflectance.radiometric_check:
        check_tile_radiometry(tile, recipe)
    if recipe.clear_sky.min_clear_share <= 0:
        return Screened(tile, None)
    table = _scene_table(tile, recipe)
    reasons = useless(table, recipe.clear_sky.min_clear_share)
    table["used"] = [row not in reasons for row in range(len(table))]
    table["reason"] = [reasons.get(row, "") for row in range(len(table))]
    for row, reason in reasons.items():
        log.warning("tile %s: scene %s left out: %s", tile.tile, tile.scenes[row].id, reason)
    kept = tuple(scene for row, scene in enumerate(tile.scenes) if row not in reasons)
    if not kept:
        raise InputRefused(
            f"tile {tile.tile} at {tile.path}: all {len(table)} scenes are useless, the first because of: {reasons[0]}; "
            "add scenes or lower min_clear_share under [clear_sky]"
        )
    return Screened(replace(tile, scenes=kept), table)


def check_tile_radiometry(tile: TileRef, recipe: Recipe, *, on_conflict: str = "raise") -> pd.DataFrame:
    """Check the offsets of a tile on a sample of its pixels, see `geococa.check_radiometry`.

    Tiles of up to 256 cells a side are looked at as a whole, larger ones through five windows of 64 cells. The
    scenes are those of the recipe's years.

    Returns
    -------
    pandas.DataFrame
        One row a scene; empty where the tile has none in these years or too few bands.
    """
    years = recipe.scenes.years
    scenes = tuple(s for s in tile.scenes if years is None or years[0] <= s.datetime.year <= years[1])
    bands = [next((name for name in names if name in tile.bands), "") for names in _BANDS]
    names = [name for name in bands if name]
    if not scenes or not {"blue", "green", "red"} & set(names) or len(names) < 2:
        return pd.DataFrame()
    chosen = replace(tile, scenes=scenes)
    parts = [
        open_tile(chosen, sensor=recipe.scenes.sensor, bands=names, window=window).drop_vars(
            ["x", "y", "spatial_ref"], errors="ignore"
        )
        for window in _windows(tile.grid.shape)
    ]
    sample = xr.concat(parts, "x", data_vars="minimal", coords="minimal", compat="override")
    for what, value in (("scale", recipe.reflectance.scale), ("offset", recipe.reflectance.offset)):
        if value is not None:
            sample = sample.assign_coords({what: sample[what].copy(data=np.full(sample[what].shape, value))})
    return check_radiometry(sample, on_conflict=on_conflict)  # type: ignore[arg-type]


def _windows(shape: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """The whole of a small tile, or its middle and the middles of its quarters."""
    if max(shape) <= _WHOLE_PX:
        yield 0, shape[0], 0, shape[1]
        return
    sides = [min(_WINDOW_PX, n) for n in shape]
    for down, right in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        starts = []
        for n, side, share in zip(shape, sides, (down, right), strict=True):
            start = max(0, min(int(n * share) - side // 2, n - side))
            block = start - start % 512  # files are read by blocks of 512 as a rule
            starts.append(min(block + 224, n - side) if n > 1024 else start)
        yield starts[0], starts[0] + sides[0], starts[1], starts[1] + sides[1]


def _scene_table(tile: TileRef, recipe: Recipe) -> pd.DataFrame:
    """Mask statistics of all scenes over the whole tile, block by block."""
    settings = recipe.clear_sky
    bands = list(HAZE_BANDS) if settings.haze else [tile.bands[0]]
    cell_m = _cell_m(tile)
    rows: pd.DataFrame | None = None
    cells = 0
    for block in tile.grid.blocks(recipe.run.block_px, int(settings.buffer_m / cell_m) + 2):
        scenes = open_tile(tile, sensor=recipe.scenes.sensor, bands=bands, window=block.outer)
        clear = clear_sky(
            scenes,
            buffer_m=settings.buffer_m,
            haze=settings.haze,
            scale=recipe.reflectance.scale,
            offset=recipe.reflectance.offset,
        )
        inner = {"y": block.crop[0], "x": block.crop[1]}
        part = mask_statistics(scenes.isel(inner), clear.isel(inner))
        size = clear.isel(inner)[0].size
        shares = [name for name in part.columns if name.endswith("_share")]
        part[shares] *= size
        cells += size
        if rows is None:
            rows = part
        else:
            rows[shares] += part[shares]
    assert rows is not None
    rows[shares] /= cells
    return rows


def _cell_m(tile: TileRef) -> float:
    side = min(abs(tile.grid.transform.a) or 1e9, abs(tile.grid.transform.e) or 1e9)
    return float(side * 110_000.0 if tile.grid.crs.is_geographic else side)
