"""Distance from cells to the nearest of many line segments, exact, by leaving out what can't be the nearest."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["segment_distances"]

_COARSE, _FINE = 64, 8
"""Sides in cells of the two sizes of patches for which far segments are left out together."""


@inline
def _squared(x: float, y: float, segments: np.ndarray, k: int) -> float:
    """Squared distance of a point to a segment, which may be a point itself."""
    x0, y0 = segments[k, 0], segments[k, 1]
    dx, dy = segments[k, 2] - x0, segments[k, 3] - y0
    length = dx * dx + dy * dy
    along = ((x - x0) * dx + (y - y0) * dy) / length if length > 0.0 else 0.0
    along = min(max(along, 0.0), 1.0)
    ex, ey = x - x0 - along * dx, y - y0 - along * dy
    return ex * ex + ey * ey


@kernel
def _select(
    x: np.ndarray, y: np.ndarray, segments: np.ndarray, given: np.ndarray, count: int, limit: float, chosen: np.ndarray
) -> int:
    """Keep the segments that may be the nearest of some cell of a patch and within the limit; return their number."""
    left, right, low, high = np.inf, -np.inf, np.inf, -np.inf
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            left, right = min(left, x[r, c]), max(right, x[r, c])
            low, high = min(low, y[r, c]), max(high, y[r, c])
    cx, cy = 0.5 * (left + right), 0.5 * (low + high)
    radius = 0.5 * np.hypot(right - left, high - low)
    best = np.inf
    for j in range(count):
        best = min(best, _squared(cx, cy, segments, given[j]))
    # the nearest of the centre is at most so far from any cell of the patch
    reach = min(np.sqrt(best) + radius, limit) + radius
    reach = reach * (1.0 + 1e-9) + 1e-6
    kept = 0
    for j in range(count):
        if _squared(cx, cy, segments, given[j]) <= reach * reach:
            chosen[kept] = given[j]
            kept += 1
    return kept


@kernel
def segment_distances(x: np.ndarray, y: np.ndarray, segments: np.ndarray, limit: float, out: np.ndarray) -> None:
    """Distance of every cell to the nearest segment, at most ``limit``.

    Parameters
    ----------
    x, y : numpy.ndarray
        float64 ``(rows, columns)``, cell centres in a plane, metres; neighbours in the array are neighbours in the plane.
    segments : numpy.ndarray
        float64 ``(n, 4)``: x and y of both ends.
    limit : float
        Largest distance that is told apart.
    out : numpy.ndarray
        float32 ``(rows, columns)``.
    """
    rows, columns = x.shape
    every = np.arange(segments.shape[0])
    block, coarse, fine = np.empty_like(every), np.empty_like(every), np.empty_like(every)
    in_block = _select(x, y, segments, every, every.size, limit, block)
    for r0 in range(0, rows, _COARSE):
        for c0 in range(0, columns, _COARSE):
            r1, c1 = min(r0 + _COARSE, rows), min(c0 + _COARSE, columns)
            in_coarse = _select(x[r0:r1, c0:c1], y[r0:r1, c0:c1], segments, block, in_block, limit, coarse)
            for r2 in range(r0, r1, _FINE):
                for c2 in range(c0, c1, _FINE):
                    r3, c3 = min(r2 + _FINE, r1), min(c2 + _FINE, c1)
                    near = _select(x[r2:r3, c2:c3], y[r2:r3, c2:c3], segments, coarse, in_coarse, limit, fine)
                    for r in range(r2, r3):
                        for c in range(c2, c3):
                            nearest = limit * limit
                            for j in range(near):
                                nearest = min(nearest, _squared(x[r, c], y[r, c], segments, fine[j]))
                            out[r, c] = np.sqrt(nearest)
