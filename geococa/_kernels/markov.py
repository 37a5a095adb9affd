"""Hidden Markov chains over the years of every pixel: Viterbi and the counts of EM; `year_lanes` has the posterior.

Pixels are worked on in bundles, with the pixel as the innermost index, so that every step of the chain is a
few long vector operations. A bundle's scratch fits in the second-level cache; with shorter bundles the many rows that are
read and written (one for each year and class) came from memory in pieces too short to be fetched ahead.
"""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["BUNDLE", "count_transitions", "most_likely_path"]

BUNDLE = 512
"""Pixels in a bundle."""


@inline
def _load(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    least: float,
    first: int,
    count: int,
    likelihood: np.ndarray,
    gap: np.ndarray,
) -> bool:
    """Likelihoods of a bundle; 1 for all classes where a year was not observed, which ``gap`` marks with 1.

    Returns whether anything is missing.
    """
    years, classes, _ = probability.shape
    one = likelihood.dtype.type(1)
    gaps = 0
    for t in range(years):
        missing = gap[t]
        for b in range(count):
            missing[b] = 0
        for k in range(classes):
            source, target, factor = probability[t, k, first : first + count], likelihood[t, k], inverse_prior[k]
            for b in range(count):
                value = source[b]
                target[b] = (value if value > least else least) * factor
                missing[b] |= np.uint8(value != value)
        any_missing = np.uint8(0)
        for b in range(count):
            any_missing |= missing[b]
        if any_missing:
            gaps += 1
            for k in range(classes):
                target = likelihood[t, k]
                for b in range(count):
                    # a choice between one and what is there would become a masked store, which is slow
                    here = target.dtype.type(missing[b])
                    target[b] = target[b] * (one - here) + here
    return gaps > 0


@inline
def _mix(rows: np.ndarray, weights: np.ndarray, count: int, total: np.ndarray) -> None:
    """Weighted sum of the rows of a bundle, (classes, BUNDLE) to (BUNDLE,).

    Four rows a pass, or the sums would be stored and read again for every row.
    """
    classes = rows.shape[0]
    whole = classes - classes % 4
    for k in range(0, whole, 4):
        p, q, r, s = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        u, v, w, x = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        if k == 0:
            for b in range(count):
                total[b] = (p[b] * u + q[b] * v) + (r[b] * w + s[b] * x)
        else:
            for b in range(count):
                total[b] += (p[b] * u + q[b] * v) + (r[b] * w + s[b] * x)
    for k in range(whole, classes):
        row, weight = rows[k], weights[k]
        if k == 0:
            for b in range(count):
                total[b] = row[b] * weight
        else:
            for b in range(count):
                total[b] += row[b] * weight


@inline
def _rescale(rows: np.ndarray, count: int, scale: np.ndarray) -> None:
    """Divide a bundle by ``scale``, which turns into its reciprocal."""
    one = rows.dtype.type(1)
    for b in range(count):
        scale[b] = one / scale[b]
    for k in range(rows.shape[0]):
        row = rows[k]
        for b in range(count):
            row[b] *= scale[b]


@inline
def _times(
    left: np.ndarray, right: np.ndarray, first: bool, count: int, product: np.ndarray, scale: np.ndarray
) -> None:
    """Product of two rows, and the sum of such products; the ``first`` one starts the sum."""
    if first:
        for b in range(count):
            value = left[b] * right[b]
            product[b] = value
            scale[b] = value
        return
    for b in range(count):
        value = left[b] * right[b]
        product[b] = value
        scale[b] += value


@inline
def _forward(
    likelihood: np.ndarray,
    initial: np.ndarray,
    steps: np.ndarray,
    count: int,
    alpha: np.ndarray,
    scale: np.ndarray,
    total: np.ndarray,
) -> None:
    """Probability of the class of each year given that year and those before it, scaled to sum 1."""
    years, classes, _ = likelihood.shape
    for t in range(years):
        for k in range(classes):
            if t == 0:
                for b in range(count):
                    total[b] = initial[k]
            else:
                _mix(alpha[t - 1], steps[t - 1, :, k], count, total)
            _times(total, likelihood[t, k], k == 0, count, alpha[t, k], scale)
        _rescale(alpha[t], count, scale)


@inline
def _backward(
    likelihood: np.ndarray,
    step: np.ndarray,
    t: int,
    count: int,
    beta: np.ndarray,
    carried: np.ndarray,
    scale: np.ndarray,
) -> None:
    """Turn ``beta`` of year ``t + 1`` into that of year ``t``, scaled; ``carried`` gets likelihood times the old beta."""
    classes = step.shape[0]
    for k in range(classes):
        seen, old, target = likelihood[t + 1, k], beta[k], carried[k]
        for b in range(count):
            target[b] = seen[b] * old[b]
    for j in range(classes):
        _mix(carried, step[j], count, beta[j])
        target = beta[j]
        if j == 0:
            for b in range(count):
                scale[b] = target[b]
        else:
            for b in range(count):
                scale[b] += target[b]
    _rescale(beta, count, scale)


@kernel
def most_likely_path(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    steps: np.ndarray,
    least: float,
    path: np.ndarray,
) -> None:
    """Most likely sequence of classes of every pixel (Viterbi); ties go to the first class.

    Parameters
    ----------
    probability : ndarray of float32, shape (years, classes, pixels)
        NaN in any class = year not observed.
    inverse_prior : ndarray of float64, shape (classes,)
        1 / share of each class that the classifier assumed: probability times this is the likelihood.
    initial : ndarray of float64, shape (classes,)
        Class probabilities before the first year is seen.
    steps : ndarray of float64, shape (years - 1, classes, classes)
        Transition matrix from each year to the next in the array, rows = from, sums to 1.
    least : float
        Probabilities below this count as this, so that no single year can rule a class out.
    path : ndarray of int16, shape (years, pixels)
        Index of the class of each year; -1 where the pixel was never observed.
    """
    years, classes, pixels = probability.shape
    likelihood = np.empty((years, classes, BUNDLE), dtype=np.float64)
    delta = np.empty((classes, BUNDLE), dtype=np.float64)
    ahead = np.empty((classes, BUNDLE), dtype=np.float64)
    came_from = np.empty((years, classes, BUNDLE), dtype=np.int16)
    gap = np.empty((years, BUNDLE), dtype=np.uint8)
    for first in range(0, pixels, BUNDLE):
        count = min(BUNDLE, pixels - first)
        _load(probability, inverse_prior, least, first, count, likelihood, gap)
        for k in range(classes):
            for b in range(count):
                delta[k, b] = initial[k] * likelihood[0, k, b]
        for t in range(1, years):
            for k in range(classes):
                highest, best_from = ahead[k], came_from[t, k]
                source, weight = delta[0], steps[t - 1, 0, k]
                for b in range(count):
                    highest[b] = source[b] * weight
                    best_from[b] = 0
                for j in range(1, classes):
                    source, weight, number = delta[j], steps[t - 1, j, k], np.int16(j)
                    for b in range(count):
                        value, old = source[b] * weight, highest[b]
                        best_from[b] = number if value > old else best_from[b]
                        highest[b] = max(value, old)
            for b in range(count):
                peak = 0.0
                for k in range(classes):
                    delta[k, b] = ahead[k, b] * likelihood[t, k, b]
                    peak = max(peak, delta[k, b])
                # a power of two changes no comparison
                if peak < 1e-150:
                    for k in range(classes):
                        delta[k, b] *= 2.0**480
        for b in range(count):
            best = 0
            ever = False
            for k in range(1, classes):
                if delta[k, b] > delta[best, b]:
                    best = k
            for t in range(years - 1, -1, -1):
                ever = ever or gap[t, b] == 0
                path[t, first + b] = best
                if t > 0:
                    best = came_from[t, best, b]
            if not ever:
                for t in range(years):
                    path[t, first + b] = -1


@kernel
def count_transitions(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    steps: np.ndarray,
    least: float,
    pairs: np.ndarray,
    starts: np.ndarray,
    likely: bool = True,
) -> float:
    """Expected number of transitions between classes, the E-step of EM (Baum-Welch).

    Parameters
    ----------
    probability, inverse_prior, initial, steps, least
        As in `most_likely_path`. Pixels that were observed in fewer than two years are left out.
    pairs : ndarray of float64, shape (classes, classes)
        Expected transitions from class to class, summed over years and pixels; added to in place.
    starts : ndarray of float64, shape (classes,)
        Expected pixels of each class in the first year; added to in place.
    likely : bool
        Whether to work out the likelihood too, which takes as long as the rest.

    Returns
    -------
    float
        Log likelihood of the pixels, up to a constant that no parameter changes; 0 without ``likely``.
    """
    years, classes, pixels = probability.shape
    likelihood = np.empty((years, classes, BUNDLE), dtype=np.float64)
    alpha = np.empty((years, classes, BUNDLE), dtype=np.float64)
    beta = np.empty((classes, BUNDLE), dtype=np.float64)
    carried = np.empty((classes, BUNDLE), dtype=np.float64)
    scale = np.empty(BUNDLE, dtype=np.float64)
    norm = np.empty(BUNDLE, dtype=np.float64)
    gap = np.empty((years, BUNDLE), dtype=np.uint8)
    total = np.empty(BUNDLE, dtype=np.float64)
    used = np.empty(BUNDLE, dtype=np.float64)
    log_likelihood = 0.0
    for first in range(0, pixels, BUNDLE):
        count = min(BUNDLE, pixels - first)
        _load(probability, inverse_prior, least, first, count, likelihood, gap)
        _forward(likelihood, initial, steps, count, alpha, scale, total)
        for b in range(count):
            observed = 0
            for t in range(years):
                observed += 1 - gap[t, b]
            used[b] = 1.0 if observed >= 2 else 0.0
        beta[:, :] = 1.0
        for t in range(years - 2, -1, -1):
            _backward(likelihood, steps[t], t, count, beta, carried, scale)
            for b in range(count):
                norm[b] = 0.0
            for j in range(classes):
                for b in range(count):
                    norm[b] += alpha[t, j, b] * beta[j, b]
            # beta was scaled after the product, so the same scale applies to each pair
            for b in range(count):
                norm[b] = used[b] * scale[b] / norm[b]
            for j in range(classes):
                for k in range(classes):
                    joint = 0.0
                    for b in range(count):
                        joint += alpha[t, j, b] * carried[k, b] * norm[b]
                    pairs[j, k] += joint * steps[t, j, k]
        for b in range(count):
            norm[b] = 0.0
        for k in range(classes):
            for b in range(count):
                norm[b] += alpha[0, k, b] * beta[k, b]
        for k in range(classes):
            for b in range(count):
                starts[k] += used[b] * alpha[0, k, b] * beta[k, b] / norm[b]
        if likely:
            log_likelihood += _log_likelihood(likelihood, initial, steps, count, used, alpha)
    return log_likelihood


@inline
def _log_likelihood(
    likelihood: np.ndarray, initial: np.ndarray, steps: np.ndarray, count: int, used: np.ndarray, alpha: np.ndarray
) -> float:
    """Sum over a bundle of the log of the scales that `_forward` took out."""
    years, classes, _ = likelihood.shape
    total = 0.0
    for b in range(count):
        if used[b] == 0.0:
            continue
        for t in range(years):
            scale = 0.0
            for k in range(classes):
                ahead = initial[k]
                if t > 0:
                    ahead = 0.0
                    for j in range(classes):
                        ahead += alpha[t - 1, j, b] * steps[t - 1, j, k]
                scale += ahead * likelihood[t, k, b]
            total += np.log(scale)
    return total
