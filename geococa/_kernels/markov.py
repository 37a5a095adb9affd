"""Hidden Markov chains over the years of every pixel: forward-backward, Viterbi and the counts of EM.

Pixels are worked on in bundles, with the pixel as the innermost index, so that every step of the chain is a
few long vector operations. A bundle's scratch fits in the first cache.
"""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["BUNDLE", "count_transitions", "most_likely_path", "smooth_years"]

BUNDLE = 64
"""Pixels in a bundle."""


@inline
def _load(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    least: float,
    first: int,
    count: int,
    likelihood: np.ndarray,
    seen: np.ndarray,
) -> None:
    """Likelihoods of a bundle; 1 for all classes where a year was not observed."""
    years, classes, _ = probability.shape
    for t in range(years):
        for b in range(count):
            seen[t, b] = True
        for k in range(classes):
            for b in range(count):
                value = np.float64(probability[t, k, first + b])
                if np.isnan(value):
                    seen[t, b] = False
                likelihood[t, k, b] = max(value, least) * inverse_prior[k]
        for b in range(count):
            if not seen[t, b]:
                for k in range(classes):
                    likelihood[t, k, b] = 1.0


@inline
def _forward(
    likelihood: np.ndarray, initial: np.ndarray, steps: np.ndarray, count: int, alpha: np.ndarray, scale: np.ndarray
) -> None:
    """Probability of the class of each year given that year and those before it, scaled to sum 1."""
    years, classes, _ = likelihood.shape
    for t in range(years):
        for b in range(count):
            scale[b] = 0.0
        for k in range(classes):
            if t == 0:
                for b in range(count):
                    alpha[t, k, b] = initial[k]
            else:
                for b in range(count):
                    alpha[t, k, b] = 0.0
                for j in range(classes):
                    weight = steps[t - 1, j, k]
                    for b in range(count):
                        alpha[t, k, b] += alpha[t - 1, j, b] * weight
            for b in range(count):
                alpha[t, k, b] *= likelihood[t, k, b]
                scale[b] += alpha[t, k, b]
        for b in range(count):
            scale[b] = 1.0 / scale[b]
        for k in range(classes):
            for b in range(count):
                alpha[t, k, b] *= scale[b]


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
    for b in range(count):
        scale[b] = 0.0
    for k in range(classes):
        for b in range(count):
            carried[k, b] = likelihood[t + 1, k, b] * beta[k, b]
    for j in range(classes):
        for b in range(count):
            beta[j, b] = 0.0
        for k in range(classes):
            weight = step[j, k]
            for b in range(count):
                beta[j, b] += weight * carried[k, b]
        for b in range(count):
            scale[b] += beta[j, b]
    for b in range(count):
        scale[b] = 1.0 / scale[b]
    for j in range(classes):
        for b in range(count):
            beta[j, b] *= scale[b]


@kernel
def smooth_years(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    steps: np.ndarray,
    least: float,
    fill: bool,
    out: np.ndarray,
) -> None:
    """Posterior class probabilities of every year given all years (forward-backward).

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
    fill : bool
        Write posteriors of unobserved years too, of pixels with any observed year; else they stay NaN.
    out : ndarray of float32, shape (years, classes, pixels)
    """
    years, classes, pixels = probability.shape
    likelihood = np.empty((years, classes, BUNDLE), dtype=np.float64)
    alpha = np.empty((years, classes, BUNDLE), dtype=np.float64)
    beta = np.empty((classes, BUNDLE), dtype=np.float64)
    carried = np.empty((classes, BUNDLE), dtype=np.float64)
    scale = np.empty(BUNDLE, dtype=np.float64)
    seen = np.empty((years, BUNDLE), dtype=np.bool_)
    for first in range(0, pixels, BUNDLE):
        count = min(BUNDLE, pixels - first)
        _load(probability, inverse_prior, least, first, count, likelihood, seen)
        _forward(likelihood, initial, steps, count, alpha, scale)
        beta[:, :] = 1.0
        for t in range(years - 1, -1, -1):
            if t < years - 1:
                _backward(likelihood, steps[t], t, count, beta, carried, scale)
            for b in range(count):
                scale[b] = 0.0
            for k in range(classes):
                for b in range(count):
                    carried[k, b] = alpha[t, k, b] * beta[k, b]
                    scale[b] += carried[k, b]
            for b in range(count):
                scale[b] = 1.0 / scale[b]
            for k in range(classes):
                for b in range(count):
                    out[t, k, first + b] = carried[k, b] * scale[b]
        for b in range(count):
            ever = False
            for t in range(years):
                ever = ever or seen[t, b]
            for t in range(years):
                if not seen[t, b] and not (fill and ever):
                    for k in range(classes):
                        out[t, k, first + b] = np.nan


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
    probability, inverse_prior, initial, steps, least
        As in `smooth_years`.
    path : ndarray of int16, shape (years, pixels)
        Index of the class of each year; -1 where the pixel was never observed.
    """
    years, classes, pixels = probability.shape
    likelihood = np.empty((years, classes, BUNDLE), dtype=np.float64)
    delta = np.empty((classes, BUNDLE), dtype=np.float64)
    ahead = np.empty((classes, BUNDLE), dtype=np.float64)
    came_from = np.empty((years, classes, BUNDLE), dtype=np.int16)
    seen = np.empty((years, BUNDLE), dtype=np.bool_)
    for first in range(0, pixels, BUNDLE):
        count = min(BUNDLE, pixels - first)
        _load(probability, inverse_prior, least, first, count, likelihood, seen)
        for k in range(classes):
            for b in range(count):
                delta[k, b] = initial[k] * likelihood[0, k, b]
        for t in range(1, years):
            for k in range(classes):
                for b in range(count):
                    ahead[k, b] = delta[0, b] * steps[t - 1, 0, k]
                    came_from[t, k, b] = 0
                for j in range(1, classes):
                    weight = steps[t - 1, j, k]
                    for b in range(count):
                        value = delta[j, b] * weight
                        if value > ahead[k, b]:
                            ahead[k, b] = value
                            came_from[t, k, b] = j
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
                ever = ever or seen[t, b]
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
) -> float:
    """Expected number of transitions between classes, the E-step of EM (Baum-Welch).

    Parameters
    ----------
    probability, inverse_prior, initial, steps, least
        As in `smooth_years`. Pixels that were observed in fewer than two years are left out.
    pairs : ndarray of float64, shape (classes, classes)
        Expected transitions from class to class, summed over years and pixels; added to in place.
    starts : ndarray of float64, shape (classes,)
        Expected pixels of each class in the first year; added to in place.

    Returns
    -------
    float
        Log likelihood of the pixels, up to a constant that no parameter changes.
    """
    years, classes, pixels = probability.shape
    likelihood = np.empty((years, classes, BUNDLE), dtype=np.float64)
    alpha = np.empty((years, classes, BUNDLE), dtype=np.float64)
    beta = np.empty((classes, BUNDLE), dtype=np.float64)
    carried = np.empty((classes, BUNDLE), dtype=np.float64)
    scale = np.empty(BUNDLE, dtype=np.float64)
    norm = np.empty(BUNDLE, dtype=np.float64)
    seen = np.empty((years, BUNDLE), dtype=np.bool_)
    used = np.empty(BUNDLE, dtype=np.float64)
    log_likelihood = 0.0
    for first in range(0, pixels, BUNDLE):
        count = min(BUNDLE, pixels - first)
        _load(probability, inverse_prior, least, first, count, likelihood, seen)
        _forward(likelihood, initial, steps, count, alpha, scale)
        for b in range(count):
            observed = 0
            for t in range(years):
                observed += seen[t, b]
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
                    total = 0.0
                    for b in range(count):
                        total += alpha[t, j, b] * carried[k, b] * norm[b]
                    pairs[j, k] += total * steps[t, j, k]
        for b in range(count):
            norm[b] = 0.0
        for k in range(classes):
            for b in range(count):
                norm[b] += alpha[0, k, b] * beta[k, b]
        for k in range(classes):
            for b in range(count):
                starts[k] += used[b] * alpha[0, k, b] * beta[k, b] / norm[b]
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
