"""Where the tasks of a run are worked on: in this process, in processes of this machine, or by Dask on any number.

All of them run the same task on the same plain values, so the results are the same bytes whoever ran it and in whatever
order. A task that fails for a reason of its surroundings is tried again; one that takes its worker down with it three
times, or whose inputs can't be used, is given up, and the others go on.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlparse

from geococa._checks import optional_import
from geococa.errors import InputRefused
from geococa.run_resources import PROCESS_BYTES, Resources, limit_memory
from geococa.tile_task import FAILED, REFUSED, TileOutcome, TileTask, run_task

__all__ = ["DaskWorkers", "InProcess", "LocalProcesses", "Workers", "outcomes", "workers_for"]

RETRIES = 2
"""How many times a task is tried again."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_SMALLEST_PX = 64


class Workers(Protocol):
    """Takes tasks and gives their outcomes."""

    slots: int
    """Tasks that it takes at a time."""

    def submit(self, task: TileTask) -> Future[TileOutcome]:
        """Begin a task."""
        ...

    def __enter__(self) -> Self:
        """Make ready."""
        ...

    def __exit__(self, kind: object, *_: object) -> None:
        """Let the workers go; after an error without waiting for them."""
        ...


def workers_for(
    resources: Resources,
    tasks: int,
    scheduler: Any,
    *,
    open_network: bool,
    progress: Callable[[int], None] | None,
) -> Workers:
    """Workers for a number of tasks, as the caller asked for them."""
    if scheduler is not None:
        return DaskWorkers(scheduler, resources, open_network=open_network)
    if resources.workers == 1 and resources.worker_bytes is None:
        return InProcess(progress)
    return LocalProcesses(min(resources.workers, max(tasks, 1)), resources.worker_bytes)


def outcomes(
    workers: Workers,
    job: Path,
    tiles: Sequence[str],
    resources: Resources,
    *,
    retries: int = RETRIES,
    begins: Callable[[str, int], None] | None = None,
) -> Iterator[tuple[TileOutcome, int]]:
    """Run the tasks of tiles; give each one's last outcome and the number of attempts as they come.

    Parameters
    ----------
    workers : Workers
        Made ready.
    job : pathlib.Path
        Job file.
    tiles : sequence of str
        Tile ids.
    resources : Resources
        Threads and side of blocks. After a failure a task gets blocks of half the side, which is all that can be done
        against too little memory and changes no result.
    retries : int
        How many times a task is tried again.
    begins : callable, optional
        Called with tile and attempt as a task begins.
    """
    queue = deque((tile, 1) for tile in tiles)
    running: dict[Future[TileOutcome], tuple[str, int]] = {}
    while queue or running:
        while queue and len(running) < workers.slots:
            tile, attempt = queue.popleft()
            if begins is not None:
                begins(tile, attempt)
            block_px = max(resources.block_px >> (attempt - 1), min(_SMALLEST_PX, resources.block_px))
            running[workers.submit((str(job), tile, resources.threads, block_px))] = (tile, attempt)
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            tile, attempt = running.pop(future)
            outcome = _outcome(future, tile)
            if outcome.status == FAILED and attempt <= retries:
                queue.append((tile, attempt + 1))
            else:
                yield outcome, attempt


def _outcome(future: Future[TileOutcome], tile: str) -> TileOutcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return TileOutcome(tile, FAILED, "WorkerLost: its worker was killed, perhaps for want of memory")
    except (Exception, CancelledError) as error:
        lost = type(error).__name__ == "KilledWorker"
        if lost:  # the scheduler has tried it often enough
            return TileOutcome(tile, REFUSED, "WorkerLost: its workers were killed, perhaps for want of memory")
        return TileOutcome(tile, FAILED, f"{type(error).__name__}: {error}")


class InProcess:
    """Tasks one after the other in this process, each with its threads."""

    slots = 1

    def __init__(self, progress: Callable[[int], None] | None = None) -> None:
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        pass

    def submit(self, task: TileTask) -> Future[TileOutcome]:
        """Run a task now."""
        future: Future[TileOutcome] = Future()
        future.set_result(run_task(task, self._progress))
        return future


class LocalProcesses:
    """Processes of this machine, each in a pool of its own, so that one that dies takes no other's task with it.

    Parameters
    ----------
    count : int
        Processes.
    memory : int, optional
        Bytes that each may take.
    """

    def __init__(self, count: int, memory: int | None = None) -> None:
        self.slots = count
        self._memory = memory
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[TileOutcome], ProcessPoolExecutor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        pools = [*self._idle, *self._busy.values()]
        for pool in pools:
            if kind is not None:
                _kill(pool)
            pool.shutdown(wait=kind is None, cancel_futures=True)

    def submit(self, task: TileTask) -> Future[TileOutcome]:
        """Begin a task in a process that is free."""
        for future in [done for done in self._busy if done.done()]:
            pool = self._busy.pop(future)
            if future.exception() is None:
                self._idle.append(pool)
            else:
                pool.shutdown(wait=False)
        pool = self._idle.pop() if self._idle else self._new()
        future = pool.submit(run_task, task)
        self._busy[future] = pool
        return future

    def _new(self) -> ProcessPoolExecutor:
        from multiprocessing import get_context

        return ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin_worker, initargs=(self._memory,))


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once; what they were writing is swept away later."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        with suppress(OSError, ValueError):
            process.kill()


def _begin_worker(memory: int | None) -> None:
    """Make a worker end with its parent, leave Ctrl-C to it, and keep to its memory."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait as wait_for

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            wait_for([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if memory is not None:
        limit_memory(max(memory - PROCESS_BYTES, 0))


class DaskWorkers:
    """A Dask cluster: one of this machine, or one that is there already.

    Parameters
    ----------
    scheduler : str or distributed.Client
        ``"local"``, the address of a scheduler such as ``tls://10.0.0.5:8786``, its scheduler file, or a client of one,
        which is left open.
    resources : Resources
        Workers and threads of a local cluster.
    open_network : bool
        Whether a scheduler that is not on this machine may be used without TLS.

    Raises
    ------
    InputRefused
        The scheduler is elsewhere and its connection is neither encrypted nor authenticated.
    """

    def __init__(self, scheduler: Any, resources: Resources, *, open_network: bool = False) -> None:
        self._distributed = optional_import("distributed", "dask")
        self._resources = resources
        self._given = None if isinstance(scheduler, str) else scheduler
        self._address = None if scheduler == "local" else _address(scheduler)
        if self._address is not None:
            _check_address(self._address, open_network)
        self.slots = 100_000
        self._cluster: Any = None
        self._client: Any = None
        self._executor: Any = None

    def __enter__(self) -> Self:
        if self._address is None:
            self._cluster = local_cluster(self._resources)
        where = self._address if self._cluster is None else self._cluster
        try:
            self._client = self._given or self._distributed.Client(where, set_as_default=False, timeout="20s")
        except OSError as error:
            raise InputRefused(f"no Dask scheduler answers at {where}: {error}; start one, or take local") from error
        self._executor = self._client.get_executor(pure=False)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with suppress(Exception):
            self._executor.shutdown(wait=kind is None)
        if self._given is None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def submit(self, task: TileTask) -> Future[TileOutcome]:
        """Hand a task to the scheduler."""
        future: Future[TileOutcome] = self._executor.submit(run_task, task)
        return future


def local_cluster(resources: Resources) -> Any:
    """Dask cluster of this machine, reached from this machine only."""
    distributed = optional_import("distributed", "dask")
    return distributed.LocalCluster(
        n_workers=resources.workers,
        threads_per_worker=1,  # a task brings its own threads
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=resources.worker_bytes or 0,
        silence_logs=logging.ERROR,
    )


def _address(scheduler: Any) -> str:
    """Address of a scheduler, from its scheduler file where one is named, or from a client."""
    if not isinstance(scheduler, str):
        return str(scheduler.scheduler.address)
    path = Path(scheduler)
    if "://" in scheduler:
        return scheduler
    if path.is_file():
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except (ValueError, KeyError, TypeError):
            raise InputRefused(f"{path} is not a Dask scheduler file; expected JSON with an address") from None
    raise InputRefused(
        f"scheduler {scheduler!r} is no address such as tls://host:8786, no scheduler file and not 'local'"
    )


def _check_address(address: str, open_network: bool) -> None:
    parts = urlparse(address)
    if parts.scheme == "tls" or (parts.hostname or "") in _LOOPBACK or parts.scheme == "inproc" or open_network:
        return
    raise InputRefused(
        f"{address} is not on this machine and not encrypted: whoever reaches it could run programs on its workers; use a "
        "tls:// address with certificates, or say that the network is safe (--open-network)"
    )
