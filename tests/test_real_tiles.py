"""Real rasters and metadata that nobody here made; skipped with a reason where they are absent."""

from __future__ import annotations

import json
import math

import numpy as np
import pyproj
import pytest
import xarray as xr

from geococa.errors import CRSMismatch, GeococaError, InputRefused, UnknownOffset
from geococa.grid import Grid
from geococa.landsat_mtl import read_mtl
from geococa.metadata import read_sentinel2_metadata
from geococa.reflectance import clear_sky, composite, to_reflectance
from geococa.sensors import QA_PIXEL, SCL
from geococa.stac_items import read_stac_item
from geococa.tiles import open_tile, read_raster

# Landsat 5 TM: ESUN of Chander et al. (2009), gains and biases from the scene's MTL
_LT5 = {
    "blue": (0.671, -2.19134, 1983.0),
    "green": (1.322, -4.16220, 1796.0),
    "red": (1.044, -2.21398, 1536.0),
    "nir": (0.876, -2.38602, 1031.0),
    "swir16": (0.120, -0.49035, 220.0),
    "swir22": (0.066, -0.21555, 83.44),
}


@pytest.mark.parametrize("band", list(_LT5))
def test_landsat_5_reflectance_is_what_one_computes_by_hand_from_its_mtl(shared_data, band):
    scenes = open_tile(shared_data / "rasters/lt5_amazon_1988/LT05_224063_19880814_dn.tif")
    reflectance = to_reflectance(scenes, where=clear_sky(scenes))
    gain, bias, esun = _LT5[band]
    distance = 1.0128  # astronomical units on 14 August, table 6 of Chander et al. (2009)
    radiance = gain * scenes[band].values.astype("float64") + bias
    by_hand = math.pi * radiance * distance**2 / (esun * math.sin(math.radians(49.75588889)))
    np.testing.assert_allclose(reflectance[band].values, by_hand, atol=1e-4)


def test_landsat_5_scene_knows_its_sensor_date_and_bands(shared_data):
    scenes = open_tile(shared_data / "rasters/lt5_amazon_1988/LT05_224063_19880814_dn.tif")
    assert scenes.attrs["sensor"] == "landsat-l1"
    assert str(scenes.time.values[0]).startswith("1988-08-14T13:00:47")
    assert list(scenes.band.values) == list(_LT5)
    assert Grid.from_xarray(scenes).crs.to_epsg() == 32622


def test_the_thermal_band_opens_by_name_and_is_never_called_reflectance(shared_data):
    scenes = open_tile(shared_data / "rasters/lt5_amazon_1988/LT05_224063_19880814_dn.tif", bands=["red", "lwir"])
    assert scenes.lwir.values.max() == 146
    with pytest.raises(UnknownOffset, match="lwir"):
        to_reflectance(scenes)


def test_modis_stack_opens_with_twelve_dates_and_its_own_crs(shared_data):
    scenes = open_tile(shared_data / "rasters/modis_sinop_2013_2014")
    assert scenes.sizes == {"time": 12, "y": 147, "x": 255, "band": 1}
    assert Grid.from_xarray(scenes).crs.equals(pyproj.CRS("+proj=sinu +R=6371007.181 +units=m"))
    ndvi = to_reflectance(scenes, where=clear_sky(scenes)).ndvi
    # the lossy JPEG 2000 smears the fill value -3000 into its neighbourhood: -3301 ... -2997 are no NDVI
    assert int((scenes.ndvi < -2000).sum()) == 1289
    assert int(np.isnan(ndvi).sum()) == int(((scenes.ndvi < -2000) | (scenes.ndvi > 10_000)).sum())
    assert -0.2 <= float(ndvi.min()) < float(ndvi.max()) <= 1.0
    assert composite(ndvi.to_dataset()).observations.max(("y", "x")).values.tolist() == [4, 8]


def test_landsat_8_numbers_of_unknown_scale_open_but_do_not_become_reflectance(shared_data):
    scenes = open_tile(shared_data / "rasters/l8_003017_2015/LC80030172015001LGN00_B2-5.tif")
    assert list(scenes.band.values) == ["blue", "green", "red", "nir"]
    assert str(scenes.time.values[0])[:10] == "2015-01-01"
    with pytest.raises(UnknownOffset, match="LC80030172015001LGN00_B2-5"):
        to_reflectance(scenes)
    given = to_reflectance(scenes, scale=2e-5, offset=-0.1)
    np.testing.assert_allclose(given.red.values, scenes.red.values * 2e-5 - 0.1, atol=1e-6)


def test_landsat_8_blocks_equal_the_whole_byte_for_byte(shared_data):
    path = shared_data / "rasters/l8_003017_2015/LC80030172015001LGN00_B2-5.tif"
    whole = open_tile(path)
    assert whole.red.shape == (1, 1093, 1310)
    lazy = open_tile(path, chunks={"y": 300, "x": 400})
    for name in whole.data_vars:
        assert lazy[name].values.tobytes() == whole[name].values.tobytes()
    part = open_tile(path, window=(501, 733, 17, 1001))
    assert part.nir.values.tobytes() == whole.nir.values[:, 501:733, 17:1001].tobytes()


def test_sentinel_2_xml_of_baseline_5_states_an_offset_and_that_of_2_none(shared_data):
    new = read_sentinel2_metadata(shared_data / "stac/s2_N0509_MTD_MSIL2A.xml")
    old = read_sentinel2_metadata(shared_data / "stac/s2_N0212_MTD_MSIL2A.xml")
    assert (new.baseline, set(new.offset.values()), set(new.scale.values())) == ("05.09", {-0.1}, {1e-4})
    assert (old.baseline, set(old.offset.values()), set(old.scale.values())) == ("02.12", {0.0}, {1e-4})
    assert len(new.offset) == len(old.offset) == 12


@pytest.mark.parametrize("baseline", ["N0509", "N0212"])
def test_a_stac_item_and_the_xml_of_its_product_agree(shared_data, baseline):
    item, _ = read_stac_item(shared_data / f"stac/s2_{baseline}_item.json")
    xml = read_sentinel2_metadata(shared_data / f"stac/s2_{baseline}_MTD_MSIL2A.xml")
    assert item.problem == ""
    assert item.scale == xml.scale
    assert item.offset == xml.offset
    assert item.acquired == xml.acquired


def test_an_old_item_without_raster_scale_is_settled_by_the_baseline_in_its_product_id(shared_data):
    item, assets = read_stac_item(shared_data / "stac/pystac_raster_sentinel2.json")
    assert (item.baseline, set(item.offset.values()), item.problem) == ("02.14", {0.0}, "")
    assert "overview" not in {asset.key for asset in assets}


@pytest.mark.parametrize("name", ["landsat_classification_extension_item.json", "lc08_008059_20191201_SR_item.json"])
def test_landsat_items_give_the_collection_2_scale(shared_data, name):
    item, _ = read_stac_item(shared_data / "stac" / name)
    assert item.sensor == "landsat-c2-l2"
    assert item.scale == {f"SR_B{n}": 2.75e-5 for n in range(1, 8)}
    assert set(item.offset.values()) == {-0.2}


def test_landsat_mtl_gives_the_surface_coefficients_and_not_those_of_level_1(shared_data):
    mtl = read_mtl(shared_data / "stac/lc08_008059_20191201_MTL.json")
    assert set(mtl.scale.values()) == {2.75e-5}
    assert (mtl.id, mtl.family) == ("LC08_L2SP_008059_20191201_20200825_02_T1", "oli")


def test_quality_bits_are_those_of_the_classification_extension(shared_data):
    item = json.loads((shared_data / "stac/landsat_classification_extension_item.json").read_text())
    fields = item["assets"]["qa_pixel"]["raster:bands"][0]["classification:bitfields"]
    published = {entry["name"]: entry["offset"] for entry in fields if entry["length"] == 1}
    renamed = {"dilated": "dilated_cloud", "shadow": "cloud_shadow"}
    assert {renamed.get(name, name): bit for name, bit in published.items()} == dict(QA_PIXEL.flags)


def test_scene_classes_are_those_of_the_sentinel_2_item(shared_data):
    item = json.loads((shared_data / "stac/s2_N0509_item.json").read_text())
    classes = item["assets"]["scl"]["raster:bands"][0]["classification:classes"]
    assert sorted(entry["value"] for entry in classes) == sorted(SCL.flags.values())
    published = {entry["name"]: entry["value"] for entry in classes}
    for name in ("no_data", "vegetation", "water", "unclassified", "cloud_high_probability", "thin_cirrus"):
        assert published[name] == SCL.flags[name]


_ADVERSARIAL = {
    "all-nodata.tif": None,
    "cog_dateline.tif": None,
    "cog_scale.tif": None,
    "float_raster_with_nodata.tif": None,
    "inverted_lat.tif": None,
    "test_esri_wkt.tif": None,
    "BigTIFFMotorola.tif": CRSMismatch,
    "float_nan.tif": CRSMismatch,
    "rotated.tif": CRSMismatch,
    "RGB.byte.gcp.vrt": InputRefused,
}


@pytest.mark.parametrize(("name", "error"), list(_ADVERSARIAL.items()))
def test_awkward_files_open_or_are_refused_for_their_reason(shared_data, name, error):
    path = shared_data / "adversarial" / name
    if error is not None:
        with pytest.raises(error, match=name.replace(".", r"\.")):
            read_raster(path)
        return
    opened = read_raster(path)
    assert opened.size > 0
    assert Grid.from_xarray(opened).shape == opened.shape[-2:]


def test_fuzzed_files_raise_a_geococa_error_and_nothing_else(shared_data):
    files = sorted((shared_data / "adversarial").glob("tiff_fuzz_crash*.tif"))
    assert len(files) == 6
    for path in files:
        with pytest.raises(GeococaError):
            read_raster(path)
        with pytest.raises(GeococaError):
            open_tile(path, date="2020-01-01")


def test_south_up_rasters_keep_their_orientation(shared_data):
    raster = read_raster(shared_data / "adversarial/inverted_lat.tif")
    assert raster.y.values[0] < raster.y.values[-1]
    assert isinstance(raster, xr.DataArray)
