"""Coverage: the exact share of every cell of a grid inside every zone, sparse, with the zones' true hectares."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr

from geococa._checks import check_threads, check_type, check_whole
from geococa.area_density import ELLIPSOIDAL, parse_measure
from geococa.coverage_file import coverage_key, read_coverage, write_coverage
from geococa.errors import CRSMismatch, GridMismatch, InputRefused, ZoneError
from geococa.grid import Grid
from geococa.polygons import Rings, into_pixels, rings_of
from geococa.transforms import to_lonlat
from geococa.zone_shapes import ZoneShapes, check_place, measured_ha, named_zones, shapes_on_grid

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["Coverage", "coverage_fraction", "dense_fractions"]

Float = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Sparse = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
"""Strips, spans and cells as `_kernels.coverage.sweep` returns them."""


@dataclass(frozen=True, eq=False, repr=False)
class Coverage:
    """Exact share of every cell of a grid inside every zone, sparse.

    Made by `geococa.coverage_fraction`; made once for a grid and a set of zones, it serves all years and layers.
    A *strip* is one row of one zone: *spans* of cells wholly inside, and border *cells* with their share.

    Attributes
    ----------
    zones : geopandas.GeoDataFrame
        The zones, with the column ``zone``.
    grid : Grid
        The grid.
    strip_zone, strip_row : int32 array (strips,)
        Zone and row of each strip, in order of zone and row.
    span_offsets, cell_offsets : int64 array (strips + 1,)
        First span and first border cell of each strip.
    span_start, span_stop : int32 array (spans,)
        Columns of the cells wholly inside, stop exclusive.
    cell_column : int32 array (cells,)
        Column of each border cell.
    cell_fraction : float64 array (cells,)
        Its share inside the zone, between 0 and 1.
    """

    zones: GeoDataFrame
    grid: Grid
    strip_zone: Int32
    strip_row: Int32
    span_offsets: Int64
    span_start: Int32
    span_stop: Int32
    cell_offsets: Int64
    cell_column: Int32
    cell_fraction: Float
    rings_px: Rings
    _shapes: ZoneShapes | None
    _areas: dict[str, tuple[Float, Float]] = field(default_factory=dict)
    _owned: Any = None

    def __repr__(self) -> str:
        return (
            f"<Coverage: {len(self.zones)} zones on {self.grid.shape[0]} x {self.grid.shape[1]} cells, "
            f"{self.strip_row.size} strips, {self.span_start.size} spans, {self.cell_column.size} border cells>"
        )

    @property
    def zone_names(self) -> list[str]:
        """Names of the zones."""
        return [str(name) for name in self.zones["zone"]]

    @property
    def arrays(self) -> Sparse:
        """Strips, spans and border cells in the order in which kernels take them."""
        return (
            self.strip_zone, self.strip_row, self.span_offsets, self.span_start, self.span_stop,
            self.cell_offsets, self.cell_column, self.cell_fraction,
        )  # fmt: skip

    @property
    def zone_ha(self) -> Float:
        """Hectares of each zone on the ellipsoid, edges straight in the zones' own CRS; also where no raster is."""
        return self.measured()[0]

    @property
    def inside_ha(self) -> Float:
        """Hectares of each zone on the raster (and on the ground owned, where ``owned`` was given)."""
        return self.measured()[1]

    @property
    def outside_ha(self) -> Float:
        """Hectares of each zone off the raster (or owned by others)."""
        zone, inside = self.measured()
        return zone - inside

    def measured(self, area: str = ELLIPSOIDAL, *, threads: int | None = 1) -> tuple[Float, Float]:
        """Hectares of each zone, whole and on the raster, on the ellipsoid or in a plane (``"planar:EPSG:32618"``)."""
        threads = check_threads(threads)
        if not isinstance(area, str) or area not in self._areas:
            parse_measure(area)
            # a coverage that was read from a file has hectares, but not the shapes that other measures need
            shapes = self._shapes or shapes_on_grid(self.zones, self.grid, self._owned)[0]
            self._areas[area] = measured_ha(shapes, self.grid, area, threads)
        return self._areas[area]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the coverage to a file that `Coverage.load` reads; `geococa.coverage_file` describes it.

        Parameters
        ----------
        path : path
            File to write; an older one is replaced at once when the new one is whole. The same coverage gives the same
            bytes.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        InputRefused
            The file can't be written.
        """
        check_type(path, (str, os.PathLike), "path", "name the file to write")
        zone_ha, inside_ha = self.measured()
        rings = self.rings_px
        names = ("strip_zone", "strip_row", "span_offsets", "span_start", "span_stop")
        arrays = {
            **{name: getattr(self, name) for name in (*names, "cell_offsets", "cell_column", "cell_fraction")},
            "ring_x": rings.x,
            "ring_y": rings.y,
            "ring_offsets": rings.ring_offsets,
            "ring_hole": rings.hole,
            "zone_rings": rings.zone_rings,
            "zone_ha": zone_ha,
            "inside_ha": inside_ha,
        }
        key = coverage_key(self.zones, self.grid, self._owned)
        try:
            return write_coverage(Path(path), arrays, key, self.grid.shape)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
            raise InputRefused(
                f"{path}: can't be written ({error.strerror or error}); name a file in a folder that exists and is yours"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], zones: GeoDataFrame, grid: Grid, *, owned: Any = None) -> Coverage:
        """Read a coverage that was saved, for the very zones and grid that it was made from.

        Parameters
        ----------
        path : path
            From `Coverage.save`.
        zones, grid, owned
            As `geococa.coverage_fraction` was given them.

        Raises
        ------
        GridMismatch
            The file was made from another grid, other zones or other owned ground.
        InputRefused
            The file is no coverage, or damaged.

        Examples
        --------
        >>> import geopandas, pathlib, shapely, tempfile
        >>> zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(0, 0, 15, 10)], crs="EPSG:32618")
        >>> grid = Grid("EPSG:32618", (10, 0, 0, 0, -10, 20), (2, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = coverage_fraction(zones, grid).save(pathlib.Path(folder) / "a.npz")
        ...     Coverage.load(path, zones, grid)
        <Coverage: 1 zones on 2 x 2 cells, 1 strips, 1 spans, 1 border cells>
        """
        check_type(path, (str, os.PathLike), "path", "name a file from Coverage.save")
        check_place(grid, owned)
        zones = named_zones(zones)
        a = read_coverage(Path(path), coverage_key(zones, grid, owned), len(zones), grid.shape)
        rings = Rings(a["ring_x"], a["ring_y"], a["ring_offsets"], a["ring_hole"], a["zone_rings"])
        sparse = (
            a["strip_zone"], a["strip_row"], a["span_offsets"], a["span_start"], a["span_stop"],
            a["cell_offsets"], a["cell_column"], a["cell_fraction"],
        )  # fmt: skip
        areas = {ELLIPSOIDAL: (a["zone_ha"], a["inside_ha"])}
        return cls(zones, grid, *sparse, rings, None, areas, owned)

    def strips(self, row_start: int = 0, row_stop: int | None = None) -> Int64:
        """Numbers of the strips in some rows, in order of zone and row."""
        start, stop = self._rows(row_start, row_stop)
        return np.flatnonzero((self.strip_row >= start) & (self.strip_row < stop))

    def _rows(self, row_start: int, row_stop: int | None) -> tuple[int, int]:
        """First row and stop, if the grid has them."""
        rows = self.grid.shape[0]
        start = check_whole(row_start, "row_start", 0, rows)
        return start, rows if row_stop is None else check_whole(row_stop, "row_stop", start, rows)

    def cells(self, zone: str | int) -> tuple[Int64, Int64, Float]:
        """Rows, columns and shares of all cells of one zone, by its name or number.

        Raises
        ------
        InputRefused
            There is no such zone.

        Examples
        --------
        >>> import geopandas, shapely
        >>> zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(0, 0, 15, 10)], crs="EPSG:32618")
        >>> share = coverage_fraction(zones, Grid("EPSG:32618", (10, 0, 0, 0, -10, 20), (2, 2)))
        >>> share.cells("a")
        (array([1, 1]), array([0, 1]), array([1. , 0.5]))
        """
        number = self._number(zone)
        low, high = np.searchsorted(self.strip_zone, [number, number + 1])
        return self.expand(np.arange(low, high))

    def _number(self, zone: str | int) -> int:
        if not isinstance(zone, str):
            return check_whole(zone, "zone, where it is no name,", 0, len(self.zones) - 1)
        names = self.zone_names
        if zone not in names:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise InputRefused(f"no zone {zone!r} in the coverage, which has {', '.join(names[:10])}{more}")
        return names.index(zone)

    def expand(self, strips: Int64, row_start: int = 0) -> tuple[Int64, Int64, Float]:
        """Rows (from ``row_start``), columns and shares of every cell of some strips."""
        from geococa._kernels import zonal

        spans = self.span_offsets
        whole = np.concatenate([[0], np.cumsum(self.span_stop.astype(np.int64) - self.span_start)])
        count = int(
            (whole[spans[strips + 1]] - whole[spans[strips]]).sum()
            + (self.cell_offsets[strips + 1] - self.cell_offsets[strips]).sum()
        )
        rows, columns, shares = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
        zonal.expand_strips(
            strips,
            self.strip_row,
            spans,
            self.span_start,
            self.span_stop,
            self.cell_offsets,
            self.cell_column,
            self.cell_fraction,
            row_start,
            rows,
            columns,
            shares,
        )
        return rows, columns, shares

    def dense(self, row_start: int = 0, row_stop: int | None = None) -> xr.DataArray:
        """Shares as a dense float64 array ``(zone, y, x)``; rows may be limited, since it grows with zones x cells."""
        from geococa._kernels import coverage

        start, stop = self._rows(row_start, row_stop)
        out = np.zeros((len(self.zones), stop - start, self.grid.shape[1]))
        coverage.fill_dense(*self.arrays, start, out)
        array = xr.DataArray(
            out,
            dims=("zone", "y", "x"),
            coords={"zone": self.zone_names},
            name="coverage_fraction",
            attrs={"units": "1", "long_name": "share of the cell inside the zone"},
        )
        return self.grid.window(start, stop, 0, self.grid.shape[1]).attach(array)


def coverage_fraction(
    zones: GeoDataFrame,
    grid: Grid,
    *,
    owned: Any = None,
    allow_outside: bool = False,
    threads: int | None = 1,
) -> Coverage:
    """Exact share of every grid cell inside every zone.

    Parameters
    ----------
    zones : geopandas.GeoDataFrame
        Polygons in any CRS, from `geococa.read_zones`; zones may overlap. The column ``zone`` names them (the index
        does where there is none).
    grid : Grid
        Grid of the map; ``geococa.Grid.from_xarray(land_cover)``. Any CRS, also rotated or south-up.
    owned : shapely geometry, optional
        Ground that counts on this grid, in longitude and latitude (`geococa.own_tiles`); what lies elsewhere is
        outside.
    allow_outside : bool
        Accept that no zone touches the grid; else that is an error, since it mostly means a wrong CRS.
    threads : int or None
        Threads; the result does not depend on them. None takes one for each processor.

    Returns
    -------
    Coverage
        Sparse shares, exact to rounding, and the hectares of each zone.

    Raises
    ------
    CRSMismatch
        The zones have no CRS, or none of them touches the grid.
    InputRefused
        Zones touch the grid, but not the ground owned; or an argument is of another type.
    ZoneError
        A zone overlaps or crosses itself.

    Notes
    -----
    An edge is the straight line between its vertices in the CRS of the zones. Where the grid has another CRS,
    vertices are added until the edges follow that line to 1e-9 of the zone's area, or to a micrometre. The same edges
    result on every grid of a CRS, and ground owned ends between cells at a tile of the same lattice, so that tiles
    give what the whole raster gives.

    Examples
    --------
    >>> import geopandas, shapely
    >>> zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(0, 0, 15, 10)], crs="EPSG:32618")
    >>> coverage_fraction(zones, Grid("EPSG:32618", (10, 0, 0, 0, -10, 20), (2, 2))).dense().values[0]
    array([[0. , 0. ],
           [1. , 0.5]])
    """
    threads = check_threads(threads)
    zones = named_zones(zones)
    shapes, pixels = shapes_on_grid(zones, grid, owned)
    arrays = _sweep(pixels, grid.shape, zones, threads)
    share = Coverage(zones, grid, *arrays, pixels, shapes, {}, owned)
    if not share.strip_row.size and not allow_outside:
        if owned is not None and not shapes_on_grid(zones, grid, None)[0].disjoint.all():
            raise InputRefused(_nothing_owned(owned))
        raise CRSMismatch(_no_overlap(zones, grid))
    return share


def dense_fractions(geometries: Any, grid: Grid, *, threads: int | None = 1) -> Float:
    """Shares of cells inside polygons that are in the CRS of the grid, dense.

    Parameters
    ----------
    geometries : sequence of shapely Polygon or MultiPolygon
        In the CRS of the grid.
    grid : Grid
        The grid.
    threads : int or None
        Threads; the result does not depend on them. None takes one for each processor.

    Returns
    -------
    float64 array (geometries, rows, columns)

    Raises
    ------
    InputRefused
        ``grid`` is no Grid.
    ZoneError
        A geometry is no polygon, or overlaps or crosses itself.

    Examples
    --------
    >>> import shapely
    >>> dense_fractions([shapely.box(0, 0, 5, 5)], Grid("EPSG:32618", (10, 0, 0, 0, -10, 10), (1, 1)))
    array([[[0.25]]])
    """
    from geococa._kernels import coverage

    threads = check_threads(threads)
    check_place(grid)
    if geometries is None or isinstance(geometries, str):
        raise ZoneError(f"expected shapely polygons, got {geometries!r}")
    pixels = into_pixels(rings_of(geometries), grid.transform)
    arrays = _sweep(pixels, grid.shape, None, threads)
    out = np.zeros((len(pixels), *grid.shape))
    coverage.fill_dense(*arrays, 0, out)
    return out


def _tasks(rings: Rings, rows: int, threads: int) -> Iterable[tuple[int, int, int, int]]:
    """Zones and rows of each task, in order of zone and row: zones in groups, and large ones cut by rows."""
    zones = len(rings)
    if threads <= 1 or zones == 0:
        return [(0, zones, 0, rows)]
    vertices = rings.ring_offsets[rings.zone_rings]
    cost = np.diff(vertices) + 20
    share = cost.sum() / (8 * threads)
    large = {}
    for zone in np.flatnonzero(cost > 2 * share).tolist():
        low, high = _row_range(rings, zone, rows)
        if high > low:
            large[zone] = np.unique(np.linspace(low, high, 2 * threads + 1).astype(int)).tolist()
    # the others in groups that end where their running cost passes a multiple of the share, or at a large zone
    cost[list(large)] = 0
    ends = np.flatnonzero(np.diff(np.cumsum(cost) // share)) + 1
    borders = sorted({0, zones, *ends.tolist(), *large, *(zone + 1 for zone in large)})
    tasks: list[tuple[int, int, int, int]] = []
    for first, last in pairwise(borders):
        if first in large:
            tasks += [(first, last, start, stop) for start, stop in pairwise(large[first])]
        else:
            tasks.append((first, last, 0, rows))
    return tasks


def _row_range(rings: Rings, zone: int, rows: int) -> tuple[int, int]:
    low, high = rings.ring_offsets[rings.zone_rings[zone : zone + 2]]
    y = rings.y[low:high]
    if not y.size:
        return 0, 0
    return int(np.clip(np.floor(y.min()), 0, rows)), int(np.clip(np.ceil(y.max()), 0, rows))


def _sweep(rings: Rings, shape: tuple[int, int], zones: GeoDataFrame | None, threads: int) -> Sparse:
    """Run the sweep over all zones; arrays as `_kernels.coverage.sweep` returns them."""
    from geococa._kernels import coverage

    def run(task: tuple[int, int, int, int]) -> Any:
        return coverage.sweep(rings.x, rings.y, rings.ring_offsets, rings.hole, rings.zone_rings, *task, shape[1])

    tasks = list(_tasks(rings, shape[0], threads))
    if len(tasks) == 1:
        parts = [run(tasks[0])]
    else:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            parts = list(pool.map(run, tasks))
    broken = max(int(part[8]) for part in parts)
    if broken >= 0:
        name = f"zone {zones['zone'].iloc[broken]!r}" if zones is not None else f"polygon {broken}"
        raise ZoneError(
            f"{name} overlaps or crosses itself, so shares of cells have no meaning; repair it with "
            "geococa.read_zones or shapely.make_valid"
        )
    if len(parts) == 1:
        single: Sparse = parts[0][:8]
        return single
    joined: Any = tuple(_joined([part[i] for part in parts], offsets=i in (2, 5)) for i in range(8))
    return cast(Sparse, joined)


def _joined(arrays: list[Any], *, offsets: bool) -> Any:
    if not offsets:
        return np.concatenate(arrays)
    starts = np.concatenate([[0], np.cumsum([array[-1] for array in arrays])])
    return np.concatenate([[0], *(array[1:] + start for array, start in zip(arrays, starts[:-1], strict=True))]).astype(
        np.int64
    )


def _nothing_owned(owned: Any) -> str:
    if owned.is_empty:
        return (
            "zones touch the map, but it owns no ground: owned= is empty, since other tiles come first everywhere; leave "
            "the tile out, or pass allow_outside=True"
        )
    west, south, east, north = owned.bounds
    return (
        "zones touch the map, but not the ground that it owns: owned= lies at longitude "
        f"{west:.3f} to {east:.3f}, latitude {south:.3f} to {north:.3f}; take the polygon of this very tile from "
        "geococa.own_tiles, in longitude and latitude, or pass allow_outside=True if other tiles hold the zones"
    )


def _no_overlap(zones: GeoDataFrame, grid: Grid) -> str:
    def place(crs: Any, bounds: Iterable[float]) -> str:
        west, south, east, north = (float(v) for v in bounds)
        x, y = np.array([west, west, east, east]), np.array([south, north, south, north])
        lon, lat = to_lonlat(pyproj.CRS.from_user_input(crs))(x, y)
        if not np.isfinite([lon, lat]).all():
            return f"{west:.6g} {south:.6g} {east:.6g} {north:.6g} (off the earth)"
        return f"longitude {lon.min():.3f} to {lon.max():.3f}, latitude {lat.min():.3f} to {lat.max():.3f}"

    swapped = ""
    if zones.crs.is_geographic:
        _, south, _, north = zones.total_bounds
        if abs(north) > 90 or abs(south) > 90:
            swapped = " Longitude and latitude seem to be swapped."
    return (
        f"no zone touches the map: zones ({pyproj.CRS.from_user_input(zones.crs).name}) at "
        f"{place(zones.crs, zones.total_bounds)}; map ({grid.crs.name}) at {place(grid.crs, grid.bounds)}.{swapped} "
        "Check the CRS of both, or pass allow_outside=True if the map may lie elsewhere"
    )


def check_grid(array: xr.DataArray | xr.Dataset, share: Coverage, name: str) -> None:
    """Refuse an array that is not on the grid of a coverage."""
    grid = Grid.from_xarray(array)
    if not grid.same_as(share.grid):
        raise GridMismatch(
            f"{name} is on another grid ({grid.shape} cells, {grid.crs.name}) than the coverage "
            f"({share.grid.shape} cells, {share.grid.crs.name}); make the coverage with Grid.from_xarray({name})"
        )
