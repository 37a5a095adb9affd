"""Gaussian classes: squared Mahalanobis distances, and the most likely class, with pixels in SIMD lanes.

The whitening matrix of a class is the inverse of the lower Cholesky factor of its covariance, so the squared
distance of a pixel is the sum of squares of ``whitening @ (x - mean)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import contracted, contracted_kernel, kernel

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
BEST, RIVAL, NEAREST, LABEL, SQUARE, FIRST, SECOND, DISTANCE = (LANES * row for row in range(8))
ROWS = 8


@contracted
def load_strip(planes: Any, start: int, width: int, centre: Any, unit: Any, strip: Any, work: Any) -> None:
    """Standardise the features of a strip of pixels, sum their squares, and start the running values."""
    for p in range(LANES):
        work[SQUARE + p] = np.float32(0)
        work[BEST + p] = np.float32(-np.inf)
        work[RIVAL + p] = np.float32(-np.inf)
    for j in range(planes.shape[0]):
        row, source = strip[j * LANES : (j + 1) * LANES], planes[j, start : start + width]
        middle, factor = centre[j], unit[j]
        for p in range(width):
            row[p] = (source[p] - middle) * factor
        for p in range(LANES):
            work[SQUARE + p] += row[p] * row[p]


@contracted
def start_rows(i: int, whitening: Any, offset: Any, x: Any, work: Any) -> None:
    """First two features of two components of the whitened vector."""
    a, b, e, f = whitening[i, 0], whitening[i, 1], whitening[i + 1, 0], whitening[i + 1, 1]
    start, begin = -offset[i], -offset[i + 1]
    for p in range(LANES):
        w, y = x[p], x[p + LANES]
        work[FIRST + p] = start + a * w + b * y
        work[SECOND + p] = begin + e * w + f * y


@contracted
def add_features(i: int, j: int, whitening: Any, x: Any, work: Any) -> None:
    """Four more features, from ``j``, of two components of the whitened vector; each product joins the sum as it comes."""
    a, b, c, d = whitening[i, j], whitening[i, j + 1], whitening[i, j + 2], whitening[i, j + 3]
    e, f, g, h = whitening[i + 1, j], whitening[i + 1, j + 1], whitening[i + 1, j + 2], whitening[i + 1, j + 3]
    for p in range(LANES):
        w, y, z, v = x[p], x[p + LANES], x[p + 2 * LANES], x[p + 3 * LANES]
        work[FIRST + p] = work[FIRST + p] + a * w + b * y + c * z + d * v
        work[SECOND + p] = work[SECOND + p] + e * w + f * y + g * z + h * v


@contracted
def add_squares(strip: Any, n_features: int, whitening: Any, offset: Any, work: Any) -> None:
    """Squared distance of a strip of pixels to one class.

    Two components of the whitened vector and four features a pass: each pixel's value is then read half as
    often, and each sum a quarter as often, as in the plain double loop.
    """
    for i in range(0, n_features, 2):
        start_rows(i, whitening, offset, strip, work)
        for j in range(2, i + 2, 4):
            add_features(i, j, whitening, strip[j * LANES : (j + 4) * LANES], work)
        if i == 0:
            for p in range(LANES):
                first, second = work[FIRST + p], work[SECOND + p]
                work[DISTANCE + p] = first * first + second * second
        else:
            for p in range(LANES):
                first, second = work[FIRST + p], work[SECOND + p]
                work[DISTANCE + p] += first * first + second * second


@contracted
def compare_class(k: Any, highest: Any, growth: Any, slope: Any, work: Any) -> None:
    """Take class ``k`` where its score may be higher than that of the best so far.

    Kept for each pixel: the highest score that rounding allows, the second highest, and the distance and the number
    of the class with the highest.
    """
    for p in range(LANES):
        d = work[DISTANCE + p]
        score = highest + growth * work[SQUARE + p] - slope * d
        best, rival, nearest, label = work[BEST + p], work[RIVAL + p], work[NEAREST + p], work[LABEL + p]
        better = score > best
        beaten = best if better else score
        work[RIVAL + p] = beaten if beaten > rival else rival
        work[BEST + p] = score if better else best
        work[NEAREST + p] = d if better else nearest
        work[LABEL + p] = k if better else label


@contracted_kernel
def likely_classes(
    planes: Any,
    centre: Any,
    unit: Any,
    whitening: Any,
    offset: Any,
    highest: Any,
    growth: Any,
    slope: float,
    score_error: Any,
    distance_error: Any,
    limit: float,
    strip: Any,
    work: Any,
    out: Any,
) -> None:
    """Most likely class of each pixel in single precision, left `OPEN` where rounding might change it.

    The score of a class is ``constant - distance / 2``. With ``s`` the sum of squares of the standardised features, no
    rounding lifts it above ``highest + growth * s - slope * distance``, and that lies no further above the score
    than ``score_error`` says. A label is given only where the best score less its error beats what all others may
    reach. A pixel with a feature that is not finite stays open.

    Parameters
    ----------
    planes : float32 (features, pixels)
        Feature values.
    centre, unit : float32 (features,)
        Standardisation: ``x = (plane - centre) * unit``.
    whitening : float32 (classes, padded, padded); offset : float32 (classes, padded)
        Lower triangular, for standardised features; padded with zeros to a multiple of four, and two more.
    highest, growth : float32 (classes,); slope : float32
        Upper bound of the scores.
    score_error, distance_error : float32 (3,)
        Error bounds of the best class: by distance, by ``s``, and constant.
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
        for k in range(highest.shape[0]):
            add_squares(strip, n_features, whitening[k], offset[k], work)
            compare_class(np.float32(k), highest[k], growth[k], slope, work)
        for p in range(width):
            nearest, square = work[NEAREST + p], work[SQUARE + p]
            error = score_error[0] * nearest + (score_error[1] * square + score_error[2])
            doubt = distance_error[0] * nearest + (distance_error[1] * square + distance_error[2])
            safe = work[BEST + p] - error > work[RIVAL + p]
            far, near = nearest - doubt > limit, nearest + doubt <= limit
            label = np.int32(work[LABEL + p]) if near else np.int32(-1)
            out[start + p] = label if safe and (near or far) else np.int32(OPEN)
