"""Training of models that give class fractions: a regression forest, and linear unmixing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_threads, check_whole, optional_import
from geococa.errors import InputRefused
from geococa.mixtures import linear_features, mixture_table
from geococa.model_checks import independent
from geococa.model_file import plain
from geococa.training import Fitted, class_order, feature_columns, feature_values, library_versions, usable_rows
from geococa.training_methods import TrainingData, fit_estimator, naming_faults, take_options
from geococa.tree_arrays import Parts

__all__ = ["FRACTION_METHODS", "fit_fractions", "fraction_columns"]

_PREFIX = "fraction_"
_MIXTURE_ROWS = 6000
_BLENDS = 2000
_Result = tuple[Parts, dict[str, Any]]


def fraction_columns(table: pd.DataFrame) -> list[str]:
    """Columns of a table that hold class fractions."""
    return [str(name) for name in table.columns if str(name).startswith(_PREFIX)]


def fit_fractions(
    samples: pd.DataFrame,
    features: xr.DataArray | Sequence[str] | None,
    *,
    method: str,
    seed: int,
    classes: Sequence[str] | None,
    threads: int | None,
    options: Mapping[str, Any],
) -> tuple[Fitted, pd.DataFrame]:
    """Train a method of `FRACTION_METHODS`; see `geococa.train`.

    Returns
    -------
    fitted : Fitted
        The arrays, with where they come from.
    table : pandas.DataFrame
        The rows that it was trained on, with their fractions; of unmixing from pure samples also mixtures of them,
        which it takes as readily.
    """
    chosen = dict(options)
    blends: list[pd.DataFrame] = []
    if isinstance(samples, pd.DataFrame) and fraction_columns(samples) and "geometry" not in samples.columns:
        table, names, dropped = _fraction_rows(samples, features)
        if chosen.get("mixtures") is not None:
            raise InputRefused("the table already holds fractions; leave mixtures out, or drop its fraction columns")
        origin: dict[str, Any] = {"fractions": "table"}
    else:
        pure, names, dropped = usable_rows(samples, features)
        if method == "unmixing":
            names = _linear(names)
            blends.append(mixture_table(pure, names, rows=_BLENDS, pure_share=0.0, classes=classes, seed=seed))
        table, origin = _fractions_of_pure(pure, names, method, seed, classes, chosen)
    if method == "unmixing":
        names = _linear(names)
    order = class_order(pd.Series([name.removeprefix(_PREFIX) for name in fraction_columns(table)]), classes)
    X = np.ascontiguousarray(table[names].to_numpy(dtype=np.float32))
    fraction = table[[_PREFIX + name for name in order]].to_numpy(dtype=np.float64)
    weight = table["weight"].to_numpy(dtype=np.float64) if "weight" in table.columns else None
    chosen.pop("mixtures", None)
    data = TrainingData(X, fraction, weight, order, seed, check_threads(threads))
    with naming_faults(method, options):
        parts, used = FRACTION_METHODS[method](data, names, chosen)
    mean = np.average(fraction, axis=0, weights=weight)
    provenance = {
        "method": method,
        "seed": seed,
        "options": plain(used),
        "versions": library_versions(),
        **origin,
        "rows": len(table),
        "rows_dropped_not_observed": dropped,
        "mean_fractions": dict(zip(order, mean.tolist(), strict=True)),
    }
    described = pd.concat([table, *blends], ignore_index=True)
    described.attrs = {name: samples.attrs[name] for name in ("units", "scale") if name in samples.attrs}
    return Fitted(parts, names, order, provenance), described


def _fraction_rows(
    samples: pd.DataFrame, features: xr.DataArray | Sequence[str] | None
) -> tuple[pd.DataFrame, list[str], int]:
    """Rows whose features and fractions are all known; the fractions sum to 1 to the last digit."""
    columns = fraction_columns(samples)
    names = feature_columns(samples.drop(columns=columns), features)
    if len(columns) < 2:
        raise InputRefused(f"fractions need columns of at least 2 classes, the table has only {columns}")
    values = feature_values(samples, [*names, *columns])
    good = np.isfinite(values).all(axis=1)
    table = samples[good].reset_index(drop=True)
    if table.empty:
        raise InputRefused(f"none of the {len(samples)} training rows has every feature and fraction")
    fraction = table[columns].to_numpy(dtype=np.float64)
    total = fraction.sum(axis=1)
    wrong = (fraction < -1e-6).any(axis=1) | (np.abs(total - 1) > 1e-3)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputRefused(
            f"fractions must not be negative and must sum to 1 in every row; row {row} has "
            f"{dict(zip(columns, fraction[row].round(6).tolist(), strict=True))}"
        )
    if "weight" in table.columns:
        weight = table["weight"].to_numpy(dtype=np.float64)
        if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
            raise InputRefused("the column weight must hold finite numbers that are not negative, and not all zero")
    fraction = np.maximum(fraction, 0.0)
    table[columns] = fraction / fraction.sum(axis=1, keepdims=True)
    return table, names, int((~good).sum())


def _fractions_of_pure(
    pure: pd.DataFrame,
    names: list[str],
    method: str,
    seed: int,
    classes: Sequence[str] | None,
    options: dict[str, Any],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Mixtures of pure samples; for unmixing, the pure samples themselves."""
    if method == "unmixing":
        if options.get("mixtures") is not None:
            raise InputRefused("unmixing takes its endmembers from pure samples as they are; leave mixtures out")
        labels = pure["class"].astype(str)
        order = class_order(labels, classes)
        columns = {_PREFIX + name: (labels == name).to_numpy(np.float64) for name in order}
        return pd.DataFrame(columns | {name: pure[name].to_numpy() for name in names}), {"fractions": "pure samples"}
    settings = {name: options.pop(name) for name in ("priors", "pure_share", "most_members") if name in options}
    rows = options.get("mixtures")
    rows = _MIXTURE_ROWS if rows is None else check_whole(rows, "mixtures", 2)
    table = mixture_table(pure, names, rows=rows, classes=classes, seed=seed, **settings)
    origin = {
        "fractions": "synthetic mixtures",
        "pure_samples": len(pure),
        "mixtures": plain({"rows": rows, **settings}),
    }
    return table, origin


def _linear(names: list[str]) -> list[str]:
    linear = linear_features(names)
    if not linear:
        raise InputRefused(
            f"unmixing needs features that mix in proportion to area, as bands do; {', '.join(names)} do not"
        )
    return linear


def _regression_forest(data: TrainingData, _names: list[str], options: dict[str, Any]) -> _Result:
    ensemble = optional_import("sklearn.ensemble", "ml")
    trees = options.pop("trees", "random_forest")
    kinds = {"random_forest": ensemble.RandomForestRegressor, "extra_trees": ensemble.ExtraTreesRegressor}
    if trees not in kinds:
        raise InputRefused(f"trees must be one of {', '.join(kinds)}, got {trees!r}")
    defaults = {"n_estimators": 100, "max_depth": 20, "min_samples_leaf": 3, "max_features": 0.34}
    fixed = {"random_state": data.seed, "n_jobs": data.threads}
    parts, used = fit_estimator(kinds[trees], data, defaults, options, fixed)
    return parts, {"trees": trees, **used}


def _unmixing(data: TrainingData, names: list[str], options: dict[str, Any]) -> _Result:
    """Endmembers by least squares on the fractions, which for pure samples are the class means."""
    used = take_options(options, endmembers=None, weighting="covariance")
    X, fraction = data.X.astype(np.float64), data.y
    weight = np.ones(len(X)) if data.weight is None else data.weight
    root = np.sqrt(weight)[:, None]
    if used["endmembers"] is None:
        if np.linalg.matrix_rank(root * fraction) < len(data.classes):
            raise InputRefused("the fractions of some classes always go together; merge them, or give endmembers=")
        endmember = np.linalg.lstsq(root * fraction, root * X, rcond=None)[0]
        owner = np.arange(len(data.classes), dtype=np.int32)
    else:
        endmember, owner = _given(used["endmembers"], data.classes, names)
        used["endmembers"] = {"count": len(owner)}
    whitening = _whitening(used["weighting"], root * (X - fraction @ _class_means(endmember, owner)), weight)
    if not independent(endmember, whitening):
        raise InputRefused(
            f"{len(endmember)} endmembers can't be told apart with {len(names)} features that mix in proportion to area "
            f"({', '.join(names)}): one is a mixture of the others. Merge classes, or add bands: n classes need n - 1"
        )
    arrays = {"endmember": np.ascontiguousarray(endmember), "whitening": whitening, "owner": owner}
    return Parts("unmixing", arrays, {"output": "fraction"}, list(data.classes), source="unmixing"), used


def _given(endmembers: Any, classes: tuple[str, ...], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Endmembers of a table with a column ``class`` (several rows of a class are kept apart) or a mapping by class."""
    if isinstance(endmembers, Mapping):
        rows = [{"class": name, **dict(values)} for name, values in endmembers.items()]
        endmembers = pd.DataFrame(rows)
    missing = [name for name in ("class", *names) if name not in endmembers.columns]
    if missing:
        raise InputRefused(f"endmembers lack the columns {', '.join(missing)}; they need class and every feature")
    if set(endmembers["class"].astype(str)) != set(classes):
        raise InputRefused(
            f"endmembers are of {sorted(set(endmembers['class']))}, the samples of {sorted(classes)}; name the same classes"
        )
    values = endmembers[names].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputRefused("endmembers must be finite numbers")
    return values, np.asarray([classes.index(str(name)) for name in endmembers["class"]], dtype=np.int32)


def _class_means(endmember: np.ndarray, owner: np.ndarray) -> np.ndarray:
    return np.stack([endmember[owner == k].mean(axis=0) for k in range(int(owner.max()) + 1)])


def _whitening(weighting: Any, residual: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Lower triangular factor of the weights of misfits: those of all bands alike, or the inverse of their covariance."""
    n_features = residual.shape[1]
    if weighting == "equal":
        return np.eye(n_features)
    if weighting != "covariance":
        raise InputRefused(f"weighting must be 'covariance' or 'equal', got {weighting!r}")
    covariance = residual.T @ residual / weight.sum()
    spread = np.sqrt(np.diagonal(covariance))
    scale = float(spread.max())
    try:
        if not (spread > 1e-6 * scale).all():
            raise np.linalg.LinAlgError
        factor = np.linalg.cholesky(covariance / np.outer(spread, spread))
    except np.linalg.LinAlgError:
        raise InputRefused(
            "features do not vary within the classes, or follow from each other, so misfits can't be weighted by their "
            "covariance; use weighting='equal', or drop features"
        ) from None
    return np.ascontiguousarray(np.tril(np.linalg.inv(factor)) / spread)


FRACTION_METHODS: dict[str, Callable[[TrainingData, list[str], dict[str, Any]], _Result]] = {
    "fraction": _regression_forest,
    "unmixing": _unmixing,
}
"""Training methods that give class fractions."""
