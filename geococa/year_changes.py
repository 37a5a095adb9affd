"""Which changes of yearly labels to keep: those that are worth it by their probability given all years of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

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


class YearChain(NamedTuple):
    """A hidden Markov chain over given years."""

    matrix: np.ndarray
    initial: np.ndarray
    inverse_prior: np.ndarray
    years: np.ndarray
    floor: float
    evidence: float = 1.0

    def arguments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """What the kernels take: factors, first shares, powers of the matrix up to the whole span, years, floor."""
        span = int(self.years[-1] - self.years[0])
        powers = np.stack([np.linalg.matrix_power(self.matrix, gap) for gap in range(span + 1)])
        numbers = np.ascontiguousarray(self.years, dtype=np.int64)
        factors = self.inverse_prior.astype(float) ** self.evidence
        return factors, self.initial.astype(float), powers, numbers, float(self.floor)

    def likelihoods(self, values: np.ndarray) -> np.ndarray:
        """Probabilities to the power of the evidence; the largest one of a year becomes 1 and stays the largest."""
        return np.ascontiguousarray(sharpened(values, np.ones_like(self.inverse_prior), self.evidence)[0])


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
    from geococa._kernels import supported_changes

    values = chain.likelihoods(values)
    times, _, pixels = values.shape
    shown = np.empty((times, 2, pixels), dtype=np.int16)
    support = np.empty((times, 2, pixels), dtype=np.float64)
    supported_changes.candidate_support(values, *chain.arguments(), shown, support)
    wanted_class = (shown >= 0) & kept[shown]
    if wanted_class.sum() < _FEWEST_CHANGES:
        return np.where(kept, _PLAIN_WEIGHT, 0.0)
    blinking = np.flatnonzero(wanted_class.any(axis=(0, 1)))
    blinking = blinking[:: max(1, blinking.size // _BLINKING_PIXELS)]
    found = support[:, :, blinking][wanted_class[:, :, blinking]]
    part = np.ascontiguousarray(values[:, :, blinking])
    path = np.empty((times, part.shape[2]), dtype=np.int16)
    wanted = found.sum() + (1.0 - cut) * (1.0 - found).sum()
    low, high = 0.0, np.log(_LARGEST_WEIGHT)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        weights = np.where(kept, np.exp(middle), 0.0)
        supported_changes.decide_path(part, *chain.arguments(), weights, _UNSEEN_WEIGHT, _AGREEMENT, path)
        if _count_changes(path, kept) > wanted:
            high = middle
        else:
            low = middle
    return np.where(kept, np.exp(low), 0.0)


def _count_changes(path: np.ndarray, kept: np.ndarray) -> int:
    """How often a path (years, pixels), -1 where not observed, comes to or leaves the classes."""
    last, count = path[0], 0
    for now in path[1:]:
        moved = (now >= 0) & (last >= 0) & (now != last)
        count += int(kept[now[moved]].sum()) + int(kept[last[moved]].sum())
        last = np.where(now >= 0, now, last)
    return count


def follow_changes(
    values: np.ndarray, settled: np.ndarray, chain: YearChain, weights: np.ndarray, *, threads: int = 1
) -> None:
    """Make posterior probabilities follow the changes that are worth keeping, in place.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (years, classes, pixels)
        Probabilities of each year by itself, NaN = not observed.
    settled : numpy.ndarray of float32, shape (years, classes, pixels)
        Posterior probabilities of the same.
    chain, weights
        The chain, and what `weigh_changes` found.
    threads : int
        Threads over pieces; results do not depend on it.
    """
    from geococa._kernels import supported_changes

    arguments = chain.arguments()

    def piece(start: int) -> None:
        part = chain.likelihoods(values[:, :, start : start + _PIECE])
        path = np.empty((part.shape[0], part.shape[2]), dtype=np.int16)
        supported_changes.decide_path(part, *arguments, weights, _UNSEEN_WEIGHT, _AGREEMENT, path)
        supported_changes.follow_path(path, settled[:, :, start : start + _PIECE])

    starts = range(0, values.shape[2], _PIECE)
    if threads > 1 and len(starts) > 1:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(piece, starts))
    else:
        for start in starts:
            piece(start)
