"""Resampling: values of an index on regular days, from clear observations on any days."""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["resample_series"]


@inline
def value_on(day: float, earlier: float, before: float, later: float, after: float, within: float, half: float) -> Any:
    """Value on a day from the observations at or before it and at or after it, whose days are infinite where none."""
    gap, wait = day - earlier, later - day
    if gap == 0.0:
        return before
    if gap <= within and wait <= within:
        return before + (after - before) * (gap / (later - earlier))
    if gap <= half and gap <= wait:
        return before
    if wait <= half:
        return after
    return np.nan


@kernel
def resample_series(series: Any, days: Any, targets: Any, within: float, half: float, linear: bool, out: Any) -> None:
    """Values on regular days.

    Parameters
    ----------
    series : float32 (dates, pixels)
        In order of time, NaN = not observed.
    days : float64 (dates,)
        Day of each date, not falling.
    targets : float64 (targets,)
        Days to give values for, rising.
    within, half : float
        Days that an observation may be away, for lines between two and for single ones.
    linear : bool
        Draw lines between observations; else the nearest one within ``within`` days counts, of two the earlier.
    out : float32 (targets, pixels)
        Values, NaN where no observation is near enough.
    """
    n_dates, n_pixels = series.shape
    reach = within if linear else 0.0
    alone = half if linear else within
    for p in range(n_pixels):
        earlier, before, j = -np.inf, 0.0, 0
        for t in range(targets.shape[0]):
            day = targets[t]
            while j < n_dates and (days[j] <= day or np.isnan(series[j, p])):
                if not np.isnan(series[j, p]):
                    earlier, before = days[j], series[j, p]
                j += 1
            later, after = np.inf, 0.0
            if j < n_dates:
                later, after = days[j], series[j, p]
            out[t, p] = value_on(day, earlier, before, later, after, reach, alone)
