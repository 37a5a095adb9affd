"""Time-weighted dynamic time warping: how far series of index values are from patterns, pixels in SIMD lanes.

The cost of matching a pattern's date with a date of the series is the distance of their values plus a weight that
grows with the days between them. Matches run forward in time; the least sum over all ways to match is the distance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["LANES", "ROWS", "warping_distances"]

LANES = 32
"""Pixels worked on side by side; the sums of a long pattern then stay in the first-level cache."""

# Rows of the flat workspace. All rows lie in one array at constant distances, so that the compiler can tell that they
# do not overlap; with an array a row it does not vectorise the loop over pixels.
COST, SEEN, ABOVE, DIAGONAL = (LANES * row for row in range(4))
ROWS = 4
"""Rows of the workspace before those of the sums and of the values."""
FIRST = LANES * ROWS


@inline
def cheapest(above: Any, before: Any, diagonal: Any) -> Any:
    """Least sum of the three ways into a cell: next date of the pattern, of the series, or of both."""
    least = above if above < before else before
    return diagonal if diagonal < least else least


@inline
def load_date(series: Any, j: int, start: int, width: int, values: int, work: Any) -> None:
    """Copy the values of a strip of pixels on date ``j``, and note which pixels have all of them."""
    for p in range(LANES):
        work[SEEN + p] = 1.0 if p < width else 0.0
    for b in range(series.shape[0]):
        row, loaded = series[b, j, start : start + width], work[values + b * LANES : values + (b + 1) * LANES]
        for p in range(width):
            loaded[p] = row[p]
        for p in range(LANES):
            # a choice between zero and what is there would become a masked store, which is slow
            work[SEEN + p] *= 0.0 if np.isnan(loaded[p]) else 1.0


@inline
def match_costs(pattern: Any, i: int, weight: float, values: int, work: Any) -> None:
    """Cost of matching date ``i`` of a pattern with the loaded date."""
    if pattern.shape[1] == 1:
        wanted, only = pattern[i, 0], work[values : values + LANES]
        for p in range(LANES):
            work[COST + p] = abs(only[p] - wanted) + weight
        return
    for p in range(LANES):
        work[COST + p] = 0.0
    for b in range(pattern.shape[1]):
        wanted, loaded = pattern[i, b], work[values + b * LANES : values + (b + 1) * LANES]
        for p in range(LANES):
            step = loaded[p] - wanted
            work[COST + p] += step * step
    for p in range(LANES):
        work[COST + p] = np.sqrt(work[COST + p]) + weight


@inline
def add_date(row: int, work: Any) -> None:
    """Carry one row of the sums on to the next date of the series; pixels that did not see it keep what they have."""
    sums = work[row : row + LANES]
    for p in range(LANES):
        before = sums[p]
        reached = work[COST + p] + cheapest(work[ABOVE + p], before, work[DIAGONAL + p])
        now = reached if work[SEEN + p] > 0.5 else before
        work[DIAGONAL + p] = before
        sums[p] = now
        work[ABOVE + p] = now


@kernel
def warping_distances(
    series: Any, pattern: Any, weight: Any, open_begin: bool, open_end: bool, work: Any, out: Any
) -> None:
    """Distance of every pixel's series to every pattern.

    Parameters
    ----------
    series : float32 or float64 (indices, dates, pixels)
        Values in order of time; a date with a NaN is skipped.
    pattern : float64 (patterns, pattern dates, indices)
        Finite values.
    weight : float64 (pattern dates, dates)
        Cost of the time between a date of the patterns and one of the series.
    open_begin, open_end : bool
        Whether a pattern may begin after the first date of the series, and end before its last; those dates then
        cost nothing.
    work : float64 ((ROWS + pattern dates + indices) * LANES,)
        Workspace: costs, flags, and the least sums up to the current date of the series.
    out : float64 (patterns, pixels)
        Distances; infinite for pixels without any date.
    """
    n_dates, n_pixels = series.shape[1], series.shape[2]
    n_steps = pattern.shape[1]
    values, last = FIRST + n_steps * LANES, FIRST + (n_steps - 1) * LANES
    work[:] = 0.0
    for start in range(0, n_pixels, LANES):
        width = min(LANES, n_pixels - start)
        for k in range(pattern.shape[0]):
            distance = out[k, start : start + width]
            distance[:] = np.inf
            work[FIRST:values] = np.inf
            for j in range(n_dates):
                load_date(series, j, start, width, values, work)
                # the row before the first of the pattern: a way may start at any date, or at the first one seen
                for p in range(LANES):
                    work[ABOVE + p] = 0.0 if open_begin or np.isinf(work[FIRST + p]) else np.inf
                    work[DIAGONAL + p] = np.inf
                for i in range(n_steps):
                    match_costs(pattern[k], i, weight[i, j], values, work)
                    add_date(FIRST + i * LANES, work)
                for p in range(width):
                    if work[SEEN + p] > 0.5 and (not open_end or work[last + p] < distance[p]):
                        distance[p] = work[last + p]
