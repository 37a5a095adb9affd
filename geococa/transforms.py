"""Coordinates from one CRS to another, x or longitude first, as the areas need them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine
from pyproj.transformer import AreaOfInterest, TransformerGroup

from geococa.errors import CRSMismatch

__all__ = ["Transform", "horizontal", "is_lonlat", "place", "to_lonlat", "transform_between", "unit_m"]

Array = npt.NDArray[np.float64]
Transform = Callable[[Array, Array], tuple[Array, Array]]


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
def _transformer(source: str, target: str, near: tuple[float, float] | None) -> pyproj.Transformer:
    try:
        if near is None:
            return pyproj.Transformer.from_crs(source, target, always_xy=True)
        lon, lat = near
        around: Any = AreaOfInterest(max(lon - 0.1, -180), max(lat - 0.1, -90), min(lon + 0.1, 180), min(lat + 0.1, 90))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a shift grid that is not installed: the next best operation serves
            return TransformerGroup(source, target, always_xy=True, area_of_interest=around).transformers[0]
    except (pyproj.exceptions.ProjError, IndexError) as error:
        raise CRSMismatch(
            f"no way from {source[:80]!r} to {target[:80]!r} ({error}); give the layer a CRS that is tied to the earth"
        ) from None


def transform_between(source: pyproj.CRS, target: pyproj.CRS, *, near: tuple[float, float] | None = None) -> Transform:
    """Return a function from x, y (easting or longitude first) of one CRS to those of another.

    Given a place to be ``near`` (longitude, latitude), one operation serves all points; else PROJ takes the best for
    each point, which jumps where the areas of use of two datum shifts meet.
    """
    first, second = horizontal(source), horizontal(target)
    if first == second or first.equals(second, ignore_axis_order=True):
        return lambda x, y: (np.asarray(x, np.float64), np.asarray(y, np.float64))
    transformer = _transformer(first.to_wkt(), second.to_wkt(), near)

    def run(x: Array, y: Array) -> tuple[Array, Array]:
        out_x, out_y = transformer.transform(x, y)
        return np.asarray(out_x, np.float64), np.asarray(out_y, np.float64)

    return run


def to_lonlat(crs: pyproj.CRS) -> Transform:
    """Return a function from x, y of a CRS to longitude and latitude of WGS84 in degrees."""
    return transform_between(crs, pyproj.CRS.from_epsg(4326))


@lru_cache(maxsize=64)
def _is_lonlat(wkt: str) -> bool:
    crs = pyproj.CRS.from_wkt(wkt)
    if not crs.is_geographic:
        return False
    lon, lat = np.array([-75.0, 10.0, 100.0]), np.array([3.0, 48.0, -30.0])
    x, y = to_lonlat(crs)(lon, lat)
    return bool(np.allclose(x, lon, rtol=0, atol=2e-8) and np.allclose(y, lat, rtol=0, atol=2e-8))


def is_lonlat(crs: pyproj.CRS) -> bool:
    """Whether a CRS is longitude and latitude in degrees that may be read as WGS84 (to 2e-8 degrees)."""
    return _is_lonlat(horizontal(crs).to_wkt())


def unit_m(crs: pyproj.CRS) -> float:
    """Metres in one unit of a projected CRS."""
    axes = horizontal(crs).axis_info
    return float(axes[0].unit_conversion_factor) if axes and axes[0].unit_conversion_factor else 1.0
