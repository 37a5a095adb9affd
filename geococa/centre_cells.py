"""Cells counted whole by where their centre lies, as older tools have it, in place of exact shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from geococa.coverage import Coverage

__all__ = ["centre_cells", "centre_coverage"]

Int64 = npt.NDArray[np.int64]


def centre_cells(share: Coverage, zone: int) -> tuple[Int64, Int64]:
    """Rows and columns of the cells whose centre lies inside a zone, row by row."""
    from geococa._kernels import zonal

    touched, _, _ = share.cells(zone)
    if not touched.size:
        return touched, touched
    start, stop = int(touched.min()), int(touched.max()) + 1
    inside = np.zeros((stop - start, share.grid.shape[1]), np.int8)
    rings = share.rings_px
    own = rings.zone_rings[zone : zone + 2]
    zonal.centre_cells(rings.x, rings.y, rings.ring_offsets, own, start, stop, share.grid.shape[1], inside)
    rows, columns = np.nonzero(inside)
    return rows + start, columns


def centre_coverage(share: Coverage) -> Coverage:
    """Coverage in which cells count whole if their centre lies inside a zone, else not at all.

    Parameters
    ----------
    share : Coverage
        From `geococa.coverage_fraction`.

    Returns
    -------
    Coverage
        Of the same zones and grid; its hectares (``zone_ha``, ``inside_ha``) stay those of the polygons.
    """
    zones, rows, starts, stops, counts = [], [], [], [], []
    for zone in range(len(share.zones)):
        row, column = centre_cells(share, zone)
        if not row.size:
            continue
        first = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(column, prepend=-2) != 1))
        last = np.append(first[1:], row.size) - 1
        strip_rows, spans = np.unique(row[first], return_counts=True)
        zones.append(np.full(strip_rows.size, zone))
        rows.append(strip_rows)
        counts.append(spans)
        starts.append(column[first])
        stops.append(column[last] + 1)

    def joined(parts: list[Int64]) -> npt.NDArray[np.int32]:
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int32)

    spans_before = np.concatenate([[0], np.cumsum(np.concatenate([np.empty(0, np.int64), *counts]))]).astype(np.int64)
    return replace(
        share,
        strip_zone=joined(zones),
        strip_row=joined(rows),
        span_offsets=spans_before,
        span_start=joined(starts),
        span_stop=joined(stops),
        cell_offsets=np.zeros(spans_before.size, np.int64),
        cell_column=np.empty(0, np.int32),
        cell_fraction=np.empty(0),
    )
