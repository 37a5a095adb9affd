"""Mann-Kendall test and Theil-Sen slope of a short series whose years are independent of each other."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_EXACT",
    "critical_s",
    "exact_p_value",
    "kendall_s",
    "kendall_variance",
    "normal_test",
    "pairwise_slopes",
    "slope_interval",
    "theil_sen",
    "theil_sen_many",
    "tie_sizes",
    "untied_pairs",
]

F64 = npt.NDArray[np.float64]

MAX_EXACT = 50
"""Longest series whose p-value comes from the permutation distribution of S rather than from the normal curve."""


def kendall_s(values: F64) -> int:
    """Kendall's S: later values that are higher, less those that are lower, over all pairs.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        In the order of time, without NaN.

    Examples
    --------
    >>> kendall_s(np.array([1.0, 3.0, 2.0, 4.0]))
    4
    """
    return int(np.sign(values[None, :] - values[:, None])[np.triu_indices(values.size, 1)].sum())


def tie_sizes(values: F64) -> tuple[int, ...]:
    """How often each value occurs, the most frequent first; all ones where no two years are equal."""
    return tuple(sorted((int(count) for count in np.unique(values, return_counts=True)[1]), reverse=True))


def untied_pairs(ties: tuple[int, ...]) -> int:
    """Pairs of years with different values: the largest S that the series can have."""
    n = sum(ties)
    return n * (n - 1) // 2 - sum(t * (t - 1) // 2 for t in ties)


def kendall_variance(ties: tuple[int, ...]) -> float:
    """Variance of S under independence, corrected for ties (Kendall 1975)."""
    n = sum(ties)
    return (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18


def normal_test(s: float, variance: float) -> tuple[float, float]:
    """Z and two-sided p-value of S by the normal curve with continuity correction, as in most software."""
    if variance <= 0 or s == 0:
        return 0.0, 1.0
    z = (s - math.copysign(1.0, s)) / math.sqrt(variance)
    return z, math.erfc(abs(z) / math.sqrt(2))


@lru_cache(maxsize=4096)
def _tail_counts(ties: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """For k = 0, 1, ...: orderings with at most k discordant pairs; and the number of orderings.

    The count of orderings by discordant pairs is the Gaussian multinomial coefficient, a product of (1 - q^i) over the
    years divided by the same product over each group of ties. Integers keep every digit.
    """
    top = untied_pairs(ties)
    counts = [1] + [0] * top
    for i in range(1, sum(ties) + 1):
        for k in range(top, i - 1, -1):
            counts[k] -= counts[k - i]
    for size in ties:
        for i in range(1, size + 1):
            for k in range(i, top + 1):
                counts[k] += counts[k - i]
    total, cumulative = 0, []
    for count in counts:
        total += count
        cumulative.append(total)
    return tuple(cumulative), total


def exact_p_value(s: int, ties: tuple[int, ...]) -> float:
    """Two-sided p-value of S from its exact permutation distribution, ties included.

    Parameters
    ----------
    s : int
        Kendall's S.
    ties : tuple of int
        `tie_sizes` of the series.

    Returns
    -------
    float
        Probability of an S at least as far from 0, were every order of the same values equally likely.

    Examples
    --------
    >>> exact_p_value(10, (1, 1, 1, 1, 1)) == 2 / 120
    True
    """
    if s == 0:
        return 1.0
    cumulative, total = _tail_counts(ties)
    return min(1.0, 2 * (cumulative[(untied_pairs(ties) - abs(s)) // 2] / total))


def critical_s(n: int, confidence: float) -> float:
    """Largest distance of S from 0 that a test of n distinct values at 1 - confidence does not reject."""
    ones = (1,) * n
    if n > MAX_EXACT:
        from statistics import NormalDist

        return NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(kendall_variance(ones))
    top = untied_pairs(ones)
    accepted = [s for s in range(top, -1, -2) if exact_p_value(s, ones) > 1 - confidence]
    return float(accepted[0])


def pairwise_slopes(years: F64, values: F64) -> F64:
    """Slopes between all pairs of years, in ascending order.

    Parameters
    ----------
    years, values : ndarray of float64, shape (n,)
        Distinct years and their hectares.

    Returns
    -------
    ndarray of float64, shape (n (n - 1) / 2,)
    """
    return np.sort(_slopes(years, values))


def _slopes(years: F64, values: F64) -> F64:
    i, j = np.triu_indices(years.size, 1)
    return np.asarray((values[..., j] - values[..., i]) / (years[j] - years[i]), dtype=np.float64)


def theil_sen(years: F64, values: F64) -> float:
    """Median of the slopes between all pairs of years (Sen 1968): per actual year, whatever the spacing.

    Examples
    --------
    >>> theil_sen(np.array([2001.0, 2002.0, 2005.0]), np.array([1.0, 4.0, 13.0]))
    3.0
    """
    return float(np.median(_slopes(years, values)))


def theil_sen_many(years: F64, values: F64) -> F64:
    """Theil-Sen slope of many series over the same years: ``(series, n)`` to ``(series,)``."""
    # a block of series at a time, so that long ones fit in memory
    block = max(1, 4_000_000 // years.size**2)
    parts = [np.median(_slopes(years, values[k : k + block]), axis=1) for k in range(0, len(values), block)]
    return np.concatenate(parts)


def slope_interval(slopes: F64, critical: float, *, between: bool = False) -> tuple[float, float]:
    """Interval of the slope: every rate that, taken off the series, leaves S within ``critical`` of 0.

    Parameters
    ----------
    slopes : ndarray of float64
        Sorted `pairwise_slopes`.
    critical : float
        Largest S that is accepted.
    between : bool, default False
        Whether ``critical`` is the quantile of a smooth curve rather than a value that S can take: S then runs
        linearly from one slope to the next.

    Returns
    -------
    tuple of float
        Low and high end. A rate r gives S = (slopes above r) - (slopes below r), so the accepted rates lie between two
        order statistics. NaN where even the outermost slopes would be accepted: the series is too short to bound it.
    """
    # just above the k-th of M slopes S is M - 2k; at the slope itself, which counts half to either side, M - 2k + 1
    rank = (slopes.size - critical - (1 if between else 2)) / 2
    if rank < 0:
        return math.nan, math.nan
    low, high = (float(np.interp(r, np.arange(slopes.size), slopes)) for r in (rank, slopes.size - 1 - rank))
    return low, high
