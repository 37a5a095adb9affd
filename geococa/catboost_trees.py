"""CatBoost models that are in memory, turned into the arrays of a model: each level of a tree asks one question."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from geococa.errors import ModelRefused
from geococa.tree_arrays import Nodes, Parts, Tree, assemble_trees

__all__ = ["catboost_model"]

_LINKS = {"Logloss": "sigmoid", "CrossEntropy": "sigmoid", "MultiClass": "softmax", "MultiClassOneVsAll": "ova"}
_MAX_LEAVES = 1 << 26
_LARGEST = np.finfo(np.float32).max


def catboost_model(estimator: Any) -> Parts:
    """Convert a fitted ``CatBoostClassifier``, or a ``CatBoost`` with a loss for classes.

    CatBoost goes to the right where ``x > border`` in single precision. NaN goes to the left, or to the right where
    the training saw it with ``nan_mode="Max"``.
    """
    if not estimator.is_fitted():
        raise ModelRefused(f"{type(estimator).__name__} is not fitted; call fit first")
    loss = str(estimator.get_all_params().get("loss_function", "unknown")).split(":")[0]
    if loss not in _LINKS:
        raise ModelRefused(f"CatBoost loss {loss!r} can't be converted; known are {', '.join(_LINKS)}")
    dump = _description(estimator)
    questions = _Questions.of(dump["features_info"])
    labels = [_plain_label(label) for label in estimator.classes_] or [0, 1]
    scores = 1 if _LINKS[loss] == "sigmoid" else len(labels)
    scale, bias = _scale_and_bias(dump, scores)
    if _LINKS[loss] == "sigmoid":
        _refuse_threshold(estimator)
    trees = _trees(dump, questions, scores, scale)
    if bias.any():
        # a last tree of one leaf: CatBoost adds the bias to the sum over the trees, not the trees to the bias
        leaf, zero = np.asarray([-1]), np.zeros(1)
        trees.append(Tree(leaf, zero, leaf, leaf, np.zeros(1, dtype=np.uint8), bias[None]))
    settings = {"input": "float32", "tie": "lower", "link": _LINKS[loss]}
    names = [str(name) for name in estimator.feature_names_]
    given = None if names == [str(i) for i in range(len(names))] else names
    return Parts("boosting", assemble_trees(trees, np.zeros(scores)), settings, labels, given)


def _trees(dump: dict[str, Any], questions: _Questions, scores: int, scale: float) -> list[Tree]:
    """Trees of either form: symmetric ones, or those of grow_policy 'Depthwise' and 'Lossguide'."""
    symmetric, free = dump.get("oblivious_trees") or [], dump.get("trees") or []
    if not symmetric and not free:
        raise ModelRefused("the CatBoost model has no trees; fit it with at least one iteration")
    if sum(len(tree["leaf_values"]) for tree in symmetric) > _MAX_LEAVES * scores:
        raise ModelRefused(f"the trees have more than {_MAX_LEAVES} leaves; train with a smaller depth or fewer trees")
    return [
        *(questions.symmetric_tree(entry, scores, scale) for entry in symmetric),
        *(questions.free_tree(root, scale) for root in free),
    ]


def _description(estimator: Any) -> dict[str, Any]:
    """CatBoost's own JSON form of a model, which it writes to files only."""
    with tempfile.TemporaryDirectory(prefix="geococa-") as folder:
        path = Path(folder) / "model.json"
        estimator.save_model(str(path), format="json")
        dump: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dump


def _plain_label(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def _scale_and_bias(dump: dict[str, Any], scores: int) -> tuple[float, np.ndarray]:
    scale, stated = dump.get("scale_and_bias", [1.0, [0.0]])
    bias = np.resize(np.atleast_1d(np.asarray(stated, dtype=np.float64)), scores)
    return float(scale), bias


def _refuse_threshold(estimator: Any) -> None:
    threshold = estimator.get_probability_threshold() if hasattr(estimator, "get_probability_threshold") else 0.5
    if threshold is not None and threshold != 0.5:
        raise ModelRefused(
            f"CatBoost with a probability threshold of {threshold:g} can't be converted, since a map takes the most "
            "probable class; call set_probability_threshold(0.5), or give label(..., min_probability=...)"
        )


class _Questions:
    """Where each numeric feature stands in the data, and where its missing values go."""

    def __init__(self, column: dict[int, int], missing_right: dict[int, bool]) -> None:
        self._column = column
        self._missing_right = missing_right

    @classmethod
    def of(cls, info: dict[str, Any]) -> _Questions:
        """Read ``features_info``; categorical, text and embedding features are refused."""
        others = [name for name in info if name.endswith("_features") and name != "float_features" and info[name]]
        if others or info.get("ctrs"):
            raise ModelRefused(
                f"CatBoost with {', '.join(others) or 'ctrs'} can't be converted; the engines take numbers only"
            )
        features = info.get("float_features", [])
        column = {int(entry["feature_index"]): int(entry["flat_feature_index"]) for entry in features}
        right = {int(entry["feature_index"]): entry["nan_value_treatment"] == "AsTrue" for entry in features}
        return cls(column, right)

    def _node(self, split: dict[str, Any]) -> tuple[int, float, bool]:
        """Feature, threshold and whether NaN goes left, of one split."""
        kind = split.get("split_type", "FloatFeature")
        if kind != "FloatFeature":
            raise ModelRefused(f"a CatBoost tree splits on a {kind}; the engines take numbers only")
        index = int(split["float_feature_index"])
        right = self._missing_right[index]
        return self._column[index], _border(float(split["border"]), right), not right

    def symmetric_tree(self, entry: dict[str, Any], scores: int, scale: float) -> Tree:
        """Write a symmetric tree out: the last split is the root, so that leaves keep their order."""
        splits = list(reversed(entry.get("splits") or []))
        inner, leaves = (1 << len(splits)) - 1, 1 << len(splits)
        size = inner + leaves
        feature, threshold = np.full(size, -1, dtype=np.int64), np.zeros(size)
        missing_left = np.zeros(size, dtype=np.uint8)
        for level, split in enumerate(splits):
            nodes = slice((1 << level) - 1, (2 << level) - 1)
            feature[nodes], threshold[nodes], missing_left[nodes] = self._node(split)
        node = np.arange(size)
        left = np.where(node < inner, 2 * node + 1, -1)
        right = np.where(node < inner, 2 * node + 2, -1)
        rows = np.zeros((size, scores))
        rows[inner:] = scale * np.asarray(entry["leaf_values"], dtype=np.float64).reshape(leaves, scores)
        return Tree(feature, threshold, left, right, missing_left, rows)

    def free_tree(self, root: dict[str, Any], scale: float) -> Tree:
        """Number the nodes of a nested tree depth first."""
        nodes = Nodes()
        stack: list[tuple[dict[str, Any], int, str]] = [(root, -1, "")]
        while stack:
            entry, parent, side = stack.pop()
            if "split" in entry:
                here = nodes.add(*self._node(entry["split"]), [])
                stack += [(entry["right"], here, "right"), (entry["left"], here, "left")]
            else:
                value = np.atleast_1d(np.asarray(entry["value"], dtype=np.float64))
                here = nodes.add(-1, 0.0, False, list(scale * value))
            if parent >= 0:
                getattr(nodes, side)[parent] = here
        width = max(len(row) for row in nodes.rows)
        nodes.rows = [row or [0.0] * width for row in nodes.rows]
        return nodes.tree()


def _border(stated: float, missing_right: bool) -> float:
    """Border in single precision, which is what CatBoost compares with.

    With ``nan_mode="Max"`` a border at the largest number parts NaN (and infinity) from everything else. Infinity
    is read as the largest number here, so that border is lowered by one step.
    """
    border = np.float32(stated)
    if missing_right and border >= _LARGEST:
        border = np.nextafter(_LARGEST, np.float32(0))
    return float(border)
