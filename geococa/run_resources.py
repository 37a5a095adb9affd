"""How many workers, how many threads in each and how large a block: from processors, memory and what a tile needs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from geococa.errors import InputRefused
from geococa.pipeline import halo_of
from geococa.recipe import Recipe
from geococa.tiles import TileRef

__all__ = ["Resources", "choose_resources", "limit_memory", "memory_free", "parse_memory"]

PROCESS_BYTES = 330 * 2**20
"""What a worker needs before it opens a tile: Python, its libraries, compiled kernels and a model, as measured."""
SLACK_BYTES = 1536 * 2**20
"""Memory that a worker's libraries set aside and never touch (stacks and pools of threads), as measured."""
_SMALLEST_PX, _HARDLY_WORTH_IT = 64, 40_000_000
"""Smallest side of a block; cells times dates below which starting processes takes longer than it saves."""

_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Resources:
    """How a run is spread over a machine.

    Attributes
    ----------
    workers : int
        Processes; 1 = in this process, unless memory is limited.
    threads : int
        Threads in each.
    block_px : int
        Side of a block in cells.
    worker_bytes : int or None
        Memory that each worker may take; None = not limited.
    """

    workers: int
    threads: int
    block_px: int
    worker_bytes: int | None = None


def parse_memory(text: str) -> int:
    """Bytes of a size such as ``8GB`` (10^9 bytes each), ``8GiB`` (2^30) or ``500M``.

    Raises
    ------
    InputRefused
        It is no size, or too small for one worker.

    Examples
    --------
    >>> parse_memory("8GB"), parse_memory("1.5 GiB")
    (8000000000, 1610612736)
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise InputRefused(f"memory must be a size such as 8GB, 500MB or 2GiB, got {text!r}")
    size = int(float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2].lower() or " "))
    if size < PROCESS_BYTES * 1.2:
        raise InputRefused(
            f"memory of {text} is too little for one worker; give at least {PROCESS_BYTES * 12 // 10**7}MB"
        )
    return size


def memory_free() -> int | None:
    """Memory that can be used without swapping, within the limits of a container; None where the system does not say."""
    sizes = []
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                sizes.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        sizes.append(max(limit - used, 0))
    return min(sizes, default=None)


def choose_resources(
    tiles: Sequence[TileRef],
    recipe: Recipe,
    years: Sequence[int],
    *,
    workers: int | None = None,
    threads: int | None = None,
    memory: int | None = None,
    processors: int | None = None,
) -> Resources:
    """Choose workers, threads and the side of blocks.

    Parameters
    ----------
    tiles : sequence of TileRef
        Tiles to compute.
    recipe : Recipe
        Its ``block_px`` is the largest block taken.
    years : sequence of int
        Years mapped.
    workers, threads : int, optional
        Chosen where not given: as many workers as tiles, processors and memory allow, and the processors shared out.
    memory : int, optional
        Bytes for all workers together; most of what is free where not given, and then not enforced.
    processors : int, optional
        Processors; those that this process may use where not given.

    Raises
    ------
    InputRefused
        The memory does not do for the workers and threads asked for.
    """
    cores = processors or _processors()
    room = memory or (memory_free() or 4 * 2**30) * 4 // 5
    cell = max((_cell_bytes(tile, recipe, years) for tile in tiles), default=0)
    halo = max((halo_of(recipe, tile.grid) for tile in tiles), default=0)
    largest = recipe.run.block_px
    side = max((max(tile.grid.shape) for tile in tiles), default=largest)
    least = PROCESS_BYTES + _block_bytes(min(_SMALLEST_PX, largest, side), halo, cell)
    if workers is None:
        work = sum(tile.grid.shape[0] * tile.grid.shape[1] * len(tile.scenes) for tile in tiles)
        wanted = 1 if work < _HARDLY_WORTH_IT else min(cores, len(tiles))
        workers = max(1, min(wanted, room // max(least, 1)))
    if threads is None:
        threads = max(1, cores // workers)
        while threads > 1 and not _fitting(room // workers, threads, largest, halo, cell, side):
            threads -= 1
    block_px = _fitting(room // workers, threads, largest, halo, cell, side)
    if not block_px:
        if memory is not None:
            raise InputRefused(
                f"memory of {memory / 1e9:.2g} GB does not do for {workers} workers with {threads} threads on these tiles; "
                f"one worker with one thread needs {least / 1e9:.2g} GB"
            )
        block_px = min(_SMALLEST_PX, largest)
    return Resources(workers, threads, block_px, None if memory is None else memory // workers)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fitting(room: int, threads: int, largest: int, halo: int, cell: int, side: int) -> int:
    """Largest side of a block, of halves of the recipe's, that threads at once have room for; 0 where none is."""
    block = largest
    while PROCESS_BYTES + threads * _block_bytes(min(block, side), halo, cell) > room:
        block //= 2
        if block < min(_SMALLEST_PX, largest):
            return 0
    return block


def _block_bytes(side: int, halo: int, cell: int) -> int:
    return (side + 2 * halo) ** 2 * cell


def _cell_bytes(tile: TileRef, recipe: Recipe, years: Sequence[int]) -> int:
    """Bytes that one cell of a block takes at the peak: the dates of a year, then the features of all years.

    A date has its numbers twice (one year is read ahead), their reflectance and two masks; features and class
    probabilities are held up to three times while they are made, smoothed and stabilised.
    """
    bands = len(recipe.bands_needed() or tile.bands) + 1
    dates = max((sum(scene.datetime.year == year for scene in tile.scenes) for year in years), default=0)
    reach = (recipe.composite.window_days or 0) + recipe.composite.fallback_days + recipe.composite.after_days
    dates = min(len(tile.scenes), dates + dates * reach // 365)
    names = recipe.features
    features = len(names.names) + 10 * len(names.season) + 40 * len(names.series) + 4 * len(names.texture)
    features += len(names.terrain) + len(names.distance)
    reading = dates * (bands * (2 * 2 + 2 * 4) + 4)
    deciding = len(years) * (3 * features * 4 + 3 * 8 * 4)
    return reading + deciding


def limit_memory(extra: int) -> None:
    """Let this process take ``extra`` bytes more, so that a task that asks for too much fails by itself.

    What libraries set aside without using it is let through. Without effect where the system has no such limit.
    """
    if sys.platform != "linux":
        return
    import resource

    used = 0
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmData:"):
                used = int(line.split()[1]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = used + extra + SLACK_BYTES
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
