"""Terrain and distances from the recipe to the maps: blocks, unobserved pixels, provenance, refusals."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from geococa.archive import run_archive
from geococa.errors import InputRefused, RecipeError
from geococa.features import distance_features, terrain_features
from geococa.ground import ground_inputs
from geococa.models import train
from geococa.pipeline import run_tile, sample_table, yearly_features
from geococa.preflight import check_recipe
from geococa.recipe import Recipe
from geococa.samples import read_samples
from geococa.tiles import find_tiles, open_tile, read_raster
from tests.oracles_terrain import hills

SETTINGS = """
terrain = ["elevation", "slope", "aspect_cos"]
dem = "dem.tif"
distance = { roads = "roads.gpkg", towns = "towns.geojson" }
max_distance_m = 5000
"""


@pytest.fixture(scope="module")
def archive(small_archive):
    """The simulated archive with an elevation model, roads and towns, and a recipe that asks for them."""
    tiles = find_tiles(small_archive)
    parts = [geopandas.GeoSeries([shapely.box(*t.grid.bounds)], crs=t.grid.crs).to_crs(4326) for t in tiles]
    boxes = geopandas.GeoSeries([part.iloc[0] for part in parts], crs=4326)
    left, bottom, right, top = boxes.total_bounds
    size = 1 / 3600
    shape = (int((top - bottom) / size) + 6, int((right - left) / size) + 6)
    with rasterio.open(small_archive / "dem.tif", "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype="float32",
                       crs="EPSG:4326", transform=(size, 0, left - 3 * size, 0, -size, top + 3 * size)) as file:  # fmt: skip
        file.write(hills(shape), 1)
    middle = boxes.union_all().centroid
    road = shapely.LineString([(left, bottom), (middle.x, middle.y), (right, middle.y)])
    geopandas.GeoDataFrame(geometry=[road], crs=4326).to_file(small_archive / "roads.gpkg")
    town = geopandas.GeoDataFrame(geometry=[middle.buffer(0.001)], crs=4326)
    town.to_file(small_archive / "towns.geojson")
    text = (small_archive / "recipe.toml").read_text()
    head, tail = text.split("[features]\n")
    path = small_archive / "ground.toml"
    path.write_text(f"{head}[features]\n{SETTINGS}{tail}")
    return small_archive, Recipe.read(path), tiles


def test_features_are_those_of_the_functions_and_unobserved_where_the_year_is(archive):
    folder, recipe, tiles = archive
    scenes = open_tile(tiles[0], bands=recipe.bands_needed())
    features, _ = yearly_features(scenes, recipe)
    plain = recipe.model_copy(
        update={"features": recipe.features.model_copy(update={"terrain": (), "dem": None, "distance": {}})}
    )
    others, _ = yearly_features(scenes, plain)
    np.testing.assert_array_equal(features.values[:, : others.sizes["feature"]], others.values)
    grid = tiles[0].grid
    expected = np.concatenate(
        [
            terrain_features(folder / "dem.tif", ["elevation", "slope", "aspect_cos"], grid=grid).values,
            distance_features(
                {"roads": folder / "roads.gpkg", "towns": folder / "towns.geojson"}, grid, max_distance_m=5000
            ).values,
        ]
    )
    names = features["feature"].values[-5:].tolist()
    assert names == ["elevation", "slope", "aspect_cos", "distance_roads_m", "distance_towns_m"]
    seen = np.isfinite(others.values).any(axis=1)
    assert not seen.all()
    for year in range(features.sizes["time"]):
        np.testing.assert_array_equal(features.values[year, -5:], np.where(seen[year], expected, np.float32(np.nan)))


def test_maps_with_terrain_and_distances_do_not_depend_on_blocks_and_threads(archive, tmp_path):
    _, recipe, tiles = archive
    table = sample_table(tiles, read_samples(recipe.model.samples), recipe)
    names = [*recipe.features.names, "elevation", "slope", "aspect_cos", "distance_roads_m", "distance_towns_m"]
    model = train(table, names, seed=7, n_estimators=20)
    runs = []
    for size, threads in ((32, 2), (4096, 1)):
        cut = recipe.model_copy(update={"run": recipe.run.model_copy(update={"block_px": size})})
        runs.append(run_tile(tiles[0], cut, model, tmp_path / str(size), threads=threads))
    for year in runs[0].years:
        assert runs[0].maps[year].read_bytes() == runs[1].maps[year].read_bytes()
    assert (read_raster(runs[0].maps[year]).values != 255).any()


def test_a_run_names_its_files_and_makes_maps_anew_when_one_changes(archive, tmp_path):
    folder, recipe, _ = archive
    run_archive(folder, recipe, out=tmp_path / "out", workers=1)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    first = manifest["features_sha256"]
    assert sorted(first) == ["dem", "distance.roads", "distance.towns"]
    assert manifest["recipe"]["features"]["dem"] == "dem.tif"
    assert manifest["recipe"]["features"]["distance"] == {"roads": "roads.gpkg", "towns": "towns.geojson"}
    towns = (folder / "towns.geojson").read_text()
    (folder / "towns.geojson").write_text(towns + "\n")
    assert ground_inputs(recipe)["distance.towns"] != first["distance.towns"]
    assert ground_inputs(recipe)["dem"] == first["dem"]


@pytest.mark.parametrize("setting", ["dem", "distance"])
def test_a_missing_file_is_named(archive, setting):
    folder, recipe, tiles = archive
    lost = folder / "lost.tif" if setting == "dem" else {"roads": folder / "lost.tif"}
    broken = recipe.model_copy(update={"features": recipe.features.model_copy(update={setting: lost})})
    with pytest.raises(InputRefused, match="lost"):
        ground_inputs(broken)
    with pytest.raises(InputRefused, match="lost"):
        yearly_features(open_tile(tiles[0], bands=recipe.bands_needed()), broken)


def test_the_check_before_a_run_looks_at_the_files(archive):
    folder, _, _ = archive
    found = check_recipe(folder, folder / "ground.toml").set_index("what")["found"]
    assert found["ground"] == "dem, distance.roads, distance.towns serve 2 tiles"
    text = (folder / "ground.toml").read_text()
    (folder / "lost.toml").write_text(text.replace("roads.gpkg", "lost.gpkg"))
    with pytest.raises(InputRefused, match=r"\[features\] no file at .*lost\.gpkg"):
        check_recipe(folder, folder / "lost.toml")


def test_a_model_that_misses_the_tile_is_refused(archive, tmp_path):
    _, recipe, tiles = archive
    path = tmp_path / "far.tif"
    with rasterio.open(path, "w", driver="GTiff", height=5, width=5, count=1, dtype="float32", crs="EPSG:4326",
                       transform=(0.1, 0, 10, 0, -0.1, 50)) as file:  # fmt: skip
        file.write(np.ones((5, 5), np.float32), 1)
    moved = recipe.model_copy(update={"features": recipe.features.model_copy(update={"dem": path})})
    with pytest.raises(InputRefused, match="nothing of the tile"):
        yearly_features(open_tile(tiles[0], bands=recipe.bands_needed()), moved)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('terrain = ["slope"]', "go together"),
        ('dem = "dem.tif"', "go together"),
        ('terrain = ["aspect"]\ndem = "dem.tif"', "aspect"),
        ('distance = { "Main road" = "a.gpkg" }', "lower-case"),
        ('texture_statistics = ["mode"]', "texture_statistics"),
        ('season_statistics = ["mode"]', "season_statistics"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, settings, words):
    path = tmp_path / "recipe.toml"
    path.write_text(f"[features]\n{settings}\n")
    with pytest.raises(RecipeError, match=words):
        Recipe.read(path)


def test_statistics_of_texture_and_season_are_chosen_in_the_recipe(archive):
    _, recipe, tiles = archive
    chosen = {
        "names": ("ndvi",), "texture": ("nir",), "texture_statistics": ("contrast",), "season": ("ndvi",),
        "season_statistics": ("drops",), "terrain": (), "dem": None, "distance": {},
    }  # fmt: skip
    asked = recipe.model_copy(update={"features": recipe.features.model_copy(update=chosen)})
    features, _ = yearly_features(open_tile(tiles[0], bands=asked.bands_needed(), window=(0, 20, 0, 20)), asked)
    assert features["feature"].values.tolist() == ["ndvi", "nir_contrast5", "ndvi_drops"]
