"""Yearly transition matrices: given by persistence, or estimated by EM from class probabilities of several years."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind
from geococa.errors import InputRefused

__all__ = ["estimate_transitions", "persistence_matrix", "sharpened"]


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


def estimate_transitions(
    probability: xr.DataArray,
    *,
    prior: Sequence[float] | None = None,
    pseudo_count: float = 1.0,
    max_pixels: int = 200_000,
    max_iterations: int = 200,
    tolerance: float = 1e-6,
    floor: float = 1e-6,
    evidence: float = 1.0,
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
    floor, evidence : float
        As in `stabilise`. 1 takes the probabilities at their word.

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
    check_evidence(evidence)
    names = [str(name) for name in probability["land_cover"].values]
    years = years_of(probability)
    if len(years) < 2:
        raise InputRefused("a transition matrix needs at least two years, got one; give transitions= instead")
    sample = np.asarray(systematic_sample(probability, max_pixels).data, np.float32)
    values = _every_year(sample, years)
    if not np.any((~np.isnan(values).any(axis=1)).sum(axis=0) >= 2):
        raise InputRefused(
            "no pixel was observed in two or more years, so no transition was seen; give transitions= instead"
        )
    values, inverse_prior = sharpened(values, inverse_prior_of(prior, names), evidence)
    return _expectation_maximisation(values, inverse_prior, names, pseudo_count, max_iterations, tolerance, floor)


_POWERS = {1.0: 1.0, 1.5: 1.5, 2.0: 1.5, 3.0: 2.0, 4.0: 2.0, 6.0: 3.0}
"""Powers that are tried, and about their square roots."""
_POWER_PIXELS = 4000


def fitting_evidence(probability: xr.DataArray, *, prior: Sequence[float] | None = None, floor: float = 1e-6) -> float:
    """Power of the likelihoods that the agreement of the years of the pixels bears out.

    A classifier is often surer, or less sure, than its hits bear out. With class shares s and likelihoods L, a year tells its class by
    ``L**e / sum(s * L**e)``; of some powers e, the one is taken under which a hidden Markov chain with its own estimated
    matrix gives the years of the pixels the highest likelihood. Those from 1 to 6 are tried, until it falls. Years also agree
    in errors that last, as on mixed pixels, so about the square root of this power is given: on simulated archives, changes have
    then about the probability of being true that they are given. 1 where it is 1.

    Parameters
    ----------
    probability, prior, floor
        As in `estimate_transitions`.
    """
    sample = systematic_sample(probability, _POWER_PIXELS)
    values = np.asarray(sample.data, np.float32).reshape(*sample.shape[:2], -1)
    seen = ~np.isnan(values).any(axis=1)
    used = seen & (seen.sum(axis=0) >= 2)
    factors = inverse_prior_of(prior, [str(name) for name in probability["land_cover"].values])
    best, highest = 1.0, -np.inf
    for power, root in _POWERS.items():
        frame = estimate_transitions(
            sample, prior=prior, floor=floor, evidence=power, max_iterations=40, tolerance=1e-3
        )
        likelihood, left = sharpened(values, factors, power)
        rows = np.maximum(likelihood.transpose(0, 2, 1)[used], np.float32(floor)).astype(np.float64) * left
        fit = frame.attrs["log_likelihood"] - float(np.log(rows @ _shares_of_rows(rows)).sum())
        if fit <= highest:
            break
        best, highest = root, fit
    return best


def _shares_of_rows(rows: np.ndarray, rounds: int = 30) -> np.ndarray:
    """Class shares that make likelihoods (rows, classes) most likely, by EM."""
    shares = np.full(rows.shape[1], 1.0 / rows.shape[1])
    for _ in range(rounds):
        parts = rows * shares
        shares = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def check_evidence(evidence: float) -> None:
    """Refuse a weight of a year's evidence that makes no sense."""
    if not 0.0 < evidence <= 20.0:
        raise InputRefused(f"evidence must be above 0 and at most 20, got {evidence!r}")


def inverse_prior_of(prior: Sequence[float] | None, names: list[str]) -> np.ndarray:
    """Factor that turns the probability of each class into its likelihood."""
    inverse: np.ndarray = 1.0 / (shares_of(prior, names, "prior", positive=True) * len(names))
    return inverse


def sharpened(values: np.ndarray, inverse_prior: np.ndarray, evidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Likelihoods of each year raised to a power, relative to the largest one of the year, which stays 1.

    Parameters
    ----------
    values : numpy.ndarray of float32, shape (years, classes, pixels)
        Probabilities, NaN = not observed; left as they are.
    inverse_prior : numpy.ndarray of float64, shape (classes,)
        Factors that make likelihoods of them.
    evidence : float
        The power; 1 changes nothing.

    Returns
    -------
    values, inverse_prior
        Likelihoods, and the factors that are left to apply.
    """
    if evidence == 1.0:
        return values, inverse_prior
    out = values * inverse_prior.astype(np.float32)[None, :, None]
    out /= np.maximum(out.max(axis=1, keepdims=True), np.float32(1e-30))
    if evidence == 1.5:
        out *= np.sqrt(out)
    elif evidence == int(evidence):
        # products give the same bytes on every processor, which a library's power does not
        _to_power(out, int(evidence))
    else:
        np.power(out, np.float32(evidence), out=out)
    return out, np.ones_like(inverse_prior)


def _to_power(values: np.ndarray, power: int) -> None:
    """Raise values to a whole power in place, by squaring."""
    base = values.copy() if power & (power - 1) else values
    for bit in bin(power)[3:]:
        values *= values
        if bit == "1":
            values *= base


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
    converged, rounds = False, 0
    for _ in range(max_iterations):
        rounds += 1
        pairs = np.full((classes, classes), float(pseudo_count))
        starts = np.full(classes, float(pseudo_count))
        steps = np.repeat(matrix[None], values.shape[0] - 1, axis=0)
        markov.count_transitions(values, inverse_prior, initial, steps, floor, pairs, starts, False)
        updated = pairs / pairs.sum(axis=1, keepdims=True)
        initial = starts / starts.sum()
        converged = bool(np.abs(updated - matrix).max() <= tolerance)
        matrix = updated
        if converged:
            break
    steps = np.repeat(matrix[None], values.shape[0] - 1, axis=0)
    likelihood = markov.count_transitions(
        values, inverse_prior, initial, steps, floor, np.zeros_like(matrix), np.zeros(classes), True
    )
    frame = _frame(matrix, names)
    frame.attrs = {
        "initial": initial.tolist(),
        "pixels": int(values.shape[2]),
        "iterations": rounds,
        "converged": converged,
        "log_likelihood": float(likelihood),
    }
    return frame


def systematic_sample(probability: xr.DataArray, max_pixels: int) -> xr.DataArray:
    """Every n-th row and column of probabilities ``(time, land_cover, y, x)``, the same ones every time."""
    ordered = probability.transpose("time", "land_cover", "y", "x")
    stride = max(1, int(np.ceil(np.sqrt(ordered.sizes["y"] * ordered.sizes["x"] / max_pixels))))
    return ordered.isel(y=slice(stride // 2, None, stride), x=slice(stride // 2, None, stride))


def _every_year(sample: np.ndarray, years: np.ndarray) -> np.ndarray:
    """Probabilities (years, classes, pixels) with NaN for the years that are missing between the first and the last."""
    flat = sample.reshape(sample.shape[0], sample.shape[1], -1)
    out = np.full((int(years[-1] - years[0]) + 1, *flat.shape[1:]), np.nan, dtype=np.float32)
    out[years - years[0]] = flat
    return out


def years_of(probability: xr.DataArray) -> np.ndarray:
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


def matrix_of(transitions: Any, names: list[str]) -> np.ndarray:
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


def shares_of(given: Sequence[float] | None, names: list[str], what: str, *, positive: bool = False) -> np.ndarray:
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
