"""Memory of a whole Sentinel-2 tile stays within 600 MB, and rows give the bytes of a whole map."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geococa import pipeline
from geococa.models import read_model
from geococa.recipe import Recipe
from geococa.tiles import find_tiles
from tests.reliability.tiny_archives import ROOT, results, tell, write_tiny_archive

MEASURED = """
import json, resource, sys
from geococa.models import read_model
from geococa.pipeline import run_tile
from geococa.recipe import Recipe
from geococa.tiles import find_tiles

tile = find_tiles(sys.argv[1])[0]
recipe = Recipe.read(sys.argv[1] + "/recipe.toml")
run_tile(tile, recipe, read_model(recipe.model.path), sys.argv[2], threads=1)
print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "bands": len(tile.bands)}))
"""

NAMES = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
FEATURES = ["blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22"]


def test_layers_written_row_by_row_are_those_written_as_a_whole(tmp_path, monkeypatch):
    archive = write_tiny_archive(tmp_path / "archive", 1, size=600)
    recipe = Recipe.read(archive / "recipe.toml")
    tile, model = find_tiles(archive)[0], read_model(recipe.model.path)
    run = {"block_px": 256, "threads": 1}
    pipeline.run_tile(tile, recipe, model, tmp_path / "whole", **run)
    monkeypatch.setattr(pipeline, "IN_MEMORY", 0)
    pipeline.run_tile(tile, recipe, model, tmp_path / "rows", **run)
    whole, rows = results(tmp_path / "whole"), results(tmp_path / "rows")
    assert set(whole) == set(rows)
    for name in (name for name in whole if name.endswith(".tif")):
        with rasterio.open(tmp_path / "whole" / name) as a, rasterio.open(tmp_path / "rows" / name) as b:
            np.testing.assert_array_equal(a.read(), b.read())
            assert str((a.profile, a.tags(), a.overviews(1))) == str((b.profile, b.tags(), b.overviews(1)))
            assert a.dtypes[0] != "uint8" or a.colormap(1) == b.colormap(1)
            for level in range(len(a.overviews(1))):
                with rasterio.open(a.name, overview_level=level) as c, rasterio.open(b.name, overview_level=level) as d:
                    np.testing.assert_array_equal(c.read(), d.read())


def test_years_read_one_at_a_time_give_what_all_at_once_give(small_archive):
    from geococa import tile_features

    recipe = Recipe.read(small_archive / "recipe.toml")
    tile = find_tiles(small_archive)[0]
    block = next(iter(tile.grid.blocks(48, 8)))
    context = tile_features.TileContext.of(recipe, tile)
    settings = {"cutoff": "12-31", "window_days": 300, "fallback_days": 200}
    composites = (recipe.composite, recipe.composite.model_copy(update=settings))
    for composite in composites:
        changed = recipe.model_copy(update={"composite": composite})
        features, layers = tile_features.block_features(tile, block, changed, (2020, 2021, 2022), context)
        scenes = tile_features.open_tile(
            tile_features.scenes_for(tile, changed, (2020, 2021, 2022)),
            sensor=recipe.scenes.sensor, bands=changed.bands_needed(), window=block.outer,
        )  # fmt: skip
        expected, dates = tile_features.yearly_features(scenes, changed, years=(2020, 2021, 2022))
        assert features.identical(expected)
        for name in dates:
            np.testing.assert_array_equal(layers[name], dates[name])


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of the peak differs between systems")
def test_a_ten_band_tile_of_10980_cells_takes_at_most_600_mb(tmp_path):
    archive = write_tiny_archive(tmp_path / "archive", 1)
    recipe = archive / "recipe.toml"
    names = ", ".join(f'"{name}"' for name in FEATURES)
    recipe.write_text(recipe.read_text().replace('names = ["ndvi"]', f"names = [{names}]").replace("block_px = 32", ""))
    (archive / "rules.toml").write_text((archive / "rules.toml").read_text().replace("ndvi <= 0.6", "red >= 0.1"))
    scene = next(archive.glob("T0000/*"))
    _enlarge(scene)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(archive), str(tmp_path / "out")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    tell(str(found))
    assert found["bands"] >= 10
    assert found["peak_mb"] <= 600


def _enlarge(scene: Path, side: int = 10980) -> None:
    """Ten bands of a whole tile, of the small scene over and over with noise."""
    rng = np.random.default_rng(1)
    item = json.loads((scene / "item.json").read_text())
    raster = item["assets"]["red"]["raster:bands"]
    for native, common in zip(NAMES, FEATURES, strict=True):
        entry = {
            "href": f"./{native}.tif",
            "eo:bands": [{"name": native, "common_name": common}],
            "raster:bands": raster,
        }
        item["assets"][common] = entry
    (scene / "item.json").write_text(json.dumps(item))
    sources = {}
    for stem in ("B04", "B08", "SCL"):
        with rasterio.open(scene / f"{stem}.tif") as file:
            sources[stem] = (file.read(1), file.profile)
    for stem in (*NAMES, "SCL"):
        small, profile = sources["SCL" if stem == "SCL" else "B04" if stem in NAMES[:5] else "B08"]
        strip = np.tile(small, (1, -(-side // small.shape[1])))[:, :side]
        profile |= {
            "width": side,
            "height": side,
            "tiled": True,
            "blockxsize": 512,
            "blockysize": 512,
            "compress": "lzw",
        }
        with rasterio.open(scene / f"{stem}.tif", "w", **profile) as file:
            for top in range(0, side, 512):
                rows = min(512, side - top)
                part = strip[(np.arange(top, top + rows)) % small.shape[0]]
                if stem != "SCL":
                    part = part + rng.integers(0, 9, part.shape).astype(part.dtype)
                file.write(part, 1, window=rasterio.windows.Window(0, top, side, rows))
