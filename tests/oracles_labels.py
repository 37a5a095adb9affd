"""Slow, plain references for the label stages: pixel by pixel, in the words of their definitions."""

from __future__ import annotations

import itertools

import numpy as np


def window_mean(probability, half):
    """Mean over the observed pixels of each window, (classes, rows, columns), in float64."""
    classes, rows, columns = probability.shape
    out = np.full(probability.shape, np.nan)
    for y, x in itertools.product(range(rows), range(columns)):
        window = probability[:, max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1].reshape(classes, -1)
        seen = window[:, ~np.isnan(window).any(axis=0)].astype(float)
        if not np.isnan(probability[:, y, x]).any():
            out[:, y, x] = seen.mean(axis=1)
    return out


def window_bayes(probability, half, smoothness, least):
    """Logit of each pixel shrunk to its window's mean by the window's variance, then normalised."""
    classes, rows, columns = probability.shape
    out = np.full(probability.shape, np.nan)
    for y, x in itertools.product(range(rows), range(columns)):
        if np.isnan(probability[:, y, x]).any():
            continue
        window = probability[:, max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1].reshape(classes, -1)
        p = np.clip(window[:, ~np.isnan(window).any(axis=0)].astype(float), least, 1 - least)
        logit = np.log(p / (1 - p))
        own = np.clip(probability[:, y, x].astype(float), least, 1 - least)
        variance, mean = logit.var(axis=1), logit.mean(axis=1)
        shrunk = (variance * np.log(own / (1 - own)) + smoothness * mean) / (variance + smoothness)
        posterior = 1 / (1 + np.exp(-shrunk))
        out[:, y, x] = posterior / posterior.sum()
    return out


def majority(codes, half, missing):
    out = codes.copy()
    for y, x in itertools.product(*map(range, codes.shape)):
        if codes[y, x] == missing:
            continue
        window = codes[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1].ravel()
        votes = np.bincount(window[window != missing], minlength=256)
        winners = np.flatnonzero(votes == votes.max())
        out[y, x] = codes[y, x] if codes[y, x] in winners else winners[0]
    return out


def components(codes, connectivity, missing=255):
    """Numbers of the components by flood fill, in the order of first cells; -1 for missing."""
    number = np.full(codes.shape, -1, dtype=int)
    rows, columns = codes.shape
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    if connectivity == 8:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    count = 0
    for y, x in itertools.product(range(rows), range(columns)):
        if number[y, x] >= 0 or codes[y, x] == missing:
            continue
        stack = [(y, x)]
        number[y, x] = count
        while stack:
            r, c = stack.pop()
            for dy, dx in steps:
                a, b = r + dy, c + dx
                if 0 <= a < rows and 0 <= b < columns and number[a, b] < 0 and codes[a, b] == codes[r, c]:
                    number[a, b] = count
                    stack.append((a, b))
        count += 1
    return number, steps


def sieve(codes, weights, least, connectivity, missing=255):
    """Small components take the class of their largest large neighbour, in rounds from the outside in."""
    number, steps = components(codes, connectivity, missing)
    count = number.max() + 1
    size = [float(weights[number == i].sum()) for i in range(count)]
    code = [int(codes[number == i][0]) for i in range(count)]
    beside = [set() for _ in range(count)]
    rows, columns = codes.shape
    for y, x in itertools.product(range(rows), range(columns)):
        for dy, dx in steps:
            a, b = y + dy, x + dx
            if (
                0 <= a < rows
                and 0 <= b < columns
                and -1 not in (number[y, x], number[a, b])
                and number[y, x] != number[a, b]
            ):
                beside[number[y, x]].add(number[a, b])
    target = {i: (size[i], code[i]) for i in range(count) if size[i] >= least}
    while True:
        found = {}
        for i in set(range(count)) - set(target):
            offers = [target[j] for j in beside[i] if j in target]
            if offers:
                found[i] = max(offers, key=lambda offer: (offer[0], -offer[1]))
        if not found:
            break
        target |= found
    out = codes.copy()
    for i, (_, new) in target.items():
        out[number == i] = new
    return out


def forward_backward(likelihood, initial, steps):
    """Posterior of every year of one pixel, (years, classes), all in log space."""
    years, _ = likelihood.shape
    with np.errstate(divide="ignore"):
        log_l, log_s, log_i = np.log(likelihood), np.log(steps), np.log(initial)
    alpha, beta = np.empty_like(log_l), np.zeros_like(log_l)
    alpha[0] = log_i + log_l[0]
    for t in range(1, years):
        alpha[t] = np.logaddexp.reduce(alpha[t - 1][:, None] + log_s[t - 1], axis=0) + log_l[t]
    for t in range(years - 2, -1, -1):
        beta[t] = np.logaddexp.reduce(log_s[t] + (log_l[t + 1] + beta[t + 1])[None, :], axis=1)
    joint = alpha + beta
    return np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])


def best_path(likelihood, initial, steps):
    """Most likely path of one pixel by trying all of them, in log space."""
    years, classes = likelihood.shape
    with np.errstate(divide="ignore"):
        log_l, log_s, log_i = np.log(likelihood), np.log(steps), np.log(initial)
    best, best_value = None, -np.inf
    for path in itertools.product(range(classes), repeat=years):
        value = log_i[path[0]] + log_l[0, path[0]]
        for t in range(1, years):
            value += log_s[t - 1, path[t - 1], path[t]] + log_l[t, path[t]]
        if value > best_value:
            best, best_value = path, value
    return list(best)


def pair_counts(likelihood, initial, steps):
    """Expected transitions and starts of one pixel, by summing over all paths."""
    years, classes = likelihood.shape
    pairs, starts, whole = np.zeros((classes, classes)), np.zeros(classes), 0.0
    for path in itertools.product(range(classes), repeat=years):
        weight = initial[path[0]] * likelihood[0, path[0]]
        for t in range(1, years):
            weight *= steps[t - 1, path[t - 1], path[t]] * likelihood[t, path[t]]
        whole += weight
        starts[path[0]] += weight
        for a, b in itertools.pairwise(path):
            pairs[a, b] += weight
    return pairs / whole, starts / whole, np.log(whole)
