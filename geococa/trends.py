"""area_trend: is it growing, here, really? Slope, interval, test, breaks and verdict of every zone."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from geococa import breaks, mann_kendall, slopes
from geococa.errors import InputRefused
from geococa.trend_notices import RULE, trend_notice
from geococa.trend_series import Covariance, Trendable, ZoneSeries, read_zone_series
from geococa.trend_tests import TESTS, resolve_test, run_test

__all__ = ["TESTS", "area_trend", "break_points"]

F64 = npt.NDArray[np.float64]


def area_trend(
    series: Trendable,
    *,
    value: str = "area_ha",
    test: str = "auto",
    confidence: float = 0.95,
    se: str = "se_ha",
    covariance: Covariance | None = None,
    zone: str | None = None,
    stable_percent: float = 2.0,
    find_breaks: bool = True,
    replicates: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Trend of the hectares of every zone.

    Parameters
    ----------
    series : DataArray, Dataset, DataFrame or Series
        ``(time, zone)`` array of hectares; Dataset with variables ``value`` (and ``se``); tidy table with columns zone,
        year, ``value`` (and ``se``); or a Series indexed by year. Years may be missing, NaN or unevenly spaced.
    value : str, default "area_ha"
        Variable or column with the hectares.
    test : str, default "auto"
        - "auto": "mann_kendall_ar1" from 5 years on, "mann_kendall" with 4.
        - "mann_kendall": exact permutation p-value, ties included, for independent years (normal curve beyond 50 years).
        - "mann_kendall_normal": the textbook normal approximation with continuity and tie correction.
        - "mann_kendall_ar1": years may resemble their neighbours; the unknown lag-one correlation is averaged out.
        - "ols", "wls", "gls": slope and t test by least squares; "wls" weights by ``se``, "gls" takes AR(1) years.
    confidence : float, default 0.95
        Level of every interval; 1 - confidence is the level of the test.
    se : str, default "se_ha"
        Variable or column with standard errors of the hectares; used where present.
    covariance : array-like, or mapping of str to array-like, optional
        Covariance of the errors where years share errors, as the estimates of a panel do (``PanelEstimate.covariance``);
        rows and columns in the order of the zone's years in ``series``. Without it errors of different years are
        independent.
    zone : str, optional
        Column that names the zones of a table ("zone", "park" or "code" by default).
    stable_percent : float, default 2.0
        Per cent of the mean area per year within which a whole interval counts as stable.
    find_breaks : bool, default True
        Look for bends (`break_points`), and say where one line misleads.
    replicates, seed : int
        Redrawn series and seed of the parametric bootstrap.

    Returns
    -------
    DataFrame
        One row per zone, in the order of the input:

        ``zone``, ``slope_ha_per_year`` (Theil-Sen on actual years, or least squares), ``slope_low``, ``slope_high``,
        ``s``, ``var_s``, ``z``, ``tau`` (Kendall's a), ``p_value``, ``p_adjusted`` (Benjamini-Hochberg over the zones),
        ``p_value_independent`` (exact Mann-Kendall, were the years independent), ``lag1`` (lag-one correlation of the
        noise), ``n_years``, ``first_year``, ``last_year``, ``test``, ``verdict``, ``intercept`` (hectares at year 0 of the
        line through the medians), ``percent_per_year`` (compound, from the logarithms; NaN where an area is 0 or less),
        ``doubling_time_years``, ``halving_time_years``, ``breaks`` (years of the bends), ``one_line_misleads``, ``notice`` and
        ``notice_es`` (what one line hides, in English and Spanish); with standard errors also ``slope_se_sampling``, ``slope_low_sampling``, ``slope_high_sampling``.

        The verdict is one of "growing", "shrinking", "stable", "cannot tell"; its rule is in ``attrs["verdict_rule"]`` and, in
        Spanish, ``attrs["verdict_rule_es"]``.

    Raises
    ------
    InputRefused
        Unknown test, other dims, missing columns, a year twice, "wls" without standard errors.

    Notes
    -----
    Two intervals answer two questions. ``slope_low`` and ``slope_high`` belong to the test: what slope could lie behind years
    that scatter as these do (the errors of the estimates are part of that scatter). The ``_sampling`` columns propagate the
    standard errors by parametric bootstrap: what slope could the true hectares of these very years have.

    The interval of "mann_kendall_ar1" is calibrated on average between the steps of S, its p-value at them: an interval may
    exclude 0 with a p-value just above the level, never the other way round.

    An interval is NaN where the series is too short to bound the slope at the level.

    References
    ----------
    Mann, H. B. (1945). Nonparametric tests against trend. Econometrica 13, 245-259.

    Sen, P. K. (1968). Estimates of the regression coefficient based on Kendall's tau. JASA 63, 1379-1389.

    Benjamini, Y., Hochberg, Y. (1995). Controlling the false discovery rate. JRSS B 57, 289-300.

    Examples
    --------
    >>> table = pd.DataFrame({"zone": "Tinigua", "year": range(2015, 2025), "area_ha": [310, 325, 338, 330, 352, 371,
    ...     368, 390, 401, 415]})
    >>> trend = area_trend(table).iloc[0]
    >>> round(float(trend.slope_ha_per_year), 2), int(trend.s), trend.verdict
    (11.38, 41, 'growing')
    """
    test = resolve_test(test)
    _check_options(confidence, stable_percent)
    rows = [
        _zone_row(one, test, confidence, stable_percent, find_breaks, replicates, seed)
        for one in read_zone_series(series, value=value, se=se, zone=zone, covariance=covariance)
    ]
    table = pd.DataFrame(rows)
    if rows:
        place = list(table.columns).index("p_value") + 1
        table.insert(place, "p_adjusted", _adjusted(table["p_value"].to_numpy()))
        for name in ("s", "first_year", "last_year"):
            if np.isfinite(table[name]).all() and (table[name] % 1 == 0).all():
                table[name] = table[name].astype("int64")
    table.attrs = {
        "verdict_rule": RULE["en"],
        "verdict_rule_es": RULE["es"],
        "confidence": confidence,
        "stable_percent": stable_percent,
        "kind": "trends",
    }
    return table


def break_points(series: Trendable, *, value: str = "area_ha", zone: str | None = None) -> pd.DataFrame:
    """Years in which a series changes its level or its slope.

    Parameters
    ----------
    series : DataArray, Dataset, DataFrame or Series
        As in `area_trend`.
    value, zone : str
        As in `area_trend`.

    Returns
    -------
    DataFrame
        ``zone``; ``method``: "pettitt" (one shift of level; always one row from 4 years on) or "segmented" (bends chosen by BIC
        under AR(1) noise; one row a bend); ``break_year`` (the last year before the shift, or the year of the bend);
        ``before``, ``after`` (median hectares, or slopes in ha per year); ``p_value`` (Pettitt, for independent years);
        ``bic_gain`` over a straight line (segmented).

    References
    ----------
    See `geococa.breaks`.

    Examples
    --------
    >>> from geococa.reference import unodc_national
    >>> bends = break_points(unodc_national()).query("method == 'segmented'")
    >>> [int(year) for year in bends.break_year]
    [2012]
    """
    rows: list[dict[str, Any]] = []
    for one in read_zone_series(series, value=value, se="", zone=zone):
        if one.years.size < 4:
            continue
        shift = breaks.pettitt(one.years, one.values)
        early = one.years <= shift.last_year_before
        medians = [float(np.median(one.values[part])) for part in (early, ~early)]
        rows.append(_break_row(one.zone, "pettitt", shift.last_year_before, *medians, p_value=shift.p_value))
        bent = breaks.segmented(one.years, one.values)
        for k, year in enumerate(bent.breaks):
            rows.append(
                _break_row(one.zone, "segmented", year, bent.slopes[k], bent.slopes[k + 1], bic_gain=bent.bic_gain)
            )
    columns = ["zone", "method", "break_year", "before", "after", "p_value", "bic_gain"]
    return pd.DataFrame(rows, columns=columns)


def _break_row(
    zone: str,
    method: str,
    year: float,
    before: float,
    after: float,
    *,
    p_value: float = math.nan,
    bic_gain: float = math.nan,
) -> dict[str, Any]:
    return {
        "zone": zone,
        "method": method,
        "break_year": year,
        "before": before,
        "after": after,
        "p_value": p_value,
        "bic_gain": bic_gain,
    }


def _check_options(confidence: float, stable_percent: float) -> None:
    if not 0 < confidence < 1:
        raise InputRefused(f"confidence must lie between 0 and 1, got {confidence!r}; 0.95 is usual")
    if not stable_percent >= 0:
        raise InputRefused(f"stable_percent must be zero or more, got {stable_percent!r}")


def _adjusted(p_values: F64) -> F64:
    """Benjamini-Hochberg over the zones that have a p-value."""
    from scipy.stats import false_discovery_control

    adjusted = np.full(p_values.shape, math.nan)
    known = np.isfinite(p_values)
    if known.any():
        adjusted[known] = false_discovery_control(p_values[known])
    return adjusted


def _zone_row(
    one: ZoneSeries, test: str, confidence: float, stable_percent: float, find_breaks: bool, replicates: int, seed: int
) -> dict[str, Any]:
    n = one.years.size
    row: dict[str, Any] = {"zone": one.zone, **run_test(one, test, confidence)}
    row |= _growth(one)
    if one.se is not None:
        row |= _sampling(one, confidence, replicates, seed)
    bent = breaks.segmented(one.years, one.values) if find_breaks and n >= 3 else None
    row["breaks"] = ", ".join(f"{year:g}" for year in bent.breaks) if bent else ""
    row["one_line_misleads"] = bool(bent and bent.opposed)
    row["verdict"] = _verdict(row, one, confidence, stable_percent)
    row["notice"] = trend_notice(one, bent, row, confidence)
    row["notice_es"] = trend_notice(one, bent, row, confidence, "es")
    return row


def _growth(one: ZoneSeries) -> dict[str, float]:
    """Compound growth from the Theil-Sen slope of the logarithms."""
    found = dict.fromkeys(("percent_per_year", "doubling_time_years", "halving_time_years"), math.nan)
    if one.years.size < 2 or not (one.values > 0).all():
        return found
    rate = mann_kendall.theil_sen(one.years, np.log(one.values))
    found["percent_per_year"] = 100 * math.expm1(rate)
    if rate:
        found["doubling_time_years" if rate > 0 else "halving_time_years"] = math.log(2) / abs(rate)
    return found


def _sampling(one: ZoneSeries, confidence: float, replicates: int, seed: int) -> dict[str, float]:
    """Standard error and interval of the slope from the errors of the estimates alone."""
    names = ("slope_se_sampling", "slope_low_sampling", "slope_high_sampling")
    if one.years.size < 2 or one.errors is None:
        return dict.fromkeys(names, math.nan)
    # the seed goes with the name, so that a zone's numbers do not depend on which zones come with it
    draws = slopes.bootstrap_slopes(
        one.years, one.values, one.errors, replicates=replicates, seed=[seed, zlib.crc32(one.zone.encode())]
    )
    centre = mann_kendall.theil_sen(one.years, one.values)
    low, high = slopes.normal_interval(centre, draws, confidence)
    return dict(zip(names, (float(np.std(draws)), low, high), strict=True))


def _verdict(row: dict[str, Any], one: ZoneSeries, confidence: float, stable_percent: float) -> str:
    slope, p_value, low, high = (row[name] for name in ("slope_ha_per_year", "p_value", "slope_low", "slope_high"))
    if not math.isfinite(p_value) or row["one_line_misleads"]:
        return "cannot tell"
    if p_value <= 1 - confidence:
        sampling = row.get("slope_low_sampling", slope), row.get("slope_high_sampling", slope)
        for verdict, sign in (("growing", 1), ("shrinking", -1)):
            if all(sign * end > 0 for end in (slope, low, high, *sampling)):
                return verdict
        return "cannot tell"
    band = stable_percent / 100 * abs(float(one.values.mean()))
    return "stable" if -band <= low and high <= band else "cannot tell"
