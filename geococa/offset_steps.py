"""Additive steps between the dates of a series, measured on its dark land: plain arrays in, plain arrays out.

A forgotten or doubled offset adds the same number to every band and every pixel of a date. Nothing on the ground or
in the air does: haze and smoke fade with wavelength, cloud hides contrast and is patchy, seasons and clearings move
the bands against each other, a change of light multiplies. So the shift of each date against the others is measured
band by band on pixels that are dark and covered with plants, what follows the spectrum of haze is taken out, and
only what remains flat across the bands and even across the pixels is called a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGEST_STEP", "SMALLEST_STEP", "Steps", "find_steps"]

Floats = NDArray[np.float64]

SMALLEST_STEP = 0.05
"""Flat shift, in reflectance, from which a date counts as shifted; the noise of one date is about 0.012."""
LARGEST_STEP = 0.3
"""Flat shift beyond which a date is cloud, and no offset of a product."""

_LEAST_PIXELS = 25  # common clear dark pixels that two dates need to be compared
_HAZE_EXPONENT = -1.6  # of wavelength: between Rayleigh scattering (-4) and coarse smoke (about -1)
_SIZE_TOLERANCE = 0.5  # logarithm of the ratio to a declared offset: haze and noise change what a step looks like
_ALIKE, _ENOUGH_DATES = 0.02, 3  # so far apart at most, so many at least are shifts of a size that nobody declares
_CONTRAST_LOSS = 1.2  # per unit of shift; thin cloud has about 2
_HAZE_SHARE = 0.7  # of a bright shift; thin cloud looks like a shift and as much haze
_EVEN_SHARE = 0.8  # pixels that must show the step, since cloud and smoke are patchy
_LIFTED_SHARE, _LIFTED_SIZE = 0.4, 0.75  # of a bright shift, of an offset: how far the darkest ground must have risen
_NEIGHBOURS = 7  # dates around one that say what its pixels should be
_DARK_SPREAD = 0.012  # repeatability of a dark band between dates, and what light and season add to it
_LIGHT_SPREAD = 0.12
_TOO_BRIGHT, _TOO_DARK = 0.09, -0.02  # the darkest ground among plants never lies outside in its darkest visible band
_FAR_TOO_DARK = -0.035  # no shadow is as dark, and no correction for the air errs as far in two bands
_DARKEST_SHARE = 0.05  # of the pixels; a place of dry grass is bright as a whole, but not everywhere
_MOST_SAMPLED = 200  # dark pixels that are taken at least, where half of the place is less
_LAGS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233)


@dataclass(frozen=True)
class Steps:
    """What `find_steps` found.

    Attributes
    ----------
    shift : numpy.ndarray of float64, shape (time,)
        Flat shift of each date against the largest group of dates, in reflectance; NaN = could not be compared.
    haze : numpy.ndarray of float64, shape (time,)
        Shift of the shortest band that follows the spectrum of haze.
    by_band : numpy.ndarray of float64, shape (time, band)
        Shift of each band.
    shifted : numpy.ndarray of bool, shape (time,)
        Dates whose shift is flat, even, and no smaller than `SMALLEST_STEP`.
    wrong : numpy.ndarray of int8, shape (time,)
        Which dates can't be reflectance: 1 = too bright, -1 = too dark, 0 = plausible.
    pixels : numpy.ndarray of int64, shape (time,)
        Clear dark pixels of each date.
    level : numpy.ndarray of float64, shape (band,)
        Reflectance of the dark pixels in the largest group, without the light of the air.
    """

    shift: Floats
    haze: Floats
    by_band: Floats
    shifted: NDArray[np.bool_]
    wrong: NDArray[np.int8]
    pixels: NDArray[np.int64]
    level: Floats


def find_steps(
    values: NDArray[np.floating],
    wavelength_um: NDArray[np.floating],
    sizes: Sequence[float] = (),
    *,
    through_air: bool = False,
) -> Steps:
    """Find dates that are shifted against the others, or a whole series that can't be reflectance.

    Parameters
    ----------
    values : numpy.ndarray of float, shape (time, band, pixel)
        Reflectance of a sample of pixels, NaN = not clear.
    wavelength_um : numpy.ndarray of float, shape (band,)
        Centre wavelengths in micrometres.
    sizes : sequence of float
        Sizes of the offsets that the products of the series declare. A step of another size must be shared by
        three dates; where no sizes are given, any from `SMALLEST_STEP` to `LARGEST_STEP` counts.
    through_air : bool
        Whether the values are reflectance at the top of the atmosphere, which holds the light of the air itself.

    Returns
    -------
    Steps
    """
    waves = np.asarray(wavelength_um, np.float64)
    series = np.asarray(values, np.float64)
    if through_air:
        series = series - _clean_air(waves)[:, np.newaxis]
    chosen, planted = _dark_land(series, waves)
    dark = series[:, :, chosen]
    count = np.isfinite(dark).all(axis=1).sum(axis=1)
    reference = _median(_median(dark, 0), 1)
    spread = _DARK_SPREAD + _LIGHT_SPREAD * np.maximum(np.nan_to_num(reference), 0.0)
    by_band, compared = _band_shifts(dark)
    shape = (waves / waves.min()) ** _HAZE_EXPONENT
    flat, haze = _split_haze(by_band, shape, spread)
    flat[~compared] = haze[~compared] = np.nan
    members = _largest_group(flat)
    centre = np.median(flat[members]) if members.any() else np.nan
    base = np.median(by_band[members], axis=0) if members.any() else np.full(len(waves), np.nan)
    flat, haze = flat - centre, haze - (np.median(haze[members]) if members.any() else 0.0)
    shifts = by_band - base
    level = _median(_median(dark[members], 0), 1) if members.any() else reference
    rise = _darkest_rise(series, members)[:, _telling_dark(waves)]
    lifted = rise.min(axis=1) if rise.shape[1] else np.full(len(flat), np.nan)
    cloudy = _like_thin_cloud(flat, haze, shifts, waves, level) | ((flat > 0) & (lifted < _LIFTED_SHARE * flat))
    fitting = _of_size(flat, lifted, sizes) & ~cloudy
    shifted = _even_and_flat(dark, members, fitting, flat, haze, shifts, shape, spread, level)
    shifted |= _even(series, dark, members, _lifted_by_a_size(rise, flat, sizes), lifted, level)
    wrong = _implausible(flat, shifted, _darkest(series, members), waves, planted)
    impossible = _impossible(dark, series, waves)
    wrong[impossible] = -1
    shifted |= impossible
    shifts[~compared] = np.nan
    return Steps(flat, haze, shifts, shifted, wrong, count, level)


def _clean_air(waves: Floats) -> Floats:
    """Reflectance of air without dust, sun 30 degrees from the zenith, seen from above; single scattering, so a lower bound.

    Optical depth after Hansen and Travis (1974), Space Science Reviews 16, 527-610.
    """
    depth = 0.008569 * waves**-4 * (1 + 0.0113 * waves**-2 + 0.00013 * waves**-4)
    phase = 0.75 * (1 + np.cos(np.radians(150.0)) ** 2)
    light: Floats = depth * phase / (4 * np.cos(np.radians(30.0)))
    return light


def _darkest(values: Floats, members: NDArray[np.bool_]) -> Floats:
    """Reflectance of the darkest ground by band, in the largest group of dates."""
    place = _median(values[members] if members.any() else values, 0)
    seen = np.isfinite(place).all(axis=0)
    if not seen.any():
        return np.full(values.shape[1], np.nan)
    darkest: Floats = np.quantile(place[:, seen], _DARKEST_SHARE, axis=1)
    return darkest


def _telling_dark(waves: Floats) -> NDArray[np.bool_]:
    """Bands in which plants, water and shade are all dark."""
    return np.asarray((waves < 0.69) | ((waves > 2.0) & (waves < 2.5)))


def _darkest_rise(values: Floats, members: NDArray[np.bool_]) -> Floats:
    """How much brighter the darkest ground is on each date than in the largest group, over what the date shows.

    Cloud and smoke that a mask misses are patchy and leave some of the darkest ground as it is; an offset leaves none.
    """
    rise = np.full(values.shape[:2], np.nan)
    place = _median(values[members] if members.any() else values, 0)
    known = np.isfinite(place).all(axis=0)
    for t, plane in enumerate(values):
        seen = known & np.isfinite(plane).all(axis=0)
        if seen.sum() >= _LEAST_PIXELS:
            now, usual = (np.quantile(part[:, seen], _DARKEST_SHARE, axis=1) for part in (plane, place))
            rise[t] = now - usual
    return rise


def _lifted_by_a_size(rise: Floats, flat: Floats, sizes: Sequence[float]) -> NDArray[np.bool_]:
    """Dates whose darkest ground is brighter by a declared offset in every band in which it is dark."""
    found = np.zeros(len(rise), bool)
    if rise.shape[1]:
        for size in sizes:
            found |= (rise.min(axis=1) >= max(_LIFTED_SIZE * size, SMALLEST_STEP)) & (rise.max(axis=1) <= 2 * size)
    return found & ~(flat <= 0)


def _even(
    values: Floats,
    dark: Floats,
    members: NDArray[np.bool_],
    candidates: NDArray[np.bool_],
    step: Floats,
    level: Floats,
) -> NDArray[np.bool_]:
    """Which of the candidates are brighter by half a step or more in nearly all pixels, dark ones where they are seen."""
    even = np.zeros(len(candidates), bool)
    telling = _dark_bands(level)
    peers = np.flatnonzero(members)
    for t in np.flatnonzero(candidates):
        near = peers[np.argsort(np.abs(peers - t), kind="stable")[:_NEIGHBOURS]]
        for pixels in (dark, values):
            difference = (pixels[t] - _median(pixels[near], 0))[telling].mean(axis=0)
            seen = difference[np.isfinite(difference)]
            if len(seen) >= _LEAST_PIXELS:
                even[t] = (seen > 0.5 * step[t]).mean() >= _EVEN_SHARE
                break
    return even


def _dark_bands(level: Floats) -> NDArray[np.bool_]:
    return np.asarray(level < max(0.13, float(np.sort(level)[min(2, len(level) - 1)])))


def _median(values: Floats, axis: int) -> Floats:
    """Median without NaN, NaN where there is nothing (and no warning)."""
    if values.shape[axis] == 0:
        return np.full(np.delete(values.shape, axis), np.nan)
    ordered = np.sort(values, axis=axis)  # NaN last
    count = np.isfinite(values).sum(axis=axis)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    pick = [
        np.take_along_axis(ordered, np.expand_dims(np.minimum(i, values.shape[axis] - 1), axis), axis).squeeze(axis)
        for i in (low, high)
    ]
    return np.where(count > 0, (pick[0] + pick[1]) / 2, np.nan)


def _dark_land(values: Floats, waves: Floats) -> tuple[NDArray[np.int64], bool]:
    """Darkest half of the pixels with plants (of all, where there are too few), and whether they have plants.

    The near infrared is compared with the red by their difference, which no offset changes.
    """
    middle = _median(values, 0)
    usable = np.isfinite(middle).all(axis=0) & (np.isfinite(values).all(axis=1).sum(axis=0) >= min(2, len(values)))
    red, nir = int(np.argmin(np.abs(waves - 0.66))), int(np.argmin(np.abs(waves - 0.85)))
    planted = usable & (middle[nir] - middle[red] > 0.12) if waves[nir] > 0.75 > waves[red] > 0.6 else usable & False
    enough = int(planted.sum()) >= 2 * _LEAST_PIXELS
    pool = np.flatnonzero(planted if enough else usable)
    bright = ~((waves > 0.69) & (waves < 1.9))  # plants are bright there, so it does not tell dark ground
    order = (middle[bright] if bright.any() else middle)[:, pool].mean(axis=0)
    if enough:
        # clearings and fires change what no offset can
        greenness = values[:, nir][:, pool] - values[:, red][:, pool]
        order = order + _median(np.abs(greenness - _median(greenness, 0)), 0)
    keep = max(len(pool) // 2, min(len(pool), _MOST_SAMPLED))
    return np.sort(pool[np.argsort(order, kind="stable")[:keep]]), enough


def _band_shifts(dark: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Shift of each date and band that explains the median differences between pairs of dates, least absolute error.

    Each difference is taken over pixels that are clear on both dates, so it does not matter which part of the
    place a cloud hides.
    """
    dates, bands, _ = dark.shape
    clear = np.asarray(np.isfinite(dark).all(axis=1))
    lags = range(1, dates) if dates <= 16 else [lag for lag in _LAGS if lag < dates]
    first, second, differences, weights = [], [], [], []
    for lag in lags:
        for t in range(dates - lag):
            both = clear[t] & clear[t + lag]
            n = int(both.sum())
            if n >= _LEAST_PIXELS:
                first.append(t)
                second.append(t + lag)
                differences.append(np.median(dark[t + lag][:, both] - dark[t][:, both], axis=1))
                weights.append(np.sqrt(n))
    if not first:
        return np.zeros((dates, bands)), np.zeros(dates, bool)
    return _least_absolute(np.array(first), np.array(second), np.array(differences), np.array(weights), dates)


def _least_absolute(
    first: NDArray[np.int64], second: NDArray[np.int64], difference: Floats, weight: Floats, dates: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Potentials of a graph from differences along its edges, by iteratively reweighted least squares."""
    bands = difference.shape[1]
    out = np.zeros((dates, bands))
    group = _components(first, second, dates)
    largest = np.bincount(group).argmax()
    compared = (group == largest) & (np.bincount(np.concatenate([first, second]), minlength=dates) > 0)
    for band in range(bands):
        w = weight / weight.max()
        for _ in range(12):
            laplacian = np.zeros((dates, dates))
            np.add.at(laplacian, (first, first), w)
            np.add.at(laplacian, (second, second), w)
            np.add.at(laplacian, (first, second), -w)
            np.add.at(laplacian, (second, first), -w)
            right = np.zeros(dates)
            np.add.at(right, second, w * difference[:, band])
            np.add.at(right, first, -w * difference[:, band])
            out[:, band] = np.linalg.solve(laplacian + 1e-6 * np.eye(dates), right)
            residual = np.abs(difference[:, band] - out[second, band] + out[first, band])
            w = weight / weight.max() / np.maximum(residual, 0.004) * 0.004
    return out, compared


def _components(first: NDArray[np.int64], second: NDArray[np.int64], dates: int) -> NDArray[np.int64]:
    """Number of the connected part that each date belongs to."""
    group = np.arange(dates)
    for _ in range(dates):
        before = group.copy()
        low = np.minimum(group[first], group[second])
        np.minimum.at(group, first, low)
        np.minimum.at(group, second, low)
        if (group == before).all():
            break
    return group


def _split_haze(by_band: Floats, shape: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Part of the shifts that is the same in all bands, and part that follows the spectrum of haze."""
    design = np.column_stack([np.ones_like(shape), shape]) / spread[:, np.newaxis]
    # haze of 0.08 in the shortest band is common: this keeps the two parts apart where few bands are there
    normal = design.T @ design + np.diag([0.0, 1.0 / 0.08**2])
    flat, haze = np.linalg.solve(normal, design.T @ (by_band / spread).T)
    return flat.copy(), haze.copy()


def _largest_group(flat: Floats) -> NDArray[np.bool_]:
    """Dates that share one level: the densest cluster of shifts."""
    known = np.isfinite(flat)
    if not known.any():
        return known
    near = np.abs(flat[known][:, np.newaxis] - flat[known]) < SMALLEST_STEP / 2
    centre = flat[known][int(near.sum(axis=1).argmax())]
    return known & (np.abs(flat - centre) < SMALLEST_STEP / 2)


def _of_size(flat: Floats, lifted: Floats, sizes: Sequence[float]) -> NDArray[np.bool_]:
    """Which shifts are as large as a declared offset, also on the darkest ground, or shared by at least three dates."""
    size = np.abs(np.nan_to_num(flat))
    possible = (size >= SMALLEST_STEP) & (size <= LARGEST_STEP)
    if not len(sizes):
        return possible
    declared = np.asarray(sizes, np.float64)
    near = np.abs(np.log(np.maximum(size[:, np.newaxis], 1e-9) / declared)) <= _SIZE_TOLERANCE
    near &= ~((flat > 0)[:, np.newaxis] & (lifted[:, np.newaxis] < _LIFTED_SIZE * declared))
    known = (size >= SMALLEST_STEP) & near.any(axis=1)
    alike = np.abs(flat[:, np.newaxis] - np.where(possible, flat, np.nan)) <= _ALIKE
    return np.asarray(known | (possible & (alike.sum(axis=1) >= _ENOUGH_DATES)))


def _like_thin_cloud(flat: Floats, haze: Floats, shifts: Floats, waves: Floats, level: Floats) -> NDArray[np.bool_]:
    """Which dates look as if thin cloud lay over them that the mask has missed.

    Cloud of opacity a adds about 0.5 a to dark ground in the visible and half of that in the short-wave infrared,
    which looks like a shift with as much haze, and leaves (1 - a) of the contrast between the bands. An offset is
    the same in all bands and leaves all of the contrast, which dims in shadow alone.
    """
    shape = (waves / waves.min()) ** _HAZE_EXPONENT
    spread = 0.012 + 0.03 * np.maximum(level, 0.0)
    design = np.column_stack([np.ones_like(shape), shape, level]) / spread[:, np.newaxis]
    normal = design.T @ design + np.diag([0.0, 1.0 / 0.08**2, 1.0 / 0.5**2])
    lost = -np.linalg.solve(normal, design.T @ np.nan_to_num(shifts / spread).T)[2]
    size, path = np.abs(np.nan_to_num(flat)), np.nan_to_num(haze)
    dim = lost > _CONTRAST_LOSS * size
    if waves.max() > 1.5:
        dim &= path > 0.3 * _HAZE_SHARE * size
    # nothing in the air makes dark ground darker by as much
    return np.asarray((dim | (path > _HAZE_SHARE * size)) & (np.nan_to_num(flat) > 0))


def _even_and_flat(
    dark: Floats,
    members: NDArray[np.bool_],
    fitting: NDArray[np.bool_],
    flat: Floats,
    haze: Floats,
    shifts: Floats,
    shape: Floats,
    spread: Floats,
    level: Floats,
) -> NDArray[np.bool_]:
    """Which of the shifted dates are shifted in all bands and nearly all pixels alike."""
    shifted = np.zeros(len(flat), bool)
    peers = np.flatnonzero(members)
    telling = _dark_bands(level)
    for t in np.flatnonzero(fitting):
        rest = shifts[t] - flat[t] - haze[t] * shape
        if (np.abs(rest) > np.maximum(0.35 * abs(flat[t]), 3.0 * spread)).any():
            continue
        sign = np.sign(flat[t])
        if (sign * shifts[t][telling] < 0.4 * abs(flat[t])).any():
            continue
        near = peers[np.argsort(np.abs(peers - t), kind="stable")[:_NEIGHBOURS]]
        difference = sign * (dark[t] - _median(dark[near], 0) - haze[t] * shape[:, np.newaxis])[telling].mean(axis=0)
        seen = difference[np.isfinite(difference)]
        if len(seen) >= _LEAST_PIXELS and (seen > 0.5 * abs(flat[t])).mean() >= _EVEN_SHARE:
            shifted[t] = True
    return shifted


def _impossible(dark: Floats, values: Floats, waves: Floats) -> NDArray[np.bool_]:
    """Which dates have ground below zero in two dark bands: no light, ground, season or correction for the air does that."""
    telling = _telling_dark(waves)
    found = np.zeros(len(dark), bool)
    if not telling.any():
        return found
    least = min(2, int(telling.sum()))
    # dark ground as a whole, or the darkest of all ground by more
    for pixels, share, limit in ((dark, 0.5, _TOO_DARK), (values, _DARKEST_SHARE, _FAR_TOO_DARK)):
        for t, plane in enumerate(pixels[:, telling]):
            seen = np.isfinite(plane).all(axis=0)
            if seen.sum() >= _LEAST_PIXELS:
                found[t] |= (np.quantile(plane[:, seen], share, axis=1) < limit).sum() >= least
    return found


def _implausible(
    flat: Floats, shifted: NDArray[np.bool_], darkest: Floats, waves: Floats, planted: bool
) -> NDArray[np.int8]:
    """Say which group can't be reflectance, from the darkest ground of the place in its darkest visible bands."""
    wrong = np.zeros(len(flat), np.int8)
    visible = _telling_dark(waves)
    known = np.isfinite(flat)
    if not visible.any() or not np.isfinite(darkest[visible]).all():
        return wrong
    levels = np.sort(darkest[visible])
    for group in (known & ~shifted, shifted & (flat > 0), shifted & (flat < 0)):
        if not group.any():
            continue
        here = levels + (float(np.median(flat[group])) if shifted[group].any() else 0.0)
        # one band alone may be taken below zero by the correction for the air
        if here[min(1, len(here) - 1)] < _TOO_DARK:
            wrong[group] = -1
        elif planted and here[0] > _TOO_BRIGHT:
            wrong[group] = 1
    return wrong
