"""The ground that a tile owns, in cells of its own grid: where it ends at another tile of the same lattice, between cells.

Tiles of one scene, of one UTM zone of Sentinel-2, or cut from one mosaic share a *lattice*: same CRS, same cell size,
origins a whole number of cells apart. The line between two of them runs along cell edges, so each cell has one owner.
In longitude and latitude, in which the grounds of all tiles are kept, that line is known to a few millionths of a cell
only; here it is put back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from geococa.antimeridian import around_meridian
from geococa.errors import ZoneError
from geococa.grid import Grid
from geococa.polygons import (
    LONGEST_M,
    Rings,
    boundary_polygon,
    into_pixels,
    metres_per_unit,
    outline_polygon,
    pieces_needed,
    ring_pieces,
    rings_of,
    tolerances_m,
)
from geococa.transforms import horizontal, place, transform_between

__all__ = ["grid_outline", "owned_pixels", "polygons_in", "surroundings"]

_ON_LINE_PX = 1e-3
"""An edge of owned ground this near to a line between cells, along its whole length, runs on that line."""
_SLIVER_PX = 1e-6
"""Parts of owned ground smaller than this, in cells, are rounding."""

LONLAT = pyproj.CRS.from_epsg(4326)


def surroundings(grid: Grid, crs: pyproj.CRS) -> Any:
    """Polygon in another CRS around a grid, wider than it by more than the longest piece of an edge; None beyond its domain.

    What is cut along it keeps every piece of an edge that touches the grid as it was.
    """
    rows, columns = grid.shape
    metres = metres_per_unit(grid.crs)
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    wide_x, wide_y = (3 * LONGEST_M / (metres * np.hypot(*side)) for side in ((a, d), (b, e)))
    margin_x, margin_y = wide_x + 0.02 * columns, wide_y + 0.02 * rows
    try:
        around = boundary_polygon(
            grid.transform, (-margin_x, -margin_y, columns + margin_x, rows + margin_y), grid.crs, crs
        )
    except ZoneError:
        return None
    return around if around.is_valid else None


def polygons_in(shapes: npt.NDArray[np.object_], area: Any) -> npt.NDArray[np.object_]:
    """Polygonal part of the intersections of shapes with one area."""
    shapely.prepare(area)
    out = np.array(shapes, dtype=object)
    whole = shapely.contains(area, out)
    cut = np.flatnonzero(shapely.intersects(area, out) & ~whole)
    out[~whole] = shapely.MultiPolygon()
    if not cut.size:
        return out
    source = np.asarray(shapes, dtype=object)[cut]
    try:
        part = shapely.intersection(source, area)
    except shapely.errors.GEOSException:
        # reprojection may close a gap of a micrometre, so that two rings touch
        part = shapely.intersection(shapely.make_valid(source), shapely.make_valid(area))
    for number in np.flatnonzero(~np.isin(shapely.get_type_id(part), (3, 6))):
        part[number] = shapely.MultiPolygon(_polygons(part[number]))
    out[cut] = part
    return out


def _polygons(shape: Any) -> list[Any]:
    return [part for part in shapely.get_parts(shape) if shapely.get_type_id(part) == 3 and not part.is_empty]


def grid_outline(grid: Grid) -> Any:
    """Outline of a grid in longitude and latitude.

    Vertices lie at columns and rows that are a multiple of a power of two on the lattice of the grid, so that the
    outlines of two tiles of one lattice share vertices wherever they share a line.

    Raises
    ------
    ZoneError
        The grid reaches around a pole.
    """
    rows, columns = grid.shape
    corners = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows], [0, 0]], dtype=np.float64)
    origin = np.array(place(~grid.transform, 0.0, 0.0))
    sides = []
    for start, end, pieces in zip(corners[:-1], corners[1:], _side_pieces(grid, corners), strict=True):
        axis = int(np.abs(end - start).argmax())
        length = abs(end[axis] - start[axis])
        step = 2.0 ** np.floor(np.log2(max(length / pieces, 1.0)))
        low, high = sorted((start[axis], end[axis]))
        shift = origin[axis] - np.floor(origin[axis] / step) * step
        stops = np.arange(np.floor((low - shift) / step) + 1, np.ceil((high - shift) / step)) * step + shift
        stops = np.rint(stops[(stops > low + 0.5) & (stops < high - 0.5)]) if pieces > 1 else np.empty(0)
        stops = stops if end[axis] > start[axis] else stops[::-1]
        side = np.repeat(start[None, :], stops.size + 1, axis=0)
        side[1:, axis] = stops
        sides.append(side)
    ring = np.concatenate([*sides, corners[:1]])
    return outline_polygon(grid.transform, ring[:, 0], ring[:, 1], grid.crs, LONLAT)


def _side_pieces(grid: Grid, corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pieces that each side of a grid must be cut into."""
    x, y = place(grid.transform, corners[:, 0], corners[:, 1])
    pieces = ring_pieces(rings_of([shapely.Polygon(np.c_[x, y])]), grid.crs, LONLAT)
    # pieces four times as short leave a sixteenth of the gap: small against the zones of a tile, not only against the tile
    return np.where(pieces > 1, 4 * pieces, pieces)


def owned_pixels(owned: Any, grid: Grid) -> Any:
    """Owned ground in (column, row) of a grid.

    Parameters
    ----------
    owned : shapely Polygon or MultiPolygon
        Longitude and latitude.
    grid : Grid
        The tile's grid.

    Returns
    -------
    shapely geometry
        Its edges on the lattice of the grid are exactly between cells; the others follow the lines of longitude and
        latitude.
    """
    ground = around_meridian([shapely.MultiPolygon(_polygons(owned))])
    around = surroundings(grid, LONLAT)
    ground = ground if around is None else polygons_in(ground, around)
    if grid.crs.is_geographic:
        west, _, east, _ = grid.bounds
        ground = around_meridian(ground, 0.5 * (west + east))
    rings = rings_of(ground)
    if not rings.x.size:
        return shapely.MultiPolygon()
    onto = transform_between(LONLAT, grid.crs)
    first = _in_cells(rings, onto(rings.x, rings.y), grid)
    lines = [_edge_lines(values, rings) for values in (first.x, first.y)]
    straight = np.isfinite(lines[0]) | np.isfinite(lines[1])
    if horizontal(grid.crs).equals(LONLAT, ignore_axis_order=True):
        pieces = np.ones(rings.x.size)
    else:
        image = Rings(*onto(rings.x, rings.y), rings.ring_offsets, rings.hole, rings.zone_rings)
        pieces = pieces_needed(rings, image, onto, grid.crs, tolerances_m(rings, LONLAT))
    pieces[straight] = 1
    fine, start = rings.cut(pieces)
    cells = _in_cells(fine, onto(fine.x, fine.y), grid)
    for values, line in zip((cells.x, cells.y), lines, strict=True):
        _put_on_lines(values, line, start, rings.ring_offsets)
    return _joined(cells.geometries()[0])


def _in_cells(rings: Rings, place_xy: tuple[Any, Any], grid: Grid) -> Rings:
    return into_pixels(
        Rings(np.array(place_xy[0]), np.array(place_xy[1]), rings.ring_offsets, rings.hole, rings.zone_rings),
        grid.transform,
    )


def _edge_lines(values: npt.NDArray[np.float64], rings: Rings) -> npt.NDArray[np.float64]:
    """Line between cells on which the edge that leaves each vertex runs; NaN for an edge that runs on none."""
    line = np.rint(values)
    near = np.abs(values - line) < _ON_LINE_PX
    on = np.zeros(values.size, bool)
    on[:-1] = near[:-1] & near[1:] & (line[:-1] == line[1:])
    on[rings.ring_offsets[1:] - 1] = False
    return np.where(on, line, np.nan)


def _put_on_lines(
    values: npt.NDArray[np.float64],
    line: npt.NDArray[np.float64],
    start: npt.NDArray[np.int64],
    ring_offsets: npt.NDArray[np.int64],
) -> None:
    """Move both ends of every edge that runs on a line between cells onto that line."""
    target = np.full(line.size, np.nan)
    on = np.flatnonzero(np.isfinite(line))
    target[on] = line[on]
    target[on + 1] = line[on]
    # the last vertex of a ring is its first
    first, last = ring_offsets[:-1], ring_offsets[1:] - 1
    target[last] = np.where(np.isfinite(target[last]), target[last], target[first])
    target[first] = target[last]
    moved = np.flatnonzero(np.isfinite(target))
    values[start[moved]] = target[moved]


def _joined(shape: Any) -> Any:
    """Valid union of the parts, without slivers."""
    parts = np.array(_polygons(shape), dtype=object)
    parts = shapely.make_valid(parts[shapely.area(parts) > _SLIVER_PX])
    whole = [part for part in _polygons(shapely.union_all(parts)) if part.area > _SLIVER_PX]
    return shapely.MultiPolygon(whole)
