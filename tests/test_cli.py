"""The command line: data on stdout, one line of remedy on stderr, the right exit code."""

from __future__ import annotations

import io
import json
import re

import geopandas
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

from geococa.cli import main
from geococa.legend import as_land_cover
from geococa.tiles import find_tiles, write_cog


@pytest.fixture
def call():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help_with_an_example(call, command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"geococa {command}" in re.split("Examples?:", done.stdout)[1]


def test_a_misspelt_command_gets_a_suggestion(call):
    done = call("arreas")
    assert done.exit_code == 2
    assert "Did you mean 'areas'?" in done.stderr


def test_versions_are_printed_as_json(call):
    found = json.loads(call("versions", "--json").stdout)
    assert {"python", "geococa", "numba", "gdal", "proj"} <= set(found)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "nowhere", "--recipe", "none.toml", "--out", "out"], 2, "no recipe at none.toml"),
        (["status", "nowhere"], 4, "not the output folder of a run"),
        (["verify", "nowhere"], 4, "not the output folder of a run"),
        (["areas", "none.tif", "--zones", "z.gpkg"], 4, "none.tif"),
        (["trends", "none.csv"], 4, "none.csv"),
        (["simulate", "a", "--years", "2020-2018"], 2, "before the first"),
        (["simulate", "a", "--years", "some"], 2, "expected years such as"),
        (["init", "nowhere", "--recipe", "r.toml"], 4, "nowhere"),
        (["report", "nowhere"], 4, "nowhere"),
        (["areas"], 2, "Missing argument"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_leaves_nothing(call, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_archive_goes_from_init_to_public_files_by_commands_alone(call, small_archive, tmp_path):
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    assert call("init", small_archive, "--recipe", recipe).exit_code == 0
    assert call("check", small_archive, "--recipe", recipe).exit_code == 0
    planned = json.loads(call("run", small_archive, "--recipe", recipe, "--out", out, "--dry-run", "--json").stdout)
    assert {task["action"] for task in planned} == {"compute"}
    done = call("run", small_archive, "--recipe", recipe, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == {}
    assert set(pd.read_json(io.StringIO(call("status", out, "--json").stdout))["status"]) == {"done"}
    assert call("verify", out).exit_code == 0
    maps = sorted((out / "maps").glob("*_land_cover.tif"))
    table = pd.read_csv(io.StringIO(call("areas", maps[0], "--zones", small_archive / "parks.gpkg").stdout))
    assert {"zone", "land_cover", "area_ha", "unobserved_ha"} <= set(table.columns)
    slopes = pd.read_csv(io.StringIO(call("trends", out / "areas.csv").stdout))
    assert len(slopes) == table["zone"].nunique()
    points = tmp_path / "points.gpkg"
    assert call("sample", maps[0], "--count", "90", "--out", points).exit_code == 0
    spanish = tmp_path / "informe.html"
    assert call("report", out, "--language", "es", "--to", spanish).exit_code == 0
    assert 'lang="es"' in spanish.read_text(encoding="utf-8")
    public = call("publish", out, "--to", tmp_path / "public")
    assert public.exit_code == 0, public.stderr
    assert all("RESTRICTED" not in line for line in public.stdout.splitlines())


def test_a_sample_is_drawn_labelled_by_two_settled_and_assessed_by_commands_alone(call, small_archive, tmp_path):
    found = find_tiles(small_archive)[0]
    rng = np.random.default_rng(0)
    codes = np.where(rng.random(found.grid.shape) < 0.1, 1, 2).astype(np.uint8)
    labels = as_land_cover(found.grid.attach(xr.DataArray(codes, dims=("y", "x"))), {1: "coca", 2: "forest"})
    land_cover = write_cog(labels, tmp_path / "map.tif")
    points, page = tmp_path / "points.gpkg", tmp_path / "sheet.html"
    done = call("sample", land_cover, "--target-se", "3", "--design", "simple", "--out", points)
    assert done.exit_code == 0, done.stderr
    assert "standard error" in done.stderr
    unlike = call("sample", land_cover, "--land-cover", "cocca", "--out", tmp_path / "x.gpkg")
    assert unlike.exit_code == 2
    assert "no class 'cocca'" in unlike.stderr
    assert call("sample", land_cover, "--out", tmp_path / "x.csv").exit_code == 2
    dated = tmp_path / "new folder" / "dated.gpkg"
    parks = ["--zones", small_archive / "parks.gpkg", "--target-se", "3", "--design", "simple", "--year", "2020"]
    assert call("sample", land_cover, *parks, "--out", dated).exit_code == 0
    inside = geopandas.read_file(dated)
    assert set(inside["year"]) == {2020}
    # less ground takes fewer points for the same standard error
    assert len(inside) < len(geopandas.read_file(points))
    few = tmp_path / "few.gpkg"
    assert call("sample", land_cover, "--count", "8", "--design", "simple", "--out", few).exit_code == 0
    tile = small_archive / found.tile
    recipe = ["--recipe", small_archive / "recipe.toml", "--classes", "coca,forest"]
    done = call("sheet", tile, "--samples", few, *recipe, "--window", "100", "--out", page)
    assert done.exit_code == 0, done.stderr
    assert page.read_text(encoding="utf-8").count("<img") == 8 * 3
    drawn = geopandas.read_file(points)
    labels = pd.DataFrame({"id": drawn["id"], "class": drawn["stratum"]})
    labels.to_csv(tmp_path / "ana.csv", index=False)
    labels.assign(**{"class": ["coca", *labels["class"].iloc[1:]]}).to_csv(tmp_path / "luz.csv", index=False)
    labels.head(1).assign(**{"class": "coca"}).to_csv(tmp_path / "eva.csv", index=False)
    both = ["--labels", tmp_path / "ana.csv", "--labels", tmp_path / "luz.csv"]
    settled = tmp_path / "settled.gpkg"
    done = call("settle", points, *both, "--arbiter", tmp_path / "eva.csv", "--out", settled, "--json")
    assert done.exit_code == 0, done.stderr
    assert "0 in dispute" in done.stderr
    assert json.loads(done.stdout)[0]["agreement"] > 0.9
    done = call("sheet", tile, "--samples", settled, *recipe, "--only-open", "--out", tmp_path / "disputes.html")
    assert done.exit_code == 2
    assert "nothing left to label" in done.stderr
    done = call("assess", land_cover, "--samples", settled, "--json")
    assert done.exit_code == 0, done.stderr
    whole = {row["class"]: row for row in json.loads(done.stdout)}
    assert whole["coca"]["ci_low_ha"] <= whole["coca"]["area_ha"] <= whole["coca"]["ci_high_ha"]
    done = call("assess", land_cover, "--samples", settled, "--zones", small_archive / "parks.gpkg", "--json")
    assert done.exit_code == 0, done.stderr
    assert {row["status"] for row in json.loads(done.stdout)} <= {"estimated", "rough", "not estimable"}
    done = call("assess", land_cover, "--samples", small_archive / "validation.gpkg")
    assert done.exit_code == 4
    assert "say which of them" in done.stderr


def test_one_flipped_bit_is_found_by_verify(call, small_archive, tmp_path):
    out = tmp_path / "out"
    assert call("run", small_archive, "--recipe", small_archive / "recipe.toml", "--out", out).exit_code == 0
    victim = sorted((out / "maps").glob("*.tif"))[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    done = call("verify", out)
    assert done.exit_code == 4
    assert victim.name in done.stdout


@pytest.fixture
def tested_recipe(small_archive, tmp_path):
    """The small archive's recipe with folds that fit on it and a small forest."""
    text = (
        (small_archive / "recipe.toml")
        .read_text(encoding="utf-8")
        .replace('"parks.gpkg"', f'"{small_archive}/parks.gpkg"')
    )
    for name in ("samples", "validation"):
        text = text.replace(f'"{name}.gpkg"', f'"{small_archive}/{name}.gpkg"')
    text = text.replace('"truth.csv"', f'"{small_archive}/truth.csv"')
    more = "seed = 7\nfolds = 2\nblock_m = 200\nbuffer_m = 20\noptions = { n_estimators = 5 }"
    path = tmp_path / "tested.toml"
    path.write_text(text.replace("seed = 7", more), encoding="utf-8")
    return path


def test_training_prints_folds_classes_and_trials(call, small_archive, tested_recipe, tmp_path):
    out = tmp_path / "coca.model"
    arguments = ["train", small_archive, "--recipe", tested_recipe, "--out", out, "--cross-validate", "--tune", "1"]
    done = call(*arguments)
    assert done.exit_code == 0, done.stderr
    assert "users_accuracy" in done.stdout
    assert "decisions_per_pixel" in done.stdout
    assert f"wrote {out}" in done.stdout.splitlines()[-1]
    assert "a little too good" in done.stderr
    found = json.loads(call(*arguments, "--json").stdout)
    assert [row["fold"] for row in found["folds"]] == [1, 2]
    assert sum(row["chosen"] for row in found["trials"]) == 1
    assert len(found["trials"]) == 2


def test_a_run_writes_its_cross_validation_when_asked_and_takes_it_away_when_not(
    call, small_archive, tested_recipe, tmp_path
):
    out = tmp_path / "out"
    assert call("run", small_archive, "--recipe", tested_recipe, "--out", out).exit_code == 0
    table = pd.read_csv(out / "cross_validation.csv")
    assert set(table["fold"]) == {"1", "2", "all"}
    assert call("verify", out).exit_code == 0
    model = (out / "model.geococa").read_bytes()
    tested_recipe.write_text(tested_recipe.read_text().replace("folds = 2", "folds = 0"), encoding="utf-8")
    done = call("run", small_archive, "--recipe", tested_recipe, "--out", out, "--json")
    assert json.loads(done.stdout)["computed"] == [], "folds do not change the maps"
    assert not (out / "cross_validation.csv").exists()
    assert (out / "model.geococa").read_bytes() == model
    assert call("verify", out).exit_code == 0


@pytest.fixture
def raster(tmp_path):
    """Write a little raster with zones beside it, and return its path."""
    import geopandas
    import numpy as np
    import rasterio
    import shapely

    def write(values, nodata=None):
        values = np.asarray(values)
        path = tmp_path / "map.tif"
        bands = values if values.ndim == 3 else values[None]
        profile = {
            "driver": "GTiff", "height": 4, "width": 4, "count": len(bands), "dtype": values.dtype, "crs": "EPSG:32618",
            "transform": rasterio.Affine(100, 0, 500_000, 0, -100, 300_000), "nodata": nodata,
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as file:
            file.write(bands)
        box = shapely.box(500_000, 299_600, 500_400, 300_000)
        geopandas.GeoDataFrame({"park": ["a"]}, geometry=[box], crs="EPSG:32618").to_file(tmp_path / "zones.gpkg")
        return path

    return write


def areas_of(call, path, *options):
    return call("areas", str(path), "--zones", str(path.with_name("zones.gpkg")), "--name", "park", *options)


@pytest.mark.parametrize(
    ("values", "options", "code", "message"),
    [
        ([[[1] * 4] * 4] * 2, ["--classes", "1=coca"], 4, "has 2 bands"),
        ([[1] * 4] * 4, [], 4, "--classes 1=coca"),
        ([[1.5] * 4] * 4, ["--classes", "1=coca"], 4, "1.5, which is no class code"),
        ([[1] * 4] * 4, ["--classes", "1=coca,1=forest"], 2, "each code once"),
        ([[1] * 4] * 4, ["--classes", "coca"], 2, "expected --classes"),
        ([[1, 2, 3, 3]] * 4, ["--classes", "1=coca,2=forest"], 4, "map.tif: the labels hold [3]"),
        ([[1, 3, 3, 3]] * 4, ["--classes", "1=coca,3=forest", "--nodata", "3"], 4, "also the code of 'forest'"),
    ],
)
def test_a_raster_that_is_no_class_map_is_refused_with_the_remedy(call, raster, values, options, code, message):
    import numpy as np

    kind = np.float32 if np.asarray(values).dtype.kind == "f" else np.uint8
    done = areas_of(call, raster(np.asarray(values, kind)), *options)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr.replace("\n", " ")


def test_class_codes_in_floats_with_a_far_no_data_value_are_measured(call, raster):
    import io

    import numpy as np
    import pandas as pd

    values = np.full((4, 4), 1, np.float32)
    values[0] = -3.4e38
    done = areas_of(call, raster(values, nodata=float(np.float32(-3.4e38))), "--classes", "1=coca,2=forest")
    assert done.exit_code == 0, done.stderr
    table = pd.read_csv(io.StringIO(done.stdout))
    row = table[table["land_cover"] == "coca"].iloc[0]
    assert row["area_ha"] / row["zone_ha"] == pytest.approx(0.75, abs=1e-6)
    assert row["unobserved_ha"] / row["zone_ha"] == pytest.approx(0.25, abs=1e-6)
