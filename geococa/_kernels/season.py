"""Statistics of one index over the dates of a season: level, spread, harmonic, sharp drops and recovery."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["STATISTICS", "season_statistics"]

STATISTICS = (
    "p10",
    "p25",
    "p50",
    "p75",
    "p90",
    "amplitude",
    "mean",
    "std",
    "slope",
    "drops",
    "drop_depth",
    "drop_spread_days",
    "recovery_days",
    "harmonic_amplitude",
    "harmonic_phase_days",
)
"""Statistics in the order in which `season_statistics` writes them."""

_YEAR_DAYS = 365.25
_FEWEST_FOR_HARMONIC = 5


@inline
def _quantile(ordered: np.ndarray, n: int, share: float) -> float:
    """Quantile of the first ``n`` sorted values, linear between neighbours."""
    place = share * (n - 1)
    below = int(np.floor(place))
    above = min(below + 1, n - 1)
    value: float = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    return value


@inline
def _sort(values: np.ndarray, n: int, ordered: np.ndarray) -> None:
    """Sort by insertion: a season has some ten to sixty dates."""
    for i in range(n):
        value = values[i]
        k = i
        while k > 0 and ordered[k - 1] > value:
            ordered[k] = ordered[k - 1]
            k -= 1
        ordered[k] = value


@inline
def _level(values: np.ndarray, days: np.ndarray, n: int, ordered: np.ndarray, out: np.ndarray) -> None:
    """Quantiles, amplitude, mean, standard deviation, slope per year."""
    _sort(values, n, ordered)
    for k, share in enumerate((0.10, 0.25, 0.50, 0.75, 0.90)):
        out[k] = _quantile(ordered, n, share)
    out[5] = _quantile(ordered, n, 0.90) - _quantile(ordered, n, 0.10)
    mean, day = 0.0, 0.0
    for i in range(n):
        mean += values[i] / n
        day += days[i] / n
    squares, moment, lever = 0.0, 0.0, 0.0
    for i in range(n):
        squares += (values[i] - mean) ** 2
        moment += (days[i] - day) * (values[i] - mean)
        lever += (days[i] - day) ** 2
    out[6] = mean
    out[7] = np.sqrt(squares / n)
    out[8] = moment / lever * _YEAR_DAYS if lever > 0 else 0.0


@inline
def _drops(values: np.ndarray, days: np.ndarray, n: int, depth: float, within: float, out: np.ndarray) -> None:
    """Count sharp drops; take their mean depth, spread in time, and days until half of a drop was made good.

    A drop runs from a local high to the next local low; it is sharp if it is at least ``depth`` deep and takes at most
    ``within`` days. A drop without recovery counts up to the last date.
    """
    count, deep, wait, first, second = 0, 0.0, 0.0, 0.0, 0.0
    i = 0
    while i < n - 1:
        if values[i + 1] >= values[i]:
            i += 1
            continue
        low = i + 1
        while low < n - 1 and values[low + 1] < values[low] and days[low + 1] - days[i] <= within:
            low += 1
        fall = values[i] - values[low]
        if fall >= depth and days[low] - days[i] <= within:
            level = values[low] + 0.5 * fall
            back = low
            while back < n - 1 and values[back] < level:
                back += 1
            count += 1
            deep += fall
            wait += days[back] - days[low]
            first += days[low]
            second += days[low] * days[low]
        i = low
    out[9] = count
    out[10] = deep / count if count > 0 else 0.0
    out[11] = np.sqrt(max(second / count - (first / count) ** 2, 0.0)) if count > 1 else 0.0
    out[12] = wait / count if count > 0 else 0.0


@inline
def _harmonic(values: np.ndarray, days: np.ndarray, n: int, out: np.ndarray) -> None:
    """Least-squares fit of ``a + b cos(w t) + c sin(w t)`` with a period of one year; needs 5 dates."""
    out[13] = np.nan
    out[14] = np.nan
    if n < _FEWEST_FOR_HARMONIC:
        return
    s1, s2, s11, s22, s12, y0, y1, y2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        angle = 2 * np.pi * days[i] / _YEAR_DAYS
        u, v, y = np.cos(angle), np.sin(angle), values[i]
        s1 += u
        s2 += v
        s11 += u * u
        s22 += v * v
        s12 += u * v
        y0 += y
        y1 += u * y
        y2 += v * y
    # centred normal equations of two unknowns
    a11, a22, a12 = s11 - s1 * s1 / n, s22 - s2 * s2 / n, s12 - s1 * s2 / n
    b1, b2 = y1 - s1 * y0 / n, y2 - s2 * y0 / n
    determinant = a11 * a22 - a12 * a12
    if determinant <= 1e-6 * n * n:
        return
    cosine, sine = (b1 * a22 - b2 * a12) / determinant, (b2 * a11 - b1 * a12) / determinant
    out[13] = np.sqrt(cosine * cosine + sine * sine)
    out[14] = (np.arctan2(sine, cosine) / (2 * np.pi)) % 1.0 * _YEAR_DAYS


@kernel
def season_statistics(
    series: np.ndarray, days: np.ndarray, fewest: int, depth: float, within: float, out: np.ndarray
) -> None:
    """Compute the `STATISTICS` of every pixel.

    Parameters
    ----------
    series : numpy.ndarray
        float32 ``(dates, pixels)`` in order of time, NaN = not observed.
    days : numpy.ndarray
        float64 ``(dates,)``, day since the start of the season's calendar year.
    fewest : int
        Pixels with fewer observed dates become NaN.
    depth, within : float
        A sharp drop is at least ``depth`` deep and takes at most ``within`` days.
    out : numpy.ndarray
        float32 ``(len(STATISTICS), pixels)``.
    """
    dates, pixels = series.shape
    values, when, ordered = np.empty(dates), np.empty(dates), np.empty(dates)
    result = np.empty(15)
    for p in range(pixels):
        n = 0
        for t in range(dates):
            if not np.isnan(series[t, p]):
                values[n] = series[t, p]
                when[n] = days[t]
                n += 1
        if n < max(fewest, 1):
            out[:, p] = np.nan
            continue
        _level(values, when, n, ordered, result)
        _drops(values, when, n, depth, within, result)
        _harmonic(values, when, n, result)
        for k in range(15):
            out[k, p] = result[k]
