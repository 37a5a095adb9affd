"""Class probabilities of a tile's years, and the yearly transitions that make them agree."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from geococa.classification import classify
from geococa.errors import InputRefused
from geococa.labels import estimate_transitions, persistence_matrix, smooth, stabilise
from geococa.recipe import Recipe
from geococa.screening import screen_tile
from geococa.tile_features import TileContext, block_features, halo_of
from geococa.tiles import TileRef

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["estimates_transitions", "settled_probability", "with_estimated_transitions"]

log = logging.getLogger("geococa")

_WINDOW_CELLS, _WINDOWS = 64, 32
"""Side and number of the windows of an archive on which yearly transitions are estimated."""


def settled_probability(features: xr.DataArray, model: Model, recipe: Recipe, *, threads: int = 1) -> xr.DataArray:
    """Class probabilities that decide the map: those of the model, after neighbours and years informed each other."""
    probability = _yearly_probability(features, model, recipe, threads=threads)
    settings = recipe.labels
    if not settings.stabilise:
        return probability
    given = None if settings.transitions == "persistence" else model.transitions
    stay = 0.9 if given is None and not estimates_transitions(recipe) else None
    return stabilise(probability, transitions=given, persistence=stay, evidence=settings.evidence)


def _yearly_probability(features: xr.DataArray, model: Model, recipe: Recipe, *, threads: int = 1) -> xr.DataArray:
    """Class probabilities of each year by itself, after neighbours informed each other."""
    probability = classify(features, model, "probability", threads=threads)
    assert isinstance(probability, xr.DataArray)
    window = recipe.labels.smooth_window
    return smooth(probability, window=window) if window > 1 else probability


def with_estimated_transitions(tiles: Sequence[TileRef], recipe: Recipe, model: Model, years: Sequence[int]) -> Model:
    """Model with the yearly transitions that the tiles themselves show, where the recipe asks for them.

    The matrix is estimated by EM on windows spread over the tiles, the same ones whatever the blocks and workers.

    Parameters
    ----------
    tiles : sequence of TileRef
        Tiles of the archive; one that can't be read is left out.
    recipe : Recipe
        Where its ``labels.transitions`` asks for no estimate, the model is returned as it is.
    model : Model
        Trained model.
    years : sequence of int
        Years mapped.
    """
    if not estimates_transitions(recipe) or model.output == "fraction" or len(years) < 2:
        return model
    parts: list[xr.DataArray] = []
    share = max(_WINDOWS // max(len(tiles), 1), 1)
    for tile in sorted(tiles, key=lambda one: one.tile)[:: max(1, len(tiles) // _WINDOWS)]:
        try:
            parts += _sampled_windows(tile, recipe, model, tuple(years), share)
        except InputRefused as error:
            # the run itself will name the tile
            log.warning("no yearly transitions taken from tile %s: %s", tile.tile, error)
    classes = list(model.classes)
    try:
        if not parts:
            raise InputRefused("no tile could be read to estimate yearly transitions from")
        pooled = xr.concat(parts, "y", combine_attrs="override", coords="minimal", compat="override")
        matrix = estimate_transitions(pooled, evidence=recipe.labels.evidence)
    except InputRefused as error:
        if recipe.labels.transitions == "estimate":
            raise InputRefused(f"{error}; or set transitions = 'persistence' under [labels]") from None
        log.warning("%s; 0.9 of every class is taken to stay from year to year", error)
        matrix = persistence_matrix(classes, 0.9)
    return replace(model, transitions=matrix.loc[classes, classes].to_numpy())


def estimates_transitions(recipe: Recipe) -> bool:
    """Whether the yearly transitions of a run come from its own images."""
    chosen = recipe.labels.transitions
    # a model from a file must not change with every new scene, or all tiles would be computed again
    return recipe.labels.stabilise and (chosen == "estimate" or (chosen == "auto" and recipe.model.path is None))


def _sampled_windows(
    tile: TileRef, recipe: Recipe, model: Model, years: tuple[int, ...], windows: int
) -> list[xr.DataArray]:
    """Yearly probabilities of some windows of a tile, spread evenly and padded to one size with what was not observed."""
    tile = screen_tile(tile, recipe).tile
    context = TileContext.of(recipe, tile)
    blocks = list(tile.grid.blocks(_WINDOW_CELLS, halo_of(recipe, tile.grid)))
    count = min(windows, max(4, len(blocks) // 4), len(blocks))
    # the golden ratio spreads any number of windows evenly, also across rows
    chosen = sorted({int((0.5 + i * 0.6180339887498949) % 1 * len(blocks)) for i in range(count)})
    times = pd.to_datetime([f"{year}-12-31" for year in years])
    parts = []
    for block in (blocks[i] for i in chosen):
        features, _ = block_features(tile, block, recipe, years, context)
        seen = _yearly_probability(features, model, recipe).isel(y=block.crop[0], x=block.crop[1])
        bare = seen.drop_vars([name for name in seen.coords if name not in ("time", "land_cover")])
        size = {"y": (0, _WINDOW_CELLS - bare.sizes["y"]), "x": (0, _WINDOW_CELLS - bare.sizes["x"])}
        parts.append(bare.reindex(time=times).pad(size, constant_values=np.nan))
    return parts
