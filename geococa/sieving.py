"""The minimum mapping unit in hectares: patches below it take the class of a neighbour, or lose theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy, positive
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA, UNCLASSIFIED, Legend
from geococa.segments import CellWeights, Segments, Strip, seam

__all__ = ["sieve", "sieve_strips"]

Rule = Literal["largest_neighbour", "gdal", "drop"]


def sieve(
    land_cover: xr.DataArray,
    *,
    min_area_ha: float = 0.25,
    connectivity: Literal[4, 8] = 8,
    rule: Rule = "largest_neighbour",
    min_pixels: int | None = None,
    threads: int = 1,
) -> xr.DataArray:
    """Give patches below the minimum mapping unit the class of their largest neighbour, or none.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` or ``(time, y, x)`` from `geococa.label` or `geococa.as_land_cover`, with its CRS.
        Each time is treated by itself.
    min_area_ha : float
        Minimum mapping unit in hectares on the ellipsoid. Patches of at least this area stay.
    connectivity : {8, 4}
        8: cells that share a corner belong to one patch; 4: only cells that share a side.
    rule : {"largest_neighbour", "gdal", "drop"}
        ``"largest_neighbour"``: a small patch takes the class of the largest patch beside it that reaches the
        minimum unit (of equals, the lowest code); patches that touch only small ones follow when their
        neighbours have their class. ``"gdal"``: what ``gdal_sieve`` does, ties included: follow the largest
        neighbour, whatever its size, until one reaches the unit, and stay as is where the chain runs in a circle.
        ``"drop"``: small patches become 0, observed but without a class; no neighbour is asked, so it is the
        fastest, and no class gains area.
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
        The map is not uint8, a parameter is out of range, or a class has code 0 and ``rule`` is ``"drop"``.
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
    if rule == "drop":
        _refuse_a_class_of_code_0(land_cover)
    plan = _make_plan(
        Grid.from_xarray(land_cover) if min_pixels is None else None, min_area_ha, min_pixels, connectivity, rule
    )
    ordered = land_cover.transpose(..., "y", "x")

    def whole(block: np.ndarray) -> np.ndarray:
        planes = block.reshape(-1, *block.shape[-2:])
        out = np.empty_like(planes)
        for source, target in zip(planes, out, strict=True):
            _sieve_plane(plan, source, target, threads)
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
    if rule == "drop" and "flag_values" in out.attrs:
        out.attrs.update(Legend.from_attrs(out.attrs).with_unclassified().to_attrs())
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

    The map is read from top to bottom three times (patches, their neighbours, the result; twice by ``"drop"``).
    Memory holds a few strips, some 25 bytes a patch and 8 for each contact of two small patches, never the map.

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
    plan = _make_plan(grid if min_pixels is None else None, min_area_ha, min_pixels, connectivity, rule)
    segments = Segments(
        read,
        grid.shape,
        plan.weights,
        connectivity=connectivity,
        strip_rows=strip_rows,
        keep=False,
        threads=threads,
    )
    for start, rows in segments.repaint(_new_codes(segments, plan)):
        write(start, rows)


def _refuse_a_class_of_code_0(land_cover: xr.DataArray) -> None:
    """Dropped patches get code 0, so no class may have it."""
    if "flag_values" not in land_cover.attrs:
        return
    legend = Legend.from_attrs(land_cover.attrs)
    named = dict(zip(legend.codes, legend.names, strict=True)).get(UNCLASSIFIED, "unclassified")
    if named != "unclassified":
        raise InputRefused(
            f"class {named!r} has code 0, which rule='drop' gives to small patches; "
            "give the classes codes from 1 on with geococa.as_land_cover"
        )


@dataclass(frozen=True)
class _Plan:
    """What a cell counts, the smallest size that stays, and how patches below it go."""

    weights: CellWeights
    least: int
    connectivity: int
    rule: str


def _make_plan(grid: Grid | None, min_area_ha: float, min_pixels: int | None, connectivity: int, rule: str) -> _Plan:
    """Check the parameters."""
    if rule not in get_args(Rule):
        raise InputRefused(f"rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
    if connectivity not in (4, 8):
        raise InputRefused(f"connectivity must be 4 or 8, got {connectivity!r}")
    weights = CellWeights(grid)
    if min_pixels is not None:
        return _Plan(weights, int(positive(min_pixels, "min_pixels")), connectivity, rule)
    return _Plan(weights, weights.least(positive(min_area_ha, "min_area_ha", zero=True)), connectivity, rule)


def _slicer(plane: np.ndarray) -> Callable[[int, int], np.ndarray]:
    return lambda start, stop: plane[start:stop]


def _sieve_plane(plan: _Plan, source: np.ndarray, target: np.ndarray, threads: int) -> None:
    """Sieve a map in memory."""
    segments = Segments(
        _slicer(source), source.shape, plan.weights, connectivity=plan.connectivity, keep=True, threads=threads
    )
    for _ in segments.repaint(_new_codes(segments, plan), target):
        pass


def _new_codes(segments: Segments, plan: _Plan) -> np.ndarray:
    """Code of every component by the rule of the plan."""
    if plan.rule == "drop":
        stays = (segments.sizes >= plan.least) | (segments.codes == NO_DATA)
        return np.where(stays, segments.codes, np.uint8(UNCLASSIFIED))
    return _codes_by_gdal(segments, plan.least) if plan.rule == "gdal" else _codes_by_rounds(segments, plan.least)


def _neighbours(segments: Segments, least: int, gdal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Largest neighbour of every component, -1 for none, and the pairs of touching small ones unless ``gdal``."""
    from geococa._kernels import sieve as kernels

    sizes, codes = segments.sizes, segments.codes

    def link(above: Strip | None, strip: Strip, first: int) -> tuple[int, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Neighbours of the components that begin in a strip, and of the small ones that reach into it from above."""
        parts = [(strip, 0 if above is None else 1, strip.stop - strip.start)]
        edge = strip.row(0)[2]
        if above is not None:
            parts.insert(0, (seam(above, strip), 1, 2))
            edge = parts[0][0].component
        edge = edge[edge < first]
        foreign = np.unique(edge[sizes[edge] < least])
        last = max(first - 1, int(strip.component.max(initial=-1)))
        best = np.full(last + 1 - first + foreign.size, -1, dtype=np.int32)
        pairs = []
        for part, start, stop in parts:
            runs = part.starts.size
            met = np.empty((6 * int(np.diff(part.row_runs).max(initial=0)) + 1, 2), dtype=np.int32)
            small = np.empty((0 if gdal else 6 * runs, 2), dtype=np.int32)
            count = kernels.link_neighbours(
                part.starts,
                part.codes,
                part.row_runs,
                start,
                stop,
                part.columns,
                segments.diagonal,
                NO_DATA,
                part.component,
                sizes,
                codes,
                least,
                gdal,
                first,
                foreign,
                np.empty(runs, dtype=np.uint8),
                met,
                best,
                small,
            )
            pairs.append(small[:count])
        waiting = [part[: kernels.waiting_pairs(part, first, foreign, best)].copy() for part in pairs]
        return first, foreign, best, waiting

    neighbour = np.full(sizes.size, -1, dtype=np.int32)
    noted = []
    for first, foreign, best, pairs in segments.visit(link):
        own = best.size - foreign.size
        neighbour[first : first + own] = best[:own]
        kernels.merge_neighbours(foreign, best[own:], sizes, codes, gdal, neighbour)
        noted += pairs
    return neighbour, np.concatenate(noted) if noted else np.empty((0, 2), dtype=np.int32)


def _codes_by_gdal(segments: Segments, least: int) -> np.ndarray:
    """Code of every component after following the chain of largest neighbours."""
    from geococa._kernels import sieve as kernels

    neighbour, _ = _neighbours(segments, least, gdal=True)
    out = np.empty_like(segments.codes)
    kernels.resolve_chains(segments.sizes, least, neighbour, segments.codes, out)
    return out


def _codes_by_rounds(segments: Segments, least: int) -> np.ndarray:
    """Code of every component after the small ones joined large ones, from the outside in."""
    from geococa._kernels import sieve as kernels

    # of those with a large neighbour this is the target already
    target, pairs = _neighbours(segments, least, gdal=False)
    large = np.flatnonzero(segments.sizes >= least).astype(np.int32)
    target[large] = large
    # pairs with two targets say nothing more
    pairs = pairs[(target[pairs[:, 0]] < 0) | (target[pairs[:, 1]] < 0)]
    if pairs.size:
        offer = np.full(target.size, -1, dtype=np.int32)
        found = np.empty(min(target.size, len(pairs)), dtype=np.int32)
        kernels.spread_targets(pairs, segments.sizes, segments.codes, target, offer, found)
    return np.where(target >= 0, segments.codes[np.maximum(target, 0)], segments.codes)
