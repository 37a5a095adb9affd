"""LightGBM and XGBoost models that are in memory, turned into the arrays of a model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np

from geococa.errors import ModelRefused
from geococa.tree_arrays import Nodes, Parts, Tree, assemble_trees

__all__ = ["lightgbm_booster", "lightgbm_classifier", "refuse_categories", "xgboost_booster", "xgboost_classifier"]

_LIGHTGBM_ZERO = float(np.float32(1e-35))


def lightgbm_classifier(estimator: Any) -> Parts:
    """Convert a fitted ``LGBMClassifier``."""
    parts = lightgbm_booster(estimator.booster_)
    return replace(parts, labels=list(estimator.classes_))


def lightgbm_booster(booster: Any) -> Parts:
    """Convert a LightGBM ``Booster`` through its own description of itself."""
    dump = booster.dump_model()
    objective = str(dump.get("objective", "")).split()
    options = dict(item.split(":") for item in objective[1:] if ":" in item)
    if dump.get("average_output"):
        raise ModelRefused("LightGBM in boosting mode 'rf' can't be converted; use 'gbdt', or scikit-learn's forest")
    links = {"binary": "sigmoid", "multiclass": "softmax", "multiclassova": "ova"}
    if not objective or objective[0] not in links:
        raise ModelRefused(
            f"LightGBM objective {' '.join(objective) or 'unknown'!r} can't be converted; known are {', '.join(links)}"
        )
    scores = int(dump["num_tree_per_iteration"])
    trees = [_lightgbm_tree(info["tree_structure"], i % scores) for i, info in enumerate(dump["tree_info"])]
    settings: dict[str, Any] = {"input": "float64", "tie": "lower", "link": links[objective[0]]}
    if objective[0] != "multiclass":
        settings["slope"] = float(options.get("sigmoid", 1.0))
    labels = list(range(max(scores, 2)))
    names = dump["feature_names"]
    given = None if all(re.fullmatch(r"Column_\d+", name) for name in names) else names
    return Parts("boosting", assemble_trees(trees, np.zeros(scores)), settings, labels, given)


def _lightgbm_tree(root: dict[str, Any], tree_class: int) -> Tree:
    nodes = Nodes()
    stack: list[tuple[dict[str, Any], int, str]] = [(root, -1, "")]
    while stack:
        entry, parent, side = stack.pop()
        if "split_feature" in entry:
            here = nodes.add(
                int(entry["split_feature"]),
                _lightgbm_threshold(entry),
                _lightgbm_missing(entry),
                [0.0],
            )
            stack += [(entry["right_child"], here, "right"), (entry["left_child"], here, "left")]
        else:
            if "leaf_const" in entry:
                raise ModelRefused(
                    "LightGBM trained with linear_tree=True can't be converted, since its leaves hold linear models; "
                    "train it without"
                )
            here = nodes.add(-1, 0.0, False, [float(entry["leaf_value"])])
        if parent >= 0:
            getattr(nodes, side)[parent] = here
    return nodes.tree(tree_class)


def _lightgbm_threshold(entry: dict[str, Any]) -> float:
    """Threshold that does what LightGBM does, which reads values of up to 1e-35 (in single precision) as zero."""
    threshold = float(entry["threshold"] if entry["decision_type"] == "<=" else refuse_categories())
    if 0 <= threshold < _LIGHTGBM_ZERO:
        return _LIGHTGBM_ZERO
    return float(np.nextafter(-_LIGHTGBM_ZERO, -1)) if -_LIGHTGBM_ZERO <= threshold < 0 else threshold


def refuse_categories() -> float:
    """Refuse a tree with categorical splits."""
    raise ModelRefused("a tree splits on categories; the engines take numeric splits only")


def _lightgbm_missing(entry: dict[str, Any]) -> bool:
    kind = entry["missing_type"]
    if kind == "Zero":
        raise ModelRefused("LightGBM trained with zero_as_missing=True can't be converted; train it without")
    # without a missing type LightGBM reads NaN as zero
    return bool(entry["default_left"]) if kind == "NaN" else float(entry["threshold"]) >= 0.0


def xgboost_classifier(estimator: Any) -> Parts:
    """Convert a fitted ``XGBClassifier``, up to its best iteration where it stopped early."""
    booster = estimator.get_booster()
    missing = estimator.missing
    if missing is not None and not np.isnan(missing):
        raise ModelRefused(
            f"XGBoost with missing={missing:g} can't be converted, since only NaN is missing here; put NaN in the place of "
            f"{missing:g} and train without missing="
        )
    # set by early_stopping_rounds and by a callback alike
    best = getattr(estimator, "best_iteration", None)
    parts = xgboost_booster(booster if best is None else booster[: best + 1])
    return replace(parts, labels=list(estimator.classes_))


def xgboost_booster(booster: Any) -> Parts:
    """Convert an XGBoost ``Booster`` through its own JSON form."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = learner["objective"]["name"]
    links = {"binary:logistic": "sigmoid", "multi:softprob": "softmax", "multi:softmax": "softmax"}
    if objective not in links or learner["gradient_booster"]["name"] != "gbtree":
        raise ModelRefused(
            f"XGBoost objective {objective!r} with booster {learner['gradient_booster']['name']!r} can't be "
            f"converted; known are {', '.join(links)} with 'gbtree'"
        )
    model = learner["gradient_booster"]["model"]
    trees = [_xgboost_tree(tree, owner) for tree, owner in zip(model["trees"], model["tree_info"], strict=True)]
    scores = max(int(learner["learner_model_param"]["num_class"]), 1)
    stated = str(learner["learner_model_param"]["base_score"]).strip("[]").split(",")
    base = np.resize(np.asarray([float(text) for text in stated], dtype=np.float32), scores)
    if links[objective] == "sigmoid":
        base = -np.log(np.float32(1) / base - np.float32(1))
    settings = {"input": "float32", "precision": "float32", "tie": "lower", "link": links[objective]}
    labels = list(range(max(scores, 2)))
    return Parts("boosting", assemble_trees(trees, base), settings, labels, learner.get("feature_names") or None)


def _xgboost_tree(tree: dict[str, Any], tree_class: int) -> Tree:
    left = np.asarray(tree["left_children"], dtype=np.int64)
    right = np.asarray(tree["right_children"], dtype=np.int64)
    if any(tree["split_type"]) or tree.get("categories"):
        refuse_categories()
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise ModelRefused("XGBoost trees with vector leaves can't be converted; train with one tree for each output")
    is_leaf = left < 0
    condition = np.asarray(tree["split_conditions"], dtype=np.float32)
    # XGBoost goes left where x < t; on float32 that is x <= the float32 before t
    threshold = np.nextafter(condition, np.float32(-np.inf)).astype(np.float64)
    feature = np.where(is_leaf, -1, np.asarray(tree["split_indices"], dtype=np.int64))
    rows = condition.astype(np.float64)[:, None]
    raw = Tree(feature, threshold, left, right, np.asarray(tree["default_left"], dtype=np.uint8), rows, tree_class)
    return _in_depth_first_order(raw)


def _in_depth_first_order(tree: Tree) -> Tree:
    """Number the nodes anew so that children follow their parents, and drop what no path reaches."""
    nodes = Nodes()
    stack: list[tuple[int, int, str]] = [(0, -1, "")]
    while stack:
        node, parent, side = stack.pop()
        here = nodes.add(
            int(tree.feature[node]), float(tree.threshold[node]), bool(tree.missing_left[node]), list(tree.rows[node])
        )
        if parent >= 0:
            getattr(nodes, side)[parent] = here
        if tree.feature[node] >= 0:
            stack += [(int(tree.right[node]), here, "right"), (int(tree.left[node]), here, "left")]
    return nodes.tree(tree.tree_class)
