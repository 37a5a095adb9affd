"""Random fields that are a function of place: the same point gets the same value in every window, tile and CRS.

Values come from a hash of integer lattice coordinates, so nothing has to be stored for a large landscape and
overlapping tiles agree where they overlap.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["fractal_field", "generator", "hashed_normal", "hashed_uniform", "lattice_field", "stream"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_TURN = 0.618  # radians between octaves, so that their lattices do not line up


def stream(seed: int, *keys: int | str) -> int:
    """Derive a 64-bit stream number from a seed and any number of keys (independent of Python's string hash)."""
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) & 0xFFFFFFFF for key in keys]
    # the number of keys comes first, since trailing zeros of the entropy do not count
    entropy = [len(words) + 1, int(seed) & 0xFFFFFFFF, int(seed) >> 32 & 0xFFFFFFFF, *words]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def generator(seed: int, *keys: int | str) -> np.random.Generator:
    """Return a generator for one purpose, named by its keys."""
    return np.random.default_rng(stream(seed, *keys))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64: every input bit moves every output bit."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_A
    state = (state ^ (state >> np.uint64(27))) * _MIX_B
    return state ^ (state >> np.uint64(31))


def hashed_uniform(column: NDArray[np.int64], row: NDArray[np.int64], key: int) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), one for each pair of integers.

    Parameters
    ----------
    column, row : numpy.ndarray of int64
        Lattice coordinates, any (broadcastable) shape.
    key : int
        Stream number, see `stream`.

    References
    ----------
    Steele, G. L., Lea, D., Flood, C. H. (2014). Fast splittable pseudorandom number generators. OOPSLA.
    """
    column, row = np.broadcast_arrays(np.atleast_1d(column), np.atleast_1d(row))
    start = np.full(column.shape, np.uint64(key & 0xFFFFFFFFFFFFFFFF))
    state = _mix(start + column.astype(np.int64).view(np.uint64) * _GOLDEN)
    state = _mix(state + row.astype(np.int64).view(np.uint64) * _MIX_B)
    # 52 bits, centred in their interval, so that neither 0 nor 1 comes out
    return ((state >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def hashed_normal(column: NDArray[np.int64], row: NDArray[np.int64], key: int) -> NDArray[np.float64]:
    """Standard normal numbers, one for each pair of integers."""
    from scipy.special import ndtri

    values: NDArray[np.float64] = ndtri(hashed_uniform(column, row, key))
    return values


def lattice_field(
    x: NDArray[np.float64], y: NDArray[np.float64], scale_m: float, key: int, *, angle: float = 0.0
) -> NDArray[np.float64]:
    """Smooth random field with mean 0 and variance 1, correlated over about ``scale_m``.

    Normal numbers on a lattice are interpolated with smooth weights and divided by the root of the sum of
    squared weights, which makes the variance 1 everywhere.

    Parameters
    ----------
    x, y : numpy.ndarray of float64
        Coordinates in metres, same shape.
    scale_m : float
        Lattice spacing in metres.
    key : int
        Stream number.
    angle : float
        Rotation of the lattice in radians.
    """
    u = (np.cos(angle) * x - np.sin(angle) * y) / scale_m
    v = (np.sin(angle) * x + np.cos(angle) * y) / scale_m
    left, low = np.floor(u), np.floor(v)
    a, b = (part * part * (3.0 - 2.0 * part) for part in (u - left, v - low))
    column, row = left.astype(np.int64), low.astype(np.int64)
    total = np.zeros(np.shape(u))
    power = np.zeros(np.shape(u))
    for i, wx in ((0, 1.0 - a), (1, a)):
        for j, wy in ((0, 1.0 - b), (1, b)):
            total += wx * wy * hashed_normal(column + i, row + j, key).reshape(total.shape)
            power += (wx * wy) ** 2
    return np.asarray(total / np.sqrt(power))


def fractal_field(
    x: NDArray[np.float64], y: NDArray[np.float64], scales_m: Sequence[float], key: int, *, decay: float = 0.6
) -> NDArray[np.float64]:
    """Sum of `lattice_field` over several scales, each ``decay`` times the one before, with variance 1."""
    total = np.zeros(np.shape(x))
    power = 0.0
    for octave, scale_m in enumerate(scales_m):
        weight = decay**octave
        total += weight * lattice_field(x, y, scale_m, stream(key, octave), angle=0.3 + _TURN * octave)
        power += weight**2
    return np.asarray(total / np.sqrt(power))
