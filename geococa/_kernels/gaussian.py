"""Gaussian classes: squared Mahalanobis distances, and the most likely class, with pixels in SIMD lanes.

The whitening matrix of a class is the inverse of the lower Cholesky factor of its covariance, so the squared
distance of a pixel is the sum of squares of ``whitening @ (x - mean)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["LANES", "OPEN", "ROWS", "likely_classes", "squared_distances"]

LANES = 256
"""Pixels worked on side by side; a strip of them stays in the first-level cache."""
OPEN = -2
"""Label of a pixel whose two best classes are closer than single precision can tell."""


@kernel
def squared_distances(planes: Any, whitening: Any, mean: Any, strip: Any, out: Any) -> None:
    """Squared Mahalanobis distance of each pixel to each class.

    Parameters
    ----------
    planes : float32 or float64 (features, pixels)
        Feature values, finite.
    whitening : float64 (classes, features, features)
        Lower triangular; what is above the diagonal is not read.
    mean : float64 (classes, features)
        Class means.
    strip : float64 (features + 1, LANES)
        Workspace.
    out : float64 (classes, pixels)
        Squared distances; overwritten.
    """
    n_classes, n_features = mean.shape
    n_pixels = planes.shape[1]
    total = strip[n_features]
    for start in range(0, n_pixels, LANES):
        width = min(LANES, n_pixels - start)
        for k in range(n_classes):
            for j in range(n_features):
                centre = mean[k, j]
                row = strip[j]
                for p in range(width):
                    row[p] = planes[j, start + p] - centre
            distance = out[k, start : start + width]
            distance[:] = 0.0
            for i in range(n_features):
                total[:] = 0.0
                for j in range(i + 1):
                    factor = whitening[k, i, j]
                    row = strip[j]
                    for p in range(width):
                        total[p] += factor * row[p]
                for p in range(width):
                    distance[p] += total[p] * total[p]


# Rows of the flat workspace of `likely_classes`. All rows lie in one array at constant distances, so that the compiler
# knows that they do not overlap; with an array a row it would check that before each loop, or not vectorise at all.
SCORE, ERROR, RIVAL, NEAREST, DOUBT, LABEL, LENGTH, FIRST, SECOND, DISTANCE = (LANES * row for row in range(10))
ROWS = 10


@inline
def load_strip(planes: Any, start: int, width: int, centre: Any, unit: Any, strip: Any, work: Any) -> None:
    """Standardise the features of a strip of pixels, find each pixel's length, and start the running values."""
    for p in range(LANES):
        work[LENGTH + p] = np.float32(0)
        work[SCORE + p] = np.float32(-np.inf)
        work[RIVAL + p] = np.float32(-np.inf)
        work[ERROR + p] = np.float32(0)
    for j in range(planes.shape[0]):
        row, source = strip[j * LANES : (j + 1) * LANES], planes[j, start : start + width]
        middle, factor = centre[j], unit[j]
        for p in range(width):
            row[p] = (source[p] - middle) * factor
        for p in range(LANES):
            work[LENGTH + p] += row[p] * row[p]
    for p in range(LANES):
        work[LENGTH + p] = np.sqrt(work[LENGTH + p])


@inline
def add_squares(strip: Any, n_features: int, whitening: Any, offset: Any, work: Any) -> None:
    """Squared distance of a strip of pixels to one class.

    Two components of the whitened vector and four features a pass: each pixel's value is then read half as
    often, and each sum a quarter as often, as in the plain double loop.
    """
    for p in range(LANES):
        work[DISTANCE + p] = np.float32(0)
    for i in range(0, n_features, 2):
        start, begin = offset[i], offset[i + 1]
        for p in range(LANES):
            work[FIRST + p] = -start
            work[SECOND + p] = -begin
        for j in range(0, i + 2, 4):
            a, b, c, d = whitening[i, j], whitening[i, j + 1], whitening[i, j + 2], whitening[i, j + 3]
            e, f, g, h = whitening[i + 1, j], whitening[i + 1, j + 1], whitening[i + 1, j + 2], whitening[i + 1, j + 3]
            x = strip[j * LANES : (j + 4) * LANES]
            for p in range(LANES):
                w, y, z, v = x[p], x[p + LANES], x[p + 2 * LANES], x[p + 3 * LANES]
                work[FIRST + p] += (a * w + b * y) + (c * z + d * v)
                work[SECOND + p] += (e * w + f * y) + (g * z + h * v)
        for p in range(LANES):
            first, second = work[FIRST + p], work[SECOND + p]
            work[DISTANCE + p] += first * first + second * second


@inline
def compare_class(k: Any, constant: Any, steep: Any, flat: Any, rounding: Any, work: Any) -> None:
    """Take class ``k`` where it is more likely than the best so far.

    Kept for each pixel: the best score and its error, the largest score plus error among the other classes, the
    squared distance of the best class and its error.
    """
    half, two, size = np.float32(0.5), np.float32(2), abs(constant)
    for p in range(LANES):
        d = work[DISTANCE + p]
        tilt = steep * work[LENGTH + p] + flat
        d_error = two * np.sqrt(d) * tilt + tilt * tilt + rounding * d
        s = constant - half * d
        e = half * d_error + rounding * (size + d)
        score, error, rival = work[SCORE + p], work[ERROR + p], work[RIVAL + p]
        nearest, doubt, label = work[NEAREST + p], work[DOUBT + p], work[LABEL + p]
        better = s > score
        beaten = score + error if better else s + e
        work[RIVAL + p] = beaten if beaten > rival else rival
        work[SCORE + p] = s if better else score
        work[ERROR + p] = e if better else error
        work[NEAREST + p] = d if better else nearest
        work[DOUBT + p] = d_error if better else doubt
        work[LABEL + p] = k if better else label


@kernel
def likely_classes(
    planes: Any,
    centre: Any,
    unit: Any,
    whitening: Any,
    offset: Any,
    constant: Any,
    steep: Any,
    flat: Any,
    rounding: float,
    limit: float,
    strip: Any,
    work: Any,
    out: Any,
) -> None:
    """Most likely class of each pixel in single precision, left `OPEN` where rounding might change it.

    The whitened vector of a class, ``whitening @ x - offset``, is off by at most ``steep * |x| + flat``, whence the
    error of every score; a label is given only where the best score less its error beats all others plus theirs.

    Parameters
    ----------
    planes : float32 (features, pixels)
        Feature values, finite.
    centre, unit : float32 (features,)
        Standardisation: ``x = (plane - centre) * unit``.
    whitening : float32 (classes, padded, padded); offset : float32 (classes, padded)
        Lower triangular, for standardised features; padded with zeros to a multiple of four.
    constant : float32 (classes,)
        Logarithm of the prior less half of that of the determinant.
    steep, flat : float32 (classes,); rounding : float32
        Error bound of each class, and the relative one of sums of squares.
    limit : float32
        Squared distance beyond which a pixel is rejected (label -1); infinite where none is.
    strip : float32 (padded * LANES,); work : float32 (ROWS * LANES,)
        Workspace; what lies in ``strip`` beyond the features must be zero.
    out : int32 (pixels,)
        Class index, -1, or `OPEN`.
    """
    n_features, n_pixels = planes.shape
    for start in range(0, n_pixels, LANES):
        width = min(LANES, n_pixels - start)
        load_strip(planes, start, width, centre, unit, strip, work)
        for k in range(constant.shape[0]):
            add_squares(strip, n_features, whitening[k], offset[k], work)
            compare_class(np.float32(k), constant[k], steep[k], flat[k], rounding, work)
        for p in range(width):
            nearest, doubt = work[NEAREST + p], work[DOUBT + p]
            safe = work[SCORE + p] - work[ERROR + p] > work[RIVAL + p]
            far, near = nearest - doubt > limit, nearest + doubt <= limit
            label = np.int32(work[LABEL + p]) if near else np.int32(-1)
            out[start + p] = label if safe and (near or far) else np.int32(OPEN)
