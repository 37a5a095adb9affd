"""Features that fit a model: found by name, in its order, and on the scale of its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from geococa.errors import InputRefused, ModelRefused
from geococa.model_parts import check_stated

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["check_scale", "select_features"]

_FEW = 1000
_FAR = 20.0


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


def check_scale(planes: np.ndarray, model: Model) -> None:
    """Refuse features that are all far outside the range that the model was trained in, as digital numbers would be."""
    if model.training_range is None or planes.shape[1] < _FEW:
        return
    low, high = model.training_range
    smallest, largest = np.fmin.reduce(planes, axis=1), np.fmax.reduce(planes, axis=1)
    reach = _FAR * np.maximum(high - low, 1e-6)
    far = (smallest > high + reach) | (largest < low - reach) | ((low > 0) & (largest > 0) & (largest < low / _FAR))
    if far.any():
        i = int(np.flatnonzero(far)[0])
        names = [name for name, bad in zip(model.features, far, strict=True) if bad]
        raise ModelRefused(
            f"features {', '.join(names)} are on another scale than the model's: {model.features[i]} runs from "
            f"{smallest[i]:g} to {largest[i]:g}, in the training samples from {low[i]:g} to {high[i]:g}; "
            "give reflectance as in training (0 to 1), with scale and offset applied"
        )
