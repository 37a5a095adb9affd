"""Checks of a model's arrays before a kernel sees them, so that no damaged file can make one misbehave."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from geococa.errors import ModelRefused

__all__ = [
    "check_arrays",
    "check_calibration",
    "check_names",
    "check_range",
    "check_statements",
    "check_summary",
    "check_training_set",
    "check_transitions",
    "independent",
]

_MAX_NODES = 1 << 30
_MAX_TREES = 1_000_000
_MAX_ENDMEMBERS = 128
_MAX_POINTS = 20_000
_MAX_DATES = 366
_MAX_KNOTS = 1_000_000
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
    "twdtw": {
        "pattern": (np.float64, 3),
        "pattern_day": (np.float64, 1),
        "series_day": (np.float64, 1),
        "place": (np.int32, 2),
    },
    "unmixing": {"endmember": (np.float64, 2), "whitening": (np.float64, 2), "owner": (np.int32, 1)},
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
    given = {"forest": ("probability", "fraction"), "unmixing": ("fraction",)}.get(kind, ("probability",))
    _check_choice(settings, "output", given, "probability")
    if kind in ("forest", "boosting"):
        _check_trees(arrays, n_features)
        (_check_shares if kind == "forest" else _check_scores)(arrays, settings, n_classes)
    elif kind == "gaussian":
        _check_gaussian(arrays, settings, n_features, n_classes)
    elif kind == "unmixing":
        _check_unmixing(arrays, n_features, n_classes)
    elif kind == "twdtw":
        _check_warping(arrays, settings, n_features, n_classes)
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
        _require(bool((arrays[name][feature < 0] == -1).all()), f"array {name} must be -1 in leaves")
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
    width = arrays["value"].shape[1]
    _require(width in (1, scores), f"leaves must hold one score or {scores}, got {width}")
    largest = max(np.abs(arrays["value"]).max(), np.abs(arrays["base"]).max())
    _require(bool(largest < 1e30), f"scores of up to {largest:g} are out of bounds")
    owner = arrays["tree_class"]
    last = scores - width
    _require(bool(((owner >= 0) & (owner <= last)).all()), f"tree_class must lie in 0..{last}")
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


def _check_unmixing(arrays: Mapping[str, np.ndarray], n_features: int, n_classes: int) -> None:
    endmember, whitening, owner = (arrays[name] for name in ("endmember", "whitening", "owner"))
    count = len(owner)
    _require(n_classes <= count <= _MAX_ENDMEMBERS, f"{count} endmembers for {n_classes} classes are out of bounds")
    shapes = {"endmember": (count, n_features), "whitening": (n_features, n_features)}
    for name, shape in shapes.items():
        _require(arrays[name].shape == shape, f"array {name} must be {shape}, got {arrays[name].shape}")
        _require(bool((np.abs(arrays[name]) < 1e15).all()), f"array {name} holds numbers out of bounds")
    _require(bool((np.diagonal(whitening) > 0).all()), "the diagonal of whitening must be positive")
    _require(not np.triu(whitening, 1).any(), "whitening must be lower triangular")
    owned = bool(((owner >= 0) & (owner < n_classes)).all()) and len(np.unique(owner)) == n_classes
    _require(owned, f"owner must name each of the classes 0..{n_classes - 1}")
    _require(independent(endmember, whitening), "an endmember is a mixture of the others, so shares are not unique")


def independent(endmember: np.ndarray, whitening: np.ndarray) -> bool:
    """Whether no endmember is a mixture (of any sign) of the others, so that shares are unique."""
    whitened = (endmember - endmember.mean(axis=0)) @ whitening.T
    size = np.linalg.svd(whitened, compute_uv=False)
    needed = len(endmember) - 1
    return needed == 0 or bool(len(size) >= needed and size[needed - 1] > 1e-6 * size[0])


def _check_warping(
    arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], n_features: int, n_classes: int
) -> None:
    pattern, place = arrays["pattern"], arrays["place"]
    indices, dates = place.shape
    _require(
        place.size == n_features and np.array_equal(np.sort(place, axis=None), np.arange(n_features)),
        f"array place must name each of the {n_features} features once, got shape {place.shape}",
    )
    for name, count in (("pattern_day", pattern.shape[1]), ("series_day", dates)):
        days = arrays[name]
        _require(
            0 < count <= _MAX_DATES and len(days) == count, f"array {name} must hold {count} days, got {len(days)}"
        )
        _require(
            bool((np.diff(days) > 0).all()) and days[0] >= 1 and days[-1] <= _MAX_DATES,
            f"array {name} must rise within 1..{_MAX_DATES}",
        )
    expected = (n_classes, len(arrays["pattern_day"]), indices)
    _require(pattern.shape == expected, f"array pattern must be {expected}, got {pattern.shape}")
    _require(bool((np.abs(pattern) < 1e30).all()), "array pattern holds numbers out of bounds")
    _check_choice(settings, "ends", ("open", "closed"), "")
    for name, low, high in (("alpha", -10.0, 0.0), ("beta", 0.0, 366.0), ("scale", 1e-4, 1e4)):
        value = settings.get(name)
        _require(
            isinstance(value, int | float) and _is_number(value) and low <= value <= high,
            f"{name} must lie between {low:g} and {high:g}, got {value!r}",
        )
    limit = settings.get("rejection_distance")
    _require(limit is None or (_is_number(limit) and limit > 0), f"rejection_distance must be positive, got {limit!r}")


def _check_choice(settings: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str) -> None:
    found = settings.get(name, default)
    _require(found in choices, f"{name} must be one of {choices}, got {found!r}")


def _is_number(value: object) -> bool:
    # JSON integers have no limit: one beyond 64 bits is no number to numpy, and beyond 1e308 none to float
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_names(what: str, names: tuple[str, ...], most: int) -> None:
    """Refuse names that are empty, too long, too many or not unique."""
    if not 0 < len(names) <= most:
        raise ModelRefused(f"a model needs 1 to {most} {what}, got {len(names)}")
    if len(set(names)) != len(names):
        raise ModelRefused(f"{what} must be unique, got {list(names)[:30]}")
    if what == "classes" and "unclassified" in names:
        raise ModelRefused("the name 'unclassified' is that of pixels without a class; give the class another name")
    bad = [name for name in names if not name or len(name) > 200 or "\0" in name]
    if bad:
        raise ModelRefused(f"names of {what} must have 1 to 200 characters, none of them NUL, got {bad[:3]!r:.80}")


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


def check_statements(what: str, statements: tuple[str, ...] | None, n_features: int) -> None:
    """Refuse statements on features (units, scale) that are not one short text a feature."""
    if statements is None:
        return
    good = len(statements) == n_features and all(isinstance(text, str) and len(text) <= 200 for text in statements)
    _require(good, f"{what} must be {n_features} texts of at most 200 characters, got {statements!r:.80}")


def check_summary(
    count: np.ndarray, values: np.ndarray, ranges: np.ndarray | None, n_features: int, n_classes: int
) -> None:
    """Refuse a training summary whose numbers contradict each other."""
    good = count.shape == (n_classes,) and count.dtype == np.int64 and values.dtype == np.float64
    _require(
        good, f"summary_count must be {n_classes} int64 and summary_values float64, got {count.dtype}{count.shape}"
    )
    wanted = (4, n_classes, n_features)
    _require(values.shape == wanted, f"summary_values must be {wanted}, got {values.shape}")
    _require(bool(((count >= 0) & (count < 1 << 48)).all()), "summary_count must not be negative")
    _require(bool(np.isfinite(values).all()) and bool((np.abs(values) < 1e39).all()), "summary_values is out of bounds")
    mean, sd, low, high = values
    slack = 1e-9 * (1 + np.abs(low) + np.abs(high))
    ordered = (low <= high) & (mean >= low - slack) & (mean <= high + slack)
    _require(bool(ordered.all()), "a class's mean must lie between its smallest and its largest value")
    # no sample of numbers within a range spreads more than two values at its ends
    _require(bool(((sd >= 0) & (sd <= 0.7072 * (high - low) + slack)).all()), "a class's sd does not fit its range")
    if ranges is not None:
        sampled = count > 0
        inside = (low >= ranges[0] - slack) & (high <= ranges[1] + slack)
        _require(bool(inside[sampled].all()), "a class's values must lie within training_range")


def check_training_set(
    points: np.ndarray, scaling: np.ndarray, facts: Mapping[str, Any], ranges: np.ndarray | None, n_features: int
) -> None:
    """Refuse training points that a distance can't be taken to."""
    good = points.ndim == 2 and points.dtype == np.float32 and points.shape[1] == n_features
    _require(good, f"training_points must be float32 (points, {n_features}), got {points.dtype}{points.shape}")
    _require(0 < len(points) <= _MAX_POINTS, f"a model keeps 1 to {_MAX_POINTS} training points, got {len(points)}")
    _require(bool((np.abs(points) < 1e30).all()), "training_points holds NaN or numbers out of bounds")
    if ranges is not None:
        wide = points.astype(np.float64)
        slack = 1e-6 * (1e-30 + np.maximum(np.abs(ranges[0]), np.abs(ranges[1])))
        _require(
            bool(((wide >= ranges[0] - slack) & (wide <= ranges[1] + slack)).all()),
            "a training point lies outside training_range",
        )
    shaped = scaling.shape == (3, n_features) and scaling.dtype == np.float64 and bool((np.abs(scaling) < 1e30).all())
    _require(shaped, f"training_scaling must be float64 (3, {n_features}) within bounds, got {scaling.shape}")
    _require(bool((scaling[1] > 1e-30).all()), "training_scaling holds a standard deviation that is not positive")
    _require(bool((scaling[2] >= 0).all()) and bool(scaling[2].any()), "weights of features must not be negative")
    for name, least in (("mean_distance", 0.0), ("threshold", 0.0), ("covering", 0.0)):
        value = facts.get(name)
        good = _is_number(value) and least <= float(value or 0) < 1e30 and (name != "mean_distance" or bool(value))
        _require(good, f"{name} of the training data must be a number of 0 or more, got {value!r}")
    rows, folds = facts.get("rows"), facts.get("folds")
    _require(type(rows) is int and len(points) <= rows < 1 << 48, f"rows behind the training points: {rows!r}")
    _require(type(folds) is int and 0 <= folds <= 10_000, f"folds behind the threshold: {folds!r}")


def check_calibration(
    method: str, start: np.ndarray, table: np.ndarray, rows: int, origin: str, n_classes: int
) -> None:
    """Refuse calibration maps that are not increasing maps of probabilities to probabilities."""
    maps = 1 if n_classes == 2 else n_classes
    _require(method in ("isotonic", "sigmoid"), f"unknown calibration {method!r}")
    _require(type(rows) is int and 0 < rows < 1 << 48, f"calibration from {rows!r} rows")
    _require(isinstance(origin, str) and len(origin) <= 1000, "the origin of a calibration must be a text")
    good = start.shape == (maps + 1,) and start.dtype == np.int64
    _require(good, f"calibration_start must be int64 ({maps + 1},), got {start.dtype}{start.shape}")
    good = table.ndim == 2 and table.shape[1] == 2 and table.dtype == np.float64 and len(table) <= _MAX_KNOTS
    _require(good, f"calibration_table must be float64 (rows, 2), got {table.dtype}{table.shape}")
    _require(bool(np.isfinite(table).all()), "calibration_table holds NaN or infinity")
    ordered = start[0] == 0 and start[-1] == len(table) and bool((np.diff(start) > 0).all())
    _require(ordered, f"calibration_start must rise from 0 to {len(table)}")
    if method == "sigmoid":
        _require(len(table) == maps and bool((np.abs(table) < 1e6).all()), "a sigmoid has two numbers below 1e6")
        return
    _require(bool(((table >= 0) & (table <= 1)).all()), "calibration knots must lie in 0..1")
    within = np.ones(max(len(table) - 1, 0), dtype=bool)
    within[start[1:-1] - 1] = False
    step = np.diff(table, axis=0)[within]
    _require(bool((step[:, 0] > 0).all()) and bool((step[:, 1] >= 0).all()), "calibration knots must increase")
