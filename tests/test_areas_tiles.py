"""Hectares over many tiles, on scenes of the size of real ones: cut, order, threads, CRSs, and the ground between parks."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
import xarray as xr

from geococa.areas import areas_table, merge_areas, zonal_area, zonal_statistics
from geococa.coverage import coverage_fraction
from geococa.grid import Grid
from geococa.legend import as_land_cover
from geococa.ownership import own_tiles
from geococa.polygons import polygon_area_ha
from tests.oracles_areas import polygonal, star, to_lonlat

CLASSES = ["coca", "forest", "pasture"]
SCENE = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (1600, 1600))
ORDERS = [(seed, threads) for seed, threads in enumerate((1, 2, 3, 5, 8))]


def cut(grid, parts):
    """Rows and columns of tiles whose sides are 109.8 % of their spacing, as those of Sentinel-2 are."""
    rows, columns = grid.shape
    down, across = rows // parts, columns // parts
    return {
        f"tile-{i}{j}": (
            i * down, min(round((i + 1.098) * down), rows), j * across, min(round((j + 1.098) * across), columns),
        )
        for i in range(parts) for j in range(parts)
    }  # fmt: skip


@pytest.fixture(scope="module")
def scene():
    """Two years of patches, some of them not observed."""
    rng = np.random.default_rng(8)
    coarse = rng.choice([1, 2, 3, 255], (2, 320, 320), p=[0.1, 0.5, 0.3, 0.1])
    labels = coarse.repeat(5, axis=1).repeat(5, axis=2)
    labels[rng.uniform(size=labels.shape) < 0.1] = 2
    times = np.array(["2022-12-31", "2023-12-31"], "datetime64[ns]")
    array = xr.DataArray(labels.astype(np.uint8), dims=("time", "y", "x"), coords={"time": times})
    return as_land_cover(SCENE.attach(array), CLASSES)


@pytest.fixture(scope="module")
def parks():
    """Many vertices; overlapping, with holes, over the edge, off the scene, smaller than a cell."""
    rng = np.random.default_rng(9)
    west, south, east, north = SCENE.bounds
    shapes = [
        polygonal(star(rng, 150, rng.uniform(west, east), rng.uniform(south, north), 10 ** rng.uniform(2.5, 3.8)))
        for _ in range(12)
    ]
    shapes[0] = polygonal(shapes[0].union(star(rng, 60, 608000, 292000, 4000)))
    shapes[1] = polygonal(star(rng, 150, 607000, 291000, 5000).difference(star(rng, 60, 607000, 291000, 2000)))
    shapes += [shapely.box(604003, 294004, 604009, 294007), shapely.box(630000, 200000, 631000, 201000)]
    names = [f"park {number}" for number in range(len(shapes))]
    return geopandas.GeoDataFrame({"zone": names}, geometry=shapes, crs=SCENE.crs)


def counts(cover, share, method):
    """Cells of each class, and of no data, in each zone."""
    first = cover.isel(time=0, drop=True).astype(np.int16)
    first.attrs = {}
    layers = xr.concat([first.where(first == code) for code in (1, 2, 3, 255)], "code")
    table = zonal_statistics(layers, share, stats=["count"], method=method)
    return table["count"].to_numpy().reshape(-1, 4)


def over_tiles(scene, zones, windows, seed, threads):
    """Areas and counts of the tiles, all of them anew, taken in some order and in threads."""
    order = [str(name) for name in np.random.default_rng(seed).permutation(list(windows))]
    grids = {name: SCENE.window(*windows[name]) for name in order}
    owners = own_tiles(grids).set_index("tile").geometry
    parts, centres, exact = [], 0.0, 0.0
    for name in order:
        r0, r1, c0, c1 = windows[name]
        tile = scene[:, r0:r1, c0:c1]
        share = coverage_fraction(zones, grids[name], owned=owners[name], allow_outside=True, threads=threads)
        parts.append(zonal_area(tile, share, threads=threads))
        centres = centres + counts(tile, share, "centre")
        exact = exact + counts(tile, share, "exact")
    return merge_areas(parts, zones), centres, exact


@pytest.mark.slow
@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:4326"])
def test_a_scene_in_1_4_and_64_tiles_of_sentinel_2_in_5_orders_and_up_to_8_threads(scene, parks, crs):
    zones = parks.to_crs(crs)
    share = coverage_fraction(zones, SCENE)
    whole = zonal_area(scene, share)
    centres, exact = counts(scene, share, "centre"), counts(scene, share, "exact")
    assert centres.sum() > 1e6
    for parts in (1, 4, 8):
        windows = cut(SCENE, parts) if parts != 4 else cut(SCENE, 2)
        first = None
        # 64 tiles take long: the first and the last order, in one thread and in eight
        for seed, threads in ORDERS if parts < 8 else (ORDERS[0], ORDERS[-1]):
            merged, middle, shares = over_tiles(scene, zones, windows, seed, threads)
            assert np.array_equal(middle, centres)
            np.testing.assert_allclose(shares, exact, rtol=1e-12, atol=1e-9)
            for name in ("area_ha", "unobserved_ha", "outside_ha"):
                off = np.abs(merged[name] - whole[name]) / whole["zone_ha"]
                assert float(off.max()) < 1e-9, (name, parts, seed)
            first = merged if first is None else first
            xr.testing.assert_identical(merged, first)
            assert areas_table(merged).to_csv().encode() == areas_table(first).to_csv().encode()


def metric_km(lon, lat, x, y):
    return np.hypot((lon - x) * 111.3, (lat - y) * 110.6)


DISCS = [(-72.08, 2.03, 5.0), (-71.93, 1.95, 7.0), (-72.0, 2.12, 3.0), (-72.3, 2.3, 9.0), (-71.7, 1.8, 11.0)]


def disc_polygons():
    turn = np.linspace(0, 2 * np.pi, 40001)[:-1]
    return shapely.union_all([
        shapely.Polygon(np.c_[x + r / 111.3 * np.cos(turn), y + r / 110.6 * np.sin(turn)]) for x, y, r in DISCS
    ])  # fmt: skip


def drawn(grid):
    """Discs at the centres of cells (class 1, else 2), and which cells the edge of a disc may cross."""
    x, y = np.meshgrid(grid.coordinates()["x"], grid.coordinates()["y"])
    lon, lat = to_lonlat(grid.crs)(x, y)
    beyond = np.min([metric_km(lon, lat, *disc[:2]) - disc[2] for disc in DISCS], axis=0)
    side_km = 0.1 if grid.crs.is_projected else grid.transform.a * 111.3
    labels = np.where(beyond < 0, 1, 2)
    mixed = np.where(np.abs(beyond) <= 1.02 * side_km * np.sqrt(0.5), 1, 2)
    return [
        as_land_cover(grid.attach(xr.DataArray(values.astype(np.uint8), dims=("y", "x"))), names)
        for values, names in ((labels, ["coca", "forest"]), (mixed, ["mixed", "pure"]))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("priority", [None, ["19N"], ["degrees", "19N"]])
def test_two_utm_zones_and_a_grid_in_degrees_hold_what_one_seamless_raster_holds(priority):
    """Whole tiles of 109.8 km; the bound is the hectares of the cells that the edge of a class crosses.

    A class is drawn where the centre of a cell lies. The distance to the edge changes by no more than one goes, so a cell
    whose centre is further from the edge than half its diagonal is all of one class, and counts right on every grid and
    whatever part of it a tile owns: nothing is resampled. Any other cell counts wrong by no more than what of it lies in
    the park on ground owned. So a map is off the truth by at most the hectares of these cells, measured as any class is; and
    two maps are off one another by at most the sum of theirs.
    """
    tiles = {
        "18N": Grid("EPSG:32618", (100, 0, 745000, 0, -100, 265000), (1098, 1098)),
        "19N": Grid("EPSG:32619", (100, 0, 155000, 0, -100, 265000), (1098, 1098)),
        "degrees": Grid("EPSG:4326", (0.001, 0, -72.05, 0, -0.001, 2.25), (600, 150)),
    }
    owned = own_tiles(tiles, priority=priority).set_index("tile").geometry
    footprint = shapely.union_all(owned.values)
    rng = np.random.default_rng(3)
    parks = [
        polygonal(star(rng, 60, -72.0, 2.0, 0.3)), shapely.box(-72.5, 2.1, -72.1, 2.39), shapely.box(-71.9, 1.6, -71.5, 1.9),
        shapely.box(-71.2, 1.5, -70.9, 1.7),
    ]  # fmt: skip
    alone = [polygonal(park.difference(shapely.union_all(parks[:n]))) for n, park in enumerate(parks)]
    rest = polygonal(footprint.difference(shapely.union_all(alone)))
    zones = geopandas.GeoDataFrame({"zone": ["a", "b", "c", "over", "rest"]}, geometry=[*alone, rest], crs="EPSG:4326")

    def measured(grid, ground=None):
        share = coverage_fraction(zones, grid, owned=ground, allow_outside=True)
        return [zonal_area(array, share) for array in drawn(grid)]

    per_tile = [measured(grid, owned[name]) for name, grid in tiles.items()]
    mosaic, unsure = (merge_areas([one[kind] for one in per_tile], zones) for kind in (0, 1))
    seamless = Grid("EPSG:4326", (0.001, 0, -72.9, 0, -0.001, 2.6), (1300, 2100))
    whole, whole_unsure = measured(seamless)
    coca = mosaic.area_ha.sel(land_cover="coca")[0].values
    bound = unsure.area_ha.sel(land_cover="mixed")[0].values
    other, other_bound = (
        whole.area_ha.sel(land_cover="coca").values,
        whole_unsure.area_ha.sel(land_cover="mixed").values,
    )
    discs = disc_polygons()
    on_map = [polygonal(zone.intersection(footprint).intersection(discs)) for zone in zones.geometry]
    truth = np.array([polygon_area_ha(shape, "EPSG:4326") for shape in on_map])
    assert truth[:3].min() > 5000
    assert np.all(np.abs(coca - truth) <= bound + 1e-6)
    inside = mosaic.outside_ha[0].values < 1e-6
    assert inside[[0, 1, 2]].all()
    assert not inside[3]
    assert np.all(np.abs(coca - other)[inside] <= (bound + other_bound)[inside] + 1e-6)
    # cells are drawn without bias, so that a map is far nearer than the bound
    assert np.all(np.abs(coca - truth)[:3] <= 0.02 * bound[:3])
    assert np.all(np.abs(coca - truth)[:3] <= 1e-3 * truth[:3])
    held = mosaic.area_ha.sum("land_cover")[0] + mosaic.unobserved_ha[0]
    beyond = polygon_area_ha(polygonal(alone[3].difference(footprint)), "EPSG:4326")
    assert float(mosaic.outside_ha[0, 3]) == pytest.approx(beyond, rel=1e-6)
    ground_ha = polygon_area_ha(owned.values, "EPSG:4326").sum()
    assert float(held.sum()) == pytest.approx(ground_ha, rel=1e-9)
    assert float((held + mosaic.outside_ha[0]).sum()) == pytest.approx(ground_ha + beyond, rel=1e-9)
