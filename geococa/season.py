"""The course of an index within the year: level, spread, harmonic, sharp drops and recovery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused
from geococa.feature_stack import as_features
from geococa.spectral_indices import spectral_features, split_name

__all__ = ["SEASON_STATISTICS", "dates_of", "index_series", "map_series", "season_features", "stack_years"]

SEASON_STATISTICS = (
    "p10", "p50", "p90", "amplitude", "std", "slope", "drops", "drop_depth", "drop_spread_days", "recovery_days",
)  # fmt: skip
"""Season statistics that `season_features` gives where no others are asked for."""


def season_features(
    reflectance: xr.Dataset | xr.DataArray,
    index: str = "ndvi",
    *,
    period: str = "year",
    statistics: Sequence[str] = SEASON_STATISTICS,
    min_observations: int = 3,
    drop_depth: float = 0.15,
    drop_days: float = 60.0,
) -> xr.DataArray:
    """Summarise the course of an index within each year.

    Coca is stripped of its leaves three to seven times a year, not in step with its neighbours: the number, depth and
    spread in time of sharp drops and the recovery after them tell it from pasture and forest better than a calendar.

    Parameters
    ----------
    reflectance : xarray.Dataset or xarray.DataArray
        Reflectance by band, float32 ``(time, y, x)``, NaN = not observed, times in increasing order; or the index
        itself as a DataArray ``(time, y, x)``.
    index : str
        Band, index or formula (see `spectral_features`); for a DataArray the name to give it.
    period : str
        ``"year"``: one result a calendar year; ``"all"``: one for the whole series, dated at the end of its last year.
    statistics : sequence of str
        Out of p10, p25, p50, p75, p90, amplitude (p90 - p10), mean, std, slope (per year), drops (number of sharp
        drops), drop_depth (their mean depth), drop_spread_days (standard deviation of their dates), recovery_days
        (mean time until half of a drop was made good, or until the last date), harmonic_amplitude and
        harmonic_phase_days (day of the peak of a one-year wave). Drop statistics are 0 without drops; the harmonic
        is NaN under 5 dates.
    min_observations : int
        Pixels with fewer observed dates in a period stay NaN.
    drop_depth, drop_days : float
        A sharp drop is at least so deep and takes at most so many days.

    Returns
    -------
    xarray.DataArray
        float32 ``(time, feature, y, x)``, features ``{index}_{statistic}``, times ``YYYY-12-31``. Dask in, Dask out.

    Raises
    ------
    InputRefused
        An unknown statistic or period, or times out of order.

    Examples
    --------
    >>> import geococa as coca
    >>> scenes = coca.open_tile("sample_tiles/18NXG", years=[2024], bands=["red", "nir"], window=(0, 20, 0, 20))
    >>> reflectance = coca.to_reflectance(scenes)
    >>> coca.season_features(reflectance, "ndvi", statistics=["p50", "amplitude"], min_observations=2)["feature"].values.tolist()
    ['ndvi_p50', 'ndvi_amplitude']
    """
    from geococa._kernels.season import STATISTICS

    unknown = [name for name in statistics if name not in STATISTICS]
    if unknown or not statistics or len(set(statistics)) != len(statistics):
        raise InputRefused(f"season statistics are {', '.join(STATISTICS)}, each once, got {list(statistics)}")
    if period not in ("year", "all"):
        raise InputRefused(f"period must be 'year' or 'all', got {period!r}")
    label, series = index_series(reflectance, index)
    times = dates_of(series)
    years = np.asarray(times.year) if period == "year" else np.full(len(times), times[-1].year)
    seasons = []
    for year in np.unique(years):
        start = pd.Timestamp(year=int(times[years == year][0].year), month=1, day=1)
        days = np.asarray((times[years == year] - start) / pd.Timedelta(days=1), dtype=float)
        seasons.append((np.flatnonzero(years == year), days))
    settings: dict[str, Any] = {
        "rows": [STATISTICS.index(name) for name in statistics],
        "fewest": int(min_observations), "depth": float(drop_depth), "within": float(drop_days),
    }  # fmt: skip
    parts = [
        map_series(_season, series.isel(time=where), len(statistics), days=days, **settings) for where, days in seasons
    ]
    labels = [f"{label}_{name}" for name in statistics]
    ends = pd.DatetimeIndex([f"{year}-12-31" for year in np.unique(years)]).astype("datetime64[ns]")
    data = stack_years(parts)
    like = series.isel(time=0, drop=True).expand_dims(time=ends)
    return as_features(data, ("time", "y", "x"), labels, like)


def index_series(reflectance: xr.Dataset | xr.DataArray, index: str) -> tuple[str, xr.DataArray]:
    """Name and values ``(time, y, x)`` of an index of reflectance, or of an array that is the index itself."""
    if isinstance(reflectance, xr.DataArray):
        check_kind(reflectance, "reflectance", "composite", "features")
        check_dims(reflectance, "time", "y", "x")
        if reflectance.dtype.kind not in "fiu":
            raise InputRefused(f"an index must be numbers, got {reflectance.dtype}")
        return str(index), reflectance.transpose("time", "y", "x")
    check_kind(reflectance, "reflectance", "composite")
    check_dims(reflectance, "time", "y", "x")
    series = spectral_features(reflectance, [index]).isel(feature=0, drop=True)
    return split_name(index)[0], series


def dates_of(series: xr.DataArray) -> pd.DatetimeIndex:
    """Dates of a series, checked to be dates in increasing order."""
    stated = series["time"].values if "time" in series.coords else np.empty(0)
    if stated.dtype.kind != "M" or np.isnat(stated).any():
        raise InputRefused(
            "a series needs a coordinate 'time' of dates (datetime64), none of them missing; set it with "
            ".assign_coords(time=pandas.to_datetime([...]))"
        )
    times = pd.DatetimeIndex(stated)
    if not len(times) or not times.is_monotonic_increasing:
        raise InputRefused("a series needs dates in increasing order; sort it with .sortby('time')")
    return times


def map_series(work: Any, series: xr.DataArray, planes: int, **settings: Any) -> Any:
    """Apply ``work`` to a series ``(time, y, x)``, which makes ``planes`` planes of it; later for Dask arrays."""
    if not is_lazy(series):
        return work(np.asarray(series.values), **settings)
    import dask.array

    data: Any = series.data.rechunk({0: -1})
    meta = np.empty((0, 0, 0), np.float32)
    return dask.array.map_blocks(
        work, data, dtype=np.float32, meta=meta, chunks=((planes,), *data.chunks[1:]), **settings
    )


def _season(
    block: np.ndarray, *, days: np.ndarray, rows: list[int], fewest: int, depth: float, within: float
) -> np.ndarray:
    from geococa._kernels import season

    dates, height, width = block.shape
    out = np.empty((len(season.STATISTICS), height * width), np.float32)
    series = np.ascontiguousarray(block, dtype=np.float32).reshape(dates, -1)
    season.season_statistics(series, days, fewest, depth, within, out)
    return out[rows].reshape(len(rows), height, width)


def stack_years(parts: list[Any]) -> Any:
    """Stack the arrays of some years, Dask if they are."""
    if isinstance(parts[0], np.ndarray):
        return np.stack(parts)
    import dask.array

    return dask.array.stack(parts)
