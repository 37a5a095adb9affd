"""Which changes between observed years a hidden Markov chain supports, and the path that keeps those that are worth it.

One pixel at a time, on its observed years only: a gap of several years is one step by a power of the yearly matrix.
"""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["candidate_support", "decide_path", "follow_path"]


@inline
def _observed(probability: np.ndarray, pixel: int, at: np.ndarray, seen: np.ndarray) -> int:
    """Positions of the observed years of a pixel and the most probable class of each; returns how many there are."""
    years, classes, _ = probability.shape
    count = 0
    for t in range(years):
        best, missing = 0, False
        for k in range(classes):
            value = probability[t, k, pixel]
            missing = missing or value != value
            if value > probability[t, best, pixel]:
                best = k
        if not missing:
            at[count], seen[count] = t, best
            count += 1
    return count


@inline
def _support(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    powers: np.ndarray,
    years: np.ndarray,
    least: float,
    pixel: int,
    at: np.ndarray,
    count: int,
    likelihood: np.ndarray,
    alpha: np.ndarray,
    beta: np.ndarray,
    share: np.ndarray,
    stay: np.ndarray,
) -> None:
    """Posterior ``share`` of each class in each observed year, and of being in it both then and the year before."""
    classes = initial.shape[0]
    for n in range(count):
        for k in range(classes):
            likelihood[n, k] = max(float(probability[at[n], k, pixel]), least) * inverse_prior[k]
    for n in range(count):
        total = 0.0
        for k in range(classes):
            ahead = initial[k]
            if n > 0:
                step = powers[years[at[n]] - years[at[n - 1]]]
                ahead = 0.0
                for j in range(classes):
                    ahead += alpha[n - 1, j] * step[j, k]
            alpha[n, k] = ahead * likelihood[n, k]
            total += alpha[n, k]
        for k in range(classes):
            alpha[n, k] /= total
    for k in range(classes):
        beta[count - 1, k] = 1.0
        share[count - 1, k] = alpha[count - 1, k]
    for n in range(count - 2, -1, -1):
        step = powers[years[at[n + 1]] - years[at[n]]]
        total = 0.0
        for j in range(classes):
            behind = 0.0
            for k in range(classes):
                behind += step[j, k] * likelihood[n + 1, k] * beta[n + 1, k]
            beta[n, j] = behind
            total += alpha[n, j] * behind
        for k in range(classes):
            share[n, k] = alpha[n, k] * beta[n, k] / total
            stay[n + 1, k] = alpha[n, k] * step[k, k] * likelihood[n + 1, k] * beta[n + 1, k] / total
        largest = 0.0
        for j in range(classes):
            largest = max(largest, beta[n, j])
        for j in range(classes):
            beta[n, j] /= largest


@kernel
def candidate_support(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    powers: np.ndarray,
    years: np.ndarray,
    least: float,
    classes_out: np.ndarray,
    support_out: np.ndarray,
) -> None:
    """Posterior probability of the changes that labels of each year by itself show.

    Parameters
    ----------
    probability, inverse_prior, initial, least
        As in `markov.smooth_years`, in double precision.
    powers : ndarray of float64, shape (longest gap + 1, classes, classes)
        Powers of the yearly transition matrix.
    years : ndarray of int64, shape (years,)
        Year of each time, rising.
    classes_out : ndarray of int16, shape (years, 2, pixels)
        Class that the labels show as lost since the observed year before, and as gained; -1 where they show none.
    support_out : ndarray of float64, shape (years, 2, pixels)
        Probability that this class was indeed lost, or gained, between these two years.
    """
    times, classes, pixels = probability.shape
    at, seen = np.empty(times, dtype=np.int64), np.empty(times, dtype=np.int64)
    likelihood, alpha = np.empty((times, classes)), np.empty((times, classes))
    beta, share, stay = np.empty((times, classes)), np.empty((times, classes)), np.empty((times, classes))
    classes_out[:] = -1
    support_out[:] = 0.0
    for i in range(pixels):
        count = _observed(probability, i, at, seen)
        if count < 2:
            continue
        _support(
            probability,
            inverse_prior,
            initial,
            powers,
            years,
            least,
            i,
            at,
            count,
            likelihood,
            alpha,
            beta,
            share,
            stay,
        )
        for n in range(1, count):
            old, new = seen[n - 1], seen[n]
            if old != new:
                classes_out[at[n], 0, i], classes_out[at[n], 1, i] = old, new
                support_out[at[n], 0, i] = share[n - 1, old] - stay[n, old]
                support_out[at[n], 1, i] = share[n, new] - stay[n, new]


@inline
def _reward(support: float, shown: bool, weight: float, unseen_weight: float) -> float:
    """What a change is worth: its weight if it is true, -1 if it is not; nothing for a class of no weight."""
    if weight == 0.0:
        return 0.0
    return (weight if shown else unseen_weight) * support - (1.0 - support)


@inline
def _blinks(seen: np.ndarray, count: int, weights: np.ndarray) -> bool:
    """Whether the most probable classes of the observed years come to or leave a class that has a weight."""
    for n in range(1, count):
        old, new = seen[n - 1], seen[n]
        if old != new and (weights[old] > 0.0 or weights[new] > 0.0):
            return True
    return False


@kernel
def decide_path(
    probability: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    powers: np.ndarray,
    years: np.ndarray,
    least: float,
    weights: np.ndarray,
    unseen_weight: float,
    agreement: float,
    path: np.ndarray,
) -> None:
    """Classes of the observed years whose changes are worth most, by the posterior of each change.

    Parameters
    ----------
    probability, inverse_prior, initial, powers, years, least
        As in `candidate_support`.
    weights : ndarray of float64, shape (classes,)
        False changes of a class that one true change outweighs, where labels of each year by itself show it; 0: its
        changes count for nothing by themselves.
    unseen_weight : float
        The same for changes that these labels do not show.
    agreement : float
        Worth of a year that is in its class, beside that of changes.
    path : ndarray of int16, shape (years, pixels)
        Class of each observed year; -1 where not observed, and for pixels whose labels of each year by itself show no
        change of a class that has a weight.
    """
    times, classes, pixels = probability.shape
    at, seen = np.empty(times, dtype=np.int64), np.empty(times, dtype=np.int64)
    likelihood, alpha = np.empty((times, classes)), np.empty((times, classes))
    beta, share, stay = np.empty((times, classes)), np.empty((times, classes)), np.empty((times, classes))
    came_from = np.empty((times, classes), dtype=np.int64)
    worth, ahead, leave = np.empty(classes), np.empty(classes), np.empty(classes)
    path[:] = -1
    for i in range(pixels):
        count = _observed(probability, i, at, seen)
        if not _blinks(seen, count, weights):
            continue
        _support(
            probability,
            inverse_prior,
            initial,
            powers,
            years,
            least,
            i,
            at,
            count,
            likelihood,
            alpha,
            beta,
            share,
            stay,
        )
        for k in range(classes):
            worth[k] = agreement * share[0, k]
        for n in range(1, count):
            old, new = seen[n - 1], seen[n]
            for k in range(classes):
                shown = k == old and k != new
                leave[k] = worth[k] + _reward(share[n - 1, k] - stay[n, k], shown, weights[k], unseen_weight)
            for k in range(classes):
                shown = k == new and k != old
                come = _reward(share[n, k] - stay[n, k], shown, weights[k], unseen_weight)
                best, origin = worth[k], k
                for j in range(classes):
                    if j != k and leave[j] + come > best:
                        best, origin = leave[j] + come, j
                ahead[k] = best + agreement * share[n, k]
                came_from[n, k] = origin
            for k in range(classes):
                worth[k] = ahead[k]
        last = 0
        for k in range(1, classes):
            if worth[k] > worth[last]:
                last = k
        for n in range(count - 1, -1, -1):
            path[at[n], i] = last
            if n > 0:
                last = came_from[n, last]


@kernel
def follow_path(path: np.ndarray, probability: np.ndarray) -> None:
    """Make the classes of a path the most probable ones, in place, and of unobserved years one of the classes beside them.

    Parameters
    ----------
    path : ndarray of int16, shape (years, pixels)
        From `decide_path`.
    probability : ndarray of float32, shape (years, classes, pixels)
        Posterior probabilities; NaN stays. Where another class is more probable, the one of the path is raised to just
        above it and all are divided by their sum.
    """
    times, classes, pixels = probability.shape
    for i in range(pixels):
        before = -1
        for t in range(times):
            chosen = path[t, i]
            if chosen >= 0:
                before = chosen
            elif probability[t, 0, i] == probability[t, 0, i]:
                after = np.int16(-1)
                for later in range(t + 1, times):
                    if path[later, i] >= 0:
                        after = path[later, i]
                        break
                chosen = before if before >= 0 else after
                if before >= 0 and after >= 0 and probability[t, after, i] > probability[t, before, i]:
                    chosen = after
            if chosen < 0 or probability[t, 0, i] != probability[t, 0, i]:
                continue
            highest = 0.0
            for k in range(classes):
                if k != chosen:
                    highest = max(highest, float(probability[t, k, i]))
            raised = max(float(probability[t, chosen, i]), 1.001 * highest)
            if raised == probability[t, chosen, i]:
                continue
            total = raised
            for k in range(classes):
                if k != chosen:
                    total += float(probability[t, k, i])
            for k in range(classes):
                value = raised if k == chosen else float(probability[t, k, i])
                probability[t, k, i] = value / total
