"""Hectares of every class in every zone from class fractions: the pass over fraction maps that area tables are made from."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import xarray as xr

from geococa.cell_areas import CellAreas, cell_areas
from geococa.coverage import Coverage
from geococa.errors import InputRefused
from geococa.zonal_sums import row_blocks

__all__ = ["fraction_sums_ha"]

Float = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def fraction_sums_ha(fraction: xr.DataArray, share: Coverage, *, area: str, threads: int = 1) -> Float:
    """Hectares of each class in each zone, and of what was not observed.

    Parameters
    ----------
    fraction : xarray.DataArray
        float32 or float64, dims ``(time, land_cover, y, x)``, NumPy or Dask; NaN = not observed.
    share : Coverage
        Shares of the same grid.
    area : str
        As `geococa.zonal_area` takes it.
    threads : int
        Threads over zones; the result does not depend on them, nor on blocks of rows.

    Returns
    -------
    float64 array (time, zone, classes + 1)
        Hectares of cells times shares times fractions; the last column is not observed.

    Raises
    ------
    InputRefused
        A cell's fractions are negative, or don't sum to 1.
    """
    times, classes = fraction.sizes["time"], fraction.sizes["land_cover"]
    out = np.zeros((times, len(share.zones), classes + 1))
    for start, stop in row_blocks(fraction, times * classes):
        strips = share.strips(start, stop)
        if not strips.size:
            continue
        # rows without zones are not even read
        start, stop = int(share.strip_row[strips].min()), int(share.strip_row[strips].max()) + 1
        values = np.ascontiguousarray(fraction.isel(y=slice(start, stop)).values)
        cells = cell_areas(share.grid.crs, share.grid.transform, share.grid.shape, (start, stop), area)
        _add(strips, share, values, start, cells, out, threads)
    return out


def _add(
    strips: Int64,
    share: Coverage,
    values: npt.NDArray[np.floating],
    row_start: int,
    cells: CellAreas,
    out: Float,
    threads: int,
) -> None:
    """Add the strips of a block; each thread has zones of its own, so that no sum depends on their number."""
    from geococa._kernels import fraction_sums

    wrong = np.full((len(share.zones), 3), -1, dtype=np.int64)

    def run(part: Int64) -> None:
        fraction_sums.fraction_areas(
            part, *share.arrays, values, row_start, cells.pieces_ha, cells.step, wrong, out
        )  # fmt: skip

    parts = _whole_zones(strips, share, threads)
    if len(parts) == 1:
        run(parts[0])
    else:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            for done in [pool.submit(run, part) for part in parts]:
                done.result()
    _refuse_wrong(wrong, share, values, row_start)


def _whole_zones(strips: Int64, share: Coverage, threads: int) -> Sequence[Int64]:
    """Cut strips, which come in order of zone, into groups of whole zones."""
    starts = np.flatnonzero(np.diff(share.strip_zone[strips])) + 1
    if threads <= 1 or not starts.size:
        return [strips]
    goals = strips.size * np.arange(1, 4 * threads) / (4 * threads)
    return np.split(strips, np.unique(starts[np.minimum(np.searchsorted(starts, goals), starts.size - 1)]))


def _refuse_wrong(wrong: Int64, share: Coverage, values: npt.NDArray[np.floating], row_start: int) -> None:
    found = np.flatnonzero(wrong[:, 0] >= 0)
    if not found.size:
        return
    zone = int(found[0])
    time, row, column = (int(place) for place in wrong[zone])
    here = values[time, :, row - row_start, column]
    raise InputRefused(
        f"fractions must not be negative and must sum to 1; in zone {share.zone_names[zone]!r} the cell in row {row}, "
        f"column {column} has {here.round(4).tolist()}, which sum to {here.sum():.6g}. Give every class its own layer, "
        "the rest among them, and NaN in all of them where nothing was observed"
    )
