"""Tasks: small, tried again, given up; memory kept; a scheduler elsewhere only over TLS."""

from __future__ import annotations

import dataclasses
import sys
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from geococa.errors import InputRefused
from geococa.recipe import Recipe
from geococa.run_resources import Resources, choose_resources, parse_memory
from geococa.run_workers import DaskWorkers, LocalProcesses, _check_address, outcomes
from geococa.tile_codec import tile_from_json, tile_to_json
from geococa.tile_task import TileOutcome, write_job
from geococa.tiles import find_tiles

RESOURCES = Resources(2, 1, 512)


class Faulty:
    """Workers whose tasks fail as told: tile to the statuses of its attempts."""

    slots = 2

    def __init__(self, story):
        self.story, self.given = {tile: list(parts) for tile, parts in story.items()}, []

    def submit(self, task):
        self.given.append(task)
        future = Future()
        found = self.story[task[1]].pop(0)
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(TileOutcome(task[1], found, "because"))
        return future


def test_a_failed_task_is_tried_twice_again_with_smaller_blocks_and_the_others_go_on():
    workers = Faulty(
        {"a": ["failed", "failed", "failed"], "b": ["done"], "c": [MemoryError("no"), "done"], "d": ["refused"]}
    )
    found = {
        outcome.tile: (outcome.status, attempts)
        for outcome, attempts in outcomes(workers, Path("job"), "abcd", RESOURCES)
    }
    assert found == {"a": ("failed", 3), "b": ("done", 1), "c": ("done", 2), "d": ("refused", 1)}
    assert [task[3] for task in workers.given if task[1] == "a"] == [512, 256, 128]


def big_tile(small_archive):
    """A tile with a thousand scenes."""
    tile = find_tiles(small_archive)[0]
    first = tile.scenes[0]
    scenes = tuple(
        dataclasses.replace(first, id=f"{first.id}_{n}", datetime=datetime(2015, 1, 1, tzinfo=UTC) + timedelta(days=n))
        for n in range(1000)
    )
    return dataclasses.replace(tile, scenes=scenes)


def test_what_travels_to_a_worker_is_small_whatever_the_tile(small_archive, tmp_path):
    tile = big_tile(small_archive)
    job = write_job(tmp_path, Recipe.read(small_archive / "recipe.toml"), tmp_path / "model", (2020,), [tile])
    task = (str(job), tile.tile, 4, 512)
    assert all(isinstance(value, str | int) for value in task)
    assert len(ForkingPickler.dumps(task)) < 10_000
    assert len(ForkingPickler.dumps(TileOutcome(tile.tile, "done", folder="x" * 50))) < 10_000


def test_a_tile_comes_back_from_its_description_as_it_was(small_archive):
    for tile in find_tiles(small_archive):
        again = tile_from_json(tile_to_json(tile))
        assert again == tile
        assert again.grid.crs.to_wkt() == tile.grid.crs.to_wkt()
        assert [scene.files for scene in again.scenes] == [scene.files for scene in tile.scenes]
        assert [(scene.scale, scene.offset) for scene in again.scenes] == [(s.scale, s.offset) for s in tile.scenes]


def greedy(task):
    """Task that asks for eight gigabytes."""
    if task[1] == "greedy":
        return TileOutcome("greedy", "done", str(np.ones(10**9)[-1]))
    return TileOutcome(task[1], "done")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is of Linux")
def test_a_task_that_asks_for_too_much_memory_fails_by_itself(monkeypatch):
    from geococa import run_workers

    monkeypatch.setattr(run_workers, "run_task", greedy)
    with LocalProcesses(2, 2 * 10**9) as workers:
        found = {
            outcome.tile: (outcome.status, attempts)
            for outcome, attempts in outcomes(workers, Path("job"), ["one", "greedy", "two"], RESOURCES, retries=1)
        }
    assert found == {"one": ("done", 1), "greedy": ("failed", 2), "two": ("done", 1)}


def deadly(task):
    """Task that takes its worker down."""
    import os
    import signal

    if task[1] == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return TileOutcome(task[1], "done")


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_tile_that_kills_its_worker_is_given_up_alone(monkeypatch):
    from geococa import run_workers

    monkeypatch.setattr(run_workers, "run_task", deadly)
    with LocalProcesses(2) as workers:
        found = {
            outcome.tile: (outcome.status, attempts)
            for outcome, attempts in outcomes(workers, Path("job"), ["one", "deadly", "two"], RESOURCES, retries=1)
        }
    assert found == {"one": ("done", 1), "deadly": ("failed", 2), "two": ("done", 1)}


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("2 GiB", 2**31), ("600mb", 600_000_000), ("500000000", 5 * 10**8)]
)
def test_sizes_of_memory(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "lots", "8 XB", "-1GB", "10MB"])
def test_what_is_no_size_or_too_little_is_refused(text):
    with pytest.raises(InputRefused, match="memory"):
        parse_memory(text)


def national(small_archive, scenes=40):
    """A tile of a national archive: 10980 cells a side and so many dates a year."""
    tile = big_tile(small_archive)
    chosen = tuple(
        dataclasses.replace(scene, datetime=datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=9 * n))
        for n, scene in enumerate(tile.scenes[:scenes])
    )
    grid = dataclasses.replace(tile.grid, shape=(10980, 10980))
    return dataclasses.replace(tile, grid=grid, scenes=chosen)


def test_workers_and_blocks_follow_memory_and_processors(small_archive):
    recipe, tiles = Recipe.read(small_archive / "recipe.toml"), [national(small_archive)] * 8
    wide = choose_resources(tiles, recipe, range(2015, 2025), memory=64 * 10**9, processors=8)
    assert (wide.workers, wide.threads, wide.block_px) == (8, 1, 512)
    tight = choose_resources(tiles, recipe, range(2015, 2025), memory=3 * 10**9, processors=8)
    assert tight.workers * tight.threads < 9
    assert tight.block_px < 512
    assert tight.worker_bytes * tight.workers <= 3 * 10**9
    few = choose_resources(tiles[:2], recipe, range(2015, 2025), memory=64 * 10**9, processors=8)
    assert (few.workers, few.threads) == (2, 4)
    small = choose_resources(find_tiles(small_archive), recipe, [2020], processors=8)
    assert small.workers == 1
    with pytest.raises(InputRefused, match="does not do for 8 workers"):
        choose_resources(tiles, recipe, range(2015, 2025), memory=3 * 10**9, workers=8, threads=8)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.5:8786", "tcp://0.0.0.0:8786", "ws://head.example.org:80", "ucx://10.0.0.5:1"]
)
def test_a_scheduler_elsewhere_without_tls_is_refused(address):
    with pytest.raises(InputRefused, match="not on this machine and not encrypted"):
        _check_address(address, open_network=False)
    _check_address(address, open_network=True)


def test_a_scheduler_on_this_machine_or_with_tls_is_taken(tmp_path):
    for address in ("tls://10.0.0.5:8786", "tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"):
        _check_address(address, open_network=False)
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tcp://10.1.2.3:8786"}')
    with pytest.raises(InputRefused, match="not encrypted"):
        DaskWorkers(str(file), RESOURCES)
    for wrong in ("nowhere", str(tmp_path)):
        with pytest.raises(InputRefused, match="no scheduler file"):
            DaskWorkers(wrong, RESOURCES)
    file.write_text("no JSON")
    with pytest.raises(InputRefused, match="not a Dask scheduler file"):
        DaskWorkers(str(file), RESOURCES)
