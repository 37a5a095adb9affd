"""One tile as a task: what travels to a worker, what it does there, and what comes back.

A task is the paths of a job file and of a tile's description and a few plain values, so it is small whatever the tile. A
worker writes into a folder of its own below the output folder's ``.work``; the job that holds the output folder then puts
the files under their final names. So a worker that outlives its job, or one that was started twice, changes nothing.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geococa._files import flush, flushed_together
from geococa.errors import GeococaError, InputRefused
from geococa.ledger import FileRow, file_row, hash_of
from geococa.models import read_model
from geococa.pipeline import TileResult, run_tile
from geococa.recipe import Recipe
from geococa.run_lock import WORK
from geococa.stated_checksums import check_stated
from geococa.tile_codec import tile_from_json, tile_to_json
from geococa.tile_inputs import InputFile, check_listed, read_checksums, tile_digests, tile_fingerprint
from geococa.tiles import TileRef

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["TileOutcome", "TileTask", "commit_tile", "has_room", "run_task", "write_job"]

DONE, REFUSED, FAILED, DISK_FULL = "done", "refused", "failed", "disk full"

TileTask = tuple[str, str, int, int]
"""Job file, tile id, threads, side of a block in cells: all that travels to a worker."""

_PROBE = 2**20


@dataclass(frozen=True)
class TileOutcome:
    """What became of a task; plain values.

    Attributes
    ----------
    tile : str
        Tile id.
    status : {"done", "refused", "failed", "disk full"}
        ``refused``: its inputs can't be used, now or again; ``failed``: it may go well another time.
    reason : str
        Why it did not go well.
    folder : str
        Where its files are.
    seconds : float
        Time it took.
    """

    tile: str
    status: str
    reason: str = ""
    folder: str = ""
    seconds: float = 0.0


def write_job(folder: Path, recipe: Recipe, model: Path, years: tuple[int, ...], tiles: list[TileRef]) -> Path:
    """Write what the tasks of a run share, and the description of each tile, and return the job file."""
    work = folder / WORK
    work.mkdir(exist_ok=True)
    job = work / f"job-{secrets.token_hex(4)}"
    (job / "tiles").mkdir(parents=True)
    for tile in tiles:
        (job / "tiles" / f"{tile.tile}.json").write_text(tile_to_json(tile), encoding="utf-8")
    settings = {
        "recipe": recipe.resolved(Path.cwd()).model_dump(mode="json"),
        "model": str(model.resolve()),
        "years": list(years),
        "folder": str(job.resolve()),
    }
    path = job / "job.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path.resolve()


@functools.lru_cache(maxsize=4)
def _read_job(path: str) -> tuple[Recipe, Model, tuple[int, ...], Path]:
    """Settings and model of a job; a worker reads them once."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(found["recipe"])
    return recipe, read_model(found["model"]), tuple(found["years"]), Path(found["folder"])


def run_task(task: TileTask, progress: Callable[[int], None] | None = None) -> TileOutcome:
    """Make the maps of a tile in a folder of its own; whatever goes wrong with the tile is told, not raised."""
    job, tile, threads, block_px = task
    began = time.monotonic()
    folder = Path(job).parent / f"{tile}-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
        _work(job, tile, folder, threads, block_px, progress)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        status = _status(error, Path(job).parent)
        return TileOutcome(tile, status, f"{type(error).__name__}: {error}", seconds=time.monotonic() - began)
    return TileOutcome(tile, DONE, folder=folder.name, seconds=time.monotonic() - began)


def _status(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return DISK_FULL
    # GDAL does not say why it could not write
    return DISK_FULL if not has_room(folder) else REFUSED if isinstance(error, GeococaError) else FAILED


def has_room(folder: Path) -> bool:
    """Whether a file of a megabyte can still be written."""
    probe = folder / f"probe-{secrets.token_hex(4)}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return True


def _work(
    job: str, name: str, folder: Path, threads: int, block_px: int, progress: Callable[[int], None] | None
) -> None:
    recipe, model, years, work = _read_job(job)
    tile = tile_from_json((work / "tiles" / f"{name}.json").read_text(encoding="utf-8"))
    before = hash_of(tile_fingerprint(tile))
    with ThreadPoolExecutor(1) as reader, flushed_together():
        # checksums are worked out while the tile is computed; what they say of a damaged file comes first
        checked = reader.submit(_checked_inputs, tile, recipe)
        try:
            result = run_tile(
                tile,
                recipe,
                model,
                folder,
                years=years,
                threads=threads,
                block_px=block_px,
                require_observed=True,
                progress=progress,
            )
        except InputRefused:
            checked.result()
            raise
        inputs = checked.result()
    if hash_of(tile_fingerprint(tile)) != before:
        raise InputRefused(
            f"tile {name} at {tile.path}: files changed while they were read; run again when they are whole"
        )
    found = {
        "files": [file_row(path, folder) for path in _files(result)],
        "inputs": [[file.name, file.sha256, file.size] for file in inputs],
        "fingerprint": before,
    }
    (folder / "task.json").write_text(json.dumps(found), encoding="utf-8")


def _checked_inputs(tile: TileRef, recipe: Recipe) -> list[InputFile]:
    check_stated(tile)
    files = tile_digests(tile, recipe.bands_needed())
    check_listed(files, read_checksums(tile))
    return files


def _files(result: TileResult) -> list[Path]:
    names = [path.with_name(f"{path.name}.aux.xml") for path in result.maps.values()]
    layers = [*result.observations.values(), *result.ages.values(), *result.fallback.values()]
    layers += result.fractions.values()
    layers += [path for yearly in result.layers.values() for path in yearly.values()]
    layers += [] if result.picture is None else [result.picture]
    return [*result.maps.values(), *names, *layers, *([result.scenes] if result.scenes is not None else [])]


def commit_tile(outcome: TileOutcome, job: Path, target: Path, state: str) -> tuple[list[FileRow], list[FileRow], str]:
    """Put the files of a finished task under their final names, flushed; nothing where its inputs are no longer the same.

    Parameters
    ----------
    outcome : TileOutcome
        Of a task that is done.
    job : pathlib.Path
        Job file.
    target : pathlib.Path
        Folder of the maps.
    state : str
        Digest of the state of the inputs as they are now.

    Returns
    -------
    files, inputs : list of FileRow
        Files as they are called now, from the folder above ``target``; and what they were made from.
    reason : str
        Why there are none.
    """
    source = job.parent / outcome.folder
    found = json.loads((source / "task.json").read_text(encoding="utf-8"))
    try:
        if found["fingerprint"] != state:
            return [], [], f"files of tile {outcome.tile} changed during the run; run again when they are whole"
        target.mkdir(exist_ok=True)
        for name, _, _ in found["files"]:
            (source / name).replace(target / name)
        flush(target)
    finally:
        shutil.rmtree(source, ignore_errors=True)
    files = [(f"{target.name}/{name}", str(sha256), int(size)) for name, sha256, size in found["files"]]
    return files, [(str(name), str(sha256), int(size)) for name, sha256, size in found["inputs"]], ""
