"""Model: a trained classifier as plain arrays, with its features, classes, legend and origin; never pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geococa._checks import check_threads
from geococa.engines import REJECTED, UNSEEN, Engine, chunks, in_threads, make_engine
from geococa.errors import InputRefused, ModelRefused
from geococa.legend import NO_DATA, Legend, class_codes
from geococa.model_checks import (
    check_arrays,
    check_calibration,
    check_names,
    check_range,
    check_statements,
    check_summary,
    check_training_set,
    check_transitions,
)
from geococa.model_features import TREES, table_planes
from geococa.model_file import FORMAT, check_header, plain, read_container, write_container
from geococa.model_parts import parts_from_file, summary_table

if TYPE_CHECKING:
    import pandas as pd

    from geococa.calibration_maps import Calibration
    from geococa.model_parts import ClassSummary
    from geococa.training_space import TrainingSet
    from geococa.tree_arrays import Parts

__all__ = ["Model", "read_model"]

_EXTRA = ("transitions", "training_range")
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Model:
    """A trained classifier: arrays that a kernel reads, and what a map made with it needs to say.

    Models come from `geococa.train`, `Model.from_estimator` or `geococa.read_model`. A model does not change,
    and threads may share one.

    Attributes
    ----------
    kind : str
        Engine: ``"twdtw"``, ``"forest"``, ``"boosting"``, ``"gaussian"``, ``"spectral_angle"`` or ``"unmixing"``.
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
    feature_units, feature_scales : tuple of str or None
        Units of each feature (``"1"``) and a free statement of its scale (``"reflectance 0..1"``), ``""`` where nothing
        was stated; `geococa.classify` refuses features that state something else.
    class_summary : ClassSummary or None
        Number of samples, mean, standard deviation and range of each feature by class; see `summary`.
    training_set : TrainingSet or None
        Training points that `geococa.applicability` measures distances to.
    calibration : Calibration or None
        Maps that make the classifier's probabilities calibrated ones; see `geococa.calibrate`.

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
    feature_units: tuple[str, ...] | None = None
    feature_scales: tuple[str, ...] | None = None
    class_summary: ClassSummary | None = None
    training_set: TrainingSet | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        check_names("features", self.features, 10_000)
        check_names("classes", self.classes, NO_DATA)
        n_features, n_classes = len(self.features), len(self.classes)
        if self.legend.names != self.classes or self.legend.codes != tuple(class_codes(n_classes)):
            raise ModelRefused(f"the legend names {self.legend.names}, the model's classes are {self.classes}")
        if n_classes == NO_DATA and self.rejects:
            raise ModelRefused(
                "255 classes leave no code for rejected pixels; train without rejection or merge two classes"
            )
        if sorted(self.columns) != list(range(n_classes)):
            raise ModelRefused(f"columns must be a permutation of 0..{n_classes - 1}, got {self.columns}")
        check_arrays(self.kind, self.arrays, self.settings, n_features, n_classes)
        for array in self.arrays.values():
            array.flags.writeable = False
        if self.transitions is not None:
            check_transitions(self.transitions, n_classes)
        if self.training_range is not None:
            check_range(self.training_range, n_features)
        self._check_parts(n_features, n_classes)

    def _check_parts(self, n_features: int, n_classes: int) -> None:
        """Check what is kept of the training beside the classifier."""
        check_statements("feature_units", self.feature_units, n_features)
        check_statements("feature_scales", self.feature_scales, n_features)
        summary, kept, maps = self.class_summary, self.training_set, self.calibration
        if self.training_range is None and (summary is not None or kept is not None):
            raise ModelRefused(
                "training_range is missing, though the model has a summary or points of its training rows"
            )
        if summary is not None:
            check_summary(summary.count, summary.values, self.training_range, n_features, n_classes)
        if kept is not None:
            check_training_set(kept.points, kept.scaling, kept.facts(), self.training_range, n_features)
        if maps is not None:
            if self.settings.get("output", "probability") != "probability":
                raise ModelRefused("a model of class fractions has no calibration of probabilities")
            check_calibration(maps.method, maps.start, maps.table, maps.rows, maps.origin, n_classes)
        for part in (summary, kept, maps):
            for array in part.arrays().values() if part is not None else ():
                array.flags.writeable = False

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        features: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        colors: Mapping[str, str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        training: pd.DataFrame | None = None,
    ) -> Model:
        """Convert a fitted estimator that is in memory.

        Labels are those of the source library, ties included; probabilities agree to 1e-12 (XGBoost, which
        adds in single precision: 1e-6). Where a library gives one-versus-all scores that do not sum to 1
        (LightGBM multiclassova, CatBoost MultiClassOneVsAll), they are divided by their sum.

        Parameters
        ----------
        estimator : fitted estimator
            scikit-learn: RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier,
            GradientBoostingClassifier, HistGradientBoostingClassifier, QuadraticDiscriminantAnalysis,
            GaussianNB, or a Pipeline of StandardScaler / MinMaxScaler and one of these; and, where their outputs are
            class fractions (one output is that of the first of two classes), RandomForestRegressor,
            ExtraTreesRegressor, DecisionTreeRegressor. LightGBM: Booster,
            LGBMClassifier (objectives binary, multiclass, multiclassova). XGBoost: Booster, XGBClassifier
            (binary:logistic, multi:softprob, multi:softmax). CatBoost: CatBoostClassifier, CatBoost (losses
            Logloss, CrossEntropy, MultiClass, MultiClassOneVsAll; any grow_policy; numeric features).
            Refused: categorical splits, LightGBM with linear_tree, zero_as_missing or boosting mode rf
            (dart and goss are taken), XGBoost with gblinear or vector leaves.
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
        training : pandas.DataFrame, optional
            The rows that the estimator was fitted to, with the features by name: what `with_training_data` takes, so
            that `geococa.applicability` and the check of scales work with the model.

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
        model = cls._from_parts(parts, feature_names(parts, features), names, columns, colors, provenance)
        return model if training is None else model.with_training_data(training)

    @classmethod
    def from_rules(cls, rules: str | os.PathLike[str] | Mapping[str, Any]) -> Model:
        """Read an expert's threshold rules, a tree written in TOML.

        Parameters
        ----------
        rules : path or mapping
            A TOML file, or what it holds: ``classes``, a list of names, and ``tree``, where each node has
            either ``class = "name"``, or ``test = "feature <= number"`` (or ``<``, ``>``, ``>=``) with the nodes
            ``yes`` and ``no``, up to 100 tests deep. Names of features may hold blanks, but none of ``< > =``. A
            missing value fails every test.

        Returns
        -------
        Model

        Raises
        ------
        ModelRefused
            The file or a node of the tree is not what it must be; the message names the place.

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

    @property
    def output(self) -> str:
        """What the numbers of the model are: ``"probability"`` of classes, or ``"fraction"``, their area shares."""
        return str(self.settings.get("output", "probability"))

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
        """Class probabilities of a table, or class fractions from a model whose ``output`` is that.

        Parameters
        ----------
        X : pandas.DataFrame or numpy.ndarray (rows, features)
            A frame's columns are matched by name; an array has the features in the model's order. NaN is
            handled as the library handles it that the model came from; a model that can't read it (``gaussian``,
            ``spectral_angle``, ``unmixing``) gives NaN, as it does for infinity and for numbers beyond single precision.
        threads : int, optional
            Threads over rows; one for each processor where not given. Results do not depend on it.

        Returns
        -------
        numpy.ndarray
            float64 ``(rows, classes)``, in the order of ``classes``.

        Raises
        ------
        ModelRefused
            Features are missing, are no numbers, or are on another scale than in training, as `geococa.classify`
            refuses them (a model that does not know its training rows can't tell).
        InputRefused
            ``threads`` is no whole number of at least 1.
        """
        threads = check_threads(threads)
        planes, unread = table_planes(X, self)
        out = np.empty((planes.shape[1], len(self.classes)))

        def work(rows: slice) -> None:
            out[rows] = self.plane_probabilities(planes[:, rows]).T

        in_threads(work, chunks(planes.shape[1]), threads)
        out[unread] = np.nan
        return out

    def predict(self, X: np.ndarray | pd.DataFrame, *, threads: int | None = None) -> np.ndarray:
        """Class names of a table; see `predict_proba` for the parameters.

        Returns
        -------
        numpy.ndarray
            str ``(rows,)``; ``"unclassified"`` where the model rejects a row or can't read it.
        """
        threads = check_threads(threads)
        planes, unread = table_planes(X, self)
        index = np.empty(planes.shape[1], dtype=np.int32)

        def work(rows: slice) -> None:
            index[rows] = self.plane_labels(planes[:, rows])

        in_threads(work, chunks(planes.shape[1]), threads)
        index[unread] = REJECTED
        return np.asarray([*self.classes, "unclassified"])[index]

    def plane_probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        """Probabilities float64 ``(classes, pixels)`` of ``planes`` float ``(features, pixels)``; one thread.

        Unless ``exact``, those of a forest are sums of votes in whole numbers, off by less than 1e-6. A calibrated
        model's are always exact, since its maps may be steep.
        """
        found = self._engine.probabilities(planes, exact=exact or self.calibration is not None)
        if self.columns != tuple(range(len(self.classes))):
            out = np.empty_like(found)
            out[list(self.columns)] = found
            found = out
        return found if self.calibration is None else self.calibration.apply(found)

    @property
    def rejects(self) -> bool:
        """Whether the model leaves pixels unclassified that are unlike every class."""
        return any(name.startswith("rejection") for name in self.settings)

    @property
    def takes_missing(self) -> bool:
        """Whether the model classifies pixels of which some features are missing."""
        return bool(getattr(self._engine, "takes_missing", False))

    def plane_observed(self, planes: np.ndarray) -> np.ndarray:
        """Whether pixels of ``planes`` ``(features, pixels)`` have what the model needs, bool ``(pixels,)``."""
        from geococa._kernels.planes import all_finite

        engine: Any = self._engine
        observed: np.ndarray
        if self.takes_missing:
            observed = engine.observed(planes)
        elif self.kind in TREES:
            observed = all_finite(planes)
        else:
            # the square of a larger number is infinite, and a distance to it no number
            observed = all_finite(planes, _LARGEST)
        return observed

    @property
    def marks_gaps(self) -> bool:
        """Whether `plane_codes` takes the place of `plane_observed` and `plane_labels`: it reads pixels once."""
        direct = self.calibration is None and self.columns == tuple(range(len(self.classes)))
        return direct and len(self.classes) < UNSEEN and hasattr(self._engine, "codes")

    def plane_codes(self, planes: np.ndarray, out: np.ndarray) -> bool:
        """Write 1 more than `plane_labels` gives for observed pixels, and 255 for the others; whether there are such.

        ``out`` is uint8 ``(pixels,)``.
        """
        engine: Any = self._engine
        gaps: bool = engine.codes(planes, _LARGEST, out)
        return gaps

    def plane_filled(self, planes: np.ndarray) -> np.ndarray:
        """Observed ``planes`` ``(features, pixels)`` without gaps: what is missing is what the nearest class expects."""
        engine: Any = self._engine
        filled: np.ndarray = engine.filled(planes) if self.takes_missing else planes
        return filled

    def plane_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the float type in which values of ``dtype`` are classified: float32 where that changes no answer.

        Small integers fit float32, but a pipeline's scaler computes with integers in double precision.
        """
        fits = dtype.kind in "iub" and dtype.itemsize <= 2 and not self.settings.get("scaling")
        return np.dtype(np.float32 if fits or dtype == np.float32 else np.float64)

    def plane_labels(self, planes: np.ndarray) -> np.ndarray:
        """Indices into ``classes``, int32 ``(pixels,)``, -1 where rejected, of ``planes``; one thread.

        Of a calibrated model, the class of the largest calibrated probability, the first of equals.
        """
        if self.calibration is not None:
            return self._calibrated_labels(planes)
        found = self._engine.labels(planes)
        if self.columns == tuple(range(len(self.classes))):
            return found
        lookup = np.asarray([*self.columns, REJECTED], dtype=np.int32)
        return lookup[found]

    def _calibrated_labels(self, planes: np.ndarray) -> np.ndarray:
        labels = self.plane_probabilities(planes).argmax(axis=0).astype(np.int32)
        if self.rejects:
            labels[self._engine.labels(planes) == REJECTED] = REJECTED
        return labels

    def summary(self) -> pd.DataFrame:
        """Training samples by class and feature, as a table for people.

        Returns
        -------
        pandas.DataFrame
            One row a class and feature: ``class``, ``color``, ``samples``, ``feature``, ``units``, ``scale``, ``mean``,
            ``sd``, ``min``, ``max``; missing where the model does not know.

        Examples
        --------
        >>> import pandas as pd
        >>> table = pd.DataFrame({"class": ["coca", "forest"] * 20, "ndvi": [0.5, 0.75] * 20})
        >>> model = train(table, ["ndvi"], n_estimators=5, units="1")
        >>> model.summary()[["class", "samples", "feature", "units", "mean"]].values.tolist()
        [['coca', 20, 'ndvi', '1', 0.5], ['forest', 20, 'ndvi', '1', 0.75]]
        """
        return summary_table(
            self.features,
            self.classes,
            self.legend.colors,
            self.feature_units,
            self.feature_scales,
            self.class_summary,
        )

    def with_training_data(
        self,
        table: pd.DataFrame,
        *,
        importance: Mapping[str, float] | None = None,
        units: str | Mapping[str, str] | None = None,
        scale: str | Mapping[str, str] | None = None,
        points: int = 2000,
        seed: int = 0,
    ) -> Model:
        """Return the same classifier with what it should know of the rows that it was trained with.

        `geococa.train` does this by itself, for class fractions too; a model from `from_estimator` needs it (or
        ``training=`` there) before `geococa.applicability`.

        Parameters
        ----------
        table : pandas.DataFrame
            The training rows: the model's features, and for the summary ``class``, or for class fractions the columns
            ``fraction_<class>``, of which rows of a single class count. With ``class``, ``x``, ``y`` and
            ``attrs["crs"]`` the threshold of applicability comes from 10 spatial folds of 1 km blocks, else from
            comparing each row with all others.
        importance : mapping of str to float, optional
            Importance of each feature (for example by permutation), the weight of its standardised values in
            distances; negative ones count as 0. All equal where not given.
        units, scale : str or mapping by feature, optional
            As for `geococa.train`.
        points : int
            Points kept at most. With more rows, points are chosen one by one, each the farthest from those before
            (Gonzalez 1985), so that every row stays near a kept one: ``training_set.covering`` says how near.
        seed : int
            Of the folds and of the draw of rows whose mean distance is taken (where there are more than 4,000).

        Returns
        -------
        Model
        """
        from geococa.training_data import describe_training

        return describe_training(self, table, importance=importance, units=units, scale=scale, most=points, seed=seed)

    def _header(self) -> dict[str, Any]:
        parts = {
            "feature_units": None if self.feature_units is None else list(self.feature_units),
            "feature_scales": None if self.feature_scales is None else list(self.feature_scales),
            "training_set": None if self.training_set is None else self.training_set.facts(),
            "calibration": None if self.calibration is None else self.calibration.facts(),
        }
        return {
            **{name: value for name, value in parts.items() if value is not None},
            "format": FORMAT,
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
        for part in (self.class_summary, self.training_set, self.calibration):
            extra |= part.arrays() if part is not None else {}
        return {**self.arrays, **extra}

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to one file; the same model always gives the same bytes.

        The layout is described in `geococa.model_file`. An existing file is replaced in one step, a missing folder is
        made.

        Raises
        ------
        InputRefused
            The path can't be written to.
        """
        return write_container(path, self._header(), self._all_arrays())


def read_model(path: str | os.PathLike[str]) -> Model:
    """Read a model file and validate everything in it.

    Parameters
    ----------
    path : path
        A file that `Model.write` made; or a file of rules whose name ends with ``.toml``, see `Model.from_rules`.

    Returns
    -------
    Model
        Bit-equal to the one that was written.

    Raises
    ------
    ModelRefused
        The file is missing, is not a model file, is damaged, or holds arrays that can't be a model.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import pandas as pd
    >>> import geococa as coca
    >>> rows = pd.DataFrame({"class": ["coca", "forest"] * 6, "ndvi": [0.4, 0.8, 0.5, 0.7, 0.45, 0.75] * 2})
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "coca.model"
    >>> _ = coca.train(rows, ["ndvi"], method="minimum_distance").write(path)
    >>> read_model(path).classes
    ('coca', 'forest')
    """
    if str(path).lower().endswith(".toml"):
        return Model.from_rules(path)
    header, arrays = read_container(path)
    try:
        check_header(header)
        extra = {name: arrays.pop(name, None) for name in _EXTRA}
        parts = parts_from_file(header, arrays)
        classes = tuple(header["classes"])
        check_names("classes", classes, NO_DATA)
        legend = Legend(classes, tuple(class_codes(len(classes))), tuple(header["colors"]))
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
            **parts,
        )
    except InputRefused as error:
        raise ModelRefused(f"{path}: {error}") from None
