"""A run on many cores, simulated event by event from measured times: python -m benchmarks.scheduler_simulation.

Tasks are tiles of all their years. A task waits for a free core and for the scheduler, which hands out one task at a time; reads its scenes
through a storage that all share; computes; and hands its checksums to the one process that writes the ledger. At the end that
process measures and merges. Times of tasks come from `benchmarks.cost_model`, spread as tiles differ in clear dates (lognormal, from
a fixed seed), so the same figures come out every time. ``--dask`` measures the overhead of a real scheduler with tasks that
do nothing. Writes benchmarks/results/scaling.json.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.machine import machine_facts

RESULTS = Path(__file__).parent / "results"
TILE_CELLS = 10_980**2
"""Cells of a Sentinel-2 tile at 10 m."""
CASES = {
    # tiles, years, dates a year: 120 tiles cover Colombia; the Amazon basin of 6.9 million km2 in tiles of about 10,000 km2 of own ground
    "Colombia, 120 tiles x 10 years": (120, 10, 30),
    "Amazon basin, 690 tiles x 10 years": (690, 10, 30),
    "5,000 tasks, tiles x years apart": (5000, 1, 30),
}
STORES = {"one disk, 0.5 GB/s": 0.5e9, "file server, 5 GB/s": 5e9, "object store, 50 GB/s": 50e9}


@dataclass(frozen=True)
class Work:
    """What one task costs: seconds of computing, bytes read, bytes written."""

    seconds: np.ndarray
    bytes_in: np.ndarray
    bytes_out: float
    measured: float
    """Seconds a tile in the one process that measures hectares, after the maps."""


def work_of(model: dict, tiles: int, years: int, dates: int, spread: float = 0.25) -> Work:
    """Cost of every task; tiles differ in how many of their dates are worth reading."""
    rng = np.random.default_rng(20)
    share = rng.lognormal(-(spread**2) / 2, spread, tiles)
    per_date = sum(model["seconds_per_cell_and_date"].values()) * TILE_CELLS * dates * years
    per_year = sum(model["seconds_per_cell_and_year"].values()) * TILE_CELLS * years
    bytes_in = model["bytes_in_per_cell_and_date"] * TILE_CELLS * dates * years * share
    other = model["seconds_per_byte_hashed"] * bytes_in + model["seconds_per_scene_screened"] * dates * years
    measured = model["seconds_per_cell_measured_once"] + model["seconds_per_cell_and_year_measured"] * years
    bytes_out = model["bytes_out_per_cell_and_year"] * TILE_CELLS * years
    return Work(per_date * share + per_year + other, bytes_in, bytes_out, measured * TILE_CELLS)


def simulate(work: Work, cores: int, bandwidth: float, hand_out: float, record: float) -> dict:
    """Time until the last task is recorded, and where the waiting was.

    A task reads while it computes, as blocks are read one after the other: it takes as long as the slower of both. All
    tasks that run share the bandwidth of the storage evenly, so that progress is counted in a common virtual time in which
    a byte costs more when more tasks read (processor sharing).
    """
    waiting = 0  # next task to hand out
    tasks = len(work.seconds)
    now, scheduler_free, recorder_free = 0.0, 0.0, 0.0
    # of the tasks that run: seconds still to compute, bytes still to read
    compute, read = np.empty(0), np.empty(0)
    arriving: list[tuple[float, int]] = []
    waited = 0.0
    free = cores
    while waiting < tasks or compute.size or arriving:
        while free and waiting < tasks:
            scheduler_free = max(scheduler_free, now) + hand_out
            heapq.heappush(arriving, (scheduler_free, waiting))
            waiting, free = waiting + 1, free - 1
        rate = bandwidth / max(1, int((read > 0).sum()))
        turns = [float(arriving[0][0] - now)] if arriving else []
        if compute.size:
            # a task ends when both are done; when one stops reading, the others read faster
            turns.append(float(np.maximum(compute, read / rate).min()))
            if (compute > 1e-9).any():
                turns.append(float(compute[compute > 1e-9].min()))
            if (read > 0).any():
                turns.append(float(read[read > 0].min() / rate))
        step = max(min(turns), 0.0)
        now += step
        waited += step * int(((compute <= 1e-9) & (read > 0)).sum())
        compute, read = np.maximum(0.0, compute - step), np.maximum(0.0, read - rate * step)
        read[read <= 1.0] = 0.0
        ended = (compute <= 1e-9) & (read == 0)
        for _ in range(int(ended.sum())):
            recorder_free = max(recorder_free, now) + record
        free += int(ended.sum())
        compute, read = compute[~ended], read[~ended]
        while arriving and arriving[0][0] <= now + 1e-12:
            _, task = heapq.heappop(arriving)
            compute, read = np.append(compute, work.seconds[task]), np.append(read, work.bytes_in[task])
    maps = max(now, recorder_free)
    end = maps + tasks * work.measured
    return {
        "hours": end / 3600,
        "measuring_hours": (end - maps) / 3600,
        "efficiency": float(work.seconds.sum()) / (cores * end),
        "storage_wait_share": waited / (cores * end),
        "scheduler_busy_share": len(work.seconds) * hand_out / end,
        "ledger_busy_share": len(work.seconds) * record / end,
    }


def dask_overhead(tasks: int) -> float:
    """Seconds that a real scheduler needs for each task, with tasks that do nothing, on this machine."""
    from distributed import Client, LocalCluster

    def nothing(number: int) -> int:
        return number

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(nothing, range(100), pure=False))
        start = time.perf_counter()
        client.gather(client.map(nothing, range(tasks), pure=False))
        return (time.perf_counter() - start) / tasks


def ledger_seconds(rows: int = 200) -> float:
    """Seconds that recording a tile of ten years takes: its row and those of its files."""
    import tempfile

    from geococa.ledger import Ledger, Task

    files = [(f"maps/x_{n}.tif", "0" * 64, 1) for n in range(40)]
    inputs = [(f"x/scene_{n}/B04.tif", "0" * 64, 1) for n in range(300 * 13)]
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder)) as ledger:
        start = time.perf_counter()
        for number in range(rows // 10):
            ledger.done(Task("maps", f"tile_{number}", "key"), [], rows=files, inputs=inputs)
        return (time.perf_counter() - start) / (rows // 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dask", type=int, default=0, metavar="TASKS", help="measure a real scheduler with so many tasks"
    )
    given = parser.parse_args()
    path = RESULTS / "scaling.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    measured = json.loads((RESULTS / "cost_model.json").read_text(encoding="utf-8"))
    hand_out = dask_overhead(given.dask) if given.dask else earlier.get("dask_seconds_per_task", 1e-3)
    record = ledger_seconds() if given.dask else earlier.get("ledger_seconds_per_tile", 5e-3)
    rows = []
    for case, (tiles, years, dates) in CASES.items():
        work = work_of(measured["model"], tiles, years, dates)
        for store, bandwidth in STORES.items():
            for cores, threads in ((2, 1), (16, 1), (500, 1), (500, 4)):
                shared = replace(work, seconds=work.seconds / threads)
                found = simulate(shared, cores // threads, bandwidth, hand_out, record)
                rows.append({"case": case, "storage": store, "cores": cores, "threads": threads, **found})
        rows[-1]["core_hours"] = float(work.seconds.sum()) / 3600
        rows[-1]["terabytes_in"] = float(work.bytes_in.sum()) / 1e12
        rows[-1]["terabytes_out"] = work.bytes_out * tiles / 1e12
    found = {
        "machine": machine_facts(2), "dask_tasks": given.dask or earlier.get("dask_tasks", 0), "dask_seconds_per_task": hand_out,
        "ledger_seconds_per_tile": record, "runs": rows,
    }  # fmt: skip
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    print({key: value for key, value in found.items() if key != "runs"})


if __name__ == "__main__":
    main()
