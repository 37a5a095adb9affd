"""Checks of a model's arrays before a kernel sees them, so that no damaged file can make one misbehave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from geococa.errors import ModelRefused

__all__ = ["check_arrays", "check_names", "check_range", "check_transitions"]

_MAX_NODES = 1 << 30
_MAX_TREES = 1_000_000
_TREE_ARRAYS = {
    "tree_start": (np.int64, 1),
    "feature": (np.int32, 1),
    "threshold": (np.float64, 1),
    "left": (np.int32, 1),
    "right": (np.int32, 1),
    "missing_left": (np.uint8, 1),
    "leaf": (np.int32, 1),
    "value": (np.float64, 2),
    "tree_class": (np.int32, 1),
    "base": (np.float64, 1),
}
_GAUSSIAN_ARRAYS = {"mean": (np.float64, 2), "whitening": (np.float64, 3), "constant": (np.float64, 1)}
_KINDS: dict[str, dict[str, tuple[Any, int]]] = {
    "forest": _TREE_ARRAYS,
    "boosting": _TREE_ARRAYS,
    "gaussian": _GAUSSIAN_ARRAYS,
    "spectral_angle": {"direction": (np.float64, 2)},
}
_STEPS = ("subtract", "divide", "multiply", "add", "at_least", "at_most")


def check_arrays(
    kind: str, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], n_features: int, n_classes: int
) -> None:
    """Refuse arrays that a kernel of this kind could not read safely, or whose numbers make no sense.

    Raises
    ------
    ModelRefused
        Names the array, what was found and what was expected.
    """
    if kind not in _KINDS:
        raise ModelRefused(f"unknown kind of model {kind!r}; known are {', '.join(_KINDS)}")
    wanted: dict[str, tuple[Any, int]] = {
        **_KINDS[kind],
        **({"scaling": (np.float64, 2)} if settings.get("scaling") else {}),
    }
    _require(set(wanted) == set(arrays), f"a {kind} model needs the arrays {sorted(wanted)}, got {sorted(arrays)}")
    for name, (dtype, ndim) in wanted.items():
        array = arrays[name]
        _require(
            array.dtype == dtype and array.ndim == ndim,
            f"array {name} must be {np.dtype(dtype)} with {ndim} dims, got {array.dtype} with {array.ndim}",
        )
        _require(array.dtype.kind != "f" or bool(np.isfinite(array).all()), f"array {name} holds NaN or infinity")
    _check_scaling(arrays, settings, n_features)
    if kind in ("forest", "boosting"):
        _check_trees(arrays, n_features)
        (_check_shares if kind == "forest" else _check_scores)(arrays, settings, n_classes)
    elif kind == "gaussian":
        _check_gaussian(arrays, settings, n_features, n_classes)
    else:
        _check_angle(arrays, settings, n_features, n_classes)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelRefused(message)


def _check_scaling(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], n_features: int) -> None:
    steps = settings.get("scaling", [])
    known = isinstance(steps, list) and all(step in _STEPS for step in steps)
    _require(known, f"scaling must be a list out of {_STEPS}, got {steps!r}")
    if not steps:
        return
    table = arrays["scaling"]
    _require(table.shape == (len(steps), n_features), f"scaling must be {(len(steps), n_features)}, got {table.shape}")
    divisors = table[[step == "divide" for step in steps]]
    _require(bool((divisors != 0).all()), "scaling divides by zero")


def _check_trees(arrays: Mapping[str, np.ndarray], n_features: int) -> None:
    start, feature, leaf, value = (arrays[name] for name in ("tree_start", "feature", "leaf", "value"))
    nodes, trees = len(feature), len(arrays["tree_class"])
    _require(0 < trees <= _MAX_TREES and 0 < nodes <= _MAX_NODES, f"{trees} trees of {nodes} nodes are out of bounds")
    for name in ("threshold", "left", "right", "missing_left", "leaf"):
        _require(len(arrays[name]) == nodes, f"array {name} has {len(arrays[name])} nodes, feature has {nodes}")
    ordered = len(start) == trees + 1 and start[0] == 0 and start[-1] == nodes and bool((np.diff(start) > 0).all())
    _require(ordered, f"tree_start must rise from 0 to {nodes} over {trees} trees")
    _require(bool((feature < n_features).all()), f"a node asks for feature {feature.max()} of {n_features}")
    _require(bool((feature >= -1).all()), "a leaf's feature must be -1")
    inner = np.flatnonzero(feature >= 0)
    end = np.repeat(start[1:], np.diff(start))[inner]
    for name in ("left", "right"):
        child = arrays[name][inner]
        _require(bool((child > inner).all()), f"array {name} points backwards: a child must come after its parent")
        _require(bool((child < end).all()), f"array {name} points out of its tree")
    children = np.sort(np.concatenate([arrays["left"][inner], arrays["right"][inner]]))
    expected = np.setdiff1d(np.arange(nodes), start[:-1], assume_unique=True)
    _require(np.array_equal(children, expected), "every node but a root must be the child of exactly one node")
    is_leaf = feature < 0
    rows = leaf[is_leaf]
    _require(bool(((rows >= 0) & (rows < len(value))).all()), f"a leaf asks for a row beyond the {len(value)} of value")
    _require(bool((arrays["missing_left"] <= 1).all()), "array missing_left must hold 0 and 1")


def _check_shares(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], n_classes: int) -> None:
    value = arrays["value"]
    _require(value.shape[1] == n_classes, f"leaves hold {value.shape[1]} classes, the model has {n_classes}")
    _require(bool((arrays["tree_class"] == 0).all()), "tree_class must be 0 where leaves hold all classes")
    _require(
        bool((value >= 0).all())
        and bool((value <= 1.001).all())
        and bool((np.abs(value.sum(axis=1) - 1) < 1e-6).all()),
        "the class shares of a leaf must not be negative and must sum to 1",
    )
    _require(arrays["base"].shape == (n_classes,) and not arrays["base"].any(), "base must be zero for each class")
    _check_choice(settings, "input", ("float32", "float64"), "float32")
    _check_choice(settings, "precision", ("float64",), "float64")


def _check_scores(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], n_classes: int) -> None:
    link = settings.get("link")
    _require(link in ("sigmoid", "softmax", "ova"), f"link must be sigmoid, softmax or ova, got {link!r}")
    scores = 1 if link == "sigmoid" else n_classes
    _require(link != "sigmoid" or n_classes == 2, f"a sigmoid link needs 2 classes, got {n_classes}")
    _require(arrays["base"].shape == (scores,), f"base must hold {scores} scores, got {arrays['base'].shape}")
    _require(arrays["value"].shape[1] == 1, f"leaves must hold one score, got {arrays['value'].shape[1]}")
    largest = max(np.abs(arrays["value"]).max(), np.abs(arrays["base"]).max())
    _require(bool(largest < 1e30), f"scores of up to {largest:g} are out of bounds")
    owner = arrays["tree_class"]
    _require(bool(((owner >= 0) & (owner < scores)).all()), f"tree_class must lie in 0..{scores - 1}")
    _check_choice(settings, "input", ("float32", "float64"), "float32")
    _check_choice(settings, "precision", ("float32", "float64"), "float64")
    _check_choice(settings, "tie", ("lower", "upper"), "lower")
    slope = settings.get("slope", 1.0)
    _require(_is_number(slope) and 0 < slope < 1e6, f"slope must be a positive number, got {slope!r}")


def _check_gaussian(
    arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], n_features: int, n_classes: int
) -> None:
    shapes = {
        "mean": (n_classes, n_features),
        "whitening": (n_classes, n_features, n_features),
        "constant": (n_classes,),
    }
    for name, shape in shapes.items():
        _require(arrays[name].shape == shape, f"array {name} must be {shape}, got {arrays[name].shape}")
        _require(bool((np.abs(arrays[name]) < 1e30).all()), f"array {name} holds numbers out of bounds")
    diagonal = np.diagonal(arrays["whitening"], axis1=1, axis2=2)
    _require(bool((diagonal > 0).all()), "the diagonal of every whitening matrix must be positive")
    limit = settings.get("rejection_distance")
    _require(limit is None or (_is_number(limit) and limit > 0), f"rejection_distance must be positive, got {limit!r}")


def _check_angle(
    arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], n_features: int, n_classes: int
) -> None:
    direction = arrays["direction"]
    _require(
        direction.shape == (n_classes, n_features),
        f"array direction must be {(n_classes, n_features)}, got {direction.shape}",
    )
    unit = bool((np.abs(direction) <= 1.001).all()) and bool((np.abs((direction**2).sum(axis=1) - 1) < 1e-6).all())
    _require(unit, "every direction must have length 1")
    spread, limit = settings.get("spread_rad"), settings.get("rejection_angle_rad")
    _require(
        _is_number(spread) and 0 < float(spread or 0) < 10, f"spread_rad must lie between 0 and 10, got {spread!r}"
    )
    _require(limit is None or (_is_number(limit) and limit > 0), f"rejection_angle_rad must be positive, got {limit!r}")


def _check_choice(settings: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str) -> None:
    found = settings.get(name, default)
    _require(found in choices, f"{name} must be one of {choices}, got {found!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def check_names(what: str, names: tuple[str, ...], most: int) -> None:
    """Refuse names that are empty, too long, too many or not unique."""
    if not 0 < len(names) <= most:
        raise ModelRefused(f"a model needs 1 to {most} {what}, got {len(names)}")
    if len(set(names)) != len(names):
        raise ModelRefused(f"{what} must be unique, got {list(names)[:30]}")
    bad = [name for name in names if not name or len(name) > 200]
    if bad:
        raise ModelRefused(f"names of {what} must have 1 to 200 characters, got {bad[:3]!r:.80}")


def check_transitions(matrix: np.ndarray, n_classes: int) -> None:
    """Refuse year-to-year transitions that are not shares."""
    good = matrix.shape == (n_classes, n_classes) and matrix.dtype == np.float64
    if not good or not np.isfinite(matrix).all() or (matrix < 0).any() or (np.abs(matrix.sum(axis=1) - 1) > 1e-6).any():
        raise ModelRefused(f"transitions must be {n_classes} x {n_classes} float64 shares whose rows sum to 1")


def check_range(ranges: np.ndarray, n_features: int) -> None:
    """Refuse a training range that is not one pair a feature."""
    good = ranges.shape == (2, n_features) and ranges.dtype == np.float64
    if not good or not np.isfinite(ranges).all() or (ranges[0] > ranges[1]).any():
        raise ModelRefused(f"training_range must be float64 (2, {n_features}), the smallest value first")
