"""Change that lasts, estimated with the share of labels that flicker: a two-state hidden Markov model of label series."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind
from geococa.coverage import Coverage, check_grid
from geococa.errors import InputRefused
from geococa.legend import NO_DATA, Legend
from geococa.zone_blocks import closing_factor, map_years, zone_blocks

__all__ = ["sustained_change"]


@dataclass
class _Rates:
    """Rates of label error and of true change between consecutive years, equal for all years."""

    false_presence: float = 0.05
    false_absence: float = 0.05
    gain: float = 0.02
    loss: float = 0.02
    first: float = 0.5

    def values(self) -> np.ndarray:
        return np.array([self.false_presence, self.false_absence, self.gain, self.loss, self.first])


def sustained_change(
    land_cover: xr.DataArray,
    share: Coverage,
    *,
    class_name: str = "coca",
    max_iterations: int = 2000,
    tolerance: float = 1e-9,
) -> xr.Dataset:
    """Estimate the hectares of a class truly gained and lost each year, with flicker taken off.

    Two-epoch differences count every label error as change. Here each pixel's series of labels is taken as a two-state
    chain (class present or not) seen through labels that are wrong at some rate. Rates of error and of change are estimated together
    from all series of all zones by EM; the expected true changes are then added up per zone and year.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(time, y, x)`` with CF flags, one time a year, at least 4; 255 = not observed. Labels of each year by itself: a series
        that was stabilised before has no flicker left to measure.
    share : Coverage
        From `geococa.coverage_fraction` on the same grid.
    class_name : str
        The class.
    max_iterations, tolerance
        When EM ends.

    Returns
    -------
    xarray.Dataset
        ``gain_ha``, ``loss_ha`` (estimates), ``raw_gain_ha``, ``raw_loss_ha`` (two-epoch differences on the common support),
        ``flicker_share`` (share of the raw change that the estimate does not bear out, 0 at least), ``present_ha`` (estimate at the later time),
        ``unobserved_ha`` ``(time, zone)``; ``observed_years (zone)``. ``gain_ha`` and ``loss_ha`` cover pixels observed in any year,
        so a change in an unobserved year is placed by probability. Attributes: the estimated rates.

    Raises
    ------
    InputRefused
        There are fewer than four times, or times are not yearly.

    Notes
    -----
    Errors are taken as independent from year to year. Errors that repeat (the same confusion every year) look like true cover, and plots that
    come and go in single years look like flicker.

    References
    ----------
    Rabiner, L. R. (1989). A tutorial on hidden Markov models and selected applications in speech recognition.
    Proceedings of the IEEE 77(2), 257-286.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=range(2018, 2024), unobserved=0.0)
    >>> import geopandas, shapely
    >>> grid = coca.Grid.from_xarray(land_cover)
    >>> park = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[shapely.box(*grid.bounds)], crs=grid.crs)
    >>> share = coca.coverage_fraction(park, grid)
    >>> sorted(coca.sustained_change(land_cover, share).data_vars)
    ['flicker_share', 'gain_ha', 'loss_ha', 'observed_years', 'present_ha', 'raw_gain_ha', 'raw_loss_ha', 'unobserved_ha']
    """
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "time", "y", "x")
    check_grid(land_cover, share, "land_cover")
    maps = land_cover.transpose("time", "y", "x")
    years = map_years(maps)
    if len(years) < 4 or len(years) > 39 or any(b - a != 1 for a, b in pairwise(years)):
        raise InputRefused(
            f"sustained change needs 4 to 39 consecutive years, got {years}; below 4 flicker can't be told from change"
        )
    code = Legend.from_attrs(land_cover.attrs).code(class_name)
    patterns, hectares, total = _patterns(maps, share, code)
    rates, iterations = _estimate(patterns, hectares.sum(axis=0), max_iterations, tolerance)
    _, _, posterior, pairs = _expect(patterns, rates)
    ever = ((patterns >= 0).sum(axis=1) > 0).astype(np.float64)
    factor = closing_factor(share, total)
    gain = hectares @ (pairs[:, :, 0, 1] * ever[:, None])
    loss = hectares @ (pairs[:, :, 1, 0] * ever[:, None])
    present = hectares @ (posterior[:, 1:, 1] * ever[:, None])
    both = (patterns[:, 1:] >= 0) & (patterns[:, :-1] >= 0)
    raw_gain = hectares @ (both & (patterns[:, 1:] == 1) & (patterns[:, :-1] == 0)).astype(np.float64)
    raw_loss = hectares @ (both & (patterns[:, 1:] == 0) & (patterns[:, :-1] == 1)).astype(np.float64)
    raw = raw_gain + raw_loss
    flicker = np.divide(raw - gain - loss, raw, out=np.full_like(raw, np.nan), where=raw > 0).clip(0.0)
    closed = {
        "gain_ha": gain,
        "loss_ha": loss,
        "raw_gain_ha": raw_gain,
        "raw_loss_ha": raw_loss,
        "present_ha": present,
        "unobserved_ha": hectares @ (~both).astype(np.float64),
    }
    out = xr.Dataset(
        {name: (("time", "zone"), (values * factor[:, None]).T, {"units": "ha"}) for name, values in closed.items()},
        coords={"zone": share.zone_names},
        attrs={
            "kind": "sustained_change",
            "class": class_name,
            "false_presence_rate": rates.false_presence,
            "false_absence_rate": rates.false_absence,
            "gain_rate": rates.gain,
            "loss_rate": rates.loss,
            "iterations": iterations,
        },
    )
    out["flicker_share"] = (("time", "zone"), flicker.T, {"units": "1"})
    seen = hectares @ (patterns >= 0).sum(axis=1)
    out["observed_years"] = (
        "zone",
        np.divide(seen, total, out=np.full_like(total, np.nan), where=total > 0),
        {"units": "1"},
    )
    return out.assign_coords(time=maps["time"].values[1:]) if "time" in maps.coords else out


def _patterns(maps: xr.DataArray, share: Coverage, code: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct series (0, 1, or -1 for not observed), the hectares of each in every zone, and each zone's hectares."""
    times, zones = maps.sizes["time"], len(share.zones)
    power = 3 ** np.arange(times, dtype=np.int64)
    keys: list[np.ndarray] = []
    sums: list[tuple[int, np.ndarray]] = []
    for zone, codes, weights, _ in zone_blocks(maps, share):
        digits = np.where(codes == NO_DATA, 2, (codes == code).astype(np.int64))
        key, inverse = np.unique(power @ digits, return_inverse=True)
        keys.append(key)
        sums.append((zone, np.bincount(inverse, weights, minlength=key.size)))
    distinct = np.unique(np.concatenate(keys)) if keys else np.empty(0, dtype=np.int64)
    hectares = np.zeros((zones, distinct.size))
    for key, (zone, values) in zip(keys, sums, strict=True):
        hectares[zone, np.searchsorted(distinct, key)] += values
    digits = (distinct[:, None] // power[None, :]) % 3
    return np.where(digits == 2, -1, digits), hectares, hectares.sum(axis=1)


def _expect(patterns: np.ndarray, rates: _Rates) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """E-step: likelihood of what was seen (patterns, years, 2), step matrix, posteriors, and pair posteriors."""
    emission = np.ones((*patterns.shape, 2))
    shown = np.array([[1 - rates.false_presence, rates.false_absence], [rates.false_presence, 1 - rates.false_absence]])
    emission[patterns == 0], emission[patterns == 1] = shown[0], shown[1]
    step = np.array([[1 - rates.gain, rates.gain], [rates.loss, 1 - rates.loss]])
    years = patterns.shape[1]
    alpha, beta = np.empty_like(emission), np.ones_like(emission)
    for t in range(years):
        ahead = np.array([1 - rates.first, rates.first])[None, :] if t == 0 else alpha[:, t - 1] @ step
        alpha[:, t] = ahead * emission[:, t]
        alpha[:, t] /= alpha[:, t].sum(axis=1, keepdims=True)
    pairs = np.empty((patterns.shape[0], years - 1, 2, 2))
    for t in range(years - 2, -1, -1):
        carried = emission[:, t + 1] * beta[:, t + 1]
        pairs[:, t] = alpha[:, t, :, None] * step[None] * carried[:, None, :]
        pairs[:, t] /= pairs[:, t].sum(axis=(1, 2), keepdims=True)
        beta[:, t] = carried @ step.T
        beta[:, t] /= beta[:, t].sum(axis=1, keepdims=True)
    posterior = alpha * beta
    posterior /= posterior.sum(axis=2, keepdims=True)
    return emission, step, posterior, pairs


def _estimate(patterns: np.ndarray, hectares: np.ndarray, max_iterations: int, tolerance: float) -> tuple[_Rates, int]:
    """EM for the rates, from the hectares of every distinct series."""
    rates = _Rates()
    weight = np.where((patterns >= 0).sum(axis=1) >= 2, hectares, 0.0)
    if weight.sum() <= 0:
        raise InputRefused(
            "no pixel of the zones was observed in two or more years, so neither change nor flicker can be estimated"
        )
    # a trace of every event keeps rates defined where a class never occurs
    trace = 1e-9 * weight.sum()
    rounds = 0
    for _ in range(max_iterations):
        rounds += 1
        _, _, posterior, pairs = _expect(patterns, rates)
        absent, present = posterior[:, :, 0] * weight[:, None], posterior[:, :, 1] * weight[:, None]
        step = np.einsum("p,ptij->ij", weight, pairs) + trace
        shown = [[(state * (patterns == seen)).sum() + trace for seen in (0, 1)] for state in (absent, present)]
        updated = _Rates(
            min(shown[0][1] / sum(shown[0]), 0.45),
            min(shown[1][0] / sum(shown[1]), 0.45),
            step[0, 1] / step[0].sum(),
            step[1, 0] / step[1].sum(),
            float(present[:, 0].sum() / weight.sum()),
        )
        moved = float(np.abs(updated.values() - rates.values()).max())
        rates = updated
        if moved <= tolerance:
            break
    return rates, rounds
