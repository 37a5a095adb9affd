"""Trend statistics written the slow and plain way, to hold the fast ones against."""

from __future__ import annotations

import math
from itertools import combinations, pairwise, permutations
from statistics import median


def kendall(values):
    """S, and its variance with every group of ties."""
    s = sum((b > a) - (b < a) for a, b in combinations(values, 2))
    n = len(values)
    groups = [list(values).count(v) for v in set(values)]
    variance = n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in groups)
    return s, variance / 18


def normal_p(s, variance):
    """Z and two-sided p of S with continuity correction."""
    if s == 0 or variance == 0:
        return 0.0, 1.0
    z = (s - 1 if s > 0 else s + 1) / math.sqrt(variance)
    return z, math.erfc(abs(z) / math.sqrt(2))


def permutation_p(values):
    """Two-sided p of S over all orders of the values."""
    s = abs(kendall(values)[0])
    found = [abs(kendall(order)[0]) >= s for order in permutations(values)]
    return sum(found) / len(found)


def sen(years, values):
    """Median slope over all pairs of years."""
    pairs = combinations(zip(years, values, strict=True), 2)
    return median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)


def pettitt(values):
    """Pettitt's K and the number of values before the shift."""
    best, where = -1, 0
    for t in range(1, len(values)):
        u = abs(sum((a > b) - (a < b) for a in values[:t] for b in values[t:]))
        if u > best:
            best, where = u, t
    return best, where


def benjamini_hochberg(p_values):
    """Adjusted p-values."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    running = 1.0
    for rank in range(len(order), 0, -1):
        k = order[rank - 1]
        running = min(running, p_values[k] * len(order) / rank)
        adjusted[k] = running
    return adjusted


def inverted_interval(years, values, critical):
    """Ends of the slopes r for which the S of (values - r * years) lies within the critical one, by trying them all."""
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(zip(years, values, strict=True), 2))
    between = [(a + b) / 2 for a, b in pairwise(slopes)]
    accepted = [r for r in between if abs(sum((x > r) - (x < r) for x in slopes)) <= critical]
    low = max(x for x in slopes if x <= min(accepted))
    high = min(x for x in slopes if x >= max(accepted))
    return low, high


def generalised_slope(design, values, covariance):
    """Second coefficient of generalised least squares, by solving the normal equations in exact fractions."""
    from fractions import Fraction

    n = len(values)
    rows = [[Fraction(x) for x in line] for line in covariance]
    right = [[Fraction(d) for d in line] + [Fraction(v)] for line, v in zip(design, values, strict=True)]
    solved = _solve(rows, right)
    normal = [[sum(Fraction(design[k][i]) * solved[k][j] for k in range(n)) for j in range(3)] for i in range(2)]
    return float(_solve([line[:2] for line in normal], [[line[2]] for line in normal])[1][0])


def _solve(matrix, right):
    """Gauss-Jordan elimination."""
    n = len(matrix)
    lines = [list(a) + list(b) for a, b in zip(matrix, right, strict=True)]
    for k in range(n):
        pivot = next(i for i in range(k, n) if lines[i][k])
        lines[k], lines[pivot] = lines[pivot], lines[k]
        lines[k] = [x / lines[k][k] for x in lines[k]]
        for i in range(n):
            if i != k:
                lines[i] = [x - lines[i][k] * y for x, y in zip(lines[i], lines[k], strict=True)]
    return [line[n:] for line in lines]
