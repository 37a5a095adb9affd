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
        grids[_tile_id(number)] = Grid(f"EPSG:{epsg}", (pixel_m, 0, left, 0, -pixel_m, top), (side, side))
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

    The edges are taken as geodesics; those of the landscape are at most 50 m long, where a geodesic and a
    straight line in longitude and latitude are less than 2 micrometres apart.

    References
    ----------
    Karney, C. F. F. (2013). Algorithms for geodesics. Journal of Geodesy 87, 43-55.
    """
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon" and not part.is_empty]
    total = 0.0
    for part in parts:
        exterior = shapely.geometry.polygon.orient(part)
        total += _ELLIPSOID.geometry_area_perimeter(exterior)[0]
    return total / 1e4
