"""Accuracy and area estimates from a probability sample: hectares with intervals instead of pixel counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from geococa.error_matrices import ErrorMatrix, error_matrix, map_at_samples
from geococa.errors import AccuracyError
from geococa.sample_designs import allocate, mapped_areas, sample_design, sample_size
from geococa.survey_estimators import (
    Design,
    Means,
    Variance,
    combined_wilson,
    deciding_samples,
    interval_of_share,
    normal_quantile,
    ratio,
    sample_means,
    wilson_interval,
)

__all__ = [
    "ErrorMatrix",
    "adjusted_area",
    "allocate",
    "domain_area",
    "error_matrix",
    "map_at_samples",
    "mapped_areas",
    "sample_design",
    "sample_size",
]

_FEW = 10
"""Reference samples of a class under which its interval is rough."""
_ENOUGH = 30
"""Deciding samples from which on the normal interval keeps its level."""
_ALL_AGREED = "all samples agreed, which does not prove that the map has no error"
_INTERVALS = ("auto", "normal", "logit", "wilson")


def adjusted_area(
    matrix: ErrorMatrix | pd.DataFrame | np.ndarray,
    *,
    mapped_area_ha: Any,
    confidence: float = 0.95,
    interval: str | None = None,
    design: str | None = None,
    classes: Any = None,
    population_px: Any = None,
    variance: Variance = "unbiased",
) -> pd.DataFrame:
    """Estimate the hectares and accuracies of every class from an error matrix.

    Parameters
    ----------
    matrix : ErrorMatrix, pandas.DataFrame or numpy.ndarray
        From `error_matrix`, or a square of counts with rows = map and columns = reference.
    mapped_area_ha : mapping of str to float, pandas.Series, or sequence
        Hectares of each stratum: of each map class where the map was the stratification. Their sum is the area that the
        estimate is for, so unobserved area does not belong in it.
    confidence : float
        Level of the intervals.
    interval : {"auto", "normal", "logit", "wilson"}, optional
        Kind of interval of the hectares. ``normal`` is that of the papers, ``margin_ha`` to either side; it covers too little
        where few samples decide, as when a rare class is sometimes missed in a large stratum. ``wilson`` combines the Wilson
        intervals of the strata and keeps its level there; ``logit`` is in between. ``auto``: Wilson's for classes with fewer than
        30 deciding samples (`geococa.survey_estimators.deciding_samples`), normal for the others. Not given: ``auto`` for an
        `ErrorMatrix`, and for a bare table of counts, which is how papers print theirs, the ``normal`` that they print with
        it; then ``note`` says where it covers too little. Intervals of accuracies are always Wilson's.
    design : str, optional
        How the sample was drawn, where the matrix does not know: stratified, simple, systematic, post_stratified.
    classes : sequence of str, optional
        Class names, for a plain array of counts.
    population_px : mapping or sequence, optional
        Number of pixels of each stratum, for the finite population correction of the hectares; without it the population
        counts as large.
    variance : {"unbiased", "plug_in"}
        Of the hectares: divide by ``n - 1``, or put the sample's share in the formula for a known population, as some
        tools do (smaller by one in ``n``).

    Returns
    -------
    pandas.DataFrame
        Index ``class``; ``area_ha, se_ha, ci_low_ha, ci_high_ha``; ``margin_ha`` (the +/- of the normal interval);
        ``interval`` (its kind); ``users_accuracy, users_se, users_ci_low,
        users_ci_high`` and the same for ``producers``; ``f1, f1_se``; ``n_map, n_reference`` (sampled units);
        ``mapped_area_ha`` and ``bias_ha`` (mapped minus estimated) where the strata are the map classes; ``note`` (empty, or
        why a figure is not to be trusted). NaN = not estimable. ``attrs``: ``overall_accuracy, overall_se, overall_ci_low,
        overall_ci_high, n, design, confidence, interval, total_ha``.

    Raises
    ------
    AccuracyError
        A stratum with area holds no sample, or areas and strata do not fit.

    References
    ----------
    Olofsson, P., Foody, G. M., Herold, M., Stehman, S. V., Woodcock, C. E. and Wulder, M. A. (2014), Good practices for
    estimating area and assessing accuracy of land change, Remote Sensing of Environment 148, 42-57. Stehman, S. V. (2014),
    Estimating area and map accuracy for stratified random sampling when the strata are different from the map classes,
    International Journal of Remote Sensing 35(13), 4923-4939.

    Examples
    --------
    >>> table = adjusted_area([[97, 3], [5, 195]], classes=["coca", "other"], mapped_area_ha=[1000.0, 9000.0])
    >>> table[["area_ha", "se_ha"]].round(1).values.tolist()
    [[1195.0, 101.1], [8805.0, 101.1]]
    """
    kind = interval or ("auto" if isinstance(matrix, ErrorMatrix) else "normal")
    if kind not in _INTERVALS:
        raise AccuracyError(f"interval must be one of {', '.join(_INTERVALS)}, got {interval!r}")
    table = matrix if isinstance(matrix, ErrorMatrix) else ErrorMatrix.from_counts(matrix, classes)
    drawn = _design(table, mapped_area_ha, population_px, design)
    areas = table.stratum_areas_ha(mapped_area_ha)
    total = float(areas.sum())
    means = sample_means(_indicators(table), replace(drawn, population=None))
    area = sample_means(_indicators(table), drawn, variance=variance)
    rows = [_class_row(table, k, means, area, total, drawn, confidence, kind) for k in range(len(table.classes))]
    out = pd.DataFrame(rows, index=pd.Index(table.classes, name="class"))
    if table.strata == table.classes:
        out["mapped_area_ha"] = areas
        out["bias_ha"] = out["mapped_area_ha"] - out["area_ha"]
    out["note"] = [_note(row) for _, row in out.iterrows()]
    out = out.drop(columns="deciding")
    out.attrs.update(_overall(means, table, drawn, confidence))
    out.attrs.update({"interval": kind, "total_ha": total})
    return out


def _design(table: ErrorMatrix, area_ha: Any, population_px: Any, design: str | None) -> Design:
    population = None if population_px is None else table.stratum_areas_ha(population_px)
    chosen = Design(design or table.design, table.stratum, table.stratum_weights(area_ha), population, table.cluster)
    if chosen.name not in ("stratified", "simple", "systematic", "post_stratified"):
        raise AccuracyError(f"design must be stratified, simple, systematic or post_stratified, got {chosen.name!r}")
    if chosen.name in ("stratified", "post_stratified"):
        counts = np.bincount(table.stratum, minlength=len(table.strata))
        bare = [
            name for name, weight, n in zip(table.strata, chosen.weights, counts, strict=True) if weight > 0 and n == 0
        ]
        if bare:
            raise AccuracyError(
                f"strata {', '.join(bare)} have area but no sample, so nothing is known of them; draw samples there or "
                "join them with another stratum"
            )
    return chosen


def _indicators(table: ErrorMatrix) -> np.ndarray:
    """Columns for K classes: reference is k, map is k, both are k, map is k or reference is k (counted apart); then both agree."""
    k = np.arange(len(table.classes))
    reference, mapped = table.reference[:, None] == k, table.mapped[:, None] == k
    both = reference & mapped
    agree = (table.reference == table.mapped)[:, None]
    parts = [reference, mapped, both, reference.astype(float) + mapped, 2.0 * both, agree]
    return np.concatenate([np.asarray(part, dtype=float) for part in parts], axis=1)


def _class_row(
    table: ErrorMatrix,
    k: int,
    means: Means,
    area: Means,
    total: float,
    design: Design,
    confidence: float,
    interval: str,
) -> dict[str, Any]:
    size = len(table.classes)
    reference, mapped, both, either, twice = (part * size + k for part in range(5))
    share, se = float(area.mean[reference]), float(np.sqrt(area.covariance[reference, reference]))
    deciding = deciding_samples(table.reference == k, design)
    if interval == "auto":
        interval = "wilson" if deciding < _ENOUGH else "normal"
    low, high = _limits(table.reference == k, share, se, design, confidence, interval)
    if not np.isfinite(se):
        share = np.nan
    row: dict[str, Any] = {
        "area_ha": share * total, "se_ha": se * total, "ci_low_ha": low * total, "ci_high_ha": high * total,
        "margin_ha": normal_quantile(confidence) * se * total, "interval": interval, "deciding": deciding,
    }  # fmt: skip
    units = {"users": int((table.mapped == k).sum()), "producers": int((table.reference == k).sum())}
    for name, whole in (("users", mapped), ("producers", reference)):
        value, error = _conditional(*ratio(means, both, whole), units[name], table.n, design)
        bounds = wilson_interval(value, error, units[name], confidence)
        row |= {
            f"{name}_accuracy": value,
            f"{name}_se": error,
            f"{name}_ci_low": bounds[0],
            f"{name}_ci_high": bounds[1],
        }
    row["f1"], row["f1_se"] = ratio(means, twice, either)
    return row | {"n_map": units["users"], "n_reference": units["producers"]}


def _limits(
    hit: np.ndarray, share: float, se: float, design: Design, confidence: float, kind: str
) -> tuple[float, float]:
    """Interval of a share of the area; with clusters Wilson's is stretched by what the clusters do to the standard error."""
    if not np.isfinite(se):
        return np.nan, np.nan
    if kind != "wilson":
        return interval_of_share(share, se, confidence, kind)
    low, high = combined_wilson(hit, design, confidence)
    if design.cluster is None:
        return low, high
    plain = sample_means(hit[:, None].astype(float), replace(design, cluster=None)).covariance[0, 0]
    stretch = se / float(np.sqrt(plain)) if plain > 0 and np.isfinite(se) else np.nan
    return max(share - (share - low) * stretch, 0.0), min(share + (high - share) * stretch, 1.0)


def _conditional(value: float, se: float, units: int, n: int, design: Design) -> tuple[float, float]:
    """Standard error of a share among ``units`` out of ``n`` randomly drawn ones, given how many they are."""
    if design.name not in ("simple", "systematic") or not np.isfinite(se):
        return value, se
    if units < 2:
        return value, np.nan
    return value, se * float(np.sqrt(units * (n - 1) / (n * (units - 1))))


def _note(row: pd.Series[Any]) -> str:
    if not np.isfinite(row["se_ha"]):
        return "not estimable: a stratum holds a single sample"
    if row["n_reference"] == 0:
        return "no sample of this class was found: the area is small, not proved to be zero"
    if row["se_ha"] == 0:
        if row["interval"] == "wilson":
            return f"standard error 0 (a normal interval would be zero-width): {_ALL_AGREED}"
        return f"zero-width interval: {_ALL_AGREED}"
    if row["n_reference"] < _FEW:
        return f"only {int(row['n_reference'])} samples of this class: the interval is rough"
    if row["interval"] == "normal" and row["deciding"] < _FEW:
        return "few samples decide: this normal interval covers less than it says; see interval='wilson'"
    if row["users_se"] == 0:
        return "user's accuracy without error in the sample: see its Wilson interval"
    return ""


def _overall(means: Means, table: ErrorMatrix, design: Design, confidence: float) -> dict[str, Any]:
    value, se = float(means.mean[-1]), float(np.sqrt(means.covariance[-1, -1]))
    low, high = wilson_interval(value, se, table.n, confidence)
    return {
        "overall_accuracy": value, "overall_se": se, "overall_ci_low": low, "overall_ci_high": high,
        "n": table.n, "design": design.name, "confidence": confidence,
    }  # fmt: skip


def domain_area(
    matrix: ErrorMatrix,
    *,
    mapped_area_ha: Any,
    class_name: str = "coca",
    domain_area_ha: Any = None,
    min_samples: int = 30,
    confidence: float = 0.95,
    interval: str = "wilson",
    population_px: Any = None,
) -> pd.DataFrame:
    """Estimate the hectares of a class in every zone from one sample of the whole area.

    A zone's own sample size is a matter of chance; the variance pays for that. A zone with too few samples gets no number.

    Parameters
    ----------
    matrix : ErrorMatrix
        From `error_matrix` with ``domain`` or ``domain_column``.
    mapped_area_ha : mapping, Series or sequence
        Hectares of each stratum over the whole area that was sampled.
    class_name : str
        Class whose hectares are wanted.
    domain_area_ha : mapping of str to float, optional
        Known hectares of each zone; with it the share of the class among the zone's samples is taken times that area (a
        ratio estimator, as a rule more precise), without it samples are expanded by their weights.
    min_samples : int
        Zones with fewer samples are "not estimable".
    confidence, population_px
        As for `adjusted_area`.
    interval : {"wilson", "logit", "normal", "auto"}
        As for `adjusted_area`.

    Returns
    -------
    pandas.DataFrame
        Index ``zone``; ``area_ha, se_ha, ci_low_ha, ci_high_ha`` (NaN where not estimable), ``n`` (samples), ``n_class``
        (samples of the class), ``status`` ("estimated", "rough": fewer than 10 samples of the class, "not estimable"), ``note``
        (empty, or that the interval has no width).

    Raises
    ------
    AccuracyError
        The matrix knows no zones, or the class.

    References
    ----------
    Särndal, C.-E., Swensson, B. and Wretman, J. (1992), Model Assisted Survey Sampling, chapter 10.
    """
    if matrix.domain is None:
        raise AccuracyError(
            "the error matrix does not know in which zone each sample lies; give domain= to error_matrix"
        )
    if class_name not in matrix.classes:
        raise AccuracyError(f"no class {class_name!r} in the error matrix, which has {', '.join(matrix.classes)}")
    design = _design(matrix, mapped_area_ha, population_px, None)
    total = float(matrix.stratum_areas_ha(mapped_area_ha).sum())
    known = None if domain_area_ha is None else {str(key): float(value) for key, value in dict(domain_area_ha).items()}
    hit = matrix.reference == matrix.classes.index(class_name)
    zones = sorted({*matrix.domain.tolist(), *(known or {})} - {""})
    rows = []
    for zone in zones:
        inside = matrix.domain == zone
        counts = {"n": int(inside.sum()), "n_class": int((inside & hit).sum())}
        if counts["n"] < min_samples or (known is not None and zone not in known):
            rows.append(
                dict.fromkeys(("area_ha", "se_ha", "ci_low_ha", "ci_high_ha"), np.nan)
                | counts
                | {"status": "not estimable", "note": ""}
            )
            continue
        means = sample_means(np.column_stack([inside & hit, inside]).astype(float), design)
        share, se, base = float(means.mean[0]), float(np.sqrt(means.covariance[0, 0])), total
        if known is not None:
            (share, se), base = ratio(means, 0, 1), known[zone]
        note = f"zero-width interval: {_ALL_AGREED}" if se == 0 and interval in ("normal", "logit") else ""
        low, high = _domain_interval(share, se, inside, hit, design, known is not None, confidence, interval)
        figures = {"area_ha": share * base, "se_ha": se * base, "ci_low_ha": low * base, "ci_high_ha": high * base}
        if not np.isfinite(se):
            # a stratum holds a single sample: no error is known, so no number is given
            figures = dict.fromkeys(figures, np.nan)
        status = "not estimable" if not np.isfinite(se) else "rough" if counts["n_class"] < _FEW else "estimated"
        rows.append(figures | counts | {"status": status, "note": note})
    out = pd.DataFrame(rows, index=pd.Index(zones, name="zone"))
    out.attrs.update({"class": class_name, "confidence": confidence, "min_samples": min_samples, "design": design.name})
    return out


def _domain_interval(
    share: float,
    se: float,
    inside: np.ndarray,
    hit: np.ndarray,
    design: Design,
    is_ratio: bool,
    confidence: float,
    kind: str,
) -> tuple[float, float]:
    if kind not in _INTERVALS:
        raise AccuracyError(f"interval must be one of {', '.join(_INTERVALS)}, got {kind!r}")
    if kind == "auto":
        kind = "wilson" if deciding_samples(inside & hit, design) < _ENOUGH else "normal"
    if not is_ratio:
        return _limits(inside & hit, share, se, design, confidence, kind)
    if kind != "wilson":
        return interval_of_share(share, se, confidence, kind)
    low, high = combined_wilson(hit, design, confidence, inside=inside)
    if design.cluster is None:
        return low, high
    both = np.column_stack([inside & hit, inside]).astype(float)
    plain = ratio(sample_means(both, replace(design, cluster=None)), 0, 1)[1]
    stretch = se / plain if plain > 0 else np.nan
    return max(share - (share - low) * stretch, 0.0), min(share + (high - share) * stretch, 1.0)
