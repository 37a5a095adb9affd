"""The minimum mapping unit in hectares: patches below it take the class of a neighbour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy, positive
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA
from geococa.segments import CellWeights, Segments

__all__ = ["sieve", "sieve_strips"]

Rule = Literal["largest_neighbour", "gdal"]


def sieve(
    land_cover: xr.DataArray,
    *,
    min_area_ha: float = 0.25,
    connectivity: Literal[4, 8] = 8,
    rule: Rule = "largest_neighbour",
    min_pixels: int | None = None,
    threads: int = 1,
) -> xr.DataArray:
    """Give patches below the minimum mapping unit the class of their largest neighbour.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` or ``(time, y, x)`` from `geococa.label` or `geococa.as_land_cover`, with its CRS.
        Each time is treated by itself.
    min_area_ha : float
        Minimum mapping unit in hectares on the ellipsoid. Patches of at least this area stay.
    connectivity : {8, 4}
        8: cells that share a corner belong to one patch; 4: only cells that share a side.
    rule : {"largest_neighbour", "gdal"}
        ``"largest_neighbour"``: a small patch takes the class of the largest patch beside it that reaches the
        minimum unit (of equals, the lowest code); patches that touch only small ones follow when their
        neighbours have their class. ``"gdal"``: what ``gdal_sieve`` does, ties included: follow the largest
        neighbour, whatever its size, until one reaches the unit, and stay as is where the chain runs in a circle.
    min_pixels : int, optional
        Minimum number of cells, instead of an area, as ``gdal_sieve`` counts.
    threads : int
        Threads over strips of rows. Results do not depend on it.

    Returns
    -------
    xarray.DataArray
        A new map; the input is not changed. 255 (not observed) is never changed and never fills a patch, so a
        small patch with nothing but 255 around it stays.

    Raises
    ------
    InputRefused
        The map is not uint8, or a parameter is out of range.
    CRSMismatch
        The map has no CRS, so its cells have no area.

    Notes
    -----
    A patch may cross any block edge, so a whole time slice is worked on at once; a Dask-backed map stays lazy,
    with one task a time slice. `sieve_strips` does the same, to the byte, on maps that do not fit in memory.

    Examples
    --------
    >>> import numpy as np, xarray as xr, geococa
    >>> labels = np.full((20, 20), 2, dtype="uint8")
    >>> labels[5:7, 5:7] = 1
    >>> labels[12:18, 12:18] = 1
    >>> grid = geococa.Grid("EPSG:32618", (10, 0, 500000, 0, -10, 200000), (20, 20))
    >>> land_cover = grid.attach(geococa.as_land_cover(xr.DataArray(labels, dims=("y", "x")), ["coca", "forest"]))
    >>> int((sieve(land_cover, min_area_ha=0.25) == 1).sum())
    36
    """
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "y", "x", optional=("time",))
    if land_cover.dtype != np.uint8:
        raise InputRefused(f"a land-cover map is uint8, got {land_cover.dtype}; make one with geococa.as_land_cover")
    run = _plan(
        Grid.from_xarray(land_cover) if min_pixels is None else None, min_area_ha, min_pixels, connectivity, rule
    )
    ordered = land_cover.transpose(..., "y", "x")

    def whole(block: np.ndarray) -> np.ndarray:
        planes = block.reshape(-1, *block.shape[-2:])
        out = np.empty_like(planes)
        for source, target in zip(planes, out, strict=True):
            _run(run, _slicer(source), _setter(target), source.shape, keep=True, threads=threads)
        return out.reshape(block.shape)

    if is_lazy(ordered):
        data = ordered.data.rechunk({ordered.ndim - 2: -1, ordered.ndim - 1: -1})
        if ordered.ndim == 3:
            data = data.rechunk({0: 1})
        result = data.map_blocks(whole, dtype=np.uint8, meta=np.empty((0,) * ordered.ndim, np.uint8))
    else:
        result = whole(np.asarray(ordered.data))
    out = ordered.copy(data=result).transpose(*land_cover.dims)
    unit = f"{min_area_ha:g} ha" if min_pixels is None else f"{min_pixels} cells"
    out.attrs["minimum_mapping_unit"] = f"{unit}, {connectivity}-connected, {rule}"
    return out


def sieve_strips(
    read: Callable[[int, int], np.ndarray],
    write: Callable[[int, np.ndarray], None],
    grid: Grid,
    *,
    min_area_ha: float = 0.25,
    connectivity: Literal[4, 8] = 8,
    rule: Rule = "largest_neighbour",
    min_pixels: int | None = None,
    strip_rows: int = 512,
    threads: int = 1,
) -> None:
    """Apply the minimum mapping unit to a map that does not fit in memory, exactly as `sieve` would.

    The map is read from top to bottom three times or more (patches, their neighbours, the result). Memory holds
    a few strips and some 25 bytes a patch, never the map.

    Parameters
    ----------
    read : callable
        ``read(start, stop)`` returns rows ``start .. stop - 1`` as uint8 ``(rows, columns)``; 255 = not observed.
        It must give the same rows every time.
    write : callable
        ``write(start, rows)`` takes finished rows, once each, from the top down. Do not write to what ``read`` reads.
    grid : Grid
        Grid of the whole map.
    min_area_ha, connectivity, rule, min_pixels, threads
        As in `sieve`.
    strip_rows : int
        Rows of a strip. The result does not depend on it.

    Raises
    ------
    InputRefused
        Rows are not uint8 or not as wide as the grid, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np, geococa
    >>> source, target = np.full((8, 8), 2, np.uint8), np.zeros((8, 8), np.uint8)
    >>> source[3, 3] = 1
    >>> grid = geococa.Grid("EPSG:32618", (10, 0, 500000, 0, -10, 200000), (8, 8))
    >>> def write(start, rows):
    ...     target[start : start + len(rows)] = rows
    >>> sieve_strips(lambda start, stop: source[start:stop], write, grid, min_area_ha=0.05, strip_rows=2)
    >>> bool((target == 2).all())
    True
    """
    if strip_rows < 1:
        raise InputRefused(f"strip_rows must be at least 1, got {strip_rows}")
    run = _plan(grid if min_pixels is None else None, min_area_ha, min_pixels, connectivity, rule)
    _run(run, read, write, grid.shape, keep=False, threads=threads, strip_rows=strip_rows)


_Plan = tuple[CellWeights, int, int, str]


def _plan(grid: Grid | None, min_area_ha: float, min_pixels: int | None, connectivity: int, rule: str) -> _Plan:
    """Check the parameters; weights of the cells and the smallest size that stays."""
    if rule not in ("largest_neighbour", "gdal"):
        raise InputRefused(f"rule must be 'largest_neighbour' or 'gdal', got {rule!r}")
    if connectivity not in (4, 8):
        raise InputRefused(f"connectivity must be 4 or 8, got {connectivity!r}")
    weights = CellWeights(grid)
    if min_pixels is not None:
        return weights, int(positive(min_pixels, "min_pixels")), connectivity, rule
    return weights, weights.least(positive(min_area_ha, "min_area_ha", zero=True)), connectivity, rule


def _slicer(plane: np.ndarray) -> Callable[[int, int], np.ndarray]:
    return lambda start, stop: plane[start:stop]


def _setter(plane: np.ndarray) -> Callable[[int, np.ndarray], None]:
    def write(start: int, rows: np.ndarray) -> None:
        plane[start : start + len(rows)] = rows

    return write


def _run(
    plan: _Plan,
    read: Callable[[int, int], np.ndarray],
    write: Callable[[int, np.ndarray], None],
    shape: tuple[int, ...],
    *,
    keep: bool,
    threads: int,
    strip_rows: int = 512,
) -> None:
    weights, least, connectivity, rule = plan
    segments = Segments(
        read,
        (shape[0], shape[1]),
        weights,
        connectivity=connectivity,
        strip_rows=strip_rows,
        keep=keep,
        threads=threads,
    )
    codes = _codes_by_gdal(segments, least) if rule == "gdal" else _codes_by_rounds(segments, least)
    for start, rows in segments.paint(codes):
        write(start, rows)


def _codes_by_gdal(segments: Segments, least: int) -> np.ndarray:
    """Code of every component after following the chain of largest neighbours."""
    from geococa._kernels import components

    neighbour = np.full(segments.sizes.size, -1, dtype=np.int32)
    for part, first, last in segments.passes():
        components.link_neighbours(
            part.starts,
            part.codes,
            part.row_runs,
            first,
            last,
            part.columns,
            segments.diagonal,
            NO_DATA,
            part.component,
            segments.sizes,
            least,
            neighbour,
        )
    out = np.empty_like(segments.codes)
    components.resolve_chains(segments.sizes, least, neighbour, segments.codes, out)
    return out


def _codes_by_rounds(segments: Segments, least: int) -> np.ndarray:
    """Code of every component after the small ones joined large ones, from the outside in."""
    from geococa._kernels import components

    large = segments.sizes >= least
    target_size = np.where(large, segments.sizes, np.int64(-1))
    target_code = segments.codes.copy()
    waiting = int(np.count_nonzero(~large & (segments.codes != NO_DATA)))
    while waiting:
        best_size = np.full(target_size.size, -1, dtype=np.int64)
        best_code = np.full(target_size.size, NO_DATA, dtype=np.uint8)
        for part, first, last in segments.passes():
            components.vote_neighbours(
                part.starts,
                part.codes,
                part.row_runs,
                first,
                last,
                part.columns,
                segments.diagonal,
                NO_DATA,
                part.component,
                target_size,
                target_code,
                best_size,
                best_code,
            )
        found = best_size >= 0
        if not found.any():
            break
        target_size[found] = best_size[found]
        target_code[found] = best_code[found]
        waiting -= int(np.count_nonzero(found))
    return target_code
