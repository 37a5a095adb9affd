"""Estimates of a run: change from common points, small zones, the account, the model beside its nulls; all in the report."""

from __future__ import annotations

import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from shapely.geometry import box

from geococa.archive import run_archive
from geococa.grid import Grid
from geococa.legend import as_land_cover
from geococa.outputs import rewrite_report
from geococa.recipe import Recipe
from geococa.report import write_report
from geococa.run_estimates import (
    ESTIMATE_TABLES,
    account_table,
    composite_table,
    is_panel,
    run_estimates,
    skill_of_run,
)
from geococa.small_areas import BASIS
from tests.report_data import areas_dataset
from tests.test_panel_estimates import panel

GRID = Grid("EPSG:32618", (10, 0, 600_000, 0, -10, 300_000), (100, 100))


def history(years=(2018, 2019, 2020), wrong=0.0, seed=0):
    """The same map every year, but for a share of its pixels."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random((100, 100)) < 0.2, 1, 2)
    layers = []
    for year in years:
        flipped = rng.random(truth.shape) < wrong
        codes = np.where(flipped, 3 - truth, truth).astype(np.uint8)
        one = as_land_cover(GRID.attach(xr.DataArray(codes, dims=("y", "x"))), {1: "coca", 2: "forest"})
        layers.append(one.expand_dims(time=[np.datetime64(f"{year}-12-31", "ns")]))
    return xr.concat(layers, "time"), truth


def validated(truth, predicted, n=600, year=2020, folds=3, seed=1):
    """Rows of a cross-validation in columns of blocks."""
    rng = np.random.default_rng(seed)
    flat = rng.choice(100 * 100, n, replace=False)
    row, col = np.divmod(flat, 100)
    fold = col * folds // 100 + 1
    table = pd.DataFrame({
        "tile": "t", "row": row, "col": col, "year": year, "x": 600_005 + 10.0 * col, "y": 299_995 - 10.0 * row,
        "class": np.where(truth[row, col] == 1, "coca", "forest"), "predicted": predicted(truth[row, col], rng),
        "ndvi": np.where(truth[row, col] == 1, 0.5, 0.8) + rng.normal(0, 0.2, n), "fold": fold,
    })  # fmt: skip
    for k in range(1, folds + 1):
        table[f"train_{k}"] = fold != k
    return table


def named(codes, rng, wrong):
    return np.where((codes == 1) != (rng.random(len(codes)) < wrong), "coca", "forest")


class TestSkill:
    def test_model_that_repeats_last_years_map_has_no_skill(self):
        maps, truth = history(wrong=0.05)
        copied = validated(truth, lambda codes, rng: np.full(len(codes), "forest"))
        before = maps.sel(time="2019").values[0]
        copied["predicted"] = np.where(before[copied["row"], copied["col"]] == 1, "coca", "forest")
        found = skill_of_run(copied, {"t": maps}, class_name="coca", index="ndvi", folds=3)
        assert found["whole_verdict"].iloc[0] == "no skill over persistence"
        assert found["competitor"].tolist() == ["model", "persistence", "historical_mean", "index_threshold"]

    def test_model_better_than_all_nulls_has_skill(self):
        maps, truth = history(wrong=0.25)
        rows = validated(truth, lambda codes, rng: named(codes, rng, 0.01))
        found = skill_of_run(rows, {"t": maps}, class_name="coca", index="ndvi", folds=3)
        assert found["whole_verdict"].iloc[0].startswith("skill over")

    def test_without_the_index_or_earlier_maps_no_skill_is_claimed(self):
        maps, truth = history(wrong=0.25)
        rows = validated(truth, lambda codes, rng: named(codes, rng, 0.01))
        found = skill_of_run(rows, {"t": maps}, class_name="coca", index="nbr", folds=3)
        assert found["whole_verdict"].iloc[0] == "skill not shown: index threshold not run"
        first = skill_of_run(rows.assign(year=2018), {"t": maps}, class_name="coca", index="ndvi", folds=3)
        assert first["whole_verdict"].iloc[0].startswith("skill not shown")
        assert skill_of_run(rows, {}, class_name="coca", index="ndvi", folds=3)["verdict"].iloc[0] == "not scored"

    def test_fold_without_coca_gives_no_score(self):
        maps, truth = history(wrong=0.2)
        rows = validated(truth, lambda codes, rng: named(codes, rng, 0.01))
        rows.loc[rows["fold"] == 1, "class"] = "forest"
        found = skill_of_run(rows, {"t": maps}, class_name="coca", index="ndvi", folds=3)
        assert "fold 1" in found["whole_verdict"].iloc[0]
        assert not found["whole_verdict"].iloc[0].startswith("skill over")


def geographic(samples):
    points = gpd.points_from_xy(600_000 + samples["point"], np.where(samples["park"], 299_000, 290_000))
    return gpd.GeoDataFrame(samples, geometry=points, crs="EPSG:32618")


def areas_of(zones, years=(2020, 2021, 2022), coca=400.0):
    time = pd.to_datetime([f"{year}-12-31" for year in years])
    shape = (len(years), len(zones), 2)
    return xr.Dataset(
        {
            "area_ha": (("time", "zone", "land_cover"), np.broadcast_to([coca, 4600.0 - coca], shape).copy()),
            "unobserved_ha": (("time", "zone"), np.full(shape[:2], 400.0)),
            "outside_ha": (("time", "zone"), np.zeros(shape[:2])),
            "zone_ha": ("zone", np.full(len(zones), 5000.0)),
        },
        coords={"time": time, "zone": list(zones), "land_cover": ["coca", "forest"]},
    )


class TestTables:
    def test_panel_is_told_from_samples_that_are_drawn_anew(self):
        assert is_panel(panel())
        assert not is_panel(panel(years=(2020,)))
        anew = panel()
        anew["point"] = np.arange(len(anew))
        assert not is_panel(anew)
        assert not is_panel(panel().assign(stratum_area_ha=lambda t: t["year"].astype(float)))

    def test_change_of_the_whole_and_of_zones(self):
        samples = geographic(panel())
        zones = gpd.GeoDataFrame(
            {"zone": ["park"]}, geometry=[box(599_000, 298_000, 601_000, 300_000)], crs="EPSG:32618"
        )
        found = run_estimates(Recipe(), samples, None, areas_of(["park"]), zones, None)
        assert set(found) == {"yearly_estimates", "change_estimates"}
        changes = found["change_estimates"]
        assert changes["zone"].value_counts().to_dict() == {"all": 3, "park": 3}
        assert (changes["se_ha"] <= changes["se_independent_ha"] * 1.2).all()
        yearly = found["yearly_estimates"].set_index(["zone", "year"])
        assert yearly.loc[("park", 2020), "area_ha"] < yearly.loc[("all", 2020), "area_ha"]

    def test_account_takes_rates_of_the_recipe_or_of_the_panel(self):
        ages = pd.DataFrame({
            "zone": "park", "year": [2020, 2021], "image_age_days": 60.0, "coca_ha": 100.0, "other_ha": 900.0, "unseen_ha": 10.0,
        })  # fmt: skip
        given = Recipe(account={"planting_per_year": 0.01, "clearing_per_year": 0.2})
        table = account_table(given, ages, None)
        one = table[(table["year"] == 2020) & (table["zone"] == "park")].set_index("line")["area_ha"]
        assert one[["observed", "age_correction", "unseen", "eradicated"]].to_numpy().sum() == one["total"]
        assert one["age_correction"] == pytest.approx((9 - 20) * 60 / 365.25, rel=0.03)
        assert (table["rates"] == "given").all()
        assert account_table(Recipe(), ages, None) is None
        estimated = account_table(Recipe(), ages, panel())
        assert estimated["clearing_per_year"].iloc[0] == pytest.approx(0.2, abs=0.08)

    def test_overlapping_zones_have_no_account_of_all_zones_together(self):
        given = Recipe.model_validate({"account": {"planting_per_year": 0.02, "clearing_per_year": 0.2}})
        ages = pd.DataFrame({
            "zone": ["a", "b"], "year": 2020, "image_age_days": 90.0, "coca_ha": [10.0, 12.0], "other_ha": 90.0,
        })  # fmt: skip
        apart, over = (
            gpd.GeoDataFrame(
                {"zone": ["a", "b"]}, geometry=[box(0, 0, 1000, 1000), box(x, 0, x + 1000, 1000)], crs="EPSG:32618"
            )
            for x in (2000, 500)
        )
        assert set(account_table(given, ages, None, apart)["zone"]) == {"a", "b", "all zones"}
        assert set(account_table(given, ages, None, over)["zone"]) == {"a", "b"}

    def test_composite_says_that_it_is_model_based_and_needs_zones_enough(self):
        rng = np.random.default_rng(0)
        names = [f"park {k}" for k in range(10)]
        direct = pd.DataFrame({
            "zone": names, "year": 2020, "area_ha": rng.uniform(200, 600, 10), "se_ha": rng.uniform(60, 200, 10),
            "n": rng.integers(5, 40, 10),
        })  # fmt: skip
        areas = areas_of(names, years=(2020,))
        areas["area_ha"][0, :, 0] = rng.uniform(200, 600, 10)
        found = composite_table(direct, areas, "coca")
        assert found["basis"].str.contains("model-based").all()
        assert len(found) == 10
        assert composite_table(direct.head(3), areas, "coca").empty


@pytest.fixture(scope="module")
def finished(small_archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    recipe = Recipe.read(small_archive / "recipe.toml")
    model = recipe.model.model_copy(
        update={"folds": 3, "block_m": 200.0, "buffer_m": 20.0, "options": {"n_estimators": 10}}
    )
    run_archive(small_archive, recipe.model_copy(update={"model": model}), out=out)
    return out


class TestRun:
    def test_a_run_leaves_every_estimate_as_table_and_in_the_report(self, finished):
        page = (finished / "report.html").read_text(encoding="utf-8")
        for name in ("skill", "yearly_estimates", "change_estimates", "cutoff_account"):
            table = pd.read_csv(finished / f"{name}.csv")
            assert len(table), name
            assert f'id="{name}-table"' in page
        skill = pd.read_csv(finished / "skill.csv")
        assert skill["competitor"].tolist() == ["model", "persistence", "historical_mean", "index_threshold"]
        assert skill["whole_verdict"].iloc[0] in page
        account = pd.read_csv(finished / "cutoff_account.csv")
        lines = account.pivot_table(index=["year", "zone"], columns="line", values="area_ha")
        parts = lines[["observed", "age_correction", "unseen", "eradicated"]].sum(axis=1)
        np.testing.assert_allclose(parts, lines["total"], rtol=1e-12)

    def test_the_report_is_the_same_when_written_again(self, finished, tmp_path):
        again = rewrite_report(finished, tmp_path / "again.html")
        assert again.read_bytes() == (finished / "report.html").read_bytes()

    def test_a_run_without_folds_takes_the_skill_table_away(self, finished, small_archive, tmp_path):
        # a copy, since the other tests look at the run with folds
        finished = shutil.copytree(finished, tmp_path / "out")
        assert (finished / "skill.csv").exists()
        recipe = Recipe.read(small_archive / "recipe.toml")
        model = recipe.model.model_copy(update={"options": {"n_estimators": 10}})
        run_archive(small_archive, recipe.model_copy(update={"model": model}), out=finished)
        assert not (finished / "skill.csv").exists()
        assert not (finished / "cross_validation_rows.csv").exists()
        assert set(ESTIMATE_TABLES) > {"skill"}


def test_names_in_estimate_tables_stay_text_and_model_based_is_said(tmp_path):
    areas = areas_dataset()
    hostile = '<img src=x onerror="alert(1)">'
    tables = {
        "composite_estimates": pd.DataFrame({"zone": [hostile], "year": [2020], "area_ha": [1.5], "basis": [BASIS]}),
        "skill": pd.DataFrame({"competitor": ["model"], "f1": [0.5], "whole_verdict": ["no skill over persistence"]}),
        "unknown": pd.DataFrame({"zone": ["elsewhere"]}),
    }
    page = write_report(areas, None, tmp_path / "r.html", estimates=tables).read_text(encoding="utf-8")
    assert hostile not in page
    assert "&lt;img src=x" in page
    assert page.index('id="skill-title"') < page.index('id="composite_estimates-title"')
    assert "no skill over persistence" in page
    assert BASIS in page
    assert "elsewhere" not in page
    assert "whole verdict" not in page


@pytest.mark.slow
def test_intervals_of_park_years_hold_the_truth_in_nine_of_ten_on_simulated_archives(record_property):
    from geococa.panel_estimates import panel_area
    from geococa.synthetic import draw_validation, landscape
    from geococa.synthetic.frame import area_ha

    rows = []
    for seed in range(100, 106):
        world = landscape(size_m=2200, tiles=2, years=range(2018, 2025), dates_per_year=1, cloud_cover=0.1, seed=seed)
        sample, truth = draw_validation(world, 600), world.truth_areas().query("`class` == 'coca'")
        for park, shape in zip(world.parks["park"], world.parks.geometry, strict=True):
            inside = sample.geometry.within(shape).to_numpy()
            hectares = area_ha(shape.intersection(world.footprint))
            found = panel_area(sample, within=inside, domain_area_ha=hectares).areas
            true = truth[truth["park"] == park].set_index("year")["inside_ha"]
            rows.append(found.assign(true=true.reindex(found.index)))
    table = pd.concat(rows)
    table = table[table["status"] != "not estimable"]
    held = (table["ci_low_ha"] <= table["true"]) & (table["true"] <= table["ci_high_ha"])
    record_property("coverage", float(held.mean()))
    print(f"{held.mean():.3f} of {len(held)} park-years")  # noqa: T201
    assert len(held) > 150
    assert held.mean() >= 0.9
