"""How fast coca comes and goes: rates, what they make of a label until another date, and rates from panels of points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from geococa.errors import AccuracyError, InputRefused

__all__ = ["Hazards", "expected_presence", "hazards_from_change", "hazards_from_panel"]

_DAYS = 365.25


@dataclass(frozen=True)
class Hazards:
    """How fast coca comes and goes.

    Attributes
    ----------
    planting_per_year : float
        Rate at which a hectare without coca is planted, per year.
    clearing_per_year : float
        Rate at which a hectare of coca is given up (without eradication that is accounted for apart), per year.
    planting_se, clearing_se : float
        Their standard errors.
    """

    planting_per_year: float
    clearing_per_year: float
    planting_se: float = 0.0
    clearing_se: float = 0.0

    def __post_init__(self) -> None:
        for name in ("planting_per_year", "clearing_per_year", "planting_se", "clearing_se"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputRefused(f"{name} must be zero or more, got {value}")

    def shifted(self, name: str, step: float) -> Hazards:
        """These rates with one of them moved by a step, not below zero."""
        return replace(self, **{name: max(getattr(self, name) + step, 0.0)})


def hazards_from_change(
    *,
    coca_ha: float,
    other_ha: float,
    new_ha: float,
    cleared_ha: float,
    years: float = 1.0,
    n_coca: int = 0,
    n_other: int = 0,
) -> Hazards:
    """Turn hectares that changed between two dates into rates per year.

    Parameters
    ----------
    coca_ha, other_ha : float
        Hectares with and without coca at the first date.
    new_ha, cleared_ha : float
        Hectares planted and given up by the second date.
    years : float
        Time between the dates.
    n_coca, n_other : int
        Independent samples behind the two shares, for standard errors; 0 = not known.

    Returns
    -------
    Hazards
        Rates of the two-state Markov process in continuous time that changes as much.

    Raises
    ------
    AccuracyError
        More changed than there was, or so much that no rates fit.

    References
    ----------
    Kalbfleisch, J. D. and Lawless, J. F. (1985), The analysis of panel data under a Markov assumption, Journal of the
    American Statistical Association 80, 863-871.

    Examples
    --------
    >>> hazards = hazards_from_change(coca_ha=100, other_ha=10_000, new_ha=100, cleared_ha=20)
    >>> round(hazards.planting_per_year, 4), round(hazards.clearing_per_year, 4)
    (0.0112, 0.2245)
    """
    if not (coca_ha > 0 and other_ha > 0 and 0 <= new_ha <= other_ha and 0 <= cleared_ha <= coca_ha and years > 0):
        raise AccuracyError(
            f"no rates from {new_ha} ha new of {other_ha} and {cleared_ha} ha cleared of {coca_ha} in {years} years"
        )
    up, down = new_ha / other_ha, cleared_ha / coca_ha
    if up + down >= 1:
        raise AccuracyError(
            f"{up:.0%} planted and {down:.0%} cleared add up to all: the dates are too far apart for rates; use nearer ones"
        )
    per_share = -np.log1p(-(up + down)) / ((up + down) * years) if up + down > 0 else 1 / years
    error = [np.sqrt(p * (1 - p) / n) if n else 0.0 for p, n in ((up, n_other), (down, n_coca))]
    return Hazards(*(float(value * per_share) for value in (up, down, *error)))


def expected_presence(present: np.ndarray, years: np.ndarray, hazards: Hazards) -> np.ndarray:
    """Chance that coca stands some years after it was, or was not, seen.

    Parameters
    ----------
    present : numpy.ndarray
        float64, 1 = coca when seen, 0 = none, NaN = not seen (stays NaN).
    years : numpy.ndarray
        float64, years from the observation to the date asked for; negative where the observation is later.
    hazards : Hazards
        Rates per year.

    Returns
    -------
    numpy.ndarray
        float64. For later observations the values may lie outside 0 to 1: they are right on average, not one by one.

    Examples
    --------
    >>> expected_presence(np.array([1.0, 0.0]), np.array([0.5, 0.5]), Hazards(0.01, 0.2)).round(4).tolist()
    [0.9051, 0.0047]
    """
    planting, clearing = hazards.planting_per_year, hazards.clearing_per_year
    speed = planting + clearing
    reach = -np.expm1(-speed * years) / speed if speed > 0 else years
    out: np.ndarray = present + (planting * (1.0 - present) - clearing * present) * reach
    return out


def hazards_from_panel(
    samples: pd.DataFrame,
    *,
    class_name: str = "coca",
    id_column: str | None = None,
    age_column: str | None = None,
    weight: str | None = None,
    cluster: str | None = None,
) -> Hazards:
    """Estimate rates of planting and clearing from points that were looked at more than once.

    Parameters
    ----------
    samples : pandas.DataFrame
        One row a point and year: ``class`` (missing = not seen) and ``year``; and ``stratum``, ``stratum_area_ha`` where points
        stand for unequal areas.
    class_name : str
        Class in question.
    id_column : str, optional
        Column that names the point; ``point`` or ``id`` where not given.
    age_column : str, optional
        Column with the days from the image to 31 December of the year, so that the true time between two looks counts.
    weight : str, optional
        Column with the hectares that a point stands for; ``stratum_area_ha`` over the points of the stratum where not given.
    cluster : str, optional
        Column of groups of points that change together, such as plots; points are independent where not given.

    Returns
    -------
    Hazards
        Rates of the two-state Markov process that makes the changes most likely, with standard errors that hold for weighted
        and clustered points.

    Raises
    ------
    AccuracyError
        No point was seen twice with the class at the first look, or without it; or the rates can't be told.

    References
    ----------
    Kalbfleisch, J. D. and Lawless, J. F. (1985), The analysis of panel data under a Markov assumption, Journal of the American
    Statistical Association 80, 863-871. Binder, D. A. (1983), On the variances of asymptotically normal estimators from complex
    surveys, International Statistical Review 51, 279-292.
    """
    moves = _moves(samples, class_name, id_column, age_column, weight, cluster)
    if not ((moves.before == 1).any() and (moves.before == 0).any()):
        raise AccuracyError(
            f"rates need points seen twice, some with and some without {class_name!r} at first; got {len(moves.before)} pairs "
            "of looks"
        )
    found = _most_likely(moves)
    sums = np.zeros((int(moves.cluster.max()) + 1, 2))
    np.add.at(sums, moves.cluster, _scores(moves, found))
    try:
        inverse = np.linalg.inv(_information(moves, found))
    except np.linalg.LinAlgError:
        raise AccuracyError("the rates can't be told from these points; there are too few changes") from None
    spread = inverse @ (sums.T @ sums) @ inverse * len(sums) / max(len(sums) - 1, 1)
    errors = np.sqrt(np.maximum(np.diag(spread), 0.0))
    return Hazards(float(found[0]), float(found[1]), float(errors[0]), float(errors[1]))


@dataclass(frozen=True)
class _Moves:
    """Pairs of following looks at a point: state (0, 1) before and after, years between, weight, number of the group."""

    before: np.ndarray
    after: np.ndarray
    years: np.ndarray
    weight: np.ndarray
    cluster: np.ndarray


def _moves(
    samples: pd.DataFrame,
    class_name: str,
    id_column: str | None,
    age_column: str | None,
    weight: str | None,
    cluster: str | None,
) -> _Moves:
    name = id_column or next((one for one in ("point", "id") if one in samples.columns), "point")
    given = [one for one in (age_column, weight, cluster) if one]
    missing = [one for one in (name, "year", "class", *given) if one not in samples.columns]
    if missing:
        raise InputRefused(
            f"the samples lack {', '.join(missing)}; a panel has one row a point and year, with its class"
        )
    label = samples["class"]
    seen = (label.notna() & (label != "")).to_numpy(dtype=bool)
    time = samples["year"].to_numpy(dtype=float)
    if age_column:
        time = time - samples[age_column].to_numpy(dtype=float) / _DAYS
    point, _ = pd.factorize(samples[name])
    order = np.lexsort((time, point))
    order = order[seen[order]]
    years = np.diff(time[order])
    good = np.flatnonzero((np.diff(point[order]) == 0) & (years > 0))
    if not len(good):
        raise AccuracyError("no point was seen in two years, so nothing is known of how fast coca comes and goes")
    state = (label == class_name).to_numpy(dtype=bool, na_value=False)[order].astype(float)
    heavy = _hectares(samples, point, weight)[order]
    groups = pd.factorize(samples[cluster])[0][order] if cluster else point[order]
    _, groups = np.unique(groups[good], return_inverse=True)
    return _Moves(state[good], state[good + 1], years[good], heavy[good] / heavy[good].mean(), groups)


def _hectares(samples: pd.DataFrame, point: np.ndarray, weight: str | None) -> np.ndarray:
    """Hectares that a point stands for, as far as they are known."""
    if weight:
        return samples[weight].to_numpy(dtype=float)
    if not {"stratum", "stratum_area_ha"} <= set(samples.columns):
        return np.ones(len(samples))
    stratum, _ = pd.factorize(samples["stratum"])
    home = np.zeros(int(point.max()) + 1, np.int64)
    home[point] = stratum
    out: np.ndarray = samples["stratum_area_ha"].to_numpy(dtype=float) / np.bincount(home)[stratum]
    return out


def _chances(rates: np.ndarray, years: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the way to the balance of planting and clearing, over the sum of the rates, and its derivative by that sum."""
    speed = float(rates.sum())
    if speed <= 0:
        return years, -(years**2) / 2
    reach = -np.expm1(-speed * years) / speed
    return reach, (years * np.exp(-speed * years) - reach) / speed


def _likelihood(moves: _Moves, rates: np.ndarray) -> float:
    reach, _ = _chances(rates, moves.years)
    leave = np.where(moves.before == 1, rates[1], rates[0]) * reach
    chance = np.where(moves.before == moves.after, 1.0 - leave, leave)
    return float(moves.weight @ np.log(np.maximum(chance, 1e-300)))


def _scores(moves: _Moves, rates: np.ndarray) -> np.ndarray:
    """Derivative of each pair's likelihood by the two rates; float64 ``(n, 2)``."""
    reach, slope = _chances(rates, moves.years)
    own = np.where(moves.before == 1, 1, 0)
    rate = rates[own]
    leave = np.maximum(rate * reach, 1e-300)
    by_leave = moves.weight * np.where(moves.before == moves.after, -1.0 / np.maximum(1.0 - leave, 1e-300), 1.0 / leave)
    columns = [by_leave * (np.where(own == k, reach, 0.0) + rate * slope) for k in range(2)]
    return np.stack(columns, axis=1)


def _information(moves: _Moves, rates: np.ndarray) -> np.ndarray:
    """Minus the second derivative of the likelihood; float64 ``(2, 2)``."""
    columns = []
    for k in range(2):
        step = 1e-4 * max(rates[k], 1e-3)
        high, low = rates.copy(), rates.copy()
        high[k], low[k] = rates[k] + step, max(rates[k] - step, 1e-12)
        columns.append(-(_scores(moves, high) - _scores(moves, low)).sum(axis=0) / (high[k] - low[k]))
    found = np.stack(columns, axis=1)
    symmetric: np.ndarray = (found + found.T) / 2
    return symmetric


def _most_likely(moves: _Moves) -> np.ndarray:
    from scipy.optimize import minimize

    changed = moves.before != moves.after
    # a rate without a single change is zero, the edge of what is possible
    free = np.array([(changed & (moves.before == state)).any() for state in (0, 1)])
    rates = np.zeros(2)
    if not free.any():
        return rates
    time = np.array([(moves.weight * moves.years)[moves.before == state].sum() for state in (0, 1)])
    count = np.array([moves.weight[changed & (moves.before == state)].sum() for state in (0, 1)])
    scale = 1.0 / float(moves.weight.sum())

    def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
        tried = rates.copy()
        tried[free] = np.exp(np.clip(logs, -40.0, 6.0))
        return -scale * _likelihood(moves, tried), -scale * (_scores(moves, tried).sum(axis=0) * tried)[free]

    start = np.log((count / time)[free])
    best = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    if np.exp(np.clip(best.x, -40.0, 6.0)).max() > 50:
        raise AccuracyError(
            "the rates can't be told from these points: between two looks as good as everything changes"
        )
    rates[free] = np.exp(best.x)
    return rates
