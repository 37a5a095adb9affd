"""What the hectares of zones are measured on: the zones as drawn, as kept, and as they lie on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from geococa.area_density import M2_PER_HA, parse_measure
from geococa.cell_areas import raster_density
from geococa.errors import ZoneError
from geococa.grid import Grid
from geococa.polygons import Rings, boundary_polygon, geometry_areas_ha, into_pixels, reprojected, rings_of
from geococa.transforms import horizontal, is_lonlat

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["ZoneShapes", "measured_ha", "shapes_on_grid"]

_EDGE_PX = 0.01
"""A zone that leaves the raster by less than this many cells counts as inside it: outlines of tiles do."""
_LONLAT = "EPSG:4326"

Float = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ZoneShapes:
    """What the hectares of zones are measured on; every list in the order of the zones."""

    zone: Rings
    zone_crs: pyproj.CRS
    whole: Rings | None
    """Zones in the CRS of ``kept`` before ownership cut them; None where nothing cut them."""
    kept: Rings
    kept_crs: pyproj.CRS
    crossing: Int64
    """Zones that leave the raster."""
    pixels: Rings
    """``kept`` in pixels of the grid; only the crossing zones."""
    disjoint: npt.NDArray[np.bool_]


def shapes_on_grid(zones: GeoDataFrame, grid: Grid, owned: Any) -> tuple[ZoneShapes, Rings]:
    """Zones as they are, as they are kept, and in pixels of the grid."""
    zone_crs = pyproj.CRS.from_user_input(zones.crs)
    zone = rings_of(zones.geometry.values)
    whole: Rings | None = None
    kept, kept_crs = zone, zone_crs
    if owned is not None:
        lonlat = pyproj.CRS.from_user_input(_LONLAT)
        whole = zone if is_lonlat(zone_crs) else reprojected(zone, zone_crs, lonlat)
        kept, kept_crs = rings_of(_polygons_in(whole.geometries(), owned)), lonlat
    elif not horizontal(zone_crs).equals(horizontal(grid.crs), ignore_axis_order=True):
        kept = _near(zones, zone, grid, zone_crs)
    pixels = into_pixels(reprojected(kept, kept_crs, grid.crs), grid.transform)
    rows, columns = grid.shape
    bounds = pixels.bounds()
    with np.errstate(invalid="ignore"):
        disjoint = ~((bounds[:, 0] < columns) & (bounds[:, 1] < rows) & (bounds[:, 2] > 0) & (bounds[:, 3] > 0))
        leaves = (
            (bounds[:, :2] < -_EDGE_PX).any(axis=1)
            | (bounds[:, 2] > columns + _EDGE_PX)
            | (bounds[:, 3] > rows + _EDGE_PX)
        )
    crossing = np.flatnonzero(leaves & ~disjoint)
    return ZoneShapes(zone, zone_crs, whole, kept, kept_crs, crossing, pixels.take(crossing), disjoint), pixels


def _near(zones: GeoDataFrame, zone: Rings, grid: Grid, zone_crs: pyproj.CRS) -> Rings:
    """Zones cut to the surroundings of the grid: far vertices may have no place in its CRS."""
    rows, columns = grid.shape
    margin_x, margin_y = 2 + 0.02 * columns, 2 + 0.02 * rows
    try:
        around = boundary_polygon(
            grid.transform, (-margin_x, -margin_y, columns + margin_x, rows + margin_y), grid.crs, zone_crs
        )
    except ZoneError:
        return zone
    if not around.is_valid:
        return zone
    shapely.prepare(around)
    shapes = np.asarray(zones.geometry.values, dtype=object)
    inside = shapely.contains(around, shapes)
    touching = shapely.intersects(around, shapes) & ~inside
    if inside.all():
        return zone
    parts = np.where(inside, shapes, shapely.MultiPolygon())
    parts[touching] = _polygons_in(shapes[touching], around)
    return rings_of(parts)


def _polygons_in(shapes: npt.NDArray[np.object_], area: Any) -> npt.NDArray[np.object_]:
    """Polygonal part of the intersections of shapes with one area."""
    out: npt.NDArray[np.object_]
    try:
        out = shapely.intersection(shapes, area)
    except shapely.errors.GEOSException:
        # reprojection may close a gap of a micrometre, so that two rings touch
        out = shapely.intersection(shapely.make_valid(shapes), shapely.make_valid(area))
    for number in np.flatnonzero(~np.isin(shapely.get_type_id(out), (3, 6))):
        parts = [part for part in shapely.get_parts(out[number]) if shapely.get_type_id(part) == 3]
        out[number] = shapely.MultiPolygon(parts)
    return out


def measured_ha(shapes: ZoneShapes, grid: Grid, area: str) -> tuple[Float, Float]:
    """Hectares of each zone, whole and on the raster."""
    zone = geometry_areas_ha(shapes.zone, shapes.zone_crs, area)
    same = shapes.kept is shapes.zone
    inside = zone.copy() if same else geometry_areas_ha(shapes.kept, shapes.kept_crs, area)
    if shapes.whole is not None and shapes.whole is not shapes.zone:
        # the same factor on every grid, so that the parts of a zone on many grids add up to it
        before = geometry_areas_ha(shapes.whole, shapes.kept_crs, area)
        inside = inside * np.divide(zone, before, out=np.ones_like(zone), where=before > 0)
    if shapes.crossing.size:
        number, rings = shapes.crossing, shapes.pixels
        density = raster_density(grid.crs, grid.transform, grid.shape, parse_measure(area))
        frame = (0.0, 0.0, float(grid.shape[1]), float(grid.shape[0]))
        part = rings.zone_sums(density.ring_areas(rings.x, rings.y, rings.ring_offsets, frame))[number] / M2_PER_HA
        inside[number] = np.minimum(part, inside[number])
    inside[shapes.disjoint] = 0.0
    return zone, inside
