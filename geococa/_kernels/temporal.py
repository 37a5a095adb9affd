"""Reducing a stack of dates to one value a pixel: sorting networks, medoid and geometric median.

All kernels work on strips of pixels held in SIMD lanes: the innermost loop runs over pixels, so that one
instruction serves 8 or 16 of them, whatever their number of missing dates.
"""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["geomedian", "medoid", "percentiles", "sorting_pairs", "unify"]

LANES = 512
"""Pixels a strip of the sorting network: long enough to hide the call of a pair, and well inside the second-level cache."""
LEAST = 1e-38
"""Least weight of a date against the heaviest one of its pixel, which float32 still holds."""
GROUP = 64
"""Pixels in flight in the medoid and geomedian kernels: measured three times as fast as 32, and the same as 128."""


def sorting_pairs(n: int) -> np.ndarray:
    """Compare-and-swap pairs that sort ``n`` values: Batcher's merge exchange.

    Parameters
    ----------
    n : int
        Number of values, at least 1.

    Returns
    -------
    numpy.ndarray
        ``(pairs, 2)`` int32, first index smaller than the second; to be applied in order.

    References
    ----------
    Knuth (1998), The Art of Computer Programming 3, section 5.2.2, algorithm M.

    Examples
    --------
    >>> len(sorting_pairs(4))
    5
    """
    pairs: list[tuple[int, int]] = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)


@kernel
def unify(block: np.ndarray, counts: np.ndarray) -> None:
    """Make dates that lack one band missing in all, and count the dates that are left.

    Parameters
    ----------
    block : ndarray (dates, bands, pixels) float32
        NaN = missing. Changed in place.
    counts : ndarray (pixels,) uint16
        Number of complete dates; written.
    """
    dates, bands, pixels = block.shape
    counts[:] = 0
    total = np.empty(pixels, np.float32)
    for t in range(dates):
        total[:] = np.float32(0.0)
        for b in range(bands):
            for i in range(pixels):
                # zero times any number is zero, times NaN or infinity it is NaN
                total[i] += block[t, b, i] * np.float32(0.0)
        missing = 0
        for i in range(pixels):
            here = total[i] == total[i]
            counts[i] += np.uint16(here)
            missing += not here
        if missing > 0:
            for b in range(bands):
                for i in range(pixels):
                    # less zero or NaN; a choice between NaN and what is there would become a masked store, which is slow
                    block[t, b, i] -= total[i]


@kernel
def _sort_strip(
    bits: np.ndarray, start: int, width: int, pairs: np.ndarray, keys: np.ndarray, counts: np.ndarray
) -> None:
    """Sort the dates of a strip as integers whose order is that of the numbers, missing dates last.

    Compare-and-swap of int32 is one minimum and one maximum instruction; of float32, where NaN and signed
    zeros have rules of their own, the compiler makes five times slower code.

    Parameters
    ----------
    bits : ndarray (dates, pixels) int32
        Bit patterns of float32 values.
    start, width : int
        First pixel of the strip and its length, at most `LANES`.
    pairs : ndarray (n, 2) int32
        From `sorting_pairs`.
    keys : ndarray (dates, LANES) int32
        Sorted keys; written.
    counts : ndarray (LANES,) int32
        Number of dates that are not NaN; written.
    """
    dates = bits.shape[0]
    magnitude, infinity = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
    counts[:] = np.int32(0)
    for t in range(dates):
        # a view of one row is contiguous, which the compiler must know to use vector loads
        line, row = bits[t, start : start + width], keys[t]
        for i in range(width):
            value = line[i]
            missing = (value & magnitude) > infinity
            # a negative number's bits grow with its magnitude: turn them round
            key = value ^ ((value >> np.int32(31)) & magnitude)
            row[i] = magnitude if missing else key
            counts[i] += np.int32(0) if missing else np.int32(1)
        for i in range(width, LANES):
            row[i] = magnitude
    for k in range(pairs.shape[0]):
        low, high = keys[pairs[k, 0]], keys[pairs[k, 1]]
        for i in range(LANES):
            a, b = low[i], high[i]
            low[i] = min(a, b)
            high[i] = max(a, b)


@kernel
def percentiles(stack: np.ndarray, pairs: np.ndarray, quantiles: np.ndarray, out: np.ndarray) -> None:
    """Percentiles over dates by a sorting network, missing dates left out.

    The median is the mean of the two middle values in float32, as numpy's; other percentiles are interpolated
    linearly between order statistics in float64.

    Parameters
    ----------
    stack : ndarray (dates, pixels) float32
        C-contiguous, NaN = missing.
    pairs : ndarray (n, 2) int32
        From `sorting_pairs` for that number of dates.
    quantiles : ndarray (q,) float64
        In 0..1.
    out : ndarray (q, pixels) float32
        NaN where no date is left; written.
    """
    dates, pixels = stack.shape
    bits = stack.view(np.int32)
    keys = np.empty((dates, LANES), np.int32)
    counts = np.empty(LANES, np.int32)
    chosen = np.empty((2, LANES), np.int32)
    values = chosen.view(np.float32)
    share = np.empty(LANES, np.float64)
    magnitude = np.int32(0x7FFFFFFF)
    for start in range(0, pixels, LANES):
        width = min(LANES, pixels - start)
        _sort_strip(bits, start, width, pairs, keys, counts)
        for j in range(quantiles.shape[0]):
            middle = quantiles[j] == 0.5
            for i in range(width):
                last = np.uint32(max(counts[i] - 1, 0))
                if middle:
                    below, above = last >> np.uint32(1), (last + np.uint32(1)) >> np.uint32(1)
                else:
                    position = last * quantiles[j]
                    below = np.uint32(position)
                    above = min(below + np.uint32(1), last)
                    share[i] = position - below
                chosen[0, i] = keys[below, i]
                chosen[1, i] = keys[above, i]
            for i in range(width):
                for side in range(2):
                    key = chosen[side, i]
                    chosen[side, i] = key ^ ((key >> np.int32(31)) & magnitude)
            for i in range(width):
                low, high = values[0, i], values[1, i]
                if counts[i] == 0:
                    out[j, start + i] = np.float32(np.nan)
                elif middle:
                    out[j, start + i] = (low + high) * np.float32(0.5)
                elif share[i] == 0.0:
                    out[j, start + i] = low
                else:
                    out[j, start + i] = np.float32(low + share[i] * (np.float64(high) - np.float64(low)))


@inline
def _equal(weights: np.ndarray) -> bool:
    """Whether all weights are the same."""
    equal = True
    for t in range(1, weights.shape[0]):
        equal = equal and weights[t] == weights[0]
    return equal


@inline
def _most(block: np.ndarray, pixel: int, weights: np.ndarray) -> float:
    """Largest weight among the dates of a pixel, 1 where it has none: weights are taken relative to it."""
    most = 0.0
    for t in range(block.shape[0]):
        if block[t, 0, pixel] == block[t, 0, pixel] and weights[t] > most:
            most = weights[t]
    return most if most > 0.0 else 1.0


@kernel
def medoid(block: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Date whose spectrum is closest to those of all other dates of the pixel, by the weighted sum of distances.

    Parameters
    ----------
    block : ndarray (dates, bands, pixels) float32
        A date is missing where its first band is NaN (see `unify`).
    weights : ndarray (dates,) float64
        Positive weight of each date; only their ratios matter.
    out : ndarray (pixels,) int16
        Index of the date with the smallest sum of Euclidean distances, each times the weight of the other date, the first
        of equals; -1 where no date is left. Written.
    """
    dates, bands, pixels = block.shape
    values = np.zeros((dates, bands, GROUP), np.float32)
    valid = np.zeros((dates, GROUP), np.float32)
    sums = np.empty((dates, GROUP), np.float32)
    square = np.empty(GROUP, np.float32)
    equal = _equal(weights)
    for start in range(0, pixels, GROUP):
        width = min(GROUP, pixels - start)
        sums[:] = np.float32(0.0)
        for t in range(dates):
            for i in range(width):
                here = block[t, 0, start + i] == block[t, 0, start + i]
                valid[t, i] = np.float32(here)
                for b in range(bands):
                    values[t, b, i] = block[t, b, start + i] if here else np.float32(0.0)
        if not equal:
            for i in range(width):
                most = _most(block, start + i, weights)
                for t in range(dates):
                    # a date however light can still be chosen
                    if valid[t, i] > 0:
                        valid[t, i] = np.float32(max(weights[t] / most, LEAST))
        for s in range(dates):
            for t in range(s + 1, dates):
                square[:] = np.float32(0.0)
                for b in range(bands):
                    for i in range(GROUP):
                        difference = values[s, b, i] - values[t, b, i]
                        square[i] += difference * difference
                for i in range(GROUP):
                    distance = np.sqrt(square[i])
                    sums[s, i] += distance * valid[t, i]
                    sums[t, i] += distance * valid[s, i]
        for i in range(width):
            best, least = -1, np.float32(np.inf)
            for t in range(dates):
                if valid[t, i] > 0 and sums[t, i] < least:
                    best, least = t, sums[t, i]
            out[start + i] = best


@kernel
def _load(
    block: np.ndarray,
    weights: np.ndarray,
    equal: bool,
    pixel: int,
    lane: int,
    values: np.ndarray,
    valid: np.ndarray,
    centre: np.ndarray,
) -> int:
    """Put a pixel into a lane with its mean as first centre; return its number of dates."""
    dates, bands, _ = block.shape
    n = 0
    for t in range(dates):
        here = block[t, 0, pixel] == block[t, 0, pixel]
        valid[t, lane] = np.float32(here)
        n += here
        for b in range(bands):
            values[t, b, lane] = block[t, b, pixel] if here else np.float32(0.0)
    if equal or n == 0:
        for b in range(bands):
            total = 0.0
            for t in range(dates):
                total += values[t, b, lane]
            centre[b, lane] = np.float32(total / n) if n > 0 else np.float32(np.nan)
        return n
    most, weight = _most(block, pixel, weights), 0.0
    for t in range(dates):
        if valid[t, lane] > 0:
            valid[t, lane] = np.float32(max(weights[t] / most, LEAST))
        weight += valid[t, lane]
    for b in range(bands):
        total = 0.0
        for t in range(dates):
            total += np.float64(valid[t, lane]) * np.float64(values[t, b, lane])
        centre[b, lane] = np.float32(total / weight)
    return n


@kernel
def _step(
    values: np.ndarray, valid: np.ndarray, centre: np.ndarray, work: np.ndarray, weighted: np.ndarray, moved: np.ndarray
) -> None:
    """One over-relaxed Weiszfeld step of all lanes; ``moved`` gets squared step and squared norm."""
    dates, bands, _ = values.shape
    square, weight, total = work[0], work[1], work[2]
    total[:] = np.float32(0.0)
    weighted[:] = np.float32(0.0)
    for t in range(dates):
        square[:] = np.float32(0.0)
        for b in range(bands):
            for i in range(GROUP):
                difference = values[t, b, i] - centre[b, i]
                square[i] += difference * difference
        for i in range(GROUP):
            # a centre on a date would divide by zero; a micro-reflectance away it only slows down there
            weight[i] = valid[t, i] / max(np.sqrt(square[i]), np.float32(1e-6))
            total[i] += weight[i]
        for b in range(bands):
            for i in range(GROUP):
                weighted[b, i] += weight[i] * values[t, b, i]
    moved[:] = np.float32(0.0)
    for b in range(bands):
        for i in range(GROUP):
            # an empty lane has no weight at all; what it computes is never read
            change = weighted[b, i] / max(total[i], np.float32(1e-30)) - centre[b, i]
            moved[0, i] += change * change
            moved[1, i] += centre[b, i] * centre[b, i]
            centre[b, i] += np.float32(1.5) * change


@kernel
def geomedian(block: np.ndarray, weights: np.ndarray, tolerance: float, max_steps: int, out: np.ndarray) -> None:
    """Geometric median of the dates of each pixel: the spectrum with the least weighted sum of distances to them.

    Weiszfeld's iteration from the mean, over-relaxed by 1.5. A lane whose step has become smaller than
    ``tolerance`` times the norm of the spectrum is written out and takes the next pixel, so that slow pixels
    do not hold up their neighbours.

    Parameters
    ----------
    block : ndarray (dates, bands, pixels) float32
        A date is missing where its first band is NaN (see `unify`).
    weights : ndarray (dates,) float64
        Positive weight of each date; only their ratios matter.
    tolerance : float
        Relative step at which a pixel is done.
    max_steps : int
        Steps after which a pixel is done in any case.
    out : ndarray (bands, pixels) float32
        NaN where no date is left; the weighted mean where there are one or two. Written.

    References
    ----------
    Weiszfeld (1937), Tohoku Mathematical Journal 43; Ostresh (1978), Operations Research 26(4), 597-609
    (convergence for relaxation factors below 2); Roberts et al. (2017), doi:10.1109/TGRS.2017.2723896.
    """
    dates, bands, pixels = block.shape
    values = np.zeros((dates, bands, GROUP), np.float32)
    valid = np.zeros((dates, GROUP), np.float32)
    centre = np.zeros((bands, GROUP), np.float32)
    work = np.zeros((3, GROUP), np.float32)
    weighted = np.zeros((bands, GROUP), np.float32)
    moved = np.zeros((2, GROUP), np.float32)
    pixel = np.full(GROUP, -1, np.int64)
    steps = np.zeros(GROUP, np.int64)
    limit = np.float32(tolerance * tolerance)
    equal = _equal(weights)
    upcoming, active = 0, 1
    while active > 0:
        active = 0
        for i in range(GROUP):
            done = pixel[i] >= 0 and (moved[0, i] <= limit * moved[1, i] or steps[i] >= max_steps)
            if done:
                for b in range(bands):
                    out[b, pixel[i]] = centre[b, i]
            if done or pixel[i] < 0:
                pixel[i] = -1
                while upcoming < pixels and pixel[i] < 0:
                    n = _load(block, weights, equal, upcoming, i, values, valid, centre)
                    if n > 2:
                        pixel[i], steps[i] = upcoming, 0
                    else:
                        for b in range(bands):
                            out[b, upcoming] = centre[b, i]
                    upcoming += 1
            active += pixel[i] >= 0
        if active > 0:
            _step(values, valid, centre, work, weighted, moved)
            steps += 1
