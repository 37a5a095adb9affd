"""Calibration of class probabilities: one increasing map for each class, then shares that sum to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geococa._checks import optional_import
from geococa.errors import InputRefused

__all__ = ["METHODS", "Calibration", "fit_calibration"]

METHODS = ("isotonic", "sigmoid")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Maps from a classifier's probabilities to calibrated ones.

    With two classes there is one map, that of the second class; with more there is one for each class, and the
    results are divided by their sum (where all are zero, every class gets the same).

    Attributes
    ----------
    method : {"isotonic", "sigmoid"}
        Isotonic: straight lines between knots. Sigmoid: ``1 / (1 + exp(a p + b))``.
    start : numpy.ndarray
        int64 ``(maps + 1,)``: first row of each map in ``table``.
    table : numpy.ndarray
        float64 ``(rows, 2)``: knots (probability, calibrated probability) of isotonic maps, or ``a, b`` of sigmoids.
    rows : int
        Samples that the maps were fitted to.
    origin : str
        Where these samples came from.
    """

    method: str
    start: np.ndarray
    table: np.ndarray
    rows: int
    origin: str

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays for the model file."""
        return {"calibration_start": self.start, "calibration_table": self.table}

    def facts(self) -> dict[str, Any]:
        """Plain values for the model file's header."""
        return {"method": self.method, "rows": self.rows, "origin": self.origin}

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities float64 ``(classes, pixels)`` of the classifier's own."""
        if len(probabilities) == 2:
            second = self._map(0, probabilities[1])
            return np.stack([1.0 - second, second])
        out = np.stack([self._map(k, row) for k, row in enumerate(probabilities)])
        total = out.sum(axis=0)
        uniform = np.full_like(out, 1.0 / len(out))
        shares: np.ndarray = np.divide(out, total, out=uniform, where=total != 0)
        return shares

    def _map(self, number: int, values: np.ndarray) -> np.ndarray:
        part = self.table[self.start[number] : self.start[number + 1]]
        if self.method == "isotonic":
            return np.interp(values, part[:, 0], part[:, 1])
        score = part[0, 0] * values + part[0, 1]
        small = np.exp(-np.abs(score))
        return np.asarray(np.where(score >= 0, small, 1.0) / (1.0 + small))


def fit_calibration(probabilities: np.ndarray, y: np.ndarray, method: str, *, origin: str = "") -> Calibration:
    """Fit the maps.

    Parameters
    ----------
    probabilities : numpy.ndarray
        float64 ``(rows, classes)`` of a classifier that has not seen these rows.
    y : numpy.ndarray
        int ``(rows,)``, index of the true class; every class occurs.
    method : {"isotonic", "sigmoid"}
        Kind of map.
    origin : str
        Where the rows come from, kept with the maps.

    References
    ----------
    Platt, J. (1999), Probabilistic outputs for support vector machines, in: Advances in Large Margin Classifiers,
    61-74. Zadrozny, B. and Elkan, C. (2002), Transforming classifier scores into accurate multiclass probability
    estimates, KDD 2002, 694-699.
    """
    if method not in METHODS:
        raise InputRefused(f"unknown calibration {method!r}; known are {', '.join(METHODS)}")
    calibrators = _fitted(np.asarray(probabilities, np.float64), np.asarray(y, np.int64), method)
    if method == "isotonic":
        knots = [np.column_stack([found.X_thresholds_, found.y_thresholds_]) for found in calibrators]
    else:
        knots = [np.array([[found.a_, found.b_]]) for found in calibrators]
    start = np.concatenate([[0], np.cumsum([len(part) for part in knots])]).astype(np.int64)
    return Calibration(method, start, np.concatenate(knots).astype(np.float64), len(y), origin)


def _fitted(probabilities: np.ndarray, y: np.ndarray, method: str) -> list[Any]:
    """Let scikit-learn fit its calibrators to probabilities that are there already."""
    calibration = optional_import("sklearn.calibration", "ml")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """A classifier whose features are its probabilities."""

        def __init__(self) -> None:
            self.classes_ = np.arange(probabilities.shape[1])
            self.n_features_in_ = probabilities.shape[1]

        def fit(self, X: np.ndarray, y: np.ndarray) -> Any:
            return self

        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            return X

        def predict(self, X: np.ndarray) -> np.ndarray:
            return np.asarray(X.argmax(axis=1))

    try:
        from sklearn.frozen import FrozenEstimator

        # one fold would refit; a frozen estimator is only asked, and its answers on all rows are pooled
        ensemble = calibration.CalibratedClassifierCV(FrozenEstimator(Given()), method=method, cv=2, ensemble=False)
    except ImportError:  # scikit-learn before 1.6
        ensemble = calibration.CalibratedClassifierCV(Given(), method=method, cv="prefit")
    ensemble.fit(probabilities, y)
    return list(ensemble.calibrated_classifiers_[0].calibrators)
