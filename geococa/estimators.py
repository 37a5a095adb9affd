"""From fitted estimators of other libraries, in memory, to the arrays of a model; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from geococa.errors import ModelRefused

__all__ = ["Nodes", "Parts", "assemble_trees", "convert", "gaussian_parts"]


@dataclass(frozen=True)
class Parts:
    """What a conversion yields; classes are in the source's order.

    Attributes
    ----------
    kind : str
        Engine that the arrays are for.
    arrays : dict of str to numpy.ndarray
        See `geococa._kernels.forest` and `geococa._kernels.gaussian`.
    settings : dict
        Plain settings of the engine.
    labels : list
        The source's own class labels.
    feature_names : list of str or None
        Names that the source was fitted with, where it knows them.
    source : str
        Library and class of the estimator.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]
    labels: list[Any]
    feature_names: list[str] | None = None
    source: str = ""


@dataclass
class Tree:
    """One tree with node numbers of its own; ``feature`` is -1 at leaves, ``rows`` holds a row for each node."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    rows: np.ndarray
    tree_class: int = 0


@dataclass
class Nodes:
    """A tree under construction from nested dicts, in depth-first order."""

    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    missing_left: list[bool] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)

    def add(self, feature: int, threshold: float, missing_left: bool, row: list[float]) -> int:
        """Append a node without children and return its number."""
        self.feature.append(feature)
        self.threshold.append(threshold)
        self.left.append(-1)
        self.right.append(-1)
        self.missing_left.append(missing_left)
        self.rows.append(row)
        return len(self.feature) - 1

    def tree(self, tree_class: int = 0) -> Tree:
        """Return the nodes as arrays."""
        nodes = (self.feature, self.threshold, self.left, self.right, self.missing_left, self.rows)
        feature, threshold, left, right, missing_left, rows = (np.asarray(part) for part in nodes)
        return Tree(feature, threshold, left, right, missing_left, rows, tree_class)


def assemble_trees(trees: list[Tree], base: np.ndarray) -> dict[str, np.ndarray]:
    """Join trees into the flat arrays of a forest."""
    counts = np.asarray([len(tree.feature) for tree in trees], dtype=np.int64)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    feature = np.concatenate([tree.feature for tree in trees]).astype(np.int32)
    is_leaf = feature < 0
    feature[is_leaf] = -1
    children = {
        name: np.concatenate([getattr(tree, name) + offset for tree, offset in zip(trees, start[:-1], strict=True)])
        for name in ("left", "right")
    }
    threshold = np.concatenate([tree.threshold for tree in trees]).astype(np.float64)
    # a split at infinity sends every finite value the same way; the largest float does, too
    limit = np.finfo(np.float64).max
    threshold = np.where(is_leaf, 0.0, np.clip(threshold, -limit, limit))
    leaf = np.where(is_leaf, np.cumsum(is_leaf) - 1, -1).astype(np.int32)
    rows = np.concatenate([np.asarray(tree.rows, dtype=np.float64) for tree in trees])
    return {
        "tree_start": start,
        "feature": feature,
        "threshold": threshold,
        "left": np.where(is_leaf, -1, children["left"]).astype(np.int32),
        "right": np.where(is_leaf, -1, children["right"]).astype(np.int32),
        "missing_left": np.concatenate([tree.missing_left for tree in trees]).astype(np.uint8),
        "leaf": leaf,
        "value": np.ascontiguousarray(rows[is_leaf]),
        "tree_class": np.asarray([tree.tree_class for tree in trees], dtype=np.int32),
        "base": np.asarray(base, dtype=np.float64),
    }


def gaussian_parts(
    mean: np.ndarray, covariance: np.ndarray, prior: np.ndarray, labels: list[Any], source: str
) -> Parts:
    """Model of normal classes from means ``(K, F)``, covariances ``(K, F, F)`` and priors ``(K,)``."""
    mean, covariance, prior = (np.asarray(part, dtype=np.float64) for part in (mean, covariance, prior))
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ModelRefused(
            "a class covariance is not positive definite: a feature is constant within a class or "
            "features depend on each other; drop features, add samples, or regularise"
        ) from None
    identity = np.broadcast_to(np.eye(mean.shape[1]), covariance.shape)
    whitening = np.tril(np.linalg.solve(factor, identity))
    half_log_determinant = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    with np.errstate(divide="ignore"):
        constant = np.maximum(np.log(prior), -1e6) - half_log_determinant
    arrays = {"mean": mean, "whitening": whitening, "constant": constant}
    return Parts("gaussian", arrays, {}, labels, source=source)


def convert(estimator: Any) -> Parts:
    """Convert a fitted estimator; which ones is listed in `geococa.models.Model.from_estimator`.

    Raises
    ------
    ModelRefused
        The estimator is of a kind that is not known, is not fitted, or uses what the engines lack.
    """
    known = {f"{cls.__module__.split('.')[0]}.{cls.__name__}" for cls in type(estimator).__mro__}
    for name, converter in _CONVERTERS.items():
        if name in known:
            try:
                parts = converter(estimator)
            except AttributeError as error:
                raise ModelRefused(f"{type(estimator).__name__} is not fitted ({error}); call fit first") from None
            names = parts.feature_names or _feature_names(estimator)
            return replace(parts, feature_names=names, source=parts.source or name)
    raise ModelRefused(
        f"can't convert {type(estimator).__module__}.{type(estimator).__name__}; known are {', '.join(_CONVERTERS)}"
    )


def _feature_names(estimator: Any) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _one_output(estimator: Any) -> None:
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise ModelRefused(f"expected an estimator of one output, got {estimator.n_outputs_}")


# scikit-learn


def _sklearn_tree(tree: Any, scale: float | None = None, tree_class: int = 0) -> Tree:
    """Take the nodes of one ``tree_``; leaf rows are class shares, or values times ``scale``."""
    nodes = tree.__getstate__()["nodes"]
    is_leaf = nodes["left_child"] < 0
    rows = tree.value[:, 0, :] if scale is None else scale * tree.value[:, 0, :1]
    missing = nodes["missing_go_to_left"] if "missing_go_to_left" in nodes.dtype.names else np.zeros(len(nodes))
    return Tree(
        np.where(is_leaf, -1, nodes["feature"]),
        nodes["threshold"].copy(),
        nodes["left_child"].copy(),
        nodes["right_child"].copy(),
        missing.astype(np.uint8),
        rows.copy(),
        tree_class,
    )


def _forest(estimator: Any) -> Parts:
    _one_output(estimator)
    members = estimator.estimators_ if hasattr(estimator, "estimators_") else [estimator]
    trees = [_sklearn_tree(member.tree_) for member in members]
    labels = list(estimator.classes_)
    arrays = assemble_trees(trees, np.zeros(len(labels)))
    return Parts("forest", arrays, {"input": "float32"}, labels)


def _gradient_boosting(estimator: Any) -> Parts:
    if estimator.init_ != "zero" and type(estimator.init_).__name__ != "DummyClassifier":
        raise ModelRefused(
            f"gradient boosting that starts from {type(estimator.init_).__name__} can't be converted; "
            "fit it with init=None or init='zero'"
        )
    if str(estimator.loss) == "exponential":
        raise ModelRefused("gradient boosting with loss='exponential' can't be converted; fit it with loss='log_loss'")
    base = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32))[0]
    trees = [
        _sklearn_tree(member.tree_, estimator.learning_rate, k)
        for stage in estimator.estimators_
        for k, member in enumerate(stage)
    ]
    settings = {"input": "float32", "tie": "upper", "link": "sigmoid" if len(base) == 1 else "softmax"}
    return Parts("boosting", assemble_trees(trees, base), settings, list(estimator.classes_))


def _hist_gradient_boosting(estimator: Any) -> Parts:
    trees = []
    for stage in estimator._predictors:
        for k, predictor in enumerate(stage):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            if nodes["is_categorical"][~is_leaf].any():
                raise ModelRefused("a tree splits on categories; the engines take numeric splits only")
            trees.append(
                Tree(
                    np.where(is_leaf, -1, nodes["feature_idx"].astype(np.int64)),
                    nodes["num_threshold"].copy(),
                    nodes["left"].astype(np.int64),
                    nodes["right"].astype(np.int64),
                    nodes["missing_go_to_left"].astype(np.uint8),
                    nodes["value"][:, None].copy(),
                    k,
                )
            )
    base = np.asarray(estimator._baseline_prediction, dtype=np.float64).ravel()
    settings = {"input": "float64", "tie": "lower", "link": "sigmoid" if len(base) == 1 else "softmax"}
    return Parts("boosting", assemble_trees(trees, base), settings, list(estimator.classes_))


def _quadratic_discriminant(estimator: Any) -> Parts:
    covariance = np.stack(
        [
            (rotation * scaling) @ rotation.T
            for rotation, scaling in zip(estimator.rotations_, estimator.scalings_, strict=True)
        ]
    )
    return gaussian_parts(estimator.means_, covariance, estimator.priors_, list(estimator.classes_), "")


def _naive_bayes(estimator: Any) -> Parts:
    covariance = np.stack([np.diag(variance) for variance in estimator.var_])
    return gaussian_parts(estimator.theta_, covariance, estimator.class_prior_, list(estimator.classes_), "")


def _pipeline(estimator: Any) -> Parts:
    steps: list[tuple[str, np.ndarray]] = []
    for _, transformer in estimator.steps[:-1]:
        if transformer is None or transformer == "passthrough":
            continue
        steps += list(_scaling(transformer))
    parts = convert(estimator.steps[-1][1])
    if parts.settings.get("scaling"):
        raise ModelRefused("a pipeline inside a pipeline can't be converted; put the scaler and the classifier in one")
    if not steps:
        return replace(parts, feature_names=_feature_names(estimator))
    arrays = {**parts.arrays, "scaling": np.stack([amount for _, amount in steps]).astype(np.float64)}
    settings = {**parts.settings, "scaling": [step for step, _ in steps]}
    names = _feature_names(estimator.steps[0][1])
    return replace(parts, arrays=arrays, settings=settings, feature_names=names)


def _scaling(transformer: Any) -> Iterator[tuple[str, np.ndarray]]:
    name = type(transformer).__name__
    if name == "StandardScaler":
        if transformer.with_mean:
            yield "subtract", transformer.mean_
        if transformer.with_std:
            yield "divide", transformer.scale_
    elif name == "MinMaxScaler":
        yield "multiply", transformer.scale_
        yield "add", transformer.min_
        if transformer.clip:
            yield "at_least", np.full_like(transformer.min_, transformer.feature_range[0])
            yield "at_most", np.full_like(transformer.min_, transformer.feature_range[1])
    else:
        raise ModelRefused(f"a pipeline with {name} can't be converted; StandardScaler and MinMaxScaler can")


# LightGBM


def _lightgbm_sklearn(estimator: Any) -> Parts:
    parts = _lightgbm(estimator.booster_)
    return replace(parts, labels=list(estimator.classes_))


def _lightgbm(booster: Any) -> Parts:
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
    return Parts("boosting", assemble_trees(trees, np.zeros(scores)), settings, labels, dump["feature_names"])


def _lightgbm_tree(root: dict[str, Any], tree_class: int) -> Tree:
    nodes = Nodes()
    stack: list[tuple[dict[str, Any], int, str]] = [(root, -1, "")]
    while stack:
        entry, parent, side = stack.pop()
        if "split_feature" in entry:
            here = nodes.add(
                int(entry["split_feature"]),
                float(entry["threshold"] if entry["decision_type"] == "<=" else _refuse_categories()),
                _lightgbm_missing(entry),
                [0.0],
            )
            stack += [(entry["right_child"], here, "right"), (entry["left_child"], here, "left")]
        else:
            here = nodes.add(-1, 0.0, False, [float(entry["leaf_value"])])
        if parent >= 0:
            getattr(nodes, side)[parent] = here
    return nodes.tree(tree_class)


def _refuse_categories() -> float:
    raise ModelRefused("a tree splits on categories; the engines take numeric splits only")


def _lightgbm_missing(entry: dict[str, Any]) -> bool:
    kind = entry["missing_type"]
    if kind == "Zero":
        raise ModelRefused("LightGBM trained with zero_as_missing=True can't be converted; train it without")
    # without a missing type LightGBM reads NaN as zero
    return bool(entry["default_left"]) if kind == "NaN" else float(entry["threshold"]) >= 0.0


# XGBoost


def _xgboost_sklearn(estimator: Any) -> Parts:
    booster = estimator.get_booster()
    best = getattr(estimator, "best_iteration", None) if estimator.early_stopping_rounds else None
    parts = _xgboost(booster if best is None else booster[: best + 1])
    return replace(parts, labels=list(estimator.classes_))


def _xgboost(booster: Any) -> Parts:
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
        _refuse_categories()
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


_CONVERTERS: dict[str, Callable[[Any], Parts]] = {
    "sklearn.Pipeline": _pipeline,
    "sklearn.RandomForestClassifier": _forest,
    "sklearn.ExtraTreesClassifier": _forest,
    "sklearn.DecisionTreeClassifier": _forest,
    "sklearn.GradientBoostingClassifier": _gradient_boosting,
    "sklearn.HistGradientBoostingClassifier": _hist_gradient_boosting,
    "sklearn.QuadraticDiscriminantAnalysis": _quadratic_discriminant,
    "sklearn.GaussianNB": _naive_bayes,
    "lightgbm.LGBMClassifier": _lightgbm_sklearn,
    "lightgbm.Booster": _lightgbm,
    "xgboost.XGBClassifier": _xgboost_sklearn,
    "xgboost.Booster": _xgboost,
}
