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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geococa._files import replace_file
from geococa.area_of_applicability import applicability
from geococa.backscatter import Backscatter, open_backscatter
from geococa.classification import classify
from geococa.cloud_distance import reach_cells
from geococa.composites import window_of
from geococa.errors import InputRefused
from geococa.features import (
    SEASON_STATISTICS,
    bands_of,
    season_features,
    series_features,
    spectral_features,
    stack_features,
    texture_features,
)
from geococa.grid import Block, Grid
from geococa.ground import Ground, ground_of, with_ground
from geococa.harmonisation import harmonise
from geococa.labels import estimate_transitions, label, persistence_matrix, sieve, smooth, stabilise
from geococa.layouts import tile_of
from geococa.legend import NO_DATA, Legend
from geococa.probability_layers import uncertainty
from geococa.recipe import Recipe
from geococa.reflectance import clear_sky, composite, to_reflectance
from geococa.screening import screen_tile
from geococa.tiles import TileRef, open_tile, write_cog

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geococa.models import Model

__all__ = [
    "Recipe",
    "TileResult",
    "land_cover_of",
    "run_tile",
    "sample_table",
    "with_estimated_transitions",
    "yearly_features",
]

log = logging.getLogger("geococa")

Progress = Callable[[int], None]

_LAYERS = {
    "observations": np.uint16,
    "age_days": np.float32,
    "fallback_observations": np.uint16,
    "fraction": np.float32,
    "entropy": np.float32,
    "margin": np.float32,
    "dissimilarity": np.float32,
    "outside_share": np.float32,
    "inside": np.uint8,
}
"""Layers that are written beside the maps, where there are such: of a composite, of class fractions, and of trust."""

_WINDOW_CELLS, _WINDOWS = 64, 32
"""Side and number of the windows of an archive on which yearly transitions are estimated."""

_TRUST = ("entropy", "margin", "dissimilarity", "outside_share", "inside")


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
        ``observations`` uint16 ``(time, y, x)``, number of usable dates behind each pixel, and with a cut-off date
        ``age_days`` and ``fallback_observations``, see `geococa.composite`.
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
    return features, annual[[name for name in _LAYERS if name in annual]]


@dataclass(frozen=True)
class _Beside:
    """What a tile's features take from elsewhere than its scenes, made ready once for all blocks."""

    ground: Ground | None
    radar: Backscatter | None

    @classmethod
    def of(cls, recipe: Recipe, tile: TileRef) -> _Beside:
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


def _scenes_for(tile: TileRef, recipe: Recipe, years: Sequence[int]) -> TileRef:
    """Tile with the scenes that some years are made from: theirs, and those that a window or its fallback reach."""
    settings = recipe.composite
    window = window_of(settings.cutoff, settings.window_days, settings.fallback_days)
    if window is None:
        kept = [scene for scene in tile.scenes if scene.datetime.year in years]
    else:
        spans = [(window.reach(year)[1], window.cutoff(year)) for year in years]
        epoch = date(1970, 1, 1)
        kept = []
        for scene in tile.scenes:
            day = (scene.datetime.date() - epoch).days
            seasonal = bool(recipe.features.season) and scene.datetime.year in years
            if seasonal or any(first <= day <= last for first, last in spans):
                kept.append(scene)
    if not kept:
        raise InputRefused(
            f"tile {tile.tile} at {tile.path} has no scene for {', '.join(map(str, years))}; it has scenes in "
            f"{', '.join(map(str, tile.years))}"
        )
    return replace(tile, scenes=tuple(kept))


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
    beside = _Beside.of(recipe, tile)
    blocks = list(tile.grid.blocks(_WINDOW_CELLS, halo_of(recipe, tile.grid)))
    count = min(windows, max(4, len(blocks) // 4), len(blocks))
    # the golden ratio spreads any number of windows evenly, also across rows
    chosen = sorted({int((0.5 + i * 0.6180339887498949) % 1 * len(blocks)) for i in range(count)})
    times = pd.to_datetime([f"{year}-12-31" for year in years])
    parts = []
    for block in (blocks[i] for i in chosen):
        scenes = open_tile(
            _scenes_for(tile, recipe, years),
            sensor=recipe.scenes.sensor,
            bands=recipe.bands_needed(),
            window=block.outer,
        )
        features, _ = yearly_features(scenes, recipe, years=years, **beside.within(block.outer, years))
        seen = _yearly_probability(features, model, recipe).isel(y=block.crop[0], x=block.crop[1])
        bare = seen.drop_vars([name for name in seen.coords if name not in ("time", "land_cover")])
        size = {"y": (0, _WINDOW_CELLS - bare.sizes["y"]), "x": (0, _WINDOW_CELLS - bare.sizes["x"])}
        parts.append(bare.reindex(time=times).pad(size, constant_values=np.nan))
    return parts


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
        With a cut-off date: COGs with the days from the image to it (float32, NaN = not observed), and with the number
        of dates used from before the window.
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
    if model.transitions is None:
        model = with_estimated_transitions([tile], recipe, model, wanted)
    screened = screen_tile(tile, recipe)
    tile = screened.tile
    rows, columns = tile.grid.shape
    workers = threads or os.cpu_count() or 1
    beside = _Beside.of(recipe, tile)
    blocks = list(tile.grid.blocks(recipe.run.block_px, halo_of(recipe, tile.grid)))
    with tempfile.TemporaryDirectory(prefix=".blocks-", dir=folder) as scratch:
        shape = (len(wanted), rows, columns)
        labels = np.memmap(Path(scratch) / "labels", np.uint8, "w+", shape=shape)
        labels[:] = NO_DATA
        layers = {
            name: np.memmap(Path(scratch) / name, _LAYERS[name], "w+", shape=shape)
            for name in _layers_of(recipe, model)
        }
        for name in set(layers) - {"observations", "fallback_observations"}:
            layers[name][:] = NO_DATA if name == "inside" else np.nan
        lock = threading.Lock()

        def work(
            block: Block,
            tile: TileRef = tile,
            labels: np.ndarray = labels,
            layers: dict[str, np.memmap[Any, Any]] = layers,
        ) -> None:
            land_cover, dates = _run_block(tile, block, recipe, model, wanted, beside)
            for i, year in enumerate(land_cover["time"].dt.year.values):
                place = (wanted.index(int(year)), *block.target)
                labels[place] = land_cover.values[i][block.crop]
                for name, target in layers.items():
                    target[place] = dates[name].values[i][block.crop]
            if progress is not None:
                with lock:
                    progress(1)

        with ThreadPoolExecutor(max_workers=min(workers, len(blocks))) as pool:
            for done in [pool.submit(work, block) for block in blocks]:
                done.result()
        legend = model.legend.with_unclassified()
        maps = {year: _write_map(labels[i], tile, year, legend, recipe, folder) for i, year in enumerate(wanted)}
        written = {
            name: {
                year: _write_layer(layers[name][i], tile, year, name, folder, recipe.areas.class_name)
                for i, year in enumerate(wanted)
            }
            for name in layers
        }
        del labels, layers
    return TileResult(
        tile.tile,
        maps,
        written["observations"],
        wanted,
        written.get("age_days", {}),
        written.get("fallback_observations", {}),
        _write_scenes(screened.scenes, tile, folder),
        written.get("fraction", {}),
        {name: written[name] for name in _TRUST if name in written},
    )


def _layers_of(recipe: Recipe, model: Model) -> list[str]:
    settings = recipe.composite
    dated = ["age_days"] if settings.cutoff is not None else []
    shares = ["fraction"] if model.output == "fraction" and recipe.areas.class_name in model.classes else []
    earlier = ["fallback_observations"] if settings.fallback_days else []
    if model.output == "fraction" and (recipe.layers.entropy or recipe.layers.margin):
        raise InputRefused(
            "entropy and margin are of class probabilities, but the model gives class fractions; switch them off under "
            "[layers], or use another method under [model]"
        )
    return ["observations", *dated, *earlier, *shares, *_trust_layers_of(recipe)]


def _trust_layers_of(recipe: Recipe) -> list[str]:
    chosen = recipe.layers
    decided = [name for name in ("entropy", "margin") if getattr(chosen, name)]
    return [*decided, *(["dissimilarity", "outside_share", "inside"] if chosen.applicability else [])]


def _run_block(
    tile: TileRef, block: Block, recipe: Recipe, model: Model, years: tuple[int, ...], beside: _Beside
) -> tuple[xr.DataArray, xr.Dataset]:
    """Labels of a block with its halo, and the layers that tell of their dates."""
    chosen = _scenes_for(tile, recipe, years)
    scenes = open_tile(chosen, sensor=recipe.scenes.sensor, bands=recipe.bands_needed(), window=block.outer)
    features, layers = yearly_features(scenes, recipe, years=years, **beside.within(block.outer, years))
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
        settings = recipe.labels
        land_cover = sieve(
            land_cover,
            min_area_ha=settings.min_area_ha,
            connectivity=settings.connectivity,
            rule=settings.sieve_rule,
        )
    return write_cog(land_cover, folder / f"{tile.tile}_{year}_land_cover.tif", sidecars=True)


def _write_scenes(scenes: pd.DataFrame | None, tile: TileRef, folder: Path) -> Path | None:
    if scenes is None:
        return None
    text = scenes.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    return replace_file(folder / f"{tile.tile}_scenes.csv", text.encode())


def _write_layer(values: np.ndarray, tile: TileRef, year: int, name: str, folder: Path, class_name: str) -> Path:
    words, units = {
        "observations": ("usable observations", "1"),
        "age_days": ("days from the image to the cut-off date of", "days"),
        "fallback_observations": ("observations from before the window of", "1"),
        "fraction": (f"area share of {class_name} in", "1"),
        "entropy": ("entropy of the class probabilities over its maximum", "1"),
        "margin": ("best minus second class probability", "1"),
        "dissimilarity": ("distance to the training samples over the mean distance within them", "1"),
        "outside_share": ("share of features outside their range in training", "1"),
        "inside": ("1 = inside the area of applicability", "1"),
    }[name]
    attrs: dict[str, Any] = {"long_name": f"{words} {year}", "units": units}
    if name == "inside":
        attrs["nodata"] = NO_DATA
    layer = tile.grid.attach(xr.DataArray(np.asarray(values), dims=("y", "x"), name=name, attrs=attrs))
    return write_cog(layer, folder / f"{tile.tile}_{year}_{name}.tif", overviews=False)


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
    from geococa.extraction import extract_samples
    from geococa.training_methods import TAKES_MISSING

    inside = samples.to_crs(tile.grid.crs)
    inside = inside[inside.geometry.intersects(shapely.box(*tile.grid.bounds))]
    years = sorted({int(y) for y in inside["year"].dropna()} if "year" in inside else tile.years)
    years = [year for year in years if year in tile.years]
    if inside.empty or not years:
        return []
    tile = screen_tile(tile, recipe).tile
    beside = _Beside.of(recipe, tile)
    parts = []
    for block in tile.grid.blocks(recipe.run.block_px, halo_of(recipe, tile.grid)):
        here = inside[inside.geometry.intersects(shapely.box(*tile.grid.window(*block.inner).bounds))]
        if here.empty or not years:
            continue
        chosen = _scenes_for(tile, recipe, years)
        scenes = open_tile(chosen, sensor=recipe.scenes.sensor, bands=recipe.bands_needed(), window=block.outer)
        features, _ = yearly_features(scenes, recipe, years=years, **beside.within(block.outer, years))
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
