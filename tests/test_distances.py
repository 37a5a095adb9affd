"""Distances: against shapely and the ellipsoid, blocks, polygons, other CRS, refusals."""

from __future__ import annotations

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.errors import CRSMismatch, InputRefused
from geococa.features import distance_features
from geococa.grid import Grid
from geococa.transforms import place

GRID = Grid("EPSG:32618", (30, 0, 600_000, 0, -30, 300_000), (70, 90))


def layer(*shapes, crs="EPSG:32618"):
    return geopandas.GeoDataFrame(geometry=list(shapes), crs=crs)


def centres(grid=GRID):
    rows, columns = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    return place(grid.transform, columns, rows)


def scale(grid=GRID):
    """Metres of the plane to a metre on the ground at the grid's centre."""
    x, y = (float(v.mean()) for v in centres(grid))
    lon, lat = pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)
    return pyproj.Proj(grid.crs).get_factors(lon, lat).meridional_scale


def planar(shapes, grid=GRID):
    points = shapely.points(*centres(grid))
    return np.min([shapely.distance(points, shape) for shape in shapes], axis=0) / scale(grid)


def shapes_of(kind, n, seed):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        start = rng.uniform((599_000, 296_000), (604_000, 302_000))
        steps = start + np.cumsum(rng.normal(0, 300, (rng.integers(3, 12), 2)), axis=0)
        line = shapely.LineString(steps)
        made.append({"points": shapely.Point(start), "lines": line, "polygons": line.convex_hull}[kind])
    return made


@pytest.mark.parametrize("kind", ["points", "lines", "polygons"])
@pytest.mark.parametrize("n", [1, 40])
def test_distances_are_those_of_shapely(kind, n):
    shapes = shapes_of(kind, n, seed=n)
    found = distance_features({"x": layer(*shapes)}, GRID).values[0]
    np.testing.assert_allclose(found, planar(shapes), rtol=2e-5, atol=0.01)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), limit=st.sampled_from([100.0, 900.0, 20_000.0]))
def test_the_nearest_is_found_whatever_is_left_out(seed, n, limit):
    shapes = shapes_of(("points", "lines", "polygons")[seed % 3], n, seed)
    small = GRID.window(10, 40, 20, 63)
    found = distance_features({"x": layer(*shapes)}, small, max_distance_m=limit).values[0]
    expected = np.minimum(planar(shapes, small), limit)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=0.01)


def test_distances_are_those_on_the_ellipsoid_far_from_the_centre():
    grid = Grid("EPSG:32618", (1000, 0, 600_000, 0, -1000, 300_000), (110, 110))
    lon, lat = -74.2, 2.5
    found = distance_features(
        {"port": layer(shapely.Point(lon, lat), crs="EPSG:4326")}, grid, max_distance_m=2e5
    ).values
    lons, lats = pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(*centres(grid))
    metres = pyproj.Geod(ellps="WGS84").inv(lons, lats, np.full_like(lons, lon), np.full_like(lats, lat))[2]
    near = metres < 50_000
    assert near.sum() > 1000
    np.testing.assert_allclose(found[0][near], metres[near], rtol=2e-4)


def test_a_geographic_grid_gives_metres():
    grid = Grid("EPSG:4326", (0.001, 0, -75, 0, -0.001, 5), (20, 30))
    found = distance_features({"p": layer(shapely.Point(-74.99, 4.99), crs="EPSG:4326")}, grid).values[0]
    x, y = centres(grid)
    metres = pyproj.Geod(ellps="WGS84").inv(x, y, np.full_like(x, -74.99), np.full_like(y, 4.99))[2]
    np.testing.assert_allclose(found, metres, rtol=1e-5, atol=0.01)


def test_inside_a_polygon_is_distance_zero_but_not_in_its_hole():
    town = shapely.Polygon(
        shapely.box(600_300, 298_500, 602_000, 299_700).exterior,
        [shapely.box(601_000, 299_000, 601_400, 299_300).exterior],
    )
    found = distance_features({"towns": layer(town)}, GRID).values[0]
    inside = shapely.contains_xy(town, *centres())
    assert (found[inside] == 0).all()
    assert (found[~inside] > 0).all()


def test_ground_deep_inside_a_polygon_whose_edge_is_out_of_reach_is_distance_zero():
    country = shapely.box(400_000, 100_000, 800_000, 500_000)
    found = distance_features({"country": layer(country)}, GRID, max_distance_m=1000).values
    assert (found == 0).all()


def test_blocks_give_the_bytes_of_the_whole():
    sources = {kind: layer(*shapes_of(kind, 25, 3)) for kind in ("points", "lines", "polygons")}
    whole = distance_features(sources, GRID)
    assert whole["feature"].values.tolist() == ["distance_points_m", "distance_lines_m", "distance_polygons_m"]
    for block in GRID.blocks(31):
        part = distance_features(sources, GRID, window=block.outer)
        np.testing.assert_array_equal(part.values[:, *block.crop], whole.values[:, *block.target])
        assert Grid.from_xarray(part).same_as(GRID.window(*block.outer))


def test_lazy_blocks_give_the_same_bytes():
    sources = {"x": layer(*shapes_of("polygons", 5, 3))}
    lazy = distance_features(sources, GRID, chunks={"y": 20, "x": 33})
    assert lazy.chunks[1][0] == 20
    np.testing.assert_array_equal(lazy.values, distance_features(sources, GRID).values)
    with pytest.raises(InputRefused, match="time"):
        distance_features(sources, GRID, chunks={"time": 1})


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32619", "EPSG:9377"])
def test_the_crs_of_the_layer_does_not_matter(crs):
    shapes = shapes_of("lines", 10, 5)
    here = distance_features({"x": layer(*shapes)}, GRID).values
    there = distance_features({"x": layer(*shapes).to_crs(crs)}, GRID).values
    np.testing.assert_allclose(there, here, atol=0.05)


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb", "parquet", "shp"])
def test_files_of_every_kind_are_read(tmp_path, suffix):
    frame = layer(*shapes_of("lines", 5, 1))
    path = tmp_path / f"rivers.{suffix}"
    if suffix == "geojson":
        frame = frame.to_crs(4326)
    frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
    found = distance_features({"rivers": path}, GRID)
    np.testing.assert_allclose(found.values, distance_features({"rivers": frame}, GRID).values, atol=0.01)


def test_a_tile_out_of_reach_has_the_largest_distance():
    far = shapely.LineString([(900_000, 300_000), (900_000, 310_000)])
    assert (distance_features({"roads": layer(far)}, GRID).values == 50_000).all()


def test_empty_and_missing_geometries_are_passed_over():
    frame = layer(None, shapely.Point(), shapely.Point(600_015, 299_985))
    assert distance_features({"x": frame}, GRID).values[0, 0, 0] == pytest.approx(0, abs=1e-6)


def test_unusable_layers_are_refused(tmp_path):
    point = shapely.Point(600_000, 300_000)
    with pytest.raises(InputRefused, match="no such file"):
        distance_features({"roads": tmp_path / "roads.gpkg"}, GRID)
    with pytest.raises(CRSMismatch, match="no coordinate reference system"):
        distance_features({"roads": layer(point, crs=None)}, GRID)
    with pytest.raises(InputRefused, match="no geometry"):
        distance_features({"roads": layer(None)}, GRID)
    with pytest.raises(InputRefused, match="axes"):
        distance_features({"roads": layer(shapely.Point(2.7, -74.1), crs="EPSG:4326")}, GRID)
    with pytest.raises(InputRefused, match="lower-case"):
        distance_features({"Main roads": layer(point)}, GRID)
    with pytest.raises(InputRefused, match="max_distance_m"):
        distance_features({"roads": layer(point)}, GRID, max_distance_m=0)
    with pytest.raises(InputRefused, match="at least one"):
        distance_features({}, GRID)


def test_a_file_of_several_layers_is_refused(tmp_path):
    path = tmp_path / "map.gpkg"
    for name in ("roads", "rivers"):
        layer(shapely.Point(600_000, 300_000)).to_file(path, layer=name)
    with pytest.raises(InputRefused, match="2 layers"):
        distance_features({"roads": path}, GRID)
