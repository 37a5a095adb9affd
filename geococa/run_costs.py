"""What a run will take before it starts: core time and disk of every tile, from measured costs.

The costs were measured by ``benchmarks/cost_model.py`` on the machine that ``data/costs.json`` names; another machine or
another recipe takes more or less, so the figures say whether a run takes an hour or a week, not when it ends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from geococa.recipe import Recipe
from geococa.scene_refs import TileRef
from geococa.tile_features import scenes_for

__all__ = ["TileCost", "costs_of_machine", "plan_columns", "tile_cost"]


@dataclass(frozen=True)
class TileCost:
    """Cost of a tile.

    Attributes
    ----------
    core_seconds : float
        Seconds of one core.
    read_bytes : int
        Bytes of the files that are read.
    write_bytes : int
        Bytes of its maps and layers.
    """

    core_seconds: float
    read_bytes: int
    write_bytes: int


@lru_cache(maxsize=1)
def costs_of_machine() -> dict[str, Any]:
    """Measured costs, and the machine they were measured on."""
    found: dict[str, Any] = json.loads((resources.files("geococa") / "data" / "costs.json").read_text(encoding="utf-8"))
    return found


def tile_cost(tile: TileRef, recipe: Recipe, years: tuple[int, ...]) -> TileCost:
    """Estimate what the maps of a tile take.

    Parameters
    ----------
    tile : TileRef
        Tile.
    recipe : Recipe
        Its bands and years count; dearer features and models are not told apart.
    years : tuple of int
        Years mapped.

    Notes
    -----
    Seconds are ``cells x dates x a x bands / 9 + cells x years x b``, with ``a`` and ``b`` the sums over stages that were measured
    with 9 bands, and the time to hash the files.
    """
    costs = costs_of_machine()["model"]
    cells = tile.grid.shape[0] * tile.grid.shape[1]
    wanted = [year for year in years if year in tile.years] or list(years)
    scenes = scenes_for(tile, recipe, wanted).scenes if set(wanted) & set(tile.years) else ()
    needed = recipe.bands_needed()
    bands = len(needed) + 1 if needed is not None else len(tile.bands) + 1
    sources = {
        file.source
        for scene in scenes
        for name in (*(needed if needed is not None else scene.files), *scene.quality)
        if (file := scene.band_file(name)) is not None and file.source is not None
    }
    size = sum(source.stat().st_size for source in sources if source.is_file())
    seconds = cells * len(scenes) * sum(costs["seconds_per_cell_and_date"].values()) * bands / 9
    seconds += cells * len(years) * sum(costs["seconds_per_cell_and_year"].values())
    seconds += size * costs["seconds_per_byte_hashed"] + len(scenes) * costs["seconds_per_scene_screened"]
    return TileCost(seconds, size, int(cells * len(years) * costs["bytes_out_per_cell_and_year"]))


def plan_columns(tile: TileRef, recipe: Recipe, years: tuple[int, ...], *, compute: bool) -> dict[str, float]:
    """Cost of a tile as columns of a plan; nothing for a tile that is reused."""
    cost = tile_cost(tile, recipe, years) if compute else TileCost(0.0, 0, 0)
    return {
        "core_minutes": round(cost.core_seconds / 60, 2),
        "read_gb": round(cost.read_bytes / 1e9, 3),
        "write_mb": round(cost.write_bytes / 1e6, 1),
    }
