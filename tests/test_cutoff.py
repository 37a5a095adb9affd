"""31 December accounting: lines sum exactly, hazards bring images to the cut-off, intervals."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from geococa.cutoff import LINES, Hazards, age_table, cutoff_area, hazards_from_change
from geococa.errors import AccuracyError, InputRefused
from geococa.grid import Grid
from geococa.legend import Legend

RATES = Hazards(0.02, 0.25, 0.004, 0.05)


def ages(**changes):
    base = {
        "zone": "park",
        "image_age_days": 90.0,
        "coca_ha": 100.0,
        "other_ha": 900.0,
        "unseen_ha": 50.0,
        "coca_se_ha": 8.0,
    }
    return pd.DataFrame([base | changes])


def lines(result, zone="park"):
    return result[result["zone"] == zone].set_index("line")["area_ha"]


class TestAccount:
    @settings(max_examples=30, deadline=None)
    @given(
        coca=st.lists(st.floats(0, 1e4), min_size=1, max_size=6),
        days=st.floats(-180, 400),
        planting=st.floats(0, 0.5),
        clearing=st.floats(0, 1),
        gone=st.floats(0, 0.5),
    )
    def test_lines_sum_to_the_total_exactly(self, coca, days, planting, clearing, gone):
        rows = [
            {"zone": f"z{k}", "image_age_days": days, "coca_ha": c, "other_ha": 500.0, "unseen_ha": 7.0}
            for k, c in enumerate(coca)
        ]
        # an image of after the cut-off may show plots that were not there yet: nothing of them could be eradicated
        eradicated = {"z0": 0.2 * gone * coca[0] if days >= 0 else 0.0}
        result = cutoff_area(pd.DataFrame(rows), Hazards(planting, clearing), eradicated_ha=eradicated)
        for zone in result["zone"].unique():
            account = lines(result, zone)
            assert account[list(LINES)].to_numpy().sum() == account["total"]
        assert lines(result, "all zones")["total"] == pytest.approx(
            sum(lines(result, f"z{k}")["total"] for k in range(len(coca)))
        )

    def test_age_correction_agrees_with_the_matrix_exponential(self):
        result = lines(cutoff_area(ages(), RATES, unseen="none"))
        generator = np.array([[-0.25, 0.25], [0.02, -0.02]])
        moved = np.array([100.0, 900.0]) @ expm(generator * 90 / 365.25)
        assert result["observed"] == 100
        assert result["age_correction"] == pytest.approx(moved[0] - 100, rel=1e-12)

    def test_images_after_the_cutoff_are_taken_back(self):
        generator = np.array([[-0.25, 0.25], [0.02, -0.02]])
        later = np.array([100.0, 900.0]) @ expm(generator * 40 / 365.25)
        account = cutoff_area(ages(image_age_days=-40.0, coca_ha=later[0], other_ha=later[1]), RATES, unseen="none")
        assert lines(account)["total"] == pytest.approx(100.0)

    def test_without_hazards_only_the_unseen_are_added(self):
        result = lines(cutoff_area(ages(), Hazards(0, 0)))
        assert result["age_correction"] == 0
        assert result["unseen"] == pytest.approx(50 * 0.1)

    def test_unseen_assumptions(self):
        given_share = lines(cutoff_area(ages(), Hazards(0, 0), unseen="given", unseen_share={"park": 0.02}))
        assert given_share["unseen"] == pytest.approx(1.0)
        assert lines(cutoff_area(ages(), Hazards(0, 0), unseen="none"))["unseen"] == 0

    def test_eradicated_hectares_are_taken_off_except_the_replanted(self):
        result = lines(
            cutoff_area(ages(), Hazards(0, 0), unseen="none", eradicated_ha={"park": 30.0}, replanted_share=0.2)
        )
        assert result["eradicated"] == pytest.approx(-24)
        assert result["total"] == pytest.approx(76)

    def test_ages_of_one_zone_are_corrected_group_by_group(self):
        both = pd.concat([ages(), ages(image_age_days=10.0, coca_ha=20.0)])
        one, other = (
            lines(cutoff_area(part, RATES, unseen="none"))["age_correction"]
            for part in (ages(), ages(image_age_days=10.0, coca_ha=20.0))
        )
        assert lines(cutoff_area(both, RATES, unseen="none"))["age_correction"] == pytest.approx(one + other)


class TestIntervals:
    def test_standard_errors_agree_with_simulated_inputs(self):
        rng = np.random.default_rng(0)
        totals = []
        for _ in range(250):
            rates = Hazards(*np.maximum(rng.normal([0.02, 0.25], [0.004, 0.05]), 0))
            coca = rng.normal(100, 8)
            totals.append(lines(cutoff_area(ages(coca_ha=coca, other_ha=1000 - coca, coca_se_ha=0.0), rates))["total"])
        result = cutoff_area(ages(), RATES)
        se = result[(result["zone"] == "park") & (result["line"] == "total")]["se_ha"].iloc[0]
        assert se == pytest.approx(np.std(totals), rel=0.15)

    def test_errors_of_shared_rates_add_up_and_own_errors_do_not(self):
        two = pd.concat([ages(), ages(zone="other")])
        shared = cutoff_area(two.assign(coca_se_ha=0.0), RATES, unseen="none")
        own = cutoff_area(two, Hazards(0, 0), unseen="none")

        def se(result, zone):
            return result[(result["zone"] == zone) & (result["line"] == "total")]["se_ha"].iloc[0]

        assert se(shared, "all zones") == pytest.approx(2 * se(shared, "park"))
        assert se(own, "all zones") == pytest.approx(2**0.5 * se(own, "park"))


class TestHazards:
    @settings(max_examples=50, deadline=None)
    @given(planting=st.floats(1e-4, 0.3), clearing=st.floats(1e-3, 1.0), years=st.floats(0.3, 2))
    def test_rates_are_recovered_from_their_own_change(self, planting, clearing, years):
        moves = expm(np.array([[-clearing, clearing], [planting, -planting]]) * years)
        found = hazards_from_change(coca_ha=1.0, other_ha=1.0, new_ha=moves[1, 0], cleared_ha=moves[0, 1], years=years)
        assert found.planting_per_year == pytest.approx(planting, rel=1e-7)
        assert found.clearing_per_year == pytest.approx(clearing, rel=1e-7)

    def test_bias_is_below_two_percent_on_simulated_plots_seen_up_to_six_months_early(self):
        rng = np.random.default_rng(7)
        n, planting, clearing = 400_000, 0.005, 0.3
        age = rng.uniform(0, 0.5, n)
        seen = rng.random(n) < 0.08
        speed, level = planting + clearing, planting / (planting + clearing)
        chance = level + (seen - level) * np.exp(-speed * age)
        truth = (rng.random(n) < chance).sum() * 0.01
        year_later = rng.random(n) < level + (seen - level) * np.exp(-speed)
        rates = hazards_from_change(
            coca_ha=seen.sum(),
            other_ha=(~seen).sum(),
            new_ha=(year_later & ~seen).sum(),
            cleared_ha=(seen & ~year_later).sum(),
        )
        table = pd.DataFrame({"zone": "park", "bin": np.floor(age * 24), "age": age, "coca": seen})
        groups = (
            table.groupby("bin")
            .agg(image_age_days=("age", "mean"), coca_ha=("coca", "sum"), n=("coca", "size"))
            .reset_index()
        )
        groups = groups.assign(
            zone="park", image_age_days=groups["image_age_days"] * 365.25, coca_ha=groups["coca_ha"] * 0.01
        )
        total = lines(cutoff_area(groups.assign(other_ha=groups["n"] * 0.01 - groups["coca_ha"]), rates))["total"]
        assert abs(total / truth - 1) < 0.02
        assert abs(seen.sum() * 0.01 / truth - 1) > 0.04

    @pytest.mark.parametrize(
        "change", [{"new_ha": 20.0}, {"cleared_ha": -1.0}, {"years": 0.0}, {"new_ha": 9.9, "cleared_ha": 9.9}]
    )
    def test_impossible_changes_are_refused(self, change):
        with pytest.raises(AccuracyError):
            hazards_from_change(**{"coca_ha": 10.0, "other_ha": 10.0, "new_ha": 1.0, "cleared_ha": 1.0} | change)


class TestGuards:
    @pytest.mark.parametrize(
        ("table", "options", "words"),
        [
            (ages().drop(columns="other_ha"), {}, "lacks other_ha"),
            (ages(coca_ha=-5.0), {}, "coca_ha must be"),
            (ages(image_age_days=np.nan), {}, "unseen_ha"),
            (ages(), {"eradicated_ha": {"park": 500.0}}, "more than"),
            (ages(), {"eradicated_ha": {"elsewhere": 5.0}}, "no zone called elsewhere"),
            (ages(), {"unseen": "given"}, "unseen_share lacks park"),
            (ages(), {"unseen": "guess"}, "unseen must be"),
            (ages(), {"replanted_share": 1.5}, "between 0 and 1"),
        ],
    )
    def test_unusable_input_is_refused(self, table, options, words):
        with pytest.raises(InputRefused, match=words):
            cutoff_area(table, RATES, **options)

    def test_negative_rates_are_refused(self):
        with pytest.raises(InputRefused, match="clearing_per_year"):
            Hazards(0.1, -0.1)


class TestAgeTable:
    def test_hectares_of_zone_are_all_accounted_for(self):
        from geococa.coverage import coverage_fraction

        grid = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), (40, 40))
        rng = np.random.default_rng(0)
        labels = rng.choice([1, 2, 255], p=[0.2, 0.6, 0.2], size=(40, 40)).astype(np.uint8)
        land_cover = grid.attach(
            xr.DataArray(
                labels, dims=("y", "x"), attrs={"kind": "land_cover", **Legend.of(["coca", "forest"]).to_attrs()}
            )
        )
        age = grid.attach(xr.DataArray(rng.uniform(-30, 180, (40, 40)).astype(np.float32), dims=("y", "x")))
        zones = geopandas.GeoDataFrame(
            {"zone": ["in", "half"]}, geometry=[shapely.Point(500_200, 899_800).buffer(120), shapely.box(500_300, 899_700, 500_600, 899_900)],
            crs="EPSG:32618",
        )  # fmt: skip
        share = coverage_fraction(zones, grid)
        table = age_table(land_cover, age, share)
        sums = table.groupby("zone")[["coca_ha", "other_ha", "unseen_ha"]].sum().sum(axis=1)
        np.testing.assert_allclose(sums[["in", "half"]], share.zone_ha, rtol=1e-9)
        assert table["image_age_days"].between(-30, 180).all()
        assert (table.groupby("zone")["unseen_ha"].sum() > 0).all()
        assert cutoff_area(table, RATES)["zone"].nunique() == 3
