"""Where the landscape lies: the local frame in metres around 72 W, the tile grids and areas on the ellipsoid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geococa._checks import positive
from geococa.errors import InputRefused
from geococa.grid import Grid

__all__ = ["CENTRE", "GEOGRAPHIC", "LOCAL", "Frame", "area_ha", "make_frame", "to_geographic", "to_local", "utm_zone"]

CENTRE = (-72.0, 2.2)
"""Longitude and latitude of the origin of the local frame: on the border of UTM zones 18N and 19N."""
GEOGRAPHIC = pyproj.CRS("EPSG:4326")
LOCAL = pyproj.CRS(f"+proj=tmerc +lat_0={CENTRE[1]} +lon_0={CENTRE[0]} +k=1 +x_0=0 +y_0=0 +ellps=WGS84 +units=m")
"""Local frame: metres east and north of `CENTRE`. Geometry is drawn here and stored in longitude and latitude."""

_ROW_LETTERS = "ABCDEFGHJKLMNPQRSTUV"
_SNAP_M = 60.0
_MARGIN_M = 250.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_ELLIPSOID = pyproj.Geod(ellps="WGS84")


@dataclass(frozen=True)
class Frame:
    """Extent of a simulated landscape and the grids of its tiles.

    Attributes
    ----------
    grids : dict of str to Grid
        Grid of each tile, by tile id.
    footprint : tuple of float
        ``(west, south, east, north)`` of all tiles in the local frame, in metres.
    extent : tuple of float
        Box in the local frame for which the land cover is known: the footprint with a margin all around.
    """

    grids: dict[str, Grid]
    footprint: tuple[float, float, float, float]
    extent: tuple[float, float, float, float]

    @property
    def area_km2(self) -> float:
        """Area of the extent in the local frame, in km2."""
        west, south, east, north = self.extent
        return (east - west) * (north - south) / 1e6


def make_frame(size_m: float, tiles: int, pixel_m: float, overlap: float = 0.2) -> Frame:
    """Lay tiles in pairs around 72 W: even ones in UTM zone 18N, odd ones in 19N, each pair north of the last.

    Parameters
    ----------
    size_m : float
        Side of a tile in metres; rounded to whole 20 m cells (two pixels).
    tiles : int
        Number of tiles.
    pixel_m : float
        Pixel size of the fine bands in metres; the coarse bands have twice that.
    overlap : float
        Share of a tile's side that it has in common with its neighbour.
    """
    positive(size_m, "size_m")
    positive(pixel_m, "pixel_m")
    if tiles < 1 or not 0 <= overlap < 1:
        raise InputRefused(f"expected at least one tile and an overlap in 0..1, got tiles={tiles}, overlap={overlap}")
    side = 2 * max(round(size_m / (2 * pixel_m)), 2)
    size_m = side * pixel_m
    shared = overlap * size_m
    grids = {}
    for number in range(tiles):
        row, east = divmod(number, 2)
        epsg = 32600 + (19 if east else 18)
        x0, y0 = pyproj.Transformer.from_crs(GEOGRAPHIC, epsg, always_xy=True).transform(*CENTRE)
        left = x0 - (shared / 2 if east else size_m - shared / 2)
        top = y0 + size_m / 2 + row * (size_m - shared)
        left, top = (_SNAP_M * round(value / _SNAP_M) for value in (left, top))
        grids[_tile_id(number)] = Grid(pyproj.CRS.from_epsg(epsg), (pixel_m, 0, left, 0, -pixel_m, top), (side, side))
    corners = np.concatenate([_corners(grid) for grid in grids.values()])
    west, south = corners.min(axis=0)
    east, north = corners.max(axis=0)
    # one park reaches about 9 % of the width beyond the western edge
    span = max(east - west, north - south)
    margin = _MARGIN_M + 0.01 * span
    footprint = (float(west), float(south), float(east), float(north))
    extent = (west - margin - 0.1 * (east - west), south - margin, east + margin, north + margin)
    return Frame(grids, footprint, tuple(float(value) for value in extent))  # type: ignore[arg-type]


def _tile_id(number: int) -> str:
    row, east = divmod(number, 2)
    columns, letter = divmod(row + (1 if east else 6), len(_ROW_LETTERS))
    column = chr(ord("B" if east else "X") + columns)
    return f"{'19N' if east else '18N'}{column}{_ROW_LETTERS[letter]}"


def _corners(grid: Grid) -> NDArray[np.float64]:
    left, bottom, right, top = grid.bounds
    x, y = np.array([left, right, left, right]), np.array([bottom, bottom, top, top])
    return np.column_stack(to_local(x, y, grid.crs))


def utm_zone(grid: Grid) -> int:
    """EPSG code of a tile's CRS."""
    return int(grid.crs.to_epsg() or 0)


def to_local(x: NDArray[Any], y: NDArray[Any], crs: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of any CRS in the local frame, in metres."""
    east, north = pyproj.Transformer.from_crs(crs, LOCAL, always_xy=True).transform(x, y)
    return np.asarray(east), np.asarray(north)


def to_geographic(geometries: Iterable[Any]) -> NDArray[Any]:
    """Geometries of the local frame in longitude and latitude, vertex by vertex.

    Equal vertices stay equal, so a partition stays a partition.
    """
    transformer = pyproj.Transformer.from_crs(LOCAL, GEOGRAPHIC, always_xy=True)

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return np.asarray(shapely.transform(np.asarray(list(geometries), dtype=object), move), dtype=object)


def area_ha(geometry: Any) -> float:
    """Area of a polygon in longitude and latitude on the WGS84 ellipsoid, in hectares.

    Edges are straight in longitude and latitude. By Green's theorem the area is the integral of ``D dlon``
    around each ring, where ``D`` is the area below a latitude for each radian of longitude; both integrals are
    Gauss-Legendre sums relative to the corner of the polygon, which keeps 1e-12 where sums from the equator
    lose it. Truth is measured here, apart from the hectares that are to be checked against it.

    References
    ----------
    Snyder, J. P. (1987). Map projections: a working manual. USGS Professional Paper 1395, eq. 3-12, 4-18.
    """
    rings, of_part = shapely.get_rings(shapely.get_parts(geometry), return_index=True)
    if len(rings) == 0:
        return 0.0
    west, south, _, _ = np.radians(shapely.total_bounds(geometry))
    hole = np.concatenate([[False], np.diff(of_part) == 0])
    areas = np.array([_ring_area(np.radians(shapely.get_coordinates(ring)), west, south) for ring in rings])
    return float(np.sum(np.where(hole, -areas, areas))) / 1e4


def _ring_area(points: NDArray[np.float64], west: float, south: float) -> float:
    """Area of a ring of (longitude, latitude) in radians, in square metres."""
    lon, lat = points[:, 0] - west, points[:, 1] - south
    at = lat[:-1] + np.multiply.outer(0.5 * (_NODES + 1.0), np.diff(lat))
    return abs(float(np.sum(0.5 * _WEIGHTS[:, None] * _area_below(at, south) * np.diff(lon))))


def _area_below(height: NDArray[np.float64], south: float) -> NDArray[np.float64]:
    """Area between latitude ``south`` and ``south + height``, in m2 for each radian of longitude."""
    axis, squared = _ELLIPSOID.a, _ELLIPSOID.es
    sine = np.sin(south + np.multiply.outer(0.5 * (_NODES + 1.0), height))
    density = axis**2 * (1.0 - squared) * np.sqrt(1.0 - sine**2) / (1.0 - squared * sine**2) ** 2
    return np.asarray(np.tensordot(0.5 * _WEIGHTS, density, axes=1) * height)
