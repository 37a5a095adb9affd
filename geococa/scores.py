"""Scores of class predictions by name, from class numbers and probabilities; greater is always better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geococa.errors import InputRefused

__all__ = ["METRICS", "Metric", "Scorer", "class_scores", "count_matrix", "default_metric", "make_scorer"]

Metric = str | Callable[[np.ndarray, np.ndarray], float]
"""Name out of `METRICS`, or a function of reference and predicted class names that returns a number."""

METRICS: dict[str, str] = {
    "f1": "F1 of the positive class",
    "iou": "intersection over union of the positive class",
    "users_accuracy": "user's accuracy (precision) of the positive class",
    "producers_accuracy": "producer's accuracy (recall) of the positive class",
    "overall_accuracy": "share of rows whose class is right",
    "macro_f1": "mean F1 over the classes of the reference",
    "balanced_accuracy": "mean producer's accuracy over the classes of the reference",
    "neg_log_loss": "mean logarithm of the probability of the right class",
    "neg_brier": "minus the mean squared distance of the probabilities from the right class",
}
"""Scores by name, and what each is."""

_OF_POSITIVE = ("f1", "iou", "users_accuracy", "producers_accuracy")
_OF_PROBABILITY = ("neg_log_loss", "neg_brier")


@dataclass(frozen=True)
class Scorer:
    """A score, ready to be called.

    Attributes
    ----------
    name : str
        Its name.
    needs_probability : bool
        Whether it reads probabilities rather than labels.
    """

    name: str
    needs_probability: bool
    _call: Callable[[np.ndarray, np.ndarray], float]

    def __call__(self, reference: np.ndarray, predicted: np.ndarray) -> float:
        """Score class numbers ``(rows,)`` against others, or against probabilities ``(rows, classes)``."""
        return self._call(reference, predicted)


def default_metric(positive: str | None) -> str:
    """Return the score that is meant where none is named."""
    return "macro_f1" if positive is None else "f1"


def make_scorer(metric: Metric | None, classes: Sequence[str], positive: str | None) -> Scorer:
    """Return the score of a name.

    Parameters
    ----------
    metric : str or callable, optional
        Out of `METRICS`; or a function of reference and predicted class names, both str ``(rows,)``. F1 of the positive
        class by default, mean F1 of all where there is none.
    classes : sequence of str
        Classes 0, 1, 2, ...; the number after the last means unclassified.
    positive : str or None
        Class in question.

    Raises
    ------
    InputRefused
        Unknown name, or a score of the positive class where there is none.

    Examples
    --------
    >>> score = make_scorer("f1", ["coca", "forest"], "coca")
    >>> score(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    0.5
    """
    chosen = default_metric(positive) if metric is None else metric
    if callable(chosen):
        names, function = np.asarray([*classes, "unclassified"]), chosen
        label = getattr(function, "__name__", "custom")
        return Scorer(label, False, lambda truth, found: float(function(names[truth], names[found])))
    if chosen not in METRICS:
        raise InputRefused(f"unknown metric {chosen!r}; known are {', '.join(METRICS)}, or give a function")
    if chosen in _OF_PROBABILITY:
        return Scorer(chosen, True, _log_score if chosen == "neg_log_loss" else _brier_score)
    size = len(classes)
    if chosen in _OF_POSITIVE:
        if positive is None or positive not in classes:
            raise InputRefused(
                f"{chosen} is a score of one class, and {positive!r} is not among {', '.join(classes)}; name one with "
                "positive=, or take overall_accuracy, macro_f1 or balanced_accuracy"
            )
        number = list(classes).index(positive)
        return Scorer(chosen, False, lambda t, p: float(class_scores(count_matrix(t, p, size))[chosen][number]))
    if chosen == "overall_accuracy":
        return Scorer(chosen, False, lambda t, p: float(np.mean(t == p)))
    of_class = "f1" if chosen == "macro_f1" else "producers_accuracy"
    return Scorer(chosen, False, lambda t, p: _mean_of_present(count_matrix(t, p, size), of_class))


def count_matrix(reference: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Error matrix int64 ``(size + 1, size)``: rows = predicted (the last: unclassified), columns = reference."""
    flat = np.bincount(predicted.astype(np.int64) * size + reference, minlength=(size + 1) * size)
    return flat.reshape(size + 1, size)


def class_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """User's and producer's accuracy, F1 and IoU of each class, float64 ``(size,)``; NaN where undefined."""
    size = counts.shape[1]
    right = np.diagonal(counts).astype(np.float64)
    mapped, there = counts.sum(axis=1)[:size].astype(np.float64), counts.sum(axis=0).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return {
            "users_accuracy": right / mapped,
            "producers_accuracy": right / there,
            "f1": 2 * right / (mapped + there),
            "iou": right / (mapped + there - right),
        }


def _mean_of_present(counts: np.ndarray, name: str) -> float:
    present = counts.sum(axis=0) > 0
    return float(class_scores(counts)[name][present].mean())


def _log_score(reference: np.ndarray, probability: np.ndarray) -> float:
    of_truth = probability[np.arange(len(reference)), reference]
    # a forest says 0 easily; the usual floor keeps one such row from deciding alone
    return float(np.log(np.maximum(of_truth, np.finfo(np.float32).eps)).mean())


def _brier_score(reference: np.ndarray, probability: np.ndarray) -> float:
    distance = probability.copy()
    distance[np.arange(len(reference)), reference] -= 1.0
    return float(-(distance**2).sum(axis=1).mean())
