"""Training of time-weighted dynamic time warping: one pattern a class, and how distances become probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geococa.errors import InputRefused
from geococa.series_engine import Warping
from geococa.series_names import read_series_names
from geococa.tree_arrays import Parts

if TYPE_CHECKING:
    from geococa.training_methods import TrainingData

__all__ = ["class_patterns", "filled_with_patterns", "train_warping"]

_STEPS = 100
_GOLDEN = 0.6180339887498949


def train_warping(data: TrainingData, used: dict[str, Any]) -> tuple[Parts, dict[str, Any]]:
    """Make the patterns and settings of a model of kind ``twdtw``.

    A pattern is the mean of its class on every date, over the samples that were observed then. A date without any is
    interpolated between its neighbours. With ``smooth_days`` the means are smoothed by local lines, weighted by the
    number of samples and a Gaussian of that standard deviation. The scale of probabilities is the one under which the
    training samples are most likely.
    """
    _check_options(used)
    layout = read_series_names(data.features)
    series = data.X.astype(np.float64)[:, layout.place]
    pattern = class_patterns(series, data.y, layout.days, data.classes, float(used["smooth_days"]))
    arrays = {
        "pattern": pattern,
        "pattern_day": layout.days.copy(),
        "series_day": layout.days.copy(),
        "place": layout.place,
    }
    settings: dict[str, Any] = {
        "alpha": float(used["alpha"]),
        "beta": float(used["beta"]),
        "ends": used["ends"],
        "scale": 1.0,
    }
    distances = Warping(arrays, settings).distances(np.ascontiguousarray(data.X.T))
    known = np.isfinite(distances).all(axis=0)
    if not known.any():
        raise InputRefused("no training sample has a date on which all indices are known")
    own = distances[data.y, np.arange(len(data.y))][known]
    settings["scale"] = _likeliest_scale(distances[:, known], data.y[known])
    if used["rejection"] is not None:
        settings["rejection_distance"] = float(max(np.quantile(own, 1 - float(used["rejection"])), 1e-9))
    return Parts("twdtw", arrays, settings, list(data.classes), source="twdtw"), used


def _check_options(used: dict[str, Any]) -> None:
    limits = {"alpha": (-10.0, 0.0), "beta": (0.0, 366.0), "smooth_days": (0.0, 366.0)}
    for name, (low, high) in limits.items():
        value = used[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InputRefused(f"{name} must lie between {low:g} and {high:g}, got {value!r}")
    if used["ends"] not in ("open", "closed"):
        raise InputRefused(f"ends must be 'open' or 'closed', got {used['ends']!r}")
    share = used["rejection"]
    if share is not None and not 0 < share < 1:
        raise InputRefused(f"rejection must lie between 0 and 1, got {share!r}")


def class_patterns(
    series: np.ndarray, y: np.ndarray, days: np.ndarray, classes: tuple[str, ...], smooth_days: float
) -> np.ndarray:
    """Patterns float64 ``(classes, dates, indices)`` of ``series`` ``(rows, indices, dates)``, NaN = not observed."""
    out = np.empty((len(classes), len(days), series.shape[1]))
    for k, name in enumerate(classes):
        own = series[y == k]
        seen = np.isfinite(own)
        counts = seen.sum(axis=0)
        if not counts.any(axis=1).all():
            raise InputRefused(f"the samples of class {name!r} were observed on no date; add samples or drop the class")
        means = np.where(seen, own, 0.0).sum(axis=0) / np.maximum(counts, 1)
        for b in range(series.shape[1]):
            some = counts[b] > 0
            if smooth_days > 0:
                out[k, :, b] = _local_lines(days[some], means[b, some], counts[b, some], days, smooth_days)
            else:
                out[k, :, b] = np.interp(days, days[some], means[b, some])
    return out


def _local_lines(
    days: np.ndarray, means: np.ndarray, counts: np.ndarray, targets: np.ndarray, bandwidth: float
) -> np.ndarray:
    """Least-squares line around each target day, weighted by counts and a Gaussian of the days between."""
    out = np.empty(len(targets))
    for i, target in enumerate(targets):
        lag = days - target
        # the nearest date counts fully, so that weights do not all vanish in a long gap
        squares = (lag / bandwidth) ** 2
        weight = counts * np.exp(-0.5 * (squares - squares.min()))
        weight /= weight.sum()
        centre, level = (weight * lag).sum(), (weight * means).sum()
        spread = (weight * (lag - centre) ** 2).sum()
        slope = (weight * (lag - centre) * means).sum() / spread if spread > 1e-9 else 0.0
        out[i] = level - slope * centre
    return out


def _likeliest_scale(distances: np.ndarray, y: np.ndarray) -> float:
    """Scale under which the classes of the samples are most likely, by golden section; the loss has one minimum."""
    lead = distances[y, np.arange(len(y))] - distances

    def loss(log_scale: float) -> float:
        # minus the log of a sample's own share is log(sum(exp((own - other) / scale)))
        scores = lead / np.exp(log_scale)
        most = scores.max(axis=0)
        return float(np.mean(most + np.log(np.exp(scores - most).sum(axis=0))))

    low, high = np.log(1e-3), np.log(1e3)
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def filled_with_patterns(values: np.ndarray, labels: np.ndarray, parts: Parts) -> np.ndarray:
    """Rows ``(rows, features)`` with each missing value replaced by that of its class's pattern on the day.

    ``labels`` int ``(rows,)`` are positions among the classes.
    """
    pattern, place = parts.arrays["pattern"], parts.arrays["place"]
    expected = np.empty((len(pattern), values.shape[1]))
    expected[:, place] = pattern.transpose(0, 2, 1)
    return np.where(np.isfinite(values), values, expected[labels])
