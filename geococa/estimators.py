"""From fitted estimators of other libraries, in memory, to the arrays of a model; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from geococa.boosters import lightgbm_booster, lightgbm_classifier, xgboost_booster, xgboost_classifier
from geococa.catboost_trees import catboost_model
from geococa.errors import ModelRefused
from geococa.tree_arrays import Parts, Tree, assemble_trees

__all__ = ["class_names", "convert", "feature_names", "gaussian_parts"]


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


def _regression_forest(estimator: Any) -> Parts:
    """Forest of regression trees whose outputs are class fractions; one output is that of the first of two classes."""
    members = estimator.estimators_ if hasattr(estimator, "estimators_") else [estimator]
    outputs = int(estimator.n_outputs_)
    trees = []
    for member in members:
        tree = _sklearn_tree(member.tree_)
        rows = member.tree_.value[:, :, 0]
        rows = np.column_stack([rows[:, 0], 1.0 - rows[:, 0]]) if outputs == 1 else rows
        total = rows.sum(axis=1, keepdims=True)
        if (np.abs(total - 1) > 1e-6).any() or rows.min() < -1e-9:
            raise ModelRefused(
                f"the outputs of {type(estimator).__name__} are not class fractions: leaves hold values down to "
                f"{rows.min():.4g} and sums of {total.min():.4g} to {total.max():.4g}; fit it, with means in its "
                "leaves, to fractions that are not negative and sum to 1"
            )
        rows = np.maximum(rows, 0.0)
        trees.append(replace(tree, rows=rows / rows.sum(axis=1, keepdims=True)))
    labels = list(range(max(outputs, 2)))
    arrays = assemble_trees(trees, np.zeros(len(labels)))
    return Parts("forest", arrays, {"input": "float32", "output": "fraction"}, labels)


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
    if np.any(estimator.is_categorical_ if estimator.is_categorical_ is not None else False):
        # its trees number the features anew, categories first, so that even unused ones shift the others
        raise ModelRefused(
            "HistGradientBoosting with categorical_features can't be converted; the engines take numbers only"
        )
    for stage in estimator._predictors:
        for k, predictor in enumerate(stage):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
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


def feature_names(parts: Parts, features: Sequence[str] | None) -> tuple[str, ...]:
    """Feature names of a model: those given, or those that the estimator was fitted with."""
    if features is None and parts.feature_names is None:
        raise ModelRefused(
            "the estimator was fitted without feature names; give features=[...] in the order of its columns"
        )
    names = tuple(str(name) for name in (features if features is not None else parts.feature_names or ()))
    own = parts.feature_names
    if features is not None and own is not None and set(own) == set(names) and tuple(own) != names:
        raise ModelRefused(
            f"features are given as {list(names)}, the estimator was fitted with {own}; give them in the "
            "order of the estimator, or leave features out"
        )
    return names


def class_names(parts: Parts, classes: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names in the model's order, and the position of each of the source's classes among them."""
    own = [str(label) for label in parts.labels]
    if classes is None and parts.settings.get("output") == "fraction":
        raise ModelRefused(
            f"the {len(own)} outputs of a regressor have no names; give classes=[...] in the order of its outputs"
        )
    names = tuple(str(name) for name in classes) if classes is not None else tuple(own)
    if len(names) != len(own):
        raise ModelRefused(f"the estimator has {len(own)} classes {own}, got {len(names)} names {list(names)}")
    if set(names) == set(own):
        return names, tuple(names.index(label) for label in own)
    if any(isinstance(label, str) for label in parts.labels):
        raise ModelRefused(f"the estimator was fitted with the classes {own}, which are not {list(names)}")
    return names, tuple(range(len(own)))


_CONVERTERS: dict[str, Callable[[Any], Parts]] = {
    "sklearn.Pipeline": _pipeline,
    "sklearn.RandomForestClassifier": _forest,
    "sklearn.ExtraTreesClassifier": _forest,
    "sklearn.DecisionTreeClassifier": _forest,
    "sklearn.RandomForestRegressor": _regression_forest,
    "sklearn.ExtraTreesRegressor": _regression_forest,
    "sklearn.DecisionTreeRegressor": _regression_forest,
    "sklearn.GradientBoostingClassifier": _gradient_boosting,
    "sklearn.HistGradientBoostingClassifier": _hist_gradient_boosting,
    "sklearn.QuadraticDiscriminantAnalysis": _quadratic_discriminant,
    "sklearn.GaussianNB": _naive_bayes,
    "lightgbm.LGBMClassifier": lightgbm_classifier,
    "lightgbm.Booster": lightgbm_booster,
    "xgboost.XGBClassifier": xgboost_classifier,
    "xgboost.Booster": xgboost_booster,
    "catboost.CatBoostClassifier": catboost_model,
    "catboost.CatBoost": catboost_model,
}
