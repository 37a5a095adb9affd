"""Pixels under reference samples: from points and polygons on a feature stack to a table of values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geococa._checks import check_dims, check_kind
from geococa.errors import CRSMismatch, GridMismatch, InputRefused
from geococa.grid import Grid

if TYPE_CHECKING:
    from affine import Affine
    from geopandas import GeoDataFrame

__all__ = ["extract_samples", "sampled_pixels"]

_CELLS_AT_ONCE = 1 << 20
"""Cell centres tested against a polygon in one call, so that a huge polygon does not take huge memory."""


def extract_samples(
    samples: GeoDataFrame,
    features: xr.DataArray,
    *,
    class_column: str = "class",
    year_column: str = "year",
    keep_partial: bool = False,
) -> pd.DataFrame:
    """Read the feature values under reference samples.

    A point takes the pixel that holds it; a polygon takes the pixels whose centre lies inside it. A sample
    with a year takes that year's slice, one without a year takes every slice.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame
        Points or polygons with a class column and perhaps a year column; any CRS; unique index.
    features : xarray.DataArray
        float ``(time, feature, y, x)`` or ``(feature, y, x)``, NaN = not observed; numpy or Dask.
    class_column, year_column : str
        Columns of ``samples`` with the class name and the year. The year column may be missing.
    keep_partial : bool
        Keep pixel-years of which some features are missing, as ``train(method="twdtw")`` takes them.

    Returns
    -------
    pandas.DataFrame
        One row a pixel and year: ``class`` (str), ``year`` (Int64, missing where neither the sample nor the
        features say), ``row``, ``col`` (int64), ``x``, ``y`` (pixel centre in the features' CRS), ``sample``
        (index of the sample), then one column a feature in the features' dtype. ``attrs`` holds ``crs`` (WKT)
        and what was left out: ``outside`` (samples beyond the grid), ``no_centre`` (polygons without any pixel
        centre), ``other_year`` (samples of years that the features lack), ``unobserved`` (pixel-years with a
        missing feature), ``conflicting`` (pixel-years that samples of two classes claim) and ``duplicates``
        (pixel-years that two samples of one class claim, kept once).

    Raises
    ------
    InputRefused
        No class column, a sample without a class, duplicate sample ids, or geometry that is neither points
        nor polygons.
    CRSMismatch
        The samples or the features have no CRS.
    GridMismatch
        The features lack a dim, or hold two dates of one year.

    Examples
    --------
    >>> import geopandas, numpy as np, shapely, xarray as xr
    >>> from geococa.grid import Grid
    >>> grid = Grid("EPSG:32618", (10, 0, 0, 0, -10, 20), (2, 2))
    >>> values = np.arange(4, dtype="float32").reshape(1, 2, 2)
    >>> stack = grid.attach(xr.DataArray(values, dims=("feature", "y", "x"), coords={"feature": ["ndvi"]}))
    >>> point = geopandas.GeoDataFrame({"class": ["coca"]}, geometry=[shapely.Point(15, 5)], crs=32618)
    >>> extract_samples(point, stack)[["class", "row", "col", "ndvi"]].values.tolist()
    [['coca', 1, 1, 3.0]]
    """
    check_kind(features, "features")
    check_dims(features, "feature", "y", "x", optional=("time",))
    if "feature" not in features.coords:
        raise GridMismatch(
            "the features have no 'feature' coordinate, so their columns would have no names; "
            "make them with geococa.spectral_features"
        )
    grid = Grid.from_xarray(features)
    classes = _classes_of(samples, class_column)
    slices = _slices_of(features)
    wanted = _wanted_slices(samples, year_column, slices)
    geometries = samples.geometry.to_crs(grid.crs).to_numpy()
    pixels = sampled_pixels(geometries, grid)
    counts = {"outside": pixels.outside, "no_centre": pixels.no_centre, "other_year": _absent(wanted)}

    rows = _pixel_years(pixels, wanted)
    rows, claims = _settle_claims(rows, classes, grid.shape)
    values = _values_at(features, rows)
    gone = np.isnan(values)
    seen = ~(gone.all(axis=1) if keep_partial else gone.any(axis=1))
    counts |= claims | {"unobserved": int((~seen).sum())}
    table = _as_table(rows[seen], values[seen], features, grid, classes, samples, year_column, slices)
    table.attrs.update({"crs": grid.crs.to_wkt()} | counts)
    return table


@dataclass(frozen=True)
class SampledPixels:
    """Pixels under sample geometries.

    Attributes
    ----------
    sample, row, col : numpy.ndarray
        int64 ``(n,)``: position of the geometry, row and column of a pixel it claims.
    outside : int
        Geometries that lie wholly beyond the grid.
    no_centre : int
        Polygons on the grid that hold no pixel centre.
    """

    sample: np.ndarray
    row: np.ndarray
    col: np.ndarray
    outside: int
    no_centre: int


def sampled_pixels(geometries: np.ndarray, grid: Grid) -> SampledPixels:
    """Find the pixels under points (the one that holds it) and polygons (those whose centre lies inside).

    Parameters
    ----------
    geometries : numpy.ndarray of shapely geometries
        Points, multipoints, polygons or multipolygons in the grid's CRS.
    grid : Grid
        Grid of the pixels.
    """
    kinds = shapely.get_type_id(geometries)
    # shapely numbers points 0, polygons 3, multipoints 4, multipolygons 6
    unusable = ~np.isin(kinds, (0, 3, 4, 6)) | shapely.is_empty(geometries)
    if unusable.any():
        first = int(np.flatnonzero(unusable)[0])
        found = "no geometry" if geometries[first] is None else geometries[first].geom_type
        raise InputRefused(
            f"samples must be points or polygons, but {int(unusable.sum())} of {len(geometries)} are not: "
            f"number {first} is {found}, perhaps empty; remove or repair them"
        )
    is_point = np.isin(kinds, (0, 4))
    parts = [_under_points(geometries, np.flatnonzero(is_point), grid)]
    no_centre = 0
    outside = int(is_point.sum()) - len(np.unique(parts[0][0]))
    for position in np.flatnonzero(~is_point):
        on_grid, row, col = _under_polygon(geometries[position], grid)
        outside += not on_grid
        no_centre += on_grid and not len(row)
        parts.append((np.full(len(row), position), row, col))
    sample, row, col = (np.concatenate(columns).astype(np.int64) for columns in zip(*parts, strict=True))
    order = np.lexsort((col, row, sample))
    return SampledPixels(sample[order], row[order], col[order], int(outside), int(no_centre))


def _under_points(
    geometries: np.ndarray, positions: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    xy, owner = shapely.get_coordinates(geometries[positions], return_index=True)
    col, row = _apply(~grid.transform, xy[:, 0], xy[:, 1])
    row, col = np.floor(row), np.floor(col)
    inside = (row >= 0) & (row < grid.shape[0]) & (col >= 0) & (col < grid.shape[1])
    return positions[owner][inside], row[inside], col[inside]


def _under_polygon(polygon: Any, grid: Grid) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether a polygon's bounding box meets the grid, and the pixels whose centre it holds."""
    left, bottom, right, top = polygon.bounds
    corner_x, corner_y = np.array([left, left, right, right]), np.array([bottom, top, bottom, top])
    col, row = _apply(~grid.transform, corner_x, corner_y)
    rows = max(int(np.floor(row.min())), 0), min(int(np.ceil(row.max())), grid.shape[0])
    cols = max(int(np.floor(col.min())), 0), min(int(np.ceil(col.max())), grid.shape[1])
    if rows[0] >= rows[1] or cols[0] >= cols[1]:
        return False, np.empty(0, np.int64), np.empty(0, np.int64)
    shapely.prepare(polygon)
    found = [_centres_inside(polygon, grid, part, cols) for part in _strips(rows, cols)]
    return True, np.concatenate([r for r, _ in found]), np.concatenate([c for _, c in found])


def _strips(rows: tuple[int, int], cols: tuple[int, int]) -> Iterator[tuple[int, int]]:
    height = max(_CELLS_AT_ONCE // (cols[1] - cols[0]), 1)
    for start in range(rows[0], rows[1], height):
        yield start, min(start + height, rows[1])


def _centres_inside(
    polygon: Any, grid: Grid, rows: tuple[int, int], cols: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    row, col = np.meshgrid(np.arange(*rows), np.arange(*cols), indexing="ij")
    x, y = _apply(grid.transform, col + 0.5, row + 0.5)
    inside = shapely.contains_xy(polygon, x, y)
    return row[inside], col[inside]


def _apply(transform: Affine, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * first + b * second + c, d * first + e * second + f


def _classes_of(samples: GeoDataFrame, class_column: str) -> np.ndarray:
    if class_column not in samples.columns:
        raise InputRefused(
            f"the samples have no column {class_column!r}, only {', '.join(map(str, samples.columns))}; "
            "name it with class_column="
        )
    if samples.crs is None:
        raise CRSMismatch("the samples have no coordinate reference system; set it with samples.set_crs(...)")
    if not samples.index.is_unique:
        raise InputRefused(
            "the samples' index holds duplicates; number the samples with samples.reset_index(drop=True)"
        )
    missing = samples[class_column].isna()
    if missing.any():
        raise InputRefused(
            f"{int(missing.sum())} of {len(samples)} samples have no {class_column}; label or remove them"
        )
    return np.asarray(samples[class_column].astype(str), dtype=object)


def _slices_of(features: xr.DataArray) -> np.ndarray:
    """Year of each time slice; one slice of year -1 where the features carry no time."""
    if "time" not in features.coords:
        return np.full(features.sizes.get("time", 1), -1, dtype=np.int64)
    years = np.atleast_1d(features["time"].dt.year.values).astype(np.int64)
    repeated = sorted({int(year) for year in years if (years == year).sum() > 1})
    if repeated:
        raise GridMismatch(
            f"the features hold several dates of {repeated}; make one image a year with geococa.composite, "
            "or select one date"
        )
    return years


def _wanted_slices(samples: GeoDataFrame, year_column: str, slices: np.ndarray) -> list[np.ndarray]:
    """Time slices that each sample takes."""
    every = np.arange(len(slices))
    if year_column not in samples.columns:
        return [every] * len(samples)
    years = pd.to_numeric(samples[year_column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    timeless = bool((slices == -1).all())
    return [every if timeless or np.isnan(year) else np.flatnonzero(slices == year) for year in years]


def _absent(wanted: list[np.ndarray]) -> int:
    return sum(len(choice) == 0 for choice in wanted)


def _pixel_years(pixels: SampledPixels, wanted: list[np.ndarray]) -> np.ndarray:
    """Combine pixels with the time slices of their samples: int64 ``(n, 4)`` of sample, slice, row, col."""
    repeats = np.array([len(choice) for choice in wanted], dtype=np.int64)
    per_pixel = repeats[pixels.sample] if len(wanted) else np.empty(0, np.int64)
    index = np.repeat(np.arange(len(pixels.sample)), per_pixel)
    within = np.arange(len(index)) - np.repeat(np.cumsum(per_pixel) - per_pixel, per_pixel)
    starts = np.cumsum(repeats) - repeats
    flat = np.concatenate(wanted) if wanted else np.empty(0, np.int64)
    sample = pixels.sample[index]
    time = flat[starts[sample] + within] if len(index) else np.empty(0, np.int64)
    rows = np.column_stack([sample, time, pixels.row[index], pixels.col[index]]).astype(np.int64)
    return rows[np.lexsort((rows[:, 3], rows[:, 2], rows[:, 1], rows[:, 0]))]


def _settle_claims(rows: np.ndarray, classes: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, dict[str, int]]:
    """Keep a pixel-year once where its samples agree on the class, and drop it where they do not."""
    key = (rows[:, 1] * shape[0] + rows[:, 2]) * shape[1] + rows[:, 3]
    _, first, pixel = np.unique(key, return_index=True, return_inverse=True)
    _, code = np.unique(classes.astype(str), return_inverse=True)
    label = code[rows[:, 0]] if len(rows) else np.empty(0, np.int64)
    disputed = np.zeros(len(first), dtype=bool)
    disputed[pixel[label != label[first][pixel]]] = True
    keep = np.zeros(len(rows), dtype=bool)
    keep[first] = True
    keep &= ~disputed[pixel]
    duplicates = int((~disputed[pixel]).sum() - keep.sum())
    return rows[keep], {"conflicting": int(disputed.sum()), "duplicates": duplicates}


def _values_at(features: xr.DataArray, rows: np.ndarray) -> np.ndarray:
    """Feature values ``(n, feature)`` at (slice, row, col)."""
    stack = features if "time" in features.dims else features.expand_dims("time")
    data = stack.transpose("time", "feature", "y", "x").data
    if not len(rows):
        return np.empty((0, data.shape[1]), dtype=features.dtype)
    time, row, col = rows[:, 1], rows[:, 2], rows[:, 3]
    if hasattr(data, "vindex"):
        return np.asarray(data.vindex[time, :, row, col].compute())
    return np.asarray(data[time, :, row, col])


def _as_table(
    rows: np.ndarray,
    values: np.ndarray,
    features: xr.DataArray,
    grid: Grid,
    classes: np.ndarray,
    samples: GeoDataFrame,
    year_column: str,
    slices: np.ndarray,
) -> pd.DataFrame:
    sample, time, row, col = rows.T
    x, y = _apply(grid.transform, col + 0.5, row + 0.5)
    years = pd.array(slices[time], dtype="Int64")
    if (slices == -1).all():
        known = (
            pd.to_numeric(samples[year_column]) if year_column in samples.columns else pd.Series(pd.NA, samples.index)
        )
        years = known.iloc[sample].astype("Int64").array
    names = [str(name) for name in features["feature"].values]
    columns = {
        "class": pd.Series(classes[sample], dtype="str"),
        "year": years,
        "row": row,
        "col": col,
        "x": x,
        "y": y,
        "sample": samples.index.to_numpy()[sample],
    }
    clash = sorted(set(columns) & set(names))
    if clash:
        raise InputRefused(
            f"features must not be named {', '.join(clash)}, as columns of the sample table are; rename them"
        )
    return pd.concat([pd.DataFrame(columns), pd.DataFrame(values, columns=names)], axis=1)
