"""Coordinates from one CRS to another, x or longitude first, as the areas need them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine

from geococa.errors import CRSMismatch

__all__ = [
    "Transform",
    "horizontal",
    "is_lonlat",
    "place",
    "shifts_at",
    "to_lonlat",
    "transform_between",
    "unit_m",
    "ways_at",
]

Array = npt.NDArray[np.float64]
Transform = Callable[[Array, Array], tuple[Array, Array]]
_WGS84 = pyproj.CRS.from_epsg(4326)
_SAME_DEG = 2e-8


def place(transform: Affine, column: Any, row: Any) -> tuple[Any, Any]:
    """Where a (column, row) lies, numbers or arrays (affine 3 renamed the operator that affine 2 has for this)."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * column + b * row + c, d * column + e * row + f


def horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    """Horizontal part of a CRS with heights."""
    if crs.is_compound:
        return horizontal(crs.sub_crs_list[0])
    return crs.to_2d() if len(crs.axis_info) > 2 else crs


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> pyproj.Transformer:
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise CRSMismatch(
            f"no way from {source[:80]!r} to {target[:80]!r} ({error}); give the layer a CRS that is tied to the earth"
        ) from None


def transform_between(source: pyproj.CRS, target: pyproj.CRS, *, near: tuple[float, float] | None = None) -> Transform:
    """Return a function from x, y (easting or longitude first) of one CRS to those of another.

    Given a place to be ``near`` (x, y of the source), the operation that PROJ takes there serves all points; else PROJ
    takes the best for each point, which jumps where the areas of use of two datum shifts meet.
    """
    first, second = horizontal(source), horizontal(target)
    if first == second or first.equals(second, ignore_axis_order=True):
        return lambda x, y: (np.asarray(x, np.float64), np.asarray(y, np.float64))
    transformer = _transformer(first.to_wkt(), second.to_wkt())
    if near is not None and np.isfinite(transformer.transform(*near)).all():
        transformer = _last_used(transformer)

    def run(x: Array, y: Array) -> tuple[Array, Array]:
        out_x, out_y = transformer.transform(x, y)
        return np.asarray(out_x, np.float64), np.asarray(out_y, np.float64)

    return run


def _last_used(transformer: pyproj.Transformer) -> pyproj.Transformer:
    """The operation of the last point: not always the first that PROJ lists for an area around it."""
    try:
        return transformer.get_last_used_operation()
    except (pyproj.exceptions.ProjError, NotImplementedError):
        return transformer  # there is only one


def shifts_at(crs: pyproj.CRS, x: Array, y: Array) -> list[str]:
    """Which datum shift to WGS84 PROJ takes at each place of a CRS; all the same where the CRS is on WGS84 or GRS80."""
    return ways_at(crs, _WGS84, x, y)


def ways_at(source: pyproj.CRS, target: pyproj.CRS, x: Array, y: Array) -> list[str]:
    """Which operation PROJ takes from one CRS to another at each place; all the same where both are on WGS84 or GRS80."""
    bases = [horizontal(crs).geodetic_crs for crs in (source, target)]
    if all(base is None or is_lonlat(base) for base in bases):
        return [""] * len(x)
    transformer = _transformer(horizontal(source).to_wkt(), horizontal(target).to_wkt())
    there_x, there_y = (np.atleast_1d(values) for values in transformer.transform(x, y))
    found = np.full(len(x), "", dtype=object)
    left = np.isfinite(there_x) & np.isfinite(there_y)
    while left.any():
        # PROJ tells the operation of one point at a time; the others that it brings to where they went are of it too
        first = int(left.argmax())
        transformer.transform(float(x[first]), float(y[first]))
        way = _last_used(transformer)
        way_x, way_y = way.transform(x, y)
        same = left & (way_x == there_x) & (way_y == there_y)
        same[first] = True
        found[same] = str(way.definition)
        left &= ~same
    return [str(way) for way in found]


def to_lonlat(crs: pyproj.CRS) -> Transform:
    """Return a function from x, y of a CRS to longitude and latitude of WGS84 in degrees."""
    return transform_between(crs, _WGS84)


@lru_cache(maxsize=64)
def _is_lonlat(wkt: str) -> bool:
    crs = pyproj.CRS.from_wkt(wkt)
    if not crs.is_geographic:
        return False
    if crs.equals(_WGS84, ignore_axis_order=True):
        return True
    lon, lat = _places(crs)
    x, y = to_lonlat(crs)(lon, lat)
    turn = np.abs((x - lon + 180.0) % 360.0 - 180.0)
    return bool((turn < _SAME_DEG).all() and (np.abs(y - lat) < _SAME_DEG).all())


def _places(crs: pyproj.CRS) -> tuple[Array, Array]:
    """Longitudes and latitudes at which a CRS is tried: PROJ knows datum shifts for their areas of use only."""
    lon, lat = np.meshgrid(np.arange(-177.5, 180.0, 5.0), np.arange(-87.5, 90.0, 5.0))
    area = crs.area_of_use
    if area is None:
        return lon.ravel(), lat.ravel()
    east = area.east if area.east >= area.west else area.east + 360.0
    here = np.meshgrid(np.linspace(area.west, east, 9), np.linspace(area.south, area.north, 9))
    lon, lat = (np.concatenate([all_.ravel(), near.ravel()]) for all_, near in zip((lon, lat), here, strict=True))
    return (lon + 180.0) % 360.0 - 180.0, lat


def is_lonlat(crs: pyproj.CRS) -> bool:
    """Whether a CRS is longitude and latitude in degrees that may be read as WGS84 (to 2e-8 degrees, wherever it is used)."""
    return _is_lonlat(horizontal(crs).to_wkt())


def unit_m(crs: pyproj.CRS) -> float:
    """Metres in one unit of a projected CRS."""
    axes = horizontal(crs).axis_info
    return float(axes[0].unit_conversion_factor) if axes and axes[0].unit_conversion_factor else 1.0
