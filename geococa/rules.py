"""Experts' threshold rules: a readable tree in TOML, turned into the arrays of a forest of one tree."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geococa._checks import check_type
from geococa.errors import ModelRefused
from geococa.tree_arrays import Nodes, Parts, assemble_trees

__all__ = ["rule_parts"]

_TEST = re.compile(
    r"\s*(?P<feature>[^\s<>=]|[^\s<>=][^<>=]*[^\s<>=])\s*(?P<sign><=|<|>=|>)\s*"
    r"(?P<number>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*"
)
_MAX_DEPTH = 100
_ROOT_KEYS = ("classes", "tree")
_LEAF_KEYS = ("class",)
_TEST_KEYS = ("test", "yes", "no")


def rule_parts(rules: str | os.PathLike[str] | Mapping[str, Any]) -> Parts:
    """Read rules; the form is described in `geococa.models.Model.from_rules`.

    Raises
    ------
    ModelRefused
        The rules are not a tree of tests and classes; the message gives the file and the place.
    """
    content, where = _load(rules)
    _known_keys(content, _ROOT_KEYS, where)
    classes = _classes(content.get("classes"), where)
    nodes, features = Nodes(), dict[str, int]()
    # depth first, yes before no, so that features are numbered in the order in which the tests name them
    stack: list[tuple[Any, str, int, str]] = [(content.get("tree"), "tree", -1, "")]
    while stack:
        entry, path, parent, side = stack.pop()
        here = f"{where}: {path}"
        _check_node(entry, here, path.count("."))
        if "class" in entry:
            node = nodes.add(-1, 0.0, False, _share(entry["class"], classes, here))
        else:
            feature, threshold, swapped = _parse_test(entry["test"], here)
            # what is missing fails every test, so it follows the "no"
            node = nodes.add(features.setdefault(feature, len(features)), threshold, swapped, [0.0] * len(classes))
            for answer in ("no", "yes"):
                stack.append((entry.get(answer), f"{path}.{answer}", node, _SIDES[swapped][answer]))
        if parent >= 0:
            getattr(nodes, side)[parent] = node
    if not features:
        raise ModelRefused(f"{where}: 'tree' must hold at least one test such as test = \"ndvi <= 0.4\"")
    arrays = assemble_trees([nodes.tree()], np.zeros(len(classes)))
    return Parts("forest", arrays, {"input": "float64"}, list(classes), list(features), "rules")


_SIDES = {False: {"yes": "left", "no": "right"}, True: {"yes": "right", "no": "left"}}
"""Where a branch hangs: left holds what is at most the threshold, which the answer "no" is to a test with > or >=."""


def _load(rules: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    if isinstance(rules, Mapping):
        return rules, "rules"
    check_type(rules, (str, os.PathLike, Mapping), "rules", "name a TOML file, or give what it would hold")
    try:
        return tomllib.loads(Path(rules).read_text(encoding="utf-8")), str(rules)
    except OSError as error:
        raise ModelRefused(
            f"{rules}: can't be read ({error.strerror}); give the path of a TOML file of rules"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelRefused(f"{rules}: not a TOML file of rules ({error})") from None


def _known_keys(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(str(name) for name in entry if name not in known)
    if unknown:
        raise ModelRefused(f"{where}: unknown {', '.join(unknown)}; rules have {', '.join(known)} here")


def _classes(found: Any, where: str) -> list[str]:
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(name, str) for name in found):
        raise ModelRefused(f"{where}: 'classes' must be a list of at least two names, got {found!r}")
    if len(set(found)) != len(found) or any(not name or re.search(r"\s", name) for name in found):
        raise ModelRefused(f"{where}: 'classes' must be different names without blanks, got {found!r}")
    return found


def _check_node(entry: Any, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ModelRefused(f"{where[:200]}...: more than {_MAX_DEPTH} tests follow each other")
    if not isinstance(entry, Mapping) or not ("class" in entry or "test" in entry):
        raise ModelRefused(
            f"{where} must be a table with 'class', or with 'test', 'yes' and 'no', got "
            + ("nothing" if entry is None else f"{entry!r:.80}")
        )
    _known_keys(entry, _LEAF_KEYS if "class" in entry else _TEST_KEYS, where)


def _share(name: Any, classes: list[str], where: str) -> list[float]:
    if name not in classes:
        raise ModelRefused(f"{where}: class {name!r} is not among the classes {classes}")
    return [float(name == other) for other in classes]


def _parse_test(test: Any, where: str) -> tuple[str, float, bool]:
    """Feature, threshold of ``<=``, and whether the branches change places."""
    match = _TEST.fullmatch(test) if isinstance(test, str) else None
    number = float(match["number"]) if match else np.nan
    if match is None or not np.isfinite(number):
        raise ModelRefused(f'{where}: expected test = "feature <= number" (or <, >, >=), got {test!r}')
    below = float(np.nextafter(number, -np.inf))
    threshold = number if match["sign"] in ("<=", ">") else below
    return match["feature"], threshold, match["sign"] in (">", ">=")
