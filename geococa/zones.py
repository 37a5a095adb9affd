"""Stage 6: park and other zones, rings around them, their exact share of every cell, and who owns which ground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely

from geococa._checks import check_type
from geococa.antimeridian import around_meridian
from geococa.border_offsets import offset_polygon
from geococa.coverage import Coverage, coverage_fraction, dense_fractions
from geococa.coverage_file import coverage_key
from geococa.errors import InputRefused
from geococa.footprints import footprint_of, valid_footprint
from geococa.ownership import own_tiles
from geococa.polygons import Rings, polygon_area_ha, reprojected, rings_of
from geococa.transforms import to_lonlat
from geococa.zone_files import read_zones
from geococa.zone_hierarchy import assign_parents, roll_up
from geococa.zone_repair import repair_polygons
from geococa.zone_shapes import named_zones

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = [
    "Coverage",
    "assign_parents",
    "buffer_rings",
    "coverage_fraction",
    "coverage_key",
    "dense_fractions",
    "footprint_of",
    "own_tiles",
    "polygon_area_ha",
    "read_zones",
    "repair_polygons",
    "roll_up",
    "valid_footprint",
]

_FARTHEST_M = 1e6


def buffer_rings(
    zones: GeoDataFrame, distances_m: Sequence[float], *, sides: Sequence[str] = ("outside", "inside")
) -> GeoDataFrame:
    """Rings along the border of each zone, outside and inside, by distance on the ellipsoid.

    Parameters
    ----------
    zones : geopandas.GeoDataFrame
        From `geococa.read_zones`.
    distances_m : sequence of float
        Distances from the border in metres that part the rings, such as ``[0, 1000, 5000, 10000]``; 0 is added where
        missing.
    sides : sequence of {"outside", "inside"}
        Sides wanted. The inside ends with the core: what lies deeper than the last distance.

    Returns
    -------
    geopandas.GeoDataFrame
        In the CRS of the zones: ``zone`` (unique, such as ``"Tinigua, outside 0-1000 m"``), ``of`` (the zone it
        belongs to), ``ring``, ``from_m`` and ``to_m`` (negative inside, ``-inf`` for the core). Rings that don't
        exist, as in a narrow zone, are left out. The rings inside a zone add up to the zone.

    Raises
    ------
    InputRefused
        A distance is negative, not finite or more than 1,000 km, or the zones are not those of `geococa.read_zones`.
    ZoneError
        A zone crosses itself.

    Notes
    -----
    Distances are measured in an azimuthal equidistant projection around each zone's middle: exact from there, and
    off by ``d² / 6R²`` at a distance d (4e-5 at 100 km). Arcs have 64 segments a quarter, short of the circle by
    0.008 % of the distance or less. The distance of the outlines from the border is checked, since GEOS leaves out vertices
    of a border before it moves it. Rings of neighbouring zones may overlap; each zone is taken on its own.

    Examples
    --------
    >>> import geopandas
    >>> square = shapely.box(500000, 0, 504000, 4000)
    >>> zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[square], crs="EPSG:32618")
    >>> buffer_rings(zones, [0, 1000])[["ring", "from_m", "to_m"]]
                     ring  from_m    to_m
    0    outside 0-1000 m     0.0  1000.0
    1     inside 0-1000 m -1000.0     0.0
    2  inside over 1000 m    -inf -1000.0
    """
    import geopandas

    zones = named_zones(zones, simple=True)
    crs = pyproj.CRS.from_user_input(zones.crs)
    steps = _steps(distances_m)
    check_type(sides, (str, list, tuple), "sides", "such as ['outside', 'inside']")
    sides = [sides] if isinstance(sides, str) else list(sides)
    wrong = [side for side in sides if side not in ("outside", "inside")]
    if wrong:
        raise InputRefused(f"sides must be 'outside' or 'inside', got {wrong}")
    records: list[dict[str, Any]] = []
    for name, geometry in zip(zones["zone"], zones.geometry, strict=True):
        if geometry is not None and not geometry.is_empty:
            records += _rings(str(name), _in_one_piece(geometry, crs), crs, steps, sides)
    return geopandas.GeoDataFrame(
        records, columns=["zone", "of", "ring", "from_m", "to_m", "geometry"], geometry="geometry", crs=crs
    )


def _steps(distances_m: Sequence[float]) -> list[float]:
    """Distances in rising order, from 0."""
    try:
        steps = sorted({0.0, *(float(value) for value in distances_m)})
    except (TypeError, ValueError):
        raise InputRefused(f"distances must be a list of metres such as [0, 1000, 5000], got {distances_m!r}") from None
    if steps[0] < 0 or not np.isfinite(steps).all() or len(steps) < 2 or steps[-1] > _FARTHEST_M:
        raise InputRefused(
            f"distances must be metres from 0 to {_FARTHEST_M:g}, and one of them more than 0; got {list(distances_m)}"
        )
    return steps


def _in_one_piece(geometry: Any, crs: pyproj.CRS) -> Any:
    """Zone in longitude and latitude without the cut that the antimeridian makes, which is no border of it."""
    west, _, east, _ = geometry.bounds
    if not crs.is_geographic or east - west <= 180.0:
        return geometry
    largest = max(shapely.get_parts(geometry), key=lambda part: part.area)
    moved = around_meridian([geometry], float(largest.centroid.x))[0]
    return shapely.union_all(shapely.get_parts(moved))


def _rings(
    name: str, geometry: Any, crs: pyproj.CRS, steps: Sequence[float], sides: Sequence[str]
) -> list[dict[str, Any]]:
    middle = geometry.envelope.centroid
    lon, lat = to_lonlat(crs)(np.array([middle.x]), np.array([middle.y]))
    local = pyproj.CRS.from_dict(
        {"proj": "aeqd", "lat_0": float(lat[0]), "lon_0": float(lon[0]), "datum": "WGS84", "units": "m"}
    )
    flat: Rings = reprojected(rings_of([geometry]), crs, local)
    here = flat.geometries()[0]
    found: list[tuple[str, float, float, Any]] = []
    if "outside" in sides:
        grown = [here, *(offset_polygon(here, step) for step in steps[1:])]
        found += [
            (f"outside {a:g}-{b:g} m", a, b, shapely.difference(outer, inner))
            for a, b, inner, outer in zip(steps, steps[1:], grown, grown[1:], strict=False)
        ]
    if "inside" in sides:
        shrunk = [here, *(offset_polygon(here, -step) for step in steps[1:])]
        found += [
            (f"inside {a:g}-{b:g} m", -b, 0.0 - a, shapely.difference(outer, inner))
            for a, b, outer, inner in zip(steps, steps[1:], shrunk, shrunk[1:], strict=False)
        ]
        found.append((f"inside over {steps[-1]:g} m", -np.inf, -steps[-1], shrunk[-1]))
    out = []
    for ring, low, high, shape in found:
        polygons = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and not part.is_empty]
        if not polygons:
            continue
        back = reprojected(rings_of([shapely.MultiPolygon(polygons)]), local, crs).geometries()[0]
        if crs.is_geographic:
            back = around_meridian([back])[0]
        out.append(
            {
                "zone": f"{name}, {ring}",
                "of": name,
                "ring": ring,
                "from_m": low,
                "to_m": high,
                "geometry": back if back.is_valid else shapely.make_valid(back),
            }
        )
    return out
