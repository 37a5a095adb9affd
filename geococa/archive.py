"""An archive of tiles through the pipeline: plan, ledger, resume, workers, merge.

A tile is the unit of work, since its years inform each other. Every file is written whole or not at all, and a task gets its
row in the ledger only after its files, so an interrupted run resumes where it was. A tile that fails is named with its
reason and its hectares count as unobserved; the others finish.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr

from geococa.errors import ArchiveBusy, GeococaError, InputRefused
from geococa.ledger import Ledger, Task, hash_of
from geococa.models import read_model, train
from geococa.outputs import Outputs, write_outputs
from geococa.pipeline import run_tile, sample_table, with_estimated_transitions
from geococa.recipe import Recipe
from geococa.run_estimates import read_rows, skill_of_run, validation_rows, write_rows
from geococa.run_folder import TileMaps
from geococa.run_job import TESTING, Progress, RunJob, maps_task, no_progress, plan_job, yearly_files
from geococa.run_measures import measure_run
from geococa.samples import read_samples
from geococa.tiles import TileRef
from geococa.validation import cross_validate
from geococa.zones import read_zones

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["ArchiveResult", "Plan", "plan_archive", "run_archive", "train_model", "training_rows"]

log = logging.getLogger("geococa")


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
    job = plan_job(Path(archive), settings, Path(out), 1, None, no_progress)
    rows = []
    with Ledger.peek(job.folder) as ledger:
        for tile in job.tiles:
            action, reason = ledger.state(maps_task(job, tile))
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
        return _run(plan_job(Path(archive), settings, folder, workers, threads, progress or no_progress))


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


def _run(job: RunJob) -> ArchiveResult:
    if job.recipe.zones.path is None:
        raise InputRefused("the recipe names no zones; set path under [zones] to the park polygons")
    zones = read_zones(job.recipe.zones.path, name=job.recipe.zones.name, layer=job.recipe.zones.layer)
    with Ledger.open(job.folder) as ledger:
        model = _model(job, ledger)
        todo = [tile for tile in job.tiles if ledger.state(maps_task(job, tile))[0] == "compute"]
        failed = job.refused | _run_tiles(job, ledger, todo, model)
        measures = measure_run(job, ledger, zones, model, failed)
        skill = _skill(job, failed)
        outputs = write_outputs(
            job.folder,
            measures.areas,
            job.recipe,
            zones,
            maps={tile.tile: yearly_files(job, tile.tile) for tile in job.tiles if tile.tile not in failed},
            inputs={tile.tile: [scene.id for scene in tile.scenes] for tile in job.tiles},
            failed=failed,
            ages=measures.ages,
            fractions=measures.fractions,
            change=measures.change,
            plots=measures.plots,
            skill=skill,
        )
        ledger.done(Task("outputs", "archive", hash_of(job.recipe.settings())), outputs.files)
    new = {tile.tile for tile in todo}
    return ArchiveResult(
        job.folder,
        measures.areas,
        outputs,
        computed=tuple(tile.tile for tile in todo if tile.tile not in failed),
        reused=tuple(tile.tile for tile in job.tiles if tile.tile not in new),
        failed=failed,
    )


def _model(job: RunJob, ledger: Ledger) -> Model:
    """Read the model, or train it from the recipe's samples; test it where the recipe asks for folds."""
    task = Task("model", "archive", job.model_key)
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


def _test(job: RunJob, ledger: Ledger, rows: Callable[[], tuple[pd.DataFrame, list[str]]]) -> None:
    """Cross-validate the recipe's method and write the table, if folds are asked for."""
    settings, path = job.recipe.model, job.folder / "cross_validation.csv"
    tested = job.folder / "cross_validation_rows.csv"
    asked = settings.folds > 0 and settings.path is None
    how = [*(getattr(settings, name) for name in TESTING), job.recipe.skill.index]
    task = Task("cross_validation", "archive", hash_of(job.model_key, how, job.recipe.areas.class_name))
    if not asked:
        if path.exists():  # of an earlier run with folds: it would be taken for this model's
            path.unlink()
            tested.unlink(missing_ok=True)
            ledger.done(task, [])
        return
    if ledger.state(task)[0] == "reuse" and path.exists() and tested.exists():
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
    rows_tested = validation_rows(table, found, job.recipe.skill.index)
    ledger.done(task, [found.write(path), write_rows(rows_tested, tested)])


def _skill(job: RunJob, failed: dict[str, str]) -> pd.DataFrame | None:
    """Model and nulls on the folds of the cross-validation, with the run's own maps as history; None without folds."""
    settings, tested = job.recipe.model, job.folder / "cross_validation_rows.csv"
    if not (settings.folds > 0 and settings.path is None and tested.exists()):
        return None
    maps = TileMaps({tile.tile: yearly_files(job, tile.tile) for tile in job.tiles if tile.tile not in failed})
    job.progress("scoring beside the nulls", 0, 1)
    found = skill_of_run(
        read_rows(tested),
        maps,
        class_name=job.recipe.areas.class_name,
        index=job.recipe.skill.index,
        folds=settings.folds,
    )
    job.progress("scoring beside the nulls", 1, 1)
    return found


def _rows(job: RunJob) -> tuple[pd.DataFrame, list[str]]:
    """Training table and its feature columns."""
    settings = job.recipe.model
    if settings.samples is None:
        raise InputRefused("the recipe names no samples; set samples under [model] to the reference points or polygons")
    job.progress("sampling features", 0, 1)
    samples = read_samples(settings.samples, class_column=settings.class_column, year_column=settings.year_column)
    table = sample_table(job.tiles, samples, job.recipe)
    job.progress("sampling features", 1, 1)
    return table, _feature_columns(table)


def _train(job: RunJob, table: pd.DataFrame, names: list[str]) -> Model:
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
    return _rows(plan_job(Path(archive), recipe, Path(), 1, None, progress or no_progress))


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
    job = plan_job(Path(archive), recipe, Path(), 1, None, progress or no_progress)
    return with_estimated_transitions(job.tiles, recipe, _train(job, *_rows(job)), job.years)


def _feature_columns(table: pd.DataFrame) -> list[str]:
    known = {"class", "year", "tile", "sample", "row", "col", "x", "y", "block"}
    return [str(column) for column in table.columns if column not in known]


def _run_tiles(job: RunJob, ledger: Ledger, todo: list[TileRef], model: Model) -> dict[str, str]:
    """Compute the maps of the tiles that need it; return the reasons of those that failed."""
    failed: dict[str, str] = {}

    def finish(tile: TileRef, future: Future[list[Path]]) -> None:
        task = maps_task(job, tile)
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


def _block_progress(job: RunJob, tile: TileRef) -> Callable[[int], None]:
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
