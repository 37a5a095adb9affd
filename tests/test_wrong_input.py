"""Wrong inputs, one a row: the message names the file, what was found and the remedy; the exit code is right; nothing is left."""

from __future__ import annotations

import json
import shutil

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from click.testing import CliRunner

from geococa.cli import main

USAGE, REFUSED = 2, 4


def raster(path, values, *, crs="EPSG:32618", nodata=None, **more):
    values = np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    profile = {
        "driver": "GTiff",
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
    }
    transform = rasterio.Affine(100, 0, 500_000, 0, -100, 300_000)
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=nodata, **profile, **more) as file:
        file.write(bands)


@pytest.fixture(scope="module")
def desk(small_archive, tmp_path_factory):
    """A desk with right and wrong files of every kind."""
    desk = tmp_path_factory.mktemp("desk")
    ones = np.ones((4, 4), np.uint8)
    raster(desk / "map.tif", ones)
    raster(desk / "two_bands.tif", np.stack([ones, ones]))
    raster(desk / "index.tif", np.full((4, 4), 0.5, np.float32))
    raster(desk / "unknown_code.tif", np.full((4, 4), 7, np.uint8))
    raster(desk / "no_crs.tif", ones, crs=None)
    (desk / "cut.tif").write_bytes((desk / "map.tif").read_bytes()[:60])
    (desk / "picture.tif").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    box = shapely.box(500_000, 299_600, 500_400, 300_000)
    parks = geopandas.GeoDataFrame({"park": ["A"]}, geometry=[box], crs="EPSG:32618")
    parks.to_file(desk / "parks.gpkg")
    geopandas.GeoDataFrame({"park": ["A", "A"]}, geometry=[box, box], crs="EPSG:32618").to_file(desk / "twins.gpkg")
    away = shapely.box(900_000, 99_600, 900_400, 100_000)
    geopandas.GeoDataFrame({"park": ["B"]}, geometry=[away], crs="EPSG:32618").to_file(desk / "away.gpkg")
    geopandas.GeoDataFrame({"park": ["P"]}, geometry=[box.centroid], crs="EPSG:32618").to_file(desk / "points.gpkg")
    (desk / "parks.txt").write_text("A")
    (desk / "cut.gpkg").write_bytes((desk / "parks.gpkg").read_bytes()[:3000])
    rows = pd.DataFrame(
        {"longitude": [-75.0, -74.9], "latitude": [2.7, 2.7], "class": ["coca", "forest"], "year": [2020, 2020]}
    )
    rows.to_csv(desk / "samples.csv", index=False)
    rows.drop(columns="class").to_csv(desk / "unlabelled.csv", index=False)
    rows.assign(**{"class": ["coca", None]}).to_csv(desk / "half.csv", index=False)
    rows.drop(columns="latitude").to_csv(desk / "nowhere.csv", index=False)
    rows.assign(latitude=[270.0, 2.7]).to_csv(desk / "swapped.csv", index=False)
    rows.assign(year=[20200, 2020]).to_csv(desk / "year.csv", index=False)
    pd.DataFrame({"zone": ["A"] * 3, "year": [2020, 2021, 2022], "area_ha": [1, 2, 3]}).to_csv(
        desk / "series.csv", index=False
    )
    pd.DataFrame({"name": ["A"], "hectares": [1.0]}).to_csv(desk / "columns.csv", index=False)
    (desk / "coca.model").write_bytes(b"no model")
    recipe = (small_archive / "recipe.toml").read_text()
    for name in ("parks.gpkg", "samples.gpkg", "validation.gpkg", "truth.csv"):
        recipe = recipe.replace(f'"{name}"', f'"{small_archive / name}"')
    variants = {
        "good": recipe,
        "typo": recipe.replace("smooth_window", "smooth_windw"),
        "even": recipe.replace("smooth_window = 5", "smooth_window = 4"),
        "broken": "[labels\n",
        "bands": recipe.replace('"ndvi",', '"ndvi", "lwir11",'),
        "years": recipe.replace("[clear_sky]", "years = [1990, 1995]\n[clear_sky]"),
        "no_zones": recipe.replace(str(small_archive / "parks.gpkg"), "nowhere.gpkg"),
        "method": recipe.replace('"random_forest"', '"random_forrest"'),
        "class": recipe.replace('class_name = "coca"', 'class_name = "cocca"'),
    }
    for name, text in variants.items():
        (desk / f"{name}.toml").write_text(text)
    (desk / "empty").mkdir()
    (desk / "archive").symlink_to(small_archive)
    shutil.copytree(small_archive / "18NXG", desk / "damaged" / "18NXG")
    band = next((desk / "damaged").rglob("B04.tif"))
    band.write_bytes(band.read_bytes()[:200])
    return desk


AREAS = ["--zones", "parks.gpkg", "--classes", "1=coca"]
RUN = ["--out", "made/out"]
CASES = [
    # the call, the exit code, the file or option, what was found, what to do
    (["areas", "none.tif", *AREAS], REFUSED, "none.tif", "can't be read", "check the path"),
    (["areas", "picture.tif", *AREAS], REFUSED, "picture.tif", "neither TIFF nor JPEG 2000", "gdal_translate"),
    (["areas", "cut.tif", *AREAS], REFUSED, "cut.tif", "damaged", "fetch the file again"),
    (["areas", "no_crs.tif", *AREAS], REFUSED, "no_crs.tif", "reference system", "gdal_edit"),
    (["areas", "two_bands.tif", *AREAS], REFUSED, "two_bands.tif", "2 bands", "gdal_translate -b"),
    (["areas", "index.tif", *AREAS], REFUSED, "index.tif", "0.5", "classified map"),
    (["areas", "unknown_code.tif", *AREAS], REFUSED, "unknown_code.tif", "[7]", "name them"),
    (["areas", "map.tif", "--zones", "parks.gpkg"], REFUSED, "map.tif", "class names", "--classes"),
    (["areas", "map.tif", "--zones", "parks.gpkg", "--classes", "coca"], USAGE, "--classes", "'coca'", "1=coca,2=forest"),
    (["areas", "map.tif", "--zones", "parks.gpkg", "--classes", "1=a,1=b"], USAGE, "--classes", "1=a,1=b", "each code once"),
    (["areas", "map.tif", "--zones", "none.gpkg", "--classes", "1=coca"], REFUSED, "none.gpkg", "no ", "expected"),
    (["areas", "map.tif", "--zones", "parks.txt", "--classes", "1=coca"], REFUSED, "parks.txt", "", "GeoPackage"),
    (["areas", "map.tif", "--zones", "cut.gpkg", "--classes", "1=coca"], REFUSED, "cut.gpkg", "", ""),
    (["areas", "map.tif", "--zones", "twins.gpkg", "--classes", "1=coca"], REFUSED, "twins.gpkg", "'A'", "duplicates"),
    (["areas", "map.tif", "--zones", "away.gpkg", "--classes", "1=coca"], REFUSED, "", "outside", ""),
    (["areas", "map.tif", "--zones", "points.gpkg", "--classes", "1=coca"], REFUSED, "points.gpkg", "Point", "polygons"),
    (["areas", "map.tif", *AREAS, "--name", "nom"], REFUSED, "parks.gpkg", "'nom'", "park"),
    (["areas", "map.tif", *AREAS, "--layer", "nom"], REFUSED, "parks.gpkg", "'nom'", "parks"),
    (["areas", "map.tif", *AREAS, "--area", "planr"], REFUSED, "area", "'planr'", "ellipsoidal"),
    (["areas", "map.tif", *AREAS, "--metod", "exact"], USAGE, "--metod", "No such option", "--method"),
    (["areas", "map.tif", *AREAS, "--min-observed", "7"], USAGE, "--min-observed", "7", "0<=x<=1"),
    (["arreas"], USAGE, "arreas", "No such command", "Did you mean 'areas'"),
    (["trends", "none.csv"], REFUSED, "none.csv", "no table", "expected"),
    (["trends", "columns.csv"], REFUSED, "columns.csv", "hectares", "zone"),
    (["trends", "series.csv", "--value", "ha"], REFUSED, "series.csv", "'ha'", "area_ha"),
    (["trends", "series.csv", "--test", "kendal"], REFUSED, "test", "kendal", "mann_kendall"),
    (["init", "nowhere", "--recipe", "made/r.toml"], REFUSED, "nowhere", "not a folder", "give the folder"),
    (["init", "empty", "--recipe", "made/r.toml"], REFUSED, "empty", "no scene", "expected"),
    (["init", "archive", "--recipe", "good.toml"], REFUSED, "good.toml", "exists", "--overwrite"),
    (["check", "archive", "--recipe", "none.toml"], USAGE, "none.toml", "no recipe", "geococa init"),
    (["check", "archive", "--recipe", "broken.toml"], USAGE, "broken.toml", "TOML", ""),
    (["check", "archive", "--recipe", "typo.toml"], USAGE, "typo.toml", "smooth_windw", "did you mean 'smooth_window'"),
    (["check", "archive", "--recipe", "even.toml"], USAGE, "even.toml", "4", "odd"),
    (["check", "archive", "--recipe", "method.toml"], USAGE, "method.toml", "random_forrest", "random_forest"),
    (["check", "archive", "--recipe", "bands.toml"], REFUSED, "bands.toml", "lacks lwir11", "it has"),
    (["check", "archive", "--recipe", "years.toml"], REFUSED, "years.toml", "1990-1995", "2020-2022"),
    (["check", "archive", "--recipe", "no_zones.toml"], REFUSED, "nowhere.gpkg", "zones", ""),
    (["check", "archive", "--recipe", "class.toml"], REFUSED, "class.toml", "no 'cocca'", "only"),
    (["run", "archive", "--recipe", "typo.toml", *RUN], USAGE, "typo.toml", "smooth_windw", "did you mean"),
    (["run", "nowhere", "--recipe", "good.toml", *RUN], REFUSED, "nowhere", "", ""),
    (["classify", "archive/18NXG", "--recipe", "good.toml", "--model", "coca.model", "--out", "made/m"], REFUSED, "coca.model", "not a", "from_estimator"),
    (["classify", "archive/18NXG", "--recipe", "good.toml", "--model", "none.model", "--out", "made/m"], REFUSED, "none.model", "no ", ""),
    (["sample", "map.tif", "--classes", "1=forest", "--out", "made/p.gpkg"], USAGE, "map.tif", "no class 'coca'", "--land-cover"),
    (["sample", "map.tif", "--classes", "1=coca", "--out", "parks.gpkg"], USAGE, "parks.gpkg", "exists", "choose another name"),
    (["sample", "map.tif", "--classes", "1=coca", "--out", "made/p.csv"], USAGE, "p.csv", "GeoPackage", ".gpkg"),
    (["assess", "map.tif", "--classes", "1=coca", "--samples", "none.csv"], REFUSED, "none.csv", "no samples", "expected"),
    (["assess", "map.tif", "--classes", "1=coca", "--samples", "unlabelled.csv"], REFUSED, "unlabelled.csv", "class", "column"),
    (["assess", "map.tif", "--classes", "1=coca", "--samples", "half.csv"], REFUSED, "half.csv", "1 of 2", "label them"),
    (["assess", "map.tif", "--classes", "1=coca", "--samples", "nowhere.csv"], REFUSED, "nowhere.csv", "", "latitude"),
    (["assess", "map.tif", "--classes", "1=coca", "--samples", "swapped.csv"], REFUSED, "swapped.csv", "270", "degrees"),
    (["assess", "map.tif", "--classes", "1=coca", "--samples", "year.csv"], REFUSED, "year.csv", "20200", ""),
    (["settle", "none.gpkg", "--labels", "samples.csv", "--out", "made/s.gpkg"], REFUSED, "none.gpkg", "no samples", "expected"),
    (["status", "empty"], REFUSED, "empty", "not the output folder", "--out"),
    (["verify", "empty"], REFUSED, "empty", "not the output folder", "--out"),
    (["report", "empty"], REFUSED, "empty", "not the output folder", "manifest.json"),
    (["publish", "empty", "--to", "made/public"], REFUSED, "empty", "not the output folder", "manifest.json"),
    (["simulate", "made/a", "--years", "2020-2018"], USAGE, "years", "2020-2018", "before the first"),
    (["simulate", "archive", "--size", "500"], REFUSED, "archive", "", "overwrite"),
]  # fmt: skip


def test_there_are_more_than_forty_wrong_inputs():
    assert len(CASES) >= 40


@pytest.mark.parametrize(
    ("call", "code", "where", "found", "remedy"),
    CASES,
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_a_wrong_input_is_named_with_the_finding_and_the_remedy(desk, monkeypatch, call, code, where, found, remedy):
    monkeypatch.chdir(desk)
    before = {path.name for path in desk.iterdir()}
    done = CliRunner().invoke(main, call)
    said = " ".join(done.stderr.split())
    assert done.exit_code == code, (done.exit_code, said, done.exception)
    assert done.stdout.strip() in ("", "null")
    for part in (where, found, remedy):
        assert part.casefold() in said.casefold(), said
    assert "Traceback" not in said
    left = {path.name for path in desk.iterdir()} - before
    assert not left or not any(path.is_file() for name in left for path in (desk / name).rglob("*")), left


def test_a_damaged_scene_is_named_by_check(desk, monkeypatch):
    monkeypatch.chdir(desk)
    done = CliRunner().invoke(main, ["check", "damaged", "--recipe", "good.toml"])
    assert done.exit_code == REFUSED
    assert "B04.tif" in done.stderr
    assert "fetch the file again" in done.stderr


def test_every_command_prints_json_when_asked():
    lacking = [
        name for name, command in main.commands.items() if "--json" not in {o for p in command.params for o in p.opts}
    ]
    assert lacking == []


@pytest.mark.parametrize("command", sorted(main.commands))
def test_the_help_of_a_command_groups_its_options(command):
    text = CliRunner().invoke(main, [command, "--help"]).stdout
    assert "Output options:" in text
    assert text.index("Other options:") > text.index("Output options:")


def test_files_are_printed_as_json(tmp_path):
    done = CliRunner().invoke(
        main, ["simulate", str(tmp_path / "a"), "--size", "400", "--tiles", "1", "--years", "2020-2020", "--json"]
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {"files": [str(tmp_path / "a")]}
