"""Reducing the dates of a strip of pixels to one spectrum each, by name: median, percentiles, mean, medoid, ..."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from geococa.errors import InputRefused

__all__ = ["BAP_SCORES", "WEIGHTED", "Dates", "Layers", "Reducer", "reduce_arrays", "reducer_named"]

WEIGHTED = ("median", "mean", "geomedian", "medoid", "bap")
"""Reducers whose dates can count less with their distance in days."""

BAP_SCORES = ("day", "cloud", "opacity")
"""Scores of the best available pixel: distance in days, distance to the nearest cloud, haze."""

_STRIP = 8192
"""Pixels of a task of a thread."""
_TASK = 1 << 16
"""Pixels of a task of a thread where nothing is copied."""
_PIECE_BYTES = 1 << 20
"""Size of the dates, bands and pixels reduced at a time: small enough for the cache, large enough to hide the calls."""
_GEOMEDIAN_TOLERANCE, _GEOMEDIAN_STEPS = 1e-5, 500


@dataclass(frozen=True)
class Dates:
    """What is known of the dates of one year.

    Attributes
    ----------
    days : numpy.ndarray of float32, shape (dates,)
        Days since 1 January 1970.
    distance : numpy.ndarray of float64, shape (dates,)
        Days from each date to the one wanted, not negative.
    before : int
        Number of dates, the first ones, that lie before the window and count where the window is too poor; dates
        are in order of time if it is not 0.
    """

    days: np.ndarray
    distance: np.ndarray
    before: int = 0


@dataclass(frozen=True)
class Strip:
    """Dates, bands and pixels, and what a reducer needs besides."""

    values: np.ndarray
    counts: np.ndarray
    dates: Dates
    near: np.ndarray | None


Reducer = Callable[[Strip], tuple[np.ndarray, np.ndarray]]
"""From a strip to ``(bands, pixels)`` and the day ``(pixels,)`` that the spectrum stands for, both float32."""


@dataclass(frozen=True)
class Layers:
    """One year's image.

    Attributes
    ----------
    bands : numpy.ndarray of float32, shape (band, y, x)
        NaN = not observed.
    counts, early : numpy.ndarray of uint16, shape (y, x)
        Dates used, and how many of them lie before the window.
    day : numpy.ndarray of float32, shape (y, x)
        Days since 1 January 1970; NaN = not observed.
    """

    bands: np.ndarray
    counts: np.ndarray
    early: np.ndarray
    day: np.ndarray


def reduce_arrays(
    bands: Sequence[np.ndarray],
    reduce: Reducer,
    dates: Dates,
    least: int,
    threads: int,
    *,
    near: np.ndarray | None = None,
) -> Layers:
    """Reduce ``(time, y, x)`` arrays strip by strip; strips do not see each other, so threads change nothing."""
    from geococa._kernels.dates import reach_back
    from geococa._kernels.temporal import unify

    n, rows, columns = bands[0].shape
    if n > np.iinfo(np.int16).max:
        raise InputRefused(f"{n} dates in one year; expected at most {np.iinfo(np.int16).max}")
    height = max(1, _STRIP // max(columns, 1))
    out = Layers(
        np.empty((len(bands), rows, columns), np.float32),
        np.empty((rows, columns), np.uint16),
        np.zeros((rows, columns), np.uint16),
        np.empty((rows, columns), np.float32),
    )

    if _networked(bands, reduce, dates):
        _medians(bands, dates, least, threads, out)
        return out
    flat = Layers(out.bands.reshape(len(bands), -1), out.counts.ravel(), out.early.ravel(), out.day.ravel())
    piece = int(np.clip(_PIECE_BYTES // (4 * n * len(bands)), 512, _STRIP))

    def work(top: int) -> None:
        bottom = min(top + height, rows)
        rows_of_bands = [band[:, top:bottom].reshape(n, -1) for band in bands]
        beside = None if near is None else near[:, top:bottom].reshape(n, -1)
        # one array for all pieces: memory that is new costs more than the sorting
        memory = np.empty(n * len(bands) * piece, np.float32)
        for start in range(0, (bottom - top) * columns, piece):
            stop = min(start + piece, (bottom - top) * columns)
            strip = memory[: n * len(bands) * (stop - start)].reshape(n, len(bands), -1)
            for position, band in enumerate(rows_of_bands):
                strip[:, position] = band[:, start:stop]
            here = slice(top * columns + start, top * columns + stop)
            counts = flat.counts[here]
            unify(strip, counts)
            if dates.before:
                reach_back(strip, dates.before, least, counts, flat.early[here])
            close = None if beside is None else np.ascontiguousarray(beside[:, start:stop])
            values, day = reduce(Strip(strip, counts, dates, close))
            few = counts < least
            values[:, few] = np.nan
            day[few] = np.nan
            flat.bands[:, here] = values
            flat.day[here] = day

    tops = range(0, rows, height)
    if threads <= 1 or len(tops) <= 1:
        for top in tops:
            work(top)
        return out
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for done in [pool.submit(work, top) for top in tops]:
            done.result()
    return out


def _networked(bands: Sequence[np.ndarray], reduce: Reducer, dates: Dates) -> bool:
    """Whether the dates go through a network that is made for their number."""
    from geococa._kernels.medians import COMPILED, LEAST_PIXELS, MOST_DATES

    fitting = bands[0][0].size >= LEAST_PIXELS and len(dates.days) <= MOST_DATES
    return COMPILED and reduce is plain_median and not dates.before and fitting


def _medians(bands: Sequence[np.ndarray], dates: Dates, least: int, threads: int, out: Layers) -> None:
    """Reduce dates to their median without a copy of them; the values are those of `plain_median` to the bit."""
    from geococa._kernels.medians import PITCH, composite_medians, network_size

    size = network_size(len(dates.days))
    kernel = composite_medians(size)
    arrays = [np.ascontiguousarray(band, np.float32) for band in bands]
    addresses = np.array([array.ctypes.data for array in arrays], np.int64)
    pixels = out.counts.size
    values, counts, day = out.bands.reshape(len(bands), -1), out.counts.reshape(-1), out.day.reshape(-1)
    days = np.ascontiguousarray(dates.days, np.float32)

    def work(begin: int) -> None:
        here = slice(begin, pixels if begin == begins[-1] else begin + _TASK)
        memory = np.empty(2 * (size + 1) * PITCH, np.float32)
        kernel(addresses, pixels, begin, days, least, memory, values[:, here], counts[here], day[here])

    # what is left over at the end goes with the last task: the kernel takes no fewer than eight pixels
    begins = range(0, max(pixels - _TASK // 2, 1), _TASK)
    if threads <= 1:
        for begin in begins:
            work(begin)
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for done in [pool.submit(work, begin) for begin in begins]:
            done.result()


def plain_median(strip: Strip) -> tuple[np.ndarray, np.ndarray]:
    """Median of each band, and the median day."""
    return _percentile(strip.values, 0.5), _median_day(strip)


def reducer_named(
    name: str,
    bands: list[str],
    *,
    half_life_days: float | None = None,
    cloud_distance_m: float = 500.0,
    scores: Mapping[str, float] | None = None,
) -> Reducer:
    """Return the reducer of a name, see `geococa.composite`.

    Parameters
    ----------
    name : str
        Name of the reducer.
    bands : list of str
        Bands in the order of the strips.
    half_life_days : float, optional
        Distance in days at which a date counts half.
    cloud_distance_m : float
        Distance to the nearest cloud from which on a pixel is as good as any, for ``bap``.
    scores : mapping, optional
        Weights of `BAP_SCORES`.
    """
    found = re.fullmatch(r"p(\d{1,2}(?:\.\d+)?|100)", name)
    share = 0.5 if name == "median" else float(found.group(1)) / 100 if found else None
    plain: dict[str, Reducer] = {
        "mean": lambda strip: _mean(strip, half_life_days),
        "geomedian": lambda strip: _geomedian(strip, half_life_days),
        "medoid": lambda strip: _picked(strip, _medoid(strip, half_life_days)),
    }
    if share is None and name not in (*plain, "max_ndvi", "bap"):
        raise InputRefused(
            f"no reducer {name!r}; known are median, mean, geomedian, medoid, max_ndvi, bap and percentiles such as p25"
        )
    if half_life_days is not None and name not in WEIGHTED:
        raise InputRefused(
            f"half_life_days weights the dates of {', '.join(WEIGHTED)}; leave it out for {name}, which has no weights"
        )
    if scores and name != "bap":
        raise InputRefused(f"scores belong to bap; leave them out for {name}")
    if name == "bap":
        return _bap(bands, half_life_days or 60.0, cloud_distance_m, scores)
    if name == "median" and half_life_days is not None:
        half_life = half_life_days
        return lambda strip: _weighted_median(strip, half_life)
    if share == 0.5:
        return plain_median
    if share is not None:
        return lambda strip: (_percentile(strip.values, share), _median_day(strip))
    if name == "max_ndvi":
        near = next((band for band in ("nir", "nir08") if band in bands), None)
        if near is None or "red" not in bands:
            raise InputRefused(f"max_ndvi needs the bands red and nir (or nir08), got {', '.join(bands)}")
        red, nir = bands.index("red"), bands.index(near)
        return lambda strip: _picked(strip, _greenest(strip.values, red, nir))
    return plain[name]


@lru_cache(maxsize=64)
def _pairs(dates: int) -> np.ndarray:
    """Sorting network for a number of dates, made once and not for every strip."""
    from geococa._kernels.temporal import sorting_pairs

    return sorting_pairs(dates)


def _percentile(strip: np.ndarray, share: float) -> np.ndarray:
    from geococa._kernels.temporal import percentiles

    dates, bands, pixels = strip.shape
    out = np.empty((1, bands * pixels), np.float32)
    percentiles(strip.reshape(dates, -1), _pairs(dates), np.array([share]), out)
    return out.reshape(bands, pixels)


def _median_day(strip: Strip) -> np.ndarray:
    from geococa._kernels.dates import median_days

    out = np.empty(strip.values.shape[2], np.float32)
    median_days(strip.values, strip.dates.days, np.argsort(strip.dates.days, kind="stable"), strip.counts, out)
    return out


def _mean(strip: Strip, half_life_days: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the dates, and the mean of their days with the same weights, to the nearest day."""
    weights = _weights(strip.dates, half_life_days)
    dates, bands, pixels = strip.values.shape
    total, day, weight = np.zeros((bands, pixels)), np.zeros(pixels), np.zeros(pixels)
    for t in range(dates):
        # date by date, so that the order of the sum does not depend on the strip's shape
        here = np.where(np.isnan(strip.values[t, 0]), 0.0, weights[t])
        total += np.where(here > 0, strip.values[t], np.float32(0)) * here
        day += here * float(strip.dates.days[t])
        weight += here
    with np.errstate(invalid="ignore"):
        # 0 / 0 = NaN where no date is left
        return (total / weight).astype(np.float32), np.rint(day / weight).astype(np.float32)


def _weights(dates: Dates, half_life_days: float | None) -> np.ndarray:
    if half_life_days is None:
        return np.ones(len(dates.days))
    # far dates keep a weight above zero, so that they count where they are all there is
    return np.maximum(np.exp2(-dates.distance / half_life_days), 1e-300)


def _weighted_median(strip: Strip, half_life_days: float) -> tuple[np.ndarray, np.ndarray]:
    from geococa._kernels.dates import weighted_medians

    dates, bands, pixels = strip.values.shape
    pairs, weights = _pairs(dates), _weights(strip.dates, half_life_days)
    out = np.empty(bands * pixels, np.float32)
    weighted_medians(strip.values.reshape(dates, -1), weights, pairs, out)
    return out.reshape(bands, pixels), _weighted_median_day(strip, weights)


def _weighted_median_day(strip: Strip, weights: np.ndarray) -> np.ndarray:
    from geococa._kernels.dates import weighted_medians

    out = np.empty(strip.values.shape[2], np.float32)
    days = np.where(np.isnan(strip.values[:, 0]), np.float32(np.nan), strip.dates.days[:, np.newaxis])
    weighted_medians(np.ascontiguousarray(days, np.float32), weights, _pairs(len(weights)), out)
    middle: np.ndarray = np.floor(out)
    return middle


def _geomedian(strip: Strip, half_life_days: float | None) -> tuple[np.ndarray, np.ndarray]:
    from geococa._kernels.temporal import geomedian

    weights = _weights(strip.dates, half_life_days)
    out = np.empty(strip.values.shape[1:], np.float32)
    geomedian(strip.values, weights, _GEOMEDIAN_TOLERANCE, _GEOMEDIAN_STEPS, out)
    return out, _median_day(strip) if half_life_days is None else _weighted_median_day(strip, weights)


def _medoid(strip: Strip, half_life_days: float | None) -> np.ndarray:
    from geococa._kernels.temporal import medoid

    chosen = np.empty(strip.values.shape[2], np.int16)
    medoid(strip.values, _weights(strip.dates, half_life_days), chosen)
    return chosen


def _greenest(strip: np.ndarray, red: int, nir: int) -> np.ndarray:
    """Date with the largest NDVI, the first of equals; -1 where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ndvi = (strip[:, nir] - strip[:, red]) / (strip[:, nir] + strip[:, red])
    seen = ~np.isnan(strip[:, red])
    # a date whose NDVI is not defined still beats a date that was not observed
    ndvi = np.where(np.isfinite(ndvi), ndvi, np.where(seen, np.finfo(np.float32).min, -np.inf))
    return np.where(seen.any(axis=0), ndvi.argmax(axis=0), -1).astype(np.int16)


def _bap(
    bands: list[str], half_life_days: float, cloud_distance_m: float, scores: Mapping[str, float] | None
) -> Reducer:
    """Return the reducer of the best available pixel."""
    chosen = dict.fromkeys(BAP_SCORES, 1.0) | {str(key): float(value) for key, value in (scores or {}).items()}
    if set(chosen) != set(BAP_SCORES) or not all(0 <= value < np.inf for value in chosen.values()):
        raise InputRefused(f"scores are weights of zero or more of {', '.join(BAP_SCORES)}; got {dict(scores or {})}")
    hazy = "blue" in bands and "red" in bands
    haze = np.array([bands.index("blue"), bands.index("red")] if hazy else [-1, -1], np.int64)
    weights = np.array([chosen[name] for name in BAP_SCORES], np.float32)

    def run(strip: Strip) -> tuple[np.ndarray, np.ndarray]:
        from geococa._kernels.dates import best_dates

        assert strip.near is not None
        day_score = np.exp2(-((strip.dates.distance / half_life_days) ** 2)).astype(np.float32)
        out = np.empty(strip.values.shape[2], np.int16)
        best_dates(strip.values, day_score, strip.near, float(cloud_distance_m), haze, weights, out)
        return _picked(strip, out)

    return run


def _picked(strip: Strip, date: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum and day of the chosen date of each pixel, NaN where none was chosen."""
    index = np.maximum(date, 0).astype(np.intp)
    shape = (1, *strip.values.shape[1:])
    out = np.take_along_axis(strip.values, np.broadcast_to(index[np.newaxis, np.newaxis, :], shape), axis=0)[0]
    out[:, date < 0] = np.nan
    return out, np.where(date < 0, np.float32(np.nan), strip.dates.days[index])
