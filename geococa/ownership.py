"""Ownership: which tile counts a place that several tiles hold, as exact polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely

from geococa.errors import InputRefused, ZoneError
from geococa.grid import Grid
from geococa.polygons import boundary_polygon

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["own_tiles"]


def own_tiles(
    grids: Mapping[str, Grid] | Sequence[Any],
    *,
    priority: Sequence[str] | None = None,
    valid: Mapping[str, Any] | None = None,
) -> GeoDataFrame:
    """Share out the ground of overlapping tiles: every place has exactly one owner.

    Parameters
    ----------
    grids : mapping of str to Grid, or sequence of tiles with ``tile`` and ``grid``
        Grids of the tiles, in any mix of CRSs.
    priority : sequence of str, optional
        Tiles that come first, best first; the others follow in the order of their names. A place in several tiles
        belongs to the first of them.
    valid : mapping of str to shapely geometry, optional
        Ground that a tile has data for, in longitude and latitude; all of the tile where not given.

    Returns
    -------
    geopandas.GeoDataFrame
        ``tile`` (ascending), ``geometry`` in EPSG:4326: polygons that don't overlap and whose union is that of the
        tiles. A tile that others cover wholly has an empty polygon. The order of ``grids`` does not matter.

    Raises
    ------
    InputRefused
        ``priority`` names a tile that is not there.
    ZoneError
        A tile reaches over the antimeridian or a pole.

    Notes
    -----
    The outline of a tile is followed in longitude and latitude to 1e-7 of its area.

    Examples
    --------
    >>> left = Grid("EPSG:32618", (10, 0, 500000, 0, -10, 300000), (100, 100))
    >>> right = Grid("EPSG:32618", (10, 0, 500500, 0, -10, 300000), (100, 100))
    >>> from geococa.polygons import polygon_area_ha
    >>> polygon_area_ha(own_tiles({"b": right, "a": left}).geometry.values, "EPSG:4326").round(3)
    array([100.08,  50.04])
    """
    import geopandas

    tiles = dict(grids) if isinstance(grids, Mapping) else {str(tile.tile): tile.grid for tile in grids}
    if not tiles:
        raise InputRefused("there are no tiles to share the ground among")
    unknown = [name for name in priority or () if name not in tiles]
    if unknown:
        raise InputRefused(f"priority names {unknown}, which are not among the tiles {sorted(tiles)[:10]}")
    names = sorted(tiles)
    first = list(dict.fromkeys(priority or ()))
    order = [*first, *(name for name in names if name not in set(first))]
    outlines = {name: _outline(name, tiles[name], (valid or {}).get(name)) for name in order}
    shapes = np.array([outlines[name] for name in order], dtype=object)
    tree = shapely.STRtree(shapes)
    owned = {}
    for number, name in enumerate(order):
        before = [other for other in np.sort(tree.query(shapes[number], predicate="intersects")) if other < number]
        rest = shapely.difference(shapes[number], shapely.union_all(shapes[before])) if before else shapes[number]
        owned[name] = shapely.MultiPolygon(
            [p for p in shapely.get_parts(rest) if p.geom_type == "Polygon" and not p.is_empty]
        )
    return geopandas.GeoDataFrame({"tile": names}, geometry=[owned[name] for name in names], crs="EPSG:4326")


def _outline(name: str, grid: Grid, valid: Any) -> Any:
    rows, columns = grid.shape
    try:
        outline = boundary_polygon(grid.transform, (0, 0, columns, rows), grid.crs, pyproj.CRS.from_epsg(4326))
    except ZoneError as error:
        raise ZoneError(f"tile {name!r}: {error}") from None
    west, _, east, _ = outline.bounds
    if not outline.is_valid or east - west > 180:
        raise ZoneError(
            f"tile {name!r} reaches over the antimeridian or a pole, where its outline is no polygon in longitude and "
            "latitude; crop it there"
        )
    return outline if valid is None else shapely.intersection(outline, valid)
