"""Models: train a classifier, read one, or convert one of another library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geococa._checks import check_seed, check_threads
from geococa.errors import InputRefused
from geococa.trained_model import Model, read_model

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from geococa.training import Fitted

__all__ = ["Model", "read_model", "train"]


def train(
    samples: pd.DataFrame,
    features: xr.DataArray | Sequence[str] | None = None,
    *,
    method: str = "random_forest",
    seed: int = 0,
    classes: Sequence[str] | None = None,
    class_weight: str | Mapping[str, float] | None = None,
    colors: Mapping[str, str] | None = None,
    threads: int | None = None,
    units: str | Mapping[str, str] | None = None,
    scale: str | Mapping[str, str] | None = None,
    calibration: str = "none",
    calibration_folds: int = 5,
    calibration_block_m: float = 1000.0,
    **options: Any,
) -> Model:
    """Train a classifier from reference samples.

    Rows with a NaN feature (not observed) are dropped (by ``twdtw`` rows without any value); how many is in the model's provenance.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame or pandas.DataFrame
        Points or polygons with ``class`` (and perhaps ``year``), whose pixel values are then read from
        ``features``; or a training table with ``class`` and one column for each feature.
    features : xarray.DataArray or sequence of str, optional
        Feature stack ``([time,] feature, y, x)``; or the names of the table's feature columns. With a table
        and no names, every numeric column that does not describe the sample is a feature.
    method : str
        ``random_forest``, ``extra_trees``, ``hist_gradient_boosting``, ``lightgbm``, ``xgboost``, ``catboost``,
        ``gaussian`` (maximum likelihood), ``mahalanobis``, ``minimum_distance``, ``spectral_angle``, ``twdtw``
        (time-weighted dynamic time warping of the series of `geococa.series_features`) or ``rules``. Two give the area share of each class in a pixel instead of a probability: ``fraction`` (a
        regression forest) and ``unmixing`` (linear spectral unmixing with shares that are not negative and sum to 1).
    seed : int
        Seed of everything random; the same seed gives the same model.
    classes : sequence of str, optional
        Order of the classes; every one must occur. By default the usual classes come first in their order,
        others follow by name.
    class_weight : "balanced" or mapping of str to float, optional
        Weight of each class's samples. Methods with normal densities take ``priors`` instead.
    colors : mapping of str to str, optional
        ``#rrggbb`` by class name.
    threads : int, optional
        Threads for training; one for each processor where not given. The model does not depend on it.
    units, scale : str or mapping by feature, optional
        Units of the features (``"1"``) and a free statement of their scale (``"reflectance 0..1"``), kept with the
        model, so that `geococa.classify` refuses features that state something else. Where not given, they are
        taken from the attributes ``units`` and ``scale`` of the features or the table, or from the features'
        coordinates ``feature_units`` and ``feature_scale``.
    calibration : {"none", "isotonic", "sigmoid"}
        Calibrate probabilities on predictions for spatial folds by models that were not trained with them; the
        samples then need places. See `geococa.calibrate`. Not for class fractions.
    calibration_folds : int
        Spatial folds of the calibration.
    calibration_block_m : float
        Side of their blocks in metres.
    **options
        Options of the method, for example ``n_estimators=200`` or ``max_depth=12``; for the Gaussian
        methods ``priors`` (``"equal"``, ``"samples"`` or a mapping), ``rejection`` (share of a class's own
        pixels that may go unclassified, for example 0.01) and ``regularisation``.
        ``twdtw`` matches one pattern a class, the mean of its samples on each date (``smooth_days``: standard
        deviation of a smoothing in time), with the time weight ``1 / (1 + exp(alpha * (days - beta)))``
        (``alpha=-0.1``, ``beta=50``); ``ends="closed"`` matches all dates of a series, ``"open"`` lets a pattern begin
        and end within it; ``rejection`` as above. The class is that of the least distance, probabilities are in
        proportion to ``exp(-distance / scale)`` with the scale under which the training samples are most likely.
        Samples and pixels may lack dates.
        ``fraction`` trains on the columns ``fraction_<class>`` of a table from `geococa.fraction_table`, weighted by a
        column ``weight`` if there is one; pure samples (``class``) are first mixed by `geococa.mixture_table`, which
        the options ``mixtures`` (rows), ``priors``, ``pure_share`` and ``most_members`` go to. ``trees`` is
        ``"random_forest"`` or ``"extra_trees"``; all else goes to scikit-learn's regressor.
        ``unmixing`` uses the features that mix in proportion to area (bands, no indices), and takes ``endmembers`` (a
        table with ``class`` and the features, or a mapping by class; class means of the samples where not given) and
        ``weighting`` of the misfit, ``"covariance"`` (inverse of that within classes) or ``"equal"``. A class whose
        spectrum the others all but mix up loses area to them: in benchmarks/fraction_areas.py unmixing misses a third to
        four fifths of the coca, where ``fraction`` is within 10 % in total.

    Returns
    -------
    Model

    Raises
    ------
    InputRefused
        Fewer than two classes, no usable row, unknown method or option.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"class": ["coca", "forest"] * 20, "ndvi": [0.5, 0.9] * 20})
    >>> train(table, ["ndvi"], n_estimators=5).classes
    ('coca', 'forest')
    """
    from geococa.calibration import calibrate_on_folds
    from geococa.fraction_training import FRACTION_METHODS
    from geococa.training import fit, transition_matrix, usable_rows
    from geococa.training_data import describe_training
    from geococa.training_methods import TAKES_MISSING
    from geococa.training_space import MOST_POINTS

    seed, threads = check_seed(seed), check_threads(threads)
    if method in FRACTION_METHODS:
        if class_weight is not None:
            raise InputRefused(f"method {method!r} takes no class_weight, which would bias fractions; give priors")
        if calibration != "none":
            raise InputRefused(f"method {method!r} gives area shares, which are not calibrated; use calibration='none'")
        model, table = _train_fractions(samples, features, colors, method, seed, classes, threads, options)
        return describe_training(
            model,
            table,
            importance=None,
            units=units,
            scale=scale,
            most=MOST_POINTS,
            seed=seed,
            source=features,
        )
    table, names, dropped = usable_rows(samples, features, keep_partial=method in TAKES_MISSING)
    fitted = fit(
        table,
        names,
        method=method,
        seed=seed,
        classes=classes,
        class_weight=class_weight,
        threads=threads,
        options=options,
    )
    provenance = {
        **fitted.provenance,
        "rows": len(table),
        "rows_dropped_not_observed": dropped,
        "samples_by_class": {name: int((table["class"] == name).sum()) for name in fitted.classes},
    }
    order = tuple(range(len(fitted.classes)))
    model = Model._from_parts(fitted.parts, tuple(fitted.features), fitted.classes, order, colors, provenance)
    model = describe_training(
        replace(model, transitions=transition_matrix(table, fitted.classes)),
        _without_gaps(table, fitted) if method in TAKES_MISSING else table,
        importance=fitted.parts.importance,
        units=units,
        scale=scale,
        most=MOST_POINTS,
        seed=seed,
        source=features,
    )
    if calibration == "none":
        return model

    def like(rows: pd.DataFrame) -> Model:
        again = fit(
            rows,
            names,
            method=method,
            seed=seed,
            classes=fitted.classes,
            class_weight=class_weight,
            threads=threads,
            options=options,
        )
        return Model._from_parts(again.parts, model.features, model.classes, order, None, None)

    return calibrate_on_folds(
        model, table, calibration, like, folds=calibration_folds, block_m=calibration_block_m, seed=seed
    )


def _without_gaps(table: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    """Training rows with missing values filled in from the patterns of their classes, for what the model remembers."""
    from geococa.series_training import filled_with_patterns

    values = table[fitted.features].to_numpy(dtype=np.float64)
    if np.isfinite(values).all():
        return table
    labels = table["class"].astype(str).map({name: k for k, name in enumerate(fitted.classes)}).to_numpy(np.int64)
    filled = table.copy()
    filled[fitted.features] = filled_with_patterns(values, labels, fitted.parts)
    return filled


def _train_fractions(
    samples: pd.DataFrame,
    features: xr.DataArray | Sequence[str] | None,
    colors: Mapping[str, str] | None,
    method: str,
    seed: int,
    classes: Sequence[str] | None,
    threads: int | None,
    options: Mapping[str, Any],
) -> tuple[Model, pd.DataFrame]:
    """Train a model of class fractions, and return it with its training rows; see `train`."""
    from geococa.fraction_training import fit_fractions

    fitted, table = fit_fractions(
        samples, features, method=method, seed=seed, classes=classes, threads=threads, options=options
    )
    order = tuple(range(len(fitted.classes)))
    parts, names = fitted.parts, tuple(fitted.features)
    return Model._from_parts(parts, names, fitted.classes, order, colors, fitted.provenance), table
