"""Trend tests by name: what each makes of the series of one zone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from geococa import autocorrelation, mann_kendall, slopes
from geococa.errors import InputRefused
from geococa.trend_series import ZoneSeries

__all__ = ["MIN_TESTED", "TESTS", "resolve_test", "run_test"]

TESTS = ("auto", "mann_kendall", "mann_kendall_normal", "mann_kendall_ar1", "ols", "wls", "gls")
"""Tests that `geococa.area_trend` knows."""

MIN_TESTED = 4
"""Fewest years for which a p-value is given."""

_ALIASES = {"mk": "mann_kendall", "original": "mann_kendall_normal", "ar1": "mann_kendall_ar1"}

_COLUMNS = (
    *("slope_ha_per_year", "slope_low", "slope_high", "s", "var_s", "z", "tau", "p_value", "p_value_independent"),
    *("lag1", "n_years", "first_year", "last_year", "test", "verdict", "intercept"),
)


@dataclass(frozen=True)
class _Ranks:
    """Kendall's S of a series and what independent years make of it."""

    s: int
    ties: tuple[int, ...]
    variance: float
    normal_p: float
    exact_p: float


def resolve_test(name: str) -> str:
    """Return the full name of a test, or refuse an unknown one."""
    full = _ALIASES.get(name, name)
    if full not in TESTS:
        raise InputRefused(f"unknown trend test {name!r}; expected one of {', '.join(TESTS)}")
    return full


def run_test(one: ZoneSeries, test: str, confidence: float) -> dict[str, Any]:
    """Slope, interval, rank statistics and p-value of one zone.

    Parameters
    ----------
    one : ZoneSeries
        Any number of years, also none.
    test : str
        One of `TESTS`.
    confidence : float
        Level of the interval.

    Returns
    -------
    dict
        Columns of the trend table; NaN where the series is too short.
    """
    n = one.years.size
    if test == "auto":
        test = "mann_kendall_ar1" if n >= autocorrelation.MIN_YEARS else "mann_kendall"
    if test == "wls" and one.se is None:
        raise InputRefused(
            "test 'wls' weights by the standard errors of the estimates, and there are none; give a column se_ha, or use 'ols'"
        )
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, math.nan)
    row |= {"n_years": n, "test": test if n >= MIN_TESTED else "none"}
    if n:
        row |= {"first_year": float(one.years[0]), "last_year": float(one.years[-1])}
    if n < 2:
        return row
    ties, s = mann_kendall.tie_sizes(one.values), mann_kendall.kendall_s(one.values)
    variance = mann_kendall.kendall_variance(ties)
    z, normal_p = mann_kendall.normal_test(s, variance)
    row |= {"s": float(s), "tau": s / (n * (n - 1) / 2), "var_s": variance, "z": z}
    slope = mann_kendall.theil_sen(one.years, one.values)
    row |= {"slope_ha_per_year": slope, "intercept": float(np.median(one.values) - slope * np.median(one.years))}
    if n >= MIN_TESTED:
        exact = mann_kendall.exact_p_value(s, ties) if n <= mann_kendall.MAX_EXACT else normal_p
        row["p_value_independent"] = exact
        row |= _RUN[test](one, _Ranks(s, ties, variance, normal_p, exact), confidence)
    return row


def _exact(one: ZoneSeries, ranks: _Ranks, confidence: float) -> dict[str, float]:
    return _with_interval(one, ranks.exact_p, mann_kendall.critical_s(one.years.size, confidence))


def _normal(one: ZoneSeries, ranks: _Ranks, confidence: float) -> dict[str, float]:
    # the interval of scipy.stats.theilslopes: normal quantile times the tie-corrected spread of S
    critical = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(ranks.variance)
    return _with_interval(one, ranks.normal_p, critical)


def _ar1(one: ZoneSeries, ranks: _Ranks, confidence: float) -> dict[str, float]:
    if one.years.size < autocorrelation.MIN_YEARS or not ranks.variance:
        return _exact(one, ranks, confidence)
    null = autocorrelation.ar1_null(one.years, one.values)
    # the series less a slope has no ties
    untied = null if len(ranks.ties) == one.years.size else autocorrelation.ar1_null(one.years, one.values, ties=False)
    critical = float(untied.critical(confidence))
    return {**_with_interval(one, float(null.p_value(ranks.s)), critical, between=True), "lag1": float(null.phi)}


def _with_interval(one: ZoneSeries, p_value: float, critical: float, *, between: bool = False) -> dict[str, float]:
    slopes_sorted = mann_kendall.pairwise_slopes(one.years, one.values)
    low, high = mann_kendall.slope_interval(slopes_sorted, critical, between=between)
    return {"p_value": p_value, "slope_low": low, "slope_high": high}


def _least_squares(one: ZoneSeries, line: slopes.Line) -> dict[str, float]:
    return {
        "slope_ha_per_year": line.slope,
        "slope_low": line.low,
        "slope_high": line.high,
        "intercept": float(one.values.mean() - line.slope * one.years.mean()),
        "p_value": line.p_value,
        "lag1": line.phi,
    }


def _ols(one: ZoneSeries, _: _Ranks, confidence: float) -> dict[str, float]:
    return _least_squares(one, slopes.ols_line(one.years, one.values, confidence))


def _wls(one: ZoneSeries, _: _Ranks, confidence: float) -> dict[str, float]:
    assert one.se is not None
    assert one.errors is not None
    if (one.se == 0).any() or np.linalg.eigvalsh(slopes.error_covariance(one.errors))[0] <= 1e-9 * (one.se**2).max():
        raise InputRefused(
            f"zone {one.zone!r} has an estimate, or a difference of estimates, with standard error 0, which would take all the "
            "weight; use 'gls' or 'ols'"
        )
    return _least_squares(one, slopes.wls_line(one.years, one.values, one.errors, confidence))


def _gls(one: ZoneSeries, _: _Ranks, confidence: float) -> dict[str, float]:
    return _least_squares(one, slopes.gls_line(one.years, one.values, one.errors, confidence))


_RUN: dict[str, Callable[[ZoneSeries, _Ranks, float], dict[str, float]]] = {
    "mann_kendall": _exact,
    "mann_kendall_normal": _normal,
    "mann_kendall_ar1": _ar1,
    "ols": _ols,
    "wls": _wls,
    "gls": _gls,
}
