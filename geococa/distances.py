"""Distance from every cell to rivers, roads, settlements: to the nearest line, point or polygon of a vector layer."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
import xarray as xr

from geococa._checks import positive
from geococa.errors import CRSMismatch, InputRefused
from geococa.feature_stack import as_features, by_windows
from geococa.grid import Grid
from geococa.transforms import Transform, place, to_lonlat, transform_between, unit_m
from geococa.zone_files import sniff

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["DistanceLayers", "distance_features", "distance_name", "prepare_distances"]

Window = tuple[int, int, int, int]

_BLOCK = 512
_PATCH = 16
_FAR_DEGREES = 9.0
"""A layer that ends so far (1,000 km) from a tile is the wrong one, or has its axes swapped."""
_EDGE_M = 5000.0
"""Longest edge that is carried into the plane as one: over 5 km straight lines of two CRS part by about half a metre."""


@dataclass(frozen=True)
class _Layer:
    name: str
    segments: np.ndarray
    """float64 ``(n, 4)`` in the plane: edges of lines and polygons, and points."""
    polygons: np.ndarray
    tree: shapely.STRtree


@dataclass(frozen=True)
class DistanceLayers:
    """Vector layers made ready for a grid, to be asked window by window.

    Attributes
    ----------
    grid : Grid
        The grid.
    limit_m : float
        Distances end here.
    layers : tuple
        The layers, in order.
    to_plane : callable
        From the grid's CRS to a plane that is true to scale around the grid's centre.
    """

    grid: Grid
    limit_m: float
    layers: tuple[_Layer, ...]
    to_plane: Transform

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return [distance_name(layer.name) for layer in self.layers]

    def values(self, window: Window) -> np.ndarray:
        """Distances in metres of a window of the grid, float32 ``(layer, rows, columns)``."""
        r0, r1, c0, c1 = window
        out = np.empty((len(self.layers), r1 - r0, c1 - c0), np.float32)
        for top in range(r0, r1, _BLOCK):
            for left in range(c0, c1, _BLOCK):
                bottom, right = min(top + _BLOCK, r1), min(left + _BLOCK, c1)
                rows, columns = np.mgrid[top:bottom, left:right] + 0.5
                x, y = self.to_plane(*place(self.grid.transform, columns.ravel(), rows.ravel()))
                x, y = (np.ascontiguousarray(v).reshape(rows.shape) for v in (x, y))
                for layer, target in zip(self.layers, out, strict=True):
                    target[top - r0 : bottom - r0, left - c0 : right - c0] = _distances(layer, x, y, self.limit_m)
        return out


def distance_name(layer: str) -> str:
    """Name of the feature of a layer.

    Examples
    --------
    >>> distance_name("roads")
    'distance_roads_m'
    """
    return f"distance_{layer}_m"


def distance_features(
    vectors: Mapping[str, Any],
    grid: Grid,
    *,
    max_distance_m: float = 50_000.0,
    window: Window | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.DataArray:
    """Compute the distance from every cell centre to the nearest feature of vector layers.

    Parameters
    ----------
    vectors : mapping of str to path or geopandas.GeoDataFrame
        Layers by name, such as ``{"roads": "roads.gpkg"}``: points, lines or polygons (distance 0 inside) in a GeoPackage
        of one layer, GeoJSON, Shapefile, FlatGeobuf or GeoParquet, in any CRS.
    grid : Grid
        Grid of the tile.
    max_distance_m : float
        Distances end here: what is farther off counts as so far.
    window : tuple of int, optional
        ``(row_start, row_stop, column_start, column_stop)`` of the grid, for work in blocks: each gives the same bytes as
        the whole.
    chunks : mapping of str to int, optional
        Rows and columns of lazy blocks by ``y`` and ``x``, ``{}`` for 512; the layers are read now, distances computed later.

    Returns
    -------
    xarray.DataArray
        float32 ``(feature, y, x)``, features ``distance_{name}_m``, never NaN.

    Raises
    ------
    InputRefused
        A file is missing or no vector layer, a name is no plain word, or a layer ends 1,000 km from the grid.
    CRSMismatch
        A layer has no CRS.

    Notes
    -----
    Exact for each cell centre in a transverse Mercator plane through the grid's centre. In a tile of 110 km with 50 km
    around it, that is within 0.02 % of the distance on the ellipsoid.

    Examples
    --------
    >>> import geopandas
    >>> grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (2, 3))
    >>> road = geopandas.GeoDataFrame(geometry=[shapely.LineString([(600005, 0), (600005, 600000)])], crs="EPSG:32618")
    >>> distance_features({"roads": road}, grid).values.round(1).tolist()
    [[[0.0, 10.0, 20.0], [0.0, 10.0, 20.0]]]
    """
    prepared = prepare_distances(vectors, grid, max_distance_m)
    rows, columns = grid.shape
    r0, r1, c0, c1 = box = (0, rows, 0, columns) if window is None else window
    if not (0 <= r0 < r1 <= rows and 0 <= c0 < c1 <= columns):
        raise InputRefused(f"window {box} does not lie in the grid of {rows} rows and {columns} columns")
    if chunks is None:
        data = prepared.values(box)
    else:
        data = by_windows(
            lambda part: prepared.values((r0 + part[0], r0 + part[1], c0 + part[2], c0 + part[3])),
            len(prepared.layers),
            (r1 - r0, c1 - c0),
            chunks,
        )
    like = grid.window(*box).attach(xr.DataArray(data[0], dims=("y", "x")))
    out = as_features(data, ("y", "x"), prepared.names, like)
    out.attrs["units"] = "m"
    return out


def prepare_distances(vectors: Mapping[str, Any], grid: Grid, max_distance_m: float) -> DistanceLayers:
    """Read layers and carry what lies within reach of a grid into its plane, once for all windows."""
    limit = positive(float(max_distance_m), "max_distance_m")
    if not isinstance(vectors, Mapping) or not vectors:
        raise InputRefused("name at least one layer, as in {'roads': 'roads.gpkg'}")
    for name in vectors:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", str(name)):
            raise InputRefused(f"names of layers are lower-case words such as 'roads', got {name!r}")
    rows, columns = (np.linspace(0, n, 17) for n in grid.shape)
    lattice = (v.ravel() for v in np.meshgrid(columns, rows))
    lon, lat = to_lonlat(grid.crs)(*place(grid.transform, *lattice))
    centre = (float(lon.min() + lon.max()) / 2, float(lat.min() + lat.max()) / 2)
    plane = pyproj.CRS.from_proj4(f"+proj=tmerc +lat_0={centre[1]!r} +lon_0={centre[0]!r} +k=1 +datum=WGS84 +units=m")
    # a twentieth more than the limit, so that where layers are cut off no distance is shorter for it
    reach = limit * 1.05 / 110_500.0
    wide = reach / max(np.cos(np.radians(min(np.abs(lat).max() + reach, 89.0))), 0.01)
    around = (lon.min() - wide, lat.min() - reach, lon.max() + wide, lat.max() + reach)
    layers = tuple(_prepared(str(name), source, around, plane, grid) for name, source in vectors.items())
    return DistanceLayers(grid, limit, layers, transform_between(grid.crs, plane))


def _prepared(
    name: str, source: Any, around: tuple[float, float, float, float], plane: pyproj.CRS, grid: Grid
) -> _Layer:
    frame = _read(name, source)
    shapes = np.asarray(frame.geometry.values)
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    if not len(shapes):
        raise InputRefused(f"{_what(name, source)}: holds no geometry; give the layer with the {name}")
    shapes = shapely.get_parts(shapely.force_2d(shapes))
    shapes = np.where(shapely.is_valid(shapes), shapes, shapely.make_valid(shapes))
    box = _box_in(frame.crs, around)
    near = shapely.clip_by_rect(
        shapes[shapely.intersects(shapely.box(*shapely.bounds(shapes).T), shapely.box(*box))], *box
    )
    near = shapely.get_parts(near[~shapely.is_empty(near)])
    if not len(near):
        _check_not_far(frame, around, _what(name, source), grid)
    longest = _EDGE_M / (110_500.0 if frame.crs.is_geographic else unit_m(frame.crs))
    move = transform_between(frame.crs, plane)
    flat = shapely.transform(shapely.segmentize(near, longest), lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])))
    flat = shapely.get_parts(np.asarray(flat)) if len(flat) else np.empty(0, object)
    polygons = flat[np.isin(shapely.get_type_id(flat), (3, 6))]
    polygons = np.where(shapely.is_valid(polygons), polygons, shapely.make_valid(polygons))
    shapely.prepare(polygons)
    return _Layer(name, _segments(flat), polygons, shapely.STRtree(polygons))


def _what(name: str, source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"the layer {name}"


def _read(name: str, source: Any) -> GeoDataFrame:
    import geopandas
    import pyogrio

    if isinstance(source, str | os.PathLike):
        path = Path(source)
        kind = sniff(path)
        try:
            if kind == "GeoParquet":
                frame = geopandas.read_parquet(path)
            else:
                layers = [str(row[0]) for row in pyogrio.list_layers(path) if row[1] is not None]
                if len(layers) != 1:
                    raise InputRefused(
                        f"{path}: has {len(layers)} layers with geometry ({', '.join(layers) or 'none'}); save the {name} "
                        "as a file of their own"
                    )
                frame = pyogrio.read_dataframe(path, layer=layers[0], columns=[])
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise InputRefused(f"{path}: can't be read as {kind} ({error}); save the layer again") from error
    else:
        frame = source
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise InputRefused(
            f"{_what(name, source)}: expected a vector file or a GeoDataFrame, got {type(frame).__name__}"
        )
    if frame.crs is None:
        raise CRSMismatch(f"{_what(name, source)}: has no coordinate reference system; set it with ogr2ogr -a_srs")
    return frame


def _box_in(crs: pyproj.CRS, lonlat: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Box of longitudes and latitudes as a box of another CRS that holds all of it."""
    left, low, right, high = lonlat
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(left, right, 33), np.linspace(low, high, 33)))
    x, y = transform_between(pyproj.CRS.from_epsg(4326), crs)(x, y)
    seen = np.isfinite(x) & np.isfinite(y)
    if not seen.any():
        raise CRSMismatch(f"the grid lies beyond the domain of {crs.to_string()[:60]}; reproject the layer")
    margin = 0.01 * max(np.ptp(x[seen]), np.ptp(y[seen]))
    return tuple(  # type: ignore[return-value]
        float(v)
        for v in (x[seen].min() - margin, y[seen].min() - margin, x[seen].max() + margin, y[seen].max() + margin)
    )


def _check_not_far(frame: GeoDataFrame, around: tuple[float, float, float, float], what: str, grid: Grid) -> None:
    """Refuse a layer that can't be meant; a tile without a road within reach is no error."""
    left, low, right, high = (float(v) for v in frame.total_bounds)
    x, y = to_lonlat(frame.crs)(np.array([left, right, left, right]), np.array([low, low, high, high]))
    gaps = (x.min() - around[2], around[0] - x.max(), y.min() - around[3], around[1] - y.max())
    if not np.isfinite(gaps).all() or max(gaps) > _FAR_DEGREES:
        raise InputRefused(
            f"{what}: nothing of it within 1,000 km of the grid: it covers {left:g}, {low:g} to {right:g}, {high:g} in "
            f"{frame.crs.to_string()[:40]}, the grid {grid.bounds} in {grid.crs.to_string()[:40]}; give the layer of this "
            "region, and check that its axes are not swapped"
        )


def _segments(shapes: np.ndarray) -> np.ndarray:
    """Edges of lines and polygons, and points, ``(n, 4)``."""
    kinds = shapely.get_type_id(shapes)
    points = shapely.get_coordinates(shapes[kinds == 0])
    areas = shapes[np.isin(kinds, (3, 6))]
    rings = shapely.get_rings(areas) if len(areas) else areas
    lines = np.concatenate([shapely.get_parts(shapes[np.isin(kinds, (1, 2, 5))]), rings])
    xy, line = shapely.get_coordinates(lines, return_index=True)
    joined = line[1:] == line[:-1] if len(line) else np.empty(0, bool)
    edges = np.hstack([xy[:-1][joined], xy[1:][joined]])
    out = np.concatenate([edges, np.hstack([points, points])])
    return np.ascontiguousarray(out[np.isfinite(out).all(axis=1)])


def _distances(layer: _Layer, x: np.ndarray, y: np.ndarray, limit: float) -> np.ndarray:
    from geococa._kernels import distance

    out = np.empty(x.shape, np.float32)
    distance.segment_distances(x, y, layer.segments, limit, out)
    if len(layer.polygons):
        _fill_inside(layer, x, y, out)
    return out


def _fill_inside(layer: _Layer, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """Set cells inside polygons to 0, patch by patch, so that few polygons are asked for few cells."""
    patches = [
        (slice(r, r + _PATCH), slice(c, c + _PATCH))
        for r in range(0, x.shape[0], _PATCH)
        for c in range(0, x.shape[1], _PATCH)
    ]
    boxes = [shapely.box(x[p].min(), y[p].min(), x[p].max(), y[p].max()) for p in patches]
    for patch, polygon in layer.tree.query(np.array(boxes)).T:
        p = patches[patch]
        inside = shapely.contains_xy(layer.polygons[polygon], x[p], y[p])
        out[p][inside] = 0.0
