"""Sums of class fractions over the cells of zones, weighted by cell area and by the share of the cell inside.

The zones come as the strips of `coverage.sweep`. A zone's strips are visited in the order of their rows and every sum is
carried on from block to block, so that results don't depend on how a raster is cut into blocks of rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel
from geococa._kernels.zonal import PIECE

__all__ = ["fraction_areas"]


@inline
def weigh(
    fractions: Any, row: Any, start: Any, stop: Any, offset: Any, a: float, b: float, c: float, weight: Any
) -> Any:
    """Area of each cell over the sum of its fractions, 0 where not observed.

    Returns
    -------
    gap : float
        Area of the cells that were not observed.
    wrong : int
        Column of a cell whose fractions are not shares, or -1.
    """
    size = stop - start
    for i in range(size):
        weight[i] = 0.0
    wrong = -1
    for k in range(fractions.shape[0]):
        line = fractions[k, row, start:stop]
        for i in range(size):
            weight[i] += line[i]
    for k in range(fractions.shape[0]):
        line = fractions[k, row, start:stop]
        for i in range(size):
            if line[i] < -1e-6:
                wrong = start + i
    gap = 0.0
    for i in range(size):
        place, total = start + i - offset, weight[i]
        area = a + place * (b + place * c)
        if np.isnan(total):
            gap += area
            weight[i] = 0.0
        else:
            if not abs(total - 1.0) < 1e-3:
                wrong = start + i
            weight[i] = area / total
    return gap, wrong


@inline
def weighted_sum(line: Any, weight: Any, size: int) -> float:
    """Sum of ``line * weight`` in double precision; a cell without weight does not count, even if it holds NaN.

    Four sums take turns, which waits for fewer additions; the order is the same on every machine.
    """
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    i = 0
    while i + 3 < size:
        first += weight[i] * line[i] if weight[i] > 0.0 else 0.0
        second += weight[i + 1] * line[i + 1] if weight[i + 1] > 0.0 else 0.0
        third += weight[i + 2] * line[i + 2] if weight[i + 2] > 0.0 else 0.0
        fourth += weight[i + 3] * line[i + 3] if weight[i + 3] > 0.0 else 0.0
        i += 4
    while i < size:
        first += weight[i] * line[i] if weight[i] > 0.0 else 0.0
        i += 1
    return (first + second) + (third + fourth)


@kernel
def fraction_areas(
    strips: Any,
    strip_zone: Any,
    strip_row: Any,
    span_offsets: Any,
    span_start: Any,
    span_stop: Any,
    cell_offsets: Any,
    cell_column: Any,
    cell_fraction: Any,
    fractions: Any,
    row_start: Any,
    pieces_ha: Any,
    step: Any,
    wrong: Any,
    out: Any,
) -> None:
    """Add the hectares of every class in every zone, for several maps of fractions at once.

    Each cell's fractions are divided by their sum (which single precision leaves within 1e-6 of one), so that the
    classes of a cell add up to its area.

    Parameters
    ----------
    strips : int64[n]
        Numbers of the strips to visit, those of a zone in the order of their rows.
    strip_zone ... cell_fraction
        As `coverage.sweep` returns them.
    fractions : float32 or float64[times, classes, rows, columns]
        Fractions; a cell with NaN in any class was not observed.
    row_start : int
        Row of the grid that is row 0 of ``fractions`` and ``pieces_ha``.
    pieces_ha, step
        Cell areas as `zonal.class_areas` takes them.
    wrong : int64[zones, 3]
        -1 on entry; time, row and column of one cell of a zone whose fractions are negative or don't sum to one.
    out : float64[times, zones, classes + 1]
        Hectares; added to. The last place is what was not observed.
    """
    classes = fractions.shape[1]
    weight = np.empty(PIECE)
    last_piece = pieces_ha.shape[1] - 1
    for s in strips:
        zone, row = strip_zone[s], strip_row[s] - row_start
        for time in range(out.shape[0]):
            layer = fractions[time]
            for span in range(span_offsets[s], span_offsets[s + 1]):
                start, end = np.int64(span_start[span]), np.int64(span_stop[span])
                while start < end:
                    number = start // step
                    stop = min(end, (number + 1) * step)
                    a, b, c = pieces_ha[row, min(number, last_piece)]
                    gap, column = weigh(layer, row, start, stop, number * step, a, b, c, weight)
                    out[time, zone, classes] += gap
                    for k in range(classes):
                        out[time, zone, k] += weighted_sum(layer[k, row, start:stop], weight, stop - start)
                    if column >= 0:
                        wrong[zone, 0], wrong[zone, 1], wrong[zone, 2] = time, strip_row[s], column
                    start = stop
            for cell in range(cell_offsets[s], cell_offsets[s + 1]):
                start = np.int64(cell_column[cell])
                number = start // step
                a, b, c = pieces_ha[row, min(number, last_piece)]
                gap, column = weigh(layer, row, start, start + 1, number * step, a, b, c, weight)
                share = cell_fraction[cell]
                out[time, zone, classes] += share * gap
                for k in range(classes):
                    if weight[0] > 0.0:
                        out[time, zone, k] += share * weight[0] * layer[k, row, start]
                if column >= 0:
                    wrong[zone, 0], wrong[zone, 1], wrong[zone, 2] = time, strip_row[s], column
