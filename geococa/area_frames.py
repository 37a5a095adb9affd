"""Hectares from area frames: segments, clusters and two stages, with ratio and model-assisted estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from geococa.errors import AccuracyError, InputRefused
from geococa.segment_frames import draw_segments, segment_frame
from geococa.survey_estimators import interval_of_share, t_quantile
from geococa.survey_variance import SampledUnits, bootstrap_weights, degrees_of_freedom, total_covariance

__all__ = ["ESTIMATORS", "draw_segments", "frame_area", "segment_frame"]

ESTIMATORS = ("expansion", "ratio", "regression", "difference")
"""Expansion of the sample alone; the others lean on an auxiliary variable whose total is known, such as mapped hectares."""
_FEW = 10
_FIGURES = ("area_ha", "se_ha", "ci_low_ha", "ci_high_ha")


def frame_area(
    units: pd.DataFrame,
    *,
    population: Any = None,
    value: str = "coca_ha",
    estimator: Literal["expansion", "ratio", "regression", "difference"] = "expansion",
    auxiliary: str | Sequence[str] = (),
    auxiliary_total: float | Mapping[str, Any] | None = None,
    population_elements: float | None = None,
    stratum: str | None = None,
    cluster: str | None = None,
    elements_in_cluster: str | None = None,
    inclusion_probability: str | None = None,
    domain: str | None = None,
    total_ha: float | None = None,
    min_clusters: int = 10,
    variance: Literal["linearised", "bootstrap"] = "linearised",
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    interval: Literal["normal", "logit"] = "normal",
) -> pd.DataFrame:
    """Estimate hectares from a sample of segments, clusters of points or pixels, in one or two stages.

    Parameters
    ----------
    units : pandas.DataFrame
        One row an observed element: a segment, a point or a pixel.
    population : int, or mapping of stratum to int
        Number of clusters in the frame (of elements, where there are no clusters), for simple random sampling within strata.
        Leave it out where ``inclusion_probability`` is given.
    value : str
        Column with the hectares of the class in the element, as observed; fractions of a pixel times its hectares are as good
        as whole ones.
    estimator : {"expansion", "ratio", "regression", "difference"}
        ``ratio``: the sample's ratio of value to auxiliary, times the known total of the auxiliary. ``regression``: the generalised
        regression estimator (GREG). ``difference``: the auxiliary's total plus the expanded difference of value and auxiliary,
        which takes what a map counts and corrects it by the sample; unbiased whatever the map is worth.
    auxiliary : str or sequence of str
        Columns known for the whole frame: mapped hectares, sums of class probabilities or fractions, or the area of the segment.
        One for ``ratio``; for ``difference`` their sum is what the map says of ``value``.
    auxiliary_total : float or mapping of str to float
        Total of each of them over the frame; with ``domain`` perhaps a mapping of zone to total, which helps a zone far more.
    population_elements : float, optional
        Number of elements in the frame. ``regression`` then has an intercept; without clusters it is ``population``.
    stratum, cluster : str, optional
        Columns; a column ``stratum`` is taken by itself. A cluster lies in one stratum.
    elements_in_cluster : str, optional
        Column with the number of elements in the element's cluster, where only a random part of a cluster was observed.
    inclusion_probability : str, optional
        Column, for unequal probabilities: variance as if drawn with replacement.
    domain : str, optional
        Column with the zone of each element; one row a zone then.
    total_ha : float, optional
        Area of the frame, for the logit interval and as upper limit.
    min_clusters : int
        Fewer clusters (elements without clusters) with ground in the domain: "not estimable".
    variance : {"linearised", "bootstrap"}
        The bootstrap resamples clusters within strata, without finite population correction.
    replicates, seed : int
        Of the bootstrap.
    confidence : float
        Level of the intervals, which are Student's with clusters minus strata degrees of freedom.
    interval : {"normal", "logit"}
        ``logit`` (with ``total_ha``) suits shares near zero.

    Returns
    -------
    pandas.DataFrame
        Index ``zone`` ("all" without ``domain``): ``area_ha, se_ha, ci_low_ha, ci_high_ha`` (NaN where not estimable), ``n``
        (elements), ``n_clusters``, ``n_class`` (elements that hold the class), ``degrees_of_freedom``, ``status`` ("estimated",
        "rough": fewer than 10 elements hold the class, "not estimable"), ``note`` (empty, or that the interval has no width). ``attrs``: ``estimator, variance, confidence,
        coefficients``.

    Raises
    ------
    InputRefused
        A column is missing, or holds what can't be.
    AccuracyError
        The design is incomplete: no population, a stratum without a sample, clusters across strata.

    References
    ----------
    Särndal, C.-E., Swensson, B. and Wretman, J. (1992), Model Assisted Survey Sampling, chapters 4 to 8 and 10. Gallego, F. J.
    (2004), Remote sensing and land cover area estimation, International Journal of Remote Sensing 25(15), 3019-3047. Rao, J. N.
    K., Wu, C. F. J. and Yue, K. (1992), Survey Methodology 18, 209-217.

    Examples
    --------
    >>> units = pd.DataFrame({"coca_ha": [2.0, 0.0, 1.0, 3.0] * 3, "mapped_ha": [1.5, 0.2, 0.9, 2.0] * 3})
    >>> frame_area(units, population=120)["area_ha"].tolist()
    [180.0]
    >>> by_map = frame_area(units, population=120, estimator="ratio", auxiliary="mapped_ha", auxiliary_total=130.0)
    >>> by_map.round(1)[["area_ha", "se_ha"]].values.tolist()
    [[169.6, 8.1]]
    """
    columns = [auxiliary] if isinstance(auxiliary, str) else list(auxiliary)
    used = [value, *columns, *(name for name in (cluster, elements_in_cluster, inclusion_probability, domain) if name)]
    table = _checked(units, used, value)
    design = _design(table, population, _stratum(table, stratum), cluster, elements_in_cluster, inclusion_probability)
    y = table[value].to_numpy(dtype=float)
    totals = _totals(columns, auxiliary_total)
    if estimator not in ESTIMATORS:
        raise InputRefused(f"estimator must be one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    if estimator == "regression" and population_elements is None and cluster is None and population is not None:
        population_elements = _elements(population)
    x, intercept = _auxiliaries(table, columns, totals, estimator, population_elements)
    zones = ["all"] if domain is None else sorted({*table[domain].astype(str)} - {"", "nan", "None", "<NA>"})
    names = np.full(len(table), "all") if domain is None else table[domain].astype(str).to_numpy()
    weights = bootstrap_weights(design, replicates, seed) if variance == "bootstrap" else None
    rows, slopes = [], {}
    for zone in zones:
        inside = names == zone
        assisted = _assisted(estimator, x, columns, totals, intercept, zone, inside)
        here = np.where(inside, y, 0.0)
        rows.append(_row(here, inside, design, assisted, weights, min_clusters, confidence, interval, total_ha))
        slopes[zone] = assisted.coefficients(here, design.weight).tolist()
    out = pd.DataFrame(rows, index=pd.Index(zones, name="zone"))
    out.attrs.update({"estimator": estimator, "variance": variance, "confidence": confidence, "coefficients": slopes})
    return out


@dataclass(frozen=True)
class _Assisted:
    """An estimator of a total that may lean on auxiliary variables.

    ``x`` is float64 ``(n, p)``, ``totals`` float64 ``(p,)``.
    """

    name: str
    x: np.ndarray
    totals: np.ndarray

    def coefficients(self, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Slope of value on auxiliaries."""
        if self.name == "difference":
            return np.ones(self.x.shape[1])
        if self.name == "ratio":
            below = float(weight @ self.x[:, 0])
            return np.array([float(weight @ y) / below if below > 0 else np.nan])
        if self.name == "regression":
            slopes: np.ndarray = np.linalg.lstsq(
                self.x.T @ (self.x * weight[:, None]), self.x.T @ (weight * y), rcond=None
            )[0]
            return slopes
        return np.zeros(0)

    def total(self, y: np.ndarray, weight: np.ndarray) -> float:
        """Estimated total of the value."""
        expanded = float(weight @ y)
        if self.name == "expansion":
            return expanded
        return expanded + float((self.totals - weight @ self.x) @ self.coefficients(y, weight))

    def residuals(self, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """What the sampling error of the total comes from, element by element (with the weights of calibration)."""
        if self.name == "expansion":
            return y
        rest: np.ndarray = y - self.x @ self.coefficients(y, weight)
        if self.name == "difference":
            return rest
        if self.name == "ratio":
            return rest * self.totals[0] / float(weight @ self.x[:, 0])
        cross = self.x.T @ (self.x * weight[:, None])
        pull = np.linalg.lstsq(cross, self.totals - weight @ self.x, rcond=None)[0]
        return rest * (1.0 + self.x @ pull)


def _assisted(
    estimator: str,
    x: np.ndarray,
    columns: list[str],
    totals: dict[str, Any],
    intercept: float | None,
    zone: str,
    inside: np.ndarray,
) -> _Assisted:
    """The estimator for one zone, with the zone's own totals where they are known."""
    if estimator == "expansion":
        return _Assisted(estimator, np.zeros((len(x), 0)), np.zeros(0))
    own = [isinstance(totals[name], Mapping | pd.Series) for name in columns]
    if any(own) and not all(own):
        raise InputRefused("give auxiliary totals of the whole frame, or of each zone, for all auxiliaries alike")
    if not any(own):
        known = np.array([float(totals[name]) for name in columns])
        if intercept is not None:
            x, known = np.column_stack([np.ones(len(x)), x]), np.concatenate([[intercept], known])
        return _Assisted(estimator, x, known)
    lacking = [name for name in columns if zone not in totals[name]]
    if lacking:
        raise InputRefused(f"auxiliary_total of {', '.join(lacking)} lacks the zone {zone}")
    return _Assisted(estimator, x * inside[:, None], np.array([float(totals[name][zone]) for name in columns]))


def _row(
    here: np.ndarray,
    inside: np.ndarray,
    design: SampledUnits,
    assisted: _Assisted,
    weights: np.ndarray | None,
    min_clusters: int,
    confidence: float,
    interval: str,
    total_ha: float | None,
) -> dict[str, Any]:
    counts = {
        "n": int(inside.sum()),
        "n_clusters": len(np.unique(design.cluster[inside])),
        "n_class": int((here > 0).sum()),
        "degrees_of_freedom": max(degrees_of_freedom(design, inside) - max(assisted.x.shape[1] - 1, 0), 0),
    }
    unknown = dict.fromkeys(_FIGURES, np.nan) | counts | {"status": "not estimable", "note": ""}
    if counts["n_clusters"] < max(min_clusters, 2) or counts["degrees_of_freedom"] < 1:
        return unknown
    area = assisted.total(here, design.weight)
    if weights is None:
        spread = total_covariance(assisted.residuals(here, design.weight)[:, None], design)[0, 0]
    else:
        # a replicate may draw no cluster with an auxiliary above zero
        spread = np.nanvar([assisted.total(here, weight) for weight in weights], ddof=1)
    if not (np.isfinite(spread) and np.isfinite(area)):
        return unknown
    se = float(np.sqrt(max(spread, 0.0)))
    low, high = _limits(area, se, counts["degrees_of_freedom"], confidence, interval, total_ha)
    status = "rough" if counts["n_class"] < _FEW else "estimated"
    figures = {"area_ha": area, "se_ha": se, "ci_low_ha": low, "ci_high_ha": high}
    return figures | counts | {"status": status, "note": _note(se, design, counts["n_class"])}


def _note(se: float, design: SampledUnits, n_class: int) -> str:
    """Why an interval without a width is not to be trusted; nothing where every cluster of the frame was observed."""
    frame = design.clusters_in_stratum
    every = False
    if frame is not None and design.elements_in_cluster is None:
        every = bool((np.bincount(design.stratum_of_cluster) >= frame).all())
    if se > 0 or every:
        return ""
    if n_class == 0:
        return "zero-width interval: no observed unit holds the class, which does not prove that there is none"
    return "zero-width interval: the observed units do not differ, which does not prove that the others are like them"


def _limits(
    area: float, se: float, df: int, confidence: float, interval: str, total_ha: float | None
) -> tuple[float, float]:
    if interval not in ("normal", "logit"):
        raise InputRefused(f"interval must be 'normal' or 'logit', got {interval!r}")
    quantile = t_quantile(confidence, df)
    top = np.inf if total_ha is None else total_ha
    if interval == "normal":
        return max(area - quantile * se, 0.0), float(min(max(area + quantile * se, 0.0), top))
    if total_ha is None:
        raise InputRefused("a logit interval needs the area of the frame; give total_ha")
    low, high = interval_of_share(min(max(area / top, 0.0), 1.0), se / top, confidence, "logit", quantile=quantile)
    return low * top, high * top


def _checked(units: pd.DataFrame, names: Sequence[str], value: str) -> pd.DataFrame:
    missing = [name for name in names if name not in units.columns]
    if missing:
        raise InputRefused(
            f"the units lack the columns {', '.join(missing)}, have {', '.join(map(str, units.columns))}"
        )
    if units.empty:
        raise AccuracyError("an estimate needs observed units, got none")
    table = pd.DataFrame(units).reset_index(drop=True)
    numbers = pd.to_numeric(table[value], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if not np.isfinite(numbers).all():
        raise InputRefused(
            f"{int((~np.isfinite(numbers)).sum())} of {len(table)} units have no number in {value}; leave out units that were "
            "not observed (then the rest stands for them), or observe them"
        )
    return table


def _stratum(table: pd.DataFrame, stratum: str | None) -> np.ndarray:
    name = stratum or ("stratum" if "stratum" in table.columns else None)
    if name is None:
        return np.full(len(table), "all")
    if name not in table.columns:
        raise InputRefused(f"the units have no column {name!r}, only {', '.join(map(str, table.columns))}")
    return table[name].astype(str).to_numpy()


def _elements(population: Any) -> float:
    return float(sum(dict(population).values())) if isinstance(population, Mapping | pd.Series) else float(population)


def _design(
    table: pd.DataFrame,
    population: Any,
    stratum: np.ndarray,
    cluster: str | None,
    elements_in_cluster: str | None,
    inclusion_probability: str | None,
) -> SampledUnits:
    names, numbers = np.unique(stratum, return_inverse=True)
    labels = np.arange(len(table)) if cluster is None else pd.factorize(table[cluster].astype(str))[0]
    units = SampledUnits(np.ones(len(table)), numbers, labels)
    home = units.stratum_of_cluster
    drawn = np.bincount(home, minlength=len(names)).astype(float)
    if inclusion_probability is not None:
        chance = table[inclusion_probability].to_numpy(dtype=float)
        if not ((chance > 0) & (chance <= 1)).all():
            raise InputRefused(f"{inclusion_probability} must lie above 0 and not above 1")
        return replace(units, weight=1.0 / chance)
    sizes = _sizes(population, names, drawn)
    weight = (sizes / drawn)[numbers]
    if elements_in_cluster is None:
        return replace(units, weight=weight, clusters_in_stratum=sizes)
    if cluster is None:
        raise InputRefused("elements_in_cluster needs the column of the clusters; give cluster=")
    given = table[elements_in_cluster].to_numpy(dtype=float)
    count = np.bincount(labels)
    inside = np.zeros(len(count))
    inside[labels] = given
    if (inside[labels] != given).any() or (inside < count).any():
        raise InputRefused(
            f"{elements_in_cluster} must be one number for each cluster, and no less than the elements observed in it"
        )
    weight = weight * inside[labels] / count[labels]
    return replace(units, weight=weight, clusters_in_stratum=sizes, elements_in_cluster=inside)


def _sizes(population: Any, names: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    if population is None:
        raise AccuracyError(
            "the number of units in the frame is not known; give population= (for each stratum), or inclusion_probability="
        )
    if isinstance(population, Mapping | pd.Series):
        known = {str(key): float(size) for key, size in population.items()}
        absent = sorted(name for name, size in known.items() if size > 0 and name not in names)
        if absent:
            raise AccuracyError(
                f"strata {', '.join(absent)} have units but no sample, so nothing is known of them; draw samples there, or join "
                "them with another stratum"
            )
        lacking = [name for name in names if name not in known]
        if lacking:
            raise InputRefused(f"population lacks the strata {', '.join(lacking)}")
        sizes = np.array([known[name] for name in names])
    elif len(names) == 1:
        sizes = np.array([float(population)])
    else:
        raise InputRefused(f"population must be given for each of the strata {', '.join(names)}")
    if (sizes < drawn).any():
        raise InputRefused(f"population {sizes.tolist()} is smaller than the sample {drawn.tolist()}")
    return sizes


def _totals(columns: list[str], given: float | Mapping[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(name): total for name, total in given.items()}
    if len(columns) != 1:
        raise InputRefused(f"auxiliary_total must name the total of each of {', '.join(columns) or 'no auxiliary'}")
    return {columns[0]: float(given)}


def _auxiliaries(
    table: pd.DataFrame,
    columns: list[str],
    totals: dict[str, Any],
    estimator: str,
    population_elements: float | None,
) -> tuple[np.ndarray, float | None]:
    """Auxiliary values of the elements, and the total of an intercept where there is one."""
    if estimator == "expansion":
        return np.zeros((len(table), 0)), None
    if not columns or (estimator == "ratio" and len(columns) != 1):
        raise InputRefused(
            f"the {estimator} estimator needs {'one' if estimator == 'ratio' else 'an'} auxiliary column"
        )
    lacking = [name for name in columns if name not in totals]
    if lacking:
        raise InputRefused(f"auxiliary_total lacks {', '.join(lacking)}: their totals over the frame must be known")
    x = table[columns].to_numpy(dtype=float)
    if not np.isfinite(x).all():
        raise InputRefused(f"auxiliary columns {', '.join(columns)} must be numbers for every unit")
    if estimator == "ratio" and not (x.sum() > 0 and (x >= 0).all()):
        raise AccuracyError(
            f"a ratio to {columns[0]} needs it to be zero or more, and above zero somewhere in the sample"
        )
    return x, population_elements if estimator == "regression" else None
