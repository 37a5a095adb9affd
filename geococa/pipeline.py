"""The order of the stages: a recipe, and one tile run block by block through all of them.

Only this module (and the archive above it) knows which stage follows which. `land_cover_of` is the
pipeline on arrays that fit in memory; `run_tile` streams a tile of any size through the very same
functions, in blocks with a halo wide enough for every neighbourhood stage, so both give the same bytes.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_threads
from geococa._files import replace_file
from geococa.area_of_applicability import applicability
from geococa.classification import classify
from geococa.cog_streams import write_cog_rows
from geococa.errors import InputRefused
from geococa.grid import Block
from geococa.labels import label, sieve, sieve_strips
from geococa.layouts import tile_of
from geococa.legend import NO_DATA, Legend
from geococa.probability_layers import uncertainty
from geococa.recipe import Recipe
from geococa.sample_rows import sample_table
from geococa.screening import screen_tile
from geococa.tile_features import ReadAhead, TileContext, block_features, halo_of, yearly_features
from geococa.tile_pictures import TilePicture
from geococa.tile_planes import Planes
from geococa.tile_probability import estimates_transitions, settled_probability, with_estimated_transitions
from geococa.tiles import TileRef, write_cog

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = [
    "Recipe",
    "TileResult",
    "estimates_transitions",
    "halo_of",
    "land_cover_of",
    "run_tile",
    "sample_table",
    "settled_probability",
    "with_estimated_transitions",
    "yearly_features",
]

Progress = Callable[[int], None]
Rows = Callable[[int, int], np.ndarray]

IN_MEMORY = 32 * 2**20
"""Bytes up to which a layer of a tile is written as a whole; larger ones go row by row, to the same pixels."""

_LAYERS: dict[str, tuple[Any, str, str]] = {
    "observations": (np.uint16, "usable observations", "1"),
    "age_days": (np.float32, "days from the image to the cut-off date of", "days"),
    "fallback_observations": (np.uint16, "observations from before the window of", "1"),
    "fraction": (np.float32, "area share of {class_name} in", "1"),
    "entropy": (np.float32, "entropy of the class probabilities over its maximum", "1"),
    "margin": (np.float32, "best minus second class probability", "1"),
    "dissimilarity": (np.float32, "distance to the training samples over the mean distance within them", "1"),
    "outside_share": (np.float32, "share of features outside their range in training", "1"),
    "inside": (np.uint8, "1 = inside the area of applicability", "1"),
}
"""Layers that are written beside the maps, where there are such, of a composite, of class fractions, and of trust: type,
what they are, and their unit."""

_TRUST = ("entropy", "margin", "dissimilarity", "outside_share", "inside")


def land_cover_of(features: xr.DataArray, model: Model, recipe: Recipe, *, threads: int = 1) -> xr.DataArray:
    """Classify yearly features and make the years agree; everything but the minimum mapping unit.

    A model of class fractions gives each pixel the class of its largest fraction; smoothing, the agreement of years and
    a smallest probability are of probabilities, and don't apply.

    Returns
    -------
    xarray.DataArray
        uint8 ``(time, y, x)``, 255 = not observed, 0 = unclassified.
    """
    settings = recipe.labels
    if model.output == "fraction":
        largest = classify(features, model, "labels", threads=threads)
        assert isinstance(largest, xr.DataArray)
        return largest
    probability = settled_probability(features, model, recipe, threads=threads)
    return label(probability, min_probability=settings.min_probability)


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
    ages, fallback : dict of int to pathlib.Path
        COGs with the days from the image to the cut-off date, 31 December where none is set (float32, NaN = not
        observed), and with a fallback with the number of dates used from before the window.
    years : tuple of int
        Years of the run; a year without scenes is a map of 255.
    fractions : dict of int to pathlib.Path
        From a model of class fractions: COG of each year with the area share of the class reported (float32, NaN = not
        observed).
    scenes : pathlib.Path or None
        With ``min_clear_share``: CSV of what the masks leave of each scene, whether it was used, and why not.
    layers : dict of str to dict of int to pathlib.Path
        Layers switched on under ``[layers]``, by name and year: ``entropy`` and ``margin``
        (`geococa.uncertainty`), ``dissimilarity``, ``outside_share`` and ``inside`` (`geococa.applicability`).
    picture : pathlib.Path or None
        Small picture of the tile for the report; None where the features hold nothing to make one of.
    """

    tile: str
    maps: dict[int, Path]
    observations: dict[int, Path]
    years: tuple[int, ...]
    ages: dict[int, Path] = field(default_factory=dict)
    fallback: dict[int, Path] = field(default_factory=dict)
    scenes: Path | None = None
    fractions: dict[int, Path] = field(default_factory=dict)
    layers: dict[str, dict[int, Path]] = field(default_factory=dict)
    picture: Path | None = None


def run_tile(
    tile: TileRef | str | os.PathLike[str],
    recipe: Recipe,
    model: Model,
    out: str | os.PathLike[str],
    *,
    years: Iterable[int] | None = None,
    threads: int | None = None,
    block_px: int | None = None,
    require_observed: bool = False,
    progress: Progress | None = None,
) -> TileResult:
    """Run one tile through all stages, block by block, and write one land-cover COG a year.

    A scene never has to fit in memory: a block is read with its halo, one year's dates at a time and the next already
    being decoded, classified, and its labels put into a file; the minimum mapping unit is then applied to each year's
    whole map, so that no plot is cut by a block's edge.

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
    block_px : int, optional
        Side of a block in cells; that of the recipe where not given. Results do not depend on it.
    require_observed : bool
        Whether a tile without one clear pixel in any year is refused rather than mapped as not observed.
    progress : callable, optional
        Called with the number of blocks finished since the last call.

    Returns
    -------
    TileResult

    Raises
    ------
    InputRefused
        A scene of the tile is unusable; nothing is left half-written.
    OSError
        The disk has no room for the layers of the tile.
    """
    tile = tile if isinstance(tile, TileRef) else tile_of(tile, recipe.scenes.sensor)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputRefused(f"{folder} can't be made a folder: {error.strerror}; choose another output folder") from None
    wanted = tuple(sorted(years if years is not None else tile.years))
    if not wanted:
        raise InputRefused(f"tile {tile.tile} at {tile.path} has no scene in the years asked for")
    if model.transitions is None:
        model = with_estimated_transitions([tile], recipe, model, wanted)
    screened = screen_tile(tile, recipe)
    tile = screened.tile
    workers = check_threads(threads)
    with tempfile.TemporaryDirectory(prefix=".blocks-", dir=folder) as scratch, ExitStack() as stack:
        shape = (len(wanted), *tile.grid.shape)
        kinds = {"land_cover": np.uint8} | {name: _LAYERS[name][0] for name in _layers_of(recipe, model)}
        planes = {name: Planes(Path(scratch) / name, kind, shape) for name, kind in kinds.items()}
        for plane in planes.values():
            stack.callback(plane.close)
        work = _TileWork(tile, recipe, model, wanted, planes, block_px or recipe.run.block_px, workers)
        seen = work.run(progress)
        if require_observed and not seen:
            raise InputRefused(
                f"tile {tile.tile} at {tile.path}: none of its {len(tile.scenes)} scenes shows a clear pixel in "
                f"{wanted[0]}-{wanted[-1]}; add scenes, or look at the clouds with geococa check"
            )
        legend = model.legend.with_unclassified()
        written: dict[str, dict[int, Path]] = {name: {} for name in planes}
        for i, year in enumerate(wanted):
            for name, plane in planes.items():
                read = functools.partial(plane.rows, i)
                if name == "land_cover":
                    written[name][year] = _write_map(read, tile, year, legend, recipe, folder, Path(scratch))
                else:
                    written[name][year] = _write_layer(read, tile, year, name, folder, recipe.areas.class_name)
    return TileResult(
        tile.tile,
        written["land_cover"],
        written["observations"],
        wanted,
        written.get("age_days", {}),
        written.get("fallback_observations", {}),
        _write_scenes(screened.scenes, tile, folder),
        written.get("fraction", {}),
        {name: written[name] for name in _TRUST if name in written},
        work.picture.write(folder / f"{tile.tile}_picture.tif"),
    )


@dataclass
class _TileWork:
    """Blocks of a tile from scenes to labels, read ahead and worked on by several threads."""

    tile: TileRef
    recipe: Recipe
    model: Model
    years: tuple[int, ...]
    planes: dict[str, Planes]
    block_px: int
    threads: int
    picture: TilePicture = field(init=False)

    def __post_init__(self) -> None:
        self.picture = TilePicture(self.tile.grid)

    def run(self, progress: Progress | None) -> bool:
        """Work through all blocks; return whether any pixel was observed."""
        halo = halo_of(self.recipe, self.tile.grid)
        blocks = list(self.tile.grid.blocks(self.block_px, halo))
        context = TileContext.of(self.recipe, self.tile)
        threads = min(self.threads, len(blocks))
        lock, seen = threading.Lock(), [False]
        with ReadAhead(self.tile, self.recipe, self.years, blocks, threads) as reader:

            def work(position: int) -> None:
                found = _run_block(
                    self.tile,
                    blocks[position],
                    self.recipe,
                    self.model,
                    self.years,
                    context,
                    (reader, position),
                    self.picture,
                )
                observed = self._put(blocks[position], *found)
                with lock:
                    seen[0] |= observed
                    if progress is not None:
                        progress(1)

            pool = ThreadPoolExecutor(max_workers=threads)
            try:
                for done in [pool.submit(work, position) for position in range(len(blocks))]:
                    done.result()
            finally:
                # after an error or an interrupt the blocks that wait are of no use
                pool.shutdown(cancel_futures=True)
        return seen[0]

    def _put(self, block: Block, land_cover: xr.DataArray, layers: xr.Dataset) -> bool:
        """Keep the inner part of a block; years without an image get no data."""
        made = {int(year): i for i, year in enumerate(land_cover["time"].dt.year.values)}
        rows, columns = block.target
        observed = False
        for position, year in enumerate(self.years):
            for name, plane in self.planes.items():
                if year in made:
                    values = (land_cover if name == "land_cover" else layers[name]).values[made[year]][block.crop]
                else:
                    size = (rows.stop - rows.start, columns.stop - columns.start)
                    values = np.full(size, _missing(name), plane.dtype)
                if name == "land_cover":
                    observed |= bool((values != NO_DATA).any())
                plane.put(position, rows, columns, values)
        return observed


def _missing(name: str) -> float:
    if name in ("land_cover", "inside"):
        return NO_DATA
    return 0 if name in ("observations", "fallback_observations") else np.nan


def _layers_of(recipe: Recipe, model: Model) -> list[str]:
    settings = recipe.composite
    shares = ["fraction"] if model.output == "fraction" and recipe.areas.class_name in model.classes else []
    earlier = ["fallback_observations"] if settings.fallback_days else []
    if model.output == "fraction" and (recipe.layers.entropy or recipe.layers.margin):
        raise InputRefused(
            "entropy and margin are of class probabilities, but the model gives class fractions; switch them off under "
            "[layers], or use another method under [model]"
        )
    return ["observations", "age_days", *earlier, *shares, *_trust_layers_of(recipe)]


def _trust_layers_of(recipe: Recipe) -> list[str]:
    chosen = recipe.layers
    decided = [name for name in ("entropy", "margin") if getattr(chosen, name)]
    return [*decided, *(["dissimilarity", "outside_share", "inside"] if chosen.applicability else [])]


def _run_block(
    tile: TileRef,
    block: Block,
    recipe: Recipe,
    model: Model,
    years: tuple[int, ...],
    context: TileContext,
    ahead: tuple[ReadAhead, int],
    picture: TilePicture,
) -> tuple[xr.DataArray, xr.Dataset]:
    """Labels of a block with its halo, and the layers that tell of their dates; the picture takes its cells."""
    features, layers = block_features(tile, block, recipe, years, context, ahead)
    picture.put(block, features)
    if recipe.layers.applicability:
        layers = layers.assign(applicability(features, model, threads=1))
    if "fraction" in _layers_of(recipe, model):
        both = classify(features, model, "both")
        shares = both["fraction"].sel(land_cover=recipe.areas.class_name, drop=True)
        return both["labels"], layers.assign(fraction=shares)
    if not (recipe.layers.entropy or recipe.layers.margin):
        return land_cover_of(features, model, recipe), layers
    probability = settled_probability(features, model, recipe)
    land_cover = label(probability, min_probability=recipe.labels.min_probability)
    return land_cover, layers.assign(uncertainty(probability))


def _write_map(
    read: Rows, tile: TileRef, year: int, legend: Legend, recipe: Recipe, folder: Path, scratch: Path
) -> Path:
    """Apply the minimum mapping unit to a year's whole map and write it."""
    attrs = {"kind": "land_cover", "long_name": f"land cover {year}", "units": "1", "nodata": NO_DATA}
    attrs |= legend.to_attrs()
    settings, path = recipe.labels, folder / f"{tile.tile}_{year}_land_cover.tif"
    how: dict[str, Any] = {
        "min_area_ha": settings.min_area_ha,
        "connectivity": settings.connectivity,
        "rule": settings.sieve_rule,
    }
    if _fits(tile, np.uint8):
        land_cover = _layer(read(0, tile.grid.shape[0]), tile, "land_cover", attrs)
        return write_cog(sieve(land_cover, **how) if settings.min_area_ha > 0 else land_cover, path, sidecars=True)
    like = _layer(None, tile, "land_cover", attrs)
    if settings.min_area_ha <= 0:
        return write_cog_rows(read, like, path, sidecars=True)
    sieved = Planes(scratch / "sieved", np.uint8, (1, *tile.grid.shape))
    try:
        whole = slice(0, tile.grid.shape[1])
        sieve_strips(
            read, lambda start, rows: sieved.put(0, slice(start, start + len(rows)), whole, rows), tile.grid, **how
        )
        return write_cog_rows(functools.partial(sieved.rows, 0), like, path, sidecars=True)
    finally:
        sieved.close()


def _fits(tile: TileRef, dtype: Any) -> bool:
    """Whether a layer of a tile is small enough to be worked on as a whole."""
    rows, columns = tile.grid.shape
    return rows * columns * np.dtype(dtype).itemsize <= IN_MEMORY


def _layer(values: np.ndarray | None, tile: TileRef, name: str, attrs: dict[str, Any], dtype: Any = np.uint8) -> Any:
    """Layer of a tile with its grid; without values one that says what the layer is like and takes no memory."""
    data = np.broadcast_to(np.zeros((), dtype), tile.grid.shape) if values is None else values
    return tile.grid.attach(xr.DataArray(data, dims=("y", "x"), name=name, attrs=attrs))


def _write_scenes(scenes: pd.DataFrame | None, tile: TileRef, folder: Path) -> Path | None:
    if scenes is None:
        return None
    text = scenes.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    return replace_file(folder / f"{tile.tile}_scenes.csv", text.encode())


def _write_layer(read: Rows, tile: TileRef, year: int, name: str, folder: Path, class_name: str) -> Path:
    dtype, words, units = _LAYERS[name]
    attrs: dict[str, Any] = {"long_name": f"{words.format(class_name=class_name)} {year}", "units": units}
    if name == "inside":
        attrs["nodata"] = NO_DATA
    path = folder / f"{tile.tile}_{year}_{name}.tif"
    if _fits(tile, dtype):
        return write_cog(_layer(read(0, tile.grid.shape[0]), tile, name, attrs), path, overviews=False)
    return write_cog_rows(read, _layer(None, tile, name, attrs, dtype), path, overviews=False)
