"""Which changes of yearly labels to keep: those that are worth it by their probability given all years of a pixel.

Labels of each year by itself show changes, true and false. A hidden Markov chain gives each of them a probability, the path
with the highest expected worth keeps some, and the worth of a true change is set so that a given share of the false ones goes.
The rule is that of generalised centroid estimators (Hamada et al. 2009, doi:10.1093/bioinformatics/btn601), which choose
among discrete answers by their expected gain under a posterior.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geococa.engines import in_threads
from geococa.errors import InputRefused
from geococa.year_transitions import sharpened

__all__ = ["CUT", "YearChain", "changed_classes", "follow_changes", "weigh_changes"]

CUT = 0.65
"""Share of the false changes of yearly labels that is to go; benchmarks/stabilise.py has the losses of other shares."""
_UNSEEN_WEIGHT = 3.0
"""False changes that a true one outweighs where yearly labels do not show it."""
_LARGEST_WEIGHT, _ROUNDS = 1000.0, 10
_PLAIN_WEIGHT = 30.0
"""Weight where a sample shows too few changes to find one."""
_FEWEST_CHANGES, _BLINKING_PIXELS = 50, 8000
_AGREEMENT = 0.5
"""Worth of a year that is in its class beside a false change; 0.05 to 0.5 give nearly the same maps."""
_PIECE = 1 << 14
"""Pixels worked on at a time."""


class YearChain(NamedTuple):
    """A hidden Markov chain over given years, and what its changes are worth.

    Attributes
    ----------
    matrix : numpy.ndarray
        Transition probabilities from one year to the next, float64 ``(classes, classes)``, rows = from.
    initial : numpy.ndarray
        Class shares before the first year, float64 ``(classes,)``.
    inverse_prior : numpy.ndarray
        Factors that make likelihoods of probabilities, float64 ``(classes,)``.
    years : numpy.ndarray
        int64 ``(years,)``, rising.
    floor, evidence : float
        As in `geococa.stabilise`.
    weights : numpy.ndarray or None
        From `weigh_changes`; None where no changes are weighed.
    """

    matrix: np.ndarray
    initial: np.ndarray
    inverse_prior: np.ndarray
    years: np.ndarray
    floor: float
    evidence: float = 1.0
    weights: np.ndarray | None = None


class _Support(NamedTuple):
    """What all years say of the changes of some pixels: see `supported_changes.change_support`."""

    shown: np.ndarray
    share: np.ndarray
    moved: np.ndarray

    def path(self, weights: np.ndarray) -> np.ndarray:
        """Path that is worth most, int16 (years, pixels)."""
        from geococa._kernels import supported_changes

        path = np.empty_like(self.shown)
        supported_changes.worthiest_path(*self, weights, _UNSEEN_WEIGHT, _AGREEMENT, path)
        return path


def changed_classes(names: Sequence[str], changes_of: str | None) -> np.ndarray:
    """Classes whose changes are kept, bool (classes,): the one that is named, else coca, else all."""
    if changes_of is not None and changes_of not in names:
        raise InputRefused(f"changes_of names {changes_of!r}, but the classes are {', '.join(names)}")
    wanted = "coca" if changes_of is None else changes_of
    return np.array([name == wanted for name in names]) if wanted in names else np.ones(len(names), dtype=bool)


def weigh_changes(values: np.ndarray, chain: YearChain, kept: np.ndarray, *, cut: float = CUT) -> np.ndarray:
    """How many false changes a true one outweighs, so that a share of the false ones goes.

    Every change that labels of each year by itself show has a probability given all years, so the sample tells how many of
    them are expected to be true. The weight is the one at which as many changes stay as the true ones and those false ones
    that may stay.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (years, classes, pixels)
        A sample of probabilities, NaN = not observed.
    chain : YearChain
        Its chain.
    kept : numpy.ndarray of bool, shape (classes,)
        Classes whose changes are weighed.
    cut : float
        Share of the expected false changes that is to go.

    Returns
    -------
    numpy.ndarray of float64, shape (classes,)
        Weight from 1 to 1000; 0 for the other classes; 30 where there are fewer than 50 changes to find one from.
    """
    shown = _labels(values)
    changes = _changes(shown, kept)
    if (changes >= 0).sum() < _FEWEST_CHANGES:
        return np.where(kept, _PLAIN_WEIGHT, 0.0)
    blinking = _blinking(changes)
    blinking = blinking[:: max(1, blinking.size // _BLINKING_PIXELS)]
    support = _support(values[:, :, blinking], shown[:, blinking], chain)
    changes = changes[:, :, blinking]
    time, way, pixel = np.nonzero(changes >= 0)
    true = support.moved[pixel, way, time, changes[time, way, pixel]]
    wanted = true.sum() + (1.0 - cut) * (1.0 - true).sum()
    low, high = 0.0, np.log(_LARGEST_WEIGHT)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        path = support.path(np.where(kept, np.exp(middle), 0.0))
        if (_changes(path, kept) >= 0).sum() > wanted:
            high = middle
        else:
            low = middle
    return np.where(kept, np.exp(low), 0.0)


def follow_changes(values: np.ndarray, settled: np.ndarray, chain: YearChain, *, threads: int = 1) -> None:
    """Make posterior probabilities follow the changes that are worth keeping, in place.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (years, classes, pixels)
        Probabilities of each year by itself, NaN = not observed.
    settled : numpy.ndarray of float32, shape (years, classes, pixels)
        Posterior probabilities of the same.
    chain : YearChain
        The chain with its weights; without any nothing is done.
    threads : int
        Threads over pieces; results do not depend on it.
    """
    from geococa._kernels import supported_changes

    weights = chain.weights
    if weights is None:
        return

    def piece(start: int) -> None:
        part, target = (array[:, :, start : start + _PIECE] for array in (values, settled))
        shown = _labels(part)
        blinking = _blinking(_changes(shown, weights > 0))
        path = _support(part[:, :, blinking], shown[:, blinking], chain).path(weights)
        followed = np.ascontiguousarray(target[:, :, blinking])
        supported_changes.follow_path(path, followed)
        target[:, :, blinking] = followed

    in_threads(piece, range(0, values.shape[2], _PIECE), threads)


def _labels(values: np.ndarray) -> np.ndarray:
    """Most probable class of each year by itself, int16 (years, pixels), -1 where not observed."""
    from geococa._kernels import decision

    classes = np.arange(values.shape[1], dtype=np.int16)
    shown = np.empty((values.shape[0], values.shape[2]), dtype=np.int16)
    for source, target in zip(values, shown, strict=True):
        decision.most_probable(source, classes, np.float32(0.0), -1, -1, target)
    return shown


def _changes(path: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which of the kept classes a path (years, pixels) lost (0) and gained (1) since the observed year before.

    int16 (years, 2, pixels), -1 where none.
    """
    changes = np.full((path.shape[0], 2, path.shape[1]), -1, dtype=np.int16)
    before = path[0]
    for time in range(1, len(path)):
        now = np.where(path[time] >= 0, path[time], before)
        moved = (now != before) & (before >= 0)
        changes[time, 0] = np.where(moved & kept[before], before, -1)
        changes[time, 1] = np.where(moved & kept[now], now, -1)
        before = now
    return changes


def _blinking(changes: np.ndarray) -> np.ndarray:
    """Positions of the pixels with any change."""
    return np.flatnonzero((changes >= 0).any(axis=(0, 1)))


def _support(values: np.ndarray, shown: np.ndarray, chain: YearChain) -> _Support:
    """Probabilities of the changes of pixels given all of their years."""
    from geococa._kernels import supported_changes

    likelihood, left = sharpened(values, chain.inverse_prior, chain.evidence)
    times, classes, pixels = values.shape
    span = int(chain.years[-1] - chain.years[0])
    powers = np.stack([np.linalg.matrix_power(chain.matrix, gap) for gap in range(span + 1)])
    support = _Support(
        np.ascontiguousarray(shown), np.zeros((pixels, times, classes)), np.zeros((pixels, 2, times, classes))
    )
    supported_changes.change_support(
        np.ascontiguousarray(likelihood), left, chain.initial, powers, chain.years, chain.floor, *support
    )
    return support
