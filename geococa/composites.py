"""One image a year: calendar years, or a window that ends at a cut-off date with a fallback to earlier scenes."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, optional_import, positive
from geococa.cloud_distance import cloud_distance
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.mask_rules import band_names, is_dask
from geococa.reducers import Dates, Layers, Reducer, reduce_arrays, reducer_named

__all__ = ["Window", "composite", "window_of"]

_DAY_NS = np.int64(86_400_000_000_000)


@dataclass(frozen=True)
class Window:
    """Which dates belong to a year.

    Attributes
    ----------
    month, day : int
        Cut-off date, counted from and included.
    days : int or None
        A date belongs to the window if it lies at most so many days before the cut-off; back to the day after the
        cut-off of the year before where not given.
    fallback_days : int
        How many days before the window still count where the window is too poor.
    after_days : int
        How many days after the cut-off belong to the window as well.
    """

    month: int = 12
    day: int = 31
    days: int | None = None
    fallback_days: int = 0
    after_days: int = 0

    def cutoff(self, year: int) -> int:
        """Cut-off date of a year in days since 1 January 1970."""
        return (dt.date(year, self.month, self.day) - dt.date(1970, 1, 1)).days

    def reach(self, year: int) -> tuple[int, int, int]:
        """First day of the fallback, first and last day of the window, in days since 1 January 1970."""
        first = self.cutoff(year - 1) + 1 if self.days is None else self.cutoff(year) - self.days
        return first - self.fallback_days, first, self.cutoff(year) + self.after_days

    def holds(self, year: int, days: np.ndarray) -> np.ndarray:
        """Whether each of some days lies in the window of a year or its fallback."""
        earliest, _, last = self.reach(year)
        return np.asarray((days >= earliest) & (days <= last))

    def years(self, days: np.ndarray) -> list[int]:
        """Calendar years of some days with at least one of them within reach of the cut-off."""
        calendar = np.asarray(days).astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
        return [y for y in range(int(calendar.min()), int(calendar.max()) + 1) if self.holds(y, days).any()]


def window_of(
    cutoff: str | None, window_days: float | None = None, fallback_days: float = 0, after_days: float = 0
) -> Window | None:
    """Check the settings of a window; None where there is no cut-off date.

    Raises
    ------
    InputRefused
        The cut-off is no day of every year, a number of days is not whole and positive, or a window has no cut-off.
    """
    if cutoff is None:
        if window_days is not None or fallback_days or after_days:
            raise InputRefused(
                "window_days, fallback_days and after_days count from a cut-off date; give cutoff, such as '12-31'"
            )
        return None
    found = re.fullmatch(r"(\d\d)-(\d\d)", cutoff)
    try:
        # 2001 had no 29 February: a cut-off must exist in every year
        day = dt.date(2001, int(found.group(1)), int(found.group(2))) if found else None
    except ValueError:
        day = None
    if day is None:
        raise InputRefused(f"cutoff must be a month and day that every year has, such as '12-31', got {cutoff!r}")
    for name, value in (("window_days", window_days), ("fallback_days", fallback_days), ("after_days", after_days)):
        if value is not None and (value != int(value) or not (value > 0 or (value == 0 and name != "window_days"))):
            raise InputRefused(f"{name} must be a whole number of days above zero, got {value!r}")
    if after_days > 366:
        raise InputRefused(f"after_days must be at most 366: later images show another year's ground, got {after_days}")
    length = None if window_days is None else int(window_days)
    return Window(day.month, day.day, length, int(fallback_days), int(after_days))


def composite(
    reflectance: xr.Dataset,
    *,
    period: str = "year",
    reducer: str = "median",
    min_observations: int = 1,
    cutoff: str | None = None,
    window_days: int | None = None,
    fallback_days: int = 0,
    after_days: int = 0,
    half_life_days: float | None = None,
    cloud_distance_m: float = 500.0,
    scores: Mapping[str, float] | None = None,
    years: Iterable[int] | None = None,
    threads: int = 1,
) -> xr.Dataset:
    """Reduce the dates of each year to one image.

    Parameters
    ----------
    reflectance : xarray.Dataset
        From `to_reflectance`, dims ``(time, y, x)``, NaN = not observed. A date that lacks a band at a pixel is left
        out for all bands of that pixel.
    period : {"year"}
        One image a year (UTC). Years without a scene are absent from the result.
    reducer : str
        ``median``; ``mean``; a percentile such as ``p25`` (linear between order statistics); ``geomedian``, the
        spectrum with the least sum of distances to all dates; ``medoid``, the observed date closest to all others;
        ``max_ndvi``, the greenest date; ``bap``, the best available pixel: the date with the largest sum of scores for
        nearness to the cut-off date (31 December where none is given), distance to the nearest cloud, shadow or gap of
        its scene, and lack of haze (blue - red / 2 above the least of the pixel's dates; needs the bands blue and red).
    min_observations : int
        Pixels with fewer usable dates in a year stay NaN.
    cutoff : str, optional
        Month and day, such as ``"12-31"``. The image of a year is then made from the dates in a window that ends with
        this day, and carries its age. Calendar years where not given.
    window_days : int, optional
        A date is in the window if it lies at most so many days before the cut-off date; the year up to it where not
        given.
    fallback_days : int
        Where a pixel has fewer than ``min_observations`` dates in the window, the latest earlier ones are used, as many
        as are lacking and at most so many days before the window.
    after_days : int
        Dates up to so many days after the cut-off date belong to the window as well; their age is negative. None by
        default: what was planted or eradicated after the cut-off is not of its year.
    half_life_days : float, optional
        A date so many days from the cut-off date, before or after it, counts half, twice as far a quarter, for
        ``mean``, ``median``, ``geomedian`` and ``medoid`` (sums of distances to the dates, weighted); all dates count
        alike where not given. For ``bap`` the score of the date is half there, and a sixteenth at twice the distance (a
        Gaussian; 60 where not given). Counted to 31 December where no cut-off date is given.
    cloud_distance_m : float
        Distance to the nearest cloud in metres from which on ``bap`` takes a pixel for safe.
    scores : mapping of str to float, optional
        Weights of the scores ``day``, ``cloud`` and ``opacity`` of ``bap``, 1 where not given.
    years : iterable of int, optional
        Years to make, as far as there are dates for them; all where not given.
    threads : int
        Threads over strips of pixels; the result does not depend on it.

    Returns
    -------
    xarray.Dataset
        float32 per band, dims ``(time, y, x)`` with time 31 December of each year (whatever the cut-off date, which is
        an attribute); ``kind="composite"``; Dask-backed where the input is. Besides the bands:

        ``observations`` uint16, number of dates used; ``date_used`` datetime64[ns], the day that the spectrum stands
        for, NaT = not observed: the date itself of ``medoid``, ``max_ndvi`` and ``bap``, the (weighted) mean day of
        ``mean``, the (weighted) median day, rounded down, of all others; ``age_days`` float32, days from ``date_used`` to
        the cut-off date (31 December where none is given), negative for later images. With ``fallback_days`` also
        ``fallback_observations`` uint16, how many of the dates used lie before the window.

    Raises
    ------
    InputRefused
        Unknown reducer or period, ``max_ndvi`` without red and near infrared, or settings that do not fit each other.

    Notes
    -----
    The scores of ``bap`` follow White et al. (2014); their sigmoids are the polynomial ``s^2 (3 - 2 s)`` here, so that
    results are the same to the last bit everywhere. Of equal dates the first one is taken.

    References
    ----------
    Flood (2013), Remote Sensing 5(12), 6481-6500 (medoid); Roberts et al. (2017), doi:10.1109/TGRS.2017.2723896
    (geometric median); Holben (1986), doi:10.1080/01431168608948945 (maximum NDVI); White et al. (2014),
    doi:10.1080/07038992.2014.945827 (best available pixel).

    Examples
    --------
    >>> import numpy as np, pandas as pd, xarray as xr
    >>> values = np.array([0.1, np.nan, 0.3], "float32").reshape(3, 1, 1)
    >>> red = xr.DataArray(values, dims=("time", "y", "x"), coords={"time": pd.date_range("2020-03-01", periods=3)})
    >>> annual = composite(xr.Dataset({"red": red}))
    >>> float(annual.red[0, 0, 0]), int(annual.observations[0, 0, 0]), str(annual.time.values[0])[:10]
    (0.20000000298023224, 2, '2020-12-31')
    >>> late = composite(xr.Dataset({"red": red}), cutoff="12-31", window_days=60, fallback_days=300)
    >>> float(late.red[0, 0, 0]), float(late.age_days[0, 0, 0])
    (0.30000001192092896, 303.0)
    """
    check_kind(reflectance, "reflectance")
    check_dims(reflectance, "time", "y", "x", optional=("band",))
    if period != "year":
        raise InputRefused(f"period must be 'year', got {period!r}")
    if "time" not in reflectance.coords or reflectance.sizes["time"] == 0:
        raise InputRefused("a composite needs a time coordinate with at least one date")
    if int(min_observations) != min_observations or min_observations < 1:
        raise InputRefused(f"min_observations must be a whole number of at least 1, got {min_observations!r}")
    positive(cloud_distance_m, "cloud_distance_m")
    if half_life_days is not None:
        positive(half_life_days, "half_life_days")
    window = window_of(cutoff, window_days, fallback_days, after_days)
    names = band_names(reflectance)
    reduce = reducer_named(
        reducer, names, half_life_days=half_life_days, cloud_distance_m=cloud_distance_m, scores=scores
    )
    near = None
    if reducer == "bap":
        near = cloud_distance(
            [reflectance[name].data for name in names], Grid.from_xarray(reflectance), cloud_distance_m
        )
    plan = _plan(reflectance["time"].values, window, None if years is None else {int(year) for year in years})
    if not plan:
        raise InputRefused(
            "no year has a date to make its image from; widen window_days, fallback_days or after_days, or add scenes"
        )
    layers = []
    for chosen, dates in plan.values():
        bands = [_dates_of(reflectance[name].data, chosen) for name in names]
        beside = None if near is None else _dates_of(near, chosen)
        layers.append(_reduced(bands, beside, reduce, dates, int(min_observations), threads))
    attrs: dict[str, Any] = {"reducer": reducer, "min_observations": int(min_observations)}
    settings = {"cutoff": cutoff, "window_days": window_days, "half_life_days": half_life_days}
    attrs |= {key: value for key, value in settings.items() if value is not None}
    attrs |= {name: int(days) for name, days in (("fallback_days", fallback_days), ("after_days", after_days)) if days}
    return _annual(reflectance, names, list(plan), layers, window, attrs)


def _plan(time: np.ndarray, window: Window | None, wanted: set[int] | None) -> dict[int, tuple[np.ndarray, Dates]]:
    """Positions of the dates of each year, and what reducers need to know of them."""
    days = time.astype("datetime64[D]").astype(np.int64)
    plan = {}
    if window is None:
        calendar = time.astype("datetime64[Y]").astype(np.int64) + 1970
        for year in sorted({int(year) for year in calendar}):
            chosen = np.flatnonzero(calendar == year)
            plan[year] = (
                chosen,
                Dates(days[chosen].astype(np.float32), _distance(days[chosen], Window().cutoff(year))),
            )
    else:
        order = np.argsort(days, kind="stable")
        for year in sorted(set(window.years(days)) | (wanted or set())):
            chosen = order[window.holds(year, days[order])]
            if len(chosen):
                within = days[chosen]
                before = int((within < window.reach(year)[1]).sum())
                plan[year] = (
                    chosen, Dates(within.astype(np.float32), _distance(within, window.cutoff(year)), before)
                )  # fmt: skip
    return {year: entry for year, entry in plan.items() if wanted is None or year in wanted}


def _distance(days: np.ndarray, target: int) -> np.ndarray:
    return np.abs(days - target).astype(np.float64)


def _dates_of(data: Any, dates: np.ndarray) -> Any:
    if np.array_equal(dates, np.arange(dates[0], dates[0] + len(dates))):
        return data[int(dates[0]) : int(dates[-1]) + 1]
    return data[dates]


def _reduced(
    bands: Sequence[Any], near: Any, reduce: Reducer, dates: Dates, least: int, threads: int
) -> tuple[Any, Any, Any, Any]:
    """Bands ``(band, y, x)``, dates used, dates from before the window, and day ``(y, x)`` of one year."""
    arrays = [*bands] if near is None else [*bands, near]
    if not any(is_dask(array) for array in arrays):
        made = reduce_arrays([np.asarray(band) for band in bands], reduce, dates, least, threads, near=near)
        return made.bands, made.counts, made.early, made.day
    da = optional_import("dask.array", "dask")
    stacked = da.stack(arrays, axis=1).rechunk({0: -1, 1: -1})
    n = len(bands)

    def block(part: np.ndarray) -> np.ndarray:
        layers = list(np.moveaxis(part, 1, 0))
        made: Layers = reduce_arrays(layers[:n], reduce, dates, least, 1, near=layers[n] if len(layers) > n else None)
        # counts below 2^24 and days are whole numbers that float32 holds exactly
        return np.concatenate([made.bands, np.stack([made.counts, made.early, made.day]).astype(np.float32)])

    planes = da.map_blocks(
        block, stacked, drop_axis=0, chunks=((n + 3,), *stacked.chunks[2:]), dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    return planes[:n], planes[n].astype(np.uint16), planes[n + 1].astype(np.uint16), planes[n + 2]


def _moments(day: np.ndarray) -> np.ndarray:
    """Days since 1970 as datetime64[ns], NaN as NaT."""
    missing = np.isnan(day)
    with np.errstate(invalid="ignore"):
        out = day.astype(np.int64)
    out *= _DAY_NS
    np.copyto(out, np.iinfo(np.int64).min, where=missing)
    return out.view("datetime64[ns]")


def _stack(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Layers of the years in one array; a single one is not copied."""
    return layers[0][np.newaxis] if len(layers) == 1 else np.stack(layers)


def _annual(
    source: xr.Dataset,
    names: list[str],
    years: list[int],
    layers: list[tuple[Any, Any, Any, Any]],
    window: Window | None,
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Dataset of yearly layers: bands and what is known of their dates."""
    lazy = any(is_dask(layer[0]) for layer in layers)
    stack = optional_import("dask.array", "dask").stack if lazy else _stack
    dims = ("time", "y", "x")
    variables: dict[Hashable, Any] = {}
    for position, name in enumerate(names):
        kept = {key: value for key, value in source[name].attrs.items() if key in ("units", "long_name")}
        variables[name] = (dims, stack([layer[0][position] for layer in layers]), {"units": "1", **kept})
    words = "usable dates in the year" if window is None else "dates used"
    variables["observations"] = (dims, stack([layer[1] for layer in layers]), {"units": "1", "long_name": words})
    day: Any = stack([layer[3] for layer in layers])
    moments = day.map_blocks(_moments, dtype="datetime64[ns]") if lazy else _moments(day)
    variables["date_used"] = (dims, moments, {"long_name": "day that the spectrum stands for"})
    ends = window or Window()
    ages = stack([np.float32(ends.cutoff(year)) - layer[3] for year, layer in zip(years, layers, strict=True)])
    to = "the cut-off date" if window is not None else "31 December"
    variables["age_days"] = (dims, ages, {"units": "days", "long_name": f"days from the image to {to}"})
    if ends.fallback_days:
        early = stack([layer[2] for layer in layers])
        text = {"units": "1", "long_name": "dates used from before the window"}
        variables["fallback_observations"] = (dims, early, text)
    coords = {n: c for n, c in source.coords.items() if "time" not in c.dims and "band" not in c.dims}
    stamps = np.array([f"{year}-12-31" for year in years], "datetime64[ns]")
    common = {"kind": "composite", "period": "year", **attrs}
    common |= {key: source.attrs[key] for key in ("sensor", "tile") if key in source.attrs}
    out = xr.Dataset(variables, coords={**coords, "time": stamps}, attrs=common)
    if "spatial_ref" in out.coords:
        for variable in out.data_vars.values():
            variable.encoding["grid_mapping"] = "spatial_ref"
    return out
