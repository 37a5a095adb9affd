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
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.coverage import Coverage, coverage_fraction, dense_fractions
from geococa.coverage_file import ARRAYS, arrays_digest
from geococa.errors import CRSMismatch, GridMismatch, InputRefused, ZoneError
from geococa.footprints import valid_footprint
from geococa.grid import Grid
from geococa.ownership import own_tiles
from geococa.polygons import polygon_area_ha, reprojected, rings_of
from geococa.zone_algebra import zone_overlaps
from geococa.zone_files import read_zones
from geococa.zone_hierarchy import assign_parents
from geococa.zone_repair import repair_polygons
from geococa.zone_statistics import zonal_statistics
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


def test_the_message_about_names_twice_lists_columns_of_the_file_that_would_do(tmp_path):
    path = tmp_path / "a.gpkg"
    again = [BOX] * 4
    frame(
        again, name=["a", "a", "b", "b"], WDPAID=[1, 2, 3, 4], share=[0.1, 0.2, 0.3, 0.4], kind=["x", "x", "y", "z"]
    ).to_file(path)
    with pytest.raises(ZoneError, match=r"\['a', 'b'\].*name= \(WDPAID\), or use duplicates='number'"):
        read_zones(path)
    assert read_zones(path, name="WDPAID")["zone"].tolist() == ["1", "2", "3", "4"]
    frame(again, name=["a", "a", "b", "b"]).to_file(path)
    with pytest.raises(ZoneError, match="no column is unique; use duplicates='number'"):
        read_zones(path)


def test_numbered_names_keep_clear_of_names_that_are_there(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([BOX] * 4, name=["a", "a", "a (2)", "a"]).to_file(path)
    assert read_zones(path, duplicates="number")["zone"].tolist() == ["a", "a (3)", "a (2)", "a (4)"]


@pytest.mark.parametrize("settings", [{"duplicates": "keep"}, {"repair": "yes"}])
def test_unknown_settings_are_refused(tmp_path, settings):
    path = tmp_path / "a.gpkg"
    frame([BOX], name=["a"]).to_file(path)
    with pytest.raises(InputRefused, match=next(iter(settings))):
        read_zones(path, **settings)


def test_a_layer_of_a_file_without_layers_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    frame([BOX], name=["a"]).to_parquet(path)
    assert read_zones(path)["zone"].tolist() == ["a"]
    with pytest.raises(ZoneError, match="leave layer out"):
        read_zones(path, layer="parks")


@pytest.mark.parametrize("path", [None, 5, ["a.gpkg"]], ids=str)
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(InputRefused, match="path"):
        read_zones(path)


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


def test_a_polygon_over_the_antimeridian_is_split_there(tmp_path, caplog):
    path = tmp_path / "a.gpkg"
    frame([shapely.box(-179, -17, 179, -16), BOX]).to_file(path)
    with caplog.at_level(logging.WARNING, logger="geococa"):
        zones = read_zones(path)
    assert "'park 0'" in caplog.text
    assert [part.bounds for part in zones.geometry[0].geoms] == [(-180, -17, -179, -16), (179, -17, 180, -16)]
    expected = polygon_area_ha(shapely.box(0, -17, 2, -16), "EPSG:4326")
    assert polygon_area_ha(zones.geometry[0], "EPSG:4326") == pytest.approx(expected, rel=1e-12)


def test_a_hole_on_the_other_side_of_the_antimeridian_stays_a_hole(tmp_path):
    path = tmp_path / "a.gpkg"
    shell = [(178, 0), (-178, 0), (-178, 4), (178, 4)]
    frame([shapely.Polygon(shell, [[(-179.5, 1), (-179, 1), (-179, 2)]])]).to_file(path)
    expected = polygon_area_ha(
        shapely.Polygon([(8, 0), (12, 0), (12, 4), (8, 4)], [[(10.5, 1), (11, 1), (11, 2)]]), "EPSG:4326"
    )
    assert polygon_area_ha(read_zones(path).geometry[0], "EPSG:4326") == pytest.approx(expected, rel=1e-12)


def test_an_edge_that_may_go_either_way_round_is_refused(tmp_path):
    path = tmp_path / "a.gpkg"
    frame([shapely.box(-120, -17, 120, -16)]).to_file(path)
    with pytest.raises(ZoneError, match=r"240 degrees.*antimeridian"):
        read_zones(path)
    jump = shapely.Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)])
    with pytest.raises(ZoneError, match="antimeridian"):
        polygon_area_ha(jump, "EPSG:4326")


SPLIT = shapely.MultiPolygon([shapely.box(179.9, 2.2, 180, 2.4), shapely.box(-180, 2.2, -179.9, 2.4)])


@pytest.mark.parametrize("shape", [SPLIT, shapely.box(179.9, 2.2, 180.1, 2.4), shapely.box(-180.1, 2.2, -179.9, 2.4)])
@pytest.mark.parametrize(
    "grid",
    [
        Grid("EPSG:32601", (120, 0, 140000, 0, -120, 300000), (500, 500)),
        Grid("EPSG:32660", (120, 0, 800000, 0, -120, 300000), (500, 500)),
        Grid("EPSG:4326", (0.001, 0, 179.8, 0, -0.001, 2.5), (400, 400)),
        Grid("EPSG:4326", (0.001, 0, -180.2, 0, -0.001, 2.5), (400, 400)),
    ],
    ids=["utm 1n", "utm 60n", "degrees, east", "degrees, west"],
)
def test_shares_of_zones_over_the_antimeridian(shape, grid):
    zones = frame([shape], zone=["a"])
    true = polygon_area_ha(shapely.box(10, 2.2, 10.2, 2.4), "EPSG:4326")
    for owned in (None, own_tiles({"a": grid}).geometry[0]):
        share = coverage_fraction(zones, grid, owned=owned)
        assert share.zone_ha[0] == pytest.approx(true, rel=1e-9)
        assert share.inside_ha[0] == pytest.approx(true, rel=1e-9)
        assert (share.dense().values[0] * grid.cell_area_ha()).sum() == pytest.approx(true, rel=1e-7)


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


def test_a_tile_over_the_antimeridian_owns_ground_on_both_sides():
    grid = Grid("EPSG:32601", (60, 0, 140000, 0, -60, 300000), (1000, 1000))
    ground = own_tiles({"a": grid}).geometry[0]
    assert ground.bounds[0] == -180
    assert ground.bounds[2] == 180
    assert polygon_area_ha(ground, "EPSG:4326") == pytest.approx(grid.cell_area_ha().sum(), rel=1e-9)


def test_a_tile_around_a_pole_is_refused():
    with pytest.raises(ZoneError, match=r"tile 'a'.*pole"):
        own_tiles({"a": Grid("EPSG:3995", (100, 0, -5000, 0, -100, 5000), (100, 100))})


def test_tiles_of_one_lattice_part_between_cells():
    """Whole cells belong to one tile or the other, though ownership is kept in longitude and latitude."""
    whole = Grid("EPSG:32618", (10, 0, 300000, 0, -10, 500000), (10980, 21000))
    tiles = {"a": whole.window(0, 10980, 0, 10980), "b": whole.window(5, 10980, 9982, 21000)}
    owned = own_tiles(tiles).set_index("tile").geometry
    from geococa.owned_ground import owned_pixels

    assert owned_pixels(owned["a"], tiles["a"]).equals(shapely.box(0, 0, 10980, 10980))
    assert owned_pixels(owned["b"], tiles["b"]).equals(shapely.box(10980 - 9982, 0, 21000 - 9982, 10975))
    # without that, the line between them is off by what its vertices leave of a curve
    assert polygon_area_ha(owned["b"], "EPSG:4326") == pytest.approx(
        tiles["b"].window(0, 10975, 998, 11018).cell_area_ha().sum(), rel=1e-8
    )


def test_ground_of_another_lattice_does_not_snap():
    grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (40, 50))
    from geococa.owned_ground import owned_pixels

    shifted = own_tiles({"b": Grid("EPSG:32618", (10, 0, 600203, 0, -10, 299904), (10, 10))}).geometry[0]
    x0, y0, x1, y1 = owned_pixels(shifted, grid).bounds
    np.testing.assert_allclose([x0, y0, x1, y1], [20.3, 9.6, 30.3, 19.6], atol=1e-6)


# Footprints ------------------------------------------------------------------------------------------------------------


def seen_map(grid, seen):
    return grid.attach(xr.DataArray(seen, dims=("y", "x")))


def test_a_footprint_follows_the_edges_of_cells():
    grid = Grid("EPSG:32618", (50, 0, 600000, 0, -50, 300000), (200, 300))
    row, column = np.ogrid[:200, :300]
    seen = column > 30 + 0.3 * row
    seen[20, 10] = True  # a crumb of data, and a crumb without
    speckled = seen.copy()
    speckled[100:104, 200:204] = False
    footprint = valid_footprint(seen_map(grid, speckled))
    seen[20, 10] = False
    assert polygon_area_ha(footprint, "EPSG:4326") == pytest.approx((seen * grid.cell_area_ha()).sum(), rel=1e-8)
    from geococa.owned_ground import owned_pixels

    assert np.array_equal(
        dense_fractions([owned_pixels(footprint, grid)], Grid(grid.crs, (1, 0, 0, 0, 1, 0), grid.shape))[0], seen
    )


def test_a_footprint_takes_any_year_and_any_kind_of_map():
    grid = Grid("EPSG:32618", (100, 0, 600000, 0, -100, 300000), (60, 60))
    labels = np.full((2, 60, 60), 255, np.uint8)
    labels[0, :, :30] = 1
    labels[1, :20] = 2
    array = grid.attach(xr.DataArray(labels, dims=("time", "y", "x")))
    floats = array.where(array != 255).astype("float32")
    expected = ((labels != 255).any(axis=0) * grid.cell_area_ha()).sum()
    for kind in (array, floats, array != 255, array.chunk({"y": 7})):
        assert polygon_area_ha(valid_footprint(kind), "EPSG:4326") == pytest.approx(expected, rel=1e-8)
    assert valid_footprint(grid.attach(xr.DataArray(np.full((60, 60), 255, np.uint8), dims=("y", "x")))).is_empty
    with pytest.raises(InputRefused, match="int32"):
        valid_footprint(array.astype("int32"))


def test_ground_belongs_to_the_first_tile_with_data_and_only_then_to_the_first_tile():
    grids = {
        "a": Grid("EPSG:32618", (100, 0, 600000, 0, -100, 300000), (60, 60)),
        "b": Grid("EPSG:32618", (100, 0, 603000, 0, -100, 300000), (60, 60)),
    }
    seen = np.ones((60, 60), bool)
    seen[:, 40:] = False
    blind = np.ones((60, 60), bool)
    blind[:30, :20] = False
    footprints = {"a": valid_footprint(seen_map(grids["a"], seen)), "b": valid_footprint(seen_map(grids["b"], blind))}
    owned = own_tiles(grids, footprints=footprints).set_index("tile").geometry
    from geococa.owned_ground import owned_pixels

    # columns 40-60 of a have no data; b has, but for 10 of them in its upper half
    expected = shapely.union_all([shapely.box(0, 0, 40, 60), shapely.box(40, 0, 50, 30)])
    assert owned_pixels(owned["a"], grids["a"]).equals(expected)
    union = shapely.union_all(own_tiles(grids).geometry.values)
    assert shapely.union_all(owned.values).area == pytest.approx(union.area, rel=1e-9)
    assert shapely.intersection(owned["a"], owned["b"]).area == 0
    with pytest.raises(InputRefused, match="footprints names"):
        own_tiles(grids, footprints={"c": shapely.box(0, 0, 1, 1)})


def test_whole_footprints_change_nothing():
    whole = {name: own_tiles({name: grid}).geometry[0] for name, grid in TILES.items()}
    one, other = own_tiles(TILES), own_tiles(TILES, footprints=whole)
    for a, b in zip(one.geometry, other.geometry, strict=True):
        assert shapely.symmetric_difference(a, b).area < 1e-12


# Coverage files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    zones = frame([star(np.random.default_rng(0), 20, -74.0982, 2.7115, 0.0015), BOX], zone=["a", "b"])
    owned = shapely.box(-74.2, 2.7, -74.0981, 2.8)
    share = coverage_fraction(zones, UTM, owned=owned)
    return share, share.save(tmp_path / "a.npz"), zones, owned


def test_a_coverage_reads_back_as_it_was(saved):
    share, path, zones, owned = saved
    again = Coverage.load(path, zones, UTM, owned=owned)
    for one, other in zip(share.arrays, again.arrays, strict=True):
        assert np.array_equal(one, other)
        assert one.dtype == other.dtype
    for area in ("ellipsoidal", "planar:EPSG:32618"):
        assert np.array_equal(again.measured(area), share.measured(area))
    cover = UTM.attach(xr.DataArray(np.random.default_rng(0).normal(size=UTM.shape), dims=("y", "x")))
    for method in ("exact", "centre"):
        tables = [zonal_statistics(cover, s, stats=["mean"], method=method) for s in (share, again)]
        pd.testing.assert_frame_equal(*tables)
    assert again.save(path.with_name("b.npz")).read_bytes() == path.read_bytes()


def test_a_coverage_of_other_zones_grid_or_ground_is_refused(saved):
    _, path, zones, owned = saved
    moved = zones.set_geometry(zones.translate(1e-9))
    for args, ground in (
        ((moved, UTM), owned),
        ((zones.assign(zone=["a", "c"]), UTM), owned),
        ((zones, UTM.window(0, 39, 0, 50)), owned),
        ((zones, UTM), None),
    ):
        with pytest.raises(GridMismatch, match="another grid"):
            Coverage.load(path, *args, owned=ground)


def rewritten(path, *, digest=True, **changes):
    with np.load(path) as file:
        members = {name: file[name] for name in file.files} | changes
    if digest and all(isinstance(members.get(name), np.ndarray) for name in ("header", *ARRAYS)):
        # as one who forges the file would: what can't be is found by itself
        old = members["header"].tobytes()
        start = old.find(b'"digest": "') + 11
        new = old[:start] + arrays_digest(members).encode() + old[start + 64 :] if start > 10 else old
        members["header"] = np.frombuffer(new, np.uint8)
    np.savez(path, **{name: value for name, value in members.items() if value is not None})


@pytest.mark.parametrize(
    "change",
    [
        {"cell_column": lambda a: a + 1000},
        {"cell_column": lambda a: a - 1000},
        {"strip_zone": lambda a: a + 2},
        {"strip_zone": lambda a: a[::-1].copy() + np.arange(a.size, dtype=np.int32) % 2},
        {"strip_row": lambda a: a * 0},
        {"span_offsets": lambda a: a * 1000},
        {"span_offsets": lambda a: a[:-1]},
        {"cell_offsets": lambda a: -a},
        {"span_stop": lambda a: a * 0},
        {"cell_fraction": lambda a: a * np.nan},
        {"cell_fraction": lambda a: a + 1},
        {"cell_fraction": lambda a: a.astype("float32")},
        {"ring_offsets": lambda a: a + 1},
        {"ring_x": lambda a: a * np.inf},
        {"zone_ha": lambda a: a - 1e9},
        {"inside_ha": lambda a: a + 1e9},
        {"inside_ha": None},
        {"header": lambda a: a[: a.size // 2]},
        {"surplus": lambda a: np.zeros(3)},
        {"cell_column": lambda a: a.astype(object)},
        {"cell_column": lambda a: a.reshape(-1, 1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_hostile_coverage_files_are_refused(saved, change):
    _, path, zones, owned = saved
    with np.load(path) as file:
        old = {name: file[name] for name in file.files}
    rewritten(path, **{k: None if f is None else f(old.get(k)) for k, f in change.items()})
    with pytest.raises(InputRefused, match=r"again|damaged"), np.errstate(invalid="ignore"):
        Coverage.load(path, zones, UTM, owned=owned)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cell_fraction", lambda a: a * 0.5),
        ("cell_fraction", lambda a: a + np.where(np.arange(a.size) == 3, 1e-12, 0)),
        ("zone_ha", lambda a: a * 2),
        ("inside_ha", lambda a: a * 0.5),
        ("ring_x", lambda a: a + 1e-9),
        ("span_start", lambda a: a - (np.arange(a.size) == 0).astype(np.int32)),
    ],
)
def test_numbers_changed_in_a_coverage_file_do_not_become_hectares(saved, name, change):
    """All of them could be those of some zone: only the digest tells."""
    _, path, zones, owned = saved
    with np.load(path) as file:
        old = file[name]
    rewritten(path, digest=False, **{name: old})
    Coverage.load(path, zones, UTM, owned=owned)
    rewritten(path, digest=False, **{name: change(old)})
    with pytest.raises(InputRefused, match="not those that were saved"):
        Coverage.load(path, zones, UTM, owned=owned)
    rewritten(path, **{name: change(old)})
    Coverage.load(path, zones, UTM, owned=owned)


def test_damaged_coverage_files_are_refused(saved):
    _, path, zones, owned = saved
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    cases = [b"", b"PK", data[:-40], data[: len(data) // 2], b"<html>" + data, np.random.default_rng(1).bytes(500)]
    for _ in range(60):
        broken = bytearray(data)
        broken[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        cases.append(bytes(broken))
    good = Coverage.load(path, zones, UTM, owned=owned)
    for case in cases:
        path.write_bytes(case)
        try:
            again = Coverage.load(path, zones, UTM, owned=owned)
        except InputRefused:
            continue
        # a byte that means nothing, such as a date in the zip
        assert all(np.array_equal(a, b) for a, b in zip(again.arrays, good.arrays, strict=True))
    path.unlink()
    with pytest.raises(InputRefused, match="no such"):
        Coverage.load(path, zones, UTM, owned=owned)


# Attributes and hierarchy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "expected"), [
    ({"ap_id": [6.0], "ap_nombre": ["Nukak"], "ap_categor": ["Reserva Natural"]}, ("6", "Reserva Natural", "Reserva Natural")),
    ({"WDPAID": [10754], "NAME": ["Gorgona"], "DESIG": ["Parque"], "DESIG_ENG": ["National Park"], "IUCN_CAT": ["II"],
      "STATUS_YR": [1984], "PARENT_ISO": ["COL"]}, ("10754", "National Park", "II")),
    ({"DPTO_CCDGO": ["50"], "MPIO_CDPMP": ["50350"], "MPIO_CNMBR": ["LA MACARENA"]}, ("50350", None, None)),
    ({"park": ["a"], "zone_id": ["mine"], "wdpa_id": [3]}, ("mine", None, None)),
])  # fmt: skip
def test_attributes_of_known_files_get_common_columns(tmp_path, columns, expected):
    path = tmp_path / "a.gpkg"
    frame([BOX], **columns).to_file(path)
    zones = read_zones(path)
    assert (
        tuple(zones[name][0] if name in zones else None for name in ("zone_id", "designation", "category")) == expected
    )
    assert set(columns) <= set(zones.columns)


def test_real_files_are_recognised(shared_data):
    parks = read_zones(shared_data / "vectors" / "co_parks_coastal_simplified.geojson")
    assert parks.set_index("zone").loc["Gorgona", "zone_id"] == "10754"
    towns = read_zones(shared_data / "vectors" / "co_municipalities_dane2021_simplified.gpkg", name="MPIO_CDPMP")
    assert towns["zone_id"].str.fullmatch(r"\d{5}").all()


def test_a_zone_belongs_to_the_parent_that_holds_most_of_it():
    zones = frame(
        [shapely.box(-74, 2, -73, 3), shapely.box(-60, 2, -59, 3), shapely.box(-74.5, 2, -74, 2.1)],
        zone=["a", "b", "c"],
    )
    west, east = shapely.box(-75, 1, -73.6, 4), shapely.box(-73.6, 1, -72, 4)
    parents = frame([west, east], zone=["Meta", "Guaviare"])
    for layer in (parents, parents.to_crs("EPSG:3857")):
        out = assign_parents(zones, layer, name="department")
        assert out["department"].tolist() == ["Guaviare", None, "Meta"]
        np.testing.assert_allclose(out["department_share"], [0.6, 0, 1], atol=1e-7)
    assert list(zones.columns) == ["zone", "geometry"]
    with pytest.raises(InputRefused, match="department"):
        assign_parents(out, parents, name="department")


def test_equal_shares_go_to_the_first_parent_whatever_the_rounding():
    zone = frame([shapely.box(-74, 2, -73, 3)], zone=["a"])
    halves = [shapely.box(-74, 1, -73.5, 4), shapely.box(-73.5, 1, -73, 4)]
    for shapes in (halves, halves[::-1]):
        assert assign_parents(zone, frame(shapes, zone=["first", "second"]))["parent"][0] == "first"


def test_municipalities_lie_in_their_departments(shared_data):
    towns = read_zones(shared_data / "vectors" / "co_municipalities_dane2021_simplified.gpkg", name="MPIO_CDPMP")[::12]
    departments = read_zones(shared_data / "vectors" / "co_departments.geojson", name="DPTO")
    out = assign_parents(towns, departments, name="department")
    # the two files are drawn to different detail; islands are moved in one of them
    assert (out["department"] == out["DPTO_CCDGO"]).mean() > 0.97


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


def test_rings_of_a_zone_cut_at_the_antimeridian_are_those_of_the_whole_zone():
    cut = shapely.MultiPolygon([shapely.box(179.8, 0, 180, 0.3), shapely.box(-180, 0, -179.9, 0.3)])
    areas = []
    for shape in (cut, shapely.box(9.8, 0, 10.1, 0.3)):
        zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shape], crs="EPSG:4326")
        rings = buffer_rings(zones, [0, 1000, 10_000])
        assert np.abs(rings.total_bounds[[0, 2]]).max() <= 180
        areas.append([polygon_area_ha(ring, "EPSG:4326") for ring in rings.geometry])
    np.testing.assert_allclose(areas[0], areas[1], rtol=1e-7)


def test_zones_on_both_sides_of_the_antimeridian_share_their_ground():
    shapes = [shapely.box(179.9, 0, 180.1, 1), shapely.box(-180, 0, -179.9, 1)]
    table = zone_overlaps(geopandas.GeoDataFrame({"zone": ["a", "b"]}, geometry=shapes, crs="EPSG:4326"))
    assert table.loc["a", "b"] == pytest.approx(table.loc["b", "b"], rel=1e-9)
    assert table.loc["a", "a"] == pytest.approx(2 * table.loc["b", "b"], rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z.assign(zone=[None]), "have no name"),
        (lambda z: z.set_geometry([shapely.Polygon([(0, 0), (900, 900), (900, 0), (0, 900)])], crs=z.crs), "cross"),
        (lambda z: z.set_crs(None, allow_override=True), "no coordinate reference system"),
        (lambda z: [z], "GeoDataFrame, got list"),
    ],
)
@pytest.mark.parametrize("function", [zone_overlaps, lambda zones: buffer_rings(zones, [0, 100])])
def test_zones_that_can_not_be_used_are_refused_by_name(function, change, message):
    zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(0, 0, 900, 900)], crs="EPSG:32618")
    with pytest.raises((InputRefused, ZoneError), match=message):
        function(change(zones))


@pytest.mark.parametrize("distances", [1000.0, ["1km"], [0, 3e7], [-1, 5], [0]])
def test_ring_distances_that_are_no_distances_are_refused(distances):
    zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(0, 0, 900, 900)], crs="EPSG:32618")
    with pytest.raises(InputRefused, match="distances must be"):
        buffer_rings(zones, distances)


def test_an_empty_zone_has_no_rings():
    zones = geopandas.GeoDataFrame({"zone": ["a", "b"]}, geometry=[shapely.box(0, 0, 900, 900), None], crs="EPSG:32618")
    assert set(buffer_rings(zones, [0, 100])["of"]) == {"a"}


@pytest.mark.parametrize(
    "what", [None, [1], "a.gpkg", np.ones(3), shapely.box(0, 0, 1, 1)], ids=lambda v: type(v).__name__
)
def test_what_is_no_zones_tiles_or_grid_is_refused_by_name(what):
    zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(0, 0, 900, 900)], crs="EPSG:32618")
    grid = Grid("EPSG:32618", (100, 0, 0, 0, -100, 900), (9, 9))
    calls = [
        lambda: coverage_fraction(what, grid),
        lambda: coverage_fraction(zones, what),
        lambda: buffer_rings(what, [0, 100]),
        lambda: zone_overlaps(what),
        lambda: assign_parents(what, zones),
        lambda: assign_parents(zones, what),
        lambda: own_tiles(what),
        lambda: own_tiles({"a": what}),
    ]
    for call in calls:
        with pytest.raises(InputRefused):
            call()
    if what is not None and not isinstance(what, shapely.Geometry):
        with pytest.raises(InputRefused, match="owned"):
            coverage_fraction(zones, grid, owned=what)
        with pytest.raises(InputRefused, match="valid"):
            own_tiles({"a": grid}, valid={"a": what})


# Arguments of a coverage ---------------------------------------------------------------------------------------------------

SQUARES = geopandas.GeoDataFrame(
    {"zone": ["a", "b"]},
    geometry=[shapely.box(600010, 299810, 600100, 299990), shapely.box(600055, 299810, 600150, 299990)],
    crs="EPSG:32618",
)


@pytest.mark.parametrize("threads", [1.5, "2", 0, -1, True])
def test_threads_that_are_no_number_of_threads_are_refused(threads):
    share = coverage_fraction(SQUARES, UTM)
    for call in (
        lambda: coverage_fraction(SQUARES, UTM, threads=threads),
        lambda: dense_fractions(SQUARES.geometry.values, UTM, threads=threads),
        lambda: share.measured(threads=threads),
    ):
        with pytest.raises(InputRefused, match="threads must be a whole number"):
            call()


def test_no_number_of_threads_takes_every_processor_and_changes_nothing():
    one, many = coverage_fraction(SQUARES, UTM), coverage_fraction(SQUARES, UTM, threads=None)
    for a, b in zip(one.arrays, many.arrays, strict=True):
        assert a.tobytes() == b.tobytes()
    dense = dense_fractions(SQUARES.geometry.values, UTM, threads=None)
    assert np.array_equal(dense, one.dense())
    assert np.array_equal(one.measured(threads=None), many.measured())


@pytest.mark.parametrize("grid", [None, 5, "EPSG:32618", (10, 10)])
def test_dense_shares_need_a_grid(grid):
    with pytest.raises(InputRefused, match="grid must be a Grid"):
        dense_fractions(SQUARES.geometry.values, grid)


@pytest.mark.parametrize("shapes", [None, "a", [5]])
def test_dense_shares_need_polygons(shapes):
    with pytest.raises(ZoneError, match="polygons"):
        dense_fractions(shapes, UTM)


@pytest.mark.parametrize("zone", ["nope", 99, 2, -1, 1.5, None, True])
def test_a_zone_that_a_coverage_lacks_is_refused(zone):
    with pytest.raises(InputRefused, match="nope.*which has a, b" if zone == "nope" else "from 0 to 1"):
        coverage_fraction(SQUARES, UTM).cells(zone)


@pytest.mark.parametrize("rows", [(5, 2), (0, 99), (-1, 5), (1.5, 3), ("a", 2), (41, 41)])
def test_rows_that_a_coverage_lacks_are_refused(rows):
    share = coverage_fraction(SQUARES, UTM)
    for call in (share.dense, share.strips):
        with pytest.raises(InputRefused, match=r"row_st(art|op) must be a whole number"):
            call(*rows)
    assert share.dense(40, 40).shape == (2, 0, 50)


@pytest.mark.parametrize("area", [None, 5, "planar:x", "square metres", ["ellipsoidal"]])
def test_hectares_on_another_surface_are_refused(area):
    with pytest.raises(InputRefused, match="area"):
        coverage_fraction(SQUARES, UTM).measured(area)


def test_ground_owned_that_leaves_nothing_is_told_from_a_wrong_crs():
    """No zone touches the ground owned, though the map holds them: the CRS is not what is wrong."""
    owners = own_tiles({"first": UTM, "second": UTM}).set_index("tile").geometry
    with pytest.raises(InputRefused, match="owns no ground: owned= is empty") as nothing:
        coverage_fraction(SQUARES, UTM, owned=owners["second"])
    with pytest.raises(InputRefused, match=r"not the ground that it owns.*longitude -70\.000 to") as elsewhere:
        coverage_fraction(SQUARES, UTM, owned=shapely.box(-70, 1, -69, 2))
    for error in (nothing, elsewhere):
        assert not isinstance(error.value, CRSMismatch)
        assert "no zone touches" not in str(error.value)
    # where the map holds none of them, owned or not, it is the map that is elsewhere
    with pytest.raises(CRSMismatch, match="no zone touches the map"):
        coverage_fraction(SQUARES.translate(1e5).to_frame("geometry"), UTM, owned=shapely.box(-70, 1, -69, 2))
    empty = coverage_fraction(SQUARES, UTM, owned=owners["second"], allow_outside=True)
    assert empty.inside_ha.tolist() == [0, 0]
    assert (empty.outside_ha == empty.zone_ha).all()


def test_a_coverage_file_that_can_not_be_written_or_named_is_refused(tmp_path):
    share = coverage_fraction(SQUARES, UTM)
    for path in (tmp_path, tmp_path / "nowhere" / "a.npz"):
        with pytest.raises(InputRefused, match="can't be written"):
            share.save(path)
    for path in (None, 5):
        with pytest.raises(InputRefused, match="path must be"):
            share.save(path)
        with pytest.raises(InputRefused, match="path must be"):
            Coverage.load(path, SQUARES, UTM)
    assert list(tmp_path.iterdir()) == []
    path = share.save(tmp_path / "a.npz")
    with pytest.raises(InputRefused, match="grid must be a Grid"):
        Coverage.load(path, SQUARES, None)
    with pytest.raises(InputRefused, match="owned must be"):
        Coverage.load(path, SQUARES, UTM, owned=5)


@pytest.mark.parametrize(
    "arguments",
    [{"priority": 5}, {"valid": [1]}, {"footprints": 5}, {"valid": {"a": None}}],
    ids=lambda v: next(iter(v)),
)
def test_owners_need_names_and_polygons(arguments):
    with pytest.raises(InputRefused, match=next(iter(arguments))):
        own_tiles({"a": UTM}, **arguments)
    with pytest.raises(InputRefused, match="name of a tile"):
        own_tiles({"a": UTM, 1: UTM})


# Zones kept from tile to tile ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:9377", "EPSG:4326"])
def test_zones_kept_from_tile_to_tile_change_no_bit_and_are_not_reprojected_again(crs, monkeypatch):
    from geococa import zone_memory, zone_shapes

    rng = np.random.default_rng(6)
    shapes = [polygonal(star(rng, 40, 600250 + 60 * n, 299800, 200)) for n in range(4)]
    zones = geopandas.GeoDataFrame({"zone": list("abcd")}, geometry=shapes, crs="EPSG:32618").to_crs(crs)
    grids = {name: UTM.window(0, 40, start, start + 25) for name, start in (("x", 0), ("y", 20), ("z", 25))}
    owners = own_tiles(grids).set_index("tile").geometry
    calls = []
    real = zone_shapes.reprojected
    monkeypatch.setattr(zone_shapes, "reprojected", lambda *args, **kw: calls.append(args[2]) or real(*args, **kw))

    def measured():
        shares = [
            coverage_fraction(zones, grid, owned=owners[name], allow_outside=True) for name, grid in grids.items()
        ]
        return b"".join(np.concatenate([np.ravel(a) for a in (*s.arrays, *s.measured())]).tobytes() for s in shares)

    zone_memory._box.cache_clear()
    kept = measured()
    once = len(calls)
    assert measured() == kept
    # neither the second nor the third tile, nor another run, reprojects anything
    assert len(calls) == once == (1 if crs != "EPSG:9377" else 2)
    monkeypatch.setattr(zone_memory, "_MOST_VERTICES", -1)
    assert measured() == kept
    assert len(calls) == once * (1 + len(grids))
    monkeypatch.undo()
    # a vertex moved by a micrometre makes other zones of them
    zones = zones.set_geometry(zones.translate(1e-6 if crs != "EPSG:4326" else 1e-11))
    assert measured() != kept


# Old datums ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("zone_crs", "grid_crs"), [("EPSG:4218", "EPSG:32618"), ("EPSG:4326", "EPSG:21897")])
def test_a_zone_over_the_border_of_two_datum_shifts_is_not_torn(zone_crs, grid_crs):
    """Bogota 1975 has a shift for each of eight regions; they meet at longitude -74.4, metres apart.

    A plot across that line lost or won up to 5 % of its cells, and its table was refused.
    """
    plots = [shapely.box(-74.4 - w * 1e-3, 4.25, -74.4 + (1 - w) * 1e-3, 4.251) for w in np.linspace(0.05, 0.95, 10)]
    zones = frame(plots, crs=zone_crs, zone=[str(n) for n in range(10)])
    x, y = pyproj.Transformer.from_crs("EPSG:4326", grid_crs, always_xy=True).transform(-74.4, 4.25)
    grid = Grid(grid_crs, (10, 0, x - 1000, 0, -10, y + 1000), (200, 200))
    share = coverage_fraction(zones, grid)
    area = grid.cell_area_ha()
    cells = [float((inside * area[row, column]).sum()) for row, column, inside in map(share.cells, range(10))]
    # shifts of a zone and of the grid differ by up to 1e-4 of an area
    np.testing.assert_allclose(cells, share.inside_ha, rtol=1e-4)
    np.testing.assert_allclose(cells, cells[0], rtol=1e-4)
