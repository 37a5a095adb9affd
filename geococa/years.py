"""Years inform each other: a hidden Markov chain over the yearly classes of every pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused
from geococa.year_transitions import (
    check_evidence,
    estimate_transitions,
    inverse_prior_of,
    matrix_of,
    persistence_matrix,
    shares_of,
    sharpened,
    systematic_sample,
    years_of,
)

__all__ = ["EVIDENCE", "estimate_transitions", "persistence_matrix", "stabilise"]

_PIECE = 1 << 16
"""Pixels worked on at a time."""
_TINY = 1e-15
_SAMPLED_PIXELS = 40_000
EVIDENCE = 4.0
"""Weight of a year beside an estimated matrix; benchmarks/stabilise.py compares others."""
_FEWEST_STEPS = 50
"""Steps from an observed year to the next for each pair of classes that an estimate needs."""
_Chain = tuple[np.ndarray, np.ndarray, float]
"""Transition matrix, class shares before the first year, and the weight of a year's evidence."""


def stabilise(
    probability: xr.DataArray,
    *,
    transitions: pd.DataFrame | np.ndarray | Literal["estimate"] | None = None,
    method: Literal["posterior", "viterbi"] = "posterior",
    persistence: float | Mapping[str, float] | None = None,
    evidence: float | None = None,
    initial: Sequence[float] | None = None,
    prior: Sequence[float] | None = None,
    fill: bool = False,
    floor: float = 1e-6,
    threads: int = 1,
) -> xr.DataArray:
    """Let the years of each pixel inform each other with a hidden Markov model.

    Parameters
    ----------
    probability : xarray.DataArray
        float32 ``(time, land_cover, y, x)``, one time a year in rising order; NaN = not observed that year.
    transitions : pandas.DataFrame, numpy.ndarray, "estimate" or None
        Probability of going from a class (row) to a class (column) within a year. A DataFrame is matched by class
        name; an array follows the order of the classes. ``"estimate"`` finds the matrix by EM on this very array (see
        `estimate_transitions`), so a run in blocks should estimate once and give the matrix. None: the same, or where
        ``persistence`` is given, or there is too little to estimate from (fewer than 50 observed steps from year to year for
        each pair of classes), `persistence_matrix`, which depends on no data.
    method : {"posterior", "viterbi"}
        ``"posterior"``: probability of each class given all years (forward-backward). ``"viterbi"``: 1 for the classes
        of the most likely path and 0 for the others.
    persistence : float or mapping, optional
        Probability that a class stays from one year to the next, instead of an estimated matrix.
    evidence : float, optional
        Weight of what a year shows against what the years beside it say: likelihoods are raised to this power. 1 takes
        them at their word, as for any hidden Markov chain; more keeps more of the change, true and false. 4 where the
        matrix is estimated, 1 where it is given.
    initial : sequence of float, optional
        Class shares before the first year is seen; equal where not given (estimated with ``"estimate"``).
    prior : sequence of float, optional
        Class shares that the classifier was trained with, where these differ from equal shares: probabilities are
        divided by them to become likelihoods.
    fill : bool
        Also give the years in which a pixel was not observed, from its other years. By default they stay NaN, so
        that unobserved hectares stay apart.
    floor : float
        Probabilities below this count as this, so that no single year can rule a class out.
    threads : int
        Threads over pieces of the array. Results do not depend on it.

    Returns
    -------
    xarray.DataArray
        float32 probabilities with the dims of the input. A single year passes through unchanged. Gaps between the
        times are honoured: two years apart means two steps of the chain. Dask in gives Dask out; a matrix to estimate is then
        estimated when the result is computed.

    Raises
    ------
    InputRefused
        The matrix does not fit the classes or is not one of probabilities, times do not rise year by year, or a
        parameter is out of range.

    Notes
    -----
    A chain that takes probabilities at their word gives the most accurate map, but a rare change has a small prior
    probability and is lost. On simulated archives of 8 years under 40 to 70 % of cloud, of the coca changes that labels
    of each year by itself find, an equal persistence of 0.9 keeps 56 %, an estimated matrix 66 %, and an estimated matrix
    with likelihoods to the fourth power 100 % (95 % or more in every archive), while 66 % of the false changes still go.
    Of the very same changes it keeps 83 %: others come in their place. Changes are counted between the years in which a
    pixel was observed, so that one under cloud falls on the next clear year in truth and map alike.
    ``benchmarks/results/stabilise.json`` has the whole curve. Probabilities are scores with that power, and too sure.

    References
    ----------
    Grünwald, P., & van Ommen, T. (2017). Inconsistency of Bayesian inference for misspecified linear models, and a
    proposal for repairing it. Bayesian Analysis 12(4), 1069-1103. (likelihoods to a power)

    Rabiner, L. R. (1989). A tutorial on hidden Markov models and selected applications in speech recognition.
    Proceedings of the IEEE 77(2), 257-286.

    Abercrombie, S. P., & Friedl, M. A. (2016). Improving the consistency of multitemporal land cover maps using a hidden
    Markov model. IEEE Transactions on Geoscience and Remote Sensing 54(2), 703-713.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> forest = np.array([0.9, 0.9, 0.4, 0.9, 0.9], dtype="float32")
    >>> values = np.stack([1 - forest, forest], axis=1)[:, :, None, None]
    >>> years = np.array([f"{year}-12-31" for year in range(2018, 2023)], dtype="datetime64[ns]")
    >>> probability = xr.DataArray(values, dims=("time", "land_cover", "y", "x"),
    ...                            coords={"time": years, "land_cover": ["coca", "forest"]})
    >>> bool((stabilise(probability).sel(land_cover="forest") > 0.5).all())
    True
    """
    check_kind(probability, "probability")
    check_dims(probability, "land_cover", "y", "x", optional=("time",))
    if method not in ("posterior", "viterbi"):
        raise InputRefused(f"method must be 'posterior' or 'viterbi', got {method!r}")
    if not 0.0 < floor < 0.5:
        raise InputRefused(f"floor must be above 0 and below 0.5, got {floor!r}")
    names = [str(name) for name in probability["land_cover"].values]
    years = years_of(probability)
    if isinstance(transitions, str) and transitions != "estimate":
        raise InputRefused(f"transitions must be a matrix, 'estimate' or None, got {transitions!r}")
    unknown = isinstance(transitions, str) or (transitions is None and persistence is None)
    weight = (EVIDENCE if unknown else 1.0) if evidence is None else float(evidence)
    check_evidence(weight)
    start = None if initial is None else shares_of(initial, names, "initial")
    inverse_prior = inverse_prior_of(prior, names)
    given = (
        persistence_matrix(names, 0.9 if persistence is None else persistence) if transitions is None else transitions
    )
    fixed = None if unknown else (matrix_of(given, names), shares_of(None, names, "initial"), weight)
    if len(years) < 2:
        return probability.astype(np.float32)
    ordered = probability.transpose("time", "land_cover", "y", "x")

    def estimate(sample: np.ndarray) -> _Chain:
        array = xr.DataArray(sample, dims=ordered.dims, coords={"time": years, "land_cover": names})
        seen = ~np.isnan(sample).any(axis=1)
        if transitions is None and (seen[1:] & seen[:-1]).sum() < _FEWEST_STEPS * len(names) ** 2:
            plain = 1.0 if evidence is None else weight
            return persistence_matrix(names, 0.9).to_numpy(), shares_of(None, names, "initial"), plain
        frame = estimate_transitions(array, prior=prior, floor=floor, evidence=weight)
        return frame.to_numpy(), np.asarray(frame.attrs["initial"]), weight

    def chain(block: np.ndarray, found: _Chain) -> np.ndarray:
        steps = np.stack([np.linalg.matrix_power(found[0], int(gap)) for gap in np.diff(years)])
        values = np.ascontiguousarray(block, dtype=np.float32).reshape(block.shape[0], block.shape[1], -1)
        first = found[1] if start is None else start
        return _chain(values, inverse_prior, first, steps, floor, method, fill, found[2], threads).reshape(block.shape)

    return _over_blocks(ordered, fixed, estimate, chain).transpose(*probability.dims)


def _over_blocks(
    ordered: xr.DataArray,
    given: _Chain | None,
    estimate: Callable[[np.ndarray], _Chain],
    chain: Callable[[np.ndarray, _Chain], np.ndarray],
) -> xr.DataArray:
    """Run the chain over an array, eager or lazy, with a matrix that is given or estimated on a sample of the array."""
    sample = systematic_sample(ordered, _SAMPLED_PIXELS).data if given is None else None
    if not is_lazy(ordered):
        found = estimate(np.asarray(sample, np.float32)) if given is None else given
        return ordered.copy(data=chain(np.asarray(ordered.data), found))
    import dask

    data = ordered.data.rechunk({0: -1, 1: -1})
    later = dask.delayed(estimate)(sample) if given is None else given
    result = data.map_blocks(chain, later, dtype=np.float32, meta=np.empty((0, 0, 0, 0), np.float32))
    return ordered.copy(data=result)


def _chain(
    values: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    steps: np.ndarray,
    floor: float,
    method: str,
    fill: bool,
    evidence: float,
    threads: int,
) -> np.ndarray:
    """Run the kernel of a method on probabilities (years, classes, pixels), a piece of pixels at a time."""
    from geococa._kernels import markov

    out = np.empty_like(values)
    # products of a year then stay far from the ends of single precision, which is twice as fast
    single = steps.min() * floor > _TINY and initial.min() > _TINY and inverse_prior.max() < 1 / _TINY
    dtype: Any = np.float32 if single else np.float64
    prior, first, matrices = (part.astype(dtype) for part in (inverse_prior, initial, steps))
    least = dtype(floor)

    def piece(start: int) -> None:
        end = min(start + _PIECE, values.shape[2])
        if method == "posterior" and evidence == 1.0:
            markov.smooth_years(values, prior, first, matrices, least, fill, start, end, out)
            return
        likelihood, left = sharpened(values[:, :, start:end], inverse_prior, evidence)
        part = np.ascontiguousarray(likelihood)
        if method == "posterior":
            settled = np.empty_like(part)
            markov.smooth_years(part, left.astype(dtype), first, matrices, least, fill, 0, end - start, settled)
            out[:, :, start:end] = settled
            return
        path = np.empty((part.shape[0], part.shape[2]), dtype=np.int16)
        markov.most_likely_path(part, left, initial, steps, floor, path)
        hidden = (path < 0) if fill else np.isnan(part).any(axis=1)
        for k in range(part.shape[1]):
            out[:, k, start:end] = np.where(hidden, np.float32(np.nan), path == k)

    starts = range(0, values.shape[2], _PIECE)
    if threads > 1 and len(starts) > 1:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(piece, starts))
    else:
        for start in starts:
            piece(start)
    return out
