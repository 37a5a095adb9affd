"""Hectares per zone and class: geococa beside exactextract, rasterstats, xarray-spatial and rasterize + bincount.

Three families of polygons on one classified raster of 10 m cells in UTM 18N: 200 parks (1,000 to 20,000 vertices), 4 huge
ones (60,000 vertices), and 20,000 plots. Every time includes setting up the polygons; geococa also measures each zone
and each cell on the ellipsoid, which the others do not. All tools run in one process, in rounds that start with
another tool each time; wall and processor seconds are the least of the rounds. Compiling is done before. Agreement is
checked in the same run, in the plane that the others measure in.

Run ``python -m benchmarks.bench_zonal [--cells 10980]`` in the checkout; figures go to benchmarks/results/zonal.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import geopandas
import numpy as np
import shapely
import xarray as xr

from geococa import Grid, as_land_cover, coverage_fraction, zonal_area
from geococa.areas import zonal_statistics

CLASSES = ["coca", "forest", "secondary_forest", "pasture", "water"]
RESULTS = Path(__file__).parent / "results" / "zonal.json"
PLANE = "planar:EPSG:32618"
CELL_HA = 0.01


def rough_star(rng, vertices, x, y, radius):
    """Star-shaped polygon with a rough border on many scales."""
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    waves = 2.0 ** np.arange(1, 10)
    swing = np.sin(angle[:, None] * np.floor(waves) + rng.uniform(0, 6.28, waves.size)) / waves
    reach = radius * (0.75 + 0.3 * swing.sum(axis=1) + 0.003 * rng.normal(size=vertices))
    return shapely.make_valid(shapely.Polygon(np.c_[x + reach * np.cos(angle), y + reach * np.sin(angle)]))


def families(rng, cells, parks=200, plots=20_000):
    side = cells * 10
    west, south = 600000.0, 300000.0 - side

    def place(count, vertices, radius):
        middles = rng.uniform(0, 1, (count, 2)) * side + [west, south]
        return [rough_star(rng, int(n), x, y, r) for n, (x, y), r in zip(vertices, middles, radius, strict=True)]

    yield (
        "parks",
        place(parks, np.exp(rng.uniform(np.log(1e3), np.log(2e4), parks)), rng.uniform(0.03, 0.12, parks) * side),
    )
    yield "huge", place(4, [60000] * 4, [0.45 * side] * 4)
    yield "plots", place(plots, rng.integers(8, 40, plots), np.exp(rng.normal(np.log(60), 0.6, plots)))


def class_map(rng, grid):
    """Blocks of 10 x 10 cells of one class, a tenth of the cells drawn anew: hard on tools that like long runs."""
    rows, columns = grid.shape
    labels = rng.integers(1, len(CLASSES) + 1, (-(-rows // 10), -(-columns // 10)), dtype=np.uint8)
    labels = np.ascontiguousarray(labels.repeat(10, 0).repeat(10, 1)[:rows, :columns])
    for row in labels:
        speckle = rng.integers(0, 10, columns) == 0
        row[speckle] = rng.integers(1, len(CLASSES) + 1, int(speckle.sum()), dtype=np.uint8)
    return as_land_cover(grid.attach(xr.DataArray(labels, dims=("y", "x"))), CLASSES)


def geococa_ha(zones, cover, grid, threads=1, area="ellipsoidal"):
    share = coverage_fraction(zones, grid, threads=threads, allow_outside=True)
    return zonal_area(cover, share, area=area, threads=threads).area_ha.values


def exactextract_source(values, grid, **options):
    from exactextract.raster import NumPyRasterSource

    west, south, east, north = grid.bounds
    return NumPyRasterSource(values, west, south, east, north, srs_wkt=grid.crs.to_wkt(), **options)


def exactextract_ha(zones, cover, grid):
    from exactextract import exact_extract

    source = exactextract_source(cover.values, grid, nodata=255)
    table = exact_extract(source, zones, ["count", "unique", "frac"], output="pandas")
    out = np.zeros((len(zones), len(CLASSES)))
    for row, (count, codes, shares) in enumerate(table.itertuples(index=False)):
        out[row, np.asarray(codes, int) - 1] = np.asarray(shares) * count * CELL_HA
    return out


def rasterstats_ha(zones, cover, grid):
    import rasterstats

    found = rasterstats.zonal_stats(
        zones.geometry.values, cover.values, affine=grid.transform, nodata=255, categorical=True
    )
    return np.array([[row.get(code, 0) for code in range(1, len(CLASSES) + 1)] for row in found]) * CELL_HA


def xarray_spatial_ha(zones, cover, grid):
    """Its zones are a raster, so of overlapping zones only the last one counts."""
    from rasterio.features import rasterize
    from xrspatial import zonal

    pairs = zip(zones.geometry.values, range(1, len(zones) + 1), strict=True)
    burnt = rasterize(pairs, out_shape=grid.shape, transform=grid.transform, dtype="int32")
    table = zonal.crosstab(xr.DataArray(burnt), xr.DataArray(cover.values)).set_index("zone")
    table = table.drop(index=0, errors="ignore").reindex(columns=range(1, len(CLASSES) + 1), fill_value=0)
    out = np.zeros((len(zones), len(CLASSES)))
    out[table.index.to_numpy() - 1] = table.to_numpy() * CELL_HA
    return out


def rasterized_ha(zones, cover, grid):
    from rasterio.features import rasterize

    a, c, e, f = grid.transform.a, grid.transform.c, grid.transform.e, grid.transform.f
    out = np.zeros((len(zones), len(CLASSES)))
    west, south, east, north = zones.bounds.to_numpy().T
    first_column, last_column = np.floor((west - c) / a), np.ceil((east - c) / a)
    first_row, last_row = np.floor((north - f) / e), np.ceil((south - f) / e)
    edges = [np.clip(v, 0, n).astype(int) for v, n in zip((first_row, last_row), (grid.shape[0],) * 2, strict=True)]
    edges += [
        np.clip(v, 0, n).astype(int) for v, n in zip((first_column, last_column), (grid.shape[1],) * 2, strict=True)
    ]
    for row, (shape, r0, r1, c0, c1) in enumerate(zip(zones.geometry, *edges, strict=True)):
        if r0 >= r1 or c0 >= c1:
            continue
        part = grid.window(int(r0), int(r1), int(c0), int(c1))
        inside = rasterize([shape], out_shape=part.shape, transform=part.transform, dtype="uint8")
        counts = np.bincount(cover.values[r0:r1, c0:c1][inside == 1], minlength=256)
        out[row] = counts[1 : len(CLASSES) + 1] * CELL_HA
    return out


TOOLS = {
    "geococa, 1 thread": lambda *given: geococa_ha(*given, threads=1),
    "geococa, 2 threads": lambda *given: geococa_ha(*given, threads=2),
    "exactextract": exactextract_ha,
    "rasterstats": rasterstats_ha,
    "xarray-spatial": xarray_spatial_ha,
    "rasterize + bincount": rasterized_ha,
}
ONCE = ("rasterstats", "xarray-spatial", "rasterize + bincount")
"""Tools that run in the first round only: they are no rivals for exactness, and slow."""


def rounds(tools, arguments, count):
    """Least wall and processor seconds of each tool, and its result."""
    wall, work, results = dict.fromkeys(tools, np.inf), dict.fromkeys(tools, np.inf), {}
    names = list(tools)
    for number in range(count):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if number and name in ONCE:
                continue
            start, busy = time.perf_counter(), time.process_time()
            results[name] = tools[name](*arguments)
            wall[name] = min(wall[name], time.perf_counter() - start)
            work[name] = min(work[name], time.process_time() - busy)
    return wall, work, results


def worst(found, expected):
    """Largest difference of a zone's hectares per class, relative to the zone."""
    total = expected.sum(axis=1)
    kept = total > 0
    return float((np.abs(found - expected).max(axis=1)[kept] / total[kept]).max())


def compare(name, zones, cover, grid, count):
    wall, work, results = rounds(TOOLS, (zones, cover, grid), count)
    assert np.array_equal(results["geococa, 1 thread"], results["geococa, 2 threads"]), "threads change bytes"
    plane = geococa_ha(zones, cover, grid, area=PLANE)
    difference = {tool: worst(found, plane) for tool, found in results.items() if not tool.startswith("geococa")}
    assert difference["exactextract"] < 1e-5, "geococa and exactextract disagree"
    vertices = int(shapely.get_num_coordinates(zones.geometry.values).sum())
    print(f"\n{name}: {len(zones)} zones, {vertices} vertices")
    print("| tool | wall s | processor s | wall, geococa 1 thread | processor, geococa 1 thread | difference |")
    print("|---|---|---|---|---|---|")
    one = "geococa, 1 thread"
    for tool in TOOLS:
        gap = f"{difference[tool]:.1e}" if tool in difference else ""
        print(
            f"| {tool} | {wall[tool]:.3f} | {work[tool]:.3f} | {wall[tool] / wall[one]:.1f}x "
            f"| {work[tool] / work[one]:.1f}x | {gap} |",
            flush=True,
        )
    return {
        "zones": len(zones), "vertices": vertices, "wall_s": wall, "processor_s": work, "difference": difference,
    }  # fmt: skip


def compare_mean(zones, grid, count):
    """Mean of a continuous raster in the parks."""
    from exactextract import exact_extract

    rng = np.random.default_rng(1)
    values = rng.normal(size=grid.shape).astype(np.float32)
    array = grid.attach(xr.DataArray(values, dims=("y", "x")))

    def ours():
        share = coverage_fraction(zones, grid, allow_outside=True)
        return zonal_statistics(array, share, stats=["mean"])["mean"].to_numpy()

    def theirs():
        return exact_extract(exactextract_source(values, grid), zones, ["mean"], output="pandas")["mean"].to_numpy()

    wall, work, results = rounds({"geococa, 1 thread": ours, "exactextract": theirs}, (), count)
    gap = float(np.nanmax(np.abs(results["geococa, 1 thread"] - results["exactextract"].astype(float))))
    ratio = work["exactextract"] / work["geococa, 1 thread"]
    print(f"\nmean of a float32 raster in the parks: {wall}, processor {ratio:.1f}x, largest difference {gap:.1e}")
    return {"wall_s": wall, "processor_s": work, "difference": gap}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=5000, help="cells a side (a Sentinel-2 tile has 10980)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (options.cells, options.cells))
    cover = class_map(rng, grid)
    small = geopandas.GeoDataFrame(
        {"zone": ["a"]}, geometry=[shapely.box(600100, 299000, 600900, 299900)], crs=grid.crs
    )
    start = time.perf_counter()
    for tool in TOOLS.values():
        tool(small, cover.isel(y=slice(0, 200), x=slice(0, 200)), grid.window(0, 200, 0, 200))
    compiling = time.perf_counter() - start
    packages = ("geococa", "exactextract", "rasterstats", "xarray-spatial", "rasterio", "numba", "numpy", "shapely")
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {
            "processor": platform.processor() or platform.machine(), "processors": os.cpu_count(),
            "load": os.getloadavg(), "python": platform.python_version(),
        },
        "packages": {name: version(name) for name in packages},
        "cells": list(grid.shape), "rounds": options.rounds, "first_calls_s": compiling, "families": {},
    }  # fmt: skip
    print(f"{record['date']}, {record['machine']}, {options.cells} x {options.cells} cells, {options.rounds} rounds")
    print(f"first calls, with compiling: {compiling:.1f} s; difference: hectares of a class, relative to its zone")
    for name, shapes in families(rng, options.cells):
        zones = geopandas.GeoDataFrame({"zone": [str(n) for n in range(len(shapes))]}, geometry=shapes, crs=grid.crs)
        record["families"][name] = compare(name, zones, cover, grid, options.rounds)
        if name == "parks":
            record["mean_in_parks"] = compare_mean(zones, grid, 1)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
