"""What a model costs a pixel: the decisions of its trees, or the products of its densities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["decisions_per_pixel", "model_size"]


def decisions_per_pixel(model: Model, X: np.ndarray) -> float:
    """Mean number of comparisons (trees) or multiplications (other models) that a row takes.

    Parameters
    ----------
    model : Model
        Trained model.
    X : numpy.ndarray
        Float ``(rows, features)``, in the model's order, like the pixels to come.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from geococa.models import Model
    >>> tree = DecisionTreeClassifier().fit([[0.2], [0.8]], ["bare_soil", "forest"])
    >>> decisions_per_pixel(Model.from_estimator(tree, features=["ndvi"]), np.array([[0.1], [0.9]]))
    1.0
    """
    if "tree_start" in model.arrays:
        return float(_steps(model.arrays, np.asarray(X)).mean())
    n, k = len(model.features), len(model.classes)
    # a density is a triangular product; whatever else is no tree reads all its numbers for each pixel
    return float(k * n * (n + 1) // 2 if model.kind == "gaussian" else model_size(model))


def model_size(model: Model) -> int:
    """Nodes of all trees, or numbers held by a model without trees."""
    if "feature" in model.arrays:
        return len(model.arrays["feature"])
    return int(sum(array.size for array in model.arrays.values()))


def _steps(arrays: Mapping[str, np.ndarray], X: np.ndarray) -> np.ndarray:
    """Comparisons of each row, summed over trees, int64 ``(rows,)``: all trees one level down at a time."""
    rows = np.arange(len(X))[:, None]
    node = np.repeat(arrays["tree_start"][:-1][None], len(X), axis=0)
    steps = np.zeros(len(X), dtype=np.int64)
    while True:
        feature = arrays["feature"][node]
        inner = feature >= 0
        if not inner.any():
            return steps
        steps += inner.sum(axis=1)
        value = X[rows, np.maximum(feature, 0)]
        with np.errstate(invalid="ignore"):
            left = np.where(np.isnan(value), arrays["missing_left"][node] != 0, value <= arrays["threshold"][node])
        node = np.where(inner, np.where(left, arrays["left"][node], arrays["right"][node]), node)
