"""Class fractions of pixels: exact ones from polygons to train with, and maps of them from anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geococa._checks import check_dims, check_kind
from geococa.coverage import Coverage, coverage_fraction
from geococa.errors import CRSMismatch, GridMismatch, InputRefused, KindMismatch
from geococa.grid import Grid
from geococa.legend import Legend
from geococa.mixtures import mixture_table

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["as_fraction", "fraction_table", "mixture_table"]

_WHOLE = 1e-6
"""Share of a pixel that may be missing from polygons that cover it."""
_OVERLAP = 1e-3
"""Share of a pixel that polygons of two classes may both claim."""
_CELLS_AT_ONCE = 1 << 22
"""Shares held at once, so that a large raster does not take large memory."""


def as_fraction(
    array: xr.DataArray, classes: Sequence[str] | None = None, *, colors: Mapping[str, str] | None = None
) -> xr.DataArray:
    """Turn an array of area shares into a fraction map that `geococa.zonal_area` takes.

    Parameters
    ----------
    array : xarray.DataArray
        float32 or float64 ``([time,] land_cover, y, x)``; shares of each pixel that sum to 1, NaN = not observed.
        Probabilities of a classifier are not such shares, and are refused where the array says that it holds them.
    classes : sequence of str, optional
        Names of the layers; those in the coordinate ``land_cover`` where not given.
    colors : mapping of str to str, optional
        ``#rrggbb`` by class name.

    Returns
    -------
    xarray.DataArray
        The same numbers with ``kind="fraction"`` and a legend. The input is not changed.

    Raises
    ------
    KindMismatch
        The array is of another kind, has no class names, or does not hold floats.

    Examples
    --------
    >>> shares = xr.DataArray(np.full((2, 1, 1), 0.5), dims=("land_cover", "y", "x"))
    >>> as_fraction(shares, ["coca", "other"]).attrs["kind"]
    'fraction'
    """
    check_kind(array, "fraction")
    check_dims(array, "land_cover", "y", "x", optional=("time",))
    if array.dtype not in (np.float32, np.float64):
        raise KindMismatch(f"fractions are float32 or float64, got {array.dtype}; divide percentages by 100")
    if classes is None and "land_cover" not in array.coords:
        raise KindMismatch("the layers have no names; give classes=[...] in their order")
    names = [str(name) for name in (array["land_cover"].values if classes is None else classes)]
    if len(names) != array.sizes["land_cover"]:
        raise KindMismatch(f"{array.sizes['land_cover']} layers need as many class names, got {names}")
    order = ("time", "land_cover", "y", "x") if "time" in array.dims else ("land_cover", "y", "x")
    out = array.assign_coords(land_cover=names).transpose(*order).rename("fraction")
    kept = {key: value for key, value in array.attrs.items() if key in ("grid_mapping", "model_sha256")}
    out.attrs = {**kept, "kind": "fraction", "units": "1", "long_name": "area share of the class"}
    out.attrs |= Legend.of(names, colors).to_attrs()
    return out


def fraction_table(
    polygons: GeoDataFrame,
    features: xr.DataArray,
    *,
    classes: Sequence[str] | None = None,
    within: GeoDataFrame | None = None,
    remainder: str | None = None,
    rows: int | None = None,
    seed: int = 0,
    class_column: str = "class",
    year_column: str = "year",
) -> pd.DataFrame:
    """Exact share of each class in every pixel that class polygons cover, beside the pixel's features.

    Parameters
    ----------
    polygons : geopandas.GeoDataFrame
        Polygons with a class, and perhaps a year (without one they hold for every year), in any CRS. Those of one class
        may overlap, those of two classes may not.
    features : xarray.DataArray
        float ``([time,] feature, y, x)``, NaN = not observed; NumPy or Dask (read a year at a time).
    classes : sequence of str, optional
        Classes in the order of the columns; those found, by name, where not given. Classes that no polygon has get 0.
    within : geopandas.GeoDataFrame, optional
        Ground that was looked at: only pixels wholly inside it are taken.
    remainder : str, optional
        Class of the ground that no polygon claims, for example ``"other"`` where only coca plots were drawn (then give
        ``within``, unless the whole raster was looked at). Where not given, a pixel that polygons don't cover wholly is
        left out.
    rows : int, optional
        Take a simple random sample of so many pixel-years; all of them where not given.
    seed : int
        Seed of that sample.
    class_column, year_column : str
        Columns of ``polygons``.

    Returns
    -------
    pandas.DataFrame
        ``year, row, col, x, y``, one ``fraction_<class>`` (float64, sums to 1) a class, and the features in their dtype.
        ``attrs``: ``crs``, ``pixels`` (wholly covered), ``unobserved`` (of them, without a feature and so left out).

    Raises
    ------
    InputRefused
        No class column, no pixel is wholly covered, or polygons of two classes overlap.
    CRSMismatch
        A layer has no CRS.

    Notes
    -----
    Shares are exact (`geococa.coverage_fraction`). A regression is unbiased on average over the ground that its rows are
    a fair sample of: draw polygons as whole windows placed at random and take all their pixels, or a simple random
    sample of them (``rows``), the many without coca among them. Rows picked for their coca would teach the model to find
    coca; where a design picks rows with unequal chances, add a column ``weight`` with one over the chance of each row,
    which `geococa.train` uses.

    Examples
    --------
    >>> import geopandas
    >>> grid = Grid("EPSG:32618", (10, 0, 0, 0, -10, 10), (1, 3))
    >>> red = xr.DataArray(np.float32([[[0.05, 0.04, 0.02]]]), dims=("feature", "y", "x"), coords={"feature": ["red"]})
    >>> plot = geopandas.GeoDataFrame({"class": ["coca"]}, geometry=[shapely.box(0, 0, 15, 10)], crs=grid.crs)
    >>> table = fraction_table(plot, grid.attach(red), remainder="other")
    >>> table[["col", "fraction_coca", "fraction_other"]].round(2).values.tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.5, 0.5], [2.0, 0.0, 1.0]]
    """
    check_kind(features, "features")
    check_dims(features, "feature", "y", "x", optional=("time",))
    if "feature" not in features.coords:
        raise GridMismatch("the features have no coordinate 'feature' with their names; use geococa.spectral_features")
    _check_polygons(polygons, class_column)
    grid = Grid.from_xarray(features)
    labels = polygons[class_column].astype(str)
    order = _order(labels, classes, remainder)
    names = [str(name) for name in features["feature"].values]
    allowed = None if within is None else _share_of([_union(within)], within.crs, grid)
    parts, pixels, unobserved = [], 0, 0
    for year, plane in _slices(features):
        chosen = polygons if year is None else polygons[_holds(polygons, year_column, year)]
        claims = _Claims.of(chosen, labels.loc[chosen.index], order, remainder, grid)
        for start, stop in _row_strips(grid, len(order)):
            fraction = claims.fractions(start, stop)
            whole = fraction.sum(axis=0) > 1 - _WHOLE
            if allowed is not None:
                whole &= allowed.dense(start, stop).values[0] > 1 - _WHOLE
            row, col = np.nonzero(whole)
            if not len(row):
                continue
            values = np.asarray(plane.isel(y=slice(start, stop)).transpose("feature", "y", "x").values)[:, row, col]
            seen = np.isfinite(values).all(axis=0)
            pixels, unobserved = pixels + len(row), unobserved + int((~seen).sum())
            here = fraction[:, row[seen], col[seen]]
            parts.append(_rows(year, start + row[seen], col[seen], here, values[:, seen], grid, order, names))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if table.empty:
        raise InputRefused(
            f"no observed pixel of the features is wholly covered by the {len(polygons)} polygons ({pixels} pixels are, "
            f"unobserved ones included); check their CRS ({polygons.crs}) and years, or give remainder="
        )
    if rows is not None and rows < len(table):
        picked = np.sort(np.random.default_rng([seed, 0x5A3]).choice(len(table), size=rows, replace=False))
        table = table.iloc[picked].reset_index(drop=True)
    table.attrs = {"crs": grid.crs.to_wkt(), "pixels": pixels, "unobserved": unobserved}
    return table


def _check_polygons(polygons: GeoDataFrame, class_column: str) -> None:
    if class_column not in polygons.columns:
        raise InputRefused(
            f"the polygons have no column {class_column!r}, only {', '.join(map(str, polygons.columns))}; name it with "
            "class_column="
        )
    if polygons.crs is None:
        raise CRSMismatch("the polygons have no coordinate reference system; set it with polygons.set_crs(...)")
    other = ~polygons.geometry.geom_type.isin(["Polygon", "MultiPolygon"])
    if other.any() or polygons[class_column].isna().any():
        raise InputRefused(
            f"expected polygons that each have a class; {int(other.sum())} are of other types and "
            f"{int(polygons[class_column].isna().sum())} have no class"
        )
    if not polygons.index.is_unique:
        raise InputRefused("the polygons' index holds duplicates; number them with polygons.reset_index(drop=True)")


def _order(labels: pd.Series, classes: Sequence[str] | None, remainder: str | None) -> list[str]:
    found = sorted(set(labels))
    extra = [] if remainder is None or remainder in found else [remainder]
    order = [*found, *extra] if classes is None else [str(name) for name in classes]
    missing = sorted(({*found, *extra}) - set(order))
    if missing or len(set(order)) != len(order):
        raise InputRefused(f"classes are given as {order}, the polygons have {[*found, *extra]}; name each once")
    if len(order) < 2:
        raise InputRefused(f"fractions need at least 2 classes, got {order}; name the rest with remainder=")
    return order


def _slices(features: xr.DataArray) -> Iterator[tuple[int | None, xr.DataArray]]:
    """Year and features of each time, the year None where there is no time."""
    if "time" not in features.dims:
        yield None, features
        return
    years = features["time"].dt.year.values
    if len(np.unique(years)) != len(years):
        raise GridMismatch("the features hold several dates of a year; make one image a year with geococa.composite")
    for position, year in enumerate(years):
        yield int(year), features.isel(time=position)


def _holds(polygons: GeoDataFrame, year_column: str, year: int) -> np.ndarray:
    if year_column not in polygons.columns:
        return np.ones(len(polygons), dtype=bool)
    years = pd.to_numeric(polygons[year_column])
    return np.asarray(years.isna() | (years == year), dtype=bool)


def _union(polygons: GeoDataFrame) -> Any:
    shapes = polygons.geometry.to_numpy()
    return shapely.union_all(np.where(shapely.is_valid(shapes), shapes, shapely.make_valid(shapes)))


def _share_of(shapes: list[Any], crs: Any, grid: Grid) -> Coverage:
    import geopandas

    names = [str(number) for number in range(len(shapes))]
    return coverage_fraction(
        geopandas.GeoDataFrame({"zone": names}, geometry=shapes, crs=crs), grid, allow_outside=True
    )


def _row_strips(grid: Grid, layers: int) -> Iterator[tuple[int, int]]:
    rows, columns = grid.shape
    height = max(_CELLS_AT_ONCE // (columns * layers), 1)
    for start in range(0, rows, height):
        yield start, min(start + height, rows)


@dataclass(frozen=True)
class _Claims:
    """Shares of the classes of one year that polygons claim."""

    share: Coverage | None
    found: list[int]
    order: list[str]
    remainder: str | None
    grid: Grid

    @classmethod
    def of(
        cls, polygons: GeoDataFrame, labels: pd.Series, order: list[str], remainder: str | None, grid: Grid
    ) -> _Claims:
        """Unite the polygons of each class."""
        found = [k for k, name in enumerate(order) if (labels == name).any()]
        shapes = [_union(polygons[(labels == order[k]).to_numpy()]) for k in found]
        share = _share_of(shapes, polygons.crs, grid) if found else None
        return cls(share, found, order, remainder, grid)

    def fractions(self, start: int, stop: int) -> np.ndarray:
        """Class fractions ``(classes, rows, columns)`` of some rows; less than 1 in all where polygons leave gaps."""
        out = np.zeros((len(self.order), stop - start, self.grid.shape[1]))
        if self.share is not None:
            out[self.found] = self.share.dense(start, stop).values
        total = out.sum(axis=0)
        if (total > 1 + _OVERLAP).any():
            row, col = (int(place) for place in np.unravel_index(int(total.argmax()), total.shape))
            claims = {name: round(float(out[k, row, col]), 3) for k, name in enumerate(self.order) if out[k, row, col]}
            raise InputRefused(
                f"polygons of different classes overlap: in row {start + row}, column {col} they claim {claims} of a "
                "pixel; cut one out of the other, for example with geopandas.overlay(..., how='difference')"
            )
        if self.remainder is not None:
            out[self.order.index(self.remainder)] += np.maximum(1.0 - total, 0.0)
        return out


def _rows(
    year: int | None,
    row: np.ndarray,
    col: np.ndarray,
    fraction: np.ndarray,
    values: np.ndarray,
    grid: Grid,
    order: list[str],
    names: list[str],
) -> pd.DataFrame:
    fraction = fraction / fraction.sum(axis=0)
    t = grid.transform
    columns: dict[str, Any] = {
        "year": pd.array([pd.NA if year is None else year] * len(row), dtype="Int64"),
        "row": row,
        "col": col,
        "x": t.a * (col + 0.5) + t.b * (row + 0.5) + t.c,
        "y": t.d * (col + 0.5) + t.e * (row + 0.5) + t.f,
    }
    columns |= {f"fraction_{name}": fraction[k] for k, name in enumerate(order)}
    clash = sorted(set(columns) & set(names))
    if clash:
        raise InputRefused(f"features must not be named {', '.join(clash)}, as columns of the table are; rename them")
    return pd.DataFrame(columns | {name: values[k] for k, name in enumerate(names)})
