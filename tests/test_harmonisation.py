"""Harmonised reflectance: published coefficients, per date, back and forth, refusals, recipe."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.errors import InputRefused, KindMismatch, RecipeError
from geococa.harmonisation import coefficients, harmonise
from geococa.pipeline import yearly_features
from geococa.recipe import Recipe
from geococa.tiles import find_tiles, open_tile

IDS = (
    "S2A_MSIL2A_20220105T151701_N0301_R125_T18NXG_20220105T183502",
    "S2B_MSIL2A_20220110T151659_N0301_R125_T18NXG_20220110T173501",
    "LE07_L2SP_008059_20220112_20220207_02_T1",
    "LC08_L2SP_008059_20220113_20220121_02_T1",
    "LC09_L2SP_008059_20220121_20230502_02_T1",
)


def reflectance(ids=IDS, bands=("blue", "green", "red", "nir08", "swir16", "swir22"), seed=0):
    rng = np.random.default_rng(seed)
    times = pd.date_range("2022-01-05", periods=len(ids), freq="5D").astype("datetime64[ns]")
    values = {name: (("time", "y", "x"), rng.uniform(0.01, 0.5, (len(ids), 4, 5)).astype(np.float32)) for name in bands}
    out = xr.Dataset(values, coords={"time": times, "scene": ("time", list(ids))}, attrs={"kind": "reflectance"})
    out[bands[0]][:, 0, 0] = np.nan
    return out


def test_every_row_of_the_table_names_its_source_and_stays_near_one():
    table = coefficients()
    assert set(table["platform"]) == {
        "sentinel-2a",
        "sentinel-2b",
        "sentinel-2c",
        "landsat-7",
        "landsat-8",
        "landsat-9",
    }
    assert table.groupby("platform").size().to_dict()["sentinel-2a"] == 7
    assert not table.duplicated(["platform", "band"]).any()
    assert (table["source"].str.len() > 20).all()
    assert table["slope"].between(0.84, 1.01).all()
    assert table["intercept"].abs().max() < 0.05


def test_each_date_is_adjusted_by_its_own_platform():
    data = reflectance()
    result = harmonise(data)
    expected = {0: (0.9765, 0.0009), 1: (0.9761, 0.0010), 2: (0.9047, 0.0061), 3: (1, 0), 4: (1, 0)}
    for date, (slope, intercept) in expected.items():
        np.testing.assert_allclose(result["red"][date], data["red"].values[date] * slope + intercept, atol=1e-7)
    np.testing.assert_array_equal(result["swir16"][3:], data["swir16"][3:])
    assert result.attrs["harmonised"] == "landsat-8"
    assert result["red"].dtype == np.float32


def test_unobserved_stays_unobserved_and_the_input_untouched():
    data = reflectance()
    before = data.copy(deep=True)
    np.testing.assert_array_equal(np.isnan(harmonise(data)["blue"]), np.isnan(data["blue"]))
    xr.testing.assert_identical(data, before)


def test_to_sentinel_2_and_back_is_where_it_began():
    data = reflectance()
    there = harmonise(data, "sentinel-2")
    np.testing.assert_array_equal(there["green"][0], data["green"][0])
    del there.attrs["harmonised"]
    back = harmonise(there, platforms="sentinel-2a")
    for name in data.data_vars:
        np.testing.assert_allclose(back[name], harmonise(data)[name], atol=1e-6)


def test_dask_gives_the_same_values_and_nothing_early():
    data = reflectance()
    lazy = harmonise(data.chunk({"time": 1, "y": 2}))
    assert lazy["red"].chunks is not None
    xr.testing.assert_equal(lazy.compute(), harmonise(data))


def test_landsat_may_call_its_near_infrared_nir():
    data = reflectance(IDS[2:]).rename(nir08="nir")
    np.testing.assert_array_equal(harmonise(data)["nir"], harmonise(data.rename(nir="nir08"))["nir08"])


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda d: d.rename(nir08="nir"), {}, "open nir08"),
        (lambda d: d.assign(rededge071=d["red"]), {}, "rededge071"),
        (lambda d: d.assign(coastal=d["red"]).isel(time=[2]), {}, "coastal"),
        (lambda d: d.assign_attrs(sensor="sentinel-2-l1c"), {}, "top of the atmosphere"),
        (lambda d: d.assign_attrs(harmonised="landsat-8"), {}, "already"),
        (lambda d: d.drop_vars("scene"), {}, "platforms="),
        (lambda d: d.assign_coords(scene=("time", ["x"] * 5)), {}, "'x'"),
        (lambda d: d.assign_coords(scene=("time", ["LT05_L2SP_008059_19900113"] * 5)), {}, "landsat-5"),
        (lambda d: d, {"to": "modis"}, "landsat-8, sentinel-2"),
        (lambda d: d, {"platforms": ["landsat-8"]}, "5 dates"),
    ],
)
def test_what_has_no_published_adjustment_is_refused(change, options, words):
    with pytest.raises(InputRefused, match=words):
        harmonise(change(reflectance()), **options)


def test_scenes_are_refused():
    with pytest.raises(KindMismatch):
        harmonise(reflectance().assign_attrs(kind="scenes"))


def test_the_recipe_harmonises_and_reads_the_narrow_near_infrared(small_archive):
    recipe = Recipe.model_validate(
        {
            "reflectance": {"harmonise": "landsat-8"},
            "features": {"names": ["ndvi", "red"]},
            "composite": {"reducer": "median"},
        }
    )
    assert recipe.bands_needed() == ["nir08", "red"]
    tile = find_tiles(small_archive)[0]
    scenes = open_tile(tile, bands=recipe.bands_needed(), window=(0, 12, 0, 12))
    ids = [str(scene) for scene in scenes["scene"].values]
    scenes = scenes.assign_coords(scene=("time", [IDS[0]] * len(ids)))
    plain = recipe.model_copy(update={"reflectance": recipe.reflectance.model_copy(update={"harmonise": None})})
    adjusted, _ = yearly_features(scenes, recipe)
    before, _ = yearly_features(scenes, plain)
    np.testing.assert_allclose(adjusted.sel(feature="red"), before.sel(feature="red") * 0.9765 + 0.0009, atol=1e-6)
    with pytest.raises(RecipeError, match="harmonise"):
        _read("[reflectance]\nharmonise = 'modis'\n", small_archive)


def _read(text, folder):
    path = folder / "bad.toml"
    path.write_text(text)
    return Recipe.read(path)
