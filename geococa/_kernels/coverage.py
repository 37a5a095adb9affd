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
def _most_records(x: Any, y: Any, first: int, last: int, row_start: int, row_stop: int, columns: int) -> Any:
    """Upper bound of the records that a ring can leave."""
    count = 0
    previous_row = _limit(y[first], row_start - 1, row_stop)
    previous_column = _limit(x[first], -1, columns)
    for i in range(first + 1, last):
        row = _limit(y[i], row_start - 1, row_stop)
        column = _limit(x[i], -1, columns)
        count += 3 + abs(row - previous_row) + abs(column - previous_column)
        previous_row, previous_column = row, column
    return count


@inline
def _put(records: Any, count: int, row: Any, column: Any, cover: Any, area: Any) -> Any:
    """Write a record, unless there is none (row -1); returns the number of records."""
    if row < 0:
        return count
    records[0][count], records[1][count], records[2][count], records[3][count] = row, column, cover, area
    return count + 1


@inline
def _trace(
    x: Any,
    y: Any,
    first: int,
    last: int,
    sign: Any,
    row_start: Any,
    row_stop: Any,
    columns: int,
    records: Any,
    count: Any,
) -> Any:
    """Leave the records of one ring's edges: row, column, cover, area.

    Pieces that follow each other in one cell share a record, with nothing between them, not even a piece of another row: so
    the records of a row are the same whatever the row limits. Returns the number of records so far.
    """
    row_here, column_here, cover_here, area_here = np.int64(-1), np.int64(-1), 0.0, 0.0
    for i in range(first, last - 1):
        down = y[i + 1] > y[i]
        upper, lower = (i, i + 1) if down else (i + 1, i)
        x_upper, y_upper, x_lower, y_lower = x[upper], y[upper], x[lower], y[lower]
        if y_upper == y_lower:
            continue
        if y_upper < row_start or y_upper >= row_stop:
            count = _put(records, count, row_here, column_here, cover_here, area_here)
            row_here = np.int64(-1)
            if y_lower <= row_start or y_upper >= row_stop:
                continue
        height = sign if down else -sign
        row_first = _limit(y_upper, row_start, row_stop - 1)
        row_last = min(np.int64(np.ceil(min(y_lower, np.float64(row_stop)))), row_stop) - 1
        slope = (x_lower - x_upper) / (y_lower - y_upper)
        below = x_upper
        if y_upper < row_first:
            below = x_upper + (row_first - y_upper) * slope
        for row in range(row_first, row_last + 1):
            above = below
            start, stop = max(y_upper - row, 0.0), 1.0
            if y_lower <= row + 1:
                stop = y_lower - row
                below = x_lower
            else:
                below = x_upper + (row + 1 - y_upper) * slope
            cover = height * (stop - start)
            left, right = min(above, below), max(above, below)
            width = right - left
            done, at, column = 0.0, left, np.int64(0)
            if left >= columns:
                count = _put(records, count, row_here, column_here, cover_here, area_here)
                row_here = np.int64(-1)
                continue
            if left < 0.0:
                # what lies left of the raster counts as a vertical edge on its border
                done = cover if right <= 0.0 else cover * (-left / width)
                at = 0.0
                if row_here != row or column_here != 0:
                    count = _put(records, count, row_here, column_here, cover_here, area_here)
                    row_here, column_here, cover_here, area_here = np.int64(row), np.int64(0), 0.0, 0.0
                cover_here += done
                if right <= 0.0:
                    continue
            else:
                column = np.int64(np.floor(left))
            per_width = cover / width if width > 0.0 else 0.0
            while column < columns:
                end, upto = right, cover
                if right > column + 1.0:
                    end = column + 1.0
                    upto = (end - left) * per_width
                piece = upto - done
                if row_here != row or column_here != column:
                    count = _put(records, count, row_here, column_here, cover_here, area_here)
                    row_here, column_here, cover_here, area_here = np.int64(row), column, 0.0, 0.0
                cover_here += piece
                area_here += piece * (0.5 * ((at - column) + (end - column)))
                done, at = upto, end
                column += 1
                if at >= right:
                    break
        if y_lower > row_stop:
            count = _put(records, count, row_here, column_here, cover_here, area_here)
            row_here = np.int64(-1)
    return _put(records, count, row_here, column_here, cover_here, area_here)


@inline
def _sort(records: Any, count: int, row_offsets: Any, column_slots: Any, order: Any, out: Any) -> None:
    """Sort records by row, then column, equal ones kept in order: two counting sorts, columns first.

    ``row_offsets`` comes with zeros for every row of the zone, and one more, and leaves with the first record of each row.
    ``column_slots`` has room for every column between the first and the last record, and two more.
    """
    record_row, record_column, record_cover, record_area = records
    column, cover, area = out
    left = right = record_column[0]
    for i in range(count):
        left, right = min(left, record_column[i]), max(right, record_column[i])
    column_slots[: right - left + 2] = 0
    for i in range(count):
        column_slots[record_column[i] - left + 1] += 1
        row_offsets[record_row[i]] += 1
    for i in range(1, right - left + 2):
        column_slots[i] += column_slots[i - 1]
    for i in range(count):
        slot = column_slots[record_column[i] - left]
        column_slots[record_column[i] - left] = slot + 1
        order[slot] = i
    before = 0
    for row in range(row_offsets.size):
        here = row_offsets[row]
        row_offsets[row] = before
        before += here
    for k in range(count):
        i = order[k]
        slot = row_offsets[record_row[i]]
        row_offsets[record_row[i]] = slot + 1
        column[slot], cover[slot], area[slot] = record_column[i], record_cover[i], record_area[i]
    for row in range(row_offsets.size - 1, 0, -1):
        row_offsets[row] = row_offsets[row - 1]
    row_offsets[0] = 0


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
    span_start, span_stop = np.empty(64, np.int32), np.empty(64, np.int32)
    cell_column, cell_fraction = np.empty(256, np.int32), np.empty(256, np.float64)
    record_row, record_column = np.empty(256, np.int32), np.empty(256, np.int32)
    record_cover, record_area = np.empty(256, np.float64), np.empty(256, np.float64)
    sorted_column = np.empty(256, np.int32)
    sorted_cover, sorted_area = np.empty(256, np.float64), np.empty(256, np.float64)
    row_offsets, column_slots, order = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(256, np.int32)
    strips, spans, cells, broken = 0, 0, 0, np.int64(-1)
    span_offsets[0] = cell_offsets[0] = 0

    for zone in range(zone_start, zone_stop):
        # extent, size and room
        low, high, size, most = np.inf, -np.inf, 0.0, 0
        for ring in range(zone_rings[zone], zone_rings[zone + 1]):
            for i in range(ring_offsets[ring], ring_offsets[ring + 1]):
                low, high = min(low, y[i]), max(high, y[i])
        first_row, stop_row = _limit(low, row_start, row_stop), row_start
        if high > row_start:
            stop_row = np.int64(np.ceil(min(high, np.float64(row_stop))))
        if not low < high or first_row >= stop_row:
            continue
        for ring in range(zone_rings[zone], zone_rings[zone + 1]):
            first, last = ring_offsets[ring], ring_offsets[ring + 1]
            if last - first > 3:
                size += abs(_signed_area(x, y, first, last))
                most += 2 + _most_records(x, y, first, last, first_row, stop_row, columns)
        whole = WHOLE * min(1.0, size)
        record_row, record_column = _grown(record_row, most), _grown(record_column, most)
        record_cover, record_area = _grown(record_cover, most), _grown(record_area, most)
        sorted_column = _grown(sorted_column, most)
        sorted_cover, sorted_area = _grown(sorted_cover, most), _grown(sorted_area, most)

        # records, counting sort by row
        records = (record_row, record_column, record_cover, record_area)
        count = 0
        for ring in range(zone_rings[zone], zone_rings[zone + 1]):
            first, last = ring_offsets[ring], ring_offsets[ring + 1]
            if last - first < 4:
                continue
            # with y downwards, the inside lies right of an edge that goes down when the signed area is negative
            sign = -1.0 if (_signed_area(x, y, first, last) > 0.0) != ring_hole[ring] else 1.0
            count = _trace(x, y, first, last, sign, first_row, stop_row, columns, records, count)
        height = stop_row - first_row
        if count == 0:
            continue
        for i in range(count):
            record_row[i] -= first_row
        row_offsets = _grown(row_offsets, height + 1)
        row_offsets[: height + 1] = 0
        column_slots = _grown(column_slots, columns + 2)
        order = _grown(order, count)
        _sort(
            records, count, row_offsets[: height + 1], column_slots, order, (sorted_column, sorted_cover, sorted_area)
        )

        for line in range(height):
            start, stop = row_offsets[line], row_offsets[line + 1]
            if start == stop:
                continue
            cell_column = _grown(cell_column, cells + stop - start)
            cell_fraction = _grown(cell_fraction, cells + stop - start)
            span_start = _grown(span_start, spans + 2 * (stop - start))
            span_stop = _grown(span_stop, spans + 2 * (stop - start))
            spans_before, cells_before = spans, cells
            running = 0.0
            i = start
            while i < stop:
                column, cover, area = sorted_column[i], sorted_cover[i], sorted_area[i]
                i += 1
                while i < stop and sorted_column[i] == column:
                    cover += sorted_cover[i]
                    area += sorted_area[i]
                    i += 1
                share = running + cover - area
                running += cover
                if share < -BROKEN or share > 1.0 + BROKEN or running < -BROKEN or running > 1.0 + BROKEN:
                    broken = np.int64(zone)
                if share >= 1.0 - WHOLE:
                    if spans > spans_before and span_stop[spans - 1] == column:
                        span_stop[spans - 1] = column + 1
                    else:
                        span_start[spans], span_stop[spans] = column, column + 1
                        spans += 1
                elif share > whole:
                    cell_column[cells], cell_fraction[cells] = column, share
                    cells += 1
                end = sorted_column[i] if i < stop else columns
                if end == column + 1:
                    continue
                if running >= 1.0 - WHOLE:
                    if spans > spans_before and span_stop[spans - 1] == column + 1:
                        span_stop[spans - 1] = end
                    else:
                        span_start[spans], span_stop[spans] = column + 1, end
                        spans += 1
                elif running > whole:
                    # a row that an edge along it cuts: the same share all the way
                    cell_column = _grown(cell_column, cells + end - column + stop - i)
                    cell_fraction = _grown(cell_fraction, cells + end - column + stop - i)
                    for between in range(column + 1, end):
                        cell_column[cells], cell_fraction[cells] = between, running
                        cells += 1
            if spans > spans_before or cells > cells_before:
                strip_zone, strip_row = _grown(strip_zone, strips + 1), _grown(strip_row, strips + 1)
                span_offsets, cell_offsets = _grown(span_offsets, strips + 2), _grown(cell_offsets, strips + 2)
                strip_zone[strips], strip_row[strips] = zone, first_row + line
                strips += 1
                span_offsets[strips], cell_offsets[strips] = spans, cells
    return (
        strip_zone[:strips].copy(),
        strip_row[:strips].copy(),
        span_offsets[: strips + 1].copy(),
        span_start[:spans].copy(),
        span_stop[:spans].copy(),
        cell_offsets[: strips + 1].copy(),
        cell_column[:cells].copy(),
        cell_fraction[:cells].copy(),
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
