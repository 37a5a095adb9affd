"""Sensors, and what products say of themselves: Sentinel-2 XML, STAC items, Landsat MTL."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest

from geococa.errors import InputRefused, UnknownOffset
from geococa.landsat_mtl import earth_sun_distance_au, read_mtl
from geococa.metadata import parse_xml, read_sentinel2_metadata
from geococa.sensors import QA_PIXEL, SCL, get_sensor, read_sensor, sensor_names
from geococa.stac_items import read_stac_item
from tests.scene_files import landsat_mtl, mtd_xml, mtl_text, mtl_xml, stac_item

# --- registry --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sensor_names())
def test_every_sensor_names_each_band_once(name):
    bands = get_sensor(name).bands
    assert len({band.name for band in bands}) == len(bands) == len({band.native for band in bands})


def test_unknown_sensor_is_refused_with_the_known_ones():
    with pytest.raises(InputRefused, match="sentinel-2-l2a"):
        get_sensor("sentinel-9")


def test_landsat_5_band_4_is_near_infrared_and_landsat_8_band_5_is_nir08():
    sensor = get_sensor("landsat-c2-l2")
    assert sensor.of_family("tm").band("SR_B4").name == "nir"
    assert sensor.of_family("oli").band("SR_B5").name == "nir08"


def test_masking_by_name_always_keeps_the_not_observed_classes():
    assert set(SCL.choose(["snow_ice"])) == {"no_data", "saturated_or_defective", "snow_ice"}


def test_masking_an_unknown_flag_is_refused():
    with pytest.raises(InputRefused, match="fog"):
        QA_PIXEL.choose(["fog"])


def test_sensor_toml_describes_another_sensor(tmp_path):
    path = tmp_path / "planet.toml"
    path.write_text(
        'name = "planetscope"\nscale = 1e-4\noffset = 0\nfill = 0\n[[bands]]\nnative = "1"\nname = "blue"\n'
    )
    sensor = get_sensor(str(path))
    assert (sensor.name, sensor.scale, sensor.fill, sensor.band("1").name) == ("planetscope", 1e-4, 0, "blue")


@pytest.mark.parametrize(
    "text",
    [
        "name = 'x'",
        "name = 'x'\nbands = []",
        "name = 'x'\nscale = 'much'\n[[bands]]\nnative='1'\nname='blue'",
        "name = 'x'\nsclae = 1\n[[bands]]\nnative='1'\nname='blue'",
        "name = 'x'\n[[bands]]\nnative='1'\nname='Blue Band'",
        "name = 'x'\n[[bands]]\nnative='1'",
        "name = ",
    ],
)
def test_faulty_sensor_toml_is_refused_by_file_name(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(InputRefused, match=r"broken\.toml"):
        read_sensor(path)


# --- Sentinel-2 XML --------------------------------------------------------------------------------


def test_offset_is_read_per_band_in_units_of_reflectance(tmp_path):
    path = tmp_path / "MTD_MSIL2A.xml"
    path.write_text(mtd_xml().replace('band_id="3">-1000', 'band_id="3">-500'))
    metadata = read_sentinel2_metadata(path)
    assert metadata.offset["B04"] == -0.05
    assert metadata.offset["B02"] == -0.1
    assert metadata.scale["B04"] == 1e-4


def test_quantification_value_is_not_assumed(tmp_path):
    path = tmp_path / "MTD_MSIL2A.xml"
    path.write_text(mtd_xml(quantification=20000))
    assert read_sentinel2_metadata(path).scale["B08"] == 5e-5


def test_level_1c_has_its_own_tags(tmp_path):
    path = tmp_path / "MTD_MSIL1C.xml"
    path.write_text(mtd_xml(level="1C"))
    metadata = read_sentinel2_metadata(path)
    assert (metadata.sensor, metadata.offset["B10"]) == ("sentinel-2-l1c", -0.1)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"offset": None}, "declares none"),
        ({"offset": 0}, "offset of 0"),
        ({"baseline": "02.12"}, "no offset by definition"),
    ],
)
def test_offsets_that_the_baseline_contradicts_are_refused(tmp_path, settings, found):
    path = tmp_path / "MTD_MSIL2A.xml"
    path.write_text(mtd_xml(**settings))
    with pytest.raises(UnknownOffset, match=found):
        read_sentinel2_metadata(path)


def test_missing_quantification_value_is_refused(tmp_path):
    path = tmp_path / "MTD_MSIL2A.xml"
    path.write_text(mtd_xml().replace("BOA_QUANTIFICATION_VALUE", "OTHER"))
    with pytest.raises(UnknownOffset, match="scale is not known"):
        read_sentinel2_metadata(path)


@pytest.mark.parametrize(
    "text",
    [
        b'<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>',
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'.encode("utf-16"),
        b"<a>" * 100 + b"</a>" * 100,
        b"<a><b></a>",
        b"",
        b"<a/><b/>",
    ],
)
def test_hostile_or_broken_xml_is_refused(text):
    with pytest.raises(InputRefused, match="evil"):
        parse_xml(text, "evil.xml")


# --- STAC ------------------------------------------------------------------------------------------


def _item(tmp_path, **settings):
    path = tmp_path / "item.json"
    path.write_text(json.dumps(stac_item("S2A_X", "2023-06-25T15:00:00Z", **settings)))
    return read_stac_item(path)


@pytest.mark.parametrize("style", ["1.0", "1.1"])
def test_both_generations_of_stac_give_scale_and_offset(tmp_path, style):
    metadata, assets = _item(tmp_path, style=style)
    assert (metadata.scale["B04"], metadata.offset["B04"]) == (1e-4, -0.1)
    assert metadata.acquired == datetime(2023, 6, 25, 15, tzinfo=UTC)
    assert len(assets) == 4


def test_items_before_baseline_4_need_not_state_an_offset(tmp_path):
    metadata, _ = _item(tmp_path, baseline="03.01", offset=None, scale=None)
    assert (metadata.scale["B08"], metadata.offset["B08"], metadata.problem) == (1e-4, 0.0, "")


def test_an_applied_offset_is_zero(tmp_path):
    metadata, _ = _item(tmp_path, offset=0, properties={"earthsearch:boa_offset_applied": True})
    assert (metadata.offset["B04"], metadata.problem) == (0.0, "")


@pytest.mark.parametrize(
    "settings",
    [
        {"offset": 0},
        {"offset": None},
        {"offset": None, "scale": None},
        {"baseline": "03.01", "offset": -0.1},
        {"offset": -0.1, "properties": {"earthsearch:boa_offset_applied": True}},
        {"offset": 0, "properties": {"earthsearch:boa_offset_applied": False}},
        {"baseline": None, "offset": 0},
        {"baseline": None, "offset": None},
        {"scale": None},
        {"scale": -1e-4},
        {"properties": {"s2:product_uri": "S2A_MSIL2A_20230625T234621_N0214_R073_T01WCP_20230626T022157.SAFE"}},
        {"properties": {"earthsearch:boa_offset_applied": True, "sentinel:boa_offset_applied": False}},
    ],
)
def test_what_leaves_scale_or_offset_open_is_a_problem_and_not_a_guess(tmp_path, settings):
    metadata, _ = _item(tmp_path, **settings)
    assert metadata.problem
    assert not metadata.scale
    assert not metadata.offset


def test_pictures_for_people_are_no_bands(tmp_path):
    item = stac_item("S2A_X", "2023-06-25T15:00:00Z")
    item["assets"]["visual"] = {
        "href": "TCI.tif", "type": "image/tiff", "eo:bands": [{"name": "B04"}, {"name": "B03"}, {"name": "B02"}],
    }  # fmt: skip
    item["assets"]["overview"] = {
        "href": "PVI.tif",
        "type": "image/tiff",
        "roles": ["overview"],
        "eo:bands": [{"name": "B04"}],
    }
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))
    assert {asset.key for asset in read_stac_item(path)[1]} == {"red", "nir", "swir16", "scl"}


@pytest.mark.parametrize("text", ["[]", "{}", "not json", '{"type": "Feature"}', "[" * 100_000])
def test_what_is_no_item_is_refused(tmp_path, text):
    path = tmp_path / "item.json"
    path.write_text(text)
    with pytest.raises(InputRefused, match=r"item\.json"):
        read_stac_item(path)


# --- Landsat MTL -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "write"), [("json", json.dumps), ("txt", mtl_text), ("xml", mtl_xml)])
def test_the_three_mtl_formats_say_the_same(tmp_path, suffix, write):
    path = tmp_path / f"P_MTL.{suffix}"
    path.write_text(write(landsat_mtl("LC08_L2SP_008059_20191201_20200825_02_T1")))
    metadata = read_mtl(path)
    assert metadata.sensor == "landsat-c2-l2"
    assert metadata.scale == {f"SR_B{n}": 2.75e-5 for n in range(1, 8)}
    assert set(metadata.offset.values()) == {-0.2}
    assert metadata.acquired == datetime(2019, 12, 1, 15, 13, 51, 861099, tzinfo=UTC)


def test_level_1_coefficients_are_divided_by_the_sine_of_the_suns_elevation(tmp_path):
    path = tmp_path / "P_MTL.txt"
    path.write_text(mtl_text(landsat_mtl("LC08_L1TP_008059_20191201_20200825_02_T1", level="L1TP")))
    metadata = read_mtl(path)
    sine = math.sin(math.radians(57.08727307))
    assert metadata.scale["B4"] == pytest.approx(2e-5 / sine, rel=1e-12)
    assert metadata.offset["B4"] == pytest.approx(-0.1 / sine, rel=1e-12)


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (("LANDSAT_8", "TERRA"), "SPACECRAFT_ID"),
        (("DATE_ACQUIRED", "DATE_LOST"), "DATE_ACQUIRED"),
        (("END_GROUP = IMAGE_ATTRIBUTES", ""), "group"),
        (('SUN_ELEVATION = "57.08727307"', 'SUN_ELEVATION = "-3"'), "horizon"),
        (('SUN_ELEVATION = "57.08727307"', 'SUN_ELEVATION = "high"'), "SUN_ELEVATION"),
    ],
)
def test_a_faulty_mtl_is_refused_with_what_is_wrong(tmp_path, edit, found):
    path = tmp_path / "P_MTL.txt"
    path.write_text(mtl_text(landsat_mtl("LC08_L1TP_X", level="L1TP")).replace(*edit))
    with pytest.raises(InputRefused, match=found):
        read_mtl(path)


# distances published in the MTL files of Landsat 8 scenes of these times
@pytest.mark.parametrize(("moment", "distance"), [(datetime(2019, 12, 1, 15, 13, 51), 0.9860755)])
def test_earth_sun_distance_agrees_with_published_ones(moment, distance):
    assert earth_sun_distance_au(moment) == pytest.approx(distance, abs=5e-5)


def test_earth_is_nearest_to_the_sun_in_early_january_and_farthest_in_early_july():
    days = [earth_sun_distance_au(datetime.fromordinal(datetime(2021, 1, 1).toordinal() + day)) for day in range(365)]
    assert days.index(min(days)) in range(5)
    assert days.index(max(days)) in range(182, 189)
    assert min(days) == pytest.approx(0.98326, abs=1e-4)  # perihelion of 2021
    assert max(days) == pytest.approx(1.01673, abs=1e-4)  # aphelion of 2021
