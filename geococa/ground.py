"""What does not change from year to year: terrain and distances, as a recipe asks for them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from geococa.distances import DistanceLayers, prepare_distances
from geococa.errors import InputRefused
from geococa.feature_stack import as_features, stack_features
from geococa.grid import Grid
from geococa.ledger import file_fingerprint, file_sha256
from geococa.recipe import Recipe
from geococa.terrain import Elevation, elevation_values, open_elevation

__all__ = ["Ground", "ground_inputs", "ground_of", "with_ground"]

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Ground:
    """Elevation model and vector layers made ready for a tile.

    Attributes
    ----------
    grid : Grid
        Grid of the tile.
    terrain : tuple of str
        Terrain features.
    elevation : Elevation or None
        Where their heights come from.
    distances : DistanceLayers or None
        The vector layers.
    """

    grid: Grid
    terrain: tuple[str, ...] = ()
    elevation: Elevation | None = None
    distances: DistanceLayers | None = None

    def features(self, window: Window | None = None) -> xr.DataArray:
        """Features ``(feature, y, x)`` of a window of the tile, or of all of it."""
        rows, columns = self.grid.shape
        box = (0, rows, 0, columns) if window is None else window
        parts, names = [], list(self.terrain)
        if self.elevation is not None:
            parts.append(elevation_values(self.elevation, self.terrain, self.grid, box))
        if self.distances is not None:
            parts.append(self.distances.values(box))
            names += self.distances.names
        data = np.concatenate(parts)
        like = self.grid.window(*box).attach(xr.DataArray(data[0], dims=("y", "x")))
        return as_features(data, ("y", "x"), names, like)


def ground_of(recipe: Recipe, grid: Grid) -> Ground | None:
    """Terrain and distances that a recipe asks for, made ready for a tile; None where it asks for none.

    Raises
    ------
    InputRefused
        A file is missing or unusable, or the elevation model does not reach the tile.
    """
    settings = recipe.features
    if not (settings.terrain or settings.distance):
        return None
    model = None
    if settings.terrain:
        assert settings.dem is not None
        model = open_elevation(settings.dem)
        if not model.covers_some_of(grid):
            raise InputRefused(
                f"{settings.dem}: the elevation model covers {model.grid.bounds} in {model.grid.crs.to_string()[:40]}, "
                f"nothing of the tile with the bounds {grid.bounds} in {grid.crs.to_string()[:40]}; give one that covers it"
            )
    layers = prepare_distances(settings.distance, grid, settings.max_distance_m) if settings.distance else None
    return Ground(grid, settings.terrain, model, layers)


def with_ground(features: xr.DataArray, ground: xr.DataArray) -> xr.DataArray:
    """Add what does not change to the features of each year, NaN where a year was not observed at all."""
    seen = features.notnull().any("feature")
    # the grids are the tile's own; their coordinates may differ by a rounding, so none are compared
    filled = ground.drop_vars(["x", "y"]).where(seen.drop_vars(["x", "y"]))
    data = filled.transpose(*features.dims).astype(np.float32).data
    dims = [str(dim) for dim in features.dims if dim != "feature"]
    return stack_features(features, as_features(data, dims, [str(name) for name in ground["feature"].values], features))


def ground_inputs(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of the files behind terrain and distances, by setting; empty where a recipe asks for none."""
    settings = recipe.features
    files = {"dem": settings.dem} if settings.dem is not None and settings.terrain else {}
    files |= {f"distance.{name}": path for name, path in settings.distance.items()}
    found = {}
    for name, path in files.items():
        if not path.is_file():
            raise InputRefused(f"no file at {path}; set {name} under [features] to a file that there is")
        found[name] = _sha256(path, *file_fingerprint(path, path.parent)[1:])
    return found


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _modified: int) -> str:
    return file_sha256(path)
