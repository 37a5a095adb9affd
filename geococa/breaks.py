"""Break points of a short series: one shift of level (Pettitt), one or two changes of slope (segments, BIC)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from geococa.autocorrelation import ar1_correlation

__all__ = ["BIC_MARGIN", "MIN_SEGMENT", "Segments", "Shift", "pettitt", "segmented"]

F64 = npt.NDArray[np.float64]

BIC_MARGIN = 8.0
"""By how much the BIC of a bent line must beat the straight one.

Above 6 is "strong", above 10 "very strong" on the scale of Kass and Raftery (1995). How many series without a bend get one all the
same, by length and correlation, is measured in ``docs/trend_levels.md``.
"""

MIN_SEGMENT = 4
"""Fewest years from one end or break to the next, both included."""

_MAX_PLACES = 60

_PHI: F64 = np.arange(0.0, 0.95, 0.1)


@dataclass(frozen=True)
class Shift:
    """Most likely single shift of level.

    Attributes
    ----------
    last_year_before : float
        Last year before the shift.
    statistic : float
        Pettitt's K.
    p_value : float
        Of no shift, for independent years; too small where years resemble their neighbours.
    """

    last_year_before: float
    statistic: float
    p_value: float


@dataclass(frozen=True)
class Segments:
    """A line with bends.

    Attributes
    ----------
    breaks : tuple of float
        Years of the bends; empty where a straight line does.
    slopes, errors : tuple of float
        Slope of each piece per year, and its standard error under AR(1) noise.
    bic_gain : float
        BIC of the straight line less BIC of this one; 0 without bends.
    """

    breaks: tuple[float, ...]
    slopes: tuple[float, ...]
    errors: tuple[float, ...]
    bic_gain: float

    @property
    def opposed(self) -> bool:
        """Whether one piece rises and another falls, each beyond two standard errors."""
        clear = [s for s, e in zip(self.slopes, self.errors, strict=True) if abs(s) > 2 * e]
        return any(s > 0 for s in clear) and any(s < 0 for s in clear)


def pettitt(years: F64, values: F64) -> Shift:
    """Pettitt's test for one shift of level.

    Parameters
    ----------
    years, values : ndarray of float64, shape (n,)
        In the order of time.

    Returns
    -------
    Shift
        With Pettitt's approximate two-sided p-value, at most 1.

    References
    ----------
    Pettitt, A. N. (1979). A non-parametric approach to the change-point problem. Applied Statistics 28, 126-135.

    Examples
    --------
    >>> pettitt(np.arange(2001.0, 2011.0), np.array([1.0, 2, 1, 2, 1, 8, 9, 8, 9, 8])).last_year_before
    2005.0
    """
    n = values.size
    signs = np.sign(values[:, None] - values[None, :])
    # U_t compares the first t values with the rest
    u = np.array([signs[:t, t:].sum() for t in range(1, n)])
    k = float(np.abs(u).max())
    p = min(1.0, 2 * math.exp(-6 * k * k / (n**3 + n**2)))
    return Shift(float(years[int(np.abs(u).argmax())]), k, p)


def segmented(years: F64, values: F64, *, max_breaks: int = 2, margin: float = BIC_MARGIN) -> Segments:
    """Continuous line with no, one or two bends, chosen by BIC under AR(1) noise.

    Every model is fitted by maximum likelihood with its own lag-one correlation, so that slow noise is not taken for
    bends. A bend costs two parameters, its year and its change of slope. Bends are sought at observed years with at least
    `MIN_SEGMENT` years on either side; series shorter than two such pieces stay straight.

    Parameters
    ----------
    years, values : ndarray of float64, shape (n,)
        In the order of time, n >= 3.
    max_breaks : int, default 2
        Largest number of bends tried, at most 2.
    margin : float, default `BIC_MARGIN`
        BIC gain over the straight line, and of the second bend over the first, that a bend must bring.

    Returns
    -------
    Segments

    References
    ----------
    Kim, H.-J., Fay, M. P., Feuer, E. J., Midthune, D. N. (2000). Permutation tests for joinpoint regression with
    applications to cancer rates. Statistics in Medicine 19, 335-351.

    Kass, R. E., Raftery, A. E. (1995). Bayes factors. Journal of the American Statistical Association 90, 773-795.

    Examples
    --------
    >>> years = np.arange(2001.0, 2021.0)
    >>> values = 10 * np.abs(years - 2011) + np.tile([1.0, -1, 2, -2], 5)
    >>> segmented(years, values).breaks
    (2011.0,)
    """
    spread = float(((values - values.mean()) ** 2).sum())
    whitened = _whitened(tuple(years.tolist()))
    best = _fit(years, values, [()], whitened, spread)
    straight = best.bic
    for count in range(1, max_breaks + 1):
        candidates = _candidates(years.size, count)
        if not candidates or spread == 0:
            break
        fit = _fit(years, values, candidates, whitened, spread)
        if best.bic - fit.bic >= margin:
            best = fit
    slopes = np.cumsum(best.beta[1:])
    sums = np.tril(np.ones((slopes.size, slopes.size)))
    errors = np.sqrt(np.maximum(np.diag(sums @ best.covariance[1:, 1:] @ sums.T), 0.0))
    breaks = tuple(float(years[k]) for k in best.knots)
    return Segments(breaks, tuple(map(float, slopes)), tuple(map(float, errors)), float(straight - best.bic))


@dataclass(frozen=True)
class _Fit:
    bic: float
    knots: tuple[int, ...]
    beta: F64
    covariance: F64


def _candidates(n: int, count: int) -> list[tuple[int, ...]]:
    """Positions of ``count`` bends that leave every piece `MIN_SEGMENT` years, a bend counted on both its sides."""
    gap = MIN_SEGMENT - 1
    # pairs of bends grow with the square of the years: long series are searched at evenly spread years
    places = sorted({int(k) for k in np.linspace(gap, n - gap - 1, min(max(n - 2 * gap, 0), _MAX_PLACES))})
    return [
        knots
        for knots in combinations(places, count)
        if all(later - earlier >= gap for earlier, later in pairwise(knots))
    ]


@lru_cache(maxsize=64)
def _whitened(years: tuple[float, ...]) -> list[tuple[F64, float]]:
    """Whitening matrix and log determinant of AR(1) noise for each correlation tried."""
    t = np.asarray(years)
    steps = (t - t[0]) / float(np.median(np.diff(t)))
    pairs = []
    for phi in _PHI:
        factor = np.linalg.cholesky(ar1_correlation(steps, float(phi)))
        pairs.append((np.linalg.inv(factor), 2 * float(np.log(np.diag(factor)).sum())))
    return pairs


def _fit(
    years: F64, values: F64, candidates: list[tuple[int, ...]], whitened: list[tuple[F64, float]], spread: float
) -> _Fit:
    """Best of the candidate sets of bends over all correlations."""
    n, count = years.size, len(candidates[0])
    t = years - years.mean()
    y = values - values.mean()
    designs = np.empty((len(candidates), n, 2 + count))
    designs[:, :, 0], designs[:, :, 1] = 1.0, t
    for c, knots in enumerate(candidates):
        for b, k in enumerate(knots):
            designs[c, :, 2 + b] = np.maximum(t - t[k], 0.0)
    best: _Fit | None = None
    for whitening, log_determinant in whitened:
        x, target = whitening @ designs, whitening @ y
        inverse = np.linalg.inv(np.swapaxes(x, 1, 2) @ x)
        beta = np.einsum("cab,cib,i->ca", inverse, x, target)
        rss = ((target[None] - np.einsum("cia,ca->ci", x, beta)) ** 2).sum(axis=1)
        # rounding errors of an exact line are no evidence of a bend
        rss = np.maximum(rss, max(1e-10 * spread, 1e-300))
        c = int(rss.argmin())
        # intercept, slope, variance and correlation, and two for each bend
        bic = n * math.log(rss[c] / n) + log_determinant + (4 + 2 * count) * math.log(n)
        if best is None or bic < best.bic:
            best = _Fit(bic, candidates[c], beta[c], inverse[c] * (rss[c] / max(n - 2 - 2 * count, 1)))
    assert best is not None
    return best
