"""What a run will take: plans with costs, and the simulation of many cores behind docs/scaling.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scheduler_simulation import Work, simulate, work_of
from geococa import Recipe, find_tiles
from geococa.run_costs import costs_of_machine, plan_columns, tile_cost
from tests.scene_files import write_scene

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def tile_of(folder, days, *, size=20):
    for day in days:
        write_scene(folder / "T", f"S2A_{day}", f"{day}T15:00:00Z", size=size)
    return find_tiles(folder)[0]


RECIPE = Recipe(features={"names": ["red", "nir", "swir16"]})


def test_costs_grow_with_cells_dates_and_years(tmp_path):
    one = tile_cost(tile_of(tmp_path / "a", ["2020-01-01"]), RECIPE, (2020,))
    more_dates = tile_cost(tile_of(tmp_path / "b", ["2020-01-01", "2020-02-01"]), RECIPE, (2020,))
    larger = tile_cost(tile_of(tmp_path / "c", ["2020-01-01"], size=40), RECIPE, (2020,))
    assert one.core_seconds < more_dates.core_seconds < 2 * one.core_seconds
    assert larger.write_bytes == pytest.approx(4 * one.write_bytes, rel=0.05)
    files = sorted((tmp_path / "a" / "T").rglob("*.tif"))
    assert one.read_bytes == sum(file.stat().st_size for file in files)
    outside = tile_cost(tile_of(tmp_path / "d", ["2020-01-01"]), RECIPE, (2021,))
    assert outside.read_bytes == 0
    assert set(plan_columns(find_tiles(tmp_path / "a")[0], RECIPE, (2020,), compute=False).values()) == {0}


def test_the_package_carries_the_costs_that_were_measured():
    measured = json.loads((RESULTS / "cost_model.json").read_text(encoding="utf-8"))
    assert costs_of_machine() == {"machine": measured["machine"], "model": measured["model"]}


def work(seconds, read, measured=0.0):
    return Work(np.asarray(seconds, float), np.asarray(read, float), 0.0, measured)


def test_the_simulation_agrees_with_what_can_be_worked_out_by_hand():
    # one core, nothing to wait for: the sum
    assert simulate(work([5, 7, 9], [0, 0, 0]), 1, 1.0, 0.0, 0.0)["hours"] == pytest.approx(21 / 3600)
    # as many cores as tasks: the longest
    assert simulate(work([5, 7, 9], [0, 0, 0]), 3, 1.0, 0.0, 0.0)["hours"] == pytest.approx(9 / 3600)
    # storage decides: all bytes over the bandwidth
    found = simulate(work([1, 1, 1, 1], [10, 10, 10, 10]), 4, 2.0, 0.0, 0.0)
    assert found["hours"] == pytest.approx(20 / 3600)
    assert found["storage_wait_share"] == pytest.approx(19 / 20)
    # two tasks read at once until the shorter is done, and the other one has the storage for itself
    assert simulate(work([0, 0], [4, 10]), 2, 2.0, 0.0, 0.0)["hours"] == pytest.approx(7 / 3600)
    # the scheduler hands out one task after the other
    assert simulate(work([1] * 10, [0] * 10), 10, 1.0, 3.0, 0.0)["hours"] == pytest.approx(31 / 3600)
    # measuring comes after the maps, in one process
    assert simulate(work([5, 5], [0, 0], 2.0), 2, 1.0, 0.0, 0.0)["hours"] == pytest.approx(9 / 3600)


def test_the_published_table_comes_from_the_recorded_figures():
    stored = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))
    model = json.loads((RESULTS / "cost_model.json").read_text(encoding="utf-8"))["model"]
    row = next(r for r in stored["runs"] if r["cores"] == 16 and r["case"].startswith("Colombia"))
    again = simulate(
        work_of(model, 120, 10, 30), 16, 0.5e9, stored["dask_seconds_per_task"], stored["ledger_seconds_per_tile"]
    )
    assert again["hours"] == pytest.approx(row["hours"], rel=1e-12)
    text = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert f"| 16 | {row['hours']:.1f} |" in text
