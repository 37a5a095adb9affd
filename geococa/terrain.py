"""Terrain: height, slope and aspect from an elevation model, on its own grid or brought onto a tile's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims
from geococa.errors import GridMismatch, InputRefused
from geococa.feature_stack import as_features, by_windows
from geococa.grid import Grid
from geococa.rasters import Header, read_header, read_window
from geococa.transforms import place, transform_between, unit_m

__all__ = ["TERRAIN", "Elevation", "open_elevation", "terrain_features"]

TERRAIN = ("elevation", "slope", "aspect", "aspect_sin", "aspect_cos")
"""Features that `terrain_features` knows."""

_LOWEST_M, _HIGHEST_M = -1000.0, 9000.0
_BLOCK = 1024
_SNAP = 1e-6
"""Cells by which a place may miss a cell's centre and still count as on it, so that a grid that is the model's own
gets the model's own values."""

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Elevation:
    """An elevation model: its grid and where its heights are.

    Attributes
    ----------
    name : str
        File, or what to call it in messages.
    grid : Grid
        Its grid.
    header : Header or None
        Of the file that the heights are read from.
    values : array or None
        Heights in memory (numpy or Dask), ``(y, x)``.
    """

    name: str
    grid: Grid
    header: Header | None = None
    values: Any = None

    def read(self, box: Window) -> np.ndarray:
        """Heights of some rows and columns in metres, float32, NaN = no height."""
        r0, r1, c0, c1 = box
        if self.header is None:
            heights: np.ndarray = np.array(self.values[r0:r1, c0:c1], np.float32)
        else:
            raw = read_window(self.header.path, self.header.driver, 1, box)
            heights = raw.astype(np.float32)
            if self.header.nodata[0] is not None:
                heights[raw == self.header.nodata[0]] = np.nan
            if (self.header.scales[0], self.header.offsets[0]) != (1.0, 0.0):
                heights = (heights * self.header.scales[0] + self.header.offsets[0]).astype(np.float32)
        strange = (heights < _LOWEST_M) | (heights > _HIGHEST_M)
        if strange.any():
            raise InputRefused(
                f"{self.name}: a height of {heights[strange][0]:g} m, beyond {_LOWEST_M:g} to {_HIGHEST_M:g} m; if it marks "
                "missing heights, declare it as the no-data value (gdal_edit -a_nodata); heights must be in metres"
            )
        return heights

    def places(self, grid: Grid, box: Window) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the model, counted in cell centres, of the cells of a window of a grid; NaN outside."""
        r0, r1, c0, c1 = box
        rows, columns = np.mgrid[r0:r1, c0:c1] + 0.5
        x, y = transform_between(grid.crs, self.grid.crs)(*place(grid.transform, columns.ravel(), rows.ravel()))
        columns, rows = place(~self.grid.transform, x, y)
        return tuple(_snapped(v - 0.5, n) for v, n in zip((rows, columns), self.grid.shape, strict=True))  # type: ignore[return-value]

    def covers_some_of(self, grid: Grid) -> bool:
        """Whether the model reaches into a grid, judged at 33 x 33 places."""
        rows, columns = np.meshgrid(*(np.linspace(0, n, 33) for n in grid.shape), indexing="ij")
        x, y = transform_between(grid.crs, self.grid.crs)(*place(grid.transform, columns.ravel(), rows.ravel()))
        columns, rows = place(~self.grid.transform, x, y)
        height, width = self.grid.shape
        with np.errstate(invalid="ignore"):
            return bool(((rows >= 0) & (rows <= height) & (columns >= 0) & (columns <= width)).any())


def _snapped(at: np.ndarray, size: int) -> np.ndarray:
    near = np.rint(at)
    at = np.where(np.abs(at - near) < _SNAP, near, at)
    # the outer half of a border cell lies beyond its centre: the height there is that of the cell
    inside = np.isfinite(at) & (at >= -0.5 - _SNAP) & (at <= size - 0.5 + _SNAP)
    return np.where(inside, np.clip(np.where(inside, at, 0.0), 0, size - 1), np.nan)


def open_elevation(dem: str | os.PathLike[str] | xr.DataArray) -> Elevation:
    """Open an elevation model: a GeoTIFF of one band, or an array ``(y, x)``; only its header is read."""
    if isinstance(dem, xr.DataArray):
        check_dims(dem, "y", "x")
        values = dem.transpose("y", "x")
        if values.dtype.kind not in "iuf":
            raise InputRefused(f"heights are numbers in metres, got {values.dtype}")
        nodata = dem.attrs.get("nodata", dem.attrs.get("_FillValue"))
        values = values.astype(np.float32)
        if nodata is not None and np.isfinite(nodata):
            values = values.where(values != np.float32(nodata))
        return Elevation(str(dem.name or "the elevation model"), Grid.from_xarray(dem), None, values.data)
    header = read_header(dem)
    if header.count != 1:
        raise InputRefused(f"{header.path}: has {header.count} bands; an elevation model has one, heights in metres")
    return Elevation(header.path, header.grid, header)


def terrain_features(
    dem: str | os.PathLike[str] | xr.DataArray,
    names: Sequence[str] = ("elevation", "slope", "aspect_sin", "aspect_cos"),
    *,
    grid: Grid | None = None,
    window: Window | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.DataArray:
    """Compute height, slope and aspect from an elevation model.

    Slope and aspect are taken on the model's own cells; they and the heights are then brought onto another grid by bilinear
    interpolation (aspect by its two components). To interpolate heights first would show the interpolation in the slope.
    A model with much smaller cells than the grid should be averaged to about the grid's cells before, since interpolation
    looks at four cells only.

    Parameters
    ----------
    dem : path or xarray.DataArray
        Heights in metres: a GeoTIFF of one band, or an array ``(y, x)`` with a CRS (an ``attrs["nodata"]`` counts).
    names : sequence of str
        Out of ``elevation`` (metres), ``slope`` (degrees from level), ``aspect`` (degrees clockwise from north, the
        direction that the ground faces; NaN where it is level), ``aspect_sin`` and ``aspect_cos`` (its east and north
        components, 0 where it is level: better for a classifier, since 359 and 1 degree are neighbours).
    grid : Grid, optional
        Grid to bring it onto; the model's own where not given.
    window : tuple of int, optional
        ``(row_start, row_stop, column_start, column_stop)`` of the grid, for work in blocks: each gives the same bytes as
        the whole.
    chunks : mapping of str to int, optional
        Rows and columns of lazy blocks by ``y`` and ``x``, ``{}`` for 512; nothing is read before they are computed.

    Returns
    -------
    xarray.DataArray
        float32 ``(feature, y, x)``; NaN where there is no height. A missing neighbour of a cell with a height is put on
        the line from the opposite neighbour through the cell. Dask in gives Dask out on the model's own grid.

    Raises
    ------
    InputRefused
        An unknown name, a file that is no elevation model, heights out of this world, or no height on the grid.
    CRSMismatch
        The model has no CRS.

    Notes
    -----
    Metres to a degree are those of the model's ellipsoid at each row's latitude; cells of a projected CRS are taken at
    their planar size, in UTM within 0.1 %. North is the grid's north, as in gdaldem.

    References
    ----------
    Horn, B. K. P. (1981). Hill shading and the reflectance map. Proceedings of the IEEE 69(1), 14-47.

    Examples
    --------
    >>> grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (3, 3))
    >>> plane = np.float32([[0, 10, 20]] * 3)
    >>> found = terrain_features(grid.attach(xr.DataArray(plane, dims=("y", "x"))), ["slope", "aspect"])
    >>> found.values[:, 1, 1].tolist()
    [45.0, 270.0]
    """
    labels = _checked(names)
    model = open_elevation(dem)
    own = grid is None or model.grid.same_as(grid)
    target = model.grid if grid is None else grid
    rows, columns = target.shape
    r0, r1, c0, c1 = box = (0, rows, 0, columns) if window is None else window
    if not (0 <= r0 < r1 <= rows and 0 <= c0 < c1 <= columns):
        raise InputRefused(f"window {box} does not lie in the grid of {rows} rows and {columns} columns")
    if model.header is None and not isinstance(model.values, np.ndarray):
        if not own:
            raise GridMismatch(
                "a lazy elevation model can't be brought onto another grid; give the path of its file, or .load() it first"
            )
        data = _lazily(model, labels)[:, r0:r1, c0:c1]
    elif chunks is not None:
        if not model.covers_some_of(target):
            raise _off_the_model(model, target)
        data = by_windows(
            lambda part: elevation_values(
                model, labels, target, (r0 + part[0], r0 + part[1], c0 + part[2], c0 + part[3])
            ),
            len(labels),
            (r1 - r0, c1 - c0),
            chunks,
        )
    else:
        data = elevation_values(model, labels, target, box)
        if np.isnan(data).all() and (window is None or not model.covers_some_of(target)):
            raise _off_the_model(model, target.window(*box))
    like = target.window(*box).attach(xr.DataArray(data[0], dims=("y", "x")))
    out = as_features(data, ("y", "x"), labels, like)
    out.attrs["units"] = "elevation m, slope and aspect degrees, aspect_sin and aspect_cos 1"
    return out


def _off_the_model(model: Elevation, grid: Grid) -> InputRefused:
    return InputRefused(
        f"{model.name}: no height on the grid with the bounds {grid.bounds}; the model covers {model.grid.bounds} in "
        f"{model.grid.crs.to_string()[:40]}, give one that covers the tile"
    )


def _checked(names: Sequence[str]) -> list[str]:
    labels = [names] if isinstance(names, str) else [str(name) for name in names]
    if not labels or len(set(labels)) != len(labels) or set(labels) - set(TERRAIN):
        raise InputRefused(f"terrain features are {', '.join(TERRAIN)}, each once, got {labels}")
    return labels


def elevation_values(model: Elevation, names: Sequence[str], grid: Grid, box: Window) -> np.ndarray:
    """Terrain features ``(feature, rows, columns)`` of a window of a grid, piece by piece; NaN off the model."""
    r0, r1, c0, c1 = box
    out = np.empty((len(names), r1 - r0, c1 - c0), np.float32)
    own = model.grid.same_as(grid)
    for top in range(r0, r1, _BLOCK):
        for left in range(c0, c1, _BLOCK):
            piece = (top, min(top + _BLOCK, r1), left, min(left + _BLOCK, c1))
            target = out[:, top - r0 : piece[1] - r0, left - c0 : piece[3] - c0]
            layers = _layers(model, piece) if own else _sampled(model, grid, piece)
            target[:] = _features(layers, names)
    return out


def _layers(model: Elevation, box: Window) -> np.ndarray:
    """Height and its rise to the east and north, ``(3, rows, columns)``, of rows and columns of the model itself."""
    r0, r1, c0, c1 = box
    rows, columns = model.grid.shape
    wide = (max(r0 - 1, 0), min(r1 + 1, rows), max(c0 - 1, 0), min(c1 + 1, columns))
    return _rise(model.read(wide), model.grid, wide, box)


def _rise(heights: np.ndarray, grid: Grid, wide: Window, box: Window) -> np.ndarray:
    """Height and its rise in a box, of the heights of a box that is one cell wider where the grid goes on."""
    from geococa._kernels import terrain

    layers = np.empty((3, *heights.shape), np.float32)
    layers[0] = heights
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    terrain.horn_gradient(layers[0], np.array([a, b, d, e]), *_unit_metres(grid, wide), layers[1:])
    r0, r1, c0, c1 = box
    return layers[:, r0 - wide[0] : r1 - wide[0], c0 - wide[2] : c1 - wide[2]]


def _unit_metres(grid: Grid, box: Window) -> tuple[np.ndarray, np.ndarray]:
    """Metres to a unit of the CRS along x and y, for each row (or each cell of a rotated grid)."""
    r0, r1, c0, c1 = box
    if not grid.crs.is_geographic:
        metres = np.full((r1 - r0, 1), unit_m(grid.crs))
        return metres, metres
    columns = np.arange(c0, c1) + 0.5 if grid.transform.d else np.zeros(1)
    latitude = (
        grid.transform.f + grid.transform.d * columns[None, :] + grid.transform.e * (np.arange(r0, r1) + 0.5)[:, None]
    )
    radians = unit_m(grid.crs) if grid.crs.axis_info else np.pi / 180
    ellipsoid = grid.crs.ellipsoid
    semi_major = ellipsoid.semi_major_metre if ellipsoid is not None else 6378137.0
    flattening = 1 / ellipsoid.inverse_flattening if ellipsoid is not None and ellipsoid.inverse_flattening else 0.0
    squared = flattening * (2 - flattening)
    phi = latitude * radians
    curve = 1 - squared * np.sin(phi) ** 2
    return semi_major / np.sqrt(curve) * np.cos(phi) * radians, semi_major * (1 - squared) / curve**1.5 * radians


def _sampled(model: Elevation, grid: Grid, box: Window) -> np.ndarray:
    """Height and its rise to the east and north at the cells of another grid."""
    from geococa._kernels import terrain

    rows, columns = model.places(grid, box)
    r0, r1, c0, c1 = box
    out = np.full((3, rows.size), np.nan, np.float32)
    seen = np.isfinite(rows) & np.isfinite(columns)
    if seen.any():
        ranges = [(int(v[seen].min()), int(v[seen].max()) + 2) for v in (rows, columns)]
        (top, bottom), (left, right) = ((a, min(b, n)) for (a, b), n in zip(ranges, model.grid.shape, strict=True))
        layers = _layers(model, (top, bottom, left, right))
        terrain.sample_bilinear(layers, rows - top, columns - left, out)
    return out.reshape(3, r1 - r0, c1 - c0)


def _features(layers: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Named features of height and rise ``(3, rows, columns)``."""
    from geococa._kernels import terrain

    out = np.empty((len(names), *layers.shape[1:]), np.float32)
    terrain.describe_slopes(layers, np.array([TERRAIN.index(name) for name in names]), out)
    return out


def _lazily(model: Elevation, names: Sequence[str]) -> Any:
    import dask.array

    heights, grid = model.values, model.grid
    starts = [np.cumsum((0, *sizes)) for sizes in heights.chunks]
    rows, columns = grid.shape

    def block(grown: np.ndarray, block_id: tuple[int, int] = (0, 0)) -> np.ndarray:
        (r0, r1), (c0, c1) = ((int(at[i]), int(at[i + 1])) for at, i in zip(starts, block_id[-2:], strict=True))
        wide = (max(r0 - 1, 0), min(r1 + 1, rows), max(c0 - 1, 0), min(c1 + 1, columns))
        return _features(_rise(np.asarray(grown, np.float32), grid, wide, (r0, r1, c0, c1)), names)

    grown = dask.array.overlap.overlap(heights, depth=1, boundary="none")
    return dask.array.map_blocks(
        block, grown, dtype=np.float32, new_axis=0, chunks=((len(names),), *heights.chunks),
        meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
