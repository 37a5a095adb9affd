"""Tuning: a search over a method's settings that shows every trial and prefers the cheaper of equal models."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geococa._checks import check_seed, check_type, check_whole
from geococa.errors import GeococaError, InputRefused
from geococa.model_file import plain
from geococa.models import Model
from geococa.sample_splits import Fold
from geococa.scores import Metric, Scorer, make_scorer
from geococa.training import class_order
from geococa.tree_cost import decisions_per_pixel, model_size
from geococa.validation import Trainer, default_trainer, make_pairs, positive_of, prepare_rows, run_folds

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SPACES", "Tuning", "tune"]

_FOREST: dict[str, Sequence[Any]] = {
    "n_estimators": (50, 100, 200),
    "max_depth": (8, 12, 20, None),
    "min_samples_leaf": (1, 2, 5, 10),
    "max_features": ("sqrt", 0.33, 0.67),
}
SPACES: dict[str, Mapping[str, Sequence[Any]]] = {
    "random_forest": _FOREST,
    "extra_trees": _FOREST,
    "hist_gradient_boosting": {
        "learning_rate": (0.03, 0.1, 0.3),
        "max_iter": (50, 100, 200),
        "max_leaf_nodes": (7, 15, 31),
        "min_samples_leaf": (5, 20, 50),
        "l2_regularization": (0.0, 1.0, 10.0),
    },
    "lightgbm": {
        "learning_rate": (0.03, 0.1, 0.3),
        "n_estimators": (50, 100, 200),
        "num_leaves": (7, 15, 31),
        "min_child_samples": (5, 20, 50),
        "reg_lambda": (0.0, 1.0, 10.0),
    },
    "xgboost": {
        "learning_rate": (0.03, 0.1, 0.3),
        "n_estimators": (50, 100, 200),
        "max_depth": (3, 4, 6, 8),
        "min_child_weight": (1, 5, 20),
        "reg_lambda": (1.0, 10.0),
    },
    "catboost": {
        "learning_rate": (0.03, 0.1, 0.3),
        "iterations": (50, 100, 200),
        "depth": (4, 6, 8),
        "l2_leaf_reg": (1.0, 3.0, 10.0),
    },
    "gaussian": {"regularisation": (0.0, 0.1, 0.3, 1.0), "priors": ("equal", "samples")},
    "mahalanobis": {"priors": ("equal", "samples")},
}
"""Settings that `tune` searches for each method where no others are given."""

_COUNTED_ROWS = 300
_DRAWS_A_TRIAL = 50

Progress = Callable[[str, int, int], None]
Space = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Tuning:
    """A finished search.

    Attributes
    ----------
    trials : pandas.DataFrame
        One row a trial, index ``trial`` (0 = the method's defaults): one column a setting (missing = default),
        ``score`` (mean over folds), ``score_sd`` (between folds), ``score_se``, ``seconds``, ``decisions_per_pixel``,
        ``nodes`` (of all trees, mean over folds), ``chosen``, ``failed`` (empty, or why the trial could not be run).
    chosen : int
        Trial that was taken.
    settings : mapping
        Its options, as `geococa.train` takes them.
    model : Model
        Trained on all rows with these options; its provenance tells of the search under ``tuning``.
    metric, rule : str
        The score, and how the choice was made, in words.
    """

    trials: pd.DataFrame
    chosen: int
    settings: Mapping[str, Any]
    model: Model
    metric: str
    rule: str


def tune(
    table: pd.DataFrame,
    features: xr.DataArray | Sequence[str] | None = None,
    *,
    method: str = "random_forest",
    space: Space | None = None,
    search: str = "random",
    trials: int = 20,
    metric: Metric | None = None,
    folds: int | Sequence[Fold] = 5,
    block_m: float | None = 1000.0,
    buffer_m: float = 100.0,
    seed: int = 0,
    positive: str | None = None,
    classes: Sequence[str] | None = None,
    class_weight: str | Mapping[str, float] | None = None,
    threads: int | None = None,
    crs: Any | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Tuning:
    """Search a method's settings by spatially blocked cross-validation, and train the one chosen on all rows.

    All trials see the same folds. The choice follows the one-standard-error rule: of the trials whose mean score is within
    one standard error of the best one's, the one with the fewest decisions a pixel; of those that cost the same, the better.

    .. warning::
       The score of the chosen trial is the best of many and too good by some. For an honest one, search inside
       each fold: ``cross_validate(table, trainer=lambda rows: tune(rows, ...).model)``; or keep places back with
       `geococa.split_samples`.

    Parameters
    ----------
    table, features, method, folds, block_m, buffer_m, positive, classes, threads, crs
        As for `geococa.cross_validate`.
    space : mapping of str to sequence, optional
        Values to try of each option of `geococa.train`, ``class_weight`` included; for a random search also an object with
        ``rvs(random_state=...)``, such as a frozen scipy distribution. By default that of `SPACES`.
    search : {"random", "grid"}
        ``"random"``: ``trials`` different combinations by chance, all of them where there are no more; ``"grid"``: all
        combinations, ``trials`` is not used.
    trials : int
        Combinations of a random search. The defaults are tried besides, as trial 0.
    metric : str or callable, optional
        As for `geococa.permutation_importance`; greater is better.
    seed : int
        Of the folds, the draw and the training.
    class_weight, **options
        The same in every trial, unless the space has them.
    progress : callable, optional
        Called with ``("trials", done, total)``.

    Returns
    -------
    Tuning
        The same input and seed give the same trials (but for ``seconds``), choice and model.

    Raises
    ------
    InputRefused
        There is nothing to search, or no trial could be run.
    NoPositives, SampleLeak
        As for `geococa.cross_validate`.

    References
    ----------
    Breiman, L., Friedman, J. H., Olshen, R. A. and Stone, C. J. (1984), Classification and regression trees, Wadsworth,
    section 3.4.3 (one-standard-error rule). Bergstra, J. and Bengio, Y. (2012), Random search for hyper-parameter
    optimization, Journal of Machine Learning Research 13, 281-305. Cawley, G. C. and Talbot, N. L. C. (2010), On
    over-fitting in model selection, Journal of Machine Learning Research 11, 2079-2107.

    Examples
    --------
    >>> rows = [{"class": c, "ndvi": v, "x": 3e5 + 2e3 * i, "y": 9e5} for i in range(20) for c, v in
    ...         [("coca", 0.5), ("forest", 0.9)]]
    >>> found = tune(pd.DataFrame(rows), ["ndvi"], space={"n_estimators": [1, 5]}, search="grid", crs="EPSG:32618")
    >>> found.settings["n_estimators"], len(found.trials)
    (1, 3)
    """
    rng = np.random.default_rng(check_seed(seed))
    combinations = [{}, *_combinations(_space_of(method, space), search, trials, rng)]
    used, names = prepare_rows(table, features, crs)
    order = class_order(used["class"].astype(str), classes)
    wanted = positive_of(order, positive)
    pairs = make_pairs(used, folds, block_m, buffer_m, seed, wanted)
    scorer = make_scorer(metric, order, wanted)
    fixed = dict(options) | ({"class_weight": class_weight} if class_weight is not None else {})

    def trainer(settings: Mapping[str, Any]) -> Trainer:
        chosen = {**fixed, **settings}
        return default_trainer(names, order, method, seed, chosen.pop("class_weight", None), threads, chosen)

    rows = []
    for number, settings in enumerate(combinations):
        rows.append(_trial(used, order, pairs, trainer(settings), scorer))
        if progress is not None:
            progress("trials", number + 1, len(combinations))
    found = pd.DataFrame(rows)
    chosen = _choose(found)
    found.insert(len(found.columns) - 1, "chosen", np.arange(len(found)) == chosen)
    shown = pd.DataFrame(combinations, dtype=object)
    out = pd.concat([shown, found], axis=1).rename_axis("trial")
    rule = "one standard error: the fewest decisions a pixel among trials within one standard error of the best"
    setup = {"search": search, "metric": scorer.name, "rule": rule, "folds": len(pairs), "block_m": block_m}
    setup |= {"buffer_m": buffer_m, "seed": seed, "chosen": chosen, "trials": _summary(combinations, found)}
    model = trainer(combinations[chosen])(used)
    model = replace(model, provenance={**model.provenance, "tuning": plain(setup)})
    return Tuning(out, chosen, {**fixed, **combinations[chosen]}, model, scorer.name, rule)


def _space_of(method: str, space: Space | None) -> Space:
    if space is None and method not in SPACES:
        raise InputRefused(
            f"method {method!r} has no settings that are searched by default; give space={{option: values}}"
        )
    chosen = SPACES[method] if space is None else space
    check_type(chosen, Mapping, "space", "give {option: values}")
    empty = [
        name
        for name, values in chosen.items()
        if not hasattr(values, "rvs") and (isinstance(values, str) or not hasattr(values, "__len__") or not len(values))
    ]
    if empty or not chosen:
        raise InputRefused(
            f"the space must give a list of values for each option, got {', '.join(empty) or 'no option at all'}"
        )
    return chosen


def _combinations(space: Space, search: str, trials: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Combinations of a space, in the order of trial."""
    if search not in ("random", "grid"):
        raise InputRefused(f"search must be 'random' or 'grid', got {search!r}")
    check_whole(trials, "trials", 1)
    names = list(space)
    drawn = [name for name in names if hasattr(space[name], "rvs")]
    if drawn and search == "grid":
        raise InputRefused(f"a grid needs lists of values, but {', '.join(drawn)} is a distribution; search='random'")
    if not drawn:
        sizes = [len(space[name]) for name in names]
        count = int(np.prod(sizes))
        if search == "grid" or count <= trials:
            return [dict(zip(names, values, strict=True)) for values in itertools.product(*space.values())]
        numbers = rng.choice(count, trials, replace=False)
        picks = zip(*np.unravel_index(numbers, sizes), strict=True)
        return [{name: space[name][int(k)] for name, k in zip(names, pick, strict=True)} for pick in picks]
    found: list[dict[str, Any]] = []
    for _ in range(trials * _DRAWS_A_TRIAL):
        candidate = {name: _draw(space[name], rng) for name in names}
        if candidate not in found:
            found.append(candidate)
        if len(found) == trials:
            break
    return found


def _draw(values: Any, rng: np.random.Generator) -> Any:
    if hasattr(values, "rvs"):
        value = values.rvs(random_state=rng)
        return value.item() if isinstance(value, np.generic) else value
    return values[int(rng.integers(len(values)))]


def _trial(
    used: pd.DataFrame, order: tuple[str, ...], pairs: list[Fold], make: Trainer, scorer: Scorer
) -> dict[str, Any]:
    """Score one combination on all folds, and count what it costs."""
    costs, start = [], time.perf_counter()

    def counted(rows: pd.DataFrame) -> Model:
        model = make(rows)
        some = rows[list(model.features)].iloc[:: max(1, len(rows) // _COUNTED_ROWS)].to_numpy(dtype=np.float32)
        costs.append((decisions_per_pixel(model, some), model_size(model)))
        return model

    row: dict[str, Any] = dict.fromkeys(
        ("score", "score_sd", "score_se", "seconds", "decisions_per_pixel", "nodes"), np.nan
    )
    try:
        found = run_folds(used, order, pairs, counted, None)
    except GeococaError as error:
        return row | {"failed": f"{type(error).__name__}: {error}"}
    except ValueError as error:  # the libraries' own refusals of a value
        return row | {"failed": str(error)}
    if len(found.classes) != len(order):
        raise InputRefused("the method names classes that the rows do not have, so it can't be tuned on them")
    scores = np.array([_fold_score(found.predictions, found.probability, number, order, scorer)
                       for number in range(1, len(pairs) + 1)])  # fmt: skip
    spread = float(scores.std(ddof=1))
    cost = np.mean(costs, axis=0)
    return {
        "score": float(scores.mean()),
        "score_sd": spread,
        "score_se": spread / len(scores) ** 0.5,
        "seconds": time.perf_counter() - start,
        "decisions_per_pixel": float(cost[0]),
        "nodes": float(cost[1]),
        "failed": "",
    }


def _fold_score(
    predictions: pd.DataFrame, probability: pd.DataFrame, number: int, order: tuple[str, ...], scorer: Scorer
) -> float:
    here = (predictions["fold"] == number).to_numpy()
    codes = {name: code for code, name in enumerate([*order, "unclassified"])}
    truth = predictions["class"][here].map(codes).to_numpy(dtype=np.int64)
    if scorer.needs_probability:
        return scorer(truth, probability.to_numpy()[here])
    return scorer(truth, predictions["predicted"][here].map(codes).to_numpy(dtype=np.int64))


def _choose(found: pd.DataFrame) -> int:
    """Trial that the one-standard-error rule takes; the time it took plays no part, for it differs from run to run."""
    good = found[found["score"].notna()]
    if good.empty:
        raise InputRefused(
            f"no trial could be run or scored; the first: {found['failed'].iloc[0] or 'its score is not defined'}"
        )
    best = good.iloc[int(good["score"].to_numpy().argmax())]
    near = good[good["score"] >= best["score"] - best["score_se"]]
    ranked = near.sort_values(["decisions_per_pixel", "score"], ascending=[True, False], kind="stable")
    return int(ranked.index[0])


def _summary(combinations: list[dict[str, Any]], found: pd.DataFrame) -> list[dict[str, Any]]:
    """What a model keeps of the search; no times, so that the same search gives the same bytes."""
    kept = found[["score", "score_sd", "decisions_per_pixel"]].to_dict("records")
    return [
        {"options": settings} | {str(name): None if pd.isna(value) else float(value) for name, value in row.items()}
        for settings, row in zip(combinations, kept, strict=True)
    ]
