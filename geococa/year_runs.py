"""Run a hidden Markov chain over all pixels of yearly probabilities: posteriors, their labels, or the most likely path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from geococa.engines import in_threads
from geococa.legend import NO_DATA, UNCLASSIFIED
from geococa.year_changes import YearChain
from geococa.year_transitions import sharpened

__all__ = ["PIECE", "posterior_labels", "posteriors", "viterbi"]

PIECE = 1 << 15
"""Pixels of a task."""
_TINY = 1e-15
_SINGLE, _DOUBLE = 1e-30, 1e-290
"""What the products of a few years must stay above."""


class _Settings(NamedTuple):
    """What the kernels of `year_lanes` take, in the precision that is enough, and the likelihoods of a piece."""

    factors: np.ndarray
    initial: np.ndarray
    steps: np.ndarray
    least: Any
    power: float
    every: int

    @classmethod
    def of(cls, chain: YearChain) -> _Settings:
        steps = np.stack([np.linalg.matrix_power(chain.matrix, int(gap)) for gap in np.diff(chain.years)])
        factors = chain.inverse_prior / chain.inverse_prior.max()
        power = chain.evidence if chain.evidence >= 1.0 and (2 * chain.evidence).is_integer() else 1.0
        if chain.evidence != 1.0 and power == 1.0:
            factors = np.ones_like(factors)
        smallest = steps.min() * chain.floor * (factors.min() if power == 1.0 else 1.0)
        # products of a year then stay far from the ends of single precision, which is twice as fast
        single = smallest > _TINY and chain.initial.min() > _TINY
        every = 2 if smallest**3 > (_SINGLE if single else _DOUBLE) else 1
        dtype: Any = np.float32 if single else np.float64
        flat = steps.reshape(len(steps), -1).astype(dtype)
        return cls(factors.astype(dtype), chain.initial.astype(dtype), flat, dtype(chain.floor), power, every)


def _over_pieces(
    values: np.ndarray, chain: YearChain, threads: int, work: Callable[[np.ndarray, int, int, int], None]
) -> None:
    """Call ``work`` with probabilities, the first and last pixel in them, and where that first pixel lies in the array."""
    plain = chain.evidence == 1.0 or _Settings.of(chain).power != 1.0

    def piece(start: int) -> None:
        end = min(start + PIECE, values.shape[2])
        if plain:
            work(values, start, end, start)
        else:
            likelihood, _ = sharpened(values[:, :, start:end], chain.inverse_prior, chain.evidence)
            work(np.ascontiguousarray(likelihood), 0, end - start, start)

    in_threads(piece, range(0, values.shape[2], PIECE), threads)


def posteriors(values: np.ndarray, chain: YearChain, fill: bool, threads: int, out: np.ndarray) -> None:
    """Write the posterior probabilities of ``values`` to ``out``, both float32 (years, classes, pixels); may be the same array."""
    from geococa._kernels import year_lanes

    settings, classes = _Settings.of(chain), (0,) * values.shape[1]

    def work(part: np.ndarray, begin: int, end: int, at: int) -> None:
        target = out if part is values else out[:, :, at : at + end]
        year_lanes.smooth_years(part, *settings, fill, begin, end, classes, target)

    _over_pieces(values, chain, threads, work)


def posterior_labels(
    values: np.ndarray, chain: YearChain, fill: bool, threads: int, codes: np.ndarray, min_probability: float
) -> np.ndarray:
    """Codes of the classes with the highest posterior probability, uint8 (years, pixels)."""
    from geococa._kernels import year_lanes

    settings, classes = _Settings.of(chain), (0,) * values.shape[1]
    out = np.empty((values.shape[0], values.shape[2]), dtype=np.uint8)
    least = np.float32(min_probability)

    def work(part: np.ndarray, begin: int, end: int, at: int) -> None:
        target = out if part is values else out[:, at : at + end]
        year_lanes.label_years(part, *settings, fill, begin, end, classes, codes, least, UNCLASSIFIED, NO_DATA, target)

    _over_pieces(values, chain, threads, work)
    return out


def viterbi(values: np.ndarray, chain: YearChain, fill: bool, threads: int) -> np.ndarray:
    """1 for the classes of the most likely path and 0 for the others, float32 (years, classes, pixels)."""
    from geococa._kernels import markov

    out = np.empty_like(values)
    steps = np.stack([np.linalg.matrix_power(chain.matrix, int(gap)) for gap in np.diff(chain.years)])

    def piece(start: int) -> None:
        end = min(start + PIECE, values.shape[2])
        likelihood, left = sharpened(values[:, :, start:end], chain.inverse_prior, chain.evidence)
        part = np.ascontiguousarray(likelihood)
        path = np.empty((part.shape[0], part.shape[2]), dtype=np.int16)
        markov.most_likely_path(part, left, chain.initial, steps, chain.floor, path)
        hidden = (path < 0) if fill else np.isnan(part).any(axis=1)
        for k in range(part.shape[1]):
            out[:, k, start:end] = np.where(hidden, np.float32(np.nan), path == k)

    in_threads(piece, range(0, values.shape[2], PIECE), threads)
    return out
