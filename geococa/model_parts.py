"""What a model keeps of its training beside the classifier: units of features, summary by class, points, calibration.

Each part is optional. In a model file it is an entry of the header and perhaps arrays; a file without them reads as a
model without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa.calibration_maps import Calibration
from geococa.errors import InputRefused, ModelRefused
from geococa.training_space import TrainingSet

__all__ = [
    "PART_ARRAYS",
    "PART_HEADERS",
    "ClassSummary",
    "check_stated",
    "normal_statement",
    "parts_from_file",
    "stated",
    "summarise",
    "summary_table",
]

PART_ARRAYS = (
    "summary_count", "summary_values", "training_points", "training_scaling", "calibration_start", "calibration_table",
)  # fmt: skip
"""Arrays of the optional parts in a model file."""

PART_HEADERS = ("feature_units", "feature_scales", "training_set", "calibration")
"""Entries of the optional parts in a model file's header."""

_ONE = ("", "1", "dimensionless", "unitless", "none")


@dataclass(frozen=True, eq=False)
class ClassSummary:
    """Training samples by class.

    Attributes
    ----------
    count : numpy.ndarray
        int64 ``(classes,)``: number of training rows.
    values : numpy.ndarray
        float64 ``(4, classes, features)``: mean, standard deviation (n - 1; 0 for a single row), smallest and largest
        value; zeros where a class has no row.
    """

    count: np.ndarray
    values: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays for the model file."""
        return {"summary_count": self.count, "summary_values": self.values}


def summarise(values: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> ClassSummary:
    """Summary by class of ``values`` float64 ``(rows, features)`` with class names ``labels``."""
    count = np.zeros(len(classes), np.int64)
    table = np.zeros((4, len(classes), values.shape[1]))
    for k, name in enumerate(classes):
        rows = values[labels == name]
        count[k] = len(rows)
        if len(rows):
            spread = rows.std(axis=0, ddof=1) if len(rows) > 1 else 0.0
            table[:, k] = rows.mean(axis=0), np.broadcast_to(spread, rows.shape[1:]), rows.min(axis=0), rows.max(axis=0)
    return ClassSummary(count, table)


def summary_table(
    features: Sequence[str],
    classes: Sequence[str],
    colors: Sequence[str],
    units: Sequence[str] | None,
    scales: Sequence[str] | None,
    summary: ClassSummary | None,
) -> pd.DataFrame:
    """One row a class and feature; see `geococa.models.Model.summary`."""
    shape = (len(classes), len(features))
    values = np.full((4, *shape), np.nan) if summary is None else summary.values.copy()
    count = pd.array([pd.NA] * shape[0], dtype="Int64") if summary is None else pd.array(summary.count, dtype="Int64")
    if summary is not None:
        values[:, summary.count == 0] = np.nan
    each = np.repeat(np.arange(shape[0]), shape[1])
    return pd.DataFrame(
        {
            "class": np.asarray(classes, dtype=object)[each],
            "color": np.asarray(colors, dtype=object)[each],
            "samples": count[each],
            "feature": list(features) * shape[0],
            "units": list(units or [""] * shape[1]) * shape[0],
            "scale": list(scales or [""] * shape[1]) * shape[0],
            **{name: values[i].ravel() for i, name in enumerate(("mean", "sd", "min", "max"))},
        }
    )


def normal_statement(what: str, text: str) -> str:
    """A statement in the form in which two are compared."""
    plain = " ".join(text.split()).casefold()
    return "1" if what == "units" and plain in _ONE else plain


def stated(what: str, source: Any, features: Sequence[str], given: str | Mapping[str, str] | None = None) -> list[str]:
    """What features say of themselves, ``""`` where nothing is said.

    Parameters
    ----------
    what : {"units", "scale"}
        Statement that is asked for.
    source : xarray.DataArray, pandas.DataFrame or None
        Features with the coordinate ``feature_units`` (``feature_scale``) on ``feature``, else the attribute ``units``
        (``scale``): one text, or a mapping by feature. Of a table its ``attrs``.
    features : sequence of str
        Features in question.
    given : str or mapping, optional
        Statement that goes before that of the source; it must not name other features.

    Raises
    ------
    InputRefused
        What is given names a feature that is not asked for, or a statement is no short text.
    """
    _check_given(what, features, given)
    chosen: Any = given if given is not None else getattr(source, "attrs", {}).get(what)
    if given is None and isinstance(source, xr.DataArray) and f"feature_{what}" in source.coords:
        names = [str(name) for name in source["feature"].values]
        chosen = dict(zip(names, [str(text) for text in source[f"feature_{what}"].values], strict=True))
    if chosen is None:
        return [""] * len(features)
    if isinstance(chosen, Mapping):
        found = [str(chosen.get(name, "")) for name in features]
    else:
        found = [str(chosen)] * len(features)
    long = [text for text in found if len(text) > 200]
    if long:
        raise InputRefused(f"the {what} of a feature must be a short text, got {long[0]!r:.80}")
    return found


def _check_given(what: str, features: Sequence[str], given: Any) -> None:
    texts = [*given.values()] if isinstance(given, Mapping) else [given]
    if given is not None and not all(isinstance(text, str) for text in texts):
        raise InputRefused(f"{what} must be a text, or a mapping of feature to text, got {given!r:.80}")
    unknown = sorted(str(name) for name in given if name not in features) if isinstance(given, Mapping) else []
    if unknown:
        raise InputRefused(f"{what} is given for {', '.join(unknown)}, the features are {', '.join(features)}")


def check_stated(what: str, wanted: Sequence[str] | None, features: xr.DataArray, names: Sequence[str]) -> None:
    """Refuse features that say of themselves another thing than the model's did in training; silence passes."""
    if wanted is None:
        return
    found = stated(what, features, names)
    for name, ours, theirs in zip(names, wanted, found, strict=True):
        if ours and theirs and normal_statement(what, ours) != normal_statement(what, theirs):
            raise ModelRefused(
                f"feature {name} has {what} {theirs!r}, the model was trained with {ours!r}; convert the feature, or "
                f"correct its attribute {what!r} if that is wrong"
            )


def parts_from_file(header: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Take the optional parts out of a file's header and arrays; what they hold is checked by the model.

    Raises
    ------
    ModelRefused
        A part is there in part only, or its header is not what it must be.
    """
    found = {name: arrays.pop(name, None) for name in PART_ARRAYS}
    out: dict[str, Any] = {}
    for name in ("feature_units", "feature_scales"):
        value = header.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
            raise ModelRefused(f"the header's {name!r} must be a list of texts, got {value!r:.80}")
        out[name] = None if value is None else tuple(value)
    count, values = found["summary_count"], found["summary_values"]
    if (count is None) != (values is None):
        raise ModelRefused("a training summary needs the arrays summary_count and summary_values")
    out["class_summary"] = None if count is None or values is None else ClassSummary(count, values)
    facts = _facts(header, "training_set", ("mean_distance", "threshold", "covering", "rows", "folds"))
    pair = _pair(found, "training_points", "training_scaling", facts, "training_set")
    out["training_set"] = None if facts is None else TrainingSet(*pair, **facts)
    facts = _facts(header, "calibration", ("method", "rows", "origin"))
    pair = _pair(found, "calibration_start", "calibration_table", facts, "calibration")
    out["calibration"] = None if facts is None else Calibration(facts["method"], *pair, facts["rows"], facts["origin"])
    return out


def _facts(header: Mapping[str, Any], name: str, entries: Sequence[str]) -> dict[str, Any] | None:
    value = header.get(name)
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != set(entries):
        raise ModelRefused(f"the header's {name!r} must be an object with {', '.join(entries)}, got {value!r:.80}")
    return value


def _pair(found: Mapping[str, Any], first: str, second: str, facts: Any, part: str) -> tuple[Any, Any]:
    pair = found[first], found[second]
    if any((array is None) != (facts is None) for array in pair):
        raise ModelRefused(f"the part {part!r} needs its header, {first} and {second}, or none of them")
    return pair
