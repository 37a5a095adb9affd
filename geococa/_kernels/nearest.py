"""Distances in feature space: principal axes, coordinates on them, and points that cover a cloud of points.

Sums run in a fixed order for every pixel, so that results do not depend on how pixels are cut into blocks; a product of
matrices from a linear-algebra library would.
"""

from __future__ import annotations

import math

import numpy as np

from geococa._kernels._jit import kernel

__all__ = ["farthest_points", "on_axes", "principal_axes"]


@kernel
def principal_axes(points: np.ndarray, sweeps: int, work: np.ndarray, axes: np.ndarray) -> None:
    """Rotate towards the principal axes of a cloud by Jacobi's method, the axis of largest spread first.

    Parameters
    ----------
    points : numpy.ndarray
        float64 ``(n, features)``, centred.
    sweeps : int
        Sweeps over all pairs of axes; an unfinished rotation is still a rotation.
    work : numpy.ndarray
        float64 ``(features, features)``, scratch.
    axes : numpy.ndarray
        float64 ``(features, features)``, out: orthonormal columns.

    References
    ----------
    Golub, G. H. and Van Loan, C. F. (2013), Matrix Computations, 4th ed., section 8.5.
    """
    n, size = points.shape
    for j in range(size):
        for k in range(size):
            total = 0.0
            for i in range(n):
                total += points[i, j] * points[i, k]
            work[j, k] = total
            axes[j, k] = 1.0 if j == k else 0.0
    for _ in range(sweeps):
        for p in range(size - 1):
            for q in range(p + 1, size):
                off = work[p, q]
                if abs(off) <= 1e-15 * math.sqrt(abs(work[p, p] * work[q, q])):
                    continue
                theta = (work[q, q] - work[p, p]) / (2.0 * off)
                tangent = (1.0 if theta >= 0 else -1.0) / (abs(theta) + math.sqrt(theta * theta + 1.0))
                cosine = 1.0 / math.sqrt(tangent * tangent + 1.0)
                sine = tangent * cosine
                for k in range(size):
                    a, b = work[k, p], work[k, q]
                    work[k, p], work[k, q] = cosine * a - sine * b, sine * a + cosine * b
                for k in range(size):
                    a, b = work[p, k], work[q, k]
                    work[p, k], work[q, k] = cosine * a - sine * b, sine * a + cosine * b
                    a, b = axes[k, p], axes[k, q]
                    axes[k, p], axes[k, q] = cosine * a - sine * b, sine * a + cosine * b
    for p in range(size - 1):  # largest first, equals in their order
        best = p
        for q in range(p + 1, size):
            if work[q, q] > work[best, best]:
                best = q
        if best != p:
            work[p, p], work[best, best] = work[best, best], work[p, p]
            for k in range(size):
                axes[k, p], axes[k, best] = axes[k, best], axes[k, p]


@kernel
def on_axes(planes: np.ndarray, centre: np.ndarray, matrix: np.ndarray, out: np.ndarray) -> None:
    """Coordinates of pixels on axes.

    Parameters
    ----------
    planes : numpy.ndarray
        float32 or float64 ``(features, pixels)``.
    centre : numpy.ndarray
        float64 ``(features,)``, taken off first.
    matrix : numpy.ndarray
        float64 ``(features, axes)``.
    out : numpy.ndarray
        float64 ``(pixels, axes)``.
    """
    n_features, n_axes = matrix.shape
    for i in range(planes.shape[1]):
        for k in range(n_axes):
            out[i, k] = 0.0
        for j in range(n_features):
            value = np.float64(planes[j, i]) - centre[j]
            for k in range(n_axes):
                out[i, k] += value * matrix[j, k]


@kernel
def farthest_points(points: np.ndarray, start: int, nearest: np.ndarray, chosen: np.ndarray) -> None:
    """Choose points one by one, each the one farthest from those chosen before (the first of equals).

    Every point then lies within twice the smallest radius at which so many points can cover all.

    Parameters
    ----------
    points : numpy.ndarray
        float64 ``(n, features)``.
    start : int
        The first point.
    nearest : numpy.ndarray
        float64 ``(n,)``, out: squared distance of each point to the nearest chosen one.
    chosen : numpy.ndarray
        int64 ``(count,)``, out, count <= n.

    References
    ----------
    Gonzalez, T. F. (1985), Clustering to minimize the maximum intercluster distance, Theoretical Computer Science 38,
    293-306.
    """
    n, size = points.shape
    for i in range(n):
        nearest[i] = np.inf
    last = start
    for c in range(len(chosen)):
        chosen[c] = last
        far, best = last, -1.0
        for i in range(n):
            total = 0.0
            for k in range(size):
                step = points[i, k] - points[last, k]
                total += step * step
            if total < nearest[i]:
                nearest[i] = total
            if nearest[i] > best:
                best = nearest[i]
                far = i
        last = far
