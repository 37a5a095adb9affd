"""Before any work: a recipe that fits the archive, and faults named all at once."""

from __future__ import annotations

import re
import shutil
import tomllib

import pytest

from geococa.errors import InputRefused
from geococa.preflight import check_recipe, propose_recipe
from geococa.recipe import Recipe
from tests.scene_files import write_bundle


def test_the_proposed_recipe_is_valid_and_fits_the_archive(small_archive, tmp_path):
    path = propose_recipe(small_archive, tmp_path / "new" / "recipe.toml")
    recipe = Recipe.read(path)
    assert recipe.scenes.years == (2020, 2022)
    assert recipe.zones.path.resolve() == (small_archive / "parks.gpkg").resolve()
    found = dict(check_recipe(small_archive, path).values)
    assert found["years"] == "2020-2022"
    assert "coca" in found["model"]


def test_every_setting_that_the_proposal_leaves_as_a_comment_is_one(small_archive, tmp_path):
    text = propose_recipe(small_archive, tmp_path / "recipe.toml").read_text(encoding="utf-8")
    offered = re.sub(r"^# (\[\w+\]|\w+ = )", r"\1", text, flags=re.M)
    assert offered.count("\n# ") < text.count("\n# ")
    recipe = Recipe.model_validate(tomllib.loads(offered))
    assert recipe.composite.cutoff == "12-31"
    assert recipe.composite.window_days == 120
    assert recipe.features.season == ("ndvi",)
    assert recipe.features.distance.keys() == {"rivers", "roads"}
    assert recipe.reflectance.harmonise == "landsat-8"
    assert recipe.sar.path is not None


def test_an_archive_of_several_sensors_gets_no_sensor_setting(small_archive, tmp_path):
    # a second tile, of another sensor
    archive = tmp_path / "archive"
    shutil.copytree(small_archive / "18NXG", archive / "18NXG")
    write_bundle(archive / "landsat")
    text = propose_recipe(archive, tmp_path / "recipe.toml").read_text(encoding="utf-8")
    assert "found here: landsat-c2-l2, sentinel-2-l2a" in text
    assert Recipe.read(tmp_path / "recipe.toml").scenes.sensor is None


def test_an_existing_recipe_is_not_replaced_unasked(small_archive, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("mine")
    with pytest.raises(InputRefused, match="exists"):
        propose_recipe(small_archive, path)
    assert path.read_text() == "mine"
    propose_recipe(small_archive, path, overwrite=True)
    assert "[features]" in path.read_text()


def test_everything_that_does_not_fit_is_named_at_once(small_archive, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[scenes]\nyears = [1990, 1995]\n[features]\nnames = ["coastal"]\n[model]\nsamples = "none.gpkg"\n')
    with pytest.raises(InputRefused) as caught:
        check_recipe(small_archive, path)
    message = str(caught.value)
    for part in ("1990-1995", "lacks coastal", "none.gpkg", "park polygons"):
        assert part in message
