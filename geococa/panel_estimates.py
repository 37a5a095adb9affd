"""Hectares of several years, and their change, from sample points that are looked at every year."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from geococa.errors import NoPositives
from geococa.hazards import Hazards, expected_presence
from geococa.panels import Panel
from geococa.survey_estimators import Design, combined_wilson, normal_quantile

__all__ = ["PanelEstimate", "change_area", "panel_area"]

_FEW = 10
_DAYS = 365.25


@dataclass(frozen=True)
class PanelEstimate:
    """Estimated hectares of one class in each year, with the covariance that common points give them.

    Attributes
    ----------
    areas : pandas.DataFrame
        Index ``year``: ``area_ha, se_ha, ci_low_ha, ci_high_ha``; its error budget ``se_sampling_ha, se_gap_ha, se_date_ha``;
        ``none_ha, all_ha`` (if the ground that was not seen held none, or nothing else); ``n`` (points seen), ``n_missing``,
        ``n_class``, ``status`` ("estimated", "rough", "not estimable").
    covariance : numpy.ndarray
        float64 ``(years, years)``, hectares squared: of the sampling, the gaps and the dates together.
    changes : pandas.DataFrame
        One row a pair of following years, and first to last: ``year_from, year_to, change_ha, se_ha, ci_low_ha, ci_high_ha``;
        ``gain_ha, gain_se_ha, gain_ci_low_ha, gain_ci_high_ha`` and the same for ``loss``; ``se_independent_ha`` (if other points
        had been drawn in the second year), ``correlation``, ``n_common`` and ``n_changed`` (points seen in both years, and of
        them those that changed).
    settings : dict
        Class, design, confidence and assumptions.
    """

    areas: pd.DataFrame
    covariance: np.ndarray
    changes: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    def slope(self) -> dict[str, float]:
        """Least-squares slope over the years, and the error that the estimates bring into it.

        It is the slope of these years, not of a process behind them: `geococa.area_trend` tests for a trend.

        Returns
        -------
        dict
            ``slope_ha_per_year, se_ha_per_year, slope_low, slope_high``; NaN with fewer than 2 years.
        """
        known = np.isfinite(self.areas["se_ha"].to_numpy(dtype=float))
        years = self.areas.index.to_numpy(dtype=float)[known]
        if len(years) < 2:
            return dict.fromkeys(("slope_ha_per_year", "se_ha_per_year", "slope_low", "slope_high"), np.nan)
        pull = (years - years.mean()) / ((years - years.mean()) ** 2).sum()
        slope = float(pull @ self.areas["area_ha"].to_numpy(dtype=float)[known])
        se = float(np.sqrt(pull @ self.covariance[np.ix_(known, known)] @ pull))
        half = normal_quantile(self.settings["confidence"]) * se
        return {"slope_ha_per_year": slope, "se_ha_per_year": se, "slope_low": slope - half, "slope_high": slope + half}


def panel_area(
    samples: pd.DataFrame,
    *,
    stratum_area_ha: Any = None,
    class_name: str = "coca",
    id_column: str | None = None,
    years: Sequence[int] | None = None,
    within: Any = None,
    domain_area_ha: float | None = None,
    min_samples: int = 30,
    hazards: Hazards | None = None,
    age_column: str = "image_age_days",
    plot_ha: float = 0.0,
    unseen_relative_se: float = 0.0,
    confidence: float = 0.95,
) -> PanelEstimate:
    """Estimate the hectares of a class in each year, and their changes, from points that are looked at every year.

    Errors of the years are correlated where they share points; that correlation is kept, which as a rule makes changes far
    more precise than the difference of two independent estimates.

    Parameters
    ----------
    samples : pandas.DataFrame
        One row a point and year: ``class`` (missing = the point was not seen that year), ``year``, ``stratum`` and
        ``stratum_area_ha``; a point keeps its stratum.
    stratum_area_ha : mapping of str to float, optional
        Hectares of each stratum, where the samples have no such column. They include ground that was not seen.
    class_name : str
        Class in question.
    id_column : str, optional
        Column that names the point; ``point`` or ``id`` where not given.
    years : sequence of int, optional
        Years wanted; all in the samples where not given.
    within : array-like of bool, optional
        Rows of ``samples`` in a zone, for the hectares of the zone.
    domain_area_ha : float, optional
        Known area of the zone: then a ratio estimator, as in `geococa.accuracy.domain_area`.
    min_samples : int
        A year with fewer points (in the zone) is "not estimable".
    hazards : Hazards, optional
        Rates of planting and clearing; with them each label is carried from the day of its image (``age_column``, days before the
        cut-off) to the cut-off date, and the error of the rates enters the interval.
    age_column : str
        Column with the age of the image behind the label.
    plot_ha : float
        Mean size of what is planted or cleared at once. Between image and cut-off chance moves whole plots; with 0 that chance
        is left out, which holds for areas with very many plots.
    unseen_relative_se : float
        Relative standard error of the assumption that unseen ground holds coca like the seen ground of its stratum.
    confidence : float
        Level of the intervals.

    Returns
    -------
    PanelEstimate

    Raises
    ------
    InputRefused
        A column is missing, a point has two rows in a year or two strata.
    AccuracyError
        A stratum with area holds no point.
    NoPositives
        No row is of the class.

    References
    ----------
    Stehman, S. V. (2014), International Journal of Remote Sensing 35(13), 4923-4939. Särndal, C.-E., Swensson, B. and Wretman, J.
    (1992), Model Assisted Survey Sampling, sections 5.5, 9.9 and 10.3. Zou, G. Y. and Donner, A. (2008), Statistics in Medicine
    27, 1693-1702, for the intervals of areas, gains and losses; those of net change and slope are normal.

    Examples
    --------
    >>> rows = [(p, y, "coca" if p % 10 < y - 2018 else "forest", "all", 500.0) for p in range(60) for y in (2020, 2021)]
    >>> samples = pd.DataFrame(rows, columns=["point", "year", "class", "stratum", "stratum_area_ha"])
    >>> found = panel_area(samples)
    >>> found.areas["area_ha"].tolist()
    [100.0, 150.0]
    >>> found.changes[["change_ha", "se_ha", "se_independent_ha"]].round(1).values.tolist()
    [[50.0, 19.5, 39.6]]
    """
    panel = Panel.of(samples, stratum_area_ha, class_name, id_column, years, within, age_column if hazards else None)
    if not np.nansum(panel.hit):
        raise NoPositives(f"no sample is of class {class_name!r}, so no area and no change of it can be estimated")
    zone = domain_area_ha if within is not None else None
    rates = hazards or Hazards(0.0, 0.0)
    value = expected_presence(panel.hit, panel.age / _DAYS, rates)
    estimate = _Estimate.of(panel, value, zone)
    raw = estimate if hazards is None else _Estimate.of(panel, panel.hit, zone)
    extra, parts = _other_errors(panel, estimate, rates, plot_ha, unseen_relative_se, zone)
    covariance = estimate.covariance + extra
    rows = [
        _year_row(panel, value, estimate, raw, parts, covariance, k, min_samples, confidence, zone)
        for k in range(len(panel.years))
    ]
    areas = pd.DataFrame(rows, index=pd.Index(panel.years, name="year"))
    bad = areas["status"].to_numpy() == "not estimable"
    covariance = np.where(bad[:, None] | bad[None, :], np.nan, covariance)
    pairs = [(k, k + 1) for k in range(len(panel.years) - 1)]
    pairs += [(0, len(panel.years) - 1)] if len(panel.years) > 2 else []
    changes = pd.DataFrame([_change_row(panel, areas, covariance, a, b, zone, confidence) for a, b in pairs])
    settings = {
        "class": class_name, "confidence": confidence, "min_samples": min_samples, "plot_ha": plot_ha,
        "planting_per_year": rates.planting_per_year, "clearing_per_year": rates.clearing_per_year,
        "unseen_relative_se": unseen_relative_se, "basis": "design-based",
    }  # fmt: skip
    return PanelEstimate(areas, covariance, changes, settings)


def change_area(
    samples: pd.DataFrame, year_from: int, year_to: int, *, class_name: str = "coca", **options: Any
) -> pd.Series[Any]:
    """Estimate the change of a class between two years from the same points.

    Parameters
    ----------
    samples : pandas.DataFrame
        As for `panel_area`.
    year_from, year_to : int
        The two years.
    class_name : str
        Class in question.
    **options
        Of `panel_area`.

    Returns
    -------
    pandas.Series
        The row of ``changes`` of `PanelEstimate`.

    Examples
    --------
    >>> rows = [(p, y, "coca" if p % 10 < y - 2018 else "forest", "all", 500.0) for p in range(60) for y in (2020, 2021)]
    >>> samples = pd.DataFrame(rows, columns=["point", "year", "class", "stratum", "stratum_area_ha"])
    >>> change_area(samples, 2020, 2021)[["change_ha", "gain_ha", "loss_ha"]].tolist()
    [50.0, 50.0, 0.0]
    """
    found = panel_area(samples, class_name=class_name, years=[year_from, year_to], **options)
    row: pd.Series[Any] = found.changes.iloc[0]
    return row


@dataclass(frozen=True)
class _Estimate:
    """Yearly shares of the base area, what each point pulls them by, and the covariance of the hectares.

    ``base_ha`` is the area that shares refer to: the zone where it is known, else the whole.
    """

    share: np.ndarray
    pull: np.ndarray
    covariance: np.ndarray
    base_ha: float
    counts: np.ndarray

    @classmethod
    def of(cls, panel: Panel, value: np.ndarray, zone_ha: float | None) -> _Estimate:
        years = len(panel.years)
        share, counts = np.full(years, np.nan), np.zeros((years, len(panel.strata)))
        pull = np.zeros((len(panel.stratum), years))
        for k in range(years):
            seen = panel.seen(k)
            counts[k] = np.bincount(panel.stratum[seen], minlength=len(panel.strata))
            if (counts[k][panel.area_ha > 0] == 0).any():
                continue
            share[k], pull[seen, k] = _one_year(panel, value[seen, k], seen, counts[k], ratio=zone_ha is not None)
        base = panel.total_ha if zone_ha is None else zone_ha
        return cls(share, pull, _between(pull, panel.stratum, len(panel.strata)) * base**2, base, counts)


def _one_year(
    panel: Panel, value: np.ndarray, seen: np.ndarray, count: np.ndarray, *, ratio: bool
) -> tuple[float, np.ndarray]:
    """Share of a year, and what each seen point pulls it by."""
    stratum, inside = panel.stratum[seen], panel.inside[seen]
    scale = (panel.weights / np.maximum(count, 1))[stratum]

    def centred(column: np.ndarray) -> tuple[float, np.ndarray]:
        means = np.bincount(stratum, column, minlength=len(count)) / np.maximum(count, 1)
        return float(panel.weights @ means), column - means[stratum]

    above, spread = centred(value * inside)
    if not ratio:
        return above, spread * scale
    below, size = centred(inside)
    if not below > 0:
        return np.nan, np.zeros(len(value))
    return above / below, (spread - above / below * size) * scale / below


def _between(pull: np.ndarray, stratum: np.ndarray, strata: int) -> np.ndarray:
    """Covariance of the yearly shares: within strata, over the points that two years have in common."""
    out = np.zeros((pull.shape[1],) * 2)
    for h in range(strata):
        rows = pull[stratum == h]
        used = (rows != 0).any(axis=1).sum() if len(rows) else 0
        if used:
            out += rows.T @ rows * len(rows) / max(len(rows) - 1, 1)
    return out


def _other_errors(
    panel: Panel,
    estimate: _Estimate,
    rates: Hazards,
    plot_ha: float,
    unseen_relative_se: float,
    zone_ha: float | None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Covariance that gaps and dates add, and standard errors of the parts."""
    years = len(panel.years)
    date = np.zeros((years, years))
    for name, error in (("planting_per_year", rates.planting_se), ("clearing_per_year", rates.clearing_se)):
        if not error:
            continue
        step = 1e-4 * max(getattr(rates, name), 1e-3)
        moved = [
            _Estimate.of(
                panel, expected_presence(panel.hit, panel.age / _DAYS, rates.shifted(name, sign * step)), zone_ha
            ).share
            for sign in (-0.5, 0.5)
        ]
        # the same rates serve every year, so their error does not cancel between years of unequal ages
        slope = (moved[1] - moved[0]) / step * error * estimate.base_ha
        date += np.outer(slope, slope)
    chance = np.zeros(years)
    if plot_ha > 0:
        value = expected_presence(panel.hit, panel.age / _DAYS, rates)
        spread = _Estimate.of(panel, np.clip(value * (1 - value), 0.0, None), zone_ha).share
        chance = plot_ha * np.maximum(spread, 0.0) * estimate.base_ha
    gap = np.zeros(years)
    for k in range(years):
        missing = 1.0 - estimate.counts[k] / np.bincount(panel.stratum, minlength=len(panel.strata))
        unseen = float(panel.weights @ missing)
        gap[k] = (unseen_relative_se * unseen * estimate.share[k] * estimate.base_ha) ** 2
    # what the points that were not seen cost: the rest is the sampling error if every point had been seen
    lost = np.array([_lost(panel, estimate, k) for k in range(years)])
    parts = {
        "sampling": np.sqrt(np.maximum(np.diag(estimate.covariance) - lost, 0.0)),
        "gap": np.sqrt(lost + gap),
        "date": np.sqrt(np.diag(date) + chance),
    }
    return date + np.diag(chance + gap), parts


def _lost(panel: Panel, estimate: _Estimate, k: int) -> float:
    """Part of the variance of a year that is owed to points not seen, hectares squared."""
    size = np.bincount(panel.stratum, minlength=len(panel.strata))
    out = 0.0
    for h in np.flatnonzero(panel.area_ha > 0):
        pulls = estimate.pull[panel.stratum == h, k]
        out += float(pulls @ pulls) * (1.0 - estimate.counts[k][h] / size[h])
    return out * estimate.base_ha**2


def _year_row(
    panel: Panel,
    value: np.ndarray,
    estimate: _Estimate,
    raw: _Estimate,
    parts: dict[str, np.ndarray],
    covariance: np.ndarray,
    k: int,
    min_samples: int,
    confidence: float,
    zone_ha: float | None,
) -> dict[str, Any]:
    seen = panel.seen(k)
    inside = panel.inside > 0
    counts = {
        "n": int((seen & inside).sum()),
        "n_missing": int((~seen & inside).sum()),
        "n_class": int(np.nansum(panel.hit[inside, k])),
    }
    names = (
        "area_ha",
        "se_ha",
        "ci_low_ha",
        "ci_high_ha",
        "se_sampling_ha",
        "se_gap_ha",
        "se_date_ha",
        "none_ha",
        "all_ha",
    )
    alone = bool(((estimate.counts[k] == 1) & (panel.area_ha > 0)).any())
    if not np.isfinite(estimate.share[k]) or counts["n"] < min_samples or alone:
        return dict.fromkeys(names, np.nan) | counts | {"status": "not estimable"}
    base = estimate.base_ha
    area, se = float(estimate.share[k] * base), float(np.sqrt(covariance[k, k]))
    low, high = _interval(panel, estimate, raw, covariance, k, confidence, zone_ha is not None)
    # hectares that a point stands for, were all of them seen
    each = (panel.area_ha / np.bincount(panel.stratum, minlength=len(panel.strata)))[panel.stratum] * inside
    each = each * (base / each.sum() if zone_ha is not None else 1.0)
    least = float(each[seen] @ value[seen, k])
    figures = [area, se, low, high, *(float(parts[part][k]) for part in ("sampling", "gap", "date"))]
    figures += [least, least + float(each[~seen].sum())]
    status = "rough" if counts["n_class"] < _FEW else "estimated"
    return dict(zip(names, figures, strict=True)) | counts | {"status": status}


def _interval(
    panel: Panel,
    estimate: _Estimate,
    raw: _Estimate,
    covariance: np.ndarray,
    k: int,
    confidence: float,
    is_ratio: bool,
) -> tuple[float, float]:
    """Wilson-type limits of the sampling, widened by the other errors."""
    seen = panel.seen(k)
    hit, inside = panel.hit[seen, k] == 1, panel.inside[seen] > 0
    design = Design("stratified", panel.stratum[seen], panel.weights)
    if is_ratio:
        low, high = combined_wilson(hit, design, confidence, inside=inside)
    else:
        low, high = combined_wilson(hit & inside, design, confidence)
    # labels carried to the cut-off date spread less or more than the labels themselves
    stretch = float(np.sqrt(estimate.covariance[k, k] / raw.covariance[k, k])) if raw.covariance[k, k] > 0 else 1.0
    below, above = (
        max(raw.share[k] - low, 0.0) * estimate.base_ha * stretch, max(high - raw.share[k], 0.0) * estimate.base_ha * stretch,
    )  # fmt: skip
    other = normal_quantile(confidence) ** 2 * max(float(covariance[k, k] - estimate.covariance[k, k]), 0.0)
    area = float(estimate.share[k] * estimate.base_ha)
    return max(area - float(np.hypot(below, np.sqrt(other))), 0.0), min(
        area + float(np.hypot(above, np.sqrt(other))), estimate.base_ha
    )


def _change_row(
    panel: Panel,
    areas: pd.DataFrame,
    covariance: np.ndarray,
    a: int,
    b: int,
    zone_ha: float | None,
    confidence: float,
) -> dict[str, Any]:
    common = panel.seen(a) & panel.seen(b)
    row: dict[str, Any] = {"year_from": panel.years[a], "year_to": panel.years[b]}
    change = float(areas["area_ha"].iloc[b] - areas["area_ha"].iloc[a])
    variance = float(covariance[a, a] + covariance[b, b] - 2 * covariance[a, b])
    se = float(np.sqrt(max(variance, 0.0))) if np.isfinite(variance) else np.nan
    half = normal_quantile(confidence) * se
    flows = {
        name: _flow(panel, flow, common, zone_ha, confidence)
        for name, flow in (("gain", (0.0, 1.0)), ("loss", (1.0, 0.0)))
        for flow in [(panel.hit[:, a] == flow[0]) & (panel.hit[:, b] == flow[1])]
    }
    low, high = change - half, change + half
    if se == 0:
        # no point changed: no sign of change, but no proof either; elsewhere limits of gain and loss put together would be
        # several times too wide
        low, high = change - flows["loss"]["ci_high_ha"], change + flows["gain"]["ci_high_ha"]
    row |= {"change_ha": change, "se_ha": se, "ci_low_ha": low, "ci_high_ha": high}
    for name, flow in flows.items():
        row |= {f"{name}_{key}": value for key, value in flow.items()}
    alone = float(covariance[a, a] * covariance[b, b])
    return row | {
        "se_independent_ha": float(np.sqrt(covariance[a, a] + covariance[b, b])),
        "correlation": float(covariance[a, b] / np.sqrt(alone)) if alone > 0 else np.nan,
        "n_common": int((common & (panel.inside > 0)).sum()),
        "n_changed": int((common & (panel.inside > 0) & (panel.hit[:, a] != panel.hit[:, b])).sum()),
    }


def _flow(
    panel: Panel, flow: np.ndarray, common: np.ndarray, zone_ha: float | None, confidence: float
) -> dict[str, float]:
    """Hectares gained or lost, from the points seen in both years."""
    lacking = dict.fromkeys(("ha", "se_ha", "ci_low_ha", "ci_high_ha"), np.nan)
    count = np.bincount(panel.stratum[common], minlength=len(panel.strata))
    if (count[panel.area_ha > 0] < 2).any():
        return lacking
    value = flow[common].astype(float)
    share, pull = _one_year(panel, value, common, count.astype(float), ratio=zone_ha is not None)
    if not np.isfinite(share):
        return lacking
    base = panel.total_ha if zone_ha is None else zone_ha
    variance = _between(pull[:, None], panel.stratum[common], len(panel.strata))[0, 0]
    design = Design("stratified", panel.stratum[common], panel.weights)
    inside = panel.inside[common] > 0
    if zone_ha is None:
        low, high = combined_wilson((value > 0) & inside, design, confidence)
    else:
        low, high = combined_wilson(value > 0, design, confidence, inside=inside)
    return {
        "ha": share * base, "se_ha": float(np.sqrt(variance)) * base, "ci_low_ha": low * base, "ci_high_ha": high * base,
    }  # fmt: skip
