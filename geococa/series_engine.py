"""Prediction by time-weighted dynamic time warping: the class whose pattern a pixel's series is nearest to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["NO_CLASS", "Warping", "distance_shares", "time_weights"]

NO_CLASS = -1
"""Class index of a pixel that no class may claim."""

_LARGEST = float(np.finfo(np.float32).max)  # squares of larger numbers are infinite; such dates count as missing


def time_weights(pattern_day: np.ndarray, series_day: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Cost of the days between a pattern's date and one of the series, float64 ``(pattern dates, dates)``.

    It is ``1 / (1 + exp(alpha * (days - beta)))``: with ``alpha`` -0.1 and ``beta`` 50 nearly nothing within a month,
    a half at 50 days, one beyond three months.
    """
    elapsed = np.abs(pattern_day[:, None] - series_day[None, :])
    power = -alpha * (elapsed - beta)
    # exp of minus the magnitude never overflows
    small = np.exp(-np.abs(power))
    weights: np.ndarray = np.where(power >= 0, 1.0, small) / (1.0 + small)
    return weights


def distance_shares(distances: np.ndarray, scale: float) -> np.ndarray:
    """Probabilities in proportion to ``exp(-distance / scale)``; equal ones for pixels without a distance."""
    known = np.isfinite(distances).all(axis=0)
    scores = np.where(known, distances, 0.0) / -scale
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores


class Warping:
    """Distance of every pixel's series to the pattern of each class.

    A pattern must be matched whole, date after date; with ``ends`` "open" it may begin and end at any date of the
    series, with "closed" all dates of the series must be matched, too. Dates that a pixel lacks are skipped.

    References
    ----------
    Maus, V., Câmara, G., Cartaxo, R., Sanchez, A., Ramos, F. M., de Queiroz, G. R. (2016). A time-weighted dynamic
    time warping method for land-use and land-cover mapping. IEEE JSTARS 9(8), 3729-3739.
    """

    takes_missing = True

    def __init__(self, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> None:
        self._pattern = np.ascontiguousarray(arrays["pattern"], dtype=np.float64)
        self._place = np.asarray(arrays["place"])
        self._pattern_day, self._day = arrays["pattern_day"], arrays["series_day"]
        alpha, beta = float(settings["alpha"]), float(settings["beta"])
        self._weight = time_weights(arrays["pattern_day"], arrays["series_day"], alpha, beta)
        self._open = settings["ends"] == "open"
        self._scale = float(settings["scale"])
        self._limit = settings.get("rejection_distance")

    def observed(self, planes: np.ndarray) -> np.ndarray:
        """Whether a pixel has at least one date on which all indices are known, bool ``(pixels,)``."""
        found: np.ndarray = (np.abs(planes[self._place]) <= _LARGEST).all(axis=0).any(axis=0)
        return found

    def filled(self, planes: np.ndarray) -> np.ndarray:
        """Planes with each missing value replaced by that of the nearest class's pattern on the day.

        Pattern and series have the same days in a trained model; a pattern with days of its own is interpolated.
        """
        missing = ~(np.abs(planes) <= _LARGEST)
        if not missing.any():
            return planes
        nearest = self.distances(planes).argmin(axis=0)
        out = planes.copy()
        for b, places in enumerate(self._place):
            for j, place in enumerate(places):
                gaps = missing[place]
                days = [np.interp(self._day[j], self._pattern_day, one[:, b]) for one in self._pattern]
                out[place, gaps] = np.asarray(days)[nearest[gaps]]
        return out

    def distances(self, planes: np.ndarray) -> np.ndarray:
        """Distances float64 ``(classes, pixels)``; infinite for pixels without any date."""
        from geococa._kernels import twdtw

        series = planes[self._place]
        series[~(np.abs(series) <= _LARGEST)] = np.nan
        n_classes, n_steps, n_indices = self._pattern.shape
        out = np.empty((n_classes, planes.shape[1]))
        work = np.empty((twdtw.ROWS + n_steps + n_indices) * twdtw.LANES)
        twdtw.warping_distances(series, self._pattern, self._weight, self._open, self._open, work, out)
        return out

    def probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        """Probabilities float64 ``(classes, pixels)``, see `distance_shares`."""
        return distance_shares(self.distances(planes), self._scale)

    def labels(self, planes: np.ndarray) -> np.ndarray:
        """Class of the least distance, the first of equals; `NO_CLASS` without any date or beyond the limit."""
        distances = self.distances(planes)
        best = distances.argmin(axis=0).astype(np.int32)
        nearest = distances.min(axis=0)
        best[~(nearest <= (np.finfo(np.float64).max if self._limit is None else self._limit))] = NO_CLASS
        return best
