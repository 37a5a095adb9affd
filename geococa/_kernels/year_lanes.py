"""Hidden Markov chains over the years of every pixel, with pixels side by side: posterior probabilities and labels.

All values of a year lie in one block of rows, and the next year's block follows it: a row of likelihoods for each class, a row of
forward probabilities for each class, and a row that hides what was not observed. The distances between rows are known when
compiling, and so is the number of classes: it is the length of ``classes``, a tuple of zeros that is passed for nothing else.
The sums over classes are then unrolled and the loops over pixels vectorised, with no check for rows that overlap.

A bundle of pixels is read and written in runs of `BUNDLE`, which memory fetches ahead, and worked on in strips of `STRIP`, of
which two years fit in the first-level cache. Nothing is chosen by a masked store, which is slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["BUNDLE", "PITCH", "STRIP", "block_size", "label_years", "load_year", "smooth_years"]

BUNDLE = 1024
"""Pixels read and written at a time."""
STRIP = 256
"""Pixels worked on at a time."""
PITCH = BUNDLE + STRIP + 16
"""Distance between rows: near a power of two, the strips of all rows would compete for the same places of the cache."""
_LEAST_PEAK = np.float32(1e-30)


@inline
def block_size(classes: Any) -> int:
    """Values in the block of a year."""
    return (2 * len(classes) + 1) * PITCH


@inline
def _plain(
    probability: Any, t: int, first: int, count: int, factors: Any, least: Any, block: Any, classes: Any
) -> None:
    """Likelihoods of a year, and in the last row the sum of its probabilities, which is NaN where any is."""
    hide = block[2 * len(classes) * PITCH :]
    for k in range(len(classes)):
        source, row, factor = probability[t, k, first : first + count], block[k * PITCH : k * PITCH + count], factors[k]
        if k == 0:
            for b in range(count):
                value = source[b]
                row[b] = (value if value > least else least) * factor
                hide[b] = value
        else:
            for b in range(count):
                value = source[b]
                row[b] = (value if value > least else least) * factor
                hide[b] += value


@inline
def _powered(
    probability: Any,
    t: int,
    first: int,
    count: int,
    factors: Any,
    least: Any,
    power: float,
    block: Any,
    classes: Any,
) -> None:
    """As `_plain`, of likelihoods relative to the largest of the year and raised to a power."""
    n = len(classes)
    hide = block[2 * n * PITCH :]
    for k in range(n):
        source, row, factor = probability[t, k, first : first + count], block[k * PITCH : k * PITCH + count], factors[k]
        if k == 0:
            for b in range(count):
                value = source[b] * factor
                row[b] = value
                hide[b] = value
        else:
            for b in range(count):
                value = source[b] * factor
                row[b] = value
                hide[b] += value
    one, lowest = block.dtype.type(1), block.dtype.type(_LEAST_PEAK)
    for b in range(BUNDLE):
        peak = lowest
        for k in range(n):
            value = block[k * PITCH + b]
            peak = value if value > peak else peak
        scale = one / peak
        for k in range(n):
            block[k * PITCH + b] *= scale
    # products give the same bytes on every processor, which a library's power does not; the rows of the forward
    # probabilities are free until these are worked out
    rows, base = block[: n * PITCH], block[n * PITCH : 2 * n * PITCH]
    base[:] = rows
    for _ in range(1, int(power)):
        for i in range(n * PITCH):
            rows[i] *= base[i]
    if power > int(power):
        for i in range(n * PITCH):
            rows[i] *= np.sqrt(base[i])
    for i in range(n * PITCH):
        rows[i] = rows[i] if rows[i] > least else least


@inline
def load_year(
    probability: Any,
    t: int,
    first: int,
    count: int,
    factors: Any,
    least: Any,
    power: float,
    block: Any,
    classes: Any,
) -> bool:
    """Likelihoods of a year of a bundle, 1 for all classes where it was not observed.

    The last row of the block becomes NaN there and 0 elsewhere. Returns whether anything is missing.
    """
    if power == 1.0:
        _plain(probability, t, first, count, factors, least, block, classes)
    else:
        _powered(probability, t, first, count, factors, least, power, block, classes)
    n = len(classes)
    one, nothing = block.dtype.type(1), block.dtype.type(0)
    hide = block[2 * n * PITCH : 2 * n * PITCH + count]
    missing = 0
    for b in range(count):
        missing += hide[b] != hide[b]
        hide[b] *= nothing
    if missing == 0:
        return False
    for k in range(n):
        row = block[k * PITCH : k * PITCH + count]
        for b in range(count):
            gap = one if hide[b] != hide[b] else nothing
            row[b] = row[b] * (one - gap) + gap
    return True


@inline
def _forward(step: Any, blocks: Any, classes: Any) -> None:
    """Forward probabilities of the second of two years from those of the first."""
    row = len(classes) * PITCH
    year = 2 * row + PITCH
    for k in range(len(classes)):
        for b in range(STRIP):
            total = blocks[row + b] * step[k]
            for j in range(1, len(classes)):
                total += blocks[row + j * PITCH + b] * step[j * len(classes) + k]
            blocks[year + row + k * PITCH + b] = total * blocks[year + k * PITCH + b]


@inline
def _backward(step: Any, blocks: Any, classes: Any) -> None:
    """Multiply likelihoods and forward probabilities of the first of two years by the backward ones.

    The likelihoods of the second year have been multiplied already, which is what makes the next ones of them.
    """
    row = len(classes) * PITCH
    year = 2 * row + PITCH
    for j in range(len(classes)):
        for b in range(STRIP):
            total = blocks[year + b] * step[j * len(classes)]
            for k in range(1, len(classes)):
                total += blocks[year + k * PITCH + b] * step[j * len(classes) + k]
            blocks[j * PITCH + b] *= total
            blocks[row + j * PITCH + b] *= total


@inline
def _rescale(rows: Any, classes: Any) -> None:
    """Divide rows by their sum."""
    one = rows.dtype.type(1)
    for b in range(STRIP):
        total = rows[b]
        for k in range(1, len(classes)):
            total += rows[k * PITCH + b]
        factor = one / total
        for k in range(len(classes)):
            rows[k * PITCH + b] *= factor


@inline
def _settle(initial: Any, steps: Any, every: int, work: Any, classes: Any) -> None:
    """Turn the forward rows of a strip into posterior probabilities, up to a factor for each year."""
    years = steps.shape[0] + 1
    row, year = len(classes) * PITCH, block_size(classes)
    for k in range(len(classes)):
        share = initial[k]
        for b in range(STRIP):
            work[row + k * PITCH + b] = work[k * PITCH + b] * share
    for t in range(1, years):
        _forward(steps[t - 1], work[(t - 1) * year :], classes)
        if t % every == 0:
            _rescale(work[t * year + row :], classes)
    for t in range(years - 2, -1, -1):
        _backward(steps[t], work[t * year :], classes)
        if t % every == 0:
            _rescale(work[t * year :], classes)


@inline
def _only_never_seen(years: int, count: int, work: Any, classes: Any) -> None:
    """Let the last rows hide only the pixels that were observed in no year."""
    size = block_size(classes)
    last = size - PITCH
    for b in range(count):
        seen = 0
        for t in range(years):
            value = work[t * size + last + b]
            seen += value == value
        hide = work.dtype.type(0 if seen else np.nan)
        for t in range(years):
            work[t * size + last + b] = hide


@inline
def _bundle(
    probability: Any,
    factors: Any,
    initial: Any,
    steps: Any,
    least: Any,
    power: float,
    every: int,
    fill: bool,
    first: int,
    count: int,
    work: Any,
    classes: Any,
) -> None:
    """Posterior rows of a bundle, and in the last row of each year the factor that makes them sum to 1, or NaN."""
    years, size = probability.shape[0], block_size(classes)
    gaps = False
    for t in range(years):
        gaps |= load_year(probability, t, first, count, factors, least, power, work[t * size :], classes)
    if gaps and fill:
        _only_never_seen(years, count, work, classes)
    for start in range(0, count, STRIP):
        _settle(initial, steps, every, work[start:], classes)
    for t in range(years):
        _totals(work[t * size : (t + 1) * size], classes)


@inline
def _totals(block: Any, classes: Any) -> None:
    """Add 1 / the sum of the posterior rows to the row that hides."""
    row = len(classes) * PITCH
    one = block.dtype.type(1)
    for b in range(BUNDLE):
        total = block[row + b]
        for k in range(1, len(classes)):
            total += block[row + k * PITCH + b]
        block[2 * row + b] += one / total


@inline
def _put(block: Any, t: int, first: int, count: int, classes: Any, out: Any) -> None:
    """Write the posterior probabilities of a year of a bundle."""
    row = len(classes) * PITCH
    for k in range(len(classes)):
        target = out[t, k, first : first + count]
        for b in range(count):
            target[b] = block[row + k * PITCH + b] * block[2 * row + b]


@inline
def _label(block: Any, t: int, first: int, count: int, classes: Any, table: Any, least: Any, out: Any) -> None:
    """Write the most probable classes of a year of a bundle: the names in ``table``, then the ones of none and not observed."""
    n = len(classes)
    row = n * PITCH
    target = out[t, first : first + count]
    # the number of a class is a float, too, to be chosen as fast as its probability
    for b in range(BUNDLE):
        factor = block[2 * row + b]
        best = np.float32(block[row + b] * factor)
        place = np.float32(0)
        for k in range(1, n):
            value = np.float32(block[row + k * PITCH + b] * factor)
            place = np.float32(k) if value > best else place
            best = value if value > best else best
        place = place if best >= least else np.float32(n)
        block[b] = place if best == best else np.float32(n + 1)
    for b in range(count):
        target[b] = table[np.uint8(np.int32(block[b]))]


@kernel
def smooth_years(
    probability: Any,
    factors: Any,
    initial: Any,
    steps: Any,
    least: Any,
    power: float,
    every: int,
    fill: bool,
    begin: int,
    end: int,
    classes: Any,
    out: Any,
) -> None:
    """Posterior class probabilities of every year given all years (forward-backward).

    Parameters
    ----------
    probability : ndarray of float32, shape (years, classes, pixels)
        NaN in any class = year not observed.
    factors : ndarray of float64 or float32, shape (classes,)
        1 / share of each class that the classifier assumed, at most 1: probability times this is the likelihood.
    initial : ndarray of float64 or float32, shape (classes,)
        Class probabilities before the first year is seen. Its type is the precision of the work, and that of
        the other settings.
    steps : ndarray of float64 or float32, shape (years - 1, classes * classes)
        Transition matrix from each year to the next in the array, row by row (rows = from), sums to 1.
    least : float64 or float32
        Likelihoods below this count as this, so that no single year can rule a class out; before they are multiplied by
        ``factors`` where ``power`` is 1, else after all.
    power : float
        Power of the likelihoods, a whole number or a half more, 1 and above. Other than 1: of the likelihoods relative to
        the largest one of the year.
    every : int
        Years after which the probabilities are scaled. In ``2 * every - 1`` years they may not fall out of the range of their type.
    fill : bool
        Write posteriors of unobserved years too, of pixels with any observed year; else they stay NaN.
    begin, end : int
        First pixel to work on, and the one after the last.
    classes : tuple of int
        As many zeros as there are classes.
    out : ndarray of float32, shape (years, classes, pixels)
        May be ``probability`` itself.
    """
    years = probability.shape[0]
    size = block_size(classes)
    work = np.ones(years * size, dtype=initial.dtype)
    for first in range(begin, end, BUNDLE):
        count = min(BUNDLE, end - first)
        _bundle(probability, factors, initial, steps, least, power, every, fill, first, count, work, classes)
        for t in range(years):
            _put(work[t * size : (t + 1) * size], t, first, count, classes, out)


@kernel
def label_years(
    probability: Any,
    factors: Any,
    initial: Any,
    steps: Any,
    least: Any,
    power: float,
    every: int,
    fill: bool,
    begin: int,
    end: int,
    classes: Any,
    codes: Any,
    min_probability: Any,
    unclassified: int,
    missing: int,
    out: Any,
) -> None:
    """Most probable class of every year given all years: the labels of what `smooth_years` writes.

    Parameters
    ----------
    probability, factors, initial, steps, least, power, every, fill, begin, end, classes
        As in `smooth_years`.
    codes : ndarray of uint8, shape (classes,)
        Code of each class.
    min_probability : float32
        Where the highest probability is below this, the code is ``unclassified``.
    unclassified, missing : int
        Codes of pixels without a class and of pixels that were not observed.
    out : ndarray of uint8, shape (years, pixels)
        Codes. Ties go to the first class.
    """
    years = probability.shape[0]
    n = len(classes)
    size = block_size(classes)
    work = np.ones(years * size, dtype=initial.dtype)
    table = np.empty(n + 2, dtype=np.uint8)
    table[:n] = codes
    table[n], table[n + 1] = unclassified, missing
    for first in range(begin, end, BUNDLE):
        count = min(BUNDLE, end - first)
        _bundle(probability, factors, initial, steps, least, power, every, fill, first, count, work, classes)
        for t in range(years):
            _label(work[t * size : (t + 1) * size], t, first, count, classes, table, min_probability, out)
