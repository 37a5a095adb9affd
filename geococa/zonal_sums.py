"""Hectares of every class in every zone: the pass over label maps that the area tables are made from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from geococa.cell_areas import CellAreas, cell_areas
from geococa.coverage import Coverage
from geococa.errors import InputRefused
from geococa.legend import NO_DATA, UNCLASSIFIED, Legend

__all__ = ["class_sums_ha", "row_blocks"]

_BLOCK_CELLS = 1 << 24
Float = npt.NDArray[np.float64]


def row_blocks(array: xr.DataArray, layers: int) -> Iterator[tuple[int, int]]:
    """Rows to hold at once: those of a lazy array's chunks, all rows of one that is in memory."""
    rows, columns = array.sizes["y"], array.sizes["x"]
    if array.chunks is None:
        yield 0, rows
        return
    most = max(1, _BLOCK_CELLS // max(1, columns * layers))
    start = 0
    for chunk in array.chunksizes["y"]:
        stop = start + chunk
        for first in range(start, stop, most):
            yield first, min(first + most, stop)
        start = stop


def class_sums_ha(
    land_cover: xr.DataArray, share: Coverage, legend: Legend, *, area: str, threads: int = 1
) -> tuple[Float, Legend]:
    """Hectares of each class in each zone, and of what was not observed.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 codes, dims ``(time, y, x)``, NumPy or Dask.
    share : Coverage
        Shares of the same grid.
    legend : Legend
        Codes and names. Code 0 joins it as ``unclassified`` where zones hold it.
    area : str
        As `geococa.zonal_area` takes it.
    threads : int
        Threads over zones; the result does not depend on them, nor on blocks of rows.

    Returns
    -------
    sums : float64 array (time, zone, classes + 1)
        Hectares of cells times shares; the last column is not observed.
    legend : Legend
        Legend of the columns before it.
    """
    full = legend.with_unclassified()
    codes = np.array([*full.codes, NO_DATA], np.uint8)
    slots = codes.size + 1
    times = land_cover.sizes["time"]
    out = np.zeros((times, len(share.zones), slots))
    rows, columns = share.grid.shape
    for start, stop in row_blocks(land_cover, times):
        strips = share.strips(start, stop)
        if not strips.size:
            continue
        # rows without zones are not even read
        start, stop = int(share.strip_row[strips].min()), int(share.strip_row[strips].max()) + 1
        labels = np.ascontiguousarray(land_cover.isel(y=slice(start, stop)).values)
        cells = cell_areas(share.grid.crs, share.grid.transform, (rows, columns), (start, stop), area)
        _add(strips, share, labels, start, cells, codes, out, threads)
        _refuse_unknown(strips, share, labels, start, full, out[:, :, -1])
    known = out[:, :, :-1]
    if UNCLASSIFIED not in legend.codes and not known[:, :, 0].any():
        return np.ascontiguousarray(known[:, :, 1:]), legend
    return np.ascontiguousarray(known), full


def _add(
    strips: npt.NDArray[np.int64],
    share: Coverage,
    labels: npt.NDArray[np.uint8],
    row_start: int,
    cells: CellAreas,
    codes: npt.NDArray[np.uint8],
    out: Float,
    threads: int,
) -> None:
    """Add the strips of a block; each thread has zones of its own, so that no sum depends on their number."""
    from geococa._kernels import zonal

    def run(part: npt.NDArray[np.int64]) -> None:
        zonal.class_areas(part, *share.arrays, labels, row_start, cells.pieces_ha, cells.step, codes, out)

    parts = _by_zones(strips, share, threads)
    if len(parts) == 1:
        run(parts[0])
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for done in [pool.submit(run, part) for part in parts]:
            done.result()


def _by_zones(strips: npt.NDArray[np.int64], share: Coverage, threads: int) -> Sequence[npt.NDArray[np.int64]]:
    """Cut strips, which come in order of zone, into groups of whole zones with about the same work."""
    zones = share.strip_zone[strips]
    if threads <= 1 or zones[0] == zones[-1]:
        return [strips]
    work = np.cumsum(20 + 50 * np.diff(share.cell_offsets)[strips] + 40 * np.diff(share.span_offsets)[strips])
    starts = np.flatnonzero(np.diff(zones)) + 1
    goals = work[-1] * np.arange(1, 4 * threads) / (4 * threads)
    cuts = np.unique(starts[np.minimum(np.searchsorted(work[starts - 1], goals), starts.size - 1)])
    return np.split(strips, cuts)


def _refuse_unknown(
    strips: npt.NDArray[np.int64],
    share: Coverage,
    labels: npt.NDArray[np.uint8],
    row_start: int,
    legend: Legend,
    unknown: Any,
) -> None:
    if not unknown.any():
        return
    from geococa._kernels import zonal

    known = np.zeros(256, bool)
    known[[*legend.codes, NO_DATA]] = True
    found = np.array([-1])
    zonal.unknown_label(
        strips,
        share.strip_row,
        share.span_offsets,
        share.span_start,
        share.span_stop,
        share.cell_offsets,
        share.cell_column,
        labels,
        row_start,
        known,
        found,
    )
    raise InputRefused(
        f"the map holds code {int(found[0])}, which its legend "
        f"({dict(zip(legend.codes, legend.names, strict=True))}) does not name; name it with "
        "geococa.as_land_cover(labels, classes), or give it as nodata"
    )


def exact_sum(values: Any) -> float:
    """Sum that does not depend on the order of its terms."""
    return math.fsum(float(value) for value in values)
