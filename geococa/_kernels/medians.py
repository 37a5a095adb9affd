"""Median over dates by the part of a sorting network that leads to the middle, in registers.

Of the missing dates of a pixel one half, rounded up, counts as larger than everything and the rest as smaller. Then the
median lies in the middle ranks of all dates, however many are missing: the outer ranks need no sorting, and nothing is
looked up pixel by pixel. The network of a number of dates is made as vector instructions of LLVM's own intermediate code,
so that no value goes back to memory between two comparisons.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from geococa._kernels._jit import inline, kernel
from geococa._kernels.addresses import floats_at
from geococa._kernels.prefetch import prefetch_planes
from geococa._kernels.temporal import sorting_pairs

__all__ = ["COMPILED", "LEAST_PIXELS", "MOST_DATES", "PITCH", "composite_medians", "median_pairs", "network_size"]

COMPILED = not numba.config.DISABLE_JIT
"""Whether there is a compiler at all."""

LANES = 256
"""Pixels of a strip."""
PITCH = LANES + 16
"""Numbers from one date to the next in the workspace: rows that lie a whole page apart wait for each other."""
MOST_DATES = 64
"""Most dates of which a network is made; a longer one takes many seconds to compile."""
LEAST_PIXELS = 1 << 16
"""Fewest pixels for which a network is made: compiling one takes about two seconds, once for each size."""
_SIZES = 4
"""Networks are of a multiple of so many dates, so that there are few of them; dates that do not exist are missing."""
_VECTOR = 8
"""Pixels of a vector."""
_MAGNITUDE = np.int32(0x7FFFFFFF)


_BOTH, _LOWER, _UPPER = 0, 1, 2


def network_size(dates: int) -> int:
    """Size of the network for a number of dates."""
    return -(-dates // _SIZES) * _SIZES


def median_pairs(n: int) -> np.ndarray:
    """Compare-and-swap pairs of `sorting_pairs` that the middle ranks depend on.

    Parameters
    ----------
    n : int
        Number of values, at least 1.

    Returns
    -------
    numpy.ndarray
        ``(pairs, 3)`` int32: the two indices, and which results are needed: 0 both, 1 the smaller, 2 the larger.

    Examples
    --------
    >>> len(sorting_pairs(12)), len(median_pairs(12))
    (41, 35)
    """
    needed = {(n - 1) // 2, n // 2}
    kept = []
    for low, high in reversed(sorting_pairs(n).tolist()):
        if low in needed or high in needed:
            kept.append((low, high, _BOTH if low in needed and high in needed else _LOWER if low in needed else _UPPER))
            needed |= {low, high}
    return np.array(kept[::-1], dtype=np.int32).reshape(-1, 3)


@inline
def _find_missing(
    addresses: np.ndarray,
    step: int,
    start: int,
    dates: int,
    size: int,
    least: int,
    rows: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Give each date that lacks a band the end that it counts at, 0 to the others, and count those.

    Two more rows get -1 where the number of dates that are missing is odd, and where enough are left.
    """
    bands, width = addresses.shape[0], counts.shape[0]
    turned, total = np.zeros(width, np.int32), np.empty(width, np.float32)
    left = np.zeros(width, np.int32)
    for t in range(dates):
        total[:] = np.float32(0.0)
        for b in range(bands):
            # two rows ahead; more would push each other out of the cache where rows lie a power of two apart
            ahead = t * bands + b + 2
            later = min(ahead // bands, dates - 1)
            following = addresses[ahead % bands] + np.int64(4 * (later * step + start))
            prefetch_planes(floats_at(following, width), 0, 1, 0, width)
            row = floats_at(addresses[b] + np.int64(4 * (t * step + start)), width)
            for i in range(width):
                # zero times any number is zero, times NaN or infinity it is NaN
                total[i] += row[i] * np.float32(0.0)
        end = rows[t * PITCH : t * PITCH + width]
        for i in range(width):
            here = np.int32(-np.int32(total[i] != total[i]))
            end[i] = np.int32(np.int32(_MAGNITUDE ^ turned[i]) & here)
            # the next missing date goes to the other end
            turned[i] = np.int32(turned[i] ^ here)
            left[i] = np.int32(np.int32(left[i] + np.int32(1)) + here)
    for t in range(dates, size):
        key = rows[(size + 2 + t) * PITCH :][:width]
        for i in range(width):
            key[i] = np.int32(_MAGNITUDE ^ turned[i])
            turned[i] = np.int32(~turned[i])
    odd, enough = rows[size * PITCH :][:width], rows[(size + 1) * PITCH :][:width]
    for i in range(width):
        counts[i] = np.uint16(left[i])
        odd[i] = turned[i]
        enough[i] = np.int32(-np.int32(left[i] >= np.int32(least)))


@inline
def _load(band: int, step: int, dates: int, size: int, width: int, rows: np.ndarray) -> None:
    """Put a band's dates into the keys, integers whose order is that of the numbers.

    Date by date: where an image has a power of two of pixels, all dates of a pixel share a few places of the cache.
    """
    for t in range(dates):
        line = floats_at(int(band + np.int64(4 * t * step)), width).view(np.int32)
        end, key = rows[t * PITCH :][:width], rows[(size + 2 + t) * PITCH :][:width]
        for i in range(width):
            # every step in 32 bits and without a choice: the compiler would take twice as many, or store by a mask
            value = line[i]
            gone = np.int32(-np.int32(end[i] != 0))
            # a negative number's bits grow with its magnitude: turn them round
            turned = np.int32(value ^ np.int32(np.int32(value >> np.int32(31)) & _MAGNITUDE))
            key[i] = np.int32(turned ^ np.int32(np.int32(turned ^ end[i]) & gone))


@intrinsic(prefer_literal=True)
def _medians_of(_: Any, size: Any, rows: Any, out: Any) -> Any:  # noqa: ARG001
    """Median of the keys at the pixels of a vector; addresses of the rows and of the result."""
    if not isinstance(size, types.IntegerLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        _Network(builder).run(size.literal_value, *arguments[1:])
        return context.get_dummy_value()

    return types.void(size, types.int64, types.int64), generate


class _Network:
    """Intermediate code of a network that handles the pixels of a vector at once."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def vector(self, kind: Any) -> Any:
        return ir.VectorType(kind, _VECTOR)

    def number(self, value: float, kind: Any = None) -> Any:
        return ir.Constant(self.vector(kind or ir.IntType(32)), [value] * _VECTOR)

    def load(self, rows: Any, number: int) -> Any:
        place = self.builder.add(rows, ir.Constant(ir.IntType(64), 4 * PITCH * number))
        pointer = self.vector(ir.IntType(32)).as_pointer()
        return self.builder.load(self.builder.inttoptr(place, pointer), align=4)

    def run(self, size: int, rows: Any, out: Any) -> None:
        build = self.builder
        keys = [self.load(rows, size + 2 + t) for t in range(size)]
        for low, high, part in median_pairs(size).tolist():
            a, b = keys[low], keys[high]
            smaller = build.icmp_signed("<", a, b)
            if part != _UPPER:
                keys[low] = build.select(smaller, a, b)
            if part != _LOWER:
                keys[high] = build.select(smaller, b, a)
        first, second = keys[size // 2 - 1], keys[size // 2]
        # with an odd number of dates left the two are one, the lower
        second = build.select(build.icmp_signed("!=", self.load(rows, size), self.number(0)), first, second)
        single = self.vector(ir.FloatType())
        x, y = (build.bitcast(self.turned(key), single) for key in (first, second))
        middle = build.fmul(build.fadd(x, y), self.number(0.5, ir.FloatType()))
        enough = build.icmp_signed("!=", self.load(rows, size + 1), self.number(0))
        middle = build.select(enough, middle, self.number(float("nan"), ir.FloatType()))
        build.store(middle, build.inttoptr(out, single.as_pointer()), align=4)

    def turned(self, bits: Any) -> Any:
        """Integers whose order is that of the numbers: a negative number's bits grow with its magnitude."""
        build = self.builder
        return build.xor(bits, build.and_(build.ashr(bits, self.number(31)), self.number(0x7FFFFFFF)))


@inline
def _median_days(
    days: np.ndarray, order: np.ndarray, rows: np.ndarray, counts: np.ndarray, least: int, out: np.ndarray
) -> None:
    """Median day of the dates that are left, rounded down, as `geococa._kernels.dates.median_days`."""
    width = counts.shape[0]
    seen = np.zeros(width, np.int32)
    low, high = np.zeros(width, np.float32), np.zeros(width, np.float32)
    below, above = np.empty(width, np.int32), np.empty(width, np.int32)
    for i in range(width):
        last = np.int32(counts[i]) - np.int32(1)
        below[i], above[i] = np.int32(last >> 1), np.int32((last + np.int32(1)) >> 1)
    for k in range(order.shape[0]):
        day, end = days[order[k]], rows[order[k] * PITCH : order[k] * PITCH + width]
        for i in range(width):
            here = np.int32(end[i] == 0)
            # added to zero, once, and by arithmetic: a choice would become a masked store, which is slow
            low[i] += day * np.float32(np.int32(here & np.int32(seen[i] == below[i])))
            high[i] += day * np.float32(np.int32(here & np.int32(seen[i] == above[i])))
            seen[i] = np.int32(seen[i] + here)
    enough, nothing = np.int32(max(least, 1)), np.float32(np.nan)
    for i in range(width):
        middle = np.floor((low[i] + high[i]) * np.float32(0.5))
        out[i] = middle if np.int32(counts[i]) >= enough else nothing


@lru_cache(maxsize=MOST_DATES)
def composite_medians(size: int) -> Callable[..., None]:
    """Make the kernel of the median spectrum of at most so many dates.

    Parameters
    ----------
    size : int
        From `network_size`, at most `MOST_DATES`.

    Returns
    -------
    callable
        Of these arguments: ``addresses``, ndarray (bands,) int64 of bands float32 ``(dates, step)``, C-contiguous, NaN =
        missing; ``step``, pixels of a date; ``begin``, first pixel to reduce; ``days``, ndarray (dates,) float32;
        ``least``, dates that a pixel needs, at least 1; ``work``, ndarray (at least 2 * (size + 1) * PITCH,) float32,
        overwritten; and what it writes: ``out``, ndarray (bands, pixels) float32, at least 8 pixels, rows C-contiguous, the median of the dates
        that have all bands, of two middle values their mean in float32 as numpy's, NaN where fewer than ``least`` are left;
        ``counts``, ndarray (pixels,) uint16, those dates; ``day``, ndarray (pixels,) float32, their median day, rounded
        down.
    """

    @kernel
    def run(
        addresses: np.ndarray,
        step: int,
        begin: int,
        days: np.ndarray,
        least: int,
        work: np.ndarray,
        out: np.ndarray,
        counts: np.ndarray,
        day: np.ndarray,
    ) -> None:
        bands, pixels, dates = out.shape[0], out.shape[1], days.shape[0]
        order = np.argsort(days, kind="mergesort")
        start_of_rows = np.int64(work.ctypes.data)
        # by its address: a view of an array counts its uses, which takes longer than the work on a row
        rows = floats_at(int(start_of_rows), 2 * (size + 1) * PITCH).view(np.int32)
        for start in range(0, pixels, LANES):
            # the last vectors and the last strip may take pixels a second time: there is no code for single ones
            width = max(min(LANES, pixels - start), _VECTOR)
            start = min(start, pixels - width)
            here = slice(start, start + width)
            _find_missing(addresses, step, begin + start, dates, size, least, rows, counts[here])
            for b in range(bands):
                _load(addresses[b] + np.int64(4 * (begin + start)), step, dates, size, width, rows)
                target = np.int64(out.ctypes.data) + np.int64(out.strides[0] * b + 4 * start)
                for first in range(0, width, _VECTOR):
                    i = np.int64(4 * min(first, width - _VECTOR))
                    _medians_of(size, start_of_rows + i, target + i)
            _median_days(days, order, rows, counts[here], least, day[here])

    return run
