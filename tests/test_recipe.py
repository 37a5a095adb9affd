"""Recipes: read, checked before any work, wrong settings explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from geococa.errors import RecipeError
from geococa.recipe import Recipe, describe


def write(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_recipe_has_the_defaults(tmp_path):
    assert Recipe.read(write(tmp_path, "")) == Recipe()


def test_relative_paths_are_taken_from_the_recipes_folder(tmp_path):
    recipe = Recipe.read(write(tmp_path, '[zones]\npath = "parks.gpkg"\n[model]\nsamples = "../s.gpkg"\n'))
    assert recipe.zones.path == tmp_path / "parks.gpkg"
    assert recipe.model.samples == tmp_path / "../s.gpkg"


def test_settings_hold_file_names_only_so_that_keys_do_not_depend_on_the_folder(tmp_path):
    recipe = Recipe.read(write(tmp_path, '[zones]\npath = "parks.gpkg"\n'))
    assert recipe.settings()["zones"]["path"] == "parks.gpkg"
    assert str(tmp_path) not in str(recipe.settings())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[labels]\nsmooth_windw = 5\n", "did you mean 'smooth_window'"),
        ("[lables]\nsmooth_window = 5\n", "did you mean 'labels'"),
        ("[labels]\nsmooth_window = 4\n", "odd"),
        ("[labels]\nmin_area_ha = -1\n", "labels.min_area_ha = -1"),
        ("[labels]\nconnectivity = 6\n", "labels.connectivity"),
        ("[features]\nnames = []\n", "at least one feature"),
        ("[features]\nnames = ['ndvi', 'ndvi']\n", "each once"),
        ("[composite]\nmin_observations = 0\n", "composite.min_observations"),
        ("[run]\nblock_px = 1\n", "run.block_px"),
        ("[model]\nmethod = 'randomforest'\n", "known are random_forest"),
        ("[model]\nmethod = 'rules'\n", 'path = "rules.toml"'),
        ("[model]\nseed = -1\n", "model.seed"),
        ("[scenes\n", "not a readable TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_the_remedy(tmp_path, text, expected):
    with pytest.raises(RecipeError, match=r"recipe\.toml") as caught:
        Recipe.read(write(tmp_path, text))
    assert expected in str(caught.value)


def test_all_faults_are_listed_at_once(tmp_path):
    with pytest.raises(RecipeError) as caught:
        Recipe.read(write(tmp_path, "[labels]\nsmooth_window = 4\nmin_area_ha = -1\n"))
    assert "smooth_window" in str(caught.value)
    assert "min_area_ha" in str(caught.value)


def test_a_missing_recipe_says_how_to_make_one(tmp_path):
    with pytest.raises(RecipeError, match="geococa init"):
        Recipe.read(tmp_path / "none.toml")


def test_the_reference_in_the_docs_is_the_one_of_the_code():
    text = (Path(__file__).parent.parent / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert text == describe(), (
        "write it again: python -c 'from geococa.recipe import describe; print(describe(), end=\"\")' > docs/recipe.md"
    )
