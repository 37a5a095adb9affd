"""Zone files, repair, rings around zones, coverage over CRS borders, and ownership of overlapping tiles."""

from __future__ import annotations

import json
import logging

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.coverage import coverage_fraction, dense_fractions
from geococa.errors import CRSMismatch, InputRefused, ZoneError
from geococa.grid import Grid
from geococa.ownership import own_tiles
from geococa.polygons import polygon_area_ha, reprojected, rings_of
from geococa.zone_files import read_zones, repair_polygons
from geococa.zones import buffer_rings
from tests.oracles_areas import area_geod_ha, polygonal, shares_by_intersection, star, to_lonlat

BOX = shapely.box(-74.0, 2.0, -73.9, 2.1)
BOW_TIE = shapely.Polygon([(-74, 2), (-73, 3), (-73, 2), (-74, 3)])


def frame(shapes, crs="EPSG:4326", **columns):
    columns = columns or {"park": [f"park {number}" for number in range(len(shapes))]}
    return geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


WRITERS = {
    "GeoPackage": ("a.gpkg", {"driver": "GPKG"}),
    "GeoJSON": ("a.geojson", {"driver": "GeoJSON"}),
    "Shapefile": ("a.shp", {"driver": "ESRI Shapefile"}),
    "FlatGeobuf": ("a.fgb", {"driver": "FlatGeobuf"}),
}


# Files -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*WRITERS, "GeoParquet"])
def test_every_kind_of_file_reads_alike(tmp_path, kind):
    zones = frame([BOX, shapely.box(-73.9, 2, -73.8, 2.1)], park=["Tinigua", "La Macarena"], size=[1, 2])
    if kind == "GeoParquet":
        path = tmp_path / "a.parquet"
        zones.to_parquet(path)
    else:
        name, options = WRITERS[kind]
        path = tmp_path / name
        zones.to_file(path, **options)
    read = read_zones(path)
    assert sorted(read["zone"]) == ["La Macarena", "Tinigua"]
    assert list(read.columns) == ["zone", "park", "size", "geometry"]
    assert read.set_index("zone").geometry["Tinigua"].normalize().equals_exact(BOX.normalize(), 1e-9)
    assert pyproj.CRS(read.crs).equals(pyproj.CRS(4326), ignore_axis_order=True)


VRT = '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>'


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.shp", "a.fgb", "a.parquet"])
@pytest.mark.parametrize(
    "content",
    [
        VRT.format("/etc/passwd").encode(),
        b"",
        b"id,name\n1,a\n",
        b"<kml/>",
        b"PK\x03\x04zip",
        b"SQLite format 3\0" + b"\0" * 200,
    ],
)
def test_files_in_disguise_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputRefused):
        read_zones(path)


@pytest.mark.parametrize(
    "path",
    ["no-such.gpkg", "/vsicurl/http://127.0.0.1:9/a.gpkg", "http://127.0.0.1:9/a.geojson", "<OGRVRTDataSource/>", "."],
)
def test_what_is_no_file_is_refused(path):
    with pytest.raises(InputRefused, match="file"):
        read_zones(path)


def test_damaged_file_is_refused(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text('{"type": "FeatureCollection", "features": [{"type": "Fea')
    with pytest.raises(ZoneError, match="GeoJSON"):
        read_zones(path)


def test_json_that_is_no_geojson_is_refused(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text('{"stac_version": "1.0.0", "id": "a"}')
    with pytest.raises(InputRefused):
        read_zones(path)


def test_a_layer_is_chosen_by_name(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([BOX]).to_file(path, layer="parks")
    frame([shapely.box(-73, 2, -72, 3)]).to_file(path, layer="reserves")
    with pytest.raises(ZoneError, match="parks, reserves"):
        read_zones(path)
    assert read_zones(path, layer="reserves").total_bounds[0] == -73
    with pytest.raises(ZoneError, match="no layer"):
        read_zones(path, layer="rivers")


def test_the_only_polygon_layer_is_taken(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([BOX]).to_file(path, layer="parks")
    frame([shapely.Point(-73, 2)]).to_file(path, layer="posts")
    assert read_zones(path)["zone"].tolist() == ["park 0"]


def test_a_file_without_crs_is_refused(tmp_path):
    path = tmp_path / "a.shp"
    frame([BOX]).to_file(path)
    (tmp_path / "a.prj").unlink()
    with pytest.raises(CRSMismatch, match=r"\.prj"):
        read_zones(path)


def test_metres_that_say_degrees_are_refused(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(shapely.to_geojson(shapely.box(600000, 200000, 610000, 210000)))
    with pytest.raises(CRSMismatch, match="not degrees"):
        read_zones(path)


def test_latitude_before_longitude_is_refused_where_it_shows(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(shapely.to_geojson(shapely.box(2, -110, 3, -109)))
    with pytest.raises(CRSMismatch, match="swapped"):
        read_zones(path)


# Names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "expected"), [
    ({"ap_id": [6], "ap_nombre": ["Nukak"], "ap_categor": ["Reserva"]}, "Nukak"),
    ({"WDPAID": [1], "NAME": ["Sumapaz"], "DESIG": ["Park"]}, "Sumapaz"),
    ({"DPTO_CNMBR": ["META"], "MPIO_CNMBR": ["LA MACARENA"]}, "LA MACARENA"),
    ({"DPTO": ["05"], "NOMBRE_DPT": ["ANTIOQUIA"]}, "ANTIOQUIA"),
    ({"code": ["x7"]}, "x7"),
    ({"id": [12]}, "12"),
])  # fmt: skip
def test_the_name_column_is_recognised(tmp_path, columns, expected):
    path = tmp_path / "a.gpkg"
    frame([BOX], **columns).to_file(path)
    assert read_zones(path)["zone"].tolist() == [expected]


def test_a_column_is_chosen_by_name(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([BOX, BOX], name=["a", "a"], code=[1.0, 2.0]).to_file(path)
    assert read_zones(path, name="code")["zone"].tolist() == ["1", "2"]
    with pytest.raises(ZoneError, match="name, code"):
        read_zones(path, name="park")


def test_unknown_columns_are_listed(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([BOX, BOX], a=["x", "x"], b=[1, 2]).to_file(path)
    with pytest.raises(ZoneError, match="a, b"):
        read_zones(path)


def test_a_file_without_columns_gets_numbers(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "GeometryCollection", "geometries": [json.loads(shapely.to_geojson(BOX))]}))
    path.write_text(shapely.to_geojson(BOX))
    assert read_zones(path)["zone"].tolist() == ["zone 1"]


def test_names_twice_are_refused_numbered_or_joined(tmp_path):
    path = tmp_path / "a.gpkg"
    east = shapely.box(-73.9, 2.0, -73.8, 2.1)
    frame([BOX, east, BOX], name=["La Unión", "La Unión", "b"], code=[1, 2, 3]).to_file(path)
    with pytest.raises(ZoneError, match=r"La Unión.*code"):
        read_zones(path)
    assert read_zones(path, duplicates="number")["zone"].tolist() == ["La Unión", "La Unión (2)", "b"]
    joined = read_zones(path, duplicates="dissolve")
    assert joined["zone"].tolist() == ["La Unión", "b"]
    assert joined.geometry[0].area == pytest.approx(0.02)


def test_a_name_that_is_missing_is_refused(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([BOX, BOX], park=["a", None]).to_file(path)
    with pytest.raises(ZoneError, match="no name"):
        read_zones(path)


# Geometry --------------------------------------------------------------------------------------------------------------


def test_heights_are_dropped(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([shapely.force_3d(BOX, 400)]).to_file(path)
    assert not read_zones(path).has_z.any()


def test_zones_without_geometry_are_left_out_with_a_warning(tmp_path, caplog):
    path = tmp_path / "a.gpkg"
    frame([BOX, None, shapely.Polygon()], park=["a", "b", "c"]).to_file(path)
    with caplog.at_level(logging.WARNING, logger="geococa"):
        assert read_zones(path)["zone"].tolist() == ["a"]
    assert "'b', 'c'" in caplog.text


@pytest.mark.parametrize("shape", [shapely.Point(-74, 2), shapely.LineString([(-74, 2), (-73, 3)])])
def test_points_and_lines_are_refused(tmp_path, shape):
    path = tmp_path / "a.gpkg"
    frame([shape]).to_file(path)
    with pytest.raises(ZoneError, match="must be polygons"):
        read_zones(path)


def test_a_small_repair_is_logged_with_its_change_of_area(caplog):
    spike = shapely.Polygon([(0, 0), (10, 0), (10, 10), (5, 10), (5, 12), (5, 10), (0, 10)])
    with caplog.at_level(logging.WARNING, logger="geococa"):
        fixed = repair_polygons([spike], ["a"])
    assert fixed[0].is_valid
    assert fixed[0].area == pytest.approx(100, rel=1e-9)
    assert "'a' was not valid" in caplog.text


def test_a_repair_that_changes_the_area_is_refused_unless_forced():
    with pytest.raises(ZoneError, match="force"):
        repair_polygons([BOW_TIE], ["a"])
    assert repair_polygons([BOW_TIE], ["a"], repair="force")[0].area == pytest.approx(0.5)


def test_no_repair_at_all_may_be_asked_for():
    spike = shapely.Polygon([(0, 0), (10, 0), (10, 10), (5, 10), (5, 12), (5, 10), (0, 10)])
    with pytest.raises(ZoneError, match="not valid"):
        repair_polygons([spike], ["a"], repair="refuse")


def test_parts_that_overlap_are_joined_not_cancelled():
    overlapping = shapely.MultiPolygon([shapely.box(0, 0, 100, 100), shapely.box(99.99, 0, 200, 100)])
    assert repair_polygons([overlapping], ["a"])[0].area == pytest.approx(20000, rel=1e-9)


def test_collections_of_polygons_are_taken():
    shape = shapely.GeometryCollection([shapely.box(0, 0, 1, 1), shapely.MultiPolygon([shapely.box(2, 0, 3, 1)])])
    assert repair_polygons([shape], ["a"])[0].area == 2


def test_coordinates_that_are_no_numbers_are_refused():
    with np.errstate(invalid="ignore"):
        shape = shapely.from_wkt("POLYGON ((0 0, 10 NaN, 20 0, 0 10, 0 0))")
    with pytest.raises(ZoneError, match="finite"):
        repair_polygons([shape], ["a"])


def test_validity_cases(shared_data):
    """Valid polygons of the GEOS tests pass untouched; invalid ones are fixed with their area or refused."""
    cases = json.loads((shared_data / "cases" / "geometry_validity.json").read_text())["cases"]
    seen = {"kept": 0, "fixed": 0, "refused": 0}
    for case in cases:
        if "POLYGON" not in case["geom"].upper() or case["op"] != "isValid":
            continue
        try:
            with np.errstate(invalid="ignore"):
                shape = shapely.from_wkt(case["geom"])
        except shapely.errors.GEOSException:
            continue
        if shape.is_empty:
            continue
        if case["expected"] == "true":
            assert repair_polygons([shape], ["a"], repair="refuse")[0].equals_exact(shapely.force_2d(shape), 0), case[
                "desc"
            ]
            seen["kept"] += 1
            continue
        try:
            fixed = repair_polygons([shape], ["a"])[0]
        except ZoneError:
            seen["refused"] += 1
            if not np.isfinite(shapely.get_coordinates(shape)).all():
                continue
            forced = shapely.make_valid(shape, method="structure")
            assert abs(forced.area - shape.area) > 1e-3 * max(forced.area, shape.area) or forced.area == 0
        else:
            seen["fixed"] += 1
            assert fixed.is_valid
            assert fixed.area == pytest.approx(shape.area, rel=1e-3)
    assert sum(seen.values()) >= 60
    assert min(seen.values()) > 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_broken_polygons_are_fixed_or_refused(seed):
    rng = np.random.default_rng(seed)
    points = np.asarray(star(rng, 12, 0, 0, 10).exterior.coords)
    kind = rng.integers(0, 5)
    if kind == 0:
        i, j = rng.integers(1, len(points) - 1, 2)
        points[[i, j]] = points[[j, i]]
    elif kind == 1:
        points = np.insert(points, 3, [points[2], points[2] + rng.normal(size=2), points[2]], axis=0)
    holes = [np.asarray(star(rng, 5, *rng.uniform(-12, 12, 2), 3).exterior.coords)] if kind in (2, 3) else []
    shape = shapely.Polygon(points, holes)
    try:
        fixed = repair_polygons([shape], ["a"])[0]
    except ZoneError:
        assert not shape.is_valid
        return
    assert fixed.is_valid
    assert fixed.area == pytest.approx(shape.area, rel=1.01e-3)
    # what was accepted is what is counted
    share = dense_fractions([fixed], Grid("EPSG:32618", (1, 0, -15, 0, 1, -15), (30, 30)))
    assert share.sum() == pytest.approx(fixed.area, rel=1e-9)


def test_a_polygon_over_the_antimeridian_is_refused(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([shapely.box(-179, -17, 179, -16)]).to_file(path)
    with pytest.raises(ZoneError, match="antimeridian"):
        read_zones(path)
    jump = shapely.Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)])
    with pytest.raises(ZoneError, match="antimeridian"):
        polygon_area_ha(jump, "EPSG:4326")


@pytest.mark.parametrize(
    "shape",
    [
        shapely.MultiPolygon([shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -179, -16)]),
        shapely.box(179, -17, 181, -16),
        shapely.box(-180, 80, 180, 90),
        shapely.box(-180, -90, 180, -60),
        shapely.box(0, 89, 90, 90),
        shapely.box(350, 0, 360, 10),
    ],
)
def test_zones_at_the_antimeridian_and_the_poles_have_their_area(shape):
    expected = area_geod_ha(shape, lambda x, y: (x, y), 0.01)
    assert polygon_area_ha(shape, "EPSG:4326") == pytest.approx(expected, rel=1e-6)


# Rings -----------------------------------------------------------------------------------------------------------------


def test_a_ring_around_a_disc_has_the_area_of_the_annulus():
    place = {"proj": "aeqd", "lat_0": 2.0, "lon_0": -73.0, "datum": "WGS84"}
    disc = shapely.Point(0, 0).buffer(20000, quad_segs=256)
    zones = frame([disc], crs=pyproj.CRS.from_dict(place), zone=["disc"]).to_crs("EPSG:4326")
    rings = buffer_rings(zones, [0, 1000, 5000])
    for _, row in rings.iterrows():
        inner, outer = 20000 + max(row.from_m, -20000), 20000 + row.to_m
        expected = np.pi * (outer**2 - inner**2) / 1e4
        assert polygon_area_ha(row.geometry, rings.crs) == pytest.approx(expected, rel=2e-3), row.ring


def test_the_rings_inside_add_up_to_the_zone():
    rng = np.random.default_rng(1)
    zones = frame([star(rng, 15, -73, 2, 0.2)], zone=["a"])
    rings = buffer_rings(zones, [1000, 3000], sides=["inside"])
    total = polygon_area_ha(rings.geometry.values, rings.crs).sum()
    assert total == pytest.approx(polygon_area_ha(zones.geometry[0], zones.crs), rel=1e-6)
    assert rings["from_m"].tolist() == [-1000, -3000, -np.inf]


def test_rings_are_zones_that_can_be_measured():
    zones = frame([shapely.box(600000, 290000, 604000, 294000)], crs="EPSG:32618", zone=["a"])
    rings = buffer_rings(zones, [0, 500])
    share = coverage_fraction(rings, Grid("EPSG:32618", (100, 0, 598000, 0, -100, 296000), (80, 80)))
    np.testing.assert_allclose(share.inside_ha, share.zone_ha, rtol=1e-12)
    assert rings["of"].eq("a").all()


def test_a_narrow_zone_has_no_core():
    zones = frame([shapely.box(600000, 290000, 600500, 294000)], crs="EPSG:32618", zone=["a"])
    assert buffer_rings(zones, [1000], sides=["inside"])["ring"].tolist() == ["inside 0-1000 m"]


@pytest.mark.parametrize(
    ("distances", "sides"), [([0], ["outside"]), ([-5, 10], ["outside"]), ([np.inf], ["inside"]), ([5], ["left"])]
)
def test_senseless_distances_are_refused(distances, sides):
    with pytest.raises(InputRefused):
        buffer_rings(frame([BOX], zone=["a"]), distances, sides=sides)


# Coverage across CRSs ---------------------------------------------------------------------------------------------------


UTM = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (40, 50))


def test_shares_in_a_rotated_grid():
    shape = star(np.random.default_rng(0), 20, 600150, 299850, 200)
    grid = Grid("EPSG:32618", (8, 6, 599900, 6, -8, 299900), (40, 40))
    inverse = shapely.affinity.affine_transform(shape, (~grid.transform).to_shapely())
    expected = shares_by_intersection(inverse, 40, 40)
    share = coverage_fraction(frame([shape], crs="EPSG:32618", zone=["a"]), grid)
    np.testing.assert_allclose(share.dense().values[0], expected, atol=1e-9)


def test_a_south_up_grid_has_the_same_shares_upside_down():
    zones = frame([star(np.random.default_rng(0), 20, 600250, 299800, 240)], crs="EPSG:32618", zone=["a"])
    flipped = Grid("EPSG:32618", (10, 0, 600000, 0, 10, 299600), (40, 50))
    np.testing.assert_allclose(
        coverage_fraction(zones, flipped).dense().values[:, ::-1],
        coverage_fraction(zones, UTM).dense().values,
        atol=1e-12,
    )


def test_zones_in_another_crs_follow_their_own_straight_edges():
    """One long edge along a parallel: in UTM it is a curve, 2 m off its chord."""
    lonlat = to_lonlat("EPSG:32618")
    west, south = lonlat(600010, 299700)
    east, _ = lonlat(600490, 299700)
    zone = shapely.box(west, south - 1.0, east + 0.4, south)
    grid = Grid("EPSG:32618", (100, 0, 600000, 0, -100, 300000), (1200, 600))
    share = coverage_fraction(frame([zone], zone=["a"]), grid)
    fine = np.asarray(shapely.segmentize(zone, 0.0005).exterior.coords)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32618", always_xy=True).transform(*fine.T)
    exact = shapely.Polygon(np.c_[x, y])
    assert share.dense().values.sum() * 1e4 == pytest.approx(exact.area, rel=1e-7)


@pytest.mark.parametrize(
    ("source", "target"), [(4326, 32618), (32618, 4326), (9377, 32618), (3857, 9377), (4326, 3857)]
)
def test_reprojection_keeps_the_area(source, target):
    there = pyproj.Transformer.from_crs("EPSG:4326", source, always_xy=True).transform
    shape = shapely.transform(star(np.random.default_rng(3), 12, -74, 3, 0.5), there, interleaved=False)
    image = reprojected(rings_of([shape]), pyproj.CRS(source), pyproj.CRS(target))
    assert polygon_area_ha(image.geometries()[0], target) == pytest.approx(polygon_area_ha(shape, source), rel=1e-7)


def test_a_country_may_reach_far_beyond_the_projection_of_the_map():
    """Half the world in degrees on a small UTM grid."""
    zones = frame([shapely.box(-170, -80, 10, 80)], zone=["half"])
    share = coverage_fraction(zones, UTM)
    assert share.inside_ha[0] == pytest.approx(UTM.cell_area_ha().sum(), rel=1e-7)
    assert share.outside_ha[0] == pytest.approx(share.zone_ha[0] - share.inside_ha[0])


def test_no_zone_on_the_map_is_an_error_that_says_where_both_are():
    zones = frame([BOX], zone=["a"])
    far = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 900000), (10, 10))
    with pytest.raises(CRSMismatch, match=r"latitude 2.000 to 2.100.*latitude 8\."):
        coverage_fraction(zones, far)
    share = coverage_fraction(zones, far, allow_outside=True)
    assert share.inside_ha[0] == 0
    assert share.outside_ha[0] == share.zone_ha[0]


def test_swapped_axes_are_an_error():
    zones = frame([shapely.box(2.0, -74.0, 2.1, -73.9)], zone=["a"])
    with pytest.raises(CRSMismatch, match="no zone touches"):
        coverage_fraction(zones, Grid("EPSG:4326", (0.01, 0, -75, 0, -0.01, 3), (200, 200)))


def test_the_declared_axis_order_of_a_crs_does_not_matter():
    """EPSG:4326 has latitude first, EPSG:9377 northing first; coordinates are x, y all the same."""
    shape = shapely.transform(
        BOX, pyproj.Transformer.from_crs("EPSG:4326", "EPSG:9377", always_xy=True).transform, interleaved=False
    )
    assert polygon_area_ha(shape, "EPSG:9377") == pytest.approx(polygon_area_ha(BOX, "EPSG:4326"), rel=1e-5)


def test_zones_without_crs_or_twice_the_same_name_are_refused():
    with pytest.raises(CRSMismatch, match="set_crs"):
        coverage_fraction(frame([BOX], crs=None, zone=["a"]), UTM)
    with pytest.raises(ZoneError, match="unique"):
        coverage_fraction(frame([BOX, BOX], zone=["a", "a"]), UTM)
    with pytest.raises(ZoneError, match="no zones"):
        coverage_fraction(frame([], zone=[]), UTM)


def test_a_zone_that_crosses_itself_is_refused_by_name():
    bow_tie = shapely.Polygon([(600000, 299600), (600400, 300000), (600400, 299600), (600000, 300000)])
    with pytest.raises(ZoneError, match="'twisted'"):
        coverage_fraction(frame([bow_tie], crs="EPSG:32618", zone=["twisted"]), UTM)


def test_zones_are_not_changed():
    zones = frame([BOX], zone=["a"])
    before = zones.copy(deep=True)
    coverage_fraction(zones, Grid("EPSG:4326", (0.01, 0, -75, 0, -0.01, 3), (200, 200)))
    pd.testing.assert_frame_equal(pd.DataFrame(zones), pd.DataFrame(before))


def test_rows_may_be_taken_in_strips():
    zones = frame([star(np.random.default_rng(0), 20, 600250, 299800, 240)], crs="EPSG:32618", zone=["a"])
    share = coverage_fraction(zones, UTM)
    part = share.dense(10, 20)
    assert np.array_equal(part.values, share.dense().values[:, 10:20])
    assert Grid.from_xarray(part) == UTM.window(10, 20, 0, 50)
    assert np.array_equal(np.sort(np.r_[share.strips(0, 17), share.strips(17)]), share.strips())


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_a_bit(threads):
    rng = np.random.default_rng(9)
    shapes = [
        star(rng, int(n), *rng.uniform([600000, 299600], [600500, 300000]), 150) for n in [2000, 5, 9, 4, 800, 30, 7]
    ]
    zones = frame(shapes, crs="EPSG:32618", zone=[str(n) for n in range(7)])
    for one, many in zip(
        coverage_fraction(zones, UTM).arrays, coverage_fraction(zones, UTM, threads=threads).arrays, strict=True
    ):
        assert np.array_equal(one, many)


# Ownership -------------------------------------------------------------------------------------------------------------

TILES = {
    "18NXG": Grid("EPSG:32618", (60, 0, 800000, 0, -60, 300000), (1000, 1000)),
    "18NXF": Grid("EPSG:32618", (60, 0, 800000, 0, -60, 250000), (1000, 1000)),
    "19NBA": Grid("EPSG:32619", (60, 0, 180000, 0, -60, 280000), (1000, 1000)),
    "degrees": Grid("EPSG:4326", (0.0005, 0, -72.0, 0, -0.0005, 2.4), (500, 800)),
}


def test_owned_ground_does_not_overlap_and_covers_all_tiles():
    owned = own_tiles(TILES)
    whole = own_tiles({"all": TILES["18NXG"]})
    assert whole.geometry[0].area > 0
    shapes = owned.geometry.values
    single = [own_tiles({name: grid}).geometry[0] for name, grid in TILES.items()]
    assert sum(shape.area for shape in shapes) == pytest.approx(shapely.union_all(single).area, rel=1e-12)
    for i in range(len(shapes)):
        for j in range(i):
            assert shapely.intersection(shapes[i], shapes[j]).area < 1e-15


def test_ownership_does_not_depend_on_the_order_of_tiles():
    turned = dict(reversed(list(TILES.items())))
    pd.testing.assert_frame_equal(pd.DataFrame(own_tiles(TILES)), pd.DataFrame(own_tiles(turned)))


def test_priority_comes_before_the_name():
    owned = own_tiles(TILES, priority=["19NBA"]).set_index("tile").geometry
    alone = own_tiles({"19NBA": TILES["19NBA"]}).geometry[0]
    assert owned["19NBA"].area == pytest.approx(alone.area, rel=1e-12)
    assert owned["18NXG"].area < own_tiles(TILES).set_index("tile").geometry["18NXG"].area


def test_valid_data_decides_what_a_tile_owns():
    west = shapely.box(-73, 0, -72.2, 4)
    owned = own_tiles(TILES, valid={"18NXG": west}).set_index("tile").geometry
    assert owned["18NXG"].bounds[2] <= -72.2


def test_priority_for_an_unknown_tile_is_refused():
    with pytest.raises(InputRefused, match="20NAA"):
        own_tiles(TILES, priority=["20NAA"])


def test_a_tile_over_the_antimeridian_is_refused():
    with pytest.raises(ZoneError, match="antimeridian"):
        own_tiles({"a": Grid("EPSG:32601", (60, 0, 140000, 0, -60, 300000), (1000, 1000))})


def test_the_parts_of_a_park_on_all_tiles_add_up_to_it():
    rng = np.random.default_rng(6)
    parks = frame([polygonal(star(rng, 25, -71.9, 2.2, 0.35)), shapely.box(-72.1, 2.1, -71.9, 2.3)], zone=["a", "b"])
    owned = own_tiles(TILES).set_index("tile").geometry
    inside = sum(
        coverage_fraction(parks, TILES[tile], owned=owned[tile], allow_outside=True).inside_ha for tile in TILES
    )
    union = shapely.union_all(owned.values)
    expected = polygon_area_ha([polygonal(shape.intersection(union)) for shape in parks.geometry], "EPSG:4326")
    np.testing.assert_allclose(inside, expected, rtol=1e-9)
    assert inside[1] == pytest.approx(polygon_area_ha(parks.geometry[1], "EPSG:4326"), rel=1e-12)


def test_parks_and_what_lies_between_them_add_up_to_the_archive():
    owned = own_tiles(TILES)
    footprint = shapely.union_all(owned.geometry.values)
    park = shapely.box(-72.1, 2.1, -71.9, 2.3)
    zones = frame([park, polygonal(footprint.difference(park))], zone=["park", "rest"])
    total = 0.0
    for tile, ground in zip(owned["tile"], owned.geometry, strict=True):
        total += coverage_fraction(zones, TILES[tile], owned=ground, allow_outside=True).inside_ha.sum()
    assert total == pytest.approx(polygon_area_ha(owned.geometry.values, "EPSG:4326").sum(), rel=1e-9)
