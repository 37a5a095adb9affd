"""From class probabilities to class codes, pixel by pixel."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["most_probable"]


@inline
def _best_class(probability: np.ndarray, pixel: int) -> tuple[int, np.float32]:
    """Index and probability of the first most probable class, or (-1, 0) where any class is NaN."""
    best = 0
    peak = probability[0, pixel]
    for k in range(probability.shape[0]):
        value = probability[k, pixel]
        if np.isnan(value):
            return -1, np.float32(0.0)
        if value > peak:
            best, peak = k, value
    return best, peak


@kernel
def most_probable(
    probability: np.ndarray, codes: np.ndarray, least: np.float32, unclassified: int, missing: int, out: np.ndarray
) -> None:
    """Write the code of the most probable class of every pixel.

    Parameters
    ----------
    probability : ndarray of float32, shape (classes, pixels)
        NaN in any class means that the pixel was not observed.
    codes : ndarray of uint8, shape (classes,)
        Code of each class.
    least : float32
        Pixels whose highest probability is below this get ``unclassified``.
    unclassified, missing : int
        Codes of pixels without a class and of pixels that were not observed.
    out : ndarray of uint8, shape (pixels,)
        Codes. Ties go to the first class.
    """
    for pixel in range(probability.shape[1]):
        best, peak = _best_class(probability, pixel)
        if best < 0:
            out[pixel] = missing
        elif peak < least:
            out[pixel] = unclassified
        else:
            out[pixel] = codes[best]
