"""Slow, plain references for shares of cells and for areas on the ellipsoid."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely

GEOD = pyproj.Geod(ellps="WGS84")


def star(rng, corners, x, y, radius):
    """Polygon with corners all around a middle: never crosses itself, but is far from convex."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    # a gap of half a turn would leave the middle outside
    angle = np.concatenate([angle, [0.1, 2.2, 4.3]])
    angle.sort()
    reach = radius * rng.uniform(0.25, 1.0, angle.size)
    return shapely.Polygon(np.c_[x + reach * np.cos(angle), y + reach * np.sin(angle)])


def polygonal(shape):
    """Polygons of any geometry, as a MultiPolygon."""
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and part.area > 0]
    return shapely.MultiPolygon(parts)


def shares_by_intersection(shape, rows, columns):
    """Share of every cell in a polygon given in pixel units, each by a polygon intersection of its own."""
    down, across = np.mgrid[0:rows, 0:columns]
    cells = shapely.box(across, down, across + 1, down + 1)
    return shapely.area(shapely.intersection(cells, shape))


def ring_area_geod_m2(lon, lat):
    """Unsigned area of a ring of geodesics."""
    return abs(GEOD.polygon_area_perimeter(lon, lat)[0])


def area_geod_ha(shape, to_lonlat, step):
    """Area of polygons whose edges are straight in their own coordinates, cut into geodesics of length ``step`` or less."""
    total = 0.0
    for polygon in shapely.get_parts(shape):
        for number, ring in enumerate([polygon.exterior, *polygon.interiors]):
            x, y = np.asarray(shapely.segmentize(ring, step).coords)[:, :2].T
            part = ring_area_geod_m2(*to_lonlat(x, y))
            total += part if number == 0 else -part
    return total / 1e4


def to_lonlat(crs):
    """Function from x, y of a CRS to WGS84 longitude and latitude, through PROJ."""
    return pyproj.Transformer.from_crs(pyproj.CRS.from_user_input(crs), "EPSG:4326", always_xy=True).transform


def cell_area_geod_ha(grid, row, column, pieces=100):
    """Area of one cell from its outline, cut into short geodesics."""
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    side = np.arange(pieces) / pieces
    across = column + np.concatenate([side, np.ones(pieces), 1 - side, np.zeros(pieces)])
    down = row + np.concatenate([np.zeros(pieces), side, np.ones(pieces), 1 - side])
    lon, lat = to_lonlat(grid.crs)(a * across + b * down + c, d * across + e * down + f)
    return ring_area_geod_m2(lon, lat) / 1e4


def class_areas_plain(labels, shares, cell_ha, codes):
    """Hectares of each code: labels (y, x), shares (zone, y, x), cell areas that broadcast to (y, x)."""
    weight = shares * np.broadcast_to(cell_ha, labels.shape)
    return np.array([[float((layer * (labels == code)).sum()) for code in codes] for layer in weight])
