"""Hectares per square kilometre on a coarse grid, enclaves of high density, and how concentrated a class is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine

from geococa._checks import check_dims, check_kind, positive
from geococa.errors import GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA, Legend
from geococa.segments import CellWeights, Segments

__all__ = ["concentration", "density_grid", "enclaves"]


def density_grid(land_cover: xr.DataArray, *, class_name: str = "coca", cell_m: float = 1000.0) -> xr.Dataset:
    """Hectares of a class on a coarse grid whose lines are whole multiples of the cell size in the CRS of the map.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` or ``(time, y, x)`` with CF flags and CRS, north up; 255 = not observed. Read a time at a time.
    class_name : str
        The class.
    cell_m : float
        Side of a coarse cell in the units of the CRS (metres for a projected one).

    Returns
    -------
    xarray.Dataset
        ``area_ha``, ``observed_ha`` and ``density_ha_km2`` (hectares per observed km², NaN where nothing was observed),
        dims ``(time, y, x)`` or ``(y, x)``, on their own grid. A fine cell cut by a coarse line counts on both sides by its exact
        share, so the hectares add up to those of the map.

    Raises
    ------
    InputRefused
        The CRS is geographic, or a coarse cell is smaller than a cell of the map.
    GridMismatch
        The map is rotated.

    Examples
    --------
    >>> import geococa
    >>> grid = geococa.Grid("EPSG:32618", (100, 0, 500000, 0, -100, 300000), (20, 20))
    >>> codes = np.full((20, 20), 2, dtype="uint8")
    >>> codes[:5, :5] = 1
    >>> land_cover = geococa.as_land_cover(grid.attach(xr.DataArray(codes, dims=("y", "x"))), ["coca", "forest"])
    >>> density_grid(land_cover).area_ha.values.round(2).tolist()
    [[25.02, 0.0], [0.0, 0.0]]
    """
    from scipy import sparse

    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "y", "x", optional=("time",))
    grid, code = Grid.from_xarray(land_cover), Legend.from_attrs(land_cover.attrs).code(class_name)
    if grid.crs.is_geographic:
        raise InputRefused(
            "a kilometre grid needs a map in a projected CRS, got degrees; make the map in UTM, "
            "or give zones of your own to geococa.zonal_area"
        )
    if not grid.rectilinear:
        raise GridMismatch("a density grid needs a map whose rows and columns run along the axes of its CRS")
    positive(cell_m, "cell_m")
    a, e = grid.transform.a, grid.transform.e
    if cell_m < max(abs(a), abs(e)):
        raise InputRefused(
            f"cell_m must be at least the cell size of the map ({max(abs(a), abs(e)):g}), got {cell_m:g}"
        )
    left, bottom, right, top = grid.bounds
    x_edges = np.arange(np.floor(left / cell_m + 1e-9), np.ceil(right / cell_m - 1e-9) + 1) * cell_m
    y_edges = np.arange(np.ceil(top / cell_m - 1e-9), np.floor(bottom / cell_m + 1e-9) - 1, -1) * cell_m
    across = sparse.csr_array(_overlap(grid.transform.c + a * np.arange(grid.shape[1] + 1), x_edges))
    down = sparse.csr_array(_overlap(grid.transform.f + e * np.arange(grid.shape[0] + 1), y_edges))
    coarse = Grid(grid.crs, Affine(cell_m, 0, x_edges[0], 0, -cell_m, y_edges[0]), (y_edges.size - 1, x_edges.size - 1))
    area = np.broadcast_to(grid.cell_area_ha(), grid.shape)
    planes = land_cover.expand_dims("time") if "time" not in land_cover.dims else land_cover.transpose("time", "y", "x")
    found = np.empty((2, planes.sizes["time"], *coarse.shape))
    for t in range(planes.sizes["time"]):
        codes = np.asarray(planes.isel(time=t).data)
        for target, mask in zip(found[:, t], (codes == code, codes != NO_DATA), strict=True):
            target[:] = (across @ (down @ (area * mask)).T).T
    dims = ("time", "y", "x")
    times = {"time": planes["time"].values} if "time" in planes.coords else {}
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.where(found[1] > 0, found[0] / found[1] * 100.0, np.nan)
    out = xr.Dataset(coords=times)
    for name, values, unit in (
        ("area_ha", found[0], "ha"),
        ("observed_ha", found[1], "ha"),
        ("density_ha_km2", density, "ha km-2"),
    ):
        out[name] = coarse.attach(xr.DataArray(values, dims=dims, coords=times, attrs={"units": unit}))
    out.attrs = {"kind": "density", "class": class_name, "cell_m": float(cell_m)}
    return out if "time" in land_cover.dims else out.isel(time=0, drop=True)


def concentration(density: xr.Dataset, *, points: int = 101) -> pd.DataFrame:
    """Lorenz curve of a class over the ground: which share of the hectares lies on which share of the territory.

    Parameters
    ----------
    density : xarray.Dataset
        From `density_grid`.
    points : int
        Points of the curve for each time.

    Returns
    -------
    pandas.DataFrame
        ``year`` (with time only), ``territory_share`` (densest ground first, of the observed ground), ``area_share`` and ``gini``
        (0 = spread evenly, 1 = in one place), the same on all rows of a time. NaN where there is none of the class.

    References
    ----------
    Lorenz, M. O. (1905). Methods of measuring the concentration of wealth. Publications of the American Statistical
    Association 9(70), 209-219.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=(2023, 2024), unobserved=0.0)
    >>> density = coca.density_grid(land_cover)
    >>> coca.concentration(density, points=3).columns.tolist()
    ['year', 'territory_share', 'area_share', 'gini']
    """
    timed = "time" in density.dims
    parts = []
    for t in range(density.sizes["time"] if timed else 1):
        one = density.isel(time=t) if timed else density
        area, ground = one["area_ha"].values.ravel(), one["observed_ha"].values.ravel()
        keep = ground > 0
        area, ground = area[keep], ground[keep]
        order = np.argsort(-area / ground, kind="stable")
        x = np.concatenate([[0.0], np.cumsum(ground[order])]) / max(ground.sum(), 1e-300)
        y = np.concatenate([[0.0], np.cumsum(area[order])])
        y = y / y[-1] if y[-1] > 0 else np.full_like(y, np.nan)
        grid = np.linspace(0.0, 1.0, points)
        table = pd.DataFrame(
            {
                "territory_share": grid,
                "area_share": np.interp(grid, x, y),
                "gini": float(((y[1:] + y[:-1]) * np.diff(x)).sum()) - 1,
            }
        )
        if timed:
            table.insert(0, "year", int(one["time"].dt.year) if np.issubdtype(one["time"].dtype, np.datetime64) else t)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def enclaves(density: xr.Dataset, *, min_density_ha_km2: float = 4.0, min_cells: int = 1) -> pd.DataFrame:
    """List the groups of neighbouring cells with a high density.

    Parameters
    ----------
    density : xarray.Dataset
        From `density_grid`.
    min_density_ha_km2 : float
        Density from which on a cell belongs to an enclave; cells that share a corner are neighbours.
    min_cells : int
        Smaller groups are left out.

    Returns
    -------
    pandas.DataFrame
        One row per time and enclave, largest first: ``year`` (with time only), ``enclave`` (1, 2, ...), ``cells``, ``area_ha``,
        ``share`` (of all hectares of the class), ``x`` and ``y`` (centre weighted by hectares, CRS of the map).

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=(2023, 2024), unobserved=0.0)
    >>> density = coca.density_grid(land_cover)
    >>> coca.enclaves(density, min_density_ha_km2=1.0)["year"].tolist()
    [2023, 2024]
    """
    positive(min_density_ha_km2, "min_density_ha_km2")
    timed = "time" in density.dims
    rows = []
    for t in range(density.sizes["time"] if timed else 1):
        one = density.isel(time=t) if timed else density
        area = one["area_ha"].values
        high = np.nan_to_num(one["density_ha_km2"].values, nan=0.0) >= min_density_ha_km2
        number, count = _groups(high)
        x, y = np.meshgrid(one["x"].values, one["y"].values)
        year = (
            {"year": int(one["time"].dt.year) if np.issubdtype(one["time"].dtype, np.datetime64) else t}
            if timed
            else {}
        )
        found = []
        for group in range(count):
            inside = (number == group) & high
            if not inside.any() or inside.sum() < min_cells:
                continue
            held = float(area[inside].sum())
            found.append(
                {
                    "cells": int(inside.sum()),
                    "area_ha": held,
                    "share": held / float(area.sum()),
                    "x": float((x * area)[inside].sum() / held),
                    "y": float((y * area)[inside].sum() / held),
                }
            )
        found.sort(key=lambda row: (-row["area_ha"], row["x"], row["y"]))
        rows += [{**year, "enclave": i, **row} for i, row in enumerate(found, start=1)]
    columns = [*(["year"] if timed else []), "enclave", "cells", "area_ha", "share", "x", "y"]
    return pd.DataFrame(rows, columns=columns)


def _groups(high: np.ndarray) -> tuple[np.ndarray, int]:
    mask = high.astype(np.uint8)
    segments = Segments(lambda a, b: mask[a:b], mask.shape, CellWeights(), connectivity=8)
    paint = np.arange(segments.sizes.size, dtype=np.int32)
    return np.concatenate([strip.paint(paint) for strip in segments.strips()]), int(segments.sizes.size)


def _overlap(edges: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Share of each fine interval inside each coarse one, (coarse, fine)."""
    low, high = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
    first, last = np.minimum(coarse[:-1], coarse[1:]), np.maximum(coarse[:-1], coarse[1:])
    shared = np.minimum(high[None, :], last[:, None]) - np.maximum(low[None, :], first[:, None])
    return np.clip(shared / (high - low)[None, :], 0.0, 1.0)
