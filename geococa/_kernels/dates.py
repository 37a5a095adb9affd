"""Which of a pixel's dates count, and which one stands for all: windows with a fallback, weights, scores."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import kernel

__all__ = ["best_dates", "median_days", "near_missing", "reach_back", "weighted_medians"]


@kernel
def reach_back(block: np.ndarray, before: int, least: int, counts: np.ndarray, early: np.ndarray) -> None:
    """Leave out the dates before the window wherever the window has enough of its own.

    Where it has not, the latest earlier dates are kept, as many as are lacking.

    Parameters
    ----------
    block : ndarray (dates, bands, pixels) float32
        In order of time; a date is missing where its first band is NaN. Dates left out become NaN in place.
    before : int
        Number of dates before the window.
    least : int
        Dates that a pixel needs.
    counts : ndarray (pixels,) uint16
        Dates that are left; written.
    early : ndarray (pixels,) uint16
        How many of them lie before the window; written.
    """
    dates, bands, pixels = block.shape
    counts[:] = np.uint16(0)
    early[:] = np.uint16(0)
    for t in range(before, dates):
        for i in range(pixels):
            counts[i] += np.uint16(block[t, 0, i] == block[t, 0, i])
    drop = np.empty(pixels, np.uint8)
    for t in range(before - 1, -1, -1):
        for i in range(pixels):
            kept = (block[t, 0, i] == block[t, 0, i]) and counts[i] < least
            counts[i] += np.uint16(kept)
            early[i] += np.uint16(kept)
            drop[i] = np.uint8(not kept)
        for b in range(bands):
            for i in range(pixels):
                if drop[i]:
                    block[t, b, i] = np.float32(np.nan)


@kernel
def median_days(block: np.ndarray, days: np.ndarray, order: np.ndarray, counts: np.ndarray, out: np.ndarray) -> None:
    """Median day of the dates of each pixel, rounded down to a whole day.

    Parameters
    ----------
    block : ndarray (dates, bands, pixels) float32
        A date is missing where its first band is NaN.
    days : ndarray (dates,) float32
        Day of each date.
    order : ndarray (dates,) int64
        Order of the dates in time.
    counts : ndarray (pixels,) uint16
        Number of dates that are not missing.
    out : ndarray (pixels,) float32
        NaN where no date is left; written.
    """
    dates, _, pixels = block.shape
    seen = np.zeros(pixels, np.int32)
    low, high = np.zeros(pixels, np.float32), np.zeros(pixels, np.float32)
    for k in range(dates):
        t = order[k]
        day, row = days[t], block[t, 0]
        for i in range(pixels):
            here = row[i] == row[i]
            rank, last = seen[i], np.int32(counts[i]) - np.int32(1)
            # added to zero, once: a choice between the day and what is there would become a masked store, which is slow
            low[i] += day if here and rank == last >> 1 else np.float32(0.0)
            high[i] += day if here and rank == (last + np.int32(1)) >> 1 else np.float32(0.0)
            seen[i] += np.int32(here)
    for i in range(pixels):
        middle = np.floor((low[i] + high[i]) * np.float32(0.5))
        out[i] = middle if counts[i] > 0 else np.float32(np.nan)


@kernel
def weighted_medians(stack: np.ndarray, weights: np.ndarray, pairs: np.ndarray, out: np.ndarray) -> None:
    """Weighted median over dates, missing dates left out.

    The value at which the cumulative weight passes half of the total; the mean of two neighbours where it meets
    half exactly, so that equal weights give the ordinary median.

    Parameters
    ----------
    stack : ndarray (dates, pixels) float32
        C-contiguous, NaN = missing.
    weights : ndarray (dates,) float64
        Positive weight of each date.
    pairs : ndarray (n, 2) int32
        From `geococa._kernels.temporal.sorting_pairs` for that number of dates.
    out : ndarray (pixels,) float32
        NaN where no date is left; written.
    """
    dates, pixels = stack.shape
    bits = stack.view(np.int32)
    lanes = 256
    keys = np.empty((dates, lanes), np.int64)
    total = np.empty(lanes, np.float64)
    word = np.empty(2, np.int32)
    value = word.view(np.float32)
    magnitude, infinity = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
    for start in range(0, pixels, lanes):
        width = min(lanes, pixels - start)
        total[:] = 0.0
        keys[:] = np.int64(0x7FFFFFFFFFFFFFFF)
        for t in range(dates):
            line, row, weight = bits[t, start : start + width], keys[t], weights[t]
            for i in range(width):
                missing = (line[i] & magnitude) > infinity
                key = line[i] ^ ((line[i] >> np.int32(31)) & magnitude)
                # the number above, its date below: sorting the two as one integer keeps them together
                both = (np.int64(key) << np.int64(32)) | np.int64(t)
                row[i] = np.int64(0x7FFFFFFFFFFFFFFF) if missing else both
                total[i] += 0.0 if missing else weight
        for k in range(pairs.shape[0]):
            low, high = keys[pairs[k, 0]], keys[pairs[k, 1]]
            for i in range(lanes):
                a, b = low[i], high[i]
                low[i] = min(a, b)
                high[i] = max(a, b)
        for i in range(width):
            if total[i] == 0.0:
                out[start + i] = np.float32(np.nan)
                continue
            half, passed, k = total[i] * 0.5, 0.0, -1
            while passed < half:
                k += 1
                passed += weights[keys[k, i] & np.int64(0x7FFF)]
            # the last of the dates can fall short of half by rounding only, and then nothing follows it
            follows = passed == half and k + 1 < dates and keys[k + 1, i] != np.int64(0x7FFFFFFFFFFFFFFF)
            for side in range(2):
                key = np.int32(keys[k + side if follows else k, i] >> np.int64(32))
                word[side] = key ^ ((key >> np.int32(31)) & magnitude)
            out[start + i] = (value[0] + value[1]) * np.float32(0.5) if follows else value[0]


@kernel
def best_dates(
    block: np.ndarray,
    day_score: np.ndarray,
    near: np.ndarray,
    limit: float,
    haze: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """Date with the largest sum of scores at each pixel, the first of equals.

    Parameters
    ----------
    block : ndarray (dates, bands, pixels) float32
        A date is missing where its first band is NaN.
    day_score : ndarray (dates,) float32
        Score of the distance in days, 0..1.
    near : ndarray (dates, pixels) float32
        Distance to the nearest pixel that was not observed, cut at ``limit``.
    limit : float
        Distance from which on the score is 1.
    haze : ndarray (2,) int64
        Positions of blue and red; -1 where there is no blue.
    weights : ndarray (3,) float32
        Weights of day, distance to cloud, and opacity.
    out : ndarray (pixels,) int16
        Index of the date, -1 where no date is left; written.
    """
    dates, _, pixels = block.shape
    blue, red = haze[0], haze[1]
    one, half, veil = np.float32(1.0), np.float32(0.5), np.float32(0.05)
    reach = np.float32(limit)
    for i in range(pixels):
        clearest = np.float32(np.inf)
        if blue >= 0:
            for t in range(dates):
                whiteness = block[t, blue, i] - half * block[t, red, i]
                clearest = whiteness if whiteness < clearest else clearest
        best, most = -1, np.float32(-1.0)
        for t in range(dates):
            if block[t, 0, i] != block[t, 0, i]:
                continue
            share = near[t, i] / reach
            score = weights[0] * day_score[t] + weights[1] * share * share * (np.float32(3.0) - share - share)
            if blue >= 0:
                share = min((block[t, blue, i] - half * block[t, red, i] - clearest) / veil, one)
                score += weights[2] * (one - share * share * (np.float32(3.0) - share - share))
            if score > most:
                best, most = t, score
        out[i] = best


@kernel
def near_missing(missing: np.ndarray, width: np.ndarray, height: float, limit: float, out: np.ndarray) -> None:
    """Distance from each cell to the nearest missing one, cut at a limit.

    Parameters
    ----------
    missing : ndarray (rows, columns) uint8
        1 = missing.
    width : ndarray (rows,) float32
        Width of the cells of each row.
    height : float
        Height of the cells.
    limit : float
        Largest distance of interest.
    out : ndarray (rows, columns) float32
        0 at missing cells, at most ``limit``; written.
    """
    rows, columns = missing.shape
    tall, most = np.float32(height), np.float32(limit) * np.float32(limit)
    reach = int(limit / height)
    along = np.empty((rows, columns), np.float32)
    used = np.zeros(rows, np.uint8)
    for r in range(rows):
        step, line = width[r], along[r]
        gap = columns
        for c in range(columns):
            gap = 0 if missing[r, c] else gap + 1
            line[c] = np.float32(gap)
        if line.min() < np.float32(columns):
            used[r] = 1
        gap = columns
        for c in range(columns - 1, -1, -1):
            gap = 0 if missing[r, c] else gap + 1
            distance = min(line[c], np.float32(gap)) * step
            line[c] = distance * distance
    for r in range(rows):
        target = out[r]
        target[:] = most
        for other in range(max(0, r - reach), min(rows, r + reach + 1)):
            if used[other]:
                rise = np.float32(other - r) * tall
                rise *= rise
                source = along[other]
                for c in range(columns):
                    target[c] = min(target[c], source[c] + rise)
        for c in range(columns):
            target[c] = np.sqrt(target[c])
