"""Which scenes count: own haze and shadow tests, mask statistics, useless scenes, products of one acquisition."""

from __future__ import annotations

import logging
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.errors import GridMismatch, InputRefused, OffsetConflict, UnknownOffset
from geococa.grid import Grid
from geococa.layouts import tile_of
from geococa.recipe import Recipe
from geococa.reflectance import clear_sky, composite, to_reflectance
from geococa.scene_statistics import drop_useless_scenes, mask_statistics
from geococa.screening import screen_tile
from geococa.tiles import find_tiles, open_tile
from tests.scene_files import write_band, write_bundle, write_safe, write_scene

GRID = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (12, 10))
FOREST = {"blue": 0.020, "red": 0.023, "nir": 0.305, "swir16": 0.152}
SOIL = {"blue": 0.068, "red": 0.142, "nir": 0.231, "swir16": 0.331}
WATER = {"blue": 0.060, "red": 0.092, "nir": 0.044, "swir16": 0.016}
HAZE = {"blue": 0.075, "red": 0.044, "nir": 0.023, "swir16": 0.008}
DATES = ("2020-02-01", "2020-05-01", "2020-08-01", "2020-11-01", "2021-03-01")


def _scenes(change=None, dates=DATES, scl=4):
    """Forest on every date but where ``change[date number]`` gives other reflectance."""
    dims, shape = ("time", "y", "x"), (len(dates), *GRID.shape)
    bands = {}
    for name, level in FOREST.items():
        values = np.full(shape, level)
        for date, spectrum in (change or {}).items():
            values[date] = spectrum[name]
        bands[name] = (dims, np.rint((values + 0.1) * 1e4).astype("uint16"), {"nodata": 0})
    return xr.Dataset(
        {**bands, "scl": (dims, np.broadcast_to(np.asarray(scl, "uint8"), shape).copy())},
        coords={
            **GRID.coordinates(),
            "time": pd.to_datetime(list(dates)).values.astype("datetime64[ns]"),
            "band": list(FOREST),
            "scale": (("time", "band"), np.full((len(dates), 4), 1e-4)),
            "offset": (("time", "band"), np.full((len(dates), 4), -0.1)),
            "scene": ("time", [f"S{i}" for i in range(len(dates))]),
        },
        attrs={"kind": "scenes", "sensor": "sentinel-2-l2a"},
    )


def _mixed(ground, haze=0.0, shade=1.0):
    return {name: ground[name] * shade + HAZE[name] * haze for name in ground}


# --- haze and shadow -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spectrum", "usable"),
    [
        (_mixed(FOREST), True),
        (_mixed(FOREST, haze=0.2), True),
        (_mixed(FOREST, haze=0.8), False),
        (_mixed(FOREST, shade=0.8), True),
        (_mixed(FOREST, shade=0.4), False),
        (SOIL, True),  # a clearing is no haze
        (WATER, True),  # nor is a flood a shadow
        (_mixed(SOIL, haze=0.9), False),
    ],
)
def test_haze_and_shadow_are_masked_and_changes_of_the_ground_are_not(spectrum, usable):
    clear = clear_sky(_scenes({2: spectrum}), haze=True)
    assert bool(clear.values[2].all()) is usable
    assert clear.values[[0, 1, 3, 4]].all()


def test_without_the_option_nothing_changes():
    scenes = _scenes({2: _mixed(FOREST, haze=0.8)})
    assert clear_sky(scenes).values.all()
    assert clear_sky(scenes).attrs == clear_sky(scenes, haze=False).attrs


def test_the_only_clear_date_of_a_year_is_never_taken():
    assert clear_sky(_scenes({4: _mixed(FOREST, haze=1.0)}), haze=True).values[4].all()


def test_places_that_are_always_bright_or_dark_stay():
    for ground in (SOIL, WATER, {"blue": 0.118, "red": 0.149, "nir": 0.190, "swir16": 0.232}):
        assert clear_sky(_scenes(dict.fromkeys(range(5), ground)), haze=True).values.all()


def test_a_block_and_a_lazy_series_get_the_mask_of_the_whole():
    rng = np.random.default_rng(3)
    scenes = _scenes({1: _mixed(FOREST, haze=0.5), 2: _mixed(FOREST, shade=0.5)})
    for name in FOREST:
        scenes[name].values[:] += rng.integers(0, 250, scenes[name].shape).astype("uint16")
    whole = clear_sky(scenes, haze=True)
    assert 0 < int(whole.sum()) < whole.size
    part = clear_sky(scenes.isel(y=slice(3, 9), x=slice(2, 7)), haze=True)
    np.testing.assert_array_equal(part.values, whole.values[:, 3:9, 2:7])
    lazy = clear_sky(scenes.chunk({"time": 2, "y": 5, "x": 4}), haze=True)
    assert lazy.chunks
    np.testing.assert_array_equal(lazy.values, whole.values)


def test_the_haze_test_says_what_it_lacks():
    with pytest.raises(InputRefused, match="lack swir16"):
        clear_sky(_scenes().drop_vars("swir16"), haze=True)
    unknown = _scenes()
    unknown["offset"][:] = np.nan
    with pytest.raises(UnknownOffset):
        clear_sky(unknown, haze=True)
    assert clear_sky(unknown, haze=True, offset=-0.1).values.all()


def test_fewer_doubtful_observations_are_kept_and_the_composite_is_nearer_to_the_truth():
    rng = np.random.default_rng(1)
    dates = [f"2020-{month:02d}-15" for month in range(1, 13)]
    scenes = _scenes(dates=dates)
    veil = np.where(rng.random((12, *GRID.shape)) < 0.4, rng.uniform(0.4, 1.0, (12, *GRID.shape)), 0.0)
    for name in FOREST:
        scenes[name].values[:] = np.rint((FOREST[name] + HAZE[name] * veil + 0.1) * 1e4).astype("uint16")
    errors = []
    for haze in (False, True):
        annual = composite(to_reflectance(scenes, where=clear_sky(scenes, haze=haze)), reducer="mean")
        errors.append(float(np.abs(annual.blue.values - FOREST["blue"]).mean()))
        assert np.isfinite(annual.blue.values).all()
    assert errors[1] < 0.2 * errors[0]


# --- statistics ------------------------------------------------------------------------------------


def test_statistics_count_what_the_quality_band_says():
    scl = np.full(GRID.shape, 4, "uint8")
    scl[0, :] = 9
    scl[1, :5] = 3
    scl[2, 0] = 11
    scl[11, :] = 0
    scenes = _scenes(scl=scl)
    table = mask_statistics(scenes, clear_sky(scenes, buffer_m=0))
    assert list(table.columns) == [
        "time", "scene", "valid_share", "cloud_share", "shadow_share", "snow_share", "clear_share",
    ]  # fmt: skip
    shares = table.iloc[0, 2:].astype(float).round(9).tolist()
    assert shares == [round(n / 120, 9) for n in (110, 10, 5, 1, 94)]
    assert table["scene"].tolist() == ["S0", "S1", "S2", "S3", "S4"]
    buffered = mask_statistics(scenes, clear_sky(scenes, buffer_m=20))
    assert (buffered["clear_share"] < table["clear_share"]).all()


def test_lazy_statistics_equal_eager_ones():
    scenes = _scenes(scl=np.random.default_rng(0).integers(0, 12, GRID.shape))
    eager = mask_statistics(scenes, clear_sky(scenes))
    lazy = scenes.chunk({"time": 1, "y": 5})
    pd.testing.assert_frame_equal(mask_statistics(lazy, clear_sky(lazy)), eager)


def test_landsat_statistics_read_the_bits(tmp_path):
    qa = np.full((30, 30), 1 << 6)
    qa[:3], qa[3:5], qa[5] = 1 << 3, 1 << 4, 1 << 5
    scenes = open_tile(write_bundle(tmp_path, qa=qa))
    found = mask_statistics(scenes, clear_sky(scenes, buffer_m=0)).iloc[0, 3:].astype(float).round(9).tolist()
    assert found == [0.1, round(2 / 30, 9), round(1 / 30, 9), 0.8]


def test_statistics_with_the_mask_of_other_scenes_are_refused():
    scenes = _scenes()
    with pytest.raises(GridMismatch, match="clear"):
        mask_statistics(scenes, clear_sky(scenes).isel(time=[0]))


def test_useless_scenes_are_dropped_with_their_reasons(caplog):
    scenes = _scenes()
    scenes.scl.values[1], scenes.scl.values[3] = 0, 9
    scenes.scl.values[4, 1:] = 9
    clear = clear_sky(scenes, buffer_m=0)
    with caplog.at_level(logging.INFO, "geococa"):
        kept, mask = drop_useless_scenes(scenes, clear, min_clear_share=0.2)
    assert kept.scene.values.tolist() == ["S0", "S2"]
    assert mask.sizes["time"] == 2
    for part in ("S1: no data in any cell", "S3: no clear cell", "S4: 8.33% of the cells are clear"):
        assert part in kept.attrs["dropped_scenes"]
        assert part in caplog.text
    assert drop_useless_scenes(scenes, clear)[0].scene.values.tolist() == ["S0", "S2", "S4"]
    assert "dropped_scenes" not in scenes.attrs


def test_a_series_without_a_useful_scene_is_refused():
    scenes = _scenes(scl=9)
    with pytest.raises(InputRefused, match="all 5 scenes"):
        drop_useless_scenes(scenes, clear_sky(scenes))


# --- tiles -----------------------------------------------------------------------------------------


def _tile(tmp_path):
    for month, scl in ((1, 4), (3, 9), (5, 4), (7, 0)):
        write_scene(tmp_path / "T", f"S2A_{month}", f"2023-{month:02d}-01T15:00:00Z", scl=scl)
    return tile_of(tmp_path / "T")


def test_a_recipe_leaves_useless_scenes_of_a_tile_out_and_lists_them(tmp_path, caplog):
    recipe = Recipe(clear_sky={"min_clear_share": 0.1}, run={"block_px": 16})
    with caplog.at_level(logging.WARNING, "geococa"):
        found = screen_tile(_tile(tmp_path), recipe)
    assert [scene.id for scene in found.tile.scenes] == ["S2A_1", "S2A_5"]
    assert found.scenes["used"].tolist() == [True, False, True, False]
    assert found.scenes["reason"].tolist() == ["", "no clear cell", "", "no data in any cell"]
    assert "scene S2A_7 left out: no data in any cell" in caplog.text


def test_by_default_every_scene_stays(tmp_path):
    tile = _tile(tmp_path)
    assert screen_tile(tile, Recipe()).tile is tile


def test_a_tile_is_looked_at_once(tmp_path, monkeypatch):
    import geococa.screening as screening

    tile, calls = _tile(tmp_path), []
    monkeypatch.setattr(screening, "check_tile_radiometry", lambda *a: calls.append(a))
    for _ in range(3):
        screen_tile(tile, Recipe())
    assert len(calls) == 1
    write_scene(tmp_path / "T", "S2A_1", "2023-01-01T15:00:00Z", red=1700)
    screen_tile(tile, Recipe())
    assert len(calls) == 2


def test_the_windows_of_a_large_tile_lie_inside_it_and_apart():
    from geococa.screening import _windows

    assert list(_windows((200, 256))) == [(0, 200, 0, 256)]
    for shape in ((300, 5000), (10980, 10980), (1030, 64)):
        found = list(_windows(shape))
        assert len(found) == 5
        for r0, r1, c0, c1 in found:
            assert 0 <= r0 < r1 <= shape[0]
            assert 0 <= c0 < c1 <= shape[1]
    assert len(set(_windows((10980, 10980)))) == 5


def _faulty_archive(small_archive, tmp_path):
    """A copy of the archive, one tile of which states no offset where its numbers hold one."""
    archive = tmp_path / "archive"
    shutil.copytree(small_archive, archive)
    for item in (archive / "18NXG").glob("*/item.json"):
        text = item.read_text()
        if '"offset":-0.1' in text:
            # an old baseline with the numbers of a new one: what the metadata say is consistent, and wrong
            text = text.replace('"offset":-0.1', '"offset":0')
            text = re.sub(r'"s2:processing_baseline":"[^"]*"', '"s2:processing_baseline":"03.01"', text)
            item.write_text(text)
    return archive


def test_a_tile_whose_data_contradict_its_offsets_is_quarantined_and_the_others_finish(small_archive, tmp_path):
    from geococa.archive import run_archive
    from geococa.preflight import check_recipe

    archive = _faulty_archive(small_archive, tmp_path)
    recipe = Recipe.read(archive / "recipe.toml")
    model = recipe.model.model_copy(update={"options": {"n_estimators": 10}})
    recipe = recipe.model_copy(update={"model": model, "assessment": Recipe().assessment})
    result = run_archive(archive, recipe, out=tmp_path / "out")
    assert list(result.failed) == ["18NXG"]
    assert result.failed["18NXG"].startswith("OffsetConflict: ")
    assert "too bright" in result.failed["18NXG"]
    assert result.computed == ("19NBB",)
    with pytest.raises(InputRefused, match=r"\[reflectance\].*too bright"):
        check_recipe(archive, archive / "recipe.toml")
    off = recipe.model_copy(update={"reflectance": recipe.reflectance.model_copy(update={"radiometric_check": False})})
    assert screen_tile(find_tiles(archive)[0], off).scenes is None
    with pytest.raises(OffsetConflict):
        screen_tile(find_tiles(archive)[0], recipe)


# --- one acquisition, several products -------------------------------------------------------------


OLD = "S2A_MSIL2A_20190115T152641_N0211_R025_T18NXG_20190115T190000"
NEW = "S2A_MSIL2A_20190115T152641_N0500_R025_T18NXG_20230402T010203"


def test_of_an_acquisition_under_two_baselines_the_newest_counts_once(tmp_path, caplog):
    tile = tmp_path / "18NXG"
    write_scene(tile, OLD, "2019-01-15T15:26:41Z", baseline="02.11", offset=0, red=500)
    write_scene(tile, NEW, "2019-01-15T15:26:44Z", baseline="05.00", offset=-0.1, red=1500)
    write_scene(tile, NEW.replace("20190115", "20190120"), "2019-01-20T15:26:41Z", red=1500)
    with caplog.at_level(logging.INFO, "geococa"):
        scenes = open_tile(tile)
    assert scenes.processing_baseline.values.tolist() == ["05.00", "05.09"]
    assert OLD in caplog.text
    assert "only the newer one counts" in caplog.text
    assert [len(found.scenes) for found in find_tiles(tmp_path)] == [2]
    annual = composite(to_reflectance(scenes, where=clear_sky(scenes)))
    assert set(np.unique(annual.observations.values)) == {2}
    np.testing.assert_allclose(annual.red.values, 0.05, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        # earth-search names
        (("S2B_18NXG_20190115_0_L2A", "02.11", 0), ("S2B_18NXG_20190115_1_L2A", "05.00", -0.1), 1),
        # other names: the same second
        (("one", "02.11", 0), ("two", "04.00", -0.1), 1),
        # the halves of a tile at a datastrip border share a baseline
        ((OLD, "02.11", 0), (OLD.replace("T190000", "T190500"), "02.11", 0), 2),
        # another satellite
        ((OLD, "02.11", 0), (NEW.replace("S2A", "S2B"), "05.00", -0.1), 2),
        # another orbit
        ((OLD, "02.11", 0), (NEW.replace("R025", "R125"), "05.00", -0.1), 2),
    ],
)
def test_what_is_one_acquisition_and_what_are_two(tmp_path, first, second, count):
    for folder, (name, baseline, offset) in zip("ab", (first, second), strict=True):
        write_scene(tmp_path / "T", folder, "2019-01-15T15:26:41Z", baseline=baseline, offset=offset)
        item = tmp_path / "T" / folder / "item.json"
        item.write_text(item.read_text().replace(f'"id": "{folder}"', f'"id": "{name}"'))
    assert open_tile(tmp_path / "T").sizes["time"] == count


def test_a_copy_of_a_product_in_another_folder_does_not_count(tmp_path):
    for folder in ("a", "b"):
        write_scene(tmp_path / "T", folder, "2019-01-15T15:26:41Z", baseline="02.11", offset=0)
        item = tmp_path / "T" / folder / "item.json"
        item.write_text(item.read_text().replace(f'"id": "{folder}"', f'"id": "{OLD}"'))
    assert open_tile(tmp_path / "T").sizes["time"] == 1


def test_a_landsat_scene_processed_again_counts_once(tmp_path):
    for product in ("LC08_L2SP_008059_20191201_20191210_02_RT", "LC08_L2SP_008059_20191201_20200825_02_T1"):
        write_bundle(tmp_path / "T", product)
    scenes = open_tile(tmp_path / "T")
    assert scenes.scene.values.tolist() == ["LC08_L2SP_008059_20191201_20200825_02_T1"]


# --- offsets ---------------------------------------------------------------------------------------


def test_a_truly_flat_series_of_mixed_baselines_has_no_step(tmp_path):
    """Every pixel another reflectance, the same on all dates; offsets 0, -0.1 and -0.0327, old dates reprocessed."""
    rng = np.random.default_rng(9)
    truth = {"red": rng.integers(100, 2500, (20, 20)), "nir": rng.integers(1500, 6000, (20, 20))}
    plan = [
        ("2018-06-01", "02.06", 0.0), ("2019-06-01", "05.00", -0.1), ("2020-06-01", "02.14", 0.0),
        ("2021-06-01", "03.01", 0.0), ("2021-12-20", "05.00", -0.1), ("2022-01-10", "03.01", 0.0),
        ("2022-01-30", "04.00", -0.1), ("2022-06-01", "04.00", -0.0327), ("2023-06-01", "05.09", -0.1),
        ("2024-06-01", "05.11", -0.1),
    ]  # fmt: skip
    for number, (day, baseline, offset) in enumerate(plan):
        shift = round(-offset * 1e4)
        write_scene(
            tmp_path / "T", f"S2A_{number}", f"{day}T15:00:00Z", baseline=baseline, offset=offset or 0,
            red=truth["red"] + shift, nir=truth["nir"] + shift,
        )  # fmt: skip
    scenes = open_tile(tmp_path / "T", bands=["red", "nir"])
    reflectance = to_reflectance(scenes, where=clear_sky(scenes))
    for name, values in truth.items():
        assert np.abs(reflectance[name].values - values * 1e-4).max() < 1e-6
    for reducer in ("median", "mean", "p25", "geomedian", "medoid", "max_ndvi", "bap"):
        annual = composite(reflectance, reducer=reducer, cutoff="12-31", fallback_days=700, min_observations=2)
        for band, values in truth.items():
            seen = annual[band].values[1:]  # of the first year there is one date
            assert np.abs(seen - values * 1e-4).max() < 1e-6, reducer
    weighted = composite(reflectance, reducer="geomedian", half_life_days=90)
    for band in truth:
        assert np.abs(np.diff(weighted[band].values, axis=0)).max() < 1e-6


def test_a_safe_folder_whose_item_contradicts_its_xml_is_refused_with_both(tmp_path):
    folder, _ = write_safe(tmp_path)
    scenes = open_tile(folder)
    assert set(scenes.offset.values.ravel()) == {-0.1}
    scene = write_scene(tmp_path / "T", "S2A_X", "2023-06-25T15:00:00Z", offset=-0.1)
    xml = (folder / "MTD_MSIL2A.xml").read_text().replace(">-1000<", ">-500<")
    (scene / "MTD_MSIL2A.xml").write_text(xml)
    with pytest.raises(UnknownOffset, match=r"offset -0\.1 for B0.*XML.*-0\.05"):
        to_reflectance(open_tile(tmp_path / "T"))


# --- a sensor of one's own -------------------------------------------------------------------------

PLANET = """
name = "planetscope-4b"
scale = 1e-4
offset = 0.0
fill = 0
[[bands]]
native = "AnalyticMS_SR:1"
name = "blue"
wavelength_um = 0.485
[[bands]]
native = "AnalyticMS_SR:3"
name = "red"
wavelength_um = 0.630
[quality]
native = "udm2:1"
flags = {not_clear = 0, clear = 1}
masked = ["not_clear"]
buffered = ["not_clear"]
"""


def _planet(tmp_path):
    (tmp_path / "sensor.toml").write_text(PLANET)
    udm = np.ones((8, 10, 10), "uint8")
    udm[0, 2, 2] = 0
    for day, red in (("20210105", 700), ("20210301", 800)):
        bands = np.stack([np.full((10, 10), value, "uint16") for value in (400, 600, red, 3000)])
        write_band(tmp_path / "T" / f"{day}_141414_1003_3B_AnalyticMS_SR.tif", bands, gsd=3, nodata=0)
        write_band(tmp_path / "T" / f"{day}_141414_1003_3B_udm2.tif", udm, gsd=3)
    return tmp_path / "T", str(tmp_path / "sensor.toml")


def test_planetscope_files_open_by_a_sensor_toml_with_their_own_mask(tmp_path):
    tile, sensor = _planet(tmp_path)
    scenes = open_tile(tile, sensor=sensor)
    assert set(scenes.data_vars) == {"blue", "red", "quality"}
    clear = clear_sky(scenes, buffer_m=3)
    assert int((~clear).sum()) == 2 * 5
    assert not clear.values[:, 2, 2].any()
    reflectance = to_reflectance(scenes, where=clear)
    np.testing.assert_allclose(np.nanmax(reflectance.red.values, axis=(1, 2)), [0.07, 0.08], atol=1e-7)
    assert mask_statistics(scenes, clear)["clear_share"].tolist() == [0.95, 0.95]


def test_a_recipe_takes_the_sensor_toml_from_its_own_folder(tmp_path):
    tile, _ = _planet(tmp_path)
    (tmp_path / "recipe.toml").write_text('[scenes]\nsensor = "sensor.toml"\n')
    recipe = Recipe.read(tmp_path / "recipe.toml")
    assert open_tile(tile, sensor=recipe.scenes.sensor).attrs["sensor"] == "planetscope-4b"
    assert recipe.settings()["scenes"]["sensor"] == "sensor.toml"


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (("scale = 1e-4", "scale = -1"), "scale"),
        (("offset = 0.0", "offset = nan"), "offset"),
        (("fill = 0", "fill = 0.5"), "fill"),
        (("fill = 0", "valid_max = true"), "valid_max"),
        (('name = "planetscope-4b"', 'name = "a/b"'), "name"),
        (('native = "AnalyticMS_SR:3"', 'native = "AnalyticMS_SR:1"'), "each once"),
        (('name = "red"', 'name = "quality"'), "band names"),
        (("wavelength_um = 0.485", 'role = "fog"'), "role"),
        (("clear = 1}", "clear = 0}"), "flags"),
        (("clear = 1}", "clear = 300}"), "flags"),
        (('masked = ["not_clear"]', 'masked = ["fog"]'), "masked"),
        (('native = "udm2:1"', "kind = 1"), "quality"),
    ],
)
def test_a_faulty_sensor_toml_is_refused_by_file_and_setting(tmp_path, edit, found):
    path = tmp_path / "sensor.toml"
    path.write_text(PLANET.replace(*edit))
    with pytest.raises(InputRefused, match=rf"sensor\.toml.*{found}"):
        open_tile(tmp_path, sensor=str(path))
