"""Years inform each other: a hidden Markov chain over the yearly classes of every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused

__all__ = ["estimate_transitions", "persistence_matrix", "stabilise"]

_PIECE = 1 << 16
"""Pixels worked on at a time."""


def persistence_matrix(classes: Sequence[str], persistence: float | Mapping[str, float] = 0.9) -> pd.DataFrame:
    """Transition matrix in which a class stays with a given probability and changes to any other alike.

    Parameters
    ----------
    classes : sequence of str
        Class names.
    persistence : float or mapping of str to float
        Probability of staying from one year to the next, for all classes or by class (0.9 for those left out).

    Returns
    -------
    pandas.DataFrame
        Probabilities, index ``from`` and columns ``to``; rows sum to 1.

    Raises
    ------
    InputRefused
        A probability is not in 0..1, or belongs to an unknown class.

    Examples
    --------
    >>> persistence_matrix(["coca", "forest", "pasture"], 0.8).loc["coca"].round(6).tolist()
    [0.8, 0.1, 0.1]
    """
    names = [str(name) for name in classes]
    given = dict(persistence) if isinstance(persistence, Mapping) else dict.fromkeys(names, float(persistence))
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise InputRefused(f"persistence names {unknown}, but the classes are {', '.join(names)}")
    stay = np.array([given.get(name, 0.9) for name in names], dtype=np.float64)
    if not np.all((stay >= 0) & (stay <= 1)):
        raise InputRefused(f"a probability of staying must lie in 0..1, got {given}")
    if len(names) == 1:
        stay[:] = 1.0
    matrix = np.repeat(((1.0 - stay) / max(len(names) - 1, 1))[:, None], len(names), axis=1)
    np.fill_diagonal(matrix, stay)
    return _frame(matrix, names)


def stabilise(
    probability: xr.DataArray,
    *,
    transitions: pd.DataFrame | np.ndarray | Literal["estimate"] | None = None,
    method: Literal["posterior", "viterbi"] = "posterior",
    persistence: float | Mapping[str, float] = 0.9,
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
        `estimate_transitions`), so a run in blocks should estimate once and give the matrix. None:
        `persistence_matrix` with ``persistence``, which depends on no data.
    method : {"posterior", "viterbi"}
        ``"posterior"``: probability of each class given all years (forward-backward). ``"viterbi"``: 1 for the classes
        of the most likely path and 0 for the others.
    persistence : float or mapping
        For ``transitions=None``: probability that a class stays from one year to the next.
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
        times are honoured: two years apart means two steps of the chain. Dask in gives Dask out (except for ``"estimate"``).

    Raises
    ------
    InputRefused
        The matrix does not fit the classes or is not one of probabilities, times do not rise year by year, or a
        parameter is out of range.

    References
    ----------
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
    years = _years_of(probability)
    if isinstance(transitions, str):
        if transitions != "estimate":
            raise InputRefused(f"transitions must be a matrix, 'estimate' or None, got {transitions!r}")
        transitions = estimate_transitions(probability, prior=prior, floor=floor)
        initial = transitions.attrs["initial"] if initial is None else initial
    matrix = _matrix(persistence_matrix(names, persistence) if transitions is None else transitions, names)
    start = _shares(initial, names, "initial")
    inverse_prior = 1.0 / (_shares(prior, names, "prior", positive=True) * len(names))
    if len(years) < 2:
        return probability.astype(np.float32)
    steps = np.stack([np.linalg.matrix_power(matrix, int(gap)) for gap in np.diff(years)])
    ordered = probability.transpose("time", "land_cover", "y", "x")

    def chain(block: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(block, dtype=np.float32).reshape(block.shape[0], block.shape[1], -1)
        return _chain(values, inverse_prior, start, steps, floor, method, fill, threads).reshape(block.shape)

    if is_lazy(ordered):
        data = ordered.data.rechunk({0: -1, 1: -1})
        result = data.map_blocks(chain, dtype=np.float32, meta=np.empty((0, 0, 0, 0), np.float32))
    else:
        result = chain(np.asarray(ordered.data))
    return ordered.copy(data=result).transpose(*probability.dims)


def estimate_transitions(
    probability: xr.DataArray,
    *,
    prior: Sequence[float] | None = None,
    pseudo_count: float = 1.0,
    max_pixels: int = 200_000,
    max_iterations: int = 200,
    tolerance: float = 1e-6,
    floor: float = 1e-6,
) -> pd.DataFrame:
    """Estimate the yearly transition matrix from class probabilities by EM.

    Parameters
    ----------
    probability : xarray.DataArray
        float32 ``(time, land_cover, y, x)``, one time a year; NaN = not observed. Years that are missing between the
        first and the last count as unobserved.
    prior : sequence of float, optional
        As in `stabilise`.
    pseudo_count : float
        Transitions added to each pair of classes, so that rows of rare classes stay defined.
    max_pixels : int
        On larger arrays every n-th row and column is used, the same ones every time.
    max_iterations : int
        Most rounds of EM.
    tolerance : float
        EM ends when no probability of the matrix changes by more than this.
    floor : float
        As in `stabilise`.

    Returns
    -------
    pandas.DataFrame
        Transition probabilities, index ``from``, columns ``to``. ``attrs``: ``initial`` (class shares of the first
        year), ``pixels``, ``iterations``, ``converged`` and ``log_likelihood``.

    Raises
    ------
    InputRefused
        There are fewer than two years, or no pixel was observed in two.

    References
    ----------
    Baum, L. E., Petrie, T., Soules, G., & Weiss, N. (1970). A maximization technique occurring in the statistical
    analysis of probabilistic functions of Markov chains. The Annals of Mathematical Statistics 41(1), 164-171.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> forest = np.full((4, 30, 30), 0.98, dtype="float32")
    >>> forest[2:, :3] = 0.02
    >>> probability = xr.DataArray(np.stack([1 - forest, forest], axis=1), dims=("time", "land_cover", "y", "x"),
    ...                            coords={"land_cover": ["coca", "forest"]})
    >>> matrix = estimate_transitions(probability)
    >>> bool(0.01 < matrix.loc["forest", "coca"] < 0.06)
    True
    """
    check_kind(probability, "probability")
    check_dims(probability, "time", "land_cover", "y", "x")
    names = [str(name) for name in probability["land_cover"].values]
    years = _years_of(probability)
    if len(years) < 2:
        raise InputRefused("a transition matrix needs at least two years, got one; give transitions= instead")
    values = _yearly_sample(probability, years, max_pixels)
    if not np.any((~np.isnan(values).any(axis=1)).sum(axis=0) >= 2):
        raise InputRefused(
            "no pixel was observed in two or more years, so no transition was seen; give transitions= instead"
        )
    inverse_prior = 1.0 / (_shares(prior, names, "prior", positive=True) * len(names))
    return _expectation_maximisation(values, inverse_prior, names, pseudo_count, max_iterations, tolerance, floor)


def _expectation_maximisation(
    values: np.ndarray,
    inverse_prior: np.ndarray,
    names: list[str],
    pseudo_count: float,
    max_iterations: int,
    tolerance: float,
    floor: float,
) -> pd.DataFrame:
    """EM on probabilities (years, classes, pixels) that are one year apart."""
    from geococa._kernels import markov

    classes = len(names)
    matrix = persistence_matrix(names, 0.9).to_numpy()
    initial = np.full(classes, 1.0 / classes)
    converged, likelihood, rounds = False, 0.0, 0
    for _ in range(max_iterations):
        rounds += 1
        pairs = np.full((classes, classes), float(pseudo_count))
        starts = np.full(classes, float(pseudo_count))
        steps = np.repeat(matrix[None], values.shape[0] - 1, axis=0)
        likelihood = markov.count_transitions(values, inverse_prior, initial, steps, floor, pairs, starts)
        updated = pairs / pairs.sum(axis=1, keepdims=True)
        initial = starts / starts.sum()
        converged = bool(np.abs(updated - matrix).max() <= tolerance)
        matrix = updated
        if converged:
            break
    frame = _frame(matrix, names)
    frame.attrs = {
        "initial": initial.tolist(),
        "pixels": int(values.shape[2]),
        "iterations": rounds,
        "converged": converged,
        "log_likelihood": float(likelihood),
    }
    return frame


def _yearly_sample(probability: xr.DataArray, years: np.ndarray, max_pixels: int) -> np.ndarray:
    """Probabilities of a systematic sample of pixels, (years, classes, pixels), with NaN for years that are missing."""
    ordered = probability.transpose("time", "land_cover", "y", "x")
    stride = max(1, int(np.ceil(np.sqrt(ordered.sizes["y"] * ordered.sizes["x"] / max_pixels))))
    sample = np.asarray(
        ordered.isel(y=slice(stride // 2, None, stride), x=slice(stride // 2, None, stride)).data, np.float32
    )
    flat = sample.reshape(sample.shape[0], sample.shape[1], -1)
    out = np.full((int(years[-1] - years[0]) + 1, *flat.shape[1:]), np.nan, dtype=np.float32)
    out[years - years[0]] = flat
    return out


def _chain(
    values: np.ndarray,
    inverse_prior: np.ndarray,
    initial: np.ndarray,
    steps: np.ndarray,
    floor: float,
    method: str,
    fill: bool,
    threads: int,
) -> np.ndarray:
    """Run the kernel of a method on probabilities (years, classes, pixels), a piece of pixels at a time."""
    from geococa._kernels import markov

    out = np.empty_like(values)

    def piece(start: int) -> None:
        part = np.ascontiguousarray(values[:, :, start : start + _PIECE])
        result = np.empty_like(part)
        if method == "posterior":
            markov.smooth_years(part, inverse_prior, initial, steps, floor, fill, result)
        else:
            path = np.empty((part.shape[0], part.shape[2]), dtype=np.int16)
            markov.most_likely_path(part, inverse_prior, initial, steps, floor, path)
            for k in range(part.shape[1]):
                result[:, k] = path == k
            hidden = (path < 0) if fill else np.isnan(part).any(axis=1)
            result[np.broadcast_to(hidden[:, None, :], result.shape)] = np.nan
        out[:, :, start : start + _PIECE] = result

    starts = range(0, values.shape[2], _PIECE)
    if threads > 1 and len(starts) > 1:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(piece, starts))
    else:
        for start in starts:
            piece(start)
    return out


def _years_of(probability: xr.DataArray) -> np.ndarray:
    """Years of the times as integers; 0, 1, 2, ... for an array without time coordinate."""
    if "time" not in probability.dims:
        return np.zeros(1, dtype=np.int64)
    if "time" not in probability.coords:
        return np.arange(probability.sizes["time"], dtype=np.int64)
    times = probability["time"]
    years = times.dt.year.values if np.issubdtype(times.dtype, np.datetime64) else times.values
    years = np.asarray(years).astype(np.int64)
    if np.any(np.diff(years) < 1):
        raise InputRefused(
            f"stabilise needs one time a year in rising order, got the years {years.tolist()}; make yearly "
            "composites with geococa.composite(..., period='year') or sort by time"
        )
    return years


def _matrix(transitions: Any, names: list[str]) -> np.ndarray:
    """Transition matrix in the order of the classes, checked."""
    if isinstance(transitions, pd.DataFrame):
        rows, columns = [str(name) for name in transitions.index], [str(name) for name in transitions.columns]
        missing = [name for name in names if name not in rows or name not in columns]
        if missing:
            raise InputRefused(f"the transition matrix lacks {missing}; it has {', '.join(rows)}")
        frame = transitions.set_axis(rows, axis=0).set_axis(columns, axis=1)
        transitions = frame.loc[names, names].to_numpy()
    matrix = np.asarray(transitions, dtype=np.float64)
    if matrix.shape != (len(names), len(names)):
        raise InputRefused(
            f"the transition matrix is {matrix.shape}, but there are {len(names)} classes: {', '.join(names)}"
        )
    totals = matrix.sum(axis=1)
    if not np.all(np.isfinite(matrix)) or matrix.min() < 0 or np.abs(totals - 1.0).max() > 1e-6:
        raise InputRefused(
            "a transition matrix holds probabilities whose rows sum to 1, got row sums "
            f"{np.round(totals, 6).tolist()}; rows are the class of a year, columns that of the next"
        )
    return matrix / totals[:, None]


def _shares(given: Sequence[float] | None, names: list[str], what: str, *, positive: bool = False) -> np.ndarray:
    """Class shares that sum to 1; equal where not given."""
    if given is None:
        return np.full(len(names), 1.0 / len(names))
    shares = np.asarray(given, dtype=np.float64)
    if (
        shares.shape != (len(names),)
        or not np.all(np.isfinite(shares))
        or shares.min() < 0
        or shares.sum() <= 0
        or (positive and shares.min() == 0)
    ):
        raise InputRefused(
            f"{what} needs one {'positive' if positive else 'non-negative'} share for each of the "
            f"{len(names)} classes, got {given!r}"
        )
    return shares / shares.sum()


def _frame(matrix: np.ndarray, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(matrix, index=pd.Index(names, name="from"), columns=pd.Index(names, name="to"))
