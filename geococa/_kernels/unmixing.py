"""Linear spectral unmixing: shares of endmembers that are not negative and sum to one, exactly, pixel by pixel.

The shares f of a pixel x minimise ``|W (x - E'f)|²`` over the simplex. With the endmembers taken from their mean,
``Z = (E - mean) W'``, this is ``f'Gf / 2 - b'f`` with ``G = ZZ' + c 11'`` and ``b = ZW (x - mean) + c 1``: the constant
``c`` adds the same to every f of the simplex, and makes G positive definite where no endmember is a mixture of others.
The minimum is found by a primal active set, as in the non-negative least squares of Lawson and Hanson, with the sum as
an equality that holds at each step.

References
----------
Heinz, D. C. & Chang, C.-I. (2001). Fully constrained least squares linear spectral mixture analysis method for material
quantification in hyperspectral imagery. IEEE Transactions on Geoscience and Remote Sensing 39, 529-545.
Lawson, C. L. & Hanson, R. J. (1974). Solving Least Squares Problems, chapter 23. Prentice-Hall.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["unmix"]

_TOLERANCE = 1e-13  # of gradients, relative to the largest number in G


@inline
def append_row(gram: Any, passive: Any, count: int, factor: Any) -> None:
    """Add row ``count`` to the Cholesky factor of the part of ``gram`` that ``passive`` names."""
    i = passive[count]
    for r in range(count):
        value = gram[i, passive[r]]
        for s in range(r):
            value -= factor[count, s] * factor[r, s]
        factor[count, r] = value / factor[r, r]
    rest = gram[i, i]
    for s in range(count):
        rest -= factor[count, s] * factor[count, s]
    # what rounding leaves of an endmember that others all but make up
    factor[count, count] = np.sqrt(max(rest, 1e-14 * gram[i, i]))


@inline
def solve(factor: Any, count: int, right: Any) -> None:
    """Solve in place with the factor's first ``count`` rows."""
    for r in range(count):
        value = right[r]
        for s in range(r):
            value -= factor[r, s] * right[s]
        right[r] = value / factor[r, r]
    for back in range(count):
        r = count - 1 - back
        value = right[r]
        for s in range(r + 1, count):
            value -= factor[s, r] * right[s]
        right[r] = value / factor[r, r]


@inline
def best_on_face(b: Any, passive: Any, count: int, factor: Any, trial: Any, ones: Any) -> None:
    """Put the minimum over shares of the passive endmembers that sum to one, of any sign, into ``trial``."""
    for r in range(count):
        trial[r] = b[passive[r]]
        ones[r] = 1.0
    solve(factor, count, trial)
    solve(factor, count, ones)
    total, size = 0.0, 0.0
    for r in range(count):
        total += trial[r]
        size += ones[r]
    move = (1.0 - total) / size
    for r in range(count):
        trial[r] += move * ones[r]


@inline
def steepest(gram: Any, b: Any, passive: Any, count: int, share: Any, inside: Any, tolerance: float) -> int:
    """Endmember outside the passive set whose share would lower the misfit most, or -1 at the minimum."""
    level = 0.0
    for r in range(count):
        i = passive[r]
        slope = -b[i]
        for s in range(count):
            slope += gram[i, passive[s]] * share[passive[s]]
        level += share[i] * slope
    best, found = -tolerance, -1
    for i in range(b.shape[0]):
        if inside[i]:
            continue
        slope = -b[i] - level
        for s in range(count):
            slope += gram[i, passive[s]] * share[passive[s]]
        if slope < best:
            best, found = slope, i
    return found


@inline
def step_towards(trial: Any, passive: Any, count: int, share: Any, inside: Any, gram: Any, factor: Any) -> int:
    """Go from ``share`` towards ``trial`` until a share is zero; drop that one, and return how many are left."""
    step, stop = 1.0, -1
    for r in range(count):
        if trial[r] <= 0.0:
            here = share[passive[r]]
            reach = here / (here - trial[r]) if here > trial[r] else 0.0
            if stop < 0 or reach < step:
                step, stop = reach, r
    kept = 0
    for r in range(count):
        i = passive[r]
        value = share[i] + step * (trial[r] - share[i])
        if r == stop or value <= 0.0:
            share[i] = 0.0
            inside[i] = False
        else:
            share[i] = value
            passive[kept] = i
            kept += 1
    for r in range(kept):
        append_row(gram, passive, r, factor)
    return kept


@inline
def unmix_pixel(
    gram: Any, b: Any, passive: Any, inside: Any, factor: Any, trial: Any, ones: Any, share: Any, tolerance: float
) -> None:
    """Shares of one pixel, from the endmember nearest to it on."""
    n = b.shape[0]
    nearest = 0
    for i in range(n):
        share[i] = 0.0
        inside[i] = False
        if 0.5 * gram[i, i] - b[i] < 0.5 * gram[nearest, nearest] - b[nearest]:
            nearest = i
    share[nearest], inside[nearest], passive[0] = 1.0, True, nearest
    append_row(gram, passive, 0, factor)
    count = 1
    for _ in range(4 * n):
        entering = steepest(gram, b, passive, count, share, inside, tolerance)
        if entering < 0:
            break
        passive[count], inside[entering] = entering, True
        append_row(gram, passive, count, factor)
        count += 1
        best_on_face(b, passive, count, factor, trial, ones)
        if trial[count - 1] <= 0.0:
            # only rounding makes an endmember enter that would not get a share
            inside[entering] = False
            count -= 1
            break
        for _ in range(n):
            smallest = trial[0]
            for r in range(1, count):
                smallest = min(smallest, trial[r])
            if smallest > 0.0:
                for r in range(count):
                    share[passive[r]] = trial[r]
                break
            count = step_towards(trial, passive, count, share, inside, gram, factor)
            best_on_face(b, passive, count, factor, trial, ones)


@kernel
def unmix(planes: Any, centre: Any, projection: Any, constant: float, gram: Any, owner: Any, out: Any) -> None:
    """Class shares of every pixel.

    Parameters
    ----------
    planes : float32 or float64 (features, pixels)
        Feature values; a pixel with NaN or infinity gets NaN.
    centre : float64 (features,)
        Mean of the endmembers.
    projection : float64 (endmembers, features)
        ``ZW`` of the module's text.
    constant : float
        ``c`` of the module's text, positive.
    gram : float64 (endmembers, endmembers)
        ``G`` of the module's text, positive definite.
    owner : int32 (endmembers,)
        Class of each endmember.
    out : float64 (classes, pixels)
        Shares; overwritten. Those of several endmembers of a class are added.
    """
    n, n_features = projection.shape
    b, share, trial, ones = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    passive, inside, factor = np.empty(n, np.int64), np.empty(n, np.bool_), np.empty((n, n))
    tolerance = 0.0
    for i in range(n):
        tolerance = max(tolerance, _TOLERANCE * gram[i, i])
    for p in range(planes.shape[1]):
        total, size = 0.0, 0.0
        for i in range(n):
            b[i] = constant
            for j in range(n_features):
                b[i] += projection[i, j] * (np.float64(planes[j, p]) - centre[j])
            total += b[i]
            size = max(size, abs(b[i]))
        for k in range(out.shape[0]):
            out[k, p] = 0.0 if np.isfinite(total) else np.nan
        if not np.isfinite(total):
            continue
        unmix_pixel(gram, b, passive, inside, factor, trial, ones, share, max(tolerance, _TOLERANCE * size))
        total = 0.0
        for i in range(n):
            total += share[i]
        for i in range(n):
            out[owner[i], p] += share[i] / total
