"""Gaussian classes: squared Mahalanobis distances, and the most likely class, with pixels in SIMD lanes.

The whitening matrix of a class is the inverse of the lower Cholesky factor of its covariance, so the squared
distance of a pixel is the sum of squares of ``whitening @ (x - mean)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["LANES", "OPEN", "likely_classes", "squared_distances"]

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


@inline
def load_strip(planes: Any, start: int, width: int, centre: Any, unit: Any, strip: Any, length: Any) -> None:
    """Standardise the features of a strip of pixels, and find the length of each pixel's vector."""
    length[:] = np.float32(0)
    for j in range(planes.shape[0]):
        row, middle, factor = strip[j], centre[j], unit[j]
        for p in range(width):
            x = (planes[j, start + p] - middle) * factor
            row[p] = x
            length[p] += x * x
    for p in range(width):
        length[p] = np.sqrt(length[p])


@inline
def add_squares(strip: Any, whitening: Any, offset: Any, total: Any, distance: Any) -> None:
    """Squared distance of a strip of pixels to one class; four features a pass, so sums stay in registers longer."""
    distance[:] = np.float32(0)
    for i in range(offset.shape[0]):
        start = offset[i]
        for p in range(LANES):
            total[p] = -start
        for j in range(0, i + 1, 4):
            a, b, c, d = whitening[i, j], whitening[i, j + 1], whitening[i, j + 2], whitening[i, j + 3]
            w, x, y, z = strip[j], strip[j + 1], strip[j + 2], strip[j + 3]
            for p in range(LANES):
                total[p] += (a * w[p] + b * x[p]) + (c * y[p] + d * z[p])
        for p in range(LANES):
            distance[p] += total[p] * total[p]


@inline
def compare_class(
    k: int, constant: Any, steep: Any, flat: Any, rounding: Any, length: Any, distance: Any, best: Any, label: Any
) -> None:
    """Take class ``k`` where it is more likely than the best so far; ``best`` holds five rows of running values.

    Rows: score, its error, largest score plus error among the other classes, squared distance and its error.
    """
    score, error, rival, nearest, doubt = best[0], best[1], best[2], best[3], best[4]
    half = np.float32(0.5)
    for p in range(LANES):
        d = distance[p]
        tilt = steep * length[p] + flat
        d_error = np.float32(2) * np.sqrt(d) * tilt + tilt * tilt + rounding * d
        s = constant - half * d
        e = half * d_error + rounding * (abs(constant) + d)
        better = s > score[p]
        beaten = score[p] + error[p] if better else s + e
        rival[p] = beaten if beaten > rival[p] else rival[p]
        score[p] = s if better else score[p]
        error[p] = e if better else error[p]
        nearest[p] = d if better else nearest[p]
        doubt[p] = d_error if better else doubt[p]
        label[p] = np.int32(k) if better else label[p]


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
    label: Any,
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
    strip : float32 (padded, LANES); work : float32 (8, LANES); label : int32 (LANES,)
        Workspace; rows of ``strip`` beyond the features must be zero.
    out : int32 (pixels,)
        Class index, -1, or `OPEN`.
    """
    n_classes, n_pixels = constant.shape[0], planes.shape[1]
    length, total, distance, best = work[5], work[6], work[7], work[:5]
    for start in range(0, n_pixels, LANES):
        width = min(LANES, n_pixels - start)
        load_strip(planes, start, width, centre, unit, strip, length)
        best[:] = np.float32(0)
        best[0] = np.float32(-np.inf)
        best[2] = np.float32(-np.inf)
        for k in range(n_classes):
            add_squares(strip, whitening[k], offset[k], total, distance)
            compare_class(k, constant[k], steep[k], flat[k], rounding, length, distance, best, label)
        for p in range(width):
            safe = best[0, p] - best[1, p] > best[2, p]
            far = best[3, p] - best[4, p] > limit
            near = best[3, p] + best[4, p] <= limit
            out[start + p] = (label[p] if near else -1) if safe and (near or far) else OPEN
