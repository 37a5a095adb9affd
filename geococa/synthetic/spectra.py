"""Reflectance of the land-cover classes in ten Sentinel-2 bands over the seasons, with correlated variation.

The mean spectra are typical surface reflectances of the humid tropics, chosen so that the confusions of real
maps come back: coca lies between young secondary forest and pasture, and a harvested plot looks like a thin crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geococa.synthetic.cover import CODE

__all__ = [
    "BANDS",
    "COARSE_BANDS",
    "FINE_BANDS",
    "LATENT",
    "TEXTURE_SD",
    "Traits",
    "canopy_of_coca",
    "draw_traits",
    "mean_spectra",
]

FINE_BANDS = ("blue", "green", "red", "nir")
"""Bands with 10 m pixels."""
COARSE_BANDS = ("rededge071", "rededge075", "rededge078", "nir08", "swir16", "swir22")
"""Bands with 20 m pixels."""
BANDS = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")
"""All bands by wavelength (STAC common names)."""

_ENDMEMBERS = {
    name: np.array(values)
    for name, values in {
        #                blue   green  red    re071  re075  re078  nir    nir08  swir16 swir22
        "forest":       (0.020, 0.042, 0.023, 0.078, 0.238, 0.292, 0.305, 0.322, 0.152, 0.066),
        "scrub":        (0.026, 0.057, 0.033, 0.101, 0.262, 0.322, 0.335, 0.352, 0.186, 0.088),
        "coca":         (0.030, 0.066, 0.039, 0.113, 0.268, 0.326, 0.338, 0.356, 0.204, 0.099),
        "green_pasture":(0.036, 0.074, 0.054, 0.124, 0.232, 0.272, 0.287, 0.306, 0.246, 0.139),
        "dry_pasture":  (0.056, 0.091, 0.101, 0.152, 0.203, 0.231, 0.246, 0.266, 0.302, 0.204),
        "crop":         (0.031, 0.071, 0.040, 0.119, 0.291, 0.362, 0.377, 0.393, 0.216, 0.106),
        "soil":         (0.068, 0.102, 0.142, 0.172, 0.193, 0.212, 0.231, 0.250, 0.331, 0.272),
        "clear_water":  (0.038, 0.046, 0.032, 0.028, 0.020, 0.019, 0.017, 0.015, 0.009, 0.006),
        "muddy_water":  (0.060, 0.088, 0.092, 0.086, 0.052, 0.050, 0.044, 0.038, 0.016, 0.011),
        "roofs":        (0.118, 0.136, 0.149, 0.158, 0.166, 0.178, 0.190, 0.200, 0.232, 0.214),
    }.items()
}  # fmt: skip

# Relative change of each band per unit of a latent variable: brightness, greenness, moisture and chlorophyll.
# Sums of these make the covariance: neighbouring bands move together, red and SWIR against the near infrared.
LATENT = np.array(
    [
        [1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00],
        [-0.40, -0.15, -0.80, -0.30, 0.30, 0.45, 0.50, 0.50, -0.25, -0.50],
        [0.00, 0.00, -0.10, 0.00, 0.00, 0.05, 0.05, 0.05, -0.80, -1.00],
        [0.00, 0.60, 0.15, 0.70, 0.20, 0.00, 0.00, 0.00, 0.00, 0.00],
    ]
)
_PATCH_SD = np.array([0.070, 0.110, 0.070, 0.070])
_TEXTURE_BASE_SD = np.array([0.075, 0.070, 0.050, 0.040])
TEXTURE_SD = {
    code: _TEXTURE_BASE_SD * {"forest": 1.0, "water": 0.4, "settlement": 2.2, "bare_soil": 1.4}.get(name, 1.1)
    for name, code in CODE.items()
}
"""Standard deviation of the latent variables inside a class, by class code."""

_DAYS = 365.25


@dataclass(frozen=True)
class Traits:
    """Lasting properties of each patch, shape ``(patches,)`` each, and its latent deviations ``(patches, 4)``."""

    harvests_a_year: NDArray[np.float64]
    phase: NDArray[np.float64]
    recovery_days: NDArray[np.float64]
    planting_day: NDArray[np.float64]
    full_canopy: NDArray[np.float64]
    share: NDArray[np.float64]
    latent: NDArray[np.float64]


def draw_traits(count: int, rng: np.random.Generator) -> Traits:
    """Draw the traits of ``count`` patches."""
    return Traits(
        harvests_a_year=rng.uniform(3.0, 7.0, count),
        phase=rng.random(count),
        recovery_days=rng.uniform(60.0, 90.0, count),
        planting_day=rng.uniform(5.0, 150.0, count),
        full_canopy=rng.uniform(0.85, 1.0, count),
        share=rng.random(count),
        latent=rng.normal(size=(count, 4)) * _PATCH_SD,
    )


def canopy_of_coca(day: float, age: NDArray[np.int64], traits: Traits, patch: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the ground that coca leaves cover.

    A plot is stripped three to seven times a year, out of step with its neighbours; the leaves come back
    along an S-curve within two to three months, or less where the next harvest comes earlier. Young plants
    need a year and a half to close their rows; before the planting day of its first year a plot is bare.

    Parameters
    ----------
    day : float
        Days since 1 January 2000.
    age : numpy.ndarray of int64, shape (n,)
        Years since the plot was (re)planted, 0 in that year.
    traits : Traits
        Traits of all patches.
    patch : numpy.ndarray of int64, shape (n,)
        Index of each plot's patch.
    """
    of_year = day % _DAYS
    interval = _DAYS / traits.harvests_a_year[patch]
    since_harvest = (day + traits.phase[patch] * interval) % interval
    recovered = 1.0 / (1.0 + np.exp(-(since_harvest / traits.recovery_days[patch] - 0.38) * 9.0))
    leaves = 0.45 + 0.55 * recovered
    grown = (age * _DAYS + of_year - traits.planting_day[patch]) / (1.5 * _DAYS)
    maturity = np.where(grown < 0, 0.0, 0.35 + 0.65 * np.clip(grown, 0.0, 1.0))
    # a first year without harvest
    return np.asarray(traits.full_canopy[patch] * maturity * np.where(grown < 0.4, 1.0, leaves))


def mean_spectra(
    day: float,
    code: NDArray[np.int8],
    age: NDArray[np.int64],
    patch: NDArray[np.int64],
    traits: Traits,
) -> NDArray[np.float64]:
    """Mean reflectance of patches on one day, before texture and noise.

    Parameters
    ----------
    day : float
        Days since 1 January 2000.
    code : numpy.ndarray of int8, shape (n,)
        Class code of each patch in this year.
    age : numpy.ndarray of int64, shape (n,)
        Years since the present cover began.
    patch : numpy.ndarray of int64, shape (n,)
        Index into ``traits``.
    traits : Traits
        Traits of all patches.

    Returns
    -------
    numpy.ndarray of float64, shape (n, 10)
        Reflectance (1) in the order of `BANDS`.
    """
    members = _ENDMEMBERS
    out = np.zeros((len(code), len(BANDS)))
    dry = 0.5 + 0.5 * np.cos(2 * np.pi * (day % _DAYS - 30.0) / _DAYS)  # driest about the end of January
    share = traits.share[patch]

    def mix(name: str, first: str, second: str, weight: NDArray[np.floating[Any]]) -> None:
        chosen = code == CODE[name]
        w = np.clip(weight[chosen], 0.0, 1.0)[:, None]
        out[chosen] = w * members[first] + (1 - w) * members[second]

    mix("coca", "coca", "soil", canopy_of_coca(day, age, traits, patch))
    mix("forest", "forest", "scrub", 1.0 - 0.10 * share)
    # fallow: thin scrub that closes within two years and becomes forest in fifteen
    mix("secondary_forest", "scrub", "soil", 0.70 + 0.12 * age)
    older = np.where(code == CODE["secondary_forest"], np.clip((age - 2) / 13.0, 0.0, 1.0), 0.0)[:, None]
    out += older * (members["forest"] - out)
    mix("pasture", "dry_pasture", "green_pasture", 0.10 + 0.75 * dry * (0.5 + share))
    shrubs = np.where(code == CODE["pasture"], np.clip(0.5 * traits.phase[patch] - 0.1, 0.0, 0.4), 0.0)[:, None]
    out += shrubs * (members["scrub"] - out)
    season = (2.0 * day / _DAYS + traits.phase[patch]) % 1.0  # two crops a year
    mix("other_crops", "crop", "soil", 0.12 + 0.85 * np.sin(np.pi * season) ** 0.8)
    mix("bare_soil", "soil", "dry_pasture", 0.70 + 0.30 * share)
    mix("water", "muddy_water", "clear_water", 0.15 + 0.5 * share + 0.3 * (1.0 - dry))
    mix("settlement", "roofs", "soil", 0.35 + 0.35 * share)
    houses = (code == CODE["settlement"])[:, None] * 0.25  # trees and gardens between the houses
    out += houses * (members["scrub"] - out)
    return np.asarray(out * (1.0 + traits.latent[patch] @ LATENT))
