"""Index series on regular days: what dynamic time warping compares."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import positive
from geococa.errors import InputRefused
from geococa.feature_stack import as_features
from geococa.season import dates_of, index_series, map_series, stack_years
from geococa.series_names import LAST_DAY, series_name

__all__ = ["series_features"]


def series_features(
    reflectance: xr.Dataset | xr.DataArray,
    index: str = "ndvi",
    *,
    step_days: int = 16,
    method: str = "linear",
    within_days: float | None = None,
    year_start: str = "01-01",
) -> xr.DataArray:
    """Give the values of an index on regular days of each year, as ``train(method="twdtw")`` takes them.

    Only observations of a year's own period are used, so a year's features do not depend on which other years there are.
    What is infinite counts as not observed.

    Parameters
    ----------
    reflectance : xarray.Dataset or xarray.DataArray
        Reflectance by band, float32 ``(time, y, x)``, NaN = not observed, times in increasing order; or the index
        itself as a DataArray ``(time, y, x)``.
    index : str
        Band, index or formula (see `spectral_features`); for a DataArray the name to give it.
    step_days : int
        Days between values; the first stands on the first day of the period.
    method : {"linear", "nearest"}
        ``"linear"``: on the line between the observations before and after, each at most ``within_days`` away; where
        there is but one, its value if it is at most half a step away. ``"nearest"``: the nearest observation at most
        ``within_days`` away, of two the earlier.
    within_days : float, optional
        Twice the step for lines, half of it for the nearest observation, where not given.
    year_start : str
        Month and day on which a period begins, ``"09-01"`` for a crop year.

    Returns
    -------
    xarray.DataArray
        float32 ``(time, feature, y, x)``, NaN where no observation is near enough. Features are named
        ``{index}_d{day}``, as in ``ndvi_d001, ndvi_d017, ...``, with the day of the period, 001 to 366 (for calendar
        years the day of the year). Times are ``YYYY-12-31`` of the year in which the period ends. Dask in, Dask out.

    Raises
    ------
    InputRefused
        An unknown method, a step or a start that is none, or times out of order.

    Examples
    --------
    >>> times = pd.to_datetime(["2020-01-01", "2020-02-10"])
    >>> ndvi = xr.DataArray(np.float32([[[0.2]], [[0.6]]]), dims=("time", "y", "x"), coords={"time": times})
    >>> found = series_features(ndvi, "ndvi", step_days=20)
    >>> found["feature"].values[:3].tolist(), found.values[0, :3, 0, 0].round(3).tolist()
    (['ndvi_d001', 'ndvi_d021', 'ndvi_d041'], [0.20000000298023224, 0.4000000059604645, 0.6000000238418579])
    """
    if method not in ("linear", "nearest"):
        raise InputRefused(f"method must be 'linear' or 'nearest', got {method!r}")
    whole = isinstance(step_days, int | float | np.number) and not isinstance(step_days, bool) and step_days % 1 == 0
    if not whole or not 1 <= step_days <= LAST_DAY // 2:
        raise InputRefused(f"step_days must be a whole number from 1 to {LAST_DAY // 2}, got {step_days!r}")
    step = int(step_days)
    default = 2.0 * step if method == "linear" else step / 2
    if not isinstance(within_days, int | float | np.number | None) or isinstance(within_days, bool):
        raise InputRefused(f"within_days must be a number of days, got {within_days!r}")
    within = default if within_days is None else positive(float(within_days), "within_days")
    label, series = index_series(reflectance, index)
    times = dates_of(series).normalize()
    ends, days = _periods(times, year_start)
    targets = np.arange(1.0, LAST_DAY, step)
    settings: dict[str, Any] = {"targets": targets, "within": within, "half": step / 2, "linear": method == "linear"}
    years = np.unique(ends)
    parts = [
        map_series(_resample, series.isel(time=ends == year), targets.size, days=days[ends == year], **settings)
        for year in years
    ]
    labels = [series_name(label, int(day)) for day in targets]
    dates = pd.DatetimeIndex([f"{year}-12-31" for year in years]).astype("datetime64[ns]")
    like = series.isel(time=0, drop=True).expand_dims(time=dates)
    return as_features(stack_years(parts), ("time", "y", "x"), labels, like)


def _periods(times: pd.DatetimeIndex, year_start: str) -> tuple[np.ndarray, np.ndarray]:
    """Year in which each date's period ends, and the day of the period, from 1."""
    match = re.fullmatch(r"(\d{2})-(\d{2})", str(year_start))
    try:
        month, day = (int(part) for part in match.groups()) if match else (0, 0)
        pd.Timestamp(year=2001, month=month, day=day)
    except ValueError:
        raise InputRefused(
            f"year_start must be a month and day of every year, as in '01-01' or '09-01', got {year_start!r}"
        ) from None
    starts = pd.DatetimeIndex([pd.Timestamp(year=int(year), month=month, day=day) for year in times.year])
    late = times < starts
    begun = np.where(late, times.year - 1, times.year)
    starts = pd.DatetimeIndex([pd.Timestamp(year=int(year), month=month, day=day) for year in begun])
    ends = begun if (month, day) == (1, 1) else begun + 1
    days = np.asarray((times - starts) / pd.Timedelta(days=1), dtype=np.float64) + 1.0
    return np.asarray(ends, dtype=np.int64), days


def _resample(
    block: np.ndarray, *, days: np.ndarray, targets: np.ndarray, within: float, half: float, linear: bool
) -> np.ndarray:
    from geococa._kernels import series as kernels

    dates, height, width = block.shape
    out = np.empty((len(targets), height * width), np.float32)
    values = np.array(block, dtype=np.float32, order="C").reshape(dates, -1)
    values[np.isinf(values)] = np.nan
    kernels.resample_series(values, days, targets, within, half, linear, out)
    return out.reshape(len(targets), height, width)
