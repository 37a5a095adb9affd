"""Permutation importance: how much worse a model does on held-out rows when a feature says nothing."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from geococa._checks import check_positives, check_seed, check_type, check_whole
from geococa.errors import InputRefused
from geococa.model_features import check_model, usable
from geococa.scores import Metric, Scorer, make_scorer

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["permutation_importance"]

_VALUES_AT_ONCE = 1 << 24
"""Feature values predicted in one call: repeats are stacked up to this, so that a kernel call is worth its while."""


def permutation_importance(
    model: Model,
    table: pd.DataFrame,
    *,
    repeats: int = 10,
    seed: int = 0,
    metric: Metric | None = None,
    positive: str | None = None,
    groups: Mapping[str, Sequence[str]] | str | None = None,
    threads: int | None = None,
) -> pd.DataFrame:
    """Shuffle one feature at a time over the rows and see how much the score falls.

    The rows must be ones that the model was not trained on, on places of their own (`geococa.split_samples`): on its own
    training rows a forest finds every feature important. Of features that say the same, each alone seems unimportant,
    since the others stand in for it; shuffle them together with ``groups``.

    Parameters
    ----------
    model : Model
        Trained model.
    table : pandas.DataFrame
        Held-out rows: ``class`` and one column a feature. Rows without a class, or without what the model needs (all
        features; for ``twdtw`` any), are left out.
    repeats : int
        Shuffles of each feature, at least 2.
    seed : int
        Of the shuffles. A feature's shuffles depend on the seed and its name only.
    metric : str or callable, optional
        See `geococa.scores.METRICS`: F1 of the positive class by default, mean F1 of all where there is none; or a function
        of reference and predicted class names.
    positive : str, optional
        Class in question; ``coca`` by default where the model has it.
    groups : mapping of str to sequence of str, or "season", optional
        Features that are shuffled together, row by row; features in no group stay on their own. ``"season"`` joins what
        `geococa.season_features` says of one index, such as ``ndvi_p10`` and ``ndvi_amplitude``, as ``ndvi_season``.
    threads : int, optional
        Threads of the prediction; results do not depend on it.

    Returns
    -------
    pandas.DataFrame
        ``feature`` (or name of the group), ``importance`` (mean fall of the score), ``importance_sd`` (between shuffles,
        ``n - 1``), ``features`` (how many were shuffled); most important first. ``attrs``: ``score`` of the rows as they
        are, ``metric, n, repeats, seed``.

    Raises
    ------
    NoPositives
        The rows hold no sample of the positive class.
    InputRefused
        No usable row, a class that the model does not know, or a group that names an unknown feature.

    References
    ----------
    Breiman, L. (2001), Random forests, Machine Learning 45, 5-32. Strobl, C., Boulesteix, A.-L., Kneib, T., Augustin, T.
    and Zeileis, A. (2008), Conditional variable importance for random forests, BMC Bioinformatics 9, 307 (on features that
    say the same).

    Examples
    --------
    >>> from geococa.models import train
    >>> rng = np.random.default_rng(0)
    >>> noise = {f"noise{k}": rng.random(200) for k in range(2)}
    >>> table = pd.DataFrame({"class": ["coca", "forest"] * 100, "ndvi": [0.5, 0.9] * 100} | noise)
    >>> model = train(table[:100], ["ndvi", "noise0", "noise1"], n_estimators=20)
    >>> permutation_importance(model, table[100:])["feature"][0]
    'ndvi'
    """
    # the spread needs two
    repeats, seed = check_whole(repeats, "repeats", 2), check_seed(seed)
    rows, truth = _held_out(model, table)
    wanted = positive if positive is not None else ("coca" if "coca" in model.classes else None)
    scorer = make_scorer(metric, model.classes, wanted)
    if wanted is not None:
        check_positives(rows["class"].unique(), wanted, where="the held-out table")
    X = np.ascontiguousarray(rows[list(model.features)].to_numpy())
    base = _scores(model, X[None], truth, scorer, threads)[0]
    found = []
    for name, columns in _groups(model.features, groups).items():
        # a stream for each name: importance does not change when other features come or go
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        orders = [rng.permutation(len(X)) for _ in range(repeats)]
        fall = base - _shuffled_scores(model, X, columns, orders, truth, scorer, threads)
        found.append(
            {
                "feature": name,
                "importance": float(fall.mean()),
                "importance_sd": float(fall.std(ddof=1)),
                "features": len(columns),
            }
        )
    out = pd.DataFrame(found).sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    out.attrs.update({"score": float(base), "metric": scorer.name, "n": len(X), "repeats": repeats, "seed": seed})
    return out


def _held_out(model: Model, table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    check_model(model)
    check_type(table, pd.DataFrame, "table", "give held-out rows of a geococa.training_table")
    missing = [name for name in ("class", *model.features) if name not in table.columns]
    if missing:
        raise InputRefused(
            f"the held-out table lacks {', '.join(missing)}; it has {', '.join(map(str, table.columns[:30]))}"
        )
    rows = table[usable(model, table) & table["class"].notna().to_numpy()]
    if rows.empty:
        raise InputRefused(f"none of the {len(table)} held-out rows has every feature and a class")
    names = rows["class"].astype(str)
    unknown = sorted(set(names) - set(model.classes))
    if unknown:
        raise InputRefused(f"the held-out rows have classes {', '.join(unknown)}, the model {', '.join(model.classes)}")
    codes = {name: number for number, name in enumerate(model.classes)}
    return rows, names.map(codes).to_numpy(dtype=np.int64)


def _groups(features: Sequence[str], groups: Mapping[str, Sequence[str]] | str | None) -> dict[str, tuple[int, ...]]:
    """Columns that are shuffled together, by name."""
    position = {name: number for number, name in enumerate(features)}
    if groups is None:
        return {name: (number,) for name, number in position.items()}
    if isinstance(groups, str):
        if groups != "season":
            raise InputRefused(f"groups must be a mapping of name to features, or 'season', got {groups!r}")
        groups = _by_season(features)
    check_type(groups, Mapping, "groups", "give {name: [features]} or 'season'")
    unknown = sorted({name for members in groups.values() for name in members} - set(position))
    bare = sorted(name for name, members in groups.items() if isinstance(members, str) or not len(members))
    if unknown or bare:
        raise InputRefused(
            f"groups must be lists of the model's features {', '.join(features[:30])}; "
            + (f"unknown: {', '.join(unknown)}" if unknown else f"not a list: {', '.join(bare)}")
        )
    grouped = {name for members in groups.values() for name in members}
    alone = {name: (number,) for name, number in position.items() if name not in grouped}
    clash = sorted(set(alone) & set(groups))
    if clash:
        raise InputRefused(f"groups are named {', '.join(clash)}, as features outside them are; name them otherwise")
    return {str(name): tuple(position[member] for member in members) for name, members in groups.items()} | alone


def _by_season(features: Sequence[str]) -> dict[str, list[str]]:
    """Features joined by index, where the rest of the name is a statistic of the season."""
    from geococa._kernels.season import STATISTICS

    found: dict[str, list[str]] = {}
    longest_first = sorted(STATISTICS, key=len, reverse=True)
    for name in features:
        ending = next((f"_{end}" for end in longest_first if name.endswith(f"_{end}")), "")
        if ending:
            found.setdefault(f"{name.removesuffix(ending)}_season", []).append(name)
    return found


def _shuffled_scores(
    model: Model,
    X: np.ndarray,
    columns: tuple[int, ...],
    orders: list[np.ndarray],
    truth: np.ndarray,
    scorer: Scorer,
    threads: int | None,
) -> np.ndarray:
    at_once = max(1, _VALUES_AT_ONCE // X.size)
    scores = []
    for start in range(0, len(orders), at_once):
        part = orders[start : start + at_once]
        stack = np.repeat(X[None], len(part), axis=0)
        for copy, order in zip(stack, part, strict=True):
            copy[:, columns] = X[order][:, columns]
        scores.append(_scores(model, stack, truth, scorer, threads))
    return np.concatenate(scores)


def _scores(model: Model, stack: np.ndarray, truth: np.ndarray, scorer: Scorer, threads: int | None) -> np.ndarray:
    """Score of each table in ``stack``, float ``(tables, rows, features)``."""
    flat = stack.reshape(-1, stack.shape[2])
    if scorer.needs_probability:
        found = model.predict_proba(flat, threads=threads)
        return np.array([scorer(truth, part) for part in found.reshape(len(stack), stack.shape[1], -1)])
    codes = {name: number for number, name in enumerate([*model.classes, "unclassified"])}
    names = model.predict(flat, threads=threads)
    labels = pd.Series(names).map(codes).to_numpy(dtype=np.int64)
    return np.array([scorer(truth, part) for part in labels.reshape(stack.shape[:2])])
