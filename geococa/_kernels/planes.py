"""Planes of feature values as they lie in memory: one flat array and the distance from one feature to the next.

A block of pixels cut from whole planes is not contiguous, and a kernel for such arrays can't work on many pixels at
once. Seen as a flat array, every row is, and nothing has to be copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import kernel

__all__ = ["all_finite", "finite_pixels", "flat_planes"]

_STRIP = 512


def flat_planes(planes: np.ndarray) -> tuple[np.ndarray, int]:
    """Return planes ``(features, pixels)`` as a flat array and the distance between the rows in it.

    They are copied only where the pixels of a row do not lie side by side. Row ``f`` starts at ``f * distance``.
    """
    n_features, n_pixels = planes.shape
    size = planes.itemsize
    along, across = planes.strides[1], planes.strides[0]
    if (n_pixels > 1 and along != size) or (n_features > 1 and (across < n_pixels * size or across % size)):
        planes = np.ascontiguousarray(planes)
        across = planes.strides[0]
    step = across // size if n_features > 1 else n_pixels
    flat = np.lib.stride_tricks.as_strided(planes, ((n_features - 1) * step + n_pixels,), (size,))
    return flat, step


@kernel
def finite_pixels(flat: Any, step: int, n_features: int, factor: Any, strip: Any, out: Any) -> None:
    """Tell which pixels have no feature that is NaN, or infinite when multiplied.

    Parameters
    ----------
    flat : float32 or float64 (any,); step : int
        From `flat_planes`.
    n_features : int
        Number of planes.
    factor : as flat
        What features are multiplied by.
    strip : as flat (_STRIP,)
        Workspace.
    out : bool (pixels,)
        Overwritten.
    """
    n_pixels = out.shape[0]
    size = strip.shape[0]
    for start in range(0, n_pixels, size):
        width = min(size, n_pixels - start)
        strip[:] = 0
        for f in range(n_features):
            row = flat[f * step + start : f * step + start + width]
            for p in range(width):
                # zero for finite values, NaN for all others
                value = row[p] * factor
                strip[p] += value - value
        for p in range(width):
            out[start + p] = strip[p] == 0


def all_finite(planes: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Whether each pixel of ``planes`` ``(features, pixels)`` has only finite features, bool ``(pixels,)``.

    With ``largest``, values beyond it count as infinite, too (to within rounding).
    """
    out = np.ones(planes.shape[1], dtype=bool)
    if planes.size and planes.dtype.kind == "f":
        flat, step = flat_planes(planes)
        factor = 1.0 if largest is None else float(np.finfo(planes.dtype).max) / largest
        finite_pixels(flat, step, len(planes), planes.dtype.type(factor), np.zeros(_STRIP, planes.dtype), out)
    return out
