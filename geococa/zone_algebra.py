"""Zone algebra: what overlapping zones share, and what they cover together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyproj
import shapely

from geococa.antimeridian import around_meridian
from geococa.area_density import ELLIPSOIDAL
from geococa.polygons import geometry_areas_ha, rings_of
from geococa.zone_shapes import named_zones

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["zone_overlaps"]

_LOG = logging.getLogger("geococa")
_SAME = 1 - 1e-6


def zone_overlaps(zones: GeoDataFrame, *, area: str = ELLIPSOIDAL) -> pd.DataFrame:
    """Hectares that every pair of zones shares.

    Parameters
    ----------
    zones : geopandas.GeoDataFrame
        From `geococa.read_zones`, for example parks, indigenous reserves and municipalities together.
    area : str
        As `geococa.zonal_area` takes it.

    Returns
    -------
    pandas.DataFrame
        Square and symmetric, hectares; the diagonal holds each zone's own area. ``attrs``: ``union_ha`` (ground in
        at least one zone), ``sum_ha`` (the zones added up), ``multiple_ha`` (what that counts more than once), and
        ``duplicates``, pairs of zones that are the same to one part in a million; those are also logged as a warning.

    Raises
    ------
    InputRefused, CRSMismatch, ZoneError
        The zones have no names, no CRS, or cross themselves.

    Examples
    --------
    >>> import geopandas, shapely
    >>> squares = [shapely.box(0, 0, 200, 100), shapely.box(100, 0, 300, 100)]
    >>> zones = geopandas.GeoDataFrame({"zone": ["a", "b"]}, geometry=squares, crs="EPSG:32618")
    >>> zone_overlaps(zones, area="planar:EPSG:32618")
         a    b
    a  2.0  1.0
    b  1.0  2.0
    """
    zones = named_zones(zones, simple=True)
    shapes = np.asarray(zones.geometry.values, dtype=object)
    crs = pyproj.CRS.from_user_input(zones.crs)
    if crs.is_geographic:  # the same ground may be written on either side of the antimeridian
        shapes = around_meridian(shapes)
    names = [str(name) for name in zones["zone"]]
    own = geometry_areas_ha(rings_of(shapes), crs, area)
    matrix = np.diag(own)
    tree = shapely.STRtree(shapes)
    first, second = tree.query(shapes, predicate="intersects")
    first, second = first[first < second], second[first < second]
    shared = shapely.intersection(shapes[first], shapes[second])
    polygons = [
        shapely.MultiPolygon([p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]) for shape in shared
    ]
    if polygons:
        matrix[first, second] = geometry_areas_ha(rings_of(polygons), crs, area)
        matrix[second, first] = matrix[first, second]
    union = shapely.union_all(shapes)
    union = shapely.MultiPolygon([p for p in shapely.get_parts(union) if p.geom_type == "Polygon"])
    union_ha = float(geometry_areas_ha(rings_of([union]), crs, area)[0])
    same = [
        (names[i], names[j])
        for i, j in zip(first, second, strict=True)
        if matrix[i, j] >= _SAME * max(own[i], own[j]) and own[i] > 0
    ]
    for one, other in same:
        _LOG.warning("zones %r and %r are the same ground: their hectares must not be added", one, other)
    out = pd.DataFrame(matrix, index=names, columns=names)
    out.attrs = {
        "union_ha": union_ha,
        "sum_ha": float(own.sum()),
        "multiple_ha": float(own.sum()) - union_ha,
        "duplicates": same,
        "area": area,
    }
    return out
