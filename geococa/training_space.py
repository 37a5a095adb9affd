"""Feature space of the training data: the points that are kept, and how far a pixel lies from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["MOST_POINTS", "TrainingSet", "make_training_set"]

MOST_POINTS = 2000
"""Training points that a model keeps unless told otherwise."""

_PAIRED = 4000  # rows whose pairs give the mean distance; with more, a draw of so many
_MOST_AXES = 200  # beyond it the search runs in the features themselves


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Training points of a model, and the distances among them that say what is far.

    Attributes
    ----------
    points : numpy.ndarray
        float32 ``(points, features)``: every training row, or with many rows a subset that covers them.
    scaling : numpy.ndarray
        float64 ``(3, features)``: mean and standard deviation of the features in all training rows, and the weight of
        the standardised feature (its importance, mean 1; all 1 where it is not known).
    mean_distance : float
        Mean distance between two training rows, standardised and weighted.
    threshold : float
        Largest dissimilarity that counts as inside.
    covering : float
        Largest dissimilarity of a training row to the nearest kept point; 0 where all are kept.
    rows : int
        Training rows that the points stand for.
    folds : int
        Spatial folds behind the threshold; 0 where each row was compared with all other rows.
    """

    points: np.ndarray
    scaling: np.ndarray
    mean_distance: float
    threshold: float
    covering: float
    rows: int
    folds: int

    @property
    def weighted(self) -> bool:
        """Whether features are weighted by importance."""
        return bool((self.scaling[2] != 1).any())

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays for the model file."""
        return {"training_points": self.points, "training_scaling": self.scaling}

    def facts(self) -> dict[str, Any]:
        """Plain values for the model file's header."""
        names = ("mean_distance", "threshold", "covering", "rows", "folds")
        return {name: getattr(self, name) for name in names}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_search"}

    @cached_property
    def _search(self) -> tuple[np.ndarray, Any]:
        """Matrix from centred features to the axes of the search, and the tree of points on them."""
        from scipy.spatial import cKDTree

        from geococa._kernels import nearest

        factor = self.scaling[2] / self.scaling[1]
        scaled = (self.points.astype(np.float64) - self.scaling[0]) * factor
        size = len(factor)
        axes = np.eye(size)
        if size <= _MOST_AXES:
            # distances do not change when axes are turned, and a tree splits well along principal axes
            nearest.principal_axes(scaled - scaled.mean(axis=0), 6, np.empty((size, size)), axes)
        matrix = np.ascontiguousarray(factor[:, None] * axes)
        return matrix, cKDTree(self._on_axes(np.ascontiguousarray(self.points.T), matrix))

    def prepare(self) -> None:
        """Build the search now, so that threads find it instead of each building its own."""
        _ = self._search

    def _on_axes(self, planes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        from geococa._kernels import nearest

        out = np.empty((planes.shape[1], matrix.shape[1]))
        nearest.on_axes(planes, np.ascontiguousarray(self.scaling[0]), matrix, out)
        return out

    def dissimilarity(self, planes: np.ndarray) -> np.ndarray:
        """Distance to the nearest training point over the mean distance, float64 ``(pixels,)``.

        Parameters
        ----------
        planes : numpy.ndarray
            float32 or float64 ``(features, pixels)``, finite.
        """
        matrix, tree = self._search
        distance, _ = tree.query(self._on_axes(np.ascontiguousarray(planes), matrix))
        found: np.ndarray = distance / self.mean_distance
        return found


def make_training_set(
    values: np.ndarray,
    *,
    folds: np.ndarray | None = None,
    importance: np.ndarray | None = None,
    most: int = MOST_POINTS,
    seed: int = 0,
) -> TrainingSet | None:
    """Keep the training points of a model and measure the distances among them.

    Parameters
    ----------
    values : numpy.ndarray
        ``(rows, features)``, finite; rounded to float32 as in training.
    folds : numpy.ndarray, optional
        int ``(rows,)``: rows are compared with those of other folds only; with all other rows where not given.
    importance : numpy.ndarray, optional
        ``(features,)``, not negative, not all zero.
    most : int
        Points kept at most.
    seed : int
        Of the draw of rows whose pairs give the mean distance.

    Returns
    -------
    TrainingSet or None
        None with fewer than three rows, or where all rows are the same.
    """
    from geococa._kernels import nearest

    rows = np.ascontiguousarray(values, dtype=np.float32).astype(np.float64)
    if len(rows) < 3:
        return None
    spread = rows.std(axis=0, ddof=1)
    spread[spread == 0] = 1.0
    weight = np.ones(rows.shape[1]) if importance is None else importance * (len(importance) / importance.sum())
    scaling = np.stack([rows.mean(axis=0), spread, weight])
    scaled = (rows - scaling[0]) / spread * weight
    mean_distance = _mean_distance(scaled, seed)
    if not mean_distance > 0:
        return None
    chosen, covering = np.arange(len(rows)), 0.0
    if len(rows) > most:
        chosen, squared = np.empty(most, np.int64), np.empty(len(rows))
        nearest.farthest_points(scaled, int((scaled**2).sum(axis=1).argmin()), squared, chosen)
        chosen.sort()
        covering = float(np.sqrt(squared.max()) / mean_distance)
    known = folds is not None and len(np.unique(folds)) > 1
    distance = _to_other_folds(scaled, chosen, folds) if known and folds is not None else _to_others(scaled, chosen)
    return TrainingSet(
        rows[chosen].astype(np.float32),
        scaling,
        mean_distance,
        upper_whisker(distance[np.isfinite(distance)] / mean_distance),
        covering,
        len(rows),
        len(np.unique(folds)) if known and folds is not None else 0,
    )


def upper_whisker(values: np.ndarray) -> float:
    """Largest value that is not more than 1.5 interquartile ranges above the upper quartile."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(values[values <= high + 1.5 * (high - low)].max())


def _mean_distance(scaled: np.ndarray, seed: int) -> float:
    from scipy.spatial.distance import pdist

    if len(scaled) > _PAIRED:
        scaled = scaled[np.sort(np.random.default_rng(seed).choice(len(scaled), _PAIRED, replace=False))]
    return float(pdist(scaled).mean())


def _to_others(scaled: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Distance of each row to the nearest kept point that is another row."""
    from scipy.spatial import cKDTree

    two, _ = cKDTree(scaled[chosen]).query(scaled, k=2)
    kept = np.zeros(len(scaled), dtype=bool)
    kept[chosen] = True
    return np.asarray(np.where(kept, two[:, 1], two[:, 0]))


def _to_other_folds(scaled: np.ndarray, chosen: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Distance of each row to the nearest kept point of another fold; infinite where there is none."""
    from scipy.spatial import cKDTree

    distance = np.full(len(scaled), np.inf)
    for fold in np.unique(folds):
        others = chosen[folds[chosen] != fold]
        if len(others):
            here = folds == fold
            distance[here], _ = cKDTree(scaled[others]).query(scaled[here])
    return distance
