"""Trees from any source, joined into the flat arrays that `geococa._kernels.forest` describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Nodes", "Parts", "Tree", "assemble_trees"]


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
    importance : numpy.ndarray or None
        float64 ``(features,)``: importance of each feature, where the source knows it.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]
    labels: list[Any]
    feature_names: list[str] | None = None
    source: str = ""
    importance: np.ndarray | None = None


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
