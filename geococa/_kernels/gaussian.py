"""Gaussian classes: squared Mahalanobis distances of pixels to every class, pixels in SIMD lanes."""

from __future__ import annotations

from typing import Any

from geococa._kernels._jit import kernel

__all__ = ["LANES", "squared_distances"]

LANES = 256
"""Pixels worked on side by side; a strip of them stays in the first-level cache."""


@kernel
def squared_distances(planes: Any, whitening: Any, mean: Any, strip: Any, out: Any) -> None:
    """Squared Mahalanobis distance of each pixel to each class.

    The whitening matrix of a class is the inverse of the lower Cholesky factor of its covariance, so the
    distance is the sum of the squares of ``whitening @ (x - mean)``.

    Parameters
    ----------
    planes : float32 or float64 (features, pixels)
        Feature values, finite.
    whitening : float64 or float32 (classes, features, features)
        Lower triangular; what is above the diagonal is not read.
    mean : float64 or float32 (classes, features)
        Class means.
    strip : float64 or float32 (features + 1, LANES)
        Workspace.
    out : float64 or float32 (classes, pixels)
        Squared distances; overwritten.
    """
    n_classes, n_features = mean.shape
    n_pixels = planes.shape[1]
    for start in range(0, n_pixels, LANES):
        width = min(LANES, n_pixels - start)
        for k in range(n_classes):
            for j in range(n_features):
                centre = mean[k, j]
                for p in range(width):
                    strip[j, p] = planes[j, start + p] - centre
            for p in range(width):
                out[k, start + p] = 0
            for i in range(n_features):
                for p in range(width):
                    strip[n_features, p] = 0
                for j in range(i + 1):
                    factor = whitening[k, i, j]
                    for p in range(width):
                        strip[n_features, p] += factor * strip[j, p]
                for p in range(width):
                    out[k, start + p] += strip[n_features, p] * strip[n_features, p]
