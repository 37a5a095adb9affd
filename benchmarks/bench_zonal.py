"""Hectares per zone and class: geococa beside exactextract and rasterising by pixel centres.

Three families of polygons on one classified raster of 10 m cells in UTM 18N: parks (1,000 to 20,000 vertices), a few huge
ones (60,000 vertices), and thousands of plots. Every time includes setting up the polygons; geococa also measures each zone
and each cell on the ellipsoid, which the others do not. Run ``python -m benchmarks.bench_zonal [--full]`` in the checkout.
"""

from __future__ import annotations

import argparse
import time

import geopandas
import numpy as np
import shapely
import xarray as xr

from geococa import Grid, as_land_cover, coverage_fraction, zonal_area

CLASSES = ["coca", "forest", "secondary_forest", "pasture", "water"]


def rough_star(rng, vertices, x, y, radius):
    """Star-shaped polygon with a rough border on many scales."""
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    waves = 2.0 ** np.arange(1, 10)
    swing = np.sin(angle[:, None] * np.floor(waves) + rng.uniform(0, 6.28, waves.size)) / waves
    reach = radius * (0.75 + 0.3 * swing.sum(axis=1) + 0.003 * rng.normal(size=vertices))
    return shapely.make_valid(shapely.Polygon(np.c_[x + reach * np.cos(angle), y + reach * np.sin(angle)]))


def families(rng, cells, full):
    side = cells * 10
    west, south = 600000.0, 300000.0 - side

    def place(count, vertices, radius):
        middles = rng.uniform(0, 1, (count, 2)) * side + [west, south]
        return [rough_star(rng, int(n), x, y, r) for n, (x, y), r in zip(vertices, middles, radius, strict=True)]

    parks = 200 if full else 50
    plots = 20000 if full else 5000
    yield (
        "parks",
        place(parks, np.exp(rng.uniform(np.log(1e3), np.log(2e4), parks)), rng.uniform(0.03, 0.12, parks) * side),
    )
    yield "huge", place(4, [60000] * 4, [0.45 * side] * 4)
    yield "plots", place(plots, rng.integers(8, 40, plots), np.exp(rng.normal(np.log(60), 0.6, plots)))


def ours(zones, cover, grid, threads, area="ellipsoidal"):
    share = coverage_fraction(zones, grid, threads=threads, allow_outside=True)
    return zonal_area(cover, share, area=area, threads=threads).area_ha.values


def exactextract_ha(zones, cover, grid):
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    west, south, east, north = grid.bounds
    source = NumPyRasterSource(cover.values, west, south, east, north, nodata=255, srs_wkt=grid.crs.to_wkt())
    table = exact_extract(source, zones, ["count", "unique", "frac"], output="pandas")
    out = np.zeros((len(zones), len(CLASSES)))
    for row, (count, codes, shares) in enumerate(table.itertuples(index=False)):
        out[row, np.asarray(codes, int) - 1] = np.asarray(shares) * count * 0.01
    return out


def rasterized_ha(zones, cover, grid):
    from rasterio.features import geometry_window, rasterize
    from rasterio.transform import array_bounds  # noqa: F401  (imports GDAL before the clock starts)

    class Dataset:
        transform, height, width = grid.transform, *grid.shape
        shape = grid.shape

    out = np.zeros((len(zones), len(CLASSES)))
    for row, shape in enumerate(zones.geometry):
        try:
            window = geometry_window(Dataset, [shape])
        except Exception:
            continue
        r0, c0 = int(window.row_off), int(window.col_off)
        r1, c1 = r0 + int(window.height), c0 + int(window.width)
        part = grid.window(r0, r1, c0, c1)
        inside = rasterize([shape], out_shape=part.shape, transform=part.transform, dtype="uint8")
        out[row] = np.bincount(cover.values[r0:r1, c0:c1][inside == 1], minlength=256)[1 : len(CLASSES) + 1] * 0.01
    return out


def clock(function, *arguments, repeat=1):
    best, result = np.inf, None
    for _ in range(repeat):
        start = time.perf_counter()
        result = function(*arguments)
        best = min(best, time.perf_counter() - start)
    return best, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="a whole Sentinel-2 tile, 200 parks and 20,000 plots")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    cells = 10980 if options.full else 5000
    grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (cells, cells))
    labels = rng.integers(1, len(CLASSES) + 1, (cells // 10, cells // 10), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    speckle = rng.uniform(size=labels.shape) < 0.1
    labels[speckle] = rng.integers(1, len(CLASSES) + 1, int(speckle.sum()), dtype=np.uint8)
    cover = as_land_cover(grid.attach(xr.DataArray(labels, dims=("y", "x"))), CLASSES)
    warm = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(601000, 299000, 601500, 299500)], crs=grid.crs)
    ours(warm, cover, grid, 1)
    print(f"{cells} x {cells} cells, {len(CLASSES)} classes; seconds, best of 3 for geococa\n")
    print(
        "| family | zones | vertices | geococa 1 t | geococa 2 t | exactextract | ratio 1 t | ratio 2 t | pixel centres "
        "| max difference to exactextract, px | max error of pixel centres |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, shapes in families(rng, cells, options.full):
        zones = geopandas.GeoDataFrame({"zone": [str(n) for n in range(len(shapes))]}, geometry=shapes, crs=grid.crs)
        one, first = clock(ours, zones, cover, grid, 1, repeat=3)
        two, second = clock(ours, zones, cover, grid, 2, repeat=3)
        assert np.array_equal(first, second)
        planar = ours(zones, cover, grid, 1, "planar:EPSG:32618")
        theirs_s, theirs = clock(exactextract_ha, zones, cover, grid)
        centre_s, centre = clock(rasterized_ha, zones, cover, grid)
        gap = np.abs(planar - theirs).max() / 0.01
        assert gap < 1e-6 * max(1.0, planar.sum(axis=1).max() / 0.01), "geococa and exactextract disagree"
        total = planar.sum(axis=1)
        error = np.abs(centre.sum(axis=1) - total)[total > 0] / total[total > 0]
        vertices = int(shapely.get_num_coordinates(zones.geometry.values).sum())
        print(
            f"| {name} | {len(zones)} | {vertices} | {one:.3f} | {two:.3f} | {theirs_s:.2f} | {theirs_s / one:.0f}x "
            f"| {theirs_s / two:.0f}x | {centre_s:.2f} | {gap:.1e} | {error.max():.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
