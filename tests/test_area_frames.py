"""Area frames: published two-stage cases, every sample of tiny populations, models of others, coverage, guards."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.area_frames import draw_segments, frame_area, segment_frame
from geococa.errors import AccuracyError, InputRefused
from geococa.grid import Grid
from geococa.legend import as_land_cover
from geococa.survey_variance import SampledUnits, bootstrap_weights, total_covariance

FREE = {"min_clusters": 2}


def mean_and_se(units, value, elements, **design):
    """A mean as the ratio of the total to the number of elements, as the R package survey gives it."""
    ones = units.assign(one=1.0)
    row = frame_area(
        ones, value=value, estimator="ratio", auxiliary="one", auxiliary_total=elements, **design, **FREE
    ).loc["all"]
    return row["area_ha"] / elements, row["se_ha"] / elements


class TestPublishedCases:
    def test_two_stages_of_swedish_municipalities(self):
        # Särndal, Swensson and Wretman (1992), section 4.3; total and variance as printed by the R package survey 3.16
        # (tests/multistage.Rout.save): 15080, 5172234
        rows = {
            19: (5, [41, 49, 49]),
            45: (8, [49, 49, 45]),
            47: (5, [31, 31, 35]),
            50: (9, [39, 41, 61]),
            31: (7, [49, 51, 33]),
        }
        units = pd.DataFrame([(c, n, y) for c, (n, values) in rows.items() for y in values], columns=["id", "n2", "y1"])
        row = frame_area(units, population=50, value="y1", cluster="id", elements_in_cluster="n2", **FREE).loc["all"]
        assert row["area_ha"] == pytest.approx(15080)
        assert row["se_ha"] ** 2 == pytest.approx(5172234, abs=0.5)

    def test_two_stages_with_unequal_clusters(self):
        # an exchange on the list R-help of 7 July 2006 prints 78999 (13643) and, for the mean, 45.796 (5.5483)
        rows = {1: (100, [23, 33, 77, 25]), 2: (50, [35, 74, 27]), 3: (75, [37, 72])}
        units = pd.DataFrame([(c, n, y) for c, (n, values) in rows.items() for y in values], columns=["c", "n2", "y"])
        design = {"population": 23, "cluster": "c", "elements_in_cluster": "n2"}
        row = frame_area(units, value="y", **design, **FREE).loc["all"]
        assert (round(row["area_ha"]), round(row["se_ha"])) == (78999, 13643)
        mean, se = mean_and_se(units, "y", 1725.0, **design)
        assert (round(mean, 3), round(se, 4)) == (45.796, 5.5483)

    def test_strata_with_and_without_finite_population(self):
        # the data set fpc of the R package survey (and of Stata's manual): 5.4481, SE 0.616 with, 0.7413 without
        units = pd.DataFrame({"stratum": ["1"] * 5 + ["2"] * 3, "x": [2.8, 4.1, 6.8, 6.8, 9.2, 3.7, 6.6, 4.2]})
        mean, se = mean_and_se(units, "x", 27.0, population={"1": 15, "2": 12})
        assert (round(mean, 4), round(se, 3)) == (5.4481, 0.616)
        units["chance"] = np.where(units["stratum"] == "1", 5 / 15, 3 / 12)
        mean, se = mean_and_se(units, "x", 27.0, inclusion_probability="chance")
        assert (round(mean, 4), round(se, 4)) == (5.4481, 0.7413)


class TestAllSamples:
    """Mean of estimates and of variances over every possible sample of a population that is small enough to draw them all."""

    def test_strata_of_segments(self):
        rng = np.random.default_rng(3)
        y, x = rng.gamma(1.0, 2.0, 11).round(2), rng.gamma(1.0, 2.0, 11)
        strata = np.array(["a"] * 6 + ["b"] * 5)
        found = {"expansion": [], "difference": []}
        for one, two in product(combinations(range(6), 3), combinations(range(6, 11), 2)):
            drawn = [*one, *two]
            units = pd.DataFrame({"stratum": strata[drawn], "coca_ha": y[drawn], "mapped_ha": x[drawn]})
            for name, rows in found.items():
                row = frame_area(
                    units, population={"a": 6, "b": 5}, estimator=name, auxiliary="mapped_ha",
                    auxiliary_total=x.sum(), **FREE,
                ).loc["all"]  # fmt: skip
                rows.append((row["area_ha"], row["se_ha"] ** 2))
        for rows in found.values():
            estimate, variance = np.array(rows).T
            assert estimate.mean() == pytest.approx(y.sum())
            assert variance.mean() == pytest.approx(estimate.var())

    def test_clusters_observed_whole(self):
        values = [[1.0, 0.0], [0.0], [3.0, 2.0, 2.0], [5.0], [0.0, 0.5]]
        rows = []
        for drawn in combinations(range(5), 3):
            units = pd.DataFrame([(c, y) for c in drawn for y in values[c]], columns=["c", "coca_ha"])
            row = frame_area(units, population=5, cluster="c", **FREE).loc["all"]
            rows.append((row["area_ha"], row["se_ha"] ** 2))
        estimate, variance = np.array(rows).T
        assert estimate.mean() == pytest.approx(sum(map(sum, values)))
        assert variance.mean() == pytest.approx(estimate.var())

    def test_two_stages(self):
        values = [[1.0, 0.0, 4.0], [0.0, 2.0, 2.5, 1.0], [3.0, 2.0, 2.0], [5.0, 9.0, 0.0]]
        rows, chances = [], []
        for drawn in combinations(range(4), 2):
            parts = [list(combinations(range(len(values[c])), 2)) for c in drawn]
            for chosen in product(*parts):
                units = pd.DataFrame(
                    [(c, len(values[c]), values[c][k]) for c, part in zip(drawn, chosen, strict=True) for k in part],
                    columns=["c", "m", "coca_ha"],
                )
                row = frame_area(units, population=4, cluster="c", elements_in_cluster="m", **FREE).loc["all"]
                rows.append((row["area_ha"], row["se_ha"] ** 2))
                chances.append(1 / 6 / np.prod([len(part) for part in parts]))
        estimate, variance = np.array(rows).T
        mean = np.average(estimate, weights=chances)
        assert mean == pytest.approx(sum(map(sum, values)))
        assert np.average(variance, weights=chances) == pytest.approx(
            np.average((estimate - mean) ** 2, weights=chances)
        )

    def test_zone_without_its_own_sample_size(self):
        rng = np.random.default_rng(5)
        y, zone = rng.gamma(1.0, 2.0, 9), np.array(["park"] * 5 + ["rest"] * 4)
        rows = []
        for drawn in combinations(range(9), 4):
            units = pd.DataFrame({"coca_ha": y[list(drawn)], "zone": zone[list(drawn)]})
            values = np.where(units["zone"] == "park", units["coca_ha"], 0.0)[:, None]
            design = SampledUnits(np.full(4, 9 / 4), np.zeros(4, int), np.arange(4), np.array([9.0]))
            rows.append((9 / 4 * values.sum(), total_covariance(values, design)[0, 0]))
        estimate, variance = np.array(rows).T
        assert estimate.mean() == pytest.approx(y[:5].sum())
        assert variance.mean() == pytest.approx(estimate.var())


def segments(n=400, seed=0, noise=0.4, bias=1.6):
    """A frame of segments whose mapped hectares go with the true ones, but count too much."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < 0.5, rng.gamma(1.2, 2.0, n), 0.0)
    mapped = bias * truth * rng.lognormal(0, noise, n) + rng.gamma(0.5, 0.3, n)
    return pd.DataFrame({
        "coca_ha": truth, "mapped_ha": mapped, "area_ha": rng.uniform(80, 120, n), "zone": rng.choice(["a", "b"], n),
        "stratum": np.where(mapped > np.median(mapped), "high", "low"),
    })  # fmt: skip


class TestAssisted:
    def test_regression_agrees_with_its_formula_and_reproduces_the_auxiliary(self):
        frame = segments()
        units = frame.sample(60, random_state=1)
        options = {"population": {"high": 200, "low": 200}, "estimator": "regression", "auxiliary": "mapped_ha"}
        total = frame["mapped_ha"].sum()
        row = frame_area(units, auxiliary_total=total, **options).loc["all"]
        size = units["stratum"].map(units["stratum"].value_counts())
        weight = (200 / size).to_numpy()
        x = np.column_stack([np.ones(60), units["mapped_ha"]])
        beta = np.linalg.solve(x.T @ (weight[:, None] * x), x.T @ (weight * units["coca_ha"]))
        rest = units["coca_ha"] - x @ beta
        assert row["area_ha"] == pytest.approx(beta @ [400, total] + weight @ rest)
        # the weights of calibration give back what is known of the auxiliary, without error
        same = frame_area(units.assign(coca_ha=units["mapped_ha"]), auxiliary_total=total, **options).loc["all"]
        assert same["area_ha"] == pytest.approx(total)
        assert same["se_ha"] == pytest.approx(0, abs=1e-9 * total)

    def test_regression_slope_and_clustered_variance_agree_with_statsmodels(self):
        sm = pytest.importorskip("statsmodels.api")
        rng = np.random.default_rng(2)
        cluster = np.repeat(np.arange(30), rng.integers(1, 6, 30))
        x = rng.gamma(1.0, 1.0, len(cluster))
        y = 0.7 * x + rng.normal(0, 0.2, 30)[cluster] + rng.normal(0, 0.2, len(cluster))
        units = pd.DataFrame({"coca_ha": y, "mapped_ha": x, "c": cluster, "one": 1.0})
        found = frame_area(
            units, population=10**9, cluster="c", estimator="regression", auxiliary=["one", "mapped_ha"],
            auxiliary_total={"one": 5e9, "mapped_ha": 5e9},
        )  # fmt: skip
        line = sm.OLS(y, np.column_stack([np.ones_like(x), x])).fit()
        np.testing.assert_allclose(found.attrs["coefficients"]["all"], line.params)
        mean = sm.OLS(y, np.ones_like(y)).fit(cov_type="cluster", cov_kwds={"groups": cluster})
        row = frame_area(
            units, population=10**9, cluster="c", estimator="ratio", auxiliary="one", auxiliary_total=1.0
        ).loc["all"]
        assert row["area_ha"] == pytest.approx(mean.params[0])
        assert row["se_ha"] == pytest.approx(mean.bse[0], rel=1e-6)

    def test_pixel_counting_is_corrected_by_the_difference(self):
        frame = segments(2000, seed=4)
        units = frame.sample(200, random_state=3)
        row = frame_area(
            units, population=dict(frame["stratum"].value_counts()), estimator="difference", auxiliary="mapped_ha",
            auxiliary_total=frame["mapped_ha"].sum(),
        ).loc["all"]  # fmt: skip
        truth, counted = frame["coca_ha"].sum(), frame["mapped_ha"].sum()
        assert counted > 1.4 * truth
        assert row["ci_low_ha"] < truth < row["ci_high_ha"] < counted

    def test_zone_totals_of_the_auxiliary_make_a_zone_more_precise(self):
        frame = segments(2000, seed=6, noise=0.15, bias=1.0)
        units = frame.sample(300, random_state=5)
        sizes = dict(frame["stratum"].value_counts())
        plain = frame_area(units, population=sizes, domain="zone")
        by_map = frame_area(
            units, population=sizes, domain="zone", estimator="difference", auxiliary="mapped_ha",
            auxiliary_total={"mapped_ha": dict(frame.groupby("zone")["mapped_ha"].sum())},
        )  # fmt: skip
        assert (by_map["se_ha"] < 0.7 * plain["se_ha"]).all()
        whole = frame_area(units, population=sizes).loc["all"]
        assert plain["area_ha"].sum() == pytest.approx(whole["area_ha"])

    def test_bootstrap_agrees_with_linearisation(self):
        frame = segments(5000, seed=7)
        units = frame.sample(150, random_state=2)
        sizes = {"high": 10**6, "low": 10**6}
        for name in ("expansion", "ratio", "regression"):
            options = {"population": sizes, "estimator": name, "auxiliary": "mapped_ha", "auxiliary_total": 5e6}
            line = frame_area(units, **options).loc["all", "se_ha"]
            boot = frame_area(units, variance="bootstrap", replicates=2000, **options).loc["all", "se_ha"]
            assert boot == pytest.approx(line, rel=0.12)

    def test_bootstrap_variance_of_a_total_is_the_analytic_one(self):
        rng = np.random.default_rng(0)
        design = SampledUnits(
            np.full(20, 5.0), np.repeat([0, 1], 10), np.repeat(np.arange(8), [2, 3, 2, 3, 2, 3, 2, 3])
        )
        values = rng.gamma(1.0, 1.0, (20, 1))
        draws = bootstrap_weights(design, 40_000, 1) @ values
        assert draws.var() == pytest.approx(total_covariance(values, design)[0, 0], rel=0.03)


def mapped(shape=(120, 90), seed=0):
    rng = np.random.default_rng(seed)
    share = np.clip(np.repeat(np.repeat(rng.beta(0.5, 4, (12, 9)), 10, 0), 10, 1) + rng.normal(0, 0.03, shape), 0, 1)
    codes = np.where(rng.random(shape) < share, 1, 2).astype(np.uint8)
    codes[:15, :15] = 255
    grid = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), shape)
    land_cover = as_land_cover(grid.attach(xr.DataArray(codes, dims=("y", "x"))), {1: "coca", 2: "forest"})
    return land_cover, grid.attach(xr.DataArray(share, dims=("y", "x"))), grid


class TestFrames:
    def test_segments_hold_all_the_ground_once(self):
        land_cover, share, grid = mapped()
        frame = segment_frame(land_cover, 100.0, share=share)
        cells = np.broadcast_to(grid.cell_area_ha(), grid.shape)
        seen = land_cover.values != 255
        assert frame["area_ha"].sum() == pytest.approx(cells[seen].sum())
        assert frame["mapped_ha"].sum() == pytest.approx(cells[land_cover.values == 1].sum())
        assert frame["share_ha"].sum() == pytest.approx((cells * share.values)[seen].sum())
        assert frame.geometry.area.iloc[-1] == pytest.approx(10_000)
        assert len(frame) == 107  # one of 108 saw nothing
        one = frame[frame["segment"] == 9 * 6 + 4].iloc[0]
        assert one["mapped_ha"] == pytest.approx(cells[60:70, 40:50][land_cover.values[60:70, 40:50] == 1].sum())

    def test_drawn_segments_give_the_truth_back(self):
        land_cover, share, _ = mapped(seed=1)
        frame = segment_frame(land_cover, 50.0, share=share)
        truth, held, widths = frame["share_ha"].sum(), 0, []
        for seed in range(40):
            drawn = draw_segments(frame, 60, seed=seed)
            assert drawn["coca_ha"].isna().all()
            drawn["coca_ha"] = drawn["share_ha"]
            row = frame_area(
                drawn, population=drawn.groupby("stratum")["stratum_segments"].first(), estimator="difference",
                auxiliary="mapped_ha", auxiliary_total=frame["mapped_ha"].sum(),
            ).loc["all"]  # fmt: skip
            held += row["ci_low_ha"] <= truth <= row["ci_high_ha"]
            widths.append(row["se_ha"] / truth)
        assert held >= 35
        assert np.mean(widths) < 0.1

    def test_same_seed_same_segments_and_every_stratum_has_two(self):
        frame = segment_frame(mapped()[0], 100.0)
        one, two = (draw_segments(frame, 30, seed=4) for _ in range(2))
        assert one["segment"].tolist() == two["segment"].tolist()
        assert one["stratum"].value_counts().min() >= 2
        assert draw_segments(frame, 30, by=None)["stratum"].nunique() == 1
        with pytest.raises(AccuracyError, match="can't be drawn"):
            draw_segments(frame, 10_000)

    def test_series_and_impossible_shares_are_refused(self):
        land_cover, share, _ = mapped()
        with pytest.raises(InputRefused, match="select a year"):
            segment_frame(land_cover.expand_dims(time=[np.datetime64("2020-12-31", "ns")]))
        with pytest.raises(InputRefused, match="between 0 and 1"):
            segment_frame(land_cover, share=share * 3)


class TestCoverage:
    @pytest.mark.parametrize("estimator", ["expansion", "ratio", "regression", "difference"])
    def test_intervals_cover_about_as_often_as_they_say(self, estimator):
        frame = segments(1200, seed=8)
        rng = np.random.default_rng(1)
        truth, held, errors = frame["coca_ha"].sum(), 0, []
        sizes = dict(frame["stratum"].value_counts())
        groups = [np.flatnonzero(frame["stratum"] == name) for name in sizes]
        for _ in range(120):
            drawn = np.concatenate([rng.choice(group, 40, replace=False) for group in groups])
            row = frame_area(
                frame.iloc[drawn], population=sizes, estimator=estimator, auxiliary="mapped_ha",
                auxiliary_total=frame["mapped_ha"].sum(),
            ).loc["all"]  # fmt: skip
            held += row["ci_low_ha"] <= truth <= row["ci_high_ha"]
            errors.append(row["area_ha"] - truth)
        assert 0.89 <= held / 120 <= 0.99
        assert abs(np.mean(errors)) < 0.3 * np.std(errors)


class TestGuards:
    def test_below_the_least_number_of_clusters_there_is_no_number(self):
        units = segments().head(9)
        row = frame_area(units, population={"high": 200, "low": 200}).loc["all"]
        assert row["status"] == "not estimable"
        assert row[["area_ha", "se_ha", "ci_low_ha", "ci_high_ha"]].isna().all()
        assert frame_area(units, population={"high": 200, "low": 200}, **FREE).loc["all", "status"] != "not estimable"

    def test_an_interval_without_a_width_says_so_unless_the_whole_frame_was_observed(self):
        none = pd.DataFrame({"coca_ha": np.zeros(40)})
        row = frame_area(none, population=400).loc["all"]
        assert row["ci_low_ha"] == row["ci_high_ha"] == 0
        assert row["note"].startswith("zero-width")
        assert frame_area(none + 1.0, population=400).loc["all", "note"].startswith("zero-width")
        assert frame_area(none, population=40).loc["all", "note"] == ""
        varied = pd.DataFrame({"coca_ha": np.arange(40.0)})
        assert frame_area(varied, population=400).loc["all", "note"] == ""

    def test_single_cluster_in_a_stratum_gives_no_number(self):
        units = pd.DataFrame({"coca_ha": np.arange(13.0), "stratum": ["a"] * 12 + ["b"]})
        assert frame_area(units, population={"a": 50, "b": 50}).loc["all", "status"] == "not estimable"
        assert frame_area(units, population={"a": 50, "b": 1}).loc["all", "status"] == "estimated"

    def test_logit_interval_stays_inside_the_frame(self):
        units = pd.DataFrame({"coca_ha": [0.0] * 38 + [3.0, 1.0]})
        row = frame_area(units, population=400, interval="logit", total_ha=4000.0).loc["all"]
        assert 0 < row["ci_low_ha"] < row["area_ha"] < row["ci_high_ha"] < 4000
        assert row["status"] == "rough"

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"value": "nothing"}, InputRefused, "nothing"),
            ({"population": None}, AccuracyError, "population="),
            ({"population": {"high": 200}}, InputRefused, "low"),
            ({"population": {"high": 200, "low": 200, "none": 9}}, AccuracyError, "none"),
            ({"population": {"high": 2, "low": 2}}, InputRefused, "smaller"),
            ({"estimator": "magic", "auxiliary": "mapped_ha", "auxiliary_total": 1.0}, InputRefused, "estimator must"),
            ({"estimator": "ratio"}, InputRefused, "auxiliary column"),
            ({"estimator": "ratio", "auxiliary": "mapped_ha"}, InputRefused, "auxiliary_total"),
            ({"interval": "logit"}, InputRefused, "total_ha"),
            ({"interval": "exact"}, InputRefused, "interval must"),
            ({"cluster": "zone"}, AccuracyError, "more than one stratum"),
            ({"elements_in_cluster": "area_ha"}, InputRefused, "cluster="),
            ({"inclusion_probability": "area_ha"}, InputRefused, "above 0"),
        ],
    )
    def test_misuse_is_refused(self, options, error, words):
        with pytest.raises(error, match=words):
            frame_area(segments().head(60), **({"population": {"high": 200, "low": 200}} | options))

    def test_units_that_were_not_observed_are_not_zero(self):
        units = segments().head(60)
        units.loc[units.index[0], "coca_ha"] = np.nan
        with pytest.raises(InputRefused, match="no number"):
            frame_area(units, population={"high": 200, "low": 200})
