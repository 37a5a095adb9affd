"""Sums over the cells of zones: class areas of label maps, and moments of continuous rasters.

The zones come as the strips of `coverage.sweep`: spans of whole cells and border cells with a share. A zone's strips
are visited in the order of their rows and every sum is carried on from block to block, so that results don't depend
on how a raster is cut into blocks of rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["centre_cells", "class_areas", "expand_strips", "unknown_label"]

_HIGH = np.int64(1) << np.int64(32)
_LOW = _HIGH - np.int64(1)


@inline
def _count(labels: Any, start: Any, stop: Any, slots: int, slot: Any, counts: Any) -> None:
    """Add one per cell of a slot, and its position from ``start`` in the upper half of the same number.

    Two sets of counters take turns: neighbouring cells mostly share their class, and adding twice in a row to one
    memory cell waits.
    """
    step = _HIGH
    even, odd = np.int64(1), np.int64(1) + step
    column = start
    while column + 1 < stop:
        counts[slot[labels[column]]] += even
        counts[slots + slot[labels[column + 1]]] += odd
        even += 2 * step
        odd += 2 * step
        column += 2
    if column < stop:
        counts[slot[labels[column]]] += even


@kernel
def class_areas(
    strips: Any,
    strip_zone: Any,
    strip_row: Any,
    span_offsets: Any,
    span_start: Any,
    span_stop: Any,
    cell_offsets: Any,
    cell_column: Any,
    cell_fraction: Any,
    labels: Any,
    row_start: int,
    nodes_ha: Any,
    step: int,
    slot: Any,
    out: Any,
) -> None:
    """Add the hectares of every class in every zone, for several maps at once.

    Parameters
    ----------
    strips : int64[n]
        Numbers of the strips to visit, those of a zone in the order of their rows.
    strip_zone ... cell_fraction
        As `coverage.sweep` returns them.
    labels : uint8[times, rows, columns]
        Class codes.
    row_start : int
        Row of the grid that is row 0 of ``labels`` and ``nodes_ha``.
    nodes_ha : float64[rows, nodes]
        Cell areas at columns 0, ``step``, 2 ``step``, ...; linear between; one node holds for the whole row.
    step : int
        Columns between nodes, at most 256 where there are several.
    slot : uint8[256]
        Place of each code in the last axis of ``out``.
    out : float64[times, zones, slots]
        Hectares; added to.
    """
    slots = out.shape[2]
    counts = np.zeros(2 * slots, np.int64)
    single = nodes_ha.shape[1] == 1
    for s in strips:
        zone, row = strip_zone[s], strip_row[s] - row_start
        for time in range(out.shape[0]):
            line = labels[time, row]
            for span in range(span_offsets[s], span_offsets[s + 1]):
                start, end = np.int64(span_start[span]), np.int64(span_stop[span])
                while start < end:
                    if single:
                        # positions aren't used, and a piece short enough can't overflow them
                        stop = min(end, start + 32768)
                        level, slope = nodes_ha[row, 0], 0.0
                    else:
                        node = start // step
                        stop = min(end, (node + 1) * step)
                        slope = (nodes_ha[row, node + 1] - nodes_ha[row, node]) / step
                        level = nodes_ha[row, node] + slope * (start - node * step)
                    _count(line, start, stop, slots, slot, counts)
                    for k in range(slots):
                        packed = counts[k] + counts[slots + k]
                        if packed != 0:
                            out[time, zone, k] += (packed & _LOW) * level + (packed >> 32) * slope
                            counts[k] = 0
                            counts[slots + k] = 0
                    start = stop
            for cell in range(cell_offsets[s], cell_offsets[s + 1]):
                column = cell_column[cell]
                value = nodes_ha[row, 0]
                if not single:
                    node = column // step
                    share = (column - node * step) / step
                    value = nodes_ha[row, node] * (1.0 - share) + nodes_ha[row, node + 1] * share
                out[time, zone, slot[line[column]]] += cell_fraction[cell] * value


@kernel
def unknown_label(
    strips: Any,
    strip_row: Any,
    span_offsets: Any,
    span_start: Any,
    span_stop: Any,
    cell_offsets: Any,
    cell_column: Any,
    labels: Any,
    row_start: int,
    known: Any,
    out: Any,
) -> None:
    """Find a code inside zones that is not known; ``out[0]`` becomes that code, else stays -1.

    Parameters
    ----------
    labels : uint8[times, rows, columns]
        Class codes.
    known : bool[256]
        Whether a code has a name.
    out : int64[1]
        -1 on entry.
    """
    for s in strips:
        row = strip_row[s] - row_start
        for time in range(labels.shape[0]):
            for span in range(span_offsets[s], span_offsets[s + 1]):
                for column in range(span_start[span], span_stop[span]):
                    if not known[labels[time, row, column]]:
                        out[0] = labels[time, row, column]
            for cell in range(cell_offsets[s], cell_offsets[s + 1]):
                if not known[labels[time, row, cell_column[cell]]]:
                    out[0] = labels[time, row, cell_column[cell]]


@kernel
def expand_strips(
    strips: Any,
    strip_row: Any,
    span_offsets: Any,
    span_start: Any,
    span_stop: Any,
    cell_offsets: Any,
    cell_column: Any,
    cell_fraction: Any,
    row_start: int,
    out_row: Any,
    out_column: Any,
    out_share: Any,
) -> None:
    """Write out every cell of some strips.

    Parameters
    ----------
    strips : int64[n]
        Numbers of the strips.
    out_row, out_column : int64[cells]
        Row (counted from ``row_start``) and column of each cell; spans come before border cells in a strip.
    out_share : float64[cells]
        Share of each cell inside the zone.
    """
    count = 0
    for s in strips:
        row = strip_row[s] - row_start
        for span in range(span_offsets[s], span_offsets[s + 1]):
            for column in range(span_start[span], span_stop[span]):
                out_row[count], out_column[count], out_share[count] = row, column, 1.0
                count += 1
        for cell in range(cell_offsets[s], cell_offsets[s + 1]):
            out_row[count], out_column[count], out_share[count] = row, cell_column[cell], cell_fraction[cell]
            count += 1


@kernel
def centre_cells(
    x: Any, y: Any, ring_offsets: Any, rings: Any, row_start: int, row_stop: int, columns: int, out: Any
) -> None:
    """Mark the cells whose centre lies inside a zone (even-odd rule).

    A centre exactly on an edge belongs to the polygon below or right of the edge, so that neighbours never share it.

    Parameters
    ----------
    x, y : float64[n]
        Vertices in pixel units; rings closed.
    ring_offsets : int64[rings + 1]
        First vertex of each ring, and the end.
    rings : int64[2]
        First ring of the zone, and the end.
    row_start, row_stop, columns : int
        Rows and columns of ``out`` in the raster.
    out : int8[row_stop - row_start, columns]
        Zeros on entry; 1 where the centre is inside.
    """
    for ring in range(rings[0], rings[1]):
        for i in range(ring_offsets[ring], ring_offsets[ring + 1] - 1):
            upper, lower = (i, i + 1) if y[i] < y[i + 1] else (i + 1, i)
            if y[upper] == y[lower]:
                continue
            first = max(int(np.ceil(max(y[upper] - 0.5, -1.0))), row_start)
            for row in range(first, row_stop):
                centre = row + 0.5
                if centre >= y[lower]:
                    break
                crossing = x[upper] + (centre - y[upper]) / (y[lower] - y[upper]) * (x[lower] - x[upper])
                column = max(int(np.ceil(max(min(crossing - 0.5, columns), -1.0))), 0)
                if column < columns:
                    out[row - row_start, column] ^= 1
    for row in range(out.shape[0]):
        inside = 0
        for column in range(columns):
            inside ^= out[row, column]
            out[row, column] = inside
