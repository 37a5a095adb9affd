"""Texture in a moving window: local mean and spread, and grey-level co-occurrence."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

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


_FIXED = 2.0**36
"""Logarithms and fractions are kept as whole numbers of 2**-36: sums of them are exact, so a window that was slid to a
place has the same sum as one that began there."""


@inline
def _tables(count: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """What a pair of levels adds, by ``first * (count + 1) + second``, and what a number of equal pairs adds.

    Level ``count`` is "not observed", whose pairs add nothing.
    """
    side = count + 1
    adds = np.zeros((side * side, 4), np.int64)
    for a in range(count):
        for b in range(count):
            gap = (a - b) * (a - b)
            adds[a * side + b, 0] = 2
            adds[a * side + b, 1] = 2 * gap
            adds[a * side + b, 2] = np.int64(np.rint(2.0 / (1.0 + gap) * _FIXED))
            adds[a * side + b, 3] = 1 if a == b else 2
    # n ln n, for the two entries (a, b) and (b, a) of m pairs, and for the one entry (a, a), which counts them twice
    logs = np.zeros((3, largest + 1), np.int64)
    for m in range(1, largest + 1):
        logs[1, m] = np.int64(np.rint(2.0 * m * np.log(2.0 * m) * _FIXED))
        logs[2, m] = np.int64(np.rint(2.0 * m * np.log(np.float64(m)) * _FIXED))
    return adds, logs


@inline
def _count(
    first: int,
    second: int,
    step: int,
    pairs: np.ndarray,
    adds: np.ndarray,
    logs: np.ndarray,
    sums: np.ndarray,
    side: int,
) -> None:
    """Add a pair of levels (``step`` 1) or take it off (-1): to the counts, and to the sums over all of them."""
    place = min(first, second) * side + max(first, second)
    before = pairs[place]
    after = before + step
    pairs[place] = after
    kind = adds[place, 3]
    sums[0] += step * adds[place, 0]
    sums[1] += step * adds[place, 1]
    sums[2] += step * adds[place, 2]
    sums[3] += logs[kind, after] - logs[kind, before]


@inline
def _column(
    levels: np.ndarray,
    top: int,
    bottom: int,
    col: int,
    other: int,
    step: int,
    pairs: np.ndarray,
    adds: np.ndarray,
    logs: np.ndarray,
    sums: np.ndarray,
    side: int,
) -> None:
    """Add or take off the pairs of a column with itself and with the one beside it, if ``other`` is not negative."""
    here = levels[top, col]
    for r in range(top, bottom):
        below = levels[r + 1, col]
        _count(here, below, step, pairs, adds, logs, sums, side)
        if other >= 0:
            beside, under = levels[r, other], levels[r + 1, other]
            _count(here, beside, step, pairs, adds, logs, sums, side)
            _count(here, under, step, pairs, adds, logs, sums, side)
            _count(below, beside, step, pairs, adds, logs, sums, side)
        here = below
    if other >= 0:
        _count(here, levels[bottom, other], step, pairs, adds, logs, sums, side)


@kernel
def cooccurrence(levels: np.ndarray, count: int, radius: int, out: np.ndarray) -> None:
    """Contrast, homogeneity and entropy of the grey-level co-occurrence matrix of a moving window.

    Pairs are neighbours to the right, below, below right and below left, counted both ways (symmetric), in one
    matrix. A window is slid along the row: the pairs of the column that leaves are taken off, those of the column
    that comes in are added, and so are what they change in the three sums, in whole numbers; so the result does not
    depend on where the row began, and no pixel looks at the whole matrix.

    Parameters
    ----------
    levels : numpy.ndarray
        int64 ``(rows, columns)``, grey level 0..count-1, count = not observed.
    count : int
        Number of grey levels.
    radius : int
        Cells on each side of the centre.
    out : numpy.ndarray
        float32 ``(3, rows, columns)``: contrast, homogeneity, entropy (natural logarithm); NaN where the centre is
        not observed or the window holds no pair.
    """
    rows, columns = levels.shape
    side = count + 1
    adds, logs = _tables(count, 4 * (2 * radius + 1) ** 2)
    pairs, sums = np.zeros(side * side, np.int64), np.zeros(4, np.int64)
    for row in range(rows):
        top, bottom = max(row - radius, 0), min(row + radius, rows - 1)
        pairs[:] = 0
        sums[:] = 0
        for c in range(min(radius, columns)):
            _column(levels, top, bottom, c, c - 1, 1, pairs, adds, logs, sums, side)
        for c in range(columns):
            right, left = c + radius, c - radius - 1
            if right < columns:
                _column(levels, top, bottom, right, right - 1, 1, pairs, adds, logs, sums, side)
            if left >= 0:
                _column(levels, top, bottom, left, left + 1, -1, pairs, adds, logs, sums, side)
            if levels[row, c] == count or sums[0] == 0:
                out[:, row, c] = np.nan
                continue
            total = np.float64(sums[0])
            out[0, row, c] = sums[1] / total
            out[1, row, c] = sums[2] / _FIXED / total
            out[2, row, c] = max(np.log(total) - sums[3] / _FIXED / total, 0.0)
