"""Ownership: which tile counts a place that several tiles hold, as exact polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely

from geococa._checks import check_type
from geococa.errors import InputRefused, ZoneError
from geococa.grid import Grid
from geococa.owned_ground import grid_outline

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["own_tiles"]


def own_tiles(
    grids: Mapping[str, Grid] | Sequence[Any],
    *,
    priority: Sequence[str] | None = None,
    valid: Mapping[str, Any] | None = None,
    footprints: Mapping[str, Any] | None = None,
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
        Ground to which a tile is limited, in longitude and latitude; all of the tile where not given. What lies
        beyond, and in no other tile, has no owner.
    footprints : mapping of str to shapely geometry, optional
        Ground that a tile has data for, in longitude and latitude (`geococa.valid_footprint`); all of the tile where
        not given. A place belongs to the first tile that has data for it, and only where none has, to the first tile
        that holds it.

    Returns
    -------
    geopandas.GeoDataFrame
        ``tile`` (ascending), ``geometry`` in EPSG:4326: polygons that don't overlap and whose union is that of the
        tiles. A tile that others cover wholly has an empty polygon. The order of ``grids`` does not matter.

    Raises
    ------
    InputRefused
        ``priority``, ``valid`` or ``footprints`` names a tile that is not there.
    ZoneError
        A tile reaches around a pole.

    Notes
    -----
    The outline of a tile is followed in longitude and latitude to 1e-9 of its area. Between tiles of one lattice
    (same CRS and cell size, origins whole cells apart) `geococa.coverage_fraction` puts the line between two owners on
    the edges of cells, so that each cell has one owner. A tile over the antimeridian has ground on both sides of it.

    Examples
    --------
    >>> left = Grid("EPSG:32618", (10, 0, 500000, 0, -10, 300000), (100, 100))
    >>> right = Grid("EPSG:32618", (10, 0, 500500, 0, -10, 300000), (100, 100))
    >>> from geococa.polygons import polygon_area_ha
    >>> polygon_area_ha(own_tiles({"b": right, "a": left}).geometry.values, "EPSG:4326").round(3)
    array([100.08,  50.04])
    """
    import geopandas

    tiles = _grids(grids)
    if not tiles:
        raise InputRefused("there are no tiles to share the ground among")
    priority = [priority] if isinstance(priority, str) else priority
    check_type(priority, (list, tuple, type(None)), "priority", "a list of tiles, best first")
    for what, places in (("valid", valid), ("footprints", footprints)):
        check_type(places, (Mapping, type(None)), what, "such as {'18NXG': polygon}")
    for what, given in (("priority", priority), ("valid", valid), ("footprints", footprints)):
        unknown = [name for name in given or () if name not in tiles]
        if unknown:
            raise InputRefused(f"{what} names {unknown}, which are not among the tiles {sorted(tiles)[:10]}")
    for what, places in (("valid", valid), ("footprints", footprints)):
        for name, shape in (places or {}).items():
            check_type(shape, shapely.Geometry, f"{what}[{name!r}]", "give polygons in longitude and latitude")
    names = sorted(tiles)
    first = list(dict.fromkeys(priority or ()))
    order = [*first, *(name for name in names if name not in set(first))]
    outlines = {name: _outline(name, tiles[name], (valid or {}).get(name)) for name in order}
    shapes = np.array([outlines[name] for name in order], dtype=object)
    owned = _data_first(shapes, [footprints.get(name) for name in order]) if footprints else _first_come(shapes)
    ground = dict(zip(order, owned, strict=True))
    return geopandas.GeoDataFrame({"tile": names}, geometry=[ground[name] for name in names], crs="EPSG:4326")


def _grids(grids: Any) -> dict[str, Grid]:
    """Grid of each tile."""
    try:
        tiles = dict(grids) if isinstance(grids, Mapping) else {str(tile.tile): tile.grid for tile in grids}
    except (TypeError, AttributeError):
        raise InputRefused(
            f"grids must be a mapping such as {{'18NXG': Grid(...)}} or a list of tiles, got {type(grids).__name__}"
        ) from None
    for name, grid in tiles.items():
        check_type(name, str, "the name of a tile", "name tiles by texts")
        check_type(grid, Grid, f"the grid of tile {name!r}", "make one with geococa.Grid.from_xarray(array)")
    return tiles


def _first_come(shapes: npt.NDArray[np.object_]) -> list[Any]:
    """Each shape without those before it."""
    tree = shapely.STRtree(shapes)
    owned = []
    for number, shape in enumerate(shapes):
        before = [other for other in np.sort(tree.query(shape, predicate="intersects")) if other < number]
        owned.append(_polygonal(shapely.difference(shape, shapely.union_all(shapes[before])) if before else shape))
    return owned


def _data_first(shapes: npt.NDArray[np.object_], footprints: Sequence[Any]) -> list[Any]:
    """Each place to the first shape with data there; places without data to the first shape that holds them."""
    seen = np.array(
        [
            shape if part is None else _polygonal(shapely.intersection(shape, part))
            for shape, part in zip(shapes, footprints, strict=True)
        ],
        dtype=object,
    )
    with_data = _first_come(seen)
    tree = shapely.STRtree(seen)
    blind = []
    for number, shape in enumerate(shapes):
        if seen[number] is shape:
            blind.append(shapely.MultiPolygon())
            continue
        around = np.sort(tree.query(shape, predicate="intersects"))
        rest = shapely.difference(shape, shapely.union_all(seen[around])) if around.size else shape
        blind.append(_polygonal(rest))
    rest_owned = _first_come(np.array(blind, dtype=object))
    return [
        one if other.is_empty else _polygonal(shapely.union(one, other))
        for one, other in zip(with_data, rest_owned, strict=True)
    ]


def _polygonal(shape: Any) -> Any:
    return shapely.MultiPolygon([p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and not p.is_empty])


def _outline(name: str, grid: Grid, valid: Any) -> Any:
    try:
        outline = grid_outline(grid)
    except ZoneError as error:
        raise ZoneError(f"tile {name!r}: {error}") from None
    return outline if valid is None else shapely.intersection(outline, valid)
