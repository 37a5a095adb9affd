"""Maps against reference samples: a perfect map is perfect, a biased one is corrected, strata keep their weight."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.assessment import assess_map, assess_run
from geococa.errors import AccuracyError, InputRefused, NoPositives
from geococa.grid import Grid
from geococa.legend import as_land_cover

GRID = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (200, 200))
NAMES = {1: "coca", 2: "forest"}


def map_of(codes, years=None):
    labels = GRID.attach(xr.DataArray(codes.astype("uint8"), dims=("y", "x")))
    land_cover = as_land_cover(labels, NAMES)
    if years:
        land_cover = xr.concat(
            [land_cover.expand_dims(time=[np.datetime64(f"{y}-12-31", "ns")]) for y in years], "time"
        )
    return land_cover


def sample(truth, n, seed, year=None, strata=None):
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, 200, (2, n))
    x, y = 600005 + 10.0 * cols, 299995 - 10.0 * rows
    points = gpd.GeoDataFrame(
        {"class": np.where(truth[rows, cols] == 1, "coca", "forest")}, geometry=gpd.points_from_xy(x, y), crs=GRID.crs
    )
    if year:
        points["year"] = year
        points["stratum"] = "all"
        points["stratum_area_ha"] = float(np.broadcast_to(GRID.cell_area_ha(), GRID.shape).sum())
    return points


@pytest.fixture
def truth():
    codes = np.full((200, 200), 2)
    codes[:40, :100] = 1
    return codes


def test_a_perfect_map_keeps_its_hectares(truth):
    table = assess_map(map_of(truth), sample(truth, 400, 1)).set_index("class")
    assert table.loc["coca", "area_ha"] == pytest.approx(40.0, rel=0.01)
    assert table.loc["coca", "users_accuracy"] == 1
    assert "zero-width" in table.loc["coca", "note"]


def test_hectares_that_the_map_misses_are_put_back_by_the_sample(truth):
    mapped = truth.copy()
    mapped[20:40, :100] = 2
    table = assess_map(map_of(mapped), sample(truth, 2000, 2)).set_index("class")
    assert table.loc["coca", "mapped_area_ha"] == pytest.approx(20.0, rel=0.01)
    assert table.loc["coca", "ci_low_ha"] < 40.0 < table.loc["coca", "ci_high_ha"]
    assert table.loc["coca", "ci_low_ha"] > 25.0


def test_a_run_is_assessed_year_by_year_and_zone_by_zone(truth):
    left, _, right, top = GRID.bounds
    zones = gpd.GeoDataFrame(
        {"zone": ["north", "far"]},
        geometry=gpd.GeoSeries.from_wkt([
            f"POLYGON(({left} {top - 1000}, {right} {top - 1000}, {right} {top}, {left} {top}, {left} {top - 1000}))",
            "POLYGON((0 0, 1 0, 1 1, 0 1, 0 0))",
        ]),
        crs=GRID.crs,
    )  # fmt: skip
    years = [2020, 2021]
    time = pd.to_datetime([f"{y}-12-31" for y in years])
    areas = xr.Dataset(
        {"zone_ha": ("zone", [200.0, 1.0]), "outside_ha": (("time", "zone"), [[0.0, 1.0], [0.0, 1.0]])},
        coords={"zone": ["north", "far"], "time": time},
    )
    points = pd.concat([sample(truth, 800, 3, 2020), sample(truth, 800, 4, 2021)], ignore_index=True)
    found = assess_run(points, {"t": map_of(truth, years)}, areas, zones, "coca")
    assert sorted(found.matrices) == years
    rows = found.zones.set_index(["zone", "year"])
    assert rows.loc[("north", 2020), "ci_low_ha"] < 40 < rows.loc[("north", 2020), "ci_high_ha"]
    assert rows.loc[("far", 2020), "status"] == "not estimable"
    assert np.isnan(rows.loc[("far", 2020), "area_ha"])


def test_samples_without_their_design_are_refused(truth):
    points = sample(truth, 50, 5, 2020).drop(columns="stratum_area_ha")
    with pytest.raises(InputRefused, match="stratum_area_ha"):
        assess_run(points, {}, xr.Dataset(), gpd.GeoDataFrame(), "coca")


def two_strata(truth, year=2020):
    points = sample(truth, 400, 6, year)
    points["stratum"] = np.where(points["class"] == "coca", "near", "far")
    points["stratum_area_ha"] = np.where(points["stratum"] == "near", 40.0, 360.0)
    return points


def nothing_outside(years=(2020,)):
    time = pd.to_datetime([f"{y}-12-31" for y in years])
    return xr.Dataset(
        {"zone_ha": ("zone", [1.0]), "outside_ha": (("time", "zone"), [[0.0]] * len(years))},
        coords={"zone": ["z"], "time": time},
    )


def a_zone():
    return gpd.GeoDataFrame({"zone": ["z"]}, geometry=gpd.points_from_xy([0], [0]).buffer(1), crs=GRID.crs)


def test_a_stratum_without_an_observed_sample_gives_no_estimate_rather_than_a_smaller_one(truth, caplog):
    hidden = truth.copy()
    hidden[truth == 1] = 255
    with pytest.raises(AccuracyError, match="every stratum"):
        assess_run(two_strata(truth), {"t": map_of(hidden, [2020])}, nothing_outside(), a_zone(), "coca")
    assert "no accuracy for 2020" in caplog.text


def test_a_sample_without_any_coca_gives_no_score(truth):
    forest = np.full_like(truth, 2)
    points = sample(forest, 100, 7, 2020)
    with pytest.raises(NoPositives):
        assess_map(map_of(truth), points)
    with pytest.raises(AccuracyError):
        assess_run(points, {"t": map_of(truth, [2020])}, nothing_outside(), a_zone(), "coca")
