"""Radar backscatter: units stated or refused, linear power, yearly medians as bands of the recipe's features."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from geococa.archive import run_archive
from geococa.backscatter import open_backscatter, read_backscatter
from geococa.composites import composite
from geococa.errors import GridMismatch, InputRefused
from geococa.features import spectral_features
from geococa.grid import Grid
from geococa.models import train
from geococa.pipeline import run_tile, sample_table, yearly_features
from geococa.preflight import check_recipe
from geococa.recipe import Recipe
from geococa.samples import read_samples
from geococa.tiles import find_tiles, open_tile

GRID = Grid("EPSG:32618", (10, 0, 600_000, 0, -10, 300_000), (12, 16))


def write(path, planes, names=("VV", "VH"), grid=GRID, **profile):
    planes = np.asarray(planes)
    settings = {"dtype": planes.dtype, "nodata": None, "crs": grid.crs.to_wkt(), "transform": grid.transform} | profile
    with rasterio.open(
        path, "w", driver="GTiff", height=planes.shape[1], width=planes.shape[2], count=len(planes), **settings
    ) as f:
        f.write(planes)
        f.descriptions = names
    return path


def power(seed, grid=GRID):
    rng = np.random.default_rng(seed)
    vv = rng.uniform(0.05, 0.3, grid.shape)
    return np.stack([vv, vv * rng.uniform(0.1, 0.4, grid.shape)]).astype(np.float32)


def decibels(values):
    return (10 * np.log10(values)).astype(np.float32)


def test_decibels_and_linear_power_are_the_same_ground(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write(tmp_path / "a" / "S1A_20220105.tif", power(1), ("sigma0_VV_linear", "sigma0_VH_linear"))
    write(tmp_path / "b" / "S1A_20220105.tif", decibels(power(1)), ("Sigma0_VV_db", "Sigma0_VH_db"))
    linear, logged = read_backscatter(tmp_path / "a", GRID), read_backscatter(tmp_path / "b", GRID)
    np.testing.assert_array_equal(linear["vv"][0], power(1)[0])
    for name in ("vv", "vh"):
        np.testing.assert_allclose(logged[name], linear[name], rtol=1e-5)
    assert linear.attrs["quantity"] == "sigma0"


def test_missing_values_and_empty_borders_are_not_observed(tmp_path):
    values = power(2)
    values[0, 0, 0], values[1, 0, 1], values[:, 0, 2] = -9999, np.nan, 0
    write(tmp_path / "S1_20220105.tif", values, nodata=-9999)
    found = read_backscatter(tmp_path, GRID, units="linear", quantity="gamma0")
    assert np.isnan(found["vv"].values[0, 0]).tolist()[:3] == [True, False, True]
    assert np.isnan(found["vh"].values[0, 0]).tolist()[:3] == [False, True, True]


def test_one_file_a_polarisation_and_scaled_integers(tmp_path):
    values = decibels(power(3))
    for k, name in enumerate(("VV", "VH")):
        path = write(tmp_path / f"S1A_IW_20220105_gamma0_{name}_db.tif", np.rint(values[k : k + 1] * 100).astype(np.int16), (None,),
                     nodata=-32768)  # fmt: skip
        with rasterio.open(path, "r+") as file:
            file.scales = (0.01,)
    found = read_backscatter(tmp_path, GRID)
    np.testing.assert_allclose(found["vh"][0], power(3)[1], rtol=2e-3)
    assert found.attrs["quantity"] == "gamma0"


def test_coarser_cells_are_repeated_and_windows_are_parts(tmp_path):
    coarse = Grid(GRID.crs, (20, 0, 600_000, 0, -20, 300_000), (6, 8))
    write(tmp_path / "S1_20220105.tif", power(4, coarse), grid=coarse)
    scenes = open_backscatter(tmp_path, GRID, units="linear", quantity="sigma0")
    whole = scenes.read()["vv"].values
    np.testing.assert_array_equal(whole[0], power(4, coarse)[0].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(scenes.read((3, 9, 5, 12))["vv"].values, whole[:, 3:9, 5:12])


def test_yearly_medians_and_formulas(tmp_path):
    for i in range(3):
        write(tmp_path / f"S1_2022010{i + 1}.tif", power(10 + i))
    write(tmp_path / "S1_20230101.tif", power(20))
    scenes = open_backscatter(tmp_path, GRID, units="linear", quantity="sigma0")
    annual = scenes.yearly()
    expected = np.median([power(10 + i) for i in range(3)], axis=0)
    np.testing.assert_array_equal(annual["vh"][0], expected[1])
    np.testing.assert_array_equal(annual["vv"][1], power(20)[0])
    features = spectral_features(composite(scenes.read()), ["rvi_sar=4*vh/(vv+vh)", "ratio=vh/vv"])
    np.testing.assert_allclose(features.values[0, 0], 4 * expected[1] / (expected[0] + expected[1]), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "names", "options", "words"),
    [
        (power(1), ("VV", "VH"), {}, "units .* not stated"),
        (power(1), ("VV linear", "VH linear"), {}, "quantity .* not stated"),
        (power(1), ("VV linear", "VH dB"), {"quantity": "sigma0"}, "contradict"),
        (power(1), ("VV dB", "VH dB"), {"units": "linear", "quantity": "sigma0"}, "contradict"),
        (power(1), ("beta0 VV", "beta0 VH"), {"units": "linear"}, "not calibrated"),
        ((power(1) * 1000).astype(np.uint16), ("VV", "VH"), {"units": "linear", "quantity": "sigma0"}, "not calibrated"),
        (decibels(power(1)), ("VV", "VH"), {"units": "linear", "quantity": "sigma0"}, "look like decibels"),
        (power(1), ("VV", "VH"), {"units": "dB", "quantity": "sigma0"}, "look like linear"),
        (power(1), ("VV", "HH"), {"units": "linear", "quantity": "sigma0"}, "no band vh"),
        (power(1), ("VV", "VH"), {"units": "watts", "quantity": "sigma0"}, "linear, dB"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused(tmp_path, values, names, options, words):
    write(tmp_path / "S1_20220105.tif", values, names)
    with pytest.raises(InputRefused, match=words):
        read_backscatter(tmp_path, GRID, **options)


def test_other_grids_missing_folders_and_empty_ones_are_refused(tmp_path):
    moved = Grid(GRID.crs, (10, 0, 600_003, 0, -10, 300_000), GRID.shape)
    (tmp_path / "moved").mkdir()
    write(tmp_path / "moved" / "S1_20220105.tif", power(1), grid=moved)
    with pytest.raises(GridMismatch, match="whole number"):
        read_backscatter(tmp_path / "moved", GRID, units="linear", quantity="sigma0")
    with pytest.raises(InputRefused, match="does not exist"):
        read_backscatter(tmp_path / "none", GRID)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputRefused, match="no radar scene"):
        read_backscatter(tmp_path / "empty", GRID)


@pytest.fixture(scope="module")
def radar(small_archive):
    """The simulated archive with radar scenes for every tile and year, and a recipe that asks for them."""
    tiles = find_tiles(small_archive)
    for tile in tiles:
        folder = small_archive.parent / "sar" / tile.tile
        folder.mkdir(parents=True)
        for year in tile.years:
            for month in (2, 8):
                write(folder / f"S1A_{year}{month:02d}10.tif", power(year * month, tile.grid), grid=tile.grid)
    text = (small_archive / "recipe.toml").read_text()
    path = small_archive / "radar.toml"
    path.write_text(text + '\n[sar]\npath = "../sar"\nunits = "linear"\nquantity = "gamma0"\n')
    recipe = Recipe.read(path)
    names = (*recipe.features.names, "vv", "rvi_sar=4*vh/(vv+vh)")
    recipe = recipe.model_copy(update={"features": recipe.features.model_copy(update={"names": names})})
    return recipe, tiles


def test_the_recipe_adds_radar_bands_and_reads_no_optical_band_for_them(radar):
    recipe, tiles = radar
    assert not {"vv", "vh"} & set(recipe.bands_needed())
    assert recipe.settings()["sar"]["path"] == "sar"
    scenes = open_tile(tiles[0], bands=recipe.bands_needed())
    features, _ = yearly_features(scenes, recipe)
    year = tiles[0].years[0]
    vv, vh = np.mean([power(year * month, tiles[0].grid) for month in (2, 8)], axis=0)
    np.testing.assert_allclose(features.sel(feature="vv")[0], vv, rtol=1e-6)
    np.testing.assert_allclose(features.sel(feature="rvi_sar")[0], 4 * vh / (vv + vh), rtol=1e-6)


def test_a_year_without_a_radar_scene_is_unobserved(radar, small_archive, tmp_path):
    recipe, tiles = radar
    year = tiles[0].years[0]
    folder = tmp_path / "sar"
    folder.mkdir()
    write(folder / f"S1A_{year}0210.tif", power(1, tiles[0].grid), grid=tiles[0].grid)
    alone = recipe.model_copy(update={"sar": recipe.sar.model_copy(update={"path": folder})})
    features, _ = yearly_features(open_tile(tiles[0], bands=alone.bands_needed()), alone)
    seen = np.isfinite(features.sel(feature="vv").values).any(axis=(1, 2))
    assert seen.tolist() == [True] + [False] * (len(tiles[0].years) - 1)


def test_the_check_before_a_run_counts_radar_scenes(radar, small_archive):
    found = check_recipe(small_archive, small_archive / "radar.toml").set_index("what")["found"]
    assert found["radar"].endswith("scenes, gamma0, linear")


def test_maps_with_radar_do_not_depend_on_blocks(radar, tmp_path):
    recipe, tiles = radar
    table = sample_table(tiles, read_samples(recipe.model.samples), recipe)
    model = train(table, ["ndvi", "vv", "rvi_sar"], seed=7, n_estimators=10)
    runs = []
    for size in (64, 4096):
        cut = recipe.model_copy(update={"run": recipe.run.model_copy(update={"block_px": size})})
        runs.append(run_tile(tiles[0], cut, model, tmp_path / str(size), threads=1))
    for year in runs[0].years:
        assert runs[0].maps[year].read_bytes() == runs[1].maps[year].read_bytes()


@pytest.mark.slow
def test_a_run_names_its_radar_scenes_and_makes_maps_anew_when_one_changes(radar, small_archive, tmp_path):
    recipe, tiles = radar
    first = run_archive(small_archive, recipe, out=tmp_path / "out", workers=1)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(manifest["radar"][tiles[0].tile]) == 2 * len(tiles[0].years)
    again = run_archive(small_archive, recipe, out=tmp_path / "out", workers=1)
    file = small_archive.parent / "sar" / tiles[0].tile / f"S1A_{tiles[0].years[0]}0210.tif"
    file.write_bytes(file.read_bytes() + b"\0")
    changed = run_archive(small_archive, recipe, out=tmp_path / "out", workers=1)
    assert sorted(first.computed) == sorted(tile.tile for tile in tiles)
    assert not again.computed
    assert tiles[0].tile in changed.computed
