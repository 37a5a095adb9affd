"""The stages in a row: blocks change nothing, hectares add up, the unobserved stays unobserved."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from geococa.areas import zonal_area
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.models import train
from geococa.pipeline import land_cover_of, run_tile, sample_table, yearly_features
from geococa.recipe import Recipe
from geococa.samples import check_no_leak, read_samples, split_samples
from geococa.tiles import find_tiles, open_tile, read_raster
from geococa.zones import coverage_fraction, read_zones


def recipe_for(archive, **changes):
    return Recipe.read(archive / "recipe.toml").model_copy(update=changes)


def with_(recipe, section, **values):
    return recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=values)})


@pytest.fixture(scope="module")
def trained(small_archive):
    recipe = recipe_for(small_archive)
    tiles = find_tiles(small_archive)
    table = sample_table(tiles, read_samples(recipe.model.samples), recipe)
    return recipe, tiles, train(table, list(recipe.features.names), seed=7, n_estimators=30)


def test_a_run_in_blocks_gives_the_bytes_of_a_run_in_one_piece(trained, tmp_path):
    recipe, tiles, model = trained
    small, whole = (with_(recipe, "run", block_px=size) for size in (32, 4096))
    first = run_tile(tiles[0], small, model, tmp_path / "blocks", threads=2)
    second = run_tile(tiles[0], whole, model, tmp_path / "whole", threads=1)
    for year in first.years:
        assert first.maps[year].read_bytes() == second.maps[year].read_bytes()
        assert first.observations[year].read_bytes() == second.observations[year].read_bytes()


def test_the_library_calls_give_the_maps_of_the_run(trained, tmp_path):
    recipe, tiles, model = trained
    recipe = with_(recipe, "labels", min_area_ha=0.0)
    done = run_tile(tiles[0], recipe, model, tmp_path)
    scenes = open_tile(tiles[0].path, bands=recipe.bands_needed())
    features, _ = yearly_features(scenes, recipe)
    land_cover = land_cover_of(features, model, recipe)
    for i, year in enumerate(done.years):
        np.testing.assert_array_equal(read_raster(done.maps[year]).values, land_cover.values[i])


def test_a_pixel_without_a_clear_date_stays_unobserved(trained, tmp_path):
    recipe, tiles, model = trained
    done = run_tile(tiles[0], with_(recipe, "composite", min_observations=2), model, tmp_path)
    for year in done.years:
        seen = read_raster(done.observations[year]).values
        labels = read_raster(done.maps[year]).values
        assert (labels[seen < 2] == 255).all()
        assert (labels[seen >= 2] != 255).all()
        # the dates behind a map are told for what was seen, whether or not there is a cut-off date
        age = read_raster(done.ages[year]).values
        assert (np.isfinite(age) == (seen >= 2)).all()
        assert ((age[seen >= 2] >= 0) & (age[seen >= 2] <= 365)).all()


def test_a_year_without_scenes_is_all_unobserved(trained, tmp_path):
    recipe, tiles, model = trained
    done = run_tile(tiles[0], recipe, model, tmp_path, years=[*tiles[0].years, 2035])
    assert (read_raster(done.maps[2035]).values == 255).all()


def test_hectares_and_the_unobserved_add_up_to_the_zone(trained, small_archive, tmp_path):
    recipe, tiles, model = trained
    done = run_tile(tiles[0], recipe, model, tmp_path)
    land_cover = read_raster(done.maps[done.years[0]])
    parks = read_zones(small_archive / "parks.gpkg", name="park")
    areas = zonal_area(land_cover, coverage_fraction(parks, Grid.from_xarray(land_cover)))
    total = areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha
    np.testing.assert_allclose(total.values, np.broadcast_to(areas.zone_ha.values, total.shape), rtol=1e-9)


def test_samples_in_overlapping_tiles_count_once(trained, small_archive):
    recipe, tiles, _ = trained
    table = sample_table(tiles, read_samples(recipe.model.samples), recipe)
    assert table.groupby(["sample", "year"])["tile"].nunique().max() == 1
    assert len(set(table["tile"])) == len(tiles)


def test_samples_far_from_the_archive_are_refused(trained):
    recipe, tiles, _ = trained
    samples = read_samples(recipe.model.samples)
    samples["geometry"] = samples.geometry.translate(10, 10)
    with pytest.raises(InputRefused, match="none of the"):
        sample_table(tiles, samples, recipe)


def test_the_sample_table_can_be_split_without_a_leak(trained):
    recipe, tiles, _ = trained
    table = sample_table(tiles, read_samples(recipe.model.samples), recipe)
    train_rows, test_rows = split_samples(table, test_share=0.3, block_m=200, seed=1)
    check_no_leak(train_rows, test_rows, block_m=200)
    assert len(test_rows) > 0


def test_maps_carry_their_colours_and_class_names_for_other_programs(trained, tmp_path):
    recipe, tiles, model = trained
    done = run_tile(tiles[0], recipe, model, tmp_path)
    path = done.maps[done.years[0]]
    with rasterio.open(path) as opened:
        assert opened.colormap(1)[1][:3] == (0xD8, 0x1B, 0x60)
        assert opened.nodata == 255
    names = path.with_name(f"{path.name}.aux.xml").read_text(encoding="utf-8")
    assert "<Category>coca</Category>" in names
