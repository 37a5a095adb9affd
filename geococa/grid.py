"""Grid: the coordinate reference system, affine transform and shape of a raster; its blocks and cell areas."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr
from affine import Affine

from geococa.cell_areas import cell_areas
from geococa.errors import CRSMismatch, GridMismatch, InputRefused
from geococa.transforms import place

__all__ = ["Block", "Grid"]


@dataclass(frozen=True)
class Block:
    """A part of a grid to work on, with the halo that neighbourhood stages need around it.

    Rows and columns are counted in the whole grid. ``outer`` is what is read, ``inner`` what is kept; both
    are ``(row_start, row_stop, column_start, column_stop)``.
    """

    inner: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]

    @property
    def crop(self) -> tuple[slice, slice]:
        """Slices that cut the inner part out of an array read for the outer part."""
        (r0, r1, c0, c1), (o0, _, p0, _) = self.inner, self.outer
        return slice(r0 - o0, r1 - o0), slice(c0 - p0, c1 - p0)

    @property
    def target(self) -> tuple[slice, slice]:
        """Slices of the inner part in the whole grid."""
        r0, r1, c0, c1 = self.inner
        return slice(r0, r1), slice(c0, c1)


@dataclass(frozen=True)
class Grid:
    """Coordinate reference system, affine transform and shape of a raster.

    Parameters
    ----------
    crs : pyproj.CRS or anything that ``pyproj.CRS.from_user_input`` takes
        Coordinate reference system.
    transform : affine.Affine or sequence of 6 numbers
        From (column, row) of cell corners to (x, y), as rasterio has it.
    shape : tuple of int
        ``(rows, columns)``.

    Examples
    --------
    >>> grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (100, 100))
    >>> grid.bounds
    (600000.0, 299000.0, 601000.0, 300000.0)
    """

    crs: pyproj.CRS
    transform: Affine
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        try:
            crs = self.crs if isinstance(self.crs, pyproj.CRS) else pyproj.CRS.from_user_input(self.crs)
        except pyproj.exceptions.CRSError as error:
            raise CRSMismatch(f"not a coordinate reference system: {self.crs!r} ({error})") from None
        transform = _affine(self.transform)
        rows, columns = _rows_columns(self.shape)
        if transform.determinant == 0 or not np.isfinite(transform.determinant):
            raise InputRefused(f"a grid's transform must be invertible, got {tuple(transform)[:6]}")
        object.__setattr__(self, "crs", crs)
        object.__setattr__(self, "transform", transform)
        object.__setattr__(self, "shape", (rows, columns))

    @classmethod
    def from_xarray(cls, array: xr.DataArray | xr.Dataset) -> Grid:
        """Read the grid of an array: CF ``spatial_ref`` (as rioxarray and odc-geo write it) and x/y coordinates.

        Raises
        ------
        CRSMismatch
            The array has no CRS.
        GridMismatch
            The array has no regular x/y coordinates (cell centres).
        """
        x_name, y_name = _spatial_dims(array)
        mapping = _grid_mapping(array)
        wkt = mapping.attrs.get("crs_wkt") or mapping.attrs.get("spatial_ref") if mapping is not None else None
        wkt = wkt or array.attrs.get("crs")
        if not wkt:
            raise CRSMismatch(
                "the array has no coordinate reference system: expected a CF grid mapping "
                "coordinate such as 'spatial_ref'; set one with Grid(...).attach(array), "
                "array.rio.write_crs(...) or array.odc.assign_crs(...)"
            )
        shape = (array.sizes[y_name], array.sizes[x_name])
        text = mapping.attrs.get("GeoTransform") if mapping is not None else None
        if x_name in array.coords and y_name in array.coords and array[x_name].ndim == 1:
            transform = _transform_from_centres(array[x_name].values, array[y_name].values, text)
        elif text is not None:
            transform = _from_text(text)
        else:
            raise GridMismatch(f"the array has neither {x_name}/{y_name} coordinates nor a GeoTransform attribute")
        return cls(wkt, transform, shape)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """``(left, bottom, right, top)`` of the corners of the grid, in its CRS."""
        rows, columns = self.shape
        corners = [place(self.transform, *corner) for corner in ((0, 0), (columns, 0), (0, rows), (columns, rows))]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def rectilinear(self) -> bool:
        """Whether rows and columns run along the axes of the CRS (no rotation, no shear)."""
        return bool(self.transform.b == 0 and self.transform.d == 0)

    def same_as(self, other: Grid, *, tolerance: float = 1e-6) -> bool:
        """Whether two grids are the same to ``tolerance`` of a cell."""
        if not isinstance(other, Grid):
            raise GridMismatch(
                f"expected a Grid to compare with, got {type(other).__name__}; use Grid.from_xarray(array)"
            )
        if self.shape != other.shape or not _same_crs(self.crs, other.crs):
            return False
        if not isinstance(tolerance, int | float) or not tolerance >= 0:
            raise InputRefused(f"tolerance must be a share of a cell, 0 or more, got {tolerance!r}")
        size = min(abs(self.transform.determinant) ** 0.5, abs(other.transform.determinant) ** 0.5)
        rows, columns = self.shape
        drift = [
            abs(a - b)
            for corner in ((0, 0), (columns, 0), (0, rows))
            for a, b in zip(place(self.transform, *corner), place(other.transform, *corner), strict=True)
        ]
        return bool(max(drift) <= tolerance * size)

    def window(self, row_start: int, row_stop: int, column_start: int, column_stop: int) -> Grid:
        """Part of the grid, by rows and columns (stops exclusive); it may reach beyond the grid."""
        limits = (row_start, row_stop, column_start, column_stop)
        if any(not isinstance(limit, int | np.integer) for limit in limits):
            raise InputRefused(f"a window has whole rows and columns, got {limits}")
        return Grid(
            self.crs,
            _moved(self.transform, column_start, row_start),
            (row_stop - row_start, column_stop - column_start),
        )

    def blocks(self, size: int, halo: int = 0) -> Iterator[Block]:
        """Cut the grid into square blocks in row order, each with a halo cut off at the grid's edge.

        Parameters
        ----------
        size : int
            Side of a block in cells.
        halo : int
            Cells read on every side beyond the block.
        """
        whole = all(isinstance(value, int | np.integer) for value in (size, halo))
        if not whole or size < 1 or halo < 0:
            raise InputRefused(
                f"blocks have a side of at least 1 cell and a halo of 0 or more, got {size!r} and {halo!r}"
            )
        rows, columns = self.shape
        for r0 in range(0, rows, size):
            for c0 in range(0, columns, size):
                r1, c1 = min(r0 + size, rows), min(c0 + size, columns)
                outer = (max(r0 - halo, 0), min(r1 + halo, rows), max(c0 - halo, 0), min(c1 + halo, columns))
                yield Block((r0, r1, c0, c1), outer)

    def coordinates(self) -> dict[str, xr.DataArray]:
        """Cell-centre coordinates ``x`` and ``y`` and the CF grid mapping ``spatial_ref``."""
        attrs = self.crs.to_cf()
        attrs["spatial_ref"] = attrs["crs_wkt"] = self.crs.to_wkt()
        attrs["GeoTransform"] = " ".join(repr(value) for value in self.transform.to_gdal())
        coords = {"spatial_ref": xr.DataArray(np.int32(0), attrs=attrs)}
        if self.rectilinear:
            rows, columns = self.shape
            x = self.transform.c + (np.arange(columns) + 0.5) * self.transform.a
            y = self.transform.f + (np.arange(rows) + 0.5) * self.transform.e
            units = "degrees" if self.crs.is_geographic else "metre"
            coords["x"] = xr.DataArray(x, dims="x", attrs={"axis": "X", "units": units})
            coords["y"] = xr.DataArray(y, dims="y", attrs={"axis": "Y", "units": units})
        return coords

    def cell_area_ha(
        self, rows: tuple[int, int] | slice | None = None, *, area: str = "ellipsoidal"
    ) -> npt.NDArray[np.float64]:
        """Hectares of the cells on the WGS84 ellipsoid, whatever the CRS.

        Parameters
        ----------
        rows : (start, stop) or slice, optional
            Rows wanted, so that a whole scene need not be held; all where not given.
        area : str
            ``"ellipsoidal"``, or ``"planar:EPSG:32618"`` for areas in the plane of a projection.

        Returns
        -------
        float64 array
            ``(rows, 1)`` where all cells of a row are alike (longitude and latitude), else ``(rows, columns)``.

        Raises
        ------
        InputRefused
            The grid reaches beyond the domain of its projection.

        Notes
        -----
        Cells of longitude and latitude have a closed form; transverse Mercator takes ``1/k²`` of the Krüger series;
        any other projection the Jacobian of PROJ's inverse. Relative error below 1e-9 in all three.

        The ellipsoid is always WGS84 (GRS80 is the same to 1e-10), not the CRS's own, so that a zone has the same hectares
        on every map. A grid on another datum is brought there by the datum shift that PROJ and pyproj take at its middle.
        One on an unknown datum, such as the sphere of MODIS, has its longitudes and latitudes read as those of WGS84, as
        PROJ has it.

        Examples
        --------
        >>> Grid("EPSG:4326", (1, 0, -75, 0, -1, 1), (1, 1)).cell_area_ha().round(1)
        array([[1230846.4]])
        >>> Grid("EPSG:32618", (10, 0, 500000, 0, -10, 300000), (1, 1)).cell_area_ha().round(8)
        array([[0.010008]])
        """
        start, stop = _row_range(rows, self.shape[0])
        cells = cell_areas(self.crs, self.transform, self.shape, (start, max(start, stop)), area)
        return cells.expand(self.shape[1])

    def attach(self, array: xr.DataArray) -> xr.DataArray:
        """Return ``array`` with this grid's coordinates and CRS (dims ``(..., y, x)``)."""
        if not isinstance(array, xr.DataArray):
            raise GridMismatch(
                f"expected an xarray DataArray, got {type(array).__name__}; wrap it: "
                "xarray.DataArray(values, dims=('y', 'x'))"
            )
        if array.sizes.get("y", -1) != self.shape[0] or array.sizes.get("x", -1) != self.shape[1]:
            raise GridMismatch(f"the array is {dict(array.sizes)}, the grid {self.shape} (y, x)")
        out = array.assign_coords(self.coordinates())
        out.encoding = {**array.encoding, "grid_mapping": "spatial_ref"}
        return out


def _affine(transform: Any) -> Affine:
    """Six numbers as an affine transform."""
    try:
        a, b, c, d, e, f = (float(value) for value in tuple(transform)[:6])
    except (TypeError, ValueError):
        raise InputRefused(
            "a grid's transform must be an affine.Affine or six numbers (a, b, c, d, e, f) from column and row to x and y, "
            f"got {transform!r}"
        ) from None
    return Affine(a, b, c, d, e, f)


def _rows_columns(shape: Any) -> tuple[int, int]:
    try:
        rows, columns = (operator.index(int(n) if n == int(n) else n) for n in shape)
    except (TypeError, ValueError, OverflowError):
        raise InputRefused(f"a grid's shape must be two whole numbers (rows, columns), got {shape!r}") from None
    if rows < 0 or columns < 0:
        raise InputRefused(f"a grid's shape must not be negative, got {shape}")
    return rows, columns


def _row_range(rows: Any, count: int) -> tuple[int, int]:
    """First row and stop, clipped to the grid as slices are."""
    try:
        wanted = rows if isinstance(rows, slice) else slice(*(rows if rows is not None else (None, None)))
        start, stop, step = wanted.indices(count)
    except (TypeError, ValueError):
        step = 0
    if step != 1:
        raise InputRefused(f"rows must be (start, stop) or a slice without step, got {rows!r}")
    return start, stop


def _spatial_dims(array: xr.DataArray | xr.Dataset) -> tuple[str, str]:
    if not isinstance(array, xr.DataArray | xr.Dataset):
        raise GridMismatch(
            f"expected an xarray DataArray or Dataset with x, y and a CRS, got {type(array).__name__}; open the raster "
            "with geococa.read_raster, or put a bare array on its grid with Grid(...).attach(xarray.DataArray(...))"
        )
    for x_name, y_name in (("x", "y"), ("longitude", "latitude"), ("lon", "lat")):
        if x_name in array.dims and y_name in array.dims:
            return x_name, y_name
    raise GridMismatch(f"expected dims (..., y, x), got {tuple(array.dims)}")


def _grid_mapping(array: xr.DataArray | xr.Dataset) -> xr.DataArray | None:
    candidates: list[Any] = [array.encoding.get("grid_mapping"), array.attrs.get("grid_mapping")]
    if isinstance(array, xr.Dataset):
        candidates += [v.encoding.get("grid_mapping") or v.attrs.get("grid_mapping") for v in array.data_vars.values()]
    candidates += ["spatial_ref", "crs"]
    for name in candidates:
        if isinstance(name, str) and name in array.coords:
            return array.coords[name]
        if (
            isinstance(name, str)
            and isinstance(array, xr.Dataset)
            and name in array.data_vars
            and array[name].ndim == 0
        ):
            return array[name]
    return None


def _from_text(text: object) -> Affine:
    """Transform from the attribute ``GeoTransform``: six numbers in GDAL's order."""
    try:
        return Affine.from_gdal(*(float(value) for value in str(text).split()))
    except (TypeError, ValueError):
        raise GridMismatch(
            f"the attribute GeoTransform must hold six numbers, got {str(text)[:80]!r}; set it with Grid(...).attach(array)"
        ) from None


def _transform_from_centres(x: np.ndarray, y: np.ndarray, text: object) -> Affine:
    """Transform from cell centres; the attribute is preferred where both agree, since it is not rounded."""
    stored = _from_text(text) if text is not None else None
    if x.dtype.kind not in "iuf" or y.dtype.kind not in "iuf":
        raise GridMismatch(f"the coordinates must be numbers, the centres of cells, got {x.dtype} and {y.dtype}")
    if len(x) < 2 or len(y) < 2:
        if stored is None:
            raise GridMismatch("a grid with one row or column needs a GeoTransform attribute to know its cell size")
        a = (x[1] - x[0]) if len(x) > 1 else stored.a
        e = (y[1] - y[0]) if len(y) > 1 else stored.e
        left, top = x[0] - a / 2 if len(x) else stored.c, y[0] - e / 2 if len(y) else stored.f
        return Affine(a, stored.b, left, stored.d, e, top)
    a, e = (x[-1] - x[0]) / (len(x) - 1), (y[-1] - y[0]) / (len(y) - 1)
    for name, values, step in (("x", x, a), ("y", y, e)):
        if step == 0 or np.abs(np.diff(values) - step).max() > 1e-3 * abs(step):
            raise GridMismatch(
                f"the {name} coordinates are not evenly spaced (steps {np.diff(values).min():g} to "
                f"{np.diff(values).max():g}); geococa works on regular grids"
            )
    derived = Affine(a, 0.0, x[0] - a / 2, 0.0, e, y[0] - e / 2)
    if stored is not None and stored.b == 0 and stored.d == 0:
        offsets = ((derived.c - stored.c) / stored.a, (derived.f - stored.f) / stored.e)
        whole = all(abs(offset - round(offset)) < 1e-4 for offset in offsets)
        if whole and abs(derived.a / stored.a - 1) < 1e-6 and abs(derived.e / stored.e - 1) < 1e-6:
            # a slice of the stored grid: same cells, origin moved by whole cells
            return _moved(stored, round(offsets[0]), round(offsets[1]))
    return derived


def _moved(transform: Affine, columns: float, rows: float) -> Affine:
    """Transform of a grid that starts some columns and rows further."""
    x, y = place(transform, columns, rows)
    return Affine(transform.a, transform.b, x, transform.d, transform.e, y)


def _same_crs(a: pyproj.CRS, b: pyproj.CRS) -> bool:
    return a == b or a.equals(b, ignore_axis_order=True)
