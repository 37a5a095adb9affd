"""Ages of images in the tables of a run: windows up to a cut-off date, from the recipe to the account."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

from geococa.archive import run_archive
from geococa.areas import areas_table
from geococa.coverage import coverage_fraction
from geococa.cutoff import Hazards, age_table, cutoff_area
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.image_ages import age_summary, merge_ages, with_ages
from geococa.legend import Legend
from geococa.models import read_model
from geococa.pipeline import run_tile
from geococa.recipe import Recipe
from geococa.tiles import find_tiles, read_raster

WINDOW = (
    '[composite]\nreducer = "bap"\ncutoff = "12-31"\nwindow_days = 120\nfallback_days = 400\ncloud_distance_m = 80\n'
)
COLUMNS = ["mean_observations", "fallback_share", "mean_age_days", "median_age_days"]


def windowed(archive, name, extra=""):
    """Recipe of the archive with a window instead of the calendar year."""
    text = (archive / "recipe.toml").read_text(encoding="utf-8")
    head, *sections = text.split("\n[")
    kept = [section for section in sections if not section.startswith("composite]")]
    path = archive / name
    path.write_text("\n[".join([head, *kept]) + "\n" + WINDOW + extra, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(small_archive, tmp_path_factory):
    recipe = windowed(small_archive, "recipe_window.toml")
    return run_archive(small_archive, recipe, out=tmp_path_factory.mktemp("window") / "out")


def test_the_table_of_areas_tells_of_the_dates_behind_it(finished):
    table = pd.read_csv(finished.out / "areas.csv")
    assert list(table.columns[-4:]) == COLUMNS
    seen = table[table["observed_share"] > 0.05]
    assert seen[COLUMNS].notna().all().all()
    assert seen["fallback_share"].between(0, 1).all()
    assert (seen["fallback_share"] > 0).any()
    assert seen["median_age_days"].between(0, 520).all()
    assert (seen["mean_observations"] >= 1).all()


def test_ages_of_a_run_are_those_of_its_rasters(finished):
    table = pd.read_csv(finished.out / "image_ages.csv")
    first = sorted((finished.out / "maps").glob("*_age_days.tif"))[0]
    ages = read_raster(first).values
    labels = read_raster(first.with_name(first.name.replace("age_days", "land_cover"))).values
    early = read_raster(first.with_name(first.name.replace("age_days", "fallback_observations"))).values
    assert (np.isfinite(ages) == (labels != 255)).all()
    assert (ages[early == 0][np.isfinite(ages[early == 0])] <= 120).all()
    assert table["image_age_days"].max() <= 520


def test_hectares_of_the_ages_are_those_of_the_areas(finished):
    ages = pd.read_csv(finished.out / "image_ages.csv").groupby(["zone", "year"]).sum(numeric_only=True)
    areas = pd.read_csv(finished.out / "areas.csv")
    coca = areas[areas["land_cover"] == "coca"].set_index(["zone", "year"])["area_ha"]
    np.testing.assert_allclose(ages["coca_ha"].reindex(coca.index), coca, rtol=1e-5, atol=1e-5)
    whole = ages["coca_ha"] + ages["other_ha"] + ages["unseen_ha"]
    zone_ha = areas.drop_duplicates(["zone", "year"]).set_index(["zone", "year"])["zone_ha"]
    np.testing.assert_allclose(whole.reindex(zone_ha.index), zone_ha, rtol=1e-5)


def test_the_account_at_the_cutoff_takes_the_table_of_a_run(finished):
    ages = pd.read_csv(finished.out / "image_ages.csv")
    account = cutoff_area(ages, Hazards(0.02, 0.3))
    assert sorted(account["year"].unique()) == sorted(ages["year"].unique())
    one = ages["year"].min()
    alone = cutoff_area(ages[ages["year"] == one].drop(columns="year"), Hazards(0.02, 0.3))
    pd.testing.assert_frame_equal(
        account[account["year"] == one].drop(columns="year").reset_index(drop=True), alone, check_like=True
    )
    corrected = account[(account["line"] == "age_correction") & (account["zone"] == "all zones")]
    assert (corrected["area_ha"] != 0).all()


def test_hectares_eradicated_in_one_year_are_not_taken_off_every_year(finished):
    with pytest.raises(InputRefused, match="one year"):
        cutoff_area(pd.read_csv(finished.out / "image_ages.csv"), Hazards(0.02, 0.3), eradicated_ha={"all zones": 1.0})


def test_blocks_change_no_byte_of_a_windowed_run(finished, small_archive, tmp_path):
    recipe = Recipe.read(windowed(small_archive, "recipe_window_blocks.toml", "[run]\nblock_px = 40\n"))
    tile = find_tiles(small_archive)[0]
    run_tile(
        tile, recipe, read_model(finished.out / "model.geococa"), tmp_path, years=finished.areas.time.dt.year.values
    )
    for kind in ("land_cover", "age_days", "fallback_observations", "observations"):
        files = sorted((finished.out / "maps").glob(f"{tile.tile}_*_{kind}.tif"))
        assert files
        for path in files:
            assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


GRID = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), (20, 20))


def layer(values, **attrs):
    return GRID.attach(xr.DataArray(values, dims=("y", "x"), attrs=attrs))


def cover(labels):
    return layer(labels.astype("uint8"), kind="land_cover", **Legend.of(["coca", "forest"]).to_attrs())


def share_of(zones):
    return coverage_fraction(zones, GRID)


@pytest.fixture
def parks():
    boxes = [shapely.box(500_000, 899_900, 500_200, 900_000), shapely.box(500_000, 899_800, 500_200, 899_900)]
    return geopandas.GeoDataFrame({"zone": ["north", "south"]}, geometry=boxes, crs=GRID.crs)


def test_summary_weights_by_hectares_and_leaves_the_unobserved_out(parks):
    labels = np.full((20, 20), 2)
    labels[:10, :5], labels[0, 19], labels[10:] = 1, 255, 255
    ages = np.where(np.arange(20)[None, :] < 4, 5.0, 50.0) + np.zeros((20, 20))
    dates, early = np.full((20, 20), 3, "uint16"), np.zeros((20, 20), "uint16")
    dates[:, 0], early[:, 10:] = 13, 1
    table = age_table(
        cover(labels), layer(ages.astype("float32")), share_of(parks), bin_days=1,
        observations=layer(dates), fallback=layer(early),
    )  # fmt: skip
    found = age_summary(table).set_index("zone")
    assert found.loc["north", "median_age_days"] == pytest.approx(50, rel=1e-12)
    assert found.loc["north", "mean_age_days"] == pytest.approx((40 * 5 + 159 * 50) / 199, rel=1e-4)
    assert found.loc["north", "mean_observations"] == pytest.approx((189 * 3 + 10 * 13) / 199, rel=1e-4)
    assert found.loc["north", "fallback_share"] == pytest.approx(99 / 199, rel=1e-4)
    assert found.loc["south"].isna().all()


def test_without_ages_only_the_number_of_dates_is_known(parks):
    table = age_table(
        cover(np.ones((20, 20))), None, share_of(parks), observations=layer(np.full((20, 20), 4, "uint16"))
    )
    found = age_summary(table)
    assert list(found.columns) == ["zone", "mean_observations"]
    np.testing.assert_allclose(found["mean_observations"], 4)


def test_tables_of_tiles_add_up_whatever_their_cut(parks):
    rng = np.random.default_rng(2)
    labels = rng.choice([1, 2, 255], (20, 20), p=[0.3, 0.5, 0.2])
    ages = layer(rng.integers(0, 90, (20, 20)).astype("float32"))
    left, right = labels.copy(), labels.copy()
    left[:, 10:], right[:, :10] = 255, 255
    share = share_of(parks)
    years = {"time": np.array(["2020-12-31"], "datetime64[ns]")}
    seen = labels != 255
    areas = xr.Dataset(
        {
            "unobserved_ha": (("time", "zone"), [[(~seen[:10]).sum() * 0.01, (~seen[10:]).sum() * 0.01]]),
            "outside_ha": (("time", "zone"), [[0.0, 0.0]]),
        },
        coords={**years, "zone": ["north", "south"]},
    )
    parts = [age_table(cover(part), ages, share, bin_days=1).assign(year=2020) for part in (left, right)]
    whole = age_table(cover(labels), ages, share, bin_days=1).assign(year=2020)
    merged, single = merge_ages(parts, areas), merge_ages([whole], areas)
    pd.testing.assert_frame_equal(merged, single, rtol=1e-12)
    assert with_ages(areas, merged)["median_age_days"].shape == (1, 2)


def test_areas_without_dates_have_no_columns_of_dates():
    areas = xr.Dataset(
        {
            "area_ha": (("time", "zone", "land_cover"), [[[1.0]]]), "zone_ha": ("zone", [2.0]),
            "unobserved_ha": (("time", "zone"), [[1.0]]), "outside_ha": (("time", "zone"), [[0.0]]),
        },
        coords={"time": np.array(["2020-12-31"], "datetime64[ns]"), "zone": ["a"], "land_cover": ["coca"]},
    )  # fmt: skip
    assert not set(COLUMNS) & set(areas_table(areas).columns)
