"""Features that fit a model: found by name, in its order, and on the scale of its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geococa.errors import InputRefused, ModelRefused
from geococa.model_parts import check_stated

if TYPE_CHECKING:
    import pandas as pd

    from geococa.models import Model

__all__ = ["TREES", "check_model", "check_scale", "select_features", "table_planes", "usable"]

TREES = ("forest", "boosting")
"""Engines that compare values, and so take infinite ones too."""

_FEW, _MANY = 16, 1000  # pixels from which on typical values, and all values, say something
_FAR = 20.0


def check_model(model: Any) -> None:
    """Refuse what is no model, saying how to get one."""
    if not hasattr(model, "plane_labels"):
        raise ModelRefused(
            f"expected a geococa Model, got {type(model).__name__}; read one with geococa.read_model(path), or convert an "
            "estimator with geococa.Model.from_estimator(fitted)"
        )


def select_features(features: xr.DataArray, model: Model) -> xr.DataArray:
    """Features in the model's order, dims ``([time,] feature, y, x)``."""
    if "feature" not in features.coords:
        raise ModelRefused(
            f"the features have no coordinate 'feature' with their names; the model needs {', '.join(model.features)}"
        )
    names = [str(name) for name in features["feature"].values]
    twice = sorted({name for name in names if names.count(name) > 1})
    missing = [name for name in model.features if name not in names]
    if missing or twice:
        surplus = [name for name in names if name not in model.features]
        raise ModelRefused(
            f"the features do not fit the model: missing {missing}, named twice {twice}, not used {surplus}; "
            "compute them with geococa.spectral_features(composite, list(model.features))"
        )
    if features.dtype.kind not in "fiu":
        raise InputRefused(f"features must be numbers, got {features.dtype}")
    if tuple(names) != model.features:
        features = features.isel(feature=[names.index(name) for name in model.features])
    check_stated("units", model.feature_units, features, model.features)
    check_stated("scale", model.feature_scales, features, model.features)
    order = ("time", "feature", "y", "x") if "time" in features.dims else ("feature", "y", "x")
    return features.transpose(*order)


def table_planes(X: np.ndarray | pd.DataFrame, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Features of a table as planes, matched by name, and the rows that the model can't read.

    Parameters
    ----------
    X : pandas.DataFrame or numpy.ndarray (rows, features)
        A frame's columns are matched by name; an array has the features in the model's order.
    model : Model
        The model.

    Returns
    -------
    planes : numpy.ndarray
        Float ``(features, rows)`` in the precision of `Model.plane_dtype`; 0 in rows that can't be read.
    unread : numpy.ndarray
        bool ``(rows,)``.

    Raises
    ------
    ModelRefused
        Features are missing, are no numbers, or are on another scale than in training.
    """
    names = list(model.features)
    if hasattr(X, "columns"):
        missing = [name for name in names if name not in X.columns]
        if missing:
            raise ModelRefused(
                f"the table lacks the features {', '.join(missing)}; it has {', '.join(map(str, X.columns[:30]))}"
            )
        frame: Any = X[names]
        X = np.asarray(frame)
        if X.dtype == object and all(column.dtype.kind in "fiub" for _, column in frame.items()):
            X = frame.to_numpy(dtype=np.float64, na_value=np.nan)  # pandas' own types with a missing value
    values = np.asarray(X)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ModelRefused(
            f"expected (rows, {len(names)}) values for {', '.join(names[:30])}, got shape {values.shape}"
        )
    if values.dtype.kind not in "fiub":
        raise ModelRefused(f"features must be numbers, got {values.dtype}")
    planes = np.ascontiguousarray(values.T, dtype=model.plane_dtype(values.dtype))
    check_scale(planes, model)
    if model.kind in TREES and np.isinf(planes).any():
        # a split of missing from other values stands at infinity in the source, at the largest number here
        limit = float(np.finfo(planes.dtype).max)
        planes = np.clip(planes, -limit, limit)
    if model.kind in TREES or model.takes_missing:
        return planes, np.zeros(planes.shape[1], bool)
    unread = ~model.plane_observed(planes)
    return np.where(unread, 0, planes) if unread.any() else planes, unread


def usable(model: Model, table: pd.DataFrame) -> np.ndarray:
    """Whether rows of a table have what the model needs: all features, or any where it takes missing ones."""
    from geococa.training import feature_values

    known = np.isfinite(feature_values(table, model.features))
    return np.asarray(known.any(axis=1) if model.takes_missing else known.all(axis=1))


def check_scale(planes: np.ndarray, model: Model) -> None:
    """Refuse features on another scale than those of the training, such as digital numbers or percent.

    A feature is refused where more than half of its values exceed the largest number of the training 20 times over, or
    where (of 1,000 pixels or more) all lie 20 ranges of the training beyond its range, or below a twentieth of it. What
    was constant in training decides nothing and passes; so does the first for models that reject what is unlike every class.

    Parameters
    ----------
    planes : numpy.ndarray
        float ``(features, pixels)``; NaN is left out.
    model : Model
        Passes where it does not know the range of its training data.

    Raises
    ------
    ModelRefused
        Names the features, what was found and what the training had.
    """
    if model.training_range is None or planes.shape[1] < _FEW:
        return
    low, high = model.training_range
    smallest, largest = np.fmin.reduce(planes, axis=1), np.fmax.reduce(planes, axis=1)
    far = np.zeros(len(planes), dtype=bool)
    if planes.shape[1] >= _MANY:
        reach = _FAR * (high - low)
        small = (low > 0) & (largest > 0) & (largest < low / _FAR)
        far = (smallest > high + reach) | (largest < low - reach) | small
    limit = np.full(len(low), np.inf) if model.rejects else _FAR * np.maximum(np.abs(low), np.abs(high))
    # counting takes time, so it is done only where some value is that large
    for i in np.flatnonzero(~far & ((smallest < -limit) | (largest > limit))).tolist():
        beyond = np.count_nonzero((planes[i] < -limit[i]) | (planes[i] > limit[i]))
        known = np.count_nonzero(~np.isnan(planes[i]))
        far[i] = known >= _FEW and 2 * beyond > known
    far &= high > low
    if far.any():
        i = np.flatnonzero(far).tolist()[0]
        names = [name for name, bad in zip(model.features, far, strict=True) if bad]
        raise ModelRefused(
            f"features {', '.join(names)} are on another scale than the model's: {model.features[i]} runs from "
            f"{smallest[i]:g} to {largest[i]:g}, in the training samples from {low[i]:g} to {high[i]:g}; "
            "give reflectance as in training (0 to 1), with scale and offset applied"
        )
