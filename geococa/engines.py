"""Prediction engines: what a model's arrays compute, on planes of pixels, one engine for each kind of model.

An engine takes ``(features, pixels)`` floats and gives ``(classes, pixels)`` probabilities or ``(pixels,)``
class indices. Engines hold no state that a call changes, so threads may share one.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from geococa.errors import ModelRefused
from geococa.tree_walkers import UNDECIDED, Ballot, LaneWalker, make_walker

__all__ = ["CHUNK", "REJECTED", "UNSEEN", "Engine", "chunks", "in_threads", "make_engine"]

CHUNK = 32_760
"""Pixels of a task; the block of the forest kernels."""

REJECTED = -1
"""Class index of a pixel that no class may claim."""
UNSEEN = 255
"""Code of a pixel that was not observed."""

_MANY = 24
_NEAR_HALF = 1e-6  # scores beyond this give more than one half in single precision, too
_MAX_VOTED = 2048  # with more trees, votes in halves of 64 bits are off by more than 1e-6

T = TypeVar("T")
Arrays = Mapping[str, np.ndarray]
Settings = Mapping[str, Any]


class Engine(Protocol):
    """What `geococa.models.Model` asks of a kind of model."""

    def probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        """Probabilities float64 ``(classes, pixels)`` of ``planes`` ``(features, pixels)``, which may hold NaN.

        Unless ``exact``, they may be off by up to 1e-6 where that is faster.
        """
        ...

    def labels(self, planes: np.ndarray) -> np.ndarray:
        """Class indices int32 ``(pixels,)``, or `REJECTED`, of ``planes`` ``(features, pixels)``."""
        ...


def chunks(n_pixels: int) -> list[slice]:
    """Cut pixels into tasks, of two chunks where there are many: each task costs some time of its own."""
    size = CHUNK if n_pixels < _MANY * CHUNK else 2 * CHUNK
    return [slice(start, min(start + size, n_pixels)) for start in range(0, n_pixels, size)]


def in_threads(work: Callable[[T], None], jobs: Sequence[T], threads: int | None) -> None:
    """Do all jobs, on as many threads as asked for, or as there are processors."""
    workers = min(threads or os.cpu_count() or 1, len(jobs))
    if workers <= 1:
        for job in jobs:
            work(job)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, jobs):
            pass


def make_engine(kind: str, arrays: Arrays, settings: Settings) -> Engine:
    """Return the engine of a validated model."""
    from geococa.fraction_engine import Unmixing
    from geococa.series_engine import Warping

    engines: dict[str, type[_Forest | _Boosting | _Gaussian | _SpectralAngle | Unmixing | Warping]] = {
        "forest": _Forest,
        "boosting": _Boosting,
        "gaussian": _Gaussian,
        "spectral_angle": _SpectralAngle,
        "unmixing": Unmixing,
        "twdtw": Warping,
    }
    if kind not in engines:
        raise ModelRefused(f"no engine for models of kind {kind!r}; known are {', '.join(engines)}")
    return engines[kind](arrays, settings)


class _Scaled:
    """Feature scaling that a pipeline puts before its classifier, in the pipeline's own arithmetic."""

    def __init__(self, arrays: Arrays, settings: Settings) -> None:
        steps = settings.get("scaling", [])
        self._steps = [(step, arrays["scaling"][i][:, None]) for i, step in enumerate(steps)]

    def scaled(self, planes: np.ndarray) -> np.ndarray:
        if not self._steps:
            return planes
        out = planes.astype(planes.dtype, copy=True)
        for step, amount in self._steps:
            if step == "subtract":
                out -= amount.astype(out.dtype)
            elif step == "divide":
                out /= amount.astype(out.dtype)
            elif step == "multiply":
                out *= amount
            elif step == "add":
                out += amount
            elif step == "at_least":
                np.maximum(out, amount.astype(out.dtype), out=out)
            else:
                np.minimum(out, amount.astype(out.dtype), out=out)
        return out


class _Trees(_Scaled, ABC):
    """Sums of leaf values over trees, by the fastest way that gives the same sums."""

    def __init__(self, arrays: Arrays, settings: Settings) -> None:
        super().__init__(arrays, settings)
        names = ("tree_start", "feature", "threshold", "left", "right", "missing_left", "leaf", "value", "tree_class")
        self._trees = {name: np.ascontiguousarray(arrays[name]) for name in names}
        self._input = np.dtype(settings.get("input", "float32"))
        self._precision = np.dtype(settings.get("precision", "float64"))
        # sums in single precision round after every tree, so what is added must be single, too
        self._trees["value"] = self._trees["value"].astype(self._precision, copy=False)
        self._base = np.asarray(arrays["base"], dtype=self._precision)
        self._walker = make_walker(self._trees)

    @property
    def n_trees(self) -> int:
        return len(self._trees["tree_class"])

    def _prepared(self, planes: np.ndarray) -> np.ndarray:
        """Scaled features in the precision that the source library compares in."""
        values = self.scaled(planes)
        if self._input == np.float32:
            with np.errstate(over="ignore"):
                values = values.astype(np.float32, copy=False)
        return values

    def labels(self, planes: np.ndarray) -> np.ndarray:
        return self._labels(self._prepared(planes), False)

    def codes(self, planes: np.ndarray, _largest: float, out: np.ndarray) -> bool:
        """Write 1, 2, 3, ... for the classes, and 255 where a feature is not finite; whether there are such pixels."""
        from geococa._kernels.planes import all_finite

        seen = all_finite(planes)
        gaps = not bool(seen.all())
        if gaps:
            out[:] = UNSEEN
            planes = np.ascontiguousarray(planes[:, seen])
        labels = self._labels(self._prepared(planes), not self._steps) if planes.shape[1] else np.empty(0, np.int32)
        if gaps:
            out[seen] = (labels + 1).astype(out.dtype)
        else:
            np.add(labels, 1, out=out, casting="unsafe")
        return gaps

    @abstractmethod
    def _labels(self, values: np.ndarray, finite: bool) -> np.ndarray:
        """Class indices of prepared features, which may be known to be finite."""

    def _sums(self, values: np.ndarray, finite: bool = False) -> np.ndarray:
        """Sums ``(classes, pixels)`` of prepared features."""
        sums = np.empty((len(self._base), values.shape[1]), dtype=self._precision)
        sums[:] = self._base[:, None]
        single = _single(values) if self._walker is not None else None
        if single is None or self._walker is None:
            self._add_plain(values, sums)
            return sums
        missing = None if finite else _missing(single)
        if missing is None or not missing.any():
            self._walker.add(single, sums)
            return sums
        for chosen, add in ((~missing, self._walker.add), (missing, self._add_plain)):
            part = np.ascontiguousarray(sums[:, chosen])
            add(np.ascontiguousarray(single[:, chosen]), part)
            sums[:, chosen] = part
        return sums

    def _add_plain(self, values: np.ndarray, sums: np.ndarray) -> None:
        from geococa._kernels import forest

        arguments: tuple[Any, ...] = (np.ascontiguousarray(values), *self._trees.values(), sums)
        forest.add_trees(*arguments)


def _single(values: np.ndarray) -> np.ndarray | None:
    """Return the values as float32 where that changes none of them."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return single if np.array_equal(single, values, equal_nan=True) else None


def _missing(planes: np.ndarray) -> np.ndarray:
    """Whether each pixel has a feature that is NaN, bool ``(pixels,)``."""
    from geococa._kernels.planes import all_finite

    missing: np.ndarray = ~all_finite(planes)
    if missing.any():
        # infinite values are in order: they have ranks, too
        missing[missing] = np.isnan(planes[:, missing]).any(axis=0)
    return missing


class _Forest(_Trees):
    """Mean of the class shares in the leaves (random forest, extra trees, one tree, rules)."""

    def __init__(self, arrays: Arrays, settings: Settings) -> None:
        super().__init__(arrays, settings)
        lanes = self._walker if isinstance(self._walker, LaneWalker) else None
        self._ballot = Ballot(self._trees, lanes) if lanes is not None else None

    def probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        values = self._prepared(planes)
        if not exact and self._ballot is not None and self.n_trees <= _MAX_VOTED:
            single = _single(values)
            if single is not None and not _missing(single).any():
                return self._ballot.shares(single)
        sums = self._sums(values)
        sums /= self.n_trees
        return sums

    def _labels(self, values: np.ndarray, finite: bool) -> np.ndarray:
        single = _single(values) if self._ballot is not None else None
        if single is None or self._ballot is None or (not finite and _missing(single).any()):
            return self._first_best(values)
        labels = self._ballot.labels(single)
        open_ = np.flatnonzero(labels == UNDECIDED)
        if len(open_):
            labels[open_] = self._first_best(np.ascontiguousarray(values[:, open_]))
        return labels

    def _first_best(self, values: np.ndarray) -> np.ndarray:
        """Most probable class, the first of equals, from the very sums that the source library compares."""
        sums = self._sums(values)
        sums /= self.n_trees
        return sums.argmax(axis=0).astype(np.int32)


class _Boosting(_Trees):
    """Sum of scores through a link function."""

    def __init__(self, arrays: Arrays, settings: Settings) -> None:
        super().__init__(arrays, settings)
        self._link = settings["link"]
        self._slope = float(settings.get("slope", 1.0))
        self._tie_up = settings.get("tie", "lower") == "upper"

    def probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        scores = self._sums(self._prepared(planes)).astype(np.float64, copy=False)
        if self._link == "softmax":
            return _softmax(scores)
        positive = _expit(self._slope * scores)
        if self._link == "sigmoid":
            return np.concatenate([1.0 - positive, positive])
        positive /= positive.sum(axis=0)
        return positive

    def _labels(self, values: np.ndarray, finite: bool) -> np.ndarray:
        scores = self._sums(values, finite)
        if self._link == "sigmoid":
            upper = scores[0] >= 0 if self._tie_up else scores[0] > 0
            if scores.dtype == np.float32:
                # the source compares the probability, which in single precision is one half for scores just above zero
                near = np.flatnonzero(upper & (scores[0] < _NEAR_HALF))
                odds = np.exp(-scores[0, near].astype(np.float64)).astype(np.float32)
                upper[near] = odds + np.float32(1) < np.float32(2)
            return upper.astype(np.int32)
        return scores.argmax(axis=0).astype(np.int32)


class _Gaussian(_Scaled):
    """Normal densities with priors (maximum likelihood, Mahalanobis, minimum distance, naive Bayes)."""

    def __init__(self, arrays: Arrays, settings: Settings) -> None:
        super().__init__(arrays, settings)
        self._mean = np.ascontiguousarray(arrays["mean"], dtype=np.float64)
        self._whitening = np.ascontiguousarray(arrays["whitening"], dtype=np.float64)
        self._constant = np.asarray(arrays["constant"], dtype=np.float64)
        self._limit = settings.get("rejection_distance")
        self._single: Any = single_gaussian(self._mean, self._whitening, self._constant, self._limit)

    def _distances(self, planes: np.ndarray) -> np.ndarray:
        """Squared distances float64 ``(classes, pixels)`` of scaled features."""
        from geococa._kernels import gaussian

        distances = np.empty((len(self._mean), planes.shape[1]))
        strip = np.empty((self._mean.shape[1] + 1, gaussian.LANES))
        gaussian.squared_distances(np.ascontiguousarray(planes), self._whitening, self._mean, strip, distances)
        return distances

    def probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        scores = self._distances(self.scaled(planes))
        scores *= -0.5
        scores += self._constant[:, None]
        return _softmax(scores)

    def labels(self, planes: np.ndarray) -> np.ndarray:
        values = self.scaled(planes)
        labels = np.empty(values.shape[1], dtype=np.int32)
        open_ = self._quick(values, labels)
        labels -= 1
        if len(open_):
            labels[open_] = self._likely(values[:, open_])
        return labels

    def codes(self, planes: np.ndarray, largest: float, out: np.ndarray) -> bool:
        """Write 1, 2, 3, ... for the classes, 0 for rejected pixels, and 255 where a feature is no number up to ``largest``.

        Such pixels are found among those that single precision leaves open, so that others are read once only.
        Whether there are any is returned.
        """
        values = self.scaled(planes)
        open_ = self._quick(values, out)
        if not len(open_):
            return False
        seen = (np.abs(planes[:, open_]) <= largest).all(axis=0)
        out[open_] = UNSEEN
        out[open_[seen]] = (self._likely(values[:, open_[seen]]) + 1).astype(out.dtype)
        return not bool(seen.all())

    def _quick(self, values: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Codes in single precision, and the pixels that it leaves open: all where it can't be used."""
        from geococa._kernels import gaussian
        from geococa._kernels.planes import flat_planes

        if self._single is None or values.dtype != np.float32:
            return np.arange(len(out))
        strip = np.zeros(self._single[3].shape[1] * gaussian.PITCH, dtype=np.float32)
        work = np.zeros(gaussian.ROWS * gaussian.PITCH, dtype=np.float32)
        open_ = np.empty(len(out), dtype=np.int32)
        arguments: tuple[Any, ...] = (*flat_planes(values), *self._single, strip, work, open_, out)
        return open_[: gaussian.likely_classes(*arguments)]

    def _likely(self, values: np.ndarray) -> np.ndarray:
        """Most likely class in double precision, the first of equals."""
        distances = self._distances(values)
        best = (self._constant[:, None] - 0.5 * distances).argmax(axis=0).astype(np.int32)
        if self._limit is not None:
            nearest = np.take_along_axis(distances, best[None].astype(np.intp), axis=0)[0]
            best[nearest > self._limit] = REJECTED
        return best


def single_gaussian(
    mean: np.ndarray, whitening: np.ndarray, constant: np.ndarray, limit: float | None
) -> tuple[Any, ...] | None:
    """Arguments of `_kernels.gaussian.likely_classes`, or None where single precision can't hold them.

    Features are standardised with numbers that single precision holds exactly, so that only the arithmetic on
    pixels rounds: by at most ``features + 6`` units of 2**-24 for each component of a whitened vector. The vector is
    then off by at most ``tilt = steep * |x| + flat``, so its squared length ``d`` by ``2 sqrt(d) tilt + tilt**2``
    and rounding, which is no more than ``g d + (1 / g + 1) tilt**2`` for any positive ``g``; no root is left.
    """
    n_classes, n_features = mean.shape
    size = n_features + n_features % 2
    with np.errstate(all="ignore"):
        centre = mean.mean(axis=0).astype(np.float32)
        spread = np.sqrt((np.linalg.inv(whitening) ** 2).sum(axis=2)).mean(axis=0)
        unit = (1.0 / spread).astype(np.float32)
        factor = np.zeros((n_classes, size, size))
        factor[:, :n_features, :n_features] = whitening / unit.astype(np.float64)
        offset = np.zeros((n_classes, size))
        offset[:, :n_features] = np.einsum("kij,kj->ki", whitening, mean - centre.astype(np.float64))
        rounding = 1.05 * (n_features + 6) * 2.0**-24
        steep = rounding * np.sqrt((factor**2).sum(axis=(1, 2)))
        flat = rounding * np.sqrt((offset**2).sum(axis=1))
        share = steep.max() + flat.max()
        # 2 percent more than the formulas ask for: the bounds themselves are worked out in single precision
        growth, still = (2.04 * (1 / share + 1) * part**2 for part in (steep, flat))
        by_distance = 1.02 * (share + rounding)
        # a score is half a distance; its own sum rounds, too
        slope = 0.5 * by_distance + 2 * rounding
        rest = 0.5 * still + 2 * rounding * np.abs(constant)
        score_error = 2.04 * np.asarray([slope, 0.5 * growth.max(), rest.max()])
        distance_error = np.asarray([by_distance, growth.max(), still.max()])
        parts = [centre, unit, factor, offset, constant + rest, 0.5 * growth]
        single = [np.ascontiguousarray(part, dtype=np.float32) for part in parts]
        errors = [part.astype(np.float32) for part in (score_error, distance_error)]
    if not all(np.isfinite(part).all() for part in [*single, *errors]) or np.abs(single[2]).max() > 1e12:
        return None
    return (*single, np.float32(0.5 - slope), *errors, np.float32(np.inf if limit is None else limit))


class _SpectralAngle(_Scaled):
    """Angle to each class's mean spectrum; blind to brightness, so to light and shade."""

    def __init__(self, arrays: Arrays, settings: Settings) -> None:
        super().__init__(arrays, settings)
        self._direction = np.asarray(arrays["direction"], dtype=np.float64)
        self._spread = float(settings["spread_rad"])
        self._limit = settings.get("rejection_angle_rad")

    def _angles(self, planes: np.ndarray) -> np.ndarray:
        values = self.scaled(planes).astype(np.float64)
        length = np.sqrt((values * values).sum(axis=0))
        cosine = (self._direction @ values) / np.where(length > 0, length, 1.0)
        angles: np.ndarray = np.arccos(np.clip(cosine, -1.0, 1.0))
        return angles

    def probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        return _softmax(-0.5 * (self._angles(planes) / self._spread) ** 2)

    def labels(self, planes: np.ndarray) -> np.ndarray:
        angles = self._angles(planes)
        best = angles.argmin(axis=0).astype(np.int32)
        if self._limit is not None:
            best[angles.min(axis=0) > self._limit] = REJECTED
        return best


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores - scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores


def _expit(scores: np.ndarray) -> np.ndarray:
    # exp of minus the magnitude never overflows
    small = np.exp(-np.abs(scores))
    out: np.ndarray = np.where(scores >= 0, 1.0, small) / (1.0 + small)
    return out
