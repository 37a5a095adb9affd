"""Map furniture of the figures: axes in the map's own CRS, scale bar, north arrow, outlines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import xarray as xr

from geococa._checks import optional_import
from geococa.errors import CRSMismatch, InputRefused
from geococa.grid import Grid

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["add_north_arrow", "add_scale_bar", "add_zones", "map_axes", "pooled_image"]

_MOST = 1600


def map_axes(array: xr.DataArray, width_in: float) -> tuple[Any, Any, Grid]:
    """Figure and axes in the proportions of a map, with its grid."""
    grid = Grid.from_xarray(array)
    if not grid.rectilinear:
        raise InputRefused(
            "a figure needs a map whose rows and columns run along its axes; reproject the rotated grid first"
        )
    left, bottom, right, top = grid.bounds
    ratio = min(max((top - bottom) / (right - left), 0.35), 1.6)
    figure_module = optional_import("matplotlib.figure", "report")
    figure = figure_module.Figure(figsize=(width_in, 0.5 + 0.74 * width_in * ratio), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.07)
    axes = figure.add_subplot()
    units = "°" if grid.crs.is_geographic else "km"
    names = ("longitude", "latitude") if grid.crs.is_geographic else ("easting", "northing")
    axes.set_xlabel(f"{names[0]} ({units})")
    axes.set_ylabel(f"{names[1]} ({units})")
    axes.tick_params(labelsize=7.5)
    if not grid.crs.is_geographic:
        ticker = optional_import("matplotlib.ticker", "report")
        metres = grid.crs.axis_info[0].unit_conversion_factor or 1.0
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.MaxNLocator(5))
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value * metres / 1000:,.6g}"))
    return figure, axes, grid


def pooled_image(
    codes: np.ndarray, grid: Grid, *, keep: int | Sequence[int]
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Thin a big map to what a figure can show; cells of the classes to keep are never lost (later ones win)."""
    left, bottom, right, top = grid.bounds
    step = max(1, math.ceil(max(codes.shape) / _MOST))
    if grid.transform.e > 0:
        codes = codes[::-1]
    if grid.transform.a < 0:
        codes = codes[:, ::-1]
    rows, columns = (math.ceil(n / step) for n in codes.shape)
    # the extent is that of whole steps, so that thinning does not move the map
    right, bottom = left + columns * step * abs(grid.transform.a), top - rows * step * abs(grid.transform.e)
    extent = (left, right, bottom, top)
    if step == 1:
        return codes, extent
    out = codes[::step, ::step].copy()
    for code in [keep] if isinstance(keep, int) else keep:
        r, c = np.nonzero(codes == code)
        out[r // step, c // step] = code
    return out, extent


def add_zones(axes: Any, grid: Grid, zones: GeoDataFrame, safe: Callable[[str], str]) -> None:
    """Outlines and names of zones, in the CRS of the map."""
    import shapely

    effects = optional_import("matplotlib.patheffects", "report")
    if zones.crs is None:
        raise CRSMismatch("zones have no coordinate reference system; set one with zones.set_crs(...)")
    here = zones.to_crs(grid.crs)
    halo = [effects.withStroke(linewidth=2.2, foreground="white")]
    window = shapely.box(*grid.bounds)
    limits = axes.axis()
    for position, shape in enumerate(here.geometry):
        if shape is None or shape.is_empty:
            continue
        for ring in _rings(shape):
            axes.plot(*np.asarray(ring.coords)[:, :2].T, color="#101010", linewidth=0.9, path_effects=halo)
        seen = shape.intersection(window)
        if "zone" in here.columns and not seen.is_empty:
            point = seen.representative_point()
            axes.text(
                point.x,
                point.y,
                safe(str(here["zone"].iloc[position])),
                fontsize=7,
                ha="center",
                va="center",
                path_effects=halo,
                clip_on=True,
            )
    axes.axis(limits)


def add_scale_bar(axes: Any, grid: Grid) -> None:
    """Bar of a round length on the ground, measured on the ellipsoid at the middle of the map."""
    patches = optional_import("matplotlib.patches", "report")
    left, bottom, right, top = grid.bounds
    middle = (bottom + top) / 2
    metres_per_unit = _ground_metres(grid, left, middle, right, middle) / (right - left)
    wanted = 0.28 * (right - left) * metres_per_unit
    power = 10.0 ** math.floor(math.log10(wanted))
    length = max(m * power for m in (1, 2, 5) if m * power <= wanted)
    width = length / metres_per_unit
    pad, height = 0.03 * (right - left), 0.012 * (right - left)
    x, y = left + pad, bottom + pad
    axes.add_patch(
        patches.Rectangle(
            (x - pad / 2, y - pad / 2),
            width + pad,
            height + 2.2 * pad,
            facecolor="white",
            alpha=0.85,
            edgecolor="none",
            zorder=5,
        )
    )
    for i, color in enumerate(("#17211d", "white")):
        axes.add_patch(
            patches.Rectangle(
                (x + i * width / 2, y), width / 2, height, facecolor=color, edgecolor="#17211d", linewidth=0.6, zorder=6
            )
        )
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.text(x + width / 2, y + height + 0.25 * pad, label, ha="center", va="bottom", fontsize=8, zorder=6)


def add_north_arrow(axes: Any, grid: Grid) -> None:
    """Arrow to true north, which is not straight up away from the central meridian."""
    left, bottom, right, top = grid.bounds
    x, y = (left + right) / 2, (bottom + top) / 2
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    back = pyproj.Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True)
    longitude, latitude = to_degrees.transform(x, y)
    north_x, north_y = back.transform(longitude, min(latitude + 1e-3, 90.0))
    length = math.hypot(north_x - x, north_y - y)
    dx, dy = (north_x - x) / length, (north_y - y) / length
    size = 0.09 * min(right - left, top - bottom)
    foot_x, foot_y = right - 0.07 * (right - left), top - 0.05 * (right - left) - size
    axes.annotate(
        "",
        xy=(foot_x + dx * size, foot_y + dy * size),
        xytext=(foot_x, foot_y),
        zorder=6,
        arrowprops={"arrowstyle": "-|>,head_width=0.35,head_length=0.6", "color": "#17211d", "linewidth": 1.6},
    )
    axes.text(
        foot_x - dx * 0.02 * size,
        foot_y - dy * 0.02 * size,
        "N",
        ha="center",
        va="top",
        fontsize=9,
        fontweight="bold",
        zorder=6,
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.2},
    )


def _ground_metres(grid: Grid, x0: float, y0: float, x1: float, y1: float) -> float:
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    (lon0, lat0), (lon1, lat1) = to_degrees.transform(x0, y0), to_degrees.transform(x1, y1)
    return float(pyproj.Geod(ellps="WGS84").inv(lon0, lat0, lon1, lat1)[2])


def _rings(shape: Any) -> list[Any]:
    if shape.geom_type == "Polygon":
        return [shape.exterior, *shape.interiors]
    return [ring for part in getattr(shape, "geoms", []) for ring in _rings(part)]
