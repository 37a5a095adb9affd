"""Gaussian classes: squared Mahalanobis distances, and the most likely class, with pixels in SIMD lanes.

The whitening matrix of a class is the inverse of the lower Cholesky factor of its covariance, so the squared
distance of a pixel is the sum of squares of ``whitening @ (x - mean)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import contracted, contracted_kernel, kernel
from geococa._kernels.prefetch import prefetch_planes

__all__ = ["LANES", "OPEN", "PITCH", "ROWS", "likely_classes", "squared_distances"]

LANES = 256
"""Pixels worked on side by side; a strip of them stays in the first-level cache."""
PITCH = LANES + 16
"""Distance between rows of a workspace: a power of two would put all rows in the same places of the cache."""
OPEN = 255
"""Code of a pixel whose two best classes are closer than single precision can tell."""


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
BEST, RIVAL, NEAREST, LABEL = (PITCH * row for row in range(4))
SQUARE, FIRST, SECOND, DISTANCE, RUNNING = (PITCH * row for row in range(5))
ROWS = 12
"""Four for what a strip has, and twice four for its running values, read from one half and written to the other: a
value that is kept where it is becomes a masked store, which is slow."""


@contracted
def load_strip(flat: Any, step: int, start: int, width: int, centre: Any, unit: Any, strip: Any, work: Any) -> None:
    """Standardise the features of a strip of pixels, sum their squares, and start the running values."""
    running = work[RUNNING : RUNNING + 4 * PITCH]
    for p in range(LANES):
        work[SQUARE + p] = np.float32(0)
        running[BEST + p] = np.float32(-np.inf)
        running[RIVAL + p] = np.float32(-np.inf)
    n_features = centre.shape[0]
    for j in range(0, n_features - 1, 2):
        first = flat[j * step + start : j * step + start + width]
        second = flat[(j + 1) * step + start : (j + 1) * step + start + width]
        rows = strip[j * PITCH : (j + 2) * PITCH]
        middle, factor, centre_2, unit_2 = centre[j], unit[j], centre[j + 1], unit[j + 1]
        for p in range(width):
            x, y = (first[p] - middle) * factor, (second[p] - centre_2) * unit_2
            rows[p], rows[p + PITCH] = x, y
            work[SQUARE + p] += x * x + y * y
    if n_features % 2:
        j = n_features - 1
        last, row = flat[j * step + start : j * step + start + width], strip[j * PITCH : (j + 1) * PITCH]
        for p in range(width):
            x = (last[p] - centre[j]) * unit[j]
            row[p] = x
            work[SQUARE + p] += x * x


# The whitened vector of a pixel is worked out two components at a time, and of these two, four features in one pass; the
# first pass takes six where that leaves a multiple of four. Each value is then read half as often, and each sum
# written a quarter as often, as in the plain double loop. The last pass squares what it has and does not write it.


@contracted
def take_two(whitening: Any, offset: Any, x: Any, work: Any) -> None:
    """Start the squared distance with the first two components, which have two features."""
    a, b, e, f = whitening[0, 0], whitening[0, 1], whitening[1, 0], whitening[1, 1]
    start, begin = -offset[0], -offset[1]
    for p in range(LANES):
        w, y = x[p], x[p + PITCH]
        first = start + a * w + b * y
        second = begin + e * w + f * y
        work[DISTANCE + p] = first * first + second * second


@contracted
def take_four(i: int, j: int, last: bool, whitening: Any, offset: Any, x: Any, work: Any) -> None:
    """Four features, from ``j``, of two components, from ``i``; the ``last`` ones complete the components."""
    a, b, c, d = whitening[i, j], whitening[i, j + 1], whitening[i, j + 2], whitening[i, j + 3]
    e, f, g, h = whitening[i + 1, j], whitening[i + 1, j + 1], whitening[i + 1, j + 2], whitening[i + 1, j + 3]
    start, begin = -offset[i], -offset[i + 1]
    for p in range(LANES):
        w, y, z, v = x[p], x[p + PITCH], x[p + 2 * PITCH], x[p + 3 * PITCH]
        first = (start if j == 0 else work[FIRST + p]) + a * w + b * y + c * z + d * v
        second = (begin if j == 0 else work[SECOND + p]) + e * w + f * y + g * z + h * v
        if last:
            work[DISTANCE + p] += first * first + second * second
        else:
            work[FIRST + p] = first
            work[SECOND + p] = second


@contracted
def take_six(i: int, last: bool, whitening: Any, offset: Any, x: Any, work: Any) -> None:
    """First six features of two components, from ``i``, as `take_four`."""
    a, b, c = whitening[i, 0], whitening[i, 1], whitening[i, 2]
    k, m, n = whitening[i, 3], whitening[i, 4], whitening[i, 5]
    e, f, g = whitening[i + 1, 0], whitening[i + 1, 1], whitening[i + 1, 2]
    q, r, s = whitening[i + 1, 3], whitening[i + 1, 4], whitening[i + 1, 5]
    start, begin = -offset[i], -offset[i + 1]
    for p in range(LANES):
        w, y, z = x[p], x[p + PITCH], x[p + 2 * PITCH]
        u, v, t = x[p + 3 * PITCH], x[p + 4 * PITCH], x[p + 5 * PITCH]
        first = start + a * w + b * y + c * z + k * u + m * v + n * t
        second = begin + e * w + f * y + g * z + q * u + r * v + s * t
        if last:
            work[DISTANCE + p] += first * first + second * second
        else:
            work[FIRST + p] = first
            work[SECOND + p] = second


@contracted
def add_squares(strip: Any, n_features: int, whitening: Any, offset: Any, work: Any) -> None:
    """Squared distance of a strip of pixels to one class; components ``i`` and ``i + 1`` have ``i + 2`` features."""
    take_two(whitening, offset, strip, work)
    for i in range(2, n_features, 2):
        j = 0
        if i % 4 == 0:
            take_six(i, i == 4, whitening, offset, strip, work)
            j = 6
        for feature in range(j, i + 2, 4):
            x = strip[feature * PITCH : (feature + 4) * PITCH]
            take_four(i, feature, feature == i - 2, whitening, offset, x, work)


@contracted
def compare_class(k: Any, highest: Any, growth: Any, slope: Any, work: Any, old: Any, new: Any) -> None:
    """Take class ``k`` where its score may be higher than that of the best so far.

    Kept for each pixel: the highest score that rounding allows, the second highest, and the distance and the number
    of the class with the highest.
    """
    for p in range(LANES):
        d = work[DISTANCE + p]
        score = highest + growth * work[SQUARE + p] - slope * d
        best, rival, nearest, label = old[BEST + p], old[RIVAL + p], old[NEAREST + p], old[LABEL + p]
        better = score > best
        beaten = best if better else score
        new[RIVAL + p] = beaten if beaten > rival else rival
        new[BEST + p] = score if better else best
        new[NEAREST + p] = d if better else nearest
        new[LABEL + p] = k if better else label


@contracted
def decide_strip(
    start: int,
    width: int,
    score_error: Any,
    distance_error: Any,
    limit: float,
    work: Any,
    best: Any,
    places: Any,
    n_open: int,
    out: Any,
) -> int:
    """Write the labels that rounding can't change, and the places of the others behind the ``n_open`` known ones."""
    opened = 0
    code = work[DISTANCE : DISTANCE + LANES]
    for p in range(LANES):
        nearest, square = best[NEAREST + p], work[SQUARE + p]
        error = score_error[0] * nearest + (score_error[1] * square + score_error[2])
        doubt = distance_error[0] * nearest + (distance_error[1] * square + distance_error[2])
        safe = best[BEST + p] - error > best[RIVAL + p]
        far, near = nearest - doubt > limit, nearest + doubt <= limit
        label = best[LABEL + p] + np.float32(1) if near else np.float32(0)
        code[p] = label if safe and (near or far) else np.float32(OPEN)
    for p in range(width):
        out[start + p] = np.int32(code[p])
        opened += code[p] == np.float32(OPEN)
    if opened > 0:
        for p in range(width):
            if code[p] == np.float32(OPEN):
                places[n_open] = start + p
                n_open += 1
    return n_open


@contracted_kernel
def likely_classes(
    flat: Any,
    step: int,
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
    places: Any,
    out: Any,
) -> int:
    """Most likely class of each pixel in single precision, left `OPEN` where rounding might change it.

    The score of a class is ``constant - distance / 2``. With ``s`` the sum of squares of the standardised features, no
    rounding lifts it above ``highest + growth * s - slope * distance``, and that lies no further above the score
    than ``score_error`` says. A label is given only where the best score less its error beats what all others may
    reach. A pixel with a feature that is not finite stays open.

    Parameters
    ----------
    flat : float32 (any,); step : int
        Feature values of the pixels: feature ``f`` of the first one is at ``f * step``.
    centre, unit : float32 (features,)
        Standardisation: ``x = (plane - centre) * unit``.
    whitening : float32 (classes, padded, padded); offset : float32 (classes, padded)
        Lower triangular, for standardised features; padded with zeros to an even number.
    highest, growth : float32 (classes,); slope : float32
        Upper bound of the scores.
    score_error, distance_error : float32 (3,)
        Error bounds of the best class: by distance, by ``s``, and constant.
    limit : float32
        Squared distance beyond which a pixel is rejected; infinite where none is.
    strip : float32 (padded * PITCH,); work : float32 (ROWS * PITCH,)
        Workspace; what lies in ``strip`` beyond the features must be zero.
    places : int32 (pixels,)
        Overwritten from its start with the positions of the open pixels.
    out : any integer (pixels,)
        Class index plus 1, or 0 where rejected; `OPEN` for an open pixel.

    Returns
    -------
    int
        How many pixels are open.
    """
    n_features, n_pixels = centre.shape[0], out.shape[0]
    n_open = 0
    for start in range(0, n_pixels, LANES):
        width = min(LANES, n_pixels - start)
        load_strip(flat, step, start, width, centre, unit, strip, work)
        # the strip after this one; at the end this one again, which is near already
        prefetch_planes(flat, step, n_features, min(start + LANES, max(n_pixels - LANES, 0)), min(LANES, n_pixels))
        old, new = work[RUNNING : RUNNING + 4 * PITCH], work[RUNNING + 4 * PITCH :]
        for k in range(highest.shape[0]):
            add_squares(strip, n_features, whitening[k], offset[k], work)
            compare_class(np.float32(k), highest[k], growth[k], slope, work, old, new)
            old, new = new, old
        n_open = decide_strip(start, width, score_error, distance_error, limit, work, old, places, n_open, out)
    return n_open
