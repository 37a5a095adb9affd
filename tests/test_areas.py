"""Hectares per zone and class: sums that close, true areas, blocks, threads, tiles, statistics, zone algebra."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.areas import (
    areas_table,
    merge_areas,
    observed_share,
    require_observed,
    zonal_area,
    zonal_statistics,
    zone_overlaps,
)
from geococa.coverage import coverage_fraction
from geococa.errors import GridMismatch, InputRefused, KindMismatch, ZoneError
from geococa.grid import Grid
from geococa.legend import Legend, as_land_cover
from geococa.ownership import own_tiles
from geococa.polygons import polygon_area_ha
from geococa.zone_hierarchy import roll_up
from tests.oracles_areas import area_geod_ha, class_areas_plain, polygonal, star, to_lonlat

CASES = Path(__file__).parent / "areas"
UTM = Grid("EPSG:32618", (30, 0, 600000, 0, -30, 300000), (60, 80))
CLASSES = ["coca", "forest", "pasture"]


def land_cover(grid, labels, times=None):
    dims = ("time", "y", "x") if labels.ndim == 3 else ("y", "x")
    array = xr.DataArray(labels.astype(np.uint8), dims=dims)
    if labels.ndim == 3:
        years = times or range(2019, 2019 + labels.shape[0])
        array = array.assign_coords(time=np.array([f"{year}-12-31" for year in years], "datetime64[ns]"))
    return as_land_cover(grid.attach(array), CLASSES)


def random_map(grid, seed=0, times=2):
    rng = np.random.default_rng(seed)
    return land_cover(grid, rng.choice([1, 2, 3, 255], (times, *grid.shape), p=[0.1, 0.5, 0.3, 0.1]))


def frame(shapes, crs="EPSG:32618", names=None):
    names = names or [f"park {number}" for number in range(len(shapes))]
    return geopandas.GeoDataFrame({"zone": names}, geometry=list(shapes), crs=crs)


@pytest.fixture(scope="module")
def parks():
    """Inside, over the edge, with a hole and two parts, smaller than a cell, two overlapping, outside."""
    rng = np.random.default_rng(4)
    first = star(rng, 20, 600900, 299300, 500)
    second = star(rng, 20, 602300, 298300, 700)
    third = polygonal(star(rng, 20, 601500, 299000, 600).difference(star(rng, 9, 601500, 299000, 200)))
    third = polygonal(third.union(shapely.box(600100, 298400, 600400, 298700)))
    tiny = shapely.box(601001, 299001, 601012, 299007)
    return frame([first, second, third, tiny, first.buffer(100), shapely.box(700000, 299000, 700900, 299900)])


# Sums ------------------------------------------------------------------------------------------------------------------


def test_classes_unobserved_and_outside_add_up_to_the_zone(parks):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM))
    total = areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha
    np.testing.assert_allclose(total, np.broadcast_to(areas.zone_ha, total.shape), rtol=1e-12)


def test_zone_area_is_that_of_the_polygon_on_the_ellipsoid(parks):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM))
    expected = [area_geod_ha(polygonal(shape), to_lonlat("EPSG:32618"), 5) for shape in parks.geometry]
    np.testing.assert_allclose(areas.zone_ha, expected, rtol=1e-6)


def test_classes_equal_a_plain_sum_over_polygon_intersections(parks):
    cover = random_map(UTM, times=1)
    share = coverage_fraction(parks, UTM)
    expected = class_areas_plain(cover.values[0], share.dense().values, UTM.cell_area_ha(), [1, 2, 3])
    areas = zonal_area(cover, share)
    np.testing.assert_allclose(areas.area_ha[0], expected, rtol=2e-7, atol=1e-12)


def test_every_zone_and_class_is_there_with_zero(parks):
    cover = land_cover(UTM, np.full((1, *UTM.shape), 2))
    areas = zonal_area(cover, coverage_fraction(parks, UTM))
    assert areas.zone.values.tolist() == parks["zone"].tolist()
    assert areas.land_cover.values.tolist() == CLASSES
    assert float(areas.area_ha.sel(land_cover="coca").sum()) == 0.0


def test_a_zone_off_the_map_is_all_outside(parks):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM)).sel(zone="park 5")
    assert np.array_equal(areas.outside_ha, np.full(2, float(areas.zone_ha)))


def test_a_zone_on_the_map_has_nothing_outside(parks):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM))
    assert (areas.outside_ha.sel(zone=["park 0", "park 2", "park 3"]) == 0).all()
    assert (areas.outside_ha.sel(zone="park 1") > 1).all()


def test_outside_is_the_polygon_beyond_the_raster(parks):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM))
    beyond = polygonal(parks.geometry[1].difference(shapely.box(*UTM.bounds)))
    assert float(areas.outside_ha.sel(zone="park 1")[0]) == pytest.approx(polygon_area_ha(beyond, UTM.crs), rel=1e-9)


def test_unobserved_cells_are_no_class(parks):
    areas = zonal_area(land_cover(UTM, np.full(UTM.shape, 255)), coverage_fraction(parks, UTM))
    assert float(areas.area_ha.sum()) == 0.0
    assert float(areas.unobserved_ha.sel(zone="park 0")) == pytest.approx(
        float(areas.zone_ha.sel(zone="park 0")), rel=1e-12
    )


def test_code_zero_is_unclassified_where_it_occurs(parks):
    labels = np.full((1, *UTM.shape), 2)
    labels[0, :, :40] = 0
    cover = land_cover(UTM, np.where(labels == 0, 1, labels))
    cover.values[:] = labels
    areas = zonal_area(cover, coverage_fraction(parks, UTM))
    assert areas.land_cover.values.tolist() == ["unclassified", *CLASSES]


def test_a_code_without_a_name_is_refused(parks):
    cover = random_map(UTM)
    cover.values[0, 30:, :] = 77
    with pytest.raises(InputRefused, match="77"):
        zonal_area(cover, coverage_fraction(parks, UTM))


def test_a_code_without_a_name_outside_all_zones_does_not_matter():
    cover = random_map(UTM)
    cover.values[:, 50:, :] = 77
    park = frame([shapely.box(600000, 299000, 600500, 299500)])
    assert zonal_area(cover, coverage_fraction(park, UTM)).sizes["zone"] == 1


def test_a_map_without_time_gives_areas_without_time(parks):
    cover = random_map(UTM)
    share = coverage_fraction(parks, UTM)
    first = zonal_area(cover.isel(time=0, drop=True), share)
    assert "time" not in first.dims
    np.testing.assert_array_equal(first.area_ha, zonal_area(cover, share).area_ha[0])


def test_the_input_is_left_alone(parks):
    cover = random_map(UTM)
    before = cover.copy(deep=True)
    zonal_area(cover, coverage_fraction(parks, UTM))
    xr.testing.assert_identical(cover, before)


def test_a_map_on_another_grid_is_refused(parks):
    with pytest.raises(GridMismatch, match="grid"):
        zonal_area(random_map(UTM.window(0, 10, 0, 10)), coverage_fraction(parks, UTM))


def test_other_products_are_refused(parks):
    share = coverage_fraction(parks, UTM)
    with pytest.raises(KindMismatch, match="land_cover"):
        zonal_area(random_map(UTM).assign_attrs(kind="probability"), share)
    with pytest.raises(KindMismatch, match="uint8"):
        zonal_area(random_map(UTM).astype("int32"), share)


# The same whatever the blocks, threads and tiles ---------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_do_not_change_a_bit(parks, threads):
    cover = random_map(UTM)
    one = zonal_area(cover, coverage_fraction(parks, UTM))
    many = zonal_area(cover, coverage_fraction(parks, UTM, threads=threads), threads=threads)
    xr.testing.assert_identical(one, many)


@pytest.mark.parametrize("chunks", [{"y": 7, "x": 80}, {"y": 60, "x": 13}, {"time": 1, "y": 1, "x": 80}])
def test_chunks_do_not_change_a_bit(parks, chunks):
    pytest.importorskip("dask")
    cover = random_map(UTM)
    share = coverage_fraction(parks, UTM)
    xr.testing.assert_identical(zonal_area(cover, share), zonal_area(cover.chunk(chunks), share))


def tiled(grid, cover, parts, overlap):
    """Cut a map into tiles that overlap by some cells."""
    rows, columns = grid.shape
    edges_r, edges_c = (np.linspace(0, n, parts + 1).astype(int) for n in (rows, columns))
    tiles = {}
    for i in range(parts):
        for j in range(parts):
            window = (
                max(edges_r[i] - overlap, 0), min(edges_r[i + 1] + overlap, rows),
                max(edges_c[j] - overlap, 0), min(edges_c[j + 1] + overlap, columns),
            )  # fmt: skip
            r0, r1, c0, c1 = map(int, window)
            tiles[f"tile-{i}{j}"] = (grid.window(r0, r1, c0, c1), cover[:, r0:r1, c0:c1])
    return tiles


def areas_over(tiles, zones, order=None, priority=None):
    owners = own_tiles({name: grid for name, (grid, _) in tiles.items()}, priority=priority).set_index("tile")
    parts = []
    for name in order or list(tiles):
        grid, cover = tiles[name]
        share = coverage_fraction(zones, grid, owned=owners.geometry[name], allow_outside=True)
        parts.append(zonal_area(cover, share))
    return merge_areas(parts, zones)


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:4326"])
def test_overlapping_tiles_give_the_hectares_of_the_whole(parks, parts, crs):
    cover = random_map(UTM)
    zones = parks.to_crs(crs)
    whole = zonal_area(cover, coverage_fraction(zones, UTM))
    merged = areas_over(tiled(UTM, cover, parts, overlap=4), zones)
    np.testing.assert_allclose(merged.area_ha, whole.area_ha, rtol=1e-9, atol=1e-9)
    # the edge of the raster is followed in longitude and latitude to 1e-9 of the raster
    np.testing.assert_allclose(merged.outside_ha, whole.outside_ha, rtol=1e-9, atol=1e-9 * UTM.cell_area_ha().sum())


@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:4326"])
def test_one_four_and_64_tiles_in_any_order_and_with_any_threads_agree(parks, crs):
    """Counts of cells are equal, hectares to 1e-9; the order of tiles and the threads change no bit."""
    cover = random_map(UTM)
    zones = parks.to_crs(crs)
    one = areas_over(tiled(UTM, cover, 1, overlap=0), zones)
    seen = cover.isel(time=0, drop=True).where(cover.isel(time=0, drop=True) < 255)
    count = zonal_statistics(seen, coverage_fraction(zones, UTM), stats=["count"])["count"]
    for parts in (2, 8):
        tiles = tiled(UTM, cover, parts, overlap=3)
        owners = own_tiles({name: grid for name, (grid, _) in tiles.items()}).set_index("tile").geometry
        total, results = 0.0, {}
        for number, (name, (grid, labels)) in enumerate(tiles.items()):
            threads = 1 + number % 8
            share = coverage_fraction(zones, grid, owned=owners[name], allow_outside=True, threads=threads)
            results[name] = zonal_area(labels, share, threads=threads)
            alone = labels.isel(time=0, drop=True)
            total = total + zonal_statistics(alone.where(alone < 255), share, stats=["count"])["count"]
        np.testing.assert_allclose(total, count, rtol=1e-13, atol=1e-12)
        first = merge_areas(list(results.values()), zones)
        np.testing.assert_allclose(first.area_ha, one.area_ha, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(first.unobserved_ha, one.unobserved_ha, rtol=1e-11, atol=1e-12)
        for seed in range(5):
            order = np.random.default_rng(seed).permutation(list(results))
            xr.testing.assert_identical(first, merge_areas([results[name] for name in order], zones))


def test_each_tile_by_itself_is_closed_to_its_own_ground(parks):
    """Users who add up the tiles themselves are off by what a border cell's even spread leaves: below 1e-8 here."""
    cover = random_map(UTM)
    whole = zonal_area(cover, coverage_fraction(parks, UTM))
    tiles = tiled(UTM, cover, 4, overlap=3)
    owners = own_tiles({name: grid for name, (grid, _) in tiles.items()}).set_index("tile").geometry
    total = sum(
        zonal_area(labels, coverage_fraction(parks, grid, owned=owners[name], allow_outside=True)).area_ha
        for name, (grid, labels) in tiles.items()
    )
    np.testing.assert_allclose(total, whole.area_ha, rtol=1e-8, atol=1e-9)


def test_a_mosaic_of_three_crs_gives_the_hectares_of_one_seamless_raster():
    """A landscape of discs drawn at cell centres on overlapping tiles in two UTM zones and one geographic grid.

    No map is resampled, so a class differs only where a cell straddles the edge of a disc: a cell counts wrong by at most
    its own area, and the edge of perimeter P crosses at most 2 sqrt(2) P / s + 4 cells of side s. The two maps together
    differ by at most the sum of these bounds; the totals of all classes, and park plus rest, agree to 1e-9.
    """
    discs = [(-72.08, 2.03, 5.0), (-71.95, 1.95, 7.0), (-72.0, 2.09, 3.0)]

    def labels(lon, lat):
        inside = [np.hypot((lon - x) * 111.3, (lat - y) * 110.6) < r for x, y, r in discs]
        return np.where(np.any(inside, axis=0), 1, 2)[None]

    def drawn(grid):
        x, y = np.meshgrid(grid.coordinates()["x"], grid.coordinates()["y"])
        return grid, land_cover(grid, labels(*to_lonlat(grid.crs)(x, y)))

    park = shapely.box(-72.12, 1.9, -71.9, 2.12)
    tiles = {
        "a": drawn(Grid("EPSG:32618", (100, 0, 805000, 0, -100, 240000), (380, 320))),
        "b": drawn(Grid("EPSG:32619", (100, 0, 165000, 0, -100, 240000), (380, 320))),
        "c": drawn(Grid("EPSG:4326", (0.001, 0, -72.01, 0, -0.001, 2.2), (400, 50))),
    }
    owned = own_tiles({name: grid for name, (grid, _) in tiles.items()})
    footprint = shapely.union_all(owned.geometry.values)
    zones = frame([park, polygonal(footprint.difference(park))], crs="EPSG:4326", names=["park", "rest"])
    mosaic = areas_over(tiles, zones)
    seamless_grid, seamless = drawn(Grid("EPSG:4326", (0.001, 0, -72.4, 0, -0.001, 2.3), (600, 800)))
    whole = zonal_area(seamless, coverage_fraction(zones, seamless_grid))
    bound = 2 * sum((2 * np.sqrt(2) * 2 * np.pi * r * 1000 / 100 + 4) * 1.25 for _, _, r in discs)
    apart = np.abs(mosaic.area_ha - whole.area_ha)
    assert float(apart.max()) < bound
    # cell centres are drawn without bias: in fact far nearer
    assert float(apart.max()) < 0.02 * bound
    np.testing.assert_allclose(mosaic.area_ha.sum("land_cover")[0], whole.area_ha.sum("land_cover")[0], rtol=1e-9)
    total = float(mosaic.area_ha.sum())
    assert total == pytest.approx(polygon_area_ha(owned.geometry.values, "EPSG:4326").sum(), rel=1e-9)


def test_departments_add_up_to_their_country(parks):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM))
    zones = parks.assign(department=["Meta", "Meta", "Guaviare", None, "Meta", "Guaviare"])
    total = roll_up(areas, zones, parent="department")
    assert total.zone.values.tolist() == ["Guaviare", "Meta", "(none)"]
    assert total.zones.values.tolist() == [2, 3, 1]
    np.testing.assert_allclose(total.area_ha.sum("zone"), areas.area_ha.sum("zone"), rtol=1e-12)
    meta = areas.sel(zone=["park 0", "park 1", "park 4"]).sum("zone")
    np.testing.assert_allclose(total.area_ha.sel(zone="Meta"), meta.area_ha, rtol=1e-12)
    table = areas_table(total)
    sums = table.groupby(["zone", "year"]).agg(
        a=("area_ha", "sum"), u=("unobserved_ha", "first"), o=("outside_ha", "first"), z=("zone_ha", "first")
    )
    np.testing.assert_allclose(sums.a + sums.u + sums.o, sums.z, rtol=1e-12)
    with pytest.raises(ZoneError, match="assign_parents"):
        roll_up(areas, parks)
    with pytest.raises(ZoneError, match="park 5"):
        roll_up(areas, zones[:5], parent="department")


def test_merged_tables_close(parks):
    merged = areas_over(tiled(UTM, random_map(UTM), 3, overlap=6), parks)
    total = merged.area_ha.sum("land_cover") + merged.unobserved_ha + merged.outside_ha
    np.testing.assert_allclose(total, np.broadcast_to(merged.zone_ha, total.shape), rtol=1e-9)


def test_the_order_of_tiles_does_not_change_a_bit(parks):
    tiles = tiled(UTM, random_map(UTM), 3, overlap=6)
    one = areas_over(tiles, parks)
    for seed in range(4):
        order = list(np.random.default_rng(seed).permutation(list(tiles)))
        xr.testing.assert_identical(one, areas_over(tiles, parks, order))


def test_tiles_counted_twice_are_refused(parks):
    cover = random_map(UTM)
    twice = zonal_area(cover, coverage_fraction(parks, UTM))
    with pytest.raises(InputRefused, match="own_tiles"):
        merge_areas([twice, twice], parks)


def test_areas_measured_differently_are_not_added(parks):
    share = coverage_fraction(parks, UTM)
    parts = [zonal_area(random_map(UTM), share), zonal_area(random_map(UTM), share, area="planar:EPSG:32618")]
    with pytest.raises(InputRefused, match="different ways"):
        merge_areas(parts, parks)


def test_merged_areas_say_how_they_were_measured(parks):
    part = zonal_area(random_map(UTM), coverage_fraction(parks, UTM), area="planar:EPSG:32618")
    bare = part.copy()
    bare.attrs = {}
    for merged in (merge_areas([part], parks), merge_areas([bare], parks, area="planar:EPSG:32618")):
        assert merged.attrs == part.attrs
        np.testing.assert_allclose(merged.zone_ha, part.zone_ha, rtol=1e-12)


def test_a_year_that_a_tile_lacks_counts_as_outside(parks):
    tiles = tiled(UTM, random_map(UTM), 2, overlap=0)
    owners = own_tiles({name: grid for name, (grid, _) in tiles.items()}).set_index("tile").geometry
    parts = []
    for number, (name, (grid, cover)) in enumerate(tiles.items()):
        share = coverage_fraction(parks, grid, owned=owners[name], allow_outside=True)
        parts.append(zonal_area(cover if number else cover.isel(time=[0]), share))
    merged = merge_areas(parts, parks)
    assert float((merged.outside_ha[1] - merged.outside_ha[0] + 1e-9 * merged.zone_ha).min()) >= 0
    assert float(merged.outside_ha[1].sum()) > float(merged.outside_ha[0].sum()) + 1


def test_two_utm_zones_and_degrees_give_the_same_park():
    """An analytic field drawn on three grids in three CRSs with overlap: totals within 0.1 % of the truth."""

    def coca(lon, lat):
        return np.hypot((lon + 72.0) * 111.3, (lat - 2.0) * 110.6) < 9.0

    park = frame([shapely.box(-72.2, 1.85, -71.8, 2.15)], crs="EPSG:4326")
    tiles = {}
    for name, crs, transform, shape in (
        ("a", "EPSG:32618", (50, 0, 805000, 0, -50, 240000), (760, 640)),
        ("b", "EPSG:32619", (50, 0, 165000, 0, -50, 240000), (760, 640)),
        ("c", "EPSG:4326", (0.0005, 0, -72.01, 0, -0.0005, 2.2), (800, 100)),
    ):
        grid = Grid(crs, transform, shape)
        x, y = np.meshgrid(grid.coordinates()["x"], grid.coordinates()["y"])
        lon, lat = to_lonlat(crs)(x, y)
        tiles[name] = (grid, land_cover(grid, np.where(coca(lon, lat), 1, 2)[None]))
    lon, lat = np.meshgrid(np.linspace(-72.2, -71.8, 4001)[:-1] + 5e-5, np.linspace(1.85, 2.15, 3001)[:-1] + 5e-5)
    cells = Grid("EPSG:4326", (1e-4, 0, -72.2, 0, 1e-4, 1.85), (3000, 4000)).cell_area_ha()
    truth = float((coca(lon, lat) * cells).sum())
    for priority in (None, ["b"], ["c", "b"]):
        merged = areas_over(tiles, park, priority=priority)
        assert float(merged.area_ha.sel(land_cover="coca")[0, 0]) == pytest.approx(truth, rel=1e-3)
        assert float(merged.outside_ha[0, 0]) == pytest.approx(0.0, abs=1e-6 * float(merged.zone_ha[0]))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_cutting_a_zone_in_two_cuts_its_hectares_in_two(seed):
    rng = np.random.default_rng(seed)
    shape = star(rng, 15, 601200, 299100, 800)
    line = shapely.box(600000, 290000, rng.uniform(600700, 601700), 301000)
    pieces = frame([shape, polygonal(shape.intersection(line)), polygonal(shape.difference(line))])
    areas = zonal_area(random_map(UTM, seed), coverage_fraction(pieces, UTM))
    # a cell that the cut parts gives its even share to both
    np.testing.assert_allclose(areas.area_ha[:, 0], areas.area_ha[:, 1] + areas.area_ha[:, 2], rtol=1e-6, atol=1e-9)


# True areas in any CRS ------------------------------------------------------------------------------------------------------

COUNTRY = {
    "degrees": ("EPSG:4326", (0.01, 0, -82, 0, -0.01, 14), (1900, 1600)),
    "utm 18n": ("EPSG:32618", (1000, 0, -500000, 0, -1000, 1700000), (2400, 2200)),
    "origen nacional": ("EPSG:9377", (1000, 0, 4000000, 0, -1000, 3200000), (2200, 1900)),
    "bogota zone": ("EPSG:3116", (1000, 0, 0, 0, -1000, 2200000), (2600, 2200)),
    "web mercator": ("EPSG:3857", (1000, 0, -9200000, 0, -1000, 1700000), (2400, 2000)),
    "modis": ("+proj=sinu +R=6371007.181 +units=m +no_defs", (926.625, 0, -9.2e6, 0, -926.625, 1.6e6), (2400, 2000)),
}


@pytest.fixture(scope="module")
def departments(shared_data):
    frame = geopandas.read_file(shared_data / "vectors" / "co_departments.geojson")
    return frame.rename(columns={"NOMBRE_DPT": "zone"})


@pytest.fixture(scope="module")
def departments_ha(departments):
    return np.array([area_geod_ha(shape, lambda x, y: (x, y), 0.0005) for shape in departments.geometry])


def test_departments_equal_geodesics_on_densified_edges(departments, departments_ha):
    np.testing.assert_allclose(polygon_area_ha(departments.geometry.values, departments.crs), departments_ha, rtol=1e-9)


@pytest.mark.parametrize("name", COUNTRY)
def test_departments_on_a_map_have_the_same_hectares_in_every_crs(departments, departments_ha, name):
    crs, transform, shape = COUNTRY[name]
    grid = Grid(crs, transform, shape)
    share = coverage_fraction(departments, grid)
    areas = zonal_area(land_cover(grid, np.ones(shape)), share)
    np.testing.assert_allclose(areas.area_ha.sel(land_cover="coca"), departments_ha, rtol=1e-6)
    # before the sums are closed, cells of one kilometre are less than 1e-6 away
    assert float(np.abs(areas.closure - 1).max()) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTRY)
def test_municipalities_on_a_map_have_the_same_hectares_in_every_crs(shared_data, name):
    frame = geopandas.read_file(shared_data / "vectors" / "co_municipalities_dane2021_simplified.gpkg")
    zones = frame.rename(columns={"MPIO_CDPMP": "zone"})
    zones["geometry"] = [polygonal(shape) for shape in shapely.make_valid(zones.geometry.values, method="structure")]
    crs, transform, shape = COUNTRY[name]
    step = 2
    grid = Grid(
        crs, tuple(v / step if i in (0, 4) else v for i, v in enumerate(transform)), (shape[0] * step, shape[1] * step)
    )
    share = coverage_fraction(zones, grid, threads=2)
    areas = zonal_area(land_cover(grid, np.ones(grid.shape)), share)
    on_map = areas.outside_ha.values == 0
    expected = np.array([area_geod_ha(shape, lambda x, y: (x, y), 0.001) for shape in zones.geometry[on_map]])
    np.testing.assert_allclose(areas.area_ha.sel(land_cover="coca")[on_map], expected, rtol=1e-6)
    assert on_map.sum() > 1100
    assert float(np.abs(areas.closure - 1)[on_map].max()) < 2e-6


def test_planar_areas_are_those_of_the_map_plane(parks):
    share = coverage_fraction(parks, UTM)
    areas = zonal_area(random_map(UTM), share, area="planar:EPSG:32618")
    np.testing.assert_allclose(areas.zone_ha, parks.area / 1e4, rtol=1e-12)
    assert "not true areas" in areas.attrs["surface"]
    assert areas.attrs["area"] == "planar:EPSG:32618"


def test_planar_areas_in_another_plane_than_the_map(parks):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM), area="planar:EPSG:9377")
    np.testing.assert_allclose(areas.zone_ha, parks.to_crs("EPSG:9377").area / 1e4, rtol=1e-6)
    total = areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha
    np.testing.assert_allclose(total, np.broadcast_to(areas.zone_ha, total.shape), rtol=1e-12)


def test_planar_utm_is_two_percent_off_at_67_west():
    park = frame([shapely.box(-67.1, 1.0, -67.0, 1.1)], crs="EPSG:4326")
    true = polygon_area_ha(park.geometry.values, park.crs)[0]
    assert polygon_area_ha(park.geometry.values, park.crs, area="planar:EPSG:32618")[0] / true == pytest.approx(
        1.019, abs=0.001
    )


def read_cases(name):
    cases, case = [], {}
    for line in (CASES / name).read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == "case":
            case = {"case": value}
            cases.append(case)
        elif key and not line.startswith("#"):
            case[key] = value
    return cases


@pytest.mark.parametrize("case", read_cases("grids.txt"), ids=lambda case: case["case"])
def test_grid_case(case):
    grid = Grid(
        case["grid"], [float(v) for v in case["transform"].split()], tuple(int(v) for v in case["shape"].split())
    )
    area = np.broadcast_to(grid.cell_area_ha(), grid.shape).sum()
    assert area == pytest.approx(float(case["expect"].split()[0]), rel=float(case["tolerance"]))


@pytest.mark.parametrize("case", read_cases("polygons.txt"), ids=lambda case: case["case"])
def test_polygon_case(case):
    area = polygon_area_ha(shapely.from_wkt(case["polygon"]), case["crs"])
    # Geod sums each ring to some square centimetres
    assert area == pytest.approx(float(case["expect"].split()[0]), rel=float(case["tolerance"]), abs=2e-5)


def test_geographiclib_cases(shared_data):
    """Their edges are geodesics: cut into short pieces, those of longitude and latitude, or of a plane, agree with them."""
    cases = json.loads((shared_data / "cases" / "geodesic_area.json").read_text())["cases"]
    assert len(cases) == 3
    geod = pyproj.Geod(ellps="WGS84")
    polar = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3995", always_xy=True)
    for case in cases:
        lat, lon = np.array(case["latlon"], float).T
        ring = []
        for i in range(lat.size):
            j = (i + 1) % lat.size
            between = geod.npts(lon[i], lat[i], lon[j], lat[j], 2000)
            ring += [(lon[i], lat[i]), *between]
        if abs(lat).max() < 88:  # else around the pole, which no ring of longitudes and latitudes goes round
            area_m2 = polygon_area_ha(shapely.Polygon(ring), "EPSG:4326") * 1e4
            assert area_m2 == pytest.approx(case["area_m2"], rel=1e-9)
        around = shapely.Polygon(np.c_[polar.transform(*np.array(ring).T)])
        assert polygon_area_ha(around, "EPSG:3995") * 1e4 == pytest.approx(case["area_m2"], rel=1e-8)


# Audit and tables -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def areas(parks):
    labels = random_map(UTM).values.copy()
    labels[1, :, :50] = 255
    return zonal_area(land_cover(UTM, labels), coverage_fraction(parks, UTM))


def test_observed_share_is_classes_over_zone(areas):
    seen = observed_share(areas)
    np.testing.assert_allclose(seen, 1 - (areas.unobserved_ha + areas.outside_ha) / areas.zone_ha, atol=1e-12)


def test_a_zone_seen_whole_has_the_share_one(parks):
    grid = Grid("EPSG:32618", (30, 0, 500000, 0, -30, 300000), (200, 200))
    rng = np.random.default_rng(5)
    shapes = [polygonal(star(rng, 9, 503000, 297000, 2500)) for _ in range(60)]
    labels = grid.attach(xr.DataArray(rng.integers(1, 6, grid.shape).astype(np.uint8), dims=("y", "x")))
    areas = zonal_area(as_land_cover(labels, list("abcde")), coverage_fraction(frame(shapes), grid))
    assert (areas.area_ha.sum("land_cover") / areas.zone_ha).max() > 1  # rounding alone
    assert (observed_share(areas) == 1).all()
    assert require_observed(areas, 1.0) is areas


def test_a_zone_seen_too_little_blocks_the_table(areas):
    inside = areas.sel(zone=["park 0", "park 2"])
    with pytest.raises(InputRefused, match="park 0 2020"):
        require_observed(inside)
    assert require_observed(inside.isel(time=[0])) is not None
    assert require_observed(inside, minimum=0.0) is inside


def test_table_is_tidy(areas):
    table = areas_table(areas)
    assert list(table.columns) == [
        "zone", "year", "land_cover", "area_ha", "unobserved_ha", "outside_ha", "zone_ha", "observed_share",
    ]  # fmt: skip
    assert len(table) == 6 * 2 * 3
    row = table[(table.zone == "park 2") & (table.year == 2020) & (table.land_cover == "forest")].iloc[0]
    assert row.area_ha == float(areas.area_ha.sel(zone="park 2", land_cover="forest")[1])


def test_table_rows_close(areas):
    table = areas_table(areas)
    sums = table.groupby(["zone", "year"]).agg(
        area=("area_ha", "sum"),
        unseen=("unobserved_ha", "first"),
        out=("outside_ha", "first"),
        zone=("zone_ha", "first"),
    )
    np.testing.assert_allclose(sums.area + sums.unseen + sums.out, sums.zone, rtol=1e-12)


def test_table_without_time_has_missing_years(parks):
    table = areas_table(zonal_area(random_map(UTM).isel(time=0, drop=True), coverage_fraction(parks, UTM)))
    assert table["year"].isna().all()


# Statistics --------------------------------------------------------------------------------------------------------------


def continuous(seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=UTM.shape)
    values[rng.uniform(size=UTM.shape) < 0.05] = np.nan
    return UTM.attach(xr.DataArray(values, dims=("y", "x")))


STATS = ["count", "sum", "mean", "min", "max", "stdev", "variance", "variety"]


def test_statistics_equal_exactextract(parks):
    exactextract = pytest.importorskip("exactextract")
    from exactextract.raster import NumPyRasterSource

    array = continuous()
    west, south, east, north = UTM.bounds
    source = NumPyRasterSource(array.values, west, south, east, north, srs_wkt=UTM.crs.to_wkt())
    theirs = exactextract.exact_extract(source, parks, STATS, output="pandas")
    ours = zonal_statistics(array, coverage_fraction(parks, UTM), stats=STATS)
    for stat in STATS:
        # its shares are float32
        np.testing.assert_allclose(ours[stat][:5], theirs[stat][:5].astype(float), rtol=2e-5, err_msg=stat)


def exactextract_table(values, zones, stats, **options):
    exactextract = pytest.importorskip("exactextract")
    from exactextract.raster import NumPyRasterSource

    west, south, east, north = UTM.bounds
    source = NumPyRasterSource(values, west, south, east, north, srs_wkt=UTM.crs.to_wkt(), **options)
    return exactextract.exact_extract(source, zones, stats, output="pandas")


def test_statistics_of_classes_equal_exactextract(parks):
    values = random_map(UTM, times=1).values[0]
    stats = [
        "count",
        "sum",
        "mean",
        "min",
        "max",
        "variety",
        "majority",
        "minority",
        "stdev",
        "coefficient_of_variation",
    ]
    theirs = exactextract_table(values, parks[:5], stats, nodata=255)
    array = UTM.attach(xr.DataArray(values, dims=("y", "x"), attrs={"nodata": 255}))
    ours = zonal_statistics(
        array, coverage_fraction(parks, UTM), stats=[{"coefficient_of_variation": "cv"}.get(s, s) for s in stats]
    )
    for stat in stats:
        found = ours["cv" if stat == "coefficient_of_variation" else stat][:5]
        np.testing.assert_allclose(found, theirs[stat].astype(float), rtol=2e-5, err_msg=stat)


LEVELS = [0, 0.05, 0.25, 0.5, 0.75, 0.9, 1]
QUANTILES = [f"q{round(100 * level)}" for level in LEVELS]


def test_quantiles_of_values_that_differ_equal_exactextract(parks):
    array = continuous()
    ours = zonal_statistics(array, coverage_fraction(parks, UTM), stats=[*QUANTILES, "median"])
    theirs = exactextract_table(array.values, parks[:5], [*(f"quantile(q={level})" for level in LEVELS), "median"])
    # its shares are float32
    np.testing.assert_allclose(ours[[*QUANTILES, "median"]][:5], theirs.astype(float), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["exact", "centre", "touched"])
def test_quantiles_of_whole_cells_equal_numpy(method):
    rng = np.random.default_rng(3)
    array = UTM.attach(xr.DataArray(rng.integers(0, 9, UTM.shape).astype(float), dims=("y", "x")))
    a, _, c, _, e, f = tuple(UTM.transform)[:6]
    zones = frame([shapely.box(c + 3 * a, f + 40 * e, c + 44 * a, f + 5 * e)])
    row = zonal_statistics(array, coverage_fraction(zones, UTM), stats=QUANTILES, method=method).iloc[0]
    np.testing.assert_allclose([row[name] for name in QUANTILES], np.quantile(array.values[5:40, 3:44], LEVELS))


def test_quantiles_do_not_depend_on_the_order_of_equal_cells(parks):
    array = UTM.attach(xr.DataArray(np.random.default_rng(4).integers(0, 4, UTM.shape).astype(float), dims=("y", "x")))
    a, _, c, _, e, f = tuple(UTM.transform)[:6]
    flipped = Grid(UTM.crs, (a, 0, c, 0, -e, f + e * UTM.shape[0]), UTM.shape)
    upside_down = flipped.attach(xr.DataArray(array.values[::-1], dims=("y", "x")))
    one = zonal_statistics(array, coverage_fraction(parks, UTM), stats=QUANTILES)
    other = zonal_statistics(upside_down, coverage_fraction(parks, flipped), stats=QUANTILES)
    np.testing.assert_allclose(one[QUANTILES], other[QUANTILES], rtol=1e-9, atol=1e-9)


def test_majority_counts_shares():
    grid = Grid("EPSG:32618", (10, 0, 0, 0, -10, 10), (1, 3))
    array = grid.attach(xr.DataArray(np.array([[5, 7, 7]], np.uint8), dims=("y", "x")))
    zones = frame([shapely.box(0, 0, 14, 10), shapely.box(0, 0, 30, 10)])
    table = zonal_statistics(array, coverage_fraction(zones, grid), stats=["majority", "minority"])
    assert table["majority"].tolist() == [5, 7]
    assert table["minority"].tolist() == [7, 5]


def test_of_equally_frequent_values_the_smallest_is_the_majority_whatever_the_rounding():
    grid = Grid("EPSG:32618", (10, 0, 0, 0, -10, 10), (1, 6))
    # 0.1 + 0.2 is not 0.3 in floats, and 1 - 0.7 is neither
    zones = frame([shapely.union_all([shapely.box(0, 0, 10, 3), shapely.box(20, 0, 30, 1), shapely.box(40, 0, 50, 2)])])
    for codes in ([4, 0, 9, 0, 9, 0], [9, 0, 4, 0, 4, 0]):
        array = grid.attach(xr.DataArray(np.array([codes], np.uint8), dims=("y", "x")))
        row = zonal_statistics(array, coverage_fraction(zones, grid), stats=["majority", "minority"]).iloc[0]
        assert (row["majority"], row["minority"]) == (4, 4)


def test_a_zone_without_valid_cells_has_count_zero(parks):
    table = zonal_statistics(continuous() * np.nan, coverage_fraction(parks, UTM), stats=["count", "mean", "min"])
    assert table["count"].eq(0).all()
    assert table[["mean", "min"]].isna().all(axis=None)


def test_statistics_of_layers_have_a_row_each(parks):
    cover = random_map(UTM)
    table = zonal_statistics(cover, coverage_fraction(parks, UTM), stats=["majority", "count"])
    assert len(table) == 2 * len(parks)
    assert list(table.columns) == ["zone", "time", "zone_ha", "majority", "count"]
    assert not table["majority"].eq(255).any()


def test_lazy_rasters_give_the_same_statistics(parks):
    pytest.importorskip("dask")
    share = coverage_fraction(parks, UTM)
    pd.testing.assert_frame_equal(
        zonal_statistics(continuous().chunk({"y": 11}), share, stats=STATS),
        zonal_statistics(continuous(), share, stats=STATS),
    )


@pytest.mark.parametrize("stat", ["average", "q101", "qq", "q"])
def test_unknown_statistic_is_refused(parks, stat):
    with pytest.raises(InputRefused, match="no statistic"):
        zonal_statistics(continuous(), coverage_fraction(parks, UTM), stats=[stat])


def test_unknown_method_is_refused(parks):
    with pytest.raises(InputRefused, match="centre"):
        zonal_statistics(continuous(), coverage_fraction(parks, UTM), method="center")


def test_rasterstats_cases(shared_data):
    import rasterio

    folder = shared_data / "cases" / "zonal_rasterstats"
    methods = {"pixel centre": "centre", "pixel centre, categorical": "centre", "all touched": "touched"}
    for case in json.loads((folder / "expected.json").read_text()):
        with rasterio.open(folder / case["raster"]) as source:
            # the raster's CRS is a mere name; that of the polygons describes the same map
            zones = geopandas.read_file(folder / "polygons.shp") if case["vector"] == "polygons.shp" else None
            crs = geopandas.read_file(folder / "polygons.shp").crs
            zones = (
                zones
                if zones is not None
                else geopandas.read_file(folder / case["vector"]).set_crs(crs, allow_override=True)
            )
            grid = Grid(crs.to_wkt(), source.transform, source.shape)
            values = source.read(1).astype(float)
            nodata = case.get("nodata_override", source.nodata)
        values[values == nodata] = np.nan
        array = grid.attach(xr.DataArray(values, dims=("y", "x")))
        zones["zone"] = [str(number) for number in range(len(zones))]
        share = coverage_fraction(zones, grid)
        table = zonal_statistics(array, share, stats=["count", "mean"], method=methods[case["rule"]])
        if "count" in case:
            assert table["count"].tolist() == case["count"], case
        if "mean0_2dp" in case:
            assert round(table["mean"][0], 2) == case["mean0_2dp"]
        if "class_counts_feature0" in case:
            for code, count in case["class_counts_feature0"].items():
                only = array.where(array == int(code))
                assert zonal_statistics(only, share, stats=["count"], method="centre")["count"][0] == count
            fives = zonal_statistics(array.where(array == 5), share, stats=["count"], method="centre")["count"]
            assert (fives[1] > 0) == case["class5_present_in_feature1"]


# Zone algebra ------------------------------------------------------------------------------------------------------------


def test_overlaps_and_union_obey_inclusion_and_exclusion():
    zones = frame([shapely.box(0, 0, 400, 300), shapely.box(200, 100, 600, 500), shapely.box(300, 0, 350, 400)])
    matrix = zone_overlaps(zones)
    triple = polygon_area_ha(shapely.box(300, 100, 350, 300), "EPSG:32618")
    pairs = matrix.values[np.triu_indices(3, 1)].sum()
    assert matrix.attrs["union_ha"] == pytest.approx(np.trace(matrix.values) - pairs + triple, rel=1e-9)
    assert np.array_equal(matrix.values, matrix.values.T)


def test_zones_that_only_touch_share_nothing():
    matrix = zone_overlaps(
        frame([shapely.box(0, 0, 100, 100), shapely.box(100, 0, 200, 100), shapely.box(900, 0, 950, 9)])
    )
    assert np.count_nonzero(matrix.values - np.diag(np.diag(matrix.values))) == 0
    assert matrix.attrs["multiple_ha"] == pytest.approx(0, abs=1e-12)


def test_the_same_zone_twice_raises_a_notice(caplog):
    box = shapely.box(0, 0, 400, 300)
    with caplog.at_level(logging.WARNING, logger="geococa"):
        matrix = zone_overlaps(frame([box, shapely.box(500, 0, 600, 100), box], names=["a", "b", "c"]))
    assert matrix.attrs["duplicates"] == [("a", "c")]
    assert "same ground" in caplog.text


@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:4326"])
def test_areas_of_many_zones_do_not_depend_on_threads(crs, monkeypatch):
    from geococa import area_density
    from geococa.polygons import geometry_areas_ha, rings_of

    monkeypatch.setattr(area_density, "_FEW_VERTICES", 10)
    rng = np.random.default_rng(2)
    size = 1000.0 if crs == "EPSG:32618" else 0.01
    start = (500_000, 300_000) if crs == "EPSG:32618" else (-75, 3)
    shapes = [
        shapely.Point(start[0] + 30 * size * rng.random(), start[1] + 30 * size * rng.random()).buffer(size)
        for _ in range(37)
    ]
    one, *others = (geometry_areas_ha(rings_of(shapes), pyproj.CRS(crs), threads=n) for n in (1, 2, 5))
    assert (one > 0).all()
    assert all(other.tobytes() == one.tobytes() for other in others)


# Older tools -----------------------------------------------------------------------------------------------------------------


def test_cells_counted_by_their_centre_are_those_of_rasterio(parks):
    rasterize = pytest.importorskip("rasterio.features").rasterize
    cover = random_map(UTM)
    areas = zonal_area(cover, coverage_fraction(parks, UTM), method="centre", area="planar:EPSG:32618")
    for number, shape in enumerate(parks.geometry):
        inside = rasterize([shape], UTM.shape, transform=UTM.transform) > 0
        for time in range(2):
            codes = cover.values[time][inside]
            expected = [0.09 * (codes == code).sum() for code in (1, 2, 3)]
            np.testing.assert_allclose(areas.area_ha[time, number], expected, rtol=1e-12)
            assert float(areas.unobserved_ha[time, number]) == pytest.approx(0.09 * (codes == 255).sum())
    total = areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha
    np.testing.assert_allclose(total, np.broadcast_to(areas.zone_ha, total.shape), rtol=1e-12)
    assert "centre" in areas.attrs["estimate"]


def test_cells_counted_by_their_centre_have_their_own_area_and_threads_change_nothing(parks):
    share = coverage_fraction(parks, UTM)
    areas = zonal_area(random_map(UTM), share, method="centre")
    counts = zonal_statistics(random_map(UTM)[0] * 0, share, stats=["count"], method="centre")["count"]
    seen = (areas.area_ha.sum("land_cover") + areas.unobserved_ha)[0]
    mean_ha = UTM.cell_area_ha().mean()
    np.testing.assert_allclose(seen, counts * mean_ha, rtol=1e-5)
    xr.testing.assert_identical(areas, zonal_area(random_map(UTM), share, method="centre", threads=4))


def test_cells_counted_by_their_centre_are_not_added_over_tiles(parks):
    part = zonal_area(random_map(UTM), coverage_fraction(parks, UTM), method="centre")
    with pytest.raises(InputRefused, match="centre"):
        merge_areas([part], parks)
    with pytest.raises(InputRefused, match="method"):
        zonal_area(random_map(UTM), coverage_fraction(parks, UTM), method="center")


# Other types -------------------------------------------------------------------------------------------------------------

NO_ARRAYS = [None, [[1, 2]], np.ones((3, 3)), pd.DataFrame({"a": [1]}), "map.tif", xr.Dataset({"a": ("x", [1])})]


@pytest.mark.parametrize("what", NO_ARRAYS, ids=lambda value: type(value).__name__)
def test_what_is_no_raster_is_refused_by_name(parks, what):
    share = coverage_fraction(parks, UTM)
    for call in (lambda: zonal_statistics(what, share), lambda: zonal_area(what, share)):
        with pytest.raises(InputRefused, match=f"DataArray.*{type(what).__name__}"):
            call()


@pytest.mark.parametrize("what", [None, [1], "parks.gpkg", np.ones(3)], ids=lambda value: type(value).__name__)
def test_what_is_no_coverage_areas_or_zones_is_refused_by_name(parks, what):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM))
    calls = [
        lambda: zonal_statistics(continuous(), what),
        lambda: zonal_area(random_map(UTM), what),
        lambda: areas_table(what),
        lambda: observed_share(what),
        lambda: require_observed(what),
        lambda: merge_areas(what, parks),
        lambda: merge_areas([what], parks),
        lambda: merge_areas([areas], what),
        lambda: roll_up(what, parks),
        lambda: roll_up(areas, what),
    ]
    for call in calls:
        with pytest.raises(InputRefused):
            call()
    with pytest.raises(InputRefused, match="coverage_fraction"):
        zonal_statistics(continuous(), parks)


@pytest.mark.parametrize("stats", [None, [1], [], ["q"], ["q101"]])
def test_what_names_no_statistic_is_refused(parks, stats):
    with pytest.raises(InputRefused, match="stat"):
        zonal_statistics(continuous(), coverage_fraction(parks, UTM), stats=stats)


def test_texts_and_dates_have_no_statistics(parks):
    share = coverage_fraction(parks, UTM)
    for values in (np.full(UTM.shape, "a"), np.zeros(UTM.shape, "datetime64[ns]"), np.zeros(UTM.shape, complex)):
        with pytest.raises(InputRefused, match="numbers"):
            zonal_statistics(UTM.attach(xr.DataArray(values, dims=("y", "x"))), share)


@pytest.mark.parametrize("minimum", [None, "70 %", 1.5, np.nan])
def test_a_threshold_that_is_no_share_is_refused(parks, minimum):
    with pytest.raises(InputRefused, match="minimum"):
        require_observed(zonal_area(random_map(UTM), coverage_fraction(parks, UTM)), minimum)


@pytest.mark.parametrize("area", [None, 5, "planar:", "planar:EPSG:4326"])
def test_another_measure_is_refused(parks, area):
    with pytest.raises(InputRefused, match="area"):
        zonal_area(random_map(UTM), coverage_fraction(parks, UTM), area=area)


@pytest.mark.parametrize(
    ("geometry", "crs"),
    [(None, 4326), ("a", 4326), ([5], 4326), (shapely.Point(0, 0), 4326), (shapely.box(0, 0, 1, 1), "?")],
)
def test_areas_need_polygons_and_a_crs(geometry, crs):
    with pytest.raises(InputRefused, match=r"polygon|coordinate reference"):
        polygon_area_ha(geometry, crs)


def test_zones_of_which_no_tile_knows_one_are_refused(parks):
    areas = zonal_area(random_map(UTM), coverage_fraction(parks, UTM))
    with pytest.raises(InputRefused, match="none of the zones"):
        merge_areas([areas], parks.assign(zone=[f"other {n}" for n in range(len(parks))]))
    # some of them may be wanted
    assert merge_areas([areas], parks[2:4]).zone.values.tolist() == ["park 2", "park 3"]
    with pytest.raises(InputRefused, match="area must be"):
        merge_areas([areas], parks, area=5)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_a_map_without_cells_has_everything_outside(parks, shape):
    grid = Grid(UTM.crs, UTM.transform, shape)
    areas = zonal_area(land_cover(grid, np.zeros(shape)), coverage_fraction(parks, grid, allow_outside=True))
    assert float(areas.area_ha.sum()) == float(areas.unobserved_ha.sum()) == 0.0
    assert np.array_equal(areas.outside_ha, areas.zone_ha)


# Legends and labels -----------------------------------------------------------------------------------------------------------

LABELS = xr.DataArray(np.array([[1, 2], [2, 1]], np.int16), dims=("y", "x"))


@pytest.mark.parametrize("what", NO_ARRAYS, ids=lambda value: type(value).__name__)
def test_labels_that_are_no_array_are_refused_by_name(what):
    with pytest.raises(InputRefused, match=f"labels must be an xarray.DataArray, got {type(what).__name__}"):
        as_land_cover(what, ["coca", "forest"])


@pytest.mark.parametrize(
    "classes",
    [None, 5, "coca", b"coca", [1, 2], [None], {"a": "b"}, {1.5: "a"}, {1: None}, {True: "a"}, {np.nan: "a"}, {(1,): "a"}, [], {}],
    ids=repr,
)  # fmt: skip
def test_classes_that_are_no_classes_are_refused(classes):
    with pytest.raises(InputRefused, match=r"class|legend"):
        as_land_cover(LABELS, classes)


def test_codes_may_be_numbers_of_numpy():
    cover = as_land_cover(LABELS, {np.int64(1): "coca", 2.0: "forest"})
    assert cover.attrs["flag_values"].tolist() == [1, 2]


@pytest.mark.parametrize("nodata", ["255", 1.5, True, np.nan, np.inf, [1]])
def test_a_no_data_code_that_is_no_code_is_refused(nodata):
    with pytest.raises(InputRefused, match="nodata must be a whole number"):
        as_land_cover(LABELS, ["coca", "forest"], nodata=nodata)


@pytest.mark.parametrize("value", [-3.4e38, 1e39, np.inf, 10**30, -9999, 0.5, np.nan, None])
def test_a_no_data_value_that_no_label_has_hides_nothing(value):
    labels = LABELS.assign_attrs(nodata=value)
    if value != -9999:
        assert as_land_cover(labels, {0: "none", 1: "coca", 2: "forest"}).values.tolist() == LABELS.values.tolist()
    hidden = xr.where(LABELS == 2, -9999, LABELS).astype(np.int16).assign_attrs(nodata=-9999)
    assert as_land_cover(hidden, ["coca", "forest"]).values.tolist() == [[1, 255], [255, 1]]


@pytest.mark.parametrize("value", ["255", [1, 2], b"a"])
def test_a_no_data_attribute_that_is_no_number_is_refused(value):
    with pytest.raises(InputRefused, match="no number"):
        as_land_cover(LABELS.assign_attrs(_FillValue=value), ["coca", "forest"])


def test_legends_refuse_what_they_can_not_read():
    with pytest.raises(InputRefused, match="colors must be"):
        Legend.of(["coca"], 5)
    with pytest.raises(KindMismatch, match="flag_values"):
        Legend.from_attrs({"flag_values": "x", "flag_meanings": "coca"})
    with pytest.raises(KindMismatch, match="flag_values"):
        Legend.from_attrs(None)
