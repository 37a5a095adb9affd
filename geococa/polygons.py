"""Polygons as flat arrays: rings in pixel units, true areas, reprojection that keeps straight edges straight.

The edge between two vertices is the straight line **in the CRS of the zone file**. Reprojection adds vertices until the
edges in the other CRS follow that line so closely that the area between the two is below 1e-9 of the polygon's area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from affine import Affine

from geococa.antimeridian import around_meridian, continuous_longitudes
from geococa.area_density import ELLIPSOIDAL, M2_PER_HA, fit_density, over_rings, parse_measure
from geococa.errors import CRSMismatch, InputRefused, ZoneError
from geococa.transforms import Transform, horizontal, is_lonlat, place, shifts_at, transform_between, unit_m, ways_at

__all__ = ["Rings", "boundary_polygon", "geometry_areas_ha", "polygon_area_ha", "reprojected", "rings_of"]

FOLLOW = 1e-9
"""Area between a straight edge and its densified image, relative to the polygon."""
_FINEST_M = 1e-6
"""A micrometre is finer than any coordinate in a file."""
LONGEST_M = 20_000.0
"""Longest piece of an edge that is reprojected, whatever it bends."""
_DEGREE_M = 111_320.0
_MOST_PIECES = 4096

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rings:
    """Closed rings of many polygons, flat.

    Parameters
    ----------
    x, y : float64 array (vertices,)
        Vertices of all rings; the last vertex of a ring is its first.
    ring_offsets : int64 array (rings + 1,)
        First vertex of each ring, and the end.
    hole : bool array (rings,)
        Whether a ring is a hole.
    zone_rings : int64 array (zones + 1,)
        First ring of each zone, and the end. A zone without polygons has no ring.
    """

    x: Array
    y: Array
    ring_offsets: Index
    hole: npt.NDArray[np.bool_]
    zone_rings: Index

    def __len__(self) -> int:
        return self.zone_rings.size - 1

    @property
    def ring_zone(self) -> Index:
        """Zone of each ring."""
        return np.repeat(np.arange(len(self)), np.diff(self.zone_rings))

    def zone_sums(self, ring_areas: Array) -> Array:
        """Per zone: shells minus holes, whatever way the rings turn."""
        signed = np.where(self.hole, -np.abs(ring_areas), np.abs(ring_areas))
        return np.bincount(self.ring_zone, weights=signed, minlength=len(self)).astype(np.float64)

    def bounds(self) -> Array:
        """Per zone ``x_low, y_low, x_high, y_high``; NaN for a zone without rings."""
        out = np.full((len(self), 4), np.nan)
        filled = np.flatnonzero(np.diff(self.zone_rings))
        if filled.size:
            starts = self.ring_offsets[self.zone_rings[filled]]
            for column, (axis, reduce) in enumerate(
                ((self.x, np.minimum), (self.y, np.minimum), (self.x, np.maximum), (self.y, np.maximum))
            ):
                out[filled, column] = reduce.reduceat(axis, starts)
        return out

    def take(self, zones: npt.ArrayLike) -> Rings:
        """Only the rings of some zones; the others keep their place without rings."""
        keep = np.zeros(len(self), bool)
        keep[np.asarray(zones)] = True
        ring_keep = keep[self.ring_zone]
        counts = np.diff(self.ring_offsets)
        vertex_keep = np.repeat(ring_keep, counts)
        offsets = np.concatenate([[0], np.cumsum(counts[ring_keep])]).astype(np.int64)
        per_zone = np.where(keep, np.diff(self.zone_rings), 0)
        zone_rings = np.concatenate([[0], np.cumsum(per_zone)]).astype(np.int64)
        return Rings(self.x[vertex_keep], self.y[vertex_keep], offsets, self.hole[ring_keep], zone_rings)

    def cut(self, pieces: Array) -> tuple[Rings, Index]:
        """Cut the edge that leaves each vertex into equal pieces; also where each old vertex is now."""
        count = np.maximum(pieces, 1).astype(np.int64)
        count[self.ring_offsets[1:] - 1] = 1
        starts = np.concatenate([[0], np.cumsum(count)])
        source = np.repeat(np.arange(count.size), count)
        share = (np.arange(starts[-1]) - starts[source]) / count[source]
        after = np.minimum(source + 1, count.size - 1)
        x = self.x[source] + share * (self.x[after] - self.x[source])
        y = self.y[source] + share * (self.y[after] - self.y[source])
        return Rings(x, y, starts[self.ring_offsets], self.hole, self.zone_rings), starts

    def geometries(self) -> npt.NDArray[np.object_]:
        """Back to one MultiPolygon for each zone."""
        shells = np.flatnonzero(~self.hole)
        offsets = (
            self.ring_offsets,
            np.append(shells, self.hole.size).astype(np.int64),
            np.searchsorted(shells, self.zone_rings).astype(np.int64),
        )
        out: npt.NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON, np.c_[self.x, self.y], offsets
        )
        return out


def rings_of(geometries: Any) -> Rings:
    """Flatten polygons and multipolygons (anything array-like of shapely geometries; None counts as empty).

    Raises
    ------
    ZoneError
        A geometry is no polygon, or a coordinate is not finite.
    """
    shapes = np.asarray(geometries, dtype=object).ravel()
    known = shapely.is_valid_input(shapes)
    if not known.all():
        wrong_type = type(shapes[int(np.flatnonzero(~known)[0])]).__name__
        raise ZoneError(f"expected shapely polygons, got {wrong_type}; of a GeoDataFrame, give its .geometry.values")
    kinds = shapely.get_type_id(shapes)
    wrong = ~np.isin(kinds, (-1, 3, 6)) & ~shapely.is_empty(shapes)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ZoneError(f"geometry {first} is a {shapes[first].geom_type}; areas need polygons")
    coordinates = shapely.get_coordinates(shapes)
    if not np.isfinite(coordinates).all():
        raise ZoneError("a zone has a coordinate that is not a finite number; repair the file")
    sizes, hole, zone_of = _ring_sizes(shapes)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    zone_rings = np.concatenate([[0], np.cumsum(np.bincount(zone_of, minlength=shapes.size))]).astype(np.int64)
    return Rings(
        np.ascontiguousarray(coordinates[:, 0]), np.ascontiguousarray(coordinates[:, 1]), offsets, hole, zone_rings
    )


def _ring_sizes(shapes: npt.NDArray[np.object_]) -> tuple[Index, npt.NDArray[np.bool_], Index]:
    """Vertices of each ring, whether it is a hole, and its zone, in the order of the coordinates."""
    sizes = shapely.get_num_coordinates(shapes)
    single = (shapely.get_type_id(shapes) == 3) & (shapely.get_num_interior_rings(shapes) == 0) & (sizes > 0)
    alone = np.flatnonzero(single)
    others = np.flatnonzero(~single & (sizes > 0))
    if not others.size:
        return sizes[alone].astype(np.int64), np.zeros(alone.size, bool), alone
    # taking a polygon apart copies it: only where that is needed
    parts, part_shape = shapely.get_parts(shapes[others], return_index=True)
    rings, part_of = shapely.get_rings(parts, return_index=True)
    hole = np.zeros(rings.size, bool)
    hole[1:] = part_of[1:] == part_of[:-1]
    zone_of = np.concatenate([alone, others[part_shape[part_of]]])
    order = np.argsort(zone_of, kind="stable")
    counts = np.concatenate([sizes[alone], shapely.get_num_coordinates(rings)]).astype(np.int64)
    return counts[order], np.concatenate([np.zeros(alone.size, bool), hole])[order], zone_of[order]


def into_pixels(rings: Rings, transform: Affine) -> Rings:
    """Rings in x, y to (column, row) of a raster with this transform."""
    a, b, c, d, e, f = tuple(transform)[:6]
    dx, dy = rings.x - c, rings.y - f
    if b == 0 and d == 0:
        return Rings(dx / a, dy / e, rings.ring_offsets, rings.hole, rings.zone_rings)
    determinant = a * e - b * d
    return Rings(
        (e * dx - b * dy) / determinant,
        (a * dy - d * dx) / determinant,
        rings.ring_offsets,
        rings.hole,
        rings.zone_rings,
    )


def reprojected(
    rings: Rings,
    source: pyproj.CRS,
    target: pyproj.CRS,
    *,
    within_m: Array | None = None,
    middles: Array | None = None,
) -> Rings:
    """Rings in another CRS, with vertices added where a straight edge of ``source`` is not straight in ``target``.

    Parameters
    ----------
    rings : Rings
        In ``source``.
    source, target : pyproj.CRS
        Where ``target`` is longitude and latitude, rings run on over the antimeridian (181 rather than -179).
    within_m : float64 array (zones,), optional
        Metres by which the image of an edge may be off (`tolerances_m`); taken from the image where not given.
    middles : float64 array (zones, 2), optional
        Place in ``source`` at which the datum shift of each zone is taken; the middle of its rings where not given. One
        shift serves a zone: where the areas of use of two meet, they differ by metres, and would tear it.

    Returns
    -------
    Rings
        The area between a source edge and its image stays below 1e-9 of the zone's area, or a micrometre wide.

    Raises
    ------
    ZoneError
        A vertex has no place in the target CRS.
    """
    if horizontal(source).equals(horizontal(target), ignore_axis_order=True):
        return rings
    middles = zone_middles(rings) if middles is None else middles
    filled = np.flatnonzero(np.diff(rings.zone_rings))
    ways = ways_at(source, target, middles[filled, 0], middles[filled, 1])
    rings = short_edges(rings, source)
    if not any(ways):
        return _along(rings, transform_between(source, target), target, within_m)
    shapes = np.full(len(rings), None, dtype=object)
    for way in dict.fromkeys(ways):
        zones = filled[[own == way for own in ways]]
        near = (float(middles[zones[0], 0]), float(middles[zones[0], 1]))
        image = _along(rings.take(zones), transform_between(source, target, near=near), target, within_m)
        shapes[zones] = image.geometries()[zones]
    return rings_of(shapes)


def zone_middles(rings: Rings) -> Array:
    """Middle of the bounds of each zone, x and y; NaN for a zone without rings."""
    bounds = rings.bounds()
    return 0.5 * (bounds[:, :2] + bounds[:, 2:])


def _along(rings: Rings, onto: Transform, target: pyproj.CRS, within_m: Array | None) -> Rings:
    image = _image(rings, onto, target)
    pieces = pieces_needed(rings, image, onto, target, within_m)
    return _image(rings.cut(pieces)[0], onto, target) if (pieces > 1).any() else image


def short_edges(rings: Rings, crs: pyproj.CRS) -> Rings:
    """Rings whose edges are 20 km or less: between vertices so near, the middle tells how far an image bends."""
    parts = _edge_lengths(rings) / (LONGEST_M / metres_per_unit(crs))
    if not (parts > 1 + 1e-9).any():
        return rings
    return rings.cut(np.minimum(np.ceil(parts - 1e-9), _MOST_PIECES))[0]


def metres_per_unit(crs: pyproj.CRS) -> float:
    """Metres in a unit of a projection, or in a degree of latitude."""
    return _DEGREE_M if crs.is_geographic else unit_m(crs)


def _image(rings: Rings, onto: Transform, target: pyproj.CRS) -> Rings:
    x, y = onto(rings.x, rings.y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ZoneError(f"a zone reaches beyond the domain of {target.name}; cut it, or use a map in another CRS")
    if target.is_geographic:
        x = continuous_longitudes(x, rings.ring_offsets, rings.hole)
    return Rings(x, y, rings.ring_offsets, rings.hole, rings.zone_rings)


def ring_pieces(rings: Rings, source: pyproj.CRS, target: pyproj.CRS) -> Array:
    """Pieces into which the edge that leaves each vertex must be cut to be followed in ``target``, last vertices left out."""
    inner = np.ones(rings.x.size, bool)
    inner[rings.ring_offsets[1:] - 1] = False
    if horizontal(source).equals(horizontal(target), ignore_axis_order=True):
        return np.ones(int(inner.sum()))
    onto = transform_between(source, target)
    short = np.minimum(np.ceil(_edge_lengths(rings) * metres_per_unit(source) / LONGEST_M - 1e-9), _MOST_PIECES)
    fine, start = rings.cut(short)
    pieces = pieces_needed(fine, _image(fine, onto, target), onto, target)
    most = np.maximum.reduceat(pieces, start[:-1])
    return (np.maximum(short, 1) * most)[inner]


def tolerances_m(rings: Rings, crs: pyproj.CRS) -> Array:
    """Metres by which the image of an edge of each zone may be off, from the zone in its own CRS."""
    metres, across = metres_per_unit(crs), np.ones(len(rings))
    if crs.is_geographic:
        bounds = rings.bounds()
        across = np.nan_to_num(np.cos(np.radians(np.clip(0.5 * (bounds[:, 1] + bounds[:, 3]), -89, 89))), nan=1.0)
    scaled = Rings(
        rings.x * np.repeat(across[rings.ring_zone], np.diff(rings.ring_offsets)),
        rings.y,
        rings.ring_offsets,
        rings.hole,
        rings.zone_rings,
    )
    area, perimeter = np.abs(rings_planar_areas(scaled)), _perimeters(scaled)
    return np.maximum(1.5 * FOLLOW * metres * area / np.maximum(perimeter, 1e-300), _FINEST_M)


def _perimeters(rings: Rings) -> Array:
    """Length of all rings of each zone."""
    per_ring = np.add.reduceat(_edge_lengths(rings), rings.ring_offsets[:-1]) if rings.hole.size else np.empty(0)
    return np.bincount(rings.ring_zone, weights=per_ring, minlength=len(rings)).astype(np.float64)


def _edge_lengths(rings: Rings) -> Array:
    """Length of the edge that leaves each vertex; 0 for the last vertex of a ring."""
    out = np.zeros(rings.x.size)
    out[:-1] = np.hypot(np.diff(rings.x), np.diff(rings.y))
    out[rings.ring_offsets[1:] - 1] = 0.0
    return out


def pieces_needed(
    rings: Rings, image: Rings, onto: Transform, target: pyproj.CRS, within_m: Array | None = None
) -> Array:
    """Pieces for each edge so that the images of the pieces stay near enough to the image of the edge."""
    lengths = _edge_lengths(image)
    metres = metres_per_unit(target)
    if within_m is None:
        area = np.abs(rings_planar_areas(image))
        within_m = np.maximum(1.5 * FOLLOW * metres * area / np.maximum(_perimeters(image), 1e-300), _FINEST_M)
    allowed = np.repeat((within_m / metres)[rings.ring_zone], np.diff(rings.ring_offsets))
    pieces = np.ones(rings.x.size)
    # the sagitta of an image bent like twice the earth's radius over tan 76° can't reach the limit for short edges
    far = np.flatnonzero((lengths * metres) ** 2 / (2 * 6.4e6) > allowed * metres)
    if far.size:
        middle_x, middle_y = onto(0.5 * (rings.x[far] + rings.x[far + 1]), 0.5 * (rings.y[far] + rings.y[far + 1]))
        off_x = middle_x - 0.5 * (image.x[far] + image.x[far + 1])
        if target.is_geographic:
            off_x = off_x - 360.0 * np.rint(off_x / 360.0)
        bend = np.hypot(off_x, middle_y - 0.5 * (image.y[far] + image.y[far + 1]))
        pieces[far] = np.clip(np.ceil(np.sqrt(bend / allowed[far])), 1, _MOST_PIECES)
    return pieces


def rings_planar_areas(rings: Rings) -> Array:
    """Planar area of each zone in the square of its unit."""
    from geococa._kernels import coverage

    out = np.empty(rings.hole.size)
    coverage.ring_areas(rings.x, rings.y, rings.ring_offsets, out)
    return rings.zone_sums(out)


def geometry_areas_ha(rings: Rings, crs: pyproj.CRS, area: str = ELLIPSOIDAL, *, threads: int = 1) -> Array:
    """Hectares of each zone of ``rings``; see `polygon_area_ha`. They do not depend on the number of threads."""
    planar = parse_measure(area)
    if rings.x.size == 0:
        return np.zeros(len(rings))
    if planar is not None:
        there = reprojected(rings, crs, planar)
        return rings_planar_areas(there) * unit_m(planar) ** 2 / M2_PER_HA
    if is_lonlat(crs):
        return _lonlat_areas_ha(rings, threads)
    filled = np.flatnonzero(np.diff(rings.zone_rings))
    middles = zone_middles(rings)[filled]
    shifts = shifts_at(crs, middles[:, 0], middles[:, 1])
    if len(set(shifts)) > 1:
        # each zone by the datum shift of its own middle, so that it does not depend on the other zones
        out = np.zeros(len(rings))
        for shift in dict.fromkeys(shifts):
            part = filled[[own == shift for own in shifts]]
            out[part] = geometry_areas_ha(rings.take(part), crs, area, threads=threads)[part]
        return out
    window = (float(rings.x.min()), float(rings.y.min()), float(rings.x.max()), float(rings.y.max()))
    try:
        density = fit_density(crs, Affine.identity(), window, near=(float(middles[0, 0]), float(middles[0, 1])))
    except InputRefused:
        # zones too far apart for one series: straight edges followed in longitude and latitude instead
        lonlat = pyproj.CRS.from_epsg(4326)
        return _lonlat_areas_ha(reprojected(rings, crs, lonlat), threads)
    areas = density.ring_areas(rings.x, rings.y, rings.ring_offsets, threads=threads)
    return rings.zone_sums(areas) / M2_PER_HA


def _lonlat_areas_ha(rings: Rings, threads: int) -> Array:
    from geococa._kernels import geodesy

    jumps = np.abs(np.diff(rings.x))
    jumps[rings.ring_offsets[1:-1] - 1] = 0.0
    # an edge of 360 degrees is a whole parallel, as of a cap around a pole
    jumps[np.abs(jumps - 360.0) < 1e-9] = 0.0
    if jumps.size and jumps.max() > 180.0:
        ring = int(np.searchsorted(rings.ring_offsets, int(jumps.argmax()), side="right")) - 1
        raise ZoneError(
            f"zone number {int(rings.ring_zone[ring])} has an edge over more than 180 degrees of longitude: "
            "it crosses the antimeridian; split it there into a multipolygon, as geococa.read_zones does"
        )
    ends = np.abs(rings.x[rings.ring_offsets[1:] - 1] - rings.x[rings.ring_offsets[:-1]])
    if ends.size and ends.max() > 180.0:
        raise ZoneError("a zone reaches around a pole, where it is no polygon in longitude and latitude; cut it there")
    if rings.y.size and np.abs(rings.y).max() > 90.0 + 1e-9:
        raise ZoneError(
            f"a zone has latitude {rings.y[np.abs(rings.y).argmax()]:.6g}; are longitude and latitude swapped?"
        )
    out = np.empty(rings.hole.size)
    over_rings(
        lambda offsets, part: geodesy.lonlat_ring_areas(rings.x, rings.y, offsets, part),
        rings.ring_offsets,
        out,
        threads,
    )
    return rings.zone_sums(out) / M2_PER_HA


def polygon_area_ha(geometry: Any, crs: Any, *, area: str = ELLIPSOIDAL) -> float | Array:
    """Hectares of polygons whose edges are straight in their own CRS.

    Parameters
    ----------
    geometry : shapely Polygon or MultiPolygon, or a sequence of them
        Coordinates are x, y (longitude first).
    crs : pyproj.CRS or anything that makes one
        CRS of the coordinates.
    area : str
        ``"ellipsoidal"`` for the WGS84 ellipsoid, ``"planar:EPSG:32618"`` for the plane of a projection.

    Returns
    -------
    float or float64 array
        Hectares, one for each geometry.

    Raises
    ------
    ZoneError
        A geometry is no polygon, is not finite, or crosses the antimeridian.

    Notes
    -----
    In longitude and latitude an edge is the line on which latitude is a linear function of longitude: parallels are
    straight, geodesics are not. In a projection it is the straight line of the map.

    Examples
    --------
    >>> import shapely
    >>> round(polygon_area_ha(shapely.box(-75, 0, -74, 1), "EPSG:4326"), 1)
    1230846.4
    """
    if geometry is None or isinstance(geometry, str):
        raise ZoneError(f"expected shapely polygons, got {geometry!r}")
    try:
        there = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise CRSMismatch(f"not a coordinate reference system: {crs!r} ({error}); name that of the polygons") from None
    single = isinstance(geometry, shapely.Geometry)
    shapes: Sequence[Any] = [geometry] if single else geometry
    out = geometry_areas_ha(rings_of(shapes), there, area)
    return float(out[0]) if single else out


def boundary_polygon(
    transform: Affine, window: tuple[float, float, float, float], crs: pyproj.CRS, target: pyproj.CRS
) -> Any:
    """Outline of the columns and rows ``window`` of a raster, followed in another CRS.

    In longitude and latitude, an outline over the antimeridian comes in two parts.

    Raises
    ------
    ZoneError
        The window reaches beyond the domain of the target, or around a pole.
    """
    c0, r0, c1, r1 = window
    across, down = np.array([c0, c1, c1, c0, c0]), np.array([r0, r0, r1, r1, r0])
    return outline_polygon(transform, across, down, crs, target)


def outline_polygon(transform: Affine, columns: Array, rows: Array, crs: pyproj.CRS, target: pyproj.CRS) -> Any:
    """Polygon with corners at columns and rows of a raster, closed, followed in another CRS."""
    x, y = place(transform, columns, rows)
    image = reprojected(rings_of([shapely.Polygon(np.c_[x, y])]), crs, target)
    shape = shapely.Polygon(np.c_[image.x, image.y])
    if not target.is_geographic:
        return shape
    if image.x.size and abs(image.x[-1] - image.x[0]) > 180.0:
        raise ZoneError("a raster around a pole has no outline in longitude and latitude; crop it there")
    if not shape.is_valid:
        raise ZoneError("a raster has no valid outline in longitude and latitude; crop it at the pole")
    return around_meridian([shape])[0]
