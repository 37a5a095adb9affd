"""How decided a pixel is: entropy of its class probabilities, and the lead of the best class over the second."""

from __future__ import annotations

import math

import numpy as np

from geococa._kernels._jit import kernel

__all__ = ["entropy_and_margin"]


@kernel
def entropy_and_margin(probability: np.ndarray, entropy: np.ndarray, margin: np.ndarray) -> None:
    """Entropy as a share of the largest possible one, and best minus second probability.

    Parameters
    ----------
    probability : numpy.ndarray
        float32 ``(classes, pixels)``, at least two classes; NaN in any class = not observed.
    entropy, margin : numpy.ndarray
        float32 ``(pixels,)``, 0..1, NaN = not observed.
    """
    n_classes, n_pixels = probability.shape
    largest = math.log(n_classes)
    for i in range(n_pixels):
        total, best, second, seen = 0.0, -1.0, -1.0, True
        for k in range(n_classes):
            value = np.float64(probability[k, i])
            if math.isnan(value):
                seen = False
                break
            if value > 0.0:
                total -= value * math.log(value)
            if value > best:
                best, second = value, best
            elif value > second:
                second = value
        if seen:
            # probabilities sum to 1 within rounding only
            entropy[i] = min(max(total / largest, 0.0), 1.0)
            margin[i] = min(max(best - second, 0.0), 1.0)
        else:
            entropy[i] = np.nan
            margin[i] = np.nan
