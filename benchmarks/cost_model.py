"""Seconds and bytes of a tile, stage by stage: python -m benchmarks.cost_model.

Runs `geococa.run_tile` on simulated tiles with one thread, with a clock around each stage, and divides by what the stage's
work grows with: cells x dates x bands read, cells x years, files, zones. Seconds are processor seconds of one core, so that other work
on the machine cancels; codes are compiled before. Writes benchmarks/results/cost_model.json, from which
``docs/scaling.md``, `benchmarks.scheduler_simulation` and the plan of ``geococa run --dry-run`` take their figures.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.machine import machine_facts
from geococa import Recipe, find_tiles, pipeline, read_model, tile_features
from geococa.archive import train_model
from geococa.areas import zonal_area
from geococa.footprints import footprint_of
from geococa.run_folder import read_maps
from geococa.synthetic import landscape, write_archive
from geococa.zones import coverage_fraction, read_zones

RESULT = Path(__file__).parent / "results" / "cost_model.json"
STAGES = {
    "screen": [(pipeline, "screen_tile")],
    "read": [(tile_features, "open_tile")],
    "mask": [(tile_features, "clear_sky")],
    "reflectance": [(tile_features, "to_reflectance")],
    "composite": [(tile_features, "composite")],
    "features": [(tile_features, "spectral_features")],
    "classify and stabilise": [(pipeline, "land_cover_of")],
    "sieve": [(pipeline, "sieve")],
    "write": [(pipeline, "write_cog"), (pipeline, "_write_map"), (pipeline, "_write_layer")],
}


@contextlib.contextmanager
def clocks():
    """Processor seconds by stage; what a stage calls of another stage is taken off."""
    spent: dict[str, float] = defaultdict(float)
    local = threading.local()  # reading ahead has a thread of its own
    saved = []

    def timed(stage, function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            stack = local.__dict__.setdefault("stack", [])
            stack.append([stage, 0.0])
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - start
                _, inner = stack.pop()
                spent[stage] += took - inner
                if stack:
                    stack[-1][1] += took

        return wrapper

    for stage, places in STAGES.items():
        for module, name in places:
            if hasattr(module, name):
                saved.append((module, name, getattr(module, name)))
                setattr(module, name, timed(stage, getattr(module, name)))
    try:
        yield spent
    finally:
        for module, name, function in saved:
            setattr(module, name, function)


def prepare(side_m: float, years: int, dates: int, folder: Path) -> Path:
    """Simulated archive of one tile and a model, made unless they are there."""
    archive = folder / f"archive_{int(side_m)}_{years}_{dates}"
    if not archive.exists():
        span = range(2018, 2018 + years)
        scene = landscape(size_m=side_m, tiles=1, years=span, dates_per_year=dates, cloud_cover=0.4, seed=3)
        write_archive(scene, archive)
        text = (Path(__file__).parents[1] / "sample_tiles" / "recipe.toml").read_text(encoding="utf-8")
        (archive / "recipe.toml").write_text(text, encoding="utf-8")
    model = folder / "model.geococa"
    if not model.exists():
        train_model(archive, Recipe.read(archive / "recipe.toml")).write(model)
    return archive


def measure(archive: Path, folder: Path) -> dict:
    recipe = Recipe.read(archive / "recipe.toml")
    model = read_model(folder / "model.geococa")
    start = time.process_time()
    (tile,) = find_tiles(archive)
    found = time.process_time() - start
    rows, columns = tile.grid.shape
    if not (folder / "warm").exists():  # compiles
        pipeline.run_tile(tile, recipe, model, folder / "warm", threads=1)
    with clocks() as spent:
        start = time.process_time()
        made = pipeline.run_tile(tile, recipe, model, folder / f"maps_{archive.name}", threads=1)
        total = time.process_time() - start
    files = [file for scene in tile.scenes for file in {f.path for f in scene.files.values()}]
    needed = [scene.band_file(name) for scene in tile.scenes for name in (*recipe.bands_needed(), *scene.quality)]
    bytes_in = sum(Path(file.path).stat().st_size for file in needed)
    start = time.process_time()
    for file in needed:
        hashlib.file_digest(Path(file.path).open("rb"), "sha256")  # noqa: SIM115
    hashed = time.process_time() - start
    zones = read_zones(archive / "parks.gpkg", name="park")
    land_cover = read_maps(made.maps)
    start = time.process_time()
    footprint_of((land_cover.values != 255).any(axis=0), tile.grid)
    share = coverage_fraction(zones, tile.grid, allow_outside=True)
    covered = time.process_time() - start
    zonal_area(land_cover, share)
    start = time.process_time()
    zonal_area(land_cover, share)
    measured = time.process_time() - start
    out = [path for maps in (made.maps, made.observations, made.ages) for path in maps.values()]
    return {
        "cells": rows * columns,
        "years": len(made.years),
        "dates": len(tile.scenes),
        "bands": len(recipe.bands_needed()) + 1,
        "files": len(files),
        "zones": len(zones),
        "bytes_in": bytes_in,
        "bytes_out": sum(path.stat().st_size for path in out),
        "seconds": {"find": found, "total": total, **spent, "sha256": hashed, "coverage": covered, "areas": measured},
    }


def model_of(run: dict) -> dict:
    """Costs of one unit of what each stage grows with, from the larger tile."""
    cells, years, dates = run["cells"], run["years"], run["dates"]
    seconds = run["seconds"]
    per_date = cells * dates
    rest = seconds["total"] - sum(seconds[name] for name in STAGES if name in seconds)
    return {
        "seconds_per_file_found": seconds["find"] / run["files"],
        # offsets are checked on five windows of a tile, however large it is
        "seconds_per_scene_screened": seconds.get("screen", 0.0) / dates,
        "seconds_per_cell_and_date": {
            name: seconds.get(name, 0.0) / per_date for name in ("read", "mask", "reflectance", "composite")
        },
        "seconds_per_cell_and_year": {
            name: seconds.get(name, 0.0) / (cells * years)
            for name in ("features", "classify and stabilise", "sieve", "write")
        }
        | {"rest": max(rest, 0.0) / (cells * years)},
        "seconds_per_cell_measured_once": seconds["coverage"] / cells,
        "seconds_per_cell_and_year_measured": seconds["areas"] / (cells * years),
        "seconds_per_byte_hashed": seconds["sha256"] / run["bytes_in"],
        "bytes_in_per_cell_and_date": run["bytes_in"] / per_date,
        "bytes_out_per_cell_and_year": run["bytes_out"] / (cells * years),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=float, nargs="+", default=[1500.0, 4000.0], help="sides of tiles, metres")
    parser.add_argument("--years", type=int, default=4)
    parser.add_argument("--dates", type=int, default=8, help="dates a year")
    parser.add_argument("--folder", type=Path, help="folder that keeps the simulated archives")
    parser.add_argument("--prepare", action="store_true", help="make the archives only")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        archives = [prepare(side, given.years, given.dates, folder) for side in given.sides]
        if given.prepare:
            return
        runs = [measure(archive, folder) for archive in archives]
    found = {"machine": machine_facts(1), "runs": runs, "model": model_of(runs[-1])}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
