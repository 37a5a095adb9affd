"""Heights between cell centres, and how they rise from cell to cell."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["describe_slopes", "horn_gradient", "sample_bilinear"]


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
def horn_gradient(
    heights: np.ndarray, linear: np.ndarray, unit_x: np.ndarray, unit_y: np.ndarray, out: np.ndarray
) -> None:
    """Gradient in a window of 3 x 3 cells, direct neighbours weighing twice as much as diagonal ones (Horn 1981).

    Parameters
    ----------
    heights : numpy.ndarray
        float32 ``(rows, columns)``, NaN = no height.
    linear : numpy.ndarray
        float64 ``(4,)``: a, b, d, e of the affine transform, ``x = a column + b row``, ``y = d column + e row``.
    unit_x, unit_y : numpy.ndarray
        float64 ``(rows, 1)`` or ``(rows, columns)``: metres to a unit of x and of y.
    out : numpy.ndarray
        float32 ``(2, rows, columns)``: rise per metre along x and along y; NaN where the centre has no height. A missing
        neighbour is put on the line from the opposite one through the centre, or counts as level.
    """
    rows, columns = heights.shape
    a, b, d, e = linear[0], linear[1], linear[2], linear[3]
    determinant = a * e - b * d
    wide = unit_x.shape[1] > 1
    for row in range(rows):
        inside = 0 < row < rows - 1
        for col in range(columns):
            if np.isnan(heights[row, col]):
                out[0, row, col] = np.nan
                out[1, row, col] = np.nan
                continue
            right, down = np.nan, np.nan
            if inside and 0 < col < columns - 1:
                nw, n, ne = np.float64(heights[row - 1, col - 1]), heights[row - 1, col], heights[row - 1, col + 1]
                w, o = np.float64(heights[row, col - 1]), heights[row, col + 1]
                sw, s, se = np.float64(heights[row + 1, col - 1]), heights[row + 1, col], heights[row + 1, col + 1]
                right = ((ne - nw) + 2.0 * (o - w) + (se - sw)) / 8.0
                down = ((sw - nw) + 2.0 * (np.float64(s) - n) + (np.float64(se) - ne)) / 8.0
            # one of the eight is missing if the sum of all is NaN
            if np.isnan(right + down):
                right, down = 0.0, 0.0
                for k in range(-1, 2):
                    weight = 2.0 if k == 0 else 1.0
                    right += weight * (_height(heights, row, col, k, 1) - _height(heights, row, col, k, -1)) / 8.0
                    down += weight * (_height(heights, row, col, 1, k) - _height(heights, row, col, -1, k)) / 8.0
            at = col if wide else 0
            out[0, row, col] = (right * e - down * d) / (determinant * unit_x[row, at])
            out[1, row, col] = (down * a - right * b) / (determinant * unit_y[row, at])


@inline
def _arctan_degrees(x: float) -> float:
    """Arc tangent of 0 to 1 in degrees, within 1.2e-6 (Abramowitz & Stegun 4.4.49); a call of atan takes ten times as long."""
    y = x * x
    even = 0.0429096138 + y * (-0.0161657367 + y * 0.0028662257)
    even = 0.1999355085 + y * (-0.1420889944 + y * (0.1065626393 + y * (-0.0752896400 + y * even)))
    return x * (1.0 + y * (-0.3333314528 + y * even)) * (180.0 / np.pi)


@inline
def _slope(east: np.ndarray, north: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        x, y = np.float64(east[i]), np.float64(north[i])
        rise = np.sqrt(x * x + y * y)
        steep = rise > 1.0
        angle = _arctan_degrees(1.0 / rise if steep else rise)
        out[i] = 90.0 - angle if steep else angle


@inline
def _aspect(east: np.ndarray, north: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        # the ground faces the way it falls
        x, y = -np.float64(east[i]), -np.float64(north[i])
        far, near = max(abs(x), abs(y)), min(abs(x), abs(y))
        # NaN on level ground
        angle = _arctan_degrees(near / (far if far != 0.0 else np.nan))
        angle = 90.0 - angle if abs(x) > abs(y) else angle
        angle = 180.0 - angle if y < 0.0 else angle
        angle = 360.0 - angle if x < 0.0 else angle
        value = np.float32(angle)
        out[i] = np.float32(0.0) if value >= np.float32(360.0) else value


@inline
def _share(one: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        x, y = np.float64(one[i]), np.float64(other[i])
        rise = np.sqrt(x * x + y * y)
        out[i] = -x / (rise if rise != 0.0 else 1.0) + 0.0


@kernel
def describe_slopes(layers: np.ndarray, kinds: np.ndarray, out: np.ndarray) -> None:
    """Height, slope and aspect from height and gradient.

    Parameters
    ----------
    layers : numpy.ndarray
        float32 ``(3, rows, columns)``: height, rise per metre to the east, and to the north; NaN = no height.
    kinds : numpy.ndarray
        int64 ``(features,)``: 0 height, 1 slope in degrees, 2 aspect in degrees clockwise from north, 3 its sine, 4 its
        cosine.
    out : numpy.ndarray
        float32 ``(features, rows, columns)``; on level ground the aspect is NaN, its sine and cosine are 0.
    """
    for k in range(kinds.size):
        for row in range(layers.shape[1]):
            if kinds[k] == 0:
                out[k, row] = layers[0, row]
            elif kinds[k] == 1:
                _slope(layers[1, row], layers[2, row], out[k, row])
            elif kinds[k] == 2:
                _aspect(layers[1, row], layers[2, row], out[k, row])
            elif kinds[k] == 3:
                _share(layers[1, row], layers[2, row], out[k, row])
            else:
                _share(layers[2, row], layers[1, row], out[k, row])


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
