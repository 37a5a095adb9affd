"""Polygons grown or shrunk by a distance in the plane, to a stated error."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

__all__ = ["offset_polygon"]

ARC_SEGMENTS = 64
"""Straight pieces of a quarter of a circle: short of it by 7.5e-5 of the radius."""
_SAME_M = 1e-3
_WORST = 3e-4
"""Largest distance, beside the one asked for, by which the outline may lie wrong: four times what an arc is short of its circle."""


def offset_polygon(shape: Any, distance: float) -> Any:
    """Polygon whose outline lies at a distance outside (or, negative, inside) that of another.

    Parameters
    ----------
    shape : shapely Polygon or MultiPolygon
        In a plane, metres.
    distance : float
        Metres; negative inside.

    Returns
    -------
    shapely Polygon or MultiPolygon
        Points of its outline lie at the distance from the border, to 3e-4 of it. Empty where nothing is so deep inside.

    Notes
    -----
    GEOS leaves out vertices of a border, up to a hundredth of the distance off, before it moves the rest. On borders with
    many vertices in a nearly straight line, as reprojected ones have, its outlines were found 3 % of the distance off. So
    such vertices are taken out first, and the outline is measured: where it is wrong, it is made anew from every edge by
    itself, of which there is nothing to leave out.

    Examples
    --------
    >>> offset_polygon(shapely.box(0, 0, 100, 100), -20).area
    3600.0
    """
    quick = shapely.buffer(shapely.simplify(shape, _SAME_M), distance, quad_segs=ARC_SEGMENTS)
    return quick if _at_distance(quick, shape, abs(distance)) else _from_edges(shape, distance)


def _at_distance(outline: Any, shape: Any, distance: float) -> bool:
    """Whether an outline lies at a distance from the border everywhere."""
    if outline.is_empty:
        return True
    edges = _edges(shape)
    places = shapely.get_coordinates(shapely.segmentize(shapely.boundary(outline), distance / 4))
    _, metres = shapely.STRtree(edges).query_nearest(shapely.points(places), return_distance=True, all_matches=False)
    return bool(np.abs(metres - distance).max() <= _WORST * distance + _SAME_M)


def _edges(shape: Any) -> Any:
    rings = shapely.get_rings(shapely.get_parts(shape))
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    inner = ring[1:] == ring[:-1]
    return shapely.linestrings(np.stack([coordinates[:-1][inner], coordinates[1:][inner]], axis=1))


def _from_edges(shape: Any, distance: float) -> Any:
    """Polygon with, or without, all that is near to any of its edges."""
    near = shapely.union_all(shapely.buffer(_edges(shape), abs(distance), quad_segs=ARC_SEGMENTS))
    return shapely.union(shape, near) if distance > 0 else shapely.difference(shape, near)
