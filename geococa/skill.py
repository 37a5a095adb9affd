"""Skill: the model beside nulls that need no model, on the same folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind, check_positives
from geococa.errors import AccuracyError, InputRefused, SampleLeak
from geococa.legend import NO_DATA, Legend

__all__ = ["NULLS", "add_history", "skill_table"]

NULLS = ("persistence", "historical_mean", "index_threshold")
"""Last year's map carried forward; the majority of all earlier years; the best threshold of one index."""

Fold = tuple[np.ndarray, np.ndarray]


def add_history(table: pd.DataFrame, land_cover: xr.DataArray, *, class_name: str = "coca") -> pd.DataFrame:
    """Add what earlier maps said about each sampled pixel.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``row, col, year``, rows and columns of the map's grid.
    land_cover : xarray.DataArray
        Yearly maps, uint8 ``(time, y, x)``, 255 = not observed.
    class_name : str
        Class in question.

    Returns
    -------
    pandas.DataFrame
        With ``previous`` (1 where the last earlier observed map shows the class, 0 where not) and ``history`` (share of all
        earlier observed maps that show it); NaN where no earlier map observed the pixel.
    """
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "time", "y", "x")
    code = Legend.from_attrs(land_cover.attrs).code(class_name)
    years = np.asarray(land_cover["time"].dt.year.values)
    data = land_cover.transpose("time", "y", "x").data
    row, col = table["row"].to_numpy(), table["col"].to_numpy()
    if hasattr(data, "vindex"):
        series = np.asarray(data.vindex[:, row, col].compute())
        series = series.T if series.shape[0] == len(table) else series
    else:
        series = data[:, row, col]
    earlier = (years[:, None] < table["year"].to_numpy(dtype=float)[None, :]) & (series != NO_DATA)
    hit = (series == code) & earlier
    count = earlier.sum(axis=0)
    out = table.copy()
    with np.errstate(invalid="ignore"):
        out["history"] = hit.sum(axis=0) / count
    order = np.argsort(years, kind="stable")
    last = np.where(earlier[order], np.arange(len(years))[:, None], -1).max(axis=0)
    shown = hit[order][np.maximum(last, 0), np.arange(len(table))] if len(years) else np.zeros(len(table), bool)
    out["previous"] = np.where(last >= 0, shown.astype(float), np.nan)
    return out


def skill_table(
    table: pd.DataFrame,
    folds: Sequence[Fold],
    *,
    class_name: str = "coca",
    predicted: str = "predicted",
    previous: str = "previous",
    history: str = "history",
    index: str = "ndvi",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Score a model and its nulls on the same folds and say whether the model has skill.

    Skill is claimed only if the mean advantage in F1 over each null is above zero beyond the spread between folds (one-sided
    t interval whose variance is corrected for folds sharing training samples).

    Parameters
    ----------
    table : pandas.DataFrame
        One row a reference sample: ``class`` (reference), ``predicted`` (class that the model gave it out of fold),
        ``previous`` and ``history`` (see `add_history`; ``previous`` may also hold class names) and the index. Rows without
        a value in any of these are left out for all competitors alike.
    folds : sequence of (train, test)
        Row positions, from `geococa.spatial_folds`.
    class_name : str
        Class in question.
    predicted, previous, history, index : str
        Columns. A null whose column is missing is not run, and then no skill can be claimed.
    confidence : float
        Level of the one-sided intervals.

    Returns
    -------
    pandas.DataFrame
        Index ``competitor``: the model, then the nulls. ``f1, iou, users_accuracy, producers_accuracy`` (means over folds),
        ``f1_fold_sd``, ``advantage`` (the model's F1 minus the null's), ``advantage_low``, ``verdict``
        ("model beats it", "no skill over persistence", ..., "not run"). ``attrs["verdict"]`` is the whole verdict, ``attrs["n"]``
        the number of rows scored.

    Raises
    ------
    NoPositives
        A fold's test or training part holds no sample of the class.
    SampleLeak
        A fold's training and test parts share a pixel.

    References
    ----------
    Nadeau, C. and Bengio, Y. (2003), Inference for the generalization error, Machine Learning 52, 239-281.
    """
    for column in ("class", predicted):
        if column not in table.columns:
            raise InputRefused(f"the table has no column {column!r}, only {', '.join(map(str, table.columns))}")
    if len(folds) < 2:
        raise AccuracyError(f"skill needs at least 2 folds, got {len(folds)}")
    present = {"persistence": previous, "historical_mean": history, "index_threshold": index}
    present = {name: column for name, column in present.items() if column in table.columns}
    complete = table[["class", predicted, *present.values()]].notna().all(axis=1).to_numpy()
    truth = (table["class"] == class_name).to_numpy()
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in ("model", *present)}
    sizes = []
    for number, (train, test) in enumerate(folds):
        _check_fold(table, train, test, class_name, number)
        train, test = train[complete[train]], test[complete[test]]
        for part, rows in (("training", train), ("test", test)):
            check_positives(table["class"].iloc[rows], class_name, where=f"the {part} part of fold {number + 1}")
        sizes.append((len(train), len(test)))
        scores["model"].append(_scores(truth[test], (table[predicted].iloc[test] == class_name).to_numpy()))
        for name, column in present.items():
            guess = _null(name, table[column], truth, train, test, class_name)
            scores[name].append(_scores(truth[test], guess))
    return _verdicts(scores, sizes, confidence, int(complete.sum()))


def _check_fold(table: pd.DataFrame, train: np.ndarray, test: np.ndarray, class_name: str, number: int) -> None:
    check_positives(table["class"].iloc[test], class_name, where=f"the test part of fold {number + 1}")
    shared = np.intersect1d(train, test).size
    # rows and columns name a pixel even where two points of it have other coordinates
    for pixel in (("x", "y"), ("row", "col")):
        if not set(pixel) <= set(table.columns):
            continue
        places = [name for name in ("tile", *pixel) if name in table.columns]
        sides = [pd.MultiIndex.from_frame(table[places].iloc[rows]) for rows in (test, train)]
        shared = max(shared, int(sides[0].isin(sides[1]).sum()))
    if shared:
        raise SampleLeak(
            f"fold {number + 1} tests {shared} rows on pixels that it was trained on, so any score is too good; make folds "
            "with geococa.spatial_folds"
        )


def _null(
    name: str, column: pd.Series[Any], truth: np.ndarray, train: np.ndarray, test: np.ndarray, class_name: str
) -> np.ndarray:
    """What a null says about the test rows."""
    if name == "persistence" and not pd.api.types.is_numeric_dtype(column):
        return (column.iloc[test].astype(str) == class_name).to_numpy()
    values = column.to_numpy(dtype=float)
    if name in ("persistence", "historical_mean"):
        return np.asarray(values[test] >= 0.5)
    cut, above = _best_threshold(values[train], truth[train])
    return values[test] >= cut if above else values[test] < cut


def _best_threshold(values: np.ndarray, truth: np.ndarray) -> tuple[float, bool]:
    """Threshold and side with the best F1 on the training rows."""
    order = np.argsort(values, kind="stable")
    ordered, hits = values[order], truth[order].astype(float)
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) > 0])
    below_hits = np.r_[0.0, np.cumsum(hits)][starts]
    total, n = hits.sum(), len(hits)
    f1_above = 2 * (total - below_hits) / (n - starts + total)
    f1_below = 2 * below_hits / (starts + total)
    best_above, best_below = int(np.argmax(f1_above)), int(np.argmax(f1_below))
    if f1_above[best_above] >= f1_below[best_below]:
        return float(ordered[starts[best_above]]), True
    return float(ordered[starts[best_below]]), False


def _scores(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    both, found, there = float((truth & guess).sum()), float(guess.sum()), float(truth.sum())
    return {
        "f1": 2 * both / (found + there),
        "iou": both / (found + there - both),
        "users_accuracy": both / found if found else np.nan,
        "producers_accuracy": both / there,
    }


def _verdicts(
    scores: dict[str, list[dict[str, float]]], sizes: list[tuple[int, int]], confidence: float, n: int
) -> pd.DataFrame:
    from scipy.stats import t as student

    model = np.array([fold["f1"] for fold in scores["model"]])
    overlap = 1 / len(model) + float(np.mean([test / train for train, test in sizes]))
    rows = {}
    for name in ("model", *NULLS):
        if name not in scores:
            rows[name] = {"verdict": "not run"}
            continue
        frame = pd.DataFrame(scores[name])
        row: dict[str, Any] = {str(key): value for key, value in frame.mean().items()} | {
            "f1_fold_sd": float(frame["f1"].std(ddof=1)),
            "verdict": "",
        }
        if name != "model":
            gain = model - frame["f1"].to_numpy()
            step = float(student.ppf(confidence, len(gain) - 1)) * float(np.sqrt(overlap * gain.var(ddof=1)))
            row |= {"advantage": float(gain.mean()), "advantage_low": float(gain.mean()) - step}
            row["verdict"] = "model beats it" if row["advantage_low"] > 0 else f"no skill over {name.replace('_', ' ')}"
        rows[name] = row
    columns = [
        "f1",
        "iou",
        "users_accuracy",
        "producers_accuracy",
        "f1_fold_sd",
        "advantage",
        "advantage_low",
        "verdict",
    ]
    out = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
    out.index.name = "competitor"
    out.attrs.update({"verdict": _whole_verdict(out), "n": n, "folds": len(model), "confidence": confidence})
    return out


def _whole_verdict(out: pd.DataFrame) -> str:
    losses = [str(text) for text in out.loc[list(NULLS), "verdict"] if str(text).startswith("no skill")]
    if losses:
        return losses[0]
    absent = [name.replace("_", " ") for name in NULLS if out.loc[name, "verdict"] == "not run"]
    if absent:
        return f"skill not shown: {', '.join(absent)} not run"
    return "skill over persistence, historical mean and index threshold"
