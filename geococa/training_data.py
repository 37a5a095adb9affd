"""What a model remembers of the rows that it was trained with: range, summary by class, points of its feature space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_type
from geococa.errors import InputRefused
from geococa.model_parts import stated, summarise
from geococa.sample_splits import spatial_folds
from geococa.training_space import make_training_set

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["FOLDS", "describe_training", "has_places"]

FOLDS = 10
"""Spatial folds behind the threshold of applicability, of blocks of 1 km."""

_PURE = 0.999


def describe_training(
    model: Model,
    table: pd.DataFrame,
    *,
    importance: Mapping[str, float] | np.ndarray | None,
    units: str | Mapping[str, str] | None,
    scale: str | Mapping[str, str] | None,
    most: int,
    seed: int,
    source: xr.DataArray | Sequence[str] | None = None,
) -> Model:
    """Return the model with what it remembers of its training rows; see `geococa.models.Model.with_training_data`."""
    if not 2 <= most <= 20_000:
        raise InputRefused(f"a model keeps 2 to 20,000 training points, asked for {most}")
    check_type(table, pd.DataFrame, "table", "give the rows that the model was trained with")
    names = list(model.features)
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputRefused(
            f"the training table lacks the features {', '.join(missing)}; it has {', '.join(map(str, table.columns[:30]))}"
        )
    values = table[names].to_numpy(dtype=np.float64)
    good = np.isfinite(values).all(axis=1)
    if not good.any():
        raise InputRefused(f"none of the {len(table)} training rows has every feature of the model")
    table, values = table[good], values[good]
    labels = _labels(table, model)
    said = source if isinstance(source, xr.DataArray) else table
    return replace(
        model,
        training_range=np.stack([values.min(axis=0), values.max(axis=0)]),
        class_summary=None if labels is None else summarise(values, labels, model.classes),
        feature_units=_statements("units", said, model, units),
        feature_scales=_statements("scale", said, model, scale),
        training_set=make_training_set(
            values, folds=_fold_numbers(table, seed), importance=_weights(importance, names), most=most, seed=seed
        ),
    )


def _labels(table: pd.DataFrame, model: Model) -> np.ndarray | None:
    """Class of each row; of a table of fractions that of the rows with a single class, ``""`` elsewhere."""
    if "class" in table.columns:
        return table["class"].astype(str).to_numpy()
    columns = [f"fraction_{name}" for name in model.classes]
    if not set(columns) <= set(table.columns):
        return None
    fraction = table[columns].to_numpy(dtype=np.float64)
    names = np.asarray(model.classes, dtype=object)[fraction.argmax(axis=1)]
    return np.where(fraction.max(axis=1) > _PURE, names, "")


def has_places(table: pd.DataFrame) -> bool:
    """Whether the rows of a table say where they are, so that spatial folds can be made."""
    return {"x", "y"} <= set(table.columns) and table.attrs.get("crs") is not None


def _fold_numbers(table: pd.DataFrame, seed: int) -> np.ndarray | None:
    if not has_places(table) or "class" not in table.columns:
        return None
    numbers = np.zeros(len(table), np.int64)
    for number, (_, test) in enumerate(spatial_folds(table, FOLDS, positive=None, seed=seed)):
        numbers[test] = number
    return numbers


def _statements(
    what: str, source: xr.DataArray | pd.DataFrame, model: Model, given: str | Mapping[str, str] | None
) -> tuple[str, ...] | None:
    found = tuple(stated(what, source, model.features, given))
    return found if any(found) else None


def _weights(importance: Mapping[str, float] | np.ndarray | None, names: list[str]) -> np.ndarray | None:
    if importance is None:
        return None
    if isinstance(importance, Mapping):
        unknown = sorted(set(names) ^ set(importance))
        if unknown:
            raise InputRefused(f"importance must give one number for each feature of the model; differing: {unknown}")
        importance = np.asarray([float(importance[name]) for name in names])
    found = np.asarray(importance, dtype=np.float64)
    if not np.isfinite(found).all():
        raise InputRefused(f"importances must be finite numbers, got {found}")
    # a feature that does harm when it is shuffled back in counts as useless
    found = np.maximum(found, 0.0)
    return found if found.any() else None
