"""Heights between cell centres, and how they rise from cell to cell."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["horn_gradient", "sample_bilinear"]


@inline
def _straight(heights: np.ndarray, row: int, col: int, down: int, right: int) -> float:
    """Height of a neighbour; if missing, that on the line from the opposite one through the centre; NaN if both are."""
    rows, columns = heights.shape
    r, c = row + down, col + right
    if 0 <= r < rows and 0 <= c < columns:
        value = float(heights[r, c])
        if value == value:
            return value
    r, c = row - down, col - right
    if 0 <= r < rows and 0 <= c < columns:
        return 2.0 * float(heights[row, col]) - float(heights[r, c])
    return np.nan


@inline
def _height(heights: np.ndarray, row: int, col: int, down: int, right: int) -> float:
    """Height of a neighbour; if it and the opposite one are missing, that of the plane through the direct neighbours."""
    value = _straight(heights, row, col, down, right)
    if value == value:
        return value
    centre = float(heights[row, col])
    if down != 0 and right != 0:
        for k in range(2):
            side = _straight(heights, row, col, down if k == 0 else 0, 0 if k == 0 else right)
            value = (side - centre if side == side else 0.0) + (centre if k == 0 else value)
        return value
    return centre


@kernel
def horn_gradient(heights: np.ndarray, out: np.ndarray) -> None:
    """Gradient in a window of 3 x 3 cells, direct neighbours weighing twice as much as diagonal ones (Horn 1981).

    Parameters
    ----------
    heights : numpy.ndarray
        float32 ``(rows, columns)``, NaN = no height.
    out : numpy.ndarray
        float32 ``(2, rows, columns)``: rise per cell to the right, and per cell down; NaN where the centre has no height.
        A missing neighbour is put on the line from the opposite one through the centre, or counts as level.
    """
    rows, columns = heights.shape
    for row in range(rows):
        inside = 0 < row < rows - 1
        for col in range(columns):
            if np.isnan(heights[row, col]):
                out[0, row, col] = np.nan
                out[1, row, col] = np.nan
                continue
            right, down = np.nan, np.nan
            if inside and 0 < col < columns - 1:
                a, b, c = np.float64(heights[row - 1, col - 1]), heights[row - 1, col], heights[row - 1, col + 1]
                d, f = np.float64(heights[row, col - 1]), heights[row, col + 1]
                g, h, i = np.float64(heights[row + 1, col - 1]), heights[row + 1, col], heights[row + 1, col + 1]
                right = ((c - a) + 2.0 * (f - d) + (i - g)) / 8.0
                down = ((g - a) + 2.0 * (np.float64(h) - b) + (np.float64(i) - c)) / 8.0
            # one of the eight is missing if the sum of all is NaN
            if np.isnan(right + down):
                right, down = 0.0, 0.0
                for k in range(-1, 2):
                    weight = 2.0 if k == 0 else 1.0
                    right += weight * (_height(heights, row, col, k, 1) - _height(heights, row, col, k, -1)) / 8.0
                    down += weight * (_height(heights, row, col, 1, k) - _height(heights, row, col, -1, k)) / 8.0
            out[0, row, col] = right
            out[1, row, col] = down


@kernel
def sample_bilinear(layers: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """Values of layers at places between cell centres.

    Parameters
    ----------
    layers : numpy.ndarray
        float32 ``(layers, rows, columns)``, NaN = no value.
    rows, columns : numpy.ndarray
        float64 ``(n,)``, counted in cell centres: 0 is the centre of the first. NaN, or beyond the first or last centre,
        is outside.
    out : numpy.ndarray
        float32 ``(layers, n)``; NaN outside and where a cell that counts has no value.
    """
    height, width = layers.shape[1:]
    for p in range(rows.size):
        r, c = rows[p], columns[p]
        if not (0.0 <= r <= height - 1 and 0.0 <= c <= width - 1):
            out[:, p] = np.nan
            continue
        top, left = int(r), int(c)
        down, right = r - top, c - left
        for k in range(layers.shape[0]):
            # a cell of weight 0 must not count, not even as NaN
            above = np.float64(layers[k, top, left])
            if right > 0.0:
                above = (1.0 - right) * above + right * layers[k, top, left + 1]
            if down > 0.0:
                below = np.float64(layers[k, top + 1, left])
                if right > 0.0:
                    below = (1.0 - right) * below + right * layers[k, top + 1, left + 1]
                above = (1.0 - down) * above + down * below
            out[k, p] = above
