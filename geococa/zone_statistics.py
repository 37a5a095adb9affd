"""Statistics of continuous and categorical rasters in zones, each cell weighted by its share inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from geococa._checks import check_type
from geococa.centre_cells import centre_cells
from geococa.coverage import Coverage, check_grid
from geococa.errors import GridMismatch, InputRefused

__all__ = ["zonal_statistics"]

Float = npt.NDArray[np.float64]
Statistic = Callable[[Float, Float], float]
"""Of the values of a zone's cells, and their weights."""


def _quantile(level: float) -> Statistic:
    """Weighted quantile of values in ascending order; of whole cells that of ``numpy.quantile`` (Hyndman and Fan's type 7)."""

    def run(values: Float, weights: Float) -> float:
        steps = values.size - 1
        place = np.arange(values.size) * weights + steps * (np.cumsum(weights) - weights)
        return float(np.interp(level * steps * weights.sum(), place, values))

    return run


def _variance(values: Float, weights: Float) -> float:
    total = weights.sum()
    mean = float((weights * values).sum() / total)
    return float((weights * (values - mean) ** 2).sum() / total)


def _most(values: Float, weights: Float, *, sign: int) -> float:
    levels, place = np.unique(values, return_inverse=True)
    per_level = np.bincount(place, weights=weights)
    # weights are sums of shares: a tie must not be broken by their rounding
    best = sign * per_level >= np.max(sign * per_level) - _TIE * weights.sum()
    return float(levels[int(np.argmax(best))])


def _mean(values: Float, weights: Float) -> float:
    return float((weights * values).sum() / weights.sum())


# of the values and the weights of a zone's cells
_STATISTICS: dict[str, Statistic] = {
    "count": lambda _, w: float(w.sum()),
    "sum": lambda v, w: float((w * v).sum()),
    "mean": _mean,
    "min": lambda v, _: float(v.min()),
    "max": lambda v, _: float(v.max()),
    "range": lambda v, _: float(v.max() - v.min()),
    "variance": _variance,
    "stdev": lambda v, w: float(np.sqrt(_variance(v, w))),
    "cv": lambda v, w: float(np.sqrt(_variance(v, w)) / _mean(v, w)) if _mean(v, w) else np.nan,
    "median": _quantile(0.5),
    "majority": lambda v, w: _most(v, w, sign=1),
    "minority": lambda v, w: _most(v, w, sign=-1),
    "variety": lambda v, _: float(np.unique(v).size),
}
_COUNTS = ("count", "variety")
_TIE = 1e-9
"""Share of a zone's weight by which two values may differ and still be equally frequent."""
_UNORDERED = (
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "range",
    "variance",
    "stdev",
    "cv",
    "majority",
    "minority",
    "variety",
)
"""Statistics that need no sorted values; sorting takes longer than all else."""


def zonal_statistics(
    array: xr.DataArray,
    share: Coverage,
    *,
    stats: Sequence[str] = ("count", "mean", "min", "max"),
    method: str = "exact",
) -> pd.DataFrame:
    """Statistics of a raster in every zone.

    Parameters
    ----------
    array : xarray.DataArray
        Numbers, dims ``(y, x)``, or ``(layer, y, x)`` with any one leading dim, NumPy or Dask (read by zone). NaN,
        the array's ``_FillValue``/``nodata`` and, in label maps, 255 are left out.
    share : Coverage
        From `geococa.coverage_fraction` on the same grid.
    stats : sequence of str
        ``count`` (cells, by share), ``sum``, ``mean``, ``min``, ``max``, ``range``, ``variance``, ``stdev``
        (population), ``cv``, ``median``, ``q25`` or any ``q0``..``q100``, ``majority``, ``minority``, ``variety``.
    method : str
        ``"exact"``: each cell counts with its share inside. ``"centre"``: a cell counts wholly if its centre lies
        inside, as older tools have it. ``"touched"``: every cell counts wholly that any part of the zone touches.

    Returns
    -------
    pandas.DataFrame
        One row for each zone (and layer): ``zone``, the leading dim if any, ``zone_ha``, and one column for each
        statistic. A zone without valid cells has count 0 and NaN elsewhere.

    Raises
    ------
    InputRefused
        A statistic or method is unknown, the array holds no numbers, or the coverage is none.
    GridMismatch
        Array and coverage are on different grids.

    Notes
    -----
    The weight *w* of a cell is its share inside the zone (1 with the other two methods), not its area, as
    other tools weigh too: in degrees, over many degrees of latitude, cells differ, and `geococa.zonal_area` takes that into
    account, statistics don't. With *n* valid cells in ascending order, *W* their
    weights added up and *C* those before a cell:

    - ``count`` is *W*, ``sum`` Σ *w v*, ``mean`` Σ *w v* / *W*; ``variance`` Σ *w (v - mean)²* / *W* (population), ``stdev`` its
      root, ``cv`` stdev over mean.
    - ``min``, ``max``, ``range``, ``variety`` take every cell that has a share, however small.
    - ``q25`` and so on, ``median``: linear between neighbouring values, the *k*-th of which (from 0) lies at *k w + (n - 1) C*
      on an axis of length *(n - 1) W*. For whole cells that is ``numpy.quantile``; for values that all differ, what
      exactextract gives (which takes equal values together before it interpolates, and then differs).
    - ``majority`` and ``minority``: of values with equal weight (to 1e-9 of *W*), the smallest. rasterstats has the same rule.

    Examples
    --------
    >>> import geopandas, shapely
    >>> from geococa import Grid, coverage_fraction
    >>> grid = Grid("EPSG:32618", (10, 0, 0, 0, -10, 10), (1, 2))
    >>> zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(0, 0, 15, 10)], crs="EPSG:32618")
    >>> ndvi = grid.attach(xr.DataArray([[0.2, 0.8]], dims=("y", "x")))
    >>> zonal_statistics(ndvi, coverage_fraction(zones, grid), stats=["count", "mean"]).drop(columns="zone_ha")
      zone  count  mean
    0    a    1.5   0.4
    """
    check_type(
        array, xr.DataArray, "array", "take one variable of a Dataset, or wrap a bare array with Grid(...).attach(...)"
    )
    check_type(share, Coverage, "share", "make it with geococa.coverage_fraction(zones, Grid.from_xarray(array))")
    if array.dtype.kind not in "iufb":
        raise InputRefused(f"statistics need real numbers, got {array.dtype}; convert with array.astype('float32')")
    if array.ndim not in (2, 3) or tuple(array.dims[-2:]) != ("y", "x"):
        raise GridMismatch(
            f"expected dims (y, x) or (layer, y, x), got {tuple(array.dims)}; use array.transpose(..., 'y', 'x')"
        )
    if method not in ("exact", "centre", "touched"):
        raise InputRefused(f"method must be 'exact', 'centre' or 'touched', got {method!r}")
    chosen = {name: _statistic(name) for name in _names(stats)}
    check_grid(array, share, "array")
    layer = None if array.ndim == 2 else str(array.dims[0])
    values = array if layer is None else array.transpose(layer, "y", "x")
    fill = _fill_values(array)
    rows = []
    for number, name in enumerate(share.zone_names):
        cells = _cells(share, number, method)
        for position, plane in _planes(values, layer, cells):
            head: dict[str, Any] = {"zone": name}
            if layer is not None:
                head[layer] = array[layer].values[position] if layer in array.coords else position
            head["zone_ha"] = share.zone_ha[number]
            rows.append({**head, **_row(plane, cells[2], fill, chosen)})
    table = pd.DataFrame(rows)
    table.attrs = {"method": method}
    return table


def _names(stats: Any) -> list[str]:
    """Names of the statistics wanted; one alone may be given without a list."""
    names = [stats] if isinstance(stats, str) else list(stats) if isinstance(stats, Iterable) else [stats]
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong or not names:
        raise InputRefused(f"stats must be names of statistics such as ['mean', 'q25'], got {stats!r}")
    return names


def _statistic(name: str) -> Statistic:
    if name in _STATISTICS:
        return _STATISTICS[name]
    if name.startswith("q") and name[1:].replace(".", "", 1).isdigit() and 0 <= float(name[1:]) <= 100:
        return _quantile(float(name[1:]) / 100)
    raise InputRefused(f"no statistic {name!r}; there are {', '.join(_STATISTICS)} and quantiles such as q25")


def _fill_values(array: xr.DataArray) -> list[float]:
    found = [
        source.get(key) for source in (array.attrs, array.encoding) for key in ("_FillValue", "nodata", "missing_value")
    ]
    fill = [float(value) for value in found if value is not None and not np.isnan(value)]
    return [*fill, 255.0] if array.attrs.get("kind") == "land_cover" else fill


def _cells(share: Coverage, number: int, method: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float]:
    """Rows, columns and weights of a zone's cells."""
    rows, columns, weights = share.cells(number)
    if method == "exact" or not rows.size:
        return rows, columns, weights
    if method == "touched":
        return rows, columns, np.ones(weights.size)
    down, across = centre_cells(share, number)
    return down, across, np.ones(down.size)


def _planes(values: xr.DataArray, layer: str | None, cells: Any) -> Any:
    """Values of the cells in each layer; only the rows and columns around the zone are read."""
    rows, columns, _ = cells
    count = 1 if layer is None else values.sizes[layer]
    if not rows.size:
        for position in range(count):
            yield position, np.empty(0, values.dtype)
        return
    r0, c0 = int(rows.min()), int(columns.min())
    window = values.isel(y=slice(r0, int(rows.max()) + 1), x=slice(c0, int(columns.max()) + 1))
    data = np.asarray(window.values)
    data = data[None] if layer is None else data
    for position in range(count):
        yield position, data[position][rows - r0, columns - c0]


def _row(plane: npt.NDArray[Any], weights: Float, fill: list[float], chosen: dict[str, Statistic]) -> dict[str, float]:
    values = plane.astype(np.float64)
    valid = np.isfinite(values)
    for value in fill:
        valid &= values != value
    # a zone's cells always come row by row, so that sums don't depend on threads or blocks
    kept, weight = (values, weights) if valid.all() else (values[valid], weights[valid])
    if not kept.size:
        return {name: 0.0 if name in _COUNTS else np.nan for name in chosen}
    ascending = (kept, weight)
    if any(name not in _UNORDERED for name in chosen):
        order = np.lexsort((weight, kept))
        ascending = (kept[order], weight[order])
    return {name: run(*((kept, weight) if name in _UNORDERED else ascending)) for name, run in chosen.items()}
