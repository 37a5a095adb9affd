"""Which changes between observed years a hidden Markov chain supports, and the path that keeps those that are worth it.

One pixel at a time, on its observed years only: a gap of several years is one step by a power of the yearly matrix.
"""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["change_support", "follow_path", "worthiest_path"]


@inline
def _forward(
    likelihood: np.ndarray,
    initial: np.ndarray,
    powers: np.ndarray,
    years: np.ndarray,
    shown: np.ndarray,
    alpha: np.ndarray,
) -> None:
    """Probability of the class of each observed year given that year and those before it, scaled to sum 1."""
    times, classes = likelihood.shape
    before = -1
    for t in range(times):
        if shown[t] < 0:
            continue
        total = 0.0
        for k in range(classes):
            ahead = initial[k]
            if before >= 0:
                step = powers[years[t] - years[before]]
                ahead = 0.0
                for j in range(classes):
                    ahead += alpha[before, j] * step[j, k]
            alpha[t, k] = ahead * likelihood[t, k]
            total += alpha[t, k]
        for k in range(classes):
            alpha[t, k] /= total
        before = t


@inline
def _backward(
    likelihood: np.ndarray,
    powers: np.ndarray,
    years: np.ndarray,
    shown: np.ndarray,
    alpha: np.ndarray,
    beta: np.ndarray,
    share: np.ndarray,
    moved: np.ndarray,
) -> None:
    """Posterior ``share`` of each class, and of losing and gaining it, in each observed year from the last to the first."""
    times, classes = likelihood.shape
    after = -1
    for t in range(times - 1, -1, -1):
        if shown[t] < 0:
            continue
        if after < 0:
            for k in range(classes):
                beta[t, k] = 1.0
                share[t, k] = alpha[t, k]
            after = t
            continue
        step = powers[years[after] - years[t]]
        total, largest = 0.0, 0.0
        for j in range(classes):
            behind = 0.0
            for k in range(classes):
                behind += step[j, k] * likelihood[after, k] * beta[after, k]
            beta[t, j] = behind
            total += alpha[t, j] * behind
            largest = max(largest, behind)
        for k in range(classes):
            share[t, k] = alpha[t, k] * beta[t, k] / total
            both = alpha[t, k] * step[k, k] * likelihood[after, k] * beta[after, k] / total
            moved[0, after, k] = share[t, k] - both
            moved[1, after, k] = share[after, k] - both
        for k in range(classes):
            beta[t, k] /= largest
        after = t


@kernel
def change_support(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    powers: np.ndarray,
    years: np.ndarray,
    least: float,
    shown: np.ndarray,
    share: np.ndarray,
    moved: np.ndarray,
) -> None:
    """Posterior probability of each class, and of losing and gaining it, in the observed years of every pixel.

    Parameters
    ----------
    probability, inverse_prior, initial, least
        As in `markov.most_likely_path`, in double precision but for ``probability``.
    powers : ndarray of float64, shape (longest gap + 1, classes, classes)
        Powers of the yearly transition matrix.
    years : ndarray of int64, shape (years,)
        Year of each time, rising.
    shown : ndarray of int16, shape (years, pixels)
        Most probable class of each year by itself, -1 where not observed.
    share : ndarray of float64, shape (pixels, years, classes)
        Probability of each class; only observed years are written.
    moved : ndarray of float64, shape (pixels, 2, years, classes)
        Probability that a class was lost (0) or gained (1) since the observed year before; only observed years but the
        first are written.
    """
    times, classes, pixels = probability.shape
    likelihood, alpha, beta = np.empty((times, classes)), np.empty((times, classes)), np.empty((times, classes))
    for i in range(pixels):
        for t in range(times):
            if shown[t, i] >= 0:
                for k in range(classes):
                    likelihood[t, k] = max(float(probability[t, k, i]), least) * inverse_prior[k]
        _forward(likelihood, initial, powers, years, shown[:, i], alpha)
        _backward(likelihood, powers, years, shown[:, i], alpha, beta, share[i], moved[i])


@inline
def _reward(support: float, shown: bool, weight: float, unseen_weight: float) -> float:
    """What a change is worth: its weight if it is true, -1 if it is not; nothing for a class of no weight."""
    if weight == 0.0:
        return 0.0
    return (weight if shown else unseen_weight) * support - (1.0 - support)


@kernel
def worthiest_path(
    shown: np.ndarray,
    share: np.ndarray,
    moved: np.ndarray,
    weights: np.ndarray,
    unseen_weight: float,
    agreement: float,
    path: np.ndarray,
) -> None:
    """Classes of the observed years whose changes have the highest expected worth (dynamic programming).

    Parameters
    ----------
    shown, share, moved
        From `change_support`.
    weights : ndarray of float64, shape (classes,)
        False changes of a class that one true change outweighs, where labels of each year by itself show it; 0: its
        changes count for nothing by themselves.
    unseen_weight : float
        The same for changes that these labels do not show.
    agreement : float
        Worth of a year that is in its class, beside that of changes.
    path : ndarray of int16, shape (years, pixels)
        Class of each observed year, -1 where not observed; ties keep the class, else go to the first.
    """
    times, pixels = shown.shape
    classes = weights.shape[0]
    came_from = np.empty((times, classes), dtype=np.int16)
    worth, ahead, leave = np.empty(classes), np.empty(classes), np.empty(classes)
    for i in range(pixels):
        before = -1
        for t in range(times):
            if shown[t, i] < 0:
                continue
            if before < 0:
                for k in range(classes):
                    worth[k], came_from[t, k] = agreement * share[i, t, k], k
            else:
                old, new = shown[before, i], shown[t, i]
                for k in range(classes):
                    seen = k == old and k != new
                    leave[k] = worth[k] + _reward(moved[i, 0, t, k], seen, weights[k], unseen_weight)
                for k in range(classes):
                    seen = k == new and k != old
                    come = _reward(moved[i, 1, t, k], seen, weights[k], unseen_weight)
                    best, origin = worth[k], k
                    for j in range(classes):
                        if j != k and leave[j] + come > best:
                            best, origin = leave[j] + come, j
                    ahead[k] = best + agreement * share[i, t, k]
                    came_from[t, k] = origin
                worth[:] = ahead
            before = t
        chosen = 0
        for k in range(1, classes):
            if worth[k] > worth[chosen]:
                chosen = k
        for t in range(times - 1, -1, -1):
            path[t, i] = -1
            if shown[t, i] >= 0:
                path[t, i] = chosen
                chosen = came_from[t, chosen]


@inline
def _beside(path: np.ndarray, probability: np.ndarray, t: int, pixel: int, before: int) -> int:
    """Class for a year that was not observed: the more probable one of the observed years before and after it."""
    for later in range(t + 1, path.shape[0]):
        after = path[later, pixel]
        if after >= 0:
            return after if before < 0 or probability[t, after, pixel] > probability[t, before, pixel] else before
    return before


@inline
def _lift(probability: np.ndarray, t: int, pixel: int, chosen: int) -> None:
    """Raise a class to just above the others and divide all by their sum, where it is not the most probable already."""
    classes = probability.shape[1]
    highest = 0.0
    for k in range(classes):
        if k != chosen:
            highest = max(highest, float(probability[t, k, pixel]))
    raised = max(float(probability[t, chosen, pixel]), 1.001 * highest)
    if raised == probability[t, chosen, pixel]:
        return
    total = raised
    for k in range(classes):
        if k != chosen:
            total += float(probability[t, k, pixel])
    for k in range(classes):
        probability[t, k, pixel] = (raised if k == chosen else float(probability[t, k, pixel])) / total


@kernel
def follow_path(path: np.ndarray, probability: np.ndarray) -> None:
    """Make the classes of a path the most probable ones, in place, and of unobserved years one of the classes beside them.

    Parameters
    ----------
    path : ndarray of int16, shape (years, pixels)
        From `worthiest_path`, of pixels that were observed.
    probability : ndarray of float32, shape (years, classes, pixels)
        Posterior probabilities; NaN stays. Where another class is more probable, the one of the path is raised to just
        above it and all are divided by their sum.
    """
    times, pixels = path.shape
    for i in range(pixels):
        before = -1
        for t in range(times):
            if path[t, i] >= 0:
                before = path[t, i]
            if np.isnan(probability[t, 0, i]):
                continue
            _lift(probability, t, i, before if path[t, i] >= 0 else _beside(path, probability, t, i, before))
