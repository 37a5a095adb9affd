"""Calibrated probabilities: fitted on rows that the classifier has not seen, and checked in a reliability table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geococa._checks import check_type, check_whole
from geococa.calibration_maps import METHODS, fit_calibration
from geococa.errors import InputRefused, ModelRefused, SampleLeak
from geococa.model_features import check_model, usable
from geococa.sample_splits import check_no_leak, spatial_folds
from geococa.training_data import has_places

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["calibrate", "calibrate_on_folds", "reliability"]

_FEWEST = 5
_DISTINCT = 20


def calibrate(
    model: Model,
    table: pd.DataFrame,
    method: str = "isotonic",
    *,
    training: pd.DataFrame | None = None,
    block_m: float | None = None,
) -> Model:
    """Calibrate a model's probabilities on rows that it was not trained with.

    Each class is calibrated against all others, and the results are divided by their sum. Isotonic maps take any
    increasing shape and need a few hundred rows a class; a sigmoid has two parameters and does with fewer.

    A calibrated model's `Model.predict_proba` and ``classify(..., output="probability")`` give calibrated
    probabilities. Its labels are the class of the largest calibrated probability (the first of equals in the model's
    order); pixels that the classifier rejects stay unclassified. They are computed from whole sums, so that a forest
    can't stop early and takes about twice as long as uncalibrated.

    Parameters
    ----------
    model : Model
        Classifier; maps that it has already are replaced.
    table : pandas.DataFrame
        ``class`` and the model's features, rows that were not used in training. Rows with a missing feature are
        dropped (for ``twdtw`` rows without any). At least 5 rows of every class.
    method : {"isotonic", "sigmoid"}
        Kind of map.
    training : pandas.DataFrame, optional
        Rows that the model was trained with. Where both tables have ``x`` and ``y``, they are refused if they share a
        pixel, sample or block.
    block_m : float, optional
        Side in metres of the spatial blocks that must not be shared, see `geococa.samples.check_no_leak`.

    Returns
    -------
    Model

    Raises
    ------
    SampleLeak
        The tables share places; or most of the table's rows are among the model's training points.
    InputRefused
        Too few rows of a class, or an unknown class or method.
    ModelRefused
        The model gives class fractions, which are no probabilities.

    References
    ----------
    Platt, J. (1999), Probabilistic outputs for support vector machines, in: Advances in Large Margin Classifiers,
    61-74. Zadrozny, B. and Elkan, C. (2002), Transforming classifier scores into accurate multiclass probability
    estimates, KDD 2002, 694-699.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from geococa import train
    >>> rng = np.random.default_rng(0)
    >>> def draw(n):
    ...     ndvi = rng.random(n)
    ...     return pd.DataFrame({"class": np.where(ndvi + 0.3 * rng.normal(size=n) > 0.5, "forest", "coca"), "ndvi": ndvi})
    >>> model = calibrate(train(draw(300), ["ndvi"], n_estimators=10), draw(300))
    >>> model.calibration.method
    'isotonic'
    """
    _check_method(model, method)
    if training is not None and {"x", "y"} <= set(training.columns) & set(table.columns):
        check_no_leak(training, table, block_m)
    rows, y = _usable(model, table)
    _refuse_known(model, rows)
    plain = replace(model, calibration=None)
    maps = fit_calibration(plain.predict_proba(rows), y, method, origin=f"{len(rows)} held-out rows")
    return replace(model, calibration=maps)


def calibrate_on_folds(
    model: Model, table: pd.DataFrame, method: str, fit: Any, *, folds: int, block_m: float, seed: int
) -> Model:
    """Calibrate a model on predictions of models of its kind for spatial folds that they were not trained with.

    Parameters
    ----------
    model : Model
        Trained with all rows of the table.
    table : pandas.DataFrame
        The training rows, with ``x``, ``y`` and the CRS in the attributes.
    method : {"isotonic", "sigmoid"}
        Kind of map.
    fit : callable
        Trains a model like ``model`` on some rows of the table.
    folds, block_m, seed
        As for `geococa.spatial_folds`.
    """
    _check_method(model, method)
    if not has_places(table):
        raise InputRefused(
            f"calibration={method!r} needs places for spatial folds: columns x and y, and the CRS in attrs['crs']; "
            "the table has none, so calibrate with held-out rows: geococa.calibrate(model, table)"
        )
    rows, y = _usable(model, table)
    found = np.full((len(table), len(model.classes)), np.nan)
    for number, (train, test) in enumerate(spatial_folds(table, folds, block_m=block_m, seed=seed, positive=None), 1):
        if not len(test):
            continue
        lacking = sorted(set(model.classes) - set(table["class"].iloc[train].astype(str)))
        if lacking:
            raise InputRefused(
                f"without fold {number} of {folds} no sample of {', '.join(lacking)} is left to train with, so its "
                f"probabilities can't be calibrated; use smaller blocks than {block_m:g} m, or calibration='none'"
            )
        found[test] = fit(table.iloc[train]).predict_proba(table.iloc[test][list(model.features)])
    origin = f"out-of-fold predictions of {folds} spatial folds, blocks of {block_m:g} m"
    return replace(model, calibration=fit_calibration(found[rows.index], y, method, origin=origin))


def _check_method(model: Model, method: str) -> None:
    check_model(model)
    if method not in METHODS:
        raise InputRefused(f"unknown calibration {method!r}; known are {', '.join(METHODS)}")
    if model.output != "probability":
        raise ModelRefused(
            "this model gives class fractions, which are shares of area; only probabilities are calibrated"
        )


def _usable(model: Model, table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Features of the rows that have what the model needs, numbered by position, and the index of each row's class."""
    check_type(table, pd.DataFrame, "table", "give held-out rows of a geococa.training_table")
    missing = [name for name in ("class", *model.features) if name not in table.columns]
    if missing:
        raise InputRefused(f"the table lacks {', '.join(missing)}; it has {', '.join(map(str, table.columns[:30]))}")
    rows = table[list(model.features)].reset_index(drop=True)
    good = usable(model, rows) & table["class"].notna().to_numpy()
    labels = table["class"].astype(str).to_numpy()[good]
    unknown = sorted(set(labels) - set(model.classes))
    if unknown:
        raise InputRefused(f"the table has the classes {', '.join(unknown)}, the model only {', '.join(model.classes)}")
    y = np.asarray([model.classes.index(name) for name in labels], dtype=np.int64)
    counts = np.bincount(y, minlength=len(model.classes))
    few = [f"{name} ({n})" for name, n in zip(model.classes, counts, strict=True) if n < _FEWEST]
    if few:
        raise InputRefused(f"calibration needs {_FEWEST} usable rows of every class, too few of {', '.join(few)}")
    return rows[good], y


def _refuse_known(model: Model, rows: pd.DataFrame) -> None:
    """Refuse rows that are training points: exact coincidence in every feature is no chance where values vary."""
    if model.training_set is None:
        return
    values = rows.to_numpy(dtype=np.float32)
    given = np.unique(values[np.isfinite(values).all(axis=1)] + np.float32(0), axis=0)
    kept = np.unique(model.training_set.points + np.float32(0), axis=0)
    known = len(given) + len(kept) - len(np.unique(np.concatenate([given, kept]), axis=0))
    # a model keeps all its rows or a part of them, and the share of the part is what to expect of its own rows
    share = len(model.training_set.points) / model.training_set.rows
    if len(given) >= _DISTINCT and known > 0.5 * share * len(given) and known >= _DISTINCT // 2:
        raise SampleLeak(
            f"{known} of {len(given)} different rows of the table are training points of the model, so its "
            "probabilities there are too good to calibrate on; hold rows out with geococa.split_samples, or train with "
            "calibration='isotonic'"
        )


def reliability(
    model: Model | pd.DataFrame | np.ndarray,
    table: pd.DataFrame,
    *,
    classes: Sequence[str] | None = None,
    bins: int = 10,
    strategy: str = "width",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare predicted probabilities with the observed shares, class by class.

    Parameters
    ----------
    model : Model, pandas.DataFrame or numpy.ndarray
        Model, or probabilities ``(rows, classes)`` for the rows of ``table``: a frame has a column for each class, an
        array the order of ``classes``. Rows with NaN are left out.
    table : pandas.DataFrame
        ``class``, and the features where a model is given.
    classes : sequence of str, optional
        Names of an array's columns; else the classes to report, all where not given.
    bins : int
        Bins of predicted probability.
    strategy : {"width", "quantile"}
        Bins of equal width in 0..1, or of equal number of rows (equal probabilities stay together).
    confidence : float
        Level of the interval.

    Returns
    -------
    pandas.DataFrame
        One row a class and bin that holds rows: ``class``, ``bin_low``, ``bin_high``, ``mean_predicted``,
        ``observed_share``, ``ci_low``, ``ci_high`` (Wilson's interval; rows count as independent), ``n``, and of the
        whole class ``brier_score`` (mean squared difference of probability and outcome) and ``calibration_error``
        (expected calibration error: mean absolute difference of mean_predicted and observed_share, weighted by ``n``). ``attrs`` has the
        ``brier_score`` over all classes (0..2) and ``rows``.

    Raises
    ------
    InputRefused
        Probabilities do not fit the table or lie outside 0..1, or an unknown setting.

    References
    ----------
    Brier, G. W. (1950), Verification of forecasts expressed in terms of probability, Monthly Weather Review 78, 1-3.
    Wilson, E. B. (1927), Probable inference, the law of succession, and statistical inference, Journal of the American
    Statistical Association 22, 209-212. Naeini, M. P., Cooper, G. F. and Hauskrecht, M. (2015), Obtaining well
    calibrated probabilities using Bayesian binning, AAAI 2015, 2901-2907.

    Examples
    --------
    >>> import pandas as pd
    >>> predicted = pd.DataFrame({"coca": [0.1, 0.1, 0.9, 0.9], "forest": [0.9, 0.9, 0.1, 0.1]})
    >>> truth = pd.DataFrame({"class": ["forest", "forest", "coca", "forest"]})
    >>> found = reliability(predicted, truth, classes=["coca"], bins=2)
    >>> found[["mean_predicted", "observed_share", "n"]].values.tolist()
    [[0.1, 0.0, 2.0], [0.9, 0.5, 2.0]]
    """
    bins = check_whole(bins, "bins", 1, 1000)
    if strategy not in ("width", "quantile") or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise InputRefused(
            f"expected strategy 'width' or 'quantile' and a confidence in 0..1, got {strategy!r} and {confidence!r}"
        )
    values, names = _probabilities(model, table, classes)
    truth = table["class"].astype(str).to_numpy()
    good = np.isfinite(values).all(axis=1) & table["class"].notna().to_numpy()
    values, truth = values[good], truth[good]
    if not len(values) or values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise InputRefused(f"expected probabilities in 0..1 of at least one row, got {len(values)} usable rows")
    values = np.clip(values, 0, 1)
    chosen = [str(name) for name in classes] if classes is not None else list(names)
    parts = [_bins(name, values[:, names.index(name)], truth == name, bins, strategy, confidence) for name in chosen]
    out = pd.concat(parts, ignore_index=True)
    outcome = np.stack([truth == name for name in names], axis=1)
    out.attrs = {"brier_score": float(((values - outcome) ** 2).sum(axis=1).mean()), "rows": len(values)}
    return out


def _probabilities(
    model: Model | pd.DataFrame | np.ndarray, table: pd.DataFrame, classes: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    """Probabilities ``(rows, classes)`` and the names of their columns."""
    check_type(table, pd.DataFrame, "table", "give rows of a geococa.training_table")
    if "class" not in table.columns:
        raise InputRefused(f"the table has no column 'class', only {', '.join(map(str, table.columns[:30]))}")
    if isinstance(model, pd.DataFrame):
        values, names = model.to_numpy(dtype=np.float64), [str(name) for name in model.columns]
    elif isinstance(model, np.ndarray):
        if classes is None or model.ndim != 2 or model.shape[1] != len(classes):
            raise InputRefused(f"probabilities of shape {model.shape} need classes=, one name a column")
        values, names = model.astype(np.float64), [str(name) for name in classes]
    else:
        check_model(model)
        missing = [name for name in model.features if name not in table.columns]
        if missing:
            raise InputRefused(
                f"the table lacks {', '.join(missing)}; it has {', '.join(map(str, table.columns[:30]))}"
            )
        values, names = np.full((len(table), len(model.classes)), np.nan), list(model.classes)
        good = usable(model, table)
        values[good] = model.predict_proba(table.loc[good, list(model.features)])
    unknown = [name for name in classes or () if name not in names]
    if unknown or len(values) != len(table):
        raise InputRefused(
            f"{len(values)} rows of probabilities of {', '.join(names)} do not fit {len(table)} rows of the table"
            + (f" and the classes {', '.join(unknown)}" if unknown else "")
        )
    return values, names


def _bins(
    name: str, predicted: np.ndarray, outcome: np.ndarray, bins: int, strategy: str, confidence: float
) -> pd.DataFrame:
    """Bins of one class."""
    edges = np.linspace(0, 1, bins + 1)
    if strategy == "quantile":
        edges = np.unique(np.quantile(predicted, edges))
        edges = edges if len(edges) > 1 else np.array([edges[0], edges[0]])
    where = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
    n = np.bincount(where, minlength=len(edges) - 1)
    full = n > 0
    mean = np.bincount(where, predicted, len(n))[full] / n[full]
    share = np.bincount(where, outcome.astype(np.float64), len(n))[full] / n[full]
    low, high = _wilson(share, n[full], confidence)
    return pd.DataFrame(
        {
            "class": name,
            "bin_low": edges[:-1][full],
            "bin_high": edges[1:][full],
            "mean_predicted": mean,
            "observed_share": share,
            "ci_low": low,
            "ci_high": high,
            "n": n[full],
            "brier_score": float(((predicted - outcome) ** 2).mean()),
            "calibration_error": float((np.abs(mean - share) * n[full]).sum() / n.sum()),
        }
    )


def _wilson(share: np.ndarray, n: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
