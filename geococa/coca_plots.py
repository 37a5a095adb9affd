"""Coca plots: the patches of a class as polygons, each with hectares, shape and park."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyproj
import shapely
import xarray as xr

from geococa._checks import check_dims, check_kind, check_same_grid
from geococa.errors import GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.legend import Legend
from geococa.plot_tracks import follow_plots
from geococa.segments import CellWeights, Segments

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["follow_plots", "merge_plots", "trace_plots"]

_GEOD = pyproj.Geod(ellps="WGS84")


def trace_plots(
    land_cover: xr.DataArray,
    *,
    class_name: str = "coca",
    probability: xr.DataArray | None = None,
    zones: GeoDataFrame | None = None,
    connectivity: Literal[4, 8] = 8,
    min_area_ha: float = 0.0,
) -> GeoDataFrame:
    """Outline the patches of a class in every year.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` or ``(time, y, x)`` with CF flags and CRS; 255 = not observed. Held in memory a year at a time.
    class_name : str
        Class whose patches are outlined.
    probability : xarray.DataArray, optional
        Class probabilities on the same grid and times, for ``mean_probability``.
    zones : geopandas.GeoDataFrame, optional
        Parks or other zones (column ``zone``), reprojected where need be, for ``zone`` and ``distance_to_edge_m``.
    connectivity : {8, 4}
        Whether cells that share only a corner belong to one plot.
    min_area_ha : float
        Smaller patches are left out. With 0 the plots add up to the class's hectares of the map.

    Returns
    -------
    geopandas.GeoDataFrame
        One row per plot and year, in order of year and then of first cell from the top left: ``plot_id`` (1, 2, ... in that
        order), ``year`` (-1 for a map without time), ``area_ha`` (on the ellipsoid, sum of the cells), ``perimeter_m``
        (geodesic), ``compactness`` (``4 pi area / perimeter**2``, 1 for a circle), ``mean_probability`` (NaN where not given), ``zone``
        (the one that holds most of the plot; missing outside all), ``distance_to_edge_m`` (to the edge of that zone, positive inside;
        negative, to the nearest zone, outside) and ``geometry`` in the CRS of the map. ``attrs["years"]`` lists the mapped years.

    Raises
    ------
    InputRefused
        The legend has no such class.
    GridMismatch
        The probabilities are on another grid or lack a year.

    Examples
    --------
    >>> import numpy as np, xarray as xr, geococa
    >>> codes = np.full((10, 10), 2, dtype="uint8")
    >>> codes[2:5, 3:8] = 1
    >>> grid = geococa.Grid("EPSG:32618", (10, 0, 500000, 0, -10, 200000), (10, 10))
    >>> land_cover = grid.attach(geococa.as_land_cover(xr.DataArray(codes, dims=("y", "x")), ["coca", "forest"]))
    >>> plots = trace_plots(land_cover)
    >>> plots.area_ha.round(3).tolist(), plots.geometry.area.tolist()
    ([0.15], [1500.0])
    """
    import geopandas

    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "y", "x", optional=("time",))
    grid = Grid.from_xarray(land_cover)
    code = Legend.from_attrs(land_cover.attrs).code(class_name)
    planes = land_cover.expand_dims("time") if "time" not in land_cover.dims else land_cover.transpose("time", "y", "x")
    years = years_of(land_cover)
    likely = None if probability is None else _class_probability(probability, land_cover, class_name)
    weights = CellWeights(grid)
    tables = []
    for i, year in enumerate(years):
        values = None if likely is None else np.asarray(likely.isel(time=i).data)
        table = _outline(np.asarray(planes.isel(time=i).data), code, grid, weights, connectivity, values, min_area_ha)
        table.insert(0, "year", year)
        tables.append(table)
    plots = geopandas.GeoDataFrame(pd.concat(tables, ignore_index=True), geometry="geometry", crs=grid.crs)
    return _finish(plots, zones, years)


def merge_plots(parts: Sequence[GeoDataFrame], *, zones: GeoDataFrame | None = None) -> GeoDataFrame:
    """Join the plots of tiles that lie side by side: pieces of a year that touch across a tile's edge become one plot.

    Parameters
    ----------
    parts : sequence of geopandas.GeoDataFrame
        From `trace_plots` on tiles of one grid that do not overlap, 8-connected, in one CRS.
    zones : geopandas.GeoDataFrame, optional
        As in `trace_plots`.

    Returns
    -------
    geopandas.GeoDataFrame
        What `trace_plots` gives for the whole map: hectares, order and ids do not depend on the tiles.

    Raises
    ------
    InputRefused
        Nothing was given.
    GridMismatch
        The parts are in different CRSs.
    """
    import geopandas

    if not parts:
        raise InputRefused("there are no plots to merge; give at least one result of geococa.trace_plots")
    if any(part.crs != parts[0].crs for part in parts):
        raise GridMismatch(
            f"the plots are in different CRSs ({sorted({str(p.crs)[:40] for p in parts})}); merge each CRS by itself"
        )
    both = pd.concat(
        [part.drop(columns=["plot_id", "zone", "distance_to_edge_m"]) for part in parts], ignore_index=True
    )
    rows = [
        _joined(year_plots.iloc[members])
        for _, year_plots in both.groupby("year", sort=True)
        for members in _touching(year_plots.geometry.to_numpy())
    ]
    merged = geopandas.GeoDataFrame(pd.DataFrame(rows, columns=both.columns), geometry="geometry", crs=parts[0].crs)
    years = sorted({int(year) for part in parts for year in part.attrs.get("years", part["year"].unique())})
    return _finish(merged, zones, years)


def _finish(plots: GeoDataFrame, zones: GeoDataFrame | None, years: list[int]) -> GeoDataFrame:
    """Order the plots, number them and add shape and zone."""
    corner = _first_cells(plots.geometry.to_numpy())
    order = np.lexsort((corner[:, 0], -corner[:, 1], plots["year"].to_numpy()))
    plots = plots.iloc[order].reset_index(drop=True)
    perimeter = _perimeters_m(plots)
    plots["perimeter_m"] = perimeter
    with np.errstate(divide="ignore", invalid="ignore"):
        plots["compactness"] = 4 * np.pi * plots["area_ha"].to_numpy() * 1e4 / perimeter**2
    zone, distance = _zone_of(plots, zones)
    plots["zone"], plots["distance_to_edge_m"] = pd.array(zone, dtype="string"), distance
    plots.insert(0, "plot_id", np.arange(1, len(plots) + 1, dtype=np.int64))
    columns = [
        "plot_id",
        "year",
        "area_ha",
        "perimeter_m",
        "compactness",
        "mean_probability",
        "zone",
        "distance_to_edge_m",
    ]
    plots = plots[[*columns, "geometry"]]
    plots.attrs["years"] = [int(year) for year in years]
    return plots


def years_of(land_cover: xr.DataArray) -> list[int]:
    """Years of the times of a map; -1 for a map without time."""
    if "time" not in land_cover.dims or "time" not in land_cover.coords:
        return [-1] if "time" not in land_cover.dims else list(range(land_cover.sizes["time"]))
    times = land_cover["time"]
    values = times.dt.year.values if np.issubdtype(times.dtype, np.datetime64) else times.values
    return [int(value) for value in values]


def _class_probability(probability: xr.DataArray, land_cover: xr.DataArray, class_name: str) -> xr.DataArray:
    check_kind(probability, "probability")
    check_same_grid(probability, land_cover, names=("the probabilities", "the map"))
    if class_name not in [str(name) for name in probability["land_cover"].values]:
        raise InputRefused(f"the probabilities have no class {class_name!r}")
    likely = probability.sel(land_cover=class_name)
    likely = likely.expand_dims("time") if "time" not in likely.dims else likely.transpose("time", "y", "x")
    if years_of(likely) != years_of(land_cover) and "time" in land_cover.dims:
        raise GridMismatch(f"the probabilities are of the years {years_of(likely)}, the map of {years_of(land_cover)}")
    return likely


def _outline(
    codes: np.ndarray,
    code: int,
    grid: Grid,
    weights: CellWeights,
    connectivity: int,
    likely: np.ndarray | None,
    min_area_ha: float,
) -> pd.DataFrame:
    """Polygons of the patches of one code, with hectares and mean probability."""
    mask = np.where(codes == code, np.uint8(1), np.uint8(0))
    segments = Segments(lambda a, b: mask[a:b], mask.shape, weights, connectivity=connectivity)
    wanted = np.flatnonzero((segments.codes == 1) & (segments.sizes >= weights.least(min_area_ha)))
    boxes, owners = _run_boxes(segments, np.isin(np.arange(segments.sizes.size), wanted))
    order = np.argsort(owners, kind="stable")
    splits = np.searchsorted(owners[order], wanted[1:])
    groups = np.split(boxes[order], splits) if wanted.size else []
    shapes = np.array([shapely.union_all(group) for group in groups], dtype=object)
    transform = grid.transform

    def to_map(xy: np.ndarray) -> np.ndarray:
        return np.column_stack(
            [
                transform.a * xy[:, 0] + transform.b * xy[:, 1] + transform.c,
                transform.d * xy[:, 0] + transform.e * xy[:, 1] + transform.f,
            ]
        )

    mean = np.full(wanted.size, np.nan)
    if likely is not None and wanted.size:
        number = np.concatenate(
            [strip.paint(np.arange(segments.sizes.size, dtype=np.int32)) for strip in segments.strips()]
        )
        seen = (mask == 1) & ~np.isnan(likely)
        total = np.bincount(number[seen], weights=likely[seen].astype(np.float64), minlength=segments.sizes.size)
        count = np.bincount(number[seen], minlength=segments.sizes.size)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (total / count)[wanted]
    return pd.DataFrame(
        {
            "area_ha": segments.sizes[wanted] / weights.per_ha,
            "mean_probability": mean,
            "geometry": _corners_only(shapely.transform(shapes, to_map)) if wanted.size else shapes,
        }
    )


def _corners_only(shapes: Any) -> Any:
    """Drop points within straight edges, so that a shape does not depend on the pieces that it was joined from."""
    # normalised rings start at an extreme point, which is a true corner, so the start may stay
    return shapely.normalize(shapely.simplify(shapely.normalize(shapes), 0.0))


def _run_boxes(segments: Segments, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the runs of the wanted components in cells of the grid, and the component of each."""
    parts, owners = [], []
    for strip in segments.strips():
        rows = np.repeat(np.arange(strip.start, strip.stop), np.diff(strip.row_runs))
        ends = np.empty_like(strip.starts)
        ends[:-1] = strip.starts[1:]
        ends[strip.row_runs[1:] - 1] = strip.columns
        keep = wanted[strip.component]
        parts.append(shapely.box(strip.starts[keep], rows[keep], ends[keep], rows[keep] + 1))
        owners.append(strip.component[keep])
    if not parts:
        return np.empty(0, dtype=object), np.empty(0, dtype=np.int32)
    return np.concatenate(parts), np.concatenate(owners)


def _first_cells(shapes: np.ndarray) -> np.ndarray:
    """Leftmost point of the top edge of each shape, (plots, 2): it does not depend on how a map was cut."""
    if not len(shapes):
        return np.empty((0, 2))
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    order = np.lexsort((points[:, 0], -points[:, 1], owner))
    first = np.unique(owner[order], return_index=True)[1]
    return points[order][first]


def _perimeters_m(plots: GeoDataFrame) -> np.ndarray:
    """Geodesic length of all rings of each plot."""
    if not len(plots):
        return np.empty(0)
    to_degrees = pyproj.Transformer.from_crs(plots.crs, "EPSG:4326", always_xy=True)
    # boundary() gives the rings of a plot one after the other: a step from ring to ring is not an edge
    lines, index = shapely.get_parts(shapely.boundary(plots.geometry.to_numpy()), return_index=True)
    points, line = shapely.get_coordinates(lines, return_index=True)
    longitude, latitude = to_degrees.transform(points[:, 0], points[:, 1])
    edge = line[1:] == line[:-1]
    _, _, length = _GEOD.inv(longitude[:-1][edge], latitude[:-1][edge], longitude[1:][edge], latitude[1:][edge])
    owner = index[line[1:][edge]]
    return np.asarray(np.bincount(owner, weights=length, minlength=len(plots)))


def _zone_of(plots: GeoDataFrame, zones: GeoDataFrame | None) -> tuple[list[str | None], np.ndarray]:
    """Zone that holds most of each plot, and the signed distance to its edge in metres."""
    names: list[str | None] = [None] * len(plots)
    distance = np.full(len(plots), np.nan)
    if zones is None or not len(zones) or not len(plots):
        return names, distance
    metric = plots.crs if plots.crs.is_projected else plots.estimate_utm_crs()
    shapes = plots.geometry.to_crs(metric).to_numpy()
    areas = zones.to_crs(metric).geometry.to_numpy()
    edges = shapely.boundary(areas)
    tree = shapely.STRtree(areas)
    plot, zone = tree.query(shapes, predicate="intersects")
    share = shapely.area(shapely.intersection(shapes[plot], areas[zone]))
    best: dict[int, tuple[float, int]] = {}
    for p, z, held in sorted(zip(plot.tolist(), zone.tolist(), share.tolist(), strict=True)):
        if held > best.get(p, (0.0, -1))[0]:
            best[p] = (held, z)
    labels = [str(name) for name in zones["zone"]]
    for p, (_, z) in best.items():
        names[p] = labels[z]
        distance[p] = shapely.distance(shapes[p], edges[z])
    outside = np.array([p for p in range(len(plots)) if p not in best], dtype=np.int64)
    if outside.size:
        nearest = tree.nearest(shapes[outside])
        distance[outside] = -shapely.distance(shapes[outside], areas[nearest])
    return names, distance


def _touching(shapes: np.ndarray) -> list[list[int]]:
    """Groups of shapes that touch one another."""
    parent = list(range(len(shapes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in shapely.STRtree(shapes).query(shapes, predicate="intersects").T.tolist():
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for i in range(len(shapes)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def _joined(pieces: pd.DataFrame) -> dict[str, Any]:
    """Join the pieces of one plot: hectares add up, probabilities are weighted by them."""
    area = pieces["area_ha"].to_numpy()
    return {
        **{str(name): value for name, value in pieces.iloc[0].items()},
        "area_ha": float(np.sort(area).sum()),
        "mean_probability": float((pieces["mean_probability"] * area).sum(skipna=False) / area.sum()),
        "geometry": _corners_only(shapely.union_all(pieces.geometry.to_numpy())),
    }
