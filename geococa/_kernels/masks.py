"""Widening a mask by a distance on the ground."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import kernel

__all__ = ["widen"]


@kernel
def widen(mask: np.ndarray, half: np.ndarray, out: np.ndarray) -> None:
    """Mark every cell that has a masked cell within a disk (or ellipse) around it.

    Parameters
    ----------
    mask : ndarray (rows, columns) uint8
        1 = masked.
    half : ndarray (rows, reach + 1) int32
        For each row, half the width in cells of the disk around its cells, ``k`` rows up or down; -1 where the
        disk does not reach that row.
    out : ndarray (rows, columns) uint8
        1 = masked or near a masked cell; written.
    """
    rows, columns = mask.shape
    reach = half.shape[1] - 1
    far = np.int32(2**30)
    # distance in cells to the nearest masked cell of the same row
    along = np.empty((rows, columns), np.int32)
    for r in range(rows):
        gap = far
        for c in range(columns):
            gap = np.int32(0) if mask[r, c] else min(gap + np.int32(1), far)
            along[r, c] = gap
        gap = far
        for c in range(columns - 1, -1, -1):
            gap = np.int32(0) if mask[r, c] else min(gap + np.int32(1), far)
            along[r, c] = min(along[r, c], gap)
    for r in range(rows):
        line = out[r]
        line[:] = np.uint8(0)
        for other in range(max(0, r - reach), min(rows, r + reach + 1)):
            width = half[r, abs(other - r)]
            near = along[other]
            for c in range(columns):
                line[c] |= np.uint8(near[c] <= width)
