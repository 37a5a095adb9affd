"""Texture in a moving window: local mean and spread, and grey-level co-occurrence."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import kernel

__all__ = ["cooccurrence", "local_moments"]


@kernel
def local_moments(values: np.ndarray, radius: int, sums: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> None:
    """Mean and population standard deviation of the observed cells of a square window.

    The sum of each window is taken down its columns and then along the row, always in the same order, so a cell's
    result does not depend on where the block around it was cut.

    Parameters
    ----------
    values : numpy.ndarray
        float32 ``(rows, columns)``, NaN = not observed.
    radius : int
        Cells on each side of the centre.
    sums : numpy.ndarray
        float64 ``(3, columns)``, scratch.
    mean, spread : numpy.ndarray
        float32 ``(rows, columns)``, NaN where the centre is not observed.
    """
    rows, columns = values.shape
    for row in range(rows):
        sums[:] = 0.0
        for r in range(max(row - radius, 0), min(row + radius + 1, rows)):
            for c in range(columns):
                value = np.float64(values[r, c])
                seen = value == value
                filled = value if seen else 0.0
                sums[0, c] += 1.0 if seen else 0.0
                sums[1, c] += filled
                sums[2, c] += filled * filled
        for c in range(columns):
            if np.isnan(values[row, c]):
                mean[row, c] = np.nan
                spread[row, c] = np.nan
                continue
            count, total, squares = 0.0, 0.0, 0.0
            for k in range(max(c - radius, 0), min(c + radius + 1, columns)):
                count += sums[0, k]
                total += sums[1, k]
                squares += sums[2, k]
            average = total / count
            mean[row, c] = average
            spread[row, c] = np.sqrt(max(squares / count - average * average, 0.0))


@kernel
def cooccurrence(levels: np.ndarray, count: int, radius: int, pairs: np.ndarray, out: np.ndarray) -> None:
    """Contrast, homogeneity and entropy of the grey-level co-occurrence matrix of a moving window.

    Pairs are neighbours to the right, below, below right and below left, counted both ways (symmetric), in one
    matrix. A window is slid along the row: the pairs of the column that leaves are taken off, those of the column
    that comes in are added; the counts are whole numbers, so the result does not depend on where the row began.

    Parameters
    ----------
    levels : numpy.ndarray
        int16 ``(rows, columns)``, grey level 0..count-1, -1 = not observed.
    count : int
        Number of grey levels.
    radius : int
        Cells on each side of the centre.
    pairs : numpy.ndarray
        int64 ``(count, count)``, scratch.
    out : numpy.ndarray
        float32 ``(3, rows, columns)``: contrast, homogeneity, entropy (natural logarithm); NaN where the centre is
        not observed or the window holds no pair.
    """
    rows, columns = levels.shape
    for row in range(rows):
        top, bottom = max(row - radius, 0), min(row + radius, rows - 1)
        pairs[:] = 0
        for c in range(min(radius, columns)):
            _add_column(levels, top, bottom, 0, c, 1, pairs)
        for c in range(columns):
            right = c + radius
            if right < columns:
                _add_column(levels, top, bottom, max(c - radius - 1, 0), right, 1, pairs)
            left = c - radius - 1
            if left >= 0:
                _drop_column(levels, top, bottom, left, min(right, columns - 1), pairs)
            _measure(pairs, count, levels[row, c] >= 0, out[:, row, c])


@kernel
def _count(levels: np.ndarray, r0: int, c0: int, r1: int, c1: int, step: int, pairs: np.ndarray) -> None:
    a, b = levels[r0, c0], levels[r1, c1]
    if a >= 0 and b >= 0:
        pairs[a, b] += step
        pairs[b, a] += step


@kernel
def _add_column(levels: np.ndarray, top: int, bottom: int, first: int, col: int, step: int, pairs: np.ndarray) -> None:
    """Add the pairs that a column forms with itself and with the column to its left (not beyond ``first``)."""
    for r in range(top, bottom + 1):
        if r < bottom:
            _count(levels, r, col, r + 1, col, step, pairs)
        if col > first:
            _count(levels, r, col - 1, r, col, step, pairs)
            if r < bottom:
                _count(levels, r, col - 1, r + 1, col, step, pairs)
                _count(levels, r, col, r + 1, col - 1, step, pairs)


@kernel
def _drop_column(levels: np.ndarray, top: int, bottom: int, col: int, last: int, pairs: np.ndarray) -> None:
    """Take off the pairs that a column forms with itself and with the column to its right."""
    for r in range(top, bottom + 1):
        if r < bottom:
            _count(levels, r, col, r + 1, col, -1, pairs)
        if col < last:
            _count(levels, r, col, r, col + 1, -1, pairs)
            if r < bottom:
                _count(levels, r, col, r + 1, col + 1, -1, pairs)
                _count(levels, r, col + 1, r + 1, col, -1, pairs)


@kernel
def _measure(pairs: np.ndarray, count: int, observed: bool, out: np.ndarray) -> None:
    total = 0
    contrast, homogeneity, logs = 0.0, 0.0, 0.0
    if observed:
        for i in range(count):
            for j in range(count):
                n = pairs[i, j]
                if n > 0:
                    gap = float((i - j) * (i - j))
                    total += n
                    contrast += n * gap
                    homogeneity += n / (1.0 + gap)
                    logs += n * np.log(float(n))
    if total == 0:
        out[:] = np.nan
        return
    out[0] = contrast / total
    out[1] = homogeneity / total
    out[2] = np.log(float(total)) - logs / total
