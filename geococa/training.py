"""Training: from a table of reference pixels to the arrays of a model, by the method asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_threads, check_type
from geococa.errors import InputRefused
from geococa.legend import PALETTE
from geococa.training_methods import METHODS, TrainingData, naming_faults, take_options
from geococa.tree_arrays import Parts

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = [
    "Fitted",
    "class_order",
    "feature_columns",
    "feature_values",
    "fit",
    "library_versions",
    "transition_matrix",
    "usable_rows",
]

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
_UNWEIGHTED = {
    "gaussian": "give priors= ('equal', 'samples' or a mapping by class)",
    "mahalanobis": "give priors= ('equal', 'samples' or a mapping by class)",
    "minimum_distance": "it has one spread and equal priors for all classes; take 'mahalanobis' with priors=",
    "spectral_angle": "it knows directions only; take a method with trees, or 'gaussian' with priors=",
    "rules": "rules are not trained",
    "twdtw": "a pattern is the mean of its own class, whatever the others weigh",
}
"""Methods whose fit weights could not change, and what does the same for them."""
_LARGEST = 1e30
_MIN_PAIRS = 30
_STAY = 0.9


@dataclass(frozen=True)
class Fitted:
    """A trained method: its arrays, with classes and features in the model's order."""

    parts: Parts
    features: list[str]
    classes: tuple[str, ...]
    provenance: dict[str, Any]


def usable_rows(
    samples: pd.DataFrame,
    features: xr.DataArray | Sequence[str] | None,
    *,
    keep_index: bool = False,
    keep_partial: bool = False,
) -> tuple[pd.DataFrame, list[str], int]:
    """Return the training table without rows that were not observed, its feature names, and how many rows fell out.

    Rows are numbered anew unless ``keep_index``; those with some features stay with ``keep_partial``.
    """
    check_type(
        samples, pd.DataFrame, "samples", "read them with geococa.read_samples, or make a geococa.training_table"
    )
    if "geometry" in samples.columns and isinstance(features, xr.DataArray):
        from geococa.extraction import extract_samples

        frame: GeoDataFrame = samples
        table = extract_samples(frame, features, keep_partial=keep_partial)
        names = [str(name) for name in features["feature"].values]
    else:
        table = pd.DataFrame(samples)
        table.attrs = dict(getattr(samples, "attrs", {}))
        names = feature_columns(table, features)
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
    values = feature_values(table, names)
    known = np.isfinite(values)
    good = (known.any(axis=1) if keep_partial else known.all(axis=1)) & table["class"].notna().to_numpy()
    if not good.any():
        raise InputRefused(
            f"none of the {len(table)} training rows has every feature and a class; the samples lie outside "
            "the features or on pixels that were not observed"
        )
    kept = table[good]
    return kept if keep_index else kept.reset_index(drop=True), names, int((~good).sum())


def feature_values(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Return the features of a table as float64 ``(rows, features)``; refuse what single precision does not hold."""
    try:
        values = table[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        wrong = [name for name in names if not pd.api.types.is_numeric_dtype(table[name])]
        raise InputRefused(
            f"features must be numbers, but the columns {', '.join(wrong)} are not; convert them, or leave them out"
        ) from None
    # infinity counts as not observed; a number as large as this is neither that nor a measurement
    large = np.isfinite(values) & (np.abs(values) >= _LARGEST)
    if large.any():
        row, column = (int(number[0]) for number in np.nonzero(large))
        raise InputRefused(
            f"feature {names[column]} is {values[row, column]:g} in row {row}, larger than {_LARGEST:g}; mark values that "
            "were not observed as NaN"
        )
    return values


def feature_columns(table: pd.DataFrame, features: xr.DataArray | Sequence[str] | None) -> list[str]:
    """Return the features of a table: those named, else every numeric column that does not describe the sample."""
    if isinstance(features, xr.DataArray):
        return [str(name) for name in features["feature"].values]
    if isinstance(features, str):
        raise InputRefused(f"features must be a list of names, got the text {features!r}")
    if features is not None:
        check_type(features, Iterable, "features", "give a list of names, or a feature stack")
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
    if method not in (*METHODS, "rules"):
        known = [*METHODS, "rules", "fraction", "unmixing"]
        raise InputRefused(f"unknown method {method!r}; known are {', '.join(known)}")
    if class_weight is not None and method in _UNWEIGHTED:
        raise InputRefused(f"method {method!r} takes no class_weight; {_UNWEIGHTED[method]}")
    if method == "rules":
        return _fit_rules(dict(options))
    found = table["class"].astype(str)
    order = class_order(found, classes)
    y = found.map({name: i for i, name in enumerate(order)}).to_numpy(dtype=np.int64)
    X = np.ascontiguousarray(table[features].to_numpy(dtype=np.float32))
    data = TrainingData(X, y, _weights(y, order, class_weight), order, seed, check_threads(threads), tuple(features))
    with naming_faults(method, options):
        parts, used = METHODS[method](data, dict(options))
    provenance = {
        "method": method,
        "seed": seed,
        "options": used,
        "class_weight": class_weight,
        "versions": library_versions(),
    }
    return Fitted(parts, list(features), order, provenance)


def class_order(found: pd.Series, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes of ``found`` in the order of a model: the one given, else usual names first, others by name."""
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
        factors = _given_weights(chosen, classes)
    weights: np.ndarray = factors[y]
    return weights


def _given_weights(chosen: Any, classes: tuple[str, ...]) -> np.ndarray:
    known = isinstance(chosen, Mapping) and set(chosen) <= set(classes)
    try:
        factors = np.asarray([float(chosen.get(name, 1.0)) for name in classes]) if known else np.zeros(1)
    except (TypeError, ValueError):
        factors = np.zeros(1)
    if not np.isfinite(factors).all() or (factors <= 0).any():
        raise InputRefused(
            f"class_weight must be 'balanced', or give positive numbers for classes out of {list(classes)}, got {chosen!r}"
        )
    return factors


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a model may come from."""
    import platform
    from importlib.metadata import version

    import geococa

    names = ("numpy", "scikit-learn", "lightgbm", "xgboost", "catboost")
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


def _fit_rules(options: dict[str, Any]) -> Fitted:
    from geococa.rules import rule_parts

    used = take_options(options, rules=None)
    if used["rules"] is None:
        raise InputRefused("method 'rules' needs rules=path of a TOML file")
    parts = rule_parts(used["rules"])
    classes = tuple(str(label) for label in parts.labels)
    return Fitted(
        parts, list(parts.feature_names or ()), classes, {"method": "rules", "options": {"rules": str(used["rules"])}}
    )
