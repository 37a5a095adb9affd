"""The maps of many tiles: handed to workers, put under their names, entered in the ledger, and given up where they must be."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geococa.errors import DiskFull
from geococa.ledger import Ledger, Task, hash_of
from geococa.run_job import RunJob, maps_task
from geococa.run_lock import WORK
from geococa.run_resources import Resources, choose_resources
from geococa.run_workers import outcomes, workers_for
from geococa.tile_inputs import tile_fingerprint
from geococa.tile_task import DISK_FULL, DONE, TileOutcome, commit_tile, write_job
from geococa.tiles import TileRef

__all__ = ["Where", "make_maps"]

log = logging.getLogger("geococa")


@dataclass(frozen=True)
class Where:
    """Where the tasks of a run are worked on, as the caller asked.

    Attributes
    ----------
    workers, threads : int or None
        None = chosen from processors and memory.
    memory : int or None
        Bytes for all workers together.
    scheduler : str, distributed.Client or None
        Dask scheduler; ``"local"`` for a cluster of this machine.
    open_network : bool
        Whether a scheduler elsewhere may be used without TLS.
    """

    workers: int | None = 1
    threads: int | None = None
    memory: int | None = None
    scheduler: Any = None
    open_network: bool = False


def make_maps(job: RunJob, ledger: Ledger, todo: Mapping[str, tuple[TileRef, Task]], where: Where) -> dict[str, str]:
    """Make the maps of tiles; return the reasons of those that failed.

    Raises
    ------
    DiskFull
        The disk has no room; what is finished is in the ledger.
    """
    if not todo:
        return {}
    tiles = [tile for tile, _ in todo.values()]
    resources = choose_resources(
        tiles, job.recipe, job.years, workers=where.workers, threads=where.threads, memory=where.memory
    )
    log.info("%d tiles to compute with %s", len(tiles), resources)
    path = write_job(job.folder, job.recipe, job.model_path, job.years, tiles)
    failed: dict[str, str] = {}
    steps = _block_steps(job, tiles, resources)
    workers = workers_for(resources, len(tiles), where.scheduler, open_network=where.open_network, progress=steps)
    try:
        with workers as ready:
            last = outcomes(
                ready,
                path,
                list(todo),
                resources,
                begins=lambda tile, attempt: ledger.begins(tile, "maps", attempt),
            )
            for done, (outcome, attempts) in enumerate(last, start=1):
                tile, task = todo[outcome.tile]
                if outcome.status == DISK_FULL:
                    raise DiskFull(
                        f"{job.folder}: no room left on its disk ({outcome.reason}); {done - 1} tiles of this run are "
                        "kept, make room and run the same command again"
                    )
                reason = _finish(job, ledger, tile, task, outcome, attempts, path)
                if reason:
                    failed[tile.tile] = reason
                job.progress("classifying tiles", done, len(tiles))
    finally:
        shutil.rmtree(job.folder / WORK, ignore_errors=True)
    return failed


def _finish(
    job: RunJob, ledger: Ledger, tile: TileRef, task: Task, outcome: TileOutcome, attempts: int, path: Path
) -> str:
    """Enter an outcome in the ledger; return why it failed, or nothing."""
    if outcome.status != DONE:
        again = f" ({attempts} attempts)" if attempts > 1 else ""
        return _give_up(ledger, task, outcome.reason + again, attempts)
    files, inputs, state = commit_tile(outcome, path, job.folder / "maps", hash_of(tile_fingerprint(tile)))
    if not files:
        return _give_up(ledger, task, f"InputRefused: {state}", attempts)
    known = maps_task(job, tile, [(name, sha256) for name, sha256, _ in inputs])
    made = {name for name, _, _ in files}
    for name in ledger.files_of(task):
        if name not in made:  # of an earlier run with other years or layers
            (job.folder / name).unlink(missing_ok=True)
    ledger.done(known, [], rows=files, inputs=inputs, seconds=outcome.seconds, attempts=attempts)
    return ""


def _give_up(ledger: Ledger, task: Task, reason: str, attempts: int) -> str:
    ledger.failed(task, reason, attempts=attempts)
    log.error("tile %s failed: %s", task.item, reason)
    return reason


def _block_steps(job: RunJob, tiles: list[TileRef], resources: Resources) -> Callable[[int], None]:
    """Progress by blocks, for tiles that are worked on in this process."""
    size = resources.block_px
    total = sum(-(-tile.grid.shape[0] // size) * -(-tile.grid.shape[1] // size) for tile in tiles)
    done = [0]

    def step(count: int) -> None:
        done[0] = min(done[0] + count, total)
        job.progress("classifying blocks", done[0], total)

    return step
