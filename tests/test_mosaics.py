"""Mosaics show the tiles' own cells and nothing else; the catalog of outputs is read back by pystac and odc-stac."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner

from geococa import Grid, Recipe, find_tiles, write_cog
from geococa.cli import main
from geococa.errors import InputRefused
from geococa.ledger import file_sha256
from geococa.legend import Legend, as_land_cover
from geococa.mosaics import write_mosaics
from geococa.output_catalog import write_catalog

CLASSES = {0: "unclassified", 1: "coca", 2: "forest", 7: "water"}
GRIDS = {
    # two tiles of one lattice that overlap by 20 columns, one of the next zone on the same ground
    "18NA": Grid("EPSG:32618", (10, 0, 500000, 0, -10, 300000), (60, 70)),
    "18NB": Grid("EPSG:32618", (10, 0, 500500, 0, -10, 300100), (60, 70)),
    "19NA": Grid("EPSG:32619", (10, 0, -166700, 0, -10, 300300), (60, 70)),
}


def land_cover(grid, seed):
    rng = np.random.default_rng(seed)
    codes = rng.choice([0, 1, 2, 7], grid.shape).astype("uint8")
    codes[:, :5] = 255
    codes[10:14, 30:60] = 255
    return as_land_cover(grid.attach(xr.DataArray(codes, dims=("y", "x"))), CLASSES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The maps and records of a finished run, made by hand."""
    out = tmp_path_factory.mktemp("run") / "out"
    (out / "maps").mkdir(parents=True)
    (out / "inputs").mkdir()
    tiles = {}
    for seed, (tile, grid) in enumerate(GRIDS.items()):
        names = {}
        for year in (2020, 2021):
            path = out / "maps" / f"{tile}_{year}_land_cover.tif"
            array = land_cover(grid, seed * 10 + year)
            write_cog(array, path, sidecars=True)
            ages = grid.attach(xr.DataArray(np.full(grid.shape, 30.0, "float32"), dims=("y", "x"), name="age_days"))
            layer = write_cog(ages, out / "maps" / f"{tile}_{year}_age_days.tif")
            names[str(year)] = {file.name: file_sha256(file) for file in (path, layer)}
        (out / "inputs" / f"{tile}.json").write_text("{}\n")
        tiles[tile] = {"maps": names}
    (out / "areas.csv").write_text("zone,year\na,2020\n")
    manifest = {
        "made_with": {"geococa": "0.1.0", "gdal": "3.10.3"}, "recipe": Recipe().settings(), "failed": {},
        "scenes": {tile: ["a", "b"] for tile in GRIDS},
    }  # fmt: skip
    chain = {
        "schema": 1, "recipe_sha256": "a" * 64, "model_sha256": "b" * 64, "years": [2020, 2021], "tiles": tiles,
        "outputs": {"areas.csv": file_sha256(out / "areas.csv")},
        "digests": {"maps": {tile: {"2020": "c" * 64, "2021": "d" * 64} for tile in GRIDS}},
    }  # fmt: skip
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "provenance.json").write_text(json.dumps(chain))
    (out / "ledger.sqlite").touch()
    return out


@pytest.fixture(scope="module")
def mosaics(run):
    return {path.name: path for path in write_mosaics(run)}


def expected(year):
    """Cells of the two tiles of zone 18 on their common lattice, the first that saw a place on top, by plain loops."""
    out = np.full((70, 120), 255, "uint8")
    for seed, (tile, row, column) in enumerate((("18NA", 10, 0), ("18NB", 0, 50))):
        codes = land_cover(GRIDS[tile], seed * 10 + year).values
        for r in range(60):
            for c in range(70):
                if codes[r, c] != 255 and out[row + r, column + c] == 255:
                    out[row + r, column + c] = codes[r, c]
    return out


@pytest.mark.parametrize("year", [2020, 2021])
def test_the_vrt_is_the_tiles_of_its_zone(mosaics, year):
    with rasterio.open(mosaics[f"land_cover_{year}_EPSG32618.vrt"]) as file:
        assert (file.crs.to_epsg(), file.nodata, file.shape) == (32618, 255, (70, 120))
        assert tuple(file.transform)[:6] == (10, 0, 500000, 0, -10, 300100)
        np.testing.assert_array_equal(file.read(1), expected(year))
        with rasterio.open(mosaics[f"land_cover_{year}.tif"]) as cog:
            assert file.colormap(1) == cog.colormap(1)
    assert "relativeToVRT" in mosaics[f"land_cover_{year}_EPSG32618.vrt"].read_text()


def test_the_cog_holds_the_tiles_of_its_own_zone_cell_by_cell_and_others_by_the_nearest(mosaics):
    with rasterio.open(mosaics["land_cover_2020.tif"]) as file:
        values, transform = file.read(1), file.transform
        assert file.crs.to_epsg() == 32618
        row, column = round((transform.f - 300100) / 10), round((500000 - transform.c) / 10)
        part = values[row : row + 70, column : column + 120]
        own = expected(2020)
        np.testing.assert_array_equal(part[own != 255], own[own != 255])
        # what only the tile of the next zone saw is its class at that place
        import pyproj

        there = pyproj.Transformer.from_crs(32618, 32619, always_xy=True)
        codes = land_cover(GRIDS["19NA"], 20 + 2020).values
        checked = 0
        for r in range(values.shape[0]):
            for c in range(values.shape[1]):
                r0, c0 = r - row, c - column
                if 0 <= r0 < 70 and 0 <= c0 < 120 and own[r0, c0] != 255:
                    continue
                x, y = there.transform(transform.c + 10 * (c + 0.5), transform.f - 10 * (r + 0.5))
                i, j = (300300 - y) / 10, (x + 166700) / 10
                if min(i % 1, 1 - i % 1, j % 1, 1 - j % 1) < 0.02:
                    continue  # on the edge of two cells
                inside = 0 <= i < 60 and 0 <= j < 70
                assert values[r, c] == (codes[int(i), int(j)] if inside else 255)
                checked += inside
        assert checked > 1000


def test_overviews_hold_classes_only_and_legend_and_names_travel(mosaics, run, tmp_path):
    from geococa import read_raster

    path = mosaics["land_cover_2021.tif"]
    back = read_raster(path)
    assert Legend.from_attrs(back.attrs).names == tuple(CLASSES.values())
    assert path.with_name(f"{path.name}.aux.xml").is_file()
    big = Grid("EPSG:32618", (10, 0, 500000, 0, -10, 300000), (1300, 1100))
    out = tmp_path / "out"
    (out / "maps").mkdir(parents=True)
    codes = np.random.default_rng(1).choice([0, 7], big.shape).astype("uint8")
    array = as_land_cover(big.attach(xr.DataArray(codes, dims=("y", "x"))), CLASSES)
    write_cog(array, out / "maps" / "18NA_2020_land_cover.tif")
    manifest = json.loads((run / "manifest.json").read_text()) | {"scenes": {"18NA": []}}
    (out / "manifest.json").write_text(json.dumps(manifest))
    cog = write_mosaics(out)[-1]
    with rasterio.open(cog) as file:
        assert file.overviews(1)
        np.testing.assert_array_equal(file.read(1), codes)
        for level in range(len(file.overviews(1))):
            with rasterio.open(cog, overview_level=level) as overview:
                assert set(np.unique(overview.read(1))) <= {0, 7}


def test_the_same_maps_give_the_same_mosaic_and_another_system_can_be_asked_for(mosaics, run, tmp_path):
    again = tmp_path / "out"
    shutil.copytree(run, again, ignore=shutil.ignore_patterns("mosaic"))
    for path in write_mosaics(again):
        assert path.read_bytes() == mosaics[path.name].read_bytes(), path.name
    done = CliRunner().invoke(main, ["mosaic", str(again), "--crs", "EPSG:4326"])
    assert done.exit_code == 0, done.stderr
    with rasterio.open(again / "mosaic" / "land_cover_2020.tif") as file:
        assert file.crs.to_epsg() == 4326
        assert set(np.unique(file.read(1))) == {*CLASSES, 255}


def test_a_folder_without_maps_has_no_mosaic(tmp_path, run):
    (tmp_path / "manifest.json").write_bytes((run / "manifest.json").read_bytes())
    with pytest.raises(InputRefused, match="no maps"):
        write_mosaics(tmp_path)


# --- catalog -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog(run):
    pytest.importorskip("pystac")
    return write_catalog(run)


def test_pystac_reads_and_validates_every_document(catalog):
    import pystac
    from pystac.validation import stac_validator

    checker = stac_validator.JsonSchemaSTACValidator()
    count = 0
    for path in [catalog, *sorted(catalog.parent.glob("stac/*.json"))]:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind = {"Catalog": "CATALOG", "Collection": "COLLECTION", "Feature": "ITEM"}[found["type"]]
        checker.validate_core(found, getattr(pystac.STACObjectType, kind), found["stac_version"])
        count += 1
    assert count == 2 + 6
    whole = pystac.Catalog.from_file(str(catalog))
    items = list(whole.get_items(recursive=True))
    assert sorted(item.id for item in items) == sorted(f"{tile}_{year}" for tile in GRIDS for year in (2020, 2021))
    assert {item.get_parent().id for item in items} == {"land-cover"}
    assert all("://" not in text or "stac-extensions" in text or "schema" in text for text in _hrefs(catalog))


def _hrefs(catalog):
    for path in [catalog, *catalog.parent.glob("stac/*.json")]:
        found = json.loads(path.read_text(encoding="utf-8"))
        yield from (link["href"] for link in found["links"])
        yield from (asset["href"] for asset in found.get("assets", {}).values())


def test_extensions_say_what_is_in_the_files(catalog, run):
    import pystac
    from pystac.extensions.classification import ClassificationExtension
    from pystac.extensions.file import FileExtension
    from pystac.extensions.projection import ProjectionExtension
    from pystac.extensions.raster import RasterExtension

    for item in pystac.Catalog.from_file(str(catalog)).get_items(recursive=True):
        tile, year = item.id.rsplit("_", 1)
        grid = GRIDS[tile]
        projection = ProjectionExtension.ext(item)
        assert projection.code == f"EPSG:{grid.crs.to_epsg()}"
        assert tuple(projection.shape) == grid.shape
        assert tuple(projection.transform[:6]) == tuple(grid.transform)[:6]
        assert RasterExtension.has_extension(item)
        assert item.properties["processing:software"]["geococa"]
        for asset in item.assets.values():
            path = (catalog.parent / "stac" / asset.href).resolve()
            held = FileExtension.ext(asset)
            assert held.checksum == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
            assert held.size == path.stat().st_size
        classes = ClassificationExtension.ext(item.assets["land_cover"]).classes
        assert {entry.value: entry.name for entry in classes} == {**CLASSES, 255: "not_observed"}
        assert item.common_metadata.start_datetime.year == int(year)
        # the outline holds the tile's corners
        assert item.bbox[0] < item.bbox[2]
        assert item.bbox[1] < item.bbox[3]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_odc_stac_loads_the_classes_of_a_year(catalog, run):
    import warnings

    import pystac

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odc_stac = pytest.importorskip("odc.stac")

    items = [i for i in pystac.Catalog.from_file(str(catalog)).get_items(recursive=True) if i.id.startswith("18N")]
    items = [item for item in items if item.id.endswith("2020")]
    loaded = odc_stac.load(items, bands=["land_cover"], crs="EPSG:32618", resolution=10, groupby="time")
    values = loaded["land_cover"].isel(time=0)
    assert values.dtype == np.uint8
    codes = land_cover(GRIDS["18NA"], 2020)
    part = values.sel(x=codes.x.values[:40], y=codes.y.values)
    np.testing.assert_array_equal(part.values, codes.values[:, :40])


def test_our_own_search_understands_links_of_the_catalog_and_the_same_run_gives_the_same_bytes(catalog, run, tmp_path):
    before = {path: path.read_bytes() for path in [catalog, *catalog.parent.glob("stac/*.json")]}
    (catalog.parent / "stac" / "old_2019.json").write_text("{}")
    done = CliRunner().invoke(main, ["catalog", str(run)])
    assert done.exit_code == 0, done.stderr
    assert {path: path.read_bytes() for path in [catalog, *catalog.parent.glob("stac/*.json")]} == before
    with pytest.raises(InputRefused, match="platform"):  # items of maps are no scenes
        find_tiles(catalog)
