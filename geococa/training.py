"""Training: from a table of reference pixels to the arrays of a model, by the method asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import optional_import
from geococa.errors import InputRefused
from geococa.estimators import Parts, convert, gaussian_parts
from geococa.legend import PALETTE

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["METHODS", "Fitted", "fit", "transition_matrix", "usable_rows"]

_SAMPLE_COLUMNS = frozenset(
    {
        "class",
        "year",
        "row",
        "col",
        "x",
        "y",
        "block",
        "fold",
        "sample",
        "tile",
        "weight",
        "id",
        "fid",
        "index",
        "label",
    }
)
"""Columns of a training table that describe the sample and are not features."""
_MIN_PAIRS = 30
_STAY = 0.9


@dataclass(frozen=True)
class Fitted:
    """A trained method: its arrays, with classes and features in the model's order."""

    parts: Parts
    features: list[str]
    classes: tuple[str, ...]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class _Data:
    """What a method trains on: ``X`` float32 ``(rows, features)``, ``y`` int ``(rows,)`` from 0."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    classes: tuple[str, ...]
    seed: int
    threads: int


def usable_rows(
    samples: pd.DataFrame, features: xr.DataArray | Sequence[str] | None
) -> tuple[pd.DataFrame, list[str], int]:
    """Return the training table without rows that were not observed, its feature names, and how many rows fell out."""
    if "geometry" in getattr(samples, "columns", ()) and isinstance(features, xr.DataArray):
        from geococa.extraction import extract_samples

        frame: GeoDataFrame = samples
        table = extract_samples(frame, features)
        names = [str(name) for name in features["feature"].values]
    else:
        table = pd.DataFrame(samples)
        names = _feature_names(table, features)
    if "class" not in table.columns:
        raise InputRefused(
            f"the samples have no column 'class', only {', '.join(map(str, table.columns[:30]))}; read them "
            "with geococa.read_samples(path, class_column=...)"
        )
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputRefused(
            f"the training table lacks the features {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns[:30]))}"
        )
    if not names:
        raise InputRefused("the training table has no feature column; give features=[names]")
    values = table[names].to_numpy(dtype=np.float64)
    good = np.isfinite(values).all(axis=1) & table["class"].notna().to_numpy()
    if not good.any():
        raise InputRefused(
            f"none of the {len(table)} training rows has every feature and a class; the samples lie outside "
            "the features or on pixels that were not observed"
        )
    return table[good].reset_index(drop=True), names, int((~good).sum())


def _feature_names(table: pd.DataFrame, features: xr.DataArray | Sequence[str] | None) -> list[str]:
    if isinstance(features, xr.DataArray):
        return [str(name) for name in features["feature"].values]
    if isinstance(features, str):
        raise InputRefused(f"features must be a list of names, got the text {features!r}")
    if features is not None:
        return [str(name) for name in features]
    return [
        str(name)
        for name in table.columns
        if str(name) not in _SAMPLE_COLUMNS and pd.api.types.is_numeric_dtype(table[name])
    ]


def fit(
    table: pd.DataFrame,
    features: list[str],
    *,
    method: str,
    seed: int,
    classes: Sequence[str] | None,
    class_weight: str | Mapping[str, float] | None,
    threads: int | None,
    options: Mapping[str, Any],
) -> Fitted:
    """Train one method on a table without missing values; see `geococa.train`."""
    if method not in METHODS:
        raise InputRefused(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if method == "rules":
        return _fit_rules(dict(options))
    found = table["class"].astype(str)
    order = _class_order(found, classes)
    y = found.map({name: i for i, name in enumerate(order)}).to_numpy(dtype=np.int64)
    X = np.ascontiguousarray(table[features].to_numpy(dtype=np.float32))
    data = _Data(X, y, _weights(y, order, class_weight), order, seed, threads or os.cpu_count() or 1)
    parts, used = METHODS[method](data, dict(options))
    provenance = {
        "method": method,
        "seed": seed,
        "options": used,
        "class_weight": class_weight,
        "versions": _versions(),
    }
    return Fitted(parts, list(features), order, provenance)


def _class_order(found: pd.Series, classes: Sequence[str] | None) -> tuple[str, ...]:
    present = set(found)
    if classes is None:
        known = [name for name in PALETTE if name in present]
        order = (*known, *sorted(present - set(known)))
    else:
        order = tuple(str(name) for name in classes)
        if set(order) != present or len(set(order)) != len(order):
            raise InputRefused(
                f"classes are given as {list(order)}, the usable samples have {sorted(present)}; name each once, "
                "and drop or merge the samples of other classes"
            )
    if len(order) < 2:
        raise InputRefused(f"training needs samples of at least 2 classes, the usable rows have only {list(order)}")
    return order


def _weights(y: np.ndarray, classes: tuple[str, ...], chosen: str | Mapping[str, float] | None) -> np.ndarray | None:
    if chosen is None:
        return None
    counts = np.bincount(y, minlength=len(classes))
    if isinstance(chosen, str):
        if chosen != "balanced":
            raise InputRefused(f"class_weight must be 'balanced' or a mapping by class, got {chosen!r}")
        factors = len(y) / (len(classes) * counts)
    else:
        unknown = sorted(set(chosen) - set(classes))
        factors = np.asarray([float(chosen.get(name, 1.0)) for name in classes])
        if unknown or not np.isfinite(factors).all() or (factors <= 0).any():
            raise InputRefused(
                f"class_weight must give positive numbers for classes out of {list(classes)}, got {dict(chosen)}"
            )
    weights: np.ndarray = factors[y]
    return weights


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    import geococa

    names = ("numpy", "scikit-learn", "lightgbm", "xgboost")
    found = {"python": platform.python_version(), "geococa": geococa.__version__}
    for name in names:
        try:
            found[name] = version(name)
        except ImportError:
            continue
    return found


def transition_matrix(table: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray | None:
    """Year-to-year class transitions of places that were sampled in consecutive years.

    Counts are drawn towards a matrix in which 90 % of every class stays, with the weight of one place a class,
    so that no transition is impossible.

    Returns
    -------
    numpy.ndarray or None
        float64 ``(classes, classes)``, rows sum to 1; None with fewer than 30 such pairs.
    """
    place = [name for name in ("tile", "x", "y") if name in table.columns]
    if "year" not in table.columns or not {"x", "y"} <= set(place):
        return None
    seen = table[[*place, "year", "class"]].dropna().drop_duplicates([*place, "year"])
    following = seen.assign(year=seen["year"] - 1)
    pairs = seen.merge(following, on=[*place, "year"], suffixes=("", "_next"))
    if len(pairs) < _MIN_PAIRS:
        return None
    index = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)))
    here = pairs["class"].astype(str).map(index).to_numpy(dtype=np.int64)
    then = pairs["class_next"].astype(str).map(index).to_numpy(dtype=np.int64)
    np.add.at(counts, (here, then), 1.0)
    prior = np.full_like(counts, (1 - _STAY) / (len(classes) - 1))
    np.fill_diagonal(prior, _STAY)
    shares: np.ndarray = (counts + prior) / (counts.sum(axis=1, keepdims=True) + 1.0)
    return shares


# Methods: each takes the data and the user's options, and returns the arrays and the options used.

_Result = tuple[Parts, dict[str, Any]]


def _fit_estimator(
    estimator_class: Any, data: _Data, defaults: dict[str, Any], options: dict[str, Any], fixed: dict[str, Any]
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        estimator.fit(data.X, data.y, sample_weight=data.weight)
    return convert(estimator), chosen


def _random_forest(data: _Data, options: dict[str, Any]) -> _Result:
    ensemble = optional_import("sklearn.ensemble", "ml")
    defaults = {"n_estimators": 100, "max_depth": 20, "min_samples_leaf": 2, "max_features": "sqrt"}
    return _fit_estimator(
        ensemble.RandomForestClassifier, data, defaults, options, {"random_state": data.seed, "n_jobs": data.threads}
    )


def _extra_trees(data: _Data, options: dict[str, Any]) -> _Result:
    ensemble = optional_import("sklearn.ensemble", "ml")
    defaults = {"n_estimators": 100, "max_depth": 20, "min_samples_leaf": 2, "max_features": "sqrt"}
    return _fit_estimator(
        ensemble.ExtraTreesClassifier, data, defaults, options, {"random_state": data.seed, "n_jobs": data.threads}
    )


def _hist_gradient_boosting(data: _Data, options: dict[str, Any]) -> _Result:
    ensemble = optional_import("sklearn.ensemble", "ml")
    defaults = {"max_iter": 100, "max_leaf_nodes": 31, "early_stopping": False}
    return _fit_estimator(ensemble.HistGradientBoostingClassifier, data, defaults, options, {"random_state": data.seed})


def _lightgbm(data: _Data, options: dict[str, Any]) -> _Result:
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
    return _fit_estimator(estimator_class, data, defaults, options, known)


def _xgboost(data: _Data, options: dict[str, Any]) -> _Result:
    xgboost = optional_import("xgboost", "boosting")
    defaults = {"n_estimators": 100, "max_depth": 6, "learning_rate": 0.1, "tree_method": "hist"}
    return _fit_estimator(
        xgboost.XGBClassifier, data, defaults, options, {"random_state": data.seed, "n_jobs": data.threads}
    )


def _take(options: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise InputRefused(f"unknown options {', '.join(unknown)}; this method takes {', '.join(defaults)}")
    return {**defaults, **options}


def _moments(data: _Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _gaussian(data: _Data, options: dict[str, Any]) -> _Result:
    used = _take(options, priors="equal", rejection=None, regularisation=0.0)
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


def _mahalanobis(data: _Data, options: dict[str, Any]) -> _Result:
    """One covariance for all classes, so that the nearest class in Mahalanobis distance wins (with equal priors)."""
    used = _take(options, priors="equal", rejection=None)
    mean, covariance, counts = _moments(data)
    pooled = np.einsum("k,kij->ij", (counts - 1) / (counts - 1).sum(), covariance)
    stack = np.repeat(pooled[None], len(mean), axis=0)
    parts = gaussian_parts(
        mean, stack, _priors(used["priors"], data.classes, counts), list(data.classes), "mahalanobis"
    )
    return _reject(parts, used["rejection"], data.X.shape[1]), used


def _minimum_distance(data: _Data, options: dict[str, Any]) -> _Result:
    """One spherical covariance for all classes, so that the nearest mean in plain distance wins."""
    used = _take(options, rejection=None)
    mean, covariance, counts = _moments(data)
    variance = float(np.average(np.trace(covariance, axis1=1, axis2=2), weights=counts - 1) / data.X.shape[1])
    stack = np.repeat(variance * np.eye(data.X.shape[1])[None], len(mean), axis=0)
    prior = np.full(len(mean), 1 / len(mean))
    parts = gaussian_parts(mean, stack, prior, list(data.classes), "minimum_distance")
    return _reject(parts, used["rejection"], data.X.shape[1]), used


def _spectral_angle(data: _Data, options: dict[str, Any]) -> _Result:
    used = _take(options, rejection_angle_rad=None)
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


def _fit_rules(options: dict[str, Any]) -> Fitted:
    from geococa.rules import rule_parts

    used = _take(options, rules=None)
    if used["rules"] is None:
        raise InputRefused("method 'rules' needs rules=path of a TOML file")
    parts = rule_parts(used["rules"])
    classes = tuple(str(label) for label in parts.labels)
    return Fitted(
        parts, list(parts.feature_names or ()), classes, {"method": "rules", "options": {"rules": str(used["rules"])}}
    )


def _rules(data: _Data, options: dict[str, Any]) -> _Result:
    raise InputRefused(
        f"rules are read, not fitted to the {len(data.y)} samples; use options {sorted(options)} with fit"
    )


METHODS: dict[str, Callable[[_Data, dict[str, Any]], _Result]] = {
    "random_forest": _random_forest,
    "extra_trees": _extra_trees,
    "hist_gradient_boosting": _hist_gradient_boosting,
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "gaussian": _gaussian,
    "mahalanobis": _mahalanobis,
    "minimum_distance": _minimum_distance,
    "spectral_angle": _spectral_angle,
    "rules": _rules,
}
"""Training methods by name."""
