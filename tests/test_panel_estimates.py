"""Years from the same points: every sample of a tiny population, change with its covariance, budget, coverage, guards."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from geococa.accuracy import adjusted_area, domain_area, error_matrix
from geococa.cutoff import Hazards
from geococa.errors import AccuracyError, InputRefused, NoPositives
from geococa.hazards import expected_presence, hazards_from_change, hazards_from_panel
from geococa.panel_estimates import change_area, panel_area

FREE = {"min_samples": 2}


def panel(n=300, seed=0, years=(2020, 2021, 2022), missing=0.0, share=(0.5, 0.06), rates=(0.02, 0.2)):
    """Points in two strata that change by rates; a share of the looks is missing."""
    rng = np.random.default_rng(seed)
    stratum = np.where(rng.random(n) < 0.4, "near", "far")
    state = rng.random(n) < np.where(stratum == "near", *share)
    park = rng.random(n) < 0.5
    rows = []
    for year in years:
        change = rng.random(n)
        state = np.where(state, change > rates[1], change < rates[0])
        label = np.where(state, "coca", "forest").astype(object)
        label[rng.random(n) < missing] = None
        rows.append(
            pd.DataFrame({"point": np.arange(n), "year": year, "stratum": stratum, "class": label, "park": park})
        )
    out = pd.concat(rows, ignore_index=True)
    out["stratum_area_ha"] = out["stratum"].map({"near": 1000.0, "far": 9000.0})
    return out


class TestAllSamples:
    def test_years_and_covariance_are_unbiased_over_every_sample_of_a_tiny_population(self):
        truth = {"a": [(1, 0), (1, 1), (0, 0), (0, 1)], "b": [(0, 0), (0, 1), (1, 1)]}
        area = {"a": 40.0, "b": 60.0}
        areas, covariances, changes = [], [], []
        for one, two in product(product(range(4), repeat=2), product(range(3), repeat=2)):
            drawn = [("a", k) for k in one] + [("b", k) for k in two]
            rows = [
                (p, 2020 + t, s, "coca" if truth[s][k][t] else "forest")
                for p, (s, k) in enumerate(drawn)
                for t in (0, 1)
            ]
            samples = pd.DataFrame(rows, columns=["point", "year", "stratum", "class"])
            if not (samples["class"] == "coca").any():
                areas.append([0.0, 0.0])
                covariances.append(np.zeros((2, 2)))
                changes.append([0.0, 0.0, 0.0, 0.0, 0.0])
                continue
            found = panel_area(samples, stratum_area_ha=area, **FREE)
            areas.append(found.areas["area_ha"].to_numpy())
            covariances.append(found.covariance)
            row = found.changes.iloc[0]
            changes.append(row[["change_ha", "gain_ha", "loss_ha", "se_ha", "gain_se_ha"]].to_numpy(dtype=float))
        areas, changes = np.array(areas), np.array(changes)
        whole = [sum(area[s] * np.mean([unit[t] for unit in units]) for s, units in truth.items()) for t in (0, 1)]
        np.testing.assert_allclose(areas.mean(axis=0), whole)
        np.testing.assert_allclose(np.mean(covariances, axis=0), np.cov(areas.T, bias=True))
        np.testing.assert_allclose(changes[:, 0].mean(), whole[1] - whole[0])
        np.testing.assert_allclose((changes[:, 3] ** 2).mean(), changes[:, 0].var())
        np.testing.assert_allclose((changes[:, 4] ** 2).mean(), changes[:, 1].var())
        np.testing.assert_allclose(changes[:, 0], changes[:, 1] - changes[:, 2], atol=1e-12)


class TestAgainstSingleYears:
    def test_each_year_is_the_stratified_estimate(self):
        samples = panel()
        found = panel_area(samples)
        for year, part in samples.groupby("year"):
            matrix = error_matrix(part["class"], part["class"], strata=part["stratum"])
            area = {"near": 1000.0, "far": 9000.0}
            single = adjusted_area(matrix, mapped_area_ha=area, interval="wilson").loc["coca"]
            row = found.areas.loc[year]
            for column in ("area_ha", "se_ha", "ci_low_ha", "ci_high_ha"):
                assert row[column] == pytest.approx(single[column])

    def test_each_year_of_a_zone_is_the_domain_estimate(self):
        samples = panel()
        inside = samples["park"].to_numpy()
        found = panel_area(samples, within=inside, domain_area_ha=4900.0)
        part = samples[samples["year"] == 2021]
        matrix = error_matrix(
            part["class"], part["class"], strata=part["stratum"], domain=np.where(part["park"], "park", "")
        )
        single = domain_area(
            matrix, mapped_area_ha={"near": 1000.0, "far": 9000.0}, domain_area_ha={"park": 4900.0}
        ).loc["park"]
        for column in ("area_ha", "se_ha", "ci_low_ha", "ci_high_ha"):
            assert found.areas.loc[2021, column] == pytest.approx(single[column])

    def test_common_points_make_change_more_precise(self):
        row = change_area(panel(), 2020, 2021)
        assert row["correlation"] > 0.5
        assert row["se_ha"] < 0.75 * row["se_independent_ha"]
        assert row["ci_low_ha"] < row["change_ha"] < row["ci_high_ha"]
        assert row["change_ha"] == pytest.approx(row["gain_ha"] - row["loss_ha"])

    def test_no_change_in_the_sample_is_no_proof_of_no_change(self):
        first = panel(years=(2020,))
        row = change_area(pd.concat([first, first.assign(year=2021)]), 2020, 2021)
        assert row["change_ha"] == row["se_ha"] == row["n_changed"] == 0
        assert row["ci_low_ha"] == -row["loss_ci_high_ha"] < 0 < row["ci_high_ha"] == row["gain_ci_high_ha"]

    def test_points_that_two_years_do_not_share_count_as_independent(self):
        samples = panel(missing=0.3, seed=3)
        full = panel_area(panel(seed=3)).changes.iloc[0]
        part = panel_area(samples).changes.iloc[0]
        assert part["correlation"] < full["correlation"]
        assert part["n_common"] < full["n_common"] == 300

    def test_slope_carries_the_covariance(self):
        found = panel_area(panel(years=tuple(range(2018, 2024))))
        line = found.slope()
        years = found.areas.index.to_numpy(dtype=float)
        assert line["slope_ha_per_year"] == pytest.approx(np.polyfit(years, found.areas["area_ha"], 1)[0])
        rng = np.random.default_rng(0)
        draws = rng.multivariate_normal(found.areas["area_ha"], found.covariance, 4000)
        spread = np.polyfit(years, draws.T, 1)[0].std()
        assert line["se_ha_per_year"] == pytest.approx(spread, rel=0.05)


class TestBudget:
    def test_gaps_widen_and_are_bounded_by_none_and_all(self):
        whole, part = panel_area(panel(seed=5)), panel_area(panel(seed=5, missing=0.25))
        row = part.areas.loc[2021]
        assert row["none_ha"] < row["area_ha"] < row["all_ha"]
        assert row["se_gap_ha"] > 0
        assert whole.areas.loc[2021, "se_gap_ha"] == 0
        assert whole.areas.loc[2021, "none_ha"] == pytest.approx(whole.areas.loc[2021, "area_ha"])
        assert row["se_ha"] == pytest.approx(np.sqrt(row["se_sampling_ha"] ** 2 + row["se_gap_ha"] ** 2))
        doubtful = panel_area(panel(seed=5, missing=0.25), unseen_relative_se=0.5).areas.loc[2021]
        assert doubtful["se_ha"] > row["se_ha"]
        assert doubtful["area_ha"] == row["area_ha"]

    def test_labels_are_carried_to_the_cutoff(self):
        samples = panel(seed=6)
        samples["image_age_days"] = 120.0
        rates = Hazards(0.02, 0.2, 0.004, 0.04)
        found, plain = panel_area(samples, hazards=rates), panel_area(samples)
        share = plain.areas["area_ha"] / 10_000
        moved = expected_presence(share.to_numpy(), np.full(3, 120 / 365.25), rates)
        np.testing.assert_allclose(found.areas["area_ha"], 10_000 * moved)
        assert (found.areas["se_date_ha"] > 0).all()
        # the same rates serve both years, so that their error nearly cancels in the change
        off = found.covariance - panel_area(samples, hazards=Hazards(0.02, 0.2)).covariance
        correlation = off[0, 1] / np.sqrt(off[0, 0] * off[1, 1])
        assert correlation > 0.99
        chance = panel_area(samples, hazards=rates, plot_ha=1.0)
        assert (chance.areas["se_date_ha"] > found.areas["se_date_ha"]).all()

    def test_labels_without_a_date_are_refused(self):
        samples = panel()
        samples["image_age_days"] = np.nan
        with pytest.raises(InputRefused, match="image_age_days"):
            panel_area(samples, hazards=Hazards(0.1, 0.1))


class TestHazards:
    def test_equal_gaps_give_the_closed_form(self):
        samples = panel(2000, seed=1, years=(2020, 2021)).drop(columns="stratum_area_ha")
        wide = samples.pivot(index="point", columns="year", values="class") == "coca"
        rates = hazards_from_panel(samples)
        exact = hazards_from_change(
            coca_ha=wide[2020].sum(), other_ha=(~wide[2020]).sum(), new_ha=(~wide[2020] & wide[2021]).sum(),
            cleared_ha=(wide[2020] & ~wide[2021]).sum(), n_coca=int(wide[2020].sum()), n_other=int((~wide[2020]).sum()),
        )  # fmt: skip
        assert rates.planting_per_year == pytest.approx(exact.planting_per_year, rel=1e-4)
        assert rates.clearing_per_year == pytest.approx(exact.clearing_per_year, rel=1e-4)
        # the closed form leaves out what each rate does to the other
        assert rates.clearing_se == pytest.approx(exact.clearing_se, rel=0.15)

    def test_unequal_gaps_are_recovered_with_the_error_that_is_said(self):
        planting, clearing = 0.03, 0.25
        found = []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            n = 500
            state = (rng.random(n) < 0.2).astype(float)
            rows, last = [], np.zeros(n)
            for k in range(4):
                age = rng.uniform(0, 180, n)
                time = k - age / 365.25
                if k:
                    state = (rng.random(n) < expected_presence(state, time - last, Hazards(planting, clearing))).astype(
                        float
                    )
                label = np.where(state == 1, "coca", "forest")
                rows.append(pd.DataFrame({"id": np.arange(n), "year": 2020 + k, "class": label, "age": age}))
                last = time
            found.append(hazards_from_panel(pd.concat(rows), age_column="age"))
        plant = np.array([one.planting_per_year for one in found])
        clear = np.array([one.clearing_per_year for one in found])
        assert plant.mean() == pytest.approx(planting, rel=0.08)
        assert clear.mean() == pytest.approx(clearing, rel=0.08)
        assert np.mean([one.planting_se for one in found]) == pytest.approx(plant.std(), rel=0.45)
        assert np.mean([one.clearing_se for one in found]) == pytest.approx(clear.std(), rel=0.45)

    def test_points_seen_once_tell_nothing(self):
        with pytest.raises(AccuracyError, match="two years"):
            hazards_from_panel(panel(years=(2020,)))


class TestGuards:
    def test_too_few_points_give_no_number(self):
        samples = panel(25)
        found = panel_area(samples)
        assert (found.areas["status"] == "not estimable").all()
        assert found.changes["change_ha"].isna().all()
        assert np.isnan(found.slope()["slope_ha_per_year"])

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            (lambda t: t.drop(columns="stratum"), InputRefused, "stratum"),
            (lambda t: pd.concat([t, t.head(1)]), InputRefused, "two rows"),
            (
                lambda t: t.assign(stratum=np.where(t["year"] == 2021, "far", t["stratum"])),
                InputRefused,
                "changes its stratum",
            ),
            (lambda t: t.assign(stratum_area_ha=t["year"].astype(float)), InputRefused, "more than one area"),
            (lambda t: t.assign(**{"class": "forest"}), NoPositives, "coca"),
        ],
    )
    def test_what_is_no_panel_is_refused(self, change, error, words):
        with pytest.raises(error, match=words):
            panel_area(change(panel()))

    def test_unknown_year_is_refused(self):
        with pytest.raises(InputRefused, match="1999"):
            change_area(panel(), 1999, 2020)

    def test_stratum_without_points_is_refused(self):
        with pytest.raises(AccuracyError, match="water"):
            panel_area(panel(), stratum_area_ha={"near": 1.0, "far": 2.0, "water": 3.0})
