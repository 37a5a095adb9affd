"""Write the case files beside this one: areas by geographiclib (pyproj.Geod) along edges cut into short geodesics.

Run ``python -m tests.areas.make_cases`` in the checkout. Nothing of geococa is used, so that the cases can judge it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely

from tests.oracles_areas import area_geod_ha, ring_area_geod_m2, to_lonlat

HERE = Path(__file__).parent
SINUSOIDAL = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs"
ALBERS = "+proj=aea +lat_1=-5 +lat_2=12 +lat_0=4 +lon_0=-73 +datum=WGS84 +units=m +no_defs"
LAEA = "+proj=laea +lat_0=4 +lon_0=-73 +datum=WGS84 +units=m +no_defs"
LAMBERT = "+proj=lcc +lat_1=2 +lat_2=10 +lat_0=4 +lon_0=-73 +datum=WGS84 +units=m +no_defs"
EQUIDISTANT = "+proj=aeqd +lat_0=4 +lon_0=-73 +datum=WGS84 +units=m +no_defs"
FEET = "+proj=tmerc +lat_0=0 +lon_0=-75 +k=0.9996 +x_0=500000 +y_0=0 +datum=WGS84 +units=us-ft +no_defs"

# CRS, transform of (column, row) to x, y, shape
GRIDS = {
    "utm 18n, central meridian": ("EPSG:32618", (10, 0, 499000, 0, -10, 301000), (200, 200)),
    "utm 18n, true scale": ("EPSG:32618", (10, 0, 319000, 0, -10, 301000), (200, 200)),
    "utm 18n, zone edge": ("EPSG:32618", (10, 0, 166500, 0, -10, 201000), (200, 200)),
    "utm 18n, beyond the zone": ("EPSG:32618", (10, 0, 1050000, 0, -10, 151000), (200, 200)),
    "utm 17n": ("EPSG:32617", (30, 0, 780000, 0, -30, 190000), (100, 100)),
    "utm 19n": ("EPSG:32619", (30, 0, 200000, 0, -30, 690000), (100, 100)),
    "utm 18s": ("EPSG:32718", (30, 0, 700000, 0, -30, 9650000), (100, 100)),
    "utm 33n, north": ("EPSG:32633", (20, 0, 600000, 0, -20, 7500000), (100, 100)),
    "origen nacional, middle": ("EPSG:9377", (30, 0, 5000000, 0, -30, 2100000), (100, 100)),
    "origen nacional, tumaco": ("EPSG:9377", (30, 0, 4370000, 0, -30, 1750000), (100, 100)),
    "origen nacional, 67 w": ("EPSG:9377", (30, 0, 5660000, 0, -30, 1700000), (100, 100)),
    "bogota zone": ("EPSG:3116", (30, 0, 1000000, 0, -30, 1000000), (100, 100)),
    "bogota zone, far east": ("EPSG:3116", (30, 0, 1750000, 0, -30, 700000), (100, 100)),
    "web mercator, equator": ("EPSG:3857", (30, 0, -8200000, 0, -30, 1500), (100, 100)),
    "web mercator, 8 n": ("EPSG:3857", (30, 0, -8200000, 0, -30, 895000), (100, 100)),
    "web mercator, 60 n": ("EPSG:3857", (30, 0, 1000000, 0, -30, 8400000), (100, 100)),
    "degrees, equator": ("EPSG:4326", (0.001, 0, -72.05, 0, -0.001, 0.05), (100, 100)),
    "degrees, 12 n": ("EPSG:4326", (0.001, 0, -72.05, 0, -0.001, 12.05), (100, 100)),
    "degrees, one cell of 1 degree": ("EPSG:4326", (1, 0, -75, 0, -1, 1), (1, 1)),
    "degrees of magna-sirgas": ("EPSG:4686", (0.001, 0, -72.05, 0, -0.001, 4.05), (100, 100)),
    "degrees, south-up": ("EPSG:4326", (0.001, 0, -72.05, 0, 0.001, 4.05), (100, 100)),
    "degrees, rotated": ("EPSG:4326", (0.0008, 0.0006, -72.05, 0.0006, -0.0008, 4.05), (100, 100)),
    "modis sinusoidal": (SINUSOIDAL, (231.656358, 0, -8000000, 0, -231.656358, 500000), (40, 40)),
    "modis sinusoidal, 50 n": (SINUSOIDAL, (231.656358, 0, 800000, 0, -231.656358, 5600000), (40, 40)),
    "albers": (ALBERS, (30, 0, 200000, 0, -30, 100000), (100, 100)),
    "lambert equal area": (LAEA, (30, 0, 200000, 0, -30, 100000), (100, 100)),
    "lambert conformal": (LAMBERT, (30, 0, 300000, 0, -30, 100000), (100, 100)),
    "azimuthal equidistant": (EQUIDISTANT, (30, 0, 300000, 0, -30, 100000), (100, 100)),
    "polar stereographic at the pole": ("EPSG:3995", (100, 0, -5000, 0, -100, 5000), (100, 100)),
    "feet": (FEET, (100, 0, 1640000, 0, -100, 980000), (100, 100)),
    "utm 18n, south-up": ("EPSG:32618", (10, 0, 700000, 0, 10, 300000), (200, 200)),
    "utm 18n, rotated by 30 degrees": ("EPSG:32618", (8.660254, 5, 700000, 5, -8.660254, 300000), (200, 200)),
    "utm 18n, sheared": ("EPSG:32618", (10, 3, 700000, 1, -12, 300000), (200, 200)),
    "utm 18n, non-square": ("EPSG:32618", (20, 0, 700000, 0, -10, 300000), (200, 100)),
    "utm 18n, cells of 10 km": ("EPSG:32618", (10000, 0, 600000, 0, -10000, 500000), (6, 6)),
}

TRIANGLE = [(0.1, 0.2), (0.9, 0.35), (0.4, 0.95)]
RING = [(0.1, 0.1), (0.95, 0.2), (0.8, 0.9), (0.2, 0.8)]
HOLE = [(0.4, 0.4), (0.6, 0.45), (0.5, 0.7)]

# CRS and the frame (x, y, width, height) that the outline above is drawn in
FRAMES = {
    "plot of half a hectare, utm": ("EPSG:32618", (650000, 250000, 100, 100)),
    "park, utm": ("EPSG:32618", (650000, 250000, 60000, 45000)),
    "department, utm": ("EPSG:32618", (200000, 50000, 500000, 400000)),
    "park, utm 18s": ("EPSG:32718", (650000, 9700000, 60000, 45000)),
    "park, origen nacional": ("EPSG:9377", (4400000, 1700000, 60000, 45000)),
    "country, origen nacional": ("EPSG:9377", (4300000, 1100000, 1300000, 1500000)),
    "plot, degrees": ("EPSG:4326", (-74.1, 2.2, 0.001, 0.001)),
    "park, degrees": ("EPSG:4326", (-74.1, 2.2, 0.6, 0.5)),
    "country, degrees": ("EPSG:4326", (-78, -3, 10, 14)),
    "park, degrees, north": ("EPSG:4326", (20, 64, 2, 1)),
    "across the equator, degrees": ("EPSG:4326", (-70, -1, 2, 2)),
    "park, web mercator": ("EPSG:3857", (-8200000, 300000, 60000, 45000)),
    "park, sinusoidal": (SINUSOIDAL, (-8000000, 300000, 60000, 45000)),
    "park, albers": (ALBERS, (200000, 100000, 60000, 45000)),
    "park, lambert conformal": (LAMBERT, (200000, 100000, 60000, 45000)),
    "park, feet": (FEET, (1700000, 900000, 200000, 150000)),
}


def cell_cases():
    for name, (crs, transform, (rows, columns)) in GRIDS.items():
        a, b, c, d, e, f = transform
        side = np.linspace(0, 1, 2001)[:-1]
        zero, one = np.zeros(2000), np.ones(2000)
        across = columns * np.concatenate([side, one, 1 - side, zero])
        down = rows * np.concatenate([zero, side, one, 1 - side])
        lon, lat = to_lonlat(crs)(a * across + b * down + c, d * across + e * down + f)
        yield name, crs, transform, (rows, columns), None, ring_area_geod_m2(lon, lat) / 1e4


def polygon_cases():
    for name, (crs, (x, y, width, height)) in FRAMES.items():
        for kind, holes in (("triangle", None), ("ring", [HOLE])):
            outline = TRIANGLE if holes is None else RING
            scaled = [[(x + u * width, y + v * height) for u, v in points] for points in [outline, *(holes or [])]]
            shape = shapely.Polygon(scaled[0], scaled[1:])
            yield f"{name}, {kind}", crs, shape, area_geod_ha(shape, to_lonlat(crs), max(width, height) / 4000)


def main():
    lines = ["# Sum of the areas of all cells of a grid: outline of the grid cut into 8000 geodesics"]
    for name, crs, transform, shape, _, area in cell_cases():
        lines += [
            "",
            f"case {name}",
            f"grid {crs}",
            f"transform {' '.join(map(repr, transform))}",
            f"shape {shape[0]} {shape[1]}",
            f"expect {area:.12g} ha",
            "tolerance 2e-8",
        ]
    (HERE / "grids.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Area of polygons whose edges are straight in their own CRS: edges cut into some thousand geodesics"]
    for name, crs, shape, area in polygon_cases():
        lines += [
            "",
            f"case {name}",
            f"crs {crs}",
            f"polygon {shapely.to_wkt(shape, rounding_precision=9, trim=True)}",
            f"expect {area:.12g} ha",
            "tolerance 2e-8",
        ]
    (HERE / "polygons.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
