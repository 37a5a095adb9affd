"""Zones on grids in any projection and posture: the cells' own sums, and the stated errors, against geodesics."""

from __future__ import annotations

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr
from affine import Affine

from geococa.areas import zonal_area
from geococa.cell_areas import cell_areas
from geococa.coverage import coverage_fraction
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import as_land_cover
from geococa.polygons import polygon_area_ha
from geococa.transforms import is_lonlat
from tests.oracles_areas import area_geod_ha, cell_area_geod_ha, polygonal, star, to_lonlat

AROUND = "+lat_0=4 +lon_0=-73 +datum=WGS84 +units=m +no_defs"
PROJECTIONS = {
    "sinusoidal": "+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs",
    "albers": f"+proj=aea +lat_1=-5 +lat_2=12 {AROUND}",
    "lambert conformal": f"+proj=lcc +lat_1=2 +lat_2=10 {AROUND}",
    "lambert azimuthal": f"+proj=laea {AROUND}",
    "azimuthal equidistant": f"+proj=aeqd {AROUND}",
    "oblique stereographic": f"+proj=sterea {AROUND}",
    "web mercator": "EPSG:3857",
    "transverse mercator in feet": "+proj=tmerc +lat_0=0 +lon_0=-75 +k=0.9996 +x_0=500000 +datum=WGS84 +units=us-ft +no_defs",
    "mollweide": "+proj=moll +lon_0=-73 +datum=WGS84 +units=m +no_defs",
    "degrees": "EPSG:4326",
    "utm 18n": "EPSG:32618",
}
NORTH = {"polar stereographic": "EPSG:3995", "polar azimuthal": "EPSG:3571", "europe equal area": "EPSG:3035"}
# column vector and row vector of a cell, in units of its side
POSTURES = {
    "north-up": (1, 0, 0, -1),
    "south-up": (1, 0, 0, 1),
    "east-left": (-1, 0, 0, -1),
    "non-square": (2.5, 0, 0, -0.8),
    "rotated": (np.cos(0.5), np.sin(0.5), np.sin(0.5), -np.cos(0.5)),
    "sheared": (1, 0.3, 0.1, -1.2),
    "rows run east": (0, 1, 1, 0),
}


def grid_around(crs, posture, lon, lat, reach_m, cell_m):
    """Grid whose middle is a place and that reaches some way in every direction."""
    crs = pyproj.CRS.from_user_input(crs)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    unit = 1 / 111_320 if crs.is_geographic else 1 / crs.axis_info[0].unit_conversion_factor
    a, b, d, e = (value * cell_m * unit for value in posture)
    across = int(2 * reach_m / (np.hypot(a, d) / unit)) + 1
    down = int(2 * reach_m / (np.hypot(b, e) / unit)) + 1
    return Grid(crs, (a, b, x - (a * across + b * down) / 2, d, e, y - (d * across + e * down) / 2), (down, across))


def zones_around(lon, lat):
    rng = np.random.default_rng(7)
    wide = 1 / np.cos(np.radians(lat))
    shapes = [polygonal(star(rng, 25, 0.08 * rng.normal(), 0.08 * rng.normal(), 0.12)) for _ in range(3)]
    shapes.append(polygonal(shapes[0].difference(star(rng, 9, *shapes[0].centroid.coords[0], 0.03))))
    moved = [shapely.transform(shape, lambda xy: xy * [wide, 1] + [lon, lat]) for shape in shapes]
    return geopandas.GeoDataFrame({"zone": list("abcd")}, geometry=moved, crs="EPSG:4326")


def raw_sums_ha(zones, grid):
    """Hectares from cells alone, before they are closed."""
    labels = grid.attach(xr.DataArray(np.ones(grid.shape, np.uint8), dims=("y", "x")))
    areas = zonal_area(as_land_cover(labels, ["coca"]), coverage_fraction(zones, grid))
    assert not areas.outside_ha.any()
    return areas.area_ha.values[:, 0] / areas.closure.values


@pytest.mark.parametrize("posture", POSTURES.values(), ids=POSTURES)
@pytest.mark.parametrize("crs", PROJECTIONS.values(), ids=PROJECTIONS)
def test_cells_sum_to_the_zones_in_every_projection_and_posture(crs, posture):
    zones = zones_around(-72.6, 2.3)
    expected = [area_geod_ha(shape, lambda x, y: (x, y), 0.0005) for shape in zones.geometry]
    grid = grid_around(crs, posture, -72.6, 2.3, 90_000, 250)
    np.testing.assert_allclose(raw_sums_ha(zones, grid), expected, rtol=1e-6)


@pytest.mark.parametrize("crs", NORTH.values(), ids=NORTH)
def test_cells_sum_to_the_zones_far_north(crs):
    zones = zones_around(15.0, 70.0)
    expected = [area_geod_ha(shape, lambda x, y: (x, y), 0.0002) for shape in zones.geometry]
    grid = grid_around(crs, POSTURES["rotated"], 15.0, 70.0, 90_000, 250)
    np.testing.assert_allclose(raw_sums_ha(zones, grid), expected, rtol=1e-6)


@pytest.mark.parametrize("crs", PROJECTIONS.values(), ids=PROJECTIONS)
def test_the_stated_error_is_small_and_no_cell_is_worse(crs):
    grid = grid_around(crs, POSTURES["sheared"], -72.6, 2.3, 50_000, 500)
    cells = cell_areas(grid.crs, grid.transform, grid.shape, (0, grid.shape[0]))
    assert cells.error < 1e-9
    table = np.broadcast_to(cells.expand(grid.shape[1]), grid.shape)
    for row, column in ((0, 0), (grid.shape[0] // 2, grid.shape[1] // 3), (grid.shape[0] - 1, grid.shape[1] - 1)):
        expected = cell_area_geod_ha(grid, row, column, pieces=40)
        # geographiclib's rings are good to some square centimetres of the 25 hectares here
        assert table[row, column] == pytest.approx(expected, rel=cells.error + 1e-8)


# CRS on another datum or ellipsoid, and a place where it is used
DATUMS = {
    "british grid": ("EPSG:27700", -2.0, 53.0),
    "borneo, oblique mercator": ("EPSG:29873", 114.0, 3.0),
    "bogota 1975": ("EPSG:4218", -73.0, 4.0),
    "bogota 1975, bogota zone": ("EPSG:21897", -73.0, 4.0),
    "osgb36, degrees": ("EPSG:4277", -2.0, 53.0),
    "nad27": ("EPSG:4267", -100.0, 40.0),
    "pulkovo 1942": ("EPSG:3834", 11.0, 52.6),
    "wisconsin in feet": ("EPSG:8146", -88.66, 45.03),
    "paris, grads": ("EPSG:4807", 2.5, 47.0),
    "hayford, no datum": ("+proj=utm +zone=18 +ellps=intl +units=m +no_defs", -72.6, 2.3),
    "sphere, transverse mercator": ("+proj=tmerc +lon_0=-75 +k=0.9996 +R=6371000 +units=m +no_defs", -72.6, 2.3),
    "oblique mercator, feet": (
        "+proj=omerc +lat_0=4 +lonc=-73 +alpha=30 +k=0.9999 +datum=WGS84 +units=us-ft +no_defs",
        -72.6,
        2.3,
    ),
}


@pytest.mark.parametrize("posture", ["south-up", "sheared", "rows run east"])
@pytest.mark.parametrize(("crs", "lon", "lat"), DATUMS.values(), ids=DATUMS)
def test_cells_on_other_datums_have_the_area_of_wgs84(crs, lon, lat, posture):
    """PROJ's own positions of the outline of a cell, on WGS84: the same shift of the datum as pyproj and geopandas take."""
    grid = grid_around(crs, POSTURES[posture], lon, lat, 9_000, 300)
    table = np.broadcast_to(grid.cell_area_ha(), grid.shape)
    for row, column in ((0, 0), (grid.shape[0] // 2, grid.shape[1] // 3), (grid.shape[0] - 1, grid.shape[1] - 1)):
        assert table[row, column] == pytest.approx(cell_area_geod_ha(grid, row, column, pieces=50), rel=1e-8)


@pytest.mark.parametrize(
    ("crs", "same"),
    [
        ("EPSG:4326", True),
        ("EPSG:4686", True),  # MAGNA-SIRGAS
        ("EPSG:4674", True),
        ("EPSG:4258", True),
        ("+proj=longlat +R=6371007.181", True),  # no datum: read as WGS84, as PROJ does
        ("EPSG:4277", False),  # 100 m away, but PROJ knows so in Great Britain only
        ("EPSG:4218", False),
        ("EPSG:4267", False),
        ("EPSG:4807", False),
        ("EPSG:32618", False),
    ],
)
def test_longitudes_of_another_datum_are_not_those_of_wgs84(crs, same):
    assert is_lonlat(pyproj.CRS.from_user_input(crs)) == same


def test_a_zone_on_another_datum_lies_where_geopandas_puts_it():
    zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(-2.02, 53.0, -2.0, 53.01)], crs="EPSG:4277")
    grid = Grid("EPSG:4326", (0.001, 0, -2.05, 0, -0.001, 53.03), (60, 60))
    there = zones.to_crs(4326)
    assert abs(there.total_bounds - zones.total_bounds).max() > 5e-4  # some 100 m
    expected = coverage_fraction(there, grid).dense().values
    np.testing.assert_allclose(coverage_fraction(zones, grid).dense().values, expected, atol=2e-5)


@pytest.mark.parametrize("crs", ["EPSG:4218", "EPSG:21897"])
def test_hectares_of_a_zone_do_not_depend_on_the_other_zones_of_its_file(crs):
    """PROJ has another shift of Bogota 1975 for the south-east, the middle and the north of Colombia."""
    corners = [(-73.5, 4.0), (-69.0, -3.0), (-77.0, 8.0), (-73.2, 4.1)]
    shapes = [shapely.box(x, y, x + 0.1, y + 0.1) for x, y in corners]
    if crs != "EPSG:4218":
        onto = pyproj.Transformer.from_crs("EPSG:4218", crs, always_xy=True).transform
        shapes = [shapely.transform(shape, lambda xy: np.c_[onto(xy[:, 0], xy[:, 1])]) for shape in shapes]
    alone = [polygon_area_ha(shape, crs) for shape in shapes]
    np.testing.assert_allclose(polygon_area_ha(shapes, crs), alone, rtol=1e-10)
    step = 1e-4 if crs == "EPSG:4218" else 20.0
    geodesic = [area_geod_ha(shape, to_lonlat(crs), step) for shape in shapes]
    np.testing.assert_allclose(alone, geodesic, rtol=1e-8)


def test_a_grid_over_the_cut_of_a_projection_is_refused():
    with pytest.raises(InputRefused, match="crop it"):
        cell_areas(
            pyproj.CRS.from_user_input("+proj=igh +lon_0=0 +datum=WGS84 +units=m"),
            Affine(50_000, 0, -6_000_000, 0, -50_000, 4_000_000),
            (160, 160),
            (0, 160),
        )
