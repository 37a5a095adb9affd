"""What the tasks of a run share: its tiles, files and settings, and the keys that tell what each result depends on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geococa._checks import check_threads
from geococa.backscatter import radar_files
from geococa.errors import InputRefused
from geococa.ground import ground_inputs
from geococa.image_ages import DATE_LAYERS
from geococa.ledger import Task, file_fingerprint, file_sha256, hash_of
from geococa.models import read_model
from geococa.pipeline import estimates_transitions
from geococa.recipe import Recipe
from geococa.tiles import TileRef, find_tiles

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "AREAS_SCHEMA", "TESTING", "Progress", "RunJob", "areas_task", "layer_files", "maps_task", "no_progress", "plan_job",
    "yearly_files",
]  # fmt: skip

CODE_SCHEMA = "1"
"""Changes whenever the same input would give other maps; part of every task's key."""

AREAS_SCHEMA = "3"
"""Changes whenever the same maps would give other hectares, or another table of them."""

_PLAIN_LABELS = {"sieve_rule": "largest_neighbour"}
"""Settings that change nothing, so that maps made before there were such settings are still good."""

TESTING = ("folds", "block_m", "buffer_m")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, how many there are."""


@dataclass(frozen=True)
class RunJob:
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

    @cached_property
    def model_key(self) -> str:
        """Digest of all that the run's model depends on: its file, or samples, scenes and settings."""
        # worked out once: the maps of every tile depend on it, and it looks at the files of all tiles
        return _model_key(self)

    @property
    def model_path(self) -> Path:
        """Where the run's model is kept."""
        return self.folder / "model.geococa"


def no_progress(what: str, done: int, total: int) -> None:
    """Take progress and tell nobody."""


def plan_job(
    archive: Path, recipe: Recipe, folder: Path, workers: int, threads: int | None, progress: Progress
) -> RunJob:
    """Find the tiles and years of a run, and check what the recipe asks of them; nothing is written."""
    if workers < 1:
        raise InputRefused(f"workers must be 1 or more, got {workers}")
    tiles, refused = _find(archive, recipe)
    found = sorted({year for tile in tiles for year in tile.years})
    first, last = recipe.scenes.years or (found[0], found[-1])
    years = tuple(range(first, last + 1))
    if not set(years) & set(found):
        raise InputRefused(f"the recipe asks for {first}-{last}, but {archive} has scenes of {found[0]}-{found[-1]}")
    share = max(1, (os.cpu_count() or 1) // workers) if threads is None else check_threads(threads)
    return RunJob(archive, recipe, folder, tiles, refused, years, workers, share, progress)


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


def _model_key(job: RunJob) -> str:
    key = _trained_key(job)
    if not estimates_transitions(job.recipe):
        return key
    # the model holds the yearly transitions of the very images
    settings = job.recipe.settings()
    sections = ("scenes", "clear_sky", "reflectance", "composite", "features", "labels")
    inputs = [_inputs(tile) for tile in job.tiles]
    return hash_of(key, [settings[name] for name in sections], inputs, job.years, ground_inputs(job.recipe))


def _trained_key(job: RunJob) -> str:
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
    upstream[-1] = {name: value for name, value in upstream[-1].items() if name not in TESTING}
    upstream += _beside(job, job.tiles)
    return hash_of(CODE_SCHEMA, upstream, file_sha256(samples), [_inputs(tile) for tile in job.tiles])


def _beside(job: RunJob, tiles: Sequence[TileRef]) -> list[Any]:
    """State of the files that features of tiles are made from besides the scenes; empty where there are none."""
    ground, sar = ground_inputs(job.recipe), job.recipe.sar
    found: list[Any] = [ground] if ground else []
    if sar.path is not None:
        files = {file for tile in tiles for file in radar_files(sar.path, tile.tile)}
        found.append([sar.units, sar.quantity, [file_fingerprint(file, sar.path) for file in sorted(files)]])
    return found


def maps_task(job: RunJob, tile: TileRef) -> Task:
    """Task of a tile's maps, with the digest of scenes, settings and model."""
    settings = job.recipe.settings()
    stages = [settings[s] for s in ("scenes", "clear_sky", "reflectance", "composite", "features")]
    stages.append({name: value for name, value in settings["labels"].items() if value != _PLAIN_LABELS.get(name)})
    named: list[Any] = [job.recipe.areas.class_name] if job.gives_fractions else []
    # maps do not depend on layers beside them, so a run without any is the one that it was before there were layers
    named += [settings["layers"]] if any(settings["layers"].values()) else []
    named += _beside(job, [tile])
    return Task("maps", tile.tile, hash_of(CODE_SCHEMA, stages, job.model_key, _inputs(tile), job.years, *named))


def areas_task(job: RunJob, tile: str, maps: dict[int, Path], owned: BaseGeometry) -> Task:
    """Task of a tile's hectares, with the digest of maps, zones, measure and the ground that the tile owns."""
    zones = job.recipe.zones
    assert zones.path is not None
    checksums = [file_sha256(path) for _, path in sorted(maps.items())]
    layers = [layer_files(path) for _, path in sorted(maps.items())]
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


def yearly_files(job: RunJob, tile: str) -> dict[int, Path]:
    """Land-cover map of each year of a tile."""
    return {year: job.folder / "maps" / f"{tile}_{year}_land_cover.tif" for year in job.years}


def layer_files(path: Path) -> dict[str, Path]:
    """Files beside a land-cover map that tell of the dates behind it."""
    stem = path.name.removesuffix("land_cover.tif")
    files = {name: path.with_name(f"{stem}{name}.tif") for name in DATE_LAYERS}
    return {name: file for name, file in files.items() if file.is_file()}
