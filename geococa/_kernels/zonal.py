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

PIECE = 1024
"""Most columns that share one polynomial of cell areas."""

# one cell, its position and the square of its position side by side in one number: sums over a piece fit without carry
_PACKED = np.array([1 | (i << 12) | (i * i << 32) for i in range(PIECE)], np.uint64)
_LANES = np.array([0, 256, 512, 768], np.uint64)


@inline
def _count(labels: Any, start: Any, stop: Any, offset: Any, packed: Any, lanes: Any, counts: Any) -> None:
    """Add every cell of ``labels[start:stop]`` to the counter of its code; positions count from ``offset``.

    Four sets of counters take turns: neighbouring cells mostly share their code, and adding twice in a row to one
    memory cell waits for the first addition.
    """
    part, place = labels[start:stop], packed[start - offset : stop - offset]
    size, one, two, three = np.uint64(part.size), np.uint64(1), np.uint64(2), np.uint64(3)
    second, third, fourth = lanes[1], lanes[2], lanes[3]
    i = np.uint64(0)
    while i + three < size:
        counts[np.uint64(part[i])] += place[i]
        counts[second + np.uint64(part[i + one])] += place[i + one]
        counts[third + np.uint64(part[i + two])] += place[i + two]
        counts[fourth + np.uint64(part[i + three])] += place[i + three]
        i += np.uint64(4)
    while i < size:
        counts[np.uint64(part[i])] += place[i]
        i += one


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
    row_start: Any,
    pieces_ha: Any,
    step: Any,
    codes: Any,
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
        Row of the grid that is row 0 of ``labels`` and ``pieces_ha``.
    pieces_ha : float64[rows, pieces, 3]
        Cell areas as ``a + b i + c i²``, with i the column in a piece of ``step`` columns; the last piece holds to the
        end (so a single constant one does for a row).
    step : int
        Columns of a piece, at most `PIECE`.
    codes : uint8[slots - 1]
        Codes of the first places in the last axis of ``out``; all other codes go to its last place.
    out : float64[times, zones, slots]
        Hectares; added to.
    """
    slots = out.shape[2]
    slot = np.full(256, slots - 1, np.int64)
    for k in range(codes.size):
        slot[codes[k]] = k
    counts = np.zeros(1024, np.uint64)
    packed, lanes = _PACKED, _LANES
    nothing, low, middle = np.uint64(0), np.uint64(0xFFF), np.uint64(0xFFFFF)
    last_piece = pieces_ha.shape[1] - 1
    for s in strips:
        zone, row = strip_zone[s], strip_row[s] - row_start
        for time in range(out.shape[0]):
            line = labels[time, row]
            for span in range(span_offsets[s], span_offsets[s + 1]):
                start, end = np.int64(span_start[span]), np.int64(span_stop[span])
                while start < end:
                    number = start // step
                    offset = number * step
                    stop = min(end, offset + step)
                    a, b, c = pieces_ha[row, min(number, last_piece)]
                    _count(line, start, stop, offset, packed, lanes, counts)
                    found: Any = 0
                    for k in range(codes.size):
                        code = np.uint64(codes[k])
                        total = counts[code] + counts[lanes[1] + code]
                        total += counts[lanes[2] + code] + counts[lanes[3] + code]
                        if total != nothing:
                            cells = np.int64(total & low)
                            found += cells
                            places = np.int64((total >> np.uint64(12)) & middle)
                            squares = np.int64(total >> np.uint64(32))
                            out[time, zone, k] += cells * a + places * b + squares * c
                            for lane in lanes:
                                counts[lane + code] = nothing
                    if found != stop - start:
                        counts[:] = nothing
                        out[time, zone, slots - 1] += (stop - start - found) * a
                    start = stop
            for cell in range(cell_offsets[s], cell_offsets[s + 1]):
                column = np.int64(cell_column[cell])
                number = column // step
                i = column - number * step
                a, b, c = pieces_ha[row, min(number, last_piece)]
                out[time, zone, slot[line[column]]] += cell_fraction[cell] * (a + i * (b + i * c))


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
