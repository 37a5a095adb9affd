"""What the hectares of zones are measured on: the zones as drawn, as kept, and as they lie on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from geococa._checks import check_type
from geococa.antimeridian import around_meridian
from geococa.area_density import M2_PER_HA, parse_measure
from geococa.cell_areas import raster_density
from geococa.errors import CRSMismatch, InputRefused, ZoneError
from geococa.grid import Grid
from geococa.owned_ground import LONLAT, owned_pixels, polygons_in, surroundings
from geococa.polygons import (
    Rings,
    geometry_areas_ha,
    into_pixels,
    reprojected,
    rings_of,
    short_edges,
    tolerances_m,
    zone_middles,
)
from geococa.transforms import horizontal, is_lonlat
from geococa.zone_memory import once, rings_key

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["ZoneShapes", "check_place", "measured_ha", "named_zones", "shapes_on_grid", "zones_lonlat"]

_EDGE_PX = 0.01
"""A zone that leaves the raster by less than this many cells counts as inside it: outlines of tiles do."""
_ON_LINE_PX = 1e-9
"""A vertex of a zone cut by owned ground this near to a line between cells lies on it."""

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


def named_zones(zones: GeoDataFrame, *, simple: bool = False) -> GeoDataFrame:
    """Zones with a CRS and unique names in the column ``zone``; named by their index where that column is missing.

    With ``simple``, zones that cross themselves are refused.

    Raises
    ------
    InputRefused, CRSMismatch, ZoneError
        They are no GeoDataFrame, have no CRS, no row, names that are missing or double, or cross themselves.
    """
    if not hasattr(zones, "geometry") or not hasattr(zones, "crs"):
        raise InputRefused(f"zones must be a GeoDataFrame, got {type(zones).__name__}; geococa.read_zones makes one")
    if zones.crs is None:
        raise CRSMismatch(
            "the zones have no coordinate reference system; set the one they were drawn in with zones.set_crs(...)"
        )
    frame: GeoDataFrame = zones if hasattr(zones, "columns") else zones.to_frame("geometry")
    if len(frame) == 0:
        raise ZoneError("there are no zones")
    if "zone" not in frame.columns:
        frame = frame.assign(zone=[str(name) for name in frame.index])
    if frame["zone"].isna().any():
        raise ZoneError(f"{int(frame['zone'].isna().sum())} zones have no name; name them in the column 'zone'")
    if frame["zone"].astype(str).duplicated().any():
        again = frame.loc[frame["zone"].astype(str).duplicated(), "zone"].unique()[:5].tolist()
        raise ZoneError(f"zone names must be unique, {again} occur more than once; rename them or dissolve the zones")
    if simple:
        crossing = frame.loc[~frame.geometry.is_valid & frame.geometry.notna(), "zone"].tolist()
        if crossing:
            raise ZoneError(
                f"zones {crossing[:5]} overlap or cross themselves; repair them with geococa.read_zones or shapely.make_valid"
            )
    return frame


def check_place(grid: Any, owned: Any = None) -> None:
    """Refuse what is no grid, or no owned ground."""
    check_type(
        grid, Grid, "grid", "make one with geococa.Grid.from_xarray(array) or geococa.Grid(crs, transform, shape)"
    )
    if owned is not None:
        check_type(owned, shapely.Geometry, "owned", "geococa.own_tiles gives the polygons")


def shapes_on_grid(zones: GeoDataFrame, grid: Grid, owned: Any) -> tuple[ZoneShapes, Rings]:
    """Zones as they are, as they are kept, and in pixels of the grid."""
    check_place(grid, owned)
    zone_crs = pyproj.CRS.from_user_input(zones.crs)
    zone = rings_of(zones.geometry.values)
    whole: Rings | None = None
    kept, kept_crs = zone, zone_crs
    # ground owned: one of many tiles, and the next one has the same zones
    many = owned is not None
    pixels = into_pixels(_in_crs_of(grid, zones, zone, zone_crs, keep=many), grid.transform)
    if many:
        whole, kept_crs = _lonlat(zone, zone_crs, keep=True), LONLAT
        kept = rings_of(polygons_in(whole.geometries(), around_meridian([owned])[0]))
        pixels = _on_lines(rings_of(polygons_in(pixels.geometries(), owned_pixels(owned, grid))))
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


def zones_lonlat(zones: GeoDataFrame) -> Rings:
    """Zones in longitude and latitude of WGS84, edges straight in their own CRS."""
    return _lonlat(rings_of(zones.geometry.values), pyproj.CRS.from_user_input(zones.crs))


def _lonlat(zone: Rings, crs: pyproj.CRS, *, keep: bool = False) -> Rings:
    """Zones in longitude and latitude, each within one turn from -180 to 180 degrees."""
    rings = zone if is_lonlat(crs) else _followed(zone, zone, crs, LONLAT, keep)
    if rings.x.size and np.abs(rings.x).max() > 180.0:
        return rings_of(around_meridian(rings.geometries()))
    return rings


def _followed(part: Rings, zone: Rings, source: pyproj.CRS, target: pyproj.CRS, keep: bool) -> Rings:
    """Parts of zones in another CRS, as the whole zones lie there; with ``keep``, not again what the last tiles needed."""
    within_m, middles = tolerances_m(zone, source), zone_middles(zone)
    key = rings_key(part, within_m, middles, source, target) if keep else None
    return once(key, lambda: reprojected(part, source, target, within_m=within_m, middles=middles))


def _on_lines(pixels: Rings) -> Rings:
    """Vertices that rounding left beside a line between cells, on it."""
    moved = [
        np.where(np.abs(values - np.rint(values)) < _ON_LINE_PX, np.rint(values), values)
        for values in (pixels.x, pixels.y)
    ]
    return Rings(moved[0], moved[1], pixels.ring_offsets, pixels.hole, pixels.zone_rings)


def _in_crs_of(grid: Grid, zones: GeoDataFrame, zone: Rings, zone_crs: pyproj.CRS, *, keep: bool) -> Rings:
    """Zones in the CRS of a grid: the same edges, to the last vertex, on every grid of this CRS.

    Far vertices may have no place in that CRS, so zones are cut to the surroundings of the grid, after their long
    edges were cut at places of their own.
    """
    if horizontal(zone_crs).equals(horizontal(grid.crs), ignore_axis_order=True):
        return _beside(grid, zone) if grid.crs.is_geographic else zone
    short = short_edges(zone, zone_crs)
    around = surroundings(grid, zone_crs)
    if around is None:
        image = short
    else:
        same = short is zone
        shapes = np.asarray(zones.geometry.values, dtype=object) if same else short.geometries()
        if zone_crs.is_geographic:
            shapes = around_meridian(shapes)
        near = polygons_in(shapes, around)
        image = (
            short if same and all(a is b for a, b in zip(near, zones.geometry.values, strict=True)) else rings_of(near)
        )
    image = _followed(image, zone, zone_crs, grid.crs, keep)
    return _beside(grid, image) if grid.crs.is_geographic else image


def _beside(grid: Grid, zone: Rings) -> Rings:
    """Zones in longitude and latitude, moved by whole turns to where the columns of the grid are."""
    west, _, east, _ = grid.bounds
    middle = 0.5 * (west + east)
    beyond = (west < -180.0, east > 180.0, bool(zone.x.size) and float(np.abs(zone.x).max()) > 180.0)
    if not any(beyond) or east - west > 360.0 + 1e-9:
        return zone
    return rings_of(around_meridian(zone.geometries(), middle))


def measured_ha(shapes: ZoneShapes, grid: Grid, area: str, threads: int = 1) -> tuple[Float, Float]:
    """Hectares of each zone, whole and on the raster."""
    many = shapes.whole is not None
    zone = _areas_ha(shapes.zone, shapes.zone_crs, area, threads, many)
    same = shapes.kept is shapes.zone
    inside = zone.copy() if same else geometry_areas_ha(shapes.kept, shapes.kept_crs, area, threads=threads)
    if shapes.whole is not None and shapes.whole is not shapes.zone:
        # the same factor on every grid, so that the parts of a zone on many grids add up to it
        before = _areas_ha(shapes.whole, shapes.kept_crs, area, threads, many)
        inside = inside * np.divide(zone, before, out=np.ones_like(zone), where=before > 0)
    if shapes.crossing.size:
        number, rings = shapes.crossing, shapes.pixels
        density = raster_density(grid.crs, grid.transform, grid.shape, parse_measure(area))
        frame = (0.0, 0.0, float(grid.shape[1]), float(grid.shape[0]))
        areas = density.ring_areas(rings.x, rings.y, rings.ring_offsets, frame, threads)
        part = rings.zone_sums(areas)[number] / M2_PER_HA
        inside[number] = np.minimum(part, inside[number])
    inside[shapes.disjoint] = 0.0
    return zone, inside


def _areas_ha(rings: Rings, crs: pyproj.CRS, area: str, threads: int, keep: bool) -> Float:
    """Hectares of each zone, a copy; with ``keep`` those of the last tiles need not be measured again."""
    key = rings_key(rings, crs, area) if keep else None
    return once(key, lambda: geometry_areas_ha(rings, crs, area, threads=threads)).copy()
