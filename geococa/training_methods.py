"""Training methods: each takes samples as arrays and the user's options, and returns the arrays of a model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geococa._checks import optional_import
from geococa.errors import GeococaError, InputRefused
from geococa.estimators import convert, gaussian_parts
from geococa.tree_arrays import Parts

__all__ = ["METHODS", "TAKES_MISSING", "TrainingData", "fit_estimator", "naming_faults", "take_options"]


@dataclass(frozen=True)
class TrainingData:
    """What a method trains on: ``X`` float32 ``(rows, features)``, ``y`` int ``(rows,)`` from 0."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    classes: tuple[str, ...]
    seed: int
    threads: int
    features: tuple[str, ...] = ()


_Result = tuple[Parts, dict[str, Any]]


def fit_estimator(
    estimator_class: Any, data: TrainingData, defaults: dict[str, Any], options: dict[str, Any], fixed: dict[str, Any]
) -> _Result:
    """Fit a scikit-learn style estimator and convert it."""
    known = set(estimator_class().get_params())
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputRefused(
            f"unknown options {', '.join(unknown)}; {estimator_class.__name__} takes {', '.join(sorted(known))}"
        )
    clash = sorted(set(options) & set(fixed))
    if clash:
        raise InputRefused(f"options {', '.join(clash)} are set by geococa: use seed=, threads= and class_weight=")
    chosen = {**defaults, **options}
    estimator = estimator_class(**chosen, **fixed)
    # histogram boosting takes no number of threads, and would start one for each processor
    threads = optional_import("threadpoolctl", "ml").threadpool_limits(data.threads)
    with warnings.catch_warnings(), threads:
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        estimator.fit(data.X, data.y, sample_weight=data.weight)
    return replace(convert(estimator), importance=_importance(estimator)), chosen


def _importance(estimator: Any) -> np.ndarray | None:
    """Return the importance of each feature as the source measures it; None where it does not, or all are zero."""
    found = np.asarray(getattr(estimator, "feature_importances_", ()), dtype=np.float64)
    usable = found.size and np.isfinite(found).all() and (found >= 0).all() and found.any()
    return found if usable else None


def _random_forest(data: TrainingData, options: dict[str, Any]) -> _Result:
    ensemble = optional_import("sklearn.ensemble", "ml")
    defaults = {"n_estimators": 100, "max_depth": 20, "min_samples_leaf": 2, "max_features": "sqrt"}
    return fit_estimator(
        ensemble.RandomForestClassifier, data, defaults, options, {"random_state": data.seed, "n_jobs": data.threads}
    )


def _extra_trees(data: TrainingData, options: dict[str, Any]) -> _Result:
    ensemble = optional_import("sklearn.ensemble", "ml")
    defaults = {"n_estimators": 100, "max_depth": 20, "min_samples_leaf": 2, "max_features": "sqrt"}
    return fit_estimator(
        ensemble.ExtraTreesClassifier, data, defaults, options, {"random_state": data.seed, "n_jobs": data.threads}
    )


def _hist_gradient_boosting(data: TrainingData, options: dict[str, Any]) -> _Result:
    ensemble = optional_import("sklearn.ensemble", "ml")
    defaults = {"max_iter": 100, "max_leaf_nodes": 31, "early_stopping": False}
    return fit_estimator(ensemble.HistGradientBoostingClassifier, data, defaults, options, {"random_state": data.seed})


def _lightgbm(data: TrainingData, options: dict[str, Any]) -> _Result:
    lightgbm = optional_import("lightgbm", "boosting")
    defaults = {"n_estimators": 100, "num_leaves": 31, "learning_rate": 0.1}
    fixed = {
        "random_state": data.seed,
        "n_jobs": data.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    known = {name: value for name, value in fixed.items() if name in ("random_state", "n_jobs")}

    # LightGBM passes names that its wrapper does not list on to the library
    def estimator_class(**chosen: Any) -> Any:
        return lightgbm.LGBMClassifier(
            **chosen, **({} if not chosen else {k: v for k, v in fixed.items() if k not in known})
        )

    estimator_class.__name__ = "LGBMClassifier"
    return fit_estimator(estimator_class, data, defaults, options, known)


def _xgboost(data: TrainingData, options: dict[str, Any]) -> _Result:
    xgboost = optional_import("xgboost", "boosting")
    defaults = {"n_estimators": 100, "max_depth": 6, "learning_rate": 0.1, "tree_method": "hist"}
    return fit_estimator(
        xgboost.XGBClassifier, data, defaults, options, {"random_state": data.seed, "n_jobs": data.threads}
    )


def _catboost(data: TrainingData, options: dict[str, Any]) -> _Result:
    catboost = optional_import("catboost", "catboost")
    known = {
        "iterations", "depth", "learning_rate", "l2_leaf_reg", "border_count", "random_strength", "rsm", "subsample",
        "bootstrap_type", "bagging_temperature", "min_data_in_leaf", "max_leaves", "grow_policy", "loss_function",
        "leaf_estimation_iterations", "leaf_estimation_method", "boosting_type", "feature_border_type",
    }  # fmt: skip
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputRefused(f"unknown options {', '.join(unknown)}; catboost takes {', '.join(sorted(known))} here")
    chosen = {"iterations": 200, "depth": 6, "learning_rate": 0.1, **options}
    estimator = catboost.CatBoostClassifier(
        **chosen, random_seed=data.seed, thread_count=data.threads, verbose=False, allow_writing_files=False
    )
    estimator.fit(data.X, data.y, sample_weight=data.weight)
    return convert(estimator), chosen


@contextmanager
def naming_faults(method: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Say which method and options a library refuses, in whatever kind of error it has."""
    try:
        yield
    except GeococaError:
        raise
    except Exception as error:  # each library has kinds of its own
        shown = ", ".join(f"{name}={value!r:.60}" for name, value in options.items()) or "its defaults"
        raise InputRefused(f"method {method!r} can't be trained with {shown}: {error}") from error


def take_options(options: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return the defaults with the user's options in their place; refuse options that have no default."""
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise InputRefused(f"unknown options {', '.join(unknown)}; this method takes {', '.join(defaults)}")
    return {**defaults, **options}


def _moments(data: TrainingData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class means, covariances (unbiased) and counts."""
    X = data.X.astype(np.float64)
    counts = np.bincount(data.y, minlength=len(data.classes))
    needed = X.shape[1] + 1
    few = [f"{name} ({n})" for name, n in zip(data.classes, counts, strict=True) if n < needed]
    if few:
        raise InputRefused(
            f"{X.shape[1]} features need at least {needed} samples a class for its covariance, too few of "
            f"{', '.join(few)}; add samples or drop features"
        )
    groups = [X[data.y == k] for k in range(len(data.classes))]
    mean = np.stack([group.mean(axis=0) for group in groups])
    covariance = np.stack([np.atleast_2d(np.cov(group, rowvar=False)) for group in groups])
    return mean, covariance, counts


def _priors(chosen: Any, classes: tuple[str, ...], counts: np.ndarray) -> np.ndarray:
    if isinstance(chosen, Mapping):
        values = np.asarray([float(chosen.get(name, np.nan)) for name in classes])
        if not np.isfinite(values).all() or (values <= 0).any() or set(chosen) != set(classes):
            raise InputRefused(f"priors must give a positive number for each of {list(classes)}, got {dict(chosen)}")
    elif chosen in ("equal", "samples"):
        values = np.ones(len(classes)) if chosen == "equal" else counts.astype(np.float64)
    else:
        raise InputRefused(f"priors must be 'equal', 'samples' or a mapping by class, got {chosen!r}")
    return values / values.sum()


def _reject(parts: Parts, rejection: float | None, n_features: int) -> Parts:
    """Leave pixels unclassified that are further from their class than all but ``rejection`` of its own pixels.

    The squared Mahalanobis distance of a normal class follows the chi-square distribution with one degree of
    freedom a feature.
    """
    if rejection is None:
        return parts
    if not 0 < rejection < 1:
        raise InputRefused(f"rejection must lie between 0 and 1, got {rejection!r}")
    from scipy.stats import chi2

    parts.settings["rejection_distance"] = float(chi2.isf(rejection, n_features))
    return parts


def _gaussian(data: TrainingData, options: dict[str, Any]) -> _Result:
    used = take_options(options, priors="equal", rejection=None, regularisation=0.0)
    mean, covariance, counts = _moments(data)
    share = float(used["regularisation"])
    if not 0 <= share <= 1:
        raise InputRefused(f"regularisation must lie between 0 and 1, got {share!r}")
    diagonal = np.stack([np.diag(np.diag(matrix)) for matrix in covariance])
    covariance = (1 - share) * covariance + share * diagonal
    parts = gaussian_parts(
        mean, covariance, _priors(used["priors"], data.classes, counts), list(data.classes), "gaussian"
    )
    return _reject(parts, used["rejection"], data.X.shape[1]), used


def _mahalanobis(data: TrainingData, options: dict[str, Any]) -> _Result:
    """One covariance for all classes, so that the nearest class in Mahalanobis distance wins (with equal priors)."""
    used = take_options(options, priors="equal", rejection=None)
    mean, covariance, counts = _moments(data)
    pooled = np.einsum("k,kij->ij", (counts - 1) / (counts - 1).sum(), covariance)
    stack = np.repeat(pooled[None], len(mean), axis=0)
    parts = gaussian_parts(
        mean, stack, _priors(used["priors"], data.classes, counts), list(data.classes), "mahalanobis"
    )
    return _reject(parts, used["rejection"], data.X.shape[1]), used


def _minimum_distance(data: TrainingData, options: dict[str, Any]) -> _Result:
    """One spherical covariance for all classes, so that the nearest mean in plain distance wins."""
    used = take_options(options, rejection=None)
    mean, covariance, counts = _moments(data)
    variance = float(np.average(np.trace(covariance, axis1=1, axis2=2), weights=counts - 1) / data.X.shape[1])
    stack = np.repeat(variance * np.eye(data.X.shape[1])[None], len(mean), axis=0)
    prior = np.full(len(mean), 1 / len(mean))
    parts = gaussian_parts(mean, stack, prior, list(data.classes), "minimum_distance")
    return _reject(parts, used["rejection"], data.X.shape[1]), used


def _spectral_angle(data: TrainingData, options: dict[str, Any]) -> _Result:
    used = take_options(options, rejection_angle_rad=None)
    X = data.X.astype(np.float64)
    length = np.linalg.norm(X, axis=1, keepdims=True)
    if (length == 0).any():
        raise InputRefused("a training row is all zero and has no direction; drop it before training spectral_angle")
    unit = X / length
    direction = np.stack([unit[data.y == k].mean(axis=0) for k in range(len(data.classes))])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    own = np.arccos(np.clip((unit * direction[data.y]).sum(axis=1), -1, 1))
    settings = {"spread_rad": float(max(np.sqrt(np.mean(own**2)), 1e-6))}
    if used["rejection_angle_rad"] is not None:
        settings["rejection_angle_rad"] = float(used["rejection_angle_rad"])
    return Parts(
        "spectral_angle", {"direction": direction}, settings, list(data.classes), source="spectral_angle"
    ), used


def _twdtw(data: TrainingData, options: dict[str, Any]) -> _Result:
    """Patterns of index series; see `geococa.series_training.train_warping`."""
    from geococa.series_training import train_warping

    used = take_options(options, alpha=-0.1, beta=50.0, ends="open", smooth_days=0.0, rejection=None)
    return train_warping(data, used)


METHODS: dict[str, Callable[[TrainingData, dict[str, Any]], _Result]] = {
    "random_forest": _random_forest,
    "extra_trees": _extra_trees,
    "hist_gradient_boosting": _hist_gradient_boosting,
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
    "gaussian": _gaussian,
    "mahalanobis": _mahalanobis,
    "minimum_distance": _minimum_distance,
    "spectral_angle": _spectral_angle,
    "twdtw": _twdtw,
}
"""Training methods by name."""

TAKES_MISSING = frozenset({"twdtw"})
"""Methods that train and classify with some features missing."""
