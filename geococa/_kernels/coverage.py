"""Exact share of every raster cell inside polygons: a scanline sweep with signed area and cover.

Ring vertices come in pixel units: ``x`` counts columns from the left border of column 0, ``y`` rows from the top
border of row 0. Every edge is cut at the rows, then at the columns. Each cell it touches receives ``cover``, the signed
height of the piece of edge in it, and ``area``, that height times the mean distance of the piece from the cell's left
border. Along a row, from left to right, the share of a cell is ``running cover + its cover - its area``, and all
cells up to the next touched one have a share equal to the running cover: 1 inside, 0 outside.

An edge is always cut downwards from its upper end, so the two polygons beside a shared edge round it alike and
their shares add up to one. Row limits only leave rows out: the numbers of a row do not depend on them.

The result is sparse. A *strip* is one row of one zone; it holds *spans* of whole cells and single border *cells*
with their share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["fill_dense", "ring_areas", "sweep"]

WHOLE = 1e-12
"""A share within this of 0 or 1 is 0 or 1; coordinates in pixel units are not known any better."""
BROKEN = 1e-6
"""A share below minus this or above one plus this can't come from a valid polygon."""
_BIT_FACTOR = 0x077CB531
"""De Bruijn sequence: its product with a power of two below 2^32 has the exponent's number in bits 27 to 31."""
_BIT_PLACE = np.zeros(32, np.int64)
_BIT_PLACE[[((_BIT_FACTOR << bit) & 0xFFFFFFFF) >> 27 for bit in range(32)]] = np.arange(32)


@inline
def _grown(array: Any, needed: int) -> Any:
    """Return ``array`` with room for ``needed`` elements, the old ones kept."""
    if needed <= array.size:
        return array
    out = np.empty(max(needed, 2 * array.size), array.dtype)
    out[: array.size] = array
    return out


@inline
def _signed_area(x: Any, y: Any, first: int, last: int) -> Any:
    """Signed area of the ring ``first..last`` (closed or not), relative to its first vertex against cancellation."""
    total = 0.0
    x0, y0 = x[first], y[first]
    for i in range(first, last - 1):
        total += (x[i] - x0) * (y[i + 1] - y0) - (x[i + 1] - x0) * (y[i] - y0)
    return 0.5 * total


@kernel
def ring_areas(x: Any, y: Any, ring_offsets: Any, out: Any) -> None:
    """Signed planar area of rings.

    Parameters
    ----------
    x, y : float64[n]
        Vertices of all rings.
    ring_offsets : int64[rings + 1]
        First vertex of each ring, and the end.
    out : float64[rings]
        Signed areas in the square of the unit of ``x``; positive where the ring turns from ``x`` to ``y``.
    """
    for ring in range(ring_offsets.size - 1):
        first, last = ring_offsets[ring], ring_offsets[ring + 1]
        out[ring] = _signed_area(x, y, first, last) if last - first > 2 else 0.0


@inline
def _limit(value: Any, low: int, high: int) -> Any:
    """Whole number below ``value``, kept within ``low..high`` before conversion so that far vertices can't overflow."""
    return np.int64(np.floor(min(max(value, np.float64(low)), np.float64(high))))


@inline
def _edge_rows(y: Any, i: int, row_start: Any, row_stop: Any) -> Any:
    """First row that the edge after vertex ``i`` passes, and the one after the last; equal where there is none."""
    y_upper, y_lower = min(y[i], y[i + 1]), max(y[i], y[i + 1])
    if y_upper == y_lower or y_lower <= row_start or y_upper >= row_stop:
        return row_start, row_start
    return _limit(y_upper, row_start, row_stop - 1), np.int64(np.ceil(min(y_lower, np.float64(row_stop))))


@inline
def _count_edges(
    x: Any, y: Any, first: int, last: int, row_start: Any, row_stop: Any, columns: Any, changes: Any
) -> None:
    """Count the edges of a ring by rows: how many begin and end in each, whose running sum is how many pass it."""
    for i in range(first, last - 1):
        begin, end = _edge_rows(y, i, row_start, row_stop)
        inside = np.int64(min(x[i], x[i + 1]) < columns)
        changes[begin - row_start] += inside
        changes[end - row_start] -= inside


@inline
def _list_edges(
    x: Any, y: Any, first: int, last: int, sign: Any, row_start: Any, row_stop: Any, columns: Any, ends: Any, edges: Any
) -> None:
    """Put the number of each edge of a ring (its complement where ``sign`` is negative) in the list of every row it passes.

    ``ends`` holds the place after the last edge of each row so far, and moves on.
    """
    for i in range(first, last - 1):
        if x[i] >= columns and x[i + 1] >= columns:
            continue
        begin, end = _edge_rows(y, i, row_start, row_stop)
        for line in range(begin - row_start, end - row_start):
            edges[ends[line]] = i if sign > 0.0 else ~i
            ends[line] += 1


@inline
def _most_cells(x: Any, y: Any, first: Any, last: Any, row_start: Any, row_stop: Any, columns: Any) -> Any:
    """Upper bound of the cells that edges touch, by rows and columns passed."""
    rows, steps = 0.0, 0.0
    low, high = np.float64(row_start), np.float64(row_stop)
    for i in range(first, last - 1):
        height = min(max(y[i + 1], low), high) - min(max(y[i], low), high)
        width = min(max(x[i + 1], 0.0), np.float64(columns)) - min(max(x[i], 0.0), np.float64(columns))
        inside = (max(y[i], y[i + 1]) >= low) & (min(y[i], y[i + 1]) <= high)
        rows += 3.0 if inside else 0.0
        steps += abs(height) + (abs(width) if inside else 0.0)
    return np.int64(rows + steps) + 64


@inline
def _touch(column: Any, cover: Any, area: Any, row_cells: Any, bits: Any, groups: Any) -> None:
    """Add to a cell of the row, and note that it is touched."""
    row_cells[column, 0] += cover
    row_cells[column, 1] += area
    word = column >> 5
    bits[word] |= np.int64(1) << (column & 31)
    groups[word >> 5] |= np.int64(1) << (word & 31)


@inline
def _add_row(
    x: Any, y: Any, edges: Any, begin: Any, end: Any, row: Any, columns: Any, row_cells: Any, bits: Any, groups: Any
) -> Any:
    """Add the parts that lie in a row of the edges ``begin..end`` of the list; returns how often cells were touched."""
    touched = 0
    for place in range(begin, end):
        number = edges[place]
        i = max(number, ~number)
        down = y[i + 1] > y[i]
        upper, lower = (i, i + 1) if down else (i + 1, i)
        x_upper, y_upper, x_lower, y_lower = x[upper], y[upper], x[lower], y[lower]
        # computed whether needed or not: a division costs less than a branch that is guessed wrong every other time
        slope = (x_lower - x_upper) / (y_lower - y_upper)
        cut_above, cut_below = x_upper + (row - y_upper) * slope, x_upper + (row + 1 - y_upper) * slope
        above = cut_above if y_upper < row else x_upper
        below = cut_below if y_lower > row + 1 else x_lower
        height = min(y_lower - row, 1.0) - max(y_upper - row, 0.0)
        cover = height if down == (number >= 0) else -height
        left, right = min(above, below), max(above, below)
        if left >= columns:
            continue
        done, at, column = 0.0, left, np.int64(0)
        if left < 0.0:
            # what lies left of the raster counts as a vertical edge on its border
            done = cover if right <= 0.0 else cover * (-left / (right - left))
            _touch(np.int64(0), done, 0.0, row_cells, bits, groups)
            touched += 1
            at = 0.0
            if right <= 0.0:
                continue
        else:
            column = np.int64(left)
        per_width = cover / (right - left) if right > left else 0.0
        while column < columns:
            end_x, upto = right, cover
            if right > column + 1.0:
                end_x = column + 1.0
                upto = (end_x - left) * per_width
            piece = upto - done
            _touch(column, piece, piece * (0.5 * ((at - column) + (end_x - column))), row_cells, bits, groups)
            touched += 1
            done, at = upto, end_x
            column += 1
            if at >= right:
                break
    return touched


@inline
def _span(start: Any, stop: Any, spans_before: Any, spans: Any, span_start: Any, span_stop: Any) -> Any:
    """Write a span of whole cells, joined to the one before where they meet; returns the number of spans."""
    if spans > spans_before and span_stop[spans - 1] == start:
        span_stop[spans - 1] = stop
        return spans
    span_start[spans], span_stop[spans] = start, stop
    return spans + 1


@kernel
def sweep(
    x: Any,
    y: Any,
    ring_offsets: Any,
    ring_hole: Any,
    zone_rings: Any,
    zone_start: Any,
    zone_stop: Any,
    row_start: Any,
    row_stop: Any,
    columns: Any,
) -> Any:
    """Shares of the cells of rows ``row_start..row_stop`` inside the zones ``zone_start..zone_stop``.

    Parameters
    ----------
    x, y : float64[n]
        Vertices in pixel units; every ring closed (last vertex = first) and finite. Orientation is free.
    ring_offsets : int64[rings + 1]
        First vertex of each ring, and the end.
    ring_hole : bool[rings]
        Whether a ring is a hole.
    zone_rings : int64[zones + 1]
        First ring of each zone, and the end.
    zone_start, zone_stop : int
        Zones to sweep.
    row_start, row_stop : int
        Rows to sweep, at least 0.
    columns : int
        Columns of the raster.

    Returns
    -------
    strip_zone, strip_row : int32[strips]
        Zone and row of each strip, in order of zone and row; strips without any share are left out.
    span_offsets : int64[strips + 1]
        First span of each strip.
    span_start, span_stop : int32[spans]
        Columns of the whole cells, stop exclusive.
    cell_offsets : int64[strips + 1]
        First border cell of each strip.
    cell_column : int32[cells]
        Columns of the border cells, ascending in a strip.
    cell_fraction : float64[cells]
        Their shares, between 0 and 1.
    broken : int64
        Number of a zone that overlaps or crosses itself, -1 where there is none.
    """
    strip_zone, strip_row = np.empty(64, np.int32), np.empty(64, np.int32)
    span_offsets, cell_offsets = np.empty(65, np.int64), np.empty(65, np.int64)
    # memory that is never written costs nothing, unlike room that grows
    most = _most_cells(
        x, y, ring_offsets[zone_rings[zone_start]], ring_offsets[zone_rings[zone_stop]], row_start, row_stop, columns
    )
    span_start, span_stop = np.empty(most, np.int32), np.empty(most, np.int32)
    cell_column, cell_fraction = np.empty(most, np.int32), np.empty(most, np.float64)
    ends, edges = np.empty(64, np.int64), np.empty(256, np.int64)
    # cover and area of the cells of one row; which of them are touched, 32 cells a word; which words are, 32 a group
    row_cells, place = np.zeros((columns, 2)), _BIT_PLACE
    bits, groups = np.zeros((columns >> 5) + 1, np.int64), np.zeros((columns >> 10) + 1, np.int64)
    strips, spans, broken = 0, 0, np.int64(-1)
    cells: Any = 0
    span_offsets[0] = cell_offsets[0] = 0

    for zone in range(zone_start, zone_stop):
        low, high, left, right = np.inf, -np.inf, np.inf, -np.inf
        for ring in range(zone_rings[zone], zone_rings[zone + 1]):
            for i in range(ring_offsets[ring], ring_offsets[ring + 1]):
                low, high = min(low, y[i]), max(high, y[i])
                left, right = min(left, x[i]), max(right, x[i])
        first_row, stop_row = _limit(low, row_start, row_stop), row_start
        if high > row_start:
            stop_row = np.int64(np.ceil(min(high, np.float64(row_stop))))
        if not low < high or first_row >= stop_row or left >= columns or columns == 0:
            continue
        height = stop_row - first_row
        # where an edge crosses a row may be rounded to just beyond its ends
        first_group, last_group = _limit(left - 1.0, 0, columns - 1) >> 10, _limit(right + 1.0, 0, columns - 1) >> 10

        # edges by rows: count, then list
        ends = _grown(ends, height + 1)
        ends[: height + 1] = 0
        size = 0.0
        for ring in range(zone_rings[zone], zone_rings[zone + 1]):
            first, last = ring_offsets[ring], ring_offsets[ring + 1]
            if last - first > 3:
                _count_edges(x, y, first, last, first_row, stop_row, columns, ends)
        total, here = 0, 0
        for line in range(height):
            here += ends[line]
            ends[line] = total
            total += here
        edges = _grown(edges, total)
        for ring in range(zone_rings[zone], zone_rings[zone + 1]):
            first, last = ring_offsets[ring], ring_offsets[ring + 1]
            if last - first > 3:
                signed = _signed_area(x, y, first, last)
                size += abs(signed)
                # with y downwards, the inside lies right of an edge that goes down when the signed area is negative
                sign = -1.0 if (signed > 0.0) != ring_hole[ring] else 1.0
                _list_edges(x, y, first, last, sign, first_row, stop_row, columns, ends, edges)
        whole = WHOLE * min(1.0, size)

        edge = 0
        for line in range(height):
            row = first_row + line
            if ends[line] == edge:
                continue
            touched = _add_row(x, y, edges, edge, ends[line], row, columns, row_cells, bits, groups)
            edge = ends[line]
            if touched == 0:
                continue
            if cells + touched >= cell_column.size:
                cell_column = _grown(cell_column, cells + touched + 1)
                cell_fraction = _grown(cell_fraction, cells + touched + 1)
            if spans + touched >= span_start.size:
                span_start, span_stop = _grown(span_start, spans + touched + 1), _grown(span_stop, spans + touched + 1)
            spans_before, cells_before = spans, cells
            running, after, word, left_bits = 0.0, np.int64(0), np.int64(0), np.int64(0)
            group, left_words = first_group, groups[first_group]
            groups[first_group] = 0
            while True:
                if left_bits == 0:
                    while left_words == 0 and group < last_group:
                        group += 1
                        left_words = groups[group]
                        groups[group] = 0
                    if left_words != 0:
                        lowest = left_words & -left_words
                        left_words ^= lowest
                        word = (group << 5) + place[((lowest * _BIT_FACTOR) & 0xFFFFFFFF) >> 27]
                        left_bits = bits[word]
                        bits[word] = 0
                column = np.int64(columns)
                if left_bits != 0:
                    lowest = left_bits & -left_bits
                    left_bits ^= lowest
                    column = (word << 5) + place[((lowest * _BIT_FACTOR) & 0xFFFFFFFF) >> 27]
                if column > after:
                    # from the last touched cell to this one
                    if running >= 1.0 - WHOLE:
                        spans = _span(after, column, spans_before, spans, span_start, span_stop)
                    elif running > whole:
                        # a row that an edge along it cuts: the same share all the way
                        room = cells + column - after + touched
                        if room >= cell_column.size:
                            cell_column, cell_fraction = _grown(cell_column, room + 1), _grown(cell_fraction, room + 1)
                        for between in range(after, column):
                            cell_column[cells], cell_fraction[cells] = between, running
                            cells += 1
                if column == columns:
                    break
                cover, area = row_cells[column, 0], row_cells[column, 1]
                row_cells[column, 0] = row_cells[column, 1] = 0.0
                share = running + cover - area
                running += cover
                if share < -BROKEN or share > 1.0 + BROKEN or running < -BROKEN or running > 1.0 + BROKEN:
                    broken = np.int64(zone)
                if share >= 1.0 - WHOLE:
                    spans = _span(column, column + 1, spans_before, spans, span_start, span_stop)
                # written in any case, counted if it is a border cell
                cell_column[cells], cell_fraction[cells] = column, share
                cells += np.int64((share > whole) & (share < 1.0 - WHOLE))
                after = column + 1
            if spans > spans_before or cells > cells_before:
                if strips >= strip_zone.size:
                    room = 2 * strips
                    strip_zone, strip_row = _grown(strip_zone, room), _grown(strip_row, room)
                    span_offsets, cell_offsets = _grown(span_offsets, room + 1), _grown(cell_offsets, room + 1)
                strip_zone[strips], strip_row[strips] = zone, row
                strips += 1
                span_offsets[strips], cell_offsets[strips] = spans, cells
    return (
        strip_zone[:strips].copy(),
        strip_row[:strips].copy(),
        span_offsets[: strips + 1].copy(),
        span_start[:spans],
        span_stop[:spans],
        cell_offsets[: strips + 1].copy(),
        cell_column[:cells],
        cell_fraction[:cells],
        broken,
    )


@kernel
def fill_dense(
    strip_zone: Any,
    strip_row: Any,
    span_offsets: Any,
    span_start: Any,
    span_stop: Any,
    cell_offsets: Any,
    cell_column: Any,
    cell_fraction: Any,
    row_start: int,
    out: Any,
) -> None:
    """Write sparse shares into a dense array.

    Parameters
    ----------
    strip_zone, strip_row, span_offsets, span_start, span_stop, cell_offsets, cell_column, cell_fraction
        As `sweep` returns them; ``strip_zone`` indexes the first axis of ``out``.
    row_start : int
        Row of the raster that is row 0 of ``out``; rows outside ``out`` are left out.
    out : float64[zones, rows, columns]
        Zeros on entry.
    """
    for strip in range(strip_zone.size):
        zone, row = strip_zone[strip], strip_row[strip] - row_start
        if row < 0 or row >= out.shape[1]:
            continue
        for span in range(span_offsets[strip], span_offsets[strip + 1]):
            out[zone, row, span_start[span] : span_stop[span]] = 1.0
        for cell in range(cell_offsets[strip], cell_offsets[strip + 1]):
            out[zone, row, cell_column[cell]] = cell_fraction[cell]
