"""Lines through a short series by least squares, and slopes that carry the errors of the estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geococa.autocorrelation import PHI, ar1_correlation, prior_weights
from geococa.mann_kendall import theil_sen_many

__all__ = ["Line", "bootstrap_slopes", "error_covariance", "gls_line", "normal_interval", "ols_line", "wls_line"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A fitted slope, its interval and p-value.

    Attributes
    ----------
    slope, low, high : float
        Per year, with the ends of the interval.
    p_value : float
        Two-sided, of no slope.
    phi : float
        Lag-one correlation that the fit found or assumed.
    """

    slope: float
    low: float
    high: float
    p_value: float
    phi: float = 0.0


def ols_line(years: F64, values: F64, confidence: float = 0.95) -> Line:
    """Ordinary least squares: independent years of equal variance.

    Examples
    --------
    >>> round(ols_line(np.array([2001.0, 2002.0, 2003.0, 2004.0]), np.array([1.0, 3.0, 4.0, 8.0])).slope, 3)
    2.2
    """
    return _mixture(years, values, np.eye(years.size)[None], np.ones(1), confidence)


def wls_line(years: F64, values: F64, se: F64, confidence: float = 0.95) -> Line:
    """Weighted least squares with weights 1 / se^2: the estimates' own variances.

    The standard error grows where the years scatter more than their errors allow (Birge ratio) and never shrinks below
    what the errors imply.

    Parameters
    ----------
    years, values : ndarray of float64, shape (n,)
        Years and hectares.
    se : ndarray of float64, shape (n,) or (n, n)
        Standard errors of the hectares (positive), or the covariance of their errors.
    confidence : float, default 0.95
        Level of the interval.
    """
    return _mixture(years, values, error_covariance(se)[None], np.ones(1), confidence, scale_floor=1.0)


def gls_line(years: F64, values: F64, se: F64 | None = None, confidence: float = 0.95) -> Line:
    """Generalised least squares: AR(1) years of unknown correlation, with the estimates' own variances where given.

    The correlation, and with ``se`` the share of the process in the variance, are averaged out over grids by restricted
    likelihood: a plugged-in estimate would make the interval too narrow in short series.

    Parameters
    ----------
    years, values : ndarray of float64, shape (n,)
        Years and hectares.
    se : ndarray of float64, shape (n,) or (n, n), optional
        Standard errors of the estimates, or the covariance of their errors.
    confidence : float, default 0.95
        Level of the interval.
    """
    step = float(np.median(np.diff(years)))
    processes = np.stack([ar1_correlation((years - years[0]) / step, float(phi)) for phi in PHI])
    prior = prior_weights(years.size)
    if se is None or not (se > 0).any():
        return _mixture(years, values, processes, prior, confidence, phis=PHI)
    sampling = error_covariance(se)
    size = float(np.mean(np.diag(sampling)))
    # from no process at all to ten times the scatter about a straight line
    top = max(10.0, 10 * float(np.polyfit(years - years.mean(), values, 1, full=True)[1].sum()) / (years.size * size))
    ratios = np.concatenate([[0.0], np.geomspace(top / 1e4, top, 9)])
    if np.linalg.eigvalsh(sampling)[0] <= 1e-9 * size:
        # errors that leave some sum of the years without error can't stand alone
        ratios = ratios[1:]
    covariances = np.concatenate([sampling + size * ratio * processes for ratio in ratios])
    phis, weights = np.tile(PHI, ratios.size), np.tile(prior, ratios.size)
    return _mixture(years, values, covariances, weights, confidence, phis=phis, scale_floor=1.0, known_scale=True)


def _mixture(
    years: F64,
    values: F64,
    covariances: F64,
    prior: F64,
    confidence: float,
    *,
    phis: F64 | None = None,
    scale_floor: float = 0.0,
    known_scale: bool = False,
) -> Line:
    """Mix the t distributions of the slope under each covariance by restricted likelihood times prior."""
    n = years.size
    design = np.column_stack([np.ones(n), years - years.mean()])
    # the rounded mean of equal values need not be the value
    y = values - values.mean() if np.ptp(values) else np.zeros(n)
    inverse = np.linalg.inv(covariances)
    weighted = inverse @ design
    information = design.T @ weighted
    unscaled = np.linalg.inv(information)
    beta = (unscaled @ (np.swapaxes(weighted, 1, 2) @ y)[:, :, None])[:, :, 0]
    residual = y[None] - beta @ design.T
    rss = np.maximum((residual * (inverse @ residual[:, :, None])[:, :, 0]).sum(axis=1), 0.0)
    log_weight = np.log(prior) - 0.5 * (np.linalg.slogdet(covariances)[1] + np.linalg.slogdet(information)[1])
    if known_scale:
        log_weight -= 0.5 * rss
    elif (residual[0] ** 2).sum() > 1e-12 * float(y @ y):
        log_weight -= 0.5 * (n - 2) * np.log(np.maximum(rss, 1e-12 * rss[0]))
    else:
        # rounding errors about an exact line say nothing about the noise
        log_weight = np.log(prior)
    weights = np.exp(log_weight - log_weight.max())
    weights /= weights.sum()
    scale = np.maximum(rss / (n - 2), scale_floor)
    errors = np.sqrt(scale * unscaled[:, 1, 1])
    slopes = beta[:, 1]
    phi = 0.0 if phis is None else float(weights @ phis)
    low, high = (_quantile(slopes, errors, weights, n - 2, q) for q in (0.5 - confidence / 2, 0.5 + confidence / 2))
    below = _distribution(0.0, slopes, errors, weights, n - 2)
    flat = not y.any()
    return Line(float(weights @ slopes), low, high, 1.0 if flat else min(1.0, 2 * min(below, 1 - below)), phi)


def _distribution(x: float, slopes: F64, errors: F64, weights: F64, df: int) -> float:
    from scipy.special import stdtr

    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(errors > 0, (x - slopes) / errors, np.sign(x - slopes) * np.inf)
    return float(weights @ stdtr(df, np.nan_to_num(z, nan=0.0, posinf=1e300, neginf=-1e300)))


def _quantile(slopes: F64, errors: F64, weights: F64, df: int, q: float) -> float:
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    # the quantile of a mixture lies among those of its parts
    parts = slopes + errors * float(stdtrit(df, q))
    low, high = float(parts.min()), float(parts.max())

    def surplus(x: float) -> float:
        return _distribution(x, slopes, errors, weights, df) - q

    if high - low <= 1e-12 * max(abs(low), abs(high)) or surplus(low) >= 0:
        return low
    return high if surplus(high) <= 0 else float(brentq(surplus, low, high, xtol=1e-12 * (high - low), rtol=1e-14))


def bootstrap_slopes(years: F64, values: F64, se: F64, *, replicates: int = 2000, seed: int | list[int] = 0) -> F64:
    """Theil-Sen slopes of series redrawn from the estimates and their standard errors (parametric bootstrap).

    Parameters
    ----------
    years, values : ndarray of float64, shape (n,)
        Years and estimated hectares.
    se : ndarray of float64, shape (n,) or (n, n)
        Standard errors of independent estimates, or the covariance of their errors.
    replicates : int, default 2000
        Redrawn series.
    seed : int or list of int
        Same seed, same slopes.

    Returns
    -------
    ndarray of float64, shape (replicates,)
        Sorted. Draws are not cut at zero hectares, which would bend the slopes of small areas.

    References
    ----------
    Efron, B., Tibshirani, R. J. (1993). An Introduction to the Bootstrap. Chapman & Hall.
    """
    noise = np.random.default_rng(seed).standard_normal((replicates, years.size))
    if se.ndim == 1:
        return np.sort(theil_sen_many(years, values + noise * se))
    # a root by eigenvalues, since years that never change make the covariance singular
    size, vectors = np.linalg.eigh(se)
    # what rounding leaves of an eigenvalue of nought is no error
    roots = np.sqrt(np.where(size > 1e-12 * size.max(initial=0.0), size, 0.0))
    return np.sort(theil_sen_many(years, values + (noise * roots) @ vectors.T))


def error_covariance(se: F64) -> F64:
    """Covariance of errors given as it is, or as the standard errors of independent years."""
    return np.asarray(np.diag(se**2) if se.ndim == 1 else se, dtype=np.float64)


def normal_interval(estimate: float, draws: F64, confidence: float) -> tuple[float, float]:
    """Interval of an estimate from the spread of its bootstrap draws."""
    from statistics import NormalDist

    half = NormalDist().inv_cdf(0.5 + confidence / 2) * float(np.std(draws))
    return (estimate - half, estimate + half) if math.isfinite(half) else (math.nan, math.nan)
