"""Archives opened, maps written and read back; what must be refused on the way."""

from __future__ import annotations

import json
import pickle  # noqa: TID251 - tasks and references travel between processes this way
import shutil
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
import xarray as xr

from geococa.errors import CRSMismatch, GeococaError, GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.legend import Legend, as_land_cover
from geococa.rasters import raster_file, read_header
from geococa.reflectance import clear_sky, to_reflectance
from geococa.tiles import find_tiles, open_tile, read_raster, write_cog
from tests.scene_files import (
    landsat_mtl,
    mtd_xml,
    mtl_text,
    stac_item,
    write_band,
    write_bundle,
    write_safe,
    write_scene,
)


@pytest.fixture
def tile(tmp_path):
    folder = tmp_path / "archive" / "18NXG"
    write_scene(folder, "S2A_2021", "2021-07-01T15:00:00Z", baseline="03.01", offset=0, red=500, nir=3000)
    write_scene(folder, "S2B_2023", "2023-06-25T15:00:00Z", baseline="05.09", offset=-0.1, red=1500, nir=4000)
    return folder


# --- layouts ---------------------------------------------------------------------------------------


def test_scenes_are_sorted_by_time_and_carry_their_own_offsets(tile):
    scenes = open_tile(tile)
    assert [str(day)[:10] for day in scenes.time.values] == ["2021-07-01", "2023-06-25"]
    assert scenes.offset.sel(band="red").values.tolist() == [0.0, -0.1]
    assert scenes.scene.values.tolist() == ["S2A_2021", "S2B_2023"]
    assert scenes.processing_baseline.values.tolist() == ["03.01", "05.09"]
    assert scenes.attrs["kind"] == "scenes"
    assert scenes.attrs["sensor"] == "sentinel-2-l2a"


def test_coarse_bands_are_repeated_and_never_interpolated(tile):
    scenes = open_tile(tile)
    stored = rasterio.open(tile / "S2A_2021" / "B11.tif").read(1)
    assert np.array_equal(scenes.swir16.values[0], np.kron(stored, np.ones((2, 2), "uint16")))


def test_only_coarse_bands_asked_for_stay_on_their_own_grid(tile):
    assert open_tile(tile, bands=["swir16"]).swir16.shape == (2, 10, 10)


def test_a_window_of_odd_edges_equals_the_cut_of_the_whole(tile):
    whole, part = open_tile(tile), open_tile(tile, window=(3, 16, 5, 18))
    xr.testing.assert_identical(
        part, whole.isel(y=slice(3, 16), x=slice(5, 18)).assign_coords(spatial_ref=part.spatial_ref)
    )
    assert Grid.from_xarray(part).same_as(Grid.from_xarray(whole).window(3, 16, 5, 18))


def test_native_names_are_understood(tile):
    assert list(open_tile(tile, bands=["B04", "nir"]).band.values) == ["red", "nir"]


def test_a_sensor_with_only_nir08_serves_nir(tmp_path):
    scenes = open_tile(write_bundle(tmp_path), bands=["red", "nir"])
    assert scenes.nir.values[0, 0, 0] == 8005
    assert scenes.scale.sel(band="nir").item() == 2.75e-5


def test_years_choose_scenes(tile):
    assert open_tile(tile, years=[2023]).sizes["time"] == 1
    with pytest.raises(InputRefused, match="2021, 2023"):
        open_tile(tile, years=[1999])


def test_lazy_opening_reads_no_pixel_and_gives_the_same_numbers(tile, monkeypatch):
    import geococa.scene_grids as scene_grids

    reads = []
    original = scene_grids.read_window
    monkeypatch.setattr(scene_grids, "read_window", lambda *a, **k: reads.append(a) or original(*a, **k))
    lazy = open_tile(tile, chunks={"y": 7, "x": 9}, window=(1, 20, 0, 19))
    assert reads == []
    xr.testing.assert_identical(lazy.compute(), open_tile(tile, window=(1, 20, 0, 19)))


def test_lazy_opening_has_one_task_a_scene_band_and_block_and_small_payloads(tile):
    lazy = open_tile(tile, bands=["red"], chunks={"y": 10, "x": 10})
    graph = dict(lazy.red.data.__dask_graph__())
    reads = [key for key in graph if str(key).startswith("('read-")]
    assert len(reads) == 2 * 4
    assert max(len(pickle.dumps(graph[key])) for key in reads) < 10_000


def test_a_tile_reference_opens_like_its_folder_and_survives_pickling(tile):
    [reference] = find_tiles(tile.parent)
    assert reference.years == (2021, 2023)
    assert {"red", "nir", "swir16"} <= set(reference.bands)
    xr.testing.assert_identical(open_tile(pickle.loads(pickle.dumps(reference))), open_tile(tile))


def test_find_tiles_passes_over_folders_without_scenes_and_obeys_the_pattern(tile):
    (tile.parent / "truth").mkdir()
    (tile.parent / "parks.gpkg").write_bytes(b"")
    shutil.copytree(tile, tile.parent / "19NBB")
    assert [found.tile for found in find_tiles(tile.parent)] == ["18NXG", "19NBB"]
    assert [found.tile for found in find_tiles(tile.parent, pattern="19*")] == ["19NBB"]


def test_a_tile_folder_given_as_archive_is_one_tile(tile):
    assert [found.tile for found in find_tiles(tile)] == ["18NXG"]


def test_an_archive_without_scenes_is_refused(tmp_path):
    with pytest.raises(InputRefused, match=r"item\.json"):
        find_tiles(tmp_path)


def test_a_safe_folder_opens_with_one_call(tmp_path):
    folder, made = write_safe(tmp_path)
    scenes = open_tile(folder, bands=["blue", "nir08", "coastal"])
    assert np.array_equal(scenes.blue.values[0], made["B02"])
    assert np.array_equal(scenes.nir08.values[0], np.kron(made["B8A"], np.ones((2, 2), "uint16")))
    assert np.array_equal(scenes.coastal.values[0], np.kron(made["B01"], np.ones((6, 6), "uint16")))
    assert np.array_equal(scenes.scl.values[0], np.kron(made["SCL"], np.ones((2, 2), "uint8")))
    assert scenes.offset.values.tolist() == [[-0.1] * 3]
    assert scenes.blue.attrs["nodata"] == 0  # by the product definition; JPEG 2000 files do not say it
    assert str(scenes.time.values[0]).startswith("2023-06-25T23:46:21")


@pytest.mark.parametrize("level", ["2A", "1C"])
@pytest.mark.parametrize(
    ("baseline", "declared", "offset"),
    [("02.06", None, 0.0), ("02.14", None, 0.0), ("03.01", None, 0.0), ("04.00", -1000, -0.1), ("05.11", -1000, -0.1)],
)
def test_products_of_every_baseline_open_with_their_own_offset(tmp_path, level, baseline, declared, offset):
    folder, _ = write_safe(tmp_path, level=level, baseline=baseline, offset=declared, size=24)
    scenes = open_tile(folder, bands=["red", "nir", "swir16"])
    assert scenes.attrs["sensor"] == f"sentinel-2-l{level.lower()}"
    assert scenes.processing_baseline.values.tolist() == [baseline]
    assert scenes.offset.values.ravel().tolist() == [offset] * 3
    assert scenes.scale.values.ravel().tolist() == [1e-4] * 3
    assert ("scl" in scenes) == (level == "2A")


def test_products_named_as_before_december_2016_open_too(tmp_path):
    product = tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_20161010T000000_R025_V20161009T152641_20161009T152641.SAFE"
    granule = "S2A_OPER_MSI_L1C_TL_SGS__20161009T202045_A006793_T18NXG"
    for band, gsd in (("B04", 10), ("B11", 20)):
        path = product / "GRANULE" / f"{granule}_N02.04" / "IMG_DATA" / f"{granule}_{band}.jp2"
        values = np.full((120 // gsd, 120 // gsd), 1500, "uint16")
        write_band(path, values, gsd=gsd, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    (product / f"{product.stem.replace('PRD_MSIL1C', 'MTD_SAFL1C')}.xml").write_text(
        mtd_xml(level="1C", baseline="02.04", offset=None)
    )
    scenes = open_tile(product)
    assert scenes.band.values.tolist() == ["red", "swir16"]
    assert scenes.offset.values.tolist() == [[0.0, 0.0]]
    assert [len(found.scenes) for found in find_tiles(tmp_path)] == [1]


SILENT = "S2A_MSIL2A_20230625T234621_N0509_R073_T18NXG_20230626T022157"


@pytest.mark.parametrize(
    ("baseline", "xml", "offset", "problem"),
    [
        ("05.09", {}, -0.1, ""),
        ("", {}, -0.1, ""),  # the item says nothing at all
        ("05.09", {"offset": -900}, -0.09, ""),
        ("05.09", {"baseline": "05.11"}, np.nan, "the product's XML beside it says 05.11"),
        ("05.09", None, np.nan, "stored with an offset"),
    ],
)
def test_what_an_item_does_not_say_is_taken_from_the_xml_beside_it(tmp_path, baseline, xml, offset, problem):
    item = stac_item(SILENT, "2023-06-25T23:46:21Z", offset=None, scale=None, baseline=baseline)
    for asset in item["assets"].values():
        del asset["raster:bands"]
    folder = write_scene(tmp_path / "T", SILENT, "2023-06-25T23:46:21Z", item=item)
    if xml is not None:
        (folder / "MTD_MSIL2A.xml").write_text(mtd_xml(**xml))
    scenes = open_tile(folder)
    np.testing.assert_array_equal(scenes.offset.values, [[offset] * 3])
    assert problem in scenes.attrs.get("scaling_problems", "")


def test_a_flag_that_contradicts_the_xml_is_not_overruled_by_it(tmp_path):
    item = stac_item(SILENT, "2023-06-25T23:46:21Z", properties={"earthsearch:boa_offset_applied": True})
    folder = write_scene(tmp_path / "T", SILENT, "2023-06-25T23:46:21Z", item=item)
    (folder / "MTD_MSIL2A.xml").write_text(mtd_xml())
    scenes = open_tile(folder)
    assert np.isnan(scenes.offset.values).all()
    assert "applied already" in scenes.attrs["scaling_problems"]


@pytest.mark.parametrize(
    ("product", "bands"),
    [
        ("LT04_L2SP_008059_19891201_20200825_02_T1", ["blue", "green", "red", "nir", "swir16", "swir22"]),
        ("LT05_L2SP_008059_19951201_20200825_02_T1", ["blue", "green", "red", "nir", "swir16", "swir22"]),
        ("LE07_L2SP_008059_20031201_20200825_02_T1", ["blue", "green", "red", "nir", "swir16", "swir22"]),
        ("LC09_L2SR_008059_20221201_20221203_02_T1", ["coastal", "blue", "green", "red", "nir08", "swir16", "swir22"]),
    ],
)
def test_bundles_of_landsat_4_to_9_name_their_own_bands(tmp_path, product, bands):
    folder = write_bundle(tmp_path, product, suffix="")
    old = product[3] in "457"
    if old:
        (folder / f"{product}_SR_B6.TIF").unlink()  # their band 6 is thermal, ST_B6
        write_band(folder / f"{product}_ST_B6.TIF", np.full((30, 30), 40000, "uint16"), gsd=30, nodata=0)
    (folder / f"{product}_MTL.txt").write_text(mtl_text(landsat_mtl(product, spacecraft=f"LANDSAT_{product[3]}")))
    scenes = open_tile(folder)
    assert scenes.band.values.tolist() == bands
    # the numbers of the files are 8000 + the number of the band
    number = {"blue": 1, "green": 2, "red": 3, "nir": 4, "swir16": 5, "swir22": 7} if old else {"blue": 2, "swir16": 6}
    for name, value in number.items():
        assert (scenes[name].values == 8000 + value).all()
    assert set(scenes.scale.values.ravel()) == {2.75e-5}
    assert set(scenes.offset.values.ravel()) == {-0.2}


def test_a_time_of_day_may_follow_a_date_without_a_break(tmp_path):
    from geococa.layouts import _date_in

    assert f"{_date_in('IMG_SPOT6_MS_202003081423231_ORT')}"[:10] == "2020-03-08"
    assert f"{_date_in('scene_202003081423')}"[:10] == "2020-03-08"
    for name in ("scene_202003089923", "scene_2020030814", "part_120200308", "n_20201345"):
        assert _date_in(name) is None, name


def test_cbers_files_of_one_band_each_open_by_a_sensor_toml(tmp_path):
    names = {13: "blue", 14: "green", 15: "red", 16: "nir"}
    text = 'name = "cbers-4-wfi"\nscale = 1e-4\noffset = 0.0\nfill = 0\n'
    text += "".join(f'[[bands]]\nnative = "BAND{n}"\nname = "{name}"\n' for n, name in names.items())
    text += '[quality]\nnative = "CMASK"\nflags = {fill = 0, clear = 127, cloud = 255}\nmasked = ["cloud"]\nno_data = ["fill"]\n'
    (tmp_path / "cbers.toml").write_text(text)
    mask = np.full((6, 6), 127, "uint8")
    mask[0, 0], mask[1, 1] = 255, 0
    for day in ("20200801", "20200901"):
        stem = f"CBERS_4_AWFI_{day}_154_126_L4"
        for n in names:
            write_band(tmp_path / "T" / f"{stem}_BAND{n}.tif", np.full((6, 6), 100 * n, "uint16"), gsd=64, nodata=0)
        write_band(tmp_path / "T" / f"{stem}_CMASK.tif", mask, gsd=64)
    scenes = open_tile(tmp_path / "T", sensor=str(tmp_path / "cbers.toml"))
    assert scenes.band.values.tolist() == list(names.values())
    assert scenes.nir.values[1, 3, 3] == 1600
    clear = clear_sky(scenes, buffer_m=0)
    assert (~clear.values).sum() == 4
    assert float(to_reflectance(scenes, where=clear).red[0, 5, 5]) == pytest.approx(0.15)


@pytest.mark.parametrize("suffix", ["json", "txt", "xml", ""])
def test_a_landsat_bundle_opens_with_one_call(tmp_path, suffix):
    scenes = open_tile(write_bundle(tmp_path, suffix=suffix))
    assert list(scenes.band.values) == ["coastal", "blue", "green", "red", "nir08", "swir16", "swir22"]
    assert set(scenes.scale.values.ravel()) == {2.75e-5}
    assert {"qa_pixel", "qa_radsat"} <= set(scenes.data_vars)
    assert scenes.attrs["sensor"] == "landsat-c2-l2"


def test_dated_files_make_a_series_and_files_of_one_date_one_scene(tmp_path):
    for day in ("2013-09-14", "2014-01-17"):
        for band in ("NDVI", "EVI"):
            write_band(
                tmp_path / "sinop" / f"TERRA_MODIS_012010_{band}_{day}.tif", np.full((4, 5), 5000, "int16"), gsd=250
            )
    scenes = open_tile(tmp_path / "sinop")
    assert set(scenes.band.values) == {"ndvi", "evi"}
    assert scenes.sizes["time"] == 2
    assert set(scenes.scale.values.ravel()) == {1e-4}
    assert scenes.ndvi.attrs["nodata"] == -3000


def test_a_raster_without_a_date_needs_one(tmp_path):
    path = write_band(tmp_path / "image.tif", np.ones((2, 4, 4), "uint16"))
    with pytest.raises(InputRefused, match="date="):
        open_tile(path)
    assert str(open_tile(path, date="2020-05-01").time.values[0])[:10] == "2020-05-01"


def test_a_raster_that_states_its_scale_is_believed(tmp_path):
    path = write_band(tmp_path / "image_20200501.tif", np.ones((1, 4, 4), "uint16"))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.0002,), (-0.05,)
        file.set_band_description(1, "red")
    scenes = open_tile(path)
    assert (scenes.scale.item(), scenes.offset.item()) == (0.0002, -0.05)


def test_another_sensor_by_its_toml(tmp_path):
    (tmp_path / "planet.toml").write_text(
        'name = "planetscope"\nscale = 1e-4\noffset = 0.0\nfill = 0\n'
        '[[bands]]\nnative = "band1"\nname = "blue"\n[[bands]]\nnative = "band2"\nname = "green"\n'
    )
    path = write_band(tmp_path / "20200501_sr.tif", np.ones((2, 4, 4), "uint16"))
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("band1", "band2")
    scenes = open_tile(path, sensor=str(tmp_path / "planet.toml"))
    assert list(scenes.band.values) == ["blue", "green"]
    assert set(scenes.scale.values.ravel()) == {1e-4}


# --- what is refused -------------------------------------------------------------------------------


def test_another_sensor_than_asked_for_is_refused(tile):
    with pytest.raises(InputRefused, match="landsat-c2-l2"):
        open_tile(tile, sensor="landsat-c2-l2")


def test_a_band_missing_in_one_scene_is_refused_by_scene_and_band(tile):
    (tile / "S2B_2023" / "B11.tif").unlink()
    with pytest.raises(InputRefused, match=r"S2B_2023.*swir16"):
        open_tile(tile)
    assert open_tile(tile, bands=["red"]).sizes["time"] == 2


def test_an_unknown_band_is_refused_with_those_there_are(tile):
    with pytest.raises(InputRefused, match=r"magenta.*red"):
        open_tile(tile, bands=["magenta"])


def test_scenes_on_shifted_grids_are_refused(tile):
    folder = write_scene(tile, "S2C_2024", "2024-06-25T15:00:00Z")
    for band in ("B04", "B08"):
        write_band(folder / f"{band}.tif", np.ones((20, 20), "uint16"), origin=(600010.0, 300000.0))
    with pytest.raises(GridMismatch, match="S2C_2024"):
        open_tile(tile)


def test_a_band_off_the_grid_is_refused_by_name(tile):
    write_band(tile / "S2A_2021" / "B11.tif", np.ones((10, 10), "uint16"), gsd=20, origin=(600005.0, 300000.0))
    with pytest.raises(GridMismatch, match=r"B11\.tif.*swir16"):
        open_tile(tile)


def test_a_band_at_a_broken_ratio_is_refused(tile):
    write_band(tile / "S2A_2021" / "B11.tif", np.ones((14, 14), "uint16"), gsd=15)
    with pytest.raises(GridMismatch, match="whole number"):
        open_tile(tile)


def test_a_band_in_another_crs_is_refused(tile):
    write_band(tile / "S2A_2021" / "B11.tif", np.ones((10, 10), "uint16"), gsd=20, crs="EPSG:32619")
    with pytest.raises(CRSMismatch, match=r"swir16.*32619"):
        open_tile(tile)


def test_different_no_data_values_in_a_series_are_refused(tile):
    write_band(tile / "S2A_2021" / "B04.tif", np.ones((20, 20), "uint16"), nodata=65535)
    with pytest.raises(InputRefused, match="no-data"):
        open_tile(tile)


@pytest.mark.parametrize("window", [(0, 0, 0, 5), (-1, 5, 0, 5), (0, 21, 0, 5), (5, 3, 0, 5)])
def test_a_window_outside_the_tile_is_refused(tile, window):
    with pytest.raises(InputRefused, match="window"):
        open_tile(tile, window=window)


def test_a_truncated_band_is_refused_by_file(tile):
    path = tile / "S2A_2021" / "B04.tif"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputRefused, match=r"B04\.tif"):
        open_tile(tile)


@pytest.mark.parametrize(
    "href", ["../../secret.tif", "/etc/hostname.tif", "file:///etc/x.tif", "a/../../../x.tif", "..%2f..%2fx.tif"]
)
def test_assets_that_lead_outside_their_folder_are_refused(tmp_path, href):
    folder = write_scene(tmp_path / "T", "S2A_X", "2023-06-25T15:00:00Z")
    item = stac_item("S2A_X", "2023-06-25T15:00:00Z")
    item["assets"]["red"]["href"] = href
    (folder / "item.json").write_text(json.dumps(item))
    with pytest.raises(InputRefused, match="outside"):
        open_tile(tmp_path / "T")


def test_a_remote_address_is_never_fetched_and_its_local_copy_is_used(tmp_path):
    folder = write_scene(tmp_path / "T", "S2A_X", "2023-06-25T15:00:00Z")
    item = stac_item("S2A_X", "2023-06-25T15:00:00Z")
    for asset in item["assets"].values():
        asset["href"] = "https://192.0.2.1/somewhere/" + asset["href"][2:]
    (folder / "item.json").write_text(json.dumps(item))
    assert open_tile(tmp_path / "T").red.shape == (1, 20, 20)


@pytest.mark.parametrize(
    "path",
    [
        "<VRTDataset/>", "vrt:///tmp/x.tif", "https://192.0.2.1/x.tif", "s3://bucket/x.tif", "/vsicurl/http://192.0.2.1/x.tif",
        "/vsizip/x.zip", "GTIFF_DIR:1:x.tif", "MEM:::DATAPOINTER=1", "", "x\0.tif", "/dev/null", "/tmp", "missing.tif",
    ],
)  # fmt: skip
def test_names_that_are_no_files_are_refused(path):
    with pytest.raises(InputRefused):
        raster_file(path)


@pytest.mark.parametrize("name", ["map.tif", "map.jp2", "map.vrt"])
def test_a_vrt_is_refused_whatever_its_name(tmp_path, name):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"s" * 64)
    path = tmp_path / name
    path.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8">'
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{secret}</SourceFilename></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(InputRefused, match="neither TIFF nor JPEG 2000"):
        read_raster(path)


def test_side_files_change_nothing(tmp_path):
    path = write_band(tmp_path / "a.tif", np.arange(1, 65, dtype="uint8").reshape(8, 8))
    before = read_raster(path)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><SRS>EPSG:32619</SRS><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>'
        "</PAMDataset>"
    )
    write_band(tmp_path / "a.tif.ovr", np.zeros((4, 4), "uint8"))
    write_band(tmp_path / "a.tif.msk", np.zeros((8, 8), "uint8"))
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    (tmp_path / "a.prj").write_text("LOCAL_CS[]")
    xr.testing.assert_identical(read_raster(path), before)


def _tiny_tiff(width, height, *, bands=1, strip=b"\0", compression=1):
    """TIFF of one strip whose header promises any size."""
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(strip)),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = 8 + len(strip)
    return b"II*\0" + struct.pack("<I", start) + strip + struct.pack("<H", len(entries)) + directory + b"\0\0\0\0"


@pytest.mark.parametrize(
    "content",
    [
        _tiny_tiff(300_000, 300_000),
        _tiny_tiff(60_000, 60_000, strip=zlib.compress(bytes(1_000_000)), compression=8),
        _tiny_tiff(30_000, 30_000),
        _tiny_tiff(9_000, 9_000),
        _tiny_tiff(4, 4, bands=60_000),
    ],
)
def test_a_bomb_is_refused_by_its_header_in_no_time(tmp_path, content):
    path = tmp_path / "bomb.tif"
    path.write_bytes(content)
    with pytest.raises(GeococaError, match=r"bomb\.tif"):
        read_header(path)


def test_many_threads_read_what_one_reads(tile):
    reference = find_tiles(tile.parent)[0]
    windows = [(r, r + 5, c, c + 5) for r in range(0, 15, 5) for c in range(0, 15, 5)] * 4
    serial = [open_tile(reference, window=window) for window in windows]
    with ThreadPoolExecutor(8) as pool:
        for expected, found in zip(serial, pool.map(lambda w: open_tile(reference, window=w), windows), strict=True):
            xr.testing.assert_identical(found, expected)


# --- single rasters --------------------------------------------------------------------------------


def _map(shape=(700, 600), seed=3):
    grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), shape)
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype("uint8")
    labels[:5] = 255
    values = grid.attach(xr.DataArray(labels, dims=("y", "x"), attrs={"nodata": 255}))
    return as_land_cover(values, {0: "unclassified", 1: "coca", 2: "forest", 3: "water"})


def test_a_land_cover_map_comes_back_as_it_was(tmp_path):
    land_cover = _map()
    back = read_raster(write_cog(land_cover, tmp_path / "map.tif"))
    xr.testing.assert_identical(back, land_cover)
    assert Legend.from_attrs(back.attrs) == Legend.from_attrs(land_cover.attrs)
    assert Grid.from_xarray(back).same_as(Grid.from_xarray(land_cover))


def test_a_land_cover_cog_has_colours_no_data_and_overviews_of_its_own_classes(tmp_path):
    path = write_cog(_map(), tmp_path / "map.tif")
    with rasterio.open(path) as file:
        assert file.nodata == 255
        assert file.colormap(1)[1] == (0xD8, 0x1B, 0x60, 255)
        assert file.colormap(1)[255][3] == 0
        assert file.profile["blockxsize"] == file.profile["blockysize"] == 512
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        small = file.read(1, out_shape=(350, 300))
    assert set(np.unique(small)) <= {0, 1, 2, 3, 255}


def test_the_same_map_gives_the_same_bytes(tmp_path):
    first = write_cog(_map(), tmp_path / "one.tif").read_bytes()
    assert write_cog(_map(), tmp_path / "two.tif").read_bytes() == first


def test_sidecars_give_gdal_the_class_names(tmp_path):
    path = write_cog(_map(), tmp_path / "map.tif", sidecars=True)
    text = (tmp_path / "map.tif.aux.xml").read_text()
    assert text.index("<Category>unclassified<") < text.index("<Category>coca<") < text.index("<Category>water<")
    xr.testing.assert_identical(read_raster(path), _map())


def test_floats_and_time_labels_come_back(tmp_path):
    grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (40, 30))
    values = np.random.default_rng(0).random((2, 40, 30)).astype("float32")
    values[0, :3] = np.nan
    years = np.array(["2020-12-31", "2021-12-31"], "datetime64[ns]")
    array = grid.attach(
        xr.DataArray(values, dims=("time", "y", "x"), coords={"time": years}, name="ndvi", attrs={"units": "1"})
    )
    back = read_raster(write_cog(array, tmp_path / "ndvi.tif"))
    xr.testing.assert_equal(back, array)
    assert (back.name, back.attrs["units"]) == ("ndvi", "1")


def test_lazy_reading_and_windows_agree_with_the_whole(tmp_path):
    path = write_cog(_map(), tmp_path / "map.tif")
    part = read_raster(path, window=(100, 333, 7, 590))
    np.testing.assert_array_equal(part.values, _map().values[100:333, 7:590])
    xr.testing.assert_identical(
        read_raster(path, window=(100, 333, 7, 590), chunks={"y": 100, "x": 64}).compute(), part
    )


def test_counts_are_written_as_they_are(tmp_path):
    grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (4, 4))
    counts = grid.attach(
        xr.DataArray(np.arange(16, dtype="uint16").reshape(4, 4), dims=("y", "x"), name="observations")
    )
    back = read_raster(write_cog(counts, tmp_path / "n.tif", overviews=False))
    np.testing.assert_array_equal(back.values, counts.values)
    assert "nodata" not in back.attrs


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # in odc-geo itself
def test_odc_geo_reads_the_grid_that_comes_back(tmp_path):
    odc = pytest.importorskip("odc.geo.xr")
    land_cover = read_raster(write_cog(_map(), tmp_path / "map.tif"))
    assert odc is not None
    assert land_cover.odc.geobox.crs.epsg == 32618
    assert tuple(land_cover.odc.geobox.affine)[:6] == (10, 0, 600000, 0, -10, 300000)


def test_a_link_at_the_final_name_is_replaced_and_its_target_left_alone(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("keep me")
    link = tmp_path / "map.tif"
    link.symlink_to(target)
    write_cog(_map((20, 20)), link)
    assert target.read_text() == "keep me"
    assert not link.is_symlink()


def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch):
    import geococa.cogs as cogs

    path = write_cog(_map((20, 20)), tmp_path / "map.tif")
    before = path.read_bytes()

    def fail(*_):
        raise InputRefused("does not read back")

    monkeypatch.setattr(cogs, "_compare", fail)
    with pytest.raises(InputRefused):
        write_cog(_map((20, 20), seed=9), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]


def test_a_file_that_reads_back_differently_is_not_kept(tmp_path, monkeypatch):
    import geococa.cogs as cogs

    monkeypatch.setattr(cogs, "read_window", lambda *a, **k: np.zeros((1, 20, 20), "uint8"))
    with pytest.raises(InputRefused, match="read back"):
        write_cog(_map((20, 20)), tmp_path / "map.tif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "array",
    [
        xr.DataArray(np.zeros((2, 2, 2, 2)), dims=("time", "feature", "y", "x")),
        xr.DataArray(np.zeros((2, 2)), dims=("x", "y")),
        xr.DataArray(np.zeros((2, 2), complex), dims=("y", "x")),
        xr.DataArray(np.zeros((0, 2)), dims=("y", "x")),
    ],
)
def test_what_is_no_raster_is_not_written(tmp_path, array):
    with pytest.raises(InputRefused):
        write_cog(array, tmp_path / "x.tif")
    assert list(tmp_path.iterdir()) == []


def test_an_array_without_a_crs_is_not_written(tmp_path):
    with pytest.raises(CRSMismatch):
        write_cog(xr.DataArray(np.zeros((2, 2)), dims=("y", "x")), tmp_path / "x.tif")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputRefused, match="no such folder"):
        write_cog(_map((20, 20)), tmp_path / "nowhere" / "x.tif")
