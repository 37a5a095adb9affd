"""Maps that geococa did not make: whatever a GeoTIFF may hold, measured by ``geococa areas`` or refused with the remedy."""

from __future__ import annotations

import io
import re

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

from geococa.cli import main
from geococa.cogs import read_raster
from geococa.errors import CRSMismatch, InputRefused
from tests.oracles_areas import area_geod_ha, to_lonlat

PLACE = from_origin(600000, 300000, 30, 30)
LABELS = np.random.default_rng(0).integers(1, 4, (60, 80)).astype(np.uint8)
# cells of the first park, so that the parks end between cells and a plain count is exact
PARK = (slice(4, 50), slice(10, 40))
ZONES = [shapely.box(600300, 298500, 601200, 299880), shapely.Point(602000, 299000).buffer(380)]
CLASSES = "1=coca,2=forest,3=pasture"


@pytest.fixture
def zones(tmp_path):
    path = tmp_path / "parks.gpkg"
    geopandas.GeoDataFrame({"park": ["one", "two"]}, geometry=ZONES, crs="EPSG:32618").to_file(path, layer="parks")
    return path


@pytest.fixture
def write(tmp_path):
    def run(values, *, mask=None, palette=None, gcps=None, **profile):
        path = tmp_path / "map.tif"
        bands = values if values.ndim == 3 else values[None]
        profile = {"crs": "EPSG:32618", "transform": PLACE, **profile}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=len(bands),
                height=bands.shape[1],
                width=bands.shape[2],
                dtype=bands.dtype,
                **{key: value for key, value in profile.items() if value is not None},
            ) as file,
        ):
            file.write(bands)
            if palette:
                file.write_colormap(1, palette)
            if gcps:
                file.gcps = (gcps, rasterio.crs.CRS.from_epsg(32618))
            if mask is not None:
                file.write_mask(mask)
        return path

    return run


def table(path, zones, *options, classes=CLASSES):
    done = CliRunner().invoke(main, ["areas", str(path), "--zones", str(zones), "--classes", classes, *options])
    if done.exit_code:
        raise done.exception
    return pd.read_csv(io.StringIO(done.stdout))


def first_park(found):
    return found[found["zone"] == "one"].set_index("land_cover")


def counts(labels):
    """Cells of each class in the first park."""
    return [int((labels[PARK] == code).sum()) for code in (1, 2, 3)]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_codes_may_be_of_any_type(write, zones, dtype):
    found = table(write(LABELS.astype(dtype)), zones)
    park = first_park(found)
    cell_ha = area_geod_ha(ZONES[0], to_lonlat("EPSG:32618"), 30) / sum(counts(LABELS))
    np.testing.assert_allclose(park["area_ha"], np.array(counts(LABELS)) * cell_ha, rtol=1e-6)
    assert park["unobserved_ha"].eq(0).all()
    sums = found.groupby("zone")["area_ha"].sum() + found.groupby("zone")[["unobserved_ha", "outside_ha"]].first().sum(
        axis=1
    )
    np.testing.assert_allclose(sums, found.groupby("zone")["zone_ha"].first(), rtol=1e-9)


MISSING = {
    "no-data value 0": lambda labels, hole: ({"nodata": 0}, np.where(hole, 0, labels)),
    "no-data value 255": lambda labels, hole: ({"nodata": 255}, np.where(hole, 255, labels)),
    "int16, -9999": lambda labels, hole: ({"nodata": -9999}, np.where(hole, -9999, labels.astype("int16"))),
    "float, NaN": lambda labels, hole: ({}, np.where(hole, np.nan, labels.astype("float32"))),
    "float, a number": lambda labels, hole: ({"nodata": -1e30}, np.where(hole, -1e30, labels.astype("float64"))),
    "uint16, 65535": lambda labels, hole: ({"nodata": 65535}, np.where(hole, 65535, labels.astype("uint16"))),
    "a mask of its own": lambda labels, hole: ({"mask": np.where(hole, 0, 255).astype("uint8")}, labels),
    "a mask, int16": lambda labels, hole: ({"mask": np.where(hole, 0, 255).astype("uint8")}, labels.astype("int16")),
    "a mask, floats": lambda labels, hole: ({"mask": np.where(hole, 0, 255).astype("uint8")}, labels.astype("float32")),
}


@pytest.mark.parametrize("kind", MISSING.values(), ids=MISSING)
def test_what_the_file_says_is_missing_is_not_observed(write, zones, kind):
    hole = np.zeros(LABELS.shape, bool)
    hole[:20] = True
    options, values = kind(LABELS, hole)
    park = first_park(
        table(write(values.astype(values.dtype if values.dtype != np.int64 else "uint8"), **options), zones)
    )
    expected = np.array(counts(np.where(hole, 255, LABELS)))
    share = park["area_ha"] / park["zone_ha"]
    np.testing.assert_allclose(share, expected / LABELS[PARK].size, rtol=1e-4)
    np.testing.assert_allclose(park["unobserved_ha"] / park["zone_ha"], 16 / 46, rtol=1e-4)


def test_a_mask_is_read_by_windows_and_blocks_too(write):
    mask = np.full(LABELS.shape, 255, "uint8")
    mask[:20, 5:9] = 0
    path = write(LABELS, mask=mask)
    whole = read_raster(path)
    assert whole.attrs["nodata"] == 255
    np.testing.assert_array_equal(whole.values, np.where(mask > 0, LABELS, 255))
    np.testing.assert_array_equal(read_raster(path, window=(10, 30, 4, 20)).values, whole.values[10:30, 4:20])
    pytest.importorskip("dask")
    np.testing.assert_array_equal(read_raster(path, chunks={"y": 16, "x": 16}).values, whole.values)
    with pytest.raises(InputRefused, match="mask of its own"):
        read_raster(write(np.full((5, 5), 255, np.uint8), mask=np.eye(5, dtype=np.uint8) * 255))


def test_a_palette_and_single_bits_are_codes_like_others(write, zones):
    plain = table(write(LABELS), zones)
    painted = table(write(LABELS, palette={code: (code, 0, 0, 255) for code in (1, 2, 3)}), zones)
    pd.testing.assert_frame_equal(plain, painted)
    bits = first_park(table(write((LABELS == 1).astype(np.uint8), nbits=1), zones, classes="0=other,1=coca"))
    assert bits.loc["coca", "area_ha"] == pytest.approx(first_park(plain).loc["coca", "area_ha"], rel=1e-12)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_codes_of_several_digits_are_measured(write, zones, dtype):
    water = 255 if dtype == "int16" else 512
    values = np.array([0, 231, 31111 if dtype == "int16" else 5143, water])[LABELS].astype(dtype)
    values[:20] = -1
    codes = f"231=pasture,{int(values.max())}=forest,{water}=water"
    found = first_park(table(write(values, nodata=-1), zones, classes=codes))
    expected = {name: ((n == LABELS)[20:50, 10:40]).sum() for name, n in (("pasture", 1), ("forest", 2), ("water", 3))}
    for name, cells in expected.items():
        assert found.loc[name, "area_ha"] / found.loc[name, "zone_ha"] == pytest.approx(cells / (46 * 30), rel=1e-4)
    assert found["unobserved_ha"].iloc[0] / found["zone_ha"].iloc[0] == pytest.approx(16 / 46, rel=1e-4)
    with pytest.raises(SystemExit):
        table(write(values, nodata=-1), zones, classes=f"231=pasture,300=forest,{water}=water")


def test_postures_and_another_crs_give_the_same_hectares(write, zones):
    north = first_park(table(write(LABELS), zones))
    south_up = table(write(LABELS[::-1], transform=rasterio.Affine(30, 0, 600000, 0, 30, 298200)), zones)
    transposed = table(
        write(np.ascontiguousarray(LABELS.T), transform=rasterio.Affine(0, 30, 600000, -30, 0, 300000)), zones
    )
    for other in (south_up, transposed):
        np.testing.assert_allclose(first_park(other)["area_ha"], north["area_ha"], rtol=1e-9)


def test_planar_hectares_say_so_in_the_table(write, zones):
    planar = first_park(table(write(LABELS), zones, "--area", "planar:EPSG:32618"))
    assert planar["surface"].eq("planar:EPSG:32618").all()
    np.testing.assert_allclose(planar["area_ha"], np.array(counts(LABELS)) * 0.09, rtol=1e-9)
    assert "surface" not in table(write(LABELS), zones)


def test_a_table_seen_too_little_is_blocked(write, zones):
    values = LABELS.copy()
    values[:25] = 0
    path = write(values, nodata=0)
    assert len(table(path, zones, "--min-observed", "0.5")) == 6
    done = CliRunner().invoke(
        main, ["areas", str(path), "--zones", str(zones), "--classes", CLASSES, "--min-observed", "0.7"]
    )
    assert done.exit_code == 4
    assert "one: 54%" in done.stderr
    assert not done.stdout


REFUSED = {
    "several bands": (lambda: {"values": np.stack([LABELS] * 3)}, "3 bands"),
    "no CRS": (lambda: {"values": LABELS, "crs": None}, "no coordinate reference system"),
    "no place": (lambda: {"values": LABELS, "transform": None}, "not georeferenced"),
    "control points": (
        lambda: {
            "values": LABELS,
            "crs": None,
            "transform": None,
            "gcps": [
                GroundControlPoint(row, column, 600000 + 30 * column, 300000 - 30 * row)
                for row in (0, 60)
                for column in (0, 80)
            ],
        },
        "gdalwarp",
    ),
    "an index": (lambda: {"values": LABELS + np.float32(0.5)}, "no class code"),
    "codes without a name": (lambda: {"values": LABELS + np.uint8(1)}, r"\[4\]"),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_measured_is_refused_with_the_remedy(write, zones, make, message):
    path = write(**make())
    done = CliRunner().invoke(main, ["areas", str(path), "--zones", str(zones), "--classes", CLASSES])
    assert done.exit_code == 4
    assert str(path) in done.stderr
    assert re.search(message, done.stderr)


def test_the_layer_and_repeated_names_are_chosen_on_the_command_line(write, zones, tmp_path):
    path = write(LABELS)
    again = geopandas.GeoDataFrame({"park": ["a", "a"]}, geometry=ZONES, crs="EPSG:32618")
    again.to_file(zones, layer="other")
    assert set(table(path, zones, "--layer", "parks")["zone"]) == {"one", "two"}
    assert set(table(path, zones, "--layer", "other", "--duplicates", "number")["zone"]) == {"a", "a (2)"}
    assert set(table(path, zones, "--layer", "other", "--duplicates", "dissolve")["zone"]) == {"a"}
    with pytest.raises(CRSMismatch):
        read_raster(write(LABELS, crs=None))
