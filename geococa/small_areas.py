"""Composite small-area estimates: parks with few samples lean on the mapped hectares of all. Model-based, and labelled so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from geococa.errors import AccuracyError, InputRefused
from geococa.survey_estimators import normal_quantile

__all__ = ["BASIS", "composite_area", "fay_herriot"]

BASIS = "model-based (Fay-Herriot)"
"""What the tables say of these hectares, so that nobody takes them for design-based ones."""

Method = Literal["adjusted", "reml", "fay_herriot", "prasad_rao"]


def fay_herriot(
    direct: np.ndarray, variance: np.ndarray, auxiliary: np.ndarray, *, method: Method = "reml"
) -> dict[str, np.ndarray | float]:
    """Fit the area-level model ``direct = auxiliary @ beta + area effect + sampling error`` and predict every area.

    Parameters
    ----------
    direct : numpy.ndarray
        float64 ``(areas,)``, direct estimates; NaN where an area has none.
    variance : numpy.ndarray
        float64 ``(areas,)``, their sampling variances, taken as known; NaN where there is no estimate.
    auxiliary : numpy.ndarray
        float64 ``(areas, p)``, with a column of ones for an intercept.
    method : {"reml", "adjusted", "fay_herriot", "prasad_rao"}
        How the variance of the area effects is found: restricted likelihood, or one of two moment estimators. These may be
        zero, and then every area gets the regression with too small an error; ``adjusted`` is a restricted likelihood that is
        always above zero (Li and Lahiri 2010). Prasad and Rao's closed form errs where sampling variances differ much.

    Returns
    -------
    dict
        ``estimate`` (EBLUP; the regression where there is no direct estimate), ``mse`` (Prasad and Rao's second-order
        estimate of its mean squared error), ``weight`` (of the direct estimate), ``synthetic``, all float64 ``(areas,)``;
        ``beta`` float64 ``(p,)``, ``beta_se``, ``area_variance`` (float).

    Raises
    ------
    AccuracyError
        There are not enough areas with a direct estimate, or the auxiliaries are collinear.

    References
    ----------
    Fay, R. E. and Herriot, R. A. (1979), Estimates of income for small places, Journal of the American Statistical Association 74,
    269-277. Prasad, N. G. N. and Rao, J. N. K. (1990), The estimation of the mean squared error of small-area estimators, Journal
    of the American Statistical Association 85, 163-171. Datta, G. S., Rao, J. N. K. and Smith, D. D. (2005), On measuring the
    variability of small area estimators under a basic area level model, Biometrika 92, 183-196. Li, H. and Lahiri, P. (2010), An
    adjusted maximum likelihood method for solving small area estimation problems, Journal of Multivariate Analysis 101,
    882-892. Rao, J. N. K. and Molina, I. (2015), Small Area Estimation, 2nd ed., chapter 6.

    Examples
    --------
    >>> direct, variance = np.array([1.0, 2.0, 4.0, 3.0, np.nan]), np.array([0.5, 0.5, 0.1, 0.1, np.nan])
    >>> found = fay_herriot(direct, variance, np.ones((5, 1)))
    >>> found["estimate"].round(2).tolist()
    [1.43, 2.17, 3.91, 2.97, 2.62]
    """
    known = np.isfinite(direct) & np.isfinite(variance)
    y, psi, x = direct[known], variance[known], auxiliary[known]
    areas, p = x.shape
    if areas <= p + 1:
        raise AccuracyError(
            f"{areas} zones with a direct estimate are too few for a model with {p} coefficients; use more zones or fewer "
            "auxiliaries"
        )
    if not (psi > 0).all() or np.linalg.matrix_rank(x) < p:
        raise AccuracyError("sampling variances must be positive and auxiliaries not collinear")
    ways = {"adjusted": _adjusted, "reml": _reml, "fay_herriot": _moment, "prasad_rao": _prasad_rao}
    if method not in ways:
        raise InputRefused(f"method must be one of {', '.join(ways)}, got {method!r}")
    found = ways[method](y, psi, x)
    total = found + psi
    cross = np.linalg.inv(x.T @ (x / total[:, None]))
    beta = cross @ (x.T @ (y / total))
    synthetic = auxiliary @ beta
    weight, mse = np.zeros(len(direct)), np.zeros(len(direct))
    weight[known] = found / total
    estimate = synthetic.copy()
    estimate[known] += weight[known] * (y - synthetic[known])
    lever = np.einsum("ij,jk,ik->i", auxiliary, cross, auxiliary)
    mse[~known] = found + lever[~known]
    bias, spread = _precision(method, psi, found)
    g1, g2 = found * psi / total, (psi / total) ** 2 * lever[known]
    g3 = psi**2 / total**3 * spread
    mse[known] = np.maximum(g1 + g2 + 2 * g3 - bias * (psi / total) ** 2, 0.0)
    return {
        "estimate": estimate, "mse": mse, "weight": weight, "synthetic": synthetic, "beta": beta,
        "beta_se": np.sqrt(np.diag(cross)), "area_variance": float(found),
    }  # fmt: skip


def _precision(method: str, psi: np.ndarray, found: float) -> tuple[float, float]:
    """Bias and variance of the estimated variance of the area effects."""
    total = found + psi
    if method == "reml":
        return 0.0, 2.0 / float((1 / total**2).sum())
    if method == "adjusted":
        # the adjustment's upward bias is left in: where little is known of the variance, the error is not to be small
        return 0.0, 2.0 / float((1 / total**2).sum())
    if method == "prasad_rao":
        return 0.0, 2.0 * float((total**2).sum()) / len(psi) ** 2
    one, two = float((1 / total).sum()), float((1 / total**2).sum())
    return 2.0 * (len(psi) * two - one**2) / one**3, 2.0 * len(psi) / one**2


def _residual_sum(y: np.ndarray, psi: np.ndarray, x: np.ndarray, found: float) -> float:
    total = found + psi
    beta = np.linalg.solve(x.T @ (x / total[:, None]), x.T @ (y / total))
    return float(((y - x @ beta) ** 2 / total).sum())


def _moment(y: np.ndarray, psi: np.ndarray, x: np.ndarray) -> float:
    """Fay and Herriot's: the weighted residual sum of squares equals its degrees of freedom."""
    from scipy.optimize import brentq

    df = x.shape[0] - x.shape[1]
    if _residual_sum(y, psi, x, 0.0) <= df:
        return 0.0
    top = float(np.var(y) + psi.max())
    while _residual_sum(y, psi, x, top) > df:
        top *= 2
    return float(brentq(lambda value: _residual_sum(y, psi, x, value) - df, 0.0, top, xtol=1e-14 * max(top, 1e-300)))


def _prasad_rao(y: np.ndarray, psi: np.ndarray, x: np.ndarray) -> float:
    """The closed form from ordinary least squares."""
    hat = np.einsum("ij,jk,ik->i", x, np.linalg.inv(x.T @ x), x)
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return max(float((rest @ rest - psi @ (1 - hat)) / (x.shape[0] - x.shape[1])), 0.0)


def _reml(y: np.ndarray, psi: np.ndarray, x: np.ndarray) -> float:
    """The variance that maximises the restricted likelihood; perhaps zero."""
    return _maximum(y, psi, x, 0.0)


def _adjusted(y: np.ndarray, psi: np.ndarray, x: np.ndarray) -> float:
    """The variance that maximises itself times the restricted likelihood; never zero."""
    return _maximum(y, psi, x, 1.0)


def _maximum(y: np.ndarray, psi: np.ndarray, x: np.ndarray, power: float) -> float:
    """Maximise variance**power times the restricted likelihood, on a grid and then between its points."""
    from scipy.optimize import minimize_scalar

    def loss(value: float) -> float:
        total = value + psi
        cross = x.T @ (x / total[:, None])
        plain = 0.5 * (np.log(total).sum() + np.linalg.slogdet(cross)[1] + _residual_sum(y, psi, x, value))
        return float(plain - power * np.log(value)) if power else float(plain)

    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    top = 10 * float(rest @ rest) / max(x.shape[0] - x.shape[1], 1) + float(psi.min())
    grid = np.geomspace(top * 1e-7, top, 70)
    grid = grid if power else np.concatenate([[0.0], grid])
    losses = np.array([loss(float(value)) for value in grid])
    best = int(losses.argmin())
    if grid[best] == 0.0:
        return 0.0
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    refined = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-10 * (high - low)})
    return float(refined.x)


def composite_area(
    direct: pd.DataFrame,
    zone_area_ha: Mapping[str, float] | pd.Series[Any],
    mapped_area_ha: Mapping[str, float] | pd.Series[Any] | pd.DataFrame,
    *,
    method: Method = "adjusted",
    variance: Literal["smoothed", "direct"] = "smoothed",
    min_direct: int = 2,
    benchmark_ha: float | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Combine each zone's own estimate with what the map says of it, by how much the samples of all zones bear the map out.

    A zone with many samples keeps nearly its own estimate; one with few is drawn to the regression of the estimates on the mapped
    hectares; one with none gets that regression. These hectares are **model-based**: their intervals hold on average over zones
    like these, not for repeated samples of one zone.

    Parameters
    ----------
    direct : pandas.DataFrame
        Index ``zone``: ``area_ha``, ``se_ha``, ``n`` and ``n_class``, as `geococa.accuracy.domain_area` gives them with
        ``min_samples=1`` and ``domain_area_ha``.
    zone_area_ha : mapping of str to float
        Hectares of every zone; zones that ``direct`` lacks have no samples.
    mapped_area_ha : mapping of str to float, or pandas.DataFrame
        Mapped hectares of the class in every zone; or several auxiliary hectares, one column each.
    method : {"adjusted", "reml", "fay_herriot", "prasad_rao"}
        See `fay_herriot`.
    variance : {"smoothed", "direct"}
        ``direct`` takes the standard errors as they are; where few samples are behind them they are noisy, and zero where no coca
        was found. ``smoothed`` replaces them by a common design effect times ``share (1 - share) / n``, with the share
        predicted by the map.
    min_direct : int
        Zones with fewer samples count as without a direct estimate.
    benchmark_ha : float, optional
        Design-based hectares of all zones together; the estimates are scaled to sum to it.
    confidence : float
        Level of the intervals.

    Returns
    -------
    pandas.DataFrame
        Index ``zone``: ``area_ha, se_ha`` (root mean squared error), ``ci_low_ha, ci_high_ha``; ``direct_ha, direct_se_ha``,
        ``synthetic_ha`` (the regression), ``weight_direct`` (0..1), ``n``, ``basis`` ("model-based (Fay-Herriot)"). ``attrs``:
        ``basis, method, area_variance, beta, benchmark_factor``.

    Raises
    ------
    InputRefused
        A zone has no area or no mapped hectares.
    AccuracyError
        Too few zones have a direct estimate.

    References
    ----------
    See `fay_herriot`; for smoothed variances Rao and Molina (2015), section 6.4.1; for the benchmark Pfeffermann, D. (2013), New
    important developments in small area estimation, Statistical Science 28, 40-68.
    """
    areas = pd.Series({str(key): float(value) for key, value in zone_area_ha.items()})
    if not ((areas > 0) & np.isfinite(areas)).all():
        raise InputRefused(f"zones {', '.join(areas.index[~(areas > 0)])} have no area; leave them out")
    x = _auxiliary_shares(mapped_area_ha, areas)
    table = direct.copy()
    table.index = table.index.astype(str)
    strange = sorted(set(table.index) - set(areas.index))
    if strange:
        raise InputRefused(f"zone_area_ha lacks the zones {', '.join(strange)} of the direct estimates")
    table = table.reindex(areas.index)
    n = pd.to_numeric(table["n"]).fillna(0.0).to_numpy(dtype=float)
    share = np.where(n >= min_direct, (table["area_ha"] / areas).to_numpy(dtype=float), np.nan)
    spread = ((table["se_ha"] / areas) ** 2).to_numpy(dtype=float)
    used = np.isfinite(share) & (np.isfinite(spread) | (variance == "smoothed"))
    if used.sum() <= x.shape[1] + 1:
        raise AccuracyError(
            f"{int(used.sum())} zones with a direct estimate are too few to learn from with {x.shape[1]} coefficients"
        )
    psi = np.where(used, _smoothed(share, spread, n, x, used) if variance == "smoothed" else spread, np.nan)
    found = fay_herriot(np.where(used, share, np.nan), psi, x, method=method)
    hectares = areas.to_numpy()
    estimate = np.clip(np.asarray(found["estimate"]), 0.0, 1.0) * hectares
    factor = 1.0 if benchmark_ha is None or estimate.sum() <= 0 else benchmark_ha / float(estimate.sum())
    se = np.sqrt(np.asarray(found["mse"])) * hectares * factor
    half = normal_quantile(confidence) * se
    out = pd.DataFrame(
        {
            "area_ha": estimate * factor, "se_ha": se,
            "ci_low_ha": np.maximum(estimate * factor - half, 0.0),
            "ci_high_ha": np.minimum(estimate * factor + half, hectares),
            "direct_ha": np.where(used, share * hectares, np.nan),
            "direct_se_ha": np.where(used, np.sqrt(psi) * hectares, np.nan),
            "synthetic_ha": np.asarray(found["synthetic"]) * hectares, "weight_direct": found["weight"],
            "n": n.astype(np.int64), "basis": BASIS,
        },
        index=pd.Index(areas.index, name="zone"),
    )  # fmt: skip
    out.attrs.update(
        {
            "basis": BASIS, "method": method, "area_variance": found["area_variance"], "confidence": confidence,
            "beta": np.asarray(found["beta"]).tolist(), "benchmark_factor": factor, "variance": variance,
        }
    )  # fmt: skip
    return out


def _auxiliary_shares(given: Any, areas: pd.Series[Any]) -> np.ndarray:
    """A column of ones and the mapped share of every zone (or several such shares)."""
    table = (
        given if isinstance(given, pd.DataFrame) else pd.DataFrame({"mapped_ha": pd.Series(dict(given), dtype=float)})
    )
    table = table.set_axis(table.index.astype(str))
    lacking = sorted(set(areas.index) - set(table.index[table.notna().all(axis=1)]))
    if lacking:
        raise InputRefused(f"mapped_area_ha lacks the zones {', '.join(lacking)}: the model needs it for every zone")
    shares = table.reindex(areas.index).to_numpy(dtype=float) / areas.to_numpy()[:, None]
    return np.column_stack([np.ones(len(areas)), shares])


def _smoothed(share: np.ndarray, spread: np.ndarray, n: np.ndarray, x: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Sampling variances from a common design effect and the share that the map predicts."""
    heavy = n[used] / n[used].sum()
    slopes = np.linalg.lstsq(x[used] * np.sqrt(heavy)[:, None], share[used] * np.sqrt(heavy), rcond=None)[0]
    # a share of exactly 0 or 1 would be known without error
    floor = 0.5 / float(n[used].sum())
    predicted = np.clip(x @ slopes, floor, 1 - floor)
    plain = predicted * (1 - predicted) / np.maximum(n, 1)
    told = used & np.isfinite(spread) & (spread > 0)
    effect = float(spread[told].sum() / plain[told].sum()) if told.any() else 1.0
    return plain * effect
