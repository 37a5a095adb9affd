"""Longitudes on both sides of 180 degrees: rings that run on over it, and polygons brought into one turn of the globe."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

__all__ = ["around_meridian", "continuous_longitudes", "longest_jump", "split_jumps"]

Array = npt.NDArray[np.float64]


def continuous_longitudes(x: Array, ring_offsets: npt.NDArray[np.int64], hole: npt.NDArray[np.bool_]) -> Array:
    """Longitudes without jumps of a whole turn within a ring, holes within their shells.

    Parameters
    ----------
    x : float64 array (vertices,)
        Longitudes in degrees of closed rings.
    ring_offsets : int64 array (rings + 1,)
        First vertex of each ring, and the end.
    hole : bool array (rings,)
        Whether a ring is a hole of the shell before it.

    Returns
    -------
    float64 array (vertices,)
        The same array where nothing jumps. An edge that is longer than 180 degrees is taken the short way round.

    Examples
    --------
    >>> x = np.array([179.0, -179.0, -179.0, 179.0, 179.0])
    >>> continuous_longitudes(x, np.array([0, 5]), np.array([False]))
    array([179., 181., 181., 179., 179.])
    """
    if x.size == 0:
        return x
    step = np.diff(x)
    turns = np.concatenate([[0.0], np.where(step > 180, -360.0, np.where(step < -180, 360.0, 0.0))])
    turns[ring_offsets[:-1]] = 0.0
    if not turns.any():
        return x
    total = np.cumsum(turns)
    counts = np.diff(ring_offsets)
    out = x + total - np.repeat(total[ring_offsets[:-1]], counts)
    # a hole may start on the other side than its shell
    middle = 0.5 * (np.minimum.reduceat(out, ring_offsets[:-1]) + np.maximum.reduceat(out, ring_offsets[:-1]))
    shell = np.maximum.accumulate(np.where(hole, 0, np.arange(hole.size)))
    shift = np.where(hole, 360.0 * np.rint((middle[shell] - middle) / 360.0), 0.0)
    moved: Array = out + np.repeat(shift, counts)
    return moved


def around_meridian(shapes: Any, middle: float = 0.0) -> npt.NDArray[np.object_]:
    """Polygons in longitude and latitude moved by whole turns, and cut, so as to lie within 180 degrees of a meridian.

    Parameters
    ----------
    shapes : array-like of shapely polygons
        Longitudes may lie beyond 180 degrees; those that are in place already are returned as they are.
    middle : float
        Meridian in degrees.

    Examples
    --------
    >>> around_meridian([shapely.box(179, 0, 181, 1)])[0].bounds
    (-180.0, 0.0, 180.0, 1.0)
    >>> around_meridian([shapely.box(-180, 0, -179, 1)], 180)[0].bounds
    (180.0, 0.0, 181.0, 1.0)
    """
    out = np.array(shapes, dtype=object)
    bounds = shapely.bounds(out)
    low, high = middle - 180.0, middle + 180.0
    with np.errstate(invalid="ignore"):
        away = np.flatnonzero((bounds[:, 0] < low - 1e-9) | (bounds[:, 2] > high + 1e-9))
    frame = shapely.box(low, -91.0, high, 91.0)
    for number in away:
        west, _, east, _ = bounds[number]
        first, last = int(np.floor((low - east) / 360.0)), int(np.ceil((high - west) / 360.0))
        pieces = []
        for turn in range(first, last + 1):
            moved = shapely.transform(out[number], lambda xy, turn=turn: xy + np.array([360.0 * turn, 0.0]))
            pieces += [
                part
                for part in shapely.get_parts(shapely.intersection(moved, frame))
                if part.geom_type == "Polygon" and not part.is_empty
            ]
        out[number] = pieces[0] if len(pieces) == 1 else shapely.MultiPolygon(pieces)
    return out


def longest_jump(shape: Any) -> float:
    """Degrees of longitude of the longest edge of a polygon that is more than half a turn, whole parallels left out; or 0."""
    longest = 0.0
    for ring in shapely.get_rings(shape):
        step = np.abs(np.diff(shapely.get_coordinates(ring)[:, 0]))
        step = step[(step > 180.0) & (np.abs(step - 360.0) > 1e-9)]
        longest = max(longest, float(step.max(initial=0.0)))
    return longest


def split_jumps(shape: Any) -> Any:
    """Polygon whose edges over more than 180 degrees are taken the short way round, split at the antimeridian."""
    parts = []
    for polygon in shapely.get_parts(shape):
        rings = shapely.get_rings(polygon)
        coordinates, owner = shapely.get_coordinates(rings, return_index=True)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=rings.size))]).astype(np.int64)
        hole = np.arange(rings.size) > 0
        x = continuous_longitudes(np.ascontiguousarray(coordinates[:, 0]), offsets, hole)
        if (np.abs(x[offsets[1:] - 1] - x[offsets[:-1]]) > 1e-9).any():
            return shape  # the ring goes once around the globe: a pole is inside, and the short way does not exist
        line = [np.c_[x, coordinates[:, 1]][a:b] for a, b in pairwise(offsets)]
        parts.append(shapely.Polygon(line[0], line[1:]))
    moved = around_meridian(parts)
    pieces = [piece for part in moved for piece in shapely.get_parts(part)]
    return pieces[0] if len(pieces) == 1 else shapely.MultiPolygon(pieces)
