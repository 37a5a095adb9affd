"""Maps against reference samples: a perfect map is perfect, a biased one is corrected, strata keep their weight."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
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


def test_sample_drawn_without_strata_is_weighed_by_the_map_afterwards(truth):
    from geococa.accuracy import adjusted_area, error_matrix, sample_design

    land_cover = map_of(truth)
    points = sample_design(land_cover, 300, design="simple", seed=2)
    wrong = np.random.default_rng(0).random(300) < 0.1
    points["class"] = np.where(wrong, "coca", points["stratum"])
    table = assess_map(land_cover, points).set_index("class")
    areas = points.groupby("stratum")["stratum_area_ha"].first()
    matrix = error_matrix(points["class"], points["stratum"], design="post_stratified")
    expected = adjusted_area(matrix, mapped_area_ha=areas, interval="wilson")
    fixed = adjusted_area(matrix, mapped_area_ha=areas, interval="wilson", design="stratified")
    assert table.loc["coca", "se_ha"] == pytest.approx(expected.loc["coca", "se_ha"])
    assert table.loc["coca", "se_ha"] > fixed.loc["coca", "se_ha"]
    with pytest.raises(AccuracyError, match="one design"):
        assess_map(land_cover, points.assign(design="convenience"))


def test_zones_are_estimated_from_one_sample_and_small_ones_get_no_number(truth):
    from geococa.assessment import assess_zones

    left, bottom, right, top = GRID.bounds
    zones = gpd.GeoDataFrame(
        {"zone": ["north", "corner", "far"]},
        geometry=[
            shapely.box(left, top - 1000, right, top),
            shapely.box(right - 60, bottom, right, bottom + 60),
            shapely.box(0, 0, 1, 1),
        ],
        crs=GRID.crs,
    )
    table = assess_zones(map_of(truth), sample(truth, 900, 3), zones).set_index("zone")
    cells = np.broadcast_to(GRID.cell_area_ha(), GRID.shape)
    true = cells[:100][truth[:100] == 1].sum()
    assert table.loc["north", "ci_low_ha"] < true < table.loc["north", "ci_high_ha"]
    assert table.loc["corner", "status"] == table.loc["far", "status"] == "not estimable"
    assert table.loc[["corner", "far"], "area_ha"].isna().all()


def test_samples_of_several_years_need_the_year_of_the_map(truth):
    both = pd.concat([sample(truth, 200, 3, 2020), sample(np.full_like(truth, 2), 200, 4, 2021)], ignore_index=True)
    with pytest.raises(AccuracyError, match="say which"):
        assess_map(map_of(truth), both)
    with pytest.raises(AccuracyError, match="no sample is of 1999"):
        assess_map(map_of(truth), both, year=1999)
    assert assess_map(map_of(truth), both, year=2020)["n_reference"].sum() == 200


def with_strata(points, mapped, design):
    """Samples as they are drawn from a map: with its class, and the hectares of it, as stratum."""
    x, y = points.geometry.x.to_numpy(), points.geometry.y.to_numpy()
    cols, rows = ((x - 600000) // 10).astype(int), ((300000 - y) // 10).astype(int)
    cells = np.broadcast_to(GRID.cell_area_ha(), GRID.shape)
    names = np.where(mapped[rows, cols] == 1, "coca", "forest")
    hectares = {"coca": cells[mapped == 1].sum(), "forest": cells[mapped == 2].sum()}
    return points.assign(stratum=names, stratum_area_ha=[hectares[one] for one in names], design=design)


def test_a_map_class_that_lost_its_samples_is_refused(truth):
    points = with_strata(sample(truth, 400, 3), truth, "stratified")
    points.loc[points.index[points["class"] == "forest"][:5], "class"] = "coca"
    with pytest.raises(AccuracyError, match="coca"):
        assess_map(map_of(truth), points[points["stratum"] != "coca"])


def test_a_simple_sample_without_points_in_a_rare_class_stands_for_the_whole_map(truth):
    points = with_strata(sample(truth, 400, 3), truth, "simple")
    points = points[points["stratum"] != "coca"]
    points.loc[points.index[:5], "class"] = "coca"
    table = assess_map(map_of(truth), points)
    cells = np.broadcast_to(GRID.cell_area_ha(), GRID.shape).sum()
    assert table["area_ha"].sum() == pytest.approx(cells)
    assert table.set_index("class").loc["coca", "area_ha"] == pytest.approx(cells * 5 / len(points))


def test_samples_that_no_pixel_answers_for_are_said(truth, caplog):
    points = sample(truth, 400, 4)
    assess_map(map_of(truth), points)
    assert not caplog.messages
    far = points.head(7).assign(geometry=points.geometry.head(7).translate(1e5, 0))
    assess_map(map_of(truth), gpd.GeoDataFrame(pd.concat([points, far]), crs=points.crs))
    assert "7 of 407 samples are left out (7 outside)" in caplog.text


def test_hectares_of_strata_without_the_stratum_are_refused(truth):
    points = with_strata(sample(truth, 400, 3), truth, "stratified").drop(columns="stratum")
    with pytest.raises(InputRefused, match="no column stratum"):
        assess_map(map_of(truth), points)


def test_a_year_that_lacks_a_stratum_of_the_other_years_gets_no_number(truth, caplog):
    left, _, right, top = GRID.bounds
    zones = gpd.GeoDataFrame(
        {"zone": ["all of it"]}, geometry=[shapely.box(left, top - 2000, right, top)], crs=GRID.crs
    )
    years = [with_strata(sample(truth, 400, y), truth, "stratified").assign(year=y) for y in (2020, 2021)]
    years[1] = years[1][years[1]["stratum"] != "coca"]
    years[1].loc[years[1].index[:5], "class"] = "coca"
    samples = gpd.GeoDataFrame(pd.concat(years, ignore_index=True), crs=GRID.crs)
    areas = xr.Dataset(
        {"zone_ha": (("time", "zone"), [[400.0], [400.0]]), "outside_ha": (("time", "zone"), [[0.0], [0.0]])},
        {"zone": ["all of it"], "time": pd.to_datetime(["2020-12-31", "2021-12-31"])},
    )
    found = assess_run(samples, {"T": map_of(truth, (2020, 2021))}, areas, zones, "coca")
    assert set(found.classes["year"]) == {2020}
    assert "no accuracy for 2021" in caplog.text
