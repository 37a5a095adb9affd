"""Small-area estimates: a published case to the printed digits, simulation of the model, labels and guards."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from geococa.accuracy import domain_area, error_matrix
from geococa.errors import AccuracyError, InputRefused
from geococa.small_areas import BASIS, composite_area, fay_herriot

# Expenditure on milk in 43 small areas of the United States: Arora and Lahiri (1997), Statistica Sinica 7, 1053-1063; the data set
# milk of the R package sae. Printed results: sae 1.3 (eblupFH, mseFH), as repeated by the tests of samplics.
MILK = """1.099,0.163,1 1.075,0.08,1 1.105,0.083,1 0.628,0.109,1 0.753,0.119,1 0.981,0.141,1 1.257,0.202,1 1.095,0.127,2
1.405,0.168,2 1.356,0.178,2 0.615,0.1,2 1.46,0.201,2 1.338,0.148,2 0.854,0.143,2 1.176,0.149,3 1.111,0.145,3 1.257,0.135,3
1.43,0.172,3 1.278,0.137,3 1.292,0.163,3 1.002,0.125,3 1.183,0.247,3 1.044,0.14,3 1.267,0.171,3 1.193,0.106,3 0.791,0.121,4
0.795,0.121,4 0.759,0.259,4 0.796,0.106,4 0.565,0.089,4 0.886,0.225,4 0.952,0.205,4 0.807,0.119,4 0.582,0.067,4 0.684,0.106,4
0.787,0.126,4 0.44,0.092,4 0.759,0.132,4 0.77,0.1,4 0.8,0.113,4 0.756,0.083,4 0.865,0.121,4 0.64,0.129,4"""
PRINTED = {
    "reml": {
        "estimate": [1.0219703, 1.0476018, 1.0679513, 0.7608170, 0.8461574, 0.9743727, 1.0584523, 1.0977762],
        "mse": [0.013460220, 0.005372876, 0.005701990, 0.008541740, 0.009579594, 0.011670632, 0.015926137, 0.010586518],
        "last": (0.6810870, 0.009903626),
    },
    "fay_herriot": {
        "estimate": [1.017975, 1.044963, 1.064480, 0.770692, 0.852512, 0.973826, 1.050856, 1.096165],
        "mse": [0.012757016, 0.005314467, 0.005632201, 0.008323471, 0.009283520, 0.011178151, 0.014867662, 0.010252709],
        "last": (0.683160, 0.009484220),
    },
}  # fmt: skip


def milk():
    table = pd.read_csv(io.StringIO(MILK.replace(" ", "\n")), names=["y", "sd", "major"])
    x = np.column_stack([np.ones(43), *[(table["major"] == k).astype(float) for k in (2, 3, 4)]])
    return table["y"].to_numpy(), table["sd"].to_numpy() ** 2, x


class TestPublishedCase:
    @pytest.mark.parametrize("method", list(PRINTED))
    def test_milk_expenditure_to_the_printed_digits(self, method):
        found = fay_herriot(*milk(), method=method)
        expected = PRINTED[method]
        np.testing.assert_allclose(found["estimate"][:8], expected["estimate"], atol=2e-5)
        np.testing.assert_allclose(found["mse"][:8], expected["mse"], atol=2e-6)
        assert found["estimate"][-1] == pytest.approx(expected["last"][0], abs=2e-5)
        assert found["mse"][-1] == pytest.approx(expected["last"][1], abs=2e-6)

    def test_coefficients_to_the_printed_digits(self):
        found = fay_herriot(*milk())
        np.testing.assert_allclose(found["beta"], [0.9681890, 0.1327801, 0.2269462, -0.2413011], atol=2e-5)
        np.testing.assert_allclose(found["beta_se"], [0.06936208, 0.10300072, 0.09232981, 0.08161707], atol=2e-5)
        assert found["area_variance"] == pytest.approx(0.01855, abs=2e-5)

    def test_restricted_likelihood_agrees_with_statsmodels_where_variances_are_equal(self):
        pytest.importorskip("statsmodels")
        from statsmodels.regression.mixed_linear_model import MixedLM

        rng = np.random.default_rng(0)
        groups, each = 30, 8
        x = rng.normal(size=groups)
        data = (1 + 0.5 * x + rng.normal(0, 0.7, groups))[:, None] + rng.normal(0, 1.0, (groups, each))
        exog = np.column_stack([np.ones(groups * each), np.repeat(x, each)])
        fit = MixedLM(data.ravel(), exog, np.repeat(np.arange(groups), each)).fit(reml=True)
        # with balanced groups the area level keeps all that the units say, given their variance
        found = fay_herriot(data.mean(axis=1), np.full(groups, fit.scale / each), np.column_stack([np.ones(groups), x]))
        assert found["area_variance"] == pytest.approx(float(np.asarray(fit.cov_re)[0, 0]), rel=0.02)
        np.testing.assert_allclose(found["beta"], fit.fe_params, rtol=1e-4)


class TestSimulatedModel:
    @pytest.mark.parametrize("method", ["reml", "adjusted", "fay_herriot"])
    def test_mean_squared_error_is_what_it_says_and_below_the_direct_one(self, method):
        rng = np.random.default_rng(1)
        areas = 40
        x = np.column_stack([np.ones(areas), rng.uniform(0, 1, areas)])
        psi = np.repeat([0.2, 0.6, 1.5, 3.0], 10)
        squares, said, direct = [], [], []
        for _ in range(150):
            truth = x @ [1.0, 2.0] + rng.normal(0, 0.8, areas)
            y = truth + rng.normal(0, np.sqrt(psi))
            found = fay_herriot(y, psi, x, method=method)
            squares.append((found["estimate"] - truth) ** 2)
            said.append(found["mse"])
            direct.append((y - truth) ** 2)
        squares, said, direct = (np.mean(part, axis=0).reshape(4, 10).mean(axis=1) for part in (squares, said, direct))
        if method == "adjusted":
            assert (said > 0.95 * squares).all()
        np.testing.assert_allclose(said, squares, rtol=0.3 if method == "adjusted" else 0.2)
        assert (squares < direct).all()
        assert squares[-1] < 0.4 * direct[-1]


def parks(seed=0, zones=25, n=900):
    """A national sample over zones of very unequal size, with a map that is wrong in its own way in each."""
    rng = np.random.default_rng(seed)
    area = rng.lognormal(0, 1.0, zones) * 1000
    coca = rng.beta(2, 30, zones)
    mapped = np.clip(coca * 0.7 + rng.normal(0, 0.008, zones), 0, 1)
    zone = rng.choice(zones, n, p=area / area.sum())
    reference = np.where(rng.random(n) < coca[zone], "coca", "forest")
    names = np.array([f"park {k}" for k in range(zones)])
    matrix = error_matrix(reference, reference, domain=names[zone], design="simple")
    known = dict(zip(names, area, strict=True))
    direct = domain_area(matrix, mapped_area_ha=[1.0, area.sum() - 1], domain_area_ha=known, min_samples=1)
    return direct, known, dict(zip(names, mapped * area, strict=True)), pd.Series(coca * area, index=names)


class TestParks:
    def test_adjusted_likelihood_never_calls_all_zones_alike(self):
        y, psi, x = np.array([1.0, 1.1, 0.9, 1.0, 1.05, 0.95]), np.full(6, 0.5), np.ones((6, 1))
        assert fay_herriot(y, psi, x, method="reml")["area_variance"] == 0
        assert fay_herriot(y, psi, x, method="fay_herriot")["area_variance"] == 0
        assert fay_herriot(y, psi, x, method="adjusted")["area_variance"] > 0

    def test_small_parks_are_nearer_to_the_truth_than_by_themselves(self):
        gains, held = [], []
        for seed in range(8):
            direct, area, mapped, truth = parks(seed)
            found = composite_area(direct, area, mapped)
            small = found["n"] < 30
            own = direct["area_ha"].reindex(found.index)
            small &= own.notna()
            gains.append(((found["area_ha"] - truth)[small] ** 2).sum() / ((own - truth)[small] ** 2).sum())
            held.append(((found["ci_low_ha"] <= truth) & (truth <= found["ci_high_ha"])).mean())
        assert np.mean(gains) < 0.4
        assert 0.91 <= np.mean(held) <= 0.995

    def test_everything_says_that_it_is_model_based(self):
        direct, area, mapped, _ = parks()
        found = composite_area(direct, area, mapped)
        assert (found["basis"] == BASIS).all()
        assert "model-based" in found.attrs["basis"]
        assert found["weight_direct"].between(0, 1).all()
        # more samples, more say
        assert np.corrcoef(found["n"], found["weight_direct"])[0, 1] > 0.3

    def test_park_without_samples_gets_the_regression_with_a_wider_interval(self):
        direct, area, mapped, _ = parks()
        area["far"], mapped["far"] = 1000.0, 40.0
        found = composite_area(direct, area, mapped)
        row = found.loc["far"]
        assert row["area_ha"] == pytest.approx(row["synthetic_ha"])
        assert row["weight_direct"] == row["n"] == 0
        big = found["n"].idxmax()
        assert row["se_ha"] / 1000.0 > found.loc[big, "se_ha"] / area[big]

    def test_benchmark_keeps_the_total(self):
        direct, area, mapped, _ = parks()
        found = composite_area(direct, area, mapped, benchmark_ha=1234.0)
        assert found["area_ha"].sum() == pytest.approx(1234.0)

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            (lambda d, a, m: (d.head(2), a, m), AccuracyError, "too few"),
            (lambda d, a, m: (d, a, {k: v for k, v in m.items() if k != "park 3"}), InputRefused, "park 3"),
            (lambda d, a, m: (d, {k: v for k, v in a.items() if k != "park 3"}, m), InputRefused, "park 3"),
            (lambda d, a, m: (d, a | {"park 3": 0.0}, m), InputRefused, "no area"),
        ],
    )
    def test_what_can_not_be_modelled_is_refused(self, change, error, words):
        direct, area, mapped, _ = parks()
        with pytest.raises(error, match=words):
            composite_area(*change(direct, area, mapped))
