"""An archive of tiles through the pipeline: plan, ledger, resume, workers, merge.

A tile is the unit of work, since its years inform each other. Every file is written whole or not at all, and a task gets its
row in the ledger only after its files, so an interrupted run resumes where it was. A tile that fails is named with its
reason and its hectares count as unobserved; the others finish.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from shapely import MultiPolygon, from_wkb, to_wkb

from geococa._files import replace_file
from geococa.areas import areas_table, merge_areas, zonal_area
from geococa.backscatter import radar_files
from geococa.change_tables import follow_run, merge_tables, tile_tables
from geococa.errors import ArchiveBusy, GeococaError, InputRefused
from geococa.fractions import as_fraction
from geococa.ground import ground_inputs
from geococa.image_ages import AGE_COLUMNS, DATE_LAYERS, age_table, merge_ages, with_ages
from geococa.ledger import Ledger, Task, file_fingerprint, file_sha256, hash_of
from geococa.legend import NO_DATA
from geococa.models import read_model, train
from geococa.outputs import CHANGE_TABLES, Outputs, areas_from_table, own_ground, read_maps, write_outputs
from geococa.pipeline import estimates_transitions, run_tile, sample_table, with_estimated_transitions
from geococa.recipe import Recipe
from geococa.samples import read_samples
from geococa.tiles import TileRef, find_tiles, read_raster
from geococa.validation import cross_validate
from geococa.zones import Coverage, buffer_rings, coverage_fraction, coverage_key, footprint_of, own_tiles, read_zones

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from shapely.geometry.base import BaseGeometry

    from geococa.models import Model

__all__ = ["ArchiveResult", "Plan", "plan_archive", "run_archive", "train_model", "training_rows"]

log = logging.getLogger("geococa")

CODE_SCHEMA = "1"
"""Changes whenever the same input would give other maps; part of every task's key."""

AREAS_SCHEMA = "3"
"""Changes whenever the same maps would give other hectares, or another table of them."""

_PLAIN_LABELS = {"sieve_rule": "largest_neighbour"}
"""Settings that change nothing, so that maps made before there were such settings are still good."""

_TESTING = ("folds", "block_m", "buffer_m")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, how many there are."""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes
    ----------
    tiles : tuple of TileRef
        Tiles found, by id.
    years : tuple of int
        Years mapped for every tile.
    tasks : pandas.DataFrame
        One row a tile: ``tile, scenes, years, action`` ("compute" or "reuse") and ``reason``.
    """

    tiles: tuple[TileRef, ...]
    years: tuple[int, ...]
    tasks: pd.DataFrame


@dataclass
class ArchiveResult:
    """What a run left.

    Attributes
    ----------
    out : pathlib.Path
        Output folder.
    areas : xarray.Dataset
        Hectares per year, zone and class as `geococa.zonal_area` gives them, merged over tiles.
    outputs : Outputs
        Trends, accuracy, comparison with the truth, and the files written.
    computed, reused : tuple of str
        Ids of the tiles computed now and taken from an earlier run.
    failed : dict of str to str
        Id and reason of every tile that failed.
    """

    out: Path
    areas: xr.Dataset
    outputs: Outputs
    computed: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    """Everything that the tasks of one run share."""

    archive: Path
    recipe: Recipe
    folder: Path
    tiles: tuple[TileRef, ...]
    refused: dict[str, str]
    years: tuple[int, ...]
    workers: int
    threads: int
    progress: Progress

    @cached_property
    def gives_fractions(self) -> bool:
        """Whether the model gives class fractions, so that those of the class reported are mapped and summed."""
        settings = self.recipe.model
        if settings.path is None:
            return settings.method in ("fraction", "unmixing")
        return read_model(settings.path).output == "fraction"

    @property
    def model_path(self) -> Path:
        return self.folder / "model.geococa"


def plan_archive(
    archive: str | os.PathLike[str], recipe: Recipe | str | os.PathLike[str], out: str | os.PathLike[str]
) -> Plan:
    """Say what a run would compute and what it would reuse; nothing is computed or written.

    Parameters
    ----------
    archive, recipe, out
        As for `run_archive`.

    Returns
    -------
    Plan
    """
    settings = recipe if isinstance(recipe, Recipe) else Recipe.read(Path(recipe))
    job = _job(Path(archive), settings, Path(out), 1, None, _silent)
    rows = []
    with Ledger.peek(job.folder) as ledger:
        for tile in job.tiles:
            action, reason = ledger.state(_maps_task(job, tile))
            rows.append(
                {
                    "tile": tile.tile,
                    "scenes": len(tile.scenes),
                    "years": f"{job.years[0]}-{job.years[-1]}",
                    "action": action,
                    "reason": reason,
                }
            )
    return Plan(job.tiles, job.years, pd.DataFrame(rows))


def run_archive(
    archive: str | os.PathLike[str],
    recipe: Recipe | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    workers: int = 1,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ArchiveResult:
    """Run a whole archive: maps, hectares, trends and the report.

    Parameters
    ----------
    archive : path
        Folder with tile folders (`geococa.find_tiles`).
    recipe : Recipe or path
        Settings of every stage.
    out : path
        Output folder; a second run reuses whatever its inputs and settings still match.
    workers : int
        Processes over tiles; with 1, threads work on the blocks of one tile after the other.
    threads : int, optional
        Threads in each worker; processors divided by workers where not given. Results depend on neither.
    progress : callable, optional
        Called with ``(what, done, total)``.

    Returns
    -------
    ArchiveResult

    Raises
    ------
    ArchiveBusy
        Another job works in ``out``.
    InputRefused
        The archive, samples, zones or model can't be used. A single unusable tile does not raise: it is listed in ``failed``.
    """
    settings = recipe if isinstance(recipe, Recipe) else Recipe.read(Path(recipe))
    folder = Path(out)
    with _locked(folder):
        return _run(_job(Path(archive), settings, folder, workers, threads, progress or _silent))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the output folder, or recognise one of ours, and hold it; never write into somebody else's."""
    from filelock import FileLock, Timeout

    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputRefused(f"{folder} is a link or a file; choose another output folder")
    ours = (folder / Ledger.NAME).exists() or (folder / ".lock").exists()
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise InputRefused(f"{folder} is not empty and was not made by geococa; choose an empty or new output folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputRefused(f"{folder} can't be made: {error.strerror}; choose another output folder") from None
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ArchiveBusy(f"{folder} is in use by another job; wait for it, or choose another output folder") from None
    except OSError as error:
        raise InputRefused(f"{folder} can't be written: {error.strerror}; choose another output folder") from None
    try:
        yield
    finally:
        lock.release()


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


def _job(archive: Path, recipe: Recipe, folder: Path, workers: int, threads: int | None, progress: Progress) -> _Job:
    if workers < 1:
        raise InputRefused(f"workers must be 1 or more, got {workers}")
    tiles, refused = _find(archive, recipe)
    found = sorted({year for tile in tiles for year in tile.years})
    first, last = recipe.scenes.years or (found[0], found[-1])
    years = tuple(range(first, last + 1))
    if not set(years) & set(found):
        raise InputRefused(f"the recipe asks for {first}-{last}, but {archive} has scenes of {found[0]}-{found[-1]}")
    share = threads or max(1, (os.cpu_count() or 1) // workers)
    return _Job(archive, recipe, folder, tiles, refused, years, workers, share, progress)


def _find(archive: Path, recipe: Recipe) -> tuple[tuple[TileRef, ...], dict[str, str]]:
    """Tiles of an archive, and the reasons of those whose headers or metadata can't be read."""
    pattern = recipe.scenes.pattern
    try:
        return tuple(find_tiles(archive, pattern=pattern, sensor=recipe.scenes.sensor)), {}
    except InputRefused:
        if not archive.is_dir():
            raise
        tiles: list[TileRef] = []
        refused: dict[str, str] = {}
        for child in sorted(path for path in archive.iterdir() if path.is_dir() and not path.name.startswith(".")):
            try:
                tiles += (
                    find_tiles(archive, pattern=child.name, sensor=recipe.scenes.sensor)
                    if _matches(child, pattern)
                    else []
                )
            except InputRefused as error:
                refused[child.name] = f"{type(error).__name__}: {error}"
        if not tiles:
            raise
        return tuple(tiles), refused


def _matches(child: Path, pattern: str | None) -> bool:
    return pattern is None or child.match(pattern)


def _run(job: _Job) -> ArchiveResult:
    if job.recipe.zones.path is None:
        raise InputRefused("the recipe names no zones; set path under [zones] to the park polygons")
    zones = read_zones(job.recipe.zones.path, name=job.recipe.zones.name, layer=job.recipe.zones.layer)
    with Ledger.open(job.folder) as ledger:
        model = _model(job, ledger)
        todo = [tile for tile in job.tiles if ledger.state(_maps_task(job, tile))[0] == "compute"]
        failed = job.refused | _run_tiles(job, ledger, todo, model)
        areas, ages = _areas(job, ledger, zones, model, failed)
        shares = job.gives_fractions and job.recipe.areas.class_name in model.classes
        outputs = write_outputs(
            job.folder,
            areas,
            job.recipe,
            zones,
            maps={tile.tile: _maps(job, tile.tile) for tile in job.tiles if tile.tile not in failed},
            inputs={tile.tile: [scene.id for scene in tile.scenes] for tile in job.tiles},
            failed=failed,
            ages=ages,
            fractions=_fraction_areas(job, ledger, zones, failed) if shares else None,
            change=_change(job, ledger, zones, failed) if job.recipe.change.tables else None,
            plots=_plots(job, ledger, zones, failed) if job.recipe.change.plots else None,
        )
        ledger.done(Task("outputs", "archive", hash_of(job.recipe.settings())), outputs.files)
    new = {tile.tile for tile in todo}
    return ArchiveResult(
        job.folder,
        areas,
        outputs,
        computed=tuple(tile.tile for tile in todo if tile.tile not in failed),
        reused=tuple(tile.tile for tile in job.tiles if tile.tile not in new),
        failed=failed,
    )


# Keys: everything that a result depends on --------------------------------------------------------------------------


def _inputs(tile: TileRef) -> list[Any]:
    files = []
    for scene in tile.scenes:
        path = Path(scene.path)
        members = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        files += [file_fingerprint(member, Path(tile.path)) for member in members]
        # what a sensor.toml says of the numbers is in no file of the scene
        files.append([scene.id, sorted(scene.scale.items()), sorted(scene.offset.items()), str(scene.own_quality)])
    return files


def _model_key(job: _Job) -> str:
    key = _trained_key(job)
    if not estimates_transitions(job.recipe):
        return key
    # the model holds the yearly transitions of the very images
    settings = job.recipe.settings()
    sections = ("scenes", "clear_sky", "reflectance", "composite", "features", "labels")
    inputs = [_inputs(tile) for tile in job.tiles]
    return hash_of(key, [settings[name] for name in sections], inputs, job.years, ground_inputs(job.recipe))


def _trained_key(job: _Job) -> str:
    settings = job.recipe.settings()
    if job.recipe.model.path is not None:
        return file_sha256(job.recipe.model.path)
    samples = job.recipe.model.samples
    if samples is None:
        raise InputRefused("the recipe names neither a model nor samples; set path or samples under [model]")
    if not samples.is_file():
        raise InputRefused(f"no samples at {samples}; set samples under [model] to the reference points or polygons")
    upstream = [
        settings[section] for section in ("scenes", "clear_sky", "reflectance", "composite", "features", "model")
    ]
    # how the model is tested does not change it
    upstream[-1] = {name: value for name, value in upstream[-1].items() if name not in _TESTING}
    upstream += _beside(job, job.tiles)
    return hash_of(CODE_SCHEMA, upstream, file_sha256(samples), [_inputs(tile) for tile in job.tiles])


def _beside(job: _Job, tiles: Sequence[TileRef]) -> list[Any]:
    """State of the files that features of tiles are made from besides the scenes; empty where there are none."""
    ground, sar = ground_inputs(job.recipe), job.recipe.sar
    found: list[Any] = [ground] if ground else []
    if sar.path is not None:
        files = {file for tile in tiles for file in radar_files(sar.path, tile.tile)}
        found.append([sar.units, sar.quantity, [file_fingerprint(file, sar.path) for file in sorted(files)]])
    return found


def _maps_task(job: _Job, tile: TileRef) -> Task:
    settings = job.recipe.settings()
    stages = [settings[s] for s in ("scenes", "clear_sky", "reflectance", "composite", "features")]
    stages.append({name: value for name, value in settings["labels"].items() if value != _PLAIN_LABELS.get(name)})
    named: list[Any] = [job.recipe.areas.class_name] if job.gives_fractions else []
    # maps do not depend on layers beside them, so a run without any is the one that it was before there were layers
    named += [settings["layers"]] if any(settings["layers"].values()) else []
    named += _beside(job, [tile])
    return Task("maps", tile.tile, hash_of(CODE_SCHEMA, stages, _model_key(job), _inputs(tile), job.years, *named))


def _areas_task(job: _Job, tile: str, maps: dict[int, Path], owned: BaseGeometry) -> Task:
    zones = job.recipe.zones
    assert zones.path is not None
    checksums = [file_sha256(path) for _, path in sorted(maps.items())]
    layers = [_layer_files(path) for _, path in sorted(maps.items())]
    checksums += [file_sha256(path) for files in layers for _, path in sorted(files.items())]
    return Task(
        "areas",
        tile,
        hash_of(
            CODE_SCHEMA,
            AREAS_SCHEMA,
            checksums,
            file_sha256(zones.path),
            zones.name,
            zones.layer,
            job.recipe.areas.method,
            owned.wkb_hex,
        ),
    )


# Stages of a run -----------------------------------------------------------------------------------------------------


def _model(job: _Job, ledger: Ledger) -> Model:
    """Read the model, or train it from the recipe's samples; test it where the recipe asks for folds."""
    task = Task("model", "archive", _model_key(job))
    # samples are read once, and only if something is to be done with them
    rows = functools.cache(lambda: _rows(job))
    if ledger.state(task)[0] == "reuse":
        model = read_model(job.model_path)
    else:
        given = job.recipe.model.path
        model = read_model(given) if given is not None else _train(job, *rows())
        model = with_estimated_transitions(job.tiles, job.recipe, model, job.years)
        model.write(job.model_path)
        ledger.done(task, [job.model_path])
    _test(job, ledger, rows)
    return model


def _test(job: _Job, ledger: Ledger, rows: Callable[[], tuple[pd.DataFrame, list[str]]]) -> None:
    """Cross-validate the recipe's method and write the table, if folds are asked for."""
    settings, path = job.recipe.model, job.folder / "cross_validation.csv"
    asked = settings.folds > 0 and settings.path is None
    how = [getattr(settings, name) for name in _TESTING]
    task = Task("cross_validation", "archive", hash_of(_model_key(job), how, job.recipe.areas.class_name))
    if not asked:
        if path.exists():  # of an earlier run with folds: it would be taken for this model's
            path.unlink()
            ledger.done(task, [])
        return
    if ledger.state(task)[0] == "reuse" and path.exists():
        return
    table, names = rows()
    found = cross_validate(
        table,
        names,
        method=settings.method,
        folds=settings.folds,
        block_m=settings.block_m,
        buffer_m=settings.buffer_m,
        seed=settings.seed,
        positive=job.recipe.areas.class_name,
        progress=job.progress,
        **settings.options,
    )
    ledger.done(task, [found.write(path)])


def _rows(job: _Job) -> tuple[pd.DataFrame, list[str]]:
    """Training table and its feature columns."""
    settings = job.recipe.model
    if settings.samples is None:
        raise InputRefused("the recipe names no samples; set samples under [model] to the reference points or polygons")
    job.progress("sampling features", 0, 1)
    samples = read_samples(settings.samples, class_column=settings.class_column, year_column=settings.year_column)
    table = sample_table(job.tiles, samples, job.recipe)
    job.progress("sampling features", 1, 1)
    return table, _feature_columns(table)


def _train(job: _Job, table: pd.DataFrame, names: list[str]) -> Model:
    settings = job.recipe.model
    return train(
        table,
        names,
        method=settings.method,
        seed=settings.seed,
        calibration=settings.calibration,
        **settings.options,
    )


def training_rows(
    archive: str | os.PathLike[str], recipe: Recipe, *, progress: Progress | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Read the feature values under a recipe's samples, for training, cross-validation or tuning.

    Parameters
    ----------
    archive, recipe, progress
        As for `train_model`.

    Returns
    -------
    table : pandas.DataFrame
        See `geococa.pipeline.sample_table`.
    features : list of str
        Its feature columns.
    """
    return _rows(_job(Path(archive), recipe, Path(), 1, None, progress or _silent))


def train_model(archive: str | os.PathLike[str], recipe: Recipe, *, progress: Progress | None = None) -> Model:
    """Train the model of a recipe from its samples and an archive.

    Parameters
    ----------
    archive : path
        Folder with tile folders.
    recipe : Recipe
        Its sections up to ``[model]`` are used.
    progress : callable, optional
        Called with ``(what, done, total)``.

    Returns
    -------
    Model
    """
    job = _job(Path(archive), recipe, Path(), 1, None, progress or _silent)
    return with_estimated_transitions(job.tiles, recipe, _train(job, *_rows(job)), job.years)


def _feature_columns(table: pd.DataFrame) -> list[str]:
    known = {"class", "year", "tile", "sample", "row", "col", "x", "y", "block"}
    return [str(column) for column in table.columns if column not in known]


def _maps(job: _Job, tile: str) -> dict[int, Path]:
    return {year: job.folder / "maps" / f"{tile}_{year}_land_cover.tif" for year in job.years}


def _layer_files(path: Path) -> dict[str, Path]:
    """Files beside a land-cover map that tell of the dates behind it."""
    stem = path.name.removesuffix("land_cover.tif")
    files = {name: path.with_name(f"{stem}{name}.tif") for name in DATE_LAYERS}
    return {name: file for name, file in files.items() if file.is_file()}


def _run_tiles(job: _Job, ledger: Ledger, todo: list[TileRef], model: Model) -> dict[str, str]:
    """Compute the maps of the tiles that need it; return the reasons of those that failed."""
    failed: dict[str, str] = {}

    def finish(tile: TileRef, future: Future[list[Path]]) -> None:
        task = _maps_task(job, tile)
        try:
            ledger.done(task, future.result())
        except Exception as error:
            # whatever is wrong with one tile must not stop the batch; faults of ours keep their traceback in the log
            failed[tile.tile] = f"{type(error).__name__}: {error}"
            ledger.failed(task, failed[tile.tile])
            log.error(
                "tile %s failed: %s",
                tile.tile,
                failed[tile.tile],
                exc_info=not isinstance(error, GeococaError | OSError),
            )

    if job.workers == 1:
        for tile in todo:
            future: Future[list[Path]] = Future()
            try:
                future.set_result(
                    _tile_job(
                        tile,
                        job.recipe,
                        model,
                        job.folder,
                        job.years,
                        job.threads,
                        _block_progress(job, tile),
                    )
                )
            except Exception as error:
                future.set_exception(error)
            finish(tile, future)
        return failed
    with ProcessPoolExecutor(min(job.workers, max(len(todo), 1)), mp_context=get_context("spawn")) as pool:
        waiting = {
            pool.submit(_tile_job, tile, job.recipe, job.model_path, job.folder, job.years, job.threads): tile
            for tile in todo
        }
        for done, future in enumerate(as_completed(waiting), start=1):
            finish(waiting[future], future)
            job.progress("classifying tiles", done, len(todo))
    return failed


def _block_progress(job: _Job, tile: TileRef) -> Callable[[int], None]:
    rows, columns = tile.grid.shape
    size = job.recipe.run.block_px
    total, done = -(-rows // size) * -(-columns // size), [0]

    def step(count: int) -> None:
        done[0] += count
        job.progress(f"classifying {tile.tile}", done[0], total)

    return step


def _tile_job(
    tile: TileRef,
    recipe: Recipe,
    model: Model | Path,
    folder: Path,
    years: tuple[int, ...],
    threads: int,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """One tile, in this process or in a worker; only paths and plain values travel."""
    ready = read_model(model) if isinstance(model, Path) else model
    result = run_tile(tile, recipe, ready, folder / "maps", years=years, threads=threads, progress=progress)
    names = [path.with_name(f"{path.name}.aux.xml") for path in result.maps.values()]
    layers = [*result.observations.values(), *result.ages.values(), *result.fallback.values()]
    layers += result.fractions.values()
    layers += [path for yearly in result.layers.values() for path in yearly.values()]
    return [*result.maps.values(), *names, *layers]


def _areas(
    job: _Job, ledger: Ledger, zones: GeoDataFrame, model: Model, failed: dict[str, str]
) -> tuple[xr.Dataset, pd.DataFrame | None]:
    """Hectares of every tile's own ground, merged, and with a cut-off date those by age of the image.

    The ground of a failed tile counts as unobserved.
    """
    grids = {tile.tile: tile.grid for tile in job.tiles}
    owners = own_tiles(grids, footprints=_footprints(job, ledger, failed)).set_index("tile")
    (job.folder / "areas").mkdir(exist_ok=True)
    parts, ages = [], []
    for done, tile in enumerate(job.tiles, start=1):
        owned = owners.loc[tile.tile, "geometry"]
        path = job.folder / "areas" / f"{tile.tile}.csv"
        dates = job.folder / "areas" / f"{tile.tile}_image_ages.csv"
        maps = {} if tile.tile in failed else _maps(job, tile.tile)
        task = _areas_task(job, tile.tile, maps, owned)
        if tile.tile in failed or ledger.state(task)[0] == "compute":
            share = _coverage(job, ledger, tile, zones, owned)
            areas = _tile_areas(job, tile, maps, share, model)
            table = areas_table(areas)
            table["closure"] = table["zone"].map(areas["closure"].to_series())
            replace_file(path, table.to_csv(index=False, float_format="%.17g").encode())
            _write_ages(_tile_ages(job, maps, share), dates)
            if tile.tile not in failed:
                ledger.done(task, [path, dates])
        parts.append(_areas_of_tile(pd.read_csv(path)))
        ages.append(pd.read_csv(dates))
        job.progress("measuring hectares", done, len(job.tiles))
    merged = merge_areas(parts, zones, area=job.recipe.areas.method)
    table = merge_ages(ages, merged)
    return with_ages(merged, table), table if job.recipe.composite.cutoff is not None else None


def _fraction_areas(job: _Job, ledger: Ledger, zones: GeoDataFrame, failed: dict[str, str]) -> xr.Dataset:
    """Hectares of the class reported from its fractions, and of all else, merged over the tiles."""
    owners = own_tiles({tile.tile: tile.grid for tile in job.tiles}).set_index("tile")
    parts = []
    for tile in job.tiles:
        owned = owners.loc[tile.tile, "geometry"]
        path = job.folder / "areas" / f"{tile.tile}_fractions.csv"
        maps = {} if tile.tile in failed else _fraction_maps(job, tile.tile)
        task = replace(_areas_task(job, tile.tile, maps, owned), stage="fraction_areas")
        if tile.tile in failed or ledger.state(task)[0] == "compute":
            share = _coverage(job, ledger, tile, zones, owned)
            areas = _tile_fractions(job, tile, maps, share)
            table = areas_table(areas)
            table["closure"] = table["zone"].map(areas["closure"].to_series())
            replace_file(path, table.to_csv(index=False, float_format="%.17g").encode())
            if tile.tile not in failed:
                ledger.done(task, [path])
        parts.append(_areas_of_tile(pd.read_csv(path)))
    return merge_areas(parts, zones, area=job.recipe.areas.method)


def _change(job: _Job, ledger: Ledger, zones: GeoDataFrame, failed: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Change tables of every tile's own ground, added up; the ground of a failed tile is left out."""
    grids = {tile.tile: tile.grid for tile in job.tiles}
    owners = own_tiles(grids, footprints=_footprints(job, ledger, failed)).set_index("tile")
    distances = job.recipe.change.ring_distances_m
    rings = buffer_rings(zones, distances) if distances else None
    settings = job.recipe.settings()
    folder = job.folder / "change"
    folder.mkdir(exist_ok=True)
    parts = []
    for done, tile in enumerate((one for one in job.tiles if one.tile not in failed), start=1):
        owned, maps = owners.loc[tile.tile, "geometry"], _maps(job, tile.tile)
        key = hash_of(_areas_task(job, tile.tile, maps, owned).key, settings["change"], job.recipe.areas.class_name)
        task = Task("change", tile.tile, key)
        if ledger.state(task)[0] == "compute":
            around = None if rings is None else coverage_fraction(rings, tile.grid, owned=owned, allow_outside=True)
            share = _coverage(job, ledger, tile, zones, owned)
            dates = [_layer_files(path)["observations"] for _, path in sorted(maps.items())]
            counts = np.stack([read_raster(path).values for path in dates])
            tables = tile_tables(
                read_maps(maps),
                share,
                job.recipe,
                rings=around,
                observations=tile.grid.attach(xr.DataArray(counts, dims=("time", "y", "x"))),
            )
            for name in CHANGE_TABLES:  # of an earlier run with other settings
                (folder / f"{tile.tile}_{name}.csv").unlink(missing_ok=True)
            files = []
            for name, table in tables.items():
                text = table.to_csv(index=False, float_format="%.17g")
                files.append(replace_file(folder / f"{tile.tile}_{name}.csv", text.encode()))
            ledger.done(task, files)
        found = {name: folder / f"{tile.tile}_{name}.csv" for name in CHANGE_TABLES}
        parts.append({name: pd.read_csv(path) for name, path in found.items() if path.is_file()})
        job.progress("measuring change", done, len(job.tiles))
    return merge_tables(parts)


def _plots(job: _Job, ledger: Ledger, zones: GeoDataFrame, failed: dict[str, str]) -> GeoDataFrame | None:
    """Plots of every tile's own ground, joined and followed over the years; None where no tile has a map."""
    grids = {tile.tile: tile.grid for tile in job.tiles}
    owners = own_tiles(grids, footprints=_footprints(job, ledger, failed))
    job.progress("following plots", 0, 1)
    good = [tile.tile for tile in job.tiles if tile.tile not in failed]
    maps = {tile: own_ground(read_maps(_maps(job, tile)), owners, tile) for tile in good}
    tracks = follow_run(maps, job.recipe, zones) if maps else None
    job.progress("following plots", 1, 1)
    return tracks


def _fraction_maps(job: _Job, tile: str) -> dict[int, Path]:
    return {year: job.folder / "maps" / f"{tile}_{year}_fraction.tif" for year in job.years}


def _tile_fractions(job: _Job, tile: TileRef, maps: dict[int, Path], share: Coverage) -> xr.Dataset:
    name = job.recipe.areas.class_name
    yearly = []
    for year in job.years:
        values = read_raster(maps[year]).values if maps else np.full(tile.grid.shape, np.nan, np.float32)
        both = xr.DataArray(np.stack([values, 1.0 - values])[None], dims=("time", "land_cover", "y", "x"))
        both = both.assign_coords(time=[np.datetime64(f"{year}-12-31", "ns")])
        fraction = as_fraction(tile.grid.attach(both), [name, f"not_{name}"])
        yearly.append(zonal_area(fraction, share, area=job.recipe.areas.method, threads=job.threads))
    return xr.concat(yearly, dim="time", data_vars="minimal", coords="minimal", compat="override")


def _write_ages(table: pd.DataFrame, path: Path) -> None:
    replace_file(path, table.to_csv(index=False, float_format="%.17g").encode())


def _tile_ages(job: _Job, maps: dict[int, Path], share: Coverage) -> pd.DataFrame:
    """Hectares of a tile by zone, year and age of the image, and the dates behind them."""
    yearly = [pd.DataFrame(columns=AGE_COLUMNS)]
    for year, path in sorted(maps.items()):
        layers = {name: read_raster(file) for name, file in _layer_files(path).items()}
        table = age_table(
            read_raster(path),
            layers.get("age_days"),
            share,
            class_name=job.recipe.areas.class_name,
            bin_days=1.0,
            observations=layers.get("observations"),
            fallback=layers.get("fallback_observations"),
        )
        yearly.append(table.assign(year=year))
    filled = [table for table in yearly if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else yearly[0]


def _footprints(job: _Job, ledger: Ledger, failed: dict[str, str]) -> dict[str, BaseGeometry]:
    """Ground with data in any year: where tiles overlap, it counts in one that saw it. A failed tile saw nothing."""
    out: dict[str, BaseGeometry] = {}
    if len(job.tiles) == 1:
        return out
    for tile in job.tiles:
        if tile.tile in failed:
            out[tile.tile] = MultiPolygon()
            continue
        maps = _maps(job, tile.tile)
        path = job.folder / "coverage" / f"{tile.tile}_footprint.wkb"
        task = Task("footprint", tile.tile, hash_of(AREAS_SCHEMA, [file_sha256(maps[year]) for year in job.years]))
        if ledger.state(task)[0] == "compute":
            seen = np.zeros(tile.grid.shape, bool)
            for year in job.years:
                seen |= read_raster(maps[year]).values != NO_DATA
            path.parent.mkdir(exist_ok=True)
            replace_file(path, to_wkb(footprint_of(seen, tile.grid)))
            ledger.done(task, [path])
        out[tile.tile] = from_wkb(path.read_bytes())
    return out


def _areas_of_tile(table: pd.DataFrame) -> xr.Dataset:
    """Areas of a tile as they were written, with the factor that closed the sums of each zone."""
    areas = areas_from_table(table)
    closure = table.drop_duplicates("zone").set_index("zone")["closure"]
    return areas.assign_coords(closure=("zone", closure.reindex(areas["zone"].values).values))


def _coverage(job: _Job, ledger: Ledger, tile: TileRef, zones: GeoDataFrame, owned: BaseGeometry) -> Coverage:
    """Shares of the zones on a tile, from an earlier run where its grid, zones and ground are the same."""
    path = job.folder / "coverage" / f"{tile.tile}.npz"
    task = Task("coverage", tile.tile, coverage_key(zones, tile.grid, owned))
    if ledger.state(task)[0] == "reuse":
        try:
            return Coverage.load(path, zones, tile.grid, owned=owned)
        except InputRefused as error:
            log.warning("%s; it is made again", error)
    share = coverage_fraction(zones, tile.grid, owned=owned, allow_outside=True, threads=job.threads)
    path.parent.mkdir(exist_ok=True)
    ledger.done(task, [share.save(path)])
    return share


def _tile_areas(job: _Job, tile: TileRef, maps: dict[int, Path], share: Coverage, model: Model) -> xr.Dataset:
    legend = model.legend.with_unclassified()
    yearly = []
    for year in job.years:
        if maps:
            land_cover = read_raster(maps[year])
        else:
            unseen = xr.DataArray(np.full(tile.grid.shape, NO_DATA, np.uint8), dims=("y", "x"))
            land_cover = tile.grid.attach(unseen.assign_attrs(kind="land_cover", **legend.to_attrs()))
        land_cover = land_cover.expand_dims(time=[np.datetime64(f"{year}-12-31", "ns")])
        yearly.append(zonal_area(land_cover, share, area=job.recipe.areas.method))
    return xr.concat(yearly, dim="time", data_vars="minimal", coords="minimal", compat="override")
