"""All departments and municipalities of Colombia on fine grids in six projections: the same hectares in each."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
import xarray as xr

from geococa.areas import zonal_area
from geococa.coverage import coverage_fraction
from geococa.grid import Grid
from geococa.legend import as_land_cover
from geococa.polygons import polygon_area_ha
from tests.oracles_areas import area_geod_ha, polygonal, to_lonlat

CRS = {
    "utm 18n": "EPSG:32618",
    "origen nacional": "EPSG:9377",
    "bogota zone": "EPSG:3116",
    "degrees": "EPSG:4326",
    "web mercator": "EPSG:3857",
    "modis": "+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs",
}
CELLS_DEG = {"30 m": 30 / 111_320, "0.001 degrees": 0.001}


def municipalities(shared_data):
    frame = geopandas.read_file(shared_data / "vectors" / "co_municipalities_dane2021_simplified.gpkg")
    frame["geometry"] = [polygonal(shape) for shape in shapely.make_valid(frame.geometry.values, method="structure")]
    return frame.rename(columns={"MPIO_CDPMP": "zone"})


def departments(shared_data):
    frame = geopandas.read_file(shared_data / "vectors" / "co_departments.geojson")
    return frame.rename(columns={"NOMBRE_DPT": "zone"})


def grid_over(zones, crs, cell_deg):
    """Grid that just holds some zones, in another CRS: the outline of their bounds, every side in 400 steps."""
    west, south, east, north = zones.total_bounds
    side = np.linspace(0, 1, 401)
    lon = np.concatenate(
        [west + side * (east - west), np.full(401, east), west + side * (east - west), np.full(401, west)]
    )
    lat = np.concatenate(
        [np.full(401, south), south + side * (north - south), np.full(401, north), south + side * (north - south)]
    )
    if crs == "EPSG:4326":
        x, y, cell = lon, lat, cell_deg
    else:
        import pyproj

        x, y = pyproj.Transformer.from_crs("EPSG:4326", pyproj.CRS.from_user_input(crs), always_xy=True).transform(
            lon, lat
        )
        cell = cell_deg * 111_320
    left, top = x.min() - 3 * cell, y.max() + 3 * cell
    shape = (int((top - y.min()) / cell) + 4, int((x.max() - left) / cell) + 4)
    return Grid(crs, (cell, 0, left, 0, -cell, top), shape)


def one_class(grid):
    """A map of one class, made block by block."""
    dask = pytest.importorskip("dask.array")
    labels = dask.full(grid.shape, 1, dtype=np.uint8, chunks=(256, -1))
    array = xr.DataArray(labels, dims=("y", "x"))
    return as_land_cover(grid.attach(array), ["coca"])


def geod_ha(zones, step):
    return np.array([area_geod_ha(shape, lambda x, y: (x, y), step) for shape in zones.geometry])


def worst_difference(zones, expected, crs, cell_deg):
    """Largest relative difference of the sums of cells, before they are closed, and of the zones' own hectares."""
    grid = grid_over(zones, crs, cell_deg)
    areas = zonal_area(one_class(grid), coverage_fraction(zones, grid, threads=2), threads=2)
    assert not areas.outside_ha.any()
    sums = areas.area_ha.values[:, 0] / areas.closure.values
    own = np.abs(areas.zone_ha.values / expected - 1).max()
    return float(np.abs(sums / expected - 1).max()), float(own)


@pytest.fixture(scope="module")
def bogota_and_around(shared_data):
    """The zones of a small window, cut from the country: a department, and municipalities beside one another."""
    zones = municipalities(shared_data)
    near = zones[zones.intersects(shapely.box(-74.35, 4.45, -74.05, 4.75))].reset_index(drop=True)
    return near, geod_ha(near, 0.0005)


@pytest.mark.parametrize("crs", CRS.values(), ids=CRS)
def test_some_municipalities_have_the_same_hectares_in_every_crs(bogota_and_around, crs):
    zones, expected = bogota_and_around
    assert len(zones) > 5
    sums, own = worst_difference(zones, expected, crs, CELLS_DEG["0.001 degrees"])
    assert sums < 1e-6
    assert own < 1e-8


@pytest.fixture(scope="module")
def country(shared_data):
    out = {}
    for name, read in (("departments", departments), ("municipalities", municipalities)):
        zones = read(shared_data)
        out[name] = (zones, geod_ha(zones, 0.0005))
    return out


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("cell", CELLS_DEG)
@pytest.mark.parametrize("crs", CRS.values(), ids=CRS)
@pytest.mark.parametrize(("name", "count"), [("departments", 33), ("municipalities", 1121)])
def test_the_country_has_the_same_hectares_in_every_crs(country, name, count, crs, cell):
    zones, expected = country[name]
    assert len(zones) == count
    sums, own = worst_difference(zones, expected, crs, CELLS_DEG[cell])
    assert sums < 1e-6
    assert own < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("crs", list(CRS.values())[:3], ids=list(CRS)[:3])
def test_zone_files_in_another_crs_keep_their_own_straight_edges(country, crs):
    """A zone file stored in a projection has its edges straight there: Geod follows them through PROJ."""
    zones, _ = country["departments"]
    moved = zones.to_crs(crs)
    expected = [area_geod_ha(shape, to_lonlat(crs), 50.0) for shape in moved.geometry]
    np.testing.assert_allclose(polygon_area_ha(moved.geometry.values, crs), expected, rtol=1e-7)
