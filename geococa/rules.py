"""Experts' threshold rules: a readable tree in TOML, turned into the arrays of a forest of one tree."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geococa.errors import ModelRefused
from geococa.tree_arrays import Nodes, Parts, assemble_trees

__all__ = ["rule_parts"]

_TEST = re.compile(r"\s*(?P<feature>[^\s<>=]+)\s*(?P<sign><=|<|>=|>)\s*(?P<number>[-+]?[0-9.][0-9.eE+-]*)\s*")
_MAX_DEPTH = 100


def rule_parts(rules: str | os.PathLike[str] | Mapping[str, Any]) -> Parts:
    """Read rules; the form is described in `geococa.models.Model.from_rules`.

    Raises
    ------
    ModelRefused
        The rules are not a tree of tests and classes; the message gives the place.
    """
    content, where = _load(rules)
    classes = content.get("classes")
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise ModelRefused(f"{where}: 'classes' must be a list of at least two names, got {classes!r}")
    nodes, features = Nodes(), _features(content.get("tree"))
    if not features:
        raise ModelRefused(f"{where}: 'tree' must hold at least one test such as test = \"ndvi <= 0.4\"")
    stack: list[tuple[Any, str, int, str]] = [(content["tree"], "tree", -1, "")]
    while stack:
        entry, path, parent, side = stack.pop()
        if not isinstance(entry, Mapping) or path.count(".") > _MAX_DEPTH:
            raise ModelRefused(f"{where}: {path} must be a table with 'class', or with 'test', 'yes' and 'no'")
        if "class" in entry:
            here = nodes.add(-1, 0.0, False, _share(entry["class"], classes, f"{where}: {path}"))
        else:
            feature, threshold, swapped = _parse_test(entry.get("test"), f"{where}: {path}")
            here = nodes.add(features.index(feature), threshold, False, [0.0] * len(classes))
            sides = ("no", "yes") if swapped else ("yes", "no")
            stack.append((entry.get(sides[1]), f"{path}.{sides[1]}", here, "right"))
            stack.append((entry.get(sides[0]), f"{path}.{sides[0]}", here, "left"))
        if parent >= 0:
            getattr(nodes, side)[parent] = here
    arrays = assemble_trees([nodes.tree()], np.zeros(len(classes)))
    return Parts("forest", arrays, {"input": "float64"}, list(classes), features, "rules")


def _load(rules: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    if isinstance(rules, Mapping):
        return rules, "rules"
    try:
        return tomllib.loads(Path(rules).read_text(encoding="utf-8")), str(rules)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelRefused(f"{rules}: not a readable TOML file of rules ({error})") from None


def _features(tree: Any) -> list[str]:
    """Feature names in the order in which the tests name them, from the root down."""
    found: dict[str, None] = {}
    stack = [tree]
    while stack:
        entry = stack.pop()
        if isinstance(entry, Mapping):
            match = _TEST.fullmatch(str(entry.get("test", "")))
            if match:
                found[match["feature"]] = None
            stack += [entry.get("no"), entry.get("yes")]
    return list(found)


def _share(name: Any, classes: list[str], where: str) -> list[float]:
    if name not in classes:
        raise ModelRefused(f"{where}: class {name!r} is not among the classes {classes}")
    return [float(name == other) for other in classes]


def _parse_test(test: Any, where: str) -> tuple[str, float, bool]:
    """Feature, threshold of ``<=``, and whether the branches change places."""
    match = _TEST.fullmatch(test) if isinstance(test, str) else None
    try:
        number = float(match["number"]) if match else np.nan
    except ValueError:
        number = np.nan
    if match is None or not np.isfinite(number):
        raise ModelRefused(f'{where}: expected test = "feature <= number" (or <, >, >=), got {test!r}')
    below = float(np.nextafter(number, -np.inf))
    threshold = number if match["sign"] in ("<=", ">") else below
    return match["feature"], threshold, match["sign"] in (">", ">=")
