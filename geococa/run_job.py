"""What the tasks of a run share: its tiles, files and settings, and the keys that tell what each result depends on."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geococa._checks import check_threads
from geococa.backscatter import radar_files
from geococa.errors import InputRefused
from geococa.ground import ground_inputs
from geococa.image_ages import DATE_LAYERS
from geococa.ledger import Ledger, Task, file_fingerprint, file_sha256, hash_of
from geococa.models import read_model
from geococa.pipeline import estimates_transitions
from geococa.recipe import Recipe
from geococa.run_lock import LEDGER_NAME
from geococa.sensors import get_sensor
from geococa.tile_inputs import InputFile, content_key, tile_digests, tile_fingerprint
from geococa.tile_search import search_tiles
from geococa.tiles import TileRef, find_tiles

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "AREAS_SCHEMA", "TESTING", "Progress", "RunJob", "areas_task", "layer_files", "maps_task", "model_task", "no_progress",
    "plan_job", "tile_state", "with_known_digests", "yearly_files",
]  # fmt: skip

CODE_SCHEMA = "1"
"""Changes whenever the same input would give other maps; part of every task's key."""

AREAS_SCHEMA = "3"
"""Changes whenever the same maps would give other hectares, or another table of them."""

_PLAIN_LABELS = {"sieve_rule": "largest_neighbour"}
"""Settings that change nothing, so that maps made before there were such settings are still good."""

TESTING = ("folds", "block_m", "buffer_m")

_BAND = re.compile(r"(.*_)?(B\d{1,2}A?|SCL|SR_B\d|QA_PIXEL)(_\d+m)?\.(tiff?|jp2)", re.IGNORECASE)
"""Names of the bands of Sentinel-2 and Landsat products."""

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
    threads: int
    progress: Progress
    by_content: bool = False

    @cached_property
    def gives_fractions(self) -> bool:
        """Whether the model gives class fractions, so that those of the class reported are mapped and summed."""
        settings = self.recipe.model
        if settings.path is None:
            return settings.method in ("fraction", "unmixing")
        return read_model(settings.path).output == "fraction"

    @cached_property
    def digests(self) -> dict[str, list[InputFile]]:
        """Checksums of the inputs of every tile that can be read; worked out where inputs are known by their content."""
        found: dict[str, list[InputFile]] = {}
        if not self.by_content:
            return found

        def read(tile: TileRef) -> list[InputFile] | None:
            try:
                return tile_digests(tile, self.recipe.bands_needed())
            except InputRefused:  # the run itself will name the tile
                return None

        with ThreadPoolExecutor(max(2, self.threads)) as pool:
            for done, (tile, files) in enumerate(zip(self.tiles, pool.map(read, self.tiles), strict=True), start=1):
                if files is not None:
                    found[tile.tile] = files
                self.progress("reading checksums", done, len(self.tiles))
        return found

    @cached_property
    def model_sha256(self) -> str:
        """Checksum of the run's model as it is kept in the output folder: what maps depend on."""
        return file_sha256(self.model_path)

    @property
    def model_path(self) -> Path:
        """Where the run's model is kept."""
        return self.folder / "model.geococa"


def no_progress(what: str, done: int, total: int) -> None:
    """Take progress and tell nobody."""


def plan_job(
    archive: Path,
    recipe: Recipe,
    folder: Path,
    threads: int | None,
    progress: Progress,
    *,
    by_content: bool = False,
) -> RunJob:
    """Find the tiles and years of a run, and check what the recipe asks of them; nothing is written."""
    tiles, refused = _find(archive, recipe)
    found = sorted({year for tile in tiles for year in tile.years})
    first, last = recipe.scenes.years or (found[0], found[-1])
    years = tuple(range(first, last + 1))
    if not set(years) & set(found):
        raise InputRefused(f"the recipe asks for {first}-{last}, but {archive} has scenes of {found[0]}-{found[-1]}")
    return RunJob(archive, recipe, folder, tiles, refused, years, check_threads(threads), progress, by_content)


def _find(archive: Path, recipe: Recipe) -> tuple[tuple[TileRef, ...], dict[str, str]]:
    """Tiles of an archive, and the reasons of those whose headers or metadata can't be read."""
    pattern, sensor = recipe.scenes.pattern, recipe.scenes.sensor
    tiles, refused = search_tiles(archive, pattern=pattern, sensor=None if sensor is None else get_sensor(sensor))
    if not tiles:
        return tuple(find_tiles(archive, pattern=pattern, sensor=sensor)), {}  # says what is wrong with them
    named = {name: f"{type(error).__name__}: {error}" for name, error in refused.items()}
    return tuple(tiles), _without_metadata(archive, pattern, {tile.tile for tile in tiles} | set(named)) | named


def _without_metadata(archive: Path, pattern: str | None, known: set[str]) -> dict[str, str]:
    """Folders that hold bands as products have them but no scene, which would otherwise be passed over without a word."""
    found: dict[str, str] = {}
    if not archive.is_dir():
        return found
    for child in sorted(path for path in archive.iterdir() if path.is_dir() and path.name not in known):
        if child.name.startswith(".") or not fnmatch.fnmatchcase(child.name, pattern or "*"):
            continue
        if (child / LEDGER_NAME).exists():  # somebody's outputs
            continue
        bands = [path for path in sorted(child.glob("*/*")) if _BAND.fullmatch(path.name)]
        if bands:
            found[child.name] = (
                f"InputRefused: {child}: has {len(bands)} rasters such as {bands[0].parent.name}/{bands[0].name}, but no "
                "metadata that make a scene of them (STAC item.json, SAFE XML, Landsat MTL); fetch the product again"
            )
    return found


# Keys: everything that a result depends on --------------------------------------------------------------------------


def _inputs(job: RunJob, tile: TileRef) -> list[Any]:
    """State of a tile's inputs, by their content where that is asked for."""
    if job.by_content and tile.tile in job.digests:
        return content_key(tile, [(file.name, file.sha256) for file in job.digests[tile.tile]])
    return tile_fingerprint(tile)


def model_task(job: RunJob) -> Task:
    """Task of the run's model, with the digest of samples, settings and scenes."""
    quick = replace(job, by_content=False)
    return Task("model", "archive", _model_key(quick), _model_key(job) if job.by_content else None)


def with_known_digests(job: RunJob, ledger: Ledger) -> RunJob:
    """The run with its inputs known by their content, as far as workers told the ledger of it; nothing is read again."""
    if job.by_content:
        return job
    known: dict[str, list[InputFile]] = {}
    for row in ledger.inputs().to_dict("records"):
        if row["stage"] == "maps":
            file = InputFile(str(row["path"]), int(row["bytes"]), str(row["sha256"]), Path())
            known.setdefault(str(row["item"]), []).append(file)
    sure = replace(job, by_content=True)
    vars(sure)["digests"] = known  # in place of reading all files
    return sure


def _model_key(job: RunJob) -> str:
    key = _trained_key(job)
    if not estimates_transitions(job.recipe):
        return key
    # the model holds the yearly transitions of the very images
    settings = job.recipe.settings()
    sections = ("scenes", "clear_sky", "reflectance", "composite", "features", "labels")
    inputs = [_inputs(job, tile) for tile in job.tiles]
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
    return hash_of(CODE_SCHEMA, upstream, file_sha256(samples), [_inputs(job, tile) for tile in job.tiles])


def _beside(job: RunJob, tiles: Sequence[TileRef]) -> list[Any]:
    """State of the files that features of tiles are made from besides the scenes; empty where there are none."""
    ground, sar = ground_inputs(job.recipe), job.recipe.sar
    found: list[Any] = [ground] if ground else []
    if sar.path is not None:
        files = {file for tile in tiles for file in radar_files(sar.path, tile.tile)}
        found.append([sar.units, sar.quantity, [file_fingerprint(file, sar.path) for file in sorted(files)]])
    return found


def maps_task(job: RunJob, tile: TileRef, read: Sequence[tuple[str, str]] | None = None) -> Task:
    """Task of a tile's maps, with the digest of scenes, settings and model.

    ``read`` gives name and SHA-256 of the files that a worker read; without it the content is known only where the run
    goes by it.
    """
    settings = job.recipe.settings()
    stages = [settings[s] for s in ("scenes", "clear_sky", "reflectance", "composite", "features")]
    stages.append({name: value for name, value in settings["labels"].items() if value != _PLAIN_LABELS.get(name)})
    named: list[Any] = [job.recipe.areas.class_name] if job.gives_fractions else []
    # maps do not depend on layers beside them, so a run without any is the one that it was before there were layers
    named += [settings["layers"]] if any(settings["layers"].values()) else []
    named += _beside(job, [tile])

    def key(inputs: list[Any]) -> str:
        return hash_of(CODE_SCHEMA, stages, job.model_sha256, inputs, job.years, *named)

    if read is None and tile.tile in job.digests:
        read = [(file.name, file.sha256) for file in job.digests[tile.tile]]
    return Task("maps", tile.tile, key(tile_fingerprint(tile)), None if read is None else key(content_key(tile, read)))


def tile_state(job: RunJob, ledger: Ledger, task: Task) -> tuple[str, str]:
    """What is to be done for a task, and why."""
    if job.by_content and task.content_key is None:
        return "compute", "its inputs can't be read"
    return ledger.state(task, by_content=job.by_content)


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
