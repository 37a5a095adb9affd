"""Moving windows over maps: smoothing of class probabilities and the majority of class codes.

A pixel's result is a sum over its own window in a fixed order (rows from the top, then columns from the
left), never a running sum, so that a block with a halo gives the same bytes as the whole array.
"""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["majority_window", "smooth_bayes", "smooth_mean"]


@inline
def _valid_mask(probability: np.ndarray) -> np.ndarray:
    """1.0 where every class has a value, else 0.0, shape (rows, columns)."""
    classes, rows, columns = probability.shape
    valid = np.ones((rows, columns), dtype=np.float64)
    for k in range(classes):
        for y in range(rows):
            for x in range(columns):
                if np.isnan(probability[k, y, x]):
                    valid[y, x] = 0.0
    return valid


@inline
def _window_sum(plane: np.ndarray, y: int, half: int, column_sum: np.ndarray, out: np.ndarray) -> None:
    """Sum of ``plane`` over the window of every pixel of row ``y``; beyond the edge counts as 0.

    ``column_sum`` is scratch of length columns + 2 half whose margins hold 0.
    """
    rows, columns = plane.shape
    for x in range(columns):
        column_sum[half + x] = 0.0
        out[x] = 0.0
    for row in range(max(y - half, 0), min(y + half, rows - 1) + 1):
        for x in range(columns):
            column_sum[half + x] += plane[row, x]
    for step in range(2 * half + 1):
        for x in range(columns):
            out[x] += column_sum[x + step]


@kernel
def smooth_mean(probability: np.ndarray, half: int, out: np.ndarray) -> None:
    """Mean probability over the observed pixels of the window.

    Parameters
    ----------
    probability : ndarray of float32, shape (classes, rows, columns)
        A pixel with NaN in any class was not observed: it has no say and stays NaN.
    half : int
        Half the window: the window has ``2 half + 1`` cells a side.
    out : ndarray of float32, shape (classes, rows, columns)
    """
    classes, rows, columns = probability.shape
    valid = _valid_mask(probability)
    plane = np.empty((rows, columns), dtype=np.float64)
    scratch = np.zeros(columns + 2 * half, dtype=np.float64)
    total = np.empty(columns, dtype=np.float64)
    count = np.empty(columns, dtype=np.float64)
    for k in range(classes):
        for y in range(rows):
            for x in range(columns):
                plane[y, x] = probability[k, y, x] if valid[y, x] > 0.0 else 0.0
        for y in range(rows):
            _window_sum(valid, y, half, scratch, count)
            _window_sum(plane, y, half, scratch, total)
            for x in range(columns):
                out[k, y, x] = total[x] / count[x] if valid[y, x] > 0.0 else np.nan


@kernel
def smooth_bayes(probability: np.ndarray, half: int, smoothness: np.ndarray, least: float, out: np.ndarray) -> None:
    """Shrink the logit of each class towards the mean of its window, the more the calmer the window.

    Parameters
    ----------
    probability : ndarray of float32, shape (classes, rows, columns)
        A pixel with NaN in any class was not observed: it has no say and stays NaN.
    half : int
        Half the window.
    smoothness : ndarray of float64, shape (classes,)
        Variance of a pixel's own logit about its true value.
    least : float
        Probabilities are clipped to ``least .. 1 - least`` before the logit.
    out : ndarray of float32, shape (classes, rows, columns)
        Smoothed probabilities that sum to 1.
    """
    classes, rows, columns = probability.shape
    valid = _valid_mask(probability)
    logit = np.empty((rows, columns), dtype=np.float64)
    square = np.empty((rows, columns), dtype=np.float64)
    scratch = np.zeros(columns + 2 * half, dtype=np.float64)
    total = np.empty(columns, dtype=np.float64)
    squares = np.empty(columns, dtype=np.float64)
    count = np.empty(columns, dtype=np.float64)
    for k in range(classes):
        for y in range(rows):
            for x in range(columns):
                logit[y, x] = 0.0
                if valid[y, x] > 0.0:
                    p = min(max(np.float64(probability[k, y, x]), least), 1.0 - least)
                    logit[y, x] = np.log(p / (1.0 - p))
                square[y, x] = logit[y, x] * logit[y, x]
        for y in range(rows):
            _window_sum(valid, y, half, scratch, count)
            _window_sum(logit, y, half, scratch, total)
            _window_sum(square, y, half, scratch, squares)
            for x in range(columns):
                if valid[y, x] > 0.0:
                    mean = total[x] / count[x]
                    variance = max(squares[x] / count[x] - mean * mean, 0.0)
                    weight = variance / (variance + smoothness[k]) if smoothness[k] > 0.0 else 1.0
                    shrunk = weight * logit[y, x] + (1.0 - weight) * mean
                    out[k, y, x] = 1.0 / (1.0 + np.exp(-shrunk))
    for y in range(rows):
        for x in range(columns):
            whole = np.float64(0.0)
            for k in range(classes):
                whole += out[k, y, x]
            for k in range(classes):
                out[k, y, x] = out[k, y, x] / whole if valid[y, x] > 0.0 else np.nan


@kernel
def majority_window(codes: np.ndarray, half: int, missing: int, out: np.ndarray) -> None:
    """Most frequent code of the window; a tie keeps the pixel's own code if that is among them, else the lowest.

    Parameters
    ----------
    codes : ndarray of uint8, shape (rows, columns)
    half : int
        Half the window.
    missing : int
        Code of pixels that were not observed: they have no vote and keep it.
    out : ndarray of uint8, shape (rows, columns)
    """
    rows, columns = codes.shape
    votes = np.zeros(256, dtype=np.int32)
    for y in range(rows):
        for x in range(columns):
            own = codes[y, x]
            out[y, x] = own
            if own == missing:
                continue
            top, bottom = max(y - half, 0), min(y + half, rows - 1) + 1
            left, right = max(x - half, 0), min(x + half, columns - 1) + 1
            for row in range(top, bottom):
                for column in range(left, right):
                    votes[codes[row, column]] += 1
            votes[missing] = 0
            best = own
            for row in range(top, bottom):
                for column in range(left, right):
                    code = codes[row, column]
                    more = votes[code] > votes[best]
                    tie = votes[code] == votes[best] and best != own and code < best
                    if more or tie:
                        best = code
            out[y, x] = best
            for row in range(top, bottom):
                for column in range(left, right):
                    votes[codes[row, column]] = 0
