"""Simulated scenes for the radiometric check: small images of real-looking places, with weather, light and quality bands.

Made apart from `tests.offset_series` and on other principles, so that a rule tuned on one is tried on the other: here
places are images, ground changes by season, fire, flood and clearing, the sun's height changes the light on slopes, what
the atmospheric correction leaves is of either sign, and clouds throw shadows; products are Sentinel-2 (L2A and L1C) or
Landsat, and what is wrong with them is what archives get wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

WAVES = {
    "blue": 0.49, "green": 0.56, "red": 0.66, "rededge071": 0.704, "nir": 0.84, "nir08": 0.865, "swir16": 1.61,
    "swir22": 2.20,
}  # fmt: skip
_SPECTRA = {
    # blue, green, red, red edge, nir, nir08, swir16, swir22
    "rainforest": (0.016, 0.036, 0.019, 0.070, 0.290, 0.305, 0.125, 0.050),
    "dry_forest": (0.030, 0.055, 0.045, 0.105, 0.250, 0.265, 0.190, 0.100),
    "coca": (0.028, 0.062, 0.036, 0.110, 0.330, 0.350, 0.200, 0.095),
    "grass_green": (0.032, 0.070, 0.048, 0.120, 0.310, 0.330, 0.230, 0.120),
    "grass_dry": (0.060, 0.095, 0.115, 0.165, 0.240, 0.260, 0.320, 0.230),
    "crop": (0.030, 0.075, 0.035, 0.120, 0.420, 0.440, 0.190, 0.085),
    "soil": (0.075, 0.110, 0.155, 0.190, 0.240, 0.260, 0.340, 0.290),
    "black_water": (0.022, 0.022, 0.015, 0.013, 0.010, 0.010, 0.006, 0.004),
    "brown_water": (0.060, 0.095, 0.110, 0.090, 0.045, 0.040, 0.014, 0.009),
    "char": (0.025, 0.032, 0.038, 0.050, 0.080, 0.090, 0.140, 0.150),
    "town": (0.110, 0.130, 0.145, 0.160, 0.195, 0.205, 0.240, 0.220),
}
_CLOUD = np.array([0.52, 0.52, 0.53, 0.54, 0.57, 0.57, 0.36, 0.27])
KINDS = ("rainforest", "mosaic", "savanna", "cropland", "river", "burnt", "cleared", "mountains", "few_dates")
PRODUCTS = ("sentinel-2-l2a", "sentinel-2-l2a", "sentinel-2-l1c", "landsat-c2-l2")
FAULTS = (
    "undeclared", "not_applied", "twice", "some_undeclared", "some_twice", "one_date", "all_undeclared", "all_twice",
)  # fmt: skip


@dataclass
class Case:
    scenes: xr.Dataset
    where: xr.DataArray | None  # mask of products without a quality band
    clear: np.ndarray  # (time,) share of the pixels
    faulty: np.ndarray  # (time,) bool
    kind: str
    product: str

    @property
    def seeable(self) -> bool:
        """Whether a faulty date can be seen at all, and a right one beside it where there is any."""
        seen = self.clear > 0.2
        return bool((seen & self.faulty).any() and (self.faulty.all() or (seen & ~self.faulty).any()))


def make(seed: int, fault: str | None = None, *, side: int = 40) -> Case:
    """Scenes as `geococa.open_tile` gives them, with one of `FAULTS` or none."""
    rng = np.random.default_rng([5_011_977, seed])
    kind, product = str(rng.choice(KINDS)), str(rng.choice(PRODUCTS))
    days = _days(rng, kind, product)
    truth = _ground(rng, kind, days, side)
    seen, quality = _sky(rng, truth, days, product)
    return _product(rng, seen, quality, days, kind, product, fault)


def _days(rng, kind, product):
    """Days since 1970; series of both sides of 25 January 2022."""
    change = 19017
    few = kind == "few_dates"
    before, after = (int(rng.integers(2, 5)) for _ in "ab") if few else (int(rng.integers(4, 26)) for _ in "ab")
    span = 365.25 * rng.uniform(1.0, 3.5)
    days = np.concatenate([change - rng.uniform(1, span, before), change + rng.uniform(1, span, after)])
    return np.unique(np.floor(days)).astype(int)


def _smooth(rng, side, scale):
    """Random field of about ``scale`` cells, standard normal."""
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    power = np.exp(-2 * (np.pi * scale) ** 2 * (fx**2 + fy**2) / 4)
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * power, s=(side, side))
    return (field - field.mean()) / field.std()


def _patches(rng, side, shares):
    """Class of each cell, with such shares, in patches."""
    field = np.stack([_smooth(rng, side, rng.uniform(3, 9)) for _ in shares])
    bias = np.log(np.maximum(shares, 1e-6))
    return np.argmax(1.2 * field + bias[:, None, None], axis=0)


_COVERS = {
    "rainforest": {"rainforest": 0.95, "black_water": 0.02, "grass_green": 0.03},
    "mosaic": {"rainforest": 0.45, "coca": 0.1, "grass": 0.3, "soil": 0.08, "town": 0.02, "brown_water": 0.05},
    "savanna": {"grass": 0.7, "dry_forest": 0.2, "soil": 0.1},
    "cropland": {"crop": 0.6, "grass": 0.2, "rainforest": 0.15, "town": 0.05},
    "river": {"brown_water": 0.55, "rainforest": 0.35, "soil": 0.1},
    "burnt": {"dry_forest": 0.45, "grass": 0.45, "rainforest": 0.1},
    "cleared": {"rainforest": 0.9, "grass": 0.1},
    "mountains": {"rainforest": 0.7, "grass": 0.2, "coca": 0.1},
    "few_dates": {"rainforest": 0.5, "grass": 0.3, "coca": 0.1, "soil": 0.1},
}


def _ground(rng, kind, days, side):
    names = list(_COVERS[kind])
    shares = rng.dirichlet(np.array(list(_COVERS[kind].values())) * 12)
    cover = _patches(rng, side, shares)
    grain = 1 + 0.06 * rng.normal(size=(side, side)) + 0.02 * rng.normal(size=(8, side, side))
    relief = _smooth(rng, side, 6) * (0.22 if kind == "mountains" else 0.04)
    sown = rng.uniform(0, 365, (side, side)) * 0.3 + rng.uniform(0, 365)
    harvest = rng.uniform(0, 100, (side, side))
    event = rng.uniform(np.quantile(days, 0.1), np.quantile(days, 0.9))
    struck = np.zeros((side, side), bool)
    if kind in ("burnt", "cleared"):
        struck = _smooth(rng, side, 5) > rng.uniform(-0.8, 0.8)
    flood = _smooth(rng, side, 8)
    wet0 = rng.uniform(0, 365)
    strength = rng.uniform(0.5, 1.0) if kind in ("savanna", "cropland", "burnt") else rng.uniform(0.1, 0.6)
    out = np.empty((len(days), 8, side, side))
    for t, day in enumerate(days):
        wet = 0.5 + 0.5 * strength * np.cos(2 * np.pi * (day - wet0) / 365.25)
        plane = np.empty((8, side, side))
        for number, name in enumerate(names):
            here = cover == number
            if name == "grass":
                spectrum = wet * _spectrum("grass_green") + (1 - wet) * _spectrum("grass_dry")
                plane[:, here] = spectrum[:, None]
            elif name == "crop":
                green = np.clip(np.sin(np.pi * (((day - sown[here]) % 365.25) / 150)), 0, 1)
                green = np.where((day - sown[here]) % 365.25 > 150, 0, green)
                plane[:, here] = _spectrum("crop")[:, None] * green + _spectrum("soil")[:, None] * (1 - green)
            elif name == "coca":
                bare = 0.6 * np.exp(-(((day + harvest[here]) % 100) / 22))
                plane[:, here] = _spectrum("coca")[:, None] * (1 - bare) + _spectrum("soil")[:, None] * bare
            elif name == "dry_forest":
                leaf = 0.35 + 0.65 * wet
                plane[:, here] = (_spectrum("dry_forest") * leaf + _spectrum("grass_dry") * 0.7 * (1 - leaf))[:, None]
            else:
                plane[:, here] = _spectrum(name)[:, None]
        if kind == "river" and rng.random() < 0.4:
            plane[:, flood < rng.uniform(-2.0, -0.5)] = _spectrum("brown_water")[:, None] * rng.uniform(0.6, 1.3)
        if day > event:
            after = _spectrum("char") if kind == "burnt" else _spectrum("soil")
            back = min((day - event) / (300 if kind == "burnt" else 900), 1.0)
            plane[:, struck] = (after * (1 - back) + _spectrum("grass_green") * back)[:, None]
        sun = 1 + 0.10 * np.cos(2 * np.pi * (day - 172) / 365.25)
        light = 1 + 0.03 * rng.normal() + relief * (sun - 1) * 6 + relief * rng.normal() * 0.2
        out[t] = plane * grain * np.maximum(light, 0.35)
    return out


def _spectrum(name):
    return np.array(_SPECTRA[name])


def _sky(rng, truth, days, product):
    """Add air, cloud, shadow and noise; quality as class: 0 clear, 1 cloud, 2 shadow, 3 no data."""
    dates, _, side, _ = truth.shape
    waves = np.array(list(WAVES.values()))
    seen, quality = truth.copy(), np.zeros((dates, side, side), np.uint8)
    cloudiness = rng.uniform(0.1, 0.75) if dates > 12 else rng.uniform(0.05, 0.3)
    miss = rng.uniform(0.0, 0.5)  # how thick a cloud must be to be found
    sloppy = rng.uniform(0.02, 0.15)
    rayleigh = 0.071 * (waves / 0.49) ** -4.05 if product.endswith("l1c") else 0.0 * waves
    for t in range(dates):
        aerosol = rng.gamma(1.2, 0.012) - 0.006 if not product.endswith("l1c") else rng.gamma(2.0, 0.010)
        exponent = -rng.uniform(0.6, 2.2)
        veil = aerosol * (waves / 0.49) ** exponent
        patchy = 1 + 0.25 * _smooth(rng, side, 12)
        seen[t] += rayleigh[:, None, None] + veil[:, None, None] * patchy
        seen[t] += rng.normal(0, 0.0025, (8, 1, 1))  # of the correction, band by band
        share = np.clip(rng.beta(1.1, 1.1 * (1 - cloudiness) / cloudiness), 0, 0.97)
        field = _smooth(rng, side, rng.uniform(3, 8))
        edge = np.quantile(field, 1 - share)
        thick = np.clip((field - edge) / rng.uniform(0.3, 0.9) + 0.2, 0, 1)
        shift = tuple(int(n) for n in rng.integers(-6, 7, 2))
        shadow = np.roll(thick, shift, (0, 1)) * rng.uniform(0.4, 0.75)
        seen[t] = seen[t] * (1 - shadow) * (1 - thick) + _CLOUD[:, None, None] * thick * rng.uniform(0.85, 1.1)
        found = thick > (0.65 if rng.random() < sloppy else 0.05 + 0.4 * miss)
        quality[t][shadow > rng.uniform(0.12, 0.35)] = 2
        quality[t][found] = 1
        if rng.random() < 0.1:
            cut = rng.uniform(-0.5, 0.5) * side
            y, x = np.mgrid[:side, :side]
            quality[t][(x + y * rng.uniform(-1, 1)) < side / 2 + cut] = 3
    noise = rng.uniform(0.001, 0.004) * np.array([1, 1, 1, 1.2, 1.8, 1.8, 1.5, 1.3])
    seen += noise[:, None, None] * rng.normal(size=seen.shape)
    return seen, quality


def _product(rng, seen, quality, days, kind, product, fault):
    landsat = product == "landsat-c2-l2"
    scale, later = (2.75e-5 if landsat else 1e-4), days >= 19017
    true = np.full(len(days), -0.2) if landsat else np.where(later, -0.1, 0.0)
    if not landsat and rng.random() < 0.25:
        true[rng.random(len(days)) < 0.3] = -0.1  # reprocessed
    declared, faulty = true.copy(), np.zeros(len(days), bool)
    shifted = np.flatnonzero(true != 0)
    enough = np.flatnonzero((true != 0) & ((quality == 0).mean((1, 2)) > 0.2))
    if fault is not None:
        if fault.startswith("all_"):
            # the whole series has one baseline
            seen, quality, days = seen[shifted], quality[shifted], days[shifted]
            true, declared, faulty = true[shifted], true[shifted].copy(), np.ones(len(shifted), bool)
        elif fault == "one_date":
            faulty[rng.choice(enough if len(enough) else shifted)] = True
        elif fault.startswith("some_"):
            chosen = rng.choice(shifted, max(1, int(len(shifted) * rng.uniform(0.2, 0.7))), replace=False)
            faulty[chosen] = True
            if len(enough) and not faulty[enough].any():
                faulty[rng.choice(enough)] = True
        elif landsat:
            # from one date on
            faulty[days >= rng.choice(days[1:])] = True
        else:
            faulty = true != 0
    # what the numbers hold against what is said of them
    held = true.copy()
    word = fault or ""
    if word.endswith("undeclared") or (word == "one_date" and rng.random() < 0.5):
        declared[faulty] = 0.0
    elif word.endswith("twice") or word in ("one_date", "not_applied"):
        held[faulty] = 0.0  # the offset is declared, and was taken off already
    numbers = np.rint((seen - held[:, None, None, None]) / scale)
    numbers = np.clip(numbers, 1, 65534).astype(np.uint16)
    sets = (
        (("blue", "green", "red", "nir08", "swir16", "swir22"),)
        if landsat
        else (
            ("blue", "green", "red", "rededge071", "nir", "nir08", "swir16", "swir22"),
            ("blue", "green", "red", "nir", "swir16", "swir22"),
            ("blue", "green", "red", "nir"),
        )
    )
    names = sets[rng.integers(len(sets))]
    gone = quality == 3
    dims = ("time", "y", "x")
    data = {}
    for name in names:
        band = numbers[:, list(WAVES).index(name)].copy()
        band[gone] = 0
        data[name] = (dims, band, {"nodata": 0})
    if landsat:
        codes = np.array([1 << 6, 1 << 3, 1 << 4, 1], np.uint16)
        data["qa_pixel"] = (dims, codes[quality])
    elif not product.endswith("l1c"):
        data["scl"] = (dims, np.array([4, 9, 3, 0], np.uint8)[quality])
    where = None
    coords = {
        "time": pd.to_datetime(days, unit="D").values.astype("datetime64[ns]"),
        "band": list(names),
        "scale": (("time", "band"), np.full((len(days), len(names)), scale)),
        "offset": (("time", "band"), np.repeat(declared[:, None], len(names), 1)),
        "scene": ("time", [f"S{t}" for t in range(len(days))]),
    }
    scenes = xr.Dataset(data, coords=coords, attrs={"kind": "scenes", "sensor": product})
    if product.endswith("l1c"):
        # L1C has no classes: its mask is the caller's
        where = xr.DataArray(quality == 0, dims=dims, coords={"time": coords["time"]}, attrs={"kind": "clear"})
    return Case(scenes, where, (quality == 0).mean((1, 2)), faulty, kind, product)
