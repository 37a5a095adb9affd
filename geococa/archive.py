"""An archive of tiles through the pipeline: plan, ledger, resume, workers, merge.

A tile is the unit of work, since its years inform each other. Every file is written whole or not at all, and a task gets its
row in the ledger only after its files, so an interrupted run resumes where it was. A tile that fails is named with its
reason and its hectares count as unobserved; the others finish.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from geococa.errors import DiskFull, InputRefused
from geococa.ledger import Ledger, Task, hash_of
from geococa.models import read_model, train
from geococa.outputs import Outputs, write_outputs
from geococa.pipeline import sample_table, with_estimated_transitions
from geococa.provenance import write_provenance
from geococa.recipe import Recipe
from geococa.run_costs import plan_columns
from geococa.run_estimates import read_rows, skill_of_run, validation_rows, write_rows
from geococa.run_folder import TileMaps
from geococa.run_job import (
    TESTING,
    Progress,
    RunJob,
    maps_task,
    model_task,
    no_progress,
    plan_job,
    tile_state,
    with_known_digests,
    yearly_files,
)
from geococa.run_lock import hold_folder
from geococa.run_measures import measure_run
from geococa.run_resources import parse_memory
from geococa.samples import read_samples
from geococa.tile_batch import Where, make_maps
from geococa.tile_task import has_room
from geococa.tiles import TileRef
from geococa.validation import cross_validate
from geococa.zones import read_zones

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["ArchiveResult", "Plan", "plan_archive", "run_archive", "train_model", "training_rows"]


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
        One row a tile: ``tile, scenes, years, action`` ("compute", "reuse", or "skip" where it can't be used), ``reason``, and
        what it will take: ``core_minutes, read_gb, write_mb`` (`geococa.run_costs`).
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
    archive: str | os.PathLike[str],
    recipe: Recipe | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    verify_inputs: bool = False,
) -> Plan:
    """Say what a run would compute and what it would reuse; nothing is computed or written.

    Parameters
    ----------
    archive, recipe, out, verify_inputs
        As for `run_archive`.

    Returns
    -------
    Plan

    Examples
    --------
    >>> import pathlib, tempfile
    >>> plan = plan_archive("sample_tiles", "sample_tiles/recipe.toml", pathlib.Path(tempfile.mkdtemp()) / "out")
    >>> sorted(set(plan.tasks["action"]))
    ['compute']
    """
    settings = recipe if isinstance(recipe, Recipe) else Recipe.read(Path(recipe))
    job = plan_job(Path(archive), settings, Path(out), None, no_progress, by_content=verify_inputs)
    rows = []
    with Ledger.peek(job.folder) as ledger:
        known = tile_state(job, ledger, model_task(job))[0] == "reuse"
        for tile in job.tiles:
            action, reason = "compute", "not done yet"
            if known:
                action, reason = tile_state(job, ledger, maps_task(job, tile))
            elif (job.folder / "maps").is_dir():
                reason = "the model has to be made again; maps that it does not change will be reused"
            rows.append(
                {
                    "tile": tile.tile,
                    "scenes": len(tile.scenes),
                    "years": f"{job.years[0]}-{job.years[-1]}",
                    "action": action,
                    "reason": reason,
                    **plan_columns(tile, settings, job.years, compute=action == "compute"),
                }
            )
    rows += [{"tile": tile, "action": "skip", "reason": reason} for tile, reason in job.refused.items()]
    return Plan(job.tiles, job.years, pd.DataFrame(rows))


def run_archive(
    archive: str | os.PathLike[str],
    recipe: Recipe | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    workers: int | None = 1,
    threads: int | None = None,
    memory: int | str | None = None,
    scheduler: Any = None,
    open_network: bool = False,
    verify_inputs: bool = False,
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
    workers : int or None
        Processes over tiles; with 1, threads work on the blocks of one tile after the other, None chooses from
        processors and memory. More than one needs a script that may be imported (``if __name__ == "__main__":``).
    threads : int, optional
        Threads in each worker; processors divided by workers where not given. Results depend on neither.
    memory : int or str, optional
        Memory for all workers together, in bytes or as ``"8GB"``: workers and the side of blocks are chosen to keep to it,
        and a worker that asks for more fails by itself (on Linux). Tiles are then worked on in processes of their own.
    scheduler : str or distributed.Client, optional
        Dask scheduler to work on: its address, its scheduler file, a client, or ``"local"`` for a cluster of this machine.
        Workers elsewhere need archive and ``out`` under the same paths.
    open_network : bool
        Whether a scheduler that is not on this machine may be used without TLS.
    verify_inputs : bool
        Know inputs by their SHA-256 rather than by name, size and time: slower, and sure.
    progress : callable, optional
        Called with ``(what, done, total)``.

    Returns
    -------
    ArchiveResult

    Raises
    ------
    ArchiveBusy
        Another job works in ``out``.
    DiskFull
        There is no room for the outputs; a second run goes on from there.
    InputRefused
        The archive, samples, zones or model can't be used. A single unusable tile does not raise: it is listed in ``failed``.
    """
    settings = recipe if isinstance(recipe, Recipe) else Recipe.read(Path(recipe))
    if workers is not None and workers < 1:
        raise InputRefused(f"workers must be 1 or more, got {workers}")
    room = parse_memory(memory) if isinstance(memory, str) else memory
    where = Where(workers, threads, room, scheduler, open_network)
    with hold_folder(out) as held:
        folder = Path(held)
        job = plan_job(Path(archive), settings, folder, threads, no_progress, by_content=verify_inputs)
        try:
            return _run(job, where, progress or no_progress)
        except Exception as error:
            if isinstance(error, DiskFull) or has_room(folder):
                raise
            raise DiskFull(
                f"{folder}: no room left on its disk ({error}); what is finished is kept, make room and run the same "
                "command again"
            ) from error


def _run(job: RunJob, where: Where, progress: Progress) -> ArchiveResult:
    if job.recipe.zones.path is None:
        raise InputRefused("the recipe names no zones; set path under [zones] to the park polygons")
    zones = read_zones(job.recipe.zones.path, name=job.recipe.zones.name, layer=job.recipe.zones.layer)
    with Ledger.open(job.folder) as ledger:
        job = replace(job, progress=_told(progress, ledger))
        model = _model(job, ledger)
        tasks = {tile.tile: (tile, maps_task(job, tile)) for tile in job.tiles}
        todo = {}
        for tile, (ref, task) in tasks.items():
            if tile_state(job, ledger, task)[0] == "compute":
                todo[tile] = (ref, task)
            elif job.by_content:
                ledger.adopt(task)
        failed = job.refused | make_maps(job, ledger, todo, where)
        for tile, reason in job.refused.items():
            ledger.failed(Task("maps", tile, ""), reason)
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
        outputs.files += write_provenance(job, ledger, zones, failed, outputs.files)
        ledger.done(Task("outputs", "archive", hash_of(job.recipe.settings())), outputs.files)
        ledger.adopt(model_task(with_known_digests(job, ledger)))
        ledger.stands("finished", len(tasks) - len(failed), len(tasks))
    return ArchiveResult(
        job.folder,
        measures.areas,
        outputs,
        computed=tuple(tile for tile in todo if tile not in failed),
        reused=tuple(tile for tile in tasks if tile not in todo),
        failed=failed,
    )


def _told(progress: Progress, ledger: Ledger) -> Progress:
    """Progress that others can follow in the ledger, a note a second."""
    home = threading.get_ident()
    last: tuple[str, float] = ("", 0.0)

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        # blocks tell of themselves from their own threads, which the ledger does not take notes from
        if threading.get_ident() == home and (what != last[0] or now - last[1] >= 1):
            last = (what, now)
            ledger.stands(what, done, total)
        progress(what, done, total)

    return tell


def _model(job: RunJob, ledger: Ledger) -> Model:
    """Read the model, or train it from the recipe's samples; test it where the recipe asks for folds."""
    task = model_task(job)
    # samples are read once, and only if something is to be done with them
    rows = functools.cache(lambda: _rows(job))
    if tile_state(job, ledger, task)[0] == "reuse":
        model = read_model(job.model_path)
        if job.by_content:
            ledger.adopt(task)
    else:
        given = job.recipe.model.path
        model = read_model(given) if given is not None else _train(job, *rows())
        model = with_estimated_transitions(job.tiles, job.recipe, model, job.years)
        model.write(job.model_path)
        ledger.done(task, [job.model_path])
    _test(job, ledger, task, rows)
    return model


def _test(job: RunJob, ledger: Ledger, model: Task, rows: Callable[[], tuple[pd.DataFrame, list[str]]]) -> None:
    """Cross-validate the recipe's method and write the table, if folds are asked for."""
    settings, path = job.recipe.model, job.folder / "cross_validation.csv"
    tested = job.folder / "cross_validation_rows.csv"
    asked = settings.folds > 0 and settings.path is None
    how = [*(getattr(settings, name) for name in TESTING), job.recipe.skill.index]
    keys = [key and hash_of(key, how, job.recipe.areas.class_name) for key in (model.key, model.content_key)]
    task = Task("cross_validation", "archive", str(keys[0]), keys[1])
    if not asked:
        if path.exists():  # of an earlier run with folds: it would be taken for this model's
            path.unlink()
            tested.unlink(missing_ok=True)
            ledger.done(task, [])
        return
    if tile_state(job, ledger, task)[0] == "reuse" and path.exists() and tested.exists():
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
    return _rows(plan_job(Path(archive), recipe, Path(), None, progress or no_progress))


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
    job = plan_job(Path(archive), recipe, Path(), None, progress or no_progress)
    return with_estimated_transitions(job.tiles, recipe, _train(job, *_rows(job)), job.years)


def _feature_columns(table: pd.DataFrame) -> list[str]:
    known = {"class", "year", "tile", "sample", "row", "col", "x", "y", "block"}
    return [str(column) for column in table.columns if column not in known]
