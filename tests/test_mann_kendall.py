"""The rank statistics: S, its exact distribution, slopes, and the null of correlated years."""

from __future__ import annotations

import json
import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from geococa import autocorrelation, mann_kendall, slopes

from . import oracles_trends as oracle

short = st.lists(st.integers(-5, 5), min_size=2, max_size=6)
longer = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


@given(longer)
def test_s_and_variance_equal_the_plain_sums(values):
    s, variance = oracle.kendall(values)
    array = np.asarray(values)
    assert mann_kendall.kendall_s(array) == s
    assert mann_kendall.kendall_variance(mann_kendall.tie_sizes(array)) == pytest.approx(variance, rel=1e-12)


@settings(deadline=None)
@given(short)
def test_exact_p_value_counts_every_order_ties_included(values):
    array = np.asarray(values, dtype=float)
    p = mann_kendall.exact_p_value(mann_kendall.kendall_s(array), mann_kendall.tie_sizes(array))
    assert p == pytest.approx(oracle.permutation_p(values), abs=1e-12)


@pytest.mark.parametrize("n", [4, 5, 10, 24, 33, 50])
def test_exact_p_value_without_ties_is_that_of_scipy(n):
    rng = np.random.default_rng(n)
    for drift in (0.0, 0.1, 1.0):
        values = rng.standard_normal(n) + drift * np.arange(n)
        p = mann_kendall.exact_p_value(mann_kendall.kendall_s(values), (1,) * n)
        assert p == pytest.approx(stats.kendalltau(np.arange(n), values, method="exact").pvalue, rel=1e-9)


def test_exact_p_value_of_a_monotone_series_does_not_underflow():
    p = mann_kendall.exact_p_value(50 * 49 // 2, (1,) * 50)
    assert p == pytest.approx(2 / math.factorial(50), rel=1e-12)


def test_exact_p_values_of_many_ties_agree_with_simulation():
    values = np.array([0.0] * 12 + [1, 1, 2, 3, 3, 5])
    rng = np.random.default_rng(3)
    simulated = np.array([mann_kendall.kendall_s(rng.permutation(values)) for _ in range(20_000)])
    for s in (20, 40, 60):
        p = mann_kendall.exact_p_value(s, mann_kendall.tie_sizes(values))
        expected = (np.abs(simulated) >= s).mean()
        assert abs(p - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000) + 1e-4


@given(longer.filter(lambda v: len(v) >= 3))
def test_theil_sen_is_the_median_slope_on_uneven_years(values):
    years = np.cumsum(1 + (np.arange(len(values)) * 7) % 3).astype(float)
    expected = oracle.sen(years.tolist(), values)
    assert mann_kendall.theil_sen(years, np.asarray(values)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("n", [5, 8, 10, 15, 24])
def test_interval_holds_exactly_the_slopes_that_the_exact_test_accepts(n):
    rng = np.random.default_rng(n)
    years = np.sort(rng.choice(40, n, replace=False)) + 2000.0
    values = rng.normal(0, 5, n) + 0.7 * years
    critical = mann_kendall.critical_s(n, 0.95)
    found = mann_kendall.slope_interval(mann_kendall.pairwise_slopes(years, values), critical)
    assert found == pytest.approx(oracle.inverted_interval(years.tolist(), values.tolist(), critical), rel=1e-12)
    assert mann_kendall.exact_p_value(int(critical), (1,) * n) > 0.05
    assert mann_kendall.exact_p_value(int(critical) + 2, (1,) * n) <= 0.05


def test_interval_of_four_years_is_not_bounded_at_95_per_cent():
    years, values = np.arange(4.0), np.array([1.0, 2.0, 3.0, 5.0])
    low, high = mann_kendall.slope_interval(
        mann_kendall.pairwise_slopes(years, values), mann_kendall.critical_s(4, 0.95)
    )
    assert math.isnan(low)
    assert math.isnan(high)


def test_normal_interval_lies_beside_that_of_scipy():
    rng = np.random.default_rng(1)
    years, values = np.arange(60.0), rng.standard_normal(60)
    low, high = mann_kendall.slope_interval(
        mann_kendall.pairwise_slopes(years, values), mann_kendall.critical_s(60, 0.95)
    )
    expected = stats.theilslopes(values, years, 0.95)
    assert low == pytest.approx(expected.low_slope, abs=2e-4)
    assert high == pytest.approx(expected.high_slope, abs=2e-4)


def test_exact_line_is_a_trend_however_the_numbers_round():
    years = np.arange(2001.0, 2013.0)
    for line in (years - 2001, 0.1 * years, 1e6 + 3.3 * years):
        null = autocorrelation.ar1_null(years, line)
        assert null.p_value(mann_kendall.kendall_s(line)) < 0.01


def test_published_case_of_the_original_test(shared_data):
    case = json.loads((shared_data / "cases" / "trend_pymannkendall.json").read_text())
    raw = [math.nan if isinstance(v, dict) else v for v in case["arbitrary_1d_data"]]
    values = np.asarray(raw)[np.isfinite(raw)]
    expected = next(c["expected"] for c in case["cases"] if c["test"] == "original_test")
    s = mann_kendall.kendall_s(values)
    variance = mann_kendall.kendall_variance(mann_kendall.tie_sizes(values))
    z, p = mann_kendall.normal_test(s, variance)
    assert s == expected["s"]
    assert (variance, z, p) == pytest.approx((expected["var_s"], expected["z"], expected["p"]), rel=1e-9)
    assert s / (values.size * (values.size - 1) / 2) == pytest.approx(expected["Tau"], rel=1e-9)


def test_published_case_of_sens_slope(shared_data):
    case = json.loads((shared_data / "cases" / "trend_pymannkendall.json").read_text())
    raw = np.asarray([math.nan if isinstance(v, dict) else v for v in case["arbitrary_1d_data"]])
    expected = next(c["expected"] for c in case["cases"] if c["test"] == "sens_slope")
    places = np.flatnonzero(np.isfinite(raw)).astype(float)
    slope = mann_kendall.theil_sen(places, raw[np.isfinite(raw)])
    assert slope == pytest.approx(expected["slope"], rel=1e-9)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("times", [np.arange(12.0), np.array([0.0, 1, 2, 4, 7, 8, 9, 13])])
def test_variance_of_s_under_correlation_agrees_with_simulation(phi, times):
    rng = np.random.default_rng(5)
    factor = np.linalg.cholesky(autocorrelation.ar1_correlation(times, phi))
    drawn = np.array([mann_kendall.kendall_s(factor @ rng.standard_normal(times.size)) for _ in range(8000)])
    spread = drawn.var()
    # standard error of a sample variance, from the fourth moment
    error = math.sqrt((((drawn - drawn.mean()) ** 4).mean() - spread**2) / 8000)
    assert abs(autocorrelation.ar1_variance(times, phi) - spread) < 4 * error


def test_variance_of_s_without_correlation_is_the_classical_one():
    for n in (5, 20, 40, 60):
        assert autocorrelation.ar1_variance(np.arange(float(n)), 0.0) == pytest.approx(
            mann_kendall.kendall_variance((1,) * n), rel=1e-7
        )


def test_variance_of_long_series_continues_that_of_short_ones():
    for phi in (0.3, 0.6):
        ratio = [
            autocorrelation.ar1_variance(np.arange(float(n)), phi) / mann_kendall.kendall_variance((1,) * n)
            for n in (40, 41)
        ]
        assert ratio[1] == pytest.approx(ratio[0], rel=0.03)


def test_prior_and_posterior_weights_sum_to_one():
    rng = np.random.default_rng(2)
    for n in (5, 10, 30):
        assert autocorrelation.prior_weights(n).sum() == pytest.approx(1)
        weights = autocorrelation.phi_weights(np.arange(float(n)), rng.standard_normal(n))
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()


def test_correlation_is_found_in_a_long_series():
    rng = np.random.default_rng(8)
    values = np.zeros(60)
    for k in range(1, 60):
        values[k] = 0.8 * values[k - 1] + rng.standard_normal()
    white = rng.standard_normal(60)
    years = np.arange(60.0)
    assert autocorrelation.ar1_null(years, values).phi > 0.6
    assert autocorrelation.ar1_null(years, white).phi < 0.2


def test_p_value_falls_as_s_grows_and_ends_above_zero():
    years = np.arange(12.0)
    null = autocorrelation.ar1_null(years, np.array([3.0, 1, 4, 1.5, 5, 9, 2, 6, 5.5, 3.5, 8, 7]))
    p = [null.p_value(s) for s in range(0, 67, 2)]
    assert p[0] == 1.0
    assert all(a >= b for a, b in pairwise(p))
    assert p[-1] > 0


def test_critical_s_is_where_the_uncorrected_tail_reaches_the_level():
    years = np.arange(15.0)
    null = autocorrelation.ar1_null(years, np.random.default_rng(0).standard_normal(15))
    critical = null.critical(0.95)
    assert null.p_value(critical + 1) == pytest.approx(0.05, abs=1e-6)


def test_exact_line_says_nothing_of_correlation():
    years = np.arange(2001.0, 2013.0)
    weights = autocorrelation.phi_weights(years - 2001, 3.1 * years + 0.7)
    assert np.array_equal(weights, autocorrelation.prior_weights(12))


def test_least_squares_lines_are_those_of_scipy():
    rng = np.random.default_rng(4)
    years, values = np.array([2001.0, 2002, 2004, 2005, 2009, 2010]), rng.normal(100, 10, 6)
    expected = stats.linregress(years, values)
    line = slopes.ols_line(years, values)
    half = stats.t.ppf(0.975, 4) * expected.stderr
    assert (line.slope, line.p_value) == pytest.approx((expected.slope, expected.pvalue), rel=1e-9)
    assert (line.low, line.high) == pytest.approx((expected.slope - half, expected.slope + half), rel=1e-6)


def test_weighted_line_leans_on_the_precise_years_and_never_claims_more_than_their_errors_allow():
    years = np.arange(2001.0, 2009.0)
    values = 5 * years
    values[-1] += 400
    se = np.full(8, 10.0)
    se[-1] = 1e4
    line = slopes.wls_line(years, values, se)
    assert line.slope == pytest.approx(5, abs=0.01)
    weights = 1 / se**2
    centred = years - np.average(years, weights=weights)
    floor = 1 / math.sqrt((weights * centred**2).sum())
    assert (line.high - line.low) / 2 == pytest.approx(stats.t.ppf(0.975, 6) * floor, rel=1e-6)


def test_generalised_line_is_wider_where_years_resemble_their_neighbours():
    rng = np.random.default_rng(12)
    values = np.cumsum(rng.standard_normal(25))
    years = np.arange(25.0)
    plain, general = slopes.ols_line(years, values), slopes.gls_line(years, values)
    assert general.phi > 0.4
    assert general.high - general.low > 1.3 * (plain.high - plain.low)


def test_generalised_line_with_errors_of_the_estimates_covers_the_known_slope():
    rng = np.random.default_rng(7)
    years, held = np.arange(10.0), 0
    for _ in range(150):
        se = rng.uniform(5, 40, 10)
        values = 3 * years + rng.normal(0, 10, 10) + rng.normal(0, se)
        line = slopes.gls_line(years, values, se)
        held += line.low <= 3 <= line.high
    assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / 150) <= held / 150


def test_bootstrap_is_the_same_for_the_same_seed_and_spreads_as_the_errors_do():
    years, values, se = np.arange(8.0), np.linspace(100, 170, 8), np.full(8, 5.0)
    first = slopes.bootstrap_slopes(years, values, se, seed=3)
    assert np.array_equal(first, slopes.bootstrap_slopes(years, values, se, seed=3))
    assert not np.array_equal(first, slopes.bootstrap_slopes(years, values, se, seed=4))
    least = 5 / math.sqrt(((years - years.mean()) ** 2).sum())
    assert least < first.std() < 1.25 * least


def test_degenerate_series_raise_no_warnings():
    years = np.arange(6.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in (np.zeros(6), np.full(6, 7.5), 2 * years, np.array([0.0, 0, 0, 0, 0, 1e9])):
            slopes.ols_line(years, values)
            slopes.gls_line(years, values)
            slopes.gls_line(years, values, np.full(6, 2.0))
            slopes.wls_line(years, values, np.full(6, 2.0))


def test_many_series_at_once_have_the_weights_p_values_and_critical_values_of_each():
    rng = np.random.default_rng(9)
    years, many = np.arange(2001.0, 2013.0), rng.standard_normal((30, 12)).cumsum(axis=1)
    many[3] = 2 * years  # an exact line among them
    together = autocorrelation.ar1_null(years, many, ties=False)
    s = [mann_kendall.kendall_s(values) for values in many]
    p, critical = together.p_value(s), together.critical(0.95)
    for k, values in enumerate(many):
        alone = autocorrelation.ar1_null(years, values, ties=False)
        assert together.weights[k] == pytest.approx(alone.weights, rel=1e-9, abs=1e-12)
        assert p[k] == pytest.approx(float(alone.p_value(s[k])), rel=1e-9)
        assert critical[k] == pytest.approx(float(alone.critical(0.95)), rel=1e-9)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("n", [5, 12, 30])
def test_critical_s_solves_its_equation_at_any_level(n, confidence):
    years = np.arange(float(n))
    for seed in range(5):
        values = np.random.default_rng([n, seed]).standard_normal(n).cumsum()
        null = autocorrelation.ar1_null(years, values, ties=False)
        critical = float(null.critical(confidence))
        assert float(null.p_value(critical + 1)) == pytest.approx(1 - confidence, abs=1e-9)


def test_ends_of_a_mixed_interval_leave_half_the_level_on_either_side():
    rng = np.random.default_rng(5)
    years, values = np.arange(10.0), rng.standard_normal(10).cumsum()
    line = slopes.gls_line(years, values, confidence=0.9)
    # at a confidence whose interval just reaches 0 the p-value is the rest
    low = slopes.gls_line(years, values - line.low * years)
    assert low.p_value == pytest.approx(0.1, rel=1e-6)


def test_generalised_line_takes_errors_that_leave_no_error_in_the_differences():
    years, values = np.arange(8.0), np.array([3.0, 5, 4, 6, 8, 7, 9, 11])
    line = slopes.gls_line(years, values, np.full((8, 8), 4.0))
    assert line.low < line.slope < line.high
    assert np.isfinite([line.slope, line.low, line.high, line.p_value]).all()
    draws = slopes.bootstrap_slopes(years, values, np.full((8, 8), 4.0))
    assert draws == pytest.approx(np.full(2000, mann_kendall.theil_sen(years, values)), rel=1e-9)
