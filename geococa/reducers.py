"""Reducing the dates of a strip of pixels to one spectrum each, by name: median, percentiles, mean, medoid, ..."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from geococa.errors import InputRefused

__all__ = ["Kernel", "reduce_arrays", "reducer_named"]

Kernel = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From ``(dates, bands, pixels)`` float32, changed in place, to ``(bands, pixels)`` and the number of dates used."""

_STRIP = 8192
"""Pixels reduced at a time: small enough for the cache, large enough to hide the call."""
_GEOMEDIAN_TOLERANCE, _GEOMEDIAN_STEPS = 1e-5, 500


def reduce_arrays(
    bands: Sequence[np.ndarray], reduce: Kernel, least: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reduce ``(time, y, x)`` arrays strip by strip; strips do not see each other, so threads change nothing."""
    dates, rows, columns = bands[0].shape
    if dates > np.iinfo(np.int16).max:
        raise InputRefused(f"{dates} dates in one year; expected at most {np.iinfo(np.int16).max}")
    height = max(1, _STRIP // max(columns, 1))
    out = np.empty((len(bands), rows, columns), np.float32)
    counts = np.empty((rows, columns), np.uint16)

    def work(top: int) -> None:
        bottom = min(top + height, rows)
        strip = np.empty((dates, len(bands), (bottom - top) * columns), np.float32)
        for position, band in enumerate(bands):
            strip[:, position] = band[:, top:bottom].reshape(dates, -1)
        values, seen = reduce(strip)
        values[:, seen < least] = np.nan
        out[:, top:bottom] = values.reshape(len(bands), bottom - top, columns)
        counts[top:bottom] = seen.reshape(bottom - top, columns)

    tops = range(0, rows, height)
    if threads <= 1 or len(tops) <= 1:
        for top in tops:
            work(top)
        return out, counts
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for done in [pool.submit(work, top) for top in tops]:
            done.result()
    return out, counts


def reducer_named(name: str, bands: list[str]) -> Kernel:
    """Return the function from ``(dates, bands, pixels)`` to ``(bands, pixels)`` and the number of usable dates."""
    found = re.fullmatch(r"p(\d{1,2}(?:\.\d+)?|100)", name)
    share = 0.5 if name == "median" else float(found.group(1)) / 100 if found else None
    if share is not None:
        return _counted(lambda strip: _percentile(strip, share))
    if name == "max_ndvi":
        near = next((band for band in ("nir", "nir08") if band in bands), None)
        if near is None or "red" not in bands:
            raise InputRefused(f"max_ndvi needs the bands red and nir (or nir08), got {', '.join(bands)}")
        red, nir = bands.index("red"), bands.index(near)
        return _counted(lambda strip: _picked(strip, _greenest(strip, red, nir)))
    plain: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mean": _mean,
        "geomedian": _geomedian,
        "medoid": lambda strip: _picked(strip, _medoid(strip)),
    }
    if name not in plain:
        raise InputRefused(
            f"no reducer {name!r}; known are median, mean, geomedian, medoid, max_ndvi and percentiles such as p25"
        )
    return _counted(plain[name])


def _counted(reduce: Callable[[np.ndarray], np.ndarray]) -> Kernel:
    def run(strip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from geococa._kernels.temporal import unify

        counts = np.empty(strip.shape[2], np.uint16)
        unify(strip, counts)
        return reduce(strip), counts

    return run


def _percentile(strip: np.ndarray, share: float) -> np.ndarray:
    from geococa._kernels.temporal import percentiles, sorting_pairs

    dates, bands, pixels = strip.shape
    out = np.empty((1, bands * pixels), np.float32)
    percentiles(strip.reshape(dates, -1), sorting_pairs(dates), np.array([share]), out)
    return out.reshape(bands, pixels)


def _mean(strip: np.ndarray) -> np.ndarray:
    valid = ~np.isnan(strip[:, 0])
    total = np.where(valid[:, np.newaxis], strip, np.float32(0)).sum(axis=0, dtype=np.float64)
    counts = valid.sum(axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan).astype(np.float32)


def _geomedian(strip: np.ndarray) -> np.ndarray:
    from geococa._kernels.temporal import geomedian

    out = np.empty(strip.shape[1:], np.float32)
    geomedian(strip, _GEOMEDIAN_TOLERANCE, _GEOMEDIAN_STEPS, out)
    return out


def _medoid(strip: np.ndarray) -> np.ndarray:
    from geococa._kernels.temporal import medoid

    chosen = np.empty(strip.shape[2], np.int16)
    medoid(strip, chosen)
    return chosen


def _greenest(strip: np.ndarray, red: int, nir: int) -> np.ndarray:
    """Date with the largest NDVI, the first of equals; -1 where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ndvi = (strip[:, nir] - strip[:, red]) / (strip[:, nir] + strip[:, red])
    ndvi = np.where(np.isfinite(ndvi), ndvi, -np.inf)
    return np.where(np.isnan(strip[:, red]).all(axis=0), -1, ndvi.argmax(axis=0)).astype(np.int16)


def _picked(strip: np.ndarray, date: np.ndarray) -> np.ndarray:
    """Spectrum of the chosen date of each pixel, NaN where none was chosen."""
    index = np.maximum(date, 0).astype(np.intp)[np.newaxis, np.newaxis, :]
    out: np.ndarray = np.take_along_axis(strip, np.broadcast_to(index, (1, *strip.shape[1:])), axis=0)[0]
    out[:, date < 0] = np.nan
    return out
