"""Cross-validation: how well a method does on places that it has not seen, fold by fold."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geococa._checks import check_positives, check_seed
from geococa._files import replace_file
from geococa.errors import InputRefused
from geococa.models import Model, train
from geococa.sample_splits import Fold, check_no_leak, spatial_folds
from geococa.scores import class_scores, count_matrix
from geococa.training import class_order, usable_rows
from geococa.training_methods import TAKES_MISSING

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CrossValidation", "Trainer", "cross_validate"]

Trainer = Callable[[pd.DataFrame], Model]
"""Makes a model from the training rows of a fold."""

_POSITIVE = "coca"
_BY_CLASS = ("users_accuracy", "producers_accuracy", "f1")


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What each fold's model said about the rows that it had not seen.

    Attributes
    ----------
    classes : tuple of str
        Class names in order.
    positive : str or None
        Class that every fold holds on both sides.
    predictions : pandas.DataFrame
        One row a tested row, index as in the table given: ``fold`` (from 1), ``class`` (reference), ``predicted``
        (``"unclassified"`` where rejected).
    probability : pandas.DataFrame
        Out-of-fold class probabilities, float64, same index, one column a class: what a calibration or a cut-off may be
        fitted on.
    folds : tuple of (train, test)
        int64 row positions in the table given, as scikit-learn takes them for ``cv=``; training rows within the buffer
        are left out already.
    n_buffered : tuple of int
        Rows of each fold that are in neither part because of the buffer.
    settings : mapping
        Method, options, blocks, buffer, seed.
    """

    classes: tuple[str, ...]
    positive: str | None
    predictions: pd.DataFrame
    probability: pd.DataFrame
    folds: tuple[Fold, ...]
    n_buffered: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def matrix(self, fold: int | None = None) -> pd.DataFrame:
        """Error matrix in counts of one fold (from 1), or pooled over all: rows = predicted, columns = reference."""
        names = list(self.classes)
        counts = pd.DataFrame(
            self._counts(fold), pd.Index([*names, "unclassified"], name="map"), pd.Index(names, name="reference")
        )
        return counts if counts.loc["unclassified"].any() else counts.loc[names]

    @property
    def by_class(self) -> pd.DataFrame:
        """Accuracies of each class, pooled, with their standard deviation between folds.

        Index ``class``; ``n_reference, n_predicted`` (rows); ``users_accuracy, producers_accuracy, f1`` of the pooled
        matrix; the same with ``_fold_sd``; ``folds`` (in how many the class was tested). NaN = not defined.
        """
        pooled = self._counts(None)
        out = pd.DataFrame(index=pd.Index(self.classes, name="class"))
        out["n_reference"] = pooled.sum(axis=0)
        out["n_predicted"] = pooled.sum(axis=1)[: len(self.classes)]
        each = [class_scores(self._counts(number)) for number in self._numbers]
        for name in _BY_CLASS:
            out[name] = class_scores(pooled)[name]
            spread = pd.DataFrame([scores[name] for scores in each], columns=list(self.classes)).std(ddof=1)
            out[f"{name}_fold_sd"] = spread.to_numpy()
        out["folds"] = sum((self._counts(number).sum(axis=0) > 0).astype(np.int64) for number in self._numbers)
        return out

    @property
    def by_fold(self) -> pd.DataFrame:
        """One row a fold.

        Index ``fold``; ``n_train, n_test, n_buffered`` (rows), ``overall_accuracy``, ``macro_f1`` (mean over the classes
        tested), ``f1`` of the positive class where there is one, ``untrained`` (classes that the fold tests but could not
        learn).
        """
        rows = []
        for number, (inside, tested), dropped in zip(self._numbers, self.folds, self.n_buffered, strict=True):
            counts = self._counts(number)
            scores = class_scores(counts)
            there = counts.sum(axis=0) > 0
            row: dict[str, Any] = {"fold": number, "n_train": len(inside), "n_test": len(tested), "n_buffered": dropped}
            row |= {
                "overall_accuracy": float(np.diagonal(counts).sum() / counts.sum()),
                "macro_f1": float(scores["f1"][there].mean()),
            }
            if self.positive is not None:
                row["f1"] = float(scores["f1"][self.classes.index(self.positive)])
            row["untrained"] = " ".join(self.settings.get("untrained", {}).get(str(number), ()))
            rows.append(row)
        return pd.DataFrame(rows).set_index("fold")

    @property
    def overall(self) -> pd.Series[float]:
        """Pooled overall accuracy, and its mean, standard deviation, smallest and largest value over folds."""
        folds, pooled = self.by_fold["overall_accuracy"], self._counts(None)
        return pd.Series(
            {
                "overall_accuracy": float(np.diagonal(pooled).sum() / pooled.sum()),
                "fold_mean": float(folds.mean()),
                "fold_sd": float(folds.std(ddof=1)),
                "fold_min": float(folds.min()),
                "fold_max": float(folds.max()),
                "n": float(pooled.sum()),
            },
            name="overall",
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row a class and fold, and one a class with fold ``all`` (pooled); what ``cross_validation.csv`` holds."""
        parts = []
        for number in (*self._numbers, None):
            counts = self._counts(number)
            part = pd.DataFrame({"fold": "all" if number is None else str(number), "class": list(self.classes)})
            part["n_reference"] = counts.sum(axis=0)
            part["n_predicted"] = counts.sum(axis=1)[: len(self.classes)]
            for name in _BY_CLASS:
                part[name] = class_scores(counts)[name]
            part["overall_accuracy"] = float(np.diagonal(counts).sum() / counts.sum())
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dataframe` as CSV."""
        text = self.to_dataframe().to_csv(index=False, lineterminator="\n")
        return replace_file(Path(path), text.encode())

    @property
    def _numbers(self) -> range:
        return range(1, len(self.folds) + 1)

    def _counts(self, fold: int | None) -> np.ndarray:
        if fold is not None and fold not in self._numbers:
            raise InputRefused(f"folds are numbered 1 to {len(self.folds)}, got {fold!r}")
        rows = self.predictions if fold is None else self.predictions[self.predictions["fold"] == fold]
        codes = {name: number for number, name in enumerate([*self.classes, "unclassified"])}
        reference, predicted = (rows[name].map(codes).to_numpy(dtype=np.int64) for name in ("class", "predicted"))
        return count_matrix(reference, predicted, len(self.classes))


def cross_validate(
    table: pd.DataFrame,
    features: xr.DataArray | Sequence[str] | None = None,
    *,
    method: str = "random_forest",
    folds: int | Sequence[Fold] = 5,
    block_m: float | None = 1000.0,
    buffer_m: float = 100.0,
    seed: int = 0,
    positive: str | None = None,
    classes: Sequence[str] | None = None,
    class_weight: str | Mapping[str, float] | None = None,
    threads: int | None = None,
    crs: Any | Mapping[str, Any] | None = None,
    trainer: Trainer | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> CrossValidation:
    """Train on all folds but one, test on that one, for each fold: spatial blocks with a buffer between the sides.

    Neighbouring pixels resemble each other, so folds drawn row by row test on near copies of what was trained on and say
    too much good of a model. Here whole blocks of ground are tested, training rows near them are left out, and every fold
    is checked to share no pixel, sample, block or neighbourhood with its training rows.

    .. warning::
       These accuracies are shares of reference rows, not of map area, and rows are rarely a probability sample. They
       compare methods, features and settings. The accuracy of a map, and hectares with an interval, need a probability
       sample and `geococa.error_matrix` with `geococa.adjusted_area`.

    Parameters
    ----------
    table : pandas.DataFrame or geopandas.GeoDataFrame
        Training table with ``class, x, y``, perhaps ``sample, tile, year``, and one column a feature; or samples, whose
        values are then read from ``features``. Rows with a missing feature are left out.
    features : xarray.DataArray or sequence of str, optional
        As for `geococa.train`.
    method : str
        As for `geococa.train`.
    folds : int or sequence of (train, test)
        Number of folds; or row positions in the table, each row tested once at most, which are then checked as well.
    block_m : float, optional
        Side of the spatial blocks in metres. None, only with folds of your own: blocks are not compared.
    buffer_m : float
        Training rows nearer than this to a tested row are left out. Take at least the reach of texture or smoothing;
        better, the distance over which the features are alike.
    seed : int
        Of the folds and of training.
    positive : str, optional
        Class that both parts of every fold must hold; ``coca`` by default where the table has it.
    classes, class_weight, threads
        As for `geococa.train`.
    crs : CRS, or mapping of tile to CRS, optional
        Of ``x`` and ``y``; ``table.attrs["crs"]`` where not given.
    trainer : callable, optional
        Makes a model from a fold's training rows, in place of ``method`` and its options; for example a whole search, see
        `geococa.tune`.
    progress : callable, optional
        Called with ``("cross-validation", done, total)``.
    **options
        Options of the method.

    Returns
    -------
    CrossValidation
        Error matrices, accuracies with their spread over folds, and out-of-fold probabilities. The same input and seed
        give the same result.

    Raises
    ------
    NoPositives
        A fold's training or test part holds no sample of ``positive``.
    SampleLeak
        Folds of your own share a pixel, a sample, a block or a neighbourhood.
    InputRefused
        The table has no ``x, y``, or folds overlap.

    References
    ----------
    Roberts, D. R. et al. (2017), Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic
    structure, Ecography 40, 913-929. Ploton, P. et al. (2020), Spatial validation reveals poor predictive performance of
    large-scale ecological mapping models, Nature Communications 11, 4540. Wadoux, A. M. J.-C., Heuvelink, G. B. M., de
    Bruin, S. and Brus, D. J. (2021), Spatial cross-validation is not the right way to evaluate map accuracy, Ecological
    Modelling 457, 109692.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = [{"class": c, "ndvi": v, "x": 3e5 + 2e3 * i, "y": 9e5} for i in range(20) for c, v in
    ...         [("coca", 0.5), ("forest", 0.9)]]
    >>> found = cross_validate(pd.DataFrame(rows), ["ndvi"], crs="EPSG:32618", n_estimators=5)
    >>> float(found.overall["overall_accuracy"])
    1.0
    """
    seed = check_seed(seed)
    if trainer is not None and not callable(trainer):
        raise InputRefused(f"trainer must be a function from rows to a model, got {trainer!r:.80}")
    if trainer is None and method in ("fraction", "unmixing"):
        raise InputRefused(f"method {method!r} gives area shares, not classes; cross_validate scores classes")
    used, names = prepare_rows(table, features, crs, keep_partial=trainer is None and method in TAKES_MISSING)
    order = class_order(used["class"].astype(str), classes)
    wanted = positive_of(order, positive)
    pairs = make_pairs(used, folds, block_m, buffer_m, seed, wanted)
    make = trainer or default_trainer(names, order, method, seed, class_weight, threads, options)
    out = run_folds(used, order, pairs, make, progress)
    settings = {
        "method": method if trainer is None else "trainer",
        "options": dict(options) | ({"class_weight": class_weight} if class_weight is not None else {}),
        "folds": len(pairs),
        "block_m": block_m,
        "buffer_m": buffer_m,
        "seed": seed,
        "untrained": out.untrained,
    }
    positions = used.index.to_numpy()
    shown = tuple((positions[inside], positions[tested]) for inside, tested in pairs)
    dropped = tuple(len(used) - len(inside) - len(tested) for inside, tested in pairs)
    # pixels read from a feature stack have no row in the table given; they are numbered as extracted
    index = out.predictions.index if _is_samples(table, features) else table.index[out.predictions.index]
    return CrossValidation(
        out.classes,
        wanted,
        out.predictions.set_axis(index),
        out.probability.set_axis(index),
        shown,
        dropped,
        settings,
    )


def positive_of(classes: Sequence[str], positive: str | None) -> str | None:
    """Return the class that folds must hold: the one named, else coca where it is among the classes."""
    return positive if positive is not None else (_POSITIVE if _POSITIVE in classes else None)


def default_trainer(
    features: Sequence[str],
    classes: Sequence[str],
    method: str,
    seed: int,
    class_weight: str | Mapping[str, float] | None,
    threads: int | None,
    options: Mapping[str, Any],
) -> Trainer:
    """Return a function that trains a method on the rows of a fold, which may lack a class."""

    def make(rows: pd.DataFrame) -> Model:
        present = set(rows["class"].astype(str))
        here: dict[str, Any] = {
            name: {key: number for key, number in value.items() if key in present}
            if name == "priors" and isinstance(value, Mapping)
            else value
            for name, value in options.items()
        }
        weight = class_weight
        if isinstance(weight, Mapping):
            # an unknown name stays, so that it is refused as ever
            weight = {key: value for key, value in weight.items() if key in present or key not in classes}
        return train(
            rows,
            list(features),
            method=method,
            seed=seed,
            classes=None if method == "rules" else [name for name in classes if name in present],
            class_weight=weight,
            threads=threads,
            **here,
        )

    return make


def _is_samples(table: pd.DataFrame, features: xr.DataArray | Sequence[str] | None) -> bool:
    """Whether values are still to be read from a feature stack."""
    return "geometry" in table.columns and hasattr(features, "dims")


def prepare_rows(
    table: pd.DataFrame, features: xr.DataArray | Sequence[str] | None, crs: Any, *, keep_partial: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Return the usable rows, their index being the position in the table, with the CRS that they are in.

    With ``keep_partial`` rows of which some features are missing are kept, for methods that take them.
    """
    given = table if _is_samples(table, features) else pd.DataFrame(table).reset_index(drop=True)
    used, names, _ = usable_rows(given, features, keep_index=True, keep_partial=keep_partial)
    missing = [name for name in ("x", "y") if name not in used.columns]
    if missing:
        raise InputRefused(
            f"the table has no column {' and no column '.join(missing)}, so nobody can tell whether folds share a place; "
            "make it with geococa.training_table"
        )
    used = used.copy()
    known = crs if crs is not None else used.attrs.get("crs", table.attrs.get("crs"))
    if known is not None:
        used.attrs["crs"] = known
    return used, names


def make_pairs(
    used: pd.DataFrame,
    folds: int | Sequence[Fold],
    block_m: float | None,
    buffer_m: float,
    seed: int,
    positive: str | None,
) -> list[Fold]:
    """Return folds as row positions in the usable rows, every one of them checked."""
    if not isinstance(folds, Sequence):
        if block_m is None:
            raise InputRefused("folds that are to be made need the side of their blocks; give block_m in metres")
        pairs = spatial_folds(used, folds, block_m=block_m, buffer_m=buffer_m, seed=seed, positive=positive)
    else:
        pairs = _given_folds(used, folds)
    blind = used.drop(columns="block", errors="ignore") if block_m is None else used
    for number, (inside, tested) in enumerate(pairs, start=1):
        parts = {"training": blind.iloc[inside], "test": blind.iloc[tested]}
        for name, part in parts.items():
            where = f"the {name} part of fold {number} of {len(pairs)}"
            if part.empty:
                raise InputRefused(f"{where} has no usable row; use fewer folds, smaller blocks or a smaller buffer")
            if positive is not None:
                check_positives(part["class"].unique(), positive, where=where)
        check_no_leak(parts["training"], parts["test"], block_m, buffer_m=buffer_m)
    return pairs


def _given_folds(used: pd.DataFrame, folds: Sequence[Fold]) -> list[Fold]:
    if len(folds) < 2:
        raise InputRefused(f"cross-validation needs at least 2 folds, got {len(folds)}")
    known = used.index.to_numpy()
    pairs = []
    for pair in folds:
        rows = [np.asarray(side) for side in pair]
        if len(rows) != 2 or any(side.ndim != 1 or side.dtype.kind not in "iu" or (side < 0).any() for side in rows):
            raise InputRefused("a fold of your own is a pair of row positions (train, test), whole numbers from 0")
        sides = [np.flatnonzero(np.isin(known, side)) for side in rows]
        pairs.append((sides[0], sides[1]))
    tested = np.concatenate([side for _, side in pairs])
    if len(np.unique(tested)) != len(tested):
        raise InputRefused(
            "the folds test some rows more than once, so they can't be pooled; test each row once at most"
        )
    return pairs


@dataclass(frozen=True)
class Outcome:
    """Predictions of all folds, before they are scored."""

    classes: tuple[str, ...]
    predictions: pd.DataFrame
    probability: pd.DataFrame
    untrained: dict[str, list[str]]


def run_folds(
    used: pd.DataFrame,
    order: tuple[str, ...],
    pairs: list[Fold],
    make: Trainer,
    progress: Callable[[str, int, int], None] | None,
) -> Outcome:
    """Train and test each fold."""
    predictions, probabilities = [], []
    untrained: dict[str, list[str]] = {}
    for number, (inside, tested) in enumerate(pairs, start=1):
        model = make(used.iloc[inside])
        rows = used.iloc[tested]
        truth = rows["class"].astype(str)
        found = pd.DataFrame({"fold": number, "class": truth, "predicted": model.predict(rows)})
        predictions.append(found)
        probabilities.append(pd.DataFrame(model.predict_proba(rows), rows.index, list(model.classes)))
        lacking = [name for name in order if name not in model.classes and (truth == name).any()]
        if lacking:
            untrained[str(number)] = lacking
        if progress is not None:
            progress("cross-validation", number, len(pairs))
    # rules may name classes that no sample has
    extra = sorted({str(name) for part in probabilities for name in part.columns} - set(order))
    classes = (*order, *extra)
    return Outcome(
        classes,
        pd.concat(predictions).sort_index(),
        pd.concat([part.reindex(columns=list(classes), fill_value=0.0) for part in probabilities]).sort_index(),
        untrained,
    )
