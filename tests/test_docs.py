"""Every code block of the documentation runs, every page builds, every public name is on a page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio

import geococa as coca
from geococa.sensors import Sensor
from tests.markdown_blocks import ROOT, blocks, run_page
from tests.safe_files import write_safe_products

DOCS = ROOT / "docs"
PAGES = sorted(
    page for page in [*DOCS.glob("*.md"), *DOCS.glob("howto/*.md")] if page.name not in ("commands.md", "new_user.md")
)


@pytest.fixture(scope="session")
def downloads(small_archive, tmp_path_factory):
    """What a new user has: Sentinel-2 products in one folder, parks, and a CSV of points."""
    folder = tmp_path_factory.mktemp("downloads")
    for tile in ("18NXG", "19NBB"):
        write_safe_products(small_archive / tile, folder / "images", range(2020, 2023))
    shutil.copy(small_archive / "parks.gpkg", folder)
    points = geopandas.read_file(small_archive / "samples.gpkg").to_crs(4326)
    table = points.assign(longitude=points.geometry.x, latitude=points.geometry.y).drop(columns="geometry")
    table.to_csv(folder / "samples.csv", index=False)
    return folder


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder with the sample archive in it, read only by convention."""
    (tmp_path / "sample_tiles").symlink_to(ROOT / "sample_tiles")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _sensors(_):
    """Archive of PlanetScope files, as the page on sensors has it."""
    text = next(text for kind, text in blocks(DOCS / "sensors.md") if kind == "toml" and "planetscope-4b" in text)
    Path("planetscope.toml").write_text(text)
    Sensor.read("planetscope.toml")
    tile = Path("archive/T18")
    tile.mkdir(parents=True)
    for name, count, dtype in (("AnalyticMS_SR", 4, "uint16"), ("udm2", 8, "uint8")):
        profile = {
            "driver": "GTiff", "width": 8, "height": 8, "count": count, "dtype": dtype, "crs": "EPSG:32618",
            "transform": rasterio.Affine(3, 0, 600000, 0, -3, 300000),
        }  # fmt: skip
        with rasterio.open(tile / f"20210105_152641_{name}.tif", "w", **profile) as file:
            file.write(np.ones((count, 8, 8), dtype))
    return {"coca": coca}


def _models(_):
    """A table of samples with features, and a model."""
    import pandas as pd

    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((400, 3)), columns=["red", "nir", "swir16"])
    table["class"] = np.where(table["nir"] > 0.5, "coca", "forest")
    table["x"], table["y"] = rng.uniform(0, 20_000, (2, 400))
    table.attrs["crs"] = "EPSG:32618"
    names = ["red", "nir", "swir16"]
    held_out = table.iloc[300:]
    model = coca.train(table.iloc[:300], names, method="random_forest", n_estimators=10, seed=1)
    return {"coca": coca, "table": table, "names": names, "held_out": held_out, "model": model}


def _downloads(request):
    folder = request.getfixturevalue("downloads")
    for name in ("images", "parks.gpkg", "samples.csv"):
        Path(name).symlink_to(folder / name)
    return {}


def _small(request):
    Path("small_archive").symlink_to(request.getfixturevalue("small_archive"))
    return {}


SETUP = {"sensors.md": _sensors, "models.md": _models, "quickstart.md": _small}
"""What lies on the reader's desk before a page is read, where that is more than the sample archive."""
SMALLER = {
    "models.md": {"trials=20": "trials=2, n_estimators=10"},
    "quickstart.md": {"geococa demo ": "geococa demo --archive small_archive "},
}
"""What is made smaller, so that a page takes seconds."""
NEEDS = {"xarray.md": ("odc.stac", "zarr", "h5netcdf"), "migration.md": ("sklearn",), "models.md": ("sklearn",)}


@pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_the_page_runs(page, desk, request):
    if not any(blocks(page)):
        pytest.skip("no code on this page")
    for module in NEEDS.get(page.name, ()):
        pytest.importorskip(module)
    names = SETUP.get(page.name, lambda _: {})(request)
    run_page(page, names, smaller=SMALLER.get(page.name, {}))


def test_a_new_user_comes_from_products_to_a_report_in_four_commands(desk, request):
    page = DOCS / "howto" / "new_user.md"
    commands = [line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines()]
    assert len(commands) <= 4
    assert commands[0].startswith("geococa init images")
    _downloads(request)
    run_page(page, {})
    report = Path("out/coca/report.html").read_text(encoding="utf-8")
    parks = geopandas.read_file("parks.gpkg")["park"]
    assert all(park in report for park in parks)
    areas = __import__("pandas").read_csv("out/coca/areas.csv")
    assert set(areas["year"]) == {2020, 2021, 2022}
    assert areas.loc[areas["land_cover"] == "coca", "area_ha"].sum() > 0


# --- the build -----------------------------------------------------------------------------------------------------


def _public():
    names = {f"geococa.{name}" for name in coca._HOME}
    for module in coca._MODULES:
        names |= {f"geococa.{module}.{name}" for name in getattr(getattr(coca, module), "__all__", ())}
    return names


def test_pages_build_without_a_warning_and_hold_every_public_name(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    out = tmp_path / "html"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees"), str(DOCS), str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    anchors = {
        anchor for page in out.rglob("*.html") for anchor in re.findall(r'id="(geococa\.[\w.]+)"', page.read_text())
    }
    assert _public() - anchors == set()
    _links_lead_somewhere(out)


def _links_lead_somewhere(out):
    """Every link within the pages has its page and its anchor."""
    texts = {page.resolve(): page.read_text(encoding="utf-8") for page in out.rglob("*.html")}
    ids = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in texts.items()}
    wrong = []
    for page, text in texts.items():
        for link in re.findall(r'<a\b[^>]*\bhref="([^"]*)"', text):
            place, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (page.parent / place).resolve() if place else page
            if not target.exists() or (anchor and target in ids and anchor not in ids[target]):
                wrong.append(f"{page.relative_to(out.resolve())}: {link}")
    assert wrong == []
