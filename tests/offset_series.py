"""Simulated series of one place for the radiometric check: cover, seasons, clearings, weather, masks that miss, faults.

Independent of `geococa.synthetic`: pixels are points without geography, but clouds and haze vary in space along a line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NAMES = ("blue", "green", "red", "rededge071", "nir", "nir08", "swir16", "swir22")
WAVES = np.array([0.49, 0.56, 0.665, 0.704, 0.842, 0.865, 1.61, 2.19])
SPECTRA = {
    "forest": (0.020, 0.042, 0.023, 0.078, 0.305, 0.322, 0.152, 0.066),
    "scrub": (0.026, 0.057, 0.033, 0.101, 0.335, 0.352, 0.186, 0.088),
    "coca": (0.030, 0.066, 0.039, 0.113, 0.338, 0.356, 0.204, 0.099),
    "green_pasture": (0.036, 0.074, 0.054, 0.124, 0.287, 0.306, 0.246, 0.139),
    "dry_pasture": (0.056, 0.091, 0.101, 0.152, 0.246, 0.266, 0.302, 0.204),
    "soil": (0.068, 0.102, 0.142, 0.172, 0.231, 0.250, 0.331, 0.272),
    "water": (0.045, 0.060, 0.050, 0.045, 0.025, 0.022, 0.012, 0.008),
    "roofs": (0.118, 0.136, 0.149, 0.158, 0.190, 0.200, 0.232, 0.214),
    "burnt": (0.030, 0.040, 0.050, 0.065, 0.110, 0.120, 0.190, 0.170),
}
SPECTRA = {name: np.array(values) for name, values in SPECTRA.items()}
CLOUD = np.array([0.56, 0.55, 0.56, 0.57, 0.60, 0.60, 0.42, 0.33])
FAULTS = ("not_applied", "undeclared", "twice", "already_applied")


@dataclass
class Series:
    values: np.ndarray  # (time, band, pixel) reflectance as a reader would compute it, NaN = not clear
    days: np.ndarray  # since 1 January 2019
    names: tuple[str, ...]
    waves: np.ndarray
    offset: np.ndarray  # declared, (time,)
    faulty: np.ndarray  # (time,) bool
    error: np.ndarray  # (time,) what the fault adds


def _field(rng, n, scale):
    """Smooth random line, standard normal."""
    knots = max(4, int(n / scale))
    line = np.interp(np.linspace(0, knots - 1, n), np.arange(knots), rng.normal(size=knots))
    return line / max(line.std(), 1e-6)


def simulate(seed: int, fault: str | None = None, *, pixels: int = 900) -> Series:
    rng = np.random.default_rng([20220125, seed])
    sets = [
        NAMES,
        NAMES,
        ("blue", "green", "red", "nir", "swir16", "swir22"),
        ("blue", "green", "red", "nir"),
        ("red", "nir", "swir16"),
    ]
    names = sets[rng.integers(len(sets))]
    use = np.array([NAMES.index(name) for name in names])
    years = int(rng.integers(4, 8))
    dates = np.sort(rng.uniform(0, years * 365.25, int(rng.integers(3, 9)) * years))
    truth = _ground(rng, dates, pixels)
    seen, clear = _weather(rng, truth, dates)
    step = float(rng.choice([0.1, 0.1, 0.1, 0.05 * rng.integers(2, 5)]))  # the offset is a matter of the products
    begins = rng.uniform(0.15, 0.85) * dates[-1]
    later = dates >= begins
    if rng.random() < 0.25:  # reprocessed ones among the old, as archives have them
        later |= rng.random(len(dates)) < 0.3
    faulty, error = np.zeros(len(dates), bool), np.zeros(len(dates))
    if fault is not None:
        # all of the products with an offset, or some of them
        share = rng.choice([1.0, 1.0, 0.5, 0.25])
        faulty = later & (rng.random(len(dates)) <= share)
        shown = clear.mean(axis=1) > 0.2  # a fault of dates that nobody can see is none
        if not (faulty & shown).any():
            faulty[np.argmax(clear.mean(axis=1) * (1 + later))] = True
        error[faulty] = step if fault in ("not_applied", "undeclared") else -step
    offset = np.where(later, -step, 0.0)
    if fault == "undeclared":
        offset[faulty] = 0.0
    numbers = np.rint((seen[:, use] - offset[:, None, None]) / 1e-4)
    # digital numbers do not go below 1, so what lies far below 0 is clipped
    values = np.maximum(numbers, 1) * 1e-4 + offset[:, None, None] + error[:, None, None]
    values[~np.broadcast_to(clear[:, None, :], values.shape)] = np.nan
    return Series(values, dates, tuple(names), WAVES[use], offset, faulty, error)


def _ground(rng, dates, pixels):
    """Reflectance (time, band, pixel): cover with seasons, clearings, fires and a change of light."""
    kinds = ("forest", "scrub", "coca", "pasture", "soil", "water", "roofs")
    shares = rng.dirichlet(np.array([4.0, 1.5, 0.7, 2.0, 0.5, 0.6, 0.2]) * rng.choice([0.5, 1.0, 3.0]))
    kind = np.sort(rng.choice(len(kinds), pixels, p=shares))
    texture = 1 + 0.07 * rng.normal(size=pixels) + np.zeros((len(NAMES), 1))
    texture += 0.03 * rng.normal(size=(len(NAMES), pixels))
    out = np.empty((len(dates), len(NAMES), pixels))
    wet = 0.5 + 0.5 * np.cos(2 * np.pi * (dates - 30) / 365.25 + rng.normal() * 0.3)
    cleared = np.where(rng.random(pixels) < rng.choice([0.0, 0.05, 0.3, 0.6]), rng.uniform(0, dates[-1]), np.inf)
    burnt = np.where(rng.random(pixels) < rng.choice([0.0, 0.0, 0.2]), rng.uniform(0, dates[-1]), np.inf)
    harvest = rng.uniform(0, 90, pixels)
    for t, day in enumerate(dates):
        plane = np.empty((len(NAMES), pixels))
        for number, name in enumerate(kinds):
            here = kind == number
            if name == "pasture":
                spectrum = (1 - wet[t]) * SPECTRA["green_pasture"] + wet[t] * SPECTRA["dry_pasture"]
                plane[:, here] = spectrum[:, None]
            elif name == "coca":
                bare = 0.5 * np.exp(-((day + harvest[here]) % 90) / 25)
                plane[:, here] = SPECTRA["coca"][:, None] * (1 - bare) + SPECTRA["soil"][:, None] * bare
            else:
                plane[:, here] = SPECTRA[name][:, None]
        gone = (day > cleared) & (kind < 3)
        plane[:, gone] = SPECTRA["soil"][:, None]
        plane[:, gone & (day > cleared + 500)] = SPECTRA["green_pasture"][:, None]
        plane[:, (day > burnt) & (day < burnt + 120) & (kind != 5)] = SPECTRA["burnt"][:, None]
        light = 1 + 0.05 * rng.normal() + 0.02 * rng.normal(size=len(NAMES))
        drift = rng.normal(0, 0.004, len(NAMES))  # of the atmospheric correction
        out[t] = plane * texture * light[:, None] + drift[:, None]
        if rng.random() < 0.1:  # the sun glitters on the water
            out[t][:, kind == 5] += rng.uniform(0.03, 0.12)
    return out


def _weather(rng, truth, dates):
    """What the sensor sees and what the quality band calls clear."""
    seen, clear = truth.copy(), np.ones((len(dates), truth.shape[2]), bool)
    pixels = truth.shape[2]
    order = rng.permutation(pixels)
    cover = rng.beta(1.2, 1.2 * (1 - 0.5) / 0.5, len(dates)) * rng.choice([0.6, 0.9, 1.1])
    season = rng.choice([0.0, 0.8])
    for t, day in enumerate(dates):
        haze = rng.gamma(1.3, 0.22) + season * (rng.random() < 0.2) * max(0.0, np.sin(2 * np.pi * day / 365.25)) * 2
        exponent = rng.uniform(-2.5, -1.2)
        veil = haze * (0.6 + 0.4 * np.tanh(_field(rng, pixels, 150)))[np.argsort(order)]
        path = 0.075 * (WAVES / 0.49) ** exponent
        seen[t] = seen[t] * (1 - 0.25 * np.minimum(veil, 2.0)) + path[:, None] * veil
        shape = _field(rng, pixels, 60)[np.argsort(order)]
        depth = np.clip((shape - np.quantile(shape, max(0.0, 1 - min(cover[t], 0.98)))) / 0.45 + 0.35, 0, 1)
        depth = depth * depth * (3 - 2 * depth)
        shade = np.roll(depth, 40) * 0.6
        seen[t] = seen[t] * (1 - shade) * (1 - depth) + CLOUD[:, None] * depth * np.exp(0.08 * rng.normal())
        missed = rng.random() < 0.04  # the mask of a date finds little
        clear[t] = (depth < (0.6 if missed else 0.25)) & (shade < 0.35 + 0.2 * rng.random())
        clear[t] &= rng.random(pixels) > 0.01
        if rng.random() < 0.12:
            clear[t, order[: int(rng.uniform(0.2, 0.9) * pixels)]] = False  # swath edge
    noise = 0.004 * np.array([1, 1, 1, 1.2, 1.7, 1.6, 1.4, 1.2])
    seen += noise[:, None] * rng.normal(size=seen.shape)
    return seen, clear
