"""Model: a trained classifier as plain arrays, with its features, classes, legend and origin; never pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geococa.engines import REJECTED, Engine, chunks, in_threads, make_engine
from geococa.errors import InputRefused, ModelRefused
from geococa.legend import Legend
from geococa.model_checks import check_arrays, check_names, check_range, check_transitions
from geococa.model_file import plain, read_container, write_container

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from geococa.tree_arrays import Parts

__all__ = ["Model", "read_model", "train"]

_FORMAT = "geococa model 1"
_EXTRA = ("transitions", "training_range")


@dataclass(frozen=True, eq=False)
class Model:
    """A trained classifier: arrays that a kernel reads, and what a map made with it needs to say.

    Models come from `geococa.train`, `Model.from_estimator` or `geococa.read_model`. A model does not change,
    and threads may share one.

    Attributes
    ----------
    kind : str
        Engine: ``"forest"``, ``"boosting"``, ``"gaussian"`` or ``"spectral_angle"``.
    features : tuple of str
        Feature names in the order of the arrays; data are matched by name.
    classes : tuple of str
        Class names; their order is that of probabilities, and of the codes 1, 2, 3, ... of a map.
    arrays : mapping of str to numpy.ndarray
        The engine's arrays, validated; not to be written to.
    settings : mapping
        The engine's plain settings.
    legend : Legend
        Codes, names and colours of the classes.
    columns : tuple of int
        Position in ``classes`` of each class of the engine: ties are resolved in the engine's order, which is
        that of the library that the model came from.
    transitions : numpy.ndarray or None
        float64 ``(classes, classes)``: share of each class (row) that becomes each class (column) a year
        later, from samples that were visited in consecutive years; None where there were too few.
    training_range : numpy.ndarray or None
        float64 ``(2, features)``: smallest and largest value of each feature in the training samples.
    provenance : mapping
        How the model was made: method, options, seed, samples by class, library versions.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> tree = DecisionTreeClassifier().fit([[0.2], [0.8]], ["bare_soil", "forest"])
    >>> model = Model.from_estimator(tree, features=["ndvi"])
    >>> model.predict(np.array([[0.1], [0.9]])).tolist()
    ['bare_soil', 'forest']
    """

    kind: str
    features: tuple[str, ...]
    classes: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]
    legend: Legend
    columns: tuple[int, ...]
    transitions: np.ndarray | None = None
    training_range: np.ndarray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_names("features", self.features, 10_000)
        check_names("classes", self.classes, 254)
        n_features, n_classes = len(self.features), len(self.classes)
        if self.legend.names != self.classes or self.legend.codes != tuple(range(1, n_classes + 1)):
            raise ModelRefused(f"the legend names {self.legend.names}, the model's classes are {self.classes}")
        if sorted(self.columns) != list(range(n_classes)):
            raise ModelRefused(f"columns must be a permutation of 0..{n_classes - 1}, got {self.columns}")
        check_arrays(self.kind, self.arrays, self.settings, n_features, n_classes)
        for array in self.arrays.values():
            array.flags.writeable = False
        if self.transitions is not None:
            check_transitions(self.transitions, n_classes)
        if self.training_range is not None:
            check_range(self.training_range, n_features)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        features: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        colors: Mapping[str, str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Model:
        """Convert a fitted estimator that is in memory.

        Labels are those of the source library, ties included; probabilities agree to 1e-12 (XGBoost, which
        adds in single precision: 1e-6).

        Parameters
        ----------
        estimator : fitted estimator
            scikit-learn: RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier,
            GradientBoostingClassifier, HistGradientBoostingClassifier, QuadraticDiscriminantAnalysis,
            GaussianNB, or a Pipeline of StandardScaler / MinMaxScaler and one of these. LightGBM: Booster,
            LGBMClassifier (objectives binary, multiclass, multiclassova). XGBoost: Booster, XGBClassifier
            (binary:logistic, multi:softprob, multi:softmax).
        features : sequence of str, optional
            Feature names in the order of the estimator's columns. Taken from the estimator where it was
            fitted with names.
        classes : sequence of str, optional
            Class names in the order of ``estimator.classes_``. Where the estimator was fitted with class
            names, they may be given in another order, which becomes the order of the model.
        colors : mapping of str to str, optional
            ``#rrggbb`` by class name.
        provenance : mapping, optional
            Anything to keep with the model.

        Returns
        -------
        Model

        Raises
        ------
        ModelRefused
            The estimator can't be converted, is not fitted, or names do not fit it.
        """
        from geococa.estimators import class_names, convert, feature_names

        parts = convert(estimator)
        names, columns = class_names(parts, classes)
        return cls._from_parts(parts, feature_names(parts, features), names, columns, colors, provenance)

    @classmethod
    def from_rules(cls, rules: str | os.PathLike[str] | Mapping[str, Any]) -> Model:
        """Read an expert's threshold rules, a tree written in TOML.

        Parameters
        ----------
        rules : path or mapping
            A TOML file, or what it holds: ``classes``, a list of names, and ``tree``, where each node has
            either ``class = "name"``, or ``test = "feature <= number"`` with the nodes ``yes`` and ``no``.

        Returns
        -------
        Model

        Examples
        --------
        >>> model = Model.from_rules({
        ...     "classes": ["bare_soil", "forest"],
        ...     "tree": {"test": "ndvi <= 0.3", "yes": {"class": "bare_soil"}, "no": {"class": "forest"}},
        ... })
        >>> model.features
        ('ndvi',)
        """
        from geococa.rules import rule_parts

        parts = rule_parts(rules)
        names = tuple(str(label) for label in parts.labels)
        return cls._from_parts(parts, tuple(parts.feature_names or ()), names, tuple(range(len(names))), None, None)

    @classmethod
    def _from_parts(
        cls,
        parts: Parts,
        features: tuple[str, ...],
        classes: tuple[str, ...],
        columns: tuple[int, ...],
        colors: Mapping[str, str] | None,
        provenance: Mapping[str, Any] | None,
    ) -> Model:
        origin = {"source": parts.source, **plain(dict(provenance or {}))}
        legend = Legend.of(classes, colors)
        return cls(parts.kind, features, classes, parts.arrays, parts.settings, legend, columns, provenance=origin)

    def __getstate__(self) -> dict[str, Any]:
        # the engine is made anew in another process; it holds tables that are larger than the arrays
        return {name: value for name, value in self.__dict__.items() if name != "_engine"}

    def __dask_tokenize__(self) -> str:
        return self.sha256

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(self.kind, self.arrays, self.settings)

    @cached_property
    def sha256(self) -> str:
        """Digest of everything the model holds; equal models have equal digests."""
        digest = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for name, array in sorted(self._all_arrays().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def predict_proba(self, X: np.ndarray | pd.DataFrame, *, threads: int | None = None) -> np.ndarray:
        """Class probabilities of a table.

        Parameters
        ----------
        X : pandas.DataFrame or numpy.ndarray (rows, features)
            A frame's columns are matched by name; an array has the features in the model's order. NaN is
            handled as the library handles it that the model came from.
        threads : int, optional
            Threads over rows; one for each processor where not given. Results do not depend on it.

        Returns
        -------
        numpy.ndarray
            float64 ``(rows, classes)``, in the order of ``classes``.
        """
        planes = self._table(X)
        out = np.empty((planes.shape[1], len(self.classes)))

        def work(rows: slice) -> None:
            out[rows] = self.plane_probabilities(planes[:, rows]).T

        in_threads(work, chunks(planes.shape[1]), threads)
        return out

    def predict(self, X: np.ndarray | pd.DataFrame, *, threads: int | None = None) -> np.ndarray:
        """Class names of a table; see `predict_proba` for the parameters.

        Returns
        -------
        numpy.ndarray
            str ``(rows,)``; ``"unclassified"`` where the model rejects a row.
        """
        planes = self._table(X)
        index = np.empty(planes.shape[1], dtype=np.int32)

        def work(rows: slice) -> None:
            index[rows] = self.plane_labels(planes[:, rows])

        in_threads(work, chunks(planes.shape[1]), threads)
        return np.asarray([*self.classes, "unclassified"])[index]

    def plane_probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        """Probabilities float64 ``(classes, pixels)`` of ``planes`` float ``(features, pixels)``; one thread.

        Unless ``exact``, those of a forest are sums of votes in whole numbers, off by less than 1e-6.
        """
        found = self._engine.probabilities(planes, exact=exact)
        if self.columns == tuple(range(len(self.classes))):
            return found
        out = np.empty_like(found)
        out[list(self.columns)] = found
        return out

    def plane_labels(self, planes: np.ndarray) -> np.ndarray:
        """Indices into ``classes``, int32 ``(pixels,)``, -1 where rejected, of ``planes``; one thread."""
        found = self._engine.labels(planes)
        lookup = np.asarray([*self.columns, REJECTED], dtype=np.int32)
        return lookup[found]

    def _table(self, X: np.ndarray | pd.DataFrame) -> np.ndarray:
        """Planes ``(features, rows)`` of a table; float32 stays, everything else becomes float64."""
        if hasattr(X, "columns"):
            missing = [name for name in self.features if name not in X.columns]
            if missing:
                raise ModelRefused(
                    f"the table lacks the features {', '.join(missing)}; it has {', '.join(map(str, X.columns[:30]))}"
                )
            X = np.asarray(X[list(self.features)])
        values = np.asarray(X)
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise ModelRefused(
                f"expected (rows, {len(self.features)}) values for {', '.join(self.features[:30])}, got "
                f"shape {values.shape}"
            )
        if values.dtype.kind not in "fiub":
            raise ModelRefused(f"features must be numbers, got {values.dtype}")
        exact = values.dtype == np.float32 or (values.dtype.kind in "iub" and values.dtype.itemsize <= 2)
        planes = np.ascontiguousarray(values.T, dtype=np.float32 if exact else np.float64)
        if self.kind in ("forest", "boosting") and np.isinf(planes).any():
            # a split of missing from other values stands at infinity in the source, at the largest number here
            limit = float(np.finfo(np.float32 if exact else np.float64).max)
            planes = np.clip(planes, -limit, limit)
        return planes

    def _header(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "kind": self.kind,
            "features": list(self.features),
            "classes": list(self.classes),
            "colors": list(self.legend.colors),
            "columns": list(self.columns),
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
        }

    def _all_arrays(self) -> dict[str, np.ndarray]:
        extra = {name: getattr(self, name) for name in _EXTRA if getattr(self, name) is not None}
        return {**self.arrays, **extra}

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to one file; the same model always gives the same bytes.

        The layout is described in `geococa.model_file`. An existing file is replaced in one step.
        """
        return write_container(path, self._header(), self._all_arrays())


def read_model(path: str | os.PathLike[str]) -> Model:
    """Read a model file and validate everything in it.

    Parameters
    ----------
    path : path
        A file that `Model.write` made.

    Returns
    -------
    Model
        Bit-equal to the one that was written.

    Raises
    ------
    ModelRefused
        The file is missing, is not a model file, is damaged, or holds arrays that can't be a model.
    """
    header, arrays = read_container(path)
    try:
        if header.get("format") != _FORMAT:
            raise ModelRefused(f"expected format {_FORMAT!r}, got {header.get('format')!r}")
        wanted = {
            "kind": str,
            "features": list,
            "classes": list,
            "colors": list,
            "columns": list,
            "settings": dict,
            "provenance": dict,
        }
        for name, kind in wanted.items():
            if not isinstance(header.get(name), kind):
                raise ModelRefused(f"the header's {name!r} must be a {kind.__name__}, got {header.get(name)!r:.80}")
        for name in ("features", "classes", "colors"):
            if not all(isinstance(entry, str) for entry in header[name]):
                raise ModelRefused(f"the header's {name!r} must hold strings")
        if not all(type(entry) is int for entry in header["columns"]):
            raise ModelRefused("the header's 'columns' must hold integers")
        extra = {name: arrays.pop(name, None) for name in _EXTRA}
        classes = tuple(header["classes"])
        check_names("classes", classes, 254)
        legend = Legend(classes, tuple(range(1, len(classes) + 1)), tuple(header["colors"]))
        return Model(
            header["kind"],
            tuple(header["features"]),
            classes,
            arrays,
            header["settings"],
            legend,
            tuple(header["columns"]),
            extra["transitions"],
            extra["training_range"],
            header["provenance"],
        )
    except InputRefused as error:
        raise ModelRefused(f"{path}: {error}") from None


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
    **options: Any,
) -> Model:
    """Train a classifier from reference samples.

    Rows with a NaN feature (not observed) are dropped; how many is in the model's provenance.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame or pandas.DataFrame
        Points or polygons with ``class`` (and perhaps ``year``), whose pixel values are then read from
        ``features``; or a training table with ``class`` and one column for each feature.
    features : xarray.DataArray or sequence of str, optional
        Feature stack ``([time,] feature, y, x)``; or the names of the table's feature columns. With a table
        and no names, every numeric column that does not describe the sample is a feature.
    method : str
        ``random_forest``, ``extra_trees``, ``hist_gradient_boosting``, ``lightgbm``, ``xgboost``,
        ``gaussian`` (maximum likelihood), ``mahalanobis``, ``minimum_distance``, ``spectral_angle`` or
        ``rules``.
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
    **options
        Options of the method, for example ``n_estimators=200`` or ``max_depth=12``; for the Gaussian
        methods ``priors`` (``"equal"``, ``"samples"`` or a mapping), ``rejection`` (share of a class's own
        pixels that may go unclassified, for example 0.01) and ``regularisation``.

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
    from geococa.training import fit, transition_matrix, usable_rows

    table, names, dropped = usable_rows(samples, features)
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
    values = table[list(names)].to_numpy(dtype=np.float64)
    provenance = {
        **fitted.provenance,
        "rows": len(table),
        "rows_dropped_not_observed": dropped,
        "samples_by_class": {name: int((table["class"] == name).sum()) for name in fitted.classes},
    }
    order = tuple(range(len(fitted.classes)))
    model = Model._from_parts(fitted.parts, tuple(fitted.features), fitted.classes, order, colors, provenance)
    ranges = np.stack([values.min(axis=0), values.max(axis=0)])
    if fitted.features != names:
        ranges = ranges[:, [names.index(name) for name in fitted.features]]
    return replace(model, transitions=transition_matrix(table, fitted.classes), training_range=ranges)
